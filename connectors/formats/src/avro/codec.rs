//! How the blocks of an object container are packed.

use std::io::Read;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

/// A codec that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AvroCodec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

impl AvroCodec {
    /// By the name that a header gives it; one that gives none means `null`.
    pub fn named(name: Option<&[u8]>) -> Result<AvroCodec, String> {
        match name {
            None | Some(b"null") => Ok(AvroCodec::Null),
            Some(b"deflate") => Ok(AvroCodec::Deflate),
            Some(b"snappy") => Ok(AvroCodec::Snappy),
            Some(b"zstandard") => Ok(AvroCodec::Zstandard),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                Err(format!("the codec {other} is not read; null, deflate, snappy and zstandard are"))
            }
        }
    }

    /// Appends what `packed` holds to `unpacked`, if it has at most so many bytes.
    pub fn unpack(self, packed: &[u8], unpacked: &mut Vec<u8>, most: usize) -> Result<(), String> {
        match self {
            AvroCodec::Null => {
                unpacked.extend_from_slice(packed);
                Ok(())
            }
            AvroCodec::Deflate => read(DeflateDecoder::new(packed), unpacked, most),
            AvroCodec::Zstandard => {
                let decoder = zstd::Decoder::with_buffer(packed).map_err(|e| e.to_string())?;
                read(decoder, unpacked, most)
            }
            AvroCodec::Snappy => snappy(packed, unpacked, most),
        }
    }
}

fn too_large(most: usize) -> String {
    format!("it holds more than {most} bytes")
}

/// Appends what a decoder yields, if it has at most so many bytes.
pub fn read(decoder: impl Read, unpacked: &mut Vec<u8>, most: usize) -> Result<(), String> {
    match decoder.take(most as u64 + 1).read_to_end(unpacked) {
        Ok(length) if length > most => Err(too_large(most)),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Snappy's own format without frames, and a checksum of what it holds.
fn snappy(packed: &[u8], unpacked: &mut Vec<u8>, most: usize) -> Result<(), String> {
    let (packed, checksum) = packed.split_last_chunk::<4>().ok_or("it has no checksum")?;
    let length = snap::raw::decompress_len(packed).map_err(|e| e.to_string())?;
    if length > most {
        return Err(too_large(most));
    }
    let first = unpacked.len();
    unpacked.resize(first + length, 0);
    snap::raw::Decoder::new().decompress(packed, &mut unpacked[first..]).map_err(|e| e.to_string())?;
    let mut found = Crc::new();
    found.update(&unpacked[first..]);
    if found.sum() == u32::from_be_bytes(*checksum) { Ok(()) } else { Err("its checksum does not hold".into()) }
}
