//! Stories of a table whose small files are joined while it is written.

use super::*;
use crate::compaction::{State, compact, put_in_place};
use crate::join::{Joined, LARGE_ENOUGH, LiveFile, join};
use crate::options::DeltaOptions;

fn options(story: &Story) -> DeltaOptions {
    DeltaOptions::of_folder(&story.table())
}

async fn joinable(story: &Story) -> Vec<LiveFile> {
    let mut files: Vec<LiveFile> = State::read(&options(story)).await.unwrap().unwrap().files.into_values().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// All files of the table in one new one, which no entry names yet.
pub async fn joined(story: &Story) -> Joined {
    let state = State::read(&options(story)).await.unwrap().unwrap();
    let path = format!("joined-{}.parquet", Names::of("w9").next());
    let files = joinable(story).await;
    join(&state.store, &files, path, options(story).encodings, LARGE_ENOUGH).await.unwrap().unwrap()
}

async fn with_five_files() -> (Story, Process) {
    let story = Story::new().option("compaction", "false");
    let process = story.start("w1").await;
    for entry in 1..=5 {
        process.show(entry, &[&format!("e{entry}"), "x"]).await;
    }
    (story, process)
}

const OF_FIVE: [&str; 10] = ["e1", "e2", "e3", "e4", "e5", "x", "x", "x", "x", "x"];

#[tokio::test]
async fn small_files_are_joined_while_the_table_is_written() {
    let story = Story::new();
    let process = story.start("w1").await;
    let mut ids: Vec<String> = (1..=120).map(|e| format!("e{e:03}")).collect();
    for (entry, id) in (1..).zip(&ids) {
        process.show(entry, &[id]).await;
    }
    let joined = || {
        std::fs::read_dir(story.table())
            .unwrap()
            .any(|f| f.unwrap().file_name().to_string_lossy().starts_with("joined-"))
    };
    story.until(joined).await;
    for _ in 0..500 {
        if story.reader().live_files().await.unwrap().len() < 90 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(story.reader().live_files().await.unwrap().len() < 90);
    process.show(121, &["late"]).await;
    story.start("w2").await.show(122, &["later"]).await;
    ids.extend(["late".to_string(), "later".to_string()]);
    assert_eq!(story.ids_of_any_reader().await, ids);
    assert_eq!(story.reader().commits().await.unwrap().iter().map(|c| c.rows).sum::<u64>(), 122);
}

#[tokio::test]
async fn the_joined_file_holds_the_same_rows_and_changes_nothing_for_readers_of_changes() {
    let (story, _) = with_five_files().await;
    let before = story.reader().live_rows(None).await.unwrap();
    compact(&options(&story), &Names::of("w9")).await.unwrap();
    let files = joinable(&story).await;
    assert_eq!(files.len(), 1);
    let rows = |batches: Vec<RecordBatch>| {
        let mut rows: Vec<String> = batches
            .iter()
            .flat_map(|b| (0..b.num_rows()).map(|r| format!("{:?}", b.slice(r, 1).columns())).collect::<Vec<_>>())
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(rows(story.reader().live_rows(None).await.unwrap()), rows(before));
    assert_eq!(story.ids_of_any_reader().await, OF_FIVE);

    let entry = story.entry(6);
    let changes =
        |kind: &str| entry.iter().filter_map(|a| a.get(kind)).map(|a| a["dataChange"].clone()).collect::<Vec<_>>();
    assert_eq!((changes("remove"), changes("add")), (vec![json!(false); 5], vec![json!(false)]));
    let add = entry.iter().find_map(|a| a.get("add")).unwrap();
    let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&stats["numRecords"], &stats["minValues"]["id"], &stats["maxValues"]["id"]),
        (&json!(10), &json!("e1"), &json!("x"))
    );
    let on_disk = std::fs::metadata(story.table().join(&files[0].path)).unwrap().len();
    assert_eq!(add["size"], on_disk);
}

#[tokio::test]
async fn partitions_are_joined_apart_and_keep_their_values() {
    let mut story = Story::new().option("compaction", "false");
    story.partition_by = vec!["id".into()];
    let process = story.start("w1").await;
    for entry in 1..=4 {
        process.show(entry, &["a b", "c", "c"]).await;
    }
    compact(&options(&story), &Names::of("w9")).await.unwrap();
    let files = joinable(&story).await;
    let values: Vec<_> = files.iter().map(|f| f.partition_values["id"].clone().unwrap()).collect();
    assert_eq!(values, ["a b", "c"]);
    let mut rows = vec![];
    for file in &files {
        rows.push(
            story.reader().rows(&file.path, None).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(),
        );
    }
    assert_eq!(rows, [4, 8]);
}

#[tokio::test]
async fn commits_that_come_between_are_kept_and_do_not_stop_it() {
    let (story, process) = with_five_files().await;
    let joined = joined(&story).await;
    process.show(6, &["between"]).await;
    assert!(put_in_place(&options(&story), &joined).await.unwrap());
    process.show(7, &["after"]).await;
    let mut ids: Vec<&str> = ["after", "between"].into_iter().chain(OF_FIVE).collect();
    ids.sort();
    assert_eq!(story.ids_of_any_reader().await, ids);
}

#[tokio::test]
async fn protocol_19_two_that_join_the_same_files_leave_one_result() {
    let (story, _) = with_five_files().await;
    let (mut one, other) = (joined(&story).await, joined(&story).await);
    let moved = one.file.path.replace("w9", "w8");
    std::fs::copy(story.table().join(&one.file.path), story.table().join(&moved)).unwrap();
    one.file.path = moved;
    assert!(put_in_place(&options(&story), &one).await.unwrap());
    assert!(!put_in_place(&options(&story), &other).await.unwrap());
    assert_eq!(story.ids_of_any_reader().await, OF_FIVE);
    assert!(put_in_place(&options(&story), &one).await.unwrap(), "asked again after a lost answer");
    assert_eq!(story.log_files(".json").len(), 7);
}

#[tokio::test]
async fn a_file_that_was_deleted_meanwhile_does_not_come_back() {
    let (story, _) = with_five_files().await;
    let joined = joined(&story).await;
    let deleted = &joined.instead_of[0];
    story.log_entry(6, &[json!({"remove": {"path": deleted.path, "deletionTimestamp": 1, "dataChange": true}})]);
    assert!(!put_in_place(&options(&story), &joined).await.unwrap());
    assert_eq!(story.ids_of_any_reader().await.len(), 8);
}

#[tokio::test]
async fn a_schema_that_changed_between_the_tries_stops_it() {
    let (story, _) = with_five_files().await;
    let joined = joined(&story).await;
    let metadata = story.entry(0).into_iter().find(|a| a.get("metaData").is_some()).unwrap();
    let stale = State::read(&options(&story)).await.unwrap().unwrap();
    story.log_entry(6, &[metadata]);
    let tried = crate::compaction::put_above(&stale, &joined).await.unwrap();
    assert_eq!(tried, Some(false));
}

#[tokio::test]
async fn files_with_deletion_vectors_and_files_of_others_are_left_alone() {
    let (story, _) = with_five_files().await;
    let live = joinable(&story).await;
    let vector = json!({"storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA", "offset": 1, "sizeInBytes": 36, "cardinality": 1});
    let foreign = "part-00000-6c1d5d5e-7c0e-4a39-a0de-1a2b3c4d5e6f-c000.snappy.parquet";
    std::fs::copy(story.table().join(&live[1].path), story.table().join(foreign)).unwrap();
    let add = |path: &str| json!({"path": path, "partitionValues": {}, "size": live[0].size, "modificationTime": 1, "dataChange": true});
    let mut with_vector = add(&live[0].path);
    with_vector["deletionVector"] = vector;
    story.log_entry(6, &[
        json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}}),
        json!({"remove": {"path": live[0].path, "deletionTimestamp": 1, "dataChange": true}}),
        json!({"add": with_vector}),
        json!({"add": add(foreign)}),
    ]);
    compact(&options(&story), &Names::of("w9")).await.unwrap();
    let after = story.reader().live_files().await.unwrap();
    assert_eq!(after.len(), 3, "{after:?}");
    assert!(after.contains(&live[0].path) && after.contains(foreign));
}

#[tokio::test]
async fn files_from_before_a_column_was_added_are_joined_with_those_after() {
    let mut story = Story::new().option("compaction", "false").option("schema_evolution", "add");
    let first = story.start("w1").await;
    for entry in 1..=3 {
        first.show(entry, &["old"]).await;
    }
    let mut wider = columns();
    wider.push(Field::new("extra", DataType::Int64, true));
    story.schema = Arc::new(Schema::new(wider));
    let second = story.start("w2").await;
    for entry in 4..=6 {
        let rows = batch(&["new"]);
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(vec![7])));
        let mut writer = second.sink.writer(&second.context).unwrap();
        writer.write(&RecordBatch::try_new(story.schema.clone(), columns).unwrap()).unwrap();
        let token = writer.prepare().await.unwrap().unwrap();
        second.commit(&[of("w2", entry, token)]).await.unwrap();
    }
    compact(&options(&story), &Names::of("w9")).await.unwrap();
    assert_eq!(joinable(&story).await.len(), 1);
    assert_eq!(story.ids_of_any_reader().await, ["new", "new", "new", "old", "old", "old"]);
    let rows = story.reader().live_rows(Some(&["extra"])).await.unwrap();
    assert_eq!(rows.iter().map(|b| b.column(0).null_count()).sum::<usize>(), 3);
}

#[test]
fn compaction_is_on_where_commits_are_frequent() {
    let described = |options: &[(&str, &str)]| {
        let mut story = Story::new();
        story.options.extend(options.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        story.sink().describe().contains("small files are joined")
    };
    assert!(described(&[]) && described(&[("commit_interval", "59 s")]));
    assert!(!described(&[("commit_interval", "1 minute")]) && !described(&[("compaction", "false")]));
    assert!(described(&[("commit_interval", "1 h"), ("compaction", "true")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_compactions_that_all_run_at_once_lose_and_repeat_nothing() {
    let story = Arc::new(Story::new().option("compaction", "false"));
    let mut tasks = vec![];
    for writer in ["w1", "w2"] {
        let process = story.start(writer).await;
        tasks.push(tokio::spawn(async move {
            for entry in 1..=40 {
                let token = process.prepare(&[&format!("{writer}-{entry:02}")]).await;
                process.insist(&[of(writer, entry, token)]).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }));
    }
    let compacting = ["c1", "c2"].map(|name| {
        let story = story.clone();
        tokio::spawn(async move {
            let names = Names::of(name);
            loop {
                compact(&options(&story), &names).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    compacting.iter().for_each(|c| c.abort());
    let ids: Vec<String> = ["w1", "w2"].iter().flat_map(|w| (1..=40).map(move |e| format!("{w}-{e:02}"))).collect();
    assert_eq!(story.ids_of_any_reader().await, ids);
    assert!(joinable(&story).await.len() < 80);
}
