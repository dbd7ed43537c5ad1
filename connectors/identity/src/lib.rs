//! Who asks for OAuth tokens, and where: an application with a secret or a federated token file, the managed identity
//! of a machine or a platform, or whoever is signed in to the Azure CLI.

pub mod connection_string;
mod token;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::connector::{OptionKind, OptionSpec, Options};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;

pub use token::{Bearer, FreshToken};

/// How long a token service may take for an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// The metadata service is on this machine: where nothing listens, nothing will.
const METADATA_CONNECT: Duration = Duration::from_secs(1);
/// What a token is taken to be good for when its answer does not say.
const UNSTATED_LIFETIME: Duration = Duration::from_secs(300);

const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";
const METADATA_SERVICE: &str = "http://169.254.169.254";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Someone who can be given a token.
#[derive(Clone)]
pub enum Identity {
    /// The OAuth flow of client credentials.
    Application { endpoint: String, client: String, proof: Proof },
    /// Azure's metadata service, on virtual machines and in pods.
    Machine { host: String, client: Option<String> },
    /// The token service of App Service, Functions and Container Apps.
    Platform { endpoint: String, header: String, client: Option<String> },
    /// Whoever is signed in to `az`.
    AzureCli { program: String, tenant: Option<String> },
    /// Nothing says who: the machine, and where no metadata service answers, the command line.
    MachineOrCli { host: String, program: String },
}

/// How an application proves that it is the one.
#[derive(Clone)]
pub enum Proof {
    Secret(String),
    /// A token of another issuer, such as Kubernetes. It is replaced now and then, so it is read for every request.
    TokenFile(PathBuf),
}

/// A bearer token.
#[derive(Clone)]
pub struct Token {
    pub value: String,
    pub expires: SystemTime,
}

/// The value is left out: it is a secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The answer was no. It stays no until a person changes something.
    #[error("{0}")]
    Refused(String),
    /// There was no answer: asking again may help.
    #[error("{0}")]
    Unanswered(String),
}

/// What a table may say about its identity, under `option`; else the environment says it under `variable`.
pub const SETTINGS: &[(&str, &str)] = &[
    ("tenant_id", "AZURE_TENANT_ID"),
    ("client_id", "AZURE_CLIENT_ID"),
    ("client_secret", "AZURE_CLIENT_SECRET"),
    ("federated_token_file", "AZURE_FEDERATED_TOKEN_FILE"),
    ("authority_host", "AZURE_AUTHORITY_HOST"),
    ("identity_endpoint", "IDENTITY_ENDPOINT"),
    ("identity_header", "IDENTITY_HEADER"),
    ("metadata_host", "AZURE_POD_IDENTITY_AUTHORITY_HOST"),
    ("azure_cli", "AZURE_CLI_PATH"),
];

/// What a table of an Azure service may say about who asks for its tokens.
pub fn options() -> Vec<OptionSpec> {
    const CREDENTIALS: &[&[&str]] = &[
        &["workload-identity", "workload_identity"],
        &["managed-identity", "managed_identity"],
        &["client-secret", "client_secret"],
        &["azure-cli", "azure_cli"],
    ];
    vec![
        OptionSpec::new(
            "credential",
            OptionKind::OneOf(CREDENTIALS),
            "workload-identity, managed-identity, client-secret or azure-cli; else what the environment has",
        ),
        OptionSpec::new("tenant_id", OptionKind::Text, "instead of AZURE_TENANT_ID"),
        OptionSpec::new("client_id", OptionKind::Text, "instead of AZURE_CLIENT_ID"),
        OptionSpec::new("client_secret", OptionKind::Secret, "instead of AZURE_CLIENT_SECRET"),
        OptionSpec::new("federated_token_file", OptionKind::Text, "instead of AZURE_FEDERATED_TOKEN_FILE"),
        OptionSpec::new("authority_host", OptionKind::Text, "instead of AZURE_AUTHORITY_HOST"),
    ]
}

impl Identity {
    /// Of a table with such [`options`]. `environment`: what else is asked, by the names of [`SETTINGS`].
    pub fn of(options: &Options, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let setting = |name: &str| {
            let variable = SETTINGS.iter().find(|(option, _)| *option == name).map(|(_, variable)| *variable);
            let given = options.get(name).map(String::from);
            given.or_else(|| environment(variable?)).filter(|value| !value.is_empty())
        };
        Identity::choose(options.get("credential"), &setting)
    }

    /// Chooses by what is set. `setting` answers for the first names of [`SETTINGS`].
    pub fn choose(credential: Option<&str>, setting: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let has = |name| setting(name).is_some();
        let kind = match credential {
            Some(kind) => kind,
            None if has("client_secret") => "client-secret",
            None if has("federated_token_file") => "workload-identity",
            None if has("identity_endpoint") => "managed-identity",
            None => "",
        };
        let client = setting("client_id");
        let host = setting("metadata_host").unwrap_or_else(|| METADATA_SERVICE.into());
        let program = setting("azure_cli").unwrap_or_else(|| "az".into());
        match kind {
            "client-secret" => {
                let proof = Proof::Secret(required(setting, "client_secret")?);
                Self::application(setting, proof)
            }
            "workload-identity" => {
                let proof = Proof::TokenFile(required(setting, "federated_token_file")?.into());
                Self::application(setting, proof)
            }
            "managed-identity" => Ok(match (setting("identity_endpoint"), setting("identity_header")) {
                (Some(endpoint), Some(header)) => Identity::Platform { endpoint, header, client },
                _ => Identity::Machine { host, client },
            }),
            "azure-cli" => Ok(Identity::AzureCli { program, tenant: setting("tenant_id") }),
            // A client id without a secret can only mean a managed identity.
            _ if client.is_some() => Ok(Identity::Machine { host, client }),
            _ => Ok(Identity::MachineOrCli { host, program }),
        }
    }

    fn application(setting: &dyn Fn(&str) -> Option<String>, proof: Proof) -> Result<Self, String> {
        let authority = setting("authority_host").unwrap_or_else(|| PUBLIC_CLOUD.into());
        let (tenant, client) = (required(setting, "tenant_id")?, required(setting, "client_id")?);
        let endpoint = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        Ok(Identity::Application { endpoint, client, proof })
    }

    /// For plans and errors: who asks. No secret.
    pub fn describe(&self) -> String {
        match self {
            Identity::Application { client, proof: Proof::Secret(_), .. } => {
                format!("application {client} with a client secret")
            }
            Identity::Application { client, proof: Proof::TokenFile(file), .. } => {
                format!("application {client} with the federated token in {}", file.display())
            }
            Identity::Machine { client: Some(client), .. } | Identity::Platform { client: Some(client), .. } => {
                format!("managed identity {client}")
            }
            Identity::Machine { .. } | Identity::Platform { .. } => "managed identity".into(),
            Identity::AzureCli { .. } => "the Azure CLI's account".into(),
            Identity::MachineOrCli { .. } => "managed identity or the Azure CLI's account".into(),
        }
    }

    fn remedy(&self) -> &'static str {
        match self {
            Identity::Application { proof: Proof::Secret(_), .. } => {
                "Check the client id, the tenant id and the client secret (AZURE_CLIENT_ID, AZURE_TENANT_ID, \
                 AZURE_CLIENT_SECRET), and whether the secret has expired"
            }
            Identity::Application { proof: Proof::TokenFile(_), .. } => {
                "Check that the application has a federated credential for this issuer and service account, and \
                 AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE"
            }
            Identity::Machine { .. } | Identity::Platform { .. } | Identity::MachineOrCli { .. } => {
                "Check that a managed identity is assigned here; if there are several, name one with client_id"
            }
            Identity::AzureCli { .. } => "Run 'az login'",
        }
    }

    /// Asks for a token for a scope such as `https://name.servicebus.windows.net/.default`.
    pub async fn ask(&self, http: &Http, scope: &str) -> Result<Token, TokenError> {
        let resource = scope.trim_end_matches("/.default");
        let answer = match self {
            Identity::Application { endpoint, client, proof } => {
                application_token(&http.through_proxy, endpoint, client, proof, scope).await
            }
            Identity::Machine { host, client } => machine_token(&http.direct, host, client.as_deref(), resource).await,
            Identity::Platform { endpoint, header, client } => {
                platform_token(&http.direct, endpoint, header, client.as_deref(), resource).await
            }
            Identity::AzureCli { program, tenant } => cli_token(program, tenant.as_deref(), scope).await,
            Identity::MachineOrCli { host, program } => match machine_token(&http.direct, host, None, resource).await {
                Err(TokenError::Unanswered(machine)) => {
                    let failed = |what: String| format!("{machine}; and {what}");
                    cli_token(program, None, scope).await.map_err(|e| match e {
                        TokenError::Refused(what) => TokenError::Refused(failed(what)),
                        TokenError::Unanswered(what) => TokenError::Unanswered(failed(what)),
                    })
                }
                answer => answer,
            },
        };
        answer.map_err(|error| match error {
            TokenError::Refused(what) => TokenError::Refused(format!("{what}. {}", self.remedy())),
            other => other,
        })
    }
}

fn required(setting: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<String, String> {
    let variable = SETTINGS.iter().find(|(option, _)| *option == name).map_or("", |(_, variable)| variable);
    setting(name).ok_or_else(|| format!("{name} is missing: give it here, or as {variable} in the environment"))
}

/// The clients that tokens are asked with.
pub struct Http {
    through_proxy: Client,
    /// Services of this machine are never behind a proxy.
    direct: Client,
}

impl Http {
    pub fn new() -> Result<Self, TokenError> {
        let failed = |e: reqwest::Error| TokenError::Refused(format!("no HTTP client can be made: {e}"));
        let through_proxy = Client::builder().timeout(ANSWER).build().map_err(failed)?;
        let direct = Client::builder().no_proxy().timeout(ANSWER).connect_timeout(METADATA_CONNECT).build();
        Ok(Http { through_proxy, direct: direct.map_err(failed)? })
    }
}

async fn application_token(
    http: &Client,
    endpoint: &str,
    client: &str,
    proof: &Proof,
    scope: &str,
) -> Result<Token, TokenError> {
    let mut form = vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", scope)];
    let secret = match proof {
        Proof::Secret(secret) => secret.clone(),
        Proof::TokenFile(file) => {
            let text = tokio::fs::read_to_string(file).await;
            let unreadable =
                |e| TokenError::Refused(format!("the federated token file {} cannot be read: {e}", file.display()));
            text.map_err(unreadable)?.trim().to_string()
        }
    };
    match proof {
        Proof::Secret(_) => form.push(("client_secret", &secret)),
        Proof::TokenFile(_) => form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &secret)]),
    }
    form.retain(|(_, value)| !value.is_empty());
    request(http.post(endpoint).form(&form), endpoint, &secret).await
}

async fn machine_token(http: &Client, host: &str, client: Option<&str>, resource: &str) -> Result<Token, TokenError> {
    let url = format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/'));
    let mut query = vec![("api-version", "2018-02-01"), ("resource", resource)];
    query.extend(client.map(|client| ("client_id", client)));
    request(http.get(&url).query(&query).header("Metadata", "true"), &url, "").await
}

async fn platform_token(
    http: &Client,
    endpoint: &str,
    header: &str,
    client: Option<&str>,
    resource: &str,
) -> Result<Token, TokenError> {
    let mut query = vec![("api-version", "2019-08-01"), ("resource", resource)];
    query.extend(client.map(|client| ("client_id", client)));
    request(http.get(endpoint).query(&query).header("X-IDENTITY-HEADER", header), endpoint, header).await
}

async fn cli_token(program: &str, tenant: Option<&str>, scope: &str) -> Result<Token, TokenError> {
    let mut command = tokio::process::Command::new(program);
    command.args(["account", "get-access-token", "--output", "json", "--scope", scope]).kill_on_drop(true);
    if let Some(tenant) = tenant {
        command.args(["--tenant", tenant]);
    }
    let output = match tokio::time::timeout(ANSWER, command.output()).await {
        Err(_) => return Err(TokenError::Unanswered(format!("'{program}' did not answer within {ANSWER:?}"))),
        Ok(Err(error)) => return Err(TokenError::Refused(format!("'{program}' cannot be run: {error}"))),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(TokenError::Refused(format!("'{program}' gave no token: {}", first_line(&said))));
    }
    let answer = serde_json::from_slice(&output.stdout).ok();
    token(answer.as_ref().unwrap_or(&Value::Null), "accessToken")
        .ok_or_else(|| TokenError::Refused(format!("'{program}' gave no token in its answer")))
}

/// `place` and `secret`: where it is asked, and what must not be seen in an error.
async fn request(request: RequestBuilder, place: &str, secret: &str) -> Result<Token, TokenError> {
    let unanswered = |e: reqwest::Error| {
        let cause = std::error::Error::source(&e).map(|c| format!(": {c}")).unwrap_or_default();
        TokenError::Unanswered(format!("{place} does not answer: {}{cause}", e.without_url()))
    };
    let response = request.send().await.map_err(unanswered)?;
    let status = response.status();
    let body = response.bytes().await.map_err(unanswered)?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        let none = || TokenError::Refused(format!("{place} answered without a token"));
        return token(&answer, "access_token").ok_or_else(none);
    }
    let said = ["error", "error_description"].map(|name| answer[name].as_str().map_or("", first_line));
    let said = without(said.join(": ").trim_matches([':', ' ']), secret);
    let what = format!("{place} answered {status}{}{said}", if said.is_empty() { "" } else { ", " });
    if status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status) {
        Err(TokenError::Unanswered(what))
    } else {
        Err(TokenError::Refused(what))
    }
}

/// Reads a token and its end: seconds from now or since 1970, as a number or as text, by whichever service.
fn token(answer: &Value, name: &str) -> Option<Token> {
    let value = answer[name].as_str()?.to_string();
    let seconds = |name: &str| {
        let number = answer[name].as_u64().or_else(|| answer[name].as_str().and_then(|s| s.parse().ok()));
        number.map(Duration::from_secs)
    };
    let expires = match (seconds("expires_in"), seconds("expires_on")) {
        (Some(lifetime), _) => SystemTime::now() + lifetime,
        (None, Some(at)) => UNIX_EPOCH + at,
        (None, None) => SystemTime::now() + UNSTATED_LIFETIME,
    };
    Some(Token { value, expires })
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default().trim()
}

fn without(text: &str, secret: &str) -> String {
    if secret.is_empty() { text.to_string() } else { text.replace(secret, "…") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(credential: Option<&str>, settings: &[(&str, &str)]) -> Result<String, String> {
        let setting = |name: &str| settings.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        Identity::choose(credential, &setting).map(|identity| identity.describe())
    }

    #[test]
    fn the_environment_says_who_asks() {
        let secret = [("tenant_id", "t"), ("client_id", "app"), ("client_secret", "s")];
        let workload = [("tenant_id", "t"), ("client_id", "app"), ("federated_token_file", "/var/token")];
        assert_eq!(choose(None, &secret).unwrap(), "application app with a client secret");
        assert_eq!(choose(None, &workload).unwrap(), "application app with the federated token in /var/token");
        assert_eq!(choose(None, &[("client_id", "mine")]).unwrap(), "managed identity mine");
        assert_eq!(choose(None, &[]).unwrap(), "managed identity or the Azure CLI's account");
        assert_eq!(choose(Some("azure-cli"), &secret).unwrap(), "the Azure CLI's account");
    }

    #[test]
    fn what_is_missing_is_named_with_its_variable() {
        let error = choose(Some("client-secret"), &[("client_secret", "topsecret")]).unwrap_err();
        assert_eq!(error, "tenant_id is missing: give it here, or as AZURE_TENANT_ID in the environment");
    }
}
