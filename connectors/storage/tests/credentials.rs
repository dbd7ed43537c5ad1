//! Who a store is asked as: each way to say it, against an account and an Entra ID that listen on this machine.

use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use object_store::{Error, ObjectStoreExt};
use serde_json::json;
use url::Url;

/// A storage account that has nothing, Entra ID, and the token endpoint of a machine.
struct Azure {
    address: String,
    asked: Asked,
}

/// What the account was asked, and as whom.
type Asked = Arc<Mutex<Vec<String>>>;

impl Azure {
    async fn start() -> Azure {
        let asked = Asked::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(asked.clone());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Azure { address, asked }
    }

    /// Reads a file that is not there, with these options of a store.
    async fn read(&self, options: &[(&str, &str)]) -> Error {
        let place = [("account_name", "acc"), ("endpoint", self.address.as_str()), ("allow_http", "true")];
        let options: Vec<_> = place.iter().chain(options).map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let (store, path) = storage::open(&Url::parse("az://tables/serving/x").unwrap(), &options).unwrap();
        store.get(&path).await.expect_err("the account is empty")
    }

    /// The same, where the credentials are good; says as whom the account was asked.
    async fn asked_as(&self, options: &[(&str, &str)]) -> String {
        let answer = self.read(options).await;
        assert!(matches!(answer, Error::NotFound { .. }), "{answer}");
        let mut asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }
}

async fn answer(State(asked): State<Asked>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let header = |name: &str| parts.headers.get(name).map_or("nobody", |value| value.to_str().unwrap()).to_string();
    if path == "/tenant/oauth2/v2.0/token" && parts.method == Method::POST {
        let storage = body.contains("scope=https%3A%2F%2Fstorage.azure.com%2F.default");
        return match () {
            () if body.contains("client_secret=wrong") => {
                let why =
                    json!({"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret"});
                (StatusCode::UNAUTHORIZED, Json(why)).into_response()
            }
            () if storage && body.contains("client_id=job") && body.contains("client_secret=right") => token("secret"),
            () if storage
                && body.contains("client_id=pod")
                && body.contains("client_assertion=signed+by+the+cluster") =>
            {
                token("workload")
            }
            () => (StatusCode::BAD_REQUEST, body).into_response(),
        };
    }
    if path == "/msi" && header("metadata") == "true" && query.contains("resource=https%3A%2F%2Fstorage.azure.com") {
        return token("machine");
    }
    asked.lock().unwrap().push(match query {
        "" => header("authorization"),
        query => format!("{} with {query}", header("authorization")),
    });
    StatusCode::NOT_FOUND.into_response()
}

fn token(of: &str) -> Response {
    // Entra ID says in how many seconds it ends, a machine's endpoint at which, since 1970.
    Json(json!({"access_token": of, "expires_in": 3600, "expires_on": "4102444800"})).into_response()
}

const TENANT: (&str, &str) = ("tenant_id", "tenant");

#[tokio::test]
async fn an_account_key_signs_each_request() {
    let azure = Azure::start().await;
    let asked = azure.asked_as(&[("account_key", "a2V5")]).await;
    assert!(asked.starts_with("SharedKey acc:"), "{asked}");
}

#[tokio::test]
async fn a_sas_token_goes_with_the_url() {
    let azure = Azure::start().await;
    let asked = azure.asked_as(&[("sas_token", "?sv=2024-11-04&sr=c&sp=racwdl&sig=abc%2B")]).await;
    assert_eq!(asked, "nobody with sv=2024-11-04&sr=c&sp=racwdl&sig=abc%2B");
}

#[tokio::test]
async fn a_pod_asks_as_its_workload_identity() {
    let azure = Azure::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "signed by the cluster").unwrap();
    let (file, host) = (file.path().display().to_string(), azure.address.as_str());
    let options = [("authority_host", host), TENANT, ("client_id", "pod"), ("federated_token_file", file.as_str())];
    assert_eq!(azure.asked_as(&options).await, "Bearer workload");
}

#[tokio::test]
async fn a_secret_makes_a_service_principal() {
    let azure = Azure::start().await;
    let host = azure.address.as_str();
    let options = [("authority_host", host), TENANT, ("client_id", "job"), ("client_secret", "right")];
    assert_eq!(azure.asked_as(&options).await, "Bearer secret");
}

#[tokio::test]
async fn a_machine_asks_as_its_managed_identity() {
    let azure = Azure::start().await;
    let endpoint = format!("{}/msi", azure.address);
    assert_eq!(azure.asked_as(&[("msi_endpoint", endpoint.as_str())]).await, "Bearer machine");
}

#[tokio::test]
async fn a_refused_secret_is_told_in_the_words_of_entra_id_and_not_shown() {
    let azure = Azure::start().await;
    let host = azure.address.as_str();
    let error = azure.read(&[("authority_host", host), TENANT, ("client_id", "job"), ("client_secret", "wrong")]).await;
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        words += &format!(": {cause}");
        source = cause.source();
    }
    assert!(words.contains("AADSTS7000215") && !words.contains("wrong"), "{words}");
    assert!(azure.asked.lock().unwrap().is_empty());
}
