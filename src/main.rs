//! The one binary. Only this folder prints: stdout is data, stderr is everything else.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod check;
mod crash;
mod demo;
mod feed;
mod heaps;
mod infer;
mod job;
mod log;
mod open_files;
mod progress;
mod prometheus;
mod run;
mod sample;
mod serve;
mod show;
mod simulate;
mod state;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Reads events from Event Hubs or Kafka, removes duplicates, applies SQL, and writes each result once.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  millrace demo\n  millrace check jobs/eventhubs-databricks-delta/job.sql\n  KAFKA=localhost:9092 TABLE=./events millrace run jobs/eventhubs-databricks-delta/job.sql"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written to stderr. What is logged follows RUST_LOG, for example RUST_LOG=info,kafka=debug
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: log::Format,
}

#[derive(Subcommand)]
enum Command {
    /// Run the statements of the files as one job
    #[command(
        after_help = "Exit codes: 0 done or stopped, 1 failed, 2 the job files are wrong, 3 another process took over"
    )]
    Run(run::Run),
    /// Check job files; reads and writes nothing
    #[command(
        after_help = "Examples:\n  millrace check job.sql\n  millrace check --connect job.sql      also tries each source and sink, and changes nothing\n\nExit codes: 0 all is well, 1 a source or sink failed, 2 the job files are wrong"
    )]
    Check(check::Check),
    /// Show the plan of job files: what is read, kept and promised
    Explain(job::Files),
    /// Show the first rows that a job would write; writes nothing
    #[command(
        after_help = "Examples:\n  millrace sample job.sql\n  millrace sample job.sql --limit 5 --json | jq .\n  millrace sample job.sql --for '1 minute'\n\nIt reads the real sources from where their tables say (by default from the earliest record), and touches no sink, no\nstate and no group offset."
    )]
    Sample(sample::Sample),
    /// Guess the CREATE TABLE of a topic or a file from its first messages
    #[command(
        after_help = "Examples:\n  millrace infer --kafka localhost:9092 --topic streaming > events.sql\n  millrace infer --kafka host:9093 --topic t --property security.protocol=sasl_ssl --property sasl.mechanism=PLAIN \\\n    --property sasl.username=u --property sasl.password=\"$PASSWORD\"\n  millrace infer events.jsonl --table events"
    )]
    Infer(infer::Infer),
    /// Look at a job's state, or delete it
    State(state::State),
    /// Run the whole thing on this machine: broker, simulator, job, table, verification
    Demo(demo::Demo),
    /// Send the events of the simulator to a topic, or write them as files
    Simulate(simulate::Simulate),
    /// Read back what a job's table shows: is an event missing, there twice, or altered?
    Verify(verify::Verify),
    /// Measure this machine: events a second through the job, and where the time goes
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    heaps::bound();
    open_files::raise();
    kafka::keep_tls_at_exit();
    let arguments = Arguments::parse();
    // Two TLS backends are linked in: name the one to use before anything opens a connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    log::begin(arguments.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no I/O threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match arguments.command {
            Command::Run(run) => run.execute().await,
            Command::Check(check) => check.execute().await,
            Command::Explain(files) => files.explain(),
            Command::Sample(sample) => sample.execute().await,
            Command::Infer(infer) => infer.execute().await,
            Command::State(state) => state.execute().await,
            Command::Demo(demo) => demo.execute().await,
            Command::Simulate(simulate) => simulate.execute().await,
            Command::Verify(verify) => verify.execute().await,
            Command::Bench(bench) => bench.execute().await,
        }
    });
    // Whatever still waits for an answer is not waited for, and ends with the process. Shut down, the runtime would take its
    // threads from under what goes on beside the job, which says so and panics.
    std::mem::forget(runtime);
    code
}
