//! Rows for the dead letter.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampNanosecondBuilder,
};
use arrow::error::ArrowError;

use crate::plan::{dead_letter_schema, instant};
use crate::source::Rejected;

/// The rejected records of a table, as rows of [`dead_letter_schema`].
pub fn rows(table: &str, rejected: &[Rejected]) -> Result<RecordBatch, ArrowError> {
    let (mut payload, mut key) = (BinaryBuilder::new(), BinaryBuilder::new());
    let (mut error, mut code, mut tables, mut headers) =
        (StringBuilder::new(), StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut partition, mut offset) = (Int32Builder::new(), Int64Builder::new());
    let mut time = TimestampNanosecondBuilder::new().with_data_type(instant());
    for record in rejected {
        payload.append_value(&record.payload);
        error.append_value(&record.error);
        code.append_value(record.code);
        tables.append_value(table);
        partition.append_option(record.partition);
        offset.append_option(record.offset);
        time.append_option(record.time);
        key.append_option(record.key.as_deref());
        headers.append_option(record.headers.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(payload.finish()),
        Arc::new(error.finish()),
        Arc::new(code.finish()),
        Arc::new(tables.finish()),
        Arc::new(partition.finish()),
        Arc::new(offset.finish()),
        Arc::new(time.finish()),
        Arc::new(key.finish()),
        Arc::new(headers.finish()),
    ];
    RecordBatch::try_new(dead_letter_schema(), columns)
}

/// Rows that got as far as an operator: their payload is the row as JSON, as far as it was read.
pub fn of_rows(batch: &RecordBatch, code: &'static str, error: &str) -> Vec<Rejected> {
    (0..batch.num_rows())
        .map(|row| Rejected {
            payload: as_json(&batch.slice(row, 1)),
            error: error.to_string(),
            code,
            partition: None,
            offset: None,
            time: None,
            key: None,
            headers: None,
        })
        .collect()
}

fn as_json(row: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(vec![]);
    match writer.write(row).and_then(|()| writer.finish()) {
        Ok(()) => writer.into_inner(),
        Err(error) => format!("(the row cannot be written as JSON: {error})").into_bytes(),
    }
}
