//! Rows with a column of every type, and what any reader must find of them.

use arrow::json::ReaderBuilder;
use engine::connector::json_field;

use super::*;

/// A column of every type that a job can have and Delta keeps.
pub fn columns_of_every_type() -> Vec<Field> {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let instant = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let list = |of: DataType| DataType::List(Arc::new(Field::new("item", of, true)));
    let inner = vec![field("x", DataType::Int64), field("t", instant()), field("names", list(DataType::Utf8))];
    let item = DataType::Struct(vec![field("n", DataType::Int32)].into());
    let entry = vec![Field::new("keys", DataType::Utf8, false), field("values", DataType::Float64)];
    let entry = Field::new("entries", DataType::Struct(entry.into()), false);
    vec![
        Field::new("id", DataType::Utf8, false),
        field("flag", DataType::Boolean),
        field("b", DataType::Int8),
        field("s", DataType::Int16),
        field("i", DataType::Int32),
        field("l", DataType::Int64),
        field("u", DataType::UInt8),
        field("f", DataType::Float32),
        field("d", DataType::Float64),
        field("bytes", DataType::Binary),
        field("day", DataType::Date32),
        field("at", instant()),
        field("local", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        field("price", DataType::Decimal128(9, 2)),
        field("long_price", DataType::Decimal128(18, 4)),
        field("big", DataType::Decimal128(38, 10)),
        json_field("payload", true),
        field("text", DataType::Utf8),
        field("inner", DataType::Struct(inner.into())),
        field("items", list(item)),
        field("tags", DataType::Map(Arc::new(entry), false)),
    ]
}

/// Rows from their JSON.
pub fn rows_of(schema: &SchemaRef, rows: &[Value]) -> RecordBatch {
    let mut decoder = ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    decoder.flush().unwrap().unwrap()
}

/// The rows as they are written.
pub fn rows_of_every_type() -> Vec<Value> {
    vec![
        json!({"id": "full", "flag": true, "b": -128, "s": 32767, "i": -2147483648, "l": 9223372036854775807i64, "u": 255,
            "f": 1.5, "d": -2.25, "bytes": "00ff10", "day": "1969-12-31", "at": "2023-11-14T22:13:20.123456789Z",
            "local": "2024-02-29T23:59:59.999999", "price": "-1234567.89", "long_price": "12345678901234.5678",
            "big": "1234567890123456789012345678.0123456789", "payload": "{\"a\":[1,2]}", "text": "ü".repeat(100),
            "inner": {"x": 1, "t": "2023-11-14T22:13:20.123456789Z", "names": ["a", null]}, "items": [{"n": 1}, {"n": null}, null],
            "tags": {"k": 0.5, "z": null}}),
        json!({"id": "other", "flag": false, "b": 127, "s": -32768, "i": 2147483647, "l": i64::MIN, "u": 0,
            "f": -1.5, "d": 1024.5, "bytes": "", "day": "9999-12-31", "at": "1678-01-01T00:00:00Z",
            "local": "1969-12-31T23:59:59.000001", "price": "0.01", "long_price": "-0.0001", "big": "-0.0000000001",
            "payload": "1", "text": "", "inner": {"x": null, "t": null, "names": []}, "items": [], "tags": {}}),
        json!({"id": "nulls"}),
    ]
}

/// What readers find: microseconds, bytes in base64, an absent value as null.
pub fn as_read(row: &Value) -> Value {
    let mut read = row.clone();
    for field in columns_of_every_type() {
        let value = read.get(field.name()).cloned().unwrap_or(Value::Null);
        read[field.name()] = value;
    }
    match row["id"].as_str() {
        Some("full") => {
            read["bytes"] = json!("AP8Q");
            read["at"] = json!("2023-11-14T22:13:20.123456Z");
            read["inner"]["t"] = json!("2023-11-14T22:13:20.123456Z");
        }
        Some("other") => {
            read["bytes"] = json!("");
            read["at"] = json!("1678-01-01T00:00:00.000000Z");
        }
        _ => {}
    }
    read
}
