//! Where a table lives: its URL, its object store, and its state when it is opened.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use engine::sink::SinkError;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde_json::Value;
use url::Url;

use crate::options::DeltaOptions;

/// A path as people write it, as a URL: a folder, or a URL with a scheme.
pub fn table_url(path: &str) -> Result<Url, SinkError> {
    if path.contains("://") {
        return Url::parse(path).map_err(|e| SinkError::failed(path, e));
    }
    let full = std::path::absolute(path).map_err(|e| SinkError::failed(path, e))?;
    Url::from_directory_path(&full).map_err(|()| SinkError::failed(path, "is no path of a folder"))
}

/// Whether the table's place is a local folder that is not there; opening the place would create it.
pub fn missing_folder(path: &str) -> Result<bool, SinkError> {
    Ok(table_url(path)?.to_file_path().is_ok_and(|folder| !folder.exists()))
}

/// Opens the place of a table, whether there is one yet or not.
pub fn place(options: &DeltaOptions) -> Result<DeltaTable, SinkError> {
    deltalake::azure::register_handlers(None);
    let url = table_url(&options.path)?;
    if let Ok(folder) = url.to_file_path() {
        std::fs::create_dir_all(&folder).map_err(|e| SinkError::failed(&options.path, e))?;
    }
    let storage: HashMap<String, String> = options.storage.iter().cloned().collect();
    let failed = |e: DeltaTableError| SinkError::failed(&options.path, e);
    DeltaTableBuilder::from_url(url).map_err(failed)?.with_storage_options(storage).build().map_err(failed)
}

/// What a table says about itself.
pub struct Opened {
    pub version: u64,
    pub protocol: Value,
    /// The metaData action.
    pub metadata: Value,
    pub schema: Value,
}

/// Reads the table's newest state; `None` if there is no table yet.
pub async fn open(table: &mut DeltaTable, path: &str) -> Result<Option<Opened>, SinkError> {
    let failed = |e: &dyn std::fmt::Display| SinkError::retry(path, e);
    if !table.verify_deltatable_existence().await.map_err(|e| failed(&e))? {
        return Ok(None);
    }
    table.load().await.map_err(|e| failed(&e))?;
    let snapshot = table.snapshot().map_err(|e| failed(&e))?;
    let protocol = serde_json::to_value(snapshot.protocol()).map_err(|e| failed(&e))?;
    let metadata = serde_json::to_value(snapshot.metadata()).map_err(|e| failed(&e))?;
    let schema = serde_json::from_str(metadata["schemaString"].as_str().unwrap_or("{}")).map_err(|e| failed(&e))?;
    Ok(Some(Opened { version: snapshot.version(), protocol, metadata, schema }))
}

/// The log entry of a version.
pub fn entry_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

/// The versions whose log entries are there, in order.
pub async fn log_versions(store: &dyn ObjectStore) -> Result<Vec<u64>, object_store::Error> {
    let listed: Vec<_> = store.list(Some(&Path::from("_delta_log"))).try_collect().await?;
    let version = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
    let mut versions: Vec<u64> = listed.iter().filter_map(|o| version(&o.location)).collect();
    versions.sort_unstable();
    Ok(versions)
}

/// The actions of a version; `None` if it is not there.
pub async fn read_entry(store: &dyn ObjectStore, version: u64) -> Result<Option<Vec<Value>>, object_store::Error> {
    let body = match store.get(&entry_path(version)).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let actions = body.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    Ok(Some(actions.collect()))
}

/// Whether the entry of a version is there.
pub async fn is_there(store: &dyn ObjectStore, version: u64) -> Result<bool, object_store::Error> {
    match store.head(&entry_path(version)).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The version of the newest checkpoint, as the log's own note of it says.
pub async fn last_checkpoint(store: &dyn ObjectStore) -> Result<Option<u64>, object_store::Error> {
    let note = match store.get(&Path::from("_delta_log/_last_checkpoint")).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let note: Option<Value> = serde_json::from_slice(&note).ok();
    Ok(note.and_then(|n| n["version"].as_u64()))
}

/// Creates what must not be there yet.
pub async fn create(store: &Arc<dyn ObjectStore>, path: &Path, body: Bytes) -> Result<(), object_store::Error> {
    store.put_opts(path, body.into(), PutOptions::from(PutMode::Create)).await.map(|_| ())
}

/// Actions as the lines of a log entry.
pub fn lines(actions: &[Value]) -> Bytes {
    actions.iter().map(|a| format!("{a}\n")).collect::<String>().into()
}
