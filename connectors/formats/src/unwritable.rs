//! Rows that JSON has no words for: it knows neither NaN nor the infinities.

use std::collections::BTreeMap;
use std::fmt::Display;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

/// Of each row with such a number in it, also within a STRUCT, an array or a map: why it cannot be JSON.
pub fn unwritable(batch: &RecordBatch) -> BTreeMap<usize, String> {
    let mut reasons = BTreeMap::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        for (row, found) in not_finite(column, field.name()) {
            reasons.entry(row).or_insert_with(|| format!("column {found}, for which JSON has no word"));
        }
    }
    reasons
}

/// What of a column is no number to JSON: in which row, where within it, and what it is.
fn not_finite(column: &dyn Array, path: &str) -> Vec<(usize, String)> {
    let mut found = match column.data_type() {
        DataType::Float32 => among(column.as_primitive::<Float32Type>().values(), |n| n.is_finite(), path),
        DataType::Float64 => among(column.as_primitive::<Float64Type>().values(), |n| n.is_finite(), path),
        DataType::Struct(fields) => {
            let parts = fields.iter().zip(column.as_struct().columns());
            parts.flat_map(|(field, part)| not_finite(part, &format!("{path}.{}", field.name()))).collect()
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            of_rows(list.value_offsets(), not_finite(list.values(), &format!("{path}[]")))
        }
        DataType::Map(..) => {
            let map = column.as_map();
            of_rows(map.value_offsets(), not_finite(map.values(), &format!("{path}[]")))
        }
        _ => vec![],
    };
    found.retain(|(row, _)| column.is_valid(*row));
    found
}

fn among<N: Copy + Display>(numbers: &[N], is_finite: impl Fn(&N) -> bool, path: &str) -> Vec<(usize, String)> {
    // Without a branch: there are hardly ever any.
    if numbers.iter().fold(true, |all, number| all & is_finite(number)) {
        return vec![];
    }
    let found = numbers.iter().enumerate().filter(|(_, number)| !is_finite(number));
    found.map(|(row, number)| (row, format!("{path} is {number}"))).collect()
}

/// What was found among the items of lists, by the rows that have the lists.
fn of_rows(offsets: &[i32], found: Vec<(usize, String)>) -> Vec<(usize, String)> {
    let row = |item: usize| offsets.partition_point(|offset| *offset as usize <= item).checked_sub(1);
    let rows = found.into_iter().filter_map(|(item, found)| Some((row(item)?, found)));
    // A slice of a column has all items.
    rows.filter(|(row, _)| row + 1 < offsets.len()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float32Array, Float64Array, ListArray, StructArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{Field, Fields};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn a_row_with_a_number_that_json_does_not_know_is_found_with_the_column_s_name() {
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN), Some(0.0)]));
        let singles: ArrayRef =
            Arc::new(Float32Array::from(vec![f32::NEG_INFINITY, f32::MAX, f32::INFINITY, f32::MIN]));
        let found = unwritable(&batch(vec![("a", doubles), ("b", singles)]));
        let said: Vec<_> = found.iter().map(|(row, reason)| (*row, reason.as_str())).collect();
        let no_word =
            [(0, "column b is -inf, for which JSON has no word"), (2, "column a is NaN, for which JSON has no word")];
        assert_eq!(said, no_word);
    }

    #[test]
    fn it_is_found_within_structs_and_arrays_unless_it_is_hidden_by_null() {
        let inner: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::NAN, 1.0]));
        let fields = Fields::from(vec![Field::new("x", DataType::Float64, true)]);
        let nulls = NullBuffer::from(vec![true, false, true]);
        let structs: ArrayRef = Arc::new(StructArray::new(fields, vec![inner], Some(nulls)));
        let items = vec![Some(vec![]), Some(vec![Some(1.0), None]), Some(vec![Some(2.0), Some(f64::INFINITY)])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(items));
        let all = batch(vec![("s", structs), ("l", lists)]);
        let found = unwritable(&all);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert!(found[&0].starts_with("column s.x is NaN") && found[&2].starts_with("column l[] is inf"), "{found:?}");
        assert_eq!(unwritable(&all.slice(1, 1)), BTreeMap::new(), "the neighbours of a slice are not its own");
        assert_eq!(unwritable(&all.slice(2, 1)).keys().copied().collect::<Vec<_>>(), [0]);
    }
}
