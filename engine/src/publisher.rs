//! Publishes cuts in the job log: in the order of the barriers, none skipped, each only when all that it names is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::{mpsc, oneshot};

use crate::clock::SplitClock;
use crate::dedup::{DedupSnapshot, last_moment};
use crate::environment::{Environment, backoff};
use crate::job_log::entry::{Checkpoint, Claim, GroupCut, Kind, Part, PartChange, RejectedRows, Shown};
use crate::job_log::state::LogState;
use crate::job_log::{JobLog, JobLogError, beside, put_new};
use crate::metrics::{CheckpointMetrics, Metrics};
use crate::plan::Plan;
use crate::sink::{Names, SinkError, SinkWriter};
use crate::worker::{Prepared, WorkerCut};

/// Something to write in the log.
pub enum Request {
    /// The parts of one epoch, one from each worker.
    Cut {
        epoch: u64,
        parts: Vec<WorkerCut>,
        begun: i64,
    },
    /// A sink shows these entries. Rides in the next checkpoint, or stands alone when `Flush` comes first.
    Shown(Vec<Shown>),
    /// A sink can never take these rows.
    Rejected(RejectedRows, oneshot::Sender<()>),
    Claim(Claim, oneshot::Sender<()>),
    /// Is the job still ours? Answered only if it is.
    Confirm(oneshot::Sender<()>),
    /// Write what waits for a ride; then say so.
    Flush(oneshot::Sender<()>),
    Release(oneshot::Sender<()>),
}

/// What became of a request.
pub enum Published {
    /// `entry` is `None` if nothing had happened since the last one.
    Checkpoint {
        epoch: u64,
        entry: Option<u64>,
        state: Box<LogState>,
    },
    Failed(PublishError),
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Log(#[from] JobLogError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("state cannot be encoded: {0}")]
    Arrow(#[from] ArrowError),
}

/// Owns the log while the job runs.
pub struct Publisher {
    pub log: JobLog,
    pub plan: Plan,
    pub environment: Arc<dyn Environment>,
    pub metrics: Arc<Metrics>,
    pub names: Names,
    /// For rows that a sink rejected at commit time.
    pub dead_letter: Box<dyn SinkWriter>,
    pub riding: Vec<Shown>,
    pub carried: Vec<Shown>,
}

impl Publisher {
    /// Works until the other side is gone or something fails for good.
    pub async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        answers: mpsc::UnboundedSender<Published>,
    ) {
        while let Some(request) = requests.recv().await {
            if let Err(error) = self.serve(request, &answers).await {
                let _ = answers.send(Published::Failed(error));
                return;
            }
        }
    }

    async fn serve(
        &mut self,
        request: Request,
        answers: &mpsc::UnboundedSender<Published>,
    ) -> Result<(), PublishError> {
        match request {
            Request::Cut { epoch, parts, begun } => {
                let entry = self.publish(parts).await?;
                let now = self.environment.now();
                let checkpoints = &self.metrics.checkpoints;
                checkpoints.entry.set(entry.unwrap_or(checkpoints.entry.get()));
                checkpoints.count.add(1);
                checkpoints.published_at.set(now as u64);
                checkpoints.durations.add(Duration::from_nanos((now - begun).max(0) as u64));
                if let Some(state) = self.log.state() {
                    let state = Box::new(state.clone());
                    let _ = answers.send(Published::Checkpoint { epoch, entry, state });
                }
                self.fold().await;
            }
            Request::Shown(shown) => self.riding.extend(shown),
            Request::Rejected(rejected, done) => {
                let write = self.dead_letter_rows(&rejected);
                self.log.append(Kind::Rejected(rejected)).await?;
                write?;
                let _ = done.send(());
            }
            Request::Claim(claim, done) => {
                self.log.append(Kind::Claim(claim)).await?;
                let _ = done.send(());
            }
            Request::Confirm(done) => {
                if self.log.confirm().await? {
                    let _ = done.send(());
                }
            }
            Request::Flush(done) => {
                self.flush().await?;
                let _ = done.send(());
            }
            Request::Release(done) => {
                self.flush().await?;
                let mine = |g: &crate::job_log::state::Group| g.owner.as_deref() == Some(self.log.writer());
                let groups: Vec<String> = self.log.state().map_or(vec![], |s| {
                    s.groups.iter().filter(|(_, g)| mine(g)).map(|(name, _)| name.clone()).collect()
                });
                self.log.append(Kind::Release { groups }).await?;
                let _ = done.send(());
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        let committed = std::mem::take(&mut self.riding);
        if !committed.is_empty() {
            self.log.append(Kind::Committed { committed }).await?;
        }
        Ok(())
    }

    /// Rows that a commit left out go to the dead letter with the writer's next entry.
    pub fn dead_letter_rows(&mut self, rejected: &RejectedRows) -> Result<(), PublishError> {
        // A dead letter that its own table refuses would grow with each try: it holds the one before, as text.
        let own = self.plan.sinks[self.plan.dead_letter].table == rejected.sink;
        let most = if own { OWN_LETTER } else { usize::MAX };
        let rows: Vec<_> = rejected
            .rows
            .iter()
            .map(|row| crate::source::Rejected {
                payload: row.content.bytes().take(most).collect(),
                error: row.reason.clone(),
                code: "sink",
                partition: None,
                offset: None,
                time: None,
                key: None,
                headers: None,
            })
            .collect();
        self.metrics.dead_letters.add(rows.len() as u64);
        self.dead_letter.write(&crate::dead_letter::rows(&rejected.sink, &rows)?)?;
        self.carried.push(Shown { entry: rejected.entry, sink: rejected.sink.clone() });
        Ok(())
    }

    async fn publish(&mut self, cuts: Vec<WorkerCut>) -> Result<Option<u64>, PublishError> {
        let mut checkpoint = Checkpoint::default();
        let mut prepared: Vec<(usize, Prepared)> = vec![];
        let mut drafts: BTreeMap<usize, Draft> = BTreeMap::new();
        for cut in cuts {
            self.positions(&cut, &mut checkpoint);
            prepared.extend(cut.prepared);
            for (operator, snapshot) in cut.state {
                drafts.entry(operator).or_default().add(&snapshot)?;
            }
        }
        self.environment.crash_point("before-state-upload");
        let bytes = self.upload(drafts, &mut checkpoint).await?;
        self.metrics.checkpoints.last_bytes.set(bytes);
        self.environment.crash_point("before-prepare");
        self.await_prepared(prepared, &mut checkpoint).await?;
        self.environment.crash_point("between-prepare-and-publish");
        if self.is_idle(&checkpoint) {
            self.flush().await?;
            self.log.listen().await?;
            return Ok(None);
        }
        checkpoint.committed = std::mem::take(&mut self.riding);
        checkpoint.carried = std::mem::take(&mut self.carried);
        let entry = self.log.append(Kind::Checkpoint(Box::new(checkpoint))).await?;
        self.environment.crash_point("between-publish-and-commit");
        Ok(Some(entry))
    }

    /// Whether nothing happened since the last entry: a quiet job writes nothing.
    fn is_idle(&self, checkpoint: &Checkpoint) -> bool {
        let same = |(name, cut): (&String, &GroupCut)| {
            let group = self.log.state().and_then(|s| s.groups.get(name));
            group.is_some_and(|g| g.start.from == cut.to && g.finished == cut.finished)
        };
        checkpoint.sinks.is_empty()
            && checkpoint.parts.is_empty()
            && self.carried.is_empty()
            && checkpoint.groups.iter().all(same)
    }

    fn positions(&self, cut: &WorkerCut, checkpoint: &mut Checkpoint) {
        for split in &cut.splits {
            let group = self.log.state().and_then(|s| s.groups.get(&split.group));
            let cut = GroupCut {
                prev: group.map_or(0, |g| g.entry),
                from: group.map_or(split.position.offset, |g| g.start.from.offset),
                to: split.position.clone(),
                clock: split.clock,
                finished: split.finished,
            };
            checkpoint.groups.insert(split.group.clone(), cut);
        }
    }

    /// Writes what is new in the state, one part an operator, and names the parts that are not needed any more.
    async fn upload(
        &mut self,
        drafts: BTreeMap<usize, Draft>,
        checkpoint: &mut Checkpoint,
    ) -> Result<u64, PublishError> {
        let mut total = 0;
        for (operator, draft) in drafts {
            let id = self.plan.operators[operator].id.clone();
            let live = self.log.state().and_then(|s| s.parts.get(&id)).cloned().unwrap_or_default();
            let (fallen, live): (Vec<_>, Vec<_>) = live.into_iter().partition(|part| draft.needs_no(part));
            let mut change = PartChange { added: vec![], dropped: fallen.into_iter().map(|part| part.name).collect() };
            if let Some(keys) = draft.keys()? {
                change.added.push(self.put_part((draft.newest, Some(draft.width)), &keys).await?);
                self.merge(to_merge(&live), &mut change).await?;
            }
            total += change.added.iter().map(|part| part.bytes).sum::<u64>();
            if change != PartChange::default() {
                checkpoint.parts.insert(id.clone(), change);
            }
            if self.log.state().and_then(|s| s.clocks.get(&id)).copied().unwrap_or_default() != draft.clock {
                checkpoint.clocks.insert(id, draft.clock);
            }
        }
        Ok(total)
    }

    /// `newest`: the newest bucket in it, and how long that is.
    async fn put_part(&mut self, newest: (i64, Option<i64>), keys: &RecordBatch) -> Result<Part, ArrowError> {
        let body = encode(keys)?;
        let name = format!("state/{}.arrow", self.names.next());
        let (rows, bytes) = (keys.num_rows() as u64, body.len() as u64);
        let (store, root, metrics) = (&**self.log.store(), self.log.root(), &self.metrics.checkpoints);
        put_until_there(store, root, &*self.environment, metrics, &name, body).await;
        let (bucket, width) = newest;
        Ok(Part { name, bucket, width, rows, bytes })
    }

    /// Puts one part in the place of many. Never needed for safety: parts that cannot be read just now stay as they are.
    async fn merge(&mut self, parts: Vec<Part>, change: &mut PartChange) -> Result<(), PublishError> {
        let Some(newest) = parts.first().map(|part| (part.bucket, part.width)) else { return Ok(()) };
        let mut batches = vec![];
        let mut reading = Box::pin(read_parts(self.log.store().clone(), self.log.root().clone(), parts.clone()));
        while let Some(read) = reading.next().await {
            match read {
                Ok(read) => batches.extend(read),
                Err(error) => {
                    tracing::warn!(%error, "state parts were not merged; the next checkpoints will try again");
                    return Ok(());
                }
            }
        }
        if let Some(keys) = concat(&batches)? {
            change.added.push(self.put_part(newest, &keys).await?);
            change.dropped.extend(parts.into_iter().map(|part| part.name));
        }
        Ok(())
    }

    /// The dead letter's `prepare` comes last: it also holds what the others rejected meanwhile.
    async fn await_prepared(
        &mut self,
        prepared: Vec<(usize, Prepared)>,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), PublishError> {
        let dead_letter = self.plan.dead_letter;
        let (last, first): (Vec<_>, Vec<_>) = prepared.into_iter().partition(|(sink, _)| *sink == dead_letter);
        let own = (dead_letter, self.dead_letter.prepare());
        for wave in [first, last.into_iter().chain([own]).collect()] {
            let (sinks, futures): (Vec<_>, Vec<_>) = wave.into_iter().unzip();
            for (sink, token) in sinks.into_iter().zip(futures::future::join_all(futures).await) {
                if let Some(token) = token? {
                    let table = self.plan.sinks[sink].table.clone();
                    checkpoint.sinks.entry(table).or_default().push(token);
                }
            }
        }
        Ok(())
    }

    async fn fold(&mut self) {
        if self.log.fold_due()
            && let Err(error) = self.log.fold().await
        {
            tracing::warn!(%error, "the job log was not folded; the next checkpoints will try again");
        }
    }
}

/// Bytes that are left of a dead letter which the dead letter's own table refused.
const OWN_LETTER: usize = 1024;

/// So many parts of one bucket and of about one size become one. A checkpoint a second makes a part a second; this keeps
/// their number, what a checkpoint carries and what a recovery opens near the logarithm of it, and writes a key again
/// once a size.
const MERGE: usize = 16;
/// Parts of more rows stay as they are: they are few, and a checkpoint waits for a merge.
const MERGE_BELOW: u64 = 1 << 18;

/// The parts that are merged now, if any are: the smallest first.
fn to_merge(live: &[Part]) -> Vec<Part> {
    let mut alike: BTreeMap<_, Vec<&Part>> = BTreeMap::new();
    for part in live.iter().filter(|part| part.rows < MERGE_BELOW) {
        alike.entry((part.rows.max(1).ilog(MERGE as u64), part.bucket, part.width)).or_default().push(part);
    }
    let many = alike.into_values().find(|parts| parts.len() >= MERGE);
    many.unwrap_or_default().into_iter().take(MERGE).cloned().collect()
}

/// One operator's changes from all workers.
struct Draft {
    floor: i64,
    newest: i64,
    /// How long a bucket is.
    width: i64,
    /// The workers share one clock, and some may have seen it further than others: what one of them forgot is forgotten.
    clock: SplitClock,
    batches: Vec<RecordBatch>,
}

impl Default for Draft {
    fn default() -> Self {
        Draft { floor: i64::MAX, newest: i64::MIN, width: 1, clock: SplitClock::default(), batches: vec![] }
    }
}

impl Draft {
    fn add(&mut self, snapshot: &DedupSnapshot) -> Result<(), ArrowError> {
        self.floor = self.floor.min(snapshot.floor);
        self.width = snapshot.width;
        self.clock.advance(Some(snapshot.clock.event_time), Some(snapshot.clock.log_time), false);
        if let Some(keys) = snapshot.table()? {
            self.newest = self.newest.max(snapshot.newest());
            self.batches.push(keys);
        }
        Ok(())
    }

    fn keys(&self) -> Result<Option<RecordBatch>, ArrowError> {
        concat(&self.batches)
    }

    /// Whether all keys of a part fell out of the window.
    fn needs_no(&self, part: &Part) -> bool {
        last_moment(part.bucket, part.width.unwrap_or(self.width)) < self.floor.saturating_mul(self.width)
    }
}

fn concat(batches: &[RecordBatch]) -> Result<Option<RecordBatch>, ArrowError> {
    batches.first().map(|first| concat_batches(&first.schema(), batches)).transpose()
}

fn encode(batch: &RecordBatch) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = FileWriter::try_new_with_options(vec![], &batch.schema(), options)?;
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// A cut is never dropped because the store is slow or away: it is tried until it is there.
async fn put_until_there(
    store: &dyn ObjectStore,
    root: &Path,
    environment: &dyn Environment,
    metrics: &CheckpointMetrics,
    name: &str,
    body: Bytes,
) {
    let path = beside(root, name);
    let mut tries = 0;
    loop {
        match put_new(store, &path, body.clone()).await {
            // The name is this writer's own: what is there under it came from an earlier try.
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => break,
            Err(error) => {
                tracing::warn!(part = name, %error, "a state part was not written; trying again");
                metrics.health.suffer(error.to_string());
                environment.sleep(backoff(environment, tries)).await;
                tries += 1;
            }
        }
    }
    if tries > 0 {
        metrics.health.heal();
    }
}

/// Parts that are read ahead of the one that is taken in.
const PARTS_AHEAD: usize = 8;

/// Reads the live parts of an operator in their order, a few ahead: all of them need not fit in memory.
pub fn read_parts(
    store: Arc<dyn ObjectStore>,
    root: Path,
    parts: Vec<Part>,
) -> impl Stream<Item = Result<Vec<RecordBatch>, JobLogError>> {
    let read = move |part: Part| {
        let (store, path) = (store.clone(), beside(&root, &part.name));
        async move {
            let body = store.get(&path).await?.bytes().await?;
            let name = part.name;
            let broken = |e: ArrowError| JobLogError::Unreadable { number: 0, what: format!("state part {name}: {e}") };
            let reader = FileReader::try_new(std::io::Cursor::new(body), None).map_err(broken)?;
            reader.collect::<Result<Vec<_>, _>>().map_err(broken)
        }
    };
    futures::stream::iter(parts).map(read).buffered(PARTS_AHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: usize, bucket: i64, rows: u64) -> Part {
        Part { name: number.to_string(), bucket, width: None, rows, bytes: rows * 16 }
    }

    /// The live parts after so many checkpoints of so many rows, each bucket lasting for 200 of them.
    fn after(checkpoints: usize, rows: u64) -> (Vec<Part>, u64) {
        let (mut live, mut rewritten) = (vec![], 0);
        for number in 0..checkpoints {
            let bucket = (number / 200) as i64;
            live.retain(|part: &Part| part.bucket > bucket - 4);
            let merged = to_merge(&live);
            live.push(part(number, bucket, rows));
            if !merged.is_empty() {
                let all: u64 = merged.iter().map(|part| part.rows).sum();
                rewritten += all;
                live.retain(|part| !merged.contains(part));
                live.push(part(checkpoints + number, merged[0].bucket, all));
            }
        }
        (live, rewritten)
    }

    #[test]
    fn a_window_of_small_checkpoints_is_few_parts_and_none_is_lost() {
        for rows in [1, 15, 16, 5000, 100_000] {
            let (live, rewritten) = after(3600, rows);
            assert!(live.len() <= 4 * 2 * MERGE, "{} parts at {rows} rows a checkpoint", live.len());
            assert_eq!(live.iter().map(|part| part.rows).sum::<u64>(), 800 * rows);
            assert!(rewritten <= 3 * 3600 * rows, "{rewritten} rows were written again, of {}", 3600 * rows);
        }
    }

    #[test]
    fn a_part_of_a_window_of_another_length_is_dropped_when_its_time_has_passed_and_not_merged_with_others() {
        let of = |bucket, width| Part { width, ..part(0, bucket, 10) };
        let draft = Draft { floor: 10, width: 100, ..Draft::default() };
        for (bucket, width, fallen) in
            [(9, None, true), (10, None, false), (99, Some(10), true), (100, Some(10), false), (0, Some(1000), true)]
        {
            assert_eq!(draft.needs_no(&of(bucket, width)), fallen, "bucket {bucket} of {width:?}");
        }
        assert!(!draft.needs_no(&of(1, Some(1000))), "its end is needed still");
        assert!(!Draft { floor: i64::MIN, ..draft }.needs_no(&of(0, Some(1))), "nothing was heard of the clock");
        let mixed: Vec<Part> = (0..20).map(|n| of(1, Some(100 + n % 2))).collect();
        assert!(to_merge(&mixed).is_empty());
    }

    #[test]
    fn large_parts_and_parts_of_other_buckets_are_left_alone() {
        let large: Vec<Part> = (0..100).map(|number| part(number, 1, MERGE_BELOW)).collect();
        assert!(to_merge(&large).is_empty());
        let apart: Vec<Part> = (0..100).map(|number| part(number, number as i64, 10)).collect();
        assert!(to_merge(&apart).is_empty());
    }
}
