//! Stories of one table: written, shown, opened again, by one process and by its successors.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use engine::connector::{ColumnSpec, Connector, Options, Origin, TableSpec};
use engine::sink::{Committable, Committed, Names, Sink, SinkContext, SinkError, Token};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use serde_json::{Value, json};

mod azure;
mod compaction;
mod joining;
mod lookup;
mod readers;
mod shown;
mod spark;
mod types;
mod uploads;
mod vacuum;

use crate::DeltaConnector;
use crate::reader::TableReader;

/// A table in a folder that goes with the test.
struct Story {
    folder: tempfile::TempDir,
    schema: SchemaRef,
    options: BTreeMap<String, String>,
    partition_by: Vec<String>,
}

fn columns() -> Vec<Field> {
    vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true),
    ]
}

impl Story {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table").to_string_lossy().to_string();
        let options = [("path".to_string(), path)].into();
        Story { folder, schema: Arc::new(Schema::new(columns())), options, partition_by: vec![] }
    }

    fn option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    fn table(&self) -> std::path::PathBuf {
        self.folder.path().join("table")
    }

    fn sink(&self) -> Arc<dyn Sink> {
        let column = |field: &Arc<Field>| ColumnSpec { field: field.clone(), origin: Origin::Value };
        let spec = TableSpec {
            name: "serving".into(),
            columns: self.schema.fields().iter().map(column).collect(),
            primary_key: vec![],
            partition_by: self.partition_by.clone(),
            options: Options(self.options.clone()),
        };
        DeltaConnector.sink(&spec).unwrap()
    }

    fn context(&self, writer: &str) -> SinkContext {
        SinkContext {
            log_id: "log".into(),
            sink: "serving".into(),
            writer: writer.into(),
            schema: self.schema.clone(),
            store: Arc::new(InMemory::new()),
            staging: Path::from("staging"),
            names: Names::of(writer),
            ownership: engine::sink::Ownership::undisputed(),
            metrics: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// The options as the sink keeps them, for what it does beside the commits.
    fn of_upkeep(&self) -> crate::options::DeltaOptions {
        let mut options = crate::options::DeltaOptions::of_folder(&self.table());
        options.path = self.options["path"].clone();
        let storage = self.options.iter().filter_map(|(k, v)| Some((k.strip_prefix("storage.")?.into(), v.clone())));
        options.storage = storage.collect();
        options
    }

    async fn start(&self, writer: &str) -> Process {
        let (sink, context) = (self.sink(), self.context(writer));
        sink.open(&context, false).await.unwrap();
        Process { sink, context }
    }

    async fn refusal(&self) -> String {
        match self.sink().open(&self.context("w1"), false).await {
            Err(error @ SinkError::Failed { .. }) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn reader(&self) -> TableReader {
        TableReader::local(&self.table()).unwrap()
    }

    async fn ids(&self) -> Vec<String> {
        let mut ids = vec![];
        for batch in self.reader().live_rows(Some(&["id"])).await.unwrap() {
            ids.extend(batch.column(0).as_string::<i32>().iter().flatten().map(String::from));
        }
        ids.sort();
        ids
    }

    /// A table that somebody made before the job, with this configuration.
    fn made_before(self, configuration: Value) -> Self {
        let schema = crate::schema::delta_schema(&self.schema).unwrap().to_string();
        self.log_entry(
            0,
            &[
                json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
                json!({"metaData": {"id": "t", "format": {"provider": "parquet", "options": {}}, "createdTime": 0,
                    "schemaString": schema, "partitionColumns": self.partition_by, "configuration": configuration}}),
            ],
        );
        self
    }

    fn log_entry(&self, version: u64, actions: &[Value]) {
        std::fs::create_dir_all(self.table().join("_delta_log")).unwrap();
        let path = self.table().join(format!("_delta_log/{version:020}.json"));
        std::fs::write(path, crate::store::lines(actions)).unwrap();
    }

    fn log_file(&self, name: &str) -> std::path::PathBuf {
        self.table().join("_delta_log").join(name)
    }

    /// The log's files that end so, by version.
    fn log_files(&self, end: &str) -> Vec<u64> {
        let files = std::fs::read_dir(self.table().join("_delta_log")).unwrap();
        let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
        let mut versions: Vec<u64> =
            names.filter(|n| n.ends_with(end) && !n.starts_with('_')).map(|n| n[..20].parse().unwrap()).collect();
        versions.sort_unstable();
        versions
    }

    /// Waits for what is done beside the commits.
    async fn until(&self, what: impl Fn() -> bool) {
        for _ in 0..1000 {
            if what() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it never happened");
    }

    /// The table as any Delta reader opens it.
    async fn opened(&self) -> deltalake::DeltaTable {
        deltalake::open_table(url::Url::from_directory_path(self.table()).unwrap()).await.unwrap()
    }

    /// The rows' ids as any Delta reader sees them, through checkpoints.
    async fn ids_of_any_reader(&self) -> Vec<String> {
        let table = self.opened().await;
        let files: Vec<_> = table.get_active_add_actions_by_predicate(None).try_collect().await.unwrap();
        let mut ids = vec![];
        for file in files {
            for batch in self.reader().rows(&file.path(), Some(&["id"])).await.unwrap() {
                ids.extend(batch.column(0).as_string::<i32>().iter().flatten().map(String::from));
            }
        }
        ids.sort();
        ids
    }

    /// Whether nothing goes however old it gets.
    async fn keeps_its_log(&self) -> bool {
        let process = self.start("w1").await;
        process.show(1, &["a"]).await;
        process.show(2, &["b"]).await;
        let options = crate::options::DeltaOptions::of_folder(&self.table());
        crate::checkpoint::checkpoint(&options, 2).await.unwrap();
        let then = chrono::Utc::now() + chrono::TimeDelta::days(1000);
        crate::log_cleanup::clean_log(&options, then).await.unwrap() == 0
    }

    fn entry(&self, version: u64) -> Vec<Value> {
        let text = std::fs::read_to_string(self.table().join(format!("_delta_log/{version:020}.json"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// One process start.
struct Process {
    sink: Arc<dyn Sink>,
    context: SinkContext,
}

impl Process {
    async fn prepare(&self, ids: &[&str]) -> Token {
        let mut writer = self.sink.writer(&self.context).unwrap();
        writer.write(&batch(ids)).unwrap();
        writer.prepare().await.unwrap().unwrap()
    }

    async fn commit(&self, entries: &[Committable]) -> Result<Committed, SinkError> {
        self.sink.commit(&self.context, entries).await
    }

    /// Asks until it is done, as the engine does.
    async fn insist(&self, entries: &[Committable]) {
        for _ in 0..10 {
            match self.commit(entries).await {
                Ok(Committed::Done) => return,
                Err(SinkError::Retry { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("it never gets done");
    }

    async fn prepare_rows(&self, rows: &RecordBatch) -> Token {
        let mut writer = self.sink.writer(&self.context).unwrap();
        writer.write(rows).unwrap();
        writer.prepare().await.unwrap().unwrap()
    }

    async fn show_rows(&self, entry: u64, rows: &RecordBatch) {
        let token = self.prepare_rows(rows).await;
        self.insist(&[of(&self.context.writer, entry, token)]).await;
    }

    async fn show(&self, entry: u64, ids: &[&str]) {
        let token = self.prepare(ids).await;
        assert_eq!(self.commit(&[of(&self.context.writer, entry, token)]).await.unwrap(), Committed::Done);
    }
}

fn of(writer: &str, entry: u64, token: Token) -> Committable {
    Committable { entry, writer: writer.into(), tokens: vec![token], excluded: vec![] }
}

fn batch(ids: &[&str]) -> RecordBatch {
    let n = Int64Array::from_iter_values(0..ids.len() as i64);
    let at = TimestampNanosecondArray::from_iter_values((0..ids.len()).map(|i| 1_700_000_000_123_456_789 + i as i64));
    RecordBatch::try_new(
        Arc::new(Schema::new(columns())),
        vec![Arc::new(StringArray::from(ids.to_vec())), Arc::new(n), Arc::new(at.with_timezone("UTC"))],
    )
    .unwrap()
}

#[tokio::test]
async fn a_table_for_old_readers_has_only_the_encodings_that_they_know() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    for (option, differences) in [("auto", true), ("plain", false)] {
        let story = Story::new().option("parquet.encodings", option);
        let token = story.start("w1").await.prepare(&["a", "b"]).await;
        let file = story.table().join(token["files"][0]["path"].as_str().unwrap());
        let file = SerializedFileReader::new(std::fs::File::open(file).unwrap()).unwrap();
        let columns = file.metadata().row_group(0).columns();
        let mut encodings = columns.iter().flat_map(|column| column.encodings().map(|e| e.to_string()));
        assert_eq!(encodings.any(|encoding| encoding.starts_with("DELTA")), differences, "{option}");
    }
}

#[tokio::test]
async fn rows_are_prepared_shown_and_found_again_by_a_new_process() {
    let story = Story::new();
    let first = story.start("w1").await;
    let token = first.prepare(&["a", "b"]).await;
    assert!(story.ids().await.is_empty(), "prepared is not shown");
    first.commit(&[of("w1", 3, token)]).await.unwrap();
    assert_eq!(story.ids().await, ["a", "b"]);

    let second = story.start("w2").await;
    second.show(5, &["c"]).await;
    assert_eq!(story.ids().await, ["a", "b", "c"]);
    let txn = story.entry(2).into_iter().find(|a| a.get("txn").is_some()).unwrap();
    assert_eq!(txn["txn"]["appId"], "log/serving/w2");
    assert_eq!(txn["txn"]["version"], 5);
}

#[tokio::test]
async fn a_commit_says_when_it_was_made_and_what_its_files_hold() {
    let story = Story::new();
    story.start("w1").await.show(1, &["a", "b"]).await;
    let commits = story.reader().commits().await.unwrap();
    assert_eq!(commits.len(), 1);
    assert_eq!((commits[0].version, commits[0].rows), (1, 2));
    let rows = story.reader().rows(&commits[0].files[0], Some(&["n", "at"])).await.unwrap();
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().values(), &[0, 1]);
    assert_eq!(rows[0].schema().field(1).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let add = story.entry(1).into_iter().find(|a| a.get("add").is_some()).unwrap();
    let stats: Value = serde_json::from_str(add["add"]["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 2);
    assert_eq!((&stats["minValues"]["id"], &stats["maxValues"]["id"]), (&"a".into(), &"b".into()));
    assert_eq!(stats["minValues"]["at"], "2023-11-14T22:13:20.123Z");
    assert_eq!(stats["nullCount"]["n"], 0);
}

#[tokio::test]
async fn protocol_19_the_same_entry_again_is_shown_once() {
    let story = Story::new();
    let first = story.start("w1").await;
    let token = first.prepare(&["a"]).await;
    for _ in 0..3 {
        first.commit(&[of("w1", 3, token.clone())]).await.unwrap();
    }
    let second = story.start("w2").await;
    second.commit(&[of("w1", 3, token)]).await.unwrap();
    assert_eq!(story.ids().await, ["a"]);
    assert_eq!(story.reader().commits().await.unwrap().len(), 1);
}

#[tokio::test]
async fn protocol_19_an_owner_that_wakes_late_meets_its_successors_commit() {
    let story = Story::new();
    let frozen = story.start("w1").await;
    let token = frozen.prepare(&["a"]).await;
    let successor = story.start("w2").await;
    successor.commit(&[of("w1", 3, token.clone())]).await.unwrap();
    successor.show(4, &["b"]).await;
    frozen.commit(&[of("w1", 3, token)]).await.unwrap();
    assert_eq!(story.ids().await, ["a", "b"]);
}

#[tokio::test]
async fn protocol_13_a_predecessors_file_that_is_gone_is_named() {
    let story = Story::new();
    let token = story.start("w1").await.prepare(&["a"]).await;
    let file = token["files"][0]["path"].as_str().unwrap().to_string();
    std::fs::remove_file(story.table().join(&file)).unwrap();
    let successor = story.start("w2").await;
    let error = successor.commit(&[of("w1", 3, token)]).await.unwrap_err();
    assert!(matches!(&error, SinkError::Failed { .. }) && error.to_string().contains(&file), "{error}");
}

#[tokio::test]
async fn entries_of_one_writer_share_a_commit_and_entries_of_two_do_not() {
    let story = Story::new();
    let old = story.start("w1").await;
    let (a, b) = (old.prepare(&["a"]).await, old.prepare(&["b"]).await);
    let new = story.start("w2").await;
    let c = new.prepare(&["c"]).await;
    new.commit(&[of("w1", 3, a), of("w1", 4, b), of("w2", 6, c)]).await.unwrap();
    let commits = story.reader().commits().await.unwrap();
    assert_eq!(commits.iter().map(|c| c.rows).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(story.entry(1).iter().find_map(|a| a["txn"]["version"].as_u64()), Some(4));
    assert_eq!(story.ids().await, ["a", "b", "c"]);
}

#[tokio::test]
async fn protocol_1_a_writer_never_uses_a_name_again() {
    let story = Story::new();
    let process = story.start("w1").await;
    let (one, two) = (process.prepare(&["a"]).await, process.prepare(&["a"]).await);
    assert_ne!(one["files"][0]["path"], two["files"][0]["path"]);
}

#[tokio::test]
async fn partition_values_stand_in_the_log_and_not_in_the_files() {
    let mut story = Story::new();
    story.partition_by = vec!["id".into()];
    story.start("w1").await.show(1, &["a", "b", "a"]).await;
    let adds: Vec<Value> = story.entry(1).into_iter().filter(|a| a.get("add").is_some()).collect();
    let value = |a: &Value| a["add"]["partitionValues"]["id"].as_str().unwrap().to_string();
    assert_eq!(adds.iter().map(value).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(story.reader().commits().await.unwrap()[0].rows, 3);
    let file = &story.reader().commits().await.unwrap()[0].files[0];
    assert!(story.reader().rows(file, None).await.unwrap()[0].schema().field_with_name("id").is_err());
}

#[tokio::test]
async fn a_column_is_added_only_if_asked_for() {
    let mut story = Story::new();
    story.start("w1").await.show(1, &["a"]).await;
    let mut wider = columns();
    wider.push(Field::new("extra", DataType::Float64, true));
    story.schema = Arc::new(Schema::new(wider));
    assert!(story.refusal().await.contains("column extra is not in the table"));
    let story = story.option("schema_evolution", "add");
    story.start("w2").await;
    let metadata = story.entry(2).into_iter().find(|a| a.get("metaData").is_some()).unwrap();
    assert!(metadata["metaData"]["schemaString"].as_str().unwrap().contains("extra"));
    story.start("w3").await;
}

#[tokio::test]
async fn a_probe_changes_nothing() {
    let story = Story::new();
    story.sink().open(&story.context("w1"), true).await.unwrap();
    assert!(!story.table().exists());
}

#[tokio::test]
async fn a_checkpoint_is_made_every_so_many_versions_whatever_restarts_lie_between() {
    let story = Story::new().made_before(json!({"delta.checkpointInterval": "4"}));
    for entry in 1..=9 {
        story.start(&format!("w{entry}")).await.show(entry, &["a"]).await;
        if entry % 4 == 0 {
            story.until(|| story.log_files(".checkpoint.parquet").contains(&entry)).await;
        }
    }
    assert_eq!(story.log_files(".checkpoint.parquet"), [4, 8]);
}

/// Takes a table eight versions on, checkpoints it at the last but one, and cleans its log of what is older.
async fn take_on_and_clean(story: &Story, process: &Process, from: u64) {
    for entry in from..from + 8 {
        process.show(entry, &[&format!("e{entry:02}")]).await;
    }
    let options = crate::options::DeltaOptions::of_folder(&story.table());
    let newest = story.log_files(".json").into_iter().max().unwrap();
    crate::checkpoint::checkpoint(&options, newest - 1).await.unwrap();
    let in_two_months = chrono::Utc::now() + chrono::TimeDelta::days(60);
    crate::log_cleanup::clean_log(&options, in_two_months).await.unwrap();
    assert_eq!(story.log_files(".json"), [newest - 1, newest]);
}

#[tokio::test]
async fn what_a_checkpoint_replaces_is_cleaned_and_the_table_opens_from_it() {
    let story = Story::new();
    let first = story.start("w1").await;
    let early = first.prepare(&["early"]).await;
    first.commit(&[of("w1", 1, early.clone())]).await.unwrap();
    take_on_and_clean(&story, &first, 2).await;
    let second = story.start("w2").await;
    let late = second.prepare(&["late"]).await;
    second.insist(&[of("w1", 1, early)]).await;
    second.insist(&[of("w2", 10, late)]).await;
    let ids = ["e02", "e03", "e04", "e05", "e06", "e07", "e08", "e09", "early", "late"];
    assert_eq!(story.ids_of_any_reader().await, ids);
}

#[tokio::test]
async fn protocol_11_an_owner_that_slept_through_the_cleaning_shows_its_rows_above_it_and_once() {
    let story = Story::new();
    let (frozen, other) = (story.start("w1").await, story.start("w1").await);
    let (done, open) = (frozen.prepare(&["done"]).await, frozen.prepare(&["open"]).await);
    let successor = story.start("w2").await;
    successor.commit(&[of("w1", 1, done.clone())]).await.unwrap();
    take_on_and_clean(&story, &successor, 2).await;

    let entries = [of("w1", 1, done), of("w1", 20, open)];
    frozen.insist(&entries).await;
    let mut ids: Vec<String> = (2..10).map(|e| format!("e{e:02}")).collect();
    ids.splice(0..0, ["done".to_string()]);
    ids.push("open".into());
    assert_eq!(story.ids_of_any_reader().await, ids);

    // The entry that nobody sees still lies there: whoever reads it on waking must not believe it.
    other.insist(&entries).await;
    assert_eq!(story.ids_of_any_reader().await, ids);
}

#[tokio::test]
async fn the_log_is_cleaned_of_nothing_that_its_retention_or_a_kept_entry_needs() {
    let story = Story::new().made_before(json!({"delta.logRetentionDuration": "interval 10 days"}));
    let process = story.start("w1").await;
    for entry in 1..=6 {
        process.show(entry, &["a"]).await;
    }
    let options = crate::options::DeltaOptions::of_folder(&story.table());
    let clean = async |days: i64| {
        let then = chrono::Utc::now() + chrono::TimeDelta::days(days);
        crate::log_cleanup::clean_log(&options, then).await.unwrap()
    };
    assert_eq!(clean(11).await, 0, "without a checkpoint every entry is needed");
    crate::checkpoint::checkpoint(&options, 2).await.unwrap();
    crate::checkpoint::checkpoint(&options, 5).await.unwrap();
    assert_eq!(clean(9).await, 0);
    // One entry is younger than the others: it stands on the checkpoint below it.
    let young = std::fs::File::options().write(true).open(story.log_file("00000000000000000004.json")).unwrap();
    young.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(5 * 86_400)).unwrap();
    assert_eq!(clean(11).await, 2);
    assert_eq!(story.log_files(".json"), [2, 3, 4, 5, 6]);
    assert_eq!(clean(40).await, 4);
    assert_eq!((story.log_files(".json"), story.log_files(".checkpoint.parquet")), (vec![5, 6], vec![5]));
    assert_eq!(story.ids_of_any_reader().await, ["a"; 6]);
    assert!(
        Story::new().made_before(json!({"delta.enableExpiredLogCleanup": "false"})).keeps_its_log().await,
        "a table that says so keeps its log"
    );
}

#[tokio::test]
async fn a_table_that_was_replaced_by_one_partitioned_otherwise_takes_no_rows_of_the_old_one() {
    let mut story = Story::new();
    story.partition_by = vec!["id".into()];
    let process = story.start("w1").await;
    let token = process.prepare(&["a"]).await;
    let mut replaced = story.entry(0).into_iter().find(|a| a.get("metaData").is_some()).unwrap();
    replaced["metaData"]["partitionColumns"] = json!(["n"]);
    story.log_entry(1, &[replaced]);
    story.options.remove("partition_by");
    let error = loop {
        match process.commit(&[of("w1", 3, token.clone())]).await {
            Err(SinkError::Retry { .. }) => {}
            other => break other.unwrap_err().to_string(),
        }
    };
    assert!(error.contains("partitioned by n") && error.contains("partitioned by id"), "{error}");
    assert_eq!(story.log_files(".json"), [0, 1]);
}

#[tokio::test]
async fn a_protocol_that_another_writer_raised_is_looked_at_before_the_next_append() {
    let story = Story::new();
    let process = story.start("w1").await;
    process.show(1, &["a"]).await;
    let raised = |features: Value| json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features}});
    story.log_entry(2, &[raised(json!(["appendOnly", "invariants"]))]);
    let token = process.prepare(&["b"]).await;
    process.insist(&[of("w1", 2, token)]).await;
    assert_eq!(story.ids().await, ["a", "b"]);

    let mut constrained = story.entry(0).into_iter().find(|a| a.get("metaData").is_some()).unwrap();
    constrained["metaData"]["configuration"] = json!({"delta.constraints.positive": "n > 0"});
    story.log_entry(4, &[raised(json!(["appendOnly", "invariants", "checkConstraints"])), constrained]);
    let token = process.prepare(&["c"]).await;
    assert!(matches!(process.commit(&[of("w1", 3, token.clone())]).await, Err(SinkError::Retry { .. })));
    let error = process.commit(&[of("w1", 3, token)]).await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Failed { .. }) && error.to_string().contains("delta.constraints.positive"),
        "{error}"
    );
    assert_eq!(story.ids().await, ["a", "b"]);
}

#[tokio::test]
async fn times_without_a_zone_give_the_table_their_feature_and_are_not_added_to_one_without_it() {
    let mut story = Story::new();
    let mut wider = columns();
    wider.push(Field::new("local", DataType::Timestamp(TimeUnit::Nanosecond, None), true));
    story.schema = Arc::new(Schema::new(wider.clone()));
    story.start("w1").await;
    let protocol = story.entry(0).into_iter().find(|a| a.get("protocol").is_some()).unwrap();
    assert_eq!(protocol["protocol"]["readerFeatures"], json!(["timestampNtz"]));
    assert_eq!(
        (&protocol["protocol"]["minReaderVersion"], &protocol["protocol"]["minWriterVersion"]),
        (&json!(3), &json!(7))
    );

    let mut old = Story::new().option("schema_evolution", "add").made_before(json!({}));
    old.schema = Arc::new(Schema::new(wider));
    assert!(old.refusal().await.contains("lacks the feature timestampNtz"));
}

#[tokio::test]
async fn what_is_no_table_or_a_broken_one_is_refused_with_its_reason() {
    let broken = |break_it: &dyn Fn(&Story)| {
        let story = Story::new().made_before(json!({}));
        break_it(&story);
        story
    };
    let first = "00000000000000000000.json";
    let of_a_feature = json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
        "readerFeatures": ["wonder"], "writerFeatures": ["wonder"]}});
    let stories = [
        (broken(&|s| std::fs::write(s.log_file(first), "no json").unwrap()), "Json error"),
        (broken(&|s| s.log_entry(0, &[json!({"commitInfo": {}})])), "No table metadata or protocol"),
        (broken(&|s| s.log_entry(1, std::slice::from_ref(&of_a_feature))), "needs the feature wonder"),
        (broken(&|s| s.log_entry(2, &[json!({"commitInfo": {}})])), "found gap"),
        (
            broken(&|s| std::fs::write(s.log_file("00000000000000000000.checkpoint.parquet"), "no parquet").unwrap()),
            "Parquet",
        ),
    ];
    for (story, reason) in stories {
        let said = story.refusal().await;
        assert!(said.contains(reason) && said.lines().count() == 1, "{reason}: {said}");
    }
}

#[tokio::test]
async fn a_folder_of_other_files_is_not_made_a_table() {
    let story = Story::new();
    std::fs::create_dir_all(story.table()).unwrap();
    std::fs::write(story.table().join("export.csv"), "a,b").unwrap();
    assert!(story.refusal().await.contains("not empty (there is export.csv)"));
    assert!(story.sink().open(&story.context("w1"), true).await.is_err(), "a probe says it too");
    assert!(!story.log_file("").exists());
}

#[tokio::test]
async fn a_table_that_is_partitioned_otherwise_than_declared_is_refused() {
    let mut story = Story::new();
    story.partition_by = vec!["id".into()];
    let mut story = story.made_before(json!({}));
    story.partition_by = vec!["n".into()];
    let said = story.refusal().await;
    assert!(said.contains("partitioned by id") && said.contains("partitioned by n"), "{said}");
    story.partition_by = vec![];
    story.start("w1").await.show(1, &["a"]).await;
    assert!(story.entry(1).iter().any(|a| a["add"]["partitionValues"]["id"] == "a"), "the table's own is followed");
}

#[tokio::test]
async fn a_partition_column_that_the_job_does_not_have_is_null() {
    let mut story = Story::new();
    let mut wider = columns();
    wider.push(Field::new("region", DataType::Utf8, true));
    story.schema = Arc::new(Schema::new(wider));
    story.partition_by = vec!["region".into()];
    let mut story = story.made_before(json!({}));
    (story.schema, story.partition_by) = (Arc::new(Schema::new(columns())), vec![]);
    story.start("w1").await.show(1, &["a"]).await;
    let add = story.entry(1).into_iter().find(|a| a.get("add").is_some()).unwrap();
    assert_eq!(add["add"]["partitionValues"], json!({"region": null}));
    assert_eq!(story.ids_of_any_reader().await, ["a"]);
}
