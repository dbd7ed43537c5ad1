//! How long something takes: counted by upper bounds, as Prometheus' histograms are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// Upper bounds in milliseconds. From a commit on a local disk to a store that is away for a minute.
pub const BOUNDS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 15_000, 60_000];

/// Counts durations without a lock.
#[derive(Debug, Default)]
pub struct Durations {
    /// By bound, not cumulative; what is longer than the last bound is only in `count`.
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// What was counted up to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub count: u64,
    pub sum: Duration,
    /// For each of [`BOUNDS`]: how many took at most that long.
    pub at_most: Vec<u64>,
}

impl Durations {
    pub fn add(&self, duration: Duration) {
        if let Some(bucket) = BOUNDS.iter().position(|bound| duration <= Duration::from_millis(*bound)) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(duration.as_micros() as u64, Relaxed);
    }

    pub fn counted(&self) -> Counted {
        let mut sum = 0;
        let at_most = self.buckets.iter().map(|bucket| {
            sum += bucket.load(Relaxed);
            sum
        });
        let at_most = at_most.collect();
        Counted { count: self.count.load(Relaxed), sum: Duration::from_micros(self.micros.load(Relaxed)), at_most }
    }
}

/// For `/status`: how many, and their mean in milliseconds.
impl Serialize for Durations {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let counted = self.counted();
        let mean = counted.sum.as_secs_f64() * 1000.0 / counted.count.max(1) as f64;
        let mut fields = serializer.serialize_struct("durations", 2)?;
        fields.serialize_field("count", &counted.count)?;
        fields.serialize_field("mean_millis", &mean)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_at_its_bound_and_at_every_longer_one() {
        let durations = Durations::default();
        for millis in [1, 30, 100_000] {
            durations.add(Duration::from_millis(millis));
        }
        let counted = durations.counted();
        assert_eq!((counted.count, counted.sum), (3, Duration::from_millis(100_031)));
        let at = |bound| counted.at_most[BOUNDS.iter().position(|b| *b == bound).unwrap()];
        assert_eq!((at(1), at(25), at(50), at(60_000)), (1, 1, 2, 2));
    }
}
