//! What is agreed upon before the login: MS-TDS 2.2.6.5.

use crate::reader::{Read, Reader, violation};

mod option {
    pub const VERSION: u8 = 0;
    pub const ENCRYPTION: u8 = 1;
    pub const INSTANCE: u8 = 2;
    pub const THREAD: u8 = 3;
    pub const MARS: u8 = 4;
    pub const TRACE: u8 = 5;
    pub const TOKEN_REQUIRED: u8 = 6;
    pub const NONCE: u8 = 7;
    pub const END: u8 = 0xFF;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Of the login only.
    Off = 0,
    On = 1,
    NotSupported = 2,
    Required = 3,
}

#[derive(Debug, Clone)]
pub struct Prelogin {
    pub encryption: Encryption,
    pub instance: Vec<u8>,
    /// Whether the client asks if tokens are for it.
    pub asks_for_token: bool,
}

pub fn read(data: &[u8]) -> Read<Prelogin> {
    let mut reader = Reader::new(data);
    let mut found = Prelogin { encryption: Encryption::NotSupported, instance: Vec::new(), asks_for_token: false };
    let mut first = true;
    loop {
        let option = reader.u8()?;
        if option == option::END {
            break;
        }
        if first != (option == option::VERSION) {
            return violation("PRELOGIN: VERSION is the first option, and there once");
        }
        first = false;
        let (offset, length) = (usize::from(reader.u16_be()?), usize::from(reader.u16_be()?));
        let Some(value) = data.get(offset..offset + length) else {
            return violation(format!(
                "PRELOGIN: option {option} at {offset} of {length} bytes is outside of the message"
            ));
        };
        let right = match option {
            option::VERSION => length == 6,
            option::ENCRYPTION | option::MARS | option::TOKEN_REQUIRED => length == 1,
            option::INSTANCE => value.last() == Some(&0),
            option::THREAD => length == 4 || length == 0,
            option::TRACE => length == 36 || length == 20,
            option::NONCE => length == 32,
            _ => true,
        };
        if !right {
            return violation(format!("PRELOGIN: option {option} of {length} bytes"));
        }
        match option {
            option::ENCRYPTION => found.encryption = encryption(value[0])?,
            option::INSTANCE => found.instance = value.to_vec(),
            option::TOKEN_REQUIRED => found.asks_for_token = value[0] == 1,
            _ => {}
        }
    }
    Ok(found)
}

fn encryption(byte: u8) -> Read<Encryption> {
    Ok(match byte {
        0 => Encryption::Off,
        1 => Encryption::On,
        2 => Encryption::NotSupported,
        3 => Encryption::Required,
        other => return violation(format!("PRELOGIN: encryption {other}")),
    })
}

/// What the server says to what the client said. The table in MS-TDS 2.2.6.5 under ENCRYPTION.
pub fn agree(client: Encryption, able: bool, required: bool) -> Encryption {
    match (client, able, required) {
        (_, false, _) => Encryption::NotSupported,
        (Encryption::NotSupported, true, false) => Encryption::NotSupported,
        (Encryption::Off, true, false) => Encryption::Off,
        (Encryption::NotSupported | Encryption::Off, true, true) => Encryption::Required,
        (Encryption::On | Encryption::Required, true, _) => Encryption::On,
    }
}

pub fn answer(client: &Prelogin, encryption: Encryption, wants_token: bool) -> Vec<u8> {
    let mut options: Vec<(u8, Vec<u8>)> = vec![
        (option::VERSION, vec![15, 0, 0x10, 0, 0, 0]),
        (option::ENCRYPTION, vec![encryption as u8]),
        (option::INSTANCE, vec![0]),
        (option::THREAD, Vec::new()),
        (option::MARS, vec![0]),
    ];
    if client.asks_for_token {
        options.push((option::TOKEN_REQUIRED, vec![u8::from(wants_token)]));
    }
    let mut head = Vec::new();
    let mut values = Vec::new();
    let start = options.len() * 5 + 1;
    for (option, value) in options {
        head.push(option);
        head.extend(((start + values.len()) as u16).to_be_bytes());
        head.extend((value.len() as u16).to_be_bytes());
        values.extend(value);
    }
    head.push(option::END);
    head.extend(values);
    head
}
