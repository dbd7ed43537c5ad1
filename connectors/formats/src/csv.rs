//! Records of text fields into rows: one record a line, unless quotes span lines. This is of files, whose records come
//! piece by piece; `payload` reads messages.

mod payload;
mod splitter;
mod writing;

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use self::splitter::Splitter;
use crate::decoder::{Decoder, Format, JsonOptions};
use crate::reject::Reject;

pub use payload::Csv;
pub use writing::CsvWriter;

/// How CSV is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    pub delimiter: u8,
    /// The first record of a file or a message names the fields. Without it, fields are the table's columns in their order.
    pub header: bool,
    /// A field with this text is NULL. An empty field is NULL too, unless its column is text.
    pub null: Option<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { delimiter: b',', header: true, null: None }
    }
}

impl CsvOptions {
    /// As people write them, each of which may be left out.
    pub fn of(delimiter: Option<&str>, header: bool, null: Option<&str>) -> Result<CsvOptions, String> {
        let delimiter = match delimiter.unwrap_or(",") {
            "\\t" => b'\t',
            text if text.len() == 1 && !text.contains(['"', '\r', '\n']) => text.as_bytes()[0],
            text => return Err(format!("expected one ASCII character that is no quote, or \\t, found '{text}'")),
        };
        Ok(CsvOptions { delimiter, header, null: null.map(String::from) })
    }
}

/// Fills a batch from CSV records.
pub struct CsvDecoder {
    decoder: Decoder,
    splitter: Splitter,
    options: CsvOptions,
    names: Vec<String>,
    /// For each column of the batch, the field that holds it; empty before the header is known.
    places: Vec<usize>,
    /// Fields of a whole record.
    width: usize,
}

/// What the beginning of some bytes held.
pub struct CsvRecord {
    /// Bytes of the record, its end included.
    pub length: usize,
    /// Rows that it became; `None` for an empty line.
    pub taken: Option<Result<usize, Reject>>,
}

impl CsvDecoder {
    /// A decoder for these columns, of a table that declares the fields `declared`, in this order.
    pub fn new(
        schema: SchemaRef,
        options: CsvOptions,
        declared: &[String],
        event_time: Option<(usize, Duration)>,
    ) -> Result<Self, String> {
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        // Whatever CSV says, it says as text: a number in quotes is a number.
        let lenient = JsonOptions { lenient: true, ..JsonOptions::default() };
        let decoder = Decoder::new(schema, Format::Json, lenient, event_time)?;
        let splitter = Splitter::new(options.delimiter);
        let mut csv = CsvDecoder { decoder, splitter, options, names, places: vec![], width: 0 };
        if !csv.options.header {
            csv.arrange(declared)?;
        }
        Ok(csv)
    }

    /// Whether the next record is the header.
    pub fn expects_header(&self) -> bool {
        self.options.header && self.width == 0
    }

    /// Takes the header from the beginning of `bytes` and returns its length; `None` if it goes on behind them.
    /// `last`: nothing follows.
    pub fn header(&mut self, bytes: &[u8], last: bool) -> Result<Option<usize>, String> {
        let Some(length) = self.splitter.split(bytes, last) else { return Ok(None) };
        let found: Option<Vec<String>> = self.splitter.texts().map(|text| text.map(String::from)).collect();
        let mut found = found.ok_or("the header is not UTF-8")?;
        let Some(first) = found.first_mut() else { return Ok(Some(length)) };
        if let Some(name) = first.strip_prefix('\u{feff}') {
            *first = name.to_string();
        }
        self.arrange(&found)?;
        Ok(Some(length))
    }

    /// Takes the record at the beginning of `bytes`; `None` if it goes on behind them. `last`: nothing follows.
    pub fn take(&mut self, bytes: &[u8], last: bool, log_time: Option<i64>) -> Option<CsvRecord> {
        let length = self.splitter.split(bytes, last)?;
        let taken = match self.splitter.count() {
            0 => None,
            _ if self.splitter.is_open() => {
                let error = "the file ends within the quotes of the record's last field".into();
                Some(Err(Reject { code: "not-csv", error }))
            }
            count if count != self.width => {
                let error = format!("the record has {count} fields, but there are {} columns", self.width);
                Some(Err(Reject { code: "not-csv", error }))
            }
            _ => Some(self.push(log_time)),
        };
        Some(CsvRecord { length, taken })
    }

    pub fn rows(&self) -> usize {
        self.decoder.rows()
    }

    /// The rows since the last call.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.decoder.finish()
    }

    fn arrange(&mut self, found: &[String]) -> Result<(), String> {
        let place = |name: &String| found.iter().position(|f| f == name);
        let missing: Vec<&str> = self.names.iter().filter(|n| place(n).is_none()).map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(format!(
                "no field for the column(s) {}; the fields are {}. If the first line is no header, say 'csv.header' = 'false'",
                missing.join(", "),
                found.join(", ")
            ));
        }
        self.places = self.names.iter().filter_map(place).collect();
        self.width = found.len();
        Ok(())
    }

    fn push(&mut self, log_time: Option<i64>) -> Result<usize, Reject> {
        let mut texts = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let Some(text) = self.splitter.get(*place) else {
                return Err(Reject { code: "not-csv", error: format!("field {} is not UTF-8", place + 1) });
            };
            texts.push(Some(text).filter(|t| self.options.null.as_deref() != Some(*t)));
        }
        self.decoder.push_texts(&texts, log_time)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, TimeUnit};

    use super::*;

    fn orders() -> SchemaRef {
        let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("price", DataType::Float64, true),
            Field::new("count", DataType::Int64, true),
            Field::new("paid", DataType::Boolean, true),
            Field::new("at", instant, true),
            Field::new("exact", DataType::Decimal128(10, 2), true),
            Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        ]))
    }

    const HEADER: &str = "count,id,price,paid,at,exact,tags\n";

    /// Takes all of `text`, which arrives `piece` bytes at a time.
    fn read(text: &str, piece: usize, options: CsvOptions) -> (RecordBatch, Vec<Reject>) {
        let declared: Vec<String> = orders().fields().iter().map(|f| f.name().clone()).collect();
        let mut csv = CsvDecoder::new(orders(), options, &declared, None).unwrap();
        let (mut rejects, mut from, mut to) = (vec![], 0, 0);
        while from < text.len() {
            let (bytes, last) = (&text.as_bytes()[from..to], to == text.len());
            if csv.expects_header() {
                match csv.header(bytes, last).unwrap() {
                    Some(length) => from += length,
                    None => to = (to + piece).min(text.len()),
                }
                continue;
            }
            match csv.take(bytes, last, None) {
                Some(record) => {
                    from += record.length;
                    rejects.extend(record.taken.and_then(Result::err));
                }
                None => to = (to + piece).min(text.len()),
            }
        }
        (csv.finish().unwrap(), rejects)
    }

    #[test]
    fn fields_find_their_columns_by_the_header_however_the_bytes_arrive() {
        let text = format!(
            "{HEADER}1,a,1.5,true,2019-11-19T10:10:11Z,7.25,\"[\"\"x\"\",\"\"y\"\"]\"\r\n\n,\"b, with\na \"\"line\"\"\",,,,,\n3,c,2,FALSE,,,"
        );
        for piece in [1, 2, 3, 7, 64, 1000] {
            let (batch, rejects) = read(&text, piece, CsvOptions::default());
            assert_eq!(rejects, [], "in pieces of {piece}");
            let ids: Vec<_> = batch.column(0).as_string::<i32>().iter().flatten().collect();
            assert_eq!(ids, ["a", "b, with\na \"line\"", "c"], "in pieces of {piece}");
            assert_eq!(batch.column(1).as_primitive::<Float64Type>().value(2), 2.0);
            assert_eq!(
                batch.column(2).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
                [Some(1), None, Some(3)]
            );
            assert!(!batch.column(3).as_boolean().value(2) && batch.column(3).is_null(1));
            assert_eq!(batch.column(5).as_primitive::<Decimal128Type>().value(0), 725);
            assert_eq!(batch.column(6).as_list::<i32>().value(0).len(), 2);
        }
    }

    #[test]
    fn a_bad_record_is_rejected_and_its_neighbours_stay() {
        for (record, code, says) in [
            ("x,a,1,true,,,", "wrong-type", "count: found the text \"x\""),
            ("9223372036854775808,a,1,true,,,", "out-of-range", "does not fit Int64"),
            ("1,a,1,maybe,,,", "wrong-type", "paid: found the text \"maybe\""),
            ("1,a,1,true,soon,,", "bad-timestamp", "at: \"soon\""),
            ("1,a,1,true,,1.239,", "out-of-range", "exact: 1.239"),
            ("1,a,1,true,,,[", "not-json", "tags"),
            ("1,NULL,1,true,,,", "missing", "id is null and NOT NULL"),
            ("1,a", "not-csv", "the record has 2 fields, but there are 7"),
        ] {
            let text = format!("{HEADER}0,before,,,,,\n{record}\n2,after,,,,,\n");
            let options = CsvOptions { null: Some("NULL".into()), ..CsvOptions::default() };
            let (batch, rejects) = read(&text, 16, options);
            assert_eq!(rejects.len(), 1, "{record}");
            assert_eq!(rejects[0].code, code, "{record}: {}", rejects[0].error);
            assert!(rejects[0].error.contains(says), "{record}: {}", rejects[0].error);
            let ids: Vec<_> = batch.column(0).as_string::<i32>().iter().flatten().collect();
            assert_eq!(ids, ["before", "after"], "{record}");
        }
    }

    #[test]
    fn what_follows_quotes_that_nobody_closes_is_no_row() {
        for piece in [1, 7, 1000] {
            let text = format!("{HEADER}0,before,,,,,\n1,a,,,,,\"[]\n2,after,,,,,\n");
            let (batch, rejects) = read(&text, piece, CsvOptions::default());
            assert_eq!((batch.num_rows(), rejects.len()), (1, 1), "in pieces of {piece}");
            assert_eq!(rejects[0].error, "the file ends within the quotes of the record's last field");
        }
    }

    #[test]
    fn without_a_header_fields_are_the_columns_in_order() {
        let options = CsvOptions { delimiter: b';', header: false, null: None };
        let (batch, rejects) = read("a;1.5;7;true;;;\n", 100, options);
        assert_eq!((batch.num_rows(), rejects.len()), (1, 0));
        assert_eq!(batch.column(2).as_primitive::<Int64Type>().value(0), 7);
    }

    #[test]
    fn a_first_line_that_is_no_header_is_noticed() {
        let mut csv = CsvDecoder::new(orders(), CsvOptions::default(), &[], None).unwrap();
        let error = csv.header(b"1,a,1.5,true,,,\n", false).unwrap_err();
        assert!(
            error.contains("no field for the column(s) id, price") && error.contains("'csv.header' = 'false'"),
            "{error}"
        );
    }
}
