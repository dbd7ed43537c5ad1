//! What readers of a folder, or of one file, see: the rows of all files that are not hidden.

use std::pin::pin;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use async_trait::async_trait;
use engine::shown::{Shown, Take};
use formats::{Decoder, Format, JsonOptions};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;

use crate::fetch::{ROWS_AT_ONCE, explain, parts};
use crate::file::{File, relative};
use crate::location::Location;
use crate::sink::SinkFormat;
use crate::source::is_visible;

/// Bytes of a line that cannot be read that are shown.
const SHOWN: usize = 1000;

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
            // What comes behind its end meanwhile changes nothing of what is before it.
            return self.rows(ObjectMeta { e_tag: None, ..file }, None, take).await;
        }
        files.sort_by(|one, other| (one.last_modified, &one.location).cmp(&(other.last_modified, &other.location)));
        for file in files {
            let time = file.last_modified.timestamp_millis();
            self.rows(file, Some(time), take).await?;
        }
        Ok(())
    }
}

impl FilesShown {
    fn is_of_the_table(&self, file: &ObjectMeta) -> bool {
        let name = relative(&self.location.root, &file.location);
        name.is_some_and(|name| is_visible(&name) && name.ends_with(self.format.extension()))
    }

    async fn rows(&self, meta: ObjectMeta, time: Option<i64>, take: &mut Take<'_>) -> Result<(), String> {
        let path = meta.location.to_string();
        let file = File { store: self.location.store.clone(), meta, name: path.clone(), place: path.clone(), path };
        match self.format {
            SinkFormat::JsonLines => self.json_lines(&file, time, take).await,
            SinkFormat::Parquet => parquet(&file, time, take).await,
        }
    }

    async fn json_lines(&self, file: &File, time: Option<i64>, take: &mut Take<'_>) -> Result<(), String> {
        let schema = Arc::new(Schema::new(self.columns.clone()));
        let mut decoder = Decoder::new(schema, Format::Json, JsonOptions::default(), None)?;
        let mut push = |text: &[u8]| {
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                decoder.push(line, None).map_err(|reject| {
                    let line = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
                    format!("{}: {}: {line}", file.place, reject.error)
                })?;
            }
            take(time, decoder.finish().map_err(|e| e.to_string())?)
        };
        let (mut parts, mut text) = (pin!(parts(file, 0)), vec![]);
        while let Some(part) = parts.try_next().await.map_err(|e| e.to_string())? {
            text.extend_from_slice(&part);
            let whole = memchr::memrchr(b'\n', &text).map_or(0, |end| end + 1);
            push(&text[..whole])?;
            text.drain(..whole);
        }
        push(&text)
    }
}

async fn parquet(file: &File, time: Option<i64>, take: &mut Take<'_>) -> Result<(), String> {
    let damaged = |e| explain(file, e).to_string();
    let builder = ParquetRecordBatchStreamBuilder::new(file.clone()).await.map_err(damaged)?;
    let mut rows = builder.with_batch_size(ROWS_AT_ONCE).build().map_err(damaged)?;
    while let Some(rows) = rows.try_next().await.map_err(damaged)? {
        take(time, rows)?;
    }
    Ok(())
}
