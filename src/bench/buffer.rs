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

/// Messages by partition. A copy lies in another partition than its event, as with the seed's Kafka sender.
pub struct Buffer {
    partitions: Vec<Messages>,
    /// Without copies.
    pub distinct: usize,
}

#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Where each ends, and its timestamp in the log.
    ends: Vec<(usize, i64)>,
}

impl Buffer {
    /// `wide`: with numbers of 15 to 17 digits, as measuring devices send them, instead of the simulator's nine or ten.
    pub fn fill(settings: Settings, events: usize, partitions: usize, wide: bool) -> Buffer {
        let mut buffer =
            Buffer { partitions: (0..partitions).map(|_| Messages::default()).collect(), distinct: events };
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

impl Messages {
    fn payload(&self, index: usize) -> &[u8] {
        let begin = if index == 0 { 0 } else { self.ends[index - 1].0 };
        &self.bytes[begin..self.ends[index].0]
    }
}

/// Stands in for `connector = 'kafka'` and takes its options, so that a job file runs as it is.
pub struct BufferConnector(pub Arc<Buffer>);

impl Connector for BufferConnector {
    fn name(&self) -> &'static str {
        KafkaConnector.name()
    }
    fn options(&self) -> Vec<OptionSpec> {
        KafkaConnector.options()
    }
    fn source(&self, _: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        Ok(Arc::new(BufferSource(self.0.clone())))
    }
}

struct BufferSource(Arc<Buffer>);

#[async_trait]
impl Source for BufferSource {
    fn describe(&self) -> String {
        format!("{} events in memory", self.0.messages())
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.0.partitions()).map(|p| p.to_string()).collect())
    }

    async fn resolve(&self, split: &str, _: bool) -> Result<Start, SourceError> {
        let messages = &self.0.partitions[partition(split)?];
        Ok(Start { from: Position::at(0), until: Some(messages.ends.len() as i64) })
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
            buffer: self.0.clone(),
            partition: partition(split)?,
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
    partition: usize,
    next: usize,
    decoder: Decoder,
    /// By column; the others are the message's timestamp.
    from_payload: Vec<bool>,
    schema: SchemaRef,
}

impl SplitReader for BufferReader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        let messages = &self.buffer.partitions[self.partition];
        let begun = self.next;
        let (mut times, mut rejected, mut bytes) = (vec![], vec![], 0);
        while self.next < messages.ends.len() && self.next - begun < limit.records && bytes < limit.bytes {
            let (payload, time) = (messages.payload(self.next), messages.ends[self.next].1);
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
        let finished = self.next == messages.ends.len();
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
}
