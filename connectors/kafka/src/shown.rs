//! What readers at read_committed see of a topic, from its first message to the end that it has when it is asked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use engine::shown::{Shown, Take};
use formats::Timed;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use crate::client::{Client, Reports, configuration_error, consumer};
use crate::endpoint::{ANSWER, Connection, Endpoint};

/// What the client may hold ahead of us.
const PREFETCH: u64 = 64 << 20;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A topic of JSON rows, to be read back.
pub struct KafkaShown {
    pub endpoint: Endpoint,
    /// Of the messages' values.
    pub columns: Vec<FieldRef>,
}

#[async_trait]
impl Shown for KafkaShown {
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let reports = self.endpoint.reports(Arc::default()).await?;
        let asking = Connection::new(&self.endpoint, reports.clone(), &consumer(&self.endpoint, None, 0, 1));
        let asking = asking.map_err(|e| configuration_error(&e))?;
        let partitions = asking.partitions().await?;
        if partitions.is_empty() {
            return Err(format!("{}: the broker knows no such topic", self.endpoint.place()));
        }
        let (endpoint, columns) = (self.endpoint.clone(), self.columns.clone());
        let read = move || read(&endpoint, &reports, &asking, &partitions, columns);
        let rows = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())??;
        rows.finish().try_for_each(|second| {
            let (time, rows) = second?;
            take(Some(time), rows)
        })
    }
}

fn read(
    endpoint: &Endpoint,
    reports: &Reports,
    asking: &Connection,
    partitions: &[i32],
    columns: Vec<FieldRef>,
) -> Result<Timed, String> {
    let failed = |e: KafkaError| format!("{}: {}", endpoint.place(), endpoint.explain(&e, reports));
    let (mut list, mut open) = (TopicPartitionList::new(), HashSet::new());
    for partition in partitions {
        let ask = |client: &Client, within| client.fetch_watermarks(&endpoint.topic, *partition, within);
        let (low, high) = asking.insist(ask).map_err(failed)?;
        if low < high {
            list.add_partition_offset(&endpoint.topic, *partition, Offset::Offset(low)).map_err(failed)?;
            open.insert(*partition);
        }
    }
    let config = consumer(endpoint, None, PREFETCH, partitions.len());
    let client: Client = config.create_with_context(reports.clone()).map_err(failed)?;
    client.assign(&list).map_err(failed)?;
    let (mut rows, mut last) = (Timed::new(columns), Instant::now());
    while !open.is_empty() {
        match client.poll(LOOK_AGAIN) {
            Some(Ok(message)) => {
                last = Instant::now();
                let time = message.timestamp().to_millis().unwrap_or_default();
                let place = |what| format!("partition {}, offset {}: {what}", message.partition(), message.offset());
                rows.push(time, message.payload().unwrap_or_default()).map_err(place)?;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => return Err(failed(error)),
            None if last.elapsed() > ANSWER => return Err(format!("{}: no answer for {ANSWER:?}", endpoint.place())),
            None => {}
        }
    }
    Ok(rows)
}
