//! The jobs of the Azure SQL solutions as they are shipped: Entra ID lets them into a database that was made by their own
//! `provision.sql`. Only their events come from another broker.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tds_double::{Accident, Options, Server};

use crate::broker::Broker;
use crate::certificates::Certificates;
use crate::feed::{Feed, Feeding};
use crate::kafka_login::{TokenService, token_head};
use crate::millrace::Job;
use crate::sqlserver::{STEPS, cut_lines, events, letters};
use crate::topic_reader;
use crate::verify::{SENT, all_is_found, simulate, verify};

/// A database in Azure, and what a job's environment says of it.
struct Azure {
    server: Server,
    certificates: Certificates,
    tokens: TokenService,
}

/// The variables that say where a job's events come from.
const EVENT_HUB: &str = "EVENTHUB";
const IOT_HUB: &str = "IOTHUB_EVENTHUB";
/// The writers that a job has unless it is told otherwise.
const WRITERS: usize = 4;

fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/azuresql").join(file);
    std::fs::read_to_string(path).expect("it is shipped")
}

impl Azure {
    async fn start() -> Azure {
        Azure::provisioned(&shipped("provision.sql")).await
    }

    async fn provisioned(script: &str) -> Azure {
        let certificates = Certificates::new();
        let tls = Some(certificates.of_server("broker"));
        let server = Server::start(Options { tls, require_encryption: true, ..Options::default() }).await;
        server.expect_token(&token_head());
        server.run_script(script);
        Azure { server, certificates, tokens: TokenService::start(Duration::from_secs(3600)).await }
    }

    /// The job of a solution, with Kafka in place of the hub that the variable names.
    fn job(&self, solution: &str, hub: &str, broker: &Broker, topic: &str) -> Job {
        let hub = format!("  connection_string    = '${{{hub}}}',\n");
        let kafka = "connector            = 'kafka', bootstrap_servers = '${KAFKA}',";
        let changes = [("connector            = 'eventhubs',", kafka), (hub.as_str(), "")];
        let job = Job::of_solution(solution, &changes).variable("KAFKA", &broker.bootstrap_servers());
        let job =
            job.variable("TOPIC", topic).variable("AZURESQL_SERVER", &format!("127.0.0.1:{}", self.server.port()));
        // Who asks, and whom one trusts here.
        job.variable("AZURE_TENANT_ID", "tenant")
            .variable("AZURE_CLIENT_ID", "millrace")
            .variable("AZURE_CLIENT_SECRET", "topsecret")
            .variable("AZURE_AUTHORITY_HOST", &self.tokens.url)
            .variable("SSL_CERT_FILE", &self.certificates.file("ca.crt"))
    }

    fn number(&self, query: &str) -> i64 {
        self.server.query(query)[0][0].as_ref().and_then(|n| n.parse().ok()).expect("a number")
    }

    fn rows(&self, table: &str) -> i64 {
        self.number(&format!("SELECT COUNT_BIG(*) AS [n] FROM {table}"))
    }

    /// How many rows of the table are as they should not be.
    fn odd(&self, condition: &str) -> i64 {
        self.rows(&format!("[dbo].[rawdata] WHERE {condition}"))
    }

    /// The devices, and the partitions that rows of theirs are in.
    fn partitions_of_devices(&self) -> BTreeSet<(String, String)> {
        let pairs = self.server.query("SELECT DISTINCT [DeviceId], [PartitionId] FROM [dbo].[rawdata]");
        let text = |value: Option<String>| value.expect("a value");
        pairs.into_iter().map(|pair| <[_; 2]>::try_from(pair).expect("two columns").map(text).into()).collect()
    }
}

/// The first digit of a device's MD5, as md5sum has it.
fn partition_of(device: &str) -> String {
    let mut md5sum =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum starts");
    md5sum.stdin.take().expect("stdin is piped").write_all(device.as_bytes()).expect("it reads");
    let said = md5sum.wait_with_output().expect("it ends").stdout;
    char::from(said[0]).to_digit(16).expect("a hexadecimal digit").to_string()
}

/// What a person asks the table, and what is said of it from outside.
fn verify_sql_and_millrace_agree(azure: &Azure, job: &Job, events: u64) {
    let [minutes, copies, missing] =
        <[_; 3]>::try_from(azure.server.results(&shipped("verify.sql"))).expect("three queries");
    let counted =
        minutes.iter().map(|minute| minute[1].as_ref().and_then(|n| n.parse::<u64>().ok()).expect("a number"));
    assert_eq!(counted.sum::<u64>(), events, "{minutes:?}");
    assert_eq!((copies.len(), missing.len()), (0, 0), "{copies:?} {missing:?}");
    let (code, found, said) = verify(job, &["--json"]);
    assert_eq!(code, Some(0), "{found}{said}");
    let found: Value = serde_json::from_str(&found).expect("it prints JSON");
    assert_eq!(found["rows"], events, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_in_the_provisioned_table_once_though_the_job_dies_at_every_step() {
    let (broker, azure) = (Broker::shared(), Azure::start().await);
    let topic = broker.topic("azuresql", 2).await;
    let job = azure.job("eventhubs-databricks-azuresql", EVENT_HUB, broker, &topic);
    let job = job.argument("--checkpoint-interval=200ms");
    cut_lines(&azure.server);
    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(42));
    for step in STEPS {
        for visit in [2, 1] {
            job.dies_at(step, visit, || {});
        }
    }
    let sent = feed.finish();
    let mut last = job.start();
    last.read_all_and_stop(2);
    azure.server.accidents(|_| Accident::None);

    let report = topic_reader::verify_rows(sent, events(&azure.server, "[dbo].[rawdata]"));
    assert!(report.holds() && report.copies > 0 && report.sent > 0, "{report}");
    assert_eq!(letters(&job), [""; 0]);
    assert_eq!(azure.server.violations(), [""; 0]);

    // What the job adds to an event.
    for (device, partition) in azure.partitions_of_devices() {
        assert_eq!(partition, partition_of(&device), "{device}");
    }
    assert_eq!(azure.odd("[EnqueuedAt] > [ProcessedAt] OR [ProcessedAt] > [StoredAt]"), 0);
    // A broker's times are of milliseconds.
    assert_eq!(azure.odd("DATEDIFF_BIG(millisecond, [CreatedAt], [EnqueuedAt]) < 0"), 0);

    // Its writers did share the table, and none locked the others out.
    let writers = azure.server.query("SELECT DISTINCT [lane] FROM [dbo].[millrace_commits] WHERE [entry] > 0");
    assert_eq!(writers.len(), WRITERS);
    assert!(!last.said().contains("LOCK_ESCALATION"), "{}", last.said());

    verify_sql_and_millrace_agree(&azure, &job, report.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_in_the_provisioned_table_of_columns_once_by_one_writer() {
    let (broker, azure) = (Broker::shared(), Azure::start().await);
    let topic = broker.topic("azuresql-columns", 2).await;
    simulate(broker, &topic, SENT);
    let job = azure.job("eventhubs-databricks-azuresql", EVENT_HUB, broker, &topic);
    let job = job.variable("AZURESQL_TABLE", "dbo.rawdata_cs").variable("AZURESQL_WRITERS", "1");
    // Rows gather for ten seconds: it dies before all of them are there, and after.
    for step in ["before-showing", "after-showing"] {
        job.dies_at(step, 1, || {});
    }
    job.start().read_all_and_stop(2);
    all_is_found(&job);
    assert_eq!((azure.rows("[dbo].[rawdata_cs]"), azure.rows("[dbo].[rawdata]")), (3000, 0));
    assert_eq!(azure.number("SELECT MAX([lane]) AS [last] FROM [dbo].[millrace_commits]"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_the_other_solutions_write_the_same_table() {
    let broker = Broker::shared();
    for (solution, hub) in [
        ("eventhubs-functions-azuresql", EVENT_HUB),
        ("eventhubs-streamanalytics-azuresql", EVENT_HUB),
        ("iothub-functions-azuresql", IOT_HUB),
    ] {
        let azure = Azure::start().await;
        let topic = broker.topic(solution, 2).await;
        simulate(broker, &topic, SENT);
        let job = azure.job(solution, hub, broker, &topic);
        let mut killed = job.start();
        killed.wait_until_read(1000);
        killed.kill();
        job.start().read_all_and_stop(2);
        all_is_found(&job);
        assert_eq!((azure.rows("[dbo].[rawdata]"), letters(&job)), (3000, vec![]), "{solution}");
    }
}

/// A copy that the job no longer remembers meets its row: in the table, not in the job's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_comes_too_late_meets_its_row_in_the_provisioned_table() {
    let (broker, azure) = (Broker::shared(), Azure::start().await);
    let topic = broker.topic("azuresql-late", 2).await;
    let job = |table: &str| {
        azure.job("eventhubs-databricks-azuresql", EVENT_HUB, broker, &topic).variable("AZURESQL_TABLE", table)
    };
    simulate(broker, &topic, SENT);
    job("dbo.rawdata").start().read_all_and_stop(2);
    let first = azure.server.query("SELECT MAX([StoredAt]) AS [last] FROM [dbo].[rawdata]");
    // Another job reads all of it again.
    let again = job("dbo.rawdata");
    again.start().read_all_and_stop(2);
    all_is_found(&again);
    assert_eq!(azure.server.query("SELECT MAX([StoredAt]) AS [last] FROM [dbo].[rawdata]"), first);
}

/// What `provision.sql` grants is enough, and all of it is needed: what is missing is said before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named_at_the_start() {
    let broker = Broker::shared();
    let topic = broker.topic("azuresql-rights", 2).await;
    for (granted, instead, said) in [
        (
            "GRANT SELECT, INSERT ON [dbo].[rawdata] ",
            "GRANT SELECT ON [dbo].[rawdata] ",
            "The INSERT permission was denied on the object 'rawdata'",
        ),
        (
            "GRANT SELECT, INSERT ON [dbo].[rawdata] ",
            "GRANT INSERT ON [dbo].[rawdata] ",
            "The SELECT permission was denied on the object 'rawdata'",
        ),
        (
            "GRANT SELECT, INSERT, UPDATE ON",
            "GRANT SELECT, INSERT ON",
            "The UPDATE permission was denied on the object 'millrace_commits'",
        ),
        (
            "GRANT SELECT, INSERT, UPDATE ON",
            "GRANT SELECT, UPDATE ON",
            "The INSERT permission was denied on the object 'millrace_commits'",
        ),
        (
            "GRANT SELECT, INSERT ON [dbo].[rawdata] TO [millrace];",
            "",
            "there is no table [dbo].[rawdata] in the database streaming, or it may not be seen",
        ),
        ("CREATE TABLE [dbo].[millrace_commits]", "CREATE TABLE [dbo].[other]", "somebody who may has to run"),
    ] {
        let script = shipped("provision.sql");
        assert!(script.contains(granted), "provision.sql no longer says {granted:?}");
        let mut script = script.replace(granted, instead);
        if instead.contains("[other]") {
            script = script.replace("ON [dbo].[millrace_commits]", "ON [dbo].[other]");
        }
        let azure = Azure::provisioned(&script).await;
        let job = azure.job("eventhubs-databricks-azuresql", EVENT_HUB, broker, &topic);
        let mut run = job.start();
        assert_eq!(run.wait().code(), Some(1), "{said}\n{}", run.said());
        assert!(run.said().contains(said), "{said}\n{}", run.said());
        assert_eq!(azure.rows("[dbo].[rawdata]"), 0);
    }
}
