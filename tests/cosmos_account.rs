//! A Cosmos DB account on this machine: the SDK's own emulator behind HTTP, with the accidents of a network in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use azure_core::http::{Method, Url};
use azure_data_cosmos::feed::FeedScope;
use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition, UniqueKey, UniqueKeyPolicy};
use azure_data_cosmos::{
    AccountReference, ContainerClient, CosmosClient, CosmosClientBuilder, CosmosRuntime, CosmosRuntimeBuilder,
    RoutingStrategy,
};
use azure_data_cosmos_driver::in_memory_emulator::{
    ContainerConfig, InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion,
};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

/// The key is not looked at; that it is sent at all is the SDK's own affair.
const KEY: &str = "YSBrZXkgb2Ygbm8gYWNjb3VudA==";
pub const DATABASE: &str = "streaming";

/// What happens to a request of a document, by how many there were before it.
pub type Accidents = Box<dyn Fn(u64) -> Accident + Send>;

type Overtaking = Box<dyn Fn() -> BoxFuture<'static, ()> + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accident {
    None,
    /// It is done, and nobody hears of it.
    AnswerIsLost,
    /// It is done after a while: others overtake it.
    Slow,
    /// It is done, and nobody is told anything.
    NoAnswer,
    /// It is not done, and this is the answer.
    Refused(u16),
}

/// A running account.
pub struct Account {
    url: String,
    emulator: Arc<InMemoryEmulatorHttpClient>,
    network: Arc<Network>,
    /// For those who ask it by no network.
    inside: OnceCell<CosmosRuntime>,
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// What it was asked in, such as `HTTP/1.1`.
    pub protocol: String,
    pub headers: HashMap<String, String>,
    /// `Null` if it is no JSON.
    pub body: Value,
}

struct Network {
    emulator: Arc<InMemoryEmulatorHttpClient>,
    url: String,
    writes: AtomicU64,
    accidents: Mutex<Accidents>,
    reads: AtomicU64,
    accidents_of_reads: Mutex<Accidents>,
    /// The partition key whose writes are throttled.
    hot: Mutex<Option<f64>>,
    /// Writes that are under way, and how many there were at once.
    writing: AtomicU64,
    most_writing: AtomicU64,
    /// The last write, and the last container that was made.
    written: Mutex<Asked>,
    made: Mutex<Asked>,
    /// What somebody else does before the next write gets through.
    overtaking: Mutex<Option<Overtaking>>,
    /// What must stand in what a client says it is; of a key the emulator looks at nothing.
    guard: Mutex<&'static str>,
}

impl Account {
    /// `throttling`: whether a container's request units are a bound.
    pub async fn start(throttling: bool) -> Account {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        Account::start_at(listener, url, throttling)
    }

    /// `url`: what it says that its address is.
    pub fn start_at(listener: TcpListener, url: String, throttling: bool) -> Account {
        let region = VirtualRegion::new("East US", Url::parse(&url).expect("an address"));
        let config = VirtualAccountConfig::new(vec![region]).expect("one region is an account");
        let emulator = Arc::new(InMemoryEmulatorHttpClient::new(config.with_throttling_enabled(throttling)));
        emulator.store().create_database(DATABASE);
        let network = Arc::new(Network {
            emulator: emulator.clone(),
            url: url.clone(),
            writes: AtomicU64::new(0),
            accidents: Mutex::new(Box::new(|_| Accident::None)),
            reads: AtomicU64::new(0),
            accidents_of_reads: Mutex::new(Box::new(|_| Accident::None)),
            hot: Mutex::default(),
            writing: AtomicU64::new(0),
            most_writing: AtomicU64::new(0),
            written: Mutex::default(),
            made: Mutex::default(),
            overtaking: Mutex::default(),
            guard: Mutex::default(),
        });
        let service = Router::new().fallback(answer).with_state(network.clone());
        tokio::spawn(async move { axum::serve(listener, service).await });
        Account { url, emulator, network, inside: OnceCell::new() }
    }

    pub fn connection_string(&self) -> String {
        format!("AccountEndpoint={};AccountKey={KEY};", self.url)
    }

    /// What a table says of it.
    pub fn connection(&self, container: &str) -> String {
        let own = self.connection_string();
        format!(
            "connector = 'cosmosdb', connection_string = '{own}', database = '{DATABASE}', container = '{container}'"
        )
    }

    /// What happens to the writes from now on.
    pub fn accidents(&self, accidents: impl Fn(u64) -> Accident + Send + 'static) {
        self.network.writes.store(0, Ordering::Relaxed);
        *self.network.accidents.lock() = Box::new(accidents);
    }

    /// What happens from now on to requests that read a document by its id.
    pub fn accidents_of_reads(&self, accidents: impl Fn(u64) -> Accident + Send + 'static) {
        self.network.reads.store(0, Ordering::Relaxed);
        *self.network.accidents_of_reads.lock() = Box::new(accidents);
    }

    /// Throttles all that is written under a partition key from now on.
    pub fn throttle(&self, partition_key: Option<f64>) {
        *self.network.hot.lock() = partition_key;
    }

    /// Lets in only those with a token of Entra ID, as an account whose keys are disabled does.
    pub fn disable_keys(&self, disabled: bool) {
        *self.network.guard.lock() = if disabled { "type%3Daad" } else { "" };
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Halves one of the physical partitions of a container. While it lasts, nothing can be written to it.
    pub fn split(&self, container: &str, partition: u32, lasts: Duration) {
        self.emulator.store().split_partition(DATABASE, container, partition, lasts);
    }

    /// Lets somebody else write before the next write gets through.
    pub fn overtake_next_write(&self, overtaking: impl Fn() -> BoxFuture<'static, ()> + Send + 'static) {
        *self.network.overtaking.lock() = Some(Box::new(overtaking));
    }

    /// Requests that wrote since [`Account::accidents`] was last said.
    pub fn writes(&self) -> u64 {
        self.network.writes.load(Ordering::Relaxed)
    }

    /// Requests that read a document since [`Account::accidents_of_reads`] was last said.
    pub fn reads(&self) -> u64 {
        self.network.reads.load(Ordering::Relaxed)
    }

    /// How many writes were under way at once, at most; counted anew from here on.
    pub fn most_writes_at_once(&self) -> u64 {
        self.network.most_writing.swap(0, Ordering::Relaxed)
    }

    /// The last request that wrote, and the last one that made a container.
    pub fn written(&self) -> Asked {
        self.network.written.lock().clone()
    }

    pub fn made(&self) -> Asked {
        self.network.made.lock().clone()
    }

    /// A container with so many physical partitions, and request units a second for all of them.
    pub fn container(&self, name: &str, key: &str, partitions: u32, units: u64) {
        let config = ContainerConfig::new().with_partition_count(partitions).with_throughput(units).build();
        let key = PartitionKeyDefinition::new(vec![key.to_string().into()]);
        self.emulator.store().create_container_with_config(DATABASE, name, key, config.expect("a sound container"));
    }

    pub async fn container_with_unique_key(&self, name: &str, key: &str, unique: &str) {
        let key = PartitionKeyDefinition::new(vec![key.to_string().into()]);
        let unique = UniqueKeyPolicy::default().with_unique_key(UniqueKey::default().with_path(unique.to_string()));
        let properties = ContainerProperties::new(name.to_string(), key).with_unique_key_policy(unique);
        let database = client(&self.connection_string()).await.database_client(DATABASE.to_string());
        database.create_container(properties, None).await.expect("a container can be made");
    }

    /// Asks the account itself, by no network.
    pub async fn client_of(&self, container: &str) -> ContainerClient {
        let inside = || CosmosRuntimeBuilder::from(self.emulator.runtime_builder()).build();
        let runtime = self.inside.get_or_try_init(inside).await.expect("a runtime").clone();
        let client = CosmosClient::builder().with_runtime(runtime);
        container_of(&client_by(client, &self.connection_string()).await, DATABASE, container).await
    }

    pub async fn has(&self, container: &str) -> bool {
        let database = client(&self.connection_string()).await.database_client(DATABASE.to_string());
        database.container_client(container.to_string(), None).await.is_ok()
    }

    /// All documents of a container.
    pub async fn documents(&self, container: &str) -> Vec<Value> {
        let client = self.client_of(container).await;
        let query = client.query_items::<Value>("SELECT * FROM c", FeedScope::full_container(), None).await;
        query.expect("a query").try_collect().await.expect("the documents can be read")
    }
}

async fn client(connection_string: &str) -> CosmosClient {
    client_by(CosmosClient::builder(), connection_string).await
}

pub async fn client_by(builder: CosmosClientBuilder, connection_string: &str) -> CosmosClient {
    let endpoint = connection_string.split(';').find_map(|part| part.strip_prefix("AccountEndpoint="));
    let endpoint = endpoint.expect("it has an address").parse().expect("an address");
    let account = AccountReference::with_authentication_key(endpoint, KEY);
    builder.build(account, RoutingStrategy::PreferredRegions(vec![])).await.expect("a client")
}

/// A container of an account that runs here.
pub async fn client_at(connection_string: &str, database: &str, container: &str) -> ContainerClient {
    container_of(&client(connection_string).await, database, container).await
}

pub async fn container_of(client: &CosmosClient, database: &str, container: &str) -> ContainerClient {
    let database = client.database_client(database.to_string());
    database.container_client(container.to_string(), None).await.expect("the container is there")
}

async fn answer(State(network): State<Arc<Network>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let says = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !says.contains(*network.guard.lock()) {
        let body = r#"{"code": "Unauthorized", "message": "Local authorization is disabled. Use an AAD token."}"#;
        return Response::builder().status(StatusCode::UNAUTHORIZED).body(Body::from(body)).expect("an answer");
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = Url::parse(&format!("{}{path}", network.url)).expect("the address of a request");
    let method = match parts.method.as_str() {
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        _ => Method::Get,
    };
    let is_query =
        parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/query"));
    let writes = method != Method::Get && path.contains("/docs") && !is_query;
    let overtaken = network.overtaking.lock().take_if(|_| writes).map(|overtake| overtake());
    if let Some(overtaken) = overtaken {
        overtaken.await;
    }
    let key = parts.headers.get("x-ms-documentdb-partitionkey").map(|key| key.as_bytes());
    let key = key.and_then(|key| serde_json::from_slice::<Value>(key).ok()?[0].as_f64());
    let is_hot = key.is_some() && *network.hot.lock() == key;
    let accident = match (writes, method == Method::Get && path.contains("/docs/")) {
        (true, _) if is_hot => Accident::Refused(429),
        (true, _) => (network.accidents.lock())(network.writes.fetch_add(1, Ordering::Relaxed)),
        (_, true) => (network.accidents_of_reads.lock())(network.reads.fetch_add(1, Ordering::Relaxed)),
        _ => Accident::None,
    };
    let _under_way = writes.then(|| UnderWay::of(&network));
    if let Accident::Refused(status) = accident {
        let answer = Response::builder().status(status).header("x-ms-retry-after-ms", "20");
        return answer.body(Body::empty()).expect("an answer");
    }
    if accident == Accident::Slow {
        tokio::time::sleep(A_MOMENT).await;
    }
    let mut asked = azure_core::http::Request::new(url, method);
    for (name, value) in &parts.headers {
        asked.insert_header(name.as_str().to_string(), value.to_str().unwrap_or_default().to_string());
    }
    // A client that dies takes half of its request with it.
    let Ok(body) = to_bytes(body, usize::MAX).await else { return Response::default() };
    let makes = method == Method::Post && path.ends_with("/colls");
    if writes || makes {
        let headers = asked.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_string(), value.as_str().to_string())).collect();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let protocol = format!("{:?}", parts.version);
        *if makes { network.made.lock() } else { network.written.lock() } = Asked { protocol, headers, body };
    }
    asked.set_body(body.to_vec());
    let answered = network.emulator.execute_request(&asked).await.expect("the emulator answers");
    if accident == Accident::NoAnswer {
        std::future::pending::<()>().await;
    }
    if accident == Accident::AnswerIsLost {
        // As a proxy in between says it.
        return Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Body::empty()).expect("an answer");
    }
    let (status, headers, body) = answered.deconstruct();
    let mut response = Response::builder().status(u16::from(status));
    let headers: HashMap<_, _> =
        headers.iter().map(|(n, v)| (n.as_str().to_string(), v.as_str().to_string())).collect();
    for (name, value) in headers.iter().filter(|(name, _)| *name != "transfer-encoding" && *name != "content-length") {
        response = response.header(name, value);
    }
    let body = body.collect().await.expect("the emulator's answer");
    response.body(Body::from(body)).expect("an answer")
}

/// A write that is under way.
struct UnderWay<'a>(&'a Network);

impl UnderWay<'_> {
    fn of(network: &Network) -> UnderWay<'_> {
        let now = network.writing.fetch_add(1, Ordering::Relaxed) + 1;
        network.most_writing.fetch_max(now, Ordering::Relaxed);
        UnderWay(network)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.writing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Until a deadline far beyond what any test waits for, refuses all that is written.
pub fn until(reopened: Arc<std::sync::atomic::AtomicBool>, status: u16) -> impl Fn(u64) -> Accident + Send {
    move |_| if reopened.load(Ordering::Relaxed) { Accident::None } else { Accident::Refused(status) }
}

pub const A_MOMENT: Duration = Duration::from_secs(2);
