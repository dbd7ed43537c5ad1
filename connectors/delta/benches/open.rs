//! `cargo bench -p delta --bench open [-- <commits>…]`: CPU seconds until a table's sink is open, by the commits of one file each that
//! it has, beside `deltalake` opening the same table in the same process a moment before.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use delta::DeltaConnector;
use deltalake::DeltaTableBuilder;
use deltalake::checkpoints::create_checkpoint;
use engine::connector::{ColumnSpec, Connector, Options, Origin, TableSpec};
use engine::sink::{Names, Ownership, SinkContext};
use object_store::memory::InMemory;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const TURNS: usize = 5;

#[tokio::main]
async fn main() {
    let said: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    println!("{:<30} {:>12} {:>12} {:>7}", "CPU ms until it is open", "deltalake", "millrace", "ratio");
    for commits in if said.is_empty() { vec![100, 1_000, 10_000] } else { said } {
        let folder = tempfile::tempdir().expect("there is room");
        sink(folder.path()).await;
        age(folder.path(), commits).await;
        let mut turns = vec![];
        for _ in 0..TURNS {
            let begun = cpu_time();
            builder(folder.path()).load().await.expect("it is a table");
            let between = cpu_time();
            sink(folder.path()).await;
            turns.push((between - begun, cpu_time() - between));
        }
        turns.sort_by(|a, b| a.0.div_duration_f64(a.1).total_cmp(&b.0.div_duration_f64(b.1)));
        let (reference, subject) = turns[TURNS / 2];
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let ratio = reference.div_duration_f64(subject);
        println!("{commits:<30} {:>12.1} {:>12.1} {ratio:>6.1}x", ms(reference), ms(subject));
    }
}

/// Of the whole process.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("since the process began")
}

fn builder(folder: &Path) -> DeltaTableBuilder {
    let url = url::Url::from_directory_path(folder).expect("it is absolute");
    DeltaTableBuilder::from_url(url).expect("it is a folder")
}

fn columns() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let instant = Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true);
    let number = Field::new("value", DataType::Float64, true);
    Arc::new(Schema::new(vec![text("eventId"), text("type"), text("deviceId"), instant, number]))
}

/// Opens the sink, as a job that starts does.
async fn sink(folder: &Path) {
    let column = |field: &Arc<Field>| ColumnSpec { field: field.clone(), origin: Origin::Value };
    let spec = TableSpec {
        name: "serving".into(),
        columns: columns().fields().iter().map(column).collect(),
        primary_key: vec![],
        partition_by: vec![],
        options: Options([("path".to_string(), folder.to_string_lossy().to_string())].into()),
    };
    let context = SinkContext {
        log_id: "log".into(),
        sink: "serving".into(),
        writer: "writer".into(),
        schema: columns(),
        store: Arc::new(InMemory::new()),
        staging: "staging".into(),
        names: Names::of("writer"),
        ownership: Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    let sink = DeltaConnector.sink(&spec).expect("it is a table");
    sink.open(&context, true).await.expect("it can be looked at");
    sink.open(&context, false).await.expect("it can be opened");
}

/// Entries as this sink writes them, and a checkpoint of all but the last fifty.
async fn age(folder: &Path, commits: u64) {
    let text = r#"{"numRecords":10000,"minValues":{"eventId":"00012d1c-7a3e-4f41-9a0b-0c9d","type":"CO2","deviceId":"contoso-device-id-000000","at":"2026-11-29T10:00:00.000Z","value":10.5},"maxValues":{"eventId":"fffe12aa-7a3e-4f41-9a0b-0c9e","type":"TEMP","deviceId":"contoso-device-id-000999","at":"2026-11-29T10:00:01.000Z","value":99.5},"nullCount":{"eventId":0,"type":0,"deviceId":0,"at":0,"value":0}}"#;
    for version in 1..=commits {
        let add = json!({"add": {"path": format!("part-bench-{version:06}.parquet"), "partitionValues": {}, "size": 1_000_000,
            "modificationTime": 1_700_000_000_000_u64 + version, "dataChange": true, "stats": text}});
        let txn = json!({"txn": {"appId": "another", "version": version, "lastUpdated": 0}});
        let entry = folder.join(format!("_delta_log/{version:020}.json"));
        std::fs::write(entry, format!("{txn}\n{add}\n")).expect("there is room");
    }
    let mut table = builder(folder).build().expect("it is a table");
    table.load_version(commits - 50).await.expect("it is there");
    create_checkpoint(&table, None).await.expect("there is room");
}
