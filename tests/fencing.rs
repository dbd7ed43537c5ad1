//! Two processes on one job: the newer one has it, and nothing that the older one still does changes the table.

use std::path::Path;
use std::time::Duration;

use crate::broker::Broker;
use crate::feed::{Feed, Feeding};
use crate::millrace::{FENCED, Job, PATIENCE};
use crate::table::shows_each_event_once;
use crate::wait::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_takes_over_and_the_first_ends_with_a_code_of_its_own() {
    let broker = Broker::shared();
    let topic = broker.topic("takeover", 2).await;
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic).argument("--checkpoint-interval=100ms");
    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(11));
    let mut first = job.start();
    first.wait_until_read(200);

    let mut second = job.start();
    second.wait_until_it_says("resumes at entry");
    assert_eq!(first.wait().code(), Some(FENCED), "{}", first.said());
    assert!(first.said().contains("another process took this job over"), "{}", first.said());

    shows_each_event_once(feed.finish(), &mut second, &job, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_takeover_a_second_process_leaves_the_first_alone() {
    let broker = Broker::shared();
    let topic = broker.topic("no-takeover", 2).await;
    // The last entry must be younger than three intervals, whatever else the machine does.
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic).argument("--checkpoint-interval=5s");
    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(12));
    let mut first = job.start();
    first.wait_until_read(200);
    let address = std::fs::read_to_string(job.state().join("listen")).unwrap();

    let mut second = job.start_with(&[], &["--no-takeover"]);
    assert_eq!(second.wait().code(), Some(1), "{}", second.said());
    assert!(second.said().contains("and --no-takeover was given; stop that process first"), "{}", second.said());
    assert_eq!(
        std::fs::read_to_string(job.state().join("listen")).unwrap(),
        address,
        "the address of who runs the job"
    );

    shows_each_event_once(feed.finish(), &mut first, &job, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_through_every_retention_changes_nothing_when_it_wakes() {
    let broker = Broker::shared();
    let topic = broker.topic("sleeper", 2).await;
    let mut job = Job::events_to_delta(&broker.bootstrap_servers(), &topic);
    for argument in ["--checkpoint-interval=100ms", "--fold-every=3", "--log-retention=1s"] {
        job = job.argument(argument);
    }
    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(13));
    let mut awake = job.start();
    awake.wait_until_read(100);
    for round in 0..3 {
        // Another moment of its work each time.
        tokio::time::sleep(Duration::from_millis(170 * round)).await;
        awake.freeze();
        let mut sleeper = awake;
        let before = newest_entry(&job.state());
        awake = job.start();
        awake.wait_until_it_says("resumes at entry");
        let numbers_are_free = || {
            let there = entries(&job.state());
            (there.iter().any(|n| *n > before + 1) && !there.contains(&(before + 1))).then_some(())
        };
        wait_for("the entries of the sleeper's time to be deleted", PATIENCE, numbers_are_free);
        sleeper.thaw();
        assert_eq!(sleeper.wait().code(), Some(FENCED), "{}", sleeper.said());
    }

    shows_each_event_once(feed.finish(), &mut awake, &job, 2).await;
}

fn entries(state: &Path) -> Vec<u64> {
    let names = std::fs::read_dir(state.join("log")).map(|files| files.flatten().map(|f| f.file_name()).collect());
    let names: Vec<std::ffi::OsString> = names.unwrap_or_default();
    names.iter().filter_map(|name| name.to_str()?.strip_suffix(".json")?.parse().ok()).collect()
}

fn newest_entry(state: &Path) -> u64 {
    entries(state).into_iter().max().unwrap_or(0)
}
