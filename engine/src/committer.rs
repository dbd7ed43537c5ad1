//! Shows published entries in one sink: in order, again after any error, with a growing pause while the sink is away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::environment::Environment;
use crate::job_log::entry::{RejectedRows, Shown};
use crate::metrics::SinkMetrics;
use crate::patience::Patience;
use crate::publisher::Request;
use crate::sink::{Committable, Committed, Sink, SinkContext, SinkError};

/// One sink's way from published to shown.
pub struct Committer {
    pub sink: Arc<dyn Sink>,
    pub context: SinkContext,
    pub commit_interval: Duration,
    pub give_up_after: Option<Duration>,
    pub environment: Arc<dyn Environment>,
    pub metrics: Arc<SinkMetrics>,
    pub publisher: mpsc::UnboundedSender<Request>,
}

/// What a committer tells the coordinator.
pub enum CommitEvent {
    Shown(Vec<Shown>),
    Failed(SinkError),
}

impl Committer {
    /// `ending` turns true when the job ends: then nothing waits for its time.
    pub async fn run(
        self,
        mut published: mpsc::UnboundedReceiver<Committable>,
        mut ending: watch::Receiver<bool>,
        events: mpsc::UnboundedSender<CommitEvent>,
    ) {
        let mut due = self.environment.elapsed();
        while let Some(first) = published.recv().await {
            let mut entries = vec![first];
            // Entries that come before it is time wait and are shown together.
            while !self.sink.is_full(&entries)
                && let Some(next) = self.before(due, &mut published, &mut ending).await
            {
                entries.push(next);
            }
            while let Ok(next) = published.try_recv() {
                entries.push(next);
            }
            due = self.environment.elapsed() + self.commit_interval;
            match self.show(entries).await {
                Ok(shown) => {
                    let _ = self.publisher.send(Request::Shown(shown.clone()));
                    let _ = events.send(CommitEvent::Shown(shown));
                }
                Err(error) => {
                    let _ = events.send(CommitEvent::Failed(error));
                    return;
                }
            }
        }
    }

    /// The next entry, if it comes before it is time.
    async fn before(
        &self,
        due: Duration,
        published: &mut mpsc::UnboundedReceiver<Committable>,
        ending: &mut watch::Receiver<bool>,
    ) -> Option<Committable> {
        let left = due.checked_sub(self.environment.elapsed())?;
        tokio::select! {
            biased;
            next = published.recv() => next,
            _ = ending.wait_for(|ending| *ending) => None,
            () = self.environment.sleep(left) => None,
        }
    }

    /// Asks until the sink has shown all of them.
    pub async fn show(&self, mut entries: Vec<Committable>) -> Result<Vec<Shown>, SinkError> {
        let begun = self.environment.elapsed();
        let settled = || self.metrics.requests.settled.get();
        let mut patience = Patience::new(&*self.environment, &self.metrics.health, self.give_up_after, settled());
        loop {
            self.environment.crash_point("before-commit");
            match self.sink.commit(&self.context, &entries).await {
                Ok(Committed::Done) => break,
                Ok(Committed::Rejected { entry, rows }) => self.leave_out(&mut entries, entry, rows).await,
                Err(SinkError::Retry { place, what }) => {
                    tracing::warn!(sink = %self.context.sink, %place, %what, "not committed yet; trying again");
                    if let Err(most) = patience.after(&place, &what, settled()).await {
                        let what = format!("{what}. It has taken nothing for {most:?}, which give_up_after bounds");
                        return Err(SinkError::Failed { place, what });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.environment.crash_point("after-commit");
        self.metrics.health.heal();
        self.metrics.commits.add(1);
        self.metrics.commit_durations.add(self.environment.elapsed().saturating_sub(begun));
        self.metrics.last_entry.set(entries.last().map_or(0, |e| e.entry));
        Ok(entries.iter().map(|e| Shown { entry: e.entry, sink: self.context.sink.clone() }).collect())
    }

    /// Records which rows every try leaves out, before one does.
    async fn leave_out(&self, entries: &mut [Committable], entry: u64, rows: Vec<crate::sink::RejectedRow>) {
        self.metrics.rejected.add(rows.len() as u64);
        if let Some(committable) = entries.iter_mut().find(|e| e.entry == entry) {
            committable.excluded.extend(rows.iter().cloned());
        }
        let (done, recorded) = oneshot::channel();
        let rejected = RejectedRows { entry, sink: self.context.sink.clone(), rows };
        let recorded = match self.publisher.send(Request::Rejected(rejected, done)) {
            Ok(()) => recorded.await.is_ok(),
            Err(_) => false,
        };
        if !recorded {
            // The publisher has ended, and what it says of it ends the job.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use arrow::datatypes::Schema;
    use async_trait::async_trait;
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;
    use crate::environment::System;
    use crate::sink::{Names, Ownership, SinkWriter};

    const AT_ONCE: usize = 3;

    /// Takes nothing, until it was asked so often.
    struct Away {
        asked: AtomicU32,
        back_after: u32,
    }

    #[async_trait]
    impl Sink for Away {
        fn describe(&self) -> String {
            "away".into()
        }
        fn guarantee(&self) -> String {
            "none".into()
        }
        async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
            Ok(())
        }
        fn is_full(&self, entries: &[Committable]) -> bool {
            entries.len() >= AT_ONCE
        }
        fn writer(&self, _: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
            Err(SinkError::failed("away", "nobody writes"))
        }
        async fn commit(&self, _: &SinkContext, _: &[Committable]) -> Result<Committed, SinkError> {
            match self.asked.fetch_add(1, Ordering::Relaxed) {
                n if n < self.back_after => Err(SinkError::retry("table t", "nobody answers")),
                _ => Ok(Committed::Done),
            }
        }
    }

    fn committer(
        sink: Arc<dyn Sink>,
        give_up_after: Option<Duration>,
    ) -> (Committer, mpsc::UnboundedReceiver<Request>) {
        let (publisher, requests) = mpsc::unbounded_channel();
        let committer = Committer {
            sink,
            context: SinkContext {
                log_id: "log".into(),
                sink: "t".into(),
                writer: "w".into(),
                schema: Arc::new(Schema::empty()),
                store: Arc::new(InMemory::new()),
                staging: Path::from("staged"),
                names: Names::of("w"),
                ownership: Ownership::undisputed(),
                metrics: Arc::default(),
                runtime: tokio::runtime::Handle::current(),
            },
            commit_interval: Duration::from_secs(3600),
            give_up_after,
            environment: Arc::new(System),
            metrics: Arc::default(),
            publisher,
        };
        (committer, requests)
    }

    fn entry(entry: u64) -> Committable {
        Committable { entry, writer: "w".into(), tokens: vec![], excluded: vec![] }
    }

    async fn show(back_after: u32, give_up_after: Option<Duration>) -> Result<usize, SinkError> {
        let (committer, _requests) = committer(Arc::new(Away { asked: AtomicU32::new(0), back_after }), give_up_after);
        committer.show(vec![entry(1)]).await.map(|shown| shown.len())
    }

    /// The first waits for nobody, having nobody to wait for since the start; of the others, nobody's hour comes.
    #[tokio::test]
    async fn entries_that_gather_wait_no_longer_once_the_target_takes_no_more_at_once() {
        let (committer, _requests) = committer(Arc::new(Away { asked: AtomicU32::new(0), back_after: 0 }), None);
        let (publish, published) = mpsc::unbounded_channel();
        let (_ending, ended) = watch::channel(false);
        let (events, mut shown) = mpsc::unbounded_channel();
        let committing = tokio::spawn(committer.run(published, ended, events));
        for (entries, expected) in [(1..2, 1), (2..2 + AT_ONCE as u64, AT_ONCE)] {
            entries.for_each(|number| publish.send(entry(number)).expect("it runs"));
            let next = tokio::time::timeout(Duration::from_secs(30), shown.recv()).await;
            let Ok(Some(CommitEvent::Shown(together))) = next else { panic!("they are not shown") };
            assert_eq!(together.len(), expected);
        }
        committing.abort();
    }

    #[tokio::test]
    async fn a_sink_that_is_away_is_waited_for_unless_a_time_is_stated() {
        assert_eq!(show(3, None).await.unwrap(), 1);
        assert_eq!(show(3, Some(Duration::from_secs(60))).await.unwrap(), 1);
        let error = show(u32::MAX, Some(Duration::from_millis(200))).await.unwrap_err();
        assert!(matches!(error, SinkError::Failed { .. }), "a person is needed");
        assert!(error.to_string().contains("nobody answers. It has taken nothing for 200ms"), "{error}");
    }
}
