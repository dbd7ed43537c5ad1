//! Payloads into Arrow rows. Depends on Arrow and serde only, so that its benches and fuzzers build fast.

mod column;
mod decoder;
mod infer;
mod timestamp;

pub use decoder::{Decoder, Format, JsonOptions, Reject, UnknownFields};
pub use infer::{InferredColumn, infer};
pub use timestamp::parse_instant;
