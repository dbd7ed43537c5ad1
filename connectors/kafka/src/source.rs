//! A topic as a source: its partitions are the splits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::metrics::SourceMetrics;
use engine::source::{Position, ReadRequest, Source, SourceError, SplitReader, Start, Wake};
use formats::Decoding;
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::client::{Client, Reports, configuration_error};
use crate::described::topic_id;
use crate::endpoint::{ANSWER, Connection, answered, only_offset};
use crate::options::{KafkaTable, StartAt};
use crate::reader::KafkaReader;

/// Group offsets are a courtesy to lag tools: not more often than this.
const GROUP_COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// What to do when a topic is not the one that was read.
pub const MADE_AGAIN: &str = "The topic was made again under the same name. Begin anew under another --name";

pub struct KafkaSource {
    table: KafkaTable,
    connection: OnceCell<Connection>,
    metrics: Mutex<Arc<SourceMetrics>>,
    last_group_commit: Mutex<Option<Instant>>,
    /// With the registry, which all readers ask together.
    decoding: OnceCell<Decoding>,
}

impl KafkaSource {
    pub fn new(table: KafkaTable) -> Self {
        let (metrics, last_group_commit) = (Mutex::default(), Mutex::new(None));
        KafkaSource { table, connection: OnceCell::new(), metrics, last_group_commit, decoding: OnceCell::new() }
    }

    async fn decoding(&self) -> &Decoding {
        let with_registry = async || {
            let mut decoding = self.table.decoding.clone();
            decoding.avro.registry = self.table.registry.as_ref().map(|registry| registry.start(Handle::current()));
            decoding
        };
        self.decoding.get_or_init(with_registry).await
    }

    fn place(&self) -> String {
        self.table.endpoint.place()
    }

    fn failed(&self, what: impl std::fmt::Display) -> SourceError {
        SourceError::failed(self.place(), what)
    }

    async fn connection(&self) -> Result<&Connection, SourceError> {
        self.connection.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connection, SourceError> {
        let endpoint = &self.table.endpoint;
        let metrics = self.metrics.lock().clone();
        let reports = endpoint.reports(metrics).await.map_err(|e| self.failed(e))?;
        let partitions = self.count_partitions(&reports).await?;
        Connection::new(endpoint, reports, &self.table.consumer(partitions))
            .map_err(|e| self.failed(configuration_error(&e)))
    }

    /// Asked by a client that ends with the answer: one that reads has its bounds from its making on. A topic that is
    /// not there has none, and whoever looks for its splits says so.
    async fn count_partitions(&self, reports: &Reports) -> Result<usize, SourceError> {
        let endpoint = &self.table.endpoint;
        let asking = Connection::new(endpoint, reports.clone(), &self.table.consumer(1));
        let asking = asking.map_err(|e| self.failed(configuration_error(&e)))?;
        Ok(asking.partitions().await.map_err(|e| self.failed(e))?.len())
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Client, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, SourceError> {
        self.connection().await?.ask(question).await.map_err(|e| self.failed(e))
    }

    /// The id that tells this topic from one that was made again under its name.
    async fn incarnation(&self) -> Result<Option<String>, SourceError> {
        let topic = self.table.endpoint.topic.clone();
        self.ask(move |client, within| topic_id(client, &topic, within)).await
    }

    async fn range(&self, partition: i32) -> Result<(i64, i64), SourceError> {
        let topic = self.table.endpoint.topic.clone();
        self.ask(move |client, within| client.fetch_watermarks(&topic, partition, within)).await
    }

    fn partition(&self, split: &str) -> Result<i32, SourceError> {
        split.parse().map_err(|_| self.failed(format!("the job log names a partition {split:?}, which is no number")))
    }

    async fn first_offset(&self, partition: i32, found_later: bool) -> Result<i64, SourceError> {
        let (low, high) = self.range(partition).await?;
        if found_later {
            return Ok(low);
        }
        match self.table.start {
            StartAt::Earliest => Ok(low),
            StartAt::Latest => Ok(high),
            StartAt::Committed => Ok(self.committed(partition).await?.unwrap_or(low).max(low)),
            StartAt::Timestamp(millis) => Ok(self.offset_at(partition, millis).await?.unwrap_or(high)),
        }
    }

    async fn committed(&self, partition: i32) -> Result<Option<i64>, SourceError> {
        let list = self.list(partition, Offset::Invalid)?;
        let answer = self.ask(move |client, within| answered(client.committed_offsets(list.clone(), within)?)).await?;
        Ok(only_offset(&answer))
    }

    async fn offset_at(&self, partition: i32, millis: i64) -> Result<Option<i64>, SourceError> {
        let list = self.list(partition, Offset::Offset(millis))?;
        let answer = self.ask(move |client, within| answered(client.offsets_for_times(list.clone(), within)?)).await?;
        Ok(only_offset(&answer))
    }

    fn list(&self, partition: i32, offset: Offset) -> Result<TopicPartitionList, SourceError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.table.endpoint.topic, partition, offset).map_err(|e| self.failed(e))?;
        Ok(list)
    }

    fn gone(&self, partition: i32, what: String, remedy: &str) -> SourceError {
        SourceError::Gone { place: format!("{}, partition {partition}", self.place()), what, remedy: remedy.into() }
    }

    /// The broker's timestamp of one record, in milliseconds.
    async fn time_of(&self, partition: i32, offset: i64) -> Result<Option<i64>, SourceError> {
        let (table, list) = (self.table.clone(), self.list(partition, Offset::Offset(offset))?);
        let reports = self.connection().await?.reports.clone();
        let probe = move || -> Result<Option<i64>, KafkaError> {
            let client: Client = table.consumer(1).create_with_context(reports)?;
            client.assign(&list)?;
            let deadline = Instant::now() + ANSWER;
            while Instant::now() < deadline {
                match client.poll(Duration::from_millis(200)) {
                    Some(Ok(message)) => {
                        return Ok((message.offset() == offset).then(|| message.timestamp().to_millis()).flatten());
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                    _ => {}
                }
            }
            Ok(None)
        };
        let answer = tokio::task::spawn_blocking(probe).await;
        answer.map_err(|e| self.failed(e))?.map_err(|e| self.failed(e))
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn describe(&self) -> String {
        let bound = if self.table.bounded { ", up to the end found at start" } else { "" };
        let registry = self.table.registry.as_ref().map(|registry| format!(", {}", registry.place()));
        format!(
            "kafka topic '{}', {:?}{}{bound}, from {:?}",
            self.table.endpoint.topic,
            self.table.decoding.format,
            registry.unwrap_or_default(),
            self.table.start
        )
    }

    fn watch(&self, metrics: Arc<SourceMetrics>) {
        *self.metrics.lock() = metrics;
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        let partitions = self.connection().await?.partitions().await.map_err(|e| self.failed(e))?;
        if partitions.is_empty() {
            return Err(self.failed("the broker knows no such topic; check the name, and the right to read it"));
        }
        Ok(partitions.iter().map(i32::to_string).collect())
    }

    fn discovery_interval(&self) -> Option<Duration> {
        (!self.table.bounded).then_some(self.table.discovery)
    }

    async fn resolve(&self, split: &str, found_later: bool) -> Result<Start, SourceError> {
        let partition = self.partition(split)?;
        // Asked before the offsets: if the topic is made again in between, the reader finds out.
        let incarnation = self.incarnation().await?;
        let until = if self.table.bounded { Some(self.range(partition).await?.1) } else { None };
        let offset = self.first_offset(partition, found_later).await?;
        Ok(Start { from: Position { offset, incarnation, last_time: None }, until })
    }

    async fn verify(&self, split: &str, at: &Position) -> Result<(), SourceError> {
        let partition = self.partition(split)?;
        if !self.splits().await?.iter().any(|s| s == split) {
            let what = "the job log has a position here, but the topic no longer has this partition".to_string();
            return Err(self.gone(
                partition,
                what,
                "Was the topic made again with fewer partitions? Begin anew under another --name",
            ));
        }
        let found = self.incarnation().await?;
        let known_by_id = at.incarnation.is_some() && found.is_some();
        if let (Some(recorded), Some(found)) = (&at.incarnation, found)
            && *recorded != found
        {
            let what = format!("the job read the topic with the id {recorded}, and this one has the id {found}");
            return Err(self.gone(partition, what, MADE_AGAIN));
        }
        let (low, high) = self.range(partition).await?;
        if at.offset > high {
            let what = format!("the job stands at offset {}, but the topic ends at {high}", at.offset);
            return Err(self.gone(partition, what, "The topic was made again or cut. Begin anew under another --name"));
        }
        if at.offset < low {
            let what =
                format!("the job stands at offset {}, but retention has deleted everything before {low}", at.offset);
            return Err(self.gone(
                partition,
                what,
                "The events between are lost to this job. Begin anew under another --name, and lengthen the topic's retention",
            ));
        }
        // Where no id tells, the record before the position may: it has the timestamp that it had.
        if !known_by_id
            && let Some(expected) = at.last_time
            && at.offset > low
            && let Some(found) = self.time_of(partition, at.offset - 1).await?
            && found != expected
        {
            let what = format!(
                "the record at offset {} has the timestamp {found}, but the one that was read there had {expected}",
                at.offset - 1
            );
            return Err(self.gone(partition, what, MADE_AGAIN));
        }
        Ok(())
    }

    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError> {
        let partition = self.partition(split)?;
        let (connection, decoding) = (self.connection().await?, self.decoding().await);
        let reader = KafkaReader::new(connection, &self.table, decoding, partition, start, request, wake);
        let reader = reader.map_err(|e| self.failed(e))?;
        let list = self.list(partition, Offset::Offset(start.from.offset))?;
        self.ask(move |client, _| client.incremental_assign(&list)).await?;
        Ok(Box::new(reader))
    }

    async fn probe(&self) -> Result<(), SourceError> {
        let Some(registry) = &self.table.registry else { return Ok(()) };
        registry.probe().await.map_err(|e| self.failed(format!("{}: {e}", registry.place())))
    }

    async fn checkpointed(&self, positions: &[(String, Position)]) {
        if self.table.group.is_none() {
            return;
        }
        {
            let mut last = self.last_group_commit.lock();
            if last.is_some_and(|at| at.elapsed() < GROUP_COMMIT_INTERVAL) {
                return;
            }
            *last = Some(Instant::now());
        }
        let mut list = TopicPartitionList::new();
        for (split, position) in positions {
            if let Ok(partition) = split.parse() {
                let _ =
                    list.add_partition_offset(&self.table.endpoint.topic, partition, Offset::Offset(position.offset));
            }
        }
        if let Some(Connection { served, .. }) = self.connection.get()
            && let Err(error) = served.client().commit(&list, rdkafka::consumer::CommitMode::Async)
        {
            tracing::debug!(%error, "the group's offsets were not committed; only lag tools notice");
        }
    }
}
