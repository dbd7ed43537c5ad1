//! What `serde_json` reads as one record is taken or rejected as its fields say, and every value is the same.

use std::fmt;

use formats::{Decoder, Format, JsonOptions};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

#[path = "../../tests/plain_reading/mod.rs"]
mod plain_reading;
use plain_reading::{fits, is, schema};

pub type Input<'a> = &'a [u8];

pub fn check(input: Input<'_>) {
    // Of a field that comes twice, which one counts is nobody's business here.
    let Ok(record @ Value::Object(_)) = serde_json::from_slice::<Value>(input) else { return };
    if serde_json::from_slice::<Once>(input).is_err() {
        return;
    }
    let mut decoder = Decoder::new(schema(), Format::Json, JsonOptions::default(), None).unwrap();
    let taken = decoder.push(input, None);
    assert_eq!(taken.is_ok(), fits(&record), "{taken:?}: {record}");
    if taken.is_ok() {
        let batch = decoder.finish().unwrap();
        assert!(batch.num_rows() == 1 && is(&batch, 0, &record), "{record}: {batch:?}");
    }
}

/// JSON in which no field comes twice in one object.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Once)
    }
}

impl<'de> DeserializeSeed<'de> for Once {
    type Value = Once;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Once, D::Error> {
        deserializer.deserialize_any(Once)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Once)?;
            if !names.insert(name) {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(Once)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Once, A::Error> {
        while items.next_element_seed(Once)?.is_some() {}
        Ok(Once)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Once, E> {
        Ok(Once)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Once, E> {
        Ok(Once)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Once, E> {
        Ok(Once)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Once, E> {
        Ok(Once)
    }
    fn visit_str<E>(self, _: &str) -> Result<Once, E> {
        Ok(Once)
    }
    fn visit_unit<E>(self) -> Result<Once, E> {
        Ok(Once)
    }
}
