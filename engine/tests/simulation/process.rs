//! A process that runs the job: everything that it does passes a gate, at which it may die or freeze.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use engine::environment::{Bell, Environment, Progress};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::{BEGINNING, Clock};

/// What becomes of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// As by SIGKILL.
    Dies,
    /// As by SIGSTOP, and SIGCONT after this time.
    Freezes(Duration),
    /// As by SIGTERM.
    IsAskedToStop,
}

/// When it becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moment {
    /// At the n-th gate.
    Gate(u64),
    /// At the n-th time that it comes to a named place.
    Place(&'static str, u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    Alive,
    Frozen { until: Duration },
    Dead,
}

pub struct Process {
    pub name: String,
    pub clock: Arc<Clock>,
    /// What befalls it, one after the other; each moment is counted from the one before.
    fates: Mutex<VecDeque<(Moment, Fate)>>,
    condition: Mutex<Condition>,
    stop: watch::Sender<bool>,
    asked_to_stop: Mutex<Option<Duration>>,
    frozen: Mutex<bool>,
    read: AtomicUsize,
    told: AtomicUsize,
    /// A worker that is long at one batch: its name, and until when.
    pub slow_worker: Mutex<Option<(&'static str, Duration)>>,
    /// Until when the table outside does not answer.
    table_is_away: Mutex<Duration>,
}

impl Process {
    pub fn new(name: String, clock: Arc<Clock>, fates: Vec<(Moment, Fate)>) -> Arc<Self> {
        Arc::new(Process {
            name,
            clock,
            fates: Mutex::new(fates.into()),
            condition: Mutex::new(Condition::Alive),
            stop: watch::Sender::new(false),
            asked_to_stop: Mutex::default(),
            frozen: Mutex::default(),
            read: AtomicUsize::default(),
            told: AtomicUsize::default(),
            slow_worker: Mutex::default(),
            table_is_away: Mutex::default(),
        })
    }

    pub fn table_is_away_until(&self, until: Duration) {
        *self.table_is_away.lock() = until;
    }

    pub fn is_table_away(&self) -> bool {
        self.clock.now() < *self.table_is_away.lock()
    }

    /// Every step of a worker, and every request and answer of a store, a sink or a source, comes through here. A dead
    /// process never comes out again.
    pub async fn gate(&self) {
        self.clock.happens();
        self.count(|moment| match moment {
            Moment::Gate(left) => {
                *left -= 1;
                *left == 0
            }
            Moment::Place(..) => false,
        });
        loop {
            let condition = *self.condition.lock();
            match condition {
                Condition::Alive => return,
                Condition::Dead => std::future::pending().await,
                Condition::Frozen { until } => {
                    let left = until.saturating_sub(self.clock.now());
                    self.clock.sleep(left.max(Duration::from_micros(1))).await;
                    if self.clock.now() >= until {
                        *self.condition.lock() = Condition::Alive;
                    }
                }
            }
        }
    }

    pub fn is_dead(&self) -> bool {
        *self.condition.lock() == Condition::Dead
    }

    pub fn die(&self) {
        *self.condition.lock() = Condition::Dead;
    }

    pub fn is_frozen(&self) -> bool {
        matches!(*self.condition.lock(), Condition::Frozen { .. })
    }

    pub fn ask_to_stop(&self) {
        self.asked_to_stop.lock().get_or_insert(self.clock.now());
        self.stop.send_replace(true);
        self.clock.happens();
    }

    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub fn was_frozen(&self) -> bool {
        *self.frozen.lock()
    }

    pub fn is_asked_to_stop(&self) -> bool {
        self.asked_to_stop.lock().is_some()
    }

    /// How long ago it was asked to stop, unless it was frozen at any time.
    pub fn stops_since(&self) -> Option<Duration> {
        let asked = self.asked_to_stop.lock().filter(|_| !*self.frozen.lock())?;
        Some(self.clock.now().saturating_sub(asked))
    }

    /// Counts the records that its readers took.
    pub fn has_read(&self, records: usize) {
        self.read.fetch_add(records, Relaxed);
    }

    pub fn records_read(&self) -> usize {
        self.read.load(Relaxed)
    }

    /// Counts the hints that its source got.
    pub fn is_told(&self) {
        self.told.fetch_add(1, Relaxed);
    }

    pub fn hints(&self) -> usize {
        self.told.load(Relaxed)
    }

    fn count(&self, reached: impl FnOnce(&mut Moment) -> bool) {
        let mut fates = self.fates.lock();
        let Some((_, fate)) = fates.pop_front_if(|(moment, _)| reached(moment)) else { return };
        drop(fates);
        match fate {
            Fate::Dies => *self.condition.lock() = Condition::Dead,
            Fate::Freezes(pause) => {
                *self.frozen.lock() = true;
                *self.condition.lock() = Condition::Frozen { until: self.clock.now() + pause };
            }
            Fate::IsAskedToStop => self.ask_to_stop(),
        }
    }
}

/// What the engine sees of its process.
pub struct SimulatedEnvironment(pub Arc<Process>);

impl Environment for SimulatedEnvironment {
    fn now(&self) -> i64 {
        BEGINNING + self.0.clock.now().as_nanos() as i64
    }

    fn elapsed(&self) -> Duration {
        self.0.clock.now()
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.0.clock.sleep(pause)
    }

    fn writer_id(&self) -> String {
        self.0.name.clone()
    }

    fn jitter(&self) -> f64 {
        self.0.clock.pick(0..1000) as f64 / 1000.0
    }

    fn spawn_worker(&self, name: String, bell: Arc<Bell>, mut step: Box<dyn FnMut() -> Progress + Send>) {
        let process = self.0.clone();
        tokio::spawn(async move {
            loop {
                process.gate().await;
                let slow = process.slow_worker.lock().filter(|(slow, _)| *slow == name);
                if let Some((_, until)) = slow {
                    process.clock.sleep(until.saturating_sub(process.clock.now())).await;
                }
                let progress = step();
                match progress {
                    Progress::Done => return,
                    // A worker is as fast as chance has it, so that workers overtake one another.
                    Progress::Busy if process.clock.chance(70) => {}
                    Progress::Idle if bell.take() => {}
                    Progress::Busy | Progress::Idle => {
                        let pause = Duration::from_micros(process.clock.pick(1..2000));
                        process.clock.sleep(pause).await
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }

    fn crash_point(&self, name: &'static str) {
        self.0.count(|moment| match moment {
            Moment::Place(place, left) if *place == name => {
                *left -= 1;
                *left == 0
            }
            _ => false,
        });
    }
}
