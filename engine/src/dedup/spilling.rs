//! Stories of deduplication with less memory than keys. Memory may decide how long an answer takes, never the answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SECOND: i64 = 1_000_000_000;
const WITHIN: i64 = 60;

fn spec(scope: Scope, memory: usize) -> Deduplicate {
    let within = Duration::from_secs(WITHIN as u64);
    Deduplicate { keys: vec![0], time: 1, clock: DedupClock::Log, within, late: LatePolicy::Drop, scope, memory }
}

fn batch(rows: &[(String, i64)]) -> RecordBatch {
    let ids = StringArray::from_iter_values(rows.iter().map(|r| &r.0));
    let times = TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("UTC");
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("t", Arc::new(times) as ArrayRef)]).unwrap()
}

/// Two kinds of keys: of three, one is no UUID.
fn id(number: u64) -> String {
    match number % 3 {
        0 => format!("event {number} of a device with a long name"),
        _ => uuid::Uuid::from_u64_pair(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number).to_string(),
    }
}

/// A deduplication that is stopped and started again now and then, as a job is.
struct Lived {
    dedup: Dedup,
    spec: Deduplicate,
    parts: Vec<RecordBatch>,
    splits: Vec<SplitClock>,
}

impl Lived {
    fn new(spec: Deduplicate, splits: usize, folder: &Path) -> Self {
        let dedup = Dedup::new(spec.clone(), 1, folder.to_path_buf());
        let mut lived = Lived { dedup, spec, parts: vec![], splits: vec![SplitClock::default(); splits] };
        lived.make_known();
        lived
    }

    fn make_known(&mut self) {
        for (split, clock) in self.splits.iter().enumerate() {
            self.dedup.add_split(split, &format!("t/{split}"), *clock);
        }
        self.dedup.all_known();
    }

    fn hear(&mut self, split: usize, time: i64) {
        self.splits[split].log_time = self.splits[split].log_time.max(time);
        self.dedup.set_clock(split, self.splits[split]);
    }

    fn checkpoint(&mut self) {
        self.parts.extend(self.dedup.snapshot().table().unwrap());
    }

    fn restart(&mut self, folder: &Path) {
        self.checkpoint();
        self.dedup = Dedup::new(self.spec.clone(), 1, folder.to_path_buf());
        self.make_known();
        for part in &self.parts {
            self.dedup.restore(part, None, |_| true).unwrap();
            assert!(self.dedup.size().memory_bytes as usize <= self.spec.memory, "while restoring");
        }
    }
}

/// What passed, row for row.
fn passed(judged: &Judged) -> Vec<String> {
    let ids =
        judged.passed.as_ref().map(|b| b.column(0).as_string::<i32>().iter().flatten().map(String::from).collect());
    ids.unwrap_or_default()
}

#[test]
fn verdicts_are_the_same_with_little_memory_and_with_much() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let scope = if seed % 2 == 0 { Scope::Global } else { Scope::Partition };
        let little = random.random_range(300..600) << 10;
        let mut small = Lived::new(spec(scope, little), 3, folder.path());
        let mut large = Lived::new(spec(scope, usize::MAX), 3, folder.path());
        let (mut spilled, mut copies) = (false, 0);
        let mut now = 1000 * SECOND;
        for turn in 0..60 {
            now += random.random_range(0..3 * SECOND);
            let split = random.random_range(0..3);
            let rows: Vec<_> = (0..random.random_range(1..800))
                .map(|_| (id(random.random_range(0..40_000)), now - random.random_range(0..30 * SECOND)))
                .collect();
            let rows = batch(&rows);
            let (few, all) = (small.dedup.judge(split, &rows).unwrap(), large.dedup.judge(split, &rows).unwrap());
            assert_eq!(passed(&few), passed(&all), "seed {seed}, turn {turn}");
            assert_eq!((few.copies, few.unjudged), (all.copies, all.unjudged), "seed {seed}, turn {turn}");
            assert_eq!(small.dedup.size().keys, large.dedup.size().keys, "seed {seed}, turn {turn}");
            copies += few.copies;
            spilled |= small.dedup.size().disk_bytes > 0;
            for lived in [&mut small, &mut large] {
                lived.hear(split, now);
                if turn % 5 == 0 {
                    lived.checkpoint();
                }
                if turn % 25 == 24 {
                    lived.restart(folder.path());
                }
            }
        }
        assert!(spilled && copies > 1000, "seed {seed}: {copies} copies, spilled: {spilled}");
    }
}

#[test]
fn memory_stays_within_the_budget_and_everything_is_still_known() {
    let folder = tempfile::tempdir().unwrap();
    let memory = 1 << 20;
    let mut lived = Lived::new(spec(Scope::Global, memory), 1, folder.path());
    let numbers = |turn: u64| turn * 2000..(turn + 1) * 2000;
    let time = |turn: u64| (1000 + turn as i64) * SECOND;
    let rows = |turn: u64| batch(&numbers(turn).map(|n| (id(n), time(turn))).collect::<Vec<_>>());
    for turn in 0..50 {
        assert_eq!(lived.dedup.judge(0, &rows(turn)).unwrap().copies, 0);
        lived.hear(0, time(turn));
        assert!(lived.dedup.size().memory_bytes <= memory as u64, "turn {turn}: {:?}", lived.dedup.size());
        lived.checkpoint();
    }
    assert_eq!(lived.dedup.size().keys, 100_000);
    assert!(lived.dedup.size().disk_bytes > 1 << 20, "{:?}", lived.dedup.size());
    for restarted in [false, true] {
        if restarted {
            lived.restart(folder.path());
            assert!(lived.dedup.size().disk_bytes > 1 << 20, "{:?}", lived.dedup.size());
        }
        for turn in (0..50).step_by(7) {
            assert_eq!(lived.dedup.judge(0, &rows(turn)).unwrap().copies, 2000, "turn {turn}, restarted: {restarted}");
        }
    }
}

#[test]
fn what_is_on_disk_falls_by_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let mut lived = Lived::new(spec(Scope::Partition, 1 << 19), 2, folder.path());
    let old = batch(&(0..20_000).map(|n| (id(n), 1000 * SECOND)).collect::<Vec<_>>());
    for split in [0, 1] {
        lived.dedup.judge(split, &old).unwrap();
        lived.checkpoint();
    }
    let disk = lived.dedup.size().disk_bytes;
    assert!(disk > 0);
    lived.hear(0, (1000 + 3 * WITHIN) * SECOND);
    assert_eq!(lived.dedup.size().keys, 20_000, "split 1 has not moved");
    assert_eq!(lived.dedup.judge(1, &old).unwrap().copies, 20_000);
    lived.hear(1, (1000 + 3 * WITHIN) * SECOND);
    assert_eq!(lived.dedup.size(), Size::default());
    let again = batch(&(0..100).map(|n| (id(n), (1000 + 3 * WITHIN) * SECOND)).collect::<Vec<_>>());
    assert_eq!(passed(&lived.dedup.judge(0, &again).unwrap()).len(), 100);
}

#[test]
fn a_disk_that_cannot_be_written_stops_the_job_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "a file, not a folder").unwrap();
    let mut lived = Lived::new(spec(Scope::Global, 1 << 18), 1, &taken);
    let many = batch(&(0..20_000).map(|n| (id(n), 1000 * SECOND)).collect::<Vec<_>>());
    let error = lived.dedup.judge(0, &many).unwrap_err().to_string();
    assert!(error.contains(&taken.display().to_string()) && error.contains("deduplicate.memory"), "{error}");
}
