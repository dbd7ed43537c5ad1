//! A container in which documents are looked up: by id and partition key one by one, or by any properties in a query.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use azure_data_cosmos::feed::{FeedRange, FeedScope};
use azure_data_cosmos::{CosmosError, Query};
use engine::lookup::{Fetched, Loaded, Lookup, LookupError, LookupRequest};
use engine::sink::SinkError;
use formats::{Decoder, Format, JsonOptions};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::container::{Container, find};
use crate::documents::{ID, Key, key};
use crate::options::LookedUp;
use crate::search::{self, Wanted, can_be_asked_for, can_be_key};
use crate::stored::Stored;
use crate::trouble::Trouble;

/// Requests of one lookup that are under way at once.
const POINTS_AT_ONCE: usize = 32;
const QUERIES_AT_ONCE: usize = 8;
/// Documents of a batch.
const AT_ONCE: usize = 64 * 1024;
/// The id and the partition key of a document that is asked for to see whether one may.
const NOBODY: &str = "millrace-nobody";
/// As much of a document as an error shows.
const SHOWN: usize = 200;

pub struct CosmosLookup {
    table: LookedUp,
    container: Mutex<Option<Container>>,
    /// Whether it was open once: what is wrong with it since may heal.
    opened: AtomicBool,
}

/// Documents on their way into rows.
struct Rows<'a> {
    decoder: Decoder,
    /// The column that is the id, if a document may not have it as a property of its own.
    id: Option<&'a str>,
    made: Vec<RecordBatch>,
}

impl CosmosLookup {
    pub fn new(table: LookedUp) -> Self {
        CosmosLookup { table, container: Mutex::default(), opened: AtomicBool::new(false) }
    }

    async fn container(&self) -> Result<Container, LookupError> {
        if let Some(container) = self.container.lock().clone() {
            return Ok(container);
        }
        let found = find(&self.table.at).await.map_err(|error| match error {
            SinkError::Failed { place, what } if !self.opened.load(Ordering::Relaxed) => {
                LookupError::Failed { place, what }
            }
            SinkError::Retry { place, what } | SinkError::Failed { place, what } => LookupError::Retry { place, what },
        })?;
        *self.container.lock() = Some(found.clone());
        Ok(found)
    }

    /// While a job runs, the container and whoever lets us in may come back.
    fn error(&self, trouble: Trouble) -> LookupError {
        let place = self.table.at.place();
        let what = match trouble {
            Trouble::Throttled(after) => {
                return LookupError::retry(place, format!("there are no request units left for {after:?} (429)"));
            }
            Trouble::Transient(what) => return LookupError::retry(place, what),
            // A document is wrong, and not the container.
            Trouble::Refused(what) => return self.lasting(place, what),
            Trouble::Conflict | Trouble::Changed | Trouble::Missing => "the container is not what it was".to_string(),
            Trouble::Stopped(what) => what,
            Trouble::NotLetIn(what) => format!("{what}. {}", self.table.at.account.remedy()),
        };
        // It may have been made again, under the same name.
        *self.container.lock() = None;
        self.lasting(place, what)
    }

    fn lasting(&self, place: String, what: String) -> LookupError {
        match self.opened.load(Ordering::Relaxed) {
            true => LookupError::retry(place, what),
            false => LookupError::failed(place, what),
        }
    }

    fn failed(&self, what: impl std::fmt::Display) -> LookupError {
        self.error(Trouble::Refused(what.to_string()))
    }

    /// What a column is called in documents.
    fn property<'a>(&'a self, column: &'a str) -> &'a str {
        if self.table.id.as_deref() == Some(column) { ID } else { column }
    }

    fn rows(&self, request: &LookupRequest) -> Result<Rows<'_>, LookupError> {
        let fields: Vec<_> = request.columns.iter().map(|column| column.field.clone()).collect();
        // Numbers that a document cannot hold are text.
        let options = JsonOptions { lenient: true, ..JsonOptions::default() };
        let decoder = Decoder::new(Arc::new(Schema::new(fields)), Format::Json, options, None);
        let decoder = decoder.map_err(|what| self.failed(what))?;
        Ok(Rows { decoder, id: self.table.id.as_deref().filter(|id| *id != ID), made: vec![] })
    }

    fn check(&self, request: &LookupRequest) -> Result<(), LookupError> {
        let keys = request.keys.iter().map(|at| &request.columns[*at].field);
        let wrong = keys.filter(|field| !can_be_key(field));
        let wrong: Vec<String> = wrong
            .map(|field| {
                format!(
                    "column {}: documents are found exactly by texts, integers, booleans and dates, so a {} can be no key",
                    field.name(),
                    field.data_type()
                )
            })
            .collect();
        let names = request.keys.iter().map(|at| request.columns[*at].field.name());
        let unnamed = names.filter(|name| !can_be_asked_for(self.property(name)));
        let unnamed = unnamed
            .map(|name| format!("column {name}: a property with a quote or a backslash in its name can be no key"));
        let wrong: Vec<String> = wrong.into_iter().chain(unnamed).collect();
        if wrong.is_empty() { self.rows(request).map(drop) } else { Err(self.failed(wrong.join("; "))) }
    }

    /// Documents whose id and partition key are known, each by itself.
    async fn read(&self, container: &Container, points: Vec<(&str, Key)>) -> Result<Vec<Stored>, Trouble> {
        let read = async |(id, key): (&str, Key)| match container.client.read_item(key.value, id, None).await {
            Ok(response) => response.into_model().map(Some).map_err(|e| Trouble::Transient(e.to_string())),
            Err(error) => match Trouble::of(&error) {
                Trouble::Missing => Ok(None),
                trouble => Err(trouble),
            },
        };
        let found = stream::iter(points.into_iter().map(read)).buffer_unordered(POINTS_AT_ONCE);
        found.try_filter_map(async |document| Ok(document)).try_collect().await
    }

    /// Documents by their properties. Where the partition key is among them, only the partitions that have it are asked.
    async fn search(&self, container: &Container, wanted: &Wanted) -> Result<Vec<Stored>, Trouble> {
        let mut groups: HashMap<Option<FeedRange>, Vec<usize>> = HashMap::new();
        for (number, properties) in wanted.keys.iter().enumerate() {
            let range = match key(properties, &container.paths) {
                Ok(key) => container.range(&key).await,
                Err(_) => None,
            };
            groups.entry(range).or_default().push(number);
        }
        let mut queries = vec![];
        for (range, numbers) in groups {
            let scope = || range.clone().map_or_else(FeedScope::full_container, FeedScope::range);
            for some in numbers.chunks(search::AT_ONCE) {
                queries.push((wanted.query(some).map_err(|error| Trouble::of(&error))?, scope()));
            }
        }
        let asked = queries.into_iter().map(|(query, scope)| self.ask(container, query, scope));
        let found: Vec<Vec<_>> = stream::iter(asked).buffer_unordered(QUERIES_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn ask(&self, container: &Container, query: Query, scope: FeedScope) -> Result<Vec<Stored>, Trouble> {
        let broken = |error: CosmosError| Trouble::of(&error);
        container.client.query_items(query, scope, None).await.map_err(broken)?.try_collect().await.map_err(broken)
    }

    async fn all(&self, container: &Container, mut rows: Rows<'_>) -> Result<Vec<RecordBatch>, Trouble> {
        let broken = |error: CosmosError| Trouble::of(&error);
        let all = container.client.query_items("SELECT * FROM c", FeedScope::full_container(), None).await;
        let mut all = std::pin::pin!(all.map_err(broken)?);
        while let Some(mut document) = all.try_next().await.map_err(broken)? {
            if let Err(what) = rows.push(&mut document) {
                let id = document.text_of(ID).unwrap_or_default();
                let mut shown = serde_json::to_string(&document).unwrap_or_default();
                shown.truncate(shown.floor_char_boundary(SHOWN));
                return Err(Trouble::Refused(format!("the document with the id '{id}': {what}: {shown}")));
            }
        }
        rows.finish().map_err(|error| Trouble::Refused(error.to_string()))
    }
}

impl Rows<'_> {
    fn push(&mut self, document: &mut Stored) -> Result<(), String> {
        if let Some(column) = self.id {
            document.copy(ID, column);
        }
        let line = serde_json::to_vec(document).map_err(|error| error.to_string())?;
        self.decoder.push(&line, None).map_err(|reject| reject.error)?;
        if self.decoder.rows() >= AT_ONCE {
            self.made.push(self.decoder.finish().map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
        self.made.push(self.decoder.finish()?);
        Ok(self.made)
    }
}

/// A text, so deep within objects.
fn nested(path: &[String]) -> Value {
    path.iter().rev().fold(Value::from(NOBODY), |inner, step| Value::Object(Map::from_iter([(step.clone(), inner)])))
}

#[async_trait]
impl Lookup for CosmosLookup {
    fn describe(&self) -> String {
        let at = &self.table.at;
        format!("cosmosdb container '{}/{}' at {}", at.database, at.container, at.account.endpoint)
    }

    fn by_key(&self) -> bool {
        true
    }

    async fn open(&self, request: &LookupRequest) -> Result<(), LookupError> {
        self.check(request)?;
        let container = self.container().await?;
        // Who may not read is told before the job begins. Mostly there is no such document.
        let nobody: Map<_, _> = container.paths.iter().map(|path| (path[0].clone(), nested(&path[1..]))).collect();
        if let Ok(key) = key(&nobody, &container.paths) {
            self.read(&container, vec![(NOBODY, key)]).await.map_err(|trouble| self.error(trouble))?;
        }
        self.opened.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn fetch(&self, request: &LookupRequest, keys: &RecordBatch) -> Result<Fetched, LookupError> {
        let container = self.container().await?;
        let names = request.keys.iter().map(|at| request.columns[*at].field.name());
        let properties = names.map(|name| self.property(name).to_string()).collect();
        let wanted = Wanted::of(keys, properties, self.table.integers_as_text).map_err(|error| self.failed(error))?;
        let found = match wanted.points(&container.paths) {
            Some(points) => self.read(&container, points).await,
            None => self.search(&container, &wanted).await,
        };
        let (mut rows, mut refused) = (self.rows(request)?, vec![]);
        for mut document in found.map_err(|trouble| self.error(trouble))? {
            let number = wanted.number_of(&document);
            if let (Err(what), Some(number)) = (rows.push(&mut document), number) {
                refused.push((number, what));
            }
        }
        let rows = rows.finish().map_err(|error| self.failed(error))?;
        Ok(Fetched { rows, refused })
    }

    async fn load(&self, request: &LookupRequest, _: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        let (container, rows) = (self.container().await?, self.rows(request)?);
        let rows = self.all(&container, rows).await.map_err(|trouble| self.error(trouble))?;
        self.opened.store(true, Ordering::Relaxed);
        Ok(Loaded::Rows { version: None, rows })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::*;
    use arrow::datatypes::{DataType, Field, FieldRef};
    use arrow::util::display::array_value_to_string;
    use azure_data_cosmos::models::PartitionKeyDefinition;
    use azure_data_cosmos::{AccountReference, CosmosClient, CosmosRuntimeBuilder, PartitionKey, RoutingStrategy};
    use azure_data_cosmos_driver::in_memory_emulator::{
        ContainerConfig, InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion,
    };
    use engine::connector::{Options, Origin};
    use engine::source::SourceColumn;
    use serde_json::json;

    use super::*;
    use crate::account::Account;
    use crate::options::{Http, Place};

    /// A container of four partitions with documents, of which `part` is the partition key.
    async fn container(documents: &[Value]) -> Container {
        let address = "https://eastus.emulator.local";
        let region = VirtualRegion::new("East US", address.parse().unwrap());
        let emulator = Arc::new(InMemoryEmulatorHttpClient::new(VirtualAccountConfig::new(vec![region]).unwrap()));
        emulator.store().create_database("d");
        let config = ContainerConfig::new().with_partition_count(4).with_throughput(40_000).build().unwrap();
        let key = PartitionKeyDefinition::new(vec!["/part".into()]);
        emulator.store().create_container_with_config("d", "c", key, config);
        let runtime = CosmosRuntimeBuilder::from(emulator.runtime_builder()).build().await.unwrap();
        let account = AccountReference::with_authentication_key(address.parse().unwrap(), "YQ==");
        let client = CosmosClient::builder()
            .with_runtime(runtime)
            .build(account, RoutingStrategy::PreferredRegions(vec![]))
            .await
            .unwrap();
        let client = client.database_client("d".to_string()).container_client("c".to_string(), None).await.unwrap();
        for document in documents {
            let (part, id) = (document["part"].as_str().unwrap(), document["id"].as_str().unwrap());
            client.create_item(PartitionKey::from(part.to_string()), id, document, None).await.unwrap();
        }
        Container { client, paths: vec![vec!["part".into()]], unique_keys: false }
    }

    fn lookup(container: Container, id: Option<&str>) -> CosmosLookup {
        let options = [("account", "a"), ("key", "k")].map(|(name, value)| (name.to_string(), value.to_string()));
        let account = Account::of(&Options(options.into()), &|_| None).unwrap();
        let at = Place {
            name: "devices".into(),
            account,
            database: "d".into(),
            container: "c".into(),
            regions: vec![],
            low_priority: false,
            http: Http::One,
        };
        let lookup = CosmosLookup::new(LookedUp { at, id: id.map(String::from), integers_as_text: false });
        *lookup.container.lock() = Some(container);
        lookup
    }

    fn field(name: &str, of: DataType) -> FieldRef {
        Arc::new(Field::new(name, of, true))
    }

    fn request(fields: &[FieldRef], keys: &[usize]) -> LookupRequest {
        let column = |field: &FieldRef| SourceColumn { field: field.clone(), origin: Origin::Value };
        LookupRequest {
            columns: fields.iter().map(column).collect(),
            keys: keys.to_vec(),
            timeout: Duration::from_secs(30),
        }
    }

    fn keys(columns: &[(&FieldRef, ArrayRef)]) -> RecordBatch {
        let schema = Schema::new(columns.iter().map(|(field, _)| (*field).clone()).collect::<Vec<_>>());
        RecordBatch::try_new(Arc::new(schema), columns.iter().map(|(_, array)| array.clone()).collect()).unwrap()
    }

    fn strings(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn texts(batches: &[RecordBatch]) -> Vec<String> {
        let value = |column: &ArrayRef, row| array_value_to_string(column, row).unwrap();
        let row =
            |batch: &RecordBatch, row| batch.columns().iter().map(|c| value(c, row)).collect::<Vec<_>>().join(" ");
        let mut found: Vec<String> =
            batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at))).collect();
        found.sort();
        found
    }

    fn documents() -> Vec<Value> {
        let one = |n: usize| json!({"id": format!("d{n}"), "part": format!("p{}", n % 7), "n": n, "a \"b\"": n.is_multiple_of(3)});
        (0..20).map(one).collect()
    }

    #[tokio::test]
    async fn documents_are_read_by_id_and_partition_key() {
        let fields = [field("n", DataType::Int64), field("id", DataType::Utf8), field("part", DataType::Utf8)];
        let lookup = lookup(container(&documents()).await, Some(ID));
        let request = request(&fields, &[1, 2]);
        lookup.open(&request).await.unwrap();
        let asked = keys(&[
            (&fields[1], strings(&["d3", "d3", "d8", "d99"])),
            (&fields[2], strings(&["p3", "p4", "p1", "p1"])),
        ]);
        let found = lookup.fetch(&request, &asked).await.unwrap();
        assert_eq!(texts(&found.rows), ["3 d3 p3", "8 d8 p1"]);
    }

    #[tokio::test]
    async fn documents_are_found_by_any_properties() {
        let container = container(&documents()).await;
        let fields = [
            field("n", DataType::Int32),
            field("a \"b\"", DataType::Boolean),
            field("part", DataType::Utf8),
            field("key", DataType::Utf8),
        ];
        let lookup = lookup(container, Some("key"));
        let by_number = request(&fields, &[0]);
        lookup.open(&by_number).await.unwrap();
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values((0..1000).map(|n| n * 5)));
        let found = lookup.fetch(&by_number, &keys(&[(&fields[0], numbers)])).await.unwrap();
        assert_eq!(texts(&found.rows), ["0 true p0 d0", "10 false p3 d10", "15 true p1 d15", "5 false p5 d5"]);

        let of_part = request(&fields, &[2, 1]);
        let yes: ArrayRef = Arc::new(BooleanArray::from(vec![true, true]));
        let asked = keys(&[(&fields[2], strings(&["p3", "p6"])), (&fields[1], yes)]);
        let found = lookup.fetch(&of_part, &asked).await.unwrap();
        assert_eq!(texts(&found.rows), ["3 true p3 d3", "6 true p6 d6"]);

        // Without its partition key, an id is a property as any other.
        let found =
            lookup.fetch(&request(&fields, &[3]), &keys(&[(&fields[3], strings(&["d4", "d5"]))])).await.unwrap();
        assert_eq!(texts(&found.rows), ["4 false p4 d4", "5 false p5 d5"]);
    }

    #[tokio::test]
    async fn where_the_partition_key_is_known_only_its_partition_is_asked() {
        let container = container(&documents()).await;
        let mut ranges = vec![];
        for part in 0..7 {
            let body = Map::from_iter([("part".to_string(), json!(format!("p{part}")))]);
            ranges.push(container.range(&key(&body, &container.paths).unwrap()).await.unwrap());
        }
        let different: std::collections::HashSet<_> = ranges.iter().collect();
        assert!((2..=4).contains(&different.len()), "{different:?}");
    }

    #[tokio::test]
    async fn a_document_that_does_not_fit_is_refused_for_its_key_alone() {
        let documents = [json!({"id": "a", "part": "p", "n": 1}), json!({"id": "b", "part": "p", "n": "many"})];
        let lookup = lookup(container(&documents).await, Some(ID));
        let fields = [field("id", DataType::Utf8), field("n", DataType::Int64)];
        let by_id = request(&fields, &[0]);
        let found = lookup.fetch(&by_id, &keys(&[(&fields[0], strings(&["c", "b", "a"]))])).await.unwrap();
        assert_eq!(texts(&found.rows), ["a 1"]);
        assert!(matches!(&found.refused[..], [(1, what)] if what.contains("many")), "{:?}", found.refused);
        let said = lookup.load(&request(&fields, &[]), None, 0).await.unwrap_err();
        assert!(matches!(&said, LookupError::Failed { what, .. } if what.contains("the id 'b'")), "{said}");
        let good = [field("id", DataType::Utf8)];
        let Loaded::Rows { version: None, rows } = lookup.load(&request(&good, &[]), None, 0).await.unwrap() else {
            panic!("it has no version");
        };
        assert_eq!(texts(&rows), ["a", "b"]);
    }

    #[tokio::test]
    async fn what_can_be_no_key_is_said_at_the_start() {
        let lookup = lookup(container(&[]).await, None);
        let fields = [field("price", DataType::Decimal128(10, 2)), field("x", DataType::Float64)];
        let said = lookup.open(&request(&fields, &[0, 1])).await.unwrap_err();
        assert!(
            matches!(&said, LookupError::Failed { what, .. } if what.contains("price") && what.contains("column x")),
            "{said}"
        );
    }
}
