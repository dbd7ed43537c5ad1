//! A table outside that is kept whole: loaded at the start, and again when it has changed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use hashbrown::HashTable;
use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

use super::join::END;
use super::keys::KeyRows;
use super::{Loaded, LookupError, Met};
use crate::plan::{Kept, LookupNode};

/// The table as it was loaded last.
#[derive(Default)]
pub struct Whole {
    current: RwLock<Option<Arc<Indexed>>>,
    version: RwLock<Option<String>>,
}

/// Rows, found by their keys.
struct Indexed {
    rows: RecordBatch,
    keys: KeyRows,
    /// The first row of each key.
    first: HashTable<u32>,
    /// By row: the next one of the same key.
    next: Arc<[u32]>,
}

impl Whole {
    /// Which state of the table is kept.
    pub fn version(&self) -> Option<String> {
        self.version.read().clone()
    }

    /// Takes in what was loaded: rows and bytes that are kept then, if they are others than before.
    pub fn take_in(&self, node: &LookupNode, loaded: Loaded) -> Result<Option<(usize, usize)>, LookupError> {
        let Loaded::Rows { version, rows } = loaded else { return Ok(None) };
        let mut made = vec![];
        for batch in rows {
            let (done, failed) = node.transform.run(&batch);
            made.extend(done);
            if let Some(failed) = failed.first() {
                let what =
                    format!("a row that the query cannot compute with: {}: {}", as_text(&failed.row), failed.error);
                // What was loaded before holds on; at the start nothing would ever change.
                let before = self.current.read().is_some();
                return Err(if before {
                    LookupError::retry(node.place(), what)
                } else {
                    LookupError::failed(node.place(), what)
                });
            }
        }
        let bytes = made.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        if let Kept::Whole { bytes: most, .. } = node.kept
            && bytes > most
        {
            let what = format!(
                "it takes {} MiB, and lookup.cache.bytes allows {}: raise it, or filter the table in a view \
                                that the join reads",
                bytes >> 20,
                most >> 20
            );
            return Err(LookupError::failed(node.place(), what));
        }
        let rows = concat_batches(&node.schema, &made).map_err(|e| LookupError::failed(node.place(), e))?;
        if rows.num_rows() >= END as usize {
            return Err(LookupError::failed(node.place(), "the table has more rows than can be kept whole"));
        }
        let size = (rows.num_rows(), rows.get_array_memory_size());
        let indexed = Indexed::of(rows, &node.keys).map_err(|e| LookupError::failed(node.place(), e))?;
        *self.current.write() = Some(Arc::new(indexed));
        *self.version.write() = version;
        Ok(Some(size))
    }

    /// What rows with these keys meet.
    pub fn meet(&self, keys: &KeyRows, node: &LookupNode) -> Result<Met, ArrowError> {
        let met = Met::nothing(&node.schema, keys.len())?;
        let Some(indexed) = self.current.read().clone() else { return Ok(met) };
        let mut met = met.chained(indexed.rows.clone(), indexed.next.clone());
        for row in 0..keys.len() {
            let first = keys.get(row).map_or(END, |key| indexed.first_of(key));
            if first != END {
                met.meets(row, 1, first);
            }
        }
        Ok(met)
    }
}

impl Indexed {
    fn of(rows: RecordBatch, columns: &[usize]) -> Result<Indexed, ArrowError> {
        let keys = KeyRows::of(&rows, columns)?;
        let mut next = vec![END; keys.len()];
        let mut first: HashTable<u32> = HashTable::with_capacity(keys.len());
        let hash_of = |row: &u32| xxh3_64(keys.get(*row as usize).unwrap_or_default());
        // From the last row on, so that a chain goes in the order of the table.
        for row in (0..keys.len()).rev() {
            let Some(key) = keys.get(row) else { continue };
            let is_same = |other: &u32| keys.get(*other as usize) == Some(key);
            match first.find_mut(xxh3_64(key), is_same) {
                Some(head) => next[row] = std::mem::replace(head, row as u32),
                None => {
                    first.insert_unique(xxh3_64(key), row as u32, hash_of);
                }
            }
        }
        Ok(Indexed { rows, keys, first, next: next.into() })
    }

    fn first_of(&self, key: &[u8]) -> u32 {
        let is_same = |row: &u32| self.keys.get(*row as usize) == Some(key);
        self.first.find(xxh3_64(key), is_same).copied().unwrap_or(END)
    }
}

fn as_text(row: &RecordBatch) -> String {
    let text = crate::dead_letter::as_json(row);
    String::from_utf8_lossy(&text[..text.len().min(200)]).trim_end().to_string()
}
