//! Cells of rows that the server sends, as values of the columns that they are read into: exactly, or not at all.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use engine::connector::is_json;
use formats::{Decoder, Format, JsonOptions};
use serde_json::value::RawValue;
use tiberius::time::{DateTime2, Time};
use tiberius::{ColumnData, ColumnType, Row};

use crate::types::{is_document, range};
use crate::values::{EPOCH, start};

/// Nanoseconds of what times are counted in.
const TICK: i128 = 100;
const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;
/// Days from 1970-01-01 to 1900-01-01, where the old times begin.
const EPOCH_OF_OLD: i64 = -25_567;
/// The scale that a `time` counts with at most: in ticks.
const DIGITS: u32 = 7;

/// Integers up to this size are themselves as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Rows of a result on their way into a batch.
pub struct Cells {
    schema: SchemaRef,
    columns: Vec<Values>,
    /// Takes the documents of a row, if there are any: JSON, kept as text or nested.
    documents: Option<Decoder>,
    rows: usize,
}

/// The values of a column so far. A row that is refused takes its own out again.
enum Values {
    Booleans(Vec<Option<bool>>),
    /// Integers, and decimals by their digits.
    Numbers(Vec<Option<i128>>),
    Doubles(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Days(Vec<Option<i32>>),
    Instants(Vec<Option<i64>>),
    /// Is in the documents.
    Document,
}

impl Cells {
    pub fn new(fields: &[FieldRef]) -> Result<Self, String> {
        let columns = fields.iter().map(Values::of).collect::<Result<_, _>>()?;
        let documents: Vec<FieldRef> = fields.iter().filter(|field| is_nested(field)).cloned().collect();
        let documents = match documents.is_empty() {
            true => None,
            // Decimals within documents are written as text.
            false => {
                let options = JsonOptions { lenient: true, ..JsonOptions::default() };
                Some(Decoder::new(Arc::new(Schema::new(documents)), Format::Json, options, None)?)
            }
        };
        Ok(Cells { schema: Arc::new(Schema::new(fields.to_vec())), columns, documents, rows: 0 })
    }

    /// Rows that wait for [`Cells::finish`].
    pub fn held(&self) -> usize {
        self.rows
    }

    /// Takes cells of a row: `from` says which for each column. A row that is refused leaves nothing behind.
    pub fn push(&mut self, row: &Row, from: &[usize]) -> Result<(), String> {
        match self.try_push(row, from) {
            Ok(()) => {
                self.rows += 1;
                Ok(())
            }
            Err(what) => {
                self.columns.iter_mut().for_each(|column| column.truncate(self.rows));
                Err(what)
            }
        }
    }

    fn try_push(&mut self, row: &Row, from: &[usize]) -> Result<(), String> {
        let mut documents = vec![];
        for ((field, column), from) in self.schema.fields().iter().zip(&mut self.columns).zip(from) {
            let named = |what: String| format!("column {}: {what}", field.name());
            let cell = row.get_column_data(*from).map_err(|e| named(e.to_string()))?;
            let of = row.columns()[*from].column_type();
            let empty = match column {
                Values::Document => match document(cell).map_err(named)? {
                    Some(json) => {
                        documents.push((field.name(), json));
                        false
                    }
                    None => true,
                },
                column => column.push(field, of, cell).map_err(named)?,
            };
            if empty && !field.is_nullable() {
                return Err(named("it is NULL there, and NOT NULL here".into()));
            }
        }
        // Last, because it takes a row as a whole.
        match &mut self.documents {
            Some(decoder) => decoder.push(&object(&documents), None).map(drop).map_err(|reject| reject.error),
            None => Ok(()),
        }
    }

    /// The rows since the last call.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let documents = self.documents.as_mut().map(Decoder::finish).transpose()?;
        let mut documents = documents.iter().flat_map(RecordBatch::columns);
        let mut arrays = vec![];
        for (field, column) in self.schema.fields().iter().zip(&mut self.columns) {
            arrays.push(match column {
                Values::Document => documents.next().cloned().unwrap_or_else(|| new_empty_array(field.data_type())),
                column => column.take(field.data_type())?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
    }
}

fn is_nested(field: &Field) -> bool {
    is_json(field) || is_document(field.data_type())
}

impl Values {
    fn of(field: &FieldRef) -> Result<Self, String> {
        Ok(match field.data_type() {
            _ if is_nested(field) => Values::Document,
            DataType::Boolean => Values::Booleans(vec![]),
            of if of.is_integer() => Values::Numbers(vec![]),
            DataType::Decimal128(..) => Values::Numbers(vec![]),
            DataType::Float32 | DataType::Float64 => Values::Doubles(vec![]),
            DataType::Utf8 => Values::Texts(vec![]),
            DataType::Binary => Values::Bytes(vec![]),
            DataType::Date32 => Values::Days(vec![]),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Values::Instants(vec![]),
            other => return Err(format!("column {}: {other} is not read from a table", field.name())),
        })
    }

    /// Takes a cell in; says whether it is NULL.
    fn push(&mut self, field: &Field, from: ColumnType, cell: &ColumnData<'static>) -> Result<bool, String> {
        fn add<T>(values: &mut Vec<Option<T>>, value: Option<T>) -> bool {
            let empty = value.is_none();
            values.push(value);
            empty
        }
        let of = field.data_type();
        Ok(match self {
            Values::Booleans(values) => add(values, boolean(cell)?),
            Values::Numbers(values) => add(values, number(cell, of)?),
            Values::Doubles(values) => add(values, double(cell, of)?),
            Values::Texts(values) => add(values, text(cell, from)?),
            Values::Bytes(values) => add(values, bytes(cell)?),
            Values::Days(values) => add(values, day(cell)?),
            Values::Instants(values) => add(values, instant(cell)?),
            Values::Document => false,
        })
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Values::Booleans(values) => values.truncate(rows),
            Values::Numbers(values) => values.truncate(rows),
            Values::Doubles(values) => values.truncate(rows),
            Values::Texts(values) => values.truncate(rows),
            Values::Bytes(values) => values.truncate(rows),
            Values::Days(values) => values.truncate(rows),
            Values::Instants(values) => values.truncate(rows),
            Values::Document => {}
        }
    }

    fn take(&mut self, of: &DataType) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Values::Booleans(values) => Arc::new(BooleanArray::from(std::mem::take(values))),
            Values::Numbers(values) => numbers(std::mem::take(values), of)?,
            Values::Doubles(values) => {
                let doubles: ArrayRef = Arc::new(Float64Array::from(std::mem::take(values)));
                arrow::compute::cast(&doubles, of)?
            }
            Values::Texts(values) => Arc::new(StringArray::from(std::mem::take(values))),
            Values::Bytes(values) => Arc::new(BinaryArray::from_iter(std::mem::take(values))),
            Values::Days(values) => Arc::new(Date32Array::from(std::mem::take(values))),
            Values::Instants(values) => {
                let instants = TimestampNanosecondArray::from(std::mem::take(values));
                Arc::new(match of {
                    DataType::Timestamp(_, zone) => instants.with_timezone_opt(zone.clone()),
                    _ => instants,
                })
            }
            Values::Document => new_empty_array(of),
        })
    }
}

/// Integers of a type that has been looked at one by one.
fn numbers(values: Vec<Option<i128>>, of: &DataType) -> Result<ArrayRef, ArrowError> {
    fn of_type<T: ArrowPrimitiveType>(values: Vec<Option<i128>>) -> ArrayRef
    where
        T::Native: TryFrom<i128>,
    {
        let natives = values.into_iter().map(|value| value.and_then(|value| T::Native::try_from(value).ok()));
        Arc::new(PrimitiveArray::<T>::from_iter(natives))
    }
    Ok(match of {
        DataType::Int8 => of_type::<Int8Type>(values),
        DataType::Int16 => of_type::<Int16Type>(values),
        DataType::Int32 => of_type::<Int32Type>(values),
        DataType::UInt8 => of_type::<UInt8Type>(values),
        DataType::UInt16 => of_type::<UInt16Type>(values),
        DataType::UInt32 => of_type::<UInt32Type>(values),
        DataType::UInt64 => of_type::<UInt64Type>(values),
        DataType::Decimal128(precision, scale) => {
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(*precision, *scale)?)
        }
        _ => of_type::<Int64Type>(values),
    })
}

/// A cell of another kind than its column: the table is another one than was looked at.
fn stray(cell: &ColumnData<'static>) -> String {
    let shown = format!("{cell:?}");
    format!("{} is not what was looked for", start(&shown))
}

fn boolean(cell: &ColumnData<'static>) -> Result<Option<bool>, String> {
    match cell {
        ColumnData::Bit(bit) => Ok(*bit),
        other => Err(stray(other)),
    }
}

/// An integer, or the digits of a decimal with the scale of its column.
fn number(cell: &ColumnData<'static>, of: &DataType) -> Result<Option<i128>, String> {
    let (value, scale) = match cell {
        ColumnData::U8(n) => (n.map(i128::from), 0),
        ColumnData::I16(n) => (n.map(i128::from), 0),
        ColumnData::I32(n) => (n.map(i128::from), 0),
        ColumnData::I64(n) => (n.map(i128::from), 0),
        ColumnData::Numeric(n) => (n.map(|n| n.value()), n.map_or(0, |n| i32::from(n.scale()))),
        // Integers of 32 bits may be kept as doubles.
        ColumnData::F64(Some(n)) if n.fract() == 0.0 && n.abs() <= EXACT => (Some(*n as i128), 0),
        ColumnData::F64(None) => (None, 0),
        other => return Err(stray(other)),
    };
    let Some(value) = value else { return Ok(None) };
    let (least, most, ours) = match of {
        DataType::Decimal128(precision, scale) => {
            let most = 10_i128.pow(u32::from(*precision).min(38)) - 1;
            (-most, most, i32::from(*scale))
        }
        integer => {
            let (least, most) = range(integer);
            (least, most, 0)
        }
    };
    match rescaled(value, ours - scale).filter(|value| (least..=most).contains(value)) {
        None => Err(format!("{} does not fit {of}", written(value, scale))),
        rescaled => Ok(rescaled),
    }
}

/// The digits with so many more behind the point, or fewer if they are zeros.
pub fn rescaled(digits: i128, more: i32) -> Option<i128> {
    let factor = 10_i128.checked_pow(more.unsigned_abs())?;
    match more >= 0 {
        true => digits.checked_mul(factor),
        false => (digits % factor == 0).then(|| digits / factor),
    }
}

/// A decimal as text.
pub fn written(digits: i128, scale: i32) -> String {
    let (sign, size) = (if digits < 0 { "-" } else { "" }, digits.unsigned_abs().to_string());
    let scale = scale.max(0) as usize;
    let padded = format!("{size:0>width$}", width = scale + 1);
    match padded.split_at(padded.len() - scale) {
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

fn double(cell: &ColumnData<'static>, of: &DataType) -> Result<Option<f64>, String> {
    let value = match cell {
        ColumnData::F32(n) => n.map(f64::from),
        ColumnData::F64(n) => *n,
        ColumnData::U8(n) => n.map(f64::from),
        ColumnData::I16(n) => n.map(f64::from),
        ColumnData::I32(n) => n.map(f64::from),
        other => return Err(stray(other)),
    };
    match value {
        Some(n) if *of == DataType::Float32 && f64::from(n as f32) != n => Err(format!("{n} does not fit a REAL")),
        value => Ok(value),
    }
}

fn text(cell: &ColumnData<'static>, from: ColumnType) -> Result<Option<String>, String> {
    Ok(match cell {
        // What a text of fixed length is filled up with is not part of it.
        ColumnData::String(text) if matches!(from, ColumnType::BigChar | ColumnType::NChar) => {
            text.as_ref().map(|text| text.trim_end_matches(' ').to_string())
        }
        ColumnData::String(text) => text.as_ref().map(|text| text.to_string()),
        ColumnData::Xml(xml) => xml.as_ref().map(|xml| xml.to_string()),
        ColumnData::Guid(id) => id.map(|id| id.hyphenated().to_string()),
        ColumnData::Time(time) => time.map(time_of_day),
        other => return Err(stray(other)),
    })
}

/// A time of day with as many digits as its column has.
fn time_of_day(time: Time) -> String {
    let scale = u32::from(time.scale());
    let (seconds, part) = (time.increments() / 10_u64.pow(scale), time.increments() % 10_u64.pow(scale));
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if scale == 0 { clock } else { format!("{clock}.{part:0width$}", width = scale as usize) }
}

fn bytes(cell: &ColumnData<'static>) -> Result<Option<Vec<u8>>, String> {
    match cell {
        ColumnData::Binary(bytes) => Ok(bytes.as_ref().map(|bytes| bytes.to_vec())),
        other => Err(stray(other)),
    }
}

fn day(cell: &ColumnData<'static>) -> Result<Option<i32>, String> {
    match cell {
        // A day of years up to 9999 is no more than 32 bits.
        ColumnData::Date(date) => Ok(date.map(|date| (i64::from(date.days()) - EPOCH) as i32)),
        other => Err(stray(other)),
    }
}

/// Nanoseconds since 1970. What has no offset is a time of UTC.
pub fn instant(cell: &ColumnData<'static>) -> Result<Option<i64>, String> {
    let nanoseconds = match cell {
        ColumnData::DateTime2(at) => at.map(nanoseconds),
        // Its date and time are those of UTC.
        ColumnData::DateTimeOffset(at) => at.map(|at| nanoseconds(at.datetime2())),
        ColumnData::DateTime(at) => at.map(|at| {
            // It has thirds of hundredths of a second, and everybody shows milliseconds of it.
            let milliseconds = (i128::from(at.seconds_fragments()) * 1000 + 150).div_euclid(300);
            i128::from(EPOCH_OF_OLD + i64::from(at.days())) * DAY + milliseconds * 1_000_000
        }),
        // What is called fragments of seconds here are minutes.
        ColumnData::SmallDateTime(at) => at.map(|at| {
            i128::from(EPOCH_OF_OLD + i64::from(at.days())) * DAY + i128::from(at.seconds_fragments()) * 60 * SECOND
        }),
        other => return Err(stray(other)),
    };
    let out = |_| "it is a time before 1677-09-21 or after 2262-04-11, which a TIMESTAMP does not hold".to_string();
    nanoseconds.map(i64::try_from).transpose().map_err(out)
}

fn nanoseconds(at: DateTime2) -> i128 {
    let days = i128::from(i64::from(at.date().days()) - EPOCH);
    let ticks = i128::from(at.time().increments()) * 10_i128.pow(DIGITS.saturating_sub(u32::from(at.time().scale())));
    days * DAY + ticks * TICK
}

/// A document as it is written, if it is one whole.
fn document<'a>(cell: &'a ColumnData<'static>) -> Result<Option<&'a str>, String> {
    let ColumnData::String(text) = cell else {
        return Err(stray(cell));
    };
    let Some(text) = text else { return Ok(None) };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => Ok(Some(json.get())),
        Err(error) => Err(format!("'{}' is no JSON: {error}", start(text))),
    }
}

fn object(documents: &[(&String, &str)]) -> Vec<u8> {
    let fields = documents.iter().map(|(name, json)| format!("{}:{json}", serde_json::Value::from(name.as_str())));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes()
}
