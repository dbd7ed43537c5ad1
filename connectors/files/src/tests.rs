//! Stories of folders that are read and written.

mod avro;
mod lookup;
mod reading;
mod shown;
mod writing;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use engine::connector::{ColumnSpec, Connector, Options, Origin, TableSpec};
use engine::source::{
    Position, ReadLimit, ReadRequest, ReadStatus, Rejected, Source, SourceColumn, SourceError, SplitReader, Start, Wake,
};

use crate::FilesystemConnector;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn field(name: &str, data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, data_type, nullable))
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// A table of orders in a folder.
fn table(path: &Path, options: &[(&str, &str)]) -> TableSpec {
    let value = |field| ColumnSpec { field, origin: Origin::Value };
    let metadata = |name: &str, field| ColumnSpec { field, origin: Origin::Metadata(name.into()) };
    let mut all = vec![("path".to_string(), path.display().to_string())];
    all.extend(options.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    TableSpec {
        name: "orders".into(),
        columns: vec![
            value(field("id", DataType::Utf8, false)),
            value(field("n", DataType::Int64, true)),
            metadata("file", field("file", DataType::Utf8, true)),
            metadata("offset", field("at", DataType::Int64, true)),
            metadata("timestamp", field("modified", instant(), true)),
        ],
        primary_key: vec![],
        partition_by: vec![],
        options: Options(all.into_iter().collect()),
    }
}

/// A process that reads the table; another one has another.
struct Reading {
    source: Arc<dyn Source>,
    request: ReadRequest,
}

/// What a split brought: ids, rejects, and where it stands.
#[derive(Default, Debug)]
struct Brought {
    ids: Vec<String>,
    numbers: Vec<i64>,
    rejected: Vec<Rejected>,
    position: Option<Position>,
    finished: bool,
    batches: Vec<RecordBatch>,
}

impl Reading {
    fn of(table: &TableSpec) -> Self {
        let source = FilesystemConnector.source(table).expect("the table can be read");
        let columns = table.columns.iter().map(|c| SourceColumn { field: c.field.clone(), origin: c.origin.clone() });
        Reading { source, request: ReadRequest { columns: columns.collect(), event_time: None } }
    }

    async fn start(&self, split: &str) -> Start {
        self.source.resolve(split, false).await.unwrap()
    }

    async fn open(&self, split: &str, start: &Start) -> Result<Box<dyn SplitReader>, SourceError> {
        self.source.open(split, start, &self.request, Wake::new(|| {})).await
    }

    /// Reads a split from `start`, at most `records` of it.
    async fn read(&self, split: &str, start: &Start, records: usize) -> Result<Brought, SourceError> {
        let mut reader = self.open(split, start).await?;
        drain(&mut *reader, records).await
    }

    /// Everything, as a job that is never interrupted reads it.
    async fn all(&self) -> BTreeBrought {
        let mut all = BTreeBrought::new();
        for split in self.source.splits().await.unwrap() {
            let start = self.start(&split).await;
            let brought = self.read(&split, &start, usize::MAX).await.unwrap();
            assert!(brought.finished, "{split} ends");
            all.insert(split, brought);
        }
        all
    }
}

type BTreeBrought = std::collections::BTreeMap<String, Brought>;

async fn drain(reader: &mut dyn SplitReader, records: usize) -> Result<Brought, SourceError> {
    let mut brought = Brought::default();
    let (mut left, begun) = (records, Instant::now());
    while left > 0 && !brought.finished {
        assert!(begun.elapsed() < PATIENCE, "nothing more came: {brought:?}");
        let read = reader.read(ReadLimit { records: left.min(100), bytes: 1 << 20 })?;
        left = left.saturating_sub(read.records);
        if let Some(batch) = read.batch {
            let ids = batch.column(0).as_string::<i32>();
            brought.ids.extend(ids.iter().flatten().map(String::from));
            brought.numbers.extend(batch.column(1).as_primitive::<Int64Type>().iter().flatten());
            brought.batches.push(batch);
        }
        brought.rejected.extend(read.rejected);
        brought.position = Some(read.position);
        brought.finished = read.status == ReadStatus::Finished;
        if read.status == ReadStatus::Pending {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(brought)
}
