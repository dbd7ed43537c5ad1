//! Log lines: for a person on a terminal, for a log system elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere
    #[default]
    Auto,
    Text,
    /// One object a line
    Json,
}

/// Sends log lines to stderr from here on: warnings, unless RUST_LOG says otherwise.
pub fn begin(format: Format) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,millrace=info,tiberius=off"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let text = format == Format::Text || (format == Format::Auto && std::io::stderr().is_terminal());
    TEXT.store(text, Relaxed);
    if text {
        lines.with_ansi(std::io::stderr().is_terminal()).init();
    } else {
        lines.json().flatten_event(true).init();
    }
}

static TEXT: AtomicBool = AtomicBool::new(true);

/// Whether log lines are text for a person.
pub fn is_text() -> bool {
    TEXT.load(Relaxed)
}

/// Something that whoever started the command wants to know.
pub fn say(message: &str) {
    if is_text() { eprintln!("{message}") } else { tracing::info!("{message}") }
}

/// Why the command did not do what it was asked to.
pub fn complain(message: &str) {
    if is_text() { eprintln!("error: {message}") } else { tracing::error!("{message}") }
}
