//! Payloads that are packed, each by itself.

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::avro::read_at_most;
use crate::reject::{Bad, bad};

/// What a payload may hold: a few bytes could otherwise fill the memory.
pub const LARGEST: usize = 64 << 20;

/// How each payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    /// With the frame of zlib (RFC 1950) or without (RFC 1951): writers differ in what they call deflate.
    Deflate,
}

impl Compression {
    /// What the payload holds; `room` is where it is put.
    pub fn unpack<'a>(self, payload: &'a [u8], room: &'a mut Vec<u8>) -> Result<&'a [u8], Bad> {
        room.clear();
        let (unpacked, code) = match self {
            Compression::None => return Ok(payload),
            Compression::Gzip => (read_at_most(MultiGzDecoder::new(payload), room, LARGEST), "not-gzip"),
            Compression::Deflate if has_frame(payload) => {
                (read_at_most(ZlibDecoder::new(payload), room, LARGEST), "not-deflate")
            }
            Compression::Deflate => (read_at_most(DeflateDecoder::new(payload), room, LARGEST), "not-deflate"),
        };
        unpacked.map_err(|error| bad(code, error))?;
        Ok(room)
    }
}

/// Whether a payload begins as zlib's do. Without the frame, it would begin with a block that is stored as it is and whose
/// filling bits are not zero: no writer makes one.
fn has_frame(payload: &[u8]) -> bool {
    matches!(payload, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    #[test]
    fn a_payload_is_unpacked_whatever_its_writer_calls_deflate() {
        for text in [String::new(), "{\"a\": 1}".into(), "ab\u{fc}".repeat(100_000)] {
            let mut gzip = GzEncoder::new(vec![], flate2::Compression::fast());
            let mut framed = ZlibEncoder::new(vec![], flate2::Compression::fast());
            let mut stored = DeflateEncoder::new(vec![], flate2::Compression::none());
            let mut bare = DeflateEncoder::new(vec![], flate2::Compression::best());
            gzip.write_all(text.as_bytes()).unwrap();
            framed.write_all(text.as_bytes()).unwrap();
            stored.write_all(text.as_bytes()).unwrap();
            bare.write_all(text.as_bytes()).unwrap();
            let mut room = vec![];
            let mut holds = |compression: Compression, packed: Vec<u8>| {
                assert_eq!(compression.unpack(&packed, &mut room).unwrap(), text.as_bytes());
                if compression != Compression::None && packed.len() > 20 {
                    assert!(compression.unpack(&packed[..packed.len() - 6], &mut room).is_err(), "{compression:?}");
                }
            };
            holds(Compression::Gzip, gzip.finish().unwrap());
            holds(Compression::Deflate, framed.finish().unwrap());
            holds(Compression::Deflate, stored.finish().unwrap());
            holds(Compression::Deflate, bare.finish().unwrap());
            holds(Compression::None, text.clone().into_bytes());
        }
    }

    #[test]
    fn what_is_not_packed_and_what_holds_too_much_is_refused() {
        let mut room = vec![];
        assert_eq!(Compression::Gzip.unpack(b"{\"a\": 1}", &mut room).unwrap_err().code, "not-gzip");
        assert_eq!(Compression::Deflate.unpack(b"{\"a\": 1}", &mut room).unwrap_err().code, "not-deflate");
        let mut bomb = GzEncoder::new(vec![], flate2::Compression::best());
        (0..=LARGEST >> 20).for_each(|_| bomb.write_all(&vec![0; 1 << 20]).unwrap());
        let refused = Compression::Gzip.unpack(&bomb.finish().unwrap(), &mut room).unwrap_err().error;
        assert_eq!(refused, "it holds more than 67108864 bytes");
    }
}
