//! The machine's environment, with places at which a test may kill or freeze the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::environment::{Bell, Environment, Progress, System, at_connectors_crash_points};
use futures::future::BoxFuture;

/// `MILLRACE_CRASH=<place>:<n>` kills the process at the n-th time it comes to the place, and `<place>:<n>:freeze` stops it
/// there, as a pause of its machine would, until it is told to go on. For tests.
pub struct Crashing {
    system: System,
    place: Arc<Place>,
}

#[derive(Default)]
struct Place {
    name: String,
    /// It happens at this visit.
    count: u64,
    freezes: bool,
    seen: AtomicU64,
}

impl Crashing {
    pub fn from_environment() -> Self {
        let place = std::env::var("MILLRACE_CRASH").ok().and_then(|text| Place::parse(&text));
        let place = Arc::new(place.unwrap_or_default());
        let of_connectors = place.clone();
        at_connectors_crash_points(move |name| of_connectors.reached(name));
        Crashing { system: System, place }
    }
}

impl Place {
    fn parse(text: &str) -> Option<Place> {
        let (name, visit) = text.split_once(':')?;
        let (count, freezes) = visit.strip_suffix(":freeze").map_or((visit, false), |count| (count, true));
        Some(Place { name: name.to_string(), count: count.parse().ok()?, freezes, seen: AtomicU64::new(0) })
    }

    fn reached(&self, name: &str) {
        if self.name == name && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
            // No destructor, no flush, no core file. SAFETY: no memory is touched.
            unsafe { libc::kill(libc::getpid(), if self.freezes { libc::SIGSTOP } else { libc::SIGKILL }) };
        }
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
        self.place.reached(name);
    }
}
