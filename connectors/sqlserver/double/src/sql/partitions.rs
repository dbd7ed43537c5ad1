//! Partition functions and schemes, and what lies on them.
//! <https://learn.microsoft.com/sql/relational-databases/partitions/partitioned-tables-and-indexes>

use rusqlite::Connection;

use super::ast::{Name, PartitionFunction, PartitionScheme, Space, Statement};
use super::catalog::{self, Relation, no_key_column, same};
use super::parser::parse;
use crate::convert::{Into, convert};
use crate::error::{SqlError, exists_already, no_table};
use crate::types::Type;
use crate::value::Value;

/// The one filegroup that there is.
const PRIMARY: &str = "PRIMARY";
const MOST_PARTITIONS: usize = 15_000;
/// Neither is in a schema; here each kind has one of its own.
const FUNCTIONS: &str = "partition functions";
const SCHEMES: &str = "partition schemes";

/// How the rows of a table or an index are divided: by which column, into how many parts.
#[derive(Debug, Clone, Copy)]
pub struct Divided {
    pub column: usize,
    pub partitions: i64,
}

fn of_kind(kind: &str, name: &str) -> Name {
    Name { database: None, schema: Some(kind.into()), name: name.into() }
}

fn make(connection: &Connection, kind: &str, name: &str, text: &str) -> Result<(), SqlError> {
    let full = of_kind(kind, name);
    if catalog::look_up(connection, &full)?.is_some() {
        return Err(exists_already(name));
    }
    let id = catalog::next_id(connection, false)?;
    catalog::remember(connection, &full, id, kind, text)
}

/// `boundaries`: with the type that each has as it is written.
pub fn create_function(
    connection: &Connection,
    name: &str,
    of: Type,
    boundaries: Vec<(Type, Value)>,
    text: &str,
) -> Result<(), SqlError> {
    let mut found: Vec<Value> = Vec::new();
    for (at, (from, value)) in boundaries.into_iter().enumerate() {
        let into = Into::Column { table: "", column: "", utf8: false };
        let value = convert(value, from, of, into).map_err(|error| unfit(&error, at + 1))?;
        if let Some(first) = found.iter().position(|other| *other == value) {
            let message = format!(
                "Duplicate range boundary values are not allowed in partition function boundary values list. Partition boundary values at ordinal {} and {} are equal.",
                first + 1,
                at + 1
            );
            return Err(SqlError::new(7708, 16, message));
        }
        found.push(value);
    }
    if found.len() >= MOST_PARTITIONS {
        let message = format!(
            "CREATE/ALTER partition function failed as only a maximum of {MOST_PARTITIONS} partitions can be created."
        );
        return Err(SqlError::new(7719, 16, message));
    }
    make(connection, FUNCTIONS, name, text)
}

fn unfit(error: &SqlError, ordinal: usize) -> SqlError {
    const TRUNCATED: u32 = 2628;
    if error.number == TRUNCATED {
        let message = format!(
            "Data truncated when converting range values to the partition function parameter type. The range value at ordinal {ordinal} requires data truncation."
        );
        return SqlError::new(7720, 16, message);
    }
    let message = format!(
        "Could not implicitly convert range values type specified at ordinal {ordinal} to partition function parameter type."
    );
    SqlError::new(7705, 16, message)
}

fn function(connection: &Connection, name: &str) -> Result<Option<PartitionFunction>, SqlError> {
    let Some((_, _, text)) = catalog::look_up(connection, &of_kind(FUNCTIONS, name))? else { return Ok(None) };
    Ok(match parse(&text)?.pop() {
        Some(Statement::CreatePartitionFunction { function, .. }) => Some(function),
        _ => None,
    })
}

fn partitions(function: &PartitionFunction) -> usize {
    function.boundaries.len() + 1
}

pub fn create_scheme(
    connection: &Connection,
    name: &str,
    scheme: &PartitionScheme,
    text: &str,
) -> Result<(), SqlError> {
    let PartitionScheme { function: by, all, filegroups } = scheme;
    let missing = |name: &str| SqlError { state: 58, ..no_table(name) };
    let function = function(connection, by)?.ok_or_else(|| missing(by))?;
    if *all && filegroups.len() > 1 {
        let message = "Only a single filegroup can be specified while creating partition scheme using option ALL to specify all the filegroups.";
        return Err(SqlError::new(7723, 16, message));
    }
    if let Some(unknown) = filegroups.iter().find(|filegroup| !same(filegroup, PRIMARY)) {
        return Err(missing(unknown));
    }
    if !*all && filegroups.len() < partitions(&function) {
        let message = format!(
            "The associated partition function '{by}' generates more partitions than there are file groups mentioned in the scheme '{name}'."
        );
        return Err(SqlError::new(7707, 16, message));
    }
    if same(name, PRIMARY) {
        return Err(exists_already(name));
    }
    make(connection, SCHEMES, name, text)
}

/// The function of a scheme, with its name.
fn by_scheme(connection: &Connection, name: &str) -> Result<Option<(String, PartitionFunction)>, SqlError> {
    let Some((_, _, text)) = catalog::look_up(connection, &of_kind(SCHEMES, name))? else { return Ok(None) };
    let Some(Statement::CreatePartitionScheme { scheme, .. }) = parse(&text)?.pop() else { return Ok(None) };
    let function = function(connection, &scheme.function)?;
    Ok(function.map(|function| (scheme.function, function)))
}

/// How what lies there is divided, if it is.
pub fn divided(
    connection: &Connection,
    relation: &Relation,
    space: Option<&Space>,
) -> Result<Option<Divided>, SqlError> {
    let Some(Space { name, columns }) = space else { return Ok(None) };
    // Those of the session lie in a database that has no schemes.
    let scheme = if relation.temporary { None } else { by_scheme(connection, name)? };
    let Some((function_name, function)) = scheme else {
        let kind = if columns.is_empty() { "filegroup" } else { "partition scheme" };
        let invalid = SqlError::new(1921, 16, format!("Invalid {kind} '{name}' specified."));
        return if columns.is_empty() && same(name, PRIMARY) { Ok(None) } else { Err(invalid) };
    };
    let [column] = columns.as_slice() else { return Err(other_columns(&function_name, columns)) };
    let at = relation.column(column).ok_or_else(|| no_key_column(column))?;
    let (there, asked) = (relation.columns[at].of, function.of);
    if there != asked {
        let message = format!(
            "Partition column '{column}' has data type {} which is different from the partition function '{function_name}' parameter data type {}.",
            there.declared(),
            asked.declared()
        );
        return Err(SqlError::new(7726, 16, message));
    }
    Ok(Some(Divided { column: at, partitions: partitions(&function) as i64 }))
}

/// Not the one column that a function takes.
fn other_columns(function: &str, columns: &[String]) -> SqlError {
    let twice = columns.iter().enumerate().find(|(at, column)| columns[..*at].iter().any(|other| same(other, column)));
    if let Some((_, column)) = twice {
        let message = format!(
            "Cannot use duplicate column names in the partition columns list. Column name '{column}' appears more than once."
        );
        return SqlError { state: 2, ..SqlError::new(2703, 16, message) };
    }
    let message = format!(
        "Partition function '{function}' uses 1 columns which does not match with the number of partition columns used to partition the table or index."
    );
    SqlError::new(2726, 16, message)
}

/// Whether a table and its indexes can lie where they are put.
pub fn check(connection: &Connection, relation: &Relation) -> Result<(), SqlError> {
    divided(connection, relation, relation.space())?;
    for key in &relation.keys {
        let Some(divided) = divided(connection, relation, key.on.as_ref())? else { continue };
        if key.is_unique() && !key.columns.iter().any(|(column, _)| *column == divided.column) {
            let message = format!(
                "Column '{}' is partitioning column of the index '{}'. Partition columns for a unique index must be a subset of the index key.",
                relation.columns[divided.column].name, key.name
            );
            return Err(SqlError::new(1908, 16, message));
        }
    }
    Ok(())
}
