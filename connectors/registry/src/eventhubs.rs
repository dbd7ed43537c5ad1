//! The registry of an Event Hubs namespace.
//! <https://learn.microsoft.com/rest/api/schemaregistry/>

use formats::{RegisteredSchema, SchemaId, SchemaKind};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, StatusCode};

use crate::connection::{Answer, Connection};
use crate::options::GROUP;
use crate::trouble::{RegistryError, Unfound};

const VERSION: [(&str, &str); 1] = [("api-version", "2023-07-01")];
/// Of an id, in hexadecimal digits.
const ID_DIGITS: usize = 32;

pub struct EventHubs {
    pub connection: Connection,
    /// Where schemas are registered.
    pub group: Option<String>,
}

impl EventHubs {
    pub async fn fetch(&self, id: &str) -> Result<RegisteredSchema, Unfound> {
        if id.len() != ID_DIGITS || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Unfound::None(format!("'{id}' is no id of a schema: that has {ID_DIGITS} hexadecimal digits")));
        }
        let answer = self.connection.ask(Method::GET, &["$schemaGroups", "$schemas", id], versioned).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(Unfound::None(format!("there is no schema {id}{}", self.connection.said(&answer))));
        }
        let answer = self.connection.judge(answer, "read schemas")?;
        if answer.too_large {
            return Err(Unfound::None(format!("schema {id} is larger than 4 MB")));
        }
        let kind = kind(&answer, id)?;
        let text = answer.text().ok_or_else(|| Unfound::None(format!("schema {id} is no text in UTF-8")))?;
        Ok(RegisteredSchema { kind, text: text.into(), referenced: vec![] })
    }

    pub async fn register(&self, kind: SchemaKind, text: &str, name: &str) -> Result<SchemaId, RegistryError> {
        let Some(group) = &self.group else {
            return Err(RegistryError::Refused(format!("say in which group the schema is registered, as {GROUP}")));
        };
        let text = text.to_string();
        let with = |request: RequestBuilder| versioned(request).header(CONTENT_TYPE, media_type(kind)).body(text);
        let answer = self.connection.ask(Method::PUT, &["$schemaGroups", group, "schemas", name], with).await?;
        let said = self.connection.said(&answer);
        match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(RegistryError::Refused(format!("group '{group}' does not take the schema '{name}'{said}")))
            }
            StatusCode::NOT_FOUND => Err(RegistryError::Refused(format!("is there no schema group '{group}'{said}?"))),
            _ => {
                let answer = self.connection.judge(answer, &format!("write schemas of group '{group}'"))?;
                answer.schema_id.map(SchemaId::Guid).ok_or_else(no_registry)
            }
        }
    }

    pub async fn probe(&self) -> Result<(), RegistryError> {
        let answer = self.connection.ask(Method::GET, &["$schemaGroups"], versioned).await?;
        let answer = self.connection.judge(answer, "read schemas")?;
        if answer.too_large || answer.json().is_object() { Ok(()) } else { Err(no_registry()) }
    }
}

fn versioned(request: RequestBuilder) -> RequestBuilder {
    request.query(&VERSION)
}

/// `application/json; serialization=Avro` and its like.
fn kind(answer: &Answer, id: &str) -> Result<SchemaKind, Unfound> {
    let words = answer.content_type.to_ascii_lowercase().replace([' ', '"'], "");
    match words.split_once(';').unwrap_or((&words, "")) {
        ("application/json", parameters) if parameters.contains("serialization=avro") => Ok(SchemaKind::Avro),
        ("application/json", parameters) if parameters.contains("serialization=json") => Ok(SchemaKind::Json),
        ("text/vnd.ms.protobuf", _) => Ok(SchemaKind::Protobuf),
        ("text/plain", _) => Err(Unfound::None(format!("schema {id} is of the kind 'Custom', which has no language"))),
        _ => Err(no_registry().into()),
    }
}

fn media_type(kind: SchemaKind) -> &'static str {
    match kind {
        SchemaKind::Avro => "application/json; serialization=Avro",
        SchemaKind::Json => "application/json; serialization=Json",
        SchemaKind::Protobuf => "text/vnd.ms.protobuf",
    }
}

fn no_registry() -> RegistryError {
    RegistryError::Refused(
        "what answers there is no schema registry of Event Hubs. Check schema_registry.namespace, and that its tier is not Basic"
            .into(),
    )
}
