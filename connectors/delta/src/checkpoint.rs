//! Checkpoints of the table's log, so that opening it stays cheap.

use engine::sink::SinkError;
use serde_json::Value;

use crate::options::DeltaOptions;
use crate::state::write_checkpoint;
use crate::store::{last_checkpoint, place};

/// Versions between two checkpoints, unless the table says otherwise. Readers hold fewer entries than this in mind.
const EVERY: u64 = 100;

/// Versions between two checkpoints of a table with this configuration.
pub fn interval(configuration: &Value) -> u64 {
    let configured = configuration["delta.checkpointInterval"].as_str();
    configured.and_then(|text| text.parse().ok()).filter(|versions| *versions > 0).unwrap_or(EVERY)
}

/// Whether a checkpoint falls between two versions. The version alone decides, so that restarts do not put it off.
pub fn due(before: u64, after: u64, every: u64) -> bool {
    after / every > before / every
}

/// Checkpoints a version, unless somebody did so for it or a later one. Not the newest: a checkpoint above what a writer
/// has read looks to it like a log that was cleaned under its feet.
pub async fn checkpoint(options: &DeltaOptions, version: u64) -> Result<(), SinkError> {
    let failed = |e: &dyn std::fmt::Display| SinkError::retry(&options.path, e);
    let table = place(options)?;
    let store = table.log_store().object_store(None);
    if last_checkpoint(&*store).await.map_err(|e| failed(&e))?.is_some_and(|there| there >= version) {
        return Ok(());
    }
    write_checkpoint(&table, version).await.map_err(|e| failed(&e))?;
    tracing::debug!(table = options.path, version, "the table's log was checkpointed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_may_say_how_often() {
        assert_eq!(interval(&json!({"delta.checkpointInterval": "10"})), 10);
        assert_eq!(interval(&json!({})), 100);
        assert_eq!(interval(&json!({"delta.checkpointInterval": "0"})), 100);
    }

    #[test]
    fn a_restart_does_not_put_a_checkpoint_off() {
        assert!(due(99, 100, 100));
        assert!(!due(100, 101, 100));
        assert!(due(98, 203, 100), "others wrote meanwhile");
    }
}
