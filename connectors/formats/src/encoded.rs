//! Rows as they are written, one behind the other.

/// Rows of one batch.
#[derive(Debug, Default)]
pub struct EncodedRows {
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
}

impl EncodedRows {
    /// What stands from one row to before another.
    pub fn between(&self, from: usize, to: usize) -> &[u8] {
        let start = |row: usize| if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start(from)..start(to)]
    }
}
