//! What the server answers: the tokens of MS-TDS 2.2.7.

use crate::collation::Collation;
use crate::error::SqlError;
use crate::sql::translate::Output;
use crate::types::WireType;
use crate::value::{self, Value};

/// What a DONE says that it is the end of: MS-TDS 2.2.7.6, CurCmd.
pub mod command {
    pub const NONE: u16 = 0;
    pub const SELECT: u16 = 0xC1;
    pub const INSERT: u16 = 0xC3;
    pub const DELETE: u16 = 0xC4;
    pub const UPDATE: u16 = 0xC5;
    pub const CREATE: u16 = 0xC6;
    pub const DROP: u16 = 0xC7;
    pub const BEGIN: u16 = 0xD4;
    pub const COMMIT: u16 = 0xD5;
    pub const ROLLBACK: u16 = 0xD2;
    pub const EXECUTE: u16 = 0xE0;
    pub const BULK: u16 = 0xF0;
}

const MORE: u16 = 0x01;
const ERROR: u16 = 0x02;
const COUNT: u16 = 0x10;
const ATTENTION: u16 = 0x20;

/// Which DONE: of a statement of a batch, of one within a procedure, of a procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Statement = 0xFD,
    WithinProcedure = 0xFF,
    Procedure = 0xFE,
}

/// The message that is being written.
#[derive(Debug, Default)]
pub struct Answer {
    pub bytes: Vec<u8>,
    /// Where the status of the last DONE is, if nothing stands behind it.
    last: Option<usize>,
}

impl Answer {
    pub fn done(&mut self, kind: Done, command: u16, count: Option<u64>, error: bool) {
        let status = MORE | if error { ERROR } else { 0 } | if count.is_some() { COUNT } else { 0 };
        self.bytes.push(kind as u8);
        self.last = Some(self.bytes.len());
        self.bytes.extend(status.to_le_bytes());
        self.bytes.extend(command.to_le_bytes());
        self.bytes.extend(count.unwrap_or(0).to_le_bytes());
    }

    /// The end of the message: the last DONE announces no more.
    pub fn finish(mut self) -> Vec<u8> {
        if self.last.is_none() {
            self.done(Done::Statement, command::NONE, None, false);
        }
        if let Some(at) = self.last {
            self.bytes[at] &= !(MORE as u8);
        }
        self.bytes
    }

    /// What an attention is answered with: MS-TDS 2.2.1.7.
    pub fn attention() -> Vec<u8> {
        let mut answer = Answer::default();
        answer.done(Done::Statement, command::NONE, None, false);
        if let Some(at) = answer.last {
            answer.bytes[at] = ATTENTION as u8;
        }
        answer.bytes
    }

    /// MS-TDS 2.2.7.10 ERROR.
    pub fn error(&mut self, error: &SqlError, procedure: &str, line: u32) {
        self.message(0xAA, error, procedure, line);
    }

    /// MS-TDS 2.2.7.13 INFO.
    pub fn info(&mut self, number: u32, text: &str) {
        self.message(0xAB, &SqlError { number, class: 0, state: 1, message: text.into() }, "", 1);
    }

    fn message(&mut self, token: u8, error: &SqlError, procedure: &str, line: u32) {
        let mut body = Vec::new();
        body.extend(error.number.to_le_bytes());
        body.extend([error.state, error.class]);
        // Texts of the server's have up to 2048 characters.
        us_varchar(&mut body, &error.message.chars().take(2047).collect::<String>());
        b_varchar(&mut body, "double");
        b_varchar(&mut body, procedure);
        body.extend(line.to_le_bytes());
        self.sized(token, &body);
    }

    fn sized(&mut self, token: u8, body: &[u8]) {
        self.last = None;
        self.bytes.push(token);
        self.bytes.extend((body.len() as u16).to_le_bytes());
        self.bytes.extend(body);
    }

    /// MS-TDS 2.2.7.9 ENVCHANGE of two texts.
    pub fn change_text(&mut self, kind: u8, new: &str, old: &str) {
        let mut body = vec![kind];
        b_varchar(&mut body, new);
        b_varchar(&mut body, old);
        self.sized(0xE3, &body);
    }

    /// The same of two values in bytes.
    pub fn change_bytes(&mut self, kind: u8, new: &[u8], old: &[u8]) {
        let mut body = vec![kind, new.len() as u8];
        body.extend(new);
        body.push(old.len() as u8);
        body.extend(old);
        self.sized(0xE3, &body);
    }

    /// ENVCHANGE 20: log in there.
    pub fn route(&mut self, host: &str, port: u16) {
        let mut value = vec![0];
        value.extend(port.to_le_bytes());
        us_varchar(&mut value, host);
        let mut body = vec![20];
        body.extend((value.len() as u16).to_le_bytes());
        body.extend(value);
        body.extend(0u16.to_le_bytes());
        self.sized(0xE3, &body);
    }

    /// MS-TDS 2.2.7.14 LOGINACK, of a server of 2019.
    pub fn login(&mut self, version: [u8; 4]) {
        let mut body = vec![1];
        body.extend(version);
        b_varchar(&mut body, "Microsoft SQL Server");
        body.extend([15, 0, 0x10, 0]);
        self.sized(0xAD, &body);
    }

    /// MS-TDS 2.2.7.11 FEATUREEXTACK.
    pub fn features(&mut self, features: &[(u8, Vec<u8>)]) {
        self.last = None;
        self.bytes.push(0xAE);
        for (feature, data) in features {
            self.bytes.push(*feature);
            self.bytes.extend((data.len() as u32).to_le_bytes());
            self.bytes.extend(data);
        }
        self.bytes.push(0xFF);
    }

    /// MS-TDS 2.2.7.4 COLMETADATA.
    pub fn columns(&mut self, columns: &[Output]) {
        self.last = None;
        self.bytes.push(0x81);
        self.bytes.extend((columns.len() as u16).to_le_bytes());
        for column in columns {
            self.bytes.extend(0u32.to_le_bytes());
            self.bytes.extend(flags(column).to_le_bytes());
            let collation = column.typed.collation.clone().unwrap_or_default();
            wire_type(column).write(&mut self.bytes, &collation);
            b_varchar(&mut self.bytes, &column.name);
        }
    }

    /// MS-TDS 2.2.7.19 ROW.
    pub fn row(&mut self, columns: &[Output], values: &[Value]) {
        self.last = None;
        self.bytes.push(0xD1);
        for (column, value) in columns.iter().zip(values) {
            value::write(&mut self.bytes, value, wire_type(column));
        }
    }

    /// MS-TDS 2.2.7.16 RETURNSTATUS.
    pub fn status(&mut self, status: i32) {
        self.last = None;
        self.bytes.push(0x79);
        self.bytes.extend(status.to_le_bytes());
    }

    /// MS-TDS 2.2.7.18 RETURNVALUE: of a parameter of OUTPUT.
    pub fn returned(&mut self, ordinal: u16, name: &str, of: WireType, value: &Value) {
        self.last = None;
        self.bytes.push(0xAC);
        self.bytes.extend(ordinal.to_le_bytes());
        b_varchar(&mut self.bytes, name);
        self.bytes.push(1);
        self.bytes.extend(0u32.to_le_bytes());
        self.bytes.extend(1u16.to_le_bytes());
        of.write(&mut self.bytes, &Collation::default());
        value::write(&mut self.bytes, value, of);
    }
}

fn wire_type(column: &Output) -> WireType {
    let utf8 = column.typed.collation.as_ref().is_some_and(|collation| collation.utf8);
    WireType { utf8, ..WireType::of(column.typed.of, column.typed.nullable) }
}

/// Nullable, case-sensitive, whether it can be written to, identity, computed: MS-TDS 2.2.7.4.
fn flags(column: &Output) -> u16 {
    const UPDATEABLE_UNKNOWN: u16 = 0x08;
    let typed = &column.typed;
    let exact = typed.collation.as_ref().is_some_and(|collation| collation.sqlite() != "TDS_CI");
    let mut flags = u16::from(typed.nullable) | if exact { 0x02 } else { 0 };
    flags |= match (typed.column, typed.identity, typed.computed) {
        (true, false, false) => UPDATEABLE_UNKNOWN,
        (true, true, _) => 0x10,
        _ => 0x20,
    };
    flags
}

pub fn b_varchar(out: &mut Vec<u8>, text: &str) {
    let units: Vec<u16> = text.encode_utf16().take(255).collect();
    out.push(units.len() as u8);
    out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
}

fn us_varchar(out: &mut Vec<u8>, text: &str) {
    let units: Vec<u16> = text.encode_utf16().collect();
    out.extend((units.len() as u16).to_le_bytes());
    out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
}
