//! Files in which rows are looked up: read whole, and again when they have changed.
//!
//! A path with `{date}` and `{time}` is reference data as Stream Analytics has it: of the files that it fits, those are
//! read that say the newest time that has come, and never older ones than before.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use engine::connector::{Options, Problem, TableSpec};
use engine::lookup::{Loaded, Lookup, LookupError, LookupRequest};
use engine::source::{ReadLimit, ReadRequest, ReadStatus, Source, SourceError, Wake};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use regex::Regex;
use tokio::sync::Notify;

use crate::file::{incarnation, relative};
use crate::location::Location;
use crate::options::{FileFormat, FileTable, read_table};
use crate::path_pattern::PathPattern;
use crate::source::{FilesSource, is_visible};

/// What one read takes.
const AT_ONCE: ReadLimit = ReadLimit { records: 64 * 1024, bytes: 64 << 20 };
/// Between the time that a version begins with and what else it says.
const SEPARATOR: &str = " | ";

/// A file or a folder of files.
pub struct FilesLookup {
    table: FileTable,
    /// `None`: every file there is.
    pattern: Option<PathPattern>,
}

/// The files that the table consists of, and how to know them again.
struct Found {
    table: FileTable,
    version: String,
}

impl FilesLookup {
    pub fn of(spec: &TableSpec) -> Result<FilesLookup, Vec<Problem>> {
        let mut problems = vec![];
        for name in ["source.monitor-interval"].iter().filter(|name| spec.options.get(name).is_some()) {
            let message = format!("{name} is for streams; lookup.refresh says how often a lookup table is looked at");
            problems.push(Problem::option(*name, message));
        }
        let path = spec.options.get("path").unwrap_or_default();
        let pattern = PathPattern::of(path, &spec.options).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let fixed = pattern.as_ref().map_or(path, |pattern| &pattern.fixed);
        let mut options = Options(spec.options.0.clone());
        options.0.insert("path".into(), fixed.to_string());
        let table = read_table(&TableSpec { options, ..spec.clone() });
        match table {
            Ok(table) if problems.is_empty() => Ok(FilesLookup { table: FileTable { arrays: true, ..table }, pattern }),
            Ok(_) => Err(problems),
            Err(wrong) => {
                problems.extend(wrong);
                Err(problems)
            }
        }
    }

    fn place(&self) -> String {
        let path = self.pattern.as_ref().map_or(&self.table.location.place, |pattern| &pattern.written);
        format!("table {}, {path}", self.table.name)
    }

    /// Finds the files; `None` if they are the ones that were seen.
    async fn find(&self, seen: Option<&str>, now: i64) -> Result<Option<Found>, LookupError> {
        let Location { store, root, .. } = &self.table.location;
        let failed = |e: object_store::Error| self.error(seen, e);
        let mut listed: Vec<ObjectMeta> = store.list(Some(root)).try_collect().await.map_err(failed)?;
        listed.retain(|file| relative(root, &file.location).is_some_and(|name| is_visible(&name)));
        if listed.is_empty() && self.pattern.is_none() {
            listed.extend(store.head(root).await.map_err(|e| match e {
                object_store::Error::NotFound { .. } => self.error(seen, "there is no such file or folder"),
                other => self.error(seen, other),
            }));
        }
        let names = |file: &ObjectMeta| relative(root, &file.location).unwrap_or_default();
        let (mut table, mut time) = (self.table.clone(), String::new());
        match &self.pattern {
            Some(pattern) => {
                let not_before = seen.and_then(|seen| seen.split_once(SEPARATOR)).map(|(time, _)| time.to_string());
                let fitting = listed.into_iter().filter_map(|file| Some((pattern.time_of(&names(&file))?, file)));
                let mut fitting: Vec<(i64, ObjectMeta)> = fitting.filter(|(time, _)| *time <= now).collect();
                let newest = fitting.iter().map(|(time, _)| *time).max();
                let newest = newest.ok_or_else(|| {
                    LookupError::retry(self.place(), "there is no file yet whose date and time have come")
                })?;
                time = pattern.written(newest);
                if not_before.is_some_and(|before| time < before) {
                    // What was newer is gone. It is still what holds.
                    return Ok(None);
                }
                fitting.retain(|(time, _)| *time == newest);
                listed = fitting.into_iter().map(|(_, file)| file).collect();
                let chosen: Vec<String> = listed.iter().map(|file| regex::escape(&names(file))).collect();
                let chosen = Regex::new(&format!("^(?:{})$", chosen.join("|")));
                table.pattern = Some(chosen.map_err(|e| LookupError::failed(self.place(), e))?);
            }
            None => listed.retain(|file| {
                let name = names(file);
                name.is_empty() || table.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&name))
            }),
        }
        listed.sort_by(|one, other| one.location.cmp(&other.location));
        let files: Vec<String> = listed.iter().map(|file| format!("{} {}", file.location, incarnation(file))).collect();
        let version = format!("{time}{SEPARATOR}{}", files.join(", "));
        Ok((seen != Some(version.as_str())).then_some(Found { table, version }))
    }

    /// Once the table has been read, whatever is wrong with it may heal; what it was is kept meanwhile.
    fn error(&self, seen: Option<&str>, what: impl std::fmt::Display) -> LookupError {
        match seen {
            None => LookupError::failed(self.place(), what),
            Some(_) => LookupError::retry(self.place(), what),
        }
    }
}

#[async_trait]
impl Lookup for FilesLookup {
    fn describe(&self) -> String {
        let format = match self.table.format {
            FileFormat::Json => "JSON",
            FileFormat::Csv(_) => "CSV",
            FileFormat::Parquet => "Parquet",
            FileFormat::Avro => "Avro",
        };
        let path = self.pattern.as_ref().map_or(&self.table.location.place, |pattern| &pattern.written);
        match &self.pattern {
            None => format!("{format} in '{path}'"),
            Some(_) => format!("{format} in '{path}', of the newest date and time that have come"),
        }
    }

    async fn load(&self, request: &LookupRequest, seen: Option<&str>, now: i64) -> Result<Loaded, LookupError> {
        let Some(Found { table, version }) = self.find(seen, now).await? else { return Ok(Loaded::Unchanged) };
        let source = FilesSource::new(table);
        let request = ReadRequest { columns: request.columns.clone(), event_time: None };
        let mut rows = vec![];
        for split in source.splits().await.map_err(|e| self.error(seen, e))? {
            rows.extend(read(&source, &split, &request).await.map_err(|e| self.error(seen, e))?);
        }
        Ok(Loaded::Rows { version: Some(version), rows })
    }
}

/// Reads a file to its end. A record that cannot be read is an error: rows would miss it, and nobody would know.
async fn read(source: &FilesSource, split: &str, request: &ReadRequest) -> Result<Vec<RecordBatch>, SourceError> {
    let rung = Arc::new(Notify::new());
    let bell = rung.clone();
    let start = source.resolve(split, false).await?;
    let mut reader = source.open(split, &start, request, Wake::new(move || bell.notify_one())).await?;
    let mut batches = vec![];
    loop {
        let read = reader.read(AT_ONCE)?;
        if let Some(bad) = read.rejected.first() {
            let at = bad.offset.unwrap_or_default();
            let what = format!(
                "at {at}: {}: {}",
                bad.error,
                String::from_utf8_lossy(&bad.payload[..bad.payload.len().min(200)])
            );
            return Err(SourceError::failed(format!("file {split}"), what));
        }
        batches.extend(read.batch);
        match read.status {
            ReadStatus::Finished => return Ok(batches),
            ReadStatus::Pending | ReadStatus::AtEnd => rung.notified().await,
            ReadStatus::More => {}
        }
    }
}
