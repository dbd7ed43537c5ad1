//! Sections of the protocol that need the whole engine, each as an interleaving that is forced.

use std::sync::Arc;
use std::time::Duration;

use engine::job::{JobError, JobSettings, Outcome};
use engine::job_log::LogSettings;
use engine::plan::{Kept, KeptByKey, LatePolicy, Scope};
use engine::source::ReadLimit;
use engine::worker::Limits;

use crate::clock::{BEGINNING, Clock};
use crate::expected::judge;
use crate::plan::Shape;
use crate::process::Process;
use crate::topic::{Contents, Event, Partition, Silence};
use crate::warnings::Warnings;
use crate::world::{Conditions, PATIENCE, Running, World, play};

const WITHIN: Duration = Duration::from_millis(100);
/// Between two events of a partition.
const STEP: i64 = 10_000_000;
/// The most that one read takes, and what an open epoch may hold.
const READ: usize = 5;
const EPOCH: usize = 30;
const POLICIES: [LatePolicy; 3] = [LatePolicy::Keep, LatePolicy::Drop, LatePolicy::DeadLetter];

/// Event number so much of the topic, at its time.
fn event(id: u64) -> Event {
    Event::new(id, BEGINNING + id as i64 * STEP)
}

fn events(ids: std::ops::Range<u64>) -> Vec<Event> {
    ids.map(event).collect()
}

/// A topic that is read to its end, once.
fn bounded(partitions: Vec<Partition>) -> Contents {
    Contents { partitions, discovery: None }
}

/// A topic to which partitions may be added.
fn growing(partitions: Vec<Partition>) -> Contents {
    Contents { partitions, discovery: Some(Duration::from_millis(20)) }
}

fn world(contents: Contents, late: LatePolicy) -> World {
    let settings = JobSettings {
        checkpoint_interval: Duration::from_millis(10),
        workers: 2,
        max_uncommitted: 2,
        stall_report: Duration::from_millis(500),
        limits: Limits {
            read: ReadLimit { records: READ, bytes: usize::MAX },
            exchange_rows: 1,
            exchange_bytes: usize::MAX,
            epoch_rows: EPOCH,
            epoch_bytes: usize::MAX,
        },
        log: LogSettings { retention: Duration::from_secs(1), fold_every: 3 },
        ..JobSettings::default()
    };
    let kept = Kept::Whole { refresh: seconds(60), bytes: usize::MAX };
    let shape =
        Shape { scope: Scope::Global, within: WITHIN, late, commit_interval: Duration::ZERO, kept, again: kept };
    let (clock, contents) = (Arc::new(Clock::new(1)), Arc::new(contents));
    World {
        clock,
        outside: Arc::default(),
        store: Arc::default(),
        contents,
        others: None,
        shape,
        settings,
        give_up_after: None,
    }
}

impl World {
    fn process(&self, name: &str) -> Running {
        self.start(Process::new(name.into(), self.clock.clone(), vec![]), Conditions::default())
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        while !condition().await {
            self.clock.advance().await;
            assert!(self.clock.now() < PATIENCE, "{what}: it does not come");
        }
    }

    async fn until_time(&self, time: Duration) {
        self.until("the time", async || self.clock.now() >= time).await;
    }

    async fn end(&self, running: Running) -> Outcome {
        self.until("the end", async || running.is_ended()).await;
        running.outcome().await.expect("the job does not fail")
    }

    async fn stop(&self, running: Running) {
        running.process.ask_to_stop();
        assert_eq!(self.end(running).await, Outcome::Stopped);
    }

    async fn until_replaced(&self, running: Running) {
        self.until("it is replaced", async || running.is_ended()).await;
        assert!(running.outcome().await.is_err_and(|error| error.is_fenced()));
    }

    async fn stop_when_all_is_shown(&self, running: Running) {
        self.until("all is shown", async || self.is_all_shown().await).await;
        self.stop(running).await;
    }

    /// How many events the first table shows.
    fn shown(&self) -> usize {
        self.outside.shown("first").len()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The broker does not answer from an event on, until so many seconds have passed.
fn silent(from: usize, until: u64) -> Option<Silence> {
    Some(Silence { from, until: seconds(until), is_end: false })
}

// 5. A silent partition is taken for an idle one

/// Two partitions with the same events, and some that only the second has; the second is silent from an event on.
fn one_is_silent(from: usize) -> Contents {
    let copied = events(0..300);
    let own = copied.iter().filter(|e| e.id % 3 == 0).map(|e| Event { id: e.id + 1000, ..*e });
    let mut second: Vec<Event> = copied.iter().copied().chain(own).collect();
    second.sort_by_key(|e| (e.time, e.id));
    let second = Partition { silence: silent(from, 5), ..Partition::of(second) };
    bounded(vec![Partition::of(copied), second])
}

#[test]
fn protocol_5_a_partition_that_falls_silent_is_not_idle_and_holds_the_window() {
    for (late, from) in POLICIES.iter().flat_map(|late| [0, 40].map(|from| (*late, from))) {
        let world = world(one_is_silent(from), late);
        play(async {
            let running = world.process("w");
            world.until_time(seconds(4)).await;
            let window = (WITHIN.as_nanos() as i64 / STEP) as usize;
            let (read, most) = (running.process.records_read(), from + from + window + 2 * READ);
            assert!(read <= most, "{read} records are read, and the others wait for the silent one within {most}");
            assert_eq!(world.end(running).await, Outcome::Completed);
        });
        judge(&world).unwrap_or_else(|what| panic!("{late:?}, silent from {from}: {what}"));
    }
}

#[test]
fn protocol_5_a_partition_that_was_silent_before_a_restart_is_not_forgotten_by_it() {
    for (late, from) in POLICIES.iter().flat_map(|late| [0, 40].map(|from| (*late, from))) {
        let world = world(one_is_silent(from), late);
        play(async {
            let first = world.process("first");
            world.until_time(seconds(2)).await;
            world.stop(first).await;
            assert_eq!(world.end(world.process("second")).await, Outcome::Completed);
        });
        judge(&world).unwrap_or_else(|what| panic!("{late:?}, silent from {from}: {what}"));
    }
}

#[test]
fn protocol_5_a_partition_that_stands_at_the_end_that_the_broker_stated_holds_nobody_back() {
    let world =
        world(growing(vec![Partition::of(events(0..300)), Partition::of(events(1000..1005))]), LatePolicy::Drop);
    play(async {
        let running = world.process("w");
        world.stop_when_all_is_shown(running).await;
    });
    judge(&world).unwrap();
}

#[test]
fn protocol_5_a_partition_that_stood_at_its_end_before_a_restart_and_still_does_holds_nobody_back() {
    let busy = Partition { silence: silent(100, 2), ..Partition::of(events(0..300)) };
    let idle = Partition::of((1000..1005).map(|id| Event::new(id, event(0).time)).collect());
    let world = world(growing(vec![busy, idle]), LatePolicy::Drop);
    play(async {
        let first = world.process("first");
        world.until_time(seconds(1)).await;
        world.stop(first).await;
        assert!(world.log().await.is_some_and(|log| log.groups["events/1"].clock.idle), "it stood at its end");
        let second = world.process("second");
        world.stop_when_all_is_shown(second).await;
    });
    judge(&world).unwrap();
}

// 6. One wrong clock moves the watermark for good; a copy later than the horizon has no rule

#[test]
fn protocol_6_a_device_of_the_year_2099_moves_no_window_not_even_behind_a_restart() {
    let mut with_copies: Vec<Event> = events(0..100).into_iter().flat_map(|e| [e, e]).collect();
    let year_2099 = 4_070_908_800_000_000_000;
    with_copies[10].device_time = year_2099;
    with_copies[11].device_time = year_2099;
    let partition = Partition { silence: silent(60, 3), ..Partition::of(with_copies) };
    for late in POLICIES {
        let world = world(bounded(vec![partition.clone()]), late);
        play(async {
            let first = world.process("first");
            world.until_time(seconds(2)).await;
            assert_eq!(first.process.records_read(), 60);
            world.stop(first).await;
            let log = world.log().await.expect("the job ran");
            assert_eq!(log.groups["events/0"].clock.event_time, year_2099, "the watermark went there");
            assert_eq!(world.end(world.process("second")).await, Outcome::Completed);
        });
        judge(&world).unwrap_or_else(|what| panic!("{late:?}: {what}"));
    }
}

/// Many windows of events; then, after a silence, one that is older than a window, and a copy of one.
fn late_after_a_silence() -> Partition {
    let mut rows = events(0..100);
    rows.push(Event { late: true, ..Event::new(200, event(40).time) });
    rows.push(Event { late: true, ..event(42) });
    rows.extend(events(100..110));
    Partition { silence: silent(100, 3), ..Partition::of(rows) }
}

#[test]
fn protocol_6_a_row_older_than_the_window_follows_its_policy_behind_a_restart_too() {
    for (late, restart) in POLICIES.iter().flat_map(|late| [false, true].map(|restart| (*late, restart))) {
        let mut world = world(bounded(vec![late_after_a_silence()]), late);
        world.shape.scope = Scope::Partition;
        play(async {
            let mut running = world.process("first");
            world.until_time(seconds(2)).await;
            if restart {
                world.stop(running).await;
                running = world.process("second");
            }
            assert_eq!(world.end(running).await, Outcome::Completed);
        });
        judge(&world).unwrap_or_else(|what| panic!("{late:?}, restart {restart}: {what}"));
    }
}

#[test]
fn protocol_6_the_window_stays_where_it_was_behind_a_restart_also_for_a_partition_that_was_idle_far_behind() {
    for (late, restart) in POLICIES.iter().flat_map(|late| [false, true].map(|restart| (*late, restart))) {
        // The first partition stands at its end while the second moves the window on; then it brings old rows.
        let mut rows = events(1000..1005).into_iter().map(|e| Event { time: event(0).time, ..e }).collect::<Vec<_>>();
        rows.extend([event(200), event(42)].map(|e| Event { late: true, time: event(42).time, ..e }));
        let behind =
            Partition { silence: Some(Silence { from: 5, until: seconds(3), is_end: true }), ..Partition::of(rows) };
        let world = world(growing(vec![behind, Partition::of(events(0..100))]), late);
        play(async {
            let mut running = world.process("first");
            world.until_time(seconds(2)).await;
            if restart {
                world.stop(running).await;
                running = world.process("second");
            }
            world.stop_when_all_is_shown(running).await;
        });
        judge(&world).unwrap_or_else(|what| panic!("{late:?}, restart {restart}: {what}"));
        let times = |table: &str, row: &str| world.outside.shown(table).get(row).copied().unwrap_or(0);
        let seen = [
            times("first", "200"),
            times("first", "42"),
            times("dead-letter", "late 200"),
            times("dead-letter", "late 42"),
        ];
        let expected = match late {
            LatePolicy::Keep => [1, 2, 0, 0],
            LatePolicy::Drop => [0, 1, 0, 0],
            LatePolicy::DeadLetter => [0, 1, 1, 1],
        };
        assert_eq!(seen, expected, "{late:?}, restart {restart}");
    }
}

// 22. A barrier waits behind one slow chain

#[test]
fn protocol_22_a_partition_from_which_nothing_comes_holds_no_barrier_up() {
    let silent = Partition { silence: silent(0, 60), ..Partition::of(events(1000..1005)) };
    let mut world = world(bounded(vec![Partition::of(events(0..100)), silent]), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    play(async {
        let running = world.process("w");
        let of_first = events(0..100).iter().filter(|e| !crate::outside::is_poison(e.id)).count();
        world.until("the first partition is shown", async || world.shown() == of_first).await;
        assert!(world.clock.now() < seconds(5), "it took {:?}", world.clock.now());
        assert_eq!(world.end(running).await, Outcome::Completed);
    });
    judge(&world).unwrap();
}

#[test]
fn protocol_22_an_open_epoch_is_bounded_while_no_barrier_may_start() {
    let mut world = world(bounded(vec![Partition::of(events(0..2000))]), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    play(async {
        let running = world.process("w");
        world.until("something is shown", async || world.shown() > 0).await;
        let (read, now) = (running.process.records_read(), world.clock.now());
        world.outside.is_away(now, now + seconds(20));
        world.until_time(now + seconds(15)).await;
        // As many epochs as may wait at a sink, the one that was under way, and the open one.
        let most = read + (world.settings.max_uncommitted + 2) * (EPOCH + READ);
        let read = running.process.records_read();
        assert!(read <= most && most < 2000, "{read} records are read while nothing is shown, of at most {most}");
        assert_eq!(world.end(running).await, Outcome::Completed);
    });
    judge(&world).unwrap();
}

#[test]
fn protocol_22_a_barrier_that_is_not_aligned_in_time_is_reported_by_worker_and_the_others_wait_within_their_epoch() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let partitions = [0..1000, 1000..2000].map(|ids| Partition::of(events(ids))).to_vec();
    let mut world = world(bounded(partitions), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    play(async {
        let running = world.process("w");
        world.until("something is shown", async || world.shown() > 0).await;
        let (read, now) = (running.process.records_read(), world.clock.now());
        *running.process.slow_worker.lock() = Some(("worker-1", now + seconds(10)));
        world.until_time(now + seconds(9)).await;
        let most = read + 3 * (EPOCH + READ);
        let read = running.process.records_read();
        assert!(read <= most && most < 2000, "{read} records are read behind the barrier, of at most {most}");
        assert_eq!(
            warnings.about("not aligned"),
            ["a barrier is not aligned: 0 of 2 workers have cut; not come to it yet: worker 1"]
        );
        assert_eq!(world.end(running).await, Outcome::Completed);
    });
    judge(&world).unwrap();
}

#[test]
fn a_source_waits_for_another_one_that_shares_its_window() {
    for late in POLICIES {
        let own = events(0..300).into_iter().map(|e| Event { id: e.id + 1000, ..e });
        let others = own.zip(events(0..300)).flat_map(|(own, copy)| [own, copy]).collect();
        let others = Partition { silence: silent(0, 5), ..Partition::of(others) };
        let mut world = world(bounded(vec![Partition::of(events(0..300))]), late);
        world.others = Some(Arc::new(bounded(vec![others])));
        play(async {
            let running = world.process("w");
            world.until_time(seconds(4)).await;
            let read = running.process.records_read();
            assert!(read <= 10 + 2 * READ, "{read} records are read, most of them more than a window ahead");
            assert_eq!(world.end(running).await, Outcome::Completed);
        });
        judge(&world).unwrap_or_else(|what| panic!("{late:?}: {what}"));
    }
}

// 21. Two sinks, one down for an hour

#[test]
fn protocol_21_a_sink_that_is_away_is_so_many_entries_behind_the_other_at_most_and_gets_them_behind_a_restart() {
    let mut world = world(bounded(vec![Partition::of(events(0..4000))]), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    let shown = |table| world.outside.shown(table).len();
    play(async {
        let running = world.process("first");
        world.until("both show something", async || shown("first") > 0 && shown("second") > 0).await;
        let now = world.clock.now();
        world.outside.table_is_away("second", now, now + seconds(40));
        world.until_time(now + seconds(15)).await;
        let (ahead, behind) = (shown("first"), shown("second"));
        let most = (world.settings.max_uncommitted + 2) * (EPOCH + READ);
        assert!((1..=most).contains(&(ahead - behind)), "{ahead} rows here, {behind} there");
        running.process.die();
        let successor = world.process("successor");
        world.until_time(now + seconds(30)).await;
        assert_eq!(shown("second"), behind, "it is away");
        assert_eq!(world.end(successor).await, Outcome::Completed);
    });
    judge(&world).unwrap();
}

// 23. A row refused at commit time has no epoch

#[test]
fn protocol_23_a_job_that_stops_while_its_last_entry_is_committed_shows_the_rows_that_the_sink_refuses_then() {
    let with_poison = Partition { silence: silent(0, 1), ..Partition::of(events(0..6)) };
    let world = world(growing(vec![with_poison]), LatePolicy::Keep);
    world.outside.is_away(Duration::from_millis(900), seconds(3));
    play(async {
        let running = world.process("w");
        world
            .until("all is published", async || {
                world.log().await.is_some_and(|log| log.position("events/0").is_some_and(|at| at.offset == 6))
            })
            .await;
        world.until_time(seconds(2)).await;
        assert_eq!(world.shown(), 0, "nothing of it is committed yet");
        world.stop(running).await;
    });
    assert_eq!(world.outside.shown("dead-letter").get("sink 5"), Some(&1));
    judge(&world).unwrap();
}

// What a start and a look for new partitions may not do

#[test]
fn a_process_that_the_sinks_let_not_in_takes_the_job_from_nobody() {
    let slow = Partition { silence: silent(50, 3), ..Partition::of(events(0..100)) };
    let world = world(bounded(vec![slow]), LatePolicy::Keep);
    play(async {
        let owner = world.process("owner");
        world.until_time(seconds(1)).await;
        let other = Process::new("other".into(), world.clock.clone(), vec![]);
        let other = world.start(other, Conditions { locked: true, ..Conditions::default() });
        world.until("the other gives up", async || other.is_ended()).await;
        let error = other.outcome().await.expect_err("it is not let in");
        assert!(error.to_string().contains("no entry"), "{error}");
        assert_eq!(world.end(owner).await, Outcome::Completed);
    });
    judge(&world).unwrap();
}

#[test]
fn a_new_partition_that_cannot_be_asked_is_asked_again_and_shown_and_holds_no_other_up() {
    let born = Duration::from_millis(50);
    let leaderless = Partition { born, answers_from: seconds(5), ..Partition::of(events(1000..1020)) };
    let other = Partition { born, ..Partition::of(events(2000..2020)) };
    let mut world = world(growing(vec![Partition::of(events(0..20)), leaderless, other]), LatePolicy::Keep);
    world.shape.within = seconds(3600);
    play(async {
        let running = world.process("w");
        let metrics = running.metrics.source("events");
        let trouble = || metrics.discovery_trouble.read().clone();
        world.until_time(seconds(4)).await;
        assert_eq!(trouble().as_deref(), Some("partition 1: no leader yet"));
        assert_eq!(running.process.records_read(), 40, "the other new partition is read");
        world.until("all is shown", async || world.is_all_shown().await).await;
        assert_eq!(trouble(), None);
        world.stop(running).await;
    });
    judge(&world).unwrap();
}

#[test]
fn partitions_of_a_topic_that_was_empty_are_read_by_whoever_claimed_it_last() {
    let born = seconds(1);
    let partitions = [0..50, 50..100].map(|ids| Partition { born, ..Partition::of(events(ids)) });
    let mut world = world(growing(partitions.to_vec()), LatePolicy::Keep);
    world.shape.within = seconds(3600);
    play(async {
        let first = world.process("first");
        world.until_time(Duration::from_millis(400)).await;
        let second = world.process("second");
        world.until_replaced(first).await;
        world.stop_when_all_is_shown(second).await;
    });
    judge(&world).unwrap();
}

#[test]
fn a_process_that_has_nothing_to_do_hears_that_it_was_replaced() {
    let world = world(growing(vec![Partition::of(events(0..20))]), LatePolicy::Keep);
    play(async {
        let first = world.process("first");
        world.until("everything is shown", async || world.is_all_shown().await).await;
        let second = world.process("second");
        world.until_replaced(first).await;
        world.stop_when_all_is_shown(second).await;
    });
    judge(&world).unwrap();
}

#[test]
fn a_worker_that_comes_to_know_a_new_partition_late_does_not_make_the_others_wait_for_it_for_ever() {
    let born = Duration::from_millis(100);
    // Partition 2 begins many windows ahead of where 0 is then, and the worker of 1 is long at something.
    let ahead = |id| Event::new(id, event(1000 + id % 1000).time);
    let new = [2000..2020, 3000..3020].map(|ids| Partition { born, ..Partition::of(ids.map(ahead).collect()) });
    let [one, two] = new;
    let mut world = world(growing(vec![Partition::of(events(0..1000)), one, two]), LatePolicy::Keep);
    world.shape.scope = Scope::Partition;
    world.settings.limits.epoch_rows = 1000;
    play(async {
        let running = world.process("w");
        *running.process.slow_worker.lock() = Some(("worker-1", seconds(2)));
        world.until_time(seconds(2)).await;
        let read = running.process.records_read();
        assert!((100..900).contains(&read), "{read} records are read, and the others wait for partition 1");
        world.stop_when_all_is_shown(running).await;
    });
    judge(&world).unwrap();
}

#[test]
fn protocol_22_a_table_outside_that_does_not_answer_holds_its_rows_and_no_more_than_an_epoch_and_the_job_goes_on_with_it()
 {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let partitions = [0..1000, 1000..2000].map(|ids| Partition::of(events(ids))).to_vec();
    let mut world = world(bounded(partitions), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    world.shape.kept = by_key();
    play(async {
        let running = world.process("w");
        world.until("something is shown", async || world.shown() > 0).await;
        let (read, now) = (running.process.records_read(), world.clock.now());
        running.process.table_is_away_until(now + seconds(10));
        world.until_time(now + seconds(9)).await;
        let most = read + 3 * (EPOCH + READ);
        let read = running.process.records_read();
        assert!(read <= most && most < 2000, "{read} records are read while nothing is looked up, of at most {most}");
        let said = warnings.about("not aligned");
        assert!(said[0].contains("waiting to be looked up") && said[0].contains("rows for table known"), "{said:?}");
        let metrics = running.metrics.lookup("known");
        assert!(metrics.waiting.get() > 0 && metrics.health.trouble.read().is_some());
        assert_eq!(world.end(running).await, Outcome::Completed);
        assert_eq!(metrics.waiting.get(), 0);
    });
    judge(&world).unwrap();
}

#[test]
fn a_stop_does_not_wait_for_a_table_outside_and_the_next_start_looks_the_rows_up() {
    let mut world = world(bounded(vec![Partition::of(events(0..300))]), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    world.shape.kept = by_key();
    play(async {
        let running = world.process("w1");
        world.until("something is shown", async || world.shown() > 0).await;
        running.process.table_is_away_until(PATIENCE);
        world.until("rows wait", async || running.metrics.lookup("known").health.trouble.read().is_some()).await;
        running.process.ask_to_stop();
        world.until("the end", async || running.is_ended()).await;
        let ended = running.outcome().await;
        assert!(matches!(ended, Err(JobError::StopTooSlow(..))), "{ended:?}");
        assert_eq!(world.end(world.process("w2")).await, Outcome::Completed);
    });
    judge(&world).unwrap();
}

#[test]
fn a_job_gives_a_table_outside_up_after_the_time_that_is_stated() {
    let mut world = world(growing(vec![Partition::of(events(0..300))]), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    for kept in [by_key(), Kept::Whole { refresh: Duration::from_millis(50), bytes: usize::MAX }] {
        world.shape.kept = kept;
        world.give_up_after = Some(seconds(3));
        play(async {
            let running = world.process("w");
            world.until("something is read", async || running.process.records_read() > 0).await;
            let away = world.clock.now();
            running.process.table_is_away_until(PATIENCE);
            world.until("the end", async || running.is_ended()).await;
            let ended = running.outcome().await.unwrap_err().to_string();
            assert!(ended.contains("which give_up_after bounds"), "{ended}");
            assert!((seconds(3)..seconds(15)).contains(&(world.clock.now() - away)));
        });
    }
}

#[test]
fn rows_leave_a_lookup_in_the_order_in_which_they_came_though_answers_overtake_one_another() {
    let mut world = world(bounded(vec![Partition::of(events(0..300))]), LatePolicy::Drop);
    world.shape.within = seconds(3600);
    (world.shape.kept, world.shape.again) = (by_key(), by_key());
    world.settings.workers = 1;
    world.settings.limits.exchange_rows = 100;
    play(async { assert_eq!(world.end(world.process("w")).await, Outcome::Completed) });
    let shown: Vec<u64> = world.outside.in_order("second").iter().filter_map(|n| n.parse().ok()).collect();
    assert!(shown.len() > 100 && shown.is_sorted(), "{shown:?}");
    judge(&world).unwrap();
}

#[test]
fn a_table_that_is_larger_than_may_be_kept_ends_the_job_and_says_what_to_raise() {
    let mut world = world(bounded(vec![Partition::of(events(0..10))]), LatePolicy::Drop);
    world.shape.kept = Kept::Whole { refresh: seconds(60), bytes: 100 };
    play(async {
        let running = world.process("w");
        world.until("the end", async || running.is_ended()).await;
        let ended = running.outcome().await.unwrap_err().to_string();
        assert!(ended.contains("lookup.cache.bytes allows 0: raise it"), "{ended}");
    });
}

/// Asked by key, and nothing is kept: whoever is away is missed at once.
fn by_key() -> Kept {
    Kept::ByKey(KeptByKey { ttl: Duration::ZERO, missing_ttl: Duration::ZERO, bytes: 0, keys: 10, requests: 2 })
}
