//! An object store whose answers get lost, and what a commit makes of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use engine::metrics::SinkMetrics;
use engine::sink::{Committable, Names, SinkContext, SinkError};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::commit::Log;
use crate::join::{Joined, LiveFile};
use crate::store::{entry_path, log_versions, read_entry};

/// What becomes of the next put, of a file or of a part of one.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// Written, and the answer says so.
    Done,
    /// Written, and the answer is an error.
    AnswerLost,
    /// Not written, and the answer is an error.
    RequestLost,
    /// Written; the store's own second try then said that it exists.
    SaidToExist,
    /// Refused, now and for ever.
    Forbidden,
}

#[derive(Debug)]
pub struct Unreliable {
    pub inner: InMemory,
    /// The last one comes first.
    pub fates: Mutex<Vec<Fate>>,
    /// Files in parts that were given up.
    pub given_up: Mutex<Vec<Path>>,
}

impl Unreliable {
    pub fn new(fates: &[Fate]) -> Self {
        Unreliable { inner: InMemory::new(), fates: Mutex::new(fates.to_vec()), given_up: Mutex::default() }
    }

    async fn put<T>(&self, path: &Path, put: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = self.fates.lock().pop();
        match fate {
            None | Some(Fate::Done) => put.await,
            Some(Fate::RequestLost) => Err(broken()),
            Some(Fate::Forbidden) => Err(Error::PermissionDenied { path: path.to_string(), source: "403".into() }),
            Some(Fate::AnswerLost) => {
                put.await?;
                Err(broken())
            }
            Some(Fate::SaidToExist) => {
                put.await?;
                Err(Error::AlreadyExists { path: path.to_string(), source: "409 Conflict".into() })
            }
        }
    }
}

impl fmt::Display for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unreliable")
    }
}

fn broken() -> Error {
    Error::Generic { store: "unreliable", source: "503 Server Busy".into() }
}

#[async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put(path, self.inner.put_opts(path, payload, options)).await
    }
    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Unreliable {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.put(path, self.inner.create_multipart(path)).await
    }
    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.put(path, self.inner.put_part(path, id, index, data)).await
    }
    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.put(path, self.inner.complete_multipart(path, id, parts)).await
    }
    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.given_up.lock().push(path.clone());
        self.inner.abort_multipart(path, id).await
    }
}

fn context() -> SinkContext {
    SinkContext {
        log_id: "log".into(),
        sink: "serving".into(),
        writer: "w1".into(),
        schema: Arc::new(arrow::datatypes::Schema::empty()),
        store: Arc::new(InMemory::new()),
        staging: Path::from("staging"),
        names: Names::of("w1"),
        ownership: engine::sink::Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    }
}

fn entry(number: u64) -> Committable {
    let file = json!({"path": format!("{number}.parquet"), "size": 1, "rows": 1, "partitionValues": {}, "stats": "{}"});
    Committable { entry: number, writer: "w1".into(), tokens: vec![json!({"files": [file]})], excluded: vec![] }
}

async fn log(fates: &[Fate]) -> (Arc<Unreliable>, Log) {
    let store = Unreliable::new(fates);
    store.inner.put(&entry_path(0), "{}\n".into()).await.unwrap();
    let store = Arc::new(store);
    let (path, shown) = ("table".to_string(), HashMap::new());
    (
        store.clone(),
        Log {
            store,
            path,
            version: 0,
            proven: 0,
            written: None,
            day: 0,
            opened_day: false,
            shown,
            changed: false,
            checkpoint_every: 100,
            partition_by: vec![],
        },
    )
}

/// Every path that the table's log adds, in order.
async fn added(store: &Unreliable) -> Vec<String> {
    let mut paths = vec![];
    for version in log_versions(&store.inner).await.unwrap() {
        let actions = read_entry(&store.inner, version).await.unwrap().unwrap();
        paths.extend(actions.iter().filter_map(|a| a["add"]["path"].as_str()).map(String::from));
    }
    paths
}

/// Asks until it is done, as the engine does.
async fn insist(log: &mut Log, entries: &[Committable]) {
    loop {
        match log.show(&context(), entries).await {
            Ok(()) => return,
            Err(SinkError::Retry { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn protocol_19_whatever_the_answer_was_the_files_are_added_once() {
    use Fate::{AnswerLost, RequestLost, SaidToExist};
    for fates in [
        &[AnswerLost][..],
        &[RequestLost],
        &[SaidToExist],
        &[RequestLost, AnswerLost],
        &[SaidToExist, RequestLost, RequestLost],
    ] {
        let (store, mut log) = log(fates).await;
        insist(&mut log, &[entry(3)]).await;
        insist(&mut log, &[entry(4)]).await;
        assert_eq!(added(&store).await, ["3.parquet", "4.parquet"], "{fates:?}");
    }
}

#[tokio::test]
async fn protocol_19_an_entry_whose_answer_was_lost_is_not_shown_again_with_the_next_one() {
    let (store, mut log) = log(&[Fate::AnswerLost]).await;
    assert!(log.show(&context(), &[entry(3)]).await.is_err());
    insist(&mut log, &[entry(3), entry(4)]).await;
    assert_eq!(added(&store).await, ["3.parquet", "4.parquet"]);
}

#[tokio::test]
async fn protocol_19_a_lost_answer_and_another_writers_commit_behind_it() {
    let (store, mut log) = log(&[Fate::AnswerLost]).await;
    assert!(log.show(&context(), &[entry(3)]).await.is_err());
    store.inner.put(&entry_path(2), "{\"commitInfo\":{}}\n".into()).await.unwrap();
    insist(&mut log, &[entry(3)]).await;
    insist(&mut log, &[entry(4)]).await;
    assert_eq!(added(&store).await, ["3.parquet", "4.parquet"]);
    assert_eq!(log_versions(&store.inner).await.unwrap(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn another_writers_change_of_the_schema_is_looked_at_before_the_next_append() {
    let (store, mut log) = log(&[]).await;
    store.inner.put(&entry_path(1), "{\"metaData\":{}}\n".into()).await.unwrap();
    assert!(matches!(log.show(&context(), &[entry(3)]).await, Err(SinkError::Retry { .. })));
    assert!(log.changed && added(&store).await.is_empty());
}

/// What is left of a log that others took to version 4,900, checkpointed and cleaned.
async fn cleaned_far_above(store: &Unreliable) {
    store.inner.put(&entry_path(4900), "{}\n".into()).await.unwrap();
    let note = "{\"version\":4900,\"size\":7}";
    store.inner.put(&Path::from("_delta_log/_last_checkpoint"), note.into()).await.unwrap();
    store.inner.delete(&entry_path(0)).await.unwrap();
}

#[tokio::test]
async fn protocol_11_a_number_that_was_cleaned_is_won_and_shows_nothing() {
    for fates in [&[][..], &[Fate::AnswerLost], &[Fate::SaidToExist], &[Fate::RequestLost]] {
        let (store, mut log) = log(fates).await;
        cleaned_far_above(&store).await;
        for _ in 0..3 {
            assert!(matches!(log.show(&context(), &[entry(3)]).await, Err(SinkError::Retry { .. })), "{fates:?}");
        }
        assert!(log.changed, "the table is opened anew");
    }
}

#[tokio::test]
async fn protocol_11_a_cleaned_log_is_noticed_without_the_note_of_its_checkpoint() {
    let (store, mut log) = log(&[]).await;
    cleaned_far_above(&store).await;
    store.inner.delete(&Path::from("_delta_log/_last_checkpoint")).await.unwrap();
    assert!(log.show(&context(), &[entry(3)]).await.is_err());
    assert!(log.changed);
}

#[tokio::test]
async fn a_commit_that_is_forbidden_is_not_asked_for_again() {
    let (_, mut log) = log(&[Fate::Forbidden]).await;
    assert!(matches!(log.show(&context(), &[entry(3)]).await, Err(SinkError::Failed { .. })));
}

#[tokio::test]
async fn an_upload_outlasts_lost_requests_and_answers_and_stops_when_it_is_forbidden() {
    let upload = async |fates: &[Fate]| {
        let (store, _) = log(fates).await;
        let written: Arc<dyn ObjectStore> = store.clone();
        let done = crate::upload::upload(&written, "f.parquet", "rows".into(), &SinkMetrics::default()).await;
        (done, store.inner.head(&Path::from("f.parquet")).await.map(|f| f.size).ok())
    };
    let (done, size) = upload(&[Fate::AnswerLost, Fate::RequestLost]).await;
    assert!(done.is_ok() && size == Some(4));
    let (done, size) = upload(&[Fate::Forbidden]).await;
    assert!(matches!(done, Err(SinkError::Failed { .. })) && size.is_none());
}

#[tokio::test]
async fn an_upload_trusts_a_file_of_its_name_only_if_it_is_as_long() {
    let (store, _) = log(&[]).await;
    let store: Arc<dyn ObjectStore> = store;
    store.put(&Path::from("f.parquet"), "rows".into()).await.unwrap();
    let metrics = SinkMetrics::default();
    assert!(crate::upload::upload(&store, "f.parquet", "ROWS".into(), &metrics).await.is_ok());
    let error = crate::upload::upload(&store, "f.parquet", "more rows".into(), &metrics).await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Failed { .. }) && error.to_string().contains("4 bytes instead of 9"),
        "{error}"
    );
}

#[tokio::test]
async fn the_first_commit_of_a_day_is_the_tables_and_not_each_writers() {
    let (_, mut log) = log(&[]).await;
    insist(&mut log, &[entry(3)]).await;
    assert!(log.opened_day, "the table's first commit was made long ago");
    insist(&mut log, &[entry(4)]).await;
    assert!(!log.opened_day);

    let (store, mut second) = self::log(&[]).await;
    let info = json!({"commitInfo": {"timestamp": chrono::Utc::now().timestamp_millis()}});
    store.inner.put(&entry_path(1), format!("{info}\n").into()).await.unwrap();
    insist(&mut second, &[entry(3)]).await;
    assert!(!second.opened_day, "another writer was first");
}

#[tokio::test]
async fn protocol_13_a_compaction_whose_answer_was_lost_is_found_and_not_written_again() {
    use crate::compaction::{State, put_above};
    let file = |path: &str| LiveFile { path: path.into(), size: 1, partition_values: Default::default() };
    let joined = Joined {
        file: serde_json::from_value(json!({"path": "j", "size": 2, "rows": 2, "partitionValues": {}, "stats": "{}"}))
            .unwrap(),
        instead_of: vec![file("a"), file("b")],
    };
    for fate in [Fate::AnswerLost, Fate::SaidToExist, Fate::RequestLost] {
        let (store, mut log) = log(&[]).await;
        insist(&mut log, &[entry(3)]).await;
        store.fates.lock().push(fate);
        let state = State { store: store.clone(), version: log.version, files: HashMap::new() };
        let mut tried = put_above(&state, &joined).await;
        if tried.is_err() {
            tried = put_above(&state, &joined).await;
        }
        assert_eq!(tried.unwrap(), Some(true), "{fate:?}");
        assert_eq!(added(&store).await, ["3.parquet", "j"], "{fate:?}");
    }
}
