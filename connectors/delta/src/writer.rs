//! One worker's hand in the table: encodes on the worker's thread, uploads on the I/O runtime.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{partition, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::sink::{SinkContext, SinkError, SinkWriter, Token};
use futures::future::{BoxFuture, join_all};
use object_store::ObjectStore;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::options::DeltaOptions;
use crate::parquet_file::{DataFile, ParquetFile, to_stored};
use crate::partitioning::{folder, value_texts};
use crate::schema::stored;
use crate::upload::upload;

/// Files of one open epoch that may be on their way at once; at this, the sources wait.
const UPLOADS: usize = 4;

type Partition = Vec<Option<String>>;

pub struct DeltaWriter {
    options: Arc<DeltaOptions>,
    context: SinkContext,
    store: Arc<dyn ObjectStore>,
    /// Of whole rows, as stored.
    schema: SchemaRef,
    /// Of a file: without the partition columns, whose values stand in the log.
    file_schema: SchemaRef,
    partition_columns: Vec<usize>,
    /// Partition columns of the table that the job does not have: NULL in each of its rows.
    absent: Vec<String>,
    file_columns: Vec<usize>,
    open: HashMap<Partition, ParquetFile>,
    uploads: Vec<JoinHandle<Result<DataFile, SinkError>>>,
    uploading: Arc<AtomicUsize>,
}

impl DeltaWriter {
    pub fn new(
        options: Arc<DeltaOptions>,
        context: SinkContext,
        store: Arc<dyn ObjectStore>,
        partition_by: &[String],
    ) -> Self {
        let schema = stored(&context.schema);
        let is_partition = |name: &str| partition_by.iter().any(|p| p == name);
        let of = |wanted: bool| {
            (0..schema.fields().len()).filter(|i| is_partition(schema.field(*i).name()) == wanted).collect::<Vec<_>>()
        };
        let (partition_columns, file_columns) = (of(true), of(false));
        let absent = partition_by.iter().filter(|p| schema.index_of(p).is_err()).cloned().collect();
        let file_fields: Vec<_> = file_columns.iter().map(|i| schema.field(*i).clone()).collect();
        DeltaWriter {
            options,
            context,
            store,
            file_schema: Arc::new(Schema::new(file_fields)),
            schema,
            partition_columns,
            absent,
            file_columns,
            open: HashMap::new(),
            uploads: vec![],
            uploading: Arc::default(),
        }
    }

    fn failed(&self, error: impl std::fmt::Display) -> SinkError {
        SinkError::failed(&self.options.path, error)
    }

    fn append(&mut self, partition: Partition, rows: &RecordBatch) -> Result<(), SinkError> {
        let rows = rows.project(&self.file_columns).map_err(|e| self.failed(e))?;
        if !self.open.contains_key(&partition) {
            let file = ParquetFile::new(self.file_schema.clone(), self.options.encodings, &rows);
            self.open.insert(partition.clone(), file.map_err(|e| self.failed(e))?);
        }
        let Some(file) = self.open.get_mut(&partition) else { return Ok(()) };
        let path = &self.options.path;
        file.write(&rows).map_err(|e| SinkError::failed(path, e))?;
        if file.size() >= self.options.target_file_size {
            self.close(&partition)?;
        }
        Ok(())
    }

    /// Closes a file and sends it on its way, under a name that nobody can make again.
    fn close(&mut self, partition: &Partition) -> Result<(), SinkError> {
        let Some(file) = self.open.remove(partition) else { return Ok(()) };
        let rows = file.rows;
        let (body, stats) = file.close().map_err(|e| self.failed(e))?;
        let names = self.partition_columns.iter().map(|i| self.schema.field(*i).name().clone());
        let absent = self.absent.iter().map(|name| (name.clone(), None));
        let partition_values: BTreeMap<_, _> = names.zip(partition.iter().cloned()).chain(absent).collect();
        let path = format!("{}part-{}.parquet", folder(&partition_values), self.context.names.next());
        let file = DataFile { path, size: body.content_length() as u64, rows, partition_values, stats };
        let (store, uploading, metrics) = (self.store.clone(), self.uploading.clone(), self.context.metrics.clone());
        uploading.fetch_add(1, Ordering::Relaxed);
        self.uploads.push(self.context.runtime.spawn(async move {
            let uploaded = upload(&store, &file.path, body, &metrics).await;
            uploading.fetch_sub(1, Ordering::Relaxed);
            uploaded.map(|()| file)
        }));
        Ok(())
    }

    fn partitions(&self, rows: &RecordBatch) -> Result<Vec<(Partition, RecordBatch)>, SinkError> {
        let columns: Vec<_> = self.partition_columns.iter().map(|i| rows.column(*i).clone()).collect();
        let failed = |e: ArrowError| self.failed(e);
        let texts = columns.iter().map(value_texts).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let mut groups: BTreeMap<Partition, Vec<u32>> = BTreeMap::new();
        // Neighbours mostly go to the same partition: what a row costs is a comparison.
        for run in partition(&columns).map_err(failed)?.ranges() {
            let values = texts.iter().map(|text| text.is_valid(run.start).then(|| text.value(run.start).to_string()));
            let rows = run.start as u32..run.end as u32;
            groups.entry(values.collect()).or_default().extend(rows);
        }
        if groups.len() == 1 {
            return Ok(groups.into_keys().map(|partition| (partition, rows.clone())).collect());
        }
        let take = |(partition, indices)| {
            Ok((partition, take_record_batch(rows, &UInt32Array::from(indices)).map_err(failed)?))
        };
        groups.into_iter().map(take).collect()
    }
}

impl SinkWriter for DeltaWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let rows = to_stored(batch, &self.schema).map_err(|e| self.failed(e))?;
        if self.partition_columns.is_empty() {
            return self.append(vec![], &rows);
        }
        self.partitions(&rows)?.into_iter().try_for_each(|(partition, rows)| self.append(partition, &rows))
    }

    fn ready(&self) -> bool {
        self.uploading.load(Ordering::Relaxed) < UPLOADS
    }

    fn buffered(&self) -> usize {
        self.open.values().map(ParquetFile::size).sum()
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        let mut partitions: Vec<Partition> = self.open.keys().cloned().collect();
        partitions.sort();
        let closed = partitions.iter().try_for_each(|p| self.close(p));
        let uploads = std::mem::take(&mut self.uploads);
        let path = self.options.path.clone();
        Box::pin(async move {
            closed?;
            let uploads = join_all(uploads).await.into_iter();
            let files = uploads.map(|done| done.map_err(|e| SinkError::failed(&path, e))?);
            let files = files.collect::<Result<Vec<DataFile>, SinkError>>()?;
            Ok((!files.is_empty()).then(|| json!({"files": files})))
        })
    }
}
