//! Sends events: for the simulator and for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

/// Sends to one topic, in the background.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    topic: String,
    failed: Arc<AtomicU64>,
}

#[derive(Clone, Default)]
struct Deliveries(Arc<AtomicU64>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Producer {
    /// `properties` are librdkafka's, `bootstrap.servers` among them.
    pub fn new(topic: &str, properties: &[(String, String)]) -> Result<Self, KafkaError> {
        let deliveries = Deliveries::default();
        let failed = deliveries.0.clone();
        let mut config = ClientConfig::new();
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("queue.buffering.max.messages", "200000");
        for (name, value) in properties {
            config.set(name, value);
        }
        let inner = config.create_with_context(deliveries)?;
        Ok(Producer { inner, topic: topic.to_string(), failed })
    }

    /// Queues a message; waits while the queue is full. Without a partition, librdkafka spreads them.
    pub fn send(&self, partition: Option<i32>, key: Option<&[u8]>, payload: &[u8]) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).payload(payload);
        if let Some(partition) = partition {
            record = record.partition(partition);
        }
        if let Some(key) = key {
            record = record.key(key);
        }
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until everything is delivered or refused.
    pub fn flush(&self, within: Duration) -> Result<(), KafkaError> {
        self.inner.flush(within)
    }

    /// Messages that were not delivered.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
