//! Tables that were there long before the job.

use std::fs;
use std::process::Command;

use serde_json::json;

/// More than may be open at first, and more than `deltalake` reads at a time.
const VERSIONS: u64 = 1_200;

#[test]
fn a_table_whose_log_nobody_checkpointed_is_written_to_though_a_shell_allows_few_open_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, table, log) = ("in.jsonl", "table", folder.path().join("table/_delta_log"));
    fs::create_dir_all(&log).expect("a folder");
    let schema = json!({"type": "struct", "fields": [{"name": "n", "type": "long", "nullable": true, "metadata": {}}]});
    let metadata = json!({"id": "2f0e8a1c-53f5-4b6a-9f2e-1d5a3c7b9e10", "format": {"provider": "parquet", "options": {}},
        "schemaString": schema.to_string(), "partitionColumns": [], "configuration": {}, "createdTime": 0});
    for version in 0..VERSIONS {
        let commit = json!({"commitInfo": {"timestamp": version, "operation": "WRITE"}});
        let first =
            [json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}), json!({"metaData": metadata})];
        let actions = if version == 0 { &first[..] } else { &[][..] };
        let lines = actions.iter().chain([&commit]).map(|a| format!("{a}\n")).collect::<String>();
        fs::write(log.join(format!("{version:020}.json")), lines).expect("a version");
    }
    fs::write(folder.path().join(input), "{\"n\": 1}\n{\"n\": 2}\n").expect("rows");
    let job = format!(
        "CREATE TABLE events (n BIGINT) WITH (connector = 'filesystem', path = '{input}');
         CREATE TABLE serving WITH (connector = 'delta', path = '{table}');
         INSERT INTO serving SELECT n FROM events;"
    );
    fs::write(folder.path().join("job.sql"), job).expect("a job");
    let run = Command::new("sh")
        .args(["-c", "ulimit -Sn 200; exec \"$0\" run job.sql", env!("CARGO_BIN_EXE_millrace")])
        .current_dir(folder.path())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    assert!(!said.contains("open files"), "{said}");
    // The log is checkpointed beside the commit that makes it due, and the job does not wait for that.
    assert!(!said.contains("panicked") && !said.contains("WARN"), "{said}");
    let shown = fs::read_to_string(log.join(format!("{VERSIONS:020}.json"))).expect("a version more");
    assert!(shown.contains("\\\"numRecords\\\":2"), "{shown}");
}
