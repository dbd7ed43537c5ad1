//! A store whose answers say something else than what happened.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// What becomes of a put.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// Not written, and the answer is an error.
    RequestLost,
    /// Written, and the answer is an error.
    AnswerLost,
    /// Written; the client's own second try then said that it exists.
    SaidToExist,
    /// The answer is a time-out, a read finds nothing, and only then is it written.
    LandsLate,
    /// Not written: the answer says that it exists, since another create of it is under way that will fail.
    Conflict,
}

/// Something that another process does, just before a put is done.
pub type Meanwhile = Box<dyn FnOnce() -> futures::future::BoxFuture<'static, ()> + Send>;

/// The folder that all processes share, as one of them sees it.
#[derive(Default)]
pub struct Unreliable {
    pub inner: Arc<InMemory>,
    /// Of the next puts whose path contains the word.
    pub fates: Mutex<Vec<(&'static str, Fate)>>,
    pub meanwhile: Mutex<Option<(&'static str, Meanwhile)>>,
    /// Deletes that fail from here on.
    pub deletes_fail: Mutex<bool>,
    pub gets_fail: Mutex<bool>,
    late: Mutex<Option<(Path, PutPayload)>>,
    pub puts: Mutex<Vec<String>>,
}

impl Unreliable {
    pub fn over(inner: &Arc<InMemory>) -> Arc<Self> {
        Arc::new(Unreliable { inner: inner.clone(), ..Unreliable::default() })
    }

    pub fn next(&self, word: &'static str, fates: &[Fate]) {
        self.fates.lock().extend(fates.iter().map(|fate| (word, *fate)));
    }

    /// Once, before a put whose path contains the word.
    pub fn before(
        &self,
        word: &'static str,
        act: impl FnOnce() -> futures::future::BoxFuture<'static, ()> + Send + 'static,
    ) {
        *self.meanwhile.lock() = Some((word, Box::new(act)));
    }

    fn fate(&self, path: &Path) -> Option<Fate> {
        let mut fates = self.fates.lock();
        let at = fates.iter().position(|(word, _)| path.as_ref().contains(word))?;
        Some(fates.remove(at).1)
    }

    fn meanwhile(&self, path: &Path) -> Option<Meanwhile> {
        let mut meanwhile = self.meanwhile.lock();
        let due = meanwhile.as_ref().is_some_and(|(word, _)| path.as_ref().contains(word));
        if due { meanwhile.take().map(|(_, act)| act) } else { None }
    }
}

impl fmt::Debug for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unreliable")
    }
}

impl fmt::Display for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unreliable")
    }
}

fn busy() -> Error {
    Error::Generic { store: "unreliable", source: "503 Server Busy".into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "409 Conflict".into() }
}

#[async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let Some(act) = self.meanwhile(path) {
            act().await;
        }
        self.puts.lock().push(path.to_string());
        match self.fate(path) {
            None => self.inner.put_opts(path, payload, options).await,
            Some(Fate::RequestLost) => Err(busy()),
            Some(Fate::Conflict) => Err(exists(path)),
            Some(Fate::LandsLate) => {
                *self.late.lock() = Some((path.clone(), payload));
                Err(busy())
            }
            Some(Fate::AnswerLost) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(busy())
            }
            Some(Fate::SaidToExist) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(exists(path))
            }
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if *self.gets_fail.lock() {
            return Err(busy());
        }
        let found = self.inner.get_opts(path, options).await;
        let lands = self.late.lock().take_if(|(late, _)| late == path);
        if let Some((late, payload)) = lands {
            // Too late, if another took the name meanwhile.
            let _ = self.inner.put_opts(&late, payload, object_store::PutMode::Create.into()).await;
        }
        found
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if *self.deletes_fail.lock() {
            return paths.map(|_| Err(busy())).boxed();
        }
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

/// The names of what is in a folder of the job.
pub async fn names(store: &InMemory, folder: &str) -> Vec<String> {
    let listed: Vec<_> = store.list(Some(&Path::from(format!("job/{folder}")))).collect().await;
    let mut names: Vec<String> = listed.into_iter().filter_map(|m| Some(m.ok()?.location.filename()?.into())).collect();
    names.sort();
    names
}

pub async fn write(store: &InMemory, path: &str, body: &'static str) {
    store.put(&Path::from(path), body.into()).await.expect("memory takes it");
}

/// A store that takes "create only if absent" and overwrites.
#[derive(Debug)]
pub struct Forgetful(pub Arc<InMemory>);

impl fmt::Display for Forgetful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("forgetful")
    }
}

#[async_trait]
impl ObjectStore for Forgetful {
    async fn put_opts(&self, path: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.0.put_opts(path, payload, PutOptions::default()).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// What a reader sees that listed the snapshots and fetched the newest, and then took its time.
#[derive(Debug)]
pub struct Slow {
    inner: Arc<InMemory>,
    /// The first listing, and what it named.
    listed: Mutex<Option<Vec<ObjectMeta>>>,
    fetched: Arc<InMemory>,
}

impl Slow {
    pub async fn seeing(inner: &Arc<InMemory>) -> Self {
        let folder = Path::from("job/snapshots");
        let listed: Vec<ObjectMeta> = inner.list(Some(&folder)).filter_map(async |m| m.ok()).collect().await;
        let fetched = Arc::new(InMemory::new());
        for object in &listed {
            let body = inner.get(&object.location).await.expect("it is listed").bytes().await.expect("memory answers");
            fetched.put(&object.location, body.into()).await.expect("memory takes it");
        }
        Slow { inner: inner.clone(), listed: Mutex::new(Some(listed)), fetched }
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slow")
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fetched.get_opts(path, options.clone()).await {
            Err(Error::NotFound { .. }) => self.inner.get_opts(path, options).await,
            fetched => fetched,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.listed.lock().take() {
            Some(listed) => futures::stream::iter(listed.into_iter().map(Ok)).boxed(),
            None => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
