//! Virtual time: it stands while anything can run, and then jumps to the next timer.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

/// The wall clock at the beginning of every story, nanoseconds since 1970.
pub const BEGINNING: i64 = 1_700_000_000_000_000_000;

pub struct Clock {
    state: Mutex<State>,
    random: Mutex<StdRng>,
}

#[derive(Default)]
struct State {
    now: Duration,
    timers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    /// Grows with whatever happens: while it grows, time stands.
    happened: u64,
}

impl Clock {
    pub fn new(seed: u64) -> Self {
        Clock { state: Mutex::default(), random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    pub fn now(&self) -> Duration {
        self.state.lock().now
    }

    /// The one source of chance in a story.
    pub fn pick(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().random_range(range)
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.pick(0..100) < percent
    }

    pub fn happens(&self) {
        self.state.lock().happened += 1;
    }

    pub fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        let (fire, fired) = oneshot::channel();
        let mut state = self.state.lock();
        state.happened += 1;
        let key = (state.now + pause, state.happened);
        state.timers.insert(key, fire);
        Box::pin(async move {
            let _ = fired.await;
        })
    }

    /// Lets everything run that can, then moves on to the next timer.
    pub async fn advance(&self) {
        loop {
            let before = self.state.lock().happened;
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            if self.state.lock().happened == before {
                break;
            }
        }
        let mut state = self.state.lock();
        // Timers whose sleeper was given up are nobody's.
        while let Some(((at, _), fire)) = state.timers.pop_first() {
            if !fire.is_closed() {
                state.now = state.now.max(at);
                let _ = fire.send(());
                return;
            }
        }
    }
}
