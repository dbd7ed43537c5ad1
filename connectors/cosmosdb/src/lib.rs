//! Azure Cosmos DB containers: as sinks, and to look documents up in.

mod account;
mod body;
mod container;
mod documents;
mod limiter;
mod lookup;
mod options;
mod request;
mod search;
mod shown;
mod sink;
mod stored;
mod trouble;
mod write;

#[cfg(test)]
mod tests;

pub use options::CosmosConnector;
