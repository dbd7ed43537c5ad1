//! Azure Event Hubs' Kafka endpoint: `kafka` with every setting that the service needs.

use std::sync::Arc;

use engine::connector::{Connector, OptionKind, OptionSpec, Problem, TableSpec};
use engine::source::Source;

use crate::options::{common_options, read_table};
use crate::source::KafkaSource;

/// `connector = 'eventhubs'`.
pub struct EventHubsConnector;

impl Connector for EventHubsConnector {
    fn name(&self) -> &'static str {
        "eventhubs"
    }

    fn options(&self) -> Vec<OptionSpec> {
        let secret = OptionSpec::new(
            "connection_string",
            OptionKind::Secret,
            "of the namespace or the event hub: Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…",
        );
        let mut options = vec![
            secret.required(),
            OptionSpec::new(
                "endpoint",
                OptionKind::Text,
                "host:port instead of the connection string's, for a private endpoint",
            ),
        ];
        // A connection string of one event hub names it.
        options.extend(common_options().into_iter().map(|o| OptionSpec { required: false, ..o }));
        options
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        let text = table.options.get("connection_string").unwrap_or_default();
        let parsed = ConnectionString::parse(text).map_err(|what| vec![Problem::option("connection_string", what)])?;
        let endpoint = table.options.get("endpoint").map_or_else(|| format!("{}:9093", parsed.host), String::from);
        let mut table = table.clone();
        if table.options.get("topic").is_none() {
            let hub = parsed.hub.ok_or_else(|| {
                vec![Problem::option(
                    "topic",
                    "name the event hub here: the connection string is the whole namespace's",
                )]
            })?;
            table.options.0.insert("topic".into(), hub);
        }
        let kafka = read_table(&table, settings(&endpoint, text), true)?;
        Ok(Arc::new(KafkaSource::new(kafka)))
    }
}

/// What Microsoft recommends for librdkafka clients of Event Hubs, and TLS with the service's own kind of password.
fn settings(endpoint: &str, connection_string: &str) -> Vec<(String, String)> {
    [
        ("bootstrap.servers", endpoint),
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "$ConnectionString"),
        ("sasl.password", connection_string),
        ("socket.keepalive.enable", "true"),
        // Azure's load balancer drops connections that are idle for 240 s, without a word.
        ("metadata.max.age.ms", "180000"),
        ("connections.max.idle.ms", "180000"),
        ("socket.timeout.ms", "60000"),
        ("session.timeout.ms", "30000"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .to_vec()
}

/// The parts of a connection string that matter here.
struct ConnectionString {
    host: String,
    hub: Option<String>,
}

impl ConnectionString {
    /// Says what is missing and never what is there: the text holds a key.
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<(&str, &str)> = text.split(';').filter_map(|part| part.trim().split_once('=')).collect();
        let find = |name: &str| parts.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        let endpoint = find("Endpoint").ok_or("it has no Endpoint=sb://…/ part")?;
        let host = endpoint.trim_start_matches("sb://").trim_end_matches('/').to_string();
        for name in ["SharedAccessKeyName", "SharedAccessKey"] {
            find(name).ok_or_else(|| format!("it has no {name}=… part"))?;
        }
        Ok(ConnectionString { host, hub: find("EntityPath").map(String::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_read_as_the_portal_shows_it() {
        let text = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=r;SharedAccessKey=abc=;EntityPath=hub";
        let parsed = ConnectionString::parse(text).unwrap();
        assert_eq!((parsed.host.as_str(), parsed.hub.as_deref()), ("ns.servicebus.windows.net", Some("hub")));
    }

    #[test]
    fn a_broken_one_is_named_and_never_shown() {
        let error = ConnectionString::parse("Endpoint=sb://ns/;SharedAccessKey=topsecret").err().unwrap();
        assert_eq!(error, "it has no SharedAccessKeyName=… part");
    }
}
