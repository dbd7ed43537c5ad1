//! The keys that rows are asked for by, as the JSON of [`fetch`](crate::statements::fetch). A key that its column cannot hold is left
//! out: there is no such row, and the server would refuse all of them for it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int64Type, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use serde_json::Value;

use crate::catalog::CatalogColumn;
use crate::cells::{rescaled, written};
use crate::types::{Encoding, SqlType, range};

/// The value of a row as JSON, if the column can have it.
type Key<'a> = Box<dyn Fn(usize) -> Option<String> + Send + 'a>;

const NANOSECONDS: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * NANOSECONDS;
const DAY: i64 = 86_400;
/// Seconds since 1970 of the days that begin the old times, and of the day after the last one of the smaller one:
/// <https://learn.microsoft.com/sql/t-sql/data-types/datetime-transact-sql>
/// <https://learn.microsoft.com/sql/t-sql/data-types/smalldatetime-transact-sql>
const FIRST_DATETIME: i64 = -79_258 * DAY;
const SMALL: std::ops::Range<i64> = -25_567 * DAY..39_969 * DAY;

/// An array of arrays: a key each, with a value for each of the columns. `None`: none of them can be a row's.
pub fn json(keys: &RecordBatch, columns: &[&CatalogColumn]) -> Result<Option<String>, ArrowError> {
    let values = keys.columns().iter().zip(columns).map(|(array, column)| key(array, column));
    let values: Vec<Key<'_>> = values.collect::<Result<_, _>>()?;
    let row = |row: usize| {
        let values: Option<Vec<String>> = values.iter().map(|value| value(row)).collect();
        values.map(|values| format!("[{}]", values.join(",")))
    };
    let rows: Vec<String> = (0..keys.num_rows()).filter_map(row).collect();
    Ok((!rows.is_empty()).then(|| format!("[{}]", rows.join(","))))
}

fn key<'a>(array: &'a ArrayRef, column: &CatalogColumn) -> Result<Key<'a>, ArrowError> {
    let of = &column.column.of;
    match (array.data_type(), of) {
        (DataType::Utf8, SqlType::Text { encoding, length }) => {
            let (array, encoding, most) = (array.as_string::<i32>(), *encoding, length.unwrap_or(usize::MAX));
            Ok(Box::new(move |row| {
                let text = array.value(row);
                (length_in(encoding, text) <= most).then(|| Value::from(text).to_string())
            }))
        }
        (DataType::Utf8, SqlType::UniqueIdentifier) => {
            let array = array.as_string::<i32>();
            // Another way to write it is another text, so it is not what would come back.
            let is_written_so = |text: &&str| tiberius::Uuid::try_parse(text).is_ok_and(|id| id.to_string() == **text);
            Ok(Box::new(move |row| {
                Some(array.value(row)).filter(is_written_so).map(|text| Value::from(text).to_string())
            }))
        }
        (DataType::Boolean, SqlType::Bit) => {
            let array = array.as_boolean();
            Ok(Box::new(move |row| Some(array.value(row).to_string())))
        }
        (DataType::Date32, SqlType::Date) => {
            let days = array.as_primitive::<Date32Type>();
            Ok(Box::new(move |row| moment(i64::from(days.value(row)) * DAY, "%Y-%m-%d", "")))
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, _), _) => {
            let (of, small) = (of.clone(), column.declared == "smalldatetime");
            let array = array.as_primitive::<TimestampNanosecondType>();
            Ok(Box::new(move |row| instant(array.value(row), &of, small)))
        }
        _ => number(array, of),
    }
}

/// In characters or bytes, as the column counts; at least as far as it is known here.
fn length_in(encoding: Encoding, text: &str) -> usize {
    match encoding {
        Encoding::Utf16 => text.encode_utf16().count(),
        Encoding::Utf8 => text.len(),
        // A character has a byte, or two.
        Encoding::CodePage => text.chars().count(),
    }
}

fn number<'a>(array: &'a ArrayRef, of: &SqlType) -> Result<Key<'a>, ArrowError> {
    let Some((whole, scale)) = of.digits() else {
        return Err(ArrowError::CastError(format!("no key of {of} is made of {}", array.data_type())));
    };
    let (ours, value): (i8, Box<dyn Fn(usize) -> i128 + Send + 'a>) = match array.data_type() {
        DataType::Decimal128(_, ours) => {
            let array = array.as_primitive::<Decimal128Type>();
            (*ours, Box::new(move |row| array.value(row)))
        }
        DataType::UInt64 => {
            let array = array.as_primitive::<UInt64Type>();
            (0, Box::new(move |row| array.value(row).into()))
        }
        _ => {
            let array = cast(array, &DataType::Int64)?;
            (0, Box::new(move |row| array.as_primitive::<Int64Type>().value(row).into()))
        }
    };
    let (least, most) = match of {
        // So many ten-thousandths: fewer than its digits could say.
        SqlType::Money => range(&DataType::Int64),
        SqlType::SmallMoney => range(&DataType::Int32),
        _ => of.range().unwrap_or_else(|| {
            let most = 10_i128.pow(u32::from(whole + scale).min(38)) - 1;
            (-most, most)
        }),
    };
    Ok(Box::new(move |row| {
        let digits = rescaled(value(row), i32::from(scale) - i32::from(ours))?;
        (least..=most).contains(&digits).then(|| written(digits, i32::from(scale)))
    }))
}

/// A time in as many digits as its column has; `None` if it has more.
fn instant(nanoseconds: i64, of: &SqlType, small: bool) -> Option<String> {
    let (seconds, part) = (nanoseconds.div_euclid(NANOSECONDS), nanoseconds.rem_euclid(NANOSECONDS));
    const FORM: &str = "%Y-%m-%dT%H:%M:%S";
    match of {
        SqlType::OldDateTime if small => {
            let held = nanoseconds.rem_euclid(MINUTE) == 0 && SMALL.contains(&seconds);
            held.then(|| moment(seconds, FORM, ""))?
        }
        SqlType::OldDateTime => {
            let held = part % 1_000_000 == 0 && seconds >= FIRST_DATETIME;
            held.then(|| moment(seconds, FORM, &format!(".{:03}", part / 1_000_000)))?
        }
        _ => {
            let zone = if *of == SqlType::DateTimeOffset { "Z" } else { "" };
            (part % 100 == 0).then(|| moment(seconds, FORM, &format!(".{:07}{zone}", part / 100)))?
        }
    }
}

/// A moment of the years that the server knows, in quotes.
fn moment(seconds: i64, form: &str, behind: &str) -> Option<String> {
    const YEAR_1: i64 = -719_162 * DAY;
    const YEAR_10000: i64 = 2_932_897 * DAY;
    let at = (YEAR_1..YEAR_10000).contains(&seconds).then_some(seconds)?;
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(at)?;
    Some(format!("\"{}{behind}\"", at.format(form)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::catalog::tests::column;

    /// The keys of one column, `null` where there is none.
    fn keys(array: impl Array + 'static, of: &str) -> Vec<String> {
        let array: ArrayRef = Arc::new(array);
        let collation = of.contains("char").then_some("SQL_Latin1_General_CP1_CI_AS");
        let column = column("c", of, collation);
        let key = key(&array, &column).unwrap();
        (0..array.len()).map(|row| key(row).unwrap_or_else(|| "null".into())).collect()
    }

    #[test]
    fn a_key_that_the_column_cannot_hold_is_not_asked_for() {
        assert_eq!(keys(Int64Array::from(vec![5, 1 << 31, -1]), "int"), ["5", "null", "-1"]);
        assert_eq!(keys(Int64Array::from(vec![255, 256, -1]), "tinyint"), ["255", "null", "null"]);
        assert_eq!(keys(UInt64Array::from(vec![u64::MAX]), "decimal(20,0)"), ["18446744073709551615"]);
        let decimals = Decimal128Array::from(vec![12_300, 12_345, -50]).with_precision_and_scale(10, 4).unwrap();
        assert_eq!(keys(decimals, "decimal(5,2)"), ["1.23", "null", "null"]);
        assert_eq!(keys(StringArray::from(vec!["it's", "0123456789a"]), "varchar(10)"), ["\"it's\"", "null"]);
        let ids = ["6f9619ff-8b86-d011-b42d-00c04fc964ff", "6F9619FF-8B86-D011-B42D-00C04FC964FF", "none"];
        assert_eq!(
            keys(StringArray::from(ids.to_vec()), "uniqueidentifier"),
            ["\"6f9619ff-8b86-d011-b42d-00c04fc964ff\"", "null", "null"]
        );
    }

    #[test]
    fn times_have_the_digits_of_their_column() {
        // 2026-11-24T10:00:00
        let at = 1_795_514_400 * NANOSECONDS;
        let times = |values: Vec<i64>| TimestampNanosecondArray::from(values).with_timezone("UTC");
        let seven = keys(times(vec![at + 123_456_700, at + 1]), "datetime2(7)");
        assert_eq!(seven, ["\"2026-11-24T10:00:00.1234567\"", "null"]);
        assert_eq!(keys(times(vec![at]), "datetimeoffset(0)"), ["\"2026-11-24T10:00:00.0000000Z\""]);
        assert_eq!(keys(times(vec![at + 3_000_000, i64::MIN]), "datetime")[0], "\"2026-11-24T10:00:00.003\"");
        assert_eq!(keys(times(vec![i64::MIN, at + 1000]), "datetime"), ["null", "null"]);
        let small = keys(times(vec![at, at + NANOSECONDS, i64::MAX]), "smalldatetime");
        assert_eq!(small, ["\"2026-11-24T10:00:00\"", "null", "null"]);
        assert_eq!(keys(Date32Array::from(vec![0, 3_000_000]), "date"), ["\"1970-01-01\"", "null"]);
    }

    #[test]
    fn keys_of_several_columns_are_arrays() {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![1, 300])), Arc::new(StringArray::from(vec!["a\"b", "c"]))];
        let fields = vec![Field::new("n", DataType::Int32, false), Field::new("t", DataType::Utf8, false)];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let (n, t) = (column("n", "tinyint", None), column("t", "nvarchar(9)", Some("Latin1_General_100_CI_AS")));
        assert_eq!(json(&batch, &[&n, &t]).unwrap().as_deref(), Some(r#"[[1,"a\"b"]]"#));
        assert_eq!(json(&batch.slice(1, 1), &[&n, &t]).unwrap(), None);
    }
}
