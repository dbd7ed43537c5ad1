//! The stored form of keys: a table with one row a key, so that any worker finds its own in it.
//!
//! | column | |
//! |---|---|
//! | `group` text | the split that the key belongs to; null where the scope is the whole source |
//! | `bucket` int64 | its time bucket |
//! | `uuid` 16 bytes | the key, if it is a UUID |
//! | `bytes` binary | any other key |
//!
//! The version of the job log covers it: a change of these columns is a new version there.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::error::ArrowError;

use super::texts::Packed;
use crate::clock::SplitClock;
use crate::key::Key;

/// Keys that no snapshot holds yet, in the order in which they came.
#[derive(Default)]
pub struct NewKeys {
    ids: Vec<u128>,
    texts: Packed,
    count: usize,
}

impl NewKeys {
    pub fn push(&mut self, key: &Key<'_>) {
        self.count += 1;
        match key {
            Key::Uuid(id) => self.ids.push(*id),
            Key::Bytes(bytes) => {
                self.texts.push(bytes);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.ids.capacity() * size_of::<u128>() + self.texts.memory()
    }

    pub fn growth(&self, key: &Key<'_>) -> usize {
        match key {
            Key::Uuid(_) if self.ids.len() < self.ids.capacity() => 0,
            Key::Uuid(_) => self.ids.capacity().max(4) * size_of::<u128>(),
            Key::Bytes(bytes) => self.texts.growth(bytes),
        }
    }
}

/// What changed since the last snapshot.
pub struct DedupSnapshot {
    pub(super) new: Vec<NewOfBucket>,
    /// The oldest bucket that is still needed.
    pub floor: i64,
    /// How long a bucket is, in nanoseconds.
    pub width: i64,
    /// How far the clock is that all splits share, if they share one.
    pub clock: SplitClock,
}

pub(super) struct NewOfBucket {
    pub group: Option<String>,
    pub bucket: i64,
    pub keys: NewKeys,
}

impl DedupSnapshot {
    /// The newest bucket in it.
    pub fn newest(&self) -> i64 {
        self.new.iter().map(|n| n.bucket).max().unwrap_or(0)
    }

    /// The keys that are new, in their stored form; `None` if there are none. Not for a worker's thread: it takes its
    /// time.
    pub fn table(&self) -> Result<Option<RecordBatch>, ArrowError> {
        let rows: usize = self.new.iter().map(|n| n.keys.count).sum();
        if rows == 0 {
            return Ok(None);
        }
        let mut groups = StringBuilder::new();
        let mut buckets = Vec::with_capacity(rows);
        let mut ids = FixedSizeBinaryBuilder::with_capacity(rows, size_of::<u128>() as i32);
        let mut texts = BinaryBuilder::with_capacity(rows, 0);
        for NewOfBucket { group, bucket, keys } in &self.new {
            (0..keys.count).for_each(|_| groups.append_option(group.as_deref()));
            buckets.extend(std::iter::repeat_n(*bucket, keys.count));
            for id in &keys.ids {
                ids.append_value(id.to_be_bytes())?;
                texts.append_null();
            }
            for text in keys.texts.iter() {
                ids.append_null();
                texts.append_value(text);
            }
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(groups.finish()),
            Arc::new(Int64Array::from(buckets)),
            Arc::new(ids.finish()),
            Arc::new(texts.finish()),
        ];
        let schema = Schema::new(vec![
            Field::new("group", DataType::Utf8, true),
            Field::new("bucket", DataType::Int64, false),
            Field::new("uuid", DataType::FixedSizeBinary(16), true),
            Field::new("bytes", DataType::Binary, true),
        ]);
        RecordBatch::try_new(Arc::new(schema), columns).map(Some)
    }
}

/// A key as it was stored.
pub struct StoredKey<'a> {
    pub group: Option<&'a str>,
    pub bucket: i64,
    pub key: Key<'a>,
}

/// The keys of a part of a snapshot.
pub fn stored_keys(part: &RecordBatch) -> impl Iterator<Item = StoredKey<'_>> {
    let groups = part.column(0).as_string::<i32>();
    let buckets = part.column(1).as_primitive::<Int64Type>();
    let ids = part.column(2).as_fixed_size_binary();
    let texts = part.column(3).as_binary::<i32>();
    (0..part.num_rows()).map(|row| StoredKey {
        group: groups.is_valid(row).then(|| groups.value(row)),
        bucket: buckets.value(row),
        key: match ids.is_valid(row) {
            true => Key::Uuid(u128::from_be_bytes(ids.value(row).try_into().unwrap_or_default())),
            false => Key::Bytes(texts.value(row)),
        },
    })
}
