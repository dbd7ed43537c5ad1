//! Messages that were made of rows, one behind the other.

/// Rows as they are written, one behind the other.
#[derive(Debug, Default)]
pub struct Rows {
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
}

impl Rows {
    /// What stands from one row to before another.
    pub fn between(&self, from: usize, to: usize) -> &[u8] {
        let start = |row: usize| if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start(from)..start(to)]
    }
}

/// Messages, one behind the other.
#[derive(Debug, Default)]
pub struct Encoded(Rows);

impl Encoded {
    pub fn len(&self) -> usize {
        self.0.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.ends.is_empty()
    }

    pub fn get(&self, message: usize) -> &[u8] {
        self.0.between(message, message + 1)
    }

    /// Appends a message of these parts.
    pub fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.0.bytes.extend_from_slice(part));
        self.0.ends.push(self.0.bytes.len());
    }
}
