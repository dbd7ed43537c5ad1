//! A document as its text of JSON. One that goes by itself is sent as it is; of a batch, the SDK makes a tree as it reads the
//! text. Made into a tree here too, a document would cost twice the work.

use std::{fmt, io};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::documents::LARGEST_DOCUMENT;

/// Integers up to this size are themselves as the double that the service keeps.
const EXACT: u64 = 1 << 53;

/// An object that the service can hold as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(String);

impl Body {
    /// Refuses what is no JSON, and numbers that a document cannot hold. Of properties of one name, the last one stays.
    pub fn of(text: &str) -> Result<Self, String> {
        let no_json = |e: serde_json::Error| format!("a JSON column holds no JSON: {e}");
        let mut seen = Seen::default();
        let mut reader = serde_json::Deserializer::from_str(text);
        seen.deserialize(&mut reader).and_then(|()| reader.end()).map_err(no_json)?;
        if seen.large
            && let Some(number) = inexact(text)
        {
            return Err(format!(
                "{number} is more than a document can hold exactly: set 'json.integers' = 'text', or within a JSON column make it \
                 a text"
            ));
        }
        if seen.repeated {
            return serde_json::from_str(text).map(|value: Value| Body(value.to_string())).map_err(no_json);
        }
        let body = Body(text.to_string());
        if text.len() > LARGEST_DOCUMENT {
            // Without spaces, it may be small enough.
            return serde_json::to_string(&body).map(Body).map_err(no_json);
        }
        Ok(body)
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// For a request of this document alone. Not for trees: `serde_json` keeps a name to itself, which a document may have.
    pub fn alone(&self) -> &RawValue {
        serde_json::from_str(&self.0).expect("it was read before")
    }

    /// For those few that are shown to people. Fails for names that `serde_json` keeps to itself.
    pub fn properties(&self) -> serde_json::Result<Map<String, Value>> {
        serde_json::from_str(&self.0)
    }

    /// Which row it is, if it says so.
    pub fn provenance(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(rename = "millrace")]
            provenance: String,
        }
        serde_json::from_str(&self.0).ok().map(|named: Named| named.provenance)
    }

    /// How many bytes it has in a batch, where the SDK writes it again: numbers may be longer than they were.
    pub fn size(&self) -> serde_json::Result<usize> {
        struct Count(usize);
        impl io::Write for Count {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.0 += text.len();
                Ok(text.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut count = Count(0);
        serde_json::to_writer(&mut count, self)?;
        Ok(count.0)
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_transcode::transcode(&mut serde_json::Deserializer::from_str(&self.0), serializer)
    }
}

/// What was met while a text was read to its end, and nothing kept of it.
#[derive(Default)]
struct Seen {
    /// A number which may be an integer that a double cannot hold.
    large: bool,
    /// Two properties of one name, or of two that happen to have one hash, which does no harm.
    repeated: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Seen {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Seen {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.large |= number > EXACT;
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.large |= number.unsigned_abs() > EXACT;
        Ok(())
    }

    /// Integers of more than 64 bits come as doubles.
    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.large |= number.abs() >= EXACT as f64;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut properties: A) -> Result<(), A::Error> {
        let mut names = vec![];
        while let Some(name) = properties.next_key_seed(Name)? {
            names.push(name);
            properties.next_value_seed(&mut *self)?;
        }
        names.sort_unstable();
        self.repeated |= names.array_windows().any(|[one, other]| one == other);
        Ok(())
    }
}

/// The hash of a property's name.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<u64, E> {
        Ok(xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }
}

/// An integer that a double cannot hold, as it stands in a text of JSON. Parsed, one of more than 64 bits would be a double already.
fn inexact(json: &str) -> Option<&str> {
    let mut rest = json;
    loop {
        let start = rest.find(|c: char| matches!(c, '"' | '-' | '0'..='9'))?;
        let of_text = rest.as_bytes()[start] == b'"';
        let end = if of_text { end_of_text(rest.as_bytes(), start) } else { end_of_number(rest, start) };
        let found = &rest[start..end];
        let digits = found.strip_prefix('-').unwrap_or(found);
        if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.parse::<u64>().is_ok_and(|size| size <= EXACT) {
            return Some(found);
        }
        rest = &rest[end..];
    }
}

fn end_of_number(json: &str, start: usize) -> usize {
    let behind = json[start..].find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'));
    behind.map_or(json.len(), |length| start + length)
}

fn end_of_text(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() && json[at] != b'"' {
        at += if json[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Body::of(text).err().unwrap_or_default()
    }

    #[test]
    fn a_text_is_read_as_the_parser_of_trees_reads_it() {
        let texts = [
            r#"{"a":[1,-2.5e3,"x\n\u00e9",true,null,{"b":{}}]}"#,
            "{\"a\": 1 , \t\"b\":[ ]}",
            r#"{"a":1e400}"#,
            r#"{"a":"\ud800"}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":01}"#,
            r#"{"a":1}}"#,
            r#"{"a":1,}"#,
            r#"{"a":nul}"#,
            "",
        ];
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for text in texts.into_iter().chain([deep.as_str()]) {
            match (serde_json::from_str::<Value>(text), Body::of(text)) {
                (Ok(tree), Ok(body)) => {
                    assert_eq!(serde_json::to_value(&body).unwrap(), tree, "{text}");
                    assert_eq!(serde_json::to_string(&body).unwrap(), tree.to_string(), "{text}");
                    assert_eq!(body.size().unwrap(), tree.to_string().len(), "{text}");
                    assert_eq!(Value::Object(body.properties().unwrap()), tree, "{text}");
                }
                (Err(wrong), Err(said)) => assert_eq!(said, format!("a JSON column holds no JSON: {wrong}")),
                (tree, body) => panic!("{text}: {tree:?}, {body:?}"),
            }
        }
    }

    #[test]
    fn a_document_by_itself_is_sent_as_it_was_written_unless_spaces_make_it_too_large() {
        let text = r#"{"a": 1.10, "data":{"$serde_json::private::RawValue":5}}"#;
        assert_eq!(serde_json::to_string(Body::of(text).unwrap().alone()).unwrap(), text);
        let wide = text.replace(' ', &" ".repeat(LARGEST_DOCUMENT));
        let narrow = r#"{"a":1.1,"data":{"$serde_json::private::RawValue":5}}"#;
        assert_eq!(Body::of(&wide).unwrap().alone().get(), narrow);
    }

    #[test]
    fn which_row_it_is_is_known_whatever_else_it_holds() {
        let odd = r#"{"data":{"$serde_json::private::RawValue":5},"millrace":"log/7"}"#;
        let body = Body::of(odd).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), odd);
        assert_eq!(body.provenance().as_deref(), Some("log/7"));
        assert!(body.properties().is_err());
    }

    #[test]
    fn of_two_properties_of_one_name_the_last_one_stays_however_the_name_is_written() {
        let body = Body::of(r#"{"x":{"a":1,"b":2,"\u0061":3},"y":[{"c":1},{"c":2}]}"#).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), r#"{"x":{"a":3,"b":2},"y":[{"c":1},{"c":2}]}"#);
        let others = Body::of(r#"{"x":{"a":1},"y":{"a":1}}"#).unwrap();
        assert_eq!(others.text(), r#"{"x":{"a":1},"y":{"a":1}}"#);
    }

    #[test]
    fn an_integer_that_a_double_cannot_hold_is_found_wherever_it_lies() {
        // 2^53 + 1, 2^64 + 1, and thirty digits: the last two come as doubles.
        for number in ["9007199254740993", "18446744073709551617", "123456789012345678901234567890"] {
            for number in [number.to_string(), format!("-{number}")] {
                for text in [format!(r#"{{"n":[{number}]}}"#), format!(r#"{{"é":1.5,"n":{number} }}"#)] {
                    assert!(refused(&text).starts_with(&format!("{number} is more than")), "{text}");
                }
            }
        }
        for number in ["9007199254740992", "-9007199254740992", "1e300", "18446744073709551617.0", "1E+30", "-0", "0.1"]
        {
            assert_eq!(refused(&format!(r#"{{"n":{number}}}"#)), "", "{number}");
        }
        let texts = r#"{"18446744073709551617":"\\\" 18446744073709551617 ","x":["\\","\u0031"],"large":1e30}"#;
        assert_eq!(refused(texts), "", "a text is no number");
    }
}
