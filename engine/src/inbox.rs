//! What workers send one another. A queue here never blocks its sender: its bound is kept at the sources, as credits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;

use crate::clock::SplitClock;
use crate::environment::Bell;
use crate::lookup::Met;
use crate::source::{Position, SplitReader};

/// Something for a worker to take in.
pub enum Letter {
    /// Rows for an operator or sink behind an exchange. `epoch` is the sender's: rows of a later one wait.
    Rows {
        to: crate::routing::To,
        stage: usize,
        epoch: u64,
        split: usize,
        batch: RecordBatch,
    },
    /// Rows of this worker that have met what they were looked up for; `stage` is the one behind the lookup.
    LookedUp {
        operator: usize,
        stage: usize,
        epoch: u64,
        split: usize,
        batch: RecordBatch,
        met: Met,
    },
    /// A split's clocks, in order with its rows.
    Clock {
        stage: usize,
        epoch: u64,
        source: usize,
        split: usize,
        clock: SplitClock,
    },
    /// The sender has cut everything before `stage`: no more rows of `epoch` come from it.
    Passed {
        stage: usize,
        epoch: u64,
    },
    /// The coordinator starts a new epoch: cut what came before.
    Barrier {
        epoch: u64,
    },
    /// The job ends: read no more, and work off what is on its way.
    LastRead,
    /// A new split to read.
    Split(Box<Assigned>),
    /// A split that was found while running: its clock counts from now on, whoever reads it. `mine`: the worker that
    /// gets the letter will.
    Known {
        source: usize,
        split: usize,
        group: String,
        clock: SplitClock,
        mine: bool,
    },
    Stop,
}

/// A split that this worker reads.
pub struct Assigned {
    pub source: usize,
    /// Running number over all splits of the job.
    pub split: usize,
    /// The key group's name in the log.
    pub group: String,
    pub reader: Box<dyn SplitReader>,
    pub position: Position,
    pub clock: SplitClock,
}

/// A worker's mail.
#[derive(Default)]
pub struct Inbox {
    letters: Mutex<VecDeque<Letter>>,
    /// Rows that were sent and not yet worked on, parked ones included.
    rows: AtomicUsize,
    /// Of these rows, roughly.
    bytes: AtomicUsize,
    /// The last barrier that the worker has taken in.
    barrier: AtomicU64,
    pub bell: Arc<Bell>,
}

impl Inbox {
    pub fn send(&self, letter: Letter) {
        if let Letter::Rows { batch, .. } = &letter {
            self.wait(batch);
        }
        self.letters.lock().push_back(letter);
        self.bell.ring();
    }

    pub fn take(&self) -> Option<Letter> {
        self.letters.lock().pop_front()
    }

    /// Rows have begun to wait, here or for a table outside.
    pub fn wait(&self, batch: &RecordBatch) {
        self.rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
        self.bytes.fetch_add(batch.get_array_memory_size(), Ordering::Relaxed);
    }

    /// Rows have been worked on: there is room for others. `size`: what [`Inbox::size_of`] said when they came.
    pub fn done(&self, (rows, bytes): (usize, usize)) {
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Rows and bytes of a batch, as [`Inbox::wait`] counts them.
    pub fn size_of(batch: &RecordBatch) -> (usize, usize) {
        (batch.num_rows(), batch.get_array_memory_size())
    }

    /// The worker begins to cut for the barrier of an epoch.
    pub fn cuts(&self, epoch: u64) {
        self.barrier.store(epoch, Ordering::Relaxed);
    }

    /// The last epoch for which the worker began to cut.
    pub fn barrier(&self) -> u64 {
        self.barrier.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }
}
