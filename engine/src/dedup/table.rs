//! Keys in memory, whole, each with the mark of its time bucket.

use std::hash::BuildHasher;

use super::ids::Ids;
use super::marks::{Mark, Marks};
use super::texts::{Packed, Texts};
use crate::key::Key;

/// How keys are hashed here. Seeded anew in each process, so that nobody can choose ids that collide, and independent of
/// the hash that chose the worker: of that one, the keys of a worker share some bits.
pub type Hasher = hashbrown::DefaultHashBuilder;

pub fn hash(hasher: &Hasher, key: &Key<'_>) -> u64 {
    match key {
        Key::Uuid(id) => hasher.hash_one(id),
        Key::Bytes(bytes) => hasher.hash_one(bytes),
    }
}

/// A set of keys. Those of buckets that fell stay in it until it is rebuilt: whoever asks is told their mark.
#[derive(Default)]
pub struct Table {
    ids: Ids,
    texts: Texts,
    /// By mark.
    held: Vec<Held>,
}

/// What a table holds of one bucket.
#[derive(Debug, Default, Clone, Copy)]
pub struct Held {
    ids: usize,
    texts: usize,
    /// Of the texts.
    bytes: usize,
}

impl Held {
    pub fn keys(&self) -> usize {
        self.ids + self.texts
    }

    fn add(&mut self, key: &Key<'_>) {
        match key {
            Key::Uuid(_) => self.ids += 1,
            Key::Bytes(bytes) => (self.texts, self.bytes) = (self.texts + 1, self.bytes + Packed::length(bytes)),
        }
    }

    fn subtract(&mut self, key: &Key<'_>) {
        match key {
            Key::Uuid(_) => self.ids -= 1,
            Key::Bytes(bytes) => (self.texts, self.bytes) = (self.texts - 1, self.bytes - Packed::length(bytes)),
        }
    }

    /// The bytes of memory that it takes, about.
    pub fn memory(&self) -> usize {
        Ids::memory_of(wide(self.ids)) + self.texts * 2 * size_of::<u64>() + self.bytes
    }
}

/// Slots for so many ids that are rebuilt because there was no room: then half as many can come before it is done again.
fn wide(ids: usize) -> usize {
    ids * 2
}

/// Slots for so many ids that are rebuilt because there was not enough memory, or without those of a bucket that fell.
fn narrow(ids: usize) -> usize {
    ids * 3 / 2
}

impl Table {
    /// Keys in it, those of buckets that fell too.
    pub fn len(&self) -> usize {
        self.held.iter().map(Held::keys).sum()
    }

    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.ids.memory() + self.texts.memory() + self.held.capacity() * size_of::<Held>()
    }

    pub fn held(&self, mark: Mark) -> Held {
        self.held.get(usize::from(mark.get())).copied().unwrap_or_default()
    }

    /// Asks memory for the place of a key of 16 bytes, without waiting: see [`Ids::touch`].
    #[inline]
    pub fn touch(&self, hash: u64) -> u8 {
        self.ids.touch(spread(hash))
    }

    #[inline]
    pub fn get(&self, hash: u64, key: &Key<'_>) -> Option<Mark> {
        match key {
            Key::Uuid(id) => self.ids.get(spread(hash), *id),
            Key::Bytes(bytes) => self.texts.get(spread(hash), bytes),
        }
    }

    /// By how much `memory` would grow, about, if this key came; nearly always zero.
    #[inline]
    pub fn growth(&self, key: &Key<'_>, fallen: &Marks) -> usize {
        match key {
            Key::Uuid(_) if self.ids.has_room() => 0,
            Key::Uuid(_) => Ids::memory_of(self.wider(fallen)).saturating_sub(self.ids.memory()),
            Key::Bytes(bytes) => self.texts.growth(bytes),
        }
    }

    /// How many slots there will be once there is no room for another id.
    fn wider(&self, fallen: &Marks) -> usize {
        wide(self.live_ids(fallen) + 1)
    }

    /// Takes a key in, or gives it another mark; returns the one that it had.
    pub fn put(&mut self, hash: u64, key: &Key<'_>, mark: Mark, fallen: &Marks, hasher: &Hasher) -> Option<Mark> {
        let before = match key {
            Key::Uuid(id) => {
                if !self.ids.has_room() {
                    self.rebuild_ids(self.wider(fallen), fallen, hasher);
                }
                self.ids.put(spread(hash), *id, mark)
            }
            Key::Bytes(bytes) => {
                if !self.texts.has_room() && !fallen.is_empty() {
                    self.rebuild_texts(fallen, hasher);
                }
                self.texts.put(spread(hash), bytes, mark, |bytes| spread(hasher.hash_one(bytes)))
            }
        };
        self.held_mut(mark).add(key);
        if let Some(before) = before {
            self.held_mut(before).subtract(key);
        }
        before
    }

    /// Forgets the keys of these buckets. Whether there were any.
    pub fn forget(&mut self, fallen: &Marks, hasher: &Hasher) -> bool {
        let (mut ids, mut texts) = (0, 0);
        for (_, held) in self.held_by_mark().filter(|(mark, _)| fallen.contains(*mark)) {
            ids += held.ids;
            texts += held.texts;
        }
        if ids > 0 {
            let live = self.live_ids(fallen);
            self.rebuild_ids(self.ids.slots().clamp(narrow(live), wide(live)), fallen, hasher);
        }
        if texts > 0 {
            self.rebuild_texts(fallen, hasher);
        }
        ids + texts > 0
    }

    /// Forgets the keys of a bucket, and gives as much memory free as it can.
    pub fn forget_for_memory(&mut self, mark: Mark, fallen: &Marks, hasher: &Hasher) {
        let mut gone = *fallen;
        gone.insert(mark);
        self.rebuild_ids(narrow(self.live_ids(&gone)), &gone, hasher);
        self.rebuild_texts(&gone, hasher);
    }

    pub fn for_each(&self, hasher: &Hasher, mut see: impl FnMut(u64, Key<'_>, Mark)) {
        for (id, mark) in self.ids.iter() {
            see(hasher.hash_one(id), Key::Uuid(id), mark);
        }
        for (bytes, mark) in self.texts.iter() {
            see(hasher.hash_one(bytes), Key::Bytes(bytes), mark);
        }
    }

    /// The ids of a bucket with their hashes, in the order of these.
    pub fn sorted_ids(&self, mark: Mark, hasher: &Hasher) -> Vec<(u64, Key<'_>)> {
        let of_bucket = self.ids.iter().filter(|(_, other)| *other == mark);
        let mut ids: Vec<_> = of_bucket.map(|(id, _)| (hasher.hash_one(id), Key::Uuid(id))).collect();
        ids.sort_unstable_by_key(|(hash, _)| *hash);
        ids
    }

    /// Its other keys with their hashes, in the order of these.
    pub fn sorted_texts(&self, mark: Mark, hasher: &Hasher) -> Vec<(u64, Key<'_>)> {
        let of_bucket = self.texts.iter().filter(|(_, other)| *other == mark);
        let mut texts: Vec<_> = of_bucket.map(|(bytes, _)| (hasher.hash_one(bytes), Key::Bytes(bytes))).collect();
        texts.sort_unstable_by_key(|(hash, _)| *hash);
        texts
    }

    fn held_mut(&mut self, mark: Mark) -> &mut Held {
        let mark = usize::from(mark.get());
        if self.held.len() <= mark {
            self.held.resize(mark + 1, Held::default());
        }
        &mut self.held[mark]
    }

    fn held_by_mark(&self) -> impl Iterator<Item = (Mark, &Held)> {
        self.held.iter().enumerate().filter_map(|(mark, held)| Some((Mark::new(mark as u8)?, held)))
    }

    fn live_ids(&self, fallen: &Marks) -> usize {
        self.held_by_mark().filter(|(mark, _)| !fallen.contains(*mark)).map(|(_, held)| held.ids).sum()
    }

    fn rebuild_ids(&mut self, slots: usize, without: &Marks, hasher: &Hasher) {
        self.ids.rebuild(slots, |mark| !without.contains(mark), |id| spread(hasher.hash_one(id)));
        self.held_of(without).for_each(|held| held.ids = 0);
    }

    fn rebuild_texts(&mut self, without: &Marks, hasher: &Hasher) {
        self.texts.rebuild(|mark| !without.contains(mark), |bytes| spread(hasher.hash_one(bytes)));
        self.held_of(without).for_each(|held| (held.texts, held.bytes) = (0, 0));
    }

    fn held_of(&mut self, marks: &Marks) -> impl Iterator<Item = &mut Held> {
        let of = |mark: usize| Mark::new(mark as u8).is_some_and(|mark| marks.contains(mark));
        self.held.iter_mut().enumerate().filter(move |(mark, _)| of(*mark)).map(|(_, held)| held)
    }
}

/// The upper bits of a hash tell the table: those that tell the place within it are others.
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_takes_what_was_said_before_it_came() {
        let (hasher, nothing) = (Hasher::default(), Marks::default());
        let mut table = Table::default();
        for id in 0..10_000 {
            let key = Key::Uuid(id);
            let expected = table.memory() + table.growth(&key, &nothing);
            table.put(hash(&hasher, &key), &key, Mark::MIN, &nothing, &hasher);
            // The first one of a bucket brings its place with it.
            assert!(table.memory() == expected || id == 0, "id {id}: {} for {expected}", table.memory());
        }
    }
}
