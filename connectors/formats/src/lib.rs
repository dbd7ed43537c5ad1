//! Payloads into Arrow rows, and rows into lines. Depends on Arrow and a few small crates, so that its benches and fuzzers build fast.

mod avro;
mod chunk;
mod column;
mod compression;
mod csv;
mod decoder;
mod encoded;
mod infer;
mod layout;
mod number;
mod observed;
mod protobuf;
mod record;
mod reject;
mod scanner;
mod schemas;
mod structure;
mod timed;
mod timestamp;
mod unwritable;
mod varint;
mod write;

pub use avro::{AvroCodec, AvroFraming, AvroOptions, AvroTimes, AvroWriter, avro_fingerprint};
pub use compression::Compression;
pub use csv::{CsvDecoder, CsvOptions, CsvRecord, CsvWriter};
pub use decoder::{Decoder, Decoding, Format, JsonOptions, Message, Taken, UnknownFields};
pub use encoded::EncodedRows;
pub use infer::{InferredColumn, infer, quoted};
pub use observed::{OBSERVED_ROWS, Observed};
pub use protobuf::{ProtobufFraming, ProtobufOptions};
pub use reject::Reject;
pub use schemas::{Found, RegisteredSchema, SchemaId, SchemaKind, Schemas, Wake};
pub use timed::Timed;
pub use timestamp::parse_instant;
pub use unwritable::unwritable;
pub use write::{json_lines, json_lines_with_nulls, json_rows};
