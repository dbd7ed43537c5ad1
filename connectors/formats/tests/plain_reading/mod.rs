//! What a plain reading of a record by `serde_json` makes of it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use serde_json::Value;

pub fn schema() -> SchemaRef {
    let json = Field::new("raw", DataType::Utf8, true)
        .with_metadata([("ARROW:extension:name".to_string(), "arrow.json".to_string())].into());
    let nested = vec![
        Field::new("x", DataType::Float64, true),
        Field::new("deep", DataType::Struct(vec![Field::new("n", DataType::Int64, true)].into()), true),
    ];
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("x", DataType::Float64, true),
        Field::new("yes", DataType::Boolean, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true),
        Field::new("nested", DataType::Struct(nested.into()), true),
        Field::new("list", DataType::new_list(DataType::Int64, true), true),
        json,
    ]))
}

/// Whether every column can take its field of a record.
pub fn fits(record: &Value) -> bool {
    schema().fields().iter().all(|field| takes(record.get(field.name()).unwrap_or(&Value::Null), field))
}

/// Whether a row is this record.
pub fn is(batch: &RecordBatch, row: usize, record: &Value) -> bool {
    let mut columns = batch.schema_ref().fields().iter().zip(batch.columns());
    columns.all(|(field, column)| same(column, row, field, record.get(field.name()).unwrap_or(&Value::Null)))
}

fn takes(value: &Value, field: &Field) -> bool {
    if value.is_null() {
        return field.is_nullable();
    }
    match field.data_type() {
        DataType::Utf8 if field.name() == "raw" => true,
        DataType::Utf8 => value.is_string(),
        DataType::Int64 => {
            value.is_i64()
                || value
                    .as_f64()
                    .is_some_and(|f| !value.is_u64() && f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0)
        }
        DataType::Float64 => value.is_number(),
        DataType::Boolean => value.is_boolean(),
        DataType::Timestamp(..) => value.as_str().is_some_and(|s| formats::parse_instant(s).is_some()),
        DataType::Struct(fields) => {
            value.as_object().is_some_and(|o| fields.iter().all(|f| takes(o.get(f.name()).unwrap_or(&Value::Null), f)))
        }
        DataType::List(item) => value.as_array().is_some_and(|a| a.iter().all(|v| takes(v, item))),
        _ => false,
    }
}

fn same(column: &ArrayRef, row: usize, field: &Field, value: &Value) -> bool {
    if column.is_null(row) || value.is_null() {
        return column.is_null(row) && value.is_null();
    }
    match field.data_type() {
        DataType::Utf8 if field.name() == "raw" => {
            serde_json::from_str::<Value>(column.as_string::<i32>().value(row)).is_ok_and(|v| v == *value)
        }
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)) == value.as_str(),
        DataType::Int64 => {
            let found = column.as_primitive::<Int64Type>().value(row);
            value.as_i64().map_or(value.as_f64() == Some(found as f64), |n| n == found)
        }
        DataType::Float64 => {
            Some(column.as_primitive::<Float64Type>().value(row).to_bits()) == value.as_f64().map(f64::to_bits)
        }
        DataType::Boolean => Some(column.as_boolean().value(row)) == value.as_bool(),
        DataType::Timestamp(..) => {
            let found = column.as_primitive::<TimestampNanosecondType>().value(row);
            value.as_str().and_then(formats::parse_instant) == Some(found)
        }
        DataType::Struct(fields) => fields
            .iter()
            .zip(column.as_struct().columns())
            .all(|(field, column)| same(column, row, field, value.get(field.name()).unwrap_or(&Value::Null))),
        DataType::List(item) => {
            let items = column.as_list::<i32>().value(row);
            let values = value.as_array().map_or(&[][..], |a| a);
            items.len() == values.len() && values.iter().enumerate().all(|(i, v)| same(&items, i, item, v))
        }
        _ => false,
    }
}
