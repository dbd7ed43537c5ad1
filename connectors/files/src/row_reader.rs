//! Reads a file whose format has rows of its own: Parquet and Avro.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;
use engine::dead_letter;
use engine::source::{EventTimeBound, Position, Read, ReadLimit, ReadStatus, Rejected, SourceError, SplitReader};

use crate::adapt::{Unfit, adapt};
use crate::file::File;
use crate::metadata::Layout;
use crate::prefetch::{Arrived, Piece, Prefetch};

/// Reads one file. A position is the number of a row.
pub struct RowReader {
    file: File,
    arriving: Prefetch,
    layout: Layout,
    position: Position,
    finished: bool,
}

impl RowReader {
    pub fn new(file: File, layout: Layout, position: Position, arriving: Prefetch) -> Self {
        RowReader { file, arriving, layout, position, finished: false }
    }

    /// The rows that can be taken, and those that cannot.
    fn judge(&self, found: &RecordBatch) -> Result<(Option<RecordBatch>, Vec<Rejected>), ArrowError> {
        let (rows, mut unfit) = adapt(found, &self.layout.values())?;
        if let (Some(bound), Some(modified)) = (self.layout.event_time(), self.file.modified()) {
            unfit.extend(ahead(&rows, bound, modified));
        }
        let first = self.position.offset;
        let mut good = vec![true; found.num_rows()];
        let mut rejected = vec![];
        for Unfit { rows: bad, code, error } in &unfit {
            for row in bad.values().set_indices().filter(|row| std::mem::replace(&mut good[*row], false)) {
                let error = format!("{}: {error}", self.file.name);
                rejected.extend(dead_letter::of_rows(&found.slice(row, 1), code, &error).into_iter().map(|r| {
                    Rejected {
                        offset: Some(first + row as i64),
                        time: self.file.modified(),
                        headers: Some(serde_json::json!({"file": self.file.path}).to_string()),
                        ..r
                    }
                }));
            }
        }
        let offsets: Vec<i64> = (0..).zip(&good).filter(|(_, good)| **good).map(|(row, _)| first + row).collect();
        let rows = if unfit.is_empty() { rows } else { filter_record_batch(&rows, &BooleanArray::from(good))? };
        let rows = if rows.num_rows() == 0 { None } else { Some(self.layout.assemble(&rows, &self.file, &offsets)?) };
        Ok((rows, rejected))
    }
}

impl SplitReader for RowReader {
    fn read(&mut self, _: ReadLimit) -> Result<Read, SourceError> {
        let mut read = Read {
            batch: None,
            rejected: vec![],
            records: 0,
            bytes: 0,
            position: self.position.clone(),
            log_time: None,
            status: ReadStatus::More,
        };
        if self.finished {
            return Ok(Read { status: ReadStatus::Finished, ..read });
        }
        match self.arriving.next()? {
            Arrived::Nothing => read.status = ReadStatus::Pending,
            Arrived::End => {
                self.finished = true;
                self.arriving.close();
                read.status = ReadStatus::Finished;
            }
            Arrived::Piece(Piece::Rows(rows)) => {
                let judged = self.judge(&rows);
                (read.batch, read.rejected) = judged.map_err(|e| SourceError::failed(&self.file.place, e))?;
                read.records = rows.num_rows();
                read.bytes = size(&rows);
                read.log_time = self.file.modified();
                self.position.offset += rows.num_rows() as i64;
                read.position = self.position.clone();
            }
            Arrived::Piece(Piece::Bytes(_) | Piece::Header(_)) => {
                return Err(SourceError::failed(&self.file.place, "text came where rows were expected"));
            }
        }
        Ok(read)
    }
}

/// What the rows take in memory, and not what they are a part of.
fn size(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter();
    columns.map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())).sum()
}

/// Rows whose event time lies too far ahead of the file's.
fn ahead(rows: &RecordBatch, bound: EventTimeBound, modified: i64) -> Option<Unfit> {
    let times = rows.column(bound.column).as_primitive_opt::<TimestampNanosecondType>()?;
    let limit = modified.saturating_add(bound.max_ahead.as_nanos() as i64);
    let late: BooleanArray = times.iter().map(|t| Some(t.is_some_and(|t| t > limit))).collect();
    let name = rows.schema_ref().field(bound.column).name().clone();
    (late.true_count() > 0).then(|| Unfit {
        rows: late,
        code: "future-event-time",
        error: format!("{name} lies more than {:?} ahead of the file's own time", bound.max_ahead),
    })
}
