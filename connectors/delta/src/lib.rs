//! Delta Lake tables as sinks, exactly once: Parquet files are prepared, and shown by one log entry that carries a
//! `txn` of the writer and the job log entry's number.

mod azure;
mod cause;
mod checkpoint;
mod commit;
mod commit_times;
mod compaction;
mod declared;
mod deletion_vector;
mod encoding;
mod file_rows;
mod join;
mod joined_file;
mod log_cleanup;
mod lookup;
mod options;
mod parquet_file;
mod partitioning;
mod parts;
mod protocol;
mod reader;
mod schema;
mod shown;
mod sink;
mod state;
mod statistics;
mod store;
mod stored_file;
mod table_file;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unreliable;
mod upkeep;
mod upload;
mod uploads;
mod vacuum;
mod writer;

pub use encoding::Encodings;
pub use join::{Joined, LARGE_ENOUGH, LiveFile, join};
pub use options::DeltaConnector;
pub use parquet_file::DataFile;
pub use reader::{Commit, TableReader};
