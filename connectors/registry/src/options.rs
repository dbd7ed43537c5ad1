//! What a table says of its schema registry.

use std::net::IpAddr;
use std::time::Duration;

use engine::connector::{OptionKind, OptionSpec, Options, Problem};
use identity::Identity;
use url::{Host, Url};

use crate::Service;
use crate::confluent::Confluent;
use crate::connection::{Connection, Login};
use crate::eventhubs::EventHubs;

pub const URL: &str = "schema_registry.url";
pub const USER: &str = "schema_registry.user";
pub const PASSWORD: &str = "schema_registry.password";
pub const TOKEN: &str = "schema_registry.token";
pub const CA: &str = "schema_registry.ca";
pub const NAMESPACE: &str = "schema_registry.namespace";
pub const GROUP: &str = "schema_registry.group";
pub const SUBJECT: &str = "schema_registry.subject";

/// The domain of a namespace that is given by its name alone.
const PUBLIC_CLOUD: &str = "servicebus.windows.net";

/// What a table may say of its schema registry. Who asks Event Hubs' is said by [`identity::options`].
pub fn options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::new(URL, OptionKind::Text, "a schema registry that speaks Confluent's protocol: https://host:port")
            .aliases(&["schema_registry.endpoint", "avro-confluent.url", "schema.registry.url"]),
        OptionSpec::new(USER, OptionKind::Text, "with schema_registry.url: who asks; of Confluent Cloud, an API key")
            .aliases(&["schema_registry.api_key"]),
        OptionSpec::new(PASSWORD, OptionKind::Secret, "of the user; of Confluent Cloud, the API key's secret")
            .aliases(&["schema_registry.api_secret"]),
        OptionSpec::new(TOKEN, OptionKind::Secret, "instead of a user: a bearer token"),
        OptionSpec::new(CA, OptionKind::Text, "a file with the certificate of an authority of your own (PEM)"),
        OptionSpec::new(
            NAMESPACE,
            OptionKind::Text,
            "instead of schema_registry.url, with Entra ID: the Event Hubs namespace whose registry it is, its name or all of \
             its host name",
        ),
        OptionSpec::new(
            GROUP,
            OptionKind::Text,
            "with schema_registry.namespace: the group of a schema that is written",
        ),
        OptionSpec::new(SUBJECT, OptionKind::Text, "the subject of a schema that is written; in a group, its name")
            .aliases(&["avro-confluent.subject"]),
    ]
}

/// The registry that a table names, or all that is wrong with what it says. `answer`: how long it may take for one.
pub fn service(
    options: &Options,
    environment: &dyn Fn(&str) -> Option<String>,
    answer: Duration,
) -> Result<Option<Service>, Vec<Problem>> {
    let mut problems = vec![];
    let found = match (options.get(URL), options.get(NAMESPACE)) {
        (Some(url), None) => confluent(url, options, answer, &mut problems),
        (None, Some(namespace)) => event_hubs(namespace, options, environment, answer, &mut problems),
        (Some(_), Some(_)) => {
            problems.push(Problem::option(NAMESPACE, "schema_registry.url says it already; only one of the two"));
            None
        }
        (None, None) => {
            let what = "of which registry? Give schema_registry.url or schema_registry.namespace";
            problems.extend(given(options, &[USER, PASSWORD, TOKEN, CA, GROUP, SUBJECT], what));
            None
        }
    };
    // They are names of a path, in which these are none.
    for option in [GROUP, SUBJECT] {
        if options.get(option).is_some_and(|name| ["", ".", ".."].contains(&name)) {
            problems.push(Problem::option(option, "this is no name"));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn confluent(url: &str, options: &Options, answer: Duration, problems: &mut Vec<Problem>) -> Option<Service> {
    problems.extend(given(
        options,
        &[GROUP],
        "only an Event Hubs namespace has groups; with schema_registry.url, leave it out",
    ));
    let login = login(options).map_err(|problem| problems.push(problem)).ok();
    let base = address(url).map_err(|what| problems.push(Problem::option(URL, what))).ok();
    let (login, base) = (login?, base?);
    if let (Login::User { .. } | Login::Token(_), false) = (&login, is_safe(&base)) {
        let option = if matches!(login, Login::Token(_)) { TOKEN } else { PASSWORD };
        problems.push(Problem::option(
            option,
            "it would go over the network for all to read: the address must be https://",
        ));
    }
    Some(Service::Confluent(Confluent::new(Connection::new(base, login, ca(options), answer))))
}

fn event_hubs(
    namespace: &str,
    options: &Options,
    environment: &dyn Fn(&str) -> Option<String>,
    answer: Duration,
    problems: &mut Vec<Problem>,
) -> Option<Service> {
    let what =
        "the registry of an Event Hubs namespace is entered with Entra ID (credential, client_id, …); leave it out";
    problems.extend(given(options, &[USER, PASSWORD, TOKEN], what));
    let identity = Identity::of(options, environment).map_err(|what| problems.push(Problem::option(NAMESPACE, what)));
    let base = namespace_address(namespace).map_err(|what| problems.push(Problem::option(NAMESPACE, what)));
    let (identity, base) = (identity.ok()?, base.ok()?);
    let connection = Connection::new(base, Login::Identity(identity), ca(options), answer);
    Some(Service::EventHubs(EventHubs { connection, group: options.get(GROUP).map(String::from) }))
}

/// A problem for each of `names` that a table has.
fn given<'a>(options: &'a Options, names: &'a [&str], what: &'a str) -> impl Iterator<Item = Problem> + 'a {
    names.iter().filter(|name| options.get(name).is_some()).map(move |name| Problem::option(*name, what))
}

fn login(options: &Options) -> Result<Login, Problem> {
    match (options.get(USER), options.get(PASSWORD), options.get(TOKEN)) {
        (None, None, None) => Ok(Login::Nobody),
        (Some(user), Some(password), None) => Ok(Login::User { name: user.into(), password: password.into() }),
        (None, None, Some(token)) if !is_header(token) => {
            Err(Problem::option(TOKEN, "it has characters that no token has"))
        }
        (None, None, Some(token)) => Ok(Login::Token(token.into())),
        (Some(_), None, None) => Err(Problem::option(PASSWORD, "schema_registry.user needs a password")),
        (None, Some(_), None) => Err(Problem::option(USER, "whose password is it?")),
        (_, _, Some(_)) => Err(Problem::option(TOKEN, "either a token, or user and password")),
    }
}

fn ca(options: &Options) -> Option<String> {
    options.get(CA).filter(|file| !file.is_empty()).map(String::from)
}

/// Whether it can stand in a header.
fn is_header(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Errors do not quote it: it may hold a password.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    if text.contains('@') {
        return Err("an address holds no user and no password: give them as schema_registry.user and schema_registry.password, \
                    in which they are not shown"
            .into());
    }
    if text.contains(',') {
        return Err("one address only: that of a load balancer, if the registry has several".into());
    }
    let url =
        url.ok_or("this is no address: https://host:port, with the path that the registry's API has there, if any")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an address ends with its path: no '?' and no '#'".into());
    }
    Ok(url)
}

/// Of a namespace's name, of its host name, or of what stands in for it, such as a private endpoint.
fn namespace_address(namespace: &str) -> Result<Url, String> {
    let namespace = namespace.trim().trim_start_matches("sb://").trim_end_matches('/');
    // Not quoted: it may hold a key.
    if namespace.contains([';', '=', '@']) {
        return Err(
            "this is no namespace; is it a connection string? The registry is entered with Entra ID only".into()
        );
    }
    let url = match namespace {
        whole if whole.contains("://") => address(whole)?,
        host if host.contains('.') => address(&format!("https://{host}"))?,
        name => address(&format!("https://{name}.{PUBLIC_CLOUD}"))?,
    };
    if is_safe(&url) { Ok(url) } else { Err("a token would go over the network for all to read: not http://".into()) }
}

/// Whether secrets may go there.
fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || is_here(url)
}

/// Whether it is this machine.
pub fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    fn registry(given: &[(&str, &str)]) -> Result<Option<Registry>, Vec<(String, String)>> {
        let given = Options(given.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect());
        let told = |p: Problem| (p.option.unwrap_or_default(), p.message);
        Registry::of(&given, &|_| None).map_err(|problems| problems.into_iter().map(told).collect())
    }

    fn described(given: &[(&str, &str)]) -> String {
        registry(given).unwrap().unwrap().describe()
    }

    fn problem(given: &[(&str, &str)]) -> (String, String) {
        let mut problems = registry(given).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    #[test]
    fn a_table_that_names_no_registry_has_none() {
        assert!(registry(&[]).unwrap().is_none());
        assert!(registry(&[("namespace", "ns"), ("credential", "azure-cli")]).unwrap().is_none());
    }

    #[test]
    fn a_registry_is_described_without_secrets() {
        let confluent = [(URL, "https://registry:8081/apis/ccompat/v7/"), (USER, "key"), (PASSWORD, "topsecret")];
        assert_eq!(described(&confluent), "schema registry https://registry:8081/apis/ccompat/v7, as user key");
        let found = registry(&confluent).unwrap().unwrap();
        assert_eq!(format!("{found:?}"), "Registry(\"https://registry:8081/apis/ccompat/v7\")");
        assert_eq!(
            described(&[(URL, "http://registry:8081")]),
            "schema registry http://registry:8081, without a login"
        );
        assert_eq!(described(&[(URL, "https://r"), (TOKEN, "t")]), "schema registry https://r, with a token");
        let hub = [(NAMESPACE, "ns"), ("client_id", "mine")];
        assert_eq!(described(&hub), "schema registry https://ns.servicebus.windows.net, as managed identity mine");
        for whole in ["sb://ns.servicebus.chinacloudapi.cn/", "ns.servicebus.chinacloudapi.cn"] {
            let place = registry(&[(NAMESPACE, whole)]).unwrap().unwrap().place();
            assert_eq!(place, "schema registry https://ns.servicebus.chinacloudapi.cn");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_shown() {
        for url in ["https://me:topsecret@registry", "http://topsecret@127.0.0.1:8081", "me:topsecret@registry"] {
            let (option, what) = problem(&[(URL, url)]);
            assert_eq!(option, URL);
            assert!(what.contains("schema_registry.password") && !what.contains("topsecret"), "{what}");
        }
        let connection = "Endpoint=sb://ns/;SharedAccessKeyName=n;SharedAccessKey=topsecret=";
        let (option, what) = problem(&[(NAMESPACE, connection)]);
        assert!(option == NAMESPACE && what.contains("connection string") && !what.contains("topsecret"), "{what}");
    }

    #[test]
    fn secrets_go_over_the_network_encrypted_or_not_at_all() {
        let user = [(USER, "me"), (PASSWORD, "p")];
        let of = |url: &'static str| [&[(URL, url)], &user[..]].concat();
        assert_eq!(problem(&of("http://registry:8081")).0, PASSWORD);
        assert_eq!(problem(&[(URL, "http://registry:8081"), (TOKEN, "t")]).0, TOKEN);
        assert_eq!(problem(&[(NAMESPACE, "http://registry")]).0, NAMESPACE);
        for here in ["http://localhost:8081", "http://127.0.0.1:8081", "http://[::1]:8081", "https://registry"] {
            described(&of(here));
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = [(URL, "ftp://registry"), (USER, "me"), (GROUP, "g"), (SUBJECT, "..")];
        let options: Vec<_> = registry(&wrong).unwrap_err().into_iter().map(|(option, _)| option).collect();
        assert_eq!(options, [GROUP, PASSWORD, URL, SUBJECT]);
        let options: Vec<_> =
            registry(&[(PASSWORD, "p"), (SUBJECT, "s")]).unwrap_err().into_iter().map(|(option, _)| option).collect();
        assert_eq!(options, [PASSWORD, SUBJECT]);
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let of = |url: &'static str| (URL, url);
        assert_eq!(problem(&[of("https://r"), (NAMESPACE, "ns")]).0, NAMESPACE);
        assert_eq!(problem(&[(NAMESPACE, "ns"), (TOKEN, "t")]).0, TOKEN);
        assert_eq!(problem(&[of("https://r"), (TOKEN, "t"), (USER, "u"), (PASSWORD, "p")]).0, TOKEN);
        assert_eq!(problem(&[of("https://r"), (TOKEN, "two\nlines")]).0, TOKEN);
        assert_eq!(problem(&[of("https://r"), (PASSWORD, "p")]).0, USER);
        for url in ["", "registry:8081", "https://r?x=1", "https://r#x", "https://a,https://b"] {
            assert_eq!(problem(&[of(url)]).0, URL, "{url}");
        }
        let (option, what) = problem(&[(NAMESPACE, "ns"), ("credential", "client-secret")]);
        assert!(option == NAMESPACE && what.contains("AZURE_CLIENT_SECRET"), "{what}");
    }

    #[test]
    fn other_systems_names_are_understood() {
        let options = options();
        let aliases = |name: &str| options.iter().find(|o| o.name == name).unwrap().aliases;
        assert!(aliases(URL).contains(&"schema_registry.endpoint"));
        assert!(aliases(USER).contains(&"schema_registry.api_key"));
        assert!(aliases(PASSWORD).contains(&"schema_registry.api_secret"));
        let secrets: Vec<_> = options.iter().filter(|o| matches!(o.kind, OptionKind::Secret)).map(|o| o.name).collect();
        assert_eq!(secrets, [PASSWORD, TOKEN]);
    }
}
