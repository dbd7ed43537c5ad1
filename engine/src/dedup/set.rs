//! The keys of some time buckets: in memory, and on disk where memory was short.
//!
//! In memory the keys of all buckets lie together, each with the mark of its own, so that a look-up waits for memory once and
//! not once a bucket. When a bucket falls, its keys are no longer known from then on, and are cleared away bit by bit.
//!
//! A set is many small tables, told by the upper bits of the hash. So none of its steps is long, however many keys it
//! has: a table that grows moves a 64th of them, and so does one that is cleared or goes to disk.

use std::sync::Arc;

use super::marks::{Mark, Marks};
use super::spill::{Section, SpillError, SpillFile};
use super::stored::NewKeys;
use super::table::{Hasher, Table};
use crate::key::Key;

/// A power of two.
const SHARDS: usize = 64;
/// Up to here a set is one table: many are small, where there are many partitions.
const UNDIVIDED: usize = 4096;

pub struct Set {
    /// One, or [`SHARDS`].
    shards: Vec<Table>,
    /// By mark, the first of them 1.
    buckets: Vec<Bucket>,
    /// Buckets that fell, and whose keys may still lie in memory.
    fallen: Marks,
    /// The shard that is cleared next of the keys of buckets that fell, and how many are to be: once around, since buckets may fall
    /// faster than that.
    next_cleared: usize,
    to_clear: usize,
}

/// What is known of a time bucket but for its keys in memory.
#[derive(Default)]
struct Bucket {
    number: i64,
    /// Not in a snapshot yet.
    new: NewKeys,
    /// Keys on disk by shard, how many, and the memory that it takes to know where.
    sections: Vec<Sections>,
    spilled: usize,
    spilled_memory: usize,
}

#[derive(Default, Clone)]
struct Sections {
    ids: Vec<Arc<Section>>,
    texts: Vec<Arc<Section>>,
}

/// Keys that could go to disk.
pub struct Share {
    pub bucket: i64,
    pub mark: Mark,
    pub shard: usize,
    /// The memory that they take, about.
    pub bytes: usize,
}

impl Default for Set {
    fn default() -> Self {
        Set { shards: vec![Table::default()], buckets: vec![], fallen: Marks::default(), next_cleared: 0, to_clear: 0 }
    }
}

impl Set {
    pub fn len(&self) -> usize {
        let in_memory = |mark| self.shards.iter().map(|table| table.held(mark).keys()).sum::<usize>();
        self.live().map(|(mark, bucket)| in_memory(mark) + bucket.spilled).sum()
    }

    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        let tables: usize = self.shards.iter().map(Table::memory).sum();
        let of_buckets: usize = self.live().map(|(_, bucket)| bucket.new.memory() + bucket.spilled_memory).sum();
        tables + size_of_val(&*self.shards) + size_of_val(&*self.buckets) + of_buckets
    }

    /// The mark of a bucket that is here.
    pub fn mark(&self, number: i64) -> Option<Mark> {
        self.live().find(|(_, bucket)| bucket.number == number).map(|(mark, _)| mark)
    }

    /// Makes room for a bucket. `None` if there is no mark left for it.
    pub fn begin(&mut self, number: i64) -> Option<Mark> {
        let is_gone = |mark: Mark| self.shards.iter().all(|table| table.held(mark).keys() == 0);
        let mark = match self.marks().find(|mark| self.fallen.contains(*mark) && is_gone(*mark)) {
            Some(mark) => mark,
            None => {
                let mark = Mark::new(u8::try_from(self.buckets.len() + 1).ok()?)?;
                self.buckets.push(Bucket::default());
                mark
            }
        };
        self.fallen.remove(mark);
        let sections = vec![Sections::default(); self.shards.len()];
        *self.of(mark) = Bucket { number, sections, ..Bucket::default() };
        Some(mark)
    }

    /// Asks memory for the place of a key, without waiting: see [`Table::touch`].
    #[inline]
    pub fn touch(&self, hash: u64) -> u8 {
        self.shards[self.shard(hash)].touch(hash)
    }

    #[inline]
    pub fn in_memory(&self, hash: u64, key: &Key<'_>) -> bool {
        self.shards[self.shard(hash)].get(hash, key).is_some_and(|mark| !self.fallen.contains(mark))
    }

    pub fn on_disk(&self, hash: u64, key: &Key<'_>, space: &mut Vec<u8>) -> Result<bool, SpillError> {
        let shard = self.shard(hash);
        for (_, bucket) in self.live().filter(|(_, bucket)| bucket.spilled > 0) {
            let Sections { ids, texts } = &bucket.sections[shard];
            for section in if let Key::Uuid(_) = key { ids } else { texts } {
                if section.contains(hash, key, space)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// By how much `memory` would grow, about, if this key came; nearly always zero.
    #[inline]
    pub fn growth(&self, mark: Mark, hash: u64, key: &Key<'_>, new: bool) -> usize {
        let of_new = if new { self.buckets[place(mark)].new.growth(key) } else { 0 };
        of_new + self.shards[self.shard(hash)].growth(key, &self.fallen)
    }

    /// Takes a key in. One that is there already is kept as long as the later of its buckets.
    pub fn insert(&mut self, mark: Mark, hash: u64, key: &Key<'_>, new: bool, hasher: &Hasher) {
        if let [table] = &*self.shards
            && table.len() >= UNDIVIDED
        {
            self.divide(hasher);
        }
        let shard = self.shard(hash);
        let before = self.shards[shard].put(hash, key, mark, &self.fallen, hasher);
        let later = |before: &Mark| self.buckets[place(*before)].number > self.buckets[place(mark)].number;
        if let Some(before) = before.filter(|mark| !self.fallen.contains(*mark)).filter(later) {
            self.shards[shard].put(hash, key, before, &self.fallen, hasher);
        }
        if new {
            self.of(mark).new.push(key);
        }
    }

    /// The keys that no snapshot holds yet, by bucket.
    pub fn take_new(&mut self) -> impl Iterator<Item = (i64, NewKeys)> {
        let fallen = self.fallen;
        let live = self.buckets.iter_mut().enumerate().filter(move |(at, _)| !fallen.contains(mark(*at)));
        live.map(|(_, bucket)| (bucket.number, std::mem::take(&mut bucket.new))).filter(|(_, new)| !new.is_empty())
    }

    /// Lets the buckets before this one fall. Whether any is left.
    pub fn fall(&mut self, floor: i64) -> bool {
        let falling: Vec<Mark> = self.live().filter(|(_, b)| b.number < floor).map(|(mark, _)| mark).collect();
        for mark in falling {
            self.fallen.insert(mark);
            *self.of(mark) = Bucket::default();
            self.to_clear = self.shards.len();
        }
        self.live().next().is_some()
    }

    /// Clears one table of the keys of buckets that fell. Cheap where there are none.
    pub fn clear_some(&mut self, hasher: &Hasher) {
        while self.to_clear > 0 {
            self.to_clear -= 1;
            self.next_cleared = (self.next_cleared + 1) % self.shards.len();
            if self.shards[self.next_cleared].forget(&self.fallen, hasher) {
                return;
            }
        }
    }

    pub fn clear_all(&mut self, hasher: &Hasher) {
        while self.to_clear > 0 {
            self.clear_some(hasher);
        }
    }

    /// What could go to disk.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        self.live().flat_map(|(mark, bucket)| {
            let bytes = self.shards.iter().map(move |table| table.held(mark).memory()).enumerate();
            bytes.map(move |(shard, bytes)| Share { bucket: bucket.number, mark, shard, bytes })
        })
    }

    /// Moves keys to disk.
    pub fn spill(&mut self, share: &Share, file: &Arc<SpillFile>, hasher: &Hasher) -> Result<(), SpillError> {
        let Share { mark, shard, .. } = *share;
        let (table, bucket) = (&mut self.shards[shard], &mut self.buckets[place(mark)]);
        let Sections { ids, texts } = &mut bucket.sections[shard];
        for (keys, sections) in [(table.sorted_ids(mark, hasher), ids), (table.sorted_texts(mark, hasher), texts)] {
            if !keys.is_empty() {
                let section = Section::write(file.clone(), &keys)?;
                bucket.spilled += section.len();
                bucket.spilled_memory += section.memory();
                sections.push(Arc::new(section));
            }
        }
        table.forget_for_memory(mark, &self.fallen, hasher);
        Ok(())
    }

    fn marks(&self) -> impl Iterator<Item = Mark> + use<> {
        (0..self.buckets.len()).map(mark)
    }

    fn live(&self) -> impl Iterator<Item = (Mark, &Bucket)> {
        self.marks().zip(&self.buckets).filter(|(mark, _)| !self.fallen.contains(*mark))
    }

    fn of(&mut self, mark: Mark) -> &mut Bucket {
        &mut self.buckets[place(mark)]
    }

    #[inline]
    fn shard(&self, hash: u64) -> usize {
        if self.shards.len() == 1 { 0 } else { (hash >> (u64::BITS - SHARDS.ilog2())) as usize }
    }

    fn divide(&mut self, hasher: &Hasher) {
        let Some(one) = self.shards.pop() else { return };
        self.shards.resize_with(SHARDS, Table::default);
        self.to_clear = 0;
        for bucket in &mut self.buckets {
            // A section that was written before may have a key of any shard.
            if let Some(sections) = bucket.sections.pop() {
                bucket.sections = vec![sections; SHARDS];
            }
        }
        one.for_each(hasher, |hash, key, mark| {
            if !self.fallen.contains(mark) {
                let shard = self.shard(hash);
                self.shards[shard].put(hash, &key, mark, &self.fallen, hasher);
            }
        });
    }
}

fn place(mark: Mark) -> usize {
    usize::from(mark.get()) - 1
}

/// The mark of a place, of which there are no more than marks.
fn mark(place: usize) -> Mark {
    Mark::MIN.saturating_add(place as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::spill::Spill;
    use crate::dedup::table::hash;

    fn knows(set: &Set, hasher: &Hasher, id: u128) -> bool {
        let (key, hash) = (Key::Uuid(id), hash(hasher, &Key::Uuid(id)));
        set.in_memory(hash, &key) || set.on_disk(hash, &key, &mut vec![]).unwrap()
    }

    fn insert(set: &mut Set, hasher: &Hasher, mark: Mark, id: u128) {
        set.insert(mark, hash(hasher, &Key::Uuid(id)), &Key::Uuid(id), true, hasher);
    }

    #[test]
    fn a_set_that_went_to_disk_while_it_was_small_knows_its_keys_when_it_is_large() {
        let folder = tempfile::tempdir().unwrap();
        let file = Spill::new(folder.path().to_path_buf()).file(0).unwrap();
        let hasher = Hasher::default();
        let mut set = Set::default();
        let bucket = set.begin(7).unwrap();
        for id in 0..10_000 {
            insert(&mut set, &hasher, bucket, id);
            if id == 2000 {
                let share = set.shares().next().unwrap();
                set.spill(&share, &file, &hasher).unwrap();
            }
        }
        assert_eq!(set.shards.len(), SHARDS);
        assert_eq!(set.len(), 10_000);
        assert!((0..10_000).all(|id| knows(&set, &hasher, id)));
        assert!((10_000..20_000).all(|id| !knows(&set, &hasher, id)));
    }

    #[test]
    fn the_keys_of_a_bucket_that_fell_are_unknown_at_once_and_cleared_bit_by_bit() {
        let hasher = Hasher::default();
        let mut set = Set::default();
        let (old, young) = (set.begin(1).unwrap(), set.begin(2).unwrap());
        (0..100_000).for_each(|id| insert(&mut set, &hasher, if id % 4 == 0 { young } else { old }, id));
        let before = set.memory();
        assert!(set.fall(2));
        assert_eq!(set.len(), 25_000);
        assert!((0..100_000).all(|id| knows(&set, &hasher, id) == (id % 4 == 0)));
        let mut steps = 0;
        while set.to_clear > 0 {
            set.clear_some(&hasher);
            steps += 1;
        }
        assert!(steps >= SHARDS && set.memory() < before / 2, "{steps} steps, {} of {before} bytes", set.memory());
        assert!((0..100_000).all(|id| knows(&set, &hasher, id) == (id % 4 == 0)));
        assert!(!set.fall(3));
    }

    #[test]
    fn every_table_is_cleared_in_its_turn_though_buckets_fall_faster_than_that() {
        let hasher = Hasher::default();
        let mut set = Set::default();
        let first = set.begin(0).unwrap();
        (0..100_000).for_each(|id| insert(&mut set, &hasher, first, id));
        for bucket in 1..=SHARDS as i64 {
            let mark = set.begin(bucket).unwrap();
            insert(&mut set, &hasher, mark, 100_000 + bucket as u128);
            assert!(set.fall(bucket));
            set.clear_some(&hasher);
        }
        assert!(set.shards.iter().all(|table| table.held(first).keys() == 0));
    }

    #[test]
    fn a_key_that_comes_again_after_its_bucket_fell_is_kept_anew() {
        let hasher = Hasher::default();
        let mut set = Set::default();
        let old = set.begin(1).unwrap();
        (0..1000).for_each(|id| insert(&mut set, &hasher, old, id));
        let young = set.begin(5).unwrap();
        set.fall(5);
        (0..500).for_each(|id| insert(&mut set, &hasher, young, id));
        set.clear_all(&hasher);
        assert_eq!(set.len(), 500);
        assert!((0..1000).all(|id| knows(&set, &hasher, id) == (id < 500)));
    }

    #[test]
    fn a_key_that_is_in_two_buckets_is_kept_as_long_as_the_later_of_them_whichever_comes_first() {
        let hasher = Hasher::default();
        for numbers in [[1, 2], [2, 1]] {
            let mut set = Set::default();
            for number in numbers {
                let bucket = set.begin(number).unwrap();
                insert(&mut set, &hasher, bucket, 7);
            }
            set.fall(2);
            assert!(knows(&set, &hasher, 7), "{numbers:?}");
        }
    }

    #[test]
    fn marks_are_given_again_once_nothing_bears_them_and_there_are_255() {
        let hasher = Hasher::default();
        let mut set = Set::default();
        for number in 0..255 {
            let bucket = set.begin(number).unwrap();
            insert(&mut set, &hasher, bucket, number as u128);
        }
        assert!(set.begin(255).is_none());
        set.fall(3);
        assert!(set.begin(255).is_none(), "their keys are there yet");
        set.clear_all(&hasher);
        for number in 255..258 {
            let bucket = set.begin(number).unwrap();
            insert(&mut set, &hasher, bucket, number as u128);
        }
        assert!(set.begin(258).is_none());
        assert!((0..258).all(|number| knows(&set, &hasher, number) == (number >= 3)));
    }
}
