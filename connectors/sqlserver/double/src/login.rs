//! The login: MS-TDS 2.2.6.4.

use crate::reader::{Read, Reader, utf16, violation};

#[derive(Debug, Clone, Default)]
pub struct Login {
    pub version: u32,
    pub packet_size: u32,
    pub user: String,
    pub password: String,
    pub database: String,
    /// Features that are asked for, but the token.
    pub features: Vec<u8>,
    pub token: Option<String>,
}

pub mod feature {
    pub const TOKEN: u8 = 0x02;
    pub const UTF8: u8 = 0x0A;
    pub const END: u8 = 0xFF;
}

/// TDS 7.4 and 8.0; 7.1 to 7.3 are clients that are too old for what is tested here.
const VERSIONS: [u32; 2] = [0x7400_0004, 0x0800_0000];
const FIXED: usize = 94;
const HAS_EXTENSION: u8 = 0x10;

pub fn read(data: &[u8]) -> Read<Login> {
    let mut reader = Reader::new(data);
    let length = reader.u32()? as usize;
    if length != data.len() || length < FIXED {
        return violation(format!("LOGIN7 says {length} bytes and has {}", data.len()));
    }
    let version = reader.u32()?;
    if !VERSIONS.contains(&version) {
        return violation(format!("LOGIN7: TDS version 0x{version:08X}"));
    }
    let packet_size = reader.u32()?;
    // The client's version, process and connection; three bytes of flags.
    reader.take(4 * 3 + 3)?;
    let flags = reader.u8()?;
    // The time zone, and the language's number.
    reader.take(8)?;
    let mut part = || -> Read<&[u8]> {
        let (offset, units) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
        match data.get(offset..offset + units * 2) {
            Some(part) => Ok(part),
            None if units == 0 => Ok(&[]),
            None => violation(format!("LOGIN7: a part at {offset} of {units} characters is outside of the message")),
        }
    };
    let _host = utf16(part()?)?;
    let user = utf16(part()?)?;
    let password = utf16(&revealed(part()?))?;
    let _application = utf16(part()?)?;
    let _server = utf16(part()?)?;
    let (extension, extension_length) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
    let mut part = || -> Read<&[u8]> {
        let (offset, units) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
        data.get(offset..offset + units * 2).map_or_else(|| violation("LOGIN7: a part is outside of the message"), Ok)
    };
    let _library = utf16(part()?)?;
    let _language = utf16(part()?)?;
    let database = utf16(part()?)?;
    let mut login = Login { version, packet_size, user, password, database, ..Login::default() };
    if flags & HAS_EXTENSION != 0 {
        if extension_length != 4 {
            return violation("LOGIN7: the extension is announced, and has no place");
        }
        let at = Reader::new(data.get(extension..).unwrap_or_default()).u32()? as usize;
        read_features(data.get(at..).unwrap_or_default(), &mut login)?;
    }
    Ok(login)
}

/// Each byte was turned by half, and then changed by 0xA5.
fn revealed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| (byte ^ 0xA5).rotate_left(4)).collect()
}

fn read_features(data: &[u8], login: &mut Login) -> Read<()> {
    let mut reader = Reader::new(data);
    loop {
        let id = reader.u8()?;
        if id == feature::END {
            return Ok(());
        }
        let length = reader.u32()? as usize;
        let value = reader.take(length)?;
        if id == feature::TOKEN {
            login.token = Some(read_token(value)?);
        } else {
            login.features.push(id);
        }
    }
}

/// MS-TDS 2.2.6.4, FEDAUTH: a security token that the client has brought.
fn read_token(value: &[u8]) -> Read<String> {
    let mut reader = Reader::new(value);
    let options = reader.u8()?;
    if options >> 1 != 1 {
        return violation(format!("LOGIN7: FEDAUTH by library {}, and not with a token", options >> 1));
    }
    let length = reader.u32()? as usize;
    let token = utf16(reader.take(length)?)?;
    if !reader.is_empty() && reader.rest().len() != 32 {
        return violation("LOGIN7: FEDAUTH is longer than its token and a nonce");
    }
    Ok(token)
}
