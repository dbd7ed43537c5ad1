//! A folder of files, exactly once: staged under a name that nobody makes again, shown by copy-if-absent under a name
//! made of the entry.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use engine::environment::crash_point;
use engine::sink::{Committable, Committed, RejectedRow, Sink, SinkContext, SinkError, SinkWriter, Token};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::file::may_heal;
use crate::location::Location;
use crate::refused::{self, Lines, token};
use storage::staging::{stage, unstage};

/// Encoded bytes after which a Parquet file gets another row group: what a writer holds in memory uncompressed.
const ROW_GROUP: usize = 64 << 20;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkFormat {
    JsonLines,
    Parquet,
}

/// A folder that rows are shown in.
pub struct FilesSink {
    pub location: Location,
    pub format: SinkFormat,
    /// Bytes that the folder may hold; then the job stops, so that nothing is lost unnoticed.
    pub limit: Option<u64>,
}

impl SinkFormat {
    pub fn extension(self) -> &'static str {
        match self {
            SinkFormat::JsonLines => "jsonl",
            SinkFormat::Parquet => "parquet",
        }
    }
}

#[async_trait]
impl Sink for FilesSink {
    fn describe(&self) -> String {
        let format = match self.format {
            SinkFormat::JsonLines => "JSON lines",
            SinkFormat::Parquet => "Parquet files",
        };
        format!("{format} in '{}'", self.location.place)
    }

    fn guarantee(&self) -> String {
        "exactly once: files are named after their entry and shown by copy-if-absent".into()
    }

    async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
        // Whatever is there, the store can be asked for it.
        match self.location.store.list_with_delimiter(Some(&self.location.root)).await {
            Ok(_) => Ok(()),
            Err(error) if may_heal(&error) => Err(self.retry(error)),
            Err(lasting) => Err(SinkError::failed(&self.location.place, lasting)),
        }
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(FilesWriter {
            store: self.location.store.clone(),
            staging: self.location.root.clone().join("_staging"),
            context: context.clone(),
            place: self.location.place.clone(),
            encoder: Encoder::new(self.format, context.schema.clone()),
        }))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        self.check_limit().await?;
        if let Some(rejected) = refused::untold(entries) {
            return Ok(rejected);
        }
        for entry in entries {
            for (ordinal, token) in entry.tokens.iter().enumerate() {
                let Some(staged) = refused::staged_at(token) else { continue };
                // Another job, and another table of this one, may write into the same folder.
                let name = format!("{}-{}-{:012}-{ordinal}", context.sink, context.log_id, entry.entry);
                let shown = self.location.root.clone().join(format!("{name}.{}", self.format.extension()));
                self.show(&staged, &shown, entry.entry).await?;
            }
        }
        Ok(Committed::Done)
    }
}

impl FilesSink {
    fn retry(&self, error: object_store::Error) -> SinkError {
        SinkError::retry(&self.location.place, error)
    }

    /// Copies a staged file to its name, once. Staged and shown both gone is a loss, and said.
    async fn show(&self, staged: &Path, shown: &Path, entry: u64) -> Result<(), SinkError> {
        let store = &self.location.store;
        crash_point("before-copy");
        match store.copy_if_not_exists(staged, shown).await {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(object_store::Error::NotFound { .. }) => match store.head(shown).await {
                Ok(_) => return Ok(()),
                Err(object_store::Error::NotFound { .. }) => {
                    let what = format!("job log entry {entry} names the staged file {staged}, which is gone");
                    return Err(SinkError::failed(&self.location.place, what));
                }
                Err(error) => return Err(self.retry(error)),
            },
            Err(error) => return Err(self.retry(error)),
        }
        crash_point("after-copy");
        unstage(&**store, staged, &self.location.place).await
    }

    async fn check_limit(&self) -> Result<(), SinkError> {
        let Some(limit) = self.limit else { return Ok(()) };
        let listed = self.location.store.list(Some(&self.location.root)).try_collect::<Vec<_>>().await;
        let used: u64 = listed.map_err(|e| self.retry(e))?.iter().map(|m| m.size).sum();
        if used > limit {
            let what = format!(
                "the dead letter holds {used} bytes, more than its {limit}: look at what is wrong with the records, then \
                 move the files away, or declare a table with 'dead-letter' = 'true'"
            );
            return Err(SinkError::failed(&self.location.place, what));
        }
        Ok(())
    }
}

struct FilesWriter {
    store: Arc<dyn ObjectStore>,
    staging: Path,
    context: SinkContext,
    place: String,
    encoder: Encoder,
}

impl FilesWriter {
    fn failed(&self, error: impl std::fmt::Display) -> SinkError {
        SinkError::failed(&self.place, error)
    }
}

impl SinkWriter for FilesWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.encoder.push(batch).map_err(|e| self.failed(e))
    }

    fn buffered(&self) -> usize {
        self.encoder.buffered()
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        let (body, refused) = match self.encoder.close() {
            Ok((None, refused)) if refused.is_empty() => return Box::pin(async { Ok(None) }),
            Ok(closed) => closed,
            Err(error) => {
                let error = self.failed(error);
                return Box::pin(async { Err(error) });
            }
        };
        let name = format!("{}.{}", self.context.names.next(), self.encoder.format.extension());
        let (store, path, metrics) =
            (self.store.clone(), self.staging.clone().join(name), self.context.metrics.clone());
        Box::pin(async move {
            let Some(body) = body else { return Ok(Some(token(None, &refused))) };
            stage(&*store, &path, body, &metrics).await;
            Ok(Some(token(Some(&path), &refused)))
        })
    }
}

/// The file of the open epoch.
struct Encoder {
    format: SinkFormat,
    schema: SchemaRef,
    lines: Lines,
    parquet: Option<ArrowWriter<Vec<u8>>>,
}

impl Encoder {
    fn new(format: SinkFormat, schema: SchemaRef) -> Self {
        Encoder { format, schema, lines: Lines::default(), parquet: None }
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match self.format {
            SinkFormat::JsonLines => Ok(self.lines.push(batch)?),
            SinkFormat::Parquet => {
                if self.parquet.is_none() {
                    let writer = ArrowWriter::try_new(vec![], self.schema.clone(), Some(properties()))?;
                    self.parquet = Some(writer);
                }
                match &mut self.parquet {
                    Some(writer) => writer.write(batch),
                    None => Ok(()),
                }
            }
        }
    }

    fn buffered(&self) -> usize {
        self.lines.buffered() + self.parquet.as_ref().map_or(0, |w| w.bytes_written() + w.memory_size())
    }

    /// The file, `None` if no row is in it, and the rows that can be in none.
    fn close(&mut self) -> Result<(Option<Bytes>, Vec<RejectedRow>), ParquetError> {
        let (lines, refused) = self.lines.close();
        let body = match self.parquet.take() {
            Some(writer) => writer.into_inner()?,
            None => lines,
        };
        Ok(((!body.is_empty()).then(|| Bytes::from(body)), refused))
    }
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // A dictionary costs most of the encoding where nearly every value is another, as in events.
        .set_dictionary_enabled(false)
        .set_max_row_group_bytes(Some(ROW_GROUP))
        .set_created_by(format!("millrace {}", env!("CARGO_PKG_VERSION")))
        .build()
}
