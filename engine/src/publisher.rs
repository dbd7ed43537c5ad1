//! Publishes cuts in the job log: in the order of the barriers, none skipped, each only when all that it names is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::{mpsc, oneshot};

use crate::dedup::DedupSnapshot;
use crate::environment::{Environment, backoff};
use crate::job_log::entry::{Checkpoint, Claim, GroupCut, Kind, Part, PartChange, RejectedRows, Shown};
use crate::job_log::state::LogState;
use crate::job_log::{JobLog, JobLogError, beside, put_new};
use crate::metrics::Metrics;
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
        let rows: Vec<_> = rejected
            .rows
            .iter()
            .map(|row| crate::source::Rejected {
                payload: row.content.clone().into_bytes(),
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

    async fn upload(
        &mut self,
        drafts: BTreeMap<usize, Draft>,
        checkpoint: &mut Checkpoint,
    ) -> Result<u64, PublishError> {
        let mut total = 0;
        let (store, environment) = (self.log.store().clone(), self.environment.clone());
        let root = self.log.root().clone();
        for (operator, draft) in drafts {
            let id = &self.plan.operators[operator].id;
            let live = self.log.state().and_then(|s| s.parts.get(id)).map_or(&[][..], |p| p);
            let dropped = live.iter().filter(|p| p.bucket < draft.floor).map(|p| p.name.clone()).collect();
            let mut change = PartChange { added: vec![], dropped };
            for (newest, keys) in &draft.batches {
                let body = encode(keys)?;
                let name = format!("state/{}.arrow", self.names.next());
                let (rows, bytes) = (keys.num_rows() as u64, body.len() as u64);
                total += bytes;
                put_until_there(&*store, &root, &*environment, &name, body).await;
                change.added.push(Part { name, bucket: *newest, rows, bytes });
            }
            if change != PartChange::default() {
                checkpoint.parts.insert(id.clone(), change);
            }
        }
        Ok(total)
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

/// One operator's changes from all workers.
struct Draft {
    floor: i64,
    batches: Vec<(i64, RecordBatch)>,
}

impl Default for Draft {
    fn default() -> Self {
        Draft { floor: i64::MAX, batches: vec![] }
    }
}

impl Draft {
    fn add(&mut self, snapshot: &DedupSnapshot) -> Result<(), ArrowError> {
        self.floor = self.floor.min(snapshot.floor);
        self.batches.extend(snapshot.table()?.map(|keys| (snapshot.newest(), keys)));
        Ok(())
    }
}

fn encode(batch: &RecordBatch) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = FileWriter::try_new_with_options(vec![], &batch.schema(), options)?;
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
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

/// A cut is never dropped because the store is slow or away: it is tried until it is there.
async fn put_until_there(store: &dyn ObjectStore, root: &Path, environment: &dyn Environment, name: &str, body: Bytes) {
    let path = beside(root, name);
    let mut tries = 0;
    loop {
        match put_new(store, &path, body.clone()).await {
            // The name is this writer's own: what is there under it came from an earlier try.
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => return,
            Err(error) => {
                tracing::warn!(part = name, %error, "a state part was not written; trying again");
                environment.sleep(backoff(environment, tries)).await;
                tries += 1;
            }
        }
    }
}
