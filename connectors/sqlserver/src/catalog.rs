//! What the server's catalog says of a table's columns.

use tiberius::Row;

use crate::connection::Connection;
use crate::statements::{self, Name};
use crate::trouble::Trouble;
use crate::types::{Encoding, SqlType};

/// As many digits of a second as there are.
const SEVEN_DIGITS: u8 = 7;
/// The code page of which the client reads each byte as the server does. Of others single bytes differ, or are none.
const READ_EXACTLY: i32 = 1252;
/// Characters that a type of UTF-16 may be declared with.
pub const LONGEST_UTF16: usize = 4000;

/// A column, by its name and its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub of: SqlType,
    pub nullable: bool,
    pub collation: Option<String>,
}

impl Column {
    /// The type of the column where its values are staged; texts compare as they do in the target.
    pub fn staged(&self) -> String {
        match (&self.of, &self.collation) {
            (SqlType::Text { .. }, Some(collation)) => format!("{} COLLATE {collation}", self.of.staged()),
            _ => self.of.staged(),
        }
    }
}

/// A column in the server's catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogColumn {
    pub column: Column,
    /// Its type, as it was declared.
    pub declared: String,
    /// Why it cannot be written.
    pub own: Option<&'static str>,
    /// The code page of its texts.
    pub code_page: Option<i32>,
    /// Whether it is a time that rounds what is written, so that it is not found again.
    pub coarse: bool,
    /// Whether it has a value where none is given.
    pub by_default: bool,
    /// Whether a row without a value for it is a row.
    pub optional: bool,
}

/// The columns of a table, in their order. `object`: [`statements::TABLE`], or what else is looked for under the name.
pub async fn columns(connection: &mut Connection, object: &str, name: &Name) -> Result<Vec<CatalogColumn>, Trouble> {
    CatalogColumn::all(&connection.ask(&statements::columns(object), &[&name.as_str()]).await?)
}

/// The column of a name: exactly, else the only one that differs by case.
pub fn named<'a>(there: &'a [CatalogColumn], name: &str) -> Option<&'a CatalogColumn> {
    let exact = there.iter().find(|there| there.column.name == name);
    let mut alike = there.iter().filter(|there| there.column.name.eq_ignore_ascii_case(name));
    exact.or_else(|| alike.next().filter(|_| alike.next().is_none()))
}

pub fn unreadable() -> Trouble {
    Trouble::Transient("the server's catalog is not as it is documented".into())
}

impl CatalogColumn {
    pub fn all(rows: &[Row]) -> Result<Vec<Self>, Trouble> {
        rows.iter().map(CatalogColumn::of).collect::<Option<_>>().ok_or_else(unreadable)
    }

    fn of(row: &Row) -> Option<Self> {
        let flag = |name: &str| row.try_get::<bool, _>(name).ok().flatten();
        let byte = |name: &str| row.try_get::<u8, _>(name).ok().flatten();
        let text = |name: &str| row.try_get::<&str, _>(name).ok().flatten().map(String::from);
        let (nullable, identity, computed) = (flag("is_nullable")?, flag("is_identity")?, flag("is_computed")?);
        let generated = byte("generated_always_type")? != 0;
        let of = text("type").unwrap_or_else(|| "a type of its own".into());
        let (bytes, precision, scale): (i16, _, _) =
            (row.try_get("max_length").ok().flatten()?, byte("precision")?, byte("scale")?);
        let default: i32 = row.try_get("default_object_id").ok().flatten()?;
        // The server numbers these rows itself when they change.
        let versioned = matches!(of.as_str(), "timestamp" | "rowversion");
        let own = match () {
            () if identity => Some("numbered by the server (IDENTITY)"),
            () if computed => Some("computed by the server"),
            () if generated || versioned => Some("the server's own"),
            () => None,
        };
        Some(CatalogColumn {
            column: Column {
                name: text("name")?,
                of: SqlType::of(&of, bytes, precision, scale, text("collation_name").as_deref()),
                nullable,
                collation: text("collation_name"),
            },
            declared: declared(&of, bytes, precision, scale),
            code_page: row.try_get::<i32, _>("code_page").ok().flatten(),
            coarse: match of.as_str() {
                "datetime" | "smalldatetime" => true,
                "time" | "datetime2" | "datetimeoffset" => scale < SEVEN_DIGITS,
                _ => false,
            },
            by_default: default != 0,
            optional: nullable || own.is_some() || default != 0,
            own,
        })
    }

    /// The type that it must be turned into there to be read here as it is: the client takes money for a double, which it is not
    /// beyond 2^53, and texts in UTF-8 for those of a code page.
    pub fn read_as(&self) -> Option<String> {
        match &self.column.of {
            SqlType::Money | SqlType::SmallMoney => Some("decimal(19,4)".into()),
            SqlType::Text { encoding: Encoding::CodePage, .. } if self.code_page == Some(READ_EXACTLY) => None,
            SqlType::Text { encoding: Encoding::CodePage | Encoding::Utf8, length } => {
                let padded = self.declared.starts_with("char");
                Some(match length {
                    Some(n) if *n <= LONGEST_UTF16 => format!("{}({n})", if padded { "nchar" } else { "nvarchar" }),
                    _ => "nvarchar(max)".into(),
                })
            }
            _ => None,
        }
    }
}

/// A type as it stands in CREATE TABLE. `bytes`: −1 for as many as there are.
fn declared(name: &str, bytes: i16, precision: u8, scale: u8) -> String {
    let length = |unit: i16| if bytes < 0 { "max".to_string() } else { (bytes / unit).to_string() };
    match name {
        "char" | "varchar" | "binary" | "varbinary" => format!("{name}({})", length(1)),
        "nchar" | "nvarchar" => format!("{name}({})", length(2)),
        "decimal" | "numeric" => format!("{name}({precision},{scale})"),
        "time" | "datetime2" | "datetimeoffset" => format!("{name}({scale})"),
        other => other.into(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A column of a table as [`declared`] says it: `varchar(10)`.
    pub fn column(name: &str, of: &str, collation: Option<&str>) -> CatalogColumn {
        let (word, rest) = of.split_once('(').unwrap_or((of, ")"));
        let numbers: Vec<i16> = rest.trim_end_matches(')').split(',').map(|n| n.parse().unwrap_or(-1)).collect();
        let bytes = if word.starts_with('n') && numbers[0] > 0 { numbers[0] * 2 } else { numbers[0] };
        let digits = |at: usize| numbers.get(at).copied().unwrap_or(0).max(0) as u8;
        let (precision, scale) = if numbers.len() > 1 { (digits(0), digits(1)) } else { (0, digits(0)) };
        CatalogColumn {
            column: Column {
                name: name.into(),
                of: SqlType::of(word, bytes, precision, scale, collation),
                nullable: true,
                collation: collation.map(String::from),
            },
            declared: declared(word, bytes, precision, scale),
            own: None,
            code_page: collation.map(|name| if name.ends_with("UTF8") { 65001 } else { 1252 }),
            coarse: false,
            by_default: false,
            optional: true,
        }
    }

    #[test]
    fn a_type_is_declared_as_it_was() {
        for of in ["int", "varchar(10)", "nvarchar(20)", "nvarchar(max)", "decimal(18,4)", "datetime2(3)", "datetime"] {
            assert_eq!(column("c", of, None).declared, of);
        }
    }

    #[test]
    fn what_the_client_would_misread_comes_in_another_type() {
        let read_as = |of, collation| column("c", of, collation).read_as();
        assert_eq!(read_as("money", None).as_deref(), Some("decimal(19,4)"));
        assert_eq!(read_as("varchar(10)", Some("SQL_Latin1_General_CP1_CI_AS")), None);
        assert_eq!(read_as("char(10)", Some("Latin1_General_100_CI_AS_SC_UTF8")).as_deref(), Some("nchar(10)"));
        assert_eq!(read_as("varchar(8000)", Some("A_CI_AS_UTF8")).as_deref(), Some("nvarchar(max)"));
        assert_eq!(read_as("nvarchar(10)", Some("A_CI_AS")), None);
    }
}
