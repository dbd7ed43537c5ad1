//! Rows and what they met, joined.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;

use crate::plan::{LookupJoin, Step, Transform};
use crate::transform::Failed;

/// Rows of a joined batch, at most: a row may meet many.
const AT_ONCE: usize = 16 * 1024;

/// What the rows of a batch met, before the join's own condition.
pub struct Met {
    /// Rows of the table outside; the first batch is one row of NULLs.
    sides: Vec<RecordBatch>,
    /// In the order of the batch's rows.
    pairs: Vec<Pair>,
    /// Rows of the batch whose lookup cannot be, and why.
    refused: Vec<(u32, Arc<str>)>,
}

/// A row of the batch, and the row that it met.
#[derive(Debug, Clone, Copy)]
struct Pair {
    row: u32,
    side: u32,
    at: u32,
}

/// What became of a batch.
#[derive(Default)]
pub struct Joined {
    pub rows: Vec<RecordBatch>,
    /// Rows whose lookup cannot be.
    pub refused: Vec<Failed>,
    /// Rows on which the join's condition failed.
    pub failed: Vec<Failed>,
    /// How many rows met nothing.
    pub unmatched: usize,
}

impl Met {
    /// Nothing yet, with rows of this schema.
    pub fn new(schema: &SchemaRef) -> Met {
        let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let columns = fields.iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
        Met { sides: nothing.into_iter().collect(), pairs: vec![], refused: vec![] }
    }

    /// Adds rows that can be met; says under which number.
    pub fn add_side(&mut self, rows: RecordBatch) -> usize {
        self.sides.push(rows);
        self.sides.len() - 1
    }

    /// A row of the batch meets a row of a side. Rows come in order.
    pub fn add(&mut self, row: usize, side: usize, at: usize) {
        self.pairs.push(Pair { row: row as u32, side: side as u32, at: at as u32 });
    }

    pub fn refuse(&mut self, row: usize, why: Arc<str>) {
        self.refused.push((row as u32, why));
    }
}

impl LookupJoin {
    /// Joins a batch with what its rows met. `schema`: of the rows that leave.
    pub fn run(&self, batch: &RecordBatch, met: &Met, schema: &SchemaRef) -> Result<Joined, ArrowError> {
        let mut joined = Joined::default();
        let mut gone: BTreeSet<u32> = BTreeSet::new();
        for (row, why) in &met.refused {
            gone.insert(*row);
            joined.refused.push(Failed { row: batch.slice(*row as usize, 1), error: why.to_string() });
        }
        let kept = self.filtered(batch, met, schema, &mut gone, &mut joined)?;
        let mut kept = kept.into_iter().filter(|pair| !gone.contains(&pair.row)).peekable();
        let mut pairs = vec![];
        for row in 0..batch.num_rows() as u32 {
            let before = pairs.len();
            while let Some(pair) = kept.next_if(|pair| pair.row == row) {
                pairs.push(pair);
            }
            if pairs.len() == before && !gone.contains(&row) {
                joined.unmatched += 1;
                if self.outer {
                    pairs.push(Pair { row, side: 0, at: 0 });
                }
            }
        }
        for pairs in pairs.chunks(AT_ONCE) {
            joined.rows.push(rows_of(batch, &met.sides, pairs, schema)?);
        }
        Ok(joined)
    }

    /// The pairs of which the condition is true. A row with a pair on which it fails is gone whole.
    fn filtered(
        &self,
        batch: &RecordBatch,
        met: &Met,
        schema: &SchemaRef,
        gone: &mut BTreeSet<u32>,
        joined: &mut Joined,
    ) -> Result<Vec<Pair>, ArrowError> {
        let Some(filter) = &self.filter else { return Ok(met.pairs.clone()) };
        let filter = Transform { steps: vec![Step::Filter(filter.clone())] };
        let numbered = numbered(schema);
        let mut kept = vec![];
        for pairs in met.pairs.chunks(AT_ONCE) {
            let mut columns = rows_of(batch, &met.sides, pairs, schema)?.columns().to_vec();
            columns.push(Arc::new(UInt32Array::from_iter_values(0..pairs.len() as u32)));
            let (true_of, failed) = filter.run(&RecordBatch::try_new(numbered.clone(), columns)?);
            for failure in failed {
                for pair in numbers(&failure.row).into_iter().map(|number| pairs[number as usize]) {
                    if gone.insert(pair.row) {
                        let row = batch.slice(pair.row as usize, 1);
                        joined.failed.push(Failed { row, error: failure.error.clone() });
                    }
                }
            }
            kept.extend(true_of.iter().flat_map(numbers).map(|number| pairs[number as usize]));
        }
        Ok(kept)
    }
}

/// The schema of joined rows that are numbered, so that they are known again behind a filter.
fn numbered(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__pair", DataType::UInt32, false)));
    Arc::new(Schema::new(fields))
}

fn numbers(batch: &RecordBatch) -> Vec<u32> {
    batch.columns().last().map_or(vec![], |numbers| numbers.as_primitive::<UInt32Type>().values().to_vec())
}

fn rows_of(
    batch: &RecordBatch,
    sides: &[RecordBatch],
    pairs: &[Pair],
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let each_once = pairs.len() == batch.num_rows() && pairs.iter().enumerate().all(|(i, pair)| pair.row == i as u32);
    let mut columns: Vec<ArrayRef> = if each_once {
        batch.columns().to_vec()
    } else {
        let rows = UInt32Array::from_iter_values(pairs.iter().map(|pair| pair.row));
        batch.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?
    };
    let places: Vec<(usize, usize)> = pairs.iter().map(|pair| (pair.side as usize, pair.at as usize)).collect();
    for column in 0..sides.first().map_or(0, RecordBatch::num_columns) {
        let of_sides: Vec<&dyn Array> = sides.iter().map(|side| side.column(column).as_ref()).collect();
        columns.push(interleave(&of_sides, &places)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(pairs.len()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
