//! A container as a sink. Rows are staged beside the job log and written once they are published there.

use std::sync::Arc;

use async_trait::async_trait;
use engine::sink::{Committable, Committed, RejectedRow, Sink, SinkContext, SinkError, SinkWriter};
use serde_json::{Map, Value};
use storage::progress::Progress;
use storage::provenance::Provenance;
use storage::staged_rows::{self, StagingWriter};
use tokio::sync::Mutex;

use crate::container::{Container, open};
use crate::documents::Document;
use crate::options::{CosmosTable, Write};
use crate::request::Target;
use crate::write::{Rejected, State, Writing};

/// Staged rows, and their bytes as they are staged, that are written in one go, at most one entry more.
const ROWS_AT_ONCE: u64 = 50_000;
const BYTES_AT_ONCE: u64 = 16 << 20;

pub struct CosmosSink {
    table: CosmosTable,
    open: parking_lot::Mutex<Option<Arc<Open>>>,
}

/// What an open sink holds.
struct Open {
    container: Container,
    commits: Mutex<Commits>,
}

/// What is known of commits, and of how the service bears them.
struct Commits {
    state: State,
    progress: Progress,
}

impl CosmosSink {
    pub fn new(table: CosmosTable) -> Self {
        CosmosSink { table, open: parking_lot::Mutex::new(None) }
    }

    fn opened(&self) -> Result<Arc<Open>, SinkError> {
        self.open.lock().clone().ok_or_else(|| SinkError::failed(self.table.at.place(), "it was never opened"))
    }
}

/// The token's own word: how its rows are written.
const WRITE: &str = "write";

#[async_trait]
impl Sink for CosmosSink {
    fn describe(&self) -> String {
        format!(
            "cosmosdb container '{}/{}' at {}, {}",
            self.table.at.database,
            self.table.at.container,
            self.table.at.account.endpoint,
            self.table.write.word()
        )
    }

    fn guarantee(&self) -> String {
        let how = match self.table.write {
            Write::Upsert => {
                "they are written in order, so the last one of an id stays; a request that was under way when its process lost the \
                 job, was stopped or gave up waiting can bring back an older one (write = 'replace-if-newer' cannot)"
            }
            Write::Insert => "a document that is there stays",
            Write::ReplaceIfNewer => "a document gives way to a newer version only",
            Write::Delete => {
                "a document that is gone stays gone; one that somebody makes under its id meanwhile may go too"
            }
            Write::Append => {
                "each has an id made of where it is staged, and one that is there already must say that it is the same row"
            }
        };
        // Staged, a row is the same one at each try, and it is known which rows are to be written before one is seen.
        let once = if self.table.write == Write::Append { "exactly once" } else { "exactly once by id" };
        format!(
            "{once}: rows are staged until their entry fixes them, since a document is seen as soon as it is written; {how}"
        )
    }

    async fn open(&self, _: &SinkContext, probe: bool) -> Result<(), SinkError> {
        let Some(container) = open(&self.table, probe).await? else { return Ok(()) };
        let commits = Mutex::new(Commits { state: State::new(self.table.pace), progress: Progress::default() });
        *self.open.lock() = Some(Arc::new(Open { container, commits }));
        Ok(())
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        let word = self.table.write.word();
        let note = move || Map::from_iter([(WRITE.to_string(), Value::from(word))]);
        Ok(Box::new(StagingWriter::new(context, Box::new(note))))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        let open = self.opened()?;
        staged_rows::check_way(entries, WRITE, "write", self.table.write.word(), &self.table.at.place())?;
        let mut commits = open.commits.lock().await;
        if let Some(told) = commits.progress.tell(entries) {
            return Ok(told);
        }
        let left = commits.progress.left(entries);
        for together in staged_rows::at_once(&left, ROWS_AT_ONCE, BYTES_AT_ONCE) {
            self.show(context, &open.container, &mut commits, together).await?;
            if let Some(told) = commits.progress.tell(entries) {
                return Ok(told);
            }
        }
        commits.progress.finish(context, entries, &self.table.at.place()).await
    }
}

impl CosmosSink {
    async fn show(
        &self,
        context: &SinkContext,
        container: &Container,
        commits: &mut Commits,
        entries: &[&Committable],
    ) -> Result<(), SinkError> {
        let (mut documents, mut rejected) = (vec![], vec![]);
        for entry in entries {
            self.read(context, container, entry, &mut documents, &mut rejected).await?;
        }
        let place = self.table.at.place();
        let mut writing = Writing {
            target: Target { container, write: self.table.write, layout: &self.table.layout },
            pace: self.table.pace,
            state: &mut commits.state,
            ownership: &context.ownership,
            metrics: &context.metrics,
            recovering: entries.iter().any(|entry| entry.writer != context.writer),
            place: &place,
            remedy: self.table.at.account.remedy(),
        };
        let written = writing.write(documents).await?;
        rejected.extend(written.rejected);
        for entry in entries {
            for (_, row) in rejected.extract_if(.., |(number, _)| *number == entry.entry) {
                commits.progress.reject(entry, row);
            }
            if written.all {
                commits.progress.show(entry);
            }
        }
        Ok(())
    }

    /// The documents of an entry. Rows that are gone are there: they are deleted by nobody before they are.
    async fn read(
        &self,
        context: &SinkContext,
        container: &Container,
        entry: &Committable,
        documents: &mut Vec<Document>,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(), SinkError> {
        let place = self.table.at.place();
        let provenance = Provenance::of(context, &entry.writer, entry.entry);
        for (token, staged) in entry.tokens.iter().enumerate() {
            let Some(batches) = staged_rows::read(&*context.store, staged, &place).await? else { continue };
            let mut first = 0;
            for batch in &batches {
                let at = |row: usize| (entry.entry, token, first + row as u64);
                let name = |row: usize| provenance.row(token, first + row as u64);
                let made = self.table.layout.documents(batch, &container.paths, at, name);
                let made = made.map_err(|e| SinkError::failed(&place, format!("a row cannot be a document: {e}")))?;
                for (row, made) in made.into_iter().enumerate() {
                    let row = first + row as u64;
                    if entry.excluded.iter().any(|out| (out.token, out.row) == (token, row)) {
                        continue;
                    }
                    match made {
                        Ok(document) => documents.push(document),
                        Err(refused) => rejected.push((
                            entry.entry,
                            RejectedRow { token, row, reason: refused.reason, content: refused.content },
                        )),
                    }
                }
                first += batch.num_rows() as u64;
            }
        }
        Ok(())
    }
}
