//! Reads one partition from its own queue, without waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use engine::connector::Origin;
use engine::observed::Observed;
use engine::source::{
    Position, Read, ReadLimit, ReadRequest, ReadStatus, Rejected, SourceError, SplitReader, Start, Wake,
};
use formats::{Decoder, Decoding, Message, Taken as Decoded};
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::client::{Reports, Served};
use crate::endpoint::{Connection, Login, Purpose};
use crate::messages::CONTENT_TYPE;
use crate::metadata::{MetadataColumn, header_text};
use crate::options::KafkaTable;
use crate::queue::{Came, Queue, Record};
use crate::source::MADE_AGAIN;

pub struct KafkaReader {
    queue: Queue<Reports>,
    served: Arc<Served>,
    reports: Reports,
    place: String,
    login: Login,
    partition: i32,
    decoder: Decoder,
    /// Whether the decoder wants to know what messages say of their content.
    content_type: bool,
    metadata: Vec<MetadataColumn>,
    schema: SchemaRef,
    /// For each requested column: where it comes from.
    layout: Vec<From>,
    position: Position,
    until: Option<i64>,
    /// The broker said that the position is the end, and nothing has come since. It says so once.
    at_end: bool,
    /// The end that it said: behind the position, there may be marks of transactions.
    end: i64,
    finished: bool,
}

enum From {
    Value(usize),
    Metadata(usize),
}

impl KafkaReader {
    pub fn new(
        connection: &Connection,
        table: &KafkaTable,
        decoding: &Decoding,
        partition: i32,
        start: &Start,
        request: &ReadRequest,
        wake: Wake,
    ) -> Result<Self, String> {
        let Connection { served, reports, .. } = connection;
        let (mut values, mut metadata, mut layout) = (vec![], vec![], vec![]);
        for column in &request.columns {
            match &column.origin {
                Origin::Value => {
                    layout.push(From::Value(values.len()));
                    values.push(column.field.clone());
                }
                Origin::Metadata(name) => {
                    layout.push(From::Metadata(metadata.len()));
                    let (topic, amqp) = (&table.endpoint.topic, table.endpoint.login.is_event_hubs());
                    metadata.push(MetadataColumn::new(name, &column.field, topic, amqp)?);
                }
            }
        }
        let event_time = request.event_time.and_then(|bound| match layout[bound.column] {
            From::Value(index) => Some((index, bound.max_ahead)),
            From::Metadata(_) => None,
        });
        let ring = wake.clone();
        let schema_came = Arc::new(move || ring.ring());
        let decoder = Decoder::of(Arc::new(Schema::new(values)), decoding, event_time, schema_came)?;
        let content_type = decoder.reads_content_type();
        let schema = Schema::new(request.columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>());
        let queue = Queue::split_off(served.client().clone(), &table.endpoint.topic, partition, wake)
            .ok_or_else(|| format!("partition {partition} has no queue of its own"))?;
        Ok(KafkaReader {
            queue,
            served: served.clone(),
            reports: reports.clone(),
            place: format!("{}, partition {partition}", table.endpoint.place()),
            login: table.endpoint.login,
            partition,
            decoder,
            content_type,
            metadata,
            schema: Arc::new(schema),
            layout,
            position: start.from.clone(),
            until: start.until,
            at_end: false,
            end: start.from.offset,
            finished: start.until.is_some_and(|until| start.from.offset >= until),
        })
    }

    fn finish(&mut self, rejected: VecDeque<Rejected>, taken: Taken) -> Result<Read, SourceError> {
        let rows = self.decoder.rows();
        let failed = |e| SourceError::failed(&self.place, e);
        let batch = if rows == 0 && taken.records == 0 {
            None
        } else {
            let values = self.decoder.finish().map_err(failed)?;
            let metadata: Vec<ArrayRef> = self.metadata.iter_mut().map(|m| m.finish()).collect();
            let column = |from: &From| match from {
                From::Value(index) => values.column(*index).clone(),
                From::Metadata(index) => metadata[*index].clone(),
            };
            let columns = self.layout.iter().map(column).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Some(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(failed)?)
        };
        // A partition whose broker is away is not idle: it may come back with what was written meanwhile.
        let at_end = self.at_end && self.reports.reaches(self.partition);
        let status = match (self.finished, at_end, taken.full) {
            (true, ..) => ReadStatus::Finished,
            (_, true, _) => ReadStatus::AtEnd,
            (.., true) => ReadStatus::More,
            _ => ReadStatus::Pending,
        };
        Ok(Read {
            batch: batch.filter(|b| b.num_rows() > 0),
            rejected: rejected.into(),
            records: taken.records,
            bytes: taken.bytes,
            position: self.position.clone(),
            log_time: taken.log_time,
            status,
        })
    }

    /// A login that brokers refuse, and go on refusing, does not heal by waiting.
    fn check_login(&self) -> Result<(), SourceError> {
        match self.reports.lasting_refusal() {
            None => Ok(()),
            Some(refusal) => {
                let what = format!(
                    "the broker no longer lets us in: {refusal}. {}",
                    self.login.remedy(&refusal, Purpose::Read)
                );
                Err(SourceError::failed(&self.place, what))
            }
        }
    }

    /// Confirms that what was taken came from the topic that was read so far. A fetch names the topic by its id, so
    /// another topic's messages come only after the client said that it goes over to that one.
    fn check_incarnation(&self, taken: bool) -> Result<(), SourceError> {
        if taken {
            self.served.handle();
        }
        match &self.position.incarnation {
            Some(read) if self.reports.is_another_than(read) => {
                let now = self.reports.incarnation().unwrap_or_default();
                let what = format!("the job read the topic with the id {read}, and now there is one with the id {now}");
                Err(SourceError::Gone { place: self.place.clone(), what, remedy: MADE_AGAIN.into() })
            }
            _ => Ok(()),
        }
    }

    /// Errors that heal are librdkafka's own business; the others end the job, by name.
    fn judge(&self, code: RDKafkaErrorCode, reason: &str) -> Result<(), SourceError> {
        let gone = |what: String, remedy: &str| {
            Err(SourceError::Gone { place: self.place.clone(), what, remedy: remedy.to_string() })
        };
        match code {
            RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => gone(
                format!(
                    "offset {} is not there any more: retention passed the job by, or the topic was made again",
                    self.position.offset
                ),
                "Begin anew under another --name, and lengthen the topic's retention",
            ),
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic => gone(
                "the broker no longer knows this partition".into(),
                "Was the topic deleted? Begin anew under another --name",
            ),
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed => {
                Err(SourceError::failed(&self.place, format!("{reason} ({code}); the right to read is missing")))
            }
            _ => {
                self.reports.error(KafkaError::Global(code), &format!("{}: {reason}", self.place));
                Ok(())
            }
        }
    }
}

/// What one read has taken.
#[derive(Default)]
struct Taken {
    records: usize,
    bytes: usize,
    log_time: Option<i64>,
    full: bool,
}

impl SplitReader for KafkaReader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        self.check_login()?;
        let (mut rejected, mut taken) = (VecDeque::new(), Taken::default());
        while !self.finished {
            if taken.records >= limit.records || taken.bytes >= limit.bytes {
                taken.full = true;
                break;
            }
            match self.queue.next() {
                None => break,
                Some(Came::Record(record)) => {
                    let offset = record.offset();
                    if self.until.is_some_and(|until| offset >= until) {
                        self.finished = true;
                        break;
                    }
                    let (payload, millis) = (record.payload(), record.millis());
                    let time = millis.map(|millis| millis.saturating_mul(1_000_000));
                    let content_type = if self.content_type { content_type(&record) } else { None };
                    let message = |payload| {
                        let content_type = content_type.as_deref().map(str::as_bytes);
                        Message { payload, content_type, log_time: time }
                    };
                    let decoded = payload.map(|payload| self.decoder.take(&message(payload)));
                    self.at_end = false;
                    if let Some(Ok(Decoded::Awaited)) = decoded {
                        let held = record.hold();
                        self.queue.put_back(held);
                        break;
                    }
                    taken.records += 1;
                    taken.bytes += payload.map_or(0, <[u8]>::len);
                    taken.log_time = taken.log_time.max(time);
                    self.position.offset = offset + 1;
                    self.position.last_time = millis;
                    match decoded {
                        None => self.reports.skipped(1),
                        Some(Ok(Decoded::Awaited)) => {}
                        Some(Ok(Decoded::Rows(rows))) => self.metadata.iter_mut().for_each(|m| m.push(&record, rows)),
                        Some(Err(reject)) => rejected.push_back(reject_of(&record, reject, time)),
                    }
                    self.finished = self.until.is_some_and(|until| offset + 1 >= until);
                }
                Some(Came::End(offset)) => {
                    self.at_end = true;
                    self.end = offset;
                    // The last offsets may belong to markers that no reader sees.
                    self.finished = self.until.is_some();
                }
                Some(Came::Failure { code, reason }) => {
                    self.check_incarnation(true)?;
                    self.judge(code, &reason)?;
                }
            }
        }
        self.check_incarnation(taken.records > 0)?;
        if self.position.incarnation.is_none() {
            self.position.incarnation = self.reports.incarnation();
        }
        self.finish(rejected, taken)
    }

    fn lag(&self) -> Option<u64> {
        let read = self.position.offset.max(self.end);
        self.reports.end(self.partition).map(|end| (end - read).max(0) as u64)
    }

    fn observed(&mut self) -> Option<Observed> {
        let formats::Observed { rows, columns, unknown } = self.decoder.observed()?;
        Some(Observed { rows, columns, unknown })
    }
}

/// What a message says of its content; those that came by AMQP say it in its way.
fn content_type(record: &Record<'_>) -> Option<String> {
    header_text(record, CONTENT_TYPE, true)
}

fn reject_of(record: &Record<'_>, reject: formats::Reject, time: Option<i64>) -> Rejected {
    let headers = record.headers().map(|(name, value)| {
        let value = value.map(|v| String::from_utf8_lossy(v).into_owned());
        (name.to_string(), serde_json::json!(value))
    });
    let headers: serde_json::Map<_, _> = headers.collect();
    Rejected {
        payload: record.payload().unwrap_or_default().to_vec(),
        error: reject.error,
        code: reject.code,
        partition: Some(record.partition()),
        offset: Some(record.offset()),
        time,
        key: record.key().map(<[u8]>::to_vec),
        headers: (!headers.is_empty()).then(|| serde_json::Value::Object(headers).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use arrow::datatypes::{DataType, Field};
    use engine::source::{Source, SourceColumn};
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::options::StartAt;
    use crate::producer::Producer;
    use crate::source::KafkaSource;

    const LONG_ENOUGH: Duration = Duration::from_secs(120);

    fn table(topic: &str, properties: &[(String, String)]) -> KafkaTable {
        KafkaTable {
            endpoint: Endpoint {
                table: "events".into(),
                topic: topic.into(),
                properties: properties.to_vec(),
                bearer: None,
                login: Login::Properties,
                purpose: Purpose::Read,
            },
            start: StartAt::Earliest,
            bounded: false,
            group: None,
            discovery: Duration::from_secs(10),
            prefetch: 1 << 20,
            decoding: Decoding { format: formats::Format::RawString, ..Decoding::default() },
            registry: None,
        }
    }

    /// Reads until the reader says this; returns how many records came.
    fn read_until(reader: &mut dyn SplitReader, status: ReadStatus) -> usize {
        let (begun, mut records) = (Instant::now(), 0);
        while begun.elapsed() < LONG_ENOUGH {
            let read = reader.read(ReadLimit { records: 100, bytes: usize::MAX }).expect("what heals is no error");
            records += read.records;
            if read.status == status {
                return records;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{status:?} does not come");
    }

    #[tokio::test]
    async fn a_partition_that_was_read_to_its_end_is_not_at_it_while_its_broker_is_away() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        let properties = [("bootstrap.servers".to_string(), cluster.bootstrap_servers())];
        let producer = Producer::new("events", &properties).unwrap();
        (0..3).for_each(|_| producer.send(Some(0), None, b"payload").unwrap());
        producer.flush(LONG_ENOUGH).unwrap();
        let source = KafkaSource::new(table("events", &properties));
        let field = Arc::new(Field::new("payload", DataType::Utf8, true));
        let request = ReadRequest { columns: vec![SourceColumn { field, origin: Origin::Value }], event_time: None };
        let start = Start { from: Position::at(0), until: None };
        let mut reader = source.open("0", &start, &request, Wake::new(|| {})).await.unwrap();
        assert_eq!(read_until(&mut *reader, ReadStatus::AtEnd), 3);
        cluster.broker_down(1).unwrap();
        assert_eq!(read_until(&mut *reader, ReadStatus::Pending), 0);
        cluster.broker_up(1).unwrap();
        assert_eq!(
            read_until(&mut *reader, ReadStatus::AtEnd),
            0,
            "the broker says it only once, and it is true again"
        );
    }
}
