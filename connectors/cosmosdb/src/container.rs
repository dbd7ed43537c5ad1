//! The container of a table: found and checked at start, or made if it is written and that is asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use azure_data_cosmos::feed::FeedRange;
use azure_data_cosmos::models::{
    ContainerProperties, IndexingPolicy, PartitionKeyDefinition, PartitionKeyKind, ThroughputProperties, TimeToLive,
    UniqueKey, UniqueKeyPolicy,
};
use azure_data_cosmos::options::{
    BinaryEncodingOptions, ConnectionPoolOptions, ContentResponseOnWrite, CreateContainerOptions,
    EndToEndOperationLatencyPolicy, OperationOptions, PriorityLevel, Region, ThrottlingRetryOptions,
    ThroughputControlOptions,
};
use azure_data_cosmos::{ContainerClient, CosmosClient, CosmosError, CosmosRuntime, RoutingStrategy};
use engine::sink::SinkError;
use identity::TokenError;
use tokio::sync::OnceCell;

use crate::documents::Key;
use crate::options::{CosmosTable, Http, Place};
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
    if let Some(new) = table.create.as_ref().filter(|_| probe) {
        // Not everybody who may write may see it.
        let throughput = container.read_throughput(None).await.ok();
        for differs in otherwise(new, &properties, throughput.as_ref().map(Option::as_ref)) {
            tracing::warn!(
                place = table.at.place(),
                "{differs}: create.* is of a new container, and this one stays as it is"
            );
        }
    }
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
    let runtime = runtime(at.http).await.map_err(|error| wrong(at, &error))?;
    let client = CosmosClient::builder()
        .with_runtime(runtime)
        .with_default_operation_options(operation)
        // A document is a text already. The SDK's binary form of it would be shorter, and more work.
        .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(false))
        .build(account, RoutingStrategy::PreferredRegions(regions))
        .await;
    client.map_err(|error| wrong(at, &error))
}

/// What all clients share that speak the same: what is known of accounts. Connections are each client's own.
async fn runtime(http: Http) -> Result<CosmosRuntime, CosmosError> {
    static OF_ONE: OnceCell<CosmosRuntime> = OnceCell::const_new();
    static OF_TWO: OnceCell<CosmosRuntime> = OnceCell::const_new();
    let cell = match http {
        Http::One => &OF_ONE,
        Http::Two => &OF_TWO,
    };
    let made = cell.get_or_try_init(|| async {
        let pool = ConnectionPoolOptions::builder().with_is_http2_allowed(http == Http::Two).build()?;
        CosmosRuntime::builder().with_connection_pool(pool).build().await
    });
    made.await.cloned()
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
        Trouble::NotLetIn(said) => SinkError::failed(at.place(), format!("{said}. {}", at.account.remedy())),
        Trouble::Stopped(said) | Trouble::Refused(said) => SinkError::failed(at.place(), said),
        Trouble::Transient(said) => SinkError::retry(at.place(), said),
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
    let further = table.create.as_ref().map(arguments).unwrap_or_default();
    format!(
        "there is no container '{container}' in a database '{database}': {create}make it with\n  az cosmosdb sql database \
         create --account-name {account} --resource-group <group> --name {database}\n  az cosmosdb sql container create \
         --account-name {account} --resource-group <group> --database-name {database} --name {container} \
         --partition-key-path {path}{further}"
    )
}

/// What `create.*` asks for, as `az` takes it.
fn arguments(new: &NewContainer) -> String {
    let json = |policy: Option<String>| policy.map(|policy| format!("'{}'", policy.replace('\'', r"'\''")));
    let unique_keys = unique_keys(new).and_then(|policy| serde_json::to_string(&policy).ok());
    let indexing = new.indexing.as_ref().and_then(|policy| serde_json::to_string(policy).ok());
    let all = [
        ("throughput", new.throughput.filter(|_| new.autoscale.is_none()).map(|units| units.to_string())),
        ("max-throughput", new.autoscale.map(|units| units.to_string())),
        ("ttl", new.ttl.map(|seconds| seconds.to_string())),
        ("unique-key-policy", json(unique_keys)),
        ("idx", json(indexing)),
    ];
    all.into_iter().filter_map(|(name, value)| Some(format!(" --{name} {}", value?))).collect()
}

fn unique_keys(new: &NewContainer) -> Option<UniqueKeyPolicy> {
    let key = |paths: &Vec<String>| paths.iter().fold(UniqueKey::default(), |key, path| key.with_path(path.clone()));
    let policy =
        new.unique_keys.iter().fold(UniqueKeyPolicy::default(), |policy, paths| policy.with_unique_key(key(paths)));
    (!policy.unique_keys.is_empty()).then_some(policy)
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
    if let Some(policy) = unique_keys(new) {
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
    let of = |policy: &UniqueKeyPolicy| -> BTreeSet<BTreeSet<String>> {
        policy.unique_keys.iter().map(|key| key.paths.iter().map(|path| steps(path).join("/")).collect()).collect()
    };
    let there = properties.unique_key_policy.clone().unwrap_or_default();
    if let Some(asked) = table.create.as_ref().and_then(unique_keys).filter(|asked| of(asked) != of(&there)) {
        let (asked, there) = (shown_keys(&asked), shown_keys(&there));
        wrong.push(format!(
            "create.unique_keys is '{asked}', the container's are '{there}', and nobody can change them: take another \
             container, or say what this one has"
        ));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// As `create.unique_keys` takes them.
fn shown_keys(policy: &UniqueKeyPolicy) -> String {
    policy.unique_keys.iter().map(|key| key.paths.join(",")).collect::<Vec<_>>().join(";")
}

/// What of a container is not as `create.*` has it, and can be changed. `throughput`: `None` if nobody says.
fn otherwise(
    new: &NewContainer,
    properties: &ContainerProperties,
    throughput: Option<Option<&ThroughputProperties>>,
) -> Vec<String> {
    let mut differs = vec![];
    if let Some(seconds) = new.ttl.filter(|seconds| properties.default_ttl != TimeToLive::Seconds(*seconds)) {
        let there = match properties.default_ttl {
            TimeToLive::Seconds(seconds) => format!("{seconds} s"),
            _ => "none".into(),
        };
        differs.push(format!("create.ttl is {seconds} s, and the container's is {there}"));
    }
    let asked = (new.throughput.filter(|_| new.autoscale.is_none()), new.autoscale);
    let shown = |units: (Option<u64>, Option<u64>)| match units {
        (_, Some(most)) => format!("up to {most} request units a second"),
        (Some(fixed), None) => format!("{fixed} request units a second"),
        (None, None) => "no request units of its own".into(),
    };
    if let Some(there) = throughput.filter(|_| asked != (None, None)) {
        let there = there.map_or((None, None), |units| {
            let most = units.autoscale_maximum();
            (units.throughput().filter(|_| most.is_none()), most)
        });
        if there != asked {
            differs.push(format!("create.* asks for {}, and the container has {}", shown(asked), shown(there)));
        }
    }
    differs
}

/// `/a/b` or `/"a"/b`, as properties within one another.
fn steps(path: &str) -> Vec<String> {
    path.trim_start_matches('/').split('/').map(|step| step.trim_matches('"').to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::new_container;

    type Options = [(&'static str, &'static str)];

    fn container(paths: &[&str], unique_keys: &[&[&str]]) -> ContainerProperties {
        let paths = paths.iter().map(|path| path.to_string().into()).collect::<Vec<_>>();
        let properties = ContainerProperties::new("c", PartitionKeyDefinition::new(paths));
        let owned = |key: &&[&str]| key.iter().map(|path| path.to_string()).collect();
        let new = NewContainer { unique_keys: unique_keys.iter().map(owned).collect(), ..NewContainer::default() };
        match super::unique_keys(&new) {
            Some(policy) => properties.with_unique_key_policy(policy),
            None => properties,
        }
    }

    #[test]
    fn what_of_a_container_does_not_fit_the_table_is_said_at_once() {
        let keys = ("create.unique_keys", "/a,/b;/n");
        let fits: [(&Options, ContainerProperties); 3] = [
            (&[], container(&["/a"], &[])),
            (&[], container(&["/a"], &[&["/n"]])),
            (&[keys], container(&["/a"], &[&["/n"], &["/b", "/a"]])),
        ];
        for (options, properties) in fits {
            check(&new_container(&["a", "b", "n"], options), &properties).unwrap();
        }
        let unfit: [(&Options, ContainerProperties, &[&str]); 4] = [
            (&[], container(&["/b"], &[]), &["the table is PARTITIONED BY /a, the container by /b"]),
            (&[], container(&["/a", "/z"], &[]), &["PARTITIONED BY /a, the", "the table has no column z"]),
            (&[], container(&["/a"], &[&["/z"]]), &["a unique key on /z, and the table has no such column"]),
            (&[keys], container(&["/a"], &[&["/a", "/b"]]), &["is '/a,/b;/n', the container's are '/a,/b'"]),
        ];
        for (options, properties, reasons) in unfit {
            let said = check(&new_container(&["a", "b", "n"], options), &properties).unwrap_err();
            assert!(reasons.iter().all(|reason| said.contains(reason)), "{said}");
        }
    }

    #[test]
    fn what_can_be_changed_of_a_container_is_said_where_it_is_not_as_it_would_be_made() {
        let new = |options: &Options| new_container(&["a"], options).create.unwrap();
        let (hour, units, most) =
            (("create.ttl", "1 hour"), ("create.throughput", "400"), ("create.autoscale", "4000"));
        let there = container(&["/a"], &[]).with_default_ttl(TimeToLive::Seconds(3600));
        let (fixed, scaled) = (ThroughputProperties::manual(400), ThroughputProperties::autoscale(4000, None));
        for (options, throughput) in [
            (&[hour, units][..], Some(Some(&fixed))),
            (&[hour, most], Some(Some(&scaled))),
            (&[hour, most], None),
            (&[], Some(None)),
        ] {
            assert_eq!(otherwise(&new(options), &there, throughput), [""; 0]);
        }
        let without = container(&["/a"], &[]);
        let said = otherwise(&new(&[hour, most]), &without, Some(Some(&fixed)));
        let expected = [
            "create.ttl is 3600 s, and the container's is none",
            "create.* asks for up to 4000 request units a second, and the container has 400 request units a second",
        ];
        assert_eq!(said, expected);
        assert!(otherwise(&new(&[units]), &there, Some(None))[0].ends_with("has no request units of its own"));
    }

    #[test]
    fn the_lines_that_make_a_container_say_all_that_is_asked_for() {
        let options = [
            ("create.autoscale", "4000"),
            ("create.ttl", "1 hour"),
            ("create.unique_keys", "/a,/b;/n"),
            ("create.indexing", r#"{"indexingMode": "consistent", "excludedPaths": [{"path": "/o'n/*"}]}"#),
        ];
        let said = missing(&new_container(&["a"], &options));
        let keys = r#"--unique-key-policy '{"uniqueKeys":[{"paths":["/a","/b"]},{"paths":["/n"]}]}'"#;
        for part in ["--partition-key-path /a --max-throughput 4000 --ttl 3600", keys, r#"/o'\''n/*"#, " --idx '{"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let fixed = missing(&new_container(&["a"], &[("create.throughput", "400")]));
        assert!(fixed.ends_with("--partition-key-path /a --throughput 400"), "{fixed}");
    }
}
