//! Dependencies between our own crates point one way. A new arrow is a decision: it changes `docs/architecture.md` too.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Who may know whom. The binary may know everybody.
const ARROWS: [(&str, &[&str]); 14] = [
    ("engine", &[]),
    ("formats", &[]),
    ("sql", &["engine"]),
    ("identity", &["engine"]),
    ("schema_registry", &["engine", "formats", "identity"]),
    ("kafka", &["engine", "formats", "identity", "schema_registry", "storage"]),
    ("cosmosdb", &["engine", "formats", "identity", "storage"]),
    ("sqlserver", &["engine", "formats", "identity", "storage"]),
    ("tds_double", &[]),
    // What a sink stages is written by the engine's trait and lies in a store.
    ("storage", &["engine"]),
    ("files", &["engine", "formats", "storage"]),
    ("delta", &["engine", "storage"]),
    ("simulator", &["engine", "formats"]),
    ("connectors", &["engine", "kafka", "cosmosdb", "sqlserver", "files", "delta", "simulator"]),
];

/// For each crate of the workspace, those of the workspace that it is built on (not those of its tests).
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be asked");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo answers in JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    let ours = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().cloned().unwrap_or_default();
        let ours = dependencies.iter().filter(|d| d["path"].is_string() && d["kind"].is_null());
        (text(&package["name"]), ours.map(|d| text(&d["name"])).collect())
    };
    metadata["packages"].as_array().expect("a workspace has packages").iter().map(ours).collect()
}

#[test]
fn our_crates_depend_on_one_another_in_one_direction_only() {
    let found = arrows();
    assert!(found["millrace"].contains("engine"), "the question was answered: {found:?}");
    for (name, dependencies) in found.iter().filter(|(name, _)| *name != "millrace") {
        let (_, allowed) = ARROWS.iter().find(|(known, _)| known == name).unwrap_or_else(|| {
            panic!("{name} is a new crate: say here and in docs/architecture.md whom it may know");
        });
        let new: Vec<_> = dependencies.iter().filter(|d| !allowed.contains(&d.as_str())).collect();
        assert!(new.is_empty(), "{name} depends on {new:?}: that is a new arrow, and a design decision");
    }
}
