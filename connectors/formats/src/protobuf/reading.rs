//! Messages of one type into columns: which field fills which column is decided once.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Fields as Columns};
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::wire::{Fields, Wire};
use crate::column::{Column, is_json};
use crate::observed::Watch;
use crate::reject::{Bad, bad};
use crate::varint::{put, unzigzag};

/// How messages of one type become rows.
pub struct Reading {
    message: Fill,
    /// Fields that no column takes.
    unknown: Vec<(String, String)>,
    /// For each column, whether a field fills it.
    fills: Vec<bool>,
}

/// What fills the columns of a record: for each column a field, or nothing.
struct Fill {
    columns: Vec<Option<Field>>,
    /// By number, the columns that a field fills, of the small numbers.
    near: Vec<u16>,
    far: HashMap<u32, usize>,
}

struct Field {
    number: u32,
    kind: Kind,
    plan: Plan,
    /// What is there when the field is not: a value, not NULL, where its type cannot say which of both was meant.
    default: Option<Wire<'static>>,
}

enum Plan {
    Value,
    /// As the canonical JSON of the message that holds nothing but this field.
    Json(Box<(MessageDescriptor, String)>),
    Record(Fill),
    /// `google.protobuf.Timestamp`.
    Instant,
    /// One of `google.protobuf`'s messages around a single value.
    Wrapped(Box<Field>),
    List(Box<Field>),
    Map(Box<(Field, Field)>),
}

const INSTANT: &str = "google.protobuf.Timestamp";
const WRAPPERS: &[&str] = &["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"];

impl Reading {
    pub fn new(message: &MessageDescriptor, columns: &Columns) -> Reading {
        let has_column = |field: &FieldDescriptor| columns.iter().any(|column| names(field, column.name()));
        let unknown = message.fields().filter(|field| !has_column(field));
        let unknown = unknown.map(|field| (field.name().to_string(), describe(&field))).collect();
        let fill = fill(message, columns);
        let fills = fill.columns.iter().map(Option::is_some).collect();
        Reading { message: fill, unknown, fills }
    }

    /// Takes one message.
    /// `room`: used again for each message.
    pub fn read(
        &self,
        payload: &[u8],
        columns: &mut [Column],
        watch: Option<&mut Watch>,
        room: &mut Vec<Came>,
    ) -> Result<(), Bad> {
        room.clear();
        self.message.read(payload, columns, room)?;
        if let Some(watch) = watch {
            self.unknown.iter().for_each(|(name, what)| watch.meet(name, what));
            watch.record(self.fills.iter().copied());
        }
        Ok(())
    }
}

/// What came of a field: how often, and where the last of them begins in its message. Without the value itself, so that
/// the room for it serves all messages.
#[derive(Clone, Copy, Default)]
pub struct Came {
    times: u32,
    at: u32,
}

impl Came {
    /// The last value.
    fn last<'a>(&self, message: &'a [u8]) -> Result<Option<Wire<'a>>, Bad> {
        match self.times {
            0 => Ok(None),
            _ => Ok(Fields::from(message, self.at as usize).next()?.map(|(_, wire)| wire)),
        }
    }
}

/// Field numbers below are found in a table; larger ones are rare.
const NEAR: usize = 256;
const NO_COLUMN: u16 = u16::MAX;

impl Fill {
    fn column(&self, number: u32) -> Option<usize> {
        match self.near.get(number as usize) {
            Some(&NO_COLUMN) => None,
            Some(column) => Some(usize::from(*column)),
            None => self.far.get(&number).copied(),
        }
    }

    fn read(&self, payload: &[u8], columns: &mut [Column], room: &mut Vec<Came>) -> Result<(), Bad> {
        let base = room.len();
        room.resize(base + self.columns.len(), Came::default());
        let mut fields = Fields::of(payload);
        loop {
            let at = fields.at() as u32;
            let Some((number, _)) = fields.next()? else { break };
            if let Some(column) = self.column(number) {
                let one = &mut room[base + column];
                *one = Came { times: one.times + 1, at };
            }
        }
        for (index, (field, column)) in self.columns.iter().zip(columns).enumerate() {
            match field {
                Some(field) => field.read(payload, room[base + index], column, room)?,
                None => column.push_absent("missing")?,
            }
        }
        room.truncate(base);
        Ok(())
    }
}

impl Field {
    fn read(&self, payload: &[u8], came: Came, column: &mut Column, room: &mut Vec<Came>) -> Result<(), Bad> {
        match &self.plan {
            Plan::List(item) => column.push_list(|items| match came.times {
                0 => Ok(()),
                1 => match came.last(payload)? {
                    Some(wire) => item.push_all(wire, items, room),
                    None => Ok(()),
                },
                _ => item.read_all(payload, items, room),
            }),
            Plan::Map(entry) => column.push_map(|keys, values| {
                let (key, value) = &**entry;
                let mut fields = Fields::of(payload);
                while let Some((number, wire)) = fields.next()? {
                    if number == self.number {
                        let entry = self.message(wire, values)?;
                        keys.append_value(key.text(entry)?);
                        value.read_last(entry, values, room)?;
                    }
                }
                Ok(())
            }),
            Plan::Json(of) => {
                let (message, name) = &**of;
                if came.times == 0 {
                    return column.push_absent("missing");
                }
                match self.canonical(message, name, payload)? {
                    Value::Null => column.push_absent("null"),
                    value => column.push_json(value),
                }
            }
            // A message that comes in parts is the parts one behind the other.
            Plan::Record(_) | Plan::Instant | Plan::Wrapped(_) if came.times > 1 => {
                let mut whole = vec![];
                let mut fields = Fields::of(payload);
                while let Some((number, wire)) = fields.next()? {
                    if number == self.number {
                        whole.extend_from_slice(self.message(wire, column)?);
                    }
                }
                self.push(Wire::Bytes(&whole), column, room)
            }
            _ => match came.last(payload)?.or(self.default) {
                Some(wire) => self.push(wire, column, room),
                None => column.push_absent("missing"),
            },
        }
    }

    /// As `read`, of a message whose only field that matters is this one.
    fn read_last(&self, payload: &[u8], column: &mut Column, room: &mut Vec<Came>) -> Result<(), Bad> {
        let (mut came, mut fields) = (Came::default(), Fields::of(payload));
        loop {
            let at = fields.at() as u32;
            match fields.next()? {
                Some((number, _)) if number == self.number => came = Came { times: came.times + 1, at },
                Some(_) => {}
                None => return self.read(payload, came, column, room),
            }
        }
    }

    /// Each value that comes.
    fn read_all(&self, payload: &[u8], items: &mut Column, room: &mut Vec<Came>) -> Result<(), Bad> {
        let mut fields = Fields::of(payload);
        while let Some((number, wire)) = fields.next()? {
            if number == self.number {
                self.push_all(wire, items, room)?;
            }
        }
        Ok(())
    }

    /// One value, or several that are packed.
    fn push_all(&self, wire: Wire<'_>, items: &mut Column, room: &mut Vec<Came>) -> Result<(), Bad> {
        match wire {
            Wire::Bytes(packed) if !matches!(self.kind, Kind::String | Kind::Bytes | Kind::Message(_)) => {
                if let (Kind::Double, (doubles, [])) = (&self.kind, packed.as_chunks()) {
                    return doubles.iter().try_for_each(|bytes| items.push_double(f64::from_le_bytes(*bytes)));
                }
                let mut packed = Fields::of(packed);
                while !packed.is_empty() {
                    match next_packed(&self.kind, &mut packed)? {
                        Some(one) => self.push(one, items, room)?,
                        None => break,
                    }
                }
                Ok(())
            }
            _ => self.push(wire, items, room),
        }
    }

    fn push(&self, wire: Wire<'_>, column: &mut Column, room: &mut Vec<Came>) -> Result<(), Bad> {
        match &self.plan {
            Plan::Record(fill) => {
                let message = self.message(wire, column)?;
                column.push_record(|columns| fill.read(message, columns, room))
            }
            Plan::Instant => {
                let (seconds, nanos) = seconds_and_nanos(self.message(wire, column)?)?;
                column.push_instant(i128::from(seconds) * 1_000_000_000 + i128::from(nanos), seconds)
            }
            Plan::Wrapped(inner) => inner.read_last(self.message(wire, column)?, column, room),
            Plan::Json(of) => {
                // An item of a list: the message around it is made anew.
                let (message, name) = &**of;
                let alone = alone(self.number, wire);
                match self.canonical(message, name, &alone)? {
                    Value::Array(mut items) if items.len() == 1 => column.push_json(items.remove(0)),
                    value => column.push_json(value),
                }
            }
            Plan::List(_) | Plan::Map(_) | Plan::Value => self.scalar(wire, column),
        }
    }

    fn scalar(&self, wire: Wire<'_>, column: &mut Column) -> Result<(), Bad> {
        match (&self.kind, wire) {
            (Kind::Double, Wire::Fixed64(bits)) => column.push_double(f64::from_bits(bits)),
            (Kind::Float, Wire::Fixed32(bits)) => column.push_single(f32::from_bits(bits)),
            // The upper bits of a number that is too long for its type are cut off, as the documentation has it.
            (Kind::Int32, Wire::Varint(bits)) => column.push_long((bits as i32).into()),
            (Kind::Int64, Wire::Varint(bits)) => column.push_long(bits as i64),
            (Kind::Uint32, Wire::Varint(bits)) => column.push_long((bits as u32).into()),
            (Kind::Uint64, Wire::Varint(bits)) | (Kind::Fixed64, Wire::Fixed64(bits)) => column.push_unsigned(bits),
            (Kind::Sint32, Wire::Varint(bits)) => column.push_long((unzigzag(bits & 0xffff_ffff) as i32).into()),
            (Kind::Sint64, Wire::Varint(bits)) => column.push_long(unzigzag(bits)),
            (Kind::Fixed32, Wire::Fixed32(bits)) => column.push_long(bits.into()),
            (Kind::Sfixed32, Wire::Fixed32(bits)) => column.push_long((bits as i32).into()),
            (Kind::Sfixed64, Wire::Fixed64(bits)) => column.push_long(bits as i64),
            (Kind::Bool, Wire::Varint(bits)) => column.push_boolean(bits != 0),
            (Kind::String, Wire::Bytes(bytes)) => match simdutf8::basic::from_utf8(bytes) {
                Ok(text) => column.push_string(text),
                Err(_) => Err(column.refuse("text that is not UTF-8")),
            },
            (Kind::Bytes, Wire::Bytes(bytes)) => column.push_bytes(bytes),
            (Kind::Enum(of), Wire::Varint(bits)) => match column.field.data_type() {
                DataType::Utf8 => column.push_string(&symbol(of, bits as i32)),
                _ => column.push_long((bits as i32).into()),
            },
            (Kind::Message(of), _) => Err(column.refuse(format_args!("a message ({})", of.full_name()))),
            (kind, _) => Err(bad(
                "not-protobuf",
                format_args!(
                    "field {} is a {kind:?}, and is not written as one: is the schema the right one?",
                    self.number
                ),
            )),
        }
    }

    /// A map's key as text, from one of its entries.
    fn text(&self, entry: &[u8]) -> Result<String, Bad> {
        let (mut last, mut fields) = (None, Fields::of(entry));
        while let Some((number, wire)) = fields.next()? {
            if number == self.number {
                last = Some(wire);
            }
        }
        Ok(match (&self.kind, last) {
            (Kind::String, Some(Wire::Bytes(bytes))) => match std::str::from_utf8(bytes) {
                Ok(text) => text.to_string(),
                Err(_) => return Err(bad("not-protobuf", "the key of a map is not UTF-8")),
            },
            (Kind::String, _) => String::new(),
            (Kind::Bool, Some(Wire::Varint(bits))) => (bits != 0).to_string(),
            (Kind::Bool, _) => "false".into(),
            (Kind::Sint32 | Kind::Sint64, Some(Wire::Varint(bits))) => unzigzag(bits).to_string(),
            (Kind::Int32, Some(Wire::Varint(bits))) => (bits as i32).to_string(),
            (Kind::Int64, Some(Wire::Varint(bits))) => (bits as i64).to_string(),
            (Kind::Sfixed32, Some(Wire::Fixed32(bits))) => (bits as i32).to_string(),
            (Kind::Sfixed64, Some(Wire::Fixed64(bits))) => (bits as i64).to_string(),
            (_, Some(Wire::Varint(bits) | Wire::Fixed64(bits))) => bits.to_string(),
            (_, Some(Wire::Fixed32(bits))) => bits.to_string(),
            _ => "0".into(),
        })
    }

    fn message<'a>(&self, wire: Wire<'a>, column: &Column) -> Result<&'a [u8], Bad> {
        match wire {
            Wire::Bytes(bytes) | Wire::Group(bytes) => Ok(bytes),
            _ => Err(column.refuse("a number where a message is to be")),
        }
    }

    /// The field as the canonical JSON has it.
    fn canonical(&self, message: &MessageDescriptor, name: &str, payload: &[u8]) -> Result<Value, Bad> {
        let refused = |what: String| bad("not-protobuf", format_args!("{name}: {what}"));
        let mut only = vec![];
        let mut fields = Fields::of(payload);
        while let Some((number, wire)) = fields.next()? {
            if number == self.number {
                only.extend(alone(number, wire));
            }
        }
        let whole = DynamicMessage::decode(message.clone(), &only[..]).map_err(|e| refused(e.to_string()))?;
        let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
        let value = whole.serialize_with_options(serde_json::value::Serializer, &options);
        let mut value = value.map_err(|e| refused(e.to_string()))?;
        Ok(value.get_mut(name).map(Value::take).unwrap_or_default())
    }
}

/// The bytes of a message that has this one field.
fn alone(number: u32, wire: Wire<'_>) -> Vec<u8> {
    let mut bytes = vec![];
    let key = u64::from(number) << 3;
    match wire {
        Wire::Varint(bits) => {
            put(key, &mut bytes);
            put(bits, &mut bytes);
        }
        Wire::Fixed64(bits) => {
            put(key | 1, &mut bytes);
            bytes.extend(bits.to_le_bytes());
        }
        Wire::Bytes(content) => {
            put(key | 2, &mut bytes);
            put(content.len() as u64, &mut bytes);
            bytes.extend_from_slice(content);
        }
        Wire::Group(content) => {
            put(key | 3, &mut bytes);
            bytes.extend_from_slice(content);
            put(key | 4, &mut bytes);
        }
        Wire::Fixed32(bits) => {
            put(key | 5, &mut bytes);
            bytes.extend(bits.to_le_bytes());
        }
    }
    bytes
}

fn fill(message: &MessageDescriptor, columns: &Columns) -> Fill {
    let field_of = |name: &str| message.fields().find(|field| names(field, name));
    let columns: Vec<Option<Field>> = columns
        .iter()
        .map(|column| {
            let field = field_of(column.name())?;
            let json = is_json(column);
            Some(match column.data_type() {
                _ if json => json_field(message, &field),
                DataType::List(item) if field.is_list() => {
                    let one = match is_json(item) {
                        true => json_field(message, &field),
                        false => single(&field, item.data_type()),
                    };
                    Field { plan: Plan::List(Box::new(one)), ..plain(&field) }
                }
                DataType::Map(entries, _) if field.is_map() => map(&field, entries.data_type()),
                of if !field.is_list() && !field.is_map() => single(&field, of),
                _ => plain(&field),
            })
        })
        .collect();
    let (mut near, mut far) = (vec![], HashMap::new());
    for (index, field) in columns.iter().enumerate() {
        let Some(number) = field.as_ref().map(|field| field.number) else { continue };
        match (number as usize, u16::try_from(index)) {
            (number @ ..NEAR, Ok(index)) => {
                near.resize(near.len().max(number + 1), NO_COLUMN);
                near[number] = index;
            }
            _ => drop(far.insert(number, index)),
        }
    }
    Fill { near, far, columns }
}

fn plain(field: &FieldDescriptor) -> Field {
    Field { number: field.number(), kind: field.kind(), plan: Plan::Value, default: None }
}

fn json_field(message: &MessageDescriptor, field: &FieldDescriptor) -> Field {
    Field { plan: Plan::Json(Box::new((message.clone(), field.name().to_string()))), ..plain(field) }
}

/// A field, or an item of one, that is a value by itself.
fn single(field: &FieldDescriptor, column: &DataType) -> Field {
    let plan = match field.kind() {
        Kind::Message(of) if of.full_name() == INSTANT && !matches!(column, DataType::Struct(_)) => Plan::Instant,
        Kind::Message(of) if is_wrapper(&of) && !matches!(column, DataType::Struct(_)) => {
            match of.fields().find(|inner| inner.number() == 1) {
                Some(inner) => Plan::Wrapped(Box::new(single(&inner, column))),
                None => Plan::Value,
            }
        }
        Kind::Message(of) => match column {
            DataType::Struct(columns) => Plan::Record(fill(&of, columns)),
            _ => Plan::Value,
        },
        _ => Plan::Value,
    };
    let default = (!field.supports_presence() && !field.is_list()).then(|| default(&field.kind())).flatten();
    Field { plan, default, ..plain(field) }
}

fn map(field: &FieldDescriptor, entries: &DataType) -> Field {
    let (Kind::Message(entry), DataType::Struct(parts)) = (field.kind(), entries) else { return plain(field) };
    let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
    let mut value = match is_json(&parts[1]) {
        true => json_field(&entry, &value),
        false => single(&value, parts[1].data_type()),
    };
    // An entry without a value has the value that stands for nothing.
    value.default = value.default.or_else(|| default(&value.kind));
    Field { plan: Plan::Map(Box::new((plain(&key), value))), ..plain(field) }
}

/// What a field without presence is when it is not there.
fn default(kind: &Kind) -> Option<Wire<'static>> {
    Some(match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64(0),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32(0),
        Kind::String | Kind::Bytes => Wire::Bytes(b""),
        Kind::Message(_) => return None,
        Kind::Enum(of) => Wire::Varint(i64::from(of.default_value().number()) as u64),
        _ => Wire::Varint(0),
    })
}

/// The next of values that stand one behind the other; `None` of a kind that never does.
fn next_packed<'a>(kind: &Kind, packed: &mut Fields<'a>) -> Result<Option<Wire<'a>>, Bad> {
    Ok(Some(match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64(u64::from_le_bytes(packed.array()?)),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32(u32::from_le_bytes(packed.array()?)),
        Kind::String | Kind::Bytes | Kind::Message(_) => return Ok(None),
        _ => Wire::Varint(packed.varint()?),
    }))
}

fn is_wrapper(of: &MessageDescriptor) -> bool {
    let name = of.full_name().strip_prefix("google.protobuf.").and_then(|name| name.strip_suffix("Value"));
    name.is_some_and(|name| WRAPPERS.contains(&name))
}

fn names(field: &FieldDescriptor, column: &str) -> bool {
    field.name() == column || field.json_name() == column
}

fn symbol(of: &EnumDescriptor, number: i32) -> String {
    of.get_value(number).map_or_else(|| number.to_string(), |value| value.name().to_string())
}

fn seconds_and_nanos(message: &[u8]) -> Result<(i64, i32), Bad> {
    let (mut seconds, mut nanos, mut fields) = (0, 0, Fields::of(message));
    while let Some((number, wire)) = fields.next()? {
        match (number, wire) {
            (1, Wire::Varint(bits)) => seconds = bits as i64,
            (2, Wire::Varint(bits)) => nanos = bits as i32,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

fn describe(field: &FieldDescriptor) -> String {
    let one = match field.kind() {
        Kind::Message(of) => of.full_name().to_string(),
        Kind::Enum(of) => of.full_name().to_string(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    if field.is_list() { format!("repeated {one}") } else { one }
}
