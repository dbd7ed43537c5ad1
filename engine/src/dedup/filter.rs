//! Says of most keys that they are not among those on disk, without a look at the disk.

/// A Bloom filter in blocks of one cache line: a question costs one access to memory. May say yes for a key that it was
/// not given (some 0.7 % of them), never no for one that it was.
pub struct Filter {
    blocks: Box<[[u64; 8]]>,
}

const BITS_PER_KEY: usize = 12;
const BITS_PER_BLOCK: usize = 512;
/// Bits that a key sets, each chosen by nine bits of its hash.
const PROBES: u32 = 6;

impl Filter {
    pub fn with_capacity(keys: usize) -> Self {
        let blocks = (keys * BITS_PER_KEY).div_ceil(BITS_PER_BLOCK).max(1);
        Filter { blocks: vec![[0; 8]; blocks].into_boxed_slice() }
    }

    pub fn insert(&mut self, hash: u64) {
        let (block, probes) = self.place(hash);
        for bit in bits(probes) {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    pub fn may_contain(&self, hash: u64) -> bool {
        let (block, probes) = self.place(hash);
        bits(probes).all(|bit| self.blocks[block][bit / 64] & 1 << (bit % 64) != 0)
    }

    pub fn bytes(&self) -> usize {
        self.blocks.len() * size_of::<[u64; 8]>()
    }

    /// The keys of a filter often share the upper bits of their hashes: both parts are made of all bits, mixed twice.
    fn place(&self, hash: u64) -> (usize, u64) {
        let once = fold(hash, 0x9e37_79b9_7f4a_7c15);
        let twice = fold(once, 0xd6e8_feb8_6659_fd93);
        (((once as u128 * self.blocks.len() as u128) >> 64) as usize, twice)
    }
}

fn fold(value: u64, by: u64) -> u64 {
    let product = value as u128 * by as u128;
    (product >> 64) as u64 ^ product as u64
}

fn bits(probes: u64) -> impl Iterator<Item = usize> {
    (0..PROBES).map(move |i| (probes >> (9 * i)) as usize % BITS_PER_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn every_key_is_found_and_few_others_are() {
        let hasher = hashbrown::DefaultHashBuilder::default();
        // Running numbers, and numbers that differ in their upper half only: ids are not always random.
        for id in [|i: u128| i, |i: u128| i << 64] {
            let mut filter = Filter::with_capacity(20_000);
            (0..20_000).for_each(|i| filter.insert(hasher.hash_one(id(i))));
            assert!((0..20_000).all(|i| filter.may_contain(hasher.hash_one(id(i)))));
            let wrong = (20_000..60_000).filter(|i| filter.may_contain(hasher.hash_one(id(*i)))).count();
            assert!(wrong < 600, "{wrong} of 40000 are said to be there");
        }
    }
}
