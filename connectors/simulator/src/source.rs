//! The simulator as a source: nothing has to be sent anywhere to try a query.
//!
//! Events are dealt to the partitions in turn; a copy lands in any partition, as with a Kafka sender that gives no key.
//! A position counts *turns*: in turn k partition p of P brings event k·P + p and the copies that fell to it of the P
//! events up to this one. All of it is a function of the settings, so a replay brings the same messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use async_trait::async_trait;
use engine::connector::{Connector, OptionKind, OptionSpec, Origin, Problem, TableSpec};
use engine::source::{
    Position, Read, ReadLimit, ReadRequest, ReadStatus, Rejected, Source, SourceError, SplitReader, Start, Wake,
};
use formats::{Decoder, Format, JsonOptions};

use crate::generator::{Generator, Settings};
use crate::random::Random;

/// `connector = 'simulator'`.
pub struct SimulatorConnector;

impl Connector for SimulatorConnector {
    fn name(&self) -> &'static str {
        "simulator"
    }

    fn options(&self) -> Vec<OptionSpec> {
        const PACE: OptionKind = OptionKind::OneOf(&[&["clock"], &["none"]]);
        vec![
            OptionSpec::new("rate", OptionKind::Integer, "events a second, without copies; 1000 unless said")
                .aliases(&["event_rate", "rows-per-second"]),
            OptionSpec::new("devices", OptionKind::Integer, "devices of each instance; 1000 unless said"),
            OptionSpec::new("instances", OptionKind::Integer, "simulators side by side, all with the same device ids"),
            OptionSpec::new("partitions", OptionKind::Integer, "splits of the table; 4 unless said"),
            OptionSpec::new(
                "duplicate_every",
                OptionKind::Integer,
                "one message in so many is sent again; 1000 unless said, 0: none",
            ),
            OptionSpec::new("seed", OptionKind::Integer, "the same seed tells the same story"),
            OptionSpec::new("count", OptionKind::Integer, "end after so many events, without copies")
                .aliases(&["message_count", "number-of-rows"]),
            OptionSpec::new("duration", OptionKind::Duration, "end after the events of so long a time"),
            OptionSpec::new("pace", PACE, "clock: each event when it is due; none: as fast as they are read"),
        ]
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        let mut problems = vec![];
        for column in &table.columns {
            if let Origin::Metadata(name) = &column.origin
                && let Err(message) = Metadata::of(name, &column.field)
            {
                problems.push(Problem::column(column.field.name(), message));
            }
        }
        let mut number = |name: &str, default: i64, least: i64, most: i64| {
            let value = table.options.integer(name).unwrap_or(default);
            if !(least..=most).contains(&value) {
                problems.push(Problem::option(name, format!("{name} lies between {least} and {most}; found {value}")));
            }
            value.clamp(least, most)
        };
        let settings = Settings {
            rate: number("rate", 1000, 1, 10_000_000) as f64,
            devices: number("devices", 1000, 1, 1_000_000) as u32,
            instances: number("instances", 1, 1, 100) as u32,
            duplicate_every: number("duplicate_every", 1000, 0, i64::from(u32::MAX)) as u32,
            seed: number("seed", 0, i64::MIN, i64::MAX) as u64,
            start: 0,
        };
        let partitions = number("partitions", 4, 1, 1024) as u64;
        let count = table.options.integer("count").map(|_| number("count", 0, 0, i64::MAX) as u64);
        let until = table.options.duration("duration").map(|d| (d.as_secs_f64() * settings.rate).round() as u64);
        if count.is_some() && until.is_some() {
            problems.push(Problem::option("duration", "give a count or a duration, not both"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Arc::new(SimulatorSource {
            name: table.name.clone(),
            settings,
            partitions,
            count: count.or(until),
            paced: table.options.get("pace") != Some("none"),
            began: OnceLock::new(),
        }))
    }
}

struct SimulatorSource {
    name: String,
    /// Without their start, which the job log keeps.
    settings: Settings,
    partitions: u64,
    /// Events in all; `None`: there is no end.
    count: Option<u64>,
    paced: bool,
    /// When a fresh job's devices start, the same for all partitions.
    began: OnceLock<i64>,
}

impl SimulatorSource {
    fn place(&self, split: &str) -> String {
        format!("table {}, simulated partition {split}", self.name)
    }

    /// What the story of a split depends on, so that a changed option is noticed: `<start>; <the options>`.
    fn incarnation(&self, start: i64) -> String {
        let Settings { devices, instances, rate, duplicate_every, seed, .. } = &self.settings;
        format!(
            "{start}; rate {rate}, devices {devices}, instances {instances}, duplicate_every {duplicate_every}, seed {seed}, \
             partitions {}",
            self.partitions
        )
    }

    /// When the devices of a recorded story started. The story must be the one that the options tell.
    fn start_of(&self, split: &str, at: &Position) -> Result<i64, SourceError> {
        let recorded = at.incarnation.as_deref().unwrap_or_default();
        let start = recorded.split_once(';').and_then(|(start, _)| start.parse().ok()).unwrap_or_default();
        let told = self.incarnation(start);
        if recorded == told {
            return Ok(start);
        }
        let options = |text: &str| text.split_once("; ").map_or(text.to_string(), |(_, options)| options.to_string());
        Err(SourceError::Gone {
            place: self.place(split),
            what: format!("the job began with {}, and the table says {}", options(recorded), options(&told)),
            remedy: "Other options tell another story: put them back, or begin anew under another --name".into(),
        })
    }

    fn partition(&self, split: &str) -> Result<u64, SourceError> {
        let number = split.parse().ok().filter(|p| *p < self.partitions);
        number.ok_or_else(|| {
            SourceError::failed(self.place(split), "the job log names it, and the table has no such partition")
        })
    }
}

#[async_trait]
impl Source for SimulatorSource {
    fn describe(&self) -> String {
        let Settings { devices, instances, rate, duplicate_every, seed, .. } = &self.settings;
        let end = self.count.map_or("without end".to_string(), |count| format!("{count} in all"));
        format!(
            "simulated events, {rate} a second of {instances} x {devices} devices, {end}, one in {duplicate_every} sent again, \
             seed {seed}"
        )
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.partitions).map(|p| p.to_string()).collect())
    }

    async fn resolve(&self, _: &str, _: bool) -> Result<Start, SourceError> {
        let start = *self.began.get_or_init(now);
        let from = Position { incarnation: Some(self.incarnation(start)), ..Position::at(0) };
        // One turn more than events need: the last ones' copies come behind them.
        let until = self.count.map(|count| if count == 0 { 0 } else { count.div_ceil(self.partitions) as i64 + 1 });
        Ok(Start { from, until })
    }

    async fn verify(&self, split: &str, at: &Position) -> Result<(), SourceError> {
        self.partition(split)?;
        self.start_of(split, at).map(|_| ())
    }

    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError> {
        let failed = |what: String| SourceError::failed(self.place(split), what);
        let settings = Settings { start: self.start_of(split, &start.from)?, ..self.settings.clone() };
        let rows = Rows::of(request).map_err(failed)?;
        Ok(Box::new(SimulatorReader {
            place: self.place(split),
            seed: settings.seed,
            generator: Generator::new(settings),
            partition: self.partition(split)?,
            partitions: self.partitions,
            count: self.count.unwrap_or(u64::MAX),
            position: start.from.clone(),
            until: start.until,
            rows,
            payload: vec![],
            alarm: self.paced.then(|| Alarm { wake, set: Arc::default(), runtime: tokio::runtime::Handle::current() }),
        }))
    }
}

/// Rings when the next event is due.
struct Alarm {
    wake: Wake,
    set: Arc<AtomicBool>,
    runtime: tokio::runtime::Handle,
}

impl Alarm {
    fn set(&self, after: Duration) {
        if !self.set.swap(true, Ordering::AcqRel) {
            let (wake, set) = (self.wake.clone(), self.set.clone());
            self.runtime.spawn(async move {
                tokio::time::sleep(after).await;
                set.store(false, Ordering::Release);
                wake.ring();
            });
        }
    }
}

struct SimulatorReader {
    place: String,
    seed: u64,
    generator: Generator,
    partition: u64,
    partitions: u64,
    count: u64,
    position: Position,
    until: Option<i64>,
    rows: Rows,
    payload: Vec<u8>,
    /// `None`: events come as fast as they are read.
    alarm: Option<Alarm>,
}

/// The domain of the draws that send copies to partitions.
const PARTITIONS: u64 = 4;

impl SimulatorReader {
    /// Takes one turn.
    fn turn(&mut self, taken: &mut Read) {
        let own = self.position.offset as u64 * self.partitions + self.partition;
        let first = (own + 1).saturating_sub(self.partitions);
        for event in first..=own.min(self.count.saturating_sub(1)) {
            let copies = self.generator.copies(event);
            let mut draws = Random::of(self.seed, PARTITIONS, event);
            let here = (0..copies).filter(|_| draws.below(self.partitions) == self.partition).count();
            for _ in 0..here + usize::from(event == own) {
                self.message(event, taken);
            }
        }
        self.position.offset += 1;
    }

    fn message(&mut self, event: u64, taken: &mut Read) {
        self.payload.clear();
        self.generator.write(event, &mut self.payload);
        let due = self.generator.due(event);
        taken.records += 1;
        taken.bytes += self.payload.len();
        taken.log_time = taken.log_time.max(Some(due));
        match self.rows.decoder.push(&self.payload, Some(due)) {
            Ok(_) => {
                self.rows.times.push(due);
                self.rows.offsets.push(self.position.offset);
            }
            Err(reject) => taken.rejected.push(Rejected {
                payload: self.payload.clone(),
                error: reject.error,
                code: reject.code,
                partition: Some(self.partition as i32),
                offset: Some(self.position.offset),
                time: Some(due),
                key: None,
                headers: None,
            }),
        }
    }

    /// How long until this turn's event is due.
    fn wait(&self) -> Option<Duration> {
        self.alarm.as_ref()?;
        let own = self.position.offset as u64 * self.partitions + self.partition;
        let due = self.generator.due(own.min(self.count.saturating_sub(1)));
        Some(due - now()).filter(|left| *left > 0).map(|left| Duration::from_nanos(left as u64))
    }
}

impl SplitReader for SimulatorReader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        let mut taken = Read {
            batch: None,
            rejected: vec![],
            records: 0,
            bytes: 0,
            position: self.position.clone(),
            log_time: None,
            status: ReadStatus::More,
        };
        while taken.records < limit.records && taken.bytes < limit.bytes {
            if self.until.is_some_and(|until| self.position.offset >= until) {
                taken.status = ReadStatus::Finished;
                break;
            }
            if let Some(left) = self.wait() {
                if let Some(alarm) = &self.alarm {
                    alarm.set(left);
                }
                taken.status = ReadStatus::AtEnd;
                break;
            }
            self.turn(&mut taken);
        }
        taken.position = self.position.clone();
        taken.batch = self.rows.finish(self.partition).map_err(|e| SourceError::failed(&self.place, e))?;
        Ok(taken)
    }

    fn lag(&self) -> Option<u64> {
        self.until.map(|until| (until - self.position.offset).max(0) as u64)
    }
}

/// Decodes payloads into the columns that were asked for.
struct Rows {
    schema: SchemaRef,
    decoder: Decoder,
    columns: Vec<Column>,
    times: Vec<i64>,
    offsets: Vec<i64>,
}

enum Column {
    Value(usize),
    Metadata(Metadata, DataType),
}

#[derive(Clone, Copy)]
enum Metadata {
    Timestamp,
    Partition,
    Offset,
}

impl Metadata {
    fn of(name: &str, field: &FieldRef) -> Result<Self, String> {
        match (name, field.data_type()) {
            ("timestamp", DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Int64) => Ok(Metadata::Timestamp),
            ("partition", DataType::Int32 | DataType::Int64) => Ok(Metadata::Partition),
            ("offset", DataType::Int64) => Ok(Metadata::Offset),
            ("timestamp" | "partition" | "offset", other) => {
                Err(format!("column {}: metadata {name:?} cannot have the type {other}", field.name()))
            }
            _ => Err(format!("column {}: no metadata {name:?}; there are timestamp, partition, offset", field.name())),
        }
    }
}

impl Rows {
    fn of(request: &ReadRequest) -> Result<Rows, String> {
        let (mut values, mut columns) = (vec![], vec![]);
        for column in &request.columns {
            match &column.origin {
                Origin::Value => {
                    columns.push(Column::Value(values.len()));
                    values.push(column.field.clone());
                }
                Origin::Metadata(name) => {
                    columns.push(Column::Metadata(Metadata::of(name, &column.field)?, column.field.data_type().clone()))
                }
            }
        }
        let event_time = request.event_time.and_then(|bound| match columns[bound.column] {
            Column::Value(index) => Some((index, bound.max_ahead)),
            Column::Metadata(..) => None,
        });
        let decoder = Decoder::new(Arc::new(Schema::new(values)), Format::Json, JsonOptions::default(), event_time)?;
        let schema = Arc::new(Schema::new(request.columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>()));
        Ok(Rows { schema, decoder, columns, times: vec![], offsets: vec![] })
    }

    fn finish(&mut self, partition: u64) -> Result<Option<RecordBatch>, ArrowError> {
        let (times, offsets) = (std::mem::take(&mut self.times), std::mem::take(&mut self.offsets));
        let values = self.decoder.finish()?;
        let rows = times.len();
        let column = |column: &Column| -> ArrayRef {
            match column {
                Column::Value(index) => values.column(*index).clone(),
                Column::Metadata(Metadata::Timestamp, DataType::Int64) => {
                    Arc::new(Int64Array::from_iter_values(times.iter().map(|t| t / 1_000_000)))
                }
                Column::Metadata(Metadata::Timestamp, data_type) => {
                    Arc::new(TimestampNanosecondArray::from(times.clone()).with_data_type(data_type.clone()))
                }
                Column::Metadata(Metadata::Partition, DataType::Int32) => {
                    Arc::new(Int32Array::from_value(partition as i32, rows))
                }
                Column::Metadata(Metadata::Partition, _) => Arc::new(Int64Array::from_value(partition as i64, rows)),
                Column::Metadata(Metadata::Offset, _) => Arc::new(Int64Array::from(offsets.clone())),
            }
        };
        let columns = self.columns.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok((rows > 0).then_some(batch))
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use arrow::array::AsArray;
    use arrow::datatypes::{Field, TimestampNanosecondType};
    use engine::connector::{ColumnSpec, Options};
    use engine::source::SourceColumn;

    use super::*;

    fn table(options: &[(&str, &str)]) -> TableSpec {
        let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let column =
            |name: &str, data_type, origin| ColumnSpec { field: Arc::new(Field::new(name, data_type, true)), origin };
        TableSpec {
            name: "events".into(),
            columns: vec![
                column("eventId", DataType::Utf8, Origin::Value),
                column("createdAt", instant.clone(), Origin::Value),
                column("enqueuedAt", instant, Origin::Metadata("timestamp".into())),
                column("partitionId", DataType::Int32, Origin::Metadata("partition".into())),
            ],
            primary_key: vec![],
            partition_by: vec![],
            options: Options(options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
        }
    }

    fn source(options: &[(&str, &str)]) -> Arc<dyn Source> {
        SimulatorConnector.source(&table(options)).expect("the options are right")
    }

    fn request() -> ReadRequest {
        let columns = table(&[]).columns.into_iter().map(|c| SourceColumn { field: c.field, origin: c.origin });
        ReadRequest { columns: columns.collect(), event_time: None }
    }

    /// Ids by split, read by a process that dies after every `step` records.
    async fn read(options: &[(&str, &str)], step: usize) -> BTreeMap<String, Vec<String>> {
        let first = source(options);
        let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for split in first.splits().await.unwrap() {
            let mut start = first.resolve(&split, false).await.unwrap();
            let mut finished = false;
            while !finished {
                let process = source(options);
                process.verify(&split, &start.from).await.unwrap();
                let mut reader = process.open(&split, &start, &request(), Wake::new(|| {})).await.unwrap();
                let read = reader.read(ReadLimit { records: step, bytes: usize::MAX }).unwrap();
                let of_split = ids.entry(split.clone()).or_default();
                if let Some(batch) = &read.batch {
                    of_split.extend(batch.column(0).as_string::<i32>().iter().flatten().map(String::from));
                    let times = |column: usize| batch.column(column).as_primitive::<TimestampNanosecondType>();
                    // The text of a device's time has seven digits.
                    let made =
                        times(1).values().iter().zip(times(2).values()).all(|(made, sent)| *made == sent / 100 * 100);
                    assert!(made, "what is enqueued was just made");
                    assert_eq!(
                        batch.column(3).as_primitive::<arrow::datatypes::Int32Type>().value(0).to_string(),
                        split
                    );
                }
                start.from = read.position;
                finished = read.status == ReadStatus::Finished;
            }
        }
        ids
    }

    const MANY: &[(&str, &str)] = &[
        ("pace", "none"),
        ("count", "5003"),
        ("duplicate_every", "10"),
        ("partitions", "3"),
        ("seed", "5"),
        ("instances", "2"),
    ];

    #[tokio::test]
    async fn every_event_comes_once_its_copies_beside_it_and_some_in_other_partitions() {
        let mut expected: BTreeMap<String, u32> = BTreeMap::new();
        let settings = Settings { instances: 2, duplicate_every: 10, seed: 5, ..Settings::default() };
        for event in Generator::new(settings).take(5003) {
            expected.insert(uuid::Uuid::from_u128(event.id).to_string(), 1 + event.copies);
        }
        let splits = read(MANY, usize::MAX).await;
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        splits.values().flatten().for_each(|id| *found.entry(id.clone()).or_default() += 1);
        assert_eq!(found, expected);
        let [a, b]: [BTreeSet<&String>; 2] = ["0", "1"].map(|s| splits[s].iter().collect());
        assert!(a.intersection(&b).count() > 50, "copies travel in other partitions than their events");
    }

    #[tokio::test]
    async fn a_replay_from_any_position_brings_the_same_messages() {
        // The start is part of the position; what is compared are ids, which do not depend on it.
        let whole = read(MANY, usize::MAX).await;
        for step in [1, 13, 1000] {
            assert_eq!(read(MANY, step).await, whole, "in steps of {step}");
        }
    }

    #[tokio::test]
    async fn paced_events_come_when_they_are_due_and_the_reader_rings() {
        let source = source(&[("rate", "50"), ("devices", "5"), ("partitions", "1"), ("duration", "1 s")]);
        let start = source.resolve("0", false).await.unwrap();
        let rung = Arc::new(tokio::sync::Notify::new());
        let bell = rung.clone();
        let mut reader = source.open("0", &start, &request(), Wake::new(move || bell.notify_one())).await.unwrap();
        let (mut rows, begun) = (0, std::time::Instant::now());
        loop {
            let read = reader.read(ReadLimit { records: 1000, bytes: 1 << 20 }).unwrap();
            if let Some(batch) = &read.batch {
                rows += batch.num_rows();
                let due = batch.column(2).as_primitive::<TimestampNanosecondType>();
                assert!(due.values().iter().all(|due| *due <= now()), "nothing comes before it is due");
            }
            match read.status {
                ReadStatus::Finished => break,
                _ => tokio::time::timeout(Duration::from_secs(60), rung.notified()).await.expect("the reader rings"),
            }
        }
        assert!(rows >= 50, "{rows} events");
        assert!(begun.elapsed() > Duration::from_millis(700), "a second's events take a second: {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn other_options_are_another_story_and_refused_by_name() {
        let start = source(MANY).resolve("0", false).await.unwrap();
        let other = source(&[("pace", "none"), ("partitions", "3"), ("seed", "6")]);
        let error = other.verify("0", &start.from).await.unwrap_err().to_string();
        assert!(error.contains("seed 5") && error.contains("seed 6") && error.contains("begin anew"), "{error}");
    }

    #[test]
    fn wrong_options_are_all_said() {
        let mut wrong = table(&[("rate", "0"), ("partitions", "-1"), ("count", "1"), ("duration", "1 s")]);
        wrong.columns[3].origin = Origin::Metadata("topic".into());
        let problems = SimulatorConnector.source(&wrong).err().unwrap();
        assert_eq!(problems.len(), 4, "{problems:?}");
    }
}
