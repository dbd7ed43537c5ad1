//! Keys in memory, whole, and without an allocation of its own for any of them.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::ids::Ids;
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

/// A set of keys.
#[derive(Default)]
pub struct Table {
    ids: Ids,
    /// Where each begins in `bytes`.
    texts: HashTable<usize>,
    bytes: Packed,
}

impl Table {
    pub fn len(&self) -> usize {
        self.ids.len() + self.texts.len()
    }

    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.ids.memory() + self.texts.allocation_size() + self.bytes.memory()
    }

    /// Asks memory for the place of a key of 16 bytes, without waiting: see [`Ids::touch`].
    #[inline]
    pub fn touch(&self, hash: u64) -> u64 {
        self.ids.touch(spread(hash))
    }

    #[inline]
    pub fn contains(&self, hash: u64, key: &Key<'_>) -> bool {
        match key {
            Key::Uuid(id) => self.ids.contains(spread(hash), *id),
            Key::Bytes(bytes) => self.texts.find(spread(hash), |at| self.bytes.at(*at) == *bytes).is_some(),
        }
    }

    /// By how much `memory` would grow, about, if this key came; nearly always zero.
    pub fn growth(&self, key: &Key<'_>) -> usize {
        match key {
            Key::Uuid(_) => self.ids.growth(),
            Key::Bytes(bytes) => {
                let table = if self.texts.len() < self.texts.capacity() {
                    0
                } else {
                    self.texts.allocation_size().max(SMALLEST)
                };
                table + self.bytes.growth(bytes)
            }
        }
    }

    /// Takes a key in; one that is there stays there once.
    pub fn insert(&mut self, hash: u64, key: &Key<'_>, hasher: &Hasher) {
        match key {
            Key::Uuid(id) => self.ids.insert(spread(hash), *id, |id| spread(hasher.hash_one(id))),
            Key::Bytes(_) if self.contains(hash, key) => {}
            Key::Bytes(bytes) => {
                let at = self.bytes.push(bytes);
                let packed = &self.bytes;
                self.texts.insert_unique(spread(hash), at, |at| spread(hasher.hash_one(packed.at(*at))));
            }
        }
    }

    pub fn for_each(&self, hasher: &Hasher, mut see: impl FnMut(u64, Key<'_>)) {
        for id in self.ids.iter() {
            see(hasher.hash_one(id), Key::Uuid(id));
        }
        for at in &self.texts {
            let bytes = self.bytes.at(*at);
            see(hasher.hash_one(bytes), Key::Bytes(bytes));
        }
    }

    /// The ids with their hashes, in the order of these.
    pub fn sorted_ids(&self, hasher: &Hasher) -> Vec<(u64, Key<'_>)> {
        let mut ids: Vec<_> = self.ids.iter().map(|id| (hasher.hash_one(id), Key::Uuid(id))).collect();
        ids.sort_unstable_by_key(|(hash, _)| *hash);
        ids
    }

    /// The other keys with their hashes, in the order of these.
    pub fn sorted_texts(&self, hasher: &Hasher) -> Vec<(u64, Key<'_>)> {
        let with_hash = |bytes| (hasher.hash_one(bytes), Key::Bytes(bytes));
        let mut texts: Vec<_> = self.texts.iter().map(|at| with_hash(self.bytes.at(*at))).collect();
        texts.sort_unstable_by_key(|(hash, _)| *hash);
        texts
    }
}

/// What the smallest table of texts takes.
const SMALLEST: usize = 128;

/// The upper bits of a hash tell the table: those that tell the slot and the tag within it are others.
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

/// Byte strings one after the other, each behind its length.
#[derive(Default)]
pub struct Packed(Vec<u8>);

impl Packed {
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let at = self.0.len();
        self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        at
    }

    pub fn at(&self, at: usize) -> &[u8] {
        first(&self.0[at..]).map_or(&[], |(bytes, _)| bytes)
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        unpack(&self.0)
    }

    pub fn memory(&self) -> usize {
        self.0.capacity()
    }

    pub fn growth(&self, bytes: &[u8]) -> usize {
        let needed = self.0.len() + size_of::<u32>() + bytes.len();
        if needed <= self.0.capacity() { 0 } else { self.0.capacity().max(needed - self.0.capacity()) }
    }
}

/// The byte strings that are packed in `bytes`.
pub fn unpack(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (bytes, behind) = first(rest)?;
        rest = behind;
        Some(bytes)
    })
}

fn first(packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = packed.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}
