//! What a table may say of its registry.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::connector::{OptionKind, OptionSpec, Options, Problem};
use identity::{Bearer, Identity};
use reqwest::{Certificate, Client};
use url::{Host, Url};

use crate::confluent::{Confluent, Login};
use crate::event_hubs::EventHubs;
use crate::{Kind, Registry};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The domain of a namespace that is given by its name alone.
const PUBLIC_CLOUD: &str = "servicebus.windows.net";
/// Whom the tokens of any namespace's registry are for.
const SCOPE: &str = "https://eventhubs.azure.net/.default";

/// Of a registry of Confluent's kind.
pub fn options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::new(
            "schema_registry.url",
            OptionKind::Text,
            "of a registry as Confluent's: http://… or https://…, its path too",
        )
        .aliases(&["schema_registry.endpoint"]),
        OptionSpec::new("schema_registry.user", OptionKind::Text, "the user, or the API key")
            .aliases(&["schema_registry.api_key"]),
        OptionSpec::new("schema_registry.password", OptionKind::Secret, "the password, or the API secret")
            .aliases(&["schema_registry.api_secret"]),
        OptionSpec::new("schema_registry.token", OptionKind::Secret, "a bearer token instead"),
        OptionSpec::new("schema_registry.ca", OptionKind::Text, "a file with certificates (PEM) that are trusted, too"),
        OptionSpec::new(
            "schema_registry.subject",
            OptionKind::Text,
            "to write: the subject (<topic>-value), or the schema's name in the group (the event hub's)",
        ),
    ]
}

/// Of Event Hubs' registry, besides those of an identity.
pub fn event_hubs_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::new(
            "schema_registry.namespace",
            OptionKind::Text,
            "of Event Hubs' registry, entered with Entra ID: the namespace's name, or all of its host name",
        ),
        OptionSpec::new("schema_registry.group", OptionKind::Text, "to write: the schema group in the namespace"),
    ]
}

impl Registry {
    /// Of a table with such options; `None` if it names no registry. `environment`: where an identity's settings are looked
    /// for.
    pub fn of(
        options: &Options,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Registry>, Vec<Problem>> {
        let mut problems = vec![];
        let kind = match (options.get("schema_registry.url"), options.get("schema_registry.namespace")) {
            (None, None) => {
                let mut stray = options.with_prefix("schema_registry.").map(|(name, _)| name);
                return match stray.next() {
                    None => Ok(None),
                    Some(name) => {
                        let what =
                            "no registry is named: schema_registry.url, or schema_registry.namespace of Event Hubs";
                        Err(vec![Problem::option(format!("schema_registry.{name}"), what)])
                    }
                };
            }
            (Some(_), Some(_)) => {
                let what = "schema_registry.url names a registry already; only one of the two";
                return Err(vec![Problem::option("schema_registry.namespace", what)]);
            }
            (Some(url), None) => confluent(url, options, &mut problems).map(Kind::Confluent),
            (None, Some(namespace)) => event_hubs(namespace, options, environment, &mut problems).map(Kind::EventHubs),
        };
        match kind {
            Some(kind) if problems.is_empty() => Ok(Some(Registry(Arc::new(kind)))),
            _ => Err(problems),
        }
    }
}

fn confluent(url: &str, options: &Options, problems: &mut Vec<Problem>) -> Option<Confluent> {
    let mut refuse = |name: &str, what: &str| problems.push(Problem::option(name, what));
    let login = match (
        options.get("schema_registry.user"),
        options.get("schema_registry.password"),
        options.get("schema_registry.token"),
    ) {
        (None, None, None) => Login::None,
        (Some(user), Some(password), None) => Login::Password { user: user.into(), password: password.into() },
        (None, None, Some(token)) => Login::Token(token.into()),
        (_, _, Some(_)) => {
            refuse("schema_registry.token", "a user and a password are given already; only one of the two");
            Login::None
        }
        _ => {
            refuse("schema_registry.user", "schema_registry.user and schema_registry.password belong together");
            Login::None
        }
    };
    let url = match address(url) {
        Ok(url) => Some(url),
        Err(what) => {
            refuse("schema_registry.url", what);
            None
        }
    };
    if let Some(url) = &url
        && url.scheme() == "http"
        && !matches!(login, Login::None)
        && !is_this_machine(url)
    {
        refuse("schema_registry.url", "a password or a token is not sent over http: use https");
    }
    let client = client(options, problems)?;
    Some(Confluent { url: url?, login, client })
}

/// Secrets have options of their own, which are never shown.
fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_| "it is no URL: http://… or https://…")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("only http://… and https://… are known");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user or password here: use schema_registry.user and schema_registry.password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it ends with the registry's path; nothing may stand behind it");
    }
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn event_hubs(
    namespace: &str,
    options: &Options,
    environment: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<EventHubs> {
    for name in ["schema_registry.user", "schema_registry.password", "schema_registry.token"] {
        if options.get(name).is_some() {
            problems.push(Problem::option(name, "Event Hubs' registry is entered with Entra ID; see credential"));
        }
    }
    let host = namespace.trim_start_matches("sb://").trim_end_matches('/');
    let host =
        if host.contains('.') || host.contains(':') { host.to_string() } else { format!("{host}.{PUBLIC_CLOUD}") };
    // One on this machine is somebody's test.
    let test = Url::parse(&format!("http://{host}")).ok().filter(is_this_machine);
    let url = test.map_or_else(|| Url::parse(&format!("https://{host}")), Ok);
    let url = url.map_err(|_| problems.push(Problem::option("schema_registry.namespace", "it is no host's name")));
    let identity = Identity::of(options, environment);
    let identity = identity.map_err(|what| problems.push(Problem::option("schema_registry.namespace", what)));
    let client = client(options, problems)?;
    let group = options.get("schema_registry.group").map(String::from);
    let bearer = Bearer { identity: identity.ok()?, scope: SCOPE.into() };
    Some(EventHubs::new(url.ok()?, group, bearer, client))
}

fn client(options: &Options, problems: &mut Vec<Problem>) -> Option<Client> {
    let mut refuse = |what: String| problems.push(Problem::option("schema_registry.ca", what));
    let mut builder = Client::builder().timeout(ANSWER).redirect(reqwest::redirect::Policy::none());
    if let Some(file) = options.get("schema_registry.ca") {
        let certificates = std::fs::read(file).map_err(|e| format!("the file {file} cannot be read: {e}"));
        let certificates = certificates.and_then(|pem| {
            Certificate::from_pem_bundle(&pem).map_err(|e| format!("the file {file} holds no certificates: {e}"))
        });
        match certificates {
            Ok(certificates) => {
                builder = certificates.into_iter().fold(builder, |builder, one| builder.add_root_certificate(one));
            }
            Err(what) => {
                refuse(what);
                return None;
            }
        }
    }
    builder.build().map_err(|e| refuse(format!("no HTTP client can be made: {e}"))).ok()
}
