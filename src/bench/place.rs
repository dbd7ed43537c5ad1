//! Runs jobs over the events, from memory or from a topic, and says what they cost.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use connectors::{Blackhole, registry};
use engine::connector::Connector;
use engine::environment::System;
use engine::job::{Job, JobSettings, Outcome};
use engine::metrics::Metrics;
use engine::plan::Plan;
use engine::sink::Sink;
use engine::source::{ReadRequest, ReadStatus, SplitReader, Wake};
use sql::{Environment, SourceFile, compile};
use tokio::sync::watch;

use super::buffer::{Buffer, BufferConnector};
use super::cost::{Cost, on_threads};
use super::jobs::Reads;
use super::row::Row;
use super::topic::Topic;
use crate::job::report;
use crate::run::open_state;

pub const FROM_KAFKA: &str = "from Kafka";

/// Over which events jobs run, how, and what they are compared with.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub buffer: &'a Arc<Buffer>,
    /// How often the buffer is read, each time with ids of its own.
    pub rounds: usize,
    /// Where the buffer's events are read from, if not from memory.
    pub topic: Option<&'a Topic>,
    /// Where jobs that write a topic write to.
    pub output: Option<&'a Topic>,
    pub workers: usize,
    pub checkpoint_interval: Duration,
    pub compaction: bool,
    pub reference: Cost,
    /// Where tables and states are made, and deleted.
    pub folder: &'a Path,
}

pub struct Stages {
    pub rows: Vec<Row>,
    /// Reading and decoding, without the engine.
    pub decode: Cost,
}

impl Place<'_> {
    pub fn title(&self, reads: Reads) -> String {
        match self.topic {
            Some(_) => format!("{FROM_KAFKA}: {}", reads.title()),
            None => reads.title().to_string(),
        }
    }

    /// More and more of a job over the same events, and the whole with one worker and without deduplication. `parts`: what
    /// reading and decoding cost, each alone.
    pub async fn stages(&self, reads: Reads, parts: Option<Cost>) -> Result<Stages, String> {
        let (all, deduplicated) = (reads.job(false)?, reads.job(true)?);
        let decode = self.decode(&all).await?;
        let query = self.fill_nothing(&all, self.messages()).await?;
        let dedup = self.fill_nothing(&deduplicated, self.distinct()).await?;
        let whole = self.fill_table(&deduplicated, self.distinct()).await?;
        let alone = Place { workers: 1, ..*self }.fill_table(&deduplicated, self.distinct()).await?;
        let without = self.fill_table(&all, self.messages()).await?;
        let stages = [
            (if parts.is_some() { "consume, decode to Arrow" } else { "decode to Arrow" }, decode, Duration::ZERO),
            ("  + workers, query, checkpoints", query, decode.cpu),
            ("  + deduplication, exchange", dedup, query.cpu),
            ("  + Parquet, Delta commits = the whole job", whole, dedup.cpu),
        ];
        let row = |what, cost: Cost| self.row(self.title(reads), what, cost);
        let mut rows: Vec<Row> = vec![];
        for (what, cost, before) in stages {
            let share = (cost.cpu.as_secs_f64() - before.as_secs_f64()) / whole.cpu.as_secs_f64();
            rows.push(Row { share: Some(share), ..row(what, cost) });
        }
        rows[0].of_parts = parts.map(|parts| decode.of(parts));
        let sped_up = alone.elapsed.as_secs_f64() / whole.elapsed.as_secs_f64();
        rows.push(row("the whole job, one worker", alone));
        let all_workers = format!("the whole job, {} workers", self.workers);
        rows.push(Row { of_one_worker: Some(sped_up), ..row(&all_workers, whole) });
        rows.push(row("the whole job without deduplication", without));
        Ok(Stages { rows, decode })
    }

    pub fn row(&self, job: String, what: &str, cost: Cost) -> Row {
        Row { job, of_reference: Some(self.reference.of(cost) * self.rounds as f64), ..cost.row(what, self.messages()) }
    }

    /// Reading and decoding alone.
    pub async fn decode(&self, job: &str) -> Result<Cost, String> {
        decode(&self.plan(job, Path::new(""), Some(Arc::new(Blackhole)))?, self.workers).await
    }

    /// A job with committed entries of a new table.
    pub async fn fill_table(&self, job: &str, rows: usize) -> Result<Cost, String> {
        let table = tempfile::tempdir_in(self.folder).map_err(|e| e.to_string())?;
        self.run(self.plan(job, table.path(), None)?, rows).await
    }

    /// A job that writes a topic.
    pub async fn fill_topic(&self, job: &str, rows: usize) -> Result<Cost, String> {
        self.run(self.plan(job, Path::new(""), None)?, rows).await
    }

    async fn fill_nothing(&self, job: &str, rows: usize) -> Result<Cost, String> {
        self.run(self.plan(job, Path::new(""), Some(Arc::new(Blackhole)))?, rows).await
    }

    /// With copies.
    pub fn messages(&self) -> usize {
        self.buffer.messages() * self.rounds
    }

    pub fn distinct(&self) -> usize {
        self.buffer.distinct * self.rounds
    }

    /// A job that reads these events.
    pub fn plan(&self, text: &str, table: &Path, sink: Option<Arc<dyn Sink>>) -> Result<Plan, String> {
        let mut connectors = registry(Arc::new(parking_lot::Mutex::new(std::io::sink())));
        if self.topic.is_none() {
            let buffered: Arc<dyn Connector> =
                Arc::new(BufferConnector { buffer: self.buffer.clone(), rounds: self.rounds });
            connectors.retain(|c| c.name() != buffered.name());
            connectors.push(buffered);
        }
        let variables = |name: &str| match name {
            "TABLE" => Some(table.display().to_string()),
            "COMPACTION" => Some(self.compaction.to_string()),
            "KAFKA" => Some(self.topic.map_or("memory".into(), |t| t.servers.clone())),
            "OUTPUT" => self.output.map(|t| t.name.clone()),
            "TOPIC" => Some(self.topic.map_or("events".into(), |t| t.name.clone())),
            _ => None,
        };
        let environment = Environment {
            connectors: &connectors,
            variables: &variables,
            default_dead_letter: Arc::new(Blackhole),
            instead_of_sinks: sink,
        };
        let file = SourceFile { name: "bench.sql".into(), text: text.into() };
        let job = compile(&[file], &environment).map_err(|problems| {
            report(&problems);
            "the benchmark's job file is wrong".to_string()
        })?;
        Ok(job.plan)
    }

    /// Runs a job from its first event to its last commit. A run that did not bring `rows` rows measured something else.
    pub async fn run(&self, plan: Plan, rows: usize) -> Result<Cost, String> {
        let state = tempfile::tempdir_in(self.folder).map_err(|e| e.to_string())?;
        let (store, root) = open_state(&state.path().display().to_string())?;
        let metrics = Arc::new(Metrics::default());
        let (_stop, stop) = watch::channel(false);
        let sink = plan.sinks.first().map(|s| s.table.clone()).unwrap_or_default();
        let settings = JobSettings {
            workers: self.workers,
            checkpoint_interval: self.checkpoint_interval,
            spill: state.path().join("spill"),
            ..JobSettings::default()
        };
        let environment = Arc::new(System);
        let job = Job { plan, settings, store, root, environment, metrics: metrics.clone(), stop, begun: None };
        let begun = Cost::begin();
        let outcome = job.run().await.map_err(|e| e.to_string())?;
        let cost = begun.end();
        let written = metrics.sink(&sink).rows.get() as usize;
        if outcome != Outcome::Completed || written != rows {
            return Err(format!("the job ended as {outcome:?} with {written} rows; {rows} were expected"));
        }
        Ok(cost)
    }
}

/// Reads and decodes everything, without the engine. Each thread reads its splits in turns, as a worker does.
async fn decode(plan: &Plan, workers: usize) -> Result<Cost, String> {
    let node = &plan.sources[0];
    let request = ReadRequest { columns: node.columns.clone(), event_time: node.watermark.as_ref().map(|w| w.bound()) };
    let mut shares: Vec<_> = (0..workers).map(|_| (vec![], sync_channel(1))).collect();
    for (at, split) in node.source.splits().await.map_err(|e| e.to_string())?.into_iter().enumerate() {
        let start = node.source.resolve(&split, false).await.map_err(|e| e.to_string())?;
        let (readers, (ring, _)) = &mut shares[at % workers];
        let ring = ring.clone();
        let wake = Wake::new(move || {
            let _ = ring.try_send(());
        });
        let opened = node.source.open(&split, &start, &request, wake).await;
        readers.push(opened.map_err(|e| e.to_string())?);
    }
    on_threads(shares, workers, |(readers, (_, rung))| read_to_end(readers, &rung)).await
}

fn read_to_end(mut readers: Vec<Box<dyn SplitReader>>, rung: &Receiver<()>) -> Result<(), String> {
    let limit = JobSettings::default().limits.read;
    while !readers.is_empty() {
        let (mut came, mut unfinished) = (false, vec![]);
        for mut reader in readers {
            let read = reader.read(limit).map_err(|e| e.to_string())?;
            came |= read.records > 0 || read.status == ReadStatus::More;
            std::hint::black_box::<Option<RecordBatch>>(read.batch);
            if read.status != ReadStatus::Finished {
                unfinished.push(reader);
            }
        }
        readers = unfinished;
        if !came && !readers.is_empty() {
            // Nobody rings of a failure, which the next read tells.
            let _ = rung.recv_timeout(Duration::from_secs(1));
        }
    }
    Ok(())
}
