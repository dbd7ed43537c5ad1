//! Against the SDK's emulator in this process: what no other process has to die for.

use std::sync::Arc;

use azure_data_cosmos::feed::FeedScope;
use azure_data_cosmos::models::PartitionKeyDefinition;
use azure_data_cosmos::{AccountReference, CosmosClient, CosmosRuntimeBuilder, PartitionKey, RoutingStrategy};
use azure_data_cosmos_driver::in_memory_emulator::{InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion};
use engine::metrics::SinkMetrics;
use engine::sink::{Ownership, SinkError};
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::body::Body;
use crate::container::Container;
use crate::documents::{Document, Key, Layout};
use crate::options::{Pace, Write};
use crate::request::Target;
use crate::write::{State, Writing};

const PACE: Pace = Pace { units_per_second: None, requests_at_once: 4, batch: 100 };

async fn container() -> Container {
    let address = "https://eastus.emulator.local";
    let region = VirtualRegion::new("East US", address.parse().unwrap());
    let config = VirtualAccountConfig::new(vec![region]).unwrap();
    let emulator = Arc::new(InMemoryEmulatorHttpClient::new(config));
    emulator.store().create_database("d");
    emulator.store().create_container("d", "c", PartitionKeyDefinition::new(vec!["/part".into()]));
    let runtime = CosmosRuntimeBuilder::from(emulator.runtime_builder()).build().await.unwrap();
    let account = AccountReference::with_authentication_key(address.parse().unwrap(), "YQ==");
    let client = CosmosClient::builder().with_runtime(runtime);
    let client = client.build(account, RoutingStrategy::PreferredRegions(vec![])).await.unwrap();
    let client = client.database_client("d".to_string()).container_client("c".to_string(), None).await.unwrap();
    Container { client, paths: vec![vec!["part".into()]], unique_keys: false }
}

fn documents(rows: std::ops::Range<u64>) -> Vec<Document> {
    let document = |row: u64| {
        let id = row.to_string();
        let body = Body::of(&json!({"id": id, "part": "p"}).to_string()).unwrap();
        let key = Key { value: PartitionKey::from("p"), text: "p".into() };
        Document { place: (1, 0, row), id, key, body, bytes: 30, version: None }
    };
    rows.map(document).collect()
}

async fn write(
    container: &Container,
    state: &mut State,
    ownership: &Ownership,
    rows: std::ops::Range<u64>,
) -> (Result<usize, SinkError>, u64) {
    let (layout, metrics) = (Layout { id: vec!["id".into()], ..Layout::default() }, SinkMetrics::default());
    let mut writing = Writing {
        target: Target { container, write: Write::Upsert, layout: &layout },
        pace: PACE,
        state,
        ownership,
        metrics: &metrics,
        recovering: false,
        place: "here",
        remedy: "",
    };
    let written = writing.write(documents(rows)).await.map(|written| written.rejected.len());
    (written, metrics.requests.rows.get())
}

async fn there(container: &Container) -> usize {
    let all = container.client.query_items::<Value>("SELECT * FROM c", FeedScope::full_container(), None).await;
    all.unwrap().try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test]
async fn protocol_7_a_process_that_lost_the_job_sends_nothing() {
    let (container, mut state) = (container().await, State::new(PACE));
    let lost = Ownership::asking(|| Box::pin(async { false }));
    let (written, sent) = write(&container, &mut state, &lost, 0..10).await;
    assert!(matches!(written, Err(SinkError::Retry { .. })));
    assert_eq!((sent, there(&container).await), (0, 0));
    let (written, sent) = write(&container, &mut state, &Ownership::undisputed(), 0..10).await;
    assert_eq!((written.unwrap(), sent, there(&container).await), (0, 10, 10));
}

#[tokio::test]
async fn a_commit_that_was_given_up_goes_on_where_it_was() {
    let (container, mut state) = (container().await, State::new(PACE));
    state.remember(documents(0..6).iter());
    let (written, sent) = write(&container, &mut state, &Ownership::undisputed(), 0..10).await;
    assert_eq!((written.unwrap(), sent, there(&container).await), (0, 4, 4), "six were answered in the try before");
    let (_, sent) = write(&container, &mut state, &Ownership::undisputed(), 0..10).await;
    assert_eq!(sent, 10, "what a commit has done is forgotten with it");
}
