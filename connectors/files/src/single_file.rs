//! One file of JSON lines, exactly once.
//!
//! The rows of an entry are staged in the job's folder. To show them, they are written behind those of the entry before;
//! then a record in the job's folder, made once and never changed, says where they end. A second try, after a crash or
//! by a process that was taken over, finds the record and does nothing, or writes the same bytes at the same place.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use engine::connector::{Connector, OptionKind, OptionSpec, Problem, TableSpec};
use engine::environment::crash_point;
use engine::job_log::put_new;
use engine::lookup::Lookup;
use engine::shown::Shown;
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter, Token};
use engine::source::Source;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use serde_json::json;

use crate::location::Location;
use crate::lookup::FilesLookup;
use crate::options::{read_table, shown};
use crate::refused::{self, Lines, token};
use crate::sink::SinkFormat;
use crate::source::FilesSource;
use storage::staging::{stage, staged, unstage};

/// Records of where entries end: the last ones are kept, so that whoever comes late finds a later one than its own.
const KEPT_RECORDS: usize = 32;

/// `connector = 'single_file'`, as Arroyo has it.
pub struct SingleFileConnector;

impl Connector for SingleFileConnector {
    fn name(&self) -> &'static str {
        "single_file"
    }

    fn options(&self) -> Vec<OptionSpec> {
        vec![
            OptionSpec::new("path", OptionKind::Text, "a file on this machine").required(),
            OptionSpec::new("format", OptionKind::OneOf(&[&["json"]]), "json: one object a line"),
            OptionSpec::new("wait_for_control", OptionKind::Boolean, "Arroyo's; not needed here"),
        ]
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        local(table)?;
        Ok(Arc::new(FilesSource::new(read_table(table)?)))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Ok(Arc::new(SingleFileSink { file: local(table)? }))
    }

    fn lookup(&self, table: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        local(table)?;
        Ok(Arc::new(FilesLookup::of(table)?))
    }

    fn shown(&self, table: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        local(table)?;
        shown(table, SinkFormat::JsonLines)
    }
}

fn local(table: &TableSpec) -> Result<PathBuf, Vec<Problem>> {
    let location = Location::of(table.options.get("path").unwrap_or_default());
    let location = location.map_err(|e| vec![Problem::option("path", e)])?;
    let elsewhere = "a single file is on this machine; for a folder elsewhere there is connector = 'filesystem'";
    location.local().ok_or_else(|| vec![Problem::option("path", elsewhere)])
}

struct SingleFileSink {
    file: PathBuf,
}

impl SingleFileSink {
    fn place(&self) -> String {
        self.file.display().to_string()
    }

    fn failed(&self, what: impl std::fmt::Display) -> SinkError {
        SinkError::failed(self.place(), what)
    }

    /// The last entry that is shown, and where it ends. Entry 0 stands for the empty file.
    async fn shown(&self, context: &SinkContext) -> Result<Option<(u64, u64)>, SinkError> {
        let last = self.records(context).await?.pop();
        let Some((entry, path)) = last else { return Ok(None) };
        let record = staged(&*context.store, &path, &self.place()).await?;
        let end = record.and_then(|r| serde_json::from_slice::<serde_json::Value>(&r).ok()?["end"].as_u64());
        match end {
            Some(end) => Ok(Some((entry, end))),
            None => Err(self.failed(format!("{path} in the job's folder does not say where entry {entry} ends"))),
        }
    }

    /// By entry.
    async fn records(&self, context: &SinkContext) -> Result<Vec<(u64, Path)>, SinkError> {
        let folder = records_of(context);
        let found: Vec<_> =
            context.store.list(Some(&folder)).try_collect().await.map_err(|e| SinkError::retry(self.place(), e))?;
        let entry = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<u64>().ok();
        let mut records: Vec<_> = found.into_iter().filter_map(|m| Some((entry(&m.location)?, m.location))).collect();
        records.sort();
        Ok(records)
    }

    /// Records that `entry` ends here. Whoever comes second says the same.
    async fn record(&self, context: &SinkContext, entry: u64, end: u64) -> Result<(), SinkError> {
        let path = records_of(context).join(format!("{entry:020}.json"));
        match put_new(&*context.store, &path, json!({"end": end}).to_string().into()).await {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(SinkError::retry(self.place(), error)),
        }
    }

    async fn show(&self, context: &SinkContext, entry: &Committable) -> Result<(), SinkError> {
        let place = self.place();
        let paths: Vec<Path> = entry.tokens.iter().filter_map(refused::staged_at).collect();
        let (last, end) = self.shown(context).await?.ok_or_else(|| {
            self.failed(
                "the job's folder does not say where the job's rows end in this file; begin anew under another --name",
            )
        })?;
        if last < entry.entry {
            let mut rows = vec![];
            for path in &paths {
                let staged = staged(&*context.store, path, &place).await?;
                let gone = || self.failed(format!("job log entry {} names {path}, which is gone", entry.entry));
                rows.extend_from_slice(&staged.ok_or_else(gone)?);
            }
            let after = end + rows.len() as u64;
            let file = self.file.clone();
            crash_point("before-lines");
            let written = tokio::task::spawn_blocking(move || write_at(&file, &rows, end)).await;
            written.map_err(|e| self.failed(e))?.map_err(|e| SinkError::retry(&place, e))?;
            crash_point("after-lines");
            self.record(context, entry.entry, after).await?;
            crash_point("after-record");
        }
        for path in &paths {
            unstage(&*context.store, path, &place).await?;
        }
        let records = self.records(context).await?;
        for (_, path) in records.iter().take(records.len().saturating_sub(KEPT_RECORDS)) {
            unstage(&*context.store, path, &place).await?;
        }
        Ok(())
    }
}

fn records_of(context: &SinkContext) -> Path {
    context.staging.clone().join("shown")
}

pub fn write_at(file: &std::path::Path, rows: &[u8], at: u64) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(file)?;
    file.write_all_at(rows, at)?;
    file.sync_data()
}

#[async_trait]
impl Sink for SingleFileSink {
    fn describe(&self) -> String {
        format!("JSON lines in the file '{}'", self.file.display())
    }

    fn guarantee(&self) -> String {
        "exactly once: where an entry's rows stand in the file is recorded once in the job's folder".into()
    }

    async fn open(&self, context: &SinkContext, probe: bool) -> Result<(), SinkError> {
        let length = match fs::metadata(&self.file) {
            Ok(found) if found.is_dir() => return Err(self.failed("is a folder")),
            Ok(found) => found.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(self.failed(error)),
        };
        match self.shown(context).await? {
            None if length > 0 => {
                Err(self.failed(format!("holds {length} bytes that this job did not write; move the file away")))
            }
            Some((entry, end)) if length < end => {
                Err(self.failed(format!("holds {length} bytes, but up to entry {entry} this job wrote {end}")))
            }
            None if !probe => {
                let folder = self.file.parent().map_or(Ok(()), fs::create_dir_all);
                folder.map_err(|e| self.failed(e))?;
                self.record(context, 0, 0).await
            }
            _ => Ok(()),
        }
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(LinesWriter { context: context.clone(), place: self.place(), lines: Lines::default() }))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        if let Some(rejected) = refused::untold(entries) {
            return Ok(rejected);
        }
        for entry in entries {
            self.show(context, entry).await?;
        }
        Ok(Committed::Done)
    }
}

struct LinesWriter {
    context: SinkContext,
    place: String,
    lines: Lines,
}

impl SinkWriter for LinesWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.lines.push(batch).map_err(|e| SinkError::failed(&self.place, e))
    }

    fn buffered(&self) -> usize {
        self.lines.buffered()
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        let (body, refused) = self.lines.close();
        if body.is_empty() {
            let token = (!refused.is_empty()).then(|| token(None, &refused));
            return Box::pin(async { Ok(token) });
        }
        let body = Bytes::from(body);
        let (store, metrics) = (self.context.store.clone(), self.context.metrics.clone());
        let path = self.context.staging.clone().join(self.context.names.next());
        Box::pin(async move {
            stage(&*store, &path, body, &metrics).await;
            Ok(Some(token(Some(&path), &refused)))
        })
    }
}
