//! Why rows cannot be shown in a topic, and what a person can do about it.

use std::time::Duration;

use arrow::error::ArrowError;
use engine::sink::SinkError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::care::is_refusal;
use crate::client::Reports;
use crate::endpoint::{Endpoint, Login};
use crate::rights::Right;

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("a row cannot be encoded: {0}")]
    Encoding(#[from] ArrowError),
    #[error(
        "the brokers did not let transactions begin within {0:?}. Are enough of them there for their log of transactions \
         (transaction.state.log.replication.factor, transaction.state.log.min.isr)? Without: 'sink.delivery' = 'read-back'"
    )]
    NotBegun(Duration),
    #[error(
        "the brokers did not take the number of the entry within {0:?}: whoever coordinates consumer groups may have been lost"
    )]
    NoMarker(Duration),
    /// Brokers end a transaction that takes longer, and it begins anew, for ever.
    #[error(
        "{rows} rows were not sent within the {may_last:?} that a transaction may last: raise          properties.transaction.timeout.ms (and the brokers' transaction.max.timeout.ms), or make entries smaller by a          shorter checkpoint interval"
    )]
    TooLong { rows: u64, may_last: Duration },
    /// A transaction is open, and may be for ever: Kafka 4.4 forgets to end one if all copies of a partition are away when it
    /// should (`TransactionMarkerChannelManager` takes a partition without a leader for one that was deleted).
    #[error(
        "an open transaction hides what lies in partition {partition} from offset {offset} on, from this job as from all \
         readers at read_committed. It is waited for; if it stays, look for it with 'kafka-transactions.sh find-hanging', and \
         end it with 'abort'"
    )]
    Hidden { partition: i32, offset: i64 },
    /// Brokers let the job in, and not do this.
    #[error("it may not {}", .0.word())]
    MayNot(Right),
    /// Nobody can tell any more which rows have arrived; says what a person should do.
    #[error("{0}")]
    Unknown(String),
}

impl Trouble {
    /// What brokers refused a message for, or one that was sent with it.
    pub fn refusal(&self) -> Option<&KafkaError> {
        match self {
            Trouble::Kafka(error) => Some(error).filter(|error| is_refusal(error)),
            _ => None,
        }
    }

    /// While a job starts, what brokers refuse ends it.
    pub fn at_start(self, endpoint: &Endpoint, reports: &Reports) -> SinkError {
        match &self {
            Trouble::Kafka(error) if remedy(error, endpoint.login).is_some() || reports.refusal().is_some() => {
                SinkError::failed(endpoint.place(), self.say(endpoint, reports))
            }
            // Settings that do not go together are none that anybody waits for.
            Trouble::MayNot(_) | Trouble::Kafka(KafkaError::ClientCreation(_) | KafkaError::ClientConfig(..)) => {
                SinkError::failed(endpoint.place(), self.say(endpoint, reports))
            }
            _ => self.at_work(endpoint, reports),
        }
    }

    /// While it runs, it waits: rights that were taken away can be given back.
    pub fn at_work(self, endpoint: &Endpoint, reports: &Reports) -> SinkError {
        let what = self.say(endpoint, reports);
        match self {
            Trouble::Kafka(_)
            | Trouble::NotBegun(_)
            | Trouble::NoMarker(_)
            | Trouble::TooLong { .. }
            | Trouble::Hidden { .. }
            | Trouble::MayNot(_) => SinkError::retry(endpoint.place(), what),
            Trouble::Encoding(_) | Trouble::Unknown(_) => SinkError::failed(endpoint.place(), what),
        }
    }

    /// The same, while rows are shown. `first`: none were yet. A right that was missing all the time is told like one that
    /// is missed at start: brokers that do not say what one may do only refuse what is sent.
    pub fn at_showing(self, first: bool, endpoint: &Endpoint, reports: &Reports) -> SinkError {
        match &self {
            Trouble::Kafka(error) if first && is_missing_right(error) => self.at_start(endpoint, reports),
            _ => self.at_work(endpoint, reports),
        }
    }

    fn say(&self, endpoint: &Endpoint, reports: &Reports) -> String {
        match self {
            Trouble::Kafka(error) => match remedy(error, endpoint.login) {
                Some(remedy) => format!("{error}. {remedy}"),
                None => endpoint.explain(error, reports),
            },
            Trouble::MayNot(Right::Read) => format!(
                "{self}, so nobody could tell after a crash which rows arrived. {}, or set 'sink.delivery' = 'at-least-once', \
                 which only sends",
                endpoint.login.grant(Right::Read)
            ),
            Trouble::MayNot(right) => format!("{self}. {}", endpoint.login.grant(*right)),
            other => other.to_string(),
        }
    }
}

fn is_missing_right(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    matches!(error.rdkafka_error_code(), Some(TopicAuthorizationFailed | ClusterAuthorizationFailed))
}

/// Which right a refusal is about.
fn missed(error: &KafkaError) -> Right {
    match error {
        KafkaError::MessageProduction(_) => Right::Write,
        KafkaError::MessageConsumption(_) => Right::Read,
        _ => Right::Both,
    }
}

/// What a person can do about what brokers will never do as things are.
fn remedy(error: &KafkaError, login: Login) -> Option<&'static str> {
    use RDKafkaErrorCode::*;
    Some(match error.rdkafka_error_code()? {
        TransactionalIdAuthorizationFailed => {
            "Allow Write and Describe on transactional ids that begin with 'millrace-'"
        }
        GroupAuthorizationFailed => "Allow Read on groups that begin with 'millrace-'",
        TopicAuthorizationFailed => login.grant(missed(error)),
        ClusterAuthorizationFailed if login.is_event_hubs() => login.grant(Right::Write),
        ClusterAuthorizationFailed => "Allow Write on the topic, or IdempotentWrite on the cluster",
        UnsupportedFeature | UnsupportedVersion | UnsupportedForMessageFormat => {
            "Do these brokers have no transactions? Set 'sink.delivery' = 'read-back', or 'at-least-once'"
        }
        MessageSizeTooLarge => {
            "The brokers do not say what the topic allows, so smaller batches are tried, until it is known which message is too \
             large. Allow DescribeConfigs on the topic, or set properties.message.max.bytes to less than its max.message.bytes"
        }
        InvalidTimestamp | InvalidRecord | InvalidDifferentRecord => {
            "Messages are sent one by one until it is known which one the brokers refuse. If it is for a timestamp and rows have \
             none of their own, look at this host's clock"
        }
        InvalidTransactionTimeout => {
            "properties.transaction.timeout.ms is more than the broker's transaction.max.timeout.ms"
        }
        _ => return None,
    })
}
