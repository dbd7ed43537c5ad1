//! A table, or a view, in which rows are looked up: by their keys, many in one statement, or read whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use engine::lookup::{Fetched, KeyRows, Loaded, Lookup, LookupError, LookupRequest};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tiberius::{QueryItem, Row};

use crate::catalog::{self, CatalogColumn, named};
use crate::cells::Cells;
use crate::connection::Connection;
use crate::keys;
use crate::options::Place;
use crate::pool::Pool;
use crate::statements;
use crate::trouble::Trouble;

/// Rows of a batch.
const AT_ONCE: usize = 64 * 1024;
/// The keys of a try: none.
const NO_KEYS: &str = "[]";

pub struct SqlLookup {
    at: Place,
    /// The columns that tell rows apart, for errors.
    primary_key: Vec<String>,
    pool: Pool,
    /// The columns of the table, as they were looked at last.
    there: Mutex<Option<Arc<Vec<CatalogColumn>>>>,
    /// Whether it was open once: what is wrong with it since may heal.
    opened: AtomicBool,
}

/// What a request needs of the table, and found there.
struct Reading {
    there: Arc<Vec<CatalogColumn>>,
    /// Of these: the columns of the answer, and those of the key.
    columns: Vec<usize>,
    keys: Vec<usize>,
    fields: Vec<FieldRef>,
}

impl SqlLookup {
    pub fn new(at: Place, primary_key: Vec<String>) -> Self {
        let pool = Pool::new(at.server.clone(), at.answer);
        SqlLookup { at, primary_key, pool, there: Mutex::default(), opened: AtomicBool::new(false) }
    }

    /// While a job runs, the table and whoever lets us in may come back.
    fn error(&self, trouble: Trouble) -> LookupError {
        let what = match trouble {
            Trouble::Transient(what) | Trouble::Throttled(what) => return LookupError::retry(self.at.describe(), what),
            Trouble::NotLetIn(what) => format!("{what}. {}", self.at.server.remedy()),
            Trouble::Statement(what) | Trouble::Stopped(what) => what,
        };
        match self.opened.load(Ordering::Relaxed) {
            true => LookupError::retry(self.at.describe(), what),
            false => LookupError::failed(self.at.describe(), what),
        }
    }

    /// Does a piece of work with a session, which is kept if all goes well.
    async fn with<T>(&self, work: impl AsyncFnOnce(&mut Connection) -> Result<T, Trouble>) -> Result<T, LookupError> {
        let done = match self.pool.take().await {
            Ok(mut connection) => work(&mut connection).await.inspect(|_| self.pool.give_back(connection)),
            Err(trouble) => Err(trouble),
        };
        done.inspect(|_| self.opened.store(true, Ordering::Relaxed)).map_err(|trouble| {
            self.pool.clear();
            *self.there.lock() = None;
            self.error(trouble)
        })
    }

    /// What the request needs, as the table has it.
    async fn reading(&self, connection: &mut Connection, request: &LookupRequest) -> Result<Reading, Trouble> {
        let known = self.there.lock().clone();
        let there = match known {
            Some(there) => there,
            None => {
                let there = catalog::columns(connection, statements::TABLE_OR_VIEW, &self.at.target).await?;
                let there = Arc::new(there);
                *self.there.lock() = Some(there.clone());
                there
            }
        };
        Reading::of(there, request, &self.at).map_err(Trouble::Statement)
    }

    /// What to call a row by in an error.
    fn name_of(&self, row: &Row, reading: &Reading) -> String {
        let is_key = |at: &usize| self.primary_key.iter().any(|key| key == reading.fields[*at].name());
        let mut named: Vec<usize> = (0..reading.fields.len()).filter(is_key).collect();
        if named.is_empty() {
            named.push(0);
        }
        let shown = |at: usize| {
            let mut cell = Cells::new(&reading.fields[at..=at]).ok()?;
            cell.push(row, &[at]).ok()?;
            let column = cell.finish().ok()?.column(0).clone();
            let value = arrow::util::display::array_value_to_string(&column, 0).ok()?;
            Some(format!("{} = {value}", reading.fields[at].name()))
        };
        let parts: Vec<String> = named.into_iter().filter_map(shown).collect();
        if parts.is_empty() { "a row".into() } else { format!("the row with {}", parts.join(", ")) }
    }

    /// The rows of the keys, and those keys of which a row does not fit.
    async fn rows_of(
        &self,
        connection: &mut Connection,
        request: &LookupRequest,
        asked: &RecordBatch,
    ) -> Result<Fetched, Trouble> {
        let reading = self.reading(connection, request).await?;
        let keys = keys::json(asked, &reading.keys()).map_err(misread)?;
        let Some(keys) = keys else { return Ok(Fetched::default()) };
        let statement = statements::fetch(&self.at.target, &reading.columns(), &reading.keys());
        let key_fields: Vec<FieldRef> = request.keys.iter().map(|at| reading.fields[*at].clone()).collect();
        let every: Vec<usize> = (0..reading.fields.len()).collect();
        let mut cells = Cells::new(&reading.fields).map_err(Trouble::Statement)?;
        // The keys of rows that do not fit; one whose key does not fit either is none that was asked for.
        let (mut misfits, mut reasons) = (Cells::new(&key_fields).map_err(Trouble::Statement)?, vec![]);
        let mut rows = vec![];
        let answer = connection.client.query(statement, &[&keys]).await.map_err(Trouble::of)?;
        let mut answer = answer.into_row_stream();
        while let Some(row) = answer.try_next().await.map_err(Trouble::of)? {
            if let Err(what) = cells.push(&row, &every)
                && misfits.push(&row, &request.keys).is_ok()
            {
                reasons.push(what);
            }
            if cells.held() == AT_ONCE {
                rows.push(cells.finish().map_err(misread)?);
            }
        }
        rows.push(cells.finish().map_err(misread)?);
        let refused = numbered(&misfits.finish().map_err(misread)?, reasons, asked).map_err(misread)?;
        Ok(Fetched { rows, refused })
    }

    async fn all_rows(
        &self,
        connection: &mut Connection,
        request: &LookupRequest,
    ) -> Result<Vec<RecordBatch>, Trouble> {
        let reading = self.reading(connection, request).await?;
        let statement = statements::read(&self.at.target, &reading.columns(), None);
        let every: Vec<usize> = (0..reading.fields.len()).collect();
        let mut cells = Cells::new(&reading.fields).map_err(Trouble::Statement)?;
        let mut rows = vec![];
        let mut answer = connection.client.simple_query(statement).await.map_err(Trouble::of)?;
        while let Some(item) = answer.try_next().await.map_err(Trouble::of)? {
            let QueryItem::Row(row) = item else { continue };
            if let Err(what) = cells.push(&row, &every) {
                return Err(Trouble::Statement(format!("{}: {what}", self.name_of(&row, &reading))));
            }
            if cells.held() == AT_ONCE {
                rows.push(cells.finish().map_err(misread)?);
            }
        }
        rows.push(cells.finish().map_err(misread)?);
        Ok(rows)
    }
}

fn misread(error: arrow::error::ArrowError) -> Trouble {
    Trouble::Statement(error.to_string())
}

/// Which of the keys that were asked for these are.
fn numbered(
    keys: &RecordBatch,
    reasons: Vec<String>,
    asked: &RecordBatch,
) -> Result<Vec<(usize, String)>, arrow::error::ArrowError> {
    let all: Vec<usize> = (0..keys.num_columns()).collect();
    let (keys, asked) = (KeyRows::of(keys, &all)?, KeyRows::of(asked, &all)?);
    let numbers: HashMap<&[u8], usize> = (0..asked.len()).filter_map(|at| Some((asked.get(at)?, at))).collect();
    let number = |(row, what)| Some((*numbers.get(keys.get(row)?)?, what));
    Ok(reasons.into_iter().enumerate().filter_map(number).collect())
}

impl Reading {
    /// Finds the columns and compares their types, or says all that is wrong.
    fn of(there: Arc<Vec<CatalogColumn>>, request: &LookupRequest, at: &Place) -> Result<Reading, String> {
        if there.is_empty() {
            return Err(format!(
                "there is no table or view {} in the database {}, or it may not be seen: GRANT SELECT ON it",
                at.target.as_str(),
                at.server.database
            ));
        }
        let (mut columns, mut wrong) = (vec![], vec![]);
        for (place, column) in request.columns.iter().enumerate() {
            let name = column.field.name();
            let Some(found) = named(&there, name) else {
                wrong.push(format!("there is no column {name} in {}", at.target.as_str()));
                continue;
            };
            if let Err(what) = found.column.of.fills(&column.field) {
                wrong.push(format!("column {name}: {what}"));
            } else if request.keys.contains(&place) && !found.column.of.can_be_key() {
                wrong.push(format!(
                    "column {name}: rows are not told apart by {}, so it can be no key",
                    found.column.of
                ));
            }
            columns.extend(there.iter().position(|there| std::ptr::eq(there, found)));
        }
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        let keys = request.keys.iter().map(|at| columns[*at]).collect();
        let fields = request.columns.iter().map(|column| column.field.clone()).collect();
        Ok(Reading { there, columns, keys, fields })
    }

    fn columns(&self) -> Vec<&CatalogColumn> {
        self.columns.iter().map(|at| &self.there[*at]).collect()
    }

    fn keys(&self) -> Vec<&CatalogColumn> {
        self.keys.iter().map(|at| &self.there[*at]).collect()
    }
}

#[async_trait]
impl Lookup for SqlLookup {
    fn describe(&self) -> String {
        format!("{} in {} at {}", self.at.target.as_str(), self.at.server.database, self.at.server.host)
    }

    fn by_key(&self) -> bool {
        true
    }

    async fn open(&self, request: &LookupRequest) -> Result<(), LookupError> {
        *self.there.lock() = None;
        let looked = self.with(async |connection| {
            let reading = self.reading(connection, request).await?;
            if reading.keys.is_empty() {
                return Ok(());
            }
            // Who may not read, or cannot ask by keys, is told before the job begins.
            let statement = statements::fetch(&self.at.target, &reading.columns(), &reading.keys());
            connection.ask(&statement, &[&NO_KEYS]).await.map(drop).map_err(of_old_databases)
        });
        looked.await
    }

    async fn fetch(&self, request: &LookupRequest, keys: &RecordBatch) -> Result<Fetched, LookupError> {
        self.with(async |connection| self.rows_of(connection, request, keys).await).await
    }

    async fn load(&self, request: &LookupRequest, _: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        *self.there.lock() = None;
        let rows = self.with(async |connection| self.all_rows(connection, request).await).await?;
        Ok(Loaded::Rows { version: None, rows })
    }
}

/// A database may be kept as it was in a release that had no OPENJSON:
/// <https://learn.microsoft.com/sql/t-sql/statements/alter-database-transact-sql-compatibility-level>
fn of_old_databases(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Statement(what) if what.contains("OPENJSON") => Trouble::Statement(format!(
            "{what}. A database whose compatibility level is below 130 cannot be asked by keys: raise it, or keep the table whole"
        )),
        other => other,
    }
}
