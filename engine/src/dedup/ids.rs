//! 16-byte ids in one array, each with the mark of its time bucket, that can be asked for many of them at once.

use super::marks::Mark;

/// Ids at the place that their hash tells, or at the next free one behind it (linear probing). A look-up mostly takes one or two
/// lines of the processor's cache, and where these are can be told before they are needed: see [`Ids::touch`].
#[derive(Default)]
pub struct Ids {
    slots: Vec<Slot>,
    len: usize,
}

/// An id, lowest byte first, and its mark; where that is zero, the slot is free. Side by side, so that a look-up that finds the id
/// has the mark too.
type Slot = [u8; ID + 1];
const ID: usize = size_of::<u128>();

/// Of four slots no more than three are taken, since the ways to a free one grow fast beyond.
const FULL: (usize, usize) = (3, 4);
const SMALLEST: usize = 8;
/// Slots that a line of the processor's cache holds whole.
const LINE: usize = 3;

impl Ids {
    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Asks memory for the place of an id and what lies behind it, without waiting. The result means nothing: it is there so that
    /// the loads are not left out.
    #[inline]
    pub fn touch(&self, hash: u64) -> u8 {
        let place = place(hash, self.slots.len());
        let mark = |place: usize| self.slots.get(place).map_or(0, |slot| slot[ID]);
        mark(place) ^ mark(place + LINE)
    }

    #[inline]
    pub fn get(&self, hash: u64, id: u128) -> Option<Mark> {
        self.find(hash, id).ok().and_then(|at| Mark::new(self.slots[at][ID]))
    }

    /// Takes an id in, or gives it another mark; returns the one that it had. Only while there is room.
    pub fn put(&mut self, hash: u64, id: u128, mark: Mark) -> Option<Mark> {
        let at = match self.find(hash, id) {
            Ok(at) => at,
            Err(free) => {
                self.len += 1;
                free
            }
        };
        let before = Mark::new(self.slots[at][ID]);
        self.slots[at] = slot(id, mark);
        before
    }

    pub fn iter(&self) -> impl Iterator<Item = (u128, Mark)> {
        self.slots.iter().filter_map(|slot| Some((id(slot), Mark::new(slot[ID])?)))
    }

    pub fn has_room(&self) -> bool {
        (self.len + 1) * FULL.1 <= self.slots.len() * FULL.0
    }

    /// The bytes that it takes with so many slots.
    pub fn memory_of(slots: usize) -> usize {
        slots.max(SMALLEST) * size_of::<Slot>()
    }

    /// Moves the ids whose marks are kept into so many slots, or more if they need them.
    pub fn rebuild(&mut self, slots: usize, keep: impl Fn(Mark) -> bool, hash: impl Fn(u128) -> u64) {
        let kept = self.iter().filter(|(_, mark)| keep(*mark)).count();
        let slots = slots.max((kept + 1) * FULL.1 / FULL.0 + 1).max(SMALLEST);
        let before = std::mem::replace(self, Ids { slots: vec![[0; ID + 1]; slots], len: 0 });
        // Places are in the order of the hashes whatever the number of slots: both arrays are gone through from one end to the
        // other.
        for (id, mark) in before.iter().filter(|(_, mark)| keep(*mark)) {
            let at = self.first(hash(id), |slot| slot[ID] == 0);
            self.slots[at] = slot(id, mark);
        }
        self.len = kept;
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Where an id is, or where it would be.
    #[inline]
    fn find(&self, hash: u64, wanted: u128) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let at = self.first(hash, |slot| slot[ID] == 0 || id(slot) == wanted);
        if self.slots[at][ID] == 0 { Err(at) } else { Ok(at) }
    }

    /// The first slot from a hash's place on that is such a one: there always is one that is free.
    #[inline]
    fn first(&self, hash: u64, is: impl Fn(&Slot) -> bool) -> usize {
        let mut at = place(hash, self.slots.len());
        while !is(&self.slots[at]) {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        at
    }
}

#[inline]
fn slot(id: u128, mark: Mark) -> Slot {
    let mut slot = [mark.get(); ID + 1];
    slot[..ID].copy_from_slice(&id.to_le_bytes());
    slot
}

#[inline]
fn id(slot: &Slot) -> u128 {
    slot.first_chunk().map_or(0, |id| u128::from_le_bytes(*id))
}

/// The upper bits of a hash as a place among so many.
#[inline]
fn place(hash: u64, places: usize) -> usize {
    ((u128::from(hash) * places as u128) >> u64::BITS) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn mark(random: &mut StdRng) -> Mark {
        Mark::new(random.random_range(1..5)).unwrap()
    }

    #[test]
    fn a_set_holds_what_came_and_nothing_else_however_the_hashes_fall() {
        let mut random = StdRng::seed_from_u64(1);
        let kept = |mark: Mark| mark.get() != 3;
        for hash in
            [|id: u128| id as u64, |id: u128| (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), |_| 7, |_| u64::MAX]
        {
            let (mut ids, mut expected) = (Ids::default(), HashMap::new());
            assert!(ids.get(hash(0), 0).is_none() && ids.get(hash(1), 1).is_none());
            for turn in 0..3000 {
                let id = random.random_range(0..3000);
                if !ids.has_room() || turn % 500 == 499 {
                    ids.rebuild(random.random_range(0..6000), kept, hash);
                    expected.retain(|_, mark| kept(*mark));
                }
                if !ids.has_room() {
                    ids.rebuild(2 * ids.slots(), kept, hash);
                }
                let mark = mark(&mut random);
                assert_eq!(ids.put(hash(id), id, mark), expected.insert(id, mark));
            }
            assert_eq!(ids.iter().collect::<HashMap<_, _>>(), expected);
            assert!((0..3000).all(|id| ids.get(hash(id), id) == expected.get(&id).copied()));
        }
    }
}
