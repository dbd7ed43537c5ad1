//! Avro schemas (Apache Avro 1.12 specification, "Schema Declaration" and "Logical Types").

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Types of one schema: a short text could otherwise stand for very many.
const MOST_TYPES: usize = 10_000;

/// A type, by its place among those of its schema. A type may hold itself.
pub type TypeId = usize;

/// The types of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    types: Vec<Type>,
    root: TypeId,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(Named, usize),
    /// A `string` that holds a value of JSON.
    Json,
    /// Days since 1970.
    Date,
    /// A `long` of so many nanoseconds since 1970 each.
    Instant(i64),
    /// An `int` or `long` that counts from midnight: no column has such a type, so it is a number.
    Time(Box<Type>),
    /// Unscaled, big-endian, in a `bytes` or a `fixed`.
    Decimal {
        within: TypeId,
        precision: u32,
        scale: u32,
    },
    /// The 16 bytes of one, in a `fixed`; one that is text is a string.
    Uuid(TypeId),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Enum(Named, Vec<String>),
    Record(Named, Vec<(String, TypeId)>),
}

/// The full name of a type.
pub type Named = String;

impl Schema {
    /// `referenced`: schemas whose types this one may name, those first that name none of the others.
    pub fn parse(text: &str, referenced: &[String]) -> Result<Schema, String> {
        let mut types = Types::default();
        for text in referenced.iter().map(String::as_str) {
            types.add(&json(text)?, "")?;
        }
        let root = types.add(&json(text)?, "")?;
        Ok(Schema { types: types.types, root })
    }

    pub fn root(&self) -> TypeId {
        self.root
    }

    pub fn get(&self, of: TypeId) -> &Type {
        &self.types[of]
    }

    /// The type whose bytes a type's values are: without what its logical type says of them.
    pub fn underlying(&self, of: TypeId) -> Type {
        match self.get(of) {
            Type::Date => Type::Int,
            Type::Json => Type::String,
            Type::Instant(_) => Type::Long,
            Type::Time(number) => (**number).clone(),
            Type::Decimal { within, .. } | Type::Uuid(within) => self.get(*within).clone(),
            other => other.clone(),
        }
    }

    /// For people.
    pub fn describe(&self, of: TypeId) -> String {
        match self.get(of) {
            Type::Null => "null".into(),
            Type::Boolean => "a boolean".into(),
            Type::Int => "an int".into(),
            Type::Long => "a long".into(),
            Type::Float => "a float".into(),
            Type::Double => "a double".into(),
            Type::Bytes => "bytes".into(),
            Type::String => "a string".into(),
            Type::Fixed(name, size) => format!("{size} bytes ({name})"),
            Type::Json => "JSON in a string".into(),
            Type::Date => "a date".into(),
            Type::Instant(_) => "an instant".into(),
            Type::Time(_) => "a time of day".into(),
            Type::Decimal { precision, scale, .. } => format!("a decimal({precision}, {scale})"),
            Type::Uuid(_) => "a UUID".into(),
            Type::Array(_) => "an array".into(),
            Type::Map(_) => "a map".into(),
            Type::Enum(name, _) => format!("an enum ({name})"),
            Type::Record(name, _) => format!("a record ({name})"),
            Type::Union(branches) => {
                let branches: Vec<String> = branches.iter().take(5).map(|branch| self.describe(*branch)).collect();
                branches.join(" or ")
            }
        }
    }
}

fn json(text: &str) -> Result<Value, String> {
    // A bare name is a schema, too.
    match serde_json::from_str(text) {
        Ok(schema) => Ok(schema),
        Err(_) if is_primitive(text.trim()) => Ok(Value::from(text.trim())),
        Err(error) => Err(format!("the schema is not JSON: {error}")),
    }
}

/// Types while they are read.
#[derive(Default)]
struct Types {
    types: Vec<Type>,
    named: HashMap<String, TypeId>,
}

impl Types {
    fn add(&mut self, schema: &Value, namespace: &str) -> Result<TypeId, String> {
        match schema {
            Value::String(name) => match primitive(name) {
                Some(primitive) => self.put(primitive),
                None => self.by_name(name, namespace),
            },
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(parts) => self.object(parts, namespace),
            other => Err(format!("the schema has {other} for a type")),
        }
    }

    fn put(&mut self, one: Type) -> Result<TypeId, String> {
        if self.types.len() >= MOST_TYPES {
            return Err(format!("the schema has more than {MOST_TYPES} types"));
        }
        self.types.push(one);
        Ok(self.types.len() - 1)
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<TypeId, String> {
        // Where no namespace is said, the one that surrounds is meant; some writers mean none at all.
        let known = self.named.get(&full_name(name, namespace)).or_else(|| self.named.get(name));
        known.copied().ok_or_else(|| format!("the schema names the type {name}, which it does not define before"))
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<TypeId, String> {
        let branches = branches.iter().map(|branch| self.add(branch, namespace)).collect::<Result<Vec<_>, _>>()?;
        if branches.iter().any(|branch| matches!(self.types[*branch], Type::Union(_))) {
            return Err("the schema has a union within a union".into());
        }
        self.put(Type::Union(branches))
    }

    fn object(&mut self, parts: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let part = |name: &str| parts.get(name).ok_or_else(|| format!("the schema has a type without {name}"));
        let kind = part("type")?;
        let Some(kind) = kind.as_str() else { return self.add(kind, namespace) };
        match kind {
            "array" => {
                let items = self.add(part("items")?, namespace)?;
                self.put(Type::Array(items))
            }
            "map" => {
                let values = self.add(part("values")?, namespace)?;
                self.put(Type::Map(values))
            }
            "record" | "error" | "enum" | "fixed" => {
                let name = part("name")?.as_str().unwrap_or_default();
                let within = parts.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
                self.definition(kind, full_name(name, within), parts)
            }
            _ => match primitive(kind) {
                Some(primitive) => self.logical(primitive, parts),
                None => self.by_name(kind, namespace),
            },
        }
    }

    fn definition(&mut self, kind: &str, name: Named, parts: &Map<String, Value>) -> Result<TypeId, String> {
        let list = |part: &str| {
            let list = parts.get(part).and_then(Value::as_array);
            list.ok_or_else(|| format!("the schema's type {name} has no {part}"))
        };
        if self.named.contains_key(&name) {
            return Err(format!("the schema defines the type {name} twice"));
        }
        match kind {
            "enum" => {
                let symbols = list("symbols")?.iter().map(|symbol| symbol.as_str().map(String::from));
                let symbols = symbols.collect::<Option<Vec<_>>>();
                let symbols =
                    symbols.ok_or_else(|| format!("the schema's enum {name} has symbols that are no text"))?;
                self.define(name.clone(), Type::Enum(name, symbols))
            }
            "fixed" => {
                let size = parts.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| format!("the schema's type {name} has no size"))?;
                let fixed = self.define(name.clone(), Type::Fixed(name.clone(), size))?;
                let logical = match parts.get("logicalType").and_then(Value::as_str) {
                    Some("decimal") => decimal(fixed, parts, Some(size)),
                    Some("uuid") if size == 16 => Some(Type::Uuid(fixed)),
                    _ => None,
                };
                let Some(logical) = logical else { return Ok(fixed) };
                let logical = self.put(logical)?;
                self.named.insert(name, logical);
                Ok(logical)
            }
            _ => {
                let (namespace, fields) = (name.rsplit_once('.').map_or("", |(space, _)| space), list("fields")?);
                let record = self.define(name.clone(), Type::Record(name.clone(), vec![]))?;
                let mut own = vec![];
                for field in fields {
                    let (Some(of_field), Some(schema)) = (field.get("name").and_then(Value::as_str), field.get("type"))
                    else {
                        return Err(format!("the schema's type {name} has a field without name or type"));
                    };
                    if own.iter().any(|(known, _)| known == of_field) {
                        return Err(format!("the schema's type {name} has two fields {of_field}"));
                    }
                    own.push((of_field.to_string(), self.add(schema, namespace)?));
                }
                self.types[record] = Type::Record(name.clone(), own);
                Ok(record)
            }
        }
    }

    fn define(&mut self, name: Named, one: Type) -> Result<TypeId, String> {
        let id = self.put(one)?;
        self.named.insert(name, id);
        Ok(id)
    }

    /// What is no logical type of its primitive one is none at all, as the specification has it.
    fn logical(&mut self, primitive: Type, parts: &Map<String, Value>) -> Result<TypeId, String> {
        let logical = parts.get("logicalType").and_then(Value::as_str).unwrap_or_default();
        // Debezium has a mark of its own for the same thing.
        let is_json = logical == "json" || parts.get("connect.name").is_some_and(|n| n == "io.debezium.data.Json");
        let one = match (logical, &primitive) {
            (_, Type::String) if is_json => Type::Json,
            ("date", Type::Int) => Type::Date,
            ("time-millis", Type::Int) | ("time-micros", Type::Long) => Type::Time(Box::new(primitive)),
            ("timestamp-millis" | "local-timestamp-millis", Type::Long) => Type::Instant(1_000_000),
            ("timestamp-micros" | "local-timestamp-micros", Type::Long) => Type::Instant(1_000),
            ("timestamp-nanos" | "local-timestamp-nanos", Type::Long) => Type::Instant(1),
            ("decimal", Type::Bytes) => {
                let within = self.put(Type::Bytes)?;
                decimal(within, parts, None).unwrap_or(Type::Bytes)
            }
            _ => primitive,
        };
        self.put(one)
    }
}

/// `None` where it says nothing that its bytes can hold.
fn decimal(within: TypeId, parts: &Map<String, Value>, size: Option<usize>) -> Option<Type> {
    let number = |name: &str| parts.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let precision = number("precision").filter(|precision| *precision > 0)?;
    let scale = if parts.contains_key("scale") { number("scale")? } else { 0 };
    let fits = size.is_none_or(|size| f64::from(precision) <= ((8 * size) as f64 - 1.0) * 2_f64.log10());
    (scale <= precision && fits).then_some(Type::Decimal { within, precision, scale })
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" => Type::Int,
        "long" => Type::Long,
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "string" => Type::String,
        _ => return None,
    })
}

fn is_primitive(name: &str) -> bool {
    primitive(name).is_some()
}

fn full_name(name: &str, namespace: &str) -> Named {
    if namespace.is_empty() || name.contains('.') { name.to_string() } else { format!("{namespace}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(schema: &Schema) -> Vec<(String, Type)> {
        let Type::Record(_, fields) = schema.get(schema.root()) else { panic!("a record: {schema:?}") };
        fields.iter().map(|(name, of)| (name.clone(), schema.get(*of).clone())).collect()
    }

    #[test]
    fn types_are_known_by_their_names_wherever_they_were_defined() {
        let other = r#"{"type": "fixed", "name": "other.Digest", "size": 4}"#.to_string();
        let text = r#"{"type": "record", "name": "Reading", "namespace": "plant", "fields": [
            {"name": "unit", "type": {"type": "enum", "name": "Unit", "symbols": ["C", "F"]}},
            {"name": "again", "type": "Unit"},
            {"name": "full", "type": "plant.Unit"},
            {"name": "digest", "type": "other.Digest"},
            {"name": "next", "type": ["null", "Reading"]},
            {"name": "inner", "type": {"type": {"type": "long", "logicalType": "timestamp-micros"}}}]}"#;
        let schema = Schema::parse(text, &[other]).unwrap();
        let fields = fields(&schema);
        let unit = Type::Enum("plant.Unit".into(), vec!["C".into(), "F".into()]);
        assert_eq!((&fields[0].1, &fields[1].1, &fields[2].1), (&unit, &unit, &unit));
        assert_eq!(fields[3].1, Type::Fixed("other.Digest".into(), 4));
        let Type::Union(branches) = &fields[4].1 else { panic!("a union") };
        assert_eq!(branches[1], schema.root(), "a type may hold itself");
        assert_eq!(fields[5].1, Type::Instant(1_000));
    }

    #[test]
    fn a_logical_type_that_is_none_of_its_type_is_none_at_all() {
        let text = r#"{"type": "record", "name": "R", "fields": [
            {"name": "a", "type": {"type": "string", "logicalType": "date"}},
            {"name": "b", "type": {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}},
            {"name": "c", "type": {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 5}},
            {"name": "d", "type": {"type": "fixed", "name": "G", "size": 2, "logicalType": "decimal", "precision": 4}},
            {"name": "e", "type": {"type": "string", "logicalType": "uuid"}}]}"#;
        let types: Vec<Type> = fields(&Schema::parse(text, &[]).unwrap()).into_iter().map(|(_, of)| of).collect();
        assert_eq!(types[..2], [Type::String, Type::Bytes]);
        assert_eq!(types[2], Type::Fixed("F".into(), 2));
        assert!(matches!(types[3], Type::Decimal { precision: 4, scale: 0, .. }));
        assert_eq!(types[4], Type::String);
    }

    #[test]
    fn what_is_no_schema_is_refused_in_words() {
        let refused = |text: &str| Schema::parse(text, &[]).unwrap_err();
        assert!(refused("{").starts_with("the schema is not JSON: "));
        assert_eq!(refused(r#""Nobody""#), "the schema names the type Nobody, which it does not define before");
        assert_eq!(refused(r#"{"type": "array"}"#), "the schema has a type without items");
        assert_eq!(refused(r#"[["null"]]"#), "the schema has a union within a union");
        assert_eq!(refused(r#"{"type": "enum", "name": "E"}"#), "the schema's type E has no symbols");
        assert_eq!(
            refused(r#"[{"type": "fixed", "name": "F", "size": 1}, {"type": "fixed", "name": "F", "size": 2}]"#),
            "the schema defines the type F twice"
        );
        assert_eq!(Schema::parse("string", &[]).unwrap().get(0), &Type::String);
    }
}
