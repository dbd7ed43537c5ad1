//! What a table shows, read back whole: for whoever checks it.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

/// Takes rows that became visible at a time, in milliseconds since 1970, if the system tells it. An error ends the reading.
pub type Take<'a> = dyn FnMut(Option<i64>, RecordBatch) -> Result<(), String> + Send + 'a;

/// A table that can be read back.
#[async_trait]
pub trait Shown: Send + Sync {
    /// Hands over all rows that readers see now, in batches of which no more than a few are held at once. They come in any
    /// order: where the system tells, their times say which became visible first.
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String>;
}
