//! `millrace verify`: what serving layers show, compared with what the simulator sent, and by itself.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tds_double::{Accident, Options, Server};

use crate::broker::Broker;
use crate::cosmos_account::Account;
use crate::cosmosdb::job_of_solution;
use crate::millrace::{Job, PATIENCE};
use crate::registry::{Door, Registry};

/// Runs it; yields the exit code, and what it says on stdout and on stderr.
pub fn verify(job: &Job, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = job.command("verify");
    let output = command.args(arguments).output().expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub fn simulate(broker: &Broker, topic: &str, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["simulate", "--to", "kafka", "--kafka", &broker.bootstrap_servers(), "--topic", topic]);
    let status = command.args(["--rate", "0", "--duplicate-every", "50"]).args(arguments).status();
    assert!(status.expect("the binary starts").success());
}

pub const SENT: &[&str] = &["--seed", "7", "--count", "3000"];
/// The same, and at what rate.
const SAME: &[&str] = &["--seed", "7", "--count", "3000", "--rate", "0", "--json"];

/// Whatever the serving layer is, all that was sent is found in it, once and unaltered; another story is not.
pub fn all_is_found(job: &Job) {
    let (code, found, said) = verify(job, SAME);
    assert_eq!(code, Some(0), "{found}{said}");
    let found: Value = serde_json::from_str(&found).expect("it prints JSON");
    for (name, number) in [("rows", 3000), ("missing", 0), ("duplicates", 0), ("altered", 0), ("strangers", 0)] {
        assert_eq!(found[name], number, "{name}: {found}");
    }
    let (code, found, _) = verify(job, &["--seed", "8", "--count", "3000", "--rate", "0"]);
    assert_eq!(code, Some(1));
    assert!(found.contains("missing                      3000   WRONG"), "{found}");
    let (code, found, said) = verify(job, &[]);
    assert_eq!(code, Some(0), "by itself: {found}{said}");
    assert!(found.contains("rows                         3000"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_is_compared_with_what_the_simulator_sent() {
    let broker = Broker::shared();
    let topic = broker.topic("verify-delta", 2).await;
    simulate(broker, &topic, SENT);
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic);
    let (code, _, said) = verify(&job, SAME);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no table"), "{said}");
    job.start().read_all_and_stop(2);
    all_is_found(&job);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_one_that_is_partitioned_by_a_job_that_looks_rows_up() {
    let broker = Broker::shared();
    let topic = broker.topic("verify-partitions", 2).await;
    simulate(broker, &topic, SENT);
    let job = Job::events_to_delta_with(
        &broker.bootstrap_servers(),
        &topic,
        &[
            (
                "CREATE TABLE serving WITH (",
                "CREATE TABLE devices (device STRING, name STRING)
                 WITH (connector = 'filesystem', path = '${DEVICES}', format = 'csv', lookup = 'true');
                 CREATE TABLE serving WITH (partition_by = 'type',",
            ),
            ("now() AS processedAt", "now() AS processedAt, d.name"),
            ("FROM events;", "FROM events LEFT JOIN devices FOR SYSTEM_TIME AS OF now() AS d ON deviceId = d.device;"),
        ],
    );
    let devices = job.folder().join("devices.csv");
    std::fs::write(&devices, "device,name\ncontoso-device-id-000001,first\n").expect("a file");
    let job = job.variable("DEVICES", &devices.display().to_string());
    job.start().read_all_and_stop(2);
    all_is_found(&job);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_compared_with_what_the_simulator_sent_and_its_copies_are_counted() {
    let broker = Broker::shared();
    let (from, to) = (broker.topic("verify-from", 2).await, broker.topic("verify-to", 3).await);
    simulate(broker, &from, SENT);
    let job = |changes: &[(&str, &str)]| {
        let servers = broker.bootstrap_servers();
        let job = Job::of_solution("hdinsightkafka-flink-hdinsightkafka", changes);
        let job = job.variable("KAFKA", &servers).variable("TOPIC", &from);
        job.variable("OUTPUT_KAFKA", &servers).variable("OUTPUT_TOPIC", &to)
    };
    let once = job(&[]);
    once.start().read_all_and_stop(2);
    all_is_found(&once);

    // Another job sends the same again, with the copies.
    let again = job(&[
        ("'deduplicate.key'      = 'eventId',", ""),
        ("'deduplicate.within'   = '10 minutes'", "'source.discovery' = '1 minute'"),
    ]);
    again.start().read_all_and_stop(2);
    let (code, found, _) = verify(&once, SAME);
    assert_eq!(code, Some(1), "{found}");
    let found: Value = serde_json::from_str(&found).expect("it prints JSON");
    assert!(found["duplicates"].as_u64().is_some_and(|n| n > 3000) && found["missing"] == 0, "{found}");
    let (code, found, _) = verify(&once, &[]);
    assert_eq!(code, Some(1), "{found}");
    let (code, found, _) = verify(&once, &["--copies", "0.6"]);
    assert_eq!(code, Some(0), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_read_back_in_whatever_format_it_is_written() {
    let (broker, registry) = (Broker::shared(), Registry::start());
    let door = Door::to(&registry).await;
    let from = broker.topic("verify-formats", 2).await;
    simulate(broker, &from, SENT);
    let servers = broker.bootstrap_servers();
    let job = |to: &str, format: &str| {
        let (old, new) = (
            "topic             = '${OUTPUT_TOPIC:-out}',\n  format            = 'json'",
            format!("topic = '{to}', {format}"),
        );
        let job = Job::of_solution("hdinsightkafka-flink-hdinsightkafka", &[(old, &new)]);
        job.variable("KAFKA", &servers).variable("TOPIC", &from).variable("OUTPUT_KAFKA", &servers)
    };
    let registered = |url: &str| format!("format = 'avro', 'schema_registry.url' = '{url}'");
    for format in [
        "format = 'csv', 'sink.rows_per_message' = '10'",
        "format = 'avro', 'sink.rows_per_message' = '10'",
        "format = 'avro', 'avro.framing' = 'single-object'",
        "format = 'avro', 'avro.framing' = 'none'",
        &registered(&registry.url()),
    ] {
        let to = broker.topic("verify-format", 2).await;
        let written = job(&to, format);
        written.start().read_all_and_stop(2);
        all_is_found(&written);
        if format.contains("registry") {
            let away = job(&to, &registered(&door.url()));
            let (code, _, said) = verify(&away, SAME);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains(&format!("schema registry {}", door.url())), "{said}");
        }
    }
}

/// What is read is not held; what is kept of a row to tell it from its copies does not grow with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_larger_than_the_memory_is_read_back() {
    const ROWS: usize = 15_000;
    const BYTES: usize = 20_000;
    let broker = Broker::shared();
    let topic = broker.topic("verify-large", 3).await;
    let producer = kafka::Producer::new(&topic, &broker.properties()).expect("a producer");
    let text = "x".repeat(BYTES);
    for n in 0..ROWS {
        let row = format!("{{\"eventId\":\"e{n}\",\"text\":\"{text}\"}}");
        producer.send(Some(n as i32 % 3), None, row.as_bytes()).expect("a message can be queued");
    }
    producer.flush(PATIENCE).expect("the messages are delivered");
    let servers = broker.bootstrap_servers();
    let job = Job::new(&format!(
        "CREATE TABLE events (eventId STRING, text STRING)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = 'events', format = 'json');
         CREATE TABLE shown WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{topic}', format = 'json');
         INSERT INTO shown SELECT eventId, text FROM events;"
    ));
    let mut command = job.command("verify");
    let child = command.args(["--unnumbered", "--json"]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let (found, peak) = tokio::task::spawn_blocking(|| outcome(child)).await.expect("it ends");
    let found: Value = serde_json::from_str(&found).expect("it prints JSON");
    assert_eq!((found["rows"].as_u64(), found["duplicates"].as_u64()), (Some(ROWS as u64), Some(0)), "{found}");
    assert!(peak < (ROWS * BYTES) as u64 * 3 / 4, "it took {} MB for {} MB", peak >> 20, (ROWS * BYTES) >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_a_file() {
    const ROWS: usize = 15_000;
    const BYTES: usize = 20_000;
    let job = Job::new(
        "CREATE TABLE events (eventId STRING, text STRING) WITH (connector = 'kafka', bootstrap_servers = 'b:1', topic = 't', format = 'json');
         CREATE TABLE shown WITH (connector = 'single_file', path = '${TABLE}');
         INSERT INTO shown SELECT eventId, text FROM events;",
    );
    let table = job.folder().join("shown.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&table).expect("a file"));
    let text = "x".repeat(BYTES);
    (0..ROWS).for_each(|n| writeln!(file, "{{\"eventId\":\"e{n}\",\"text\":\"{text}\"}}").expect("a line"));
    file.flush().expect("the file is written");
    let job = job.variable("TABLE", &table.display().to_string());
    let mut command = job.command("verify");
    let child = command.args(["--unnumbered", "--json"]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let (found, peak) = tokio::task::spawn_blocking(|| outcome(child)).await.expect("it ends");
    let found: Value = serde_json::from_str(&found).expect("it prints JSON");
    assert_eq!((found["rows"].as_u64(), found["duplicates"].as_u64()), (Some(ROWS as u64), Some(0)), "{found}");
    assert!(peak < (ROWS * BYTES) as u64 * 3 / 4, "it took {} MB for {} MB", peak >> 20, (ROWS * BYTES) >> 20);
}

/// What it prints, and the bytes of memory that it had at most, as far as one looks in time.
fn outcome(mut child: Child) -> (String, u64) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("it can be waited for").is_none() {
        let said = std::fs::read_to_string(&status).unwrap_or_default();
        let line = said.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or_default() * 1024);
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut printed = String::new();
    child.stdout.take().expect("stdout is piped").read_to_string(&mut printed).expect("it prints text");
    (printed, peak)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_compared_with_what_the_simulator_sent_to_each_of_the_six_solutions() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let topic = broker.topic("verify-cosmos", 2).await;
    simulate(broker, &topic, SENT);
    let hub = "connector            = 'eventhubs',\n  connection_string    = '${EVENTHUB}',";
    let kafka = "connector            = 'kafka', bootstrap_servers = '${KAFKA}',";
    let solutions = [
        ("akskafka-databricks-cosmosdb", vec![]),
        ("eventhubs-databricks-cosmosdb", vec![(hub, kafka)]),
        ("eventhubs-functions-cosmosdb", vec![(hub, kafka)]),
        ("eventhubs-streamanalytics-cosmosdb", vec![(hub, kafka)]),
        ("eventhubskafka-databricks-cosmosdb", vec![(hub, kafka)]),
        ("eventhubskafka-functions-cosmosdb", vec![(hub, kafka)]),
    ];
    for (solution, changes) in solutions {
        account.container(solution, "/deviceId", 4, 1_000_000);
        let job = job_of_solution(&account, solution, solution, &changes);
        let job = job.variable("KAFKA", &broker.bootstrap_servers()).variable("TOPIC", &topic);
        job.start().read_all_and_stop(2);
        all_is_found(&job);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_text_serves_every_layer_by_what_stands_behind_with_though_it_is_killed() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let server = Server::start(Options::default()).await;
    let topic = broker.topic("one-text", 2).await;
    simulate(broker, &topic, SENT);
    account.container("layer", "/deviceId", 2, 1_000_000);
    let to_kafka = |topic: &str, delivery: &str| {
        let servers = broker.bootstrap_servers();
        format!(
            "connector = 'kafka', bootstrap_servers = '{servers}', topic = '{topic}', format = 'json', sink.delivery = '{delivery}'"
        )
    };
    let to_sql = format!(
        "connector = 'sqlserver', connection_string = '{}', \"table\" = 'dbo.layer', write = 'append', create = 'true'",
        server.connection_string()
    );
    let layers = [
        "connector = 'delta', path = './layer'".to_string(),
        "connector = 'filesystem', path = './layer', format = 'parquet'".to_string(),
        "connector = 'single_file', path = './layer.json'".to_string(),
        to_kafka(&broker.topic("one-text-transactions", 3).await, "transactions"),
        to_kafka(&broker.topic("one-text-read-back", 3).await, "read-back"),
        to_sql,
        account.connection("layer") + ", write = 'append'",
    ];
    for layer in layers {
        let delta = "connector = 'delta',\n  path      = '${TABLE:-./demo-output/events}'";
        let job = Job::events_to_delta_with(&broker.bootstrap_servers(), &topic, &[(delta, &layer)]);
        let job = job.argument("--checkpoint-interval=100ms");
        let mut killed = job.start();
        killed.wait_until_read(1000);
        killed.kill();
        job.start().read_all_and_stop(2);
        all_is_found(&job);
    }
}

/// One file that grows does not tell when.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_compared_with_what_the_simulator_sent() {
    let broker = Broker::shared();
    let topic = broker.topic("verify-files", 2).await;
    simulate(broker, &topic, SENT);
    let path = "path      = '${TABLE:-./demo-output/events}'";
    for (connector, further) in
        [("filesystem", ", format = 'json'"), ("filesystem", ", format = 'parquet'"), ("single_file", "")]
    {
        let connected = format!("connector = '{connector}'");
        let options = format!("{path}{further}");
        let changes = [("connector = 'delta'", connected.as_str()), (path, &options)];
        let job = Job::events_to_delta_with(&broker.bootstrap_servers(), &topic, &changes);
        job.start().read_all_and_stop(2);
        all_is_found(&job);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_sql_server_is_compared_with_what_the_simulator_sent() {
    let (broker, server) = (Broker::shared(), Server::start(Options::default()).await);
    let topic = broker.topic("verify-sql", 2).await;
    simulate(broker, &topic, SENT);
    let job = crate::sqlserver::job_of_solution(&server, &topic, "'deduplicate.within' = '10 minutes'");
    let job = job.variable("KAFKA", &broker.bootstrap_servers());
    job.start().read_all_and_stop(2);
    server.accidents(|_| Accident::None);
    all_is_found(&job);
    let (_, found, _) = verify(&job, SAME);
    assert!(found.contains("\"latency\":{"), "the table says when a row came: {found}");
    let (code, found, _) = verify(&job, &["--max-latency", "1h", "--max-out-of-sequence", "3000"]);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("p99 of latency at most 3600000 ms   ok"), "{found}");
    let (code, found, _) = verify(&job, &["--min-rate", "1e9", "--max-latency", "1ms", "--json"]);
    assert_eq!(code, Some(1), "{found}");
    let found: Value = serde_json::from_str(&found).expect("it prints JSON");
    assert!(found["holds"] == false && found["bounds"][1]["kept"] == false, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_named_or_cannot_be_read_back_is_said() {
    let job = Job::new(
        "CREATE TABLE events (eventId TEXT) WITH (connector = 'kafka', bootstrap_servers = 'b:1', topic = 't', format = 'json');
         CREATE TABLE one WITH (connector = 'blackhole');
         CREATE TABLE two WITH (connector = 'filesystem', path = './two', format = 'json');
         INSERT INTO one SELECT * FROM events;
         INSERT INTO two SELECT * FROM events;",
    );
    for (arguments, what) in [
        (vec![], "which table? --table: one, two"),
        (vec!["--table", "three"], "the job writes no table three; it writes one, two"),
        (vec!["--table", "one"], "what 'blackhole' shows cannot be read back"),
        (vec!["--table", "two"], "nothing was written to it"),
    ] {
        let (code, _, said) = verify(&job, &arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(what), "{said}");
    }
}
