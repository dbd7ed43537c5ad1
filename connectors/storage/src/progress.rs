//! How far the entries of a commit have come, between one try and the next: for sinks that show staged rows themselves.

use std::collections::{BTreeMap, HashSet};

use engine::sink::{Committable, Committed, RejectedRow, SinkContext, SinkError};

use crate::staged_rows;

/// An entry, and the process that staged its rows.
type Entry = (String, u64);

/// What is known of entries that the engine asks for again until they are done.
#[derive(Default)]
pub struct Progress {
    /// Those that are shown as far as they ever will be, and not done with.
    shown: HashSet<Entry>,
    /// Their rows that can never be shown and were not told yet.
    rejected: BTreeMap<Entry, Vec<RejectedRow>>,
}

fn of(entry: &Committable) -> Entry {
    (entry.writer.clone(), entry.entry)
}

impl Progress {
    /// The next entry of these that has rows which can never be shown; it is told once.
    pub fn tell(&mut self, entries: &[Committable]) -> Option<Committed> {
        let (entry, rows) = entries.iter().find_map(|entry| Some((entry.entry, self.rejected.remove(&of(entry))?)))?;
        Some(Committed::Rejected { entry, rows })
    }

    /// Those that are still to be shown.
    pub fn left<'a>(&self, entries: &'a [Committable]) -> Vec<&'a Committable> {
        entries.iter().filter(|entry| !self.shown.contains(&of(entry))).collect()
    }

    pub fn show(&mut self, entry: &Committable) {
        self.shown.insert(of(entry));
    }

    pub fn reject(&mut self, entry: &Committable, row: RejectedRow) {
        self.rejected.entry(of(entry)).or_default().push(row);
    }

    /// All of these are shown and told: their staged rows are deleted, and they are forgotten.
    pub async fn finish(
        &mut self,
        context: &SinkContext,
        entries: &[Committable],
        place: &str,
    ) -> Result<Committed, SinkError> {
        for token in entries.iter().flat_map(|entry| &entry.tokens) {
            staged_rows::delete(&*context.store, token, place).await?;
        }
        entries.iter().for_each(|entry| {
            self.shown.remove(&of(entry));
        });
        Ok(Committed::Done)
    }
}
