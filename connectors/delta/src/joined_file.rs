//! The file that others are joined into: row groups that are copied byte for byte, and rows that are encoded again.

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowColumnWriter, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{DEFAULT_MAX_ROW_GROUP_ROW_COUNT, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;
use tokio::io::AsyncWriteExt;

use crate::encoding::{Encodings, ROW_GROUP, properties};
use crate::statistics::{Boundless, statistics};
use crate::stored_file::Part;

/// Parts of the file that may be on their way at once.
const UPLOADS: usize = 2;

pub struct JoinedFile {
    schema: SchemaRef,
    encodings: Encodings,
    writer: SerializedFileWriter<Vec<u8>>,
    target: BufWriter,
    /// The row group that rows are encoded into.
    open: Option<RowGroup>,
    boundless: Boundless,
    pub rows: u64,
}

impl JoinedFile {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path, schema: SchemaRef, encodings: Encodings) -> Result<Self> {
        let properties = properties(&schema, encodings, &RecordBatch::new_empty(schema.clone()))?;
        let (writer, _) = ArrowWriter::try_new(vec![], schema.clone(), Some(properties))?.into_serialized_writer()?;
        let target = BufWriter::new(store, path).with_max_concurrency(UPLOADS);
        Ok(JoinedFile { schema, encodings, writer, target, open: None, boundless: Boundless::default(), rows: 0 })
    }

    /// Its columns, as Parquet stores them.
    pub fn columns(&self) -> &SchemaDescriptor {
        self.writer.schema_descr()
    }

    /// Rows to be encoded.
    pub async fn encode(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows() as u64;
        self.boundless.look_at(rows);
        let group = match &mut self.open {
            Some(group) => group,
            none => none.insert(RowGroup::new(&self.schema, self.encodings, rows)?),
        };
        group.write(rows)?;
        if group.is_full() { self.close_group().await } else { Ok(()) }
    }

    /// A row group of a file that has the same columns. `of` has its page indexes.
    pub async fn copy(&mut self, part: &Part, of: &ArrowReaderMetadata, index: usize) -> Result<()> {
        self.close_group().await?;
        self.look_for_nan(part, of, index)?;
        let metadata = of.metadata();
        let group = metadata.row_group(index);
        let mut copied = self.writer.next_row_group()?;
        for column in 0..group.num_columns() {
            copied.append_column(part, as_closed(metadata, index, column))?;
        }
        copied.close()?;
        self.rows += group.num_rows() as u64;
        self.send().await
    }

    /// The footers do not tell whether a column holds a NaN.
    fn look_for_nan(&mut self, part: &Part, of: &ArrowReaderMetadata, index: usize) -> Result<()> {
        let Some(columns) = self.boundless.to_look_at(&self.schema, of.parquet_schema()) else { return Ok(()) };
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(part.clone(), of.clone());
        for rows in reader.with_projection(columns).with_row_groups(vec![index]).build()? {
            self.boundless.look_at(&rows?);
        }
        Ok(())
    }

    async fn close_group(&mut self) -> Result<()> {
        let Some(group) = self.open.take() else { return Ok(()) };
        let mut closed = self.writer.next_row_group()?;
        for column in group.columns {
            column.close()?.append_to_row_group(&mut closed)?;
        }
        closed.close()?;
        self.send().await
    }

    async fn send(&mut self) -> Result<()> {
        let bytes = std::mem::take(self.writer.inner_mut());
        Ok(self.target.put(bytes.into()).await.map_err(io::Error::from)?)
    }

    /// The file's size and statistics, once all of it is in the store.
    pub async fn finish(mut self) -> Result<(u64, String)> {
        self.close_group().await?;
        let metadata = self.writer.finish()?;
        self.send().await?;
        self.target.shutdown().await?;
        let stats = statistics(&self.schema, &metadata, self.rows, &self.boundless);
        Ok((self.writer.bytes_written() as u64, stats))
    }
}

/// A column chunk of a file, as if it had just been written.
fn as_closed(metadata: &ParquetMetaData, group: usize, column: usize) -> ColumnCloseResult {
    let of_group = metadata.row_group(group);
    let chunk = of_group.column(column);
    let column_index = metadata.column_index().map(|index| index[group][column].clone());
    ColumnCloseResult {
        bytes_written: chunk.compressed_size() as u64,
        rows_written: of_group.num_rows() as u64,
        metadata: chunk.clone(),
        bloom_filter: None,
        column_index: column_index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
        offset_index: metadata.offset_index().map(|index| index[group][column].clone()),
    }
}

/// A row group that grows.
struct RowGroup {
    schema: SchemaRef,
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl RowGroup {
    /// `first`: its first rows, from which the encodings are chosen.
    fn new(schema: &SchemaRef, encodings: Encodings, first: &RecordBatch) -> Result<Self> {
        let properties: WriterProperties = properties(schema, encodings, first)?;
        // Only a file's writer hands out writers of columns. Where these end up is another's matter.
        let of_no_file = ArrowWriter::try_new(io::sink(), schema.clone(), Some(properties))?;
        let (_, columns) = of_no_file.into_serialized_writer()?;
        Ok(RowGroup { schema: schema.clone(), columns: columns.create_column_writers(0)?, rows: 0 })
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut columns = self.columns.iter_mut();
        for (field, values) in self.schema.fields().iter().zip(rows.columns()) {
            for (leaf, column) in compute_leaves(field, values)?.iter().zip(&mut columns) {
                column.write(leaf)?;
            }
        }
        self.rows += rows.num_rows();
        Ok(())
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum();
        bytes >= ROW_GROUP || self.rows >= DEFAULT_MAX_ROW_GROUP_ROW_COUNT
    }
}
