//! A producer, and what its own threads report.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::client::Reports;
use crate::endpoint::{ANSWER, Endpoint};
use crate::messages::{CONTENT_TYPE, IDENTITY, Messages};
use crate::read_back::partitions_of;
use crate::topics::Limits;

/// Sends to one topic. What became of the messages is known once they are flushed.
pub struct Sender {
    pub producer: ThreadedProducer<Sending>,
    topic: String,
    /// As far as they were asked for.
    partitions: AtomicI64,
    queued: AtomicU64,
    limits: Limits,
}

/// What a producer reports.
#[derive(Clone)]
pub struct Sending {
    reports: Reports,
    /// Why the first message that did not arrive did not.
    failure: Arc<Mutex<Option<KafkaError>>>,
    /// Messages of which it was said what became of them, where that is said of all.
    settled: Arc<AtomicU64>,
}

impl ClientContext for Sending {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.reports.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.reports.generate_oauth_token(config)
    }
}

impl ProducerContext for Sending {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            self.failure.lock().get_or_insert_with(|| error.clone());
        }
        self.settled.fetch_add(1, Ordering::Release);
    }
}

/// What became of a row that was handed over.
#[derive(Debug, PartialEq, Eq)]
pub enum Handed {
    Queued,
    /// The queue is full now.
    NotYet,
    /// It can never be taken, for this reason.
    Refused(String),
}

/// A producer's configuration, before what is said of it: what the table says comes later and wins.
pub fn producer(endpoint: &Endpoint, largest: Option<u64>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "millrace")
        // A key goes to the partition that Java's clients give it.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        // Nothing is counted by message but what fails.
        .set("delivery.report.only.error", "true");
    if let Some(largest) = largest {
        config.set("message.max.bytes", largest.to_string());
    }
    for (name, value) in &endpoint.properties {
        config.set(name, value);
    }
    config.set("enable.idempotence", "true");
    config
}

impl Sender {
    pub fn new(
        endpoint: &Endpoint,
        reports: Reports,
        limits: Limits,
        config: &ClientConfig,
    ) -> Result<Self, KafkaError> {
        let context = Sending { reports, failure: Arc::default(), settled: Arc::default() };
        let producer = config.create_with_context(context)?;
        Ok(Sender {
            producer,
            topic: endpoint.topic.clone(),
            partitions: AtomicI64::new(0),
            queued: AtomicU64::new(0),
            limits,
        })
    }

    /// Queues rows as one message, if there is room. `identity`: what the header says of them, if it has one.
    pub fn send(
        &self,
        messages: &Messages<'_>,
        rows: Range<usize>,
        identity: Option<&str>,
    ) -> Result<Handed, KafkaError> {
        let row = rows.start;
        if let Some(reason) = messages.unwritable(row) {
            return Ok(Handed::Refused(reason.into()));
        }
        if let Some(partition) = messages.partition(row)
            && !self.has(partition)?
        {
            let partitions = self.partitions.load(Ordering::Relaxed);
            return Ok(Handed::Refused(format!("it is for partition {partition}, and the topic has {partitions}")));
        }
        let time = messages.time(rows.end - 1);
        if let Some(reason) = self.limits.refuse(messages.key(row), time) {
            return Ok(Handed::Refused(reason));
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic);
        let value = messages.value(rows);
        record.payload = value.as_deref();
        record.key = messages.key(row);
        record.partition = messages.partition(row).map(|p| p as i32);
        record.timestamp = time;
        record.headers = headers(messages, row, identity);
        match self.producer.send(record) {
            Ok(()) => {
                self.queued.fetch_add(1, Ordering::Relaxed);
                Ok(Handed::Queued)
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                let bytes = value.map_or(0, |value| value.len()) + messages.key(row).map_or(0, <[u8]>::len);
                let what = format!("{bytes} bytes are more than the topic, or message.max.bytes, allows a message");
                Ok(Handed::Refused(what))
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(Handed::NotYet),
            Err((error, _)) => Err(self.cause(error)),
        }
    }

    /// What ended the producer for good, instead of what follows from it.
    fn cause(&self, error: KafkaError) -> KafkaError {
        match self.producer.client().fatal_error() {
            Some((code, _)) => KafkaError::MessageProduction(code),
            None => error,
        }
    }

    /// Waits until it was said of every message what became of it. A flushed queue is not enough: what came out of it may not
    /// have been told yet. Only where reports of all are asked for.
    pub fn settle(&self, within: Duration) -> Result<(), KafkaError> {
        let until = Instant::now() + within;
        self.producer.flush(within)?;
        while self.producer.context().settled.load(Ordering::Acquire) < self.queued.load(Ordering::Relaxed) {
            if Instant::now() > until {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Whether the topic has this partition; asked again before it is denied, for topics grow.
    fn has(&self, partition: i64) -> Result<bool, KafkaError> {
        if partition >= self.partitions.load(Ordering::Relaxed) {
            let metadata = self.producer.client().fetch_metadata(Some(&self.topic), ANSWER)?;
            let found = partitions_of(&metadata, &self.topic)?.len();
            self.partitions.store(found as i64, Ordering::Relaxed);
        }
        Ok((0..self.partitions.load(Ordering::Relaxed)).contains(&partition))
    }

    /// Why a message did not arrive, if one did not. What is flushed and has not failed has arrived.
    pub fn failure(&self) -> Option<KafkaError> {
        self.producer.context().failure.lock().clone().map(|error| self.cause(error))
    }
}

fn headers(messages: &Messages<'_>, row: usize, identity: Option<&str>) -> Option<OwnedHeaders> {
    let given = messages.headers(row).map(|(key, value)| Header { key, value: Some(value) });
    let given = given.chain(messages.content_type().map(|value| Header { key: CONTENT_TYPE, value: Some(value) }));
    let own = identity.map(|text| Header { key: IDENTITY, value: Some(text.as_bytes()) });
    let mut headers: Option<OwnedHeaders> = None;
    for header in given.chain(own) {
        headers = Some(headers.unwrap_or_default().insert(header));
    }
    headers
}
