//! Rows that survive a crash before they are shown.

use std::time::Duration;

use bytes::Bytes;
use engine::job_log::put_new;
use engine::metrics::SinkMetrics;
use engine::sink::SinkError;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Writes an object under a name that nobody else makes; tries until it is there, since what may heal is waited for.
pub async fn stage(store: &dyn ObjectStore, path: &Path, body: Bytes, metrics: &SinkMetrics) {
    let mut pause = FIRST_PAUSE;
    loop {
        match put_new(store, path, body.clone()).await {
            // An earlier try of ours may have arrived after all.
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => break,
            Err(error) => {
                tracing::warn!(%path, %error, "rows were not staged; trying again");
                metrics.health.suffer(error.to_string());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    if pause > FIRST_PAUSE {
        metrics.health.heal();
    }
}

/// What was staged; `None` if it is gone.
pub async fn staged(store: &dyn ObjectStore, path: &Path, place: &str) -> Result<Option<Bytes>, SinkError> {
    match store.get(path).await {
        Ok(found) => found.bytes().await.map(Some).map_err(|e| SinkError::retry(place, e)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(SinkError::retry(place, error)),
    }
}

/// Deletes what is shown.
pub async fn unstage(store: &dyn ObjectStore, path: &Path, place: &str) -> Result<(), SinkError> {
    match store.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(SinkError::retry(place, error)),
    }
}
