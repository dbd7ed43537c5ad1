//! Arrow columns that are filled while JSON is read, without a tree of values in between.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, ListArray, MapArray, PrimitiveBuilder, StringBuilder,
    StructArray, TimestampNanosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::observed::Watch;
use crate::timestamp::parse_instant;

/// Stands between the code and the text of an error on its way through serde.
pub const MARK: char = '\u{1}';

fn bad<E: de::Error>(code: &str, text: impl fmt::Display) -> E {
    E::custom(format_args!("{code}{MARK}{text}"))
}

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
    Float64(PrimitiveBuilder<Float64Type>),
    Text(StringBuilder),
    /// Carried along as it is written.
    Json(StringBuilder),
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
            Values::Text($b) | Values::Json($b) => $primitive,
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
            DataType::Float64 => Values::Float64(PrimitiveBuilder::new()),
            DataType::Utf8 if json => Values::Json(StringBuilder::new()),
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
        each_primitive!(&self.values, b => ArrayBuilder::len(b),
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

    fn wrong<E: de::Error>(&self, found: impl fmt::Display) -> E {
        bad("wrong-type", format_args!("{}: found {found}, expected {}", self.field.name(), describe(&self.field)))
    }

    fn out_of_range<E: de::Error>(&self, value: impl fmt::Display) -> E {
        bad("out-of-range", format_args!("{}: {value} does not fit {}", self.field.name(), describe(&self.field)))
    }

    fn push_integer<E: de::Error>(&mut self, value: i128) -> Result<(), E> {
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

    fn push_float<E: de::Error>(&mut self, value: f64) -> Result<(), E> {
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

    fn push_text<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        if self.lenient && self.is_number() {
            return self.push_quoted_number(text);
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
    pub fn push_field(&mut self, text: Option<&str>) -> Result<(), serde_json::Error> {
        let is_text = matches!(self.values, Values::Text(_));
        let Some(text) = text.filter(|t| is_text || !t.is_empty()) else { return self.visit_unit() };
        match &mut self.values {
            Values::Boolean(b) => match text {
                _ if text.eq_ignore_ascii_case("true") => Ok(b.append_value(true)),
                _ if text.eq_ignore_ascii_case("false") => Ok(b.append_value(false)),
                _ => Err(self.wrong(format_args!("the text {:?}", shorten(text)))),
            },
            Values::Decimal(..) => self.push_decimal(text),
            Values::Json(_) | Values::Struct { .. } | Values::List { .. } | Values::Map { .. } => {
                let mut deserializer = serde_json::Deserializer::from_str(text);
                let read = (&mut *self).deserialize(&mut deserializer).and_then(|()| deserializer.end());
                read.map_err(|e| match e.to_string() {
                    marked if marked.contains(MARK) => e,
                    said => bad("not-json", format_args!("{}: {said}", self.field.name())),
                })
            }
            _ => self.push_text(text),
        }
    }

    fn is_number(&self) -> bool {
        is_integer(&self.values) || matches!(self.values, Values::Float32(_) | Values::Float64(_))
    }

    fn push_quoted_number<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        if let Ok(integer) = text.trim().parse::<i128>() {
            return self.push_integer(integer);
        }
        match text.trim().parse::<f64>() {
            Ok(float) if float.is_finite() => self.push_float(float),
            _ => Err(self.wrong(format_args!("the text {:?}", shorten(text)))),
        }
    }

    fn push_decimal<E: de::Error>(&mut self, digits: &str) -> Result<(), E> {
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

/// The fields of an object, the outermost or a nested one.
pub struct Record {
    pub columns: Vec<Column>,
    seen: Vec<u64>,
    record: u64,
    /// The field that is expected next: records of one stream have their fields in the same order.
    guess: usize,
    /// Meets fields that no column takes, of the outermost record and while somebody wants to know.
    pub watch: Option<Box<Watch>>,
}

impl Record {
    pub fn new(fields: &Fields, lenient: bool) -> Result<Record, String> {
        let columns = fields.iter().map(|f| Column::new(f, lenient)).collect::<Result<Vec<_>, _>>()?;
        Ok(Record { seen: vec![0; columns.len()], columns, record: 0, guess: 0, watch: None })
    }

    fn find(&mut self, name: &str) -> Option<usize> {
        let count = self.columns.len();
        let found = (0..count).map(|i| (self.guess + i) % count).find(|i| self.columns[*i].field.name() == name)?;
        self.guess = found + 1;
        Some(found)
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        self.record += 1;
        while let Some(name) = map.next_key_seed(Name)? {
            let Some(index) = self.find(&name) else {
                match &mut self.watch {
                    None => drop(map.next_value::<IgnoredAny>()?),
                    Some(watch) => watch.meet(&name, map.next_value::<&RawValue>()?.get()),
                }
                continue;
            };
            if self.seen[index] == self.record {
                return Err(bad("not-json", format_args!("the field {name} comes twice")));
            }
            self.seen[index] = self.record;
            map.next_value_seed(&mut self.columns[index])?;
        }
        if let Some(watch) = &mut self.watch {
            watch.record(self.seen.iter().map(|seen| *seen == self.record));
        }
        for (column, seen) in self.columns.iter_mut().zip(&self.seen) {
            if *seen != self.record {
                if !column.field.is_nullable() {
                    return Err(bad("missing", format_args!("{} is missing and NOT NULL", column.field.name())));
                }
                column.push_null();
            }
        }
        Ok(())
    }
}

/// A key, borrowed unless it is written with escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = std::borrow::Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = std::borrow::Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(v.into())
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
        Ok(v.to_string().into())
    }
}

/// Reads an object into the record.
impl<'de> DeserializeSeed<'de> for &mut Record {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Record {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.read(map)
    }
}

impl<'de> DeserializeSeed<'de> for &mut Column {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match &mut self.values {
            Values::Json(_) => {
                let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
                if raw.get() == "null" {
                    return self.visit_unit();
                }
                if let Values::Json(b) = &mut self.values {
                    b.append_value(raw.get());
                }
                Ok(())
            }
            Values::Decimal(..) => {
                let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
                match raw.get().as_bytes().first() {
                    Some(b'n') => self.visit_unit(),
                    Some(b'"') if self.lenient => self.push_decimal(raw.get().trim_matches('"')),
                    Some(b'-' | b'0'..=b'9') => self.push_decimal(raw.get()),
                    _ => Err(self.wrong(shorten(raw.get()))),
                }
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for &mut Column {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", describe(&self.field), self.field.name())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if !self.field.is_nullable() {
            return Err(bad("missing", format_args!("{} is null and NOT NULL", self.field.name())));
        }
        self.push_null();
        Ok(())
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<(), E> {
        match &mut self.values {
            Values::Boolean(b) => Ok(b.append_value(v)),
            _ => Err(self.wrong(v)),
        }
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<(), E> {
        self.push_integer(v as i128)
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<(), E> {
        self.push_integer(v as i128)
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<(), E> {
        self.push_float(v)
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<(), E> {
        self.push_text(v)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match &mut self.values {
            Values::Struct { fields, valid } => {
                fields.read(map)?;
                valid.push(true);
                Ok(())
            }
            Values::Map { keys, values, offsets, valid, .. } => {
                while let Some(key) = map.next_key_seed(Name)? {
                    keys.append_value(key);
                    map.next_value_seed(&mut **values)?;
                }
                offsets.push(values.len() as i32);
                valid.push(true);
                Ok(())
            }
            _ => Err(self.wrong("an object")),
        }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        match &mut self.values {
            Values::List { item, offsets, valid } => {
                while seq.next_element_seed(&mut **item)?.is_some() {}
                offsets.push(item.len() as i32);
                valid.push(true);
                Ok(())
            }
            _ => Err(self.wrong("an array")),
        }
    }
}
