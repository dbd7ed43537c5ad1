//! What readers of a folder, or of one file, see: the rows of all files that are not hidden.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use async_trait::async_trait;
use bytes::Bytes;
use engine::shown::{Shown, Take};
use formats::{Decoder, Format, JsonOptions};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::file::relative;
use crate::location::Location;
use crate::sink::SinkFormat;
use crate::source::is_visible;

/// Lines of a batch.
const AT_ONCE: usize = 10_000;

pub struct FilesShown {
    pub location: Location,
    pub format: SinkFormat,
    pub columns: Vec<FieldRef>,
}

#[async_trait]
impl Shown for FilesShown {
    /// The rows of a folder's file became visible when it did. One file that grows says nothing of when.
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let Location { store, root, place } = &self.location;
        let failed = |e: object_store::Error| format!("{place}: {e}");
        let listed: Vec<ObjectMeta> = store.list(Some(root)).try_collect().await.map_err(failed)?;
        let mut files: Vec<ObjectMeta> = listed.into_iter().filter(|file| self.is_of_the_table(file)).collect();
        if files.is_empty() {
            let file = store.head(root).await.map_err(|_| format!("{place}: nothing was written to it"))?;
            return self.rows(
                store.get(&file.location).await.map_err(failed)?.bytes().await.map_err(failed)?,
                None,
                take,
            );
        }
        files.sort_by(|one, other| (one.last_modified, &one.location).cmp(&(other.last_modified, &other.location)));
        for file in files {
            let body = store.get(&file.location).await.map_err(failed)?.bytes().await.map_err(failed)?;
            let time = file.last_modified.timestamp_millis();
            self.rows(body, Some(time), take).map_err(|e| format!("{}: {e}", file.location))?;
        }
        Ok(())
    }
}

impl FilesShown {
    fn is_of_the_table(&self, file: &ObjectMeta) -> bool {
        let name = relative(&self.location.root, &file.location);
        name.is_some_and(|name| is_visible(&name) && name.ends_with(self.format.extension()))
    }

    fn rows(&self, body: Bytes, time: Option<i64>, take: &mut Take<'_>) -> Result<(), String> {
        if self.format == SinkFormat::Parquet {
            let rows = ParquetRecordBatchReaderBuilder::try_new(body).and_then(|file| file.build());
            return rows.map_err(|e| e.to_string())?.try_for_each(|rows| take(time, rows.map_err(|e| e.to_string())?));
        }
        let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        for lines in lines.chunks(AT_ONCE) {
            let schema = Arc::new(Schema::new(self.columns.clone()));
            let mut decoder = Decoder::new(schema, Format::Json, JsonOptions::default(), None)?;
            for line in lines {
                let row = decoder.push(line, None);
                row.map_err(|reject| format!("{}: {}", reject.error, String::from_utf8_lossy(line)))?;
            }
            take(time, decoder.finish().map_err(|e| e.to_string())?)?;
        }
        Ok(())
    }
}
