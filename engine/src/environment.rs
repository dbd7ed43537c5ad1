//! The only place of the engine that reads time, makes randomness and starts threads. Tests replace it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use parking_lot::Mutex;

/// Time, randomness and threads.
pub trait Environment: Send + Sync {
    /// Nanoseconds since 1970.
    fn now(&self) -> i64;
    /// Time since some fixed moment, counting suspension of the machine: a frozen process must notice on waking.
    fn elapsed(&self) -> Duration;
    /// Ends when this much time has passed. The engine waits for time in no other way.
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()>;
    /// An id that no other process start has.
    fn writer_id(&self) -> String;
    /// Between 0 and 1, for the jitter of retries.
    fn jitter(&self) -> f64;
    /// Runs a worker until it is done; `bell` is rung when it has something to do.
    fn spawn_worker(&self, name: String, bell: Arc<Bell>, step: Box<dyn FnMut() -> Progress + Send>);
    /// A named place at which a test may kill the process.
    fn crash_point(&self, _name: &'static str) {}
}

/// What a test does at the crash points of connectors. They have no environment, and their places are the process' own.
static AT_CONNECTORS_POINTS: OnceLock<Box<dyn Fn(&'static str) + Send + Sync>> = OnceLock::new();

/// Sets what happens at the crash points of connectors. The first call counts; without one, nothing happens there.
pub fn at_connectors_crash_points(act: impl Fn(&'static str) + Send + Sync + 'static) {
    let _ = AT_CONNECTORS_POINTS.set(Box::new(act));
}

/// A named place in a connector at which a test may kill the process.
pub fn crash_point(name: &'static str) {
    if let Some(act) = AT_CONNECTORS_POINTS.get() {
        act(name);
    }
}

/// What a step of a worker came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more to do at once.
    Busy,
    /// Nothing to do before the bell rings or time passes.
    Idle,
    /// The worker has ended.
    Done,
}

/// Wakes a sleeping worker.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

impl Bell {
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(thread) = &*self.sleeper.lock()
        {
            thread.unpark();
        }
    }

    /// Whether the bell rang since the last look.
    pub fn take(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    fn sleep(&self, at_most: Duration) {
        if !self.take() {
            std::thread::park_timeout(at_most);
            self.take();
        }
    }

    fn belongs_to_this_thread(&self) {
        *self.sleeper.lock() = Some(std::thread::current());
    }
}

/// A worker looks at its splits at least this often, so that a lost wake-up costs little.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// The machine's own clock, randomness and threads.
#[derive(Default)]
pub struct System;

impl Environment for System {
    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
    }

    fn elapsed(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(pause))
    }

    fn writer_id(&self) -> String {
        uuid::Uuid::new_v4().simple().to_string()[..16].to_string()
    }

    fn jitter(&self) -> f64 {
        rand::random()
    }

    fn spawn_worker(&self, name: String, bell: Arc<Bell>, mut step: Box<dyn FnMut() -> Progress + Send>) {
        let run = move || {
            bell.belongs_to_this_thread();
            loop {
                match step() {
                    Progress::Busy => {}
                    Progress::Idle => bell.sleep(LONGEST_SLEEP),
                    Progress::Done => return,
                }
            }
        };
        // A machine that cannot start a thread cannot run a job: nothing better is known than to say so and end.
        std::thread::Builder::new().name(name).spawn(run).expect("a worker thread can be started");
    }
}

/// The pause before try number `attempt` (from 0): doubles from 50 ms to 10 s, with jitter, so that many do not retry in step.
pub fn backoff(environment: &dyn Environment, attempt: u32) -> Duration {
    let base = Duration::from_millis(50) * 2u32.saturating_pow(attempt.min(8));
    base.min(Duration::from_secs(10)).mul_f64(0.5 + environment.jitter() / 2.0)
}
