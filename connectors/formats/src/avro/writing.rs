//! Rows as values of Avro. `arrow-avro` writes the values; the schema, and what stands before a value, are ours.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow_avro::schema::SCHEMA_METADATA_KEY;
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroBinaryFormat;
use serde_json::{Value, json};

use super::fingerprint::fingerprint;
use super::schema::Schema;
use super::{AvroFraming, SINGLE_OBJECT};
use crate::column::is_json;
use crate::encoded::EncodedRows;
use crate::schemas::SchemaId;
use crate::varint::{put, zigzag};

/// The type of a written TIMESTAMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AvroTimes {
    Millis,
    /// What nearly all readers know; the last three digits of nanoseconds are cut off.
    #[default]
    Micros,
    /// All digits, for readers that know Avro 1.12.
    Nanos,
}

/// Writes rows of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct AvroWriter {
    /// As the values are written.
    columns: SchemaRef,
    schema: String,
    /// What stands before each value.
    before: Vec<u8>,
    /// What a container begins with, its marker last; `None` if there are no containers.
    header: Option<Vec<u8>>,
}

const MARKER: usize = 16;

impl AvroWriter {
    /// `name`: the full name of the record. What no schema can say is said of all columns at once: column, and why.
    pub fn new(
        columns: &Fields,
        name: &str,
        times: AvroTimes,
        framing: AvroFraming,
    ) -> Result<AvroWriter, Vec<(String, String)>> {
        let mut problems = vec![];
        let (space, own) = name.rsplit_once('.').unwrap_or(("", name));
        if !own.split('.').chain(space.split('.').filter(|part| !part.is_empty())).all(is_name) {
            problems.push((String::new(), format!("{name:?} is no name of a record: {NAMES}")));
        }
        let mut fields = vec![];
        for column in columns {
            match field(column, own, times) {
                Ok(one) => fields.push(one),
                Err(why) => problems.push((column.name().clone(), why)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (arrow, avro): (Vec<Field>, Vec<Value>) = fields.into_iter().unzip();
        let mut record = json!({"type": "record", "name": own, "fields": avro});
        if !space.is_empty() {
            record["namespace"] = space.into();
        }
        let schema = record.to_string();
        let metadata = [(SCHEMA_METADATA_KEY.to_string(), schema.clone())].into();
        let columns = Arc::new(ArrowSchema::new_with_metadata(arrow, metadata));
        let parsed = Schema::parse(&schema, &[]).map_err(|why| vec![(String::new(), why)])?;
        let (mut before, mut header) = (vec![], None);
        match framing {
            AvroFraming::SingleObject => {
                before = [&SINGLE_OBJECT[..], &fingerprint(&parsed).to_le_bytes()].concat();
            }
            AvroFraming::Container => header = Some(container_header(&schema, fingerprint(&parsed))),
            _ => {}
        }
        let writer = AvroWriter { columns, schema, before, header };
        // What the encoder does not know it says now, and not of the first row.
        match writer.encoder() {
            Ok(_) => Ok(writer),
            Err(error) => Err(vec![(String::new(), error.to_string())]),
        }
    }

    /// By which rows are written.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// What the registry calls the schema: it stands before each value from now on, if the framing says so there.
    pub fn named(mut self, id: &SchemaId) -> Self {
        if let SchemaId::Number(number) = id {
            self.before = [&[0][..], &number.to_be_bytes()].concat();
        }
        self
    }

    /// Whether several rows may be one message.
    pub fn joins(&self) -> bool {
        self.header.is_some()
    }

    /// Each row of the batch, as its value.
    pub fn rows(&self, batch: &RecordBatch) -> Result<EncodedRows, ArrowError> {
        let columns = batch.columns().iter().zip(self.columns.fields());
        let columns = columns.map(|(column, field)| fit(column, field.data_type())).collect::<Result<Vec<_>, _>>()?;
        let batch = RecordBatch::try_new(self.columns.clone(), columns)?;
        let mut encoder = self.encoder()?;
        encoder.encode(&batch)?;
        let rows = encoder.flush();
        Ok(EncodedRows { bytes: rows.bytes().to_vec(), ends: rows.offsets()[1..].to_vec() })
    }

    /// The message of these values, which stand one behind the other: one, unless this [`joins`](Self::joins).
    pub fn message<'a>(&self, rows: usize, values: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.header {
            None if self.before.is_empty() => Cow::Borrowed(values),
            None => Cow::Owned([&self.before, values].concat()),
            Some(header) => {
                let (mut block, marker) = (vec![], &header[header.len() - MARKER..]);
                put(zigzag(rows as i64), &mut block);
                put(zigzag(values.len() as i64), &mut block);
                Cow::Owned([header, &block, values, marker].concat())
            }
        }
    }

    fn encoder(&self) -> Result<arrow_avro::writer::Encoder, ArrowError> {
        Ok(WriterBuilder::new(self.columns.as_ref().clone()).build_encoder::<AvroBinaryFormat>()?)
    }
}

const NAMES: &str = "Avro's names are letters, digits and underscores, and begin with none of the digits";

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// A column as the encoder takes it, and as the schema says it. `parent`: what nested records are named after.
fn field(column: &Field, parent: &str, times: AvroTimes) -> Result<(Field, Value), String> {
    let name = column.name();
    if !is_name(name) {
        return Err(format!("{name:?} cannot be the name of a field: {NAMES}"));
    }
    let (data_type, avro) = written(column, &format!("{parent}_{name}"), times)?;
    let field = match column.is_nullable() {
        true => json!({"name": name, "type": ["null", avro], "default": null}),
        false => json!({"name": name, "type": avro}),
    };
    Ok((Field::new(name, data_type, column.is_nullable()), field))
}

fn written(column: &Field, name: &str, times: AvroTimes) -> Result<(DataType, Value), String> {
    let nullable = |field: &Field, avro: Value| if field.is_nullable() { json!(["null", avro]) } else { avro };
    let of = column.data_type();
    Ok(match of {
        DataType::Boolean => (DataType::Boolean, json!("boolean")),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            (DataType::Int32, json!("int"))
        }
        DataType::Int64 | DataType::UInt32 => (DataType::Int64, json!("long")),
        // The upper half has no place in a long.
        DataType::UInt64 => decimal(20, 0),
        DataType::Float32 => (DataType::Float32, json!("float")),
        DataType::Float64 => (DataType::Float64, json!("double")),
        DataType::Utf8 if is_json(column) => (DataType::Utf8, json!({"type": "string", "logicalType": "json"})),
        DataType::Utf8 => (DataType::Utf8, json!("string")),
        DataType::Binary => (DataType::Binary, json!("bytes")),
        DataType::Date32 => (DataType::Date32, json!({"type": "int", "logicalType": "date"})),
        DataType::Timestamp(_, zone) => {
            let (unit, logical) = match times {
                AvroTimes::Millis => (TimeUnit::Millisecond, "timestamp-millis"),
                AvroTimes::Micros => (TimeUnit::Microsecond, "timestamp-micros"),
                AvroTimes::Nanos => (TimeUnit::Nanosecond, "timestamp-nanos"),
            };
            match zone {
                Some(_) => {
                    let instant = DataType::Timestamp(unit, Some("+00:00".into()));
                    (instant, json!({"type": "long", "logicalType": logical}))
                }
                // A wall clock's reading.
                None => {
                    let logical = format!("local-{logical}");
                    (DataType::Timestamp(unit, None), json!({"type": "long", "logicalType": logical}))
                }
            }
        }
        DataType::Decimal128(precision, scale) if *scale >= 0 => decimal(*precision, *scale),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| field(f, name, times)).collect::<Result<Vec<_>, _>>()?;
            let (arrow, avro): (Vec<Field>, Vec<Value>) = fields.into_iter().unzip();
            (DataType::Struct(arrow.into()), json!({"type": "record", "name": name, "fields": avro}))
        }
        DataType::List(item) => {
            let (data_type, avro) = written(item, &format!("{name}_item"), times)?;
            let field = Field::new(item.name(), data_type, item.is_nullable());
            (DataType::List(Arc::new(field)), json!({"type": "array", "items": nullable(item, avro)}))
        }
        DataType::Map(entries, sorted) => {
            let DataType::Struct(parts) = entries.data_type() else { return Err("a map without entries".into()) };
            let (key, value) = (&parts[0], &parts[1]);
            let (data_type, avro) = written(value, &format!("{name}_value"), times)?;
            let value = Field::new(value.name(), data_type, value.is_nullable());
            let avro = json!({"type": "map", "values": nullable(&value, avro)});
            let parts = DataType::Struct(vec![key.as_ref().clone(), value].into());
            (DataType::Map(Arc::new(Field::new(entries.name(), parts, false)), *sorted), avro)
        }
        other => return Err(format!("{other} cannot be written as Avro")),
    })
}

fn decimal(precision: u8, scale: i8) -> (DataType, Value) {
    let avro = json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale});
    (DataType::Decimal128(precision, scale), avro)
}

fn fit(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == wanted { Ok(column.clone()) } else { cast(column, wanted) }
}

/// The marker is the schema's fingerprint twice: the same rows are the same bytes, however often they are written.
fn container_header(schema: &str, fingerprint: u64) -> Vec<u8> {
    let mut header = b"Obj\x01".to_vec();
    put(zigzag(2), &mut header);
    for part in ["avro.schema", schema, "avro.codec", "null"] {
        put(zigzag(part.len() as i64), &mut header);
        header.extend(part.as_bytes());
    }
    put(zigzag(0), &mut header);
    header.extend(fingerprint.to_be_bytes());
    header.extend(fingerprint.to_le_bytes());
    header
}
