//! Rows that come, change and go: one by one, so that each error has its row.

use std::collections::HashSet;

use rusqlite::{Connection, ErrorCode, params_from_iter};

use super::ast::{Expr, IndexKind};
use super::catalog::{Key, Relation};
use super::translate::{Facts, Translator, Variables};
use crate::convert::{Into, clash, convert, is_allowed, to_text, write_moment};
use crate::error::{SqlError, null_into};
use crate::types::Type;
use crate::value::Value;

/// Where identities are counted. A transaction that is rolled back does not give them back.
pub trait Identities {
    fn next(&self, relation: i64, seed: i64, step: i64) -> i64;
}

/// Rows for a table.
pub struct Insertion<'a> {
    pub connection: &'a Connection,
    pub facts: &'a Facts,
    pub relation: &'a Relation,
    /// Which columns are given, and as what.
    pub columns: &'a [usize],
    pub types: &'a [Type],
    pub identities: &'a dyn Identities,
    /// A bulk load puts the default where NULL is given, unless it is told to keep it.
    pub null_is_default: bool,
}

/// How many rows there were, and the last identity.
pub struct Inserted {
    pub count: u64,
    pub identity: Option<i64>,
}

impl Insertion<'_> {
    pub fn run(&self, rows: Vec<Vec<Value>>, given: &[Vec<bool>]) -> Result<Inserted, SqlError> {
        self.check_types()?;
        let stored: Vec<usize> =
            (0..self.relation.columns.len()).filter(|at| self.relation.columns[*at].computed.is_none()).collect();
        let names: Vec<&str> = stored.iter().map(|at| self.relation.columns[*at].stored.as_str()).collect();
        let places: Vec<String> = (1..=stored.len()).map(|at| format!("?{at}")).collect();
        let sql = format!("INSERT INTO {} ({}) VALUES ({})", self.relation.stored, names.join(", "), places.join(", "));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut inserted = Inserted { count: 0, identity: None };
        for (at, row) in rows.into_iter().enumerate() {
            let full = self.row(row, given.get(at).map(Vec::as_slice), &mut inserted.identity)?;
            let values = stored.iter().map(|at| &full[*at]);
            statement
                .execute(params_from_iter(values))
                .map_err(|e| violated(e, self.relation, self.facts, &full, "INSERT"))?;
            inserted.count += 1;
        }
        Ok(inserted)
    }

    fn check_types(&self) -> Result<(), SqlError> {
        let into = Into::Column { table: "", column: "", utf8: false };
        for (column, of) in self.columns.iter().zip(self.types) {
            let to = self.relation.columns[*column].of;
            if !is_allowed(*of, to, into) {
                return Err(clash(*of, to));
            }
        }
        Ok(())
    }

    /// A whole row: what is given, defaults, an identity. `given`: false where DEFAULT stands.
    fn row(&self, row: Vec<Value>, given: Option<&[bool]>, identity: &mut Option<i64>) -> Result<Vec<Value>, SqlError> {
        let mut values: Vec<Option<Value>> = vec![None; self.relation.columns.len()];
        for (at, value) in row.into_iter().enumerate() {
            let column = self.columns[at];
            let by_default = given.is_some_and(|given| !given[at])
                || self.null_is_default && value == Value::Null && self.relation.columns[column].default.is_some();
            if !by_default {
                values[column] = Some(fitted(self.relation, column, value, self.types[at], &self.facts.database)?);
            }
        }
        let mut full = Vec::with_capacity(values.len());
        for (at, value) in values.into_iter().enumerate() {
            let column = &self.relation.columns[at];
            let value = match (value, column.identity, &column.default) {
                (Some(value), ..) => value,
                (None, Some((seed, step)), _) => {
                    let next = self.identities.next(self.relation.id, seed, step);
                    *identity = Some(next);
                    convert(Value::Integer(next), Type::BigInt, column.of, Into::Expression)?
                }
                (None, None, Some(default)) => self.default(at, default)?,
                (None, None, None) => Value::Null,
            };
            if value == Value::Null && !column.nullable && column.computed.is_none() {
                return Err(null_into(&column.name, &self.relation.spoken_with(&self.facts.database), "INSERT"));
            }
            full.push(value);
        }
        Ok(full)
    }

    fn default(&self, at: usize, default: &Expr) -> Result<Value, SqlError> {
        let variables = Variables::new();
        let typed = Translator::new(self.connection, &variables, self.facts).value(default)?;
        let value = self.connection.query_row(&format!("SELECT {}", typed.sql), [], |row| row.get(0))?;
        fitted(self.relation, at, value, typed.of, &self.facts.database)
    }
}

/// A value as a column keeps it.
fn fitted(relation: &Relation, at: usize, value: Value, from: Type, database: &str) -> Result<Value, SqlError> {
    let column = &relation.columns[at];
    let utf8 = column.collation.as_ref().is_some_and(|collation| collation.utf8);
    convert(value, from, column.of, Into::Column { table: &relation.spoken_with(database), column: &column.name, utf8 })
}

/// Changes rows: each is its rowid and the new values of the columns. One that comes up twice is changed once.
pub fn update(
    connection: &Connection,
    facts: &Facts,
    relation: &Relation,
    columns: &[usize],
    types: &[Type],
    rows: Vec<(i64, Vec<Value>)>,
) -> Result<u64, SqlError> {
    let set: Vec<String> =
        columns.iter().enumerate().map(|(at, c)| format!("{} = ?{}", relation.columns[*c].stored, at + 2)).collect();
    if set.is_empty() {
        return Ok(rows.len() as u64);
    }
    let mut statement =
        connection.prepare_cached(&format!("UPDATE {} SET {} WHERE rowid = ?1", relation.stored, set.join(", ")))?;
    let mut seen = HashSet::new();
    for (rowid, values) in rows {
        if !seen.insert(rowid) {
            continue;
        }
        let mut changed = vec![Value::Integer(rowid)];
        for ((column, of), value) in columns.iter().zip(types).zip(values) {
            let value = fitted(relation, *column, value, *of, &facts.database)?;
            if value == Value::Null && !relation.columns[*column].nullable {
                return Err(null_into(
                    &relation.columns[*column].name,
                    &relation.spoken_with(&facts.database),
                    "UPDATE",
                ));
            }
            changed.push(value);
        }
        let done = statement.execute(params_from_iter(changed.iter()));
        done.map_err(|error| {
            violated(error, relation, facts, &as_changed(connection, relation, rowid, columns, &changed), "UPDATE")
        })?;
    }
    Ok(seen.len() as u64)
}

/// The row as it would have been.
fn as_changed(
    connection: &Connection,
    relation: &Relation,
    rowid: i64,
    columns: &[usize],
    changed: &[Value],
) -> Vec<Value> {
    let names: Vec<&str> = relation.columns.iter().map(|column| column.stored.as_str()).collect();
    let sql = format!("SELECT {} FROM {} WHERE rowid = ?1", names.join(", "), relation.stored);
    let old = connection.query_row(&sql, [rowid], |row| (0..names.len()).map(|at| row.get(at)).collect());
    let mut row: Vec<Value> = old.unwrap_or_default();
    row.resize(names.len(), Value::Null);
    for (at, column) in columns.iter().enumerate() {
        row[*column] = changed[at + 1].clone();
    }
    row
}

pub fn delete(connection: &Connection, relation: &Relation, rows: &[i64]) -> Result<u64, SqlError> {
    let mut statement = connection.prepare_cached(&format!("DELETE FROM {} WHERE rowid = ?1", relation.stored))?;
    let mut count = 0;
    for rowid in rows {
        count += statement.execute([rowid])? as u64;
    }
    Ok(count)
}

/// The server's error for what SQLite refused.
fn violated(error: rusqlite::Error, relation: &Relation, facts: &Facts, row: &[Value], verb: &str) -> SqlError {
    let rusqlite::Error::SqliteFailure(code, Some(text)) = &error else { return error.into() };
    if code.code != ErrorCode::ConstraintViolation {
        return error.into();
    }
    if let Some(name) = text.strip_prefix("CHECK constraint failed: ") {
        return check_violated(relation, facts, name, verb);
    }
    let Some(failed) = text.strip_prefix("UNIQUE constraint failed: ") else { return error.into() };
    match failed_key(relation, failed) {
        Some(key) => key_violated(relation, key, row),
        None => error.into(),
    }
}

fn check_violated(relation: &Relation, facts: &Facts, name: &str, verb: &str) -> SqlError {
    let check = relation.checks.iter().find(|check| check.name == name);
    let column =
        check.and_then(|check| check.column.as_ref()).map(|column| format!(", column '{column}'")).unwrap_or_default();
    let message = format!(
        "The {verb} statement conflicted with the CHECK constraint \"{name}\". The conflict occurred in database \"{}\", table \"{}\"{column}.",
        facts.database,
        relation.spoken()
    );
    SqlError { state: 0, ..SqlError::new(547, 16, message) }
}

/// SQLite names either the index or its columns.
fn failed_key<'a>(relation: &'a Relation, failed: &str) -> Option<&'a Key> {
    if let Some(index) = failed.strip_prefix("index '") {
        let number: usize = index.trim_end_matches('\'').rsplit_once("_u")?.1.parse().ok()?;
        return relation.keys.get(number.checked_sub(1)?);
    }
    let columns: Vec<&str> =
        failed.split(", ").filter_map(|name| name.rsplit_once('.').map(|(_, column)| column)).collect();
    let of = |key: &Key| key.columns.iter().map(|(at, _)| relation.columns[*at].stored.as_str()).collect::<Vec<_>>();
    relation.keys.iter().find(|key| key.kind != IndexKind::Plain && of(key) == columns)
}

fn key_violated(relation: &Relation, key: &Key, row: &[Value]) -> SqlError {
    let shown: Vec<String> = key.columns.iter().map(|(at, _)| shown(&row[*at], relation.columns[*at].of)).collect();
    let (object, value) = (relation.spoken(), shown.join(", "));
    if key.kind == IndexKind::UniqueIndex {
        let message = format!(
            "Cannot insert duplicate key row in object '{object}' with unique index '{}'. The duplicate key value is ({value}).",
            key.name
        );
        return SqlError::new(2601, 14, message);
    }
    let kind = if key.kind == IndexKind::PrimaryKey { "PRIMARY KEY" } else { "UNIQUE KEY" };
    let message = format!(
        "Violation of {kind} constraint '{}'. Cannot insert duplicate key in object '{object}'. The duplicate key value is ({value}).",
        key.name
    );
    SqlError::new(2627, 14, message)
}

fn shown(value: &Value, of: Type) -> String {
    match value {
        Value::Null => "<NULL>".into(),
        Value::Text(text) if of.is_temporal() => write_moment(text, of),
        Value::Text(text) if of == Type::UniqueIdentifier => text.clone(),
        Value::Blob(bytes) => format!("0x{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        value => to_text(value.clone(), of),
    }
}
