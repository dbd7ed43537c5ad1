//! Columns of a file whose types are its own, as the columns that the table declares. Only what loses nothing is done.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray,
    new_null_array,
};
use arrow::compute::cast;
use arrow::compute::kernels::boolean;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

/// Which of the file's columns are needed for the declared ones, by index.
pub fn project(file: &Schema, wanted: &SchemaRef) -> Result<Vec<usize>, String> {
    let mut problems = vec![];
    let mut needed = vec![];
    for field in wanted.fields() {
        match file.index_of(field.name()) {
            Ok(index) => {
                if let Err(why) = fits(file.field(index), field) {
                    problems.push(why);
                }
                needed.push(index);
            }
            // A column that came later: older files do without.
            Err(_) if field.is_nullable() => {}
            Err(_) => problems.push(format!("{} is NOT NULL and the file has no such column", field.name())),
        }
    }
    needed.sort_unstable();
    needed.dedup();
    if problems.is_empty() { Ok(needed) } else { Err(problems.join("; ")) }
}

/// The declared columns, and rows that they cannot take: their value is NULL where none may be or does not fit.
pub fn adapt(batch: &RecordBatch, wanted: &SchemaRef) -> Result<(RecordBatch, Vec<Unfit>), ArrowError> {
    let (mut columns, mut unfit) = (vec![], vec![]);
    for field in wanted.fields() {
        let Some(found) = batch.column_by_name(field.name()) else {
            columns.push(new_null_array(field.data_type(), batch.num_rows()));
            continue;
        };
        let column = convert(found, field)?;
        // A value that does not fit became NULL.
        if column.null_count() > found.logical_null_count() {
            let lost = boolean::and(&boolean::is_null(&column)?, &boolean::is_not_null(found)?)?;
            unfit.push(Unfit {
                rows: lost,
                code: "out-of-range",
                error: format!("{} does not fit its type", field.name()),
            });
        }
        if !field.is_nullable() && found.logical_null_count() > 0 {
            let rows = boolean::is_null(found)?;
            unfit.push(Unfit { rows, code: "missing", error: format!("{} is null and NOT NULL", field.name()) });
        }
        columns.push(column);
    }
    let lax: Vec<Field> = wanted.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(lax)), columns, &options)?;
    Ok((batch, unfit))
}

/// Rows that cannot be taken, and why.
pub struct Unfit {
    pub rows: BooleanArray,
    pub code: &'static str,
    pub error: String,
}

/// Whether a file's column can be had as the declared one, or why not.
fn fits(found: &Field, wanted: &Field) -> Result<(), String> {
    use DataType::*;
    let refuse =
        || Err(format!("{} is {} in the file, and declared {}", wanted.name(), found.data_type(), wanted.data_type()));
    let good = match (plain(found.data_type()), wanted.data_type()) {
        (Struct(parts), Struct(wanted_parts)) => {
            for part in wanted_parts {
                match parts.iter().find(|p| p.name() == part.name()) {
                    Some(found) => fits(found, part)?,
                    None if part.is_nullable() => {}
                    None => return Err(format!("{} in {} is NOT NULL and missing", part.name(), wanted.name())),
                }
            }
            true
        }
        (List(item) | LargeList(item), List(wanted)) => return fits(&item, wanted),
        (Map(entries, _), Map(wanted, _)) => return fits(&entries, wanted),
        (found, wanted) if found == *wanted => true,
        // A column without a value, in formats that have a type for that.
        (Null, _) => wanted.is_nullable(),
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary) => true,
        (Int8 | UInt8, Int16 | Int32 | Int64) => true,
        (UInt8, UInt16 | UInt32 | UInt64) => true,
        (Int16 | UInt16, Int32 | Int64) | (UInt16, UInt32 | UInt64) => true,
        (Int32 | UInt32, Int64) | (UInt32, UInt64) => true,
        (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Float16 | Float32, Float64) => true,
        (Int8 | Int16 | UInt8 | UInt16 | Float16, Float32) => true,
        // What the file says without a zone is taken as UTC, as everywhere here.
        (Timestamp(..), Timestamp(TimeUnit::Nanosecond, Some(_))) => true,
        (Timestamp(_, None), Timestamp(TimeUnit::Nanosecond, None)) => true,
        (Date64, Date32) => true,
        (Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s), Decimal128(precision, scale)) => {
            *scale >= s && i16::from(*precision) - i16::from(*scale) >= i16::from(p) - i16::from(s)
        }
        _ => false,
    };
    if good { Ok(()) } else { refuse() }
}

/// Without a dictionary.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        other => other.clone(),
    }
}

fn convert(found: &ArrayRef, wanted: &FieldRef) -> Result<ArrayRef, ArrowError> {
    match (found.data_type(), wanted.data_type()) {
        (found_type, wanted_type) if found_type == wanted_type => Ok(found.clone()),
        (DataType::Null, wanted_type) => Ok(new_null_array(wanted_type, found.len())),
        (DataType::Struct(_), DataType::Struct(parts)) => {
            let structs = found.as_struct();
            let part = |part: &FieldRef| match structs.column_by_name(part.name()) {
                Some(column) => convert(column, part),
                None => Ok(new_null_array(part.data_type(), structs.len())),
            };
            let columns = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
            let (parts, nulls) = (parts.clone(), structs.nulls().cloned());
            Ok(Arc::new(StructArray::try_new_with_length(parts, columns, nulls, structs.len())?))
        }
        (DataType::LargeList(item), DataType::List(_)) => {
            let small = cast(found, &DataType::List(item.clone()))?;
            convert(&small, wanted)
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = found.as_list::<i32>();
            let values = convert(list.values(), item)?;
            Ok(Arc::new(ListArray::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned())?))
        }
        (DataType::Map(..), DataType::Map(entry, sorted)) => {
            let map = found.as_map();
            let DataType::Struct(parts) = entry.data_type() else {
                return Err(ArrowError::SchemaError(format!("{} is a map without entries", wanted.name())));
            };
            let columns = vec![convert(map.keys(), &parts[0])?, convert(map.values(), &parts[1])?];
            let entries = StructArray::try_new(parts.clone(), columns, None)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(entry.clone(), offsets, entries, nulls, *sorted)?))
        }
        (_, wanted_type) => cast(found, wanted_type),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn schema(fields: Vec<Field>) -> SchemaRef {
        Arc::new(Schema::new(fields))
    }

    #[test]
    fn what_would_lose_something_is_refused_by_name_and_all_of_it_at_once() {
        let file = Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("x", DataType::Float64, true),
            Field::new("nested", DataType::Struct(vec![Field::new("a", DataType::Utf8, true)].into()), true),
        ]);
        let wanted = schema(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("x", DataType::Float64, true),
            Field::new("nested", DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into()), true),
            Field::new("id", DataType::Utf8, false),
            Field::new("later", DataType::Utf8, true),
        ]);
        let error = project(&file, &wanted).unwrap_err();
        assert!(error.contains("n is Int64 in the file, and declared Int32"), "{error}");
        assert!(error.contains("a is Utf8 in the file, and declared Int64"), "{error}");
        assert!(error.contains("id is NOT NULL and the file has no such column"), "{error}");
        assert!(!error.contains("later") && !error.contains("x is"), "{error}");
    }

    #[test]
    fn narrow_columns_widen_and_missing_ones_are_null() {
        let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let wanted = schema(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("at", instant, true),
            Field::new("later", DataType::Utf8, true),
        ]);
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1, i64::MAX]))),
        ])
        .unwrap();
        assert_eq!(project(&batch.schema(), &wanted), Ok(vec![0, 1]));
        let (rows, unfit) = adapt(&batch, &wanted).unwrap();
        assert_eq!(rows.column(0).as_ref(), &Int64Array::from(vec![1, 2]) as &dyn Array);
        assert_eq!(rows.column(2).null_count(), 2);
        let [unfit] = &unfit[..] else { panic!("the year 294,247 does not fit") };
        assert_eq!((unfit.code, &unfit.rows), ("out-of-range", &BooleanArray::from(vec![false, true])));
    }

    #[test]
    fn a_null_where_none_may_be_is_found() {
        let wanted = schema(vec![Field::new("id", DataType::Utf8, false)]);
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let (_, unfit) = adapt(&RecordBatch::try_from_iter([("id", column)]).unwrap(), &wanted).unwrap();
        assert_eq!((unfit[0].code, &unfit[0].rows), ("missing", &BooleanArray::from(vec![false, true])));
    }
}
