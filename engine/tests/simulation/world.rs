//! What outlives every process: the topic, the job log's store, the sinks. Processes are started in it.

use std::sync::Arc;
use std::time::Duration;

use engine::job::{Job, JobError, JobSettings, Outcome};
use engine::job_log::look;
use engine::job_log::state::LogState;
use engine::metrics::Metrics;
use engine::sink::Sink;
use engine::source::Source;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::lookup::SimulatedTable;
use crate::outside::{Outside, SimulatedSink};
use crate::plan::{Shape, TABLES, plan};
use crate::process::{Process, SimulatedEnvironment};
use crate::store::SimulatedStore;
use crate::topic::{Contents, Topic};

pub struct World {
    pub clock: Arc<Clock>,
    pub outside: Arc<Outside>,
    pub store: Arc<InMemory>,
    pub contents: Arc<Contents>,
    /// Of a second topic, if the job reads one.
    pub others: Option<Arc<Contents>>,
    pub shape: Shape,
    pub settings: JobSettings,
    /// Of the table outside.
    pub give_up_after: Option<Duration>,
}

/// A process that runs the job.
pub struct Running {
    pub process: Arc<Process>,
    pub metrics: Arc<Metrics>,
    pub ended: JoinHandle<Result<Outcome, JobError>>,
}

/// How the systems are that a process meets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions {
    /// In a hundred requests, so many get lost, or their answers do.
    pub faults: u64,
    /// The sinks let nobody in.
    pub locked: bool,
}

impl World {
    pub fn start(&self, process: Arc<Process>, conditions: Conditions) -> Running {
        let Conditions { faults, locked } = conditions;
        let sink = |fussy| -> Arc<dyn Sink> {
            let (outside, process) = (self.outside.clone(), process.clone());
            Arc::new(SimulatedSink { outside, process, faults, fussy, locked })
        };
        let topic = |contents: &Arc<Contents>| -> Arc<dyn Source> {
            Arc::new(Topic { contents: contents.clone(), process: process.clone(), faults })
        };
        let sources = self.topics().map(topic).collect();
        let table = Arc::new(SimulatedTable { process: process.clone(), faults });
        let metrics = Arc::new(Metrics::default());
        let mut plan = plan(sources, table, [sink(true), sink(false), sink(false)], self.shape);
        plan.lookups[0].give_up_after = self.give_up_after;
        let job = Job {
            plan,
            settings: self.settings.clone(),
            store: Arc::new(SimulatedStore { inner: self.store.clone(), process: process.clone(), faults }),
            root: Path::from("job"),
            environment: Arc::new(SimulatedEnvironment(process.clone())),
            metrics: metrics.clone(),
            stop: process.stopping(),
            begun: None,
        };
        Running { process, metrics, ended: tokio::spawn(job.run()) }
    }

    pub fn topics(&self) -> impl Iterator<Item = &Arc<Contents>> {
        std::iter::once(&self.contents).chain(&self.others)
    }

    /// What the job log says, without the slowness of any process.
    pub async fn log(&self) -> Option<LogState> {
        let onlooker = Process::new("onlooker".into(), self.clock.clone(), vec![]);
        let environment = Arc::new(SimulatedEnvironment(onlooker));
        look(self.store.clone(), Path::from("job"), environment).await.expect("the log is sound")
    }

    /// Whether the log says that every record of the first topic is read, and all that became of them shown.
    pub async fn is_all_shown(&self) -> bool {
        let Some(state) = self.log().await else { return false };
        let partitions = self.contents.partitions.iter().enumerate();
        let mut ends =
            partitions.map(|(number, partition)| (format!("events/{number}"), partition.events.len() as i64));
        let at_end = |(group, end): (String, i64)| state.position(&group).is_some_and(|at| at.offset == end);
        state.uncommitted.is_empty() && state.duties.is_empty() && ends.all(at_end)
    }
}

impl Running {
    pub fn is_ended(&self) -> bool {
        self.ended.is_finished()
    }

    /// Whether the store, a sink or the table outside has not answered since it was asked last.
    pub fn is_in_trouble(&self) -> bool {
        let sinks = TABLES.iter().any(|table| self.metrics.sink(table).health.trouble.read().is_some());
        let tables = ["known", "again"];
        let lookups = tables.iter().any(|table| self.metrics.lookup(table).health.trouble.read().is_some());
        sinks || lookups || self.metrics.checkpoints.health.trouble.read().is_some()
    }

    pub async fn outcome(self) -> Result<Outcome, JobError> {
        self.ended.await.expect("no task panics")
    }
}

/// Runs a story in which everything happens on one thread.
pub fn play<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a thread can run tasks");
    runtime.block_on(story)
}

/// Longer than any story takes: then it is stuck.
pub const PATIENCE: Duration = Duration::from_secs(600);
