//! The main job as its users run it: a real Kafka, the real binary, a Delta table.

use std::time::Duration;

use crate::broker::Broker;
use crate::feed::{Feed, Feeding, Spread};
use crate::millrace::Job;
use crate::table::{read_with_python, verify};

fn feeding(seed: u64) -> Feeding {
    Feeding {
        rate: 500.0,
        duplicate_every: 5,
        copies_within: Duration::from_secs(2),
        spread: Spread::Anywhere,
        partitions: 4,
        seed,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_shown_once_and_a_restart_goes_on_where_the_log_says() {
    let broker = Broker::shared();
    let topic = broker.topic("restart", 4).await;
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic);
    let feed = Feed::start(&topic, &broker.properties(), feeding(1));

    let mut first = job.start();
    first.wait_until_it_says("new job");
    first.wait_until_read(1000);
    first.terminate();
    assert_eq!(first.wait().code(), Some(0), "{}", first.said());
    assert!(first.said().contains("stopped: everything that was read is shown"), "{}", first.said());

    let mut second = job.start();
    second.wait_until_it_says("resumes at entry");
    second.wait_until_read(1000);
    let read_before = feed.sent();
    let sent = feed.finish();
    let copies = read_before.saturating_sub(sent.sent_count());
    assert!(copies > 0, "the feed sends copies");
    second.wait_until_idle(4);
    second.terminate();
    assert_eq!(second.wait().code(), Some(0), "{}", second.said());

    let events = sent.sent_count();
    let report = verify(sent, &job.table()).await;
    assert!(report.holds(), "{report}");
    let table = job.table();
    let other_reader = tokio::task::spawn_blocking(move || read_with_python(&table)).await.unwrap();
    assert_eq!((other_reader.rows, other_reader.distinct, other_reader.nulls), (events, events, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_window_is_changed_knows_what_it_knew() {
    let broker = Broker::shared();
    let topic = broker.topic("window", 4).await;
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic);
    let file = job.folder().join("test.sql");
    let sql = std::fs::read_to_string(&file).expect("the job's file");
    // Copies come up to so long after their event: many of them after a change.
    let copies_within = Duration::from_secs(8);
    let feed = Feed::start(&topic, &broker.properties(), Feeding { copies_within, ..feeding(3) });
    let windows = ["10 minutes", "30 seconds", "2 hours", "20 seconds"];
    for window in windows {
        let changed = sql.replace("'10 minutes'", &format!("'{window}'"));
        assert!(changed.contains(window), "{changed}");
        std::fs::write(&file, changed).expect("the job's file");
        let mut run = job.start();
        run.wait_until_read(1000);
        run.stop();
    }
    let sent = feed.finish();
    let mut last = job.start();
    last.wait_until_idle(4);
    last.stop();
    let report = verify(sent, &job.table()).await;
    assert!(report.holds() && report.copies > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_job_ends_by_itself_with_everything_shown() {
    let broker = Broker::shared();
    let topic = broker.topic("bounded", 4).await;
    let feed = Feed::start(&topic, &broker.properties(), Feeding { rate: 5000.0, ..feeding(2) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent = feed.finish();
    let bounded = ("format                 = 'json',", "format = 'json', 'scan.bounded.mode' = 'latest-offset',");
    let job = Job::events_to_delta_with(&broker.bootstrap_servers(), &topic, &[bounded]);

    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(0), "{}", run.said());
    assert!(run.said().contains("done: everything is read and shown"), "{}", run.said());
    let report = verify(sent, &job.table()).await;
    assert!(report.holds() && report.copies > 0, "{report}");

    let mut again = job.start();
    assert_eq!(again.wait().code(), Some(0), "{}", again.said());
    let rows = report.rows;
    assert_eq!(crate::table::row_count(&job.table()).await, rows, "a job that is complete adds nothing");
}
