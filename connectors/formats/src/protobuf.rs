//! Messages of Protocol Buffers.

mod reading;
mod wire;

use std::path::Path;

use arrow::datatypes::Fields as Columns;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use self::reading::{Came, Reading};
use self::wire::Fields;
use crate::decoder::Appender;
use crate::record::Record;
use crate::reject::{Bad, bad};

/// How a payload holds its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProtobufFraming {
    /// It is one.
    #[default]
    Bare,
    /// Each stands behind its length.
    Delimited,
    /// A zero, the schema's number in a registry and the message's place in the schema stand before it, as Confluent's
    /// serializers write them.
    Confluent,
}

/// What payloads of Protocol Buffers look like.
#[derive(Debug, Clone)]
pub struct ProtobufOptions {
    pub framing: ProtobufFraming,
    message: MessageDescriptor,
}

impl ProtobufOptions {
    /// `file`: a `.proto`, which may import others from its folder, or a set of descriptors as `protoc
    /// --include_imports --descriptor_set_out` makes it. `message`: the full name of the message; `None` if there is but
    /// one.
    pub fn of_file(file: &Path, message: Option<&str>, framing: ProtobufFraming) -> Result<ProtobufOptions, String> {
        let (pool, own) = if file.extension().is_some_and(|extension| extension == "proto") {
            compiled(file)?
        } else {
            let bytes = std::fs::read(file).map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
            let pool = DescriptorPool::decode(&bytes[..]);
            let why = "is neither a .proto file nor a set of descriptors";
            (pool.map_err(|e| format!("{} {why}: {e}", file.display()))?, None)
        };
        let names = || {
            let here = pool.all_messages().filter(|m| own.as_ref().is_none_or(|own| m.parent_file().name() == own));
            let here = here.filter(|m| !m.is_map_entry() && !m.full_name().starts_with("google.protobuf."));
            here.map(|m| m.full_name().to_string()).collect::<Vec<_>>()
        };
        let name = match (message, &names()[..]) {
            (Some(message), _) => message.to_string(),
            (None, [only]) => only.clone(),
            (None, several) => {
                return Err(format!("protobuf.message is to say which message; there are {}", several.join(", ")));
            }
        };
        let found = pool.get_message_by_name(&name);
        let message = found.ok_or_else(|| format!("there is no message {name}; there are {}", names().join(", ")))?;
        Ok(ProtobufOptions { framing, message })
    }
}

fn compiled(file: &Path) -> Result<(DescriptorPool, Option<String>), String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().and_then(|name| name.to_str()).ok_or("the file has no name")?;
    let mut compiler = protox::Compiler::new([folder]).map_err(|e| e.to_string())?;
    compiler.include_imports(true);
    // Its own words name the line, if they are asked for.
    compiler.open_file(name).map_err(|e| format!("{}: {e:?}", file.display()))?;
    Ok((compiler.descriptor_pool(), Some(name.to_string())))
}

/// Reads payloads of one table.
pub struct Protobuf {
    framing: ProtobufFraming,
    reading: Reading,
    room: Vec<Came>,
    /// Where the message stands among those of its file, each within the one before.
    place: Vec<u64>,
    name: String,
}

impl Protobuf {
    pub fn new(options: &ProtobufOptions, columns: &Columns) -> Protobuf {
        Protobuf {
            framing: options.framing,
            reading: Reading::new(&options.message, columns),
            room: vec![],
            // A path names the list of messages before each place in it.
            place: options.message.path().iter().skip(1).step_by(2).map(|place| *place as u64).collect(),
            name: options.message.full_name().to_string(),
        }
    }

    /// Reads each message of the payload into a row.
    pub fn read(&mut self, payload: &[u8], rows: &mut Appender<'_>) -> Result<(), Bad> {
        match self.framing {
            ProtobufFraming::Bare => self.one(payload, rows),
            ProtobufFraming::Delimited => {
                let mut messages = Fields::of(payload);
                while !messages.is_empty() {
                    self.one(messages.delimited()?, rows)?;
                }
                Ok(())
            }
            ProtobufFraming::Confluent => {
                let message = self.behind_frame(payload)?;
                self.one(message, rows)
            }
        }
    }

    fn one(&mut self, message: &[u8], rows: &mut Appender<'_>) -> Result<(), Bad> {
        rows.append(|Record { columns, watch, .. }| {
            self.reading.read(message, columns, watch.as_deref_mut(), &mut self.room)
        })
    }

    fn behind_frame<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], Bad> {
        let expected = "a zero, the number of a schema and the message's place are expected before it";
        let [0, _, _, _, _, rest @ ..] = payload else { return Err(bad("not-protobuf", expected)) };
        let mut frame = Fields::of(rest);
        let mut number = || frame.varint().map(|bits| bits >> 1);
        // The first message, which nearly all are, is written shorter.
        let place = match number()? {
            0 => vec![0],
            count if count as usize > rest.len() => return Err(bad("not-protobuf", expected)),
            count => (0..count).map(|_| number()).collect::<Result<Vec<_>, _>>()?,
        };
        if place != self.place {
            let what = format!(
                "it is the message at place {place:?} of its schema, and {} stands at {:?}: is the schema the right one?",
                self.name, self.place
            );
            return Err(bad("unknown-schema", what));
        }
        Ok(frame.rest())
    }
}
