//! One Parquet file of the table: encoded in memory, with the statistics that Delta keeps of it.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A closed file, as the job log's token and the table's `add` action name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Within the table.
    pub path: String,
    pub size: u64,
    pub rows: u64,
    #[serde(rename = "partitionValues")]
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Delta's own JSON text of the statistics.
    pub stats: String,
}

impl DataFile {
    pub fn add_action(&self, now: i64) -> Value {
        json!({"add": {
            "path": encode_path(&self.path),
            "partitionValues": self.partition_values,
            "size": self.size,
            "modificationTime": now,
            "dataChange": true,
            "stats": self.stats,
        }})
    }
}

/// Delta stores paths as URLs do.
fn encode_path(path: &str) -> String {
    path.replace('%', "%25").replace(' ', "%20")
}

/// Encodes rows as they come.
pub struct ParquetFile {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    pub rows: u64,
}

impl ParquetFile {
    /// `first`: the first rows, from which the encodings are chosen.
    pub fn new(schema: SchemaRef, compression: Compression, first: &RecordBatch) -> Result<Self, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(compression)
            // Dictionaries cost three to five times the encoding where nearly every value is another.
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("millrace version ", env!("CARGO_PKG_VERSION")).to_string());
        for (index, field) in schema.fields().iter().enumerate() {
            if repeats(first.column(index).as_ref()) {
                properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), true);
            }
        }
        let writer = ArrowWriter::try_new(vec![], schema.clone(), Some(properties.build()))?;
        Ok(ParquetFile { writer, schema, rows: 0 })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch)
    }

    /// Bytes encoded so far, and waiting to be.
    pub fn size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// The file's bytes and statistics.
    pub fn close(mut self) -> Result<(Bytes, String), ParquetError> {
        let metadata = self.writer.finish()?;
        let stats = statistics(&self.schema, &metadata, self.rows);
        // `into_inner` would finish a second time, which is an error.
        Ok((std::mem::take(self.writer.inner_mut()).into(), stats.to_string()))
    }
}

/// The rows in the types that Delta stores.
pub fn to_stored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns =
        columns.map(|(c, f)| if c.data_type() == f.data_type() { Ok(c.clone()) } else { cast(c, f.data_type()) });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

/// Whether a text column has few values, seen from its first rows.
fn repeats(column: &dyn Array) -> bool {
    if column.data_type() != &DataType::Utf8 || column.len() < 8 {
        return false;
    }
    let sample: Vec<&str> = column.as_string::<i32>().iter().flatten().take(2048).collect();
    let distinct: std::collections::HashSet<&str> = sample.iter().copied().collect();
    distinct.len() * 2 <= sample.len()
}

/// Columns that Delta keeps statistics of, by default.
const INDEXED_COLUMNS: usize = 32;
/// Longer texts would have to be cut, and the upper bound rounded up.
const LONGEST_TEXT: usize = 64;

/// `numRecords`, and per top-level column `nullCount` and, where they are exact, `minValues` and `maxValues`.
fn statistics(schema: &SchemaRef, metadata: &ParquetMetaData, rows: u64) -> Value {
    let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
    for field in schema.fields().iter().take(INDEXED_COLUMNS) {
        let chunks: Option<Vec<&Statistics>> = metadata
            .row_groups()
            .iter()
            .map(|group| {
                let parts = |c: &&parquet::file::metadata::ColumnChunkMetaData| {
                    c.column_path().parts() == [field.name().as_str()]
                };
                group.columns().iter().find(parts)?.statistics()
            })
            .collect();
        let Some(chunks) = chunks.filter(|c| !c.is_empty()) else { continue };
        if let Some(count) = chunks.iter().map(|s| s.null_count_opt()).sum::<Option<u64>>() {
            nulls.insert(field.name().clone(), json!(count));
        }
        if let Some((lowest, highest)) = bounds(&chunks, field.data_type()) {
            min.insert(field.name().clone(), lowest);
            max.insert(field.name().clone(), highest);
        }
    }
    json!({"numRecords": rows, "minValues": min, "maxValues": max, "nullCount": nulls})
}

fn bounds(chunks: &[&Statistics], data_type: &DataType) -> Option<(Value, Value)> {
    let integers = || -> Option<(i64, i64)> {
        let of = |s: &&Statistics| match s {
            Statistics::Int32(v) => Some((*v.min_opt()? as i64, *v.max_opt()? as i64)),
            Statistics::Int64(v) => Some((*v.min_opt()?, *v.max_opt()?)),
            _ => None,
        };
        let all = chunks.iter().map(of).collect::<Option<Vec<_>>>()?;
        Some((all.iter().map(|b| b.0).min()?, all.iter().map(|b| b.1).max()?))
    };
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            integers().map(|(low, high)| (json!(low), json!(high)))
        }
        DataType::Timestamp(_, Some(_)) => {
            // Milliseconds: the lower bound is rounded down, the upper one up.
            let (low, high) = integers()?;
            Some((json!(iso_millis(low.div_euclid(1000))?), json!(iso_millis(high.div_euclid(1000) + 1)?)))
        }
        DataType::Float64 => {
            let of = |s: &&Statistics| match s {
                Statistics::Double(v) => Some((*v.min_opt()?, *v.max_opt()?)),
                _ => None,
            };
            let all = chunks.iter().map(of).collect::<Option<Vec<_>>>()?;
            let low = all.iter().map(|b| b.0).fold(f64::INFINITY, f64::min);
            let high = all.iter().map(|b| b.1).fold(f64::NEG_INFINITY, f64::max);
            (low.is_finite() && high.is_finite()).then(|| (json!(low), json!(high)))
        }
        DataType::Utf8 => {
            let of = |s: &&Statistics| match s {
                Statistics::ByteArray(v) if s.min_is_exact() && s.max_is_exact() => {
                    let text = |b: &parquet::data_type::ByteArray| b.as_utf8().ok().map(String::from);
                    Some((text(v.min_opt()?)?, text(v.max_opt()?)?))
                }
                _ => None,
            };
            let all = chunks.iter().map(of).collect::<Option<Vec<_>>>()?;
            let low = all.iter().map(|b| b.0.clone()).min()?;
            let high = all.iter().map(|b| b.1.clone()).max()?;
            (low.len() <= LONGEST_TEXT && high.len() <= LONGEST_TEXT).then(|| (json!(low), json!(high)))
        }
        _ => None,
    }
}

fn iso_millis(millis: i64) -> Option<String> {
    Some(chrono::DateTime::from_timestamp_millis(millis)?.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
