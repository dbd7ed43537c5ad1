//! A set of keys that forgets by time: keys lie in buckets of the log's clock, and whole buckets fall.

use super::marks::Mark;
use super::set::Set;
use super::spill::SpillError;
use super::stored::NewKeys;
use super::table::Hasher;
use crate::clock::UNHEARD;
use crate::key::Key;

/// Buckets in one window: more waste less memory past the window, and are cleared away more often.
const BUCKETS_PER_WINDOW: i64 = 3;

pub struct Window {
    within: i64,
    width: i64,
    /// Rows before this cannot be judged. Moves with the clock only, never by memory or the wall clock.
    horizon: i64,
    /// One, unless there are more buckets than a set has marks: then a look-up costs as much again.
    sets: Vec<Set>,
    /// The bucket that was asked for last.
    latest: Option<(i64, Place)>,
}

/// Where the keys of a time bucket are.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    set: usize,
    mark: Mark,
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
        Window { within, width: bucket_width(within), horizon: UNHEARD, sets: vec![], latest: None }
    }

    /// The oldest time that can be judged.
    pub fn oldest(&self) -> i64 {
        self.horizon.max(0)
    }

    pub fn is_too_old(&self, time: i64) -> bool {
        time < self.horizon
    }

    /// Moves the horizon behind the clock, lets the buckets fall that lie wholly before it, and clears some of what fell away.
    pub fn move_clock(&mut self, now: i64, hasher: &Hasher) {
        if now == UNHEARD {
            return;
        }
        let before = self.floor();
        self.horizon = self.horizon.max(now.saturating_sub(self.within));
        if self.floor() > before {
            let floor = self.floor();
            self.sets.retain_mut(|set| set.fall(floor));
            self.latest = None;
        }
        self.sets.iter_mut().for_each(|set| set.clear_some(hasher));
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
    pub fn touch(&self, hash: u64) -> u8 {
        self.sets.iter().fold(0, |touched, set| touched ^ set.touch(hash))
    }

    #[inline]
    pub fn in_memory(&self, hash: u64, key: &Key<'_>) -> bool {
        self.sets.iter().any(|set| set.in_memory(hash, key))
    }

    pub fn on_disk(&self, hash: u64, key: &Key<'_>, space: &mut Vec<u8>) -> Result<bool, SpillError> {
        for set in &self.sets {
            if set.on_disk(hash, key, space)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the keys of a time bucket go.
    #[inline]
    pub fn bucket(&mut self, number: i64) -> Place {
        match self.latest {
            Some((latest, place)) if latest == number => place,
            _ => self.find_or_begin(number),
        }
    }

    fn find_or_begin(&mut self, number: i64) -> Place {
        let known = self.sets.iter().enumerate().find_map(|(set, s)| Some(Place { set, mark: s.mark(number)? }));
        let place = known.unwrap_or_else(|| self.begin(number));
        self.latest = Some((number, place));
        place
    }

    fn begin(&mut self, number: i64) -> Place {
        let begun = self.sets.iter_mut().enumerate().find_map(|(set, s)| Some(Place { set, mark: s.begin(number)? }));
        begun.unwrap_or_else(|| {
            let mut set = Set::default();
            let mark = set.begin(number).unwrap_or(Mark::MIN);
            self.sets.push(set);
            Place { set: self.sets.len() - 1, mark }
        })
    }

    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    pub fn set(&mut self, place: usize) -> Option<&mut Set> {
        self.sets.get_mut(place)
    }

    /// The keys that no snapshot holds yet, by bucket.
    pub fn take_new(&mut self) -> impl Iterator<Item = (i64, NewKeys)> {
        self.sets.iter_mut().flat_map(Set::take_new)
    }

    /// Clears away all that the clock has passed.
    pub fn clear_all(&mut self, hasher: &Hasher) {
        self.sets.iter_mut().for_each(|set| set.clear_all(hasher));
    }

    #[inline]
    pub fn growth(&self, at: Place, hash: u64, key: &Key<'_>, new: bool) -> usize {
        self.sets[at.set].growth(at.mark, hash, key, new)
    }

    pub fn insert(&mut self, at: Place, hash: u64, key: &Key<'_>, new: bool, hasher: &Hasher) {
        self.sets[at.set].insert(at.mark, hash, key, new, hasher);
    }
}
