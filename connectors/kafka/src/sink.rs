//! A topic as a sink. Rows are staged beside the job log and sent once they are published there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::metrics::SinkMetrics;
use engine::sink::{Committable, Committed, RejectedRow, Sink, SinkContext, SinkError, SinkWriter, Token};
use formats::{Format, SchemaKind};
use identity::TokenError;
use parking_lot::Mutex;
use rdkafka::error::KafkaError;
use schema_registry::{Registry, RegistryError};
use serde_json::{Map, Value};
use storage::provenance::Provenance;
use storage::staged_rows::{self, StagingWriter};

use crate::care::{Care, is_too_large};
use crate::client::{Reports, configuration_error, consumer};
use crate::endpoint::{Connection, Endpoint, partitions};
use crate::entry::Entry;
use crate::messages::Layout;
use crate::read_back::{Ends, arrived, ends};
use crate::resending::{Past, Resending, Way, settled_after};
use crate::rights::{must_be_readable, must_be_writable};
use crate::topics::{Limits, limits};
use crate::transactions::Transactions;
use crate::trouble::Trouble;

/// Staged rows, and their bytes as they are staged, that are sent in one transaction, at most one entry more.
const ROWS_AT_ONCE: u64 = 200_000;
const BYTES_AT_ONCE: u64 = 32 << 20;
/// How often a client that is waited for is asked what troubles it.
const LOOK_AT_CLIENT: Duration = Duration::from_secs(1);
/// How often it is looked where the partitions end: what was written since is read after a crash.
const ENDS_KEPT: Duration = Duration::from_secs(10);

/// A checked table that is written.
#[derive(Clone)]
pub struct WrittenTable {
    pub endpoint: Endpoint,
    pub layout: Layout,
    pub format: Format,
    /// The registry that is to know the schema of the rows, and by which name.
    pub registered: Option<(Registry, String)>,
    pub delivery: Delivery,
}

/// How a row is shown, and how often at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Transactions,
    ReadBack,
    AtLeastOnce,
}

impl Delivery {
    /// As a job file says it.
    fn word(self) -> &'static str {
        match self {
            Delivery::Transactions => "transactions",
            Delivery::ReadBack => "read-back",
            Delivery::AtLeastOnce => "at-least-once",
        }
    }
}

pub struct KafkaSink {
    table: WrittenTable,
    open: Mutex<Option<Arc<Open>>>,
}

/// What an open sink holds.
struct Open {
    layout: Layout,
    reports: Reports,
    asking: Connection,
    limits: Limits,
    ends: Arc<Mutex<Ends>>,
    /// By writer: the own one, and while their entries are finished, those of processes that are gone.
    lanes: tokio::sync::Mutex<HashMap<String, Lane>>,
    /// When the job was surely ours.
    since: Instant,
    /// Whether the last commit did not come to its end.
    failed: AtomicBool,
    /// Whether any rows were shown yet.
    shown: AtomicBool,
    /// How messages are sent now, and what of it stays.
    care: Mutex<Care>,
    learnt: Mutex<Care>,
}

/// How the rows of one writer get out.
enum Lane {
    Transactions(Transactions),
    Resending(Resending),
}

impl KafkaSink {
    pub fn new(table: WrittenTable) -> Self {
        KafkaSink { table, open: Mutex::new(None) }
    }

    fn opened(&self) -> Result<Arc<Open>, SinkError> {
        self.open.lock().clone().ok_or_else(|| SinkError::failed(self.table.endpoint.place(), "it was never opened"))
    }

    async fn look(&self, probe: bool) -> Result<Open, SinkError> {
        let endpoint = &self.table.endpoint;
        let failed = |what: String| SinkError::failed(endpoint.place(), what);
        let reports = endpoint.reports(Arc::default()).await.map_err(|error| match error {
            TokenError::Unanswered(what) => SinkError::retry(endpoint.place(), what),
            TokenError::Refused(what) => failed(what),
        })?;
        let mut config = consumer(endpoint, None, 0, 1);
        // Where a partition ends, and not where somebody's open transaction begins.
        config.set("isolation.level", "read_uncommitted");
        let asking = Connection::new(endpoint, reports.clone(), &config);
        let asking = asking.map_err(|e| failed(configuration_error(&e)))?;
        let (there, topic) = (asking.clone(), endpoint.topic.clone());
        let found = blocking(move || Ok(there.insist(|client, within| partitions(client, &topic, within))?)).await;
        if found.map_err(|trouble| trouble.at_start(endpoint, &reports))?.is_empty() {
            let what = "the broker knows no such topic; make it first, or check the name and the right to write";
            return Err(failed(what.into()));
        }
        let limits = limits(endpoint, &reports).await;
        if limits.compacted && self.table.delivery == Delivery::ReadBack {
            let what = "the topic is compacted, so nobody could tell after a crash which rows arrived: set \
                        'sink.delivery' = 'transactions', or 'at-least-once'";
            return Err(failed(what.into()));
        }
        let ends = self.first_ends(&asking).await.map_err(|trouble| trouble.at_start(endpoint, &reports))?;
        let layout = self.layout(probe).await?;
        Ok(Open {
            layout,
            asking,
            limits,
            ends: Arc::new(Mutex::new(ends)),
            lanes: tokio::sync::Mutex::default(),
            since: Instant::now(),
            failed: AtomicBool::new(false),
            shown: AtomicBool::new(false),
            care: Mutex::default(),
            learnt: Mutex::default(),
            reports,
        })
    }

    /// Where the topic's partitions end, if that is ever asked; once all is allowed that the job will do.
    async fn first_ends(&self, asking: &Connection) -> Result<Ends, Trouble> {
        let (endpoint, asking, delivery) = (self.table.endpoint.clone(), asking.clone(), self.table.delivery);
        blocking(move || {
            must_be_writable(&asking, &endpoint.topic)?;
            if delivery == Delivery::AtLeastOnce {
                return Ok(Ends::new());
            }
            let ends = ends(&asking, &endpoint.topic)?;
            if delivery == Delivery::ReadBack {
                must_be_readable(&endpoint, &asking.reports, &ends)?;
            }
            Ok(ends)
        })
        .await
    }
}

impl KafkaSink {
    /// How rows are written, with what the registry calls their schema. With `probe`, nothing is made known to it.
    async fn layout(&self, probe: bool) -> Result<Layout, SinkError> {
        let layout = self.table.layout.clone();
        let (Some((registry, subject)), Some(schema)) = (&self.table.registered, layout.schema()) else {
            return Ok(layout);
        };
        let wrong = |error: RegistryError| {
            let (place, what) =
                (self.table.endpoint.place(), format!("{}, subject {subject}: {error}", registry.place()));
            if error.may_heal() { SinkError::retry(place, what) } else { SinkError::failed(place, what) }
        };
        if probe {
            registry.probe().await.map_err(wrong)?;
            return Ok(layout);
        }
        let id = registry.register(SchemaKind::Avro, schema, subject).await.map_err(wrong)?;
        tracing::info!(%id, subject, "{}: rows are written by this schema", registry.place());
        Ok(layout.named(&id))
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn describe(&self) -> String {
        let registry = self.table.registered.as_ref();
        let registry = registry.map(|(registry, subject)| format!(", {}, subject {subject}", registry.place()));
        let (topic, format) = (&self.table.endpoint.topic, self.table.format);
        format!("kafka topic '{topic}', {format:?}{}", registry.unwrap_or_default())
    }

    fn guarantee(&self) -> String {
        match self.table.delivery {
            Delivery::Transactions => {
                "exactly once for readers at read_committed: rows are staged, and one transaction \
                                       sends them and the number of their entry"
                    .into()
            }
            Delivery::ReadBack => format!(
                "exactly once without transactions: rows are staged and named, and after a crash the topic is read back \
                 and what is missing is sent, {:?} after the takeover at the earliest; open to a process that was frozen \
                 in mid-request and wakes after that",
                settled_after(&self.table.endpoint)
            ),
            Delivery::AtLeastOnce => {
                "at least once: rows are staged, and a crash while they are sent sends them again".into()
            }
        }
    }

    async fn open(&self, context: &SinkContext, probe: bool) -> Result<(), SinkError> {
        let open = Arc::new(self.look(probe).await?);
        if !probe {
            let (endpoint, reports) = (&self.table.endpoint, &open.reports);
            let lane = self.lane(&open, context, &context.writer, &[], Past::None).await;
            let lane = lane.map_err(|trouble| trouble.at_start(endpoint, reports))?;
            open.lanes.lock().await.insert(context.writer.clone(), lane);
            if self.table.delivery != Delivery::AtLeastOnce {
                tokio::spawn(keep_ends(Arc::downgrade(&open), self.table.endpoint.topic.clone()));
            }
            *self.open.lock() = Some(open);
        }
        Ok(())
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        let (ends, id, delivery) = (self.opened()?.ends.clone(), id(context, &context.writer), self.table.delivery);
        let note = move || {
            let ends = ends.lock().iter().map(|(partition, end)| (partition.to_string(), Value::from(*end))).collect();
            Map::from_iter([
                (DELIVERY.into(), Value::from(delivery.word())),
                (ID.into(), Value::from(id.clone())),
                (ENDS.into(), Value::Object(ends)),
            ])
        };
        Ok(Box::new(StagingWriter::new(context, Box::new(note))))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        let open = self.opened()?;
        let own = self.table.delivery.word();
        staged_rows::check_way(entries, DELIVERY, "'sink.delivery'", own, &self.table.endpoint.place())?;
        // What did not go out together may do so one by one.
        let one_by_one = open.failed.swap(true, Ordering::Relaxed);
        for of_writer in entries.chunk_by(|a, b| a.writer == b.writer) {
            for together in at_once(of_writer, one_by_one) {
                let shown = self.show(&open, context, of_writer, together).await;
                let rejected = shown.map_err(|trouble| match trouble {
                    Failure::Sink(error) => error,
                    Failure::Trouble(trouble) => {
                        match trouble.refusal() {
                            Some(refusal) => open.take_care(refusal, &self.table.endpoint),
                            None => open.relax(),
                        }
                        let first = !open.shown.load(Ordering::Relaxed);
                        trouble.at_showing(first, &self.table.endpoint, &open.reports)
                    }
                })?;
                open.shown.store(true, Ordering::Relaxed);
                if let Some((entry, rows)) = rejected {
                    // With these rows, what has to be found out anew may be gone.
                    open.relax();
                    return Ok(Committed::Rejected { entry, rows });
                }
                for token in together.iter().flat_map(|entry| &entry.tokens) {
                    staged_rows::delete(&*context.store, token, &self.table.endpoint.place()).await?;
                }
            }
        }
        open.relax();
        open.lanes.lock().await.retain(|writer, _| *writer == context.writer);
        open.failed.store(false, Ordering::Relaxed);
        open.reports.answered();
        Ok(Committed::Done)
    }
}

const COMPACTED: &str = "nobody can tell any more which rows of the last entries arrived: the brokers forgot it, and a \
                         compacted topic may have dropped the rows that would say it. Look yourself what is missing, then \
                         begin anew under another --name: nothing is sent on a guess";

/// The token's own words.
const DELIVERY: &str = "delivery";
const ID: &str = "transactional_id";
const ENDS: &str = "ends";

/// Of a writer's transactions, and of the group whose offset is their marker.
fn id(context: &SinkContext, writer: &str) -> String {
    format!("millrace-{}-{}-{writer}", context.log_id, context.sink)
}

/// Entries that are shown together: no more than fit in memory twice.
fn at_once(entries: &[Committable], one_by_one: bool) -> Vec<&[Committable]> {
    staged_rows::at_once(entries, if one_by_one { 0 } else { ROWS_AT_ONCE }, BYTES_AT_ONCE)
}

/// Where the topic's partitions ended before any row of these entries was sent. Each token recorded it. A partition that
/// one of them did not know yet is left out.
fn recorded_ends(entries: &[Committable]) -> Ends {
    let of_token = |token: &Token| -> Ends {
        let ends = token[ENDS].as_object().into_iter().flatten();
        ends.filter_map(|(partition, end)| Some((partition.parse().ok()?, end.as_i64()?))).collect()
    };
    let tokens = entries.iter().flat_map(|entry| &entry.tokens).map(of_token);
    let both = |one: Ends, other: Ends| {
        let known = one.into_iter().filter_map(|(partition, end)| Some((partition, end.min(*other.get(&partition)?))));
        known.collect()
    };
    tokens.reduce(both).unwrap_or_default()
}

/// Why entries are not shown.
enum Failure {
    Sink(SinkError),
    Trouble(Trouble),
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Failure::Sink(error)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Failure::Trouble(trouble)
    }
}

type Refused = Option<(u64, Vec<RejectedRow>)>;

impl KafkaSink {
    /// Shows entries of one writer. What fails in between is settled by the next try, with another client. `asked`: all
    /// of that writer's that are to be shown now.
    async fn show(
        &self,
        open: &Arc<Open>,
        context: &SinkContext,
        asked: &[Committable],
        entries: &[Committable],
    ) -> Result<Refused, Failure> {
        let Some(first) = entries.first() else { return Ok(None) };
        let care = *open.care.lock();
        if open.lanes.lock().await.get(&first.writer).is_none_or(|lane| !lane.sends_with(care)) {
            let until = if first.writer == context.writer { Instant::now() } else { open.since };
            let former = open.lanes.lock().await.remove(&first.writer);
            // To close a client may take a moment.
            blocking(move || Ok(drop(former))).await?;
            let opening = self.lane(open, context, &first.writer, asked, Past::Sent { until });
            let lane = telling(opening, &open.reports, &context.metrics).await?;
            open.lanes.lock().await.insert(first.writer.clone(), lane);
        }
        let shown = open.lanes.lock().await.get(&first.writer).and_then(Lane::shown);
        let mut left = vec![];
        for entry in entries.iter().filter(|entry| shown.is_none_or(|shown| entry.entry > shown)) {
            left.push(Entry::read(context, entry, &self.table.endpoint.place()).await?);
        }
        let lane = open.lanes.lock().await.remove(&first.writer);
        let lane = lane.ok_or_else(|| SinkError::retry(self.table.endpoint.place(), "another commit is under way"))?;
        let (layout, context, ends) = (open.layout.clone(), context.clone(), recorded_ends(entries));
        let metrics = context.metrics.clone();
        let sending = blocking(move || {
            let mut lane = lane;
            let shown = match &mut lane {
                Lane::Transactions(lane) => lane.show(&left, &layout),
                Lane::Resending(lane) => lane.show(&left, &layout, &ends, care, &context),
            };
            // After an error, a new hold on the transactional id settles what became of it. To close a client may take a moment.
            let kept = (shown.is_ok() || matches!(lane, Lane::Resending(_))).then_some(lane);
            Ok((kept, shown))
        });
        let (kept, shown) = telling(sending, &open.reports, &metrics).await?;
        if let Some(lane) = kept {
            open.lanes.lock().await.insert(first.writer.clone(), lane);
        }
        Ok(first_entry(shown?))
    }

    /// A way out for a writer's rows: another process may have sent some of them. `entries`: what it is wanted for.
    async fn lane(
        &self,
        open: &Arc<Open>,
        context: &SinkContext,
        writer: &str,
        entries: &[Committable],
        past: Past,
    ) -> Result<Lane, Trouble> {
        let (endpoint, open, delivery) = (self.table.endpoint.clone(), open.clone(), self.table.delivery);
        if delivery != Delivery::Transactions {
            let named = delivery == Delivery::ReadBack;
            let (reports, asking, limits) = (open.reports.clone(), open.asking.clone(), open.limits);
            let way = Way { endpoint, reports, asking, limits, named };
            return blocking(move || Ok(Lane::Resending(Resending::new(way, past)?))).await;
        }
        let named = entries.iter().flat_map(|e| &e.tokens).find_map(|token| token[ID].as_str());
        let id = named.map_or_else(|| id(context, writer), String::from);
        let (context, writer, ends) = (context.clone(), writer.to_string(), recorded_ends(entries));
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.entry).collect();
        blocking(move || {
            let mut lane = Transactions::open(&endpoint, &open.reports, &id, open.limits, *open.care.lock())?;
            if lane.shown().is_none() {
                // The own marker is made before anything is published. Where it is gone, the topic says which entries it holds:
                // each is in one transaction. Those before are shown, or nobody would ask for these.
                if open.limits.compacted && !numbers.is_empty() {
                    return Err(Trouble::Unknown(COMPACTED.into()));
                }
                let mut shown = numbers.first().map_or(0, |first| first - 1);
                for number in numbers {
                    let of = Provenance::of(&context, &writer, number);
                    if !arrived(&endpoint, &open.reports, &open.asking, &ends, &of, true)?.is_empty() {
                        shown = number;
                    }
                }
                lane.begin(shown)?;
            }
            Ok(Lane::Transactions(lane))
        })
        .await
    }
}

impl Open {
    /// Messages are sent with more care after a refusal. How large a batch may be is known from then on.
    fn take_care(&self, refusal: &KafkaError, endpoint: &Endpoint) {
        let said = endpoint.properties.iter().rfind(|(name, _)| name == "batch.size");
        let said = said.and_then(|(_, bytes)| bytes.trim().parse().ok());
        let mut care = self.care.lock();
        *care = care.after(refusal, said);
        if is_too_large(refusal) {
            *self.learnt.lock() = *care;
        }
    }

    /// No more care than the size of batches asks for.
    fn relax(&self) {
        *self.care.lock() = *self.learnt.lock();
    }
}

impl Lane {
    /// Whether it can send with this care: a producer with transactions is made for one.
    fn sends_with(&self, care: Care) -> bool {
        match self {
            Lane::Transactions(lane) => lane.sends_with(care),
            Lane::Resending(_) => true,
        }
    }

    fn shown(&self) -> Option<u64> {
        match self {
            Lane::Transactions(lane) => lane.shown(),
            Lane::Resending(lane) => lane.shown(),
        }
    }
}

/// Looks now and then where the partitions end, also while nothing is sent: little must have to be read after a crash, and
/// nothing that retention may have taken by then.
async fn keep_ends(open: Weak<Open>, topic: String) {
    loop {
        tokio::time::sleep(ENDS_KEPT).await;
        let Some(open) = open.upgrade() else { return };
        let (asking, topic) = (open.asking.clone(), topic.clone());
        match tokio::task::spawn_blocking(move || ends(&asking, &topic)).await {
            Ok(Ok(found)) => *open.ends.lock() = found,
            Ok(Err(error)) => tracing::debug!(%error, "the ends of the partitions are not known; asking again later"),
            Err(_) => {}
        }
    }
}

/// The rejected rows of the first entry that has any.
fn first_entry(rejected: Vec<(u64, RejectedRow)>) -> Refused {
    let entry = rejected.first()?.0;
    Some((entry, rejected.into_iter().filter(|(of, _)| *of == entry).map(|(_, row)| row).collect()))
}

/// Says what the client says while something is waited for: it tries by itself, for as long as its time-outs allow.
async fn telling<T>(work: impl Future<Output = T>, reports: &Reports, metrics: &SinkMetrics) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(LOOK_AT_CLIENT) => {
                if let Some(trouble) = reports.trouble() {
                    metrics.health.suffer(trouble);
                }
            }
        }
    }
}

/// librdkafka's transactions wait on the thread that asks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Trouble> + Send + 'static) -> Result<T, Trouble> {
    let lost = |e: tokio::task::JoinError| Trouble::from(KafkaError::ClientCreation(e.to_string()));
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(number: u64, rows: u64, ends: Value) -> Committable {
        let tokens = vec![json!({"path": "p", "rows": rows, "ends": ends})];
        Committable { entry: number, writer: "w".into(), tokens, excluded: vec![] }
    }

    #[test]
    fn entries_are_shown_together_up_to_a_bound_and_none_is_left_out() {
        let of = |rows: &[u64]| -> Vec<usize> {
            let entries: Vec<_> = rows.iter().map(|rows| entry(1, *rows, json!({}))).collect();
            at_once(&entries, false).iter().map(|part| part.len()).collect()
        };
        assert_eq!(of(&[1, 2, 3]), [3]);
        assert_eq!(of(&[ROWS_AT_ONCE, 1, ROWS_AT_ONCE, 5]), [1, 2, 1]);
        assert_eq!(of(&[]), [0; 0]);
        let entries = [entry(1, 1, json!({})), entry(2, 1, json!({}))];
        assert_eq!(at_once(&entries, true).len(), 2, "after a failure, one by one");
    }

    #[test]
    fn a_partition_is_read_back_from_where_it_ended_before_the_first_of_the_rows() {
        let ends = recorded_ends(&[entry(1, 1, json!({"0": 7, "1": 3})), entry(2, 1, json!({"0": 5, "1": 4, "2": 9}))]);
        assert_eq!(ends, Ends::from([(0, 5), (1, 3)]), "the third partition came later: it is read from its start");
    }
}
