//! The protocol of Confluent's Schema Registry, which Apicurio, Redpanda and Karapace speak, too.
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use formats::{RegisteredSchema, SchemaId, SchemaKind};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::connection::{Answer, Connection};
use crate::trouble::{RegistryError, Unfound};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// Registries number schemas with Java's integers. What claims to have a higher one is no message with a schema.
const HIGHEST: u32 = i32::MAX as u32;
/// How many schemas one may be built on.
const REFERENCED: usize = 256;

pub struct Confluent {
    pub connection: Connection,
    /// Whether it was seen that a registry is there, and not something else that says of everything that there is no such
    /// thing.
    seen: AtomicBool,
}

/// Where a schema that another one names types of is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reference {
    subject: String,
    version: String,
}

struct Found {
    kind: SchemaKind,
    text: String,
    references: Vec<Reference>,
}

impl Confluent {
    pub fn new(connection: Connection) -> Self {
        Confluent { connection, seen: AtomicBool::new(false) }
    }

    pub async fn fetch(&self, id: u32) -> Result<RegisteredSchema, Unfound> {
        if id > HIGHEST {
            return Err(Unfound::None(format!(
                "there is no schema {id}: {HIGHEST} is the highest number one can have"
            )));
        }
        let what = format!("schema {id}");
        let found = self.found(&["schemas", "ids", &id.to_string()], &what).await?;
        let referenced = self.referenced(found.references, &what).await?;
        Ok(RegisteredSchema { kind: found.kind, text: found.text, referenced })
    }

    pub async fn register(&self, kind: SchemaKind, text: &str, subject: &str) -> Result<SchemaId, RegistryError> {
        let mut body = json!({ "schema": text });
        // The first registries knew one kind only, and take no field for it.
        if kind != SchemaKind::Avro {
            body["schemaType"] = word(kind).into();
        }
        let body = body.to_string();
        let with = |request: RequestBuilder| accept(request).header(CONTENT_TYPE, MEDIA_TYPE).body(body);
        let answer = self.connection.ask(Method::POST, &["subjects", subject, "versions"], with).await?;
        let said = self.connection.said(&answer);
        match answer.status {
            StatusCode::CONFLICT => Err(RegistryError::Refused(format!(
                "subject '{subject}' does not take the schema, which is not compatible with its versions{said}"
            ))),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(RegistryError::Refused(format!("the schema for subject '{subject}' is not accepted{said}")))
            }
            _ => {
                let answer = self.connection.judge(answer, &format!("write subject '{subject}'"))?;
                let id = answer.json()["id"].as_u64().and_then(|id| u32::try_from(id).ok());
                id.map(SchemaId::Number).ok_or_else(no_registry)
            }
        }
    }

    pub async fn probe(&self) -> Result<(), RegistryError> {
        let mut answer = self.connection.ask(Method::GET, &["schemas", "types"], accept).await?;
        // The first registries knew one kind only.
        if answer.status == StatusCode::NOT_FOUND {
            answer = self.connection.ask(Method::GET, &["subjects"], accept).await?;
        }
        if answer.status == StatusCode::NOT_FOUND {
            return Err(no_registry());
        }
        let answer = self.connection.judge(answer, "read")?;
        if !answer.too_large && !answer.json().is_array() {
            return Err(no_registry());
        }
        self.seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn found(&self, path: &[&str], what: &str) -> Result<Found, Unfound> {
        // Schemas may be built on versions that were deleted since, as their messages are still there.
        let with = |request: RequestBuilder| match path {
            ["subjects", ..] => accept(request).query(&[("deleted", "true")]),
            _ => accept(request),
        };
        let answer = self.connection.ask(Method::GET, path, with).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(self.not_there(&answer, what).await);
        }
        let answer = self.connection.judge(answer, "read")?;
        if answer.too_large {
            return Err(Unfound::None(format!("{what} is larger than 4 MB")));
        }
        let found = read(&answer.json(), what)?;
        self.seen.store(true, Ordering::Relaxed);
        Ok(found)
    }

    /// What "not found" means: no such schema, or no registry, which must not be taken for the former.
    async fn not_there(&self, answer: &Answer, what: &str) -> Unfound {
        let of_registry = answer.json()["error_code"].as_u64().is_some_and(|code| code / 100 == 404);
        if !of_registry
            && !self.seen.load(Ordering::Relaxed)
            && let Err(error) = self.probe().await
        {
            return error.into();
        }
        Unfound::None(format!("there is no {what}{}", self.connection.said(answer)))
    }

    /// All that a schema is built on, those first that are built on none of the others, each once.
    async fn referenced(&self, references: Vec<Reference>, what: &str) -> Result<Vec<String>, Unfound> {
        enum Step {
            Visit(Reference),
            /// All that it is built on is there.
            Take(String),
        }
        let mut visited = HashSet::new();
        let mut taken = vec![];
        let mut steps: Vec<_> = references.into_iter().rev().map(Step::Visit).collect();
        while let Some(step) = steps.pop() {
            match step {
                Step::Take(text) if !taken.contains(&text) => taken.push(text),
                Step::Take(_) => {}
                // Seen before; in a circle, too, which thereby ends.
                Step::Visit(reference) if !visited.insert(reference.clone()) => {}
                Step::Visit(_) if visited.len() > REFERENCED => {
                    return Err(Unfound::None(format!("{what} is built on more than {REFERENCED} others")));
                }
                Step::Visit(Reference { subject, version }) => {
                    let what = format!("version {version} of subject '{subject}', which {what} is built on");
                    let found = self.found(&["subjects", &subject, "versions", &version], &what).await?;
                    steps.push(Step::Take(found.text));
                    steps.extend(found.references.into_iter().rev().map(Step::Visit));
                }
            }
        }
        Ok(taken)
    }
}

fn accept(request: RequestBuilder) -> RequestBuilder {
    request.header(ACCEPT, MEDIA_TYPE)
}

fn read(answer: &Value, what: &str) -> Result<Found, Unfound> {
    let text = answer["schema"].as_str().ok_or_else(no_registry)?;
    let kind = match answer["schemaType"].as_str() {
        None | Some("AVRO") => SchemaKind::Avro,
        Some("PROTOBUF") => SchemaKind::Protobuf,
        Some("JSON") => SchemaKind::Json,
        Some(other) => return Err(Unfound::None(format!("{what} is of a kind that is not known here: {other}"))),
    };
    let references = answer["references"].as_array().into_iter().flatten();
    let references = references.map(reference).collect::<Option<_>>().ok_or_else(no_registry)?;
    Ok(Found { kind, text: text.into(), references })
}

fn reference(answer: &Value) -> Option<Reference> {
    let version = answer["version"].as_i64()?.to_string();
    Some(Reference { subject: answer["subject"].as_str()?.into(), version })
}

fn word(kind: SchemaKind) -> &'static str {
    match kind {
        SchemaKind::Avro => "AVRO",
        SchemaKind::Protobuf => "PROTOBUF",
        SchemaKind::Json => "JSON",
    }
}

fn no_registry() -> RegistryError {
    RegistryError::Refused(
        "what answers there is no registry of Confluent's kind. Has schema_registry.url all of the path? Apicurio's ends with \
         /apis/ccompat/v7"
            .into(),
    )
}
