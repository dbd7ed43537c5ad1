//! Against token services that run here: what each is asked, and what becomes of its answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;

use super::{Bearer, FreshToken};
use crate::{Identity, Proof, TokenError};

const SCOPE: &str = "https://ns.servicebus.windows.net/.default";

/// What a token service was asked: its path, its headers, and its form or query.
#[derive(Debug, Clone, Default)]
struct Asked {
    path: String,
    headers: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
}

/// A token service that gives the answers that it was made with, one after the other, and the last one for ever.
struct TokenService {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone)]
struct Script {
    answers: Arc<Vec<(u16, String)>>,
    next: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl TokenService {
    async fn that_answers(answers: Vec<(u16, String)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let script = Script { answers: Arc::new(answers), next: Arc::default(), asked: asked.clone() };
        let routes = Router::new().fallback(answer).with_state(script);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        TokenService { url, asked }
    }

    fn first(&self) -> Asked {
        self.asked.lock()[0].clone()
    }
}

async fn answer(State(script): State<Script>, uri: Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let fields = |text: &[u8]| url::form_urlencoded::parse(text).into_owned().collect::<Vec<_>>();
    let mut all = fields(uri.query().unwrap_or_default().as_bytes());
    all.extend(fields(&body));
    let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap_or_default().to_string()));
    script.asked.lock().push(Asked {
        path: uri.path().into(),
        headers: headers.collect(),
        fields: all.into_iter().collect(),
    });
    let at = script.next.fetch_add(1, Ordering::Relaxed).min(script.answers.len() - 1);
    let (status, text) = &script.answers[at];
    (StatusCode::from_u16(*status).unwrap(), text.clone())
}

fn good(token: &str, seconds: u64) -> (u16, String) {
    (200, format!(r#"{{"access_token":"{token}","expires_in":{seconds},"token_type":"Bearer"}}"#))
}

fn refused(code: &str, description: &str) -> (u16, String) {
    (401, serde_json::json!({"error": code, "error_description": description}).to_string())
}

async fn token_of(identity: Identity) -> Result<FreshToken, TokenError> {
    Bearer { identity, scope: SCOPE.into() }.token().await
}

fn choose(credential: &str, settings: &[(&str, &str)]) -> Identity {
    let setting = |name: &str| settings.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
    Identity::choose(Some(credential), &setting).unwrap()
}

fn with_secret(service: &TokenService) -> Identity {
    let settings =
        [("authority_host", &*service.url), ("tenant_id", "t"), ("client_id", "app"), ("client_secret", "topsecret")];
    choose("client-secret", &settings)
}

#[tokio::test]
async fn an_application_shows_its_secret_to_its_tenant() {
    let service = TokenService::that_answers(vec![good("abc", 3600)]).await;
    let token = token_of(with_secret(&service)).await.unwrap();
    assert_eq!(token.current().unwrap().value, "abc");
    let asked = service.first();
    assert_eq!(asked.path, "/t/oauth2/v2.0/token");
    let expected =
        [("client_id", "app"), ("client_secret", "topsecret"), ("grant_type", "client_credentials"), ("scope", SCOPE)];
    assert_eq!(asked.fields, expected.map(|(n, v)| (n.to_string(), v.to_string())).into());
}

#[tokio::test]
async fn a_workload_shows_the_token_that_lies_in_its_file_now() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "of-kubernetes-1\n").unwrap();
    let service = TokenService::that_answers(vec![good("abc", 1)]).await;
    let settings = [
        ("authority_host", &*service.url),
        ("tenant_id", "t"),
        ("client_id", "app"),
        ("federated_token_file", file.to_str().unwrap()),
    ];
    let _token = token_of(choose("workload-identity", &settings)).await.unwrap();
    assert_eq!(service.first().fields["client_assertion"], "of-kubernetes-1");
    assert_eq!(
        service.first().fields["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    std::fs::write(&file, "of-kubernetes-2").unwrap();
    let shown = || service.asked.lock().last().unwrap().fields["client_assertion"].clone();
    until(|| shown() == "of-kubernetes-2").await;
}

#[tokio::test]
async fn a_machine_asks_its_metadata_service() {
    let answer = (200, r#"{"access_token":"abc","expires_in":"86399","expires_on":"4102444800"}"#.to_string());
    let service = TokenService::that_answers(vec![answer]).await;
    let identity = choose("managed-identity", &[("metadata_host", &*service.url), ("client_id", "mine")]);
    let token = token_of(identity).await.unwrap().current().unwrap();
    assert_eq!(token.value, "abc");
    let asked = service.first();
    assert_eq!((asked.path.as_str(), asked.headers["metadata"].as_str()), ("/metadata/identity/oauth2/token", "true"));
    assert_eq!(asked.fields["resource"], "https://ns.servicebus.windows.net");
    assert_eq!(asked.fields["client_id"], "mine");
}

#[tokio::test]
async fn a_platform_has_a_token_service_of_its_own() {
    let answer = (200, r#"{"access_token":"abc","expires_on":"4102444800"}"#.to_string());
    let service = TokenService::that_answers(vec![answer]).await;
    let endpoint = format!("{}/msi/token", service.url);
    let settings = [("identity_endpoint", endpoint.as_str()), ("identity_header", "guid")];
    let token = token_of(choose("managed-identity", &settings)).await.unwrap().current().unwrap();
    let end = std::time::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    assert_eq!((token.value.as_str(), token.expires), ("abc", end));
    let asked = service.first();
    assert_eq!((asked.path.as_str(), asked.headers["x-identity-header"].as_str()), ("/msi/token", "guid"));
    assert_eq!(asked.fields["api-version"], "2019-08-01");
}

#[tokio::test]
async fn the_azure_cli_is_asked_for_whoever_is_signed_in() {
    let folder = tempfile::tempdir().unwrap();
    let cli = |name: &str, script: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        choose("azure-cli", &[("azure_cli", path.to_str().unwrap())])
    };
    let signed_in = cli(
        "in",
        "#!/bin/sh\n[ \"$*\" = 'account get-access-token --output json --scope https://ns.servicebus.windows.net/.default' ] \
         && echo '{\"accessToken\":\"abc\",\"expiresOn\":\"2100-01-01 00:00:00\",\"expires_on\":4102444800}'\n",
    );
    assert_eq!(token_of(signed_in).await.unwrap().current().unwrap().value, "abc");
    let signed_out = cli("out", "#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n");
    let error = token_of(signed_out).await.err().unwrap();
    assert!(error.to_string().contains("ERROR: Please run 'az login' to setup account.. Run 'az login'"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_never_shows_the_secret() {
    let service = TokenService::that_answers(vec![refused(
        "invalid_client",
        "AADSTS7000215: Invalid client secret 'topsecret' provided.\r\nTrace ID: 1",
    )])
    .await;
    let begun = Instant::now();
    let error = token_of(with_secret(&service)).await.err().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    let TokenError::Refused(text) = error else { panic!("{error:?}") };
    assert!(
        text.contains("401 Unauthorized, invalid_client: AADSTS7000215: Invalid client secret '…' provided."),
        "{text}"
    );
    assert!(text.contains("AZURE_CLIENT_SECRET") && !text.contains("topsecret") && !text.contains("Trace"), "{text}");
    assert_eq!(service.asked.lock().len(), 1);
}

#[tokio::test]
async fn a_busy_service_is_asked_again() {
    let busy = (429, "slow down".to_string());
    let down = (503, String::new());
    let service = TokenService::that_answers(vec![busy, down, good("abc", 3600)]).await;
    assert_eq!(token_of(with_secret(&service)).await.unwrap().current().unwrap().value, "abc");
}

#[tokio::test]
async fn a_token_is_replaced_while_it_is_still_good() {
    let service = TokenService::that_answers(vec![good("first", 10), good("second", 3600)]).await;
    let token = token_of(with_secret(&service)).await.unwrap();
    assert_eq!(token.current().unwrap().value, "first");
    until(|| {
        // Never without one: the second is there before the first has ended.
        token.current().unwrap().value == "second"
    })
    .await;
}

#[tokio::test]
async fn when_the_next_token_is_refused_the_old_one_serves_to_its_end_and_then_the_refusal_is_named() {
    let no = refused("unauthorized_client", "AADSTS700016: Application was not found");
    let service = TokenService::that_answers(vec![good("first", 2), no]).await;
    let token = token_of(with_secret(&service)).await.unwrap();
    until(|| token.0.state.lock().trouble.is_some()).await;
    until(|| token.current().is_err()).await;
    let error = token.current().unwrap_err();
    assert!(matches!(&error, TokenError::Refused(text) if text.contains("AADSTS700016")), "{error:?}");
}

#[tokio::test]
async fn a_missing_token_file_is_named() {
    let identity = Identity::Application {
        endpoint: "http://127.0.0.1:1/".into(),
        client: "app".into(),
        proof: Proof::TokenFile("/nowhere/token".into()),
    };
    let error = token_of(identity).await.err().unwrap().to_string();
    assert!(error.starts_with("the federated token file /nowhere/token cannot be read: No such file"), "{error}");
}

/// Waits for something that must come; generous, for a busy machine.
async fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
