//! The events, in partitions, and a reader that is as irregular as a network.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use async_trait::async_trait;
use engine::source::{
    Position, Read, ReadLimit, ReadRequest, ReadStatus, Rejected, Source, SourceError, SplitReader, Start, Wake,
};

use crate::clock::{BEGINNING, Clock};
use crate::plan::source_schema;
use crate::process::Process;

#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub id: u64,
    /// Not to be decoded.
    pub bad: bool,
    /// The log's timestamp.
    pub time: i64,
    /// What the device's clock says.
    pub device_time: i64,
    /// Older than the window when it comes, if the window was moved as far as what lies before it allows.
    pub late: bool,
}

impl Event {
    pub fn new(id: u64, time: i64) -> Self {
        Event { id, bad: false, time, device_time: time, late: false }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Partition {
    pub events: Vec<Event>,
    /// When it appears, on the virtual clock.
    pub born: Duration,
    pub silence: Option<Silence>,
    /// Nobody answers a question about it before this time.
    pub answers_from: Duration,
}

/// From an event on nothing comes, until a time.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    pub from: usize,
    pub until: Duration,
    /// The rest is not written yet, and the broker says so; else the broker does not answer.
    pub is_end: bool,
}

impl Partition {
    pub fn of(events: Vec<Event>) -> Self {
        Partition { events, ..Partition::default() }
    }
}

pub struct Contents {
    pub partitions: Vec<Partition>,
    /// How often to look for new partitions; without it the topic is read to its end, once.
    pub discovery: Option<Duration>,
}

/// The topic as one process sees it.
pub struct Topic {
    pub contents: Arc<Contents>,
    pub process: Arc<Process>,
    /// In a hundred questions about a partition that appeared, so many are not answered.
    pub faults: u64,
}

impl Topic {
    fn partition(&self, split: &str) -> (usize, &Partition) {
        let number = split.parse().expect("a split is a partition's number");
        (number, &self.contents.partitions[number])
    }
}

#[async_trait]
impl Source for Topic {
    fn describe(&self) -> String {
        "simulated events".into()
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        self.process.gate().await;
        let now = self.process.clock.now();
        let born = self.contents.partitions.iter().enumerate().filter(|(_, p)| p.born <= now);
        Ok(born.map(|(number, _)| number.to_string()).collect())
    }

    fn discovery_interval(&self) -> Option<Duration> {
        self.contents.discovery
    }

    async fn resolve(&self, split: &str, found_later: bool) -> Result<Start, SourceError> {
        self.process.gate().await;
        let clock = &self.process.clock;
        let (_, partition) = self.partition(split);
        if clock.now() < partition.answers_from || found_later && clock.chance(self.faults * 10) {
            return Err(SourceError::failed(format!("partition {split}"), "no leader yet"));
        }
        let end = partition.events.len() as i64;
        let until = self.contents.discovery.is_none().then_some(end);
        Ok(Start { from: Position::at(0), until })
    }

    async fn verify(&self, _: &str, _: &Position) -> Result<(), SourceError> {
        self.process.gate().await;
        Ok(())
    }

    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        _: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError> {
        self.process.gate().await;
        assert_eq!(request.columns.len(), source_schema().fields().len());
        Ok(Box::new(Reader {
            contents: self.contents.clone(),
            partition: self.partition(split).0,
            process: self.process.clone(),
            next: start.from.offset as usize,
        }))
    }

    /// A hint that never arrives: nothing may depend on it, and nothing may pile up behind it.
    async fn checkpointed(&self, _: &[(String, Position)]) {
        self.process.is_told();
        std::future::pending().await
    }
}

struct Reader {
    contents: Arc<Contents>,
    partition: usize,
    process: Arc<Process>,
    next: usize,
}

impl Reader {
    fn silence(&self) -> Option<Silence> {
        let silence = self.contents.partitions[self.partition].silence;
        silence.filter(|silence| self.process.clock.now() < silence.until)
    }

    /// What the broker says of the place where the reader stands.
    fn status(&self, took: usize) -> ReadStatus {
        let end = self.contents.partitions[self.partition].events.len();
        match self.silence() {
            Some(silence) if self.next >= silence.from && silence.is_end => ReadStatus::AtEnd,
            Some(silence) if self.next >= silence.from => ReadStatus::Pending,
            _ if self.next == end && self.contents.discovery.is_none() => ReadStatus::Finished,
            _ if self.next == end => ReadStatus::AtEnd,
            _ if took == 0 => ReadStatus::Pending,
            _ => ReadStatus::More,
        }
    }
}

impl SplitReader for Reader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        let clock = &self.process.clock;
        let events = &self.contents.partitions[self.partition].events;
        let available = self.silence().map_or(events.len(), |silence| silence.from.min(events.len()));
        let room = available.saturating_sub(self.next).min(limit.records);
        let take = if clock.chance(25) || room == 0 { 0 } else { clock.pick(1..room as u64 + 1) as usize };
        let taken = &events[self.next..self.next + take];
        let rejected = taken.iter().enumerate().filter(|(_, e)| e.bad).map(|(index, e)| Rejected {
            payload: e.id.to_string().into_bytes(),
            error: "bad".into(),
            code: "not-json",
            partition: Some(self.partition as i32),
            offset: Some((self.next + index) as i64),
            time: Some(e.time),
            key: None,
            headers: None,
        });
        let rejected = rejected.collect();
        let good: Vec<Event> = taken.iter().filter(|e| !e.bad).copied().collect();
        let log_time = taken.iter().map(|e| e.time).max();
        self.next += take;
        self.process.has_read(take);
        let status = self.status(take);
        Ok(Read {
            batch: (!good.is_empty()).then(|| rows(&good)),
            rejected,
            records: take,
            bytes: take,
            position: Position::at(self.next as i64),
            log_time,
            status,
        })
    }
}

fn rows(events: &[Event]) -> RecordBatch {
    let ids = StringArray::from_iter_values(events.iter().map(|e| format!("event {}", e.id)));
    let numbers = Int64Array::from_iter_values(events.iter().map(|e| e.id as i64));
    let instants = |time: fn(&Event) -> i64| {
        TimestampNanosecondArray::from_iter_values(events.iter().map(time)).with_timezone("UTC")
    };
    let columns: Vec<ArrayRef> =
        vec![Arc::new(ids), Arc::new(numbers), Arc::new(instants(|e| e.time)), Arc::new(instants(|e| e.device_time))];
    RecordBatch::try_new(source_schema(), columns).unwrap()
}

/// How a story's events come about.
pub struct Making {
    pub events: u64,
    pub partitions: usize,
    /// A copy lies in the partition of its event; else anywhere.
    pub together: bool,
    /// Of the deduplication.
    pub within: Duration,
    /// The log's time passes several windows, and some rows are older than one when they come.
    pub moving: bool,
    /// The last of the partitions appear while the job runs.
    pub appearing: bool,
}

impl Making {
    pub fn make(&self, clock: &Clock) -> Vec<Partition> {
        let late_comers = if self.appearing { clock.pick(1..self.partitions as u64 + 1) as usize } else { 0 };
        let first_ones = self.partitions - late_comers;
        let mut partitions = vec![Partition::default(); self.partitions];
        for partition in &mut partitions[first_ones..] {
            partition.born = Duration::from_millis(clock.pick(1..300));
        }
        // From here on, events lie in the new partitions too.
        let turn = if late_comers == 0 { self.events } else { clock.pick(0..self.events) };
        let turn = if first_ones == 0 { 0 } else { turn };
        let mut placed: Vec<Vec<(i64, Event)>> = vec![vec![]; self.partitions];
        for id in 0..self.events {
            let reach = if id < turn { first_ones } else { self.partitions };
            let mut at = clock.pick(0..reach as u64) as usize;
            let (comes, event) = self.event(clock, id, turn);
            placed[at].push((comes, event));
            if event.bad || event.late {
                continue;
            }
            for _ in 0..[0, 0, 0, 1, 1, 2][clock.pick(0..6) as usize] {
                if !self.together {
                    at = clock.pick(0..reach as u64) as usize;
                }
                let later = clock.pick(0..self.within.min(Duration::from_millis(20)).as_nanos() as u64 / 3) as i64;
                placed[at].push((comes + later, Event { time: event.time + later, ..event }));
            }
            if self.moving && clock.chance(5) {
                // A copy that comes when the window has long passed its event.
                placed[at].push((comes + self.windows(2), Event { late: true, ..event }));
            }
        }
        for (partition, mut placed) in partitions.iter_mut().zip(placed) {
            placed.sort_by_key(|(comes, event)| (*comes, event.id));
            partition.events = placed.into_iter().map(|(_, event)| event).collect();
            self.disorder(clock, &mut partition.events);
            if clock.chance(20) {
                let from = clock.pick(0..partition.events.len() as u64 + 1) as usize;
                let until = Duration::from_millis(clock.pick(1..1000));
                partition.silence = Some(Silence { from, until, is_end: false });
            }
        }
        partitions
    }

    fn windows(&self, number: i64) -> i64 {
        self.within.as_nanos() as i64 * number
    }

    /// An event, and when it comes.
    fn event(&self, clock: &Clock, id: u64, turn: u64) -> (i64, Event) {
        // Events that a partition brings which appeared later are not older than a window when it is found.
        let step = match (self.moving, id < turn) {
            (false, _) => 1_000_000,
            (true, true) => self.windows(6) / turn as i64,
            (true, false) => self.windows(1) / 4 / (self.events - turn) as i64,
        };
        let start = if self.moving && id >= turn && turn > 0 { self.windows(6) } else { 0 };
        let number = if self.moving && id >= turn { id - turn } else { id } as i64;
        let comes = BEGINNING + start + number * step + clock.pick(0..2 * step.max(1) as u64) as i64;
        let comes = if self.moving && id < turn { comes.min(BEGINNING + self.windows(6)) } else { comes };
        let late = self.moving && clock.chance(5);
        let time = if late { comes - self.windows(2) } else { comes };
        (comes, Event { bad: !late && clock.chance(3), late, ..Event::new(id, time) })
    }

    /// A row comes up to a few rows after one that is a little younger.
    fn disorder(&self, clock: &Clock, events: &mut [Event]) {
        let slack = self.windows(1) / 4;
        for index in 1..events.len() {
            let from = index - clock.pick(0..4).min(index as u64) as usize;
            events.swap(from, index);
            let in_time = |at: usize, events: &[Event]| {
                let before = events[..at].iter().map(|e| e.time).max().unwrap_or(i64::MIN);
                events[at].late || before.saturating_sub(events[at].time) <= slack
            };
            if !(from..=index).all(|at| in_time(at, events)) {
                events.swap(from, index);
            }
        }
    }
}
