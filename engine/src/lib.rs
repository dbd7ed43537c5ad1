//! Runs a plan: reads splits, moves batches through chains of operators on worker threads, cuts consistent
//! checkpoints and publishes them in a job log, so that every event is shown once by every sink.
//!
//! The engine parses no SQL and names no outside system. A front end hands it a [`plan::Plan`]; connectors implement
//! [`source::Source`] and [`sink::Sink`].

pub mod causes;
pub mod clock;
pub mod committer;
pub mod computed;
pub mod connector;
pub mod dead_letter;
pub mod dedup;
pub mod durations;
pub mod environment;
pub mod inbox;
pub mod job;
pub mod job_log;
pub mod key;
pub mod lookup;
pub mod metrics;
pub mod observed;
pub mod patience;
pub mod plan;
pub mod publisher;
pub mod recovery;
pub mod routing;
pub mod shown;
pub mod sink;
pub mod source;
pub mod transform;
pub mod worker;
