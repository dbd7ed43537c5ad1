//! A data file in the store, read piece by piece.

use std::ops::Range;
use std::sync::Arc;

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

#[derive(Clone)]
pub struct StoredFile {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    pub size: u64,
}

impl StoredFile {
    /// The bytes of a row group, as they lie there.
    pub async fn row_group(&mut self, group: &RowGroupMetaData) -> Result<Part> {
        let chunks = group.columns().iter().map(|chunk| chunk.byte_range());
        let ranges = chunks.map(|(start, length)| (start, start + length));
        let whole = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let (start, end) = whole.ok_or_else(|| ParquetError::General("a row group without columns".into()))?;
        Ok(Part { start, bytes: self.get_bytes(start..end).await? })
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.store.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        async move { Ok(Arc::new(reader.load_and_finish(self, size).await?)) }.boxed()
    }
}

/// A part of a file in memory, found by its place in the file.
#[derive(Clone)]
pub struct Part {
    start: u64,
    pub bytes: Bytes,
}

impl Part {
    fn from(&self, place: u64) -> Result<Bytes> {
        let within = place.checked_sub(self.start).filter(|offset| *offset <= self.bytes.len() as u64);
        let offset =
            within.ok_or_else(|| ParquetError::EOF(format!("byte {place} is not in this part of the file")))?;
        Ok(self.bytes.slice(offset as usize..))
    }
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Part {
    type T = Reader<Bytes>;

    fn get_read(&self, place: u64) -> Result<Self::T> {
        Ok(self.from(place)?.reader())
    }

    fn get_bytes(&self, place: u64, length: usize) -> Result<Bytes> {
        let rest = self.from(place)?;
        let ends = || ParquetError::EOF(format!("{length} bytes at {place} are more than this part of the file"));
        if rest.len() < length { Err(ends()) } else { Ok(rest.slice(..length)) }
    }
}
