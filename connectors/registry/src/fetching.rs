//! Asks a registry in the background, and keeps what it said.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use formats::{Found, SchemaId, Schemas, Wake};
use parking_lot::Mutex;
use rand::Rng;
use tokio::runtime::Handle;

use crate::{Registry, RegistryError};

/// Pauses between questions to a registry that is away: from, up to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How often it is said that somebody waits.
const TOLD: Duration = Duration::from_secs(60);
/// How long a registry is believed that has no such schema: somebody may add it.
const NONE_HOLDS: Duration = Duration::from_secs(30);
/// Schemas that are kept. Topics have some dozens; ids that are nonsense could be many.
const MOST_KEPT: usize = 1_000;

pub struct Fetching(Arc<Inner>);

struct Inner {
    registry: Registry,
    runtime: Handle,
    known: Mutex<HashMap<SchemaId, State>>,
}

enum State {
    /// Asked for; who is to be woken.
    Asked(Vec<Wake>),
    Answered(Found, Instant),
}

impl Fetching {
    pub fn new(registry: Registry, runtime: Handle) -> Self {
        Fetching(Arc::new(Inner { registry, runtime, known: Mutex::default() }))
    }
}

impl Schemas for Fetching {
    fn look(&self, id: &SchemaId, wake: &Wake) -> Found {
        let mut known = self.0.known.lock();
        match known.get_mut(id) {
            Some(State::Asked(waiting)) => {
                // Whoever is woken for something else asks again.
                if !waiting.iter().any(|one| Arc::ptr_eq(one, wake)) {
                    waiting.push(wake.clone());
                }
                return Found::NotYet;
            }
            Some(State::Answered(found, since)) if !is_stale(found, *since) => return found.clone(),
            _ => {}
        }
        make_room(&mut known);
        known.insert(id.clone(), State::Asked(vec![wake.clone()]));
        self.0.runtime.spawn(ask(self.0.clone(), id.clone()));
        Found::NotYet
    }
}

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.registry.fmt(f)
    }
}

fn is_stale(found: &Found, since: Instant) -> bool {
    matches!(found, Found::None(_)) && since.elapsed() > NONE_HOLDS
}

/// Forgets answers, those that say nothing first; what is asked for stays.
fn make_room(known: &mut HashMap<SchemaId, State>) {
    if known.len() < MOST_KEPT {
        return;
    }
    known.retain(|_, state| !matches!(state, State::Answered(Found::None(_), _)));
    if known.len() >= MOST_KEPT {
        known.retain(|_, state| matches!(state, State::Asked(_)));
    }
}

async fn ask(inner: Arc<Inner>, id: SchemaId) {
    let found = insist(&inner.registry, &id).await;
    let before = inner.known.lock().insert(id, State::Answered(found, Instant::now()));
    if let Some(State::Asked(waiting)) = before {
        waiting.iter().for_each(|wake| wake());
    }
}

/// Asks until there is an answer: messages that wait are not to blame for a registry that is away.
async fn insist(registry: &Registry, id: &SchemaId) -> Found {
    let (mut pause, mut told): (Duration, Option<Instant>) = (PAUSE.0, None);
    loop {
        let error = match registry.fetch(id).await {
            Ok(schema) => {
                if told.is_some() {
                    tracing::info!(schema = %id, "{}: it answers again", registry.place());
                }
                return Found::Schema(Arc::new(schema));
            }
            Err(RegistryError::None(why) | RegistryError::Refused(why)) => return Found::None(why.into()),
            Err(error) => error,
        };
        if told.is_none_or(|last| last.elapsed() >= TOLD) {
            told = Some(Instant::now());
            tracing::warn!(schema = %id, %error, "{}: messages wait for a schema", registry.place());
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::time::sleep(jittered).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
