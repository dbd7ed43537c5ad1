//! The main job on Azure storage: its log and its table are blobs, and the process is killed again and again.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use delta::TableReader;
use simulator::{Report, Verification};

use crate::broker::Broker;
use crate::feed::{Feed, Feeding, Spread};
use crate::millrace::{Job, Running};
use crate::process;

/// Microsoft's emulator, with the container `test`. It ends with this value.
struct Azurite {
    emulator: Child,
    variables: Vec<(String, String)>,
}

impl Azurite {
    fn start() -> Azurite {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut node = Command::new(tool("MILLRACE_NODE", "node"));
        node.arg(tests.join("azurite.js")).arg(tool("MILLRACE_AZURITE", "azurite/node_modules/azurite")).arg("test");
        let mut emulator = process::start({
            node.stdin(Stdio::piped()).stdout(Stdio::piped());
            node
        });
        let mut port = String::new();
        BufReader::new(emulator.stdout.take().expect("stdout is piped")).read_line(&mut port).expect("its port");
        // The account that every emulator has, and its published key.
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let endpoint = format!("http://127.0.0.1:{}/devstoreaccount1", port.trim());
        let variables = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
            ("AZURE_STORAGE_ACCOUNT_KEY", key),
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
            ("AZURE_ALLOW_HTTP", "true"),
        ];
        Azurite { emulator, variables: variables.map(|(name, value)| (name.into(), value.into())).into() }
    }

    fn options(&self) -> Vec<(String, String)> {
        self.variables.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect()
    }

    /// Compares the rows that a table consists of now with what was sent.
    async fn verify(&self, mut sent: Verification, table: &str) -> Report {
        let reader = TableReader::at(table, &self.options()).expect("the table's place is there");
        for file in reader.live_files().await.expect("the table's log can be read") {
            let rows = reader.rows(&file, None).await.unwrap_or_else(|e| panic!("{file}: {e}"));
            sent.commit(0, &rows).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        sent.report()
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// A tool that `./test` installs; a variable may name another one.
fn tool(variable: &str, installed: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools");
    let path = std::env::var_os(variable).map_or_else(|| tools.join(installed), PathBuf::from);
    assert!(path.exists(), "{} is not there; ./test installs what tests need", path.display());
    path
}

/// Waits until everything that was sent is read.
fn drain(run: &mut Running, partitions: usize) {
    run.wait_until("everything is read", |status| {
        let splits = status["splits"].as_object().map(|s| s.values().cloned().collect::<Vec<_>>()).unwrap_or_default();
        splits.len() == partitions && splits.iter().all(|s| s["lag"] == 0 && s["idle"] == true)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_log_and_table_are_blobs_is_killed_and_shows_every_event_once() {
    let azurite = Azurite::start();
    let broker = Broker::shared();
    let topic = broker.topic("blobs", 4).await;
    let mut job = Job::events_to_delta(&broker.bootstrap_servers(), &topic).state_at("az://test/state");
    for (name, value) in &azurite.variables {
        job = job.variable(name, value);
    }
    let table = "abfss://test@devstoreaccount1.dfs.core.windows.net/a/table";
    let job = job.variable("TABLE", table);
    let feeding = Feeding {
        rate: 200.0,
        duplicate_every: 5,
        copies_within: Duration::from_secs(2),
        spread: Spread::Anywhere,
        partitions: 4,
        seed: 3,
    };
    let feed = Feed::start(&topic, &broker.properties(), feeding);
    for kill in 0..5 {
        let mut run = job.start();
        run.wait_until_it_says(if kill == 0 { "new job" } else { "resumes at entry" });
        run.wait_until("it commits", |status| status["sinks"]["serving"]["commits"].as_u64() > Some(0));
        tokio::time::sleep(Duration::from_millis(300 * kill)).await;
        run.kill();
    }
    let sent = feed.finish();
    let mut last = job.start();
    drain(&mut last, 4);
    last.terminate();
    assert_eq!(last.wait().code(), Some(0), "{}", last.said());
    let report = azurite.verify(sent, table).await;
    assert!(report.holds() && report.copies > 0, "{report}");
}
