//! What readers at read_committed see of a topic, from its first message to the end that it has when it is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use engine::shown::{Shown, Take};
use formats::{Decoding, Message as Payload, Taken, Timed};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;
use schema_registry::Registry;
use tokio::runtime::Handle;

use crate::client::{Client, Reports, configuration_error, consumer};
use crate::endpoint::{Connection, Endpoint};
use crate::messages::CONTENT_TYPE;
use crate::metadata::text_of;
use crate::read_back::{read_to, wait_until_settled};
use crate::trouble::Trouble;

/// What the client may hold ahead of us.
const PREFETCH: u64 = 16 << 20;
/// Batches that wait to be taken.
const WAITING: usize = 1;
/// How long a registry that is there may take to give a schema.
const SCHEMA: Duration = Duration::from_secs(60);

/// A topic of rows, to be read back.
pub struct KafkaShown {
    pub endpoint: Endpoint,
    /// Of the messages' values.
    pub columns: Vec<FieldRef>,
    /// Without what the registry gives: that is asked when the table is read.
    pub decoding: Decoding,
    pub registry: Option<Registry>,
    /// Whether a message's timestamp says when it became visible, and not what the row says.
    pub timed: bool,
}

#[async_trait]
impl Shown for KafkaShown {
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let reports = self.endpoint.reports(Arc::default()).await.map_err(|e| e.to_string())?;
        let mut config = consumer(&self.endpoint, None, 0, 1);
        config.set("isolation.level", "read_uncommitted");
        let asking = Connection::new(&self.endpoint, reports.clone(), &config).map_err(|e| configuration_error(&e))?;
        let partitions = asking.partitions().await?;
        if partitions.is_empty() {
            return Err(format!("{}: the broker knows no such topic", self.endpoint.place()));
        }
        let rows = self.rows().await?;
        let (endpoint, timed) = (self.endpoint.clone(), self.timed);
        let (batches, mut read_so_far) = tokio::sync::mpsc::channel(WAITING);
        let read = move || {
            let hand_over = |time, rows| {
                let nobody = |_| Trouble::Unknown("nobody takes its rows any more".into());
                batches.blocking_send((time, rows)).map_err(nobody)
            };
            read(&endpoint, &reports, &asking, &partitions, rows, timed, hand_over).map_err(|trouble| match trouble {
                Trouble::Kafka(error) => format!("{}: {}", endpoint.place(), endpoint.explain(&error, &reports)),
                trouble => format!("{}: {trouble}", endpoint.place()),
            })
        };
        let reading = tokio::task::spawn_blocking(read);
        while let Some((time, rows)) = read_so_far.recv().await {
            take(timed.then_some(time), rows)?;
        }
        reading.await.map_err(|e| e.to_string())?
    }
}

impl KafkaShown {
    async fn rows(&self) -> Result<Rows, String> {
        let mut decoding = self.decoding.clone();
        if let Some(registry) = &self.registry {
            registry.probe().await.map_err(|e| format!("{}: {e}", registry.place()))?;
            decoding.avro.registry = Some(registry.start(Handle::current()));
        }
        let (came, schemas) = sync_channel(1);
        let wake = Arc::new(move || _ = came.try_send(()));
        Ok(Rows { timed: Timed::new(self.columns.clone(), decoding, wake), schemas })
    }
}

/// Messages on their way to become rows.
struct Rows {
    timed: Timed,
    /// Says when a schema came that was waited for.
    schemas: Receiver<()>,
}

impl Rows {
    fn push(&mut self, time: i64, message: &BorrowedMessage<'_>) -> Result<(), String> {
        // One that deletes its key is no row.
        let Some(payload) = message.payload() else { return Ok(()) };
        let content_type = message.headers().and_then(|headers| headers.iter().find(|h| h.key == CONTENT_TYPE)?.value);
        let content_type = content_type.and_then(|value| text_of(value, true));
        let payload = Payload { payload, content_type: content_type.as_deref().map(str::as_bytes), log_time: None };
        while self.timed.push(time, &payload)? == Taken::Awaited {
            let away = |_| format!("the registry has not given the message's schema for {SCHEMA:?}");
            self.schemas.recv_timeout(SCHEMA).map_err(away)?;
        }
        Ok(())
    }
}

/// Hands over the rows of a topic as they come, with the seconds in which they were written.
fn read(
    endpoint: &Endpoint,
    reports: &Reports,
    asking: &Connection,
    partitions: &[i32],
    mut rows: Rows,
    timed: bool,
    mut hand_over: impl FnMut(i64, RecordBatch) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let (mut list, mut goals) = (TopicPartitionList::new(), HashMap::new());
    for partition in partitions {
        let (low, high) =
            asking.insist(|client: &Client, within| client.fetch_watermarks(&endpoint.topic, *partition, within))?;
        if low < high {
            list.add_partition_offset(&endpoint.topic, *partition, Offset::Offset(low))?;
            goals.insert(*partition, high);
        }
    }
    let mut config = consumer(endpoint, None, PREFETCH, partitions.len());
    config.set("isolation.level", "read_committed").set("client.rack", "");
    let settling = Connection::new(endpoint, reports.clone(), &config)?;
    wait_until_settled(settling.served.client(), &endpoint.topic, &goals)?;
    let client: Client = config.create_with_context(reports.clone())?;
    client.assign(&list)?;
    let mut hand_over = |rows: &mut Rows| {
        rows.timed.hand_over().try_for_each(|second| {
            let (time, rows) = second.map_err(Trouble::Unknown)?;
            hand_over(time, rows)
        })
    };
    read_to(&client, &mut goals, |message| {
        let time = message.timestamp().to_millis().filter(|_| timed).unwrap_or_default();
        let place =
            |what| Trouble::Unknown(format!("partition {}, offset {}: {what}", message.partition(), message.offset()));
        rows.push(time, message).map_err(place)?;
        if rows.timed.is_full() { hand_over(&mut rows) } else { Ok(()) }
    })?;
    hand_over(&mut rows)
}
