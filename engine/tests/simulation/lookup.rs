//! A table outside that the job looks rows up in: slow, and its answers get lost.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use engine::lookup::{Fetched, Loaded, Lookup, LookupError, LookupRequest};

use crate::process::Process;

/// More events than any story has.
const EVENTS: i64 = 5000;

/// Whether the table has a row for the event.
pub fn is_known(id: u64) -> bool {
    id % 7 != 3
}

/// Whether the row of the event does not fit the table's columns. Only a table that is asked by key can say so.
pub fn is_refused(id: u64) -> bool {
    id % 31 == 8
}

pub fn columns() -> Vec<FieldRef> {
    ["key", "double"].map(|name| Arc::new(Field::new(name, DataType::Int64, false))).to_vec()
}

/// The table, as one process sees it.
pub struct SimulatedTable {
    pub process: Arc<Process>,
    pub faults: u64,
}

#[async_trait]
impl Lookup for SimulatedTable {
    fn describe(&self) -> String {
        "simulated".into()
    }

    fn by_key(&self) -> bool {
        true
    }

    async fn open(&self, _: &LookupRequest) -> Result<(), LookupError> {
        self.travel().await
    }

    async fn fetch(&self, request: &LookupRequest, keys: &RecordBatch) -> Result<Fetched, LookupError> {
        self.travel().await?;
        assert_eq!(request.keys, [0]);
        let keys = keys.column(0).as_primitive::<Int64Type>().values().to_vec();
        let refused = keys.iter().enumerate().filter(|(_, key)| is_refused(**key as u64));
        let refused = refused.map(|(number, _)| (number, "it does not fit".into())).collect();
        // And what nobody asked for, as a system that is lax about equality answers.
        let beside = keys.first().map(|key| key + 1).filter(|key| !keys.contains(key));
        let rows = rows(keys.iter().copied().chain(beside));
        self.travel().await?;
        Ok(Fetched { rows: vec![rows], refused })
    }

    async fn load(&self, _: &LookupRequest, seen: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        self.travel().await?;
        if seen.is_some() && self.process.clock.chance(50) {
            return Ok(Loaded::Unchanged);
        }
        Ok(Loaded::Rows { version: Some("1".into()), rows: vec![rows(0..EVENTS)] })
    }
}

impl SimulatedTable {
    /// One way of a request. What is sent may get lost, and whoever waits for it is not told.
    async fn travel(&self) -> Result<(), LookupError> {
        self.process.gate().await;
        let clock = &self.process.clock;
        clock.sleep(Duration::from_micros(clock.pick(1..5000))).await;
        self.process.gate().await;
        if self.process.is_table_away() || clock.chance(self.faults / 4) {
            std::future::pending().await
        }
        if clock.chance(self.faults) { Err(LookupError::retry("simulated", "lost")) } else { Ok(()) }
    }
}

fn rows(keys: impl Iterator<Item = i64>) -> RecordBatch {
    let keys: Vec<i64> = keys.filter(|key| is_known(*key as u64)).collect();
    let doubles: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| 2 * key)));
    let schema: SchemaRef = Arc::new(Schema::new(columns()));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(keys)), doubles]).unwrap()
}
