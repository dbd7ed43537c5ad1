//! Rows of a store that tells when each was written, as batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};

use crate::{Decoder, Decoding, Message, Taken, Wake};

/// Bytes of rows that are held at once; one row may come on top.
const AT_ONCE: usize = 4 << 20;
/// Bytes of what cannot be read that are shown.
const SHOWN: usize = 1000;

/// Collects rows by the second in which they were written, until there are enough to be handed over. Rows of one second
/// may come in several batches.
pub struct Timed {
    schema: Arc<Schema>,
    decoding: Decoding,
    wake: Wake,
    seconds: BTreeMap<i64, Decoder>,
    bytes: usize,
}

impl Timed {
    /// `wake` is called when a schema is there that rows wait for.
    pub fn new(columns: Vec<FieldRef>, decoding: Decoding, wake: Wake) -> Self {
        Timed { schema: Arc::new(Schema::new(columns)), decoding, wake, seconds: BTreeMap::new(), bytes: 0 }
    }

    /// What was written as one, and when that was, milliseconds since 1970.
    pub fn push(&mut self, time: i64, message: &Message<'_>) -> Result<Taken, String> {
        let second = time.div_euclid(1000);
        if !self.seconds.contains_key(&second) {
            let decoder = Decoder::of(self.schema.clone(), &self.decoding, None, self.wake.clone())?;
            self.seconds.insert(second, decoder);
        }
        let Some(decoder) = self.seconds.get_mut(&second) else { return Ok(Taken::Rows(0)) };
        let taken = decoder.take(message).map_err(|reject| {
            let shown = &message.payload[..message.payload.len().min(SHOWN)];
            format!("{}: {}", reject.error, String::from_utf8_lossy(shown))
        })?;
        if let Taken::Rows(_) = taken {
            self.bytes += message.payload.len();
        }
        Ok(taken)
    }

    /// Whether what is held should be handed over before more comes.
    pub fn is_full(&self) -> bool {
        self.bytes >= AT_ONCE
    }

    /// What is held: the rows of each second, in order, with the time at which it began.
    pub fn hand_over(&mut self) -> impl Iterator<Item = Result<(i64, RecordBatch), String>> {
        self.bytes = 0;
        std::mem::take(&mut self.seconds)
            .into_iter()
            .map(|(second, mut decoder)| decoder.finish().map(|rows| (second * 1000, rows)).map_err(|e| e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn rows_are_handed_over_by_their_second_before_there_are_too_many_of_them() {
        let column = Arc::new(Field::new("text", DataType::Utf8, true));
        let mut rows = Timed::new(vec![column], Decoding::default(), Arc::new(|| {}));
        let row = format!("{{\"text\": \"{}\"}}", "x".repeat(1 << 20));
        let (mut pushed, mut handed_over) = (0, vec![]);
        for n in 0..10 {
            let message = Message { payload: row.as_bytes(), ..Message::default() };
            assert_eq!(rows.push(7_000 + 400 * (n % 4), &message), Ok(Taken::Rows(1)));
            pushed += 1;
            if rows.is_full() || n == 9 {
                assert!(pushed <= 4, "{pushed} MB are held");
                pushed = 0;
                let seconds = rows.hand_over().map(|second| second.map(|(time, rows)| (time, rows.num_rows())));
                handed_over.extend(seconds.collect::<Result<Vec<_>, _>>().unwrap());
            }
        }
        assert_eq!(handed_over, [(7000, 3), (8000, 1), (7000, 3), (8000, 1), (7000, 2)]);
        assert_eq!(rows.hand_over().count(), 0);
    }
}
