//! The Delta table as readers see it: ours, and the Python package's.

use std::path::{Path, PathBuf};
use std::process::Command;

use delta::TableReader;
use serde::Deserialize;
use simulator::{Report, Verification};

use crate::millrace::{Job, Running};

/// Compares the rows that the table consists of now with what was sent.
pub async fn verify(mut sent: Verification, table: &Path) -> Report {
    let reader = TableReader::local(table).expect("the table's folder is there");
    for file in reader.live_files().await.expect("the table's log can be read") {
        let rows = reader.rows(&file, None).await.unwrap_or_else(|e| panic!("{file}: {e}"));
        sent.commit(0, &rows).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    sent.report()
}

/// Lets the job read all that was sent and stops it: then its table shows each event once, though copies came.
pub async fn shows_each_event_once(sent: Verification, run: &mut Running, job: &Job, partitions: usize) {
    run.wait_until_idle(partitions);
    run.stop();
    let report = verify(sent, &job.table()).await;
    assert!(report.holds() && report.copies > 0, "{report}\n{}", run.said());
}

/// The rows that the table shows now; 0 before it exists.
pub async fn row_count(table: &Path) -> u64 {
    let Ok(reader) = TableReader::local(table) else { return 0 };
    reader.commits().await.map_or(0, |commits| commits.iter().map(|commit| commit.rows).sum())
}

/// What `tests/delta_readers.py` says of a table.
#[derive(Debug, Deserialize)]
pub struct Summary {
    pub rows: u64,
    pub distinct: u64,
    pub nulls: u64,
}

/// Reads the table with the Python package, which `./test` installs.
pub fn read_with_python(table: &Path) -> Summary {
    let mut reader = Command::new(python());
    let output = reader.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delta_readers.py")).arg(table).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; ./test installs what tests need", python().display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the reader prints JSON")
}

/// The Python that has the packages of the tests.
pub fn python() -> PathBuf {
    let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/python/bin/python").into();
    std::env::var_os("MILLRACE_PYTHON").unwrap_or_else(installed).into()
}
