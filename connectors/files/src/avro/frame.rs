//! What frames the rows of a file: its header, and blocks that each end with the file's marker.

use arrow_avro::errors::AvroError;
use arrow_avro::reader::{HeaderInfo, read_header_info};
use bytes::{Bytes, BytesMut};
use engine::source::SourceError;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::damaged;
use crate::fetch::parts;
use crate::file::File;

/// A header is looked for in so many bytes: it holds the schema.
const LONGEST_HEADER: usize = 16 << 20;
/// The longest block that is taken, packed and unpacked; writers make blocks of some kilobytes to a few megabytes.
pub const LARGEST_BLOCK: usize = 256 << 20;
const MARKER: usize = 16;
/// A number of 64 bits, seven in each byte.
const LONGEST_NUMBER: usize = 10;

/// A file that is read from its beginning.
pub struct Frame<'a> {
    file: &'a File,
    parts: BoxStream<'a, Result<Bytes, SourceError>>,
    /// Bytes that are here and not consumed.
    held: BytesMut,
    /// Where they begin.
    at: u64,
}

/// A run of rows, as the file holds it.
pub struct Block {
    pub rows: usize,
    pub packed: Bytes,
    pub at: u64,
}

impl<'a> Frame<'a> {
    pub fn of(file: &'a File) -> Self {
        Frame { file, parts: parts(file, 0).boxed(), held: BytesMut::new(), at: 0 }
    }

    pub async fn header(&mut self) -> Result<HeaderInfo, SourceError> {
        loop {
            match read_header_info(&self.held[..]) {
                Ok(header) => {
                    self.consume(header.header_len() as usize);
                    return Ok(header);
                }
                Err(AvroError::EOF(_)) if self.held.len() < LONGEST_HEADER => {
                    if !self.fill().await? {
                        return Err(damaged(self.file, "its header is cut off".into()));
                    }
                }
                Err(AvroError::EOF(_)) => {
                    let why = format!("its header has no end within {LONGEST_HEADER} bytes");
                    return Err(damaged(self.file, why));
                }
                Err(error) => return Err(damaged(self.file, format!("its header: {error}"))),
            }
        }
    }

    /// The next block; `None` at the end of the file, which may only stand behind a block.
    pub async fn block(&mut self, marker: [u8; MARKER]) -> Result<Option<Block>, SourceError> {
        if self.held.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        let at = self.at;
        let file = self.file;
        let broken = |why: &str| damaged(file, format!("the block at byte {at} {why}"));
        let (rows, size) = (self.number(at).await?, self.number(at).await?);
        if size > LARGEST_BLOCK {
            return Err(broken(&format!("has {size} bytes; at most {LARGEST_BLOCK} are read")));
        }
        while self.held.len() < size + MARKER {
            if !self.fill().await? {
                return Err(broken("is cut off"));
            }
        }
        let packed = self.consume(size);
        if self.consume(MARKER) != marker[..] {
            return Err(broken("does not end with the file's marker"));
        }
        Ok(Some(Block { rows, packed, at }))
    }

    /// A number of the block that begins at byte `block`.
    async fn number(&mut self, block: u64) -> Result<usize, SourceError> {
        let why = loop {
            match number(&self.held) {
                Some((number, length)) => {
                    self.consume(length);
                    match usize::try_from(number) {
                        Ok(number) => return Ok(number),
                        Err(_) => break format!("says that it holds {number}"),
                    }
                }
                None if self.held.len() >= LONGEST_NUMBER => break "begins with no number".to_string(),
                None => {
                    if !self.fill().await? {
                        break "is cut off".to_string();
                    }
                }
            }
        };
        Err(damaged(self.file, format!("the block at byte {block} {why}")))
    }

    fn consume(&mut self, length: usize) -> Bytes {
        self.at += length as u64;
        self.held.split_to(length).freeze()
    }

    /// Brings in more of the file. Returns whether there was any.
    async fn fill(&mut self) -> Result<bool, SourceError> {
        let Some(part) = self.parts.next().await.transpose()? else { return Ok(false) };
        self.held.extend_from_slice(&part);
        Ok(true)
    }
}

/// A number at the beginning of `bytes`, and how many of them it takes: zigzag, seven bits a byte.
fn number(bytes: &[u8]) -> Option<(i64, usize)> {
    let length = bytes.iter().take(LONGEST_NUMBER).position(|byte| byte & 0x80 == 0)? + 1;
    let bits = bytes[..length].iter().rev().fold(0_u64, |bits, byte| bits << 7 | u64::from(byte & 0x7f));
    Some(((bits >> 1) as i64 ^ -((bits & 1) as i64), length))
}
