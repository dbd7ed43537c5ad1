//! Three brokers, of which one at a time is lost: the job reads on from the others.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;
use serde_json::Value;

use crate::broker::cluster::Cluster;
use crate::feed::{Feed, Feeding};
use crate::kafka_sink;
use crate::millrace::{Job, PATIENCE, Running};
use crate::numbers::{all, send};
use crate::table::shows_each_event_once;
use crate::wait::wait_for;

const PARTITIONS: u32 = 6;

/// What each partition has been read, in the order of their names.
fn read_by_partition(status: &Value) -> Vec<u64> {
    let splits = status["splits"].as_object();
    splits.map_or(vec![], |splits| splits.values().filter_map(|split| split["records"].as_u64()).collect())
}

/// Waits until something more was read of every partition, wherever it is led now.
fn wait_until_each_is_read_on(run: &mut Running) {
    let before = read_by_partition(&run.status().expect("a job that lost a broker answers"));
    run.wait_until("every partition is read on", |status| {
        let now = read_by_partition(status);
        now.len() == PARTITIONS as usize && now.iter().zip(&before).all(|(now, before)| now > before)
    });
}

/// What the job has told its group, which lag tools watch.
struct Group {
    client: BaseConsumer,
    topic: String,
}

impl Group {
    fn of(cluster: &Cluster, name: &str, topic: &str) -> Group {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", name).set("log_level", "0");
        Group { client: config.create().expect("a client"), topic: topic.to_string() }
    }

    /// The sum of its offsets; `None` while the group has no coordinator that answers.
    fn offsets(&self) -> Option<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic, 0, PARTITIONS as i32 - 1);
        let answer = self.client.committed_offsets(list, Duration::from_secs(5)).ok()?;
        let offset = |offset| match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        answer.elements().iter().map(|element| offset(element.offset())).sum()
    }

    fn wait_until_beyond(&self, offsets: i64) -> i64 {
        wait_for("the group's offsets go on", PATIENCE, || self.offsets().filter(|now| *now > offsets))
    }
}

/// With one copy a partition, a broker that is killed may forget to end a transaction, and then no reader at read_committed
/// sees anything more. So there are three, as wherever somebody relies on transactions.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_lost_one_after_the_other_while_rows_are_sent_in_transactions_are_waited_for() {
    let mut cluster = Cluster::start();
    let from = cluster.topic("transactions-from", 2).await;
    let to = cluster.topic("transactions-to", 3).await;
    let servers = cluster.bootstrap_servers();
    // A transaction, and a message in it, may take less than it takes to replace a broker.
    let options = ", 'properties.socket.timeout.ms' = '2000', 'properties.transaction.timeout.ms' = '3000'";
    let job = kafka_sink::numbers(&servers, &from, &to, options);
    let mut run = job.start();
    run.wait_until_idle(2);
    let mut sent = 0;
    let properties = cluster.properties();
    let mut send_some = || {
        for _ in 0..20 {
            send(&properties, &from, sent..sent + 20, 0..2);
            sent += 20;
        }
        sent
    };
    for broker in 1..=3 {
        send_some();
        cluster.kill(broker);
        cluster.wait_until_replaced(&to, broker);
        let sent = send_some();
        run.wait_until_read(sent);
        cluster.restart(broker);
        cluster.wait_until_copied(&to);
        cluster.wait_until_copied(&from);
    }
    let sent = send_some();
    run.wait_until_read(sent);
    // Brokers that have just come back may take longer than a stop waits.
    run.wait_until_shown();
    run.stop();
    assert_eq!(kafka_sink::received(&servers, &to), all(0..sent), "{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_and_a_lost_coordinator_are_replaced_and_every_event_is_shown_once() {
    let mut cluster = Cluster::start();
    let topic = cluster.topic("replicated", PARTITIONS as i32).await;
    let group = format!("{topic}-group");
    let of_group = format!("format = 'json', 'source.group_id' = '{group}',");
    let changes = [("format                 = 'json',", of_group.as_str())];
    let job = Job::events_to_delta_with(&cluster.bootstrap_servers(), &topic, &changes);
    let feeding = Feeding { partitions: PARTITIONS, ..Feeding::slow(41) };
    let feed = Feed::start(&topic, &cluster.properties(), feeding);
    let mut run = job.start();
    run.wait_until_read(200);
    let group = Group::of(&cluster, &group, &topic);
    let told = group.wait_until_beyond(0);
    let coordinator = cluster.coordinator();

    let leaders = cluster.leaders(&topic).expect("the topic is known");
    let leader = leaders.into_iter().find(|id| *id != coordinator).expect("each broker leads something");
    cluster.kill(leader);
    cluster.wait_until_replaced(&topic, leader);
    wait_until_each_is_read_on(&mut run);
    cluster.restart(leader);
    cluster.wait_until_copied(&topic);

    cluster.kill(coordinator);
    cluster.wait_until_replaced(&topic, coordinator);
    assert_ne!(cluster.coordinator(), coordinator);
    wait_until_each_is_read_on(&mut run);
    group.wait_until_beyond(told.max(group.offsets().unwrap_or(told)));

    shows_each_event_once(feed.finish(), &mut run, &job, PARTITIONS as usize).await;
}
