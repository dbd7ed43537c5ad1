//! Topics that change under a job: longer, wider, cut, gone, made again. What cannot be read on is named, never skipped.

use std::time::Duration;

use kafka::{add_partitions, create_topic, delete_topic};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::Offset;

use crate::broker::Broker;
use crate::millrace::{Job, PATIENCE, Running};
use crate::numbers::{all, job_of, send, shown};
use crate::wait::wait_for;

/// Runs the job until it has read so much, and stops it.
fn read_and_stop(job: &Job, records: u64) {
    let mut run = job.start();
    run.wait_until_read(records);
    run.stop();
}

/// Runs the job, which must end with an error that says all of this.
fn fails_with(run: &mut Running, texts: &[&str]) {
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    for text in texts {
        assert!(run.said().contains(text), "it does not say {text:?}:\n{}", run.said());
    }
}

/// Deletes the topic and makes it again under its name.
async fn make_again(broker: &Broker, topic: &str, partitions: i32) {
    delete_topic(&broker.properties(), topic).await.expect("the topic can be deleted");
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().expect("a client");
    let known = || {
        let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
        Some(metadata.topics().first().map_or(0, |t| t.partitions().len()))
    };
    wait_for("the topic's end", PATIENCE, || (known()? == 0).then_some(()));
    create_topic(&broker.properties(), topic, partitions, &[]).await.expect("the topic can be made again");
    wait_for("the topic", PATIENCE, || (known()? == partitions as usize).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_and_is_longer_is_not_taken_for_the_one_that_was_read() {
    let broker = Broker::shared();
    let topic = broker.topic("again", 1).await;
    send(&broker.properties(), &topic, 0..10, 0..1);
    let job = job_of(&broker.bootstrap_servers(), &topic, "");
    read_and_stop(&job, 10);
    make_again(broker, &topic, 1).await;
    send(&broker.properties(), &topic, 1000..1050, 0..1);
    fails_with(&mut job.start(), &["partition 0", "made again under the same name", "Begin anew under another --name"]);
    assert_eq!(shown(&job), all(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_under_a_running_job_ends_it_before_anything_of_the_new_one_is_shown() {
    let broker = Broker::shared();
    let topic = broker.topic("again-running", 1).await;
    send(&broker.properties(), &topic, 0..10, 0..1);
    let job = job_of(&broker.bootstrap_servers(), &topic, "");
    let mut run = job.start();
    wait_for("what was there", PATIENCE, || (shown(&job) == all(0..10)).then_some(()));
    make_again(broker, &topic, 1).await;
    send(&broker.properties(), &topic, 1000..1050, 0..1);
    fails_with(&mut run, &["made again"]);
    assert_eq!(shown(&job), all(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_fewer_partitions_than_were_read_is_named() {
    let broker = Broker::shared();
    let topic = broker.topic("fewer", 3).await;
    send(&broker.properties(), &topic, 0..9, 0..3);
    let job = job_of(&broker.bootstrap_servers(), &topic, "");
    read_and_stop(&job, 9);
    make_again(broker, &topic, 2).await;
    fails_with(&mut job.start(), &["made again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_before_the_job_came_to_it_is_named() {
    let broker = Broker::shared();
    let topic = broker.topic("cut", 1).await;
    send(&broker.properties(), &topic, 0..10, 0..1);
    let job = job_of(&broker.bootstrap_servers(), &topic, "");
    read_and_stop(&job, 10);
    send(&broker.properties(), &topic, 10..30, 0..1);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().expect("a client");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(20)).expect("an offset");
    admin.delete_records(&before, &AdminOptions::new()).await.expect("records can be deleted");
    let texts =
        ["stands at offset 10, but retention has deleted everything before 20", "lengthen the topic's retention"];
    fails_with(&mut job.start(), &texts);
    assert_eq!(shown(&job), all(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_to_a_running_job_are_read_from_their_first_record() {
    let broker = Broker::shared();
    let topic = broker.topic("wider", 1).await;
    send(&broker.properties(), &topic, 0..10, 0..1);
    // Even one that would begin at the end.
    let job =
        job_of(&broker.bootstrap_servers(), &topic, ", 'source.discovery' = '1 second', 'source.offset' = 'latest'");
    let mut run = job.start();
    run.wait_until("the first partition is open", |status| status["splits"]["numbers/0"]["idle"] == true);
    send(&broker.properties(), &topic, 10..20, 0..1);
    run.wait_until_read(10);
    add_partitions(&broker.properties(), &topic, 3).await.expect("partitions can be added");
    send(&broker.properties(), &topic, 20..60, 1..3);
    run.wait_until_read(50);
    run.stop();
    assert_eq!(shown(&job), all(10..60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_begins_where_it_is_told_to() {
    let broker = Broker::shared();
    let topic = broker.topic("begin", 1).await;
    let group = format!("{topic}-group");
    send(&broker.properties(), &topic, 0..10, 0..1);
    let job = |further: &str| {
        let group = format!(", 'source.group_id' = '{group}'");
        job_of(&broker.bootstrap_servers(), &topic, &format!("{group}{further}"))
    };
    let first = job("");
    let mut run = first.start();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers()).set("group.id", &group);
    let client: BaseConsumer = config.create().expect("a client");
    let committed = || {
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let answer = client.committed_offsets(list, Duration::from_secs(5)).ok()?;
        (answer.elements().first()?.offset() == Offset::Offset(10)).then_some(())
    };
    wait_for("the group's offset, which lag tools watch", PATIENCE, committed);
    run.stop();

    let between = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_millis();
    tokio::time::sleep(Duration::from_millis(50)).await;
    send(&broker.properties(), &topic, 10..20, 0..1);
    let to_the_end = |start: &str| {
        let job = job(&format!(", 'source.offset' = {start}, 'scan.bounded.mode' = 'latest-offset'"));
        let mut run = job.start();
        assert_eq!(run.wait().code(), Some(0), "{}", run.said());
        shown(&job)
    };
    // First, for each of these jobs tells the group how far it came.
    assert_eq!(to_the_end("'committed'"), all(10..20));
    assert_eq!(to_the_end("'earliest'"), all(0..20));
    assert_eq!(to_the_end(&format!("'timestamp', 'source.timestamp' = '{between}'")), all(10..20));
    assert_eq!(to_the_end("'latest'"), all(0..0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_is_read_and_a_null_payload_is_counted() {
    let broker = Broker::shared();
    let topic = broker.topic("compressed", 2).await;
    for (index, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
        let mut properties = broker.properties();
        properties.push(("compression.codec".into(), codec.to_string()));
        let from = index as u64 * 100;
        send(&properties, &topic, from..from + 100, 0..2);
    }
    let producer: ThreadedProducer<_> =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().expect("a producer");
    let tombstone = BaseRecord::<str, str>::to(&topic).key("gone").partition(0);
    producer.send(tombstone).map_err(|(e, _)| e).expect("a message can be queued");
    producer.flush(PATIENCE).expect("the message is delivered");
    let job = job_of(&broker.bootstrap_servers(), &topic, "");
    let mut run = job.start();
    run.wait_until_read(501);
    run.wait_until("the null payload is counted", |status| status["sources"]["numbers"]["skipped"] == 1);
    run.stop();
    assert_eq!(shown(&job), all(0..500));
}
