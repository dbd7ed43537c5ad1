//! Showing entries: one Delta log entry each try, after everything that others committed was read.

use std::collections::HashMap;
use std::sync::Arc;

use engine::environment::crash_point;
use engine::sink::{Committable, SinkContext, SinkError};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

use crate::cause;
use crate::parquet_file::DataFile;
use crate::partitioning::listed;
use crate::store::{create, entry_path, is_there, last_checkpoint, lines, read_entry};

/// What this process knows of the table's log.
pub struct Log {
    pub store: Arc<dyn ObjectStore>,
    pub path: String,
    /// The newest version that was read or written.
    pub version: u64,
    /// The newest version that was seen to be part of the table, and not only to lie in its folder.
    pub proven: u64,
    /// The newest version that this process wrote.
    pub written: Option<u64>,
    /// The day of the newest version, counted from 1970.
    pub day: i64,
    /// Whether the newest version that this process wrote was the table's first of its day.
    pub opened_day: bool,
    /// By appId: the highest entry that the table shows.
    pub shown: HashMap<String, u64>,
    /// Set when another writer changed the schema or the protocol, or when the log below was cleaned: the table is
    /// opened anew before the next append.
    pub changed: bool,
    /// Versions between two checkpoints of the log.
    pub checkpoint_every: u64,
    /// The table's partition columns.
    pub partition_by: Vec<String>,
}

/// The name under which a writer's transactions stand in the table. Born with the job's folder and the process start:
/// nobody makes it again.
pub fn app_id(context: &SinkContext, writer: &str) -> String {
    format!("{}/{}/{writer}", context.log_id, context.sink)
}

impl Log {
    fn reading(&self, error: &object_store::Error) -> SinkError {
        cause::reading(&self.path, error)
    }

    fn trouble(&self, error: impl std::fmt::Display) -> SinkError {
        SinkError::retry(&self.path, error)
    }

    /// Reads what was committed since. Each commit is read once, so the cost does not grow with the log.
    pub async fn catch_up(&mut self) -> Result<(), SinkError> {
        while let Some(actions) = read_entry(&*self.store, self.version + 1).await.map_err(|e| self.reading(&e))? {
            self.version += 1;
            self.take_in(&actions);
        }
        Ok(())
    }

    fn take_in(&mut self, actions: &[Value]) {
        self.day = day_of(actions).unwrap_or(self.day);
        for action in actions {
            if let (Some(app), Some(version)) = (action["txn"]["appId"].as_str(), action["txn"]["version"].as_u64()) {
                let shown = self.shown.entry(app.to_string()).or_default();
                *shown = version.max(*shown);
            }
            self.changed |= action.get("metaData").is_some() || action.get("protocol").is_some();
        }
    }

    /// Shows the entries of one writer, in one commit. Done already, by us or by a successor: nothing happens.
    pub async fn show(&mut self, context: &SinkContext, entries: &[Committable]) -> Result<(), SinkError> {
        let Some(last) = entries.last() else { return Ok(()) };
        let app = app_id(context, &last.writer);
        loop {
            if self.version > self.proven {
                self.prove().await?;
            }
            let shown = self.shown.get(&app).copied();
            let missing: Vec<&Committable> =
                entries.iter().filter(|e| shown.is_none_or(|shown| e.entry > shown)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if self.changed {
                return Err(self.trouble("another writer changed the table's schema or protocol; looking at it again"));
            }
            let files = self.files(context, &missing).await?;
            let body = lines(&commit_actions(&app, last.entry, &files, context));
            crash_point("before-table-entry");
            match create(&self.store, &entry_path(self.version + 1), body).await {
                Ok(()) => {
                    crash_point("after-table-entry");
                    self.version += 1;
                    self.prove().await?;
                    self.written = Some(self.version);
                    let today = chrono::Utc::now().timestamp_millis().div_euclid(DAY);
                    self.opened_day = today > std::mem::replace(&mut self.day, today);
                    self.shown.insert(app, last.entry);
                    return Ok(());
                }
                // Taken by another, or by our own try whose answer was lost: reading tells which. While the number is
                // free there is nothing to read: whoever wins it knows everything that was committed before.
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    self.catch_up().await?;
                }
                Err(error) => return Err(cause::writing(&self.path, &error)),
            }
        }
    }

    /// Whether what was read and written since the last proof is part of the table. A process that slept while others
    /// checkpointed and cleaned the log finds the numbers of their entries free, and what it writes there nobody sees.
    async fn prove(&mut self) -> Result<(), SinkError> {
        let stands = above_checkpoint(&*self.store, self.proven).await;
        if !matches!(stands, Ok(true)) {
            self.changed = true;
        }
        if !stands.map_err(|e| self.reading(&e))? {
            return Err(self.trouble("the table's log went on and was cleaned meanwhile; looking at it again"));
        }
        self.proven = self.version;
        Ok(())
    }

    /// The files of the tokens. What a predecessor prepared may be long ago: it must still be there.
    async fn files(&self, context: &SinkContext, entries: &[&Committable]) -> Result<Vec<DataFile>, SinkError> {
        let mut files = vec![];
        for entry in entries {
            for token in &entry.tokens {
                let of_token: Vec<DataFile> =
                    serde_json::from_value(token["files"].clone()).map_err(|e| SinkError::failed(&self.path, e))?;
                self.check_partitioning(entry.entry, &of_token)?;
                if entry.writer != context.writer {
                    self.check_there(entry.entry, &of_token).await?;
                }
                files.extend(of_token);
            }
        }
        Ok(files)
    }

    /// Somebody may have put another table in the place of the one that the files were written for.
    fn check_partitioning(&self, entry: u64, files: &[DataFile]) -> Result<(), SinkError> {
        let fits = |file: &DataFile| {
            file.partition_values.len() == self.partition_by.len()
                && self.partition_by.iter().all(|column| file.partition_values.contains_key(column))
        };
        let Some(other) = files.iter().find(|file| !fits(file)) else { return Ok(()) };
        let of_file: Vec<String> = other.partition_values.keys().cloned().collect();
        let what = format!(
            "the table was replaced by one that is {}, and the rows of job log entry {entry} were written for one that is {}; \
             restore the table, or begin anew under another --name",
            listed(&self.partition_by),
            listed(&of_file)
        );
        Err(SinkError::failed(&self.path, what))
    }

    async fn check_there(&self, entry: u64, files: &[DataFile]) -> Result<(), SinkError> {
        for file in files {
            match self.store.head(&Path::from(file.path.as_str())).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    let what = format!(
                        "job log entry {entry} names the file {}, which is gone: was VACUUM run while the job was stopped? \
                         Its rows cannot be shown; restore the file, or begin anew under another --name",
                        file.path
                    );
                    return Err(SinkError::failed(&self.path, what));
                }
                Err(error) => return Err(self.reading(&error)),
            }
        }
        Ok(())
    }
}

/// A day in milliseconds.
const DAY: i64 = 86_400_000;

/// The day on which an entry was written, as it says; days since 1970.
pub fn day_of(actions: &[Value]) -> Option<i64> {
    actions.iter().find_map(|a| a["commitInfo"]["timestamp"].as_i64()).map(|millis| millis.div_euclid(DAY))
}

/// Whether what follows `version` in the log is what readers see: no checkpoint lies above it, and it was not cleaned.
/// A checkpoint above it may be a harmless one of this very minute; only opening the table tells.
pub async fn above_checkpoint(store: &dyn ObjectStore, version: u64) -> Result<bool, object_store::Error> {
    let (checkpoint, there) = futures::try_join!(last_checkpoint(store), is_there(store, version))?;
    Ok(there && checkpoint.is_none_or(|checkpoint| checkpoint <= version))
}

fn commit_actions(app: &str, entry: u64, files: &[DataFile], context: &SinkContext) -> Vec<Value> {
    let now = chrono::Utc::now().timestamp_millis();
    let rows: u64 = files.iter().map(|f| f.rows).sum();
    let mut actions = vec![
        json!({"commitInfo": {
            "timestamp": now,
            "operation": "STREAMING UPDATE",
            "operationParameters": {"outputMode": "Append", "queryId": context.log_id, "epochId": entry.to_string()},
            "operationMetrics": {"numFiles": files.len().to_string(), "numOutputRows": rows.to_string()},
            "isolationLevel": "WriteSerializable",
            "isBlindAppend": true,
            "engineInfo": concat!("millrace/", env!("CARGO_PKG_VERSION")),
        }}),
        json!({"txn": {"appId": app, "version": entry, "lastUpdated": now}}),
    ];
    actions.extend(files.iter().map(|f| f.add_action(now)));
    actions
}
