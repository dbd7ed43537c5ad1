//! A table outside while a job runs: opened before anything is read, then asked by workers and kept fresh beside them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::by_key::{ByKey, Pending};
use super::keys::KeyRows;
use super::whole::Whole;
use super::{Fetched, LookupError, Met};
use crate::environment::{Bell, Environment};
use crate::metrics::LookupMetrics;
use crate::patience::Patience;
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
        let mut patience = Patience::new(&*self.environment, &self.metrics.health, self.node.give_up_after, 0);
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
            let (place, what) = match outcome {
                Ok(done) => {
                    self.metrics.durations.add(self.environment.elapsed().saturating_sub(asked));
                    self.metrics.health.heal();
                    return Ok(done);
                }
                Err(LookupError::Retry { place, what }) => (place, what),
                Err(failed) => return Err(failed),
            };
            tracing::warn!(table = %self.node.table, %place, %what, "not looked up yet; trying again");
            if let Err(most) = patience.after(&place, &what, 0).await {
                let what = format!("{what}. It has not answered for {most:?}, which give_up_after bounds");
                return Err(LookupError::Failed { place, what });
            }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::connector::Origin;
    use crate::environment::System;
    use crate::lookup::{Loaded, Lookup, LookupRequest};
    use crate::plan::{KeptByKey, Transform};
    use crate::source::SourceColumn;

    /// A table that answers when it is let, and knows how many asked at once.
    struct Slow {
        answers: Semaphore,
        asking: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl Lookup for Slow {
        fn describe(&self) -> String {
            "slow".into()
        }
        async fn load(&self, _: &LookupRequest, _: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
            Err(LookupError::failed("slow", "is never loaded"))
        }
        async fn fetch(&self, _: &LookupRequest, _: &RecordBatch) -> Result<Fetched, LookupError> {
            let asking = self.asking.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(asking, Ordering::Relaxed);
            self.answers.acquire().await.expect("it stays").forget();
            self.asking.fetch_sub(1, Ordering::Relaxed);
            Ok(Fetched { rows: vec![], refused: vec![] })
        }
    }

    #[tokio::test]
    async fn so_many_requests_are_made_at_once_and_no_more() {
        const KEYS: i64 = 20;
        let slow =
            Arc::new(Slow { answers: Semaphore::new(0), asking: AtomicUsize::new(0), most: AtomicUsize::new(0) });
        let field = Arc::new(Field::new("key", DataType::Int64, true));
        let column = SourceColumn { field: field.clone(), origin: Origin::Value };
        let minute = Duration::from_secs(60);
        let node = LookupNode {
            table: "slow".into(),
            lookup: slow.clone(),
            request: LookupRequest { columns: vec![column], keys: vec![0], timeout: minute },
            transform: Transform { steps: vec![] },
            schema: Arc::new(Schema::new(vec![field])),
            keys: vec![0],
            kept: Kept::ByKey(KeptByKey { ttl: minute, missing_ttl: minute, bytes: 1 << 20, keys: 1, requests: 3 }),
            give_up_after: None,
        };
        let table = Arc::new(LookupTable::new(&node, Arc::new(System), Arc::default()));
        let running = tokio::spawn({
            let table = table.clone();
            async move { table.run().await }
        });
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS));
        let keys = KeyRows::of(&RecordBatch::try_from_iter([("key", keys)]).unwrap(), &[0]).unwrap();
        let bell = Arc::default();
        let Answer::Pending(pending) = table.ask(keys, &bell).unwrap() else { panic!("nothing is known yet") };
        while slow.asking.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        slow.answers.add_permits(KEYS as usize);
        while !pending.is_ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(slow.most.load(Ordering::Relaxed), 3);
        running.abort();
    }
}
