//! The container of a table: found and checked at start, or made if it is written and that is asked for.

use std::time::Duration;

use azure_data_cosmos::feed::FeedRange;
use azure_data_cosmos::models::{
    ContainerProperties, IndexingPolicy, PartitionKeyDefinition, PartitionKeyKind, ThroughputProperties, TimeToLive,
    UniqueKey, UniqueKeyPolicy,
};
use azure_data_cosmos::options::{
    ContentResponseOnWrite, CreateContainerOptions, EndToEndOperationLatencyPolicy, OperationOptions, PriorityLevel,
    Region, ThrottlingRetryOptions, ThroughputControlOptions,
};
use azure_data_cosmos::{ContainerClient, CosmosClient, CosmosError, RoutingStrategy};
use engine::sink::SinkError;
use identity::TokenError;

use crate::documents::Key;
use crate::options::{CosmosTable, Place};
use crate::trouble::{BEHIND, Trouble};

/// How long one request may take, tries of the SDK included.
const REQUEST: Duration = Duration::from_secs(20);
/// How long one look at the account and the container may take.
const LOOK: Duration = Duration::from_secs(30);

/// An open container.
#[derive(Clone)]
pub struct Container {
    pub client: ContainerClient,
    /// Where the partition key lies in a document.
    pub paths: Vec<Vec<String>>,
    /// Whether documents may exclude one another by more than their ids.
    pub unique_keys: bool,
}

impl Container {
    fn of(client: ContainerClient, properties: &ContainerProperties) -> Self {
        Container {
            client,
            paths: properties.partition_key.paths().iter().map(|path| steps(path)).collect(),
            unique_keys: properties.unique_key_policy.as_ref().is_some_and(|policy| !policy.unique_keys.is_empty()),
        }
    }

    /// The physical partition that has a key, as far as it is known.
    pub async fn range(&self, key: &Key) -> Option<FeedRange> {
        self.client.feed_range_from_partition_key(key.value.clone(), None).await.ok()?.into_iter().next()
    }
}

/// What a container is made with.
#[derive(Debug, Clone, Default)]
pub struct NewContainer {
    /// Request units a second, fixed or at most; without either, those of the database, or the service's own.
    pub throughput: Option<u64>,
    pub autoscale: Option<u64>,
    /// Seconds after which a document vanishes.
    pub ttl: Option<u32>,
    pub unique_keys: Vec<Vec<String>>,
    pub indexing: Option<IndexingPolicy>,
}

/// Finds the container and checks it against the table. With `probe`, nothing is made, and there is none yet if one would be.
pub async fn open(table: &CosmosTable, probe: bool) -> Result<Option<Container>, SinkError> {
    let looked = tokio::time::timeout(LOOK, look(table, probe)).await;
    looked.unwrap_or_else(|_| Err(SinkError::retry(table.at.place(), format!("no answer within {LOOK:?}"))))
}

/// Finds the container of a table that is only read. Asks once.
pub async fn find(at: &Place) -> Result<Container, SinkError> {
    // Nobody else looks at throttled requests: the SDK waits as long as it is told to, for each by itself.
    let client = client(at, ThrottlingRetryOptions::default()).await?;
    let found = client.database_client(at.database.clone()).container_client(at.container.clone(), None).await;
    let container = found.map_err(|error| wrong(at, &error))?;
    let properties = properties(at, &container).await?;
    Ok(Container::of(container, &properties))
}

async fn properties(at: &Place, container: &ContainerClient) -> Result<ContainerProperties, SinkError> {
    let properties = container.read(None).await.and_then(|response| response.into_model());
    properties.map_err(|error| wrong(at, &error))
}

async fn look(table: &CosmosTable, probe: bool) -> Result<Option<Container>, SinkError> {
    // Each throttled request is seen by the limiter.
    let mut throttling = ThrottlingRetryOptions::default();
    throttling.max_retry_count = Some(0);
    let client = client(&table.at, throttling).await?;
    let database = client.database_client(table.at.database.clone());
    let found = match database.container_client(table.at.container.clone(), None).await {
        Err(error) if is_missing(&error) && table.create.is_some() && table.at.account.may_create() => {
            if probe {
                return Ok(None);
            }
            make(table, &client).await?;
            // It takes a while until all know of it.
            let made = database.container_client(table.at.container.clone(), None).await;
            Ok(made.map_err(|error| SinkError::retry(table.at.place(), error))?)
        }
        found => found,
    };
    let container = found.map_err(|error| match is_missing(&error) {
        true => SinkError::failed(table.at.place(), missing(table)),
        false => wrong(&table.at, &error),
    })?;
    let properties = properties(&table.at, &container).await?;
    check(table, &properties).map_err(|what| SinkError::failed(table.at.place(), what))?;
    Ok(Some(Container::of(container, &properties)))
}

async fn client(at: &Place, throttling: ThrottlingRetryOptions) -> Result<CosmosClient, SinkError> {
    let account = at.account.reference().await.map_err(|error| match error {
        TokenError::Unanswered(what) => SinkError::retry(at.place(), what),
        TokenError::Refused(what) => SinkError::failed(at.place(), what),
    })?;
    let mut operation = OperationOptions::default();
    // Nobody looks at a document that was just written.
    operation.content_response_on_write = Some(ContentResponseOnWrite::Disabled);
    operation.end_to_end_latency_policy = Some(EndToEndOperationLatencyPolicy::new(REQUEST));
    operation.throttling_retry_options = Some(throttling);
    if at.low_priority {
        let mut control = ThroughputControlOptions::default();
        control.priority_level = Some(PriorityLevel::Low);
        operation.throughput_control = Some(control);
    }
    let regions = at.regions.iter().map(|region| Region::from(region.clone())).collect();
    let client = CosmosClient::builder()
        .with_default_operation_options(operation)
        .build(account, RoutingStrategy::PreferredRegions(regions))
        .await;
    client.map_err(|error| wrong(at, &error))
}

/// Whether there is no such container, or no database that could have it.
fn is_missing(error: &CosmosError) -> bool {
    let status = error.status();
    u16::from(status.status_code()) == 404 && status.sub_status().is_none_or(|sub| sub.value() != BEHIND)
}

/// Why it cannot be opened, and what to do.
fn wrong(at: &Place, error: &CosmosError) -> SinkError {
    if is_missing(error) {
        let Place { container, database, .. } = at;
        return SinkError::failed(
            at.place(),
            format!("there is no container '{container}' in a database '{database}'"),
        );
    }
    match Trouble::of(error) {
        Trouble::Stopped(said) => SinkError::failed(at.place(), format!("{said}. {}", at.account.remedy())),
        Trouble::Refused(said) => SinkError::failed(at.place(), said),
        _ => SinkError::retry(at.place(), error),
    }
}

/// There is no such container: how to get one.
fn missing(table: &CosmosTable) -> String {
    let Place { database, container, .. } = &table.at;
    let keys: Vec<String> = table.partition_by.iter().map(|column| format!("/{column}")).collect();
    let path = if keys.is_empty() { "/<partition key>".into() } else { keys.join(" ") };
    let account = table
        .at
        .account
        .endpoint
        .split("://")
        .last()
        .unwrap_or_default()
        .split(['.', ':', '/'])
        .next()
        .unwrap_or_default();
    let create = match (&table.create, table.at.account.may_create()) {
        (Some(_), false) => "the service lets no Entra ID identity make one through this interface; ",
        (None, true) => "set create = 'true', or ",
        _ => "",
    };
    format!(
        "there is no container '{container}' in a database '{database}': {create}make it with\n  az cosmosdb sql database \
         create --account-name {account} --resource-group <group> --name {database}\n  az cosmosdb sql container create \
         --account-name {account} --resource-group <group> --database-name {database} --name {container} \
         --partition-key-path {path}"
    )
}

async fn make(table: &CosmosTable, client: &CosmosClient) -> Result<(), SinkError> {
    let Some(new) = &table.create else { return Ok(()) };
    // Another process may have made it a moment ago.
    let there = |error: &CosmosError| error.status().is_conflict();
    match client.create_database(&table.at.database, None).await {
        Err(error) if !there(&error) => return Err(wrong(&table.at, &error)),
        _ => {}
    }
    let paths: Vec<_> = table.partition_by.iter().map(|column| format!("/{column}").into()).collect();
    let mut key = PartitionKeyDefinition::new(paths);
    if table.partition_by.len() > 1 {
        key = key.with_kind(PartitionKeyKind::MultiHash);
    }
    let mut properties = ContainerProperties::new(table.at.container.clone(), key);
    if !new.unique_keys.is_empty() {
        let unique =
            |paths: &Vec<String>| paths.iter().fold(UniqueKey::default(), |key, path| key.with_path(path.clone()));
        let policy =
            new.unique_keys.iter().fold(UniqueKeyPolicy::default(), |policy, key| policy.with_unique_key(unique(key)));
        properties = properties.with_unique_key_policy(policy);
    }
    if let Some(seconds) = new.ttl {
        properties = properties.with_default_ttl(TimeToLive::Seconds(seconds));
    }
    if let Some(indexing) = &new.indexing {
        properties = properties.with_indexing_policy(indexing.clone());
    }
    let throughput = match (new.throughput, new.autoscale) {
        (_, Some(most)) => Some(ThroughputProperties::autoscale(most, None)),
        (fixed, None) => fixed.map(ThroughputProperties::manual),
    };
    let options = throughput.map(|units| CreateContainerOptions::default().with_throughput(units));
    match client.database_client(table.at.database.clone()).create_container(properties, options).await {
        Err(error) if !there(&error) => Err(wrong(&table.at, &error)),
        _ => {
            tracing::info!(database = table.at.database, container = table.at.container, "the container was made");
            Ok(())
        }
    }
}

/// All that is wrong between the container and the table.
fn check(table: &CosmosTable, properties: &ContainerProperties) -> Result<(), String> {
    let paths: Vec<&str> = properties.partition_key.paths().iter().map(|path| path.as_ref()).collect();
    let mut wrong = vec![];
    let declared: Vec<String> = table.partition_by.iter().map(|column| format!("/{column}")).collect();
    if !declared.is_empty() && declared != paths {
        wrong.push(format!(
            "the table is PARTITIONED BY {}, the container by {}",
            declared.join(", "),
            paths.join(", ")
        ));
    }
    for path in &paths {
        let column = &steps(path)[0];
        if !table.columns.contains(column) && column != "id" {
            wrong.push(format!("the container's partition key is {path}, and the table has no column {column}"));
        }
    }
    for key in properties.unique_key_policy.iter().flat_map(|policy| &policy.unique_keys) {
        for path in key.paths.iter().filter(|path| !table.columns.contains(&steps(path)[0])) {
            wrong.push(format!(
                "the container has a unique key on {path}, and the table has no such column: all rows \
                                of a partition but one would be refused"
            ));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// `/a/b` or `/"a"/b`, as properties within one another.
fn steps(path: &str) -> Vec<String> {
    path.trim_start_matches('/').split('/').map(|step| step.trim_matches('"').to_string()).collect()
}
