//! Guesses a table's columns from sample payloads.

use serde_json::Value;

/// A guessed column.
#[derive(Debug, Clone, PartialEq)]
pub struct InferredColumn {
    pub name: String,
    /// As a job file writes it.
    pub sql_type: String,
    /// Whether every sample had a value.
    pub always: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Unknown,
    Boolean,
    Integer,
    Float,
    Time,
    Text,
    Array(Box<Kind>),
    Object(Vec<(String, Kind, usize)>),
    /// Samples disagree: kept as JSON.
    Mixed,
}

/// The columns of JSON samples, in the order of their names. Payloads that are not JSON objects are passed over.
pub fn infer<'a>(samples: impl Iterator<Item = &'a [u8]>) -> Vec<InferredColumn> {
    let (mut merged, mut count) = (Kind::Object(vec![]), 0);
    for value in samples.filter_map(|s| serde_json::from_slice::<Value>(s).ok()) {
        let values = match value {
            Value::Array(values) => values,
            other => vec![other],
        };
        for value in values.into_iter().filter(Value::is_object) {
            merged = merge(merged, kind(&value));
            count += 1;
        }
    }
    let Kind::Object(fields) = merged else { return vec![] };
    let column = |(name, kind, seen): (String, Kind, usize)| InferredColumn {
        name,
        sql_type: sql(&kind),
        always: seen == count && kind != Kind::Unknown,
    };
    fields.into_iter().map(column).collect()
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Null => Kind::Unknown,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(n) if n.is_i64() => Kind::Integer,
        Value::Number(_) => Kind::Float,
        Value::String(s) if s.len() >= 19 && crate::parse_instant(s).is_some() => Kind::Time,
        Value::String(_) => Kind::Text,
        Value::Array(items) => Kind::Array(Box::new(items.iter().map(kind).fold(Kind::Unknown, merge))),
        Value::Object(map) => {
            Kind::Object(map.iter().map(|(k, v)| (k.clone(), kind(v), !v.is_null() as usize)).collect())
        }
    }
}

fn merge(a: Kind, b: Kind) -> Kind {
    match (a, b) {
        (Kind::Unknown, other) | (other, Kind::Unknown) => other,
        (a, b) if a == b && !matches!(a, Kind::Object(_)) => a,
        (Kind::Integer, Kind::Float) | (Kind::Float, Kind::Integer) => Kind::Float,
        (Kind::Time, Kind::Text) | (Kind::Text, Kind::Time) => Kind::Text,
        (Kind::Array(a), Kind::Array(b)) => Kind::Array(Box::new(merge(*a, *b))),
        (Kind::Object(mut a), Kind::Object(b)) => {
            for (name, kind, seen) in b {
                match a.iter_mut().find(|(n, ..)| *n == name) {
                    Some((_, known, count)) => {
                        *known = merge(std::mem::replace(known, Kind::Unknown), kind);
                        *count += seen;
                    }
                    None => a.push((name, kind, seen)),
                }
            }
            Kind::Object(a)
        }
        _ => Kind::Mixed,
    }
}

fn sql(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "BOOLEAN".into(),
        Kind::Integer => "BIGINT".into(),
        Kind::Float => "DOUBLE".into(),
        Kind::Time => "TIMESTAMP".into(),
        Kind::Text | Kind::Unknown => "STRING".into(),
        Kind::Mixed => "JSON".into(),
        Kind::Array(item) => format!("ARRAY<{}>", sql(item)),
        Kind::Object(fields) if fields.is_empty() => "JSON".into(),
        Kind::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, kind, _)| format!("{} {}", quoted(name), sql(kind))).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
    }
}

/// A name as a job file writes it: bare where that is possible.
pub fn quoted(name: &str) -> String {
    let bare = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if bare { name.into() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_the_columns_of_a_table() {
        let samples: [&[u8]; 3] = [
            br#"{"id":"a","n":1,"at":"2019-11-19T10:10:11Z","more":{"m1":1,"a b":"x"},"l":[1]}"#,
            br#"{"id":"b","n":1.5,"at":"2019-11-19T10:10:11Z","more":{"m1":2.5}}"#,
            b"junk",
        ];
        let columns: Vec<_> = infer(samples.into_iter()).into_iter().map(|c| (c.name, c.sql_type, c.always)).collect();
        let expected = [
            ("id", "STRING", true),
            ("n", "DOUBLE", true),
            ("at", "TIMESTAMP", true),
            ("more", "STRUCT<\"a b\" STRING, m1 DOUBLE>", true),
            ("l", "ARRAY<BIGINT>", false),
        ];
        let mut expected: Vec<_> = expected.iter().map(|(n, t, a)| (n.to_string(), t.to_string(), *a)).collect();
        let mut columns = columns;
        columns.sort();
        expected.sort();
        assert_eq!(columns, expected);
    }
}
