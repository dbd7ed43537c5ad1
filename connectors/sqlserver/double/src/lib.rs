//! A strict double of Microsoft SQL Server, for tests of what speaks TDS to it.
//!
//! It speaks the real protocol (MS-TDS 7.4 and 8.0), and a small, exact part of T-SQL over SQLite. What it does not know is an error, as
//! it is for the server: a test is to notice when a client says something new.
//!
//! What it takes and does nothing with:
//!
//! * Rows are not divided: partitions are in the catalog only, there is one filegroup, and an index of columns is none of SQLite's.
//!   Compression is but a word.
//! * A change locks the whole database, whatever LOCK_ESCALATION and the hints of a statement say.
//! * Only a user that CREATE USER … FROM EXTERNAL PROVIDER has made is held to what was granted, and whoever brings a token is that
//!   user, if it has the name of [`Options::user`]; all others own the database. There is no directory, so that any name makes a user,
//!   and no role. SELECT, INSERT, UPDATE, DELETE and EXECUTE on an object are looked at, REFERENCES is only kept; an UPDATE or a DELETE
//!   takes SELECT as well, also where the server would do without. Such a user makes and drops nothing but the session's own tables.
//!   What it has no right to is hidden by OBJECT_ID, and not by the views of the catalog.

mod accident;
mod bulk;
mod collation;
mod connection;
mod convert;
mod decimal;
mod error;
mod json;
mod login;
mod packet;
mod prelogin;
mod reader;
mod rpc;
mod server;
mod session;
mod sql;
mod temporal;
mod tokens;
mod transaction;
mod types;
mod value;

pub use accident::{Accident, Step, Transaction};
pub use error::SqlError;
pub use server::{Options, Server, Tls};
