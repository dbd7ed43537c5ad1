//! What is said, once it is understood.

use crate::types::Type;

/// The parts of an object's name, as far as they are said.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    pub database: Option<String>,
    pub schema: Option<String>,
    pub name: String,
}

impl Name {
    pub fn shown(&self) -> String {
        let parts = [self.database.as_deref(), self.schema.as_deref(), Some(&self.name)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(".")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    Set {
        option: String,
        value: String,
    },
    LockTimeout(i64),
    SetVariable {
        name: String,
        value: Expr,
    },
    Declare {
        name: String,
        of: Declared,
        value: Option<Expr>,
    },
    Begin,
    Commit,
    Rollback {
        savepoint: Option<String>,
    },
    Save {
        savepoint: String,
    },
    If {
        condition: Expr,
        then: Box<Statement>,
        otherwise: Option<Box<Statement>>,
    },
    Block(Vec<Statement>),
    Select {
        ctes: Vec<Cte>,
        query: Query,
    },
    Insert {
        ctes: Vec<Cte>,
        into: Target,
        columns: Vec<String>,
        source: Source,
    },
    Update {
        ctes: Vec<Cte>,
        target: Target,
        set: Vec<Assignment>,
        from: Option<From>,
        condition: Option<Expr>,
    },
    Delete {
        ctes: Vec<Cte>,
        target: Target,
        from: Option<From>,
        condition: Option<Expr>,
    },
    Truncate(Name),
    /// How far locks of a table grow: by its number, as `sys.tables` has it.
    EscalateLocks {
        table: Name,
        to: i64,
    },
    CreateTable {
        name: Name,
        table: Table,
        text: String,
    },
    CreateType {
        name: Name,
        table: Table,
        text: String,
    },
    CreateView {
        name: Name,
        query: Box<Query>,
        text: String,
    },
    CreateIndex {
        index: Index,
        on: Name,
        text: String,
    },
    CreateSchema(String),
    CreatePartitionFunction {
        name: String,
        function: PartitionFunction,
        text: String,
    },
    CreatePartitionScheme {
        name: String,
        scheme: PartitionScheme,
        text: String,
    },
    /// A user that Entra ID knows.
    CreateUser(String),
    Grant {
        permissions: Vec<Permission>,
        on: Name,
        to: Vec<String>,
    },
    DropTable {
        names: Vec<Name>,
        if_exists: bool,
    },
    Execute {
        procedure: Name,
        arguments: Vec<(Option<String>, Expr)>,
    },
    InsertBulk {
        into: Name,
        columns: Vec<Column>,
        options: Vec<String>,
    },
    Throw {
        number: Expr,
        message: Expr,
        state: Expr,
    },
    /// What was caught, once more.
    Rethrow,
    /// RAISERROR: an error that ends nothing by itself.
    Raise {
        message: Expr,
    },
    Try {
        body: Vec<Statement>,
        caught: Vec<Statement>,
    },
    Return,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Declared {
    Scalar(Type),
    TableType(Name),
    Table(Table),
}

/// What rows are changed: a table, an alias of FROM, or a table variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Table(Name),
    Variable(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Values(Vec<Vec<Expr>>),
    Query(Box<Query>),
    Defaults,
}

/// `variable`, if the value before, or the new one, is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub variable: Option<String>,
    pub column: Option<Vec<String>>,
    pub value: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cte {
    pub name: String,
    pub query: Query,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub top: Option<Expr>,
    pub distinct: bool,
    pub items: Vec<Item>,
    pub from: Option<From>,
    pub condition: Option<Expr>,
    pub group: Vec<Expr>,
    pub having: Option<Expr>,
    pub order: Vec<(Expr, bool)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `*` or `alias.*`
    All(Option<String>),
    Expr {
        value: Expr,
        alias: Option<String>,
    },
    Assign {
        variable: String,
        value: Expr,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct From {
    pub first: Place,
    pub joins: Vec<Join>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    pub outer: bool,
    pub place: Place,
    pub on: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub rows: Rows,
    pub alias: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    Table(Name),
    Variable(String),
    Query(Box<Query>),
    /// OPENJSON with columns of its own.
    Json(Box<Expr>, Vec<JsonColumn>),
}

/// A column that OPENJSON makes of each item of an array: what is in it at a place, counted from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonColumn {
    pub name: String,
    pub of: Type,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Null,
    /// `MAX` and other words that stand where a value is expected, of functions that take such.
    Default,
    Integer(i64),
    Decimal(String),
    Float(f64),
    Text {
        value: String,
        unicode: bool,
    },
    Bytes(Vec<u8>),
    Variable(String),
    Column(Vec<String>),
    Negative(Box<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Arithmetic(&'static str, Box<Expr>, Box<Expr>),
    Compare(&'static str, Box<Expr>, Box<Expr>),
    IsNull(Box<Expr>, bool),
    Between {
        value: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        not: bool,
    },
    In {
        value: Box<Expr>,
        list: Vec<Expr>,
        not: bool,
    },
    InQuery {
        value: Box<Expr>,
        query: Box<Query>,
        not: bool,
    },
    Like {
        value: Box<Expr>,
        pattern: Box<Expr>,
        not: bool,
    },
    Exists(Box<Query>),
    Scalar(Box<Query>),
    Call {
        name: String,
        arguments: Vec<Expr>,
        star: bool,
    },
    RowNumber {
        partition: Vec<Expr>,
        order: Vec<(Expr, bool)>,
    },
    Case {
        operand: Option<Box<Expr>>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Cast {
        value: Box<Expr>,
        to: Type,
    },
    Collate(Box<Expr>, String),
}

/// How values of a type are divided. To which side a boundary belongs, nobody asks here.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionFunction {
    pub of: Type,
    pub boundaries: Vec<Expr>,
}

/// Which filegroups the partitions lie on.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionScheme {
    pub function: String,
    /// Whether all of them lie on the one that is named.
    pub all: bool,
    pub filegroups: Vec<String>,
}

/// Where a table or an index lies: on a filegroup; or, if there are columns, on a partition scheme, divided by them.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    pub name: String,
    pub columns: Vec<String>,
}

/// <https://learn.microsoft.com/sql/t-sql/statements/grant-object-permissions-transact-sql>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Select,
    Insert,
    Update,
    Delete,
    References,
    Execute,
}

impl Permission {
    pub const ALL: [Permission; 6] = [
        Permission::Select,
        Permission::Insert,
        Permission::Update,
        Permission::Delete,
        Permission::References,
        Permission::Execute,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Permission::Select => "SELECT",
            Permission::Insert => "INSERT",
            Permission::Update => "UPDATE",
            Permission::Delete => "DELETE",
            Permission::References => "REFERENCES",
            Permission::Execute => "EXECUTE",
        }
    }
}

/// A table as CREATE TABLE describes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    pub columns: Vec<Column>,
    pub keys: Vec<Index>,
    pub checks: Vec<Check>,
    pub on: Option<Space>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub of: Type,
    pub collation: Option<String>,
    /// As it is said; a key's columns are NOT NULL if it is not.
    pub nullable: Option<bool>,
    pub identity: Option<(i64, i64)>,
    pub default: Option<Expr>,
    pub computed: Option<Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    PrimaryKey,
    UniqueConstraint,
    UniqueIndex,
    Plain,
    Columnstore,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    pub name: Option<String>,
    pub kind: IndexKind,
    pub clustered: bool,
    pub columns: Vec<(String, bool)>,
    pub condition: Option<Expr>,
    pub on: Option<Space>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub name: Option<String>,
    /// The column that it is written beside.
    pub column: Option<String>,
    pub condition: Expr,
}
