//! The keys by which rows meet, as bytes that differ where the values differ.

use arrow::array::{Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// The keys of the rows of a batch. Keys of two batches can be compared if their columns have the same types.
pub struct KeyRows {
    /// `None`: the key has no columns.
    rows: Option<Rows>,
    /// Where a column of the key is NULL.
    nulls: Option<NullBuffer>,
    len: usize,
}

impl KeyRows {
    pub fn of(batch: &RecordBatch, columns: &[usize]) -> Result<KeyRows, ArrowError> {
        let len = batch.num_rows();
        if columns.is_empty() {
            return Ok(KeyRows { rows: None, nulls: None, len });
        }
        let arrays: Vec<_> = columns.iter().map(|column| batch.column(*column).clone()).collect();
        let nulls =
            arrays.iter().fold(None, |nulls, array| NullBuffer::union(nulls.as_ref(), array.logical_nulls().as_ref()));
        let types = arrays.iter().map(|array| array.data_type().clone());
        Ok(KeyRows { rows: Some(converter(types)?.convert_columns(&arrays)?), nulls, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key of a row; `None` if a part of it is NULL, which equals nothing.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        match &self.rows {
            _ if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) => None,
            None => Some(&[]),
            Some(rows) => Some(rows.row(row).data()),
        }
    }
}

/// Keys, back as the columns that they were made of.
pub fn columns_of<'a>(keys: impl Iterator<Item = &'a [u8]>, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let converter = converter(schema.fields().iter().map(|field| field.data_type().clone()))?;
    let parser = converter.parser();
    let columns = converter.convert_rows(keys.map(|key| parser.parse(key)))?;
    RecordBatch::try_new(schema.clone(), columns)
}

fn converter(types: impl Iterator<Item = DataType>) -> Result<RowConverter, ArrowError> {
    RowConverter::new(types.map(SortField::new).collect())
}
