//! A job's numbers in Prometheus' text format.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::dedup::Size;
use engine::durations::{BOUNDS, Durations};
use engine::metrics::{LookupMetrics, Metrics, RequestMetrics, SinkMetrics};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// The page that `/metrics` answers with. `now`: nanoseconds since 1970, from which ages are told.
pub fn page(metrics: &Metrics, now: i64) -> Result<String, prometheus::Error> {
    let mut families = vec![];
    sources(metrics, &mut families);
    splits(metrics, now, &mut families);
    deduplications(metrics, &mut families);
    lookups(metrics, now, &mut families);
    sinks(metrics, &mut families);
    checkpoints(metrics, now, &mut families);
    let mut text = vec![];
    // A family without a metric is an error to the encoder: a job without deduplication has some.
    families.retain(|family: &MetricFamily| !family.get_metric().is_empty());
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn sources(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    let sources = metrics.sources.read();
    let each = |value: &dyn Fn(&engine::metrics::SourceMetrics) -> f64| -> Vec<Labelled> {
        sources.iter().map(|(table, m)| (vec![label("table", table)], value(m))).collect()
    };
    families.extend([
        counter("source_skipped_total", "Records without a payload.", each(&|m| m.skipped.get() as f64)),
        counter("source_retries_total", "What went wrong and was tried again.", each(&|m| m.retries.get() as f64)),
        counter(
            "source_throttle_seconds_total",
            "How long the system told its reader to wait, over all its brokers.",
            each(&|m| m.throttled_millis.get() as f64 / 1e3),
        ),
        gauge("source_in_trouble", "1 while the system cannot be reached.", {
            each(&|m| m.trouble.read().is_some() as u8 as f64)
        }),
        gauge("source_discovery_in_trouble", "1 while new splits cannot be read yet.", {
            each(&|m| m.discovery_trouble.read().is_some() as u8 as f64)
        }),
    ]);
}

fn splits(metrics: &Metrics, now: i64, families: &mut Vec<MetricFamily>) {
    let splits = metrics.splits.read();
    let each = |value: &dyn Fn(&engine::metrics::SplitMetrics) -> Option<f64>| -> Vec<Labelled> {
        let labels = |group: &str| {
            let (table, split) = group.split_once('/').unwrap_or((group, ""));
            vec![label("table", table), label("split", split)]
        };
        splits.iter().filter_map(|(group, m)| Some((labels(group), value(m)?))).collect()
    };
    type Count = fn(&engine::metrics::SplitMetrics) -> u64;
    let counts: [(&str, &str, Count); 4] = [
        ("source_records_total", "Records consumed, bad and skipped ones included.", |m| m.records.get()),
        ("source_rows_total", "Rows that records became.", |m| m.rows.get()),
        ("source_bytes_total", "Payload bytes consumed.", |m| m.bytes.get()),
        ("source_rejected_total", "Records that could not be decoded.", |m| m.rejected.get()),
    ];
    for (name, help, value) in counts {
        families.push(family(name, help, MetricType::COUNTER, each(&|m| Some(value(m) as f64))));
    }
    let seconds_behind = |time: i64| (now - time).max(0) as f64 / 1e9;
    families.extend([
        gauge("source_offset", "The next offset to read.", each(&|m| Some(m.offset.get() as f64))),
        gauge("source_lag_records", "Records between the position and the end that the log last stated.", {
            each(&|m| Some(m.lag.get() as f64))
        }),
        gauge("source_idle", "1 while the reader stands at the end that the log stated.", {
            each(&|m| Some(m.idle.get() as u8 as f64))
        }),
        gauge("source_watermark_delay_seconds", "How far the watermark is behind the wall clock.", {
            each(&|m| Some(m.event_time.get()).filter(|t| *t > 0).map(|t| seconds_behind(t as i64)))
        }),
        gauge(
            "source_log_time_delay_seconds",
            "How far the log's own timestamp of what was read is behind the wall clock.",
            each(&|m| Some(m.log_time.get()).filter(|t| *t > 0).map(seconds_behind)),
        ),
    ]);
}

fn deduplications(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    let operators = metrics.dedup.read();
    let each = |value: &dyn Fn(&engine::metrics::DedupMetrics) -> u64| -> Vec<Labelled> {
        operators.iter().map(|(id, m)| (vec![label("operator", id)], value(m) as f64)).collect()
    };
    let size =
        |part: fn(&Size) -> u64| move |m: &engine::metrics::DedupMetrics| m.size.read().values().map(part).sum::<u64>();
    families.extend([
        counter("dedup_rows_total", "Rows judged.", each(&|m| m.rows.get())),
        counter("dedup_copies_total", "Rows left out as copies.", each(&|m| m.copies.get())),
        counter("dedup_unjudged_total", "Rows older than the window.", each(&|m| m.unjudged.get())),
        gauge("dedup_keys", "Keys in the window.", each(&size(|s| s.keys))),
        gauge("dedup_memory_bytes", "Memory that they take.", each(&size(|s| s.memory_bytes))),
        gauge("dedup_disk_bytes", "Disk that they take, beyond 'deduplicate.memory'.", each(&size(|s| s.disk_bytes))),
    ]);
}

fn lookups(metrics: &Metrics, now: i64, families: &mut Vec<MetricFamily>) {
    let tables = metrics.lookups.read();
    let each = |value: &dyn Fn(&LookupMetrics) -> Option<f64>| -> Vec<Labelled> {
        tables.iter().filter_map(|(table, m)| Some((vec![label("table", table)], value(m)?))).collect()
    };
    type Count = fn(&LookupMetrics) -> u64;
    let counts: [(&str, &str, Count); 6] = [
        ("lookup_rows_total", "Rows that were looked up.", |m| m.rows.get()),
        ("lookup_unmatched_total", "Those that met nothing.", |m| m.unmatched.get()),
        ("lookup_rejected_total", "Those whose lookup cannot be.", |m| m.rejected.get()),
        ("lookup_keys_total", "Different keys of a batch.", |m| m.keys.get()),
        ("lookup_asked_total", "Keys that the table was asked for.", |m| m.asked.get()),
        ("lookup_retries_total", "Requests that failed and were repeated.", |m| m.health.retries.get()),
    ];
    for (name, help, value) in counts {
        families.push(counter(name, help, each(&|m| Some(value(m) as f64))));
    }
    families.extend([
        gauge("lookup_waiting_rows", "Rows that wait for an answer.", each(&|m| Some(m.waiting.get() as f64))),
        gauge("lookup_kept_rows", "Rows, or answers, that are kept.", each(&|m| Some(m.kept_rows.get() as f64))),
        gauge("lookup_kept_bytes", "Memory that they take.", each(&|m| Some(m.kept_bytes.get() as f64))),
        gauge(
            "lookup_age_seconds",
            "Since a table that is kept whole was last looked at.",
            each(&|m| Some(m.loaded_at.get()).filter(|t| *t > 0).map(|t| (now - t as i64).max(0) as f64 / 1e9)),
        ),
        gauge("lookup_in_trouble", "1 while the table does not answer.", {
            each(&|m| Some(m.health.trouble.read().is_some() as u8 as f64))
        }),
    ]);
    let durations = tables.iter().map(|(table, m)| (vec![label("table", table)], &m.durations));
    families.push(histogram("lookup_request_seconds", "How long the table took to answer.", durations));
}

fn sinks(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    let sinks = metrics.sinks.read();
    let each = |value: &dyn Fn(&SinkMetrics) -> u64| -> Vec<Labelled> {
        sinks.iter().map(|(name, m)| (vec![label("sink", name)], value(m) as f64)).collect()
    };
    families.extend([
        counter("sink_rows_total", "Rows given to the sink's writers.", each(&|m| m.rows.get())),
        counter("sink_commits_total", "Commits.", each(&|m| m.commits.get())),
        counter(
            "sink_commit_retries_total",
            "Tries to write or commit that failed and were repeated.",
            each(&|m| m.health.retries.get()),
        ),
        counter("sink_rejected_total", "Rows that the sink can never take.", each(&|m| m.rejected.get())),
        gauge("sink_uncommitted_entries", "Entries that are published and not shown.", each(&|m| m.uncommitted.get())),
        gauge("sink_entry", "The newest entry that is shown.", each(&|m| m.last_entry.get())),
        gauge(
            "sink_in_trouble",
            "1 while writes or commits fail and are repeated.",
            each(&|m| m.health.trouble.read().is_some() as u64),
        ),
    ]);
    let durations = sinks.iter().map(|(name, m)| (vec![label("sink", name)], &m.commit_durations));
    families.push(histogram("sink_commit_seconds", "From the first try of a commit to shown.", durations));
    requests(&sinks, families);
}

/// Of the sinks that ask a service request by request.
fn requests(sinks: &BTreeMap<String, Arc<SinkMetrics>>, families: &mut Vec<MetricFamily>) {
    let asking = || sinks.iter().map(|(name, m)| (name, &m.requests)).filter(|(_, requests)| requests.sent.get() > 0);
    if asking().next().is_none() {
        return;
    }
    let each = |value: &dyn Fn(&RequestMetrics) -> f64| -> Vec<Labelled> {
        asking().map(|(name, requests)| (vec![label("sink", name)], value(requests))).collect()
    };
    families.extend([
        counter("sink_requests_total", "Requests to the sink's service.", each(&|m| m.sent.get() as f64)),
        counter("sink_request_rows_total", "Rows in them.", each(&|m| m.rows.get() as f64)),
        counter(
            "sink_requests_throttled_total",
            "Those that the service had no capacity for.",
            each(&|m| m.throttled.get() as f64),
        ),
        counter("sink_rows_found_total", "Rows that were there, or gone, already.", each(&|m| m.found.get() as f64)),
        counter(
            "sink_request_units_total",
            "What the requests cost, in the service's measure.",
            each(&|m| m.units.get()),
        ),
    ]);
    let durations = asking().map(|(name, requests)| (vec![label("sink", name)], &requests.durations));
    families.push(histogram("sink_request_seconds", "How long a request took.", durations));
}

fn checkpoints(metrics: &Metrics, now: i64, families: &mut Vec<MetricFamily>) {
    let checkpoints = &metrics.checkpoints;
    let one = |value: f64| vec![(vec![], value)];
    let published = checkpoints.published_at.get() as i64;
    families.extend([
        counter(
            "dead_letters_total",
            "Records and rows sent to the dead letter.",
            one(metrics.dead_letters.get() as f64),
        ),
        counter("checkpoints_total", "Cuts that are durable.", one(checkpoints.count.get() as f64)),
        gauge("checkpoint_entry", "The newest entry of the job log.", one(checkpoints.entry.get() as f64)),
        gauge("checkpoint_state_bytes", "State that the last one wrote.", one(checkpoints.last_bytes.get() as f64)),
        gauge("checkpoint_waiting", "Cuts that wait to be published.", one(checkpoints.waiting.get() as f64)),
        counter(
            "checkpoint_retries_total",
            "Tries to write a checkpoint that failed and were repeated.",
            one(checkpoints.health.retries.get() as f64),
        ),
        gauge(
            "checkpoint_in_trouble",
            "1 while the store does not take what a checkpoint writes.",
            one(checkpoints.health.trouble.read().is_some() as u8 as f64),
        ),
        histogram("checkpoint_seconds", "From barrier to publication.", [(vec![], &checkpoints.durations)].into_iter()),
    ]);
    if published > 0 {
        let age = one((now - published).max(0) as f64 / 1e9);
        families.push(gauge("checkpoint_age_seconds", "Since the last one was published.", age));
    }
}

type Labelled = (Vec<LabelPair>, f64);

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}

fn counter(name: &str, help: &str, metrics: Vec<Labelled>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, metrics)
}

fn gauge(name: &str, help: &str, metrics: Vec<Labelled>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, metrics)
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Labelled>) -> MetricFamily {
    let metric = |(labels, value): Labelled| {
        let mut metric = Metric::from_label(labels);
        if kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    };
    named(name, help, kind, metrics.into_iter().map(metric).collect())
}

fn histogram<'a>(
    name: &str,
    help: &str,
    metrics: impl Iterator<Item = (Vec<LabelPair>, &'a Durations)>,
) -> MetricFamily {
    let metric = |(labels, durations): (Vec<LabelPair>, &Durations)| {
        let counted = durations.counted();
        let bucket = |(bound, at_most): (&u64, &u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(Duration::from_millis(*bound).as_secs_f64());
            bucket.set_cumulative_count(*at_most);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_sample_count(counted.count);
        histogram.set_sample_sum(counted.sum.as_secs_f64());
        histogram.set_bucket(BOUNDS.iter().zip(&counted.at_most).map(bucket).collect());
        let mut metric = Metric::from_label(labels);
        metric.set_histogram(histogram);
        metric
    };
    named(name, help, MetricType::HISTOGRAM, metrics.map(metric).collect())
}

fn named(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("millrace_{name}"));
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_says_what_it_is_and_names_are_escaped() {
        let metrics = Metrics::default();
        metrics.split("events/3").records.add(7);
        metrics.sink("a \"quoted\" table").commit_durations.add(Duration::from_millis(30));
        metrics.checkpoints.published_at.set(1_000_000_000);
        let page = page(&metrics, 3_500_000_000).unwrap();
        for line in [
            "# TYPE millrace_source_records_total counter",
            "millrace_source_records_total{table=\"events\",split=\"3\"} 7",
            "millrace_sink_commit_seconds_bucket{sink=\"a \\\"quoted\\\" table\",le=\"0.05\"} 1",
            "millrace_checkpoint_age_seconds 2.5",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("watermark_delay"), "a split that was never heard of has no watermark");
    }
}
