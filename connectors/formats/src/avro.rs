//! Records of Avro: which schema a payload was written by, and where its values begin.

mod codec;
mod container;
mod fingerprint;
mod input;
mod reading;
mod schema;
mod writing;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::Fields;

use self::container::Container;
use self::fingerprint::fingerprint;
use self::input::Input;
use self::reading::Reading;
use self::schema::Schema;
use crate::decoder::{Appender, Message};
use crate::record::Record;
use crate::reject::{Bad, bad};
use crate::schemas::{Found, RegisteredSchema, SchemaId, SchemaKind, Schemas, Wake};

pub use codec::{AvroCodec, read as read_at_most};
pub use writing::{AvroTimes, AvroWriter};

/// How a payload says which schema it was written by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AvroFraming {
    /// It is an object container and holds the schema: what Stream Analytics and Event Hubs' Capture write.
    #[default]
    Container,
    /// A zero and the schema's number in a registry stand before the value, as Confluent's serializers write them.
    Confluent,
    /// The message's content type names the schema in Event Hubs' registry, or 36 bytes before the value do, as
    /// Microsoft's first serializers wrote them.
    EventHubs,
    /// Two bytes and the schema's fingerprint stand before the value.
    SingleObject,
    /// It says nothing: every payload is a value of the one schema that is given.
    Bare,
}

/// What Avro payloads look like.
#[derive(Debug, Clone, Default)]
pub struct AvroOptions {
    pub framing: AvroFraming,
    /// The schema of [`AvroFraming::Bare`] and [`AvroFraming::SingleObject`], as JSON.
    pub schema: Option<String>,
    /// What is asked for the schemas of [`AvroFraming::Confluent`] and [`AvroFraming::EventHubs`].
    pub registry: Option<Arc<dyn Schemas>>,
}

impl AvroOptions {
    /// What is wrong with the schema that is given, or missing.
    pub fn check(&self, columns: &Fields) -> Result<(), String> {
        Avro::new(self, columns, Arc::new(|| {})).map(drop)
    }
}

/// A schema's fingerprint, as [`AvroFraming::SingleObject`] has it.
pub fn avro_fingerprint(schema: &str) -> Result<u64, String> {
    Ok(fingerprint(&Schema::parse(schema, &[])?))
}

/// Reads payloads of one table.
pub struct Avro {
    framing: AvroFraming,
    registry: Option<Arc<dyn Schemas>>,
    wake: Wake,
    columns: Fields,
    given: Option<Given>,
    /// By what names or is them, the schemas that were met, or why they are of no use.
    met: HashMap<Named, Met>,
    /// The one that was met last: nearly always the next one, too.
    last: Option<(Named, Met)>,
}

type Met = Result<Arc<Reading>, Arc<str>>;

struct Given {
    fingerprint: u64,
    reading: Arc<Reading>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Named {
    Id(SchemaId),
    /// The schema itself.
    Text(Box<str>),
}

/// Schemas that are kept; a topic whose every message has another would fill the memory.
const MOST_MET: usize = 256;
const SINGLE_OBJECT: [u8; 2] = [0xc3, 0x01];
const CONTENT_TYPE: &str = "avro/binary+";
const GUID: usize = 32;

/// A payload whose schema is known.
pub struct Opened<'a> {
    reading: Arc<Reading>,
    values: Values<'a>,
}

enum Values<'a> {
    One(&'a [u8]),
    Container(Container<'a>),
}

impl Avro {
    /// `wake` is called when a schema has come that was not there.
    pub fn new(options: &AvroOptions, columns: &Fields, wake: Wake) -> Result<Avro, String> {
        let given = match (&options.schema, options.framing) {
            (Some(text), AvroFraming::Bare | AvroFraming::SingleObject) => {
                let schema = Schema::parse(text, &[])?;
                let fingerprint = fingerprint(&schema);
                Some(Given { fingerprint, reading: Arc::new(Reading::new(schema, columns)?) })
            }
            (None, AvroFraming::Bare | AvroFraming::SingleObject) => return Err("no schema is given".into()),
            _ => None,
        };
        Ok(Avro {
            framing: options.framing,
            registry: options.registry.clone(),
            wake,
            columns: columns.clone(),
            given,
            met: HashMap::new(),
            last: None,
        })
    }

    pub fn reads_content_type(&self) -> bool {
        self.framing == AvroFraming::EventHubs
    }

    /// Finds the payload's schema. `None`: it is not there yet.
    pub fn open<'a>(&mut self, message: &Message<'a>) -> Result<Option<Opened<'a>>, Bad> {
        let payload = message.payload;
        let (named, values) = match self.framing {
            AvroFraming::Bare => return Ok(Some(self.given(None, payload)?)),
            AvroFraming::SingleObject => {
                let (found, value) = single_object(payload)?;
                return Ok(Some(self.given(Some(found), value)?));
            }
            AvroFraming::Container => {
                let container = Container::open(payload)?;
                if let Some((Named::Text(last), met)) = &self.last
                    && **last == *container.schema
                {
                    return Ok(Some(Opened { reading: usable(met)?, values: Values::Container(container) }));
                }
                (Named::Text(container.schema.into()), Values::Container(container))
            }
            AvroFraming::Confluent => {
                let (id, value) = confluent(payload)?;
                (Named::Id(id), Values::One(value))
            }
            AvroFraming::EventHubs => {
                let (id, value) = event_hubs(payload, message.content_type)?;
                (Named::Id(id), Values::One(value))
            }
        };
        match self.meet(named)? {
            Some(reading) => Ok(Some(Opened { reading, values })),
            None => Ok(None),
        }
    }

    fn given<'a>(&self, named: Option<u64>, value: &'a [u8]) -> Result<Opened<'a>, Bad> {
        let Some(given) = &self.given else { return Err(bad("unknown-schema", "no schema is given")) };
        match named {
            Some(other) if other != given.fingerprint => Err(bad(
                "unknown-schema",
                format_args!(
                    "the schema that it was written by has the fingerprint {other:016x}; avro.schema has {:016x}",
                    given.fingerprint
                ),
            )),
            _ => Ok(Opened { reading: given.reading.clone(), values: Values::One(value) }),
        }
    }

    fn meet(&mut self, named: Named) -> Result<Option<Arc<Reading>>, Bad> {
        if let Some((last, met)) = &self.last
            && *last == named
        {
            return usable(met).map(Some);
        }
        let met = match self.met.get(&named) {
            Some(met) => met.clone(),
            None => {
                let schema = match &named {
                    Named::Text(text) => Schema::parse(text, &[]),
                    Named::Id(id) => match self.ask(id)? {
                        Some(found) => of_registry(&found),
                        None => return Ok(None),
                    },
                };
                let met: Met = schema.and_then(|s| Reading::new(s, &self.columns)).map(Arc::new).map_err(Arc::from);
                if self.met.len() >= MOST_MET {
                    self.met.clear();
                }
                self.met.insert(named.clone(), met.clone());
                met
            }
        };
        let usable = usable(&met);
        self.last = Some((named, met));
        usable.map(Some)
    }

    fn ask(&self, id: &SchemaId) -> Result<Option<Arc<RegisteredSchema>>, Bad> {
        let Some(registry) = &self.registry else { return Err(bad("unknown-schema", "there is no schema registry")) };
        match registry.look(id, &self.wake) {
            Found::Schema(schema) => Ok(Some(schema)),
            Found::NotYet => Ok(None),
            Found::None(why) => Err(bad("unknown-schema", format_args!("the schema {id}: {why}"))),
        }
    }
}

impl Opened<'_> {
    /// Reads each record into a row.
    pub fn read(self, rows: &mut Appender<'_>) -> Result<(), Bad> {
        let one = |input: &mut Input<'_>, rows: &mut Appender<'_>| {
            rows.append(|Record { columns, watch, .. }| self.reading.read(input, columns, watch.as_deref_mut()))
        };
        match self.values {
            Values::One(value) => {
                let mut input = Input::new(value);
                one(&mut input, rows)?;
                ended(&input)
            }
            Values::Container(container) => container.blocks(|count, block| {
                let mut input = Input::new(block);
                input.expect(count)?;
                (0..count).try_for_each(|_| one(&mut input, rows))?;
                ended(&input)
            }),
        }
    }
}

fn ended(input: &Input<'_>) -> Result<(), Bad> {
    if input.is_empty() { Ok(()) } else { Err(input.broken("the value ends here, and the payload does not")) }
}

fn usable(met: &Met) -> Result<Arc<Reading>, Bad> {
    met.clone().map_err(|why| bad("unknown-schema", why))
}

fn of_registry(found: &RegisteredSchema) -> Result<Schema, String> {
    match found.kind {
        SchemaKind::Avro => Schema::parse(&found.text, &found.referenced),
        other => Err(format!("the schema is one of {other:?} and not of Avro")),
    }
}

fn confluent(payload: &[u8]) -> Result<(SchemaId, &[u8]), Bad> {
    match payload {
        [0, a, b, c, d, value @ ..] => Ok((SchemaId::Number(u32::from_be_bytes([*a, *b, *c, *d])), value)),
        _ => Err(bad("not-avro", "a zero and the number of a schema are expected before the value")),
    }
}

fn event_hubs<'a>(payload: &'a [u8], content_type: Option<&[u8]>) -> Result<(SchemaId, &'a [u8]), Bad> {
    let guid = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        let plain = text.replace('-', "").to_ascii_lowercase();
        (plain.len() == GUID && plain.bytes().all(|b| b.is_ascii_hexdigit())).then_some(SchemaId::Guid(plain))
    };
    if let Some(named) = content_type.and_then(|text| text.strip_prefix(CONTENT_TYPE.as_bytes())) {
        let id = guid(named).ok_or_else(|| {
            let named = String::from_utf8_lossy(named);
            bad("not-avro", format_args!("the content type names {named:?}, which is no id of a schema"))
        })?;
        return Ok((id, payload));
    }
    if let Some(rest) = payload.strip_prefix(&[0; 4])
        && let Some((named, value)) = rest.split_at_checked(GUID)
        && let Some(id) = guid(named)
    {
        return Ok((id, value));
    }
    Err(bad("not-avro", format_args!("neither a content type of {CONTENT_TYPE}… nor the payload names a schema")))
}

fn single_object(payload: &[u8]) -> Result<(u64, &[u8]), Bad> {
    let named = payload.strip_prefix(&SINGLE_OBJECT).and_then(|rest| rest.split_first_chunk());
    let (fingerprint, value) =
        named.ok_or_else(|| bad("not-avro", "the bytes c3 01 and a fingerprint are expected before the value"))?;
    Ok((u64::from_le_bytes(*fingerprint), value))
}
