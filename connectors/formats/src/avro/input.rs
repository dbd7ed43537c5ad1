//! The bytes of one value (Apache Avro 1.12 specification, "Binary Encoding").

use std::fmt::Display;

use crate::reject::{Bad, bad};
use crate::varint::unzigzag;

/// Values within values: a schema may hold itself, and a short payload could otherwise fill the stack.
const DEEPEST: usize = 128;
/// Items of no bytes at all, such as nulls, that a payload's arrays may say they have.
const EMPTY_ITEMS: usize = 4096;

/// What is left of a payload.
pub struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// Of all arrays and maps so far.
    items: usize,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input { bytes, at: 0, depth: 0, items: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Bad> {
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.broken(format_args!("{other} is no boolean"))),
        }
    }

    #[inline]
    pub fn long(&mut self) -> Result<i64, Bad> {
        if let Some(byte @ 0..0x80) = self.bytes.get(self.at) {
            self.at += 1;
            return Ok(unzigzag(u64::from(*byte)));
        }
        self.long_of_several()
    }

    fn long_of_several(&mut self) -> Result<i64, Bad> {
        let mut bits = 0_u64;
        for (place, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            bits |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                if place == 9 && *byte > 1 {
                    break;
                }
                self.at += place + 1;
                return Ok(unzigzag(bits));
            }
        }
        Err(self.broken("a number that ends within 64 bits is expected"))
    }

    pub fn int(&mut self) -> Result<i32, Bad> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| self.broken(format_args!("{long} is no int")))
    }

    #[inline]
    pub fn float(&mut self) -> Result<f32, Bad> {
        self.array().map(f32::from_le_bytes)
    }

    #[inline]
    pub fn double(&mut self) -> Result<f64, Bad> {
        self.array().map(f64::from_le_bytes)
    }

    /// Bytes behind their length.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(self.broken(format_args!("a length of {length}"))),
        }
    }

    #[inline]
    pub fn string(&mut self) -> Result<&'a str, Bad> {
        let bytes = self.bytes()?;
        simdutf8::basic::from_utf8(bytes).map_err(|_| self.broken("the text before is not UTF-8"))
    }

    /// Which one of so many.
    #[inline]
    pub fn index(&mut self, of: usize, what: &str) -> Result<usize, Bad> {
        let index = self.long()?;
        match usize::try_from(index) {
            Ok(index) if index < of => Ok(index),
            _ => Err(self.broken(format_args!("{what} {index} of {of}"))),
        }
    }

    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Bad> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => {
                let left = self.bytes.len() - self.at;
                Err(self.broken(format_args!("{length} bytes are expected, and {left} are left")))
            }
        }
    }

    /// The next block of an array or a map: its items, and its bytes where it says them. `None` at the end.
    pub fn block(&mut self) -> Result<Option<(usize, Option<usize>)>, Bad> {
        let count = self.long()?;
        if count == 0 {
            return Ok(None);
        }
        let size = if count < 0 { Some(self.long()?) } else { None };
        let left = self.bytes.len() - self.at;
        self.expect(usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX))?;
        match size.map(usize::try_from) {
            None => Ok(Some((count as usize, None))),
            Some(Ok(size)) if size <= left => Ok(Some((count.unsigned_abs() as usize, Some(size)))),
            Some(_) => Err(self.broken("a block that is longer than what is left")),
        }
    }

    /// So many items are to come. Each has at least a byte, or it is one of few.
    pub fn expect(&mut self, items: usize) -> Result<(), Bad> {
        self.items = self.items.saturating_add(items);
        if self.items > self.bytes.len() + EMPTY_ITEMS {
            return Err(self.broken(format_args!("{items} items, and {} bytes are left", self.bytes.len() - self.at)));
        }
        Ok(())
    }

    /// Reads what lies within a value.
    pub fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Bad>) -> Result<T, Bad> {
        if self.depth == DEEPEST {
            return Err(self.broken(format_args!("more than {DEEPEST} values within each other")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    #[cold]
    pub fn broken(&self, what: impl Display) -> Bad {
        bad("not-avro", format_args!("byte {}: {what}", self.at))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        match self.bytes[self.at..].first_chunk() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => self.take(N).map(|_| [0; N]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint::{put, zigzag};

    #[test]
    fn numbers_are_read_up_to_the_last_of_64_bits_and_no_further() {
        for number in [0, -1, 1, 63, -64, 64, 300, i64::MAX, i64::MIN] {
            let mut bytes = vec![];
            put(zigzag(number), &mut bytes);
            let mut input = Input::new(&bytes);
            assert_eq!((input.long().unwrap(), input.is_empty()), (number, true));
            assert!(Input::new(&bytes[..bytes.len() - 1]).long().is_err());
        }
        let too_long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Input::new(&too_long).long().unwrap_err().code, "not-avro");
    }

    #[test]
    fn an_array_that_says_it_has_more_than_there_can_be_is_refused() {
        // 2^40 items of no bytes.
        let many = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0];
        assert!(Input::new(&many).block().unwrap_err().error.contains("items, and 1 bytes are left"));
        // 4,096 of them, again and again.
        let blocks = [0x80, 0x40].repeat(1000);
        let mut input = Input::new(&blocks);
        assert!((0..1000).any(|_| input.block().is_err()));
    }
}
