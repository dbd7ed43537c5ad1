//! The rows of one data file, a few thousand at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake::DeltaTable;
use futures::TryStreamExt;
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;

use crate::declared::Declared;
use crate::deletion_vector::Deleted;
use crate::stored_file::StoredFile;
use crate::table_file::TableFile;

/// Rows that are in hand at once.
const BATCH: usize = 8192;

/// Reads a file of a table.
pub struct FileRows<'a> {
    file: &'a TableFile,
    declared: &'a Declared,
    batches: ParquetRecordBatchStream<StoredFile>,
    deleted: Arc<Deleted>,
    /// The place of the next row in the file.
    next: u64,
}

/// Rows that lie one behind the other in their file.
pub struct Stretch {
    first: u64,
    rows: RecordBatch,
    deleted: Arc<Deleted>,
}

/// Why rows were not read.
#[derive(Debug)]
pub enum Unread {
    /// The store did not give them, or what it gave is no file of the table.
    Away(String),
    /// A value does not fit the column that is declared for it.
    Unfit(String),
}

impl<'a> FileRows<'a> {
    pub async fn open(table: &DeltaTable, file: &'a TableFile, declared: &'a Declared) -> Result<FileRows<'a>, Unread> {
        let away = |e: ParquetError| Unread::Away(e.to_string());
        let deleted = Deleted::of(table, file).await.map_err(Unread::Away)?;
        let store = table.log_store().object_store(None);
        let stored = StoredFile { store, path: file.path.clone(), size: file.size };
        let builder = ParquetRecordBatchStreamBuilder::new(stored).await.map_err(away)?;
        let is_wanted = |name: &str| declared.own().iter().any(|own| own.eq_ignore_ascii_case(name));
        let there = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
        let roots: Vec<usize> = there.filter(|(_, field)| is_wanted(field.name())).map(|(at, _)| at).collect();
        let wanted = ProjectionMask::roots(builder.parquet_schema(), roots);
        let batches = builder.with_projection(wanted).with_batch_size(BATCH).build().map_err(away)?;
        Ok(FileRows { file, declared, batches, deleted: Arc::new(deleted), next: 0 })
    }

    pub async fn next(&mut self) -> Result<Option<Stretch>, Unread> {
        let batch = self.batches.try_next().await.map_err(|e| Unread::Away(e.to_string()))?;
        let Some(batch) = batch else { return Ok(None) };
        let rows = self.declared.rows(&batch, &self.file.partition_values).map_err(Unread::Unfit)?;
        let first = self.next;
        self.next += rows.num_rows() as u64;
        Ok(Some(Stretch { first, rows, deleted: self.deleted.clone() }))
    }
}

impl Stretch {
    /// Where its rows lie in the file.
    pub fn places(&self) -> Range<u64> {
        self.first..self.first + self.rows.num_rows() as u64
    }

    /// Those of its rows at these places that readers see.
    pub fn seen(&self, places: Range<u64>) -> Result<RecordBatch, Unread> {
        let rows = self.rows.slice((places.start - self.first) as usize, (places.end - places.start) as usize);
        self.deleted.without(places.start, rows).map_err(|e| Unread::Unfit(e.to_string()))
    }
}
