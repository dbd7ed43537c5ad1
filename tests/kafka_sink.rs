//! Rows into a topic, each once: with transactions, and without them.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::broker::{Broker, BrokerSettings};
use crate::millrace::{FENCED, Job, PATIENCE};
use crate::numbers::{all, job_of, more, send, shown};
use crate::topic_reader::{Received, read};
use crate::trouble::dead_letters;
use crate::wait::wait_for;

/// How the topic of the rows is written.
pub struct Way {
    name: &'static str,
    /// Further options of its table.
    pub options: &'static str,
    /// Its steps, at each of which a process may die.
    pub steps: &'static [&'static str],
}

pub const TRANSACTIONS: Way = Way {
    name: "transactions",
    options: "",
    steps: &["before-transaction", "within-transaction", "after-transaction"],
};

/// Messages and requests that expire within a second: so a takeover takes three.
pub const READ_BACK: Way = Way {
    name: "read-back",
    options: ", 'sink.delivery' = 'read-back', 'properties.message.timeout.ms' = '1000', \
              'properties.request.timeout.ms' = '1000'",
    steps: &["before-sending", "while-sending", "after-sending"],
};

/// The same, several rows a message.
const PACKED: Way = Way {
    name: "packed",
    options: ", 'sink.delivery' = 'read-back', 'properties.message.timeout.ms' = '1000', \
              'properties.request.timeout.ms' = '1000', 'sink.rows_per_message' = '7', 'json.rows' = 'array'",
    steps: READ_BACK.steps,
};

const AT_LEAST_ONCE: Way = Way {
    name: "at-least-once",
    options: ", 'sink.delivery' = 'at-least-once', 'properties.message.timeout.ms' = '2000'",
    steps: &["before-sending", "while-sending", "after-sending", "after-commit"],
};

/// Numbers from one topic into another.
pub fn numbers(servers: &str, from: &str, to: &str, options: &str) -> Job {
    Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json'{options});
         INSERT INTO doubled SELECT n, n * 2 FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms")
}

/// The numbers that readers see, in order. Each row must be whole.
pub fn received(servers: &str, topic: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = read(servers, topic).iter().flat_map(numbers_of).collect();
    numbers.sort_unstable();
    numbers
}

/// Those of a message that has one row, or an array of them.
fn numbers_of(message: &Received) -> Vec<u64> {
    let value = serde_json::from_str(message.value.as_deref().expect("a payload")).expect("the payload is JSON");
    match value {
        Value::Array(rows) => rows.iter().map(number).collect(),
        row => vec![number(&row)],
    }
}

fn number(row: &Value) -> u64 {
    let n = row["n"].as_u64().expect("a number");
    assert_eq!(row["twice"].as_u64(), Some(n * 2), "{row}");
    n
}

async fn rows_are_in_the_topic_once_after_stops_and_restarts(way: &Way) {
    let broker = Broker::shared();
    let from = broker.topic(&format!("from-{}", way.name), 2).await;
    let to = broker.topic(&format!("to-{}", way.name), 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, way.options);
    for part in 0..3 {
        send(&broker.properties(), &from, part * 500..(part + 1) * 500, 0..2);
        job.start().read_all_and_stop(2);
    }
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..1500));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_topic_once_after_stops_and_restarts_with_transactions() {
    rows_are_in_the_topic_once_after_stops_and_restarts(&TRANSACTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_topic_once_after_stops_and_restarts_without_transactions() {
    rows_are_in_the_topic_once_after_stops_and_restarts(&READ_BACK).await;
}

/// The last offset of such a topic is a mark that no reader sees: nothing that is left to be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_ends_with_the_mark_of_a_transaction_is_read_to_its_end() {
    let broker = Broker::shared();
    let (from, to) = (broker.topic("marked-from", 2).await, broker.topic("marked-to", 2).await);
    send(&broker.properties(), &from, 0..500, 0..2);
    numbers(&broker.bootstrap_servers(), &from, &to, TRANSACTIONS.options).start().read_all_and_stop(2);
    let reader = job_of(&broker.bootstrap_servers(), &to, "");
    let mut run = reader.start();
    run.wait_until_read(500);
    // The client hears every second where partitions end.
    std::thread::sleep(Duration::from_secs(3));
    run.read_all_and_stop(2);
    assert_eq!(shown(&reader), all(0..500));
}

/// Returns the topic.
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing(way: &Way) -> String {
    let broker = Broker::shared();
    let from = broker.topic(&format!("killed-from-{}", way.name), 2).await;
    let to = broker.topic(&format!("killed-to-{}", way.name), 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, way.options);
    let around = ["between-prepare-and-publish", "after-append", "before-commit", "after-commit"];
    let properties = broker.properties();
    let mut send_more = more(&properties, &from, 0);
    job.dies_at_each(&[way.steps, &around].concat(), &mut send_more);
    let sent = send_more();
    job.start().read_all_and_stop(2);
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..sent));
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_with_transactions() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing(&TRANSACTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_without_transactions() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing(&READ_BACK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_of_messages_with_many_rows() {
    let topic = a_process_that_dies_at_any_step_loses_and_repeats_nothing(&PACKED).await;
    let packed = read(&Broker::shared().bootstrap_servers(), &topic);
    assert!(packed.iter().any(|message| numbers_of(message).len() == 7));
}

/// Many rows, so that reading them back takes long enough for anybody else to take some of them away.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_large_entry_that_arrived_before_a_crash_is_found_when_the_topic_is_read_back() {
    let broker = Broker::shared();
    let from = broker.topic("large-from", 2).await;
    let to = broker.topic("large-to", 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, READ_BACK.options);
    send(&broker.properties(), &from, 0..100_000, 0..2);
    let status = job.start_with(&[("MILLRACE_CRASH", "after-sending:1")], &[]).wait();
    assert_eq!(status.code(), None, "{status}");
    let sent = received(&broker.bootstrap_servers(), &to).len();
    assert!(sent > 5_000, "{sent} in the first entry");
    job.start().read_all_and_stop(2);
    let there = received(&broker.bootstrap_servers(), &to);
    assert_eq!(there.len(), 100_000, "of the {sent} that had arrived, some were sent again");
    assert_eq!(there, all(0..100_000));
}

/// A process stops in the middle of a commit, another one takes over and goes on, and then the first one wakes.
async fn a_process_that_is_frozen_and_superseded_adds_nothing_when_it_wakes(way: &Way) {
    let broker = Broker::shared();
    let from = broker.topic(&format!("frozen-from-{}", way.name), 2).await;
    let to = broker.topic(&format!("frozen-to-{}", way.name), 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, way.options);
    let mut sent = 0;
    for step in way.steps {
        send(&broker.properties(), &from, sent..sent + 100, 0..2);
        let mut sleeper = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1:freeze"))], &[]);
        sleeper.wait_until_frozen();
        let mut successor = job.start();
        successor.wait_until_idle(2);
        send(&broker.properties(), &from, sent + 100..sent + 200, 0..2);
        sent += 200;
        successor.wait_until_read(100);
        sleeper.thaw();
        assert_eq!(sleeper.wait().code(), Some(FENCED), "{step}\n{}", sleeper.said());
        successor.stop();
    }
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_frozen_and_superseded_adds_nothing_when_it_wakes_with_transactions() {
    a_process_that_is_frozen_and_superseded_adds_nothing_when_it_wakes(&TRANSACTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_frozen_and_superseded_adds_nothing_when_it_wakes_without_transactions() {
    a_process_that_is_frozen_and_superseded_adds_nothing_when_it_wakes(&READ_BACK).await;
}

/// What it queued before it froze goes out when it wakes, though the job is another's by then: nobody fences it. So its
/// successor looks only when that has arrived or expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_superseded_and_wakes_before_its_messages_expire_is_waited_for() {
    let broker = Broker::shared();
    let from = broker.topic("woken-from", 2).await;
    let to = broker.topic("woken-to", 3).await;
    let options = ", 'sink.delivery' = 'read-back', 'properties.linger.ms' = '2500', \
                   'properties.message.timeout.ms' = '3000', 'properties.request.timeout.ms' = '1000'";
    let job = numbers(&broker.bootstrap_servers(), &from, &to, options);
    send(&broker.properties(), &from, 0..100, 0..2);
    let mut sleeper = job.start_with(&[("MILLRACE_CRASH", "while-sending:1:freeze")], &[]);
    sleeper.wait_until_frozen();
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..0), "all of it is queued");
    let mut successor = job.start();
    wait_for("the successor's claim", PATIENCE, || (claims(&job) == 2).then_some(()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    sleeper.thaw();
    assert_eq!(sleeper.wait().code(), Some(FENCED), "{}", sleeper.said());
    successor.read_all_and_stop(2);
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..100));
}

/// How often the job was claimed.
fn claims(job: &Job) -> usize {
    let entries = std::fs::read_dir(job.state().join("log")).into_iter().flatten().flatten();
    entries
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .filter(|text| text.contains("\"claim\""))
        .count()
}

/// An empty group's offsets expire, and with them the number of the last entry that is shown.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_3_a_marker_that_the_broker_forgot_is_not_taken_for_rows_that_were_never_sent() {
    let broker = Broker::shared();
    let from = broker.topic("forgotten-from", 2).await;
    let to = broker.topic("forgotten-to", 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, "");
    let mut sent = 0;
    // Shown and not known to be; and neither.
    for step in ["after-transaction", "before-transaction"] {
        send(&broker.properties(), &from, sent..sent + 100, 0..2);
        sent += 100;
        let mut run = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1"))], &[]);
        assert_eq!(run.wait().code(), None, "{}", run.said());
        forget_groups_of(broker, &job).await;
    }
    job.start().read_all_and_stop(2);
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..sent));
}

/// Of a compacted topic, what is not there may have been there.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_9_nothing_is_sent_on_a_guess_to_a_compacted_topic_whose_marker_is_forgotten() {
    let broker = Broker::shared();
    let from = broker.topic("compacted-from", 2).await;
    let to = broker.topic_with("compacted-to", 3, &[("cleanup.policy", "compact")]).await;
    let servers = broker.bootstrap_servers();
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL, k STRING METADATA FROM 'key')
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json');
         INSERT INTO doubled SELECT n, n * 2, CAST(n AS STRING) AS k FROM numbers;"
    ));
    send(&broker.properties(), &from, 0..100, 0..2);
    let mut run = job.start_with(&[("MILLRACE_CRASH", "after-transaction:1")], &[]);
    assert_eq!(run.wait().code(), None, "{}", run.said());
    forget_groups_of(broker, &job).await;
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("nothing is sent on a guess"), "{}", run.said());
    assert_eq!(received(&servers, &to), all(0..100));
}

/// A transaction of somebody else that holds the group back: an offset that is pending hides the one that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_cannot_be_read_does_not_hold_the_job_up() {
    let broker = Broker::shared();
    let from = broker.topic("hidden-from", 2).await;
    let to = broker.topic("hidden-to", 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, "");
    send(&broker.properties(), &from, 0..100, 0..2);
    let mut run = job.start_with(&[("MILLRACE_CRASH", "after-transaction:1")], &[]);
    assert_eq!(run.wait().code(), None, "{}", run.said());
    let group = groups_of(broker, &job).remove(0);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers()).set("group.id", &group);
    let member: BaseConsumer = config.create().expect("a client");
    config.set("transactional.id", format!("{group}-hidden")).set("transaction.timeout.ms", "300000");
    let other: BaseProducer = config.create().expect("a producer");
    other.init_transactions(PATIENCE).expect("transactions");
    other.begin_transaction().expect("a transaction");
    let mut offset = TopicPartitionList::new();
    offset.add_partition_offset(&to, 0, Offset::Offset(7)).expect("an offset");
    let metadata = member.group_metadata().expect("a group");
    other.send_offsets_to_transaction(&offset, &metadata, PATIENCE).expect("an offset that is pending");

    send(&broker.properties(), &from, 100..200, 0..2);
    let mut run = job.start();
    run.wait_until_idle(2);
    run.stop();
    assert!(run.said().contains("cannot be read; the topic will say it"), "{}", run.said());
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..200));
}

/// The groups whose offsets are the markers of the job's writers.
fn groups_of(broker: &Broker, job: &Job) -> Vec<String> {
    let mut config = ClientConfig::new();
    let client: BaseConsumer = config.set("bootstrap.servers", broker.bootstrap_servers()).create().expect("a client");
    let log = log_id(job);
    let groups = client.fetch_group_list(None, PATIENCE).expect("the groups are known");
    let own: Vec<String> =
        groups.groups().iter().map(|g| g.name().to_string()).filter(|name| name.contains(&log)).collect();
    assert!(!own.is_empty(), "no group belongs to the job log {log}");
    own
}

async fn forget_groups_of(broker: &Broker, job: &Job) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers());
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
    let own = groups_of(broker, job);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    for result in admin.delete_groups(&own, &AdminOptions::new()).await.expect("groups can be deleted") {
        result.expect("the group is deleted");
    }
}

/// The id of the job's log, which is part of each name that it gives in the outside world.
fn log_id(job: &Job) -> String {
    let first = std::fs::read_to_string(job.state().join("log/00000000000000000001.json")).expect("the first entry");
    let entry: Value = serde_json::from_str(&first).expect("it is JSON");
    entry["log_id"].as_str().expect("it claims for a log").to_string()
}

/// A row that no broker takes, between others, one for a partition that there is not, and one that JSON has no word for.
async fn what_a_topic_can_never_take_goes_to_the_dead_letter_and_its_neighbours_into_the_topic(way: &Way) {
    let broker = Broker::shared();
    let from = broker.topic(&format!("large-from-{}", way.name), 2).await;
    let to = broker.topic_with(&format!("large-to-{}", way.name), 3, &[("max.message.bytes", "20000")]).await;
    let servers = broker.bootstrap_servers();
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL, text STRING, p INT METADATA FROM 'partition', x DOUBLE)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json'{});
         INSERT INTO doubled SELECT n, n * 2, CASE WHEN n % 100 = 7 THEN repeat('x', 30000) ELSE 'x' END,
                CAST(CASE WHEN n % 100 = 8 THEN 3 ELSE n % 3 END AS INT),
                CASE WHEN n % 100 = 9 THEN CAST('NaN' AS DOUBLE) ELSE 0.5 END FROM numbers;",
        way.options
    ))
    .argument("--checkpoint-interval=200ms");
    for part in 0..2 {
        send(&broker.properties(), &from, part * 500..(part + 1) * 500, 0..2);
        job.start().read_all_and_stop(2);
    }
    let can_be = |n: &u64| ![7, 8, 9].contains(&(n % 100));
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..1000).into_iter().filter(can_be).collect::<Vec<_>>());
    let in_place = |message: &Received| numbers_of(message).iter().all(|n| n % 3 == message.partition as u64);
    assert!(read(&broker.bootstrap_servers(), &to).iter().all(in_place));
    let letters = dead_letters(&job.state().join("dead-letter"));
    let reasons = |text: &str| letters.iter().filter(|l| l["error"].as_str().is_some_and(|e| e.contains(text))).count();
    assert_eq!(
        (letters.len(), reasons("bytes are more than"), reasons("for partition 3"), reasons("column x is NaN")),
        (30, 10, 10, 10),
        "{letters:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_topic_can_never_take_goes_to_the_dead_letter_with_transactions() {
    what_a_topic_can_never_take_goes_to_the_dead_letter_and_its_neighbours_into_the_topic(&TRANSACTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_topic_can_never_take_goes_to_the_dead_letter_without_transactions() {
    what_a_topic_can_never_take_goes_to_the_dead_letter_and_its_neighbours_into_the_topic(&READ_BACK).await;
}

/// Here the table says more than is true; others may not ask. Three of the larger rows are too much for a batch, and one is not.
async fn what_only_brokers_know_to_be_too_large_goes_to_the_dead_letter(way: &Way) {
    let broker = Broker::shared();
    let from = broker.topic(&format!("unsaid-from-{}", way.name), 2).await;
    let to = broker.topic_with(&format!("unsaid-to-{}", way.name), 3, &[("max.message.bytes", "20000")]).await;
    let servers = broker.bootstrap_servers();
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL, text STRING)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json',
               'properties.message.max.bytes' = '2000000'{});
         INSERT INTO doubled SELECT n, n * 2,
                repeat('x', CASE WHEN n % 100 = 7 THEN 30000 WHEN n % 5 = 0 THEN 8000 ELSE 1 END) FROM numbers;",
        way.options
    ))
    .argument("--checkpoint-interval=200ms");
    send(&broker.properties(), &from, 0..500, 0..2);
    job.start().read_all_and_stop(2);
    send(&broker.properties(), &from, 500..1000, 0..2);
    // While it finds out anew what is too large.
    job.dies_at(way.steps[1], 2, || {});
    job.start().read_all_and_stop(2);
    assert_eq!(received(&servers, &to), all(0..1000).into_iter().filter(|n| n % 100 != 7).collect::<Vec<_>>());
    let letters = dead_letters(&job.state().join("dead-letter"));
    assert_eq!(letters.len(), 10, "{letters:#?}");
    for letter in letters {
        assert!(letter["error"].as_str().is_some_and(|error| error.contains("the brokers refuse it")), "{letter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_brokers_know_to_be_too_large_goes_to_the_dead_letter_with_transactions() {
    what_only_brokers_know_to_be_too_large_goes_to_the_dead_letter(&TRANSACTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_brokers_know_to_be_too_large_goes_to_the_dead_letter_without_transactions() {
    what_only_brokers_know_to_be_too_large_goes_to_the_dead_letter(&READ_BACK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_brokers_know_to_be_too_large_goes_to_the_dead_letter_out_of_a_message_with_many_rows() {
    what_only_brokers_know_to_be_too_large_goes_to_the_dead_letter(&PACKED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_topic_can_never_take_goes_to_the_dead_letter_alone_out_of_a_message_with_many_rows() {
    let broker = Broker::shared();
    let from = broker.topic("packed-large-from", 1).await;
    let to = broker.topic_with("packed-large-to", 1, &[("max.message.bytes", "20000")]).await;
    let servers = broker.bootstrap_servers();
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL, text STRING)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json'{});
         INSERT INTO doubled SELECT n, n * 2, CASE WHEN n % 100 = 7 THEN repeat('x', 30000) ELSE 'x' END FROM numbers;",
        PACKED.options
    ))
    .argument("--checkpoint-interval=200ms");
    send(&broker.properties(), &from, 0..500, 0..1);
    job.start().read_all_and_stop(1);
    let good = all(0..500).into_iter().filter(|n| n % 100 != 7).collect::<Vec<_>>();
    assert_eq!(received(&broker.bootstrap_servers(), &to), good);
    let letters = dead_letters(&job.state().join("dead-letter"));
    assert_eq!(letters.len(), 5, "{letters:#?}");
    assert!(letters.iter().all(|l| l["error"].as_str().is_some_and(|e| e.contains("bytes are more than"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_would_refuse_for_its_time_or_its_missing_key_goes_to_the_dead_letter() {
    let broker = Broker::shared();
    let from = broker.topic("refusals-from", 2).await;
    let settings = [("cleanup.policy", "compact"), ("message.timestamp.after.max.ms", "3600000")];
    let to = broker.topic_with("refusals-to", 3, &settings).await;
    let servers = broker.bootstrap_servers();
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL, k STRING METADATA FROM 'key',
                               at TIMESTAMP METADATA FROM 'timestamp')
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json');
         INSERT INTO doubled SELECT n, n * 2, CASE WHEN n <> 7 THEN CAST(n AS STRING) END,
                CASE WHEN n = 8 THEN now() + INTERVAL '2' HOUR ELSE now() END FROM numbers;"
    ));
    send(&broker.properties(), &from, 0..100, 0..2);
    job.start().read_all_and_stop(2);
    let can_be = |n: &u64| ![7, 8].contains(n);
    assert_eq!(received(&servers, &to), all(0..100).into_iter().filter(can_be).collect::<Vec<_>>());
    let letters = dead_letters(&job.state().join("dead-letter"));
    let reasons = |text: &str| letters.iter().filter(|l| l["error"].as_str().is_some_and(|e| e.contains(text))).count();
    assert_eq!((letters.len(), reasons("has no key"), reasons("further ahead")), (2, 1, 1), "{letters:#?}");
}

/// The letter that says so holds the one that was refused: whole, it would be refused again, and larger each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_its_own_topic_refuses_is_cut() {
    let broker = Broker::shared();
    let from = broker.topic("letters-from", 1).await;
    let to = broker.topic("letters-to", 1).await;
    let letters = broker.topic_with("letters", 1, &[("max.message.bytes", "20000")]).await;
    let servers = broker.bootstrap_servers();
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json');
         CREATE TABLE letters
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{letters}', 'dead-letter' = 'true');
         INSERT INTO doubled SELECT n, n * 2 FROM numbers;"
    ));
    let producer = kafka::Producer::new(&from, &broker.properties()).expect("a producer");
    producer.send(None, None, &vec![b'x'; 30_000]).expect("a message can be queued");
    producer.flush(PATIENCE).expect("it is delivered");
    send(&broker.properties(), &from, 0..10, 0..1);
    job.start().read_all_and_stop(1);
    assert_eq!(received(&servers, &to), all(0..10));
    let kept = read(&servers, &letters);
    assert_eq!(kept.len(), 1, "{kept:#?}");
    let letter: Value = serde_json::from_str(kept[0].value.as_deref().expect("a payload")).expect("it is JSON");
    assert!(letter["error"].as_str().is_some_and(|error| error.contains("bytes are more than")), "{letter}");
    assert_eq!(letter["table"], "letters");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_for_one_way_of_delivery_are_not_shown_by_another() {
    let broker = Broker::shared();
    let from = broker.topic("changed-from", 2).await;
    let to = broker.topic("changed-to", 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, READ_BACK.options);
    let file = job.folder().join("test.sql");
    let sql = std::fs::read_to_string(&file).expect("the job's file");
    send(&broker.properties(), &from, 0..100, 0..2);
    let mut run = job.start_with(&[("MILLRACE_CRASH", "while-sending:1")], &[]);
    assert_eq!(run.wait().code(), None, "{}", run.said());

    std::fs::write(&file, sql.replace("'read-back'", "'transactions'")).expect("the job's file");
    let mut other = job.start();
    assert_eq!(other.wait().code(), Some(1), "{}", other.said());
    assert!(other.said().contains("staged for 'sink.delivery' = 'read-back'"), "{}", other.said());

    std::fs::write(&file, &sql).expect("the job's file");
    job.start().read_all_and_stop(2);
    std::fs::write(&file, sql.replace("'read-back'", "'transactions'")).expect("the job's file");
    send(&broker.properties(), &from, 100..200, 0..2);
    job.start().read_all_and_stop(2);
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..200));
}

/// What `Utils.toPositive(Utils.murmur2(key)) % 5` of kafka-clients says, which decides where Java's clients send a key.
const OF_FIVE_BY_JAVA: [(&str, i32); 5] =
    [("device-000000", 2), ("device-000001", 3), ("device-000002", 4), ("device-000007", 4), ("\u{fc}", 3)];

#[tokio::test(flavor = "multi_thread")]
async fn a_message_has_the_key_the_headers_and_the_time_of_its_row_and_goes_where_java_sends_the_key() {
    let broker = Broker::shared();
    let from = broker.topic("keys-from", 1).await;
    // Rows of three years ago, which retention would take when it next comes by.
    let to = broker.topic_with("keys-to", 5, &[("retention.ms", "-1")]).await;
    let servers = broker.bootstrap_servers();
    let keys = OF_FIVE_BY_JAVA.map(|(key, _)| format!("'{}'", key.replace("device-", "contoso-device-id-"))).join(", ");
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE keyed (device STRING, n BIGINT, at TIMESTAMP METADATA FROM 'timestamp',
                             parity STRING METADATA FROM 'headers.parity')
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json',
               'sink.key_field' = 'device');
         INSERT INTO keyed SELECT make_array({keys})[n + 1], n, to_timestamp(1700000000 + n),
                CASE WHEN n % 2 = 0 THEN 'even' END FROM numbers;"
    ));
    send(&broker.properties(), &from, 0..5, 0..1);
    job.start().read_all_and_stop(1);
    let messages = read(&broker.bootstrap_servers(), &to);
    assert_eq!(messages.len(), 5);
    for message in messages {
        let row: Value = serde_json::from_str(message.value.as_deref().unwrap()).unwrap();
        let n = row["n"].as_u64().unwrap();
        let (key, partition) = OF_FIVE_BY_JAVA[n as usize];
        assert_eq!(message.key, Some(key.replace("device-", "contoso-device-id-")));
        assert_eq!((&row["device"], row.as_object().unwrap().len()), (&Value::from(message.key.unwrap()), 2));
        assert_eq!((message.partition, message.time), (partition, Some((1_700_000_000 + n as i64) * 1000)));
        assert_eq!(message.headers.get("parity").map(String::as_str), (n.is_multiple_of(2)).then_some("even"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_keep_the_partition_and_the_order_of_their_source_in_packed_batches_too() {
    let broker = Broker::shared();
    let from = broker.topic("in-order-from", 3).await;
    let servers = broker.bootstrap_servers();
    send(&broker.properties(), &from, 0..3000, 0..3);
    let in_order = |topic: &str| {
        let received = read(&servers, topic);
        let n = |message: &Received| {
            let row: Value = serde_json::from_str(message.value.as_deref()?).ok()?;
            row["n"].as_u64()
        };
        received.iter().map(|message| (message.partition, n(message).expect("a number"))).collect::<Vec<_>>()
    };
    for compression in ["gzip", "lz4", "snappy", "zstd"] {
        let to = broker.topic(&format!("in-order-{compression}"), 3).await;
        let job = Job::new(&format!(
            "CREATE TABLE numbers (n BIGINT NOT NULL, part INT METADATA FROM 'partition')
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE sent (n BIGINT NOT NULL, part INT METADATA FROM 'partition')
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{to}', format = 'json',
                   'properties.compression.type' = '{compression}');
             INSERT INTO sent SELECT n, part FROM numbers;"
        ))
        .argument("--checkpoint-interval=100ms");
        job.dies_at("within-transaction", 1, || {});
        job.start().read_all_and_stop(3);
        assert_eq!(in_order(&to), in_order(&from), "{compression}");
    }
}

async fn a_broker_that_dies_and_one_that_hangs_while_rows_are_sent_are_waited_for(way: &Way) {
    let (mut numbers, sent) = sent_to_a_broker_that_dies_and_hangs(way).await;
    if way.name == AT_LEAST_ONCE.name {
        numbers.dedup();
    }
    assert_eq!(numbers, all(0..sent));
}

/// What readers see in the end, and how many numbers were sent.
async fn sent_to_a_broker_that_dies_and_hangs(way: &Way) -> (Vec<u64>, u64) {
    let source = Broker::shared();
    let mut broker = tokio::task::spawn_blocking(|| Broker::start(BrokerSettings::default())).await.unwrap();
    let from = source.topic(&format!("faults-from-{}", way.name), 2).await;
    let to = broker.topic("faults-to", 3).await;
    let (servers, output) = (source.bootstrap_servers(), broker.bootstrap_servers());
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{output}', topic = '{to}', format = 'json',
               'properties.socket.timeout.ms' = '2000', 'properties.reconnect.backoff.max.ms' = '1000'{});
         INSERT INTO doubled SELECT n, n * 2 FROM numbers;",
        way.options
    ))
    .argument("--checkpoint-interval=100ms");
    let mut run = job.start();
    let mut sent = 0;
    let mut send_for = |seconds: u64| {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            send(&source.properties(), &from, sent..sent + 20, 0..2);
            sent += 20;
        }
        sent
    };
    run.wait_until_idle(2);
    send_for(1);
    broker.kill();
    // Longer than a message may take.
    send_for(6);
    let in_trouble = |status: &Value| status["sinks"]["doubled"]["trouble"].is_string();
    run.wait_until("the lost broker is seen", in_trouble);
    broker = tokio::task::spawn_blocking(move || {
        broker.restart();
        broker
    })
    .await
    .unwrap();
    run.wait_until("the broker is back", |status| !in_trouble(status));
    send_for(1);
    broker.freeze();
    send_for(6);
    broker.thaw();
    let sent = send_for(1);
    run.wait_until_read(sent);
    run.wait_until("everything is shown", |status| {
        status["sinks"]["doubled"]["uncommitted"] == 0 && !in_trouble(status)
    });
    run.stop();
    (received(&broker.bootstrap_servers(), &to), sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_and_one_that_hangs_while_rows_are_sent_are_waited_for_at_least_once() {
    a_broker_that_dies_and_one_that_hangs_while_rows_are_sent_are_waited_for(&AT_LEAST_ONCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_and_one_that_hangs_while_rows_are_sent_are_waited_for_without_transactions() {
    a_broker_that_dies_and_one_that_hangs_while_rows_are_sent_are_waited_for(&READ_BACK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_behind_somebody_else_s_open_transaction_are_seen_when_the_topic_is_read_back() {
    let broker = Broker::shared();
    let from = broker.topic("behind-from", 2).await;
    let to = broker.topic("behind-to", 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, READ_BACK.options);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers()).set("transaction.timeout.ms", "300000");
    let other: BaseProducer = config.set("transactional.id", format!("{to}-other")).create().expect("a producer");
    other.init_transactions(PATIENCE).expect("transactions");
    other.begin_transaction().expect("a transaction");
    for partition in 0..3 {
        let record = BaseRecord::<str, str>::to(&to).payload("never seen").partition(partition);
        other.send(record).map_err(|(e, _)| e).expect("a message can be queued");
    }
    other.flush(PATIENCE).expect("the messages are there");
    for step in ["while-sending", "after-sending"] {
        let from_here = if step == "while-sending" { 0 } else { 100 };
        send(&broker.properties(), &from, from_here..from_here + 100, 0..2);
        let mut run = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1"))], &[]);
        assert_eq!(run.wait().code(), None, "{step}: {}", run.said());
    }
    job.start().read_all_and_stop(2);
    other.abort_transaction(PATIENCE).expect("the transaction is given up");
    assert_eq!(received(&broker.bootstrap_servers(), &to), all(0..200));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_and_deleted_by_retention_is_not_sent_on_a_guess() {
    let broker = Broker::shared();
    let from = broker.topic("cut-from", 2).await;
    let to = broker.topic("cut-to", 1).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, READ_BACK.options);
    send(&broker.properties(), &from, 0..100, 0..2);
    let mut run = job.start_with(&[("MILLRACE_CRASH", "after-sending:1")], &[]);
    assert_eq!(run.wait().code(), None, "{}", run.said());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().expect("a client");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&to, 0, Offset::Offset(50)).expect("an offset");
    admin.delete_records(&before, &AdminOptions::new()).await.expect("records can be deleted");
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("retention has deleted everything before offset 50"), "{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_hold_the_promise_is_refused_before_anything_is_read() {
    let broker = Broker::shared();
    let from = broker.topic("refused-from", 1).await;
    let compacted = broker.topic_with("refused-to", 1, &[("cleanup.policy", "compact")]).await;
    let refused = |to: &str, options: &str, texts: &[&str]| {
        let job = numbers(&broker.bootstrap_servers(), &from, to, options);
        let mut run = job.start();
        assert!(matches!(run.wait().code(), Some(1 | 2)), "{}", run.said());
        for text in texts {
            assert!(run.said().contains(text), "it does not say {text:?}:\n{}", run.said());
        }
    };
    refused(&compacted, READ_BACK.options, &["the topic is compacted", "'sink.delivery' = 'transactions'"]);
    refused("nowhere", "", &["topic nowhere", "the broker knows no such topic"]);
    let id = ", 'properties.transactional.id' = 'mine'";
    refused(&compacted, id, &["transactional.id is the engine's own", "see sink.delivery"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_once_sends_again_what_a_crash_left_unsettled_and_loses_nothing() {
    let broker = Broker::shared();
    let from = broker.topic("least-from", 2).await;
    let to = broker.topic("least-to", 3).await;
    let job = numbers(&broker.bootstrap_servers(), &from, &to, AT_LEAST_ONCE.options);
    for (part, step) in AT_LEAST_ONCE.steps.iter().enumerate() {
        let part = part as u64 * 100;
        send(&broker.properties(), &from, part..part + 100, 0..2);
        let mut run = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1"))], &[]);
        assert_eq!(run.wait().code(), None, "{step}: {}", run.said());
    }
    job.start().read_all_and_stop(2);
    let mut numbers = received(&broker.bootstrap_servers(), &to);
    let sent = numbers.len();
    numbers.dedup();
    assert_eq!(numbers, all(0..400));
    assert!(sent > 400, "the rows that were sent before the crash are there twice");
}
