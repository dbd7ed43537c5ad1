//! A schema's fingerprint: CRC-64-AVRO of its canonical form (Apache Avro 1.12 specification, "Parsing Canonical Form for
//! Schemas" and "Schema Fingerprints").

use super::schema::{Schema, Type, TypeId};

pub fn fingerprint(schema: &Schema) -> u64 {
    rabin(canonical(schema).as_bytes())
}

/// What the schema says of the bytes and nothing else, always in the same words.
pub fn canonical(schema: &Schema) -> String {
    let mut text = String::new();
    write(schema, schema.root(), &mut vec![], &mut text);
    text
}

fn write(schema: &Schema, of: TypeId, named: &mut Vec<String>, text: &mut String) {
    let mut definition = |name: &String, kind: &str, text: &mut String| {
        if named.contains(name) {
            text.push_str(&quoted(name));
            return false;
        }
        named.push(name.clone());
        text.push_str(&format!("{{\"name\":{},\"type\":\"{kind}\"", quoted(name)));
        true
    };
    match schema.underlying(of) {
        Type::Fixed(name, size) => {
            if definition(&name, "fixed", text) {
                text.push_str(&format!(",\"size\":{size}}}"));
            }
        }
        Type::Enum(name, symbols) => {
            if definition(&name, "enum", text) {
                let symbols: Vec<String> = symbols.iter().map(|symbol| quoted(symbol)).collect();
                text.push_str(&format!(",\"symbols\":[{}]}}", symbols.join(",")));
            }
        }
        Type::Record(name, fields) => {
            if definition(&name, "record", text) {
                text.push_str(",\"fields\":[");
                for (place, (field, of)) in fields.iter().enumerate() {
                    text.push_str(if place == 0 { "" } else { "," });
                    text.push_str(&format!("{{\"name\":{},\"type\":", quoted(field)));
                    write(schema, *of, named, text);
                    text.push('}');
                }
                text.push_str("]}");
            }
        }
        Type::Array(item) => {
            text.push_str("{\"type\":\"array\",\"items\":");
            write(schema, item, named, text);
            text.push('}');
        }
        Type::Map(value) => {
            text.push_str("{\"type\":\"map\",\"values\":");
            write(schema, value, named, text);
            text.push('}');
        }
        Type::Union(branches) => {
            text.push('[');
            for (place, branch) in branches.iter().enumerate() {
                text.push_str(if place == 0 { "" } else { "," });
                write(schema, *branch, named, text);
            }
            text.push(']');
        }
        primitive => text.push_str(&quoted(primitive_name(&primitive))),
    }
}

fn primitive_name(of: &Type) -> &'static str {
    match of {
        Type::Boolean => "boolean",
        Type::Int => "int",
        Type::Long => "long",
        Type::Float => "float",
        Type::Double => "double",
        Type::Bytes => "bytes",
        Type::String => "string",
        _ => "null",
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn rabin(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    bytes.iter().fold(EMPTY, |hash, byte| {
        let low = (hash ^ u64::from(*byte)) & 0xff;
        let of_low = (0..8).fold(low, |bits, _| (bits >> 1) ^ (EMPTY & (bits & 1).wrapping_neg()));
        (hash >> 8) ^ of_low
    })
}
