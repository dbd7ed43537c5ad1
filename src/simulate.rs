//! `millrace simulate`: the simulator's events, sent to a topic or written as files.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use engine::environment::{Environment, System};
use kafka::Producer;
use simulator::{Generator, Settings};

use crate::feed::Progress;
use crate::run::{duration, stop_on_signal};

/// How long the broker may take for the last messages.
const LAST_DELIVERY: Duration = Duration::from_secs(60);
/// The times of events that are sent as fast as possible lie so far apart.
pub const UNPACED_RATE: f64 = 1_000_000.0;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace simulate --to kafka --kafka localhost:9092 --topic streaming --rate 5000 --instances 3\n  millrace simulate --to files --path ./events --rate 0 --count 1000000"
)]
pub struct Simulate {
    /// Where the events go
    #[arg(long, value_enum)]
    to: Target,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", required_if_eq("to", "kafka"))]
    kafka: Option<String>,
    #[arg(long, required_if_eq("to", "kafka"))]
    topic: Option<String>,
    /// A setting for librdkafka, as often as needed
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// The folder for files
    #[arg(long, required_if_eq("to", "files"))]
    path: Option<PathBuf>,
    /// Messages in a file; it appears under its name when it is whole
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    file_messages: u64,
    /// Events a second, of all instances together; 0: as fast as possible
    #[arg(long, default_value_t = 1000.0, value_parser = rate)]
    rate: f64,
    /// Devices of each instance
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Simulators side by side: all drive the same device ids, each with its own counters
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    instances: u32,
    /// One message in so many is sent again; 0 for none
    #[arg(long, default_value_t = 1000)]
    duplicate_every: u32,
    /// The same seed sends the same events
    #[arg(long)]
    seed: Option<u64>,
    /// End after so many events, without copies
    #[arg(long)]
    count: Option<u64>,
    /// End after so long
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Target {
    Kafka,
    Files,
}

fn property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((pair.0.to_string(), pair.1.to_string()))
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|r: &f64| r.is_finite() && *r >= 0.0)
        .ok_or_else(|| "expected a number of events a second".into())
}

impl Simulate {
    pub async fn execute(self) -> ExitCode {
        let stop = stop_on_signal();
        let progress = Arc::new(Progress::default());
        let (begun, sending) = (Instant::now(), progress.clone());
        let mut sending = tokio::task::spawn_blocking(move || self.send(&sending));
        let terminal = std::io::stderr().is_terminal();
        let pause = if terminal { Duration::from_millis(500) } else { Duration::from_secs(5) };
        let mut last = (Instant::now(), 0);
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent,
                () = tokio::time::sleep(pause) => {}
            }
            if *stop.borrow() {
                progress.stop.store(true, Relaxed);
            }
            let now = (Instant::now(), progress.sent.load(Relaxed));
            let rate = (now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64();
            last = now;
            let line = format!("{:>5} s   {} messages   {rate:.0} a second", begun.elapsed().as_secs(), now.1);
            if terminal { eprint!("\r{line:<70}") } else { eprintln!("{line}") }
        };
        if terminal {
            eprintln!();
        }
        match sent.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(events) => {
                let (messages, seconds) = (progress.sent.load(Relaxed), begun.elapsed().as_secs_f64());
                eprintln!(
                    "{events} events in {messages} messages, {seconds:.1} s, {:.0} a second",
                    messages as f64 / seconds
                );
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Sends until the end or a stop; returns the number of events, without copies.
    fn send(&self, progress: &Progress) -> Result<u64, String> {
        let mut receiver = self.receiver()?;
        let paced = self.rate > 0.0;
        let settings = Settings {
            devices: self.devices,
            instances: self.instances,
            rate: if paced { self.rate } else { UNPACED_RATE },
            duplicate_every: self.duplicate_every,
            seed: self.seed.unwrap_or(System.now() as u64),
            start: System.now(),
        };
        let end = self.duration.map(|d| Instant::now() + d);
        let mut generator = Generator::new(settings);
        let (mut payload, mut event) = (vec![], 0);
        while self.count.is_none_or(|count| event < count) && end.is_none_or(|end| Instant::now() < end) {
            let due = generator.due(event);
            while paced && System.now() < due && !progress.stop.load(Relaxed) {
                let left = Duration::from_nanos((due - System.now()).max(0) as u64);
                std::thread::sleep(left.min(Duration::from_millis(50)));
            }
            if progress.stop.load(Relaxed) {
                break;
            }
            payload.clear();
            generator.write(event, &mut payload);
            for _ in 0..=generator.copies(event) {
                receiver.take(&payload)?;
                progress.sent.fetch_add(1, Relaxed);
            }
            event += 1;
        }
        receiver.finish().map(|()| event)
    }

    fn receiver(&self) -> Result<Box<dyn Receiver>, String> {
        match self.to {
            Target::Kafka => {
                let servers = self.kafka.clone().unwrap_or_default();
                let mut properties = vec![("bootstrap.servers".to_string(), servers)];
                properties.extend(self.property.iter().cloned());
                let topic = self.topic.as_deref().unwrap_or_default();
                let producer = Producer::new(topic, &properties).map_err(|e| format!("topic {topic}: {e}"))?;
                Ok(Box::new(Topic { producer }))
            }
            Target::Files => {
                let folder = self.path.clone().unwrap_or_default();
                std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
                let run = chrono::Utc::now().format("events-%Y%m%dT%H%M%S%3f").to_string();
                Ok(Box::new(Files { folder, run, number: 0, messages: 0, at_most: self.file_messages, open: None }))
            }
        }
    }
}

/// Takes messages.
trait Receiver {
    fn take(&mut self, payload: &[u8]) -> Result<(), String>;
    /// Ends when everything is where it belongs.
    fn finish(&mut self) -> Result<(), String>;
}

struct Topic {
    producer: Producer,
}

impl Receiver for Topic {
    /// No key, as the seed's Kafka sender has it: librdkafka chooses the partition.
    fn take(&mut self, payload: &[u8]) -> Result<(), String> {
        self.producer.send(None, None, payload).map_err(|e| format!("a message was not sent: {e}"))
    }

    fn finish(&mut self) -> Result<(), String> {
        self.producer.flush(LAST_DELIVERY).map_err(|e| format!("the last messages were not delivered: {e}"))?;
        match self.producer.failed() {
            0 => Ok(()),
            n => Err(format!("{n} messages were not delivered")),
        }
    }
}

/// Files of so many lines, hidden until they are whole.
struct Files {
    folder: PathBuf,
    /// Part of every name: two runs into one folder keep their files apart.
    run: String,
    number: u64,
    messages: u64,
    at_most: u64,
    open: Option<BufWriter<File>>,
}

impl Files {
    fn write(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let file = match &mut self.open {
            Some(file) => file,
            closed => {
                let file = File::create_new(named(&self.folder, "_", &self.run, self.number))?;
                closed.insert(BufWriter::with_capacity(1 << 20, file))
            }
        };
        file.write_all(payload)?;
        file.write_all(b"\n")?;
        self.messages += 1;
        if self.messages == self.at_most { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> std::io::Result<()> {
        if let Some(mut file) = self.open.take() {
            file.flush()?;
            let name = |hiding| named(&self.folder, hiding, &self.run, self.number);
            std::fs::rename(name("_"), name(""))?;
            self.number += 1;
            self.messages = 0;
        }
        Ok(())
    }
}

fn named(folder: &std::path::Path, hiding: &str, run: &str, number: u64) -> PathBuf {
    folder.join(format!("{hiding}{run}-{number:06}.jsonl"))
}

impl Receiver for Files {
    fn take(&mut self, payload: &[u8]) -> Result<(), String> {
        self.write(payload).map_err(|e| format!("{}: {e}", self.folder.display()))
    }

    fn finish(&mut self) -> Result<(), String> {
        self.close().map_err(|e| format!("{}: {e}", self.folder.display()))
    }
}
