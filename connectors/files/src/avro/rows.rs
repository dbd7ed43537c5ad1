//! What lies in the blocks, as rows.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{Fingerprint, FingerprintAlgorithm, SchemaStore};

use super::schema::FileSchema;

/// The name by which the decoder knows the one schema that it gets.
const SCHEMA: u32 = 0x6d69_6c6c;
/// Small blocks are handed on together.
const ENOUGH_ROWS: usize = 4096;
const ENOUGH_BYTES: usize = 4 << 20;
/// So many blocks at most: `arrow-avro` stops there by itself.
const ENOUGH_BLOCKS: usize = 1024;

/// Blocks on their way to be rows.
///
/// To `arrow-avro` a block is a message with one field, an array, whose items are the file's rows: an array is encoded as their
/// number, the items and a zero, and a block as their number, its size and the items. So it says how many bytes the rows took.
pub struct Rows {
    decoder: Decoder,
    message: Vec<u8>,
    /// What the blocks that are decoded hold.
    blocks: usize,
    rows: usize,
    bytes: usize,
}

impl Rows {
    /// Decodes the columns of these indices of those that can have a value, or all.
    pub fn of(schema: &FileSchema, columns: Option<&[usize]>) -> Result<Rows, String> {
        let mut schemas = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        schemas.set(Fingerprint::Id(SCHEMA), schema.written()).map_err(|e| e.to_string())?;
        let builder = ReaderBuilder::new()
            .with_writer_schema_store(schemas)
            .with_active_fingerprint(Fingerprint::Id(SCHEMA))
            .with_tz(Tz::Utc)
            .with_reader_schema(schema.read(columns))
            .with_batch_size(ENOUGH_BLOCKS);
        let decoder = builder.build_decoder().map_err(|e| e.to_string())?;
        Ok(Rows { decoder, message: vec![], blocks: 0, rows: 0, bytes: 0 })
    }

    pub fn columns(&self) -> Result<Schema, String> {
        let DataType::List(row) = self.decoder.schema().field(0).data_type().clone() else {
            return Err("its rows are no list".into());
        };
        match row.data_type() {
            DataType::Struct(columns) => Ok(Schema::new(columns.clone())),
            other => Err(format!("its rows are {other}")),
        }
    }

    /// Decodes a block of `rows` rows, whose bytes `unpack` appends.
    pub fn push(&mut self, rows: usize, unpack: impl FnOnce(&mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
        self.message.clear();
        self.message.push(0);
        self.message.extend_from_slice(&SCHEMA.to_be_bytes());
        if rows > 0 {
            number(rows, &mut self.message);
        }
        unpack(&mut self.message)?;
        self.message.push(0);
        let taken = self.decoder.decode(&self.message).map_err(|e| e.to_string())?;
        if taken != self.message.len() {
            return Err(format!("it does not hold the {rows} rows that it says"));
        }
        self.blocks += 1;
        self.rows += rows;
        self.bytes += taken;
        Ok(())
    }

    pub fn enough(&self) -> bool {
        self.rows >= ENOUGH_ROWS || self.bytes >= ENOUGH_BYTES || self.blocks >= ENOUGH_BLOCKS
    }

    /// The rows of all blocks since the last call.
    pub fn take(&mut self) -> Result<RecordBatch, String> {
        let said = std::mem::take(&mut self.rows);
        (self.blocks, self.bytes) = (0, 0);
        let Some(blocks) = self.decoder.flush().map_err(|e| e.to_string())? else {
            return Ok(RecordBatch::new_empty(self.columns()?.into()));
        };
        let rows = RecordBatch::from(blocks.column(0).as_list::<i32>().values().as_struct());
        match rows.num_rows() {
            found if found == said => Ok(rows),
            found => Err(format!("the blocks before it hold {found} rows and say {said}")),
        }
    }
}

/// Zigzag, seven bits a byte.
fn number(number: usize, out: &mut Vec<u8>) {
    let mut bits = (number as u64) << 1;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}
