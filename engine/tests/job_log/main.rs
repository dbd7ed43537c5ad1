//! The job log: each of the protocol's sections that it has to keep, as an interleaving that is forced.

mod machine;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::clock::SplitClock;
use engine::job_log::entry::{
    Checkpoint, Claim, Entry, GroupCut, Kind, Layout, Part, PartChange, RejectedRows, Shown, VERSION,
};
use engine::job_log::state::{LogError, LogState};
use engine::job_log::{JobLog, JobLogError, LogSettings};
use engine::sink::RejectedRow;
use engine::source::{Position, Start};
use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use serde_json::json;

use machine::{Machine, Time};
use store::{Fate, Unreliable, names, write};

const RETENTION: Duration = Duration::from_secs(10);
const OPERATOR: &str = "deduplicate events by eventId";

/// A folder, and the processes that share it.
#[derive(Default)]
struct Folder {
    store: Arc<InMemory>,
    time: Time,
}

/// One process and its view of the store.
struct Process {
    log: JobLog,
    store: Arc<Unreliable>,
}

impl Folder {
    async fn open(&self, name: &'static str) -> Process {
        self.try_open(name).await.expect("the log can be read")
    }

    async fn try_open(&self, name: &'static str) -> Result<Process, JobLogError> {
        let store = Unreliable::over(&self.store);
        let machine = Arc::new(Machine { name, time: self.time.clone() });
        let settings = LogSettings { retention: RETENTION, fold_every: 100 };
        let log = JobLog::open(store.clone(), Path::from("job"), machine, settings).await?;
        Ok(Process { log, store })
    }

    /// A process that took the partitions 0 and 1.
    async fn claimed(&self, name: &'static str) -> Process {
        let mut process = self.open(name).await;
        process.log.append(claim(&[0, 1])).await.expect("a first claim needs nothing");
        process
    }

    async fn entry(&self, number: u64) -> Entry {
        let path = Path::from(format!("job/log/{number:020}.json"));
        let body = self.store.get(&path).await.expect("the entry is there").bytes().await.expect("memory answers");
        serde_json::from_slice(&body).expect("an entry is JSON")
    }
}

impl Process {
    fn state(&self) -> &LogState {
        self.log.state().expect("something was claimed")
    }

    /// Publishes that both partitions came to `offset`.
    async fn reach(&mut self, offset: i64) -> Result<u64, JobLogError> {
        let checkpoint = self.cut(offset);
        self.log.append(checkpoint).await
    }

    fn cut(&self, offset: i64) -> Kind {
        Kind::Checkpoint(Box::new(Checkpoint { groups: groups(self.state(), offset), ..Checkpoint::default() }))
    }

    /// Publishes rows for the table `serving`, and what happened to a state part.
    async fn publish(&mut self, offset: i64, token: &str, change: PartChange) -> u64 {
        let mut checkpoint = Checkpoint { groups: groups(self.state(), offset), ..Checkpoint::default() };
        if !token.is_empty() {
            checkpoint.sinks.insert("serving".into(), vec![json!(token)]);
        }
        if change != PartChange::default() {
            checkpoint.parts.insert(OPERATOR.into(), change);
        }
        self.log.append(Kind::Checkpoint(Box::new(checkpoint))).await.expect("the process owns the job")
    }
}

fn groups(state: &LogState, offset: i64) -> BTreeMap<String, GroupCut> {
    let cut = |(name, group): (&String, &engine::job_log::state::Group)| {
        let cut = GroupCut {
            prev: group.entry,
            from: group.start.from.offset,
            to: Position::at(offset),
            clock: SplitClock::default(),
            finished: false,
        };
        (name.clone(), cut)
    };
    state.groups.iter().map(cut).collect()
}

fn claim(partitions: &[i64]) -> Kind {
    claim_from(partitions, 1000)
}

fn claim_from(partitions: &[i64], offset: i64) -> Kind {
    let start = Start { from: Position::at(offset), until: None };
    Kind::Claim(Claim {
        log_id: "born".into(),
        layout: Layout::in_memory(),
        operators: vec![OPERATOR.into()],
        groups: partitions.iter().map(|p| (format!("events/{p}"), start.clone())).collect(),
        generation: None,
        member: None,
    })
}

fn part(name: &str) -> Part {
    Part { name: format!("state/{name}"), bucket: 0, width: None, rows: 1, bytes: 1 }
}

fn added(name: &str) -> PartChange {
    PartChange { added: vec![part(name)], dropped: vec![] }
}

fn dropped(name: &str) -> PartChange {
    PartChange { added: vec![], dropped: vec![part(name).name] }
}

fn rejected(entry: u64) -> RejectedRows {
    let row = RejectedRow { token: 0, row: 3, reason: "too long".into(), content: "{}".into() };
    RejectedRows { entry, sink: "serving".into(), rows: vec![row] }
}

fn is_fenced<T>(result: &Result<T, JobLogError>) -> bool {
    matches!(result, Err(JobLogError::Fenced { .. }))
}

// 2. The first position is not in the log

#[tokio::test]
async fn protocol_2_the_first_position_stands_in_the_claim_and_the_start_option_is_not_asked_again() {
    let folder = Folder::default();
    drop(folder.claimed("a").await);
    let mut b = folder.open("b").await;
    assert_eq!(b.state().position("events/0"), Some(&Position::at(1000)));
    // What 'latest' would be by now.
    b.log.append(claim_from(&[0, 1], 5000)).await.unwrap();
    assert_eq!(b.state().position("events/0"), Some(&Position::at(1000)));
}

// 10. The create succeeded, the answer said otherwise

#[tokio::test]
async fn protocol_10_an_entry_is_published_once_whatever_the_answer_was() {
    use Fate::*;
    for fates in [
        &[AnswerLost][..],
        &[SaidToExist],
        &[RequestLost],
        &[LandsLate],
        &[Conflict],
        &[RequestLost, LandsLate],
        &[Conflict, SaidToExist],
        &[RequestLost, RequestLost, AnswerLost],
    ] {
        let folder = Folder::default();
        let mut w = folder.claimed("w").await;
        w.store.next("log/", fates);
        assert_eq!(w.reach(1100).await.unwrap(), 2, "{fates:?}");
        assert_eq!(w.reach(1200).await.unwrap(), 3, "{fates:?}");
        assert_eq!(names(&folder.store, "log").await.len(), 3, "{fates:?}");
        assert_eq!(folder.open("r").await.state().position("events/0"), Some(&Position::at(1200)), "{fates:?}");
    }
}

#[tokio::test]
async fn protocol_10_an_attempt_is_not_changed_while_its_number_is_free() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    w.store.next("log/", &[Fate::RequestLost, Fate::Conflict, Fate::LandsLate]);
    w.reach(1100).await.unwrap();
    let tried: Vec<_> = w.store.puts.lock().iter().filter(|p| p.contains("log/")).cloned().collect();
    assert!(tried[1..].iter().all(|path| *path == tried[1]), "every try went to one number: {tried:?}");
    assert_eq!(folder.entry(2).await.attempt, 2);
}

#[tokio::test]
async fn protocol_10_whoever_lost_a_number_to_another_writer_reads_it_and_goes_on_only_as_owner() {
    for fate in [Fate::RequestLost, Fate::LandsLate, Fate::Conflict] {
        let folder = Folder::default();
        let mut w = folder.claimed("w").await;
        let mut b = folder.open("b").await;
        w.store.next("log/", &[fate]);
        // Between w's two tries at entry 2, b takes it.
        let store = w.store.clone();
        let w_tries = async { w.reach(1100).await };
        let b_claims = async {
            while store.puts.lock().iter().filter(|p| p.contains("log/")).count() < 2 {
                tokio::task::yield_now().await;
            }
            b.log.append(claim(&[0, 1])).await
        };
        let (won, claimed) = tokio::join!(w_tries, b_claims);
        match (&won, claimed.unwrap()) {
            (Ok(2), 3) => {}
            (lost, 2) => assert!(is_fenced(lost), "{fate:?}: {lost:?}"),
            other => panic!("{fate:?}: {other:?}"),
        }
        assert!(is_fenced(&w.reach(1200).await), "{fate:?}");
    }
}

#[tokio::test]
async fn protocol_10_a_checkpoint_that_does_not_follow_from_the_last_entry_of_its_groups_is_an_error() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let stale = w.cut(1100);
    w.reach(1050).await.unwrap();
    assert!(matches!(w.log.append(stale).await, Err(JobLogError::Damaged(LogError::Prev { .. }))));
}

#[tokio::test]
async fn protocol_10_a_store_that_ignores_the_condition_is_refused_before_anything_is_written() {
    let folder = Folder::default();
    let store = Arc::new(store::Forgetful(folder.store.clone()));
    let machine = Arc::new(Machine { name: "a", time: folder.time.clone() });
    let opened = JobLog::open(store, Path::from("job"), machine, LogSettings::default()).await;
    assert!(matches!(opened, Err(JobLogError::NoConditionalCreate(_))));
    assert!(names(&folder.store, "").await.is_empty(), "the probe is taken away again");
}

// 11. Folded numbers can be created again

/// B takes over, goes far, folds, and clean-up takes the entries that A would have met.
async fn go_far_and_fold(folder: &Folder, b: &mut Process) {
    b.log.append(claim(&[0, 1])).await.unwrap();
    for offset in 0..5 {
        b.reach(2000 + offset).await.unwrap();
    }
    b.log.fold().await.unwrap();
    folder.time.pass(RETENTION * 2);
    b.reach(3000).await.unwrap();
    b.log.fold().await.unwrap();
    assert!(!names(&folder.store, "log").await.contains(&format!("{:020}.json", 2)), "entry 2 is gone");
}

#[tokio::test]
async fn protocol_11_a_process_that_slept_through_a_fold_wins_a_number_and_may_not_act_on_it() {
    let folder = Folder::default();
    let mut a = folder.claimed("a").await;
    let mut b = folder.open("b").await;
    go_far_and_fold(&folder, &mut b).await;
    assert!(is_fenced(&a.reach(1100).await));
    let c = folder.open("c").await;
    assert_eq!(c.state().position("events/0"), Some(&Position::at(3000)), "what a wrote is in nobody's way");
    assert!(b.reach(3100).await.is_ok());
}

#[tokio::test]
async fn protocol_11_a_process_that_freezes_between_its_last_look_and_its_create_is_fenced_too() {
    let folder = Folder::default();
    let mut a = folder.claimed("a").await;
    let mut b = folder.open("b").await;
    let time = folder.time.clone();
    let shared = Folder { store: folder.store.clone(), time };
    // The request is written, and the process is frozen before it is sent.
    a.store.before("log/", move || async move { go_far_and_fold(&shared, &mut b).await }.boxed());
    assert!(is_fenced(&a.reach(1100).await));
}

#[tokio::test]
async fn protocol_11_entries_left_over_by_a_clean_up_that_was_cut_short_prove_nothing_of_those_after_them() {
    let folder = Folder::default();
    let mut a = folder.open("a").await;
    a.log.append(claim(&[0])).await.unwrap();
    let mut b = folder.open("b").await;
    go_far_and_fold(&folder, &mut b).await;
    // An older process, long dead, had written entry 2 for partition 1 only, and the clean-up did not get to it.
    let start = Start { from: Position::at(0), until: None };
    let other = Claim {
        log_id: "born".into(),
        layout: Layout::in_memory(),
        operators: vec![],
        groups: [("events/1".to_string(), start)].into(),
        generation: None,
        member: None,
    };
    let left = Entry { version: VERSION, number: 2, writer: "x".into(), attempt: 1, time: 0, kind: Kind::Claim(other) };
    let path = Path::from(format!("job/log/{:020}.json", 2));
    folder.store.put(&path, serde_json::to_vec(&left).unwrap().into()).await.unwrap();
    let groups = groups(a.state(), 1100);
    let late = Kind::Checkpoint(Box::new(Checkpoint { groups, ..Checkpoint::default() }));
    assert!(is_fenced(&a.log.append(late).await));
}

#[tokio::test]
async fn protocol_11_a_slow_reader_whom_the_clean_up_passes_by_starts_over() {
    let folder = Folder::default();
    let mut a = folder.claimed("a").await;
    a.log.fold().await.unwrap();
    let slow = store::Slow::seeing(&folder.store).await;
    let mut b = folder.open("b").await;
    go_far_and_fold(&folder, &mut b).await;
    let machine = Arc::new(Machine { name: "c", time: folder.time.clone() });
    let settings = LogSettings { retention: RETENTION, fold_every: 100 };
    let c = JobLog::open(Arc::new(slow), Path::from("job"), machine, settings).await.unwrap();
    assert_eq!(c.state().unwrap().position("events/0"), Some(&Position::at(3000)));
}

// 13. Clean-up by listing deletes what is about to be published

#[tokio::test]
async fn protocol_13_clean_up_takes_what_an_entry_dropped_and_nothing_else() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    for name in ["used", "unused", "unnamed"] {
        let path: &'static str = match name {
            "used" => "job/state/used",
            "unused" => "job/state/unused",
            _ => "job/state/unnamed",
        };
        write(&folder.store, path, "keys").await;
    }
    w.publish(1100, "", added("used")).await;
    w.publish(1200, "", added("unused")).await;
    w.publish(1300, "", dropped("unused")).await;
    w.log.fold().await.unwrap();
    assert!(
        names(&folder.store, "state").await.contains(&"unused".into()),
        "one snapshot behind: a reader may need it"
    );
    w.reach(1400).await.unwrap();
    folder.time.pass(RETENTION * 2);
    w.log.fold().await.unwrap();
    assert_eq!(names(&folder.store, "state").await, ["unnamed", "used"], "what no entry named is about to be named");
}

#[tokio::test]
async fn protocol_13_a_clean_up_that_failed_is_done_again_by_the_successor() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    write(&folder.store, "job/state/unused", "keys").await;
    w.publish(1200, "", added("unused")).await;
    w.publish(1300, "", dropped("unused")).await;
    w.log.fold().await.unwrap();
    w.reach(1400).await.unwrap();
    folder.time.pass(RETENTION * 2);
    *w.store.deletes_fail.lock() = true;
    assert!(w.log.fold().await.is_err());
    drop(w);
    let mut b = folder.claimed("b").await;
    b.reach(1500).await.unwrap();
    b.log.fold().await.unwrap();
    b.reach(1600).await.unwrap();
    b.log.fold().await.unwrap();
    assert!(names(&folder.store, "state").await.is_empty(), "the name was not forgotten");
    assert!(!names(&folder.store, "log").await.contains(&format!("{:020}.json", 1)), "nor were the entries");
}

#[tokio::test]
async fn protocol_13_a_fold_whose_snapshot_was_not_written_forgets_nothing() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    write(&folder.store, "job/state/unused", "keys").await;
    w.publish(1200, "", added("unused")).await;
    w.publish(1300, "", dropped("unused")).await;
    w.log.fold().await.unwrap();
    folder.time.pass(RETENTION * 2);
    w.reach(1400).await.unwrap();
    w.store.next("snapshots/", &[Fate::RequestLost]);
    assert!(w.log.fold().await.is_err());
    assert_eq!(
        names(&folder.store, "state").await,
        ["unused"],
        "nothing is deleted that no visible snapshot made superfluous"
    );
    w.reach(1500).await.unwrap();
    w.log.fold().await.unwrap();
    w.reach(1600).await.unwrap();
    w.log.fold().await.unwrap();
    assert!(names(&folder.store, "state").await.is_empty());
}

#[tokio::test]
async fn protocol_13_a_process_that_folds_after_it_was_replaced_takes_nothing_that_its_successor_needs() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    w.reach(1100).await.unwrap();
    w.log.fold().await.unwrap();
    folder.time.pass(RETENTION * 2);
    let mut b = folder.claimed("b").await;
    write(&folder.store, "job/state/of-b", "keys").await;
    b.publish(1200, "", added("of-b")).await;
    let _ = w.log.fold().await;
    drop(b);
    let c = folder.open("c").await;
    assert_eq!(c.state().position("events/0"), Some(&Position::at(1200)));
    assert_eq!(names(&folder.store, "state").await, ["of-b"]);
}

// 8 and 20. All key groups of a process are one unit

#[tokio::test]
async fn protocol_8_a_process_that_lost_one_partition_publishes_none() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let mut b = folder.open("b").await;
    b.log.append(claim(&[1])).await.unwrap();
    let mut only_its_own = groups(w.state(), 1100);
    only_its_own.remove("events/1");
    let left = Kind::Checkpoint(Box::new(Checkpoint { groups: only_its_own, ..Checkpoint::default() }));
    assert!(is_fenced(&w.log.append(left).await));
}

#[tokio::test]
async fn protocol_20_a_process_that_was_replaced_claims_no_new_partition() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let mut b = folder.open("b").await;
    b.log.append(claim(&[0, 1, 2])).await.unwrap();
    assert!(is_fenced(&w.log.append(claim(&[2])).await));
    assert!(b.reach(1100).await.is_ok(), "the rightful owner goes on");
}

#[tokio::test]
async fn protocol_20_a_process_that_claimed_a_topic_without_partitions_is_replaced_like_any_other() {
    let folder = Folder::default();
    let (mut w, mut b) = (folder.open("w").await, folder.open("b").await);
    w.log.append(claim(&[])).await.unwrap();
    b.log.append(claim(&[])).await.unwrap();
    b.log.append(claim(&[0])).await.unwrap();
    b.reach(1100).await.unwrap();
    assert!(is_fenced(&w.log.append(claim(&[0])).await));
    assert!(is_fenced(&w.log.append(Kind::Release { groups: vec![] }).await));
    assert!(b.reach(1200).await.is_ok(), "the rightful owner goes on");
}

// 9. Where nothing fences a sender, it asks

#[tokio::test]
async fn protocol_9_a_process_learns_that_it_was_replaced_when_it_asks_and_a_silent_store_is_no_yes() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    assert!(w.log.confirm().await.unwrap());
    *w.store.gets_fail.lock() = true;
    assert!(!w.log.confirm().await.unwrap(), "nobody knows");
    *w.store.gets_fail.lock() = false;
    assert!(w.log.confirm().await.unwrap());
    let mut b = folder.claimed("b").await;
    assert!(matches!(w.log.confirm().await, Err(JobLogError::Fenced { .. })));
    assert!(b.log.confirm().await.unwrap());
}

// 21 and 23. What waits for a sink

#[tokio::test]
async fn protocol_21_what_an_entry_named_is_kept_until_every_sink_has_it() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let mut checkpoint = Checkpoint { groups: groups(w.state(), 1100), ..Checkpoint::default() };
    checkpoint.sinks = [("serving".into(), vec![json!("rows")]), ("copy".into(), vec![json!("rows")])].into();
    let entry = w.log.append(Kind::Checkpoint(Box::new(checkpoint))).await.unwrap();
    w.log.append(Kind::Committed { committed: vec![Shown { entry, sink: "serving".into() }] }).await.unwrap();
    w.log.fold().await.unwrap();
    folder.time.pass(RETENTION * 2);
    w.reach(1200).await.unwrap();
    w.log.fold().await.unwrap();
    let b = folder.open("b").await;
    assert!(b.state().to_commit("serving").is_empty());
    assert_eq!(b.state().to_commit("copy")[0].tokens, [json!("rows")], "also when its entry is long folded");
}

#[tokio::test]
async fn protocol_23_rows_that_a_commit_left_out_are_a_duty_until_an_entry_carries_them() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let entry = w.publish(1100, "rows", PartChange::default()).await;
    w.log.append(Kind::Rejected(rejected(entry))).await.unwrap();
    w.log.append(Kind::Committed { committed: vec![Shown { entry, sink: "serving".into() }] }).await.unwrap();
    w.log.fold().await.unwrap();
    drop(w);
    let mut b = folder.claimed("b").await;
    assert_eq!(b.state().duties, [rejected(entry)], "who claims inherits it");
    let carried = vec![Shown { entry, sink: "serving".into() }];
    let groups = groups(b.state(), 1200);
    let mut checkpoint = Checkpoint { groups, carried, ..Checkpoint::default() };
    checkpoint.sinks.insert("dead-letter".into(), vec![json!("rejected")]);
    b.log.append(Kind::Checkpoint(Box::new(checkpoint))).await.unwrap();
    assert!(folder.open("c").await.state().duties.is_empty());
}

#[tokio::test]
async fn protocol_23_every_try_of_an_entry_leaves_out_the_same_rows() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let entry = w.publish(1100, "rows", PartChange::default()).await;
    w.log.append(Kind::Rejected(rejected(entry))).await.unwrap();
    let b = folder.open("b").await;
    assert_eq!(b.state().to_commit("serving")[0].excluded, rejected(entry).rows);
}

#[tokio::test]
async fn protocol_23_a_process_that_was_replaced_rejects_nothing() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let entry = w.publish(1100, "rows", PartChange::default()).await;
    let b = folder.claimed("b").await;
    assert!(is_fenced(&w.log.append(Kind::Rejected(rejected(entry))).await));
    assert!(b.state().duties.is_empty());
}

// 25. Positions

#[tokio::test]
async fn protocol_25_a_position_keeps_the_topics_incarnation_and_the_time_of_the_last_record() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let to = Position { offset: 1100, incarnation: Some("q7Xz".into()), last_time: Some(1_763_989_999_000) };
    let mut groups = groups(w.state(), 1100);
    groups.values_mut().for_each(|g| g.to = to.clone());
    w.log.append(Kind::Checkpoint(Box::new(Checkpoint { groups, ..Checkpoint::default() }))).await.unwrap();
    assert_eq!(folder.open("b").await.state().position("events/1"), Some(&to));
}

// 6. What the splits of an operator share

#[tokio::test]
async fn protocol_6_the_clock_that_all_splits_share_stands_where_the_last_entry_that_moved_it_set_it() {
    let folder = Folder::default();
    let mut w = folder.claimed("w").await;
    let reached = |log_time| SplitClock { log_time, ..SplitClock::default() };
    for (offset, clock) in [(1100, Some(reached(1))), (1200, Some(reached(2))), (1300, None)] {
        let clocks = clock.into_iter().map(|clock| (OPERATOR.into(), clock)).collect();
        let moved = Checkpoint { groups: groups(w.state(), offset), clocks, ..Checkpoint::default() };
        w.log.append(Kind::Checkpoint(Box::new(moved))).await.unwrap();
    }
    assert_eq!(folder.open("b").await.state().clocks[OPERATOR], reached(2));
    w.log.fold().await.unwrap();
    assert_eq!(folder.open("b").await.state().clocks[OPERATOR], reached(2), "a snapshot has it too");
}

// The stored forms

#[test]
fn the_oldest_snapshot_and_the_oldest_entry_are_read_and_follow_from_one_another() {
    let mut state: LogState = serde_json::from_str(include_str!("../formats/snapshot-v1.json")).unwrap();
    let entry: Entry = serde_json::from_str(include_str!("../formats/entry-v1.json")).unwrap();
    assert_eq!(state.layout, Layout::in_memory(), "the layout cannot change under a job's state");
    assert_eq!(state.to_commit("serving")[0].excluded[0].reason, "too long");
    state.apply(&entry).unwrap();
    assert_eq!(state.groups["events/0"].start.from.incarnation.as_deref(), Some("q7Xz"));
    assert_eq!(state.groups["events/0"].start.until, Some(900));
    assert!(state.groups["events/1"].finished && state.groups["events/1"].clock.idle);
    assert_eq!(state.parts[OPERATOR].iter().map(|p| p.rows).collect::<Vec<_>>(), [50]);
    assert_eq!(state.uncommitted.keys().collect::<Vec<_>>(), [&7], "entry 6 is shown");
    assert!(state.duties.is_empty());
    assert!(state.clocks.is_empty(), "they came later");
    let again: Entry = serde_json::from_slice(&serde_json::to_vec(&entry).unwrap()).unwrap();
    assert_eq!(again, entry);
}

#[tokio::test]
async fn a_log_of_a_later_version_is_refused_with_what_to_do() {
    let folder = Folder::default();
    let mut entry: Entry = serde_json::from_str(include_str!("../formats/entry-v1.json")).unwrap();
    (entry.number, entry.version, entry.kind) = (1, VERSION + 1, claim(&[0]));
    let path = Path::from(format!("job/log/{:020}.json", 1));
    folder.store.put(&path, serde_json::to_vec(&entry).unwrap().into()).await.unwrap();
    let error = folder.try_open("a").await.err().expect("it is refused");
    assert!(error.to_string().contains("Use a newer millrace"), "{error}");
}

#[tokio::test]
async fn an_entry_that_is_cut_off_is_named() {
    let folder = Folder::default();
    drop(folder.claimed("a").await);
    write(&folder.store, "job/log/00000000000000000002.json", "{\"version\": 1, \"numb").await;
    let error = folder.try_open("b").await.err().expect("it is refused");
    assert!(matches!(error, JobLogError::Unreadable { number: 2, .. }), "{error}");
}
