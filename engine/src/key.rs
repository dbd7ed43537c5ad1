//! Keys: their bytes, their hash, and the bucket that a row belongs to after an exchange.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

/// Key groups after a hash exchange. Part of the layout of the log: cannot change under a job's state.
pub const BUCKETS: usize = 128;
/// How a key becomes a bucket. Part of the layout.
pub const HASH: &str = "xxh3-64 of the key's bytes, modulo buckets";

/// A key, whole: a hash alone is not identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The canonical text of a UUID (lower case, with hyphens), as its 16 bytes. Any other spelling is a text.
    Uuid(u128),
    /// Anything else, in an encoding that differs where the values differ.
    Bytes(Box<[u8]>),
}

impl Key {
    pub fn hash(&self) -> u64 {
        match self {
            Key::Uuid(id) => xxh3_64(&id.to_be_bytes()),
            Key::Bytes(bytes) => xxh3_64(bytes),
        }
    }

    /// The key group after an exchange.
    pub fn bucket(&self) -> usize {
        (self.hash() % BUCKETS as u64) as usize
    }
}

/// The keys of each row of a batch.
pub fn keys(batch: &RecordBatch, columns: &[usize]) -> Result<Vec<Key>, arrow::error::ArrowError> {
    if let [column] = columns
        && batch.column(*column).data_type() == &DataType::Utf8
    {
        return Ok(text_keys(batch.column(*column)));
    }
    let arrays: Vec<_> = columns.iter().map(|c| batch.column(*c).clone()).collect();
    let fields = arrays.iter().map(|a| SortField::new(a.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&arrays)?;
    // The tag keeps these apart from the text keys, which begin with 0 or 1.
    let tagged = |row: arrow::row::Row<'_>| [&[2u8], row.as_ref()].concat().into_boxed_slice();
    Ok(rows.iter().map(|row| Key::Bytes(tagged(row))).collect())
}

fn text_keys(column: &dyn Array) -> Vec<Key> {
    let text = column.as_string::<i32>();
    text.iter()
        .map(|value| match value {
            None => Key::Bytes([0u8].into()),
            Some(value) => match parse_canonical_uuid(value.as_bytes()) {
                Some(id) => Key::Uuid(id),
                None => Key::Bytes([&[1u8], value.as_bytes()].concat().into_boxed_slice()),
            },
        })
        .collect()
}

/// The value of a lower-case hyphenated UUID text; `None` for every other text, so that two spellings stay two keys.
pub fn parse_canonical_uuid(text: &[u8]) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    let mut id: u128 = 0;
    for (i, byte) in text.iter().enumerate() {
        let digit = match (i, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        id = id << 4 | digit as u128;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn two_spellings_of_one_uuid_are_two_keys() {
        let ids = StringArray::from(vec![
            "0a0b0c0d-0000-4000-8000-0123456789ab",
            "0A0B0C0D-0000-4000-8000-0123456789AB",
            "0a0b0c0d0000400080000123456789ab",
        ]);
        let keys = keys(&batch(vec![("id", Arc::new(ids))]), &[0]).unwrap();
        assert!(matches!(keys[0], Key::Uuid(0x0a0b0c0d0000400080000123456789ab)));
        assert!(matches!(&keys[1], Key::Bytes(_)));
        assert_ne!(keys[1], keys[2]);
    }

    #[test]
    fn keys_of_several_columns_differ_where_the_values_differ() {
        let a = StringArray::from(vec![Some("x"), Some("x"), None]);
        let b = Int64Array::from(vec![1, 2, 1]);
        let keys = keys(&batch(vec![("a", Arc::new(a)), ("b", Arc::new(b))]), &[0, 1]).unwrap();
        assert_ne!(keys[0], keys[1]);
        assert_ne!(keys[0], keys[2]);
    }

    #[test]
    fn the_bucket_of_a_key_never_changes() {
        assert_eq!(Key::Uuid(1).bucket(), (xxh3_64(&1u128.to_be_bytes()) % 128) as usize);
        assert_eq!(
            Key::Uuid(0x0a0b0c0d_0000_4000_8000_0123456789ab).hash(),
            Key::Uuid(0x0a0b0c0d_0000_4000_8000_0123456789ab).hash()
        );
    }
}
