//! A Delta table in which rows are looked up: read whole, and again when it has another version.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;
use async_trait::async_trait;
use deltalake::DeltaTable;
use engine::connector::{Origin, Problem, TableSpec};
use engine::lookup::{Loaded, Lookup, LookupError, LookupRequest};
use engine::sink::SinkError;
use futures::TryStreamExt;
use object_store::path::Path;
use serde_json::Value;

use crate::options::storage;
use crate::reader::TableReader;
use crate::schema::delta_field;
use crate::store::{Opened, is_there, missing_folder, open, table_at};

/// What a table may ask of its readers. Deletion vectors are refused where a file has one.
const KNOWN_FEATURES: [&str; 5] =
    ["deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "typeWidening"];
/// Types whose values are values of those behind them, too.
const WIDER: [&[&str]; 2] = [&["byte", "short", "integer", "long"], &["float", "double"]];

pub struct DeltaLookup {
    name: String,
    path: String,
    storage: Vec<(String, String)>,
}

/// A file of the table.
struct LiveFile {
    path: Path,
    partition_values: HashMap<String, Option<String>>,
}

impl DeltaLookup {
    pub fn of(table: &TableSpec) -> Result<DeltaLookup, Vec<Problem>> {
        let options = &table.options;
        let of_writing = ["partition_by", "parquet.", "target_file_size", "compaction", "schema_evolution"];
        let is_of_writing = |name: &&String| of_writing.iter().any(|prefix| name.starts_with(prefix));
        let mut problems: Vec<Problem> = options
            .0
            .keys()
            .filter(is_of_writing)
            .map(|name| {
                Problem::option(name, format!("{name} is for writing; rows are looked up in table {}", table.name))
            })
            .collect();
        if !table.partition_by.is_empty() {
            problems.push(Problem::of("PARTITIONED BY is for writing; a lookup table is partitioned as it is"));
        }
        problems.extend(
            table
                .columns
                .iter()
                .filter(|column| column.origin != Origin::Value)
                .map(|column| Problem::column(column.field.name(), "a Delta table has no metadata of its rows")),
        );
        if !problems.is_empty() {
            return Err(problems);
        }
        let path = options.get("path").unwrap_or_default().to_string();
        Ok(DeltaLookup { name: table.name.clone(), path, storage: storage(options) })
    }

    fn place(&self) -> String {
        format!("table {}, {}", self.name, self.path)
    }

    /// What is wrong with the table itself. Once it has been read, what it was is kept meanwhile.
    fn wrong(&self, seen: Option<&str>, what: impl std::fmt::Display) -> LookupError {
        match seen {
            None => LookupError::failed(self.place(), what),
            Some(_) => LookupError::retry(self.place(), what),
        }
    }

    fn of_sink(&self, seen: Option<&str>, error: SinkError) -> LookupError {
        match error {
            SinkError::Retry { what, .. } => LookupError::retry(self.place(), what),
            SinkError::Failed { what, .. } => self.wrong(seen, what),
        }
    }

    /// Whether the log ends with the version that was seen. Asked first: to open a large table each time would cost much.
    async fn is_newest(&self, table: &DeltaTable, seen: Option<&str>) -> Result<bool, LookupError> {
        let version = seen.and_then(|seen| seen.split(' ').next()?.parse::<u64>().ok());
        let Some(version) = version else { return Ok(false) };
        let store = table.log_store().object_store(None);
        let there = async |version| is_there(&*store, version).await.map_err(|e| LookupError::retry(self.place(), e));
        Ok(there(version).await? && !there(version + 1).await?)
    }

    /// The table as it is now; `None` if it is as it was.
    async fn open(&self, seen: Option<&str>) -> Result<Option<(DeltaTable, Opened)>, LookupError> {
        let nothing = || self.wrong(seen, "there is no Delta table");
        if missing_folder(&self.path).map_err(|e| self.of_sink(seen, e))? {
            return Err(nothing());
        }
        let mut table = table_at(&self.path, &self.storage).map_err(|e| self.of_sink(seen, e))?;
        if self.is_newest(&table, seen).await? {
            return Ok(None);
        }
        let opened = open(&mut table, &self.path).await.map_err(|e| self.of_sink(seen, e))?.ok_or_else(nothing)?;
        Ok(Some((table, opened)))
    }

    async fn files(&self, table: &DeltaTable, seen: Option<&str>) -> Result<Vec<LiveFile>, LookupError> {
        let retry = |e: deltalake::DeltaTableError| LookupError::retry(self.place(), e);
        let (mut files, mut listed) = (vec![], table.get_active_add_actions_by_predicate(None));
        while let Some(file) = listed.try_next().await.map_err(retry)? {
            if file.deletion_vector_descriptor().is_some() {
                let what = "rows of it were deleted by a deletion vector, which is not read: rewrite the table (OPTIMIZE, \
                            REORG TABLE … APPLY (PURGE))";
                return Err(self.wrong(seen, what));
            }
            files.push(LiveFile { path: file.object_store_path(), partition_values: file.partition_values_map() });
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }
}

#[async_trait]
impl Lookup for DeltaLookup {
    fn describe(&self) -> String {
        format!("Delta table in '{}'", self.path)
    }

    async fn load(&self, request: &LookupRequest, seen: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        let Some((table, opened)) = self.open(seen).await? else { return Ok(Loaded::Unchanged) };
        let version = format!("{} of {}", opened.version, opened.metadata["id"].as_str().unwrap_or_default());
        let columns: Vec<FieldRef> = request.columns.iter().map(|column| column.field.clone()).collect();
        let own = own_columns(&opened, &columns).map_err(|what| self.wrong(seen, what))?;
        let names: Vec<&str> = own.iter().map(String::as_str).collect();
        let reader = TableReader::of(table.log_store().object_store(None));
        let mut rows = vec![];
        for file in self.files(&table, seen).await? {
            let of_file = reader.rows_at(&file.path, Some(&names)).await;
            for batch in of_file.map_err(|e| LookupError::retry(self.place(), format!("{}: {e}", file.path)))? {
                let adapted = adapted(&batch, &columns, &own, &file.partition_values);
                rows.push(adapted.map_err(|what| self.wrong(seen, format!("{}: {what}", file.path)))?);
            }
        }
        Ok(Loaded::Rows { version: Some(version), rows })
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

/// Rows of a file with the declared columns. What a file does not have is a partition's value, or was added later.
fn adapted(
    batch: &RecordBatch,
    columns: &[FieldRef],
    own: &[String],
    partition_values: &HashMap<String, Option<String>>,
) -> Result<RecordBatch, String> {
    let rows = batch.num_rows();
    let column = |(field, own): (&FieldRef, &String)| -> Result<ArrayRef, String> {
        let of_file = batch.schema().fields().iter().position(|field| field.name().eq_ignore_ascii_case(own));
        match (partition_values.get(own), of_file) {
            (Some(value), _) => partition_column(value.as_deref(), field.data_type(), rows),
            (None, Some(at)) => fitted(batch.column(at), field.data_type()),
            (None, None) => Ok(new_null_array(field.data_type(), rows)),
        }
        .map_err(|what| format!("column {own}: {what}"))
    };
    let made = columns.iter().zip(own).map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(columns.to_vec())), made, &options)
        .map_err(|e| e.to_string())
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
