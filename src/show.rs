//! Rows as a table that fits a screen.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;

/// Characters of a cell; the rest is shown as `…`.
const CELL: usize = 28;

/// The first `limit` rows.
pub fn table(batches: &[RecordBatch], limit: usize) -> Result<String, ArrowError> {
    let mut left = limit;
    let mut shown = vec![];
    for batch in batches {
        let part = batch.slice(0, batch.num_rows().min(left));
        left -= part.num_rows();
        shown.push(shortened(&part)?);
    }
    Ok(pretty_format_batches(&shown)?.to_string())
}

fn shortened(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = FormatOptions::default();
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let cells = ArrayFormatter::try_new(column, &options)?;
        let texts = (0..batch.num_rows()).map(|row| cell(cells.value(row).to_string()));
        Ok((field.name().clone(), Arc::new(StringArray::from_iter_values(texts)) as ArrayRef))
    });
    RecordBatch::try_from_iter(columns.collect::<Result<Vec<_>, ArrowError>>()?)
}

fn cell(text: String) -> String {
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
