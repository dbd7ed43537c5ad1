//! A small, exact part of T-SQL, over SQLite.

pub mod ast;
pub mod catalog;
pub mod dates;
pub mod functions;
pub mod json;
pub mod lexer;
pub mod parser;
pub mod partitions;
pub mod rights;
pub mod rows;
pub mod translate;
