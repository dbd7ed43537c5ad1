//! What can go wrong between a client and a server, when a test wants it to.

use std::time::Duration;

/// What a client has just asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Connect,
    Prelogin,
    Login,
    Batch(String),
    /// A bulk load has come in full.
    Bulk {
        table: String,
    },
    /// A bulk load is coming: this many packets so far; every fourth.
    BulkRows {
        table: String,
        packets: usize,
    },
    /// The text of a prepared statement, or a procedure's name.
    Rpc(String),
    Transaction(Transaction),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    Begin,
    Commit,
    Rollback,
    Save,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accident {
    None,
    /// Not executed; the line is closed.
    CloseBefore,
    /// Executed, and no answer.
    CloseAfter,
    /// The first half of its statements is executed, and then the line is closed: what is open is rolled back.
    CloseWithin,
    /// Not executed, but an error.
    Refuse {
        number: u32,
        class: u8,
        message: String,
    },
    /// Executed and never answered; the line stays open.
    Answerless,
    /// As usual, but later.
    Delay(Duration),
}
