//! Batches of one worker that wait for a table outside, and barriers among them: each leaves when all before it have.

use std::collections::VecDeque;

use arrow::record_batch::RecordBatch;

use super::{Answer, LookupTable, Met};

#[derive(Default)]
pub struct Queue(VecDeque<Waiting>);

enum Waiting {
    Rows { looked_up: Asked, answer: Answer },
    Barrier { stage: usize },
}

/// A batch, and where it is on its way.
pub struct Asked {
    pub batch: RecordBatch,
    /// Of the rows before they are joined.
    pub stage: usize,
    pub epoch: u64,
    pub split: usize,
}

/// What may leave the queue.
pub enum Next {
    Rows(Asked, Met),
    /// All rows of this stage that came before the barrier have left.
    Barrier {
        stage: usize,
    },
}

impl Queue {
    pub fn push(&mut self, asked: Asked, answer: Answer) {
        self.0.push_back(Waiting::Rows { looked_up: asked, answer });
    }

    /// Puts in a barrier of a stage, if rows of it are waiting.
    pub fn cut(&mut self, stage: usize) -> bool {
        let waits = self.0.iter().any(|w| matches!(w, Waiting::Rows { looked_up, .. } if looked_up.stage == stage));
        if waits {
            self.0.push_back(Waiting::Barrier { stage });
        }
        waits
    }

    /// What may leave next.
    pub fn next(&mut self, table: &LookupTable) -> Option<Next> {
        let met = match self.0.front_mut()? {
            Waiting::Barrier { .. } => None,
            Waiting::Rows { answer, .. } => Some(table.met(answer)?),
        };
        match (self.0.pop_front()?, met) {
            (Waiting::Rows { looked_up, .. }, Some(met)) => Some(Next::Rows(looked_up, met)),
            (Waiting::Barrier { stage }, _) => Some(Next::Barrier { stage }),
            (Waiting::Rows { .. }, None) => None,
        }
    }
}
