//! `cargo bench -p engine --bench dedup [-- <live ids>]`: ids a second and core with a full window, beside a set that
//! never forgets, filled with the same ids a moment before in the same process.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampNanosecondArray};
use engine::clock::{SplitClock, UNHEARD};
use engine::dedup::Dedup;
use engine::plan::{DedupClock, Deduplicate, LatePolicy, Scope};
use hashbrown::HashSet;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const WITHIN: Duration = Duration::from_secs(600);
const BATCH: usize = 4096;
const TURNS: usize = 3;
const BEGIN: i64 = 1_700_000_000_000_000_000;

fn main() {
    let live = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(6_000_000);
    println!("{:<34} {:>12} {:>12} {:>7}", "ids a second and core", "a set", "millrace", "ratio");
    // As much as 6 million ids share 64 MiB.
    for (memory, said) in [(usize::MAX, "all in memory"), ((live * 11).max(1 << 20), "11 bytes of memory an id")] {
        let mut turns: Vec<_> = (0..TURNS).map(|_| (set(live), millrace(live, memory))).collect();
        turns.sort_by(|a, b| (a.1.rate / a.0).total_cmp(&(b.1.rate / b.0)));
        let (reference, subject) = &turns[TURNS / 2];
        let what = format!("{:.1} million, {said}", live as f64 / 1e6);
        println!("{what:<34} {reference:>12.0} {:>12.0} {:>6.2}x", subject.rate, subject.rate / reference);
        println!(
            "  {} live at the end, {:.1} bytes of memory each; restored at {:.0} a second",
            subject.keys,
            subject.bytes as f64 / subject.keys as f64,
            subject.restored
        );
    }
}

/// Of this thread: what else the machine does counts little.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("since the thread began")
}

/// Ids a second that are read, looked up and kept, of the second half.
fn set(live: usize) -> f64 {
    let mut random = StdRng::seed_from_u64(1);
    let mut known: HashSet<u128> = HashSet::new();
    let (mut came, mut took) = (0, Duration::ZERO);
    while came < 2 * live {
        let batch = batch(&mut random, 0);
        let begun = cpu_time();
        for id in batch.column(0).as_string::<i32>().iter().flatten() {
            known.insert(uuid::Uuid::try_parse(id).expect("it is one").as_u128());
        }
        if came >= live {
            took += cpu_time().saturating_sub(begun);
        }
        came += BATCH;
    }
    (came - live) as f64 / took.as_secs_f64()
}

struct Judged {
    rate: f64,
    keys: u64,
    bytes: u64,
    restored: f64,
}

fn millrace(live: usize, memory: usize) -> Judged {
    let mut random = StdRng::seed_from_u64(1);
    let mut dedup = new(memory, UNHEARD);
    let (mut came, mut took, mut parts) = (0, Duration::ZERO, vec![]);
    let time = |id: usize| BEGIN + (id as f64 / live as f64 * WITHIN.as_nanos() as f64) as i64;
    while came < 2 * live {
        let batch = batch(&mut random, time(came));
        let begun = cpu_time();
        let judged = dedup.judge(0, &batch).expect("there is memory");
        dedup.set_clock(0, clock(time(came)));
        if came >= live {
            took += cpu_time().saturating_sub(begun);
        }
        assert_eq!(judged.copies, 0);
        came += BATCH;
        if came % (live / 32) < BATCH {
            parts.extend(dedup.snapshot().table().expect("it fits"));
        }
    }
    let size = dedup.size();
    drop(dedup);
    let begun = cpu_time();
    let mut again = new(memory, time(came));
    for part in &parts {
        again.restore(part, None, |_| true).expect("it fits");
    }
    let restored =
        parts.iter().map(RecordBatch::num_rows).sum::<usize>() as f64 / cpu_time().saturating_sub(begun).as_secs_f64();
    Judged { rate: (came - live) as f64 / took.as_secs_f64(), keys: size.keys, bytes: size.memory_bytes, restored }
}

fn new(memory: usize, log_time: i64) -> Dedup {
    let spec = Deduplicate {
        keys: vec![0],
        time: 1,
        clock: DedupClock::Log,
        within: WITHIN,
        late: LatePolicy::Keep,
        scope: Scope::Global,
        memory,
    };
    let mut dedup = Dedup::new(spec, 1, std::env::temp_dir());
    dedup.add_split(0, "ids/0", clock(log_time));
    dedup
}

fn clock(log_time: i64) -> SplitClock {
    SplitClock { event_time: UNHEARD, log_time, idle: false }
}

fn batch(random: &mut StdRng, time: i64) -> RecordBatch {
    let ids = (0..BATCH).map(|_| uuid::Uuid::from_u128(random.random()).to_string());
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(ids));
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from_value(time, BATCH).with_timezone("UTC"));
    RecordBatch::try_from_iter([("id", ids), ("time", times)]).expect("of one length")
}
