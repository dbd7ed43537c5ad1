//! The job log's store, as one process sees it: slow, and sometimes it says that something failed that did not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::process::Process;

pub struct SimulatedStore {
    pub inner: Arc<InMemory>,
    pub process: Arc<Process>,
    /// In a hundred.
    pub faults: u64,
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedStore")
    }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

fn busy() -> Error {
    Error::Generic { store: "simulated", source: "503 Server Busy".into() }
}

impl SimulatedStore {
    /// The way there: the request may get lost.
    async fn request(&self) -> Result<()> {
        self.process.gate().await;
        let clock = &self.process.clock;
        clock.sleep(Duration::from_micros(clock.pick(1..3000))).await;
        self.process.gate().await;
        if clock.chance(self.faults) { Err(busy()) } else { Ok(()) }
    }

    /// The way back: the answer may get lost.
    async fn answer<T>(&self, result: Result<T>) -> Result<T> {
        self.process.gate().await;
        let clock = &self.process.clock;
        clock.sleep(Duration::from_micros(clock.pick(1..3000))).await;
        self.process.gate().await;
        if clock.chance(self.faults) { Err(busy()) } else { result }
    }
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.request().await?;
        let put = self.inner.put_opts(path, payload, options).await;
        // The store's client tries again by itself, and then finds its own object.
        let put = match put {
            Ok(_) if self.process.clock.chance(self.faults) => {
                Err(Error::AlreadyExists { path: path.to_string(), source: "409 Conflict".into() })
            }
            put => put,
        };
        self.answer(put).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.request().await?;
        let got = self.inner.get_opts(path, options).await;
        self.answer(got).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, process) = (self.inner.clone(), self.process.clone());
        let delete = move |path: Result<Path>| {
            let (inner, process) = (inner.clone(), process.clone());
            async move {
                process.gate().await;
                let one = futures::stream::once(async move { path }).boxed();
                let deleted = inner.delete_stream(one).try_collect::<Vec<_>>().await;
                process.gate().await;
                deleted.map(|paths| paths.into_iter().next().unwrap_or_default())
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, process, prefix) = (self.inner.clone(), self.process.clone(), prefix.cloned());
        let listed = async move {
            process.gate().await;
            let listed: Vec<Result<ObjectMeta>> = inner.list(prefix.as_ref()).collect().await;
            process.gate().await;
            futures::stream::iter(listed)
        };
        futures::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request().await?;
        let copied = self.inner.copy_opts(from, to, options).await;
        self.answer(copied).await
    }
}
