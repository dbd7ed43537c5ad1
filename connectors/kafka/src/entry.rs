//! The staged rows of one job log entry, on their way out.

use std::collections::HashSet;
use std::time::Duration;

use arrow::array::RecordBatch;
use engine::sink::{Committable, RejectedRow, SinkContext, SinkError};
use object_store::path::Path;
use storage::provenance::Provenance;
use storage::staged_rows;

use crate::messages::Layout;
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

    /// Hands the rows over, in their order. Yields those that can never be taken.
    pub fn send(
        &self,
        sender: &Sender,
        layout: &Layout,
        mut fate: impl FnMut(usize, u64) -> Result<Fate, Trouble>,
    ) -> Result<Vec<RejectedRow>, Trouble> {
        let mut rejected = vec![];
        for (token, staged) in self.tokens.iter().enumerate() {
            let mut place = 0;
            for batch in staged.batches.iter().flatten() {
                let messages = layout.encode(batch)?;
                for row in 0..messages.len() {
                    let at = place + row as u64;
                    if self.excluded.contains(&(token, at)) {
                        continue;
                    }
                    let identity = match fate(token, at)? {
                        Fate::Stays => continue,
                        Fate::Sent => None,
                        Fate::SentNamed => Some(self.provenance.row(token, at)),
                    };
                    loop {
                        match sender.send(&messages, row, identity.as_deref())? {
                            Handed::Queued => break,
                            Handed::NotYet => {
                                std::thread::sleep(QUEUE_IS_FULL);
                                // Whether the row may still be sent at all.
                                fate(token, at)?;
                            }
                            Handed::Refused(reason) => {
                                let content = as_text(&batch.slice(row, 1));
                                rejected.push(RejectedRow { token, row: at, reason, content });
                                break;
                            }
                        }
                    }
                }
                place += messages.len() as u64;
            }
        }
        Ok(rejected)
    }
}

fn as_text(row: &RecordBatch) -> String {
    let mut text = vec![];
    match formats::json_lines(row, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).trim_end().to_string(),
        Err(error) => format!("(the row cannot be written as JSON: {error})"),
    }
}
