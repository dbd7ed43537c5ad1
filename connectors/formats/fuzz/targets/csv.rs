//! Whatever bytes come, and however they are cut: no panic, no standing still, and the same rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use formats::{CsvDecoder, CsvOptions};

fn read(bytes: &[u8], piece: usize) -> RecordBatch {
    let schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]));
    let options = CsvOptions { header: false, ..CsvOptions::default() };
    let mut csv = CsvDecoder::new(schema, options, &["id".into(), "n".into()], None).unwrap();
    let (mut from, mut to) = (0, 0);
    while from < bytes.len() {
        match csv.take(&bytes[from..to], to == bytes.len(), None) {
            Some(record) => {
                assert!(record.length > 0);
                from += record.length;
            }
            None => to = (to + piece).min(bytes.len()),
        }
    }
    csv.finish().unwrap()
}

pub type Input<'a> = (u8, &'a [u8]);

pub fn check(input: Input<'_>) {
    assert_eq!(read(input.1, usize::from(input.0) + 1), read(input.1, input.1.len().max(1)));
}
