//! Rows of a file that are deleted though the file still holds them.

use std::ops::Range;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use deltalake::DeltaTable;

use crate::table_file::TableFile;

/// Places of rows in a file, from zero on, in order.
#[derive(Debug, Default, PartialEq)]
pub struct Deleted(Vec<u64>);

impl Deleted {
    /// Reads what the table's log says of the file.
    pub async fn of(table: &DeltaTable, file: &TableFile) -> Result<Deleted, String> {
        let Some(vector) = file.deletion_vector.clone() else { return Ok(Deleted::default()) };
        let failed = |e: delta_kernel::Error| format!("its deletion vector cannot be read: {e}");
        let vector = DeletionVectorDescriptor::try_from(vector).map_err(failed)?;
        let log = table.log_store();
        let (engine, root) = (log.engine(None), log.root_url().clone());
        // It waits for the store.
        let read = tokio::task::spawn_blocking(move || vector.row_indexes(engine.storage_handler(), &root));
        Ok(Deleted(read.await.map_err(|e| e.to_string())?.map_err(failed)?))
    }

    /// Rows that lie one behind the other in the file, the first one at `first`, but those that are deleted.
    pub fn without(&self, first: u64, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let deleted = self.among(first..first + rows.num_rows() as u64);
        if deleted.is_empty() {
            return Ok(rows);
        }
        let mut kept = vec![true; rows.num_rows()];
        deleted.iter().for_each(|place| kept[(place - first) as usize] = false);
        filter_record_batch(&rows, &BooleanArray::from(kept))
    }

    fn among(&self, places: Range<u64>) -> &[u64] {
        let from = self.0.partition_point(|place| *place < places.start);
        let to = self.0.partition_point(|place| *place < places.end);
        &self.0[from..to]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn what_is_deleted_is_told_by_its_place_in_the_file() {
        let rows = |places: Range<i64>| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(places));
            RecordBatch::try_from_iter([("n", numbers)]).unwrap()
        };
        let kept = |deleted: &Deleted, places: Range<i64>| {
            let kept = deleted.without(places.start as u64, rows(places)).unwrap();
            kept.column(0).as_primitive::<Int64Type>().values().to_vec()
        };
        let deleted = Deleted(vec![0, 5, 6, 9]);
        assert_eq!(kept(&deleted, 0..10), [1, 2, 3, 4, 7, 8]);
        assert_eq!(kept(&deleted, 6..9), [7, 8]);
        assert_eq!(kept(&deleted, 5..7), [0; 0]);
        assert_eq!(kept(&deleted, 10..12), [10, 11]);
        assert_eq!(kept(&Deleted::default(), 0..2), [0, 1]);
    }
}
