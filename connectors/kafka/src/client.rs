//! librdkafka clients as the engine needs them, and what they say about themselves.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::options::KafkaTable;

/// What a client reports from its own threads.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<Reported>>);

#[derive(Default)]
struct Reported {
    /// By partition: the end offset that the broker last stated.
    ends: HashMap<i32, i64>,
    topic: String,
}

impl Reports {
    pub fn of(topic: &str) -> Self {
        let reports = Reports::default();
        reports.0.lock().topic = topic.to_string();
        reports
    }

    pub fn end(&self, partition: i32) -> Option<i64> {
        self.0.lock().ends.get(&partition).copied()
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if (level as u8) <= RDKafkaLogLevel::Warning as u8 {
            tracing::warn!(facility, "{message}");
        } else {
            tracing::debug!(facility, "{message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes here too; it is the reader's to use and nothing to tell.
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            return;
        }
        tracing::warn!(%error, reason, "kafka client; it tries again by itself");
    }

    fn stats(&self, statistics: Statistics) {
        let mut reported = self.0.lock();
        if let Some(topic) = statistics.topics.get(&reported.topic) {
            let ends: Vec<_> =
                topic.partitions.iter().map(|(p, s)| (*p, s.hi_offset)).filter(|(_, o)| *o >= 0).collect();
            reported.ends.extend(ends);
        }
    }
}

impl ConsumerContext for Reports {}

/// A consumer's configuration. Positions are the engine's: nothing is stored, reset or committed by the client.
pub fn consumer(table: &KafkaTable, partitions: usize) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "millrace")
        // A consumer that is slower than the fetcher waits a whole second at the default and then starves.
        .set("fetch.queue.backoff.ms", "10")
        .set("statistics.interval.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set(
            "queued.max.messages.kbytes",
            (table.prefetch / 1024 / partitions.max(1) as u64).clamp(64, 65_536).to_string(),
        );
    for (name, value) in &table.properties {
        config.set(name, value);
    }
    config
        .set("group.id", table.group.as_deref().unwrap_or("millrace"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that the log no longer holds is an error, never a silent jump.
        .set("auto.offset.reset", "error")
        // The broker's own statement that a reader stands at the end.
        .set("enable.partition.eof", "true");
    config
}
