//! Reads a file ahead of its reader: I/O runs here, decoding on the worker.

use std::future::Future;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use engine::source::{SourceError, Wake};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

/// Pieces of one file that wait for its reader.
const AHEAD: usize = 4;

/// What arrives of a file, in order.
pub enum Piece {
    /// The file's first record, where reading goes on behind it.
    Header(Bytes),
    Bytes(Bytes),
    Rows(RecordBatch),
}

/// What the reader finds when it looks.
pub enum Arrived {
    Piece(Piece),
    Nothing,
    End,
}

/// A file being read. Ends when it is dropped.
pub struct Prefetch {
    pieces: mpsc::Receiver<Result<Message, SourceError>>,
    task: AbortHandle,
    /// Held until the file's last piece is taken: so few files are open at once.
    permit: Option<OwnedSemaphorePermit>,
    ended: bool,
}

enum Message {
    Opened(OwnedSemaphorePermit),
    Piece(Piece),
    End,
}

/// Takes the pieces of a file to its reader.
pub struct Delivery {
    pieces: mpsc::Sender<Result<Message, SourceError>>,
    wake: Wake,
}

/// The reader is gone; nobody wants the rest.
#[derive(Debug)]
pub struct ReaderGone;

impl Delivery {
    /// Waits while the reader has enough.
    pub async fn send(&self, piece: Piece) -> Result<(), ReaderGone> {
        self.deliver(Ok(Message::Piece(piece))).await
    }

    async fn deliver(&self, message: Result<Message, SourceError>) -> Result<(), ReaderGone> {
        self.pieces.send(message).await.map_err(|_| ReaderGone)?;
        self.wake.ring();
        Ok(())
    }
}

impl Prefetch {
    /// Runs `produce` once one of `open_files` is free. A file that was begun before does not queue: it may be the one
    /// that all others wait for.
    pub fn start<F>(
        open_files: Arc<Semaphore>,
        begun_before: bool,
        wake: Wake,
        produce: impl FnOnce(Arc<Delivery>) -> F + Send + 'static,
    ) -> Prefetch
    where
        F: Future<Output = Result<(), SourceError>> + Send,
    {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let task = tokio::spawn(async move {
            let delivery = Arc::new(Delivery { pieces: sender, wake });
            if !begun_before {
                let Ok(permit) = open_files.acquire_owned().await else { return };
                if delivery.deliver(Ok(Message::Opened(permit))).await.is_err() {
                    return;
                }
            }
            let last = produce(delivery.clone()).await.map(|()| Message::End);
            let _ = delivery.deliver(last).await;
        });
        Prefetch { pieces, task: task.abort_handle(), permit: None, ended: false }
    }

    /// What comes next, without waiting.
    pub fn next(&mut self) -> Result<Arrived, SourceError> {
        while !self.ended {
            match self.pieces.try_recv() {
                Ok(Ok(Message::Opened(permit))) => self.permit = Some(permit),
                Ok(Ok(Message::Piece(piece))) => return Ok(Arrived::Piece(piece)),
                Ok(Ok(Message::End)) => self.ended = true,
                Ok(Err(error)) => return Err(error),
                Err(TryRecvError::Empty) => return Ok(Arrived::Nothing),
                Err(TryRecvError::Disconnected) => {
                    return Err(SourceError::failed("files", "the task that reads a file ended without its end"));
                }
            }
        }
        Ok(Arrived::End)
    }

    /// The file is read to its end: the next one may be opened.
    pub fn close(&mut self) {
        self.permit = None;
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
