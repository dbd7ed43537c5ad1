//! Keys: their bytes, their hash, and the bucket that a row belongs to after an exchange.

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use xxhash_rust::xxh3::xxh3_64;

/// Key groups after a hash exchange. Part of the layout of the log: cannot change under a job's state.
pub const BUCKETS: usize = 128;
/// How a key becomes a bucket. Part of the layout.
pub const HASH: &str = "xxh3-64 of the key's bytes, modulo buckets";

/// A key, whole: a hash alone is not identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// The canonical text of a UUID (lower case, with hyphens), as its 16 bytes. Any other spelling is a text.
    Uuid(u128),
    /// Anything else, in an encoding that differs where the values differ.
    Bytes(&'a [u8]),
}

impl Key<'_> {
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

/// The keys of the rows of a batch. Made when they are asked for: a row costs no allocation.
pub enum Keys {
    Texts(StringArray),
    Rows(Rows),
}

/// What comes first in the bytes of a key, so that keys of different kinds differ.
const NULL: u8 = 0;
const TEXT: u8 = 1;
const ROW: u8 = 2;

impl Keys {
    pub fn of(batch: &RecordBatch, columns: &[usize]) -> Result<Keys, ArrowError> {
        if let [column] = columns
            && batch.column(*column).data_type() == &DataType::Utf8
        {
            return Ok(Keys::Texts(batch.column(*column).as_string::<i32>().clone()));
        }
        let arrays: Vec<_> = columns.iter().map(|c| batch.column(*c).clone()).collect();
        let fields = arrays.iter().map(|a| SortField::new(a.data_type().clone())).collect();
        Ok(Keys::Rows(RowConverter::new(fields)?.convert_columns(&arrays)?))
    }

    pub fn len(&self) -> usize {
        match self {
            Keys::Texts(texts) => texts.len(),
            Keys::Rows(rows) => rows.num_rows(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of a row. `space` takes its bytes where it has no form of its own.
    pub fn get<'a>(&self, row: usize, space: &'a mut Vec<u8>) -> Key<'a> {
        let (tag, bytes) = match self {
            Keys::Texts(texts) if texts.is_null(row) => (NULL, &[][..]),
            Keys::Texts(texts) => match parse_canonical_uuid(texts.value(row).as_bytes()) {
                Some(id) => return Key::Uuid(id),
                None => (TEXT, texts.value(row).as_bytes()),
            },
            Keys::Rows(rows) => (ROW, rows.row(row).data()),
        };
        space.clear();
        space.push(tag);
        space.extend_from_slice(bytes);
        Key::Bytes(space)
    }
}

/// The value of a lower-case hyphenated UUID text; `None` for every other text, so that two spellings stay two keys.
pub fn parse_canonical_uuid(text: &[u8]) -> Option<u128> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
        return None;
    }
    let (mut id, mut wrong) = (0u128, 0u8);
    for group in [&text[..8], &text[9..13], &text[14..18], &text[19..23], &text[24..]] {
        let mut value = 0u64;
        for byte in group {
            let digit = DIGITS[*byte as usize];
            wrong |= digit;
            value = value << 4 | (digit & 0x0f) as u64;
        }
        id = id << (4 * group.len()) | value as u128;
    }
    (wrong & NO_DIGIT == 0).then_some(id)
}

/// Marks a byte that is no lower-case hexadecimal digit.
const NO_DIGIT: u8 = 0x80;

/// The values of digits by their byte: a table, so that a text is looked at without a branch per byte.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

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
        let keys = Keys::of(&batch(vec![("id", Arc::new(ids))]), &[0]).unwrap();
        let (mut one, mut other) = (vec![], vec![]);
        assert_eq!(keys.get(0, &mut one), Key::Uuid(0x0a0b0c0d0000400080000123456789ab));
        assert!(matches!(keys.get(1, &mut one), Key::Bytes(_)));
        assert_ne!(keys.get(1, &mut one), keys.get(2, &mut other));
    }

    #[test]
    fn keys_of_several_columns_differ_where_the_values_differ() {
        let a = StringArray::from(vec![Some("x"), Some("x"), None]);
        let b = Int64Array::from(vec![1, 2, 1]);
        let keys = Keys::of(&batch(vec![("a", Arc::new(a)), ("b", Arc::new(b))]), &[0, 1]).unwrap();
        let (mut one, mut other) = (vec![], vec![]);
        assert_ne!(keys.get(0, &mut one), keys.get(1, &mut other));
        assert_ne!(keys.get(0, &mut one), keys.get(2, &mut other));
    }

    #[test]
    fn no_byte_but_a_lower_case_digit_makes_a_uuid() {
        let id = b"0a0b0c0d-0000-4000-8000-0123456789ab";
        assert!(parse_canonical_uuid(id).is_some());
        for at in 0..id.len() {
            for byte in *b"gA-/:`@ \xff" {
                let mut text = *id;
                text[at] = byte;
                let hyphen = byte == b'-' && id[at] == b'-';
                assert_eq!(parse_canonical_uuid(&text).is_some(), hyphen, "{byte} at {at}");
            }
        }
        assert_eq!(parse_canonical_uuid(&id[..35]), None);
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
