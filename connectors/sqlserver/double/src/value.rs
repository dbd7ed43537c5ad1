//! Values as they are stored, and on the wire (MS-TDS 2.2.5.5).
//!
//! Stored are integers, doubles, bytes and texts: decimals as their digits, points in time as texts of one length that sort
//! (with an offset: the time of UTC first), identifiers in lower case.

pub use rusqlite::types::Value;

use crate::collation::{from_1252, to_1252};
use crate::decimal::Decimal;
use crate::reader::{Read, Reader, utf16, violation};
use crate::temporal::{self, DAY_1900, Moment, TICKS_A_DAY};
use crate::types::{Type, WireType, decimal_bytes, time_bytes};

/// Whether values of the type come with a length of eight bytes and in chunks: MS-TDS 2.2.5.2.3.
fn is_chunked(of: Type) -> bool {
    matches!(of, Type::VarChar(None) | Type::NVarChar(None) | Type::VarBinary(None) | Type::Xml)
}

fn has_long_length(of: Type) -> bool {
    of.is_text() || of.is_binary()
}

const NULL_CHUNKS: u64 = u64::MAX;
const UNKNOWN_LENGTH: u64 = u64::MAX - 1;
const NULL_LENGTH: u16 = u16::MAX;

pub fn write(out: &mut Vec<u8>, value: &Value, of: WireType) {
    let bytes = bytes_of(value, of);
    match bytes {
        None if is_chunked(of.of) => out.extend(NULL_CHUNKS.to_le_bytes()),
        None if has_long_length(of.of) => out.extend(NULL_LENGTH.to_le_bytes()),
        None => out.push(0),
        Some(bytes) if is_chunked(of.of) => {
            out.extend((bytes.len() as u64).to_le_bytes());
            if !bytes.is_empty() {
                out.extend((bytes.len() as u32).to_le_bytes());
                out.extend(bytes);
            }
            out.extend(0u32.to_le_bytes());
        }
        Some(bytes) if has_long_length(of.of) => {
            out.extend((bytes.len() as u16).to_le_bytes());
            out.extend(bytes);
        }
        Some(bytes) => {
            if !of.fixed {
                out.push(bytes.len() as u8);
            }
            out.extend(bytes);
        }
    }
}

fn bytes_of(value: &Value, of: WireType) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null => return None,
        Value::Integer(number) => {
            let (size, _, _) = of.of.dimensions();
            number.to_le_bytes()[..size as usize].to_vec()
        }
        Value::Real(number) if of.of == Type::Real => (*number as f32).to_le_bytes().to_vec(),
        Value::Real(number) => number.to_le_bytes().to_vec(),
        Value::Blob(bytes) => bytes.clone(),
        Value::Text(text) => text_bytes(text, of),
    })
}

fn text_bytes(text: &str, of: WireType) -> Vec<u8> {
    match of.of {
        Type::NChar(_) | Type::NVarChar(_) | Type::Xml => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Type::Char(_) | Type::VarChar(_) if of.utf8 => text.as_bytes().to_vec(),
        Type::Char(_) | Type::VarChar(_) => to_1252(text),
        Type::UniqueIdentifier => guid_bytes(text),
        Type::Decimal { .. } | Type::Money | Type::SmallMoney => decimal_value(text, of.of),
        of => moment_value(text, of),
    }
}

/// MS-TDS 2.2.5.5.1.5: a sign and a magnitude; money: a multiple of a ten-thousandth, the higher half first.
fn decimal_value(text: &str, of: Type) -> Vec<u8> {
    let value = Decimal::parse(text).map_or(0, |decimal| decimal.value);
    match of {
        Type::Decimal { precision, .. } => {
            let mut bytes = vec![u8::from(value >= 0)];
            bytes.extend(&value.unsigned_abs().to_le_bytes()[..usize::from(decimal_bytes(precision)) - 1]);
            bytes
        }
        Type::SmallMoney => (value as i32).to_le_bytes().to_vec(),
        _ => {
            let value = value as i64;
            [((value >> 32) as i32).to_le_bytes(), (value as u32).to_le_bytes()].concat()
        }
    }
}

fn moment_value(text: &str, of: Type) -> Vec<u8> {
    let moment = stored_moment(text);
    let time = |scale: u8| {
        let units = moment.tick / 10i64.pow(7 - u32::from(scale));
        units.to_le_bytes()[..time_bytes(scale)].to_vec()
    };
    let date = || moment.day.to_le_bytes()[..3].to_vec();
    match of {
        Type::Date => date(),
        Type::Time(scale) => time(scale),
        Type::DateTime2(scale) => [time(scale), date()].concat(),
        Type::DateTimeOffset(scale) => [time(scale), date(), (moment.offset as i16).to_le_bytes().to_vec()].concat(),
        Type::SmallDateTime => {
            [((moment.day - DAY_1900) as u16).to_le_bytes(), ((moment.tick / 600_000_000) as u16).to_le_bytes()]
                .concat()
        }
        _ => {
            let units = (moment.tick * 3 + 50_000) / 100_000;
            [((moment.day - DAY_1900) as i32).to_le_bytes(), (units as u32).to_le_bytes()].concat()
        }
    }
}

/// A stored date, time, or both. With an offset, the rest is the time of UTC.
pub fn stored_moment(text: &str) -> Moment {
    let (day, tick, offset) = temporal::parse(text).unwrap_or_default();
    Moment { day: day.unwrap_or(0), tick: tick.unwrap_or(0), offset: offset.unwrap_or(0) }
}

pub fn store_moment(moment: Moment, of: Type) -> Value {
    let date = || temporal::write_date(moment.day);
    let time = || temporal::write_time(moment.tick, 7);
    Value::Text(match of {
        Type::Date => date(),
        Type::Time(_) => time(),
        Type::DateTimeOffset(_) => format!("{} {} {}", date(), time(), temporal::write_offset(moment.offset)),
        _ => format!("{} {}", date(), time()),
    })
}

/// MS-TDS 2.2.5.5.1.4: three groups with their lowest byte first, then eight bytes as they are.
const GUID_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

fn guid_bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter(u8::is_ascii_hexdigit).map(|d| char::from(d).to_digit(16).unwrap_or(0) as u8).collect();
    let plain: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    GUID_ORDER.iter().map(|at| plain.get(*at).copied().unwrap_or(0)).collect()
}

pub fn guid_text(wire: &[u8]) -> String {
    let hex: String = GUID_ORDER.iter().map(|at| format!("{:02x}", wire[*at])).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

pub fn read(reader: &mut Reader<'_>, of: WireType) -> Read<Value> {
    if of.of == Type::Null {
        return Ok(Value::Null);
    }
    let bytes = if of.fixed {
        let (size, _, _) = of.of.dimensions();
        Some(reader.take(size as usize)?.to_vec())
    } else if is_chunked(of.of) {
        read_chunks(reader)?
    } else if has_long_length(of.of) {
        match reader.u16()? {
            NULL_LENGTH => None,
            length => Some(reader.take(length.into())?.to_vec()),
        }
    } else {
        match reader.u8()? {
            0 => None,
            length => Some(reader.take(length.into())?.to_vec()),
        }
    };
    bytes.map_or(Ok(Value::Null), |bytes| value_of(&bytes, of))
}

fn read_chunks(reader: &mut Reader<'_>) -> Read<Option<Vec<u8>>> {
    let total = reader.u64()?;
    if total == NULL_CHUNKS {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    loop {
        match reader.u32()? {
            0 => break,
            length => bytes.extend(reader.take(length as usize)?),
        }
    }
    if total != UNKNOWN_LENGTH && total != bytes.len() as u64 {
        return violation(format!("a value of {total} bytes has {}", bytes.len()));
    }
    Ok(Some(bytes))
}

fn value_of(bytes: &[u8], of: WireType) -> Read<Value> {
    let (size, _, _) = of.of.dimensions();
    if has_long_length(of.of) && size >= 0 && bytes.len() as i64 > size {
        return violation(format!("a {} has {} bytes", of.of.declared(), bytes.len()));
    }
    Ok(match of.of {
        Type::NChar(_) | Type::NVarChar(_) => Value::Text(utf16(bytes)?),
        Type::Xml => Value::Text(utf16(bytes.strip_prefix(&[0xFF, 0xFE]).unwrap_or(bytes))?),
        Type::Char(_) | Type::VarChar(_) if of.utf8 => {
            Value::Text(String::from_utf8(bytes.to_vec()).or_else(|_| violation("a text that is no UTF-8"))?)
        }
        Type::Char(_) | Type::VarChar(_) => Value::Text(from_1252(bytes)),
        Type::Binary(_) | Type::VarBinary(_) => Value::Blob(bytes.to_vec()),
        Type::Decimal { precision, scale } => read_decimal(bytes, precision, scale)?,
        _ if bytes.len() as i64 != size => {
            return violation(format!("a {} of {} bytes", of.of.declared(), bytes.len()));
        }
        Type::Bit => Value::Integer(i64::from(bytes[0] != 0)),
        Type::TinyInt => Value::Integer(bytes[0].into()),
        Type::SmallInt | Type::Int | Type::BigInt => Value::Integer(signed(bytes)),
        Type::Real => Value::Real(f32::from_bits(unsigned(bytes) as u32).into()),
        Type::Float => Value::Real(f64::from_bits(unsigned(bytes) as u64)),
        Type::Money => money(signed(&[&bytes[4..], &bytes[..4]].concat())),
        Type::SmallMoney => money(signed(bytes)),
        Type::UniqueIdentifier => Value::Text(guid_text(bytes)),
        temporal => read_moment(bytes, temporal)?,
    })
}

fn unsigned(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    ((unsigned(bytes) as u64) << unused) as i64 >> unused
}

fn money(value: i64) -> Value {
    Value::Text(Decimal { value: value.into(), scale: 4 }.to_string())
}

fn read_decimal(bytes: &[u8], precision: u8, scale: u8) -> Read<Value> {
    // Any number of bytes up to the type's: drivers leave out those that are zero.
    let (sign, magnitude) = (bytes[0], &bytes[1..]);
    let value = unsigned(magnitude);
    if sign > 1 || !(1..=16).contains(&magnitude.len()) || value > i128::MAX as u128 {
        return violation("a decimal of another form");
    }
    let decimal = Decimal { value: if sign == 1 { value as i128 } else { -(value as i128) }, scale };
    if !decimal.fits(precision) {
        return violation(format!("{decimal} is no decimal({precision},{scale})"));
    }
    Ok(Value::Text(decimal.to_string()))
}

fn read_moment(bytes: &[u8], of: Type) -> Read<Value> {
    let time = |scale: u8| {
        let (units, rest) = bytes.split_at(time_bytes(scale));
        (unsigned(units) as i64 * 10i64.pow(7 - u32::from(scale)), rest)
    };
    let moment = match of {
        Type::Date => Moment { day: unsigned(bytes) as i64, ..Moment::default() },
        Type::Time(scale) => Moment { tick: time(scale).0, ..Moment::default() },
        Type::DateTime2(scale) => {
            let (tick, date) = time(scale);
            Moment { day: unsigned(date) as i64, tick, offset: 0 }
        }
        Type::DateTimeOffset(scale) => {
            let (tick, rest) = time(scale);
            Moment { day: unsigned(&rest[..3]) as i64, tick, offset: signed(&rest[3..]) }
        }
        Type::SmallDateTime => Moment {
            day: DAY_1900 + unsigned(&bytes[..2]) as i64,
            tick: unsigned(&bytes[2..]) as i64 * 600_000_000,
            offset: 0,
        },
        _ => Moment {
            day: DAY_1900 + signed(&bytes[..4]),
            tick: (unsigned(&bytes[4..]) as i64 * 10 + 1) / 3 * 10_000,
            offset: 0,
        },
    };
    let known = (0..=temporal::LAST_DAY).contains(&moment.day) && (0..TICKS_A_DAY).contains(&moment.tick);
    if !known || moment.offset.abs() > 14 * 60 {
        return violation(format!("a {} out of range", of.declared()));
    }
    Ok(store_moment(moment, of))
}
