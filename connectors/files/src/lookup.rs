//! Files in which rows are looked up: read whole, and again when they have changed.
//!
//! A path with `{date}` and `{time}` is reference data as Stream Analytics has it: of the files that it fits, those are
//! read that say the newest time that has come, and never older ones than before.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use engine::connector::{Options, Problem, TableSpec};
use engine::lookup::{Loaded, Lookup, LookupError, LookupRequest};
use engine::observed::Observed;
use engine::source::{ReadLimit, ReadRequest, ReadStatus, Source, SourceError, Wake};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use tokio::sync::Notify;

use crate::file::{incarnation, may_heal, relative};
use crate::location::Location;
use crate::options::{FileFormat, FileTable, read_table};
use crate::path_pattern::PathPattern;
use crate::source::{FilesSource, is_visible};

/// What one read takes.
const AT_ONCE: ReadLimit = ReadLimit { records: 64 * 1024, bytes: 64 << 20 };
/// Bytes of a record that cannot be read, to know it by.
const SAMPLE: usize = 200;
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
    files: BTreeMap<String, ObjectMeta>,
    version: String,
}

impl FilesLookup {
    pub fn of(spec: &TableSpec) -> Result<FilesLookup, Vec<Problem>> {
        let mut problems = vec![];
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

    /// As the job file writes it.
    fn path(&self) -> &str {
        self.pattern.as_ref().map_or(&self.table.location.place, |pattern| &pattern.written)
    }

    fn place(&self) -> String {
        format!("table {}, {}", self.table.name, self.path())
    }

    /// Finds the files; `None` if they are the ones that were seen.
    async fn find(&self, seen: Option<&str>, now: i64) -> Result<Option<Found>, LookupError> {
        let mut files = self.list(seen).await?;
        let mut time = String::new();
        if let Some(pattern) = &self.pattern {
            let times = files.keys().filter_map(|name| pattern.time_of(name)).filter(|time| *time <= now);
            let newest = times.max().ok_or_else(|| {
                LookupError::retry(self.place(), "there is no file yet whose date and time have come")
            })?;
            time = pattern.written(newest);
            let before = seen.and_then(|seen| seen.split_once(SEPARATOR)).map(|(time, _)| time);
            if before.is_some_and(|before| time.as_str() < before) {
                // What was newer is gone. It is still what holds.
                return Ok(None);
            }
            files.retain(|name, _| pattern.time_of(name) == Some(newest));
        }
        let tag = |file: &ObjectMeta| file.e_tag.clone().unwrap_or_default();
        let file = |(name, file): (&String, &ObjectMeta)| format!("{name} {} {}", incarnation(file), tag(file));
        let version = format!("{time}{SEPARATOR}{}", files.iter().map(file).collect::<Vec<_>>().join(", "));
        Ok((seen != Some(version.as_str())).then_some(Found { files, version }))
    }

    /// All files of the table by their names.
    async fn list(&self, seen: Option<&str>) -> Result<BTreeMap<String, ObjectMeta>, LookupError> {
        let Location { store, root, .. } = &self.table.location;
        let listed: Vec<ObjectMeta> =
            store.list(Some(root)).try_collect().await.map_err(|e| self.of_the_store(seen, e))?;
        let named = listed.into_iter().filter_map(|file| Some((relative(root, &file.location)?, file)));
        let fits = |name: &str| is_visible(name) && self.table.pattern.as_ref().is_none_or(|p| p.is_match(name));
        let mut files: BTreeMap<String, ObjectMeta> = named.filter(|(name, _)| fits(name)).collect();
        if files.is_empty() && self.pattern.is_none() {
            let file = store.head(root).await.map_err(|e| self.of_the_store(seen, e))?;
            files.insert(root.filename().unwrap_or("file").to_string(), file);
        }
        Ok(files)
    }

    /// What the store says: it may heal, unless what is asked for is not there or not allowed.
    fn of_the_store(&self, seen: Option<&str>, error: object_store::Error) -> LookupError {
        match error {
            object_store::Error::NotFound { .. } => self.error(seen, "there is no such file, and no folder with files"),
            lasting if !may_heal(&lasting) => self.error(seen, lasting),
            other => LookupError::retry(self.place(), other),
        }
    }

    /// What is wrong with the files themselves. Once the table has been read, what it was is kept meanwhile.
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
        let path = self.path();
        match &self.pattern {
            None => format!("{format} in '{path}'"),
            Some(_) => format!("{format} in '{path}', of the newest date and time that have come"),
        }
    }

    async fn load(&self, request: &LookupRequest, seen: Option<&str>, now: i64) -> Result<Loaded, LookupError> {
        let Some(Found { files, version }) = self.find(seen, now).await? else { return Ok(Loaded::Unchanged) };
        let source = FilesSource::of_files(self.table.clone(), files.clone());
        let request = ReadRequest { columns: request.columns.clone(), event_time: None };
        let (mut rows, mut observed) = (vec![], Observed::default());
        for file in files.keys() {
            let read = read(&source, file, &request, &mut observed).await;
            rows.extend(read.map_err(|error| match error {
                // It went or changed while it was read. The next look finds what is there then.
                SourceError::Gone { what, .. } => LookupError::retry(self.place(), format!("file {file}: {what}")),
                SourceError::Failed { what, .. } => self.error(seen, format!("file {file}: {what}")),
            })?);
        }
        if let Some(findings) = observed.findings() {
            tracing::warn!(table = %self.table.name, "the lookup table does not fit its records: {findings}");
        }
        Ok(Loaded::Rows { version: Some(version), rows })
    }
}

/// Reads a file to its end. A record that cannot be read is an error: rows would miss it, and nobody would know.
async fn read(
    source: &FilesSource,
    split: &str,
    request: &ReadRequest,
    observed: &mut Observed,
) -> Result<Vec<RecordBatch>, SourceError> {
    let rung = Arc::new(Notify::new());
    let bell = rung.clone();
    let start = source.resolve(split, false).await?;
    let mut reader = source.open(split, &start, request, Wake::new(move || bell.notify_one())).await?;
    let mut batches = vec![];
    loop {
        let read = reader.read(AT_ONCE)?;
        if let Some(bad) = read.rejected.first() {
            let sample = String::from_utf8_lossy(&bad.payload[..bad.payload.len().min(SAMPLE)]);
            let what = format!("at {}: {}: {sample}", bad.offset.unwrap_or_default(), bad.error);
            return Err(SourceError::failed(split, what));
        }
        reader.observed().into_iter().for_each(|counted| observed.merge(counted));
        batches.extend(read.batch);
        match read.status {
            ReadStatus::Finished => return Ok(batches),
            ReadStatus::Pending | ReadStatus::AtEnd => rung.notified().await,
            ReadStatus::More => {}
        }
    }
}
