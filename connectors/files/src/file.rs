//! One file as it was when it was listed: the bytes of another one are never taken for it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::source::SourceError;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// Tries of one request, beyond the store's own; the pauses between them add up to about a minute.
const TRIES: u32 = 12;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A file that is read.
#[derive(Clone)]
pub struct File {
    pub store: Arc<dyn ObjectStore>,
    pub meta: ObjectMeta,
    /// The split: relative to the table's path.
    pub name: String,
    /// The whole path, as the table writes it.
    pub path: String,
    /// For errors: the table and the file.
    pub place: String,
}

impl File {
    /// Nanoseconds since 1970: the log's timestamp of every record in the file.
    pub fn modified(&self) -> Option<i64> {
        self.meta.last_modified.timestamp_nanos_opt()
    }

    /// Bytes of the file; the file changed or went if it is not the one that was listed.
    pub async fn bytes(&self, range: Range<u64>) -> Result<Bytes, SourceError> {
        let mut pause = Duration::from_millis(100);
        let mut tries = 1;
        loop {
            let error = match self.request(range.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            if tries == TRIES || !may_heal(&error) {
                return Err(self.explain(error));
            }
            tracing::warn!(place = %self.place, %error, tries, "a part of the file was not read; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            tries += 1;
        }
    }

    async fn request(&self, range: Range<u64>) -> Result<Bytes, object_store::Error> {
        let options = GetOptions {
            if_match: self.meta.e_tag.clone(),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        self.store.get_opts(&self.meta.location, options).await?.bytes().await
    }

    fn explain(&self, error: object_store::Error) -> SourceError {
        let what = match error {
            object_store::Error::Precondition { .. } => "the file changed while it was read",
            object_store::Error::NotFound { .. } => "the file went away before it was read to its end",
            other => return SourceError::failed(&self.place, other),
        };
        let remedy =
            "A file is complete when it can be listed: write it under a hidden name (_ or . in front) and rename it";
        SourceError::Gone { place: self.place.clone(), what: what.into(), remedy: remedy.into() }
    }
}

/// Tells this content of a file from another one under the same name.
pub fn incarnation(meta: &ObjectMeta) -> String {
    format!("{} bytes of {}", meta.size, meta.last_modified.format("%Y-%m-%dT%H:%M:%S%.3fZ"))
}

/// The name of a file relative to the table's path. `None`: the path itself.
pub fn relative(root: &Path, location: &Path) -> Option<String> {
    let parts: Vec<String> = location.prefix_match(root)?.map(|p| p.as_ref().to_string()).collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Whether a request that failed so may work another time.
pub fn may_heal(error: &object_store::Error) -> bool {
    use object_store::Error::*;
    !matches!(
        error,
        NotFound { .. }
            | Precondition { .. }
            | PermissionDenied { .. }
            | Unauthenticated { .. }
            | InvalidPath { .. }
            | NotSupported { .. }
            | NotImplemented { .. }
            | UnknownConfigurationKey { .. }
    )
}

impl AsyncFileReader for File {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.bytes(range).await.map_err(|e| ParquetError::External(Box::new(e))) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.meta.size;
            ParquetMetaDataReader::new().load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}
