//! Rows for the dead letter.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampNanosecondBuilder,
};
use arrow::error::ArrowError;

use crate::plan::{dead_letter_schema, instant};
use crate::source::Rejected;

/// A worker tells of bad records at once, and then not before this has passed: a stream of them must not drown the log.
const QUIET: Duration = Duration::from_secs(10);

/// What a worker says in the log of the records that it rejects.
#[derive(Debug, Default)]
pub struct Telling {
    last: Option<Duration>,
    untold: usize,
}

impl Telling {
    /// Takes in rejected records; yields how many there were since it last did, when it is time to tell. `now`: since
    /// some fixed moment.
    pub fn due(&mut self, rejected: usize, now: Duration) -> Option<usize> {
        self.untold += rejected;
        if self.last.is_some_and(|last| now.saturating_sub(last) < QUIET) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

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

/// A row as JSON.
pub fn as_json(row: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(vec![]);
    match writer.write(row).and_then(|()| writer.finish()) {
        Ok(()) => writer.into_inner(),
        Err(error) => format!("(the row cannot be written as JSON: {error})").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_records_are_told_at_once_and_then_counted_for_a_while() {
        let mut telling = Telling::default();
        let at = Duration::from_secs;
        assert_eq!(telling.due(3, at(100)), Some(3));
        assert_eq!(telling.due(5, at(101)), None);
        assert_eq!(telling.due(1, at(109)), None);
        assert_eq!(telling.due(2, at(110)), Some(8));
    }
}
