//! When the rows of a table became visible: with the commit that added them, also where its files were joined since.

use std::collections::HashMap;
use std::ops::Range;

use deltalake::kernel::{Add, Remove};
use serde_json::Value;

/// Of each file that was met in the table's log, from its beginning on: when its rows became visible.
#[derive(Debug, Default)]
pub struct CommitTimes {
    files: HashMap<String, Vec<Part>>,
}

/// Rows that lie one behind the other in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// `None`: all there are, and nobody said how many.
    rows: Option<u64>,
    /// Milliseconds since 1970, if it is known.
    since: Option<i64>,
}

impl CommitTimes {
    /// Goes on with the actions of the next version.
    pub fn next(&mut self, actions: &[Value]) -> Result<(), String> {
        let adds: Vec<Add> = of_kind(actions, "add")?;
        let removes: Vec<Remove> = of_kind(actions, "remove")?;
        let mut removed: Vec<(&str, Vec<Part>)> =
            removes.iter().filter_map(|remove| Some((&*remove.path, self.files.remove(&remove.path)?))).collect();
        let stays = |path: &str| adds.iter().any(|add| add.path == path);
        // Rows of files that were written again may have become visible long before.
        let rewritten = removes.iter().any(|remove| remove.data_change && !stays(&remove.path));
        let time = committed_at(actions).filter(|_| !rewritten);
        for add in &adds {
            let rows = number_of_rows(add);
            let parts = if let Some(at) = removed.iter().position(|(path, _)| *path == add.path) {
                // The same file, of which other rows are deleted now.
                removed.swap_remove(at).1
            } else if add.data_change {
                vec![Part { rows, since: time }]
            } else {
                let known = removed.len() == removes.len();
                let parts = joined(&mut removed).filter(|_| known && adds.len() == 1 && are_joined_in_order(actions));
                parts.filter(|parts| sum(parts) == rows).unwrap_or_else(|| vec![Part { rows, since: None }])
            };
            self.files.insert(add.path.clone(), parts);
        }
        Ok(())
    }

    /// Since when the rows at these places of a file have been visible, in their order.
    pub fn of(&self, file: &str, places: Range<u64>) -> Vec<(Range<u64>, Option<i64>)> {
        let parts = self.files.get(file).map_or(&[][..], Vec::as_slice);
        let (mut times, mut first) = (vec![], 0);
        for part in parts.iter().chain([&Part { rows: None, since: None }]) {
            let end = part.rows.map_or(u64::MAX, |rows| first + rows);
            let common = places.start.max(first)..places.end.min(end);
            if !common.is_empty() {
                times.push((common, part.since));
            }
            first = end;
        }
        times
    }
}

fn of_kind<T: serde::de::DeserializeOwned>(actions: &[Value], kind: &str) -> Result<Vec<T>, String> {
    let of_kind = actions.iter().filter_map(|action| action.get(kind));
    of_kind.map(|action| serde_json::from_value(action.clone()).map_err(|e| format!("an action {kind}: {e}"))).collect()
}

fn committed_at(actions: &[Value]) -> Option<i64> {
    let info = actions.iter().find_map(|action| action.get("commitInfo"))?;
    info["inCommitTimestamp"].as_i64().or_else(|| info["timestamp"].as_i64())
}

/// Those that are deleted since included.
fn number_of_rows(add: &Add) -> Option<u64> {
    let stats: Value = serde_json::from_str(add.stats.as_deref()?).ok()?;
    stats["numRecords"].as_u64()
}

/// Whether the version joined files as we do: a file's rows lie in it behind those of the file that is removed before it.
fn are_joined_in_order(actions: &[Value]) -> bool {
    let Some(info) = actions.iter().find_map(|action| action.get("commitInfo")) else { return false };
    let ours = info["engineInfo"].as_str().is_some_and(|engine| engine.starts_with("millrace/"));
    ours && info["operation"] == "OPTIMIZE"
}

/// The rows of all these files, one behind the other; `None` if it is not known of one how many there are.
fn joined(files: &mut Vec<(&str, Vec<Part>)>) -> Option<Vec<Part>> {
    let parts: Vec<Part> = files.drain(..).flat_map(|(_, parts)| parts).collect();
    parts.iter().all(|part| part.rows.is_some()).then_some(parts)
}

fn sum(parts: &[Part]) -> Option<u64> {
    parts.iter().map(|part| part.rows).sum()
}
