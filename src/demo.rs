//! `millrace demo`: everything on this machine, from the simulator to the verified table.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Args;
use delta::TableReader;
use engine::environment::{Environment, System};
use engine::job::{Job, JobError, JobSettings, Outcome};
use engine::metrics::Metrics;
use kafka::{EmbeddedBroker, Producer, create_topic, delete_topic};
use simulator::{Settings, Verification};
use sql::SourceFile;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::feed::{Backlog, Feed, Progress};
use crate::job::{load_texts, report};
use crate::run::{duration, open_state, stop_on_signal};
use crate::show;

const JOB: &str = include_str!("../jobs/eventhubs-databricks-delta/job.sql");
const OUTPUT: &str = "demo-output";
const TOPIC: &str = "streaming";

/// Nothing read for this long, with events still to read: something is wrong.
const STUCK: Duration = Duration::from_secs(60);

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace demo\n  millrace demo --rate 5000 --duration 60s\n  millrace demo --kafka localhost:9092"
)]
pub struct Demo {
    /// How long to send events
    #[arg(long, default_value = "20s", value_parser = duration)]
    duration: Duration,
    /// Events a second
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    partitions: u16,
    /// One message in so many is sent again; 0 for none
    #[arg(long, default_value_t = 1000)]
    duplicate_every: u32,
    /// The time between checkpoints, and with it between commits
    #[arg(long, default_value = "1s", value_parser = duration)]
    checkpoint_interval: Duration,
    /// Keep the tables of earlier demos, and the topic of this one
    #[arg(long)]
    keep: bool,
    /// A broker of your own instead of the embedded one; the demo makes a topic there and deletes it in the end
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// The same seed sends the same events
    #[arg(long)]
    seed: Option<u64>,
}

/// Where the events go through.
struct Broker {
    address: String,
    topic: String,
    /// Lives as long as the demo.
    embedded: Option<EmbeddedBroker>,
}

impl Demo {
    pub async fn execute(self) -> ExitCode {
        match self.run().await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    async fn run(self) -> Result<bool, String> {
        let (stop, stopping) = watch::channel(false);
        let interrupted = stop_on_signal();
        let broker = self.broker().await?;
        let folder = new_folder(self.keep)?;
        let metrics = Arc::new(Metrics::default());
        let job = self.start_job(&broker, &folder, metrics.clone(), stopping)?;
        let outcome = self.feed_and_drain(&broker, metrics, job, stop, interrupted).await;
        if broker.embedded.is_none() && !self.keep {
            delete_topic(&broker.properties(), &broker.topic).await.map_err(|e| format!("the topic stays: {e}"))?;
        }
        verify(outcome?, &folder.join("events")).await
    }

    async fn broker(&self) -> Result<Broker, String> {
        let Some(address) = &self.kafka else {
            let embedded = EmbeddedBroker::start(TOPIC, i32::from(self.partitions)).map_err(|e| e.to_string())?;
            return Ok(Broker { address: embedded.bootstrap_servers(), topic: TOPIC.into(), embedded: Some(embedded) });
        };
        let topic = format!("millrace-demo-{}", System.writer_id());
        let broker = Broker { address: address.clone(), topic, embedded: None };
        create_topic(&broker.properties(), &broker.topic, i32::from(self.partitions), &[])
            .await
            .map_err(|e| format!("no topic can be made on {address}: {e}"))?;
        Ok(broker)
    }

    fn start_job(
        &self,
        broker: &Broker,
        folder: &Path,
        metrics: Arc<Metrics>,
        stop: watch::Receiver<bool>,
    ) -> Result<JoinHandle<Result<Outcome, JobError>>, String> {
        let table = folder.join("events").display().to_string();
        let variables = |name: &str| match name {
            "KAFKA" => Some(broker.address.clone()),
            "TOPIC" => Some(broker.topic.clone()),
            "TABLE" => Some(table.clone()),
            _ => None,
        };
        let text = SourceFile { name: "jobs/eventhubs-databricks-delta/job.sql".into(), text: JOB.into() };
        let job = load_texts(&[text], folder, &variables).map_err(|problems| {
            report(&problems);
            "the demo's job file is wrong".to_string()
        })?;
        let (store, root) = open_state(&folder.join("state").display().to_string())?;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let job = Job {
            plan: job.plan,
            settings: JobSettings {
                workers: cores,
                checkpoint_interval: self.checkpoint_interval,
                ..JobSettings::default()
            },
            store,
            root,
            environment: Arc::new(System),
            metrics,
            stop,
            begun: None,
        };
        Ok(tokio::spawn(job.run()))
    }

    /// Sends for the duration, waits until the job has read everything, and stops it.
    async fn feed_and_drain(
        &self,
        broker: &Broker,
        metrics: Arc<Metrics>,
        mut job: JoinHandle<Result<Outcome, JobError>>,
        stop: watch::Sender<bool>,
        interrupted: watch::Receiver<bool>,
    ) -> Result<Verification, String> {
        let partitions = usize::from(self.partitions);
        let progress = Arc::new(Progress::default());
        let feed = Feed {
            producer: Producer::new(&broker.topic, &broker.properties()).map_err(|e| e.to_string())?,
            partitions,
            settings: Settings {
                devices: self.devices,
                rate: self.rate,
                duplicate_every: self.duplicate_every,
                seed: self.seed.unwrap_or(System.now() as u64),
                start: System.now(),
                ..Settings::default()
            },
            progress: progress.clone(),
            backlog: broker.embedded.as_ref().map(|_| Backlog::new(&metrics, "events", partitions)),
        };
        eprintln!(
            "{} events a second for {:?}, {} partitions of {}; Ctrl-C ends early",
            self.rate, self.duration, partitions, broker.address
        );
        let feeding = tokio::task::spawn_blocking(move || feed.run());
        let line = StatusLine::new(progress.clone(), metrics.clone());
        let end = Instant::now() + self.duration;
        while Instant::now() < end && !*interrupted.borrow() && !feeding.is_finished() {
            line.show();
            tokio::select! {
                ended = &mut job => return Err(job_ended(ended)),
                () = tokio::time::sleep(line.pause().min(end - Instant::now())) => {}
            }
        }
        progress.stop.store(true, Relaxed);
        let verification = tokio::select! {
            ended = &mut job => return Err(job_ended(ended)),
            sent = feeding => sent.map_err(|e| e.to_string())??,
        };
        let mut last = (Instant::now(), 0);
        while line.read() < progress.sent.load(Relaxed) {
            if line.terminal {
                line.show();
            }
            if line.read() > last.1 {
                last = (Instant::now(), line.read());
            } else if last.0.elapsed() > STUCK {
                let left = progress.sent.load(Relaxed) - line.read();
                return Err(format!("{left} messages were sent and not read for {STUCK:?}"));
            }
            tokio::select! {
                ended = &mut job => return Err(job_ended(ended)),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        let _ = stop.send(true);
        let ended = job.await;
        line.end();
        match ended {
            Ok(Ok(_)) => Ok(verification),
            ended => Err(job_ended(ended)),
        }
    }
}

impl Broker {
    fn properties(&self) -> Vec<(String, String)> {
        vec![("bootstrap.servers".into(), self.address.clone())]
    }
}

fn job_ended(ended: Result<Result<Outcome, JobError>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(outcome)) => format!("the job ended by itself: {outcome:?}"),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    }
}

/// A folder for this run. Earlier runs go, unless they are to be kept.
fn new_folder(keep: bool) -> Result<PathBuf, String> {
    let output = Path::new(OUTPUT);
    let said = |e: std::io::Error| format!("{OUTPUT}: {e}");
    std::fs::create_dir_all(output).map_err(said)?;
    if !keep {
        for entry in std::fs::read_dir(output).map_err(said)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("run-") {
                std::fs::remove_dir_all(entry.path()).map_err(said)?;
            }
        }
    }
    let folder = output.join(chrono::Utc::now().format("run-%Y%m%dT%H%M%S").to_string());
    std::fs::create_dir(&folder).map_err(said)?;
    Ok(folder)
}

/// Compares the table with what was sent, and prints what came out.
async fn verify(mut verification: Verification, table: &Path) -> Result<bool, String> {
    let said = |e: &dyn std::fmt::Display| format!("{}: {e}", table.display());
    if verification.sent_count() == 0 {
        return Err("nothing was sent".into());
    }
    let reader = TableReader::local(table).map_err(|e| said(&e))?;
    let mut first = None;
    for commit in reader.commits().await.map_err(|e| said(&e))? {
        let mut rows = vec![];
        for file in &commit.files {
            rows.extend(reader.rows(file, None).await.map_err(|e| said(&e))?);
        }
        verification.commit(commit.timestamp, &rows).map_err(|e| said(&e))?;
        first.get_or_insert(rows);
    }
    let report = verification.report();
    println!("{report}table                {}", table.display());
    if let Some(rows) = first {
        println!("{}", show::table(&rows, 5).map_err(|e| said(&e))?);
    }
    Ok(report.holds())
}

/// One line that changes on a terminal, a line every five seconds elsewhere.
struct StatusLine {
    progress: Arc<Progress>,
    metrics: Arc<Metrics>,
    begun: Instant,
    terminal: bool,
}

impl StatusLine {
    fn new(progress: Arc<Progress>, metrics: Arc<Metrics>) -> Self {
        StatusLine { progress, metrics, begun: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    fn pause(&self) -> Duration {
        if self.terminal { Duration::from_millis(500) } else { Duration::from_secs(5) }
    }

    fn read(&self) -> u64 {
        self.metrics.splits.read().values().map(|s| s.records.get()).sum()
    }

    fn show(&self) {
        let (copies, rows) = (
            self.metrics.dedup.read().values().map(|d| d.copies.get()).sum::<u64>(),
            self.metrics.sinks.read().get("serving").map_or(0, |s| s.rows.get()),
        );
        let line = format!(
            "{:>4} s   sent {}   read {}   copies {}   rows {}   entry {}{}",
            self.begun.elapsed().as_secs(),
            self.progress.sent.load(Relaxed),
            self.read(),
            copies,
            rows,
            self.metrics.checkpoints.entry.get(),
            if self.progress.paused.load(Relaxed) { "   paused: the reader is behind" } else { "" },
        );
        if self.terminal {
            eprint!("\r{line:<110}");
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        self.show();
        if self.terminal {
            eprintln!();
        }
    }
}
