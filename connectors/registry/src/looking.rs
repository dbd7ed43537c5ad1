//! Schemas that are known, and those that are asked for while their readers do something else.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use formats::{Found, RegisteredSchema, SchemaId, Schemas, Wake};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::trouble::{Outage, RegistryError, Unfound};
use crate::{Pace, Registry};

/// How many answers are kept.
const KEPT: usize = 1000;
/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// A registry, as a decoder sees it.
pub struct Looking {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    registry: Registry,
    known: Mutex<Known>,
    outage: Mutex<Outage>,
    turn: Semaphore,
}

impl Looking {
    pub fn new(registry: Registry, runtime: Handle) -> Self {
        let shared =
            Shared { registry, known: Mutex::default(), outage: Mutex::default(), turn: Semaphore::new(AT_ONCE) };
        Looking { shared: Arc::new(shared), runtime }
    }
}

impl Schemas for Looking {
    fn look(&self, id: &SchemaId, wake: &Wake) -> Found {
        let kept = self.shared.registry.0.pace.none;
        let looked = self.shared.known.lock().look(id, wake, Instant::now(), kept);
        match looked {
            Looked::Known(found) => found,
            Looked::Asked => Found::NotYet,
            Looked::Unasked => {
                self.runtime.spawn(ask(Arc::downgrade(&self.shared), id.clone(), self.shared.registry.0.pace));
                Found::NotYet
            }
        }
    }
}

impl fmt::Debug for Looking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.registry.fmt(f)
    }
}

/// Asks until there is an answer, or nobody left who would look at it.
async fn ask(shared: Weak<Shared>, id: SchemaId, pace: Pace) {
    // Halved and more by the jitter.
    let mut pause = pace.pause.0 * 2;
    while let Some(shared) = shared.upgrade() {
        match shared.fetch(&id).await {
            Ok(schema) => return shared.answered(&id, Answer::Schema(Arc::new(schema))),
            Err(Unfound::None(why)) => {
                let why = format!("{}: {why}", shared.registry.place());
                return shared.answered(&id, Answer::None(why.into(), Instant::now()));
            }
            Err(Unfound::Trouble(error)) => shared.unanswered(&id, &error, pace.told),
        }
        drop(shared);
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(pace.pause.1);
    }
}

impl Shared {
    async fn fetch(&self, id: &SchemaId) -> Result<RegisteredSchema, Unfound> {
        // It is never closed; if it were, nothing would be worse than asking all at once.
        let _turn = self.turn.acquire().await.ok();
        self.registry.fetch(id).await
    }

    fn answered(&self, id: &SchemaId, answer: Answer) {
        let waiting = self.known.lock().answered(id, answer);
        if let Some(waited) = self.outage.lock().ends(id, Instant::now()) {
            tracing::info!(place = self.registry.place(), ?waited, "the schema registry answers again");
        }
        for wake in waiting {
            wake();
        }
    }

    fn unanswered(&self, id: &SchemaId, error: &RegistryError, told: Duration) {
        if let Some(waiting) = self.outage.lock().goes_on(id, Instant::now(), told) {
            let place = self.registry.place();
            tracing::warn!(%place, schemas = waiting, %error, "messages wait for their schemas; asking again");
        }
    }
}

/// What became of questions.
#[derive(Default)]
struct Known {
    schemas: HashMap<SchemaId, Entry>,
    /// Grows with each look.
    time: u64,
}

enum Entry {
    /// Asked for, and by whom.
    Asked(Vec<Wake>),
    Answered {
        answer: Answer,
        /// When it was last looked at.
        looked: u64,
    },
}

enum Answer {
    /// It never changes.
    Schema(Arc<RegisteredSchema>),
    None(Arc<str>, Instant),
}

enum Looked {
    Known(Found),
    Asked,
    /// Whoever looked must see to it that it is asked for.
    Unasked,
}

impl Known {
    fn look(&mut self, id: &SchemaId, wake: &Wake, now: Instant, none_kept: Duration) -> Looked {
        self.time += 1;
        match self.schemas.get_mut(id) {
            Some(Entry::Asked(waiting)) => {
                if !waiting.iter().any(|known| Arc::ptr_eq(known, wake)) {
                    waiting.push(wake.clone());
                }
                return Looked::Asked;
            }
            Some(Entry::Answered { answer: Answer::Schema(schema), looked }) => {
                *looked = self.time;
                return Looked::Known(Found::Schema(schema.clone()));
            }
            Some(Entry::Answered { answer: Answer::None(why, since), looked })
                if now.duration_since(*since) < none_kept =>
            {
                *looked = self.time;
                return Looked::Known(Found::None(why.clone()));
            }
            _ => {}
        }
        self.schemas.insert(id.clone(), Entry::Asked(vec![wake.clone()]));
        Looked::Unasked
    }

    /// Returns whom to wake.
    fn answered(&mut self, id: &SchemaId, answer: Answer) -> Vec<Wake> {
        let looked = self.time;
        let before = self.schemas.insert(id.clone(), Entry::Answered { answer, looked });
        if self.schemas.len() > KEPT {
            self.forget_one(id);
        }
        match before {
            Some(Entry::Asked(waiting)) => waiting,
            _ => vec![],
        }
    }

    /// Forgets the answer that was not looked at for the longest time, but not that for `except`, which nobody has seen.
    fn forget_one(&mut self, except: &SchemaId) {
        let answers = self.schemas.iter().filter_map(|(id, entry)| match entry {
            Entry::Answered { looked, .. } if id != except => Some((*looked, id)),
            _ => None,
        });
        if let Some((_, oldest)) = answers.min_by_key(|(looked, _)| *looked) {
            let oldest = oldest.clone();
            self.schemas.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use formats::SchemaKind;

    use super::*;

    const NONE_KEPT: Duration = Duration::from_secs(30);

    fn schema(text: &str) -> Answer {
        let text = text.to_string();
        Answer::Schema(Arc::new(RegisteredSchema { kind: SchemaKind::Avro, text, referenced: vec![] }))
    }

    fn waiter() -> Wake {
        Arc::new(|| ())
    }

    #[test]
    fn what_was_not_looked_at_for_the_longest_time_is_forgotten_and_what_is_asked_for_is_not() {
        let mut known = Known::default();
        let now = Instant::now();
        let look = |known: &mut Known, id| {
            matches!(known.look(&SchemaId::Number(id), &waiter(), now, NONE_KEPT), Looked::Known(_))
        };
        assert!(!look(&mut known, 9_999));
        for id in 0..KEPT as u32 - 1 {
            assert!(!look(&mut known, id));
            known.answered(&SchemaId::Number(id), schema("s"));
        }
        assert!(look(&mut known, 0), "there is room for all of them");
        known.answered(&SchemaId::Number(5_000), schema("s"));
        assert_eq!(known.schemas.len(), KEPT);
        assert!(look(&mut known, 0) && look(&mut known, 5_000) && !look(&mut known, 1));
        assert_eq!(known.answered(&SchemaId::Number(9_999), schema("s")).len(), 1, "its waiter was kept");

        let mut known = Known::default();
        for id in 0..=KEPT as u32 {
            assert!(!look(&mut known, id));
        }
        known.answered(&SchemaId::Number(0), schema("s"));
        assert!(look(&mut known, 0), "its waiter has not seen it yet");
    }

    #[test]
    fn one_that_looks_twice_is_woken_once() {
        let mut known = Known::default();
        let (one, other, id) = (waiter(), waiter(), SchemaId::Number(1));
        for (wake, asks) in [(&one, true), (&one, false), (&other, false), (&one, false)] {
            let looked = known.look(&id, wake, Instant::now(), NONE_KEPT);
            assert_eq!(matches!(looked, Looked::Unasked), asks);
        }
        assert_eq!(known.answered(&id, schema("s")).len(), 2);
    }
}
