//! Files that leave in parts while they grow: whatever the answers are, whole and once, or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use engine::sink::SinkWriter;
use object_store::multipart::{MultipartStore, PartId};
use object_store::{MultipartId, ObjectStore, PutPayload, PutResult};
use parquet::basic::Compression;
use tokio::sync::Semaphore;

use super::*;
use crate::encoding::Encodings;
use crate::options::DeltaOptions;
use crate::parts::{PART, Parts};
use crate::unreliable::{Fate, Unreliable};
use crate::uploads::Destination;
use crate::writer::DeltaWriter;

/// Bytes of a text, so that rows and sizes are told from one another at a glance.
const TEXT: usize = 1 << 20;

pub fn large_rows(from: usize, count: usize) -> RecordBatch {
    let texts: Vec<String> = (from..from + count).map(|n| format!("{n:06}{}", "x".repeat(TEXT - 6))).collect();
    batch(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn writer_into(story: &Story, store: Arc<dyn ObjectStore>, parts: Option<Arc<dyn MultipartStore>>) -> DeltaWriter {
    let options = DeltaOptions {
        encodings: Encodings { compression: Compression::UNCOMPRESSED, plain: false },
        target_file_size: 128 << 20,
        ..DeltaOptions::of_folder(&story.table())
    };
    let parts = parts.map(|store| Parts { store, folder: Path::default() });
    DeltaWriter::new(Arc::new(options), story.context("w1"), Destination { store, parts }, &[])
}

/// A writer into an unreliable store.
fn writer(store: &Arc<Unreliable>) -> DeltaWriter {
    writer_into(&Story::new(), store.clone(), Some(store.clone()))
}

async fn files(store: &dyn ObjectStore) -> Vec<object_store::ObjectMeta> {
    store.list(None).try_collect().await.unwrap()
}

/// The numbers that its texts begin with.
async fn numbers(store: Arc<dyn ObjectStore>, file: &str) -> Vec<usize> {
    let rows = TableReader::of(store).rows(file, Some(&["id"])).await.unwrap();
    rows.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().map(|t| t[..6].parse().unwrap())).collect()
}

pub fn paths(token: &Token) -> Vec<String> {
    token["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap().to_string()).collect()
}

/// A file that leaves in parts: what is asked of the store before it is there.
const STEPS: [&str; 6] = ["begin", "first part", "second part", "third part", "rest", "make it whole"];

/// Writes a file of 27 MiB, whose first part leaves while it grows.
async fn write_in_steps(store: &Arc<Unreliable>, at: usize, fates: &[Fate]) -> Result<Token, SinkError> {
    let in_order = std::iter::repeat_n(Fate::Done, at).chain(fates.iter().copied());
    *store.fates.lock() = in_order.collect::<Vec<_>>().into_iter().rev().collect();
    let mut writer = writer(store);
    for from in [0, 9, 18] {
        writer.write(&large_rows(from, 9)).unwrap();
    }
    writer.prepare().await.map(|token| token.unwrap())
}

#[tokio::test]
async fn a_large_file_is_whole_and_there_once_whatever_the_answers_to_its_parts_were() {
    use Fate::{AnswerLost, RequestLost, SaidToExist};
    for (at, step) in STEPS.into_iter().enumerate() {
        for fates in [&[AnswerLost][..], &[RequestLost], &[SaidToExist], &[RequestLost, RequestLost, AnswerLost]] {
            let store = Arc::new(Unreliable::new(&[]));
            let token = write_in_steps(&store, at, fates).await.unwrap();
            assert!(store.fates.lock().is_empty(), "{step}: all came to pass");
            let there = files(&store.inner).await;
            assert_eq!(there.len(), 1, "{step}: {fates:?}");
            assert_eq!(token["files"][0]["size"], there[0].size, "{step}: {fates:?}");
            let found = numbers(store.clone(), &paths(&token)[0]).await;
            assert_eq!(found, (0..27).collect::<Vec<_>>(), "{step}: {fates:?}");
            assert!(store.given_up.lock().is_empty());
        }
    }
}

#[tokio::test]
async fn a_large_file_that_is_forbidden_at_any_step_ends_the_job_and_leaves_nothing() {
    for (at, step) in STEPS.into_iter().enumerate() {
        let store = Arc::new(Unreliable::new(&[]));
        let written = write_in_steps(&store, at, &[Fate::Forbidden]).await;
        assert!(matches!(written, Err(SinkError::Failed { .. })), "{step}: {written:?}");
        tokio::task::yield_now().await;
        assert!(files(&store.inner).await.is_empty(), "{step}");
        assert_eq!(store.given_up.lock().len(), usize::from(at > 0), "{step}");
    }
}

#[tokio::test]
async fn a_large_file_that_nobody_waits_for_any_more_is_given_up() {
    for prepared in [false, true] {
        let store = Arc::new(Unreliable::new(&[Fate::RequestLost; 1000]));
        store.fates.lock().extend([Fate::Done; 2]);
        let mut writer = writer(&store);
        writer.write(&large_rows(0, 27)).unwrap();
        let ending = prepared.then(|| writer.prepare());
        // The first part is there, and the store is away since.
        while store.fates.lock().len() == 1002 {
            tokio::task::yield_now().await;
        }
        drop((ending, writer));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(store.given_up.lock().len(), 1, "{prepared}");
        store.fates.lock().clear();
        // Longer than the pause in which it was.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(files(&store.inner).await.is_empty(), "{prepared}");
    }
}

#[tokio::test]
async fn a_small_file_leaves_whole() {
    let store = Arc::new(Unreliable::new(&[]));
    let mut writer = writer(&store);
    writer.write(&large_rows(0, 15)).unwrap();
    // A part would be refused, as would whatever comes after the file.
    *store.fates.lock() = vec![Fate::Forbidden, Fate::Done];
    let token = writer.prepare().await.unwrap().unwrap();
    assert_eq!(numbers(store.clone(), &paths(&token)[0]).await, (0..15).collect::<Vec<_>>());
    assert_eq!(store.fates.lock().len(), 1);
}

/// A store that takes parts when it is let.
struct Gate {
    inner: Arc<InMemory>,
    open: Semaphore,
    largest: AtomicUsize,
}

#[async_trait]
impl MultipartStore for Gate {
    async fn create_multipart(&self, path: &Path) -> object_store::Result<MultipartId> {
        self.inner.create_multipart(path).await
    }
    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        self.open.acquire().await.unwrap().forget();
        self.largest.fetch_max(data.content_length(), Ordering::Relaxed);
        self.inner.put_part(path, id, index, data).await
    }
    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        self.inner.complete_multipart(path, id, parts).await
    }
    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.inner.abort_multipart(path, id).await
    }
}

fn gate(parts: usize) -> Arc<Gate> {
    Arc::new(Gate { inner: Arc::default(), open: Semaphore::new(parts), largest: AtomicUsize::new(0) })
}

/// Bytes that a writer held at most while it wrote a file of 100 MiB.
async fn most_held(gate: &Arc<Gate>, parts: Option<Arc<dyn MultipartStore>>) -> usize {
    let mut writer = writer_into(&Story::new(), gate.inner.clone(), parts);
    let mut most = 0;
    for from in 0..50 {
        writer.write(&large_rows(from * 2, 2)).unwrap();
        most = most.max(writer.buffered());
        tokio::task::yield_now().await;
    }
    let token = writer.prepare().await.unwrap().unwrap();
    assert_eq!(numbers(gate.inner.clone(), &paths(&token)[0]).await, (0..100).collect::<Vec<_>>());
    assert_eq!(writer.buffered(), 0);
    most
}

#[tokio::test]
async fn a_large_file_holds_a_row_group_and_what_is_on_its_way_and_not_all_of_it() {
    let gate = gate(1000);
    let whole = most_held(&gate, None).await;
    let in_parts = most_held(&gate, Some(gate.clone())).await;
    assert!(whole > 95 << 20, "{whole}");
    assert!(in_parts < 30 << 20, "{in_parts}");
    assert_eq!(gate.largest.load(Ordering::Relaxed), PART);
}

#[tokio::test]
async fn what_is_on_its_way_counts_and_holds_the_sources_back() {
    let gate = gate(0);
    let mut writer = writer_into(&Story::new(), gate.inner.clone(), Some(gate.clone()));
    let mut written = 0;
    while writer.ready() {
        writer.write(&large_rows(written, 4)).unwrap();
        tokio::task::yield_now().await;
        written += 4;
        assert!((written * TEXT..written * TEXT + (1 << 20)).contains(&writer.buffered()), "{}", writer.buffered());
    }
    assert!((64..96).contains(&written), "{written}");
    gate.open.add_permits(3);
    while !writer.ready() {
        tokio::task::yield_now().await;
    }
    gate.open.add_permits(1000);
    let token = writer.prepare().await.unwrap().unwrap();
    assert_eq!(numbers(gate.inner.clone(), &paths(&token)[0]).await, (0..written).collect::<Vec<_>>());
    assert!(writer.ready() && writer.buffered() == 0);
}

#[tokio::test]
async fn files_that_grow_in_many_partitions_at_once_do_not_hold_the_sources_back() {
    let gate = gate(1000);
    let options = DeltaOptions {
        encodings: Encodings { compression: Compression::UNCOMPRESSED, plain: false },
        target_file_size: 128 << 20,
        ..DeltaOptions::of_folder(std::path::Path::new("/nowhere"))
    };
    let parts = Some(Parts { store: gate.clone(), folder: Path::from("deep/in") });
    let destination = Destination { store: gate.inner.clone(), parts };
    let mut writer = DeltaWriter::new(Arc::new(options), Story::new().context("w1"), destination, &["n".into()]);
    // A row for each of four partitions, until each has closed two row groups.
    for round in 0..32 {
        writer.write(&large_rows(round * 4, 4)).unwrap();
    }
    assert!(!writer.ready());
    while !writer.ready() {
        tokio::task::yield_now().await;
    }
    let token = writer.prepare().await.unwrap().unwrap();
    let mut there: Vec<String> = files(&*gate.inner).await.iter().map(|f| f.location.to_string()).collect();
    there.sort();
    assert_eq!(there, paths(&token).iter().map(|path| format!("deep/in/{path}")).collect::<Vec<_>>());
    assert_eq!(there.len(), 4);
}

/// The names in a table's folder, but for its log.
fn names(story: &Story) -> Vec<String> {
    let names = std::fs::read_dir(story.table()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "_delta_log").collect()
}

#[tokio::test]
async fn a_large_file_on_a_disk_grows_beside_its_place_and_is_shown_and_read_by_others() {
    let story = Story::new().option("compaction", "false").option("parquet.compression", "none");
    let process = story.start("w1").await;
    let mut writer = process.sink.writer(&process.context).unwrap();
    writer.write(&large_rows(0, 20)).unwrap();
    let parts = || names(&story).iter().filter(|name| name.ends_with(".parquet#1")).count();
    story.until(|| parts() == 1).await;
    let store = object_store::local::LocalFileSystem::new_with_prefix(story.table()).unwrap();
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(listed.iter().all(|f| f.location.as_ref().starts_with("_delta_log")), "listings leave it out");
    writer.write(&large_rows(20, 20)).unwrap();
    let token = writer.prepare().await.unwrap().unwrap();
    assert_eq!(names(&story), paths(&token));
    process.insist(&[of("w1", 1, token)]).await;
    let ids = story.ids_of_any_reader().await;
    assert_eq!(ids.iter().map(|id| id[..6].parse().unwrap()).collect::<Vec<usize>>(), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_large_file_grows_in_its_tables_folder_however_that_is_called() {
    for name in ["tä ble", "100% sure", "a#1", "day=2024-01-01"] {
        let story = Story::new().option("parquet.compression", "none");
        let folder = story.folder.path().join(name);
        let story = story.option("path", &folder.to_string_lossy());
        let process = story.start("w1").await;
        let token = process.prepare_rows(&large_rows(0, 20)).await;
        let mut there: Vec<String> =
            std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        there.sort();
        assert_eq!(there, [&["_delta_log".to_string()], &paths(&token)[..]].concat(), "{name}");
    }
}

#[tokio::test]
async fn a_large_file_on_a_disk_that_is_given_up_leaves_nothing_there() {
    let story = Story::new().option("parquet.compression", "none");
    let process = story.start("w1").await;
    let mut writer = process.sink.writer(&process.context).unwrap();
    writer.write(&large_rows(0, 40)).unwrap();
    story.until(|| !names(&story).is_empty()).await;
    drop(writer);
    story.until(|| names(&story).is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(names(&story).is_empty(), "no late part brings it back");
}

#[tokio::test]
async fn a_large_file_on_a_disk_whose_parts_were_deleted_is_not_made_of_what_is_left() {
    let story = Story::new().option("parquet.compression", "none");
    let process = story.start("w1").await;
    let mut writer = process.sink.writer(&process.context).unwrap();
    writer.write(&large_rows(0, 20)).unwrap();
    story.until(|| !names(&story).is_empty()).await;
    for name in names(&story) {
        std::fs::remove_file(story.table().join(name)).unwrap();
    }
    writer.write(&large_rows(20, 20)).unwrap();
    let prepared = writer.prepare().await;
    assert!(matches!(prepared, Err(SinkError::Failed { .. })), "{prepared:?}");
    assert!(names(&story).is_empty());
}
