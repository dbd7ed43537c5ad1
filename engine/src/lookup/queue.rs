//! Batches of one worker that wait for a table outside, and barriers among them: each leaves when all before it have.

use std::collections::VecDeque;

use arrow::record_batch::RecordBatch;

use super::{Answer, LookupError, LookupTable, Met};

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
    pub fn next(&mut self, table: &LookupTable) -> Result<Option<Next>, LookupError> {
        let met = match self.0.front_mut() {
            Some(Waiting::Rows { answer, .. }) => table.met(answer)?,
            _ => None,
        };
        let leaves = |first: &mut Waiting| met.is_some() || matches!(first, Waiting::Barrier { .. });
        Ok(match (self.0.pop_front_if(leaves), met) {
            (Some(Waiting::Rows { looked_up, .. }), Some(met)) => Some(Next::Rows(looked_up, met)),
            (Some(Waiting::Barrier { stage }), _) => Some(Next::Barrier { stage }),
            _ => None,
        })
    }
}
