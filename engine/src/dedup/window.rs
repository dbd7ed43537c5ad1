//! A set of keys that forgets by time: keys lie in buckets of the log's clock, and whole buckets fall.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use crate::clock::UNHEARD;
use crate::key::Key;

/// Buckets in one window: more waste less memory past the window, and cost a look-up each.
const BUCKETS_PER_WINDOW: i64 = 3;

/// What a window says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    First,
    Copy,
    /// Older than the window: nobody can say.
    TooOld,
}

pub struct Window {
    within: i64,
    width: i64,
    /// Rows before this cannot be judged. Moves with the clock only, never by memory or the wall clock.
    horizon: i64,
    buckets: BTreeMap<i64, Bucket>,
}

#[derive(Default)]
struct Bucket {
    ids: HashSet<u128>,
    texts: HashSet<Box<[u8]>>,
    text_bytes: u64,
    /// Not in a snapshot yet.
    new: Vec<Key>,
}

impl Window {
    pub fn new(within: i64) -> Self {
        let width = (within / BUCKETS_PER_WINDOW).max(1);
        Window { within, width, horizon: UNHEARD, buckets: BTreeMap::new() }
    }

    /// The oldest time that can be judged.
    pub fn oldest(&self) -> i64 {
        self.horizon.max(0)
    }

    /// Moves the horizon behind the clock and drops the buckets that lie wholly before it.
    pub fn move_clock(&mut self, now: i64) {
        if now == UNHEARD {
            return;
        }
        self.horizon = self.horizon.max(now.saturating_sub(self.within));
        let floor = self.floor();
        while self.buckets.first_key_value().is_some_and(|(bucket, _)| *bucket < floor) {
            self.buckets.pop_first();
        }
    }

    /// The oldest bucket that is still needed.
    pub fn floor(&self) -> i64 {
        if self.horizon == UNHEARD { i64::MIN } else { self.horizon.div_euclid(self.width) }
    }

    pub fn judge(&mut self, key: Key, time: i64) -> Verdict {
        if time < self.horizon {
            return Verdict::TooOld;
        }
        if self.buckets.values().any(|bucket| bucket.contains(&key)) {
            return Verdict::Copy;
        }
        let bucket = self.buckets.entry(time.div_euclid(self.width)).or_default();
        bucket.insert(key.clone());
        bucket.new.push(key);
        Verdict::First
    }

    /// Takes in a key of an earlier snapshot.
    pub fn remember(&mut self, key: Key, bucket: i64) {
        if bucket >= self.floor() {
            self.buckets.entry(bucket).or_default().insert(key);
        }
    }

    /// The keys that no snapshot holds yet, with their buckets.
    pub fn take_new(&mut self) -> impl Iterator<Item = (i64, Key)> {
        self.buckets.iter_mut().flat_map(|(number, bucket)| {
            let number = *number;
            std::mem::take(&mut bucket.new).into_iter().map(move |key| (number, key))
        })
    }

    pub fn len(&self) -> u64 {
        self.buckets.values().map(|b| (b.ids.len() + b.texts.len()) as u64).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.buckets
            .values()
            .map(|b| b.ids.capacity() as u64 * 17 + b.texts.capacity() as u64 * 17 + b.text_bytes)
            .sum()
    }
}

impl Bucket {
    fn contains(&self, key: &Key) -> bool {
        match key {
            Key::Uuid(id) => self.ids.contains(id),
            Key::Bytes(bytes) => self.texts.contains(bytes),
        }
    }

    fn insert(&mut self, key: Key) {
        match key {
            Key::Uuid(id) => {
                self.ids.insert(id);
            }
            Key::Bytes(bytes) => {
                self.text_bytes += bytes.len() as u64;
                self.texts.insert(bytes);
            }
        }
    }
}
