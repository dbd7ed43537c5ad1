//! One request, and what its answer means for its documents.

use std::fmt;
use std::time::{Duration, Instant};

use azure_data_cosmos::models::ResponseHeaders;
use azure_data_cosmos::options::{ItemWriteOptions, Precondition};
use azure_data_cosmos::{CosmosError, TransactionalBatch};

use crate::container::Container;
use crate::documents::{Document, ID, Layout, PROVENANCE, stored_version};
use crate::options::Write;
use crate::stored::Stored;
use crate::trouble::Trouble;

/// How often a document may change under our hands before it is left for a while; and the pause in between.
const TRIES: (usize, Duration) = (10, Duration::from_millis(20));
/// A document that is there may not be seen yet by a reader of another copy: how often, and how long, one looks again.
const LOOKS: (usize, Duration) = (5, Duration::from_millis(200));
/// The state of no document.
const NEVER: &str = "\"millrace-never\"";

/// Where documents go, and how.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub container: &'a Container,
    pub write: Write,
    pub layout: &'a Layout,
}

/// Documents of one partition key, on their way together.
pub struct Batch {
    pub documents: Vec<Document>,
    pub tries: u32,
    /// Request units that are set aside for it.
    pub reserved: f64,
}

/// What became of a batch.
pub enum Outcome {
    Written,
    /// One of them cannot be, so none was: they go one by one.
    Apart,
    Refused(Refusal),
    Later(Trouble),
}

/// Why a document can never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Said(String),
    UniqueKey,
    OthersId(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Said(said) => f.write_str(said),
            Refusal::UniqueKey => f.write_str("another document has the same unique key (409)"),
            Refusal::OthersId(id) => write!(f, "there is another document with the id {id}"),
        }
    }
}

pub struct Answered {
    pub lane: usize,
    pub batch: Batch,
    pub outcome: Outcome,
    pub cost: Cost,
    pub took: Duration,
}

/// What requests cost, and met.
#[derive(Default)]
pub struct Cost {
    pub units: f64,
    /// Documents that were there already, or gone.
    pub found: u64,
}

impl Cost {
    fn of(&mut self, headers: &ResponseHeaders) {
        self.units += headers.request_charge().map_or(0.0, |charge| charge.value());
    }

    fn failed(&mut self, error: &CosmosError) -> Trouble {
        let charge = error.response().and_then(|response| response.headers().request_charge);
        self.units += charge.map_or(0.0, |charge| charge.value());
        Trouble::of(error)
    }
}

impl Batch {
    pub fn of(document: Document) -> Self {
        Batch { documents: vec![document], tries: 0, reserved: 0.0 }
    }

    pub fn apart(self) -> impl Iterator<Item = Batch> {
        self.documents.into_iter().map(Batch::of)
    }
}

impl Target<'_> {
    /// Sends a batch. `lane`: whose it is.
    pub async fn ask(self, lane: usize, batch: Batch) -> Answered {
        let (begun, mut cost) = (Instant::now(), Cost::default());
        let outcome = match batch.documents.as_slice() {
            [document] => self.single(document, &mut cost).await,
            documents => self.together(documents, &mut cost).await,
        };
        let outcome = outcome.unwrap_or_else(|why| match why {
            Trouble::Refused(reason) => Outcome::Refused(Refusal::Said(reason)),
            why => Outcome::Later(why),
        });
        Answered { lane, batch, outcome, cost, took: begun.elapsed() }
    }

    /// All of them in one transaction of the service.
    async fn together(self, documents: &[Document], cost: &mut Cost) -> Result<Outcome, Trouble> {
        let mut batch = TransactionalBatch::new(documents[0].key.value.clone());
        for document in documents {
            let more = match self.write {
                Write::Insert | Write::Append => batch.create_item(&document.body),
                Write::Upsert | Write::ReplaceIfNewer => batch.upsert_item(&document.body, None),
                Write::Delete => Ok(batch.delete_item(document.id.clone(), None)),
            };
            // One that cannot be encoded is found by itself.
            let Ok(more) = more else { return Ok(Outcome::Apart) };
            batch = more;
        }
        let response = match self.container.client.execute_transactional_batch(batch, None).await {
            Ok(response) => response,
            Err(error) => {
                return match cost.failed(&error) {
                    Trouble::Refused(_) | Trouble::Conflict | Trouble::Missing | Trouble::Changed => Ok(Outcome::Apart),
                    trouble => Err(trouble),
                };
            }
        };
        cost.of(response.headers());
        let answer = response.into_model().map_err(|e| Trouble::Transient(e.to_string()))?;
        // The others failed because one did.
        const DEPENDENT: u16 = 424;
        let results = answer.results();
        match results.iter().find(|result| !result.is_success() && result.status_code() != DEPENDENT) {
            None if results.len() == documents.len() && results.iter().all(|r| r.is_success()) => Ok(Outcome::Written),
            None => Err(Trouble::Transient(
                "the answer to a batch does not say what became of each of its documents".into(),
            )),
            Some(failed) => {
                let status = failed.status_code();
                let said = format!("a document of a batch was answered with status {status}");
                match Trouble::of_status(status, None, failed.retry_after(), &said) {
                    trouble @ (Trouble::Throttled(_) | Trouble::Transient(_)) => Err(trouble),
                    // Asked by itself, the service says more precisely why.
                    _ => Ok(Outcome::Apart),
                }
            }
        }
    }

    async fn single(self, document: &Document, cost: &mut Cost) -> Result<Outcome, Trouble> {
        let Document { id, key, body, .. } = document;
        let key = key.value.clone();
        match self.write {
            Write::Upsert => match self.container.client.upsert_item(key, id, body.alone(), None).await {
                Ok(response) => cost.of(response.headers()),
                Err(error) => match cost.failed(&error) {
                    Trouble::Conflict if self.container.unique_keys => return Ok(Outcome::Refused(Refusal::UniqueKey)),
                    trouble => return Err(trouble),
                },
            },
            Write::Delete => match self.container.client.delete_item(key, id, None).await {
                Ok(response) => cost.of(response.headers()),
                Err(error) => match cost.failed(&error) {
                    Trouble::Missing => cost.found += 1,
                    trouble => return Err(trouble),
                },
            },
            Write::Insert | Write::Append => match self.create(document, cost).await {
                Err(Trouble::Conflict) => return self.there_already(document, cost).await,
                created => created?,
            },
            Write::ReplaceIfNewer => return self.replace(document, cost).await,
        }
        Ok(Outcome::Written)
    }

    async fn create(self, document: &Document, cost: &mut Cost) -> Result<(), Trouble> {
        let Document { id, key, body, .. } = document;
        match self.container.client.create_item(key.value.clone(), id, body.alone(), None).await {
            Ok(response) => {
                cost.of(response.headers());
                Ok(())
            }
            Err(error) => Err(cost.failed(&error)),
        }
    }

    /// A document could not be made because there is one: of the same id, or of the same unique key? And whose is it?
    async fn there_already(self, document: &Document, cost: &mut Cost) -> Result<Outcome, Trouble> {
        if self.container.unique_keys && !self.is_there(document, cost).await? {
            return Ok(Outcome::Refused(Refusal::UniqueKey));
        }
        if self.write == Write::Append {
            let stored = self.read_until_seen(document, cost).await?;
            if stored.text_of(PROVENANCE) != document.body.provenance() {
                return Ok(Outcome::Refused(Refusal::OthersId(document.id.clone())));
            }
        }
        cost.found += 1;
        Ok(Outcome::Written)
    }

    /// Whether there is a document of this id, as the service's own copy has it and not one that may lag: it is asked to
    /// replace one that is in a state in which none is.
    async fn is_there(self, document: &Document, cost: &mut Cost) -> Result<bool, Trouble> {
        let Document { id, key, body, .. } = document;
        let never = ItemWriteOptions::default().with_precondition(Precondition::if_match(NEVER));
        match self.container.client.replace_item(key.value.clone(), id, body.alone(), Some(never)).await {
            Ok(_) => Err(Trouble::Transient("the service does not look at a condition".into())),
            Err(error) => match cost.failed(&error) {
                Trouble::Changed => Ok(true),
                Trouble::Missing => Ok(false),
                trouble => Err(trouble),
            },
        }
    }

    async fn read_until_seen(self, document: &Document, cost: &mut Cost) -> Result<Stored, Trouble> {
        for _ in 0..LOOKS.0 {
            match self.read(document, cost).await {
                Err(Trouble::Missing) => tokio::time::sleep(LOOKS.1).await,
                found => return found.map(|(stored, _)| stored),
            }
        }
        Err(Trouble::Transient("a document that is there cannot be read yet".into()))
    }

    /// The document that is there under an id, and its state.
    async fn read(self, document: &Document, cost: &mut Cost) -> Result<(Stored, String), Trouble> {
        match self.container.client.read_item(document.key.value.clone(), &document.id, None).await {
            Ok(response) => {
                cost.of(response.headers());
                let etag = response.headers().etag().map(|etag| etag.to_string());
                let stored: Stored = response.into_model().map_err(|e| Trouble::Transient(e.to_string()))?;
                let etag = etag.or_else(|| stored.text_of("_etag"));
                Ok((stored, etag.ok_or_else(|| Trouble::Transient("a document came without its etag".into()))?))
            }
            Err(error) => Err(cost.failed(&error)),
        }
    }

    /// Replaces an older document, and only the one that was looked at.
    async fn replace(self, document: &Document, cost: &mut Cost) -> Result<Outcome, Trouble> {
        let version = self.layout.version.as_deref().unwrap_or(ID);
        for _ in 0..TRIES.0 {
            let (stored, etag) = match self.read(document, cost).await {
                Ok(found) => found,
                Err(Trouble::Missing) => match self.create(document, cost).await {
                    Err(Trouble::Conflict) => {
                        if self.container.unique_keys && !self.is_there(document, cost).await? {
                            return Ok(Outcome::Refused(Refusal::UniqueKey));
                        }
                        tokio::time::sleep(TRIES.1).await;
                        continue;
                    }
                    created => return created.map(|()| Outcome::Written),
                },
                Err(trouble) => return Err(trouble),
            };
            if stored.get(version).as_ref().and_then(stored_version) >= document.version {
                cost.found += 1;
                return Ok(Outcome::Written);
            }
            let options = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
            let Document { id, key, body, .. } = document;
            match self.container.client.replace_item(key.value.clone(), id, body.alone(), Some(options)).await {
                Ok(response) => {
                    cost.of(response.headers());
                    return Ok(Outcome::Written);
                }
                Err(error) => match cost.failed(&error) {
                    Trouble::Changed | Trouble::Missing => tokio::time::sleep(TRIES.1).await,
                    Trouble::Conflict if self.container.unique_keys => return Ok(Outcome::Refused(Refusal::UniqueKey)),
                    trouble => return Err(trouble),
                },
            }
        }
        Err(Trouble::Changed)
    }
}
