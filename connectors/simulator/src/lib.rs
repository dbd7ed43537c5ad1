//! The event simulator of the solutions, seeded, as a generator and as a source, and the check of what a table made of its events.

mod bounds;
mod generator;
mod random;
mod source;
mod stored;
mod verification;

pub use bounds::{Bounds, Kept};
pub use generator::{Event, Generator, Settings};
pub use source::SimulatorConnector;
pub use stored::{Stored, StoredReport};
pub use verification::{Latency, Report, Throughput, Verification};
