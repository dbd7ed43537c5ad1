//! The simulator's events in memory, read as a topic is: what a benchmark measures is the job, not a broker.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use engine::connector::{Connector, OptionSpec, Origin, Problem, TableSpec};
use engine::source::{
    Position, Read, ReadLimit, ReadRequest, ReadStatus, Rejected, Source, SourceError, SplitReader, Start, Wake,
};
use formats::{Decoder, Format, JsonOptions};
use kafka::KafkaConnector;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simulator::{Generator, Settings};
use uuid::Uuid;

/// Messages by partition. A copy lies in another partition than its event, as with the seed's Kafka sender.
pub struct Buffer {
    partitions: Vec<Messages>,
    /// Without copies.
    pub distinct: usize,
    /// Of the log's time, in nanoseconds.
    span: i64,
}

/// How every event begins; its id follows, eight digits of which tell the rounds apart.
const ID: &[u8] = b"{ \"eventId\": \"";

#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Where each ends, and its timestamp in the log.
    ends: Vec<(usize, i64)>,
}

impl Buffer {
    /// `wide`: with numbers of 15 to 17 digits, as measuring devices send them, instead of the simulator's nine or ten.
    pub fn fill(settings: Settings, events: usize, partitions: usize, wide: bool) -> Buffer {
        let span = (events as f64 / settings.rate * 1e9) as i64;
        let mut buffer = Buffer::new(partitions, events, span);
        let mut random = StdRng::seed_from_u64(settings.seed);
        for (number, event) in Generator::new(settings).take(events).enumerate() {
            let payload = if wide { widened(&event.payload, &mut random) } else { event.payload };
            for copy in 0..=event.copies as usize {
                let messages = &mut buffer.partitions[(number + copy) % partitions];
                messages.bytes.extend_from_slice(&payload);
                messages.ends.push((messages.bytes.len(), event.due));
            }
        }
        buffer
    }

    /// Events of an id and so many numbers beside it, in as many partitions.
    pub fn of_numbers(numbers: usize, events: usize, partitions: usize) -> Buffer {
        let mut buffer = Buffer::new(partitions, events, 0);
        let mut random = StdRng::seed_from_u64(1);
        for event in 0..events {
            let Messages { bytes, ends } = &mut buffer.partitions[event % partitions];
            bytes.extend_from_slice(ID);
            bytes.extend_from_slice(Uuid::from_u128(random.random()).to_string().as_bytes());
            bytes.push(b'"');
            for number in 1..=numbers {
                bytes.extend_from_slice(format!(", \"n{number}\": {}", random.random::<f64>()).as_bytes());
            }
            bytes.extend_from_slice(b" }");
            ends.push((bytes.len(), event as i64));
        }
        buffer
    }

    fn new(partitions: usize, distinct: usize, span: i64) -> Buffer {
        Buffer { partitions: (0..partitions).map(|_| Messages::default()).collect(), distinct, span }
    }

    pub fn messages(&self) -> usize {
        self.partitions.iter().map(|p| p.ends.len()).sum()
    }

    pub fn bytes(&self) -> usize {
        self.partitions.iter().map(|p| p.bytes.len()).sum()
    }

    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    pub fn payloads(&self, partition: usize) -> impl Iterator<Item = &[u8]> {
        let messages = &self.partitions[partition];
        (0..messages.ends.len()).map(|i| messages.payload(i))
    }
}

/// The event with five to seven digits more in each of its numbers between 0 and 1.
fn widened(payload: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut wide = Vec::with_capacity(payload.len() + 7 * 24);
    let mut in_fraction = false;
    for (at, byte) in payload.iter().enumerate() {
        if in_fraction && !byte.is_ascii_digit() {
            let digits = random.random_range(5..=7);
            wide.extend((0..digits).map(|_| random.random_range(b'1'..=b'9')));
            in_fraction = false;
        }
        in_fraction |= payload[..at].ends_with(b" 0.");
        wide.push(*byte);
    }
    wide
}

/// The payload with the id that it has in this round.
fn in_round<'a>(payload: &'a [u8], round: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if round == 0 {
        return payload;
    }
    scratch.clear();
    scratch.extend_from_slice(payload);
    debug_assert!(scratch.starts_with(ID));
    for (digit, byte) in scratch[ID.len()..][..8].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(round >> (4 * digit)) & 15];
    }
    scratch
}

impl Messages {
    fn payload(&self, index: usize) -> &[u8] {
        let begin = if index == 0 { 0 } else { self.ends[index - 1].0 };
        &self.bytes[begin..self.ends[index].0]
    }
}

/// Stands in for `connector = 'kafka'` and takes its options, so that a job file runs as it is.
pub struct BufferConnector {
    pub buffer: Arc<Buffer>,
    /// The buffer is read so often, with other ids each time.
    pub rounds: usize,
}

impl Connector for BufferConnector {
    fn name(&self) -> &'static str {
        KafkaConnector.name()
    }
    fn options(&self) -> Vec<OptionSpec> {
        KafkaConnector.options()
    }
    fn source(&self, _: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        Ok(Arc::new(BufferSource { buffer: self.buffer.clone(), rounds: self.rounds }))
    }
}

struct BufferSource {
    buffer: Arc<Buffer>,
    rounds: usize,
}

#[async_trait]
impl Source for BufferSource {
    fn describe(&self) -> String {
        format!("{} events in memory", self.buffer.messages() * self.rounds)
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.buffer.partitions()).map(|p| p.to_string()).collect())
    }

    async fn resolve(&self, split: &str, _: bool) -> Result<Start, SourceError> {
        let messages = self.buffer.partitions[partition(split)?].ends.len() * self.rounds;
        Ok(Start { from: Position::at(0), until: Some(messages as i64) })
    }

    async fn verify(&self, _: &str, _: &Position) -> Result<(), SourceError> {
        Ok(())
    }

    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        _: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError> {
        let values = request.columns.iter().filter(|c| c.origin == Origin::Value);
        let values: Vec<_> = values.map(|c| c.field.clone()).collect();
        let event_time = request.event_time.map(|bound| {
            let before = request.columns[..bound.column].iter().filter(|c| c.origin == Origin::Value);
            (before.count(), bound.max_ahead)
        });
        let decoder = Decoder::new(Arc::new(Schema::new(values)), Format::Json, JsonOptions::default(), event_time);
        let schema = Schema::new(request.columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>());
        Ok(Box::new(BufferReader {
            buffer: self.buffer.clone(),
            rounds: self.rounds,
            partition: partition(split)?,
            scratch: vec![],
            next: start.from.offset as usize,
            decoder: decoder.map_err(|e| SourceError::failed("the buffer", e))?,
            from_payload: request.columns.iter().map(|c| c.origin == Origin::Value).collect(),
            schema: Arc::new(schema),
        }))
    }
}

fn partition(split: &str) -> Result<usize, SourceError> {
    split.parse().map_err(|e| SourceError::failed(format!("partition {split} of the buffer"), e))
}

struct BufferReader {
    buffer: Arc<Buffer>,
    rounds: usize,
    partition: usize,
    /// Where a payload gets the id that it has in a later round.
    scratch: Vec<u8>,
    next: usize,
    decoder: Decoder,
    /// By column; the others are the message's timestamp.
    from_payload: Vec<bool>,
    schema: SchemaRef,
}

impl SplitReader for BufferReader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        let messages = &self.buffer.partitions[self.partition];
        let (begun, end) = (self.next, messages.ends.len() * self.rounds);
        let (mut times, mut rejected, mut bytes) = (vec![], vec![], 0);
        while self.next < end && self.next - begun < limit.records && bytes < limit.bytes {
            let (round, index) = (self.next / messages.ends.len(), self.next % messages.ends.len());
            if index + 1 < messages.ends.len() {
                formats::fetch_ahead(messages.payload(index + 1));
            }
            let payload = in_round(messages.payload(index), round, &mut self.scratch);
            let time = messages.ends[index].1 + round as i64 * self.buffer.span;
            bytes += payload.len();
            self.next += 1;
            match self.decoder.push(payload, Some(time)) {
                Ok(rows) => times.extend(std::iter::repeat_n(time, rows)),
                Err(reject) => rejected.push(Rejected {
                    payload: payload.to_vec(),
                    error: reject.error,
                    code: reject.code,
                    partition: Some(self.partition as i32),
                    offset: Some(self.next as i64 - 1),
                    time: Some(time),
                    key: None,
                    headers: None,
                }),
            }
        }
        let finished = self.next == end;
        let log_time = times.last().copied();
        let batch = if times.is_empty() { None } else { Some(self.batch(times)?) };
        Ok(Read {
            batch,
            rejected,
            records: self.next - begun,
            bytes,
            position: Position::at(self.next as i64),
            log_time,
            status: if finished { ReadStatus::Finished } else { ReadStatus::More },
        })
    }
}

impl BufferReader {
    fn batch(&mut self, times: Vec<i64>) -> Result<RecordBatch, SourceError> {
        let failed = |e| SourceError::failed("the buffer", e);
        let values = self.decoder.finish().map_err(failed)?;
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC"));
        let mut values = values.columns().iter().cloned();
        let columns = self.from_payload.iter().map(|value| if *value { values.next() } else { None });
        let columns = columns.map(|column| column.unwrap_or_else(|| time.clone())).collect();
        RecordBatch::try_new(self.schema.clone(), columns).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_event_is_the_same_event_with_longer_numbers() {
        let event = Generator::new(Settings::default()).event(7).payload;
        let wide = widened(&event, &mut StdRng::seed_from_u64(1));
        let parse = |payload: &[u8]| serde_json::from_slice::<serde_json::Value>(payload).unwrap();
        let (event, wide) = (parse(&event), parse(&wide));
        assert_eq!((&event["eventId"], &event["createdAt"]), (&wide["eventId"], &wide["createdAt"]));
        for name in (1..=23).map(|n| format!("moreData{n}")) {
            let number = |of: &serde_json::Value| of["complexData"][&name].as_f64().unwrap();
            assert!((number(&event) - number(&wide)).abs() < 1e-8);
            assert!(number(&wide).to_string().len() > number(&event).to_string().len(), "{wide}");
        }
    }

    #[test]
    fn an_event_has_another_id_in_each_round_and_is_the_same_otherwise() {
        let event = Generator::new(Settings::default()).event(7).payload;
        let parse = |payload: &[u8]| serde_json::from_slice::<serde_json::Value>(payload).unwrap();
        let rounds = [0, 1, 300].map(|round| parse(in_round(&event, round, &mut vec![])));
        let ids: std::collections::HashSet<_> = rounds.iter().map(|event| event["eventId"].to_string()).collect();
        assert_eq!(ids.len(), rounds.len(), "{ids:?}");
        assert!(rounds.iter().all(|event| event["complexData"] == rounds[0]["complexData"]));
    }
}
