//! Events that are joined to what a table outside says of their device: the real binary, killed on the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tds_double::Accident;

use crate::cosmos_account::Account;
use crate::millrace::Job;
use crate::sql_database::Database;

const EVENTS: usize = 20_000;
const DEVICES: usize = 1000;

/// What the tables say of a device. Of every third they know nothing.
fn name(device: usize) -> Option<String> {
    (!device.is_multiple_of(3)).then(|| format!("Device number {device}"))
}

fn id(device: usize) -> String {
    format!("contoso-device-id-{device:06}")
}

/// A job that reads simulated events, one in ten of them twice, and shows each once with the name of its device.
fn job(devices: &str) -> Job {
    let sql = format!(
        "CREATE TABLE events (eventId STRING NOT NULL, deviceId STRING)
         WITH (connector = 'simulator', count = {EVENTS}, pace = 'none', duplicate_every = 10, partitions = 3,
               'deduplicate.key' = 'eventId', 'deduplicate.within' = '1 hour');
         CREATE TABLE devices (deviceId STRING, name STRING) WITH ({devices}, 'lookup' = 'true');
         CREATE TABLE out (eventId STRING NOT NULL, deviceId STRING, name STRING)
         WITH (connector = 'single_file', path = '${{OUT}}');
         INSERT INTO out SELECT e.eventId, e.deviceId, d.name FROM events AS e
         LEFT JOIN devices FOR SYSTEM_TIME AS OF now() AS d ON e.deviceId = d.deviceId;"
    );
    let job = Job::new(&sql);
    let (out, folder) = (job.folder().join("out.json"), job.folder().display().to_string());
    job.variable("OUT", &out.display().to_string())
        .variable("FOLDER", &folder)
        .argument("--checkpoint-interval")
        .argument("50ms")
}

fn shown(job: &Job) -> Vec<Value> {
    let text = fs::read_to_string(job.folder().join("out.json")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
}

/// The job is killed twice, and comes to its end: each event is there once, with what is said of its device.
fn each_has_the_name_of_its_device_though_the_job_is_killed(job: &Job) {
    job.completes_though_it_is_killed();
    let names: BTreeMap<String, Option<String>> = (0..DEVICES).map(|device| (id(device), name(device))).collect();
    let mut events = BTreeMap::new();
    for event in shown(job) {
        let device = event["deviceId"].as_str().expect("a text");
        assert_eq!(event["name"].as_str(), names[device].as_deref(), "{event}");
        *events.entry(event["eventId"].to_string()).or_insert(0) += 1;
    }
    assert_eq!((events.len(), events.values().sum::<usize>()), (EVENTS, EVENTS));
}

fn write_csv(path: &Path) {
    let known = (0..DEVICES).filter_map(|device| Some(format!("{},{}\n", id(device), name(device)?)));
    fs::write(path, format!("deviceId,name\n{}", known.collect::<String>())).expect("a file");
}

#[test]
fn in_a_file() {
    let job = job("connector = 'filesystem', path = '${FOLDER}/devices.csv', format = 'csv'");
    write_csv(&job.folder().join("devices.csv"));
    each_has_the_name_of_its_device_though_the_job_is_killed(&job);
}

#[test]
fn in_a_delta_table() {
    let job = job("connector = 'delta', path = '${FOLDER}/devices'");
    write_csv(&job.folder().join("devices.csv"));
    let making = Job::new(
        "CREATE TABLE known (deviceId STRING, name STRING)
         WITH (connector = 'filesystem', path = '${FOLDER}/devices.csv', format = 'csv');
         CREATE TABLE devices WITH (connector = 'delta', path = '${FOLDER}/devices');
         INSERT INTO devices SELECT deviceId, name FROM known;",
    );
    let making = making.variable("FOLDER", &job.folder().display().to_string());
    let mut made = making.start();
    assert_eq!(made.wait().code(), Some(0), "{}", made.said());
    each_has_the_name_of_its_device_though_the_job_is_killed(&job);
}

#[test]
fn a_table_that_is_kept_whole_is_looked_at_again_while_the_job_runs() {
    let job = Job::new(
        "CREATE TABLE events (deviceId STRING)
         WITH (connector = 'filesystem', path = '${FOLDER}/events', 'source.monitor-interval' = '50 ms');
         CREATE TABLE devices (deviceId STRING, name STRING)
         WITH (connector = 'filesystem', path = '${FOLDER}/ref/{date}/devices.json', lookup = 'true',
               'lookup.refresh' = '50 ms');
         CREATE TABLE out (deviceId STRING, name STRING) WITH (connector = 'single_file', path = '${OUT}');
         INSERT INTO out SELECT e.deviceId, d.name FROM events AS e JOIN devices AS d ON e.deviceId = d.deviceId;",
    );
    let folder = job.folder().to_path_buf();
    let job = job
        .variable("OUT", &folder.join("out.json").display().to_string())
        .variable("FOLDER", &folder.display().to_string())
        .argument("--checkpoint-interval")
        .argument("50ms");
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path.with_file_name("_part"), text).expect("a file");
        fs::rename(path.with_file_name("_part"), path).expect("a file");
    };
    fs::create_dir(folder.join("events")).expect("a folder");
    put("ref/2026/01/01/devices.json", "[\n{\"deviceId\": \"a\", \"name\": \"old\"}\n]");
    let mut run = job.start();
    let rows = |n: u64| move |status: &Value| status["sinks"]["out"]["rows"] == n;
    put("events/1.json", "{\"deviceId\": \"a\"}\n{\"deviceId\": \"b\"}\n");
    run.wait_until("the first events are shown", rows(1));
    put(
        "ref/2026/02/01/devices.json",
        "[{\"deviceId\": \"a\", \"name\": \"new\"}, {\"deviceId\": \"b\", \"name\": \"b\"}]",
    );
    put("ref/9999/01/01/devices.json", "[{\"deviceId\": \"a\", \"name\": \"not yet\"}]");
    run.wait_until("the table is loaded again", |status| status["lookups"]["devices"]["kept_rows"] == 2);
    put("events/2.json", "{\"deviceId\": \"a\"}\n{\"deviceId\": \"b\"}\n");
    run.wait_until("the others are shown", rows(3));
    // What is wrong with it now is told, and what it was is kept.
    put("ref/2026/03/01/devices.json", "[{\"deviceId\": 7}]");
    let troubled = run.wait_until("it is told", |status| !status["lookups"]["devices"]["trouble"].is_null());
    let trouble = troubled["lookups"]["devices"]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("2026/03/01/devices.json"), "{trouble}");
    assert_eq!(run.metric("lookup_in_trouble"), Some(1.0));
    put("events/3.json", "{\"deviceId\": \"a\"}\n");
    run.wait_until("the last one is shown", rows(4));
    run.terminate();
    assert_eq!(run.wait().code(), Some(0), "{}", run.said());
    let names: Vec<Value> = shown(&job).into_iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["old", "new", "b", "new"]);
}

#[test]
fn a_check_tries_the_table() {
    let job = job("connector = 'filesystem', path = '${FOLDER}/devices.csv', format = 'csv'");
    let checked = || {
        let output = job.command("check").arg("--connect").output().expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = checked();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("failed  lookup devices: ") && said.contains("there is no such file"), "{said}");
    write_csv(&job.folder().join("devices.csv"));
    let (code, said) = checked();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok      lookup devices: CSV in '") && said.contains("; 666 rows, kept whole"), "{said}");
}

#[test]
fn a_table_that_is_not_there_is_said_before_anything_is_read() {
    let job = job("connector = 'filesystem', path = '${FOLDER}/devcies.csv', format = 'csv'");
    let mut run = job.start();
    assert_ne!(run.wait().code(), Some(0));
    assert!(run.said().contains("devcies.csv: there is no such file, and no folder with files"), "{}", run.said());
    assert!(!job.folder().join("out.json").exists(), "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_table_of_sql_server_by_key_and_whole() {
    let database = Database::start().await;
    database
        .run("CREATE TABLE [dbo].[devices] ([DeviceId] varchar(40) NOT NULL PRIMARY KEY, [name] nvarchar(100) NULL);");
    let known: Vec<String> =
        (0..DEVICES).filter_map(|device| Some(format!("(N'{}', N'{}')", id(device), name(device)?))).collect();
    for rows in known.chunks(100) {
        database.run(&format!("INSERT INTO [dbo].[devices] ([DeviceId], [name]) VALUES {};", rows.join(", ")));
    }
    for cache in ["'lookup.cache.ttl' = '50 ms', 'lookup.keys' = 100", "'lookup.cache' = 'whole'"] {
        let connection = database.connection("table", "devices");
        each_has_the_name_of_its_device_though_the_job_is_killed(&job(&format!("{connection}, {cache}")));
    }
    if let Database::Double(server) = &database {
        // Lines that are cut before and after an answer, answers that never come, and a database that is moved.
        let steps = AtomicU64::new(0);
        server.accidents(move |_| match steps.fetch_add(1, Ordering::Relaxed) % 23 {
            7 => Accident::CloseBefore,
            13 => Accident::CloseAfter,
            17 => Accident::Answerless,
            22 => Accident::Refuse { number: 40613, class: 17, message: "Database is not currently available".into() },
            _ => Accident::None,
        });
        let how = "'lookup.cache' = 'none', 'lookup.keys' = 50, 'lookup.timeout' = '500 ms'";
        each_has_the_name_of_its_device_though_the_job_is_killed(&job(&format!(
            "{}, {how}",
            database.connection("table", "devices")
        )));
    }
    assert_eq!(database.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_container_of_cosmos_db_by_id_by_another_property_and_whole() {
    let account = Account::start(false).await;
    for (container, key) in [("by-id", "/id"), ("by-property", "/home")] {
        account.container(container, key, 4, 1_000_000);
        let client = account.client_of(container).await;
        for device in 0..DEVICES {
            let Some(name) = name(device) else { continue };
            let id = id(device);
            let home = format!("home {}", device % 50);
            let document = json!({"id": id, "deviceId": id, "home": home, "name": name});
            let partition = if key == "/id" { id.clone() } else { home };
            client.create_item(partition, &id, document, None).await.expect("it is made");
        }
    }
    for (container, cache) in [
        ("by-id", "id_field = 'deviceId', 'lookup.cache.ttl' = '50 ms'"),
        ("by-property", "'lookup.keys' = 100"),
        ("by-property", "'lookup.cache' = 'whole'"),
    ] {
        let connection = account.connection(container);
        each_has_the_name_of_its_device_though_the_job_is_killed(&job(&format!("{connection}, {cache}")));
    }
}
