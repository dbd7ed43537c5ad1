//! Rows of every type that a table may have.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use formats::{Decoder, Format, JsonOptions};
use rand::Rng;
use rand::rngs::StdRng;

pub fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// Columns of each type, nested ones too.
pub fn columns() -> Fields {
    let json = Field::new("raw", DataType::Utf8, true)
        .with_metadata([("ARROW:extension:name".to_string(), "arrow.json".to_string())].into());
    let inner = Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("at", instant(), true),
        Field::new("words", DataType::new_list(DataType::Utf8, true), true),
    ]);
    let entry =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Float64, true)]);
    vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("yes", DataType::Boolean, true),
        Field::new("tiny", DataType::Int8, true),
        Field::new("int", DataType::Int32, false),
        Field::new("long", DataType::Int64, true),
        Field::new("huge", DataType::UInt64, true),
        Field::new("single", DataType::Float32, true),
        Field::new("double", DataType::Float64, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", instant(), true),
        Field::new("wall", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("price", DataType::Decimal128(20, 4), true),
        json,
        Field::new("inner", DataType::Struct(inner.clone()), true),
        Field::new("list", DataType::List(Arc::new(Field::new("item", DataType::Struct(inner), true))), true),
        Field::new("map", DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false), true),
    ]
    .into()
}

/// A value of a type, as JSON that the decoder of JSON reads.
fn some_json(of: &Field, random: &mut StdRng) -> serde_json::Value {
    use serde_json::{Value, json};
    if of.is_nullable() && random.random_bool(0.2) {
        return Value::Null;
    }
    let nanos = || 1_795_305_600_000_000_000_i64;
    match of.data_type() {
        DataType::Utf8 if of.name() == "raw" => match random.random_range(0..3) {
            0 => json!({"z": [1.50, "ü"], "a": 1}),
            1 => json!("a \"text\""),
            _ => json!(7),
        },
        DataType::Utf8 => "aü\"\\\n".repeat(random.random_range(0..30)).into(),
        DataType::Boolean => random.random_bool(0.5).into(),
        DataType::Int8 => random.random::<i8>().into(),
        DataType::Int32 => random.random::<i32>().into(),
        DataType::Int64 => (random.random::<i64>() >> random.random_range(0..64)).into(),
        DataType::UInt64 => random.random::<u64>().into(),
        DataType::Float32 => f64::from(random.random::<f32>()).into(),
        DataType::Float64 => random.random::<f64>().into(),
        DataType::Binary => ["", "AP8=", "aGVsbG8="][random.random_range(0..3)].into(),
        DataType::Date32 => format!("20{:02}-02-28", random.random_range(0..99)).into(),
        DataType::Timestamp(..) => {
            let at = nanos() + random.random_range(0..1_000_000_000) * 1_000;
            format!("2026-11-22T10:11:12.{:06}Z", at / 1000 % 1_000_000).into()
        }
        DataType::Decimal128(..) => {
            serde_json::from_str(&format!("{}.{:04}", random.random::<i32>(), random.random_range(0..10_000))).unwrap()
        }
        DataType::Struct(fields) => {
            fields.iter().map(|field| (field.name().clone(), some_json(field, random))).collect()
        }
        DataType::List(item) => (0..random.random_range(0..4)).map(|_| some_json(item, random)).collect(),
        DataType::Map(entry, _) => {
            let DataType::Struct(parts) = entry.data_type() else { unreachable!() };
            (0..random.random_range(0..4)).map(|key| (format!("k{key}"), some_json(&parts[1], random))).collect()
        }
        other => panic!("{other}"),
    }
}

pub fn some_rows(columns: &Fields, rows: usize, random: &mut StdRng) -> RecordBatch {
    let schema = Arc::new(Schema::new(columns.clone()));
    let mut decoder = Decoder::new(schema, Format::Json, JsonOptions::default(), None).unwrap();
    for _ in 0..rows {
        let row: serde_json::Map<_, _> =
            columns.iter().map(|column| (column.name().clone(), some_json(column, random))).collect();
        // Text that is carried along stays as it is, its spaces too.
        let text = serde_json::Value::Object(row).to_string().replace("\"z\":", "\"z\" : ");
        decoder.push(text.as_bytes(), None).unwrap();
    }
    decoder.finish().unwrap()
}
