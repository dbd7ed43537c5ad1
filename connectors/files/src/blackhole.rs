//! Takes rows and forgets them: for measuring everything before the sink.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use engine::connector::{Connector, OptionSpec, Problem, TableSpec};
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter, Token};
use futures::future::BoxFuture;

/// `connector = 'blackhole'`.
pub struct BlackholeConnector;

impl Connector for BlackholeConnector {
    fn name(&self) -> &'static str {
        "blackhole"
    }
    fn options(&self) -> Vec<OptionSpec> {
        vec![]
    }
    fn sink(&self, _: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Ok(Arc::new(Blackhole))
    }
}

pub struct Blackhole;

#[async_trait]
impl Sink for Blackhole {
    fn describe(&self) -> String {
        "blackhole".into()
    }
    fn guarantee(&self) -> String {
        "rows are counted and forgotten".into()
    }
    async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
        Ok(())
    }
    fn writer(&self, _: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(Blackhole))
    }
    async fn commit(&self, _: &SinkContext, _: &[Committable]) -> Result<Committed, SinkError> {
        Ok(Committed::Done)
    }
}

impl SinkWriter for Blackhole {
    fn write(&mut self, _: &RecordBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        Box::pin(async { Ok(None) })
    }
}
