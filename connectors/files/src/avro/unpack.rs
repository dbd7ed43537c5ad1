//! The codecs of a block.

use std::io::Read;

use arrow_avro::compression::CompressionCodec;
use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::frame::LARGEST_BLOCK;

/// Appends what `packed` holds to `unpacked`.
pub fn unpack(codec: Option<CompressionCodec>, packed: &[u8], unpacked: &mut Vec<u8>) -> Result<(), String> {
    match codec {
        None => {
            unpacked.extend_from_slice(packed);
            Ok(())
        }
        Some(CompressionCodec::Deflate) => read(DeflateDecoder::new(packed), unpacked),
        Some(CompressionCodec::ZStandard) => {
            read(zstd::Decoder::with_buffer(packed).map_err(|e| e.to_string())?, unpacked)
        }
        Some(CompressionCodec::Snappy) => snappy(packed, unpacked),
        Some(CompressionCodec::Bzip2) => Err(unread("bzip2")),
        Some(CompressionCodec::Xz) => Err(unread("xz")),
    }
}

fn unread(codec: &str) -> String {
    format!("the codec {codec} is not read; null, deflate, snappy and zstandard are")
}

fn too_large() -> String {
    format!("it holds more than {LARGEST_BLOCK} bytes")
}

fn read(decoder: impl Read, unpacked: &mut Vec<u8>) -> Result<(), String> {
    match decoder.take(LARGEST_BLOCK as u64 + 1).read_to_end(unpacked) {
        Ok(length) if length > LARGEST_BLOCK => Err(too_large()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Snappy's own format without frames, and a checksum of what it holds.
fn snappy(packed: &[u8], unpacked: &mut Vec<u8>) -> Result<(), String> {
    let (packed, checksum) = packed.split_last_chunk::<4>().ok_or("it has no checksum")?;
    let length = snap::raw::decompress_len(packed).map_err(|e| e.to_string())?;
    if length > LARGEST_BLOCK {
        return Err(too_large());
    }
    let first = unpacked.len();
    unpacked.resize(first + length, 0);
    snap::raw::Decoder::new().decompress(packed, &mut unpacked[first..]).map_err(|e| e.to_string())?;
    let mut found = Crc::new();
    found.update(&unpacked[first..]);
    if found.sum() == u32::from_be_bytes(*checksum) { Ok(()) } else { Err("its checksum does not hold".into()) }
}
