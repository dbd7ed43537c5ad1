//! Rows that can be no lines of JSON: they stay out of their file, and its token says so until the dead letter has them.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use engine::sink::{Committable, Committed, RejectedRow, Token};
use object_store::path::Path;
use serde_json::{Map, json};

/// The words of a token.
const PATH: &str = "path";
const REFUSED: &str = "refused";

/// Writes the rows of an open epoch as lines.
#[derive(Default)]
pub struct Lines {
    bytes: Vec<u8>,
    rows: u64,
    refused: Vec<RejectedRow>,
}

impl Lines {
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let unwritable = formats::unwritable(batch);
        if unwritable.is_empty() {
            formats::json_lines(batch, &mut self.bytes)?;
        } else {
            for row in 0..batch.num_rows() {
                let alone = batch.slice(row, 1);
                let Some(reason) = unwritable.get(&row) else {
                    formats::json_lines(&alone, &mut self.bytes)?;
                    continue;
                };
                let mut line = vec![];
                formats::json_lines(&alone, &mut line)?;
                let content = String::from_utf8_lossy(&line).trim_end().to_string();
                let row = self.rows + row as u64;
                self.refused.push(RejectedRow { token: 0, row, reason: reason.clone(), content });
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    pub fn buffered(&self) -> usize {
        self.bytes.len() + self.refused.iter().map(|row| row.content.len() + row.reason.len()).sum::<usize>()
    }

    /// The lines, and the rows that are none.
    pub fn close(&mut self) -> (Vec<u8>, Vec<RejectedRow>) {
        let Lines { bytes, refused, .. } = std::mem::take(self);
        (bytes, refused)
    }
}

/// What finds the staged rows, if there are any, and says which others can never be shown.
pub fn token(staged: Option<&Path>, refused: &[RejectedRow]) -> Token {
    let mut token = Map::new();
    if let Some(path) = staged {
        token.insert(PATH.into(), path.to_string().into());
    }
    if !refused.is_empty() {
        token.insert(REFUSED.into(), json!(refused));
    }
    Token::Object(token)
}

/// Where the rows of a token are staged.
pub fn staged_at(token: &Token) -> Option<Path> {
    token[PATH].as_str().map(Path::from)
}

/// The rows of an entry that can be no lines, unless that was told.
pub fn untold(entries: &[Committable]) -> Option<Committed> {
    entries.iter().find_map(|entry| {
        let told = |row: &RejectedRow| entry.excluded.iter().any(|out| (out.token, out.row) == (row.token, row.row));
        let refused = entry.tokens.iter().enumerate().flat_map(|(ordinal, token)| {
            let refused = serde_json::from_value::<Vec<RejectedRow>>(token[REFUSED].clone()).unwrap_or_default();
            refused.into_iter().map(move |row| RejectedRow { token: ordinal, ..row })
        });
        let rows: Vec<_> = refused.filter(|row| !told(row)).collect();
        (!rows.is_empty()).then_some(Committed::Rejected { entry: entry.entry, rows })
    })
}
