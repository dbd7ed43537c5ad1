//! The options of a Kafka table, and what they become.

use std::sync::Arc;
use std::time::Duration;

use engine::connector::{ColumnSpec, Connector, OptionKind, OptionSpec, Origin, Problem, TableSpec};
use engine::shown::Shown;
use engine::sink::Sink;
use engine::source::Source;
use formats::Decoding;
use identity::{Bearer, Identity, Proof};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use schema_registry::Registry;

use crate::care::Care;
use crate::client::{configuration_error, consumer};
use crate::endpoint::{Endpoint, Login, Purpose};
use crate::format;
use crate::messages::{Joined, Layout, WRITTEN, Written};
use crate::sending::producer;
use crate::shown::KafkaShown;
use crate::sink::{Delivery, KafkaSink, WrittenTable};
use crate::source::KafkaSource;

/// `connector = 'kafka'`.
pub struct KafkaConnector;

/// Where an identity's settings are looked for.
pub fn of_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

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
    pub endpoint: Endpoint,
    pub start: StartAt,
    pub bounded: bool,
    pub group: Option<String>,
    pub discovery: Duration,
    /// Bytes that librdkafka may hold ahead of the job, over all partitions.
    pub prefetch: u64,
    /// Without what the registry gives: that is asked when the table is read.
    pub decoding: Decoding,
    pub registry: Option<Registry>,
}

impl KafkaTable {
    /// `partitions`: among so many the client divides what it may hold ahead of the job.
    pub fn consumer(&self, partitions: usize) -> ClientConfig {
        consumer(&self.endpoint, self.group.as_deref(), self.prefetch, partitions)
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
        options.extend(common_options(DELIVERIES));
        options
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        Ok(Arc::new(KafkaSource::new(read_table(table, Way::of(table), &of_environment)?)))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Ok(Arc::new(KafkaSink::new(written_table(table, Way::of(table), &of_environment)?)))
    }

    fn shown(&self, table: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        Ok(Arc::new(shown_table(table, Way::of(table), &of_environment)?))
    }

    fn written_metadata(&self) -> &'static [&'static str] {
        WRITTEN
    }
}

/// How a table is written: the words of `sink.delivery`. The first is what is done unless said otherwise.
const DELIVERIES: &[&[&str]] =
    &[&["transactions", "exactly-once", "exactly_once"], &["read-back"], &["at-least-once", "at_least_once"]];
/// The same for Event Hubs, whose transactions are a preview of some tiers.
pub const HUB_DELIVERIES: &[&[&str]] =
    &[&["read-back", "exactly-once", "exactly_once"], &["transactions"], &["at-least-once", "at_least_once"]];

/// What Kafka and Event Hubs tables have in common.
pub fn common_options(deliveries: &'static [&'static [&'static str]]) -> Vec<OptionSpec> {
    const START: &[&[&str]] = &[
        &["earliest", "earliest-offset"],
        &["latest", "latest-offset"],
        &["committed", "group", "group-offsets"],
        &["timestamp"],
    ];
    let mut options = vec![
        OptionSpec::new("topic", OptionKind::Text, "the topic, or the event hub").required(),
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
        OptionSpec::new(
            "sink.delivery",
            OptionKind::OneOf(deliveries),
            "transactions: once for readers at read_committed; read-back: once, without transactions, by looking at what \
             arrived after a crash; at-least-once: a crash may send rows again",
        )
        .aliases(&["sink.commit_mode", "sink.delivery-guarantee"]),
        OptionSpec::new("sink.key_field", OptionKind::Text, "a column that is also the message's key")
            .aliases(&["key.fields"]),
        OptionSpec::new("sink.timestamp_field", OptionKind::Text, "a column that is also the message's timestamp"),
        OptionSpec::new("properties.*", OptionKind::Secret, "handed to librdkafka"),
    ];
    options.splice(1..1, format::options());
    options
}

/// How a table's clients get to its brokers, before what the table says in `properties.*`.
pub struct Way {
    pub properties: Vec<(String, String)>,
    pub login: Login,
    pub bearer: Option<Bearer>,
}

impl Way {
    fn of(table: &TableSpec) -> Self {
        let servers = table.options.get("bootstrap_servers").unwrap_or_default().to_string();
        Way { properties: vec![("bootstrap.servers".into(), servers)], login: Login::Properties, bearer: None }
    }

    /// `own`: settings of librdkafka that are the engine's, and why.
    fn to(self, table: &TableSpec, purpose: Purpose, own: &[(&str, &str)]) -> Result<Endpoint, Vec<Problem>> {
        let mut properties = self.properties;
        let mut problems = vec![];
        for (name, value) in table.options.with_prefix("properties.") {
            if let Some((_, why)) = own.iter().find(|(setting, _)| *setting == name) {
                problems
                    .push(Problem::option(format!("properties.{name}"), format!("{name} is the engine's own: {why}")));
            }
            properties.push((name.to_string(), value.to_string()));
        }
        let bearer = oidc(&mut properties).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Endpoint {
            table: table.name.clone(),
            topic: table.options.get("topic").unwrap_or_default().to_string(),
            properties,
            bearer: bearer.or(self.bearer),
            login: self.login,
            purpose,
        })
    }
}

/// Turns the checked options of a table that is read into what they mean.
pub fn read_table(
    table: &TableSpec,
    way: Way,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<KafkaTable, Vec<Problem>> {
    const POSITIONS: &str = "positions live in the job log, see source.offset";
    const OWN: &[(&str, &str)] = &[
        ("auto.offset.reset", POSITIONS),
        ("enable.auto.commit", POSITIONS),
        ("enable.auto.offset.store", POSITIONS),
        ("enable.partition.eof", POSITIONS),
    ];
    let options = &table.options;
    let (endpoint, mut problems) = match way.to(table, Purpose::Read, OWN) {
        Ok(endpoint) => (Some(endpoint), vec![]),
        Err(problems) => (None, problems),
    };
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
    let decoding = format::read(table, environment).map_err(|more| problems.extend(more)).ok();
    let (endpoint, (decoding, registry)) = match (endpoint, decoding) {
        (Some(endpoint), Some(decoding)) if problems.is_empty() => (endpoint, decoding),
        _ => return Err(problems),
    };
    let kafka = KafkaTable {
        endpoint,
        start,
        bounded: options.get("scan.bounded.mode") == Some("latest-offset"),
        group: options.get("source.group_id").map(String::from),
        discovery: options.duration("source.discovery").unwrap_or(Duration::from_secs(30)),
        prefetch: options.bytes("source.prefetch").unwrap_or(256 << 20),
        decoding,
        registry,
    };
    match kafka.consumer(1).create_native_config() {
        Ok(_) => Ok(kafka),
        Err(error) => Err(vec![wrong_property(&error)]),
    }
}

/// Turns the checked options of a table that is written into what they mean.
pub fn written_table(
    table: &TableSpec,
    way: Way,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<WrittenTable, Vec<Problem>> {
    const DELIVERY: &str = "what is promised rests on it, see sink.delivery";
    const OWN: &[(&str, &str)] = &[
        ("enable.idempotence", DELIVERY),
        ("transactional.id", DELIVERY),
        ("delivery.report.only.error", DELIVERY),
        ("enable.gapless.guarantee", DELIVERY),
    ];
    let options = &table.options;
    let (key, time) = (options.get("sink.key_field"), options.get("sink.timestamp_field"));
    let writing = format::write(table, environment);
    // Columns are judged however they are written.
    let as_json = (&Written::Json(Joined::Lines), 1);
    let (written, together) = writing.as_ref().map_or(as_json, |writing| (&writing.written, writing.together));
    let layout = Layout::of(&table.columns, written, together, key, time);
    let (endpoint, layout, writing) = match (way.to(table, Purpose::Write, OWN), layout, writing) {
        (Ok(endpoint), Ok(layout), Ok(writing)) => (endpoint, layout, writing),
        (endpoint, layout, writing) => {
            let problems = [endpoint.err(), layout.err(), writing.err()];
            return Err(problems.into_iter().flatten().flatten().collect());
        }
    };
    let delivery = match (options.get("sink.delivery"), endpoint.login.is_event_hubs()) {
        (Some("at-least-once"), _) => Delivery::AtLeastOnce,
        (Some("read-back"), _) | (None, true) => Delivery::ReadBack,
        _ => Delivery::Transactions,
    };
    let config = producer(&endpoint, None, Care::default());
    config.create_native_config().map_err(|error| vec![wrong_property(&error)])?;
    fit_together(config, delivery).map_err(|error| vec![wrong_property(&error)])?;
    let (format, registered) = (format::format(options), writing.registered);
    Ok(WrittenTable { endpoint, layout, format, registered, delivery })
}

/// Only a client knows which properties do not go together. This one knows no brokers and no login, so that nobody is asked.
fn fit_together(mut config: ClientConfig, delivery: Delivery) -> Result<(), KafkaError> {
    let outside = |name: &&str| {
        matches!(*name, "bootstrap.servers" | "metadata.broker.list" | "security.protocol")
            || ["sasl.", "ssl.", "enable.sasl", "enable.ssl"].iter().any(|of| name.starts_with(of))
    };
    let outside: Vec<String> = config.config_map().keys().copied().filter(outside).map(String::from).collect();
    outside.iter().for_each(|name| _ = config.remove(name));
    config.set("log_level", "0");
    if delivery == Delivery::Transactions {
        config.set("transactional.id", "millrace");
    }
    config.create::<BaseProducer>().map(drop)
}

/// A table that is written, as it is read back.
pub fn shown_table(
    table: &TableSpec,
    way: Way,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<KafkaShown, Vec<Problem>> {
    let (decoding, registry) = format::read_back(table, environment)?;
    let sets_time = |column: &ColumnSpec| column.origin == Origin::Metadata("timestamp".into());
    let timed = table.options.get("sink.timestamp_field").is_none() && !table.columns.iter().any(sets_time);
    let columns = table.columns.iter().filter(|column| column.origin == Origin::Value);
    let columns = columns.map(|column| column.field.clone()).collect();
    // What producers are told, consumers do not know.
    let mut endpoint = way.to(table, Purpose::Write, &[])?;
    endpoint.purpose = Purpose::Read;
    Ok(KafkaShown { endpoint, columns, decoding, registry, timed })
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
