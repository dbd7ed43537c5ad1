//! Payloads into rows: one record or several a payload, each payload accepted or rejected as a whole.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryBuilder, BooleanArray, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use crate::avro::{Avro, AvroOptions};
use crate::compression::Compression;
use crate::csv::{Csv, CsvOptions};
use crate::observed::{OBSERVED_ROWS, Observed, Watch};
use crate::protobuf::{Protobuf, ProtobufOptions};
use crate::record::Record;
use crate::reject::{Bad, Reject, bad};
use crate::scanner::Scanner;
use crate::schemas::Wake;

/// How payloads are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Json,
    /// The payload is the text of the one column.
    RawString,
    /// The payload is the value of the one column.
    RawBytes,
    Csv,
    Avro,
    Protobuf,
}

/// How payloads become rows.
#[derive(Debug, Clone, Default)]
pub struct Decoding {
    pub format: Format,
    pub json: JsonOptions,
    pub csv: CsvOptions,
    pub avro: AvroOptions,
    /// Of [`Format::Protobuf`]: there is none without.
    pub protobuf: Option<ProtobufOptions>,
    pub compression: Compression,
}

/// A payload, and what came with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    pub payload: &'a [u8],
    /// Where [`Decoder::reads_content_type`], what the message says of it.
    pub content_type: Option<&'a [u8]>,
    /// When the log has it from, nanoseconds since 1970.
    pub log_time: Option<i64>,
}

/// What became of a payload that was not rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is so many rows.
    Rows(usize),
    /// Its schema is not there yet: nothing was taken, and it is to be offered again when the decoder's wake is called.
    Awaited,
}

/// What JSON may look like.
#[derive(Debug, Clone, Default)]
pub struct JsonOptions {
    /// Numbers may stand in quotes.
    pub lenient: bool,
    pub unknown: UnknownFields,
    /// The fields that the table declares, also those that nobody reads: they are not unknown.
    pub declared: Vec<String>,
}

/// What happens to a record with a field that no column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownFields {
    #[default]
    Ignore,
    /// Taken, and counted over the first rows: see [`Decoder::observed`].
    Warn,
    DeadLetter,
}

/// Fills a batch from payloads.
pub struct Decoder {
    schema: SchemaRef,
    body: Body,
    unknown: UnknownFields,
    compression: Compression,
    /// Where packed payloads are unpacked.
    room: Vec<u8>,
    event_time: Option<EventTime>,
    /// Rows in the builders, abandoned ones included.
    filled: usize,
    /// Rows of abandoned payloads: left out when the batch is finished.
    abandoned: Vec<(usize, usize)>,
    /// Records whose fields were counted.
    observed: u64,
}

enum Body {
    Records(Box<Record>, Records),
    /// Of a raw format, whose one column nobody reads. Text is still refused if it is none.
    Nothing {
        text: bool,
    },
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

/// How the records are written.
enum Records {
    Json,
    Csv(Box<Csv>),
    Avro(Box<Avro>),
    Protobuf(Box<Protobuf>),
}

/// The column whose time may not run ahead of the log's.
struct EventTime {
    column: usize,
    max_ahead: i64,
}

impl Decoder {
    /// A decoder for these columns. `event_time`: index of a timestamp column, and how far it may lie ahead of the
    /// log's timestamp.
    pub fn new(
        schema: SchemaRef,
        format: Format,
        options: JsonOptions,
        event_time: Option<(usize, Duration)>,
    ) -> Result<Decoder, String> {
        let decoding = Decoding { format, json: options, ..Decoding::default() };
        Decoder::of(schema, &decoding, event_time, Arc::new(|| {}))
    }

    /// As `new`, for any way of decoding. `wake` is called when a schema is there that payloads wait for.
    pub fn of(
        schema: SchemaRef,
        decoding: &Decoding,
        event_time: Option<(usize, Duration)>,
        wake: Wake,
    ) -> Result<Decoder, String> {
        let one_column = |wanted: &DataType| match schema.fields().as_ref() {
            [field] if field.data_type() == wanted => Ok(()),
            _ => Err(format!(
                "a raw format fills one column of type {wanted}; the table reads {}",
                schema.fields().len()
            )),
        };
        let record = || watched(&schema, &decoding.json).map(Box::new);
        let body = match decoding.format {
            Format::Json => Body::Records(record()?, Records::Json),
            Format::Csv => {
                // Whatever CSV says, it says as text: a number in quotes is a number.
                let json = JsonOptions { lenient: true, ..decoding.json.clone() };
                let csv = Csv::new(&decoding.csv, schema.fields(), &decoding.json.declared);
                Body::Records(watched(&schema, &json).map(Box::new)?, Records::Csv(Box::new(csv)))
            }
            Format::Avro => {
                let avro = Avro::new(&decoding.avro, schema.fields(), wake)?;
                Body::Records(record()?, Records::Avro(Box::new(avro)))
            }
            Format::Protobuf => {
                let options = decoding.protobuf.as_ref().ok_or("the format has no schema")?;
                let protobuf = Protobuf::new(options, schema.fields());
                Body::Records(record()?, Records::Protobuf(Box::new(protobuf)))
            }
            format if schema.fields().is_empty() => Body::Nothing { text: format == Format::RawString },
            Format::RawString => one_column(&DataType::Utf8).map(|()| Body::Text(StringBuilder::new()))?,
            Format::RawBytes => one_column(&DataType::Binary).map(|()| Body::Bytes(BinaryBuilder::new()))?,
        };
        let event_time = event_time.map(|(column, ahead)| EventTime { column, max_ahead: ahead.as_nanos() as i64 });
        Ok(Decoder {
            schema,
            body,
            unknown: decoding.json.unknown,
            compression: decoding.compression,
            room: vec![],
            event_time,
            filled: 0,
            abandoned: vec![],
            observed: 0,
        })
    }

    /// Whether messages are to be offered with what they say of their content.
    pub fn reads_content_type(&self) -> bool {
        matches!(&self.body, Body::Records(_, Records::Avro(avro)) if avro.reads_content_type())
    }

    /// Rows that the batch will have.
    pub fn rows(&self) -> usize {
        self.filled - self.abandoned.iter().map(|(from, to)| to - from).sum::<usize>()
    }

    /// Takes a payload: of JSON, an object, an array of objects, or objects on lines of their own. Returns the rows it
    /// became. A payload that is not taken leaves no row behind.
    pub fn push(&mut self, payload: &[u8], log_time: Option<i64>) -> Result<usize, Reject> {
        match self.take(&Message { payload, content_type: None, log_time })? {
            Taken::Rows(rows) => Ok(rows),
            Taken::Awaited => Err(Reject { code: "unknown-schema", error: "its schema is not there yet".into() }),
        }
    }

    /// As `push`, of formats whose schemas may have to be waited for, too.
    pub fn take(&mut self, message: &Message<'_>) -> Result<Taken, Reject> {
        let before = self.filled;
        let mut room = std::mem::take(&mut self.room);
        let unpacked = self.compression.unpack(message.payload, &mut room);
        let taken = unpacked.and_then(|payload| self.append(&Message { payload, ..*message }));
        self.room = room;
        match taken {
            Ok(true) => Ok(Taken::Rows(self.filled - before)),
            Ok(false) => Ok(Taken::Awaited),
            Err(reject) => {
                self.abandon(before);
                Err(*reject)
            }
        }
    }

    /// What was counted of the records' fields since the last call, with [`UnknownFields::Warn`] and over the first
    /// [`OBSERVED_ROWS`] records.
    pub fn observed(&mut self) -> Option<Observed> {
        let Body::Records(record, _) = &mut self.body else { return None };
        if self.unknown != UnknownFields::Warn {
            return None;
        }
        let names = self.schema.fields().iter().map(|f| f.name().as_str());
        let observed = record.watch.as_mut()?.take(names)?;
        self.observed += observed.rows;
        if self.observed >= OBSERVED_ROWS {
            record.watch = None;
        }
        Some(observed)
    }

    /// Takes a record from a format that knows only text, one text a column.
    pub(crate) fn push_texts(&mut self, texts: &[Option<&str>], log_time: Option<i64>) -> Result<usize, Reject> {
        let before = self.filled;
        match self.append_texts(texts, log_time) {
            Ok(()) => Ok(1),
            Err(reject) => {
                self.abandon(before);
                Err(*reject)
            }
        }
    }

    /// The rows since the last call.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns = match &mut self.body {
            Body::Records(record, _) => record.columns.iter_mut().map(|c| c.finish()).collect::<Result<Vec<_>, _>>()?,
            Body::Nothing { .. } => vec![],
            Body::Text(b) => vec![Arc::new(b.finish()) as ArrayRef],
            Body::Bytes(b) => vec![Arc::new(b.finish()) as ArrayRef],
        };
        let kept = (!self.abandoned.is_empty()).then(|| self.kept());
        let options = RecordBatchOptions::new().with_row_count(Some(self.filled));
        self.filled = 0;
        self.abandoned.clear();
        let lax = Arc::new(arrow::datatypes::Schema::new(
            self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        ));
        match kept {
            None => RecordBatch::try_new_with_options(self.schema.clone(), columns, &options),
            // Abandoned rows may hold nulls where none are allowed; they go before the schema is checked.
            Some(kept) => {
                let all = RecordBatch::try_new_with_options(lax, columns, &options)?;
                let good = filter_record_batch(&all, &kept)?;
                let options = RecordBatchOptions::new().with_row_count(Some(good.num_rows()));
                RecordBatch::try_new_with_options(self.schema.clone(), good.columns().to_vec(), &options)
            }
        }
    }

    fn kept(&self) -> BooleanArray {
        let mut kept = vec![true; self.filled];
        for (from, to) in &self.abandoned {
            kept[*from..*to].fill(false);
        }
        kept.into()
    }

    /// Whether it could be taken: its schema is there.
    fn append(&mut self, message: &Message<'_>) -> Result<bool, Bad> {
        let (payload, log_time) = (message.payload, message.log_time);
        match &mut self.body {
            Body::Nothing { text } => {
                if *text {
                    utf8(payload)?;
                }
                self.filled += 1;
            }
            Body::Bytes(b) => {
                b.append_value(payload);
                self.filled += 1;
            }
            Body::Text(b) => {
                b.append_value(utf8(payload)?);
                self.filled += 1;
            }
            Body::Records(record, records) => {
                let (unknown, event_time) = (self.unknown, self.event_time.as_ref());
                let of_text = matches!(records, Records::Json | Records::Csv(_));
                let small = of_text && self.compression == Compression::None;
                let most = if small { usize::MAX } else { self.filled + MOST_ROWS };
                let mut rows = Appender { record, filled: &mut self.filled, most, unknown, event_time, log_time };
                match records {
                    Records::Json => append_json(utf8(payload)?, &mut rows)?,
                    Records::Csv(csv) => csv.read(payload, &mut rows)?,
                    Records::Avro(avro) => match avro.open(message)? {
                        Some(opened) => opened.read(&mut rows)?,
                        None => return Ok(false),
                    },
                    Records::Protobuf(protobuf) => protobuf.read(payload, &mut rows)?,
                }
            }
        }
        Ok(true)
    }

    fn append_texts(&mut self, texts: &[Option<&str>], log_time: Option<i64>) -> Result<(), Bad> {
        let Body::Records(record, _) = &mut self.body else { return Ok(()) };
        for (column, text) in record.columns.iter_mut().zip(texts) {
            column.push_field(*text)?;
        }
        self.filled += 1;
        check_event_time(self.event_time.as_ref(), record, log_time)
    }

    fn abandon(&mut self, before: usize) {
        let end = self.longest().max(before);
        if let Body::Records(record, _) = &mut self.body {
            record.columns.iter_mut().for_each(|c| c.pad(end));
        }
        self.filled = end;
        if end > before {
            self.abandoned.push((before, end));
        }
    }

    fn longest(&self) -> usize {
        match &self.body {
            Body::Records(record, _) => record.columns.iter().map(|c| c.longest()).max().unwrap_or(0),
            Body::Text(_) | Body::Bytes(_) | Body::Nothing { .. } => self.filled,
        }
    }
}

/// Rows of one payload whose bytes say little of how many there are: some kilobytes, packed, could otherwise fill the
/// memory.
const MOST_ROWS: usize = 1_000_000;

/// Where records become rows.
pub struct Appender<'a> {
    record: &'a mut Record,
    filled: &'a mut usize,
    /// `filled` goes no further.
    most: usize,
    unknown: UnknownFields,
    event_time: Option<&'a EventTime>,
    log_time: Option<i64>,
}

impl Appender<'_> {
    /// Appends what `read` puts into the columns: one value into each.
    #[inline]
    pub fn append(&mut self, read: impl FnOnce(&mut Record) -> Result<(), Bad>) -> Result<(), Bad> {
        if *self.filled == self.most {
            return Err(bad("too-many-rows", format_args!("the payload holds more than {MOST_ROWS} records")));
        }
        read(self.record)?;
        *self.filled += 1;
        if let Some(name) = self.record.watch.as_mut().and_then(|watch| watch.unknown.take())
            && self.unknown == UnknownFields::DeadLetter
        {
            return Err(bad("unknown-field", format_args!("no column takes the field {name}")));
        }
        check_event_time(self.event_time, self.record, self.log_time)
    }
}

fn append_json(text: &str, rows: &mut Appender<'_>) -> Result<(), Bad> {
    let mut scanner = Scanner::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    if scanner.peek() == b'[' {
        scanner.array(|scanner| append_object(scanner, rows))?;
        return Ok(scanner.end()?);
    }
    loop {
        append_object(&mut scanner, rows)?;
        let behind = scanner.rest();
        if scanner.end().is_ok() {
            return Ok(());
        }
        if !behind[..behind.len() - scanner.rest().len()].contains('\n') {
            let next: String = scanner.rest().chars().take(20).collect();
            return Err(bad("not-json", format_args!("after the record comes {next:?}")));
        }
    }
}

fn append_object(scanner: &mut Scanner<'_>, rows: &mut Appender<'_>) -> Result<(), Bad> {
    if scanner.peek() != b'{' {
        let found = scanner.raw()?;
        let found: String = found.chars().take(20).collect();
        return Err(bad("wrong-type", format_args!("found {found}, expected a JSON object")));
    }
    rows.append(|record| record.read(scanner))
}

/// The columns of records, and who looks at the fields that none takes.
fn watched(schema: &SchemaRef, options: &JsonOptions) -> Result<Record, String> {
    let mut record = Record::new(schema.fields(), options.lenient)?;
    let watch = |counts| Some(Box::new(Watch::new(&options.declared, schema.fields().len(), counts)));
    record.watch = match options.unknown {
        UnknownFields::Ignore => None,
        UnknownFields::Warn => watch(true),
        UnknownFields::DeadLetter => watch(false),
    };
    Ok(record)
}

fn check_event_time(bound: Option<&EventTime>, record: &Record, log_time: Option<i64>) -> Result<(), Bad> {
    if let (Some(bound), Some(log_time)) = (bound, log_time)
        && let Some(time) = record.columns[bound.column].last_instant()
        && time.saturating_sub(log_time) > bound.max_ahead
    {
        let ahead = Duration::from_nanos((time - log_time) as u64);
        let name = record.columns[bound.column].field.name();
        return Err(bad(
            "future-event-time",
            format_args!(
                "{name} lies {ahead:?} ahead of the log's own timestamp: a wrong clock must not move the watermark"
            ),
        ));
    }
    Ok(())
}

fn utf8(payload: &[u8]) -> Result<&str, Bad> {
    simdutf8::basic::from_utf8(payload).map_err(|_| {
        let valid = std::str::from_utf8(payload).map_or_else(|e| e.valid_up_to(), str::len);
        bad("not-json", format_args!("not UTF-8 after byte {valid}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampNanosecondType};

    fn instant() -> DataType {
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
    }

    fn decoder(fields: Vec<Field>, options: JsonOptions) -> Decoder {
        Decoder::new(Arc::new(Schema::new(fields)), Format::Json, options, None).unwrap()
    }

    fn event() -> Decoder {
        let nested = DataType::Struct(vec![Field::new("m1", DataType::Float64, true)].into());
        decoder(
            vec![
                Field::new("id", DataType::Utf8, false),
                Field::new("n", DataType::Int64, true),
                Field::new("x", DataType::Float64, true),
                Field::new("at", instant(), true),
                Field::new("more", nested, true),
                Field::new("list", DataType::new_list(DataType::Int64, true), true),
                Field::new("raw", DataType::Utf8, true)
                    .with_metadata([("ARROW:extension:name".into(), "arrow.json".into())].into()),
            ],
            JsonOptions::default(),
        )
    }

    #[test]
    fn an_event_becomes_a_row_whatever_the_order_of_its_fields() {
        let mut decoder = event();
        let first = br#"{"id":"a","n":1,"x":0.5,"at":"2019-11-19T10:10:11.5091350Z","more":{"m1":2.5},"list":[1,2],"raw":{"k": [1]}}"#;
        assert_eq!(decoder.push(first, None), Ok(1));
        assert_eq!(decoder.push(br#"{"raw":null,"n":2.0,"other":{},"id":"b"}"#, None), Ok(1));
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().values(), &[1, 2]);
        assert_eq!(batch.column(3).as_primitive::<TimestampNanosecondType>().value(0), 1_574_158_211_509_135_000);
        assert_eq!(batch.column(6).as_string::<i32>().value(0), r#"{"k": [1]}"#);
        assert!(batch.column(4).is_null(1) && batch.column(5).is_null(1) && batch.column(6).is_null(1));
        let more = batch.column(4).as_struct().column(0).as_primitive::<Float64Type>().value(0);
        assert_eq!(more, 2.5);
    }

    #[test]
    fn a_double_is_the_same_wherever_it_stands() {
        let numbers =
            ["0", "-0", "-0.0", "7", "1.5", "1e3", "9007199254740993", "18446744073709551616", "0.12345678901234567"];
        let mut decoder = decoder(vec![Field::new("x", DataType::Float64, true)], JsonOptions::default());
        for number in numbers {
            for before in ["", r#""other": "some text that stands before it","#] {
                decoder.push(format!(r#"{{{before}"x":{number}}}"#).as_bytes(), None).unwrap();
            }
        }
        let batch = decoder.finish().unwrap();
        let found = batch.column(0).as_primitive::<Float64Type>().values().iter().map(|x| x.to_bits());
        let expected = numbers.iter().flat_map(|number| [number.parse::<f64>().unwrap().to_bits(); 2]);
        assert!(found.eq(expected), "{batch:?}");
    }

    #[test]
    fn no_null_of_one_batch_is_in_the_next() {
        let mut decoder = decoder(vec![Field::new("x", DataType::Float64, true)], JsonOptions::default());
        for (batch, nulls) in [("null 1 null", 2), ("1 2", 0), ("null", 1), ("", 0)] {
            for value in batch.split_whitespace() {
                decoder.push(format!(r#"{{"x":{value}}}"#).as_bytes(), None).unwrap();
            }
            let batch = decoder.finish().unwrap();
            assert_eq!(batch.column(0).null_count(), nulls);
        }
    }

    #[test]
    fn each_kind_of_bad_record_is_rejected_with_its_code_and_its_neighbours_stay() {
        for (payload, code, says) in [
            (r#"{"id":"a""#, "not-json", "byte 9: a comma or the end of the object is expected"),
            (r#"{"id":"a"#, "not-json", "byte 8: the end of the string is expected"),
            (r#"{"id":"a"} trailing"#, "not-json", "after the record comes"),
            (r#"42"#, "wrong-type", "a JSON object"),
            (r#"{"id":7}"#, "wrong-type", "id: found a number"),
            (r#"{"id":"a","n":"7"}"#, "wrong-type", "n: found the text \"7\""),
            (r#"{"id":"a","n":1.5}"#, "wrong-type", "n: found the number 1.5"),
            (r#"{"id":"a","n":9223372036854775808}"#, "out-of-range", "9223372036854775808 does not fit Int64"),
            (r#"{"n":1}"#, "missing", "id is missing and NOT NULL"),
            (r#"{"id":null}"#, "missing", "id is null and NOT NULL"),
            (r#"{"id":"a","at":"soon"}"#, "bad-timestamp", "at: \"soon\""),
            (r#"{"id":"a","at":"2500-01-01T00:00:00Z"}"#, "bad-timestamp", "between 1678 and 2261"),
            (r#"{"id":"a","more":{"m1":"x"}}"#, "wrong-type", "m1: found the text"),
            (r#"{"id":"a","list":[1,"x"]}"#, "wrong-type", "found the text"),
            (r#"{"id":"a","id":"b"}"#, "not-json", "the field id comes twice"),
            (r#"{"id":"a","x":1e400}"#, "out-of-range", "x: 1e400 does not fit"),
            (r#"{"id":"a","n":1e400}"#, "out-of-range", "n: 1e400 does not fit"),
            (r#"{"id":"a","n":123456789012345678901234567890123456789012}"#, "out-of-range", "does not fit Int64"),
            (r#"{"id":"a","x":NaN}"#, "not-json", "byte 14: a value is expected"),
        ] {
            let mut decoder = event();
            decoder.push(br#"{"id":"before","list":[7]}"#, None).unwrap();
            let reject = decoder.push(payload.as_bytes(), None).unwrap_err();
            assert_eq!(reject.code, code, "{payload}: {}", reject.error);
            assert!(reject.error.contains(says), "{payload}: {}", reject.error);
            decoder.push(br#"{"id":"after","list":[8,9]}"#, None).unwrap();
            let batch = decoder.finish().unwrap();
            let ids: Vec<_> = batch.column(0).as_string::<i32>().iter().flatten().collect();
            assert_eq!(ids, ["before", "after"], "{payload}");
            assert_eq!(batch.column(5).as_list::<i32>().value(1).len(), 2, "{payload}");
        }
    }

    #[test]
    fn a_record_that_breaks_inside_its_first_field_leaves_nothing_to_the_next() {
        for broken in [r#"{"list":[7,8,"x"]}"#, r#"{"more":{"m1":7.5,"m1":8.5}}"#, r#"{"more":{"m1":7.5"#] {
            let mut decoder = event();
            decoder.push(broken.as_bytes(), None).unwrap_err();
            decoder.push(br#"{"id":"next","list":[1],"more":{"m1":2.5}}"#, None).unwrap();
            let batch = decoder.finish().unwrap();
            assert_eq!(
                batch.column(5).as_list::<i32>().value(0).as_primitive::<Int64Type>().values(),
                &[1],
                "{broken}"
            );
            let more = batch.column(4).as_struct().column(0).as_primitive::<Float64Type>();
            assert_eq!(more.values(), &[2.5], "{broken}");
        }
    }

    #[test]
    fn several_records_in_one_payload_are_taken_or_rejected_together() {
        let mut decoder = event();
        assert_eq!(decoder.push(b"\xef\xbb\xbf{\"id\":\"a\"}\n{\"id\":\"b\"}\n", None), Ok(2));
        assert_eq!(decoder.push(br#"[{"id":"c"},{"id":"d"}]"#, None), Ok(2));
        assert!(decoder.push(br#"[{"id":"e"},{"n":1}]"#, None).is_err());
        assert!(decoder.push(b"{\"id\":\"f\"}\n{\"id\":", None).is_err());
        assert_eq!(decoder.rows(), 4);
        let batch = decoder.finish().unwrap();
        let ids: Vec<_> = batch.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(ids, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_time_far_ahead_of_the_log_s_own_is_rejected() {
        let schema = Arc::new(Schema::new(vec![Field::new("at", instant(), true)]));
        let bound = Some((0, Duration::from_secs(3600)));
        let mut decoder = Decoder::new(schema, Format::Json, JsonOptions::default(), bound).unwrap();
        let log_time = Some(1_574_158_211_000_000_000);
        assert_eq!(decoder.push(br#"{"at":"2019-11-19T11:10:00Z"}"#, log_time), Ok(1));
        let reject = decoder.push(br#"{"at":"2099-01-01T00:00:00Z"}"#, log_time).unwrap_err();
        assert_eq!(reject.code, "future-event-time");
        assert_eq!(decoder.finish().unwrap().num_rows(), 1);
    }

    #[test]
    fn fields_that_no_column_takes_are_counted_with_a_sample_over_the_first_rows() {
        let options = JsonOptions {
            unknown: UnknownFields::Warn,
            declared: vec!["id".into(), "typo".into(), "unread".into()],
            ..JsonOptions::default()
        };
        let fields = vec![Field::new("id", DataType::Utf8, true), Field::new("typo", DataType::Int64, true)];
        let mut decoder = decoder(fields, options);
        decoder.push(br#"{"id":"a","tpyo":7,"unread":1}"#, None).unwrap();
        decoder.push(br#"{"id":null,"unread":{"tpyo":1}}"#, None).unwrap();
        let observed = decoder.observed().unwrap();
        let columns: Vec<_> = observed.columns.into_iter().collect();
        assert_eq!((observed.rows, columns), (2, vec![("id".into(), 2), ("typo".into(), 0)]));
        let unknown: Vec<_> = observed.unknown.into_iter().collect();
        assert_eq!(unknown, [("tpyo".to_string(), (1, "7".to_string()))]);
        assert_eq!(decoder.observed(), None, "nothing since");
        for _ in 0..=OBSERVED_ROWS {
            decoder.push(br#"{"tpyo":7}"#, None).unwrap();
        }
        assert_eq!(decoder.observed().unwrap().rows, OBSERVED_ROWS + 1);
        decoder.push(br#"{"tpyo":7}"#, None).unwrap();
        assert_eq!(decoder.observed(), None, "that was enough");
    }

    #[test]
    fn a_record_with_an_unknown_field_is_rejected_when_asked_for_and_one_that_is_only_not_read_is_taken() {
        let options = JsonOptions {
            unknown: UnknownFields::DeadLetter,
            declared: vec!["id".into(), "unread".into()],
            ..JsonOptions::default()
        };
        let mut decoder = decoder(vec![Field::new("id", DataType::Utf8, true)], options);
        assert_eq!(decoder.push(br#"{"id":"a","unread":1}"#, None), Ok(1));
        let reject = decoder.push(br#"{"id":"b","other":1}"#, None).unwrap_err();
        assert_eq!((reject.code, reject.error.as_str()), ("unknown-field", "no column takes the field other"));
        assert_eq!(decoder.push(br#"{"id":"c"}"#, None), Ok(1));
        assert_eq!(decoder.finish().unwrap().num_rows(), 2);
    }

    #[test]
    fn numbers_in_quotes_are_taken_when_asked_for() {
        let lenient = JsonOptions { lenient: true, ..JsonOptions::default() };
        let mut decoder = decoder(vec![Field::new("n", DataType::Int64, true)], lenient);
        assert_eq!(decoder.push(br#"{"n":"7"}"#, None), Ok(1));
        assert!(decoder.push(br#"{"n":"seven"}"#, None).is_err());
    }

    #[test]
    fn a_query_that_reads_no_column_still_counts_rows() {
        let mut decoder = decoder(vec![], JsonOptions::default());
        decoder.push(br#"{"id":"a"}"#, None).unwrap();
        decoder.push(b"junk", None).unwrap_err();
        assert_eq!(decoder.finish().unwrap().num_rows(), 1);
    }

    #[test]
    fn decimals_are_exact() {
        let mut decoder = decoder(vec![Field::new("d", DataType::Decimal128(10, 2), true)], JsonOptions::default());
        assert_eq!(decoder.push(br#"{"d":12345678.9}"#, None), Ok(1));
        assert_eq!(decoder.push(br#"{"d":1.239}"#, None).unwrap_err().code, "out-of-range");
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.column(0).as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 1_234_567_890);
    }
}
