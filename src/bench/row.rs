//! What is shown: a table for people, or an object a line.

use serde::Serialize;

/// One line of the result.
#[derive(Serialize, Clone, Default)]
pub struct Row {
    /// What the job reads; empty where it is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job: String,
    pub what: String,
    pub events: usize,
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub events_per_second: f64,
    pub events_per_cpu_second: f64,
    /// Events per CPU second, as a multiple of what the reference does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_reference: Option<f64>,
    /// CPU time of what this line does more than the one before, as a part of the whole job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// CPU time, as a multiple of that of the parts, each measured alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_parts: Option<f64>,
    /// CPU time (where it says so: of a value), as a multiple of the first line's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_first: Option<f64>,
    /// Events per second, as a multiple of one worker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_one_worker: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

#[derive(Serialize)]
pub struct Machine {
    pub cores: usize,
    pub model: String,
    pub build: &'static str,
}

impl Machine {
    pub fn this() -> Machine {
        let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = described.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": "));
        Machine {
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            model: model.map_or("unknown processor".into(), |(_, model)| model.to_string()),
            build: if cfg!(debug_assertions) { "unoptimised" } else { "release" },
        }
    }

    pub fn is_optimised(&self) -> bool {
        self.build == "release"
    }
}

impl Row {
    /// What the last column shows.
    fn compared(&self) -> String {
        let megabytes = |bytes: u64| format!("{} MB", bytes / 1_000_000);
        let texts = [
            self.of_parts.map(|n| format!("{n:.2} of the parts")),
            self.of_one_worker.map(|n| format!("{n:.2} of 1 worker")),
            self.of_first.map(|n| format!("{n:.2} of the first")),
            self.share.map(|s| format!("{:.0} %", s * 100.0)),
            self.disk_bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("{} on disk", megabytes(bytes))),
            self.memory_bytes.map(|bytes| format!("{} of memory", megabytes(bytes))),
        ];
        texts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Prints the rows of one group.
pub fn show(title: &str, rows: &[Row], machine: &Machine, json: bool) -> Result<(), String> {
    if json {
        for row in rows {
            let row = Row { what: row.what.trim_start_matches([' ', '+']).to_string(), ..row.clone() };
            let mut object = serde_json::to_value(row).map_err(|e| e.to_string())?;
            object["machine"] = serde_json::to_value(machine).map_err(|e| e.to_string())?;
            println!("{object}");
        }
        return Ok(());
    }
    println!("{title:<52} {:>11} {:>13} {:>10}   share", "events/s", "events/CPU s", "reference");
    for row in rows {
        println!(
            "{:<52} {:>11.0} {:>13.0} {:>10}   {}",
            row.what,
            row.events_per_second,
            row.events_per_cpu_second,
            row.of_reference.map_or(String::new(), |r| format!("{r:.2}x")),
            row.compared(),
        );
    }
    println!();
    Ok(())
}
