//! A topic, how a client is let in to it, and questions to its brokers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::metrics::SourceMetrics;
use identity::{Bearer, TokenError};
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use crate::client::{Client, Reports, Served, configuration_error};
use crate::rights::Right;

/// How long a question to the broker may take, tries and pauses included.
pub const ANSWER: Duration = Duration::from_secs(30);
/// How long the first try may take; each further one twice as long. A refused login ends the tries.
const FIRST_TRY: Duration = Duration::from_secs(1);
/// The pause after a try that failed at once.
const PAUSE: Duration = Duration::from_millis(200);

/// A table's topic, and what its clients need to reach it.
#[derive(Clone)]
pub struct Endpoint {
    /// The table's name.
    pub table: String,
    pub topic: String,
    /// For librdkafka, unchanged. May hold secrets: never shown.
    pub properties: Vec<(String, String)>,
    /// Where OAuth tokens come from, if the login needs them.
    pub bearer: Option<Bearer>,
    pub login: Login,
    pub purpose: Purpose,
}

/// How the table's client is let in: for what a person is told to check when it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Properties,
    ConnectionString,
    EntraId,
}

/// What the table's client does there: other rights are needed for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Read,
    Write,
}

impl Endpoint {
    /// For people: where something went wrong.
    pub fn place(&self) -> String {
        format!("table {}, topic {}", self.table, self.topic)
    }

    /// What a client of this topic will say, with the token that it is let in with.
    pub async fn reports(&self, metrics: Arc<SourceMetrics>) -> Result<Reports, TokenError> {
        let token = match &self.bearer {
            Some(bearer) => Some(bearer.token().await?),
            None => None,
        };
        let reports = Reports::of(&self.topic, token, metrics);
        Ok(if self.purpose == Purpose::Write { reports.of_written_table() } else { reports })
    }

    /// For people: what is wrong, what the client said about its brokers, and what to look at.
    pub fn explain(&self, error: &KafkaError, reports: &Reports) -> String {
        if let Some(refusal) = reports.refusal() {
            return format!("the broker does not let us in: {refusal}. {}", self.login.remedy(&refusal, self.purpose));
        }
        match reports.trouble() {
            Some(trouble) => format!(
                "{error}: {trouble}. Check the address, that the broker runs, and that security.protocol fits its listener"
            ),
            None => configuration_error(error),
        }
    }
}

impl Login {
    /// Header values are AMQP-encoded, as Event Hubs delivers those of AMQP senders.
    pub fn is_event_hubs(self) -> bool {
        self != Login::Properties
    }

    /// What to do about a refusal.
    pub fn remedy(self, refusal: &str, purpose: Purpose) -> &'static str {
        match (self, purpose) {
            _ if refusal.to_ascii_lowercase().contains("certificate") || refusal.contains("SSL") => {
                "Check properties.ssl.ca.location (the authority that signed the broker's certificate), that the \
                 address is a name in that certificate, and, if the broker asks for one, the client's certificate"
            }
            (Login::Properties, _) => {
                "Check properties.security.protocol, properties.sasl.mechanism, properties.sasl.username and \
                 properties.sasl.password"
            }
            (Login::ConnectionString, Purpose::Read) => {
                "Check connection_string: was its key renewed, and has its policy the right to listen?"
            }
            (Login::ConnectionString, Purpose::Write) => {
                "Check connection_string: was its key renewed, and has its policy the rights to send and to listen?"
            }
            (Login::EntraId, Purpose::Read) => self.grant(Right::Read),
            (Login::EntraId, Purpose::Write) => self.grant(Right::Both),
        }
    }

    /// How a right to a topic is given.
    pub fn grant(self, right: Right) -> &'static str {
        match (self, right) {
            (Login::Properties, Right::Read) => "Allow Read and Describe on the topic",
            (Login::Properties, Right::Write) => "Allow Write and Describe on the topic",
            (Login::Properties, Right::Both) => "Allow Write, Read and Describe on the topic",
            (Login::ConnectionString, Right::Read) => "Give the policy of connection_string the claim Listen",
            (Login::ConnectionString, Right::Write) => "Give the policy of connection_string the claim Send",
            (Login::ConnectionString, Right::Both) => {
                "Give the policy of connection_string the claims Send and Listen: what was sent is read back after a crash"
            }
            (Login::EntraId, Right::Read) => {
                "Give the identity the role 'Azure Event Hubs Data Receiver' on the namespace or the event hub"
            }
            (Login::EntraId, Right::Write) => {
                "Give the identity the role 'Azure Event Hubs Data Sender' on the namespace or the event hub"
            }
            (Login::EntraId, Right::Both) => {
                "Give the identity the roles 'Azure Event Hubs Data Sender' and 'Azure Event Hubs Data Receiver' on the \
                 namespace or the event hub: what was sent is read back after a crash"
            }
        }
    }
}

/// A client and what it says. The messages of a source come by partition queues.
#[derive(Clone)]
pub struct Connection {
    endpoint: Endpoint,
    pub served: Arc<Served>,
    pub reports: Reports,
}

impl Connection {
    pub fn new(endpoint: &Endpoint, reports: Reports, config: &ClientConfig) -> Result<Self, KafkaError> {
        let client: Client = config.create_with_context(reports.clone())?;
        let served = Served::start(client).map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
        Ok(Connection { endpoint: endpoint.clone(), served, reports })
    }

    /// Asks the broker, on a thread that may wait. `question` is given how long it may take, and is asked again while
    /// there is no answer: until one comes, the login is refused, or [`ANSWER`] is over.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Client, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, String> {
        let asking = self.clone();
        let ask = move || asking.insist(question).map_err(|e| asking.endpoint.explain(&e, &asking.reports));
        let answer = tokio::task::spawn_blocking(ask);
        answer.await.map_err(|e| e.to_string())?
    }

    /// The same, for whoever may wait itself.
    pub fn insist<T>(&self, question: impl Fn(&Client, Duration) -> Result<T, KafkaError>) -> Result<T, KafkaError> {
        insist(&self.reports, |within| question(self.served.client(), within))
    }

    /// The topic's partitions; none if there is no such topic.
    pub async fn partitions(&self) -> Result<Vec<i32>, String> {
        let topic = self.endpoint.topic.clone();
        self.ask(move |client, within| partitions(client, &topic, within)).await
    }
}

/// A topic's partitions; none if there is no such topic.
pub fn partitions(client: &Client, topic: &str, within: Duration) -> Result<Vec<i32>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), within)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    Ok(found.map_or(vec![], |t| t.partitions().iter().map(|p| p.id()).collect()))
}

/// A partition that was not answered for still has in it what was asked.
pub fn answered(list: TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
    list.elements().iter().try_for_each(|element| element.error())?;
    Ok(list)
}

/// What a question about one partition was answered with.
pub fn only_offset(list: &TopicPartitionList) -> Option<i64> {
    list.elements().first().and_then(|e| match e.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    })
}

/// Asks with growing patience.
fn insist<T>(reports: &Reports, question: impl Fn(Duration) -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let begun = Instant::now();
    let mut patience = FIRST_TRY;
    loop {
        let asked = Instant::now();
        match question(patience) {
            Ok(answer) => {
                reports.answered();
                return Ok(answer);
            }
            Err(error) => {
                let left = ANSWER.saturating_sub(begun.elapsed());
                if left.is_zero() || reports.refusal().is_some() || !may_heal(&error) {
                    return Err(error);
                }
                if asked.elapsed() < PAUSE {
                    std::thread::sleep(PAUSE);
                }
                patience = (patience * 2).min(left);
            }
        }
    }
}

/// Whether an error passes by itself.
pub fn may_heal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        error.rdkafka_error_code(),
        Some(
            BrokerTransportFailure
                | AllBrokersDown
                | OperationTimedOut
                | RequestTimedOut
                | MessageTimedOut
                | Resolve
                | Authentication
                | SSL
                | NetworkException
                // While the client's own view of the topic is being made.
                | UnknownPartition
                | BrokerNotAvailable
                | LeaderNotAvailable
                | UnstableOffsetCommit
                | NotLeaderForPartition
                | CoordinatorNotAvailable
                | CoordinatorLoadInProgress
                | NotCoordinator
                | WaitingForCoordinator
                | UnknownLeaderEpoch
                | FencedLeaderEpoch
        )
    )
}
