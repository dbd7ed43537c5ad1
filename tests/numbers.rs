//! The smallest job that can lose or repeat something: numbers from a topic into JSON lines.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use kafka::Producer;
use serde_json::Value;

use crate::millrace::Job;

/// A job that shows the numbers of a table that is connected like this.
pub fn job(connection: &str) -> Job {
    let sql = format!(
        "CREATE TABLE numbers (n BIGINT NOT NULL) WITH ({connection}, format = 'json');
         CREATE TABLE shown WITH (connector = 'filesystem', path = '${{TABLE}}', format = 'json');
         INSERT INTO shown SELECT n FROM numbers;"
    );
    let job = Job::new(&sql);
    let table = job.table().display().to_string();
    job.variable("TABLE", &table)
}

/// The same, from a plain listener.
pub fn job_of(bootstrap_servers: &str, topic: &str, further: &str) -> Job {
    job(&format!("connector = 'kafka', bootstrap_servers = '{bootstrap_servers}', topic = '{topic}'{further}"))
}

/// Sends the numbers, each to the partition that it has modulo their count, and waits until the broker has them.
pub fn send(properties: &[(String, String)], topic: &str, numbers: Range<u64>, partitions: Range<i32>) {
    let producer = Producer::new(topic, properties).expect("a producer can be made");
    let partitions: Vec<i32> = partitions.collect();
    for n in numbers {
        let partition = partitions[n as usize % partitions.len()];
        producer.send(Some(partition), None, format!("{{\"n\":{n}}}").as_bytes()).expect("a message can be queued");
    }
    producer.flush(Duration::from_secs(120)).expect("the messages are delivered");
    assert_eq!(producer.failed(), 0, "messages that the broker refused");
}

/// Sends a hundred more each time, to two partitions, and says how many there are then. `sent`: how many there are at first.
pub fn more<'a>(properties: &'a [(String, String)], topic: &'a str, mut sent: u64) -> impl FnMut() -> u64 + 'a {
    move || {
        send(properties, topic, sent..sent + 100, 0..2);
        sent += 100;
        sent
    }
}

/// What the job has shown, in the order of the numbers.
pub fn shown(job: &Job) -> Vec<u64> {
    let mut numbers = vec![];
    for file in fs::read_dir(job.table()).into_iter().flatten().flatten() {
        if file.path().is_file() {
            let text = fs::read_to_string(file.path()).expect("a shown file can be read");
            numbers.extend(text.lines().map(|line| {
                let row: Value = serde_json::from_str(line).expect("a line is JSON");
                row["n"].as_u64().expect("a number")
            }));
        }
    }
    numbers.sort_unstable();
    numbers
}

pub fn all(numbers: Range<u64>) -> Vec<u64> {
    numbers.collect()
}
