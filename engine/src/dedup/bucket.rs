//! The keys of one time bucket: in memory, and on disk where memory was short.
//!
//! A bucket is many small tables, told by the upper bits of the hash. So none of its steps is long, however many keys it
//! has: a table that grows moves a 64th of them, and so does one that goes to disk.

use std::sync::Arc;

use super::spill::{Section, SpillError, SpillFile};
use super::stored::NewKeys;
use super::table::{Hasher, Table};
use crate::key::Key;

/// A power of two.
const SHARDS: usize = 64;
/// Up to here a bucket is one table: many are small, where there are many partitions.
const UNDIVIDED: usize = 4096;

pub struct Bucket {
    /// One, or [`SHARDS`].
    shards: Vec<Shard>,
    /// Not in a snapshot yet.
    new: NewKeys,
    /// Keys on disk, and the memory that it takes to know where.
    spilled: usize,
    spilled_memory: usize,
}

#[derive(Default, Clone)]
struct Sections {
    ids: Vec<Arc<Section>>,
    texts: Vec<Arc<Section>>,
}

#[derive(Default)]
struct Shard {
    table: Table,
    sections: Sections,
}

impl Default for Bucket {
    fn default() -> Self {
        Bucket { shards: vec![Shard::default()], new: NewKeys::default(), spilled: 0, spilled_memory: 0 }
    }
}

impl Bucket {
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.table.len()).sum::<usize>() + self.spilled
    }

    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        let tables: usize = self.shards.iter().map(|s| s.table.memory()).sum();
        tables + size_of_val(&*self.shards) + self.new.memory() + self.spilled_memory
    }

    /// Asks memory for the place of a key, without waiting: see [`Table::touch`].
    #[inline]
    pub fn touch(&self, hash: u64) -> u64 {
        self.shards[self.shard(hash)].table.touch(hash)
    }

    #[inline]
    pub fn in_memory(&self, hash: u64, key: &Key<'_>) -> bool {
        self.shards[self.shard(hash)].table.contains(hash, key)
    }

    pub fn on_disk(&self, hash: u64, key: &Key<'_>, space: &mut Vec<u8>) -> Result<bool, SpillError> {
        if self.spilled == 0 {
            return Ok(false);
        }
        let sections = &self.shards[self.shard(hash)].sections;
        let sections = if let Key::Uuid(_) = key { &sections.ids } else { &sections.texts };
        for section in sections {
            if section.contains(hash, key, space)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// By how much `memory` would grow, about, if this key came; nearly always zero.
    pub fn growth(&self, hash: u64, key: &Key<'_>, new: bool) -> usize {
        let of_new = if new { self.new.growth(key) } else { 0 };
        of_new + self.shards[self.shard(hash)].table.growth(key)
    }

    pub fn insert(&mut self, hash: u64, key: &Key<'_>, new: bool, hasher: &Hasher) {
        if self.shards.len() == 1 && self.shards[0].table.len() == UNDIVIDED {
            self.divide(hasher);
        }
        let shard = self.shard(hash);
        self.shards[shard].table.insert(hash, key, hasher);
        if new {
            self.new.push(key);
        }
    }

    pub fn take_new(&mut self) -> NewKeys {
        std::mem::take(&mut self.new)
    }

    /// What each shard has in memory that could go to disk, in bytes.
    pub fn shard_memory(&self) -> impl Iterator<Item = usize> {
        self.shards.iter().map(|s| s.table.memory())
    }

    /// Moves the keys of a shard to disk.
    pub fn spill(&mut self, shard: usize, file: &Arc<SpillFile>, hasher: &Hasher) -> Result<(), SpillError> {
        let Shard { table, sections } = &mut self.shards[shard];
        for (keys, sections) in
            [(table.sorted_ids(hasher), &mut sections.ids), (table.sorted_texts(hasher), &mut sections.texts)]
        {
            if !keys.is_empty() {
                let section = Section::write(file.clone(), &keys)?;
                self.spilled += section.len();
                self.spilled_memory += section.memory();
                sections.push(Arc::new(section));
            }
        }
        *table = Table::default();
        Ok(())
    }

    #[inline]
    fn shard(&self, hash: u64) -> usize {
        if self.shards.len() == 1 { 0 } else { (hash >> (u64::BITS - SHARDS.ilog2())) as usize }
    }

    fn divide(&mut self, hasher: &Hasher) {
        let Some(one) = self.shards.pop() else { return };
        self.shards = (0..SHARDS).map(|_| Shard { table: Table::default(), sections: one.sections.clone() }).collect();
        one.table.for_each(hasher, |hash, key| {
            let shard = self.shard(hash);
            self.shards[shard].table.insert(hash, &key, hasher);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::spill::Spill;
    use crate::dedup::table::hash;

    #[test]
    fn a_bucket_that_went_to_disk_while_it_was_small_knows_its_keys_when_it_is_large() {
        let folder = tempfile::tempdir().unwrap();
        let file = Spill::new(folder.path().to_path_buf()).file(0).unwrap();
        let hasher = Hasher::default();
        let mut bucket = Bucket::default();
        let known = |bucket: &Bucket, id| {
            let (key, hash) = (Key::Uuid(id), hash(&hasher, &Key::Uuid(id)));
            bucket.in_memory(hash, &key) || bucket.on_disk(hash, &key, &mut vec![]).unwrap()
        };
        for id in 0..10_000 {
            bucket.insert(hash(&hasher, &Key::Uuid(id)), &Key::Uuid(id), true, &hasher);
            if id == 2000 {
                bucket.spill(0, &file, &hasher).unwrap();
            }
        }
        assert_eq!(bucket.shards.len(), SHARDS);
        assert_eq!(bucket.len(), 10_000);
        assert!((0..10_000).all(|id| known(&bucket, id)));
        assert!((10_000..20_000).all(|id| !known(&bucket, id)));
    }
}
