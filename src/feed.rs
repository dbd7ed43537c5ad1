//! Sends simulated events to a topic, on schedule, and remembers them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use engine::environment::{Environment, System};
use engine::metrics::{Metrics, SplitMetrics};
use kafka::{EmbeddedBroker, Producer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simulator::{Generator, Settings, Verification};

/// How long the broker may take for the last messages.
const LAST_DELIVERY: Duration = Duration::from_secs(60);

/// What the thread that sends shows while it does.
#[derive(Default)]
pub struct Progress {
    /// Messages, copies among them.
    pub sent: AtomicU64,
    /// The reader is so far behind that the embedded broker would soon drop what it has not read.
    pub paused: AtomicBool,
    pub stop: AtomicBool,
}

/// Where events go. As the seed's Kafka sender has it, a message has no key and any partition may get it: a copy
/// travels in another partition than the event.
pub struct Feed {
    pub producer: Producer,
    pub partitions: usize,
    pub settings: Settings,
    pub progress: Arc<Progress>,
    /// Of the reading job, when the broker forgets what is not read in time.
    pub backlog: Option<Backlog>,
}

/// Watches the bytes of each partition that are sent and not yet read.
pub struct Backlog {
    sent: Vec<u64>,
    read: Vec<Arc<SplitMetrics>>,
}

impl Backlog {
    /// `table`: the name under which the job reads the topic.
    pub fn new(metrics: &Metrics, table: &str, partitions: usize) -> Self {
        let read = (0..partitions).map(|p| metrics.split(&format!("{table}/{p}"))).collect();
        Backlog { sent: vec![0; partitions], read }
    }

    fn is_full(&self, partition: usize) -> bool {
        self.sent[partition].saturating_sub(self.read[partition].bytes.get()) > EmbeddedBroker::SAFE_BACKLOG
    }
}

impl Feed {
    /// Sends until told to stop; returns what was sent, once the broker has it all.
    pub fn run(mut self) -> Result<Verification, String> {
        let mut verification = Verification::default();
        let mut random = StdRng::seed_from_u64(self.settings.seed.wrapping_add(1));
        let mut generator = Generator::new(self.settings.clone());
        while let Some(due) = generator.next_due() {
            self.sleep_until(due);
            if self.progress.stop.load(Relaxed) {
                break;
            }
            let Some(event) = generator.next() else { break };
            for _ in 0..=event.copies {
                self.send(random.random_range(0..self.partitions), &event.payload)?;
            }
            verification.sent(&event);
        }
        self.producer.flush(LAST_DELIVERY).map_err(|e| format!("the last messages were not delivered: {e}"))?;
        match self.producer.failed() {
            0 => Ok(verification),
            n => Err(format!("the broker refused {n} messages")),
        }
    }

    fn send(&mut self, partition: usize, payload: &[u8]) -> Result<(), String> {
        if let Some(backlog) = &mut self.backlog {
            while backlog.is_full(partition) {
                self.progress.paused.store(true, Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
            backlog.sent[partition] += payload.len() as u64;
        }
        self.progress.paused.store(false, Relaxed);
        self.producer
            .send(Some(partition as i32), None, payload)
            .map_err(|e| format!("a message was not sent: {e}"))?;
        self.progress.sent.fetch_add(1, Relaxed);
        Ok(())
    }

    fn sleep_until(&self, due: i64) {
        while !self.progress.stop.load(Relaxed) {
            let left = due - System.now();
            if left <= 0 {
                return;
            }
            std::thread::sleep(Duration::from_nanos(left as u64).min(Duration::from_millis(50)));
        }
    }
}
