//! Tables as Spark reads and makes them, with Delta's own implementation.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::joining::join_by_copying;
use super::readers::{Python, expected, expected_of_partitions, of_every_type, of_partitions, script, sorted, tool};
use super::types::{rows_of, rows_of_every_type};
use super::*;
use crate::checkpoint::checkpoint;
use crate::compaction::compact;
use crate::options::DeltaOptions;

/// A slow machine takes a minute to start it, and seconds for each command.
const LONGEST_ANSWER: Duration = Duration::from_secs(300);
/// What Spark's own start script opens of the platform, as far as a local session comes to it.
const OPENED: [&str; 7] = [
    "java.lang",
    "java.lang.invoke",
    "java.nio",
    "java.util",
    "sun.nio.ch",
    "sun.security.action",
    "sun.util.calendar",
];

/// One session for all stories: starting it takes longer than they do.
static SESSION: Mutex<Option<Spark>> = Mutex::new(None);

/// A Spark session in a process of its own, which ends with this one: its input closes.
struct Spark {
    commands: ChildStdin,
    answers: Receiver<String>,
}

/// The session; whoever has it asks alone.
fn spark() -> MappedMutexGuard<'static, Spark> {
    MutexGuard::map(SESSION.lock(), |session| session.get_or_insert_with(Spark::start))
}

impl Spark {
    #[expect(clippy::zombie_processes, reason = "it ends with its input, which is this process's end")]
    fn start() -> Self {
        let mut java = Command::new("java");
        java.args(["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        java.args(OPENED.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
        java.arg("-cp").arg(tool("MILLRACE_SPARK", "spark").join("*"));
        java.args(["scala.tools.nsc.MainGenericRunner", "-usejavacp", "-nc"]).arg(script("spark/session.scala"));
        let mut child = java.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (lines, answers) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut spark = Spark { commands: child.stdin.take().unwrap(), answers };
        spark.answer().unwrap();
        spark
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut lines = String::new();
        loop {
            let line = self.answers.recv_timeout(LONGEST_ANSWER).expect("Spark answers");
            if line == "ok" {
                return Ok(lines);
            }
            if let Some(reason) = line.strip_prefix("error: ") {
                return Err(reason.to_string());
            }
            lines += &line;
            lines += "\n";
        }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.answer().unwrap_or_else(|reason| panic!("{command}: {reason}"))
    }

    /// Runs a statement in which `$t` stands for the story's table.
    fn sql(&mut self, story: &Story, statement: &str) {
        let table = format!("delta.`{}`", story.table().display());
        self.ask(&format!("sql {}", statement.replace("$t", &table)));
    }

    /// Makes the story's table, empty, with a text `id` and a number `n`.
    fn make(&mut self, story: &Story, columns: &str, properties: &str) {
        let path = story.table();
        self.ask(&format!("sql CREATE TABLE delta.`{}` ({columns}) USING delta {properties}", path.display()));
    }

    fn rows(&mut self, story: &Story) -> Vec<Value> {
        sorted(&self.ask(&format!("rows {}", story.table().display())))
    }

    fn ids(&mut self, story: &Story) -> Vec<String> {
        self.rows(story).iter().map(|row| row["id"].as_str().unwrap().to_string()).collect()
    }

    /// How many rows a condition finds, with files passed over by what the log says of them.
    fn count(&mut self, story: &Story, condition: &str) -> u64 {
        self.ask(&format!("count {} {condition}", story.table().display())).trim().parse().unwrap()
    }
}

fn of_two_columns() -> Story {
    let mut story = Story::new().option("compaction", "false");
    story.schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]));
    story
}

impl Process {
    async fn append(&self, story: &Story, entry: u64, id: &str) {
        self.show_rows(entry, &rows_of(&story.schema, &[json!({"id": id, "n": entry})])).await;
    }
}

/// Of which each finds one of the rows of every type.
const CONDITIONS: [&str; 7] = [
    "at = '2023-11-14T22:13:20.123456Z'",
    "local = TIMESTAMP_NTZ '1969-12-31T23:59:59.000001'",
    "big = 1234567890123456789012345678.0123456789",
    "long_price = 12345678901234.5678",
    "day = DATE '9999-12-31'",
    "text = repeat('ü', 100)",
    "f = -1.5",
];

#[tokio::test]
async fn spark_finds_every_type_in_row_groups_that_were_copied() {
    let mut spark = spark();
    let story = of_every_type();
    let process = story.start("w1").await;
    let rows = rows_of_every_type();
    for (entry, row) in (1..).zip(&rows) {
        process.show_rows(entry, &rows_of(&story.schema, std::slice::from_ref(row))).await;
    }
    join_by_copying(&story).await;
    assert_eq!(spark.rows(&story), expected(&rows));
    for condition in CONDITIONS {
        assert_eq!(spark.count(&story, condition), 1, "{condition}");
    }
}

#[tokio::test]
async fn spark_finds_every_type_as_it_was_written_before_and_after_upkeep() {
    let mut spark = spark();
    let story = of_every_type();
    let process = story.start("w1").await;
    let rows = rows_of_every_type();
    for (entry, row) in (1..).zip(&rows) {
        process.show_rows(entry, &rows_of(&story.schema, std::slice::from_ref(row))).await;
    }
    process.show_rows(4, &rows_of(&story.schema, &rows)).await;
    let twice: Vec<Value> = rows.iter().chain(&rows).cloned().collect();
    assert_eq!(spark.rows(&story), expected(&twice));
    for condition in CONDITIONS {
        assert_eq!(spark.count(&story, condition), 2, "{condition}");
    }

    let options = DeltaOptions::of_folder(&story.table());
    compact(&options, &Names::of("w9")).await.unwrap();
    checkpoint(&options, 5).await.unwrap();
    crate::log_cleanup::clean_log(&options, chrono::Utc::now() + chrono::TimeDelta::days(60)).await.unwrap();
    assert_eq!(story.log_files(".json"), [5]);
    assert_eq!(spark.rows(&story), expected(&twice));
}

#[tokio::test]
async fn spark_finds_the_partitions_that_were_written() {
    let mut spark = spark();
    let (story, rows) = of_partitions("-1.50");
    story.start("w1").await.show_rows(1, &rows_of(&story.schema, &rows)).await;
    assert_eq!(spark.rows(&story), expected_of_partitions(&rows));
    for (condition, found) in [
        ("at = '2023-11-14T22:13:20.123456Z'", 5),
        ("local = TIMESTAMP_NTZ '1969-12-31T00:00:00'", 1),
        ("price = -1.50", 6),
        ("text IS NULL", 1),
        ("text = 'größe ✓'", 1),
        ("flag", 6),
    ] {
        assert_eq!(spark.count(&story, condition), found, "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_deletion_vectors_is_shared_with_spark() {
    let mut spark = spark();
    let story = of_two_columns();
    spark.make(&story, "id STRING, n BIGINT", "TBLPROPERTIES (delta.enableDeletionVectors = true)");
    spark.sql(&story, "INSERT INTO $t VALUES ('s1', 1), ('s2', 2), ('s3', 3)");
    spark.sql(&story, "DELETE FROM $t WHERE id = 's2'");
    let process = story.start("w1").await;
    for entry in 1..=5 {
        process.append(&story, entry, &format!("m{entry}")).await;
    }
    process.show_rows(6, &rows_of(&story.schema, &[json!({"id": "m6"}), json!({"id": "m7"})])).await;
    assert_eq!(spark.ids(&story), ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "s1", "s3"]);

    // Of a file of ours, only one row goes: it gets a vector, and no compaction may bring the row back.
    spark.sql(&story, "DELETE FROM $t WHERE id = 'm6'");
    let vectors = |story: &Story| {
        let newest = story.log_files(".json").into_iter().max().unwrap();
        story.entry(newest).iter().filter(|a| a["add"]["deletionVector"].is_object()).count()
    };
    assert_eq!(vectors(&story), 1, "Spark wrote a deletion vector");
    assert_eq!(story.ids_read_back().await, spark.ids(&story), "read back with the file of the vector");
    process.append(&story, 7, "m8").await;
    compact(&DeltaOptions::of_folder(&story.table()), &Names::of("w9")).await.unwrap();
    let newest = story.log_files(".json").into_iter().max().unwrap();
    checkpoint(&DeltaOptions::of_folder(&story.table()), newest).await.unwrap();
    process.append(&story, 8, "m9").await;
    let ids = ["m1", "m2", "m3", "m4", "m5", "m7", "m8", "m9", "s1", "s3"];
    assert_eq!(spark.ids(&story), ids);
    let rows = Python::installed().rows(&story);
    assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    assert_eq!(story.ids_read_back().await, ids);
    let (rows, _) = story.looked_up(&[Field::new("id", DataType::Utf8, true)]).await;
    assert_eq!(rows.num_rows(), ids.len());
    spark.sql(&story, "OPTIMIZE $t");
    assert_eq!(story.ids_read_back().await, ids);
    process.append(&story, 9, "last").await;
    assert_eq!(spark.count(&story, "true"), 11);
}

#[tokio::test]
async fn tables_that_spark_made_are_taken_where_rows_break_nothing() {
    let mut spark = spark();
    for (columns, properties) in [
        ("id STRING, n BIGINT", "TBLPROPERTIES (delta.checkpointPolicy = 'v2')"),
        ("id STRING, n BIGINT", "TBLPROPERTIES (delta.appendOnly = true, delta.enableChangeDataFeed = true)"),
        ("id STRING, n BIGINT, at TIMESTAMP_NTZ", ""),
        ("n BIGINT, id STRING", "PARTITIONED BY (n)"),
    ] {
        let story = of_two_columns();
        spark.make(&story, columns, properties);
        spark.sql(&story, "INSERT INTO $t (id, n) VALUES ('theirs', 1)");
        let process = story.start("w1").await;
        process.append(&story, 2, "ours").await;
        let newest = story.log_files(".json").into_iter().max().unwrap();
        checkpoint(&DeltaOptions::of_folder(&story.table()), newest).await.unwrap();
        process.append(&story, 3, "ours too").await;
        assert_eq!(spark.ids(&story), ["ours", "ours too", "theirs"], "{columns} {properties}");
        assert_eq!(spark.count(&story, "n = 3 AND id = 'ours too'"), 1, "{columns} {properties}");
    }
}

#[tokio::test]
async fn tables_that_spark_made_are_refused_by_name_where_rows_could_break_them() {
    let mut spark = spark();
    for (columns, properties, reason) in [
        ("id STRING, n BIGINT", "TBLPROPERTIES (delta.columnMapping.mode = 'name')", "maps its columns by name"),
        (
            "id STRING, n BIGINT",
            "TBLPROPERTIES (delta.enableRowTracking = true)",
            "the features domainMetadata, rowTracking",
        ),
        (
            "id STRING, n BIGINT",
            "TBLPROPERTIES (delta.enableInCommitTimestamps = true)",
            "the feature inCommitTimestamp",
        ),
        ("id STRING, n BIGINT NOT NULL", "", "column n is NOT NULL in the table"),
    ] {
        let story = of_two_columns();
        spark.make(&story, columns, properties);
        let said = story.refusal().await;
        assert!(said.contains(reason), "{columns} {properties}: {said}");
    }
    let story = of_two_columns();
    spark.make(&story, "id STRING, n BIGINT", "");
    let process = story.start("w1").await;
    process.append(&story, 1, "before").await;
    spark.sql(&story, "ALTER TABLE $t ADD CONSTRAINT positive CHECK (n > 0)");
    assert!(story.refusal().await.contains("the constraint delta.constraints.positive"));
    let token = process.prepare_rows(&rows_of(&story.schema, &[json!({"id": "after", "n": -1})])).await;
    let error = loop {
        match process.commit(&[of("w1", 2, token.clone())]).await {
            Err(SinkError::Retry { .. }) => {}
            other => break other.unwrap_err().to_string(),
        }
    };
    assert!(error.contains("the constraint delta.constraints.positive"), "while the job runs: {error}");
    assert_eq!(spark.ids(&story), ["before"]);
}
