//! The machine's environment, with places at which a test may kill the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::environment::{Bell, Environment, Progress, System};
use futures::future::BoxFuture;

/// `MILLRACE_CRASH=<place>:<n>` kills the process at the n-th time it comes to the place. For tests.
pub struct Crashing {
    system: System,
    place: Option<(String, u64)>,
    seen: AtomicU64,
}

impl Crashing {
    pub fn from_environment() -> Self {
        let place = std::env::var("MILLRACE_CRASH").ok().and_then(|text| {
            let (place, count) = text.split_once(':')?;
            Some((place.to_string(), count.parse().ok()?))
        });
        Crashing { system: System, place, seen: AtomicU64::new(0) }
    }
}

impl Environment for Crashing {
    fn now(&self) -> i64 {
        self.system.now()
    }
    fn elapsed(&self) -> Duration {
        self.system.elapsed()
    }
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.system.sleep(pause)
    }
    fn writer_id(&self) -> String {
        self.system.writer_id()
    }
    fn jitter(&self) -> f64 {
        self.system.jitter()
    }
    fn spawn_worker(&self, name: String, bell: Arc<Bell>, step: Box<dyn FnMut() -> Progress + Send>) {
        self.system.spawn_worker(name, bell, step)
    }
    fn crash_point(&self, name: &'static str) {
        if let Some((place, count)) = &self.place
            && place == name
            && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == *count
        {
            // No destructor, no flush: as a SIGKILL would have it.
            std::process::abort();
        }
    }
}
