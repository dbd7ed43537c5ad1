//! Job files into jobs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use connectors::{FilesSink, Location, SinkFormat, registry};
use engine::connector::Connector;
use engine::sink::Sink;
use object_store::local::LocalFileSystem;
use parking_lot::Mutex;
use sql::{Diagnostic, Environment, Job, SourceFile, compile};

/// The dead letter's default size: then the job stops rather than lose something unnoticed.
const DEAD_LETTER_BYTES: u64 = 1 << 30;

/// The exit code for job files that are wrong.
pub const WRONG_FILES: u8 = 2;

#[derive(Args, Clone)]
pub struct Files {
    /// Job files, in order
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

impl Files {
    pub fn explain(&self) -> ExitCode {
        match load(&self.files, Path::new("./state"), &environment_variable) {
            Ok(job) => {
                warn(&job);
                print!("{}", sql::explain(&job));
                ExitCode::SUCCESS
            }
            Err(problems) => report(&problems),
        }
    }
}

/// Shows what is not wrong, but hardly meant.
pub fn warn(job: &Job) {
    for warning in &job.warnings {
        eprintln!("{warning}\n");
    }
}

pub fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Shows all problems, and the exit code for them.
pub fn report(problems: &[Diagnostic]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}\n");
    }
    ExitCode::from(WRONG_FILES)
}

/// Reads and checks job files. `state`: the folder under which the default dead letter lies.
pub fn load(
    files: &[PathBuf],
    state: &Path,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Job, Vec<Diagnostic>> {
    let mut job = load_texts(&read(files)?, state, variables)?;
    job.plan.name = match &job.settings.name {
        Some(name) => name.clone(),
        None => default_name(files),
    };
    Ok(job)
}

/// Reads and checks job files whose rows, good and bad, all go to `sink`.
pub fn load_for_sample(
    files: &[PathBuf],
    variables: &dyn Fn(&str) -> Option<String>,
    sink: Arc<dyn Sink>,
) -> Result<Job, Vec<Diagnostic>> {
    let connectors = registry(Arc::new(Mutex::new(std::io::stdout())));
    let default_dead_letter = sink.clone();
    let environment =
        Environment { connectors: &connectors, variables, default_dead_letter, instead_of_sinks: Some(sink) };
    compile(&read(files)?, &environment)
}

/// Reads and checks job files whose connectors are wrapped.
pub fn load_with(
    files: &[PathBuf],
    variables: &dyn Fn(&str) -> Option<String>,
    wrap: impl Fn(Arc<dyn Connector>) -> Arc<dyn Connector>,
) -> Result<Job, Vec<Diagnostic>> {
    let connectors: Vec<_> = registry(Arc::new(Mutex::new(std::io::stdout()))).into_iter().map(wrap).collect();
    let default_dead_letter = Arc::new(dead_letter(Path::new("./state/dead-letter")));
    let environment = Environment { connectors: &connectors, variables, default_dead_letter, instead_of_sinks: None };
    compile(&read(files)?, &environment)
}

fn read(files: &[PathBuf]) -> Result<Vec<SourceFile>, Vec<Diagnostic>> {
    let (mut texts, mut problems) = (vec![], vec![]);
    for path in files {
        match std::fs::read_to_string(path) {
            Ok(text) => texts.push(SourceFile { name: path.display().to_string(), text }),
            Err(error) => problems.push(Diagnostic::general(format!("{}: {error}", path.display()))),
        }
    }
    if problems.is_empty() { Ok(texts) } else { Err(problems) }
}

/// Checks job files that are in memory.
pub fn load_texts(
    texts: &[SourceFile],
    state: &Path,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Job, Vec<Diagnostic>> {
    let dead_letter = dead_letter(&state.join("dead-letter"));
    let connectors = registry(Arc::new(Mutex::new(std::io::stdout())));
    let environment = Environment {
        connectors: &connectors,
        variables,
        default_dead_letter: Arc::new(dead_letter),
        instead_of_sinks: None,
    };
    compile(texts, &environment)
}

/// The first file's stem, or its folder's name where every job's file is called `job.sql`.
fn default_name(files: &[PathBuf]) -> String {
    let first = files.first().map(PathBuf::as_path).unwrap_or(Path::new("job"));
    let stem = first.file_stem().and_then(|s| s.to_str()).unwrap_or("job");
    let folder = first.parent().and_then(|p| p.file_name()).and_then(|s| s.to_str());
    if stem == "job" { folder.unwrap_or(stem).to_string() } else { stem.to_string() }
}

/// JSON lines beside the job's state. The folder is made by the first file that is put there.
fn dead_letter(folder: &Path) -> FilesSink {
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let root = object_store::path::Path::from_absolute_path(&full).unwrap_or_default();
    let location = Location { store: Arc::new(LocalFileSystem::new()), root, place: folder.display().to_string() };
    FilesSink { location, format: SinkFormat::JsonLines, limit: Some(DEAD_LETTER_BYTES) }
}
