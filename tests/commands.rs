//! The commands that only look, and the one that deletes, as a person uses them beside a running job.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use crate::broker::Broker;
use crate::feed::{Feed, Feeding, Spread};
use crate::millrace::Job;

fn millrace(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(arguments).arg("--log-format").arg("text").current_dir(folder);
    command.output().expect("the binary starts")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn feeding(seed: u64) -> Feeding {
    let copies_within = Duration::from_millis(100);
    Feeding { rate: 2000.0, duplicate_every: 5, copies_within, spread: Spread::Anywhere, partitions: 4, seed }
}

fn offset_of(group: &str, servers: &str, topic: &str) -> Option<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", group)
        .create()
        .expect("a consumer can be made");
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let committed = consumer.committed_offsets(list, Duration::from_secs(60)).expect("the broker answers");
    committed.elements().first().and_then(|e| match e.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_a_job_changes_nothing() {
    let broker = Broker::shared();
    let (topic, servers) = (broker.topic("looking", 4).await, broker.bootstrap_servers());
    let feed = Feed::start(&topic, &broker.properties(), feeding(11));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = feed.finish().sent_count();
    assert!(events > 100, "{events} events are there to look at");
    let folder = tempfile::tempdir().unwrap();

    let inferred = millrace(folder.path(), &["infer", "--kafka", &servers, "--topic", &topic, "--limit", "100"]);
    assert!(inferred.status.success(), "{}", said(&inferred));
    let declaration = printed(&inferred);
    for expected in
        ["CREATE TABLE events (", "eventId STRING NOT NULL", "createdAt TIMESTAMP NOT NULL", "moreData22 DOUBLE"]
    {
        assert!(declaration.contains(expected), "{expected}: {declaration}");
    }

    // What was guessed is a table that a job can read.
    let with_group = declaration.replace("format = 'json'", "format = 'json', source.group_id = 'lookers'");
    let job = format!(
        "{with_group}CREATE TABLE serving WITH (connector = 'delta', path = './table');\n\
         INSERT INTO serving SELECT eventId, value, complexData.moreData22 AS last, now() AS at FROM events;\n"
    );
    std::fs::write(folder.path().join("look.sql"), job).unwrap();

    let sample = millrace(folder.path(), &["sample", "look.sql", "--limit", "5", "--json", "--for", "60 seconds"]);
    assert!(sample.status.success(), "{}", said(&sample));
    let rows: Vec<serde_json::Value> = printed(&sample).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|r| r["eventId"].is_string() && r["last"].is_f64() && r["at"].is_string()), "{rows:?}");
    let table = printed(&millrace(folder.path(), &["sample", "look.sql", "--limit", "2", "--for", "60 seconds"]));
    assert!(table.contains("| eventId") && table.lines().count() == 6, "{table}");

    let check = millrace(folder.path(), &["check", "--connect", "look.sql"]);
    assert!(check.status.success(), "{}{}", printed(&check), said(&check));
    let found = printed(&check);
    assert!(found.contains("ok      source events:") && found.contains("4 splits"), "{found}");
    assert!(found.contains("ok      sink serving:"), "{found}");

    let there: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(there, ["look.sql"], "no state, no table");
    assert_eq!(offset_of("lookers", &servers, &topic), None, "no group offset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_there_is_named_with_all_else_that_fails() {
    let broker = Broker::shared();
    let servers = broker.bootstrap_servers();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("table"), "no folder").unwrap();
    let source = |name: &str| {
        format!(
            "CREATE TABLE {name} (a INT) WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = 'no-{name}', format = 'json');\n"
        )
    };
    let sink = "CREATE TABLE serving WITH (connector = 'blackhole');\nINSERT INTO serving SELECT a FROM one UNION ALL SELECT a FROM two;\n";
    std::fs::write(folder.path().join("job.sql"), format!("{}{}{sink}", source("one"), source("two"))).unwrap();
    let check = millrace(folder.path(), &["check", "--connect", "job.sql"]);
    assert_eq!(check.status.code(), Some(1));
    let found = printed(&check);
    assert!(found.contains("failed  source one:") && found.contains("no-one"), "{found}");
    assert!(found.contains("failed  source two:") && found.contains("no-two"), "{found}");
    assert!(found.contains("ok      sink serving: blackhole"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_state_is_shown_and_dropped_only_when_nobody_runs_it() {
    let broker = Broker::shared();
    let topic = broker.topic("state", 4).await;
    let feed = Feed::start(&topic, &broker.properties(), feeding(12));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = feed.finish().sent_count();
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic);
    let state = job.state().display().to_string();
    let mut running = job.start();
    running.wait_until_read(events);
    running.wait_until("a checkpoint", |s| s["checkpoints"]["entry"].as_u64().unwrap_or(0) > 1);

    let refused = millrace(job.folder(), &["state", "drop", &state, "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert!(said(&refused).contains("the job runs: it answers at"), "{}", said(&refused));
    running.terminate();
    assert_eq!(running.wait().code(), Some(0), "{}", running.said());

    let shown = printed(&millrace(job.folder(), &["state", "show", &state]));
    for expected in
        ["owner       none: released", "events/0", "events/3", "deduplicate events by eventid", "every entry is shown"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let json = printed(&millrace(job.folder(), &["state", "show", &state, "--json"]));
    let facts: serde_json::Value = serde_json::from_str(&json).unwrap();
    let positions = facts["groups"].as_object().unwrap().values();
    let read: i64 = positions.map(|g| g["start"]["from"]["offset"].as_i64().unwrap()).sum();
    assert!(read >= events as i64, "{read} records are read");

    let asked = millrace(job.folder(), &["state", "drop", &state]);
    assert!(said(&asked).contains("say --yes: there is no terminal to ask on"), "{}", said(&asked));
    assert!(millrace(job.folder(), &["state", "show", &state]).status.success(), "it is still there");
    let dropped = millrace(job.folder(), &["state", "drop", &state, "--yes"]);
    assert!(dropped.status.success(), "{}", said(&dropped));
    let gone = millrace(job.folder(), &["state", "show", &state]);
    assert!(said(&gone).contains("holds no job's state"), "{}", said(&gone));
    assert!(crate::table::row_count(&job.table()).await >= 100, "the table keeps its rows");
}

#[test]
fn properties_of_a_topic_that_do_not_go_together_are_refused_before_anybody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    for (properties, delivery, what) in [
        ("'properties.acks' = '1'", "transactions", "`acks` must be set to `all` when `enable.idempotence` is true"),
        ("'properties.acks' = '0'", "at-least-once", "`acks` must be set to `all` when `enable.idempotence` is true"),
        (
            "'properties.message.timeout.ms' = '90000'",
            "transactions",
            "`message.timeout.ms` must be set <= `transaction.timeout.ms`",
        ),
    ] {
        let job = format!(
            "CREATE TABLE events (a BIGINT) WITH (connector = 'kafka', bootstrap_servers = 'b:1', topic = 't', format = 'json');
             CREATE TABLE shown WITH (connector = 'kafka', bootstrap_servers = 'localhost:1', topic = 't', format = 'json',
               'properties.security.protocol' = 'SASL_SSL', 'properties.sasl.mechanism' = 'OAUTHBEARER',
               sink.delivery = '{delivery}', {properties});
             INSERT INTO shown SELECT a FROM events;"
        );
        std::fs::write(folder.path().join("job.sql"), job).unwrap();
        let checked = millrace(folder.path(), &["check", "job.sql"]);
        assert!(!checked.status.success());
        assert!(said(&checked).contains(what), "{what}: {}", said(&checked));
    }
}

/// Whatever the connector is, it is the front end that says so.
#[test]
fn options_that_say_nothing_of_what_the_job_does_with_a_table_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = "connector = 'kafka', bootstrap_servers = 'b:1', topic = 't', format = 'avro'";
    let cosmosdb =
        "connector = 'cosmosdb', endpoint = 'https://a.documents.azure.com', database = 'd', container = 'c'";
    let known = |options: &str| format!("CREATE TABLE known (a BIGINT, b TEXT) WITH ({options}, lookup = 'true');");
    let shown = |options: &str| format!("CREATE TABLE shown (a BIGINT, b TEXT) WITH ({options});");
    let (looked_up, written) = (
        "known: {} is for writing, and the table is only used for lookups",
        "shown: {} is for reading, and the table is only written",
    );
    let delta = "connector = 'delta', path = './known', target_file_size = '1 MiB', 'parquet.compression' = 'snappy'";
    let sqlserver = "connector = 'sqlserver', server = 's', database = 'd', user = 'u', password = 'p', table = 'known', writers = '2', create = 'true'";
    for (table, names, what) in [
        (known(delta), vec!["target_file_size", "parquet.compression"], looked_up),
        (known(&format!("{cosmosdb}, batch = '7', 'create.ttl' = '1 h'")), vec!["batch", "create.ttl"], looked_up),
        (known(sqlserver), vec!["writers", "create"], looked_up),
        (
            shown(
                "connector = 'filesystem', path = './shown', format = 'json', 'csv.header' = 'true', compression = 'gzip'",
            ),
            vec!["csv.header", "compression"],
            written,
        ),
        (
            shown(&format!(
                "{kafka}, 'avro.schema' = '\"long\"', 'payload.compression' = 'gzip', 'source.offset' = 'latest'"
            )),
            vec!["avro.schema", "payload.compression"],
            written,
        ),
    ] {
        let (own, other) = match table.contains("TABLE known") {
            true => {
                (known("connector = 'filesystem', path = './k.csv', format = 'csv'"), shown("connector = 'blackhole'"))
            }
            false => {
                (shown("connector = 'blackhole'"), known("connector = 'filesystem', path = './k.csv', format = 'csv'"))
            }
        };
        let said_of = |table: &str| {
            let job = format!(
                "CREATE TABLE events (a BIGINT) WITH (connector = 'kafka', bootstrap_servers = 'b:1', topic = 'e', format = 'json');
                 {table} {other}
                 INSERT INTO shown SELECT e.a, k.b FROM events AS e LEFT JOIN known FOR SYSTEM_TIME AS OF now() AS k ON e.a = k.a;"
            );
            std::fs::write(folder.path().join("job.sql"), job).unwrap();
            let check = millrace(folder.path(), &["check", "job.sql"]);
            (check.status.code(), said(&check))
        };
        assert_eq!(said_of(&own).0, Some(0), "{}", said_of(&own).1);
        let (code, said) = said_of(&table);
        assert_eq!(code, Some(2), "{said}");
        for name in &names {
            assert!(said.contains(&format!("table {}", what.replace("{}", name))), "{name}: {said}");
        }
        assert_eq!(said.matches("error: ").count(), names.len(), "{said}");
    }
}
