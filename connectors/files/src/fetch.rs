//! What runs ahead of a reader: requests for the parts of one file.

use std::pin::pin;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use engine::source::SourceError;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;

use crate::adapt::project;
use crate::file::File;
use crate::prefetch::{Delivery, Piece};

/// What one request asks for, and how many are under way for one file.
const PART: u64 = 1 << 20;
const REQUESTS: usize = 3;
/// A header is looked for in so many bytes.
const LONGEST_HEADER: u64 = 256 << 10;
pub const ROWS_AT_ONCE: usize = 4096;

/// The bytes of a file from `from` on, as they come.
pub fn parts(file: &File, from: u64) -> impl Stream<Item = Result<Bytes, SourceError>> + Send {
    let size = file.meta.size;
    let starts = stream::iter((from..size).step_by(PART as usize));
    starts.map(move |start| file.bytes(start..(start + PART).min(size))).buffered(REQUESTS)
}

/// The bytes of a file from `from` on.
pub async fn bytes(file: File, from: u64, delivery: Arc<Delivery>) -> Result<(), SourceError> {
    let mut parts = pin!(parts(&file, from));
    while let Some(part) = parts.try_next().await? {
        if delivery.send(Piece::Bytes(part)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The header of a CSV file, and its bytes from `from` on.
pub async fn bytes_behind_header(
    file: File,
    from: u64,
    delimiter: u8,
    delivery: Arc<Delivery>,
) -> Result<(), SourceError> {
    let head = file.bytes(0..file.meta.size.min(LONGEST_HEADER)).await?;
    let length = header_length(&head, delimiter)
        .ok_or_else(|| SourceError::failed(&file.place, format!("no header within {LONGEST_HEADER} bytes")))?;
    if delivery.send(Piece::Header(head.slice(..length))).await.is_err() {
        return Ok(());
    }
    bytes(file, from, delivery).await
}

fn header_length(head: &[u8], delimiter: u8) -> Option<usize> {
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    let (mut text, mut ends) = (vec![0; head.len()], vec![0; head.len() + 1]);
    match reader.read_record(head, &mut text, &mut ends) {
        (csv_core::ReadRecordResult::Record, read, ..) => Some(read),
        _ => None,
    }
}

/// The rows of a Parquet file from row `from` on, with the columns that are wanted and no others.
pub async fn parquet(file: File, from: usize, wanted: SchemaRef, delivery: Arc<Delivery>) -> Result<(), SourceError> {
    let damaged = |e: ParquetError| explain(&file, e);
    let builder = ParquetRecordBatchStreamBuilder::new(file.clone()).await.map_err(damaged)?;
    let columns = project(builder.schema(), &wanted).map_err(|e| SourceError::failed(&file.place, e))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    let builder = builder.with_projection(mask).with_batch_size(ROWS_AT_ONCE).with_offset(from);
    let mut rows = builder.build().map_err(damaged)?;
    while let Some(batch) = rows.try_next().await.map_err(damaged)? {
        if delivery.send(Piece::Rows(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes our own error out of its wrapping.
pub fn explain(file: &File, error: ParquetError) -> SourceError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<SourceError>() {
            Ok(own) => *own,
            Err(other) => SourceError::failed(&file.place, other),
        },
        other => SourceError::failed(&file.place, format!("not a readable Parquet file: {other}")),
    }
}
