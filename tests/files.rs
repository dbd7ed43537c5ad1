//! Folders and the simulator as sources, one file as the sink: the real binary, killed on the way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_avro::writer::AvroWriter;
use serde_json::Value;

use crate::millrace::Job;
use crate::trouble::dead_letters;

const OUTPUT: &str = "
    CREATE TABLE out (eventId STRING NOT NULL, deviceId STRING, n BIGINT) WITH (connector = 'single_file', path = '${OUT}');
    INSERT INTO out SELECT eventId, deviceId, deviceSequenceNumber FROM events;
";

/// A job that reads events as `with` says, and shows each once.
fn job(with: &str) -> Job {
    let columns = "eventId STRING NOT NULL, deviceId STRING, deviceSequenceNumber BIGINT";
    let once = "'deduplicate.key' = 'eventId', 'deduplicate.within' = '1 hour'";
    let job = Job::new(&format!("CREATE TABLE events ({columns}) WITH ({with}, {once});{OUTPUT}"));
    let out = job.folder().join("out.json").display().to_string();
    let input = job.folder().join("events").display().to_string();
    job.variable("OUT", &out).variable("EVENTS", &input).argument("--checkpoint-interval").argument("100ms")
}

/// Writes the simulator's events as files, and returns how many messages they hold.
fn simulate(folder: &Path, arguments: &[&str]) -> usize {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["simulate", "--to", "files", "--rate", "0", "--duplicate-every", "10", "--path"]).arg(folder);
    let done = command.args(arguments).stderr(Stdio::piped()).output().expect("the binary runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let files = fs::read_dir(folder).expect("the folder is there").map(|f| f.expect("a file").path());
    files.map(|f| fs::read_to_string(f).expect("text").lines().count()).sum()
}

fn ids(job: &Job) -> Vec<String> {
    let text = fs::read_to_string(job.folder().join("out.json")).unwrap_or_default();
    let id =
        |line: &str| serde_json::from_str::<Value>(line).expect("a whole line")["eventId"].as_str().map(String::from);
    text.lines().filter_map(id).collect()
}

#[test]
fn the_events_of_many_files_are_each_shown_once_though_the_job_is_killed() {
    let job = job("connector = 'filesystem', path = '${EVENTS}'");
    let messages =
        simulate(&job.folder().join("events"), &["--count", "20000", "--file-messages", "500", "--seed", "1"]);
    assert!(messages > 21_000, "one in ten is sent again: {messages}");
    job.completes_though_it_is_killed();
    let shown = ids(&job);
    assert_eq!((shown.len(), shown.iter().collect::<BTreeSet<_>>().len()), (20_000, 20_000));
}

/// What JSON has no word for is told before its neighbours are shown; whenever the process dies, it is told once, and they are
/// shown once.
#[test]
fn rows_that_json_has_no_word_for_are_dead_letters_once_wherever_the_job_dies() {
    let deaths =
        [("before-commit", 1), ("before-commit", 2), ("after-commit", 1), ("before-commit", 3), ("after-commit", 2)];
    for connector in ["filesystem", "single_file"] {
        for (step, visit) in deaths {
            let job = Job::new(&format!(
                "CREATE TABLE numbers (n BIGINT NOT NULL) WITH (connector = 'filesystem', path = '${{IN}}', format = 'json');
                 CREATE TABLE shown (n BIGINT, x DOUBLE) WITH (connector = '{connector}', path = '${{TABLE}}', format = 'json');
                 INSERT INTO shown SELECT n, CASE WHEN n % 100 = 7 THEN CAST('NaN' AS DOUBLE) ELSE 0.5 END FROM numbers;"
            ));
            let (input, table) = (job.folder().join("in.jsonl"), job.table());
            let job = job.variable("IN", &input.display().to_string()).variable("TABLE", &table.display().to_string());
            fs::write(&input, (0..300).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>()).expect("a file");
            let death = format!("{step}:{visit}");
            let mut run = job.start_with(&[("MILLRACE_CRASH", &death)], &[]);
            assert_eq!(run.wait().code(), None, "{connector} {death}\n{}", run.said());
            let mut run = job.start();
            assert_eq!(run.wait().code(), Some(0), "{connector} {death}\n{}", run.said());
            let expected: Vec<u64> = (0..300).filter(|n| n % 100 != 7).collect();
            assert_eq!(numbers_in(&table), expected, "{connector} {death}");
            let letters = dead_letters(&job.state().join("dead-letter"));
            let said =
                |letter: &Value| letter["error"].as_str().is_some_and(|error| error.starts_with("column x is NaN"));
            assert!(letters.len() == 3 && letters.iter().all(said), "{connector} {death}: {letters:#?}");
        }
    }
}

/// The numbers of all lines of a file, or of the files of a folder, in their order.
fn numbers_in(place: &Path) -> Vec<u64> {
    let files = match place.is_dir() {
        true => fs::read_dir(place).expect("a folder").map(|file| file.expect("a file").path()).collect(),
        false => vec![place.to_path_buf()],
    };
    let lines = files.iter().filter(|file| file.is_file()).map(|file| fs::read_to_string(file).expect("text"));
    let number =
        |line: &str| serde_json::from_str::<Value>(line).expect("a whole line")["n"].as_u64().expect("a number");
    let mut numbers: Vec<u64> = lines.flat_map(|text| text.lines().map(number).collect::<Vec<_>>()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_watched_folder_is_read_on_as_files_come_and_over_a_restart() {
    let job = job("connector = 'filesystem', path = '${EVENTS}', 'source.monitor-interval' = '100 ms'");
    let events = job.folder().join("events");
    simulate(&events, &["--count", "500", "--file-messages", "200", "--seed", "1"]);
    let rows = |n: u64| move |status: &Value| status["sinks"]["out"]["rows"] == n;
    let mut first = job.start();
    first.wait_until("the files that were there are read", rows(500));
    simulate(&events, &["--count", "300", "--seed", "2"]);
    first.wait_until("the file that came is read", rows(800));
    first.terminate();
    assert_eq!(first.wait().code(), Some(0), "{}", first.said());
    simulate(&events, &["--count", "100", "--seed", "3"]);
    let mut second = job.start();
    second.wait_until("what came in between is read, and nothing again", rows(100));
    second.terminate();
    assert_eq!(second.wait().code(), Some(0), "{}", second.said());
    let shown = ids(&job);
    assert_eq!((shown.len(), shown.iter().collect::<BTreeSet<_>>().len()), (900, 900));
}

/// Avro files of 5,000 events each, ten in a block. Every tenth event stands in the next file as well.
fn write_avro(folder: &Path, files: i64) {
    fs::create_dir_all(folder).expect("a folder");
    for file in 0..files {
        let numbers: Vec<i64> =
            (file * 5000..(file + 1) * 5000).chain((file * 5000 - 5000..file * 5000).step_by(10)).collect();
        let numbers: Vec<i64> = numbers.into_iter().filter(|n| *n >= 0).collect();
        let text =
            |of: fn(&i64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(numbers.iter().map(of))) };
        let columns: [(&str, ArrayRef); 4] = [
            ("unread", text(|n| "x".repeat(*n as usize % 100))),
            ("deviceSequenceNumber", Arc::new(Int64Array::from(numbers.clone()))),
            ("eventId", text(|n| format!("event {n}"))),
            ("deviceId", text(|n| format!("device {}", n % 7))),
        ];
        let events = RecordBatch::try_from_iter(columns).expect("a batch");
        let out = fs::File::create(folder.join(format!("{file}.avro"))).expect("a file");
        let mut writer = AvroWriter::new(out, events.schema().as_ref().clone()).expect("a header");
        for first in (0..events.num_rows()).step_by(10) {
            writer.write(&events.slice(first, 10)).expect("a block");
        }
        writer.finish().expect("the last block");
    }
}

#[test]
fn the_events_of_avro_files_are_each_shown_once_though_the_job_is_killed() {
    let job = job("connector = 'filesystem', path = '${EVENTS}', format = 'avro'");
    write_avro(&job.folder().join("events"), 6);
    job.completes_though_it_is_killed();
    let shown: BTreeSet<String> = ids(&job).into_iter().collect();
    assert_eq!((ids(&job).len(), shown), (30_000, (0..30_000).map(|n| format!("event {n}")).collect()));
}

#[test]
fn an_avro_file_that_is_cut_off_ends_the_job_by_name() {
    let job = job("connector = 'filesystem', path = '${EVENTS}', format = 'avro'");
    let events = job.folder().join("events");
    write_avro(&events, 1);
    let whole = fs::read(events.join("0.avro")).expect("the file");
    fs::write(events.join("0.avro"), &whole[..whole.len() - 100]).expect("cut off");
    let mut broken = job.start();
    assert_ne!(broken.wait().code(), Some(0), "{}", broken.said());
    assert!(broken.said().contains("file 0.avro of") && broken.said().contains("is cut off"), "{}", broken.said());
}

#[test]
fn simulated_events_are_each_shown_once_though_the_job_is_killed() {
    let job = job("connector = 'simulator', count = 20000, pace = 'none', duplicate_every = 10, partitions = 3");
    let mut run = job.start();
    run.wait_until_read(2000);
    run.kill();
    let mut last = job.start();
    assert_eq!(last.wait().code(), Some(0), "{}", last.said());
    let shown = ids(&job);
    assert_eq!((shown.len(), shown.iter().collect::<BTreeSet<_>>().len()), (20_000, 20_000));
}
