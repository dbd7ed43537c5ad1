//! A broker dressed as an Event Hub: its login over TLS, its limits; and read from, with the rights of a receiver and
//! nothing more.

use kafka::create_topic;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::broker::administrator::{Of, Right, grant, limit_reading};
use crate::broker::{Broker, BrokerSettings, Listener};
use crate::certificates::Certificates;
use crate::feed::{Feed, Feeding};
use crate::millrace::{Job, PATIENCE};
use crate::table::shows_each_event_once;
use crate::wait::wait_for;

pub const USER: &str = "$ConnectionString";
pub const CONNECTION_STRING: &str =
    "Endpoint=sb://localhost/;SharedAccessKeyName=listen;SharedAccessKey=abc+topsecret=";
const GROUP: &str = "millrace-receiver";

pub fn event_hub(certificates: &Certificates) -> Broker {
    let login = format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{CONNECTION_STRING}\";"
    );
    let properties = [
        ("listener.name.eh.sasl.enabled.mechanisms", "PLAIN"),
        ("listener.name.eh.plain.sasl.jaas.config", login.as_str()),
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.location", "{folder}/broker.pem"),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.location", "{folder}/ca.crt"),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        // The plain listener is the administrator's.
        ("super.users", "User:ANONYMOUS"),
        ("allow.everyone.if.no.acl.found", "false"),
        ("connections.max.idle.ms", "10000"),
        ("message.max.bytes", "1048588"),
        // A quota that is kept soon; as it comes, it allows ten seconds' worth at once.
        ("quota.window.num", "3"),
    ];
    Broker::start(BrokerSettings {
        listeners: vec![Listener { name: "EH", protocol: "SASL_SSL", host: "localhost" }],
        properties: properties.map(|(name, value)| (name.to_string(), value.to_string())).into(),
        files: ["broker.pem", "ca.crt"].map(|name| (name.to_string(), certificates.content(name))).into(),
        ..BrokerSettings::default()
    })
}

/// The main job, connected as a receiver is.
fn job(broker: &Broker, certificates: &Certificates, topic: &str) -> Job {
    let connection = format!(
        "connection_string = '{CONNECTION_STRING}', endpoint = '{}', 'properties.ssl.ca.location' = '{}',
         'source.group_id' = '{GROUP}', 'properties.fetch.message.max.bytes' = '65536',",
        broker.listener("EH"),
        certificates.file("ca.crt")
    );
    let changes = [
        ("connector              = 'kafka',", "connector = 'eventhubs',"),
        ("bootstrap_servers      = '${KAFKA:-localhost:9092}',", connection.as_str()),
    ];
    Job::events_to_delta_with("", topic, &changes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_receiver_shows_every_event_once_and_how_long_it_was_told_to_wait() {
    let certificates = Certificates::new();
    let broker = event_hub(&certificates);
    let topic = broker.topic("throttled", 2).await;
    let administrator = broker.bootstrap_servers();
    for right in [Right::Read, Right::Describe] {
        grant(&administrator, USER, right, Of::Topic(&topic));
        grant(&administrator, USER, right, Of::Group(GROUP));
    }
    limit_reading(&administrator, "millrace", 256.0 * 1024.0);
    // A backlog of some megabytes that came before the job. An answer that alone is above the quota is withheld for ever, so
    // neither a batch nor what is asked for at once may be as large.
    let small_batches = [broker.properties(), vec![("batch.size".into(), "16384".into())]].concat();
    let feed = Feed::start(&topic, &small_batches, Feeding { rate: 2000.0, ..Feeding::slow(42) });
    wait_for("a backlog", PATIENCE, || (feed.sent() >= 3000).then_some(()));
    let sent = feed.finish();

    let job = job(&broker, &certificates, &topic);
    let mut run = job.start();
    let waited = || run.metric("source_throttle_seconds_total").filter(|seconds| *seconds > 0.0);
    wait_for("a pause that the broker asks for", PATIENCE, waited);
    assert_eq!(run.metric("source_in_trouble"), Some(0.0), "being told to wait is no trouble");
    shows_each_event_once(sent, &mut run, &job, 2).await;
    assert!(!run.said().contains("topsecret"), "{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_may_not_do_is_denied_and_what_it_may_not_read_is_named() {
    let certificates = Certificates::new();
    let broker = event_hub(&certificates);
    let topic = broker.topic("closed", 1).await;
    let receiver = [
        ("bootstrap.servers", broker.listener("EH")),
        ("security.protocol", "SASL_SSL".into()),
        ("sasl.mechanism", "PLAIN".into()),
        ("sasl.username", USER.into()),
        ("sasl.password", CONNECTION_STRING.into()),
        ("ssl.ca.location", certificates.file("ca.crt")),
    ];
    let receiver = receiver.map(|(name, value)| (name.to_string(), value));
    let made = create_topic(&receiver, "made-by-a-receiver", 1, &[]).await;
    assert!(
        matches!(made, Err(KafkaError::AdminOp(RDKafkaErrorCode::TopicAuthorizationFailed))),
        "an event hub is not made by its receivers: {made:?}"
    );

    let job = job(&broker, &certificates, &topic);
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("the right to read"), "{}", run.said());
    assert!(!run.said().contains("topsecret"), "{}", run.said());
}
