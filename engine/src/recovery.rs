//! What a process does when it starts: a pure function of the log and the job.

use std::time::Duration;

use crate::job_log::entry::Layout;
use crate::job_log::state::LogState;

/// What the job is, as far as the log cares.
#[derive(Debug, Clone)]
pub struct Shape {
    pub layout: Layout,
    /// Ids of the stateful operators.
    pub operators: Vec<String>,
    pub sinks: Vec<String>,
}

/// The first thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The log is empty.
    Fresh,
    /// Claim, restore, go on.
    Resume { entry: u64 },
    /// Claim, show what the predecessor published and did not show, then go on.
    CommitThenResume { entry: u64 },
    /// Do not touch anything; says what a person should do.
    Stop(String),
}

/// Decides. `patience`: refuse while the last entry is younger than this and its writer did not release the job.
pub fn decide(state: Option<&LogState>, shape: &Shape, now_ms: i64, patience: Option<Duration>) -> Start {
    let Some(state) = state else { return Start::Fresh };
    if let Some(reason) = refusal(state, shape, now_ms, patience) {
        return Start::Stop(reason);
    }
    let entry = state.number;
    if state.uncommitted.is_empty() && state.duties.is_empty() {
        Start::Resume { entry }
    } else {
        Start::CommitThenResume { entry }
    }
}

fn refusal(state: &LogState, shape: &Shape, now_ms: i64, patience: Option<Duration>) -> Option<String> {
    if state.layout != shape.layout {
        return Some(format!(
            "this job's state is laid out as {:?}, and this millrace would run it as {:?}; run it with the version and the \
             settings that made it, or begin anew under another --name",
            state.layout, shape.layout
        ));
    }
    let lost: Vec<_> =
        state.parts.iter().filter(|(id, parts)| !parts.is_empty() && !shape.operators.contains(id)).collect();
    if let Some((id, _)) = lost.first() {
        return Some(format!(
            "the job no longer has the operator whose state the log holds ({id}); put it back, drop the job's state with \
             'millrace state drop' (events already read are not read again by the new job unless it says so), or begin \
             anew under another --name"
        ));
    }
    let orphan = state.uncommitted.values().flat_map(|u| u.sinks.keys()).find(|s| !shape.sinks.contains(s));
    if let Some(sink) = orphan {
        return Some(format!(
            "rows for the table {sink} are published in the job log and not shown yet, but the job no longer writes to it; \
             run the former job file once more until it has shown them, then change it"
        ));
    }
    let held = state.groups.values().find_map(|g| g.owner.as_ref());
    if let (Some(patience), Some(owner)) = (patience, held) {
        let age = now_ms - state.time;
        if age < patience.as_millis() as i64 {
            return Some(format!(
                "another process (writer {owner}) wrote entry {} only {age} ms ago, and --no-takeover was given; stop that \
                 process first, or leave --no-takeover out to take over at once",
                state.number
            ));
        }
    }
    None
}
