//! A sink from rows to the moment at which readers see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use engine::connector::{Connector, TableSpec};
use engine::sink::{Committable, Committed, Names, Ownership, SinkContext};
use object_store::memory::InMemory;

pub fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The processor time of this process that it takes.
pub async fn shown(connector: &dyn Connector, table: &TableSpec, rows: &RecordBatch) -> Duration {
    let sink = connector.sink(table).unwrap_or_else(|_| panic!("a sink"));
    // Another job each time: what one has shown, it shows no more.
    static JOBS: AtomicU64 = AtomicU64::new(0);
    let context = SinkContext {
        log_id: format!("log-{}", JOBS.fetch_add(1, Ordering::Relaxed)),
        sink: "serving".into(),
        writer: "w".into(),
        schema: rows.schema(),
        store: Arc::new(InMemory::new()),
        staging: "staged".into(),
        names: Names::of("w"),
        ownership: Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    sink.open(&context, false).await.expect("the place is there");
    let begun = cpu_time();
    let mut writer = sink.writer(&context).expect("a writer");
    writer.write(rows).expect("rows are taken");
    let tokens = writer.prepare().await.expect("rows are staged").into_iter().collect();
    let entry = Committable { entry: 1, writer: "w".into(), tokens, excluded: vec![] };
    assert_eq!(sink.commit(&context, &[entry]).await.expect("rows are written"), Committed::Done);
    assert_eq!(context.metrics.requests.rows.get(), rows.num_rows() as u64, "nothing was written twice");
    cpu_time() - begun
}
