//! Brings the rows of published entries into a session's own table on the server, in bulk. Nobody else sees them there, and with the
//! session they are gone.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use engine::environment::crash_point;
use engine::sink::{Committable, SinkContext, SinkError};
use serde_json::Value;
use storage::staged_rows;
use tiberius::error::Error;
use tiberius::{ColumnData, ToSql, TokenRow};

use crate::catalog::Column;
use crate::connection::Connection;
use crate::statements::{self, ENTRY, ROW, STAGED};
use crate::target::Target;
use crate::trouble::Trouble;
use crate::types::{Encoding, SqlType};
use crate::values::Values;

/// What the client says of a text with a character that the column's code page does not have.
const UNMAPPABLE: &str = "unrepresentable character";

/// An entry, a token in it, a row in that.
pub type Place = (u64, usize, u64);

/// Some of the rows of some entries: those of one of several writers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub lane: usize,
    pub lanes: usize,
    /// The column that says whose a row is; else it is its place.
    pub by: Option<String>,
}

/// A row that can be no row of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub place: Place,
    pub reason: String,
    /// The row, as JSON.
    pub content: String,
}

/// What was staged.
#[derive(Debug, Default)]
pub struct Staged {
    /// Of each row, by its number in the staged table.
    pub places: Vec<Place>,
    pub refused: Vec<Refused>,
    /// The entry whose rows are not beside the job log any more, and where they were; nothing is complete then.
    pub gone: Option<(u64, String)>,
}

/// Stages the rows of `entries` that are of this share, in place of what was staged before.
pub async fn stage(
    connection: &mut Connection,
    target: &Target,
    entries: &[&Committable],
    share: &Share,
    context: &SinkContext,
    place: &str,
) -> Result<Staged, SinkError> {
    let trouble = |trouble: Trouble| trouble.at_commit(context, place);
    if connection.staged {
        connection.run(statements::empty_staged()).await.map_err(trouble)?;
    } else {
        connection.run(statements::create_staged(&target.columns)).await.map_err(trouble)?;
        connection.staged = true;
    }
    let names: Vec<String> = [format!("[{ENTRY}]"), format!("[{ROW}]")]
        .into_iter()
        .chain((0..target.columns.len()).map(statements::staged))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bulk = connection.client.bulk_insert_columns(STAGED, &names).await;
    let mut bulk = bulk.map_err(|e| trouble(Trouble::of(e)))?;
    let (mut staged, mut later) = (Staged::default(), vec![]);
    'all: for entry in entries {
        let excluded: HashSet<(usize, u64)> = entry.excluded.iter().map(|out| (out.token, out.row)).collect();
        for (token, said) in entry.tokens.iter().enumerate() {
            let Some(batches) = staged_rows::read(&*context.store, said, place).await? else {
                staged.gone = Some((entry.entry, staged_rows::path(said).to_string()));
                break 'all;
            };
            let mut first = 0;
            for batch in &batches {
                let failed = |e| SinkError::failed(place, format!("rows cannot be read: {e}"));
                let from = positions(batch, target).map_err(|what| SinkError::failed(place, what))?;
                let values = Values::of(batch, &target.columns, &from).map_err(failed)?;
                for row in share.rows(batch, first).map_err(failed)? {
                    let at = (entry.entry, token, first + row as u64);
                    if excluded.contains(&(token, at.2)) {
                        continue;
                    }
                    let mut sent = TokenRow::with_capacity(target.columns.len() + 2);
                    sent.push(ColumnData::I64(Some(entry.entry as i64)));
                    let number = staged.places.len() as i32;
                    sent.push(ColumnData::I32(Some(number)));
                    let (mut long, mut index) = (vec![], 0);
                    let made = values.row(row, |value| {
                        let value = match LongValue::of(&value, &target.columns[index]) {
                            Some((none, value)) => {
                                long.push((index, value));
                                none
                            }
                            None => value,
                        };
                        index += 1;
                        sent.push(value);
                    });
                    let taken = match made {
                        Ok(()) => bulk.send(sent).await,
                        Err(reason) => {
                            staged.refused.push(Refused { place: at, reason, content: content(batch, row) });
                            continue;
                        }
                    };
                    match taken {
                        Ok(()) => {
                            staged.places.push(at);
                            later.extend(long.into_iter().map(|(index, value)| (number, index, value)));
                        }
                        // The client could not encode a value, and has sent nothing of its row.
                        Err(Error::Encoding(what)) if what != UNMAPPABLE => {
                            let what = format!("{what}: a collation that is not known here; make the column nvarchar");
                            return Err(SinkError::failed(place, what));
                        }
                        Err(error @ (Error::BulkInput(_) | Error::Encoding(_) | Error::Conversion(_))) => {
                            staged.refused.push(Refused {
                                place: at,
                                reason: error.to_string(),
                                content: content(batch, row),
                            });
                        }
                        Err(error) => return Err(trouble(Trouble::of(error))),
                    }
                    if staged.places.len() == 1 {
                        crash_point("while-staging");
                    }
                }
                first += batch.num_rows() as u64;
            }
        }
    }
    bulk.finalize().await.map_err(|e| trouble(Trouble::of(e)))?;
    if !later.is_empty() && !connection.indexed {
        connection.run(statements::index_staged()).await.map_err(trouble)?;
        connection.indexed = true;
    }
    for (row, index, value) in later {
        let value: &dyn ToSql = match &value {
            LongValue::Text(text) => text,
            LongValue::Bytes(bytes) => bytes,
        };
        connection.ask(&statements::complete_staged(index), &[value, &row]).await.map_err(trouble)?;
    }
    Ok(staged)
}

/// A value that the client's bulk load takes for too long, whatever the column takes: it follows by itself.
enum LongValue {
    Text(String),
    Bytes(Vec<u8>),
}

/// Bytes that it takes.
const LONGEST_IN_BULK: usize = 65_535;

impl LongValue {
    /// The value, and what stands for it meanwhile. Not of a code page, which the server would fill up with question marks.
    fn of(value: &ColumnData<'static>, column: &Column) -> Option<(ColumnData<'static>, Self)> {
        match value {
            ColumnData::String(Some(text))
                if text.len() > LONGEST_IN_BULK / 2
                    && !matches!(column.of, SqlType::Text { encoding: Encoding::CodePage, .. })
                    && text.encode_utf16().count() > LONGEST_IN_BULK / 2 =>
            {
                Some((ColumnData::String(None), LongValue::Text(text.to_string())))
            }
            ColumnData::Binary(Some(bytes)) if bytes.len() > LONGEST_IN_BULK => {
                Some((ColumnData::Binary(None), LongValue::Bytes(bytes.to_vec())))
            }
            _ => None,
        }
    }
}

const STAGED_OTHERWISE: &str =
    "rows that are not shown yet were staged by the job as it was; run that once more until it has shown them";

/// Where the target's columns are in rows that were staged, perhaps by a job that was another then.
fn positions(batch: &RecordBatch, target: &Target) -> Result<Vec<usize>, String> {
    let place = |(column, name): (&Column, &String)| {
        let found = batch.schema_ref().column_with_name(name);
        let (index, field) = found.ok_or_else(|| format!("{STAGED_OTHERWISE}: they have no column {name}"))?;
        column.of.takes(field).map_err(|what| format!("{STAGED_OTHERWISE}: column {name}: {what}"))?;
        Ok(index)
    };
    target.columns.iter().zip(&target.from).map(place).collect()
}

/// The row at a place, as JSON: of one that turned out to be wrong after it was staged.
pub async fn look_up(
    entries: &[&Committable],
    at: Place,
    context: &SinkContext,
    place: &str,
) -> Result<String, SinkError> {
    let (entry, token, row) = at;
    let said = entries.iter().find(|e| e.entry == entry).and_then(|entry| entry.tokens.get(token));
    let batches = match said {
        Some(said) => staged_rows::read(&*context.store, said, place).await?.unwrap_or_default(),
        None => vec![],
    };
    let mut first = 0;
    for batch in &batches {
        if row < first + batch.num_rows() as u64 {
            return Ok(content(batch, (row - first) as usize));
        }
        first += batch.num_rows() as u64;
    }
    Err(SinkError::failed(place, format!("row {row} of entry {entry} is not where it was")))
}

fn content(batch: &RecordBatch, row: usize) -> String {
    let mut line = vec![];
    match formats::json_lines(&batch.slice(row, 1), &mut line) {
        Ok(()) => String::from_utf8_lossy(&line).trim_end().to_string(),
        Err(error) => Value::from(format!("it cannot be shown: {error}")).to_string(),
    }
}

impl Share {
    /// The rows of a batch that are of this share. `first`: where the batch begins in its token.
    fn rows(&self, batch: &RecordBatch, first: u64) -> Result<Vec<usize>, ArrowError> {
        let all = 0..batch.num_rows();
        if self.lanes <= 1 {
            return Ok(all.collect());
        }
        let Some(by) = &self.by else {
            return Ok(all.filter(|row| (first + *row as u64) % self.lanes as u64 == self.lane as u64).collect());
        };
        let unknown = || ArrowError::SchemaError(format!("they have no column {by}"));
        let by = cast(batch.column_by_name(by).ok_or_else(unknown)?, &DataType::Int64)?;
        let by = by.as_primitive::<Int64Type>();
        let lane =
            |row: &usize| if by.is_valid(*row) { by.value(*row).rem_euclid(self.lanes as i64) as usize } else { 0 };
        Ok(all.filter(|row| lane(row) == self.lane).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array};

    use super::*;

    #[test]
    fn each_row_is_of_one_share_and_always_of_the_same() {
        let parts: ArrayRef = Arc::new(Int32Array::from(vec![Some(0), Some(5), Some(-1), None, Some(3)]));
        let batch = RecordBatch::try_from_iter_with_nullable([("part", parts, true)]).unwrap();
        for by in [None, Some("part".to_string())] {
            let share = |lane| Share { lane, lanes: 3, by: by.clone() };
            let mut all: Vec<usize> = (0..3).flat_map(|lane| share(lane).rows(&batch, 100).unwrap()).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4], "{by:?}");
        }
        assert_eq!(Share { lane: 2, lanes: 3, by: Some("part".into()) }.rows(&batch, 0).unwrap(), [1, 2]);
    }
}
