//! What a connector implements to be read. It answers one question: what follows this position?
//!
//! A source is a set of *splits* (a topic's partitions, a folder's files). The engine assigns splits to workers, keeps
//! their positions in the job log, and never asks twice where to begin.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::connector::Origin;
use crate::metrics::SourceMetrics;
use crate::observed::Observed;

/// A table that can be read.
#[async_trait]
pub trait Source: Send + Sync {
    /// One line for `explain`: the system, the place, the format. Never a secret.
    fn describe(&self) -> String;

    /// Where to count what the engine cannot see. Called once, before anything is asked.
    fn watch(&self, _metrics: Arc<SourceMetrics>) {}

    /// The splits that exist now, from the system's metadata and not from what was read. Called at start, and again
    /// every [`Source::discovery_interval`].
    async fn splits(&self) -> Result<Vec<String>, SourceError>;

    /// How often to look for new splits; `None` if the set cannot grow.
    fn discovery_interval(&self) -> Option<Duration> {
        None
    }

    /// Turns the table's start option (and, for a bounded read, its end) into numbers. Called once in the life of a
    /// split: the answer is published in the log before a row is read. `found_later`: the split appeared while the
    /// job was running, so it starts at its earliest record whatever the option says.
    async fn resolve(&self, split: &str, found_later: bool) -> Result<Start, SourceError>;

    /// Confirms that a recorded position still means what it meant: not cut by retention, not in another incarnation
    /// of the topic, not behind the end. Called before a split is opened at a recorded position.
    async fn verify(&self, split: &str, at: &Position) -> Result<(), SourceError>;

    /// Opens a split for reading. `wake` is rung whenever a reader that had nothing has something again.
    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError>;

    /// Looks at what a reader needs besides the log, such as a registry of schemas (`check --connect`).
    async fn probe(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// These positions are in the job log. A hint for tools that watch lag; nothing depends on it.
    async fn checkpointed(&self, _positions: &[(String, Position)]) {}
}

/// Reads one split, on a worker thread, without waiting.
pub trait SplitReader: Send {
    /// Takes what has arrived, up to `limit`, decoded into the requested columns. Never blocks.
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError>;

    /// How many records lie between the position and the end that the system last stated, if it is known.
    fn lag(&self) -> Option<u64> {
        None
    }

    /// What the first records said about the table's columns, since the last call; `None` once nothing is counted.
    fn observed(&mut self) -> Option<Observed> {
        None
    }
}

/// What a worker takes from a split at once.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    pub records: usize,
    pub bytes: usize,
}

/// The columns that the plan uses, in order.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    pub columns: Vec<SourceColumn>,
    /// Records whose event time is further ahead of the log's own timestamp than this are rejected: one wrong clock
    /// must not move a watermark.
    pub event_time: Option<EventTimeBound>,
}

/// One column that a reader must deliver.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceColumn {
    pub field: FieldRef,
    pub origin: Origin,
}

/// See [`ReadRequest::event_time`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventTimeBound {
    /// Index into [`ReadRequest::columns`]; a timestamp in nanoseconds.
    pub column: usize,
    pub max_ahead: Duration,
}

/// What one call of [`SplitReader::read`] brought.
pub struct Read {
    /// The rows, with exactly the requested columns; `None` if there were none.
    pub batch: Option<RecordBatch>,
    /// Records that could not be decoded.
    pub rejected: Vec<Rejected>,
    /// Records consumed, bad ones and skipped ones included.
    pub records: usize,
    /// Payload bytes consumed.
    pub bytes: usize,
    /// Behind the last record of this read.
    pub position: Position,
    /// The highest timestamp that the log gave a record of this read, in nanoseconds since 1970.
    pub log_time: Option<i64>,
    pub status: ReadStatus,
}

/// What a reader expects next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// Read again at once.
    More,
    /// Nothing now; the reader will ring. It says nothing about the end of the log: slow, throttled and broken look like this.
    Pending,
    /// The reader stands at the end offset that the system itself stated just now.
    AtEnd,
    /// A bounded read is complete.
    Finished,
}

/// Where a reader stands, as it is kept in the job log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The next record to read: an offset, a byte, a row number.
    pub offset: i64,
    /// Which incarnation of the split the offset belongs to (a topic's id), where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// The log's timestamp of the last record before `offset`, in milliseconds since 1970: tells a topic that was made
    /// again from the one that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<i64>,
}

impl Position {
    pub fn at(offset: i64) -> Self {
        Position { offset, incarnation: None, last_time: None }
    }
}

/// Where to begin, and, for a bounded read, the first offset that is not read any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub from: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// A record for the dead letter: everything needed to find it again and to repair it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    pub payload: Vec<u8>,
    /// What is wrong, for a person.
    pub error: String,
    /// What is wrong, for a program: `not-json`, `wrong-type`, `out-of-range`, `missing`, `bad-timestamp`, `future-event-time`, `sink`.
    pub code: &'static str,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    /// The log's timestamp, nanoseconds since 1970.
    pub time: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// As JSON text, an object of strings.
    pub headers: Option<String>,
}

/// Rings the worker that reads a split.
#[derive(Clone)]
pub struct Wake(Arc<dyn Fn() + Send + Sync>);

impl Wake {
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Self {
        Wake(Arc::new(ring))
    }
    pub fn ring(&self) {
        (self.0)()
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}

/// Why a source cannot go on. Whatever heals by itself is retried inside the connector and shown in its metrics.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The log no longer holds what comes next. Going on would skip events in silence.
    #[error("{place}: {what}. {remedy}")]
    Gone { place: String, what: String, remedy: String },
    /// Wrong name, no right, unreadable.
    #[error("{place}: {what}")]
    Failed { place: String, what: String },
}

impl SourceError {
    pub fn failed(place: impl Into<String>, what: impl fmt::Display) -> Self {
        SourceError::Failed { place: place.into(), what: what.to_string() }
    }
}
