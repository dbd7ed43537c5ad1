//! Rows into a Cosmos DB container, each once, by any way of writing them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use azure_data_cosmos::feed::FeedScope;
use futures::TryStreamExt;
use kafka::Producer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::broker::Broker;
use crate::certificates::Certificates;
use crate::cosmos_account::{A_MOMENT, Accident, Account, Asked, DATABASE, client_at, until};
use crate::kafka_login::TokenService;
use crate::millrace::{FENCED, Job, PATIENCE, Running};
use crate::numbers::{all, more, send};
use crate::tls_front::TlsFront;
use crate::trouble::dead_letters;
use crate::wait::wait_for;

/// A way to write, and what its rows are like.
struct Way {
    write: &'static str,
    /// Further columns and options.
    columns: &'static str,
    query: &'static str,
}

const APPEND: Way = Way { write: "append", columns: "", query: "n, n % 7 AS part" };
const INSERT: Way = Way { write: "insert", columns: ", id TEXT", query: "n, n % 7 AS part, CAST(n AS TEXT) AS id" };
const UPSERT: Way = Way { write: "upsert", columns: ", id TEXT", query: "n, n % 7 AS part, CAST(n AS TEXT) AS id" };
const NEWER: Way = Way {
    write: "replace-if-newer', version_field = 'n",
    columns: ", id TEXT",
    query: "n, n % 7 AS part, CAST(n AS TEXT) AS id",
};

/// Numbers from a topic into a container, partitioned by their remainder.
fn numbers(broker: &Broker, topic: &str, account: &Account, container: &str, way: &Way) -> Job {
    numbers_in_entries(broker, topic, account, container, way).argument("--checkpoint-interval=200ms")
}

/// The same, without saying how long an entry is.
fn numbers_in_entries(broker: &Broker, topic: &str, account: &Account, container: &str, way: &Way) -> Job {
    let (servers, connection) = (broker.bootstrap_servers(), account.connection(container));
    let Way { write, columns, query } = way;
    Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{topic}', format = 'json');
         CREATE TABLE shown (n BIGINT, part BIGINT{columns}) WITH ({connection}, write = '{write}');
         INSERT INTO shown SELECT {query} FROM numbers;"
    ))
}

/// The job of a solution that writes a container of the account, with further parts of its text replaced.
pub fn job_of_solution(account: &Account, solution: &str, container: &str, further: &[(&str, &str)]) -> Job {
    let connection = account.connection(container);
    let mut changes = vec![
        ("connector = 'cosmosdb',", connection.as_str()),
        ("  account   = '${COSMOSDB_ACCOUNT}',\n", ""),
        ("  database  = '${COSMOSDB_DATABASE:-streaming}',\n", ""),
        ("  container = '${COSMOSDB_CONTAINER:-rawdata}',\n", ","),
    ];
    changes.extend(further);
    Job::of_solution(solution, &changes)
}

async fn shown(account: &Account, container: &str) -> Vec<u64> {
    let documents = account.documents(container).await;
    let mut numbers: Vec<u64> = documents.iter().map(|document| document["n"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

/// What went to the dead letter, as text.
fn letters(job: &Job) -> Vec<String> {
    let folder = job.state().join("dead-letter");
    if folder.exists() { dead_letters(&folder).iter().map(Value::to_string).collect() } else { vec![] }
}

/// A container that takes whatever comes.
fn roomy(account: &Account, name: &str) -> String {
    account.container(name, "/part", 4, 1_000_000);
    name.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_container_once_after_stops_and_restarts_whatever_the_way() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    for (index, way) in [APPEND, INSERT, UPSERT, NEWER].iter().enumerate() {
        let from = broker.topic(&format!("cosmos-from-{index}"), 2).await;
        let to = roomy(&account, &format!("to-{index}"));
        let job = numbers(broker, &from, &account, &to, way);
        for part in 0..2 {
            send(&broker.properties(), &from, part * 500..(part + 1) * 500, 0..2);
            job.start().read_all_and_stop(2);
        }
        assert_eq!(shown(&account, &to).await, all(0..1000), "{}", way.write);
    }
}

const STEPS: [&str; 5] = ["before-writing", "while-writing", "after-writing", "before-commit", "after-commit"];

async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing(name: &str, way: &Way) {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic(&format!("cosmos-killed-{name}"), 2).await;
    let to = roomy(&account, "killed");
    let job = numbers(broker, &from, &account, &to, way);
    let properties = broker.properties();
    let mut send_more = more(&properties, &from, 0);
    job.dies_at_each(&STEPS, &mut send_more);
    let sent = send_more();
    job.start().read_all_and_stop(2);
    assert_eq!(shown(&account, &to).await, all(0..sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_that_is_appended() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing("append", &APPEND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_that_is_upserted() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing("upsert", &UPSERT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_frozen_and_superseded_adds_nothing_when_it_wakes() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-frozen", 2).await;
    let to = roomy(&account, "frozen");
    let job = numbers(broker, &from, &account, &to, &APPEND);
    let mut sent = 0;
    for step in ["before-writing", "while-writing", "after-writing"] {
        send(&broker.properties(), &from, sent..sent + 100, 0..2);
        let mut sleeper = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1:freeze"))], &[]);
        sleeper.wait_until_frozen();
        let mut successor = job.start();
        successor.wait_until_idle(2);
        send(&broker.properties(), &from, sent + 100..sent + 200, 0..2);
        sent += 200;
        successor.wait_until_read(100);
        sleeper.thaw();
        assert_eq!(sleeper.wait().code(), Some(FENCED), "{step}\n{}", sleeper.said());
        successor.stop();
    }
    assert_eq!(shown(&account, &to).await, all(0..sent));
}

/// All rows have one id, so the last one is what is seen.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_7_a_process_that_is_superseded_brings_no_older_row_back_when_it_wakes() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-older", 1).await;
    let to = roomy(&account, "older");
    let job = numbers(broker, &from, &account, &to, &Way { query: "n, 1 AS part, 'one' AS id", ..UPSERT });
    send(&broker.properties(), &from, 0..100, 0..1);
    let mut sleeper = job.start_with(&[("MILLRACE_CRASH", "before-writing:1:freeze")], &[]);
    sleeper.wait_until_frozen();
    let mut successor = job.start();
    successor.wait_until_idle(1);
    send(&broker.properties(), &from, 100..200, 0..1);
    wait_for("the last row", PATIENCE, || {
        let shown = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(shown(&account, &to)));
        (shown == [199]).then_some(())
    });
    sleeper.thaw();
    assert_eq!(sleeper.wait().code(), Some(FENCED), "{}", sleeper.said());
    successor.stop();
    assert_eq!(shown(&account, &to).await, [199]);
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_12_a_document_of_somebody_else_under_a_derived_id_is_no_success() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-foreign", 1).await;
    let to = roomy(&account, "foreign");
    let job = numbers(broker, &from, &account, &to, &APPEND);
    send(&broker.properties(), &from, 0..10, 0..1);
    // It dies after it wrote, so its successor finds what is there; somebody has changed one of them meanwhile.
    job.start_with(&[("MILLRACE_CRASH", "after-writing:1")], &[]).wait();
    let mut stolen = account.documents(&to).await.remove(0);
    let (id, part) = (stolen["id"].clone(), stolen["part"].as_u64().expect("a number"));
    stolen["millrace"] = json!("another job's");
    let client = account.client_of(&to).await;
    client.upsert_item(part as i32, id.as_str().expect("a text"), &stolen, None).await.expect("somebody may write");
    let mut run = job.start();
    wait_for("the row, in the dead letter", PATIENCE, || (run.metric("sink_rejected_total")? == 1.0).then_some(()));
    run.read_all_and_stop(1);
    let letters = letters(&job);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].contains("another document with the id"), "{letters:?}");
    assert_eq!(shown(&account, &to).await, all(0..10));
}

/// An id of `append` is one row's alone: that its document is there already is to be expected only of a process that died.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_12_a_document_that_is_there_already_is_told_outside_of_a_recovery() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-found", 1).await;
    let to = roomy(&account, "found");
    let job = numbers(broker, &from, &account, &to, &APPEND);
    send(&broker.properties(), &from, 0..10, 0..1);
    job.start_with(&[("MILLRACE_CRASH", "after-writing:1")], &[]).wait();
    let found = |run: &Running| run.metric("sink_rows_found_total").unwrap_or_default();
    let mut run = job.start();
    wait_for("the rows that are there", PATIENCE, || (found(&run) == 10.0).then_some(()));
    run.read_all_and_stop(1);
    assert!(!run.said().contains("was there already"), "{}", run.said());

    account.accidents(|n| if n < 2 { Accident::AnswerIsLost } else { Accident::None });
    let mut run = job.start();
    send(&broker.properties(), &from, 10..30, 0..1);
    run.wait_until_read(20);
    wait_for("rows that are there", PATIENCE, || (found(&run) > 1.0).then_some(()));
    run.read_all_and_stop(1);
    let said = run.said();
    assert_eq!(said.matches("was there already").count(), 1, "once a minute: {said}");
    let line = said.lines().find(|line| line.contains("was there already")).unwrap_or_default();
    for part in ["\"id\":\"", "\"partition_key\":\"[", "container streaming/found"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(shown(&account, &to).await, all(0..30));
}

/// Requests whose answers are lost have been done; requests that are refused have not. Nobody can tell them apart.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_and_requests_that_are_refused_lose_and_repeat_nothing() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    for (index, way) in [APPEND, INSERT, UPSERT, NEWER].iter().enumerate() {
        let from = broker.topic(&format!("cosmos-accidents-{index}"), 2).await;
        let to = roomy(&account, &format!("accidents-{index}"));
        account.accidents(|n| match n % 5 {
            0 => Accident::AnswerIsLost,
            1 => Accident::Refused(503),
            2 => Accident::Refused(429),
            3 => Accident::Refused(449),
            _ => Accident::None,
        });
        all_arrive_though_some_are_throttled(&account, &from, &to, way, 300).await;
        assert!(account.writes() > 10, "accidents happened");
    }
}

/// Sends so many numbers: all of them are in the container, once, and none is a dead letter.
async fn all_arrive_though_some_are_throttled(account: &Account, from: &str, to: &str, way: &Way, count: u64) {
    let broker = Broker::shared();
    send(&broker.properties(), from, 0..count, 0..2);
    let job = numbers(broker, from, account, to, way);
    let mut run = job.start();
    run.wait_until_idle(2);
    run.wait_until_shown();
    assert!(run.metric("sink_requests_throttled_total").is_some_and(|n| n > 0.0), "{}", run.said());
    run.stop();
    assert_eq!(shown(account, to).await, all(0..count), "{}", way.write);
    assert_eq!(letters(&job), [""; 0], "{}", way.write);
}

/// A document is read to see whether it is the row's own, or an older one: what is not told of it may be either.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_refused_or_whose_answers_are_lost_lose_and_repeat_nothing() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    for (index, way) in [APPEND, NEWER].iter().enumerate() {
        let from = broker.topic(&format!("cosmos-unread-{index}"), 2).await;
        let to = roomy(&account, &format!("unread-{index}"));
        // Documents of `append` are read where they are there already.
        account.accidents(|n| if n % 3 == 0 { Accident::AnswerIsLost } else { Accident::None });
        account.accidents_of_reads(|n| match n % 6 {
            0 => Accident::AnswerIsLost,
            1 => Accident::Refused(503),
            2 => Accident::Refused(429),
            _ => Accident::None,
        });
        all_arrive_though_some_are_throttled(&account, &from, &to, way, 100).await;
        assert!(account.reads() > 10, "{}: accidents happened", way.write);
    }
}

/// The client gives up after six seconds and tries again; what was done is there all the same.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_done_and_never_answered_lose_and_repeat_nothing() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    for (index, way) in [APPEND, NEWER].iter().enumerate() {
        let from = broker.topic(&format!("cosmos-unanswered-{index}"), 2).await;
        let to = roomy(&account, &format!("unanswered-{index}"));
        account.accidents(|n| if n < 3 { Accident::NoAnswer } else { Accident::None });
        account.accidents_of_reads(|n| if n < 2 { Accident::NoAnswer } else { Accident::None });
        send(&broker.properties(), &from, 0..100, 0..2);
        let job = numbers(broker, &from, &account, &to, way);
        let mut run = job.start();
        run.wait_until_idle(2);
        run.wait_until_shown();
        run.stop();
        assert_eq!(shown(&account, &to).await, all(0..100), "{}", way.write);
        assert_eq!(letters(&job), [""; 0], "{}", way.write);
    }
}

/// While a physical partition is halved, all that is for it is answered with 410.
#[tokio::test(flavor = "multi_thread")]
async fn physical_partitions_that_are_halved_while_rows_are_written_lose_and_repeat_nothing() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-split", 2).await;
    account.container("split", "/part", 2, 1_000_000);
    let job = numbers(broker, &from, &account, "split", &APPEND);
    let mut run = job.start();
    let mut sent = 0;
    for partition in [0, 1] {
        account.split("split", partition, A_MOMENT / 2);
        for _ in 0..5 {
            send(&broker.properties(), &from, sent..sent + 100, 0..2);
            sent += 100;
            tokio::time::sleep(A_MOMENT / 5).await;
        }
        run.wait_until_read(sent);
    }
    run.wait_until_idle(2);
    run.wait_until_shown();
    run.stop();
    assert_eq!(shown(&account, "split").await, all(0..sent));
    assert_eq!(letters(&job), [""; 0]);
}

/// Between the look at a document and its replacement, somebody writes a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_document_that_somebody_writes_meanwhile_is_not_replaced() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-overtaken", 1).await;
    let to = roomy(&account, "overtaken");
    let job = numbers(broker, &from, &account, &to, &Way { query: "n, 1 AS part, 'one' AS id", ..NEWER });
    send(&broker.properties(), &from, 0..1, 0..1);
    job.start().read_all_and_stop(1);
    let connection = account.connection_string();
    account.overtake_next_write(move || {
        let connection = connection.clone();
        Box::pin(async move {
            let newer = json!({"id": "one", "part": 1, "n": 1000});
            let client = client_at(&connection, DATABASE, "overtaken").await;
            client.upsert_item(1, "one", &newer, None).await.expect("somebody may write");
        })
    });
    send(&broker.properties(), &from, 1..2, 0..1);
    job.start().read_all_and_stop(1);
    assert_eq!(shown(&account, &to).await, [1000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lets_in_whom_entra_id_knows_and_says_what_is_missing_else() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-entra", 1).await;
    let to = roomy(&account, "guarded");
    send(&broker.properties(), &from, 0..100, 0..1);
    let with_key = numbers(broker, &from, &account, &to, &APPEND);
    account.disable_keys(true);
    let mut run = with_key.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("are keys disabled?"), "{}", run.said());

    let service = TokenService::start(Duration::from_secs(3600)).await;
    let (servers, address, tokens) = (broker.bootstrap_servers(), account.url(), &service.url);
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown WITH (connector = 'cosmosdb', account = '{address}', database = '{DATABASE}', container = '{to}',
           write = 'append', tenant_id = 't', client_id = 'app', client_secret = 'topsecret', authority_host = '{tokens}');
         INSERT INTO shown SELECT n, n % 7 AS part FROM numbers;"
    ));
    job.start().read_all_and_stop(1);
    account.disable_keys(false);
    assert_eq!(service.given.load(Ordering::Relaxed), 2, "one to look before the job is claimed, and one that is kept");
    assert_eq!(shown(&account, &to).await, all(0..100));
}

/// An account behind TLS, and the certificates of its authority and of others. `protocols`: what is spoken there.
async fn guarded_by(certificate: &str, protocols: &[&str]) -> (Account, Certificates) {
    let certificates = Certificates::new();
    let front = TlsFront::bind(&certificates.of_server(certificate), protocols).await;
    let behind = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let (url, address) = (format!("https://{}", front.address()), behind.local_addr().expect("it has an address"));
    front.stand_before(address);
    (Account::start_at(behind, url, false), certificates)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_reached_by_tls_whichever_http_is_spoken_behind_it() {
    let (broker, (account, certificates)) = (Broker::shared(), guarded_by("broker", &["h2", "http/1.1"]).await);
    let from = broker.topic("cosmos-tls", 1).await;
    send(&broker.properties(), &from, 0..100, 0..1);
    for (write, protocol) in [("append", "HTTP/1.1"), ("append', http = '2", "HTTP/2.0")] {
        let to = roomy(&account, &protocol.replace('/', "-"));
        let way = Way { write, ..APPEND };
        let job = numbers(broker, &from, &account, &to, &way);
        job.variable("SSL_CERT_FILE", &certificates.file("ca.crt")).start().read_all_and_stop(1);
        assert_eq!(shown(&account, &to).await, all(0..100));
        assert_eq!(account.written().protocol, protocol);
    }
}

/// As Microsoft's emulator in a container does.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_speaks_http_1_alone_is_reached_by_it() {
    let (broker, (account, certificates)) = (Broker::shared(), guarded_by("broker", &["http/1.1"]).await);
    let from = broker.topic("cosmos-http-1", 1).await;
    send(&broker.properties(), &from, 0..100, 0..1);
    let to = roomy(&account, "plain");
    let job = |write| {
        let job = numbers(broker, &from, &account, &to, &Way { write, ..APPEND });
        job.variable("SSL_CERT_FILE", &certificates.file("ca.crt"))
    };
    let wrong = job("append', give_up_after = '1 second', http = '2");
    let mut run = wrong.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("NoApplicationProtocol"), "{}", run.said());
    job("append").start().read_all_and_stop(1);
    assert_eq!(shown(&account, &to).await, all(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_nobody_vouches_for_ends_the_start() {
    let broker = Broker::shared();
    let from = broker.topic("cosmos-stranger", 1).await;
    let cases = [
        ("broker", "other.crt", "If its authority is your own, name a file in SSL_CERT_FILE"),
        ("elsewhere", "ca.crt", "certificate not valid for name"),
    ];
    for (certificate, authority, says) in cases {
        let (account, certificates) = guarded_by(certificate, &["h2", "http/1.1"]).await;
        let to = roomy(&account, "stranger");
        let job = numbers(broker, &from, &account, &to, &APPEND);
        let job = job.variable("SSL_CERT_FILE", &certificates.file(authority));
        let mut run = job.start();
        assert_eq!(run.wait().code(), Some(1), "{}", run.said());
        assert!(run.said().contains("error sending request for url"), "{}", run.said());
        assert!(run.said().contains("invalid peer certificate"), "{}", run.said());
        assert!(run.said().contains(says), "{}", run.said());
    }
}

/// What is said before anything is written: what is there, what would be made, and what is promised.
#[tokio::test(flavor = "multi_thread")]
async fn check_and_explain_say_what_becomes_of_rows_and_make_nothing() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-checked", 1).await;
    let (servers, connection) = (broker.bootstrap_servers(), account.connection("checked"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("job.sql");
    let job = format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, part BIGINT, id TEXT) PARTITIONED BY (part) WITH ({connection}, create = 'true');
         INSERT INTO shown SELECT n, n % 7, CAST(n AS TEXT) AS id FROM numbers;"
    );
    std::fs::write(&file, job).expect("a job file");
    let millrace = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).arg(&file).output().expect("it runs");
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, said) = millrace(&["explain"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("exactly once by id") && said.contains("can bring back an older one"), "{said}");
    assert!(!said.contains("AccountKey"), "{said}");
    let (code, said) = millrace(&["check", "--connect"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!account.has("checked").await, "a check makes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_or_lets_nobody_in_is_waited_for() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-away", 1).await;
    let to = roomy(&account, "away");
    let job = numbers(broker, &from, &account, &to, &APPEND);
    let mut run = job.start();
    let mut sent = 0;
    for status in [503, 403] {
        let back = Arc::new(AtomicBool::new(false));
        account.accidents(until(back.clone(), status));
        send(&broker.properties(), &from, sent..sent + 100, 0..1);
        sent += 100;
        wait_for("the trouble, in the metrics", PATIENCE, || (run.metric("sink_in_trouble")? == 1.0).then_some(()));
        tokio::time::sleep(A_MOMENT).await;
        assert_eq!(shown(&account, &to).await, all(0..sent - 100));
        back.store(true, Ordering::Relaxed);
        wait_for("its end, in the metrics", PATIENCE, || (run.metric("sink_in_trouble")? == 0.0).then_some(()));
    }
    run.read_all_and_stop(1);
    assert_eq!(shown(&account, &to).await, all(0..sent));
}

/// 400 units a second are some 60 small documents.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_few_request_units_slows_the_job_and_loses_nothing() {
    let (broker, account) = (Broker::shared(), Account::start(true).await);
    let from = broker.topic("cosmos-throttled", 2).await;
    account.container("slow", "/part", 1, 400);
    send(&broker.properties(), &from, 0..500, 0..2);
    // One by one: the emulator does not throttle batches.
    let one_by_one = Way { write: "upsert', batch = '1", ..UPSERT };
    let job = numbers(broker, &from, &account, "slow", &one_by_one);
    let mut run = job.start();
    run.wait_until_idle(2);
    run.wait_until_shown();
    let (throttled, units) = (run.metric("sink_requests_throttled_total"), run.metric("sink_request_units_total"));
    assert!(throttled.is_some_and(|n| n > 0.0) && units.is_some_and(|n| n > 1000.0), "{throttled:?} {units:?}");
    run.stop();
    assert_eq!(shown(&account, "slow").await, all(0..500));
}

/// A logical partition is throttled. The rows of all others come, those of its physical partition too.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_partition_holds_no_other_rows_of_its_entries_up() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-hot", 2).await;
    let to = roomy(&account, "hot");
    account.throttle(Some(3.0));
    send(&broker.properties(), &from, 0..700, 0..2);
    // All in one entry: the next one would wait.
    let job = numbers_in_entries(broker, &from, &account, &to, &UPSERT).argument("--checkpoint-interval=5s");
    let mut run = job.start();
    let (cold, hot) = (all(0..700).into_iter().filter(|n| n % 7 != 3).collect::<Vec<_>>(), all(0..700));
    let now = || tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(shown(&account, &to)));
    run.wait_until_idle(2);
    let all_cold = || {
        let shown = now();
        (!shown.is_empty() && shown.iter().filter(|n| **n % 7 != 3).count() == cold.len()).then_some(shown)
    };
    let others = wait_for("the rows of the other partitions", PATIENCE, all_cold);
    assert!(others == cold, "{others:?}");
    assert!(run.metric("sink_requests_throttled_total").is_some_and(|n| n > 0.0), "{}", run.said());
    account.throttle(None);
    run.wait_until_shown();
    run.stop();
    assert!(now() == hot, "all rows");
}

/// One by one, since the emulator charges nothing to speak of for batches.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_request_units_are_spent_than_is_said_and_no_more_requests_are_made_at_once() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-bounded", 2).await;
    let to = roomy(&account, "bounded");
    account.accidents(|n| if n < 3 { Accident::Slow } else { Accident::None });
    send(&broker.properties(), &from, 0..200, 0..2);
    let bounded = Way { write: "upsert', batch = '1', requests = '3', max_ru_per_second = '300", ..UPSERT };
    let job = numbers(broker, &from, &account, &to, &bounded);
    let mut run = job.start();
    let spent = |run: &Running| run.metric("sink_request_units_total").unwrap_or_default();
    // Behind the slow ones.
    let before = wait_for("the first units", PATIENCE, || Some(spent(&run)).filter(|units| *units > 0.0));
    let begun = std::time::Instant::now();
    // What a second allows was saved up.
    let mut most = 0.0_f64;
    wait_for("all rows", PATIENCE, || {
        let allowed = 300.0 * (begun.elapsed().as_secs_f64() + 1.0) + 3.0 * 10.0;
        most = most.max((spent(&run) - before) / allowed);
        (spent(&run) > 1200.0).then_some(())
    });
    run.wait_until_idle(2);
    run.wait_until_shown();
    let units = spent(&run);
    assert!(units > 1200.0 && most <= 1.0, "{units} units, {most} of what is allowed");
    assert_eq!(account.most_writes_at_once(), 3);
    run.stop();
    assert_eq!(shown(&account, &to).await, all(0..200));
}

/// What is on the page of metrics: what a request unit buys, and how full batches are.
#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_what_requests_cost_how_long_they_took_and_how_full_they_were() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    for (write, requests_a_row) in [(&APPEND, 0.1), (&INSERT, 0.1), (&UPSERT, 0.1), (&NEWER, 1.0)] {
        let name = write.write.split('\'').next().expect("a word");
        let from = broker.topic(&format!("cosmos-metrics-{name}"), 1).await;
        let to = roomy(&account, &format!("metrics-{name}"));
        account.accidents(|n| if n == 0 { Accident::Refused(429) } else { Accident::None });
        account.accidents_of_reads(|_| Accident::None);
        send(&broker.properties(), &from, 0..700, 0..1);
        let job = numbers(broker, &from, &account, &to, write);
        let mut run = job.start();
        run.wait_until_idle(1);
        run.wait_until_shown();
        let metric = |name: &str| run.metric(&format!("sink_{name}")).unwrap_or_default();
        let (requests, rows, throttled) =
            (metric("requests_total"), metric("request_rows_total"), metric("requests_throttled_total"));
        let (answered, seconds) = (metric("request_seconds_count"), metric("request_seconds_sum"));
        let said =
            format!("{name}: {requests} requests of {rows} rows, {throttled} throttled, {answered} in {seconds} s");
        assert!(
            rows >= 700.0 && requests / rows <= requests_a_row * 1.1 && requests / rows >= requests_a_row / 15.0,
            "{said}"
        );
        assert!(throttled == 1.0 && answered == requests && seconds > 0.0, "{said}");
        assert!(metric("request_units_total") >= rows, "{said}");
        // Only to see what is newer is a document read first.
        let (writes, reads) = (account.writes() as f64, account.reads() as f64);
        let expected = if name == "replace-if-newer" { (rows, rows) } else { (requests, 0.0) };
        assert_eq!((writes, reads), expected, "{said}");
        run.stop();
    }
}

/// Where an option is seen.
enum Place {
    /// In the body of the request that makes the container, or in a header of it.
    Made(&'static str),
    MadeWith(&'static str),
    /// In a header of the request that writes.
    WrittenWith(&'static str),
    /// In what is spoken.
    WrittenBy,
    Document(&'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_option_says_is_what_the_service_is_asked_for() {
    use Place::{Document, Made, MadeWith, WrittenBy, WrittenWith};
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-options", 1).await;
    send(&broker.properties(), &from, 0..1, 0..1);
    let servers = broker.bootstrap_servers();
    let job = |to: &str, options: &str| {
        let connection = account.connection(to);
        Job::new(&format!(
            "CREATE TABLE numbers (n BIGINT NOT NULL)
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE shown (n BIGINT, part BIGINT, price DECIMAL(10, 2), s STRUCT<a BIGINT, b BIGINT>) PARTITIONED BY (part)
             WITH ({connection}, write = 'append', create = 'true'{options});
             INSERT INTO shown SELECT n, 1, CAST(1.10 AS DECIMAL(10, 2)), named_struct('a', n, 'b', CAST(NULL AS BIGINT)) FROM numbers;"
        ))
    };
    let policy =
        r#"{"indexingMode": "consistent", "includedPaths": [{"path": "/n/?"}], "excludedPaths": [{"path": "/*"}]}"#;
    let indexing = format!(", 'create.indexing' = '{policy}'");
    let cases = [
        ("", Made("/partitionKey/paths"), json!(["/part"])),
        ("", Made("/defaultTtl"), Value::Null),
        (", 'create.ttl' = '90 minutes'", Made("/defaultTtl"), json!(5400)),
        (", 'create.throughput' = '1200'", MadeWith("x-ms-offer-throughput"), json!("1200")),
        (
            ", 'create.autoscale' = '5000'",
            MadeWith("x-ms-cosmos-offer-autopilot-settings"),
            json!(r#"{"maxThroughput":5000}"#),
        ),
        (", 'create.unique_keys' = '/price,/part; /n'", Made("/uniqueKeyPolicy/uniqueKeys/1/paths"), json!(["/n"])),
        (indexing.as_str(), Made("/indexingPolicy/includedPaths/0/path"), json!("/n/?")),
        ("", WrittenWith("x-ms-cosmos-priority-level"), Value::Null),
        (", priority = 'low'", WrittenWith("x-ms-cosmos-priority-level"), json!("Low")),
        ("", WrittenBy, json!("HTTP/1.1")),
        (", http = '2'", WrittenBy, json!("HTTP/2.0")),
        ("", Document("/price"), json!("1.10")),
        (", 'json.decimals' = 'number'", Document("/price"), json!(1.1)),
        ("", Document("/s"), json!({"a": 0})),
        (", 'json.nulls' = 'true'", Document("/s"), json!({"a": 0, "b": null})),
    ];
    for (index, (options, place, expected)) in cases.into_iter().enumerate() {
        let to = format!("options-{index}");
        job(&to, options).start().read_all_and_stop(1);
        let header = |asked: Asked, name: &str| asked.headers.get(name).map(|value| json!(value));
        let seen = match place {
            Made(path) => account.made().body.pointer(path).cloned(),
            MadeWith(name) => header(account.made(), name),
            WrittenWith(name) => header(account.written(), name),
            WrittenBy => Some(json!(account.written().protocol)),
            Document(path) => account.documents(&to).await[0].pointer(path).cloned(),
        };
        assert_eq!(seen.unwrap_or_default(), expected, "{options}");
    }
    // This one is there, and is not as these would make it.
    let other = job("options-0", ", 'create.ttl' = '1 hour', 'create.autoscale' = '5000'");
    let mut run = other.start();
    run.read_all_and_stop(1);
    for said in ["create.ttl is 3600 s, and the container's is none", "create.* asks for up to 5000 request units"] {
        assert!(run.said().contains(said), "{said}: {}", run.said());
    }
    let other = job("options-0", ", 'create.unique_keys' = '/n'");
    let mut run = other.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("nobody can change them"), "{}", run.said());
}

/// In a batch it is written again by the SDK.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_the_same_whether_it_goes_by_itself_or_in_a_batch() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-same", 1).await;
    let data = r#"{"a": [1.10, 1e15, -0, 0.1234567890123456789, 5e-324, 9007199254740992],
                   "b": "\/\u00e9\ud83d\ude00\u0001", "c": {"d": 1, "e": null, "d": 2}, "": {}}"#;
    let producer = Producer::new(&from, &broker.properties()).expect("a producer can be made");
    for n in 0..3 {
        let event = format!(r#"{{"id": "{n}", "part": 0.30000000000000004, "data": {data}}}"#);
        producer.send(None, None, event.as_bytes()).expect("a message can be queued");
    }
    producer.flush(PATIENCE).expect("the messages are delivered");
    let servers = broker.bootstrap_servers();
    let mut found = vec![];
    for batch in [1, 100] {
        let to = roomy(&account, &format!("same-{batch}"));
        let connection = account.connection(&to);
        let job = Job::new(&format!(
            "CREATE TABLE events (id TEXT, part DOUBLE, data JSON)
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE shown WITH ({connection}, write = 'insert', batch = '{batch}');
             INSERT INTO shown SELECT id, part, data FROM events;"
        ));
        job.start().read_all_and_stop(1);
        let own = |document: &Value| ["id", "part", "data"].map(|name| document[name].clone());
        let mut documents: Vec<_> = account.documents(&to).await.iter().map(own).collect();
        documents.sort_by_key(|[id, ..]| id.to_string());
        assert_eq!(documents.len(), 3);
        assert_eq!(documents[0][2]["c"], json!({"d": 2, "e": null}));
        found.push(documents);
    }
    assert_eq!(found[0], found[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_no_document_goes_to_the_dead_letter_and_its_neighbours_into_the_container() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-refused", 1).await;
    account.container_with_unique_key("picky", "/part", "/once").await;
    let (servers, connection) = (broker.bootstrap_servers(), account.connection("picky"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, part BIGINT, id TEXT, once BIGINT, x DOUBLE) WITH ({connection}, write = 'insert');
         INSERT INTO shown SELECT n,
           CASE WHEN n = 3 THEN NULL ELSE 1 END,
           CASE WHEN n = 5 THEN 'a/b' WHEN n = 6 THEN repeat('x', 2000) ELSE CAST(n AS TEXT) END,
           CASE WHEN n = 8 THEN 7 ELSE n END,
           CASE WHEN n = 9 THEN CAST('NaN' AS DOUBLE) ELSE 0.5 END
         FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms");
    send(&broker.properties(), &from, 0..10, 0..1);
    let mut run = job.start();
    wait_for("the rows, in the dead letter", PATIENCE, || (run.metric("sink_rejected_total")? == 5.0).then_some(()));
    run.read_all_and_stop(1);
    let shown = shown(&account, "picky").await;
    let seven_or_eight = shown.iter().filter(|n| **n == 7 || **n == 8).count();
    assert_eq!((shown.len(), seven_or_eight), (5, 1), "{shown:?}");
    let letters = letters(&job);
    for reason in ["/part is NULL", "has a '/'", "2000 bytes of 1023", "same unique key", "column x is NaN"] {
        assert!(letters.iter().any(|letter| letter.contains(reason)), "{reason}: {letters:?}");
    }
}

/// Of two rows with one id the first is refused, for a unique key that somebody has, and the second takes its place. Whoever
/// takes over in between must not find the second one's document and take it for the first one's.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_23_a_row_that_is_refused_before_a_crash_is_not_taken_for_the_next_one_of_its_id() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let insert = "insert";
    let newer = "replace-if-newer', version_field = 'age";
    let deaths = [
        (insert, "after-writing", 1),
        (insert, "before-writing", 2),
        (insert, "after-writing", 2),
        (newer, "after-writing", 1),
    ];
    for (index, (write, step, visit)) in deaths.into_iter().enumerate() {
        let (from, to) = (broker.topic(&format!("cosmos-hidden-{index}"), 1).await, format!("hidden-{index}"));
        account.container_with_unique_key(&to, "/part", "/once").await;
        let somebody = json!({"id": "somebody", "part": 1, "once": 0, "n": 1000});
        account.client_of(&to).await.upsert_item(1, "somebody", &somebody, None).await.expect("somebody may write");
        let (servers, connection) = (broker.bootstrap_servers(), account.connection(&to));
        let job = Job::new(&format!(
            "CREATE TABLE numbers (n BIGINT NOT NULL)
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE shown (n BIGINT, part BIGINT, id TEXT, once BIGINT, age BIGINT)
             WITH ({connection}, write = '{write}');
             INSERT INTO shown SELECT n, 1, CASE WHEN n < 2 THEN 'one' ELSE CAST(n AS TEXT) END, n AS once, 7 FROM numbers;"
        ));
        send(&broker.properties(), &from, 0..10, 0..1);
        let mut run = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:{visit}"))], &[]);
        assert_eq!(run.wait().code(), None, "{step}:{visit}\n{}", run.said());
        let mut run = job.start();
        run.wait_until_idle(1);
        run.wait_until_shown();
        run.stop();
        let letters = letters(&job);
        assert_eq!(letters.len(), 1, "{write} {step}:{visit} {letters:?}\n{}", run.said());
        assert!(letters[0].contains("same unique key"), "{letters:?}");
        assert_eq!(shown(&account, &to).await, [all(1..10), vec![1000]].concat(), "{write} {step}:{visit}");
    }
}

/// Of two documents with a unique key, one gives it up, and then the other takes it: in one commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_unique_key_that_a_document_gives_up_is_free_for_the_next_row() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-unique", 1).await;
    account.container_with_unique_key("unique", "/part", "/once").await;
    let (servers, connection) = (broker.bootstrap_servers(), account.connection("unique"));
    // One by one, so that they may overtake one another.
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, part BIGINT, id TEXT, once BIGINT) WITH ({connection}, batch = '1');
         INSERT INTO shown SELECT n, 1, CASE WHEN n = 2 THEN 'b' ELSE 'a' END, CASE WHEN n = 1 THEN 2 ELSE 1 END FROM numbers;"
    ));
    send(&broker.properties(), &from, 0..1, 0..1);
    job.start().read_all_and_stop(1);
    account.accidents(|n| if n == 0 { Accident::Slow } else { Accident::None });
    send(&broker.properties(), &from, 1..3, 0..1);
    job.start().read_all_and_stop(1);
    assert_eq!(letters(&job), [""; 0]);
    assert_eq!(shown(&account, "unique").await, [1, 2]);
}

/// Several rows of one id, in one commit and in many: the first, the last or the newest one stays.
#[tokio::test(flavor = "multi_thread")]
async fn of_rows_with_one_id_the_first_the_last_or_the_newest_one_stays() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let stay = [("insert", "", 0..10), ("upsert", "", 90..100), ("replace-if-newer", ", version_field = 'age'", 0..10)];
    for (write, options, expected) in stay {
        let from = broker.topic(&format!("cosmos-{write}"), 1).await;
        let to = roomy(&account, write);
        let (servers, connection) = (broker.bootstrap_servers(), account.connection(&to));
        let job = Job::new(&format!(
            "CREATE TABLE numbers (n BIGINT NOT NULL)
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE shown (n BIGINT, part BIGINT, age BIGINT, digit BIGINT PRIMARY KEY)
             WITH ({connection}, write = '{write}'{options});
             INSERT INTO shown SELECT n, 1, 1000 - n, n % 10 FROM numbers;"
        ))
        .argument("--checkpoint-interval=200ms");
        // Half of them in one commit, and the rest in another process's.
        for half in [0..50, 50..100] {
            send(&broker.properties(), &from, half, 0..1);
            job.start().read_all_and_stop(1);
        }
        assert_eq!(shown(&account, &to).await, all(expected), "{write}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_deleted_by_its_id_and_one_that_is_gone_stays_gone() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-deleted", 1).await;
    let to = roomy(&account, "deleted");
    send(&broker.properties(), &from, 0..30, 0..1);
    numbers(broker, &from, &account, &to, &UPSERT).start().read_all_and_stop(1);
    let client = account.client_of(&to).await;
    client.delete_item(3, "3", None).await.expect("somebody may delete");
    let topic = broker.topic("cosmos-to-delete", 1).await;
    send(&broker.properties(), &topic, 0..20, 0..1);
    numbers(broker, &topic, &account, &to, &Way { write: "delete", ..UPSERT }).start().read_all_and_stop(1);
    assert_eq!(shown(&account, &to).await, all(20..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_deletes_all_documents_that_it_was_told_to_and_no_other() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let (from, topic) = (broker.topic("cosmos-filled", 2).await, broker.topic("cosmos-killed-delete", 2).await);
    let to = roomy(&account, "killed-delete");
    send(&broker.properties(), &from, 0..20_000, 0..2);
    numbers(broker, &from, &account, &to, &UPSERT).start().read_all_and_stop(2);
    let job = numbers(broker, &topic, &account, &to, &Way { write: "delete", ..UPSERT });
    let properties = broker.properties();
    let mut delete_more = more(&properties, &topic, 0);
    job.dies_at_each(&STEPS, &mut delete_more);
    let deleted = delete_more();
    job.start().read_all_and_stop(2);
    assert_eq!(shown(&account, &to).await, all(deleted..20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_not_there_is_made_if_asked_and_else_the_error_says_how() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-made", 1).await;
    let job = numbers(broker, &from, &account, "nowhere", &APPEND);
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    for part in ["no container 'nowhere'", "set create = 'true'", "az cosmosdb sql container create"] {
        assert!(run.said().contains(part), "{part}: {}", run.said());
    }
    let (servers, connection) = (broker.bootstrap_servers(), account.connection("made").replace("streaming", "fresh"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, part BIGINT) PARTITIONED BY (part)
         WITH ({connection}, write = 'append', create = 'true', 'create.throughput' = '400', 'create.ttl' = '1 hour',
               'create.unique_keys' = '/n');
         INSERT INTO shown SELECT n, n % 7 FROM numbers;"
    ));
    send(&broker.properties(), &from, 0..20, 0..1);
    job.start().read_all_and_stop(1);
    let client = client_at(&account.connection_string(), "fresh", "made").await;
    let rows =
        client.query_items::<Value>("SELECT * FROM c", FeedScope::full_container(), None).await.expect("a query");
    assert_eq!(rows.try_collect::<Vec<_>>().await.expect("the documents can be read").len(), 20);
    let made = client.read(None).await.expect("it is there").into_model().expect("its properties");
    assert_eq!(made.partition_key.paths(), ["/part"]);
    assert_eq!(made.unique_key_policy.map(|policy| policy.unique_keys.len()), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_fit_the_table_is_refused_before_anything_is_read() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-unfit", 1).await;
    account.container("by-device", "/deviceId", 1, 400);
    let job = numbers(broker, &from, &account, "by-device", &APPEND);
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("partition key is /deviceId, and the table has no column deviceId"), "{}", run.said());
}

/// A document is what users of the container expect: values, and not text about values.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_has_the_values_of_its_row() {
    let (broker, account) = (Broker::shared(), Account::start(false).await);
    let from = broker.topic("cosmos-values", 1).await;
    account.container("values", "/deviceId", 1, 400);
    let (servers, connection) = (broker.bootstrap_servers(), account.connection("values"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown WITH ({connection}, write = 'insert', id_field = 'eventId');
         INSERT INTO shown SELECT 'e' || n AS eventId, 'd' AS deviceId, n / 4.0 AS value,
           TIMESTAMP '2026-11-24T10:00:00.1234567Z' AS createdAt, named_struct('a', n, 'b', NULL) AS complexData,
           CAST(NULL AS TEXT) AS nothing, CAST(1.10 AS DECIMAL(10, 2)) AS price
         FROM numbers;"
    ));
    send(&broker.properties(), &from, 1..2, 0..1);
    job.start().read_all_and_stop(1);
    let document: BTreeMap<String, Value> =
        serde_json::from_value(account.documents("values").await.remove(0)).expect("a document");
    let own: BTreeMap<_, _> = document.into_iter().filter(|(name, _)| !name.starts_with('_')).collect();
    let expected = json!({
        "id": "e1", "eventId": "e1", "deviceId": "d", "value": 0.25, "createdAt": "2026-11-24T10:00:00.123456700Z",
        "complexData": {"a": 1}, "price": "1.10"
    });
    assert_eq!(json!(own), expected);
}
