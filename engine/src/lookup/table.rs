//! A table outside while a job runs: opened before anything is read, then asked by workers and kept fresh beside them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::by_key::{ByKey, Pending};
use super::keys::KeyRows;
use super::whole::Whole;
use super::{Fetched, LookupError, Met};
use crate::environment::{Bell, Environment, backoff};
use crate::metrics::LookupMetrics;
use crate::plan::{Kept, LookupNode};

/// A table outside that rows of a job are joined to.
pub struct LookupTable {
    node: LookupNode,
    state: State,
    environment: Arc<dyn Environment>,
    pub metrics: Arc<LookupMetrics>,
}

enum State {
    Whole(Whole),
    ByKey(ByKey),
}

/// What the rows of a batch meet, now or later.
pub enum Answer {
    /// Until it is taken.
    Ready(Option<Met>),
    Pending(Arc<Pending>),
}

impl LookupTable {
    pub fn new(node: &LookupNode, environment: Arc<dyn Environment>, metrics: Arc<LookupMetrics>) -> LookupTable {
        let state = match node.kept {
            Kept::Whole { .. } => State::Whole(Whole::default()),
            Kept::ByKey(how) => State::ByKey(ByKey::new(node, how)),
        };
        LookupTable { node: node.clone(), state, environment, metrics }
    }

    pub fn name(&self) -> &str {
        &self.node.table
    }

    /// Waits until the table can be asked. What may heal is tried again.
    pub async fn open(&self) -> Result<(), LookupError> {
        match &self.state {
            State::Whole(whole) => self.load(whole).await,
            State::ByKey(_) => self.patiently(|| self.node.lookup.open(&self.node.request)).await,
        }
    }

    /// Does what the table needs while the job runs: asks for keys that are wanted, or whether it has changed. Ends
    /// with the reason why that is given up.
    pub async fn run(&self) -> LookupError {
        match (&self.state, self.node.kept) {
            (State::Whole(whole), Kept::Whole { refresh, .. }) => loop {
                self.environment.sleep(refresh).await;
                if let Err(error) = self.load(whole).await {
                    return error;
                }
            },
            (State::ByKey(by_key), Kept::ByKey(how)) => {
                let fetching = (0..how.requests.max(1)).map(|_| Box::pin(self.fetch(by_key)));
                futures::future::select_all(fetching).await.0
            }
            _ => std::future::pending().await,
        }
    }

    /// What rows with these keys meet. The bell rings when a later answer is there.
    pub fn ask(&self, keys: KeyRows, bell: &Arc<Bell>) -> Result<Answer, LookupError> {
        self.metrics.rows.add(keys.len() as u64);
        Ok(match &self.state {
            State::Whole(whole) => Answer::Ready(Some(whole.meet(&keys, &self.node).map_err(|e| self.failed(e))?)),
            State::ByKey(by_key) => {
                let (pending, of, asked) = by_key.ask(&keys, bell, self.environment.elapsed());
                self.metrics.keys.add(of as u64);
                self.metrics.asked.add(asked as u64);
                Answer::Pending(pending)
            }
        })
    }

    /// The answer, if it is there.
    pub fn met(&self, answer: &mut Answer) -> Result<Option<Met>, LookupError> {
        match answer {
            Answer::Pending(pending) if !pending.is_ready() => Ok(None),
            Answer::Pending(pending) => Ok(Some(pending.met(&self.node).map_err(|e| self.failed(e))?)),
            Answer::Ready(met) => Ok(met.take()),
        }
    }

    fn failed(&self, what: impl std::fmt::Display) -> LookupError {
        LookupError::failed(self.node.place(), what)
    }

    async fn load(&self, whole: &Whole) -> Result<(), LookupError> {
        let size = self
            .patiently(|| async {
                let seen = whole.version();
                let loaded = self.node.lookup.load(&self.node.request, seen.as_deref(), self.environment.now()).await?;
                whole.take_in(&self.node, loaded)
            })
            .await?;
        if let Some((rows, bytes)) = size {
            self.metrics.kept_rows.set(rows as u64);
            self.metrics.kept_bytes.set(bytes as u64);
        }
        self.metrics.loaded_at.set(self.environment.now().max(0) as u64);
        Ok(())
    }

    /// Asks for what is wanted, for ever.
    async fn fetch(&self, by_key: &ByKey) -> LookupError {
        loop {
            let keys = by_key.next().await;
            let asked = match by_key.request(&keys) {
                Ok(asked) => asked,
                Err(error) => return self.failed(error),
            };
            let fetched: Result<Fetched, _> =
                self.patiently(|| self.node.lookup.fetch(&self.node.request, &asked)).await;
            let now = self.environment.elapsed();
            if let Err(error) = fetched.and_then(|fetched| by_key.settle(&self.node, keys, fetched, now)) {
                return error;
            }
            let (entries, bytes) = by_key.size();
            self.metrics.kept_rows.set(entries);
            self.metrics.kept_bytes.set(bytes);
        }
    }

    /// Tries until it works, with growing pauses, and gives up what takes too long.
    async fn patiently<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, LookupError>
    where
        F: Future<Output = Result<T, LookupError>>,
    {
        let (begun, mut tries) = (self.environment.elapsed(), 0);
        loop {
            let asked = self.environment.elapsed();
            let timeout = self.node.request.timeout;
            let outcome = tokio::select! {
                biased;
                outcome = attempt() => outcome,
                () = self.environment.sleep(timeout) => {
                    Err(LookupError::retry(self.node.lookup.describe(), format!("no answer within {timeout:?}")))
                }
            };
            let now = self.environment.elapsed();
            let (place, what) = match outcome {
                Ok(done) => {
                    self.metrics.durations.add(now.saturating_sub(asked));
                    self.metrics.health.heal();
                    return Ok(done);
                }
                Err(LookupError::Retry { place, what }) => (place, what),
                Err(failed) => return Err(failed),
            };
            tracing::warn!(table = %self.node.table, %place, %what, "not looked up yet; trying again");
            self.metrics.health.suffer(format!("{place}: {what}"));
            if let Some(most) = self.node.give_up_after.filter(|most| now.saturating_sub(begun) >= *most) {
                let what = format!("{what}. It has not answered for {most:?}, which give_up_after bounds");
                return Err(LookupError::Failed { place, what });
            }
            self.environment.sleep(backoff(&*self.environment, tries)).await;
            tries += 1;
        }
    }
}

/// Opens all of them at once; the first that cannot be is the error.
pub async fn open_all(tables: &[Arc<LookupTable>]) -> Result<(), LookupError> {
    join_all(tables.iter().map(|table| table.open())).await.into_iter().collect()
}

/// How long a request for keys may take if nothing is said.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the load of a whole table may take.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(600);
