//! Was every event sent stored once, unaltered, and how soon? Judged from what was sent, not from what looks plausible.
//!
//! The seed's own check takes the best minute, tolerates any disorder and cannot see a loss at the ends; since the
//! generator is ours, the sent events themselves are the reference.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Event;

/// Takes what was sent and what is stored, and tells the difference.
#[derive(Debug, Default)]
pub struct Verification {
    events: HashMap<u128, Sent>,
    copies: u64,
    rows: u64,
    strangers: u64,
    altered: u64,
    /// Device, when it became visible, sequence number.
    shown: Vec<(u32, i64, i64)>,
    commits: Commits,
    latencies: Vec<i64>,
    /// Whether it is not known of all rows when they became visible.
    untimed: bool,
    /// Whether nobody knows when the devices were started, and so when events were made.
    start_is_unknown: bool,
}

#[derive(Debug)]
struct Sent {
    device: u32,
    content: u64,
    stored: u32,
}

impl Verification {
    /// Of events that were made at an unknown time: `createdAt` is not compared.
    pub fn of_unknown_start() -> Self {
        Verification { start_is_unknown: true, ..Verification::default() }
    }

    /// An event that the broker has, `copies` times more than once.
    pub fn sent(&mut self, event: &Event) {
        let content = Content::of_payload(&event.payload).map_or(0, |c| c.hash_of(self.start_is_unknown));
        self.events.insert(event.id, Sent { device: event.device, content, stored: 0 });
        self.copies += u64::from(event.copies);
    }

    pub fn sent_count(&self) -> u64 {
        self.events.len() as u64
    }

    /// Rows that became visible with one commit, or some of them, in any order. `time`: milliseconds since 1970.
    pub fn commit(&mut self, time: i64, batches: &[RecordBatch]) -> Result<(), String> {
        batches.iter().try_for_each(|batch| self.take(Some(time), batch))
    }

    /// Rows that became visible together. `time`: milliseconds since 1970, if it is known.
    pub fn take(&mut self, time: Option<i64>, batch: &RecordBatch) -> Result<(), String> {
        match time {
            Some(time) => self.commits.add(time, batch.num_rows() as u64),
            None => self.untimed = true,
        }
        let columns = Columns::of(batch)?;
        for row in 0..batch.num_rows() {
            self.rows += 1;
            let content = columns.content(row);
            let id = uuid::Uuid::parse_str(content.event_id).map(|id| id.as_u128()).ok();
            let Some(sent) = id.and_then(|id| self.events.get_mut(&id)) else {
                self.strangers += 1;
                continue;
            };
            sent.stored += 1;
            let sequence = content.sequence;
            self.altered += u64::from(sent.content != content.hash_of(self.start_is_unknown));
            let Some(time) = time else { continue };
            self.shown.push((sent.device, time, sequence));
            if let Some(enqueued) = columns.enqueued_at(row) {
                self.latencies.push(time - enqueued / 1000);
            }
        }
        Ok(())
    }

    pub fn report(mut self) -> Report {
        self.shown.sort_unstable();
        self.latencies.sort_unstable();
        Report {
            sent: self.events.len() as u64,
            copies: self.copies,
            rows: self.rows,
            duplicates: self.events.values().map(|s| u64::from(s.stored.saturating_sub(1))).sum(),
            missing: self.events.values().filter(|s| s.stored == 0).count() as u64,
            strangers: self.strangers,
            altered: self.altered,
            out_of_sequence: (!self.untimed).then(|| out_of_sequence(&self.shown)),
            throughput: if self.untimed { None } else { throughput(&self.commits.in_order()) },
            latency: latency(&self.latencies),
        }
    }
}

/// Rows whose sequence number is more than one above that of the row shown before it for the same device (the seed's
/// definition), that is, rows that became visible before one that came earlier.
pub(crate) fn out_of_sequence(shown: &[(u32, i64, i64)]) -> u64 {
    shown.windows(2).filter(|w| w[0].0 == w[1].0 && w[1].2 - w[0].2 > 1).count() as u64
}

/// When rows became visible, milliseconds since 1970, and how many did. Those of one moment belong to one commit.
#[derive(Debug, Default)]
pub(crate) struct Commits(BTreeMap<i64, u64>);

impl Commits {
    pub fn add(&mut self, time: i64, rows: u64) {
        *self.0.entry(time).or_default() += rows;
    }

    pub fn in_order(&self) -> Vec<(i64, u64)> {
        self.0.iter().map(|(time, rows)| (*time, *rows)).collect()
    }
}

/// Whole seconds beyond which nobody asks for the lowest: a wrong clock is at work.
const LONGEST: i64 = 10_000_000;

/// Of commits in the order of their times. A commit's rows are spread over the time since the commit before it, so that a whole second's rate does not depend
/// on whether one or two commits fall into it. The first commit has none before it and is left out.
pub(crate) fn throughput(commits: &[(i64, u64)]) -> Option<Throughput> {
    let (first, last) = (commits.first()?.0, commits.last()?.0);
    let seconds = (last - first) / 1000;
    if seconds > LONGEST {
        return None;
    }
    let seconds = seconds as usize;
    let mut rates = vec![0.0; seconds];
    for pair in commits.windows(2) {
        let (from, to) = ((pair[0].0 - first) as f64 / 1000.0, (pair[1].0 - first) as f64 / 1000.0);
        let rate = pair[1].1 as f64 / (to - from).max(0.001);
        let touched = rates.iter_mut().enumerate().skip(from as usize).take(to.ceil() as usize - from as usize);
        for (second, sum) in touched {
            let (begin, end) = (second as f64, second as f64 + 1.0);
            *sum += rate * (to.min(end) - from.max(begin)).max(0.0);
        }
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    rates.iter().copied().min_by(f64::total_cmp).map(|min| Throughput { min, mean, seconds })
}

/// Of sorted milliseconds.
pub(crate) fn latency(sorted: &[i64]) -> Option<Latency> {
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let max = *sorted.last()?;
    Some(Latency { p50: at(0.5), p95: at(0.95), p99: at(0.99), max })
}

/// Events a second that became visible, over whole seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    pub min: f64,
    pub mean: f64,
    pub seconds: usize,
}

/// Milliseconds from enqueue to commit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    pub p50: i64,
    pub p95: i64,
    pub p99: i64,
    pub max: i64,
}

/// What the comparison found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub sent: u64,
    pub copies: u64,
    pub rows: u64,
    /// Rows beyond the first of an event.
    pub duplicates: u64,
    pub missing: u64,
    /// Rows of events that nobody sent.
    pub strangers: u64,
    /// Rows that are not what was sent, at the precision of the sink.
    pub altered: u64,
    /// `None` if it is not known of all rows when they became visible.
    pub out_of_sequence: Option<u64>,
    pub throughput: Option<Throughput>,
    /// Of the rows of which it is known.
    pub latency: Option<Latency>,
}

impl Report {
    /// Nothing lost, repeated or altered.
    pub fn holds(&self) -> bool {
        self.missing + self.duplicates + self.strangers + self.altered == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "events sent          {:>12}", self.sent)?;
        if self.copies > 0 {
            writeln!(f, "copies sent          {:>12}", self.copies)?;
        }
        writeln!(f, "rows                 {:>12}", self.rows)?;
        writeln!(f, "duplicates           {:>12}   {}", self.duplicates, verdict(self.duplicates))?;
        writeln!(f, "missing              {:>12}   {}", self.missing, verdict(self.missing))?;
        writeln!(f, "payload mismatches   {:>12}   {}", self.altered, verdict(self.altered))?;
        writeln!(f, "never sent           {:>12}   {}", self.strangers, verdict(self.strangers))?;
        writeln!(
            f,
            "out of sequence      {:>12}   (a device's events travel in several partitions)",
            known(self.out_of_sequence)
        )?;
        write_pace(f, &self.throughput, &self.latency)
    }
}

pub(crate) fn known(n: Option<u64>) -> String {
    n.map_or("-".to_string(), |n| n.to_string())
}

pub(crate) fn verdict(n: u64) -> &'static str {
    if n == 0 { "ok" } else { "WRONG" }
}

/// How fast rows became visible, and how soon.
pub(crate) fn write_pace(
    f: &mut fmt::Formatter<'_>,
    throughput: &Option<Throughput>,
    latency: &Option<Latency>,
) -> fmt::Result {
    match throughput {
        Some(t) => writeln!(
            f,
            "events a second      {:>12.0}   mean of {} whole seconds, min {:.0}",
            t.mean, t.seconds, t.min
        )?,
        None => writeln!(
            f,
            "events a second      {:>12}   not known, or less than a second between the first commit and the last",
            "-"
        )?,
    }
    match latency {
        Some(l) => writeln!(
            f,
            "latency, ms          {:>12}   p50, enqueue to commit; p95 {}, p99 {}, max {}",
            l.p50, l.p95, l.p99, l.max
        ),
        None => writeln!(f, "latency, ms          {:>12}", "-"),
    }
}

/// The fields of an event that a table keeps, in a form in which a payload and a row can be compared.
struct Content<'a> {
    event_id: &'a str,
    complex_data: &'a str,
    value: f64,
    kind: &'a str,
    device_id: &'a str,
    sequence: i64,
    created_micros: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    event_id: &'a str,
    #[serde(borrow)]
    complex_data: &'a RawValue,
    // Raw, since serde_json's default reading of numbers may be off by one unit in the last place.
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(rename = "type")]
    kind: &'a str,
    device_id: &'a str,
    device_sequence_number: i64,
    created_at: &'a str,
}

impl<'a> Content<'a> {
    fn of_payload(payload: &'a [u8]) -> Option<Content<'a>> {
        let payload: Payload = serde_json::from_slice(payload).ok()?;
        Some(Content {
            event_id: payload.event_id,
            complex_data: payload.complex_data.get(),
            value: payload.value.get().parse().ok()?,
            kind: payload.kind,
            device_id: payload.device_id,
            sequence: payload.device_sequence_number,
            created_micros: chrono::DateTime::parse_from_rfc3339(payload.created_at).ok()?.timestamp_micros(),
        })
    }

    /// With or without the time at which it was made.
    fn hash_of(self, start_is_unknown: bool) -> u64 {
        let made_at = if start_is_unknown { 0 } else { self.created_micros };
        Content { created_micros: made_at, ..self }.hash()
    }

    fn hash(&self) -> u64 {
        let Content { event_id, complex_data, value, kind, device_id, sequence, created_micros } = self;
        let numbers = (value.to_bits(), sequence, created_micros);
        // By value: a store of documents may keep fields in another order, and writes numbers as it likes.
        let complex_data = serde_json::from_str(complex_data).map_or_else(|_| complex_data.to_string(), in_order);
        let text = format!("{event_id}\0{complex_data}\0{kind}\0{device_id}\0{numbers:?}");
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}

/// The same JSON, always written alike: `Value` keeps fields by their names, and each double has one shortest form.
fn in_order(json: serde_json::Value) -> String {
    json.to_string()
}

/// A column by its name: exactly, else without regard to case, as databases have it.
pub fn named<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a arrow::array::ArrayRef> {
    batch.column_by_name(name).or_else(|| {
        let alike = batch.schema_ref().fields().iter().position(|field| field.name().eq_ignore_ascii_case(name));
        alike.map(|index| batch.column(index))
    })
}

/// The columns of a batch of the table, in the types that they are compared in.
struct Columns {
    texts: [arrow::array::ArrayRef; 4],
    value: arrow::array::ArrayRef,
    sequence: arrow::array::ArrayRef,
    times: [arrow::array::ArrayRef; 2],
}

impl Columns {
    const NAMES: [&'static str; 8] =
        ["eventId", "complexData", "type", "deviceId", "value", "deviceSequenceNumber", "createdAt", "enqueuedAt"];

    fn of(batch: &RecordBatch) -> Result<Columns, String> {
        let column = |name: &str, data_type: &DataType| {
            let column = named(batch, name).ok_or_else(|| {
                format!("the table has no column {name}; the verification reads {}", Self::NAMES.join(", "))
            })?;
            cast(column, data_type).map_err(|e| format!("column {name}: {e}"))
        };
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let text = |name| column(name, &DataType::Utf8);
        Ok(Columns {
            texts: [text("eventId")?, text("complexData")?, text("type")?, text("deviceId")?],
            value: column("value", &DataType::Float64)?,
            sequence: column("deviceSequenceNumber", &DataType::Int64)?,
            times: [column("createdAt", &instant)?, column("enqueuedAt", &instant)?],
        })
    }

    fn content(&self, row: usize) -> Content<'_> {
        let [event_id, complex_data, kind, device_id] = [0, 1, 2, 3].map(|i| {
            let texts = self.texts[i].as_string::<i32>();
            if texts.is_null(row) { "" } else { texts.value(row) }
        });
        Content {
            event_id,
            complex_data,
            kind,
            device_id,
            value: self.value.as_primitive::<Float64Type>().value(row),
            sequence: self.sequence.as_primitive::<Int64Type>().value(row),
            created_micros: self.times[0].as_primitive::<TimestampMicrosecondType>().value(row),
        }
    }

    /// Microseconds since 1970.
    fn enqueued_at(&self, row: usize) -> Option<i64> {
        let times = self.times[1].as_primitive::<TimestampMicrosecondType>();
        times.is_valid(row).then(|| times.value(row))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;
    use crate::{Generator, Settings};

    fn events(count: usize) -> Vec<Event> {
        let settings = Settings {
            devices: 3,
            rate: 100.0,
            duplicate_every: 0,
            seed: 7,
            start: 1_700_000_000_000_000_000,
            ..Settings::default()
        };
        Generator::new(settings).take(count).collect()
    }

    fn table(events: &[&Event]) -> RecordBatch {
        let contents: Vec<Content> = events.iter().map(|e| Content::of_payload(&e.payload).unwrap()).collect();
        let text =
            |f: fn(&Content) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(contents.iter().map(f))) };
        let created = TimestampMicrosecondArray::from_iter_values(contents.iter().map(|c| c.created_micros));
        let enqueued = TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.due / 1000));
        RecordBatch::try_from_iter([
            ("eventId", text(|c| c.event_id.into())),
            ("complexData", text(|c| c.complex_data.into())),
            ("type", text(|c| c.kind.into())),
            ("deviceId", text(|c| c.device_id.into())),
            ("value", Arc::new(Float64Array::from_iter_values(contents.iter().map(|c| c.value))) as ArrayRef),
            ("deviceSequenceNumber", Arc::new(Int64Array::from_iter_values(contents.iter().map(|c| c.sequence)))),
            ("createdAt", Arc::new(created.with_timezone("UTC"))),
            ("enqueuedAt", Arc::new(enqueued.with_timezone("UTC"))),
        ])
        .unwrap()
    }

    fn verify(sent: &[Event], commits: &[&[&Event]]) -> Report {
        let mut verification = Verification::default();
        sent.iter().for_each(|e| verification.sent(e));
        for (second, stored) in commits.iter().enumerate() {
            verification.commit(sent[0].due / 1_000_000 + 1000 * second as i64, &[table(stored)]).unwrap();
        }
        verification.report()
    }

    #[test]
    fn json_is_compared_by_its_values_and_not_by_how_it_is_written() {
        let hash = |complex_data| {
            Content {
                event_id: "e",
                complex_data,
                value: 1.0,
                kind: "TEMP",
                device_id: "d",
                sequence: 1,
                created_micros: 0,
            }
            .hash()
        };
        assert_eq!(hash(r#"{ "a": 0.5, "b": 10.25 }"#), hash(r#"{"b":1.025e1,"a":0.5}"#));
        assert_ne!(
            hash(r#"{"a": 0.1234567890123456}"#),
            hash(r#"{"a": 0.1234567890123457}"#),
            "one unit in the last place"
        );
        assert_ne!(hash(r#"{"a": 1}"#), hash(r#"{"b": 1}"#));
    }

    #[test]
    fn every_event_once_holds() {
        let sent = events(6);
        let report = verify(&sent, &[&sent[..3].iter().collect::<Vec<_>>(), &sent[3..].iter().collect::<Vec<_>>()]);
        assert!(report.holds(), "{report}");
        assert_eq!((report.sent, report.rows, report.out_of_sequence), (6, 6, Some(0)));
        assert_eq!(report.throughput, Some(Throughput { min: 3.0, mean: 3.0, seconds: 1 }));
    }

    #[test]
    fn a_lost_a_repeated_an_altered_and_a_strange_row_are_each_seen() {
        let sent = events(4);
        let mut altered = sent[1].clone();
        let digit = altered.payload.iter().position(|b| *b == b'.').unwrap() + 1;
        altered.payload[digit] = if altered.payload[digit] == b'1' { b'2' } else { b'1' };
        let stranger = events(5).pop().unwrap();
        let report = verify(&sent, &[&[&sent[0], &sent[0], &altered, &sent[2], &stranger]]);
        assert!(!report.holds());
        assert_eq!((report.duplicates, report.missing, report.altered, report.strangers), (1, 1, 1, 1));
    }

    #[test]
    fn it_does_not_matter_in_which_order_commits_are_read() {
        let sent = events(9);
        let of_one: Vec<&Event> = sent.iter().filter(|e| e.device == sent[0].device).collect();
        let mut verification = Verification::default();
        sent.iter().for_each(|e| verification.sent(e));
        for (time, event) in [(3000, of_one[2]), (1000, of_one[0]), (2000, of_one[1]), (1000, of_one[0])] {
            verification.commit(time, &[table(&[event])]).unwrap();
        }
        let report = verification.report();
        assert_eq!((report.out_of_sequence, report.duplicates), (Some(0), 1));
        assert_eq!(report.throughput, Some(Throughput { min: 1.0, mean: 1.0, seconds: 2 }));
    }

    #[test]
    fn rows_shown_before_earlier_ones_are_out_of_sequence() {
        let sent = events(9);
        let of_one: Vec<&Event> = sent.iter().filter(|e| e.device == sent[0].device).collect();
        let report = verify(&sent, &[&[of_one[0], of_one[2]], &[of_one[1]]]);
        assert_eq!(report.out_of_sequence, Some(1));
    }

    #[test]
    fn where_some_rows_have_no_time_only_what_the_others_took_is_told() {
        let sent = events(9);
        let mut verification = Verification::default();
        sent.iter().for_each(|e| verification.sent(e));
        let (old, new): (Vec<&Event>, Vec<&Event>) = sent.iter().partition(|e| e.id != sent[8].id);
        verification.take(None, &table(&old)).unwrap();
        verification.take(Some(sent[8].due / 1_000_000 + 70), &table(&new)).unwrap();
        let report = verification.report();
        assert!(report.holds(), "{report}");
        assert_eq!((report.out_of_sequence, &report.throughput), (None, &None));
        assert_eq!(report.latency, Some(Latency { p50: 70, p95: 70, p99: 70, max: 70 }));
    }
}
