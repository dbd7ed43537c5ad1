//! `millrace state`: what a job's folder says, and its end.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path as FilePath;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use engine::clock::UNHEARD;
use engine::environment::{Environment, System};
use engine::job_log::{self, state::LogState};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::log::{complain, say};
use crate::run::open_state;

/// A job whose last entry is younger than this, and that released nothing, seems to run.
const ALIVE: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct State {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show how far a job came, what it keeps, and what is not shown by its sinks yet
    #[command(
        after_help = "Examples:\n  millrace state show ./state/eventhubs-databricks-delta\n  millrace state show --name eventhubs-databricks-delta\n  millrace state show abfss://jobs@account.dfs.core.windows.net/orders --json"
    )]
    Show {
        #[command(flatten)]
        place: Place,
        /// All of it, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a job's state: the job begins anew. What its tables hold stays
    #[command(
        after_help = "The job begins anew at its next start: it reads from where its tables say, and knows nothing of what it wrote.\n\nExample:\n  millrace state drop --name orders --yes"
    )]
    Drop {
        #[command(flatten)]
        place: Place,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
pub struct Place {
    /// The job's folder or URL, as given to `run --state`
    #[arg(required_unless_present = "name")]
    state: Option<String>,
    /// The job's name, for ./state/<name>
    #[arg(long, conflicts_with = "state")]
    name: Option<String>,
}

impl Place {
    fn text(&self) -> String {
        let named = || format!("./state/{}", self.name.as_deref().unwrap_or_default());
        self.state.clone().unwrap_or_else(named)
    }

    /// The store, without making a folder that is not there.
    fn open(&self) -> Result<(Arc<dyn ObjectStore>, Path), String> {
        let text = self.text();
        if !text.contains("://") && !FilePath::new(&text).is_dir() {
            return Err(format!("there is no folder {text}"));
        }
        open_state(&text).map_err(|e| format!("{text}: {e}"))
    }
}

impl Place {
    /// Where a process that runs the job from a local folder answers, if one does.
    async fn listening(&self) -> Option<String> {
        let address = std::fs::read_to_string(FilePath::new(&self.text()).join("listen")).ok()?;
        let connecting = tokio::net::TcpStream::connect(&address);
        tokio::time::timeout(Duration::from_secs(2), connecting).await.ok()?.ok()?;
        Some(address)
    }
}

impl State {
    pub async fn execute(self) -> ExitCode {
        let done = match &self.command {
            Command::Show { place, json } => show(place, *json).await,
            Command::Drop { place, yes } => drop_state(place, *yes).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        }
    }
}

async fn show(place: &Place, json: bool) -> Result<(), String> {
    let (store, root) = place.open()?;
    let state = job_log::look(store, root, Arc::new(System)).await.map_err(|e| e.to_string())?;
    let state = state.ok_or_else(|| format!("{} holds no job's state", place.text()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&state).map_err(|e| e.to_string())?);
    } else {
        print!("{}", describe(&state, System.now() / 1_000_000));
    }
    Ok(())
}

/// A log's facts as tables. `now`: milliseconds since 1970.
fn describe(state: &LogState, now: i64) -> String {
    let mut out = String::new();
    let age = Duration::from_millis((now - state.time).max(0) as u64);
    let _ = writeln!(out, "log         {}", state.log_id);
    let _ = writeln!(out, "last entry  {}, {} ({} ago)", state.number, time(state.time), rounded(age));
    let _ = writeln!(out, "owner       {}", owner(state).unwrap_or("none: released"));
    let mut rows = vec![["SPLIT", "NEXT OFFSET", "LOG TIME", "WATERMARK", "AT ENTRY"].map(String::from).to_vec()];
    for (name, group) in &state.groups {
        let finished = if group.finished { " (finished)" } else { "" };
        let clock = |nanos: i64| if nanos == UNHEARD { "-".into() } else { time(nanos / 1_000_000) };
        let offset = format!("{}{finished}", group.start.from.offset);
        let (log_time, event_time) = (clock(group.clock.log_time), clock(group.clock.event_time));
        rows.push(vec![name.clone(), offset, log_time, event_time, group.entry.to_string()]);
    }
    out.push_str(&aligned(&rows));
    if !state.parts.is_empty() {
        let mut rows = vec![["STATE OF", "PARTS", "ROWS", "BYTES"].map(String::from).to_vec()];
        for (operator, parts) in &state.parts {
            let (count, bytes): (u64, u64) = parts.iter().fold((0, 0), |(r, b), p| (r + p.rows, b + p.bytes));
            rows.push(vec![operator.clone(), parts.len().to_string(), count.to_string(), bytes.to_string()]);
        }
        out.push_str(&aligned(&rows));
    }
    if state.uncommitted.is_empty() {
        out.push_str("\nevery entry is shown by every sink\n");
    } else {
        let mut rows = vec![["NOT SHOWN YET", "SINK", "TOKENS", "BY WRITER"].map(String::from).to_vec()];
        for (entry, waiting) in &state.uncommitted {
            for (sink, tokens) in &waiting.sinks {
                let row = [entry.to_string(), sink.clone(), tokens.len().to_string(), waiting.writer.clone()];
                rows.push(row.to_vec());
            }
        }
        out.push_str(&aligned(&rows));
    }
    out
}

fn owner(state: &LogState) -> Option<&str> {
    state.groups.values().find_map(|g| g.owner.as_deref())
}

fn time(millis: i64) -> String {
    let time: Option<DateTime<Utc>> = DateTime::from_timestamp_millis(millis);
    time.map_or_else(|| millis.to_string(), |t| t.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn rounded(age: Duration) -> String {
    match age.as_secs() {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// Columns as wide as their widest cell, under an empty line.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    format!("\n{}", rows.iter().map(line).collect::<String>())
}

async fn drop_state(place: &Place, yes: bool) -> Result<(), String> {
    let (store, root) = place.open()?;
    if let Some(address) = place.listening().await {
        return Err(format!("the job runs: it answers at http://{address}/status. Stop it, and say it again"));
    }
    let files = deletable(&*store, &root).await.map_err(|e| e.to_string())?;
    if files.is_empty() {
        return Err(format!("{} holds no job's state", place.text()));
    }
    // A log that cannot be read, for example one whose deletion was broken off, is deleted all the same.
    if let Ok(Some(state)) = job_log::look(store.clone(), root, Arc::new(System)).await {
        refuse_if_alive(&state, System.now() / 1_000_000)?;
        if let Some(writer) = owner(&state) {
            say(&format!("writer {writer} did not release the job: it died, or it runs and has nothing to write"));
        }
        say(&format!("{}: log {}, {} entries, {} objects", place.text(), state.log_id, state.number, files.len()));
    }
    if !yes && !confirmed(&place.text())? {
        return Err("nothing was deleted".into());
    }
    for file in &files {
        match store.delete(file).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(format!("{file}: {error}; say it again to go on")),
        }
    }
    say(&format!("deleted: {} objects; a dead letter in the folder stays", files.len()));
    Ok(())
}

fn refuse_if_alive(state: &LogState, now: i64) -> Result<(), String> {
    let age = Duration::from_millis((now - state.time).max(0) as u64);
    match owner(state) {
        Some(writer) if age < ALIVE => Err(format!(
            "the job seems to run: writer {writer} wrote its last entry {} ago. Stop it, wait {} s, and say it again",
            rounded(age),
            ALIVE.as_secs()
        )),
        _ => Ok(()),
    }
}

/// Everything of a job's state, in the order in which it may go: a log that is cut off in the middle must not look like
/// a whole one that ends earlier.
async fn deletable(store: &dyn ObjectStore, root: &Path) -> Result<Vec<Path>, object_store::Error> {
    let root = (root != &Path::default()).then_some(root);
    let listed: Vec<_> = store.list(root).try_collect().await?;
    let depth = root.map_or(0, |r| r.parts().count());
    let folder = |path: &Path| path.parts().nth(depth).map(|p| p.as_ref().to_string()).unwrap_or_default();
    let mut files: Vec<Path> = listed.into_iter().map(|meta| meta.location).collect();
    if !files.iter().any(|f| ["log", "snapshots"].contains(&folder(f).as_str())) {
        return Ok(vec![]);
    }
    files.retain(|f| ["snapshots", "log", "state", "staged", "probe"].contains(&folder(f).as_str()));
    let rank = |path: &Path| ["snapshots", "log"].iter().position(|f| *f == folder(path)).unwrap_or(2);
    files.sort_by_key(|path| (rank(path), path.to_string()));
    Ok(files)
}

fn confirmed(place: &str) -> Result<bool, String> {
    if !std::io::stdin().is_terminal() {
        return Err("say --yes: there is no terminal to ask on".into());
    }
    eprint!("Delete the state of {place}? The job will begin anew. [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| e.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::job_log::entry::{Claim, Entry, Kind, Layout, VERSION};
    use engine::source::{Position, Start};

    fn claimed(time: i64) -> LogState {
        let start = Start { from: Position::at(7), until: None };
        let claim = Claim {
            log_id: "log".into(),
            layout: Layout::in_memory(),
            operators: vec![],
            groups: [("events/0".to_string(), start)].into(),
            generation: None,
            member: None,
        };
        let (number, writer, attempt, kind) = (1, "w".into(), 1, Kind::Claim(claim));
        LogState::born(&Entry { version: VERSION, number, writer, attempt, time, kind }).unwrap()
    }

    #[test]
    fn a_job_whose_last_entry_is_young_is_not_dropped_unless_it_was_released() {
        let mut state = claimed(1_000_000);
        assert!(refuse_if_alive(&state, 1_009_000).unwrap_err().contains("writer w wrote its last entry 9 s ago"));
        assert!(refuse_if_alive(&state, 1_011_000).is_ok());
        state.groups.values_mut().for_each(|g| g.owner = None);
        assert!(refuse_if_alive(&state, 1_001_000).is_ok());
    }

    #[test]
    fn a_log_is_told_in_tables() {
        let told = describe(&claimed(1_767_225_600_000), 1_767_225_660_000);
        let expected = "log         log\nlast entry  1, 2026-01-01T00:00:00Z (60 s ago)\nowner       w\n\n\
                        SPLIT     NEXT OFFSET  LOG TIME  WATERMARK  AT ENTRY\n\
                        events/0  7            -         -          1\n\nevery entry is shown by every sink\n";
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn a_log_goes_before_its_parts_and_from_its_beginning_and_the_dead_letter_stays() {
        let store = object_store::memory::InMemory::new();
        for path in ["j/state/x", "j/log/02.json", "j/log/01.json", "j/snapshots/01.json", "j/dead-letter/d", "k/log/1"]
        {
            store.put(&Path::from(path), "".into()).await.unwrap();
        }
        let files = deletable(&store, &Path::from("j")).await.unwrap();
        let names: Vec<&str> = files.iter().map(AsRef::as_ref).collect();
        assert_eq!(names, ["j/snapshots/01.json", "j/log/01.json", "j/log/02.json", "j/state/x"]);
        assert!(deletable(&store, &Path::from("elsewhere")).await.unwrap().is_empty());
    }
}
