//! Rows as records of CSV.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields as Columns};
use arrow::error::ArrowError;
use arrow::json::EncoderOptions;
use arrow::json::writer::make_encoder;

use super::CsvOptions;
use crate::column::is_json;
use crate::encoded::EncodedRows;
use crate::write::as_read;

/// Writes rows of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvWriter {
    delimiter: u8,
    null: String,
    /// What each message begins with.
    header: Vec<u8>,
}

impl CsvWriter {
    pub fn new(columns: &Columns, options: &CsvOptions) -> CsvWriter {
        let null = options.null.clone().unwrap_or_default();
        let mut writer = CsvWriter { delimiter: options.delimiter, null, header: vec![] };
        if options.header {
            let mut lines = writer.lines();
            columns.iter().enumerate().for_each(|(index, column)| lines.field(index, column.name().as_bytes()));
            lines.end();
            writer.header = lines.bytes;
        }
        writer
    }

    /// Each row of the batch, as its line. A value is written as in JSON, a text without its quotes.
    pub fn rows(&self, batch: &RecordBatch) -> Result<EncodedRows, ArrowError> {
        let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(as_read());
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let mut encoders =
            columns.map(|(field, column)| make_encoder(field, column, &options)).collect::<Result<Vec<_>, _>>()?;
        let is = |which: fn(&Field) -> bool| schema.fields().iter().map(|field| which(field)).collect::<Vec<_>>();
        let json = is(is_json);
        let text = is(|field| *field.data_type() == DataType::Utf8 && !is_json(field));
        let (mut lines, mut ends, mut value) = (self.lines(), vec![], vec![]);
        for row in 0..batch.num_rows() {
            for (index, (encoder, column)) in encoders.iter_mut().zip(batch.columns()).enumerate() {
                if column.is_null(row) {
                    lines.field(index, self.null.as_bytes());
                } else if text[index] {
                    lines.field(index, column.as_string::<i32>().value(row).as_bytes());
                } else {
                    value.clear();
                    encoder.encode(row, &mut value);
                    // JSON is read as JSON: a text in it keeps its quotes.
                    lines.field(index, if json[index] { &value } else { without_quotes(&value) });
                }
            }
            lines.end();
            ends.push(lines.bytes.len());
        }
        Ok(EncodedRows { bytes: lines.bytes, ends })
    }

    /// The message of these lines.
    pub fn message(&self, lines: &[u8]) -> Vec<u8> {
        [&self.header, lines].concat()
    }

    fn lines(&self) -> Lines {
        Lines { writer: csv_core::WriterBuilder::new().delimiter(self.delimiter).build(), bytes: vec![] }
    }
}

/// Times, dates and bytes: they hold nothing that JSON would have escaped.
fn without_quotes(json: &[u8]) -> &[u8] {
    match json {
        [b'"', text @ .., b'"'] => text,
        _ => json,
    }
}

/// Lines as they are written.
struct Lines {
    writer: csv_core::Writer,
    bytes: Vec<u8>,
}

/// What a delimiter, quotes or a line's end take at most.
const BETWEEN: usize = 4;

impl Lines {
    fn field(&mut self, index: usize, text: &[u8]) {
        if index > 0 {
            self.put(BETWEEN, |writer, room| writer.delimiter(room).1);
        }
        // Each of its bytes may be a quote, which is written twice.
        self.put(2 * text.len() + BETWEEN, |writer, room| writer.field(text, room).2);
    }

    fn end(&mut self) {
        self.put(BETWEEN, |writer, room| writer.terminator(room).1);
    }

    /// `most`: room for all that is written; yields how much of it was taken.
    fn put(&mut self, most: usize, write: impl FnOnce(&mut csv_core::Writer, &mut [u8]) -> usize) {
        let before = self.bytes.len();
        self.bytes.resize(before + most, 0);
        let wrote = write(&mut self.writer, &mut self.bytes[before..]);
        self.bytes.truncate(before + wrote);
    }
}
