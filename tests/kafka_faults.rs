//! Brokers that die, hang and lose their place while a job reads. Nothing is lost or repeated, and it can be seen.

use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, BrokerSettings};
use crate::kafka_sink;
use crate::numbers::{all, job_of, send, shown};

/// Shorter than a hang, so that requests time out within it.
const QUICK: &str = ", 'properties.socket.timeout.ms' = '2000', 'properties.reconnect.backoff.max.ms' = '1000'";
const HANG: Duration = Duration::from_secs(7);

fn in_trouble(status: &Value) -> bool {
    status["sources"]["numbers"]["trouble"].is_string() && status["sources"]["numbers"]["retries"].as_u64() > Some(0)
}

fn at_ease(status: &Value) -> bool {
    status["sources"]["numbers"]["trouble"].is_null()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_and_one_that_hangs_are_waited_for() {
    let mut broker = Broker::start(BrokerSettings::default());
    let topic = broker.topic("faults", 2).await;
    let job = job_of(&broker.bootstrap_servers(), &topic, QUICK);
    send(&broker.properties(), &topic, 0..100, 0..2);
    let mut run = job.start();
    run.wait_until_read(100);

    broker.kill();
    run.wait_until("the lost broker is seen", in_trouble);
    broker.restart();
    send(&broker.properties(), &topic, 100..200, 0..2);
    run.wait_until_read(200);
    run.wait_until("the broker is back", at_ease);

    broker.freeze();
    std::thread::sleep(HANG);
    run.wait_until("the hanging broker is seen", in_trouble);
    broker.thaw();
    send(&broker.properties(), &topic, 200..300, 0..2);
    run.wait_until_read(300);
    run.wait_until("the broker answers again", at_ease);

    run.terminate();
    assert_eq!(run.wait().code(), Some(0), "{}", run.said());
    assert_eq!(shown(&job), all(0..300));
    let lines = run.said().lines().count();
    assert!(lines < 100, "{lines} lines in the log:\n{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_gone_when_a_job_starts_that_writes_there_is_waited_for() {
    let mut broker = Broker::start(BrokerSettings::default());
    let (from, to) = (broker.topic("away-from", 1).await, broker.topic("away-to", 1).await);
    send(&broker.properties(), &from, 0..100, 0..1);
    broker.kill();
    let job = kafka_sink::numbers(&broker.bootstrap_servers(), &from, &to, kafka_sink::TRANSACTIONS.options);
    let mut run = job.start();
    run.wait_until_it_says("not open yet; trying again");
    broker.restart();
    run.read_all_and_stop(1);
    assert_eq!(kafka_sink::received(&broker.bootstrap_servers(), &to), all(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_stopped_while_its_broker_is_gone() {
    let mut broker = Broker::start(BrokerSettings::default());
    let topic = broker.topic("stop", 1).await;
    let job = job_of(&broker.bootstrap_servers(), &topic, ", 'source.discovery' = '1 second'");
    send(&broker.properties(), &topic, 0..10, 0..1);
    let mut run = job.start();
    run.wait_until_read(10);
    broker.kill();
    run.wait_until("the lost broker is seen", in_trouble);
    let begun = std::time::Instant::now();
    run.terminate();
    assert_eq!(run.wait().code(), Some(0), "{}", run.said());
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert_eq!(shown(&job), all(0..10));
}
