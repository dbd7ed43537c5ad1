//! Azure Cosmos DB containers as sinks.

mod account;
mod container;
mod documents;
mod limiter;
mod options;
mod request;
mod shown;
mod sink;
mod trouble;
mod write;

#[cfg(test)]
mod tests;

pub use options::CosmosConnector;
