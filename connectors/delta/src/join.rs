//! Several data files read, and written as one: batch by batch, so that memory holds a row group and not a file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{AsyncArrowWriter, ParquetRecordBatchStreamBuilder};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::encoding::{Encodings, WRITTEN_BY, properties};
use crate::parquet_file::DataFile;
use crate::statistics::{Boundless, statistics};

/// Rows that are in hand at once.
const BATCH: usize = 8192;

/// A live file of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveFile {
    /// Within the table.
    pub path: String,
    pub size: u64,
    pub partition_values: BTreeMap<String, Option<String>>,
}

/// The new file, and those whose rows it holds.
pub struct Joined {
    pub file: DataFile,
    pub instead_of: Vec<LiveFile>,
}

/// Writes the rows of these files, which are all of one partition, into one. Files of another writer, and such whose
/// columns do not go with the others', are left out; `None` if fewer than two are left.
pub async fn join(
    store: &Arc<dyn ObjectStore>,
    files: &[LiveFile],
    path: String,
    encodings: Encodings,
) -> Result<Option<Joined>> {
    let Some(Opened { schema, sources }) = open(store, files).await? else { return Ok(None) };
    let mut output = Output::new(store, &path, schema, encodings);
    let mut expected = 0;
    let mut instead_of = vec![];
    for Source { file, stored, metadata } in sources {
        expected += metadata.metadata().file_metadata().num_rows() as u64;
        let rows = ParquetRecordBatchStreamBuilder::new_with_metadata(stored, metadata).with_batch_size(BATCH);
        let mut rows = rows.build()?;
        while let Some(batch) = rows.try_next().await? {
            output.write(&batch).await?;
            // Encoding is work of milliseconds, on threads that others wait for.
            tokio::task::yield_now().await;
        }
        instead_of.push(file);
    }
    let file = output.finish(path, &instead_of).await?;
    match file {
        Some(file) if file.rows == expected => Ok(Some(Joined { file, instead_of })),
        Some(file) => Err(ParquetError::General(format!("{} rows were read of {expected}", file.rows))),
        None => Ok(None),
    }
}

/// Files to be joined, and the columns of them all.
struct Opened {
    schema: SchemaRef,
    sources: Vec<Source>,
}

struct Source {
    file: LiveFile,
    stored: Stored,
    metadata: ArrowReaderMetadata,
}

async fn open(store: &Arc<dyn ObjectStore>, files: &[LiveFile]) -> Result<Option<Opened>> {
    let mut schema = Schema::empty();
    let mut sources: Vec<Source> = vec![];
    for file in files {
        let mut stored = Stored { store: store.clone(), path: Path::from(file.path.as_str()), size: file.size };
        let metadata = ArrowReaderMetadata::load_async(&mut stored, ArrowReaderOptions::new()).await?;
        let writer = metadata.metadata().file_metadata().created_by();
        let ours = writer.is_some_and(|w| w.starts_with(WRITTEN_BY));
        let Some(wider) = ours.then(|| widened(&schema, metadata.schema(), sources.is_empty())).flatten() else {
            continue;
        };
        schema = wider;
        sources.push(Source { file: file.clone(), stored, metadata });
    }
    Ok((sources.len() > 1).then(|| Opened { schema: Arc::new(schema), sources }))
}

/// The columns of both; one that only one side has is NULL in the other's rows.
fn widened(schema: &Schema, other: &Schema, first: bool) -> Option<Schema> {
    if first {
        return Some(other.clone());
    }
    let optional = |field: &Field| field.clone().with_nullable(true);
    let mut fields = vec![];
    for field in schema.fields() {
        match other.field_with_name(field.name()) {
            Ok(there) if there.data_type() != field.data_type() => return None,
            Ok(there) => fields.push(field.as_ref().clone().with_nullable(field.is_nullable() || there.is_nullable())),
            Err(_) => fields.push(optional(field)),
        }
    }
    let added = other.fields().iter().filter(|f| schema.field_with_name(f.name()).is_err());
    fields.extend(added.map(|f| optional(f)));
    Some(Schema::new(fields))
}

/// The file that is written.
struct Output {
    target: Option<BufWriter>,
    encodings: Encodings,
    schema: SchemaRef,
    /// Made with the first rows, from which the encodings are chosen.
    writer: Option<AsyncArrowWriter<BufWriter>>,
    boundless: Boundless,
    rows: u64,
}

impl Output {
    fn new(store: &Arc<dyn ObjectStore>, path: &str, schema: SchemaRef, encodings: Encodings) -> Self {
        let target = Some(BufWriter::new(store.clone(), Path::from(path)));
        Output { target, encodings, schema, writer: None, boundless: Boundless::default(), rows: 0 }
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = with_columns(batch, &self.schema)?;
        if let Some(target) = self.target.take() {
            let properties = properties(&self.schema, self.encodings, &rows)?;
            self.writer = Some(AsyncArrowWriter::try_new(target, self.schema.clone(), Some(properties))?);
        }
        self.rows += rows.num_rows() as u64;
        self.boundless.look_at(&rows);
        match &mut self.writer {
            Some(writer) => writer.write(&rows).await,
            None => Ok(()),
        }
    }

    async fn finish(self, path: String, of: &[LiveFile]) -> Result<Option<DataFile>> {
        let (Some(mut writer), Some(first)) = (self.writer, of.first()) else { return Ok(None) };
        let metadata = writer.finish().await?;
        let stats = statistics(&self.schema, &metadata, self.rows, &self.boundless);
        let partition_values = first.partition_values.clone();
        Ok(Some(DataFile { path, size: writer.bytes_written() as u64, rows: self.rows, partition_values, stats }))
    }
}

fn with_columns(batch: &RecordBatch, schema: &SchemaRef) -> std::result::Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), batch.num_rows()),
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect())
}

/// A file in the store, read piece by piece.
struct Stored {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Stored {
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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        Schema::new(fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>())
    }

    #[test]
    fn columns_of_files_are_brought_together_unless_a_type_differs() {
        let old = schema(&[("id", DataType::Utf8, false), ("gone", DataType::Int64, false)]);
        let new = schema(&[("id", DataType::Utf8, false), ("added", DataType::Float64, true)]);
        let both = widened(&old, &new, false).unwrap();
        let expected = schema(&[
            ("id", DataType::Utf8, false),
            ("gone", DataType::Int64, true),
            ("added", DataType::Float64, true),
        ]);
        assert_eq!(both, expected);
        assert_eq!(widened(&old, &schema(&[("id", DataType::Int64, false)]), false), None);
    }
}
