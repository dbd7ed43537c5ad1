//! The schema in a file's header, as `arrow-avro` takes it without fail.
//!
//! Avro gives types names, and refers by name to those that came before. `arrow-avro` does not find all of them: not one
//! that a column names whose definition stands in another column that is not read, nor one with dots in its name. So each
//! type is written out where it is used. A field of the type `null` it decodes and then refuses; it has no bytes and no
//! value, and is not read.

use std::collections::HashMap;

use arrow_avro::schema::AvroSchema;
use serde_json::{Map, Value, json};

/// Types of one file, each counted as often as it is used: some lines of schema could otherwise fill the memory.
const MOST_TYPES: usize = 100_000;
/// Types in types.
const DEEPEST: usize = 64;

/// The columns of a file.
pub struct FileSchema {
    columns: Vec<Value>,
    /// Those that can have a value.
    readable: Vec<Value>,
}

impl FileSchema {
    pub fn parse(text: &str) -> Result<FileSchema, String> {
        let schema: Value = serde_json::from_str(text).map_err(|e| format!("its schema is not JSON: {e}"))?;
        let mut record = Names::default().write_out(&schema, "", 0)?;
        let columns = match record.get_mut("fields").map(Value::take) {
            Some(Value::Array(columns)) if record["type"] == "record" => columns,
            _ => return Err("its rows are not records".into()),
        };
        let readable = with_values(&columns);
        if readable.is_empty() {
            return Err("its records have no fields that can have a value".into());
        }
        Ok(FileSchema { columns, readable })
    }

    /// The schema of a block as it lies in the file.
    pub fn written(&self) -> AvroSchema {
        block(&self.columns)
    }

    /// The schema by which a block is read: the columns that can have a value, or of these the ones of these indices. No
    /// columns at all cannot be had: the rows would have nothing to be counted by.
    pub fn read(&self, columns: Option<&[usize]>) -> AvroSchema {
        match columns {
            None => block(&self.readable),
            Some([]) => block(&self.readable[..1]),
            Some(some) => block(&some.iter().map(|index| self.readable[*index].clone()).collect::<Vec<_>>()),
        }
    }
}

fn block(columns: &[Value]) -> AvroSchema {
    let row = json!({"type": "record", "name": "row", "fields": columns});
    let rows = json!({"name": "rows", "type": {"type": "array", "items": row}});
    AvroSchema::new(json!({"type": "record", "name": "block", "fields": [rows]}).to_string())
}

/// Without the fields, at any depth, that are always null.
fn with_values(list: &[Value]) -> Vec<Value> {
    fn within(schema: &Value) -> Value {
        match schema {
            Value::Array(list) => Value::Array(with_values(list)),
            Value::Object(parts) => parts.iter().map(|(name, part)| (name.clone(), within(part))).collect(),
            other => other.clone(),
        }
    }
    list.iter().filter(|field| field["type"] != "null").map(within).collect()
}

/// What the names of a schema stand for.
#[derive(Default)]
struct Names<'a> {
    /// By full name: the type, and the namespace that it stands in.
    defined: HashMap<String, (&'a Value, String)>,
    /// The types that are being written out.
    within: Vec<String>,
    written: usize,
}

impl<'a> Names<'a> {
    fn write_out(&mut self, schema: &'a Value, namespace: &str, depth: usize) -> Result<Value, String> {
        self.written += 1;
        if self.written > MOST_TYPES || depth > DEEPEST {
            return Err(format!("its schema has more than {MOST_TYPES} types, or more than {DEEPEST} in each other"));
        }
        match schema {
            Value::String(name) if is_primitive(name) => Ok(schema.clone()),
            Value::String(name) => self.by_name(name, namespace, depth),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.write_out(branch, namespace, depth + 1));
                Ok(Value::Array(branches.collect::<Result<_, _>>()?))
            }
            Value::Object(parts) => self.object(schema, parts, namespace, depth),
            other => Err(format!("its schema has {other} for a type")),
        }
    }

    fn object(
        &mut self,
        schema: &'a Value,
        parts: &'a Map<String, Value>,
        namespace: &str,
        depth: usize,
    ) -> Result<Value, String> {
        let part =
            |name: &str| parts.get(name).ok_or_else(|| format!("its schema has a type without {name}: {schema}"));
        let kind = part("type")?;
        match kind.as_str() {
            Some("array") => {
                Ok(json!({"type": "array", "items": self.write_out(part("items")?, namespace, depth + 1)?}))
            }
            Some("map") => Ok(json!({"type": "map", "values": self.write_out(part("values")?, namespace, depth + 1)?})),
            Some("record" | "error" | "enum" | "fixed") => {
                let name = part("name")?.as_str().unwrap_or_default();
                let within = parts.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
                let full = full_name(name, within);
                self.defined.insert(full.clone(), (schema, namespace.to_string()));
                self.named(full, parts, depth)
            }
            Some(primitive) if is_primitive(primitive) => Ok(primitive_type(primitive, parts)),
            _ => self.write_out(kind, namespace, depth + 1),
        }
    }

    /// A type that has a name. It gets one that no other has: names are nothing to the bytes.
    fn named(&mut self, full: String, parts: &'a Map<String, Value>, depth: usize) -> Result<Value, String> {
        if self.within.contains(&full) {
            return Err(format!("the type {full} holds itself, so its values have no fixed shape"));
        }
        let (name, namespace) = (format!("t{}", self.written), full.rsplit_once('.').map_or("", |(space, _)| space));
        match parts["type"].as_str() {
            Some("enum") => {
                Ok(json!({"type": "enum", "name": name, "symbols": parts.get("symbols").cloned().unwrap_or_default()}))
            }
            Some("fixed") => {
                let mut fixed = with_logical_type(parts);
                fixed.extend([("type".into(), "fixed".into()), ("name".into(), name.into())]);
                fixed.extend(parts.get("size").map(|size| ("size".into(), size.clone())));
                Ok(Value::Object(fixed))
            }
            _ => {
                self.within.push(full.clone());
                let mut fields = vec![];
                for field in parts.get("fields").and_then(Value::as_array).into_iter().flatten() {
                    let (Some(name), Some(of_field)) = (field.get("name"), field.get("type")) else {
                        return Err(format!("its schema has a field without name or type: {field}"));
                    };
                    fields.push(json!({"name": name, "type": self.write_out(of_field, namespace, depth + 1)?}));
                }
                self.within.pop();
                Ok(json!({"type": "record", "name": name, "fields": fields}))
            }
        }
    }

    fn by_name(&mut self, name: &str, namespace: &str, depth: usize) -> Result<Value, String> {
        // A name of the outermost level may be meant where no namespace is.
        let full = [full_name(name, namespace), name.to_string()].into_iter().find(|n| self.defined.contains_key(n));
        let Some((schema, within)) = full.and_then(|full| self.defined.get(&full).cloned()) else {
            return Err(format!("its schema names the type {name}, which it does not define before"));
        };
        self.write_out(schema, &within, depth + 1)
    }
}

fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.to_string() } else { format!("{namespace}.{name}") }
}

/// A UUID that is written as text stays text.
fn primitive_type(name: &str, parts: &Map<String, Value>) -> Value {
    let mut primitive = with_logical_type(parts);
    if primitive.is_empty() || name == "string" {
        return name.into();
    }
    primitive.insert("type".into(), name.into());
    Value::Object(primitive)
}

fn with_logical_type(parts: &Map<String, Value>) -> Map<String, Value> {
    let kept = ["logicalType", "precision", "scale"];
    parts.iter().filter(|(name, _)| kept.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: Value) -> Result<FileSchema, String> {
        FileSchema::parse(&json!({"type": "record", "name": "R", "namespace": "a.b", "fields": fields}).to_string())
    }

    fn refused(fields: Value) -> String {
        record(fields).err().expect("the schema is refused")
    }

    #[test]
    fn a_type_is_written_out_wherever_it_is_named() {
        let digest = json!({"type": "fixed", "name": "x.y.Digest", "size": 4, "aliases": ["z"]});
        let line = json!({"type": "record", "name": "Line", "fields": [{"name": "digest", "type": "x.y.Digest", "default": "?"}]});
        let schema = record(json!([
            {"name": "digest", "type": {"type": digest}, "doc": "nested, as some writers do"},
            {"name": "first", "type": ["null", line], "default": null},
            {"name": "short", "type": "Line"},
            {"name": "full", "type": {"type": "array", "items": "a.b.Line"}},
            {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2, "unit": "EUR"}},
        ]));
        let text = json!(schema.unwrap().columns).to_string();
        assert_eq!(text.matches(r#""fixed""#).count(), 4, "{text}");
        assert_eq!(text.matches(r#""record""#).count(), 3, "{text}");
        assert!(
            !["Line", "Digest", "default", "doc", "aliases", "uuid", "unit"].iter().any(|w| text.contains(w)),
            "{text}"
        );
        assert!(text.contains(r#""precision":4"#) && text.contains(r#""scale":2"#), "{text}");
    }

    #[test]
    fn what_has_no_columns_is_refused() {
        let refused = |schema: &str| FileSchema::parse(schema).err().expect("the schema is refused");
        assert_eq!(refused(r#""string""#), "its rows are not records");
        assert_eq!(refused(r#"["null", {"type": "record", "name": "R", "fields": []}]"#), "its rows are not records");
        assert_eq!(
            refused(r#"{"type": "record", "name": "R", "fields": [{"name": "n", "type": {"type": "null"}}]}"#),
            "its records have no fields that can have a value"
        );
        assert!(refused(r#"{"type": "#).starts_with("its schema is not JSON: "));
        assert_eq!(refused(r#"{"type": "map"}"#), r#"its schema has a type without values: {"type":"map"}"#);
    }

    #[test]
    fn a_type_that_holds_itself_or_is_nowhere_is_refused() {
        let error = refused(json!([{"name": "next", "type": ["null", "R"]}]));
        assert_eq!(error, "the type a.b.R holds itself, so its values have no fixed shape");
        let error = refused(json!([{"name": "line", "type": "Line"}]));
        assert_eq!(error, "its schema names the type Line, which it does not define before");
    }

    #[test]
    fn a_short_schema_that_stands_for_a_huge_one_is_refused() {
        let field = |name: &str, of: Value| json!({"name": name, "type": of});
        let mut fields =
            vec![field("f0", json!({"type": "record", "name": "T0", "fields": [field("x", "int".into())]}))];
        for n in 1..40 {
            let before = format!("T{}", n - 1);
            let both = [field("a", before.clone().into()), field("b", before.into())];
            fields.push(field(&format!("f{n}"), json!({"type": "record", "name": format!("T{n}"), "fields": both})));
        }
        assert!(refused(fields.into()).contains("more than 100000 types"));
    }
}
