//! Several data files made one. What is large enough already is copied byte for byte; the rows of what is small are read
//! and encoded together. Either way memory holds a row group and not a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::DEFAULT_MAX_ROW_GROUP_ROW_COUNT;
use parquet::schema::types::SchemaDescriptor;

use crate::encoding::{Encodings, ROW_GROUP, WRITTEN_BY, are_allowed};
use crate::joined_file::JoinedFile;
use crate::parquet_file::DataFile;
use crate::stored_file::StoredFile;

/// Rows that are in hand at once, and their bytes.
const BATCH: usize = 8192;
const BATCH_BYTES: usize = 1 << 20;
/// Bytes, or rows, of a row group that is copied as it is. Half of what would be written: for readers at most twice as many,
/// and nearly all of the work saved.
pub const LARGE_ENOUGH: u64 = ROW_GROUP as u64 / 2;
const ROWS_ENOUGH: i64 = DEFAULT_MAX_ROW_GROUP_ROW_COUNT as i64 / 2;

/// A live file of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveFile {
    /// Within the table.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// By column.
    pub partition_values: BTreeMap<String, Option<String>>,
}

/// The new file, and those whose rows it holds.
#[derive(Debug)]
pub struct Joined {
    /// Not named by any entry yet.
    pub file: DataFile,
    /// Those that it can replace.
    pub instead_of: Vec<LiveFile>,
}

/// Writes the rows of these files, which are all of one partition, into one. Files of another writer, and such whose
/// columns do not go with the others', are left out; `None` if fewer than two are left. Row groups of `large_enough` bytes are
/// copied, if they have the joined file's columns, and encodings that the table's readers know.
pub async fn join(
    store: &Arc<dyn ObjectStore>,
    files: &[LiveFile],
    path: String,
    encodings: Encodings,
    large_enough: u64,
) -> Result<Option<Joined>> {
    let Some(Opened { schema, sources }) = open(store, files).await? else { return Ok(None) };
    let mut joined = JoinedFile::new(store.clone(), Path::from(path.as_str()), schema.clone(), encodings)?;
    let mut copied = copied(&fits(&sources, joined.columns(), encodings, large_enough)).into_iter();
    let mut expected = 0;
    let mut instead_of = vec![];
    for mut source in sources {
        expected += source.metadata.metadata().file_metadata().num_rows() as u64;
        let copied: Vec<bool> = copied.by_ref().take(source.metadata.metadata().num_row_groups()).collect();
        if copied.contains(&true) {
            source.load_page_indexes().await?;
        }
        let mut groups = copied.into_iter().enumerate().peekable();
        while let Some((group, as_it_is)) = groups.next() {
            if as_it_is {
                source.copy(group, &mut joined).await?;
                continue;
            }
            let mut small = vec![group];
            small.extend(std::iter::from_fn(|| groups.next_if(|(_, as_it_is)| !as_it_is)).map(|(group, _)| group));
            source.encode(small, &schema, &mut joined).await?;
        }
        instead_of.push(source.file);
    }
    if joined.rows != expected {
        return Err(ParquetError::General(format!("{} rows were read of {expected}", joined.rows)));
    }
    let (rows, partition_values) = (joined.rows, instead_of[0].partition_values.clone());
    let (size, stats) = joined.finish().await?;
    Ok(Some(Joined { file: DataFile { path, size, rows, partition_values, stats }, instead_of }))
}

/// How a row group goes with the joined file.
#[derive(Clone, Copy, PartialEq)]
enum Fit {
    /// It has other columns, or encodings that the table's readers may not know.
    No,
    /// It may be copied, and would better be part of a larger one.
    Small,
    Large,
}

/// Of all row groups of all files, in their order.
fn fits(sources: &[Source], columns: &SchemaDescriptor, encodings: Encodings, large_enough: u64) -> Vec<Fit> {
    let of_source = |source: &Source| {
        let metadata = source.metadata.metadata();
        let same_columns = metadata.file_metadata().schema_descr().root_schema() == columns.root_schema();
        let fit = |group| if same_columns { fit(group, encodings, large_enough) } else { Fit::No };
        metadata.row_groups().iter().map(fit).collect::<Vec<_>>()
    };
    sources.iter().flat_map(of_source).collect()
}

fn fit(group: &RowGroupMetaData, encodings: Encodings, large_enough: u64) -> Fit {
    let is_large = group.compressed_size().unsigned_abs() >= large_enough || group.num_rows() >= ROWS_ENOUGH;
    let is_known = group.columns().iter().all(|c| c.statistics().is_some() && are_allowed(c.encodings(), encodings));
    match (is_known, is_large) {
        (false, _) => Fit::No,
        (true, false) => Fit::Small,
        (true, true) => Fit::Large,
    }
}

/// Which row groups are copied: large ones, and a small one that has nothing beside it to be joined with.
fn copied(fits: &[Fit]) -> Vec<bool> {
    let stands_apart = |index: Option<usize>| {
        let neighbour = index.and_then(|index| fits.get(index));
        neighbour.is_none_or(|fit| *fit == Fit::Large)
    };
    let is_copied = |(index, fit): (usize, &Fit)| match fit {
        Fit::No => false,
        Fit::Small => stands_apart(index.checked_sub(1)) && stands_apart(index.checked_add(1)),
        Fit::Large => true,
    };
    fits.iter().enumerate().map(is_copied).collect()
}

/// Files to be joined, and the columns of them all.
struct Opened {
    schema: SchemaRef,
    sources: Vec<Source>,
}

struct Source {
    file: LiveFile,
    stored: StoredFile,
    metadata: ArrowReaderMetadata,
}

impl Source {
    /// What a footer says of pages is kept as it is, for the footer that it is copied into.
    fn options() -> ArrowReaderOptions {
        ArrowReaderOptions::new().with_encoding_stats_as_mask(false)
    }

    async fn load_page_indexes(&mut self) -> Result<()> {
        let reader = ParquetMetaDataReader::new_with_metadata(self.metadata.metadata().as_ref().clone());
        let mut reader = reader.with_page_index_policy(PageIndexPolicy::Optional);
        reader.load_page_index(&mut self.stored).await?;
        self.metadata = ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), Self::options())?;
        Ok(())
    }

    async fn copy(&mut self, group: usize, into: &mut JoinedFile) -> Result<()> {
        let part = self.stored.row_group(self.metadata.metadata().row_group(group)).await?;
        into.copy(&part, &self.metadata, group).await?;
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Rows of small row groups that follow one another.
    async fn encode(&mut self, groups: Vec<usize>, schema: &SchemaRef, into: &mut JoinedFile) -> Result<()> {
        let batch = groups.iter().map(|group| rows_in_hand(self.metadata.metadata().row_group(*group))).min();
        let rows = ParquetRecordBatchStreamBuilder::new_with_metadata(self.stored.clone(), self.metadata.clone());
        let mut rows = rows.with_row_groups(groups).with_batch_size(batch.unwrap_or(BATCH)).build()?;
        while let Some(batch) = rows.try_next().await? {
            into.encode(&with_columns(&batch, schema)?).await?;
            // Encoding is work of milliseconds, on threads that others wait for.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

fn rows_in_hand(group: &RowGroupMetaData) -> usize {
    let (rows, bytes) = (group.num_rows().max(1) as usize, group.total_byte_size().max(1) as usize);
    (BATCH_BYTES.saturating_mul(rows) / bytes).clamp(1, BATCH)
}

async fn open(store: &Arc<dyn ObjectStore>, files: &[LiveFile]) -> Result<Option<Opened>> {
    let mut schema = Schema::empty();
    let mut sources: Vec<Source> = vec![];
    for file in files {
        let mut stored = StoredFile { store: store.clone(), path: Path::from(file.path.as_str()), size: file.size };
        let metadata = ArrowReaderMetadata::load_async(&mut stored, Source::options()).await?;
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

fn with_columns(batch: &RecordBatch, schema: &SchemaRef) -> std::result::Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), batch.num_rows()),
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect())
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

    #[test]
    fn a_row_group_is_copied_if_it_is_large_or_has_nothing_beside_it_to_be_joined_with() {
        use Fit::{Large, No, Small};
        assert_eq!(copied(&[Large, Large]), [true, true]);
        assert_eq!(copied(&[Small, Small, Large]), [false, false, true]);
        assert_eq!(copied(&[Small, Large, Small, Large, Small]), [true; 5]);
        assert_eq!(copied(&[Small, No, Large, No, Small, Large]), [false, false, true, false, false, true]);
        assert_eq!(copied(&[Large, Small, Small, No]), [true, false, false, false]);
    }
}
