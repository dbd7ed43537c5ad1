//! Arrow columns that are filled while a payload is read, without a tree of values in between.

mod doubles;
mod typed;

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, ListArray, MapArray, PrimitiveBuilder, StringBuilder,
    StructArray, TimestampNanosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Fields, Float32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use doubles::Doubles;

use crate::layout::Layout;
use crate::number::Number;
use crate::record::Record;
use crate::reject::{Bad, bad};
use crate::scanner::Scanner;
use crate::timestamp::parse_instant;

pub use typed::{bytes_text, day_text, decimal_text, instant_text};

/// One column, or one part of a nested one.
pub struct Column {
    pub field: FieldRef,
    values: Values,
    lenient: bool,
}

enum Values {
    Boolean(BooleanBuilder),
    Int8(PrimitiveBuilder<Int8Type>),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    UInt8(PrimitiveBuilder<UInt8Type>),
    UInt16(PrimitiveBuilder<UInt16Type>),
    UInt32(PrimitiveBuilder<UInt32Type>),
    UInt64(PrimitiveBuilder<UInt64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(Doubles),
    Text(StringBuilder),
    /// Carried along as it is written.
    Json {
        text: StringBuilder,
        layout: Layout,
    },
    Binary(BinaryBuilder),
    Date(PrimitiveBuilder<Date32Type>),
    Instant(TimestampNanosecondBuilder),
    Decimal(Decimal128Builder),
    Struct {
        fields: Record,
        valid: Vec<bool>,
    },
    List {
        item: Box<Column>,
        offsets: Vec<i32>,
        valid: Vec<bool>,
    },
    Map {
        entry: FieldRef,
        keys: StringBuilder,
        values: Box<Column>,
        offsets: Vec<i32>,
        valid: Vec<bool>,
    },
}

macro_rules! each_primitive {
    ($values:expr, $b:ident => $primitive:expr, $($rest:tt)*) => {
        match $values {
            Values::Boolean($b) => $primitive,
            Values::Int8($b) => $primitive,
            Values::Int16($b) => $primitive,
            Values::Int32($b) => $primitive,
            Values::Int64($b) => $primitive,
            Values::UInt8($b) => $primitive,
            Values::UInt16($b) => $primitive,
            Values::UInt32($b) => $primitive,
            Values::UInt64($b) => $primitive,
            Values::Float32($b) => $primitive,
            Values::Float64($b) => $primitive,
            Values::Text($b) | Values::Json { text: $b, .. } => $primitive,
            Values::Binary($b) => $primitive,
            Values::Date($b) => $primitive,
            Values::Instant($b) => $primitive,
            Values::Decimal($b) => $primitive,
            $($rest)*
        }
    };
}

impl Column {
    pub fn new(field: &FieldRef, lenient: bool) -> Result<Column, String> {
        let json = is_json(field);
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Values::Int8(PrimitiveBuilder::new()),
            DataType::Int16 => Values::Int16(PrimitiveBuilder::new()),
            DataType::Int32 => Values::Int32(PrimitiveBuilder::new()),
            DataType::Int64 => Values::Int64(PrimitiveBuilder::new()),
            DataType::UInt8 => Values::UInt8(PrimitiveBuilder::new()),
            DataType::UInt16 => Values::UInt16(PrimitiveBuilder::new()),
            DataType::UInt32 => Values::UInt32(PrimitiveBuilder::new()),
            DataType::UInt64 => Values::UInt64(PrimitiveBuilder::new()),
            DataType::Float32 => Values::Float32(PrimitiveBuilder::new()),
            DataType::Float64 => Values::Float64(Doubles::default()),
            DataType::Utf8 if json => Values::Json { text: StringBuilder::new(), layout: Layout::default() },
            DataType::Utf8 => Values::Text(StringBuilder::new()),
            DataType::Binary => Values::Binary(BinaryBuilder::new()),
            DataType::Date32 => Values::Date(PrimitiveBuilder::new()),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Values::Instant(TimestampNanosecondBuilder::new().with_data_type(field.data_type().clone()))
            }
            DataType::Decimal128(..) => {
                Values::Decimal(Decimal128Builder::new().with_data_type(field.data_type().clone()))
            }
            DataType::Struct(fields) => Values::Struct { fields: Record::new(fields, lenient)?, valid: vec![] },
            DataType::List(item) => {
                let item = Box::new(Column::new(item, lenient)?);
                Values::List { item, offsets: vec![0], valid: vec![] }
            }
            DataType::Map(entry, _) => {
                let DataType::Struct(parts) = entry.data_type() else { return Err("a map without entries".into()) };
                if parts[0].data_type() != &DataType::Utf8 {
                    return Err(format!("the keys of {} must be strings, as JSON's are", field.name()));
                }
                let values = Box::new(Column::new(&parts[1], lenient)?);
                let keys = StringBuilder::new();
                Values::Map { entry: entry.clone(), keys, values, offsets: vec![0], valid: vec![] }
            }
            other => return Err(format!("column {}: type {other} cannot be read from JSON", field.name())),
        };
        Ok(Column { field: field.clone(), values, lenient })
    }

    pub fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        each_primitive!(&self.values, b => b.len(),
            Values::Struct { valid, .. } | Values::List { valid, .. } | Values::Map { valid, .. } => valid.len(),)
    }

    /// The time that was read last, of a timestamp column.
    pub fn last_instant(&self) -> Option<i64> {
        use arrow::array::ArrayBuilder;
        let Values::Instant(builder) = &self.values else { return None };
        let last = ArrayBuilder::len(builder).checked_sub(1)?;
        let valid = builder.validity_slice().is_none_or(|bits| bits[last / 8] >> (last % 8) & 1 == 1);
        valid.then(|| builder.values_slice()[last])
    }

    fn push_null(&mut self) {
        each_primitive!(&mut self.values, b => b.append_null(),
        Values::Struct { fields, valid } => {
            fields.columns.iter_mut().for_each(Column::push_null);
            valid.push(false);
        }
        Values::List { offsets, valid, .. } | Values::Map { offsets, valid, .. } => {
            offsets.push(offsets[offsets.len() - 1]);
            valid.push(false);
        })
    }

    /// Makes the column `rows` long again after a record that was abandoned half-way.
    pub fn pad(&mut self, rows: usize) {
        match &mut self.values {
            Values::Struct { fields, valid } => {
                fields.columns.iter_mut().for_each(|c| c.pad(rows));
                valid.resize(rows, false);
            }
            Values::List { item, offsets, valid } => {
                let items = item.longest();
                item.pad(items);
                if valid.len() < rows {
                    offsets.push(items as i32);
                    valid.push(false);
                }
            }
            Values::Map { keys, values, offsets, valid, .. } => {
                use arrow::array::ArrayBuilder;
                let entries = values.longest().max(keys.len());
                values.pad(entries);
                while keys.len() < entries {
                    keys.append_value("");
                }
                if valid.len() < rows {
                    offsets.push(entries as i32);
                    valid.push(false);
                }
            }
            _ => {}
        }
        while self.len() < rows {
            self.push_null();
        }
    }

    /// Rows that were at least begun: a record that was abandoned inside a nested value left parts of it behind.
    pub fn longest(&self) -> usize {
        use arrow::array::ArrayBuilder;
        let begun =
            |offsets: &[i32], items: usize| usize::from(offsets.last().is_some_and(|end| items > *end as usize));
        match &self.values {
            Values::Struct { fields, valid } => {
                fields.columns.iter().map(Column::longest).max().unwrap_or(0).max(valid.len())
            }
            Values::List { item, offsets, valid } => valid.len() + begun(offsets, item.longest()),
            Values::Map { keys, values, offsets, valid, .. } => {
                valid.len() + begun(offsets, values.longest().max(keys.len()))
            }
            _ => self.len(),
        }
    }

    pub fn finish(&mut self) -> Result<ArrayRef, arrow::error::ArrowError> {
        let nulls = |valid: &mut Vec<bool>| Some(NullBuffer::from(std::mem::take(valid)));
        let take_offsets =
            |offsets: &mut Vec<i32>| OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])));
        Ok(each_primitive!(&mut self.values, b => Arc::new(b.finish()) as ArrayRef,
        Values::Struct { fields, valid } => {
            let types: Fields = fields.columns.iter().map(|c| c.field.clone()).collect();
            let rows = valid.len();
            let columns = fields.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
            Arc::new(StructArray::try_new_with_length(types, columns, nulls(valid), rows)?)
        }
        Values::List { item, offsets, valid } => {
            let values = item.finish()?;
            Arc::new(ListArray::try_new(item.field.clone(), take_offsets(offsets), values, nulls(valid))?)
        }
        Values::Map { entry, keys, values, offsets, valid } => {
            let DataType::Struct(parts) = entry.data_type() else { unreachable!("checked when it was made") };
            let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), values.finish()?];
            let entries = StructArray::try_new(parts.clone(), columns, None)?;
            Arc::new(MapArray::try_new(entry.clone(), take_offsets(offsets), entries, nulls(valid), false)?)
        }))
    }

    /// Takes the next value. Always inlined, as what it calls for most values: a call each costs a tenth of the whole.
    #[inline(always)]
    pub fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Bad> {
        let first = scanner.peek();
        match (&mut self.values, first) {
            (Values::Float64(b), b'-' | b'0'..=b'9') => match scanner.plain_double() {
                Some(double) => Ok(b.append_value(double)),
                None => self.read_any_double(scanner),
            },
            (Values::Text(b), b'"') => Ok(b.append_value(scanner.string()?)),
            (Values::Json { text, layout }, _) if first != b'n' => Ok(text.append_value(scanner.raw_like(layout)?)),
            (Values::Struct { fields, valid }, b'{') => {
                fields.read(scanner)?;
                Ok(valid.push(true))
            }
            _ => self.read_other(scanner, first),
        }
    }

    /// What is written as an integer is a double here, too, so that -0 keeps its sign.
    #[cold]
    fn read_any_double(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Bad> {
        let number = scanner.number()?;
        self.push_as_double(&number)
    }

    fn read_other(&mut self, scanner: &mut Scanner<'_>, first: u8) -> Result<(), Bad> {
        match first {
            b'-' | b'0'..=b'9' => self.push_number(&scanner.number()?),
            b'"' => self.push_text(&scanner.string()?),
            b'[' => self.read_array(scanner),
            b'{' => self.read_map(scanner),
            _ => match scanner.word()? {
                Some(value) => self.push_bool(value),
                None => self.push_absent("null"),
            },
        }
    }

    fn read_array(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Bad> {
        let Values::List { item, offsets, valid } = &mut self.values else { return Err(self.wrong("an array")) };
        scanner.array(|scanner| item.read(scanner))?;
        offsets.push(item.len() as i32);
        Ok(valid.push(true))
    }

    fn read_map(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Bad> {
        let Values::Map { keys, values, offsets, valid, .. } = &mut self.values else {
            return Err(self.wrong("an object"));
        };
        let mut first = true;
        while let Some(key) = scanner.name(first)? {
            keys.append_value(key);
            values.read(scanner)?;
            first = false;
        }
        offsets.push(values.len() as i32);
        Ok(valid.push(true))
    }

    #[cold]
    fn wrong(&self, found: impl Display) -> Bad {
        bad("wrong-type", format_args!("{}: found {found}, expected {}", self.field.name(), describe(&self.field)))
    }

    #[cold]
    fn out_of_range(&self, value: impl Display) -> Bad {
        bad("out-of-range", format_args!("{}: {value} does not fit {}", self.field.name(), describe(&self.field)))
    }

    /// Takes a field that is `null` or `missing`.
    pub fn push_absent(&mut self, how: &str) -> Result<(), Bad> {
        if !self.field.is_nullable() {
            return Err(bad("missing", format_args!("{} is {how} and NOT NULL", self.field.name())));
        }
        self.push_null();
        Ok(())
    }

    fn push_bool(&mut self, value: bool) -> Result<(), Bad> {
        match &mut self.values {
            Values::Boolean(b) => Ok(b.append_value(value)),
            _ => Err(self.wrong(value)),
        }
    }

    fn push_number(&mut self, number: &Number<'_>) -> Result<(), Bad> {
        if let Values::Decimal(_) = self.values {
            return self.push_decimal(number.text());
        }
        if !self.is_number() {
            return Err(self.wrong("a number"));
        }
        match number.integer() {
            Some(integer) => self.push_integer(integer),
            None if number.is_integer && is_integer(&self.values) => Err(self.out_of_range(number.text())),
            None => self.push_as_double(number),
        }
    }

    fn push_as_double(&mut self, number: &Number<'_>) -> Result<(), Bad> {
        match number.double() {
            double if double.is_finite() => self.push_float(double),
            _ => Err(self.out_of_range(number.text())),
        }
    }

    fn push_integer(&mut self, value: i128) -> Result<(), Bad> {
        macro_rules! fit {
            ($builder:ident, $type:ty) => {
                match <$type>::try_from(value) {
                    Ok(value) => Ok($builder.append_value(value)),
                    Err(_) => Err(self.out_of_range(value)),
                }
            };
        }
        match &mut self.values {
            Values::Int8(b) => fit!(b, i8),
            Values::Int16(b) => fit!(b, i16),
            Values::Int32(b) => fit!(b, i32),
            Values::Int64(b) => fit!(b, i64),
            Values::UInt8(b) => fit!(b, u8),
            Values::UInt16(b) => fit!(b, u16),
            Values::UInt32(b) => fit!(b, u32),
            Values::UInt64(b) => fit!(b, u64),
            Values::Float32(b) => Ok(b.append_value(value as f32)),
            Values::Float64(b) => Ok(b.append_value(value as f64)),
            _ => Err(self.wrong("a number")),
        }
    }

    fn push_float(&mut self, value: f64) -> Result<(), Bad> {
        match &mut self.values {
            Values::Float64(b) => Ok(b.append_value(value)),
            Values::Float32(b) => match value as f32 {
                narrow if narrow.is_finite() => Ok(b.append_value(narrow)),
                _ => Err(self.out_of_range(value)),
            },
            // 1.0 is an integer, 1.5 is not. Beyond 2^53 a fraction says nothing about the last digits.
            values if is_integer(values) && value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 => {
                self.push_integer(value as i128)
            }
            values if is_integer(values) => Err(self.wrong(format_args!("the number {value}"))),
            _ => Err(self.wrong("a number")),
        }
    }

    fn push_text(&mut self, text: &str) -> Result<(), Bad> {
        if self.lenient && self.is_number() {
            return self.push_quoted_number(text);
        }
        if self.lenient && matches!(self.values, Values::Decimal(_)) {
            return self.push_decimal(text);
        }
        match &mut self.values {
            Values::Text(b) => Ok(b.append_value(text)),
            Values::Instant(b) => match parse_instant(text) {
                Some(instant) => Ok(b.append_value(instant)),
                None => Err(bad(
                    "bad-timestamp",
                    format_args!("{}: {text:?} is not an ISO 8601 time between 1678 and 2261", self.field.name()),
                )),
            },
            Values::Date(b) => match parse_instant(text).filter(|_| text.len() == 10) {
                Some(instant) => Ok(b.append_value((instant / 86_400_000_000_000) as i32)),
                None => Err(bad("bad-timestamp", format_args!("{}: {text:?} is not a date", self.field.name()))),
            },
            Values::Binary(b) => match base64(text) {
                Some(bytes) => Ok(b.append_value(bytes)),
                None => Err(self.wrong("text that is not base64")),
            },
            _ => Err(self.wrong(format_args!("the text {:?}", shorten(text)))),
        }
    }

    /// Takes a value from a format that knows only text; `None` is NULL. What is nested is written as JSON.
    pub fn push_field(&mut self, text: Option<&str>) -> Result<(), Bad> {
        let is_text = matches!(self.values, Values::Text(_));
        let Some(text) = text.filter(|t| is_text || !t.is_empty()) else { return self.push_absent("null") };
        match &mut self.values {
            Values::Boolean(b) => match text {
                _ if text.eq_ignore_ascii_case("true") => Ok(b.append_value(true)),
                _ if text.eq_ignore_ascii_case("false") => Ok(b.append_value(false)),
                _ => Err(self.wrong(format_args!("the text {:?}", shorten(text)))),
            },
            Values::Decimal(..) => self.push_decimal(text),
            Values::Json { .. } | Values::Struct { .. } | Values::List { .. } | Values::Map { .. } => {
                let mut scanner = Scanner::new(text);
                let read = self.read(&mut scanner).and_then(|()| scanner.end().map_err(Bad::from));
                read.map_err(|mut reject| {
                    if reject.code == "not-json" {
                        reject.error = format!("{}: {}", self.field.name(), reject.error);
                    }
                    reject
                })
            }
            _ => self.push_text(text),
        }
    }

    fn is_number(&self) -> bool {
        is_integer(&self.values) || matches!(self.values, Values::Float32(_) | Values::Float64(_))
    }

    fn push_quoted_number(&mut self, text: &str) -> Result<(), Bad> {
        if let Ok(integer) = text.trim().parse::<i128>() {
            return self.push_integer(integer);
        }
        match text.trim().parse::<f64>() {
            Ok(float) if float.is_finite() => self.push_float(float),
            _ => Err(self.wrong(format_args!("the text {:?}", shorten(text)))),
        }
    }

    fn push_decimal(&mut self, digits: &str) -> Result<(), Bad> {
        let DataType::Decimal128(precision, scale) = *self.field.data_type() else {
            return Err(self.wrong("a number"));
        };
        match exact_decimal(digits, precision, scale) {
            Some(value) => {
                if let Values::Decimal(b) = &mut self.values {
                    b.append_value(value);
                }
                Ok(())
            }
            None => Err(self.out_of_range(digits)),
        }
    }
}

/// Whether a column holds JSON text that is carried along as it is written.
pub fn is_json(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|n| n == "arrow.json")
}

fn is_integer(values: &Values) -> bool {
    matches!(
        values,
        Values::Int8(_)
            | Values::Int16(_)
            | Values::Int32(_)
            | Values::Int64(_)
            | Values::UInt8(_)
            | Values::UInt16(_)
            | Values::UInt32(_)
            | Values::UInt64(_)
    )
}

fn describe(field: &Field) -> String {
    match field.data_type() {
        DataType::Utf8 => "a string".into(),
        DataType::Boolean => "true or false".into(),
        DataType::Float32 | DataType::Float64 => "a number".into(),
        DataType::Timestamp(..) => "an ISO 8601 time in quotes".into(),
        DataType::Struct(_) | DataType::Map(..) => "an object".into(),
        DataType::List(_) => "an array".into(),
        other => format!("{other}"),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The unscaled value of a decimal number's text; `None` if it does not fit without loss.
fn exact_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut value: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mut shift = scale as i32 + exponent - fraction.len() as i32;
    while shift > 0 {
        value = value.checked_mul(10)?;
        shift -= 1;
    }
    while shift < 0 {
        if value % 10 != 0 {
            return None;
        }
        value /= 10;
        shift += 1;
    }
    (value.unsigned_abs() < 10u128.checked_pow(precision as u32)?).then_some(value)
}

/// Standard base64, padded.
fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(body.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in body.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | six as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    (body.len() % 4 != 1).then_some(out)
}
