//! What a job meets in the field: a broker that is away, a store that fails, records that nobody can read, a death
//! before the first entry.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kafka::Producer;
use serde_json::Value;

use crate::broker::{Broker, BrokerSettings};
use crate::feed::{Feed, Feeding};
use crate::millrace::{Job, PATIENCE, records_read};
use crate::table::{row_count, shows_each_event_once, verify};
use crate::wait::wait_for;

/// How long the broker is away, in seconds. `MILLRACE_BROKER_AWAY=60` tries what takes too long for every run of all tests.
fn away() -> Duration {
    let given = std::env::var("MILLRACE_BROKER_AWAY").ok();
    Duration::from_secs(
        given.map_or(8, |seconds| seconds.parse().expect("MILLRACE_BROKER_AWAY is a number of seconds")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_a_while_is_waited_for() {
    let mut broker = tokio::task::spawn_blocking(|| Broker::start(BrokerSettings::default())).await.unwrap();
    let topic = broker.topic("broker-away", 2).await;
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic);
    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(21));
    let mut run = job.start();
    run.wait_until_read(200);

    let lost = tokio::time::Instant::now();
    broker.kill();
    wait_for("the trouble, in the metrics", PATIENCE, || (run.metric("source_in_trouble")? == 1.0).then_some(()));
    let read = records_read(&run.status().expect("a job without its broker still answers"));
    tokio::time::sleep_until(lost + away()).await;
    let tries = run.metric("source_retries_total").expect("a job without its broker still counts");
    let soon = 30.0 + away().as_secs_f64();
    assert!((1.0..soon).contains(&tries), "{tries} tries in {:?}: no pause between them grew", away());
    broker = tokio::task::spawn_blocking(move || {
        broker.restart();
        broker
    })
    .await
    .unwrap();
    run.wait_until_read(read + 200);
    wait_for("its end, in the metrics", PATIENCE, || (run.metric("source_in_trouble")? == 0.0).then_some(()));

    broker.freeze();
    tokio::time::sleep(Duration::from_secs(3)).await;
    broker.thaw();
    let read = records_read(&run.status().expect("the job answers"));
    run.wait_until_read(read + 200);

    shows_each_event_once(feed.finish(), &mut run, &job, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_log_that_cannot_be_written_for_a_while_is_waited_for() {
    let broker = Broker::shared();
    let topic = broker.topic("store-away", 2).await;
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic).argument("--checkpoint-interval=200ms");
    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(22));
    let mut run = job.start();
    run.wait_until("a commit", |status| status["sinks"]["serving"]["commits"].as_u64() > Some(0));

    let log = job.state().join("log");
    let away = taken_away(&log);
    let entry = |status: &Value| status["checkpoints"]["entry"].as_u64().unwrap_or(0);
    run.wait_until("a cut waits", |status| status["checkpoints"]["waiting"].as_u64() > Some(1));
    let before = entry(&run.status().expect("the job answers"));
    brought_back(&away, &log);
    run.wait_until("the log goes on", |status| entry(status) > before + 1);

    shows_each_event_once(feed.finish(), &mut run, &job, 2).await;
}

/// Puts a file where a folder was: every read and write below it fails, for root too.
fn taken_away(folder: &Path) -> std::path::PathBuf {
    let away = folder.with_extension("away");
    fs::rename(folder, &away).unwrap();
    fs::write(folder, "").unwrap();
    away
}

fn brought_back(away: &Path, folder: &Path) {
    fs::remove_file(folder).unwrap();
    fs::rename(away, folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_begins_at_the_latest_record_and_dies_before_its_first_checkpoint_skips_nothing() {
    let broker = Broker::shared();
    let topic = broker.topic("latest", 2).await;
    let before = Feed::start(&topic, &broker.properties(), Feeding { rate: 2000.0, ..Feeding::slow(23) });
    while before.sent() < 300 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    before.finish();
    let latest = ("format                 = 'json',", "format = 'json', 'source.offset' = 'latest',");
    let job = Job::events_to_delta_with(&broker.bootstrap_servers(), &topic, &[latest]);
    let mut first = job.start_with(&[("MILLRACE_CRASH", "before-restore:1")], &[]);
    assert_eq!(first.wait().code(), None, "{}", first.said());
    assert!(!job.table().join("_delta_log/00000000000000000001.json").exists(), "nothing was shown");

    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(24));
    while feed.sent() < 300 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = feed.finish();
    let mut second = job.start();
    shows_each_event_once(sent, &mut second, &job, 2).await;
}

/// Records that are no event, each broken in its own way, and what the dead letter calls it.
const BROKEN: &[(&[u8], &str)] = &[
    (b"", "nothing"),
    (b"hello", "no JSON"),
    (b"{\"eventId\": \"a1\", \"value\": 0.5", "cut off"),
    (b"[1, 2, 3]", "an array"),
    (b"null", "null"),
    (b"\"text\"", "a text"),
    (b"{\"eventId\": \"a2\", \"value\": \"abc\"}", "a text where a number belongs"),
    (b"{\"eventId\": \"a3\", \"deviceSequenceNumber\": 1.5}", "a fraction where a whole number belongs"),
    (b"{\"eventId\": \"a4\", \"deviceSequenceNumber\": 99999999999999999999}", "a number that is too large"),
    (b"{\"eventId\": \"a5\", \"createdAt\": \"yesterday\"}", "no time"),
    (b"{\"value\": 0.5}", "no id"),
    (b"{\"eventId\": null, \"value\": 0.5}", "an id that is null"),
    (b"{\"eventId\": \"\xff\xfe\", \"value\": 0.5}", "no UTF-8"),
    (b"{\"eventId\": \"a6\"} {\"eventId\": \"a7\"}", "two documents"),
];

#[tokio::test(flavor = "multi_thread")]
async fn broken_records_of_every_kind_land_in_the_dead_letter_and_the_count_adds_up() {
    let broker = Broker::shared();
    let topic = broker.topic("broken", 2).await;
    let feed = Feed::start(&topic, &broker.properties(), Feeding { rate: 2000.0, ..Feeding::slow(25) });
    let producer = Producer::new(&topic, &broker.properties()).unwrap();
    for (number, (payload, _)) in BROKEN.iter().enumerate() {
        producer.send(Some((number % 2) as i32), None, payload).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(producer.failed(), 0);
    let sent = feed.finish();
    let events = sent.sent_count();
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic);
    let mut run = job.start();
    run.wait_until_idle(2);
    let status = run.status().expect("the job answers");
    run.stop();

    let report = verify(sent, &job.table()).await;
    assert!(report.holds(), "{report}");
    assert_eq!(row_count(&job.table()).await, events);
    let letters = dead_letters(&job.state().join("dead-letter"));
    for (payload, kind) in BROKEN {
        let payload_stored = base64(payload);
        let found = letters.iter().filter(|letter| letter["payload"] == payload_stored).count();
        assert_eq!(found, 1, "{kind}: {:?}\n{letters:#?}", String::from_utf8_lossy(payload));
    }
    assert_eq!(letters.len(), BROKEN.len(), "{letters:#?}");
    assert!(letters.iter().all(|l| l["error"].as_str().is_some_and(|e| !e.is_empty()) && l["offset"].is_i64()));
    assert_eq!(status["dead_letters"].as_u64(), Some(BROKEN.len() as u64));
    assert_eq!(records_read(&status), events + report.copies + BROKEN.len() as u64, "every record is accounted for");
}

/// What the dead letter of a job that declares none holds.
pub fn dead_letters(folder: &Path) -> Vec<Value> {
    let mut letters = vec![];
    for file in fs::read_dir(folder).expect("there are dead letters").flatten() {
        if file.file_type().is_ok_and(|t| t.is_dir()) {
            letters.extend(dead_letters(&file.path()));
        } else {
            let text = fs::read_to_string(file.path()).expect("a dead letter can be read");
            letters.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("one document a line")));
        }
    }
    letters
}

/// As JSON lines hold bytes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { DIGITS[index as usize] as char } else { '=' });
        }
    }
    text
}
