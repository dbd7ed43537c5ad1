//! Rows as documents: an id, a partition key, and a body of JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, Schema, TimeUnit};
use arrow::error::ArrowError;
use azure_data_cosmos::PartitionKey;
use azure_data_cosmos::models::PartitionKeyValue;
use serde_json::{Map, Value};

use crate::body::Body;

/// The property that a document's identity is kept in.
pub const ID: &str = "id";
/// The property that says which row of which job a document without an id of its own is.
pub const PROVENANCE: &str = "millrace";
/// The service's own, which it would overwrite.
pub const SYSTEM: &[&str] = &["_rid", "_self", "_etag", "_attachments", "_ts"];

/// What the service allows.
pub const LONGEST_ID: usize = 1023;
const LONGEST_KEY: usize = 2048;
pub const LARGEST_DOCUMENT: usize = 2 << 20;
/// A batch of a hundred documents of this size is allowed: of a smaller one nobody has to know how large it is, which costs the work
/// of writing it.
const SMALL: usize = LARGEST_DOCUMENT / 100 - AROUND;
/// What stands around a document in a batch, such as what is done with it: room enough, and no exact size. A batch that is
/// too large all the same is refused, and goes one by one.
pub const AROUND: usize = 256;
/// How much longer a text of JSON may become when it is read and written again: `[1e15,1e15]` becomes `[1000000000000000.0,…]`.
const GROWTH: usize = 5;

/// Rows that are text at the same time: a buffer that does not fit in a cache is written to memory, and read from it again.
const ROWS_AT_ONCE: usize = 256;

/// How rows of a table become documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The columns whose values are the id, in order; empty: the id is made of which row it is.
    pub id: Vec<String>,
    /// The column that says which of two documents is the newer one.
    pub version: Option<String>,
    /// Whether NULL is written, and not left out.
    pub nulls: bool,
    pub decimals_as_numbers: bool,
    pub integers_as_text: bool,
}

/// One row on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The entry that it belongs to, its token within that, and its place within the token's rows.
    pub place: (u64, usize, u64),
    pub id: String,
    pub key: Key,
    pub body: Body,
    /// Of the body in a batch; of a small one, at most.
    pub bytes: usize,
    pub version: Option<i64>,
}

impl Document {
    /// What no two documents of a container have in common.
    pub fn identity(&self) -> (&str, &str) {
        (&self.key.text, &self.id)
    }
}

/// A partition key, and what tells it from others: its values, as JSON.
#[derive(Debug, Clone)]
pub struct Key {
    pub value: PartitionKey,
    pub text: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Where a document is.
struct Address {
    id: String,
    key: Key,
}

/// A row that can be no document.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: String,
    /// The row, as JSON.
    pub content: String,
}

/// Where in a document a partition key lies.
pub type Paths = [Vec<String>];

impl Layout {
    /// The rows of a batch, in order. `name`: which row it is, by its place in the batch.
    pub fn documents(
        &self,
        batch: &RecordBatch,
        paths: &Paths,
        place: impl Fn(usize) -> (u64, usize, u64),
        name: impl Fn(usize) -> String,
    ) -> Result<Vec<Result<Document, Refused>>, ArrowError> {
        let mut documents = Vec::with_capacity(batch.num_rows());
        for first in (0..batch.num_rows()).step_by(ROWS_AT_ONCE) {
            let rows = batch.slice(first, ROWS_AT_ONCE.min(batch.num_rows() - first));
            documents.extend(self.of_rows(&rows, paths, |row| place(first + row), |row| name(first + row))?);
        }
        Ok(documents)
    }

    fn of_rows(
        &self,
        batch: &RecordBatch,
        paths: &Paths,
        place: impl Fn(usize) -> (u64, usize, u64),
        name: impl Fn(usize) -> String,
    ) -> Result<Vec<Result<Document, Refused>>, ArrowError> {
        let versions = self.versions(batch)?;
        let shown = self.shown(batch)?;
        let unwritable = formats::unwritable(&shown);
        let names: Option<Vec<String>> = self.id.is_empty().then(|| (0..batch.num_rows()).map(name).collect());
        let addresses = self.addresses(&shown, paths, names.as_deref())?;
        let text = self.text(&self.named(&shown, names.as_deref(), &addresses)?)?;
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() != batch.num_rows() {
            return Err(ArrowError::JsonError(format!("{} rows are {} lines", batch.num_rows(), lines.len())));
        }
        let documents = addresses.into_iter().zip(lines).enumerate().map(|(row, (address, text))| {
            if let Some(reason) = unwritable.get(&row) {
                return Err(reason.clone());
            }
            let body = Body::of(text)?;
            let Address { id, key } = address?;
            let at_most = GROWTH * body.text().len();
            let bytes = if at_most <= SMALL { at_most } else { body.size().map_err(|e| e.to_string())? };
            // What is larger in a batch than by itself goes by itself.
            if body.text().len() > LARGEST_DOCUMENT {
                return Err(format!("{} bytes are more than the 2 MB of a document", body.text().len()));
            }
            let version =
                versions.as_ref().filter(|v| v.is_valid(row)).map(|v| v.as_primitive::<Int64Type>().value(row));
            if self.version.is_some() && version.is_none() {
                return Err("it has no version".into());
            }
            Ok(Document { place: place(row), id, key, body, bytes, version })
        });
        let documents = documents.enumerate().map(|(row, document)| match document {
            Ok(document) => Ok(Ok(document)),
            Err(reason) => {
                Ok(Err(Refused { reason, content: self.text(&shown.slice(row, 1))?.trim_end().to_string() }))
            }
        });
        documents.collect()
    }

    /// Where each row's document is, found in those columns alone that say so. `names`: which rows they are, where ids are made
    /// of that.
    fn addresses(
        &self,
        shown: &RecordBatch,
        paths: &Paths,
        names: Option<&[String]>,
    ) -> Result<Vec<Result<Address, String>>, ArrowError> {
        let says = |name: &String| self.id.contains(name) || paths.iter().any(|path| path[0] == *name);
        let columns: Vec<usize> =
            (0..shown.num_columns()).filter(|at| says(shown.schema_ref().field(*at).name())).collect();
        let mut properties = vec![];
        // Without a column, a batch of arrow has no lines.
        if !columns.is_empty() {
            formats::json_lines(&shown.project(&columns)?, &mut properties)?;
        }
        let mut lines = properties.split(|byte| *byte == b'\n');
        let address = |row: usize| {
            let line = lines.next().filter(|line| !line.is_empty());
            let known = line.map_or(Ok(Map::new()), serde_json::from_slice);
            // Whether it is JSON is told of the whole row.
            self.address(known.map_err(|e| e.to_string())?, paths, names.map(|names| &names[row]))
        };
        Ok((0..shown.num_rows()).map(address).collect())
    }

    /// `known`: those properties that the address is made of.
    fn address(&self, mut known: Map<String, Value>, paths: &Paths, name: Option<&String>) -> Result<Address, String> {
        let id = match name {
            Some(name) => derived_id(name),
            None => self.own_id(&known)?,
        };
        if let Some(name) = name {
            known.insert(PROVENANCE.into(), name.clone().into());
        }
        known.insert(ID.into(), id.clone().into());
        Ok(Address { key: key(&known, paths)?, id })
    }

    /// The rows with what makes documents of them: their ids, and if these are made of which rows they are, that.
    fn named(
        &self,
        shown: &RecordBatch,
        names: Option<&[String]>,
        addresses: &[Result<Address, String>],
    ) -> Result<RecordBatch, ArrowError> {
        let ids = StringArray::from_iter(addresses.iter().map(|address| address.as_ref().ok().map(|at| &at.id)));
        let mut added: Vec<(&str, ArrayRef)> = vec![(ID, Arc::new(ids))];
        if let Some(names) = names {
            added.push((PROVENANCE, Arc::new(StringArray::from_iter_values(names))));
        }
        let of_rows = shown.schema_ref().fields().iter().zip(shown.columns());
        let of_rows = of_rows.filter(|(field, _)| !added.iter().any(|(name, _)| field.name() == name));
        let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) =
            of_rows.map(|(field, column)| (field.clone(), column.clone())).unzip();
        for (name, column) in &added {
            fields.push(Arc::new(Field::new(*name, DataType::Utf8, true)));
            columns.push(column.clone());
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }

    /// A line a row.
    fn text(&self, rows: &RecordBatch) -> Result<String, ArrowError> {
        let mut lines = vec![];
        if self.nulls {
            formats::json_lines_with_nulls(rows, &mut lines)?;
        } else {
            formats::json_lines(rows, &mut lines)?;
        }
        String::from_utf8(lines).map_err(|e| ArrowError::JsonError(e.to_string()))
    }

    /// What is stored of the version column is compared with what is to be: see [`stored_version`].
    fn versions(&self, batch: &RecordBatch) -> Result<Option<ArrayRef>, ArrowError> {
        let Some(name) = &self.version else { return Ok(None) };
        let column = batch.column_by_name(name).ok_or_else(|| {
            ArrowError::SchemaError(format!("the version column {name} is not among the staged ones"))
        })?;
        let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let column = match column.data_type() {
            DataType::Timestamp(..) => cast(&cast(column, &nanos)?, &DataType::Int64)?,
            _ => cast(column, &DataType::Int64)?,
        };
        Ok(Some(column))
    }

    /// The columns as they are shown: what JSON numbers cannot hold is text, if that is wanted.
    fn shown(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let schema = batch.schema();
        let fields: Vec<FieldRef> = schema.fields().iter().map(|field| self.shown_field(field)).collect();
        let columns = batch.columns().iter().zip(&fields).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
        });
        let columns = columns.collect::<Result<_, ArrowError>>()?;
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }

    fn shown_field(&self, field: &FieldRef) -> FieldRef {
        let shown = match field.data_type() {
            DataType::Decimal128(..) | DataType::Decimal256(..) => {
                if self.decimals_as_numbers {
                    DataType::Float64
                } else {
                    DataType::Utf8
                }
            }
            DataType::Int64 | DataType::UInt64 if self.integers_as_text => DataType::Utf8,
            DataType::Struct(fields) => {
                DataType::Struct(fields.iter().map(|field| self.shown_field(field)).collect::<Fields>())
            }
            DataType::List(item) => DataType::List(self.shown_field(item)),
            DataType::Map(entries, sorted) => DataType::Map(self.shown_field(entries), *sorted),
            _ => return field.clone(),
        };
        Arc::new(Field::clone(field).with_data_type(shown))
    }

    fn own_id(&self, body: &Map<String, Value>) -> Result<String, String> {
        let mut parts = vec![];
        for column in &self.id {
            let text = match body.get(column) {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                Some(Value::Array(_) | Value::Object(_)) => {
                    return Err(format!("{column} is no text that could be an id"));
                }
                None | Some(Value::Null) => return Err(format!("{column}, its id, is NULL")),
            };
            // Several columns: what joins them must not be in them, or two rows could be one.
            parts.push(if self.id.len() > 1 { text.replace('%', "%25").replace('|', "%7C") } else { text });
        }
        let id = parts.join("|");
        match id.as_str() {
            "" => Err("its id is empty".into()),
            long if long.len() > LONGEST_ID => Err(format!("its id has {} bytes of {LONGEST_ID} at most", long.len())),
            // An address with one of them could be that of another document.
            bad if bad.chars().all(|c| c == '.') => Err(format!("its id '{bad}' is a step of a path")),
            bad if bad.contains(char::is_control) => Err(format!("its id {bad:?} has a control character in it")),
            bad if bad.contains(['/', '\\', '?', '#']) => {
                Err(format!("its id '{bad}' has a '/', '\\', '?' or '#' in it"))
            }
            _ => Ok(id),
        }
    }
}

/// The id of a document that has none of its own: of fixed length, and another one for every row that ever was.
fn derived_id(name: &str) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(name.as_bytes()))
}

/// The partition key of a document.
pub fn key(body: &Map<String, Value>, paths: &Paths) -> Result<Key, String> {
    let (mut values, mut shown) = (vec![], vec![]);
    for path in paths {
        let name = || path.join("/");
        let mut found = body.get(&path[0]);
        for step in &path[1..] {
            found = found.and_then(|value| value.get(step));
        }
        let found = match found {
            Some(Value::String(text)) if text.len() > LONGEST_KEY => {
                let what = format!("its partition key /{} has {} bytes of {LONGEST_KEY} at most", name(), text.len());
                return Err(what);
            }
            // However it is written, a number is a double; and there is one zero.
            Some(Value::Number(number)) => Value::from(number.as_f64().unwrap_or_default() + 0.0),
            Some(value @ (Value::String(_) | Value::Bool(_))) => value.clone(),
            Some(Value::Array(_) | Value::Object(_)) => {
                return Err(format!("its partition key /{} is no text, number or boolean", name()));
            }
            None | Some(Value::Null) => return Err(format!("its partition key /{} is NULL", name())),
        };
        values.push(match &found {
            Value::Bool(flag) => PartitionKeyValue::from(*flag),
            Value::String(text) => PartitionKeyValue::from(text.clone()),
            number => PartitionKeyValue::try_from(number.as_f64().unwrap_or_default()).map_err(|e| e.to_string())?,
        });
        shown.push(found);
    }
    let text = Value::Array(shown).to_string();
    Ok(Key { value: PartitionKey::try_from(values).map_err(|e| e.to_string())?, text })
}

/// The version of a document that is there, to be compared with one that is to be.
pub fn stored_version(stored: &Value) -> Option<i64> {
    match stored {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|n| n as i64)),
        Value::String(text) => {
            text.parse().ok().or_else(|| arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text).ok())
        }
        _ => None,
    }
}

/// Whether a column can be a version: an integer, or a time.
pub fn can_be_version(data_type: &DataType) -> bool {
    data_type.is_signed_integer()
        || matches!(data_type, DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::Timestamp(..))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal128Array, Float64Array, Int64Array, ListArray, StringArray, StructArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::Float64Type;
    use serde_json::json;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    fn strings(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn documents(layout: &Layout, batch: &RecordBatch) -> Vec<Result<Document, Refused>> {
        let paths = [vec!["device".to_string()]];
        layout.documents(batch, &paths, |row| (7, 0, row as u64), |row| format!("log/t/w/7/0.{row}")).unwrap()
    }

    fn reasons(layout: &Layout, batch: &RecordBatch) -> Vec<String> {
        documents(layout, batch).into_iter().map(|d| d.err().map_or("taken".into(), |r| r.reason)).collect()
    }

    fn properties(document: &Document) -> Value {
        Value::Object(document.body.properties().unwrap())
    }

    fn by(id: &[&str]) -> Layout {
        Layout { id: id.iter().map(|name| name.to_string()).collect(), ..Layout::default() }
    }

    #[test]
    fn a_row_is_a_document_with_its_id_and_what_is_null_is_left_out() {
        let time: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(vec![1_700_000_000_123_456_700]).with_timezone("UTC"));
        let rows = batch(vec![
            ("event", strings(&[Some("e1")])),
            ("device", strings(&[Some("d1")])),
            ("time", time),
            ("kind", strings(&[None])),
        ]);
        let document = documents(&by(&["event"]), &rows).remove(0).unwrap();
        let body = r#"{"event":"e1","device":"d1","time":"2023-11-14T22:13:20.123456700Z","id":"e1"}"#;
        assert_eq!(document.body.text(), body);
        assert_eq!((document.id.as_str(), document.place), ("e1", (7, 0, 0)));
    }

    #[test]
    fn what_is_null_is_null_in_the_document_if_that_is_asked_for_within_a_struct_too() {
        let fields = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]);
        let inner: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![None]))];
        let rows = batch(vec![
            ("event", strings(&[Some("e")])),
            ("device", strings(&[Some("d")])),
            ("kind", strings(&[None])),
            ("data", Arc::new(StructArray::new(fields, inner, None))),
        ]);
        let of = |nulls| documents(&Layout { nulls, ..by(&["event"]) }, &rows).remove(0).unwrap();
        let with = json!({"event": "e", "device": "d", "id": "e", "kind": null, "data": {"a": 1, "b": null}});
        assert_eq!(properties(&of(true)), with);
        let without = json!({"event": "e", "device": "d", "id": "e", "data": {"a": 1}});
        assert_eq!(properties(&of(false)), without);
    }

    #[test]
    fn the_size_of_a_document_is_exact_where_it_matters_and_never_too_small() {
        let field = engine::connector::json_field("data", true);
        let schema = Arc::new(Schema::new(vec![
            Field::new("event", DataType::Utf8, true),
            Field::new("device", DataType::Utf8, true),
            field,
        ]));
        for (numbers, exact) in [(1, false), (200, false), (2_000, true), (150_000, true)] {
            // Five bytes each, and nineteen once they are written again.
            let data = format!("[{}]", vec!["1e15"; numbers].join(","));
            let columns = [&"e".repeat(40), "d", data.as_str()].map(|text| strings(&[Some(text)])).to_vec();
            let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
            for layout in [by(&["event"]), Layout::default()] {
                let document = documents(&layout, &rows).remove(0).unwrap();
                let (size, bytes) = (properties(&document).to_string().len(), document.bytes);
                if exact {
                    assert_eq!(bytes, size);
                } else {
                    assert!((size..=SMALL).contains(&bytes), "{bytes} for {size}");
                }
            }
        }
    }

    /// Without a word for it in JSON, it would be null.
    #[test]
    fn a_row_with_a_number_that_is_none_to_json_is_refused_wherever_it_lies() {
        let fields = Fields::from(vec![Field::new("x", DataType::Float64, true)]);
        let inner: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN, 1.0, 1.0]));
        let items = [1.0, 1.0, f64::INFINITY, 1.0].map(|n| Some(vec![Some(0.0), Some(n)]));
        let four = || strings(&[Some("a"), Some("b"), Some("c"), Some("d")]);
        let rows = batch(vec![
            ("event", four()),
            ("device", four()),
            ("n", Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, 1.0, 1.0, 1.0]))),
            ("data", Arc::new(StructArray::new(fields, vec![inner], None))),
            ("items", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(items))),
        ]);
        let reasons = reasons(&by(&["event"]), &rows);
        for (reason, said) in reasons.iter().zip(["column n is -inf", "column data.x is NaN", "column items[] is inf"])
        {
            assert!(reason.starts_with(said), "{reasons:?}");
        }
        assert_eq!(reasons[3], "taken");
        let refused = documents(&by(&["event"]), &rows).remove(1).unwrap_err();
        assert!(refused.content.contains(r#""x":"NaN""#), "the dead letter has it: {}", refused.content);
    }

    #[test]
    fn what_can_be_no_document_is_refused_with_the_reason() {
        let long = "x".repeat(LONGEST_ID + 1);
        let ids = [Some("ok"), None, Some(""), Some("a/b"), Some(".."), Some("a\tb"), Some(&long), Some("no device")];
        let devices: Vec<_> = (0..ids.len()).map(|row| (row < ids.len() - 1).then_some("d")).collect();
        let (ids, devices) = (strings(&ids), strings(&devices));
        let reasons = reasons(&by(&["event"]), &batch(vec![("event", ids), ("device", devices)]));
        let expected = [
            "taken",
            "event, its id, is NULL",
            "its id is empty",
            "its id 'a/b' has a '/', '\\', '?' or '#' in it",
            "its id '..' is a step of a path",
            "its id \"a\\tb\" has a control character in it",
            "its id has 1024 bytes of 1023 at most",
            "its partition key /device is NULL",
        ];
        assert_eq!(reasons, expected);
        let large = "x".repeat(LARGEST_DOCUMENT);
        let rows = batch(vec![
            ("event", strings(&[Some("e")])),
            ("device", strings(&[Some("d")])),
            ("text", strings(&[Some(&large)])),
        ]);
        assert!(
            documents(&by(&["event"]), &rows)
                .remove(0)
                .unwrap_err()
                .reason
                .contains("more than the 2 MB of a document")
        );
    }

    #[test]
    fn numbers_that_a_double_cannot_hold_are_not_bent() {
        let big: ArrayRef = Arc::new(Int64Array::from(vec![1 << 53, (1 << 53) + 1]));
        let exact: ArrayRef = Arc::new(Decimal128Array::from(vec![10, 1]).with_precision_and_scale(38, 20).unwrap());
        let two = || strings(&[Some("a"), Some("b")]);
        let rows = batch(vec![("event", two()), ("device", two()), ("n", big), ("price", exact)]);
        let reasons = reasons(&by(&["event"]), &rows);
        assert_eq!(reasons[0], "taken");
        assert!(reasons[1].contains("set 'json.integers' = 'text'"), "{reasons:?}");
        let as_text = Layout { integers_as_text: true, ..by(&["event"]) };
        let body = properties(&documents(&as_text, &rows).remove(1).unwrap());
        assert_eq!(
            (&body["n"], &body["price"]),
            (&Value::from("9007199254740993"), &Value::from("0.00000000000000000001"))
        );
        let nearest = Layout { decimals_as_numbers: true, ..as_text };
        assert_eq!(properties(&documents(&nearest, &rows).remove(1).unwrap())["price"], Value::from(1e-20));
    }

    #[test]
    fn a_json_column_is_looked_into_too_and_cannot_say_what_the_document_is() {
        let field = engine::connector::json_field("data", true);
        let schema = Schema::new(vec![
            Field::new("event", DataType::Utf8, true),
            Field::new("device", DataType::Utf8, true),
            field,
        ]);
        let of = |data: &str| {
            let columns = vec![strings(&[Some("e")]), strings(&[Some("d")]), strings(&[Some(data)])];
            let rows = RecordBatch::try_new(Arc::new(schema.clone()), columns).unwrap();
            documents(&Layout { integers_as_text: true, ..by(&["event"]) }, &rows).remove(0)
        };
        let refused = of(r#"{"n": [9007199254740993]}"#).unwrap_err();
        assert!(refused.reason.starts_with("9007199254740993 is more than a document can hold"), "{refused:?}");
        assert_eq!(refused.content, r#"{"event":"e","device":"d","data":{"n": [9007199254740993]}}"#);
        let refused = of("{").unwrap_err();
        assert!(refused.reason.starts_with("a JSON column holds no JSON: "), "{refused:?}");
        let kept = of(r#"1,"id":"other","data":2"#).unwrap();
        assert_eq!(properties(&kept), json!({"event": "e", "device": "d", "data": 2, "id": "e"}));
    }

    #[test]
    fn a_partition_key_is_found_within_a_struct_a_json_column_and_the_id_itself() {
        let fields = Fields::from(vec![Field::new("b", DataType::Int64, true)]);
        let inner: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let schema = Schema::new(vec![
            Field::new("event", DataType::Utf8, true),
            Field::new("a", DataType::Struct(fields.clone()), true),
            engine::connector::json_field("data", true),
        ]);
        let columns = vec![
            strings(&[Some("e")]),
            Arc::new(StructArray::new(fields, vec![inner], None)),
            strings(&[Some(r#"{"x": {"y": true}, "z": 1}"#)]),
        ];
        let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let keys = |layout: &Layout, paths: &[&str]| {
            let paths: Vec<Vec<String>> =
                paths.iter().map(|path| path.split('/').map(String::from).collect()).collect();
            let made = layout.documents(&rows, &paths, |row| (7, 0, row as u64), |row| format!("log.{row}"));
            made.unwrap().remove(0).map(|document| document.key.text).map_err(|refused| refused.reason)
        };
        assert_eq!(keys(&by(&["event"]), &["a/b", "data/x/y", "id"]).unwrap(), r#"[7.0,true,"e"]"#);
        assert_eq!(keys(&by(&["event"]), &["data/nothing"]).unwrap_err(), "its partition key /data/nothing is NULL");
        let derived = format!("[\"{}\",\"log.0\"]", derived_id("log.0"));
        assert_eq!(keys(&Layout::default(), &["id", "millrace"]).unwrap(), derived);
    }

    #[test]
    fn two_columns_are_one_id_that_no_other_two_are() {
        let layout = by(&["a", "device"]);
        let rows =
            batch(vec![("a", strings(&[Some("x|y"), Some("x")])), ("device", strings(&[Some("z"), Some("y|z")]))]);
        let ids: Vec<_> = documents(&layout, &rows).into_iter().map(|d| d.unwrap().id).collect();
        assert_eq!(ids, ["x%7Cy|z", "x|y%7Cz"]);
    }

    #[test]
    fn a_row_without_an_id_gets_one_of_its_own_that_is_the_same_each_time() {
        let rows = batch(vec![("device", strings(&[Some("d"), Some("d")]))]);
        let ids = || documents(&Layout::default(), &rows).into_iter().map(|d| d.unwrap().id).collect::<Vec<_>>();
        assert_eq!(ids(), ids());
        assert_ne!(ids()[0], ids()[1]);
        assert_eq!(properties(&documents(&Layout::default(), &rows).remove(1).unwrap())[PROVENANCE], "log/t/w/7/0.1");
    }

    #[test]
    fn a_stored_version_is_compared_whatever_form_it_has() {
        let rows = batch(vec![
            ("event", strings(&[Some("e")])),
            ("device", strings(&[Some("d")])),
            ("time", Arc::new(TimestampNanosecondArray::from(vec![1_700_000_000_123_456_700]).with_timezone("UTC"))),
        ]);
        let layout = Layout { version: Some("time".into()), ..by(&["event"]) };
        let document = documents(&layout, &rows).remove(0).unwrap();
        assert_eq!(document.version, stored_version(&properties(&document)["time"]));
        assert_eq!(stored_version(&Value::from(5)), Some(5));
        assert_eq!(stored_version(&Value::from(5.0)), Some(5));
        assert_eq!(stored_version(&Value::Null), None);
    }
}
