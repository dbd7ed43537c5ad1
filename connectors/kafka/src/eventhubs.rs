//! Azure Event Hubs' Kafka endpoint: `kafka` with every setting that the service needs.

use std::sync::Arc;

use engine::connector::{Connector, OptionKind, OptionSpec, Options, Problem, TableSpec};
use engine::shown::Shown;
use engine::sink::Sink;
use engine::source::Source;
use identity::{Bearer, Identity, connection_string};

use crate::endpoint::Login;
use crate::messages::WRITTEN;
use crate::options::{
    HUB_DELIVERIES, KafkaTable, Way, common_options, of_environment, read_table, shown_table, written_table,
};
use crate::sink::KafkaSink;
use crate::source::KafkaSource;

/// `connector = 'eventhubs'`.
pub struct EventHubsConnector;

/// The domain of a namespace that is given by its name alone.
const PUBLIC_CLOUD: &str = "servicebus.windows.net";
/// What the service allows a consumer group's name to have.
const GROUP_CHARACTERS: usize = 256;

impl Connector for EventHubsConnector {
    fn name(&self) -> &'static str {
        "eventhubs"
    }

    fn options(&self) -> Vec<OptionSpec> {
        let mut options = vec![
            OptionSpec::new(
                "connection_string",
                OptionKind::Secret,
                "of the namespace or the event hub: Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…",
            ),
            OptionSpec::new(
                "namespace",
                OptionKind::Text,
                "instead of a connection string, with Entra ID: the namespace's name, or all of its host name",
            ),
            OptionSpec::new(
                "endpoint",
                OptionKind::Text,
                "host:port instead of the namespace's own, for a private endpoint",
            ),
        ];
        options.extend(identity::options());
        // A connection string of one event hub names it.
        options.extend(common_options(HUB_DELIVERIES).into_iter().map(|o| OptionSpec { required: false, ..o }));
        options
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        Ok(Arc::new(KafkaSource::new(event_hub(table, &of_environment)?)))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        let (table, way) = way(table, &of_environment)?;
        Ok(Arc::new(KafkaSink::new(written_table(&table, way, &of_environment)?)))
    }

    fn shown(&self, table: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        let (table, way) = way(table, &of_environment)?;
        Ok(Arc::new(shown_table(&table, way, &of_environment)?))
    }

    fn written_metadata(&self) -> &'static [&'static str] {
        WRITTEN
    }
}

/// Turns checked options into a table. `environment`: where the identity's settings are looked for.
fn event_hub(table: &TableSpec, environment: &dyn Fn(&str) -> Option<String>) -> Result<KafkaTable, Vec<Problem>> {
    let (table, way) = way(table, environment)?;
    if table.options.get("source.group_id").is_some_and(|group| group.chars().count() > GROUP_CHARACTERS) {
        let what = format!("Event Hubs allows at most {GROUP_CHARACTERS} characters");
        return Err(vec![Problem::option("source.group_id", what)]);
    }
    read_table(&table, way, environment)
}

/// The table with its topic, and the way to it.
fn way(table: &TableSpec, environment: &dyn Fn(&str) -> Option<String>) -> Result<(TableSpec, Way), Vec<Problem>> {
    let options = &table.options;
    let hub = match (options.get("connection_string"), options.get("namespace")) {
        (Some(text), None) => with_connection_string(text).map_err(|what| Problem::option("connection_string", what)),
        (None, Some(namespace)) => with_entra_id(namespace, options, environment),
        (Some(_), Some(_)) => {
            Err(Problem::option("namespace", "the connection string says it already; only one of the two"))
        }
        (None, None) => Err(Problem::of("an event hub needs either connection_string, or namespace with Entra ID")),
    };
    let hub = hub.map_err(|problem| vec![problem])?;
    let endpoint = options.get("endpoint").map_or_else(|| format!("{}:9093", hub.host), String::from);
    let mut table = table.clone();
    if options.get("topic").is_none() {
        let topic = hub.topic.ok_or_else(|| {
            vec![Problem::option("topic", "name the event hub here: what was given is the whole namespace's")]
        })?;
        table.options.0.insert("topic".into(), topic);
    }
    let mut properties = settings(&endpoint);
    properties.extend(hub.login_properties);
    Ok((table, Way { properties, login: hub.login, bearer: hub.bearer }))
}

/// Where an event hub is, and how one is let in.
struct EventHub {
    host: String,
    topic: Option<String>,
    login: Login,
    login_properties: Vec<(String, String)>,
    bearer: Option<Bearer>,
}

/// The service's own kind of password: the whole connection string.
fn with_connection_string(text: &str) -> Result<EventHub, String> {
    let parsed = ConnectionString::parse(text)?;
    let login_properties =
        [("sasl.mechanism", "PLAIN"), ("sasl.username", "$ConnectionString"), ("sasl.password", text)];
    Ok(EventHub {
        host: parsed.host,
        topic: parsed.hub,
        login: Login::ConnectionString,
        login_properties: owned(&login_properties),
        bearer: None,
    })
}

fn with_entra_id(
    namespace: &str,
    options: &Options,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<EventHub, Problem> {
    let host = namespace.trim_start_matches("sb://").trim_end_matches('/');
    let host = if host.contains('.') { host.to_string() } else { format!("{host}.{PUBLIC_CLOUD}") };
    let identity = Identity::of(options, environment);
    let identity = identity.map_err(|what| Problem::option("namespace", what))?;
    Ok(EventHub {
        topic: None,
        login: Login::EntraId,
        login_properties: owned(&[("sasl.mechanism", "OAUTHBEARER")]),
        bearer: Some(Bearer { identity, scope: format!("https://{host}/.default") }),
        host,
    })
}

/// What Microsoft recommends for librdkafka clients of Event Hubs.
fn settings(endpoint: &str) -> Vec<(String, String)> {
    owned(&[
        ("bootstrap.servers", endpoint),
        ("security.protocol", "SASL_SSL"),
        ("socket.keepalive.enable", "true"),
        // Azure's load balancer drops connections that are idle for 240 s, without a word.
        ("metadata.max.age.ms", "180000"),
        ("connections.max.idle.ms", "180000"),
        ("socket.timeout.ms", "60000"),
        ("session.timeout.ms", "30000"),
        ("heartbeat.interval.ms", "3000"),
        ("max.poll.interval.ms", "300000"),
    ])
}

fn owned(properties: &[(&str, &str)]) -> Vec<(String, String)> {
    properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// The parts of a connection string that matter here.
struct ConnectionString {
    host: String,
    hub: Option<String>,
}

impl ConnectionString {
    /// Says what is missing and never what is there: the text holds a key.
    fn parse(text: &str) -> Result<Self, String> {
        let parts = connection_string::parse(text)?;
        let find = |name: &str| parts.get(&name.to_ascii_lowercase());
        let endpoint = find("Endpoint").ok_or("it has no Endpoint=sb://…/ part")?;
        let host = endpoint.trim_start_matches("sb://").trim_end_matches('/').to_string();
        for name in ["SharedAccessKeyName", "SharedAccessKey"] {
            find(name).ok_or_else(|| format!("it has no {name}=… part"))?;
        }
        Ok(ConnectionString { host, hub: find("EntityPath").cloned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: &str = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=r;SharedAccessKey=abc=";

    fn event_hub_of(options: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<KafkaTable, String> {
        let options = options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let table = TableSpec {
            name: "events".into(),
            columns: vec![],
            primary_key: vec![],
            partition_by: vec![],
            options: Options(options),
        };
        let variable = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        event_hub(&table, &variable).map_err(|problems| problems[0].message.clone())
    }

    fn property<'a>(table: &'a KafkaTable, name: &str) -> &'a str {
        table.endpoint.properties.iter().rfind(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn a_connection_string_is_read_as_the_portal_shows_it() {
        let of_hub = format!("{CONNECTION};EntityPath=hub");
        let table = event_hub_of(&[("connection_string", &of_hub)], &[]).unwrap();
        assert_eq!(table.endpoint.topic, "hub");
        assert_eq!(property(&table, "bootstrap.servers"), "ns.servicebus.windows.net:9093");
        assert_eq!(property(&table, "sasl.password"), of_hub);
        assert_eq!(
            event_hub_of(&[("connection_string", CONNECTION)], &[]).err().unwrap(),
            "name the event hub here: what was given is the whole namespace's"
        );
    }

    #[test]
    fn a_broken_one_is_named_and_never_shown() {
        let broken = "Endpoint=sb://ns/;SharedAccessKey=topsecret";
        assert_eq!(
            event_hub_of(&[("connection_string", broken)], &[]).err().unwrap(),
            "it has no SharedAccessKeyName=… part"
        );
    }

    #[test]
    fn a_namespace_is_entered_with_the_identity_that_the_environment_has() {
        let workload =
            [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")];
        let table = event_hub_of(&[("namespace", "ns"), ("topic", "hub")], &workload).unwrap();
        assert_eq!(property(&table, "bootstrap.servers"), "ns.servicebus.windows.net:9093");
        assert_eq!(property(&table, "sasl.mechanism"), "OAUTHBEARER");
        let bearer = table.endpoint.bearer.unwrap();
        assert_eq!(bearer.scope, "https://ns.servicebus.windows.net/.default");
        assert_eq!(bearer.identity.describe(), "application c with the federated token in /var/run/token");

        let china = [("namespace", "ns.servicebus.chinacloudapi.cn"), ("topic", "hub"), ("credential", "azure-cli")];
        let bearer = event_hub_of(&china, &workload).unwrap().endpoint.bearer.unwrap();
        assert_eq!(bearer.scope, "https://ns.servicebus.chinacloudapi.cn/.default");
        assert_eq!(bearer.identity.describe(), "the Azure CLI's account");
    }

    #[test]
    fn one_way_in_is_chosen() {
        let both = [("namespace", "ns"), ("connection_string", CONNECTION), ("topic", "hub")];
        assert!(event_hub_of(&both, &[]).err().unwrap().contains("only one of the two"));
        assert!(event_hub_of(&[("topic", "hub")], &[]).err().unwrap().contains("either connection_string"));
    }
}
