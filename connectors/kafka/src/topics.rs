//! Making and deleting topics: for the simulator and for tests.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

type Admin = AdminClient<DefaultClientContext>;

fn admin(properties: &[(String, String)]) -> Result<Admin, KafkaError> {
    let mut config = ClientConfig::new();
    properties.iter().for_each(|(name, value)| {
        config.set(name, value);
    });
    config.create()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

/// Makes a topic; one that is there already is left as it is.
pub async fn create_topic(
    properties: &[(String, String)],
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<(), KafkaError> {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let results = admin(properties)?.create_topics([&new], &options()).await?;
    match results.into_iter().next() {
        Some(Err((_, rdkafka::error::RDKafkaErrorCode::TopicAlreadyExists))) | Some(Ok(_)) | None => Ok(()),
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
    }
}

pub async fn delete_topic(properties: &[(String, String)], topic: &str) -> Result<(), KafkaError> {
    let results = admin(properties)?.delete_topics(&[topic], &options()).await?;
    results.into_iter().next().map_or(Ok(()), |r| r.map(|_| ()).map_err(|(_, code)| KafkaError::AdminOp(code)))
}

pub async fn add_partitions(properties: &[(String, String)], topic: &str, total: usize) -> Result<(), KafkaError> {
    let results = admin(properties)?.create_partitions([&NewPartitions::new(topic, total)], &options()).await?;
    results.into_iter().next().map_or(Ok(()), |r| r.map(|_| ()).map_err(|(_, code)| KafkaError::AdminOp(code)))
}
