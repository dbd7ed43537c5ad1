//! A strict double of Microsoft SQL Server, for tests of what speaks TDS to it.
//!
//! It speaks the real protocol (MS-TDS 7.4 and 8.0), and a small, exact part of T-SQL over SQLite. What it does not know is an error, as
//! it is for the server: a test is to notice when a client says something new.

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
