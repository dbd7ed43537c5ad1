//! One story: a seed makes the events, the settings, and what befalls each process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::job::{JobError, JobSettings, Outcome};
use engine::job_log::{JobLogError, LogSettings};
use engine::plan::{Kept, KeptByKey, LatePolicy, Scope};
use engine::source::ReadLimit;
use engine::worker::Limits;

use crate::clock::Clock;
use crate::expected::judge;
use crate::plan::Shape;
use crate::process::{Fate, Moment, Process};
use crate::topic::{Contents, Making};
use crate::world::{Conditions, PATIENCE, Running, World, play};

/// What may happen in a story.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Faults {
    None,
    Answers,
    Crashes,
    Freezes,
    Stops,
    /// One of the above.
    Any,
}

/// What the topic is like.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Nature {
    /// Partitions appear while the job runs, and it ends only when it is stopped.
    pub appearing: bool,
    /// The log's time passes several windows of the deduplication.
    pub moving: bool,
}

/// After so many processes nothing more befalls one.
const TROUBLES: usize = 8;

/// What a stop may take beyond its budget: the last step of a task.
const A_MOMENT: Duration = Duration::from_millis(5);

/// How often a story asks whether a job without an end has nothing left to do.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

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
    world: World,
    started: usize,
    /// Whether the sinks are away for a while, perhaps for longer than a stop may take.
    outage: bool,
    /// Everything is shown, and whoever still runs is asked to stop.
    ending: bool,
    /// When to look again whether nothing is left to do.
    next_look: Duration,
}

/// How the table outside is kept: whole, or by key, with answers that hold for ever, for a moment, or not at all.
fn kept(clock: &Clock) -> Kept {
    if clock.chance(30) {
        return Kept::Whole { refresh: Duration::from_millis(clock.pick(50..1000)), bytes: usize::MAX };
    }
    let hold = |clock: &Clock| Duration::from_millis([0, 20, 1_000_000][clock.pick(0..3) as usize]);
    Kept::ByKey(KeptByKey {
        ttl: hold(clock),
        missing_ttl: hold(clock),
        bytes: [500, 1 << 20][clock.pick(0..2) as usize],
        keys: clock.pick(1..20) as usize,
        requests: clock.pick(1..4) as usize,
    })
}

impl Story {
    pub fn new(seed: u64, faults: Faults, nature: Nature) -> Self {
        let clock = Arc::new(Clock::new(seed));
        let all = [Faults::None, Faults::Answers, Faults::Crashes, Faults::Freezes, Faults::Stops];
        let faults = if faults == Faults::Any { all[clock.pick(0..5) as usize] } else { faults };
        let scope = if clock.chance(60) { Scope::Global } else { Scope::Partition };
        let policies = [LatePolicy::Keep, LatePolicy::Drop, LatePolicy::DeadLetter];
        let shape = Shape {
            scope,
            within: if nature.moving { Duration::from_millis(clock.pick(20..100)) } else { Duration::from_secs(3600) },
            late: policies[clock.pick(0..3) as usize],
            commit_interval: Duration::from_millis([0, 0, 30][clock.pick(0..3) as usize]),
            kept: kept(&clock),
            again: kept(&clock),
        };
        let making = Making {
            events: clock.pick(20..200),
            partitions: clock.pick(1..6) as usize,
            together: scope == Scope::Partition,
            within: shape.within,
            moving: nature.moving,
            appearing: nature.appearing,
        };
        let partitions = making.make(&clock);
        let discovery = nature.appearing.then(|| Duration::from_millis(clock.pick(2..50)));
        let settings = JobSettings {
            checkpoint_interval: Duration::from_millis(clock.pick(2..40)),
            workers: clock.pick(1..4) as usize,
            max_uncommitted: clock.pick(1..5) as usize,
            stop_within: Duration::from_millis(clock.pick(1000..5000)),
            limits: Limits {
                read: ReadLimit { records: clock.pick(1..12) as usize, bytes: usize::MAX },
                // Room for one batch: a read fills it, and the next waits until it is worked on.
                exchange_rows: 1,
                exchange_bytes: usize::MAX,
                epoch_rows: clock.pick(5..60) as usize,
                epoch_bytes: usize::MAX,
            },
            log: LogSettings { retention: Duration::from_millis(clock.pick(20..400)), fold_every: clock.pick(1..5) },
            ..JobSettings::default()
        };
        let contents = Arc::new(Contents { partitions, discovery });
        let world = World {
            clock,
            outside: Arc::default(),
            store: Arc::default(),
            contents,
            others: None,
            shape,
            settings,
            give_up_after: None,
        };
        let outage = faults == Faults::Stops && world.clock.chance(40);
        if outage {
            let from = Duration::from_millis(world.clock.pick(0..100));
            world.outside.is_away(from, from + Duration::from_millis([50, 500, 8000][world.clock.pick(0..3) as usize]));
        }
        Story { faults, world, started: 0, outage, ending: false, next_look: Duration::ZERO }
    }

    /// Runs to the end; says what is wrong with it.
    pub fn run(mut self) -> Result<(), String> {
        // Whatever still hangs in a dead process ends with the runtime, and then the last judgement is made.
        play(self.tell())?;
        self.judge()
    }

    async fn tell(&mut self) -> Result<(), String> {
        let mut running: Vec<Running> = vec![self.start()];
        let mut complete = false;
        loop {
            self.world.clock.advance().await;
            if self.world.clock.now() > PATIENCE {
                let judged = self.judge();
                return Err(format!("stuck: {} processes after {PATIENCE:?}, {judged:?}", running.len()));
            }
            running.retain(|r| !r.process.is_dead());
            for one in running.extract_if(.., |r| r.is_ended()).collect::<Vec<_>>() {
                complete |= self.end(one).await?;
            }
            if let Some(slow) = running.iter().find(|r| self.is_too_slow(&r.process)) {
                return Err(format!("{} does not stop", slow.process.name));
            }
            self.ending |= self.may_end().await;
            if self.ending {
                running.iter().for_each(|r| r.process.ask_to_stop());
            }
            let done = complete || self.ending;
            if done && running.is_empty() {
                return Ok(());
            }
            // A frozen process does not answer, so somebody starts another one.
            let someone_works = running.iter().any(|r| !r.process.is_frozen());
            if !done && !someone_works {
                running.push(self.start());
            }
        }
    }

    /// Whether a job that has no end of its own has nothing left to do.
    async fn may_end(&mut self) -> bool {
        if self.ending || self.world.contents.discovery.is_none() {
            return false;
        }
        let now = self.world.clock.now();
        if now < self.next_look {
            return false;
        }
        self.next_look = now + BETWEEN_LOOKS;
        self.world.is_all_shown().await
    }

    fn is_too_slow(&self, process: &Process) -> bool {
        process.stops_since().is_some_and(|since| since > self.world.settings.stop_within + A_MOMENT)
    }

    /// Whether the job is complete.
    async fn end(&self, one: Running) -> Result<bool, String> {
        let process = one.process.clone();
        if process.hints() > 1 {
            return Err(format!("{} hints pile up at a source that does not answer", process.hints()));
        }
        let asked = process.is_asked_to_stop();
        let in_trouble = one.is_in_trouble();
        match one.outcome().await {
            Ok(Outcome::Completed) => Ok(true),
            Ok(Outcome::Stopped) if asked => self.check_left_behind(&process).await.map(|()| false),
            Ok(Outcome::StoppedAtStart) if asked => Ok(false),
            Ok(outcome) => Err(format!("{outcome:?}, and nobody asked for it")),
            Err(error) if error.is_fenced() => Ok(false),
            Err(JobError::StopTooSlow(..)) if self.outage || in_trouble || process.was_frozen() => Ok(false),
            // A store, a source or a sink that does not answer at the start fails the start.
            Err(JobError::Log(JobLogError::Store(_) | JobLogError::NoConditionalCreate(_)))
            | Err(JobError::Source(_) | JobError::Sink(_))
                if self.faults != Faults::None =>
            {
                Ok(false)
            }
            Err(error) => Err(format!("the job failed: {error}")),
        }
    }

    /// A process that stopped in order has shown what it published, and owns nothing any more.
    async fn check_left_behind(&self, process: &Process) -> Result<(), String> {
        let state = self.world.log().await.ok_or("a job that ran has a log")?;
        let owned = state.groups.values().filter(|g| g.owner.as_ref() == Some(&process.name)).count();
        let hidden: BTreeMap<_, _> = state.uncommitted.iter().filter(|(_, u)| u.writer == process.name).collect();
        let duties = &state.duties;
        match owned == 0 && hidden.is_empty() && duties.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{} stopped; it owns {owned} groups, and has not shown {hidden:?} and what was left out of {duties:?}",
                process.name
            )),
        }
    }

    fn start(&mut self) -> Running {
        self.started += 1;
        let clock = &self.world.clock;
        let process = Process::new(format!("writer{}", self.started), clock.clone(), self.fates());
        let faults = if self.faults == Faults::None { 0 } else { clock.pick(0..4) };
        self.world.start(process, Conditions { faults, locked: false })
    }

    fn fates(&self) -> Vec<(Moment, Fate)> {
        if self.started > TROUBLES {
            return vec![];
        }
        let clock = &self.world.clock;
        let dies = || (self.moment(), Fate::Dies);
        match self.faults {
            Faults::None | Faults::Answers | Faults::Any => vec![],
            Faults::Crashes => vec![dies()],
            // Longer and shorter than the log keeps its entries.
            Faults::Freezes if clock.chance(70) => {
                let pause = [5, 50, 300, 2000, 10_000][clock.pick(0..5) as usize];
                vec![(self.moment(), Fate::Freezes(Duration::from_millis(pause)))]
            }
            Faults::Freezes => vec![dies()],
            Faults::Stops => {
                let mut fates = vec![(self.moment(), Fate::IsAskedToStop)];
                if clock.chance(20) {
                    fates.push(dies());
                }
                fates
            }
        }
    }

    fn moment(&self) -> Moment {
        let clock = &self.world.clock;
        match clock.chance(40) {
            true => Moment::Place(PLACES[clock.pick(0..PLACES.len() as u64) as usize], clock.pick(1..4)),
            false => Moment::Gate(clock.pick(1..1 << clock.pick(4..12))),
        }
    }

    fn judge(&self) -> Result<(), String> {
        judge(&self.world)
    }
}
