//! What a connector implements to be written. It answers two requests: keep this, and show it when I say.
//!
//! `prepare` makes rows survive a crash under a name that nobody can make again, and returns a token that finds them.
//! The engine publishes the tokens in the job log, and only then asks to `commit` them: in the order of the entries,
//! and again after a crash, so `commit` is idempotent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::metrics::SinkMetrics;

/// A table that can be written.
#[async_trait]
pub trait Sink: Send + Sync {
    /// One line for `explain`: the system, the place, the format. Never a secret.
    fn describe(&self) -> String;

    /// One line for `explain`: what the sink promises, and how it keeps it.
    fn guarantee(&self) -> String;

    /// Checks the target's names, rights and schema and creates what is missing, before a row is read. Says all that
    /// is wrong at once. With `probe`, only looks (`check --connect`) and changes nothing.
    async fn open(&self, context: &SinkContext, probe: bool) -> Result<(), SinkError>;

    /// How long entries should wait to be committed together where the job does not say: longer than not at all where a
    /// target takes many rows at once much better than few. Called after [`Sink::open`].
    fn commit_interval(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether so many entries have gathered as the target takes at once: they are shown before it is time.
    fn is_full(&self, _: &[Committable]) -> bool {
        false
    }

    /// A writer for one worker. Called after [`Sink::open`].
    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError>;

    /// Shows the rows of these entries, in order; the engine never asks for entry k before all earlier ones of the same
    /// writer are shown. Called again with the same entries after any error or crash: showing twice must be impossible.
    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError>;
}

/// Takes the rows of one worker, on its thread.
pub trait SinkWriter: Send {
    /// Takes rows. Encodes them here and now; does not wait for I/O.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError>;

    /// Whether more rows may come now; `false` while earlier ones are still on their way and the writer's bound is reached.
    fn ready(&self) -> bool {
        true
    }

    /// Bytes that the open epoch holds in memory.
    fn buffered(&self) -> usize {
        0
    }

    /// Closes what was written since the last call, at once; the future ends when it is durable and yields the token
    /// that finds it, `None` if nothing was written. The future retries what may heal: an error from it stops the job.
    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>>;
}

/// Finds prepared rows again; kept in the job log. Its form belongs to the sink.
pub type Token = serde_json::Value;

/// The tokens of one entry for one sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committable {
    /// The number of the job log entry: the version to show the rows under.
    pub entry: u64,
    /// The writer (process start) that prepared them. A successor commits under its predecessor's name.
    pub writer: String,
    pub tokens: Vec<Token>,
    /// Rows that an earlier try could not take; every later try leaves out exactly these.
    pub excluded: Vec<RejectedRow>,
}

/// What a commit came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Committed {
    /// Everything is shown.
    Done,
    /// Not all is shown yet: these rows can never be. The engine records them and asks again.
    Rejected { entry: u64, rows: Vec<RejectedRow> },
}

/// A row that a sink can never take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// Index of the token within the entry, and of the row within what the token holds.
    pub token: usize,
    pub row: u64,
    pub reason: String,
    /// The row, as JSON text.
    pub content: String,
}

/// Who writes, and where it may stage.
#[derive(Clone)]
pub struct SinkContext {
    /// The job log's id, born with its folder.
    pub log_id: String,
    /// The sink's name in the job: its table's.
    pub sink: String,
    /// This process start.
    pub writer: String,
    /// Of the rows that will be written; names and types were checked against the table's declaration.
    pub schema: SchemaRef,
    /// The job's folder, and a prefix in it where this sink may stage rows.
    pub store: Arc<dyn ObjectStore>,
    pub staging: Path,
    pub names: Names,
    /// For sinks whose target lets anybody write.
    pub ownership: Ownership,
    /// Where a writer counts what it had to try again.
    pub metrics: Arc<SinkMetrics>,
    /// Where uploads run: a worker thread belongs to no runtime.
    pub runtime: tokio::runtime::Handle,
}

/// Asks the job log whether the job is still this process's. A sink whose target cannot tell a successor from the process
/// that it replaced asks before it writes, and again while it does.
#[derive(Clone)]
pub struct Ownership(Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>);

impl Ownership {
    pub fn asking(ask: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static) -> Self {
        Ownership(Arc::new(ask))
    }

    /// For a sink that is written outside of any job.
    pub fn undisputed() -> Self {
        Ownership::asking(|| Box::pin(async { true }))
    }

    /// Whether the job was surely ours at a moment after this was asked. `false` if it is not, or if nobody can say now.
    pub async fn confirm(&self) -> bool {
        (self.0)().await
    }
}

/// Names that nobody can make again: the writer's id and a running number.
#[derive(Clone)]
pub struct Names {
    writer: Arc<str>,
    next: Arc<AtomicU64>,
}

impl Names {
    pub fn of(writer: &str) -> Self {
        Names { writer: writer.into(), next: Arc::new(AtomicU64::new(1)) }
    }
    pub fn next(&self) -> String {
        format!("{}-{:06}", self.writer, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a sink cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// May heal: the engine asks again, with a growing pause, and shows it in `/status`.
    #[error("{place}: {what}")]
    Retry { place: String, what: String },
    /// Will not heal without a person.
    #[error("{place}: {what}")]
    Failed { place: String, what: String },
}

impl SinkError {
    pub fn retry(place: impl Into<String>, what: impl fmt::Display) -> Self {
        SinkError::Retry { place: place.into(), what: what.to_string() }
    }
    pub fn failed(place: impl Into<String>, what: impl fmt::Display) -> Self {
        SinkError::Failed { place: place.into(), what: what.to_string() }
    }
}
