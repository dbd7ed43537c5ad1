//! What Delta keeps of a file: its rows, and per column the NULLs and the bounds, by which readers pass files over.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef};
use chrono::Datelike;
use parquet::arrow::ProjectionMask;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::SchemaDescriptor;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Columns that Delta keeps statistics of, by default.
const INDEXED_COLUMNS: usize = 32;
/// Parquet cuts longer texts, and rounds an upper bound up as it does; what it cannot round up it keeps whole.
const LONGEST_TEXT: usize = 64;
/// The years that ISO 8601 writes with four digits, which is how readers read them.
const YEARS: std::ops::RangeInclusive<i32> = 0..=9999;

/// Columns in which a NaN was seen, by name. It stands above every number for some readers and nowhere for others, and
/// Parquet's own bounds leave it out: bounds beside it would make readers pass over the file that holds it.
#[derive(Default)]
pub struct Boundless(HashSet<String>);

impl Boundless {
    /// Looks through rows that are written.
    pub fn look_at(&mut self, rows: &RecordBatch) {
        let schema = rows.schema_ref();
        for (field, column) in schema.fields().iter().zip(rows.columns()).take(INDEXED_COLUMNS) {
            if !self.0.contains(field.name()) && has_nan(column.as_ref()) {
                self.0.insert(field.name().clone());
            }
        }
    }

    /// The columns of rows that are not in hand which have to be looked at; `None` if there are none.
    pub fn to_look_at(&self, schema: &Schema, stored: &SchemaDescriptor) -> Option<ProjectionMask> {
        let indexed = schema.fields().iter().enumerate().take(INDEXED_COLUMNS);
        let unknown = indexed.filter(|(_, field)| field.data_type().is_floating() && !self.0.contains(field.name()));
        let columns: Vec<usize> = unknown.map(|(index, _)| index).collect();
        (!columns.is_empty()).then(|| ProjectionMask::roots(stored, columns))
    }
}

/// All are looked at, many at once: to stop at the first would be to look at them one by one.
fn has_nan(column: &dyn Array) -> bool {
    match column.data_type() {
        DataType::Float32 => {
            column.as_primitive::<Float32Type>().values().iter().fold(false, |nan, v| nan | v.is_nan())
        }
        DataType::Float64 => {
            column.as_primitive::<Float64Type>().values().iter().fold(false, |nan, v| nan | v.is_nan())
        }
        _ => false,
    }
}

/// What the log keeps of a file's columns, as Delta names it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfFile<'a> {
    num_records: u64,
    min_values: BTreeMap<&'a str, Bound>,
    max_values: BTreeMap<&'a str, Bound>,
    null_count: BTreeMap<&'a str, u64>,
}

/// A bound as JSON text: a decimal has more digits than a double, which is what JSON libraries make of numbers.
type Bound = Box<RawValue>;
type Bounds = Option<(Bound, Bound)>;

/// `numRecords`, and per top-level column `nullCount` and, where there are any, `minValues` and `maxValues`; as JSON.
pub fn statistics(schema: &SchemaRef, metadata: &ParquetMetaData, rows: u64, boundless: &Boundless) -> String {
    let (mut min, mut max, mut nulls) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for field in schema.fields().iter().take(INDEXED_COLUMNS) {
        let of_column = |chunk: &&ColumnChunkMetaData| chunk.column_path().parts() == [field.name().as_str()];
        let chunks = metadata.row_groups().iter().map(|group| {
            let chunk = group.columns().iter().find(of_column)?;
            Some((chunk.statistics()?, chunk.num_values() as u64))
        });
        let Some(mut chunks) = chunks.collect::<Option<Vec<_>>>().filter(|c| !c.is_empty()) else { continue };
        if let Some(count) = chunks.iter().map(|(s, _)| s.null_count_opt()).sum::<Option<u64>>() {
            nulls.insert(field.name().as_str(), count);
        }
        if boundless.0.contains(field.name()) {
            continue;
        }
        // A chunk of nothing but NULLs has no bounds, and stands in nobody's way.
        chunks.retain(|(s, values)| s.null_count_opt() != Some(*values));
        let chunks: Vec<&Statistics> = chunks.into_iter().map(|(s, _)| s).collect();
        if let Some((lowest, highest)) = bounds(&chunks, field.data_type()) {
            min.insert(field.name().as_str(), lowest);
            max.insert(field.name().as_str(), highest);
        }
    }
    let of_file = OfFile { num_records: rows, min_values: min, max_values: max, null_count: nulls };
    serde_json::to_string(&of_file).unwrap_or_default()
}

fn bounds(chunks: &[&Statistics], data_type: &DataType) -> Bounds {
    match data_type {
        // No reader needs these, but one takes a bound that is absent in a file and present in others for NULL.
        DataType::Boolean => json_of(booleans(chunks)?),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => json_of(integers(chunks)?),
        DataType::Date32 => {
            let (low, high) = integers(chunks)?;
            json_of((date(low)?, date(high)?))
        }
        DataType::Timestamp(_, zone) => {
            // Milliseconds: the lower bound is rounded down, the upper one up.
            let (low, high) = integers(chunks)?;
            let text = |millis| iso_millis(millis, if zone.is_some() { "Z" } else { "" });
            json_of((text(low.div_euclid(1000))?, text(high.div_euclid(1000) + 1)?))
        }
        DataType::Float32 | DataType::Float64 => {
            let found = floats(chunks)?;
            (found.0.is_finite() && found.1.is_finite()).then(|| json_of(found)).flatten()
        }
        DataType::Decimal128(_, scale) => {
            let (low, high) = unscaled(chunks)?;
            Some((decimal(low, *scale)?, decimal(high, *scale)?))
        }
        DataType::Utf8 => json_of(texts(chunks)?),
        _ => None,
    }
}

fn json_of<T: Serialize>((low, high): (T, T)) -> Bounds {
    Some((to_raw_value(&low).ok()?, to_raw_value(&high).ok()?))
}

/// The bounds over all chunks, if each has them.
fn over<T: Copy>(
    chunks: &[&Statistics],
    of: impl Fn(&Statistics) -> Option<(T, T)>,
    lower: impl Fn(T, T) -> T,
    upper: impl Fn(T, T) -> T,
) -> Option<(T, T)> {
    let all = chunks.iter().map(|s| of(s)).collect::<Option<Vec<_>>>()?;
    all.into_iter().reduce(|a, b| (lower(a.0, b.0), upper(a.1, b.1)))
}

fn integers(chunks: &[&Statistics]) -> Option<(i64, i64)> {
    let of = |s: &Statistics| match s {
        Statistics::Int32(v) => Some((*v.min_opt()? as i64, *v.max_opt()? as i64)),
        Statistics::Int64(v) => Some((*v.min_opt()?, *v.max_opt()?)),
        _ => None,
    };
    over(chunks, of, i64::min, i64::max)
}

fn booleans(chunks: &[&Statistics]) -> Option<(bool, bool)> {
    let of = |s: &Statistics| match s {
        Statistics::Boolean(v) => Some((*v.min_opt()?, *v.max_opt()?)),
        _ => None,
    };
    over(chunks, of, |a, b| a && b, |a, b| a || b)
}

fn floats(chunks: &[&Statistics]) -> Option<(f64, f64)> {
    let of = |s: &Statistics| match s {
        Statistics::Float(v) => Some((*v.min_opt()? as f64, *v.max_opt()? as f64)),
        Statistics::Double(v) => Some((*v.min_opt()?, *v.max_opt()?)),
        _ => None,
    };
    over(chunks, of, f64::min, f64::max)
}

/// Decimals as Parquet stores them: integers, or their bytes, highest first.
fn unscaled(chunks: &[&Statistics]) -> Option<(i128, i128)> {
    let of = |s: &Statistics| match s {
        Statistics::FixedLenByteArray(v) if s.min_is_exact() && s.max_is_exact() => {
            Some((big_endian(v.min_opt()?.data())?, big_endian(v.max_opt()?.data())?))
        }
        _ => integers(&[s]).map(|(low, high)| (low as i128, high as i128)),
    };
    over(chunks, of, i128::min, i128::max)
}

fn big_endian(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first()? & 0x80 != 0;
    let mut whole = [if negative { 0xff } else { 0 }; 16];
    let from = 16usize.checked_sub(bytes.len())?;
    whole[from..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

/// A decimal as a JSON number, with all its digits.
fn decimal(unscaled: i128, scale: i8) -> Option<Bound> {
    let digits = usize::try_from(scale).ok()?;
    let (sign, whole) = (if unscaled < 0 { "-" } else { "" }, format!("{:0>1$}", unscaled.unsigned_abs(), digits + 1));
    let (whole, fraction) = whole.split_at(whole.len() - digits);
    let point = if digits == 0 { "" } else { "." };
    RawValue::from_string(format!("{sign}{whole}{point}{fraction}")).ok()
}

fn texts(chunks: &[&Statistics]) -> Option<(String, String)> {
    let of = |s: &&Statistics| match s {
        Statistics::ByteArray(v) => {
            let text = |b: &parquet::data_type::ByteArray| b.as_utf8().ok().map(String::from);
            Some((text(v.min_opt()?)?, text(v.max_opt()?)?))
        }
        _ => None,
    };
    let all = chunks.iter().map(of).collect::<Option<Vec<_>>>()?;
    let low = all.iter().map(|b| b.0.clone()).min()?;
    let high = all.iter().map(|b| b.1.clone()).max()?;
    (low.len() <= LONGEST_TEXT && high.len() <= LONGEST_TEXT).then_some((low, high))
}

fn date(days: i64) -> Option<String> {
    let since = chrono::TimeDelta::try_days(days)?;
    let day = chrono::NaiveDate::default().checked_add_signed(since).filter(|day| YEARS.contains(&day.year()))?;
    Some(day.format("%Y-%m-%d").to_string())
}

fn iso_millis(millis: i64, zone: &str) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_millis(millis).filter(|time| YEARS.contains(&time.year()))?;
    Some(format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.3f")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encodings;
    use crate::parquet_file::ParquetFile;
    use arrow::array::{
        ArrayRef, Date32Array, Decimal128Array, Float32Array, Float64Array, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Schema};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// The statistics of a file with one column, written in two batches.
    fn of(first: ArrayRef, second: ArrayRef) -> Value {
        serde_json::from_str(&text_of(first, second)).unwrap()
    }

    fn text_of(first: ArrayRef, second: ArrayRef) -> String {
        let schema = Arc::new(Schema::new(vec![Field::new("c", first.data_type().clone(), true)]));
        let rows = |column| RecordBatch::try_new(schema.clone(), vec![column]).unwrap();
        let (first, second) = (rows(first), rows(second));
        let mut file = ParquetFile::new(schema.clone(), Encodings::default(), &first).unwrap();
        file.write(&first).unwrap();
        file.write(&second).unwrap();
        file.close().unwrap().1
    }

    fn bounds_of(first: ArrayRef, second: ArrayRef) -> (Value, Value) {
        let stats = of(first, second);
        (stats["minValues"]["c"].clone(), stats["maxValues"]["c"].clone())
    }

    #[test]
    fn days_are_bounded_as_text() {
        let days = |days: &[i32]| -> ArrayRef { Arc::new(Date32Array::from(days.to_vec())) };
        assert_eq!(bounds_of(days(&[19_675, -1]), days(&[0])), (json!("1969-12-31"), json!("2023-11-14")));
    }

    #[test]
    fn long_texts_are_bounded_by_their_beginnings_from_below_and_above() {
        let texts = |v: &[&str]| -> ArrayRef { Arc::new(StringArray::from(v.to_vec())) };
        let (low, high) = ("a".repeat(100), "ü".repeat(100));
        let (min, max) = bounds_of(texts(&[&low, "m"]), texts(&[&high]));
        let (min, max) = (min.as_str().unwrap().to_string(), max.as_str().unwrap().to_string());
        assert_eq!(min, "a".repeat(64));
        assert!(max > high && max.len() <= 64 && max.starts_with("üüü"), "{max}");
        let highest = "\u{10ffff}".repeat(100);
        assert_eq!(bounds_of(texts(&["a"]), texts(&[&highest])), (Value::Null, Value::Null), "nothing is above it");
    }

    #[test]
    fn times_are_bounded_in_whole_milliseconds_and_carry_a_zone_only_if_their_column_does() {
        let times = |v: &[i64]| TimestampMicrosecondArray::from(v.to_vec());
        let without = |v: &[i64]| -> ArrayRef { Arc::new(times(v)) };
        let with = |v: &[i64]| -> ArrayRef { Arc::new(times(v).with_timezone("UTC")) };
        let (low, high) = ("1969-12-31T23:59:59.999", "1970-01-01T00:00:00.002");
        assert_eq!(bounds_of(without(&[-1]), without(&[1001])), (json!(low), json!(high)));
        assert_eq!(bounds_of(with(&[-1]), with(&[1001])), (json!(format!("{low}Z")), json!(format!("{high}Z"))));
        let year_10_000 = 253_402_300_800_000_000;
        assert_eq!(bounds_of(with(&[0]), with(&[year_10_000])), (Value::Null, Value::Null));
    }

    #[test]
    fn floats_are_bounded() {
        let floats = |v: &[f32]| -> ArrayRef { Arc::new(Float32Array::from(v.to_vec())) };
        assert_eq!(bounds_of(floats(&[1.5]), floats(&[-2.25])), (json!(-2.25), json!(1.5)));
    }

    #[test]
    fn a_column_with_a_nan_anywhere_has_no_bounds_and_still_counts_its_nulls() {
        let doubles = |v: Vec<Option<f64>>| -> ArrayRef { Arc::new(Float64Array::from(v)) };
        let stats = of(doubles(vec![Some(1.0), None]), doubles(vec![Some(f64::NAN), Some(2.0)]));
        assert_eq!((&stats["minValues"], &stats["maxValues"]), (&json!({}), &json!({})));
        assert_eq!(stats["nullCount"]["c"], 1);
        assert_eq!(bounds_of(doubles(vec![Some(1.0), None]), doubles(vec![Some(2.0)])), (json!(1.0), json!(2.0)));
    }

    #[test]
    fn decimals_are_bounded_in_every_width_with_all_their_digits() {
        let decimals = |precision, values: &[i128]| -> ArrayRef {
            let values = Decimal128Array::from(values.to_vec());
            Arc::new(values.with_precision_and_scale(precision, 2).unwrap())
        };
        for precision in [9, 18, 38] {
            let bounds = bounds_of(decimals(precision, &[12_345, -1]), decimals(precision, &[7]));
            assert_eq!(bounds, (json!(-0.01), json!(123.45)), "{precision}");
        }
        let text = text_of(decimals(38, &[-5, 10i128.pow(37) + 1]), decimals(38, &[0]));
        assert!(
            text.contains(r#""minValues":{"c":-0.05},"maxValues":{"c":100000000000000000000000000000000000.01}"#),
            "{text}"
        );
        assert_eq!(decimal(-7, 0).unwrap().get(), "-7");
    }
}
