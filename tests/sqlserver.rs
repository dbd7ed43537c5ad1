//! Rows into a table of SQL Server, each once, by any way of writing them.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tds_double::{Accident, Options, Server, Step};

use crate::broker::Broker;
use crate::certificates::Certificates;
use crate::kafka_login::{TokenService, token_head};
use crate::millrace::{FENCED, Job, PATIENCE};
use crate::numbers::{all, more, send};
use crate::sql_database::Database;
use crate::table::python;
use crate::trouble::dead_letters;
use crate::wait::wait_for;

/// A way to write, and what its rows are like.
struct Way {
    /// The word, and further options of the job's table.
    write: &'static str,
    /// What the job's table has after its columns.
    key: &'static str,
    /// What the server's table has.
    table: &'static str,
}

const APPEND: Way = Way { write: "append", key: "", table: "[n] bigint NOT NULL, [part] int NOT NULL" };
const INSERT: Way =
    Way { write: "insert", key: ", PRIMARY KEY (n)", table: "[n] bigint NOT NULL PRIMARY KEY, [part] int NOT NULL" };
const UPSERT: Way = Way { write: "upsert", ..INSERT };
const NEWER: Way = Way { write: "upsert', version_field = 'part", ..INSERT };
/// Several writers, each with the keys of its own parts.
const DIVIDED: &str = ", PRIMARY KEY (n, part)) PARTITIONED BY (part";
const OF_PARTS: &str = "[n] bigint NOT NULL, [part] int NOT NULL, PRIMARY KEY ([n], [part])";
const INSERT_BY_PART: Way = Way { write: "insert', writers = '3", key: DIVIDED, table: OF_PARTS };
const UPSERT_BY_PART: Way = Way { write: "upsert', writers = '3", ..INSERT_BY_PART };
const WAYS: [Way; 4] = [APPEND, INSERT, UPSERT, NEWER];

/// Where a process may die that commits.
pub const STEPS: [&str; 6] =
    ["before-staging", "while-staging", "before-showing", "after-showing", "before-commit", "after-commit"];

/// A moment in which a job would have written something.
const A_MOMENT: Duration = Duration::from_secs(2);

/// A database whose table is made for a way of writing.
async fn database(way: &Way) -> Database {
    with_table(Database::start().await, way)
}

/// One that has accidents and tells what it was asked.
async fn double(way: &Way) -> Database {
    with_table(Database::Double(Server::start(Options::default()).await), way)
}

fn with_table(database: Database, way: &Way) -> Database {
    database.run(&format!("CREATE TABLE [dbo].[shown] ({});", way.table));
    database
}

/// Numbers from a topic into the table.
fn numbers(broker: &Broker, topic: &str, database: &Database, way: &Way) -> Job {
    numbers_with(broker, topic, database, way, "")
}

/// The same, with further options.
fn numbers_with(broker: &Broker, topic: &str, database: &Database, way: &Way, further: &str) -> Job {
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("table", "shown"));
    let Way { write, key, .. } = way;
    Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{topic}', format = 'json');
         CREATE TABLE shown (n BIGINT, part INT{key}) WITH ({connection}, write = '{write}'{further});
         INSERT INTO shown SELECT n, CAST(n % 7 AS INT) FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms")
}

/// Lines are cut now and then.
pub fn cut_lines(server: &Server) {
    let steps = AtomicU64::new(0);
    server.accidents(move |step| {
        if !matches!(step, Step::Batch(_) | Step::Rpc(_)) {
            return Accident::None;
        }
        match steps.fetch_add(1, Ordering::Relaxed) % 60 {
            20 => Accident::CloseBefore,
            40 => Accident::CloseAfter,
            59 => Accident::CloseWithin,
            _ => Accident::None,
        }
    });
}

/// The job of a solution, into a table without a key, so that a row that is written twice is there twice. Lines are cut now and then.
pub fn job_of_solution(server: &Server, topic: &str, deduplication: &str) -> Job {
    server.run(
        "CREATE TABLE [dbo].[shown] ([EventId] uniqueidentifier NOT NULL, [PartitionId] int NOT NULL, [Type] varchar(10) NOT NULL,
           [DeviceId] varchar(100) NOT NULL, [DeviceSequenceNumber] bigint NOT NULL, [CreatedAt] datetime2(7) NOT NULL,
           [Value] float NOT NULL, [ComplexData] nvarchar(max) NOT NULL CHECK (ISJSON([ComplexData]) = 1),
           [EnqueuedAt] datetime2(7) NOT NULL, [ProcessedAt] datetime2(7) NOT NULL,
           [StoredAt] datetime2(7) NOT NULL DEFAULT SYSUTCDATETIME());",
    );
    cut_lines(server);
    let connection = format!(
        "connector = 'sqlserver', connection_string = '{}', \"table\" = 'shown', write = 'append', writers = '2'",
        server.connection_string()
    );
    let source = "connector = 'kafka', bootstrap_servers = '${KAFKA}',";
    let changes = [
        ("'deduplicate.within' = '10 minutes'", deduplication),
        ("connector            = 'eventhubs',", source),
        ("  connection_string    = '${EVENTHUB}',\n", ""),
        (", PRIMARY KEY (EventId, PartitionId)", ""),
        ("  connector = 'sqlserver',\n", ""),
        ("  server    = '${AZURESQL_SERVER}',\n", &connection),
        ("  database  = '${AZURESQL_DATABASE:-streaming}',\n", ""),
        ("  \"table\"   = '${AZURESQL_TABLE:-dbo.rawdata}',\n", ""),
        ("  write     = 'insert',\n", ""),
        ("  writers   = '${AZURESQL_WRITERS:-4}'\n", ""),
    ];
    Job::of_solution("eventhubs-databricks-azuresql", &changes).variable("TOPIC", topic)
}

/// The events in a table, as they were sent.
pub fn events(server: &Server, table: &str) -> impl Iterator<Item = String> {
    let columns = "[EventId], [Type], [DeviceId], [DeviceSequenceNumber], [CreatedAt], [Value], [ComplexData]";
    let rows = server.query(&format!("SELECT {columns} FROM {table}"));
    let event = |row: Vec<Option<String>>| {
        let [id, of, device, number, created, value, complex] =
            <[Option<String>; 7]>::try_from(row).expect("seven columns");
        let text = |value: Option<String>| value.expect("a value");
        let of_json = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
        serde_json::json!({
            "eventId": text(id), "type": text(of), "deviceId": text(device), "deviceSequenceNumber": of_json(text(number)),
            "createdAt": format!("{}Z", text(created).replace(' ', "T")), "value": of_json(text(value)),
            "complexData": of_json(text(complex)),
        })
        .to_string()
    };
    rows.into_iter().map(event)
}

fn shown(database: &Database) -> Vec<u64> {
    let rows = database.query("SELECT [n] FROM [dbo].[shown]");
    let number = |row: &Vec<Option<String>>| row[0].as_ref().and_then(|n| n.parse().ok()).expect("a number");
    let mut numbers: Vec<u64> = rows.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// What went to the dead letter, as text.
pub fn letters(job: &Job) -> Vec<String> {
    let folder = job.state().join("dead-letter");
    if folder.exists() { dead_letters(&folder).iter().map(Value::to_string).collect() } else { vec![] }
}

/// Everything that is said to a server, or that people run there, is T-SQL to a parser that is not ours; and each statement names the
/// page that documents it.
#[test]
fn all_that_is_said_to_a_server_is_read_by_others() {
    let parse = Command::new(python())
        .args(["tests/sqlserver_statements.py", "connectors/sqlserver/statements.sql"])
        .args(["jobs/azuresql/provision.sql", "jobs/azuresql/verify.sql"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("Python starts");
    assert!(
        parse.status.success(),
        "{}{}",
        String::from_utf8_lossy(&parse.stdout),
        String::from_utf8_lossy(&parse.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_table_once_after_stops_and_restarts_whatever_the_way() {
    let broker = Broker::shared();
    for (index, way) in WAYS.iter().enumerate() {
        let database = database(way).await;
        let from = broker.topic(&format!("sql-from-{index}"), 2).await;
        let job = numbers(broker, &from, &database, way);
        for part in 0..2 {
            send(&broker.properties(), &from, part * 500..(part + 1) * 500, 0..2);
            job.start().read_all_and_stop(2);
        }
        assert_eq!(shown(&database), all(0..1000), "{}", way.write);
        assert_eq!(database.violations(), [""; 0]);
    }
}

async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing(name: &str, way: &Way, further: &str) {
    let (broker, database) = (Broker::shared(), database(way).await);
    let from = broker.topic(&format!("sql-killed-{name}"), 2).await;
    let job = numbers_with(broker, &from, &database, way, further);
    let properties = broker.properties();
    let mut send_more = more(&properties, &from, 0);
    job.dies_at_each(&STEPS, &mut send_more);
    let sent = send_more();
    job.start().read_all_and_stop(2);
    assert_eq!(shown(&database), all(0..sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_that_is_appended() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing("append", &APPEND, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_and_repeats_nothing_of_several_writers() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing("lanes", &APPEND, ", writers = '3'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_nothing_that_several_writers_insert() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing("insert", &INSERT_BY_PART, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_loses_nothing_that_several_writers_upsert() {
    a_process_that_dies_at_any_step_loses_and_repeats_nothing("upsert", &UPSERT_BY_PART, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_frozen_and_superseded_adds_nothing_and_holds_nobody_up() {
    let (broker, database) = (Broker::shared(), database(&APPEND).await);
    let from = broker.topic("sql-frozen", 2).await;
    let job = numbers(broker, &from, &database, &APPEND);
    let mut sent = 0;
    for step in ["while-staging", "before-showing", "after-showing"] {
        send(&broker.properties(), &from, sent..sent + 100, 0..2);
        let mut sleeper = job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1:freeze"))], &[]);
        sleeper.wait_until_frozen();
        let mut successor = job.start();
        successor.wait_until_idle(2);
        send(&broker.properties(), &from, sent + 100..sent + 200, 0..2);
        sent += 200;
        successor.wait_until_read(100);
        // Rows of both are there while the other still sleeps, so it holds no lock.
        wait_for("the rows of both", PATIENCE, || (shown(&database) == all(0..sent)).then_some(()));
        sleeper.thaw();
        assert_eq!(sleeper.wait().code(), Some(FENCED), "{step}\n{}", sleeper.said());
        successor.stop();
    }
    assert_eq!(shown(&database), all(0..sent));
}

/// All rows have one key, so the last one is what is seen.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_7_a_process_that_is_superseded_brings_no_older_row_back_when_it_wakes() {
    let (broker, database) = (Broker::shared(), database(&UPSERT).await);
    let from = broker.topic("sql-older", 1).await;
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("table", "latest"));
    database.run("CREATE TABLE [dbo].[latest] ([n] bigint NOT NULL, [one] int NOT NULL PRIMARY KEY);");
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, one INT PRIMARY KEY) WITH ({connection}, write = 'upsert');
         INSERT INTO shown SELECT n, CAST(1 AS INT) FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms");
    let latest = || database.query("SELECT [n] FROM [dbo].[latest]");
    send(&broker.properties(), &from, 0..100, 0..1);
    let mut sleeper = job.start_with(&[("MILLRACE_CRASH", "before-showing:1:freeze")], &[]);
    sleeper.wait_until_frozen();
    let mut successor = job.start();
    successor.wait_until_idle(1);
    send(&broker.properties(), &from, 100..200, 0..1);
    wait_for("the last row", PATIENCE, || (latest() == [[Some("199".to_string())]]).then_some(()));
    sleeper.thaw();
    assert_eq!(sleeper.wait().code(), Some(FENCED), "{}", sleeper.said());
    successor.stop();
    assert_eq!(latest(), [[Some("199".to_string())]]);
}

/// A marker is never added again: without it, nobody knows which rows are there.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_18_a_marker_that_is_gone_stops_the_job_and_writes_nothing_twice() {
    let (broker, database) = (Broker::shared(), database(&APPEND).await);
    let from = broker.topic("sql-marker", 1).await;
    let job = numbers(broker, &from, &database, &APPEND);
    send(&broker.properties(), &from, 0..100, 0..1);
    job.start_with(&[("MILLRACE_CRASH", "after-showing:1")], &[]).wait();
    database.run("DELETE [m] FROM [dbo].[millrace_commits] AS [m] WHERE EXISTS (SELECT 1 FROM [dbo].[shown] AS [s] WHERE [s].[n] = 0);");
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("the marker of writer"), "{}", run.said());
    assert_eq!(shown(&database), all(0..100));
}

/// The second process commits entries of the first together with others than the first did.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_18_a_commit_that_was_done_is_not_done_again_with_more_entries() {
    let (broker, database) = (Broker::shared(), database(&APPEND).await);
    let from = broker.topic("sql-together", 1).await;
    // Each entry is a transaction of its own at first.
    let job = numbers_with(broker, &from, &database, &APPEND, ", commit_rows = '1'");
    send(&broker.properties(), &from, 0..100, 0..1);
    let mut run = job.start_with(&[("MILLRACE_CRASH", "after-showing:3")], &[]);
    let mut sent = 100;
    while run.wait_at_most(Duration::from_millis(100)).is_none() {
        send(&broker.properties(), &from, sent..sent + 10, 0..1);
        sent += 10;
    }
    let text = std::fs::read_to_string(job.folder().join("test.sql")).expect("the job's file");
    std::fs::write(job.folder().join("test.sql"), text.replace("commit_rows = '1'", "commit_rows = '100000'"))
        .expect("a file");
    job.start().read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..sent));
}

/// The process that shows them divides rows otherwise and has its columns in another order.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_are_shown_as_they_were_staged_when_the_job_is_another() {
    let (broker, database) = (Broker::shared(), database(&APPEND).await);
    let from = broker.topic("sql-changed", 1).await;
    let job = numbers_with(broker, &from, &database, &APPEND, ", writers = '3'");
    send(&broker.properties(), &from, 0..100, 0..1);
    // One of the three has shown its share.
    job.start_with(&[("MILLRACE_CRASH", "after-showing:1")], &[]).wait();
    let file = job.folder().join("test.sql");
    let mut text = std::fs::read_to_string(&file).expect("the job's file");
    for (was, is) in [
        ("writers = '3'", "writers = '2'"),
        ("(n BIGINT, part INT)", "(part INT, n BIGINT) PARTITIONED BY (part)"),
        ("SELECT n, CAST(n % 7 AS INT)", "SELECT CAST(n % 7 AS INT), n"),
    ] {
        assert!(text.contains(was), "{text}");
        text = text.replace(was, is);
    }
    std::fs::write(&file, text).expect("the job's file");
    send(&broker.properties(), &from, 100..200, 0..1);
    job.start().read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..200));
}

/// At every step of the protocol the line is cut: before the server does something, or after it did and before it says so.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_cut_at_any_step_lose_and_repeat_nothing() {
    let broker = Broker::shared();
    for (index, way) in WAYS.iter().enumerate() {
        let database = double(way).await;
        let from = broker.topic(&format!("sql-cut-{index}"), 2).await;
        send(&broker.properties(), &from, 0..300, 0..2);
        let steps = AtomicU64::new(0);
        database.server().accidents(move |step| {
            if matches!(step, Step::Connect | Step::Prelogin) {
                return Accident::None;
            }
            // So far apart that a session can be opened in between.
            match steps.fetch_add(1, Ordering::Relaxed) % 47 {
                3 => Accident::CloseBefore,
                15 => Accident::CloseAfter,
                27 => Accident::CloseWithin,
                39 => Accident::Refuse { number: 40501, class: 16, message: "The service is currently busy.".into() },
                _ => Accident::None,
            }
        });
        let job = numbers(broker, &from, &database, way);
        let mut run = job.start();
        run.wait_until_idle(2);
        for part in 1..6 {
            send(&broker.properties(), &from, part * 300..(part + 1) * 300, 0..2);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        run.wait_until_idle(2);
        run.wait_until_shown();
        run.stop();
        assert_eq!(shown(&database), all(0..1800), "{}", way.write);
        assert_eq!(letters(&job), [""; 0]);
        assert_eq!(database.violations(), [""; 0]);
    }
}

/// A step as one who watches the line sees it.
type Seen = fn(&Step) -> bool;

/// What a session does from its beginning, and what it does at each commit.
const OPENING: [(&str, Seen); 3] = [
    ("the login", |step| matches!(step, Step::Login)),
    ("the settings", |step| matches!(step, Step::Batch(text) if text.starts_with("SET XACT_ABORT"))),
    ("the table for rows", |step| matches!(step, Step::Batch(text) if text.starts_with("CREATE TABLE #millrace"))),
];
const COMMITTING: [(&str, Seen); 6] = [
    ("a look at the marker", |step| matches!(step, Step::Rpc(text) if text.contains("SELECT [entry]"))),
    ("that it is emptied", |step| matches!(step, Step::Batch(text) if text.starts_with("TRUNCATE TABLE #millrace"))),
    ("the columns of the rows", |step| matches!(step, Step::Batch(text) if text.starts_with("SELECT TOP 0"))),
    ("that rows come", |step| matches!(step, Step::Batch(text) if text.starts_with("INSERT BULK"))),
    ("the rows", |step| matches!(step, Step::Bulk { .. })),
    ("that they are shown", |step| matches!(step, Step::Batch(text) if text.contains("COMMIT TRANSACTION"))),
];

/// Each step of a commit, with each thing that can happen to it: once, and then the job goes on.
#[tokio::test(flavor = "multi_thread")]
async fn each_accident_at_each_step_of_a_commit_loses_and_repeats_nothing() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-accidents", 1).await;
    let job = numbers(broker, &from, &database, &APPEND);
    let mut run = job.start();
    let busy = Accident::Refuse { number: 40501, class: 16, message: "The service is currently busy.".into() };
    let accidents = [Accident::CloseBefore, Accident::CloseAfter, Accident::CloseWithin, busy];
    let armed: Arc<Mutex<Option<(Seen, Accident)>>> = Arc::default();
    let next = armed.clone();
    database.server().accidents(move |step| {
        let mut next = next.lock().expect("no test panics with it");
        next.take_if(|(seen, _)| seen(step)).map_or(Accident::None, |(_, accident)| accident)
    });
    let mut sent = 0;
    let mut show_ten_more = |what: &str| {
        send(&broker.properties(), &from, sent..sent + 10, 0..1);
        sent += 10;
        wait_for(what, PATIENCE, || (shown(&database) == all(0..sent)).then_some(()));
    };
    // A session is there.
    (0..2).for_each(|_| show_ten_more("rows"));
    let begins_anew = OPENING.map(|step| (true, step)).into_iter();
    for (anew, (name, seen)) in begins_anew.chain(COMMITTING.map(|step| (false, step))) {
        for accident in &accidents {
            if anew {
                database.server().close_all();
            }
            *armed.lock().expect("no test panics with it") = Some((seen, accident.clone()));
            let what = format!("rows after {accident:?} at {name}");
            show_ten_more(&what);
            assert!(armed.lock().expect("no test panics with it").is_none(), "it never came to {what}");
        }
    }
    assert_eq!(run.metric("sink_requests_throttled_total"), Some((OPENING.len() + COMMITTING.len()) as f64));
    run.stop();
    assert_eq!(letters(&job), [""; 0]);
    assert_eq!(database.violations(), [""; 0]);
}

/// The connection, what is agreed on, and the handshake of TLS, which the server leaves in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_before_there_is_a_session_is_opened_again() {
    let (broker, certificates) = (Broker::shared(), Certificates::new());
    let tls = Some(certificates.of_server("broker"));
    let server = Server::start(Options { tls, require_encryption: true, ..Options::default() }).await;
    let database = with_table(Database::Double(server), &APPEND);
    let from = broker.topic("sql-handshake", 1).await;
    let trusted = format!(", ca_location = '{}'", certificates.file("ca.crt"));
    let job = numbers_with(broker, &from, &database, &APPEND, &trusted);
    let armed: Arc<Mutex<Option<(Step, Accident)>>> = Arc::default();
    let next = armed.clone();
    database.server().accidents(move |step| {
        let mut next = next.lock().expect("no test panics with it");
        next.take_if(|(at, _)| at == step).map_or(Accident::None, |(_, accident)| accident)
    });
    let mut run = job.start();
    let cuts = [
        (Step::Connect, Accident::CloseBefore),
        (Step::Prelogin, Accident::CloseBefore),
        (Step::Prelogin, Accident::CloseAfter),
    ];
    for (sent, cut) in (0..).step_by(10).zip(cuts) {
        *armed.lock().expect("no test panics with it") = Some(cut.clone());
        database.server().close_all();
        send(&broker.properties(), &from, sent..sent + 10, 0..1);
        wait_for("rows", PATIENCE, || (shown(&database) == all(0..sent + 10)).then_some(()));
        assert!(armed.lock().expect("no test panics with it").is_none(), "it never came to {cut:?}");
    }
    run.stop();
    assert_eq!(database.violations(), [""; 0]);
}

/// What docs/connectors.md says of costs.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_takes_six_round_trips_of_each_writer() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-costs", 1).await;
    let (trips, shows) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (all_trips, all_shows) = (trips.clone(), shows.clone());
    database.server().accidents(move |step| {
        if let Step::Batch(_) | Step::Rpc(_) | Step::Bulk { .. } = step {
            all_trips.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(step, Step::Batch(text) if text.contains("COMMIT TRANSACTION")) {
            all_shows.fetch_add(1, Ordering::Relaxed);
        }
        Accident::None
    });
    let job = numbers_with(broker, &from, &database, &APPEND, ", writers = '2'");
    let mut run = job.start();
    let mut so_far = [0, 0];
    for (part, first) in [(0, true), (1, false), (2, false)] {
        send(&broker.properties(), &from, part * 100..(part + 1) * 100, 0..1);
        wait_for("rows", PATIENCE, || (shown(&database) == all(0..(part + 1) * 100)).then_some(()));
        run.wait_until_shown();
        let now = [&trips, &shows].map(|count| count.load(Ordering::Relaxed));
        let [trips, shows] = [now[0] - so_far[0], now[1] - so_far[1]];
        assert!(shows >= 2 && shows % 2 == 0, "{shows}");
        assert!(first || trips == 6 * shows, "{trips} round trips for {shows} of writers");
        so_far = now;
    }
    run.stop();
}

/// The marker decides: the rows are there, and no one says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_done_and_never_answered_is_not_done_again() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-answerless", 1).await;
    let silent = Arc::new(AtomicU64::new(0));
    let counted = silent.clone();
    database.server().accidents(move |step| match step {
        Step::Batch(text) if text.contains("COMMIT TRANSACTION") && counted.fetch_add(1, Ordering::Relaxed) < 2 => {
            Accident::Answerless
        }
        _ => Accident::None,
    });
    let job = numbers_with(broker, &from, &database, &APPEND, ", statement_timeout = '1 s'");
    send(&broker.properties(), &from, 0..100, 0..1);
    let mut run = job.start();
    wait_for("rows", PATIENCE, || (shown(&database) == all(0..100)).then_some(()));
    send(&broker.properties(), &from, 100..200, 0..1);
    run.read_all_and_stop(1);
    assert!(run.said().contains("statement_timeout"), "{}", run.said());
    assert!(silent.load(Ordering::Relaxed) >= 2, "there were such commits");
    assert_eq!(shown(&database), all(0..200));
    assert_eq!(letters(&job), [""; 0]);
}

/// That a marker is there already says nothing of a row: neither where it was added and the answer lost, nor where a commit fails for it.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_18_a_marker_that_is_there_twice_over_sends_no_row_to_the_dead_letter() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-marker-twice", 1).await;
    let (lost, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    database.server().accidents(move |step| match step {
        Step::Rpc(text) if text.contains("INSERT INTO [dbo].[millrace_commits]") => {
            if lost.fetch_add(1, Ordering::Relaxed) == 0 { Accident::CloseAfter } else { Accident::None }
        }
        Step::Batch(text) if text.contains("COMMIT TRANSACTION") && failed.fetch_add(1, Ordering::Relaxed) < 2 => {
            let message = "Violation of PRIMARY KEY constraint 'PK__millrace_'. Cannot insert duplicate key in object \
                           'dbo.millrace_commits'.";
            Accident::Refuse { number: 2627, class: 14, message: message.into() }
        }
        _ => Accident::None,
    });
    send(&broker.properties(), &from, 0..100, 0..1);
    let job = numbers(broker, &from, &database, &APPEND);
    let mut run = job.start();
    run.read_all_and_stop(1);
    assert!(run.said().contains("the server refused rows, and takes them now"), "{}", run.said());
    assert_eq!(shown(&database), all(0..100));
    assert_eq!(letters(&job), [""; 0]);
    assert_eq!(database.query("SELECT [lane] FROM [dbo].[millrace_commits]").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_waited_for() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-away", 1).await;
    let job = numbers(broker, &from, &database, &APPEND);
    let mut run = job.start();
    run.wait_until_idle(1);
    let back = Arc::new(AtomicBool::new(false));
    let is_back = back.clone();
    database
        .server()
        .accidents(move |_| if is_back.load(Ordering::Relaxed) { Accident::None } else { Accident::CloseBefore });
    database.server().close_all();
    send(&broker.properties(), &from, 0..100, 0..1);
    wait_for("the trouble, in the metrics", PATIENCE, || (run.metric("sink_in_trouble")? == 1.0).then_some(()));
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(shown(&database), [0; 0]);
    back.store(true, Ordering::Relaxed);
    wait_for("its end, in the metrics", PATIENCE, || (run.metric("sink_in_trouble")? == 0.0).then_some(()));
    run.read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_when_a_job_starts_is_waited_for_unless_a_time_is_stated() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-away-at-start", 1).await;
    send(&broker.properties(), &from, 0..100, 0..1);
    let back = Arc::new(AtomicBool::new(false));
    let is_back = back.clone();
    database
        .server()
        .accidents(move |_| if is_back.load(Ordering::Relaxed) { Accident::None } else { Accident::CloseBefore });
    let hasty = numbers_with(broker, &from, &database, &APPEND, ", give_up_after = '1 second'");
    let mut run = hasty.start();
    assert!(!run.wait().success());
    let said = run.said();
    assert!(said.contains("It could not be opened for 1s, which give_up_after bounds"), "{said}");
    let patient = numbers(broker, &from, &database, &APPEND);
    let mut run = patient.start();
    run.wait_until_it_says("not open yet; trying again");
    back.store(true, Ordering::Relaxed);
    run.read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_no_row_goes_to_the_dead_letter_and_its_neighbours_into_the_table() {
    let (broker, database) = (Broker::shared(), Database::start().await);
    let from = broker.topic("sql-refused", 1).await;
    database.run(
        "CREATE TABLE [dbo].[shown] ([n] bigint NOT NULL, [short] nvarchar(5) NULL, [small] tinyint NULL, [id] uniqueidentifier NULL, [latin] varchar(10) NULL,
           [once] int NOT NULL CONSTRAINT [uq_once] UNIQUE, [even] int NULL, CONSTRAINT [ck_even] CHECK ([even] >= 0));",
    );
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("table", "shown"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, short TEXT, small INT, id TEXT, latin TEXT, once INT, even INT) WITH ({connection});
         INSERT INTO shown SELECT n,
           CASE WHEN n = 3 THEN 'too long' ELSE 'short' END,
           CAST(CASE WHEN n = 5 THEN 256 ELSE n END AS INT),
           CASE WHEN n = 6 THEN 'no uuid' ELSE '6f9619ff-8b86-d011-b42d-00c04fc964f' || n END,
           CASE WHEN n = 4 THEN '日本' ELSE 'é' END,
           CAST(CASE WHEN n = 7 THEN NULL WHEN n = 8 THEN 1 ELSE n END AS INT),
           CAST(CASE WHEN n = 2 THEN -1 WHEN n = 9 THEN -1 ELSE 0 END AS INT)
         FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms");
    send(&broker.properties(), &from, 0..10, 0..1);
    let mut run = job.start();
    wait_for("the rows, in the dead letter", PATIENCE, || (run.metric("sink_rejected_total")? == 8.0).then_some(()));
    run.read_all_and_stop(1);
    assert_eq!(shown(&database), [0, 1]);
    let letters = letters(&job);
    for reason in [
        "unrepresentable character",
        "8 characters, and the column takes 5",
        "256 is out of",
        "is no UUID",
        "once is NULL",
        "uq_once",
        "ck_even",
    ] {
        assert!(letters.iter().any(|letter| letter.contains(reason)), "{reason}: {letters:?}");
    }
    assert_eq!(letters.len(), 8, "{letters:?}");
}

/// Several rows of one key, in one commit and in many: the first, the last or the newest one stays.
#[tokio::test(flavor = "multi_thread")]
async fn of_rows_with_one_key_the_first_the_last_or_the_newest_one_stays() {
    let broker = Broker::shared();
    let stay = [("insert", "", 0..10), ("upsert", "", 90..100), ("upsert", ", version_field = 'age'", 0..10)];
    for (index, (write, options, expected)) in stay.into_iter().enumerate() {
        let database = Database::start().await;
        database.run("CREATE TABLE [dbo].[shown] ([n] bigint NULL, [age] bigint NULL, [digit] nvarchar(10) NOT NULL PRIMARY KEY);");
        let from = broker.topic(&format!("sql-key-{index}"), 1).await;
        let (servers, connection) = (broker.bootstrap_servers(), database.connection("table", "shown"));
        let job = Job::new(&format!(
            "CREATE TABLE numbers (n BIGINT NOT NULL)
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE shown (n BIGINT, age BIGINT, digit TEXT PRIMARY KEY) WITH ({connection}, write = '{write}'{options});
             INSERT INTO shown SELECT n, 1000 - n, 'key ' || (n % 10) FROM numbers;"
        ))
        .argument("--checkpoint-interval=200ms");
        // Half of them in one commit, and the rest in another process's.
        for half in [0..50, 50..100] {
            send(&broker.properties(), &from, half, 0..1);
            job.start().read_all_and_stop(1);
        }
        assert_eq!(shown(&database), all(expected), "{write}{options}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_deleted_by_its_key_and_one_that_is_gone_stays_gone() {
    let (broker, database) = (Broker::shared(), database(&INSERT).await);
    let from = broker.topic("sql-deleted", 1).await;
    send(&broker.properties(), &from, 0..30, 0..1);
    numbers(broker, &from, &database, &INSERT).start().read_all_and_stop(1);
    database.run(
        "DELETE [t] FROM [dbo].[shown] AS [t] WHERE EXISTS (SELECT 1 FROM [dbo].[shown] AS [s] WHERE [t].[n] = 3);",
    );
    let topic = broker.topic("sql-to-delete", 1).await;
    send(&broker.properties(), &topic, 0..20, 0..1);
    numbers(broker, &topic, &database, &Way { write: "delete", ..INSERT }).start().read_all_and_stop(1);
    assert_eq!(shown(&database), all(20..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_step_deletes_all_rows_that_it_was_told_to_and_no_other() {
    let (broker, database) = (Broker::shared(), database(&INSERT).await);
    let (from, topic) = (broker.topic("sql-filled", 2).await, broker.topic("sql-killed-delete", 2).await);
    send(&broker.properties(), &from, 0..20_000, 0..2);
    numbers(broker, &from, &database, &INSERT).start().read_all_and_stop(2);
    let job = numbers(broker, &topic, &database, &Way { write: "delete", ..INSERT });
    let properties = broker.properties();
    let mut delete_more = more(&properties, &topic, 0);
    job.dies_at_each(&STEPS, &mut delete_more);
    let deleted = delete_more();
    job.start().read_all_and_stop(2);
    assert_eq!(shown(&database), all(deleted..20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_procedure_is_handed_the_rows_within_the_transaction() {
    let (broker, database) = (Broker::shared(), database(&APPEND).await);
    database.run("CREATE TYPE [dbo].[payloadType] AS TABLE ([part] int NOT NULL, [n] bigint NOT NULL PRIMARY KEY);");
    database.procedure(
        "stp_Write",
        "@payload",
        "payloadType",
        "INSERT INTO [dbo].[shown] ([n], [part]) SELECT [n], [part] FROM @payload;",
    );
    let from = broker.topic("sql-procedure", 2).await;
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("procedure", "stp_Write"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, part INT) WITH ({connection});
         INSERT INTO shown SELECT n, CAST(n % 7 AS INT) FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms");
    for step in ["before-showing", "after-showing"] {
        let sent = shown(&database).len() as u64;
        send(&broker.properties(), &from, sent..sent + 100, 0..2);
        job.start_with(&[("MILLRACE_CRASH", &format!("{step}:1"))], &[]).wait();
        job.start().read_all_and_stop(2);
    }
    assert_eq!(shown(&database), all(0..200));
}

/// Such an error ends neither the procedure nor the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_for_which_a_procedure_raises_an_error_goes_to_the_dead_letter_and_its_neighbours_into_the_table() {
    let (broker, database) = (Broker::shared(), database(&APPEND).await);
    database.run("CREATE TYPE [dbo].[payloadType] AS TABLE ([n] bigint NOT NULL, [part] int NOT NULL);");
    database.procedure(
        "stp_Wary",
        "@payload",
        "payloadType",
        "IF EXISTS (SELECT 1 FROM @payload WHERE [n] = 7) RAISERROR(N'seven is not taken', 16, 1);
         INSERT INTO [dbo].[shown] ([n], [part]) SELECT [n], [part] FROM @payload;",
    );
    let from = broker.topic("sql-raised", 1).await;
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("procedure", "stp_Wary"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT, part INT) WITH ({connection});
         INSERT INTO shown SELECT n, CAST(n % 7 AS INT) FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms");
    send(&broker.properties(), &from, 0..20, 0..1);
    let mut run = job.start();
    wait_for("the row, in the dead letter", PATIENCE, || (run.metric("sink_rejected_total")? == 1.0).then_some(()));
    run.read_all_and_stop(1);
    assert_eq!(shown(&database), (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
    assert!(letters(&job)[0].contains("seven is not taken"), "{:?}", letters(&job));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_is_made_if_asked_and_else_the_error_says_how() {
    let (broker, database) = (Broker::shared(), Database::start().await);
    let from = broker.topic("sql-made", 1).await;
    send(&broker.properties(), &from, 0..20, 0..1);
    let job = numbers(broker, &from, &database, &INSERT);
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    for part in ["there is no table [", "set create = 'true'", ".[shown] ([n] bigint NOT NULL, [part] int NULL"] {
        assert!(run.said().contains(part), "{part}: {}", run.said());
    }
    for index in ["rowstore", "columnstore"] {
        database.run("DROP TABLE IF EXISTS [dbo].[shown];");
        let create = format!(", create = 'true', 'create.index' = '{index}'");
        numbers_with(broker, &from, &database, &INSERT, &create).start().read_all_and_stop(1);
        assert_eq!(shown(&database), all(0..20), "{index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_for_a_columnstore_gather_unless_they_are_to_be_seen_at_once_or_are_many() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let commits = || {
        let marker = "UPDATE [dbo].[millrace_commits] SET @done";
        database.server().batches().iter().filter(|batch| batch.contains(marker)).count()
    };
    let many = ", commit_interval = '1 hour', commit_rows = '10'";
    for (at_once, seen) in [(false, ""), (true, ", commit_interval = '0 s'"), (true, many)] {
        database.run("DROP TABLE [dbo].[shown];");
        let from = broker.topic("sql-columns", 1).await;
        let create = format!(", create = 'true', 'create.index' = 'columnstore'{seen}");
        let (before, begun) = (commits(), Instant::now());
        let job = numbers_with(broker, &from, &database, &APPEND, &create);
        let mut run = job.start();
        for portion in 0..5 {
            send(&broker.properties(), &from, portion * 10..portion * 10 + 10, 0..1);
            if at_once {
                wait_for("rows", PATIENCE, || (shown(&database).len() as u64 == portion * 10 + 10).then_some(()));
            } else {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        run.read_all_and_stop(1);
        assert_eq!(shown(&database), all(0..50));
        let (made, seconds) = (commits() - before, begun.elapsed().as_secs() as usize);
        if at_once {
            assert!(made >= 5, "{made} commits");
        } else {
            // The first at once, what gathered when the job stops, and what came with its last entry.
            assert!(made <= 3 + seconds / 10, "{made} commits in {seconds} s");
        }
    }
}

/// What will cost rows or time is said at the start, all of it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_warns_of_nulls_that_are_refused_and_of_writers_that_lock_one_another_out() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-warned", 1).await;
    database.run(
        "CREATE PARTITION FUNCTION [parts] (int) AS RANGE LEFT FOR VALUES (1, 3, 5);
         CREATE PARTITION SCHEME [by_parts] AS PARTITION [parts] ALL TO ([PRIMARY]);
         DROP TABLE [dbo].[shown];
         CREATE TABLE [dbo].[shown] ([n] bigint NOT NULL, [part] int NOT NULL) ON [by_parts]([part]);",
    );
    let said = |writers: &str, way: &Way| {
        let job = numbers_with(broker, &from, &database, way, &format!(", writers = '{writers}'"));
        let mut run = job.start();
        run.wait_until_idle(1);
        run.stop();
        run.said()
    };
    let (nulls, lock) = ("NOT NULL there", "ALTER TABLE [dbo].[shown] SET (LOCK_ESCALATION = AUTO);");
    let warned = said("3", &APPEND);
    assert!(warned.contains("n, part"), "{warned}");
    assert_eq!([nulls, lock].map(|what| warned.matches(what).count()), [1, 1], "{warned}");
    assert!(!said("1", &APPEND).contains(lock), "one writer has nobody to wait for it");
    database.run(lock);
    assert!(!said("3", &APPEND).contains(lock), "it was run");
    database.run("DROP TABLE [dbo].[shown]; CREATE TABLE [dbo].[shown] ([n] bigint NULL, [part] int NULL);");
    let fits = said("3", &APPEND);
    assert!(!fits.contains(nulls) && !fits.contains(lock), "it is whole, and takes what comes: {fits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_are_kept_in_a_schema_of_ones_choice_and_a_table_is_locked_on_request() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    database.run("CREATE SCHEMA [ops];");
    let from = broker.topic("sql-options", 1).await;
    send(&broker.properties(), &from, 0..100, 0..1);
    let further = ", commits_table = 'ops.marks', table_lock = 'true'";
    let job = numbers_with(broker, &from, &database, &APPEND, further);
    job.dies_at("after-showing", 1, || {});
    job.start().read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..100));
    assert!(database.query("SELECT [entry] FROM [ops].[marks]").iter().any(|entry| entry[0].as_deref() != Some("0")));
    assert_eq!(database.query("SELECT OBJECT_ID(N'[dbo].[millrace_commits]', N'U') AS [id]"), [[None]]);
    let batches = database.server().batches();
    let writing = |batch: &&String| batch.contains("INSERT INTO [dbo].[shown]");
    assert!(batches.iter().any(|batch| writing(&batch)));
    assert!(batches.iter().filter(writing).all(|batch| batch.contains("[dbo].[shown] WITH (TABLOCK) (")));
}

/// Each follows its row by itself, which is looked for by an index.
#[tokio::test(flavor = "multi_thread")]
async fn rows_with_values_too_long_for_a_bulk_load_are_completed_by_an_index_of_them() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    database.run("CREATE TABLE [dbo].[long] ([n] bigint NOT NULL, [text] nvarchar(max) NULL);");
    let from = broker.topic("sql-long", 1).await;
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("table", "long"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE long (n BIGINT, text STRING) WITH ({connection});
         INSERT INTO long SELECT n, CASE WHEN n % 2 = 0 THEN 'short' ELSE repeat(CAST(n AS STRING), 40000) END FROM numbers;"
    ))
    .argument("--checkpoint-interval=200ms");
    let indexed = || {
        database.server().batches().iter().filter(|batch| batch.contains("CREATE UNIQUE INDEX [millrace_row]")).count()
    };
    let mut run = job.start();
    for (part, index) in [(0..1, 0), (1..5, 1), (5..9, 1)] {
        send(&broker.properties(), &from, part.clone(), 0..1);
        let there = || database.query("SELECT [n] FROM [dbo].[long]").len() as u64;
        wait_for("rows", PATIENCE, || (there() == part.end).then_some(()));
        assert_eq!(indexed(), index, "a session makes it once, when it first needs it");
    }
    run.stop();
    for row in database.query("SELECT [n], [text] FROM [dbo].[long]") {
        let [n, text] = <[Option<String>; 2]>::try_from(row).expect("two columns").map(|value| value.expect("a value"));
        let even = n.parse::<u64>().expect("a number") % 2 == 0;
        assert!(text == if even { "short".to_string() } else { n.repeat(40_000) }, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_is_refused_with_all_that_is_wrong() {
    let (broker, database) = (Broker::shared(), Database::start().await);
    let from = broker.topic("sql-unfit", 1).await;
    database.run(
        "CREATE TABLE [dbo].[shown] ([N] real NOT NULL, [double] AS ([N] * 2), [number] bigint IDENTITY(1,1) NOT NULL,
           [needed] nvarchar(10) NOT NULL, [storedAt] datetime2(7) NOT NULL DEFAULT SYSUTCDATETIME());",
    );
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("table", "shown"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown (n BIGINT PRIMARY KEY, double BIGINT, number BIGINT, other BIGINT) WITH ({connection});
         INSERT INTO shown SELECT n, n AS a, n AS b, n AS c FROM numbers;"
    ));
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    for part in [
        "column n: it is BIGINT here and real there",
        "column double is computed by the server",
        "column number is numbered by the server",
        "no column other",
        "column needed is NOT NULL without a default",
        "needs a unique index on n",
    ] {
        assert!(run.said().contains(part), "{part}: {}", run.said());
    }
    assert!(!run.said().contains("storedAt"), "it has a default: {}", run.said());
}

/// What is said before anything is written: what is there, what would be made, and what is promised.
#[tokio::test(flavor = "multi_thread")]
async fn check_and_explain_say_what_becomes_of_rows_and_make_nothing() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let from = broker.topic("sql-checked", 1).await;
    let job = numbers(broker, &from, &database, &APPEND);
    let millrace = |command: &str, arguments: &[&str]| {
        let output = job.command(command).args(arguments).output().expect("it runs");
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, said) = millrace("explain", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("exactly once") && said.contains("[dbo].[millrace_commits]") && !said.contains("Password"),
        "{said}"
    );
    let (code, said) = millrace("check", &["--connect"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!database.server().batches().iter().any(|batch| batch.contains("CREATE")), "a check makes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_of_ones_own_authority_is_trusted_and_no_other() {
    let (broker, certificates) = (Broker::shared(), Certificates::new());
    let tls = certificates.of_server("broker");
    let server = Server::start(Options { tls: Some(tls), require_encryption: true, ..Options::default() }).await;
    let database = with_table(Database::Double(server), &APPEND);
    let from = broker.topic("sql-tls", 1).await;
    send(&broker.properties(), &from, 0..100, 0..1);
    let job = |ca: &str| {
        let trusted = format!(", ca_location = '{}'", certificates.file(ca));
        numbers_with(broker, &from, &database, &APPEND, &trusted)
    };
    let wary = job("other.crt");
    let mut run = wary.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("no secure connection"), "{}", run.said());
    job("ca.crt").start().read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_may_have_another_name_if_the_job_says_which() {
    let (broker, certificates) = (Broker::shared(), Certificates::new());
    let tls = certificates.of_server("elsewhere");
    let server = Server::start(Options { tls: Some(tls), require_encryption: true, ..Options::default() }).await;
    let database = with_table(Database::Double(server), &APPEND);
    let from = broker.topic("sql-tls-name", 1).await;
    send(&broker.properties(), &from, 0..100, 0..1);
    let job = |name: &str| {
        let trusted = format!(", ca_location = '{}'{name}", certificates.file("ca.crt"));
        numbers_with(broker, &from, &database, &APPEND, &trusted)
    };
    for other in ["", ", host_name_in_certificate = 'other.example'"] {
        let wary = job(other);
        let mut run = wary.start();
        assert_eq!(run.wait().code(), Some(1), "{}", run.said());
        assert!(run.said().contains("no secure connection"), "{}", run.said());
    }
    job(", host_name_in_certificate = 'db.example'").start().read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_by_password_or_entra_id_and_may_be_sent_elsewhere() {
    let (broker, database) = (Broker::shared(), double(&APPEND).await);
    let server = database.server();
    let from = broker.topic("sql-login", 1).await;
    send(&broker.properties(), &from, 0..100, 0..1);
    let servers = broker.bootstrap_servers();
    let job = |port: u16, login: &str| {
        Job::new(&format!(
            "CREATE TABLE numbers (n BIGINT NOT NULL)
             WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
             CREATE TABLE shown (n BIGINT, part INT)
             WITH (connector = 'sqlserver', server = '127.0.0.1:{port}', database = 'streaming', \"table\" = 'shown', encrypt = 'off', {login});
             INSERT INTO shown SELECT n, CAST(n % 7 AS INT) FROM numbers;"
        ))
    };
    let stranger = job(server.port(), "user = 'millrace', password = 'wrong'");
    let mut run = stranger.start();
    assert_eq!(run.wait().code(), Some(1), "{}", run.said());
    assert!(run.said().contains("18456") && run.said().contains("Check user and password"), "{}", run.said());

    let service = TokenService::start(Duration::from_secs(3600)).await;
    server.expect_token(&token_head());
    let tokens = &service.url;
    let by_entra =
        format!("tenant_id = 't', client_id = 'app', client_secret = 'topsecret', authority_host = '{tokens}'");
    // The gateway sends it on to where the database is.
    let gateway = Server::start(Options::default()).await;
    gateway.route(Some(("127.0.0.1".into(), server.port())));
    gateway.expect_token(&token_head());
    let known = job(gateway.port(), &by_entra);
    known.start().read_all_and_stop(1);
    assert_eq!(shown(&database), all(0..100));
}

/// A row is what users of the table expect: each value in the column's own type.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_has_the_values_that_it_had() {
    let (broker, database) = (Broker::shared(), Database::start().await);
    let from = broker.topic("sql-values", 1).await;
    database.run(
        "CREATE TABLE [dbo].[shown] ([EventId] uniqueidentifier NOT NULL, [Value] float NOT NULL, [CreatedAt] datetime2(7) NOT NULL,
           [Zoned] datetimeoffset(7) NOT NULL, [ComplexData] nvarchar(max) NULL, [Long] nvarchar(max) NULL, [Bytes] varbinary(max) NULL, [Nothing] int NULL, [price] decimal(18,4) NOT NULL,
           [Type] varchar(10) NOT NULL, [Place] varchar(10) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NOT NULL, [Day] date NOT NULL, [a ]] b] bit NOT NULL,
           [StoredAt] datetime2(7) NOT NULL DEFAULT SYSUTCDATETIME(), CONSTRAINT [ck] CHECK (ISJSON([ComplexData]) = 1));",
    );
    let (servers, connection) = (broker.bootstrap_servers(), database.connection("table", "shown"));
    let job = Job::new(&format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL)
         WITH (connector = 'kafka', bootstrap_servers = '{servers}', topic = '{from}', format = 'json');
         CREATE TABLE shown WITH ({connection});
         INSERT INTO shown SELECT '6F9619FF-8B86-D011-B42D-00C04FC964FF' AS eventId, n / 10.0e0 AS value,
           TIMESTAMP '2026-11-24T10:00:00.1234567Z' AS createdAt, TIMESTAMP '2026-11-24T10:00:00.1234567Z' AS zoned,
           named_struct('a', n, 'b', NULL) AS complexData, repeat('ü', 40000) AS long,
           CAST(repeat('x', 70000) AS BYTEA) AS bytes, CAST(NULL AS INT) AS nothing, CAST(1.10 AS DECIMAL(10, 2)) AS price,
           'é€' AS type, 'Zürich東' AS place, DATE '2026-11-24' AS day, true AS \"a ] b\"
         FROM numbers;"
    ));
    send(&broker.properties(), &from, 1..2, 0..1);
    job.start().read_all_and_stop(1);
    let columns =
        "[EventId], [Value], [CreatedAt], [Zoned], [ComplexData], [Nothing], [price], [Type], [Place], [Day], [a ]] b]";
    let row = database.query(&format!("SELECT {columns} FROM [dbo].[shown]")).remove(0);
    let row: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
    let expected = [
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        "0.1",
        "2026-11-24 10:00:00.1234567",
        "2026-11-24 10:00:00.1234567 +00:00",
        r#"{"a":1}"#,
        "NULL",
        "1.1000",
        "é€",
        "Zürich東",
        "2026-11-24",
        "1",
    ];
    assert_eq!(row, expected);
    let long = database.query("SELECT [Long], [Bytes] FROM [dbo].[shown]").remove(0);
    let length = |value: &Option<String>| value.as_ref().map(|text| text.chars().count());
    assert_eq!(length(&long[0]), Some(40_000), "more than the client's bulk load takes");
    assert_eq!(length(&long[1]), Some(2 + 2 * 70_000), "as 0x…");
}
