//! Writes documents: many requests at once, each until it is answered for good.
//!
//! What is written in one go has no two documents of one id, so the order of the requests does not matter; those before
//! have all been answered when it begins.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use azure_data_cosmos::models::ResponseHeaders;
use azure_data_cosmos::options::{ItemWriteOptions, Precondition};
use azure_data_cosmos::{CosmosError, TransactionalBatch};
use engine::environment::crash_point;
use engine::metrics::SinkMetrics;
use engine::sink::{Ownership, RejectedRow, SinkError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;

use crate::container::Container;
use crate::documents::{Document, ID, LARGEST_DOCUMENT, Layout, PROVENANCE, stored_version};
use crate::limiter::{Budget, Limiter};
use crate::options::{Pace, Write};
use crate::trouble::Trouble;

/// How long nothing may be taken before the commit is given up for this time, and begun again later.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked whether the job is still ours: what is written could undo what its new owner wrote.
const CONFIRMED: Duration = Duration::from_secs(10);
/// The pause after an answer that is none: from, up to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// What stands around a document in a batch.
const AROUND: usize = 256;
/// How often a document may change under our hands before it is left for a while.
const TRIES: usize = 10;
/// A document that is there may not be seen yet by a reader of another copy: how often, and how long, one looks again.
const LOOKS: (usize, Duration) = (5, Duration::from_millis(200));

/// What writing needs, beside the documents.
pub struct Writing<'a> {
    pub container: &'a Container,
    pub write: Write,
    pub layout: &'a Layout,
    pub pace: Pace,
    pub limiter: &'a mut Limiter,
    pub budget: &'a mut Budget,
    pub ownership: &'a Ownership,
    pub metrics: &'a SinkMetrics,
    pub place: &'a str,
}

/// Documents of one partition key, on their way together.
struct Batch {
    documents: Vec<Document>,
    tries: u32,
}

/// What became of a batch.
enum Outcome {
    Written,
    /// One of them cannot be, so none was: they go one by one.
    Apart,
    Refused(String),
    Later {
        after: Duration,
        why: Trouble,
    },
}

/// A row that can never be written, and its entry.
pub type Rejected = (u64, RejectedRow);

impl Writing<'_> {
    /// Writes all of them, or says why not yet. Yields those that can never be written; all others then are.
    pub async fn write(&mut self, documents: Vec<Document>) -> Result<Vec<Rejected>, SinkError> {
        crash_point("before-writing");
        let (mut rejected, mut left) = (vec![], documents);
        while !left.is_empty() {
            let (chosen, hidden) = one_an_id(self.write, left);
            let refused = self.send(chosen).await?;
            // Without those that cannot be, others of the same ids are the ones that stay.
            let open: HashSet<_> = refused.iter().map(|(document, _)| document.identity()).collect();
            left = hidden.into_iter().filter(|document| open.contains(&document.identity())).collect();
            rejected.extend(refused.into_iter().map(|refused| self.rejection(refused)));
        }
        crash_point("after-writing");
        Ok(rejected)
    }

    /// Sends documents of which no two have one id. Yields those that are refused, each with the reason.
    async fn send(&mut self, documents: Vec<Document>) -> Result<Vec<(Document, String)>, SinkError> {
        let mut queue = self.batches(documents);
        let (mut delayed, mut flying): (Vec<(Instant, Batch)>, _) = (vec![], FuturesUnordered::new());
        let (mut refused, mut last_taken, mut first) = (vec![], Instant::now(), true);
        let mut given_up: Option<SinkError> = None;
        let mut asked = self.confirm().await?;
        loop {
            let now = Instant::now();
            if asked.elapsed() > CONFIRMED && given_up.is_none() {
                match self.confirm().await {
                    Ok(at) => asked = at,
                    Err(error) => given_up = Some(error),
                }
            }
            // What is under way may arrive later than what another try sends: it is waited for.
            if flying.is_empty()
                && let Some(error) = given_up.take()
            {
                return Err(error);
            }
            let (due, later): (Vec<_>, Vec<_>) = delayed.into_iter().partition(|(at, _)| *at <= now);
            delayed = later;
            queue.extend(due.into_iter().map(|(_, batch)| batch));
            let pause = self.budget.wait(now);
            while given_up.is_none() && pause.is_none() && flying.len() < self.limiter.limit() {
                let Some(batch) = queue.pop_front() else { break };
                self.metrics.requests.sent.add(1);
                self.metrics.requests.rows.add(batch.documents.len() as u64);
                flying.push(ask(self.container, self.write, self.layout, batch));
            }
            if flying.is_empty() && queue.is_empty() && delayed.is_empty() {
                break;
            }
            let next = delayed.iter().map(|(at, _)| *at).chain(pause.map(|pause| now + pause)).min();
            let next = next.unwrap_or(now + CONFIRMED);
            tokio::select! {
                biased;
                Some(answered) = flying.next(), if !flying.is_empty() => {
                    let Answered { batch, outcome, units, took, found } = answered;
                    self.budget.spend(units);
                    self.metrics.requests.durations.add(took);
                    self.metrics.requests.units.add(units);
                    self.metrics.requests.found.add(found);
                    if !matches!(outcome, Outcome::Later { .. }) {
                        self.limiter.taken();
                        last_taken = Instant::now();
                    }
                    match outcome {
                        Outcome::Written if std::mem::take(&mut first) => crash_point("while-writing"),
                        Outcome::Written => {}
                        Outcome::Apart => queue.extend(batch.documents.into_iter().map(|document| {
                            Batch { documents: vec![document], tries: 0 }
                        })),
                        Outcome::Refused(reason) => {
                            refused.extend(batch.documents.into_iter().map(|document| (document, reason.clone())));
                        }
                        Outcome::Later { after, why } => {
                            self.suffer(&why);
                            if last_taken.elapsed() > PATIENCE && given_up.is_none() {
                                given_up = Some(SinkError::retry(self.place, say(&why)));
                            }
                            delayed.push((Instant::now() + after, Batch { tries: batch.tries + 1, ..batch }));
                        }
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
        Ok(refused)
    }

    /// The row as it was, without what made it a document.
    fn rejection(&self, (mut document, reason): (Document, String)) -> Rejected {
        let (entry, token, row) = document.place;
        if self.write == Write::Append {
            document.body.remove(PROVENANCE);
        }
        if self.layout.id != [ID] {
            document.body.remove(ID);
        }
        (entry, RejectedRow { token, row, reason, content: Value::Object(document.body).to_string() })
    }

    async fn confirm(&self) -> Result<Instant, SinkError> {
        let asked = Instant::now();
        match self.ownership.confirm().await {
            true => Ok(asked),
            false => Err(SinkError::retry(self.place, "the job log does not say that the job is still this process's")),
        }
    }

    fn suffer(&mut self, why: &Trouble) {
        if let Trouble::Throttled(_) = why {
            self.metrics.requests.throttled.add(1);
            self.limiter.throttled(Instant::now());
        }
        self.metrics.health.suffer(say(why));
    }

    /// Those of one partition key together, as many as fit.
    fn batches(&self, documents: Vec<Document>) -> VecDeque<Batch> {
        let most = if self.write == Write::ReplaceIfNewer { 1 } else { self.pace.batch };
        let (mut open, mut bytes, mut full) =
            (HashMap::<String, Vec<Document>>::new(), HashMap::<String, usize>::new(), vec![]);
        for document in documents {
            let key = document.key.text.clone();
            let (group, size) = (open.entry(key.clone()).or_default(), bytes.entry(key).or_default());
            let more = document.bytes + AROUND;
            if group.len() >= most || (!group.is_empty() && *size + more > LARGEST_DOCUMENT) {
                full.push(std::mem::take(group));
                *size = 0;
            }
            *size += more;
            group.push(document);
        }
        let all = full.into_iter().chain(open.into_values());
        all.filter(|group| !group.is_empty()).map(|documents| Batch { documents, tries: 0 }).collect()
    }
}

/// Of several documents of one id, the one that is left when all are written; and the others.
fn one_an_id(write: Write, documents: Vec<Document>) -> (Vec<Document>, Vec<Document>) {
    if write == Write::Append {
        return (documents, vec![]);
    }
    let mut kept: HashMap<(String, String), Document> = HashMap::with_capacity(documents.len());
    let mut hidden = vec![];
    for document in documents {
        match kept.entry(document.identity()) {
            Entry::Vacant(free) => {
                free.insert(document);
            }
            Entry::Occupied(mut earlier) => {
                let stays = match write {
                    Write::Insert | Write::Delete | Write::Append => true,
                    Write::Upsert => false,
                    Write::ReplaceIfNewer => earlier.get().version > document.version,
                };
                hidden.push(if stays { document } else { earlier.insert(document) });
            }
        }
    }
    // In their order: of those, too, the first or the last one counts.
    hidden.sort_by_key(|document| document.place);
    (kept.into_values().collect(), hidden)
}

fn say(why: &Trouble) -> String {
    match why {
        Trouble::Throttled(_) => "the service throttles: there are too few request units".into(),
        Trouble::Changed => "a document changes again and again while it is replaced".into(),
        Trouble::Transient(said) | Trouble::Stopped(said) | Trouble::Refused(said) => said.clone(),
        Trouble::Conflict | Trouble::Missing => "a document comes and goes while it is written".into(),
    }
}

struct Answered {
    batch: Batch,
    outcome: Outcome,
    units: f64,
    took: Duration,
    /// Documents that were there already.
    found: u64,
}

/// What requests cost, and met.
#[derive(Default)]
struct Tally {
    units: f64,
    found: u64,
}

impl Tally {
    fn of(&mut self, headers: &ResponseHeaders) {
        self.units += headers.request_charge().map_or(0.0, |charge| charge.value());
    }

    fn failed(&mut self, error: &CosmosError) -> Trouble {
        let charge = error.response().and_then(|response| response.headers().request_charge);
        self.units += charge.map_or(0.0, |charge| charge.value());
        Trouble::of(error)
    }
}

async fn ask(container: &Container, write: Write, layout: &Layout, batch: Batch) -> Answered {
    let (begun, mut tally) = (Instant::now(), Tally::default());
    let outcome = match batch.documents.as_slice() {
        [document] => single(container, write, layout, document, &mut tally).await,
        documents => together(container, write, documents, &mut tally).await,
    };
    let outcome = outcome.unwrap_or_else(|why| match why {
        Trouble::Refused(reason) => Outcome::Refused(reason),
        why => Outcome::Later { after: pause(&why, batch.tries), why },
    });
    Answered { batch, outcome, units: tally.units, took: begun.elapsed(), found: tally.found }
}

/// Grows with the tries, and is another one for each request, so that they do not come back together.
fn pause(why: &Trouble, tries: u32) -> Duration {
    let shared = match why {
        Trouble::Throttled(after) => (*after).max(PAUSE.0),
        _ => (PAUSE.0 * 2u32.saturating_pow(tries)).min(PAUSE.1),
    };
    shared.mul_f64(1.0 + rand::random::<f64>() / 2.0)
}

/// All of them in one transaction of the service.
async fn together(
    container: &Container,
    write: Write,
    documents: &[Document],
    tally: &mut Tally,
) -> Result<Outcome, Trouble> {
    let mut batch = TransactionalBatch::new(documents[0].key.value.clone());
    for document in documents {
        batch = match write {
            Write::Insert | Write::Append => batch.create_item(&document.body),
            Write::Upsert | Write::ReplaceIfNewer => batch.upsert_item(&document.body, None),
            Write::Delete => Ok(batch.delete_item(document.id.clone(), None)),
        }
        .map_err(|e| Trouble::Refused(e.to_string()))?;
    }
    let response = match container.client.execute_transactional_batch(batch, None).await {
        Ok(response) => response,
        Err(error) => {
            return match tally.failed(&error) {
                Trouble::Refused(_) | Trouble::Conflict | Trouble::Missing | Trouble::Changed => Ok(Outcome::Apart),
                trouble => Err(trouble),
            };
        }
    };
    tally.of(response.headers());
    let answer = response.into_model().map_err(|e| Trouble::Transient(e.to_string()))?;
    // The others failed because one did.
    const DEPENDENT: u16 = 424;
    match answer.results().iter().find(|result| !result.is_success() && result.status_code() != DEPENDENT) {
        None if answer.results().len() == documents.len()
            && answer.results().iter().all(|result| result.is_success()) =>
        {
            Ok(Outcome::Written)
        }
        None => {
            Err(Trouble::Transient("the answer to a batch does not say what became of each of its documents".into()))
        }
        Some(failed) => {
            let sub_status = failed.substatus_code().and_then(|code| code.try_into().ok());
            match Trouble::of_status(failed.status_code(), sub_status, failed.retry_after(), "one of a batch failed") {
                trouble @ (Trouble::Throttled(_) | Trouble::Transient(_) | Trouble::Stopped(_)) => Err(trouble),
                _ => Ok(Outcome::Apart),
            }
        }
    }
}

async fn single(
    container: &Container,
    write: Write,
    layout: &Layout,
    document: &Document,
    tally: &mut Tally,
) -> Result<Outcome, Trouble> {
    let Document { id, key, body, .. } = document;
    let key = key.value.clone();
    match write {
        Write::Upsert => match container.client.upsert_item(key, id, body, None).await {
            Ok(response) => tally.of(response.headers()),
            Err(error) => match tally.failed(&error) {
                Trouble::Conflict => return Ok(Outcome::Refused(unique_key(container))),
                trouble => return Err(trouble),
            },
        },
        Write::Delete => match container.client.delete_item(key, id, None).await {
            Ok(response) => tally.of(response.headers()),
            Err(error) => match tally.failed(&error) {
                Trouble::Missing => tally.found += 1,
                trouble => return Err(trouble),
            },
        },
        Write::Insert | Write::Append => match create(container, document, tally).await {
            Err(Trouble::Conflict) => return there_already(container, write, document, tally).await,
            created => created?,
        },
        Write::ReplaceIfNewer => return replace(container, layout, document, tally).await,
    }
    Ok(Outcome::Written)
}

async fn create(container: &Container, document: &Document, tally: &mut Tally) -> Result<(), Trouble> {
    let Document { id, key, body, .. } = document;
    match container.client.create_item(key.value.clone(), id, body, None).await {
        Ok(response) => {
            tally.of(response.headers());
            Ok(())
        }
        Err(error) => Err(tally.failed(&error)),
    }
}

/// A document could not be made because there is one: whose is it?
async fn there_already(
    container: &Container,
    write: Write,
    document: &Document,
    tally: &mut Tally,
) -> Result<Outcome, Trouble> {
    if write == Write::Insert && !container.unique_keys {
        tally.found += 1;
        return Ok(Outcome::Written);
    }
    for _ in 0..LOOKS.0 {
        match read(container, document, tally).await {
            Ok((stored, _)) if write == Write::Insert || stored.get(PROVENANCE) == document.body.get(PROVENANCE) => {
                tally.found += 1;
                return Ok(Outcome::Written);
            }
            Ok(_) => return Ok(Outcome::Refused(format!("there is another document with the id {}", document.id))),
            Err(Trouble::Missing) => tokio::time::sleep(LOOKS.1).await,
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(Outcome::Refused(unique_key(container)))
}

fn unique_key(container: &Container) -> String {
    match container.unique_keys {
        true => "another document has the same unique key (409)".into(),
        false => "the service says that it conflicts with another document (409)".into(),
    }
}

/// The document that is there under an id, and its state.
async fn read(container: &Container, document: &Document, tally: &mut Tally) -> Result<(Value, String), Trouble> {
    match container.client.read_item(document.key.value.clone(), &document.id, None).await {
        Ok(response) => {
            tally.of(response.headers());
            let etag = response.headers().etag().map(|etag| etag.to_string());
            let stored: Value = response.into_model().map_err(|e| Trouble::Transient(e.to_string()))?;
            let etag = etag.or_else(|| Some(stored.get("_etag")?.as_str()?.to_string()));
            Ok((stored, etag.ok_or_else(|| Trouble::Transient("a document came without its etag".into()))?))
        }
        Err(error) => Err(tally.failed(&error)),
    }
}

/// Replaces an older document, and only the one that was looked at.
async fn replace(
    container: &Container,
    layout: &Layout,
    document: &Document,
    tally: &mut Tally,
) -> Result<Outcome, Trouble> {
    let version = layout.version.as_deref().unwrap_or(ID);
    for _ in 0..TRIES {
        let (stored, etag) = match read(container, document, tally).await {
            Ok(found) => found,
            Err(Trouble::Missing) => match create(container, document, tally).await {
                Err(Trouble::Conflict) if container.unique_keys => {
                    match there_already(container, Write::Insert, document, tally).await? {
                        Outcome::Written => continue,
                        refused => return Ok(refused),
                    }
                }
                Err(Trouble::Conflict) => continue,
                created => return created.map(|()| Outcome::Written),
            },
            Err(trouble) => return Err(trouble),
        };
        if stored.get(version).and_then(stored_version) >= document.version {
            tally.found += 1;
            return Ok(Outcome::Written);
        }
        let options = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
        let Document { id, key, body, .. } = document;
        match container.client.replace_item(key.value.clone(), id, body, Some(options)).await {
            Ok(response) => {
                tally.of(response.headers());
                return Ok(Outcome::Written);
            }
            Err(error) => match tally.failed(&error) {
                Trouble::Changed | Trouble::Missing => {}
                Trouble::Conflict => return Ok(Outcome::Refused(unique_key(container))),
                trouble => return Err(trouble),
            },
        }
    }
    Err(Trouble::Changed)
}
