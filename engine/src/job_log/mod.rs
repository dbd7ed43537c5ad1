//! The job log: a folder of numbered entries, each published by one conditional create.
//!
//! There is one linear order, and ownership of a key group is the last claim before. Whoever loses the race for a
//! number reads what was written and tries the next one only if it still owns what it writes for. An answer that was
//! lost is settled by reading, and an attempt is never given up or changed before its number is taken by another.

pub mod entry;
pub mod state;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::environment::{Environment, backoff};
use crate::metrics::CheckpointMetrics;
use entry::{Entry, Kind, VERSION};
use state::{LogError, LogState, Waste};

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Entries stay at least this long after they were folded: a process that was frozen for less finds them.
    pub retention: Duration,
    /// Checkpoints between two snapshots.
    pub fold_every: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { retention: Duration::from_secs(24 * 3600), fold_every: 100 }
    }
}

/// A log that cannot be read or written any more.
#[derive(Debug, thiserror::Error)]
pub enum JobLogError {
    /// Another process owns what this one wanted to write for.
    #[error("another process took this job over at entry {at} (writer {by})")]
    Fenced { at: u64, by: String },
    #[error("the job log is damaged: {0}")]
    Damaged(#[from] LogError),
    #[error("the job log's entry {number} cannot be read: {what}")]
    Unreadable { number: u64, what: String },
    #[error("this store ignores 'create only if absent', so two processes could not be told apart: {0}")]
    NoConditionalCreate(String),
    #[error("the job log's store failed: {0}")]
    Store(#[from] object_store::Error),
}

/// What a log says, for whoever only looks: nothing is written, not even to prove that the store can be trusted.
pub async fn look(
    store: Arc<dyn ObjectStore>,
    root: Path,
    environment: Arc<dyn Environment>,
) -> Result<Option<LogState>, JobLogError> {
    let mut log = JobLog::unread(store, root, environment, LogSettings::default());
    log.read_all().await?;
    Ok(log.state)
}

/// A clean-up keeps the next checkpoint waiting: it asks for several deletions at once.
const DELETES_AT_ONCE: usize = 16;

/// How long a process that writes nothing may not know that another took over.
const LISTEN: Duration = Duration::from_secs(10);

/// One process's hold on a job log.
pub struct JobLog {
    store: Arc<dyn ObjectStore>,
    root: Path,
    environment: Arc<dyn Environment>,
    settings: LogSettings,
    writer: String,
    attempts: u64,
    /// The key groups that this process claimed; none before its first claim.
    claimed: Option<BTreeSet<String>>,
    /// The first claim of another process after that, and its writer.
    replaced: Option<(u64, String)>,
    state: Option<LogState>,
    /// When the snapshots were last asked for and none was found above what is known, on the clock that counts suspension.
    /// When they were asked for, not when the answer came: a process may be frozen in between.
    listed: Duration,
    /// When nobody else had written, on the same clock.
    heard: Duration,
    since_fold: u64,
    metrics: Arc<CheckpointMetrics>,
}

impl JobLog {
    /// Reads the log in `root`. The first use of a folder also proves that the store honours conditional creates.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        root: Path,
        environment: Arc<dyn Environment>,
        settings: LogSettings,
    ) -> Result<Self, JobLogError> {
        let mut log = JobLog::unread(store, root, environment, settings);
        log.read_all().await?;
        if log.state.is_none() {
            log.probe().await?;
        }
        Ok(log)
    }

    fn unread(
        store: Arc<dyn ObjectStore>,
        root: Path,
        environment: Arc<dyn Environment>,
        settings: LogSettings,
    ) -> Self {
        let writer = environment.writer_id();
        let listed = environment.elapsed();
        JobLog {
            store,
            root,
            environment,
            settings,
            writer,
            attempts: 0,
            claimed: None,
            replaced: None,
            state: None,
            listed,
            heard: listed,
            since_fold: 0,
            metrics: Arc::default(),
        }
    }

    /// Where failed tries are counted from now on.
    pub fn count_in(&mut self, metrics: Arc<CheckpointMetrics>) {
        self.metrics = metrics;
    }

    /// What the log says; `None` before its first entry.
    pub fn state(&self) -> Option<&LogState> {
        self.state.as_ref()
    }

    /// This process start.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Publishes an entry, or finds out that it may not. Tries for as long as the store fails: the caller bounds what
    /// waits behind it. Returns the entry's number.
    pub async fn append(&mut self, kind: Kind) -> Result<u64, JobLogError> {
        self.attempts += 1;
        let mut tries = 0;
        loop {
            let entry = Entry {
                version: VERSION,
                number: self.state.as_ref().map_or(1, |s| s.number + 1),
                writer: self.writer.clone(),
                attempt: self.attempts,
                time: self.environment.now() / 1_000_000,
                kind: kind.clone(),
            };
            self.may_append(&entry)?;
            let race = self.create(&entry, &mut tries).await?;
            if tries > 0 {
                self.metrics.health.heal();
            }
            match race {
                Race::Won => {
                    self.prove_not_folded(entry.number).await?;
                    self.take_in(&entry)?;
                    self.heard = self.environment.elapsed();
                    if let Kind::Claim(claim) = &entry.kind {
                        self.claimed.get_or_insert_default().extend(claim.groups.keys().cloned());
                    }
                    return Ok(entry.number);
                }
                Race::Lost(other) => self.take_in_another_s(&other).await?,
            }
        }
    }

    /// Finds out now and then whether this process was replaced: one that writes nothing hears it nowhere else. A store
    /// that does not answer is asked the next time.
    pub async fn listen(&mut self) -> Result<(), JobLogError> {
        let asked = self.environment.elapsed();
        if asked.saturating_sub(self.heard) < LISTEN {
            return Ok(());
        }
        self.heard = asked;
        self.confirm().await.map(drop)
    }

    /// Whether this process was not replaced, as far as the store says now; `false` if it does not answer.
    pub async fn confirm(&mut self) -> Result<bool, JobLogError> {
        match self.take_in_others().await {
            Err(JobLogError::Store(error)) => {
                tracing::warn!(%error, "the job log cannot be read; asking again");
                Ok(false)
            }
            heard => heard.map(|()| true),
        }
    }

    async fn take_in_others(&mut self) -> Result<(), JobLogError> {
        loop {
            let next = self.state.as_ref().map_or(1, |s| s.number + 1);
            let Some(entry) = self.read_entry(next).await? else {
                return self.prove_not_folded(next).await;
            };
            self.take_in_another_s(&entry).await?;
            self.is_not_replaced()?;
        }
    }

    /// Whether [`JobLog::fold`] is due.
    pub fn fold_due(&self) -> bool {
        self.since_fold >= self.settings.fold_every
    }

    /// Writes a snapshot and deletes what it makes superfluous: old entries by age, dropped parts by number. Never
    /// needed for safety, so the first failure ends it until the next time. What was to be deleted is forgotten only in
    /// the snapshot after: a clean-up that is cut short is done again by whoever comes after.
    pub async fn fold(&mut self) -> Result<(), object_store::Error> {
        let Some(state) = &self.state else { return Ok(()) };
        self.since_fold = 0;
        let mut folded = state.clone();
        let waste = folded.fold(self.environment.now() / 1_000_000, self.settings.retention);
        let body = serde_json::to_vec(&folded).unwrap_or_default();
        self.environment.crash_point("before-fold");
        match put_new(&*self.store, &self.snapshot_path(folded.number), body.into()).await {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        self.environment.crash_point("after-fold");
        self.delete(&waste).await?;
        folded.forget(&waste);
        self.state = Some(folded);
        Ok(())
    }

    async fn delete(&self, waste: &Waste) -> Result<(), object_store::Error> {
        self.delete_all(waste.entries.clone().map(|n| self.entry_path(n)).collect()).await?;
        self.environment.crash_point("during-clean-up");
        let snapshots = waste.snapshots.iter().map(|n| self.snapshot_path(*n));
        let named = waste.names.iter().map(|name| beside(&self.root, name));
        self.delete_all(snapshots.chain(named).collect()).await
    }

    async fn delete_all(&self, paths: Vec<Path>) -> Result<(), object_store::Error> {
        let deleting = paths.into_iter().map(|path| {
            let store = self.store.clone();
            async move { delete(&*store, &path).await }
        });
        futures::stream::iter(deleting).buffer_unordered(DELETES_AT_ONCE).try_collect().await
    }

    /// The folder of a kind of file beside the log.
    pub fn folder(&self, name: &str) -> Path {
        self.root.clone().join(name)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    fn may_append(&self, entry: &Entry) -> Result<(), JobLogError> {
        if matches!(entry.kind, Kind::Committed { .. }) {
            return Ok(());
        }
        // With the exchange in memory, all key groups that a process claimed are one unit: whatever it publishes, it
        // publishes for all of them, also when the entry names none because every split is finished. Its first claim
        // needs nothing; a later one, for splits that it found, must not come from a process that was replaced
        // meanwhile, not even from one that owns no group that could be taken from it: it found a job without splits.
        self.is_not_replaced()?;
        let (Some(state), Some(claimed)) = (&self.state, &self.claimed) else { return Ok(()) };
        if state.owns_all(&self.writer, claimed.iter()) {
            return Ok(());
        }
        Err(JobLogError::Fenced { at: state.number, by: "none".into() })
    }

    fn is_not_replaced(&self) -> Result<(), JobLogError> {
        match &self.replaced {
            Some((at, by)) => Err(JobLogError::Fenced { at: *at, by: by.clone() }),
            None => Ok(()),
        }
    }

    /// One number is fought for until it is taken, by us or by another.
    async fn create(&self, entry: &Entry, tries: &mut u32) -> Result<Race, JobLogError> {
        let path = self.entry_path(entry.number);
        let body = Bytes::from(serde_json::to_vec(entry).unwrap_or_default());
        loop {
            self.environment.crash_point("before-append");
            let created = put_new(&*self.store, &path, body.clone()).await;
            self.environment.crash_point("after-append");
            let Err(error) = created else { return Ok(Race::Won) };
            match self.read_entry(entry.number).await {
                Ok(Some(there)) if there.writer == entry.writer && there.attempt == entry.attempt => {
                    return Ok(Race::Won);
                }
                Ok(Some(other)) => return Ok(Race::Lost(Box::new(other))),
                Ok(None) | Err(JobLogError::Store(_)) => {
                    tracing::warn!(entry = entry.number, %error, "the job log did not answer an append; asking again");
                    self.metrics.health.suffer(error.to_string());
                    self.environment.sleep(backoff(&*self.environment, *tries)).await;
                    *tries += 1;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// A number that was folded and deleted can be created again by a process that slept through it. The snapshots tell.
    ///
    /// What was above the newest snapshot when they were last listed is folded later, and stays for the retention after
    /// that: so they need not be listed again for a while. That an entry can still be read proves nothing of the next
    /// one, since the entry may be left over from a clean-up that was cut short, or from a process that was too late.
    async fn prove_not_folded(&mut self, number: u64) -> Result<(), JobLogError> {
        if self.environment.elapsed().saturating_sub(self.listed) < self.settings.retention / 2 {
            return Ok(());
        }
        self.look_at_snapshots(number).await
    }

    /// A snapshot at or above a number makes what stands there void: it was folded away before.
    async fn look_at_snapshots(&mut self, number: u64) -> Result<(), JobLogError> {
        let mut asked = self.environment.elapsed();
        let mut tries = 0;
        let newest = loop {
            match self.newest_snapshot().await {
                Ok(newest) => break newest,
                Err(error) => {
                    tracing::warn!(%error, "the job log's snapshots cannot be listed; asking again");
                    self.environment.sleep(backoff(&*self.environment, tries)).await;
                    tries += 1;
                    asked = self.environment.elapsed();
                }
            }
        };
        match newest {
            Some(snapshot) if snapshot >= number => Err(JobLogError::Fenced { at: snapshot, by: "a successor".into() }),
            _ => {
                self.listed = asked;
                Ok(())
            }
        }
    }

    /// An entry that does not follow from what is known may stand at a number that was folded away: then we are too late.
    async fn take_in_another_s(&mut self, entry: &Entry) -> Result<(), JobLogError> {
        let taken = self.take_in(entry);
        if taken.is_err() {
            self.look_at_snapshots(entry.number).await?;
        }
        taken
    }

    fn take_in(&mut self, entry: &Entry) -> Result<(), JobLogError> {
        match &mut self.state {
            Some(state) => state.apply(entry)?,
            None => self.state = Some(LogState::born(entry)?),
        }
        self.since_fold += matches!(entry.kind, Kind::Checkpoint(_)) as u64;
        let claims = matches!(entry.kind, Kind::Claim(_)) && entry.writer != self.writer;
        if claims && self.claimed.is_some() && self.replaced.is_none() {
            self.replaced = Some((entry.number, entry.writer.clone()));
        }
        Ok(())
    }

    /// The newest snapshot and everything after it. A cut that passes the reader by makes it start over.
    async fn read_all(&mut self) -> Result<(), JobLogError> {
        loop {
            let snapshot = self.newest_snapshot().await?;
            self.state = match snapshot {
                Some(number) => match self.read_snapshot(number).await? {
                    Some(state) => Some(state),
                    None => continue,
                },
                None => None,
            };
            loop {
                let next = self.state.as_ref().map_or(1, |s| s.number + 1);
                match self.read_entry(next).await? {
                    Some(entry) => {
                        if let Err(error) = self.take_in(&entry) {
                            // A process that was too late may have left an entry at a number that was folded away.
                            if self.newest_snapshot().await?.is_none_or(|newest| newest < next) {
                                return Err(error);
                            }
                            break;
                        }
                    }
                    None => break,
                }
            }
            let reached = self.state.as_ref().map_or(0, |s| s.number);
            self.listed = self.environment.elapsed();
            if self.newest_snapshot().await?.is_none_or(|newest| newest <= reached) {
                return Ok(());
            }
        }
    }

    async fn newest_snapshot(&self) -> Result<Option<u64>, object_store::Error> {
        let listed: Vec<_> = self.store.list(Some(&self.folder("snapshots"))).try_collect().await?;
        Ok(listed.iter().filter_map(|m| m.location.filename()?.strip_suffix(".json")?.parse().ok()).max())
    }

    async fn read_snapshot(&self, number: u64) -> Result<Option<LogState>, JobLogError> {
        let Some(body) = get(&*self.store, &self.snapshot_path(number)).await? else { return Ok(None) };
        let parsed: LogState = serde_json::from_slice(&body)
            .map_err(|e| JobLogError::Unreadable { number, what: format!("snapshot: {e}") })?;
        if parsed.version > VERSION {
            return Err(LogError::Version { number, found: parsed.version }.into());
        }
        Ok(Some(parsed))
    }

    async fn read_entry(&self, number: u64) -> Result<Option<Entry>, JobLogError> {
        let Some(body) = get(&*self.store, &self.entry_path(number)).await? else { return Ok(None) };
        let parsed = serde_json::from_slice(&body);
        parsed.map(Some).map_err(|e| JobLogError::Unreadable { number, what: e.to_string() })
    }

    /// Creates one object twice. Some stores that speak S3 take the condition and ignore it.
    async fn probe(&self) -> Result<(), JobLogError> {
        let path = self.folder("probe").join(self.environment.writer_id());
        put_new(&*self.store, &path, Bytes::from_static(b"{}")).await?;
        let second = put_new(&*self.store, &path, Bytes::from_static(b"{}")).await;
        delete(&*self.store, &path).await?;
        match second {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => Err(JobLogError::NoConditionalCreate(path.to_string())),
        }
    }

    fn entry_path(&self, number: u64) -> Path {
        self.folder("log").join(format!("{number:020}.json"))
    }

    fn snapshot_path(&self, number: u64) -> Path {
        self.folder("snapshots").join(format!("{number:020}.json"))
    }
}

enum Race {
    Won,
    Lost(Box<Entry>),
}

/// The path of a name (with slashes) in the job's folder.
pub fn beside(root: &Path, name: &str) -> Path {
    name.split('/').fold(root.clone(), |path, piece| path.join(piece))
}

/// Writes an object that must not be there yet.
pub async fn put_new(store: &dyn ObjectStore, path: &Path, body: Bytes) -> Result<(), object_store::Error> {
    store.put_opts(path, body.into(), PutOptions::from(PutMode::Create)).await.map(|_| ())
}

async fn get(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>, object_store::Error> {
    match store.get(path).await {
        Ok(found) => Ok(Some(found.bytes().await?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn delete(store: &dyn ObjectStore, path: &Path) -> Result<(), object_store::Error> {
    match store.delete(path).await {
        Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}
