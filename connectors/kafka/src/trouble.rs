//! Why rows cannot be shown in a topic, and what a person can do about it.

use std::time::Duration;

use arrow::error::ArrowError;
use engine::sink::SinkError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::client::Reports;
use crate::endpoint::Endpoint;

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
    /// A transaction is open, and may be for ever: Kafka 4.4 forgets to end one if all copies of a partition are away when it
    /// should (`TransactionMarkerChannelManager` takes a partition without a leader for one that was deleted).
    #[error(
        "an open transaction hides what lies in partition {partition} from offset {offset} on, from this job as from all \
         readers at read_committed. It is waited for; if it stays, look for it with 'kafka-transactions.sh find-hanging', and \
         end it with 'abort'"
    )]
    Hidden { partition: i32, offset: i64 },
    /// Nobody can tell any more which rows have arrived; says what a person should do.
    #[error("{0}")]
    Unknown(String),
}

impl Trouble {
    /// While a job starts, what brokers refuse ends it.
    pub fn at_start(self, endpoint: &Endpoint, reports: &Reports) -> SinkError {
        match &self {
            Trouble::Kafka(error) if remedy(error).is_some() || reports.refusal().is_some() => {
                SinkError::failed(endpoint.place(), self.say(endpoint, reports))
            }
            _ => self.at_work(endpoint, reports),
        }
    }

    /// While it runs, it waits: rights that were taken away can be given back.
    pub fn at_work(self, endpoint: &Endpoint, reports: &Reports) -> SinkError {
        let what = self.say(endpoint, reports);
        match self {
            Trouble::Kafka(_) | Trouble::NotBegun(_) | Trouble::Hidden { .. } => {
                SinkError::retry(endpoint.place(), what)
            }
            Trouble::Encoding(_) | Trouble::Unknown(_) => SinkError::failed(endpoint.place(), what),
        }
    }

    fn say(&self, endpoint: &Endpoint, reports: &Reports) -> String {
        match self {
            Trouble::Kafka(error) => match remedy(error) {
                Some(remedy) => format!("{error}. {remedy}"),
                None => endpoint.explain(error, reports),
            },
            other => other.to_string(),
        }
    }
}

/// What a person can do about what brokers will never do as things are.
fn remedy(error: &KafkaError) -> Option<&'static str> {
    use RDKafkaErrorCode::*;
    Some(match error.rdkafka_error_code()? {
        TransactionalIdAuthorizationFailed => {
            "Allow Write and Describe on transactional ids that begin with 'millrace-'"
        }
        GroupAuthorizationFailed => "Allow Read on groups that begin with 'millrace-'",
        TopicAuthorizationFailed => "Allow Write, Read and Describe on the topic",
        ClusterAuthorizationFailed => "Allow IdempotentWrite on the cluster",
        UnsupportedFeature | UnsupportedVersion | UnsupportedForMessageFormat => {
            "Do these brokers have no transactions? Set 'sink.delivery' = 'read-back', or 'at-least-once'"
        }
        MessageSizeTooLarge => "Set properties.message.max.bytes to less than the topic's max.message.bytes",
        InvalidTransactionTimeout => {
            "properties.transaction.timeout.ms is more than the broker's transaction.max.timeout.ms"
        }
        _ => return None,
    })
}
