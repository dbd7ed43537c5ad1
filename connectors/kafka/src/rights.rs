//! Whether a table that is written may be written, and read where that is needed: asked before anything is read from the
//! job's sources. Found out only after a crash, a missing right would leave rows of which nobody can tell whether they
//! arrived.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use crate::client::{Client, Reports, consumer};
use crate::described::may_write;
use crate::endpoint::{ANSWER, Connection, Endpoint, may_heal};
use crate::read_back::{Ends, is_about_a_group};
use crate::trouble::Trouble;

/// What is done with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Read,
    Write,
    Both,
}

impl Right {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Right::Read => "read the topic",
            Right::Write => "write the topic",
            Right::Both => "read and write the topic",
        }
    }
}

const NO_PREFETCH: u64 = 0;
/// How long brokers may take to say what one may do: they can do without.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Fails if the topic may not be written. Brokers that do not say it refuse what is sent.
pub fn must_be_writable(asking: &Connection, topic: &str) -> Result<(), Trouble> {
    match may_write(asking.served.client(), topic, TOLD_WITHIN) {
        Ok(Some(false)) => Err(Trouble::MayNot(Right::Write)),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(topic, %error, "the brokers do not say whether the topic may be written");
            Ok(())
        }
    }
}

/// Fails if the topic may not be read. Nothing but trying tells it everywhere: who only sends may well ask where
/// partitions end. So it is read from its ends on; that there is nothing yet is an answer too.
pub fn must_be_readable(endpoint: &Endpoint, reports: &Reports, ends: &Ends) -> Result<(), Trouble> {
    let mut config = consumer(endpoint, None, NO_PREFETCH, ends.len());
    config.set("isolation.level", "read_uncommitted").set("client.rack", "").set("fetch.wait.max.ms", "10");
    let client: Client = config.create_with_context(reports.clone())?;
    let mut list = TopicPartitionList::new();
    for partition in ends.keys() {
        list.add_partition_offset(&endpoint.topic, *partition, Offset::End)?;
    }
    client.assign(&list)?;
    let begun = Instant::now();
    loop {
        match client.poll(LOOK_AGAIN) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if is_about_a_group(&error) => {}
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Trouble::MayNot(Right::Read));
            }
            Some(Err(error)) if !may_heal(&error) || reports.refusal().is_some() => return Err(error.into()),
            _ if begun.elapsed() > ANSWER => {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into());
            }
            _ => {}
        }
    }
}
