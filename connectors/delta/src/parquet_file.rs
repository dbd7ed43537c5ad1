//! One Parquet file of the table: encoded in memory, with the statistics that Delta keeps of it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use object_store::PutPayload;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encoding::{Encodings, properties};
use crate::statistics::{Boundless, statistics};

/// A closed file, as the job log's token and the table's `add` action name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Within the table.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// That it holds.
    pub rows: u64,
    /// By column.
    #[serde(rename = "partitionValues")]
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Delta's own JSON text of the statistics.
    pub stats: String,
}

impl DataFile {
    /// The action that adds it to the table, as of this time in milliseconds.
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

/// Bytes of a piece of a file.
const PIECE: usize = 1 << 20;

/// A file's bytes. What is in a piece that is full does not move while the file grows.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    open: Vec<u8>,
}

impl Pieces {
    fn into_payload(mut self) -> PutPayload {
        self.open.shrink_to_fit();
        self.full.push(self.open.into());
        self.full.into_iter().collect()
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open.extend_from_slice(bytes);
        if self.open.len() >= PIECE {
            self.full.push(std::mem::take(&mut self.open).into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Encodes rows as they come.
pub struct ParquetFile {
    writer: ArrowWriter<Pieces>,
    schema: SchemaRef,
    boundless: Boundless,
    pub rows: u64,
}

impl ParquetFile {
    /// `first`: the first rows, from which the encodings are chosen.
    pub fn new(schema: SchemaRef, encodings: Encodings, first: &RecordBatch) -> Result<Self, ParquetError> {
        let properties = properties(&schema, encodings, first)?;
        let writer = ArrowWriter::try_new(Pieces::default(), schema.clone(), Some(properties))?;
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
    pub fn close(mut self) -> Result<(PutPayload, String), ParquetError> {
        let metadata = self.writer.finish()?;
        let stats = statistics(&self.schema, &metadata, self.rows, &self.boundless);
        // `into_inner` would finish a second time, which is an error.
        Ok((std::mem::take(self.writer.inner_mut()).into_payload(), stats))
    }
}

/// The rows in the types that Delta stores.
pub fn to_stored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns =
        columns.map(|(c, f)| if c.data_type() == f.data_type() { Ok(c.clone()) } else { cast(c, f.data_type()) });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}
