//! `millrace check`: whether job files are right, and with `--connect`, whether their sources, lookup tables and sinks are there.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::environment::{Environment, System};
use engine::lookup::Loaded;
use engine::plan::{Kept, LookupNode, SinkNode, SourceNode};
use engine::sink::{Names, SinkContext};
use object_store::memory::InMemory;

use crate::job::{Files, environment_variable, load, report, warn};
use crate::log::say;

/// How long one of them may take to answer.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    files: Files,
    /// Also try each source, lookup table and sink: names, rights, schema. Changes nothing
    #[arg(long)]
    connect: bool,
}

impl Check {
    pub async fn execute(self) -> ExitCode {
        let job = match load(&self.files.files, Path::new("./state"), &environment_variable) {
            Ok(job) => job,
            Err(problems) => return report(&problems),
        };
        warn(&job);
        let plan = job.plan;
        if !self.connect {
            let (sources, sinks) = (plan.sources.len(), plan.sinks.len() - 1);
            let lookups = match plan.lookups.len() {
                0 => String::new(),
                many => format!(", {many} lookup table(s)"),
            };
            say(&format!("ok: {sources} source(s){lookups}, {sinks} sink(s)"));
            return ExitCode::SUCCESS;
        }
        let mut good = true;
        for node in &plan.sources {
            good &= tell(&format!("source {}", node.table), within(try_source(node)).await);
        }
        for node in &plan.lookups {
            good &= tell(&format!("lookup {}", node.table), within(try_lookup(node)).await);
        }
        for (index, node) in plan.sinks.iter().enumerate() {
            // A dead letter that nobody declared is a local folder.
            if index != plan.dead_letter || node.table != "dead-letter" {
                good &= tell(&format!("sink {}", node.table), within(try_sink(node)).await);
            }
        }
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

async fn within(trial: impl Future<Output = Result<String, String>>) -> Result<String, String> {
    tokio::time::timeout(ANSWER, trial).await.unwrap_or_else(|_| Err(format!("no answer within {ANSWER:?}")))
}

fn tell(what: &str, result: Result<String, String>) -> bool {
    match &result {
        Ok(found) => println!("ok      {what}: {found}"),
        Err(error) => println!("failed  {what}: {error}"),
    }
    result.is_ok()
}

/// Lists the splits and asks where each would begin, which takes the right to read them.
async fn try_source(node: &SourceNode) -> Result<String, String> {
    let splits = node.source.splits().await.map_err(|e| e.to_string())?;
    for split in &splits {
        node.source.resolve(split, false).await.map_err(|e| e.to_string())?;
    }
    node.source.probe().await.map_err(|e| e.to_string())?;
    let many = if splits.len() == 1 { "1 split".to_string() } else { format!("{} splits", splits.len()) };
    Ok(format!("{}; {many}", node.source.describe()))
}

/// Looks at a table that is asked by key, and loads one that is kept whole.
async fn try_lookup(node: &LookupNode) -> Result<String, String> {
    if let Kept::ByKey(_) = node.kept {
        node.lookup.open(&node.request).await.map_err(|e| e.to_string())?;
        return Ok(format!("{}; asked by key", node.lookup.describe()));
    }
    let loaded = node.lookup.load(&node.request, None, System.now()).await.map_err(|e| e.to_string())?;
    let rows = match loaded {
        Loaded::Rows { rows, .. } => rows.iter().map(|batch| batch.num_rows()).sum(),
        Loaded::Unchanged => 0,
    };
    Ok(format!("{}; {rows} rows, kept whole", node.lookup.describe()))
}

async fn try_sink(node: &SinkNode) -> Result<String, String> {
    let context = SinkContext {
        log_id: "check".into(),
        sink: node.table.clone(),
        writer: "check".into(),
        schema: node.schema.clone(),
        store: Arc::new(InMemory::new()),
        staging: object_store::path::Path::default(),
        names: Names::of("check"),
        ownership: engine::sink::Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    node.sink.open(&context, true).await.map_err(|e| e.to_string())?;
    Ok(node.sink.describe())
}
