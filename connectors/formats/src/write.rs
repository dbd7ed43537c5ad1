//! Rows into JSON lines.

use std::fmt::{Debug, Display};
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, BinaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, WriterBuilder};

use crate::encoded::EncodedRows;

/// Appends one object a row. What is NULL is left out; a `JSON` column is a value and not text in quotes; bytes are base64.
/// What JSON has no word for ([`unwritable`](crate::unwritable)) is text: for people, since others should not be given it.
pub fn json_lines(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    lines(WriterBuilder::new(), batch, out)
}

/// The same, and what is NULL is `null`, within nested values too.
pub fn json_lines_with_nulls(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    lines(WriterBuilder::new().with_explicit_nulls(true), batch, out)
}

fn lines(builder: WriterBuilder, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let mut writer = builder.with_encoder_factory(as_read()).build::<_, LineDelimited>(out);
    writer.write(batch)?;
    writer.finish()
}

/// As [`json_lines`], each row with the end of its line.
pub fn json_rows(batch: &RecordBatch) -> Result<EncodedRows, ArrowError> {
    let mut bytes = vec![];
    json_lines(batch, &mut bytes)?;
    let ends = memchr::memchr_iter(b'\n', &bytes).map(|end| end + 1).collect();
    Ok(EncodedRows { bytes, ends })
}

/// Writes what arrow writes otherwise than the decoder reads it.
pub fn as_read() -> Arc<dyn EncoderFactory> {
    Arc::new(AsRead)
}

#[derive(Debug)]
struct AsRead;

impl EncoderFactory for AsRead {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<arrow::json::writer::NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Utf8 if crate::column::is_json(field) => Box::new(Raw(array.as_string::<i32>())),
            DataType::Binary => Box::new(Base64(array.as_binary::<i32>())),
            DataType::Float32 if !array.as_primitive::<Float32Type>().values().iter().all(|n| n.is_finite()) => {
                Box::new(Words::of(array.as_primitive::<Float32Type>(), |n| n.is_finite()))
            }
            DataType::Float64 if !array.as_primitive::<Float64Type>().values().iter().all(|n| n.is_finite()) => {
                Box::new(Words::of(array.as_primitive::<Float64Type>(), |n| n.is_finite()))
            }
            _ => return Ok(None),
        };
        Ok(Some(arrow::json::writer::NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Raw<'a>(&'a StringArray);

impl Encoder for Raw<'_> {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        // Within JSON, a line's end can only stand between tokens.
        let text = self.0.value(index).bytes();
        out.extend(text.map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
    }
}

/// Numbers of which some are none to JSON: those are text, and never `null`.
struct Words(Vec<String>);

impl Words {
    fn of<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, is_finite: fn(T::Native) -> bool) -> Self
    where
        T::Native: Debug + Display,
    {
        let word = |n: &T::Native| if is_finite(*n) { format!("{n:?}") } else { format!("\"{n}\"") };
        Words(array.values().iter().map(word).collect())
    }
}

impl Encoder for Words {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0[index].as_bytes());
    }
}

struct Base64<'a>(&'a BinaryArray);

impl Encoder for Base64<'_> {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend(base64_digits(self.0.value(index)));
        out.push(b'"');
    }
}

/// Standard base64, padded.
pub fn base64_digits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes.chunks(3).flat_map(|group| {
        let three = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        let digit = move |place: usize| DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
        (0..4).map(move |place| if place <= group.len() { digit(place) } else { b'=' })
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StructArray};
    use arrow::datatypes::{Field, Fields, Schema};

    use super::*;
    use crate::{Decoder, Format, JsonOptions};

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let json = Field::new("raw", DataType::Utf8, true)
            .with_metadata([("ARROW:extension:name".into(), "arrow.json".into())].into());
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            json,
            Field::new("bytes", DataType::Binary, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)])),
            Arc::new(StringArray::from(vec![Some(r#"{"k": [1, "a b"]}"#), None, Some("7"), Some("[]")])),
            Arc::new(BinaryArray::from(vec![Some(b"\x00\xff".as_slice()), Some(b""), None, Some(b"abcd")])),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut lines = vec![];
        json_lines(&batch, &mut lines).unwrap();
        let text = String::from_utf8(lines.clone()).unwrap();
        assert_eq!(text.lines().next().unwrap(), r#"{"n":1,"raw":{"k": [1, "a b"]},"bytes":"AP8="}"#);
        let mut decoder = Decoder::new(schema, Format::Json, JsonOptions::default(), None).unwrap();
        decoder.push(&lines, None).unwrap();
        assert_eq!(decoder.finish().unwrap(), batch);
    }

    #[test]
    fn what_is_null_is_left_out_or_written_as_null_within_nested_values_too() {
        let fields = Fields::from(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Int64, true)]);
        let parts: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![None]))];
        let nested: ArrayRef = Arc::new(StructArray::new(fields, parts, None));
        let none: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        let batch = RecordBatch::try_from_iter_with_nullable([("n", none, true), ("s", nested, true)]).unwrap();
        let (mut without, mut with) = (vec![], vec![]);
        json_lines(&batch, &mut without).unwrap();
        json_lines_with_nulls(&batch, &mut with).unwrap();
        assert_eq!(without, b"{\"s\":{\"x\":1}}\n");
        assert_eq!(with, b"{\"n\":null,\"s\":{\"x\":1,\"y\":null}}\n");
    }

    #[test]
    fn what_json_has_no_word_for_is_text_for_people_and_never_null() {
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 1.0, 1e300, f64::NEG_INFINITY]));
        let batch = RecordBatch::try_from_iter([("x", numbers)]).unwrap();
        let mut lines = vec![];
        json_lines(&batch, &mut lines).unwrap();
        let expected = "{\"x\":\"NaN\"}\n{\"x\":1.0}\n{\"x\":1e300}\n{\"x\":\"-inf\"}\n";
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }

    #[test]
    fn a_json_value_that_was_written_over_several_lines_stays_on_one() {
        let field = Field::new("raw", DataType::Utf8, true)
            .with_metadata([("ARROW:extension:name".into(), "arrow.json".into())].into());
        let column: ArrayRef = Arc::new(StringArray::from(vec!["{\n  \"a\": 1\r\n}"]));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
        let mut lines = vec![];
        json_lines(&batch, &mut lines).unwrap();
        assert_eq!(String::from_utf8(lines).unwrap(), "{\"raw\":{   \"a\": 1  }}\n");
    }
}
