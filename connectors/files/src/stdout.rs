//! Rows for a person, or for the next program in a pipe.

use std::io::Write;
use std::sync::Arc;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use bytes::Bytes;
use engine::connector::{Connector, OptionKind, OptionSpec, Problem, TableSpec};
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter, Token};
use futures::future::BoxFuture;
use object_store::path::Path;
use parking_lot::Mutex;
use serde_json::json;

use storage::staging::{stage, staged, unstage};

/// Where rows are printed. It is handed in: only the program itself has a standard output.
pub type Output = Arc<Mutex<dyn Write + Send>>;

/// `connector = 'stdout'`.
pub struct StdoutConnector {
    pub output: Output,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Table,
    JsonLines,
}

impl Connector for StdoutConnector {
    fn name(&self) -> &'static str {
        "stdout"
    }
    fn options(&self) -> Vec<OptionSpec> {
        let forms = OptionKind::OneOf(&[&["table"], &["json", "debug_json"]]);
        vec![OptionSpec::new("format", forms, "table (as usual), or json: one object a line")]
    }
    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        let form = if table.options.get("format") == Some("json") { Form::JsonLines } else { Form::Table };
        Ok(Arc::new(StdoutSink { output: self.output.clone(), form }))
    }
}

struct StdoutSink {
    output: Output,
    form: Form,
}

const PLACE: &str = "standard output";

#[async_trait]
impl Sink for StdoutSink {
    fn describe(&self) -> String {
        match self.form {
            Form::Table => "tables on standard output".into(),
            Form::JsonLines => "JSON lines on standard output".into(),
        }
    }

    fn guarantee(&self) -> String {
        "at least once: printed when the entry is committed; after a crash in between, printed again".into()
    }

    async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
        Ok(())
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(StdoutWriter { form: self.form, context: context.clone(), rows: vec![], bytes: 0 }))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        for token in entries.iter().flat_map(|e| &e.tokens) {
            let path = Path::from(token["path"].as_str().unwrap_or_default());
            // Gone: it was printed before.
            if let Some(text) = staged(&*context.store, &path, PLACE).await? {
                self.print(&text)?;
                unstage(&*context.store, &path, PLACE).await?;
            }
        }
        Ok(Committed::Done)
    }
}

impl StdoutSink {
    fn print(&self, text: &[u8]) -> Result<(), SinkError> {
        let mut output = self.output.lock();
        let printed = output.write_all(text).and_then(|()| output.flush());
        printed.map_err(|e| SinkError::failed(PLACE, e))
    }
}

struct StdoutWriter {
    form: Form,
    context: SinkContext,
    rows: Vec<RecordBatch>,
    bytes: usize,
}

impl StdoutWriter {
    fn text(&mut self) -> Result<Vec<u8>, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut text = vec![];
        match self.form {
            Form::JsonLines => rows.iter().try_for_each(|batch| formats::json_lines(batch, &mut text))?,
            Form::Table => text.extend(format!("{}\n", pretty_format_batches(&rows)?).into_bytes()),
        }
        Ok(text)
    }
}

impl SinkWriter for StdoutWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.bytes += batch.get_array_memory_size();
        self.rows.push(batch.clone());
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.bytes
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        if self.rows.iter().all(|batch| batch.num_rows() == 0) {
            self.rows.clear();
            return Box::pin(async { Ok(None) });
        }
        let text = match self.text() {
            Ok(text) => Bytes::from(text),
            Err(error) => return Box::pin(async move { Err(SinkError::failed(PLACE, error)) }),
        };
        let (store, metrics) = (self.context.store.clone(), self.context.metrics.clone());
        let path = self.context.staging.clone().join(self.context.names.next());
        Box::pin(async move {
            stage(&*store, &path, text, &metrics).await;
            Ok(Some(json!({"path": path.to_string()})))
        })
    }
}
