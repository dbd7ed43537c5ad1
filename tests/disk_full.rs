//! A disk that is full, under the job log and the table: what cannot be written is tried again until there is room.

use crate::broker::Broker;
use crate::feed::{Feed, Feeding};
use crate::large_files;
use crate::millrace::{Job, PATIENCE, Running};
use crate::small_disk::SmallDisk;
use crate::table::verify;
use crate::wait::wait_for;

/// Less than a data file needs and more than the first of its pages: what is written then ends in the middle.
const TOO_LITTLE: u64 = 8 * 1024;
const ENOUGH: u64 = 64 << 20;

/// Waits until a store is seen to fail, in the metrics. Where the table cannot go on, nothing more may come for the job
/// log, and the other way round.
fn wait_for_trouble(run: &Running) {
    let in_trouble = |metric| run.metric(metric) == Some(1.0);
    wait_for("trouble", PATIENCE, || {
        ["checkpoint_in_trouble", "sink_in_trouble"].into_iter().any(in_trouble).then_some(())
    });
}

fn tries(run: &Running) -> f64 {
    let count = |metric| run.metric(metric).unwrap_or(0.0);
    count("checkpoint_retries_total") + count("sink_commit_retries_total")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_a_job_that_died_on_it_goes_on_when_there_is_room() {
    let broker = Broker::shared();
    let topic = broker.topic("disk-full", 2).await;
    let disk = SmallDisk::of_megabytes(24);
    let job = Job::events_to_delta(&broker.bootstrap_servers(), &topic).on_disk(&disk);
    let job = job.argument("--checkpoint-interval=200ms");
    let feed = Feed::start(&topic, &broker.properties(), Feeding::slow(51));
    let mut first = job.start();
    first.wait_until("a commit", |status| status["sinks"]["serving"]["commits"].as_u64() > Some(1));

    disk.fill();
    wait_for_trouble(&first);
    let before = tries(&first);
    disk.make_room(TOO_LITTLE);
    wait_for("further tries", PATIENCE, || (tries(&first) > before + 2.0).then_some(()));
    disk.fill();
    wait_for_trouble(&first);
    disk.make_room(ENOUGH);
    first.wait_until("both are well again", |status| {
        status["checkpoints"]["trouble"].is_null() && status["sinks"]["serving"]["trouble"].is_null()
    });
    let shown = |status: &serde_json::Value| status["sinks"]["serving"]["last_entry"].as_u64().unwrap_or(0);
    let entry = shown(&first.status().expect("the job answers"));
    first.wait_until("the table goes on", |status| shown(status) > entry);
    assert!(first.said().contains("No space left on device"), "{}", first.said());
    let lines = first.said().lines().count();
    assert!(lines < 200, "{lines} lines in the log:\n{}", first.said());

    disk.fill();
    wait_for_trouble(&first);
    first.kill();
    let mut second = job.start();
    second.wait_until_it_says("the job log did not answer an append; asking again");
    disk.make_room(ENOUGH);
    second.wait_until_it_says("resumes at entry");

    let sent = feed.finish();
    second.wait_until_idle(2);
    second.stop();
    disk.copy_out("table", &job.table());
    let report = verify(sent, &job.table()).await;
    assert!(report.holds() && report.copies > 0, "{report}\n{}", second.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_whose_next_part_finds_the_disk_full_goes_on_with_that_part_when_there_is_room() {
    let disk = SmallDisk::of_megabytes(100);
    let job = large_files::job().on_disk(&disk);
    disk.fill();
    // For the job log, the table's first entry and one part.
    disk.make_room(12 << 20);
    let mut run = job.start();
    wait_for_trouble(&run);
    disk.make_room(84 << 20);
    assert_eq!(run.wait().code(), Some(0), "{}", run.said());
    assert!(run.said().contains("No space left on device"), "{}", run.said());
    disk.copy_out("table", &job.table());
    let (numbers, live) = large_files::shown(&job).await;
    assert_eq!((numbers.len(), live.len()), (large_files::ROWS as usize, 1));
}
