//! Runs a plan from start to end: claims, recovers, starts the workers, sets barriers, publishes and commits.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::SplitClock;
use crate::committer::{CommitEvent, Committer};
use crate::environment::Environment;
use crate::inbox::{Assigned, Inbox, Letter};
use crate::job_log::entry::{Claim, Kind, Layout};
use crate::job_log::state::{Group, LogState};
use crate::job_log::{JobLog, JobLogError, LogSettings};
use crate::lookup::{self, LookupError, LookupTable};
use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::plan::{LookupNode, Operator, Plan, SinkNode, SourceNode};
use crate::publisher::{PublishError, Published, Publisher, Request, read_parts};
use crate::recovery::{Shape, Start as Decision, decide};
use crate::routing::Routes;
use crate::sink::{Committable, Names, Ownership, SinkContext, SinkError};
use crate::source::{Position, ReadRequest, Source, SourceError, SplitReader, Start, Wake};
use crate::worker::{Limits, Shared, Worker, WorkerCut, WorkerError, WorkerEvent};

/// How a job runs.
#[derive(Debug, Clone)]
pub struct JobSettings {
    pub checkpoint_interval: Duration,
    pub workers: usize,
    /// Entries of this process that may wait at any sink; then no barrier starts and the sources fill their epoch.
    pub max_uncommitted: usize,
    /// A barrier that is not aligned within this is reported.
    pub stall_report: Duration,
    /// A graceful stop gives up after this.
    pub stop_within: Duration,
    /// Refuse while another process seems to be alive.
    pub no_takeover: bool,
    pub limits: Limits,
    /// A folder on a disk of this machine, for state that does not fit in memory. Its files have no names and end with
    /// the process.
    pub spill: PathBuf,
    pub log: LogSettings,
}

impl Default for JobSettings {
    fn default() -> Self {
        JobSettings {
            checkpoint_interval: Duration::from_secs(1),
            workers: 1,
            max_uncommitted: 8,
            stall_report: Duration::from_secs(30),
            stop_within: Duration::from_secs(30),
            no_takeover: false,
            limits: Limits::default(),
            spill: std::env::temp_dir(),
            log: LogSettings::default(),
        }
    }
}

/// How a job ended, when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every bounded source is complete and everything is shown.
    Completed,
    /// Asked to stop: everything read is published and shown.
    Stopped,
    /// Asked to stop before it read anything: what its predecessor published and did not show, the next start shows.
    StoppedAtStart,
}

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Log(#[from] JobLogError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the job did not reach its last checkpoint within {0:?}; it goes on from entry {1} at the next start")]
    StopTooSlow(Duration, u64),
}

impl JobError {
    /// Whether another process took the job over.
    pub fn is_fenced(&self) -> bool {
        matches!(
            self,
            JobError::Log(JobLogError::Fenced { .. })
                | JobError::Publish(PublishError::Log(JobLogError::Fenced { .. }))
        )
    }
}

/// What a running job tells whoever started it, once it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    New,
    Resumed { entry: u64 },
}

/// A job that is ready to run.
pub struct Job {
    pub plan: Plan,
    pub settings: JobSettings,
    pub store: Arc<dyn ObjectStore>,
    /// The job's folder in the store.
    pub root: Path,
    pub environment: Arc<dyn Environment>,
    pub metrics: Arc<Metrics>,
    /// Turns true when the job shall stop.
    pub stop: watch::Receiver<bool>,
    pub begun: Option<oneshot::Sender<Begun>>,
}

impl Job {
    /// Runs to the end, a stop, or an error. After an error or a crash, the next run goes on where the log says.
    pub async fn run(self) -> Result<Outcome, JobError> {
        let mut stop = self.stop.clone();
        // A start waits for the store, the sources and the sinks, and nobody knows for how long. To give it up is safe:
        // the log knows of nothing that the next start would miss.
        let running = tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(Outcome::StoppedAtStart),
            running = self.begin() => running?,
        };
        running.run().await
    }

    async fn begin(mut self) -> Result<Running, JobError> {
        let (store, root) = (self.store.clone(), self.root.clone());
        let mut log = JobLog::open(store, root, self.environment.clone(), self.settings.log.clone()).await?;
        log.count_in(self.metrics.checkpoints.clone());
        let patience = self.settings.no_takeover.then_some(self.settings.checkpoint_interval * 3);
        let begun = self.decide(&log, patience)?;
        let sender = self.begun.take();
        let running = self.start(log).await?;
        if let Some(sender) = sender {
            let _ = sender.send(begun);
        }
        Ok(running)
    }

    fn decide(&self, log: &JobLog, patience: Option<Duration>) -> Result<Begun, JobError> {
        let stateful = |n: &&crate::plan::OperatorNode| matches!(n.operator, Operator::Deduplicate(_));
        let shape = Shape {
            layout: Layout::in_memory(),
            operators: self.plan.operators.iter().filter(stateful).map(|n| n.id.clone()).collect(),
            sinks: self.plan.sinks.iter().map(|s| s.table.clone()).collect(),
        };
        match decide(log.state(), &shape, self.environment.now() / 1_000_000, patience) {
            Decision::Fresh => Ok(Begun::New),
            Decision::Resume { entry } | Decision::CommitThenResume { entry } => Ok(Begun::Resumed { entry }),
            Decision::Stop(reason) => Err(JobError::Refused(reason)),
        }
    }

    /// Claim, finish what the predecessor published, restore, open: in this order.
    async fn start(self, mut log: JobLog) -> Result<Running, JobError> {
        let names = Names::of(log.writer());
        self.check_sinks(&log, &names).await?;
        let lookups = self.open_lookups().await?;
        let starts = self.claim_all(&mut log).await?;
        self.environment.crash_point("after-claim");
        // Not the one that the claim would have given the log: another process may have begun it a moment before.
        let log_id = log.state().map_or_else(String::new, |s| s.log_id.clone());
        let (requests, inbox) = mpsc::unbounded_channel();
        let contexts = self.contexts(&log, &log_id, &names, &requests);
        self.open_sinks(&contexts, false).await?;
        let dead_letter = self.plan.dead_letter;
        let dead_letter_writer = self.plan.sinks[dead_letter].sink.writer(&contexts[dead_letter])?;
        let committers: Vec<Committer> = (0..self.plan.sinks.len())
            .map(|sink| Committer {
                sink: self.plan.sinks[sink].sink.clone(),
                context: contexts[sink].clone(),
                commit_interval: self.plan.sinks[sink].commit_interval(),
                give_up_after: self.plan.sinks[sink].give_up_after,
                environment: self.environment.clone(),
                metrics: self.metrics.sink(&self.plan.sinks[sink].table),
                publisher: requests.clone(),
            })
            .collect();
        let (answers, mut published) = mpsc::unbounded_channel();
        let (shared, workers, worker_events) = self.restore(&log, contexts, lookups, &starts).await?;
        let mut publisher = Publisher {
            plan: self.plan.clone(),
            environment: self.environment.clone(),
            metrics: self.metrics.clone(),
            names,
            dead_letter: dead_letter_writer,
            riding: vec![],
            carried: vec![],
            log,
        };
        for duty in publisher.log.state().map_or(vec![], |s| s.duties.clone()) {
            publisher.dead_letter_rows(&duty)?;
        }
        let state = publisher.log.state().cloned();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(publisher.run(inbox, answers));
        for table in &shared.lookups {
            let (table, events) = (table.clone(), shared.events.clone());
            tasks.spawn(async move {
                // Rows would wait for ever for a table that nobody asks any more.
                let ended = AssertUnwindSafe(table.run()).catch_unwind().await;
                let error = ended.unwrap_or_else(|_| {
                    LookupError::failed(format!("table {}", table.name()), "a defect: it panicked")
                });
                let _ = events.send(WorkerEvent::Failed(error.into()));
            });
        }
        let hints = self.plan.sources.iter().map(|node| {
            let (sender, positions) = watch::channel(vec![]);
            tasks.spawn(hint(node.source.clone(), positions));
            sender
        });
        let hints = hints.collect();
        tokio::select! {
            biased;
            Some(Published::Failed(error)) = published.recv() => return Err(error.into()),
            finished = self.finish_predecessor(&committers, state.as_ref()) => finished?,
        }
        flush(&requests).await;
        let (commit_answers, commit_events) = mpsc::unbounded_channel();
        let (ending, ends) = watch::channel(false);
        let mut committing = vec![];
        for committer in committers {
            let (queue, entries) = mpsc::unbounded_channel();
            committing.push(queue);
            tasks.spawn(committer.run(entries, ends.clone(), commit_answers.clone()));
        }
        let mut running = Running {
            epoch: 0,
            cut: None,
            cut_begun: self.environment.elapsed(),
            cut_stall_reported: false,
            waiting_cuts: 0,
            settled: false,
            uncommitted: BTreeMap::new(),
            live: BTreeSet::new(),
            split_count: 0,
            groups: BTreeSet::new(),
            entry: state.map_or(0, |s| s.number),
            log_id,
            looking: tokio::task::JoinSet::new(),
            hints,
            _tasks: tasks,
            job: self,
            shared,
            requests,
            published,
            commit_events,
            committing,
            ending,
            worker_events,
        };
        for (split, start) in starts.into_iter().enumerate() {
            let split = open_split(&running.shared, split, start).await?;
            running.take_split(split);
        }
        for worker in workers {
            running.spawn(worker);
        }
        Ok(running)
    }

    /// Looks at the sinks before the job is claimed: a process that could show nothing must not take it from one that can.
    async fn check_sinks(&self, log: &JobLog, names: &Names) -> Result<(), JobError> {
        let log_id = log.state().map_or("", |s| s.log_id.as_str());
        // Nobody answers yet, and a look asks nothing.
        let (requests, _) = mpsc::unbounded_channel();
        self.open_sinks(&self.contexts(log, log_id, names, &requests), true).await
    }

    /// Waits until the tables outside can be asked: also before the claim, for the same reason.
    async fn open_lookups(&self) -> Result<Vec<Arc<LookupTable>>, JobError> {
        let table = |node: &LookupNode| {
            Arc::new(LookupTable::new(node, self.environment.clone(), self.metrics.lookup(&node.table)))
        };
        let tables: Vec<_> = self.plan.lookups.iter().map(table).collect();
        lookup::open_all(&tables).await?;
        Ok(tables)
    }

    async fn open_sinks(&self, contexts: &[SinkContext], probe: bool) -> Result<(), JobError> {
        let sinks = self.plan.sinks.iter().zip(contexts);
        let opened = join_all(sinks.map(|(node, context)| self.open_sink(node, context, probe))).await;
        Ok(opened.into_iter().collect::<Result<(), SinkError>>()?)
    }

    /// Opens a sink, however long that takes, unless a time is stated: a job that starts while its database fails over
    /// has nothing else to do.
    async fn open_sink(&self, node: &SinkNode, context: &SinkContext, probe: bool) -> Result<(), SinkError> {
        let health = &self.metrics.sink(&node.table).health;
        let mut patience = Patience::new(&*self.environment, health, node.give_up_after, 0);
        loop {
            let (place, what) = match node.sink.open(context, probe).await {
                Ok(()) => {
                    health.heal();
                    return Ok(());
                }
                Err(SinkError::Retry { place, what }) => (place, what),
                Err(failed) => return Err(failed),
            };
            tracing::warn!(sink = %node.table, %place, %what, "not open yet; trying again");
            if let Err(most) = patience.after(&place, &what, 0).await {
                let what = format!("{what}. It could not be opened for {most:?}, which give_up_after bounds");
                return Err(SinkError::Failed { place, what });
            }
        }
    }

    /// Claims every split, and says where it begins.
    async fn claim_all(&self, log: &mut JobLog) -> Result<Vec<SplitStart>, JobError> {
        loop {
            let mut starts = self.starts(log.state()).await?;
            self.environment.crash_point("before-claim");
            log.append(Kind::Claim(self.claim(log, &starts))).await?;
            // Others may have gone on until the claim stood: what the log says now holds, not what it said before.
            self.decide(log, None)?;
            starts.iter_mut().for_each(|start| start.take_from(log.state()));
            // They may have found splits meanwhile. They can do so no more, so a second claim has them all.
            let claimed: BTreeSet<&str> = starts.iter().map(|s| s.group.as_str()).collect();
            let is_read = |group: &str| self.plan.sources.iter().any(|s| split_of(&s.table, group).is_some());
            let mut groups = log.state().into_iter().flat_map(|s| s.groups.keys());
            if groups.all(|group| claimed.contains(group.as_str()) || !is_read(group)) {
                return Ok(starts);
            }
        }
    }

    /// Where each split begins. What the log knows is not asked again; what it does not know is asked once.
    async fn starts(&self, state: Option<&LogState>) -> Result<Vec<SplitStart>, JobError> {
        let mut starts = vec![];
        for (source, node) in self.plan.sources.iter().enumerate() {
            node.source.watch(self.metrics.source(&node.table));
            let recorded = state.into_iter().flat_map(|s| s.groups.keys()).filter_map(|g| split_of(&node.table, g));
            let recorded: Vec<String> = recorded.map(String::from).collect();
            let known_table = !recorded.is_empty();
            let mut splits = node.source.splits().await?;
            splits.extend(recorded);
            splits.sort_by_key(|s| (s.len(), s.clone()));
            splits.dedup();
            for split in splits {
                let group = format!("{}/{split}", node.table);
                let start = match state.and_then(|s| s.groups.get(&group)) {
                    Some(group) => {
                        if !group.finished {
                            node.source.verify(&split, &group.start.from).await?;
                        }
                        (group.start.clone(), clock_of(group), group.finished)
                    }
                    None => (node.source.resolve(&split, known_table).await?, SplitClock::default(), false),
                };
                starts.push(SplitStart { source, split, group, start: start.0, clock: start.1, finished: start.2 });
            }
        }
        Ok(starts)
    }

    fn claim(&self, log: &JobLog, starts: &[SplitStart]) -> Claim {
        let groups = starts.iter().map(|s| (s.group.clone(), s.start.clone())).collect();
        let log_id = log.state().map_or_else(|| self.environment.writer_id(), |s| s.log_id.clone());
        let operators = self.plan.operators.iter().map(|n| n.id.clone()).collect();
        Claim { log_id, layout: Layout::in_memory(), operators, groups, generation: None, member: None }
    }

    fn contexts(
        &self,
        log: &JobLog,
        log_id: &str,
        names: &Names,
        requests: &mpsc::UnboundedSender<Request>,
    ) -> Vec<SinkContext> {
        let context = |node: &SinkNode| SinkContext {
            log_id: log_id.to_string(),
            sink: node.table.clone(),
            writer: log.writer().to_string(),
            schema: node.schema.clone(),
            store: log.store().clone(),
            staging: log.folder("staged").join(node.table.as_str()),
            names: names.clone(),
            ownership: ownership(requests.clone()),
            metrics: self.metrics.sink(&node.table),
            runtime: tokio::runtime::Handle::current(),
        };
        self.plan.sinks.iter().map(context).collect()
    }

    async fn restore(
        &self,
        log: &JobLog,
        contexts: Vec<SinkContext>,
        lookups: Vec<Arc<LookupTable>>,
        starts: &[SplitStart],
    ) -> Result<(Arc<Shared>, Vec<Worker>, mpsc::UnboundedReceiver<WorkerEvent>), JobError> {
        let (events, worker_events) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            routes: Routes::of(&self.plan),
            plan: self.plan.clone(),
            limits: self.settings.limits.clone(),
            environment: self.environment.clone(),
            metrics: self.metrics.clone(),
            inboxes: (0..self.settings.workers.max(1)).map(|_| Arc::new(Inbox::default())).collect(),
            spill: self.settings.spill.clone(),
            contexts,
            lookups,
            events,
        });
        let mut workers: Vec<_> = (0..shared.inboxes.len()).map(|i| Worker::new(i, shared.clone())).collect();
        for (split, start) in starts.iter().enumerate() {
            let owner = split % workers.len();
            for (index, worker) in workers.iter_mut().enumerate() {
                worker.know(start.source, split, &start.group, start.clock, index == owner);
            }
        }
        let clocks = log.state().map(|s| s.clocks.clone()).unwrap_or_default();
        for (operator, node) in self.plan.operators.iter().enumerate() {
            if let Some(clock) = clocks.get(&node.id) {
                workers.iter_mut().for_each(|worker| worker.go_on_from(operator, clock));
            }
        }
        workers.iter_mut().for_each(Worker::all_known);
        self.environment.crash_point("before-restore");
        let parts = log.state().map(|s| s.parts.clone()).unwrap_or_default();
        for (operator, node) in self.plan.operators.iter().enumerate() {
            let Some(parts) = parts.get(&node.id) else { continue };
            let read = read_parts(log.store().clone(), self.root.clone(), parts.clone());
            let mut read = Box::pin(read.zip(futures::stream::iter(parts)));
            while let Some((batches, part)) = read.next().await {
                for batch in batches? {
                    for worker in &mut workers {
                        worker.restore(operator, &batch, part.width).map_err(WorkerError::from)?;
                    }
                }
            }
        }
        self.environment.crash_point("after-restore");
        Ok((shared, workers, worker_events))
    }

    /// What is published and not shown is shown first, under the names of those who published it.
    async fn finish_predecessor(&self, committers: &[Committer], state: Option<&LogState>) -> Result<(), JobError> {
        let Some(state) = state else { return Ok(()) };
        for committer in committers {
            let entries = state.to_commit(&committer.context.sink);
            if !entries.is_empty() {
                self.environment.crash_point("during-recovery-commit");
                let shown = committer.show(entries).await?;
                let _ = committer.publisher.send(Request::Shown(shown));
            }
        }
        Ok(())
    }
}

struct SplitStart {
    source: usize,
    split: String,
    group: String,
    start: Start,
    clock: SplitClock,
    finished: bool,
}

impl SplitStart {
    /// Begins where the log says that the split stands.
    fn take_from(&mut self, state: Option<&LogState>) {
        if let Some(group) = state.and_then(|s| s.groups.get(&self.group)) {
            (self.start, self.clock, self.finished) = (group.start.clone(), clock_of(group), group.finished);
        }
    }
}

/// Where a split's clocks go on. One that stood at its end holds the others back until it is asked again.
fn clock_of(group: &Group) -> SplitClock {
    SplitClock { idle: group.finished, ..group.clock }
}

/// A split that can be read. The reader is missing if the split is finished.
struct OpenSplit {
    split: usize,
    start: SplitStart,
    reader: Option<Box<dyn SplitReader>>,
}

/// A job whose workers are running. One task owns it; everything else reaches it as a message.
struct Running {
    job: Job,
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Request>,
    published: mpsc::UnboundedReceiver<Published>,
    commit_events: mpsc::UnboundedReceiver<CommitEvent>,
    committing: Vec<mpsc::UnboundedSender<Committable>>,
    /// Tells the committers to wait for nothing.
    ending: watch::Sender<bool>,
    worker_events: mpsc::UnboundedReceiver<WorkerEvent>,
    epoch: u64,
    /// The parts of the open cut that have come; `None` while no barrier is under way.
    cut: Option<Vec<WorkerCut>>,
    /// On the environment's steady clock.
    cut_begun: Duration,
    cut_stall_reported: bool,
    /// Cuts that are complete and not published.
    waiting_cuts: usize,
    /// Nothing had happened since the cut before the last one.
    settled: bool,
    /// How many sinks each published entry still waits for.
    uncommitted: BTreeMap<u64, usize>,
    /// Splits that can still bring something.
    live: BTreeSet<usize>,
    split_count: usize,
    groups: BTreeSet<String>,
    entry: u64,
    log_id: String,
    /// New splits that are being looked for, claimed and opened; at most one task.
    looking: tokio::task::JoinSet<Result<Vec<OpenSplit>, SourceError>>,
    /// For each source: the positions that it is told next.
    hints: Vec<watch::Sender<Positions>>,
    /// Ends with this struct: a job that is given up leaves no task behind that could still write.
    _tasks: tokio::task::JoinSet<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for inbox in &self.shared.inboxes {
            inbox.send(Letter::Stop);
        }
    }
}

impl Running {
    async fn run(mut self) -> Result<Outcome, JobError> {
        let environment = self.job.environment.clone();
        let discovery = self.shared.plan.sources.iter().filter_map(|s| s.source.discovery_interval()).min();
        let mut barriers = Rhythm::new(&*environment, self.job.settings.checkpoint_interval);
        let mut discoveries = Rhythm::new(&*environment, discovery.unwrap_or(NEVER));
        loop {
            if self.live.is_empty() && discovery.is_none() {
                return self.complete(&*environment).await;
            }
            tokio::select! {
                biased;
                () = stopped(&mut self.job.stop) => return self.stop(&*environment).await,
                () = barriers.beat(&*environment) => self.set_barrier(),
                () = discoveries.beat(&*environment), if discovery.is_some() && self.looking.is_empty() => self.look(),
                Some(found) = self.looking.join_next() => self.take_in(found.unwrap_or(Ok(vec![]))?),
                Some(event) = self.worker_events.recv() => self.on_worker(event)?,
                Some(published) = self.published.recv() => self.on_published(published)?,
                Some(event) = self.commit_events.recv() => self.on_commit(event)?,
            }
        }
    }

    async fn stop(&mut self, environment: &dyn Environment) -> Result<Outcome, JobError> {
        let within = self.job.settings.stop_within;
        tokio::select! {
            biased;
            finished = self.finish() => finished.map(|()| Outcome::Stopped),
            () = environment.sleep(within) => Err(JobError::StopTooSlow(within, self.entry)),
        }
    }

    /// Waits for the sinks as long as it takes; once somebody asks to stop, only as long as a stop may take.
    async fn complete(&mut self, environment: &dyn Environment) -> Result<Outcome, JobError> {
        let (mut stop, within) = (self.job.stop.clone(), self.job.settings.stop_within);
        let too_slow = async {
            stopped(&mut stop).await;
            environment.sleep(within).await;
        };
        tokio::select! {
            biased;
            finished = self.finish() => finished.map(|()| Outcome::Completed),
            () = too_slow => Err(JobError::StopTooSlow(within, self.entry)),
        }
    }

    /// Reads no more; then cuts, published and shown, until one that begins when all before it is shown finds that nothing
    /// happened: the commit of the last rows may reject some, and the dead letter has to get them. Then the job is released.
    async fn finish(&mut self) -> Result<(), JobError> {
        self.looking.abort_all();
        self.shared.inboxes.iter().for_each(|inbox| inbox.send(Letter::LastRead));
        let _ = self.ending.send(true);
        while self.cut.is_some() {
            self.next_event().await?;
        }
        loop {
            let all_shown = self.waiting_cuts == 0 && self.uncommitted.is_empty();
            self.begin_epoch();
            while self.cut.is_some() || self.waiting_cuts > 0 || !self.uncommitted.is_empty() {
                self.next_event().await?;
            }
            if all_shown && self.settled {
                break;
            }
        }
        let (done, released) = oneshot::channel();
        let _ = self.requests.send(Request::Release(done));
        tokio::select! {
            biased;
            // A dropped answer is no release: the publisher says why it ended.
            Ok(()) = released => Ok(()),
            Some(Published::Failed(error)) = self.published.recv() => Err(error.into()),
        }
    }

    async fn next_event(&mut self) -> Result<(), JobError> {
        tokio::select! {
            biased;
            Some(event) = self.worker_events.recv() => self.on_worker(event),
            Some(published) = self.published.recv() => self.on_published(published),
            Some(event) = self.commit_events.recv() => self.on_commit(event),
        }
    }

    fn set_barrier(&mut self) {
        if self.cut.is_some() {
            self.report_stall();
            return;
        }
        if self.waiting_cuts + self.uncommitted.len() >= self.bound() {
            tracing::debug!(
                waiting = self.waiting_cuts,
                uncommitted = self.uncommitted.len(),
                "no barrier: too much waits"
            );
            return;
        }
        self.begin_epoch();
    }

    /// Cuts and entries that may wait. Those that a sink shows together have to.
    fn bound(&self) -> usize {
        let longest = self.shared.plan.sinks.iter().map(SinkNode::commit_interval).max().unwrap_or_default();
        let together = longest.as_nanos() / self.job.settings.checkpoint_interval.as_nanos().max(1);
        let needed = if together == 0 { 0 } else { together as usize + 2 };
        self.job.settings.max_uncommitted.max(needed)
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.cut = Some(vec![]);
        self.cut_begun = self.job.environment.elapsed();
        self.cut_stall_reported = false;
        for inbox in &self.shared.inboxes {
            inbox.send(Letter::Barrier { epoch: self.epoch });
        }
    }

    fn cut_age(&self) -> Duration {
        self.job.environment.elapsed().saturating_sub(self.cut_begun)
    }

    fn report_stall(&mut self) {
        let age = self.cut_age();
        if age >= self.job.settings.stall_report && !self.cut_stall_reported {
            self.cut_stall_reported = true;
            let (inboxes, come) = (&self.shared.inboxes, self.cut.as_ref().map_or(0, Vec::len));
            let busy = inboxes.iter().enumerate().filter(|(_, inbox)| inbox.barrier() < self.epoch);
            let busy = busy.map(|(worker, _)| format!("worker {worker}")).collect::<Vec<_>>().join(", ");
            let (of, busy) = (inboxes.len(), if busy.is_empty() { "none" } else { &busy });
            let waits = self.shared.lookups.iter().filter(|table| table.metrics.waiting.get() > 0);
            let waits = waits.map(|table| format!("{} rows for table {}", table.metrics.waiting.get(), table.name()));
            let waits = waits.collect::<Vec<_>>().join(", ");
            let waits = if waits.is_empty() { waits } else { format!("; waiting to be looked up: {waits}") };
            tracing::warn!(
                epoch = self.epoch,
                ?age,
                "a barrier is not aligned: {come} of {of} workers have cut; not come to it yet: {busy}{waits}"
            );
        }
    }

    fn on_worker(&mut self, event: WorkerEvent) -> Result<(), JobError> {
        match event {
            WorkerEvent::Failed(error) => Err(error.into()),
            WorkerEvent::Ended { split } => {
                self.live.remove(&split);
                Ok(())
            }
            WorkerEvent::Cut(cut) => {
                self.on_cut(cut);
                Ok(())
            }
        }
    }

    fn on_cut(&mut self, part: WorkerCut) {
        let mut parts = self.cut.take().unwrap_or_default();
        parts.push(part);
        if parts.len() < self.shared.inboxes.len() {
            self.cut = Some(parts);
            return;
        }
        let begun = self.job.environment.now() - self.cut_age().as_nanos() as i64;
        self.waiting_cuts += 1;
        self.job.metrics.checkpoints.waiting.set(self.waiting_cuts as u64);
        let _ = self.requests.send(Request::Cut { epoch: self.epoch, parts, begun });
    }

    fn on_published(&mut self, published: Published) -> Result<(), JobError> {
        match published {
            Published::Failed(error) => Err(error.into()),
            Published::Checkpoint { entry, state, .. } => {
                self.waiting_cuts -= 1;
                self.settled = entry.is_none();
                self.job.metrics.checkpoints.waiting.set(self.waiting_cuts as u64);
                if let Some(entry) = entry {
                    self.entry = entry;
                    self.commit(entry, &state);
                    self.tell_sources(&state);
                }
                Ok(())
            }
        }
    }

    fn commit(&mut self, entry: u64, state: &LogState) {
        for (sink, node) in self.shared.plan.sinks.iter().enumerate() {
            let committable = state.to_commit(&node.table).into_iter().find(|c| c.entry == entry);
            if let (Some(committable), Some(queue)) = (committable, self.committing.get(sink)) {
                let _ = queue.send(committable);
                *self.uncommitted.entry(entry).or_default() += 1;
                self.job.metrics.sink(&node.table).uncommitted.add(1);
            }
        }
    }

    fn tell_sources(&self, state: &LogState) {
        for (node, hint) in self.shared.plan.sources.iter().zip(&self.hints) {
            let groups = state.groups.iter();
            let of_table = groups.filter_map(|(name, g)| Some((split_of(&node.table, name)?, &g.start.from)));
            hint.send_replace(of_table.map(|(split, position)| (split.to_string(), position.clone())).collect());
        }
    }

    fn on_commit(&mut self, event: CommitEvent) -> Result<(), JobError> {
        match event {
            CommitEvent::Failed(error) => Err(error.into()),
            CommitEvent::Shown(shown) => {
                for one in shown {
                    let gauge = &self.job.metrics.sink(&one.sink).uncommitted;
                    gauge.set(gauge.get().saturating_sub(1));
                    if let Some(sinks) = self.uncommitted.get_mut(&one.entry) {
                        *sinks -= 1;
                        if *sinks == 0 {
                            self.uncommitted.remove(&one.entry);
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// Looks for new splits, claims and opens them, beside everything else: a system that does not answer holds nothing up.
    fn look(&mut self) {
        let (shared, groups, first) = (self.shared.clone(), self.groups.clone(), self.split_count);
        let (requests, log_id) = (self.requests.clone(), self.log_id.clone());
        self.looking.spawn(async move {
            let mut found = vec![];
            for (source, node) in shared.plan.sources.iter().enumerate() {
                if node.source.discovery_interval().is_some() {
                    let trouble = new_splits(source, node, &groups, &mut found).await.err().map(|e| e.to_string());
                    if let Some(error) = &trouble {
                        tracing::warn!(table = %node.table, %error, "a new split cannot be read yet; trying again later");
                    }
                    *shared.metrics.source(&node.table).discovery_trouble.write() = trouble;
                }
            }
            if found.is_empty() || !claim_found(&shared.plan, &found, log_id, &requests).await {
                return Ok(vec![]);
            }
            let mut open = vec![];
            for (number, start) in found.into_iter().enumerate() {
                open.push(open_split(&shared, first + number, start).await?);
            }
            Ok(open)
        });
    }

    /// Makes splits known that were found while running; then they are read, from their earliest record.
    fn take_in(&mut self, found: Vec<OpenSplit>) {
        for split in found {
            let owner = split.split % self.shared.inboxes.len();
            for (worker, inbox) in self.shared.inboxes.iter().enumerate() {
                let SplitStart { source, ref group, clock, .. } = split.start;
                inbox.send(Letter::Known {
                    source,
                    split: split.split,
                    group: group.clone(),
                    clock,
                    mine: worker == owner,
                });
            }
            self.take_split(split);
        }
    }

    /// Hands a split that every worker knows to the one that reads it.
    fn take_split(&mut self, OpenSplit { split, start, reader }: OpenSplit) {
        self.split_count = split + 1;
        self.groups.insert(start.group.clone());
        let Some(reader) = reader else { return };
        self.live.insert(split);
        let SplitStart { source, group, start, clock, .. } = start;
        let assigned = Assigned { source, split, group, reader, position: start.from, clock };
        self.shared.inboxes[split % self.shared.inboxes.len()].send(Letter::Split(Box::new(assigned)));
    }

    fn spawn(&self, mut worker: Worker) {
        let index = worker.index();
        let bell = self.shared.inboxes[index].bell.clone();
        let step = Box::new(move || worker.step());
        self.job.environment.spawn_worker(format!("worker-{index}"), bell, step);
    }
}

/// The split of a key group, if it belongs to this table.
fn split_of<'a>(table: &str, group: &'a str) -> Option<&'a str> {
    group.strip_prefix(table)?.strip_prefix('/')
}

/// Longer than any job runs.
const NEVER: Duration = Duration::from_secs(1 << 32);

/// Beats that come a period apart; one that comes late delays those after it.
struct Rhythm {
    period: Duration,
    next: Duration,
}

impl Rhythm {
    fn new(environment: &dyn Environment, period: Duration) -> Self {
        Rhythm { period, next: environment.elapsed() + period }
    }

    /// Waits for the next beat. Given up, it loses none.
    async fn beat(&mut self, environment: &dyn Environment) {
        environment.sleep(self.next.saturating_sub(environment.elapsed())).await;
        let now = environment.elapsed();
        self.next = if now > self.next + self.period { now } else { self.next } + self.period;
    }
}

/// The splits of a source that the job does not know, and where each begins. One that cannot be asked holds none of the
/// others up: it is the error, and the next look asks again.
async fn new_splits(
    source: usize,
    node: &SourceNode,
    groups: &BTreeSet<String>,
    found: &mut Vec<SplitStart>,
) -> Result<(), SourceError> {
    let mut failed = Ok(());
    for split in node.source.splits().await? {
        let group = format!("{}/{split}", node.table);
        if !groups.contains(&group) {
            match node.source.resolve(&split, true).await {
                Ok(start) => {
                    let clock = SplitClock::default();
                    found.push(SplitStart { source, split, group, start, clock, finished: false });
                }
                Err(error) => failed = Err(error),
            }
        }
    }
    failed
}

/// Whether the claim of splits that were found stands. If not, the publisher says why it ended.
async fn claim_found(
    plan: &Plan,
    found: &[SplitStart],
    log_id: String,
    requests: &mpsc::UnboundedSender<Request>,
) -> bool {
    let groups = found.iter().map(|s| (s.group.clone(), s.start.clone())).collect();
    let operators = plan.operators.iter().map(|n| n.id.clone()).collect();
    let claim = Claim { log_id, layout: Layout::in_memory(), operators, groups, generation: None, member: None };
    let (done, claimed) = oneshot::channel();
    let _ = requests.send(Request::Claim(claim, done));
    claimed.await.is_ok()
}

async fn open_split(shared: &Shared, split: usize, start: SplitStart) -> Result<OpenSplit, SourceError> {
    if start.finished {
        return Ok(OpenSplit { split, start, reader: None });
    }
    let node = &shared.plan.sources[start.source];
    let request = ReadRequest { columns: node.columns.clone(), event_time: node.watermark.as_ref().map(|w| w.bound()) };
    let bell = shared.inboxes[split % shared.inboxes.len()].bell.clone();
    let reader = node.source.open(&start.split, &start.start, &request, Wake::new(move || bell.ring())).await?;
    Ok(OpenSplit { split, start, reader: Some(reader) })
}

/// Splits of a source, and where each stands in the job log.
type Positions = Vec<(String, Position)>;

/// Tells a source where its splits stand. One that is slow is told the newest only: hints do not pile up.
async fn hint(source: Arc<dyn Source>, mut positions: watch::Receiver<Positions>) {
    while positions.changed().await.is_ok() {
        let newest = positions.borrow_and_update().clone();
        source.checkpointed(&newest).await;
    }
}

/// Asked of whoever owns the log.
fn ownership(requests: mpsc::UnboundedSender<Request>) -> Ownership {
    Ownership::asking(move || {
        let (done, confirmed) = oneshot::channel();
        let _ = requests.send(Request::Confirm(done));
        Box::pin(async move { confirmed.await.is_ok() })
    })
}

/// Waits until the requests before this one are done.
async fn flush(requests: &mpsc::UnboundedSender<Request>) {
    let (done, flushed) = oneshot::channel();
    let _ = requests.send(Request::Flush(done));
    let _ = flushed.await;
}

/// Ends when the job shall stop; never, if nobody can ask for it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
