//! A worker: reads its splits, moves rows through the chains, and cuts its state at barriers. Never waits.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::{SplitClock, UNHEARD};
use crate::dead_letter::{self, Telling};
use crate::dedup::{Dedup, DedupError, DedupSnapshot};
use crate::environment::{Environment, Progress};
use crate::inbox::{Assigned, Inbox, Letter};
use crate::key::{Key, Keys};
use crate::lookup::{Asked, KeyRows, LookupError, LookupTable, Met, Next, Queue};
use crate::metrics::{DedupMetrics, Metrics, SinkMetrics, SplitMetrics};
use crate::plan::{LookupJoin, Operator, Plan, Scope, Transform};
use crate::routing::{Routes, To, Way};
use crate::sink::{SinkContext, SinkError, SinkWriter, Token};
use crate::source::{Position, Read, ReadLimit, ReadStatus, Rejected, SourceError};

/// The bounds of what a worker holds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What one read takes.
    pub read: ReadLimit,
    /// Rows on their way to one worker through exchanges, or in it for a table outside; at this, no source is read.
    pub exchange_rows: usize,
    /// Their bytes, and those of rows that wait for a table outside.
    pub exchange_bytes: usize,
    /// Rows and buffered bytes of the open epoch; at these, sources wait for the next barrier.
    pub epoch_rows: usize,
    pub epoch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            read: ReadLimit { records: 4096, bytes: 4 << 20 },
            exchange_rows: 256 * 1024,
            exchange_bytes: 512 << 20,
            epoch_rows: 4_000_000,
            epoch_bytes: 512 << 20,
        }
    }
}

/// Bytes of a bad record that the log shows.
const SAMPLE: usize = 200;

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("rows cannot be moved: {0}")]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Dedup(#[from] DedupError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// What a worker tells the coordinator.
pub enum WorkerEvent {
    Cut(WorkerCut),
    /// A bounded split is complete.
    Ended {
        split: usize,
    },
    Failed(WorkerError),
}

/// A worker's part of a cut: everything before the barrier, nothing after it.
pub struct WorkerCut {
    pub epoch: u64,
    pub splits: Vec<SplitCut>,
    /// State changes, by operator.
    pub state: Vec<(usize, DedupSnapshot)>,
    /// Rows on their way to durability, by sink. Ends with the dead letter's.
    pub prepared: Vec<(usize, Prepared)>,
}

pub type Prepared = BoxFuture<'static, Result<Option<Token>, SinkError>>;

pub struct SplitCut {
    pub group: String,
    pub position: Position,
    pub clock: SplitClock,
    pub finished: bool,
}

/// What all workers of a job share.
pub struct Shared {
    pub plan: Plan,
    pub routes: Routes,
    pub limits: Limits,
    pub environment: Arc<dyn Environment>,
    pub metrics: Arc<Metrics>,
    pub inboxes: Vec<Arc<Inbox>>,
    /// For state that does not fit in memory.
    pub spill: PathBuf,
    /// By sink.
    pub contexts: Vec<SinkContext>,
    /// By their number in the plan.
    pub lookups: Vec<Arc<LookupTable>>,
    pub events: UnboundedSender<WorkerEvent>,
}

pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    splits: Vec<Task>,
    next: usize,
    /// Every split of the job, for those who may not run ahead of the slowest.
    known: Vec<(usize, Arc<SplitMetrics>)>,
    operators: Vec<State>,
    writers: BTreeMap<(usize, usize), Box<dyn SinkWriter>>,
    sink_metrics: Vec<Arc<SinkMetrics>>,
    stages: Vec<Stage>,
    cut: Option<WorkerCut>,
    /// Lookups that still have rows from before the barrier, which the stage behind them waits for.
    held_by: usize,
    epoch_rows: usize,
    telling: Telling,
    /// Until the job ends.
    reading: bool,
    stopped: bool,
}

struct Task {
    assigned: Assigned,
    metrics: Arc<SplitMetrics>,
    first_log_time: i64,
    finished: bool,
    /// Whether it read or heard anything since the last cut.
    moved: bool,
}

enum State {
    Transform(Transform),
    Dedup(Box<Dedup>, Arc<DedupMetrics>),
    Lookup(LookupJoin, Queue),
}

/// The operators between two places where rows wait: exchanges and lookups. Stage 0 is cut by the coordinator's barrier; a
/// later one when every worker has passed the one before.
#[derive(Default)]
struct Stage {
    epoch: u64,
    passed: usize,
    parked: VecDeque<Letter>,
}

/// Where rows are: in which stage, and from which split.
#[derive(Clone, Copy)]
struct Place {
    stage: usize,
    split: usize,
}

impl Worker {
    pub fn new(index: usize, shared: Arc<Shared>) -> Self {
        let state = |node: &crate::plan::OperatorNode| match &node.operator {
            Operator::Transform(transform) => State::Transform(transform.clone()),
            Operator::Deduplicate(spec) => {
                let dedup = Dedup::new(spec.clone(), shared.inboxes.len(), shared.spill.clone());
                State::Dedup(Box::new(dedup), shared.metrics.dedup(&node.id))
            }
            Operator::Lookup(join) => State::Lookup(join.clone(), Queue::default()),
        };
        Worker {
            index,
            splits: vec![],
            next: 0,
            known: vec![],
            operators: shared.plan.operators.iter().map(state).collect(),
            writers: BTreeMap::new(),
            sink_metrics: shared.plan.sinks.iter().map(|s| shared.metrics.sink(&s.table)).collect(),
            stages: (0..shared.routes.stages).map(|_| Stage { epoch: 1, ..Stage::default() }).collect(),
            cut: None,
            held_by: 0,
            epoch_rows: 0,
            telling: Telling::default(),
            reading: true,
            stopped: false,
            shared,
        }
    }

    /// Which of the job's workers this is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Takes in a part of an operator's state, with time buckets of this width. Before the first step.
    pub fn restore(&mut self, operator: usize, part: &RecordBatch, width: Option<i64>) -> Result<(), DedupError> {
        let workers = self.shared.inboxes.len();
        let index = self.index;
        match &mut self.operators[operator] {
            State::Dedup(dedup, _) => dedup.restore(part, width, |key: &Key<'_>| key.bucket() % workers == index),
            State::Transform(_) | State::Lookup(..) => Ok(()),
        }
    }

    /// Makes a split known, before its first row. `mine`: this worker reads it.
    pub fn know(&mut self, source: usize, split: usize, group: &str, clock: SplitClock, mine: bool) {
        let metrics = self.shared.metrics.split(group);
        if mine {
            // Only whoever reads it: another worker may come to know it late, when it has been read for a while.
            metrics.set_clock(&clock);
        }
        self.known.push((source, metrics));
        for (index, state) in self.operators.iter_mut().enumerate() {
            if let State::Dedup(dedup, _) = state
                && self.shared.routes.upstream[index].contains(&source)
                && (mine || dedup.scope() == Scope::Global)
            {
                dedup.add_split(split, group, clock);
            }
        }
    }

    /// Sets an operator's shared clock to where it was. Before [`Worker::all_known`].
    pub fn go_on_from(&mut self, operator: usize, clock: &SplitClock) {
        if let State::Dedup(dedup, _) = &mut self.operators[operator] {
            dedup.go_on_from(clock);
        }
    }

    /// All splits that the job begins with are known, and none is read yet.
    pub fn all_known(&mut self) {
        for state in &mut self.operators {
            if let State::Dedup(dedup, _) = state {
                dedup.all_known();
            }
        }
    }

    /// Does a little work. Called by one thread, again and again.
    pub fn step(&mut self) -> Progress {
        if self.stopped {
            return Progress::Done;
        }
        match self.work() {
            Ok(true) => Progress::Busy,
            Ok(false) => Progress::Idle,
            Err(error) => {
                self.stopped = true;
                let _ = self.shared.events.send(WorkerEvent::Failed(error));
                Progress::Done
            }
        }
    }

    fn work(&mut self) -> Result<bool, WorkerError> {
        let mut busy = false;
        loop {
            while let Some(letter) = self.shared.inboxes[self.index].take() {
                self.take_in(letter)?;
                busy = true;
                if self.stopped {
                    return Ok(true);
                }
            }
            if !self.look_up()? {
                break;
            }
        }
        Ok(self.may_read() && self.read_next()? || busy)
    }

    fn take_in(&mut self, letter: Letter) -> Result<(), WorkerError> {
        match letter {
            Letter::Rows { stage, epoch, .. }
            | Letter::Clock { stage, epoch, .. }
            | Letter::LookedUp { stage, epoch, .. }
                if epoch > self.stages[stage].epoch =>
            {
                self.stages[stage].parked.push_back(letter)
            }
            Letter::Rows { to, stage, split, batch, .. } => {
                let size = Inbox::size_of(&batch);
                self.deliver(to, batch, Place { stage, split })?;
                self.shared.inboxes[self.index].done(size);
            }
            Letter::LookedUp { operator, stage, split, batch, met, .. } => {
                self.join(operator, &batch, &met, Place { stage, split })?;
                self.shared.inboxes[self.index].done(Inbox::size_of(&batch));
            }
            Letter::Clock { stage, source, split, clock, .. } => self.set_clock(stage, source, split, clock),
            Letter::Passed { stage, epoch } => {
                debug_assert_eq!(epoch, self.stages[stage].epoch);
                self.stages[stage].passed += 1;
                if self.stages[stage].passed == self.shared.inboxes.len() {
                    self.stages[stage].passed = 0;
                    self.cut_stage(stage)?;
                }
            }
            Letter::Barrier { epoch } => {
                self.shared.inboxes[self.index].cuts(epoch);
                self.begin_cut(epoch);
                self.cut_stage(0)?;
            }
            Letter::LastRead => self.reading = false,
            Letter::Split(assigned) => self.assign(*assigned),
            Letter::Known { source, split, group, clock, mine } => self.know(source, split, &group, clock, mine),
            Letter::Stop => self.stopped = true,
        }
        Ok(())
    }

    fn assign(&mut self, assigned: Assigned) {
        let metrics = self.shared.metrics.split(&assigned.group);
        let first_log_time = assigned.clock.log_time;
        self.splits.push(Task { assigned, metrics, first_log_time, finished: false, moved: false });
    }

    // Reading

    fn may_read(&self) -> bool {
        let limits = &self.shared.limits;
        let has_room = |i: &Arc<Inbox>| i.rows() < limits.exchange_rows && i.bytes() < limits.exchange_bytes;
        let room = self.shared.inboxes.iter().all(has_room);
        let buffered: usize = self.writers.values().map(|w| w.buffered()).sum();
        let epoch_open = self.epoch_rows < limits.epoch_rows && buffered < limits.epoch_bytes;
        self.reading && room && epoch_open && self.writers.values().all(|w| w.ready())
    }

    /// Reads the next split that has something. Returns whether one had.
    fn read_next(&mut self) -> Result<bool, WorkerError> {
        for _ in 0..self.splits.len() {
            self.next = (self.next + 1) % self.splits.len();
            let at = self.next;
            if self.splits[at].finished || self.is_ahead(at) {
                continue;
            }
            let limit = self.shared.limits.read;
            let read = self.splits[at].assigned.reader.read(limit)?;
            let (got, more) = (read.records > 0, read.status == ReadStatus::More);
            self.take_read(at, read)?;
            if got || more {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A split that is more than a dedup's window ahead of the slowest of all that feed the dedup, of whatever source,
    /// waits, so that catching up costs bounded memory.
    fn is_ahead(&self, at: usize) -> bool {
        let Assigned { source, clock: SplitClock { log_time, .. }, .. } = self.splits[at].assigned;
        log_time != UNHEARD
            && self.windows_of(source).any(|(within, upstream)| {
                let live = self.known.iter().filter(|(s, metrics)| upstream.contains(s) && !metrics.idle.get());
                let heard = |t| if t == UNHEARD { self.splits[at].first_log_time } else { t };
                let slowest = live.map(|(_, metrics)| heard(metrics.log_time.get())).min();
                slowest.is_some_and(|slowest| log_time.saturating_sub(slowest) > within)
            })
    }

    /// The windows that rows of a source come to, each with all sources that do.
    fn windows_of(&self, source: usize) -> impl Iterator<Item = (i64, &[usize])> {
        let Shared { plan, routes, .. } = &*self.shared;
        plan.operators.iter().zip(&routes.upstream).filter_map(move |(node, upstream)| match &node.operator {
            Operator::Deduplicate(d) if upstream.contains(&source) => {
                Some((d.within.as_nanos() as i64, upstream.as_slice()))
            }
            _ => None,
        })
    }

    fn take_read(&mut self, at: usize, read: Read) -> Result<(), WorkerError> {
        let task = &mut self.splits[at];
        let (source, split) = (task.assigned.source, task.assigned.split);
        let idle = matches!(read.status, ReadStatus::AtEnd | ReadStatus::Finished);
        let event_time = read.batch.as_ref().and_then(|b| watermark(&self.shared.plan, source, b));
        let before = task.assigned.clock;
        task.moved |= task.assigned.position != read.position || read.status == ReadStatus::Finished;
        task.assigned.position = read.position;
        task.assigned.clock.advance(event_time, read.log_time, idle);
        if task.first_log_time == UNHEARD {
            task.first_log_time = task.assigned.clock.log_time;
        }
        let clock = task.assigned.clock;
        let rows = read.batch.as_ref().map_or(0, |b| b.num_rows());
        task.count(read.records, rows, read.bytes, read.rejected.len());
        self.epoch_rows += rows + read.rejected.len();
        if !read.rejected.is_empty() {
            let table = self.shared.plan.sources[source].table.clone();
            self.reject(&table, &read.rejected, Place { stage: 0, split })?;
        }
        if let Some(batch) = read.batch {
            let batch = self.stamp(source, batch)?;
            let ways = self.shared.clone();
            self.send(&ways.routes.from_source[source], batch, Place { stage: 0, split })?;
        }
        if clock != before {
            self.splits[at].moved = true;
            self.splits[at].metrics.set_clock(&clock);
            self.spread_clock(source, split, clock);
        }
        if let Some(observed) = self.splits[at].assigned.reader.observed() {
            let table = &self.shared.plan.sources[source].table;
            if let Some(findings) = self.shared.metrics.observe(table, observed) {
                tracing::warn!(%table, "the table does not fit its first records: {findings}");
            }
        }
        if read.status == ReadStatus::Finished {
            self.splits[at].finished = true;
            let _ = self.shared.events.send(WorkerEvent::Ended { split });
        }
        Ok(())
    }

    /// The one place where a query's `now()` is read: once per batch.
    fn stamp(&self, source: usize, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let node = &self.shared.plan.sources[source];
        if !node.now {
            return Ok(batch);
        }
        let now = TimestampNanosecondArray::from_value(self.shared.environment.now(), batch.num_rows());
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(now.with_timezone("UTC")));
        RecordBatch::try_new(node.schema(), columns)
    }

    fn spread_clock(&mut self, source: usize, split: usize, clock: SplitClock) {
        self.set_clock(0, source, split, clock);
        for stage in &self.shared.routes.clocked_stages[source] {
            for inbox in &self.shared.inboxes {
                inbox.send(Letter::Clock { stage: *stage, epoch: self.stages[0].epoch, source, split, clock });
            }
        }
    }

    fn set_clock(&mut self, stage: usize, source: usize, split: usize, clock: SplitClock) {
        let routes = &self.shared.routes;
        for (index, state) in self.operators.iter_mut().enumerate() {
            if let State::Dedup(dedup, _) = state
                && routes.stage[index] == stage
                && routes.upstream[index].contains(&source)
            {
                dedup.set_clock(split, clock);
            }
        }
    }

    // Moving rows

    fn send(&mut self, ways: &[Way], batch: RecordBatch, place: Place) -> Result<(), WorkerError> {
        for way in ways {
            match &way.exchange {
                None => self.deliver(way.to, batch.clone(), place)?,
                Some(columns) => self.exchange(way.to, columns, &batch, place)?,
            }
        }
        Ok(())
    }

    fn exchange(&mut self, to: To, columns: &[usize], batch: &RecordBatch, place: Place) -> Result<(), WorkerError> {
        let stage = match to {
            To::Operator(operator) => self.shared.routes.stage[operator],
            To::Sink(_) => place.stage,
        };
        let epoch = self.stages[place.stage].epoch;
        let workers = self.shared.inboxes.len();
        let split = place.split;
        if workers == 1 {
            self.shared.inboxes[0].send(Letter::Rows { to, stage, epoch, split, batch: batch.clone() });
            return Ok(());
        }
        let (keys, mut space) = (Keys::of(batch, columns)?, vec![]);
        let mut rows: Vec<Vec<u32>> = (0..workers).map(|_| Vec::with_capacity(2 * keys.len() / workers)).collect();
        for row in 0..keys.len() {
            rows[keys.get(row, &mut space).bucket() % workers].push(row as u32);
        }
        for (worker, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let batch = take_record_batch(batch, &UInt32Array::from(rows))?;
            self.shared.inboxes[worker].send(Letter::Rows { to, stage, epoch, split, batch });
        }
        Ok(())
    }

    fn deliver(&mut self, to: To, batch: RecordBatch, place: Place) -> Result<(), WorkerError> {
        match to {
            To::Sink(sink) => self.write(sink, &batch, place),
            To::Operator(operator) => self.operate(operator, batch, place),
        }
    }

    fn operate(&mut self, operator: usize, batch: RecordBatch, place: Place) -> Result<(), WorkerError> {
        let shared = self.shared.clone();
        let ways = &shared.routes.from_operator[operator];
        match &mut self.operators[operator] {
            State::Transform(transform) => {
                let (done, failed) = transform.run(&batch);
                for batch in done {
                    self.send(ways, batch, place)?;
                }
                for failure in failed {
                    let rejected = dead_letter::of_rows(&failure.row, "expression", &failure.error);
                    self.reject("query", &rejected, place)?;
                }
            }
            State::Dedup(dedup, metrics) => {
                let judged = dedup.judge(place.split, &batch)?;
                metrics.rows.add(batch.num_rows() as u64);
                metrics.copies.add(judged.copies);
                metrics.unjudged.add(judged.unjudged);
                if let Some(late) = judged.late {
                    let rejected = dead_letter::of_rows(&late, "late", "older than the deduplication window");
                    self.reject("query", &rejected, place)?;
                }
                if let Some(passed) = judged.passed {
                    self.send(ways, passed, place)?;
                }
            }
            State::Lookup(join, queue) => {
                let table = &shared.lookups[join.table];
                let inbox = &shared.inboxes[self.index];
                let answer = table.ask(KeyRows::of(&batch, &join.keys)?, &inbox.bell)?;
                let (stage, epoch) = (place.stage, self.stages[place.stage].epoch);
                inbox.wait(&batch);
                table.metrics.waiting.change(batch.num_rows() as i64);
                queue.push(Asked { batch, stage, epoch, split: place.split }, answer);
            }
        }
        Ok(())
    }

    // Lookups

    /// Lets go on what has waited for an answer that is there now. Returns whether anything does.
    fn look_up(&mut self) -> Result<bool, WorkerError> {
        let shared = self.shared.clone();
        let inbox = &shared.inboxes[self.index];
        let mut passed = vec![];
        let mut any = false;
        for (operator, state) in self.operators.iter_mut().enumerate() {
            let State::Lookup(join, queue) = state else { continue };
            let table = &shared.lookups[join.table];
            while let Some(next) = queue.next(table)? {
                any = true;
                match next {
                    Next::Barrier { stage } => passed.push(stage),
                    Next::Rows(Asked { batch, stage, epoch, split }, met) => {
                        table.metrics.waiting.change(-(batch.num_rows() as i64));
                        inbox.send(Letter::LookedUp { operator, stage: stage + 1, epoch, split, batch, met });
                    }
                }
            }
        }
        for stage in passed {
            self.held_by -= 1;
            if self.held_by == 0 {
                self.tell_passed(stage + 1, self.stages[stage].epoch - 1);
            }
        }
        Ok(any)
    }

    fn join(&mut self, operator: usize, batch: &RecordBatch, met: &Met, place: Place) -> Result<(), WorkerError> {
        let shared = self.shared.clone();
        let State::Lookup(join, _) = &self.operators[operator] else { return Ok(()) };
        let (join, ways) = (join.clone(), &shared.routes.from_operator[operator]);
        let metrics = &shared.lookups[join.table].metrics;
        let schema = &shared.plan.operators[operator].schema;
        let joined = join.run(batch, met, schema, |rows| self.send(ways, rows, place))?;
        metrics.unmatched.add(joined.unmatched as u64);
        metrics.rejected.add(joined.refused.len() as u64);
        for (code, failed) in [("lookup", joined.refused), ("expression", joined.failed)] {
            for failure in failed {
                let rejected = dead_letter::of_rows(&failure.row, code, &failure.error);
                self.reject("query", &rejected, place)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, sink: usize, batch: &RecordBatch, place: Place) -> Result<(), WorkerError> {
        let at = (sink, place.stage);
        if !self.writers.contains_key(&at) {
            let writer = self.shared.plan.sinks[sink].sink.writer(&self.shared.contexts[sink])?;
            self.writers.insert(at, writer);
        }
        if let Some(writer) = self.writers.get_mut(&at) {
            writer.write(batch)?;
            self.sink_metrics[sink].rows.add(batch.num_rows() as u64);
        }
        Ok(())
    }

    fn reject(&mut self, table: &str, rejected: &[Rejected], place: Place) -> Result<(), WorkerError> {
        self.shared.metrics.dead_letters.add(rejected.len() as u64);
        if let Some(first) = rejected.first()
            && let Some(records) = self.telling.due(rejected.len(), self.shared.environment.elapsed())
        {
            let sample = String::from_utf8_lossy(&first.payload[..first.payload.len().min(SAMPLE)]).into_owned();
            let (partition, offset) = (first.partition, first.offset);
            tracing::warn!(table, partition, offset, records, code = first.code, error = %first.error, sample,
                "sent to the dead letter");
        }
        let rows = dead_letter::rows(table, rejected)?;
        self.write(self.shared.plan.dead_letter, &rows, place)
    }

    // Cutting

    fn begin_cut(&mut self, epoch: u64) {
        let split = |task: &Task| SplitCut {
            group: task.assigned.group.clone(),
            position: task.assigned.position.clone(),
            clock: task.assigned.clock,
            finished: task.finished,
        };
        // Ten thousand files that wait, or are read, do not stand in every entry.
        let splits = self.splits.iter().filter(|task| task.moved).map(split).collect();
        self.splits.retain(|task| !task.finished);
        self.splits.iter_mut().for_each(|task| task.moved = false);
        self.cut = Some(WorkerCut { epoch, splits, state: vec![], prepared: vec![] });
        self.epoch_rows = 0;
    }

    /// Cuts one stage: from here on its rows belong to the next epoch.
    fn cut_stage(&mut self, stage: usize) -> Result<(), WorkerError> {
        let Some(mut cut) = self.cut.take() else { return Ok(()) };
        for (index, state) in self.operators.iter_mut().enumerate() {
            if let State::Dedup(dedup, metrics) = state
                && self.shared.routes.stage[index] == stage
            {
                cut.state.push((index, dedup.snapshot()));
                metrics.size.write().insert(self.index, dedup.size());
            }
        }
        let dead_letter = self.shared.plan.dead_letter;
        let of_stage = self.writers.iter_mut().filter(|((_, s), _)| *s == stage);
        let (last, first): (Vec<_>, Vec<_>) = of_stage.partition(|((sink, _), _)| *sink == dead_letter);
        for ((sink, _), writer) in first.into_iter().chain(last) {
            cut.prepared.push((*sink, writer.prepare()));
        }
        let epoch = self.stages[stage].epoch;
        self.stages[stage].epoch += 1;
        if stage + 1 == self.stages.len() {
            let _ = self.shared.events.send(WorkerEvent::Cut(cut));
        } else {
            self.cut = Some(cut);
            let queues = self.operators.iter_mut().filter_map(|state| match state {
                State::Lookup(_, queue) => Some(queue),
                _ => None,
            });
            self.held_by = queues.map(|queue| queue.cut(stage) as usize).sum();
            if self.held_by == 0 {
                self.tell_passed(stage + 1, epoch);
            }
        }
        self.unpark(stage)
    }

    /// No more rows of an epoch come from here to a stage.
    fn tell_passed(&self, stage: usize, epoch: u64) {
        for inbox in &self.shared.inboxes {
            inbox.send(Letter::Passed { stage, epoch });
        }
    }

    /// Rows that came too early for the last epoch are in time now.
    fn unpark(&mut self, stage: usize) -> Result<(), WorkerError> {
        for letter in std::mem::take(&mut self.stages[stage].parked) {
            self.take_in(letter)?;
        }
        Ok(())
    }
}

impl Task {
    fn count(&self, records: usize, rows: usize, bytes: usize, rejected: usize) {
        self.metrics.records.add(records as u64);
        self.metrics.rows.add(rows as u64);
        self.metrics.bytes.add(bytes as u64);
        self.metrics.rejected.add(rejected as u64);
        self.metrics.offset.set(self.assigned.position.offset.max(0) as u64);
        self.metrics.lag.set(self.assigned.reader.lag().unwrap_or(0));
    }
}

/// The highest event time of a batch, less the declared delay.
fn watermark(plan: &Plan, source: usize, batch: &RecordBatch) -> Option<i64> {
    let spec = plan.sources[source].watermark?;
    let times = batch.column(spec.column).as_primitive_opt::<TimestampNanosecondType>()?;
    if times.null_count() == times.len() {
        return None;
    }
    arrow::compute::max(times).map(|t| t.saturating_sub(spec.delay.as_nanos() as i64))
}
