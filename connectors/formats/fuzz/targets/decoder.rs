//! Whatever bytes come: no panic, columns of one length, and the records before and after keep their values.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use formats::{Decoder, Format, JsonOptions, UnknownFields};

fn fields() -> Vec<Field> {
    let pair = DataType::Struct(
        vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)].into(),
    );
    let nested =
        vec![Field::new("x", DataType::Float64, true), Field::new("l", DataType::new_list(DataType::Utf8, true), true)];
    vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("b", DataType::Binary, true),
        Field::new("nested", DataType::Struct(nested.into()), true),
        Field::new("list", DataType::new_list(DataType::Int64, true), true),
        Field::new("map", DataType::Map(Arc::new(Field::new("entries", pair, false)), false), true),
        Field::new("raw", DataType::Utf8, true)
            .with_metadata([("ARROW:extension:name".into(), "arrow.json".into())].into()),
    ]
}

/// Payloads with a zero between two.
pub type Input<'a> = &'a [u8];

pub fn check(input: Input<'_>) {
    let payloads: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
    let options =
        JsonOptions { lenient: payloads.len().is_multiple_of(2), unknown: UnknownFields::Warn, declared: vec![] };
    let mut decoder = Decoder::new(Arc::new(Schema::new(fields())), Format::Json, options, None).unwrap();
    let mut rows = decoder.push(br#"{"id":"before","list":[1,2]}"#, None).unwrap();
    rows += payloads.iter().map(|payload| decoder.push(payload, Some(0)).unwrap_or(0)).sum::<usize>();
    rows += decoder.push(br#"{"id":"after","list":[3,4]}"#, None).unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.num_rows(), rows);
    for (row, id, list) in [(0, "before", [1, 2]), (rows - 1, "after", [3, 4])] {
        assert_eq!(batch.column(0).as_string::<i32>().value(row), id);
        assert_eq!(batch.column(6).as_list::<i32>().value(row).as_primitive::<Int64Type>().values(), &list);
    }
}
