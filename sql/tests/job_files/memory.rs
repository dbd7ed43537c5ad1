//! A bounded table in memory with two splits, read a few rows at a time, and a sink that keeps what it is given.

use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Schema, TimestampNanosecondType};
use async_trait::async_trait;
use engine::connector::{Connector, OptionSpec, Origin, Problem, TableSpec};
use engine::environment::System;
use engine::job::{Job, JobSettings, Outcome};
use engine::lookup::{Fetched, Loaded, Lookup, LookupError, LookupRequest};
use engine::metrics::Metrics;
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter, Token};
use engine::source::{
    Position, Read, ReadLimit, ReadRequest, ReadStatus, Source, SourceError, SplitReader, Start, Wake,
};
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use sql::{Environment, SourceFile, compile};

/// Few enough that a table makes many batches.
const ROWS_A_READ: usize = 3;
const SPLITS: usize = 2;

/// What a job wrote: by table, in batches as they came.
pub type Written = Vec<(String, RecordBatch)>;

/// Runs a job file over these rows to its end. Tables with `connector = 'rows'` read them, those with
/// `connector = 'kept'` are what is returned, and so is `dead-letter`.
pub async fn run(job: &str, rows: &RecordBatch) -> Written {
    run_with(job, rows, None).await
}

/// The same, and tables with `connector = 'known'` are looked up in these rows.
pub async fn run_with(job: &str, rows: &RecordBatch, known: Option<&RecordBatch>) -> Written {
    let kept = Arc::new(Kept::default());
    let mut connectors: Vec<Arc<dyn Connector>> =
        vec![Arc::new(Rows(rows.clone())), Arc::new(KeptConnector(kept.clone()))];
    connectors.extend(known.map(|known| Arc::new(KnownConnector(known.clone())) as Arc<dyn Connector>));
    let environment = Environment {
        connectors: &connectors,
        variables: &|_| None,
        default_dead_letter: kept.clone(),
        instead_of_sinks: None,
    };
    let file = SourceFile { name: "job.sql".into(), text: job.into() };
    let compiled = compile(&[file], &environment);
    let compiled = compiled.unwrap_or_else(|problems| panic!("{}", problems[0]));
    let (_stop, stop) = tokio::sync::watch::channel(false);
    let job = Job {
        plan: compiled.plan,
        settings: JobSettings { workers: 2, ..JobSettings::default() },
        store: Arc::new(InMemory::new()),
        root: object_store::path::Path::default(),
        environment: Arc::new(System),
        metrics: Arc::new(Metrics::default()),
        stop,
        begun: None,
    };
    assert_eq!(job.run().await.unwrap(), Outcome::Completed);
    let written = kept.0.lock().unwrap();
    written.clone()
}

struct Rows(RecordBatch);

impl Connector for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }
    fn options(&self) -> Vec<OptionSpec> {
        vec![]
    }
    fn source(&self, _: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        Ok(Arc::new(Table(self.0.clone())))
    }
}

struct Table(RecordBatch);

#[async_trait]
impl Source for Table {
    fn describe(&self) -> String {
        "rows in memory".into()
    }
    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..SPLITS).map(|s| s.to_string()).collect())
    }
    async fn resolve(&self, _: &str, _: bool) -> Result<Start, SourceError> {
        Ok(Start { from: Position::at(0), until: None })
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
        let split: u32 = split.parse().unwrap();
        let own: Vec<u32> = (0..self.0.num_rows() as u32).filter(|row| row % SPLITS as u32 == split).collect();
        let rows = take_record_batch(&self.0, &UInt32Array::from(own)).unwrap();
        Ok(Box::new(Reader { rows, request: request.clone(), next: start.from.offset as usize }))
    }
}

struct Reader {
    rows: RecordBatch,
    request: ReadRequest,
    next: usize,
}

impl SplitReader for Reader {
    fn read(&mut self, _: ReadLimit) -> Result<Read, SourceError> {
        let count = ROWS_A_READ.min(self.rows.num_rows() - self.next);
        let part = self.rows.slice(self.next, count);
        self.next += count;
        let log_times = part.column_by_name("enqueuedAt").unwrap();
        let column = |c: &engine::source::SourceColumn| -> ArrayRef {
            match &c.origin {
                Origin::Metadata(name) if name == "timestamp" => log_times.clone(),
                _ => part.column_by_name(c.field.name()).unwrap().clone(),
            }
        };
        let columns = self.request.columns.iter().map(column).collect();
        let fields: Vec<_> = self.request.columns.iter().map(|c| c.field.clone()).collect();
        let status = if self.next == self.rows.num_rows() { ReadStatus::Finished } else { ReadStatus::More };
        Ok(Read {
            batch: (count > 0).then(|| RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()),
            rejected: vec![],
            records: count,
            bytes: 0,
            position: Position::at(self.next as i64),
            log_time: arrow::compute::max(log_times.as_primitive::<TimestampNanosecondType>()),
            status,
        })
    }
}

#[derive(Default)]
struct Kept(Arc<Mutex<Written>>);

struct KeptConnector(Arc<Kept>);

impl Connector for KeptConnector {
    fn name(&self) -> &'static str {
        "kept"
    }
    fn options(&self) -> Vec<OptionSpec> {
        vec![]
    }
    fn sink(&self, _: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Ok(self.0.clone())
    }
}

struct Writer(String, Arc<Mutex<Written>>);

#[async_trait]
impl Sink for Kept {
    fn describe(&self) -> String {
        "kept in memory".into()
    }
    fn guarantee(&self) -> String {
        "none".into()
    }
    async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
        Ok(())
    }
    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(Writer(context.sink.clone(), self.0.clone())))
    }
    async fn commit(&self, _: &SinkContext, _: &[Committable]) -> Result<Committed, SinkError> {
        Ok(Committed::Done)
    }
}

impl SinkWriter for Writer {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.1.lock().unwrap().push((self.0.clone(), batch.clone()));
        Ok(())
    }
    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        Box::pin(async { Ok(None) })
    }
}

struct KnownConnector(RecordBatch);

impl Connector for KnownConnector {
    fn name(&self) -> &'static str {
        "known"
    }
    fn options(&self) -> Vec<OptionSpec> {
        vec![]
    }
    fn lookup(&self, _: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        Ok(Arc::new(Known(self.0.clone())))
    }
}

/// A table that is looked up in.
struct Known(RecordBatch);

impl Known {
    fn columns(&self, request: &LookupRequest) -> RecordBatch {
        let fields: Vec<_> = request.columns.iter().map(|c| c.field.clone()).collect();
        let columns = fields.iter().map(|f| self.0.column_by_name(f.name()).unwrap().clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.0.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap()
    }
}

#[async_trait]
impl Lookup for Known {
    fn describe(&self) -> String {
        "rows in memory".into()
    }
    fn by_key(&self) -> bool {
        true
    }
    async fn fetch(&self, request: &LookupRequest, keys: &RecordBatch) -> Result<Fetched, LookupError> {
        let rows = self.columns(request);
        let as_text = |batch: &RecordBatch, columns: &[usize]| -> Vec<String> {
            let cast = |at: &usize| arrow::compute::cast(batch.column(*at), &DataType::Utf8).unwrap();
            let columns: Vec<ArrayRef> = columns.iter().map(cast).collect();
            let of_row = |row| columns.iter().map(|c| c.as_string::<i32>().value(row)).collect::<Vec<_>>().join("|");
            (0..batch.num_rows()).map(of_row).collect()
        };
        assert!(keys.columns().iter().all(|column| column.null_count() == 0), "NULL equals nothing");
        let all: Vec<usize> = (0..keys.num_columns()).collect();
        let asked = as_text(keys, &all);
        assert!(asked.len() <= 500 && asked.iter().all(|key| asked.iter().filter(|k| *k == key).count() == 1));
        let of_rows = as_text(&rows, &request.keys);
        let found = of_rows.iter().enumerate().filter(|(_, key)| asked.contains(key)).map(|(row, _)| row as u32);
        let found = UInt32Array::from_iter_values(found);
        tokio::task::yield_now().await;
        Ok(Fetched { rows: vec![take_record_batch(&rows, &found).unwrap()], refused: vec![] })
    }
    async fn load(&self, request: &LookupRequest, _: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        assert!(request.keys.is_empty());
        Ok(Loaded::Rows { version: None, rows: vec![self.columns(request)] })
    }
}
