//! The event simulator of the solutions, seeded, and the check of what a table made of its events.

mod generator;
mod random;
mod verification;

pub use generator::{Event, Generator, Settings};
pub use verification::{Latency, Report, Throughput, Verification};
