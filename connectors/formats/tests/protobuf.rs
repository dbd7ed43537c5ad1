//! Protocol Buffers against a second implementation, `prost-reflect`: the same message as JSON is the same row.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type, Schema, TimeUnit};
use formats::{Decoder, Decoding, Format, JsonOptions, ProtobufFraming, ProtobufOptions, UnknownFields};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

fn proto(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protobuf").join(name)
}

fn reading() -> MessageDescriptor {
    let mut compiler = protox::Compiler::new([proto("")]).unwrap();
    compiler.include_imports(true).open_file("plant.proto").unwrap();
    compiler.descriptor_pool().get_message_by_name("plant.v1.Reading").unwrap()
}

fn options(framing: ProtobufFraming) -> ProtobufOptions {
    ProtobufOptions::of_file(&proto("plant.proto"), Some("plant.v1.Reading"), framing).unwrap()
}

fn decoder(columns: Fields, framing: ProtobufFraming) -> Decoder {
    let decoding = Decoding { format: Format::Protobuf, protobuf: Some(options(framing)), ..Decoding::default() };
    Decoder::of(Arc::new(Schema::new(columns)), &decoding, None, Arc::new(|| {})).expect("the table can be read")
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

fn raw(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
        .with_metadata([("ARROW:extension:name".to_string(), "arrow.json".to_string())].into())
}

fn list(of: Field) -> DataType {
    DataType::List(Arc::new(of))
}

fn map(value: Field) -> DataType {
    let parts = Fields::from(vec![Field::new("key", DataType::Utf8, false), value]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(parts), false)), false)
}

fn columns() -> Fields {
    let inner = DataType::Struct(Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("at", instant(), true),
        Field::new("rest", list(raw("item")), true),
    ]));
    vec![
        Field::new("levels", map(Field::new("value", DataType::Float64, true)), true),
        Field::new("id", DataType::Utf8, false),
        Field::new("int", DataType::Int32, true),
        Field::new("long", DataType::Int64, true),
        Field::new("huge", DataType::UInt64, true),
        Field::new("double", DataType::Float64, true),
        Field::new("single", DataType::Float32, true),
        Field::new("yes", DataType::Boolean, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("unit", DataType::Utf8, true),
        Field::new("at", instant(), true),
        Field::new("maybe", DataType::Float64, true),
        Field::new("inner", inner.clone(), true),
        Field::new("numbers", list(Field::new("item", DataType::Int64, true)), true),
        Field::new("words", list(Field::new("item", DataType::Utf8, true)), true),
        Field::new("inners", list(Field::new("item", inner.clone(), true)), true),
        Field::new("choice", DataType::Int32, true),
        raw("raw"),
        Field::new("by_number", map(Field::new("value", inner, true)), true),
        Field::new("device_id", DataType::Utf8, true),
        Field::new("unpacked", list(Field::new("item", DataType::Float64, true)), true),
        Field::new("left", DataType::Utf8, true),
        Field::new("right", DataType::Int64, true),
    ]
    .into()
}

fn some_inner(random: &mut StdRng, depth: usize) -> Value {
    let rest: Vec<Value> = match depth {
        0 => vec![],
        _ => (0..random.random_range(0..3)).map(|_| some_inner(random, depth - 1)).collect(),
    };
    json!({"a": random.random::<i64>(), "at": some_time(random), "rest": rest})
}

fn some_time(random: &mut StdRng) -> Value {
    format!("19{:02}-11-22T10:11:12.{:09}Z", random.random_range(10..99), random.random_range(0..100_000_000) * 10 + 7)
        .into()
}

fn some_message(random: &mut StdRng) -> Value {
    let mut message = json!({
        "id": "aü".repeat(random.random_range(0..20)),
        "int": random.random::<i32>(),
        "long": random.random::<i64>(),
        "huge": random.random::<u64>(),
        "double": random.random::<f64>(),
        "single": random.random::<f32>(),
        "yes": random.random_bool(0.5),
        "bytes": (["", "AP8=", "aGVsbG8="][random.random_range(0..3)]),
        "unit": (["UNIT_UNKNOWN", "UNIT_CELSIUS", "UNIT_FAHRENHEIT"][random.random_range(0..3)]),
        "numbers": (0..random.random_range(0..5)).map(|_| random.random::<i64>()).collect::<Vec<_>>(),
        "words": (0..random.random_range(0..5)).map(|n| "w".repeat(n)).collect::<Vec<_>>(),
        "inners": (0..random.random_range(0..3)).map(|_| some_inner(random, 2)).collect::<Vec<_>>(),
        "levels": (0..random.random_range(0..2)).map(|n| (format!("k{n}"), random.random::<f64>())).collect::<std::collections::BTreeMap<_, _>>(),
        "by_number": (0..random.random_range(0..2)).map(|n| (n.to_string(), some_inner(random, 1))).collect::<std::collections::BTreeMap<_, _>>(),
        "device_id": "d",
        "unpacked": (0..random.random_range(0..3)).map(|_| random.random::<f64>()).collect::<Vec<_>>(),
    });
    let optional: [(&str, Value); 6] = [
        ("at", some_time(random)),
        ("maybe", random.random::<f64>().into()),
        ("inner", some_inner(random, 2)),
        ("choice", 0.into()),
        ("raw", some_inner(random, 2)),
        if random.random_bool(0.5) { ("left", "".into()) } else { ("right", 0.into()) },
    ];
    for (name, value) in optional {
        if random.random_bool(0.7) {
            message[name] = value;
        }
    }
    message
}

/// The bytes of a message that JSON tells.
fn encoded(of: &MessageDescriptor, message: &Value) -> Vec<u8> {
    DynamicMessage::deserialize(of.clone(), message).unwrap().encode_to_vec()
}

/// JSON text is compared by what it says.
fn texts(batch: &RecordBatch) -> Vec<Value> {
    let mut lines = vec![];
    formats::json_lines(batch, &mut lines).unwrap();
    let fills = |value: &mut Value| {
        // A field that has no presence is left out of canonical JSON where it is empty.
        if let Some(object) = value.as_object_mut() {
            object.retain(|_, value| *value != json!([]));
        }
    };
    let lines = String::from_utf8(lines).unwrap();
    lines
        .lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            each_object(&mut row, &fills);
            row
        })
        .collect()
}

fn each_object(value: &mut Value, change: &dyn Fn(&mut Value)) {
    // An item of a list that is JSON is written as text.
    if let Value::String(text) = value
        && text.starts_with('{')
    {
        *value = serde_json::from_str(text).unwrap();
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| each_object(field, change)),
        Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, change)),
        _ => {}
    }
    change(value);
}

#[test]
fn a_message_is_the_row_that_its_json_is() {
    let (of, columns) = (reading(), columns());
    let schema = Arc::new(Schema::new(columns.clone()));
    for seed in 0..10 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut as_json = Decoder::new(schema.clone(), Format::Json, JsonOptions::default(), None).unwrap();
        let mut ours = decoder(columns.clone(), ProtobufFraming::Bare);
        for _ in 0..50 {
            let message = some_message(random);
            as_json.push(message.to_string().as_bytes(), None).unwrap();
            assert_eq!(ours.push(&encoded(&of, &message), None), Ok(1));
        }
        let (ours, as_json) = (ours.finish().unwrap(), as_json.finish().unwrap());
        for (ours, as_json) in texts(&ours).iter().zip(texts(&as_json)) {
            assert_eq!(*ours, as_json, "seed {seed}");
        }
    }
}

#[test]
fn a_field_that_is_not_there_is_its_default_where_its_type_cannot_tell_and_else_null() {
    let mut decoder = decoder(columns(), ProtobufFraming::Bare);
    assert_eq!(decoder.push(b"", None), Ok(1));
    let row = decoder.finish().unwrap();
    let column = |name: &str| row.column_by_name(name).unwrap();
    assert_eq!(column("id").as_string::<i32>().value(0), "");
    assert_eq!(column("int").as_primitive::<Int32Type>().value(0), 0);
    assert_eq!(column("unit").as_string::<i32>().value(0), "UNIT_UNKNOWN");
    assert_eq!(column("words").as_list::<i32>().value(0).len(), 0);
    for absent in ["at", "maybe", "inner", "choice", "raw", "left", "right"] {
        assert!(column(absent).is_null(0), "{absent}");
    }
}

#[test]
fn the_last_value_counts_and_a_message_in_parts_is_whole() {
    let columns = Fields::from(vec![
        Field::new("int", DataType::Int32, true),
        Field::new("maybe", DataType::Float64, true),
        Field::new("numbers", list(Field::new("item", DataType::Int64, true)), true),
        Field::new("deviceId", DataType::Utf8, true),
    ]);
    let mut decoder = decoder(columns, ProtobufFraming::Bare);
    let part = |value: f64| [&[0x5a, 9, 9][..], &value.to_le_bytes()].concat();
    let payload = [
        &[0x10, 1, 0x10, 2][..],
        &part(1.5),
        &part(2.5),
        // Three in one, and one by itself.
        &[0x6a, 3, 1, 2, 3, 0x68, 4],
        // By the name that its JSON has.
        &[0xa2, 0x01, 1, b'd'],
        // A field that nobody knows, as a group.
        &[0xa3, 0x06, 0x08, 1, 0xa4, 0x06],
    ];
    assert_eq!(decoder.push(&payload.concat(), None), Ok(1));
    let row = decoder.finish().unwrap();
    assert_eq!(row.column(0).as_primitive::<Int32Type>().value(0), 2);
    assert_eq!(row.column(1).as_primitive::<Float64Type>().value(0), 2.5);
    assert_eq!(row.column(2).as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[1, 2, 3, 4]);
    assert_eq!(row.column(3).as_string::<i32>().value(0), "d");
}

#[test]
fn a_payload_that_is_cut_or_changed_is_refused_or_read_and_leaves_its_neighbours_alone() {
    let (of, random) = (reading(), &mut StdRng::seed_from_u64(3));
    let payloads: Vec<Vec<u8>> = (0..40).map(|_| encoded(&of, &some_message(random))).collect();
    let mut decoder = decoder(columns(), ProtobufFraming::Bare);
    let (mut refused, mut rows) = (0, 0);
    for round in 0..4_000 {
        let mut payload = payloads[round % payloads.len()].clone();
        match random.random_range(0..2) {
            0 => payload.truncate(random.random_range(0..payload.len())),
            _ => {
                let at = random.random_range(0..payload.len());
                payload[at] = random.random();
            }
        }
        match decoder.push(&payload, None) {
            Ok(taken) => rows += taken,
            Err(_) => refused += 1,
        }
        rows += decoder.push(&payloads[round % payloads.len()], None).unwrap();
        if round % 100 == 99 {
            assert_eq!(decoder.finish().unwrap().num_rows(), rows);
            rows = 0;
        }
    }
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn messages_stand_behind_their_lengths_or_behind_the_frame_of_a_registry() {
    let columns = || Fields::from(vec![Field::new("int", DataType::Int32, true)]);
    let mut delimited = decoder(columns(), ProtobufFraming::Delimited);
    assert_eq!(delimited.push(&[2, 0x10, 1, 0, 2, 0x10, 3], None), Ok(3));
    assert_eq!(delimited.push(&[5, 0x10], None).unwrap_err().error, "byte 1: 5 bytes are expected, and 1 are left");
    assert_eq!(delimited.finish().unwrap().column(0).as_primitive::<Int32Type>().values(), &[1, 0, 3]);

    // `Reading` is the second message of its file: a list of one place, the place 1.
    let mut framed = decoder(columns(), ProtobufFraming::Confluent);
    assert_eq!(framed.push(&[0, 0, 0, 0, 9, 2, 2, 0x10, 7], None), Ok(1));
    let refused = framed.push(&[0, 0, 0, 0, 9, 0, 0x10, 7], None).unwrap_err();
    assert_eq!((refused.code, refused.error.contains("at place [0] of its schema")), ("unknown-schema", true));
    assert_eq!(framed.push(&[0x10, 7], None).unwrap_err().code, "not-protobuf");
}

#[test]
fn what_cannot_be_read_is_said_with_what_there_is() {
    let of = |file: &str, message| {
        ProtobufOptions::of_file(&proto(file), message, ProtobufFraming::Bare).map(drop).unwrap_err()
    };
    assert_eq!(
        of("plant.proto", None),
        "protobuf.message is to say which message; there are plant.v1.Other, plant.v1.Reading, plant.v1.Reading.Inner"
    );
    assert!(of("plant.proto", Some("plant.v1.Nobody")).starts_with("there is no message plant.v1.Nobody; there are"));
    assert!(of("nowhere.desc", None).contains("cannot be read"));
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.proto");
    std::fs::write(&broken, "syntax = \"proto3\";\nmessage A { strin id = 1; }\n").unwrap();
    let error = ProtobufOptions::of_file(&broken, None, ProtobufFraming::Bare).map(drop).unwrap_err();
    assert!(error.contains("strin"), "{error}");
    let descriptors = folder.path().join("plant.desc");
    let pool: &DescriptorPool = &reading().parent_pool().clone();
    std::fs::write(&descriptors, pool.encode_to_vec()).unwrap();
    ProtobufOptions::of_file(&descriptors, Some("plant.v1.Reading"), ProtobufFraming::Bare).unwrap();
}

#[test]
fn a_value_that_its_column_cannot_take_is_refused_and_unknown_fields_are_counted() {
    let columns = Fields::from(vec![Field::new("id", DataType::Int64, true), Field::new("nmae", DataType::Utf8, true)]);
    let json = JsonOptions { unknown: UnknownFields::Warn, ..JsonOptions::default() };
    let protobuf = Some(options(ProtobufFraming::Bare));
    let decoding = Decoding { format: Format::Protobuf, json, protobuf, ..Decoding::default() };
    let mut decoder = Decoder::of(Arc::new(Schema::new(columns)), &decoding, None, Arc::new(|| {})).unwrap();
    let refused = decoder.push(&[0x0a, 1, b'x'], None).unwrap_err();
    assert_eq!(refused.error, "id: found the text \"x\", expected Int64");
    let refused = decoder.push(&[0x08, 1], None).unwrap_err();
    assert!(refused.error.contains("field 1 is a string, and is not written as one"), "{}", refused.error);
    let columns =
        Fields::from(vec![Field::new("int", DataType::Int32, true), Field::new("nmae", DataType::Utf8, true)]);
    let mut decoder = Decoder::of(Arc::new(Schema::new(columns)), &decoding, None, Arc::new(|| {})).unwrap();
    decoder.push(&[0x10, 1], None).unwrap();
    let observed = decoder.observed().unwrap();
    assert_eq!((observed.columns["int"], observed.columns["nmae"]), (1, 0));
    assert_eq!(observed.unknown["numbers"], (1, "repeated int64".to_string()));
}
