//! One story: a seed makes the events, the settings, and what befalls each process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::job::{Job, JobError, JobSettings, Outcome};
use engine::job_log::{JobLogError, LogSettings};
use engine::metrics::Metrics;
use engine::plan::Scope;
use engine::sink::Sink;
use engine::source::ReadLimit;
use engine::worker::Limits;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::outside::{Outside, SimulatedSink, is_poison};
use crate::plan::{TABLES, fails, passes, plan};
use crate::process::{Fate, Moment, Process, SimulatedEnvironment};
use crate::store::SimulatedStore;
use crate::topic::{Partitions, Topic, partitions};

/// What may happen in a story.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Faults {
    None,
    Answers,
    Crashes,
    Freezes,
}

/// Longer than any story takes: then it is stuck.
const PATIENCE: Duration = Duration::from_secs(600);

/// After so many processes nothing more befalls one.
const TROUBLES: usize = 8;

/// The engine's named places at which a process may die.
const PLACES: [&str; 14] = [
    "before-claim",
    "after-claim",
    "before-restore",
    "after-restore",
    "during-recovery-commit",
    "before-state-upload",
    "before-prepare",
    "between-prepare-and-publish",
    "before-append",
    "after-append",
    "between-publish-and-commit",
    "before-commit",
    "after-commit",
    "before-fold",
];

pub struct Story {
    faults: Faults,
    clock: Arc<Clock>,
    outside: Arc<Outside>,
    store: Arc<InMemory>,
    events: u64,
    partitions: Partitions,
    scope: Scope,
    settings: JobSettings,
    commit_interval: Duration,
    started: usize,
}

struct Running {
    process: Arc<Process>,
    ended: JoinHandle<Result<Outcome, JobError>>,
    /// Kept, so that nobody seems to have asked it to stop.
    _stop: watch::Sender<bool>,
}

impl Story {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let clock = Arc::new(Clock::new(seed));
        let scope = if clock.chance(60) { Scope::Global } else { Scope::Partition };
        let events = clock.pick(20..200);
        let partitions = partitions(&clock, clock.pick(1..6) as usize, events, scope == Scope::Partition);
        let settings = JobSettings {
            checkpoint_interval: Duration::from_millis(clock.pick(2..40)),
            workers: clock.pick(1..4) as usize,
            max_uncommitted: clock.pick(1..5) as usize,
            limits: Limits {
                read: ReadLimit { records: clock.pick(1..12) as usize, bytes: usize::MAX },
                // Room for one batch: a read fills it, and the next waits until it is worked on.
                exchange_rows: 1,
                epoch_rows: clock.pick(5..60) as usize,
                epoch_bytes: usize::MAX,
            },
            log: LogSettings { retention: Duration::from_millis(clock.pick(20..400)), fold_every: clock.pick(1..5) },
            ..JobSettings::default()
        };
        let commit_interval = Duration::from_millis([0, 0, 30][clock.pick(0..3) as usize]);
        let (outside, store) = (Arc::default(), Arc::new(InMemory::new()));
        Story { faults, clock, outside, store, events, partitions, scope, settings, commit_interval, started: 0 }
    }

    /// Runs to the end; says what is wrong with it.
    pub fn run(mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
        runtime.block_on(self.play())?;
        // Whatever still hangs in a dead process ends here.
        drop(runtime);
        self.judge()
    }

    async fn play(&mut self) -> Result<(), String> {
        let mut running: Vec<Running> = vec![self.start()];
        let mut complete = false;
        loop {
            self.clock.advance().await;
            if self.clock.now() > PATIENCE {
                return Err(format!("stuck: {} processes after {PATIENCE:?}", running.len()));
            }
            running.retain(|r| !r.process.is_dead());
            let ended = running.extract_if(.., |r| r.ended.is_finished()).collect::<Vec<_>>();
            for one in ended {
                complete |= self.outcome(one.ended.await.map_err(|e| format!("a panic: {e}"))?)?;
            }
            if complete && running.is_empty() {
                return Ok(());
            }
            // A frozen process does not answer, so somebody starts another one.
            let someone_works = running.iter().any(|r| !r.process.is_frozen());
            if !complete && !someone_works {
                running.push(self.start());
            }
        }
    }

    /// Whether the job is complete.
    fn outcome(&self, outcome: Result<Outcome, JobError>) -> Result<bool, String> {
        match outcome {
            Ok(Outcome::Completed) => Ok(true),
            Ok(Outcome::Stopped) => Err("stopped, and nobody asked for it".into()),
            Err(error) if error.is_fenced() => Ok(false),
            // A store that does not answer at the start fails the start.
            Err(JobError::Log(JobLogError::Store(_) | JobLogError::NoConditionalCreate(_))) => Ok(false),
            Err(error) => Err(format!("the job failed: {error}")),
        }
    }

    fn start(&mut self) -> Running {
        self.started += 1;
        let (fate, moment) = self.fate();
        let process = Process::new(format!("writer{}", self.started), self.clock.clone(), fate, moment);
        let (stop, stopping) = watch::channel(false);
        let faults = if self.faults == Faults::None { 0 } else { self.clock.pick(0..4) };
        let sink = |fussy| -> Arc<dyn Sink> {
            let (outside, process) = (self.outside.clone(), process.clone());
            Arc::new(SimulatedSink { outside, process, faults, fussy })
        };
        let topic = Topic { partitions: self.partitions.clone(), process: process.clone() };
        let job = Job {
            plan: plan(Arc::new(topic), [sink(true), sink(false), sink(false)], self.scope, self.commit_interval),
            settings: self.settings.clone(),
            store: Arc::new(SimulatedStore { inner: self.store.clone(), process: process.clone(), faults }),
            root: Path::from("job"),
            environment: Arc::new(SimulatedEnvironment(process.clone())),
            metrics: Arc::new(Metrics::default()),
            stop: stopping,
            begun: None,
        };
        Running { process, ended: tokio::spawn(job.run()), _stop: stop }
    }

    fn fate(&self) -> (Fate, Moment) {
        let clock = &self.clock;
        let fate = match self.faults {
            Faults::None | Faults::Answers => Fate::Lives,
            _ if self.started > TROUBLES => Fate::Lives,
            Faults::Crashes => Fate::Dies,
            // Longer and shorter than the log keeps its entries.
            Faults::Freezes if clock.chance(70) => {
                Fate::Freezes(Duration::from_millis([5, 50, 300, 2000, 10_000][clock.pick(0..5) as usize]))
            }
            Faults::Freezes => Fate::Dies,
        };
        let moment = match clock.chance(40) {
            true => Moment::Place(PLACES[clock.pick(0..PLACES.len() as u64) as usize], clock.pick(1..4)),
            false => Moment::Gate(clock.pick(1..1 << clock.pick(4..12))),
        };
        (fate, moment)
    }

    fn judge(&self) -> Result<(), String> {
        if let Some(objection) = self.outside.objections.lock().first() {
            return Err(objection.clone());
        }
        let bad = |id: u64| self.partitions.iter().flatten().any(|e| e.id == id && e.bad);
        let good: Vec<u64> = (0..self.events).filter(|id| !bad(*id)).collect();
        let first = good.iter().filter(|id| !is_poison(**id)).map(|id| id.to_string());
        let second = good.iter().filter(|id| passes(**id) && !fails(**id)).map(|id| id.to_string());
        let dead = (0..self.events).filter(|id| bad(*id)).map(|id| format!("not-json {id}"));
        let dead = dead.chain(good.iter().filter(|id| is_poison(**id)).map(|id| format!("sink {id}")));
        let dead =
            dead.chain(good.iter().filter(|id| passes(**id) && fails(**id)).map(|id| format!("expression {id}")));
        for (table, expected) in TABLES.iter().zip([first.collect(), second.collect(), dead.collect::<Vec<_>>()]) {
            let expected: BTreeMap<String, usize> = expected.into_iter().map(|row| (row, 1)).collect();
            let shown = self.outside.shown(table);
            let lost: Vec<_> = expected.keys().filter(|row| !shown.contains_key(*row)).collect();
            let twice: Vec<_> = shown.iter().filter(|(row, count)| expected.get(*row) != Some(count)).collect();
            if !lost.is_empty() || !twice.is_empty() {
                return Err(format!("table {table}: lost {lost:?}, too often {twice:?}"));
            }
        }
        Ok(())
    }
}
