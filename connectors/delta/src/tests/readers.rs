//! Tables as another implementation reads and makes them: the Python packages deltalake and pyarrow.

use std::path::{Path as FilePath, PathBuf};
use std::process::Command;

use super::joining::join_by_copying;
use super::types::{as_read, columns_of_every_type, rows_of, rows_of_every_type};
use super::*;
use crate::checkpoint::checkpoint;
use crate::compaction::compact;
use crate::options::DeltaOptions;

/// A tool that `./test` installs; a variable may name another one.
pub fn tool(variable: &str, installed: &str) -> PathBuf {
    let repository = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path =
        std::env::var_os(variable).map_or_else(|| repository.join("target/test-tools").join(installed), PathBuf::from);
    assert!(path.exists(), "{} is not there; ./test installs what tests need", path.display());
    path
}

/// A file among the repository's tests.
pub fn script(name: &str) -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(name)
}

pub struct Python(PathBuf);

impl Python {
    pub fn installed() -> Self {
        Python(tool("MILLRACE_PYTHON", "python/bin/python"))
    }

    fn run(&self, arguments: &[&str], table: &FilePath, rest: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.0);
        let output = command.arg(script("delta_python.py")).args(arguments).arg(table).args(rest).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub fn rows(&self, story: &Story) -> Vec<Value> {
        sorted(&self.run(&["rows"], &story.table(), &[]).unwrap())
    }

    fn make(&self, story: &Story, kind: &str) {
        self.run(&["make"], &story.table(), &[kind]).unwrap();
    }
}

/// Rows that a reader printed, by id.
pub fn sorted(lines: &str) -> Vec<Value> {
    let mut rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["id"].as_str().unwrap_or_default().to_string());
    rows
}

/// A table of every type, whose schema the story's sink declares.
pub fn of_every_type() -> Story {
    let mut story = Story::new().option("compaction", "false").option("schema_evolution", "add");
    story.schema = Arc::new(Schema::new(columns_of_every_type()));
    story
}

pub fn expected(rows: &[Value]) -> Vec<Value> {
    let mut rows: Vec<Value> = rows.iter().map(as_read).collect();
    rows.sort_by_key(|row| row["id"].as_str().unwrap_or_default().to_string());
    rows
}

#[tokio::test]
async fn another_reader_finds_every_type_as_it_was_written_before_and_after_upkeep() {
    let python = Python::installed();
    let mut story = of_every_type();
    let process = story.start("w1").await;
    let rows = rows_of_every_type();
    for (entry, row) in (1..).zip(&rows) {
        process.show_rows(entry, &rows_of(&story.schema, std::slice::from_ref(row))).await;
    }
    process.show_rows(4, &rows_of(&story.schema, &rows)).await;
    let twice: Vec<Value> = rows.iter().chain(&rows).cloned().collect();
    assert_eq!(python.rows(&story), expected(&twice));

    let options = DeltaOptions::of_folder(&story.table());
    compact(&options, &Names::of("w9")).await.unwrap();
    assert_eq!(story.reader().live_files().await.unwrap().len(), 1);
    assert_eq!(python.rows(&story), expected(&twice));

    checkpoint(&options, 5).await.unwrap();
    crate::log_cleanup::clean_log(&options, chrono::Utc::now() + chrono::TimeDelta::days(60)).await.unwrap();
    assert_eq!(story.log_files(".json"), [5]);
    assert_eq!(python.rows(&story), expected(&twice));

    let mut wider = columns_of_every_type();
    wider.push(Field::new("added", DataType::Int64, true));
    story.schema = Arc::new(Schema::new(wider));
    let mut new = rows[0].clone();
    (new["id"], new["added"]) = (json!("new"), json!(7));
    story.start("w2").await.show_rows(7, &rows_of(&story.schema, std::slice::from_ref(&new))).await;
    let mut all = expected(&twice);
    all.iter_mut().for_each(|row| row["added"] = Value::Null);
    let mut read = as_read(&rows[0]);
    (read["id"], read["added"]) = (json!("new"), json!(7));
    all.push(read);
    all.sort_by_key(|row| row["id"].as_str().unwrap().to_string());
    assert_eq!(python.rows(&story), all);
}

#[tokio::test]
async fn another_reader_finds_every_type_in_row_groups_that_were_copied() {
    let python = Python::installed();
    let story = of_every_type();
    let process = story.start("w1").await;
    let rows = rows_of_every_type();
    for (entry, row) in (1..).zip(&rows) {
        process.show_rows(entry, &rows_of(&story.schema, std::slice::from_ref(row))).await;
    }
    join_by_copying(&story).await;
    assert_eq!(python.rows(&story), expected(&rows));
}

/// Columns that a table can be partitioned by, and rows with values that need care in a path or a log.
pub fn of_partitions(price: &str) -> (Story, Vec<Value>) {
    let mut story = Story::new().option("compaction", "false");
    let every = columns_of_every_type();
    let names = ["id", "l", "text", "day", "at", "local", "price", "flag", "d"];
    story.schema =
        Arc::new(Schema::new(every.into_iter().filter(|f| names.contains(&f.name().as_str())).collect::<Vec<_>>()));
    story.partition_by = names[2..].iter().map(|name| name.to_string()).collect();
    let row = |id: &str, text: &str| {
        json!({"id": id, "l": 1, "text": text, "day": "2024-02-29", "at": "2023-11-14T22:13:20.123456Z", "price": price,
            "local": "2024-02-29T23:59:59.999999", "flag": true, "d": -2.5})
    };
    let mut whole_second = row("second", "x");
    (whole_second["at"], whole_second["local"]) = (json!("2023-11-14T22:13:20Z"), json!("1969-12-31T00:00:00"));
    let rows = vec![
        row("plain", "x"),
        whole_second,
        row("path", "a/b=c%2F d+e:f'g\"h\\i"),
        row("words", "größe ✓"),
        row("long", &"long".repeat(100)),
        json!({"id": "null", "l": null}),
        row("plain2", "x"),
    ];
    (story, rows)
}

pub fn expected_of_partitions(rows: &[Value]) -> Vec<Value> {
    let mut read = rows.to_vec();
    for row in &mut read {
        for name in ["l", "text", "day", "at", "local", "price", "flag", "d"] {
            row[name] = row.get(name).cloned().unwrap_or(Value::Null);
        }
        for (name, zone) in [("at", "Z"), ("local", "")] {
            if let Some(text) =
                row[name].as_str().map(|t| t.trim_end_matches('Z').to_string()).filter(|t| !t.contains('.'))
            {
                row[name] = json!(format!("{text}.000000{zone}"));
            }
        }
    }
    read.sort_by_key(|row| row["id"].as_str().unwrap().to_string());
    read
}

#[tokio::test]
async fn another_reader_finds_the_partitions_that_were_written() {
    let python = Python::installed();
    // A negative decimal, the package reads from the log as "-1.-50" and fails.
    let (story, rows) = of_partitions("1.50");
    let process = story.start("w1").await;
    let mut all = vec![];
    for entry in 1..=4 {
        process.show_rows(entry, &rows_of(&story.schema, &rows)).await;
        all.extend(rows.clone());
    }
    assert_eq!(python.rows(&story), expected_of_partitions(&all));
    compact(&DeltaOptions::of_folder(&story.table()), &Names::of("w9")).await.unwrap();
    assert_eq!(story.reader().live_files().await.unwrap().len(), 6, "one a partition");
    assert_eq!(python.rows(&story), expected_of_partitions(&all));
}

/// The columns of the tables that the Python package makes.
fn of_theirs() -> Story {
    let mut story = Story::new();
    story.schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]));
    story
}

#[tokio::test]
async fn a_table_of_another_writer_takes_rows_where_they_break_nothing() {
    let python = Python::installed();
    for (kind, theirs) in [("plain", 1), ("append-only", 1), ("change-feed", 1), ("deletion-vectors", 0)] {
        let story = of_theirs();
        python.make(&story, kind);
        let process = story.start("w1").await;
        process.show_rows(1, &rows_of(&story.schema, &[json!({"id": "ours", "n": 2})])).await;
        let found = python.rows(&story);
        assert_eq!(found.len(), theirs + 1, "{kind}");
        assert!(found.contains(&json!({"id": "ours", "n": 2})), "{kind}: {found:?}");
        let options = DeltaOptions::of_folder(&story.table());
        let newest = story.log_files(".json").into_iter().max().unwrap();
        checkpoint(&options, newest).await.unwrap();
        process.show_rows(2, &rows_of(&story.schema, &[json!({"id": "ours too", "n": 3})])).await;
        assert_eq!(python.rows(&story).len(), theirs + 2, "{kind}");
    }
}

#[tokio::test]
async fn a_table_of_another_writer_is_refused_by_name_where_rows_could_break_it() {
    let python = Python::installed();
    for (kind, reason) in [
        ("constraint", "the constraint delta.constraints.positive"),
        ("generated", "column n has an invariant or a generation expression"),
        ("invariant", "column n has an invariant or a generation expression"),
        ("short-memory", "delta.setTransactionRetentionDuration"),
    ] {
        let story = of_theirs();
        python.make(&story, kind);
        let said = story.refusal().await;
        assert!(said.contains(reason), "{kind}: {said}");
        assert!(story.sink().open(&story.context("w1"), true).await.is_err(), "{kind}: a probe says it too");
    }
}

#[tokio::test]
async fn rows_that_another_writer_deletes_between_two_commits_stay_deleted() {
    let python = Python::installed();
    let story = of_theirs();
    python.make(&story, "plain");
    let process = story.start("w1").await;
    for entry in 1..=5 {
        process.show_rows(entry, &rows_of(&story.schema, &[json!({"id": format!("e{entry}"), "n": entry})])).await;
    }
    python.run(&["delete"], &story.table(), &["n = 3"]).unwrap();
    process.show_rows(6, &rows_of(&story.schema, &[json!({"id": "e6", "n": 6})])).await;
    compact(&DeltaOptions::of_folder(&story.table()), &Names::of("w9")).await.unwrap();
    process.show_rows(7, &rows_of(&story.schema, &[json!({"id": "e7", "n": 7})])).await;
    let ids: Vec<_> = python.rows(&story).into_iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, ["e1", "e2", "e4", "e5", "e6", "e7", "theirs"]);
}
