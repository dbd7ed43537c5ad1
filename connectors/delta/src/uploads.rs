//! What of an open epoch is on its way to the store, and how much may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::metrics::SinkMetrics;
use engine::sink::{SinkContext, SinkError};
use object_store::{ObjectStore, PutPayload};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::parquet_file::DataFile;
use crate::parts::Parts;
use crate::upload::{upload, upload_in_parts};

/// Closed files, and bytes, that may be on their way at once; at either, the sources wait.
const FILES: usize = 4;
const BYTES: usize = 64 << 20;

/// Where files are put.
#[derive(Clone)]
pub struct Destination {
    pub store: Arc<dyn ObjectStore>,
    /// `None`: files are kept until they are whole.
    pub parts: Option<Parts>,
}

/// What is counted as long as this lives.
struct Counted {
    counter: Arc<AtomicUsize>,
    amount: usize,
}

impl Counted {
    fn new(counter: &Arc<AtomicUsize>, amount: usize) -> Self {
        counter.fetch_add(amount, Ordering::Relaxed);
        Counted { counter: counter.clone(), amount }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// Bytes that leave.
pub struct Leaving {
    pub body: PutPayload,
    /// What the file is, if these are its last bytes.
    pub file: Option<Box<DataFile>>,
    _counted: [Counted; 2],
}

/// What is on its way, of this epoch and of those before.
#[derive(Clone, Default)]
struct OnTheWay {
    files: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl OnTheWay {
    /// Bytes, and with them a file if they are its last.
    fn leave(&self, body: PutPayload, file: Option<DataFile>) -> Leaving {
        let files = Counted::new(&self.files, usize::from(file.is_some()));
        let bytes = Counted::new(&self.bytes, body.content_length());
        Leaving { body, file: file.map(Box::new), _counted: [files, bytes] }
    }
}

/// The files of one epoch.
pub type Uploading = JoinSet<Result<DataFile, SinkError>>;

pub struct Uploads {
    destination: Destination,
    runtime: Handle,
    metrics: Arc<SinkMetrics>,
    on_the_way: OnTheWay,
    /// Of the open epoch. What nobody waits for any more is given up.
    uploading: Uploading,
}

impl Uploads {
    pub fn new(destination: Destination, context: &SinkContext) -> Self {
        let (runtime, metrics) = (context.runtime.clone(), context.metrics.clone());
        Uploads { destination, runtime, metrics, on_the_way: OnTheWay::default(), uploading: JoinSet::new() }
    }

    /// Whether more may come.
    pub fn has_room(&self) -> bool {
        self.on_the_way.files.load(Ordering::Relaxed) < FILES && self.bytes() < BYTES
    }

    /// That are on their way.
    pub fn bytes(&self) -> usize {
        self.on_the_way.bytes.load(Ordering::Relaxed)
    }

    /// Sends a file as a whole.
    pub fn send(&mut self, file: DataFile, body: PutPayload) {
        let (store, metrics) = (self.destination.store.clone(), self.metrics.clone());
        let leaving = self.on_the_way.leave(body, Some(file.clone()));
        let task = async move {
            upload(&store, &file.path, leaving.body.clone(), &metrics).await?;
            Ok(file)
        };
        self.uploading.spawn_on(task, &self.runtime);
    }

    /// Begins with a file that is sent in parts; `None` if the store takes only whole ones.
    pub fn begin(&mut self, path: &str) -> Option<Growing> {
        let parts = self.destination.parts.clone()?;
        let (store, path, metrics) = (self.destination.store.clone(), path.to_string(), self.metrics.clone());
        let (sender, leaving) = unbounded_channel();
        let task = async move { upload_in_parts(&store, &parts, &path, leaving, &metrics).await };
        self.uploading.spawn_on(task, &self.runtime);
        Some(Growing { sender, on_the_way: self.on_the_way.clone() })
    }

    /// What is on its way of the epoch that ends here.
    pub fn take(&mut self) -> Uploading {
        std::mem::take(&mut self.uploading)
    }
}

/// A file that is sent in parts while it grows. If it cannot be, those who wait for it are told.
pub struct Growing {
    sender: UnboundedSender<Leaving>,
    on_the_way: OnTheWay,
}

impl Growing {
    pub fn send(&self, part: PutPayload) {
        let _ = self.sender.send(self.on_the_way.leave(part, None));
    }

    pub fn send_last(self, rest: PutPayload, file: DataFile) {
        let _ = self.sender.send(self.on_the_way.leave(rest, Some(file)));
    }
}
