//! Bringing a closed file to the store.

use std::sync::Arc;
use std::time::Duration;

use engine::metrics::SinkMetrics;
use engine::sink::SinkError;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::cause::{reading, writing};
use crate::store::create;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tries until the file is there, or until it is certain that it will never be.
pub async fn upload(
    store: &Arc<dyn ObjectStore>,
    path: &str,
    body: PutPayload,
    metrics: &SinkMetrics,
) -> Result<(), SinkError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt(store, path, body.clone()).await {
            Err(SinkError::Retry { what, .. }) => {
                tracing::warn!(path, what, "a data file was not written; trying again");
                metrics.health.suffer(format!("{path}: {what}"));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            settled => {
                if pause > FIRST_PAUSE {
                    metrics.health.heal();
                }
                return settled;
            }
        }
    }
}

async fn attempt(store: &Arc<dyn ObjectStore>, path: &str, body: PutPayload) -> Result<(), SinkError> {
    use object_store::Error::{AlreadyExists, Precondition};
    let size = body.content_length() as u64;
    match create(store, &Path::from(path), body).await {
        Ok(()) => Ok(()),
        Err(AlreadyExists { .. } | Precondition { .. }) => same_file(store, path, size).await,
        Err(error) => Err(writing(path, &error)),
    }
}

/// The name is this writer's own, so what is there came from an earlier try whose answer was lost, whole.
async fn same_file(store: &Arc<dyn ObjectStore>, path: &str, size: u64) -> Result<(), SinkError> {
    let there = store.head(&Path::from(path)).await.map_err(|e| reading(path, &e))?.size;
    if there == size {
        return Ok(());
    }
    Err(SinkError::failed(path, format!("a file of this name is there already, of {there} bytes instead of {size}")))
}
