//! What a table shows: its rows, by the time at which each was stored if the table has a column for that.

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use engine::shown::{Shown, Take};
use futures::TryStreamExt;
use tiberius::QueryItem;

use crate::catalog::{self, CatalogColumn, named};
use crate::cells::{Cells, instant};
use crate::connection::Connection;
use crate::options::SqlTable;
use crate::statements;
use crate::trouble::Trouble;
use crate::types::SqlType;

/// Rows of a batch.
const AT_ONCE: usize = 10_000;
const SECOND: i64 = 1_000_000_000;

pub struct SqlShown {
    pub table: SqlTable,
    pub columns: Vec<FieldRef>,
}

#[async_trait]
impl Shown for SqlShown {
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let at = &self.table.at;
        let failed = |trouble: Trouble| format!("{}: {trouble}", at.describe());
        let mut connection = Connection::open(&at.server, at.answer).await.map_err(failed)?;
        let there = catalog::columns(&mut connection, statements::TABLE, &at.target).await.map_err(failed)?;
        let mut wanted = self.wanted(&there).map_err(|what| format!("{}: {what}", at.describe()))?;
        let stored_at = self.stored_at(&there);
        wanted.extend(stored_at);
        let query = statements::read(&at.target, &wanted, stored_at.map(|there| there.column.name.as_str()));
        let broken = |e: tiberius::error::Error| failed(Trouble::of(e));
        let mut rows = connection.client.simple_query(query).await.map_err(broken)?;
        let from: Vec<usize> = (0..self.columns.len()).collect();
        let mut together = Together { time: None, cells: Cells::new(&self.columns)? };
        while let Some(item) = rows.try_next().await.map_err(broken)? {
            let QueryItem::Row(row) = item else { continue };
            let time =
                stored_at.and_then(|_| row.get_column_data(from.len()).ok()).and_then(|cell| instant(cell).ok()?);
            let time = time.map(|at| at.div_euclid(SECOND) * 1000);
            if together.cells.held() == AT_ONCE || time != together.time {
                together.hand_over(take)?;
                together.time = time;
            }
            together.cells.push(&row, &from).map_err(|what| format!("{}: {what}: {row:?}", at.describe()))?;
        }
        together.hand_over(take)
    }
}

/// Rows that were stored in the same second.
struct Together {
    /// In milliseconds since 1970.
    time: Option<i64>,
    cells: Cells,
}

impl Together {
    fn hand_over(&mut self, take: &mut Take<'_>) -> Result<(), String> {
        if self.cells.held() == 0 { Ok(()) } else { take(self.time, self.cells.finish().map_err(|e| e.to_string())?) }
    }
}

impl SqlShown {
    /// The columns of the table that the job writes, in its order.
    fn wanted<'a>(&self, there: &'a [CatalogColumn]) -> Result<Vec<&'a CatalogColumn>, String> {
        if there.is_empty() {
            return Err("there is no such table, or it may not be seen".into());
        }
        let found = |field: &FieldRef| {
            named(there, field.name())
                .ok_or_else(|| format!("there is no column {} in {}", field.name(), self.table.at.target.as_str()))
        };
        self.columns.iter().map(found).collect()
    }

    /// The column in which the server itself notes when a row came, if there is one: a point in time by default, which the job leaves
    /// out.
    fn stored_at<'a>(&self, there: &'a [CatalogColumn]) -> Option<&'a CatalogColumn> {
        let written = |name: &str| self.columns.iter().any(|column| column.name().eq_ignore_ascii_case(name));
        let noted = |there: &&CatalogColumn| {
            let in_time = matches!(there.column.of, SqlType::DateTime2 | SqlType::DateTimeOffset);
            in_time && there.by_default && !written(&there.column.name)
        };
        there.iter().find(noted)
    }
}
