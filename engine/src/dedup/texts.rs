//! Keys that are no ids: byte strings, each with the mark of its time bucket, without an allocation of its own for any of them.

use hashbrown::HashTable;

use super::marks::Mark;

#[derive(Default)]
pub struct Texts {
    entries: HashTable<Entry>,
    bytes: Packed,
}

/// Where a key begins in the bytes, and its mark, in the upper byte.
#[derive(Clone, Copy)]
struct Entry(u64);

const MARK: u32 = u64::BITS - u8::BITS;
/// What the smallest table takes.
const SMALLEST: usize = 128;

impl Entry {
    fn new(at: usize, mark: Mark) -> Self {
        Entry(at as u64 | u64::from(mark.get()) << MARK)
    }

    fn at(self) -> usize {
        (self.0 & ((1 << MARK) - 1)) as usize
    }

    fn mark(self) -> Option<Mark> {
        Mark::new((self.0 >> MARK) as u8)
    }
}

impl Texts {
    pub fn memory(&self) -> usize {
        self.entries.allocation_size() + self.bytes.memory()
    }

    pub fn get(&self, hash: u64, key: &[u8]) -> Option<Mark> {
        self.entries.find(hash, |entry| self.bytes.at(entry.at()) == key)?.mark()
    }

    /// Takes a key in, or gives it another mark; returns the one that it had.
    pub fn put(&mut self, hash: u64, key: &[u8], mark: Mark, hash_of: impl Fn(&[u8]) -> u64) -> Option<Mark> {
        let Texts { entries, bytes } = self;
        if let Some(entry) = entries.find_mut(hash, |entry| bytes.at(entry.at()) == key) {
            let before = entry.mark();
            *entry = Entry::new(entry.at(), mark);
            return before;
        }
        let entry = Entry::new(bytes.push(key), mark);
        entries.insert_unique(hash, entry, |entry| hash_of(bytes.at(entry.at())));
        None
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Mark)> {
        self.entries.iter().filter_map(|entry| Some((self.bytes.at(entry.at()), entry.mark()?)))
    }

    /// Whether another key finds a place without more memory, but for its bytes.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.entries.capacity()
    }

    /// By how much `memory` would grow, about, if this key came; nearly always zero.
    pub fn growth(&self, key: &[u8]) -> usize {
        let entries = if self.has_room() { 0 } else { self.entries.allocation_size().max(SMALLEST) };
        entries + self.bytes.growth(key)
    }

    /// Keeps the keys with these marks only, and no bytes of others.
    pub fn rebuild(&mut self, keep: impl Fn(Mark) -> bool, hash_of: impl Fn(&[u8]) -> u64) {
        let kept = || self.iter().filter(|(_, mark)| keep(*mark));
        let mut rebuilt = Texts {
            entries: HashTable::with_capacity(kept().count()),
            bytes: Packed(Vec::with_capacity(kept().map(|(key, _)| Packed::length(key)).sum())),
        };
        for (key, mark) in kept() {
            rebuilt.put(hash_of(key), key, mark, &hash_of);
        }
        *self = rebuilt;
    }
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

    /// The bytes that a string takes here.
    pub fn length(bytes: &[u8]) -> usize {
        size_of::<u32>() + bytes.len()
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
        let needed = self.0.len() + Packed::length(bytes);
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
