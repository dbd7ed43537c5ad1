//! A broker in the process, for a first look without any set-up. Keeps at most 5 MiB a partition and drops the oldest
//! silently: whoever feeds it watches the reader's positions.

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// librdkafka's mock cluster with one topic.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Unread bytes a partition at which the feeder must pause, well below what the broker keeps.
    pub const SAFE_BACKLOG: u64 = 3 << 20;

    pub fn start(topic: &str, partitions: i32) -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic(topic, partitions, 1)?;
        Ok(EmbeddedBroker { cluster })
    }

    /// `host:port`.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}
