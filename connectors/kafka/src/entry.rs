//! The staged rows of one job log entry, on their way out.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use arrow::array::RecordBatch;
use engine::sink::{Committable, RejectedRow, SinkContext, SinkError};
use object_store::path::Path;
use rdkafka::error::KafkaError;
use storage::provenance::Provenance;
use storage::staged_rows;

use crate::messages::{Layout, Messages};
use crate::sending::{Handed, Sender};
use crate::trouble::Trouble;

/// An entry's rows, read back from where they were staged.
pub struct Entry {
    pub number: u64,
    pub provenance: Provenance,
    tokens: Vec<Staged>,
    /// Rows that an earlier try found can never be shown: their token, and their place in it.
    excluded: HashSet<(usize, u64)>,
}

/// The rows of one token.
struct Staged {
    path: Path,
    rows: u64,
    /// `None`: they are gone. Whoever showed them deleted them, and died before that was written down; or they are lost.
    batches: Option<Vec<RecordBatch>>,
}

/// The pause while a producer's queue is full.
const QUEUE_IS_FULL: Duration = Duration::from_millis(2);

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there already.
    Stays,
    Sent,
    /// It is sent with a header that says which row it is.
    SentNamed,
}

impl Entry {
    /// Of all its tokens.
    pub fn rows(&self) -> u64 {
        self.tokens.iter().map(|token| token.rows).sum()
    }

    pub async fn read(context: &SinkContext, committable: &Committable, place: &str) -> Result<Self, SinkError> {
        let mut tokens = vec![];
        for token in &committable.tokens {
            let batches = staged_rows::read(&*context.store, token, place).await?;
            tokens.push(Staged { path: staged_rows::path(token), rows: staged_rows::rows(token), batches });
        }
        Ok(Entry {
            number: committable.entry,
            provenance: Provenance::of(context, &committable.writer, committable.entry),
            tokens,
            excluded: committable.excluded.iter().map(|row| (row.token, row.row)).collect(),
        })
    }

    /// Fails if rows are gone that have not all arrived. `arrived`: those that have, where that can be told.
    pub fn check_gone(&self, arrived: Option<&HashSet<(usize, u64)>>) -> Result<(), Trouble> {
        for (token, staged) in self.tokens.iter().enumerate().filter(|(_, staged)| staged.batches.is_none()) {
            let is_there = |row: u64| {
                self.excluded.contains(&(token, row)) || arrived.is_some_and(|rows| rows.contains(&(token, row)))
            };
            if !(0..staged.rows).all(is_there) {
                let what =
                    format!("job log entry {} names the staged rows {}, which are gone", self.number, staged.path);
                return Err(Trouble::Unknown(what));
            }
        }
        Ok(())
    }

    /// Hands the rows over, in their order. Yields those that can never be taken. `way`: how.
    pub fn send(
        &self,
        sender: &Sender,
        way: Way<'_>,
        mut fate: impl FnMut(usize, u64) -> Result<Fate, Trouble>,
    ) -> Result<Vec<RejectedRow>, Trouble> {
        let mut rejected = vec![];
        let mut number = way.number;
        for (token, staged) in self.tokens.iter().enumerate() {
            let mut place = 0;
            for batch in staged.batches.iter().flatten() {
                let messages = way.layout.encode(batch)?;
                let mut row = 0;
                while row < messages.len() {
                    let at = place + row as u64;
                    let own = self.fate(token, at, &mut fate)?;
                    let mut rows = row..row + 1;
                    while !way.apart
                        && rows.end < messages.len()
                        && messages.join(rows.clone())
                        && (self.fate(token, place + rows.end as u64, &mut fate)? == Fate::Stays)
                            == (own == Fate::Stays)
                    {
                        rows.end += 1;
                    }
                    row = rows.end;
                    let together = Together { token, first: at, number: number + rows.start, rows, fate: own };
                    for (row, reason) in self.hand_over(sender, &messages, together, &mut fate)? {
                        rejected.push(self.rejected(token, place + row as u64, reason));
                    }
                }
                place += messages.len() as u64;
                number += messages.len();
            }
        }
        Ok(rejected)
    }

    /// Of messages that brokers refused, those that are rows of this entry. `first`: the number of its first one.
    pub fn refused(&self, first: usize, messages: &[(usize, KafkaError)]) -> Vec<RejectedRow> {
        let rejected = messages.iter().filter_map(|(number, error)| {
            let mut row = number.checked_sub(first)? as u64;
            for (token, staged) in self.tokens.iter().enumerate() {
                if row < staged.there() {
                    return Some(self.rejected(token, row, format!("the brokers refuse it: {error}")));
                }
                row -= staged.there();
            }
            None
        });
        rejected.collect()
    }

    /// How many numbers its rows take.
    pub fn numbers(&self) -> usize {
        self.tokens.iter().map(|token| token.there() as usize).sum()
    }

    fn rejected(&self, token: usize, row: u64, reason: String) -> RejectedRow {
        let mut place = row as usize;
        for batch in self.tokens[token].batches.iter().flatten() {
            if place < batch.num_rows() {
                return RejectedRow { token, row, reason, content: as_text(&batch.slice(place, 1)) };
            }
            place -= batch.num_rows();
        }
        RejectedRow { token, row, reason, content: String::new() }
    }

    fn fate(
        &self,
        token: usize,
        row: u64,
        fate: &mut impl FnMut(usize, u64) -> Result<Fate, Trouble>,
    ) -> Result<Fate, Trouble> {
        if self.excluded.contains(&(token, row)) { Ok(Fate::Stays) } else { fate(token, row) }
    }

    /// Hands over rows as one message, or each by itself where that one can never be taken. Yields rows that cannot.
    fn hand_over(
        &self,
        sender: &Sender,
        messages: &Messages<'_>,
        together: Together,
        fate: &mut impl FnMut(usize, u64) -> Result<Fate, Trouble>,
    ) -> Result<Vec<(usize, String)>, Trouble> {
        let Together { token, first, number, rows, fate: own } = together;
        let identity = match own {
            Fate::Stays => return Ok(vec![]),
            Fate::Sent => None,
            Fate::SentNamed => Some(self.provenance.rows(token, first, rows.len() as u64)),
        };
        loop {
            match sender.send(messages, rows.clone(), number, identity.as_deref())? {
                Handed::Queued => return Ok(vec![]),
                Handed::NotYet => {
                    std::thread::sleep(QUEUE_IS_FULL);
                    // Whether the rows may still be sent at all.
                    fate(token, first)?;
                }
                Handed::Refused(reason) if rows.len() == 1 => return Ok(vec![(rows.start, reason)]),
                Handed::Refused(_) => {
                    let mut refused = vec![];
                    for (behind, row) in rows.enumerate() {
                        let (first, number) = (first + behind as u64, number + behind);
                        let alone = Together { token, first, number, rows: row..row + 1, fate: own };
                        refused.extend(self.hand_over(sender, messages, alone, fate)?);
                    }
                    return Ok(refused);
                }
            }
        }
    }
}

/// How rows are handed over.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub layout: &'a Layout,
    /// Whether each is a message of its own.
    pub apart: bool,
    /// What the first one's message is called; the others' follow.
    pub number: usize,
}

impl Staged {
    /// Its rows that are there to be sent.
    fn there(&self) -> u64 {
        self.batches.iter().flatten().map(|batch| batch.num_rows() as u64).sum()
    }
}

/// Rows of a token that are to be one message: where the first stands in the token, what it is called, and where they stand in
/// their batch.
struct Together {
    token: usize,
    first: u64,
    number: usize,
    rows: Range<usize>,
    fate: Fate,
}

fn as_text(row: &RecordBatch) -> String {
    let mut text = vec![];
    match formats::json_lines(row, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).trim_end().to_string(),
        Err(error) => format!("(the row cannot be written as JSON: {error})"),
    }
}
