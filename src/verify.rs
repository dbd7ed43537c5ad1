//! `millrace verify`: reads back what a job's table shows, and says whether an event is missing, there twice, or altered.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::connector::{Connector, OptionSpec, Problem, TableSpec};
use engine::lookup::Lookup;
use engine::shown::Shown;
use engine::sink::Sink;
use engine::source::Source;
use parking_lot::Mutex;
use serde_json::json;
use simulator::{Bounds, Generator, Settings, Stored, Verification};

use crate::job::{environment_variable, load_with, report};
use crate::log::complain;
use crate::run::duration;
use crate::simulate::UNPACED_RATE;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace verify job.sql\n  millrace verify --table serving --copies 0.0011 --json job.sql\n  millrace simulate --to kafka --kafka localhost:9092 --topic streaming --seed 42 --count 100000\n  millrace verify --seed 42 --count 100000 job.sql      every event once, and unaltered\n  millrace verify --min-rate 1000 --max-latency 5s --max-out-of-sequence 0 job.sql\n\nWithout a seed it is told from the rows alone: copies by eventId, missing by the numbers of each device, so what is missing at either end is not seen. With the simulator's settings each event is looked for.\n\nExit codes: 0 all is well, 1 something is missing, repeated or altered, a bound is not kept, or the table cannot be read, 2 the job files are wrong"
)]
pub struct Verify {
    /// Job files, in order
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The table; may be left out where the job writes one only
    #[arg(long)]
    table: Option<String>,
    /// The share of rows that may be copies
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", conflicts_with = "seed")]
    copies: f64,
    /// Do not ask for missing numbers: devices have none, or several simulators gave them
    #[arg(long, conflicts_with = "seed")]
    unnumbered: bool,
    /// Events a second, in the mean, that the rows must have come with
    #[arg(long, value_name = "EVENTS")]
    min_rate: Option<f64>,
    /// The longest that 99 rows in 100 may have taken from enqueue to commit, for example 5s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_latency: Option<Duration>,
    /// Rows that may have become visible behind a later one of their device
    #[arg(long, value_name = "ROWS")]
    max_out_of_sequence: Option<u64>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// The seed of the simulator that sent the events
    #[arg(long, requires = "count")]
    seed: Option<u64>,
    /// How many events it sent, without copies
    #[arg(long, requires = "seed")]
    count: Option<u64>,
    /// As it was told
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// As it was told
    #[arg(long, default_value_t = 1000)]
    devices: u32,
    /// As it was told
    #[arg(long, default_value_t = 1)]
    instances: u32,
}

/// The tables that a job writes, and who can read them back.
type Written = Arc<Mutex<Vec<(TableSpec, Arc<dyn Connector>)>>>;

/// A connector that remembers which tables are written.
struct Remembering {
    of: Arc<dyn Connector>,
    written: Written,
}

impl Connector for Remembering {
    fn name(&self) -> &'static str {
        self.of.name()
    }
    fn options(&self) -> Vec<OptionSpec> {
        self.of.options()
    }
    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        self.of.source(table)
    }
    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        // What is wrong with events is none of the events: a job that writes one table has one.
        if !table.options.flag("dead-letter") {
            self.written.lock().push((table.clone(), self.of.clone()));
        }
        self.of.sink(table)
    }
    fn lookup(&self, table: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        self.of.lookup(table)
    }
    fn written_metadata(&self) -> &'static [&'static str] {
        self.of.written_metadata()
    }
}

impl Verify {
    pub async fn execute(self) -> ExitCode {
        let written = Written::default();
        let remembering = |of| Arc::new(Remembering { of, written: written.clone() }) as Arc<dyn Connector>;
        if let Err(problems) = load_with(&self.files, &environment_variable, remembering) {
            return report(&problems);
        }
        let shown = match self.choose(&written.lock()) {
            Ok(shown) => shown,
            Err(what) => {
                complain(&what);
                return ExitCode::FAILURE;
            }
        };
        match self.verify(&*shown).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(what) => {
                complain(&what);
                ExitCode::FAILURE
            }
        }
    }

    fn choose(&self, written: &[(TableSpec, Arc<dyn Connector>)]) -> Result<Arc<dyn Shown>, String> {
        let names = || written.iter().map(|(table, _)| table.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = match &self.table {
            Some(name) => written.iter().find(|(table, _)| table.name == *name),
            None if written.len() == 1 => written.first(),
            None => return Err(format!("which table? --table: {}", names())),
        };
        let (table, connector) = found.ok_or_else(|| {
            format!("the job writes no table {}; it writes {}", self.table.as_deref().unwrap_or(""), names())
        })?;
        connector.shown(table).map_err(|problems| {
            problems
                .iter()
                .map(|problem| format!("table {}: {}", table.name, problem.message))
                .collect::<Vec<_>>()
                .join("; ")
        })
    }

    /// Prints what it finds; whether that is as it should be.
    async fn verify(&self, shown: &dyn Shown) -> Result<bool, String> {
        let bounds = Bounds {
            min_rate: self.min_rate,
            max_latency: self.max_latency,
            max_out_of_sequence: self.max_out_of_sequence,
        };
        let (text, mut json, right, kept) = match (self.seed, self.count) {
            (Some(seed), Some(count)) => {
                let mut sent = self.sent(seed, count);
                shown.read(&mut |time, rows| sent.take(time, &rows)).await?;
                let report = sent.report();
                let kept = bounds.judge(report.throughput.as_ref(), report.latency.as_ref(), report.out_of_sequence);
                (report.to_string(), json!(report), report.holds(), kept)
            }
            _ => {
                let mut stored = Stored::default();
                shown.read(&mut |time, rows| stored.take(time, &rows)).await?;
                let report = stored.report(self.copies, self.unnumbered);
                let kept = bounds.judge(report.throughput.as_ref(), report.latency.as_ref(), report.out_of_sequence);
                (report.to_string(), json!(report), report.holds(), kept)
            }
        };
        let holds = right && kept.iter().all(|kept| kept.kept);
        if self.json {
            (json["bounds"], json["holds"]) = (json!(kept), json!(holds));
            println!("{json}")
        } else {
            print!("{text}");
            kept.iter().for_each(|kept| print!("{kept}"));
        }
        Ok(holds)
    }

    fn sent(&self, seed: u64, count: u64) -> Verification {
        let rate = if self.rate > 0.0 { self.rate } else { UNPACED_RATE };
        let (devices, instances) = (self.devices, self.instances);
        // Copies are sent, but not to be stored: how many there were is not asked.
        let settings = Settings { devices, instances, rate, duplicate_every: 0, seed, start: 0 };
        let mut generator = Generator::new(settings);
        let mut sent = Verification::of_unknown_start();
        (0..count).for_each(|n| sent.sent(&generator.event(n)));
        sent
    }
}
