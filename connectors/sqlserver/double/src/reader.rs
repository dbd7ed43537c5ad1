//! Reads what a client sent, and trusts none of it.

/// What is wrong with what a client sent: a protocol violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

pub type Read<T> = Result<T, Violation>;

pub fn violation<T>(what: impl Into<String>) -> Read<T> {
    Err(Violation(what.into()))
}

/// Bytes and a place in them.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub fn place(&self) -> usize {
        self.at
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return violation(format!(
                "{count} bytes at {} of {}: the message is too short",
                self.at,
                self.bytes.len()
            ));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        self.at = self.bytes.len();
        rest
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u16_be(&mut self) -> Read<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// So many units of UTF-16.
    pub fn text(&mut self, units: usize) -> Read<String> {
        utf16(self.take(units * 2)?)
    }

    /// MS-TDS 2.2.5.1.2: a text with its length before it, in one byte.
    pub fn b_varchar(&mut self) -> Read<String> {
        let units = self.u8()?.into();
        self.text(units)
    }

    /// The same with a length of two bytes.
    pub fn us_varchar(&mut self) -> Read<String> {
        let units = self.u16()?.into();
        self.text(units)
    }
}

pub fn utf16(bytes: &[u8]) -> Read<String> {
    if !bytes.len().is_multiple_of(2) {
        return violation(format!("a UTF-16 text of {} bytes", bytes.len()));
    }
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).or_else(|_| violation("a text that is no UTF-16"))
}
