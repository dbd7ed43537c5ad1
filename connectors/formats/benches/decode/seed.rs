//! What a program costs that reads nothing but this one event: `serde_json` with a seed that writes into Arrow builders, 2.5 times
//! as fast as `arrow-json`. `millrace bench` measures it too, so that it needs nothing that only benches have.

use std::fmt;

use arrow::array::{ArrayRef, Float64Builder, Int64Builder, StringBuilder, TimestampNanosecondBuilder};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What is made of `complexData`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Nested {
    Doubles,
    Text,
    Ignored,
}

/// Builders of the event's columns.
pub struct Seed {
    nested: Nested,
    event_id: StringBuilder,
    value: Float64Builder,
    device_id: StringBuilder,
    sequence: Int64Builder,
    kind: StringBuilder,
    created_at: TimestampNanosecondBuilder,
    more: Vec<Float64Builder>,
    text: StringBuilder,
}

impl Seed {
    pub fn new(nested: Nested) -> Seed {
        Seed {
            nested,
            event_id: StringBuilder::new(),
            value: Float64Builder::new(),
            device_id: StringBuilder::new(),
            sequence: Int64Builder::new(),
            kind: StringBuilder::new(),
            created_at: TimestampNanosecondBuilder::new(),
            more: (0..23).map(|_| Float64Builder::new()).collect(),
            text: StringBuilder::new(),
        }
    }

    pub fn push(&mut self, payload: &[u8]) -> Result<(), serde_json::Error> {
        let text = std::str::from_utf8(payload).map_err(serde::de::Error::custom)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        self.deserialize(&mut deserializer)?;
        deserializer.end()
    }

    pub fn finish(&mut self) -> Vec<ArrayRef> {
        use std::sync::Arc;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.event_id.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.device_id.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.created_at.finish()),
        ];
        match self.nested {
            Nested::Doubles => columns.extend(self.more.iter_mut().map(|b| Arc::new(b.finish()) as ArrayRef)),
            Nested::Text => columns.push(Arc::new(self.text.finish())),
            Nested::Ignored => {}
        }
        columns
    }
}

impl<'de> DeserializeSeed<'de> for &mut Seed {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Seed {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<&str>()? {
            match name {
                "eventId" => self.event_id.append_value(map.next_value::<&str>()?),
                "value" => self.value.append_value(map.next_value()?),
                "deviceId" => self.device_id.append_value(map.next_value::<&str>()?),
                "deviceSequenceNumber" => self.sequence.append_value(map.next_value()?),
                "type" => self.kind.append_value(map.next_value::<&str>()?),
                "createdAt" => {
                    let time = string_to_timestamp_nanos(map.next_value()?);
                    self.created_at.append_value(time.map_err(serde::de::Error::custom)?);
                }
                "complexData" => match self.nested {
                    Nested::Doubles => map.next_value_seed(Doubles(&mut self.more))?,
                    Nested::Text => self.text.append_value(map.next_value::<&RawValue>()?.get()),
                    Nested::Ignored => drop(map.next_value::<IgnoredAny>()?),
                },
                other => return Err(serde::de::Error::custom(other)),
            }
        }
        Ok(())
    }
}

/// `moreData1` to `moreData23`, expected in this order.
struct Doubles<'a>(&'a mut [Float64Builder]);

const NAMES: [&str; 23] = [
    "moreData1",
    "moreData2",
    "moreData3",
    "moreData4",
    "moreData5",
    "moreData6",
    "moreData7",
    "moreData8",
    "moreData9",
    "moreData10",
    "moreData11",
    "moreData12",
    "moreData13",
    "moreData14",
    "moreData15",
    "moreData16",
    "moreData17",
    "moreData18",
    "moreData19",
    "moreData20",
    "moreData21",
    "moreData22",
    "moreData23",
];

impl<'de> DeserializeSeed<'de> for Doubles<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Doubles<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("23 numbers")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut next = 0;
        while let Some(name) = map.next_key::<&str>()? {
            let place = if NAMES.get(next) == Some(&name) { Some(next) } else { NAMES.iter().position(|n| *n == name) };
            let place = place.ok_or_else(|| serde::de::Error::custom(name))?;
            self.0[place].append_value(map.next_value()?);
            next = place + 1;
        }
        Ok(())
    }
}
