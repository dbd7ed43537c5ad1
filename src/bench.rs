//! `millrace bench`: how fast jobs from bytes to a committed table are on this machine, and where the time goes.
//!
//! The stages are measured by running more and more of the job over the same events in the same process, a moment after
//! each other: their differences are the stages. All is CPU time of the whole process, so that what runs beside the
//! workers (compression, commits, the job log) counts too.

mod buffer;
mod ids;
mod jobs;
#[path = "../connectors/formats/benches/decode/seed.rs"]
mod seed;
mod topic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use clap::Args;
use connectors::{Blackhole, registry};
use engine::connector::Connector;
use engine::environment::System;
use engine::job::{Job, JobSettings, Outcome};
use engine::metrics::Metrics;
use engine::plan::Plan;
use engine::sink::Sink;
use engine::source::{ReadRequest, ReadStatus, SplitReader, Wake};
use serde::Serialize;
use simulator::Settings;
use sql::{Environment, SourceFile, compile};
use tokio::sync::watch;

use crate::job::report;
use crate::run::open_state;
use buffer::{Buffer, BufferConnector};
use jobs::{CONSUME, Reads};
use seed::{Nested, Seed};
use topic::Topic;

const DEDUPLICATION: &str = "deduplication alone, one core";
const FROM_KAFKA: &str = "from Kafka";
const JOBS: [Reads; 3] = [Reads::Everything, Reads::SixColumns, Reads::Readme];
/// The deduplication that is shown with less memory than ids: 64 MiB for 6 million.
const IDS: usize = 6_000_000;
const MEMORY: usize = 64 << 20;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace bench\n  millrace bench --events 1000000 --parallelism 1 --json\n  millrace bench --kafka localhost:9092\n\nBuild with --release first: other builds are slower by a factor of ten and more."
)]
pub struct Bench {
    /// Events to run through each job, kept in memory (about 1 KB each) [default: 400000, without --release 20000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    events: Option<u32>,
    /// Ids that deduplication alone is measured with [default: 6000000, without --release 60000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(10_000..))]
    ids: Option<u32>,
    /// Run the jobs from a topic of this broker as well; it is made, filled, and deleted again
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Worker threads [default: the cores]
    #[arg(long)]
    parallelism: Option<usize>,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    partitions: u16,
    /// The simulator's event as it is, with numbers of nine or ten digits [default: 15 to 17 digits]
    #[arg(long)]
    short_numbers: bool,
    /// Where the tables and what does not fit in memory are written, and deleted again [default: the system's temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// One line of the result.
#[derive(Serialize, Clone)]
struct Row {
    /// What the job reads; empty where it is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    job: String,
    what: String,
    events: usize,
    seconds: f64,
    cpu_seconds: f64,
    events_per_second: f64,
    events_per_cpu_second: f64,
    /// Events per CPU second, as a multiple of what the reference does.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_reference: Option<f64>,
    /// CPU time of what this line does more than the one before, as a part of the whole job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    /// CPU time, as a multiple of that of the parts, each measured alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_parts: Option<f64>,
    /// Events per second, as a multiple of one worker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_one_worker: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Machine {
    cores: usize,
    model: String,
    build: &'static str,
}

#[derive(Clone, Copy)]
struct Cost {
    elapsed: Duration,
    cpu: Duration,
}

impl Bench {
    pub async fn execute(self) -> ExitCode {
        match self.run().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    async fn run(self) -> Result<(), String> {
        let folder = match &self.folder {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let folder = folder.map_err(|e| format!("no folder can be made to write to: {e}"))?;
        let machine = Machine::this();
        let workers = self.parallelism.unwrap_or(machine.cores).max(1);
        let events = self.events.map_or(if machine.is_optimised() { 400_000 } else { 20_000 }, |n| n as usize);
        let buffer =
            Arc::new(Buffer::fill(Settings::default(), events, usize::from(self.partitions), !self.short_numbers));
        self.say(&format!(
            "{} events of {} bytes, {} of them copies, in {} partitions; {workers} workers\n{} cores, {}; {} build\n",
            buffer.messages(),
            buffer.bytes() / buffer.messages(),
            buffer.messages() - buffer.distinct,
            buffer.partitions(),
            machine.cores,
            machine.model,
            machine.build,
        ));
        let reference = reference(buffer.clone(), workers).await?;
        self.show("", &[reference.row("reference: serde_json into Arrow, all columns", buffer.messages())], &machine)?;
        let place = Place { buffer: &buffer, topic: None, workers, reference, folder: folder.path() };
        let mut decoding = vec![];
        for reads in JOBS {
            let stages = place.stages(reads, None).await?;
            decoding.push(stages.decode);
            self.show(&place.title(reads), &stages.rows, &machine)?;
        }
        if let Some(servers) = &self.kafka {
            let topic = Topic::make(servers, buffer.partitions()).await?;
            let measured = self.run_from(&topic, place, &decoding, &machine).await;
            topic.delete().await;
            measured?;
        }
        let ids = self.ids.map_or(if machine.is_optimised() { IDS } else { IDS / 100 }, |n| n as usize);
        let folder = folder.path().to_path_buf();
        let rows = tokio::task::spawn_blocking(move || deduplication(ids, &folder));
        self.show(DEDUPLICATION, &rows.await.map_err(|e| e.to_string())??, &machine)
    }

    /// The jobs once more, over the same events in a topic. `decoding`: what decoding alone costs, by job.
    async fn run_from(
        &self,
        topic: &Topic,
        place: Place<'_>,
        decoding: &[Cost],
        machine: &Machine,
    ) -> Result<(), String> {
        let place = Place { topic: Some(topic), ..place };
        let begun = Cost::begin();
        tokio::task::block_in_place(|| topic.fill(place.buffer))?;
        let produce = begun.end();
        let consume = decode(&place.plan(CONSUME, Path::new(""), None)?, place.workers).await?;
        let row = |what, cost| place.row(String::new(), what, cost);
        self.show(FROM_KAFKA, &[row("produce", produce), row("consume, and drop", consume)], machine)?;
        for (reads, decode) in JOBS.into_iter().zip(decoding) {
            let parts = Cost { elapsed: consume.elapsed + decode.elapsed, cpu: consume.cpu + decode.cpu };
            self.show(&place.title(reads), &place.stages(reads, Some(parts)).await?.rows, machine)?;
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    fn show(&self, title: &str, rows: &[Row], machine: &Machine) -> Result<(), String> {
        if self.json {
            for row in rows {
                let row = Row { what: row.what.trim_start_matches([' ', '+']).to_string(), ..row.clone() };
                let mut object = serde_json::to_value(row).map_err(|e| e.to_string())?;
                object["machine"] = serde_json::to_value(machine).map_err(|e| e.to_string())?;
                println!("{object}");
            }
            return Ok(());
        }
        println!("{title:<48} {:>11} {:>14} {:>10} {:>7}", "events/s", "events/CPU s", "reference", "share");
        for row in rows {
            let of_parts = row.of_parts.map(|n| format!("{n:.2} of the parts"));
            let compared = row.of_one_worker.map(|n| format!("{n:.2} of 1 worker")).or(of_parts);
            println!(
                "{:<48} {:>11.0} {:>14.0} {:>10} {:>7}",
                row.what,
                row.events_per_second,
                row.events_per_cpu_second,
                row.of_reference.map_or(String::new(), |r| format!("{r:.2}x")),
                compared.or(row.share.map(|s| format!("{:.0} %", s * 100.0))).unwrap_or_default(),
            );
        }
        println!();
        Ok(())
    }
}

/// Over which events jobs run, how, and what they are compared with.
#[derive(Clone, Copy)]
struct Place<'a> {
    buffer: &'a Arc<Buffer>,
    /// Where the buffer's events are read from, if not from memory.
    topic: Option<&'a Topic>,
    workers: usize,
    reference: Cost,
    folder: &'a Path,
}

struct Stages {
    rows: Vec<Row>,
    /// Reading and decoding, without the engine.
    decode: Cost,
}

impl Place<'_> {
    fn title(&self, reads: Reads) -> String {
        let from = if self.topic.is_some() { FROM_KAFKA } else { "" };
        [from, reads.title()].join(if from.is_empty() { "" } else { ": " })
    }

    /// More and more of a job over the same events, and the whole with one worker and without deduplication. `parts`: what
    /// reading and decoding cost, each alone.
    async fn stages(&self, reads: Reads, parts: Option<Cost>) -> Result<Stages, String> {
        let nothing = || Some(Arc::new(Blackhole) as Arc<dyn Sink>);
        let compiled = |deduplicated, sink| {
            let table = tempfile::tempdir_in(self.folder).map_err(|e| e.to_string())?;
            Ok::<_, String>((self.plan(&reads.job(deduplicated)?, table.path(), sink)?, table))
        };
        let (messages, distinct) = (self.buffer.messages(), self.buffer.distinct);
        let decode = decode(&compiled(false, nothing())?.0, self.workers).await?;
        let query = run(compiled(false, nothing())?.0, self.workers, self.folder, messages).await?;
        let dedup = run(compiled(true, nothing())?.0, self.workers, self.folder, distinct).await?;
        let measured = async |deduplicated, workers, rows| {
            let (plan, _table) = compiled(deduplicated, None)?;
            run(plan, workers, self.folder, rows).await
        };
        let whole = measured(true, self.workers, distinct).await?;
        let alone = measured(true, 1, distinct).await?;
        let without = measured(false, self.workers, messages).await?;
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
        rows[0].of_parts = parts.map(|parts| decode.cpu.as_secs_f64() / parts.cpu.as_secs_f64());
        let sped_up = alone.elapsed.as_secs_f64() / whole.elapsed.as_secs_f64();
        rows.push(row("the whole job, one worker", alone));
        let all_workers = format!("the whole job, {} workers", self.workers);
        rows.push(Row { of_one_worker: Some(sped_up), ..row(&all_workers, whole) });
        rows.push(row("the whole job without deduplication", without));
        Ok(Stages { rows, decode })
    }

    fn row(&self, job: String, what: &str, cost: Cost) -> Row {
        let of_reference = Some(self.reference.cpu.as_secs_f64() / cost.cpu.as_secs_f64());
        Row { job, of_reference, ..cost.row(what, self.buffer.messages()) }
    }

    /// A job that reads these events.
    fn plan(&self, text: &str, table: &Path, sink: Option<Arc<dyn Sink>>) -> Result<Plan, String> {
        let mut connectors = registry(Arc::new(parking_lot::Mutex::new(std::io::sink())));
        if self.topic.is_none() {
            let buffered: Arc<dyn Connector> = Arc::new(BufferConnector(self.buffer.clone()));
            connectors.retain(|c| c.name() != buffered.name());
            connectors.push(buffered);
        }
        let variables = |name: &str| match name {
            "TABLE" => Some(table.display().to_string()),
            "KAFKA" => Some(self.topic.map_or("memory".into(), |t| t.servers.clone())),
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
}

/// Deduplication alone on one core: all in memory, and with less memory than ids.
fn deduplication(ids: usize, folder: &Path) -> Result<Vec<Row>, String> {
    let memory = (MEMORY as f64 * ids as f64 / IDS as f64) as usize;
    let mut rows = vec![];
    for (limit, named) in
        [(usize::MAX, "all in memory".to_string()), (memory, format!("{} KiB of memory", memory >> 10))]
    {
        let seen = ids::judge(ids, limit, folder)?;
        let (size, per_id) = (seen.size, seen.size.memory_bytes as f64 / seen.size.keys as f64);
        let cost = Cost { elapsed: seen.took, cpu: seen.took };
        let row = cost.row(&format!("{} ids live, {named}", size.keys), seen.ids);
        rows.push(Row {
            job: DEDUPLICATION.into(),
            memory_bytes: Some(size.memory_bytes),
            disk_bytes: Some(size.disk_bytes),
            ..row
        });
        eprintln!(
            "{named}: {per_id:.1} bytes of memory an id, at most {} KiB, {} KiB on disk; longest cut {:.1?}; restored in {:.1?} with at most {} KiB",
            seen.peak >> 10,
            size.disk_bytes >> 10,
            seen.longest_cut,
            seen.restored_in,
            seen.restored_peak >> 10,
        );
    }
    Ok(rows)
}

/// Runs a job from its first event to its last commit. A run that did not bring `rows` rows measured something else.
async fn run(plan: Plan, workers: usize, folder: &Path, rows: usize) -> Result<Cost, String> {
    let state = tempfile::tempdir_in(folder).map_err(|e| e.to_string())?;
    let (store, root) = open_state(&state.path().display().to_string())?;
    let metrics = Arc::new(Metrics::default());
    let (_stop, stop) = watch::channel(false);
    let sink = plan.sinks.first().map(|s| s.table.clone()).unwrap_or_default();
    let settings = JobSettings { workers, spill: state.path().join("spill"), ..JobSettings::default() };
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

/// Reads and decodes everything, without the engine.
async fn decode(plan: &Plan, workers: usize) -> Result<Cost, String> {
    let node = &plan.sources[0];
    let request = ReadRequest { columns: node.columns.clone(), event_time: node.watermark.as_ref().map(|w| w.bound()) };
    let mut readers = vec![];
    for split in node.source.splits().await.map_err(|e| e.to_string())? {
        let start = node.source.resolve(&split, false).await.map_err(|e| e.to_string())?;
        let (ring, rung) = sync_channel(1);
        let wake = Wake::new(move || {
            let _ = ring.try_send(());
        });
        let opened = node.source.open(&split, &start, &request, wake).await;
        readers.push((opened.map_err(|e| e.to_string())?, rung));
    }
    on_threads(readers, workers, |(reader, rung)| read_to_end(reader, &rung)).await
}

fn read_to_end(mut reader: Box<dyn SplitReader>, rung: &Receiver<()>) -> Result<(), String> {
    let limit = JobSettings::default().limits.read;
    loop {
        let read = reader.read(limit).map_err(|e| e.to_string())?;
        std::hint::black_box::<Option<RecordBatch>>(read.batch);
        match read.status {
            ReadStatus::Finished => return Ok(()),
            ReadStatus::More => {}
            ReadStatus::Pending | ReadStatus::AtEnd => {
                // Nobody rings of a failure, which the next read tells.
                let _ = rung.recv_timeout(Duration::from_secs(1));
            }
        }
    }
}

/// What a program costs that reads nothing but this event, and does nothing with it.
async fn reference(buffer: Arc<Buffer>, workers: usize) -> Result<Cost, String> {
    let partitions: Vec<_> = (0..buffer.partitions()).collect();
    let batch = JobSettings::default().limits.read.records;
    on_threads(partitions, workers, move |partition| {
        let mut seed = Seed::new(Nested::Doubles);
        for (number, payload) in buffer.payloads(partition).enumerate() {
            seed.push(payload).map_err(|e| e.to_string())?;
            if number % batch == batch - 1 {
                std::hint::black_box(seed.finish());
            }
        }
        std::hint::black_box(seed.finish());
        Ok(())
    })
    .await
}

/// Does the work on as many threads as the job has workers.
async fn on_threads<T, F>(work: Vec<T>, threads: usize, step: F) -> Result<Cost, String>
where
    T: Send + 'static,
    F: Fn(T) -> Result<(), String> + Send + Sync + 'static,
{
    let measured = move || {
        let begun = Cost::begin();
        let work = Mutex::new(work);
        let one = || {
            while let Some(item) = work.lock().ok().and_then(|mut work| work.pop()) {
                step(item)?;
            }
            Ok::<(), String>(())
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            running.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked".to_string())?)
        })?;
        Ok(begun.end())
    };
    tokio::task::spawn_blocking(measured).await.map_err(|e| e.to_string())?
}

impl Cost {
    fn begin() -> Begun {
        Begun { at: Instant::now(), cpu: cpu_time() }
    }

    fn row(&self, what: &str, events: usize) -> Row {
        let (seconds, cpu_seconds) = (self.elapsed.as_secs_f64(), self.cpu.as_secs_f64());
        Row {
            what: what.to_string(),
            events,
            seconds,
            cpu_seconds,
            events_per_second: events as f64 / seconds,
            events_per_cpu_second: events as f64 / cpu_seconds,
            job: String::new(),
            of_reference: None,
            share: None,
            of_parts: None,
            of_one_worker: None,
            memory_bytes: None,
            disk_bytes: None,
        }
    }
}

struct Begun {
    at: Instant,
    cpu: Duration,
}

impl Begun {
    fn end(self) -> Cost {
        Cost { elapsed: self.at.elapsed(), cpu: cpu_time() - self.cpu }
    }
}

/// Of the whole process, all threads, in user and kernel mode.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Machine {
    fn this() -> Machine {
        let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = described.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": "));
        Machine {
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            model: model.map_or("unknown processor".into(), |(_, model)| model.to_string()),
            build: if cfg!(debug_assertions) { "unoptimised" } else { "release" },
        }
    }

    fn is_optimised(&self) -> bool {
        self.build == "release"
    }
}
