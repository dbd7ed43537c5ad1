//! How the cost grows with the work: partitions, live ids, columns, the table's age.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::cast;
use engine::plan::SinkNode;
use engine::sink::{Committable, Names, SinkContext};
use object_store::memory::InMemory;
use simulator::Settings;

use super::buffer::Buffer;
use super::cost::Cost;
use super::ids;
use super::jobs::{self, Reads};
use super::place::Place;
use super::row::Row;

const PARTITIONS: [usize; 3] = [1, 10, 100];
const LIVE_IDS: [usize; 4] = [100_000, 1_000_000, 10_000_000, 50_000_000];
const COLUMNS: [usize; 4] = [6, 30, 100, 300];
/// Numbers that each width is measured with.
const VALUES: usize = 12_000_000;
const COMMITS: [usize; 3] = [0, 1_000, 10_000];
/// Every job here is read so often that it lasts for seconds.
const ROUNDS: usize = 8;

/// The six columns from more and more partitions.
pub async fn partitions(place: Place<'_>, events: usize) -> Result<Vec<Row>, String> {
    let job = Reads::SixColumns.job(true)?;
    let mut seen = vec![];
    for partitions in PARTITIONS {
        let buffer = Arc::new(Buffer::fill(Settings::default(), events, partitions, true));
        let place = Place { buffer: &buffer, rounds: ROUNDS, ..place };
        let cost = place.fill_table(&job, place.distinct()).await?;
        seen.push(Seen { what: format!("{partitions} partitions"), cost, events: place.messages(), values: 1 });
    }
    Ok(compared("growth: partitions, cost of an event", seen))
}

/// Deduplication alone with more and more live ids. `of`: 1 of so many of each.
pub fn live_ids(of: usize, folder: &Path) -> Result<Vec<Row>, String> {
    let mut seen = vec![];
    for live in LIVE_IDS.map(|ids| ids / of) {
        let judged = ids::judge(live.max(10_000), usize::MAX, folder)?;
        let cost = Cost { elapsed: judged.took, cpu: judged.took };
        let what = format!("{} ids live", judged.size.keys);
        seen.push(Seen { what, cost, events: judged.ids, values: 1 });
    }
    Ok(compared("growth: live ids, deduplication alone, cost of an event", seen))
}

/// An id and more and more numbers.
pub async fn columns(place: Place<'_>, of: usize) -> Result<Vec<Row>, String> {
    let mut seen = vec![];
    for columns in COLUMNS {
        let events = VALUES / of / columns;
        let buffer = Arc::new(Buffer::of_numbers(columns - 1, events, place.buffer.partitions()));
        let place = Place { buffer: &buffer, rounds: 1, ..place };
        let cost = place.fill_table(&jobs::of_numbers(columns - 1), place.distinct()).await?;
        seen.push(Seen { what: format!("{columns} columns"), cost, events, values: columns });
    }
    Ok(compared("growth: columns, cost of a value", seen))
}

/// The six columns into tables with more and more commits.
pub async fn table_age(place: Place<'_>, of: usize) -> Result<Vec<Row>, String> {
    let job = Reads::SixColumns.job(true)?;
    let place = Place { rounds: ROUNDS, ..place };
    let mut seen = vec![];
    for commits in COMMITS.map(|commits| commits / of) {
        let table = tempfile::tempdir_in(place.folder).map_err(|e| e.to_string())?;
        age(&place.plan(&job, table.path(), None)?.sinks[0], commits).await?;
        come_to_rest().await;
        // What is done once a day is behind it after this.
        place.run(place.plan(&job, table.path(), None)?, place.distinct()).await?;
        let cost = place.run(place.plan(&job, table.path(), None)?, place.distinct()).await?;
        let what = format!("a table of {commits} commits");
        seen.push(Seen { what, cost, events: place.messages(), values: 1 });
    }
    Ok(compared("growth: the table's age, cost of an event", seen))
}

/// Commits a row so often.
async fn age(node: &SinkNode, commits: usize) -> Result<(), String> {
    let said = |e: &dyn std::fmt::Display| format!("a table that grows old: {e}");
    let writer = "aging";
    let context = SinkContext {
        log_id: "aging".into(),
        sink: node.table.clone(),
        writer: writer.into(),
        schema: node.schema.clone(),
        store: Arc::new(InMemory::new()),
        staging: "staging".into(),
        names: Names::of(writer),
        ownership: engine::sink::Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    let zero = Int64Array::from(vec![0]);
    let columns = node.schema.fields().iter().map(|field| cast(&zero, field.data_type())).collect::<Result<_, _>>();
    let row = RecordBatch::try_new(node.schema.clone(), columns.map_err(|e| said(&e))?).map_err(|e| said(&e))?;
    node.sink.open(&context, false).await.map_err(|e| said(&e))?;
    let mut rows = node.sink.writer(&context).map_err(|e| said(&e))?;
    for entry in 1..=commits as u64 {
        rows.write(&row).map_err(|e| said(&e))?;
        let tokens = rows.prepare().await.map_err(|e| said(&e))?.into_iter().collect();
        let committable = Committable { entry, writer: writer.into(), tokens, excluded: vec![] };
        node.sink.commit(&context, &[committable]).await.map_err(|e| said(&e))?;
    }
    Ok(())
}

/// Waits for what the commits left to be done beside them: the last checkpoints of the log, which belong to no event here.
async fn come_to_rest() {
    const LOOK: Duration = Duration::from_millis(500);
    loop {
        let begun = Cost::begin();
        tokio::time::sleep(LOOK).await;
        if begun.end().cpu < LOOK / 20 {
            return;
        }
    }
}

struct Seen {
    what: String,
    cost: Cost,
    events: usize,
    /// In an event: the cost is that of one.
    values: usize,
}

/// Each beside the first.
fn compared(job: &str, seen: Vec<Seen>) -> Vec<Row> {
    let values = |seen: &Seen| (seen.events * seen.values) as f64;
    let row = |grown: &Seen| Row {
        job: job.to_string(),
        of_first: Some(grown.cost.of(seen[0].cost) * values(&seen[0]) / values(grown)),
        ..grown.cost.row(&grown.what, grown.events)
    };
    seen.iter().map(row).collect()
}
