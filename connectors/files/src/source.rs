//! Files as a source: each file is a split, named relative to the table's path.
//!
//! A file is complete when it can be listed: it is read once, to the end that it has then, and must not change. Names
//! that begin with `_` or `.` are passed over, so a writer that takes its time can hide a file until it is whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::source::{Position, ReadRequest, Source, SourceError, SplitReader, Start, Wake};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::avro;
use crate::compression::Compression;
use crate::fetch;
use crate::file::{File, incarnation, relative};
use crate::metadata::Layout;
use crate::options::{FileFormat, FileTable};
use crate::prefetch::Prefetch;
use crate::row_reader::RowReader;
use crate::text_reader::TextReader;

/// Files of one table that are read at the same time; the others wait, unopened.
const OPEN_FILES: usize = 16;

/// A file or a folder of files.
pub struct FilesSource {
    table: Arc<FileTable>,
    /// What was listed last, by split.
    listed: Mutex<BTreeMap<String, ObjectMeta>>,
    open_files: Arc<Semaphore>,
}

impl FilesSource {
    pub fn new(table: FileTable) -> Self {
        let (listed, open_files) = (Mutex::default(), Arc::new(Semaphore::new(OPEN_FILES)));
        FilesSource { table: Arc::new(table), listed, open_files }
    }

    /// Of these files and no others.
    pub fn of_files(table: FileTable, files: BTreeMap<String, ObjectMeta>) -> Self {
        let source = FilesSource::new(table);
        *source.listed.lock() = files;
        source
    }

    fn place(&self, split: &str) -> String {
        format!("table {}, file {split} of {}", self.table.name, self.table.location.place)
    }

    fn failed(&self, what: impl std::fmt::Display) -> SourceError {
        SourceError::failed(format!("table {}, {}", self.table.name, self.table.location.place), what)
    }

    async fn list(&self) -> Result<BTreeMap<String, ObjectMeta>, SourceError> {
        let location = &self.table.location;
        let found: Vec<ObjectMeta> =
            location.store.list(Some(&location.root)).try_collect().await.map_err(|e| self.failed(e))?;
        let mut files = BTreeMap::new();
        for meta in found {
            if let Some(name) = relative(&location.root, &meta.location)
                && is_visible(&name)
                && self.table.pattern.as_ref().is_none_or(|p| p.is_match(&name))
            {
                files.insert(name, meta);
            }
        }
        if !files.is_empty() {
            return Ok(files);
        }
        match location.store.head(&location.root).await {
            Ok(meta) => {
                let name = location.root.filename().unwrap_or("file").to_string();
                files.insert(name, meta);
            }
            Err(_) if self.table.monitor.is_some() => {}
            Err(_) if location.local().is_some_and(|path| path.is_dir()) => {}
            Err(object_store::Error::NotFound { .. }) => return Err(self.failed("there is no such file or folder")),
            Err(error) => return Err(self.failed(error)),
        }
        Ok(files)
    }

    /// The file as it is listed.
    fn file(&self, split: &str) -> Result<File, SourceError> {
        let meta = self.listed.lock().get(split).cloned();
        let meta = meta.ok_or_else(|| {
            let (what, remedy) =
                ("the job log has a position in it, but it is gone", "Put it back, or begin anew under another --name");
            SourceError::Gone { place: self.place(split), what: what.into(), remedy: remedy.into() }
        })?;
        let location = &self.table.location;
        let path = match meta.location == location.root {
            true => location.place.clone(),
            false => format!("{}/{split}", location.place.trim_end_matches('/')),
        };
        Ok(File { store: location.store.clone(), meta, name: split.to_string(), path, place: self.place(split) })
    }

    fn is_text_by_bytes(&self, split: &str) -> bool {
        self.table.format.is_text() && self.table.compression_of(split) == Compression::None
    }

    /// Confirms that the file is still the one that was claimed.
    fn confirm(&self, file: &File, at: &Position) -> Result<(), SourceError> {
        let gone = |what: String| {
            SourceError::Gone {
            place: file.place.clone(),
            what,
            remedy: "A file must not change once it can be listed. Put it back as it was, or begin anew under another --name".into(),
        }
        };
        if self.is_text_by_bytes(&file.name) && at.offset as u64 > file.meta.size {
            let size = file.meta.size;
            return Err(gone(format!("the job stands at byte {}, but the file is only {size} bytes long", at.offset)));
        }
        let now = incarnation(&file.meta);
        match &at.incarnation {
            Some(then) if *then != now => Err(gone(format!("it was {then} when it was claimed, and is {now}"))),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Source for FilesSource {
    fn describe(&self) -> String {
        let format = match self.table.format {
            FileFormat::Json => "JSON lines",
            FileFormat::Csv(_) => "CSV",
            FileFormat::Parquet => "Parquet",
            FileFormat::Avro => "Avro",
        };
        let how = match self.table.monitor {
            None => "read once".to_string(),
            Some(interval) => format!("watched, new files looked for every {interval:?}"),
        };
        format!("{format} in '{}', {how}", self.table.location.place)
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        let files = self.list().await?;
        let names = files.keys().cloned().collect();
        *self.listed.lock() = files;
        Ok(names)
    }

    fn discovery_interval(&self) -> Option<Duration> {
        self.table.monitor
    }

    async fn resolve(&self, split: &str, _: bool) -> Result<Start, SourceError> {
        let file = self.file(split)?;
        let from = Position { incarnation: Some(incarnation(&file.meta)), ..Position::at(0) };
        let until = self.is_text_by_bytes(split).then_some(file.meta.size as i64);
        Ok(Start { from, until })
    }

    async fn verify(&self, split: &str, at: &Position) -> Result<(), SourceError> {
        self.confirm(&self.file(split)?, at)
    }

    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError> {
        let file = self.file(split)?;
        self.confirm(&file, &start.from)?;
        let layout = Layout::of(request).map_err(|e| SourceError::failed(&file.place, e))?;
        let (from, wanted, ahead) = (start.from.offset.max(0) as u64, layout.values(), file.clone());
        let packed = self.table.compression_of(split) != Compression::None;
        let format = self.table.format.clone();
        let arriving = Prefetch::start(self.open_files.clone(), from > 0, wake, move |delivery| async move {
            match format {
                FileFormat::Parquet => fetch::parquet(ahead, from as usize, wanted, delivery).await,
                FileFormat::Avro => avro::fetch(ahead, from as usize, wanted, delivery).await,
                // A place in packed text is found by unpacking everything before it.
                _ if packed => fetch::bytes(ahead, 0, delivery).await,
                FileFormat::Csv(csv) if csv.header && from > 0 => {
                    fetch::bytes_behind_header(ahead, from, csv.delimiter, delivery).await
                }
                _ => fetch::bytes(ahead, from, delivery).await,
            }
        });
        if !self.table.format.is_text() {
            return Ok(Box::new(RowReader::new(file, layout, start.from.clone(), arriving)));
        }
        let from = start.from.clone();
        Ok(Box::new(TextReader::new(file, self.table.clone(), layout, from, start.until, arriving)))
    }
}

/// Whether a file is there for readers: no part of its name begins with `_` or `.`.
pub fn is_visible(name: &str) -> bool {
    name.split('/').all(|part| !part.starts_with(['_', '.']))
}
