//! librdkafka clients as the engine needs them, and what they say about themselves.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use engine::metrics::SourceMetrics;
use identity::FreshToken;
use parking_lot::Mutex;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::{Broker, Statistics};

use crate::described::untaken;
use crate::endpoint::Endpoint;

/// What is said again within this is counted and not said.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// How often the thread looks whether something was told.
const TURN: Duration = Duration::from_millis(20);
/// A broker that is up again may not have been asked yet for what came meanwhile. It has been after so many looks, which
/// come once a second.
const LOOKS_UNTIL_ASKED: u32 = 2;
/// A running job whose login is refused for this long, with no broker left that lets it in, ends.
const REFUSED_FOR: Duration = Duration::from_secs(60);

pub type Client = BaseConsumer<Reports>;

/// What a client reports from its own threads.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<Reported>>);

#[derive(Default)]
struct Reported {
    /// By partition: the end offset that the broker last stated.
    ends: HashMap<i32, i64>,
    /// Partitions of whose end nobody can say anything now, and how many looks their broker must be up for until one can.
    unreached: HashMap<i32, u32>,
    topic: String,
    /// The client is one of a table that is written: it has the settings of another kind of client beside its own. Where it
    /// needs a group, it is told in the answers; elsewhere it has one in name only.
    of_written_table: bool,
    /// The id of the topic that is fetched from now on, as the client last said.
    incarnation: Option<String>,
    token: Option<FreshToken>,
    metrics: Arc<SourceMetrics>,
    /// The last thing that went wrong with a connection, in the client's words; `None` once a broker is up.
    trouble: Option<Trouble>,
    said: HashMap<String, Said>,
}

impl Reported {
    fn suffer(&mut self, code: RDKafkaErrorCode, reason: &str) {
        self.metrics.retries.add(1);
        // "All brokers are down" follows the failure that says why; alone, it is all that is known of a hang.
        if code == RDKafkaErrorCode::AllBrokersDown && self.trouble.is_some() {
            return;
        }
        let since = self.trouble.as_ref().and_then(|t| t.refused_since);
        let refused_since = if is_refusal(code) { since.or_else(|| Some(Instant::now())) } else { since };
        // A refusal is not forgotten for what follows from it.
        if is_refusal(code) || since.is_none() {
            let reason = without_times(reason);
            *self.metrics.trouble.write() = Some(reason.clone());
            self.trouble = Some(Trouble { reason, refused_since });
        }
    }

    fn look_at(&mut self, partition: i32, reached: bool) {
        match (reached, self.unreached.get_mut(&partition)) {
            (false, _) => {
                self.unreached.insert(partition, LOOKS_UNTIL_ASKED);
            }
            (true, Some(looks)) if *looks > 1 => *looks -= 1,
            (true, _) => {
                self.unreached.remove(&partition);
            }
        }
    }

    fn heal(&mut self) {
        if self.trouble.take().is_some() {
            *self.metrics.trouble.write() = None;
        }
    }
}

struct Trouble {
    reason: String,
    /// When logins began to be refused, if they are: that does not heal by waiting.
    refused_since: Option<Instant>,
}

/// When something was last said, and how often it was not since.
struct Said {
    at: Instant,
    kept_back: u64,
}

impl Reports {
    pub fn of(topic: &str, token: Option<FreshToken>, metrics: Arc<SourceMetrics>) -> Self {
        Reports(Arc::new(Mutex::new(Reported { topic: topic.to_string(), token, metrics, ..Reported::default() })))
    }

    /// The same, of a table that is written.
    pub fn of_written_table(self) -> Self {
        self.0.lock().of_written_table = true;
        self
    }

    /// Messages without a payload were passed over.
    pub fn skipped(&self, messages: u64) {
        self.0.lock().metrics.skipped.add(messages);
    }

    pub fn end(&self, partition: i32) -> Option<i64> {
        self.0.lock().ends.get(&partition).copied()
    }

    /// Whether the partition's broker can be asked. What it said of the partition's end holds only as long: nobody knows
    /// what was written since.
    pub fn reaches(&self, partition: i32) -> bool {
        !self.0.lock().unreached.contains_key(&partition)
    }

    /// The id of the topic that is fetched from now on: the one that the brokers had under this name when the client
    /// last looked. `None` before it did, and where brokers give no ids.
    pub fn incarnation(&self) -> Option<String> {
        self.0.lock().incarnation.clone()
    }

    /// Whether the topic that is fetched from now on is known to be another one than this.
    pub fn is_another_than(&self, incarnation: &str) -> bool {
        self.0.lock().incarnation.as_ref().is_some_and(|now| now != incarnation)
    }

    /// Why the client cannot reach its brokers, as far as it said.
    pub fn trouble(&self) -> Option<String> {
        self.0.lock().trouble.as_ref().map(|t| t.reason.clone())
    }

    /// Why brokers do not let the client in.
    pub fn refusal(&self) -> Option<String> {
        self.refused(Duration::ZERO)
    }

    /// The same, if a running job should no longer wait for it to heal.
    pub fn lasting_refusal(&self) -> Option<String> {
        self.refused(REFUSED_FOR)
    }

    fn refused(&self, at_least: Duration) -> Option<String> {
        let reported = self.0.lock();
        let trouble = reported.trouble.as_ref()?;
        trouble.refused_since.is_some_and(|since| since.elapsed() >= at_least).then(|| trouble.reason.clone())
    }

    /// A broker answered: whatever was wrong is over.
    pub fn answered(&self) {
        self.0.lock().heal();
    }

    /// How often a thing was kept back since it was last said, if it may be said now.
    fn may_say(&self, what: &str) -> Option<u64> {
        let mut reported = self.0.lock();
        let now = Instant::now();
        match reported.said.get_mut(what) {
            Some(said) if now.duration_since(said.at) < SAY_AGAIN => {
                said.kept_back += 1;
                None
            }
            Some(said) => {
                let kept_back = std::mem::take(&mut said.kept_back);
                said.at = now;
                Some(kept_back)
            }
            None => {
                reported.said.insert(what.to_string(), Said { at: now, kept_back: 0 });
                Some(0)
            }
        }
    }
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            let mut reported = self.0.lock();
            if let Some(id) = new_topic_id(message, &reported.topic) {
                reported.incarnation = Some(id.to_string());
            }
            return;
        }
        if facility == "CONFWARN" && message.contains("will be ignored by this") && self.0.lock().of_written_table {
            return;
        }
        // A failed connection comes as an error too, with its reason; what a partition's queue still held when it was let
        // go is read again from the job's position.
        if (level as u8) > RDKafkaLogLevel::Warning as u8 || matches!(facility, "FAIL" | "ERROR" | "PARTDEL") {
            tracing::debug!(facility, "{message}");
        } else if let Some(kept_back) = self.may_say(facility) {
            tracing::warn!(facility, kept_back, "{message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes here too; it is the reader's to use and nothing to tell.
        let KafkaError::Global(code) = error else { return };
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        if code == RDKafkaErrorCode::GroupAuthorizationFailed && self.0.lock().of_written_table {
            return;
        }
        self.0.lock().suffer(code, reason);
        if code == RDKafkaErrorCode::AllBrokersDown {
            tracing::debug!(%code, reason, "kafka client; it tries again by itself");
        } else if let Some(kept_back) = self.may_say(&code.to_string()) {
            tracing::warn!(%code, reason, kept_back, "kafka client; it tries again by itself");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut reported = self.0.lock();
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            reported.heal();
        }
        // Each window begins where the last one ended: nothing is counted twice, and no pause is missed between two looks.
        let throttles = statistics.brokers.values().filter_map(|broker| broker.throttle.as_ref());
        reported.metrics.throttled_millis.add(throttles.map(|window| window.sum.max(0) as u64).sum());
        if let Some(topic) = statistics.topics.get(&reported.topic) {
            let ends: Vec<_> =
                topic.partitions.iter().map(|(p, s)| (*p, s.hi_offset)).filter(|(_, o)| *o >= 0).collect();
            reported.ends.extend(ends);
            for (number, partition) in &topic.partitions {
                reported.look_at(*number, is_up(&statistics.brokers, partition.broker));
            }
        }
    }

    /// Hands out the token that is kept fresh elsewhere: whoever serves the callbacks does not wait for HTTP.
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let kept = self.0.lock().token.clone();
        let token = kept.ok_or("this table says nothing about where its token comes from")?.current()?;
        let lifetime_ms = token.expires.duration_since(UNIX_EPOCH)?.as_millis() as i64;
        Ok(OAuthToken { token: token.value, principal_name: "millrace".into(), lifetime_ms })
    }
}

impl ConsumerContext for Reports {}

/// Whether the client has a connection to a broker that works. A partition without a leader has the broker -1.
fn is_up(brokers: &HashMap<String, Broker>, id: i32) -> bool {
    id >= 0 && brokers.values().any(|broker| broker.nodeid == id && matches!(&*broker.state, "UP" | "REAUTH"))
}

/// The id in `Topic <name> changed id from <old> to <new>`: librdkafka says it before the first fetch with the new id, and
/// tells it in no other way. Without it a fetcher goes on in the new topic as if nothing had happened.
fn new_topic_id<'a>(message: &'a str, topic: &str) -> Option<&'a str> {
    let (_, change) = message.split_once("Topic ")?;
    let (_, new) = change.strip_prefix(topic)?.strip_prefix(" changed id from ")?.split_once(" to ")?;
    Some(new.trim())
}

/// Whether a broker, or the token service, said no: waiting does not help.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::SSL
    )
}

/// librdkafka ends its reasons with `(after 3ms in state CONNECT, 5 identical error(s) suppressed)`.
fn without_times(reason: &str) -> String {
    let end = reason.find(" (after ").unwrap_or(reason.len());
    reason[..end].to_string()
}

/// The least that a partition may hold ahead of the job, and the most.
const LEAST_AHEAD: u64 = 64 << 10;
const MOST_AHEAD: u64 = 64 << 20;
/// What librdkafka asks for in one fetch of a partition unless told otherwise.
const FETCH: u64 = 1 << 20;

/// What librdkafka may hold ahead of the job, bounded by partition: it knows no bound over all of them. One fetch may
/// come on top, so it is no larger.
fn bound_prefetch(config: &mut ClientConfig, prefetch: u64, partitions: usize) {
    let ahead = (prefetch / partitions.max(1) as u64).clamp(LEAST_AHEAD, MOST_AHEAD);
    config.set("queued.max.messages.kbytes", (ahead / 1024).to_string());
    config.set("fetch.message.max.bytes", ahead.min(FETCH).to_string());
}

/// A consumer's configuration. Positions are the engine's: nothing is stored, reset or committed by the client.
pub fn consumer(endpoint: &Endpoint, group: Option<&str>, prefetch: u64, partitions: usize) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "millrace")
        // A consumer that is slower than the fetcher waits a whole second at the default and then starves.
        .set("fetch.queue.backoff.ms", "10")
        .set("statistics.interval.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "10000");
    bound_prefetch(&mut config, prefetch, partitions);
    for (name, value) in &endpoint.properties {
        // One setting under two names: only one of them may be there.
        let name: &str = if name == "max.partition.fetch.bytes" { "fetch.message.max.bytes" } else { name };
        config.set(name, value);
    }
    // See `new_topic_id`.
    let debug = config.get("debug").map_or_else(|| "topic".to_string(), |debug| format!("{debug},topic"));
    config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
    config
        .set("group.id", group.unwrap_or("millrace"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that the log no longer holds is an error, never a silent jump.
        .set("auto.offset.reset", "error")
        // The broker's own statement that a reader stands at the end.
        .set("enable.partition.eof", "true");
    config
}

/// A client, and whoever handles what it tells. Only for one that asks questions, or whose messages come by partition
/// queues: one that polls for messages would lose those that are polled here.
pub struct Served {
    client: Arc<Client>,
    turn: Mutex<()>,
}

impl Served {
    /// Starts a thread that handles what is told, until this is dropped.
    pub fn start(client: Client) -> std::io::Result<Arc<Self>> {
        let served = Arc::new(Served { client: Arc::new(client), turn: Mutex::new(()) });
        let serving = Arc::downgrade(&served);
        let serve = move || {
            while let Some(served) = serving.upgrade() {
                served.handle();
                drop(served);
                std::thread::sleep(TURN);
            }
        };
        std::thread::Builder::new().name("kafka-callbacks".into()).spawn(serve)?;
        Ok(served)
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Handles all that was told up to now. One at a time: when this returns, nothing that was told before is still on
    /// its way through another thread. A reader that calls this after it took messages knows of a change of the
    /// topic that came before them.
    pub fn handle(&self) {
        let _turn = self.turn.lock();
        while untaken(&self.client) > 0 {
            // What comes here belongs to no partition that is read: errors of the client, told by its callback.
            let _ = self.client.poll(Duration::ZERO);
        }
    }
}

/// What librdkafka says of a configuration, without the values: any of them may be a secret.
pub fn configuration_error(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, _, value) if !value.is_empty() => description.replace(value, "…"),
        KafkaError::ClientConfig(_, description, ..) => description.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Partition, Topic, Window};

    use super::*;

    fn says(reports: &Reports, code: RDKafkaErrorCode, reason: &str) {
        reports.error(KafkaError::Global(code), reason);
    }

    #[test]
    fn a_refused_login_is_remembered_until_a_broker_answers() {
        let reports = Reports::of("events", None, Arc::default());
        says(
            &reports,
            RDKafkaErrorCode::BrokerTransportFailure,
            "localhost:1: Connect failed (after 0ms in state CONNECT)",
        );
        assert_eq!(reports.trouble().as_deref(), Some("localhost:1: Connect failed"));
        assert_eq!(reports.refusal(), None);
        says(&reports, RDKafkaErrorCode::Authentication, "localhost:1: Invalid username or password");
        says(&reports, RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        says(&reports, RDKafkaErrorCode::BrokerTransportFailure, "localhost:1: Disconnected");
        assert_eq!(reports.refusal().as_deref(), Some("localhost:1: Invalid username or password"));
        assert_eq!(reports.lasting_refusal(), None);
        reports.answered();
        assert_eq!((reports.trouble(), reports.refusal()), (None, None));
    }

    #[test]
    fn the_topics_id_is_heard_when_the_client_learns_it() {
        let reports = Reports::of("events", None, Arc::default());
        let says = |text: &str| reports.log(RDKafkaLogLevel::Debug, "METADATA", text);
        says("[thrd:main]: Topic events [0] Leader 1 Epoch 0");
        says("[thrd:main]: Topic events.2 changed id from AAAAAAAAAAAAAAAAAAAAAA to x0");
        assert_eq!(reports.incarnation(), None);
        says("[thrd:main]: Topic events changed id from AAAAAAAAAAAAAAAAAAAAAA to x1");
        assert!(!reports.is_another_than("x1"));
        says("[thrd:main]: Topic events changed id from x1 to x2");
        assert!(reports.is_another_than("x1"));
    }

    #[test]
    fn what_is_held_ahead_of_the_job_is_divided_among_the_partitions() {
        let bounds = |prefetch: u64, partitions: usize| {
            let mut config = ClientConfig::new();
            bound_prefetch(&mut config, prefetch, partitions);
            let number = |name: &str| config.get(name).unwrap().parse::<u64>().unwrap();
            (number("queued.max.messages.kbytes"), number("fetch.message.max.bytes"))
        };
        assert_eq!(bounds(256 << 20, 16), (16 << 10, 1 << 20));
        assert_eq!(bounds(256 << 20, 1024), (256, 256 << 10));
        assert_eq!(bounds(256 << 20, 1), (64 << 10, 1 << 20));
        assert_eq!(bounds(1 << 20, 1024), (64, 64 << 10), "no partition starves");
        assert_eq!(bounds(1 << 20, 0), (1024, 1 << 20), "a topic that is not there");
    }

    #[test]
    fn every_pause_that_brokers_ask_for_is_counted_once() {
        let (metrics, window) = (Arc::<SourceMetrics>::default(), |sum: i64| Window { sum, ..Window::default() });
        let reports = Reports::of("events", None, metrics.clone());
        let says = |pauses: &[i64]| {
            let broker = |pause: &i64| Broker { throttle: Some(window(*pause)), ..Broker::default() };
            let brokers = pauses.iter().enumerate().map(|(id, pause)| (id.to_string(), broker(pause))).collect();
            reports.stats(Statistics { brokers, ..Statistics::default() });
        };
        says(&[0, 1500]);
        says(&[700, 300]);
        says(&[0, 0]);
        assert_eq!(metrics.throttled_millis.get(), 2500, "a look between two pauses takes nothing back");
    }

    #[test]
    fn what_a_broker_said_of_a_partitions_end_holds_while_it_can_be_asked() {
        let reports = Reports::of("events", None, Arc::default());
        let look = |state: &str, leader_of_1: i32| {
            let broker = |nodeid, state: &str| Broker { nodeid, state: state.into(), ..Broker::default() };
            let brokers = [broker(-1, "UP"), broker(1, "UP"), broker(2, state)].map(|b| (b.nodeid.to_string(), b));
            let partitions =
                [(0, 1), (1, leader_of_1)].map(|(p, broker)| (p, Partition { broker, ..Partition::default() }));
            let topic = Topic { partitions: partitions.into(), ..Topic::default() };
            let topics = [("events".to_string(), topic)].into();
            reports.stats(Statistics { brokers: brokers.into(), topics, ..Statistics::default() });
            [reports.reaches(0), reports.reaches(1)]
        };
        assert!(reports.reaches(1), "before the first look, a broker that said where the end is was there");
        assert_eq!(look("UP", 2), [true, true]);
        assert_eq!(look("DOWN", 2), [true, false]);
        assert_eq!(look("TRY_CONNECT", 2), [true, false]);
        assert_eq!(look("UP", 2), [true, false], "it may not have been asked yet what came meanwhile");
        assert_eq!(look("UP", 2), [true, true]);
        assert_eq!(look("UP", -1), [true, false], "nobody leads the partition");
        assert_eq!([look("UP", 1), look("UP", 1)], [[true, false], [true, true]], "another one does");
    }

    #[test]
    fn the_same_thing_is_said_once_in_a_while() {
        let reports = Reports::of("events", None, Arc::default());
        assert_eq!(reports.may_say("FETCH"), Some(0));
        assert_eq!(reports.may_say("FETCH"), None);
        assert_eq!(reports.may_say("SSL"), Some(0));
    }

    #[test]
    fn a_wrong_property_is_named_and_its_value_is_not() {
        for (name, value) in
            [("sasl.pasword", "topsecret"), ("sasl.mechanism\n", "topsecret"), ("socket.timeout.ms", "topsecret")]
        {
            let mut config = ClientConfig::new();
            config.set(name, value);
            let error = configuration_error(&config.create_native_config().err().unwrap());
            assert!(!error.contains("topsecret") && error.contains(name.trim()), "{error}");
        }
    }
}
