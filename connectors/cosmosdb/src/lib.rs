//! Azure Cosmos DB containers as sinks.
