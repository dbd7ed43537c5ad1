//! Why a payload is not taken.

use std::fmt::Display;

use crate::scanner::Broken;

/// Why a payload was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// For programs: `not-json`, `wrong-type`, `out-of-range`, `missing`, `bad-timestamp`, `future-event-time`, `unknown-field`, `not-csv`.
    pub code: &'static str,
    pub error: String,
}

/// As it travels through the decoder: one word, since nearly every call returns none.
pub type Bad = Box<Reject>;

#[cold]
pub fn bad(code: &'static str, error: impl Display) -> Bad {
    Box::new(Reject { code, error: error.to_string() })
}

impl From<Broken> for Bad {
    fn from(broken: Broken) -> Bad {
        bad("not-json", format_args!("byte {}: {}", broken.at, broken.expected))
    }
}
