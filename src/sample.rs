//! `millrace sample`: the first rows that a job would write. Reads the real sources and writes nothing: no sink, no
//! state, no group offset.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::json::LineDelimitedWriter;
use async_trait::async_trait;
use clap::Args;
use engine::environment::System;
use engine::job::{Job, JobSettings};
use engine::metrics::Metrics;
use engine::plan::Plan;
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter, Token};
use engine::source::{Position, ReadRequest, Source, SourceError, SplitReader, Start, Wake};
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use tokio::sync::{mpsc, watch};

use crate::job::{environment_variable, load_for_sample, report, warn};
use crate::log::{complain, say};
use crate::run::duration;
use crate::show;

#[derive(Args)]
pub struct Sample {
    /// Job files, in order
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Rows to show of each table that the job writes
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// How long to wait for them
    #[arg(long = "for", default_value = "10 seconds", value_parser = duration)]
    wait: Duration,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

impl Sample {
    pub async fn execute(self) -> ExitCode {
        let (rows, mut arriving) = mpsc::unbounded_channel();
        let sampler = Arc::new(Sampler { rows, limit: self.limit });
        let mut job = match load_for_sample(&self.files, &environment_variable, sampler) {
            Ok(job) => job,
            Err(problems) => return report(&problems),
        };
        warn(&job);
        for node in &mut job.plan.sources {
            node.source = Arc::new(ReadOnly(node.source.clone()));
        }
        let dead_letter = job.plan.sinks[job.plan.dead_letter].table.clone();
        let mut taken: BTreeMap<String, Vec<RecordBatch>> =
            job.plan.sinks.iter().map(|s| (s.table.clone(), vec![])).collect();
        let (_stop, stopping) = watch::channel(false);
        let mut running = std::pin::pin!(job_of(job.plan, stopping).run());
        let mut out_of_time = std::pin::pin!(tokio::time::sleep(self.wait));
        let mut ended = false;
        while !self.is_enough(&taken, &dead_letter) {
            tokio::select! {
                biased;
                Some((table, batch)) = arriving.recv() => taken.entry(table).or_default().push(batch),
                outcome = &mut running, if !ended => match outcome {
                    Ok(_) => ended = true,
                    Err(error) => {
                        complain(&error.to_string());
                        return ExitCode::FAILURE;
                    }
                },
                () = &mut out_of_time => break,
                // The job has ended, and all that it wrote is taken.
                () = std::future::ready(()), if ended => break,
            }
        }
        let bad = taken.remove(&dead_letter).unwrap_or_default();
        let several = taken.len() > 1;
        for (table, batches) in &taken {
            let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
            if several || count == 0 {
                let nothing = if ended { "no rows" } else { "no rows yet (--for waits longer)" };
                say(&if count == 0 { format!("{table}: {nothing}") } else { format!("{table}:") });
            }
            if let Err(error) = self.print(batches) {
                complain(&error.to_string());
                return ExitCode::FAILURE;
            }
        }
        tell_bad(&bad);
        ExitCode::SUCCESS
    }

    fn is_enough(&self, taken: &BTreeMap<String, Vec<RecordBatch>>, dead_letter: &str) -> bool {
        let rows = |batches: &Vec<RecordBatch>| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        taken.iter().filter(|(table, _)| *table != dead_letter).all(|(_, batches)| rows(batches) >= self.limit)
    }

    fn print(&self, batches: &[RecordBatch]) -> Result<(), arrow::error::ArrowError> {
        if batches.is_empty() {
            return Ok(());
        }
        if !self.json {
            println!("{}", show::table(batches, self.limit)?);
            return Ok(());
        }
        let mut left = self.limit;
        let mut writer = LineDelimitedWriter::new(std::io::stdout().lock());
        for batch in batches {
            let part = batch.slice(0, batch.num_rows().min(left));
            left -= part.num_rows();
            writer.write(&part)?;
        }
        writer.finish()
    }
}

fn job_of(plan: Plan, stop: watch::Receiver<bool>) -> Job {
    Job {
        plan,
        // Nothing is kept, so there is nothing to checkpoint.
        settings: JobSettings { checkpoint_interval: Duration::from_secs(24 * 3600), ..JobSettings::default() },
        store: Arc::new(InMemory::new()),
        root: object_store::path::Path::default(),
        environment: Arc::new(System),
        metrics: Arc::new(Metrics::default()),
        stop,
        begun: None,
    }
}

fn tell_bad(batches: &[RecordBatch]) {
    let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let errors = batches.first().and_then(|b| Some(b.column_by_name("error")?.as_string_opt::<i32>()?.clone()));
    if let Some(errors) = errors.filter(|e| !e.is_empty()) {
        say(&format!("{count} record(s) would go to the dead letter; the first: {}", errors.value(0)));
    }
}

/// Takes rows as they come, and no more than wanted.
struct Sampler {
    rows: mpsc::UnboundedSender<(String, RecordBatch)>,
    limit: usize,
}

struct SampleWriter {
    table: String,
    rows: mpsc::UnboundedSender<(String, RecordBatch)>,
    left: usize,
}

#[async_trait]
impl Sink for Sampler {
    fn describe(&self) -> String {
        "a look".into()
    }
    fn guarantee(&self) -> String {
        "nothing is written".into()
    }
    async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
        Ok(())
    }
    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        let (table, rows) = (context.sink.clone(), self.rows.clone());
        Ok(Box::new(SampleWriter { table, rows, left: self.limit }))
    }
    async fn commit(&self, _: &SinkContext, _: &[Committable]) -> Result<Committed, SinkError> {
        Ok(Committed::Done)
    }
}

impl SinkWriter for SampleWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let part = batch.slice(0, batch.num_rows().min(self.left));
        self.left -= part.num_rows();
        if part.num_rows() > 0 {
            let _ = self.rows.send((self.table.clone(), part));
        }
        Ok(())
    }
    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        Box::pin(async { Ok(None) })
    }
}

/// A source that is told of no checkpoint, so that it commits no group offset.
struct ReadOnly(Arc<dyn Source>);

#[async_trait]
impl Source for ReadOnly {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        self.0.splits().await
    }
    async fn resolve(&self, split: &str, found_later: bool) -> Result<Start, SourceError> {
        self.0.resolve(split, found_later).await
    }
    async fn verify(&self, split: &str, at: &Position) -> Result<(), SourceError> {
        self.0.verify(split, at).await
    }
    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError> {
        self.0.open(split, start, request, wake).await
    }
}
