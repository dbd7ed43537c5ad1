//! Rows that are looked up in a table outside: what a connector implements, and what the engine keeps of it.
//!
//! A table is asked key by key, in batches, and what it answers is kept for a while; or it is loaded whole and loaded
//! again at times. Either way a row meets what the table says when the row passes: a replay may meet something else.

mod by_key;
mod join;
mod keys;
mod queue;
mod table;
mod whole;

use std::fmt;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::source::SourceColumn;

pub use join::Met;
pub use keys::KeyRows;
pub use queue::{Asked, Next, Queue};
pub use table::{Answer, LOAD_TIMEOUT, LookupTable, TIMEOUT, open_all};

/// A table in which rows can be looked up.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// One line for `explain`: the system, the place. Never a secret.
    fn describe(&self) -> String;

    /// Whether [`Lookup::fetch`] may be called. If not, the table is always kept whole.
    fn by_key(&self) -> bool {
        false
    }

    /// Checks that the table is there and has these columns. Says all that is wrong at once. Called at the start, before
    /// a table is asked by key; a table that is kept whole is loaded instead.
    async fn open(&self, _request: &LookupRequest) -> Result<(), LookupError> {
        Ok(())
    }

    /// All rows whose key columns equal one of `keys`, a batch with the columns that [`LookupRequest::keys`] names, in
    /// that order, without NULLs and without two equal rows. Rows of other keys may be among the answer (some systems
    /// compare texts without regard to case): the engine leaves them out.
    async fn fetch(&self, _request: &LookupRequest, _keys: &RecordBatch) -> Result<Fetched, LookupError> {
        Err(LookupError::failed(self.describe(), "the table cannot be asked by key"))
    }

    /// All rows; or none, if the table is as it was when it had the version `seen`. `now`: nanoseconds since 1970.
    async fn load(&self, request: &LookupRequest, seen: Option<&str>, now: i64) -> Result<Loaded, LookupError>;
}

/// What is asked of a table.
#[derive(Debug, Clone)]
pub struct LookupRequest {
    /// The columns of the answer, in order.
    pub columns: Vec<SourceColumn>,
    /// Which of them are the key; empty if the table is loaded whole.
    pub keys: Vec<usize>,
    /// How long a request may take. The engine gives it up then; a system may want to know beforehand.
    pub timeout: Duration,
}

/// What a table knows of some keys.
#[derive(Debug, Default)]
pub struct Fetched {
    /// With the columns of the request.
    pub rows: Vec<RecordBatch>,
    /// Keys, by their number in the request, of which there is a row that does not fit the columns, and why.
    pub refused: Vec<(usize, String)>,
}

/// What a table is as a whole.
#[derive(Debug)]
pub enum Loaded {
    Unchanged,
    Rows {
        /// Tells this state of the table from others; `None` if the system cannot tell.
        version: Option<String>,
        rows: Vec<RecordBatch>,
    },
}

/// Why a table does not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LookupError {
    /// May heal: the engine asks again, with a growing pause, and shows it in `/status`.
    #[error("{place}: {what}")]
    Retry { place: String, what: String },
    /// Will not heal without a person.
    #[error("{place}: {what}")]
    Failed { place: String, what: String },
}

impl LookupError {
    pub fn retry(place: impl Into<String>, what: impl fmt::Display) -> Self {
        LookupError::Retry { place: place.into(), what: what.to_string() }
    }
    pub fn failed(place: impl Into<String>, what: impl fmt::Display) -> Self {
        LookupError::Failed { place: place.into(), what: what.to_string() }
    }
}
