//! The table, or procedure, that rows go to: found and checked at start, or made if that is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::Field;
use engine::sink::{SinkContext, SinkError};
use tiberius::Row;

use crate::catalog::{self, CatalogColumn, Column, named, unreadable};
use crate::connection::Connection;
use crate::options::{SqlTable, Write};
use crate::statements::{self, Marker, NO_ROWS, Name};
use crate::trouble::Trouble;
use crate::types::{Encoding, SqlType};

/// How long one look at the server and the table may take, at least; longer where a connection may.
const LOOK: Duration = Duration::from_secs(30);
/// The kind of an index that is the table itself, in columns.
const CLUSTERED_COLUMNSTORE: u8 = 5;
/// The number of LOCK_ESCALATION = TABLE, which is how tables are made.
const TO_THE_TABLE: u8 = 0;
/// Code pages that the client writes as the server reads them; others differ in single characters. UTF-8 the server makes itself.
const CODE_PAGES: &[i32] = &[874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258, 65001];
/// There is a table of this name already: another process made it a moment ago.
const EXISTS: &str = "error 2714,";
/// There is such a row already.
const DUPLICATE: &str = "error 2627,";

/// What rows are written to.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Of the table, or of the procedure.
    pub name: Name,
    /// Those that are written, in the order of the job's table.
    pub columns: Vec<Column>,
    /// What the job calls each of them.
    pub from: Vec<String>,
    /// Of these columns: those of the key, and the one that says which row is newer.
    pub key: Vec<usize>,
    pub version: Option<usize>,
    pub columnstore: bool,
    pub table_lock: bool,
    pub procedure: Option<Procedure>,
}

/// A procedure's table-valued parameter, and its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Procedure {
    /// With its `@`.
    pub parameter: String,
    pub of: Name,
}

impl Target {
    /// What `name` says of each column, in their order.
    pub fn names(&self, name: impl Fn(&str) -> String) -> String {
        self.columns.iter().map(|column| name(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// What `name` says of each column, by its place.
    pub fn staged(&self, name: impl Fn(usize) -> String) -> String {
        (0..self.columns.len()).map(name).collect::<Vec<_>>().join(", ")
    }
}

/// Finds the target and checks it against the table; makes what is missing, if that is asked for, and the markers of this process.
/// With `probe`, nothing is made, and there is none yet if one would be.
pub async fn open(table: &SqlTable, context: &SinkContext, probe: bool) -> Result<Option<Target>, SinkError> {
    let longest = LOOK.max(table.at.server.connect * 2);
    let looked = tokio::time::timeout(longest, look(table, context, probe)).await;
    let looked = looked.unwrap_or_else(|_| Err(Trouble::Transient(format!("no answer within {longest:?}"))));
    let place = || table.at.describe();
    looked.map_err(|trouble| match trouble {
        Trouble::Transient(what) | Trouble::Throttled(what) => SinkError::retry(place(), what),
        Trouble::NotLetIn(what) => SinkError::failed(place(), format!("{what}. {}", table.at.server.remedy())),
        Trouble::Stopped(what) | Trouble::Statement(what) => SinkError::failed(place(), what),
    })
}

async fn look(table: &SqlTable, context: &SinkContext, probe: bool) -> Result<Option<Target>, Trouble> {
    let mut connection = Connection::open(&table.at.server, table.at.answer).await?;
    let fields: Vec<&Field> = context.schema.fields().iter().map(|field| &**field).collect();
    let target = match &table.write {
        Write::Procedure => procedure(&mut connection, table, &fields).await?,
        _ => match found(&mut connection, table, &fields, probe).await? {
            Some(target) => target,
            None => return Ok(None),
        },
    };
    let refused = refuses_null(&target, &fields);
    // Every start looks before it opens, and once is enough.
    if probe && !refused.is_empty() {
        let (columns, place) = (refused.join(", "), table.at.describe());
        let what = "NULL in one of these columns sends its row to the dead letter: they are NOT NULL there, and not in the job";
        tracing::warn!(place, columns, "{what}");
    }
    if !probe {
        markers(&mut connection, table, context).await?;
        try_out(&mut connection, table, context, &target).await?;
    }
    Ok(Some(target))
}

/// The table, made if it is not there and may be.
async fn found(
    connection: &mut Connection,
    table: &SqlTable,
    fields: &[&Field],
    probe: bool,
) -> Result<Option<Target>, Trouble> {
    let name = table.at.target.as_str();
    if !exists(connection, statements::TABLE_EXISTS, name).await? {
        let batch = new_table(table, fields).map_err(Trouble::Statement)?;
        let Some(_) = &table.create else {
            let what = format!(
                "there is no table {name} in the database {}, or it may not be seen: set create = 'true', or make it with\n  {batch}",
                table.at.server.database
            );
            return Err(Trouble::Statement(what));
        };
        if probe {
            return Ok(None);
        }
        made(connection.run(batch.clone()).await, &batch)?;
        tracing::info!(table = name, "the table was made");
    }
    let columns = catalog::columns(connection, statements::TABLE, &table.at.target).await?;
    let indexes = connection.ask(statements::INDEXES, &[&name]).await?;
    let indexes = Index::all(&indexes).ok_or_else(unreadable)?;
    if probe && table.lanes > 1 && locks_grow_to_the_table(connection, name).await? {
        let (place, instead) = (table.at.describe(), statements::lock_by_partition(&table.at.target));
        tracing::warn!(place, "its locks grow to the whole table, so that writers wait for one another; run {instead}");
    }
    check(table, fields, &columns, &indexes, None).map(Some).map_err(Trouble::Statement)
}

async fn procedure(connection: &mut Connection, table: &SqlTable, fields: &[&Field]) -> Result<Target, Trouble> {
    let name = table.at.target.as_str();
    if !exists(connection, statements::PROCEDURE_EXISTS, name).await? {
        let database = &table.at.server.database;
        return Err(Trouble::Statement(format!(
            "there is no procedure {name} in the database {database}, or it may not be seen"
        )));
    }
    let rows = connection.ask(statements::PROCEDURE, &[&name]).await?;
    let text = |row: &Row, column: &str| row.try_get::<&str, _>(column).ok().flatten().map(String::from);
    let Some(first) = rows.first() else {
        return Err(Trouble::Statement(format!(
            "the procedure {name} has no table-valued parameter, or its type may not be seen (GRANT EXECUTE ON TYPE)"
        )));
    };
    let parameter = text(first, "parameter").ok_or_else(unreadable)?;
    if rows.iter().any(|row| text(row, "parameter").as_ref() != Some(&parameter)) {
        return Err(Trouble::Statement(format!("the procedure {name} has more than one table-valued parameter")));
    }
    let (schema, of) = (text(first, "schema").ok_or_else(unreadable)?, text(first, "of").ok_or_else(unreadable)?);
    let columns = CatalogColumn::all(&rows)?;
    let procedure = Procedure { parameter, of: Name::of(&[&schema, &of]) };
    check(table, fields, &columns, &[], Some(procedure)).map_err(Trouble::Statement)
}

async fn exists(connection: &mut Connection, statement: &str, name: &str) -> Result<bool, Trouble> {
    let rows = connection.ask(statement, &[&name]).await?;
    Ok(rows.first().and_then(|row| row.try_get::<i32, _>(0).ok().flatten()).is_some())
}

/// Whether one who writes a partition of it may come to lock the others, too.
async fn locks_grow_to_the_table(connection: &mut Connection, name: &str) -> Result<bool, Trouble> {
    let rows = connection.ask(statements::LOCKS_OF_PARTITIONS, &[&name]).await?;
    Ok(rows.first().and_then(|row| row.try_get::<u8, _>(0).ok().flatten()) == Some(TO_THE_TABLE))
}

/// The table of markers and this process's own in it, one for each of its writers.
async fn markers(connection: &mut Connection, table: &SqlTable, context: &SinkContext) -> Result<(), Trouble> {
    if !exists(connection, statements::TABLE_EXISTS, table.markers.as_str()).await? {
        let batch = statements::create_markers(&table.markers);
        made(connection.run(batch.clone()).await, &batch)?;
    }
    for lane in 0..table.lanes as i32 {
        let statement = statements::add_marker(&table.markers);
        let names: [&dyn tiberius::ToSql; 4] = [&context.log_id, &context.sink, &context.writer, &lane];
        match connection.ask(&statement, &names).await {
            // The answer to an earlier try was lost.
            Err(Trouble::Statement(what)) if what.contains(DUPLICATE) => {}
            added => drop(added?),
        }
    }
    Ok(())
}

/// Shows nothing, and takes it back: who may not write, or cannot, is told before it takes the job from one who can.
async fn try_out(
    connection: &mut Connection,
    table: &SqlTable,
    context: &SinkContext,
    target: &Target,
) -> Result<(), Trouble> {
    connection.run(statements::create_staged(&target.columns)).await?;
    let SinkContext { log_id, sink, writer, .. } = context;
    let marker = Marker { markers: &table.markers, job: log_id, sink, writer, lane: 0, entry: 1 };
    connection.run(marker.attempt(target, table.write, NO_ROWS, &[])).await.map(drop)
}

/// Whether it is there now. `batch`: what a person may do who has the right to.
fn made(result: Result<Vec<Row>, Trouble>, batch: &str) -> Result<(), Trouble> {
    match result {
        Err(Trouble::Statement(what)) if what.contains(EXISTS) => Ok(()),
        Err(Trouble::Statement(what) | Trouble::Stopped(what)) => {
            Err(Trouble::Statement(format!("{what}; somebody who may has to run\n  {batch}\n")))
        }
        other => other.map(drop),
    }
}

/// What makes a table like the job's.
fn new_table(table: &SqlTable, fields: &[&Field]) -> Result<String, String> {
    let define = |field: &&Field| {
        let key = table.key.contains(field.name());
        let of = SqlType::new_column(field, key)
            .ok_or_else(|| format!("column {}: no type of a table is like it", field.name()))?;
        Ok((field.name().clone(), of, field.is_nullable() && !key))
    };
    let columns = fields.iter().map(define).collect::<Result<Vec<_>, String>>()?;
    let columnstore = table.create.as_ref().is_some_and(|new| new.columnstore);
    Ok(statements::create_target(&table.at.target, &columns, &table.key, columnstore))
}

/// An index of the target.
#[derive(Debug, Default)]
struct Index {
    kind: u8,
    /// Whether no two rows may be alike in its columns, without exception.
    unique: bool,
    ignores_copies: bool,
    columns: Vec<String>,
}

impl Index {
    fn all(rows: &[Row]) -> Option<Vec<Index>> {
        let mut all = BTreeMap::<i32, Index>::new();
        for row in rows {
            let flag = |name: &str| row.try_get::<bool, _>(name).ok().flatten();
            let index = all.entry(row.try_get("index_id").ok().flatten()?).or_default();
            index.kind = row.try_get::<u8, _>("type").ok().flatten()?;
            index.ignores_copies = flag("ignore_dup_key")?;
            index.unique = flag("is_unique")? && !flag("has_filter")? && !flag("is_disabled")?;
            index.columns.extend(row.try_get::<&str, _>("name").ok().flatten().map(String::from));
        }
        Some(all.into_values().collect())
    }
}

/// The job's columns that may be NULL, and may not be there.
fn refuses_null<'a>(target: &'a Target, fields: &[&Field]) -> Vec<&'a str> {
    let may_be_null = |name: &str| fields.iter().any(|field| field.name() == name && field.is_nullable());
    let there = target.columns.iter().zip(&target.from);
    there.filter(|(column, from)| !column.nullable && may_be_null(from)).map(|(_, from)| from.as_str()).collect()
}

/// All that is wrong between the target and the table.
fn check(
    table: &SqlTable,
    fields: &[&Field],
    there: &[CatalogColumn],
    indexes: &[Index],
    procedure: Option<Procedure>,
) -> Result<Target, String> {
    let (mut columns, mut from, mut wrong) = (vec![], vec![], vec![]);
    for field in fields {
        // What is deleted is known by its key.
        if table.write == Write::Delete && !table.key.contains(field.name()) {
            continue;
        }
        let Some(found) = named(there, field.name()) else {
            wrong.push(format!("there is no column {} in {}", field.name(), table.at.target.as_str()));
            continue;
        };
        if let Some(own) = found.own {
            wrong.push(format!("column {} is {own}: leave it out", field.name()));
        } else if let Err(what) = found.column.of.takes(field) {
            wrong.push(format!("column {}: {what}", field.name()));
        }
        let by_code_page = matches!(found.column.of, SqlType::Text { encoding: Encoding::CodePage, .. });
        if let Some(page) = found.code_page.filter(|page| by_code_page && !CODE_PAGES.contains(page)) {
            wrong.push(format!(
                "column {} has code page {page}, which is not known well enough here: make it nvarchar",
                field.name()
            ));
        }
        if found.coarse && (table.key.contains(field.name()) || table.version.as_ref() == Some(field.name())) {
            wrong.push(format!(
                "column {} rounds times, so a key or a version in it is not found again: make it datetime2(7), or leave it out of them",
                field.name()
            ));
        }
        columns.push(found.column.clone());
        from.push(field.name().clone());
    }
    if table.write != Write::Delete {
        let missing = there.iter().filter(|there| !there.optional && !columns.contains(&there.column));
        wrong.extend(missing.map(|there| {
            format!("column {} is NOT NULL without a default, and the job does not write it", there.column.name)
        }));
    }
    let place = |name: &String| columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    let key: Vec<usize> = table.key.iter().filter_map(place).collect();
    if table.write.by_key() && key.len() == table.key.len() {
        let alike = |index: &&Index| {
            index.columns.len() == key.len()
                && index.columns.iter().all(|name| key.iter().any(|k| columns[*k].name.eq_ignore_ascii_case(name)))
        };
        if !indexes.iter().filter(|index| index.unique).any(|index| alike(&index)) {
            wrong.push(format!(
                "write = '{}' needs a unique index on {} there, and on nothing else",
                table.write.word(),
                table.key.join(", ")
            ));
        }
        for column in key.iter().map(|index| &columns[*index]).filter(|column| column.nullable) {
            wrong.push(format!("column {} is in the key, and may be NULL there", column.name));
        }
    }
    if table.write == Write::Append && indexes.iter().any(|index| index.ignores_copies) {
        wrong.push(
            "a unique index with IGNORE_DUP_KEY would drop rows without a word: write = 'insert' by its key".into(),
        );
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    Ok(Target {
        name: table.at.target.clone(),
        version: table.version.as_ref().and_then(place),
        key,
        columns,
        from,
        columnstore: indexes.iter().any(|index| index.kind == CLUSTERED_COLUMNSTORE),
        table_lock: table.table_lock,
        procedure,
    })
}
