//! Messages that are not JSON: CSV, Avro by a schema registry, in containers, Protocol Buffers, packed payloads.

use std::path::Path;
use std::process::Command;

use kafka::Producer;
use serde_json::Value;

use crate::broker::Broker;
use crate::millrace::{Job, PATIENCE};
use crate::numbers::{all, send, shown};
use crate::registry::{Door, Registry};
use crate::table::python;
use crate::trouble::dead_letters;

/// What Confluent's own client does.
fn client(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/avro_client.py");
    let output = Command::new(python()).arg(script).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; ./test installs what tests need", python().display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints JSON")
}

/// From one topic of Avro into another; `registry` is the option's part of both tables.
fn readings(servers: &str, from: &str, to: &str, registry: &str) -> Job {
    let columns = "n BIGINT NOT NULL, at TIMESTAMP, price DECIMAL(12, 2), kind STRING, tags ARRAY<STRING>,
                   extra MAP<STRING, DOUBLE>, note STRING";
    Job::new(&format!(
        "CREATE TABLE readings ({columns})
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'avro'{registry});
         CREATE TABLE shown ({columns})
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'avro'{registry},
               'avro.name' = 'plant.Shown');
         INSERT INTO shown SELECT * FROM readings;"
    ))
    .argument("--checkpoint-interval=200ms")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_confluents_client_writes_is_read_and_what_is_written_its_client_reads_each_once() {
    let (broker, registry) = (Broker::shared(), Registry::start());
    let (from, to) = (broker.topic("avro-from", 2).await, broker.topic("avro-to", 2).await);
    let servers = broker.bootstrap_servers();
    client(&["write", &servers, &registry.url(), &from, "4000"]);
    let job = readings(&servers, &from, &to, &format!(", 'schema_registry.url' = '{}'", registry.url()));
    job.dies_at("within-transaction", 1, || {});
    job.start().read_all_and_stop(2);
    let mut rows: Vec<Value> = client(&["read", &servers, &registry.url(), &to])
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    rows.sort_by_key(|row| row["n"].as_u64());
    assert_eq!(rows.iter().filter_map(|row| row["n"].as_u64()).collect::<Vec<_>>(), all(0..4000));
    let row = |n: usize| rows[n].to_string();
    assert_eq!(
        row(1),
        r#"{"at":"2026-11-22 00:00:00.000001+00:00","extra":{"half":0.5,"none":null},"kind":"ODD","n":1,"note":"note 1","price":"0.25","tags":["x"]}"#
    );
    assert!(row(2).contains(r#""note":null,"price":"0.50","tags":["x","x"]"#), "{}", row(2));
    let letters = dead_letters(&job.state().join("dead-letter"));
    assert_eq!(letters.len(), 1, "{letters:#?}");
    assert_eq!(letters[0]["code"], "not-avro");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_a_registry_that_is_away_and_none_is_lost() {
    let (broker, registry) = (Broker::shared(), Registry::start());
    let door = Door::to(&registry).await;
    let (from, between) = (broker.topic("away-from", 2).await, broker.topic("away-to", 2).await);
    let servers = broker.bootstrap_servers();
    let table = |name: &str, topic: &str, options: &str| {
        format!(
            "CREATE TABLE {name} (n BIGINT NOT NULL) WITH (connector = 'kafka', bootstrap_servers = '{servers}',
             topic = '{topic}'{options});"
        )
    };
    let avro = |url: &str| format!(", format = 'avro', 'schema_registry.url' = '{url}'");
    let writer = Job::new(&format!(
        "{} {} INSERT INTO shown SELECT n FROM numbers;",
        table("numbers", &from, ", format = 'json'"),
        table("shown", &between, &avro(&registry.url()))
    ));
    send(&broker.properties(), &from, 0..1000, 0..2);
    writer.start().read_all_and_stop(2);

    let job = Job::new(&format!(
        "{} CREATE TABLE shown WITH (connector = 'filesystem', path = '${{TABLE}}', format = 'json');
         INSERT INTO shown SELECT n FROM numbers;",
        table("numbers", &between, &avro(&door.url()))
    ));
    let path = job.table().display().to_string();
    let job = job.variable("TABLE", &path);
    let mut run = job.start();
    run.wait_until_it_says("messages wait for their schemas");
    run.kill();
    let mut run = job.start();
    run.wait_until_it_says("messages wait for their schemas");
    assert!(shown(&job).is_empty());
    door.open();
    run.read_all_and_stop(2);
    assert_eq!(shown(&job), all(0..1000));
}

/// Numbers in messages that `encode` makes, read by a table with these options.
async fn numbers_of(about: &str, options: &str, encode: impl Fn(u64) -> Vec<u8>) -> (Vec<u64>, Vec<Value>) {
    let broker = Broker::shared();
    let topic = broker.topic(about, 2).await;
    let producer = Producer::new(&topic, &broker.properties()).expect("a producer can be made");
    for n in 0..500 {
        producer.send(Some((n % 2) as i32), None, &encode(n)).expect("a message can be queued");
    }
    producer.send(Some(0), None, b"nonsense").expect("a message can be queued");
    producer.flush(PATIENCE).expect("the messages are delivered");
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL) WITH (connector = 'kafka',
         bootstrap_servers = '{}', topic = '{topic}'{options});
         CREATE TABLE shown WITH (connector = 'filesystem', path = '${{TABLE}}', format = 'json');
         INSERT INTO shown SELECT n FROM numbers;",
        broker.bootstrap_servers()
    ));
    let path = job.table().display().to_string();
    let job = job.variable("TABLE", &path);
    job.start().read_all_and_stop(2);
    (shown(&job), dead_letters(&job.state().join("dead-letter")))
}

fn code(letters: &[Value]) -> &str {
    assert_eq!(letters.len(), 1, "{letters:#?}");
    letters[0]["code"].as_str().expect("a code")
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_that_are_packed_are_unpacked_and_what_is_not_packed_is_a_dead_letter() {
    use std::io::Write;
    let gzip = |n: u64| {
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        write!(packed, "[{{\"n\": {n}}}]").unwrap();
        packed.finish().unwrap()
    };
    let (numbers, letters) = numbers_of("gzip", ", format = 'json', 'payload.compression' = 'gzip'", gzip).await;
    assert_eq!((numbers, code(&letters)), (all(0..500), "not-gzip"));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_protocol_buffers_are_read_by_a_proto_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("numbers.proto");
    std::fs::write(&file, "syntax = \"proto3\";\npackage plant;\nmessage Number { uint64 n = 1; string other = 2; }\n")
        .unwrap();
    let options =
        format!(", format = 'protobuf', 'protobuf.schema' = '{}', 'protobuf.framing' = 'delimited'", file.display());
    let encode = |n: u64| {
        let mut message = vec![0x08];
        let mut bits = n;
        while bits >= 0x80 {
            message.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        message.push(bits as u8);
        [&[message.len() as u8][..], &message].concat()
    };
    let (numbers, letters) = numbers_of("protobuf", &options, encode).await;
    assert_eq!((numbers, code(&letters)), (all(0..500), "not-protobuf"));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_csv_are_read_by_the_header_of_each() {
    let options = ", format = 'csv', 'csv.field-delimiter' = ';'";
    let encode = |n: u64| match n % 3 {
        0 => format!("n;note\r\n{n};\"a\nb\"\r\n").into_bytes(),
        1 => format!("note;n\n;\"{n}\"").into_bytes(),
        _ => format!("n\n{n}\n").into_bytes(),
    };
    let (numbers, letters) = numbers_of("csv", options, encode).await;
    assert_eq!((numbers, code(&letters)), (all(0..500), "not-csv"));
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_avro_are_written_with_many_rows_a_message_and_read_again() {
    many_rows_a_message("avro").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_is_written_with_many_rows_a_message_and_read_again() {
    many_rows_a_message("csv").await;
}

async fn many_rows_a_message(format: &str) {
    let broker = Broker::shared();
    let (from, between) = (broker.topic("container-from", 2).await, broker.topic("container-to", 2).await);
    let servers = broker.bootstrap_servers();
    send(&broker.properties(), &from, 0..3000, 0..2);
    let table = |name: &str, topic: &str, options: &str| {
        format!(
            "CREATE TABLE {name} (n BIGINT NOT NULL) WITH (connector = 'kafka', bootstrap_servers = '{servers}',
             topic = '{topic}'{options});"
        )
    };
    let writer = Job::new(&format!(
        "{} {} INSERT INTO shown SELECT n FROM numbers;",
        table("numbers", &from, ", format = 'json'"),
        table("shown", &between, &format!(", format = '{format}', 'sink.rows_per_message' = '100'"))
    ));
    writer.dies_at("within-transaction", 1, || {});
    writer.start().read_all_and_stop(2);
    let reader = Job::new(&format!(
        "{} CREATE TABLE shown WITH (connector = 'filesystem', path = '${{TABLE}}', format = 'json');
         INSERT INTO shown SELECT n FROM numbers;",
        table("numbers", &between, &format!(", format = '{format}'"))
    ));
    let path = reader.table().display().to_string();
    let reader = reader.variable("TABLE", &path);
    let mut run = reader.start();
    run.wait_until_idle(2);
    let messages = run.status().map(|status| crate::millrace::records_read(&status)).unwrap_or_default();
    run.stop();
    assert_eq!(shown(&reader), all(0..3000));
    assert!(messages < 300, "{messages} messages");
}
