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
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::statistics::{Boundless, statistics};

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
pub fn encode_path(path: &str) -> String {
    path.replace('%', "%25").replace(' ', "%20")
}

/// A stored path as the store knows it.
pub fn decode_path(path: &str) -> String {
    path.replace("%20", " ").replace("%25", "%")
}

/// How the name of a file's writer begins, in its footer.
pub const WRITTEN_BY: &str = "millrace version ";
/// Encoded bytes after which a row group is closed: readers and compactions hold one in memory, more than once while it
/// is on its way. Smaller ones cost a reader of few columns a request each.
const ROW_GROUP: usize = 16 << 20;

/// How a file is encoded. `first`: its first rows, from which the encodings are chosen.
pub fn properties(schema: &SchemaRef, compression: Compression, first: &RecordBatch) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        // Dictionaries cost three to five times the encoding where nearly every value is another.
        .set_dictionary_enabled(false)
        // The names that the format gives to the parts of lists and maps: some readers go by them.
        .set_coerce_types(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_bytes(Some(ROW_GROUP))
        .set_created_by(format!("{WRITTEN_BY}{}", env!("CARGO_PKG_VERSION")));
    for (index, field) in schema.fields().iter().enumerate() {
        if repeats(first.column(index).as_ref()) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), true);
        }
    }
    properties.build()
}

/// Encodes rows as they come.
pub struct ParquetFile {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    boundless: Boundless,
    pub rows: u64,
}

impl ParquetFile {
    /// `first`: the first rows, from which the encodings are chosen.
    pub fn new(schema: SchemaRef, compression: Compression, first: &RecordBatch) -> Result<Self, ParquetError> {
        let properties = properties(&schema, compression, first);
        let writer = ArrowWriter::try_new(vec![], schema.clone(), Some(properties))?;
        Ok(ParquetFile { writer, schema, boundless: Boundless::default(), rows: 0 })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.rows += batch.num_rows() as u64;
        self.boundless.look_at(batch);
        self.writer.write(batch)
    }

    /// Bytes encoded so far, and waiting to be.
    pub fn size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// The file's bytes and statistics.
    pub fn close(mut self) -> Result<(Bytes, String), ParquetError> {
        let metadata = self.writer.finish()?;
        let stats = statistics(&self.schema, &metadata, self.rows, &self.boundless);
        // `into_inner` would finish a second time, which is an error.
        Ok((std::mem::take(self.writer.inner_mut()).into(), stats))
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
