//! A table that is read back: what readers see, and since when.

use super::compaction::joined;
use super::*;
use crate::compaction::{compact, put_in_place};

/// When a version was committed, as these stories have it.
fn time_of(version: u64) -> i64 {
    1_700_000_000_000 + 1000 * version as i64
}

impl Story {
    /// The log's entries say these times.
    fn timed(&self) -> &Self {
        for version in self.log_files(".json") {
            let mut actions = self.entry(version);
            for info in actions.iter_mut().filter_map(|action| action.get_mut("commitInfo")) {
                info["timestamp"] = json!(time_of(version));
            }
            self.log_entry(version, &actions);
        }
        self
    }

    async fn read_back(&self) -> Result<Vec<(Option<i64>, RecordBatch)>, String> {
        let column = |field: &Arc<Field>| ColumnSpec { field: field.clone(), origin: Origin::Value };
        let spec = TableSpec {
            name: "serving".into(),
            columns: self.schema.fields().iter().map(column).collect(),
            primary_key: vec![],
            partition_by: self.partition_by.clone(),
            options: Options(self.options.clone()),
        };
        let shown = DeltaConnector.shown(&spec).unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut rows = vec![];
        shown.read(&mut |time, batch| Ok(rows.push((time, batch)))).await?;
        Ok(rows)
    }

    /// Each row's id, and the version that it has been visible since.
    async fn since(&self) -> Vec<(String, Option<u64>)> {
        let version = |time: i64| (time - time_of(0)) as u64 / 1000;
        let mut ids = vec![];
        for (time, batch) in self.read_back().await.unwrap() {
            let of_batch = batch.column(0).as_string::<i32>().iter().map(|id| id.unwrap().to_string());
            ids.extend(of_batch.map(|id| (id, time.map(version))));
        }
        ids.sort();
        ids
    }

    /// The rows' ids, in order.
    pub async fn ids_read_back(&self) -> Vec<String> {
        let ids = |batch: &RecordBatch| batch.column(0).as_string::<i32>().iter().flatten().map(String::from).collect();
        let mut ids: Vec<String> =
            self.read_back().await.unwrap().iter().flat_map(|(_, batch)| -> Vec<String> { ids(batch) }).collect();
        ids.sort();
        ids
    }

    async fn compact(&self, writer: &str) {
        let version = *self.log_files(".json").last().unwrap();
        compact(&self.of_upkeep(), &Names::of(writer)).await.unwrap();
        assert!(self.log_files(".json").last() > Some(&version), "files were joined");
    }

    /// Takes the data files away that the table does not consist of any more.
    async fn vacuumed(&self) {
        let live = self.reader().live_files().await.unwrap();
        let files = std::fs::read_dir(self.table()).unwrap().map(|file| file.unwrap());
        for file in files.filter(|file| file.file_type().unwrap().is_file()) {
            if !live.contains(file.file_name().to_str().unwrap()) {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
    }
}

fn rows(of: &[(&str, Option<u64>)]) -> Vec<(String, Option<u64>)> {
    of.iter().map(|(id, version)| (id.to_string(), *version)).collect()
}

async fn of_five_commits() -> (Story, Process) {
    let story = Story::new().option("compaction", "false");
    let process = story.start("w1").await;
    // Of different sizes: files are joined in the order of their sizes.
    for (entry, ids) in (1..).zip([&["a1", "a2", "a3"][..], &["b1"], &["c1", "c2", "c3", "c4"], &["d1"], &["e1", "e2"]])
    {
        process.show(entry, ids).await;
    }
    (story, process)
}

const OF_FIVE: [(&str, Option<u64>); 11] = [
    ("a1", Some(1)),
    ("a2", Some(1)),
    ("a3", Some(1)),
    ("b1", Some(2)),
    ("c1", Some(3)),
    ("c2", Some(3)),
    ("c3", Some(3)),
    ("c4", Some(3)),
    ("d1", Some(4)),
    ("e1", Some(5)),
    ("e2", Some(5)),
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_have_been_visible_since_their_commit_however_often_their_files_were_joined() {
    let (story, process) = of_five_commits().await;
    assert_eq!(story.timed().since().await, rows(&OF_FIVE));
    story.compact("w8").await;
    assert_eq!(story.timed().since().await, rows(&OF_FIVE));
    for entry in 7..10 {
        process.show(entry, &[&format!("f{entry}")]).await;
    }
    let files = story.reader().live_files().await.unwrap().len();
    assert!(put_in_place(&story.of_upkeep(), &joined(&story).await).await.unwrap());
    story.vacuumed().await;
    assert!(files > 1 && story.reader().live_files().await.unwrap().len() == 1);
    let later = [("f7", Some(7)), ("f8", Some(8)), ("f9", Some(9))];
    assert_eq!(story.timed().since().await, rows(&[&OF_FIVE[..], &later].concat()));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_plain_row_of_those_they_replace_come_without_a_time_and_the_others_with_theirs() {
    for change in ["another program joined them", "it holds another number of rows", "it is not said how many"] {
        let (story, process) = of_five_commits().await;
        story.compact("w8").await;
        process.show(7, &["f1"]).await;
        let mut entry = story.entry(6);
        for action in &mut entry {
            match change {
                "another program joined them" if action.get("commitInfo").is_some() => {
                    action["commitInfo"]["engineInfo"] = json!("Apache-Spark/3.5");
                }
                "it holds another number of rows" if action.get("add").is_some() => {
                    action["add"]["stats"] = json!("{\"numRecords\":12}");
                }
                "it is not said how many" if action.get("add").is_some() => {
                    action["add"].as_object_mut().unwrap().remove("stats");
                }
                _ => {}
            }
        }
        story.log_entry(6, &entry);
        let untimed: Vec<_> = OF_FIVE.iter().map(|(id, _)| (*id, None)).collect();
        assert_eq!(story.timed().since().await, rows(&[&untimed[..], &[("f1", Some(7))]].concat()), "{change}");
    }
}

/// What Delta's own tests have as an example: a vector of the rows 3, 4, 7, 11, 18 and 29.
fn vector() -> Value {
    json!({"storageType": "i", "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
        "sizeInBytes": 44, "cardinality": 6})
}

const READERS_OF_VECTORS: &str = r#"{"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
    "writerFeatures": ["deletionVectors"]}"#;

/// The same file again, with rows of it deleted.
fn deleted(story: &Story, version: u64) {
    let entry = story.entry(version);
    let mut add = entry.iter().find_map(|action| action.get("add")).unwrap().clone();
    let mut remove = add.clone();
    add["deletionVector"] = vector();
    remove.as_object_mut().unwrap().remove("stats");
    remove["deletionTimestamp"] = json!(0);
    let protocol: Value = serde_json::from_str(READERS_OF_VECTORS).unwrap();
    let info = json!({"timestamp": 0, "operation": "DELETE"});
    let actions = [("commitInfo", info), ("protocol", protocol), ("remove", remove), ("add", add)];
    let newest = *story.log_files(".json").last().unwrap();
    story.log_entry(newest + 1, &actions.map(|(kind, action)| json!({kind: action})));
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("{n:02}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_deletion_vector_deletes_are_gone_and_the_others_keep_their_times() {
    let story = Story::new().option("compaction", "false");
    let process = story.start("w1").await;
    // Joined, they lie in the order of their sizes.
    for (entry, (from, to)) in (1..).zip([(0, 2), (2, 6), (6, 14), (14, 30)]) {
        let ids = numbered(from, to);
        process.show(entry, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    story.compact("w8").await;
    deleted(&story, 5);
    let left = story.timed().since().await;
    let version = |n: usize| [2, 6, 14].iter().filter(|first| n >= **first).count() as u64 + 1;
    let expected = (0..30).filter(|n| ![3, 4, 7, 11, 18, 29].contains(n));
    assert_eq!(left, expected.map(|n| (format!("{n:02}"), Some(version(n)))).collect::<Vec<_>>());
    let columns = story.schema.fields().iter().map(|field| field.as_ref().clone()).collect::<Vec<_>>();
    let (looked_up, _) = story.looked_up(&columns).await;
    let ids: Vec<_> = looked_up.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, left.iter().map(|(id, _)| id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_others_wrote_again_come_without_a_time() {
    let (story, _) = of_five_commits().await;
    let add = |version: u64| story.entry(version).into_iter().find_map(|action| action.get("add").cloned()).unwrap();
    // A program without deletion vectors deletes c1: it writes the file again without that row.
    let (old, mut new) = (add(3), add(3));
    let copy = story.table().join("rewritten.parquet");
    std::fs::copy(story.table().join(old["path"].as_str().unwrap()), copy).unwrap();
    new["path"] = json!("rewritten.parquet");
    let remove = json!({"path": old["path"], "dataChange": true, "deletionTimestamp": 0});
    story.log_entry(6, &[json!({"commitInfo": {"timestamp": 0}}), json!({"remove": remove}), json!({"add": new})]);
    let expected: Vec<_> = OF_FIVE.iter().map(|(id, since)| (*id, since.filter(|_| !id.starts_with('c')))).collect();
    assert_eq!(story.timed().since().await, rows(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_columns_have_the_values_of_the_log_in_their_types() {
    let story = Story { partition_by: vec!["n".into(), "at".into()], ..Story::new().option("compaction", "false") };
    let process = story.start("w1").await;
    for entry in 1..=4 {
        process.show(entry, &["a b", "c"]).await;
    }
    let read = async || {
        let mut rows = vec![];
        for (time, batch) in story.timed().read_back().await.unwrap() {
            assert_eq!(batch.schema().field(1).data_type(), &DataType::Int64);
            let column = |index: usize| batch.column(index).clone();
            let (ids, numbers, times) = (column(0), column(1), column(2));
            for row in 0..batch.num_rows() {
                let at = times.as_primitive::<arrow::datatypes::TimestampNanosecondType>().value(row);
                let id = ids.as_string::<i32>().value(row).to_string();
                rows.push((time, id, numbers.as_primitive::<Int64Type>().value(row), at));
            }
        }
        rows.sort();
        rows
    };
    let micros = 1_700_000_000_123_456_000;
    let of_version =
        |version| [("a b", 0), ("c", 1)].map(|(id, n)| (Some(time_of(version)), id.to_string(), n, micros));
    let expected: Vec<_> = (1..=4).flat_map(of_version).collect();
    assert_eq!(read().await, expected);
    story.compact("w8").await;
    assert_eq!(read().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_log_has_no_beginning_any_more_is_read_back_through_its_checkpoint() {
    let (story, process) = of_five_commits().await;
    crate::checkpoint::checkpoint(&story.of_upkeep(), 5).await.unwrap();
    for version in 0..=2 {
        std::fs::remove_file(story.log_file(&format!("{version:020}.json"))).unwrap();
    }
    process.show(6, &["f1"]).await;
    let old = |id: &str| id.starts_with('a') || id.starts_with('b');
    let mut expected: Vec<_> = OF_FIVE.iter().map(|(id, since)| (*id, since.filter(|_| !old(id)))).collect();
    expected.push(("f1", Some(6)));
    assert_eq!(story.timed().since().await, rows(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_is_not_what_the_job_writes_is_said() {
    assert!(Story::new().read_back().await.unwrap_err().contains("there is no table"));
    let (mut story, _) = of_five_commits().await;
    story.schema = Arc::new(Schema::new(vec![Field::new("idd", DataType::Utf8, true)]));
    let said = story.read_back().await.unwrap_err();
    assert!(said.contains("it has no column idd; there are id, n, at"), "{said}");
}
