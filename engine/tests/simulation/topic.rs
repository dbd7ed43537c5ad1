//! The events, in partitions, and a reader that is as irregular as a network.

use std::sync::Arc;

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
}

pub type Partitions = Arc<Vec<Vec<Event>>>;

/// Events with copies. With `together`, a copy lies in the partition of its event; else anywhere.
pub fn partitions(clock: &Clock, count: usize, events: u64, together: bool) -> Partitions {
    let mut partitions: Vec<Vec<Event>> = vec![vec![]; count];
    for id in 0..events {
        let bad = clock.chance(3);
        let mut at = clock.pick(0..count as u64) as usize;
        let copies = if bad { 0 } else { [0, 0, 0, 1, 1, 2][clock.pick(0..6) as usize] };
        for copy in 0..=copies {
            if copy > 0 && !together {
                at = clock.pick(0..count as u64) as usize;
            }
            let time = BEGINNING + (id * 1_000_000 + clock.pick(0..2_000_000)) as i64;
            partitions[at].push(Event { id, bad, time });
        }
    }
    // A copy comes up to a few events after its event.
    for partition in &mut partitions {
        for index in 1..partition.len() {
            let back = clock.pick(0..4).min(index as u64) as usize;
            partition.swap(index, index - back);
        }
    }
    Arc::new(partitions)
}

pub struct Topic {
    pub partitions: Partitions,
    pub process: Arc<Process>,
}

#[async_trait]
impl Source for Topic {
    fn describe(&self) -> String {
        "simulated events".into()
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        self.process.gate().await;
        Ok((0..self.partitions.len()).map(|p| p.to_string()).collect())
    }

    async fn resolve(&self, split: &str, _: bool) -> Result<Start, SourceError> {
        self.process.gate().await;
        let until = self.partitions[split.parse::<usize>().unwrap()].len() as i64;
        Ok(Start { from: Position::at(0), until: Some(until) })
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
        let partition = split.parse().unwrap();
        let (partitions, clock) = (self.partitions.clone(), self.process.clock.clone());
        Ok(Box::new(Reader { partitions, partition, clock, next: start.from.offset as usize }))
    }
}

struct Reader {
    partitions: Partitions,
    partition: usize,
    clock: Arc<Clock>,
    next: usize,
}

impl SplitReader for Reader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        let events = &self.partitions[self.partition];
        let room = (events.len() - self.next).min(limit.records);
        let take = if self.clock.chance(25) || room == 0 { 0 } else { self.clock.pick(1..room as u64 + 1) as usize };
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
        let status = match (self.next == events.len(), take) {
            (true, _) => ReadStatus::Finished,
            (false, 0) => ReadStatus::Pending,
            (false, _) => ReadStatus::More,
        };
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
    let times = TimestampNanosecondArray::from_iter_values(events.iter().map(|e| e.time)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(numbers), Arc::new(times)];
    RecordBatch::try_new(source_schema(), columns).unwrap()
}
