//! `cargo bench -p cosmosdb`: events into a container, from staging to the last answer, beside the SDK alone, which is handed
//! finished documents. Both are charged the processor time of this process; the emulated account has one of its own.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

#[path = "../../../../tests/cosmos_account.rs"]
#[allow(dead_code, reason = "tests ask an account for more")]
mod cosmos_account;
mod events;
mod shown;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arrow::array::RecordBatch;
use azure_data_cosmos::options::ConnectionPoolOptions;
use azure_data_cosmos::{CosmosClient, CosmosRuntime, TransactionalBatch};
use cosmos_account::{Account, DATABASE, client_by, container_of};
use cosmosdb::CosmosConnector;
use engine::connector::{ColumnSpec, Options, Origin, TableSpec};
use events::{ROWS, events};
use futures::StreamExt;
use serde_json::Value;
use shown::{cpu_time, shown};

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
        for n in 0..TURNS * 6 {
            account.container(&format!("c{n}"), "/deviceId", 4, 1_000_000);
        }
        std::future::pending::<()>().await;
    }
    let (mut process, connection) = start_account();
    println!("{:<28} {:>14} {:>14} {:>7}", "documents per CPU second", "the SDK alone", "millrace", "ratio");
    let mut container = (0..).map(|n| format!("c{n}"));
    let in_batches = format!("in batches of {BATCH}");
    let ways = [(in_batches.as_str(), BATCH, "1.1"), ("one by one", 1, "1.1"), ("one by one, by HTTP/2", 1, "2")];
    for (what, batch, http) in ways {
        let mut turns = vec![];
        for turn in 0..TURNS {
            let rows = events(turn as u64);
            let alone = alone(&connection, &container.next().expect("endless"), &rows, batch, http).await;
            let subject = millrace(&connection, &container.next().expect("endless"), &rows, batch, http).await;
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

async fn alone(connection: &str, container: &str, rows: &RecordBatch, batch: usize, http: &str) -> Duration {
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
    let pool = ConnectionPoolOptions::builder().with_is_http2_allowed(http == "2").build().expect("a pool");
    let runtime = CosmosRuntime::builder().with_connection_pool(pool).build().await.expect("a runtime");
    let client = client_by(CosmosClient::builder().with_runtime(runtime), connection).await;
    let client = container_of(&client, DATABASE, container).await;
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

async fn millrace(connection: &str, container: &str, rows: &RecordBatch, batch: usize, http: &str) -> Duration {
    let options = [
        ("connection_string", connection.to_string()),
        ("database", DATABASE.into()),
        ("container", container.into()),
        ("write", "insert".into()),
        ("batch", batch.to_string()),
        ("http", http.into()),
        ("requests", AT_ONCE.to_string()),
    ];
    let spec = TableSpec {
        name: "serving".into(),
        columns: rows
            .schema()
            .fields()
            .iter()
            .map(|f| ColumnSpec { field: f.clone(), origin: Origin::Value })
            .collect(),
        primary_key: vec![],
        partition_by: vec![],
        options: Options(options.into_iter().map(|(name, value)| (name.to_string(), value)).collect()),
    };
    shown(&CosmosConnector, &spec, rows).await
}
