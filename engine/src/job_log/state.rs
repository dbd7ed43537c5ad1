//! What a job log says: the fold of its entries. Pure; the stored form of a snapshot.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::{Checkpoint, Claim, Entry, Kind, Layout, Part, RejectedRows, Shown, VERSION};
use crate::clock::SplitClock;
use crate::sink::{Committable, RejectedRow, Token};
use crate::source::{Position, Start};

/// Everything that the entries up to `number` say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogState {
    pub version: u32,
    /// Born with the first entry; part of every name that the job gives in the outside world.
    pub log_id: String,
    /// The last entry.
    pub number: u64,
    /// When the last entry was written, milliseconds since 1970.
    pub time: i64,
    pub layout: Layout,
    pub operators: Vec<String>,
    pub groups: BTreeMap<String, Group>,
    /// Live state parts by operator.
    pub parts: BTreeMap<String, Vec<Part>>,
    /// How far the clocks are that all splits of an operator share, by operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clocks: BTreeMap<String, SplitClock>,
    /// Published and not yet shown by every sink.
    pub uncommitted: BTreeMap<u64, Uncommitted>,
    /// Rejected rows that no dead letter holds yet.
    pub duties: Vec<RejectedRows>,
    /// Names that an entry dropped, with its number: deleted once that is folded.
    pub retired: Vec<(u64, String)>,
    /// Past folds (entry number, time in milliseconds): entries are deleted by their age.
    pub folds: Vec<(u64, i64)>,
    /// Entries up to here are surely deleted.
    pub cut: u64,
    /// Snapshots before this one are surely deleted.
    #[serde(default)]
    pub snapshots_cut: u64,
}

/// What is superfluous once a snapshot can be seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Waste {
    pub entries: RangeInclusive<u64>,
    pub snapshots: Vec<u64>,
    /// Names of parts that entries dropped, the last of them up to `folded`.
    pub names: Vec<String>,
    folded: u64,
}

/// One key group: a source's split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub owner: Option<String>,
    /// The last entry that the group was part of.
    pub entry: u64,
    pub start: Start,
    pub clock: SplitClock,
    pub finished: bool,
}

/// A published entry that some sink does not show yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Uncommitted {
    pub writer: String,
    pub sinks: BTreeMap<String, Vec<Token>>,
    pub excluded: BTreeMap<String, Vec<RejectedRow>>,
}

/// An entry that does not follow from those before it: the folder is damaged, or of another version.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LogError {
    #[error("entry {number} has format version {found}; this millrace reads up to {VERSION}. Use a newer millrace")]
    Version { number: u64, found: u32 },
    #[error("entry {found} was read where {expected} was expected")]
    Number { expected: u64, found: u64 },
    #[error("the log begins with a {0}, not with a claim")]
    NoBirth(&'static str),
    #[error("entry {number} says that {group}'s last entry was {said}, but it was {was}")]
    Prev { number: u64, group: String, said: u64, was: u64 },
    #[error("entry {number} of writer {writer} names {group}, which it does not own")]
    NotOwner { number: u64, writer: String, group: String },
}

impl LogState {
    /// The state after a log's first entry.
    pub fn born(entry: &Entry) -> Result<Self, LogError> {
        check_version(entry)?;
        let Kind::Claim(claim) = &entry.kind else { return Err(LogError::NoBirth(kind_name(&entry.kind))) };
        let mut state = LogState {
            version: VERSION,
            log_id: claim.log_id.clone(),
            number: 0,
            time: 0,
            layout: claim.layout.clone(),
            operators: vec![],
            groups: BTreeMap::new(),
            parts: BTreeMap::new(),
            clocks: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
            duties: vec![],
            retired: vec![],
            folds: vec![],
            cut: 0,
            snapshots_cut: 0,
        };
        state.apply(entry)?;
        Ok(state)
    }

    /// Takes in the next entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), LogError> {
        check_version(entry)?;
        if entry.number != self.number + 1 {
            return Err(LogError::Number { expected: self.number + 1, found: entry.number });
        }
        match &entry.kind {
            Kind::Claim(claim) => self.claim(entry, claim),
            Kind::Checkpoint(checkpoint) => self.checkpoint(entry, checkpoint)?,
            Kind::Committed { committed } => self.shown(committed),
            Kind::Rejected(rejected) => self.reject(rejected),
            Kind::Release { groups } => self.release(entry, groups)?,
        }
        self.number = entry.number;
        self.time = entry.time;
        Ok(())
    }

    /// Whether `writer` may append for all of `groups`.
    pub fn owns_all<'a>(&self, writer: &str, mut groups: impl Iterator<Item = &'a String>) -> bool {
        groups.all(|g| self.groups.get(g).is_some_and(|g| g.owner.as_deref() == Some(writer)))
    }

    /// What `sink` has to show still, in order.
    pub fn to_commit(&self, sink: &str) -> Vec<Committable> {
        let of = |(entry, u): (&u64, &Uncommitted)| {
            let tokens = u.sinks.get(sink)?.clone();
            let excluded = u.excluded.get(sink).cloned().unwrap_or_default();
            Some(Committable { entry: *entry, writer: u.writer.clone(), tokens, excluded })
        };
        self.uncommitted.iter().filter_map(of).collect()
    }

    /// Where `group` goes on.
    pub fn position(&self, group: &str) -> Option<&Position> {
        self.groups.get(group).map(|g| &g.start.from)
    }

    /// Notes that everything up to here is folded, and says what nobody needs any more. Entries stay for the retention
    /// after their fold, for those who slept; parts and snapshots for one more fold, for those who are just reading.
    pub fn fold(&mut self, now: i64, retention: Duration) -> Waste {
        let previous = self.folds.last().map_or(0, |(number, _)| *number);
        self.folds.push((self.number, now));
        let oldest_kept = now - retention.as_millis() as i64;
        let expired = self.folds.iter().rev().find(|(_, time)| *time <= oldest_kept).map_or(0, |(number, _)| *number);
        let snapshots = self.folds.iter().map(|(number, _)| *number);
        Waste {
            entries: self.cut + 1..=expired.max(self.cut),
            snapshots: snapshots.filter(|n| (self.snapshots_cut..previous).contains(n)).collect(),
            names: self.retired.iter().filter(|(entry, _)| *entry <= previous).map(|(_, name)| name.clone()).collect(),
            folded: previous,
        }
    }

    /// Forgets what is deleted.
    pub fn forget(&mut self, waste: &Waste) {
        self.cut = *waste.entries.end();
        self.snapshots_cut = waste.folded;
        self.retired.retain(|(entry, _)| *entry > waste.folded);
        self.folds.retain(|(number, _)| *number >= self.cut.max(1));
    }

    fn claim(&mut self, entry: &Entry, claim: &Claim) {
        self.operators = claim.operators.clone();
        for (name, start) in &claim.groups {
            let group = self.groups.entry(name.clone()).or_insert_with(|| Group {
                owner: None,
                entry: entry.number,
                start: start.clone(),
                clock: SplitClock::default(),
                finished: false,
            });
            group.owner = Some(entry.writer.clone());
            group.entry = entry.number;
        }
    }

    fn checkpoint(&mut self, entry: &Entry, checkpoint: &Checkpoint) -> Result<(), LogError> {
        for (name, cut) in &checkpoint.groups {
            let group = self.groups.get(name).filter(|g| g.owner.as_ref() == Some(&entry.writer));
            let group = group.ok_or_else(|| LogError::NotOwner {
                number: entry.number,
                writer: entry.writer.clone(),
                group: name.clone(),
            })?;
            if group.entry != cut.prev {
                let (said, was) = (cut.prev, group.entry);
                return Err(LogError::Prev { number: entry.number, group: name.clone(), said, was });
            }
        }
        for (name, cut) in &checkpoint.groups {
            if let Some(group) = self.groups.get_mut(name) {
                group.entry = entry.number;
                group.start.from = cut.to.clone();
                group.clock = cut.clock;
                group.finished = cut.finished;
            }
        }
        for (operator, change) in &checkpoint.parts {
            let live = self.parts.entry(operator.clone()).or_default();
            live.retain(|part| !change.dropped.contains(&part.name));
            live.extend(change.added.iter().cloned());
            self.retired.extend(change.dropped.iter().map(|name| (entry.number, name.clone())));
        }
        self.clocks.extend(checkpoint.clocks.iter().map(|(operator, clock)| (operator.clone(), *clock)));
        self.shown(&checkpoint.committed);
        self.duties.retain(|d| !checkpoint.carried.iter().any(|c| c.entry == d.entry && c.sink == d.sink));
        let sinks: BTreeMap<_, _> =
            checkpoint.sinks.iter().filter(|(_, t)| !t.is_empty()).map(|(s, t)| (s.clone(), t.clone())).collect();
        if !sinks.is_empty() {
            let uncommitted = Uncommitted { writer: entry.writer.clone(), sinks, excluded: BTreeMap::new() };
            self.uncommitted.insert(entry.number, uncommitted);
        }
        Ok(())
    }

    fn shown(&mut self, shown: &[Shown]) {
        for Shown { entry, sink } in shown {
            if let Some(uncommitted) = self.uncommitted.get_mut(entry) {
                uncommitted.sinks.remove(sink);
                if uncommitted.sinks.is_empty() {
                    self.uncommitted.remove(entry);
                }
            }
        }
    }

    fn reject(&mut self, rejected: &RejectedRows) {
        if let Some(uncommitted) = self.uncommitted.get_mut(&rejected.entry) {
            uncommitted.excluded.entry(rejected.sink.clone()).or_default().extend(rejected.rows.iter().cloned());
            self.duties.push(rejected.clone());
        }
    }

    fn release(&mut self, entry: &Entry, groups: &[String]) -> Result<(), LogError> {
        for name in groups {
            let group = self.groups.get_mut(name).filter(|g| g.owner.as_ref() == Some(&entry.writer));
            let group = group.ok_or_else(|| LogError::NotOwner {
                number: entry.number,
                writer: entry.writer.clone(),
                group: name.clone(),
            })?;
            group.owner = None;
            group.entry = entry.number;
        }
        Ok(())
    }
}

fn check_version(entry: &Entry) -> Result<(), LogError> {
    if entry.version > VERSION {
        return Err(LogError::Version { number: entry.number, found: entry.version });
    }
    Ok(())
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Claim(_) => "claim",
        Kind::Checkpoint(_) => "checkpoint",
        Kind::Committed { .. } => "committed",
        Kind::Rejected(_) => "rejected",
        Kind::Release { .. } => "release",
    }
}
