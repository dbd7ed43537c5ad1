//! A source with columns that are made of others, where they must be there before the query runs: a watermark reads
//! them, or a deduplication.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef, TimestampNanosecondType};
use async_trait::async_trait;
use datafusion::physical_expr::PhysicalExpr;

use crate::dead_letter;
use crate::plan::{Step, Transform};
use crate::source::{
    EventTimeBound, Position, Read, ReadLimit, ReadRequest, Source, SourceColumn, SourceError, SplitReader, Start, Wake,
};
use crate::transform::partition;

/// Reads `columns` of a source and delivers `expressions` over them.
pub struct ComputedSource {
    inner: Arc<dyn Source>,
    columns: Vec<SourceColumn>,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
}

impl ComputedSource {
    pub fn new(
        inner: Arc<dyn Source>,
        columns: Vec<SourceColumn>,
        expressions: Vec<Arc<dyn PhysicalExpr>>,
    ) -> ComputedSource {
        ComputedSource { inner, columns, expressions }
    }
}

#[async_trait]
impl Source for ComputedSource {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        self.inner.splits().await
    }

    fn discovery_interval(&self) -> Option<std::time::Duration> {
        self.inner.discovery_interval()
    }

    async fn resolve(&self, split: &str, found_later: bool) -> Result<Start, SourceError> {
        self.inner.resolve(split, found_later).await
    }

    async fn verify(&self, split: &str, at: &Position) -> Result<(), SourceError> {
        self.inner.verify(split, at).await
    }

    async fn probe(&self) -> Result<(), SourceError> {
        self.inner.probe().await
    }

    async fn open(
        &self,
        split: &str,
        start: &Start,
        request: &ReadRequest,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader>, SourceError> {
        let inner = ReadRequest { columns: self.columns.clone(), event_time: None };
        let schema: SchemaRef =
            Arc::new(Schema::new(request.columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>()));
        let steps = vec![Step::Project { expressions: self.expressions.clone(), schema }];
        Ok(Box::new(ComputedReader {
            inner: self.inner.open(split, start, &inner, wake).await?,
            transform: Transform { steps },
            event_time: request.event_time,
            place: format!("{}, split {split}", self.inner.describe()),
        }))
    }

    async fn checkpointed(&self, positions: &[(String, Position)]) {
        self.inner.checkpointed(positions).await
    }
}

struct ComputedReader {
    inner: Box<dyn SplitReader>,
    transform: Transform,
    event_time: Option<EventTimeBound>,
    place: String,
}

impl SplitReader for ComputedReader {
    fn read(&mut self, limit: ReadLimit) -> Result<Read, SourceError> {
        let mut read = self.inner.read(limit)?;
        let Some(batch) = read.batch.take() else { return Ok(read) };
        let (made, failed) = self.transform.run(&batch);
        for failure in failed {
            read.rejected.extend(dead_letter::of_rows(&failure.row, "expression", &failure.error));
        }
        let Some(first) = made.first() else { return Ok(read) };
        let whole = arrow::compute::concat_batches(&first.schema(), &made);
        let whole = whole.map_err(|e| SourceError::failed(&self.place, e))?;
        read.batch = match (self.event_time, read.log_time) {
            (Some(bound), Some(log_time)) => {
                let (near, far) =
                    by_event_time(&whole, bound, log_time).map_err(|e| SourceError::failed(&self.place, e))?;
                let error = "the event time is too far ahead of the log's";
                read.rejected.extend(dead_letter::of_rows(&far, "future-event-time", error));
                Some(near).filter(|b| b.num_rows() > 0)
            }
            _ => Some(whole),
        };
        Ok(read)
    }

    fn lag(&self) -> Option<u64> {
        self.inner.lag()
    }
}

/// The rows whose event time may move a watermark, and those that lie too far ahead of the log's newest timestamp.
fn by_event_time(
    batch: &RecordBatch,
    bound: EventTimeBound,
    log_time: i64,
) -> Result<(RecordBatch, RecordBatch), arrow::error::ArrowError> {
    let latest = log_time.saturating_add(bound.max_ahead.as_nanos() as i64);
    let times = batch.column(bound.column).as_primitive::<TimestampNanosecondType>();
    let near: BooleanArray =
        (0..times.len()).map(|row| Some(times.is_null(row) || times.value(row) <= latest)).collect();
    partition(batch, &near)
}
