//! The fused stateless node: evaluates expressions directly on the batch. A row on which an expression fails goes to
//! the dead letter; its neighbours go on.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array,
};
use arrow::compute::{filter_record_batch, take, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::plan::{Step, Transform};

/// A row that no expression can take, as a batch of one.
pub struct Failed {
    pub row: RecordBatch,
    pub error: String,
}

impl Transform {
    /// The rows that come out, and those on which a step failed. Without failures, each step sees the batch once.
    pub fn run(&self, batch: &RecordBatch) -> (Vec<RecordBatch>, Vec<Failed>) {
        let (mut done, mut failed) = (vec![], vec![]);
        self.run_or_split(batch, &mut done, &mut failed);
        (done, failed)
    }

    /// Halves a batch that fails until the rows that cause it stand alone.
    fn run_or_split(&self, batch: &RecordBatch, done: &mut Vec<RecordBatch>, failed: &mut Vec<Failed>) {
        match self.evaluate(batch) {
            Ok(out) if out.num_rows() == 0 => {}
            Ok(out) => done.push(out),
            Err(error) if batch.num_rows() <= 1 => {
                failed.push(Failed { row: batch.clone(), error: error.strip_backtrace() })
            }
            Err(_) => {
                let half = batch.num_rows() / 2;
                self.run_or_split(&batch.slice(0, half), done, failed);
                self.run_or_split(&batch.slice(half, batch.num_rows() - half), done, failed);
            }
        }
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let mut batch = batch.clone();
        for step in &self.steps {
            if batch.num_rows() == 0 {
                break;
            }
            batch = match step {
                Step::Filter(predicate) => {
                    let kept = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
                    filter_record_batch(&batch, kept.as_boolean())?
                }
                Step::Project { expressions, schema } => project(&batch, expressions, schema)?,
                Step::Unnest { columns, keep_empty, schema } => unnest(&batch, columns, *keep_empty, schema)?,
            };
        }
        Ok(batch)
    }
}

fn project(
    batch: &RecordBatch,
    expressions: &[Arc<dyn datafusion::physical_expr::PhysicalExpr>],
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let rows = batch.num_rows();
    let columns = expressions.iter().map(|e| e.evaluate(batch)?.into_array(rows)).collect::<Result<Vec<_>, _>>()?;
    Ok(rebuild(schema, columns, rows)?)
}

/// A batch of these columns, by position. Names and metadata are the schema's; nothing is converted.
fn rebuild(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

fn unnest(
    batch: &RecordBatch,
    columns: &[usize],
    keep_empty: bool,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let lists = columns.iter().map(|column| Lists::of(batch.column(*column))).collect::<Result<Vec<_>, _>>()?;
    let mut lengths = vec![usize::from(keep_empty); batch.num_rows()];
    for of_column in &lists {
        for (length, elements) in lengths.iter_mut().zip(&of_column.elements) {
            *length = (*length).max(elements.len());
        }
    }
    let origin = lengths.iter().enumerate().flat_map(|(row, n)| std::iter::repeat_n(row as u32, *n));
    let origin = UInt32Array::from_iter_values(origin);
    let mut unnested = take_record_batch(batch, &origin)?.columns().to_vec();
    for (column, lists) in columns.iter().zip(&lists) {
        unnested[*column] = lists.padded(&lengths)?;
    }
    Ok(rebuild(schema, unnested, origin.len())?)
}

/// The lists of a column.
struct Lists {
    values: ArrayRef,
    /// By row: which of the values are its list's.
    elements: Vec<Range<usize>>,
}

impl Lists {
    fn of(column: &ArrayRef) -> Result<Lists, DataFusionError> {
        match column.data_type() {
            DataType::List(_) => Ok(Lists::by_offsets::<i32>(column)),
            DataType::LargeList(_) => Ok(Lists::by_offsets::<i64>(column)),
            DataType::FixedSizeList(_, length) => {
                let length = *length as usize;
                Ok(Lists::by(column, column.as_fixed_size_list().values(), |row| row * length..(row + 1) * length))
            }
            other => Err(DataFusionError::Execution(format!("a value of type {other} cannot be unnested"))),
        }
    }

    fn by_offsets<O: OffsetSizeTrait>(column: &ArrayRef) -> Lists {
        let lists = column.as_list::<O>();
        let offsets = lists.value_offsets();
        Lists::by(column, lists.values(), |row| offsets[row].as_usize()..offsets[row + 1].as_usize())
    }

    fn by(column: &ArrayRef, values: &ArrayRef, elements: impl Fn(usize) -> Range<usize>) -> Lists {
        let of_row = |row| if column.is_null(row) { 0..0 } else { elements(row) };
        Lists { values: values.clone(), elements: (0..column.len()).map(of_row).collect() }
    }

    /// The elements of all lists, each list followed by NULL up to its length.
    fn padded(&self, lengths: &[usize]) -> Result<ArrayRef, ArrowError> {
        let rows = self.elements.iter().zip(lengths);
        let taken = rows.flat_map(|(elements, length)| {
            let missing = length - elements.len();
            elements.clone().map(|at| Some(at as u64)).chain(std::iter::repeat_n(None, missing))
        });
        take(&self.values, &taken.collect::<UInt64Array>(), None)
    }
}

/// Splits a batch by a mask: the rows where it is true, and the others.
pub fn partition(batch: &RecordBatch, keep: &BooleanArray) -> Result<(RecordBatch, RecordBatch), ArrowError> {
    let others = arrow::compute::not(keep)?;
    Ok((filter_record_batch(batch, keep)?, filter_record_batch(batch, &others)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    fn numbers(values: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)]).unwrap()
    }

    #[test]
    fn a_row_that_fails_stands_alone_and_its_neighbours_go_on() {
        let schema = numbers(&[]).schema();
        let hundredth = binary(lit(100i64), Operator::Divide, col("x", &schema).unwrap(), &schema).unwrap();
        let transform = Transform { steps: vec![Step::Project { expressions: vec![hundredth], schema }] };
        let (done, failed) = transform.run(&numbers(&[1, 2, 0, 5, 10, 0]));
        let values: Vec<i64> =
            done.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(values, [100, 50, 20, 10]);
        assert_eq!(failed.len(), 2);
        assert!(failed[0].error.contains("Divide by zero"), "{}", failed[0].error);
    }

    #[test]
    fn unnest_makes_one_row_per_element() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), Some(2)]),
            Some(vec![]),
            None,
            Some(vec![Some(3)]),
        ]);
        let batch = RecordBatch::try_from_iter([
            ("k", Arc::new(Int64Array::from(vec![10, 20, 30, 40])) as ArrayRef),
            ("v", Arc::new(lists) as ArrayRef),
        ])
        .unwrap();
        let schema =
            Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]));
        let run = |keep_empty| {
            let steps = vec![Step::Unnest { columns: vec![1], keep_empty, schema: schema.clone() }];
            Transform { steps }.run(&batch).0.remove(0)
        };
        assert_eq!(run(false).column(0).as_primitive::<Int64Type>().values(), &[10, 10, 40]);
        assert_eq!(run(true).num_rows(), 5);
    }

    #[test]
    fn lists_are_unnested_side_by_side_and_the_shorter_one_is_followed_by_null() {
        let lists = |of: Vec<Option<Vec<Option<i64>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(of))
        };
        let batch = RecordBatch::try_from_iter([
            ("a", lists(vec![Some(vec![Some(1), Some(2), None]), None, Some(vec![]), Some(vec![])])),
            ("k", Arc::new(Int64Array::from(vec![10, 20, 30, 40])) as ArrayRef),
            ("b", lists(vec![Some(vec![Some(7)]), Some(vec![Some(8)]), None, Some(vec![])])),
        ])
        .unwrap();
        let schema =
            Arc::new(Schema::new(["a", "k", "b"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
        let run = |keep_empty| {
            let steps = vec![Step::Unnest { columns: vec![0, 2], keep_empty, schema: schema.clone() }];
            let made = Transform { steps }.run(&batch).0.remove(0);
            let column = |at| made.column(at).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
            (column(0), column(1), column(2))
        };
        let (a, k, b) = run(false);
        assert_eq!(a, [Some(1), Some(2), None, None]);
        assert_eq!(k, [Some(10), Some(10), Some(10), Some(20)]);
        assert_eq!(b, [Some(7), None, None, Some(8)]);
        let (a, k, b) = run(true);
        assert_eq!((a[4..].to_vec(), b[4..].to_vec()), (vec![None, None], vec![None, None]));
        assert_eq!(k[4..], [Some(30), Some(40)]);
    }
}
