//! The functions that translated statements call within SQLite.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::{Connection, Error, Result};

use super::dates;
use super::parser::parse_type;
use crate::convert::{Into, convert, text_length};
use crate::decimal::Decimal;
use crate::error::{SqlError, overflow};
use crate::types::Type;
use crate::value::Value;

pub fn register(connection: &Connection) -> Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("tds_convert", 4, pure, |c| {
        let (from, to) = (type_of(c, 1)?, type_of(c, 2)?);
        let into = match c.get::<i64>(3)? {
            0 => Into::Expression,
            how => Into::Cast { utf8: how == 2 },
        };
        convert(c.get(0)?, from, to, into).map_err(failed)
    })?;
    connection.create_scalar_function("tds_arithmetic", 4, pure, |c| {
        let sign: String = c.get(0)?;
        arithmetic(&sign, c.get(1)?, c.get(2)?, type_of(c, 3)?).map_err(failed)
    })?;
    connection.create_scalar_function("tds_newid", 0, FunctionFlags::SQLITE_UTF8, |_| Ok(new_identifier()))?;
    connection.create_scalar_function("tds_type_name", 1, pure, |c| {
        Ok(c.get::<Option<i64>>(0)?.and_then(Type::of_system_id).map(String::from))
    })?;
    connection.create_scalar_function("tds_code_page", 2, pure, |c| {
        let (collation, property) = (c.get::<Option<String>>(0)?, c.get::<String>(1)?);
        Ok(collation.filter(|_| property.eq_ignore_ascii_case("CodePage")).map(|name| code_page(&name)))
    })?;
    connection.create_scalar_function("tds_property", 1, pure, |c| Ok(property(&c.get::<String>(0)?)))?;
    connection.create_scalar_function("tds_isjson", 1, pure, |c| {
        Ok(c.get::<Option<String>>(0)?.map(|text| i64::from(crate::json::is_document(&text))))
    })?;
    connection.create_scalar_function("tds_like", 3, pure, |c| {
        let (Some(value), Some(pattern)) = (c.get::<Option<String>>(0)?, c.get::<Option<String>>(1)?) else {
            return Ok(None);
        };
        let fold = |text: String| if c.get::<i64>(2).unwrap_or(0) == 1 { text } else { text.to_lowercase() };
        let chars = |text: String| fold(text).chars().collect::<Vec<_>>();
        Ok(Some(is_like(&chars(value), &chars(pattern))))
    })?;
    connection.create_scalar_function("tds_datalength", 2, pure, |c| {
        let of = type_of(c, 1)?;
        Ok(match c.get::<Value>(0)? {
            Value::Null => None,
            Value::Text(text) if of.is_unicode() || of == Type::Xml => {
                Some(text_length(&text, Type::NVarChar(None), false) as i64 * 2)
            }
            Value::Text(text) if of.is_text() => Some(text.chars().count() as i64),
            Value::Blob(bytes) => Some(bytes.len() as i64),
            _ => Some(of.dimensions().0),
        })
    })?;
    register_texts(connection, pure)?;
    dates::register(connection, pure)?;
    connection.create_aggregate_function("tds_sum", 1, pure, Sum)
}

fn register_texts(connection: &Connection, pure: FunctionFlags) -> Result<()> {
    let text = |name: &str, change: fn(&str) -> String| {
        connection
            .create_scalar_function(name, 1, pure, move |c| Ok(c.get::<Option<String>>(0)?.map(|text| change(&text))))
    };
    text("tds_upper", str::to_uppercase)?;
    text("tds_lower", str::to_lowercase)?;
    text("tds_ltrim", |text| text.trim_start_matches(' ').into())?;
    text("tds_rtrim", |text| text.trim_end_matches(' ').into())?;
    text("tds_trim", |text| text.trim_matches(' ').into())?;
    connection.create_scalar_function("tds_len", 1, pure, |c| {
        Ok(match c.get::<Value>(0)? {
            Value::Null => None,
            Value::Text(text) => Some(text.trim_end_matches(' ').encode_utf16().count() as i64),
            Value::Blob(bytes) => Some(bytes.len() as i64),
            Value::Integer(number) => Some(number.to_string().len() as i64),
            Value::Real(number) => Some(number.to_string().len() as i64),
        })
    })?;
    connection.create_scalar_function("tds_substring", 3, pure, |c| {
        let (text, start, length) = (c.get::<Option<String>>(0)?, c.get::<i64>(1)?, c.get::<i64>(2)?);
        let (first, end) = ((start - 1).max(0) as usize, (start - 1 + length).max(0) as usize);
        Ok(text.map(|text| text.chars().take(end).skip(first).collect::<String>()))
    })?;
    connection.create_scalar_function("tds_replicate", 2, pure, |c| {
        let (text, times) = (c.get::<Option<String>>(0)?, c.get::<i64>(1)?);
        Ok(text.and_then(|text| Some(text.repeat(usize::try_from(times).ok()?))))
    })
}

pub fn failed(error: SqlError) -> Error {
    Error::UserFunctionError(error.packed().into())
}

pub fn type_of(context: &Context<'_>, at: usize) -> Result<Type> {
    let text: String = context.get(at)?;
    parse_type(&text).map_err(failed)
}

/// <https://learn.microsoft.com/sql/t-sql/functions/serverproperty-transact-sql>
fn property(name: &str) -> Option<String> {
    let value = match name.to_ascii_lowercase().as_str() {
        "productversion" => "15.0.4000.0",
        "edition" => "Developer Edition (64-bit)",
        "engineedition" => "3",
        "collation" => crate::collation::DATABASE_DEFAULT,
        _ => return None,
    };
    Some(value.into())
}

pub fn new_identifier() -> String {
    use std::hash::{BuildHasher, Hasher};
    let half = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    let hex = format!("{:016x}{:016x}", half(), half());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

fn arithmetic(sign: &str, one: Value, two: Value, of: Type) -> std::result::Result<Value, SqlError> {
    let divided_by_zero = || SqlError::new(8134, 16, "Divide by zero error encountered.");
    match (one, two) {
        (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
        (Value::Integer(_), Value::Integer(0)) if matches!(sign, "/" | "%") => Err(divided_by_zero()),
        (Value::Integer(one), Value::Integer(two)) => {
            let result = match sign {
                "+" => one.checked_add(two),
                "-" => one.checked_sub(two),
                "*" => one.checked_mul(two),
                "/" => one.checked_div(two),
                _ => one.checked_rem(two),
            };
            let result = result.ok_or_else(|| overflow("expression", of.name()))?;
            convert(Value::Integer(result), Type::BigInt, of, Into::Expression)
                .map_err(|_| overflow("expression", of.name()))
        }
        (Value::Real(_), Value::Real(0.0)) if matches!(sign, "/" | "%") => Err(divided_by_zero()),
        (Value::Real(one), Value::Real(two)) => {
            let result = match sign {
                "+" => one + two,
                "-" => one - two,
                "*" => one * two,
                "/" => one / two,
                _ => one % two,
            };
            convert(Value::Real(result), Type::Float, of, Into::Expression)
        }
        (Value::Text(one), Value::Text(two)) => {
            let too_large = || overflow("expression", "numeric");
            let (one, two) = Decimal::parse(&one).zip(Decimal::parse(&two)).ok_or_else(too_large)?;
            if two.value == 0 && matches!(sign, "/" | "%") {
                return Err(divided_by_zero());
            }
            let result = decimals(sign, one, two, of).ok_or_else(too_large)?;
            convert(Value::Text(result.to_string()), Type::VarChar(None), of, Into::Expression)
        }
        _ => Err(overflow("expression", of.name())),
    }
}

fn decimals(sign: &str, one: Decimal, two: Decimal, of: Type) -> Option<Decimal> {
    let scale = one.scale.max(two.scale);
    Some(match sign {
        "*" => Decimal { value: one.value.checked_mul(two.value)?, scale: one.scale + two.scale },
        "/" => {
            let (_, digits) = of.digits()?;
            let raised = one.rescaled(digits + two.scale)?;
            Decimal { value: raised.value / two.value, scale: digits }
        }
        _ => {
            let (one, two) = (one.rescaled(scale)?.value, two.rescaled(scale)?.value);
            let value = match sign {
                "+" => one.checked_add(two)?,
                "-" => one.checked_sub(two)?,
                _ => one % two,
            };
            Decimal { value, scale }
        }
    })
}

/// `%`, `_` and `[…]`. <https://learn.microsoft.com/sql/t-sql/language-elements/like-transact-sql>
fn is_like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.iter().all(|c| *c == ' '),
        ['%', rest @ ..] => (0..=text.len()).any(|skipped| is_like(&text[skipped..], rest)),
        ['_', rest @ ..] => !text.is_empty() && is_like(&text[1..], rest),
        ['[', rest @ ..] if rest.contains(&']') => {
            let end = rest.iter().position(|c| *c == ']').unwrap_or(0);
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            let (not, set) = set.strip_prefix(&['^']).map_or((false, set), |set| (true, set));
            let Some((first, others)) = text.split_first() else { return false };
            let within = set.windows(3).any(|w| w[1] == '-' && (w[0]..=w[2]).contains(first)) || set.contains(first);
            within != not && is_like(others, rest)
        }
        [c, rest @ ..] => text.first() == Some(c) && is_like(&text[1..], rest),
    }
}

/// Sums decimals exactly.
struct Sum;

impl Aggregate<Option<Decimal>, Option<String>> for Sum {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<Decimal>> {
        Ok(None)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Option<Decimal>) -> Result<()> {
        let Some(next) = context.get::<Option<String>>(0)?.as_deref().and_then(Decimal::parse) else { return Ok(()) };
        let so_far = sum.unwrap_or(Decimal { value: 0, scale: next.scale });
        let added = so_far.value.checked_add(next.value).ok_or_else(|| failed(overflow("expression", "numeric")))?;
        *sum = Some(Decimal { value: added, scale: next.scale });
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Option<Decimal>>) -> Result<Option<String>> {
        Ok(sum.flatten().map(|sum| sum.to_string()))
    }
}

fn code_page(collation: &str) -> i64 {
    match collation.to_ascii_uppercase() {
        utf8 if utf8.ends_with("_UTF8") => 65001,
        japanese if japanese.starts_with("JAPANESE") => 932,
        _ => 1252,
    }
}
