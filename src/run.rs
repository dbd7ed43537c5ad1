//! `millrace run`: a job from its files to its end.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::connector::parse_duration;
use engine::environment::Environment;
use engine::job::{Begun, Job, JobError, JobSettings, Outcome};
use engine::job_log::LogSettings;
use engine::metrics::Metrics;
use object_store::ObjectStore;
use tokio::sync::{oneshot, watch};

use crate::crash::Crashing;
use crate::heaps;
use crate::job::{environment_variable, load, report, warn};
use crate::log::{complain, is_text, say};
use crate::progress;
use crate::serve::serve;

/// The exit code of a process whose job another one took over. No supervisor should start it again.
const FENCED: u8 = 3;

#[derive(Args)]
pub struct Run {
    /// Job files, in order
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The job log's folder or URL [default: ./state/<name>]
    #[arg(long)]
    state: Option<String>,
    /// The job's name [default: the first file's stem]
    #[arg(long)]
    name: Option<String>,
    /// Time between two checkpoints [default: 1 second]
    #[arg(long, value_parser = duration)]
    checkpoint_interval: Option<Duration>,
    /// Worker threads [default: the cores]
    #[arg(long)]
    parallelism: Option<usize>,
    /// Where /metrics, /status, /healthz and /readyz are served [default: 127.0.0.1 and a free port]
    #[arg(long)]
    listen: Option<String>,
    /// Refuse to start while another process seems to run the job
    #[arg(long)]
    no_takeover: bool,
    /// Checkpoints between two snapshots of the job log. For tests
    #[arg(long, hide = true)]
    fold_every: Option<u64>,
    /// How long folded entries of the job log stay. For tests
    #[arg(long, hide = true, value_parser = duration)]
    log_retention: Option<Duration>,
}

pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).filter(|d| !d.is_zero()).ok_or_else(|| "expected a duration like '1 second' or '500ms'".into())
}

impl Run {
    pub async fn execute(self) -> ExitCode {
        let loaded = load(&self.files, Path::new("./state"), &environment_variable);
        let name = match (&self.name, &loaded) {
            (Some(name), _) => name.clone(),
            (None, Ok(job)) => job.plan.name.clone(),
            (None, Err(problems)) => return report(problems),
        };
        let settings = loaded.as_ref().map(|j| j.settings.clone()).unwrap_or_default();
        let state = self.state.clone().or(settings.state).unwrap_or_else(|| format!("./state/{name}"));
        let beside =
            if state.contains("://") { PathBuf::from(format!("./state/{name}")) } else { PathBuf::from(&state) };
        let mut job = match load(&self.files, &beside, &environment_variable) {
            Ok(job) => job,
            Err(problems) => return report(&problems),
        };
        warn(&job);
        job.plan.name = name;
        let (store, root) = match open_state(&state) {
            Ok(opened) => opened,
            Err(error) => return fail(&format!("the job's state {state} cannot be opened: {error}")),
        };
        let metrics = Arc::new(Metrics::default());
        let listen = self.listen.or(settings.listen);
        let address = match serve(listen.as_deref(), metrics.clone()).await {
            Ok(address) => address,
            Err(error) => return fail(&error),
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut log = LogSettings::default();
        log.fold_every = self.fold_every.unwrap_or(log.fold_every);
        log.retention = self.log_retention.unwrap_or(log.retention);
        let job_settings = JobSettings {
            checkpoint_interval: self
                .checkpoint_interval
                .or(settings.checkpoint_interval)
                .unwrap_or(Duration::from_secs(1)),
            workers: self.parallelism.or(settings.parallelism).unwrap_or(cores),
            no_takeover: self.no_takeover,
            spill: spill_folder(&state),
            log,
            ..JobSettings::default()
        };
        let (begun, begins) = oneshot::channel();
        tokio::spawn(async move {
            let begun = begins.await;
            // Not before: a process that is refused must not hide the address of the one that runs the job.
            if begun.is_ok() {
                let _ = std::fs::create_dir_all(&beside)
                    .and_then(|()| std::fs::write(beside.join("listen"), address.to_string()));
            }
            match begun {
                Ok(Begun::New) => say(&format!("new job, status at http://{address}/status")),
                Ok(Begun::Resumed { entry }) => {
                    say(&format!("resumes at entry {entry}, status at http://{address}/status"))
                }
                Err(_) => {}
            }
        });
        heaps::give_back();
        let terminal = std::io::stderr().is_terminal();
        if terminal || !is_text() {
            tokio::spawn(progress::show(metrics.clone(), terminal));
        }
        let environment: Arc<dyn Environment> = Arc::new(Crashing::from_environment());
        let job = Job {
            plan: job.plan,
            settings: job_settings,
            store,
            root,
            environment,
            metrics,
            stop: stop_on_signal(),
            begun: Some(begun),
        };
        exit_code(job.run().await)
    }
}

fn exit_code(outcome: Result<Outcome, JobError>) -> ExitCode {
    match outcome {
        Ok(Outcome::Completed) => {
            say("done: everything is read and shown");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Stopped) => {
            say("stopped: everything that was read is shown");
            ExitCode::SUCCESS
        }
        Ok(Outcome::StoppedAtStart) => {
            say("stopped before anything was read: the next start goes on where the log stands");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            if error.is_fenced() { ExitCode::from(FENCED) } else { ExitCode::FAILURE }
        }
    }
}

fn fail(message: &str) -> ExitCode {
    complain(message);
    ExitCode::FAILURE
}

/// Where state that does not fit in memory goes: beside the job log if that is on this machine, else where the system
/// keeps temporary files (`TMPDIR`).
fn spill_folder(state: &str) -> PathBuf {
    if state.contains("://") { std::env::temp_dir() } else { Path::new(state).join("spill") }
}

/// The store of a job's folder, and the folder in it.
pub fn open_state(state: &str) -> Result<(Arc<dyn ObjectStore>, object_store::path::Path), String> {
    if state.contains("://") {
        let url = url::Url::parse(state).map_err(|e| e.to_string())?;
        return storage::open(&url, &[]);
    }
    std::fs::create_dir_all(state).map_err(|e| e.to_string())?;
    let store = object_store::local::LocalFileSystem::new_with_prefix(state).map_err(|e| e.to_string())?;
    Ok((Arc::new(store), object_store::path::Path::default()))
}

/// Turns true at SIGTERM or Ctrl-C. A second one ends the process at once, as a crash would.
pub fn stop_on_signal() -> watch::Receiver<bool> {
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        signal().await;
        let _ = stop.send(true);
        signal().await;
        std::process::exit(130);
    });
    stopping
}

async fn signal() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
