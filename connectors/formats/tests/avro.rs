//! Avro against a second implementation, `arrow-avro`, and against files that a third wrote.

use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, Schema, TimestampNanosecondType};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm};
use formats::{
    AvroFraming, AvroOptions, AvroTimes, AvroWriter, Decoder, Decoding, Format, Found, JsonOptions, Message,
    RegisteredSchema, SchemaId, SchemaKind, Schemas, Taken, UnknownFields, Wake,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::rows::{columns, instant, some_rows};

mod rows;

fn decoder(columns: Fields, avro: AvroOptions) -> Decoder {
    let decoding = Decoding { format: Format::Avro, avro, ..Decoding::default() };
    Decoder::of(Arc::new(Schema::new(columns)), &decoding, None, Arc::new(|| {})).expect("the table can be read")
}

fn bare(schema: &str) -> AvroOptions {
    AvroOptions { framing: AvroFraming::Bare, schema: Some(schema.into()), registry: None }
}

fn messages(writer: &AvroWriter, batch: &RecordBatch, together: usize) -> Vec<Vec<u8>> {
    let rows = writer.rows(batch).unwrap();
    let message = |from: usize| {
        let to = (from + together).min(batch.num_rows());
        writer.message(to - from, rows.between(from, to)).into_owned()
    };
    (0..batch.num_rows()).step_by(together).map(message).collect()
}

#[test]
fn what_is_written_is_read_as_it_was_in_every_framing() {
    let columns = columns();
    for seed in 0..20 {
        let random = &mut StdRng::seed_from_u64(seed);
        let batch = some_rows(&columns, 50, random);
        for framing in [AvroFraming::Bare, AvroFraming::SingleObject, AvroFraming::Container] {
            let writer = AvroWriter::new(&columns, "plant.Reading", AvroTimes::Micros, framing).unwrap();
            let options = AvroOptions { framing, schema: Some(writer.schema().into()), registry: None };
            let mut decoder = decoder(columns.clone(), options);
            let together = if writer.joins() { 7 } else { 1 };
            let encoded = messages(&writer, &batch, together);
            for message in &encoded {
                let rows = decoder.push(message, None).unwrap();
                assert!((1..=together).contains(&rows));
            }
            let read = decoder.finish().unwrap();
            for (column, field) in columns.iter().enumerate() {
                let (read, wrote) = (read.column(column), batch.column(column));
                assert_eq!(read, wrote, "{}, seed {seed}, {framing:?}", field.name());
            }
        }
    }
}

#[test]
fn a_payload_that_is_cut_or_changed_is_refused_or_read_and_leaves_its_neighbours_alone() {
    let columns = columns();
    let random = &mut StdRng::seed_from_u64(7);
    let batch = some_rows(&columns, 40, random);
    let writer = AvroWriter::new(&columns, "Reading", AvroTimes::Micros, AvroFraming::Bare).unwrap();
    let encoded = messages(&writer, &batch, 1);
    let mut decoder = decoder(columns.clone(), bare(writer.schema()));
    let (mut refused, mut good, mut rows) = (0, 0, 0);
    for round in 0..2_000 {
        let row = round % encoded.len();
        let mut payload = encoded[row].clone();
        match random.random_range(0..3) {
            0 => payload.truncate(random.random_range(0..payload.len())),
            1 => {
                let at = random.random_range(0..payload.len());
                payload[at] = random.random();
            }
            _ => payload.extend(std::iter::repeat_n(0, random.random_range(1..5))),
        }
        match decoder.push(&payload, None) {
            Ok(_) => rows += 1,
            Err(reject) => {
                assert!(!reject.error.is_empty());
                refused += 1;
            }
        }
        good += decoder.push(&encoded[row], None).unwrap();
        if round % 100 == 99 {
            let batch = decoder.finish().unwrap();
            assert_eq!(batch.num_rows(), good + rows);
            (good, rows) = (0, 0);
        }
    }
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn fingerprints_and_canonical_forms_are_those_of_another_implementation() {
    let nested = r#"{"type": "record", "name": "R", "namespace": "x.y", "doc": "d", "fields": [
        {"name": "u", "type": ["null", {"type": "enum", "name": "E", "symbols": ["A", "B"]}], "default": null},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 4}},
        {"name": "l", "type": {"type": "array", "items": {"type": "map", "values": "x.y.E"}}},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
    for schema in [r#""int""#, r#""string""#, nested] {
        let theirs = AvroSchema::new(schema.into()).fingerprint(FingerprintAlgorithm::Rabin).unwrap();
        let Fingerprint::Rabin(theirs) = theirs else { panic!("{theirs:?}") };
        assert_eq!(formats::avro_fingerprint(schema).unwrap(), theirs, "{schema}");
    }
}

/// Written by fastavro, with every type of Avro: 200 orders.
fn orders(codec: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../files/src/tests/avro").join(codec);
    std::fs::read(file).expect("the files of another crate's tests")
}

#[test]
fn containers_that_another_writer_wrote_are_read_in_each_codec() {
    let line = Fields::from(vec![
        Field::new("count", DataType::Int64, true),
        Field::new("sku", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
    ]);
    let json = |name: &str| {
        Field::new(name, DataType::Utf8, true)
            .with_metadata([("ARROW:extension:name".to_string(), "arrow.json".to_string())].into())
    };
    let columns = Fields::from(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("kind", DataType::Utf8, true),
        Field::new("at", instant(), true),
        Field::new("day", DataType::Date32, true),
        Field::new("price", DataType::Decimal128(12, 3), true),
        Field::new("digest", DataType::Binary, true),
        Field::new("lines", DataType::List(Arc::new(Field::new("item", DataType::Struct(line), true))), true),
        json("gift"),
        json("tags"),
        Field::new("never", DataType::Utf8, true),
    ]);
    let mut read = vec![];
    for codec in ["null.avro", "deflate.avro", "snappy.avro", "zstandard.avro"] {
        let mut decoder = decoder(columns.clone(), AvroOptions::default());
        assert_eq!(decoder.push(&orders(codec), None), Ok(200), "{codec}");
        read.push(decoder.finish().unwrap());
    }
    assert!(read.iter().all(|batch| *batch == read[0]));
    let (mut jsons, lines) = (read[0].column(7).as_string::<i32>().iter(), read[0].column(6).as_list::<i32>());
    assert_eq!(lines.null_count(), 0);
    assert!(jsons.any(|gift| gift.is_some_and(|gift| gift.contains("\"sku\":"))), "{:?}", read[0].column(7));
    assert_eq!(read[0].column(9).null_count(), 200, "a column that no field fills");
}

#[test]
fn a_small_payload_that_stands_for_very_many_rows_is_refused() {
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": ["null", "string"]}]}"#;
    let mut payload = b"Obj\x01".to_vec();
    let long = |number: usize, out: &mut Vec<u8>| {
        let mut bits = number << 1;
        while bits >= 0x80 {
            out.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        out.push(bits as u8);
    };
    long(2, &mut payload);
    for part in ["avro.schema", schema, "avro.codec", "deflate"] {
        long(part.len(), &mut payload);
        payload.extend(part.as_bytes());
    }
    payload.push(0);
    payload.extend([7; 16]);
    let mut packed = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &vec![0; 2_000_000]).unwrap();
    let packed = packed.finish().unwrap();
    long(2_000_000, &mut payload);
    long(packed.len(), &mut payload);
    payload.extend(&packed);
    payload.extend([7; 16]);
    assert!(payload.len() < 4_000);
    let columns = Fields::from(vec![Field::new("id", DataType::Utf8, true)]);
    let mut decoder = decoder(columns, AvroOptions::default());
    assert_eq!(decoder.push(&payload, None).unwrap_err().code, "too-many-rows");
    assert_eq!(decoder.finish().unwrap().num_rows(), 0);
}

/// What a registry holds, and who waits for it.
#[derive(Default)]
struct Shelf {
    schemas: Mutex<Vec<(SchemaId, Found)>>,
    waiting: Mutex<Vec<Wake>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Shelf {
    fn put(&self, id: SchemaId, found: Found) {
        self.schemas.lock().unwrap().push((id, found));
        self.waiting.lock().unwrap().drain(..).for_each(|wake| wake());
    }
}

impl Schemas for Shelf {
    fn look(&self, id: &SchemaId, wake: &Wake) -> Found {
        let schemas = self.schemas.lock().unwrap();
        if let Some((_, found)) = schemas.iter().find(|(known, _)| known == id) {
            return found.clone();
        }
        self.waiting.lock().unwrap().push(wake.clone());
        Found::NotYet
    }
}

fn registered(text: &str) -> Found {
    let schema = RegisteredSchema { kind: SchemaKind::Avro, text: text.into(), referenced: vec![] };
    Found::Schema(Arc::new(schema))
}

fn two_columns() -> Fields {
    vec![Field::new("id", DataType::Utf8, false), Field::new("n", DataType::Int64, true)].into()
}

#[test]
fn each_message_is_read_by_the_schema_that_it_names_and_waits_until_that_is_there() {
    let (shelf, rung) = (Arc::new(Shelf::default()), Arc::new(Mutex::new(0)));
    let avro = AvroOptions {
        framing: AvroFraming::Confluent,
        schema: None,
        registry: Some(shelf.clone() as Arc<dyn Schemas>),
    };
    let decoding = Decoding { format: Format::Avro, avro, ..Decoding::default() };
    let wake = {
        let rung = rung.clone();
        Arc::new(move || *rung.lock().unwrap() += 1)
    };
    let mut decoder = Decoder::of(Arc::new(Schema::new(two_columns())), &decoding, None, wake).unwrap();
    let offer = |decoder: &mut Decoder, payload: &[u8]| {
        decoder.take(&Message { payload, ..Message::default() }).map_err(|reject| reject.error)
    };
    let old = [&[0, 0, 0, 0, 7][..], b"\x02a"].concat();
    let new = [&[0, 0, 0, 1, 0][..], b"\x54\x02b"].concat();
    assert_eq!(offer(&mut decoder, &old), Ok(Taken::Awaited));
    assert_eq!(offer(&mut decoder, &old), Ok(Taken::Awaited));
    assert_eq!(decoder.rows(), 0);
    shelf.put(
        SchemaId::Number(7),
        registered(r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": "string"}]}"#),
    );
    assert_eq!(*rung.lock().unwrap(), 2, "once for each time that it asked");
    assert_eq!(offer(&mut decoder, &old), Ok(Taken::Rows(1)));
    shelf.put(
        SchemaId::Number(256),
        registered(
            r#"{"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}, {"name": "id", "type": "string"}]}"#,
        ),
    );
    assert_eq!(offer(&mut decoder, &new), Ok(Taken::Rows(1)));
    assert_eq!(offer(&mut decoder, &old), Ok(Taken::Rows(1)));
    shelf.put(SchemaId::Number(8), Found::None("the registry has none".into()));
    shelf.put(SchemaId::Number(9), registered(r#""string""#));
    let refused = |decoder: &mut Decoder, payload: &[u8]| offer(decoder, payload).unwrap_err();
    assert_eq!(refused(&mut decoder, &[0, 0, 0, 0, 8, 2]), "the schema 8: the registry has none");
    assert_eq!(refused(&mut decoder, &[0, 0, 0, 0, 9, 2]), "its values are a string and no records");
    assert!(refused(&mut decoder, b"{\"id\"").contains("the number of a schema"));
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), Some("b"), Some("a")]);
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [None, Some(42), None]);
}

#[test]
fn event_hubs_names_a_schema_in_the_content_type_or_before_the_value() {
    const GUID: &str = "64fc737160ff41bdb8a0b8af028e6827";
    let shelf = Arc::new(Shelf::default());
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": "string"}]}"#;
    shelf.put(SchemaId::Guid(GUID.into()), registered(schema));
    let avro = AvroOptions { framing: AvroFraming::EventHubs, schema: None, registry: Some(shelf) };
    let mut decoder = decoder(two_columns(), avro);
    assert!(decoder.reads_content_type());
    let content_type = format!("avro/binary+{GUID}");
    let mut offer = |payload: &[u8], content_type: Option<&[u8]>| {
        decoder.take(&Message { payload, content_type, log_time: None }).map_err(|reject| reject.error)
    };
    assert_eq!(offer(b"\x02a", Some(content_type.as_bytes())), Ok(Taken::Rows(1)));
    assert_eq!(offer(&[&[0; 4][..], GUID.as_bytes(), b"\x02b"].concat(), None), Ok(Taken::Rows(1)));
    assert_eq!(
        offer(b"\x02a", Some(b"avro/binary+nonsense")).unwrap_err(),
        "the content type names \"nonsense\", which is no id of a schema"
    );
    assert!(offer(b"\x02a", Some(b"application/json")).unwrap_err().contains("nor the payload names a schema"));
}

fn read_one(schema: &str, column: Field, payload: &[u8]) -> Result<ArrayRef, String> {
    let mut decoder = decoder(vec![column].into(), bare(schema));
    decoder.push(payload, None).map_err(|reject| format!("{}: {}", reject.code, reject.error))?;
    Ok(decoder.finish().unwrap().column(0).clone())
}

#[test]
fn a_value_becomes_what_its_column_is_or_is_refused_with_both_types_named() {
    let of =
        |field: &str| format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "c", "type": {field}}}]}}"#);
    let column = |of: DataType| Field::new("c", of, true);
    let decimal = of(r#"{"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}"#);
    // -123.45
    let payload = [4, 0xcf, 0xc7];
    let read = read_one(&decimal, column(DataType::Float64), &payload).unwrap();
    assert_eq!(read.as_primitive::<Float64Type>().value(0), -123.45);
    let read = read_one(&decimal, column(DataType::Utf8), &payload).unwrap();
    assert_eq!(read.as_string::<i32>().value(0), "-123.45");
    assert!(read_one(&decimal, column(DataType::Int64), &payload).unwrap_err().contains("the decimal -123.45"));

    let uuid = of(r#"{"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}"#);
    let bytes: Vec<u8> = (0..16).collect();
    let read = read_one(&uuid, column(DataType::Utf8), &bytes).unwrap();
    assert_eq!(read.as_string::<i32>().value(0), "00010203-0405-0607-0809-0a0b0c0d0e0f");

    let millis = of(r#"{"type": "long", "logicalType": "timestamp-millis"}"#);
    let read = read_one(&millis, column(instant()), &[1]).unwrap();
    assert_eq!(read.as_primitive::<TimestampNanosecondType>().value(0), -1_000_000);
    let read = read_one(&millis, column(DataType::Int64), &[1]).unwrap();
    assert_eq!(read.as_primitive::<Int64Type>().value(0), -1);

    let text = of(r#""string""#);
    let read = read_one(&text, column(instant()), b"\x281970-01-01T00:00:00Z").unwrap();
    assert_eq!(read.as_primitive::<TimestampNanosecondType>().value(0), 0, "a time that is written as text");
    let refused = read_one(&text, column(DataType::Int64), b"\x02x").unwrap_err();
    assert_eq!(refused, "wrong-type: c: found the text \"x\", expected Int64");
    let refused = read_one(&of(r#"{"type": "array", "items": "int"}"#), column(DataType::Int64), &[0]).unwrap_err();
    assert_eq!(refused, "wrong-type: c: found an array, expected Int64");
    let refused = read_one(&of(r#"["null", "int"]"#), Field::new("c", DataType::Int64, false), &[0]).unwrap_err();
    assert_eq!(refused, "missing: c is null and NOT NULL");
    let refused = read_one(&of(r#"["null", "int"]"#), column(DataType::Int64), &[4]).unwrap_err();
    assert_eq!(refused, "not-avro: byte 1: branch 2 of 2");
}

#[test]
fn a_type_that_holds_itself_is_json_and_ends_somewhere() {
    let schema = r#"{"type": "record", "name": "Outer", "fields": [{"name": "tree", "type":
        {"type": "record", "name": "Tree", "fields": [
            {"name": "n", "type": "int"}, {"name": "rest", "type": ["null", "Tree"]}]}}]}"#;
    let column = Field::new("tree", DataType::Utf8, true)
        .with_metadata([("ARROW:extension:name".to_string(), "arrow.json".to_string())].into());
    let read = read_one(schema, column.clone(), &[2, 2, 3, 0]).unwrap();
    assert_eq!(read.as_string::<i32>().value(0), r#"{"n":1,"rest":{"n":-2,"rest":null}}"#);
    let deep = [2, 2].repeat(100_000);
    assert!(read_one(schema, column, &deep).unwrap_err().contains("more than 128 values within each other"));
    let skipped = read_one(schema, Field::new("other", DataType::Int64, true), &deep).unwrap_err();
    assert!(skipped.contains("more than 128 values within each other"));
}

#[test]
fn fields_that_no_column_takes_are_counted_with_what_they_hold() {
    let schema = r#"{"type": "record", "name": "R", "fields": [
        {"name": "id", "type": "string"}, {"name": "N", "type": ["null", "long"]}]}"#;
    let json =
        JsonOptions { unknown: UnknownFields::Warn, declared: vec!["id".into(), "n".into()], ..JsonOptions::default() };
    let decoding = Decoding { format: Format::Avro, json, avro: bare(schema), ..Decoding::default() };
    let mut decoder = Decoder::of(Arc::new(Schema::new(two_columns())), &decoding, None, Arc::new(|| {})).unwrap();
    assert_eq!(decoder.push(b"\x02a\x02\x02", None), Ok(1));
    let observed = decoder.observed().unwrap();
    assert_eq!((observed.columns["id"], observed.columns["n"]), (1, 0));
    assert_eq!(observed.unknown["N"], (1, "null or a long".to_string()));
}

#[test]
fn columns_that_avro_cannot_name_are_said_all_at_once() {
    let columns = Fields::from(vec![
        Field::new("device id", DataType::Utf8, true),
        Field::new("1st", DataType::Int64, true),
        Field::new("good_1", DataType::Int64, true),
    ]);
    let problems = AvroWriter::new(&columns, "re-ading", AvroTimes::Micros, AvroFraming::Bare).unwrap_err();
    let said: Vec<&str> = problems.iter().map(|(column, _)| column.as_str()).collect();
    assert_eq!(said, ["", "device id", "1st"]);
    assert!(problems[1].1.contains("letters, digits and underscores"), "{problems:?}");
}
