//! What can be told of stored events by themselves, when nobody knows what was sent.

use std::collections::{HashMap, HashSet};
use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use serde::Serialize;

use crate::verification::{
    Commits, Latency, Throughput, known, latency, named, out_of_sequence, throughput, verdict, write_pace,
};

/// Takes stored rows in any order.
#[derive(Debug, Default)]
pub struct Stored {
    rows: u64,
    events: HashSet<u128>,
    devices: HashMap<String, u32>,
    /// Device, when it became visible, sequence number.
    shown: Vec<(u32, i64, i64)>,
    commits: Commits,
    latencies: Vec<i64>,
    untimed: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredReport {
    pub rows: u64,
    pub events: u64,
    /// Rows beyond the first of an event.
    pub duplicates: u64,
    /// Numbers between a device's lowest and its highest that no row has. `None` if that cannot be told: rows have no device
    /// or no number, or a device has the same number for several events, as several simulators side by side give them.
    pub missing: Option<u64>,
    /// `None` if nobody knows when rows became visible.
    pub out_of_sequence: Option<u64>,
    pub throughput: Option<Throughput>,
    pub latency: Option<Latency>,
    /// The share of rows that may be copies.
    pub copies_allowed: f64,
    /// Whether it is enough that nothing that can be told is wrong, though what is missing cannot.
    pub unnumbered: bool,
}

impl Stored {
    /// Rows that became visible at the same time. `time`: milliseconds since 1970, if it is known.
    pub fn take(&mut self, time: Option<i64>, batch: &RecordBatch) -> Result<(), String> {
        let column = |name: &str, data_type: &DataType| match named(batch, name) {
            Some(column) => cast(column, data_type).map(Some).map_err(|e| format!("column {name}: {e}")),
            None => Ok(None),
        };
        let ids = column("eventId", &DataType::Utf8)?
            .ok_or("the table has no column eventId, by which events are told apart")?;
        let device = column("deviceId", &DataType::Utf8)?;
        let number = column("deviceSequenceNumber", &DataType::Int64)?;
        let enqueued = column("enqueuedAt", &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())))?;
        self.rows += batch.num_rows() as u64;
        self.untimed |= time.is_none();
        self.commits.add(time.unwrap_or_default(), batch.num_rows() as u64);
        for id in ids.as_string::<i32>().iter() {
            self.events.insert(xxhash_rust::xxh3::xxh3_128(id.unwrap_or_default().as_bytes()));
        }
        if let (Some(devices), Some(numbers)) = (device, number) {
            let numbers = numbers.as_primitive::<Int64Type>();
            for (row, device) in devices.as_string::<i32>().iter().enumerate().filter(|(row, _)| numbers.is_valid(*row))
            {
                let next = self.devices.len() as u32;
                let device = match self.devices.get(device.unwrap_or_default()) {
                    Some(device) => *device,
                    None => *self.devices.entry(device.unwrap_or_default().to_string()).or_insert(next),
                };
                self.shown.push((device, time.unwrap_or_default(), numbers.value(row)));
            }
        }
        if let (Some(time), Some(enqueued)) = (time, enqueued) {
            let enqueued = enqueued.as_primitive::<TimestampMillisecondType>();
            self.latencies.extend(enqueued.iter().flatten().map(|at| time - at));
        }
        Ok(())
    }

    /// `copies_allowed`: the share of rows that may be copies. `unnumbered`: rows need no numbers.
    pub fn report(mut self, copies_allowed: f64, unnumbered: bool) -> StoredReport {
        self.shown.sort_unstable();
        let ordered = !self.untimed && !self.shown.is_empty();
        let out_of_sequence = ordered.then(|| out_of_sequence(&self.shown));
        self.shown.sort_unstable_by_key(|(device, _, number)| (*device, *number));
        let numbers = self.shown.chunk_by(|one, other| (one.0, one.2) == (other.0, other.2)).count();
        let told = numbers == self.events.len();
        let missing = self.shown.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        let missing = missing.map(|pair| (pair[1].2 - pair[0].2 - 1).max(0) as u64).sum();
        self.latencies.sort_unstable();
        let events = self.events.len() as u64;
        StoredReport {
            rows: self.rows,
            events,
            duplicates: self.rows - events,
            missing: told.then_some(missing),
            out_of_sequence,
            throughput: if self.untimed { None } else { throughput(&self.commits.in_order()) },
            latency: latency(&self.latencies),
            copies_allowed,
            unnumbered,
        }
    }
}

impl StoredReport {
    /// There are rows, nothing is missing, and no more of them are copies than may be.
    pub fn holds(&self) -> bool {
        let complete = self.missing.map_or(self.unnumbered, |missing| missing == 0);
        self.rows > 0 && self.excess() == 0 && complete
    }

    /// Copies beyond those that may be.
    fn excess(&self) -> u64 {
        self.duplicates.saturating_sub((self.copies_allowed * self.rows as f64) as u64)
    }
}

impl fmt::Display for StoredReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rows                 {:>12}", self.rows)?;
        writeln!(f, "events               {:>12}", self.events)?;
        writeln!(f, "duplicates           {:>12}   {}", self.duplicates, verdict(self.excess()))?;
        let missing = self.missing.map_or(
            "cannot be told: a device has no numbers, or one number for several events. Compare with --seed, or say --unnumbered",
            verdict,
        );
        writeln!(f, "missing              {:>12}   {missing}", known(self.missing))?;
        writeln!(f, "out of sequence      {:>12}", known(self.out_of_sequence))?;
        write_pace(f, &self.throughput, &self.latency)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn rows(of: &[(&str, &str, i64)], enqueued: i64) -> RecordBatch {
        let text = |f: fn(&(&str, &str, i64)) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(of.iter().map(f)))
        };
        let times = TimestampMillisecondArray::from(vec![enqueued; of.len()]).with_timezone("UTC");
        RecordBatch::try_from_iter([
            ("eventId", text(|row| row.0.into())),
            ("deviceId", text(|row| row.1.into())),
            ("deviceSequenceNumber", Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.2))) as ArrayRef),
            ("enqueuedAt", Arc::new(times)),
        ])
        .unwrap()
    }

    #[test]
    fn gaps_copies_and_disorder_are_counted_by_device() {
        let mut stored = Stored::default();
        stored.take(Some(5_000), &rows(&[("a", "d", 1), ("b", "d", 4), ("c", "e", 7)], 4_000)).unwrap();
        stored.take(Some(7_000), &rows(&[("d", "d", 3), ("a", "d", 1), ("e", "e", 8)], 6_500)).unwrap();
        let report = stored.report(0.0, false);
        assert_eq!((report.rows, report.events, report.duplicates), (6, 5, 1));
        assert_eq!(report.missing, Some(1), "number 2 of d");
        assert!(!report.holds());
        assert_eq!(report.latency.clone().map(|l| (l.p50, l.max)), Some((1000, 1000)));
        assert!(report.throughput.is_some());
        assert!(report.to_string().contains("missing                         1   WRONG"), "{report}");
    }

    #[test]
    fn copies_may_be_a_share_of_all_rows() {
        let mut stored = Stored::default();
        stored.take(None, &rows(&[("a", "d", 1), ("b", "d", 2), ("b", "d", 2)], 0)).unwrap();
        let mut report = stored.report(0.4, false);
        assert!(report.holds());
        report.copies_allowed = 0.3;
        assert!(!report.holds());
        assert_eq!((report.throughput, report.latency), (None, None), "nobody knows when");
    }

    #[test]
    fn numbers_of_several_simulators_hide_what_is_missing_and_that_is_said() {
        let of = |unnumbered| {
            let mut stored = Stored::default();
            stored.take(Some(1), &rows(&[("a", "d", 1), ("b", "d", 1), ("c", "d", 2)], 0)).unwrap();
            stored.report(0.0, unnumbered)
        };
        assert_eq!(of(false).missing, None);
        assert!(!of(false).holds() && of(true).holds());
        assert!(of(false).to_string().contains("cannot be told"));
    }

    #[test]
    fn an_empty_table_is_not_as_it_should_be() {
        assert!(!Stored::default().report(1.0, true).holds());
    }

    #[test]
    fn a_table_without_ids_is_named() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(Stored::default().take(None, &batch).unwrap_err().contains("eventId"));
        let named: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let batch = RecordBatch::try_from_iter([("EventId", named)]).unwrap();
        Stored::default().take(None, &batch).expect("databases have names of their own");
    }
}
