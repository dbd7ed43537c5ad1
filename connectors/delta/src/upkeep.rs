//! What is done for a table beside the commits: it delays none, and its failure is nobody's loss.

use std::future::Future;
use std::sync::Arc;

use engine::sink::{Names, SinkError};

use crate::checkpoint::{self, checkpoint};
use crate::commit::Log;
use crate::compaction::{self, compact};
use crate::log_cleanup::clean_log;
use crate::options::DeltaOptions;
use crate::vacuum::vacuum;

/// Starts what a commit makes due.
pub struct Upkeep {
    options: Arc<DeltaOptions>,
    /// Held while the log is checkpointed. What becomes due meanwhile is left to a later commit: each reads the whole log
    /// since the last one, and more at a time would only be slower, until no file may be opened any more.
    checkpointing: Arc<tokio::sync::Mutex<()>>,
    /// Held while files are joined: one pass at a time.
    compacting: Arc<tokio::sync::Mutex<()>>,
}

impl Upkeep {
    pub fn new(options: Arc<DeltaOptions>) -> Self {
        Upkeep { options, checkpointing: Arc::default(), compacting: Arc::default() }
    }

    /// After a commit; `before` is the version that the log had when it began.
    pub fn after(&self, log: &mut Log, before: u64, names: &Names) {
        if checkpoint::due(before, log.version, log.checkpoint_every) {
            self.checkpoint(log.version);
        }
        if self.options.compaction && log.written.is_some_and(compaction::due) {
            self.compact(names.clone());
        }
        if std::mem::take(&mut log.opened_day) {
            self.clean();
        }
    }

    fn checkpoint(&self, version: u64) {
        let options = self.options.clone();
        alone(&self.checkpointing, "the table's log was not checkpointed", async move {
            checkpoint(&options, version).await
        });
    }

    fn compact(&self, names: Names) {
        let options = self.options.clone();
        alone(
            &self.compacting,
            "the table's small files were not joined",
            async move { compact(&options, &names).await },
        );
    }

    /// Once a day, by whoever makes the table's first commit of it.
    fn clean(&self) {
        let options = self.options.clone();
        let now = chrono::Utc::now();
        beside("the table's log was not cleaned", {
            let options = options.clone();
            async move { clean_log(&options, now).await.map(|_| ()) }
        });
        if self.options.compaction {
            beside("replaced files were not deleted", async move { vacuum(&options, now).await.map(|_| ()) });
        }
    }
}

/// As `beside`, unless the same goes on already.
fn alone(
    going_on: &Arc<tokio::sync::Mutex<()>>,
    failure: &'static str,
    work: impl Future<Output = Result<(), SinkError>> + Send + 'static,
) {
    let Ok(held) = going_on.clone().try_lock_owned() else { return };
    beside(failure, async move {
        let _held = held;
        work.await
    });
}

/// On a thread that nobody waits for: encoding a checkpoint or a joined file keeps one busy.
fn beside(failure: &'static str, work: impl Future<Output = Result<(), SinkError>> + Send + 'static) {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = runtime.block_on(work) {
            tracing::warn!(%error, "{failure}; a later commit will try again");
        }
    });
}
