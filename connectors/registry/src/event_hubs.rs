//! The registry of an Event Hubs namespace: schemas by id, in groups, entered with Entra ID.
//! <https://learn.microsoft.com/rest/api/eventhub/get-schema-by-id> and `schemaregistry.json` of azure-rest-api-specs.

use formats::{RegisteredSchema, SchemaId, SchemaKind};
use identity::{Bearer, FreshToken, TokenError};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

use crate::{RegistryError, body, failure, unreachable};

pub struct EventHubs {
    pub url: Url,
    group: Option<String>,
    bearer: Bearer,
    token: OnceCell<FreshToken>,
    client: Client,
}

const VERSION: &str = "2022-10";
const REMEDY: &str = "Reading needs the role Schema Registry Reader, and writing Schema Registry Contributor, on the \
                      namespace or the schema group";

impl EventHubs {
    pub fn new(url: Url, group: Option<String>, bearer: Bearer, client: Client) -> Self {
        EventHubs { url, group, bearer, token: OnceCell::new(), client }
    }

    pub async fn fetch(&self, guid: &str) -> Result<RegisteredSchema, RegistryError> {
        let response = self.send(self.request(Method::GET, &["$schemaGroups", "$schemas", guid])).await?;
        let format = response.headers().get("Content-Type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind_of(format)?;
        Ok(RegisteredSchema { kind, text: body(response).await?, referenced: vec![] })
    }

    pub async fn register(&self, kind: SchemaKind, text: &str, name: &str) -> Result<SchemaId, RegistryError> {
        let group = self.group.as_ref().ok_or_else(|| {
            RegistryError::Refused("schema_registry.group is missing: schemas of Event Hubs lie in groups".into())
        })?;
        let format = match kind {
            SchemaKind::Avro => "application/json; serialization=Avro",
            SchemaKind::Json => "application/json; serialization=Json",
            SchemaKind::Protobuf => return Err(RegistryError::Refused("Event Hubs takes none of this kind".into())),
        };
        let request = self.request(Method::PUT, &["$schemaGroups", group, "schemas", name]);
        let response = self.send(request.header("Content-Type", format).body(text.to_string())).await;
        let response = response.map_err(|error| match error {
            RegistryError::None(said) => RegistryError::Refused(format!("the schema group {group}: {said}")),
            other => other,
        })?;
        let id = response.headers().get("Schema-Id").and_then(|id| id.to_str().ok());
        let id = id.map(|id| id.replace('-', "").to_ascii_lowercase());
        id.map(SchemaId::Guid).ok_or_else(|| RegistryError::Refused("its answer has no Schema-Id".into()))
    }

    pub async fn probe(&self) -> Result<(), RegistryError> {
        self.send(self.request(Method::GET, &["$schemaGroups"])).await.map(drop)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.client.request(method, url).query(&[("api-version", VERSION)])
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        let no_token = |error: TokenError| RegistryError::Unavailable(format!("there is no token: {error}"));
        let token = self.token.get_or_try_init(|| self.bearer.token()).await.map_err(no_token)?;
        let token = token.current().map_err(no_token)?;
        let response = request.bearer_auth(&token.value).send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = body(response).await?;
        let told = serde_json::from_str::<Value>(&body).ok();
        let said = told.and_then(|told| Some(told["error"]["message"].as_str()?.to_string()));
        Err(failure(status, said.as_deref().unwrap_or_default(), REMEDY))
    }
}

/// The parameter of a content type, as `application/json; serialization=Avro`.
fn kind_of(content_type: &str) -> Result<SchemaKind, RegistryError> {
    let parameters = content_type.split(';').filter_map(|part| part.trim().split_once('='));
    let named =
        parameters.filter(|(name, _)| name.eq_ignore_ascii_case("serialization")).map(|(_, value)| value).next();
    match named.unwrap_or("Avro") {
        avro if avro.eq_ignore_ascii_case("avro") => Ok(SchemaKind::Avro),
        json if json.eq_ignore_ascii_case("json") => Ok(SchemaKind::Json),
        other => Err(RegistryError::Refused(format!("schemas of the kind {other} are not known"))),
    }
}
