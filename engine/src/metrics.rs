//! What a running job counts. Written by workers without a lock; read by whoever shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;
use serde::Serialize;

use crate::clock::{SplitClock, UNHEARD};
use crate::dedup::Size;
use crate::durations::Durations;
use crate::observed::{OBSERVED_ROWS, Observed};

/// A number that anyone may raise or set.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Serialize for Gauge {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

/// The numbers of one job.
#[derive(Debug, Default, Serialize)]
pub struct Metrics {
    pub sources: RwLock<BTreeMap<String, Arc<SourceMetrics>>>,
    pub splits: RwLock<BTreeMap<String, Arc<SplitMetrics>>>,
    pub sinks: RwLock<BTreeMap<String, Arc<SinkMetrics>>>,
    pub dedup: RwLock<BTreeMap<String, Arc<DedupMetrics>>>,
    pub lookups: RwLock<BTreeMap<String, Arc<LookupMetrics>>>,
    pub checkpoints: Arc<CheckpointMetrics>,
    /// Rows and records that went to the dead letter.
    pub dead_letters: Gauge,
    /// By table: how its columns fit the first records.
    pub fields: RwLock<BTreeMap<String, Observed>>,
}

/// One source, as its connector tells.
#[derive(Debug, Default, Serialize)]
pub struct SourceMetrics {
    /// Records without a payload: nothing to decode and nothing to reject.
    pub skipped: Gauge,
    /// What went wrong and was tried again by the connector itself.
    pub retries: Gauge,
    /// How long the system has told its reader to wait so far, in milliseconds; 0 where it does not throttle.
    pub throttled_millis: Gauge,
    /// Why nothing comes just now.
    pub trouble: RwLock<Option<String>>,
    /// Why new splits are not read yet. They are asked for again.
    pub discovery_trouble: RwLock<Option<String>>,
}

/// One split of a source.
#[derive(Debug, Default, Serialize)]
pub struct SplitMetrics {
    pub records: Gauge,
    pub rows: Gauge,
    pub bytes: Gauge,
    pub rejected: Gauge,
    /// The next offset to read, and how many records the system says are behind it.
    pub offset: Gauge,
    pub lag: Gauge,
    /// Nanoseconds since 1970; 0 before anything was heard.
    pub event_time: Gauge,
    pub log_time: SharedTime,
    pub idle: Flag,
}

/// The log's clock of a split, as the other workers see it.
#[derive(Debug)]
pub struct SharedTime(AtomicI64);

impl Default for SharedTime {
    fn default() -> Self {
        SharedTime(AtomicI64::new(UNHEARD))
    }
}

impl SharedTime {
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Serialize for SharedTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Some(self.get()).filter(|t| *t != UNHEARD).serialize(serializer)
    }
}

#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Serialize for Flag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

impl SplitMetrics {
    pub fn set_clock(&self, clock: &SplitClock) {
        self.event_time.set(clock.event_time.max(0) as u64);
        self.log_time.0.store(clock.log_time, Relaxed);
        self.idle.0.store(clock.idle, Relaxed);
    }
}

#[derive(Debug, Default, Serialize)]
pub struct SinkMetrics {
    pub rows: Gauge,
    pub commits: Gauge,
    pub last_entry: Gauge,
    /// Entries that are published and not shown.
    pub uncommitted: Gauge,
    /// From the first try to shown, entries shown together counted once.
    pub commit_durations: Durations,
    pub rejected: Gauge,
    /// Of a sink that asks a service request by request.
    #[serde(skip_serializing_if = "RequestMetrics::none")]
    pub requests: RequestMetrics,
    /// Whether the sink takes rows and commits.
    #[serde(flatten)]
    pub health: Health,
}

/// What a service was asked to write, and what that took.
#[derive(Debug, Default, Serialize)]
pub struct RequestMetrics {
    pub sent: Gauge,
    /// Rows in them; divided by the requests, how full they are.
    pub rows: Gauge,
    /// Rows that the service took, or refused for good.
    pub settled: Gauge,
    /// Those that were told to come again later, because the service has no capacity left.
    pub throttled: Gauge,
    /// Rows that were there already, or gone already.
    pub found: Gauge,
    /// What they cost, in the service's own measure (Cosmos DB: request units).
    pub units: Sum,
    pub durations: Durations,
}

impl RequestMetrics {
    fn none(&self) -> bool {
        self.sent.get() == 0
    }
}

/// A sum that anyone may add to.
#[derive(Debug, Default)]
pub struct Sum(AtomicU64);

impl Sum {
    pub fn add(&self, amount: f64) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + amount).to_bits()));
    }
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl Serialize for Sum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

#[derive(Debug, Default, Serialize)]
pub struct DedupMetrics {
    pub rows: Gauge,
    pub copies: Gauge,
    /// Too old to be judged.
    pub unjudged: Gauge,
    /// By worker, as of the last checkpoint.
    pub size: RwLock<BTreeMap<usize, Size>>,
}

/// A table outside that rows are joined to.
#[derive(Debug, Default, Serialize)]
pub struct LookupMetrics {
    /// Rows that were joined, and those among them that met nothing.
    pub rows: Gauge,
    pub unmatched: Gauge,
    /// Rows whose lookup cannot be, because of what the table has for them.
    pub rejected: Gauge,
    /// Different keys of a batch that were looked up, and those that the table was asked for.
    pub keys: Gauge,
    pub asked: Gauge,
    /// Rows that wait for an answer.
    pub waiting: Level,
    /// What is kept of the table.
    pub kept_rows: Gauge,
    pub kept_bytes: Gauge,
    /// When a table that is kept whole was last loaded, or found unchanged, nanoseconds since 1970; 0 for others.
    pub loaded_at: Gauge,
    /// Requests that the table answered.
    pub durations: Durations,
    /// Whether the table answers.
    #[serde(flatten)]
    pub health: Health,
}

/// How many of something there are just now.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    pub fn change(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed).max(0) as u64
    }
}

impl Serialize for Level {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

#[derive(Debug, Default, Serialize)]
pub struct CheckpointMetrics {
    pub entry: Gauge,
    pub count: Gauge,
    /// When the last one was published, nanoseconds since 1970.
    pub published_at: Gauge,
    /// From barrier to publication.
    pub durations: Durations,
    pub last_bytes: Gauge,
    /// Cuts that wait to be published.
    pub waiting: Gauge,
    /// Whether the store takes what a checkpoint writes.
    #[serde(flatten)]
    pub health: Health,
}

/// How something fares that is tried until it works.
#[derive(Debug, Default, Serialize)]
pub struct Health {
    pub retries: Gauge,
    /// Why it does not work just now.
    pub trouble: RwLock<Option<String>>,
}

impl Health {
    /// A try that failed, and is repeated.
    pub fn suffer(&self, why: String) {
        self.retries.add(1);
        *self.trouble.write() = Some(why);
    }

    /// What failed before has worked.
    pub fn heal(&self) {
        *self.trouble.write() = None;
    }
}

impl Metrics {
    /// Takes in what a reader of `table` counted. Says what was found, once, when enough rows were seen.
    pub fn observe(&self, table: &str, observed: Observed) -> Option<String> {
        let mut fields = self.fields.write();
        let all = fields.entry(table.to_string()).or_default();
        let before = all.rows;
        all.merge(observed);
        if before < OBSERVED_ROWS && all.rows >= OBSERVED_ROWS { all.findings() } else { None }
    }
    pub fn source(&self, table: &str) -> Arc<SourceMetrics> {
        self.sources.write().entry(table.to_string()).or_default().clone()
    }
    pub fn split(&self, group: &str) -> Arc<SplitMetrics> {
        self.splits.write().entry(group.to_string()).or_default().clone()
    }
    pub fn sink(&self, name: &str) -> Arc<SinkMetrics> {
        self.sinks.write().entry(name.to_string()).or_default().clone()
    }
    pub fn lookup(&self, table: &str) -> Arc<LookupMetrics> {
        self.lookups.write().entry(table.to_string()).or_default().clone()
    }
    pub fn dedup(&self, id: &str) -> Arc<DedupMetrics> {
        self.dedup.write().entry(id.to_string()).or_default().clone()
    }
}
