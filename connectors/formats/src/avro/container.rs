//! Object containers: a schema, and blocks of values (Apache Avro 1.12 specification, "Object Container Files").

use super::codec::AvroCodec;
use super::input::Input;
use crate::compression::LARGEST;
use crate::reject::{Bad, bad};

const MAGIC: &[u8] = b"Obj\x01";
const MARKER: usize = 16;

/// A payload that is one, behind its header.
pub struct Container<'a> {
    pub schema: &'a str,
    codec: AvroCodec,
    marker: &'a [u8],
    blocks: Input<'a>,
}

impl<'a> Container<'a> {
    pub fn open(payload: &'a [u8]) -> Result<Container<'a>, Bad> {
        let Some(rest) = payload.strip_prefix(MAGIC) else {
            return Err(bad("not-avro", "an object container is expected, which begins with Obj"));
        };
        let mut input = Input::new(rest);
        let (mut schema, mut codec) = (None, None);
        while let Some((count, _)) = input.block()? {
            for _ in 0..count {
                match (input.string()?, input.bytes()?) {
                    ("avro.schema", text) => schema = Some(text),
                    ("avro.codec", name) => codec = Some(name),
                    _ => {}
                }
            }
        }
        let schema = schema.ok_or_else(|| bad("not-avro", "its header has no schema"))?;
        let schema = simdutf8::basic::from_utf8(schema).map_err(|_| bad("not-avro", "its schema is not UTF-8"))?;
        let codec = AvroCodec::named(codec).map_err(|why| bad("not-avro", why))?;
        Ok(Container { schema, codec, marker: input.take(MARKER)?, blocks: input })
    }

    /// Hands over each block's values, unpacked, and how many there are.
    pub fn blocks(mut self, mut take: impl FnMut(usize, &[u8]) -> Result<(), Bad>) -> Result<(), Bad> {
        let mut unpacked = vec![];
        while !self.blocks.is_empty() {
            let count = self.blocks.long()?;
            let count = usize::try_from(count).map_err(|_| self.blocks.broken(format_args!("a block of {count}")))?;
            let packed = self.blocks.bytes()?;
            if self.blocks.take(MARKER)? != self.marker {
                return Err(self.blocks.broken("the block before does not end with the container's marker"));
            }
            unpacked.clear();
            self.codec.unpack(packed, &mut unpacked, LARGEST).map_err(|why| bad("not-avro", why))?;
            take(count, &unpacked)?;
        }
        Ok(())
    }
}
