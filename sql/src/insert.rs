//! What an INSERT writes: the query's columns by position, widened where no value can be lost.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr, Spanned};
use engine::connector::is_json;

use crate::diagnostic::{Diagnostic, Place};

/// Where the query's columns stand; empty if that cannot be told, as with `*`.
pub fn column_places(query: &Query, place: &Place) -> Vec<Place> {
    let SetExpr::Select(select) = &*query.body else { return vec![] };
    let of_item = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } if expr.span().start.line > 0 => {
            let start = expr.span().start;
            Some(Place { file: place.file.clone(), line: start.line as usize, column: start.column as usize })
        }
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. } => Some(place.clone()),
        _ => None,
    };
    select.projection.iter().map(of_item).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// The columns that a sink gets: the declared ones, if the query fits them; else the query's own.
pub fn columns(
    table: &str,
    wanted: &[FieldRef],
    given: &[FieldRef],
    place: &Place,
    places: &[Place],
) -> Result<SchemaRef, Vec<Diagnostic>> {
    if wanted.is_empty() {
        return Ok(Arc::new(Schema::new(given.to_vec())));
    }
    if given.len() != wanted.len() {
        let message = format!("table {table} has {} columns, and the query yields {}", wanted.len(), given.len());
        let names: Vec<_> = wanted.iter().map(|f| f.name().as_str()).collect();
        return Err(vec![Diagnostic::at(place, message).hint(format!("the table's are {}", names.join(", ")))]);
    }
    let mut problems = vec![];
    for (at, (given, wanted)) in given.iter().zip(wanted).enumerate() {
        let (position, place) = (at + 1, places.get(at).unwrap_or(place));
        let (from, to) = (given.name(), wanted.name());
        if !fits(given, wanted) {
            let (is, needs) = (shown(given), shown(wanted));
            let message = format!("column {position}: the query's {from} is {is}, and {table}'s {to} is {needs}");
            let hint = match is_json(wanted) {
                true => format!("JSON comes from a JSON column alone: declare {to} STRING to keep the text"),
                false => format!("only widening without loss is implicit: write CAST({from} AS {needs})"),
            };
            problems.push(Diagnostic::at(place, message).hint(hint));
        } else if given.is_nullable() && !wanted.is_nullable() {
            let message = format!("column {position}: the query's {from} may be null, and {table}'s {to} is NOT NULL");
            problems.push(Diagnostic::at(place, message).hint("use COALESCE, or declare the source column NOT NULL"));
        }
    }
    if problems.is_empty() { Ok(Arc::new(Schema::new(wanted.to_vec()))) } else { Err(problems) }
}

/// A column's type, as a job file writes it.
pub fn shown(field: &Field) -> String {
    if is_json(field) { "JSON".into() } else { type_name(field.data_type()) }
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "STRING".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INT UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => "TIMESTAMP".into(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP WITHOUT TIME ZONE".into(),
        DataType::List(item) => format!("ARRAY<{}>", shown(item)),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", f.name(), shown(f))).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("MAP<{}, {}>", shown(&fields[0]), shown(&fields[1]))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

/// Whether every value of one type is a value of the other.
pub fn fits(given: &Field, wanted: &Field) -> bool {
    use DataType::*;
    if is_json(wanted) && !is_json(given) && given.data_type() != &Null {
        return false;
    }
    let (given, wanted) = (given.data_type(), wanted.data_type());
    match (given, wanted) {
        _ if given == wanted => true,
        (Null, _) => true,
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64) => true,
        (Int16, Int32 | Int64 | Float32 | Float64) => true,
        (Int32, Int64 | Float64) => true,
        (UInt8, Int16 | Int32 | Int64 | UInt16 | UInt32 | UInt64 | Float32 | Float64) => true,
        (UInt16, Int32 | Int64 | UInt32 | UInt64 | Float32 | Float64) => true,
        (UInt32, Int64 | UInt64 | Float64) => true,
        (Float32, Float64) => true,
        (Utf8View | LargeUtf8, Utf8) => true,
        (BinaryView | LargeBinary, Binary) => true,
        (Timestamp(_, Some(_)), Timestamp(TimeUnit::Nanosecond, Some(_))) => true,
        (Timestamp(_, None), Timestamp(TimeUnit::Nanosecond, None)) => true,
        (Decimal128(p1, s1), Decimal128(p2, s2)) => s2 >= s1 && (*p2 as i8 - s2) >= (*p1 as i8 - s1),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(data_type: DataType) -> Field {
        Field::new("c", data_type, true)
    }

    #[test]
    fn only_what_loses_nothing_is_implicit() {
        use DataType::*;
        let fitting = [(Int32, Int64), (Int32, Float64), (UInt32, Int64), (Float32, Float64), (Null, Utf8)];
        for (given, wanted) in fitting {
            assert!(fits(&field(given.clone()), &field(wanted.clone())), "{given} into {wanted}");
        }
        let lossy =
            [(Int64, Int32), (Int64, Float64), (Int32, Float32), (UInt64, Int64), (Float64, Float32), (Int64, Utf8)];
        for (given, wanted) in lossy {
            assert!(!fits(&field(given.clone()), &field(wanted.clone())), "{given} into {wanted}");
        }
        assert!(fits(&field(Decimal128(10, 2)), &field(Decimal128(12, 3))));
        assert!(!fits(&field(Decimal128(10, 2)), &field(Decimal128(10, 3))), "a digit before the point would be lost");
    }
}
