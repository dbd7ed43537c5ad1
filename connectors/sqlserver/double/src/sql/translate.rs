//! From T-SQL to SQLite. Each name is resolved and each expression has a type here, so that nothing depends on what SQLite would guess.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::ast::{Cte, Expr, From, Item, Join, JsonColumn, Name, Permission, Place, Query, Rows};
use super::catalog::{self, Relation, folded, order_of, same};
use super::dates::ticks_of;
use super::json;
use super::parser::parse_name;
use super::rights::{self, User};
use crate::collation::Collation;
use crate::convert::{Into, clash, is_allowed};
use crate::decimal::Decimal;
use crate::error::{SqlError, no_column, no_table, no_variable, syntax};
use crate::temporal::Moment;
use crate::types::Type;
use crate::value::{Value, store_moment};

/// A variable of a batch.
#[derive(Debug, Clone)]
pub enum Variable {
    Scalar(Type, Value),
    Table(Relation),
}

pub type Variables = BTreeMap<String, Variable>;

/// What functions say of the session.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub database: String,
    pub user: String,
    /// Who may do only what was granted.
    pub granted: Option<User>,
    pub open: i64,
    pub doomed: bool,
    pub rows: i64,
    pub error: i64,
    pub session: i64,
    pub identity: Option<i64>,
}

/// An expression in SQLite's words, and what is known of it.
#[derive(Debug, Clone)]
pub struct Typed {
    pub sql: String,
    pub of: Type,
    pub collation: Option<Collation>,
    pub weight: Weight,
    pub nullable: bool,
    pub identity: bool,
    pub computed: bool,
    /// Whether it is a column of a table, as it is.
    pub column: bool,
}

/// Whose collation counts. <https://learn.microsoft.com/sql/t-sql/statements/collation-precedence-transact-sql>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    Default,
    Column,
    Explicit,
}

impl Typed {
    fn new(sql: impl std::convert::Into<String>, of: Type) -> Self {
        Typed {
            sql: sql.into(),
            of,
            collation: None,
            weight: Weight::Default,
            nullable: true,
            identity: false,
            computed: false,
            column: false,
        }
    }

    fn sure(self) -> Self {
        Typed { nullable: false, ..self }
    }

    fn order(&self) -> String {
        order_of(self.of, self.collation.as_ref()).map(|name| format!(" COLLATE {name}")).unwrap_or_default()
    }
}

/// A column of a result.
#[derive(Debug, Clone)]
pub struct Output {
    pub name: String,
    pub typed: Typed,
}

#[derive(Debug, Clone)]
pub struct Translated {
    pub sql: String,
    pub columns: Vec<Output>,
    /// Of `SELECT @v = …`.
    pub assigns: Vec<Option<String>>,
}

/// What a name in FROM offers.
#[derive(Debug, Clone)]
struct Offer {
    alias: String,
    /// Within SQLite.
    stored: String,
    columns: Vec<Output>,
    relation: Option<Relation>,
}

pub struct Translator<'a> {
    connection: Option<&'a Connection>,
    variables: &'a Variables,
    facts: &'a Facts,
    scopes: Vec<Vec<Offer>>,
    ctes: Vec<(String, String, Vec<Output>)>,
    next: usize,
    depth: usize,
    /// Whether what is read is read by a view: who may read it needs no permission for more.
    within_view: bool,
}

pub fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => format!("{number:e}"),
        Value::Text(text) if text.contains('\0') => format!("CAST(x'{}' AS TEXT)", hex(text.as_bytes())),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A CHECK, or the condition of an index, over a table's own columns.
pub fn condition_of(condition: &Expr, relation: &Relation) -> Result<String, SqlError> {
    Translator::over(relation, &Variables::new(), &Facts::default(), |t| t.condition(condition))
}

/// A computed column.
pub fn expression_of(expr: &Expr, relation: &Relation) -> Result<Typed, SqlError> {
    Translator::over(relation, &Variables::new(), &Facts::default(), |t| t.value(expr))
}

/// The rows of a table that are to be changed, with what each becomes.
pub struct Changes {
    pub relation: Relation,
    /// Yields rowid, and then the expressions.
    pub sql: String,
    pub values: Vec<Typed>,
}

impl<'a> Translator<'a> {
    pub fn new(connection: &'a Connection, variables: &'a Variables, facts: &'a Facts) -> Self {
        Translator {
            connection: Some(connection),
            variables,
            facts,
            scopes: Vec::new(),
            ctes: Vec::new(),
            next: 0,
            depth: 0,
            within_view: false,
        }
    }

    fn over<T>(
        relation: &Relation,
        variables: &Variables,
        facts: &Facts,
        run: impl FnOnce(&mut Translator<'_>) -> T,
    ) -> T {
        let columns = relation.columns.iter().map(|column| output(column, &column.stored)).collect();
        let offer = Offer { alias: relation.name.clone(), stored: String::new(), columns, relation: None };
        let mut translator = Translator {
            connection: None,
            variables,
            facts,
            scopes: vec![vec![offer]],
            ctes: Vec::new(),
            next: 0,
            depth: 1,
            within_view: false,
        };
        run(&mut translator)
    }

    /// The table that is said: of the database or the session.
    pub fn relation(&self, name: &Name) -> Result<Relation, SqlError> {
        let connection = self.connection.ok_or_else(|| no_table(&name.shown()))?;
        let known = name
            .database
            .as_ref()
            .is_none_or(|database| same(database, &self.facts.database) || same(database, "tempdb"));
        let found = if known { catalog::find(connection, name, &["U", "S"])? } else { None };
        found.ok_or_else(|| no_table(&name.shown()))
    }

    /// Whether whoever asks may do this with a table.
    pub fn permit(&self, permission: Permission, relation: &Relation) -> Result<(), SqlError> {
        if relation.temporary || relation.schema == "sys" {
            return Ok(());
        }
        self.permit_by_id(permission, relation.id, (&relation.schema, &relation.name))
    }

    /// The same of a view or a procedure.
    pub fn permit_object(&self, permission: Permission, name: &Name) -> Result<(), SqlError> {
        let id = self.connection.map_or(Ok(None), |connection| catalog::object_id(connection, name, None))?;
        let schema = name.schema.as_deref().unwrap_or("dbo");
        self.permit_by_id(permission, id.unwrap_or_default(), (schema, &name.name))
    }

    fn permit_by_id(&self, permission: Permission, id: i64, object: (&str, &str)) -> Result<(), SqlError> {
        let (Some(connection), Some(user), false) = (self.connection, self.facts.granted, self.within_view) else {
            return Ok(());
        };
        if rights::has(connection, user, Some(permission), id)? {
            return Ok(());
        }
        Err(rights::denied(permission, object, &self.facts.database))
    }

    pub fn table_variable(&self, name: &str) -> Result<Relation, SqlError> {
        match self.variables.get(name) {
            Some(Variable::Table(relation)) => Ok(relation.clone()),
            _ => Err(SqlError::new(1087, 15, format!("Must declare the table variable \"{name}\"."))),
        }
    }

    fn alias(&mut self) -> String {
        self.next += 1;
        format!("p{}", self.next)
    }

    /// The common table expressions of a statement, as SQLite writes them.
    pub fn with(&mut self, ctes: &[Cte]) -> Result<String, SqlError> {
        let mut parts = Vec::new();
        for cte in ctes {
            let query = self.nested(&cte.query)?;
            if let Some(at) = query.columns.iter().position(|column| column.name.is_empty()) {
                let message = format!("No column name was specified for column {} of '{}'.", at + 1, cte.name);
                return Err(SqlError::new(8155, 16, message));
            }
            let stored = self.alias();
            parts.push(format!("{stored} AS ({})", query.sql));
            self.ctes.push((folded(&cte.name), stored, query.columns));
        }
        Ok(if parts.is_empty() { String::new() } else { format!("WITH {} ", parts.join(", ")) })
    }

    fn nested(&mut self, query: &Query) -> Result<Translated, SqlError> {
        if !query.order.is_empty() && query.top.is_none() {
            let message = "The ORDER BY clause is invalid in views, inline functions, derived tables, subqueries, and common table \
                           expressions, unless TOP, OFFSET or FOR XML is also specified.";
            return Err(SqlError::new(1033, 15, message));
        }
        self.depth += 1;
        let translated = self.query(query);
        self.depth -= 1;
        translated
    }

    pub fn query(&mut self, query: &Query) -> Result<Translated, SqlError> {
        self.scopes.push(Vec::new());
        let translated = self.query_in_scope(query);
        self.scopes.pop();
        translated
    }

    fn query_in_scope(&mut self, query: &Query) -> Result<Translated, SqlError> {
        let from = match &query.from {
            Some(from) => format!(" FROM {}", self.from(from)?),
            None => String::new(),
        };
        let mut columns = Vec::new();
        let mut assigns = Vec::new();
        for item in &query.items {
            self.item(item, &mut columns, &mut assigns)?;
        }
        let condition = self.optional(" WHERE ", query.condition.as_ref())?;
        let mut group = Vec::new();
        for by in &query.group {
            let by = self.value(by)?;
            group.push(format!("{}{}", by.sql, by.order()));
        }
        let group = if group.is_empty() { String::new() } else { format!(" GROUP BY {}", group.join(", ")) };
        let having = self.optional(" HAVING ", query.having.as_ref())?;
        let ordered = self.order_by(&query.order, &columns)?;
        let limit = match &query.top {
            Some(top) => format!(" LIMIT {}", self.value(top)?.sql),
            None => String::new(),
        };
        // Values are the same as their collation has it.
        let order = |typed: &Typed| if query.distinct { typed.order() } else { String::new() };
        let shown: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(at, c)| format!("{}{} AS k{}", c.typed.sql, order(&c.typed), at + 1))
            .collect();
        let distinct = if query.distinct { "DISTINCT " } else { "" };
        let sql = format!("SELECT {distinct}{}{from}{condition}{group}{having}{ordered}{limit}", shown.join(", "));
        Ok(Translated { sql, columns, assigns })
    }

    fn optional(&mut self, word: &str, condition: Option<&Expr>) -> Result<String, SqlError> {
        condition.map_or(Ok(String::new()), |condition| Ok(format!("{word}{}", self.condition(condition)?)))
    }

    fn item(
        &mut self,
        item: &Item,
        columns: &mut Vec<Output>,
        assigns: &mut Vec<Option<String>>,
    ) -> Result<(), SqlError> {
        match item {
            Item::All(alias) => {
                let offers = self.scopes.last().cloned().unwrap_or_default();
                let chosen: Vec<Offer> =
                    offers.into_iter().filter(|o| alias.as_ref().is_none_or(|a| same(a, &o.alias))).collect();
                if chosen.is_empty() {
                    return Err(SqlError::new(263, 16, "Must specify table to select from."));
                }
                columns.extend(chosen.into_iter().flat_map(|offer| offer.columns));
            }
            Item::Expr { value, alias } => {
                let typed = self.value(value)?;
                let own = match value {
                    Expr::Column(parts) => parts.last().cloned().unwrap_or_default(),
                    _ => String::new(),
                };
                columns.push(Output { name: alias.clone().unwrap_or(own), typed });
            }
            Item::Assign { variable, value } => {
                let Some(Variable::Scalar(of, _)) = self.variables.get(variable) else {
                    return Err(no_variable(variable));
                };
                let typed = self.value(value)?;
                let sql = cast(&typed, *of, Into::Expression)?;
                columns.push(Output { name: String::new(), typed: Typed { sql, of: *of, ..typed } });
                assigns.resize(columns.len() - 1, None);
                assigns.push(Some(variable.clone()));
            }
        }
        assigns.resize(columns.len(), None);
        Ok(())
    }

    fn order_by(&mut self, order: &[(Expr, bool)], columns: &[Output]) -> Result<String, SqlError> {
        let mut parts = Vec::new();
        for (by, descending) in order {
            let typed = match by {
                Expr::Integer(at) => {
                    let column = usize::try_from(*at).ok().and_then(|at| columns.get(at.checked_sub(1)?));
                    let message = format!(
                        "The ORDER BY position number {at} is out of range of the number of items in the select list."
                    );
                    column.map(|column| column.typed.clone()).ok_or_else(|| SqlError::new(108, 16, message))?
                }
                Expr::Column(parts) if parts.len() == 1 => {
                    match columns.iter().find(|column| same(&column.name, &parts[0])) {
                        Some(column) => column.typed.clone(),
                        None => self.value(by)?,
                    }
                }
                _ => self.value(by)?,
            };
            parts.push(format!("{}{} {}", typed.sql, typed.order(), if *descending { "DESC" } else { "ASC" }));
        }
        Ok(if parts.is_empty() { String::new() } else { format!(" ORDER BY {}", parts.join(", ")) })
    }

    fn from(&mut self, from: &From) -> Result<String, SqlError> {
        let mut sql = self.place(&from.first)?;
        for Join { outer, place, on } in &from.joins {
            let place = self.place(place)?;
            let kind = if *outer { "LEFT JOIN" } else { "JOIN" };
            let on = on.as_ref().map_or(Ok("1".to_string()), |on| self.condition(on))?;
            sql = format!("{sql} {kind} {place} ON {on}");
        }
        Ok(sql)
    }

    fn place(&mut self, place: &Place) -> Result<String, SqlError> {
        let stored = self.alias();
        let (sql, name, columns, relation) = match &place.rows {
            Rows::Query(query) => {
                let query = self.nested(query)?;
                (format!("({})", query.sql), String::new(), renamed(&query.columns, &stored), None)
            }
            Rows::Variable(name) => stored_place(self.table_variable(name)?, &stored),
            Rows::Table(name) => {
                match self.ctes.iter().find(|(cte, _, _)| name.schema.is_none() && *cte == folded(&name.name)) {
                    Some((_, cte, columns)) => (cte.clone(), name.name.clone(), renamed(columns, &stored), None),
                    None => match self.connection.map_or(Ok(None), |connection| catalog::view(connection, name))? {
                        Some(query) => {
                            self.permit_object(Permission::Select, name)?;
                            let query = self.outside(|t| t.nested(&query))?;
                            (format!("({})", query.sql), name.name.clone(), renamed(&query.columns, &stored), None)
                        }
                        None => {
                            let relation = self.relation(name)?;
                            self.permit(Permission::Select, &relation)?;
                            stored_place(relation, &stored)
                        }
                    },
                }
            }
            Rows::Json(json, columns) => {
                let rows = self.json_rows(json, columns)?;
                (rows, String::new(), json_columns(columns, &stored), None)
            }
        };
        let alias = place.alias.clone().unwrap_or(name);
        let scope = self.scopes.last_mut().ok_or_else(|| syntax("FROM"))?;
        if !alias.is_empty() && scope.iter().any(|offer| same(&offer.alias, &alias)) {
            let message = format!(
                "The objects \"{alias}\" and \"{alias}\" in the FROM clause have the same exposed names. Use correlation names to distinguish them."
            );
            return Err(SqlError::new(1013, 16, message));
        }
        scope.push(Offer { alias, stored: stored.clone(), columns, relation });
        Ok(format!("{sql} AS {stored}"))
    }

    /// What a view yields.
    pub fn view(&mut self, query: &Query) -> Result<Vec<Output>, SqlError> {
        self.outside(|t| t.nested(query)).map(|translated| translated.columns)
    }

    /// A view sees nothing of the statement that it is used in.
    fn outside<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        let (scopes, ctes) = (std::mem::take(&mut self.scopes), std::mem::take(&mut self.ctes));
        let within_view = std::mem::replace(&mut self.within_view, true);
        let result = run(self);
        (self.scopes, self.ctes, self.within_view) = (scopes, ctes, within_view);
        result
    }

    /// The rows of OPENJSON, as constants.
    fn json_rows(&mut self, json: &Expr, columns: &[JsonColumn]) -> Result<String, SqlError> {
        let places: Vec<String> = (1..=columns.len()).map(|at| format!("column{at} AS k{at}")).collect();
        let text = self.constant(json)?;
        let connection = self.connection.ok_or_else(|| syntax("OPENJSON"))?;
        let mut rows = vec![];
        for item in text.map_or(Ok(vec![]), |text| json::items(connection, &text, columns))? {
            let values: Vec<String> = item.iter().map(literal).collect();
            rows.push(format!("({})", values.join(", ")));
        }
        if rows.is_empty() {
            let nothing: Vec<String> = (1..=columns.len()).map(|at| format!("NULL AS k{at}")).collect();
            return Ok(format!("(SELECT {} WHERE 0)", nothing.join(", ")));
        }
        Ok(format!("(SELECT {} FROM (VALUES {}))", places.join(", "), rows.join(", ")))
    }

    /// The rows of the table or alias `target` that are changed, and the values that `values` makes of each.
    pub fn changes(
        &mut self,
        ctes: &[Cte],
        target: &super::ast::Target,
        from: Option<&From>,
        condition: Option<&Expr>,
        values: &[&Expr],
    ) -> Result<Changes, SqlError> {
        let with = self.with(ctes)?;
        self.scopes.push(Vec::new());
        let from = match from {
            Some(from) => self.from(from)?,
            None => {
                let rows = match target {
                    super::ast::Target::Table(name) => Rows::Table(name.clone()),
                    super::ast::Target::Variable(name) => Rows::Variable(name.clone()),
                };
                self.place(&Place { rows, alias: None })?
            }
        };
        let offer = self.changed_offer(target)?;
        let relation = offer.relation.clone().ok_or_else(|| no_table(&offer.alias))?;
        let mut found = Vec::new();
        for value in values {
            found.push(self.value(value)?);
        }
        let condition = self.optional(" WHERE ", condition)?;
        self.scopes.pop();
        let values: String = found.iter().map(|typed| format!(", {}", typed.sql)).collect();
        let sql = format!("{with}SELECT {}.rowid{values} FROM {from}{condition}", offer.stored);
        Ok(Changes { relation, sql, values: found })
    }

    fn changed_offer(&self, target: &super::ast::Target) -> Result<Offer, SqlError> {
        let offers = self.scopes.last().map(Vec::as_slice).unwrap_or_default();
        let found = match target {
            super::ast::Target::Variable(name) => {
                offers.iter().find(|o| o.relation.as_ref().is_some_and(|r| r.name == *name))
            }
            super::ast::Target::Table(name) if name.schema.is_none() => {
                let by_alias = offers.iter().find(|offer| same(&offer.alias, &name.name));
                by_alias
                    .or_else(|| offers.iter().find(|o| o.relation.as_ref().is_some_and(|r| same(&r.name, &name.name))))
            }
            super::ast::Target::Table(name) => {
                let schema = name.schema.clone().unwrap_or_default();
                offers.iter().find(|o| {
                    o.relation
                        .as_ref()
                        .is_some_and(|r| same(&r.name, &name.name) && (same(&r.schema, &schema) || r.temporary))
                })
            }
        };
        let shown = match target {
            super::ast::Target::Variable(name) => name.clone(),
            super::ast::Target::Table(name) => name.shown(),
        };
        found.cloned().ok_or_else(|| no_table(&shown))
    }
}

fn stored_place(relation: Relation, stored: &str) -> (String, String, Vec<Output>, Option<Relation>) {
    let columns =
        relation.columns.iter().map(|column| output(column, &format!("{stored}.{}", column.stored))).collect();
    (relation.stored.clone(), relation.name.clone(), columns, Some(relation))
}

fn output(column: &catalog::Column, sql: &str) -> Output {
    let typed = Typed {
        collation: column.collation.clone(),
        weight: Weight::Column,
        nullable: column.nullable,
        identity: column.identity.is_some(),
        computed: column.computed.is_some(),
        column: true,
        ..Typed::new(sql, column.of)
    };
    Output { name: column.name.clone(), typed }
}

/// The columns of a query, as another one sees them.
fn renamed(columns: &[Output], stored: &str) -> Vec<Output> {
    let see = |(at, column): (usize, &Output)| {
        let weight = column.typed.weight.max(if column.typed.column { Weight::Column } else { Weight::Default });
        Output {
            name: column.name.clone(),
            typed: Typed { sql: format!("{stored}.k{}", at + 1), weight, ..column.typed.clone() },
        }
    };
    columns.iter().enumerate().map(see).collect()
}

fn json_columns(columns: &[JsonColumn], stored: &str) -> Vec<Output> {
    let output = |(at, column): (usize, &JsonColumn)| {
        let typed = Typed {
            collation: column.of.is_text().then(Collation::default),
            weight: Weight::Column,
            ..Typed::new(format!("{stored}.k{}", at + 1), column.of)
        };
        Output { name: column.name.clone(), typed }
    };
    columns.iter().enumerate().map(output).collect()
}

/// Expressions.
impl Translator<'_> {
    /// Something that is true, false or unknown.
    pub fn condition(&mut self, expr: &Expr) -> Result<String, SqlError> {
        Ok(match expr {
            Expr::Not(inner) => format!("(NOT {})", self.condition(inner)?),
            Expr::And(one, two) => format!("({} AND {})", self.condition(one)?, self.condition(two)?),
            Expr::Or(one, two) => format!("({} OR {})", self.condition(one)?, self.condition(two)?),
            Expr::Compare(sign, one, two) => {
                let (one, two) = (self.value(one)?, self.value(two)?);
                compare(sign, &one, &two)?
            }
            Expr::IsNull(value, is) => format!("({} IS {}NULL)", self.value(value)?.sql, if *is { "" } else { "NOT " }),
            Expr::Between { value, low, high, not } => {
                let (value, low, high) = (self.value(value)?, self.value(low)?, self.value(high)?);
                let both = format!("({} AND {})", compare(">=", &value, &low)?, compare("<=", &value, &high)?);
                if *not { format!("(NOT {both})") } else { both }
            }
            Expr::In { value, list, not } => {
                let value = self.value(value)?;
                let mut parts = Vec::new();
                for one in list {
                    let one = self.value(one)?;
                    parts.push(compare("=", &value, &one)?);
                }
                format!("({}({}))", if *not { "NOT " } else { "" }, parts.join(" OR "))
            }
            Expr::InQuery { value, query, not } => {
                let value = self.value(value)?;
                let query = self.nested(query)?;
                let column = single(&query)?;
                if !same_form(value.of, column.typed.of) {
                    return Err(clash(value.of, column.typed.of));
                }
                format!("({}{} {}IN ({}))", value.sql, value.order(), if *not { "NOT " } else { "" }, query.sql)
            }
            Expr::Like { value, pattern, not } => {
                let (value, pattern) = (self.value(value)?, self.value(pattern)?);
                let exact = value.collation.as_ref().is_some_and(|c| c.sqlite() != "TDS_CI");
                format!(
                    "({}tds_like({}, {}, {}))",
                    if *not { "NOT " } else { "" },
                    value.sql,
                    pattern.sql,
                    u8::from(exact)
                )
            }
            Expr::Exists(query) => format!("EXISTS ({})", self.nested(query)?.sql),
            _ => return Err(not_a_condition(expr)),
        })
    }

    pub fn value(&mut self, expr: &Expr) -> Result<Typed, SqlError> {
        match expr {
            Expr::Null => Ok(Typed::new("NULL", Type::Null)),
            Expr::Integer(number) => {
                let of = if i32::try_from(*number).is_ok() { Type::Int } else { Type::BigInt };
                Ok(Typed::new(number.to_string(), of).sure())
            }
            Expr::Decimal(text) => {
                let decimal = Decimal::parse(text).ok_or_else(|| syntax(text))?;
                let digits = decimal.value.unsigned_abs().to_string().len().max(usize::from(decimal.scale)) as u8;
                let of = Type::Decimal { precision: digits.clamp(1, 38), scale: decimal.scale };
                Ok(Typed::new(format!("'{decimal}'"), of).sure())
            }
            Expr::Float(number) => Ok(Typed::new(format!("{number:e}"), Type::Float).sure()),
            Expr::Text { value, unicode } => {
                let length = value.encode_utf16().count().max(1);
                let of = match (unicode, length) {
                    (true, n @ 0..=4000) => Type::NVarChar(Some(n as u16)),
                    (true, _) => Type::NVarChar(None),
                    (false, n @ 0..=8000) => Type::VarChar(Some(n as u16)),
                    (false, _) => Type::VarChar(None),
                };
                Ok(Typed::new(literal(&Value::Text(value.clone())), of).sure())
            }
            Expr::Bytes(bytes) => {
                let of = if bytes.len() <= 8000 {
                    Type::VarBinary(Some(bytes.len().max(1) as u16))
                } else {
                    Type::VarBinary(None)
                };
                Ok(Typed::new(literal(&Value::Blob(bytes.clone())), of).sure())
            }
            Expr::Variable(name) => self.variable(name),
            Expr::Column(parts) => self.column(parts),
            Expr::Negative(inner) => {
                let zero = Expr::Integer(0);
                match &**inner {
                    Expr::Integer(number) => self.value(&Expr::Integer(-number)),
                    Expr::Decimal(text) => self.value(&Expr::Decimal(format!("-{text}"))),
                    Expr::Float(number) => self.value(&Expr::Float(-number)),
                    _ => self.arithmetic("-", &zero, inner),
                }
            }
            Expr::Arithmetic(sign, one, two) => self.arithmetic(sign, one, two),
            Expr::Scalar(query) => {
                let query = self.nested(query)?;
                let column = single(&query)?.typed.clone();
                Ok(Typed { sql: format!("({})", query.sql), nullable: true, column: false, ..column })
            }
            Expr::Call { name, arguments, star } => self.call(name, arguments, *star),
            Expr::RowNumber { partition, order } => self.row_number(partition, order),
            Expr::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref())
            }
            Expr::Cast { value, to } => {
                let value = self.value(value)?;
                let utf8 = value.collation.as_ref().is_some_and(|collation| collation.utf8);
                let sql = cast(&value, *to, Into::Cast { utf8 })?;
                Ok(Typed { sql, of: *to, column: false, identity: false, ..value })
            }
            Expr::Collate(value, name) => {
                let value = self.value(value)?;
                if !value.of.is_text() {
                    let message = format!("Expression type {} is invalid for COLLATE clause.", value.of.name());
                    return Err(SqlError::new(447, 16, message));
                }
                Ok(Typed { collation: Some(Collation::named(name)?), weight: Weight::Explicit, column: false, ..value })
            }
            Expr::Default => Err(syntax("DEFAULT")),
            _ => Err(not_a_value(expr)),
        }
    }

    fn variable(&mut self, name: &str) -> Result<Typed, SqlError> {
        let number = |number: i64| Ok(Typed::new(number.to_string(), Type::Int).sure());
        match name {
            "@@trancount" => number(self.facts.open),
            "@@rowcount" => number(self.facts.rows),
            "@@error" => number(self.facts.error),
            "@@spid" => Ok(Typed::new(self.facts.session.to_string(), Type::SmallInt).sure()),
            "@@max_precision" => Ok(Typed::new("38", Type::TinyInt).sure()),
            "@@version" => {
                Ok(Typed::new("'Microsoft SQL Server 2019 (a double of it)'", Type::NVarChar(Some(300))).sure())
            }
            "@@identity" => {
                Ok(Typed::new(identity_text(self.facts.identity), Type::Decimal { precision: 38, scale: 0 }))
            }
            _ if name.starts_with("@@") => Err(no_variable(name)),
            _ => match self.variables.get(name) {
                Some(Variable::Scalar(of, value)) => Ok(Typed::new(literal(value), *of)),
                _ => Err(no_variable(name)),
            },
        }
    }

    fn column(&mut self, parts: &[String]) -> Result<Typed, SqlError> {
        let (name, qualifiers) = parts.split_last().ok_or_else(|| syntax("."))?;
        for scope in self.scopes.iter().rev() {
            let of_scope = scope.iter().filter(|offer| is_called(offer, qualifiers));
            let mut known = false;
            let mut found = Vec::new();
            for offer in of_scope {
                known = true;
                found.extend(offer.columns.iter().filter(|column| same(&column.name, name)));
            }
            match found.as_slice() {
                [one] => return Ok(one.typed.clone()),
                [] if known && !qualifiers.is_empty() => return Err(no_column(name)),
                [] => {}
                _ => return Err(SqlError::new(209, 16, format!("Ambiguous column name '{name}'."))),
            }
        }
        if qualifiers.is_empty() {
            return Err(no_column(name));
        }
        Err(SqlError::new(4104, 16, format!("The multi-part identifier \"{}\" could not be bound.", parts.join("."))))
    }

    /// <https://learn.microsoft.com/sql/t-sql/data-types/precision-scale-and-length-transact-sql>
    fn arithmetic(&mut self, sign: &str, one: &Expr, two: &Expr) -> Result<Typed, SqlError> {
        let (one, two) = (self.value(one)?, self.value(two)?);
        let nullable = one.nullable || two.nullable;
        if sign == "+" && (one.of.is_text() || two.of.is_text()) && !one.of.is_number() && !two.of.is_number() {
            let weight = collation_of(&one, &two)?;
            let of =
                if one.of.is_unicode() || two.of.is_unicode() { Type::NVarChar(None) } else { Type::VarChar(None) };
            let sql = format!("({} || {})", cast(&one, of, Into::Expression)?, cast(&two, of, Into::Expression)?);
            return Ok(Typed { nullable, collation: weight.0, weight: weight.1, ..Typed::new(sql, of) });
        }
        let higher = if one.of.precedence() >= two.of.precedence() { one.of } else { two.of };
        if !higher.is_number() {
            let message = format!("Operand data type {} is invalid for {} operator.", higher.name(), spoken_sign(sign));
            return Err(SqlError::new(8117, 16, message));
        }
        let of = if higher.is_decimal() { decimal_result(sign, one.of, two.of) } else { higher };
        let operand = |typed: &Typed| {
            if of.is_decimal() && typed.of.digits().is_some() {
                return Ok(if typed.of.is_integer() {
                    format!("CAST({} AS TEXT)", typed.sql)
                } else {
                    typed.sql.clone()
                });
            }
            cast(typed, higher, Into::Expression)
        };
        let sql = format!("tds_arithmetic('{sign}', {}, {}, '{}')", operand(&one)?, operand(&two)?, of.declared());
        Ok(Typed { nullable, ..Typed::new(sql, of) })
    }

    fn row_number(&mut self, partition: &[Expr], order: &[(Expr, bool)]) -> Result<Typed, SqlError> {
        let mut parts = Vec::new();
        for by in partition {
            let by = self.value(by)?;
            parts.push(format!("{}{}", by.sql, by.order()));
        }
        let partition = if parts.is_empty() { String::new() } else { format!("PARTITION BY {}", parts.join(", ")) };
        let order = self.order_by(order, &[])?;
        Ok(Typed::new(format!("ROW_NUMBER() OVER ({partition}{order})"), Type::BigInt))
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        branches: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
    ) -> Result<Typed, SqlError> {
        let mut tests = Vec::new();
        let mut values = Vec::new();
        for (when, then) in branches {
            tests.push(match operand {
                Some(operand) => {
                    let (operand, when) = (self.value(operand)?, self.value(when)?);
                    compare("=", &operand, &when)?
                }
                None => self.condition(when)?,
            });
            values.push(self.value(then)?);
        }
        values.push(otherwise.map_or(Ok(Typed::new("NULL", Type::Null)), |otherwise| self.value(otherwise))?);
        let (of, collation) = common(&values);
        let mut sql = String::from("CASE");
        for (at, test) in tests.iter().enumerate() {
            sql += &format!(" WHEN {test} THEN {}", cast(&values[at], of, Into::Expression)?);
        }
        sql += &format!(" ELSE {} END", cast(&values[values.len() - 1], of, Into::Expression)?);
        Ok(Typed { collation, ..Typed::new(format!("({sql})"), of) })
    }

    fn call(&mut self, name: &str, arguments: &[Expr], star: bool) -> Result<Typed, SqlError> {
        if star && name != "COUNT" && name != "COUNT_BIG" {
            return Err(syntax("*"));
        }
        if let Some(moment) = now(name) {
            return Ok(moment);
        }
        if matches!(name, "OBJECT_ID" | "IIF" | "COUNT" | "COUNT_BIG") {
            return self.special_call(name, arguments, star);
        }
        if matches!(name, "DATEADD" | "DATEDIFF" | "DATEDIFF_BIG") {
            return self.of_dates(name, arguments);
        }
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.value(argument)?);
        }
        let sql = |function: &str| {
            format!("{function}({})", values.iter().map(|value| value.sql.as_str()).collect::<Vec<_>>().join(", "))
        };
        let text = Type::NVarChar(Some(128));
        Ok(match (name, values.as_slice()) {
            ("NEWID", []) => Typed::new("tds_newid()", Type::UniqueIdentifier).sure(),
            ("XACT_STATE", []) => {
                let state = if self.facts.open == 0 {
                    0
                } else if self.facts.doomed {
                    -1
                } else {
                    1
                };
                Typed::new(state.to_string(), Type::SmallInt).sure()
            }
            ("SCOPE_IDENTITY", []) => {
                Typed::new(identity_text(self.facts.identity), Type::Decimal { precision: 38, scale: 0 })
            }
            ("DB_NAME", []) => Typed::new(literal(&Value::Text(self.facts.database.clone())), text),
            ("SUSER_NAME" | "SUSER_SNAME" | "USER_NAME" | "ORIGINAL_LOGIN", []) => {
                Typed::new(literal(&Value::Text(self.facts.user.clone())), text)
            }
            ("SCHEMA_NAME", []) => Typed::new("'dbo'", text),
            ("SCHEMA_NAME", [id]) => {
                let stored = catalog::stored_view(self.connection.ok_or_else(|| syntax(name))?, "schemas")?;
                Typed::new(format!("(SELECT c1 FROM {stored} WHERE c2 = {})", id.sql), text)
            }
            ("TYPE_NAME", [_]) => Typed::new(sql("tds_type_name"), text),
            ("COLLATIONPROPERTY", [_, _]) => Typed::new(sql("tds_code_page"), Type::Int),
            ("SERVERPROPERTY", [_]) => Typed::new(sql("tds_property"), text),
            ("ISJSON", [_]) => Typed::new(sql("tds_isjson"), Type::Int),
            ("LEN", [of]) => {
                Typed::new(sql("tds_len"), if of.of.dimensions().0 < 0 { Type::BigInt } else { Type::Int })
            }
            ("DATALENGTH", [of]) => {
                let long = if of.of.dimensions().0 < 0 { Type::BigInt } else { Type::Int };
                Typed::new(format!("tds_datalength({}, '{}')", of.sql, of.of.declared()), long)
            }
            ("UPPER" | "LOWER" | "LTRIM" | "RTRIM" | "TRIM", [of]) if of.of.is_text() => {
                Typed { column: false, sql: sql(&format!("tds_{}", name.to_lowercase())), ..of.clone() }
            }
            ("SUBSTRING", [of, _, _]) if of.of.is_text() => {
                Typed { column: false, sql: sql("tds_substring"), ..of.clone() }
            }
            ("REPLICATE", [of, _]) if of.of.is_text() => {
                Typed { column: false, sql: sql("tds_replicate"), ..of.clone() }
            }
            ("REPLACE", [of, _, _]) if of.of.is_text() => {
                Typed { sql: sql("replace"), ..Typed::new("", Type::NVarChar(None)) }
            }
            ("ABS", [of]) if of.of.is_integer() || of.of.is_float() => {
                Typed { column: false, sql: sql("abs"), ..of.clone() }
            }
            ("ISNULL", [one, two]) => {
                let two = cast(two, one.of, Into::Expression)?;
                Typed { column: false, sql: format!("ifnull({}, {two})", one.sql), nullable: false, ..one.clone() }
            }
            ("COALESCE", [_, _, ..]) => {
                let (of, collation) = common(&values);
                let mut parts = Vec::new();
                for value in &values {
                    parts.push(cast(value, of, Into::Expression)?);
                }
                Typed { collation, ..Typed::new(format!("coalesce({})", parts.join(", ")), of) }
            }
            ("NULLIF", [one, two]) => {
                let equal = compare("=", one, two)?;
                Typed {
                    nullable: true,
                    column: false,
                    sql: format!("(CASE WHEN {equal} THEN NULL ELSE {} END)", one.sql),
                    ..one.clone()
                }
            }
            ("CONCAT", [_, _, ..]) => {
                let mut parts = Vec::new();
                for value in &values {
                    parts.push(format!("ifnull({}, '')", cast(value, Type::NVarChar(None), Into::Expression)?));
                }
                Typed::new(format!("({})", parts.join(" || ")), Type::NVarChar(None))
            }
            ("MIN" | "MAX", [of]) => {
                let order = of.order();
                Typed {
                    nullable: true,
                    column: false,
                    sql: format!("{}({}{order})", name.to_lowercase(), of.sql),
                    ..of.clone()
                }
            }
            ("SUM", [of]) if of.of.is_integer() => {
                Typed::new(sql("sum"), if of.of == Type::BigInt { Type::BigInt } else { Type::Int })
            }
            ("AVG", [of]) if of.of.is_float() => Typed::new(sql("avg"), Type::Float),
            ("SUM", [of]) if of.of.is_float() => Typed::new(sql("sum"), Type::Float),
            ("SUM", [of]) if of.of.is_decimal() => {
                let scale = of.of.digits().map_or(0, |(_, scale)| scale);
                Typed::new(sql("tds_sum"), Type::Decimal { precision: 38, scale })
            }
            _ if KNOWN.contains(&name) => {
                return Err(SqlError::new(
                    174,
                    15,
                    format!("The {} function requires other argument(s).", name.to_lowercase()),
                ));
            }
            _ => return Err(SqlError::new(195, 15, format!("'{name}' is not a recognized built-in function name."))),
        })
    }

    fn of_dates(&mut self, name: &str, arguments: &[Expr]) -> Result<Typed, SqlError> {
        let spoken = name.to_lowercase();
        let [Expr::Column(part), one, two] = arguments else {
            return Err(SqlError::new(174, 15, format!("The {spoken} function requires 3 argument(s).")));
        };
        let ticks = ticks_of(&part.join("."), &spoken)?;
        let (one, two) = (self.value(one)?, self.value(two)?);
        let moment = |typed: &Typed, argument: u8| match typed.of {
            of if of.is_integer() => Ok((format!("tds_day({})", typed.sql), Type::DateTime)),
            of if of.is_temporal() => Ok((typed.sql.clone(), of)),
            of => {
                let message = format!(
                    "Argument data type {} is invalid for argument {argument} of {spoken} function.",
                    of.name()
                );
                Err(SqlError::new(8116, 16, message))
            }
        };
        let (to, of) = moment(&two, 3)?;
        if name == "DATEADD" {
            let number = cast(&one, Type::Int, Into::Expression)?;
            return Ok(Typed::new(format!("tds_dateadd({ticks}, {number}, {to}, '{}')", of.declared()), of));
        }
        let (from, big) = (moment(&one, 2)?.0, name == "DATEDIFF_BIG");
        let sql = format!("tds_datediff({ticks}, {from}, {to}, {})", u8::from(big));
        Ok(Typed::new(sql, if big { Type::BigInt } else { Type::Int }))
    }

    fn special_call(&mut self, name: &str, arguments: &[Expr], star: bool) -> Result<Typed, SqlError> {
        match (name, arguments) {
            ("OBJECT_ID", [of, kind @ ..]) if kind.len() < 2 => {
                let of = self.constant(of)?;
                let kind = kind.first().map(|kind| self.constant(kind)).transpose()?.flatten();
                let connection = self.connection.ok_or_else(|| syntax(name))?;
                let mut id = match of.as_deref().and_then(parse_name) {
                    Some(name) => catalog::object_id(connection, &name, kind.as_deref())?,
                    None => None,
                };
                // One does not see what one may do nothing with; a session's own tables have numbers below zero.
                if let (Some(user), Some(object @ 0..)) = (self.facts.granted, id)
                    && !rights::has(connection, user, None, object)?
                {
                    id = None;
                }
                Ok(Typed::new(id.map_or("NULL".into(), |id| id.to_string()), Type::Int))
            }
            ("IIF", [test, one, two]) => self.case(None, &[(test.clone(), one.clone())], Some(two)),
            ("COUNT" | "COUNT_BIG", _) if star || arguments.len() == 1 => {
                let counted = if star { "*".to_string() } else { self.value(&arguments[0])?.sql };
                Ok(Typed::new(format!("count({counted})"), if name == "COUNT" { Type::Int } else { Type::BigInt }))
            }
            _ => {
                Err(SqlError::new(174, 15, format!("The {} function requires other argument(s).", name.to_lowercase())))
            }
        }
    }

    /// A text that is known before the statement runs.
    fn constant(&mut self, expr: &Expr) -> Result<Option<String>, SqlError> {
        match expr {
            Expr::Text { value, .. } => Ok(Some(value.clone())),
            Expr::Null => Ok(None),
            Expr::Variable(name) => match self.variables.get(name) {
                Some(Variable::Scalar(_, Value::Text(text))) => Ok(Some(text.clone())),
                Some(Variable::Scalar(_, Value::Null)) => Ok(None),
                _ => Err(no_variable(name)),
            },
            _ => Err(SqlError::new(8116, 16, "Argument data type is invalid for argument 1 of object_id function.")),
        }
    }
}

const KNOWN: &[&str] = &[
    "NEWID",
    "XACT_STATE",
    "SCOPE_IDENTITY",
    "DB_NAME",
    "SCHEMA_NAME",
    "TYPE_NAME",
    "ISJSON",
    "LEN",
    "DATALENGTH",
    "UPPER",
    "LOWER",
    "LTRIM",
    "RTRIM",
    "TRIM",
    "SUBSTRING",
    "REPLICATE",
    "REPLACE",
    "ABS",
    "ISNULL",
    "COALESCE",
    "NULLIF",
    "CONCAT",
    "MIN",
    "MAX",
    "SUM",
    "AVG",
    "SERVERPROPERTY",
];

fn is_called(offer: &Offer, qualifiers: &[String]) -> bool {
    match qualifiers {
        [] => true,
        [alias] => same(alias, &offer.alias),
        [.., schema, table] => {
            offer.relation.as_ref().is_some_and(|r| same(&r.schema, schema) && same(&offer.alias, table))
        }
    }
}

fn identity_text(identity: Option<i64>) -> String {
    identity.map_or("NULL".into(), |id| format!("'{id}'"))
}

fn now(name: &str) -> Option<Typed> {
    let of = match name {
        "SYSUTCDATETIME" | "SYSDATETIME" => Type::DateTime2(7),
        "SYSDATETIMEOFFSET" => Type::DateTimeOffset(7),
        "GETUTCDATE" | "GETDATE" => Type::DateTime,
        _ => return None,
    };
    let moment = if of == Type::DateTime { Moment::now().rounded(2) } else { Moment::now() };
    Some(Typed::new(literal(&store_moment(moment, of)), of).sure())
}

fn spoken_sign(sign: &str) -> &'static str {
    match sign {
        "+" => "add",
        "-" => "subtract",
        "*" => "multiply",
        "/" => "divide",
        _ => "modulo",
    }
}

fn decimal_result(sign: &str, one: Type, two: Type) -> Type {
    let ((p1, s1), (p2, s2)) = (one.digits().unwrap_or((38, 0)), two.digits().unwrap_or((38, 0)));
    let (precision, scale) = match sign {
        "*" => (p1 + p2 + 1, s1 + s2),
        "/" => (p1 - s1 + s2 + (s1 + p2 + 1).max(6), (s1 + p2 + 1).max(6)),
        _ => ((p1 - s1).max(p2 - s2) + s1.max(s2) + 1, s1.max(s2)),
    };
    let excess = precision.saturating_sub(38);
    Type::Decimal { precision: precision.min(38), scale: scale.saturating_sub(excess).max(scale.min(6)) }
}

fn single(query: &Translated) -> Result<&Output, SqlError> {
    match query.columns.as_slice() {
        [one] => Ok(one),
        _ => {
            let message = "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.";
            Err(SqlError::new(116, 16, message))
        }
    }
}

fn not_a_condition(expr: &Expr) -> SqlError {
    let near = match expr {
        Expr::Column(parts) => parts.join("."),
        Expr::Variable(name) => name.clone(),
        _ => ")".into(),
    };
    SqlError::new(
        4145,
        15,
        format!(
            "An expression of non-boolean type specified in a context where a condition is expected, near '{near}'."
        ),
    )
}

fn not_a_value(expr: &Expr) -> SqlError {
    syntax(match expr {
        Expr::Compare(sign, ..) => sign,
        Expr::Not(_) => "NOT",
        Expr::And(..) => "AND",
        Expr::Or(..) => "OR",
        _ => ")",
    })
}

/// Whether values of two types are stored alike.
pub fn same_form(one: Type, two: Type) -> bool {
    let of = |of: Type| match of {
        Type::Null => 0,
        _ if of.is_integer() => 1,
        _ if of.is_float() => 2,
        _ if of.is_decimal() => 3,
        _ if of.is_text() => 4,
        _ if of.is_binary() => 5,
        Type::DateTime2(_) | Type::DateTime | Type::SmallDateTime => 6,
        Type::Date => 7,
        Type::Time(_) => 8,
        Type::DateTimeOffset(_) => 9,
        Type::UniqueIdentifier => 10,
        _ => 11,
    };
    one == Type::Null || two == Type::Null || of(one) == of(two)
}

fn compare(sign: &str, one: &Typed, two: &Typed) -> Result<String, SqlError> {
    if one.of == Type::Xml || two.of == Type::Xml {
        let message = "The data types xml and xml are incompatible in the equal to operator.";
        return Err(SqlError::new(402, 16, message));
    }
    if same_form(one.of, two.of) {
        let order = if one.of.is_text() || two.of.is_text() {
            collation_of(one, two)?
                .0
                .map_or(" COLLATE TDS_CI".to_string(), |collation| format!(" COLLATE {}", collation.sqlite()))
        } else {
            one.order()
        };
        return Ok(format!("({}{order} {sign} {})", one.sql, two.sql));
    }
    let (low, high) = if one.of.precedence() < two.of.precedence() { (one, two) } else { (two, one) };
    let to = match high.of {
        Type::Decimal { scale, .. } => {
            Type::Decimal { precision: 38, scale: scale.max(low.of.digits().map_or(0, |(_, s)| s)) }
        }
        of => of,
    };
    let converted = cast(low, to, Into::Expression)?;
    let order = high.order();
    Ok(if std::ptr::eq(low, one) {
        format!("({converted}{order} {sign} {})", two.sql)
    } else {
        format!("({}{order} {sign} {converted})", one.sql)
    })
}

fn collation_of(one: &Typed, two: &Typed) -> Result<(Option<Collation>, Weight), SqlError> {
    let chosen = if one.weight >= two.weight { one } else { two };
    if let (true, Some(first), Some(second)) = (one.weight == two.weight, &one.collation, &two.collation)
        && first.name != second.name
        && one.weight != Weight::Default
    {
        let message = format!(
            "Cannot resolve the collation conflict between \"{}\" and \"{}\" in the equal to operation.",
            second.name, first.name
        );
        return Err(SqlError { state: 9, ..SqlError::new(468, 16, message) });
    }
    Ok((chosen.collation.clone(), chosen.weight))
}

fn common(values: &[Typed]) -> (Type, Option<Collation>) {
    let types: Vec<Type> = values.iter().map(|value| value.of).collect();
    let collation = values.iter().max_by_key(|value| value.weight).and_then(|value| value.collation.clone());
    (common_type(&types), collation)
}

/// The type that values of several types have together.
pub fn common_type(types: &[Type]) -> Type {
    match types.iter().copied().max_by_key(|of| of.precedence()).unwrap_or(Type::Null) {
        Type::NVarChar(_) | Type::NChar(_) => Type::NVarChar(longest(types)),
        Type::VarChar(_) | Type::Char(_) => Type::VarChar(longest(types)),
        Type::VarBinary(_) | Type::Binary(_) => Type::VarBinary(None),
        Type::Decimal { .. } => {
            let digits = || types.iter().filter_map(|of| of.digits());
            let scale = digits().map(|(_, scale)| scale).max().unwrap_or(0);
            let whole = digits().map(|(precision, scale)| precision - scale).max().unwrap_or(38);
            Type::Decimal { precision: (whole + scale).min(38), scale }
        }
        of => of,
    }
}

fn longest(types: &[Type]) -> Option<u16> {
    let length = |of: Type| match of {
        Type::NVarChar(length) | Type::VarChar(length) => length,
        Type::NChar(n) | Type::Char(n) => Some(n),
        Type::Null => Some(1),
        _ => Some(40),
    };
    types.iter().map(|of| length(*of)).try_fold(1, |longest, length| length.map(|length| longest.max(length)))
}

/// An expression as one of another type.
pub fn cast(typed: &Typed, to: Type, into: Into<'_>) -> Result<String, SqlError> {
    if !is_allowed(typed.of, to, into) {
        return Err(clash(typed.of, to));
    }
    if typed.of == to || typed.of == Type::Null {
        return Ok(typed.sql.clone());
    }
    let how = match into {
        Into::Cast { utf8 } => 1 + u8::from(utf8),
        _ => 0,
    };
    Ok(format!("tds_convert({}, '{}', '{}', {how})", typed.sql, typed.of.declared(), to.declared()))
}
