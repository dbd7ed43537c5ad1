//! Rows of a table in the columns that somebody declares: found by their names, whatever their case, in types that can hold
//! them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde_json::Value;

use crate::schema::delta_field;
use crate::store::Opened;

/// What a table may ask of its readers.
const KNOWN_FEATURES: [&str; 5] =
    ["deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "typeWidening"];
/// Types whose values are values of those behind them, too.
const WIDER: [&[&str]; 2] = [&["byte", "short", "integer", "long"], &["float", "double"]];

/// Columns as they are wanted of a table that has them.
pub struct Declared {
    schema: SchemaRef,
    /// What the table itself calls them.
    own: Vec<String>,
}

impl Declared {
    /// Or all that does not fit.
    pub fn of(opened: &Opened, columns: &[FieldRef]) -> Result<Declared, String> {
        Ok(Declared { schema: Arc::new(Schema::new(columns.to_vec())), own: own_columns(opened, columns)? })
    }

    /// What the table itself calls the columns.
    pub fn own(&self) -> &[String] {
        &self.own
    }

    /// Rows of a file. What the file does not have is a partition's value, or was added to the table later.
    pub fn rows(
        &self,
        of_file: &RecordBatch,
        partition_values: &HashMap<String, Option<String>>,
    ) -> Result<RecordBatch, String> {
        let rows = of_file.num_rows();
        let column = |(field, own): (&FieldRef, &String)| -> Result<ArrayRef, String> {
            let there = of_file.schema().fields().iter().position(|field| field.name().eq_ignore_ascii_case(own));
            match (partition_values.get(own), there) {
                (Some(value), _) => partition_column(value.as_deref(), field.data_type(), rows),
                (None, Some(at)) => fitted(of_file.column(at), field.data_type()),
                (None, None) => Ok(new_null_array(field.data_type(), rows)),
            }
            .map_err(|what| format!("column {own}: {what}"))
        };
        let columns = self.schema.fields().iter().zip(&self.own).map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|e| e.to_string())
    }
}

/// What the table itself calls these columns, or all that does not fit.
fn own_columns(opened: &Opened, columns: &[FieldRef]) -> Result<Vec<String>, String> {
    let features = opened.protocol["readerFeatures"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mapped =
        opened.metadata["configuration"]["delta.columnMapping.mode"].as_str().is_some_and(|mode| mode != "none");
    if let Some(unknown) = features.into_iter().find(|f| !KNOWN_FEATURES.contains(f) && *f != "columnMapping") {
        return Err(format!("it has the feature {unknown}, which is not read here"));
    }
    if mapped {
        return Err("its columns are mapped (delta.columnMapping.mode), which is not read here".into());
    }
    let fields = opened.schema["fields"].as_array().cloned().unwrap_or_default();
    let name = |field: &Value| field["name"].as_str().unwrap_or_default().to_string();
    let (mut own, mut wrong) = (vec![], vec![]);
    for column in columns {
        let Some(field) = fields.iter().find(|field| name(field).eq_ignore_ascii_case(column.name())) else {
            let there: Vec<String> = fields.iter().map(name).collect();
            wrong.push(format!("it has no column {}; there are {}", column.name(), there.join(", ")));
            continue;
        };
        match delta_field(column) {
            Ok(wanted) if can_be(&field["type"], &wanted["type"]) => own.push(name(field)),
            Ok(wanted) => {
                let (is, declared) = (text_of(&field["type"]), text_of(&wanted["type"]));
                wrong.push(format!("its column {} is {is}, and is declared as {declared}", name(field)));
            }
            Err(what) => wrong.push(what),
        }
    }
    if wrong.is_empty() { Ok(own) } else { Err(wrong.join("; ")) }
}

fn text_of(data_type: &Value) -> String {
    data_type.as_str().map_or_else(|| data_type.to_string(), String::from)
}

/// Whether every value of one type is a value of the other. Fields of structs are told by their names, whatever their case;
/// one that is not declared is left out.
fn can_be(is: &Value, wanted: &Value) -> bool {
    let part = |name: &str| can_be(&is[name], &wanted[name]);
    match (is, wanted) {
        (Value::String(is), Value::String(wanted)) => {
            let place = |row: &[&str], name: &str| row.iter().position(|known| *known == name);
            let widens = |row: &&[&str]| matches!((place(row, is), place(row, wanted)), (Some(a), Some(b)) if a <= b);
            is == wanted || WIDER.iter().any(widens)
        }
        (Value::Object(_), Value::Object(_)) if is["type"] == wanted["type"] => match is["type"].as_str() {
            Some("array") => part("elementType"),
            Some("map") => part("keyType") && part("valueType"),
            Some("struct") => {
                let fields = |of: &Value| of["fields"].as_array().cloned().unwrap_or_default();
                let there = fields(is);
                let named = |field: &Value| there.iter().find(|other| is_named_alike(other, field)).cloned();
                fields(wanted).iter().all(|field| named(field).is_some_and(|own| can_be(&own["type"], &field["type"])))
            }
            _ => false,
        },
        _ => false,
    }
}

fn is_named_alike(one: &Value, other: &Value) -> bool {
    let name = |field: &Value| field["name"].as_str().unwrap_or_default().to_lowercase();
    name(one) == name(other)
}

fn partition_column(value: Option<&str>, data_type: &DataType, rows: usize) -> Result<ArrayRef, String> {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![value.filter(|value| !value.is_empty()); rows]));
    cast(&texts, data_type)
}

/// Values in another type that can hold them. Fields are found by their names, and are NULL where an older file lacks them.
fn fitted(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    let failed = |e: ArrowError| e.to_string();
    match (column.data_type(), wanted) {
        (DataType::Struct(there), DataType::Struct(fields)) => {
            let parts = column.as_struct();
            let field = |field: &FieldRef| match there.iter().position(|f| f.name().eq_ignore_ascii_case(field.name()))
            {
                Some(at) => fitted(parts.column(at), field.data_type()),
                None => Ok(new_null_array(field.data_type(), column.len())),
            };
            let made = fields.iter().map(field).collect::<Result<Vec<_>, _>>()?;
            let made = StructArray::try_new_with_length(fields.clone(), made, column.nulls().cloned(), column.len());
            Ok(Arc::new(made.map_err(failed)?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let lists = column.as_list::<i32>();
            let items = fitted(lists.values(), item.data_type())?;
            let made = ListArray::try_new(item.clone(), lists.offsets().clone(), items, lists.nulls().cloned());
            Ok(Arc::new(made.map_err(failed)?))
        }
        (DataType::Map(..), DataType::Map(entry, sorted)) => {
            let maps = column.as_map();
            let entries: ArrayRef = Arc::new(maps.entries().clone());
            let entries = fitted_entries(&entries, entry.data_type())?;
            let made =
                MapArray::try_new(entry.clone(), maps.offsets().clone(), entries, maps.nulls().cloned(), *sorted);
            Ok(Arc::new(made.map_err(failed)?))
        }
        _ => cast(column, wanted),
    }
}

/// Keys and values of maps, which are told by their place.
fn fitted_entries(entries: &ArrayRef, wanted: &DataType) -> Result<StructArray, String> {
    let DataType::Struct(fields) = wanted else { return Err("a map without entries".into()) };
    let parts = entries.as_struct();
    let made = fields.iter().zip(parts.columns()).map(|(field, part)| fitted(part, field.data_type()));
    let made = made.collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new(fields.clone(), made, parts.nulls().cloned()).map_err(|e| e.to_string())
}

fn cast(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, data_type, &options).map_err(|e| match data_type {
        DataType::Timestamp(..) => {
            format!("{e}. A TIMESTAMP is from 1678 to 2261: leave the column out, or keep other values in it")
        }
        _ => e.to_string(),
    })
}
