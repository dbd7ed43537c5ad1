//! `millrace bench` measures what it says it does.

use std::process::Command;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::broker::Broker;

#[test]
fn the_benchmark_runs_the_whole_job_and_says_where_the_time_goes() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::shared());
    let output = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["bench", "--events", "2000", "--ids", "20000", "--partitions", "4", "--json", "--all"])
        .args(["--kafka", &broker.bootstrap_servers(), "--folder"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.iter().all(|r| r["events_per_cpu_second"].as_f64() > Some(0.0)), "{text}");
    assert!(rows.iter().all(|r| r["machine"]["cores"].as_u64() > Some(0)), "{text}");
    let jobs = ["all 29 columns", "6 columns, complexData not read", "the README's job, complexData as text"];
    for job in jobs.iter().flat_map(|job| [job.to_string(), format!("from Kafka: {job}")]) {
        let rows: Vec<_> = rows.iter().filter(|r| r["job"] == *job).collect();
        assert_eq!(rows[0]["of_parts"].as_f64() > Some(0.0), job.starts_with("from Kafka"), "{text}");
        let shares: f64 = rows.iter().filter_map(|r| r["share"].as_f64()).sum();
        assert!((shares - 1.0).abs() < 1e-6, "{job}: the stages are the whole: {shares}");
        assert!(rows.iter().all(|r| r["of_reference"].as_f64() > Some(0.0)), "{text}");
        assert_eq!(rows.iter().filter(|r| r["of_one_worker"].as_f64() > Some(0.0)).count(), 1, "{text}");
    }
    let relay = rows.iter().find(|r| r["job"] == "from Kafka, to Kafka").expect("a job that writes a topic");
    assert!(relay["of_reference"].as_f64() > Some(0.0), "{text}");
    let of = |job: &str| rows.iter().filter(|r| r["job"] == job).collect::<Vec<_>>();
    let [in_memory, spilled] = of("deduplication alone, one core")[..] else { panic!("{text}") };
    assert_eq!(in_memory["disk_bytes"], 0);
    assert!(spilled["disk_bytes"].as_u64() > Some(0), "{text}");
    assert!(spilled["memory_bytes"].as_u64() < in_memory["memory_bytes"].as_u64(), "{text}");
    for (job, lines) in [
        ("all 29 columns, 10 times over", 3),
        ("growth: partitions, cost of an event", 3),
        ("growth: columns, cost of a value", 4),
        ("growth: the table's age, cost of an event", 3),
        ("growth: live ids, deduplication alone, cost of an event", 4),
    ] {
        let rows = of(job);
        assert_eq!(rows.len(), lines, "{job}: {text}");
        assert_eq!(rows[0]["of_first"], 1.0, "{job}");
        assert!(rows.iter().all(|r| r["of_first"].as_f64() > Some(0.0)), "{job}: {text}");
    }
    let long = of("all 29 columns, 10 times over");
    assert!(long.iter().all(|r| r["memory_bytes"].as_u64() > Some(0)), "{text}");
    assert!(long.iter().all(|r| r["events"].as_u64() >= Some(2 * 10 * 2000)), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    let topics = topics(broker);
    assert!(!topics.iter().any(|topic| topic.starts_with("millrace-bench-")), "{topics:?}");
}

fn topics(broker: &Broker) -> Vec<String> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().expect("a client");
    let metadata = client.fetch_metadata(None, Duration::from_secs(60)).expect("the broker's topics");
    metadata.topics().iter().map(|topic| topic.name().to_string()).collect()
}
