//! Values that come with a type of their own, as binary formats have them.

use std::fmt::Display;

use arrow::array::StringBuilder;
use arrow::datatypes::DataType;
use chrono::{DateTime, SecondsFormat};

use super::{Column, Values, is_integer};
use crate::reject::{Bad, bad};
use crate::write::base64_digits;

/// An instant before or after what 64 bits of nanoseconds reach.
const OUT_OF_REACH: &str = "a time that does not lie between 1678 and 2261";

impl Column {
    /// Whether it takes any value, as JSON text.
    pub fn takes_json(&self) -> bool {
        matches!(self.values, Values::Json { .. })
    }

    /// JSON text, of a column that takes any.
    pub fn push_json(&mut self, text: impl Display) -> Result<(), Bad> {
        match &mut self.values {
            Values::Json { text: b, .. } => Ok(b.append_value(text.to_string())),
            _ => Err(self.wrong("JSON")),
        }
    }

    pub fn push_boolean(&mut self, value: bool) -> Result<(), Bad> {
        self.push_bool(value)
    }

    #[inline]
    pub fn push_long(&mut self, value: i64) -> Result<(), Bad> {
        match &mut self.values {
            Values::Int64(b) => Ok(b.append_value(value)),
            Values::Decimal(_) => self.push_unscaled(value.into(), 0),
            _ => self.push_integer(value.into()),
        }
    }

    pub fn push_unsigned(&mut self, value: u64) -> Result<(), Bad> {
        match &self.values {
            Values::Decimal(_) => self.push_unscaled(value.into(), 0),
            _ => self.push_integer(value.into()),
        }
    }

    /// Infinite ones and those that are no number, too: the format has them.
    #[inline]
    pub fn push_double(&mut self, value: f64) -> Result<(), Bad> {
        match &mut self.values {
            Values::Float64(b) => Ok(b.append_value(value)),
            Values::Float32(b) if !value.is_finite() => Ok(b.append_value(value as f32)),
            _ => self.push_float(value),
        }
    }

    /// One of single precision: its shortest digits are those that its writer meant.
    pub fn push_single(&mut self, value: f32) -> Result<(), Bad> {
        match &mut self.values {
            Values::Float32(b) => Ok(b.append_value(value)),
            _ => self.push_double(value.into()),
        }
    }

    #[inline]
    pub fn push_string(&mut self, text: &str) -> Result<(), Bad> {
        match &mut self.values {
            Values::Text(b) => Ok(b.append_value(text)),
            Values::Binary(b) => Ok(b.append_value(text)),
            _ => self.push_text(text),
        }
    }

    pub fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        match &mut self.values {
            Values::Binary(b) => Ok(b.append_value(bytes)),
            Values::Text(b) => match simdutf8::basic::from_utf8(bytes) {
                Ok(text) => Ok(b.append_value(text)),
                Err(_) => Err(self.wrong("bytes that are not UTF-8")),
            },
            _ => Err(self.wrong("bytes")),
        }
    }

    /// An instant that was written as the number `written`; `nanos`: since 1970.
    pub fn push_instant(&mut self, nanos: i128, written: i64) -> Result<(), Bad> {
        match &mut self.values {
            Values::Instant(b) => match i64::try_from(nanos) {
                Ok(nanos) => Ok(b.append_value(nanos)),
                Err(_) => Err(bad("bad-timestamp", format_args!("{}: {OUT_OF_REACH}", self.field.name()))),
            },
            Values::Text(b) => match instant_text(nanos) {
                Some(text) => Ok(b.append_value(text)),
                None => Err(bad("bad-timestamp", format_args!("{}: {OUT_OF_REACH}", self.field.name()))),
            },
            values if is_integer(values) => self.push_integer(written.into()),
            _ => Err(self.wrong("an instant")),
        }
    }

    /// A day, counted from 1970.
    pub fn push_day(&mut self, day: i32) -> Result<(), Bad> {
        match &mut self.values {
            Values::Date(b) => Ok(b.append_value(day)),
            Values::Text(b) => match day_text(day) {
                Some(text) => Ok(b.append_value(text)),
                None => Err(self.out_of_range(format_args!("day {day}"))),
            },
            values if is_integer(values) => self.push_integer(day.into()),
            _ => Err(self.wrong("a date")),
        }
    }

    /// `unscaled / 10^scale`.
    pub fn push_unscaled(&mut self, unscaled: i128, scale: u32) -> Result<(), Bad> {
        match &mut self.values {
            Values::Decimal(b) => {
                let DataType::Decimal128(precision, wanted) = *self.field.data_type() else {
                    return Err(self.wrong("a decimal"));
                };
                match rescaled(unscaled, scale, precision, wanted) {
                    Some(value) => Ok(b.append_value(value)),
                    None => Err(self.out_of_range(decimal_text(unscaled, scale))),
                }
            }
            Values::Text(b) => Ok(b.append_value(decimal_text(unscaled, scale))),
            Values::Float64(_) | Values::Float32(_) => {
                let nearest = decimal_text(unscaled, scale).parse().unwrap_or(f64::NAN);
                self.push_float(nearest)
            }
            values if is_integer(values) && scale == 0 => self.push_integer(unscaled),
            _ => Err(self.wrong(format_args!("the decimal {}", decimal_text(unscaled, scale)))),
        }
    }

    /// A record, whose fields `fill` puts into the columns of this one: exactly one value into each.
    pub fn push_record(&mut self, fill: impl FnOnce(&mut [Column]) -> Result<(), Bad>) -> Result<(), Bad> {
        let Values::Struct { fields, valid } = &mut self.values else { return Err(self.wrong("a record")) };
        fill(&mut fields.columns)?;
        Ok(valid.push(true))
    }

    /// A list, whose items `fill` puts into the column that it is given.
    pub fn push_list(&mut self, fill: impl FnOnce(&mut Column) -> Result<(), Bad>) -> Result<(), Bad> {
        let Values::List { item, offsets, valid } = &mut self.values else { return Err(self.wrong("an array")) };
        fill(item)?;
        offsets.push(item.len() as i32);
        Ok(valid.push(true))
    }

    /// A map, whose keys and values `fill` puts into what it is given: a value for each key.
    pub fn push_map(
        &mut self,
        fill: impl FnOnce(&mut StringBuilder, &mut Column) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        let Values::Map { keys, values, offsets, valid, .. } = &mut self.values else {
            return Err(self.wrong("a map"));
        };
        fill(keys, values)?;
        offsets.push(values.len() as i32);
        Ok(valid.push(true))
    }

    /// A value that no column of this type takes, in words.
    #[cold]
    pub fn refuse(&self, found: impl Display) -> Bad {
        self.wrong(found)
    }
}

/// An instant as this crate reads it; `None` where no calendar reaches.
pub fn instant_text(nanos: i128) -> Option<String> {
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let instant = DateTime::from_timestamp(seconds.try_into().ok()?, rest as u32)?;
    Some(instant.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// A day, counted from 1970, as this crate reads it.
pub fn day_text(day: i32) -> Option<String> {
    Some(DateTime::from_timestamp(i64::from(day) * 86_400, 0)?.format("%Y-%m-%d").to_string())
}

pub fn decimal_text(unscaled: i128, scale: u32) -> String {
    let (sign, digits) = (if unscaled < 0 { "-" } else { "" }, unscaled.unsigned_abs().to_string());
    let scale = scale as usize;
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Bytes as JSON has them here: base64.
pub fn bytes_text(bytes: &[u8]) -> String {
    base64_digits(bytes).map(char::from).collect()
}

/// The same value at another scale; `None` if it does not fit without loss.
fn rescaled(unscaled: i128, scale: u32, precision: u8, wanted: i8) -> Option<i128> {
    let shift = i32::from(wanted) - i32::try_from(scale).ok()?;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    let value = match shift {
        0.. => unscaled.checked_mul(power)?,
        _ if unscaled % power == 0 => unscaled / power,
        _ => return None,
    };
    (value.unsigned_abs() < 10_u128.checked_pow(precision.into())?).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Decimal128Type, Field, TimeUnit};

    use super::*;

    fn column(data_type: DataType) -> Column {
        Column::new(&Arc::new(Field::new("c", data_type, true)), false).unwrap()
    }

    #[test]
    fn a_decimal_keeps_each_digit_or_is_refused() {
        let mut prices = column(DataType::Decimal128(6, 2));
        prices.push_unscaled(-12345, 2).unwrap();
        prices.push_unscaled(12, 0).unwrap();
        prices.push_unscaled(123_000, 4).unwrap();
        assert_eq!(prices.push_unscaled(123_456, 4).unwrap_err().error, "c: 12.3456 does not fit Decimal128(6, 2)");
        assert_eq!(prices.push_unscaled(1_000_000, 2).unwrap_err().code, "out-of-range");
        assert_eq!(prices.push_unscaled(i128::MAX, 0).unwrap_err().code, "out-of-range");
        let array = prices.finish().unwrap();
        assert_eq!(array.as_primitive::<Decimal128Type>().values(), &[-12345, 1200, 1230]);
        assert_eq!(decimal_text(-5, 3), "-0.005");
    }

    #[test]
    fn an_instant_is_a_time_a_text_or_the_number_that_was_written() {
        let nanos = 1_574_158_211_509_135_000;
        let mut at = column(DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())));
        at.push_instant(nanos, 7).unwrap();
        assert_eq!(at.last_instant(), Some(nanos as i64));
        assert!(at.push_instant(i128::from(i64::MAX) + 1, 7).unwrap_err().error.contains("1678 and 2261"));
        let mut text = column(DataType::Utf8);
        text.push_instant(nanos, 7).unwrap();
        text.push_day(-1).unwrap();
        let text = text.finish().unwrap();
        assert_eq!(text.as_string::<i32>().value(0), "2019-11-19T10:10:11.509135Z");
        assert_eq!(text.as_string::<i32>().value(1), "1969-12-31");
        let mut number = column(DataType::Int64);
        number.push_instant(nanos, 7).unwrap();
        assert_eq!(number.finish().unwrap().len(), 1);
    }
}
