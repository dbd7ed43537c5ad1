//! Log entries and checkpoints that newer checkpoints replace are deleted once the table's log retention is over. The
//! log is listed twice and never held: at a commit a second a month of it is millions of entries.

use chrono::{DateTime, TimeDelta, Utc};
use engine::sink::SinkError;
use futures::{StreamExt, TryStreamExt, future};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use serde_json::Value;

use crate::cause::reading;
use crate::options::DeltaOptions;
use crate::protocol::interval_days;
use crate::state::TableState;
use crate::store::{entry_version, place};

/// Days that log entries are kept, unless the table says otherwise (protocol: as Delta's other writers do).
const RETENTION_DAYS: f64 = 30.0;

/// Deletes what expired. Returns how many files went.
pub async fn clean_log(options: &DeltaOptions, now: DateTime<Utc>) -> Result<usize, SinkError> {
    let failed = |e: object_store::Error| reading(&options.path, &e);
    let Some(state) = TableState::newest(&place(options)?, &options.path).await? else { return Ok(0) };
    let opened = state.opened()?;
    let configuration = &opened.metadata["configuration"];
    if configuration["delta.enableExpiredLogCleanup"] == "false" {
        return Ok(0);
    }
    let store = state.store();
    let before = now - retention(configuration);
    let Some(base) = base(&*store, before, opened.version).await.map_err(failed)? else { return Ok(0) };
    let expired = store.list(Some(&Path::from("_delta_log"))).try_filter_map(move |file| {
        let expired = version_of(&file.location).is_some_and(|version| version < base) && file.last_modified < before;
        future::ok(expired.then_some(file.location))
    });
    let mut deletions = store.delete_stream(expired.boxed());
    let mut deleted = 0;
    while let Some(done) = deletions.next().await {
        match done {
            Ok(_) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    tracing::info!(
        table = options.path,
        files = deleted,
        base,
        "what a checkpoint replaced was deleted from the table's log"
    );
    Ok(deleted)
}

fn retention(configuration: &Value) -> TimeDelta {
    let configured = configuration["delta.logRetentionDuration"].as_str().and_then(interval_days);
    TimeDelta::seconds((configured.unwrap_or(RETENTION_DAYS) * 86_400.0) as i64)
}

/// The checkpoint that the kept part of the log stands on: the newest one at or below everything that is kept.
async fn base(store: &dyn ObjectStore, before: DateTime<Utc>, newest: u64) -> Result<Option<u64>, object_store::Error> {
    let mut oldest_kept = newest;
    let mut checkpoints = vec![];
    let mut listed = store.list(Some(&Path::from("_delta_log")));
    while let Some(ObjectMeta { location, last_modified, .. }) = listed.try_next().await? {
        checkpoints.extend(whole_checkpoint(&location));
        if let Some(version) = entry_version(&location).filter(|_| last_modified >= before) {
            oldest_kept = oldest_kept.min(version);
        }
    }
    Ok(checkpoints.into_iter().filter(|version| *version <= oldest_kept).max())
}

/// The version of a checkpoint that is complete when this one file is there; those in several parts may not be.
fn whole_checkpoint(path: &Path) -> Option<u64> {
    let parts: Vec<&str> = path.filename()?.split('.').collect();
    let (version, id) = match parts[..] {
        [version, "checkpoint", "parquet"] => (version, None),
        [version, "checkpoint", id, "parquet" | "json"] => (version, Some(id)),
        _ => return None,
    };
    id.is_none_or(|id| id.contains('-')).then(|| version.parse().ok()).flatten()
}

/// The version that a file of the log belongs to.
fn version_of(path: &Path) -> Option<u64> {
    let (version, rest) = path.filename()?.split_once('.')?;
    let known = rest == "json" || rest == "crc" || rest.starts_with("checkpoint.");
    (known && version.len() == 20).then(|| version.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tables_log_retention_counts() {
        let days = |configuration| retention(&configuration).num_days();
        assert_eq!(days(json!({})), 30);
        assert_eq!(days(json!({"delta.logRetentionDuration": "interval 2 weeks"})), 14);
    }

    #[test]
    fn a_checkpoint_in_parts_carries_nothing() {
        let version = |name: &str| whole_checkpoint(&Path::from(format!("_delta_log/{name}")));
        assert_eq!(version("00000000000000000100.checkpoint.parquet"), Some(100));
        assert_eq!(version("00000000000000000100.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json"), Some(100));
        assert_eq!(version("00000000000000000100.checkpoint.0000000001.0000000002.parquet"), None);
        assert_eq!(version("00000000000000000100.json"), None);
    }

    #[test]
    fn only_files_of_the_log_are_the_logs() {
        let version = |name: &str| version_of(&Path::from(format!("_delta_log/{name}")));
        assert_eq!(version("00000000000000000007.json"), Some(7));
        assert_eq!(version("00000000000000000007.crc"), Some(7));
        assert_eq!(version("00000000000000000007.checkpoint.0000000001.0000000002.parquet"), Some(7));
        assert_eq!(version("_last_checkpoint"), None);
        assert_eq!(version("7.json"), None);
        assert_eq!(version("00000000000000000007.notes.txt"), None);
    }
}
