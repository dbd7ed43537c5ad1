//! `millrace bench`: how fast jobs from bytes to a committed table are on this machine, and where the time goes.
//!
//! The stages are measured by running more and more of the job over the same events in the same process, a moment after
//! each other: their differences are the stages. All is CPU time of the whole process, so that what runs beside the
//! workers (compression, commits, the job log) counts too.

mod buffer;
mod cost;
mod growth;
mod ids;
mod jobs;
mod long;
mod place;
mod row;
#[path = "../connectors/formats/benches/decode/seed.rs"]
mod seed;
mod topic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::job::JobSettings;
use simulator::Settings;

use buffer::Buffer;
use cost::{Cost, on_threads};
use jobs::{CONSUME, RELAY, Reads};
use place::{FROM_KAFKA, Place};
use row::{Machine, Row};
use seed::{Nested, Seed};
use topic::Topic;

const DEDUPLICATION: &str = "deduplication alone, one core";
const JOBS: [Reads; 3] = [Reads::Everything, Reads::SixColumns, Reads::Readme];
/// The deduplication that is shown with less memory than ids: 64 MiB for 6 million.
const IDS: usize = 6_000_000;
const MEMORY: usize = 64 << 20;
/// By the log's time, so many events come in a second: ten minutes of them are 6 million ids.
const RATE: f64 = 10_000.0;
/// What is measured with much work is measured with one of so many of it by a build that is not optimised.
const LESS: usize = 100;

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
    /// Also what takes minutes: a long run with a full window, and how the cost grows with the work
    #[arg(long)]
    all: bool,
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
        let less = if machine.is_optimised() { 1 } else { LESS };
        let workers = self.parallelism.unwrap_or(machine.cores).max(1);
        let events = self.events.map_or(if machine.is_optimised() { 400_000 } else { 20_000 }, |n| n as usize);
        let ids = self.ids.map_or(IDS / less, |n| n as usize);
        let settings = Settings { rate: RATE, ..Settings::default() };
        let buffer = Arc::new(Buffer::fill(settings, events, usize::from(self.partitions), !self.short_numbers));
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
        let show = |title: &str, rows: &[Row]| row::show(title, rows, &machine, self.json);
        // What shares nothing shows what more cores bring on this machine.
        let alone = reference(buffer.clone(), 1).await?;
        let reference = reference(buffer.clone(), workers).await?;
        let row = |what: &str, cost: Cost| cost.row(what, buffer.messages());
        let brought = Some(alone.elapsed.as_secs_f64() / reference.elapsed.as_secs_f64());
        let of_all = format!("the same, {workers} workers");
        show(
            "",
            &[
                row("reference: serde_json into Arrow, one worker", alone),
                Row { of_one_worker: brought, ..row(&of_all, reference) },
            ],
        )?;
        let place = Place {
            buffer: &buffer,
            rounds: 1,
            topic: None,
            output: None,
            workers,
            checkpoint_interval: Duration::from_secs(1),
            compaction: false,
            reference,
            folder: folder.path(),
        };
        let mut decoding = vec![];
        for reads in JOBS {
            let stages = place.stages(reads, None).await?;
            decoding.push(stages.decode);
            show(&place.title(reads), &stages.rows)?;
        }
        if let Some(servers) = &self.kafka {
            let topic = Topic::make(servers, buffer.partitions()).await?;
            let output = Topic::make(servers, buffer.partitions()).await?;
            let place = Place { topic: Some(&topic), output: Some(&output), ..place };
            let measured = from_topic(&topic, place, &decoding, &show).await;
            topic.delete().await;
            output.delete().await;
            measured?;
        }
        show(DEDUPLICATION, &tokio::task::block_in_place(|| deduplication(ids, folder.path()))?)?;
        if self.all {
            // Each as soon as it is known: they take minutes.
            let show = |rows: Vec<Row>| show(&rows[0].job, &rows);
            show(long::rows(Place { rounds: ids.div_ceil(events), ..place }).await?)?;
            show(growth::partitions(place, events).await?)?;
            show(growth::columns(place, less).await?)?;
            show(growth::table_age(place, less).await?)?;
            show(tokio::task::block_in_place(|| growth::live_ids(less, folder.path()))?)?;
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
}

/// The jobs once more, over the same events in a topic. `decoding`: what decoding alone costs, by job.
async fn from_topic(
    topic: &Topic,
    place: Place<'_>,
    decoding: &[Cost],
    show: &impl Fn(&str, &[Row]) -> Result<(), String>,
) -> Result<(), String> {
    let begun = Cost::begin();
    tokio::task::block_in_place(|| topic.fill(place.buffer))?;
    let produce = begun.end();
    let consume = place.decode(CONSUME).await?;
    let row = |what, cost| place.row(String::new(), what, cost);
    show(FROM_KAFKA, &[row("produce", produce), row("consume, and drop", consume)])?;
    for (reads, decode) in JOBS.into_iter().zip(decoding) {
        show(&place.title(reads), &place.stages(reads, Some(consume + *decode)).await?.rows)?;
    }
    let relay = place.fill_topic(RELAY, place.messages()).await?;
    let job = format!("{FROM_KAFKA}, to Kafka");
    show(&job, &[place.row(job.clone(), "filter, 5 columns, JSON, transactions", relay)])
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
