//! What the server says when something is wrong: numbers, classes and texts as in
//! <https://learn.microsoft.com/sql/relational-databases/errors-events/database-engine-events-and-errors>.

use std::fmt;

/// An error of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    pub number: u32,
    pub class: u8,
    pub state: u8,
    pub message: String,
}

/// How much of the work an error ends when XACT_ABORT is off.
/// <https://learn.microsoft.com/sql/t-sql/statements/set-xact-abort-transact-sql>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Statement,
    Batch,
    Transaction,
}

impl SqlError {
    pub fn new(number: u32, class: u8, message: impl Into<String>) -> Self {
        SqlError { number, class, state: 1, message: message.into() }
    }

    pub fn reach(&self) -> Reach {
        match self.number {
            102 | 105 | 137 | 155 | 156 | 207 | 208 | 209 | 214 | 468 | 1087 | 4104 | 8144 | 8145 | 8146 | 8178
            | 8179 => Reach::Batch,
            1908 | 1921 | 2703 | 2726 | 7703..=7726 => Reach::Batch,
            241 | 242 | 245 | 295 | 9420 | 8114 | 8169 => Reach::Transaction,
            _ if self.class >= 17 => Reach::Transaction,
            _ => Reach::Statement,
        }
    }

    /// Whether the server adds that the statement has been terminated (3621).
    pub fn terminates(&self) -> bool {
        matches!(self.number, 220 | 232 | 515 | 547 | 2601 | 2627 | 2628 | 8115 | 8134 | 8152)
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {}, class {})", self.message, self.number, self.class)
    }
}

impl std::error::Error for SqlError {}

const MARK: char = '\u{1}';

impl SqlError {
    /// As a text that survives the way through SQLite, whose functions fail with texts only.
    pub fn packed(&self) -> String {
        format!("{MARK}{}{MARK}{}{MARK}{}{MARK}{}", self.number, self.class, self.state, self.message)
    }

    fn unpacked(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(MARK)?.splitn(4, MARK);
        let mut number = || parts.next()?.parse().ok();
        let (number, class, state): (u32, u32, u32) = (number()?, number()?, number()?);
        Some(SqlError { number, class: class as u8, state: state as u8, message: parts.next()?.into() })
    }
}

/// What SQLite cannot do is a defect of the double, and said as loudly as an internal error of the server.
impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::SqliteFailure(code, text) = &error {
            if let Some(own) = text.as_deref().and_then(SqlError::unpacked) {
                return own;
            }
            match code.code {
                rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked => return lock_timeout(),
                rusqlite::ErrorCode::OperationInterrupted => return SqlError::new(3617, 11, "Query was cancelled."),
                _ => {}
            }
        }
        SqlError::new(8624, 17, format!("Internal Query Processor Error: {error}"))
    }
}

pub fn syntax(near: &str) -> SqlError {
    SqlError::new(102, 15, format!("Incorrect syntax near '{near}'."))
}

pub fn no_table(name: &str) -> SqlError {
    SqlError::new(208, 16, format!("Invalid object name '{name}'."))
}

pub fn no_column(name: &str) -> SqlError {
    SqlError::new(207, 16, format!("Invalid column name '{name}'."))
}

pub fn no_variable(name: &str) -> SqlError {
    SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\"."))
}

pub fn no_procedure(name: &str) -> SqlError {
    SqlError { state: 62, ..SqlError::new(2812, 16, format!("Could not find stored procedure '{name}'.")) }
}

pub fn lock_timeout() -> SqlError {
    SqlError { state: 51, ..SqlError::new(1222, 16, "Lock request time out period exceeded.") }
}

pub fn null_into(column: &str, table: &str, verb: &str) -> SqlError {
    let message = format!(
        "Cannot insert the value NULL into column '{column}', table '{table}'; column does not allow nulls. {verb} fails."
    );
    SqlError { state: 2, ..SqlError::new(515, 16, message) }
}

pub fn truncated(table: &str, column: &str, value: &str) -> SqlError {
    let message = format!(
        "String or binary data would be truncated in table '{table}', column '{column}'. Truncated value: '{value}'."
    );
    SqlError::new(2628, 16, message)
}

pub fn overflow(from: &str, to: &str) -> SqlError {
    SqlError {
        state: 2,
        ..SqlError::new(8115, 16, format!("Arithmetic overflow error converting {from} to data type {to}."))
    }
}

pub fn small_overflow(to: &str, value: &str) -> SqlError {
    SqlError {
        state: 2,
        ..SqlError::new(220, 16, format!("Arithmetic overflow error for data type {to}, value = {value}."))
    }
}

pub fn not_converted(from: &str, to: &str) -> SqlError {
    SqlError { state: 5, ..SqlError::new(8114, 16, format!("Error converting data type {from} to {to}.")) }
}

pub fn exists_already(name: &str) -> SqlError {
    SqlError {
        state: 6,
        ..SqlError::new(2714, 16, format!("There is already an object named '{name}' in the database."))
    }
}
