//! Writes documents: many requests at once, each until it is answered for good.
//!
//! What is sent in one go has no two documents of one id, so the order of the requests does not matter; those before
//! have all been answered when it begins.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use azure_data_cosmos::feed::FeedRange;
use engine::environment::crash_point;
use engine::metrics::SinkMetrics;
use engine::sink::{Ownership, RejectedRow, SinkError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde_json::Value;

use crate::documents::{AROUND, Document, ID, LARGEST_DOCUMENT, PROVENANCE};
use crate::limiter::{Budget, Limiter};
use crate::options::{Pace, Write};
use crate::request::{Answered, Batch, Outcome, Refusal, Target};
use crate::trouble::Trouble;

/// How long nothing may be taken before the commit is given up for this time, and begun again later.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked whether the job is still ours: what is written could undo what its new owner wrote.
const CONFIRMED: Duration = Duration::from_secs(1);
/// How old the last answer may be for anything to be sent on its strength, and how long one is waited for.
const FRESH: Duration = Duration::from_secs(10);
/// The pause after an answer that is none: from, up to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A batch that was not answered so often is halved: it may be too much for the line, or for the service.
const HALVED_AFTER: u32 = 2;
/// How often it is told that documents were there already.
const TELLING: Duration = Duration::from_secs(60);

/// What writing needs, beside the documents.
pub struct Writing<'a> {
    pub target: Target<'a>,
    pub pace: Pace,
    pub state: &'a mut State,
    pub ownership: &'a Ownership,
    pub metrics: &'a SinkMetrics,
    /// Whether a process that is gone may have written some of them.
    pub recovering: bool,
    /// For people: where, and what to look at when the service lets nobody in.
    pub place: &'a str,
    pub remedy: &'a str,
}

/// What outlives a try: how the service bears the requests, and how far an interrupted try came.
pub struct State {
    /// By physical partition: each has request units of its own. `None`: those of which it is not known.
    limiters: Vec<(Option<FeedRange>, Limiter)>,
    budget: Budget,
    done: HashSet<Place>,
    refused: HashMap<Place, Refusal>,
    /// When the job was surely ours.
    ours: Option<Instant>,
    /// When it was last told that a document was there already.
    told: Option<Instant>,
}

/// A row that can never be written, and its entry.
pub type Rejected = (u64, RejectedRow);

/// How far it came.
#[derive(Debug)]
pub struct Written {
    /// Those that can never be written.
    pub rejected: Vec<Rejected>,
    /// Whether all others are. If not, those of the same ids wait until it is recorded who was rejected: whoever tries again
    /// would take them for these.
    pub all: bool,
}

/// An entry, a token in it, a row in that.
type Place = (u64, usize, u64);

/// The requests to one physical partition.
struct Lane {
    /// Which of the limiters is its own.
    limiter: usize,
    queue: VecDeque<Batch>,
    flying: usize,
}

impl State {
    pub fn new(pace: Pace) -> Self {
        State {
            limiters: vec![],
            budget: Budget::new(pace.units_per_second, Instant::now()),
            done: HashSet::new(),
            refused: HashMap::new(),
            ours: None,
            told: None,
        }
    }

    /// Which limiter a physical partition has, in whatever call.
    fn limiter_of(&mut self, range: Option<FeedRange>, pace: Pace) -> usize {
        let known = self.limiters.iter().position(|(of, _)| *of == range);
        known.unwrap_or_else(|| {
            self.limiters.push((range, Limiter::new(pace.requests_at_once)));
            self.limiters.len() - 1
        })
    }

    /// These are written: another try leaves them alone.
    pub fn remember<'a>(&mut self, documents: impl Iterator<Item = &'a Document>) {
        self.done.extend(documents.map(|document| document.place));
    }
}

impl Writing<'_> {
    /// Writes all of them, or says why not yet; asked again with the same documents, it goes on where it was.
    pub async fn write(&mut self, documents: Vec<Document>) -> Result<Written, SinkError> {
        crash_point("before-writing");
        let (mut rejected, mut left) = (vec![], documents);
        while !left.is_empty() && (rejected.is_empty() || !self.target.write.hides_a_refused_one()) {
            let (chosen, hidden) = one_an_id(self.target.write, left);
            let mut refused = self.send(chosen, self.pace.batch).await?;
            // One that has a unique key of another may have it to itself now that all are written: in their order, one by one.
            let (again, others) = refused.into_iter().partition(|(_, refusal)| *refusal == Refusal::UniqueKey);
            refused = others;
            for (document, _) in again {
                self.state.refused.remove(&document.place);
                refused.extend(self.send(vec![document], 1).await?);
            }
            // Without those that cannot be, others of the same ids are the ones that stay.
            let open: HashSet<_> = refused.iter().map(|(document, _)| document.identity()).collect();
            left = hidden.into_iter().filter(|document| open.contains(&document.identity())).collect();
            rejected.extend(refused.into_iter().map(|refused| self.rejection(refused)));
        }
        let all = left.is_empty();
        if all {
            self.state.done.clear();
            self.state.refused.clear();
        }
        crash_point("after-writing");
        Ok(Written { rejected, all })
    }

    /// Sends documents of which no two have one id. Yields those that are refused.
    async fn send(&mut self, documents: Vec<Document>, most: usize) -> Result<Vec<(Document, Refusal)>, SinkError> {
        let mut refused = vec![];
        let left = documents.into_iter().filter_map(|document| match self.state.refused.get(&document.place) {
            Some(refusal) => {
                refused.push((document, refusal.clone()));
                None
            }
            None => (!self.state.done.contains(&document.place)).then_some(document),
        });
        let left = left.collect();
        let mut lanes = self.lanes(left, most).await;
        let (mut delayed, mut flying): (Vec<(Instant, usize, Batch)>, _) = (vec![], FuturesUnordered::new());
        let (mut last_taken, mut last_sure, mut first) = (Instant::now(), Instant::now(), true);
        let mut given_up: Option<SinkError> = None;
        loop {
            let now = Instant::now();
            if given_up.is_none() {
                given_up = self.confirm(now).await;
            }
            // What is under way may arrive later than what another try sends: it is waited for.
            if flying.is_empty()
                && let Some(error) = given_up.take()
            {
                return Err(error);
            }
            let (due, later): (Vec<_>, Vec<_>) = delayed.into_iter().partition(|(at, ..)| *at <= now);
            delayed = later;
            due.into_iter().for_each(|(_, lane, batch)| lanes[lane].queue.push_back(batch));
            let pause = self.state.budget.wait(now);
            if pause.is_some() {
                last_taken = now;
            }
            let may = given_up.is_none() && self.state.ours.is_some_and(|ours| ours.elapsed() <= FRESH);
            if may {
                last_sure = Instant::now();
            } else if given_up.is_none() && last_sure.elapsed() > PATIENCE {
                given_up = Some(SinkError::retry(self.place, "the job log does not say soon enough whose the job is"));
                continue;
            }
            if may && pause.is_none() {
                while let Some((lane, batch)) = self.next(&mut lanes, flying.len()) {
                    flying.push(self.target.ask(lane, batch));
                }
            }
            if flying.is_empty() && delayed.is_empty() && lanes.iter().all(|lane| lane.queue.is_empty()) {
                break;
            }
            let next = delayed.iter().map(|(at, ..)| *at).chain(pause.map(|pause| now + pause)).min();
            let next = next.unwrap_or(now + CONFIRMED).min(now + CONFIRMED);
            tokio::select! {
                biased;
                Some(answered) = flying.next(), if !flying.is_empty() => {
                    let Answered { lane, batch, outcome, cost, took } = answered;
                    self.count(&batch, cost.units, cost.found, took);
                    if cost.found > 0 {
                        self.tell(&batch.documents[0]);
                    }
                    lanes[lane].flying -= 1;
                    let Outcome::Later(why) = outcome else {
                        self.limiter(&lanes[lane]).taken();
                        last_taken = Instant::now();
                        if !matches!(outcome, Outcome::Apart) {
                            self.metrics.requests.settled.add(batch.documents.len() as u64);
                        }
                        match outcome {
                            Outcome::Apart => lanes[lane].queue.extend(batch.apart()),
                            Outcome::Refused(refusal) => for document in batch.documents {
                                self.state.refused.insert(document.place, refusal.clone());
                                refused.push((document, refusal.clone()));
                            },
                            _ => {
                                self.state.remember(batch.documents.iter());
                                if std::mem::take(&mut first) {
                                    crash_point("while-writing");
                                }
                            }
                        }
                        continue;
                    };
                    self.suffer(&why, &lanes[lane]);
                    if last_taken.elapsed() > PATIENCE && given_up.is_none() {
                        given_up = Some(SinkError::retry(self.place, self.say(&why)));
                    }
                    let at = Instant::now() + pause_after(&why, batch.tries);
                    for batch in again(batch, &why) {
                        delayed.push((at, lane, batch));
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
        refused.sort_by_key(|(document, _)| document.place);
        Ok(refused)
    }

    /// Asks whether the job is still ours, if that is not known of late; says when there is no use in waiting for it.
    async fn confirm(&mut self, now: Instant) -> Option<SinkError> {
        if self.state.ours.is_some_and(|ours| now.duration_since(ours) <= CONFIRMED) {
            return None;
        }
        let asked = tokio::time::timeout(FRESH, self.ownership.confirm()).await;
        if asked == Ok(true) {
            self.state.ours = Some(now);
            return None;
        }
        if self.state.ours.is_some_and(|ours| ours.elapsed() <= PATIENCE) {
            tokio::time::sleep(PAUSE.0).await;
            return None;
        }
        let what = "the job log does not say that the job is still this process's";
        Some(SinkError::retry(self.place, what))
    }

    /// The next batch that may be sent, of the physical partitions in turn.
    fn next(&mut self, lanes: &mut [Lane], flying: usize) -> Option<(usize, Batch)> {
        if flying >= self.pace.requests_at_once || self.state.budget.is_spent() {
            return None;
        }
        let open = (0..lanes.len()).filter(|lane| !lanes[*lane].queue.is_empty());
        let free = open.filter(|lane| lanes[*lane].flying < self.limiter(&lanes[*lane]).limit());
        let lane = free.min_by_key(|lane| lanes[*lane].flying)?;
        let mut batch = lanes[lane].queue.pop_front()?;
        lanes[lane].flying += 1;
        batch.reserved = self.state.budget.reserve(batch.documents.len());
        Some((lane, batch))
    }

    fn limiter(&mut self, lane: &Lane) -> &mut Limiter {
        &mut self.state.limiters[lane.limiter].1
    }

    fn count(&mut self, batch: &Batch, units: f64, found: u64, took: Duration) {
        self.state.budget.settle(batch.reserved, units, batch.documents.len());
        self.metrics.requests.sent.add(1);
        self.metrics.requests.rows.add(batch.documents.len() as u64);
        self.metrics.requests.durations.add(took);
        self.metrics.requests.units.add(units);
        self.metrics.requests.found.add(found);
    }

    /// An id of `append` is of one row alone, so nobody but a process that is gone should have written its document.
    fn tell(&mut self, document: &Document) {
        if self.target.write != Write::Append
            || self.recovering
            || self.state.told.is_some_and(|t| t.elapsed() < TELLING)
        {
            return;
        }
        self.state.told = Some(Instant::now());
        tracing::warn!(
            place = self.place,
            id = document.id,
            partition_key = document.key.text,
            "a row's document was there already, and is the same: a request was done though its answer was lost, or somebody \
             copied the job's folder. millrace_sink_rows_found_total counts them all"
        );
    }

    /// Fewer at once, whatever the reason: what times out may do so because there are too many.
    fn suffer(&mut self, why: &Trouble, lane: &Lane) {
        if let Trouble::Throttled(_) = why {
            self.metrics.requests.throttled.add(1);
        }
        self.limiter(lane).throttled(Instant::now());
        self.metrics.health.suffer(self.say(why));
    }

    fn say(&self, why: &Trouble) -> String {
        match why {
            Trouble::Throttled(_) => "the service throttles: there are too few request units".into(),
            Trouble::Changed => "a document changes again and again while it is replaced".into(),
            Trouble::NotLetIn(said) => format!("{said}. {}", self.remedy),
            Trouble::Transient(said) | Trouble::Stopped(said) | Trouble::Refused(said) => said.clone(),
            Trouble::Conflict | Trouble::Missing => {
                "the service says of a document that it is there, and that it is not".into()
            }
        }
    }

    /// The row as it was, without what made it a document.
    fn rejection(&self, (document, refusal): (Document, Refusal)) -> Rejected {
        let (entry, token, row) = document.place;
        let content = match document.body.properties() {
            Ok(mut properties) => {
                if self.target.write == Write::Append {
                    properties.remove(PROVENANCE);
                }
                if self.target.layout.id != [ID] {
                    properties.remove(ID);
                }
                Value::Object(properties).to_string()
            }
            Err(_) => document.body.text().to_string(),
        };
        (entry, RejectedRow { token, row, reason: refusal.to_string(), content })
    }

    /// Those of one partition key together, as many as fit; by the physical partition that has them.
    async fn lanes(&mut self, documents: Vec<Document>, most: usize) -> Vec<Lane> {
        let most = if self.target.write == Write::ReplaceIfNewer { 1 } else { most };
        let (mut by_range, mut place_of) = (Vec::<(_, Vec<Document>)>::new(), HashMap::<String, usize>::new());
        for document in documents {
            let place = match place_of.get(&document.key.text) {
                Some(place) => *place,
                None => {
                    let range = self.target.container.range(&document.key).await;
                    let place = by_range.iter().position(|(known, _)| *known == range).unwrap_or(by_range.len());
                    if place == by_range.len() {
                        by_range.push((range, vec![]));
                    }
                    place_of.insert(document.key.text.clone(), place);
                    place
                }
            };
            by_range[place].1.push(document);
        }
        let lane = |(range, documents)| Lane {
            limiter: self.state.limiter_of(range, self.pace),
            queue: together(documents, most),
            flying: 0,
        };
        by_range.into_iter().map(lane).collect()
    }
}

/// Those of one partition key together, in their order.
fn together(documents: Vec<Document>, most: usize) -> VecDeque<Batch> {
    let (mut batches, mut open) = (VecDeque::<Batch>::new(), HashMap::<String, (usize, usize)>::new());
    for document in documents {
        let more = document.bytes + AROUND;
        match open.get_mut(&document.key.text) {
            Some((batch, bytes)) if batches[*batch].documents.len() < most && *bytes + more <= LARGEST_DOCUMENT => {
                *bytes += more;
                batches[*batch].documents.push(document);
            }
            _ => {
                open.insert(document.key.text.clone(), (batches.len(), more));
                batches.push_back(Batch::of(document));
            }
        }
    }
    batches
}

/// What is tried of a batch that was not answered for good.
fn again(batch: Batch, why: &Trouble) -> Vec<Batch> {
    let tries = batch.tries + 1;
    if !matches!(why, Trouble::Transient(_)) || tries <= HALVED_AFTER || batch.documents.len() < 2 {
        return vec![Batch { tries, ..batch }];
    }
    let mut documents = batch.documents;
    let half = documents.split_off(documents.len() / 2);
    [documents, half].into_iter().map(|documents| Batch { documents, tries, reserved: 0.0 }).collect()
}

/// Grows with the tries, and is another one for each request, so that they do not come back together.
fn pause_after(why: &Trouble, tries: u32) -> Duration {
    let shared = match why {
        Trouble::Throttled(after) => (*after).max(PAUSE.0),
        _ => (PAUSE.0 * 2u32.saturating_pow(tries)).min(PAUSE.1),
    };
    shared.mul_f64(1.0 + rand::random::<f64>() / 2.0)
}

/// Of several documents of one id, the one that is left when all are written; and the others. Both in their order.
fn one_an_id(write: Write, documents: Vec<Document>) -> (Vec<Document>, Vec<Document>) {
    if write == Write::Append {
        return (documents, vec![]);
    }
    let (hashes, mut known) = (RandomState::new(), HashTable::with_capacity(documents.len()));
    let (mut kept, mut hidden) = (Vec::<Document>::with_capacity(documents.len()), vec![]);
    for document in documents {
        let is_its = |at: &usize| kept[*at].identity() == document.identity();
        let hash_of = |at: &usize| hashes.hash_one(kept[*at].identity());
        match known.entry(hashes.hash_one(document.identity()), is_its, hash_of) {
            Entry::Vacant(free) => {
                free.insert(kept.len());
                kept.push(document);
            }
            Entry::Occupied(at) => {
                let earlier = &mut kept[*at.get()];
                let stays = match write {
                    Write::Insert | Write::Delete | Write::Append => true,
                    Write::Upsert => false,
                    // As against one that is stored: of equal versions the first one stays.
                    Write::ReplaceIfNewer => earlier.version >= document.version,
                };
                hidden.push(if stays { document } else { std::mem::replace(earlier, document) });
            }
        }
    }
    kept.sort_by_key(|document| document.place);
    hidden.sort_by_key(|document| document.place);
    (kept, hidden)
}

#[cfg(test)]
mod tests {
    use azure_data_cosmos::PartitionKey;

    use super::*;
    use crate::body::Body;
    use crate::documents::Key;

    fn document(row: u64, key: &str, id: &str, bytes: usize, version: i64) -> Document {
        let key = Key { value: PartitionKey::from(key.to_string()), text: key.into() };
        Document {
            place: (1, 0, row),
            id: id.into(),
            key,
            body: Body::of("{}").unwrap(),
            bytes,
            version: Some(version),
        }
    }

    fn rows(documents: &[Document]) -> Vec<u64> {
        documents.iter().map(|document| document.place.2).collect()
    }

    #[test]
    fn of_one_id_the_first_the_last_or_the_newest_is_left_and_one_id_under_two_keys_is_two() {
        let all = || {
            vec![
                document(0, "k", "a", 1, 5),
                document(1, "k", "a", 1, 9),
                document(2, "k", "a", 1, 9),
                document(3, "l", "a", 1, 1),
                document(4, "k", "a", 1, 7),
            ]
        };
        for (write, kept) in [
            (Write::Insert, vec![0, 3]),
            (Write::Upsert, vec![3, 4]),
            (Write::ReplaceIfNewer, vec![1, 3]),
            (Write::Append, vec![0, 1, 2, 3, 4]),
        ] {
            let (left, hidden) = one_an_id(write, all());
            assert_eq!(rows(&left), kept, "{write:?}");
            assert_eq!(left.len() + hidden.len(), 5);
        }
    }

    #[test]
    fn documents_of_one_key_go_together_as_many_as_fit() {
        let of = |documents: Vec<Document>, most| -> Vec<Vec<u64>> {
            together(documents, most).iter().map(|b| rows(&b.documents)).collect()
        };
        let two_keys = || (0..5).map(|row| document(row, if row % 2 == 0 { "k" } else { "l" }, "a", 100, 0)).collect();
        assert_eq!(of(two_keys(), 100), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(of(two_keys(), 2), [vec![0, 2], vec![1, 3], vec![4]]);
        let large = (0..3).map(|row| document(row, "k", "a", LARGEST_DOCUMENT / 2 - AROUND, 0)).collect();
        assert_eq!(of(large, 100), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn a_batch_that_is_never_answered_is_halved() {
        let batch =
            || Batch { documents: (0..5).map(|row| document(row, "k", "a", 1, 0)).collect(), tries: 0, reserved: 0.0 };
        let unanswered = Trouble::Transient("no answer".into());
        let sizes = |batches: Vec<Batch>| batches.iter().map(|b| b.documents.len()).collect::<Vec<_>>();
        assert_eq!(sizes(again(batch(), &unanswered)), [5]);
        assert_eq!(sizes(again(Batch { tries: HALVED_AFTER, ..batch() }, &unanswered)), [2, 3]);
        let throttled = Trouble::Throttled(Duration::ZERO);
        assert_eq!(sizes(again(Batch { tries: 9, ..batch() }, &throttled)), [5], "that has another reason");
    }
}
