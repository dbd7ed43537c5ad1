//! A Cosmos DB account, and how one is let in to it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::time::OffsetDateTime;
use azure_data_cosmos::{AccountEndpoint, AccountReference};
use engine::connector::{OptionKind, OptionSpec, Options, Problem};
use identity::{Bearer, FreshToken, Identity, TokenError, connection_string};

/// The domain of an account that is given by its name alone.
const PUBLIC_CLOUD: &str = "documents.azure.com";
/// What tokens for any account's documents are asked for.
const SCOPE: &str = "https://cosmos.azure.com/.default";

/// Where the account is, and who asks.
#[derive(Clone)]
pub struct Account {
    pub endpoint: String,
    login: Login,
}

#[derive(Clone)]
enum Login {
    Key(String),
    Identity(Identity),
}

/// What a table says of its account.
pub fn options() -> Vec<OptionSpec> {
    let mut options = vec![
        OptionSpec::new(
            "connection_string",
            OptionKind::Secret,
            "of the account, with its key: AccountEndpoint=https://…;AccountKey=…",
        ),
        OptionSpec::new(
            "account",
            OptionKind::Text,
            "instead of a connection string: the account's name, or its address (https://…)",
        )
        .aliases(&["endpoint", "accountEndpoint"]),
        OptionSpec::new("key", OptionKind::Secret, "the account's key, with account; without, Entra ID")
            .aliases(&["accountKey"]),
    ];
    options.extend(identity::options());
    options
}

impl Account {
    pub fn of(options: &Options, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problem> {
        let (endpoint, key) = match (options.get("connection_string"), options.get("account")) {
            (Some(text), None) => {
                let (endpoint, key) = parse(text).map_err(|what| Problem::option("connection_string", what))?;
                (endpoint, Some(key))
            }
            (None, Some(account)) => (address(account), options.get("key").map(String::from)),
            (Some(_), Some(_)) => {
                return Err(Problem::option("account", "the connection string says it already; only one of the two"));
            }
            (None, None) => {
                return Err(Problem::of(
                    "an account is needed: either connection_string, or account with Entra ID or a key",
                ));
            }
        };
        // Not quoted: it may hold a key.
        if endpoint.contains([';', '@', '?']) {
            let what = "this is no address; is it a connection string? Then give it as connection_string";
            return Err(Problem::option("account", what));
        }
        if endpoint.parse::<AccountEndpoint>().is_err() {
            return Err(Problem::option("account", "neither an account's name nor an address"));
        }
        let login = match key {
            Some(key) => Login::Key(key),
            None => {
                Login::Identity(Identity::of(options, environment).map_err(|what| Problem::option("account", what))?)
            }
        };
        Ok(Account { endpoint, login })
    }

    /// For errors: what to look at when the account does not let us in.
    pub fn remedy(&self) -> &'static str {
        match self.login {
            Login::Key(_) => "Check the account's key: was it renewed, is it the read-only one, or are keys disabled?",
            Login::Identity(_) => {
                "Give the identity the role 'Cosmos DB Built-in Data Contributor' on the account, the database or the \
                 container (az cosmosdb sql role assignment create)"
            }
        }
    }

    /// Whether databases and containers can be made: the service allows it to keys alone.
    pub fn may_create(&self) -> bool {
        matches!(self.login, Login::Key(_))
    }

    /// For clients. Asks for the first token.
    pub async fn reference(&self) -> Result<AccountReference, TokenError> {
        let no_address = |e: azure_data_cosmos::CosmosError| TokenError::Refused(e.to_string());
        let endpoint: AccountEndpoint = self.endpoint.parse().map_err(no_address)?;
        Ok(match &self.login {
            Login::Key(key) => AccountReference::with_authentication_key(endpoint, Secret::from(key.clone())),
            Login::Identity(identity) => {
                let bearer = Bearer { identity: identity.clone(), scope: SCOPE.into() };
                let token = bearer.token().await?;
                AccountReference::with_credential(endpoint, Arc::new(Tokens(token)))
            }
        })
    }
}

/// Says what is missing and never what is there: the text holds a key.
fn parse(text: &str) -> Result<(String, String), String> {
    let mut parts = connection_string::parse(text)?;
    let mut find =
        |name: &str| parts.remove(&name.to_ascii_lowercase()).ok_or_else(|| format!("it has no {name}=… part"));
    Ok((find("AccountEndpoint")?, find("AccountKey")?))
}

fn address(account: &str) -> String {
    match account {
        whole if whole.contains("://") => whole.to_string(),
        host if host.contains('.') => format!("https://{host}/"),
        name => format!("https://{name}.{PUBLIC_CLOUD}/"),
    }
}

/// The SDK's way to ask for tokens: they are kept fresh elsewhere.
struct Tokens(FreshToken);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

#[async_trait]
impl TokenCredential for Tokens {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let token =
            self.0.current().map_err(|e| azure_core::Error::with_message(ErrorKind::Credential, e.to_string()))?;
        Ok(AccessToken::new(token.value, OffsetDateTime::from(token.expires)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(options: &[(&str, &str)]) -> Result<Account, String> {
        let options = Options(options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect());
        Account::of(&options, &|_| None).map_err(|problem| problem.message)
    }

    #[test]
    fn a_connection_string_is_read_as_the_portal_shows_it_and_never_shown() {
        let found =
            account(&[("connection_string", "AccountEndpoint=https://a.documents.azure.com:443/;AccountKey=k==;")]);
        let found = found.unwrap();
        assert_eq!(found.endpoint, "https://a.documents.azure.com:443/");
        assert!(matches!(&found.login, Login::Key(key) if key == "k=="));
        let broken = account(&[("connection_string", "AccountKey=topsecret;")]).err().unwrap();
        assert_eq!(broken, "it has no AccountEndpoint=… part");
    }

    #[test]
    fn an_account_s_name_is_enough_and_without_a_key_it_is_entered_with_entra_id() {
        let found = account(&[("account", "telemetry")]).unwrap();
        assert_eq!(found.endpoint, "https://telemetry.documents.azure.com/");
        assert!(!found.may_create());
        let of_china = account(&[("account", "t.documents.azure.cn"), ("key", "k")]).unwrap();
        assert_eq!(of_china.endpoint, "https://t.documents.azure.cn/");
        assert!(of_china.may_create());
        let misplaced = account(&[("account", "AccountEndpoint=https://a.documents.azure.com/;AccountKey=topsecret")]);
        let said = misplaced.err().unwrap();
        assert!(said.contains("give it as connection_string") && !said.contains("topsecret"), "{said}");
        assert!(account(&[]).err().unwrap().contains("either connection_string"));
    }
}
