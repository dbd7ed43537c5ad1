//! What there is in the database. It is kept in SQLite, so that a transaction that is rolled back takes its definitions along, and it
//! is read again where it is needed: a definition is kept as the statement that made it.

use rusqlite::{Connection, OptionalExtension, params};

use super::ast::{self, Expr, Index, IndexKind, Name, Space, Statement};
use super::parser::parse;
use super::partitions::{self, Divided};
use super::translate;
use crate::collation::{Collation, INSTANT, NUMBER};
use crate::error::{SqlError, exists_already, no_column};
use crate::types::Type;

/// A table, a temporary table, a table type, or a table variable.
#[derive(Debug, Clone)]
pub struct Relation {
    pub id: i64,
    pub schema: String,
    pub name: String,
    /// Within SQLite.
    pub stored: String,
    pub temporary: bool,
    pub columns: Vec<Column>,
    pub keys: Vec<Key>,
    pub checks: Vec<Check>,
    /// Where it lies, unless an index that is the table itself was put elsewhere.
    pub on: Option<Space>,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// Within SQLite.
    pub stored: String,
    pub of: Type,
    pub collation: Option<Collation>,
    pub nullable: bool,
    pub identity: Option<(i64, i64)>,
    pub default: Option<Expr>,
    pub computed: Option<Expr>,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub name: String,
    pub kind: IndexKind,
    pub clustered: bool,
    pub columns: Vec<(usize, bool)>,
    pub condition: Option<Expr>,
    pub on: Option<Space>,
}

impl Key {
    pub fn is_unique(&self) -> bool {
        !matches!(self.kind, IndexKind::Plain | IndexKind::Columnstore)
    }
}

#[derive(Debug, Clone)]
pub struct Check {
    pub name: String,
    pub column: Option<String>,
    pub condition: Expr,
}

pub fn folded(name: &str) -> String {
    name.to_lowercase()
}

pub fn same(one: &str, two: &str) -> bool {
    folded(one) == folded(two)
}

impl Relation {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| same(&column.name, name))
    }

    /// Where its rows lie.
    pub fn space(&self) -> Option<&Space> {
        let clustered = self.keys.iter().find(|key| key.clustered);
        clustered.map_or(self.on.as_ref(), |key| key.on.as_ref())
    }

    /// As errors about keys and checks name it.
    pub fn spoken(&self) -> String {
        if self.temporary { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }

    /// As errors about single values name it.
    pub fn spoken_with(&self, database: &str) -> String {
        if self.name.starts_with('@') {
            return self.name.clone();
        }
        format!("{}.{}.{}", if self.temporary { "tempdb" } else { database }, self.schema, self.name)
    }

    /// A definition, checked.
    pub fn of(table: &ast::Table, name: &Name, id: i64, temporary: bool) -> Result<Self, SqlError> {
        let mut relation = Relation {
            id,
            schema: name.schema.clone().unwrap_or_else(|| "dbo".into()),
            name: name.name.clone(),
            stored: format!("{}.t{}", if temporary { "temp" } else { "main" }, id.unsigned_abs()),
            temporary,
            columns: Vec::new(),
            keys: Vec::new(),
            checks: Vec::new(),
            on: table.on.clone(),
        };
        for column in &table.columns {
            relation.add_column(column)?;
        }
        relation.add_computed(table)?;
        for key in &table.keys {
            relation.add_key(key, Some(table))?;
        }
        for check in &table.checks {
            let hint = check.column.clone().unwrap_or_default();
            let name = check.name.clone().unwrap_or_else(|| relation.made_name("CK", &hint, relation.checks.len()));
            relation.checks.push(Check { name, column: check.column.clone(), condition: check.condition.clone() });
        }
        for check in &relation.checks {
            translate::condition_of(&check.condition, &relation)?;
        }
        Ok(relation)
    }

    fn add_column(&mut self, column: &ast::Column) -> Result<(), SqlError> {
        if self.column(&column.name).is_some() {
            let message = format!(
                "Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.",
                column.name, self.name
            );
            return Err(SqlError { state: 3, ..SqlError::new(2705, 16, message) });
        }
        let collation = match (&column.collation, column.of.is_text()) {
            (Some(name), true) => Some(Collation::named(name)?),
            (None, true) => Some(Collation::default()),
            (Some(_), false) => {
                let message = format!("Expression type {} is invalid for COLLATE clause.", column.of.name());
                return Err(SqlError::new(447, 16, message));
            }
            (None, false) => None,
        };
        self.columns.push(Column {
            name: column.name.clone(),
            stored: format!("c{}", self.columns.len() + 1),
            of: column.of,
            collation,
            nullable: column.nullable.unwrap_or(true),
            identity: column.identity,
            default: column.default.clone(),
            computed: column.computed.clone(),
        });
        Ok(())
    }

    /// A computed column has the type of its expression.
    fn add_computed(&mut self, table: &ast::Table) -> Result<(), SqlError> {
        for (at, column) in table.columns.iter().enumerate() {
            if let Some(computed) = &column.computed {
                let typed = translate::expression_of(computed, self)?;
                self.columns[at].of = typed.of;
                self.columns[at].collation = typed.of.is_text().then(|| typed.collation.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// `table`: the definition that it is part of, if it is not an index that comes later.
    pub fn add_key(&mut self, index: &Index, table: Option<&ast::Table>) -> Result<(), SqlError> {
        let is_primary = index.kind == IndexKind::PrimaryKey;
        if is_primary && self.keys.iter().any(|key| key.kind == IndexKind::PrimaryKey) {
            let message = format!("Cannot add multiple PRIMARY KEY constraints to table '{}'.", self.name);
            return Err(SqlError::new(8110, 16, message));
        }
        let prefix = if is_primary { "PK" } else { "UQ" };
        let name = index.name.clone().unwrap_or_else(|| self.made_name(prefix, "", self.keys.len()));
        if let Some(other) = self.keys.iter().find(|key| key.clustered && index.clustered) {
            let message = format!(
                "Cannot create more than one clustered index on table '{}'. Drop the existing clustered index '{}' before creating another.",
                self.name, other.name
            );
            return Err(SqlError { state: 3, ..SqlError::new(1902, 16, message) });
        }
        if self.keys.iter().any(|key| same(&key.name, &name)) {
            let message = format!(
                "The operation failed because an index or statistics with name '{name}' already exists on table '{}'.",
                self.name
            );
            return Err(SqlError::new(1913, 16, message));
        }
        let mut columns = Vec::new();
        for (column, descending) in &index.columns {
            let at = self.key_column(column)?;
            if is_primary {
                self.forbid_null(at, table)?;
            }
            columns.push((at, *descending));
        }
        // With the table, unless it is put elsewhere.
        let on = index.on.as_ref().or_else(|| self.space()).cloned();
        let Index { kind, clustered, condition, .. } = index.clone();
        self.keys.push(Key { name, kind, clustered, columns, condition, on });
        Ok(())
    }

    fn key_column(&self, name: &str) -> Result<usize, SqlError> {
        let at = self.column(name).ok_or_else(|| no_key_column(name))?;
        let of = self.columns[at].of;
        if of == Type::Xml || of.dimensions().0 < 0 {
            let message = format!(
                "Column '{name}' in table '{}' is of a type that is invalid for use as a key column in an index.",
                self.name
            );
            return Err(SqlError::new(1919, 16, message));
        }
        Ok(at)
    }

    fn forbid_null(&mut self, at: usize, table: Option<&ast::Table>) -> Result<(), SqlError> {
        let said = table.and_then(|table| table.columns[at].nullable);
        if said == Some(true) {
            let message = format!("Cannot define PRIMARY KEY constraint on nullable column in table '{}'.", self.name);
            return Err(SqlError::new(8111, 16, message));
        }
        self.columns[at].nullable = false;
        Ok(())
    }

    /// A name as the server makes one for a constraint without.
    fn made_name(&self, prefix: &str, column: &str, number: usize) -> String {
        let short = |text: &str, length| text.chars().take(length).collect::<String>();
        let middle = if column.is_empty() {
            short(&self.name, 9)
        } else {
            format!("{}__{}", short(&self.name, 9), short(column, 5))
        };
        let digest = (self.id.unsigned_abs() * 31 + number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if prefix == "CK" {
            format!("{prefix}__{middle}__{:08X}", digest >> 32)
        } else {
            format!("{prefix}__{middle}__{digest:016X}")
        }
    }
}

pub fn no_key_column(name: &str) -> SqlError {
    SqlError::new(1911, 16, format!("Column name '{name}' does not exist in the target table or view."))
}

/// How a column's values are ordered in SQLite.
pub fn order_of(of: Type, collation: Option<&Collation>) -> Option<&'static str> {
    match of {
        _ if of.is_text() => Some(collation.map_or("TDS_CI", Collation::sqlite)),
        _ if of.is_decimal() => Some(NUMBER),
        Type::DateTimeOffset(_) => Some(INSTANT),
        _ => None,
    }
}

/// The table within SQLite. Columns have no affinity there: what is put in is what is there.
pub fn store(connection: &Connection, relation: &Relation) -> Result<(), SqlError> {
    let mut parts = Vec::new();
    for column in &relation.columns {
        let order =
            order_of(column.of, column.collation.as_ref()).map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        let computed = match &column.computed {
            Some(computed) => {
                format!(" GENERATED ALWAYS AS ({}) VIRTUAL", translate::expression_of(computed, relation)?.sql)
            }
            None => String::new(),
        };
        parts.push(format!("{}{order}{computed}", column.stored));
    }
    for check in &relation.checks {
        let condition = translate::condition_of(&check.condition, relation)?;
        parts.push(format!("CONSTRAINT {} CHECK ({condition})", quoted(&check.name)));
    }
    connection.execute_batch(&format!("CREATE TABLE {} ({})", relation.stored, parts.join(", ")))?;
    for at in 0..relation.keys.len() {
        store_key(connection, relation, at)?;
    }
    Ok(())
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The server takes two NULLs for equal in a unique index, SQLite does not: there each nullable column stands as whether it is NULL,
/// and what it is otherwise. <https://learn.microsoft.com/sql/t-sql/statements/create-index-transact-sql#unique>
pub fn store_key(connection: &Connection, relation: &Relation, at: usize) -> Result<(), SqlError> {
    let key = &relation.keys[at];
    if key.kind == IndexKind::Columnstore {
        return Ok(());
    }
    let (database, table) = relation.stored.split_once('.').unwrap_or(("main", &relation.stored));
    let unique = key.is_unique();
    let mut plain = Vec::new();
    let mut strict = Vec::new();
    for (column, _) in &key.columns {
        let column = &relation.columns[*column];
        plain.push(column.stored.clone());
        if column.nullable {
            let order = order_of(column.of, column.collation.as_ref())
                .map(|name| format!(" COLLATE {name}"))
                .unwrap_or_default();
            strict.push(format!("({0} IS NULL), ifnull({0}, x''){order}", column.stored));
        } else {
            strict.push(column.stored.clone());
        }
    }
    let condition = match &key.condition {
        Some(condition) => format!(" WHERE {}", translate::condition_of(condition, relation)?),
        None => String::new(),
    };
    let name = |kind: &str| format!("{database}.{table}_{kind}{}", at + 1);
    if unique {
        let columns = strict.join(", ");
        connection.execute_batch(&format!("CREATE UNIQUE INDEX {} ON {table} ({columns}){condition}", name("u")))?;
    }
    if !unique || plain != strict {
        let columns = plain.join(", ");
        connection.execute_batch(&format!("CREATE INDEX {} ON {table} ({columns})", name("i")))?;
    }
    Ok(())
}

/// The views of the catalog that are here, as tables.
/// <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/object-catalog-views-transact-sql>
const VIEWS: [&str; 12] = [
    "CREATE TABLE sys.schemas (name nvarchar(128) NOT NULL, schema_id int NOT NULL)",
    "CREATE TABLE sys.objects (name nvarchar(128) NOT NULL, object_id int NOT NULL, schema_id int NOT NULL, \
     type char(2) COLLATE Latin1_General_BIN NULL, type_desc nvarchar(60) NULL)",
    "CREATE TABLE sys.tables (name nvarchar(128) NOT NULL, object_id int NOT NULL, schema_id int NOT NULL, lock_escalation tinyint NOT NULL)",
    "CREATE TABLE sys.partitions (partition_id bigint NOT NULL, object_id int NOT NULL, index_id int NOT NULL, partition_number int NOT NULL)",
    "CREATE TABLE sys.columns (object_id int NOT NULL, name nvarchar(128) NULL, column_id int NOT NULL, \
     system_type_id tinyint NOT NULL, user_type_id int NOT NULL, max_length smallint NOT NULL, precision tinyint NOT NULL, \
     scale tinyint NOT NULL, collation_name nvarchar(128) NULL, is_nullable bit NULL, is_ansi_padded bit NOT NULL, \
     is_identity bit NOT NULL, is_computed bit NOT NULL, default_object_id int NOT NULL, generated_always_type tinyint NULL, \
     encryption_type int NULL, is_hidden bit NULL)",
    "CREATE TABLE sys.indexes (object_id int NOT NULL, name nvarchar(128) NULL, index_id int NOT NULL, type tinyint NOT NULL, \
     type_desc nvarchar(60) NULL, is_unique bit NULL, is_primary_key bit NULL, is_unique_constraint bit NULL, is_disabled bit NULL, \
     has_filter bit NULL, ignore_dup_key bit NULL, filter_definition nvarchar(max) NULL)",
    "CREATE TABLE sys.index_columns (object_id int NOT NULL, index_id int NOT NULL, index_column_id int NOT NULL, \
     column_id int NOT NULL, key_ordinal tinyint NOT NULL, partition_ordinal tinyint NOT NULL, is_descending_key bit NULL, is_included_column bit NULL)",
    "CREATE TABLE sys.table_types (name nvarchar(128) NOT NULL, schema_id int NOT NULL, system_type_id tinyint NOT NULL, \
     user_type_id int NOT NULL, is_user_defined bit NOT NULL, is_table_type bit NOT NULL, type_table_object_id int NOT NULL)",
    "CREATE TABLE sys.parameters (object_id int NOT NULL, name nvarchar(128) NULL, parameter_id int NOT NULL, \
     system_type_id tinyint NOT NULL, user_type_id int NOT NULL, is_output bit NOT NULL, is_readonly bit NOT NULL)",
    "CREATE TABLE sys.database_principals (name nvarchar(128) NOT NULL, principal_id int NOT NULL, type char(1) NOT NULL, type_desc nvarchar(60) NULL)",
    "CREATE TABLE sys.database_permissions (class tinyint NOT NULL, major_id int NOT NULL, minor_id int NOT NULL, \
     grantee_principal_id int NOT NULL, permission_name nvarchar(128) NULL, state char(1) NOT NULL)",
    "CREATE TABLE sys.procedures (name nvarchar(128) NOT NULL, object_id int NOT NULL, schema_id int NOT NULL, body nvarchar(max) NULL)",
];

const OWN: &str = "objects (object_id INTEGER PRIMARY KEY, schema TEXT, name TEXT, kind TEXT, definition TEXT); \
     CREATE TABLE IF NOT EXISTS %.added (object_id INTEGER, definition TEXT);";

/// A new database.
pub fn create(connection: &Connection) -> Result<(), SqlError> {
    connection.execute_batch(&format!("CREATE TABLE IF NOT EXISTS main.{}", OWN.replace('%', "main")))?;
    for (at, text) in VIEWS.iter().enumerate() {
        let name = Name { database: None, schema: Some("sys".into()), name: String::new() };
        let (name, relation) = relation_of(text, &name, at as i64 + 1, false)?;
        store(connection, &relation)?;
        remember(connection, &name, relation.id, "S", text)?;
    }
    for (name, id) in [("dbo", 1), ("sys", 4)] {
        add_row(connection, "schemas", &[&name, &id])?;
    }
    Ok(())
}

/// What a session has of its own.
pub fn create_temporary(connection: &Connection) -> Result<(), SqlError> {
    Ok(connection.execute_batch(&format!("CREATE TABLE IF NOT EXISTS temp.{}", OWN.replace('%', "temp")))?)
}

fn relation_of(text: &str, name: &Name, id: i64, temporary: bool) -> Result<(Name, Relation), SqlError> {
    let statement = parse(text)?.pop();
    let (said, table) = match statement {
        Some(Statement::CreateTable { name, table, .. } | Statement::CreateType { name, table, .. }) => (name, table),
        _ => return Err(SqlError::new(8624, 17, "a definition that is none")),
    };
    let full = Name { database: None, schema: said.schema.or(name.schema.clone()), name: said.name };
    let relation = Relation::of(&table, &full, id, temporary)?;
    Ok((full, relation))
}

pub fn remember(connection: &Connection, name: &Name, id: i64, kind: &str, text: &str) -> Result<(), SqlError> {
    let database = if id < 0 { "temp" } else { "main" };
    let schema = name.schema.clone().unwrap_or_else(|| "dbo".into());
    let sql = format!("INSERT INTO {database}.objects VALUES (?1, ?2, ?3, ?4, ?5)");
    connection.execute(&sql, params![id, folded(&schema), folded(&name.name), kind, text])?;
    Ok(())
}

/// A row of a view of the catalog.
pub fn add_row(connection: &Connection, view: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), SqlError> {
    let stored = stored_view(connection, view)?;
    let places = (1..=values.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    let columns = (1..=values.len()).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    connection.execute(&format!("INSERT INTO {stored} ({columns}) VALUES ({places})"), values)?;
    Ok(())
}

pub fn stored_view(connection: &Connection, view: &str) -> Result<String, SqlError> {
    let sql = "SELECT object_id FROM main.objects WHERE schema = 'sys' AND name = ?1";
    let id: i64 = connection.query_row(sql, [view], |row| row.get(0))?;
    Ok(format!("main.t{id}"))
}

pub fn is_temporary(name: &Name) -> bool {
    name.name.starts_with('#')
}

/// The identity and the definition of an object, of whatever kind.
pub fn look_up(connection: &Connection, name: &Name) -> Result<Option<(i64, String, String)>, SqlError> {
    let database = if is_temporary(name) { "temp" } else { "main" };
    let schema = match &name.schema {
        Some(schema) if !is_temporary(name) => folded(schema),
        _ => "dbo".into(),
    };
    let sql = format!("SELECT object_id, kind, definition FROM {database}.objects WHERE schema = ?1 AND name = ?2");
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    Ok(connection.prepare_cached(&sql)?.query_row([schema, folded(&name.name)], row).optional()?)
}

/// A table (`U`, or `S` of the system's) or a table type (`TT`).
pub fn find(connection: &Connection, name: &Name, kinds: &[&str]) -> Result<Option<Relation>, SqlError> {
    let Some((id, kind, definition)) = look_up(connection, name)? else { return Ok(None) };
    if !kinds.contains(&kind.as_str()) {
        return Ok(None);
    }
    let (_, mut relation) = relation_of(&definition, name, id, id < 0)?;
    let database = if id < 0 { "temp" } else { "main" };
    let sql = format!("SELECT definition FROM {database}.added WHERE object_id = ?1 ORDER BY rowid");
    let mut statement = connection.prepare_cached(&sql)?;
    for text in statement.query_map([id], |row| row.get::<_, String>(0))? {
        if let Some(Statement::CreateIndex { index, .. }) = parse(&text?)?.pop() {
            relation.add_key(&index, None)?;
        }
    }
    Ok(Some(relation))
}

/// `kind`: of OBJECT_ID's second argument.
pub fn object_id(connection: &Connection, name: &Name, kind: Option<&str>) -> Result<Option<i64>, SqlError> {
    let found = look_up(connection, name)?.filter(|(_, of, _)| match kind {
        Some(kind) => of.eq_ignore_ascii_case(kind.trim()),
        None => of != "TT",
    });
    Ok(found.map(|(id, _, _)| id))
}

pub fn has_schema(connection: &Connection, name: &str) -> Result<Option<i64>, SqlError> {
    let stored = stored_view(connection, "schemas")?;
    let sql = format!("SELECT c2 FROM {stored} WHERE c1 = ?1");
    Ok(connection.query_row(&sql, [name], |row| row.get(0)).optional()?)
}

pub fn create_schema(connection: &Connection, name: &str) -> Result<(), SqlError> {
    if has_schema(connection, name)?.is_some() {
        return Err(exists_already(name));
    }
    let stored = stored_view(connection, "schemas")?;
    let next: i64 =
        connection
            .query_row(&format!("SELECT max(c2, 4) + 1 FROM (SELECT max(c2) AS c2 FROM {stored})"), [], |r| r.get(0))?;
    add_row(connection, "schemas", &[&name, &next])
}

pub fn next_id(connection: &Connection, temporary: bool) -> Result<i64, SqlError> {
    let sql = if temporary {
        "SELECT min(ifnull(min(object_id), 0), -1000) - 1 FROM temp.objects"
    } else {
        "SELECT max(ifnull(max(object_id), 0), 245575913) + 16 FROM main.objects"
    };
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// The schema's identity, or the error that the server has for a schema that is not there.
fn schema_of(connection: &Connection, name: &Name) -> Result<i64, SqlError> {
    let schema = name.schema.as_deref().unwrap_or("dbo");
    has_schema(connection, schema)?.ok_or_else(|| {
        let message = format!(
            "The specified schema name \"{schema}\" either does not exist or you do not have permission to use it."
        );
        SqlError::new(2760, 16, message)
    })
}

pub fn create_table(connection: &Connection, name: &Name, table: &ast::Table, text: &str) -> Result<(), SqlError> {
    let temporary = is_temporary(name);
    let schema = if temporary { 1 } else { schema_of(connection, name)? };
    if look_up(connection, name)?.is_some() {
        return Err(exists_already(&name.name));
    }
    let id = next_id(connection, temporary)?;
    let relation = Relation::of(table, name, id, temporary)?;
    partitions::check(connection, &relation)?;
    store(connection, &relation)?;
    remember(connection, name, id, "U", text)?;
    if !temporary {
        add_row(connection, "objects", &[&relation.name, &id, &schema, &"U ", &"USER_TABLE"])?;
        add_row(connection, "tables", &[&relation.name, &id, &schema, &0])?;
        describe(connection, &relation)?;
        describe_partitions(connection, &relation)?;
    }
    Ok(())
}

pub fn escalate_locks(connection: &Connection, table: &Name, to: i64) -> Result<(), SqlError> {
    let relation = existing(connection, table)?;
    let stored = stored_view(connection, "tables")?;
    connection.execute(&format!("UPDATE {stored} SET c4 = ?1 WHERE c2 = ?2"), [to, relation.id])?;
    Ok(())
}

fn existing(connection: &Connection, table: &Name) -> Result<Relation, SqlError> {
    find(connection, table, &["U"])?.ok_or_else(|| {
        let name = table.shown();
        let message =
            format!("Cannot find the object \"{name}\" because it does not exist or you do not have permissions.");
        SqlError::new(4902, 11, message)
    })
}

pub fn create_type(connection: &Connection, name: &Name, table: &ast::Table, text: &str) -> Result<(), SqlError> {
    let schema = schema_of(connection, name)?;
    if look_up(connection, name)?.is_some() {
        let message =
            format!("The type '{}' already exists, or you do not have permission to create it.", name.shown());
        return Err(SqlError::new(219, 16, message));
    }
    let id = next_id(connection, false)?;
    let relation = Relation::of(table, name, id, false)?;
    remember(connection, name, id, "TT", text)?;
    add_row(connection, "table_types", &[&name.name, &schema, &243, &(id % 100_000 + 257), &1, &1, &id])?;
    describe(connection, &relation)
}

/// A view: its columns are described as they were when it was made. <https://learn.microsoft.com/sql/t-sql/statements/create-view-transact-sql>
pub fn create_view(
    connection: &Connection,
    name: &Name,
    columns: &[translate::Output],
    text: &str,
) -> Result<(), SqlError> {
    let schema = schema_of(connection, name)?;
    if look_up(connection, name)?.is_some() {
        return Err(exists_already(&name.name));
    }
    let mut table = ast::Table::default();
    for (at, column) in columns.iter().enumerate() {
        if column.name.is_empty() {
            let message =
                format!("Create View or Function failed because no column name was specified for column {}.", at + 1);
            return Err(SqlError::new(4511, 16, message));
        }
        let collation = column.typed.collation.as_ref().filter(|_| column.typed.of.is_text());
        table.columns.push(ast::Column {
            name: column.name.clone(),
            of: column.typed.of,
            collation: collation.map(|collation| collation.name.clone()),
            nullable: Some(column.typed.nullable),
            identity: None,
            default: None,
            computed: None,
        });
    }
    let id = next_id(connection, false)?;
    let relation = Relation::of(&table, name, id, false)?;
    remember(connection, name, id, "V", text)?;
    add_row(connection, "objects", &[&relation.name, &id, &schema, &"V ", &"VIEW"])?;
    describe_columns(connection, &relation)
}

/// What a view selects, if there is one of this name.
pub fn view(connection: &Connection, name: &Name) -> Result<Option<ast::Query>, SqlError> {
    let Some((_, kind, definition)) = look_up(connection, name)? else { return Ok(None) };
    match (kind.as_str(), parse(&definition)?.pop()) {
        ("V", Some(Statement::CreateView { query, .. })) => Ok(Some(*query)),
        _ => Ok(None),
    }
}

pub fn create_index(connection: &Connection, index: &Index, on: &Name, text: &str) -> Result<(), SqlError> {
    let Some(mut relation) = find(connection, on, &["U"])? else {
        let message = format!(
            "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
            on.shown()
        );
        return Err(SqlError::new(1088, 16, message));
    };
    relation.add_key(index, None)?;
    partitions::check(connection, &relation)?;
    let at = relation.keys.len() - 1;
    if let Err(error) = store_key(connection, &relation, at) {
        return Err(if error.message.contains("UNIQUE") { duplicates(&relation, at) } else { error });
    }
    let database = if relation.temporary { "temp" } else { "main" };
    connection.execute(&format!("INSERT INTO {database}.added VALUES (?1, ?2)"), params![relation.id, text])?;
    if !relation.temporary {
        forget_description(connection, relation.id)?;
        describe(connection, &relation)?;
        describe_partitions(connection, &relation)?;
    }
    Ok(())
}

fn duplicates(relation: &Relation, at: usize) -> SqlError {
    let message = format!(
        "The CREATE UNIQUE INDEX statement terminated because a duplicate key was found for the object name '{}' and the index name '{}'.",
        relation.spoken(),
        relation.keys[at].name
    );
    SqlError::new(1505, 16, message)
}

/// A procedure with one parameter, of a table type. <https://learn.microsoft.com/sql/t-sql/statements/create-procedure-transact-sql>
pub fn create_procedure(
    connection: &Connection,
    name: &Name,
    parameter: &str,
    of: &Name,
    body: &str,
) -> Result<(), SqlError> {
    let schema = schema_of(connection, name)?;
    let missing =
        || SqlError::new(2715, 16, format!("Column, parameter, or variable #1: Cannot find data type {}.", of.shown()));
    let relation = find(connection, of, &["TT"])?.ok_or_else(missing)?;
    parse(body)?;
    if look_up(connection, name)?.is_some() {
        return Err(exists_already(&name.name));
    }
    let id = next_id(connection, false)?;
    remember(connection, name, id, "P", &format!("{parameter}\n{}\n{body}", full(of)))?;
    add_row(connection, "objects", &[&name.name, &id, &schema, &"P ", &"SQL_STORED_PROCEDURE"])?;
    add_row(connection, "procedures", &[&name.name, &id, &schema])?;
    add_row(connection, "parameters", &[&id, &parameter, &1, &243, &(relation.id % 100_000 + 257), &0, &1])
}

fn full(name: &Name) -> String {
    let bracketed = |part: &str| format!("[{}]", part.replace(']', "]]"));
    format!("{}.{}", bracketed(name.schema.as_deref().unwrap_or("dbo")), bracketed(&name.name))
}

pub struct Procedure {
    pub parameter: String,
    pub of: Name,
    pub body: String,
}

pub fn procedure(connection: &Connection, name: &Name) -> Result<Option<Procedure>, SqlError> {
    let Some((_, kind, definition)) = look_up(connection, name)? else { return Ok(None) };
    let mut parts = definition.splitn(3, '\n');
    let (Some(parameter), Some(of), Some(body), "P") = (parts.next(), parts.next(), parts.next(), kind.as_str()) else {
        return Ok(None);
    };
    Ok(super::parser::parse_name(of).map(|of| Procedure { parameter: parameter.into(), of, body: body.into() }))
}

pub fn drop_table(connection: &Connection, name: &Name, if_exists: bool) -> Result<(), SqlError> {
    let Some(relation) = find(connection, name, &["U"])? else {
        if if_exists {
            return Ok(());
        }
        let message = format!(
            "Cannot drop the table '{}', because it does not exist or you do not have permission.",
            name.shown()
        );
        return Err(SqlError { state: 5, ..SqlError::new(3701, 11, message) });
    };
    connection.execute_batch(&format!("DROP TABLE {}", relation.stored))?;
    let database = if relation.temporary { "temp" } else { "main" };
    for table in ["objects", "added"] {
        connection.execute(&format!("DELETE FROM {database}.{table} WHERE object_id = ?1"), [relation.id])?;
    }
    if !relation.temporary {
        forget_description(connection, relation.id)?;
        forget_rows(connection, relation.id, &[("objects", "c2"), ("tables", "c2"), ("database_permissions", "c2")])?;
    }
    Ok(())
}

fn forget_description(connection: &Connection, id: i64) -> Result<(), SqlError> {
    let views = [("columns", "c1"), ("indexes", "c1"), ("index_columns", "c1"), ("partitions", "c2")];
    forget_rows(connection, id, &views)
}

/// `views`: each with the column that has the object's number.
fn forget_rows(connection: &Connection, id: i64, views: &[(&str, &str)]) -> Result<(), SqlError> {
    for (view, column) in views {
        let stored = stored_view(connection, view)?;
        connection.execute(&format!("DELETE FROM {stored} WHERE {column} = ?1"), [id])?;
    }
    Ok(())
}

fn describe_columns(connection: &Connection, relation: &Relation) -> Result<(), SqlError> {
    for (at, column) in relation.columns.iter().enumerate() {
        let (length, precision, scale) = column.of.dimensions();
        let (number, id) = (at as i64 + 1, column.of.system_id());
        let default = if column.default.is_some() { relation.id + number } else { 0 };
        let collation = column.collation.as_ref().map(|collation| collation.name.clone());
        let (nullable, identity, computed) = (column.nullable, column.identity.is_some(), column.computed.is_some());
        let values: [&dyn rusqlite::ToSql; 17] = [
            &relation.id,
            &column.name,
            &number,
            &id,
            &id,
            &length,
            &precision,
            &scale,
            &collation,
            &nullable,
            &true,
            &identity,
            &computed,
            &default,
            &0,
            &None::<i64>,
            &false,
        ];
        add_row(connection, "columns", &values)?;
    }
    Ok(())
}

/// The indexes of a table by their numbers; one of them is the table itself: a clustered one is 1, and a heap, which is none, 0.
fn numbered(relation: &Relation) -> Vec<(i64, Option<&Key>)> {
    let (clustered, others): (Vec<&Key>, Vec<&Key>) = relation.keys.iter().partition(|key| key.clustered);
    let own = clustered.first().map_or((0, None), |key| (1, Some(*key)));
    let others = others.into_iter().enumerate().map(|(at, key)| (at as i64 + 2, Some(key)));
    std::iter::once(own).chain(others).collect()
}

/// Where the index of a number lies; the heap, where the table does.
fn space_of<'a>(relation: &'a Relation, key: Option<&'a Key>) -> Option<&'a Space> {
    key.map_or(relation.space(), |key| key.on.as_ref())
}

fn describe(connection: &Connection, relation: &Relation) -> Result<(), SqlError> {
    describe_columns(connection, relation)?;
    for (number, key) in numbered(relation) {
        let divided = partitions::divided(connection, relation, space_of(relation, key))?;
        describe_index(connection, relation, key, number)?;
        describe_index_columns(connection, relation, key, number, divided)?;
    }
    Ok(())
}

fn describe_index(
    connection: &Connection,
    relation: &Relation,
    key: Option<&Key>,
    number: i64,
) -> Result<(), SqlError> {
    let (kind, spoken) = match key.map(|key| (key.kind, key.clustered)) {
        None => (0, "HEAP"),
        Some((IndexKind::Columnstore, true)) => (5, "CLUSTERED COLUMNSTORE"),
        Some((IndexKind::Columnstore, false)) => (6, "NONCLUSTERED COLUMNSTORE"),
        Some((_, true)) => (1, "CLUSTERED"),
        Some((_, false)) => (2, "NONCLUSTERED"),
    };
    let name = key.map(|key| &key.name);
    let of = |kind: IndexKind| key.is_some_and(|key| key.kind == kind);
    let (primary, constraint) = (of(IndexKind::PrimaryKey), of(IndexKind::UniqueConstraint));
    let (unique, filtered) = (key.is_some_and(Key::is_unique), key.is_some_and(|key| key.condition.is_some()));
    let values: [&dyn rusqlite::ToSql; 11] =
        [&relation.id, &name, &number, &kind, &spoken, &unique, &primary, &constraint, &false, &filtered, &false];
    add_row(connection, "indexes", &values)
}

/// Those of the key; a columnstore's, which has all and no key; and the one that divides it, if it is none of them.
fn describe_index_columns(
    connection: &Connection,
    relation: &Relation,
    key: Option<&Key>,
    number: i64,
    divided: Option<Divided>,
) -> Result<(), SqlError> {
    let is_columnstore = key.is_some_and(|key| key.kind == IndexKind::Columnstore);
    let of_key = || key.map(|key| key.columns.clone()).unwrap_or_default();
    let of_table = || (0..relation.columns.len()).map(|at| (at, false)).collect();
    let mut columns: Vec<(usize, bool)> = if is_columnstore { of_table() } else { of_key() };
    let in_key = if is_columnstore { 0 } else { columns.len() };
    let dividing = divided.map(|divided| divided.column);
    let missing = dividing.filter(|dividing| !columns.iter().any(|(column, _)| column == dividing));
    columns.extend(missing.map(|column| (column, false)));
    for (at, (column, descending)) in columns.iter().enumerate() {
        let (place, divides) = (at as i64 + 1, i64::from(dividing == Some(*column)));
        let ordinal = if at < in_key { place } else { 0 };
        let column = *column as i64 + 1;
        let values: [&dyn rusqlite::ToSql; 8] =
            [&relation.id, &number, &place, &column, &ordinal, &divides, descending, &is_columnstore];
        add_row(connection, "index_columns", &values)?;
    }
    Ok(())
}

fn describe_partitions(connection: &Connection, relation: &Relation) -> Result<(), SqlError> {
    for (index, key) in numbered(relation) {
        let divided = partitions::divided(connection, relation, space_of(relation, key))?;
        for number in 1..=divided.map_or(1, |divided| divided.partitions) {
            let id = (relation.id * 1000 + index) * 100_000 + number;
            add_row(connection, "partitions", &[&id, &relation.id, &index, &number])?;
        }
    }
    Ok(())
}

/// The first of these columns that is not one of the table's: 207.
pub fn columns_of(relation: &Relation, names: &[String]) -> Result<Vec<usize>, SqlError> {
    names.iter().map(|name| relation.column(name).ok_or_else(|| no_column(name))).collect()
}
