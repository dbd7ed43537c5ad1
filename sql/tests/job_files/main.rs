//! Job files as people write them: what a mistake is answered with, to the letter, and what a good file becomes.
//!
//! Beside each `.sql` file stands a `.txt` file with what it must say. `UPDATE_EXPECT=1 cargo test -p sql` writes them
//! anew: read the difference before you commit it.

mod connectors;
mod memory;
mod oracle;

use std::path::{Path, PathBuf};

use sql::{Environment, SourceFile, compile, explain};

fn job_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/job_files").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "sql")).collect();
    files.sort();
    files
}

/// What a job file comes to: its plan and warnings, or everything that is wrong with it.
fn answer(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let file = SourceFile { name: "job.sql".into(), text };
    let connectors = connectors::registry();
    let environment = Environment {
        connectors: &connectors,
        variables: &|name| (name == "KAFKA").then(|| "localhost:9092".into()),
        default_dead_letter: connectors::dead_letter(),
        instead_of_sinks: None,
    };
    let shown = |problems: &[sql::Diagnostic]| problems.iter().map(|p| format!("{p}\n\n")).collect::<String>();
    match compile(&[file], &environment) {
        Ok(job) => Ok(format!("{}{}", shown(&job.warnings), explain(&job))),
        Err(problems) => Err(shown(&problems)),
    }
}

/// Compares each file's answer with what stands beside it. `good`: whether the files must compile.
fn compare(folder: &str, good: bool) {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (files, mut differences) = (job_files(folder), vec![]);
    assert!(files.len() > 10, "{folder} was found");
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let answer = answer(&path);
        if answer.is_ok() != good {
            differences.push(format!("{folder}/{name} must {}compile: {answer:?}", if good { "" } else { "not " }));
            continue;
        }
        let (Ok(text) | Err(text)) = answer;
        let beside = path.with_extension("txt");
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if update {
            std::fs::write(&beside, &text).unwrap();
        } else if text != expected {
            differences.push(format!("{folder}/{name}\n--- expected\n{expected}\n--- found\n{text}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn a_mistake_is_told_with_its_place_the_reason_and_what_to_do() {
    compare("mistakes", false);
}

#[test]
fn a_good_file_becomes_its_plan() {
    compare("plans", true);
}

#[test]
fn a_secret_is_in_no_message_and_in_no_plan() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let job = |columns: &str, query: &str| {
        format!(
            "CREATE TABLE events ({columns}) WITH (connector = 'log', topic = 't', secret = '${{file:{}}}');\n\
             CREATE TABLE serving WITH (connector = 'store', path = 'out');\nINSERT INTO serving {query};",
            secret.display()
        )
    };
    let path = folder.path().join("job.sql");
    std::fs::write(&path, job("a INT", "SELECT a FROM events")).unwrap();
    let plan = answer(&path).unwrap();
    assert!(plan.contains("log 't'") && !plan.contains("hunter2"), "{plan}");
    std::fs::write(&path, job("a INT", "SELECT b FROM events")).unwrap();
    let problems = answer(&path).unwrap_err();
    assert!(problems.contains("there is no column b") && !problems.contains("hunter2"), "{problems}");
}
