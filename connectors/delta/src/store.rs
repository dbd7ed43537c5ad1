//! Where a table lives: its URL, its object store, and its state when it is opened.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use deltalake::kernel::{Metadata, Protocol};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use engine::sink::SinkError;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde_json::Value;
use url::Url;

use crate::azure;
use crate::cause::{of_the_disk, reading};
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
    table_at(&options.path, &options.storage)
}

/// The same, by its path and the options of its object store.
pub fn table_at(path: &str, storage: &[(String, String)]) -> Result<DeltaTable, SinkError> {
    azure::register();
    let url = table_url(path)?;
    if let Ok(folder) = url.to_file_path() {
        std::fs::create_dir_all(&folder).map_err(|e| of_the_disk(path, &e))?;
    }
    let storage: HashMap<String, String> = storage.iter().cloned().collect();
    let failed = |e: DeltaTableError| SinkError::failed(path, first_line(&e));
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

impl Opened {
    pub fn of(version: u64, protocol: &Protocol, metadata: &Metadata, path: &str) -> Result<Self, SinkError> {
        let failed = |e: serde_json::Error| SinkError::failed(path, e);
        let protocol = serde_json::to_value(protocol).map_err(failed)?;
        let metadata = serde_json::to_value(metadata).map_err(failed)?;
        let schema = serde_json::from_str(metadata["schemaString"].as_str().unwrap_or("{}")).map_err(failed)?;
        Ok(Opened { version, protocol, metadata, schema })
    }

    /// The table's partition columns.
    pub fn partition_by(&self) -> Vec<String> {
        let columns = self.metadata["partitionColumns"].as_array().into_iter().flatten();
        columns.filter_map(Value::as_str).map(String::from).collect()
    }
}

/// Whether a table's log lies there.
pub async fn is_table(table: &DeltaTable, path: &str) -> Result<bool, SinkError> {
    table.verify_deltatable_existence().await.map_err(|error| match error {
        DeltaTableError::ObjectStore { source } => reading(path, &source),
        other => SinkError::failed(path, first_line(&other)),
    })
}

/// The first file there that is somebody's data. Delta, as Hadoop, looks over names that begin with `_` or a dot.
pub async fn foreign_file(store: &Arc<dyn ObjectStore>, path: &str) -> Result<Option<Path>, SinkError> {
    let mut listed = store.list(None);
    loop {
        match listed.try_next().await {
            Ok(Some(file)) if file.location.as_ref().starts_with(['_', '.']) => {}
            Ok(file) => return Ok(file.map(|f| f.location)),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(reading(path, &error)),
        }
    }
}

/// Reads the table's newest state with the files that it consists of; `None` if there is no table yet.
pub async fn open(table: &mut DeltaTable, path: &str) -> Result<Option<Opened>, SinkError> {
    if !is_table(table, path).await? {
        return Ok(None);
    }
    let store = table.log_store().object_store(None);
    if let Err(error) = table.load().await {
        look_again(&*store, path, error).await?;
        table.load().await.map_err(|e| unreadable(path, &e))?;
    }
    let snapshot = table.snapshot().map_err(|e| SinkError::failed(path, e))?;
    Opened::of(snapshot.version(), snapshot.protocol(), snapshot.metadata(), path).map(Some)
}

/// Reads something of a table's log, once more if it was just being cleaned.
pub async fn read_patiently<T, F: Future<Output = Result<T, DeltaTableError>>>(
    store: &dyn ObjectStore,
    path: &str,
    read: impl Fn() -> F,
) -> Result<T, SinkError> {
    match read().await {
        Ok(found) => Ok(found),
        Err(error) => {
            look_again(store, path, error).await?;
            read().await.map_err(|e| unreadable(path, &e))
        }
    }
}

/// Whether to read a table's log once more after it could not be read, or why not. What the store refuses is judged by
/// asking it for something small; what remains is the table's own: a second look tells it from a log that was just being
/// cleaned.
async fn look_again(store: &dyn ObjectStore, path: &str, error: DeltaTableError) -> Result<(), SinkError> {
    last_checkpoint(store).await.map_err(|e| reading(path, &e))?;
    if of_the_store(&error) {
        return Err(SinkError::retry(path, first_line(&error)));
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    Ok(())
}

/// Why a table's log cannot be read, after a second look.
fn unreadable(path: &str, error: &DeltaTableError) -> SinkError {
    match of_the_store(error) {
        true => SinkError::retry(path, first_line(error)),
        false => SinkError::failed(path, format!("the table cannot be opened: {}", first_line(error))),
    }
}

/// Whether the store was in the way. The library does not name the type of these errors, only their words.
fn of_the_store(error: &DeltaTableError) -> bool {
    let words = ["interacting with object store", "File not found", "Join failure", "error sending request"];
    matches!(error, DeltaTableError::ObjectStore { .. } | DeltaTableError::Io { .. })
        || words.iter().any(|w| error.to_string().contains(w))
}

/// Errors of the library may carry a backtrace behind their first line.
fn first_line(error: &DeltaTableError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

/// The paths of all files that an opened table consists of.
pub async fn live_paths(table: &DeltaTable) -> Result<HashSet<String>, DeltaTableError> {
    let files = table.get_active_add_actions_by_predicate(None);
    files.map_ok(|file| file.path().to_string()).try_collect().await
}

/// The log entry of a version.
pub fn entry_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

/// The version of a log entry; `None` if the path is that of something else.
pub fn entry_version(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}

/// The versions whose log entries are there, in order.
pub async fn log_versions(store: &dyn ObjectStore) -> Result<Vec<u64>, object_store::Error> {
    let listed: Vec<_> = store.list(Some(&Path::from("_delta_log"))).try_collect().await?;
    let mut versions: Vec<u64> = listed.iter().filter_map(|o| entry_version(&o.location)).collect();
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
pub async fn create(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    body: impl Into<PutPayload>,
) -> Result<(), object_store::Error> {
    store.put_opts(path, body.into(), PutOptions::from(PutMode::Create)).await.map(|_| ())
}

/// Actions as the lines of a log entry.
pub fn lines(actions: &[Value]) -> Bytes {
    actions.iter().map(|a| format!("{a}\n")).collect::<String>().into()
}
