//! A writer's transactions: its rows and its marker become visible together, or not at all.
//!
//! Kafka has no prepared transactions: one that is open when its process dies is aborted. So nothing is opened before
//! the rows are published in the job log, and one transaction sends the staged rows together with a *marker*: the
//! number of the entry, as the committed offset of a consumer group that nobody is a member of. The id of the
//! transactions and the group are the writer's own. Whoever finishes the entries of a writer that died begins by
//! initialising its id, which settles what it left open either way; then the marker says what is shown.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use engine::environment::crash_point;
use engine::sink::RejectedRow;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::Offset;

use crate::care::Care;
use crate::client::{Reports, consumer};
use crate::endpoint::{Connection, Endpoint, answered, only_offset};
use crate::entry::{Entry, Fate, Way};
use crate::messages::Layout;
use crate::sending::{Sender, producer};
use crate::topics::Limits;
use crate::trouble::Trouble;

/// How long a transaction may last, and so a step of it before the whole is tried again, unless the table says otherwise.
const MAY_LAST: Duration = Duration::from_secs(60);
/// How much longer than it may, the client is given to say that it took too long.
const LATE: Duration = Duration::from_secs(1);
/// What the client may hold ahead of us: the group's client reads nothing.
const NO_PREFETCH: u64 = 0;

/// One writer's transactional id, held by this process.
pub struct Transactions {
    sender: Sender,
    /// Of the group whose committed offset is the marker.
    group: Arc<ConsumerGroupMetadata>,
    topic: String,
    may_last: Duration,
    care: Care,
    /// Whether a transaction is left open that failed.
    spent: bool,
    /// The highest entry that is shown; `None` if the brokers forgot it, or do not say.
    shown: Option<u64>,
}

impl Transactions {
    /// Takes the id over: what another process left open under it is settled when this returns.
    pub fn open(endpoint: &Endpoint, reports: &Reports, id: &str, limits: Limits, care: Care) -> Result<Self, Trouble> {
        let mut config = producer(endpoint, limits.largest, care);
        config.set("transactional.id", id);
        let said = config.get("transaction.timeout.ms").and_then(|millis| millis.parse().ok());
        let may_last = said.map_or(MAY_LAST, Duration::from_millis);
        let sender = Sender::new(endpoint, reports.clone(), limits, care, &config)?;
        sender.producer.init_transactions(may_last).map_err(|error| not_begun(error, may_last))?;
        let mut config = consumer(endpoint, Some(id), NO_PREFETCH, 1);
        // An offset of a transaction that is not settled is waited for, and not passed over.
        config.set("isolation.level", "read_committed");
        let offsets = Connection::new(endpoint, reports.clone(), &config)?;
        let group = Arc::new(offsets.served.client().group_metadata().ok_or(KafkaError::Canceled)?);
        let shown = marker(&offsets, &endpoint.topic).unwrap_or_else(|error| {
            let what = "the number of the last entry that is shown cannot be read; the topic will say it";
            tracing::warn!(topic = endpoint.topic, %error, "{what}");
            None
        });
        Ok(Transactions { sender, group, topic: endpoint.topic.clone(), may_last, care, spent: false, shown })
    }

    pub fn shown(&self) -> Option<u64> {
        self.shown
    }

    /// Whether it is of use where messages are sent with this care.
    pub fn sends_with(&self, care: Care) -> bool {
        !self.spent && self.care == care
    }

    /// Makes a marker anew: from then on, a missing one means that the brokers forgot it, and not that nothing was shown.
    /// `shown`: the last entry that surely is.
    pub fn begin(&mut self, shown: u64) -> Result<(), Trouble> {
        self.sender.producer.begin_transaction()?;
        self.commit(shown)
    }

    /// Sends these entries and raises the marker to the last of them. Rows that the brokers can never take are the answer,
    /// and then nothing was shown.
    pub fn show(&mut self, entries: &[Entry], layout: &Layout) -> Result<Vec<(u64, RejectedRow)>, Trouble> {
        let (begun, may_last) = (Instant::now(), self.may_last);
        self.send(entries, layout).map_err(|trouble| match trouble {
            Trouble::Kafka(_) if begun.elapsed() >= may_last && trouble.refusal().is_none() => {
                Trouble::TooLong { rows: entries.iter().map(Entry::rows).sum(), may_last }
            }
            other => other,
        })
    }

    fn send(&mut self, entries: &[Entry], layout: &Layout) -> Result<Vec<(u64, RejectedRow)>, Trouble> {
        let Some(last) = entries.last() else { return Ok(vec![]) };
        entries.iter().try_for_each(|entry| entry.check_gone(None))?;
        crash_point("before-transaction");
        self.sender.producer.begin_transaction()?;
        let rejected = match self.send_all(entries, layout, last.number) {
            Ok(rejected) => rejected,
            Err(error) => return self.refused(entries, error),
        };
        if !rejected.is_empty() {
            // Where messages failed meanwhile, the next hold on the id ends it: see `refused`.
            let aborted = !self.sender.is_troubled() && self.sender.producer.abort_transaction(self.may_last).is_ok();
            self.spent = !aborted;
            return Ok(rejected);
        }
        crash_point("after-transaction");
        Ok(vec![])
    }

    /// The transaction is committed, unless there is a row that can never be taken.
    fn send_all(&mut self, entries: &[Entry], layout: &Layout, last: u64) -> Result<Vec<(u64, RejectedRow)>, Trouble> {
        let (mut rejected, mut number) = (vec![], 0);
        for entry in entries {
            // The first row alone says whose it is: the others are there if it is.
            let mut next = Fate::SentNamed;
            let way = Way { layout, apart: self.care.apart(), number };
            let refused = entry.send(&self.sender, way, |_, _| Ok(std::mem::replace(&mut next, Fate::Sent)))?;
            rejected.extend(refused.into_iter().map(|row| (entry.number, row)));
            number += entry.numbers();
        }
        if rejected.is_empty() {
            crash_point("within-transaction");
            self.sender.arrive(self.may_last)?;
            self.commit(last)?;
        }
        Ok(rejected)
    }

    /// The rows that a transaction failed for, if brokers refused them; or what it failed for. It is left to the next hold on its
    /// id: where messages failed, to abort it may take librdkafka longer than it may last.
    fn refused(&mut self, entries: &[Entry], error: Trouble) -> Result<Vec<(u64, RejectedRow)>, Trouble> {
        let Trouble::Kafka(error) = error else { return Err(error) };
        self.sender.listen();
        let (refused, mut rejected, mut number) = (self.sender.refused(), vec![], 0);
        for entry in entries {
            rejected.extend(entry.refused(number, &refused).into_iter().map(|row| (entry.number, row)));
            number += entry.numbers();
        }
        self.spent = true;
        if rejected.is_empty() { Err(self.sender.failure().unwrap_or(error).into()) } else { Ok(rejected) }
    }

    fn commit(&mut self, entry: u64) -> Result<(), Trouble> {
        self.raise_marker(entry)?;
        self.sender.producer.commit_transaction(self.may_last)?;
        self.shown = Some(entry);
        Ok(())
    }

    /// Makes the marker a part of the transaction. The call keeps no time-out: where the group's coordinator is not found at
    /// once, the client waits until one of its connections opens or closes, and looks at no clock (`rd_kafka_coord_req_fsm` of
    /// librdkafka 2.12). So it has a thread of its own, which is left behind when it does not return in time. It holds the client
    /// until then: one must not be closed under a call. What comes of the call has no effect, since only we commit.
    fn raise_marker(&self, entry: u64) -> Result<(), Trouble> {
        let mut marker = TopicPartitionList::new();
        marker.add_partition_offset(&self.topic, MARKER_PARTITION, Offset::Offset(entry as i64))?;
        let (producer, group, within) = (self.sender.producer.clone(), self.group.clone(), self.may_last);
        let (answer, answered) = mpsc::sync_channel(1);
        let call = move || {
            let raised = producer.send_offsets_to_transaction(&marker, &group, within);
            drop(producer);
            // There may be nobody who waits for it any more.
            let _ = answer.send(raised);
        };
        let begun = std::thread::Builder::new().name("kafka-marker".into()).spawn(call);
        begun.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(answered.recv_timeout(within + LATE).map_err(|_| Trouble::NoMarker(within))??)
    }
}

fn not_begun(error: KafkaError, within: Duration) -> Trouble {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::OperationTimedOut) => Trouble::NotBegun(within),
        _ => error.into(),
    }
}

/// The highest entry that is shown, as far as the brokers know.
fn marker(offsets: &Connection, topic: &str) -> Result<Option<u64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, MARKER_PARTITION);
    let answer = offsets.insist(|client, within| answered(client.committed_offsets(asked.clone(), within)?))?;
    Ok(only_offset(&answer).and_then(|entry| u64::try_from(entry).ok()))
}

/// Every topic has it, and an offset of it may be committed whatever the topic holds.
const MARKER_PARTITION: i32 = 0;

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::endpoint::{Login, Purpose};

    /// librdkafka waits for ever there: if this fails by hanging, so would a job.
    #[tokio::test]
    async fn a_coordinator_of_groups_that_is_not_found_is_given_up_and_the_next_hold_on_the_id_goes_on() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("rows", 1, 1).unwrap();
        let properties = [
            ("bootstrap.servers", cluster.bootstrap_servers()),
            ("transaction.timeout.ms", "2000".into()),
            ("socket.timeout.ms", "1000".into()),
        ];
        let endpoint = Endpoint {
            table: "rows".into(),
            topic: "rows".into(),
            properties: properties.map(|(name, value)| (name.to_string(), value)).to_vec(),
            bearer: None,
            login: Login::Properties,
            purpose: Purpose::Write,
        };
        let reports = endpoint.reports(Arc::default()).await.unwrap();
        let open = || Transactions::open(&endpoint, &reports, "id", Limits::default(), Care::default()).unwrap();
        let mut lost = open();
        cluster
            .request_errors(RDKafkaApiKey::FindCoordinator, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 1000]);
        let said = lost.begin(7);
        assert!(matches!(said, Err(Trouble::NoMarker(_))), "{said:?}");
        cluster.clear_request_errors(RDKafkaApiKey::FindCoordinator);
        drop(lost);
        let mut next = open();
        next.begin(7).unwrap();
        assert_eq!(next.shown(), Some(7));
    }
}
