//! A registry as Confluent's: schemas by number, subjects with versions.
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

use std::collections::HashSet;

use formats::{RegisteredSchema, SchemaId, SchemaKind};
use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::{RegistryError, body, failure, unreachable};

pub struct Confluent {
    pub url: Url,
    pub login: Login,
    pub client: Client,
}

pub enum Login {
    None,
    Password { user: String, password: String },
    Token(String),
}

const JSON: &str = "application/vnd.schemaregistry.v1+json";
/// Schemas that one may need, those of others included.
const MOST_REFERENCES: usize = 1_000;
const REMEDY: &str = "Are schema_registry.user and schema_registry.password, or schema_registry.token, those of somebody \
                      who may read schemas, or write them?";

/// A schema, as it is answered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

impl Confluent {
    pub async fn fetch(&self, id: u32) -> Result<RegisteredSchema, RegistryError> {
        let answer = self.schema(&["schemas", "ids", &id.to_string()]).await?;
        let kind = match answer.schema_type.as_deref() {
            None | Some("AVRO") => SchemaKind::Avro,
            Some("PROTOBUF") => SchemaKind::Protobuf,
            Some("JSON") => SchemaKind::Json,
            Some(other) => return Err(RegistryError::Refused(format!("schemas of the type {other} are not known"))),
        };
        let referenced = self.referenced(answer.references).await?;
        Ok(RegisteredSchema { kind, text: answer.schema, referenced })
    }

    pub async fn register(&self, kind: SchemaKind, text: &str, subject: &str) -> Result<SchemaId, RegistryError> {
        let mut new = json!({"schema": text});
        match kind {
            SchemaKind::Avro => {}
            SchemaKind::Protobuf => new["schemaType"] = "PROTOBUF".into(),
            SchemaKind::Json => new["schemaType"] = "JSON".into(),
        }
        let request = self.request(Method::POST, &["subjects", subject, "versions"]);
        let request = request.header("Content-Type", JSON).body(new.to_string());
        let answer: Value = parsed(&answered(request).await?)?;
        let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(SchemaId::Number).ok_or_else(|| RegistryError::Refused("its answer has no id".into()))
    }

    pub async fn probe(&self) -> Result<(), RegistryError> {
        answered(self.request(Method::GET, &["subjects"]).query(&[("limit", "1")])).await.map(drop)
    }

    async fn schema(&self, path: &[&str]) -> Result<Answer, RegistryError> {
        parsed(&answered(self.request(Method::GET, path)).await?)
    }

    /// Those that are named and those that they name, each once and behind what it names itself.
    async fn referenced(&self, named: Vec<Reference>) -> Result<Vec<String>, RegistryError> {
        enum Step {
            Fetch(Reference),
            Emit(String),
        }
        let (mut seen, mut texts) = (HashSet::new(), vec![]);
        let mut steps: Vec<Step> = named.into_iter().rev().map(Step::Fetch).collect();
        while let Some(step) = steps.pop() {
            let reference = match step {
                Step::Emit(text) => {
                    texts.push(text);
                    continue;
                }
                Step::Fetch(reference) => reference,
            };
            if !seen.insert((reference.subject.clone(), reference.version)) {
                continue;
            }
            if seen.len() > MOST_REFERENCES {
                return Err(RegistryError::Refused(format!("it needs more than {MOST_REFERENCES} other schemas")));
            }
            let path = ["subjects", &reference.subject, "versions", &reference.version.to_string()];
            let answer = self.schema(&path).await?;
            steps.push(Step::Emit(answer.schema));
            steps.extend(answer.references.into_iter().rev().map(Step::Fetch));
        }
        Ok(texts)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        // A subject may hold anything, slashes too.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.client.request(method, url).header("Accept", JSON);
        match &self.login {
            Login::None => request,
            Login::Password { user, password } => request.basic_auth(user, Some(password)),
            Login::Token(token) => request.bearer_auth(token),
        }
    }
}

async fn answered(request: RequestBuilder) -> Result<String, RegistryError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let body = body(response).await?;
    if status.is_success() {
        return Ok(body);
    }
    let said = serde_json::from_str::<Value>(&body).ok().and_then(|told| Some(told["message"].as_str()?.to_string()));
    Err(failure(status, said.as_deref().unwrap_or_default(), REMEDY))
}

fn parsed<T: for<'de> Deserialize<'de>>(body: &str) -> Result<T, RegistryError> {
    serde_json::from_str(body)
        .map_err(|e| RegistryError::Unavailable(format!("its answer is none of a schema registry's: {e}")))
}
