//! What stands beside a key in memory: which of the time buckets of its set it belongs to, in one byte.

use std::num::NonZeroU8;

/// A time bucket of a set.
pub type Mark = NonZeroU8;

/// Some of the marks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Marks([u64; 4]);

impl Marks {
    #[inline]
    pub fn contains(&self, mark: Mark) -> bool {
        self.0[usize::from(mark.get()) / 64] >> (mark.get() % 64) & 1 == 1
    }

    pub fn insert(&mut self, mark: Mark) {
        self.0[usize::from(mark.get()) / 64] |= 1 << (mark.get() % 64);
    }

    pub fn remove(&mut self, mark: Mark) {
        self.0[usize::from(mark.get()) / 64] &= !(1 << (mark.get() % 64));
    }

    pub fn is_empty(&self) -> bool {
        *self == Marks::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_there_from_when_it_is_put_in_until_it_is_taken_out() {
        let all = || (1..=u8::MAX).filter_map(Mark::new);
        let mut marks = Marks::default();
        for mark in all() {
            assert!(!marks.contains(mark));
            marks.insert(mark);
            assert_eq!(all().filter(|other| marks.contains(*other)).count(), usize::from(mark.get()));
        }
        all().for_each(|mark| marks.remove(mark));
        assert!(marks.is_empty());
    }
}
