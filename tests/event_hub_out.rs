//! A broker dressed as an Event Hub, written to, with the rights of a sender: no transactions, nothing said of its
//! limits, and a throughput unit.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::Broker;
use crate::broker::administrator::{Of, Right, grant, limit_writing, take_back};
use crate::certificates::Certificates;
use crate::event_hub::{CONNECTION_STRING, USER, event_hub};
use crate::kafka_sink::{READ_BACK, received};
use crate::millrace::{Job, PATIENCE, records_read};
use crate::numbers::{all, more, send};
use crate::trouble::dead_letters;
use crate::verify::{SENT, all_is_found, simulate};
use crate::wait::wait_for;

/// What a policy, or a role, allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Send,
    Listen,
}

impl Claim {
    /// The same in Kafka's rights.
    fn rights(self, hub: &str) -> Vec<(Right, Of<'_>)> {
        match self {
            Claim::Send => vec![
                (Right::Write, Of::Topic(hub)),
                (Right::Describe, Of::Topic(hub)),
                (Right::IdempotentWrite, Of::Cluster),
            ],
            Claim::Listen => vec![(Right::Read, Of::Topic(hub)), (Right::Describe, Of::Topic(hub))],
        }
    }
}

/// A broker, and who signed its certificate.
struct Dressed {
    broker: Broker,
    certificates: Certificates,
}

impl Dressed {
    fn new() -> Dressed {
        let certificates = Certificates::new();
        Dressed { broker: event_hub(&certificates), certificates }
    }

    fn servers(&self) -> String {
        self.broker.bootstrap_servers()
    }

    /// A hub for whose rows the connection string has these claims.
    async fn hub(&self, about: &str, claims: &[Claim]) -> String {
        let hub = self.broker.topic(about, 3).await;
        claims.iter().for_each(|claim| self.grant(*claim, &hub));
        hub
    }

    fn grant(&self, claim: Claim, hub: &str) {
        claim.rights(hub).into_iter().for_each(|(right, of)| grant(&self.servers(), USER, right, of));
    }

    /// A topic of numbers, whose reader is somebody else.
    async fn numbers(&self, count: u64) -> String {
        let from = self.broker.topic("numbers", 2).await;
        send(&self.broker.properties(), &from, 0..count, 0..2);
        from
    }

    fn wait_until_there(&self, hub: &str, rows: usize) {
        wait_for("the rows", PATIENCE, || (received(&self.servers(), hub).len() == rows).then_some(()));
    }

    /// A job from the numbers into a hub. `column`: a third one, and what it is made of.
    fn job(&self, from: &str, hub: &str, options: &str, column: Option<(&str, &str)>) -> Job {
        let (servers, endpoint) = (self.servers(), self.broker.listener("EH"));
        let authority = self.certificates.file("ca.crt");
        let (declared, made) = column.map_or_else(Default::default, |(d, m)| (format!(", {d}"), format!(", {m}")));
        Job::new(&format!(
            "CREATE TABLE numbers (n BIGINT NOT NULL)
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE doubled (n BIGINT NOT NULL, twice BIGINT NOT NULL{declared})
             WITH (connector = 'eventhubs', connection_string = '{CONNECTION_STRING}', endpoint = '{endpoint}',
                   topic = '{hub}', format = 'json', 'properties.ssl.ca.location' = '{authority}'{options});
             INSERT INTO doubled SELECT n, n * 2{made} FROM numbers;"
        ))
        .argument("--checkpoint-interval=200ms")
    }
}

/// Messages and requests that expire within a second: so a takeover takes three.
const QUICK: &str = ", 'properties.message.timeout.ms' = '1000', 'properties.request.timeout.ms' = '1000'";

fn in_trouble(status: &Value) -> bool {
    status["sinks"]["doubled"]["trouble"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_dies_at_any_step_shows_each_row_once() {
    let dressed = Dressed::new();
    let hub = dressed.hub("killed", &[Claim::Send, Claim::Listen]).await;
    let from = dressed.numbers(100).await;
    let job = dressed.job(&from, &hub, QUICK, None);
    let properties = dressed.broker.properties();
    let mut send_more = more(&properties, &from, 100);
    job.dies_at_each(READ_BACK.steps, &mut send_more);
    let sent = send_more();
    let mut run = job.start();
    run.read_all_and_stop(2);
    assert_eq!(received(&dressed.servers(), &hub), all(0..sent));
    assert!(!run.said().contains("topsecret"), "{}", run.said());
}

/// Of the hub's limit nobody tells a sender. Rows of more than half of it must not meet in one request either.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_for_the_hub_goes_to_the_dead_letter_and_its_neighbours_arrive() {
    let dressed = Dressed::new();
    let hub = dressed.hub("large", &[Claim::Send, Claim::Listen]).await;
    let from = dressed.numbers(30).await;
    let text = "repeat('x', CASE WHEN n = 7 THEN 1100000 WHEN n = 8 THEN 990000 WHEN n > 20 THEN 600000 ELSE 10 END)";
    let job = dressed.job(&from, &hub, "", Some(("text STRING", text)));
    job.start().read_all_and_stop(2);
    assert_eq!(received(&dressed.servers(), &hub), all(0..30).into_iter().filter(|n| *n != 7).collect::<Vec<_>>());
    let letters = dead_letters(&job.state().join("dead-letter"));
    assert_eq!(letters.len(), 1, "{} letters", letters.len());
    assert!(letters[0]["error"].as_str().is_some_and(|error| error.contains("bytes are more than")));
}

/// Nor which times it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_time_the_hub_refuses_goes_to_the_dead_letter_and_its_neighbours_arrive() {
    let dressed = Dressed::new();
    let hub = dressed.hub("early", &[Claim::Send, Claim::Listen]).await;
    let from = dressed.numbers(30).await;
    let time = "CASE WHEN n IN (7, 21) THEN now() + INTERVAL '2' HOUR ELSE now() END";
    // Each try begins with another producer, and a message may wait until that one is let in.
    let patient = ", 'properties.message.timeout.ms' = '5000', 'properties.request.timeout.ms' = '1000'";
    let job = dressed.job(&from, &hub, patient, Some(("at TIMESTAMP METADATA FROM 'timestamp'", time)));
    let mut run = job.start();
    run.read_all_and_stop(2);
    let can_be = |n: &u64| ![7, 21].contains(n);
    assert_eq!(received(&dressed.servers(), &hub), all(0..30).into_iter().filter(can_be).collect::<Vec<_>>());
    let letters = dead_letters(&job.state().join("dead-letter"));
    assert_eq!(letters.len(), 2, "{letters:#?}");
    assert!(
        letters.iter().all(|l| l["error"].as_str().is_some_and(|error| error.contains("the brokers refuse it"))),
        "{letters:#?}"
    );
}

/// Ends before anything is read, and says this.
async fn is_told_at_start(dressed: &Dressed, claims: &[Claim], options: &str, texts: &[&str]) {
    let hub = dressed.hub("claims", claims).await;
    // Nothing has come yet, nor may come for a long time: whoever set this up wants to know now.
    let from = dressed.numbers(0).await;
    let job = dressed.job(&from, &hub, options, None);
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    for text in texts {
        assert!(run.said().contains(text), "it does not say {text:?}:\n{}", run.said());
    }
    assert!(!run.said().contains("topsecret"), "{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_missing_is_told_at_start() {
    let dressed = Dressed::new();
    is_told_at_start(&dressed, &[Claim::Listen], "", &["may not write", "the claim Send"]).await;
    let at_least_once = ", 'sink.delivery' = 'at-least-once'";
    is_told_at_start(&dressed, &[Claim::Listen], at_least_once, &["may not write", "the claim Send"]).await;
    // Without it, nobody could tell after a crash what had arrived.
    let listen = ["may not read", "the claim Listen", "'sink.delivery' = 'at-least-once'"];
    is_told_at_start(&dressed, &[Claim::Send], "", &listen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_only_sends_is_enough_for_rows_that_may_come_twice() {
    let dressed = Dressed::new();
    let hub = dressed.hub("only-sends", &[Claim::Send]).await;
    let from = dressed.numbers(100).await;
    dressed.job(&from, &hub, ", 'sink.delivery' = 'at-least-once'", None).start().read_all_and_stop(2);
    assert_eq!(received(&dressed.servers(), &hub), all(0..100));
}

/// Event Hubs does not say what one may do, only refuses it: so a job to which not one row was granted ends, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_missed_with_the_first_row_ends_the_job() {
    let dressed = Dressed::new();
    let hub = dressed.hub("first-row", &[Claim::Send, Claim::Listen]).await;
    let from = dressed.numbers(0).await;
    let job = dressed.job(&from, &hub, QUICK, None);
    let mut run = job.start();
    run.wait_until_idle(2);
    take_back(&dressed.servers(), USER, Right::Write, Of::Topic(&hub));
    send(&dressed.broker.properties(), &from, 0..100, 0..2);
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("the claim Send"), "{}", run.said());
    dressed.grant(Claim::Send, &hub);
    job.start().read_all_and_stop(2);
    assert_eq!(received(&dressed.servers(), &hub), all(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_taken_away_while_the_job_runs_is_waited_for() {
    let dressed = Dressed::new();
    let hub = dressed.hub("taken-away", &[Claim::Send, Claim::Listen]).await;
    let from = dressed.numbers(100).await;
    let job = dressed.job(&from, &hub, QUICK, None);
    let mut run = job.start();
    dressed.wait_until_there(&hub, 100);
    run.wait_until_shown();
    take_back(&dressed.servers(), USER, Right::Write, Of::Topic(&hub));
    send(&dressed.broker.properties(), &from, 100..200, 0..2);
    let status = run.wait_until("the missing claim is seen", in_trouble);
    let trouble = status["sinks"]["doubled"]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("the claim Send"), "{trouble}");
    dressed.grant(Claim::Send, &hub);
    run.wait_until("everything is shown", |status| {
        status["sinks"]["doubled"]["uncommitted"] == 0 && !in_trouble(status)
    });
    run.stop();
    assert_eq!(received(&dressed.servers(), &hub), all(0..200));
}

/// A throughput unit takes a megabyte a second, or a thousand events, whichever comes first. Of small rows, what is queued
/// must be few, or the last of them expire before it is their turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_sender_is_slow_and_loses_nothing() {
    const ROWS: u64 = 30_000;
    let dressed = Dressed::new();
    let hub = dressed.hub("throttled", &[Claim::Send, Claim::Listen]).await;
    let from = dressed.numbers(ROWS).await;
    // A thousand of the rows, which are some 110 bytes with their header.
    limit_writing(&dressed.servers(), "millrace", 110_000.0);
    let begun = Instant::now();
    let job = dressed.job(&from, &hub, "", None);
    let mut run = job.start();
    run.wait_until("the first rows are sent", |status| status["sinks"]["doubled"]["uncommitted"].as_u64() > Some(0));
    run.wait_until("everything is shown", |status| {
        assert!(!in_trouble(status), "being slowed down is no trouble: {status}");
        records_read(status) == ROWS && status["sinks"]["doubled"]["uncommitted"] == 0
    });
    assert!(begun.elapsed() > Duration::from_secs(15), "it was not throttled: {:?}", begun.elapsed());
    run.stop();
    assert_eq!(received(&dressed.servers(), &hub), all(0..ROWS));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_solutions_jobs_from_hub_to_hub_show_every_event_once_though_they_are_killed() {
    let dressed = Dressed::new();
    let from = dressed.hub("solution-from", &[Claim::Listen]).await;
    simulate(&dressed.broker, &from, SENT);
    let known = format!(
        "endpoint = '{}', 'properties.ssl.ca.location' = '{}',",
        dressed.broker.listener("EH"),
        dressed.certificates.file("ca.crt")
    );
    for solution in ["eventhubskafka-flink-eventhubskafka", "eventhubs-streamanalytics-eventhubs"] {
        let to = dressed.hub(solution, &[Claim::Send, Claim::Listen]).await;
        let changes = [
            ("'${EVENTHUB}',", format!("'${{EVENTHUB}}', {known}")),
            ("'${OUTPUT_EVENTHUB}',", format!("'${{OUTPUT_EVENTHUB}}', {known}")),
            ("format            = 'json'", format!("format = 'json'{QUICK}")),
        ];
        let changes: Vec<(&str, &str)> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
        let job = Job::of_solution(solution, &changes)
            .variable("EVENTHUB", CONNECTION_STRING)
            .variable("OUTPUT_EVENTHUB", CONNECTION_STRING)
            .variable("TOPIC", &from)
            .variable("OUTPUT_TOPIC", &to)
            .argument("--checkpoint-interval=200ms");
        job.dies_at("while-sending", 1, || {});
        job.start().read_all_and_stop(3);
        all_is_found(&job);
    }
}
