//! A producer, and what its own threads report.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::bindings::{rd_kafka_flush, rd_kafka_resp_err_t};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::care::{Care, is_invalid, is_of_another, is_refusal, is_untimely};
use crate::client::Reports;
use crate::endpoint::{ANSWER, Endpoint};
use crate::messages::{CONTENT_TYPE, IDENTITY, Messages};
use crate::read_back::partitions_of;
use crate::topics::Limits;

/// How long after an error it is told what became of the messages, at most.
const SOON: Duration = Duration::from_millis(200);

/// How long after what is said of a message it is said of the others of its batch.
const OTHERS: Duration = Duration::from_millis(50);

/// Sends to one topic. What became of the messages is known once they are flushed.
pub struct Sender {
    pub producer: ThreadedProducer<Sending>,
    topic: String,
    /// As far as they were asked for.
    partitions: AtomicI64,
    queued: AtomicU64,
    limits: Limits,
}

/// What a producer reports.
#[derive(Clone)]
pub struct Sending {
    reports: Reports,
    care: Care,
    fates: Arc<Mutex<Fates>>,
    /// Messages of which it was said what became of them, where that is said of all.
    settled: Arc<AtomicU64>,
}

/// What became of messages that did not arrive.
#[derive(Default)]
struct Fates {
    /// Why the first one did not.
    failure: Option<KafkaError>,
    /// The same, of those that were refused together: because of one of them.
    refusal: Option<KafkaError>,
    /// Those that were refused alone, by the number that they were sent with.
    alone: Vec<(usize, KafkaError)>,
    /// Those that are to blame, if these brokers say who is, and whether they do.
    blamed: Vec<(usize, KafkaError)>,
    blames: bool,
}

impl Fates {
    /// `own_time`: whether its timestamp is its own. `alone`: whether it was alone in its batch.
    fn note(&mut self, error: &KafkaError, number: usize, own_time: bool, alone: bool) {
        // A row that was sent with the time of this host is not to blame for that.
        let its_fault = own_time || !is_untimely(error);
        if !is_refusal(error) {
            // What is purged is so because of another message, whose reason may come later.
            if self.failure.as_ref().is_none_or(is_purged) {
                self.failure = Some(error.clone());
            }
        } else if alone && its_fault {
            self.alone.push((number, error.clone()));
        } else {
            self.blames |= is_of_another(error);
            // Of several in a batch it is not said what is wrong with each: it may be the time of this host.
            if is_invalid(error) && own_time {
                self.blamed.push((number, error.clone()));
            }
            // What is wrong says more than that it is so with another one.
            if self.refusal.as_ref().is_none_or(is_of_another) {
                self.refusal = Some(error.clone());
            }
        }
    }

    /// Those that are refused for what they are, and why. Each is told once.
    fn take_refused(&mut self) -> Vec<(usize, KafkaError)> {
        let mut refused = std::mem::take(&mut self.alone);
        if self.blames {
            refused.append(&mut self.blamed);
        }
        refused
    }

    /// Whether it is known of a message why it did not arrive.
    fn is_told(&self) -> bool {
        self.failure.as_ref().is_some_and(|error| !is_purged(error)) || self.refusal.is_some() || !self.alone.is_empty()
    }
}

impl ClientContext for Sending {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.reports.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.reports.generate_oauth_token(config)
    }
}

impl ProducerContext for Sending {
    /// Twice the number that a message was sent with, and one more if its timestamp is its own.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        if let Err((error, message)) = result {
            let alone = self.care.alone(message.payload_len() + message.key_len());
            let (number, own_time) = (opaque / 2, opaque % 2 == 1);
            self.fates.lock().note(error, number, own_time, alone);
        }
        self.settled.fetch_add(1, Ordering::Release);
    }
}

/// What became of a row that was handed over.
#[derive(Debug, PartialEq, Eq)]
pub enum Handed {
    Queued,
    /// The queue is full now.
    NotYet,
    /// It can never be taken, for this reason.
    Refused(String),
}

/// A producer's configuration, before what is said of it: what the table says comes later and wins.
pub fn producer(endpoint: &Endpoint, largest: Option<u64>, care: Care) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "millrace")
        // A key goes to the partition that Java's clients give it.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        // Nothing is counted by message but what fails.
        .set("delivery.report.only.error", "true");
    if let Some(largest) = largest {
        config.set("message.max.bytes", largest.to_string());
    }
    for (name, value) in &endpoint.properties {
        config.set(name, value);
    }
    if let Some(batch) = care.batch {
        config.set("batch.size", batch.to_string());
    }
    config.set("enable.idempotence", "true");
    config
}

impl Sender {
    pub fn new(
        endpoint: &Endpoint,
        reports: Reports,
        limits: Limits,
        care: Care,
        config: &ClientConfig,
    ) -> Result<Self, KafkaError> {
        let context = Sending { reports, care, fates: Arc::default(), settled: Arc::default() };
        let producer = config.create_with_context(context)?;
        Ok(Sender {
            producer,
            topic: endpoint.topic.clone(),
            partitions: AtomicI64::new(0),
            queued: AtomicU64::new(0),
            limits,
        })
    }

    /// Queues rows as one message, if there is room. `number`: what it is called by if brokers refuse it; `identity`: what the
    /// header says of them, if it has one.
    pub fn send(
        &self,
        messages: &Messages<'_>,
        rows: Range<usize>,
        number: usize,
        identity: Option<&str>,
    ) -> Result<Handed, KafkaError> {
        let row = rows.start;
        if let Some(reason) = messages.unwritable(row) {
            return Ok(Handed::Refused(reason.into()));
        }
        if let Some(partition) = messages.partition(row)
            && !self.has(partition)?
        {
            let partitions = self.partitions.load(Ordering::Relaxed);
            return Ok(Handed::Refused(format!("it is for partition {partition}, and the topic has {partitions}")));
        }
        let time = messages.time(rows.end - 1);
        if let Some(reason) = self.limits.refuse(messages.key(row), time) {
            return Ok(Handed::Refused(reason));
        }
        let mut record =
            BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, number * 2 + usize::from(time.is_some()));
        let value = messages.value(rows);
        record.payload = value.as_deref();
        record.key = messages.key(row);
        record.partition = messages.partition(row).map(|p| p as i32);
        record.timestamp = time;
        record.headers = headers(messages, row, identity);
        match self.producer.send(record) {
            Ok(()) => {
                self.queued.fetch_add(1, Ordering::Relaxed);
                Ok(Handed::Queued)
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                let bytes = value.map_or(0, |value| value.len()) + messages.key(row).map_or(0, <[u8]>::len);
                let what = format!("{bytes} bytes are more than the topic, or message.max.bytes, allows a message");
                Ok(Handed::Refused(what))
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(Handed::NotYet),
            Err((error, _)) => Err(self.cause(error)),
        }
    }

    /// What ended the producer for good, instead of what follows from it.
    fn cause(&self, error: KafkaError) -> KafkaError {
        match self.producer.client().fatal_error() {
            Some((code, _)) => KafkaError::MessageProduction(code),
            None => error,
        }
    }

    /// Waits until it was said of every message what became of it. A flushed queue is not enough: what came out of it may not
    /// have been told yet. Only where reports of all are asked for.
    pub fn settle(&self, within: Duration) -> Result<(), KafkaError> {
        let until = Instant::now() + within;
        self.producer.flush(within)?;
        while self.producer.context().settled.load(Ordering::Acquire) < self.queued.load(Ordering::Relaxed) {
            if Instant::now() > until {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Waits until all messages have arrived, or one has not: what is behind that one in a transaction is not even sent.
    pub fn arrive(&self, within: Duration) -> Result<(), KafkaError> {
        let until = Instant::now() + within;
        loop {
            let left = self.flush(SOON);
            if let Some(error) = self.trouble() {
                return Err(error);
            }
            if !left {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
        }
    }

    /// Sends what is queued, and returns as soon as all is out. Whether there is something left after that time. The binding's own
    /// waits for reports too, of which there are none where all goes well.
    fn flush(&self, within: Duration) -> bool {
        // SAFETY: the client lives as long as its producer.
        let done = unsafe { rd_kafka_flush(self.producer.client().native_ptr(), within.as_millis() as i32) };
        done != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
    }

    /// Whether the topic has this partition; asked again before it is denied, for topics grow.
    fn has(&self, partition: i64) -> Result<bool, KafkaError> {
        if partition >= self.partitions.load(Ordering::Relaxed) {
            let metadata = self.producer.client().fetch_metadata(Some(&self.topic), ANSWER)?;
            let found = partitions_of(&metadata, &self.topic)?.len();
            self.partitions.store(found as i64, Ordering::Relaxed);
        }
        Ok((0..self.partitions.load(Ordering::Relaxed)).contains(&partition))
    }

    /// Why a message did not arrive, if one did not. What is flushed and has neither failed nor was refused alone has arrived.
    pub fn failure(&self) -> Option<KafkaError> {
        let fates = self.producer.context().fates.lock();
        // Others may have failed because of the one that was refused.
        fates.refusal.clone().or_else(|| fates.failure.clone().map(|error| self.cause(error)))
    }

    /// The same, of those that were refused alone, too.
    fn trouble(&self) -> Option<KafkaError> {
        let alone = self.producer.context().fates.lock().alone.first().map(|(_, error)| error.clone());
        alone.or_else(|| self.failure())
    }

    /// Whether what was sent has arrived, or was refused for what it is: nothing of it is on its way.
    pub fn is_answered(&self) -> bool {
        let sending = self.producer.context();
        sending.settled.load(Ordering::Acquire) == self.queued.load(Ordering::Relaxed)
            && sending.fates.lock().failure.is_none()
    }

    /// Which messages brokers refused for what they are, and why: they can never be taken. Each is told once.
    pub fn refused(&self) -> Vec<(usize, KafkaError)> {
        self.producer.context().fates.lock().take_refused()
    }

    /// Whether a message has not arrived, as far as was told.
    pub fn is_troubled(&self) -> bool {
        self.producer.context().fates.lock().is_told()
    }

    /// Waits a moment for what was said of messages: an error may come before what it comes from, and what is said of one message
    /// of a batch before what is said of the others.
    pub fn listen(&self) {
        let until = Instant::now() + SOON;
        while Instant::now() < until && !self.is_troubled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(OTHERS);
    }
}

fn is_purged(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{PurgeInflight, PurgeQueue};
    matches!(error.rdkafka_error_code(), Some(PurgeQueue | PurgeInflight))
}

fn headers(messages: &Messages<'_>, row: usize, identity: Option<&str>) -> Option<OwnedHeaders> {
    let given = messages.headers(row).map(|(key, value)| Header { key, value: Some(value) });
    let given = given.chain(messages.content_type().map(|value| Header { key: CONTENT_TYPE, value: Some(value) }));
    let own = identity.map(|text| Header { key: IDENTITY, value: Some(text.as_bytes()) });
    let mut headers: Option<OwnedHeaders> = None;
    for header in given.chain(own) {
        headers = Some(headers.unwrap_or_default().insert(header));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: RDKafkaErrorCode) -> KafkaError {
        KafkaError::MessageProduction(code)
    }

    /// What is told of messages, in order: the code, the number, whether the time is its own, whether it was alone.
    fn fates(told: &[(RDKafkaErrorCode, usize, bool, bool)]) -> (Vec<usize>, Option<KafkaError>, Option<KafkaError>) {
        let mut fates = Fates::default();
        for (code, number, own_time, alone) in told {
            fates.note(&error(*code), *number, *own_time, *alone);
        }
        let refused = fates.take_refused().into_iter().map(|(number, _)| number).collect();
        (refused, fates.refusal, fates.failure)
    }

    #[test]
    fn who_is_to_blame_for_a_refused_batch_is_known_if_brokers_say_it_or_it_was_alone() {
        use RDKafkaErrorCode::*;
        let named = [(InvalidDifferentRecord, 0, true, false), (InvalidTimestamp, 1, true, false)];
        assert_eq!(fates(&named), (vec![1], Some(error(InvalidTimestamp)), None));
        let unnamed = [(InvalidTimestamp, 0, true, false), (InvalidTimestamp, 1, true, false)];
        assert_eq!(fates(&unnamed), (vec![], Some(error(InvalidTimestamp)), None));
        let too_large = [(MessageSizeTooLarge, 0, true, false), (MessageSizeTooLarge, 1, true, true)];
        assert_eq!(fates(&too_large).0, [1]);
    }

    #[test]
    fn the_clock_of_this_host_is_no_row_s_fault() {
        use RDKafkaErrorCode::*;
        let alone = [(InvalidTimestamp, 0, false, true)];
        assert_eq!(fates(&alone), (vec![], Some(error(InvalidTimestamp)), None), "it is tried again");
        // Where several of a batch are refused, that is all that is said of each.
        let several = [
            (InvalidRecord, 0, false, false),
            (InvalidRecord, 1, true, false),
            (InvalidDifferentRecord, 2, true, false),
        ];
        assert_eq!(fates(&several).0, [1]);
    }

    #[test]
    fn what_was_purged_tells_less_than_what_it_was_purged_for() {
        use RDKafkaErrorCode::*;
        let told = [(PurgeQueue, 0, true, false), (MessageTimedOut, 1, true, false), (PurgeQueue, 2, true, false)];
        assert_eq!(fates(&told), (vec![], None, Some(error(MessageTimedOut))));
    }
}
