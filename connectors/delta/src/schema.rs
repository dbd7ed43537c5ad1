//! Arrow types as Delta stores them, and Delta's own JSON of them (protocol: "Schema Serialization Format").

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

/// Parquet's readers on Spark take these for their own syntax; only column mapping, which is not written, hides them.
const FORBIDDEN: [char; 10] = [' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// Delta's JSON of a column, or why it has none.
pub fn delta_field(field: &Field) -> Result<Value, String> {
    if field.name().is_empty() || field.name().contains(FORBIDDEN) {
        return Err(format!(
            "{:?} is no name for a column of a Delta table: it is empty, or has one of the characters {}; rename it with AS",
            field.name(),
            r#"" ,;{}()\n\t=""#
        ));
    }
    Ok(
        json!({"name": field.name(), "type": delta_type(field.data_type())?, "nullable": field.is_nullable(), "metadata": {}}),
    )
}

/// Whether a type is, or holds, a time without a zone, for which a table needs a feature of its own.
pub fn has_time_without_zone(data_type: &Value) -> bool {
    match data_type {
        Value::String(name) => name == "timestamp_ntz",
        Value::Object(parts) => ["type", "elementType", "keyType", "valueType", "fields"]
            .iter()
            .filter_map(|k| parts.get(*k))
            .any(has_time_without_zone),
        Value::Array(fields) => fields.iter().any(has_time_without_zone),
        _ => false,
    }
}

/// Columns that differ only in case, at any depth: Delta takes them for one.
pub fn alike_but_for_case<'a>(fields: impl IntoIterator<Item = &'a FieldRef>) -> Vec<String> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut alike = vec![];
    for field in fields {
        if let Some(other) = seen.insert(field.name().to_lowercase(), field.name()) {
            alike.push(format!(
                "{other} and {} are one name to Delta, which does not tell upper from lower case; rename one with AS",
                field.name()
            ));
        }
        alike.extend(inner_fields(field.data_type()).into_iter().flat_map(alike_but_for_case));
    }
    alike
}

/// The fields of the structs that a type is made of.
fn inner_fields(data_type: &DataType) -> Vec<&Fields> {
    match data_type {
        DataType::Struct(fields) => vec![fields],
        DataType::List(item) => inner_fields(item.data_type()),
        DataType::Map(entry, _) => match entry.data_type() {
            DataType::Struct(parts) => parts.iter().flat_map(|part| inner_fields(part.data_type())).collect(),
            _ => vec![],
        },
        _ => vec![],
    }
}

/// The schema string of a table.
pub fn delta_schema(schema: &Schema) -> Result<Value, String> {
    let fields = schema.fields().iter().map(|f| delta_field(f)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({"type": "struct", "fields": fields}))
}

fn delta_type(data_type: &DataType) -> Result<Value, String> {
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int16 | DataType::UInt8 => json!("short"),
        DataType::Int32 | DataType::UInt16 => json!("integer"),
        DataType::Int64 | DataType::UInt32 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::LargeBinary => json!("binary"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(_, Some(_)) => json!("timestamp"),
        DataType::Decimal128(p, s) if *s >= 0 => json!(format!("decimal({p},{s})")),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| delta_field(f)).collect::<Result<Vec<_>, _>>()?;
            json!({"type": "struct", "fields": fields})
        }
        DataType::List(item) => {
            json!({"type": "array", "elementType": delta_type(item.data_type())?, "containsNull": item.is_nullable()})
        }
        DataType::Map(entry, _) => {
            let DataType::Struct(parts) = entry.data_type() else { return Err("a map without entries".into()) };
            let (key, value) = (delta_type(parts[0].data_type())?, delta_type(parts[1].data_type())?);
            json!({"type": "map", "keyType": key, "valueType": value, "valueContainsNull": parts[1].is_nullable()})
        }
        DataType::Timestamp(_, None) => json!("timestamp_ntz"),
        other => return Err(format!("Delta has no type for {other}; CAST it")),
    })
}

/// The Arrow type in which a column is written to Parquet: Delta's timestamps are microseconds, and instants are UTC.
pub fn stored(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| stored_field(f)).collect::<Vec<_>>()))
}

fn stored_field(field: &Field) -> FieldRef {
    Arc::new(Field::new(field.name(), stored_type(field.data_type()), field.is_nullable()))
}

fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|f| stored_field(f)).collect::<Fields>()),
        DataType::List(item) => DataType::List(stored_field(item)),
        DataType::Map(entry, sorted) => DataType::Map(stored_field(entry), *sorted),
        other => other.clone(),
    }
}

/// What to do to a table so that it takes rows of `wanted`; all that stands in the way, at once.
pub fn reconcile(table: &Value, wanted: &Value, add: bool) -> Result<Option<Value>, String> {
    let empty = vec![];
    let have = table["fields"].as_array().unwrap_or(&empty);
    let (mut problems, mut added) = (vec![], vec![]);
    for field in wanted["fields"].as_array().unwrap_or(&empty) {
        let name = field["name"].as_str().unwrap_or_default();
        match have.iter().find(|f| f["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name))) {
            None if add && field["nullable"] == json!(true) => added.push(field.clone()),
            None if add => {
                problems.push(format!("column {name} is NOT NULL, and older rows of the table would not have it"))
            }
            None => problems.push(format!("column {name} is not in the table; schema_evolution = 'add' would add it")),
            Some(there) if there["name"] != field["name"] => {
                problems.push(format!("column {name} is written {} in the table", there["name"]))
            }
            Some(there) if bare(&there["type"]) != bare(&field["type"]) => problems.push(format!(
                "column {name} is {} in the table, and {} in the job",
                shown(&there["type"]),
                shown(&field["type"])
            )),
            Some(there) => problems.extend(stricter(name, there, field)),
        }
    }
    for there in have.iter().filter(|f| f["nullable"] == json!(false)) {
        if !wanted["fields"].as_array().unwrap_or(&empty).iter().any(|f| f["name"] == there["name"]) {
            problems.push(format!("the table's column {} is NOT NULL, and the job does not write it", there["name"]));
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    if added.is_empty() {
        return Ok(None);
    }
    let fields: Vec<_> = have.iter().cloned().chain(added).collect();
    Ok(Some(json!({"type": "struct", "fields": fields})))
}

/// Where the table asks for a value and the job may have none, at any depth of a column whose types are equal.
fn stricter(name: &str, table: &Value, job: &Value) -> Vec<String> {
    let flag = |side: &Value, key: &str| side.get(key).is_none_or(|flag| flag == &json!(true));
    let mut found = vec![];
    for key in ["nullable", "containsNull", "valueContainsNull"] {
        if !flag(table, key) && flag(job, key) {
            let what = if key == "nullable" { "" } else { "an element of " };
            found.push(format!("{what}column {name} is NOT NULL in the table, and may be null in the job"));
        }
    }
    for key in ["type", "elementType", "keyType", "valueType"] {
        found.extend(table.get(key).filter(|t| t.is_object()).into_iter().flat_map(|t| stricter(name, t, &job[key])));
    }
    let fields = |side: &Value| side["fields"].as_array().cloned().unwrap_or_default();
    for (there, here) in fields(table).iter().zip(fields(job)) {
        let inner = format!("{name}.{}", there["name"].as_str().unwrap_or_default());
        found.extend(stricter(&inner, there, &here));
    }
    found
}

/// A type as people write it.
fn shown(data_type: &Value) -> String {
    match data_type["type"].as_str() {
        None => data_type.as_str().unwrap_or_default().to_string(),
        Some("array") => format!("array<{}>", shown(&data_type["elementType"])),
        Some("map") => format!("map<{}, {}>", shown(&data_type["keyType"]), shown(&data_type["valueType"])),
        Some(_) => {
            let fields = data_type["fields"].as_array().into_iter().flatten();
            let fields = fields.map(|f| format!("{} {}", f["name"].as_str().unwrap_or_default(), shown(&f["type"])));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A type without column metadata and nullability, which do not change how it is stored.
fn bare(data_type: &Value) -> Value {
    match data_type {
        Value::Object(map) => {
            let keep =
                |k: &&String| !matches!(k.as_str(), "metadata" | "nullable" | "containsNull" | "valueContainsNull");
            Value::Object(map.iter().filter(|(k, _)| keep(k)).map(|(k, v)| (k.clone(), bare(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(bare).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: Vec<Field>) -> Value {
        delta_schema(&Schema::new(fields)).unwrap()
    }

    #[test]
    fn every_mismatch_is_said_at_once() {
        let table = schema(vec![Field::new("id", DataType::Utf8, false), Field::new("n", DataType::Int64, true)]);
        let job = schema(vec![
            Field::new("ID", DataType::Utf8, false),
            Field::new("n", DataType::Float64, true),
            Field::new("new", DataType::Utf8, true),
        ]);
        let said = reconcile(&table, &job, false).unwrap_err();
        assert_eq!(
            said,
            "column ID is written \"id\" in the table; column n is long in the table, and double in the job; \
             column new is not in the table; schema_evolution = 'add' would add it; \
             the table's column \"id\" is NOT NULL, and the job does not write it"
        );
    }

    #[test]
    fn names_that_parquets_readers_stumble_on_are_refused_at_any_depth() {
        for name in ["avg (t)", "a,b", "a=b", "a\tb", ""] {
            let inner = Field::new(name, DataType::Int64, true);
            let outer = Field::new("outer", DataType::Struct(vec![inner.clone()].into()), true);
            assert!(delta_field(&inner).unwrap_err().contains(&format!("{name:?} is no name")));
            assert!(delta_field(&outer).is_err());
        }
        assert!(delta_field(&Field::new("größe.cm-2", DataType::Int64, true)).is_ok());
    }

    #[test]
    fn nested_types_that_differ_are_shown_in_full() {
        let of = |inner: DataType| {
            let list = DataType::List(Arc::new(Field::new("item", inner, true)));
            schema(vec![Field::new("s", DataType::Struct(vec![Field::new("l", list, true)].into()), true)])
        };
        let said = reconcile(&of(DataType::Int64), &of(DataType::Utf8), false).unwrap_err();
        assert_eq!(said, "column s is struct<l array<long>> in the table, and struct<l array<string>> in the job");
    }

    #[test]
    fn a_null_that_the_table_forbids_deep_inside_is_named() {
        let of = |nullable: bool| {
            let inner = Field::new("inner", DataType::Int64, nullable);
            let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, nullable)));
            schema(vec![Field::new("s", DataType::Struct(vec![inner].into()), true), Field::new("l", list, true)])
        };
        assert_eq!(
            reconcile(&of(false), &of(true), false).unwrap_err(),
            "column s.inner is NOT NULL in the table, and may be null in the job; \
             an element of column l is NOT NULL in the table, and may be null in the job"
        );
        assert_eq!(reconcile(&of(true), &of(false), false).unwrap(), None);
    }

    #[test]
    fn names_that_differ_in_case_only_are_refused_at_any_depth() {
        let field = |name: &str| Arc::new(Field::new(name, DataType::Int64, true));
        let nested = Field::new("s", DataType::Struct(vec![field("a"), field("A")].into()), true);
        let said = alike_but_for_case(&[field("id"), field("ID"), Arc::new(nested)]);
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("id and ID are one name") && said[1].starts_with("a and A are one name"));
    }

    #[test]
    fn a_time_without_a_zone_is_found_at_any_depth() {
        let time = Field::new("item", DataType::Timestamp(TimeUnit::Nanosecond, None), true);
        let list = Field::new("l", DataType::List(Arc::new(time)), true);
        assert!(has_time_without_zone(&schema(vec![list])));
        assert!(!has_time_without_zone(&schema(vec![Field::new("timestamp_ntz", DataType::Utf8, true)])));
    }

    #[test]
    fn a_new_column_is_added_behind_the_others() {
        let table = schema(vec![Field::new("id", DataType::Utf8, true)]);
        let job = schema(vec![Field::new("n", DataType::Int64, true), Field::new("id", DataType::Utf8, true)]);
        let widened = reconcile(&table, &job, true).unwrap().unwrap();
        assert_eq!(widened["fields"][0]["name"], "id");
        assert_eq!(widened["fields"][1]["name"], "n");
        assert_eq!(reconcile(&widened, &job, true).unwrap(), None);
    }
}
