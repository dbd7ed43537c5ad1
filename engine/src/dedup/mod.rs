//! Deduplication: lets the first row of each key through, within a window of the log's clock.
//!
//! A worker's share is a [`window`] per split, or one; a window is a bucket per stretch of time; the keys of its buckets
//! are a [`set`]: tables in memory and, past the memory budget, [`spill`] sections on disk.

mod filter;
mod ids;
mod marks;
mod set;
mod spill;
mod stored;
mod table;
mod texts;
mod window;

use std::cmp::Reverse;
use std::ops::Range;
use std::path::PathBuf;

use arrow::array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;

use crate::clock::{Clocks, Hand, SplitClock};
use crate::key::{Key, Keys};
use crate::plan::{DedupClock, Deduplicate, LatePolicy, Scope};
use crate::transform::partition;
use set::{Set, Share};
use spill::Spill;
pub use spill::SpillError;
pub use stored::DedupSnapshot;
use stored::{NewOfBucket, stored_keys};
use table::{Hasher, hash};
pub use window::last_moment;
use window::{Window, bucket_width};

/// One worker's share of a deduplication: the splits that it reads (scope partition) or the buckets that it owns.
pub struct Dedup {
    spec: Deduplicate,
    /// Bytes of memory that this share may take.
    memory: usize,
    /// By split, or a single one at index 0 where the scope is global.
    windows: Vec<Option<Window>>,
    clocks: Clocks,
    groups: Vec<Option<String>>,
    hasher: Hasher,
    spill: Spill,
    /// For the bytes of one key, for one page from disk, and for the rows that are judged next.
    key_space: Vec<u8>,
    page_space: Vec<u8>,
    asked: Vec<Asked>,
}

/// What became of the rows of a batch.
#[derive(Debug, Default)]
pub struct Judged {
    pub passed: Option<RecordBatch>,
    /// Too old to be judged, by policy `dead-letter`.
    pub late: Option<RecordBatch>,
    pub copies: u64,
    pub unjudged: u64,
}

/// What a window says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    First,
    Copy,
    /// Older than the window: nobody can say.
    TooOld,
}

/// A row's key, whose places memory was asked for.
struct Asked {
    hash: u64,
    id: Option<u128>,
}

impl Asked {
    fn key<'a>(&self, keys: &Keys, row: usize, space: &'a mut Vec<u8>) -> Key<'a> {
        self.id.map_or_else(|| keys.get(row, space), Key::Uuid)
    }
}

/// How much a share holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    pub keys: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// Why rows cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum DedupError {
    #[error("rows cannot be moved: {0}")]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Spill(#[from] SpillError),
}

/// Rows that are looked up together. A look-up is mostly waiting for memory: so that they wait at the same time, the places of all
/// are asked for before the first is looked at. As many as the processor's nearest cache holds the places of.
const TOGETHER: usize = 64;
/// Where memory is short, at least this share of it is made free at once.
const FREED_AT_ONCE: usize = 32;
/// A table that takes less stays in memory: to know where its keys are on disk would cost nearly as much.
const SMALLEST_SPILLED: usize = 1024;
/// A table that takes less than this share of the memory goes to disk after all others: many small sections are slow.
const SMALL_TABLE: usize = 1024;

impl Dedup {
    /// `share`: for one of how many workers. Keys beyond its part of the memory go to unnamed files in `folder`.
    pub fn new(spec: Deduplicate, share: usize, folder: PathBuf) -> Self {
        Dedup {
            memory: spec.memory / share.max(1),
            spec,
            windows: vec![],
            clocks: Clocks::default(),
            groups: vec![],
            hasher: Hasher::default(),
            spill: Spill::new(folder),
            key_space: vec![],
            page_space: vec![],
            asked: Vec::with_capacity(TOGETHER),
        }
    }

    pub fn scope(&self) -> Scope {
        self.spec.scope
    }

    /// Makes a split known: it holds the window's clock back until it is heard of. A window that all splits share does
    /// not move yet: one that is known later may be behind.
    pub fn add_split(&mut self, split: usize, group: &str, clock: SplitClock) {
        self.clocks.add(split, clock);
        if self.groups.len() <= split {
            self.groups.resize(split + 1, None);
        }
        self.groups[split] = Some(group.to_string());
        let of_split = self.index(split);
        self.window(of_split);
        if self.spec.scope == Scope::Partition {
            self.move_clock(split);
        }
    }

    /// Goes on where the clock that all splits share was in an earlier snapshot: a split that was idle then holds the
    /// window back no more than it did. Before [`Dedup::all_known`].
    pub fn go_on_from(&mut self, clock: &SplitClock) {
        if self.spec.scope == Scope::Global {
            self.clocks.go_on_from(self.hand()(clock));
        }
    }

    /// All splits that the job begins with are known: their clocks count from here on.
    pub fn all_known(&mut self) {
        if self.spec.scope == Scope::Global {
            self.move_clock(0);
        }
    }

    pub fn set_clock(&mut self, split: usize, clock: SplitClock) {
        self.clocks.set(split, clock);
        self.move_clock(split);
    }

    /// Judges the rows of one split's batch, in order.
    pub fn judge(&mut self, split: usize, batch: &RecordBatch) -> Result<Judged, DedupError> {
        let keys = Keys::of(batch, &self.spec.keys)?;
        let times = batch.column(self.spec.time).as_primitive::<TimestampNanosecondType>();
        let late_passes = self.spec.late == LatePolicy::Keep;
        let index = self.index(split);
        // A row without a time is as old as the window allows: it is judged, and forgotten first.
        let oldest = self.window(index).oldest();
        let mut pass = BooleanBufferBuilder::new(keys.len());
        let mut late = BooleanBufferBuilder::new(keys.len());
        let (mut copies, mut unjudged) = (0, 0);
        let mut space = std::mem::take(&mut self.key_space);
        for begin in (0..keys.len()).step_by(TOGETHER) {
            let rows = begin..keys.len().min(begin + TOGETHER);
            self.ask(index, &keys, rows.clone(), &mut space);
            for row in rows {
                let time = if times.is_null(row) { oldest } else { times.value(row) };
                let asked = &self.asked[row - begin];
                let (hash, key) = (asked.hash, asked.key(&keys, row, &mut space));
                let verdict = self.verdict(index, hash, &key, time)?;
                pass.append(verdict == Verdict::First || (verdict == Verdict::TooOld && late_passes));
                late.append(verdict == Verdict::TooOld);
                copies += (verdict == Verdict::Copy) as u64;
                unjudged += (verdict == Verdict::TooOld) as u64;
            }
        }
        self.key_space = space;
        if copies == 0 && unjudged == 0 {
            return Ok(Judged { passed: Some(batch.clone()), ..Judged::default() });
        }
        let (passed, _) = partition(batch, &BooleanArray::from(pass.finish()))?;
        let late = match self.spec.late {
            LatePolicy::DeadLetter if unjudged > 0 => Some(partition(batch, &BooleanArray::from(late.finish()))?.0),
            _ => None,
        };
        Ok(Judged { passed: Some(passed).filter(|b| b.num_rows() > 0), late, copies, unjudged })
    }

    /// Asks memory for the places of the keys of some rows.
    fn ask(&mut self, index: usize, keys: &Keys, rows: Range<usize>, space: &mut Vec<u8>) {
        self.asked.clear();
        self.asked.extend(rows.map(|row| {
            let key = keys.get(row, space);
            let id = if let Key::Uuid(id) = key { Some(id) } else { None };
            Asked { hash: hash(&self.hasher, &key), id }
        }));
        if let Some(window) = &self.windows[index] {
            std::hint::black_box(self.asked.iter().fold(0, |touched, asked| touched ^ window.touch(asked.hash)));
        }
    }

    fn verdict(&mut self, index: usize, hash: u64, key: &Key<'_>, time: i64) -> Result<Verdict, SpillError> {
        let Some(window) = &self.windows[index] else { return Ok(Verdict::TooOld) };
        if window.is_too_old(time) {
            return Ok(Verdict::TooOld);
        }
        if window.in_memory(hash, key) || window.on_disk(hash, key, &mut self.page_space)? {
            return Ok(Verdict::Copy);
        }
        self.insert(index, window.number(time), hash, key, true)?;
        Ok(Verdict::First)
    }

    fn insert(&mut self, index: usize, bucket: i64, hash: u64, key: &Key<'_>, new: bool) -> Result<(), SpillError> {
        let window = self.window(index);
        let place = window.bucket(bucket);
        let growth = window.growth(place, hash, key, new);
        if growth > 0 {
            self.make_room(growth)?;
        }
        if let Some(window) = &mut self.windows[index] {
            window.insert(place, hash, key, new, &self.hasher);
        }
        Ok(())
    }

    /// Sends keys to disk, the oldest first, until memory can grow by so many bytes within the budget. What has to stay
    /// (filters, keys that no snapshot holds, small tables) may exceed it.
    fn make_room(&mut self, growth: usize) -> Result<(), SpillError> {
        if self.memory == usize::MAX {
            return Ok(());
        }
        if self.memory_bytes() + growth <= self.memory {
            return Ok(());
        }
        for window in self.windows.iter_mut().flatten() {
            window.clear_all(&self.hasher);
        }
        let mut memory = self.memory_bytes();
        if memory + growth <= self.memory {
            return Ok(());
        }
        let enough = self.memory.saturating_sub(growth.max(self.memory / FREED_AT_ONCE));
        for (index, place, share) in self.what_can_go() {
            if memory <= enough {
                break;
            }
            let Some(set) = self.windows[index].as_mut().and_then(|window| window.set(place)) else { continue };
            let before = set.memory();
            set.spill(&share, &self.spill.file(share.bucket)?, &self.hasher)?;
            memory -= before.saturating_sub(set.memory());
        }
        Ok(())
    }

    /// What is in memory, with its window and its set there, in the order in which it goes to disk: the oldest first, of these
    /// the largest, and what is small after all others.
    fn what_can_go(&self) -> Vec<(usize, usize, Share)> {
        let mut shares = vec![];
        for (index, window) in self.windows.iter().enumerate() {
            for (place, set) in window.iter().flat_map(Window::sets).enumerate() {
                let worth_it = set.shares().filter(|share| share.bytes >= SMALLEST_SPILLED);
                shares.extend(worth_it.map(|share| (index, place, share)));
            }
        }
        let small = |share: &Share| share.bytes < self.memory / SMALL_TABLE;
        shares.sort_by_key(|(_, _, share)| (small(share), share.bucket, Reverse(share.bytes)));
        shares
    }

    /// Takes what is new since the last call. Cheap: the sets themselves stay where they are.
    pub fn snapshot(&mut self) -> DedupSnapshot {
        let width = bucket_width(self.within());
        let mut snapshot = DedupSnapshot { new: vec![], floor: i64::MAX, width, clock: self.shared_clock() };
        for (index, window) in self.windows.iter_mut().enumerate() {
            let Some(window) = window else { continue };
            snapshot.floor = snapshot.floor.min(window.floor());
            let group = match self.spec.scope {
                Scope::Global => None,
                Scope::Partition => self.groups.get(index).cloned().flatten(),
            };
            let of_window = window.take_new();
            snapshot.new.extend(of_window.map(|(bucket, keys)| NewOfBucket { group: group.clone(), bucket, keys }));
        }
        snapshot
    }

    /// Takes in a part of an earlier snapshot: the keys for which `mine` says yes (scope global), or those of the
    /// splits that this worker knows (scope partition).
    ///
    /// `width`: how long its buckets are, where that is known. If the window was another one then, a key is kept as if it
    /// came at its bucket's end: rather too long than too short.
    pub fn restore(
        &mut self,
        part: &RecordBatch,
        width: Option<i64>,
        mine: impl Fn(&Key<'_>) -> bool,
    ) -> Result<(), DedupError> {
        let own = bucket_width(self.within());
        let bucket = |stored: i64| match width {
            Some(width) if width != own => last_moment(stored, width).div_euclid(own),
            _ => stored,
        };
        let mut waiting = Vec::with_capacity(TOGETHER);
        for stored in stored_keys(part) {
            let index = match self.spec.scope {
                Scope::Global => mine(&stored.key).then_some(0),
                Scope::Partition => {
                    stored.group.and_then(|group| self.groups.iter().position(|g| g.as_deref() == Some(group)))
                }
            };
            let Some(index) = index else { continue };
            let bucket = bucket(stored.bucket);
            let hash = hash(&self.hasher, &stored.key);
            let window = self.window(index);
            if bucket < window.floor() {
                continue;
            }
            std::hint::black_box(window.touch(hash));
            waiting.push((index, bucket, hash, stored.key));
            if waiting.len() == TOGETHER {
                self.take_in(&mut waiting)?;
            }
        }
        self.take_in(&mut waiting)
    }

    fn take_in(&mut self, keys: &mut Vec<(usize, i64, u64, Key<'_>)>) -> Result<(), DedupError> {
        for (index, bucket, hash, key) in keys.drain(..) {
            self.insert(index, bucket, hash, &key, false)?;
        }
        Ok(())
    }

    pub fn size(&self) -> Size {
        let sets = self.windows.iter().flatten().flat_map(Window::sets);
        Size {
            keys: sets.map(|set| set.len() as u64).sum(),
            memory_bytes: self.memory_bytes() as u64,
            disk_bytes: self.spill.bytes(),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.windows.iter().flatten().flat_map(Window::sets).map(Set::memory).sum()
    }

    fn index(&self, split: usize) -> usize {
        if self.spec.scope == Scope::Global { 0 } else { split }
    }

    fn window(&mut self, index: usize) -> &mut Window {
        if self.windows.len() <= index {
            self.windows.resize_with(index + 1, || None);
        }
        let within = self.within();
        self.windows[index].get_or_insert_with(|| Window::new(within))
    }

    fn within(&self) -> i64 {
        self.spec.within.as_nanos() as i64
    }

    fn hand(&self) -> Hand {
        match self.spec.clock {
            DedupClock::Log => |c| c.log_time,
            DedupClock::Event => |c| c.event_time,
        }
    }

    /// The clock that all splits share, on the hand that it runs on. Nothing is heard where each has its own.
    fn shared_clock(&self) -> SplitClock {
        let nothing = SplitClock::default();
        match (self.spec.scope, self.spec.clock) {
            (Scope::Partition, _) => nothing,
            (Scope::Global, DedupClock::Log) => SplitClock { log_time: self.clocks.reached(), ..nothing },
            (Scope::Global, DedupClock::Event) => SplitClock { event_time: self.clocks.reached(), ..nothing },
        }
    }

    fn move_clock(&mut self, split: usize) {
        let hand = self.hand();
        let now = match self.spec.scope {
            Scope::Global => self.clocks.minimum(hand),
            Scope::Partition => self.clocks.get(split).map_or(crate::clock::UNHEARD, |c| hand(&c)),
        };
        let index = self.index(split);
        self.window(index);
        if let Some(window) = &mut self.windows[index] {
            window.move_clock(now, &self.hasher);
        }
    }
}

#[cfg(test)]
mod spilling;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::instant;
    use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray};
    use std::sync::Arc;
    use std::time::Duration;

    const SECOND: i64 = 1_000_000_000;

    fn spec(scope: Scope, late: LatePolicy) -> Deduplicate {
        let within = Duration::from_secs(60);
        Deduplicate { keys: vec![0], time: 1, clock: DedupClock::Log, within, late, scope, memory: usize::MAX }
    }

    fn unlimited(spec: Deduplicate) -> Dedup {
        Dedup::new(spec, 1, std::env::temp_dir())
    }

    fn rows(rows: &[(&str, i64)]) -> RecordBatch {
        let ids = StringArray::from_iter_values(rows.iter().map(|r| r.0));
        let times = TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.1 * SECOND)).with_timezone("UTC");
        assert_eq!(times.data_type(), &instant());
        RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("t", Arc::new(times) as ArrayRef)]).unwrap()
    }

    fn clock(seconds: i64) -> SplitClock {
        SplitClock { event_time: crate::clock::UNHEARD, log_time: seconds * SECOND, idle: false }
    }

    fn ids(batch: Option<RecordBatch>) -> Vec<String> {
        batch.map_or(vec![], |b| b.column(0).as_string::<i32>().iter().flatten().map(String::from).collect())
    }

    #[test]
    fn the_first_of_each_key_passes() {
        let mut dedup = unlimited(spec(Scope::Global, LatePolicy::Keep));
        dedup.add_split(0, "t/0", SplitClock::default());
        let judged = dedup.judge(0, &rows(&[("a", 100), ("b", 100), ("a", 101)])).unwrap();
        assert_eq!(judged.copies, 1);
        assert_eq!(ids(judged.passed), ["a", "b"]);
        assert_eq!(ids(dedup.judge(0, &rows(&[("b", 130), ("c", 130)])).unwrap().passed), ["c"]);
    }

    #[test]
    fn copies_in_one_batch_are_seen_however_far_apart_they_are_in_rows_and_in_time() {
        let mut dedup = unlimited(spec(Scope::Global, LatePolicy::Keep));
        dedup.add_split(0, "t/0", SplitClock::default());
        let names: Vec<String> = (0..2 * TOGETHER).map(|n| n.to_string()).collect();
        let next_to_each_other = names.iter().flat_map(|name| [(name.as_str(), 100), (name.as_str(), 125)]);
        let far_apart = names.iter().map(|name| (name.as_str(), 150));
        let judged = dedup.judge(0, &rows(&next_to_each_other.chain(far_apart).collect::<Vec<_>>())).unwrap();
        assert_eq!(judged.copies as usize, 2 * names.len());
        assert_eq!(ids(judged.passed), names);
    }

    #[test]
    fn a_key_is_forgotten_when_the_slowest_split_has_passed_the_window_and_not_before() {
        let mut dedup = unlimited(spec(Scope::Global, LatePolicy::Drop));
        dedup.add_split(0, "t/0", SplitClock::default());
        dedup.add_split(1, "t/1", SplitClock::default());
        dedup.judge(0, &rows(&[("a", 100)])).unwrap();
        dedup.set_clock(0, clock(1000));
        assert_eq!(dedup.judge(1, &rows(&[("a", 101)])).unwrap().copies, 1, "split 1 was never heard of");
        dedup.set_clock(1, clock(159));
        assert_eq!(dedup.judge(1, &rows(&[("a", 160)])).unwrap().copies, 1);
        dedup.set_clock(1, clock(400));
        assert_eq!(ids(dedup.judge(1, &rows(&[("a", 400)])).unwrap().passed), ["a"]);
    }

    #[test]
    fn a_split_may_be_a_thousand_buckets_ahead_of_the_slowest() {
        let mut dedup = unlimited(spec(Scope::Global, LatePolicy::Drop));
        dedup.add_split(0, "t/0", clock(100));
        dedup.add_split(1, "t/1", clock(100));
        dedup.all_known();
        let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let ahead: Vec<_> = names.iter().zip((100..).step_by(20)).map(|(name, time)| (name.as_str(), time)).collect();
        assert_eq!(dedup.judge(0, &rows(&ahead)).unwrap().copies, 0);
        assert_eq!(dedup.judge(0, &rows(&ahead)).unwrap().copies, 1000);
        assert_eq!(dedup.snapshot().new.len(), 1000);
        for (split, time) in [(0, 20_080), (1, 10_100)] {
            dedup.set_clock(split, clock(time));
        }
        assert_eq!(dedup.size().keys, 503, "a window before the slowest, and all that is ahead of it");
        let judged = dedup.judge(1, &rows(&ahead)).unwrap();
        assert_eq!((judged.copies, judged.unjudged), (503, 497));
    }

    #[test]
    fn a_row_older_than_the_window_follows_the_policy() {
        for (late, passes, dead) in [(LatePolicy::Keep, 1, 0), (LatePolicy::Drop, 0, 0), (LatePolicy::DeadLetter, 0, 1)]
        {
            let mut dedup = unlimited(spec(Scope::Partition, late));
            dedup.add_split(0, "t/0", clock(1000));
            let judged = dedup.judge(0, &rows(&[("old", 10)])).unwrap();
            assert_eq!(judged.unjudged, 1);
            assert_eq!(ids(judged.passed).len(), passes);
            assert_eq!(ids(judged.late).len(), dead);
        }
    }

    #[test]
    fn a_split_that_is_behind_holds_the_window_back_from_the_start_whichever_comes_first() {
        for clocks in [[1000, 100], [100, 1000]] {
            let mut dedup = unlimited(spec(Scope::Global, LatePolicy::Keep));
            for (split, time) in clocks.into_iter().enumerate() {
                dedup.add_split(split, &format!("t/{split}"), clock(time));
            }
            dedup.all_known();
            let behind = clocks.iter().position(|time| *time == 100).unwrap();
            let judged = dedup.judge(behind, &rows(&[("a", 110), ("a", 120)])).unwrap();
            assert_eq!((judged.copies, judged.unjudged), (1, 0));
            let older_than_all = dedup.judge(behind, &rows(&[("b", 10)])).unwrap();
            assert_eq!(older_than_all.unjudged, 1);
        }
    }

    #[test]
    fn what_is_restored_is_what_was_known() {
        let mut before = unlimited(spec(Scope::Global, LatePolicy::Keep));
        before.add_split(0, "t/0", SplitClock::default());
        before.judge(0, &rows(&[("a", 100), ("0a0b0c0d-0000-4000-8000-0123456789ab", 100)])).unwrap();
        let first = before.snapshot().table().unwrap().unwrap();
        before.judge(0, &rows(&[("c", 110)])).unwrap();
        let second = before.snapshot().table().unwrap().unwrap();
        assert_eq!(second.num_rows(), 1, "a snapshot holds only what is new");
        assert!(before.snapshot().table().unwrap().is_none());

        let mut after = unlimited(spec(Scope::Global, LatePolicy::Keep));
        after.add_split(0, "t/0", clock(110));
        for part in [first, second] {
            after.restore(&part, None, |_| true).unwrap();
        }
        let again = rows(&[("a", 111), ("0a0b0c0d-0000-4000-8000-0123456789ab", 111), ("c", 111), ("d", 111)]);
        assert_eq!(ids(after.judge(0, &again).unwrap().passed), ["d"]);
        assert!(after.snapshot().table().unwrap().unwrap().num_rows() == 1, "what was restored is not new");
    }

    #[test]
    fn what_was_known_is_known_in_a_window_of_another_length_for_as_long_as_that_says() {
        let long =
            |seconds| Deduplicate { within: Duration::from_secs(seconds), ..spec(Scope::Global, LatePolicy::Keep) };
        let before = |seconds| {
            let mut before = unlimited(long(seconds));
            before.add_split(0, "t/0", SplitClock::default());
            before.judge(0, &rows(&[("a", 100_000), ("b", 100_000 + seconds as i64 - 1)])).unwrap();
            before.snapshot()
        };
        for (was, is) in [(600, 60), (60, 600), (60, 61), (61, 60), (1, 86_400), (86_400, 1)] {
            let stored = before(was);
            let mut after = unlimited(long(is));
            after.add_split(0, "t/0", clock(100_000 + was as i64 - 1));
            after.all_known();
            after.restore(&stored.table().unwrap().unwrap(), Some(stored.width), |_| true).unwrap();
            let soon = 100_000 + (was + is) as i64 - 2;
            assert_eq!(after.judge(0, &rows(&[("b", soon)])).unwrap().copies, 1, "{was} s, then {is} s");
            let late = soon + 2 * (was + is) as i64;
            after.set_clock(0, clock(late));
            assert_eq!(after.size().keys, 0, "{was} s, then {is} s: what fell out of the window is forgotten");
        }
    }

    #[test]
    fn the_clock_that_splits_share_goes_on_where_it_was_unless_the_job_chose_another_one_meanwhile() {
        let mut before = unlimited(spec(Scope::Global, LatePolicy::Drop));
        before.add_split(0, "t/0", clock(1000));
        before.add_split(1, "t/1", SplitClock { idle: true, ..clock(100) });
        before.all_known();
        let shared = before.snapshot().clock;
        assert_eq!(shared, clock(1000));
        for (hand, too_old) in [(DedupClock::Log, 1), (DedupClock::Event, 0)] {
            let mut after = unlimited(Deduplicate { clock: hand, ..spec(Scope::Global, LatePolicy::Drop) });
            after.add_split(0, "t/0", clock(1000));
            after.add_split(1, "t/1", clock(100));
            after.go_on_from(&shared);
            after.all_known();
            assert_eq!(after.judge(1, &rows(&[("old", 110)])).unwrap().unjudged, too_old, "{hand:?}");
        }
    }

    #[test]
    fn scopes_by_partition_keep_their_keys_apart() {
        let mut dedup = unlimited(spec(Scope::Partition, LatePolicy::Keep));
        dedup.add_split(0, "t/0", SplitClock::default());
        dedup.add_split(1, "t/1", SplitClock::default());
        assert_eq!(ids(dedup.judge(0, &rows(&[("a", 100)])).unwrap().passed), ["a"]);
        assert_eq!(ids(dedup.judge(1, &rows(&[("a", 100)])).unwrap().passed), ["a"]);
        let parts = dedup.snapshot().table().unwrap().unwrap();
        let mut only_one = unlimited(spec(Scope::Partition, LatePolicy::Keep));
        only_one.add_split(7, "t/1", SplitClock::default());
        only_one.restore(&parts, None, |_| true).unwrap();
        assert_eq!(only_one.size().keys, 1);
    }
}
