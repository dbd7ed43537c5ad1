//! Compressed files, unpacked as their bytes arrive.

use std::io::Write;

use engine::source::SourceError;
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// What the name of a file says.
    pub fn of_name(name: &str) -> Compression {
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Unpacks a stream into a buffer.
pub enum Unpacker {
    None,
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    Zstd { decoder: Box<zstd::stream::raw::Decoder<'static>>, whole: bool },
}

/// Packed bytes that are unpacked at once: a thousand times as many may come out.
pub const PACKED_AT_ONCE: usize = 16 << 10;

impl Unpacker {
    pub fn new(compression: Compression, place: &str) -> Result<Unpacker, SourceError> {
        Ok(match compression {
            Compression::None => Unpacker::None,
            Compression::Gzip => Unpacker::Gzip(Box::new(flate2::write::MultiGzDecoder::new(vec![]))),
            Compression::Zstd => {
                let decoder = zstd::stream::raw::Decoder::new().map_err(|e| SourceError::failed(place, e))?;
                Unpacker::Zstd { decoder: Box::new(decoder), whole: true }
            }
        })
    }

    /// Appends what `packed` holds to `out`.
    pub fn push(&mut self, packed: &[u8], out: &mut Vec<u8>, place: &str) -> Result<(), SourceError> {
        let damaged = |e: std::io::Error| SourceError::failed(place, format!("the compressed file is damaged: {e}"));
        match self {
            Unpacker::None => out.extend_from_slice(packed),
            Unpacker::Gzip(decoder) => {
                decoder.write_all(packed).map_err(damaged)?;
                out.append(decoder.get_mut());
            }
            Unpacker::Zstd { decoder, whole } => {
                let (mut input, mut full, mut block) = (InBuffer::around(packed), false, vec![0; 4 * PACKED_AT_ONCE]);
                while input.pos() < packed.len() || full {
                    let mut output = OutBuffer::around(&mut block[..]);
                    *whole = decoder.run(&mut input, &mut output).map_err(damaged)? == 0;
                    full = output.pos() == output.capacity();
                    out.extend_from_slice(output.as_slice());
                }
            }
        }
        Ok(())
    }

    /// Confirms that the stream is whole; appends what was held back.
    pub fn end(&mut self, out: &mut Vec<u8>, place: &str) -> Result<(), SourceError> {
        let cut = |e: std::io::Error| SourceError::failed(place, format!("the compressed file is cut off: {e}"));
        match self {
            Unpacker::None => Ok(()),
            Unpacker::Gzip(decoder) => {
                decoder.try_finish().map_err(cut)?;
                out.append(decoder.get_mut());
                Ok(())
            }
            Unpacker::Zstd { whole: true, .. } => Ok(()),
            Unpacker::Zstd { .. } => Err(cut(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
