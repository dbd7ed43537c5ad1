//! Reads a table back, for verification: what each commit added, and the rows of its files.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::store::read_entry;

/// What one version of the table added.
#[derive(Debug, Clone)]
pub struct Commit {
    pub version: u64,
    /// When it was made, milliseconds since 1970, as the writer said.
    pub timestamp: i64,
    pub files: Vec<String>,
}

/// A local table, opened for reading.
pub struct TableReader {
    store: Arc<dyn ObjectStore>,
}

impl TableReader {
    pub fn local(folder: &std::path::Path) -> Result<Self, object_store::Error> {
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder)?;
        Ok(TableReader { store: Arc::new(store) })
    }

    /// The commits that added rows, from the first one on, as far as the log still holds them.
    pub async fn commits(&self) -> Result<Vec<Commit>, object_store::Error> {
        let (mut commits, mut version) = (vec![], 0);
        while let Some(actions) = read_entry(&*self.store, version).await? {
            let adds = actions.iter().map(|a| &a["add"]).filter(|a| a["dataChange"] == Value::Bool(true));
            let files: Vec<String> =
                adds.filter_map(|a| a["path"].as_str()).map(|p| p.replace("%20", " ").replace("%25", "%")).collect();
            let timestamp = actions.iter().find_map(|a| a["commitInfo"]["timestamp"].as_i64()).unwrap_or(0);
            if !files.is_empty() {
                commits.push(Commit { version, timestamp, files });
            }
            version += 1;
        }
        Ok(commits)
    }

    /// Rows of one data file, with these columns, or all.
    pub async fn rows(&self, file: &str, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, String> {
        let body = self.store.get(&Path::from(file)).await.map_err(|e| e.to_string())?;
        let body = body.bytes().await.map_err(|e| e.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(|e| e.to_string())?;
        let mask = columns.map(|c| ProjectionMask::columns(builder.parquet_schema(), c.iter().copied()));
        let builder = match mask {
            Some(mask) => builder.with_projection(mask),
            None => builder,
        };
        let reader = builder.build().map_err(|e| e.to_string())?;
        reader.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
    }
}
