//! A job, killed again and again, wherever a kill could hurt. In the end every event is in its table, or topic, once.
//!
//! `./crash 1000` kills the main job a thousand times, and `./crash 300 transactions` one that writes a topic,
//! `./crash 300 cosmos` one that writes a container, `./crash 300 sqlserver` a table of SQL Server. What makes it able to fail: each run cuts its epochs elsewhere and
//! spreads the partitions over another number of workers; copies follow their events seconds later, so that kills fall
//! between the two; a third of the runs are killed again while they recover; the job log is folded and cut every few
//! checkpoints.
#![allow(clippy::print_stderr, reason = "a campaign of half an hour shows how far it is")]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use simulator::{Report, Verification};
use tds_double::{Options, Server};

use crate::broker::Broker;
use crate::cosmos_account::{Accident, Account};
use crate::cosmosdb::job_of_solution;
use crate::feed::{Feed, Feeding, Spread};
use crate::kafka_sink;
use crate::millrace::{Job, PATIENCE, Running};
use crate::sqlserver;
use crate::table::verify;
use crate::topic_reader;

const PARTITIONS: u32 = 4;
/// Kills of a place below which a big campaign proves little.
const ENOUGH: usize = 20;
/// Kills from which on every place must have had enough.
const BIG: usize = 600;
/// Kills from which on each place of a commit must have had one: every campaign has been through all places then.
const ALL_ROUND: usize = 60;
/// A run that does not come to its place within this is killed where it is.
const LONGEST_RUN: Duration = Duration::from_secs(20);

/// What a process does once at its start.
const RECOVERY: &[(&str, &[&str])] = &[
    ("before the claim", &["before-claim"]),
    ("after the claim", &["after-claim"]),
    ("recovery", &["before-restore", "after-restore", "during-recovery-commit"]),
];

/// What it does at every checkpoint.
const CHECKPOINT: &[(&str, &[&str])] = &[
    ("cutting", &["before-state-upload", "before-prepare"]),
    ("between prepare and publish", &["between-prepare-and-publish", "before-append"]),
    ("between publish and commit", &["after-append", "between-publish-and-commit", "before-commit"]),
    ("after commit", &["after-commit"]),
    ("folding", &["before-fold", "after-fold", "during-clean-up"]),
];

/// A place where a process may die, by the group that it is counted in.
type Places = &'static [(&'static str, &'static [&'static str])];

/// Where the job's rows go.
#[derive(Clone, Copy)]
struct Target {
    name: &'static str,
    /// What it does at a commit, beside what every sink does.
    steps: Places,
    /// What a table of a topic says, further; all that one of files says.
    options: &'static str,
    /// Events a second, beside which unoptimised builds keep up.
    rate: f64,
}

const TABLE: Target = Target {
    name: "table",
    steps: &[
        ("during commit", &["before-table-entry", "after-table-entry"]),
        ("compaction", &["before-compaction-entry", "after-compaction-entry"]),
    ],
    options: "",
    rate: 200.0,
};
const TRANSACTIONS: Target = Target {
    name: "transactions",
    steps: &[("during commit", kafka_sink::TRANSACTIONS.steps)],
    options: "",
    rate: 200.0,
};
/// Its messages and requests expire within a second, so that a takeover takes three.
const READ_BACK: Target = Target {
    name: "read-back",
    steps: &[("during commit", kafka_sink::READ_BACK.steps)],
    options: kafka_sink::READ_BACK.options,
    rate: 200.0,
};

/// Rows without an id of their own, so that one that is written twice is there twice. Answers get lost on the way.
const COSMOS: Target = Target {
    name: "cosmos",
    steps: &[("during commit", &["before-writing", "while-writing", "after-writing"])],
    options: "",
    // Each event is a request of its own.
    rate: 50.0,
};
/// Its container.
const CONTAINER: &str = "killed";

/// Rows without a key, of two writers. Lines are cut on the way.
const SQL_SERVER: Target = Target {
    name: "sqlserver",
    steps: &[("during commit", &["before-staging", "while-staging", "before-showing", "after-showing"])],
    options: "",
    rate: 200.0,
};

const FILES: Target = Target {
    name: "files",
    steps: &[("during commit", &["before-copy", "after-copy"])],
    options: "connector = 'filesystem', path = '${TABLE}', format = 'json'",
    rate: 200.0,
};
const SINGLE_FILE: Target = Target {
    name: "single-file",
    steps: &[("during commit", &["before-lines", "after-lines", "after-record"])],
    options: "connector = 'single_file', path = '${TABLE}'",
    rate: 200.0,
};

/// What rows go into beside tables and topics.
struct Layers {
    account: Account,
    server: Server,
}

impl Target {
    fn checkpoint(self) -> Vec<(&'static str, &'static [&'static str])> {
        CHECKPOINT.iter().chain(self.steps).copied().collect()
    }

    fn is_of_files(self) -> bool {
        [FILES.name, SINGLE_FILE.name].contains(&self.name)
    }

    fn job(self, broker: &Broker, layers: &Layers, from: &str, to: &str, deduplication: &str) -> Job {
        let servers = broker.bootstrap_servers();
        if self.name == SQL_SERVER.name {
            return sqlserver::job_of_solution(&layers.server, from, deduplication).variable("KAFKA", &servers);
        }
        let account = &layers.account;
        if self.name == COSMOS.name {
            account.container(CONTAINER, "/deviceId", 4, 1_000_000);
            // Not many: for each 503 the client waits a second.
            account.accidents(|write| match write % 300 {
                0 => Accident::AnswerIsLost,
                100 | 101 => Accident::Refused(429),
                200 => Accident::Refused(503),
                _ => Accident::None,
            });
            let changes = [
                ("'deduplicate.within' = '10 minutes'", deduplication),
                ("write     = 'insert'", "write = 'append'"),
                ("SELECT eventId AS id, ", "SELECT "),
            ];
            let job = job_of_solution(account, "akskafka-databricks-cosmosdb", CONTAINER, &changes);
            return job.variable("KAFKA", &servers).variable("TOPIC", from);
        }
        if self.is_of_files() {
            let delta = "connector = 'delta',\n  path      = '${TABLE:-./demo-output/events}'";
            let changes = [("'deduplicate.within'   = '10 minutes'", deduplication), (delta, self.options)];
            return Job::events_to_delta_with(&servers, from, &changes);
        }
        if self.name == TABLE.name {
            let changes = [
                ("'deduplicate.within'   = '10 minutes'", deduplication),
                ("connector = 'delta',", "connector = 'delta', target_file_size = '4 MB',"),
            ];
            return Job::events_to_delta_with(&servers, from, &changes);
        }
        let options = format!("'${{OUTPUT_TOPIC:-out}}'{}", self.options);
        let changes =
            [("'deduplicate.within'   = '10 minutes'", deduplication), ("'${OUTPUT_TOPIC:-out}'", options.as_str())];
        Job::of_solution("hdinsightkafka-flink-hdinsightkafka", &changes)
            .variable("KAFKA", &servers)
            .variable("TOPIC", from)
            .variable("OUTPUT_KAFKA", &servers)
            .variable("OUTPUT_TOPIC", to)
    }

    async fn verify(
        self,
        sent: Verification,
        job: &Job,
        broker: &'static Broker,
        layers: &Layers,
        to: String,
    ) -> Report {
        if self.name == SQL_SERVER.name {
            return topic_reader::verify_rows(sent, sqlserver::events(&layers.server, "[dbo].[shown]"));
        }
        if self.name == COSMOS.name {
            let documents = layers.account.documents(CONTAINER).await;
            return topic_reader::verify_rows(sent, documents.iter().map(Value::to_string));
        }
        if self.is_of_files() {
            return topic_reader::verify_rows(sent, lines(&job.table()).into_iter());
        }
        if self.name == TABLE.name {
            return verify(sent, &job.table()).await;
        }
        let servers = broker.bootstrap_servers();
        tokio::task::spawn_blocking(move || topic_reader::verify(sent, &servers, &to)).await.expect("it can be read")
    }
}

/// Of a file, or of all that are shown in a folder.
fn lines(path: &Path) -> Vec<String> {
    let files: Vec<_> = match path.is_dir() {
        true => path.read_dir().expect("it can be listed").map(|file| file.expect("a file").path()).collect(),
        false => vec![path.into()],
    };
    let files = files.iter().filter(|file| file.is_file());
    let text = |file| std::fs::read_to_string(file).expect("text");
    files.flat_map(|file| text(file).lines().map(String::from).collect::<Vec<_>>()).collect()
}

const AT_RANDOM: &str = "at a random moment";
const STARTING: &str = "at a random moment of a start";

/// Where a process died, and whether it had been started to recover from an earlier kill and was killed before it had.
type Kills = BTreeMap<&'static str, BTreeMap<&'static str, usize>>;

/// How a run shall end.
enum Death {
    /// At the n-th visit of a place.
    At { group: &'static str, point: &'static str, visit: u64 },
    /// By a signal from outside, so long after its start.
    After { group: &'static str, time: Duration },
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_every_step_lose_and_repeat_nothing_in_a_table() {
    fight(TABLE, 24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_every_step_lose_and_repeat_nothing_in_a_topic_with_transactions() {
    fight(TRANSACTIONS, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_every_step_lose_and_repeat_nothing_in_a_topic_without_transactions() {
    fight(READ_BACK, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_every_step_lose_and_repeat_nothing_in_a_container() {
    fight(COSMOS, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_every_step_lose_and_repeat_nothing_in_a_table_of_sql_server() {
    fight(SQL_SERVER, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_every_step_lose_and_repeat_nothing_in_files() {
    fight(FILES, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_every_step_lose_and_repeat_nothing_in_one_file() {
    fight(SINGLE_FILE, 12).await;
}

async fn fight(target: Target, kills: usize) {
    let kills = std::env::var("MILLRACE_KILLS").ok().map_or(kills, |n| n.parse().expect("MILLRACE_KILLS is a number"));
    let seed = std::env::var("MILLRACE_SEED").ok().map_or_else(rand::random, |n| n.parse().expect("a seed"));
    eprintln!("{kills} kills, MILLRACE_SEED={seed}");
    let campaigns = [("global", Spread::Anywhere, kills / 2), ("partition", Spread::ByDevice, kills - kills / 2)];
    let fought = campaigns.map(|(scope, spread, kills)| tokio::spawn(campaign(target, scope, spread, kills, seed)));
    let (mut all, mut reports) = (Kills::new(), vec![]);
    for campaign in fought {
        let (fallen, report) = campaign.await.expect("a campaign comes to its end");
        for (group, points) in fallen {
            for (point, count) in points {
                *all.entry(group).or_default().entry(point).or_default() += count;
            }
        }
        reports.push(report);
    }
    eprintln!("{}\n{}", target.name, show(target, &all));
    for report in reports {
        assert!(report.holds(), "MILLRACE_SEED={seed}\n{report}");
        assert!(report.copies > 0 && report.sent > 0, "{report}");
    }
    let of_commit = target.steps.iter().filter(|(group, _)| *group == "during commit");
    let died = |point: &str| all.values().any(|points| points.contains_key(point));
    let never: Vec<_> = of_commit.flat_map(|(_, points)| *points).filter(|point| !died(point)).collect();
    assert!(kills < ALL_ROUND || never.is_empty(), "no kills at {never:?}");
    let seldom: Vec<_> =
        RECOVERY.iter().chain(&target.checkpoint()).map(|(g, _)| *g).filter(|g| count(&all, g) < ENOUGH).collect();
    assert!(kills < BIG || seldom.is_empty(), "fewer than {ENOUGH} kills: {seldom:?}");
}

/// One job and one long feed; kills, then a last run to the end.
async fn campaign(target: Target, scope: &'static str, spread: Spread, kills: usize, seed: u64) -> (Kills, Report) {
    let mut random = StdRng::seed_from_u64(seed ^ spread as u64);
    let broker = tokio::task::spawn_blocking(Broker::shared).await.expect("the broker starts");
    let topic = broker.topic(&format!("kills-{}-{scope}", target.name), PARTITIONS as i32).await;
    let output = broker.topic(&format!("killed-{}-{scope}", target.name), 3).await;
    let feeding = Feeding {
        rate: target.rate,
        duplicate_every: 3,
        copies_within: Duration::from_secs(5),
        spread,
        partitions: PARTITIONS,
        seed,
    };
    let options = format!("'deduplicate.within' = '30 seconds', 'deduplicate.scope' = '{scope}'");
    let layers = Layers { account: Account::start(false).await, server: Server::start(Options::default()).await };
    let job = target.job(broker, &layers, &topic, &output, &options);
    let feed = Feed::start(&topic, &broker.properties(), feeding);
    let fight = move || {
        let mut fallen = Kills::new();
        let begun = Instant::now();
        let mut deaths = vec![];
        for kill in 1..=kills {
            let death = deaths.pop().unwrap_or_else(|| {
                deaths = round(target, &mut random);
                deaths.pop().expect("a round has deaths")
            });
            let (group, point) = run_until_dead(&job, &death, &mut random);
            *fallen.entry(group).or_default().entry(point).or_default() += 1;
            if kill % 10 == 0 {
                eprintln!(
                    "{} {scope}: {kill} of {kills} kills, {} messages, {:.0?}",
                    target.name,
                    feed.sent(),
                    begun.elapsed()
                );
            }
        }
        let sent = feed.finish();
        run_to_the_end(&job);
        (fallen, sent, job)
    };
    let (fallen, sent, job) = tokio::task::spawn_blocking(fight).await.expect("the kills go on to their end");
    let report = target.verify(sent, &job, broker, &layers, output).await;
    (fallen, report)
}

/// Every place once, in another order each time, and a second death in the recovery after a third of them. The last
/// element dies first.
fn round(target: Target, random: &mut StdRng) -> Vec<Death> {
    let places = |of: &[(&'static str, &'static [&'static str])]| {
        of.iter().flat_map(|(group, points)| points.iter().map(|point| (*group, *point))).collect::<Vec<_>>()
    };
    let mut deaths = vec![];
    let mut first = places(&target.checkpoint());
    first.extend([(AT_RANDOM, AT_RANDOM); 4]);
    first.shuffle(random);
    let mut again = places(RECOVERY);
    again.extend([(STARTING, STARTING); 2]);
    again.shuffle(random);
    for (group, point) in first {
        let visit = if ["folding", "compaction"].contains(&group) { 1 } else { random.random_range(1..=5) };
        if point == AT_RANDOM {
            let time = Duration::from_millis(random.random_range(300..3000));
            deaths.push(Death::After { group, time });
        } else {
            deaths.push(Death::At { group, point, visit });
        }
        // A commit in recovery needs something published and not shown.
        let unshown = [
            "after-append",
            "between-publish-and-commit",
            "before-commit",
            "before-table-entry",
            "before-transaction",
            "within-transaction",
            "before-sending",
            "while-sending",
            "before-writing",
            "while-writing",
            "before-staging",
            "while-staging",
            "before-showing",
            "before-copy",
            "before-lines",
        ];
        let next = if unshown.contains(&point) && random.random_bool(0.5) {
            Some(("recovery", "during-recovery-commit"))
        } else if random.random_bool(1.0 / 3.0) {
            again.pop().filter(|(_, point)| *point != "during-recovery-commit")
        } else {
            None
        };
        match next {
            Some((group, STARTING)) => {
                let time = Duration::from_millis(random.random_range(0..1000));
                deaths.push(Death::After { group, time });
            }
            Some((group, point)) => deaths.push(Death::At { group, point, visit: 1 }),
            None => {}
        }
    }
    deaths.reverse();
    deaths
}

/// Starts the job with other epochs and another number of workers, and returns where it died.
fn run_until_dead(job: &Job, death: &Death, random: &mut StdRng) -> (&'static str, &'static str) {
    let interval = match death {
        // Only every so many versions of the table are looked at for small files.
        Death::At { group: "compaction", .. } => 50,
        _ => random.random_range(50..400),
    };
    let (interval, workers) = (format!("{interval}ms"), random.random_range(1..=3).to_string());
    let arguments = ["--checkpoint-interval", &interval, "--parallelism", &workers];
    match death {
        Death::After { group, time } => {
            let mut running = job_run(job, None, &arguments);
            if let Some(status) = running.wait_at_most(*time) {
                panic!("ended by itself with {status}:\n{}", running.said());
            }
            running.kill();
            (*group, *group)
        }
        Death::At { group, point, visit } => {
            let mut running = job_run(job, Some(format!("{point}:{visit}")), &arguments);
            match running.wait_at_most(LONGEST_RUN) {
                Some(status) if status.signal() == Some(libc::SIGKILL) => (*group, *point),
                Some(status) => panic!("ended by itself with {status}:\n{}", running.said()),
                None => {
                    running.kill();
                    (AT_RANDOM, AT_RANDOM)
                }
            }
        }
    }
}

fn job_run(job: &Job, crash: Option<String>, arguments: &[&str]) -> Running {
    let mut all = vec!["--fold-every", "7", "--log-retention", "2s"];
    all.extend(arguments);
    let crash = crash.unwrap_or_default();
    job.start_with(&[("MILLRACE_CRASH", &crash)], &all)
}

fn run_to_the_end(job: &Job) {
    let mut last = job_run(job, None, &["--checkpoint-interval", "200ms"]);
    last.wait_until_idle(PARTITIONS as usize);
    last.terminate();
    assert_eq!(last.wait().code(), Some(0), "{PATIENCE:?} were not enough, or:\n{}", last.said());
}

fn count(kills: &Kills, group: &str) -> usize {
    kills.get(group).map_or(0, |points| points.values().sum())
}

/// Where the kills fell.
fn show(target: Target, kills: &Kills) -> String {
    let mut table = format!("{:<32}{:>6}\n", "killed", "times");
    let groups = RECOVERY.iter().copied().chain(target.checkpoint());
    for (group, points) in groups.chain([(AT_RANDOM, &[][..]), (STARTING, &[][..])]) {
        table += &format!("{group:<32}{:>6}\n", count(kills, group));
        for point in points {
            let times = kills.get(group).and_then(|g| g.get(point)).copied().unwrap_or(0);
            table += &format!("    {point:<28}{times:>6}\n");
        }
    }
    table + &format!("{:<32}{:>6}\n", "in all", kills.values().flat_map(|g| g.values()).sum::<usize>())
}
