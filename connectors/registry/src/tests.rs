//! Against registries that run here: a double of each kind, as strict as the real one about what it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use engine::connector::Options;
use formats::{Found, SchemaId, SchemaKind, Wake};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Registry, RegistryError};

const LONG_ENOUGH: Duration = Duration::from_secs(30);
const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[]}"#;

/// A registry that answers what it was told to, by method and path; anything else it knows nothing of.
#[derive(Clone, Default)]
struct Double {
    url: String,
    answers: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    /// Answers come with these headers.
    headers: Arc<Mutex<Vec<(&'static str, &'static str)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Debug, Clone)]
struct Asked {
    what: String,
    query: String,
    headers: HeaderMap,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Double {
    async fn start() -> Double {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let double = Double { url: format!("http://{}", listener.local_addr().unwrap()), ..Double::default() };
        let routes = Router::new().fallback(answer).with_state(double.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        double
    }

    fn says(&self, what: &str, status: u16, body: impl Into<String>) -> &Self {
        self.answers.lock().insert(what.into(), (status, body.into()));
        self
    }

    fn asked(&self, what: &str) -> Vec<Asked> {
        self.asked.lock().iter().filter(|asked| asked.what == what).cloned().collect()
    }
}

async fn answer(State(double): State<Double>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let what = format!("{method} {}", uri.path());
    let answer = double.answers.lock().get(&what).cloned();
    double.asked.lock().push(Asked {
        what,
        query: uri.query().unwrap_or_default().into(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let (status, body) = answer.unwrap_or((404, r#"{"error_code":40403,"message":"Schema not found"}"#.into()));
    let status = axum::http::StatusCode::from_u16(status).unwrap();
    let mut response = (status, body).into_response();
    for (name, value) in double.headers.lock().iter() {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn options(given: &[(&str, &str)]) -> Options {
    Options(given.iter().map(|(name, value)| (format!("schema_registry.{name}"), value.to_string())).collect())
}

fn registry(given: &[(&str, &str)]) -> Registry {
    Registry::of(&options(given), &|_| None).unwrap().unwrap()
}

fn problems(given: &[(&str, &str)]) -> Vec<String> {
    let problems = Registry::of(&options(given), &|_| None).map(drop).unwrap_err();
    problems.into_iter().map(|p| format!("{}: {}", p.option.unwrap_or_default(), p.message)).collect()
}

/// Looks until there is an answer, and counts how often it was woken.
async fn found(schemas: &dyn formats::Schemas, id: &SchemaId) -> (Found, usize) {
    let (ring, mut rung) = mpsc::unbounded_channel();
    let wake: Wake = Arc::new(move || ring.send(()).unwrap_or_default());
    let mut times = 0;
    loop {
        match schemas.look(id, &wake) {
            Found::NotYet => {
                tokio::time::timeout(LONG_ENOUGH, rung.recv()).await.expect("it wakes whoever waits");
                times += 1;
            }
            other => return (other, times),
        }
    }
}

fn answer_of(schema: &str, references: &[(&str, i64)]) -> String {
    let references: Vec<_> = references
        .iter()
        .map(|(subject, version)| serde_json::json!({"name": "n", "subject": subject, "version": version}))
        .collect();
    serde_json::json!({"schema": schema, "references": references}).to_string()
}

#[tokio::test]
async fn a_schema_is_asked_for_once_however_many_wait_and_comes_with_those_it_names() {
    let double = Double::start().await;
    double
        .says("GET /api/schemas/ids/7", 200, answer_of(SCHEMA, &[("a/b", 2), ("c", 1)]))
        .says("GET /api/subjects/a%2Fb/versions/2", 200, answer_of("a", &[("c", 1)]))
        .says("GET /api/subjects/c/versions/1", 200, answer_of("c", &[("a/b", 2)]));
    let url = format!("{}/api/", double.url);
    let schemas = registry(&[("url", &url), ("user", "key"), ("password", "secret")]).schemas();
    let id = SchemaId::Number(7);
    let (one, other) = tokio::join!(found(&*schemas, &id), found(&*schemas, &id));
    let (Found::Schema(schema), 1) = one else { panic!("{one:?}") };
    assert_eq!((schema.kind, schema.text.as_str()), (SchemaKind::Avro, SCHEMA));
    assert_eq!(schema.referenced, ["c", "a"], "what is named stands first, and once, though they name each other");
    assert!(matches!(other, (Found::Schema(_), 1)));
    let asked = double.asked("GET /api/schemas/ids/7");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), "Basic a2V5OnNlY3JldA==");
    assert_eq!(asked[0].header("accept"), "application/vnd.schemaregistry.v1+json");
    assert!(matches!(found(&*schemas, &id).await, (Found::Schema(_), 0)), "it is kept");
    let shown = format!("{schemas:?}");
    assert!(!shown.contains("secret") && shown.contains("127.0.0.1"), "{shown}");
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_said_and_a_registry_that_is_away_or_lets_nobody_in_is_waited_for() {
    let double = Double::start().await;
    let schemas = registry(&[("url", &double.url)]).schemas();
    let (Found::None(why), _) = found(&*schemas, &SchemaId::Number(1)).await else { panic!("there is none") };
    assert_eq!(&*why, "the registry has none: Schema not found");
    for (number, trouble) in [(2, 503), (3, 401), (4, 429), (5, 500)] {
        let what = format!("GET /schemas/ids/{number}");
        double.says(&what, trouble, "{}");
        let looking = schemas.clone();
        let waiting = tokio::spawn(async move { found(&*looking, &SchemaId::Number(number)).await });
        let begun = Instant::now();
        while double.asked(&what).len() < 2 {
            assert!(begun.elapsed() < LONG_ENOUGH, "it asks again after {trouble}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!waiting.is_finished());
        double.says(&what, 200, answer_of(SCHEMA, &[]));
        assert!(matches!(waiting.await.unwrap(), (Found::Schema(_), 1)));
    }
    double.says("GET /schemas/ids/6", 200, "x".repeat(5 << 20));
    let (Found::None(why), _) = found(&*schemas, &SchemaId::Number(6)).await else { panic!("it is too long") };
    assert!(why.contains("longer than 4194304 bytes"), "{why}");
    let (Found::None(why), _) = found(&*schemas, &SchemaId::Guid("ab".into())).await else { panic!("no such name") };
    assert!(why.contains("does not name schemas like this"), "{why}");
}

#[tokio::test]
async fn a_registry_that_nobody_listens_for_is_found_when_it_comes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let registry = registry(&[("url", &url)]);
    let error = registry.probe().await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().starts_with("it cannot be reached: "), "{error}");
    let schemas = registry.schemas();
    let waiting = tokio::spawn(async move { found(&*schemas, &SchemaId::Number(7)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let double = Double::default();
    double.says("GET /schemas/ids/7", 200, answer_of(SCHEMA, &[]));
    let listener = tokio::net::TcpListener::bind(url.trim_start_matches("http://")).await.unwrap();
    let routes = Router::new().fallback(answer).with_state(double);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    assert!(matches!(waiting.await.unwrap(), (Found::Schema(_), 1)));
}

#[tokio::test]
async fn a_schema_is_registered_under_its_subject_or_refused_in_the_registrys_own_words() {
    let double = Double::start().await;
    let registry = registry(&[("url", &double.url), ("token", "bearer")]);
    double.says("POST /subjects/plant%20a-value/versions", 200, r#"{"id":300}"#);
    let id = registry.register(SchemaKind::Avro, SCHEMA, "plant a-value").await.unwrap();
    assert_eq!(id, SchemaId::Number(300));
    let asked = &double.asked("POST /subjects/plant%20a-value/versions")[0];
    assert_eq!(asked.header("content-type"), "application/vnd.schemaregistry.v1+json");
    assert_eq!(asked.header("authorization"), "Bearer bearer");
    let sent: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(sent, serde_json::json!({"schema": SCHEMA}));
    double.says("POST /subjects/s/versions", 409, r#"{"error_code":409,"message":"incompatible: n was removed"}"#);
    let error = registry.register(SchemaKind::Avro, SCHEMA, "s").await.unwrap_err();
    assert!(matches!(&error, RegistryError::Refused(why) if why.ends_with("incompatible: n was removed")), "{error:?}");
    double.says("POST /subjects/s/versions", 403, "");
    let error = registry.register(SchemaKind::Avro, SCHEMA, "s").await.unwrap_err().to_string();
    assert!(
        error.contains("it does not let us in (403 Forbidden)") && error.contains("schema_registry.user"),
        "{error}"
    );
}

/// Where tokens are had.
async fn authority() -> Double {
    let authority = Double::start().await;
    let token = r#"{"access_token":"a-token","expires_in":3600,"token_type":"Bearer"}"#;
    authority.says("POST /t/oauth2/v2.0/token", 200, token);
    authority
}

fn event_hubs(double: &Double, authority: &Double, more: &[(&str, &str)]) -> Registry {
    let mut options = options(&[("namespace", double.url.trim_start_matches("http://"))]);
    options.0.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    for (name, value) in
        [("tenant_id", "t"), ("client_id", "app"), ("client_secret", "s"), ("authority_host", &authority.url)]
    {
        options.0.insert(name.into(), value.into());
    }
    Registry::of(&options, &|_| None).unwrap().unwrap()
}

#[tokio::test]
async fn event_hubs_registry_is_entered_with_a_token_and_names_schemas_by_guid() {
    const GUID: &str = "64fc737160ff41bdb8a0b8af028e6827";
    let (double, authority) = (Double::start().await, authority().await);
    let registry = event_hubs(&double, &authority, &[]);
    double.says(&format!("GET /$schemaGroups/$schemas/{GUID}"), 200, SCHEMA);
    double.headers.lock().push(("content-type", "application/json; serialization=Avro"));
    let (Found::Schema(schema), 1) = found(&*registry.schemas(), &SchemaId::Guid(GUID.into())).await else {
        panic!("it is there")
    };
    assert_eq!((schema.kind, schema.text.as_str()), (SchemaKind::Avro, SCHEMA));
    let asked = &double.asked(&format!("GET /$schemaGroups/$schemas/{GUID}"))[0];
    assert_eq!((asked.query.as_str(), asked.header("authorization")), ("api-version=2022-10", "Bearer a-token"));
    assert!(authority.asked("POST /t/oauth2/v2.0/token")[0].body.contains("eventhubs.azure.net%2F.default"));

    let error = registry.register(SchemaKind::Avro, SCHEMA, "hub").await.unwrap_err();
    assert!(error.to_string().contains("schema_registry.group is missing"), "{error}");
    let registry = event_hubs(&double, &authority, &[("schema_registry.group", "plant")]);
    double.says("PUT /$schemaGroups/plant/schemas/hub", 204, "");
    double.headers.lock().push(("schema-id", "64FC7371-60FF-41BD-B8A0-B8AF028E6827"));
    let id = registry.register(SchemaKind::Avro, SCHEMA, "hub").await.unwrap();
    assert_eq!(id, SchemaId::Guid(GUID.into()));
    let asked = &double.asked("PUT /$schemaGroups/plant/schemas/hub")[0];
    assert_eq!(asked.header("content-type"), "application/json; serialization=Avro");
    assert_eq!(asked.body, SCHEMA);
    double.says("GET /$schemaGroups", 403, r#"{"error":{"code":"Forbidden","message":"no role"}}"#);
    let error = registry.probe().await.unwrap_err().to_string();
    assert!(error.contains("no role. Reading needs the role Schema Registry Reader"), "{error}");
}

#[test]
fn what_a_table_says_of_its_registry_is_judged_all_at_once_and_secrets_stay_unsaid() {
    assert!(Registry::of(&options(&[]), &|_| None).unwrap().is_none());
    let said = problems(&[("url", "ftp://a:topsecret@b"), ("user", "u"), ("ca", "/nowhere.pem")]);
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].contains("belong together") && said[1].contains("only http"), "{said:#?}");
    assert!(said[2].contains("/nowhere.pem cannot be read"), "{said:#?}");
    let said = problems(&[("url", "https://a:topsecret@b")]);
    assert!(said[0].contains("use schema_registry.user") && !said[0].contains("topsecret"), "{said:#?}");
    let said = problems(&[("url", "http://registry.example"), ("user", "u"), ("password", "p")]);
    assert_eq!(said, ["schema_registry.url: a password or a token is not sent over http: use https"]);
    assert!(problems(&[("user", "u")])[0].contains("no registry is named"));
    assert!(problems(&[("url", "http://a"), ("namespace", "ns")])[0].contains("only one of the two"));
    assert!(problems(&[("namespace", "ns"), ("token", "t")])[0].contains("entered with Entra ID"));
    assert_eq!(registry(&[("url", "http://registry.example")]).place(), "schema registry http://registry.example/");
}
