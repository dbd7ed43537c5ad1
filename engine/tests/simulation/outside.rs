//! The systems that the job writes to. They outlive every process, keep what they are given, and object to what a real
//! one would object to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use engine::sink::{Committable, Committed, RejectedRow, Sink, SinkContext, SinkError, SinkWriter, Token};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;

use crate::plan::TABLES;
use crate::process::Process;

/// What every sink holds.
#[derive(Default)]
pub struct Outside {
    tables: Mutex<BTreeMap<String, Table>>,
    pub objections: Mutex<Vec<String>>,
    /// Between these times a table answers nothing.
    away: Mutex<BTreeMap<String, (Duration, Duration)>>,
}

#[derive(Default)]
struct Table {
    prepared: BTreeMap<String, Vec<String>>,
    /// By job log and writer: the highest entry that is shown, as Delta's `txn` or a marker row keeps it.
    reached: BTreeMap<(String, String), u64>,
    shown: Vec<String>,
}

impl Outside {
    /// How often each row is shown.
    pub fn shown(&self, table: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for row in self.tables.lock().get(table).map_or(&[][..], |t| &t.shown) {
            *counts.entry(row.clone()).or_default() += 1;
        }
        counts
    }

    /// The rows in the order in which they were shown.
    pub fn in_order(&self, table: &str) -> Vec<String> {
        self.tables.lock().get(table).map_or(vec![], |t| t.shown.clone())
    }

    /// All of them.
    pub fn is_away(&self, from: Duration, until: Duration) {
        TABLES.iter().for_each(|table| self.table_is_away(table, from, until));
    }

    pub fn table_is_away(&self, table: &str, from: Duration, until: Duration) {
        self.away.lock().insert(table.to_string(), (from, until));
    }

    /// When the table answers again, if it does not now.
    fn back(&self, table: &str, now: Duration) -> Option<Duration> {
        let (from, until) = *self.away.lock().get(table)?;
        (from..until).contains(&now).then_some(until)
    }

    fn object(&self, what: String) {
        self.objections.lock().push(what);
    }
}

/// Whether the table `first` can never take this event.
pub fn is_poison(id: u64) -> bool {
    id % 23 == 5
}

/// A table of the outside, as one process sees it.
pub struct SimulatedSink {
    pub outside: Arc<Outside>,
    pub process: Arc<Process>,
    pub faults: u64,
    /// Refuses rows at commit time.
    pub fussy: bool,
    /// Refuses to be opened.
    pub locked: bool,
}

struct Writer {
    outside: Arc<Outside>,
    process: Arc<Process>,
    context: SinkContext,
    rows: Vec<String>,
}

#[async_trait]
impl Sink for SimulatedSink {
    fn describe(&self) -> String {
        "simulated".into()
    }

    fn guarantee(&self) -> String {
        "exactly once".into()
    }

    async fn open(&self, context: &SinkContext, probe: bool) -> Result<(), SinkError> {
        self.process.gate().await;
        // Whoever was let in is let in again a moment later.
        if probe && (self.locked || self.process.clock.chance(self.faults)) {
            return Err(SinkError::failed("simulated", "no entry"));
        }
        self.travel(&context.sink).await
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        let (outside, process) = (self.outside.clone(), self.process.clone());
        Ok(Box::new(Writer { outside, process, context: context.clone(), rows: vec![] }))
    }

    async fn commit(&self, context: &SinkContext, entries: &[Committable]) -> Result<Committed, SinkError> {
        for entry in entries {
            self.travel(&context.sink).await?;
            if let Some(rejected) = self.show(context, entry) {
                return Ok(rejected);
            }
            self.travel(&context.sink).await?;
        }
        Ok(Committed::Done)
    }
}

impl SimulatedSink {
    async fn answers(&self, table: &str) {
        while let Some(back) = self.outside.back(table, self.process.clock.now()) {
            self.process.clock.sleep(back - self.process.clock.now()).await;
            self.process.gate().await;
        }
    }

    /// One way of a request; what is sent may get lost.
    async fn travel(&self, table: &str) -> Result<(), SinkError> {
        self.process.gate().await;
        self.answers(table).await;
        let clock = &self.process.clock;
        clock.sleep(Duration::from_micros(clock.pick(1..5000))).await;
        self.process.gate().await;
        if clock.chance(self.faults) { Err(SinkError::retry("simulated", "lost")) } else { Ok(()) }
    }

    /// One transaction: all rows of an entry and its number, or nothing.
    fn show(&self, context: &SinkContext, entry: &Committable) -> Option<Committed> {
        let mut tables = self.outside.tables.lock();
        let table = tables.entry(context.sink.clone()).or_default();
        let name = (context.log_id.clone(), entry.writer.clone());
        if table.reached.get(&name).is_some_and(|reached| *reached >= entry.entry) {
            return None;
        }
        let mut rows = vec![];
        for (token, name) in entry.tokens.iter().enumerate() {
            let name = name["name"].as_str().unwrap_or_default();
            match table.prepared.get(name) {
                None => self.outside.object(format!("entry {} names {name}, which nobody prepared", entry.entry)),
                Some(prepared) => {
                    rows.extend(prepared.iter().enumerate().map(|(row, text)| (token, row as u64, text.clone())))
                }
            }
        }
        let excluded = |token: usize, row: u64| entry.excluded.iter().any(|e| e.token == token && e.row == row);
        rows.retain(|(token, row, _)| !excluded(*token, *row));
        let poisoned = rows.iter().filter(|(.., text)| self.fussy && text.parse().is_ok_and(is_poison));
        let poisoned: Vec<RejectedRow> = poisoned
            .map(|(token, row, text)| RejectedRow {
                token: *token,
                row: *row,
                reason: "poison".into(),
                content: text.clone(),
            })
            .collect();
        if !poisoned.is_empty() {
            return Some(Committed::Rejected { entry: entry.entry, rows: poisoned });
        }
        table.shown.extend(rows.into_iter().map(|(.., text)| text));
        table.reached.insert(name, entry.entry);
        None
    }
}

impl SinkWriter for Writer {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.rows.extend(texts(batch));
        Ok(())
    }

    fn prepare(&mut self) -> BoxFuture<'static, Result<Option<Token>, SinkError>> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Box::pin(async { Ok(None) });
        }
        let (outside, process, sink) = (self.outside.clone(), self.process.clone(), self.context.sink.clone());
        let name = self.context.names.next();
        Box::pin(async move {
            process.gate().await;
            process.clock.sleep(Duration::from_micros(process.clock.pick(1..20_000))).await;
            process.gate().await;
            let before = outside.tables.lock().entry(sink).or_default().prepared.insert(name.clone(), rows);
            if before.is_some() {
                outside.object(format!("the name {name} was made twice"));
            }
            process.gate().await;
            Ok(Some(json!({"name": name})))
        })
    }
}

/// A row as the outside keeps it: the event's number, or what the dead letter says of it.
fn texts(batch: &RecordBatch) -> Vec<String> {
    if let Some(numbers) = batch.column_by_name("n") {
        return numbers.as_primitive::<Int64Type>().values().iter().map(|n| n.to_string()).collect();
    }
    let payloads = batch.column_by_name("payload").expect("a dead letter has a payload").as_binary::<i32>();
    let codes = batch.column_by_name("code").expect("a dead letter has a code").as_string::<i32>();
    let event = |payload: &[u8]| match serde_json::from_slice::<serde_json::Value>(payload) {
        Ok(serde_json::Value::Object(row)) => row["n"].to_string(),
        _ => String::from_utf8_lossy(payload).into_owned(),
    };
    (0..payloads.len()).map(|row| format!("{} {}", codes.value(row), event(payloads.value(row)))).collect()
}
