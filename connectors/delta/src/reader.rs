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

/// A table's files, as its log has them.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Of the log; `None` if there is none.
    pub first_version: Option<u64>,
    /// The files that the table consists of now.
    pub live: BTreeSet<String>,
    /// One of them of which some rows are deleted.
    pub with_deletion_vector: Option<String>,
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
        Ok(self.contents().await?.live)
    }

    /// What the log says of the table's files.
    pub async fn contents(&self) -> Result<Contents, object_store::Error> {
        let (mut contents, mut with_vector) = (Contents::default(), BTreeSet::new());
        for (version, actions) in self.entries().await? {
            contents.first_version.get_or_insert(version);
            for path in actions.iter().filter_map(|a| a["remove"]["path"].as_str()).map(decode_path) {
                contents.live.remove(&path);
                with_vector.remove(&path);
            }
            for add in actions.iter().map(|action| &action["add"]) {
                let Some(path) = add["path"].as_str().map(decode_path) else { continue };
                if add["deletionVector"].is_object() {
                    with_vector.insert(path.clone());
                }
                contents.live.insert(path);
            }
        }
        contents.with_deletion_vector = with_vector.into_iter().next();
        Ok(contents)
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
        self.rows_at(&Path::from(file), columns).await
    }

    /// The same of a file by its path in the store. Columns are found whatever their case.
    pub async fn rows_at(&self, file: &Path, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, String> {
        let body = self.store.get(file).await.map_err(|e| e.to_string())?;
        let body = body.bytes().await.map_err(|e| e.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(|e| e.to_string())?;
        let fields = builder.parquet_schema().root_schema().get_fields();
        let roots = |names: &[&str]| {
            let is_wanted = |name: &str| names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
            fields.iter().enumerate().filter(|(_, f)| is_wanted(f.name())).map(|(at, _)| at).collect::<Vec<_>>()
        };
        let mask = columns.map(|names| ProjectionMask::roots(builder.parquet_schema(), roots(names)));
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
