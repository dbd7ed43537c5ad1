//! A Delta table in which rows are looked up: read whole, and again when it has another version.

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use deltalake::DeltaTable;
use engine::connector::{ColumnSpec, Origin, Problem, TableSpec};
use engine::lookup::{Loaded, Lookup, LookupError, LookupRequest};
use engine::sink::SinkError;

use crate::declared::Declared;
use crate::file_rows::{FileRows, Unread};
use crate::options::storage;
use crate::store::{Opened, is_there, missing_folder, open, table_at};
use crate::table_file::table_files;

pub struct DeltaLookup {
    name: String,
    path: String,
    storage: Vec<(String, String)>,
}

impl DeltaLookup {
    pub fn of(table: &TableSpec) -> Result<DeltaLookup, Vec<Problem>> {
        let options = &table.options;
        let metadata = table.columns.iter().filter(|column| column.origin != Origin::Value);
        let problem =
            |column: &ColumnSpec| Problem::column(column.field.name(), "a Delta table has no metadata of its rows");
        let problems: Vec<Problem> = metadata.map(problem).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let path = options.get("path").unwrap_or_default().to_string();
        Ok(DeltaLookup { name: table.name.clone(), path, storage: storage(options) })
    }

    fn place(&self) -> String {
        format!("table {}, {}", self.name, self.path)
    }

    /// What is wrong with the table itself. Once it has been read, what it was is kept meanwhile.
    fn wrong(&self, seen: Option<&str>, what: impl std::fmt::Display) -> LookupError {
        match seen {
            None => LookupError::failed(self.place(), what),
            Some(_) => LookupError::retry(self.place(), what),
        }
    }

    fn of_sink(&self, seen: Option<&str>, error: SinkError) -> LookupError {
        match error {
            SinkError::Retry { what, .. } => LookupError::retry(self.place(), what),
            SinkError::Failed { what, .. } => self.wrong(seen, what),
        }
    }

    /// Whether the log ends with the version that was seen. Asked first: to open a large table each time would cost much.
    async fn is_newest(&self, table: &DeltaTable, seen: Option<&str>) -> Result<bool, LookupError> {
        let version = seen.and_then(|seen| seen.split(' ').next()?.parse::<u64>().ok());
        let Some(version) = version else { return Ok(false) };
        let store = table.log_store().object_store(None);
        let there = async |version| is_there(&*store, version).await.map_err(|e| LookupError::retry(self.place(), e));
        Ok(there(version).await? && !there(version + 1).await?)
    }

    /// The table as it is now; `None` if it is as it was.
    async fn open(&self, seen: Option<&str>) -> Result<Option<(DeltaTable, Opened)>, LookupError> {
        let nothing = || self.wrong(seen, "there is no Delta table");
        if missing_folder(&self.path).map_err(|e| self.of_sink(seen, e))? {
            return Err(nothing());
        }
        let mut table = table_at(&self.path, &self.storage).map_err(|e| self.of_sink(seen, e))?;
        if self.is_newest(&table, seen).await? {
            return Ok(None);
        }
        let opened = open(&mut table, &self.path).await.map_err(|e| self.of_sink(seen, e))?.ok_or_else(nothing)?;
        Ok(Some((table, opened)))
    }
}

#[async_trait]
impl Lookup for DeltaLookup {
    fn describe(&self) -> String {
        format!("Delta table in '{}'", self.path)
    }

    async fn load(&self, request: &LookupRequest, seen: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        let Some((table, opened)) = self.open(seen).await? else { return Ok(Loaded::Unchanged) };
        let version = format!("{} of {}", opened.version, opened.metadata["id"].as_str().unwrap_or_default());
        let columns: Vec<FieldRef> = request.columns.iter().map(|column| column.field.clone()).collect();
        let declared = Declared::of(&opened, &columns).map_err(|what| self.wrong(seen, what))?;
        let files = table_files(&table).await.map_err(|e| LookupError::retry(self.place(), e))?;
        let mut rows = vec![];
        for file in &files {
            let unread = |error| match error {
                Unread::Away(what) => LookupError::retry(self.place(), format!("{}: {what}", file.path)),
                Unread::Unfit(what) => self.wrong(seen, format!("{}: {what}", file.path)),
            };
            let mut of_file = FileRows::open(&table, file, &declared).await.map_err(unread)?;
            while let Some(stretch) = of_file.next().await.map_err(unread)? {
                rows.push(stretch.seen(stretch.places()).map_err(unread)?);
            }
        }
        Ok(Loaded::Rows { version: Some(version), rows })
    }
}
