//! A registry that speaks Confluent's protocol.

use std::time::Duration;

use formats::{Found, SchemaId, SchemaKind};
use tokio::net::TcpListener;

use super::double::{Double, Protocol, reply};
use super::{QUICK, Reader, registry, registry_with, start, until};
use crate::{Pace, RegistryError};

const ONE: SchemaId = SchemaId::Number(1);

async fn double() -> Double {
    let double = Double::start(Protocol::Confluent).await;
    double.put("GET /schemas/ids/1", reply(200, r#"{"schema":"\"string\""}"#));
    double.put("GET /schemas/types", reply(200, r#"["JSON","AVRO"]"#));
    double
}

#[tokio::test]
async fn a_schema_is_asked_for_once_however_many_wait_and_each_is_woken_once() {
    let double = double().await;
    let schemas = start(&registry(&[("schema_registry.url", &double.url)]));
    let readers: Vec<_> = (0..5).map(|_| Reader::of(&schemas)).collect();
    double.hold(true);
    for reader in readers.iter().chain(&readers) {
        assert!(matches!(reader.look(&ONE), Found::NotYet));
    }
    until(|| !double.asked().is_empty()).await;
    assert!(readers.iter().all(|reader| reader.woken() == 0));
    double.hold(false);
    for reader in &readers {
        until(|| reader.woken() > 0).await;
        let Found::Schema(schema) = reader.look(&ONE) else { panic!("woken for nothing") };
        assert_eq!((schema.kind, schema.text.as_str()), (SchemaKind::Avro, "\"string\""));
    }
    assert!(readers.iter().all(|reader| reader.woken() == 1));
    assert_eq!(double.questions(), ["GET /schemas/ids/1"]);
    assert_eq!(double.asked()[0].authorization, None);
}

#[tokio::test]
async fn each_kind_of_schema_is_told_from_the_others() {
    let double = double().await;
    double.put("GET /schemas/ids/2", reply(200, r#"{"schema":"message M {}","schemaType":"PROTOBUF"}"#));
    double.put("GET /schemas/ids/3", reply(200, r#"{"schema":"{}","schemaType":"JSON","references":[]}"#));
    double.put("GET /schemas/ids/4", reply(200, r#"{"schema":"x","schemaType":"XML"}"#));
    let reader = Reader::of(&start(&registry(&[("schema_registry.url", &double.url)])));
    assert_eq!(reader.schema(&SchemaId::Number(2)).await.kind, SchemaKind::Protobuf);
    assert_eq!(reader.schema(&SchemaId::Number(3)).await.kind, SchemaKind::Json);
    let why = reader.none(&SchemaId::Number(4)).await;
    assert_eq!(why, format!("schema registry {}: schema 4 is of a kind that is not known here: XML", double.url));
}

#[tokio::test]
async fn a_user_and_a_token_are_let_in() {
    let double = double().await;
    let user =
        [("schema_registry.url", &*double.url), ("schema_registry.user", "me"), ("schema_registry.password", "p:w")];
    double.lets_in("Basic bWU6cDp3");
    Reader::of(&start(&registry(&user))).schema(&ONE).await;
    registry(&user).probe().await.unwrap();
    double.lets_in("Bearer abc");
    let token = [("schema_registry.url", &*double.url), ("schema_registry.token", "abc")];
    Reader::of(&start(&registry(&token))).schema(&ONE).await;
}

#[tokio::test]
async fn a_registry_in_trouble_is_asked_until_it_answers() {
    let double = double().await;
    for status in [503, 429, 500, 408] {
        double.first(reply(status, ""));
    }
    double.first(reply(200, "<html>Please wait</html>"));
    let reader = Reader::of(&start(&registry(&[("schema_registry.url", &double.url)])));
    assert_eq!(reader.schema(&ONE).await.text, "\"string\"");
    assert_eq!((reader.woken(), double.asked().len()), (1, 6));
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    drop(listener);
    let registry = registry(&[("schema_registry.url", &format!("http://{place}"))]);
    let error = registry.probe().await.unwrap_err();
    assert!(error.may_heal() && error.to_string().contains("Connection refused"), "{error}");
    let reader = Reader::of(&start(&registry));
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    assert_eq!(reader.woken(), 0);
    let double = Double::without_a_port(Protocol::Confluent, "");
    double.put("GET /schemas/ids/1", reply(200, r#"{"schema":"\"string\""}"#));
    let _double = double.serve_on(TcpListener::bind(place).await.unwrap());
    reader.schema(&ONE).await;
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_asked_again() {
    let double = double().await;
    double.hold(true);
    let pace = Pace { answer: Duration::from_millis(100), ..QUICK };
    let registry = registry_with(pace, &[("schema_registry.url", &double.url)]);
    let reader = Reader::of(&start(&registry));
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    until(|| double.asked().len() > 1).await;
    let error = registry.probe().await.unwrap_err();
    assert!(error.may_heal() && error.to_string().contains("timed out"), "{error}");
    double.hold(false);
    reader.schema(&ONE).await;
}

#[tokio::test]
async fn whoever_is_not_let_in_waits_and_is_told_what_to_check() {
    let double = double().await;
    double.lets_in("Basic bmV3OnNlY3JldA==");
    let options = [
        ("schema_registry.url", &*double.url),
        ("schema_registry.user", "new"),
        ("schema_registry.password", "topsecret"),
    ];
    let registry = registry(&options);
    let RegistryError::Refused(what) = registry.probe().await.unwrap_err() else { panic!("it may not heal by itself") };
    assert!(what.contains("401 Unauthorized, Unauthorized. Check schema_registry.user"), "{what}");
    let reader = Reader::of(&start(&registry));
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    until(|| double.asked().len() > 4).await;
    assert!(matches!(reader.look(&ONE), Found::NotYet) && reader.woken() == 0);
    double.first(reply(403, r#"{"error_code":40301,"message":"User new with topsecret may not read"}"#));
    let refused = registry.probe().await.unwrap_err().to_string();
    assert!(!refused.contains("topsecret"), "{refused}");
    double.lets_in("Basic bmV3OnRvcHNlY3JldA==");
    reader.schema(&ONE).await;
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_asked_for_again_after_a_while() {
    let double = double().await;
    let pace = Pace { none: Duration::from_secs(1), ..QUICK };
    let reader = Reader::of(&start(&registry_with(pace, &[("schema_registry.url", &double.url)])));
    let two = SchemaId::Number(2);
    let why = reader.none(&two).await;
    assert_eq!(why, format!("schema registry {}: there is no schema 2, Schema not found", double.url));
    assert!(matches!(reader.look(&two), Found::None(_)));
    assert_eq!(double.asked().len(), 1);
    double.put("GET /schemas/ids/2", reply(200, r#"{"schema":"\"long\""}"#));
    until(|| matches!(reader.look(&two), Found::NotYet)).await;
    assert_eq!(reader.schema(&two).await.text, "\"long\"");
    assert_eq!(reader.woken(), 2);
}

#[tokio::test]
async fn a_number_that_no_schema_has_and_an_id_of_another_registry_are_not_asked_for() {
    let double = double().await;
    let reader = Reader::of(&start(&registry(&[("schema_registry.url", &double.url)])));
    assert!(reader.none(&SchemaId::Number(u32::MAX)).await.contains("2147483647"));
    assert!(reader.none(&SchemaId::Guid("0".repeat(32))).await.contains("does not name schemas as '000"));
    assert!(double.asked().is_empty());
}

#[tokio::test]
async fn what_is_no_registry_is_not_believed_that_there_is_no_such_schema() {
    let double = double().await;
    double.put("GET /wrong/schemas/ids/1", reply(404, "Not found"));
    double.put("GET /wrong/schemas/types", reply(404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#));
    double.put("GET /wrong/subjects", reply(404, ""));
    let registry = registry(&[("schema_registry.url", &format!("{}/wrong/", double.url))]);
    let reader = Reader::of(&start(&registry));
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    until(|| double.asked().len() > 6).await;
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    let error = registry.probe().await.unwrap_err();
    assert!(!error.may_heal() && error.to_string().contains("schema_registry.url"), "{error}");
    // Where a registry was seen, a bare "not found" is one.
    double.put("GET /schemas/ids/2", reply(404, ""));
    let right = super::registry(&[("schema_registry.url", &double.url)]);
    let reader = Reader::of(&start(&right));
    assert!(reader.none(&SchemaId::Number(2)).await.ends_with("there is no schema 2"));
}

#[tokio::test]
async fn what_a_schema_is_built_on_comes_first_and_once() {
    let double = double().await;
    let on = |text: &str, others: &[(&str, u32)]| {
        let others: Vec<_> = others
            .iter()
            .map(|(subject, version)| serde_json::json!({"name": subject, "subject": subject, "version": version}))
            .collect();
        reply(200, serde_json::json!({"schema": text, "references": others}).to_string())
    };
    double.put("GET /schemas/ids/2", on("top", &[("left/side", 1), ("right", 7)]));
    double.put("GET /subjects/left%2Fside/versions/1", on("left", &[("bottom", 1)]));
    double.put("GET /subjects/right/versions/7", on("right", &[("bottom", 1), ("left/side", 1), ("copy", 1)]));
    double.put("GET /subjects/bottom/versions/1", on("bottom", &[]));
    double.put("GET /subjects/copy/versions/1", on("bottom", &[]));
    let reader = Reader::of(&start(&registry(&[("schema_registry.url", &double.url)])));
    let schema = reader.schema(&SchemaId::Number(2)).await;
    assert_eq!(schema.text, "top");
    assert_eq!(schema.referenced, ["bottom", "left", "right"]);
    assert_eq!(double.asked().len(), 5, "{:?}", double.questions());

    double.put("GET /schemas/ids/3", on("round", &[("a", 1)]));
    double.put("GET /subjects/a/versions/1", on("a", &[("b", 1)]));
    double.put("GET /subjects/b/versions/1", on("b", &[("a", 1)]));
    assert_eq!(reader.schema(&SchemaId::Number(3)).await.referenced, ["b", "a"]);

    double.put("GET /schemas/ids/4", on("broken", &[("gone", 3)]));
    let why = reader.none(&SchemaId::Number(4)).await;
    assert!(why.contains("there is no version 3 of subject 'gone', which schema 4 is built on"), "{why}");

    let many: Vec<_> = (1..300).map(|version| ("many", version)).collect();
    double.put("GET /schemas/ids/5", on("heavy", &many));
    for version in 1..300 {
        double.put(&format!("GET /subjects/many/versions/{version}"), on("x", &[]));
    }
    assert!(reader.none(&SchemaId::Number(5)).await.contains("built on more than 256 others"));
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let double = double().await;
    let fits = format!(r#"{{"schema":"{}"}}"#, "x".repeat((4 << 20) - 13));
    assert_eq!(fits.len(), 4 << 20);
    double.put("GET /schemas/ids/2", reply(200, format!("{fits} ")));
    double.put("GET /schemas/ids/3", reply(200, fits));
    let reader = Reader::of(&start(&registry(&[("schema_registry.url", &double.url)])));
    assert!(reader.none(&SchemaId::Number(2)).await.ends_with("schema 2 is larger than 4 MB"));
    assert_eq!(reader.schema(&SchemaId::Number(3)).await.text.len(), (4 << 20) - 13);
}

#[tokio::test]
async fn a_password_does_not_follow_to_another_place() {
    let double = double().await;
    let other = Double::start(Protocol::Confluent).await;
    double.put("GET /schemas/types", reply(307, "").with("location", &format!("{}/schemas/types", other.url)));
    let options =
        [("schema_registry.url", &*double.url), ("schema_registry.user", "me"), ("schema_registry.password", "p")];
    let error = registry(&options).probe().await.unwrap_err();
    assert!(!error.may_heal() && error.to_string().contains(&other.url), "{error}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_schema_is_registered_and_a_refusal_is_told_in_the_registrys_words() {
    let double = double().await;
    let path = "POST /subjects/my%20topic%2Fvalue/versions";
    let registry = registry(&[("schema_registry.url", &double.url), ("schema_registry.subject", "my topic/value")]);
    let subject = registry.subject().unwrap();
    double.put(path, reply(200, r#"{"id":7}"#));
    let id = registry.register(SchemaKind::Avro, "\"int\"", subject).await.unwrap();
    assert_eq!(id, SchemaId::Number(7));
    let id = registry.register(SchemaKind::Json, "{}", subject).await.unwrap();
    assert_eq!(id, SchemaId::Number(7));
    let bodies: Vec<_> = double.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [r#"{"schema":"\"int\""}"#, r#"{"schema":"{}","schemaType":"JSON"}"#]);

    let mut refusals = vec![];
    for (status, said) in
        [(409, "field 'x' has\\n no default"), (422, "no schema"), (404, "what?"), (401, "who?"), (503, "later")]
    {
        double.put(path, reply(status, format!(r#"{{"error_code":{status},"message":"{said}"}}"#)));
        refusals.push(registry.register(SchemaKind::Avro, "\"int\"", subject).await.unwrap_err());
    }
    let healing: Vec<_> = refusals.iter().map(RegistryError::may_heal).collect();
    assert_eq!(healing, [false, false, false, false, true]);
    let texts: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts[0],
        "subject 'my topic/value' does not take the schema, which is not compatible with its versions, field 'x' has no default"
    );
    assert_eq!(texts[1], "the schema for subject 'my topic/value' is not accepted, no schema");
    assert!(texts[3].contains("Does it want a login? Give schema_registry.user"), "{}", texts[3]);
    double.put(path, reply(200, "[]"));
    assert!(!registry.register(SchemaKind::Avro, "\"int\"", subject).await.unwrap_err().may_heal());
}

#[tokio::test]
async fn the_first_registries_are_known_by_their_subjects() {
    let double = double().await;
    double.put("GET /schemas/types", reply(404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#));
    double.put("GET /subjects", reply(200, "[]"));
    registry(&[("schema_registry.url", &double.url)]).probe().await.unwrap();
}

#[tokio::test]
async fn nobody_is_asked_for_what_nobody_waits_for_any_more() {
    let double = double().await;
    double.lets_in("nobody");
    let schemas = start(&registry(&[("schema_registry.url", &double.url)]));
    let reader = Reader::of(&schemas);
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    until(|| double.asked().len() > 2).await;
    drop((schemas, reader));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = double.asked().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(double.asked().len(), asked);
}

#[test]
fn a_registry_needs_no_runtime_before_it_is_asked() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let double = runtime.block_on(double());
    let schemas = registry(&[("schema_registry.url", &double.url)]).start(runtime.handle().clone());
    let reader = Reader::of(&schemas);
    assert!(matches!(reader.look(&ONE), Found::NotYet));
    runtime.block_on(reader.schema(&ONE));
}
