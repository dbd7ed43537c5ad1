//! From one type to another, or the error that the server has for it.
//! <https://learn.microsoft.com/sql/t-sql/functions/cast-and-convert-transact-sql>

use crate::collation::{from_1252, to_1252};
use crate::decimal::Decimal;
use crate::error::{SqlError, not_converted, overflow, small_overflow, truncated};
use crate::temporal::{self, DAY_1753, DAY_1900, Moment, TICKS_A_DAY};
use crate::types::{Length, Type};
use crate::value::{Value, guid_text, store_moment, stored_moment};

/// Where a value goes: into a column, which is told when it is too long, or anywhere else, where it is cut.
/// <https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql#data-types>
#[derive(Debug, Clone, Copy)]
pub enum Into<'a> {
    Column {
        table: &'a str,
        column: &'a str,
        utf8: bool,
    },
    Expression,
    /// By CAST: also what does not happen by itself. A text keeps its collation, and so whether it is in UTF-8.
    Cast {
        utf8: bool,
    },
}

pub fn convert(value: Value, from: Type, to: Type, into: Into<'_>) -> Result<Value, SqlError> {
    if !matches!(value, Value::Null) && !is_allowed(from, to, into) {
        return Err(clash(from, to));
    }
    match value {
        Value::Null => Ok(Value::Null),
        value if to.is_integer() => to_integer(value, from, to),
        value if to.is_float() => to_float(value, from, to),
        value if to.is_decimal() => to_decimal(value, from, to),
        value if to.is_temporal() => to_moment(value, from, to),
        value if to.is_text() => fit_text(to_text(value, from), to, into),
        value if to.is_binary() => fit_binary(to_binary(value, from), to, into),
        value if to == Type::UniqueIdentifier => to_guid(value, from),
        value if to == Type::Xml => to_xml(value, from),
        value => Ok(value),
    }
}

/// Which conversions happen by themselves, and which are asked for with CAST.
pub fn is_allowed(from: Type, to: Type, into: Into<'_>) -> bool {
    let by_cast = matches!(into, Into::Cast { .. });
    if from == Type::Null || to == Type::Null || from.name() == to.name() {
        return true;
    }
    match (from, to) {
        (Type::Date, Type::Time(_)) | (Type::Time(_), Type::Date) => false,
        (Type::Xml, _) => (to.is_text() || to.is_binary()) && by_cast,
        (_, Type::Xml) => from.is_text() || from.is_binary(),
        _ if from.is_number() && to.is_number() => true,
        _ if from.is_temporal() && to.is_temporal() => true,
        _ if from.is_text() => !to.is_binary() || by_cast,
        _ if to.is_text() => !from.is_binary() || by_cast,
        (Type::UniqueIdentifier, _) => to.is_binary() && by_cast,
        (_, Type::UniqueIdentifier) => from.is_binary(),
        _ => from.is_binary() && to.is_binary(),
    }
}

pub fn clash(from: Type, to: Type) -> SqlError {
    if from.is_text() && to.is_binary() || from == Type::Xml || from.is_binary() && to.is_text() {
        let message = format!(
            "Implicit conversion from data type {} to {} is not allowed. Use the CONVERT function to run this query.",
            from.name(),
            to.name()
        );
        return SqlError { state: 3, ..SqlError::new(257, 16, message) };
    }
    let message = format!("Operand type clash: {} is incompatible with {}", from.name(), to.name());
    SqlError { state: 2, ..SqlError::new(206, 16, message) }
}

/// What errors call a decimal.
fn spoken(of: Type) -> &'static str {
    if matches!(of, Type::Decimal { .. }) { "numeric" } else { of.name() }
}

fn range(of: Type) -> (i64, i64) {
    match of {
        Type::TinyInt => (0, 255),
        Type::SmallInt => (i16::MIN.into(), i16::MAX.into()),
        Type::Int => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    }
}

fn to_integer(value: Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let whole = match &value {
        Value::Integer(number) => i128::from(*number),
        Value::Real(number) if number.is_finite() && number.abs() < 1e19 => number.trunc() as i128,
        Value::Real(number) => {
            let message = format!("Arithmetic overflow error for type {}, value = {number:.6}.", to.name());
            return Err(SqlError { state: 3, ..SqlError::new(232, 16, message) });
        }
        Value::Text(text) if from.is_text() => return text_to_integer(text, from, to),
        Value::Text(text) => Decimal::parse(text).map_or(0, Decimal::truncated),
        Value::Blob(_) | Value::Null => return Err(clash(from, to)),
    };
    if to == Type::Bit {
        let zero = matches!(&value, Value::Integer(0)) || matches!(&value, Value::Real(n) if *n == 0.0);
        let zero = zero || matches!(&value, Value::Text(text) if Decimal::parse(text).is_some_and(|d| d.value == 0));
        return Ok(Value::Integer(i64::from(!zero)));
    }
    let (low, high) = range(to);
    if (i128::from(low)..=i128::from(high)).contains(&whole) {
        return Ok(Value::Integer(whole as i64));
    }
    Err(match to {
        Type::TinyInt | Type::SmallInt if from.is_integer() => small_overflow(to.name(), &whole.to_string()),
        _ if from.is_integer() => overflow("expression", to.name()),
        _ => overflow(spoken(from), to.name()),
    })
}

fn text_to_integer(text: &str, from: Type, to: Type) -> Result<Value, SqlError> {
    let failed = || match to {
        Type::BigInt => not_converted(from.name(), to.name()),
        _ => {
            let message = format!(
                "Conversion failed when converting the {} value '{text}' to data type {}.",
                from.name(),
                to.name()
            );
            SqlError::new(245, 16, message)
        }
    };
    let trimmed = text.trim_matches(' ');
    if to == Type::Bit {
        return match trimmed.to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Integer(1)),
            "false" => Ok(Value::Integer(0)),
            digits => digits.parse::<i64>().map(|n| Value::Integer(i64::from(n != 0))).map_err(|_| failed()),
        };
    }
    if trimmed.is_empty() && to != Type::BigInt {
        return Ok(Value::Integer(0));
    }
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(failed());
    }
    let (low, high) = range(to);
    match trimmed.parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(Value::Integer(number)),
        _ if to == Type::BigInt => Err(overflow(from.name(), to.name())),
        _ if to == Type::Int => {
            let message = format!("The conversion of the {} value '{trimmed}' overflowed an int column.", from.name());
            Err(SqlError::new(248, 16, message))
        }
        _ => {
            let size = if to == Type::TinyInt { "INT1" } else { "INT2" };
            let message = format!(
                "The conversion of the {} value '{trimmed}' overflowed an {size} column. Use a larger integer column.",
                from.name()
            );
            Err(SqlError::new(244, 16, message))
        }
    }
}

fn to_float(value: Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let number = match value {
        Value::Integer(number) => number as f64,
        Value::Real(number) => number,
        Value::Text(text) if from.is_text() => {
            let trimmed = text.trim_matches(' ');
            let is_plain = trimmed.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            let parsed = if trimmed.is_empty() { Some(0.0) } else { trimmed.parse().ok() };
            parsed.filter(|_| is_plain).ok_or_else(|| not_converted(from.name(), to.name()))?
        }
        Value::Text(text) => Decimal::parse(&text).map_or(f64::NAN, Decimal::to_f64),
        Value::Blob(_) | Value::Null => return Err(clash(from, to)),
    };
    if to == Type::Float {
        return if number.is_finite() { Ok(Value::Real(number)) } else { Err(overflow(from.name(), "float")) };
    }
    let narrow = number as f32;
    if narrow.is_finite() { Ok(Value::Real(narrow.into())) } else { Err(overflow(from.name(), "real")) }
}

fn to_decimal(value: Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let (precision, scale) = to.digits().unwrap_or((38, 0));
    let too_large = || overflow(spoken(from), spoken(to));
    let exact = match value {
        Value::Integer(number) => Decimal::from_integer(number),
        Value::Real(number) => {
            let digits = format!("{number:.*}", usize::from(scale.min(37)) + 1);
            Decimal::parse(&digits).ok_or_else(too_large)?
        }
        Value::Text(text) => Decimal::parse(&text).ok_or_else(|| match to {
            Type::Decimal { .. } => not_converted(from.name(), "numeric"),
            _ => SqlError::new(235, 16, "Cannot convert a char value to money. The char value has incorrect syntax."),
        })?,
        Value::Blob(_) | Value::Null => return Err(clash(from, to)),
    };
    let rescaled = exact.rescaled(scale).filter(|decimal| match to {
        Type::Money => i64::try_from(decimal.value).is_ok(),
        Type::SmallMoney => i32::try_from(decimal.value).is_ok(),
        _ => decimal.fits(precision),
    });
    rescaled.map(|decimal| Value::Text(decimal.to_string())).ok_or_else(too_large)
}

fn to_moment(value: Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let Value::Text(text) = value else { return Err(clash(from, to)) };
    let out_of_range = || {
        let message = format!(
            "The conversion of a {} data type to a {} data type resulted in an out-of-range value.",
            from.name(),
            to.name()
        );
        SqlError { state: 3, ..SqlError::new(242, 16, message) }
    };
    let mut local = if from.is_text() { parse_moment(&text, to)? } else { stored_moment(&text) };
    if matches!(from, Type::DateTimeOffset(_)) {
        local = local.local().ok_or_else(out_of_range)?;
    }
    if matches!(from, Type::Time(_)) {
        local.day = DAY_1900;
    }
    let moment = match to {
        Type::Date => Moment { tick: 0, offset: 0, ..local },
        Type::Time(digits) => {
            let rounded = Moment { day: 0, ..local }.rounded(digits);
            Moment { day: 0, offset: 0, ..rounded }
        }
        Type::DateTime2(digits) => Moment { offset: 0, ..local.rounded(digits) },
        Type::DateTimeOffset(digits) => local.rounded(digits).utc().ok_or_else(out_of_range)?,
        Type::SmallDateTime => round_to_minute(local).ok_or_else(out_of_range)?,
        _ => round_to_300th(local).ok_or_else(out_of_range)?,
    };
    Ok(store_moment(moment, to))
}

fn parse_moment(text: &str, to: Type) -> Result<Moment, SqlError> {
    let failed = || SqlError::new(241, 16, "Conversion failed when converting date and/or time from character string.");
    let (day, tick, offset) = temporal::parse(text).ok_or_else(failed)?;
    let is_old = matches!(to, Type::DateTime | Type::SmallDateTime);
    if is_old && (offset.is_some_and(|minutes| minutes != 0) || has_more_than_three_digits(text)) {
        return Err(failed());
    }
    Ok(Moment { day: day.unwrap_or(DAY_1900), tick: tick.unwrap_or(0), offset: offset.unwrap_or(0) })
}

/// `datetime` reads three digits of a second from a text, and no more.
fn has_more_than_three_digits(text: &str) -> bool {
    text.rsplit_once('.').is_some_and(|(_, part)| part.bytes().take_while(u8::is_ascii_digit).count() > 3)
}

fn round_to_minute(moment: Moment) -> Option<Moment> {
    let minute = 600_000_000;
    let start = Moment { tick: moment.tick / minute * minute, offset: 0, ..moment };
    let rounded = if moment.tick % minute >= minute / 2 { start.moved(minute)? } else { start };
    (DAY_1900..=DAY_1900 + 65_535).contains(&rounded.day).then_some(rounded)
}

/// `datetime` has .000, .003 and .007.
fn round_to_300th(moment: Moment) -> Option<Moment> {
    let units = (moment.tick * 3 + 50_000) / 100_000;
    let tick = (units * 10 + 1) / 3 * 10_000;
    let rounded = Moment { tick: 0, offset: 0, ..moment }.moved(tick.min(TICKS_A_DAY))?;
    (rounded.day >= DAY_1753).then_some(rounded)
}

/// How a value reads.
pub fn to_text(value: Value, from: Type) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => write_float(number),
        Value::Blob(bytes) => from_1252(&bytes),
        Value::Text(text) => match from {
            Type::Money | Type::SmallMoney => {
                Decimal::parse(&text).and_then(|d| d.rescaled(2)).map_or(text, |short| short.to_string())
            }
            Type::UniqueIdentifier => text.to_uppercase(),
            temporal if temporal.is_temporal() => write_moment(&text, temporal),
            _ => text,
        },
    }
}

/// A stored point in time as T-SQL shows it: with the digits of its type, and the time of its own clock.
pub fn write_moment(text: &str, of: Type) -> String {
    let stored = stored_moment(text);
    let date = |moment: Moment| temporal::write_date(moment.day);
    match of {
        Type::Date => date(stored),
        Type::Time(digits) => temporal::write_time(stored.tick, digits),
        Type::DateTimeOffset(digits) => {
            let local = stored.local().unwrap_or(stored);
            format!(
                "{} {} {}",
                date(local),
                temporal::write_time(local.tick, digits),
                temporal::write_offset(local.offset)
            )
        }
        Type::DateTime2(digits) => format!("{} {}", date(stored), temporal::write_time(stored.tick, digits)),
        Type::SmallDateTime => format!("{} {}", date(stored), temporal::write_time(stored.tick, 0)),
        _ => format!("{} {}", date(stored), temporal::write_time(stored.tick, 3)),
    }
}

/// Six digits, as CONVERT does without a style.
fn write_float(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let exponent = number.abs().log10().floor() as i32;
    if (-5..15).contains(&exponent) {
        let digits = (5 - exponent).max(0) as usize;
        let text = format!("{number:.digits$}");
        return if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text };
    }
    let text = format!("{number:.5e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!(
        "{}e{}{:03}",
        mantissa.trim_end_matches('0').trim_end_matches('.'),
        if exponent < 0 { '-' } else { '+' },
        exponent.abs()
    )
}

/// As long as the type counts: bytes of `varchar`, units of UTF-16 of `nvarchar`.
pub fn text_length(text: &str, of: Type, utf8: bool) -> usize {
    if of.is_unicode() {
        text.encode_utf16().count()
    } else if utf8 {
        text.len()
    } else {
        text.chars().count()
    }
}

fn fit_text(text: String, to: Type, into: Into<'_>) -> Result<Value, SqlError> {
    let utf8 = matches!(into, Into::Column { utf8: true, .. } | Into::Cast { utf8: true });
    let text = if to.is_unicode() || utf8 { text } else { from_1252(&to_1252(&text)) };
    let (length, padded): (Length, bool) = match to {
        Type::Char(n) | Type::NChar(n) => (Some(n), true),
        Type::VarChar(length) | Type::NVarChar(length) => (length, false),
        _ => (None, false),
    };
    let Some(limit) = length.map(usize::from) else { return Ok(Value::Text(text)) };
    let actual = text_length(&text, to, utf8);
    if actual > limit {
        let cut = cut_text(&text, limit, to, utf8);
        if let Into::Column { table, column, .. } = into
            && !text[cut.len()..].bytes().all(|b| b == b' ')
        {
            return Err(truncated(table, column, &cut));
        }
        return Ok(Value::Text(cut));
    }
    Ok(Value::Text(if padded { text + &" ".repeat(limit - actual) } else { text }))
}

fn cut_text(text: &str, limit: usize, of: Type, utf8: bool) -> String {
    let mut cut = String::new();
    for c in text.chars() {
        if text_length(&cut, of, utf8) + text_length(c.encode_utf8(&mut [0; 4]), of, utf8) > limit {
            break;
        }
        cut.push(c);
    }
    cut
}

fn to_binary(value: Value, from: Type) -> Vec<u8> {
    match value {
        Value::Blob(bytes) => bytes,
        Value::Text(text) if from.is_unicode() || from == Type::Xml => {
            text.encode_utf16().flat_map(u16::to_le_bytes).collect()
        }
        Value::Text(text) => to_1252(&text),
        _ => Vec::new(),
    }
}

fn fit_binary(mut bytes: Vec<u8>, to: Type, into: Into<'_>) -> Result<Value, SqlError> {
    let (length, padded) = match to {
        Type::Binary(n) => (Some(n), true),
        Type::VarBinary(length) => (length, false),
        _ => (None, false),
    };
    if let Some(limit) = length.map(usize::from) {
        if bytes.len() > limit {
            if let Into::Column { table, column, .. } = into {
                return Err(truncated(table, column, ""));
            }
            bytes.truncate(limit);
        }
        if padded {
            bytes.resize(limit, 0);
        }
    }
    Ok(Value::Blob(bytes))
}

fn to_guid(value: Value, from: Type) -> Result<Value, SqlError> {
    let text = match value {
        Value::Blob(bytes) if bytes.len() == 16 => return Ok(Value::Text(guid_text(&bytes))),
        Value::Text(text) => text,
        _ => return Err(clash(from, Type::UniqueIdentifier)),
    };
    let bare = text.trim_matches(' ');
    let bare = bare.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(bare);
    let right = bare.len() == 36
        && bare
            .bytes()
            .enumerate()
            .all(|(at, b)| if [8, 13, 18, 23].contains(&at) { b == b'-' } else { b.is_ascii_hexdigit() });
    if right {
        return Ok(Value::Text(bare.to_ascii_lowercase()));
    }
    let message = "Conversion failed when converting from a character string to uniqueidentifier.";
    Err(SqlError { state: 2, ..SqlError::new(8169, 16, message) })
}

fn to_xml(value: Value, from: Type) -> Result<Value, SqlError> {
    let text = to_text(value, from);
    match misplaced_tag(&text) {
        None => Ok(Value::Text(text)),
        Some(at) => {
            let message = format!(
                "XML parsing: line 1, character {}, well formed check: end tag does not match start tag",
                at + 1
            );
            Err(SqlError::new(9436, 16, message))
        }
    }
}

/// Whether each tag is closed by its own; more of XML is not read here.
fn misplaced_tag(text: &str) -> Option<usize> {
    let mut open: Vec<&str> = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find('<').map(|found| at + found) {
        let Some(end) = text[start..].find('>').map(|found| start + found) else { return Some(start) };
        let tag = &text[start + 1..end];
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(closed.trim()) {
                return Some(start);
            }
        } else if !tag.starts_with(['?', '!']) && !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap_or(""));
        }
        at = end + 1;
    }
    (!open.is_empty()).then_some(text.len())
}
