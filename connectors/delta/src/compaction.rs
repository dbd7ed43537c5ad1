//! Small files joined into larger ones, beside the commits: frequent commits make files by the thousand, and readers
//! open every one. The rows stay the same, so readers of the table's changes see nothing.
//!
//! Whoever else changes the table goes first: an entry is written only while every file that it removes is live. What
//! is given up leaves a file that no entry names, which VACUUM removes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use deltalake::DeltaTable;
use engine::environment::crash_point;
use engine::sink::{Names, SinkError};
use object_store::ObjectStore;
use serde_json::{Value, json};

use crate::cause::writing;
use crate::commit::above_checkpoint;
use crate::join::{Joined, LARGE_ENOUGH, LiveFile, join};
use crate::options::DeltaOptions;
use crate::parquet_file::encode_path;
use crate::protocol::refusal;
use crate::store::{create, entry_path, lines, open, place, read_entry};
use crate::table_file::{TableFile, table_files};

/// Versions between two looks for small files.
const EVERY: u64 = 50;
/// Fewer files are not worth an entry of the log.
const FEWEST: usize = 4;
/// Files that are joined at once: all their footers are held.
const MOST: usize = 500;
/// Times that the table is opened, and numbers of the log that are tried each time, before a later look does it.
const OPENINGS: usize = 3;
const NUMBERS: usize = 50;

/// Whether the writer of this version looks for small files. With several writers, one of them does.
pub fn due(version: u64) -> bool {
    version > 0 && version.is_multiple_of(EVERY)
}

/// Joins the small files that the table has now.
pub async fn compact(options: &DeltaOptions, names: &Names) -> Result<(), SinkError> {
    let Some(state) = State::read(options).await? else { return Ok(()) };
    let files: Vec<LiveFile> = state.files.into_values().collect();
    for group in groups(files, options.target_file_size as u64) {
        let path = beside(&group[0].path, names);
        let joined = join(&state.store, &group, path, options.encodings, LARGE_ENOUGH).await;
        let Some(joined) = joined.map_err(|e| SinkError::retry(&options.path, e))? else { continue };
        let (files, rows, bytes) = (joined.instead_of.len(), joined.file.rows, joined.file.size);
        if put_in_place(options, &joined).await? {
            tracing::info!(table = options.path, files, rows, bytes, "small files were joined");
        } else {
            tracing::info!(table = options.path, files, "small files were not joined: others changed them meanwhile");
        }
    }
    Ok(())
}

/// The table as it is now, as far as joining needs it.
pub struct State {
    pub store: Arc<dyn ObjectStore>,
    pub version: u64,
    /// Files that may be joined, by path: our own, without deletion vectors.
    pub files: HashMap<String, LiveFile>,
}

impl State {
    /// `None` where there is no table, or one that millrace must not write any more.
    pub async fn read(options: &DeltaOptions) -> Result<Option<Self>, SinkError> {
        let mut table = place(options)?;
        let Some(opened) = open(&mut table, &options.path).await? else { return Ok(None) };
        if refusal(&opened.protocol, &opened.schema, &opened.metadata["configuration"]).is_some() {
            return Ok(None);
        }
        let files = live_files(&table).await.map_err(|e| SinkError::retry(&options.path, e))?;
        let store = table.log_store().object_store(None);
        Ok(Some(State { store, version: opened.version, files }))
    }
}

async fn live_files(table: &DeltaTable) -> Result<HashMap<String, LiveFile>, deltalake::DeltaTableError> {
    let files = table_files(table).await?.into_iter();
    let may_be_joined = files.filter(|file| ours(&file.name) && file.deletion_vector.is_none());
    let of_table = |TableFile { name, size, partition_values, .. }| {
        let partition_values = partition_values.into_iter().collect();
        (name.clone(), LiveFile { path: name, size, partition_values })
    };
    Ok(may_be_joined.map(of_table).collect())
}

/// Whether the file's name is one that a writer of this sink or a compaction gives.
pub fn ours(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some(stem) = name.strip_suffix(".parquet").filter(|n| n.starts_with("part-") || n.starts_with("joined-"))
    else {
        return false;
    };
    let number = stem.rsplit('-').next().unwrap_or_default();
    number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit())
}

/// A name in the folder of another file that nobody can make again.
fn beside(path: &str, names: &Names) -> String {
    let folder = path.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    format!("{folder}joined-{}.parquet", names.next())
}

/// Which files are joined with which, each group of one partition and up to the target's size.
fn groups(files: Vec<LiveFile>, target: u64) -> Vec<Vec<LiveFile>> {
    let mut partitions: BTreeMap<_, Vec<LiveFile>> = BTreeMap::new();
    for file in files {
        partitions.entry(file.partition_values.clone()).or_default().push(file);
    }
    partitions.into_values().flat_map(|files| groups_of_partition(files, target)).collect()
}

fn groups_of_partition(mut files: Vec<LiveFile>, target: u64) -> Vec<Vec<LiveFile>> {
    files.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
    let (mut groups, mut group, mut size) = (vec![], vec![], 0);
    for file in files {
        if size + file.size > target || group.len() == MOST {
            groups.push(std::mem::take(&mut group));
            size = 0;
        }
        size += file.size;
        group.push(file);
    }
    groups.push(group);
    groups.into_iter().map(worthwhile).filter(|group| group.len() >= FEWEST).collect()
}

/// A file is written again only together with as much as it is itself: so no row is written more often than the size
/// of its file can double.
fn worthwhile(mut group: Vec<LiveFile>) -> Vec<LiveFile> {
    let mut size: u64 = group.iter().map(|f| f.size).sum();
    while let Some(largest) = group.pop_if(|largest| largest.size > size - largest.size) {
        size -= largest.size;
    }
    group
}

/// Writes the log entry that puts the new file in the place of the others. `false` if another change came first.
pub async fn put_in_place(options: &DeltaOptions, joined: &Joined) -> Result<bool, SinkError> {
    for _ in 0..OPENINGS {
        let Some(state) = State::read(options).await? else { return Ok(false) };
        if state.files.contains_key(&joined.file.path) {
            return Ok(true);
        }
        if !joined.instead_of.iter().all(|f| state.files.get(&f.path) == Some(f)) {
            return Ok(false);
        }
        match put_above(&state, joined).await {
            Ok(Some(settled)) => return Ok(settled),
            Ok(None) => {}
            // Whether the entry was written all the same, the table tells when it is opened again.
            Err(error @ object_store::Error::Generic { .. }) => {
                tracing::debug!(table = options.path, %error, "no answer to the entry of a compaction");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(writing(&options.path, &error)),
        }
    }
    Ok(false)
}

/// Tries the numbers above a known state, as long as what others wrote leaves the files alone. `None`: look anew.
pub async fn put_above(state: &State, joined: &Joined) -> Result<Option<bool>, object_store::Error> {
    use object_store::Error::{AlreadyExists, Precondition};
    let body = lines(&actions(joined));
    for number in (state.version + 1..).take(NUMBERS) {
        crash_point("before-compaction-entry");
        match create(&state.store, &entry_path(number), body.clone()).await {
            Ok(()) => {
                crash_point("after-compaction-entry");
                return Ok(Some(true));
            }
            Err(AlreadyExists { .. } | Precondition { .. }) => {}
            Err(error) => return Err(error),
        }
        let Some(actions) = read_entry(&*state.store, number).await? else { return Ok(None) };
        if let Some(settled) = settled_by(&actions, joined) {
            return Ok(Some(settled));
        }
        if !above_checkpoint(&*state.store, state.version).await? {
            return Ok(None);
        }
    }
    Ok(None)
}

/// What another entry means for ours: it is ours, it stands in its way, or it leaves it alone.
fn settled_by(actions: &[Value], joined: &Joined) -> Option<bool> {
    let names = |kind: &str, path: &str| {
        let path = encode_path(path);
        actions.iter().any(|a| a[kind]["path"].as_str() == Some(&path))
    };
    if names("add", &joined.file.path) {
        return Some(true);
    }
    let other_table = actions.iter().any(|a| a.get("metaData").is_some() || a.get("protocol").is_some());
    let taken = joined.instead_of.iter().any(|f| names("remove", &f.path) || names("add", &f.path));
    (other_table || taken).then_some(false)
}

fn actions(joined: &Joined) -> Vec<Value> {
    let now = chrono::Utc::now().timestamp_millis();
    let removed: u64 = joined.instead_of.iter().map(|f| f.size).sum();
    let info = json!({"commitInfo": {
        "timestamp": now,
        "operation": "OPTIMIZE",
        "operationParameters": {"predicate": "[]", "auto": "true"},
        "operationMetrics": {
            "numAddedFiles": "1",
            "numAddedBytes": joined.file.size.to_string(),
            "numRemovedFiles": joined.instead_of.len().to_string(),
            "numRemovedBytes": removed.to_string(),
        },
        "isolationLevel": "SnapshotIsolation",
        "isBlindAppend": false,
        "engineInfo": concat!("millrace/", env!("CARGO_PKG_VERSION")),
    }});
    let removes = joined.instead_of.iter().map(|file| {
        json!({"remove": {
            "path": encode_path(&file.path),
            "deletionTimestamp": now,
            "dataChange": false,
            "extendedFileMetadata": true,
            "partitionValues": file.partition_values,
            "size": file.size,
        }})
    });
    let mut add = joined.file.add_action(now);
    add["add"]["dataChange"] = json!(false);
    std::iter::once(info).chain(removes).chain([add]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(sizes: &[u64]) -> Vec<LiveFile> {
        let file = |(number, size): (usize, &u64)| LiveFile {
            path: format!("part-w-{number:06}.parquet"),
            size: *size,
            partition_values: BTreeMap::new(),
        };
        sizes.iter().enumerate().map(file).collect()
    }

    fn sizes(groups: &[Vec<LiveFile>]) -> Vec<Vec<u64>> {
        groups.iter().map(|g| g.iter().map(|f| f.size).collect()).collect()
    }

    #[test]
    fn small_files_are_grouped_up_to_the_targets_size() {
        assert_eq!(sizes(&groups(files(&[3; 10]), 15)), [[3; 5], [3; 5]]);
        assert_eq!(sizes(&groups(files(&[3, 3, 3, 100]), 100)), [[0; 0]; 0], "three are too few");
    }

    #[test]
    fn a_file_waits_until_as_much_as_itself_is_joined_to_it() {
        assert_eq!(sizes(&groups(files(&[1, 1, 1, 1, 50]), 100)), [[1, 1, 1, 1]]);
        assert_eq!(sizes(&groups(files(&[10, 10, 10, 20, 50]), 100)), [[10, 10, 10, 20, 50]]);
    }

    #[test]
    fn files_of_different_partitions_stay_apart() {
        let mut of_two_days = files(&[1; 8]);
        for file in &mut of_two_days[..4] {
            file.partition_values.insert("day".into(), Some("2024-01-01".into()));
        }
        assert_eq!(sizes(&groups(of_two_days, 100)), [[1; 4], [1; 4]]);
    }

    #[test]
    fn only_names_of_this_sink_are_its_own() {
        assert!(ours("day=1/part-3f2a-000017.parquet") && ours("joined-3f2a-1000000.parquet"));
        assert!(!ours("part-00000-6c1d5d5e-7c0e-4a39-a0de-1a2b3c4d5e6f-c000.snappy.parquet"));
        assert!(!ours("export-000001.parquet") && !ours("part-3f2a-000017.csv"));
    }
}
