//! Keys as the properties of documents, and queries for those that have them.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use azure_data_cosmos::{CosmosError, Query};
use engine::connector::is_json;
use serde_json::{Map, Value};

use crate::documents::{ID, Key, LONGEST_ID, Paths, key};
use crate::stored::Stored;

/// Keys of a query: its text stays far below what the service takes (512 KB), and none of its conditions has too many parts.
/// <https://learn.microsoft.com/azure/cosmos-db/concepts-limits#sql-query-limits>
pub const AT_ONCE: usize = 200;

/// What documents are looked for.
pub struct Wanted {
    /// The properties that a key has values for, in its order.
    pub properties: Vec<String>,
    /// The keys, each with these properties.
    pub keys: Vec<Map<String, Value>>,
    numbers: HashMap<String, usize>,
}

/// Whether documents with equal values of a column are exactly those that are found by one.
pub fn can_be_key(field: &Field) -> bool {
    match field.data_type() {
        DataType::Utf8 => !is_json(field),
        DataType::Boolean | DataType::Date32 => true,
        of => of.is_integer(),
    }
}

impl Wanted {
    /// `properties`: what each column of the keys is in a document. `integers_as_text`: how a BIGINT is written there.
    pub fn of(keys: &RecordBatch, properties: Vec<String>, integers_as_text: bool) -> Result<Self, ArrowError> {
        let mut values = vec![];
        for (property, array) in properties.iter().zip(keys.columns()) {
            let long = matches!(array.data_type(), DataType::Int64 | DataType::UInt64);
            values.push(values_of(array, property == ID || long && integers_as_text)?);
        }
        let key = |row: usize| {
            let of_row = values.iter().map(|values| values[row].clone());
            properties.iter().cloned().zip(of_row).collect::<Map<_, _>>()
        };
        let keys: Vec<_> = (0..keys.num_rows()).map(key).collect();
        let identities = keys.iter().map(|key| identity(properties.iter().map(|property| key.get(property).cloned())));
        let numbers = identities.enumerate().map(|(number, identity)| (identity, number)).collect();
        Ok(Wanted { properties, keys, numbers })
    }

    /// Which of the keys a document has.
    pub fn number_of(&self, document: &Stored) -> Option<usize> {
        self.numbers.get(&identity(self.properties.iter().map(|property| document.get(property)))).copied()
    }

    /// The id and the partition key of each, if all of them say both.
    pub fn points<'a>(&'a self, paths: &Paths) -> Option<Vec<(&'a str, Key)>> {
        let point = |document: &'a Map<String, Value>| {
            let id = document.get(ID)?.as_str().filter(|id| can_be_addressed(id))?;
            Some((id, key(document, paths).ok()?))
        };
        self.keys.iter().map(point).collect()
    }

    /// A query for some of the keys, by their numbers.
    pub fn query(&self, numbers: &[usize]) -> Result<Query, CosmosError> {
        let names: Vec<String> = self.properties.iter().map(|property| quoted(property)).collect();
        let parameter = |key: usize, column: usize| format!("@p{}", key * names.len() + column);
        let condition = match names.as_slice() {
            [name] => {
                let list: Vec<String> = (0..numbers.len()).map(|key| parameter(key, 0)).collect();
                format!("{name} IN ({})", list.join(", "))
            }
            _ => {
                let equal = |key, column: usize| format!("{} = {}", names[column], parameter(key, column));
                let key = |key| (0..names.len()).map(|column| equal(key, column)).collect::<Vec<_>>().join(" AND ");
                (0..numbers.len()).map(|number| format!("({})", key(number))).collect::<Vec<_>>().join(" OR ")
            }
        };
        let mut query = Query::from(format!("SELECT * FROM c WHERE {condition}"));
        for (key, number) in numbers.iter().enumerate() {
            for (column, property) in self.properties.iter().enumerate() {
                query = query.with_parameter(parameter(key, column), &self.keys[*number][property])?;
            }
        }
        Ok(query)
    }
}

/// What two keys have in common that are the same.
fn identity(values: impl Iterator<Item = Option<Value>>) -> String {
    let value = |value: Option<Value>| match value {
        // The service keeps doubles, and may show 5 as 5.0.
        Some(Value::Number(n)) if n.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < 1e15) => {
            Value::from(n.as_f64().unwrap_or_default() as i64)
        }
        value => value.unwrap_or_default(),
    };
    Value::Array(values.map(value).collect()).to_string()
}

/// A property of a document, whose name [`can_be_asked_for`]. It is a text in single quotes: some take what stands in double ones
/// for something else. <https://learn.microsoft.com/azure/cosmos-db/nosql/query/constants>
fn quoted(property: &str) -> String {
    format!("c['{property}']")
}

/// Whether a query can name a property: the service and the SDK, which reads queries too, escape these in different ways.
pub fn can_be_asked_for(property: &str) -> bool {
    !property.contains(['\'', '\\']) && !property.contains(char::is_control)
}

/// Whether there can be a document with this id at the address that it would have.
fn can_be_addressed(id: &str) -> bool {
    let plain = !id.contains(['/', '\\', '?', '#']) && !id.contains(char::is_control) && !id.chars().all(|c| c == '.');
    plain && (1..=LONGEST_ID).contains(&id.len())
}

/// Values as documents have them. `as_text`: integers, too.
fn values_of(array: &ArrayRef, as_text: bool) -> Result<Vec<Value>, ArrowError> {
    let rows = 0..array.len();
    Ok(match array.data_type() {
        DataType::Utf8 => rows.map(|row| Value::from(array.as_string::<i32>().value(row))).collect(),
        DataType::Boolean => rows.map(|row| Value::from(array.as_boolean().value(row))).collect(),
        DataType::UInt64 if !as_text => {
            rows.map(|row| Value::from(array.as_primitive::<UInt64Type>().value(row))).collect()
        }
        of if of.is_integer() && !as_text => {
            let array = cast(array, &DataType::Int64)?;
            rows.map(|row| Value::from(array.as_primitive::<Int64Type>().value(row))).collect()
        }
        _ => {
            let array = cast(array, &DataType::Utf8)?;
            rows.map(|row| Value::from(array.as_string::<i32>().value(row))).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;

    use super::*;

    fn wanted(columns: Vec<(&str, ArrayRef)>, integers_as_text: bool) -> Wanted {
        let properties = columns.iter().map(|(name, _)| name.to_string()).collect();
        let keys = RecordBatch::try_from_iter(columns).unwrap();
        Wanted::of(&keys, properties, integers_as_text).unwrap()
    }

    fn strings(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn integers(values: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    #[test]
    fn keys_are_parameters_and_names_are_quoted() {
        let one = wanted(vec![("a \"b\"", strings(&["x", "it's"]))], false);
        let said = serde_json::to_string(&one.query(&[1, 0]).unwrap()).unwrap();
        let text = r#"SELECT * FROM c WHERE c['a \"b\"'] IN (@p0, @p1)"#;
        let parameters = r#"[{"name":"@p0","value":"it's"},{"name":"@p1","value":"x"}]"#;
        assert_eq!(said, format!(r#"{{"query":"{text}","parameters":{parameters}}}"#));
        let two = wanted(vec![("a", strings(&["x", "y"])), ("b", integers(&[1, 2]))], false);
        let said = serde_json::to_string(&two.query(&[0, 1]).unwrap()).unwrap();
        assert!(said.contains("(c['a'] = @p0 AND c['b'] = @p1) OR (c['a'] = @p2 AND c['b'] = @p3)"), "{said}");
    }

    #[test]
    fn a_key_with_an_id_and_a_partition_key_is_a_point() {
        let paths = [vec!["part".to_string()]];
        let keys = |ids: &[&str]| wanted(vec![("part", integers(&[1, 2])), (ID, strings(ids))], false);
        let whole = keys(&["a", "b"]);
        let points = whole.points(&paths).unwrap();
        assert_eq!(points.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["a", "b"]);
        assert!(keys(&["a", "b/c"]).points(&paths).is_none(), "it has no address");
        assert!(whole.points(&[vec!["other".to_string()]]).is_none());
        assert!(wanted(vec![(ID, strings(&["a"]))], false).points(&[vec![ID.to_string()]]).is_some());
        assert!(wanted(vec![(ID, integers(&[5]))], false).points(&[vec![ID.to_string()]]).is_some(), "an id is text");
    }

    #[test]
    fn a_document_is_known_by_its_values() {
        let document = |json: &str| serde_json::from_str::<Stored>(json).unwrap();
        let numbers = wanted(vec![("n", integers(&[7, 5])), ("t", strings(&["x", "x"]))], false);
        assert_eq!(numbers.number_of(&document(r#"{"n": 5.0, "t": "x", "more": 1}"#)), Some(1));
        assert_eq!(numbers.number_of(&document(r#"{"n": "5", "t": "x"}"#)), None);
        let texts = wanted(vec![("n", integers(&[i64::MAX]))], true);
        assert_eq!(texts.number_of(&document(r#"{"n": "9223372036854775807"}"#)), Some(0));
    }
}
