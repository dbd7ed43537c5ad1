//! Data files that leave for the table in parts while they grow: the process dies, or sleeps while another takes over,
//! before, between and after them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use delta::TableReader;

use crate::millrace::{FENCED, Job};

pub const ROWS: i64 = 6_000;
/// Of each row: all of them are three row groups of a file.
const TEXT: usize = 8 * 1024;
const STEPS: [&str; 3] = ["after-part-of-file", "before-file-is-whole", "after-file-is-whole"];

/// A job that writes one large file: no checkpoint comes between.
pub fn job() -> Job {
    let job = Job::new(
        "CREATE TABLE events (n BIGINT, text STRING) WITH (connector = 'filesystem', path = '${EVENTS}');
         CREATE TABLE serving WITH (connector = 'delta', path = '${TABLE}', 'parquet.compression' = 'none');
         INSERT INTO serving SELECT n, text FROM events;",
    );
    let (events, table) = (job.folder().join("events.json"), job.table());
    let mut lines = String::new();
    for n in 0..ROWS {
        writeln!(lines, "{{\"n\": {n}, \"text\": \"{n}{}\"}}", "x".repeat(TEXT)).expect("memory");
    }
    fs::write(&events, lines).expect("the job's folder can be written");
    let job = job.variable("EVENTS", &events.display().to_string()).variable("TABLE", &table.display().to_string());
    job.argument("--checkpoint-interval=60s").argument("--parallelism=1")
}

/// The table's numbers in order, and the files that it consists of.
pub async fn shown(job: &Job) -> (Vec<i64>, BTreeSet<String>) {
    let reader = TableReader::local(&job.table()).expect("the table is there");
    let rows = reader.live_rows(Some(&["n"])).await.expect("the table can be read");
    let mut numbers: Vec<i64> =
        rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    numbers.sort_unstable();
    (numbers, reader.live_files().await.expect("the log can be read"))
}

/// Files in the table's folder.
fn files(job: &Job) -> BTreeSet<String> {
    let names = fs::read_dir(job.table()).expect("the table is there");
    let names = names.map(|file| file.expect("a file").file_name().into_string().expect("text"));
    names.filter(|name| name != "_delta_log").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_dies_while_a_large_file_is_on_its_way_shows_its_rows_once() {
    let job = job();
    for step in STEPS {
        job.dies_at(step, 1, || {});
    }
    // Each left what it had brought, under names of its own.
    let left = files(&job);
    assert_eq!(left.iter().filter(|name| name.ends_with(".parquet#1")).count(), 2, "{left:?}");
    assert_eq!(left.iter().filter(|name| name.ends_with(".parquet")).count(), 1, "{left:?}");
    let mut last = job.start();
    assert_eq!(last.wait().code(), Some(0), "{}", last.said());
    let (numbers, live) = shown(&job).await;
    assert_eq!(numbers, (0..ROWS).collect::<Vec<_>>());
    assert!(live.len() == 1 && live.is_disjoint(&left), "{live:?} {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_sleeps_while_a_large_file_is_on_its_way_and_was_superseded_does_no_harm() {
    for step in STEPS {
        let job = job();
        let mut sleeper = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1:freeze"))], &[]);
        sleeper.wait_until_frozen();
        let mut successor = job.start();
        assert_eq!(successor.wait().code(), Some(0), "{step}: {}", successor.said());
        sleeper.thaw();
        assert_eq!(sleeper.wait().code(), Some(FENCED), "{step}: {}", sleeper.said());
        let (numbers, live) = shown(&job).await;
        assert_eq!(numbers, (0..ROWS).collect::<Vec<_>>(), "{step}");
        assert_eq!(live.len(), 1, "{step}");
    }
}
