//! The fused stateless node: evaluates expressions directly on the batch. A row on which an expression fails goes to
//! the dead letter; its neighbours go on.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat, filter_record_batch, take_record_batch};
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
                Step::Unnest { column, keep_empty, schema } => unnest(&batch, *column, *keep_empty, schema)?,
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
    column: usize,
    keep_empty: bool,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let lists = batch.column(column);
    let element = |row: usize| -> Result<Option<ArrayRef>, DataFusionError> {
        if lists.is_null(row) {
            return Ok(None);
        }
        match lists.data_type() {
            DataType::List(_) => Ok(Some(lists.as_list::<i32>().value(row))),
            DataType::LargeList(_) => Ok(Some(lists.as_list::<i64>().value(row))),
            DataType::FixedSizeList(_, _) => Ok(Some(lists.as_fixed_size_list().value(row))),
            other => Err(DataFusionError::Execution(format!("a value of type {other} cannot be unnested"))),
        }
    };
    let item = schema.field(column).data_type().clone();
    let null = arrow::array::new_null_array(&item, 1);
    let (mut origin, mut values) = (vec![], vec![]);
    for row in 0..batch.num_rows() {
        match element(row)?.filter(|v| !v.is_empty()) {
            Some(elements) => {
                origin.extend(std::iter::repeat_n(row as u32, elements.len()));
                values.push(elements);
            }
            None if keep_empty => {
                origin.push(row as u32);
                values.push(null.clone());
            }
            None => {}
        }
    }
    let rows = origin.len();
    if rows == 0 {
        return Ok(RecordBatch::new_empty(schema.clone()));
    }
    let repeated = take_record_batch(batch, &UInt32Array::from(origin))?;
    let mut columns = repeated.columns().to_vec();
    columns[column] = concat(&values.iter().map(|v| v.as_ref()).collect::<Vec<_>>())?;
    Ok(rebuild(schema, columns, rows)?)
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
            let steps = vec![Step::Unnest { column: 1, keep_empty, schema: schema.clone() }];
            Transform { steps }.run(&batch).0.remove(0)
        };
        assert_eq!(run(false).column(0).as_primitive::<Int64Type>().values(), &[10, 10, 40]);
        assert_eq!(run(true).num_rows(), 5);
    }
}
