//! A job as the engine runs it: sources, operators and sinks, and the edges between them.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::physical_expr::PhysicalExpr;

use crate::lookup::{Lookup, LookupRequest};
use crate::sink::Sink;
use crate::source::{EventTimeBound, Source, SourceColumn};

/// A checked job. Operators are in topological order: an edge comes from a source or from an earlier operator.
#[derive(Clone)]
pub struct Plan {
    pub name: String,
    pub sources: Vec<SourceNode>,
    /// Tables outside that rows are joined to.
    pub lookups: Vec<LookupNode>,
    pub operators: Vec<OperatorNode>,
    pub sinks: Vec<SinkNode>,
    /// Index of the sink that takes records which cannot be processed. Its schema is [`dead_letter_schema`].
    pub dead_letter: usize,
}

/// A source table, read once however many inserts use it.
#[derive(Clone)]
pub struct SourceNode {
    pub table: String,
    pub source: Arc<dyn Source>,
    /// What the reader delivers.
    pub columns: Vec<SourceColumn>,
    /// Whether the engine appends [`NOW_COLUMN`] to each batch: the time at which the batch was taken in.
    pub now: bool,
    pub watermark: Option<WatermarkSpec>,
}

impl SourceNode {
    /// The columns of the batches that leave the source.
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<_> = self.columns.iter().map(|c| c.field.clone()).collect();
        if self.now {
            fields.push(Arc::new(Field::new(NOW_COLUMN, instant(), false)));
        }
        Arc::new(Schema::new(fields))
    }
}

/// How event time progresses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WatermarkSpec {
    /// Column index; its type is [`instant`].
    pub column: usize,
    /// How far rows may be out of order.
    pub delay: Duration,
    /// Event times further ahead of the log's timestamp are rejected by the reader.
    pub max_ahead: Duration,
}

impl WatermarkSpec {
    pub fn bound(&self) -> EventTimeBound {
        EventTimeBound { column: self.column, max_ahead: self.max_ahead }
    }
}

/// `now()` in a query is this column: the time is read once per batch, at the edge.
pub const NOW_COLUMN: &str = "__now";
/// The log's own timestamp of a row, where an operator needs it and the query does not select it.
pub const LOG_TIME_COLUMN: &str = "__log_time";

/// `TIMESTAMP`: an instant, nanoseconds since 1970, UTC.
pub fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// Where an edge begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum From {
    Source(usize),
    Operator(usize),
}

/// An edge. With `exchange`, rows with equal values in these columns meet at one worker; without, they stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub from: From,
    pub exchange: Option<Vec<usize>>,
}

impl Edge {
    pub fn forward(from: From) -> Self {
        Edge { from, exchange: None }
    }
}

#[derive(Clone)]
pub struct OperatorNode {
    /// What the operator is (kind, source, keys, types), never where it stands: state is found by it after a change of the query.
    pub id: String,
    pub inputs: Vec<Edge>,
    pub operator: Operator,
    /// Of the rows that leave it.
    pub schema: SchemaRef,
}

#[derive(Clone)]
pub enum Operator {
    Transform(Transform),
    Deduplicate(Deduplicate),
    /// Its rows go on when the table has answered, in the order in which they came. No deduplication may follow: it would be
    /// told of a clock before it gets the rows.
    Lookup(LookupJoin),
}

/// Stateless steps, fused: filter, then expand lists, then project, evaluated directly on the batch.
#[derive(Clone)]
pub struct Transform {
    pub steps: Vec<Step>,
}

/// One step of a [`Transform`].
#[derive(Clone)]
pub enum Step {
    Filter(Arc<dyn PhysicalExpr>),
    Project {
        expressions: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    },
    /// Each row becomes as many as the longest of its lists in `columns` has elements; shorter ones are followed by NULL.
    /// A row without elements vanishes, unless `keep_empty`.
    Unnest {
        columns: Vec<usize>,
        keep_empty: bool,
        schema: SchemaRef,
    },
}

/// Lets the first row of each key through, within a window of the log's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Deduplicate {
    pub keys: Vec<usize>,
    /// Column of the row's time, type [`instant`]: the log's timestamp, or the event time by choice.
    pub time: usize,
    pub clock: DedupClock,
    pub within: Duration,
    pub late: LatePolicy,
    /// `Partition`: the key decides the partition, so the edge into the operator has no exchange.
    pub scope: Scope,
    /// Bytes of keys in memory beyond which cold ones go to disk, for the whole process.
    pub memory: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Global,
    Partition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DedupClock {
    /// The log's timestamps: a device with a wrong clock is judged like any other.
    Log,
    Event,
}

/// What happens to a row that is older than the window, so that nobody can say whether it is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatePolicy {
    Keep,
    DeadLetter,
    Drop,
}

/// Joins each row to the rows of a table outside that have its key. What leaves are the columns of both.
#[derive(Clone)]
pub struct LookupJoin {
    /// Index into [`Plan::lookups`].
    pub table: usize,
    /// Columns of the row, in the order of the table's [`LookupNode::keys`]. A row in which one is NULL meets nothing.
    pub keys: Vec<usize>,
    /// Must be true of the columns of both for them to meet.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Whether a row that meets nothing stays, with NULL in the table's columns.
    pub outer: bool,
}

/// A table outside as a query uses it. The same use by several joins is one node.
#[derive(Clone)]
pub struct LookupNode {
    pub table: String,
    pub lookup: Arc<dyn Lookup>,
    /// What the table is asked for; its keys are empty where it is kept whole.
    pub request: LookupRequest,
    /// What becomes of its rows before they are joined.
    pub transform: Transform,
    /// Of the rows then.
    pub schema: SchemaRef,
    /// Which of their columns are the key; none: every row meets all of them.
    pub keys: Vec<usize>,
    pub kept: Kept,
    /// How long the table may not answer before the job ends; without it, it is waited for.
    pub give_up_after: Option<Duration>,
}

impl LookupNode {
    /// For people: where something went wrong.
    pub fn place(&self) -> String {
        format!("table {}, {}", self.table, self.lookup.describe())
    }
}

/// What is kept of a table outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kept {
    /// All of it, in so much memory at most; it is asked so often whether it has changed.
    Whole { refresh: Duration, bytes: usize },
    /// What was asked for.
    ByKey(KeptByKey),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeptByKey {
    /// How long an answer holds; zero: for the rows that asked only.
    pub ttl: Duration,
    /// How long the answer holds that there is no such row.
    pub missing_ttl: Duration,
    /// Memory of the answers, for the whole process.
    pub bytes: usize,
    /// Keys that are asked for in one request, at most.
    pub keys: usize,
    /// Requests at once, at most.
    pub requests: usize,
}

/// A sink table and what flows into it.
#[derive(Clone)]
pub struct SinkNode {
    pub table: String,
    pub inputs: Vec<Edge>,
    pub sink: Arc<dyn Sink>,
    pub schema: SchemaRef,
    /// How long entries may wait to be committed together; zero commits each entry at once. What suits the sink, unless said.
    pub commit_interval: Option<Duration>,
    /// How long the sink may take no commit before the job ends; without it, it is waited for.
    pub give_up_after: Option<Duration>,
}

impl SinkNode {
    /// How long entries may wait to be committed together, once the sink is open.
    pub fn commit_interval(&self) -> Duration {
        self.commit_interval.unwrap_or_else(|| self.sink.commit_interval())
    }
}

/// The columns of a dead-letter table.
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("payload", DataType::Binary, true),
        Field::new("error", DataType::Utf8, false),
        Field::new("code", DataType::Utf8, false),
        Field::new("table", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("time", instant(), true),
        Field::new("key", DataType::Binary, true),
        Field::new("headers", DataType::Utf8, true),
    ]))
}
