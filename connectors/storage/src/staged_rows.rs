//! Rows that wait beside the job log until they may be shown: for sinks that can keep nothing out of sight themselves.

use std::borrow::Borrow;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use bytes::Bytes;
use engine::sink::{Committable, SinkContext, SinkError, SinkWriter, Token};
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use serde_json::{Map, Value};

use crate::staging::{stage, staged, unstage};

/// What a token says beside where its rows are: the sink's own, as of the moment at which they were closed.
pub type Note = Box<dyn Fn() -> Map<String, Value> + Send>;

/// Stages the rows of one worker, as one Arrow file an epoch.
pub struct StagingWriter {
    context: SinkContext,
    note: Note,
    open: Option<FileWriter<Vec<u8>>>,
    rows: u64,
}

impl StagingWriter {
    pub fn new(context: &SinkContext, note: Note) -> Self {
        StagingWriter { context: context.clone(), note, open: None, rows: 0 }
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                // Fast rather than small: it is read once and deleted.
                let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
                none.insert(FileWriter::try_new_with_options(vec![], &batch.schema(), options)?)
            }
        };
        self.rows += batch.num_rows() as u64;
        file.write(batch)
    }

    /// The file of the open epoch, and its rows; `None` if there are none.
    fn close(&mut self) -> Result<Option<(Bytes, u64)>, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let Some(mut file) = self.open.take() else { return Ok(None) };
        file.finish()?;
        Ok(Some((file.into_inner()?.into(), rows)))
    }

    fn failed(&self, error: &ArrowError) -> SinkError {
        SinkError::failed(format!("table {}", self.context.sink), format!("its rows cannot be staged: {error}"))
    }
}

impl SinkWriter for StagingWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.push(batch).map_err(|e| self.failed(&e))
    }

    fn buffered(&self) -> usize {
        self.open.as_ref().map_or(0, |file| file.get_ref().len())
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        let (body, rows) = match self.close() {
            Ok(Some(closed)) => closed,
            Ok(None) => return Box::pin(async { Ok(None) }),
            Err(error) => {
                let error = self.failed(&error);
                return Box::pin(async { Err(error) });
            }
        };
        let path = self.context.staging.clone().join(format!("{}.arrow", self.context.names.next()));
        let mut token = (self.note)();
        token.insert(PATH.into(), path.to_string().into());
        token.insert(ROWS.into(), rows.into());
        token.insert(BYTES.into(), body.len().into());
        let context = self.context.clone();
        Box::pin(async move {
            stage(&*context.store, &path, body, &context.metrics).await;
            Ok(Some(Value::Object(token)))
        })
    }
}

const PATH: &str = "path";
const ROWS: &str = "rows";
const BYTES: &str = "bytes";

/// How many rows a token stands for.
pub fn rows(token: &Token) -> u64 {
    token[ROWS].as_u64().unwrap_or_default()
}

/// How many bytes they are, as they are staged.
pub fn bytes(token: &Token) -> u64 {
    token[BYTES].as_u64().unwrap_or_default()
}

/// Entries that are shown together, in their order: until there are so many rows, or bytes as they are staged, and at most
/// one entry more.
pub fn at_once<E: Borrow<Committable>>(entries: &[E], most_rows: u64, most_bytes: u64) -> Vec<&[E]> {
    let (mut parts, mut rest, mut of_rows, mut of_bytes, mut taken) = (vec![], entries, 0, 0, 0);
    for entry in entries {
        let tokens = &entry.borrow().tokens;
        of_rows += tokens.iter().map(rows).sum::<u64>();
        of_bytes += tokens.iter().map(bytes).sum::<u64>();
        taken += 1;
        if of_rows >= most_rows || of_bytes >= most_bytes {
            let (part, left) = rest.split_at(taken);
            parts.push(part);
            (rest, of_rows, of_bytes, taken) = (left, 0, 0, 0);
        }
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// Whether these entries are as many as are shown together.
pub fn fill(entries: &[Committable], most_rows: u64, most_bytes: u64) -> bool {
    let (mut of_rows, mut of_bytes) = (0, 0);
    entries.iter().flat_map(|entry| &entry.tokens).any(|token| {
        of_rows += rows(token);
        of_bytes += bytes(token);
        of_rows >= most_rows || of_bytes >= most_bytes
    })
}

/// Fails if a token's note says under `word` that its rows were staged to be shown in another way than this. Another way
/// would not know which of them are there. `option`: what a table calls it.
pub fn check_way(entries: &[Committable], word: &str, option: &str, own: &str, place: &str) -> Result<(), SinkError> {
    let mut ways = entries.iter().flat_map(|entry| &entry.tokens).filter_map(|token| token[word].as_str());
    match ways.find(|way| *way != own) {
        None => Ok(()),
        Some(other) => Err(SinkError::failed(
            place,
            format!(
                "rows are staged for {option} = '{other}' and not shown yet; run the job with that once more until it has \
                 shown them, then change it to '{own}'"
            ),
        )),
    }
}

/// The rows of a token, in the order in which they were written; `None` if they are gone: they were shown and deleted, or
/// they are lost, and the sink has to find out.
pub async fn read(store: &dyn ObjectStore, token: &Token, place: &str) -> Result<Option<Vec<RecordBatch>>, SinkError> {
    let path = path(token);
    let Some(body) = staged(store, &path, place).await? else { return Ok(None) };
    let decoded = FileReader::try_new(std::io::Cursor::new(body), None).and_then(|file| file.collect());
    decoded.map(Some).map_err(|e| SinkError::failed(place, format!("the staged rows {path} cannot be read: {e}")))
}

/// Deletes the rows of a token, which are shown.
pub async fn delete(store: &dyn ObjectStore, token: &Token, place: &str) -> Result<(), SinkError> {
    unstage(store, &path(token), place).await
}

/// Where the rows of a token are.
pub fn path(token: &Token) -> Path {
    Path::from(token[PATH].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use engine::sink::Names;
    use object_store::memory::InMemory;

    use super::*;

    fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    fn context() -> SinkContext {
        SinkContext {
            log_id: "log".into(),
            sink: "numbers".into(),
            writer: "w".into(),
            schema: numbers(0..0).schema(),
            store: Arc::new(InMemory::new()),
            staging: Path::from("job/staged/numbers"),
            names: Names::of("w"),
            ownership: engine::sink::Ownership::undisputed(),
            metrics: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    #[test]
    fn entries_fill_what_is_shown_together_by_their_rows_or_by_their_bytes() {
        let entry = |rows: u64, bytes: u64| Committable {
            entry: 1,
            writer: "w".into(),
            tokens: vec![serde_json::json!({ROWS: rows, BYTES: bytes}), serde_json::json!({ROWS: 0, BYTES: 0})],
            excluded: vec![],
        };
        for (entries, is_full) in [
            (vec![], false),
            (vec![entry(9, 99)], false),
            (vec![entry(4, 1), entry(5, 1)], false),
            (vec![entry(5, 1), entry(5, 1)], true),
            (vec![entry(1, 50), entry(1, 50)], true),
        ] {
            assert_eq!(fill(&entries, 10, 100), is_full, "{entries:?}");
        }
    }

    #[tokio::test]
    async fn staged_rows_are_found_by_their_token_until_they_are_deleted() {
        let context = context();
        let note = || Map::from_iter([("group".to_string(), Value::from("g"))]);
        let mut writer = StagingWriter::new(&context, Box::new(note));
        assert_eq!(writer.prepare().await.unwrap(), None, "nothing was written");
        writer.write(&numbers(0..3)).unwrap();
        writer.write(&numbers(3..5)).unwrap();
        assert!(writer.buffered() > 0);
        let first = writer.prepare().await.unwrap().unwrap();
        writer.write(&numbers(5..6)).unwrap();
        let second = writer.prepare().await.unwrap().unwrap();

        assert_eq!((rows(&first), &first["group"]), (5, &Value::from("g")));
        assert_ne!(first["path"], second["path"]);
        assert_eq!(read(&*context.store, &first, "t").await.unwrap().unwrap(), [numbers(0..3), numbers(3..5)]);
        delete(&*context.store, &first, "t").await.unwrap();
        delete(&*context.store, &first, "t").await.expect("a second time is no error");
        assert_eq!(read(&*context.store, &first, "t").await.unwrap(), None);
        assert_eq!(read(&*context.store, &second, "t").await.unwrap().unwrap(), [numbers(5..6)]);
    }
}
