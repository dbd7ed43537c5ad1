//! A document that a container has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Its properties, each as its text. As a tree it could not always be read: `serde_json` keeps a name to itself, which a property
/// of somebody's may have.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Stored(BTreeMap<String, Box<RawValue>>);

impl Stored {
    pub fn get(&self, property: &str) -> Option<Value> {
        serde_json::from_str(self.0.get(property)?.get()).ok()
    }

    pub fn text_of(&self, property: &str) -> Option<String> {
        match self.get(property)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Gives a property what another one has, unless it is there.
    pub fn copy(&mut self, from: &str, to: &str) {
        if let Some(value) = self.0.get(from).filter(|_| !self.0.contains_key(to)) {
            self.0.insert(to.into(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_whatever_it_holds() {
        let text =
            r#"{"$serde_json::private::RawValue":"{","_ts":7,"data":{"$serde_json::private::RawValue":5},"id":"a"}"#;
        assert!(serde_json::from_str::<Value>(text).is_err(), "serde_json reads it by now: a tree would do");
        let mut stored: Stored = serde_json::from_str(text).unwrap();
        assert_eq!(stored.get("_ts"), Some(Value::from(7)));
        assert_eq!(stored.text_of("id").as_deref(), Some("a"));
        assert_eq!((stored.text_of("_ts"), stored.get("data"), stored.get("none")), (None, None, None));
        assert_eq!(serde_json::to_string(&stored).unwrap(), text);
        stored.copy("id", "key");
        stored.copy("_ts", "id");
        stored.copy("none", "more");
        assert_eq!(serde_json::to_string(&stored).unwrap(), text.replace("\"a\"}", "\"a\",\"key\":\"a\"}"));
    }
}
