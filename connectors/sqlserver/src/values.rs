//! Values of rows as the bulk protocol carries them. What a column cannot hold is no value: it is refused, and never altered.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use tiberius::time::{Date, DateTime2, DateTimeOffset, Time};
use tiberius::{ColumnData, Uuid, numeric::Numeric};

use crate::catalog::Column;
use crate::types::{Encoding, Length, SqlType, is_document, is_text};

/// The value of a row, or why there is none.
type Value<'a> = Box<dyn Fn(usize) -> Result<ColumnData<'static>, String> + Send + Sync + 'a>;

/// Days from 0001-01-01, the first of a `datetime2`, to 1970-01-01; and its last.
pub const EPOCH: i64 = 719_162;
const LAST_DAY: i64 = 3_652_058;
/// A `datetime2(7)` counts in these: 100 ns.
const TICKS_A_DAY: i128 = 864_000_000_000;
/// Digits of a fraction of a second.
const DIGITS: u8 = 7;

/// The values of a batch, column by column.
pub struct Values<'a> {
    columns: Vec<(&'a Column, Value<'a>)>,
}

impl<'a> Values<'a> {
    /// `columns`: those of the target that are written; `from`: where each is in the batch.
    pub fn of(batch: &'a RecordBatch, columns: &'a [Column], from: &[usize]) -> Result<Self, ArrowError> {
        let value = |(column, from): (&'a Column, &usize)| {
            let field = batch.schema_ref().field(*from).clone();
            Ok((column, value(batch.column(*from), &field, &column.of)?))
        };
        Ok(Values { columns: columns.iter().zip(from).map(value).collect::<Result<_, ArrowError>>()? })
    }

    /// The values of a row, handed on one by one; or why it can be no row of the target.
    pub fn row(&self, row: usize, mut push: impl FnMut(ColumnData<'static>)) -> Result<(), String> {
        for (column, value) in &self.columns {
            let value = value(row).map_err(|what| format!("column {}: {what}", column.name))?;
            if !column.nullable && is_null(&value) {
                return Err(format!("column {} is NULL, and NOT NULL there", column.name));
            }
            push(value);
        }
        Ok(())
    }
}

fn is_null(value: &ColumnData<'_>) -> bool {
    use ColumnData::*;
    matches!(
        value,
        U8(None)
            | I16(None)
            | I32(None)
            | I64(None)
            | F32(None)
            | F64(None)
            | Bit(None)
            | String(None)
            | Guid(None)
            | Binary(None)
            | Numeric(None)
            | Time(None)
            | Date(None)
            | DateTime2(None)
            | DateTimeOffset(None)
    )
}

fn value<'a>(array: &'a ArrayRef, field: &Field, of: &SqlType) -> Result<Value<'a>, ArrowError> {
    Ok(match of {
        SqlType::Bit => {
            let array = array.as_boolean();
            Box::new(move |row| Ok(ColumnData::Bit(array.is_valid(row).then(|| array.value(row)))))
        }
        SqlType::Integer(bytes) => integer(integers(array)?, *bytes),
        SqlType::Real => {
            let array = array.as_primitive::<Float32Type>();
            finite(array, |n| n.is_finite(), ColumnData::F32)
        }
        SqlType::Float => double(array)?,
        SqlType::Decimal { precision, scale } => decimal(array, *precision, *scale)?,
        SqlType::Money | SqlType::SmallMoney => decimal(array, 19, 4)?,
        SqlType::Date => {
            let days = cast(array, &DataType::Date32)?;
            Box::new(move |row| {
                let days = days.as_primitive::<Date32Type>();
                if days.is_null(row) {
                    return Ok(ColumnData::Date(None));
                }
                Ok(ColumnData::Date(Some(date(i64::from(days.value(row)) + EPOCH)?)))
            })
        }
        SqlType::Time => {
            let nanoseconds = cast(array, &DataType::Time64(TimeUnit::Nanosecond))?;
            Box::new(move |row| {
                let nanoseconds = nanoseconds.as_primitive::<Time64NanosecondType>();
                let time = |nanoseconds: i64| Time::new(nanoseconds as u64 / 100, DIGITS);
                Ok(ColumnData::Time(nanoseconds.is_valid(row).then(|| time(nanoseconds.value(row)))))
            })
        }
        SqlType::DateTime2 | SqlType::OldDateTime => {
            let ticks = ticks(array)?;
            Box::new(move |row| Ok(ColumnData::DateTime2(ticks(row).map(datetime).transpose()?)))
        }
        SqlType::DateTimeOffset => {
            let ticks = ticks(array)?;
            let at = |ticks| datetime(ticks).map(|time| DateTimeOffset::new(time, 0));
            Box::new(move |row| Ok(ColumnData::DateTimeOffset(ticks(row).map(at).transpose()?)))
        }
        SqlType::Text { encoding, length } => text(array, field, *encoding, *length)?,
        SqlType::Document | SqlType::Other(_) => text(array, field, Encoding::Utf16, None)?,
        SqlType::Binary(length) => binary(array, *length)?,
        SqlType::UniqueIdentifier => {
            let text = cast(array, &DataType::Utf8)?;
            Box::new(move |row| {
                let text = text.as_string::<i32>();
                if text.is_null(row) {
                    return Ok(ColumnData::Guid(None));
                }
                let parsed = Uuid::parse_str(text.value(row).trim());
                Ok(ColumnData::Guid(Some(parsed.map_err(|_| format!("'{}' is no UUID", start(text.value(row))))?)))
            })
        }
    })
}

/// Integers of any width, as the widest.
fn integers<'a>(array: &'a ArrayRef) -> Result<Box<dyn Fn(usize) -> Option<i128> + Send + Sync + 'a>, ArrowError> {
    if let DataType::UInt64 = array.data_type() {
        let array = array.as_primitive::<UInt64Type>();
        return Ok(Box::new(move |row| array.is_valid(row).then(|| i128::from(array.value(row)))));
    }
    let array = cast(array, &DataType::Int64)?;
    Ok(Box::new(move |row| {
        let array = array.as_primitive::<Int64Type>();
        array.is_valid(row).then(|| i128::from(array.value(row)))
    }))
}

fn integer<'a>(integers: Box<dyn Fn(usize) -> Option<i128> + Send + Sync + 'a>, bytes: u8) -> Value<'a> {
    Box::new(move |row| {
        let number = integers(row);
        let out = |n: i128| format!("{n} is out of the column's range");
        macro_rules! fitting {
            ($of:ty, $data:ident) => {
                ColumnData::$data(number.map(|n| <$of>::try_from(n).map_err(|_| out(n))).transpose()?)
            };
        }
        Ok(match bytes {
            1 => fitting!(u8, U8),
            2 => fitting!(i16, I16),
            4 => fitting!(i32, I32),
            _ => fitting!(i64, I64),
        })
    })
}

fn double<'a>(array: &'a ArrayRef) -> Result<Value<'a>, ArrowError> {
    if let DataType::Float64 = array.data_type() {
        return Ok(finite(array.as_primitive::<Float64Type>(), |n| n.is_finite(), ColumnData::F64));
    }
    let array = cast(array, &DataType::Float64)?;
    Ok(Box::new(move |row| {
        let array = array.as_primitive::<Float64Type>();
        match array.is_valid(row).then(|| array.value(row)) {
            Some(number) if !number.is_finite() => Err(format!("{number} is no number to the server")),
            number => Ok(ColumnData::F64(number)),
        }
    }))
}

/// The server has neither infinities nor NaN.
fn finite<'a, T: ArrowPrimitiveType>(
    array: &'a arrow::array::PrimitiveArray<T>,
    is_finite: fn(T::Native) -> bool,
    data: fn(Option<T::Native>) -> ColumnData<'static>,
) -> Value<'a>
where
    T::Native: std::fmt::Display,
{
    Box::new(move |row| match array.is_valid(row).then(|| array.value(row)) {
        Some(number) if !is_finite(number) => Err(format!("{number} is no number to the server")),
        number => Ok(data(number)),
    })
}

fn decimal<'a>(array: &'a ArrayRef, precision: u8, scale: u8) -> Result<Value<'a>, ArrowError> {
    let (values, ours): (Box<dyn Fn(usize) -> Option<i128> + Send + Sync + 'a>, i8) = match array.data_type() {
        DataType::Decimal128(_, scale) => {
            let array = array.as_primitive::<Decimal128Type>();
            (Box::new(move |row| array.is_valid(row).then(|| array.value(row))), *scale)
        }
        _ => (integers(array)?, 0),
    };
    // `takes` has seen that ours is not the larger one.
    let factor = 10_i128.checked_pow((i32::from(scale) - i32::from(ours)).max(0) as u32);
    let most = 10_i128.checked_pow(u32::from(precision));
    Ok(Box::new(move |row| {
        let Some(value) = values(row) else { return Ok(ColumnData::Numeric(None)) };
        let scaled = factor.and_then(|factor| value.checked_mul(factor));
        match scaled.filter(|scaled| most.is_none_or(|most| scaled.abs() < most)) {
            Some(scaled) => Ok(ColumnData::Numeric(Some(Numeric::new_with_scale(scaled, scale)))),
            None => Err(format!("it has more digits than decimal({precision},{scale}) holds")),
        }
    }))
}

/// Times as 100 ns since 1970; what is finer is left out.
fn ticks<'a>(array: &'a ArrayRef) -> Result<Box<dyn Fn(usize) -> Option<i128> + Send + Sync + 'a>, ArrowError> {
    let DataType::Timestamp(unit, _) = array.data_type() else {
        return Err(ArrowError::CastError(format!("{} is no time", array.data_type())));
    };
    let (times, divisor) = match unit {
        TimeUnit::Second => (10_000_000, 1),
        TimeUnit::Millisecond => (10_000, 1),
        TimeUnit::Microsecond => (10, 1),
        TimeUnit::Nanosecond => (1, 100),
    };
    let array = cast(array, &DataType::Int64)?;
    Ok(Box::new(move |row| {
        let array = array.as_primitive::<Int64Type>();
        array.is_valid(row).then(|| (i128::from(array.value(row)) * times).div_euclid(divisor))
    }))
}

fn datetime(ticks: i128) -> Result<DateTime2, String> {
    let (days, time) = (ticks.div_euclid(TICKS_A_DAY), ticks.rem_euclid(TICKS_A_DAY));
    let days = i64::try_from(days).unwrap_or(i64::MAX).saturating_add(EPOCH);
    Ok(DateTime2::new(date(days)?, Time::new(time as u64, DIGITS)))
}

/// `days`: since 0001-01-01.
fn date(days: i64) -> Result<Date, String> {
    if (0..=LAST_DAY).contains(&days) {
        return Ok(Date::new(days as u32));
    }
    Err("it is before the year 1 or after the year 9999".into())
}

fn text<'a>(array: &'a ArrayRef, field: &Field, encoding: Encoding, length: Length) -> Result<Value<'a>, ArrowError> {
    let (text, refused) = if is_document(field.data_type()) {
        documents(array, field)?
    } else if is_text(field.data_type()) {
        (cast(array, &DataType::Utf8)?, BTreeMap::new())
    } else {
        return Err(ArrowError::CastError(format!("{} is no text", field.data_type())));
    };
    Ok(Box::new(move |row| {
        if let Some(reason) = refused.get(&row) {
            return Err(reason.clone());
        }
        let text = text.as_string::<i32>();
        if text.is_null(row) {
            return Ok(ColumnData::String(None));
        }
        let text = text.value(row);
        let most = length.unwrap_or(usize::MAX);
        // No encoding has more units than UTF-8 has bytes.
        if text.len() > most {
            let (units, what) = match encoding {
                Encoding::Utf16 => (text.encode_utf16().count(), "characters"),
                Encoding::Utf8 => (text.len(), "bytes"),
                // What is no ASCII has as many bytes as the client finds that it has.
                Encoding::CodePage => (if text.is_ascii() { text.len() } else { 0 }, "characters"),
            };
            if units > most {
                return Err(format!("'{}' has {units} {what}, and the column takes {most}", start(text)));
            }
        }
        Ok(ColumnData::String(Some(text.to_string().into())))
    }))
}

/// Nested values as JSON, and by row why some can be none.
fn documents(array: &ArrayRef, field: &Field) -> Result<(ArrayRef, BTreeMap<usize, String>), ArrowError> {
    const NAME: &str = "v";
    let schema = Schema::new(vec![field.clone().with_name(NAME).with_nullable(true)]);
    let batch = RecordBatch::try_new(schema.into(), vec![array.clone()])?;
    // By the column's own name.
    let named = Schema::new(vec![field.clone().with_nullable(true)]);
    let refused = formats::unwritable(&RecordBatch::try_new(named.into(), vec![array.clone()])?);
    let mut lines = vec![];
    formats::json_lines(&batch, &mut lines)?;
    let lines = lines.split(|byte| *byte == b'\n').take(array.len());
    // {"v":…}, or {} where it is NULL.
    let inner = |line: &[u8]| {
        let inner = line.strip_prefix(b"{\"v\":")?.strip_suffix(b"}")?;
        std::str::from_utf8(inner).ok().map(String::from)
    };
    Ok((std::sync::Arc::new(arrow::array::StringArray::from_iter(lines.map(inner))), refused))
}

fn binary<'a>(array: &'a ArrayRef, length: Option<usize>) -> Result<Value<'a>, ArrowError> {
    let bytes = cast(array, &DataType::Binary)?;
    Ok(Box::new(move |row| {
        let bytes = bytes.as_binary::<i32>();
        if bytes.is_null(row) {
            return Ok(ColumnData::Binary(None));
        }
        let bytes = bytes.value(row);
        match length {
            Some(most) if bytes.len() > most => {
                Err(format!("it has {} bytes, and the column takes {most}", bytes.len()))
            }
            _ => Ok(ColumnData::Binary(Some(bytes.to_vec().into()))),
        }
    }))
}

/// As much of a text as an error shows.
pub fn start(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;

    use super::*;

    fn column(of: SqlType) -> Column {
        Column { name: "c".into(), of, nullable: true, collation: None }
    }

    /// The values of one column, or why there are none.
    fn all(array: ArrayRef, of: SqlType) -> Vec<Result<String, String>> {
        let field = Field::new("c", array.data_type().clone(), true);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
        let columns = [column(of)];
        let values = Values::of(&batch, &columns, &[0]).unwrap();
        let one = |row| {
            let mut found = None;
            values.row(row, |value| found = Some(value)).map(|()| format!("{:?}", found.unwrap()))
        };
        (0..batch.num_rows()).map(one).collect()
    }

    #[test]
    fn a_time_keeps_its_seventh_digit() {
        // 2026-11-24T10:00:00.1234567Z
        let nanoseconds = 1_795_514_400_123_456_700_i64;
        let array: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(nanoseconds), None]));
        let found = all(array, SqlType::DateTime2);
        let (days, ticks) = (1_795_514_400 / 86_400 + EPOCH, 36_000_i64 * 10_000_000 + 1_234_567);
        let expected = DateTime2::new(Date::new(days as u32), Time::new(ticks as u64, 7));
        assert_eq!(found[0], Ok(format!("{:?}", ColumnData::DateTime2(Some(expected)))));
        assert_eq!(found[1], Ok(format!("{:?}", ColumnData::DateTime2(None))));
        let old: ArrayRef = Arc::new(TimestampSecondArray::from(vec![-62_135_596_800, -62_135_596_801]));
        let found = all(old, SqlType::DateTime2);
        assert!(found[0].is_ok() && found[1].as_ref().is_err_and(|what| what.contains("year 1")), "{found:?}");
    }

    #[test]
    fn a_decimal_is_exact_or_refused() {
        let array: ArrayRef =
            Arc::new(Decimal128Array::from(vec![110, -99_999, 100_000]).with_precision_and_scale(10, 2).unwrap());
        let found = all(array, SqlType::Decimal { precision: 7, scale: 4 });
        let exact = |value| Ok(format!("{:?}", ColumnData::Numeric(Some(Numeric::new_with_scale(value, 4)))));
        assert_eq!(found[..2], [exact(11_000), exact(-9_999_900)]);
        assert!(found[2].as_ref().is_err_and(|what| what.contains("more digits than decimal(7,4)")), "{found:?}");
    }

    #[test]
    fn what_a_column_cannot_hold_is_refused_with_the_reason() {
        let integers: ArrayRef = Arc::new(Int64Array::from(vec![255, 256, -1]));
        let found = all(integers, SqlType::Integer(1));
        assert!(found[0].is_ok() && found[1].is_err() && found[2].is_err(), "{found:?}");
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY]));
        let found = all(doubles, SqlType::Float);
        assert!(found[0].is_ok() && found[1].is_err() && found[2].is_err(), "{found:?}");
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["äöü", "äöü𝄞", "4 letters"]));
        let found = all(texts, SqlType::Text { encoding: Encoding::Utf16, length: Some(4) });
        assert!(found[0].is_ok(), "three characters, though six bytes");
        let reasons: Vec<_> = found[1..].iter().map(|found| found.clone().unwrap_err()).collect();
        assert!(reasons[0].contains("has 5 characters") && reasons[1].contains("has 9 characters"), "{reasons:?}");
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["äö", "äöü"]));
        let found = all(texts, SqlType::Text { encoding: Encoding::Utf8, length: Some(4) });
        assert!(found[0].is_ok() && found[1].as_ref().is_err_and(|what| what.contains("has 6 bytes")), "{found:?}");
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["6F9619FF-8B86-D011-B42D-00C04FC964FF", "x"]));
        let found = all(ids, SqlType::UniqueIdentifier);
        assert!(found[0].is_ok() && found[1].as_ref().is_err_and(|what| what.contains("'x' is no UUID")), "{found:?}");
    }

    #[test]
    fn what_is_nested_is_json() {
        let fields: Fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)].into();
        let a: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let b: ArrayRef = Arc::new(StringArray::from(vec![Some("x\"y"), None]));
        let nested: ArrayRef = Arc::new(StructArray::new(fields, vec![a, b], Some(vec![true, false].into())));
        let found = all(nested, SqlType::Text { encoding: Encoding::Utf16, length: None });
        assert_eq!(found[0], Ok(format!("{:?}", ColumnData::String(Some(r#"{"a":1,"b":"x\"y"}"#.into())))));
        assert_eq!(found[1], Ok(format!("{:?}", ColumnData::String(None))));
    }

    #[test]
    fn a_nested_number_that_json_has_no_word_for_refuses_its_row() {
        let fields: Fields = vec![Field::new("a", DataType::Float64, true)].into();
        let a: ArrayRef = Arc::new(Float64Array::from(vec![1.5, f64::NAN]));
        let nested: ArrayRef = Arc::new(StructArray::new(fields, vec![a], None));
        let found = all(nested, SqlType::Text { encoding: Encoding::Utf16, length: None });
        assert_eq!(found[0], Ok(format!("{:?}", ColumnData::String(Some(r#"{"a":1.5}"#.into())))));
        assert!(found[1].as_ref().is_err_and(|what| what.contains("for which JSON has no word")), "{found:?}");
    }

    #[test]
    fn a_null_is_refused_where_the_column_takes_none() {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap();
        let columns = [Column { nullable: false, ..column(SqlType::Integer(8)) }];
        let values = Values::of(&batch, &columns, &[0]).unwrap();
        assert_eq!(values.row(0, |_| ()), Ok(()));
        assert_eq!(values.row(1, |_| ()), Err("column c is NULL, and NOT NULL there".into()));
    }
}
