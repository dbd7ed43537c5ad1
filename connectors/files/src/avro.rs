//! The rows of an Avro object container file.
//!
//! The file's frame is read here, and what lies in it by `arrow-avro`. Its own readers of files hold a whole file in memory,
//! or take one that is cut off for one that ends, and none looks at the markers between blocks.

mod frame;
mod rows;
mod schema;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_avro::compression::CompressionCodec;
use engine::source::SourceError;
use formats::AvroCodec;

use self::frame::{Frame, LARGEST_BLOCK};
use self::rows::Rows;
use self::schema::FileSchema;
use crate::adapt::project;
use crate::file::File;
use crate::prefetch::{Delivery, Piece, ReaderGone};

/// Rows that are handed on together.
const ROWS_AT_ONCE: usize = 4096;

/// The rows of the file from row `from` on, with the columns that are wanted and no others.
pub async fn fetch(file: File, from: usize, wanted: SchemaRef, delivery: Arc<Delivery>) -> Result<(), SourceError> {
    let damaged = |e: String| damaged(&file, e);
    let mut frame = Frame::of(&file);
    let header = frame.header().await?;
    let schema = header.writer_schema().map_err(|e| damaged(e.to_string()))?;
    let schema = FileSchema::parse(&schema.json_string).map_err(damaged)?;
    let codec = header.compression().map_err(|e| e.to_string()).and_then(codec).map_err(damaged)?;
    let mut rows = Rows::of(&schema, None).map_err(damaged)?;
    let columns = rows.columns().map_err(damaged)?;
    let needed = project(&columns, &wanted).map_err(|e| SourceError::failed(&file.place, e))?;
    if needed.len() < columns.fields().len() {
        rows = Rows::of(&schema, Some(&needed)).map_err(damaged)?;
    }
    let mut passed = 0;
    while let Some(block) = frame.block(header.sync()).await? {
        passed += block.rows;
        if passed < from {
            continue;
        }
        let at = |e: String| damaged(format!("the block at byte {}: {e}", block.at));
        rows.push(block.rows, |unpacked| codec.unpack(&block.packed, unpacked, LARGEST_BLOCK)).map_err(at)?;
        if rows.enough() {
            let batch = rows.take().map_err(at)?;
            if hand_on(batch, passed, from, &delivery).await.is_err() {
                return Ok(());
            }
        }
    }
    let last = rows.take().map_err(damaged)?;
    let _ = hand_on(last, passed, from, &delivery).await;
    Ok(())
}

/// Hands on rows that end before row `end` of the file, without those before `from`.
async fn hand_on(rows: RecordBatch, end: usize, from: usize, delivery: &Delivery) -> Result<(), ReaderGone> {
    let read_before = from.saturating_sub(end - rows.num_rows());
    for first in (read_before..rows.num_rows()).step_by(ROWS_AT_ONCE) {
        let piece = rows.slice(first, ROWS_AT_ONCE.min(rows.num_rows() - first));
        delivery.send(Piece::Rows(piece)).await?;
    }
    Ok(())
}

fn codec(of_header: Option<CompressionCodec>) -> Result<AvroCodec, String> {
    AvroCodec::named(of_header.map(|codec| match codec {
        CompressionCodec::Deflate => &b"deflate"[..],
        CompressionCodec::Snappy => b"snappy",
        CompressionCodec::ZStandard => b"zstandard",
        CompressionCodec::Bzip2 => b"bzip2",
        CompressionCodec::Xz => b"xz",
    }))
}

fn damaged(file: &File, why: String) -> SourceError {
    SourceError::failed(&file.place, format!("not a readable Avro file: {why}"))
}
