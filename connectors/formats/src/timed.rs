//! JSON rows of a store that tells when each was written, as batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};

use crate::{Decoder, Format, JsonOptions};

/// Collects rows by the second in which they were written: all of them, in memory.
pub struct Timed {
    schema: Arc<Schema>,
    seconds: BTreeMap<i64, Decoder>,
}

impl Timed {
    pub fn new(columns: Vec<FieldRef>) -> Self {
        Timed { schema: Arc::new(Schema::new(columns)), seconds: BTreeMap::new() }
    }

    /// A row, and when it was written, milliseconds since 1970.
    pub fn push(&mut self, time: i64, row: &[u8]) -> Result<(), String> {
        let second = time.div_euclid(1000);
        if !self.seconds.contains_key(&second) {
            // Numbers that the store cannot hold were written as text.
            let options = JsonOptions { lenient: true, ..JsonOptions::default() };
            let decoder = Decoder::new(self.schema.clone(), Format::Json, options, None)?;
            self.seconds.insert(second, decoder);
        }
        let Some(decoder) = self.seconds.get_mut(&second) else { return Ok(()) };
        decoder
            .push(row, None)
            .map(drop)
            .map_err(|reject| format!("{}: {}", reject.error, String::from_utf8_lossy(row)))
    }

    /// The rows of each second, in order, with the time at which it began.
    pub fn finish(self) -> impl Iterator<Item = Result<(i64, RecordBatch), String>> {
        self.seconds
            .into_iter()
            .map(|(second, mut decoder)| decoder.finish().map(|rows| (second * 1000, rows)).map_err(|e| e.to_string()))
    }
}
