//! The registry of an Event Hubs namespace, which is entered with a token.

use formats::{Found, SchemaId, SchemaKind};

use super::double::{Double, Protocol, Reply, reply};
use super::{Reader, registry, start, until};
use crate::Registry;

const ID: &str = "0123456789abcdef0123456789abcdef";
const PATH: &str = "GET /$schemaGroups/$schemas/0123456789abcdef0123456789abcdef";

/// A registry, and the authority that gives tokens for it.
struct Hub {
    registry: Double,
    authority: Double,
}

fn token(value: &str) -> Reply {
    reply(200, format!(r#"{{"access_token":"{value}","expires_in":3600,"token_type":"Bearer"}}"#))
}

fn guid(text: &str) -> SchemaId {
    SchemaId::Guid(text.into())
}

fn schema(kind: &str, text: &str) -> Reply {
    reply(200, text).with("content-type", kind).with("schema-id", ID)
}

impl Hub {
    async fn start() -> Self {
        // The authority's double answers what it was given first, and does not care what it was asked.
        let authority = Double::start(Protocol::Confluent).await;
        let hub = Hub { registry: Double::start(Protocol::EventHubs).await, authority };
        hub.authority.first(token("abc"));
        hub.registry.lets_in("Bearer abc");
        hub.registry.put(PATH, schema("application/json; serialization=Avro", "\"string\""));
        hub.registry.put("GET /$schemaGroups", reply(200, r#"{"value":[{"groupName":"g"}]}"#));
        hub
    }

    fn client(&self, more: &[(&str, &str)]) -> Registry {
        let identity = [
            ("schema_registry.namespace", &*self.registry.url),
            ("credential", "client-secret"),
            ("tenant_id", "t"),
            ("client_id", "app"),
            ("client_secret", "topsecret"),
            ("authority_host", &self.authority.url),
        ];
        registry(&[&identity, more].concat())
    }
}

#[tokio::test]
async fn a_schema_is_asked_for_with_a_token_of_the_namespaces_authority() {
    let hub = Hub::start().await;
    let reader = Reader::of(&start(&hub.client(&[])));
    let schema = reader.schema(&guid(ID)).await;
    assert_eq!((schema.kind, schema.text.as_str()), (SchemaKind::Avro, "\"string\""));
    assert_eq!(reader.woken(), 1);
    let asked = hub.authority.asked().remove(0);
    assert_eq!(asked.what, "POST /t/oauth2/v2.0/token");
    assert!(asked.body.contains("scope=https%3A%2F%2Feventhubs.azure.net%2F.default"), "{}", asked.body);
    reader.none(&guid(&"f".repeat(32))).await;
    assert_eq!(hub.authority.asked().len(), 1, "one token serves for all questions");
}

#[tokio::test]
async fn a_kind_is_known_by_its_media_type() {
    let hub = Hub::start().await;
    let reader = Reader::of(&start(&hub.client(&[])));
    let kinds = [
        ("application/json;serialization=avro", Some(SchemaKind::Avro)),
        ("application/json; charset=utf-8; serialization=Json", Some(SchemaKind::Json)),
        ("text/vnd.ms.protobuf", Some(SchemaKind::Protobuf)),
        ("text/plain; charset=utf-8", None),
    ];
    for (at, (media_type, kind)) in kinds.into_iter().enumerate() {
        let id = format!("{at:032x}");
        hub.registry.put(&format!("GET /$schemaGroups/$schemas/{id}"), schema(media_type, "s"));
        let found = reader.answer(&guid(&id)).await;
        match (found, kind) {
            (Found::Schema(schema), Some(kind)) => assert_eq!(schema.kind, kind, "{media_type}"),
            (Found::None(why), None) => assert!(why.contains("'Custom'"), "{why}"),
            other => panic!("{media_type}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_registry_waits_for_its_token_and_for_its_role() {
    let hub = Hub::start().await;
    hub.registry.lets_in("Bearer def");
    let registry = hub.client(&[]);
    let reader = Reader::of(&start(&registry));
    assert!(matches!(reader.look(&guid(ID)), Found::NotYet));
    until(|| hub.registry.asked().len() > 2).await;
    let error = registry.probe().await.unwrap_err();
    assert!(!error.may_heal() && error.to_string().contains("'Schema Registry Reader'"), "{error}");
    hub.registry.lets_in("Bearer abc");
    reader.schema(&guid(ID)).await;

    // Another, whose authority refuses a token at first.
    let no = r#"{"error":"invalid_client","error_description":"AADSTS7000215: not 'topsecret'"}"#;
    let refusing = Double::start(Protocol::Confluent).await;
    for _ in 0..3 {
        refusing.first(reply(401, no));
    }
    refusing.first(token("abc"));
    let hub = Hub { authority: refusing, ..Hub::start().await };
    let registry = hub.client(&[]);
    let error = registry.probe().await.unwrap_err();
    assert!(!error.may_heal() && error.to_string().contains("AADSTS7000215: not '…'"), "{error}");
    Reader::of(&start(&registry)).schema(&guid(ID)).await;
    assert_eq!(hub.authority.asked().len(), 4);
}

#[tokio::test]
async fn what_is_not_there_is_none_and_what_is_no_id_is_not_asked_for() {
    let hub = Hub::start().await;
    let reader = Reader::of(&start(&hub.client(&[])));
    let why = reader.none(&guid(&"f".repeat(32))).await;
    assert!(why.ends_with("there is no schema ffffffffffffffffffffffffffffffff, Schema does not exist."), "{why}");
    for wrong in ["../../x", "0123456789abcdef0123456789abcde/"] {
        assert!(reader.none(&guid(wrong)).await.contains("32 hexadecimal digits"));
    }
    reader.none(&SchemaId::Number(1)).await;
    assert_eq!(hub.registry.asked().len(), 1);
}

#[tokio::test]
async fn a_schema_is_registered_in_its_group() {
    let hub = Hub::start().await;
    let path = "PUT /$schemaGroups/my%20group/schemas/events";
    hub.registry.put(path, reply(204, "").with("schema-id", ID));
    let registry = hub.client(&[("schema_registry.group", "my group")]);
    assert_eq!(registry.register(SchemaKind::Avro, "\"int\"", "events").await.unwrap(), guid(ID));
    assert_eq!(hub.registry.asked()[0].body, "\"int\"");
    registry.register(SchemaKind::Json, "{}", "events").await.unwrap();
    registry.register(SchemaKind::Protobuf, "message M {}", "events").await.unwrap();

    let mut refusals = vec![];
    for (status, body) in [
        (409, r#"{"error":{"code":"Conflict","message":"not compatible"}}"#),
        (400, r#"{"Code":400,"Detail":"SubCode=40000, UnknownType: no schema"}"#),
        (404, r#"{"error":{"code":"ItemNotFound","message":"no group"}}"#),
        (403, ""),
        (500, ""),
    ] {
        hub.registry.put(path, reply(status, body));
        refusals.push(registry.register(SchemaKind::Avro, "\"int\"", "events").await.unwrap_err());
    }
    let texts: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "group 'my group' does not take the schema 'events', not compatible");
    assert!(
        texts[1].contains("no schema") && texts[2].contains("no group") && texts[3].contains("Contributor"),
        "{texts:?}"
    );
    let healing: Vec<_> = refusals.iter().map(|refusal| refusal.may_heal()).collect();
    assert_eq!(healing, [false, false, false, false, true]);

    let nowhere = hub.client(&[]).register(SchemaKind::Avro, "\"int\"", "events").await.unwrap_err();
    assert!(nowhere.to_string().contains("schema_registry.group"), "{nowhere}");
}

#[tokio::test]
async fn a_probe_lists_groups() {
    let hub = Hub::start().await;
    let registry = hub.client(&[]);
    registry.probe().await.unwrap();
    assert_eq!(hub.registry.questions(), ["GET /$schemaGroups"]);
    hub.registry.put("GET /$schemaGroups", reply(200, "<html>"));
    assert!(!registry.probe().await.unwrap_err().may_heal());
}
