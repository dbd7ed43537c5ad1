//! A set of keys that forgets by time: keys lie in buckets of the log's clock, and whole buckets fall.

use super::bucket::Bucket;
use super::spill::SpillError;
use super::stored::NewKeys;
use super::table::Hasher;
use crate::clock::UNHEARD;
use crate::key::Key;

/// Buckets in one window: more waste less memory past the window, and cost a look-up each.
const BUCKETS_PER_WINDOW: i64 = 3;

pub struct Window {
    within: i64,
    width: i64,
    /// Rows before this cannot be judged. Moves with the clock only, never by memory or the wall clock.
    horizon: i64,
    /// In the order of their numbers.
    buckets: Vec<(i64, Bucket)>,
}

/// How long a bucket is, in nanoseconds, in a window that is `within` long.
pub fn bucket_width(within: i64) -> i64 {
    (within / BUCKETS_PER_WINDOW).max(1)
}

/// The last moment of a bucket.
pub fn last_moment(bucket: i64, width: i64) -> i64 {
    bucket.saturating_add(1).saturating_mul(width).saturating_sub(1)
}

impl Window {
    pub fn new(within: i64) -> Self {
        Window { within, width: bucket_width(within), horizon: UNHEARD, buckets: vec![] }
    }

    /// The oldest time that can be judged.
    pub fn oldest(&self) -> i64 {
        self.horizon.max(0)
    }

    pub fn is_too_old(&self, time: i64) -> bool {
        time < self.horizon
    }

    /// Moves the horizon behind the clock and drops the buckets that lie wholly before it.
    pub fn move_clock(&mut self, now: i64) {
        if now == UNHEARD {
            return;
        }
        self.horizon = self.horizon.max(now.saturating_sub(self.within));
        let floor = self.floor();
        self.buckets.drain(..self.buckets.partition_point(|(number, _)| *number < floor));
    }

    /// The oldest bucket that is still needed.
    pub fn floor(&self) -> i64 {
        if self.horizon == UNHEARD { i64::MIN } else { self.horizon.div_euclid(self.width) }
    }

    /// The bucket of a time.
    pub fn number(&self, time: i64) -> i64 {
        time.div_euclid(self.width)
    }

    /// Asks memory for the places that a key may be at, without waiting. The result means nothing: it is there so that the loads
    /// are not left out.
    #[inline]
    pub fn touch(&self, hash: u64) -> u64 {
        self.buckets.iter().fold(0, |touched, (_, bucket)| touched ^ bucket.touch(hash))
    }

    #[inline]
    pub fn in_memory(&self, hash: u64, key: &Key<'_>) -> bool {
        self.buckets.iter().any(|(_, bucket)| bucket.in_memory(hash, key))
    }

    /// Whether a key is in memory in one of these buckets.
    pub fn in_buckets(&self, numbers: &[i64], hash: u64, key: &Key<'_>) -> bool {
        self.buckets.iter().any(|(number, bucket)| numbers.contains(number) && bucket.in_memory(hash, key))
    }

    pub fn on_disk(&self, hash: u64, key: &Key<'_>, space: &mut Vec<u8>) -> Result<bool, SpillError> {
        for (_, bucket) in &self.buckets {
            if bucket.on_disk(hash, key, space)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn bucket(&mut self, number: i64) -> &mut Bucket {
        let at = self.buckets.partition_point(|(n, _)| *n < number);
        if self.buckets.get(at).is_none_or(|(n, _)| *n != number) {
            self.buckets.insert(at, (number, Bucket::default()));
        }
        &mut self.buckets[at].1
    }

    pub fn buckets(&self) -> impl Iterator<Item = (i64, &Bucket)> {
        self.buckets.iter().map(|(number, bucket)| (*number, bucket))
    }

    /// The keys that no snapshot holds yet, by bucket.
    pub fn take_new(&mut self) -> impl Iterator<Item = (i64, NewKeys)> {
        self.buckets.iter_mut().map(|(number, bucket)| (*number, bucket.take_new())).filter(|(_, new)| !new.is_empty())
    }

    pub fn insert(&mut self, number: i64, hash: u64, key: &Key<'_>, new: bool, hasher: &Hasher) {
        self.bucket(number).insert(hash, key, new, hasher);
    }
}
