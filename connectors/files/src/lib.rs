//! Sinks that need no server: files of JSON lines, and nothing at all.

mod blackhole;
mod json_lines;

pub use blackhole::{Blackhole, BlackholeConnector};
pub use json_lines::{FilesystemConnector, JsonLinesSink};
