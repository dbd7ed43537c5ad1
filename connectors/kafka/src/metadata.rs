//! Columns that hold what the log says about a record.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampNanosecondBuilder};
use arrow::datatypes::{DataType, FieldRef};

use crate::queue::Record;

/// One `METADATA FROM` column.
pub struct MetadataColumn {
    kind: Kind,
    values: Values,
    amqp: bool,
}

enum Kind {
    Timestamp,
    Partition,
    Offset,
    Topic(String),
    Key,
    Header(String),
}

enum Values {
    Int32(Int32Builder),
    Int64(Int64Builder),
    Time(TimestampNanosecondBuilder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

/// For people: what `METADATA FROM` may name.
pub const NAMES: &str = "timestamp, partition, offset, topic, key, headers.<name>";

impl MetadataColumn {
    pub fn new(name: &str, field: &FieldRef, topic: &str, amqp: bool) -> Result<Self, String> {
        let kind = match name {
            "timestamp" => Kind::Timestamp,
            "partition" => Kind::Partition,
            "offset" => Kind::Offset,
            "topic" => Kind::Topic(topic.to_string()),
            "key" => Kind::Key,
            _ => match name.strip_prefix("headers.") {
                Some(header) => Kind::Header(header.to_string()),
                None => return Err(format!("column {}: no metadata {name:?}; there are {NAMES}", field.name())),
            },
        };
        let values = match (&kind, field.data_type()) {
            (Kind::Timestamp, DataType::Timestamp(..)) => {
                Values::Time(TimestampNanosecondBuilder::new().with_data_type(field.data_type().clone()))
            }
            (Kind::Partition | Kind::Offset, DataType::Int32) => Values::Int32(Int32Builder::new()),
            (Kind::Partition | Kind::Offset | Kind::Timestamp, DataType::Int64) => Values::Int64(Int64Builder::new()),
            (Kind::Topic(_) | Kind::Key | Kind::Header(_), DataType::Utf8) => Values::Text(StringBuilder::new()),
            (Kind::Key | Kind::Header(_), DataType::Binary) => Values::Bytes(BinaryBuilder::new()),
            (_, other) => {
                return Err(format!("column {}: metadata {name:?} cannot have the type {other}", field.name()));
            }
        };
        Ok(MetadataColumn { kind, values, amqp })
    }

    /// A record became `rows` rows: each has the record's metadata.
    pub fn push(&mut self, record: &Record<'_>, rows: usize) {
        for _ in 0..rows {
            self.push_one(record);
        }
    }

    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Int32(b) => Arc::new(b.finish()),
            Values::Int64(b) => Arc::new(b.finish()),
            Values::Time(b) => Arc::new(b.finish()),
            Values::Text(b) => Arc::new(b.finish()),
            Values::Bytes(b) => Arc::new(b.finish()),
        }
    }

    fn push_one(&mut self, record: &Record<'_>) {
        match (&mut self.values, &self.kind) {
            (Values::Time(b), _) => b.append_option(record.millis().map(|m| m.saturating_mul(1_000_000))),
            (Values::Int64(b), Kind::Timestamp) => b.append_option(record.millis()),
            (Values::Int64(b), Kind::Offset) => b.append_value(record.offset()),
            (Values::Int64(b), _) => b.append_value(record.partition() as i64),
            (Values::Int32(b), Kind::Offset) => b.append_option(i32::try_from(record.offset()).ok()),
            (Values::Int32(b), _) => b.append_value(record.partition()),
            (Values::Text(b), Kind::Topic(topic)) => b.append_value(topic),
            (Values::Text(b), Kind::Header(name)) => b.append_option(header_text(record, name, self.amqp)),
            (Values::Text(b), _) => b.append_option(record.key().and_then(|k| std::str::from_utf8(k).ok())),
            (Values::Bytes(b), Kind::Header(name)) => b.append_option(header(record, name)),
            (Values::Bytes(b), _) => b.append_option(record.key()),
        }
    }
}

fn header<'a>(record: &'a Record<'_>, name: &str) -> Option<&'a [u8]> {
    record.headers().find(|(key, _)| *key == name)?.1
}

pub fn header_text(record: &Record<'_>, name: &str, amqp: bool) -> Option<String> {
    text_of(header(record, name)?, amqp)
}

/// The text that a header's value is. `amqp`: it may have come by that protocol, which writes it in its own way.
pub fn text_of(value: &[u8], amqp: bool) -> Option<String> {
    if amqp && let Some(text) = amqp_text(value) {
        return Some(text);
    }
    std::str::from_utf8(value).ok().map(String::from)
}

/// The text of an AMQP 1.0 primitive, by its type code (AMQP 1.0 part 1, section 1.6). `None` for any other bytes.
fn amqp_text(bytes: &[u8]) -> Option<String> {
    let (code, rest) = bytes.split_first()?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(String::from);
    match (code, rest) {
        (0x40, []) => Some(String::new()),
        (0x41, []) => Some("true".into()),
        (0x42, []) => Some("false".into()),
        (0x56, [b]) => Some((*b != 0).to_string()),
        (0x43 | 0x44, []) => Some("0".into()),
        (0x50, [b]) | (0x52, [b]) | (0x53, [b]) => Some(b.to_string()),
        (0x51, [b]) | (0x54, [b]) | (0x55, [b]) => Some((*b as i8).to_string()),
        (0x60, _) => Some(u16::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0x61, _) => Some(i16::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0x70, _) => Some(u32::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0x71, _) => Some(i32::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0x80, _) => Some(u64::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0x81 | 0x83, _) => Some(i64::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0x72, _) => Some(f32::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0x82, _) => Some(f64::from_be_bytes(rest.try_into().ok()?).to_string()),
        (0xa1 | 0xa3, [length, body @ ..]) if body.len() == *length as usize => text(body),
        (0xb1 | 0xb3, [a, b, c, d, body @ ..]) if u32::from_be_bytes([*a, *b, *c, *d]) as usize == body.len() => {
            text(body)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::amqp_text;

    #[test]
    fn amqp_values_are_read_by_their_type_code() {
        assert_eq!(amqp_text(b"\xa1\x05hello"), Some("hello".into()));
        assert_eq!(amqp_text(&[0x71, 0xff, 0xff, 0xff, 0xfe]), Some("-2".into()));
        assert_eq!(amqp_text(&[0x41]), Some("true".into()));
        assert_eq!(amqp_text(b"hello"), None);
        assert_eq!(amqp_text(b"\xa1\x09hello"), None);
    }
}
