//! `cargo bench -p engine --bench lookup`: rows a second and core through a lookup whose answers are here, beside
//! DataFusion's hash join of the same rows, run a moment before in the same process.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use engine::connector::Origin;
use engine::environment::{Bell, System};
use engine::lookup::{Answer, Fetched, KeyRows, Loaded, Lookup, LookupError, LookupRequest, LookupTable, Met};
use engine::metrics::LookupMetrics;
use engine::plan::{Kept, KeptByKey, LookupJoin, LookupNode, Transform};
use engine::source::SourceColumn;

const BATCHES: usize = 250;
const ROWS: usize = 4096;
/// Each takes its turn so often; the middle ratio is shown.
const TURNS: usize = 7;

/// Devices, known to the last one.
struct Devices(RecordBatch);

#[async_trait]
impl Lookup for Devices {
    fn describe(&self) -> String {
        "devices in memory".into()
    }
    fn by_key(&self) -> bool {
        true
    }
    async fn fetch(&self, _: &LookupRequest, _: &RecordBatch) -> Result<Fetched, LookupError> {
        Ok(Fetched { rows: vec![self.0.clone()], refused: vec![] })
    }
    async fn load(&self, _: &LookupRequest, _: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        Ok(Loaded::Rows { version: None, rows: vec![self.0.clone()] })
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    println!("{:<42} {:>12} {:>12} {:>7}", "rows a second and core", "DataFusion", "millrace", "ratio");
    for known in [1000, 100_000] {
        let (devices, events) = (devices(known), events(known));
        let by_key = KeptByKey {
            ttl: Duration::from_secs(3600),
            missing_ttl: Duration::from_secs(3600),
            bytes: 1 << 30,
            keys: known,
            requests: 1,
        };
        let whole = Kept::Whole { refresh: Duration::from_secs(3600), bytes: usize::MAX };
        for (what, kept) in [("kept whole", whole), ("by key, every answer is here", Kept::ByKey(by_key))] {
            let node = node(&devices, kept);
            let table = Arc::new(LookupTable::new(&node, Arc::new(System), Arc::new(LookupMetrics::default())));
            table.open().await.expect("it answers");
            let asked = table.clone();
            let running = tokio::spawn(async move { asked.run().await });
            for batch in &events {
                met(&table, batch).await;
            }
            let mut turns = vec![];
            for _ in 0..TURNS {
                let reference = datafusion(&devices, &events).await;
                turns.push((reference, millrace(&node, &table, &events).await));
            }
            running.abort();
            turns.sort_by(|a, b| a.1.div_duration_f64(a.0).total_cmp(&b.1.div_duration_f64(b.0)));
            let (reference, subject) = turns[TURNS / 2];
            let rate = |time: Duration| (BATCHES * ROWS) as f64 / time.as_secs_f64();
            let what = format!("{known} devices, {what}");
            println!(
                "{what:<42} {:>12.0} {:>12.0} {:>6.2}x",
                rate(reference),
                rate(subject),
                rate(subject) / rate(reference)
            );
        }
    }
}

async fn datafusion(devices: &RecordBatch, events: &[RecordBatch]) -> Duration {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = |batches: Vec<RecordBatch>| {
        Arc::new(MemTable::try_new(batches[0].schema(), vec![batches]).expect("one schema"))
    };
    context.register_table("events", table(events.to_vec())).expect("a table");
    context.register_table("devices", table(vec![devices.clone()])).expect("a table");
    let query = "SELECT e.*, d.* FROM events e JOIN devices d ON e.\"deviceId\" = d.\"deviceId\"";
    let frame = context.sql(query).await.expect("a query");
    let begun = Instant::now();
    let rows: usize = frame.collect().await.expect("rows").iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, BATCHES * ROWS);
    begun.elapsed()
}

async fn millrace(node: &LookupNode, table: &LookupTable, events: &[RecordBatch]) -> Duration {
    let join = LookupJoin { table: 0, keys: vec![0], filter: None, outer: false };
    let fields = events[0].schema().fields().iter().chain(node.schema.fields()).cloned().collect::<Vec<_>>();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let begun = Instant::now();
    let mut rows = 0;
    for batch in events {
        let met = met(table, batch).await;
        let count = |batch: RecordBatch| -> Result<(), ArrowError> {
            rows += batch.num_rows();
            Ok(())
        };
        join.run(batch, &met, &schema, count).expect("a join");
    }
    assert_eq!(rows, BATCHES * ROWS);
    begun.elapsed()
}

async fn met(table: &LookupTable, batch: &RecordBatch) -> Met {
    let mut answer: Answer =
        table.ask(KeyRows::of(batch, &[0]).expect("keys"), &Arc::new(Bell::default())).expect("keys");
    loop {
        match table.met(&mut answer).expect("an answer") {
            Some(met) => return met,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn node(devices: &RecordBatch, kept: Kept) -> LookupNode {
    let schema = devices.schema();
    let column = |field: &Arc<arrow::datatypes::Field>| SourceColumn { field: field.clone(), origin: Origin::Value };
    let keys = if matches!(kept, Kept::ByKey(_)) { vec![0] } else { vec![] };
    let columns = schema.fields().iter().map(column).collect();
    LookupNode {
        table: "devices".into(),
        lookup: Arc::new(Devices(devices.clone())),
        request: LookupRequest { columns, keys, timeout: Duration::from_secs(60) },
        transform: Transform { steps: vec![] },
        schema,
        keys: vec![0],
        kept,
        give_up_after: None,
    }
}

fn devices(known: usize) -> RecordBatch {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..known).map(|n| format!("contoso://device-id-{n}"))));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..known).map(|n| format!("Device number {n}"))));
    let homes: ArrayRef = Arc::new(Int64Array::from_iter_values(0..known as i64));
    RecordBatch::try_from_iter([("deviceId", ids), ("deviceName", names), ("homeId", homes)]).expect("columns")
}

fn events(known: usize) -> Vec<RecordBatch> {
    let batch = |batch: usize| {
        let number = |row: usize| (batch * ROWS + row).wrapping_mul(2_654_435_761) % known;
        let ids = StringArray::from_iter_values((0..ROWS).map(|row| format!("contoso://device-id-{}", number(row))));
        let values = Float64Array::from_iter_values((0..ROWS).map(|row| row as f64));
        let columns: [(&str, ArrayRef); 2] = [("deviceId", Arc::new(ids)), ("value", Arc::new(values))];
        RecordBatch::try_from_iter(columns).expect("columns")
    };
    (0..BATCHES).map(batch).collect()
}
