//! A Delta table in which rows are looked up.

use arrow::array::Array;
use engine::lookup::{Loaded, Lookup, LookupError, LookupRequest};
use engine::source::SourceColumn;

use super::*;

impl Story {
    fn lookup(&self, columns: &[Field]) -> (Arc<dyn Lookup>, LookupRequest) {
        let columns: Vec<Arc<Field>> = columns.iter().cloned().map(Arc::new).collect();
        let column = |field: &Arc<Field>| ColumnSpec { field: field.clone(), origin: Origin::Value };
        let spec = TableSpec {
            name: "known".into(),
            columns: columns.iter().map(column).collect(),
            primary_key: vec![],
            partition_by: vec![],
            options: Options([("path".to_string(), self.options["path"].clone())].into()),
        };
        let lookup = DeltaConnector.lookup(&spec).unwrap_or_else(|problems| panic!("{problems:?}"));
        let columns = columns.into_iter().map(|field| SourceColumn { field, origin: Origin::Value }).collect();
        (lookup, LookupRequest { columns, keys: vec![], timeout: std::time::Duration::from_secs(60) })
    }

    async fn load(&self, columns: &[Field], seen: Option<&str>) -> Result<Loaded, LookupError> {
        let (lookup, request) = self.lookup(columns);
        lookup.load(&request, seen, 0).await
    }

    pub async fn looked_up(&self, columns: &[Field]) -> (RecordBatch, String) {
        let Loaded::Rows { version, rows } = self.load(columns, None).await.unwrap() else { panic!("never seen") };
        let schema = Arc::new(Schema::new(columns.to_vec()));
        (arrow::compute::concat_batches(&schema, &rows).unwrap(), version.unwrap())
    }

    async fn refused(&self, columns: &[Field]) -> String {
        let refused = self.load(columns, None).await.unwrap_err();
        assert!(matches!(refused, LookupError::Failed { .. }), "{refused}");
        refused.to_string()
    }
}

fn id() -> Field {
    Field::new("id", DataType::Utf8, true)
}

fn ids(rows: &RecordBatch) -> Vec<&str> {
    let mut ids: Vec<&str> = rows.column(0).as_string::<i32>().iter().flatten().collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_loaded_whole_through_its_checkpoints_and_again_when_it_has_another_version() {
    let story = Story::new();
    let process = story.start("w1").await;
    process.show(1, &["a", "b"]).await;
    process.show(2, &["c"]).await;
    let options = crate::options::DeltaOptions::of_folder(&story.table());
    crate::checkpoint::checkpoint(&options, 2).await.unwrap();
    // What only the checkpoint knows any more.
    for version in [0, 1] {
        std::fs::remove_file(story.log_file(&format!("{version:020}.json"))).unwrap();
    }
    let (rows, version) = story.looked_up(&[id()]).await;
    assert_eq!(ids(&rows), ["a", "b", "c"]);
    assert!(matches!(story.load(&[id()], Some(&version)).await.unwrap(), Loaded::Unchanged));
    process.show(3, &["d"]).await;
    let Loaded::Rows { rows, .. } = story.load(&[id()], Some(&version)).await.unwrap() else {
        panic!("it has changed")
    };
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_column_has_the_values_of_the_log_and_names_are_found_in_any_case() {
    let story = Story { partition_by: vec!["n".into()], ..Story::new() };
    let process = story.start("w1").await;
    process.show(1, &["a", "b"]).await;
    let columns = [Field::new("ID", DataType::Utf8, true), Field::new("N", DataType::Int64, true)];
    let (rows, _) = story.looked_up(&columns).await;
    assert_eq!(ids(&rows), ["a", "b"]);
    let n = rows.column(1).as_primitive::<Int64Type>();
    let expected =
        story.opened().await.get_active_add_actions_by_predicate(None).try_collect::<Vec<_>>().await.unwrap();
    let expected: Vec<Option<i64>> =
        expected.iter().map(|file| file.partition_values_map()["n"].as_ref().map(|n| n.parse().unwrap())).collect();
    assert!(n.iter().all(|n| expected.contains(&n)) && n.null_count() < 2, "{n:?} of {expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_structs_are_told_by_their_names_and_what_an_older_file_lacks_is_null() {
    let fields =
        |names: &[&str]| DataType::Struct(names.iter().map(|n| Field::new(*n, DataType::Int64, true)).collect());
    let place = |names: &[&str], numbers: [i64; 2]| -> arrow::array::ArrayRef {
        let DataType::Struct(fields) = fields(names) else { panic!("it is one") };
        let parts = numbers[..names.len()].iter().map(|n| Arc::new(Int64Array::from(vec![*n])) as _).collect();
        Arc::new(arrow::array::StructArray::new(fields, parts, None))
    };
    let ids: arrow::array::ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let columns = [id(), Field::new("place", fields(&["lat", "lon"]), true)];
    let schema = Schema::new(vec![id(), Field::new("place", fields(&["Lon", "Lat"]), true)]);
    let story = Story { schema: Arc::new(schema), ..Story::new() };
    let process = story.start("w1").await;
    let batch = RecordBatch::try_new(story.schema.clone(), vec![ids.clone(), place(&["Lon", "Lat"], [7, 50])]).unwrap();
    let mut writer = process.sink.writer(&process.context).unwrap();
    writer.write(&batch).unwrap();
    let token = writer.prepare().await.unwrap().unwrap();
    let entry = Committable { entry: 1, writer: "w1".into(), tokens: vec![token], excluded: vec![] };
    assert_eq!(process.sink.commit(&process.context, &[entry]).await.unwrap(), Committed::Done);
    let (rows, _) = story.looked_up(&columns).await;
    let place = rows.column(1).as_struct();
    assert_eq!(place.column(0).as_primitive::<Int64Type>().values(), &[50], "lat");
    assert_eq!(place.column(1).as_primitive::<Int64Type>().values(), &[7], "lon");
    let unknown = [id(), Field::new("place", fields(&["lat", "height"]), true)];
    assert!(story.refused(&unknown).await.contains("its column place is"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_turns_bad_while_the_job_runs_is_waited_for() {
    let story = Story::new();
    let process = story.start("w1").await;
    process.show(1, &["a"]).await;
    let (_, version) = story.looked_up(&[id()]).await;
    std::fs::remove_dir_all(story.table()).unwrap();
    let gone = story.load(&[id()], Some(&version)).await.unwrap_err();
    assert!(matches!(gone, LookupError::Retry { .. }), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_found_in_a_folder_whose_name_is_escaped_in_the_log() {
    let story = Story { partition_by: vec!["n".into()], ..Story::new() };
    story.start("w1").await.show(1, &["a"]).await;
    // As Spark names the folder of a value with a colon: escaped on the disk, and once more in the log.
    let version = *story.log_files(".json").last().unwrap();
    let log = story.log_file(&format!("{version:020}.json"));
    let text = std::fs::read_to_string(&log).unwrap();
    let folder = text.split("\"path\":\"").nth(1).unwrap().split('/').next().unwrap().to_string();
    std::fs::rename(story.table().join(&folder), story.table().join("n=17%3A05")).unwrap();
    std::fs::write(&log, text.replace(&format!("{folder}/"), "n=17%253A05/")).unwrap();
    assert_eq!(ids(&story.looked_up(&[id()]).await.0), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_all_said_before_a_row_is_read() {
    let story = Story::new();
    story.start("w1").await.show(1, &["a"]).await;
    let columns = [Field::new("idd", DataType::Utf8, true), Field::new("n", DataType::Int32, true)];
    let said = story.refused(&columns).await;
    assert!(said.contains("no column idd; there are id, n, at"), "{said}");
    assert!(said.contains("its column n is long, and is declared as integer"), "{said}");
    let nothing = Story::new().refused(&[id()]).await;
    assert!(nothing.contains("there is no Delta table"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_would_be_misread_is_refused() {
    let mapped = Story::new().made_before(json!({"delta.columnMapping.mode": "name"}));
    assert!(mapped.refused(&[id()]).await.contains("columns are mapped"));
}
