//! Which row of which job something is that was written: the name that a sink gives a staged row, where its target keeps one
//! beside it. Staged rows are fixed by their entry, so the name is the same however often it is written.

use engine::sink::SinkContext;

/// The rows of one job log entry for one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance(String);

impl Provenance {
    pub fn of(context: &SinkContext, writer: &str, entry: u64) -> Self {
        Provenance(format!("{}/{}/{writer}/{entry}/", context.log_id, context.sink))
    }

    /// The name of a row: its token within the entry, and its place within what the token holds.
    pub fn row(&self, token: usize, row: u64) -> String {
        format!("{}{token}.{row}", self.0)
    }

    /// The name of rows that are written as one, `row` and those behind it.
    pub fn rows(&self, token: usize, row: u64, count: u64) -> String {
        let first = self.row(token, row);
        if count == 1 { first } else { format!("{first}+{count}") }
    }

    /// The rows that have this name, if they are of this entry: token, first row, and how many.
    pub fn parse(&self, name: &[u8]) -> Option<(usize, u64, u64)> {
        let place = name.strip_prefix(self.0.as_bytes())?;
        let (token, rows) = std::str::from_utf8(place).ok()?.split_once('.')?;
        let (row, count) = rows.split_once('+').unwrap_or((rows, "1"));
        Some((token.parse().ok()?, row.parse().ok()?, count.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_told_from_those_of_other_entries_whose_names_begin_alike() {
        let (one, eleven) = (Provenance("log/t/w/1/".into()), Provenance("log/t/w/11/".into()));
        assert_eq!(one.parse(one.row(2, 40).as_bytes()), Some((2, 40, 1)));
        assert_eq!(one.parse(one.rows(2, 40, 1).as_bytes()), Some((2, 40, 1)));
        assert_eq!(one.parse(one.rows(2, 40, 12).as_bytes()), Some((2, 40, 12)));
        assert_eq!(one.parse(eleven.row(2, 40).as_bytes()), None);
        assert_eq!(eleven.parse(one.row(2, 40).as_bytes()), None);
        assert_eq!(one.parse(b"log/t/w/1/x.1"), None);
    }
}
