//! `connector = 'sqlserver'`: what a table says, and what it means.

use std::sync::Arc;
use std::time::Duration;

use engine::connector::{Connector, OptionKind, OptionSpec, Options, Origin, Problem, Purpose, TableSpec};
use engine::lookup::Lookup;
use engine::shown::Shown;
use engine::sink::Sink;

use crate::lookup::SqlLookup;
use crate::server::{self, Server};
use crate::shown::SqlShown;
use crate::sink::SqlSink;
use crate::statements::Name;

/// Azure SQL Database and SQL Server.
pub struct SqlServerConnector;

/// A table on a server, and how it is reached.
#[derive(Clone)]
pub struct Place {
    /// The job's own name for it.
    pub name: String,
    pub server: Server,
    /// The table, or the procedure.
    pub target: Name,
    /// How long a statement may take.
    pub answer: Duration,
}

/// A checked table that is written.
#[derive(Clone)]
pub struct SqlTable {
    pub at: Place,
    pub write: Write,
    pub key: Vec<String>,
    pub version: Option<String>,
    /// The table of markers.
    pub markers: Name,
    /// Sessions that write at once, each its own rows.
    pub lanes: usize,
    /// The column whose value says which of them a row belongs to.
    pub lane_by: Option<String>,
    /// Rows of a transaction, at most one entry more; `None`: as many as suit the table.
    pub commit_rows: Option<u64>,
    pub table_lock: bool,
    pub create: Option<NewTable>,
}

/// What a table is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTable {
    pub columnstore: bool,
}

/// What a row does to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Is a row of its own there.
    Append,
    /// Makes the row of its key; the first one stays.
    Insert,
    /// Makes or replaces it; the last one stays, or the newest.
    Upsert,
    Delete,
    /// Is handed to a procedure.
    Procedure,
}

/// The words of `write`.
const WRITES: &[&[&str]] = &[&["append"], &["insert"], &["upsert"], &["delete"], &["procedure"]];
/// A table has 1,024 columns at most, and the one in which rows are staged has two of its own.
/// <https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>
const MOST_COLUMNS: usize = 1024 - 2;
/// What the table of markers is called, in the target's own schema unless said.
const MARKERS: &str = "millrace_commits";
const DEFAULT_SCHEMA: &str = "dbo";
/// The server allows names so long, and a marker has one.
const LONGEST_NAME: usize = 128;
const MOST_LANES: i64 = 64;
const ANSWER: Duration = Duration::from_secs(300);

impl Write {
    pub fn word(self) -> &'static str {
        match self {
            Write::Append => "append",
            Write::Insert => "insert",
            Write::Upsert => "upsert",
            Write::Delete => "delete",
            Write::Procedure => "procedure",
        }
    }

    /// Whether rows of one key are told from others.
    pub fn by_key(self) -> bool {
        matches!(self, Write::Insert | Write::Upsert | Write::Delete)
    }

    fn of(word: Option<&str>) -> Option<Self> {
        let all = [Write::Append, Write::Insert, Write::Upsert, Write::Delete, Write::Procedure];
        all.into_iter().find(|write| Some(write.word()) == word)
    }
}

impl Place {
    /// For people: where something went wrong.
    pub fn describe(&self) -> String {
        format!("table {}, {} in {} at {}", self.name, self.target.as_str(), self.server.database, self.server.host)
    }
}

impl Connector for SqlServerConnector {
    fn name(&self) -> &'static str {
        "sqlserver"
    }

    fn options(&self) -> Vec<OptionSpec> {
        let mut options = server::options();
        options.extend([
            OptionSpec::new(
                "table",
                OptionKind::Text,
                "the table: name, schema.name or [schema].[name]; dbo unless said",
            )
            .aliases(&["table-name", "table_name"]),
            OptionSpec::new(
                "statement_timeout",
                OptionKind::Duration,
                "how long the server may take for a statement (5 minutes)",
            ),
        ]);
        let of_writing = [
            OptionSpec::new(
                "write",
                OptionKind::OneOf(WRITES),
                "insert: the first row of a key stays (with a primary key, unless said); upsert: the last one, or the newest by \
                 version_field; delete: the row of the key goes; append: each row is one, once (without a primary key, unless said); \
                 procedure: rows are handed to a stored procedure",
            ),
            OptionSpec::new(
                "version_field",
                OptionKind::Text,
                "with upsert: a row gives way to one with a higher value only",
            ),
            OptionSpec::new(
                "procedure",
                OptionKind::Text,
                "instead of table: a procedure with one table-valued parameter",
            ),
            OptionSpec::new(
                "commits_table",
                OptionKind::Text,
                "where it is kept what is written: millrace_commits beside the table",
            ),
            OptionSpec::new(
                "writers",
                OptionKind::Integer,
                "sessions that write at once (1); by the integer column of PARTITIONED BY, if there is one",
            ),
            OptionSpec::new(
                "commit_rows",
                OptionKind::Integer,
                "rows of a transaction and writer, at most one checkpoint more: 50,000, or 1,048,576 into a columnstore",
            ),
            OptionSpec::new(
                "table_lock",
                OptionKind::Boolean,
                "with append: lock the table (TABLOCK): faster, and nobody else writes",
            ),
            OptionSpec::new("create", OptionKind::Boolean, "make the table if it is not there"),
            OptionSpec::new(
                "create.index",
                OptionKind::OneOf(&[&["rowstore"], &["columnstore"]]),
                "of a new table: columnstore is small and fast to analyse",
            ),
        ];
        options.extend(of_writing.map(|option| option.purpose(Purpose::Writing)));
        options
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Ok(Arc::new(SqlSink::new(checked(table, &of_environment)?)))
    }

    fn lookup(&self, table: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        Ok(Arc::new(SqlLookup::new(looked_up(table, &of_environment)?, table.primary_key.clone())))
    }

    fn shown(&self, table: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        let columns = table.columns.iter().map(|column| column.field.clone()).collect();
        let checked = checked(table, &of_environment)?;
        if checked.write == Write::Procedure {
            return Err(vec![Problem::option(
                "procedure",
                "what a procedure does with rows cannot be read back: name the table",
            )]);
        }
        Ok(Arc::new(SqlShown { table: checked, columns }))
    }
}

fn of_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Turns checked options into what they mean, or says all that is wrong.
fn checked(table: &TableSpec, environment: &dyn Fn(&str) -> Option<String>) -> Result<SqlTable, Vec<Problem>> {
    let options = &table.options;
    let mut problems = vec![];
    let mut note = |problem: Problem| problems.push(problem);
    if table.name.chars().count() > LONGEST_NAME {
        note(Problem::of(format!(
            "the table's name is longer than the {LONGEST_NAME} characters that a marker has for it"
        )));
    }
    if table.columns.len() > MOST_COLUMNS {
        note(Problem::of(format!(
            "{} columns are more than the {MOST_COLUMNS} that can be staged",
            table.columns.len()
        )));
    }
    let by_default = if table.primary_key.is_empty() { Write::Append } else { Write::Insert };
    let said = Write::of(options.get("write"));
    let by_procedure = options.get("procedure").is_some();
    let write = said.unwrap_or(if by_procedure { Write::Procedure } else { by_default });
    if by_procedure != (write == Write::Procedure) {
        note(Problem::option("procedure", "it goes with write = 'procedure', and that with it"));
    }
    if write.by_key() && table.primary_key.is_empty() {
        let what = format!("write = '{}' tells rows by their key: declare a PRIMARY KEY", write.word());
        note(Problem::option("write", what));
    }
    let target = target(options, if by_procedure { "procedure" } else { "table" }).map_err(&mut note).ok();
    if by_procedure && options.get("table").is_some() {
        note(Problem::option("table", "rows go to the procedure; only one of the two"));
    }
    let version = version(table, write).map_err(&mut note).ok().flatten();
    let (lanes, lane_by) = lanes(table, write).map_err(&mut note).unwrap_or((1, None));
    let commit_rows = options.integer("commit_rows");
    if commit_rows.is_some_and(|rows| rows < 1) {
        note(Problem::option("commit_rows", "must be at least 1"));
    }
    if options.flag("table_lock") && (write != Write::Append || lanes > 1) {
        note(Problem::option("table_lock", "only with write = 'append' and one writer: the others would wait for it"));
    }
    if !options.flag("create") && options.get("create.index").is_some() {
        note(Problem::option("create.index", "only with create = 'true'"));
    }
    if options.flag("create") && by_procedure {
        note(Problem::option("create", "procedures are not made"));
    }
    let markers = options.get("commits_table").map(parts).transpose();
    let markers = markers.map_err(|what| note(Problem::option("commits_table", what))).ok().flatten();
    let server = Server::of(options, environment).map_err(&mut note).ok();
    let (Some(target), Some(server), true) = (target, server, problems.is_empty()) else { return Err(problems) };
    let (schema, name) = target;
    let (of, commits) = markers.unwrap_or((schema.clone(), MARKERS.into()));
    Ok(SqlTable {
        at: place(table, server, &schema, &name),
        write,
        key: table.primary_key.clone(),
        version,
        markers: Name::of(&[&of, &commits]),
        lanes,
        lane_by,
        commit_rows: commit_rows.map(|rows| rows as u64),
        table_lock: options.flag("table_lock"),
        create: options
            .flag("create")
            .then(|| NewTable { columnstore: options.get("create.index") == Some("columnstore") }),
    })
}

/// The same of a table that is only read, row by row.
fn looked_up(table: &TableSpec, environment: &dyn Fn(&str) -> Option<String>) -> Result<Place, Vec<Problem>> {
    let options = &table.options;
    let mut problems: Vec<Problem> = vec![];
    for column in table.columns.iter().filter(|column| column.origin != Origin::Value) {
        problems.push(Problem::column(column.field.name(), "a row of this table has no metadata, only columns"));
    }
    let target = target(options, "table").map_err(|problem| problems.push(problem)).ok();
    let server = Server::of(options, environment).map_err(|problem| problems.push(problem)).ok();
    match (target, server) {
        (Some((schema, name)), Some(server)) if problems.is_empty() => Ok(place(table, server, &schema, &name)),
        _ => Err(problems),
    }
}

/// Schema and name of what an option names.
fn target(options: &Options, option: &str) -> Result<(String, String), Problem> {
    let text = options.get(option).ok_or_else(|| Problem::option("table", "say which table"))?;
    parts(text).map_err(|what| Problem::option(option, what))
}

fn place(table: &TableSpec, server: Server, schema: &str, name: &str) -> Place {
    Place {
        name: table.name.clone(),
        server,
        target: Name::of(&[schema, name]),
        answer: table.options.duration("statement_timeout").unwrap_or(ANSWER),
    }
}

/// Schema and name of `name`, `schema.name` or `[schema].[name]`.
fn parts(text: &str) -> Result<(String, String), String> {
    let (mut parts, mut rest) = (vec![], text.trim());
    loop {
        let (part, after) = match rest.strip_prefix('[') {
            Some(quoted) => {
                let closed = quoted.replace("]]", "\0\0");
                let end = closed.find(']').ok_or("a bracket is not closed")?;
                (quoted[..end].replace("]]", "]"), &quoted[end + 1..])
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].to_string(), &rest[end..])
            }
        };
        if part.is_empty() || part.chars().count() > LONGEST_NAME || part.chars().any(char::is_control) {
            return Err(format!("'{text}' is no name: schema.name, or in brackets if there are other dots in it"));
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => break,
            None => return Err(format!("'{text}' is no name: after a bracket comes a dot or nothing")),
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) => Ok((schema, name)),
        Err(mut one) if one.len() == 1 => Ok((DEFAULT_SCHEMA.into(), one.remove(0))),
        Err(_) => Err(format!("'{text}' has more parts than schema.name: the database is an option of its own")),
    }
}

fn version(table: &TableSpec, write: Write) -> Result<Option<String>, Problem> {
    let Some(name) = table.options.get("version_field") else { return Ok(None) };
    let wrong = |what: &str| Err(Problem::option("version_field", what));
    if write != Write::Upsert {
        return wrong("it is looked at with write = 'upsert' only");
    }
    let Some(column) = table.columns.iter().find(|column| column.field.name() == name) else {
        return wrong(&format!("there is no column {name}"));
    };
    let of = column.field.data_type();
    if !of.is_integer() && !of.is_temporal() {
        return wrong(&format!("{name} is a {of}: an integer or a time is needed"));
    }
    Ok(Some(name.to_string()))
}

/// How many sessions write, and by which column.
fn lanes(table: &TableSpec, write: Write) -> Result<(usize, Option<String>), Problem> {
    let lanes = table.options.integer("writers").unwrap_or(1);
    if !(1..=MOST_LANES).contains(&lanes) {
        return Err(Problem::option("writers", format!("must be from 1 to {MOST_LANES}")));
    }
    let by = match table.partition_by.as_slice() {
        [] => None,
        [name] => match table.columns.iter().position(|column| column.field.name() == name) {
            None => return Err(Problem::of(format!("PARTITIONED BY {name}: there is no such column"))),
            Some(index) if !table.columns[index].field.data_type().is_integer() => {
                return Err(Problem::of(format!(
                    "PARTITIONED BY {name}: only an integer says which writer a row belongs to"
                )));
            }
            Some(_) if write.by_key() && !table.primary_key.contains(name) => {
                let what =
                    format!("PARTITIONED BY {name}: it must be in the primary key, or two writers may meet in one row");
                return Err(Problem::of(what));
            }
            Some(_) => Some(name.clone()),
        },
        _ => return Err(Problem::of("PARTITIONED BY: one integer column says which writer a row belongs to")),
    };
    if lanes > 1 && by.is_none() && write != Write::Append {
        let what = "say which rows go together: PARTITIONED BY (an integer column of the key)";
        return Err(Problem::option("writers", what));
    }
    Ok((lanes as usize, by))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{DataType, Field};
    use engine::connector::{ColumnSpec, Options, Origin};

    use super::*;

    fn table(key: &[&str], partition_by: &[&str], options: &[(&str, &str)]) -> TableSpec {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        let mut all: BTreeMap<_, _> =
            [("server", "s"), ("database", "d"), ("user", "u"), ("password", "p"), ("table", "rawdata")].into();
        all.extend(options.iter().copied());
        let column = |name: &str, of| ColumnSpec { field: Arc::new(Field::new(name, of, true)), origin: Origin::Value };
        TableSpec {
            name: "events".into(),
            columns: vec![column("id", DataType::Utf8), column("part", DataType::Int32), column("n", DataType::Int64)],
            primary_key: owned(key),
            partition_by: owned(partition_by),
            options: Options(all.into_iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()),
        }
    }

    fn accepted(table: &TableSpec) -> SqlTable {
        checked(table, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn problems(table: &TableSpec) -> Vec<String> {
        checked(table, &|_| None).err().unwrap().into_iter().map(|p| p.message).collect()
    }

    #[test]
    fn with_a_key_the_first_row_stays_and_without_one_each_row_is_one() {
        assert_eq!(accepted(&table(&["id"], &[], &[])).write, Write::Insert);
        assert_eq!(accepted(&table(&[], &[], &[])).write, Write::Append);
        let upsert = accepted(&table(&["id"], &[], &[("write", "upsert"), ("version_field", "n")]));
        assert_eq!((upsert.write, upsert.version.as_deref()), (Write::Upsert, Some("n")));
        let mut by_procedure = table(&[], &[], &[("procedure", "dbo.stp_WriteData")]);
        by_procedure.options.0.remove("table");
        assert_eq!(accepted(&by_procedure).write, Write::Procedure);
    }

    #[test]
    fn names_have_a_schema_and_may_stand_in_brackets() {
        let of = |text: &str| accepted(&table(&[], &[], &[("table", text)]));
        assert_eq!(of("rawdata").at.target.as_str(), "[dbo].[rawdata]");
        assert_eq!(of("a.b").markers.as_str(), "[a].[millrace_commits]");
        assert_eq!(of("[a.b].[c]]d]").at.target.as_str(), "[a.b].[c]]d]");
        for wrong in ["a.b.c", "a..b", "[a", "[a]b", "a.\u{7}"] {
            assert_eq!(problems(&table(&[], &[], &[("table", wrong)])).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn as_many_columns_as_can_be_staged_are_taken() {
        let mut wide = table(&[], &[], &[]);
        wide.columns = vec![wide.columns[0].clone(); MOST_COLUMNS];
        accepted(&wide);
        wide.columns.push(wide.columns[0].clone());
        assert_eq!(problems(&wide), ["1023 columns are more than the 1022 that can be staged"]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = [
            ("write", "upsert"),
            ("version_field", "id"),
            ("commit_rows", "0"),
            ("table_lock", "true"),
            ("create.index", "columnstore"),
        ];
        let said = problems(&table(&[], &[], &wrong));
        for part in ["tells rows by their key", "an integer or a time", "at least 1", "one writer", "only with create"]
        {
            assert!(said.iter().any(|what| what.contains(part)), "{part}: {said:?}");
        }
        assert_eq!(said.len(), 5, "{said:?}");
    }

    #[test]
    fn a_lookup_table_has_no_metadata() {
        let checked = |table: &TableSpec| looked_up(table, &|_| None);
        let plain = checked(&table(&["id"], &[], &[("table", "s.t"), ("statement_timeout", "5s")])).ok().unwrap();
        assert_eq!((plain.target.as_str(), plain.answer), ("[s].[t]", Duration::from_secs(5)));
        let mut table = table(&["id"], &[], &[]);
        table.columns[2].origin = Origin::Metadata("timestamp".into());
        let problems = checked(&table).err().unwrap();
        assert_eq!(problems.iter().map(|p| p.column.as_deref()).collect::<Vec<_>>(), [Some("n")]);
    }

    #[test]
    fn several_writers_share_no_key() {
        let many = [("writers", "4")];
        assert_eq!(accepted(&table(&["id", "part"], &["part"], &many)).lane_by.as_deref(), Some("part"));
        assert_eq!(accepted(&table(&[], &[], &many)).lanes, 4);
        assert!(problems(&table(&["id"], &["part"], &many))[0].contains("in the primary key"));
        assert!(problems(&table(&["id"], &[], &many))[0].contains("which rows go together"));
        assert!(problems(&table(&["id"], &["id"], &many))[0].contains("only an integer"));
    }
}
