//! Deduplication alone, with its window full.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray};
use engine::clock::{SplitClock, UNHEARD};
use engine::dedup::{Dedup, Size};
use engine::plan::{DedupClock, Deduplicate, LatePolicy, Scope};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WITHIN: Duration = Duration::from_secs(600);
const BATCH: usize = 4096;
/// Snapshots while a window passes.
const SNAPSHOTS: usize = 32;
const BEGIN: i64 = 1_700_000_000_000_000_000;

/// What was seen of a deduplication.
pub struct Judged {
    pub ids: usize,
    pub took: Duration,
    pub size: Size,
    /// The most memory that it took at any time.
    pub peak: u64,
    pub longest_cut: Duration,
    /// How long a restart takes to know them again, and the most memory meanwhile.
    pub restored_in: Duration,
    pub restored_peak: u64,
}

/// Fills a window with `live` random ids, then judges as many again while the oldest fall.
pub fn judge(live: usize, memory: usize, folder: &Path) -> Result<Judged, String> {
    let spec = Deduplicate {
        keys: vec![0],
        time: 1,
        clock: DedupClock::Log,
        within: WITHIN,
        late: LatePolicy::Keep,
        scope: Scope::Global,
        memory,
    };
    let mut dedup = new(&spec, folder, UNHEARD);
    let mut random = StdRng::seed_from_u64(1);
    let (mut judged, mut parts) = (0, vec![]);
    let mut seen = Judged {
        ids: 0,
        took: Duration::ZERO,
        size: Size::default(),
        peak: 0,
        longest_cut: Duration::ZERO,
        restored_in: Duration::ZERO,
        restored_peak: 0,
    };
    let time = |id: usize| BEGIN + (id as f64 / live as f64 * WITHIN.as_nanos() as f64) as i64;
    while judged < 2 * live {
        let batch = batch(&mut random, time(judged))?;
        let begun = Instant::now();
        dedup.judge(0, &batch).map_err(|e| e.to_string())?;
        dedup.set_clock(0, clock(time(judged)));
        if judged >= live {
            seen.ids += BATCH;
            seen.took += begun.elapsed();
        }
        judged += BATCH;
        if judged % (live / SNAPSHOTS).max(BATCH) < BATCH {
            seen.peak = seen.peak.max(dedup.size().memory_bytes);
            let begun = Instant::now();
            let snapshot = dedup.snapshot();
            seen.longest_cut = seen.longest_cut.max(begun.elapsed());
            parts.extend(snapshot.table().map_err(|e| e.to_string())?);
        }
    }
    seen.size = dedup.size();
    drop(dedup);
    let mut again = new(&spec, folder, time(judged));
    for part in &parts {
        let begun = Instant::now();
        again.restore(part, None, |_| true).map_err(|e| e.to_string())?;
        seen.restored_in += begun.elapsed();
        seen.restored_peak = seen.restored_peak.max(again.size().memory_bytes);
    }
    Ok(seen)
}

fn new(spec: &Deduplicate, folder: &Path, log_time: i64) -> Dedup {
    let mut dedup = Dedup::new(spec.clone(), 1, folder.to_path_buf());
    dedup.add_split(0, "ids/0", clock(log_time));
    dedup
}

fn clock(log_time: i64) -> SplitClock {
    SplitClock { event_time: UNHEARD, log_time, idle: false }
}

fn batch(random: &mut StdRng, time: i64) -> Result<RecordBatch, String> {
    let ids = (0..BATCH).map(|_| uuid::Uuid::from_u128(random.random()).to_string());
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(ids));
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from_value(time, BATCH).with_timezone("UTC"));
    RecordBatch::try_from_iter([("id", ids), ("time", times)]).map_err(|e| e.to_string())
}
