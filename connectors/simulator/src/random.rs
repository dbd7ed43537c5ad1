//! Randomness that is a function of a number: what is drawn for one event does not depend on those before it.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// A short stream of draws. SplitMix64; the first draw may be 128 bits wide, so that ids do not meet.
pub struct Random {
    wide: u128,
    state: u64,
}

impl Random {
    /// The stream of one `number` in one `domain`.
    pub fn of(seed: u64, domain: u64, number: u64) -> Self {
        let seed = xxh3_64_with_seed(&domain.to_le_bytes(), seed);
        let wide = xxh3_128_with_seed(&number.to_le_bytes(), seed);
        Random { wide, state: (wide >> 64) as u64 ^ wide as u64 }
    }

    /// 128 bits; the same at every call.
    pub fn wide(&self) -> u128 {
        self.wide
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and `bound`, without it.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// What .NET's `Random.Next()` yields: an integer from 0 to below 2³¹ − 1.
    pub fn positive(&mut self) -> u32 {
        self.below(i32::MAX as u64) as u32
    }
}
