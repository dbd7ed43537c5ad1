//! Rows into a topic, each once: with transactions, and without them.

use serde_json::Value;

use crate::broker::Broker;
use crate::millrace::{Job, Running};
use crate::numbers::{all, send};
use crate::topic_reader::{Received, read};

/// How the topic of the rows is written.
struct Way {
    name: &'static str,
    /// Further options of its table.
    options: &'static str,
    /// Its steps, at each of which a process may die.
    steps: &'static [&'static str],
}

const TRANSACTIONS: Way = Way {
    name: "transactions",
    options: "",
    steps: &["before-transaction", "within-transaction", "after-transaction"],
};

/// Messages and requests that expire within a second: so a takeover takes three.
const READ_BACK: Way = Way {
    name: "read-back",
    options: ", 'sink.delivery' = 'read-back', 'properties.message.timeout.ms' = '1000', \
              'properties.request.timeout.ms' = '1000'",
    steps: &["before-sending", "while-sending", "after-sending"],
};

/// Numbers from one topic into another.
fn numbers(broker: &Broker, from: &str, to: &str, options: &str) -> Job {
    let servers = broker.bootstrap_servers();
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
fn received(broker: &Broker, topic: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = read(broker, topic).iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn number(message: &Received) -> u64 {
    let row: Value = serde_json::from_str(message.value.as_deref().expect("a payload")).expect("the payload is JSON");
    let n = row["n"].as_u64().expect("a number");
    assert_eq!(row["twice"].as_u64(), Some(n * 2), "{row}");
    n
}

fn read_all_and_stop(run: &mut Running, partitions: usize) {
    run.wait_until_idle(partitions);
    run.stop();
}

async fn rows_are_in_the_topic_once_after_stops_and_restarts(way: &Way) {
    let broker = Broker::shared();
    let from = broker.topic(&format!("from-{}", way.name), 2).await;
    let to = broker.topic(&format!("to-{}", way.name), 3).await;
    let job = numbers(broker, &from, &to, way.options);
    for part in 0..3 {
        send(&broker.properties(), &from, part * 500..(part + 1) * 500, 0..2);
        read_all_and_stop(&mut job.start(), 2);
    }
    assert_eq!(received(broker, &to), all(0..1500));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_topic_once_after_stops_and_restarts_with_transactions() {
    rows_are_in_the_topic_once_after_stops_and_restarts(&TRANSACTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_topic_once_after_stops_and_restarts_without_transactions() {
    rows_are_in_the_topic_once_after_stops_and_restarts(&READ_BACK).await;
}

/// At each step the second commit dies, which has rows before it, and then the first of the process that recovers.
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing(way: &Way) {
    let broker = Broker::shared();
    let from = broker.topic(&format!("killed-from-{}", way.name), 2).await;
    let to = broker.topic(&format!("killed-to-{}", way.name), 3).await;
    let job = numbers(broker, &from, &to, way.options);
    let around = ["between-prepare-and-publish", "after-append", "before-commit", "after-commit"];
    let mut sent = 0;
    let mut send_more = || {
        send(&broker.properties(), &from, sent..sent + 100, 0..2);
        sent += 100;
        sent
    };
    for step in way.steps.iter().chain(&around) {
        for visit in [2, 1] {
            send_more();
            let mut run = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:{visit}"))], &[]);
            if visit == 2 {
                run.wait_until_read(100);
                send_more();
            }
            let status = run.wait();
            assert_eq!(status.code(), None, "{step}:{visit} {status}\n{}", run.said());
        }
    }
    let sent = send_more();
    read_all_and_stop(&mut job.start(), 2);
    assert_eq!(received(broker, &to), all(0..sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_with_transactions() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing(&TRANSACTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_without_transactions() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing(&READ_BACK).await;
}
