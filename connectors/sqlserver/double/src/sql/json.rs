//! OPENJSON: the items of an array as rows. <https://learn.microsoft.com/sql/t-sql/functions/openjson-transact-sql>

use rusqlite::Connection;

use super::ast::JsonColumn;
use crate::convert::{Into, convert};
use crate::error::SqlError;
use crate::types::Type;
use crate::value::Value;

/// The values of each item. What is not there, or is no single value, is NULL: paths are lax.
pub fn items(connection: &Connection, text: &str, columns: &[JsonColumn]) -> Result<Vec<Vec<Value>>, SqlError> {
    if !crate::json::is_document(text) {
        let unexpected = text.trim_start().chars().next().unwrap_or_default();
        let message =
            format!("JSON text is not properly formatted. Unexpected character '{unexpected}' is found at position 0.");
        return Err(SqlError { state: 4, ..SqlError::new(13609, 16, message) });
    }
    let mut rows = connection.prepare_cached("SELECT value FROM json_each(?1)")?;
    let mut values = connection.prepare_cached("SELECT json_type(?1, ?2), ?1 -> ?2, ?1 ->> ?2")?;
    let mut found = Vec::new();
    let mut rows = rows.query([text])?;
    while let Some(row) = rows.next()? {
        // What is no array has no items.
        let item: Value = row.get(0)?;
        let item = match item {
            Value::Text(text) if crate::json::is_document(&text) => text,
            _ => "[]".into(),
        };
        let mut made = Vec::new();
        for column in columns {
            let path = format!("$[{}]", column.at);
            let value = values.query_row([&item, &path], |row| {
                let kind: Option<String> = row.get(0)?;
                Ok(match kind.as_deref() {
                    Some("text") => Value::Text(row.get(2)?),
                    // Numbers with all the digits that they are written with.
                    Some("integer" | "real" | "true" | "false") => Value::Text(row.get(1)?),
                    _ => Value::Null,
                })
            })?;
            made.push(convert(value, Type::NVarChar(None), column.of, Into::Expression)?);
        }
        found.push(made);
    }
    Ok(found)
}
