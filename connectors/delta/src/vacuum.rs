//! Files that compactions replaced are deleted once the table's retention is over, so that the table does not hold
//! every row several times for ever.
//!
//! What is deleted is taken from the log's own entries and never from a listing of the files: a file that no entry names
//! may be one that a stopped job is about to show. Files of other writers are left to their own VACUUM.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use engine::sink::SinkError;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use serde_json::Value;

use crate::cause::reading;
use crate::compaction::ours;
use crate::options::DeltaOptions;
use crate::parquet_file::decode_path;
use crate::protocol::interval_days;
use crate::store::{entry_version, live_paths, open, place, read_entry};

/// However short the table's own retention is: readers and stopped jobs hold on to files.
const SHORTEST_DAYS: f64 = 7.0;
/// Days of the log that one pass looks through: a pass that was missed is made up for by the next one.
const DAYS_BACK: i64 = 2;
/// Entries that are read at once.
const READS: usize = 16;

/// Deletes what was replaced longer ago than the table's retention. Returns how many files went.
pub async fn vacuum(options: &DeltaOptions, now: DateTime<Utc>) -> Result<usize, SinkError> {
    let place_of = |e: object_store::Error| reading(&options.path, &e);
    let mut table = place(options)?;
    let Some(opened) = open(&mut table, &options.path).await? else { return Ok(0) };
    let store = table.log_store().object_store(None);
    let before = now - retention(&opened.metadata["configuration"]);
    let mut replaced = replaced(&*store, before).await.map_err(place_of)?;
    if replaced.is_empty() {
        return Ok(0);
    }
    let live = live_paths(&table).await.map_err(|e| SinkError::retry(&options.path, e))?;
    replaced.retain(|path| !live.contains(path));
    let paths = stream::iter(replaced).map(|path| Ok(Path::from(path))).boxed();
    let mut deleted = 0;
    let mut deletions = store.delete_stream(paths);
    while let Some(done) = deletions.next().await {
        match done {
            Ok(_) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(place_of(error)),
        }
    }
    tracing::info!(table = options.path, files = deleted, "files that were replaced long ago were deleted");
    Ok(deleted)
}

fn retention(configuration: &Value) -> TimeDelta {
    let configured = configuration["delta.deletedFileRetentionDuration"].as_str().and_then(interval_days);
    let days = configured.unwrap_or(SHORTEST_DAYS).max(SHORTEST_DAYS);
    TimeDelta::seconds((days * 86_400.0) as i64)
}

/// Files of this sink that were removed before a time, as far back as one pass looks.
async fn replaced(store: &dyn ObjectStore, before: DateTime<Utc>) -> Result<BTreeSet<String>, object_store::Error> {
    let from = before - TimeDelta::days(DAYS_BACK);
    let of_the_time = |entry: &ObjectMeta| (from..before).contains(&entry.last_modified);
    let listed = store.list(Some(&Path::from("_delta_log")));
    let versions = listed
        .try_filter_map(|entry| async move { Ok(entry_version(&entry.location).filter(|_| of_the_time(&entry))) });
    let versions: Vec<u64> = versions.try_collect().await?;
    let entries = stream::iter(versions).map(|version| read_entry(store, version)).buffer_unordered(READS);
    let paths = entries.try_fold(BTreeSet::new(), |mut paths, actions| async move {
        paths.extend(actions.iter().flatten().filter_map(|action| removed(action, before)));
        Ok(paths)
    });
    paths.await
}

fn removed(action: &Value, before: DateTime<Utc>) -> Option<String> {
    let remove = action.get("remove")?;
    let when = remove["deletionTimestamp"].as_i64()?;
    let path = decode_path(remove["path"].as_str()?);
    (when < before.timestamp_millis() && ours(&path)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tables_retention_counts_and_never_less_than_a_week() {
        let days = |text: &str| retention(&json!({"delta.deletedFileRetentionDuration": text})).num_days();
        assert_eq!((days("interval 30 days"), days("interval 2 weeks"), days("interval 1 hours")), (30, 14, 7));
        assert_eq!((days("for ever"), retention(&json!({})).num_days()), (7, 7));
    }
}
