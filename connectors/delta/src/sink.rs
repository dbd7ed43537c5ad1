//! The table as the engine sees it.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::DeltaTable;
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter};
use object_store::ObjectStore;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cause;
use crate::checkpoint::interval;
use crate::commit::{Log, app_id, day_of};
use crate::options::DeltaOptions;
use crate::partitioning::difference;
use crate::parts::Parts;
use crate::protocol::{TIME_WITHOUT_ZONE, has_feature, protocol_for, refusal};
use crate::schema::{delta_schema, has_time_without_zone, reconcile};
use crate::state::TableState;
use crate::store::{Opened, create, entry_path, foreign_file, is_table, lines, missing_folder, place, read_entry};
use crate::upkeep::Upkeep;
use crate::uploads::Destination;
use crate::writer::DeltaWriter;

/// Where writers put their files.
#[derive(Clone)]
struct Target {
    destination: Destination,
    partition_by: Vec<String>,
}

pub struct DeltaSink {
    options: Arc<DeltaOptions>,
    log: tokio::sync::Mutex<Option<Log>>,
    /// Known once the table is open: for writers, which are made on worker threads.
    opened: Mutex<Option<Target>>,
    /// The table as it was when it was looked at: a long log is read once, and from then on only what is new in it.
    looked_at: Mutex<Option<TableState>>,
    upkeep: Upkeep,
}

impl DeltaSink {
    pub fn new(options: DeltaOptions) -> Self {
        let options = Arc::new(options);
        let upkeep = Upkeep::new(options.clone());
        let (opened, looked_at) = (Mutex::new(None), Mutex::new(None));
        DeltaSink { options, log: tokio::sync::Mutex::new(None), opened, looked_at, upkeep }
    }

    fn failed(&self, error: impl std::fmt::Display) -> SinkError {
        SinkError::failed(&self.options.path, error)
    }

    /// Opens or creates the table, checks that it may be written, widens it if asked to.
    async fn prepare_table(&self, context: &SinkContext) -> Result<(TableState, Opened), SinkError> {
        let wanted = delta_schema(&context.schema).map_err(|e| self.failed(e))?;
        loop {
            let looked_at = self.looked_at.lock().take();
            let state = match looked_at {
                Some(state) => state.newer().await?,
                None => {
                    let table = place(&self.options)?;
                    let Some(state) = TableState::newest(&table, &self.options.path).await? else {
                        self.check_empty(&table).await?;
                        self.create(&table.log_store().object_store(None), &wanted).await?;
                        continue;
                    };
                    state
                }
            };
            let opened = state.opened()?;
            match self.fit(&opened, &wanted)? {
                None => return Ok((state, opened)),
                Some(widened) => self.widen(&state.store(), &opened, &widened).await?,
            }
        }
    }

    /// Whether the table takes the job's rows: as it is, or with the wider schema that is returned.
    fn fit(&self, opened: &Opened, wanted: &Value) -> Result<Option<Value>, SinkError> {
        let refused = refusal(&opened.protocol, &opened.schema, &opened.metadata["configuration"]);
        if let Some(reason) = refused.or_else(|| difference(&self.options.partition_by, &opened.partition_by())) {
            return Err(self.failed(reason));
        }
        let widened = reconcile(&opened.schema, wanted, self.options.add_columns).map_err(|e| self.failed(e))?;
        let needs = widened.as_ref().is_some_and(has_time_without_zone);
        if needs && !has_feature(&opened.protocol, TIME_WITHOUT_ZONE) {
            return Err(self.failed(
                "a column to be added is a TIMESTAMP WITHOUT TIME ZONE, for which the table lacks the feature timestampNtz; \
                 CAST it to TIMESTAMP, or set the table's property 'delta.feature.timestampNtz' to 'supported'",
            ));
        }
        Ok(widened)
    }

    /// A new table is made only where nothing else lies.
    async fn check_empty(&self, table: &DeltaTable) -> Result<(), SinkError> {
        let path = &self.options.path;
        let found = foreign_file(&table.log_store().object_store(None), path).await?;
        // Somebody else may have made the table and its first file since.
        match found {
            Some(file) if !is_table(table, path).await? => Err(self.failed(format!(
                "is not a Delta table and not empty (there is {file}); name an empty folder, or convert it first"
            ))),
            _ => Ok(()),
        }
    }

    /// The table's first entry. Somebody else may be faster: then theirs counts.
    async fn create(&self, store: &Arc<dyn ObjectStore>, schema: &Value) -> Result<(), SinkError> {
        let now = chrono::Utc::now().timestamp_millis();
        let actions = [
            json!({"commitInfo": {"timestamp": now, "operation": "CREATE TABLE", "operationParameters": {},
                "engineInfo": concat!("millrace/", env!("CARGO_PKG_VERSION"))}}),
            json!({"protocol": protocol_for(schema)}),
            json!({"metaData": {
                "id": uuid::Uuid::new_v4().to_string(),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": schema.to_string(),
                "partitionColumns": self.options.partition_by,
                "configuration": {},
                "createdTime": now,
            }}),
        ];
        match create(store, &entry_path(0), lines(&actions)).await {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(cause::writing(&self.options.path, &error)),
        }
    }

    async fn widen(&self, store: &Arc<dyn ObjectStore>, opened: &Opened, schema: &Value) -> Result<(), SinkError> {
        let mut metadata = opened.metadata.clone();
        metadata["schemaString"] = json!(schema.to_string());
        let info = json!({"commitInfo": {"timestamp": chrono::Utc::now().timestamp_millis(), "operation": "ADD COLUMNS",
            "operationParameters": {}, "engineInfo": concat!("millrace/", env!("CARGO_PKG_VERSION"))}});
        match create(store, &entry_path(opened.version + 1), lines(&[info, json!({"metaData": metadata})])).await {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(cause::writing(&self.options.path, &error)),
        }
    }

    /// Opens the table and learns which of our writers' entries it shows.
    async fn open_log(&self, context: &SinkContext, writers: &[&str]) -> Result<Log, SinkError> {
        let (state, opened) = self.prepare_table(context).await?;
        let store = state.store();
        let partition_by = opened.partition_by();
        let destination = Destination { store: store.clone(), parts: Parts::of(&self.options)? };
        *self.opened.lock() = Some(Target { destination, partition_by: partition_by.clone() });
        let mut shown = HashMap::new();
        for writer in writers {
            let app = app_id(context, writer);
            if let Some(entry) = state.shown(&app).await? {
                shown.insert(app, entry);
            }
        }
        let path = self.options.path.clone();
        let version = opened.version;
        let checkpoint_every = interval(&opened.metadata["configuration"]);
        let newest = read_entry(&*store, version).await.map_err(|e| cause::reading(&path, &e))?;
        let day = newest.as_deref().and_then(day_of).unwrap_or(0);
        Ok(Log {
            store,
            path,
            version,
            proven: version,
            written: None,
            day,
            opened_day: false,
            shown,
            changed: false,
            checkpoint_every,
            partition_by,
        })
    }
}

#[async_trait]
impl Sink for DeltaSink {
    fn describe(&self) -> String {
        let by = if self.options.partition_by.is_empty() {
            String::new()
        } else {
            format!(" by {}", self.options.partition_by.join(", "))
        };
        let joined = if self.options.compaction { "; small files are joined" } else { "" };
        format!("delta table '{}'{by}{joined}", self.options.path)
    }

    fn guarantee(&self) -> String {
        "exactly once: each entry is one table version with a txn of its number; times are stored in microseconds"
            .into()
    }

    async fn open(&self, context: &SinkContext, probe: bool) -> Result<(), SinkError> {
        if probe {
            if missing_folder(&self.options.path)? {
                return Ok(());
            }
            let table = place(&self.options)?;
            let wanted = delta_schema(&context.schema).map_err(|e| self.failed(e))?;
            let Some(state) = TableState::newest(&table, &self.options.path).await? else {
                return self.check_empty(&table).await;
            };
            self.fit(&state.opened()?, &wanted)?;
            *self.looked_at.lock() = Some(state);
            return Ok(());
        }
        *self.log.lock().await = Some(self.open_log(context, &[&context.writer]).await?);
        Ok(())
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        let opened = self.opened.lock().clone();
        let Target { destination, partition_by } = opened.ok_or_else(|| self.failed("the table is not open"))?;
        Ok(Box::new(DeltaWriter::new(self.options.clone(), context.clone(), destination, &partition_by)))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        let mut log = self.log.lock().await;
        let foreign: Vec<&str> = entries.iter().map(|e| e.writer.as_str()).filter(|w| *w != context.writer).collect();
        if log.as_ref().is_none_or(|l| l.changed) || !foreign.is_empty() {
            let mut writers = foreign;
            writers.push(&context.writer);
            *log = Some(self.open_log(context, &writers).await?);
        }
        let Some(log) = log.as_mut() else { return Err(self.failed("the table is not open")) };
        // Entries of one writer are shown together; those of another one come before or after, never between.
        for run in entries.chunk_by(|a, b| a.writer == b.writer) {
            let before = log.version;
            log.show(context, run).await?;
            self.upkeep.after(log, before, &context.names);
        }
        Ok(Committed::Done)
    }
}
