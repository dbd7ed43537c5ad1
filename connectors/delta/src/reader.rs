//! Reads a table back, for verification: what each commit added, and the rows of its files.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use engine::sink::SinkError;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::parquet_file::decode_path;
use crate::store::{log_versions, read_entry, table_at};

/// What one version of the table added.
#[derive(Debug, Clone)]
pub struct Commit {
    pub version: u64,
    /// When it was made, milliseconds since 1970, as the writer said.
    pub timestamp: i64,
    /// Within the table; [`TableReader::rows`] reads them.
    pub files: Vec<String>,
    /// Of all the files, as their statistics say.
    pub rows: u64,
}

/// A table, opened for reading. It reads the log's JSON entries and no checkpoint: enough for a table that is
/// younger than its log's retention.
pub struct TableReader {
    store: Arc<dyn ObjectStore>,
}

impl TableReader {
    /// The table in a local folder.
    pub fn local(folder: &std::path::Path) -> Result<Self, object_store::Error> {
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder)?;
        Ok(TableReader { store: Arc::new(store) })
    }

    /// The table in a store.
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        TableReader { store }
    }

    /// The table at a path or URL, with options of its object store, as a job names them.
    pub fn at(path: &str, storage: &[(String, String)]) -> Result<Self, SinkError> {
        let table = table_at(path, storage)?;
        Ok(TableReader::of(table.log_store().object_store(None)))
    }

    /// The commits that added rows, from the first one on, as far as the log still holds them. Compactions add none.
    pub async fn commits(&self) -> Result<Vec<Commit>, object_store::Error> {
        let entries = self.entries().await?;
        Ok(entries.iter().map(|(version, actions)| commit(*version, actions)).filter(|c| !c.files.is_empty()).collect())
    }

    /// The files that the table consists of now.
    pub async fn live_files(&self) -> Result<BTreeSet<String>, object_store::Error> {
        let mut live = BTreeSet::new();
        for (_, actions) in self.entries().await? {
            let paths =
                |kind: &'static str| actions.iter().filter_map(move |a| a[kind]["path"].as_str()).map(decode_path);
            paths("remove").for_each(|path| _ = live.remove(&path));
            live.extend(paths("add"));
        }
        Ok(live)
    }

    /// The rows that the table consists of now, with these columns, or all. Partition columns are not in the files.
    pub async fn live_rows(&self, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, String> {
        let mut rows = vec![];
        for file in self.live_files().await.map_err(|e| e.to_string())? {
            rows.extend(self.rows(&file, columns).await?);
        }
        Ok(rows)
    }

    /// Rows of one data file, with these columns, or all.
    pub async fn rows(&self, file: &str, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, String> {
        let body = self.store.get(&Path::from(file)).await.map_err(|e| e.to_string())?;
        let body = body.bytes().await.map_err(|e| e.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(|e| e.to_string())?;
        let mask = columns.map(|names| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied()));
        let builder = match mask {
            Some(mask) => builder.with_projection(mask),
            None => builder,
        };
        let reader = builder.build().map_err(|e| e.to_string())?;
        reader.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
    }

    async fn entries(&self) -> Result<Vec<(u64, Vec<Value>)>, object_store::Error> {
        let mut entries = vec![];
        for version in log_versions(&*self.store).await? {
            if let Some(actions) = read_entry(&*self.store, version).await? {
                entries.push((version, actions));
            }
        }
        Ok(entries)
    }
}

fn commit(version: u64, actions: &[Value]) -> Commit {
    let adds: Vec<&Value> =
        actions.iter().map(|a| &a["add"]).filter(|a| a["dataChange"] == Value::Bool(true)).collect();
    let count = |add: &&Value| {
        let stats: Value = serde_json::from_str(add["stats"].as_str()?).ok()?;
        stats["numRecords"].as_u64()
    };
    Commit {
        version,
        timestamp: actions.iter().find_map(|a| a["commitInfo"]["timestamp"].as_i64()).unwrap_or(0),
        files: adds.iter().filter_map(|a| a["path"].as_str()).map(decode_path).collect(),
        rows: adds.iter().filter_map(count).sum(),
    }
}
