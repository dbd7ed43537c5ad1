//! Azure SQL Database and SQL Server tables as sinks.

mod connection;
mod judge;
mod lane;
mod options;
mod server;
mod shown;
mod sink;
mod staging;
mod statements;
mod target;
mod trouble;
mod types;
mod values;

pub use options::SqlServerConnector;
