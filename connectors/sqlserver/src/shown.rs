//! What a table shows: its rows, by the time at which each was stored if the table has a column for that.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use async_trait::async_trait;
use engine::connector::is_json;
use engine::shown::{Shown, Take};
use formats::{Decoder, Format, JsonOptions};
use futures::TryStreamExt;
use serde_json::{Map, Value};
use tiberius::{ColumnData, QueryItem, Row};

use crate::connection::Connection;
use crate::options::SqlTable;
use crate::statements;
use crate::target::stored_at;
use crate::trouble::Trouble;
use crate::types::is_document;

/// Rows of a batch.
const AT_ONCE: usize = 10_000;

pub struct SqlShown {
    pub table: SqlTable,
    pub columns: Vec<FieldRef>,
}

#[async_trait]
impl Shown for SqlShown {
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let failed = |trouble: Trouble| format!("{}: {trouble}", self.table.place());
        let mut connection = Connection::open(&self.table.server, self.table.answer).await.map_err(failed)?;
        let mut names: Vec<String> = self.columns.iter().map(|column| column.name().clone()).collect();
        let stored_at = stored_at(&mut connection, &self.table, &names).await.map_err(failed)?;
        names.extend(stored_at.clone());
        let query = statements::read(&self.table.target, &names, stored_at.as_deref());
        let broken = |e: tiberius::error::Error| failed(Trouble::of(e));
        let mut rows = connection.client.simple_query(query).await.map_err(broken)?;
        let mut together = Together { time: None, decoder: self.decoder()?, held: 0 };
        while let Some(item) = rows.try_next().await.map_err(broken)? {
            let QueryItem::Row(row) = item else { continue };
            let mut row = object(&row);
            let time = stored_at.as_ref().and_then(|name| row.remove(name)).and_then(|time| second(&time));
            if together.held == AT_ONCE || time != together.time {
                together.hand_over(take)?;
                together = Together { time, decoder: self.decoder()?, held: 0 };
            }
            self.unpack(&mut row);
            let line = Value::Object(row).to_string();
            together.decoder.push(line.as_bytes(), None).map_err(|reject| format!("{}: {line}", reject.error))?;
            together.held += 1;
        }
        together.hand_over(take)
    }
}

/// Rows that were stored in the same second.
struct Together {
    time: Option<i64>,
    decoder: Decoder,
    held: usize,
}

impl Together {
    fn hand_over(&mut self, take: &mut Take<'_>) -> Result<(), String> {
        if self.held == 0 { Ok(()) } else { take(self.time, self.decoder.finish().map_err(|e| e.to_string())?) }
    }
}

/// The second of a time, in milliseconds since 1970.
fn second(time: &Value) -> Option<i64> {
    let nanoseconds = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(time.as_str()?).ok()?;
    Some(nanoseconds.div_euclid(1_000_000_000) * 1000)
}

impl SqlShown {
    /// Documents are kept as text.
    fn unpack(&self, row: &mut Map<String, Value>) {
        for column in self.columns.iter().filter(|column| is_json(column) || is_document(column.data_type())) {
            if let Some(Value::String(text)) = row.get(column.name())
                && let Ok(document) = serde_json::from_str(text)
            {
                row.insert(column.name().clone(), document);
            }
        }
    }

    fn decoder(&self) -> Result<Decoder, String> {
        // Decimals come back as text.
        let options = JsonOptions { lenient: true, ..JsonOptions::default() };
        Decoder::new(Arc::new(Schema::new(self.columns.clone())), Format::Json, options, None)
    }
}

fn object(row: &Row) -> Map<String, Value> {
    let value =
        |(column, data): (&tiberius::Column, &ColumnData<'static>)| Some((column.name().to_string(), value(data)?));
    row.cells().filter_map(value).collect()
}

/// `None`: NULL, or nothing that a job writes.
fn value(data: &ColumnData<'static>) -> Option<Value> {
    const EPOCH: i64 = 719_162;
    let time = |days: u32, ticks: u64| {
        let seconds = (i64::from(days) - EPOCH) * 86_400 + (ticks / 10_000_000) as i64;
        let time = arrow::temporal_conversions::timestamp_s_to_datetime(seconds)?;
        Some(Value::from(format!("{}.{:07}Z", time.format("%Y-%m-%dT%H:%M:%S"), ticks % 10_000_000)))
    };
    match data {
        ColumnData::U8(n) => n.map(Value::from),
        ColumnData::I16(n) => n.map(Value::from),
        ColumnData::I32(n) => n.map(Value::from),
        ColumnData::I64(n) => n.map(Value::from),
        ColumnData::F32(n) => n.map(Value::from),
        ColumnData::F64(n) => n.map(Value::from),
        ColumnData::Bit(bit) => bit.map(Value::from),
        ColumnData::String(text) => text.as_ref().map(|text| Value::from(text.as_ref())),
        ColumnData::Guid(id) => id.map(|id| Value::from(id.to_string())),
        ColumnData::Numeric(number) => number.map(|number| Value::from(number.to_string())),
        ColumnData::DateTime2(at) => at.and_then(|at| time(at.date().days(), ticks(at.time()))),
        ColumnData::DateTimeOffset(at) => {
            at.and_then(|at| time(at.datetime2().date().days(), ticks(at.datetime2().time())))
        }
        ColumnData::Date(date) => {
            let days = i64::from(date.as_ref()?.days()) - EPOCH;
            let day = arrow::temporal_conversions::timestamp_s_to_datetime(days * 86_400)?;
            Some(Value::from(day.format("%Y-%m-%d").to_string()))
        }
        _ => None,
    }
}

/// Since midnight, in 100 ns.
fn ticks(time: tiberius::time::Time) -> u64 {
    time.increments() * 10_u64.pow(7_u32.saturating_sub(u32::from(time.scale())))
}
