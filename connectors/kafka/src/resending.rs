//! Rows that are sent without transactions, each once: named, and after a crash compared with what arrived.
//!
//! Nothing fences a producer that has no transactions. So whoever sends asks again and again whether the job is still
//! its own, and its messages expire soon after; and whoever takes over waits until the last of them must have arrived
//! or expired before it looks. What stays open is a process that is frozen in mid-request and wakes after that.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use engine::environment::crash_point;
use engine::sink::{RejectedRow, SinkContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::care::Care;
use crate::client::Reports;
use crate::endpoint::{Connection, Endpoint};
use crate::entry::{self, Entry, Fate};
use crate::messages::Layout;
use crate::read_back::{Ends, arrived};
use crate::sending::{Sender, producer};
use crate::topics::Limits;
use crate::trouble::Trouble;

/// How long a message may wait to be taken, and how long it may then take a broker to say so: a takeover waits for both.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(15);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a message may wait where no takeover waits for it: librdkafka's own.
const UNNAMED_MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);
/// At one throughput unit of an event hub, a megabyte or a thousand events a second, that is a third of a message's time.
const NAMED_QUEUE_KB: &str = "4096";
const NAMED_QUEUE_MESSAGES: &str = "5000";
/// One setting under two names.
const MESSAGE_TIMEOUTS: &[&str] = &["message.timeout.ms", "delivery.timeout.ms"];

/// One writer's way out.
pub struct Resending {
    way: Way,
    /// `None` after an error: what it held must not be sent any more.
    sender: Option<Sender>,
    /// How carefully it sends.
    care: Care,
    /// Entries up to this one may have been sent in part, by this process or another.
    doubted: u64,
    /// When what was sent of them has arrived or never will.
    settled: Instant,
    shown: Option<u64>,
    /// An entry whose rows have all arrived but those that can never be.
    but_rejected: Option<u64>,
}

/// What a new sender is made of, and what is asked for what arrived.
#[derive(Clone)]
pub struct Way {
    pub endpoint: Endpoint,
    pub reports: Reports,
    pub asking: Connection,
    pub limits: Limits,
    /// Whether rows are named and read back: without, a crash sends them again.
    pub named: bool,
}

impl Way {
    fn sender(&self, care: Care) -> Result<Sender, KafkaError> {
        let mut config = producer(&self.endpoint, self.limits.largest, care);
        config.set("delivery.report.only.error", "false");
        if self.named {
            // What is queued must be sent before it expires, over a slow line too.
            config.set("queue.buffering.max.kbytes", NAMED_QUEUE_KB);
            config.set("queue.buffering.max.messages", NAMED_QUEUE_MESSAGES);
        }
        config.set("message.timeout.ms", self.message_timeout().as_millis().to_string());
        config.set("request.timeout.ms", request_timeout(&self.endpoint).as_millis().to_string());
        Sender::new(&self.endpoint, self.reports.clone(), self.limits, care, &config)
    }

    fn message_timeout(&self) -> Duration {
        let unsaid = if self.named { MESSAGE_TIMEOUT } else { UNNAMED_MESSAGE_TIMEOUT };
        millis(&self.endpoint, MESSAGE_TIMEOUTS).unwrap_or(unsaid)
    }

    /// When the job was last known to be ours. Another process that took it over may count on our silence.
    fn still_ours(&self, context: &SinkContext) -> Result<Instant, Trouble> {
        let asked = Instant::now();
        if self.named && !context.runtime.block_on(context.ownership.confirm()) {
            return Err(KafkaError::Global(RDKafkaErrorCode::Fenced).into());
        }
        Ok(asked)
    }
}

/// What an earlier sender may have left behind.
pub enum Past {
    /// Nothing: the writer was born with this process, which has sent nothing.
    None,
    /// Anything, up to the moment given.
    Sent { until: Instant },
}

impl Resending {
    pub fn new(way: Way, past: Past) -> Result<Self, KafkaError> {
        let care = Care::default();
        let sender = Some(way.sender(care)?);
        let (doubted, settled) = match past {
            Past::None => (0, Instant::now()),
            Past::Sent { until } => (u64::MAX, until + settled_after(&way.endpoint)),
        };
        Ok(Resending { way, sender, care, doubted, settled, shown: None, but_rejected: None })
    }

    pub fn shown(&self) -> Option<u64> {
        self.shown
    }

    /// Sends what is missing of these entries. `from`: where the partitions ended before any of it was sent. Rows that
    /// brokers can never take are the answer; the others of that entry may have arrived.
    pub fn show(
        &mut self,
        entries: &[Entry],
        layout: &Layout,
        from: &Ends,
        care: Care,
        context: &SinkContext,
    ) -> Result<Vec<(u64, RejectedRow)>, Trouble> {
        if care != self.care {
            (self.sender, self.care) = (None, care);
        }
        for entry in entries {
            if self.but_rejected != Some(entry.number) {
                let sent = self.send(entry, layout, from, context);
                if sent.as_ref().is_ok_and(|rejected| !rejected.is_empty()) {
                    self.but_rejected = Some(entry.number);
                }
                let rejected = sent.or_else(|error| self.stop(entry, error))?;
                if !rejected.is_empty() {
                    return Ok(rejected.into_iter().map(|row| (entry.number, row)).collect());
                }
            }
            self.shown = Some(entry.number);
        }
        Ok(vec![])
    }

    /// After an error, what is known of the rows that brokers refused is of use to the next try, if anything is.
    fn stop(&mut self, entry: &Entry, error: Trouble) -> Result<Vec<RejectedRow>, Trouble> {
        let sender = self.sender.take();
        let answered = sender.as_ref().is_some_and(Sender::is_answered);
        let until = if answered { Duration::ZERO } else { settled_after(&self.way.endpoint) };
        self.settled = Instant::now() + until;
        let rejected = sender.map_or(vec![], |sender| entry.refused(0, &sender.refused()));
        if rejected.is_empty() { Err(error) } else { Ok(rejected) }
    }

    fn send(
        &mut self,
        entry: &Entry,
        layout: &Layout,
        from: &Ends,
        context: &SinkContext,
    ) -> Result<Vec<RejectedRow>, Trouble> {
        let mut there = HashSet::new();
        if self.way.named && entry.number <= self.doubted {
            there = self.look_back(entry, from)?;
        }
        // Without names, rows that are gone are taken for sent: they are deleted by nobody before they are.
        if self.way.named {
            entry.check_gone(Some(&there))?;
        }
        self.doubted = self.doubted.max(entry.number);
        crash_point("before-sending");
        let way = &self.way;
        let mut asked = way.still_ours(context)?;
        let half = way.message_timeout() / 2;
        let sender = match &mut self.sender {
            Some(sender) => sender,
            none => none.insert(way.sender(self.care)?),
        };
        let handing = entry::Way { layout, apart: self.care.apart(), number: 0 };
        let mut rejected = entry.send(sender, handing, |token, row| {
            if asked.elapsed() > half {
                asked = way.still_ours(context)?;
            }
            Ok(match way.named {
                _ if there.contains(&(token, row)) => Fate::Stays,
                true => Fate::SentNamed,
                false => Fate::Sent,
            })
        })?;
        crash_point("while-sending");
        sender.settle(way.message_timeout() + request_timeout(&way.endpoint))?;
        rejected.extend(entry.refused(0, &sender.refused()));
        crash_point("after-sending");
        Ok(rejected)
    }

    /// What of an entry has arrived, once nothing of it can be on its way.
    fn look_back(&self, entry: &Entry, from: &Ends) -> Result<HashSet<(usize, u64)>, Trouble> {
        std::thread::sleep(self.settled.saturating_duration_since(Instant::now()));
        let Way { endpoint, reports, asking, .. } = &self.way;
        arrived(endpoint, reports, asking, from, &entry.provenance, false)
    }
}

/// When nothing of a sender that was stopped, or that was told that the job is another's, can arrive any more: it asks
/// within half a message's time, and what it queued then lives as long as a message, and a request.
pub fn settled_after(endpoint: &Endpoint) -> Duration {
    message_timeout(endpoint) * 2 + request_timeout(endpoint)
}

fn message_timeout(endpoint: &Endpoint) -> Duration {
    millis(endpoint, MESSAGE_TIMEOUTS).unwrap_or(MESSAGE_TIMEOUT)
}

fn request_timeout(endpoint: &Endpoint) -> Duration {
    millis(endpoint, &["request.timeout.ms"]).unwrap_or(REQUEST_TIMEOUT)
}

/// What the table says of a setting that has several names.
fn millis(endpoint: &Endpoint, names: &[&str]) -> Option<Duration> {
    let said = endpoint.properties.iter().rfind(|(name, _)| names.contains(&name.as_str()));
    said.and_then(|(_, value)| value.trim().parse().ok()).map(Duration::from_millis)
}
