//! Whatever bytes come: no panic, no standing still, and each payload is whole rows or none.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use formats::{Decoder, Decoding, Format, ProtobufFraming, ProtobufOptions};

static OPTIONS: LazyLock<ProtobufOptions> = LazyLock::new(|| {
    let of_crate = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Those of the formats crate, whose tests come by here too, and of the fuzzers in it.
    let file = of_crate
        .ancestors()
        .map(|folder| folder.join("tests/protobuf/plant.proto"))
        .find(|file| file.exists())
        .unwrap();
    ProtobufOptions::of_file(&file, Some("plant.v1.Reading"), ProtobufFraming::Delimited).unwrap()
});

fn columns() -> Schema {
    let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let json = [("ARROW:extension:name".to_string(), "arrow.json".to_string())];
    let inner = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("at", instant.clone(), true)]);
    let entry =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Float64, true)]);
    Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("at", instant, true),
        Field::new("maybe", DataType::Float64, true),
        Field::new("numbers", DataType::new_list(DataType::Int64, true), true),
        Field::new("inners", DataType::new_list(DataType::Struct(inner), true), true),
        Field::new(
            "levels",
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false),
            true,
        ),
        Field::new("raw", DataType::Utf8, true).with_metadata(json.into()),
    ])
}

pub type Input<'a> = Vec<&'a [u8]>;

pub fn check(payloads: Input<'_>) {
    let decoding = Decoding { format: Format::Protobuf, protobuf: Some(OPTIONS.clone()), ..Decoding::default() };
    let mut decoder = Decoder::of(Arc::new(columns()), &decoding, None, Arc::new(|| {})).unwrap();
    let rows: usize = payloads.iter().map(|payload| decoder.push(payload, None).unwrap_or(0)).sum();
    assert_eq!(decoder.finish().unwrap().num_rows(), rows);
}
