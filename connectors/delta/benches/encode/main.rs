//! `cargo bench -p delta`: rows into a closed file of the table, beside `deltalake`'s writer, and files joined by copying their row
//! groups, beside encoding their rows again; in the same process and by turns.
//! Ratios count; the rates are of this machine at this moment.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

mod joining;
mod reference;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use delta::DeltaConnector;
use engine::connector::{ColumnSpec, Connector, Options, Origin, TableSpec};
use engine::sink::{Names, Sink, SinkContext, Token};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Rows of a file: what a second brings to a busy job.
const ROWS: usize = 20 * BATCH;
/// Rows of a batch, as the engine hands them on.
const BATCH: usize = 8192;
/// Each takes its turn so often; the middle ratio is shown.
const TURNS: usize = 7;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!(
        "{:<46} {:>12} {:>12} {:>7} {:>12} {:>12} {:>7}",
        "", "reference/s", "millrace/s", "ratio", "bytes/row", "bytes/row", "ratio"
    );
    for (what, batches) in [
        ("29 columns, doubles of 15 to 17 digits", batches(|random| random.random_range(0.0..100.0), false)),
        ("29 columns, doubles of 9 or 10 digits", batches(nine_digits, false)),
        ("7 columns, one of JSON text", batches(nine_digits, true)),
    ] {
        compare(what, &batches).await;
        joining::compare(what, &batches).await;
    }
}

fn nine_digits(random: &mut StdRng) -> f64 {
    f64::from(random.random_range(1..i32::MAX)) / 1e10
}

async fn compare(what: &str, batches: &[RecordBatch]) {
    let schema = batches[0].schema();
    let mut turns = vec![];
    for _ in 0..TURNS {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = Instant::now();
        let reference = (reference::write(folder.path(), &schema, batches).await, begun.elapsed().as_secs_f64());
        let folder = tempfile::tempdir().expect("a folder");
        let (sink, context) = open(folder.path(), &schema).await;
        let begun = Instant::now();
        let token = write(sink.as_ref(), &context, batches).await;
        let subject = (bytes(&token), begun.elapsed().as_secs_f64());
        turns.push((reference, subject));
    }
    turns.sort_by(|a, b| (a.0.1 / a.1.1).total_cmp(&(b.0.1 / b.1.1)));
    let ((reference_bytes, reference), (bytes, subject)) = turns[TURNS / 2];
    let rows = ROWS as f64;
    println!(
        "{what:<46} {:>12.0} {:>12.0} {:>6.2}x {:>12.1} {:>12.1} {:>6.3}x",
        rows / reference,
        rows / subject,
        reference / subject,
        reference_bytes as f64 / rows,
        bytes as f64 / rows,
        bytes as f64 / reference_bytes as f64,
    );
}

async fn open(folder: &Path, schema: &SchemaRef) -> (Arc<dyn Sink>, SinkContext) {
    let column = |field: &Arc<Field>| ColumnSpec { field: field.clone(), origin: Origin::Value };
    let spec = TableSpec {
        name: "serving".into(),
        columns: schema.fields().iter().map(column).collect(),
        primary_key: vec![],
        partition_by: vec![],
        options: Options(BTreeMap::from([("path".into(), folder.display().to_string())])),
    };
    let sink = DeltaConnector.sink(&spec).unwrap_or_else(|_| panic!("a sink"));
    let context = SinkContext {
        log_id: "log".into(),
        sink: "serving".into(),
        writer: "w1".into(),
        schema: schema.clone(),
        store: Arc::new(InMemory::new()),
        staging: "staging".into(),
        names: Names::of("w1"),
        ownership: engine::sink::Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    sink.open(&context, false).await.expect("a table");
    (sink, context)
}

async fn write(sink: &dyn Sink, context: &SinkContext, batches: &[RecordBatch]) -> Token {
    let mut writer = sink.writer(context).expect("a writer");
    for batch in batches {
        writer.write(batch).expect("a batch");
    }
    writer.prepare().await.expect("a file").expect("rows")
}

fn bytes(token: &Token) -> u64 {
    token["files"].as_array().expect("files").iter().filter_map(|file| file["size"].as_u64()).sum()
}

/// The events as the jobs write them: `complexData` as a column a number, or as the text that came.
fn batches(number: impl Fn(&mut StdRng) -> f64, text: bool) -> Vec<RecordBatch> {
    let mut random = StdRng::seed_from_u64(1);
    (0..ROWS / BATCH).map(|batch| one_batch(&mut random, batch * BATCH, &number, text)).collect()
}

fn one_batch(random: &mut StdRng, first: usize, number: &impl Fn(&mut StdRng) -> f64, text: bool) -> RecordBatch {
    let rows = first..first + BATCH;
    let texts = |of: &mut dyn FnMut(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.clone().map(of)))
    };
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = rows.clone().map(|n| 1_800_000_000_000_000 + n as i64 * 50 + random.random_range(0..50));
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let mut columns: Vec<(Field, ArrayRef)> = vec![
        (
            Field::new("eventId", DataType::Utf8, false),
            texts(&mut |_| uuid::Uuid::from_u128(random.random()).to_string()),
        ),
        (
            Field::new("deviceId", DataType::Utf8, true),
            texts(&mut |n| format!("contoso://device-id-{}", n * 7919 % 1000)),
        ),
        (
            Field::new("type", DataType::Utf8, true),
            texts(&mut |n| if n % 2 == 0 { "CO2".into() } else { "TEMP".into() }),
        ),
        (
            Field::new("deviceSequenceNumber", DataType::Int64, true),
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|n| n as i64 / 1000))),
        ),
        (Field::new("createdAt", utc, true), Arc::new(times)),
    ];
    let mut doubles = || -> ArrayRef { Arc::new(Float64Array::from_iter_values((0..BATCH).map(|_| number(random)))) };
    columns.push((Field::new("value", DataType::Float64, true), doubles()));
    if text {
        let json = |_| {
            let more: Vec<String> = (1..=23).map(|n| format!("\"moreData{n}\": {:.10}", number(random))).collect();
            format!("{{ {} }}", more.join(", "))
        };
        columns.push((Field::new("complexData", DataType::Utf8, true), texts(&mut { json })));
    } else {
        columns.extend((1..=23).map(|n| (Field::new(format!("moreData{n}"), DataType::Float64, true), doubles())));
    }
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch")
}
