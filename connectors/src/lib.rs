//! The registry: every connector that a job file may name.

use std::sync::Arc;

use engine::connector::Connector;

pub use files::{Blackhole, FilesSink, Location, Output, SinkFormat};

/// All connectors, in the order in which they are listed to people. `output`: where tables of `stdout` are printed.
pub fn registry(output: Output) -> Vec<Arc<dyn Connector>> {
    vec![
        Arc::new(kafka::KafkaConnector),
        Arc::new(kafka::EventHubsConnector),
        Arc::new(delta::DeltaConnector),
        Arc::new(cosmosdb::CosmosConnector),
        Arc::new(sqlserver::SqlServerConnector),
        Arc::new(files::FilesystemConnector),
        Arc::new(files::SingleFileConnector),
        Arc::new(simulator::SimulatorConnector),
        Arc::new(files::StdoutConnector { output }),
        Arc::new(files::BlackholeConnector),
    ]
}
