//! One worker's hand in the table: encodes on the worker's thread, uploads on the I/O runtime. A file that becomes large
//! leaves in parts while it grows; most are closed before, and leave whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{partition, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::sink::{SinkContext, SinkError, SinkWriter, Token};
use futures::future::BoxFuture;
use serde_json::json;

use crate::options::DeltaOptions;
use crate::parquet_file::{Closed, DataFile, ParquetFile, to_stored};
use crate::partitioning::{folder, value_texts};
use crate::parts::PART;
use crate::schema::stored;
use crate::uploads::{Destination, Growing, Uploads};

type Partition = Vec<Option<String>>;

/// A file that rows are written into.
struct OpenFile {
    /// A name that nobody can make again.
    path: String,
    partition_values: BTreeMap<String, Option<String>>,
    rows: ParquetFile,
    /// Once its first part has left.
    growing: Option<Growing>,
}

pub struct DeltaWriter {
    options: Arc<DeltaOptions>,
    context: SinkContext,
    /// Of whole rows, as stored.
    schema: SchemaRef,
    /// Of a file: without the partition columns, whose values stand in the log.
    file_schema: SchemaRef,
    partition_columns: Vec<usize>,
    /// Partition columns of the table that the job does not have: NULL in each of its rows.
    absent: Vec<String>,
    file_columns: Vec<usize>,
    open: HashMap<Partition, OpenFile>,
    uploads: Uploads,
}

impl DeltaWriter {
    pub fn new(
        options: Arc<DeltaOptions>,
        context: SinkContext,
        destination: Destination,
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
            uploads: Uploads::new(destination, &context),
            context,
            file_schema: Arc::new(Schema::new(file_fields)),
            schema,
            partition_columns,
            absent,
            file_columns,
            open: HashMap::new(),
        }
    }

    fn failed(&self, error: impl std::fmt::Display) -> SinkError {
        SinkError::failed(&self.options.path, error)
    }

    fn append(&mut self, partition: Partition, rows: &RecordBatch) -> Result<(), SinkError> {
        let rows = rows.project(&self.file_columns).map_err(|e| self.failed(e))?;
        if !self.open.contains_key(&partition) {
            let file = self.open(&partition, &rows)?;
            self.open.insert(partition.clone(), file);
        }
        let Some(file) = self.open.get_mut(&partition) else { return Ok(()) };
        let path = &self.options.path;
        file.rows.write(&rows).map_err(|e| SinkError::failed(path, e))?;
        if file.rows.size() >= self.options.target_file_size {
            return self.close(&partition);
        }
        if file.rows.ready() >= PART && file.growing.is_none() {
            file.growing = self.uploads.begin(&file.path);
        }
        if let Some(growing) = &file.growing {
            while let Some(part) = file.rows.take(PART) {
                growing.send(part);
            }
        }
        Ok(())
    }

    /// `first`: the file's first rows.
    fn open(&self, partition: &Partition, first: &RecordBatch) -> Result<OpenFile, SinkError> {
        let rows = ParquetFile::new(self.file_schema.clone(), self.options.encodings, first);
        let names = self.partition_columns.iter().map(|i| self.schema.field(*i).name().clone());
        let absent = self.absent.iter().map(|name| (name.clone(), None));
        let partition_values: BTreeMap<_, _> = names.zip(partition.iter().cloned()).chain(absent).collect();
        let path = format!("{}part-{}.parquet", folder(&partition_values), self.context.names.next());
        Ok(OpenFile { path, partition_values, rows: rows.map_err(|e| self.failed(e))?, growing: None })
    }

    /// Closes a file and sends what is left of it on its way.
    fn close(&mut self, partition: &Partition) -> Result<(), SinkError> {
        let Some(OpenFile { path, partition_values, rows: file, growing }) = self.open.remove(partition) else {
            return Ok(());
        };
        let rows = file.rows;
        let Closed { mut rest, size, stats } = file.close().map_err(|e| self.failed(e))?;
        let file = DataFile { path, size: size as u64, rows, partition_values, stats };
        let Some(growing) = growing else {
            self.uploads.send(file, rest.into_payload());
            return Ok(());
        };
        while let Some(part) = rest.take(PART) {
            growing.send(part);
        }
        growing.send_last(rest.into_payload(), file);
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
        self.uploads.has_room()
    }

    fn buffered(&self) -> usize {
        self.open.values().map(|file| file.rows.held()).sum::<usize>() + self.uploads.bytes()
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        let mut partitions: Vec<Partition> = self.open.keys().cloned().collect();
        partitions.sort();
        let closed = partitions.iter().try_for_each(|p| self.close(p));
        let mut uploading = self.uploads.take();
        let path = self.options.path.clone();
        Box::pin(async move {
            closed?;
            let mut files = vec![];
            while let Some(uploaded) = uploading.join_next().await {
                files.push(uploaded.map_err(|e| SinkError::failed(&path, e))??);
            }
            files.sort_by(|a: &DataFile, b| a.path.cmp(&b.path));
            Ok((!files.is_empty()).then(|| json!({"files": files})))
        })
    }
}
