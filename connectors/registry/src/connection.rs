//! One question to a registry, and its answer.

use std::fmt::Display;
use std::time::Duration;

use engine::causes::causes;
use identity::{Bearer, FreshToken, Identity};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

use crate::options::{CA, is_here};
use crate::trouble::RegistryError;

/// An answer with more is not read: no schema that people write is as large.
const LARGEST: usize = 4 << 20;
/// How much is shown of what a registry says.
const SHOWN: usize = 1000;
/// What tokens for any namespace's registry are asked for.
const SCOPE: &str = "https://eventhubs.azure.net/.default";

/// A way to a registry. It is opened by the first question.
pub struct Connection {
    base: Url,
    pub login: Login,
    /// A file with certificates of authorities that are trusted beside those of the system.
    ca: Option<String>,
    answer: Duration,
    http: OnceCell<Client>,
    /// Of an identity, once it was asked for.
    token: OnceCell<FreshToken>,
}

/// Who asks.
pub enum Login {
    Nobody,
    User { name: String, password: String },
    Token(String),
    Identity(Identity),
}

/// What a registry answered.
pub struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    /// Of Event Hubs: the id of the schema that was asked for or registered.
    pub schema_id: Option<String>,
    /// Whether it was larger than it may be. Then it was not read.
    pub too_large: bool,
    body: Vec<u8>,
}

impl Connection {
    pub fn new(base: Url, login: Login, ca: Option<String>, answer: Duration) -> Self {
        Connection { base, login, ca, answer, http: OnceCell::new(), token: OnceCell::new() }
    }

    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks for what is at `path`, whose names may have any characters. `with`: what else belongs to the question.
    pub async fn ask(
        &self,
        method: Method,
        path: &[&str],
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, RegistryError> {
        let request = self.http().await?.request(method, self.url(path));
        let request = match &self.login {
            Login::Nobody => request,
            Login::User { name, password } => request.basic_auth(name, Some(password)),
            Login::Token(token) => request.bearer_auth(token),
            Login::Identity(identity) => request.bearer_auth(self.token(identity).await?),
        };
        let response = with(request).send().await.map_err(|e| self.unanswered(e))?;
        if response.status().is_redirection() {
            return Err(self.elsewhere(&response));
        }
        self.read(response).await
    }

    /// The answer, if it is one; else why not. `said`: what it says, for people.
    pub fn judge(&self, answer: Answer, may: &str) -> Result<Answer, RegistryError> {
        let (status, said) = (answer.status, self.said(&answer));
        match status {
            _ if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(RegistryError::Refused(format!("it answered {status}{said}. {}", self.login.remedy(may))))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(RegistryError::Unanswered(format!("it answered {status}{said}")))
            }
            _ if status.is_server_error() => Err(RegistryError::Unanswered(format!("it answered {status}{said}"))),
            _ => Err(RegistryError::Refused(format!("it answered {status}{said}"))),
        }
    }

    /// What it says itself, after a comma, without secrets; nothing if it speaks to browsers.
    pub fn said(&self, answer: &Answer) -> String {
        let said = answer.message().unwrap_or_default();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = match &self.login {
            Login::User { password: secret, .. } | Login::Token(secret) if !secret.is_empty() => {
                said.replace(secret, "…")
            }
            _ => said,
        };
        let shown: String = said.chars().take(SHOWN).collect();
        if shown.is_empty() { shown } else { format!(", {shown}") }
    }

    async fn http(&self) -> Result<&Client, RegistryError> {
        self.http.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Client, RegistryError> {
        let client = Client::builder()
            .timeout(self.answer)
            .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
            // A password would go to wherever it says.
            .redirect(Policy::none());
        let mut client = if is_here(&self.base) { client.no_proxy() } else { client };
        if let Some(file) = &self.ca {
            let failed = |e: &dyn Display| RegistryError::Refused(format!("{CA}: {file} cannot be read: {e}"));
            let pem = tokio::fs::read(file).await.map_err(|e| failed(&e))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|e| failed(&e))?;
            if authorities.is_empty() {
                return Err(failed(&"it has no certificate in PEM"));
            }
            for authority in authorities {
                client = client.add_root_certificate(authority);
            }
        }
        client.build().map_err(|e| RegistryError::Refused(format!("no HTTP client can be made: {}", in_full(&e))))
    }

    async fn token(&self, identity: &Identity) -> Result<String, RegistryError> {
        let bearer = Bearer { identity: identity.clone(), scope: SCOPE.into() };
        let fresh = self.token.get_or_try_init(|| bearer.token()).await?;
        Ok(fresh.current()?.value)
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut names) = url.path_segments_mut() {
            names.pop_if_empty().extend(path);
        }
        url
    }

    async fn read(&self, mut response: Response) -> Result<Answer, RegistryError> {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(String::from);
        let mut answer = Answer {
            status: response.status(),
            content_type: header(CONTENT_TYPE.as_str()).unwrap_or_default(),
            schema_id: header("schema-id"),
            too_large: false,
            body: vec![],
        };
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unanswered(e))? {
            if answer.body.len() + chunk.len() > LARGEST {
                return Ok(Answer { body: vec![], too_large: true, ..answer });
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    fn unanswered(&self, error: reqwest::Error) -> RegistryError {
        let what = in_full(&error.without_url());
        let hint = if what.contains("UnknownIssuer") {
            format!(". If its certificate is of an authority of your own, name that one's in {CA}")
        } else {
            String::new()
        };
        RegistryError::Unanswered(format!("it does not answer: {what}{hint}"))
    }

    fn elsewhere(&self, response: &Response) -> RegistryError {
        let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok()).unwrap_or("elsewhere");
        RegistryError::Refused(format!(
            "it answered {}, and sends us to {place}: is that its address?",
            response.status()
        ))
    }
}

impl Answer {
    /// As text, if it is one.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }

    /// As JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What it says to people: `{"message": …}` of Confluent's kind, `{"error": {"message": …}}` or `{"Detail": …}` of Azure.
    fn message(&self) -> Option<String> {
        let body = self.json();
        let found = [&body["message"], &body["error"]["message"], &body["Detail"]].into_iter().find_map(Value::as_str);
        found.map(String::from)
    }
}

impl Login {
    /// For plans and errors. No secret.
    pub fn describe(&self) -> String {
        match self {
            Login::Nobody => "without a login".into(),
            Login::User { name, .. } => format!("as user {name}"),
            Login::Token(_) => "with a token".into(),
            Login::Identity(identity) => format!("as {}", identity.describe()),
        }
    }

    /// What to look at when the registry does not let us in. `may`: what it must let us do.
    fn remedy(&self, may: &str) -> String {
        match self {
            Login::Nobody => {
                "Does it want a login? Give schema_registry.user and schema_registry.password, or schema_registry.token"
                    .into()
            }
            Login::User { .. } => {
                format!("Check schema_registry.user and schema_registry.password, and whether that user may {may}")
            }
            Login::Token(_) => format!("Check schema_registry.token, and whether who has it may {may}"),
            Login::Identity(identity) => format!(
                "Give the identity ({}; another by credential, tenant_id, client_id) a role on the namespace or the schema \
                 group with which it may {may}: 'Schema Registry Reader', or to write 'Schema Registry Contributor'",
                identity.describe()
            ),
        }
    }
}

/// An error, and what it came of.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
}
