//! What readers of a topic see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use formats::{Decoder, Format, JsonOptions};

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::Offset;
use simulator::{Report, Verification};

use crate::millrace::PATIENCE;

/// A message as it lies in a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<String>,
    /// Milliseconds since 1970.
    pub time: Option<i64>,
    pub headers: BTreeMap<String, String>,
}

/// Everything that readers at read_committed see in the topic, partition by partition.
pub fn read(servers: &str, topic: &str) -> Vec<Received> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    let client: BaseConsumer = config.create().expect("a client");
    let metadata = client.fetch_metadata(Some(topic), PATIENCE).expect("the topic is known");
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).expect("an offset");
    }
    client.assign(&list).expect("the partitions can be read");
    let (mut received, mut ended, begun) = (vec![], 0, Instant::now());
    while ended < partitions.len() {
        assert!(begun.elapsed() < PATIENCE, "{PATIENCE:?} were not enough to read {topic}");
        match client.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                received.push(Received {
                    partition: message.partition(),
                    key: message.key().map(text),
                    value: message.payload().map(text),
                    time: message.timestamp().to_millis(),
                    headers: headers.map(|h| (h.key.to_string(), text(h.value.unwrap_or_default()))).collect(),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{topic} cannot be read: {error}"),
            None => {}
        }
    }
    received.sort_by_key(|message| message.partition);
    received
}

/// Compares the events that readers at read_committed see with what was sent.
pub fn verify(sent: Verification, servers: &str, topic: &str) -> Report {
    verify_rows(sent, read(servers, topic).into_iter().map(|message| message.value.unwrap_or_default()))
}

/// Compares events that lie somewhere as JSON with what was sent.
pub fn verify_rows(mut sent: Verification, rows: impl Iterator<Item = String>) -> Report {
    let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let json = [("ARROW:extension:name".to_string(), "arrow.json".to_string())];
    let fields = vec![
        Field::new("eventId", DataType::Utf8, true),
        Field::new("complexData", DataType::Utf8, true).with_metadata(json.into()),
        Field::new("value", DataType::Float64, true),
        Field::new("type", DataType::Utf8, true),
        Field::new("deviceId", DataType::Utf8, true),
        Field::new("deviceSequenceNumber", DataType::Int64, true),
        Field::new("createdAt", instant.clone(), true),
        Field::new("enqueuedAt", instant, true),
    ];
    let mut decoder = Decoder::new(Arc::new(Schema::new(fields)), Format::Json, JsonOptions::default(), None)
        .expect("the columns can be decoded");
    for row in rows {
        decoder.push(row.as_bytes(), None).expect("a row is JSON");
    }
    sent.commit(0, &[decoder.finish().expect("the rows are a batch")]).expect("the rows have the event's columns");
    sent.report()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
