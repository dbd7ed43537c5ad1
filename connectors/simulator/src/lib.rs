//! The seed's telemetry simulator: the same event, the same schedule, the same duplicates, from a seed.

mod generator;

pub use generator::{Event, Generator, Settings, payload_hash};
