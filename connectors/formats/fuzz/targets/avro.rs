//! Whatever bytes come, as values, containers and schemas: no panic, no standing still, and each payload is whole rows or none.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use formats::{AvroFraming, AvroOptions, Decoder, Decoding, Format};

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "id", "type": "string"},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "list", "type": {"type": "array", "items": ["null", "double"]}},
    {"name": "map", "type": {"type": "map", "values": {"type": "fixed", "name": "F", "size": 3}}},
    {"name": "tree", "type": {"type": "record", "name": "Tree", "fields": [
        {"name": "n", "type": "int"}, {"name": "rest", "type": ["null", "Tree"]}]}},
    {"name": "skipped", "type": {"type": "array", "items": "Tree"}}]}"#;

fn columns() -> Schema {
    let json = [("ARROW:extension:name".to_string(), "arrow.json".to_string())];
    Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true),
        Field::new("price", DataType::Decimal128(14, 4), true),
        Field::new("list", DataType::new_list(DataType::Float64, true), true),
        Field::new("map", DataType::Utf8, true).with_metadata(json.clone().into()),
        Field::new("tree", DataType::Utf8, true).with_metadata(json.into()),
    ])
}

pub type Input<'a> = (bool, Vec<&'a [u8]>);

pub fn check(input: Input<'_>) {
    let (framing, schema) = match input.0 {
        true => (AvroFraming::Container, None),
        false => (AvroFraming::Bare, Some(SCHEMA.to_string())),
    };
    let avro = AvroOptions { framing, schema, registry: None };
    let decoding = Decoding { format: Format::Avro, avro, ..Decoding::default() };
    let mut decoder = Decoder::of(Arc::new(columns()), &decoding, None, Arc::new(|| {})).unwrap();
    let rows: usize = input.1.iter().map(|payload| decoder.push(payload, None).unwrap_or(0)).sum();
    assert_eq!(decoder.finish().unwrap().num_rows(), rows);
}
