//! What a topic allows; and making and deleting topics, for the simulator and for tests.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use crate::client::Reports;
use crate::endpoint::Endpoint;

/// What a topic allows, as far as its brokers tell us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message, without what is sent around it.
    pub largest: Option<u64>,
    /// Whether an old message may vanish before its time, because there is a newer one with its key.
    pub compacted: bool,
    /// Milliseconds that a message's timestamp may be ahead of the broker's clock, and behind it.
    pub ahead: Option<i64>,
    pub behind: Option<i64>,
}

impl Limits {
    /// Why brokers would refuse a message with this key and timestamp, if they would.
    pub fn refuse(&self, key: Option<&[u8]>, time: Option<i64>) -> Option<String> {
        if self.compacted && key.is_none() {
            return Some("the topic is compacted, and the row has no key".into());
        }
        let time = time?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        if self.ahead.is_some_and(|most| time.saturating_sub(now) > most) {
            return Some(format!("its timestamp {time} is further ahead than message.timestamp.after.max.ms allows"));
        }
        if self.behind.is_some_and(|most| now.saturating_sub(time) > most) {
            return Some(format!("its timestamp {time} is further back than message.timestamp.before.max.ms allows"));
        }
        None
    }
}

/// What stands around a message that is sent alone, at most: brokers count it.
const AROUND: u64 = 512;

/// Asks what a topic allows. Whoever may not ask, or asks brokers that do not say, is told by them when it is too much.
pub async fn limits(endpoint: &Endpoint, reports: &Reports) -> Limits {
    match settings(endpoint, reports).await {
        Ok(settings) => Limits {
            largest: settings
                .get("max.message.bytes")
                .and_then(|b| b.parse().ok())
                .map(|b: u64| b.saturating_sub(AROUND)),
            compacted: settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            ahead: bound(&settings, "message.timestamp.after.max.ms"),
            behind: bound(&settings, "message.timestamp.before.max.ms"),
        },
        Err(error) => {
            tracing::debug!(topic = endpoint.topic, %error, "the brokers do not say what the topic allows");
            Limits::default()
        }
    }
}

/// A bound on the messages' own timestamps, where the topic keeps those.
fn bound(settings: &HashMap<String, String>, name: &str) -> Option<i64> {
    let kept = settings.get("message.timestamp.type").is_none_or(|kind| kind == "CreateTime");
    settings.get(name).filter(|_| kept)?.parse().ok()
}

async fn settings(endpoint: &Endpoint, reports: &Reports) -> Result<HashMap<String, String>, KafkaError> {
    let mut config = ClientConfig::new();
    endpoint.properties.iter().for_each(|(name, value)| {
        config.set(name, value);
    });
    let admin: AdminClient<Reports> = config.create_with_context(reports.clone())?;
    let answer = admin.describe_configs(&[ResourceSpecifier::Topic(&endpoint.topic)], &options()).await?;
    let described = answer.into_iter().next().ok_or(KafkaError::NoMessageReceived)?.map_err(KafkaError::AdminOp)?;
    Ok(described.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

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
