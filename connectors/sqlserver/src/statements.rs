//! Everything that is said to the server, in one place: Transact-SQL that SQL Server 2019 and Azure SQL Database document.
//! Each statement names the page that does.
//!
//! A commit is one batch, and a batch needs nobody to go on: a process that is frozen holds no lock.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use crate::catalog::{CatalogColumn, Column, LONGEST_UTF16};
use crate::options::Write;
use crate::target::Target;
use crate::types::SqlType;

/// Where rows wait within a session until a batch takes them.
pub const STAGED: &str = "#millrace";
/// The staged columns beside the row's own: the entry that it belongs to, and its place among all that were staged.
pub const ENTRY: &str = "entry";
pub const ROW: &str = "row";

/// For [`Marker::attempt`]: no row at all.
pub const NO_ROWS: RangeInclusive<usize> = RangeInclusive::new(1, 0);

/// How long a statement waits for a lock, in milliseconds; then it fails with 1222, and is tried again.
const LOCK_TIMEOUT: u32 = 20_000;

/// A name with as many parts as it has, each in brackets.
/// <https://learn.microsoft.com/sql/relational-databases/databases/database-identifiers>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    pub fn of(parts: &[&str]) -> Self {
        let quoted: Vec<String> = parts.iter().map(|part| quoted(part)).collect();
        Name(quoted.join("."))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A word in brackets.
pub fn quoted(word: &str) -> String {
    format!("[{}]", word.replace(']', "]]"))
}

/// A text as a constant. <https://learn.microsoft.com/sql/t-sql/data-types/constants-transact-sql>
pub fn text(value: &str) -> String {
    format!("N'{}'", value.replace('\'', "''"))
}

/// What a session begins with: any error ends a batch and takes back all of it.
/// <https://learn.microsoft.com/sql/t-sql/statements/set-xact-abort-transact-sql>
/// <https://learn.microsoft.com/sql/t-sql/statements/set-lock-timeout-transact-sql>
/// <https://learn.microsoft.com/sql/t-sql/statements/set-transaction-isolation-level-transact-sql>
pub fn settings() -> String {
    format!(
        "SET XACT_ABORT ON; SET NOCOUNT OFF; SET LOCK_TIMEOUT {LOCK_TIMEOUT}; SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
    )
}

/// What is looked for under the name @P1: a table; or a view too, or whatever else has columns.
/// <https://learn.microsoft.com/sql/t-sql/functions/object-id-transact-sql>
pub const TABLE: &str = "OBJECT_ID(@P1, N'U')";
pub const TABLE_OR_VIEW: &str = "OBJECT_ID(@P1)";

/// The columns of the table @P1. `object`: [`TABLE`] or [`TABLE_OR_VIEW`].
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-columns-transact-sql>
pub fn columns(object: &str) -> String {
    format!(
        "SELECT [c].[name], COALESCE(TYPE_NAME([c].[system_type_id]), TYPE_NAME([c].[user_type_id])) AS [type], \
         [c].[max_length], [c].[precision], [c].[scale], [c].[is_nullable], [c].[is_identity], [c].[is_computed], \
         [c].[default_object_id], [c].[generated_always_type], [c].[collation_name], \
         CAST(COLLATIONPROPERTY([c].[collation_name], 'CodePage') AS int) AS [code_page] \
         FROM sys.columns AS [c] WHERE [c].[object_id] = {object} ORDER BY [c].[column_id]"
    )
}

/// The indexes of the table @P1: whether each is unique without exception, its kind, and its key columns.
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-indexes-transact-sql>
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-index-columns-transact-sql>
pub const INDEXES: &str = "SELECT [i].[index_id], [i].[type], [i].[is_unique], [i].[has_filter], [i].[is_disabled], [i].[ignore_dup_key], [c].[name] \
     FROM sys.indexes AS [i] \
     LEFT JOIN sys.index_columns AS [k] ON [k].[object_id] = [i].[object_id] AND [k].[index_id] = [i].[index_id] AND [k].[key_ordinal] > 0 \
     LEFT JOIN sys.columns AS [c] ON [c].[object_id] = [k].[object_id] AND [c].[column_id] = [k].[column_id] \
     WHERE [i].[object_id] = OBJECT_ID(@P1, N'U') ORDER BY [i].[index_id], [k].[key_ordinal]";

/// How far the locks of the table @P1 grow (0: to the whole table), if it lies in several partitions.
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-tables-transact-sql>
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-partitions-transact-sql>
pub const LOCKS_OF_PARTITIONS: &str = "SELECT [t].[lock_escalation] FROM sys.tables AS [t] WHERE [t].[object_id] = OBJECT_ID(@P1, N'U') \
     AND EXISTS (SELECT 1 FROM sys.partitions AS [p] WHERE [p].[object_id] = [t].[object_id] AND [p].[index_id] < 2 AND [p].[partition_number] > 1)";

/// What lets them grow to a partition only. For people: it takes a right that the job does not need.
/// <https://learn.microsoft.com/sql/t-sql/statements/alter-table-transact-sql>
pub fn lock_by_partition(name: &Name) -> String {
    format!("ALTER TABLE {} SET (LOCK_ESCALATION = AUTO);", name.as_str())
}

/// The table-valued parameters of the procedure @P1, and the columns of their types, in the type's order.
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-parameters-transact-sql>
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-table-types-transact-sql>
pub const PROCEDURE: &str = "SELECT [p].[name] AS [parameter], SCHEMA_NAME([y].[schema_id]) AS [schema], [y].[name] AS [of], [c].[name], \
     COALESCE(TYPE_NAME([c].[system_type_id]), TYPE_NAME([c].[user_type_id])) AS [type], \
     [c].[max_length], [c].[precision], [c].[scale], [c].[is_nullable], [c].[is_identity], [c].[is_computed], \
     [c].[default_object_id], [c].[generated_always_type], [c].[collation_name], \
     CAST(COLLATIONPROPERTY([c].[collation_name], 'CodePage') AS int) AS [code_page] \
     FROM sys.parameters AS [p] \
     INNER JOIN sys.table_types AS [y] ON [y].[user_type_id] = [p].[user_type_id] \
     INNER JOIN sys.columns AS [c] ON [c].[object_id] = [y].[type_table_object_id] \
     WHERE [p].[object_id] = OBJECT_ID(@P1, N'P') ORDER BY [p].[parameter_id], [c].[column_id]";

/// Whether there is a procedure @P1. <https://learn.microsoft.com/sql/t-sql/functions/object-id-transact-sql>
pub const PROCEDURE_EXISTS: &str = "SELECT OBJECT_ID(@P1, N'P') AS [id]";

/// Makes the table of the markers, one row a writer and lane: up to which entry its rows are there. Names are compared byte by byte.
/// <https://learn.microsoft.com/sql/t-sql/statements/create-table-transact-sql>
pub fn create_markers(markers: &Name) -> String {
    let word = |name, length| format!("[{name}] nvarchar({length}) COLLATE Latin1_General_100_BIN2 NOT NULL");
    format!(
        "IF OBJECT_ID({}, N'U') IS NULL CREATE TABLE {} ({}, {}, {}, [lane] int NOT NULL, [entry] bigint NOT NULL, \
         [updated_at] datetime2(7) NOT NULL, PRIMARY KEY ([job], [sink], [writer], [lane]));",
        text(markers.as_str()),
        markers.as_str(),
        word("job", 64),
        word("sink", 128),
        word("writer", 64),
    )
}

/// Whether there is a table @P1. <https://learn.microsoft.com/sql/t-sql/functions/object-id-transact-sql>
pub const TABLE_EXISTS: &str = "SELECT OBJECT_ID(@P1, N'U') AS [id]";

/// Adds the marker of the job @P1, sink @P2, writer @P3 and lane @P4.
/// <https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql>
pub fn add_marker(markers: &Name) -> String {
    format!(
        "INSERT INTO {} ([job], [sink], [writer], [lane], [entry], [updated_at]) VALUES (@P1, @P2, @P3, @P4, 0, SYSUTCDATETIME())",
        markers.as_str()
    )
}

/// The marker of the job @P1, sink @P2, writer @P3 and lane @P4. For people and for looking whether rows are gone too early: what is
/// shown is decided within the batch that shows it. <https://learn.microsoft.com/sql/t-sql/queries/select-transact-sql>
pub fn marker(markers: &Name) -> String {
    format!(
        "SELECT [entry] FROM {} WHERE [job] = @P1 AND [sink] = @P2 AND [writer] = @P3 AND [lane] = @P4",
        markers.as_str()
    )
}

/// Makes the session's own table for rows on their way, with columns as the target has them.
/// <https://learn.microsoft.com/sql/t-sql/statements/create-table-transact-sql#temporary-tables>
pub fn create_staged(columns: &[Column]) -> String {
    let mut batch = format!("CREATE TABLE {STAGED} ([{ENTRY}] bigint NOT NULL, [{ROW}] int NOT NULL");
    for (index, column) in columns.iter().enumerate() {
        write!(batch, ", {} {} NULL", staged(index), column.staged()).expect("a text grows");
    }
    batch + ");"
}

/// <https://learn.microsoft.com/sql/t-sql/statements/truncate-table-transact-sql>
pub fn empty_staged() -> String {
    format!("TRUNCATE TABLE {STAGED};")
}

/// Lets single staged rows be found: without, each is looked for among all. The index stays until the session ends.
/// <https://learn.microsoft.com/sql/t-sql/statements/create-index-transact-sql>
pub fn index_staged() -> String {
    format!("CREATE UNIQUE INDEX [millrace_row] ON {STAGED} ([{ROW}]);")
}

/// Puts the value @P1 into the staged row @P2. <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
pub fn complete_staged(index: usize) -> String {
    format!("UPDATE {STAGED} SET {} = @P1 WHERE [{ROW}] = @P2", staged(index))
}

/// A row's column where it is staged: by its place, so that no name of the target's is in the way.
pub fn staged(index: usize) -> String {
    format!("[c{index}]")
}

/// Not every error ends a batch: RAISERROR in a procedure or a trigger does not, so nothing is left to XACT_ABORT alone.
/// <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
/// <https://learn.microsoft.com/sql/t-sql/language-elements/throw-transact-sql>
const CAUGHT: &str = "END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; THROW; END CATCH;";

/// Whose rows a batch shows, and up to which entry.
pub struct Marker<'a> {
    pub markers: &'a Name,
    pub job: &'a str,
    pub sink: &'a str,
    pub writer: &'a str,
    pub lane: usize,
    pub entry: u64,
}

impl Marker<'_> {
    /// The marker moves on first: whoever else would show these rows waits for it, and then finds it moved. What it was is kept:
    /// rows of entries up to that are there. <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
    fn advance(&self) -> String {
        let Marker { markers, job, sink, writer, lane, entry } = self;
        format!(
            "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; DECLARE @done bigint; BEGIN TRY BEGIN TRANSACTION; \
             UPDATE {} SET @done = [entry], [entry] = {entry}, [updated_at] = SYSUTCDATETIME() \
             WHERE [job] = {} AND [sink] = {} AND [writer] = {} AND [lane] = {lane} AND [entry] < {entry}; ",
            markers.as_str(),
            text(job),
            text(sink),
            text(writer),
        )
    }

    /// Shows what is staged and not there yet, with the marker: both or neither. One row comes back: what the marker was; NULL if it
    /// is there already, or gone. <https://learn.microsoft.com/sql/t-sql/language-elements/begin-transaction-transact-sql>
    pub fn show(&self, target: &Target, write: Write) -> String {
        let rows = "[entry] > @done";
        format!(
            "{}IF @done IS NOT NULL BEGIN {} END; COMMIT TRANSACTION; {CAUGHT} SELECT @done AS [done];",
            self.advance(),
            apply(target, write, rows)
        )
    }

    /// Whether these rows could be shown: does it, and takes it back.
    pub fn attempt(&self, target: &Target, write: Write, rows: RangeInclusive<usize>, without: &[usize]) -> String {
        let mut chosen = format!("[entry] > @done AND [{ROW}] BETWEEN {} AND {}", rows.start(), rows.end());
        if !without.is_empty() {
            let list: Vec<String> = without.iter().map(usize::to_string).collect();
            write!(chosen, " AND [{ROW}] NOT IN ({})", list.join(", ")).expect("a text grows");
        }
        format!(
            "{}IF @done IS NOT NULL BEGIN {} END; ROLLBACK TRANSACTION; {CAUGHT}",
            self.advance(),
            apply(target, write, &chosen)
        )
    }
}

/// What staged rows do to the target. `rows`: which of them.
fn apply(target: &Target, write: Write, rows: &str) -> String {
    match write {
        Write::Append => append(target, rows),
        Write::Insert => insert(target, &one_a_key(target, rows, "ASC")),
        Write::Upsert => {
            let newest = one_a_key(target, rows, "DESC");
            format!("{} {}", update(target, &newest), insert(target, &newest))
        }
        Write::Delete => delete(target, rows),
        Write::Procedure => call(target, rows),
    }
}

/// <https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql>
fn append(target: &Target, rows: &str) -> String {
    format!(
        "INSERT INTO {}{} ({}) SELECT {} FROM {STAGED} WHERE {rows} ORDER BY [{ROW}];",
        target.name.as_str(),
        if target.table_lock { " WITH (TABLOCK)" } else { "" },
        target.names(quoted),
        target.staged(staged),
    )
}

/// The one row of each key that stays: the first, the last, or the first one of the highest version.
/// <https://learn.microsoft.com/sql/t-sql/functions/row-number-transact-sql>
fn one_a_key(target: &Target, rows: &str, order: &str) -> String {
    let keys: Vec<String> = target.key.iter().map(|index| staged(*index)).collect();
    let order = match target.version {
        Some(index) => format!("{} DESC, [{ROW}] ASC", staged(index)),
        None => format!("[{ROW}] {order}"),
    };
    format!(
        "WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY {} ORDER BY {order}) AS [nth] \
         FROM {STAGED} WHERE {rows}) ",
        keys.join(", ")
    )
}

/// The locks keep other sessions from adding the same keys until the transaction ends.
/// <https://learn.microsoft.com/sql/t-sql/queries/hints-transact-sql-table>
fn insert(target: &Target, chosen: &str) -> String {
    format!(
        "{chosen}INSERT INTO {} ({}) SELECT {} FROM [r] WHERE [r].[nth] = 1 \
         AND NOT EXISTS (SELECT 1 FROM {} AS [t] WITH (UPDLOCK, HOLDLOCK) WHERE {});",
        target.name.as_str(),
        target.names(quoted),
        target.staged(|index| format!("[r].{}", staged(index))),
        target.name.as_str(),
        same_key(target, "[r]"),
    )
}

/// <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql#using-the-update-statement-with-information-from-another-table>
fn update(target: &Target, chosen: &str) -> String {
    let others = (0..target.columns.len()).filter(|index| !target.key.contains(index));
    let set: Vec<String> =
        others.map(|index| format!("[t].{} = [r].{}", quoted(&target.columns[index].name), staged(index))).collect();
    if set.is_empty() {
        return String::new();
    }
    let newer = target.version.map(|index| {
        let column = quoted(&target.columns[index].name);
        format!(" AND ([t].{column} IS NULL OR [r].{} > [t].{column})", staged(index))
    });
    format!(
        "{chosen}UPDATE [t] SET {} FROM {} AS [t] WITH (UPDLOCK, HOLDLOCK) INNER JOIN [r] ON {} WHERE [r].[nth] = 1{};",
        set.join(", "),
        target.name.as_str(),
        same_key(target, "[r]"),
        newer.unwrap_or_default(),
    )
}

/// <https://learn.microsoft.com/sql/t-sql/statements/delete-transact-sql>
fn delete(target: &Target, rows: &str) -> String {
    format!(
        "DELETE [t] FROM {} AS [t] WHERE EXISTS (SELECT 1 FROM {STAGED} AS [s] WHERE {rows} AND {});",
        target.name.as_str(),
        same_key(target, "[s]"),
    )
}

fn same_key(target: &Target, rows: &str) -> String {
    let same = |index: &usize| format!("[t].{} = {rows}.{}", quoted(&target.columns[*index].name), staged(*index));
    target.key.iter().map(same).collect::<Vec<_>>().join(" AND ")
}

/// Hands the rows to a procedure as its table-valued parameter. What the procedure does is within the transaction.
/// <https://learn.microsoft.com/sql/relational-databases/tables/use-table-valued-parameters-database-engine>
fn call(target: &Target, rows: &str) -> String {
    let Some(procedure) = &target.procedure else { return String::new() };
    format!(
        "DECLARE @rows {}; INSERT INTO @rows ({}) SELECT {} FROM {STAGED} WHERE {rows} ORDER BY [{ROW}]; EXECUTE {} {} = @rows;",
        procedure.of.as_str(),
        target.names(quoted),
        target.staged(staged),
        target.name.as_str(),
        procedure.parameter,
    )
}

/// Makes the target.
/// <https://learn.microsoft.com/sql/t-sql/statements/create-table-transact-sql>
/// <https://learn.microsoft.com/sql/t-sql/statements/create-columnstore-index-transact-sql>
pub fn create_target(name: &Name, columns: &[(String, String, bool)], key: &[String], columnstore: bool) -> String {
    let define = |(name, of, nullable): &(String, String, bool)| {
        format!("{} {of} {}", quoted(name), if *nullable { "NULL" } else { "NOT NULL" })
    };
    let mut parts: Vec<String> = columns.iter().map(define).collect();
    if columnstore {
        parts.push("INDEX [millrace_columns] CLUSTERED COLUMNSTORE".into());
    }
    if !key.is_empty() {
        let columns: Vec<String> = key.iter().map(|column| quoted(column)).collect();
        let kind = if columnstore { "NONCLUSTERED " } else { "" };
        parts.push(format!("PRIMARY KEY {kind}({})", columns.join(", ")));
    }
    format!(
        "IF OBJECT_ID({}, N'U') IS NULL CREATE TABLE {} ({});",
        text(name.as_str()),
        name.as_str(),
        parts.join(", ")
    )
}

/// All rows of a table, in the order of a column. <https://learn.microsoft.com/sql/t-sql/queries/select-transact-sql>
pub fn read(name: &Name, columns: &[&CatalogColumn], by: Option<&str>) -> String {
    let order = by.map(|column| format!(" ORDER BY {}", quoted(column))).unwrap_or_default();
    format!("SELECT {} FROM {}{order};", read_whole(columns, ""), name.as_str())
}

/// The rows of some keys, each once. @P1: the keys as JSON, an array of arrays with a value for each of `keys`. One text for any
/// number of keys is planned once, and has no bound to its parameters. The keys become of the columns' own types, and texts compare as
/// the column's do, so that an index of them is sought in; of keys that are one to the server, one is left, or their row would come for
/// each. <https://learn.microsoft.com/sql/t-sql/functions/openjson-transact-sql>
/// <https://learn.microsoft.com/sql/t-sql/statements/collations>
pub fn fetch(name: &Name, columns: &[&CatalogColumn], keys: &[&CatalogColumn]) -> String {
    let all = |one: &dyn Fn(usize, &CatalogColumn) -> String, between: &str| {
        let parts: Vec<String> = keys.iter().enumerate().map(|(at, key)| one(at, key)).collect();
        parts.join(between)
    };
    format!(
        "SELECT {} FROM (SELECT DISTINCT {} FROM OPENJSON(@P1) WITH ({})) AS [k] INNER JOIN {} AS [t] ON {};",
        read_whole(columns, "[t]."),
        all(&own_type, ", "),
        all(&|at, key| format!("{} {} '$[{at}]'", staged(at), carried(key)), ", "),
        name.as_str(),
        all(&|at, key| format!("[t].{} = [k].{}", quoted(&key.column.name), staged(at)), " AND "),
    )
}

/// The type in which the value of a key is taken out of JSON.
fn carried(key: &CatalogColumn) -> String {
    match &key.column.of {
        SqlType::Text { length: Some(n), .. } if *n <= LONGEST_UTF16 => format!("nvarchar({n})"),
        SqlType::Text { .. } => "nvarchar(max)".into(),
        _ => key.declared.clone(),
    }
}

/// The value of a key as its column has it.
fn own_type(at: usize, key: &CatalogColumn) -> String {
    match (&key.column.of, &key.column.collation) {
        (SqlType::Text { .. }, Some(collation)) => {
            format!("CAST({0} COLLATE {collation} AS {1}) AS {0}", staged(at), key.declared)
        }
        _ => staged(at),
    }
}

/// <https://learn.microsoft.com/sql/t-sql/functions/cast-and-convert-transact-sql>
fn read_whole(columns: &[&CatalogColumn], of: &str) -> String {
    let column = |there: &&CatalogColumn| {
        let name = quoted(&there.column.name);
        match there.read_as() {
            Some(as_type) => format!("CAST({of}{name} AS {as_type}) AS {name}"),
            None => format!("{of}{name}"),
        }
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Procedure;
    use crate::types::SqlType;

    fn column(name: &str, of: SqlType) -> Column {
        let collation = matches!(of, SqlType::Text { .. }).then(|| "Latin1_General_100_CI_AS".to_string());
        Column { name: name.into(), of, nullable: true, collation }
    }

    fn target() -> Target {
        Target {
            name: Name::of(&["dbo", "raw ] data"]),
            columns: vec![
                column("EventId", SqlType::UniqueIdentifier),
                column("Type", SqlType::of("varchar", 10, 0, 0, None)),
                column("Version]", SqlType::Integer(8)),
            ],
            from: vec![],
            key: vec![0, 1],
            version: None,
            columnstore: false,
            table_lock: false,
            procedure: None,
        }
    }

    /// Every kind of batch and statement: what it is for, the pages that document it, and its text.
    fn all() -> Vec<(&'static str, &'static [&'static str], String)> {
        let markers = Name::of(&["dbo", "millrace_commits"]);
        let marker = Marker { markers: &markers, job: "7f3a", sink: "it's", writer: "w-1", lane: 0, entry: 42 };
        let (plain, locked) = (target(), Target { table_lock: true, ..target() });
        let newest = Target { version: Some(2), ..target() };
        let only_key = Target { columns: target().columns[..2].to_vec(), ..target() };
        let procedure = Procedure { parameter: "@payload".into(), of: Name::of(&["dbo", "payloadType"]) };
        let procedure = Target { procedure: Some(procedure), ..target() };
        let columns =
            [("a".to_string(), "bigint".to_string(), false), ("b".to_string(), "nvarchar(max)".to_string(), true)];
        let [id, name, price] =
            [("EventId", "uniqueidentifier"), ("Name", "varchar(20)"), ("Price", "money")].map(|(name, of)| {
                let collation = of.starts_with("varchar").then_some("SQL_Latin1_General_CP1_CI_AS");
                crate::catalog::tests::column(name, of, collation)
            });
        let create = |columnstore| create_target(&plain.name, &columns, &["a".into()], columnstore);
        const OBJECTS: &[&str] = &["t-sql/functions/object-id-transact-sql"];
        const CREATED: &[&str] = &["t-sql/statements/create-table-transact-sql"];
        const SELECTED: &[&str] = &["t-sql/queries/select-transact-sql"];
        const COLUMNS: &[&str] = &[
            "relational-databases/system-catalog-views/sys-columns-transact-sql",
            "t-sql/functions/collationproperty-transact-sql",
        ];
        const APPENDED: &[&str] = &[
            "t-sql/language-elements/try-catch-transact-sql",
            "t-sql/language-elements/begin-transaction-transact-sql",
            "t-sql/queries/update-transact-sql",
            "t-sql/statements/insert-transact-sql",
        ];
        const BY_KEY: &[&str] = &[
            "t-sql/language-elements/try-catch-transact-sql",
            "t-sql/queries/update-transact-sql",
            "t-sql/functions/row-number-transact-sql",
            "t-sql/queries/hints-transact-sql-table",
        ];
        const DELETED: &[&str] =
            &["t-sql/language-elements/try-catch-transact-sql", "t-sql/statements/delete-transact-sql"];
        const FETCHED: &[&str] = &["t-sql/functions/openjson-transact-sql", "t-sql/statements/collations"];
        const SETTINGS: &[&str] = &[
            "t-sql/statements/set-xact-abort-transact-sql",
            "t-sql/statements/set-nocount-transact-sql",
            "t-sql/statements/set-lock-timeout-transact-sql",
            "t-sql/statements/set-transaction-isolation-level-transact-sql",
        ];
        const INDEXED: &[&str] = &[
            "relational-databases/system-catalog-views/sys-indexes-transact-sql",
            "relational-databases/system-catalog-views/sys-index-columns-transact-sql",
        ];
        const LOCKED: &[&str] = &[
            "relational-databases/system-catalog-views/sys-tables-transact-sql",
            "relational-databases/system-catalog-views/sys-partitions-transact-sql",
        ];
        const PARAMETERS: &[&str] = &[
            "relational-databases/system-catalog-views/sys-parameters-transact-sql",
            "relational-databases/system-catalog-views/sys-table-types-transact-sql",
        ];
        const COLUMNSTORE: &[&str] =
            &["t-sql/statements/create-table-transact-sql", "t-sql/statements/create-columnstore-index-transact-sql"];
        const CALLED: &[&str] = &[
            "t-sql/language-elements/try-catch-transact-sql",
            "relational-databases/tables/use-table-valued-parameters-database-engine",
        ];
        vec![
            ("a session begins", SETTINGS, settings()),
            ("the columns of the table", COLUMNS, super::columns(TABLE)),
            ("the columns of the table or view", COLUMNS, super::columns(TABLE_OR_VIEW)),
            ("the indexes of the table", INDEXED, INDEXES.into()),
            ("how far locks grow", LOCKED, LOCKS_OF_PARTITIONS.into()),
            (
                "what a person may do about it",
                &["t-sql/statements/alter-table-transact-sql"],
                lock_by_partition(&plain.name),
            ),
            ("the parameters of the procedure", PARAMETERS, PROCEDURE.into()),
            ("is there such a procedure", OBJECTS, PROCEDURE_EXISTS.into()),
            ("is there such a table", OBJECTS, TABLE_EXISTS.into()),
            ("the markers' table is made", CREATED, create_markers(&markers)),
            ("a marker is added", &["t-sql/statements/insert-transact-sql"], add_marker(&markers)),
            ("a marker is looked at", SELECTED, super::marker(&markers)),
            ("a table is made", CREATED, create(false)),
            ("a table of columns is made", COLUMNSTORE, create(true)),
            ("a session's own table", CREATED, create_staged(&plain.columns)),
            ("it is emptied", &["t-sql/statements/truncate-table-transact-sql"], empty_staged()),
            ("long values follow", &["t-sql/statements/create-index-transact-sql"], index_staged()),
            ("a long value", &["t-sql/queries/update-transact-sql"], complete_staged(1)),
            ("append", APPENDED, marker.show(&plain, Write::Append)),
            ("append under a lock", APPENDED, marker.show(&locked, Write::Append)),
            ("insert", BY_KEY, marker.show(&plain, Write::Insert)),
            ("upsert", BY_KEY, marker.show(&plain, Write::Upsert)),
            ("upsert by version", BY_KEY, marker.show(&newest, Write::Upsert)),
            ("upsert of keys alone", BY_KEY, marker.show(&only_key, Write::Upsert)),
            ("delete", DELETED, marker.show(&only_key, Write::Delete)),
            ("by a procedure", CALLED, marker.show(&procedure, Write::Procedure)),
            ("some rows are tried", APPENDED, marker.attempt(&plain, Write::Append, 10..=19, &[11, 12])),
            ("the table is read back", SELECTED, read(&plain.name, &[&id, &name], Some("Name"))),
            ("rows of some keys", FETCHED, fetch(&plain.name, &[&id, &name, &price], &[&id])),
            ("rows of keys of two columns", FETCHED, fetch(&plain.name, &[&id, &name], &[&id, &name])),
        ]
    }

    /// So that all that is said to a server can be read at a glance, and is seen when it changes.
    #[test]
    fn what_is_said_to_a_server_is_what_stands_in_statements_sql() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("statements.sql");
        let head =
            "-- Made by the tests of src/statements.rs (UPDATE_EXPECT=1). Parsed in the tests by a parser of others.\n";
        let texts = all().into_iter().map(|(name, pages, text)| {
            let link = |page: &&str| format!("-- <https://learn.microsoft.com/sql/{page}>\n");
            let links: String = pages.iter().map(link).collect();
            format!("\n-- {name}\n{links}{}\n", text.replace("; ", ";\n"))
        });
        let made = texts.fold(head.to_string(), |all, text| all + &text);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap() == made,
            "statements.sql is behind; UPDATE_EXPECT=1 cargo test -p sqlserver"
        );
    }

    /// Whoever looked at the marker may have slept since, while another showed some of what was staged here.
    #[tokio::test]
    async fn a_batch_shows_what_is_above_the_marker_once() {
        let server = tds_double::Server::start(tds_double::Options::default()).await;
        let (markers, columns) = (Name::of(&["dbo", "millrace_commits"]), vec![column("n", SqlType::Integer(8))]);
        let target = Target { name: Name::of(&["dbo", "shown"]), columns, key: vec![], ..target() };
        server.run("CREATE TABLE [dbo].[shown] ([n] bigint NOT NULL);");
        server.run(&create_markers(&markers));
        server.run("INSERT INTO [dbo].[millrace_commits] VALUES (N'7f3a', N'it''s', N'w-1', 0, 5, SYSUTCDATETIME());");
        server.run(&create_staged(&target.columns));
        server.run("INSERT INTO #millrace ([entry], [row], [c0]) VALUES (5, 0, 50), (6, 1, 60), (7, 2, 70);");
        let marker = |entry| Marker { markers: &markers, job: "7f3a", sink: "it's", writer: "w-1", lane: 0, entry };
        let shown = || server.query("SELECT [n] FROM [dbo].[shown]").concat().into_iter().flatten().collect::<Vec<_>>();
        server.run(&marker(5).show(&target, Write::Append));
        server.run(&marker(7).attempt(&target, Write::Append, 0..=2, &[]));
        assert_eq!(shown(), [""; 0]);
        for _ in 0..2 {
            server.run(&marker(7).show(&target, Write::Append));
            assert_eq!(shown(), ["60", "70"]);
        }
    }

    #[test]
    fn names_and_texts_cannot_end_themselves() {
        assert_eq!(Name::of(&["a]b", "c.d"]).as_str(), "[a]]b].[c.d]");
        assert_eq!(text("it's"), "N'it''s'");
    }
}
