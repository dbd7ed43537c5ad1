//! Rows into messages: which column is the value, the key, a header, the partition or the time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;
use engine::connector::{ColumnSpec, Origin, Problem};
use formats::{AvroWriter, CsvWriter, EncodedRows, Format, SchemaId};

/// For people: what `METADATA FROM` may name in a table that is written.
pub const WRITTEN: &[&str] = &["key", "timestamp", "partition", "headers.<name>"];

/// What becomes of a row's columns, by their index.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    value: Value,
    key: Option<usize>,
    partition: Option<usize>,
    time: Option<usize>,
    headers: Vec<(String, usize)>,
    /// Rows that may be one message, if their keys, partitions and headers are the same.
    together: usize,
    /// What a header says of each value.
    content_type: Option<String>,
}

/// How the values of a table are written.
#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    Json(Joined),
    Csv(CsvWriter),
    Avro(AvroWriter),
    Raw(Format),
}

/// How several objects of JSON stand in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Joined {
    /// On a line each.
    #[default]
    Lines,
    /// As an array, one object too.
    Array,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// One JSON object of these columns.
    Json(Vec<usize>, Joined),
    /// One line of these columns.
    Csv(Vec<usize>, CsvWriter),
    /// One record of these columns.
    Avro(Vec<usize>, AvroWriter),
    /// The bytes of one column; NULL is a message without a payload.
    Raw(usize),
}

impl Layout {
    /// `key` and `time`: columns that are part of the value and are also the message's key and timestamp.
    /// `together`: rows that may be one message.
    pub fn of(
        columns: &[ColumnSpec],
        written: &Written,
        together: usize,
        key: Option<&str>,
        time: Option<&str>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = vec![];
        let mut layout = Layout {
            value: Value::Json(vec![], Joined::Lines),
            key: None,
            partition: None,
            time: None,
            headers: vec![],
            together,
            content_type: None,
        };
        for (index, column) in columns.iter().enumerate() {
            if let Origin::Metadata(name) = &column.origin
                && let Err(problem) = layout.place(index, name, &column.field)
            {
                problems.push(problem);
            }
        }
        for (option, named, role) in [("sink.key_field", key, "key"), ("sink.timestamp_field", time, "timestamp")] {
            let Some(named) = named else { continue };
            let Some(index) = columns.iter().position(|c| c.field.name() == named) else {
                problems.push(Problem::option(option, format!("the table has no column {named}")));
                continue;
            };
            let taken = if role == "key" { layout.key } else { layout.time };
            if taken.is_some() {
                problems.push(Problem::option(option, format!("a column is METADATA FROM '{role}' already")));
            } else if let Err(problem) = layout.place(index, role, &columns[index].field) {
                problems.push(problem);
            }
        }
        match value(columns, written) {
            Ok(value) => layout.value = value,
            Err(problem) => problems.push(problem),
        }
        if problems.is_empty() { Ok(layout) } else { Err(problems) }
    }

    fn place(&mut self, index: usize, name: &str, field: &Field) -> Result<(), Problem> {
        const TEXT: (&[DataType], &str) = (&[DataType::Utf8, DataType::Binary], "STRING or BYTES");
        const NUMBER: (&[DataType], &str) = (&[DataType::Int32, DataType::Int64], "INT or BIGINT");
        let instant = [DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), DataType::Int64];
        let (types, said) = match (name, name.strip_prefix("headers.")) {
            (_, Some(IDENTITY)) => {
                let what = format!("the header {IDENTITY:?} is millrace's own: it tells which rows have arrived");
                return Err(Problem::column(field.name(), what));
            }
            ("key", _) | (_, Some(_)) => TEXT,
            ("partition", _) => NUMBER,
            ("timestamp", _) => (&instant[..], "TIMESTAMP, or BIGINT: milliseconds since 1970"),
            _ => {
                let what = format!("no message can be given the metadata {name:?}; there are {}", WRITTEN.join(", "));
                return Err(Problem::column(field.name(), what));
            }
        };
        if !types.contains(field.data_type()) {
            return Err(Problem::column(field.name(), format!("a message's {name} comes from {said}")));
        }
        match name.strip_prefix("headers.") {
            Some(header) => self.headers.push((header.to_string(), index)),
            None if name == "key" => self.key = Some(index),
            None if name == "partition" => self.partition = Some(index),
            None => self.time = Some(index),
        }
        Ok(())
    }

    pub fn encode(&self, batch: &RecordBatch) -> Result<Messages<'_>, ArrowError> {
        let mut unwritable = BTreeMap::new();
        let mut words = |columns: &[usize]| {
            let rows = batch.project(columns)?;
            unwritable = formats::unwritable(&rows);
            Ok::<_, ArrowError>(rows)
        };
        let values = match &self.value {
            Value::Raw(column) => Values::Raw(batch.column(*column).clone()),
            Value::Json(columns, joined) => Values::Json(formats::json_rows(&words(columns)?)?, *joined),
            Value::Csv(columns, writer) => Values::Csv(writer.rows(&words(columns)?)?, writer),
            Value::Avro(columns, writer) => Values::Avro(writer.rows(&batch.project(columns)?)?, writer),
        };
        let column = |index: &usize| batch.column(*index).clone();
        Ok(Messages {
            rows: batch.num_rows(),
            values,
            unwritable,
            key: self.key.as_ref().map(column),
            partition: self.partition.as_ref().map(column),
            time: self.time.as_ref().map(column),
            headers: self.headers.iter().map(|(name, index)| (name.as_str(), column(index))).collect(),
            together: self.together,
            content_type: self.content_type.as_deref(),
        })
    }

    /// The schema that values are written by, where they are by one.
    pub fn schema(&self) -> Option<&str> {
        match &self.value {
            Value::Avro(_, writer) => Some(writer.schema()),
            _ => None,
        }
    }

    /// With what a registry calls the schema.
    pub fn named(mut self, id: &SchemaId) -> Self {
        if let Value::Avro(columns, writer) = self.value {
            self.value = Value::Avro(columns, writer.named(id));
        }
        if let SchemaId::Guid(guid) = id {
            self.content_type = Some(format!("avro/binary+{guid}"));
        }
        self
    }
}

/// The header that Microsoft's serializers name a schema in.
pub const CONTENT_TYPE: &str = "content-type";
/// Rows of more bytes are no one message.
const BYTES_TOGETHER: usize = 256 << 10;

/// The header that says which row of which job a message is.
pub const IDENTITY: &str = "millrace";

fn value(columns: &[ColumnSpec], written: &Written) -> Result<Value, Problem> {
    let own: Vec<usize> =
        columns.iter().enumerate().filter(|(_, c)| c.origin == Origin::Value).map(|(index, _)| index).collect();
    let wanted = match written {
        Written::Raw(Format::RawString) => (DataType::Utf8, "raw_string", "STRING"),
        Written::Raw(_) => (DataType::Binary, "raw_bytes", "BYTES"),
        _ if own.is_empty() => return Err(Problem::of("all columns are metadata: a message needs a value")),
        Written::Json(joined) => return Ok(Value::Json(own, *joined)),
        Written::Csv(writer) => return Ok(Value::Csv(own, writer.clone())),
        Written::Avro(writer) => return Ok(Value::Avro(own, writer.clone())),
    };
    match own[..] {
        [only] if *columns[only].field.data_type() == wanted.0 => Ok(Value::Raw(only)),
        _ => {
            let message = format!("'{}' writes the one {} column of the table as it is", wanted.1, wanted.2);
            Err(Problem::option("format", message))
        }
    }
}

/// The messages of one batch.
pub struct Messages<'a> {
    rows: usize,
    values: Values<'a>,
    /// Rows whose values cannot be written, and why.
    unwritable: BTreeMap<usize, String>,
    key: Option<ArrayRef>,
    partition: Option<ArrayRef>,
    time: Option<ArrayRef>,
    headers: Vec<(&'a str, ArrayRef)>,
    together: usize,
    content_type: Option<&'a str>,
}

enum Values<'a> {
    Json(EncodedRows, Joined),
    Csv(EncodedRows, &'a CsvWriter),
    Avro(EncodedRows, &'a AvroWriter),
    Raw(ArrayRef),
}

impl Messages<'_> {
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Why a row can be no message, if it cannot.
    pub fn unwritable(&self, row: usize) -> Option<&str> {
        self.unwritable.get(&row).map(String::as_str)
    }

    /// Whether the row behind these belongs into their message.
    pub fn join(&self, rows: Range<usize>) -> bool {
        if rows.len() >= self.together || [rows.start, rows.end].iter().any(|row| self.unwritable.contains_key(row)) {
            return false;
        }
        let bytes = match &self.values {
            Values::Json(values, _) | Values::Csv(values, _) | Values::Avro(values, _) => {
                values.between(rows.start, rows.end + 1).len()
            }
            Values::Raw(_) => return false,
        };
        let (first, next) = (rows.start, rows.end);
        bytes <= BYTES_TOGETHER
            && self.key(first) == self.key(next)
            && self.partition(first) == self.partition(next)
            && self.headers(first).eq(self.headers(next))
    }

    /// The value of rows that are one message. `None`: one without a payload, which deletes its key from a compacted topic.
    pub fn value(&self, rows: Range<usize>) -> Option<Cow<'_, [u8]>> {
        match &self.values {
            Values::Raw(column) => bytes(column, rows.start).map(Cow::Borrowed),
            Values::Csv(values, writer) => Some(Cow::Owned(writer.message(values.between(rows.start, rows.end)))),
            Values::Avro(values, writer) => Some(writer.message(rows.len(), values.between(rows.start, rows.end))),
            Values::Json(values, joined) => {
                let lines = values.between(rows.start, rows.end);
                let lines = &lines[..lines.len() - 1];
                Some(match joined {
                    Joined::Lines => Cow::Borrowed(lines),
                    // No line's end stands within an object.
                    Joined::Array => {
                        let comma = |byte: &u8| if *byte == b'\n' { b',' } else { *byte };
                        Cow::Owned([b'['].into_iter().chain(lines.iter().map(comma)).chain([b']']).collect())
                    }
                })
            }
        }
    }

    pub fn content_type(&self) -> Option<&[u8]> {
        self.content_type.map(str::as_bytes)
    }

    pub fn key(&self, row: usize) -> Option<&[u8]> {
        bytes(self.key.as_ref()?, row)
    }

    /// Where the row says that it wants to go; without, the key decides, or nobody.
    pub fn partition(&self, row: usize) -> Option<i64> {
        let column = self.partition.as_ref()?;
        if column.is_null(row) {
            return None;
        }
        match column.data_type() {
            DataType::Int32 => Some(column.as_primitive::<Int32Type>().value(row).into()),
            _ => Some(column.as_primitive::<Int64Type>().value(row)),
        }
    }

    /// Milliseconds since 1970; `None`: now.
    pub fn time(&self, row: usize) -> Option<i64> {
        let column = self.time.as_ref()?;
        if column.is_null(row) {
            return None;
        }
        match column.data_type() {
            DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row)),
            _ => Some(column.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000_000)),
        }
    }

    /// Those that are not NULL.
    pub fn headers(&self, row: usize) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().filter_map(move |(name, column)| Some((*name, bytes(column, row)?)))
    }
}

fn bytes(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).as_bytes()),
        _ => Some(column.as_binary::<i32>().value(row)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Float64Array, Int32Array, Int64Array, StringArray};

    use super::*;

    const JSON: Written = Written::Json(Joined::Lines);

    fn column(name: &str, data_type: DataType, metadata: Option<&str>) -> ColumnSpec {
        let origin = metadata.map_or(Origin::Value, |m| Origin::Metadata(m.to_string()));
        ColumnSpec { field: Arc::new(Field::new(name, data_type, true)), origin }
    }

    fn of(columns: &[ColumnSpec], arrays: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.iter().map(|c| c.field.name().clone()).zip(arrays).map(|(n, a)| (n, a, true)),
        )
        .unwrap()
    }

    #[test]
    fn metadata_columns_are_the_key_the_partition_the_time_and_headers_and_no_part_of_the_value() {
        let columns = [
            column("device", DataType::Utf8, Some("key")),
            column("n", DataType::Int64, None),
            column("to", DataType::Int32, Some("partition")),
            column("at", DataType::Int64, Some("timestamp")),
            column("trace", DataType::Binary, Some("headers.traceparent")),
        ];
        let layout = Layout::of(&columns, &JSON, 1, None, None).unwrap();
        let batch = of(
            &columns,
            vec![
                Arc::new(StringArray::from(vec![Some("d1"), None])),
                Arc::new(Int64Array::from(vec![Some(7), None])),
                Arc::new(Int32Array::from(vec![Some(3), None])),
                Arc::new(Int64Array::from(vec![Some(1_700_000_000_000), None])),
                Arc::new(BinaryArray::from(vec![Some(b"00-ab".as_slice()), None])),
            ],
        );
        let messages = layout.encode(&batch).unwrap();
        let value = |row: usize| messages.value(row..row + 1);
        assert_eq!((value(0).as_deref(), value(1).as_deref()), (Some(b"{\"n\":7}".as_slice()), Some(b"{}".as_slice())));
        assert_eq!((messages.key(0), messages.key(1)), (Some(b"d1".as_slice()), None));
        assert_eq!((messages.partition(0), messages.partition(1)), (Some(3), None));
        assert_eq!((messages.time(0), messages.time(1)), (Some(1_700_000_000_000), None));
        assert_eq!(messages.headers(0).collect::<Vec<_>>(), [("traceparent", b"00-ab".as_slice())]);
        assert_eq!(messages.headers(1).count(), 0);
    }

    #[test]
    fn a_key_field_stays_in_the_value() {
        let columns = [column("device", DataType::Utf8, None), column("n", DataType::Int64, None)];
        let layout = Layout::of(&columns, &JSON, 1, Some("device"), None).unwrap();
        let batch = of(&columns, vec![Arc::new(StringArray::from(vec!["d"])), Arc::new(Int64Array::from(vec![1]))]);
        let messages = layout.encode(&batch).unwrap();
        assert_eq!(messages.value(0..1).as_deref(), Some(br#"{"device":"d","n":1}"#.as_slice()));
        assert_eq!(messages.key(0), Some(b"d".as_slice()));
    }

    #[test]
    fn raw_text_is_written_as_it_is_and_null_has_no_payload() {
        let columns = [column("line", DataType::Utf8, None)];
        let layout = Layout::of(&columns, &Written::Raw(Format::RawString), 1, None, None).unwrap();
        let batch = of(&columns, vec![Arc::new(StringArray::from(vec![Some("a\nb"), None]))]);
        let messages = layout.encode(&batch).unwrap();
        assert_eq!((messages.value(0..1).as_deref(), messages.value(1..2)), (Some(b"a\nb".as_slice()), None));
        assert!(!messages.join(0..1));
    }

    #[test]
    fn rows_of_one_key_are_one_message_up_to_what_is_allowed() {
        let columns = [column("device", DataType::Utf8, Some("key")), column("n", DataType::Int64, None)];
        let keys = vec![Some("a"), Some("a"), Some("a"), Some("b"), None, None];
        let batch = of(&columns, vec![Arc::new(StringArray::from(keys)), Arc::new(Int64Array::from_iter_values(0..6))]);
        let joined = |joined, together| {
            let layout = Layout::of(&columns, &Written::Json(joined), together, None, None).unwrap();
            let (messages, mut values, mut row) = (layout.encode(&batch).unwrap(), vec![], 0);
            while row < messages.len() {
                let mut rows = row..row + 1;
                while rows.end < messages.len() && messages.join(rows.clone()) {
                    rows.end += 1;
                }
                row = rows.end;
                values.push(String::from_utf8(messages.value(rows).unwrap().into_owned()).unwrap());
            }
            values
        };
        let lines = ["{\"n\":0}\n{\"n\":1}", "{\"n\":2}", "{\"n\":3}", "{\"n\":4}\n{\"n\":5}"];
        assert_eq!(joined(Joined::Lines, 2), lines);
        let arrays = ["[{\"n\":0},{\"n\":1},{\"n\":2}]", "[{\"n\":3}]", "[{\"n\":4},{\"n\":5}]"];
        assert_eq!(joined(Joined::Array, 100), arrays);
    }

    #[test]
    fn a_row_with_a_number_that_json_has_no_word_for_is_no_message_and_in_none() {
        let columns = [column("x", DataType::Float64, None)];
        let layout = Layout::of(&columns, &JSON, 100, None, None).unwrap();
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN, 2.0, 3.0]));
        let batch = of(&columns, vec![numbers]);
        let messages = layout.encode(&batch).unwrap();
        let joined: Vec<bool> = (0..3).map(|row| messages.join(row..row + 1)).collect();
        assert_eq!(joined, [false, false, true]);
        assert_eq!(messages.unwritable(1), Some("column x is NaN, for which JSON has no word"));
        assert!((0..4).filter(|row| *row != 1).all(|row| messages.unwritable(row).is_none()));
    }

    #[test]
    fn what_cannot_be_a_message_is_said_all_at_once() {
        let columns = [
            column("offset", DataType::Int64, Some("offset")),
            column("key", DataType::Int64, Some("key")),
            column("id", DataType::Utf8, Some("headers.millrace")),
        ];
        let problems = Layout::of(&columns, &Written::Raw(Format::RawString), 1, Some("nobody"), None).unwrap_err();
        let said: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(said[0].contains("no message can be given the metadata \"offset\""), "{said:#?}");
        assert!(said[1].contains("comes from STRING or BYTES"), "{said:#?}");
        assert!(said[2].contains("millrace's own"), "{said:#?}");
        assert!(said[3].contains("no column nobody"), "{said:#?}");
        assert!(said[4].contains("the one STRING column"), "{said:#?}");
    }
}
