//! The registry: every connector that a job file may name.

use std::sync::Arc;

use engine::connector::Connector;

pub use files::{Blackhole, JsonLinesSink};

/// All connectors, in the order in which they are listed to people.
pub fn registry() -> Vec<Arc<dyn Connector>> {
    vec![
        Arc::new(kafka::KafkaConnector),
        Arc::new(kafka::EventHubsConnector),
        Arc::new(delta::DeltaConnector),
        Arc::new(files::FilesystemConnector),
        Arc::new(files::BlackholeConnector),
    ]
}
