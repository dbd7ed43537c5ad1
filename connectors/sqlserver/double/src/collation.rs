//! How texts are compared: by the collations that SQL Server names, of which a few families are known here.
//! <https://learn.microsoft.com/sql/relational-databases/collations/collation-and-unicode-support>

use std::cmp::Ordering;

use rusqlite::Connection;

use crate::decimal::Decimal;
use crate::error::SqlError;

pub const DATABASE_DEFAULT: &str = "SQL_Latin1_General_CP1_CI_AS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    IgnoringCase,
    ByCase,
    ByCode,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collation {
    pub name: String,
    order: Order,
    pub utf8: bool,
}

impl Collation {
    pub fn named(name: &str) -> Result<Self, SqlError> {
        let invalid = || SqlError::new(448, 16, format!("Invalid collation '{name}'."));
        if name.eq_ignore_ascii_case("database_default") {
            return Ok(Collation::default());
        }
        let parts: Vec<String> = name.split('_').map(str::to_ascii_uppercase).collect();
        let has = |part: &str| parts.iter().any(|p| p == part);
        let order = if has("BIN2") || has("BIN") {
            Order::ByCode
        } else if has("CI") && (has("AS") || has("AI")) {
            Order::IgnoringCase
        } else if has("CS") && (has("AS") || has("AI")) {
            Order::ByCase
        } else {
            return Err(invalid());
        };
        let known = parts.len() > 2 && ["SQL", "LATIN1", "JAPANESE", "FRENCH"].contains(&parts[0].as_str());
        if !known {
            return Err(invalid());
        }
        Ok(Collation { name: name.into(), order, utf8: has("UTF8") })
    }

    /// What SQLite calls it here.
    pub fn sqlite(&self) -> &'static str {
        match self.order {
            Order::IgnoringCase => "TDS_CI",
            Order::ByCase => "TDS_CS",
            Order::ByCode => "TDS_BIN2",
        }
    }

    /// MS-TDS 2.2.5.1.2: the locale, flags, the version, and the sort order of the oldest collations.
    pub fn bytes(&self) -> [u8; 5] {
        let (flags, binary) = match self.order {
            Order::IgnoringCase => (0xD0, 0),
            Order::ByCase => (0xC0, 0),
            Order::ByCode => (0, 0x02),
        };
        let version = if self.name.contains("_100_") { 0x20 } else { 0 };
        let sort = if self.name.eq_ignore_ascii_case(DATABASE_DEFAULT) { 52 } else { 0 };
        [0x09, 0x04, flags, version | binary | if self.utf8 { 0x04 } else { 0 }, sort]
    }
}

impl Default for Collation {
    fn default() -> Self {
        Collation { name: DATABASE_DEFAULT.into(), order: Order::IgnoringCase, utf8: false }
    }
}

/// How decimals, and points in time with an offset, are compared in SQLite.
pub const NUMBER: &str = "TDS_NUMBER";
pub const INSTANT: &str = "TDS_INSTANT";

pub fn register(connection: &Connection) -> rusqlite::Result<()> {
    connection.create_collation("TDS_CI", |one, two| folded(one).cmp(folded(two)))?;
    connection.create_collation("TDS_CS", |one, two| {
        folded(one).cmp(folded(two)).then_with(|| trimmed(one).cmp(trimmed(two)))
    })?;
    connection.create_collation("TDS_BIN2", |one, two| trimmed(one).cmp(trimmed(two)))?;
    connection.create_collation(NUMBER, |one, two| match (Decimal::parse(one), Decimal::parse(two)) {
        (Some(one), Some(two)) => one.compare(two),
        _ => one.cmp(two),
    })?;
    connection.create_collation(INSTANT, instant)
}

/// Spaces at the end do not count:
/// <https://learn.microsoft.com/sql/t-sql/language-elements/string-comparison-assignment>
fn trimmed(text: &str) -> &str {
    text.trim_end_matches(' ')
}

fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    trimmed(text).chars().flat_map(char::to_lowercase)
}

/// Stored with the time of UTC first, of one length; the offset does not count.
fn instant(one: &str, two: &str) -> Ordering {
    let utc = |text: &str| text.get(..27).map_or_else(|| text.to_string(), String::from);
    utc(one).cmp(&utc(two))
}

/// The bytes of a `varchar` in code page 1252; what it does not have becomes a question mark.
pub fn to_1252(text: &str) -> Vec<u8> {
    text.chars().map(|c| code_1252(c).unwrap_or(b'?')).collect()
}

pub fn from_1252(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| if (0x80..0xA0).contains(byte) { HIGH[usize::from(byte - 0x80)] } else { char::from(*byte) })
        .collect()
}

fn code_1252(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0..0x80 | 0xA0..=0xFF) => Some(code as u8),
        _ => HIGH.iter().position(|high| *high == c).map(|at| at as u8 + 0x80),
    }
}

const HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];
