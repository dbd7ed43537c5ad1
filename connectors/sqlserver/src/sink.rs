//! A table as a sink. Rows are staged beside the job log; once they are published there, one transaction shows them and says so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter};
use futures::future::join_all;
use serde_json::Value;
use storage::progress::Progress;
use storage::staged_rows::{self, StagingWriter};
use tokio::sync::Mutex;

use crate::lane::{Kept, Rejected, Work};
use crate::options::{Place, SqlTable, Write};
use crate::staging::Share;
use crate::target::{Target, open};

/// How long rows for a columnstore gather, unless said: fewer than 102,400 at once lie there uncompressed until the server has
/// time, and at 10,000 events/s so many take a little more than ten seconds.
const INTO_COLUMNS: Duration = Duration::from_secs(10);
/// Rows of a transaction and lane, unless said: few enough that others wait little for its locks; and what a columnstore takes as
/// one row group, <https://learn.microsoft.com/sql/relational-databases/indexes/columnstore-indexes-data-loading-guidance>.
const ROWS_AT_ONCE: u64 = 50_000;
const ROWS_AT_ONCE_IN_COLUMNS: u64 = 1_048_576;
/// Their bytes, as they are staged.
const BYTES_AT_ONCE: u64 = 256 << 20;

pub struct SqlSink {
    table: SqlTable,
    open: parking_lot::Mutex<Option<Arc<Open>>>,
}

/// What an open sink holds.
struct Open {
    target: Target,
    commits: Mutex<Commits>,
}

/// What is known of commits.
#[derive(Default)]
struct Commits {
    lanes: Vec<Kept>,
    progress: Progress,
}

/// The token's own words: how its rows are written, among how many lanes they are divided, and by which column.
const WRITE: &str = "write";
const LANES: &str = "lanes";
const BY: &str = "by";
/// And where they go.
const TABLE: &str = "table";

impl SqlSink {
    pub fn new(table: SqlTable) -> Self {
        SqlSink { table, open: parking_lot::Mutex::new(None) }
    }

    fn opened(&self) -> Result<Arc<Open>, SinkError> {
        self.open.lock().clone().ok_or_else(|| SinkError::failed(self.table.at.describe(), "it was never opened"))
    }
}

#[async_trait]
impl Sink for SqlSink {
    fn describe(&self) -> String {
        let SqlTable { at: Place { target, server, .. }, write, .. } = &self.table;
        format!("sqlserver {} in {} at {}, {}", target.as_str(), server.database, server.host, write.word())
    }

    fn guarantee(&self) -> String {
        let which = match self.table.write {
            Write::Append => "each row is one there",
            Write::Insert => "the first row of a key stays, also of those that others wrote",
            Write::Upsert if self.table.version.is_some() => "a row gives way to a newer one of its key only",
            Write::Upsert => "the last row of a key stays",
            Write::Delete => "the row of a key goes",
            Write::Procedure => "what the procedure does is within the transaction",
        };
        format!(
            "exactly once: rows are staged, since a replay may make other ones of them, and shown in one transaction with the marker in \
             {} by which it is known after a crash whether they are there; {which}",
            self.table.markers.as_str()
        )
    }

    async fn open(&self, context: &SinkContext, probe: bool) -> Result<(), SinkError> {
        if let Some(target) = open(&self.table, context, probe).await? {
            *self.open.lock() = Some(Arc::new(Open { target, commits: Mutex::default() }));
        }
        Ok(())
    }

    fn commit_interval(&self) -> Duration {
        let columnstore = self.open.lock().as_ref().is_some_and(|open| open.target.columnstore);
        if columnstore { INTO_COLUMNS } else { Duration::ZERO }
    }

    fn is_full(&self, entries: &[Committable]) -> bool {
        let most_rows = self.open.lock().as_ref().map_or(u64::MAX, |open| self.rows_at_once(&open.target));
        staged_rows::fill(entries, most_rows, BYTES_AT_ONCE)
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        let (word, lanes, by) = (self.table.write.word(), self.table.lanes, self.table.lane_by.clone());
        let to = self.to();
        let note = move || {
            let words = [
                (WRITE, Value::from(word)),
                (LANES, lanes.into()),
                (BY, by.clone().into()),
                (TABLE, to.clone().into()),
            ];
            words.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
        };
        Ok(Box::new(StagingWriter::new(context, Box::new(note))))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        let open = self.opened()?;
        staged_rows::check_way(entries, WRITE, "write", self.table.write.word(), &self.table.at.describe())?;
        staged_rows::check_way(entries, TABLE, "table", &self.to(), &self.table.at.describe())?;
        let mut commits = open.commits.lock().await;
        if let Some(told) = commits.progress.tell(entries) {
            return Ok(told);
        }
        let left = commits.progress.left(entries);
        for of_one_writer in left.chunk_by(|one, next| one.writer == next.writer) {
            for together in staged_rows::at_once(of_one_writer, self.rows_at_once(&open.target), BYTES_AT_ONCE) {
                self.show(context, &open.target, &mut commits, together).await?;
                if let Some(told) = commits.progress.tell(entries) {
                    return Ok(told);
                }
            }
        }
        commits.progress.finish(context, entries, &self.table.at.describe()).await
    }
}

/// Among how many lanes the rows of a process are divided, and by what: as it was when it staged them, whatever the table says now.
fn lanes(entries: &[&Committable]) -> (usize, Option<String>) {
    let mut tokens = entries.iter().flat_map(|entry| &entry.tokens);
    let said = tokens.find_map(|token| Some((token[LANES].as_u64()?, token[BY].as_str().map(String::from))));
    said.map_or((1, None), |(lanes, by)| (lanes as usize, by))
}

impl SqlSink {
    /// The table and its markers: in others, nobody knows which rows are there.
    fn to(&self) -> String {
        format!("{} with {}", self.table.at.target.as_str(), self.table.markers.as_str())
    }

    fn rows_at_once(&self, target: &Target) -> u64 {
        let suits = if target.columnstore { ROWS_AT_ONCE_IN_COLUMNS } else { ROWS_AT_ONCE };
        self.table.commit_rows.unwrap_or(suits).saturating_mul(self.table.lanes as u64)
    }

    /// Shows entries of one writer, by all lanes beside one another; or notes what can never be shown of them.
    async fn show(
        &self,
        context: &SinkContext,
        target: &Target,
        commits: &mut Commits,
        entries: &[&Committable],
    ) -> Result<(), SinkError> {
        let (place, (lanes, by)) = (self.table.at.describe(), lanes(entries));
        if commits.lanes.len() < lanes {
            commits.lanes.resize_with(lanes, Kept::default);
        }
        let place = place.as_str();
        let work = |lane| Work {
            table: &self.table,
            target,
            context,
            entries,
            share: Share { lane, lanes, by: by.clone() },
            place,
        };
        let kept = commits.lanes.iter_mut().take(lanes).enumerate();
        let shown = join_all(kept.map(|(lane, kept)| async move { work(lane).show(kept).await })).await;
        let rejected: Vec<Rejected> = shown.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        if rejected.is_empty() {
            entries.iter().for_each(|entry| commits.progress.show(entry));
        }
        for (number, row) in rejected {
            let Some(entry) = entries.iter().find(|entry| entry.entry == number) else { continue };
            commits.progress.reject(entry, row);
        }
        Ok(())
    }
}
