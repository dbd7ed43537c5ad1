//! The types of columns: names, sizes, and how they are said on the wire.
//! <https://learn.microsoft.com/sql/t-sql/data-types/data-types-transact-sql> and MS-TDS 2.2.5.4, 2.2.5.6.

use crate::collation::Collation;
use crate::error::SqlError;
use crate::reader::{Read, Reader, violation};

/// Characters of `nchar` and `nvarchar`, bytes of the others; `None`: max.
pub type Length = Option<u16>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Of a bare NULL.
    Null,
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Real,
    Float,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Money,
    SmallMoney,
    Date,
    Time(u8),
    DateTime2(u8),
    DateTimeOffset(u8),
    DateTime,
    SmallDateTime,
    Char(u16),
    VarChar(Length),
    NChar(u16),
    NVarChar(Length),
    Binary(u16),
    VarBinary(Length),
    UniqueIdentifier,
    Xml,
}

/// What stands in parentheses behind a type's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    Number(u32),
    Max,
}

impl Type {
    pub fn named(name: &str, arguments: &[Argument]) -> Result<Self, SqlError> {
        let scale = |default: u8| match arguments {
            [] => Ok(default),
            [Argument::Number(n @ 0..=7)] => Ok(*n as u8),
            _ => Err(SqlError::new(1002, 16, format!("Line 1: Specified scale for {name} is invalid."))),
        };
        let length = |limit: u32| match arguments {
            [] => Ok(Some(1)),
            [Argument::Max] => Ok(None),
            [Argument::Number(0)] => {
                Err(SqlError::new(1001, 16, "Line 1: Length or precision specification 0 is invalid."))
            }
            [Argument::Number(n)] if *n <= limit => Ok(Some(*n as u16)),
            [Argument::Number(n), ..] => {
                let message =
                    format!("The size ({n}) given to the type '{name}' exceeds the maximum allowed ({limit}).");
                Err(SqlError::new(131, 15, message))
            }
            _ => Err(crate::error::syntax(name)),
        };
        let fixed = |limit: u32| length(limit)?.ok_or_else(|| crate::error::syntax("max"));
        let bare = |of: Type| {
            if arguments.is_empty() {
                return Ok(of);
            }
            Err(SqlError::new(
                2716,
                16,
                format!("Column, parameter, or variable #1: Cannot specify a column width on data type {name}."),
            ))
        };
        match name.to_ascii_lowercase().as_str() {
            "bit" => bare(Type::Bit),
            "tinyint" => bare(Type::TinyInt),
            "smallint" => bare(Type::SmallInt),
            "int" | "integer" => bare(Type::Int),
            "bigint" => bare(Type::BigInt),
            "real" => bare(Type::Real),
            "float" => match arguments {
                [] | [Argument::Number(25..=53)] => Ok(Type::Float),
                [Argument::Number(1..=24)] => Ok(Type::Real),
                _ => Err(crate::error::syntax(name)),
            },
            "decimal" | "numeric" | "dec" => decimal(arguments),
            "money" => bare(Type::Money),
            "smallmoney" => bare(Type::SmallMoney),
            "date" => bare(Type::Date),
            "time" => scale(7).map(Type::Time),
            "datetime2" => scale(7).map(Type::DateTime2),
            "datetimeoffset" => scale(7).map(Type::DateTimeOffset),
            "datetime" => bare(Type::DateTime),
            "smalldatetime" => bare(Type::SmallDateTime),
            "char" | "character" => fixed(8000).map(Type::Char),
            "varchar" => length(8000).map(Type::VarChar),
            "nchar" => fixed(4000).map(Type::NChar),
            "nvarchar" => length(4000).map(Type::NVarChar),
            "sysname" => bare(Type::NVarChar(Some(128))),
            "binary" => fixed(8000).map(Type::Binary),
            "varbinary" => length(8000).map(Type::VarBinary),
            "uniqueidentifier" => bare(Type::UniqueIdentifier),
            "xml" => bare(Type::Xml),
            _ => Err(SqlError::new(
                2715,
                16,
                format!("Column, parameter, or variable #1: Cannot find data type {name}."),
            )),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Type::Null => "NULL",
            Type::Bit => "bit",
            Type::TinyInt => "tinyint",
            Type::SmallInt => "smallint",
            Type::Int => "int",
            Type::BigInt => "bigint",
            Type::Real => "real",
            Type::Float => "float",
            Type::Decimal { .. } => "decimal",
            Type::Money => "money",
            Type::SmallMoney => "smallmoney",
            Type::Date => "date",
            Type::Time(_) => "time",
            Type::DateTime2(_) => "datetime2",
            Type::DateTimeOffset(_) => "datetimeoffset",
            Type::DateTime => "datetime",
            Type::SmallDateTime => "smalldatetime",
            Type::Char(_) => "char",
            Type::VarChar(_) => "varchar",
            Type::NChar(_) => "nchar",
            Type::NVarChar(_) => "nvarchar",
            Type::Binary(_) => "binary",
            Type::VarBinary(_) => "varbinary",
            Type::UniqueIdentifier => "uniqueidentifier",
            Type::Xml => "xml",
        }
    }

    /// As it is declared.
    pub fn declared(self) -> String {
        let of = |length: Length| length.map_or("max".to_string(), |n| n.to_string());
        let name = self.name();
        match self {
            Type::Decimal { precision, scale } => format!("{name}({precision},{scale})"),
            Type::Time(scale) | Type::DateTime2(scale) | Type::DateTimeOffset(scale) => format!("{name}({scale})"),
            Type::Char(n) | Type::NChar(n) | Type::Binary(n) => format!("{name}({n})"),
            Type::VarChar(n) | Type::NVarChar(n) | Type::VarBinary(n) => format!("{name}({})", of(n)),
            _ => name.into(),
        }
    }

    /// `system_type_id` in the catalog.
    /// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-types-transact-sql>
    pub fn system_id(self) -> i64 {
        match self {
            Type::Null | Type::Int => 56,
            Type::Bit => 104,
            Type::TinyInt => 48,
            Type::SmallInt => 52,
            Type::BigInt => 127,
            Type::Real => 59,
            Type::Float => 62,
            Type::Decimal { .. } => 106,
            Type::Money => 60,
            Type::SmallMoney => 122,
            Type::Date => 40,
            Type::Time(_) => 41,
            Type::DateTime2(_) => 42,
            Type::DateTimeOffset(_) => 43,
            Type::DateTime => 61,
            Type::SmallDateTime => 58,
            Type::Char(_) => 175,
            Type::VarChar(_) => 167,
            Type::NChar(_) => 239,
            Type::NVarChar(_) => 231,
            Type::Binary(_) => 173,
            Type::VarBinary(_) => 165,
            Type::UniqueIdentifier => 36,
            Type::Xml => 241,
        }
    }

    /// The type of an identity in the catalog.
    pub fn of_system_id(id: i64) -> Option<&'static str> {
        if id == 256 {
            return Some("sysname");
        }
        ALL.iter().find(|of| of.system_id() == id).map(|of| of.name())
    }

    /// `max_length`, `precision` and `scale` in the catalog.
    pub fn dimensions(self) -> (i64, i64, i64) {
        let digits = |scale: u8| if scale == 0 { 0 } else { i64::from(scale) + 1 };
        let bytes = |length: Length, unit: i64| length.map_or(-1, |n| i64::from(n) * unit);
        match self {
            Type::Null | Type::Int => (4, 10, 0),
            Type::Bit => (1, 1, 0),
            Type::TinyInt => (1, 3, 0),
            Type::SmallInt => (2, 5, 0),
            Type::BigInt => (8, 19, 0),
            Type::Real => (4, 24, 0),
            Type::Float => (8, 53, 0),
            Type::Decimal { precision, scale } => (decimal_bytes(precision).into(), precision.into(), scale.into()),
            Type::Money => (8, 19, 4),
            Type::SmallMoney => (4, 10, 4),
            Type::Date => (3, 10, 0),
            Type::Time(scale) => (time_bytes(scale) as i64, 8 + digits(scale), scale.into()),
            Type::DateTime2(scale) => (time_bytes(scale) as i64 + 3, 19 + digits(scale), scale.into()),
            Type::DateTimeOffset(scale) => (time_bytes(scale) as i64 + 5, 26 + digits(scale), scale.into()),
            Type::DateTime => (8, 23, 3),
            Type::SmallDateTime => (4, 16, 0),
            Type::Char(n) | Type::Binary(n) => (n.into(), 0, 0),
            Type::NChar(n) => (i64::from(n) * 2, 0, 0),
            Type::VarChar(n) | Type::VarBinary(n) => (bytes(n, 1), 0, 0),
            Type::NVarChar(n) => (bytes(n, 2), 0, 0),
            Type::UniqueIdentifier => (16, 0, 0),
            Type::Xml => (-1, 0, 0),
        }
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Type::Bit | Type::TinyInt | Type::SmallInt | Type::Int | Type::BigInt)
    }

    pub fn is_float(self) -> bool {
        matches!(self, Type::Real | Type::Float)
    }

    /// Exact, with a point: kept as a text of digits.
    pub fn is_decimal(self) -> bool {
        matches!(self, Type::Decimal { .. } | Type::Money | Type::SmallMoney)
    }

    pub fn is_number(self) -> bool {
        self.is_integer() || self.is_float() || self.is_decimal()
    }

    pub fn is_text(self) -> bool {
        self.is_unicode() || matches!(self, Type::Char(_) | Type::VarChar(_))
    }

    pub fn is_unicode(self) -> bool {
        matches!(self, Type::NChar(_) | Type::NVarChar(_))
    }

    pub fn is_binary(self) -> bool {
        matches!(self, Type::Binary(_) | Type::VarBinary(_))
    }

    pub fn is_temporal(self) -> bool {
        use Type::*;
        matches!(self, Date | Time(_) | DateTime2(_) | DateTimeOffset(_) | DateTime | SmallDateTime)
    }

    /// Digits before and after the point.
    pub fn digits(self) -> Option<(u8, u8)> {
        Some(match self {
            Type::Bit => (1, 0),
            Type::TinyInt => (3, 0),
            Type::SmallInt => (5, 0),
            Type::Int => (10, 0),
            Type::BigInt => (19, 0),
            Type::Money => (19, 4),
            Type::SmallMoney => (10, 4),
            Type::Decimal { precision, scale } => (precision, scale),
            _ => return None,
        })
    }

    /// <https://learn.microsoft.com/sql/t-sql/data-types/data-type-precedence-transact-sql>
    pub fn precedence(self) -> u8 {
        match self {
            Type::Xml => 30,
            Type::DateTimeOffset(_) => 29,
            Type::DateTime2(_) => 28,
            Type::DateTime => 27,
            Type::SmallDateTime => 26,
            Type::Date => 25,
            Type::Time(_) => 24,
            Type::Float => 23,
            Type::Real => 22,
            Type::Decimal { .. } => 21,
            Type::Money => 20,
            Type::SmallMoney => 19,
            Type::BigInt => 18,
            Type::Int => 17,
            Type::SmallInt => 16,
            Type::TinyInt => 15,
            Type::Bit => 14,
            Type::UniqueIdentifier => 13,
            Type::NVarChar(_) => 12,
            Type::NChar(_) => 11,
            Type::VarChar(_) => 10,
            Type::Char(_) => 9,
            Type::VarBinary(_) => 8,
            Type::Binary(_) => 7,
            Type::Null => 0,
        }
    }
}

const ALL: [Type; 24] = [
    Type::Bit,
    Type::TinyInt,
    Type::SmallInt,
    Type::Int,
    Type::BigInt,
    Type::Real,
    Type::Float,
    Type::Decimal { precision: 18, scale: 0 },
    Type::Money,
    Type::SmallMoney,
    Type::Date,
    Type::Time(7),
    Type::DateTime2(7),
    Type::DateTimeOffset(7),
    Type::DateTime,
    Type::SmallDateTime,
    Type::Char(1),
    Type::VarChar(None),
    Type::NChar(1),
    Type::NVarChar(None),
    Type::Binary(1),
    Type::VarBinary(None),
    Type::UniqueIdentifier,
    Type::Xml,
];

fn decimal(arguments: &[Argument]) -> Result<Type, SqlError> {
    let (precision, scale) = match arguments {
        [] => (18, 0),
        [Argument::Number(precision)] => (*precision, 0),
        [Argument::Number(precision), Argument::Number(scale)] => (*precision, *scale),
        _ => return Err(crate::error::syntax("max")),
    };
    if !(1..=38).contains(&precision) {
        let message = format!(
            "Column or parameter #1: Specified column precision {precision} is greater than the maximum precision of 38."
        );
        return Err(SqlError::new(2750, 16, message));
    }
    if scale > precision {
        let message = format!("The scale ({scale}) for column must be within the range 0 to {precision}.");
        return Err(SqlError::new(192, 15, message));
    }
    Ok(Type::Decimal { precision: precision as u8, scale: scale as u8 })
}

pub fn decimal_bytes(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

pub fn time_bytes(scale: u8) -> usize {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// A type as it is said on the wire. `fixed`: without a length before each value, so without NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireType {
    pub of: Type,
    pub fixed: bool,
    pub utf8: bool,
}

/// MS-TDS 2.2.5.4.1: types that can be said without a length.
fn fixed_token(of: Type) -> Option<u8> {
    Some(match of {
        Type::TinyInt => 0x30,
        Type::Bit => 0x32,
        Type::SmallInt => 0x34,
        Type::Int => 0x38,
        Type::SmallDateTime => 0x3A,
        Type::Real => 0x3B,
        Type::Money => 0x3C,
        Type::DateTime => 0x3D,
        Type::Float => 0x3E,
        Type::SmallMoney => 0x7A,
        Type::BigInt => 0x7F,
        _ => return None,
    })
}

const MAX: u16 = 0xFFFF;

impl WireType {
    pub fn of(of: Type, nullable: bool) -> Self {
        WireType { of, fixed: !nullable && fixed_token(of).is_some(), utf8: false }
    }

    /// MS-TDS 2.2.5.6 TYPE_INFO.
    pub fn write(self, out: &mut Vec<u8>, collation: &Collation) {
        if let (true, Some(token)) = (self.fixed, fixed_token(self.of)) {
            return out.push(token);
        }
        let (bytes, _, _) = self.of.dimensions();
        let length = u16::try_from(bytes).unwrap_or(MAX).to_le_bytes();
        match self.of {
            Type::Bit => out.extend([0x68, 1]),
            Type::Null | Type::TinyInt | Type::SmallInt | Type::Int | Type::BigInt => out.extend([0x26, bytes as u8]),
            Type::Real | Type::Float => out.extend([0x6D, bytes as u8]),
            Type::Decimal { precision, scale } => out.extend([0x6A, bytes as u8, precision, scale]),
            Type::Money | Type::SmallMoney => out.extend([0x6E, bytes as u8]),
            Type::DateTime | Type::SmallDateTime => out.extend([0x6F, bytes as u8]),
            Type::Date => out.push(0x28),
            Type::Time(scale) => out.extend([0x29, scale]),
            Type::DateTime2(scale) => out.extend([0x2A, scale]),
            Type::DateTimeOffset(scale) => out.extend([0x2B, scale]),
            Type::UniqueIdentifier => out.extend([0x24, 16]),
            Type::Xml => out.extend([0xF1, 0]),
            Type::Char(_) | Type::VarChar(_) | Type::NChar(_) | Type::NVarChar(_) => {
                out.push(big_token(self.of));
                out.extend(length);
                out.extend(collation.bytes());
            }
            Type::Binary(_) | Type::VarBinary(_) => {
                out.push(big_token(self.of));
                out.extend(length);
            }
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Read<Self> {
        let token = reader.u8()?;
        if let Some(of) = ALL.iter().find(|of| fixed_token(**of) == Some(token)) {
            return Ok(WireType { of: *of, fixed: true, utf8: false });
        }
        let mut utf8 = false;
        let of = match token {
            0x1F => return Ok(WireType { of: Type::Null, fixed: true, utf8 }),
            0x68 => sized(reader, &[(1, Type::Bit)])?,
            0x26 => sized(reader, &[(1, Type::TinyInt), (2, Type::SmallInt), (4, Type::Int), (8, Type::BigInt)])?,
            0x6D => sized(reader, &[(4, Type::Real), (8, Type::Float)])?,
            0x6E => sized(reader, &[(4, Type::SmallMoney), (8, Type::Money)])?,
            0x6F => sized(reader, &[(4, Type::SmallDateTime), (8, Type::DateTime)])?,
            0x24 => sized(reader, &[(16, Type::UniqueIdentifier)])?,
            0x6A | 0x6C => read_decimal(reader)?,
            0x28 => Type::Date,
            0x29 => Type::Time(read_scale(reader)?),
            0x2A => Type::DateTime2(read_scale(reader)?),
            0x2B => Type::DateTimeOffset(read_scale(reader)?),
            0xF1 => read_xml(reader)?,
            0xA7 | 0xAF | 0xE7 | 0xEF => {
                let length = reader.u16()?;
                utf8 = reader.take(5)?[3] & 0x04 != 0;
                read_text(token, length)?
            }
            0xA5 => Type::VarBinary(limited(reader.u16()?, 8000)?),
            0xAD => Type::Binary(limited(reader.u16()?, 8000)?.ok_or_else(endless)?),
            other => return violation(format!("TYPE_INFO: 0x{other:02X} is no type that is known here")),
        };
        Ok(WireType { of, fixed: false, utf8 })
    }
}

fn big_token(of: Type) -> u8 {
    match of {
        Type::Char(_) => 0xAF,
        Type::VarChar(_) => 0xA7,
        Type::NChar(_) => 0xEF,
        Type::NVarChar(_) => 0xE7,
        Type::Binary(_) => 0xAD,
        _ => 0xA5,
    }
}

fn endless() -> crate::reader::Violation {
    crate::reader::Violation("TYPE_INFO: a type of fixed length is max".into())
}

fn sized(reader: &mut Reader<'_>, sizes: &[(u8, Type)]) -> Read<Type> {
    let size = reader.u8()?;
    let found = sizes.iter().find(|(bytes, _)| *bytes == size).map(|(_, of)| *of);
    found.map_or_else(|| violation(format!("TYPE_INFO: {} bytes for {}", size, sizes[0].1.name())), Ok)
}

fn read_decimal(reader: &mut Reader<'_>) -> Read<Type> {
    let (bytes, precision, scale) = (reader.u8()?, reader.u8()?, reader.u8()?);
    if !(1..=38).contains(&precision) || scale > precision || ![5, 9, 13, 17].contains(&bytes) {
        return violation(format!("TYPE_INFO: decimal({precision},{scale}) of {bytes} bytes"));
    }
    Ok(Type::Decimal { precision, scale })
}

fn read_scale(reader: &mut Reader<'_>) -> Read<u8> {
    match reader.u8()? {
        scale @ 0..=7 => Ok(scale),
        scale => violation(format!("TYPE_INFO: {scale} digits of a second")),
    }
}

fn read_xml(reader: &mut Reader<'_>) -> Read<Type> {
    if reader.u8()? == 1 {
        reader.b_varchar()?;
        reader.b_varchar()?;
        reader.us_varchar()?;
    }
    Ok(Type::Xml)
}

fn limited(length: u16, limit: u16) -> Read<Length> {
    match length {
        MAX => Ok(None),
        length if length <= limit => Ok(Some(length)),
        length => violation(format!("TYPE_INFO: {length} bytes are more than {limit}")),
    }
}

fn read_text(token: u8, bytes: u16) -> Read<Type> {
    let length = limited(bytes, 8000)?;
    let characters = match length {
        Some(bytes) if bytes % 2 != 0 && matches!(token, 0xE7 | 0xEF) => {
            return violation(format!("TYPE_INFO: {bytes} bytes of UTF-16"));
        }
        length => length.map(|bytes| bytes / 2),
    };
    Ok(match token {
        0xA7 => Type::VarChar(length),
        0xE7 => Type::NVarChar(characters),
        0xAF => Type::Char(length.ok_or_else(endless)?),
        _ => Type::NChar(characters.ok_or_else(endless)?),
    })
}
