//! Rows and what they met, joined a bounded number at a time: a row may meet a whole table.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;

use crate::plan::{LookupJoin, Step, Transform};
use crate::transform::Failed;

/// Pairs that are looked at together, and rows of a joined batch, roughly.
const AT_ONCE: usize = 16 * 1024;

/// Ends a chain of rows with equal keys.
pub const END: u32 = u32::MAX;

/// What the rows of a batch met, before the join's own condition.
pub struct Met {
    /// Rows of the table outside; the first batch is one row of NULLs.
    sides: Vec<RecordBatch>,
    /// By row of the batch: the first of the rows that it met.
    first: Vec<Option<Place>>,
    /// By row of the table: the next one of the same key. Without it, all rows of a side are met.
    next: Option<Arc<[u32]>>,
    /// Rows of the batch whose lookup cannot be, and why.
    refused: Vec<(usize, Arc<str>)>,
}

/// A row of a side.
#[derive(Debug, Clone, Copy)]
struct Place {
    side: u32,
    at: u32,
}

/// A row of the batch, and the row that it met.
#[derive(Debug, Clone, Copy)]
struct Pair {
    row: u32,
    place: Place,
}

const NOTHING: Place = Place { side: 0, at: 0 };

/// What became of a batch, beside the rows that went on.
#[derive(Default)]
pub struct Joined {
    /// Rows whose lookup cannot be.
    pub refused: Vec<Failed>,
    /// Rows on which the join's condition failed.
    pub failed: Vec<Failed>,
    /// How many rows met nothing.
    pub unmatched: usize,
}

impl Met {
    /// Nothing, by so many rows; what could be met has this schema.
    pub fn nothing(schema: &SchemaRef, rows: usize) -> Result<Met, ArrowError> {
        let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let columns = fields.iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let nulls = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        Ok(Met { sides: vec![nulls], first: vec![None; rows], next: None, refused: vec![] })
    }

    /// Rows of a table of which each leads to the next one of its key.
    pub fn chained(mut self, rows: RecordBatch, next: Arc<[u32]>) -> Met {
        self.sides.push(rows);
        self.next = Some(next);
        self
    }

    /// Adds rows that are met together; says under which number.
    pub fn add_side(&mut self, rows: RecordBatch) -> usize {
        self.sides.push(rows);
        self.sides.len() - 1
    }

    /// A row of the batch meets this row of a side, and those that follow it.
    pub fn meets(&mut self, row: usize, side: usize, at: u32) {
        self.first[row] = Some(Place { side: side as u32, at });
    }

    pub fn refuse(&mut self, row: usize, why: Arc<str>) {
        self.refused.push((row, why));
    }

    fn after(&self, place: Place) -> Option<Place> {
        let at = match &self.next {
            Some(next) => next[place.at as usize],
            None => place.at + 1,
        };
        let there = at != END && (at as usize) < self.sides[place.side as usize].num_rows();
        there.then_some(Place { at, ..place })
    }

    fn of(&self, row: usize) -> impl Iterator<Item = Place> {
        std::iter::successors(self.first[row], |place| self.after(*place))
    }
}

/// A batch that is being joined.
struct Joining<'a> {
    join: &'a LookupJoin,
    batch: &'a RecordBatch,
    met: &'a Met,
    /// Of the rows that leave.
    schema: &'a SchemaRef,
    /// Rows of which nothing goes on.
    gone: BTreeSet<u32>,
    /// The last row that had a pair of which the condition is true.
    matched: Option<u32>,
    joined: Joined,
}

impl LookupJoin {
    /// Joins a batch with what its rows met, and hands the rows on in their order, so many at a time. `schema`: of the rows
    /// that leave.
    pub fn run<E: From<ArrowError>>(
        &self,
        batch: &RecordBatch,
        met: &Met,
        schema: &SchemaRef,
        mut hand_on: impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<Joined, E> {
        let (gone, joined) = (BTreeSet::new(), Joined::default());
        let mut joining = Joining { join: self, batch, met, schema, gone, matched: None, joined };
        joining.leave_out_refused();
        let mut pairs = vec![];
        let mut from = 0;
        for row in 0..batch.num_rows() {
            for place in met.of(row) {
                pairs.push(Pair { row: row as u32, place });
                if pairs.len() >= AT_ONCE && pairs[0].row == row as u32 {
                    // One row that meets more than all others together: it is not complete yet.
                    joining.settle(&pairs, from..row, &mut hand_on)?;
                    pairs.clear();
                    from = row;
                }
            }
            if pairs.len() >= AT_ONCE {
                joining.settle(&pairs, from..row + 1, &mut hand_on)?;
                pairs.clear();
                from = row + 1;
            }
        }
        joining.settle(&pairs, from..batch.num_rows(), &mut hand_on)?;
        Ok(joining.joined)
    }
}

impl Joining<'_> {
    fn leave_out_refused(&mut self) {
        for (row, why) in &self.met.refused {
            self.gone.insert(*row as u32);
            self.joined.refused.push(Failed { row: self.batch.slice(*row, 1), error: why.to_string() });
        }
    }

    /// Hands on what becomes of pairs, and of the rows that are complete with them.
    fn settle<E: From<ArrowError>>(
        &mut self,
        pairs: &[Pair],
        complete: std::ops::Range<usize>,
        hand_on: &mut impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut kept = self.filtered(pairs)?.into_iter().peekable();
        let mut leaving = vec![];
        let last = pairs.last().map_or(complete.end, |pair| complete.end.max(pair.row as usize + 1));
        for row in complete.start as u32..last as u32 {
            while let Some(pair) = kept.next_if(|pair| pair.row == row) {
                if !self.gone.contains(&row) {
                    self.matched = Some(row);
                    leaving.push(pair);
                }
            }
            if complete.contains(&(row as usize)) && self.matched != Some(row) && !self.gone.contains(&row) {
                self.joined.unmatched += 1;
                if self.join.outer {
                    leaving.push(Pair { row, place: NOTHING });
                }
            }
        }
        for leaving in leaving.chunks(AT_ONCE * 2) {
            hand_on(self.rows_of(leaving)?)?;
        }
        Ok(())
    }

    /// The pairs of which the condition is true. A row with a pair on which it fails is gone with all that it met.
    fn filtered(&mut self, pairs: &[Pair]) -> Result<Vec<Pair>, ArrowError> {
        let Some(filter) = &self.join.filter else { return Ok(pairs.to_vec()) };
        if pairs.is_empty() {
            return Ok(vec![]);
        }
        let filter = Transform { steps: vec![Step::Filter(filter.clone())] };
        let mut columns = self.rows_of(pairs)?.columns().to_vec();
        columns.push(Arc::new(UInt32Array::from_iter_values(0..pairs.len() as u32)));
        let (kept, failed) = filter.run(&RecordBatch::try_new(numbered(self.schema), columns)?);
        for failure in failed {
            for pair in numbers(&failure.row).into_iter().map(|number| pairs[number as usize]) {
                if self.gone.insert(pair.row) {
                    let row = self.batch.slice(pair.row as usize, 1);
                    self.joined.failed.push(Failed { row, error: failure.error.clone() });
                }
            }
        }
        Ok(kept.iter().flat_map(numbers).map(|number| pairs[number as usize]).collect())
    }

    fn rows_of(&self, pairs: &[Pair]) -> Result<RecordBatch, ArrowError> {
        let Joining { batch, met, .. } = self;
        let each_once = pairs.len() == batch.num_rows() && (0..).zip(pairs).all(|(row, pair)| pair.row == row);
        let mut columns: Vec<ArrayRef> = if each_once {
            batch.columns().to_vec()
        } else {
            let rows = UInt32Array::from_iter_values(pairs.iter().map(|pair| pair.row));
            batch.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?
        };
        let place = |pair: &Pair| (pair.place.side as usize, pair.place.at as usize);
        let places: Vec<(usize, usize)> = pairs.iter().map(place).collect();
        for column in 0..met.sides[0].num_columns() {
            let of_sides: Vec<&dyn Array> = met.sides.iter().map(|side| side.column(column).as_ref()).collect();
            columns.push(interleave(&of_sides, &places)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(pairs.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
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

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::Int64Type;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;

    fn numbers_of(name: &str, numbers: impl IntoIterator<Item = i64>) -> RecordBatch {
        RecordBatch::try_from_iter([(name, Arc::new(Int64Array::from_iter_values(numbers)) as ArrayRef)]).unwrap()
    }

    /// Rows 0, 1 and 2; the middle one meets each of these numbers, the others nothing.
    fn run(filter: bool, outer: bool, numbers: std::ops::Range<i64>) -> (Vec<(i64, Option<i64>)>, Joined) {
        let (batch, side) = (numbers_of("x", 0..3), numbers_of("y", numbers));
        let fields = [batch.schema().field(0).clone(), side.schema().field(0).clone().with_nullable(true)];
        let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
        let mut met = Met::nothing(&side.schema(), 3).unwrap();
        let side = met.add_side(side);
        met.meets(1, side, 0);
        let y = || col("y", &schema).unwrap();
        let quotient = binary(lit(7_i64), Operator::Divide, y(), &schema).unwrap();
        let filter = filter.then(|| binary(quotient, Operator::LtEq, lit(0_i64), &schema).unwrap());
        let join = LookupJoin { table: 0, keys: vec![0], filter, outer };
        let mut rows = vec![];
        let hand_on = |batch: RecordBatch| -> Result<(), ArrowError> {
            assert!(batch.num_rows() <= AT_ONCE * 2);
            let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
            rows.extend(column(0).into_iter().flatten().zip(column(1)));
            Ok(())
        };
        let joined = join.run(&batch, &met, &schema, hand_on).unwrap();
        (rows, joined)
    }

    #[test]
    fn a_row_that_meets_more_than_is_looked_at_together_has_all_of_it_in_order() {
        let many = 3 * AT_ONCE as i64 + 5;
        let (rows, joined) = run(false, true, 0..many);
        assert_eq!((rows.len() as i64, joined.unmatched), (many + 2, 2));
        assert_eq!((rows[0], rows[1], rows[rows.len() - 1]), ((0, None), (1, Some(0)), (2, None)));
        assert!(rows[1..rows.len() - 1].windows(2).all(|pair| pair[0].1 < pair[1].1));
    }

    #[test]
    fn a_row_of_which_no_pair_fits_met_nothing_however_many_there_were() {
        // 7 / y is 0 from 8 on.
        let many = 2 * AT_ONCE as i64;
        let (rows, joined) = run(true, true, 1..8);
        assert_eq!((rows, joined.unmatched), (vec![(0, None), (1, None), (2, None)], 3));
        let (rows, joined) = run(true, true, 1..many);
        assert_eq!((rows.len() as i64, joined.unmatched), (many - 8 + 2, 2));
        let (rows, _) = run(true, false, 1..many);
        assert_eq!(rows.len() as i64, many - 8);
    }

    #[test]
    fn a_pair_on_which_the_condition_fails_takes_its_row_alone() {
        let (rows, joined) = run(true, true, 0..20);
        assert_eq!(rows, [(0, None), (2, None)]);
        assert_eq!((joined.failed.len(), joined.unmatched), (1, 2));
        assert!(joined.failed[0].error.contains("Divide by zero"), "{}", joined.failed[0].error);
    }
}
