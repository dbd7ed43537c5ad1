//! What else may be asked of a table: how fast rows came, how soon, and in what order.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::verification::{Latency, Throughput};

/// Bounds that somebody sets; none of them has to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Events a second, in the mean, at least.
    pub min_rate: Option<f64>,
    /// From enqueue to commit, of 99 rows in 100, at most.
    pub max_latency: Option<Duration>,
    pub max_out_of_sequence: Option<u64>,
}

/// A bound, and whether it is kept. What nobody knows keeps none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    pub bound: String,
    pub found: Option<f64>,
    pub kept: bool,
}

impl Bounds {
    pub fn judge(
        &self,
        throughput: Option<&Throughput>,
        latency: Option<&Latency>,
        out_of_sequence: Option<u64>,
    ) -> Vec<Kept> {
        let rate = self.min_rate.map(|least| {
            let found = throughput.map(|throughput| throughput.mean);
            Kept::of(format!("at least {least} events a second"), found, |found| found >= least)
        });
        let late = self.max_latency.map(|most| {
            let found = latency.map(|latency| latency.p99 as f64);
            let most = most.as_secs_f64() * 1000.0;
            Kept::of(format!("p99 of latency at most {most} ms"), found, |found| found <= most)
        });
        let order = self.max_out_of_sequence.map(|most| {
            let found = out_of_sequence.map(|rows| rows as f64);
            Kept::of(format!("at most {most} out of sequence"), found, |found| found <= most as f64)
        });
        [rate, late, order].into_iter().flatten().collect()
    }
}

impl Kept {
    fn of(bound: String, found: Option<f64>, keeps: impl Fn(f64) -> bool) -> Kept {
        Kept { bound, found, kept: found.is_some_and(keeps) }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.kept, self.found) {
            (true, _) => "ok",
            (false, Some(_)) => "WRONG",
            (false, None) => "WRONG: not known of this table",
        };
        writeln!(f, "{}   {verdict}", self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_kept_by_what_is_known_and_by_nothing_else() {
        let bounds = Bounds {
            min_rate: Some(1000.0),
            max_latency: Some(Duration::from_millis(500)),
            max_out_of_sequence: Some(2),
        };
        let throughput = |mean| Throughput { min: 0.0, mean, seconds: 7 };
        let latency = |p99| Latency { p50: 1, p95: 2, p99, max: 9000 };
        let kept = |bounds: Bounds, mean, p99, rows| -> Vec<bool> {
            bounds
                .judge(Some(&throughput(mean)), Some(&latency(p99)), Some(rows))
                .iter()
                .map(|kept| kept.kept)
                .collect()
        };
        assert_eq!(kept(bounds, 1000.0, 500, 2), [true, true, true]);
        assert_eq!(kept(bounds, 999.9, 501, 3), [false, false, false]);
        assert!(kept(Bounds::default(), 0.0, 9000, 9).is_empty());
        let unknown = bounds.judge(None, None, None);
        assert!(unknown.iter().all(|kept| !kept.kept));
        assert_eq!(unknown[1].to_string(), "p99 of latency at most 500 ms   WRONG: not known of this table\n");
    }
}
