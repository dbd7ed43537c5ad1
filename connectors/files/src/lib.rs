//! Files as sources and sinks, and the sinks that need no server.

mod adapt;
mod avro;
mod blackhole;
mod compression;
mod fetch;
mod file;
mod location;
mod lookup;
mod metadata;
mod options;
mod path_pattern;
mod prefetch;
mod refused;
mod row_reader;
mod shown;
mod single_file;
mod sink;
mod source;
mod stdout;
#[cfg(test)]
mod tests;
mod text_reader;

pub use blackhole::{Blackhole, BlackholeConnector};
pub use location::Location;
pub use options::FilesystemConnector;
pub use single_file::SingleFileConnector;
pub use sink::{FilesSink, SinkFormat};
pub use stdout::{Output, StdoutConnector};
