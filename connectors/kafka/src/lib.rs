//! Kafka-protocol logs as sources: Apache Kafka, Redpanda, and Azure Event Hubs' Kafka endpoint.
//!
//! What is unsafe is in `queue`, `incarnation` and `owned`.

mod client;
mod embedded;
mod eventhubs;
mod identity;
mod incarnation;
mod metadata;
mod options;
mod owned;
mod producer;
mod queue;
mod reader;
mod source;
mod tls;
mod token;
mod topics;

pub use embedded::EmbeddedBroker;
pub use eventhubs::EventHubsConnector;
pub use options::KafkaConnector;
pub use producer::Producer;
pub use tls::keep_tls_at_exit;
pub use topics::{add_partitions, create_topic, delete_topic};
