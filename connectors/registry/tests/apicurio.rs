//! A real registry: Apicurio, which speaks Confluent's protocol.
//!
//! `./test` fetches it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::connector::Options;
use formats::{Found, SchemaId, SchemaKind, Schemas, Wake};
use reqwest::Client;
use schema_registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::Notify;

const JAR: &str = "apicurio-registry-app-3.0.9-runner.jar";
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

const PLACE: &str = r#"{"type":"record","name":"Place","fields":[{"name":"x","type":"int"}]}"#;
const PLACE_2: &str =
    r#"{"type":"record","name":"Place","fields":[{"name":"x","type":"int"},{"name":"y","type":"int","default":0}]}"#;
/// What was written by [`PLACE`] has no `z`.
const INCOMPATIBLE: &str = r#"{"type":"record","name":"Place","fields":[{"name":"z","type":"int"}]}"#;
/// Apicurio finds out by itself that it is one, by its first field.
const OBJECT: &str = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}"#;
const EVENT: &str = r#"{"type":"record","name":"Event","fields":[{"name":"place","type":"Place"}]}"#;

/// The registry's process, which ends with it.
struct Apicurio {
    process: Child,
    url: String,
}

impl Drop for Apicurio {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Apicurio {
    fn start() -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools/apicurio"));
        assert!(folder.join(".complete").exists(), "{}: ./test fetches the registry", folder.display());
        let [port, management] = free_ports();
        let process = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dquarkus.http.host=127.0.0.1", "-Dquarkus.management.host=127.0.0.1"])
            .arg(format!("-Dquarkus.http.port={port}"))
            .arg(format!("-Dquarkus.management.port={management}"))
            .arg("-jar")
            .arg(folder.join(JAR))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("java runs");
        Apicurio { process, url: format!("http://127.0.0.1:{port}/apis/ccompat/v7") }
    }

    fn client(&self) -> Registry {
        let options = Options([("schema_registry.url".to_string(), self.url.clone())].into());
        Registry::of(&options, &|_| None).expect("an address").expect("a registry")
    }

    /// What clients of ours never ask.
    async fn set(&self, method: reqwest::Method, path: &str, body: serde_json::Value) -> serde_json::Value {
        let request = Client::new().request(method, format!("{}{path}", self.url));
        let response =
            request.header("content-type", MEDIA_TYPE).body(body.to_string()).send().await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
    }
}

/// Ports that nobody had a moment ago.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

async fn answer(schemas: &Arc<dyn Schemas>, id: &SchemaId) -> Found {
    let woken = Arc::new(Notify::new());
    let wake: Wake = Arc::new({
        let woken = woken.clone();
        move || woken.notify_one()
    });
    loop {
        match schemas.look(id, &wake) {
            Found::NotYet => woken.notified().await,
            found => return found,
        }
    }
}

#[tokio::test]
async fn a_real_registry_takes_and_gives_schemas() {
    let apicurio = Apicurio::start();
    let registry = apicurio.client();
    let begun = Instant::now();
    while let Err(error) = registry.probe().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let register = |kind, text, subject| registry.register(kind, text, subject);

    let first = register(SchemaKind::Avro, PLACE, "place").await.unwrap();
    assert_eq!(register(SchemaKind::Avro, PLACE, "place").await.unwrap(), first, "the same again");
    let compatibility = serde_json::json!({"compatibility": "BACKWARD"});
    apicurio.set(reqwest::Method::PUT, "/config/place", compatibility).await;
    let second = register(SchemaKind::Avro, PLACE_2, "place").await.unwrap();
    assert_ne!(second, first);
    let refused = register(SchemaKind::Avro, INCOMPATIBLE, "place").await.unwrap_err();
    assert!(!refused.may_heal());
    let refused = refused.to_string();
    assert!(
        refused.starts_with("subject 'place' does not take the schema") && refused.contains("place [AVRO]"),
        "{refused}"
    );
    let refused = register(SchemaKind::Avro, "{\"type\":\"recor", "place").await.unwrap_err();
    assert!(!refused.may_heal() && refused.to_string().contains("is not accepted, "), "{refused}");
    let odd = register(SchemaKind::Json, OBJECT, "a topic/with all: of%it").await.unwrap();

    let built = serde_json::json!({
        "schema": EVENT, "references": [{"name": "Place", "subject": "place", "version": 2}]
    });
    let answered = apicurio.set(reqwest::Method::POST, "/subjects/event/versions", built).await;
    let event = SchemaId::Number(answered["id"].as_u64().and_then(|id| id.try_into().ok()).expect("a number"));

    let schemas = registry.start(Handle::current());
    for (id, kind, text, referenced) in [
        (&first, SchemaKind::Avro, PLACE, vec![]),
        (&second, SchemaKind::Avro, PLACE_2, vec![]),
        (&event, SchemaKind::Avro, EVENT, vec![PLACE_2.to_string()]),
        (&odd, SchemaKind::Json, OBJECT, vec![]),
    ] {
        let Found::Schema(found) = answer(&schemas, id).await else { panic!("{id} is there") };
        assert_eq!((found.kind, found.text.as_str(), &found.referenced), (kind, text, &referenced), "{id}");
    }
    let Found::None(why) = answer(&schemas, &SchemaId::Number(4_711)).await else { panic!("nobody registered it") };
    assert!(why.contains("there is no schema 4711, No content with ID '4711' was found"), "{why}");

    let mistyped = [("schema_registry.url".to_string(), apicurio.url.replace("/apis/ccompat/v7", ""))];
    let mistyped = Registry::of(&Options(mistyped.into()), &|_| None).unwrap().unwrap();
    let error = mistyped.probe().await.unwrap_err().to_string();
    assert!(error.contains("Has schema_registry.url all of the path?"), "{error}");
    let schemas = mistyped.start(Handle::current());
    let answer = tokio::time::timeout(Duration::from_secs(2), answer(&schemas, &first)).await;
    assert!(answer.is_err(), "it is not believed that there is none: {answer:?}");
}
