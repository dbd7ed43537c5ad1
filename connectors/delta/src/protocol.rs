//! Which tables may be written: a table that asks for a feature that millrace does not keep is refused by name.

use serde_json::{Value, json};

use crate::schema::has_time_without_zone;

/// The feature of a table that has times without a zone.
pub const TIME_WITHOUT_ZONE: &str = "timestampNtz";
/// Writer features that an append keeps by itself, or by writing no file that they concern.
const KEPT: [&str; 4] = ["appendOnly", "deletionVectors", TIME_WITHOUT_ZONE, "v2Checkpoint"];
/// Features that ask something only where the schema or the configuration makes use of them.
const KEPT_IF_UNUSED: [&str; 5] =
    ["invariants", "checkConstraints", "generatedColumns", "columnMapping", "identityColumns"];
/// What a writer version implies, in the order in which the versions brought it (protocol: "Valid Feature Names").
const IMPLIED: [(i64, &[&str]); 5] = [
    (2, &["appendOnly", "invariants"]),
    (3, &["checkConstraints"]),
    (4, &["changeDataFeed", "generatedColumns"]),
    (5, &["columnMapping"]),
    (6, &["identityColumns"]),
];

/// The protocol of a new table: the oldest that its columns allow, so that every reader reads it.
pub fn protocol_for(schema: &Value) -> Value {
    if has_time_without_zone(schema) {
        let writer = ["appendOnly", "invariants", TIME_WITHOUT_ZONE];
        return json!({"minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": [TIME_WITHOUT_ZONE], "writerFeatures": writer});
    }
    json!({"minReaderVersion": 1, "minWriterVersion": 2})
}

/// Whether a table's protocol names a feature.
pub fn has_feature(protocol: &Value, feature: &str) -> bool {
    protocol["writerFeatures"].as_array().into_iter().flatten().any(|name| name == feature)
}

/// Why an append to this table would break it; `None` if it would not.
pub fn refusal(protocol: &Value, schema: &Value, configuration: &Value) -> Option<String> {
    let writer = protocol["minWriterVersion"].as_i64().unwrap_or(0);
    let mut features: Vec<&str> = match writer {
        0..=6 => IMPLIED.iter().filter(|(since, _)| *since <= writer).flat_map(|(_, names)| *names).copied().collect(),
        7 => protocol["writerFeatures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        other => return Some(format!("the table's writer version {other} is unknown")),
    };
    features.retain(|f| !KEPT.contains(f));
    // The change feed of an append is made by its readers; nothing has to be written for it.
    features.retain(|f| *f != "changeDataFeed");
    features.retain(|f| !KEPT_IF_UNUSED.contains(f));
    if !features.is_empty() {
        features.sort_unstable();
        let (word, names) = (if features.len() == 1 { "feature" } else { "features" }, features.join(", "));
        return Some(format!("the table needs the {word} {names}, which this millrace does not write"));
    }
    if let Some(name) =
        column_with(schema, "delta.invariants").or_else(|| column_with(schema, "delta.generationExpression"))
    {
        return Some(format!(
            "the table's column {name} has an invariant or a generation expression, which millrace does not evaluate"
        ));
    }
    if let Some(name) = column_with(schema, "delta.identity.start") {
        return Some(format!("the table's column {name} is an identity column, whose values millrace does not make"));
    }
    if let Some(mode) = configuration["delta.columnMapping.mode"].as_str().filter(|mode| *mode != "none") {
        return Some(format!(
            "the table maps its columns by {mode} (delta.columnMapping.mode), which millrace does not"
        ));
    }
    let constraint = configuration.as_object().into_iter().flatten().find(|(k, _)| k.starts_with("delta.constraints."));
    if let Some((name, _)) = constraint {
        return Some(format!("the table has the constraint {name}, which millrace does not evaluate"));
    }
    short_memory(configuration)
}

/// The table must remember which entries it shows for as long as a job may be stopped.
fn short_memory(configuration: &Value) -> Option<String> {
    let text = configuration["delta.setTransactionRetentionDuration"].as_str()?;
    let days = interval_days(text);
    (days.is_none_or(|d| d < 30.0)).then(|| {
        format!(
            "the table forgets its writers' transactions after '{text}' (delta.setTransactionRetentionDuration): a job that is \
             stopped for longer could show rows twice; set it to at least 'interval 30 days'"
        )
    })
}

/// A Delta interval, `interval 30 days`, in days.
pub fn interval_days(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split_whitespace().filter(|w| !w.eq_ignore_ascii_case("interval")).collect();
    let [number, unit] = words[..] else { return None };
    let number: f64 = number.parse().ok()?;
    Some(match unit.trim_end_matches('s').to_ascii_lowercase().as_str() {
        "week" => number * 7.0,
        "day" => number,
        "hour" => number / 24.0,
        "minute" => number / 1440.0,
        "second" => number / 86_400.0,
        _ => return None,
    })
}

fn column_with(schema: &Value, key: &str) -> Option<String> {
    let fields = schema["fields"].as_array()?;
    fields.iter().find_map(|f| {
        if f["metadata"].get(key).is_some() {
            return f["name"].as_str().map(String::from);
        }
        column_with(&f["type"], key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(features: &[&str], configuration: Value) -> Option<String> {
        let protocol = json!({"minReaderVersion": 3, "minWriterVersion": 7, "writerFeatures": features});
        refusal(&protocol, &json!({"type": "struct", "fields": []}), &configuration)
    }

    #[test]
    fn a_table_with_deletion_vectors_takes_appends() {
        assert_eq!(judge(&["deletionVectors", "appendOnly", "invariants", "v2Checkpoint"], json!({})), None);
        assert_eq!(refusal(&json!({"minWriterVersion": 2}), &json!({"fields": []}), &json!({})), None);
    }

    #[test]
    fn what_is_not_kept_is_refused_by_name() {
        assert!(judge(&["rowTracking"], json!({})).unwrap().contains("the feature rowTracking"));
        assert!(
            judge(&[], json!({"delta.constraints.positive": "x > 0"})).unwrap().contains("delta.constraints.positive")
        );
        let schema =
            json!({"fields": [{"name": "g", "type": "long", "metadata": {"delta.generationExpression": "x + 1"}}]});
        assert!(refusal(&json!({"minWriterVersion": 4}), &schema, &json!({})).unwrap().contains("column g"));
    }

    #[test]
    fn writer_versions_5_and_6_are_taken_unless_the_table_uses_what_they_brought() {
        let judge = |version: i64, fields: Value, configuration: Value| {
            refusal(&json!({"minWriterVersion": version}), &json!({"fields": fields}), &configuration)
        };
        for version in 2..=6 {
            assert_eq!(judge(version, json!([]), json!({"delta.columnMapping.mode": "none"})), None, "{version}");
        }
        assert!(judge(5, json!([]), json!({"delta.columnMapping.mode": "name"})).unwrap().contains("by name"));
        let identity = json!([{"name": "key", "type": "long", "metadata": {"delta.identity.start": 1}}]);
        assert!(judge(6, identity, json!({})).unwrap().contains("column key is an identity column"));
        let generated = json!([{"name": "g", "type": "long", "metadata": {"delta.generationExpression": "x"}}]);
        assert!(judge(6, generated, json!({})).unwrap().contains("column g"));
        assert!(judge(6, json!([]), json!({"delta.constraints.c": "x > 0"})).unwrap().contains("constraints.c"));
        assert!(judge(8, json!([]), json!({})).unwrap().contains("version 8"));
    }

    #[test]
    fn protocol_19_a_table_that_forgets_transactions_early_is_refused() {
        let keep = |text: &str| judge(&[], json!({"delta.setTransactionRetentionDuration": text}));
        assert!(keep("interval 7 days").unwrap().contains("at least 'interval 30 days'"));
        assert_eq!(keep("interval 30 days"), None);
        assert!(keep("a while").is_some());
    }
}
