//! Three brokers that hold copies of each other's partitions.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::jars::INSTALLATION;
use super::{Broker, BrokerSettings, Node, READY_WITHIN, STARTS, Seat, client, free_ports, make_topic};
use crate::wait::wait_for;

/// Where groups' offsets lie. It has one partition here, so its leader coordinates every group.
const OFFSETS: &str = "__consumer_offsets";

/// Topics of the brokers' own, once something needs them.
const INTERNAL: [&str; 2] = [OFFSETS, "__transaction_state"];

/// A lost broker is missed soon, and a slow machine's is not missed too soon.
const PROPERTIES: &[(&str, &str)] = &[
    ("default.replication.factor", "3"),
    ("min.insync.replicas", "2"),
    ("offsets.topic.replication.factor", "3"),
    ("transaction.state.log.replication.factor", "3"),
    ("broker.session.timeout.ms", "3000"),
    ("controller.quorum.election.timeout.ms", "1000"),
    ("controller.quorum.fetch.timeout.ms", "2000"),
    ("replica.lag.time.max.ms", "4000"),
];

pub struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    pub fn start() -> Cluster {
        let mut said = String::new();
        for _ in 0..STARTS {
            let mut brokers = launched();
            match brokers.iter_mut().try_for_each(Broker::wait_until_ready) {
                Ok(()) => return Cluster { brokers },
                Err(why) => said = why,
            }
        }
        panic!("three brokers did not start, {STARTS} times; the last time one said:\n{said}");
    }

    pub fn bootstrap_servers(&self) -> String {
        let each: Vec<_> = self.brokers.iter().map(Broker::bootstrap_servers).collect();
        each.join(",")
    }

    pub fn properties(&self) -> Vec<(String, String)> {
        vec![("bootstrap.servers".into(), self.bootstrap_servers())]
    }

    /// A topic of which each broker has a copy.
    pub async fn topic(&self, about: &str, partitions: i32) -> String {
        let topic = make_topic(&self.bootstrap_servers(), about, partitions, &[]).await;
        self.wait_until_copied(&topic);
        topic
    }

    /// SIGKILL.
    pub fn kill(&mut self, broker: i32) {
        self.brokers[broker as usize - 1].kill();
    }

    pub fn restart(&mut self, broker: i32) {
        self.brokers[broker as usize - 1].restart();
    }

    /// The broker that coordinates every group.
    pub fn coordinator(&self) -> i32 {
        wait_for("a coordinator", READY_WITHIN, || self.leaders(OFFSETS)?.first().copied().filter(|id| *id > 0))
    }

    /// By partition.
    pub fn leaders(&self, topic: &str) -> Option<Vec<i32>> {
        let metadata = client(&self.bootstrap_servers()).fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        (!partitions.is_empty()).then(|| partitions.iter().map(|p| p.leader()).collect())
    }

    /// Waits until other brokers lead everything that this one led.
    pub fn wait_until_replaced(&self, topic: &str, broker: i32) {
        wait_for("leaders in the place of the lost ones", READY_WITHIN, || {
            let leads = |id: &i32| *id == broker || *id < 0;
            let internal = INTERNAL.iter().filter_map(|topic| self.leaders(topic));
            (!internal.chain([self.leaders(topic)?]).flatten().any(|id| leads(&id))).then_some(())
        });
    }

    /// Waits until every broker has a copy that is up to date: then any one of them can be spared.
    pub fn wait_until_copied(&self, topic: &str) {
        wait_for("copies on all brokers", READY_WITHIN, || {
            let client = client(&self.bootstrap_servers());
            let has_all = |topic| {
                let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
                let partitions = metadata.topics().first()?.partitions();
                Some(!partitions.is_empty() && partitions.iter().all(|p| p.isr().len() == self.brokers.len()))
            };
            let internal = INTERNAL.iter().filter(|topic| self.leaders(topic).is_some());
            internal
                .chain([&topic])
                .map(|topic| has_all(topic))
                .try_fold(true, |all, has| Some(all && has?))?
                .then_some(())
        });
    }
}

fn launched() -> Vec<Broker> {
    let seats = Seat::of_all(&free_ports(3));
    let settings = BrokerSettings {
        properties: PROPERTIES.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        jvm: vec!["-Xmx128m".into()],
        ..BrokerSettings::default()
    };
    let launch = |seat| {
        let node = Node::format(&INSTALLATION.jars, INSTALLATION.archive.clone(), &settings, seat);
        Broker { process: node.run(&[]), node }
    };
    seats.into_iter().map(launch).collect()
}
