//! Reads a file of records that follow each other as text: JSON lines and CSV.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use engine::observed::Observed;
use engine::source::{Position, Read, ReadLimit, ReadStatus, Rejected, SourceError, SplitReader};
use formats::{CsvDecoder, Decoder, Format, Reject};

use crate::compression::{Compression, PACKED_AT_ONCE, Unpacker};
use crate::file::File;
use crate::metadata::Layout;
use crate::options::{FileFormat, FileTable};
use crate::prefetch::{Arrived, Piece, Prefetch};

/// The longest record that is looked for; a file without line ends would otherwise fill the memory.
const LONGEST_RECORD: usize = 64 << 20;

/// Reads one file. A position is a byte of its text, unpacked if it is compressed.
pub struct TextReader {
    file: File,
    arriving: Prefetch,
    layout: Layout,
    /// Made when the file is opened: ten thousand files that wait need no columns.
    records: Option<Records>,
    table: Arc<FileTable>,
    compression: Compression,
    unpacker: Option<Unpacker>,
    text: Text,
    position: Position,
    until: Option<i64>,
    /// Where to go on, behind the header of a file that was begun before.
    resume_at: Option<i64>,
    finished: bool,
    observed: Option<Observed>,
}

/// Bytes that are here and not consumed.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    from: usize,
    /// Where the search for the end of the first record goes on.
    searched: usize,
    packed: VecDeque<Bytes>,
    ended: bool,
}

enum Records {
    Json(Decoder),
    Csv(CsvDecoder),
}

/// A record at the beginning of the text.
struct Record {
    length: usize,
    /// `None` for an empty line.
    taken: Option<Result<usize, Reject>>,
}

enum Next {
    Record(Record),
    /// The rest of the next record is on its way.
    Waits,
    End,
}

impl TextReader {
    pub fn new(
        file: File,
        table: Arc<FileTable>,
        layout: Layout,
        position: Position,
        until: Option<i64>,
        arriving: Prefetch,
    ) -> Self {
        let compression = table.compression_of(&file.name);
        let resume_at = (position.offset > 0).then_some(position.offset);
        TextReader {
            file,
            arriving,
            layout,
            records: None,
            table,
            compression,
            unpacker: None,
            text: Text::default(),
            position,
            until,
            resume_at,
            finished: false,
            observed: None,
        }
    }

    fn failed(&self, what: impl std::fmt::Display) -> SourceError {
        SourceError::failed(&self.file.place, what)
    }

    fn records(&self) -> Result<Records, SourceError> {
        let bound = self.layout.event_time().map(|b| (b.column, b.max_ahead));
        let values = self.layout.values();
        let made = match &self.table.format {
            FileFormat::Csv(options) => {
                CsvDecoder::new(values, options.clone(), &self.table.declared, bound).map(Records::Csv)
            }
            _ => Decoder::new(values, Format::Json, self.table.json.clone(), bound).map(Records::Json),
        };
        made.map_err(|e| self.failed(e))
    }

    /// Takes the next record into the decoder.
    fn next(&mut self, records: &mut Records) -> Result<Next, SourceError> {
        loop {
            if self.until.is_some_and(|until| self.position.offset >= until) {
                return Ok(Next::End);
            }
            if !self.begin(records)? {
                if self.fill()? {
                    continue;
                }
                return Ok(if self.text.ended { Next::End } else { Next::Waits });
            }
            match records.take(&mut self.text, self.file.modified(), self.table.arrays) {
                Some(record) => return Ok(Next::Record(record)),
                None if self.text.ended => return Ok(Next::End),
                None if self.text.len() > LONGEST_RECORD => {
                    let at = self.position.offset;
                    let what = if self.text.is_array() { "array of records" } else { "record" };
                    let most = LONGEST_RECORD >> 20;
                    return Err(self.failed(format!("the {what} at byte {at} has no end within {most} MiB")));
                }
                None if self.fill()? => {}
                None => return Ok(Next::Waits),
            }
        }
    }

    /// Passes over what stands before the first record to read: the header, and what was read before. Returns whether
    /// that is done.
    fn begin(&mut self, records: &mut Records) -> Result<bool, SourceError> {
        if let Records::Csv(csv) = records
            && csv.expects_header()
            && !(self.text.ended && self.text.rest().is_empty())
        {
            let header = csv.header(self.text.rest(), self.text.ended).map_err(|e| self.failed(e))?;
            let Some(length) = header else { return Ok(false) };
            self.text.consume(length);
            if self.resume_at.is_none() {
                self.position.offset += length as i64;
            } else if self.is_packed() {
                self.resume_at = self.resume_at.map(|at| at - length as i64);
            }
        }
        let Some(at) = self.resume_at else { return Ok(true) };
        if self.is_packed() {
            let passed = self.text.len().min(at as usize);
            self.text.consume(passed);
            if passed < at as usize {
                self.resume_at = Some(at - passed as i64);
                return Ok(false);
            }
        }
        self.resume_at = None;
        Ok(true)
    }

    fn is_packed(&self) -> bool {
        self.compression != Compression::None
    }

    /// Brings in more text. Returns whether there was any, or the end.
    fn fill(&mut self) -> Result<bool, SourceError> {
        loop {
            if let Some(packed) = self.text.packed.front_mut() {
                let now = packed.split_to(packed.len().min(PACKED_AT_ONCE));
                if packed.is_empty() {
                    self.text.packed.pop_front();
                }
                self.text.compact();
                let unpacker = match &mut self.unpacker {
                    Some(unpacker) => unpacker,
                    empty => empty.insert(Unpacker::new(self.compression, &self.file.place)?),
                };
                unpacker.push(&now, &mut self.text.bytes, &self.file.place)?;
                return Ok(true);
            }
            if self.text.ended {
                return Ok(false);
            }
            match self.arriving.next()? {
                Arrived::Piece(Piece::Bytes(bytes)) if self.is_packed() => self.text.packed.push_back(bytes),
                Arrived::Piece(Piece::Bytes(bytes) | Piece::Header(bytes)) => {
                    self.text.compact();
                    self.text.bytes.extend_from_slice(&bytes);
                    return Ok(true);
                }
                Arrived::Piece(Piece::Rows(_)) => return Err(self.failed("rows came where text was expected")),
                Arrived::Nothing => return Ok(false),
                Arrived::End => {
                    self.text.compact();
                    if let Some(unpacker) = &mut self.unpacker {
                        unpacker.end(&mut self.text.bytes, &self.file.place)?;
                    }
                    self.text.ended = true;
                    return Ok(true);
                }
            }
        }
    }

    fn reject(&self, record: &[u8], reject: Reject) -> Rejected {
        Rejected {
            payload: record.strip_suffix(b"\n").unwrap_or(record).to_vec(),
            error: format!("{}: {}", self.file.name, reject.error),
            code: reject.code,
            partition: None,
            offset: Some(self.position.offset),
            time: self.file.modified(),
            key: None,
            headers: Some(serde_json::json!({"file": self.file.path}).to_string()),
        }
    }
}

impl SplitReader for TextReader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        let (mut count, mut bytes, mut rejected, mut offsets) = (0, 0, vec![], vec![]);
        let mut waits = false;
        let mut decoder = self.records.take();
        if decoder.is_none() && !self.finished && self.fill()? {
            decoder = Some(self.records()?);
        }
        waits |= decoder.is_none();
        while let Some(records) = &mut decoder
            && !self.finished
            && count < limit.records
            && bytes < limit.bytes
        {
            match self.next(records)? {
                Next::Waits => {
                    waits = true;
                    break;
                }
                Next::End => self.finished = true,
                Next::Record(record) => {
                    match record.taken {
                        None => {}
                        Some(Ok(rows)) => offsets.extend(std::iter::repeat_n(self.position.offset, rows)),
                        Some(Err(reject)) => {
                            let text = &self.text.rest()[..record.length];
                            rejected.push(self.reject(text, reject));
                        }
                    }
                    count += 1;
                    bytes += record.length;
                    self.position.offset += record.length as i64;
                    self.text.consume(record.length);
                }
            }
        }
        let mut batch = None;
        if let Some(records) = &mut decoder
            && records.rows() + rejected.len() > 0
        {
            let values = records.finish().map_err(|e| self.failed(e))?;
            batch = Some(self.layout.assemble(&values, &self.file, &offsets).map_err(|e| self.failed(e))?);
        }
        self.observed = decoder.as_mut().and_then(Records::observed);
        if self.finished {
            self.arriving.close();
        } else {
            self.records = decoder;
        }
        Ok(Read {
            batch: batch.filter(|b| b.num_rows() > 0),
            rejected,
            records: count,
            bytes,
            position: self.position.clone(),
            log_time: self.file.modified().filter(|_| count > 0),
            status: match (self.finished, waits) {
                (true, _) => ReadStatus::Finished,
                (_, true) => ReadStatus::Pending,
                _ => ReadStatus::More,
            },
        })
    }

    fn observed(&mut self) -> Option<Observed> {
        self.observed.take()
    }
}

impl Records {
    fn observed(&mut self) -> Option<Observed> {
        let Records::Json(decoder) = self else { return None };
        let formats::Observed { rows, columns, unknown } = decoder.observed()?;
        Some(Observed { rows, columns, unknown })
    }

    fn take(&mut self, text: &mut Text, log_time: Option<i64>, arrays: bool) -> Option<Record> {
        match self {
            Records::Csv(csv) => {
                let record = csv.take(text.rest(), text.ended, log_time).filter(|r| r.length > 0)?;
                Some(Record { length: record.length, taken: record.taken })
            }
            Records::Json(decoder) => {
                let length = if arrays && text.is_array() { text.all()? } else { text.line()? };
                let line = &text.rest()[..length];
                let taken = (!line.trim_ascii().is_empty()).then(|| decoder.push(line, log_time));
                Some(Record { length, taken })
            }
        }
    }

    fn rows(&self) -> usize {
        match self {
            Records::Csv(csv) => csv.rows(),
            Records::Json(decoder) => decoder.rows(),
        }
    }

    fn finish(&mut self) -> Result<arrow::array::RecordBatch, arrow::error::ArrowError> {
        match self {
            Records::Csv(csv) => csv.finish(),
            Records::Json(decoder) => decoder.finish(),
        }
    }
}

impl Text {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    fn consume(&mut self, length: usize) {
        self.from += length;
        self.searched = 0;
    }

    /// Makes room for more bytes behind those that are still needed.
    fn compact(&mut self) {
        self.bytes.drain(..self.from);
        self.from = 0;
    }

    /// Whether what comes is an array of records, over however many lines.
    fn is_array(&self) -> bool {
        let rest = self.rest();
        rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(rest).trim_ascii_start().first() == Some(&b'[')
    }

    /// Bytes up to the end of the file, once they are all here.
    fn all(&self) -> Option<usize> {
        self.ended.then(|| self.len())
    }

    /// Bytes of the first line with its end; a last line may have none.
    fn line(&mut self) -> Option<usize> {
        let rest = &self.bytes[self.from..];
        match memchr::memchr(b'\n', &rest[self.searched..]) {
            Some(at) => Some(self.searched + at + 1),
            None if self.ended && !rest.is_empty() => Some(rest.len()),
            None => {
                self.searched = rest.len();
                None
            }
        }
    }
}
