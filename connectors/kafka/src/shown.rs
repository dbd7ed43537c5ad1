//! What readers at read_committed see of a topic, from its first message to the end that it has when it is asked.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use engine::shown::{Shown, Take};
use formats::Timed;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use crate::client::{Client, Reports, configuration_error, consumer};
use crate::endpoint::{Connection, Endpoint};
use crate::read_back::{read_to, wait_until_settled};
use crate::trouble::Trouble;

/// What the client may hold ahead of us.
const PREFETCH: u64 = 16 << 20;
/// Batches that wait to be taken.
const WAITING: usize = 1;

/// A topic of JSON rows, to be read back.
pub struct KafkaShown {
    pub endpoint: Endpoint,
    /// Of the messages' values.
    pub columns: Vec<FieldRef>,
    /// Whether a message's timestamp says when it became visible, and not what the row says.
    pub timed: bool,
}

#[async_trait]
impl Shown for KafkaShown {
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let reports = self.endpoint.reports(Arc::default()).await?;
        let mut config = consumer(&self.endpoint, None, 0, 1);
        config.set("isolation.level", "read_uncommitted");
        let asking = Connection::new(&self.endpoint, reports.clone(), &config).map_err(|e| configuration_error(&e))?;
        let partitions = asking.partitions().await?;
        if partitions.is_empty() {
            return Err(format!("{}: the broker knows no such topic", self.endpoint.place()));
        }
        let (endpoint, columns, timed) = (self.endpoint.clone(), self.columns.clone(), self.timed);
        let (batches, mut read_so_far) = tokio::sync::mpsc::channel(WAITING);
        let read = move || {
            let hand_over = |time, rows| {
                let nobody = |_| Trouble::Unknown("nobody takes its rows any more".into());
                batches.blocking_send((time, rows)).map_err(nobody)
            };
            read(&endpoint, &reports, &asking, &partitions, Timed::new(columns), timed, hand_over).map_err(|trouble| {
                match trouble {
                    Trouble::Kafka(error) => format!("{}: {}", endpoint.place(), endpoint.explain(&error, &reports)),
                    trouble => format!("{}: {trouble}", endpoint.place()),
                }
            })
        };
        let reading = tokio::task::spawn_blocking(read);
        while let Some((time, rows)) = read_so_far.recv().await {
            take(timed.then_some(time), rows)?;
        }
        reading.await.map_err(|e| e.to_string())?
    }
}

/// Hands over the rows of a topic as they come, with the seconds in which they were written.
fn read(
    endpoint: &Endpoint,
    reports: &Reports,
    asking: &Connection,
    partitions: &[i32],
    mut rows: Timed,
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
    let mut hand_over = |rows: &mut Timed| {
        rows.hand_over().try_for_each(|second| {
            let (time, rows) = second.map_err(Trouble::Unknown)?;
            hand_over(time, rows)
        })
    };
    read_to(&client, &mut goals, |message| {
        let time = message.timestamp().to_millis().filter(|_| timed).unwrap_or_default();
        let place =
            |what| Trouble::Unknown(format!("partition {}, offset {}: {what}", message.partition(), message.offset()));
        rows.push(time, message.payload().unwrap_or_default()).map_err(place)?;
        if rows.is_full() { hand_over(&mut rows) } else { Ok(()) }
    })?;
    hand_over(&mut rows)
}
