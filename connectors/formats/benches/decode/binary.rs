//! The event in binary formats, and what reads it without us.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, SchemaStore};
use formats::{
    AvroFraming, AvroOptions, AvroTimes, AvroWriter, Decoder, Decoding, Format, JsonOptions, ProtobufFraming,
    ProtobufOptions,
};
use prost::Message;

use crate::{BATCH, Nested, event_fields};

/// Single objects of Avro, which both know, and their schema.
pub struct Avro {
    pub payloads: Vec<Vec<u8>>,
    schema: String,
    columns: Fields,
}

impl Avro {
    pub fn of(events: &[Vec<u8>]) -> Avro {
        let columns: Fields = event_fields(Nested::Doubles).into();
        let schema = Arc::new(Schema::new(columns.clone()));
        let mut decoder = Decoder::new(schema, Format::Json, JsonOptions::default(), None).expect("a decoder");
        for event in events {
            decoder.push(event, None).expect("an event");
        }
        let batch = decoder.finish().expect("a batch");
        let writer = AvroWriter::new(&columns, "Event", AvroTimes::Micros, AvroFraming::SingleObject);
        let writer = writer.expect("a schema");
        let rows = writer.rows(&batch).expect("rows");
        let payload = |row| writer.message(1, rows.between(row, row + 1)).into_owned();
        let payloads = (0..batch.num_rows()).map(payload).collect();
        Avro { payloads, schema: writer.schema().into(), columns }
    }

    pub fn decode(&self, columns: usize) {
        let avro =
            AvroOptions { framing: AvroFraming::SingleObject, schema: Some(self.schema.clone()), registry: None };
        let decoding = Decoding { format: Format::Avro, avro, ..Decoding::default() };
        let columns: Fields = self.columns.iter().take(columns).cloned().collect();
        decode_all(&self.payloads, &decoding, Schema::new(columns));
    }

    pub fn decode_with_arrow_avro(&self) {
        let mut store = SchemaStore::new();
        store.register(AvroSchema::new(self.schema.clone())).expect("a schema");
        let mut decoder = ReaderBuilder::new()
            .with_batch_size(BATCH)
            .with_writer_schema_store(store)
            .build_decoder()
            .expect("a decoder");
        for batch in self.payloads.chunks(BATCH) {
            for payload in batch {
                assert_eq!(decoder.decode(payload).expect("a value"), payload.len());
            }
            black_box(decoder.flush().expect("a batch"));
        }
    }
}

/// As a compiler of schemas would write it.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(string, tag = "1")]
    event_id: String,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(string, tag = "3")]
    device_id: String,
    #[prost(int64, tag = "4")]
    number: i64,
    #[prost(string, tag = "5")]
    kind: String,
    #[prost(int64, tag = "6")]
    created_at: i64,
    #[prost(double, repeated, tag = "7")]
    more_data: Vec<f64>,
}

/// Messages of Protocol Buffers.
pub struct Protobuf {
    pub payloads: Vec<Vec<u8>>,
}

impl Protobuf {
    pub fn of(events: usize) -> Protobuf {
        let event = |n: usize| Event {
            event_id: uuid::Uuid::from_u128(n as u128 * 0x9e37_79b9_7f4a_7c15).to_string(),
            value: n as f64 / 7.0,
            device_id: format!("contoso://device-id-{}", n % 1000),
            number: n as i64,
            kind: if n.is_multiple_of(2) { "CO2" } else { "TEMP" }.into(),
            created_at: 1_795_305_600_000 + n as i64,
            more_data: (0..23).map(|m| (n * m) as f64 / 11.0).collect(),
        };
        Protobuf { payloads: (0..events).map(|n| event(n).encode_to_vec()).collect() }
    }

    pub fn decode(&self) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/decode/event.proto");
        let options = ProtobufOptions::of_file(&file, None, ProtobufFraming::Bare).expect("a message");
        let decoding = Decoding { format: Format::Protobuf, protobuf: Some(options), ..Decoding::default() };
        let schema = Schema::new(vec![
            Field::new("eventId", DataType::Utf8, true),
            Field::new("value", DataType::Float64, true),
            Field::new("deviceId", DataType::Utf8, true),
            Field::new("deviceSequenceNumber", DataType::Int64, true),
            Field::new("type", DataType::Utf8, true),
            Field::new("createdAt", DataType::Int64, true),
            Field::new("moreData", DataType::new_list(DataType::Float64, true), true),
        ]);
        decode_all(&self.payloads, &decoding, schema);
    }

    /// Structs by `prost`, and their fields into builders.
    pub fn decode_with_prost(&self) {
        for batch in self.payloads.chunks(BATCH) {
            let mut texts: [StringBuilder; 3] = Default::default();
            let mut numbers: [Int64Builder; 2] = Default::default();
            let (mut value, mut more) = (Float64Builder::new(), ListBuilder::new(Float64Builder::new()));
            for payload in batch {
                let event = Event::decode(&payload[..]).expect("a message");
                texts[0].append_value(&event.event_id);
                texts[1].append_value(&event.device_id);
                texts[2].append_value(&event.kind);
                numbers[0].append_value(event.number);
                numbers[1].append_value(event.created_at);
                value.append_value(event.value);
                more.values().append_slice(&event.more_data);
                more.append(true);
            }
            black_box((texts.each_mut().map(|b| b.finish()), numbers.each_mut().map(|b| b.finish())));
            black_box((value.finish(), more.finish()));
        }
    }
}

fn decode_all(payloads: &[Vec<u8>], decoding: &Decoding, schema: Schema) {
    let mut decoder = Decoder::of(Arc::new(schema), decoding, None, Arc::new(|| {})).expect("a decoder");
    for batch in payloads.chunks(BATCH) {
        for payload in batch {
            decoder.push(payload, None).expect("a record");
        }
        let batch: RecordBatch = decoder.finish().expect("a batch");
        black_box(batch);
    }
}
