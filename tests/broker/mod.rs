//! A real Apache Kafka on loopback: a JVM of its own, started by the tests that need it and killed with them.

pub mod administrator;
pub mod cluster;
mod jars;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kafka::create_topic;
use rand::Rng;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::process::{self, Signal};
use crate::wait::wait_for;
use jars::INSTALLATION;

/// A loaded machine may take this long to start a JVM.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// Ports that were free a moment ago may be taken: other ones are tried so often.
const STARTS: usize = 5;

/// Small and quick: short sessions, few threads, little memory.
const COMMON: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("num.partitions", "4"),
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "500"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.heartbeat.interval.ms", "500"),
    // A broker that was killed is let in again only when its old session has ended.
    ("broker.session.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("log.retention.check.interval.ms", "2000"),
    ("log.initial.task.delay.ms", "1000"),
    ("log.cleaner.backoff.ms", "1000"),
    ("log.segment.delete.delay.ms", "1000"),
    // 128 MiB of heap at its default.
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    ("log.cleaner.threads", "1"),
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "2"),
    ("message.max.bytes", "2097152"),
];

/// A listener for clients, besides the plain one that every broker has.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Upper case, as in Kafka's settings: `SCRAM`, `TLS`.
    pub name: &'static str,
    /// `SASL_PLAINTEXT`, `SASL_SSL` or `SSL`.
    pub protocol: &'static str,
    /// What clients are told to connect to: `127.0.0.1`, or `localhost` where a certificate says so.
    pub host: &'static str,
}

/// A broker to be.
#[derive(Debug, Clone, Default)]
pub struct BrokerSettings {
    pub listeners: Vec<Listener>,
    /// Added to the properties file, after everything else: later lines win.
    pub properties: Vec<(String, String)>,
    /// Further arguments of `StorageTool format`, such as `--add-scram`.
    pub format: Vec<String>,
    /// Further arguments of the JVM.
    pub jvm: Vec<String>,
    /// Files that the properties refer to; `{folder}` in a property stands for where they are.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A running broker. It ends with this value, or with the test process.
pub struct Broker {
    process: Child,
    node: Node,
}

/// Which broker of a cluster one is.
#[derive(Debug, Clone)]
struct Seat {
    id: i32,
    controller: u16,
    /// All of the cluster, this one among them.
    voters: Vec<(i32, u16)>,
}

impl Seat {
    /// Of brokers whose controllers listen on these ports. Their ids begin with 1.
    fn of_all(controllers: &[u16]) -> Vec<Seat> {
        let voters: Vec<(i32, u16)> = (1..).zip(controllers.iter().copied()).collect();
        voters
            .iter()
            .map(|(id, controller)| Seat { id: *id, controller: *controller, voters: voters.clone() })
            .collect()
    }
}

/// Everything of a broker that survives its process.
struct Node {
    folder: TempDir,
    seat: Seat,
    plain: u16,
    /// By listener.
    ports: Vec<(Listener, u16)>,
    jars: PathBuf,
    archive: Option<PathBuf>,
    jvm: Vec<String>,
}

impl Broker {
    /// The broker that most tests share, each with topics of its own. Nobody may stop it.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Broker::start(BrokerSettings::default()))
    }

    /// A broker of the test's own.
    pub fn start(settings: BrokerSettings) -> Broker {
        Broker::start_from(&INSTALLATION.jars, INSTALLATION.archive.clone(), &settings)
    }

    fn start_from(jars: &Path, archive: Option<PathBuf>, settings: &BrokerSettings) -> Broker {
        let mut said = String::new();
        for _ in 0..STARTS {
            let node = Node::format(jars, archive.clone(), settings, Seat::of_all(&free_ports(1)).remove(0));
            let mut broker = Broker { process: node.run(&[]), node };
            match broker.wait_until_ready() {
                Ok(()) => return broker,
                Err(why) => said = why,
            }
        }
        panic!("Kafka did not start, {STARTS} times; the last time it said:\n{said}");
    }

    /// Runs a broker once for the classes that it loads. What the JVM cannot do is done without.
    fn write_archive(jars: &Path, archive: &Path) {
        let node = Node::format(jars, None, &BrokerSettings::default(), Seat::of_all(&free_ports(1)).remove(0));
        let made = node.folder.path().join("classes.jsa");
        let mut broker = Broker { process: node.run(&[format!("-XX:ArchiveClassesAtExit={}", made.display())]), node };
        if broker.wait_until_ready().is_ok() {
            process::signal(&broker.process, Signal::Terminate);
            let _ = broker.process.wait();
            if made.exists() {
                fs::copy(made, archive).expect("the test tools' folder can be written");
            }
        }
    }

    /// `host:port` of the plain listener.
    pub fn bootstrap_servers(&self) -> String {
        self.node.bootstrap_servers()
    }

    /// `host:port` of one of the further listeners.
    pub fn listener(&self, name: &str) -> String {
        let found = self.node.ports.iter().find(|(listener, _)| listener.name == name);
        let (listener, port) = found.unwrap_or_else(|| panic!("the broker has no listener {name}"));
        format!("{}:{port}", listener.host)
    }

    /// librdkafka's settings for the plain listener.
    pub fn properties(&self) -> Vec<(String, String)> {
        vec![("bootstrap.servers".into(), self.bootstrap_servers())]
    }

    /// Makes a topic with a name of its own, and returns once its partitions have leaders.
    pub async fn topic(&self, about: &str, partitions: i32) -> String {
        self.topic_with(about, partitions, &[]).await
    }

    /// The same, with settings of the topic.
    pub async fn topic_with(&self, about: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        make_topic(&self.bootstrap_servers(), about, partitions, settings).await
    }

    /// SIGKILL, as a crash of the machine's own would look to clients; the page cache survives.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts again on the same data and ports, after [`Broker::kill`] or instead of it.
    pub fn restart(&mut self) {
        self.kill();
        let mut said = String::new();
        for _ in 0..STARTS {
            self.process = self.node.run(&[]);
            match self.wait_until_ready() {
                Ok(()) => return,
                Err(why) => said = why,
            }
        }
        panic!("Kafka did not start again, {STARTS} times; the last time it said:\n{said}");
    }

    /// SIGSTOP: connections stay open and nobody answers.
    pub fn freeze(&self) {
        process::signal(&self.process, Signal::Stop);
    }

    pub fn thaw(&self) {
        process::signal(&self.process, Signal::Continue);
    }

    /// Ready means that a metadata answer lists all brokers.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let client = client(&self.bootstrap_servers());
        while begun.elapsed() < READY_WITHIN {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("{status}\n{}", self.node.log()));
            }
            let answer = client.fetch_metadata(None, Duration::from_millis(500));
            if answer.is_ok_and(|metadata| metadata.brokers().len() == self.node.seat.voters.len()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
        Err(format!("it was not ready within {READY_WITHIN:?}\n{}", self.node.log()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    /// Chooses ports, writes the properties and formats the data folder.
    fn format(jars: &Path, archive: Option<PathBuf>, settings: &BrokerSettings, seat: Seat) -> Node {
        let folder = tempfile::Builder::new().prefix("millrace-kafka-").tempdir().expect("a temporary folder");
        let mut free = free_ports(1 + settings.listeners.len()).into_iter();
        let mut next = || free.next().expect("as many ports as were asked for");
        let plain = next();
        let ports: Vec<_> = settings.listeners.iter().map(|l| (l.clone(), next())).collect();
        let (jars, jvm) = (jars.to_path_buf(), settings.jvm.clone());
        let node = Node { folder, seat, plain, ports, jars, archive, jvm };
        for (name, content) in &settings.files {
            fs::write(node.folder.path().join(name), content).expect("the broker's folder can be written");
        }
        let properties = node.properties(settings);
        fs::write(node.folder.path().join("server.properties"), properties)
            .expect("the broker's folder can be written");
        node.format_storage(&settings.format);
        node
    }

    fn properties(&self, settings: &BrokerSettings) -> String {
        let joined = |of: &dyn Fn(&Listener, u16) -> String| -> String {
            self.ports.iter().map(|(listener, port)| format!(",{}", of(listener, *port))).collect()
        };
        let bound = joined(&|l, port| format!("{}://127.0.0.1:{port}", l.name));
        let advertised = joined(&|l, port| format!("{}://{}:{port}", l.name, l.host));
        let protocols = joined(&|l, _| format!("{}:{}", l.name, l.protocol));
        let (plain, controller) = (self.plain, self.seat.controller);
        let voters: Vec<_> = self.seat.voters.iter().map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let own = [
            ("node.id", self.seat.id.to_string()),
            ("controller.quorum.voters", voters.join(",")),
            ("listeners", format!("CONTROLLER://127.0.0.1:{controller},PLAINTEXT://127.0.0.1:{plain}{bound}")),
            ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{plain}{advertised}")),
            ("listener.security.protocol.map", format!("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}")),
            ("inter.broker.listener.name", "PLAINTEXT".to_string()),
            ("log.dirs", self.folder.path().join("data").display().to_string()),
        ];
        let folder = self.folder.path().display().to_string();
        let own = own.iter().map(|(name, value)| (*name, value.clone()));
        let common = COMMON.iter().map(|(name, value)| (*name, value.to_string()));
        let further =
            settings.properties.iter().map(|(name, value)| (name.as_str(), value.replace("{folder}", &folder)));
        common.chain(own).chain(further).map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    fn format_storage(&self, arguments: &[String]) {
        let mut tool = self.java();
        let cluster = "bWlsbHJhY2UtdGVzdHMtMA";
        tool.args(["kafka.tools.StorageTool", "format", "-t", cluster, "-c"]);
        tool.arg(self.folder.path().join("server.properties")).args(arguments);
        let output =
            tool.output().unwrap_or_else(|e| panic!("java does not start ({e}); ./test installs what tests need"));
        assert!(
            output.status.success(),
            "Kafka's storage could not be formatted:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .args(&self.jvm);
        if let Some(archive) = &self.archive {
            java.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
        }
        java.arg("-cp").arg(self.jars.join("*"));
        java
    }

    fn run(&self, jvm: &[String]) -> Child {
        let mut java = Command::new("java");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log file");
        java.args(jvm)
            .args(self.java().get_args())
            .arg("kafka.Kafka")
            .arg(self.folder.path().join("server.properties"));
        java.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        process::start(java)
    }

    fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

fn client(bootstrap_servers: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap_servers).set("log_level", "0");
    config.create().expect("a client with one setting can be made")
}

async fn make_topic(bootstrap_servers: &str, about: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
    static TOPICS: AtomicU64 = AtomicU64::new(0);
    let topic = format!("{about}-{}-{}", std::process::id(), TOPICS.fetch_add(1, Ordering::Relaxed));
    let properties = [("bootstrap.servers".to_string(), bootstrap_servers.to_string())];
    create_topic(&properties, &topic, partitions, settings).await.expect("a topic can be made");
    let has_leaders = || {
        let metadata = client(bootstrap_servers).fetch_metadata(Some(&topic), Duration::from_secs(5)).ok()?;
        let known = metadata.topics().first()?.partitions();
        (known.len() == partitions as usize && known.iter().all(|p| p.leader() >= 0)).then_some(())
    };
    wait_for("the topic's leaders", READY_WITHIN, has_leaders);
    topic
}

/// Ports that nobody listens on, below the range from which the kernel takes those of outgoing connections: a broker that
/// restarts finds its own free.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = vec![];
    while held.len() < count {
        let port = rand::rng().random_range(15_000..32_000);
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    held.iter().map(|listener| listener.local_addr().expect("a bound port").port()).collect()
}
