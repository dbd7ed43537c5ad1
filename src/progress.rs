//! How a running job is doing: a line that changes on a terminal, a log line every ten seconds elsewhere.

use std::sync::Arc;
use std::time::Duration;

use engine::environment::{Environment, System};
use engine::metrics::Metrics;

const ON_A_TERMINAL: Duration = Duration::from_secs(1);
const IN_A_LOG: Duration = Duration::from_secs(10);

/// Shows the job until the task is dropped.
pub async fn show(metrics: Arc<Metrics>, terminal: bool) {
    let pause = if terminal { ON_A_TERMINAL } else { IN_A_LOG };
    let mut before = Standing::of(&metrics);
    loop {
        tokio::time::sleep(pause).await;
        let now = Standing::of(&metrics);
        let rate = (now.records - before.records) as f64 / pause.as_secs_f64();
        if terminal {
            eprint!("\r{:<110}", now.line(rate));
        } else {
            now.log(rate);
        }
        before = now;
    }
}

/// The numbers of all splits and sinks together.
struct Standing {
    records: u64,
    lag: u64,
    copies: u64,
    shown: u64,
    dead: u64,
    entry: u64,
    /// Seconds since the last checkpoint; `None` before the first.
    age: Option<f64>,
    /// The sink that does not commit just now, the lookup table that does not answer, or the job log, and why.
    trouble: Option<String>,
}

impl Standing {
    fn of(metrics: &Metrics) -> Self {
        let (records, lag) =
            metrics.splits.read().values().fold((0, 0), |(r, l), s| (r + s.records.get(), l + s.lag.get()));
        let published = metrics.checkpoints.published_at.get() as i64;
        let sinks = metrics.sinks.read();
        let of_sinks =
            sinks.iter().find_map(|(name, s)| s.health.trouble.read().as_ref().map(|t| format!("{name}: {t}")));
        let lookups = metrics.lookups.read();
        let of_lookups =
            lookups.iter().find_map(|(name, l)| l.health.trouble.read().as_ref().map(|t| format!("{name}: {t}")));
        let of_log = || metrics.checkpoints.health.trouble.read().as_ref().map(|t| format!("the job log: {t}"));
        Standing {
            records,
            lag,
            copies: metrics.dedup.read().values().map(|d| d.copies.get()).sum(),
            shown: sinks.values().map(|s| s.rows.get()).sum(),
            dead: metrics.dead_letters.get(),
            entry: metrics.checkpoints.entry.get(),
            age: (published > 0).then(|| (System.now() - published).max(0) as f64 / 1e9),
            trouble: of_sinks.or(of_lookups).or_else(of_log),
        }
    }

    fn line(&self, rate: f64) -> String {
        let mut line = format!(
            "{} read, {rate:.0} a second, {} behind   {} copies   {} rows   {} dead letters   entry {}",
            self.records, self.lag, self.copies, self.shown, self.dead, self.entry
        );
        if let Some(trouble) = &self.trouble {
            line.push_str(&format!("   waits for {trouble}"));
        }
        line
    }

    fn log(&self, rate: f64) {
        tracing::info!(
            records = self.records,
            records_per_second = rate,
            lag = self.lag,
            copies = self.copies,
            rows = self.shown,
            dead_letters = self.dead,
            entry = self.entry,
            checkpoint_age_seconds = self.age,
            trouble = self.trouble,
            "progress"
        );
    }
}
