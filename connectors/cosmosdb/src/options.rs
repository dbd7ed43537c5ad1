//! `connector = 'cosmosdb'`: what a table says, and what it means.

use std::sync::Arc;

use azure_data_cosmos::models::IndexingPolicy;
use engine::connector::{Connector, OptionKind, OptionSpec, Options, Origin, Problem, Purpose, TableSpec};
use engine::lookup::Lookup;
use engine::shown::Shown;
use engine::sink::Sink;

use crate::account::{self, Account};
use crate::container::NewContainer;
use crate::documents::{ID, Layout, PROVENANCE, SYSTEM, can_be_version};
use crate::lookup::CosmosLookup;
use crate::shown::CosmosShown;
use crate::sink::CosmosSink;

/// Azure Cosmos DB for NoSQL.
pub struct CosmosConnector;

/// A container, and how it is reached.
#[derive(Clone)]
pub struct Place {
    /// The job's own name for it.
    pub name: String,
    pub account: Account,
    pub database: String,
    pub container: String,
    pub regions: Vec<String>,
    pub low_priority: bool,
    pub http: Http,
}

/// What is spoken with the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// A connection for each request that is under way. The cheaper one (`docs/performance.md`).
    One,
    /// Few connections, and the account's Gateway 2.0 if it has one.
    Two,
}

/// A checked table that is written.
#[derive(Clone)]
pub struct CosmosTable {
    pub at: Place,
    pub columns: Vec<String>,
    pub partition_by: Vec<String>,
    pub write: Write,
    pub layout: Layout,
    pub create: Option<NewContainer>,
    pub pace: Pace,
}

/// A checked table in which documents are looked up.
#[derive(Clone)]
pub struct LookedUp {
    pub at: Place,
    /// The column that is a document's id, if one is.
    pub id: Option<String>,
    /// Whether BIGINTs are text in its documents.
    pub integers_as_text: bool,
}

/// How fast it is written at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    pub units_per_second: Option<f64>,
    pub requests_at_once: usize,
    /// Documents of one partition key that are written together, all or none.
    pub batch: usize,
}

/// What a row does to the document of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Replaces it; the last one stays.
    Upsert,
    /// Makes it; the first one stays.
    Insert,
    /// Replaces an older one.
    ReplaceIfNewer,
    Delete,
    /// Makes one of its own: the row needs no key.
    Append,
}

/// The words of `write`.
const WRITES: &[&[&str]] =
    &[&["upsert"], &["insert"], &["replace-if-newer", "replace_if_newer"], &["delete"], &["append"]];
/// What the service allows a batch to have.
const LARGEST_BATCH: i64 = 100;
const REQUESTS_AT_ONCE: i64 = 128;

impl Write {
    pub fn word(self) -> &'static str {
        match self {
            Write::Upsert => "upsert",
            Write::Insert => "insert",
            Write::ReplaceIfNewer => "replace-if-newer",
            Write::Delete => "delete",
            Write::Append => "append",
        }
    }

    /// Whether a row that was refused would count as written once another one of its id is.
    pub fn hides_a_refused_one(self) -> bool {
        matches!(self, Write::Insert | Write::ReplaceIfNewer)
    }

    fn of(word: Option<&str>) -> Self {
        let all = [Write::Insert, Write::ReplaceIfNewer, Write::Delete, Write::Append];
        all.into_iter().find(|write| Some(write.word()) == word).unwrap_or(Write::Upsert)
    }
}

impl Place {
    /// For people: where something went wrong.
    pub fn place(&self) -> String {
        format!("table {}, container {}/{}", self.name, self.database, self.container)
    }
}

impl Connector for CosmosConnector {
    fn name(&self) -> &'static str {
        "cosmosdb"
    }

    fn options(&self) -> Vec<OptionSpec> {
        let mut options = account::options();
        options.extend([
            OptionSpec::new("database", OptionKind::Text, "the database").required(),
            OptionSpec::new("container", OptionKind::Text, "the container").required(),
            OptionSpec::new(
                "write",
                OptionKind::OneOf(WRITES),
                "upsert: the last row of an id stays (unless said); insert: the first one; replace-if-newer: the newest one, \
                 by version_field; delete: the document of the id goes; append: each row is a document of its own, once",
            ).purpose(Purpose::Writing),
            OptionSpec::new(
                "id_field",
                OptionKind::Text,
                "the column that is the document's id: else the column id, or the primary key",
            ),
            OptionSpec::new("version_field", OptionKind::Text, "with replace-if-newer: an integer or a time that grows").purpose(Purpose::Writing),
            OptionSpec::new(
                "json.nulls",
                OptionKind::Boolean,
                "whether NULL is written as null, within a STRUCT too (unless said, it is left out)",
            ).purpose(Purpose::Writing),
            OptionSpec::new(
                "json.decimals",
                OptionKind::OneOf(&[&["text"], &["number"]]),
                "text: exact (unless said); number: as the nearest double",
            ).purpose(Purpose::Writing),
            OptionSpec::new(
                "json.integers",
                OptionKind::OneOf(&[&["number"], &["text"]]),
                "number (unless said): a row with one beyond 2^53, which a document cannot hold, is rejected; text: BIGINTs are text",
            ),
            OptionSpec::new(
                "batch",
                OptionKind::Integer,
                "documents of one partition key that are written together, at most (100): all of them or none",
            ).purpose(Purpose::Writing),
            OptionSpec::new(
                "requests",
                OptionKind::Integer,
                "requests at once, at most (128): fewer are made while the service throttles",
            ).purpose(Purpose::Writing),
            OptionSpec::new("max_ru_per_second", OptionKind::Integer, "request units that may be spent a second").purpose(Purpose::Writing),
            OptionSpec::new(
                "priority",
                OptionKind::OneOf(&[&["high"], &["low"]]),
                "low: others' requests go first when units are short (priority-based execution, an account's setting)",
            ),
            OptionSpec::new(
                "http",
                OptionKind::OneOf(&[&["1.1"], &["2"]]),
                "1.1: the cheapest, with a connection for each request that is under way (unless said); 2: few connections, and \
                 Gateway 2.0 where the account has it",
            ),
            OptionSpec::new("regions", OptionKind::Text, "preferred regions, in order, separated by commas"),
            OptionSpec::new(
                "create",
                OptionKind::Boolean,
                "make the database and the container if they are not there; needs a key and PARTITIONED BY",
            ).purpose(Purpose::Writing),
            OptionSpec::new("create.throughput", OptionKind::Integer, "request units a second of a new container").purpose(Purpose::Writing),
            OptionSpec::new("create.autoscale", OptionKind::Integer, "instead: request units a second at most").purpose(Purpose::Writing),
            OptionSpec::new("create.ttl", OptionKind::Duration, "how long a document of a new container stays").purpose(Purpose::Writing),
            OptionSpec::new(
                "create.unique_keys",
                OptionKind::Text,
                "of a new container: paths such as '/eventId'; those of one key separated by commas, keys by semicolons",
            ).purpose(Purpose::Writing),
            OptionSpec::new("create.indexing", OptionKind::Text, "of a new container: its indexing policy, as JSON").purpose(Purpose::Writing),
        ]);
        options
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Ok(Arc::new(CosmosSink::new(checked(table, &of_environment)?)))
    }

    fn lookup(&self, table: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        Ok(Arc::new(CosmosLookup::new(looked_up(table, &of_environment)?)))
    }

    fn shown(&self, table: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        let columns = table.columns.iter().map(|column| column.field.clone()).collect();
        Ok(Arc::new(CosmosShown { table: checked(table, &of_environment)?, columns }))
    }
}

fn of_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Turns checked options into what they mean, or says all that is wrong.
fn checked(table: &TableSpec, environment: &dyn Fn(&str) -> Option<String>) -> Result<CosmosTable, Vec<Problem>> {
    let options = &table.options;
    let columns: Vec<String> = table.columns.iter().map(|column| column.field.name().clone()).collect();
    let write = Write::of(options.get("write"));
    let mut problems = vec![];
    let mut note = |problem: Problem| problems.push(problem);

    for name in columns.iter().filter(|name| SYSTEM.contains(&name.as_str())) {
        note(Problem::column(name, "this name is the service's own"));
    }
    for name in table.partition_by.iter().filter(|name| !columns.contains(name)) {
        note(Problem::of(format!("PARTITIONED BY {name}: there is no such column")));
    }
    let id = id(table, write, &columns).unwrap_or_else(|problem| {
        note(problem);
        vec![]
    });
    let version = version(table, write).unwrap_or_else(|problem| {
        note(problem);
        None
    });
    let create = create(table).unwrap_or_else(|problem| {
        note(problem);
        None
    });
    let positive = |name: &str, unsaid: i64, most: i64| match options.integer(name).unwrap_or(unsaid) {
        n if (1..=most).contains(&n) => Ok(n as usize),
        _ => Err(Problem::option(name, format!("must be from 1 to {most}"))),
    };
    let mut or_note = |found: Result<usize, Problem>| {
        found.unwrap_or_else(|problem| {
            problems.push(problem);
            1
        })
    };
    let batch = or_note(positive("batch", LARGEST_BATCH, LARGEST_BATCH));
    let requests_at_once = or_note(positive("requests", REQUESTS_AT_ONCE, 10_000));
    let units = or_note(positive("max_ru_per_second", 1, i64::MAX));
    let account = match Account::of(options, environment) {
        Ok(account) if problems.is_empty() => account,
        account => {
            problems.extend(account.err());
            return Err(problems);
        }
    };
    Ok(CosmosTable {
        at: place(table, account),
        columns,
        partition_by: table.partition_by.clone(),
        write,
        layout: Layout {
            id,
            version,
            nulls: options.flag("json.nulls"),
            decimals_as_numbers: options.get("json.decimals") == Some("number"),
            integers_as_text: options.get("json.integers") == Some("text"),
        },
        create,
        pace: Pace {
            units_per_second: options.get("max_ru_per_second").map(|_| units as f64),
            requests_at_once,
            batch,
        },
    })
}

fn place(table: &TableSpec, account: Account) -> Place {
    let options = &table.options;
    let regions = options.get("regions").into_iter().flat_map(|text| text.split(',')).map(|region| region.trim());
    Place {
        name: table.name.clone(),
        account,
        database: options.get("database").unwrap_or_default().into(),
        container: options.get("container").unwrap_or_default().into(),
        regions: regions.filter(|region| !region.is_empty()).map(String::from).collect(),
        low_priority: options.get("priority") == Some("low"),
        http: if options.get("http") == Some("2") { Http::Two } else { Http::One },
    }
}

/// The same of a table that is only read, document by document.
fn looked_up(table: &TableSpec, environment: &dyn Fn(&str) -> Option<String>) -> Result<LookedUp, Vec<Problem>> {
    let options = &table.options;
    let mut problems: Vec<Problem> = vec![];
    for column in table.columns.iter().filter(|column| column.origin != Origin::Value) {
        problems.push(Problem::column(column.field.name(), "a document has no metadata, only properties (_ts is one)"));
    }
    let has = |name: &str| table.columns.iter().any(|column| column.field.name() == name);
    let said = options.get("id_field");
    if let Some(name) = said.filter(|name| !has(name)) {
        problems.push(Problem::option("id_field", format!("there is no column {name}")));
    }
    let id = said.map(String::from).or_else(|| has(ID).then(|| ID.to_string()));
    let account = Account::of(options, environment).map_err(|problem| problems.push(problem)).ok();
    match account {
        Some(account) if problems.is_empty() => Ok(LookedUp {
            at: place(table, account),
            id,
            integers_as_text: options.get("json.integers") == Some("text"),
        }),
        _ => Err(problems),
    }
}

/// The columns that are the id.
fn id(table: &TableSpec, write: Write, columns: &[String]) -> Result<Vec<String>, Problem> {
    let said = table.options.get("id_field");
    if write == Write::Append {
        if let Some(own) = [ID, PROVENANCE].into_iter().find(|own| columns.iter().any(|c| c == own)) {
            let what = "append gives each row an id of its own, and says which row it is in the property 'millrace'; call the \
                        column otherwise, or insert by an id";
            return Err(Problem::column(own, what));
        }
        return match said {
            Some(_) => Err(Problem::option("id_field", "append gives each row an id of its own")),
            None => Ok(vec![]),
        };
    }
    let found = match said {
        Some(name) => vec![name.to_string()],
        None if columns.iter().any(|c| c == ID) => vec![ID.to_string()],
        None => table.primary_key.clone(),
    };
    if found.is_empty() {
        let what = format!(
            "write = '{}' needs to know a document's id: a column id, id_field, or a primary key; with write = 'append' each row \
             is a document of its own",
            write.word()
        );
        return Err(Problem::of(what));
    }
    if let Some(unknown) = found.iter().find(|name| !columns.contains(name)) {
        return Err(Problem::option("id_field", format!("there is no column {unknown}")));
    }
    if found != [ID] && columns.iter().any(|c| c == ID) {
        return Err(Problem::column(
            ID,
            format!("the document's id is made of {}, so there can be no other", found.join(", ")),
        ));
    }
    Ok(found)
}

fn version(table: &TableSpec, write: Write) -> Result<Option<String>, Problem> {
    let wrong = |what: &str| Err(Problem::option("version_field", what));
    match (write, table.options.get("version_field")) {
        (Write::ReplaceIfNewer, Some(name)) => match table.columns.iter().find(|column| column.field.name() == name) {
            None => wrong(&format!("there is no column {name}")),
            Some(column) if !can_be_version(column.field.data_type()) => {
                wrong(&format!("{name} is a {}: an integer or a TIMESTAMP is needed", column.field.data_type()))
            }
            Some(_) => Ok(Some(name.to_string())),
        },
        (Write::ReplaceIfNewer, None) => wrong("replace-if-newer needs the column that says what is newer"),
        (_, Some(_)) => wrong("it is looked at with write = 'replace-if-newer' only"),
        (_, None) => Ok(None),
    }
}

fn create(table: &TableSpec) -> Result<Option<NewContainer>, Problem> {
    let options: &Options = &table.options;
    if !options.flag("create") {
        return match options.with_prefix("create.").next() {
            Some((name, _)) => Err(Problem::option(format!("create.{name}"), "only with create = 'true'")),
            None => Ok(None),
        };
    }
    if table.partition_by.is_empty() {
        return Err(Problem::option("create", "say the new container's partition key: PARTITIONED BY (column)"));
    }
    let number = |name: &str| match options.integer(name) {
        Some(n) if n < 1 => Err(Problem::option(name, "must be at least 1")),
        n => Ok(n.map(|n| n as u64)),
    };
    let indexing = match options.get("create.indexing").map(serde_json::from_str::<IndexingPolicy>) {
        Some(Err(error)) => {
            return Err(Problem::option("create.indexing", format!("it is no indexing policy: {error}")));
        }
        policy => policy.and_then(Result::ok),
    };
    let unique_keys = options.get("create.unique_keys").into_iter().flat_map(|text| text.split(';'));
    let paths =
        |key: &str| key.split(',').map(|path| path.trim().to_string()).filter(|path| !path.is_empty()).collect();
    let unique_keys: Vec<Vec<String>> = unique_keys.map(paths).filter(|key: &Vec<String>| !key.is_empty()).collect();
    if let Some(bad) = unique_keys.iter().flatten().find(|path| !path.starts_with('/')) {
        return Err(Problem::option("create.unique_keys", format!("'{bad}' is no path: it begins with a '/'")));
    }
    let ttl = options.duration("create.ttl").map(|ttl| ttl.as_secs().clamp(1, i32::MAX as u64) as u32);
    Ok(Some(NewContainer {
        throughput: number("create.throughput")?,
        autoscale: number("create.autoscale")?,
        ttl,
        unique_keys,
        indexing,
    }))
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{DataType, Field};
    use engine::connector::{ColumnSpec, Origin};

    use super::*;

    fn table(columns: &[&str], primary_key: &[&str], options: &[(&str, &str)]) -> TableSpec {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        let mut all: BTreeMap<_, _> = [("account", "a"), ("key", "k"), ("database", "d"), ("container", "c")].into();
        all.extend(options.iter().copied());
        let column = |name: &&str| ColumnSpec {
            field: Arc::new(Field::new(*name, DataType::Utf8, true)),
            origin: Origin::Value,
        };
        TableSpec {
            name: "events".into(),
            columns: columns.iter().map(column).collect(),
            primary_key: owned(primary_key),
            partition_by: vec![],
            options: Options(all.into_iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()),
        }
    }

    /// A table that is written to a container which is made, PARTITIONED BY its first column.
    pub fn new_container(columns: &[&str], options: &[(&str, &str)]) -> CosmosTable {
        let own = [&[("create", "true"), ("write", "append")], options].concat();
        let mut table = table(columns, &[], &own);
        table.partition_by = vec![columns[0].into()];
        checked(&table, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn problems(table: &TableSpec) -> Vec<String> {
        checked(table, &|_| None).err().unwrap().into_iter().map(|p| p.message).collect()
    }

    #[test]
    fn a_document_s_id_is_said_or_a_column_or_the_primary_key() {
        let id = |columns: &[&str], key: &[&str], options: &[(&str, &str)]| {
            checked(&table(columns, key, options), &|_| None).unwrap().layout.id
        };
        assert_eq!(id(&["id", "b"], &[], &[]), ["id"]);
        assert_eq!(id(&["a", "b"], &["a", "b"], &[]), ["a", "b"]);
        assert_eq!(id(&["a", "b"], &["a"], &[("id_field", "b")]), ["b"]);
        assert_eq!(id(&["a"], &[], &[("write", "append")]), [""; 0]);
        assert!(problems(&table(&["a"], &[], &[]))[0].contains("needs to know a document's id"));
        assert!(problems(&table(&["id"], &[], &[("write", "append")]))[0].contains("an id of its own"));
        assert!(problems(&table(&["a", "id"], &["a"], &[("id_field", "a")]))[0].contains("there can be no other"));
    }

    #[test]
    fn a_lookup_table_is_told_by_its_id_where_that_is_one_of_its_columns() {
        let looked_up = |table: &TableSpec| looked_up(table, &|_| None);
        let plain = looked_up(&table(&["a", "id"], &["a"], &[("regions", "x, y"), ("priority", "low"), ("http", "2")]))
            .ok()
            .unwrap();
        assert_eq!((plain.id.as_deref(), plain.at.regions.len(), plain.at.low_priority), (Some("id"), 2, true));
        assert_eq!(plain.at.http, Http::Two);
        let of_field =
            looked_up(&table(&["a", "b"], &[], &[("id_field", "b"), ("json.integers", "text")])).ok().unwrap();
        assert_eq!((of_field.id.as_deref(), of_field.integers_as_text), (Some("b"), true));
        assert_eq!(looked_up(&table(&["a"], &["a"], &[])).ok().unwrap().id, None, "a primary key may be any property");
        let problems = looked_up(&table(&["a"], &[], &[("id_field", "z")])).err().unwrap();
        assert_eq!(problems.iter().map(|problem| problem.option.as_deref()).collect::<Vec<_>>(), [Some("id_field")]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = [("write", "replace-if-newer"), ("version_field", "a"), ("batch", "101"), ("create", "true")];
        let said = problems(&table(&["a", "_ts"], &["a"], &wrong));
        for part in ["the service's own", "an integer or a TIMESTAMP", "from 1 to 100", "PARTITIONED BY"] {
            assert!(said.iter().any(|what| what.contains(part)), "{part}: {said:?}");
        }
        assert_eq!(said.len(), 4, "{said:?}");
    }
}
