//! Bringing a file to the store: whole once it is closed, or in parts while it grows.

use std::sync::Arc;
use std::time::Duration;

use engine::environment::crash_point;
use engine::metrics::SinkMetrics;
use engine::sink::SinkError;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cause::{reading, writing};
use crate::parquet_file::DataFile;
use crate::parts::Parts;
use crate::store::create;
use crate::uploads::Leaving;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tries until the file is there, or until it is certain that it will never be.
pub async fn upload(
    store: &Arc<dyn ObjectStore>,
    path: &str,
    body: PutPayload,
    metrics: &SinkMetrics,
) -> Result<(), SinkError> {
    patiently(path, metrics, || attempt(store, path, body.clone())).await
}

/// Tries again what may heal.
async fn patiently<T, F: Future<Output = Result<T, SinkError>>>(
    path: &str,
    metrics: &SinkMetrics,
    attempt: impl Fn() -> F,
) -> Result<T, SinkError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt().await {
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
        Err(error @ (AlreadyExists { .. } | Precondition { .. })) => settle(store, path, size, &error).await,
        Err(error) => Err(writing(path, &error)),
    }
}

/// The name is this writer's own, so what is there came from an earlier try whose answer was lost, whole.
async fn settle(
    store: &Arc<dyn ObjectStore>,
    path: &str,
    size: u64,
    error: &object_store::Error,
) -> Result<(), SinkError> {
    match store.head(&Path::from(path)).await {
        Ok(there) if there.size == size => Ok(()),
        Ok(there) => {
            let what = format!("a file of this name is there already, of {} bytes instead of {size}", there.size);
            Err(SinkError::failed(path, what))
        }
        Err(object_store::Error::NotFound { .. }) => Err(writing(path, error)),
        Err(error) => Err(reading(path, &error)),
    }
}

/// Brings a file whose parts come as it grows. Dropped before the last one, it gives up what is there of the file.
pub async fn upload_in_parts(
    store: &Arc<dyn ObjectStore>,
    parts: &Parts,
    path: &str,
    mut leaving: UnboundedReceiver<Leaving>,
    metrics: &SinkMetrics,
) -> Result<DataFile, SinkError> {
    let mut begun = Begun::new(parts, path, metrics).await?;
    while let Some(next) = leaving.recv().await {
        begun.put(&next.body).await?;
        if let Some(file) = &next.file {
            begun.complete(store, file.size).await?;
            return Ok(file.as_ref().clone());
        }
    }
    Err(SinkError::failed(path, "the file was given up"))
}

/// A file of which some parts are in the store.
struct Begun<'a> {
    parts: &'a Parts,
    path: &'a str,
    metrics: &'a SinkMetrics,
    place: Path,
    id: MultipartId,
    put: Vec<PartId>,
    whole: bool,
}

impl<'a> Begun<'a> {
    async fn new(parts: &'a Parts, path: &'a str, metrics: &'a SinkMetrics) -> Result<Self, SinkError> {
        let place = parts.locate(path);
        let create = || async { parts.store.create_multipart(&place).await.map_err(|e| writing(path, &e)) };
        let id = patiently(path, metrics, create).await?;
        Ok(Begun { parts, path, metrics, place, id, put: vec![], whole: false })
    }

    async fn put(&mut self, body: &PutPayload) -> Result<(), SinkError> {
        let put = || async {
            let put = self.parts.store.put_part(&self.place, &self.id, self.put.len(), body.clone());
            put.await.map_err(|e| writing(self.path, &e))
        };
        let part = patiently(self.path, self.metrics, put).await?;
        crash_point("after-part-of-file");
        self.put.push(part);
        Ok(())
    }

    /// Makes the file of the parts. What an answer was that is no success, the file itself tells.
    async fn complete(mut self, store: &Arc<dyn ObjectStore>, size: u64) -> Result<(), SinkError> {
        crash_point("before-file-is-whole");
        let complete = || async {
            match self.parts.store.complete_multipart(&self.place, &self.id, self.put.clone()).await {
                Ok(_) => Ok(()),
                Err(error) => settle(store, self.path, size, &error).await,
            }
        };
        patiently(self.path, self.metrics, complete).await?;
        crash_point("after-file-is-whole");
        self.whole = true;
        Ok(())
    }
}

/// What is given up leaves nothing in the store, if it can be helped.
impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.whole {
            return;
        }
        let (store, place, id) = (self.parts.store.clone(), self.place.clone(), self.id.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.abort_multipart(&place, &id).await {
                    tracing::debug!(path = %place, %error, "the parts of a file that was given up stay for a while");
                }
            });
        }
    }
}
