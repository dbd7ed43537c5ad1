//! A process that runs the job: everything that it does passes a gate, at which it may die or freeze.

use std::sync::Arc;
use std::time::Duration;

use engine::environment::{Bell, Environment, Progress};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::clock::{BEGINNING, Clock};

/// What becomes of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    Lives,
    /// As by SIGKILL.
    Dies,
    /// As by SIGSTOP, and SIGCONT after this time.
    Freezes(Duration),
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
    fate: Fate,
    moment: Mutex<Option<Moment>>,
    condition: Mutex<Condition>,
}

impl Process {
    pub fn new(name: String, clock: Arc<Clock>, fate: Fate, moment: Moment) -> Arc<Self> {
        let moment = Mutex::new((fate != Fate::Lives).then_some(moment));
        Arc::new(Process { name, clock, fate, moment, condition: Mutex::new(Condition::Alive) })
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

    pub fn is_frozen(&self) -> bool {
        matches!(*self.condition.lock(), Condition::Frozen { .. })
    }

    fn count(&self, reached: impl FnOnce(&mut Moment) -> bool) {
        let mut moment = self.moment.lock();
        if moment.as_mut().is_some_and(reached) {
            *moment = None;
            *self.condition.lock() = match self.fate {
                Fate::Lives => Condition::Alive,
                Fate::Dies => Condition::Dead,
                Fate::Freezes(pause) => Condition::Frozen { until: self.clock.now() + pause },
            };
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

    fn spawn_worker(&self, _: String, bell: Arc<Bell>, mut step: Box<dyn FnMut() -> Progress + Send>) {
        let process = self.0.clone();
        tokio::spawn(async move {
            loop {
                process.gate().await;
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
