//! What `SET` may say about a job.

use std::time::Duration;

use engine::connector::parse_duration;

use crate::diagnostic::{Diagnostic, Place, nearest};

/// Settings of a job file. A flag of the command line beats them.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub name: Option<String>,
    pub state: Option<String>,
    pub checkpoint_interval: Option<Duration>,
    pub parallelism: Option<usize>,
    pub listen: Option<String>,
    /// The window of `ROW_NUMBER() … = 1`, where the table says nothing.
    pub deduplicate_within: Option<Duration>,
}

const NAMES: [&str; 6] = ["name", "state", "checkpoint-interval", "parallelism", "listen", "deduplicate.within"];
/// What Arroyo and Flink call the time after which state may be forgotten.
const TTL: [&str; 3] = ["deduplicate.within", "table.exec.state.ttl", "ttl"];

impl Settings {
    pub fn set(&mut self, name: &str, value: &str, place: &Place) -> Result<(), Diagnostic> {
        let wrong = |expected: &str| Diagnostic::at(place, format!("{name}: expected {expected}, found '{value}'"));
        match name.replace('_', "-").as_str() {
            "name" => self.name = Some(value.to_string()),
            "state" => self.state = Some(value.to_string()),
            "listen" => self.listen = Some(value.to_string()),
            "checkpoint-interval" => {
                let interval = parse_duration(value).filter(|d| !d.is_zero());
                self.checkpoint_interval = Some(interval.ok_or_else(|| wrong("a duration like '1 second'"))?);
            }
            "parallelism" => {
                let count = value.parse().ok().filter(|n| *n > 0);
                self.parallelism = Some(count.ok_or_else(|| wrong("a number of workers"))?);
            }
            ttl if TTL.contains(&ttl) => {
                let within = parse_duration(value).filter(|d| !d.is_zero());
                self.deduplicate_within = Some(within.ok_or_else(|| wrong("a duration like '10 minutes'"))?);
            }
            other => {
                let hint = nearest(other, NAMES)
                    .map_or(format!("there are {}", NAMES.join(", ")), |n| format!("did you mean {n}?"));
                return Err(Diagnostic::at(place, format!("there is no setting {name}")).hint(hint));
            }
        }
        Ok(())
    }
}
