//! Files joined by copying their row groups, beside reading their rows and encoding them again.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use delta::{Encodings, LARGE_ENOUGH, LiveFile, join};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use crate::{TURNS, open, write};

/// Files that are joined, of three row groups each.
const FILES: usize = 3;

pub async fn compare(what: &str, batches: &[RecordBatch]) {
    let folder = tempfile::tempdir().expect("a folder");
    let files = files(folder.path(), batches).await;
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("a store"));
    let mut turns = vec![];
    for _ in 0..TURNS {
        let encoded = joined(&store, &files, u64::MAX).await;
        let copied = joined(&store, &files, LARGE_ENOUGH).await;
        turns.push((encoded, copied));
    }
    turns.sort_by(|a, b| (a.0.0 / a.1.0).total_cmp(&(b.0.0 / b.1.0)));
    let ((encoded, encoded_bytes), (copied, copied_bytes)) = turns[TURNS / 2];
    let rows = (batches.iter().map(RecordBatch::num_rows).sum::<usize>() * FILES) as f64;
    println!(
        "{:<46} {:>12.0} {:>12.0} {:>6.2}x {:>12.1} {:>12.1} {:>6.3}x",
        format!("joined: {what}"),
        rows / encoded,
        rows / copied,
        encoded / copied,
        encoded_bytes as f64 / rows,
        copied_bytes as f64 / rows,
        copied_bytes as f64 / encoded_bytes as f64,
    );
}

async fn files(folder: &Path, batches: &[RecordBatch]) -> Vec<LiveFile> {
    let mut files = vec![];
    let (sink, context) = open(folder, &batches[0].schema()).await;
    for _ in 0..FILES {
        let token = write(sink.as_ref(), &context, batches).await;
        for file in token["files"].as_array().expect("files") {
            files.push(LiveFile {
                path: file["path"].as_str().expect("a path").into(),
                size: file["size"].as_u64().expect("a size"),
                partition_values: Default::default(),
            });
        }
    }
    files
}

/// The seconds that it takes, and the bytes of the new file.
async fn joined(store: &Arc<dyn ObjectStore>, files: &[LiveFile], large_enough: u64) -> (f64, u64) {
    let begun = Instant::now();
    let joined = join(store, files, "joined.parquet".into(), Encodings::default(), large_enough).await;
    let joined = joined.expect("a file").expect("files of this crate");
    (begun.elapsed().as_secs_f64(), joined.file.size)
}
