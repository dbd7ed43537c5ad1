//! Deduplication: lets the first row of each key through, within a window of the log's clock.

mod window;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Int64Builder, RecordBatch,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampNanosecondType};
use arrow::error::ArrowError;
use std::sync::Arc;

use crate::clock::{Clocks, SplitClock};
use crate::key::{Key, keys};
use crate::plan::{DedupClock, Deduplicate, LatePolicy, Scope};
use crate::transform::partition;
use window::{Verdict, Window};

/// One worker's share of a deduplication: the splits that it reads (scope partition) or the buckets that it owns.
pub struct Dedup {
    spec: Deduplicate,
    /// By split, or a single one at index 0 where the scope is global.
    windows: Vec<Option<Window>>,
    clocks: Clocks,
    groups: Vec<Option<String>>,
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

/// What changed since the last snapshot.
pub struct DedupSnapshot {
    /// The keys that are new, with their group and time bucket; `None` if there are none.
    pub keys: Option<RecordBatch>,
    /// The newest bucket in `keys`.
    pub newest: i64,
    /// The oldest bucket that is still needed.
    pub floor: i64,
}

impl Dedup {
    pub fn new(spec: Deduplicate) -> Self {
        Dedup { spec, windows: vec![], clocks: Clocks::default(), groups: vec![] }
    }

    pub fn scope(&self) -> Scope {
        self.spec.scope
    }

    /// Makes a split known: it holds the window's clock back until it is heard of.
    pub fn add_split(&mut self, split: usize, group: &str, clock: SplitClock) {
        self.clocks.add(split, clock);
        if self.groups.len() <= split {
            self.groups.resize(split + 1, None);
        }
        self.groups[split] = Some(group.to_string());
        let of_split = self.index(split);
        self.window(of_split);
        self.move_clock(split);
    }

    pub fn set_clock(&mut self, split: usize, clock: SplitClock) {
        self.clocks.set(split, clock);
        self.move_clock(split);
    }

    /// Judges the rows of one split's batch, in order.
    pub fn judge(&mut self, split: usize, batch: &RecordBatch) -> Result<Judged, ArrowError> {
        let keys = keys(batch, &self.spec.keys)?;
        let times = batch.column(self.spec.time).as_primitive::<TimestampNanosecondType>();
        let late_passes = self.spec.late == LatePolicy::Keep;
        let index = self.index(split);
        let window = self.window(index);
        let mut pass = BooleanBuilder::with_capacity(keys.len());
        let mut late = BooleanBuilder::with_capacity(keys.len());
        let (mut copies, mut unjudged) = (0, 0);
        for (row, key) in keys.into_iter().enumerate() {
            // A row without a time is as old as the window allows: it is judged, and forgotten first.
            let time = if times.is_null(row) { window.oldest() } else { times.value(row) };
            let verdict = window.judge(key, time);
            pass.append_value(verdict == Verdict::First || (verdict == Verdict::TooOld && late_passes));
            late.append_value(verdict == Verdict::TooOld);
            copies += (verdict == Verdict::Copy) as u64;
            unjudged += (verdict == Verdict::TooOld) as u64;
        }
        if copies == 0 && unjudged == 0 {
            return Ok(Judged { passed: Some(batch.clone()), ..Judged::default() });
        }
        let (passed, _) = partition(batch, &pass.finish())?;
        let late = match self.spec.late {
            LatePolicy::DeadLetter if unjudged > 0 => Some(partition(batch, &late.finish())?.0),
            _ => None,
        };
        Ok(Judged { passed: Some(passed).filter(|b| b.num_rows() > 0), late, copies, unjudged })
    }

    /// Takes what is new since the last call. Cheap: the sets themselves stay where they are.
    pub fn snapshot(&mut self) -> Result<DedupSnapshot, ArrowError> {
        let mut rows = KeyRows::default();
        let mut floor = i64::MAX;
        for (index, window) in self.windows.iter_mut().enumerate() {
            let Some(window) = window else { continue };
            floor = floor.min(window.floor());
            let group = match self.spec.scope {
                Scope::Global => None,
                Scope::Partition => self.groups.get(index).cloned().flatten(),
            };
            for (bucket, key) in window.take_new() {
                rows.push(group.as_deref(), bucket, &key);
            }
        }
        let newest = rows.newest;
        Ok(DedupSnapshot { keys: rows.finish()?, newest, floor })
    }

    /// Takes in a part of an earlier snapshot: the keys for which `mine` says yes (scope global), or those of the
    /// splits that this worker knows (scope partition).
    pub fn restore(&mut self, part: &RecordBatch, mine: impl Fn(&Key) -> bool) -> Result<(), ArrowError> {
        let groups = part.column(0).as_string::<i32>();
        let buckets = part.column(1).as_primitive::<Int64Type>();
        let ids = part.column(2).as_fixed_size_binary();
        let texts = part.column(3).as_binary::<i32>();
        for row in 0..part.num_rows() {
            let key = if ids.is_valid(row) {
                Key::Uuid(u128::from_be_bytes(ids.value(row).try_into().unwrap_or_default()))
            } else {
                Key::Bytes(texts.value(row).into())
            };
            let index = match self.spec.scope {
                Scope::Global if mine(&key) => Some(0),
                Scope::Global => None,
                Scope::Partition => {
                    self.groups.iter().position(|g| g.as_deref() == Some(groups.value(row)) && groups.is_valid(row))
                }
            };
            if let Some(index) = index {
                self.window(index).remember(key, buckets.value(row));
            }
        }
        Ok(())
    }

    /// Live keys, and the bytes that they take, roughly.
    pub fn size(&self) -> (u64, u64) {
        self.windows.iter().flatten().fold((0, 0), |(n, b), w| (n + w.len(), b + w.bytes()))
    }

    fn index(&self, split: usize) -> usize {
        if self.spec.scope == Scope::Global { 0 } else { split }
    }

    fn window(&mut self, index: usize) -> &mut Window {
        if self.windows.len() <= index {
            self.windows.resize_with(index + 1, || None);
        }
        let within = self.spec.within.as_nanos() as i64;
        self.windows[index].get_or_insert_with(|| Window::new(within))
    }

    fn move_clock(&mut self, split: usize) {
        let hand = match self.spec.clock {
            DedupClock::Log => |c: &SplitClock| c.log_time,
            DedupClock::Event => |c: &SplitClock| c.event_time,
        };
        let now = match self.spec.scope {
            Scope::Global => self.clocks.minimum(hand),
            Scope::Partition => self.clocks.get(split).map_or(crate::clock::UNHEARD, |c| hand(&c)),
        };
        let index = self.index(split);
        self.window(index).move_clock(now);
    }
}

/// The stored form of keys: a table, so that any worker finds its own in it.
#[derive(Default)]
struct KeyRows {
    groups: StringBuilder,
    buckets: Int64Builder,
    ids: Vec<Option<u128>>,
    texts: BinaryBuilder,
    newest: i64,
}

impl KeyRows {
    fn push(&mut self, group: Option<&str>, bucket: i64, key: &Key) {
        self.newest = if self.ids.is_empty() { bucket } else { self.newest.max(bucket) };
        self.groups.append_option(group);
        self.buckets.append_value(bucket);
        match key {
            Key::Uuid(id) => {
                self.ids.push(Some(*id));
                self.texts.append_null();
            }
            Key::Bytes(bytes) => {
                self.ids.push(None);
                self.texts.append_value(bytes);
            }
        }
    }

    fn finish(mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let mut ids = FixedSizeBinaryBuilder::with_capacity(self.ids.len(), 16);
        for id in &self.ids {
            match id {
                Some(id) => ids.append_value(id.to_be_bytes())?,
                None => ids.append_null(),
            }
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.groups.finish()),
            Arc::new(self.buckets.finish()),
            Arc::new(ids.finish()),
            Arc::new(self.texts.finish()),
        ];
        let schema = Schema::new(vec![
            Field::new("group", DataType::Utf8, true),
            Field::new("bucket", DataType::Int64, false),
            Field::new("uuid", DataType::FixedSizeBinary(16), true),
            Field::new("bytes", DataType::Binary, true),
        ]);
        RecordBatch::try_new(Arc::new(schema), columns).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::instant;
    use arrow::array::{StringArray, TimestampNanosecondArray};
    use std::time::Duration;

    const SECOND: i64 = 1_000_000_000;

    fn spec(scope: Scope, late: LatePolicy) -> Deduplicate {
        let within = Duration::from_secs(60);
        Deduplicate { keys: vec![0], time: 1, clock: DedupClock::Log, within, late, scope, memory: usize::MAX }
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
        let mut dedup = Dedup::new(spec(Scope::Global, LatePolicy::Keep));
        dedup.add_split(0, "t/0", SplitClock::default());
        let judged = dedup.judge(0, &rows(&[("a", 100), ("b", 100), ("a", 101)])).unwrap();
        assert_eq!(judged.copies, 1);
        assert_eq!(ids(judged.passed), ["a", "b"]);
        assert_eq!(ids(dedup.judge(0, &rows(&[("b", 130), ("c", 130)])).unwrap().passed), ["c"]);
    }

    #[test]
    fn a_key_is_forgotten_when_the_slowest_split_has_passed_the_window_and_not_before() {
        let mut dedup = Dedup::new(spec(Scope::Global, LatePolicy::Drop));
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
    fn a_row_older_than_the_window_follows_the_policy() {
        for (late, passes, dead) in [(LatePolicy::Keep, 1, 0), (LatePolicy::Drop, 0, 0), (LatePolicy::DeadLetter, 0, 1)]
        {
            let mut dedup = Dedup::new(spec(Scope::Partition, late));
            dedup.add_split(0, "t/0", clock(1000));
            let judged = dedup.judge(0, &rows(&[("old", 10)])).unwrap();
            assert_eq!(judged.unjudged, 1);
            assert_eq!(ids(judged.passed).len(), passes);
            assert_eq!(ids(judged.late).len(), dead);
        }
    }

    #[test]
    fn what_is_restored_is_what_was_known() {
        let mut before = Dedup::new(spec(Scope::Global, LatePolicy::Keep));
        before.add_split(0, "t/0", SplitClock::default());
        before.judge(0, &rows(&[("a", 100), ("0a0b0c0d-0000-4000-8000-0123456789ab", 100)])).unwrap();
        let first = before.snapshot().unwrap();
        before.judge(0, &rows(&[("c", 110)])).unwrap();
        let second = before.snapshot().unwrap();
        assert_eq!(second.keys.as_ref().unwrap().num_rows(), 1, "a snapshot holds only what is new");
        assert!(before.snapshot().unwrap().keys.is_none());

        let mut after = Dedup::new(spec(Scope::Global, LatePolicy::Keep));
        after.add_split(0, "t/0", clock(110));
        for part in [first, second] {
            after.restore(&part.keys.unwrap(), |_| true).unwrap();
        }
        let again = rows(&[("a", 111), ("0a0b0c0d-0000-4000-8000-0123456789ab", 111), ("c", 111), ("d", 111)]);
        assert_eq!(ids(after.judge(0, &again).unwrap().passed), ["d"]);
        assert!(after.snapshot().unwrap().keys.unwrap().num_rows() == 1, "what was restored is not new");
    }

    #[test]
    fn scopes_by_partition_keep_their_keys_apart() {
        let mut dedup = Dedup::new(spec(Scope::Partition, LatePolicy::Keep));
        dedup.add_split(0, "t/0", SplitClock::default());
        dedup.add_split(1, "t/1", SplitClock::default());
        assert_eq!(ids(dedup.judge(0, &rows(&[("a", 100)])).unwrap().passed), ["a"]);
        assert_eq!(ids(dedup.judge(1, &rows(&[("a", 100)])).unwrap().passed), ["a"]);
        let parts = dedup.snapshot().unwrap().keys.unwrap();
        let mut only_one = Dedup::new(spec(Scope::Partition, LatePolicy::Keep));
        only_one.add_split(7, "t/1", SplitClock::default());
        only_one.restore(&parts, |_| true).unwrap();
        assert_eq!(only_one.size().0, 1);
    }
}
