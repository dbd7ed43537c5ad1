//! Azure SQL Database and SQL Server tables: as sinks, and to look rows up in.

mod catalog;
mod cells;
mod connection;
mod judge;
mod keys;
mod lane;
mod lookup;
mod options;
mod pool;
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
