//! A machine whose clock a test turns: it stands until somebody sleeps or the test moves it on.

use std::sync::Arc;
use std::time::Duration;

use engine::environment::{Bell, Environment, Progress};
use futures::future::BoxFuture;
use parking_lot::Mutex;

/// All machines of a test share their time.
#[derive(Clone, Default)]
pub struct Time(Arc<Mutex<Duration>>);

impl Time {
    pub fn pass(&self, time: Duration) {
        *self.0.lock() += time;
    }
}

pub struct Machine {
    pub name: &'static str,
    pub time: Time,
}

impl Environment for Machine {
    fn now(&self) -> i64 {
        1_700_000_000_000_000_000 + self.elapsed().as_nanos() as i64
    }
    fn elapsed(&self) -> Duration {
        *self.time.0.lock()
    }
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.time.pass(pause);
        Box::pin(tokio::task::yield_now())
    }
    fn writer_id(&self) -> String {
        self.name.into()
    }
    fn jitter(&self) -> f64 {
        0.5
    }
    fn spawn_worker(&self, _: String, _: Arc<Bell>, _: Box<dyn FnMut() -> Progress + Send>) {
        unreachable!("a log has no workers")
    }
}
