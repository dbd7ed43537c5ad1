//! The options of a Kafka table, and what they become.

use std::sync::Arc;
use std::time::Duration;

use engine::connector::{Connector, OptionKind, OptionSpec, Options, Origin, Problem, TableSpec};
use engine::source::Source;
use formats::{Format, JsonOptions, UnknownFields};
use rdkafka::error::KafkaError;

use crate::client::{configuration_error, consumer};
use crate::identity::{Identity, Proof};
use crate::source::KafkaSource;
use crate::token::Bearer;

/// `connector = 'kafka'`.
pub struct KafkaConnector;

/// Where a fresh job begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    /// What the group committed; where it committed nothing, the earliest.
    Committed,
    /// Milliseconds since 1970.
    Timestamp(i64),
}

/// A checked Kafka table.
#[derive(Clone)]
pub struct KafkaTable {
    pub name: String,
    pub topic: String,
    pub start: StartAt,
    pub bounded: bool,
    pub group: Option<String>,
    pub discovery: Duration,
    /// Bytes that librdkafka may hold ahead of the job, over all partitions.
    pub prefetch: u64,
    pub format: Format,
    pub json: JsonOptions,
    /// For librdkafka, unchanged. May hold secrets: never shown.
    pub properties: Vec<(String, String)>,
    /// Where OAuth tokens come from, if the login needs them.
    pub bearer: Option<Bearer>,
    pub login: Login,
}

/// How the table's client is let in: for what a person is told to check when it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Properties,
    ConnectionString,
    EntraId,
}

impl Login {
    /// Header values are AMQP-encoded, as Event Hubs delivers those of AMQP senders.
    pub fn is_event_hubs(self) -> bool {
        self != Login::Properties
    }

    /// What to do about a refusal.
    pub fn remedy(self, refusal: &str) -> &'static str {
        match self {
            _ if refusal.to_ascii_lowercase().contains("certificate") || refusal.contains("SSL") => {
                "Check properties.ssl.ca.location (the authority that signed the broker's certificate), that the \
                 address is a name in that certificate, and, if the broker asks for one, the client's certificate"
            }
            Login::Properties => {
                "Check properties.security.protocol, properties.sasl.mechanism, properties.sasl.username and \
                 properties.sasl.password"
            }
            Login::ConnectionString => {
                "Check connection_string: was its key renewed, and has its policy the right to listen?"
            }
            Login::EntraId => {
                "Give the identity the role 'Azure Event Hubs Data Receiver' on the namespace or the event hub"
            }
        }
    }
}

impl Connector for KafkaConnector {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn options(&self) -> Vec<OptionSpec> {
        let mut options = vec![
            OptionSpec::new("bootstrap_servers", OptionKind::Text, "host:port, several separated by commas")
                .aliases(&["properties.bootstrap.servers"])
                .required(),
        ];
        options.extend(common_options());
        options
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        let servers = table.options.get("bootstrap_servers").unwrap_or_default().to_string();
        let kafka = read_table(table, vec![("bootstrap.servers".into(), servers)], Login::Properties)?;
        Ok(Arc::new(KafkaSource::new(kafka)))
    }
}

/// What Kafka and Event Hubs tables have in common.
pub fn common_options() -> Vec<OptionSpec> {
    const START: &[&[&str]] = &[
        &["earliest", "earliest-offset"],
        &["latest", "latest-offset"],
        &["committed", "group", "group-offsets"],
        &["timestamp"],
    ];
    vec![
        OptionSpec::new("topic", OptionKind::Text, "the topic, or the event hub").required(),
        OptionSpec::new(
            "format",
            OptionKind::OneOf(&[&["json"], &["raw_string", "raw"], &["raw_bytes"]]),
            "json, raw_string or raw_bytes",
        ),
        OptionSpec::new("json.lenient", OptionKind::Boolean, "numbers may stand in quotes"),
        OptionSpec::new(
            "json.unknown",
            OptionKind::OneOf(&[&["warn"], &["ignore"], &["dead-letter"]]),
            "fields that no column takes: warn of them once (unless said), ignore them, or reject the record",
        ),
        OptionSpec::new("source.offset", OptionKind::OneOf(START), "where a fresh job begins")
            .aliases(&["scan.startup.mode"]),
        OptionSpec::new(
            "source.timestamp",
            OptionKind::Integer,
            "milliseconds since 1970, with source.offset = 'timestamp'",
        )
        .aliases(&["scan.startup.timestamp-millis"]),
        OptionSpec::new(
            "scan.bounded.mode",
            OptionKind::OneOf(&[&["unbounded"], &["latest-offset", "latest"]]),
            "latest-offset: end at the offsets found at start",
        ),
        OptionSpec::new("source.group_id", OptionKind::Text, "the consumer group whose lag tools can watch")
            .aliases(&["properties.group.id"]),
        OptionSpec::new("source.discovery", OptionKind::Duration, "how often to look for new partitions")
            .aliases(&["scan.topic-partition-discovery.interval"]),
        OptionSpec::new(
            "source.prefetch",
            OptionKind::Bytes,
            "memory for messages that wait to be decoded (256 MB): divided among the partitions there are at start, 64 kB \
             to 64 MB each; a partition may exceed its share by one fetch",
        ),
        OptionSpec::new("properties.*", OptionKind::Secret, "handed to librdkafka"),
    ]
}

/// Turns checked options into a table.
pub fn read_table(
    table: &TableSpec,
    mut properties: Vec<(String, String)>,
    login: Login,
) -> Result<KafkaTable, Vec<Problem>> {
    let options = &table.options;
    let mut problems = vec![];
    for (name, value) in options.with_prefix("properties.") {
        if ["auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof"]
            .contains(&name)
        {
            let message = format!("{name} is the engine's own: positions live in the job log, see source.offset");
            problems.push(Problem::option(format!("properties.{name}"), message));
        }
        properties.push((name.to_string(), value.to_string()));
    }
    let start = match options.get("source.offset") {
        Some("latest") => StartAt::Latest,
        Some("committed") => StartAt::Committed,
        Some("timestamp") => match options.integer("source.timestamp") {
            Some(millis) => StartAt::Timestamp(millis),
            None => {
                problems.push(Problem::option("source.offset", "'timestamp' needs source.timestamp"));
                StartAt::Earliest
            }
        },
        _ => StartAt::Earliest,
    };
    if start == StartAt::Committed && options.get("source.group_id").is_none() {
        problems.push(Problem::option("source.offset", "'committed' needs source.group_id"));
    }
    let bearer = oidc(&mut properties).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    let kafka = KafkaTable {
        name: table.name.clone(),
        topic: options.get("topic").unwrap_or_default().to_string(),
        start,
        bounded: options.get("scan.bounded.mode") == Some("latest-offset"),
        group: options.get("source.group_id").map(String::from),
        discovery: options.duration("source.discovery").unwrap_or(Duration::from_secs(30)),
        prefetch: options.bytes("source.prefetch").unwrap_or(256 << 20),
        format: format(options),
        json: JsonOptions { declared: declared(table), ..json(options) },
        properties,
        bearer,
        login,
    };
    match consumer(&kafka, 1).create_native_config() {
        Ok(_) => Ok(kafka),
        Err(error) => Err(vec![wrong_property(&error)]),
    }
}

fn wrong_property(error: &KafkaError) -> Problem {
    let message = configuration_error(error);
    match error {
        KafkaError::ClientConfig(_, _, name, _) => Problem::option(format!("properties.{name}"), message),
        _ => Problem::of(message),
    }
}

/// librdkafka would ask an OIDC provider through libcurl, which is not built in: the client credentials are taken
/// out, and the tokens come from here.
fn oidc(properties: &mut Vec<(String, String)>) -> Result<Option<Bearer>, Problem> {
    const METHOD: &str = "sasl.oauthbearer.method";
    if !properties.iter().any(|(name, value)| name == METHOD && value.eq_ignore_ascii_case("oidc")) {
        return Ok(None);
    }
    let mut take = |name: &str| {
        let at = properties.iter().rposition(|(n, _)| n == name)?;
        Some(properties.remove(at).1)
    };
    take(METHOD);
    let scope = take("sasl.oauthbearer.scope").unwrap_or_default();
    let mut needed = |name: &str| {
        let name = format!("sasl.oauthbearer.{name}");
        let missing = || Problem::option(format!("properties.{METHOD}"), format!("'oidc' needs properties.{name}"));
        take(&name).ok_or_else(missing)
    };
    let (endpoint, client) = (needed("token.endpoint.url")?, needed("client.id")?);
    let proof = Proof::Secret(needed("client.secret")?);
    Ok(Some(Bearer { identity: Identity::Application { endpoint, client, proof }, scope }))
}

fn format(options: &Options) -> Format {
    match options.get("format") {
        Some("raw_string") => Format::RawString,
        Some("raw_bytes") => Format::RawBytes,
        _ => Format::Json,
    }
}

/// The fields of a record that the table knows.
fn declared(table: &TableSpec) -> Vec<String> {
    let own = table.columns.iter().filter(|c| c.origin == Origin::Value);
    own.map(|c| c.field.name().clone()).collect()
}

fn json(options: &Options) -> JsonOptions {
    let unknown = match options.get("json.unknown") {
        Some("ignore") => UnknownFields::Ignore,
        Some("dead-letter") => UnknownFields::DeadLetter,
        _ => UnknownFields::Warn,
    };
    JsonOptions { lenient: options.flag("json.lenient"), unknown, ..JsonOptions::default() }
}
