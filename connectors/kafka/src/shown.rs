//! What readers at read_committed see of a topic, from its first message to the end that it has when it is asked.

use std::collections::HashMap;
use std::sync::Arc;

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
const PREFETCH: u64 = 64 << 20;

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
        let read = move || {
            read(&endpoint, &reports, &asking, &partitions, columns, timed).map_err(|trouble| match trouble {
                Trouble::Kafka(error) => format!("{}: {}", endpoint.place(), endpoint.explain(&error, &reports)),
                trouble => format!("{}: {trouble}", endpoint.place()),
            })
        };
        let rows = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())??;
        rows.finish().try_for_each(|second| {
            let (time, rows) = second?;
            take(timed.then_some(time), rows)
        })
    }
}

fn read(
    endpoint: &Endpoint,
    reports: &Reports,
    asking: &Connection,
    partitions: &[i32],
    columns: Vec<FieldRef>,
    timed: bool,
) -> Result<Timed, Trouble> {
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
    let mut rows = Timed::new(columns);
    read_to(&client, &mut goals, |message| {
        let time = message.timestamp().to_millis().filter(|_| timed).unwrap_or_default();
        let place =
            |what| Trouble::Unknown(format!("partition {}, offset {}: {what}", message.partition(), message.offset()));
        rows.push(time, message.payload().unwrap_or_default()).map_err(place)
    })?;
    Ok(rows)
}
