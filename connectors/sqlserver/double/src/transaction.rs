//! Transactions that drivers begin and end themselves: MS-TDS 2.2.6.9, Transaction Manager Request.

use crate::accident::Transaction;
use crate::reader::{Read, Reader, utf16, violation};
use crate::session::Session;
use crate::tokens::command;

pub struct Request {
    pub of: Transaction,
    name: String,
}

pub fn read(reader: &mut Reader<'_>) -> Read<Request> {
    let of = match reader.u16()? {
        5 => Transaction::Begin,
        7 => Transaction::Commit,
        8 => Transaction::Rollback,
        9 => Transaction::Save,
        other => return violation(format!("transaction manager: request {other} is none that is known here")),
    };
    if of == Transaction::Begin && reader.u8()? > 5 {
        return violation("transaction manager: an isolation level that is none");
    }
    let flags = usize::from(matches!(of, Transaction::Commit | Transaction::Rollback));
    let length = usize::from(reader.u8()?);
    let rest = reader.rest();
    // The length is one of bytes; some clients say characters.
    let bytes = match rest.len().checked_sub(flags) {
        Some(bytes) if bytes == length || bytes == length * 2 => &rest[..bytes],
        _ => return violation("transaction manager: a name of another length"),
    };
    if flags == 1 && rest[rest.len() - 1] & 1 != 0 {
        return violation("transaction manager: to begin the next at once is not known here");
    }
    Ok(Request { of, name: utf16(bytes)? })
}

pub fn run(session: &mut Session, request: &Request) {
    let (result, command) = match request.of {
        Transaction::Begin => {
            session.begin();
            (Ok(()), command::BEGIN)
        }
        Transaction::Commit => (session.commit(), command::COMMIT),
        Transaction::Rollback => {
            let savepoint = Some(request.name.as_str()).filter(|name| !name.is_empty());
            (session.rollback(savepoint), command::ROLLBACK)
        }
        Transaction::Save => (session.save(&request.name), command::NONE),
    };
    match result {
        Ok(()) => session.done(command, None, false),
        Err(error) => {
            let _ = session.fail(error);
        }
    }
}
