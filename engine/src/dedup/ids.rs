//! A set of 16-byte ids in one array, that can be asked for many of them at once.

/// Ids at the place that their hash tells, or at the next free one behind it (linear probing). A look-up mostly takes one line of
/// the processor's cache, and where that is can be told before it is needed: see [`Ids::touch`].
#[derive(Default)]
pub struct Ids {
    /// Zero: free.
    slots: Vec<u128>,
    len: usize,
    /// The id that looks like a free slot.
    zero: bool,
}

/// Of four slots no more than three are taken, since the ways to a free one grow fast beyond; half as many are added at a time, so
/// that an id takes 21 to 32 bytes where there are many.
const FULL: (usize, usize) = (3, 4);
const SMALLEST: usize = 8;
/// Ids in a line of the processor's cache.
const LINE: usize = 4;

impl Ids {
    pub fn len(&self) -> usize {
        self.len + usize::from(self.zero)
    }

    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// By how much `memory` grows when the next id comes, unless that is zero.
    pub fn growth(&self) -> usize {
        if self.has_room() { 0 } else { self.larger() * size_of::<u128>() - self.memory() }
    }

    /// Asks memory for the place of an id and what lies behind it, without waiting. The result means nothing: it is there so that
    /// the loads are not left out.
    #[inline]
    pub fn touch(&self, hash: u64) -> u64 {
        let place = place(hash, self.slots.len());
        let at = |place: usize| self.slots.get(place).map_or(0, |id| *id as u64);
        at(place) ^ at(place + LINE)
    }

    #[inline]
    pub fn contains(&self, hash: u64, id: u128) -> bool {
        match self.find(hash, id) {
            Ok(_) => true,
            Err(_) => id == 0 && self.zero,
        }
    }

    /// Takes an id in; one that is there stays there once.
    pub fn insert(&mut self, hash: u64, id: u128, rehash: impl Fn(u128) -> u64) {
        if id == 0 {
            self.zero = true;
            return;
        }
        if !self.has_room() {
            self.grow(rehash);
        }
        if let Err(free) = self.find(hash, id) {
            self.slots[free] = id;
            self.len += 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u128> {
        self.zero.then_some(0).into_iter().chain(self.slots.iter().copied().filter(|id| *id != 0))
    }

    /// Where an id is, or where it would be.
    #[inline]
    fn find(&self, hash: u64, id: u128) -> Result<usize, usize> {
        let begin = place(hash, self.slots.len());
        let stops = |there: &u128| *there == id || *there == 0;
        let (before, behind) = self.slots.split_at(begin);
        let at = match behind.iter().position(stops) {
            Some(at) => begin + at,
            None => before.iter().position(stops).ok_or(0usize)?,
        };
        if self.slots[at] == 0 { Err(at) } else { Ok(at) }
    }

    fn has_room(&self) -> bool {
        (self.len + 1) * FULL.1 <= self.slots.len() * FULL.0
    }

    fn larger(&self) -> usize {
        (self.slots.len() + self.slots.len() / 2).max(SMALLEST)
    }

    fn grow(&mut self, rehash: impl Fn(u128) -> u64) {
        let larger = vec![0; self.larger()];
        for id in std::mem::replace(&mut self.slots, larger).into_iter().filter(|id| *id != 0) {
            if let Err(free) = self.find(rehash(id), id) {
                self.slots[free] = id;
            }
        }
    }
}

/// The upper bits of a hash as a place among so many.
#[inline]
fn place(hash: u64, places: usize) -> usize {
    ((u128::from(hash) * places as u128) >> u64::BITS) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn a_set_holds_what_came_and_nothing_else_however_the_hashes_fall() {
        let mut random = StdRng::seed_from_u64(1);
        for hash in
            [|id: u128| id as u64, |id: u128| (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), |_| 7, |_| u64::MAX]
        {
            let (mut ids, mut expected) = (Ids::default(), HashSet::new());
            assert!(!ids.contains(hash(0), 0) && !ids.contains(hash(1), 1));
            for _ in 0..2000 {
                let id = random.random_range(0..3000);
                let growth = ids.growth();
                let before = ids.memory();
                ids.insert(hash(id), id, hash);
                assert!(id == 0 || ids.memory() == before + growth);
                expected.insert(id);
            }
            assert_eq!(ids.len(), expected.len());
            assert_eq!(ids.iter().collect::<HashSet<_>>(), expected);
            assert!((0..3000).all(|id| ids.contains(hash(id), id) == expected.contains(&id)));
        }
    }

    #[test]
    fn an_id_takes_no_more_than_32_bytes_once_there_are_some() {
        let mut ids = Ids::default();
        for id in 1..100_000u128 {
            ids.insert((id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), id, |id| {
                (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            assert!(id < 100 || ids.memory() as u128 <= 33 * id);
        }
    }
}
