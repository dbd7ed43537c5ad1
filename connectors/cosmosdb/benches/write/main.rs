//! `cargo bench -p cosmosdb`: events into a container, from staging to the last answer, beside the SDK alone, which is handed
//! finished documents. Both are charged the processor time of this process; the emulated account has one of its own.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

#[path = "../../../../tests/cosmos_account.rs"]
#[allow(dead_code, reason = "tests ask an account for more")]
mod cosmos_account;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{Field, Schema};
use azure_data_cosmos::TransactionalBatch;
use cosmos_account::{Account, DATABASE, client_at};
use cosmosdb::CosmosConnector;
use engine::connector::{ColumnSpec, Connector, Options, Origin, TableSpec, json_field};
use engine::sink::{Committable, Committed, Names, Ownership, SinkContext};
use futures::StreamExt;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const ROWS: usize = 20_000;
const DEVICES: usize = 100;
/// Documents of a batch, and requests at once.
const BATCH: usize = 50;
const AT_ONCE: usize = 16;
/// Each takes its turn so often; the middle ratio is shown.
const TURNS: usize = 5;
/// What tells the process that is the account from the one that measures.
const IS_ACCOUNT: &str = "MILLRACE_BENCH_ACCOUNT";

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    if std::env::var_os(IS_ACCOUNT).is_some() {
        let account = Account::start(false).await;
        println!("{}", account.connection_string());
        for n in 0..TURNS * 4 {
            account.container(&format!("c{n}"), "/deviceId", 4, 1_000_000);
        }
        std::future::pending::<()>().await;
    }
    let (mut process, connection) = start_account();
    println!("{:<28} {:>14} {:>14} {:>7}", "documents per CPU second", "the SDK alone", "millrace", "ratio");
    let mut container = (0..).map(|n| format!("c{n}"));
    for (what, batch) in [(format!("in batches of {BATCH}"), BATCH), ("one by one".into(), 1)] {
        let mut turns = vec![];
        for turn in 0..TURNS {
            let rows = events(turn as u64);
            let alone = alone(&connection, &container.next().expect("endless"), &rows, batch).await;
            let subject = millrace(&connection, &container.next().expect("endless"), &rows, batch).await;
            turns.push((alone, subject));
        }
        turns.sort_by(|a, b| a.1.div_duration_f64(a.0).total_cmp(&b.1.div_duration_f64(b.0)));
        let (alone, subject) = turns[TURNS / 2];
        let rate = |time: Duration| ROWS as f64 / time.as_secs_f64();
        println!("{what:<28} {:>14.0} {:>14.0} {:>6.2}x", rate(alone), rate(subject), rate(subject) / rate(alone));
    }
    let _ = process.kill();
}

fn start_account() -> (Child, String) {
    let this = std::env::current_exe().expect("this program");
    let mut process = Command::new(this).env(IS_ACCOUNT, "1").stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("its address");
    (process, line.trim().to_string())
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The event of the solutions: 23 numbers within, 977 bytes.
fn events(seed: u64) -> RecordBatch {
    let mut random = StdRng::seed_from_u64(seed);
    let texts =
        |of: &dyn Fn(usize) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..ROWS).map(of))) };
    let complex: Vec<String> = (0..ROWS)
        .map(|_| {
            let fields = (0..23).map(|n| format!("\"moreData{n}\": {}", random.random_range(0.0..100.0)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let time =
        TimestampNanosecondArray::from_iter_values((0..ROWS as i64).map(|n| 1_700_000_000_000_000_000 + n * 100));
    let columns: Vec<(Field, ArrayRef)> = vec![
        column("id", texts(&|n| format!("{seed:08x}-0000-4000-8000-{n:012x}"))),
        column("deviceId", texts(&|n| format!("contoso-device-id-{:06}", n % DEVICES))),
        column("type", texts(&|n| if n % 2 == 0 { "TEMP".into() } else { "CO2".into() })),
        column("value", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|n| n as f64 / 3.0)))),
        column("deviceSequenceNumber", Arc::new(Int64Array::from_iter_values(0..ROWS as i64))),
        column("createdAt", Arc::new(time.with_timezone("UTC"))),
        (json_field("complexData", true), texts(&|n| complex[n].clone())),
    ];
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch")
}

fn column(name: &str, array: ArrayRef) -> (Field, ArrayRef) {
    (Field::new(name, array.data_type().clone(), true), array)
}

async fn alone(connection: &str, container: &str, rows: &RecordBatch, batch: usize) -> Duration {
    let mut lines = vec![];
    formats::json_lines(rows, &mut lines).expect("rows are JSON");
    let documents: Vec<Value> = lines
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).expect("JSON"))
        .collect();
    let mut by_device: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for document in documents {
        by_device.entry(document["deviceId"].as_str().expect("a text").into()).or_default().push(document);
    }
    let client = client_at(connection, DATABASE, container).await;
    let chunks: Vec<(&String, &[Value])> =
        by_device.iter().flat_map(|(device, of)| of.chunks(batch).map(move |chunk| (device, chunk))).collect();
    let begun = cpu_time();
    let requests = chunks.into_iter().map(|(device, chunk)| {
        let client = client.clone();
        async move {
            if let [document] = chunk {
                let id = document["id"].as_str().expect("a text");
                client.create_item(device.clone(), id, document, None).await.expect("it is made");
            } else {
                let batch = TransactionalBatch::new(device.clone());
                let batch =
                    chunk.iter().fold(batch, |batch, document| batch.create_item(document).expect("a document"));
                client.execute_transactional_batch(batch, None).await.expect("they are made");
            }
        }
    });
    futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    cpu_time() - begun
}

async fn millrace(connection: &str, container: &str, rows: &RecordBatch, batch: usize) -> Duration {
    let schema = rows.schema();
    let options = [
        ("connection_string", connection.to_string()),
        ("database", DATABASE.into()),
        ("container", container.into()),
        ("write", "insert".into()),
        ("batch", batch.to_string()),
        ("requests", AT_ONCE.to_string()),
    ];
    let spec = TableSpec {
        name: "serving".into(),
        columns: schema.fields().iter().map(|f| ColumnSpec { field: f.clone(), origin: Origin::Value }).collect(),
        primary_key: vec![],
        partition_by: vec![],
        options: Options(options.into_iter().map(|(name, value)| (name.to_string(), value)).collect()),
    };
    let sink = CosmosConnector.sink(&spec).unwrap_or_else(|_| panic!("a sink"));
    let context = SinkContext {
        log_id: "log".into(),
        sink: "serving".into(),
        writer: "w".into(),
        schema,
        store: Arc::new(InMemory::new()),
        staging: "staged".into(),
        names: Names::of("w"),
        ownership: Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    sink.open(&context, false).await.expect("the container is there");
    let begun = cpu_time();
    let mut writer = sink.writer(&context).expect("a writer");
    writer.write(rows).expect("rows are taken");
    let tokens = writer.prepare().await.expect("rows are staged").into_iter().collect();
    let entry = Committable { entry: 1, writer: "w".into(), tokens, excluded: vec![] };
    assert_eq!(sink.commit(&context, &[entry]).await.expect("rows are written"), Committed::Done);
    assert_eq!(json!(context.metrics.requests.rows.get()), json!(ROWS), "nothing was written twice");
    cpu_time() - begun
}
