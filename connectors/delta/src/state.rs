//! A table's state as its writers need it: without the files that it consists of, of which there may be a million.

use std::sync::Arc;

use delta_kernel::{DeltaResult, Engine, Snapshot as Kernel};
use deltalake::kernel::Snapshot;
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableError};
use engine::sink::SinkError;
use object_store::ObjectStore;
use url::Url;

use crate::store::{Opened, is_table, read_patiently};

pub struct TableState {
    snapshot: Arc<Snapshot>,
    log_store: LogStoreRef,
    path: String,
}

impl TableState {
    /// The newest state; `None` if there is no table yet.
    pub async fn newest(table: &DeltaTable, path: &str) -> Result<Option<Self>, SinkError> {
        if !is_table(table, path).await? {
            return Ok(None);
        }
        let log_store = table.log_store();
        let store = log_store.object_store(None);
        let snapshot = read_patiently(&*store, path, || Snapshot::try_new(&*log_store, None)).await?;
        Ok(Some(TableState { snapshot: Arc::new(snapshot), log_store, path: path.to_string() }))
    }

    /// The newest state, read from this one on: a long log is not read again.
    pub async fn newer(self) -> Result<Self, SinkError> {
        let TableState { snapshot, log_store, path } = self;
        let store = log_store.object_store(None);
        let update = || snapshot.clone().update(log_store.engine(None), None);
        let snapshot = read_patiently(&*store, &path, update).await?;
        Ok(TableState { snapshot, log_store, path })
    }

    pub fn opened(&self) -> Result<Opened, SinkError> {
        let Self { snapshot, path, .. } = self;
        Opened::of(snapshot.version(), snapshot.protocol(), snapshot.metadata(), path)
    }

    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.log_store.object_store(None)
    }

    /// The highest entry of a writer that the table shows.
    pub async fn shown(&self, app_id: &str) -> Result<Option<u64>, SinkError> {
        let shown = read_patiently(&*self.store(), &self.path, || self.transaction_version(app_id)).await?;
        Ok(shown.map(|version| version as u64))
    }

    async fn transaction_version(&self, app_id: &str) -> Result<Option<i64>, DeltaTableError> {
        let (version, app_id) = (self.snapshot.version(), app_id.to_string());
        let read = move |engine: &dyn Engine, root: Url| {
            Kernel::builder_for(root).at_version(version).build(engine)?.get_app_id_version(&app_id, engine)
        };
        on_a_thread(&self.log_store, read).await
    }
}

/// Checkpoints a version of the table's log, unless there is a checkpoint of it.
pub async fn write_checkpoint(table: &DeltaTable, version: u64) -> Result<(), DeltaTableError> {
    let write = move |engine: &dyn Engine, root: Url| {
        Kernel::builder_for(root).at_version(version).build(engine)?.checkpoint(engine, None).map(|_| ())
    };
    on_a_thread(&table.log_store(), write).await
}

/// Does what waits for the store where nobody else waits for the thread.
async fn on_a_thread<T: Send + 'static>(
    log_store: &LogStoreRef,
    work: impl FnOnce(&dyn Engine, Url) -> DeltaResult<T> + Send + 'static,
) -> Result<T, DeltaTableError> {
    let engine = log_store.engine(None);
    let mut root = log_store.root_url().clone();
    if !root.path().ends_with('/') {
        root.set_path(&format!("{}/", root.path()));
    }
    let done = tokio::task::spawn_blocking(move || work(&*engine, root)).await;
    Ok(done.map_err(|e| DeltaTableError::Generic(e.to_string()))??)
}
