//! Kafka-protocol logs as sources: Apache Kafka, Redpanda, and Azure Event Hubs' Kafka endpoint.
//!
//! What is unsafe is in `queue`, `described`, `owned` and one call of `sending`.

mod care;
mod client;
mod described;
mod embedded;
mod endpoint;
mod entry;
mod eventhubs;
mod format;
mod messages;
mod metadata;
mod options;
mod owned;
mod producer;
mod queue;
mod read_back;
mod reader;
mod resending;
mod rights;
mod sending;
mod shown;
mod sink;
mod source;
mod tls;
mod topics;
mod transactions;
mod trouble;

pub use embedded::EmbeddedBroker;
pub use eventhubs::EventHubsConnector;
pub use options::KafkaConnector;
pub use producer::Producer;
pub use tls::keep_tls_at_exit;
pub use topics::{add_partitions, create_topic, delete_topic};
