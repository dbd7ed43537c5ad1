//! One session that writes: its share of the rows, with a marker of its own.

use std::collections::HashMap;

use engine::environment::crash_point;
use engine::sink::{Committable, RejectedRow, SinkContext, SinkError};

use crate::connection::Connection;
use crate::judge::Judge;
use crate::options::SqlTable;
use crate::staging::{Place, Share, look_up, stage};
use crate::statements::{self, Marker};
use crate::target::Target;
use crate::trouble::Trouble;

/// A row that can never be there, and its entry.
pub type Rejected = (u64, RejectedRow);

/// What a lane keeps for the next time.
#[derive(Default)]
pub struct Kept {
    session: Option<Connection>,
    /// Up to which entry it has shown, by writer: a marker that is lower is of a database that was brought back.
    shown: HashMap<String, u64>,
}

/// What a lane works with.
pub struct Work<'a> {
    pub table: &'a SqlTable,
    pub target: &'a Target,
    pub context: &'a SinkContext,
    /// Of one writer, and in order.
    pub entries: &'a [&'a Committable],
    pub share: Share,
    /// For people: where.
    pub place: &'a str,
}

impl Work<'_> {
    /// Shows this share of the entries, and yields nothing; or shows nothing, and yields the rows of them that can never be. The
    /// session is kept for the next time, unless something went wrong with it.
    pub async fn show(&self, kept: &mut Kept) -> Result<Vec<Rejected>, SinkError> {
        let Some(last) = self.entries.last() else { return Ok(vec![]) };
        let mut session = match kept.session.take() {
            Some(session) if session.is_fresh() => session,
            _ => self.say(Connection::open(&self.table.at.server, self.table.at.answer).await)?,
        };
        let before = kept.shown.get(&last.writer).copied().unwrap_or_default();
        let rejected = self.write(&mut session, last.entry, before).await?;
        if rejected.is_empty() {
            kept.shown.insert(last.writer.clone(), last.entry);
            session.used();
            kept.session = Some(session);
        }
        Ok(rejected)
    }

    /// `last`: the last of the entries; `before`: up to which entry this process has shown already.
    async fn write(&self, connection: &mut Connection, last: u64, before: u64) -> Result<Vec<Rejected>, SinkError> {
        let done = self.done(connection).await?;
        if done < before {
            let what = format!(
                "entry {before} was shown, and the marker says {done}: the database was brought back to an earlier state, and \
                 what was shown since is gone"
            );
            return Err(SinkError::failed(self.place, what));
        }
        let left: Vec<&Committable> = self.entries.iter().copied().filter(|entry| entry.entry > done).collect();
        if left.is_empty() {
            return Ok(vec![]);
        }
        crash_point("before-staging");
        let staged = stage(connection, self.target, &left, &self.share, self.context, self.place).await?;
        if let Some((entry, path)) = staged.gone {
            return Err(self.gone(connection, entry, &path).await?);
        }
        if !staged.refused.is_empty() {
            let reject = |row: crate::staging::Refused| rejected(row.place, row.reason, row.content);
            return Ok(staged.refused.into_iter().map(reject).collect());
        }
        crash_point("before-showing");
        let begun = std::time::Instant::now();
        let shown = connection.run(self.marker(last).show(self.target, self.table.write)).await;
        let requests = &self.context.metrics.requests;
        // Those that are throttled are counted where all are.
        if !matches!(shown, Err(Trouble::Throttled(_))) {
            requests.sent.add(1);
            requests.rows.add(staged.places.len() as u64);
            requests.durations.add(begun.elapsed());
        }
        match shown {
            Ok(said) => {
                // Nothing was done if the marker has moved: then another has shown them, or it is gone.
                let moved = said.first().is_some_and(|row| row.try_get::<i64, _>(0).is_ok_and(|done| done.is_some()));
                if !moved && self.done(connection).await? < last {
                    return Err(SinkError::retry(self.place, "the marker moved and came back"));
                }
                crash_point("after-showing");
                requests.settled.add(staged.places.len() as u64);
                Ok(vec![])
            }
            Err(Trouble::Statement(what)) => {
                tracing::info!(
                    place = self.place,
                    what,
                    "the server refuses these rows together; looking for those that it cannot take"
                );
                self.judge(connection, &left, &staged.places, last).await
            }
            Err(trouble) => self.say(Err(trouble)),
        }
    }

    /// Up to which entry this share is there.
    async fn done(&self, connection: &mut Connection) -> Result<u64, SinkError> {
        let marker = self.marker(0);
        let lane = marker.lane as i32;
        let names: [&dyn tiberius::ToSql; 4] = [&marker.job, &marker.sink, &marker.writer, &lane];
        let rows = self.say(connection.ask(&statements::marker(marker.markers), &names).await)?;
        match rows.first().and_then(|row| row.try_get::<i64, _>(0).ok().flatten()) {
            Some(entry) => Ok(entry.max(0) as u64),
            // Nobody takes it away while rows of its writer are to be shown, and who is superseded has no say.
            None if !self.context.ownership.confirm().await => {
                Err(SinkError::retry(self.place, "the job log does not say that the job is still this process's"))
            }
            None => Err(SinkError::failed(
                self.place,
                format!(
                    "the marker of writer {} (lane {lane}) is not in {}: was it deleted, or the database brought back to an earlier \
                     state? Which rows are there cannot be known without it",
                    marker.writer,
                    marker.markers.as_str()
                ),
            )),
        }
    }

    /// Rows are deleted once they are shown: by a successor, perhaps, after the marker was looked at.
    async fn gone(&self, connection: &mut Connection, entry: u64, path: &str) -> Result<SinkError, SinkError> {
        if self.done(connection).await? >= entry {
            return Ok(SinkError::retry(self.place, format!("entry {entry} was shown by another process meanwhile")));
        }
        Ok(SinkError::failed(
            self.place,
            format!(
                "the rows {path} of entry {entry} are gone, and the table's marker says that they are not there: was the database \
                 brought back to an earlier state?"
            ),
        ))
    }

    fn marker(&self, entry: u64) -> Marker<'_> {
        Marker {
            markers: &self.table.markers,
            job: &self.context.log_id,
            sink: &self.context.sink,
            writer: self.entries.first().map_or("", |entry| &entry.writer),
            lane: self.share.lane,
            entry,
        }
    }

    async fn judge(
        &self,
        connection: &mut Connection,
        entries: &[&Committable],
        places: &[Place],
        entry: u64,
    ) -> Result<Vec<Rejected>, SinkError> {
        let mut judge = Judge { connection, marker: self.marker(entry), target: self.target, write: self.table.write };
        let guilty = self.say(judge.find(places.len()).await)?;
        if guilty.is_empty() {
            return Err(SinkError::retry(self.place, "the server refused rows, and takes them now"));
        }
        let mut found = vec![];
        for (row, reason) in guilty {
            let place = places[row];
            found.push(rejected(place, reason, look_up(entries, place, self.context, self.place).await?));
        }
        Ok(found)
    }

    fn say<T>(&self, result: Result<T, Trouble>) -> Result<T, SinkError> {
        result.map_err(|trouble| match trouble {
            Trouble::NotLetIn(what) => {
                SinkError::retry(self.place, format!("{what}. {}", self.table.at.server.remedy()))
            }
            trouble => trouble.at_commit(self.context, self.place),
        })
    }
}

fn rejected((entry, token, row): Place, reason: String, content: String) -> Rejected {
    (entry, RejectedRow { token, row, reason, content })
}
