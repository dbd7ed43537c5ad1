//! The stored form of a job log entry, version 1.
//!
//! `tests/formats/entry-v1.json` is an entry of this version; a test reads it, so that a later version still does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::SplitClock;
use crate::sink::{RejectedRow, Token};
use crate::source::{Position, Start};

/// The version that this code writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// One numbered entry, published by one conditional create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub version: u32,
    pub number: u64,
    /// The process start that wrote it.
    pub writer: String,
    /// The writer's running number of the attempt: tells its own entry from another's when an answer was lost.
    pub attempt: u64,
    /// Wall clock in milliseconds since 1970, for people and for clean-up by age; nothing is decided by it.
    pub time: i64,
    #[serde(flatten)]
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    Claim(Claim),
    Checkpoint(Box<Checkpoint>),
    Committed { committed: Vec<Shown> },
    Rejected(RejectedRows),
    Release { groups: Vec<String> },
}

/// These key groups are mine from here on, starting at these positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The log's id, born with its first entry.
    pub log_id: String,
    pub layout: Layout,
    /// The stateful operators of the job, by what they are.
    pub operators: Vec<String>,
    pub groups: BTreeMap<String, Start>,
    /// The consumer group's generation and this member, where the assignment comes from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// What a key group is. It cannot change under the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// `memory`: all key groups are one unit.
    pub exchange: String,
    pub buckets: u32,
    pub hash: String,
}

impl Layout {
    /// One process, exchange in memory.
    pub fn in_memory() -> Self {
        Layout { exchange: "memory".into(), buckets: crate::key::BUCKETS as u32, hash: crate::key::HASH.into() }
    }
}

/// A consistent cut.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    pub groups: BTreeMap<String, GroupCut>,
    /// Changes to the state parts, by operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartChange>,
    /// How far the clocks are that all splits of an operator share, by operator, where they moved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clocks: BTreeMap<String, SplitClock>,
    /// Prepared rows, by sink.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sinks: BTreeMap<String, Vec<Token>>,
    /// Commits of earlier entries, riding along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub committed: Vec<Shown>,
    /// Rejected rows of earlier entries that this entry brings to the dead letter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<Shown>,
}

/// How far one key group came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupCut {
    /// The last entry that this group was part of.
    pub prev: u64,
    pub from: i64,
    pub to: Position,
    pub clock: SplitClock,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PartChange {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<Part>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

/// A piece of an operator's state: an Arrow IPC file beside the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    /// The newest time bucket in it: the part is dropped when the operator's oldest live bucket is newer.
    pub bucket: i64,
    /// How long a bucket is, in nanoseconds: it follows from the window, which may be another one after a restart. The first
    /// parts did not say it; theirs is that of the window that the job has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    pub rows: u64,
    pub bytes: u64,
}

/// Entry `entry` is shown by sink `sink`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shown {
    pub entry: u64,
    pub sink: String,
}

/// Rows that every try to show `entry` in `sink` leaves out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedRows {
    pub entry: u64,
    pub sink: String,
    pub rows: Vec<RejectedRow>,
}
