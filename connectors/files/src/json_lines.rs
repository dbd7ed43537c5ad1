//! Files of JSON lines, exactly once: staged under a name that nobody makes again, shown by copy-if-absent under a
//! name made of the entry.

use std::sync::Arc;
use std::time::Duration;

use arrow::json::LineDelimitedWriter;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use engine::connector::{Connector, OptionKind, OptionSpec, Problem, TableSpec};
use engine::job_log::put_new;
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter, Token};
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

/// `connector = 'filesystem'`, as a sink of JSON lines.
pub struct FilesystemConnector;

impl Connector for FilesystemConnector {
    fn name(&self) -> &'static str {
        "filesystem"
    }
    fn options(&self) -> Vec<OptionSpec> {
        vec![
            OptionSpec::new("path", OptionKind::Text, "a folder, file://, abfss:// or az:// URL").required(),
            OptionSpec::new("format", OptionKind::OneOf(&[&["json"]]), "json: one object a line"),
        ]
    }
    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        let path = table.options.get("path").unwrap_or_default();
        let (store, root) = open_store(path).map_err(|e| vec![Problem::option("path", e)])?;
        Ok(Arc::new(JsonLinesSink { store, root, place: path.to_string(), limit: None }))
    }
}

/// A folder's store, and the path in it. A local folder is made when it is not there.
pub fn open_store(path: &str) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    if path.contains("://") {
        let url = url::Url::parse(path).map_err(|e| format!("{path}: {e}"))?;
        let options = std::env::vars().map(|(k, v)| (k.to_ascii_lowercase(), v));
        let options = options.filter(|(k, _)| k.starts_with("azure_"));
        let (store, path) = object_store::parse_url_opts(&url, options).map_err(|e| e.to_string())?;
        return Ok((Arc::from(store), path));
    }
    std::fs::create_dir_all(path).map_err(|e| format!("{path}: {e}"))?;
    let store = object_store::local::LocalFileSystem::new_with_prefix(path).map_err(|e| e.to_string())?;
    Ok((Arc::new(store), Path::default()))
}

/// A folder that rows are shown in.
pub struct JsonLinesSink {
    pub store: Arc<dyn ObjectStore>,
    pub root: Path,
    /// For people.
    pub place: String,
    /// Bytes that the folder may hold; then the job stops, so that nothing is lost unnoticed.
    pub limit: Option<u64>,
}

struct JsonLinesWriter {
    store: Arc<dyn ObjectStore>,
    staging: Path,
    context: SinkContext,
    place: String,
    lines: Vec<u8>,
    rows: usize,
}

#[async_trait]
impl Sink for JsonLinesSink {
    fn describe(&self) -> String {
        format!("JSON lines in '{}'", self.place)
    }

    fn guarantee(&self) -> String {
        "exactly once: files are named after their entry and shown by copy-if-absent".into()
    }

    async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
        Ok(())
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(JsonLinesWriter {
            store: self.store.clone(),
            staging: self.root.clone().join("_staging"),
            context: context.clone(),
            place: self.place.clone(),
            lines: vec![],
            rows: 0,
        }))
    }

    async fn commit(&self, _: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        self.check_limit().await?;
        for entry in entries {
            for (ordinal, token) in entry.tokens.iter().enumerate() {
                let staged = Path::from(token["path"].as_str().unwrap_or_default());
                let shown = self.root.clone().join(format!("{:020}-{ordinal}.jsonl", entry.entry));
                self.show(&staged, &shown, entry.entry).await?;
            }
        }
        Ok(Committed::Done)
    }
}

impl JsonLinesSink {
    /// Copies a staged file to its name, once. Staged and shown both gone is a loss, and said.
    async fn show(&self, staged: &Path, shown: &Path, entry: u64) -> Result<(), SinkError> {
        let retry = |e: object_store::Error| SinkError::retry(&self.place, e);
        match self.store.copy_if_not_exists(staged, shown).await {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(object_store::Error::NotFound { .. }) => match self.store.head(shown).await {
                Ok(_) => return Ok(()),
                Err(object_store::Error::NotFound { .. }) => {
                    let what = format!("job log entry {entry} names the staged file {staged}, which is gone");
                    return Err(SinkError::failed(&self.place, what));
                }
                Err(error) => return Err(retry(error)),
            },
            Err(error) => return Err(retry(error)),
        }
        match self.store.delete(staged).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(retry(error)),
        }
    }

    async fn check_limit(&self) -> Result<(), SinkError> {
        let Some(limit) = self.limit else { return Ok(()) };
        let listed: Result<Vec<_>, _> = futures::TryStreamExt::try_collect(self.store.list(Some(&self.root))).await;
        let used: u64 = listed.map_err(|e| SinkError::retry(&self.place, e))?.iter().map(|m| m.size).sum();
        if used > limit {
            let what = format!(
                "the dead letter holds {used} bytes, more than its {limit}: look at what is wrong with the records, then \
                 move the files away, or declare a table with 'dead-letter' = 'true'"
            );
            return Err(SinkError::failed(&self.place, what));
        }
        Ok(())
    }
}

impl SinkWriter for JsonLinesWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let mut writer = LineDelimitedWriter::new(&mut self.lines);
        writer.write(batch).and_then(|()| writer.finish()).map_err(|e| SinkError::failed(&self.place, e))?;
        self.rows += batch.num_rows();
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.lines.len()
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        if self.rows == 0 {
            return Box::pin(async { Ok(None) });
        }
        let (body, rows) = (Bytes::from(std::mem::take(&mut self.lines)), std::mem::take(&mut self.rows));
        let path = self.staging.clone().join(format!("{}.jsonl", self.context.names.next()));
        let store = self.store.clone();
        Box::pin(async move {
            let mut pause = Duration::from_millis(100);
            loop {
                match put_new(&*store, &path, body.clone()).await {
                    Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => break,
                    Err(error) => {
                        tracing::warn!(%path, %error, "a file was not staged; trying again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(10));
                    }
                }
            }
            Ok(Some(json!({"path": path.to_string(), "rows": rows})))
        })
    }
}
