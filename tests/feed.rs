//! Simulated events on their way into a topic, with copies that come seconds after the event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka::Producer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simulator::{Event, Generator, Settings, Verification};

/// How long the broker may take for the last messages.
const LAST_DELIVERY: Duration = Duration::from_secs(120);

/// Which partition gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Any, as without a key: a copy travels in another partition than the event.
    Anywhere,
    /// The device's: a copy travels behind the event.
    ByDevice,
}

/// What is sent, and how.
#[derive(Debug, Clone)]
pub struct Feeding {
    pub rate: f64,
    pub duplicate_every: u32,
    /// A copy follows its event after up to this long: a crash can fall between the two.
    pub copies_within: Duration,
    pub spread: Spread,
    pub partitions: u32,
    pub seed: u64,
}

impl Feeding {
    /// Two hundred events a second through two partitions, with a copy of each fourth anywhere behind it.
    pub fn slow(seed: u64) -> Feeding {
        Feeding {
            rate: 200.0,
            duplicate_every: 4,
            copies_within: Duration::from_secs(2),
            spread: Spread::Anywhere,
            partitions: 2,
            seed,
        }
    }
}

/// A thread that sends until it is told to stop.
pub struct Feed {
    shared: Arc<Shared>,
    thread: JoinHandle<Verification>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Messages, copies among them.
    sent: AtomicU64,
}

impl Feed {
    pub fn start(topic: &str, properties: &[(String, String)], feeding: Feeding) -> Feed {
        let shared = Arc::new(Shared::default());
        let producer = Producer::new(topic, properties).expect("a producer can be made");
        let sending = Sending {
            producer,
            random: StdRng::seed_from_u64(feeding.seed.wrapping_add(1)),
            copies: BinaryHeap::new(),
            shared: shared.clone(),
            feeding,
        };
        Feed { shared, thread: std::thread::spawn(move || sending.run()) }
    }

    /// Messages that were sent so far, copies among them.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Relaxed)
    }

    /// Sends what is due and the copies that wait; returns what was sent, once the broker has it all.
    pub fn finish(self) -> Verification {
        self.shared.stop.store(true, Relaxed);
        self.thread.join().expect("the feed sent everything")
    }
}

struct Sending {
    producer: Producer,
    feeding: Feeding,
    random: StdRng,
    /// When due, partition, payload.
    copies: BinaryHeap<Reverse<(i64, i32, Vec<u8>)>>,
    shared: Arc<Shared>,
}

impl Sending {
    fn run(mut self) -> Verification {
        let mut verification = Verification::default();
        let settings = Settings {
            devices: 50,
            rate: self.feeding.rate,
            duplicate_every: self.feeding.duplicate_every,
            seed: self.feeding.seed,
            start: now(),
            instances: 1,
        };
        for event in Generator::new(settings) {
            self.sleep_until(event.due);
            if self.shared.stop.load(Relaxed) {
                break;
            }
            self.send_copies(event.due);
            self.send_event(&event);
            verification.sent(&event);
        }
        self.send_copies(i64::MAX);
        self.producer.flush(LAST_DELIVERY).expect("the last messages are delivered");
        assert_eq!(self.producer.failed(), 0, "messages that the broker refused");
        verification
    }

    fn send_event(&mut self, event: &Event) {
        let partition = self.partition(event.device);
        self.send(partition, &event.payload);
        for _ in 0..event.copies {
            let after = self.random.random_range(0..=self.feeding.copies_within.as_nanos() as i64);
            let partition = self.partition(event.device);
            self.copies.push(Reverse((event.due + after, partition, event.payload.clone())));
        }
    }

    fn send_copies(&mut self, until: i64) {
        while let Some(Reverse((due, ..))) = self.copies.peek()
            && *due <= until
            && let Some(Reverse((_, partition, payload))) = self.copies.pop()
        {
            self.send(partition, &payload);
        }
    }

    fn partition(&mut self, device: u32) -> i32 {
        match self.feeding.spread {
            Spread::Anywhere => self.random.random_range(0..self.feeding.partitions) as i32,
            Spread::ByDevice => (device % self.feeding.partitions) as i32,
        }
    }

    fn send(&self, partition: i32, payload: &[u8]) {
        self.producer.send(Some(partition), None, payload).expect("a message can be queued");
        self.shared.sent.fetch_add(1, Relaxed);
    }

    fn sleep_until(&self, due: i64) {
        while !self.shared.stop.load(Relaxed) && now() < due {
            let left = Duration::from_nanos((due - now()).max(0) as u64);
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}
