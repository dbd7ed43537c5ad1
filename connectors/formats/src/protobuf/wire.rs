//! The bytes of a message (Protocol Buffers documentation, "Encoding").

use std::fmt::Display;

use crate::reject::{Bad, bad};

/// A value as it is written, before its type is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// What stands between the marks of a group.
    Group(&'a [u8]),
}

/// Groups within groups.
const DEEPEST: usize = 64;

/// The fields of a message, in the order in which they are written.
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Fields { bytes, at: 0 }
    }

    /// From this byte on.
    pub fn from(bytes: &'a [u8], at: usize) -> Self {
        Fields { bytes, at }
    }

    /// The byte that is next.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next field's number and value.
    #[inline]
    pub fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Bad> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        self.field(0)
    }

    /// `None`: a group's end.
    fn field(&mut self, depth: usize) -> Result<Option<(u32, Wire<'a>)>, Bad> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| self.broken(format_args!("{} is no number of a field", key >> 3)))?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Wire::Bytes(self.delimited()?),
            3 => Wire::Group(self.group(number, depth)?),
            4 if depth > 0 => return Ok(None),
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(self.broken(format_args!("{other} is no type of a value that may stand here"))),
        };
        Ok(Some((number, value)))
    }

    fn group(&mut self, number: u32, depth: usize) -> Result<&'a [u8], Bad> {
        if depth == DEEPEST {
            return Err(self.broken(format_args!("more than {DEEPEST} groups within each other")));
        }
        let from = self.at;
        loop {
            let before = self.at;
            if self.field(depth + 1)?.is_none() {
                let mut end = Fields { bytes: self.bytes, at: before };
                if end.varint()? >> 3 != u64::from(number) {
                    return Err(self.broken("a group ends that did not begin"));
                }
                return Ok(&self.bytes[from..before]);
            }
        }
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, Bad> {
        if let Some(byte @ 0..0x80) = self.bytes.get(self.at) {
            self.at += 1;
            return Ok(u64::from(*byte));
        }
        let mut bits = 0_u64;
        for (place, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            bits |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.at += place + 1;
                return Ok(bits);
            }
        }
        Err(self.broken("a number that ends within ten bytes is expected"))
    }

    /// Bytes behind their length.
    #[inline]
    pub fn delimited(&mut self) -> Result<&'a [u8], Bad> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or_else(|| self.broken("its end"))
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Bad> {
        match self.rest().get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.broken(format_args!("{length} bytes are expected, and {} are left", self.rest().len()))),
        }
    }

    #[cold]
    fn broken(&self, what: impl Display) -> Bad {
        bad("not-protobuf", format_args!("byte {}: {what}", self.at))
    }
}
