//! A session: what it has set, its transaction, and the batches that it runs.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::bulk::Load;
use crate::collation;
use crate::convert::{Into, convert};
use crate::error::{Reach, SqlError, lock_timeout, no_column, no_procedure, no_variable};
use crate::sql::ast::{
    Assignment, Cte, Declared, Expr, From, Name, PartitionFunction, Permission, Query, Source, Statement, Target,
};
use crate::sql::catalog::{self, Relation, columns_of, is_temporary};
use crate::sql::functions;
use crate::sql::parser::parse;
use crate::sql::partitions;
use crate::sql::rights::{self, User};
use crate::sql::rows::{self, Identities, Insertion};
use crate::sql::translate::{Facts, Output, Translator, Variable, Variables, cast, common_type};
use crate::tokens::{Answer, Done, command};
use crate::types::Type;
use crate::value::Value;

/// What the sessions of a server have in common.
pub struct Database {
    pub path: std::path::PathBuf,
    pub name: String,
    identities: Mutex<BTreeMap<(i64, i64), i64>>,
    sessions: AtomicI64,
    transactions: AtomicI64,
    stopping: AtomicBool,
}

impl Database {
    pub fn create(path: std::path::PathBuf, name: &str) -> Result<Self, SqlError> {
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        prepare(&connection)?;
        catalog::create(&connection)?;
        Ok(Database {
            path,
            name: name.into(),
            identities: Mutex::default(),
            sessions: AtomicI64::new(51),
            transactions: AtomicI64::new(1),
            stopping: AtomicBool::new(false),
        })
    }

    /// Nobody waits any longer.
    pub fn stop(&self) {
        self.stopping.store(true, SeqCst);
    }
}

fn prepare(connection: &Connection) -> Result<(), SqlError> {
    collation::register(connection)?;
    functions::register(connection)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    // It is the session that waits for locks, as long as it is told to.
    connection.busy_timeout(Duration::ZERO)?;
    Ok(())
}

pub struct Session {
    connection: Connection,
    database: Arc<Database>,
    pub id: i64,
    user: String,
    /// Who may do only what was granted; none: one who owns the database.
    granted: Option<User>,
    abort_on_error: bool,
    silent: bool,
    implicit: bool,
    only_formats: bool,
    /// In milliseconds; −1: for ever.
    lock_timeout: i64,
    open: i64,
    descriptor: u64,
    /// Whether SQLite has a transaction open: from the first change on, so that waiting for a lock is waiting for it.
    holds: bool,
    rows: i64,
    error: i64,
    identity: Option<i64>,
    pub variables: Variables,
    /// Within so many TRY blocks; what was caught there last; and what the CATCH block that runs is about.
    trying: usize,
    caught: Option<SqlError>,
    handling: Option<SqlError>,
    made_tables: i64,
    within_procedure: usize,
    pub cancelled: Arc<AtomicBool>,
    pub answer: Answer,
    /// The bulk load that INSERT BULK has announced.
    pub announced: Option<Load>,
    /// Prepared statements: their parameters, and their texts.
    pub prepared: BTreeMap<i32, (String, String)>,
    pub next_handle: i32,
    /// What went wrong first, for one who is within this process.
    pub first_error: Option<SqlError>,
}

/// The batch, or the procedure, is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborted {
    ByError,
    ByReturn,
}

type Ran = Result<(), Aborted>;

/// What is to be inserted: types, rows, and where no DEFAULT stands.
type Incoming = (Vec<Type>, Vec<Vec<Value>>, Vec<Vec<bool>>);

/// What a query yields.
pub type Rows = (Vec<Output>, Vec<Vec<Value>>);

struct Counted<'a> {
    database: &'a Database,
    session: i64,
}

impl Identities for Counted<'_> {
    fn next(&self, relation: i64, seed: i64, step: i64) -> i64 {
        let owner = if relation < 0 { self.session } else { 0 };
        let mut all = self.database.identities.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let last = all.entry((owner, relation)).and_modify(|last| *last += step).or_insert(seed);
        *last
    }
}

impl Session {
    pub fn open(database: Arc<Database>, user: &str) -> Result<Self, SqlError> {
        let connection = Connection::open(&database.path)?;
        prepare(&connection)?;
        catalog::create_temporary(&connection)?;
        let id = database.sessions.fetch_add(1, SeqCst);
        Ok(Session {
            connection,
            database,
            id,
            user: user.into(),
            granted: None,
            abort_on_error: false,
            silent: false,
            implicit: false,
            only_formats: false,
            lock_timeout: -1,
            open: 0,
            descriptor: 0,
            holds: false,
            rows: 0,
            error: 0,
            identity: None,
            variables: Variables::new(),
            trying: 0,
            caught: None,
            handling: None,
            made_tables: 0,
            within_procedure: 0,
            cancelled: Arc::default(),
            answer: Answer::default(),
            announced: None,
            prepared: BTreeMap::new(),
            next_handle: 1,
            first_error: None,
        })
    }

    /// The session of one whom Entra ID knows: of the user of this name, if there is one.
    pub fn of_external(database: Arc<Database>, user: &str) -> Result<Self, SqlError> {
        let mut session = Session::open(database, user)?;
        session.granted = rights::user(&session.connection, user)?;
        Ok(session)
    }

    pub fn interrupt_handle(&self) -> rusqlite::InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    pub fn descriptor(&self) -> u64 {
        self.descriptor
    }

    /// Runs a batch; what it yields is in the answer. False: it was aborted.
    pub fn batch(&mut self, text: &str) -> bool {
        let before = std::mem::take(&mut self.variables);
        let ran = self.statements(text);
        self.forget_tables();
        self.variables = before;
        ran.is_ok()
    }

    /// Runs the first half of a batch's statements.
    pub fn half(&mut self, text: &str) -> bool {
        let Ok(statements) = parse(text) else { return false };
        // What is tried is most of a batch.
        let tried = statements.iter().position(|statement| matches!(statement, Statement::Try { .. }));
        let ran = match tried.map(|at| (&statements[..at], &statements[at])) {
            Some((before, Statement::Try { body, .. })) => {
                self.run_all(before).and_then(|()| self.run_all(&body[..body.len() / 2]))
            }
            _ => self.run_all(&statements[..statements.len() / 2]),
        };
        self.forget_tables();
        ran.is_ok()
    }

    /// Runs statements with the variables that there are.
    pub fn statements(&mut self, text: &str) -> Ran {
        match parse(text) {
            Ok(statements) => self.run_all(&statements),
            Err(error) => {
                self.say(&error);
                self.done(command::NONE, None, true);
                Err(Aborted::ByError)
            }
        }
    }

    pub fn take_answer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.answer).finish()
    }

    fn run_all(&mut self, statements: &[Statement]) -> Ran {
        for statement in statements {
            if self.cancelled.load(SeqCst) {
                return self.give_up();
            }
            self.run(statement)?;
        }
        Ok(())
    }

    fn run(&mut self, statement: &Statement) -> Ran {
        let result = match statement {
            Statement::Block(statements) => return self.run_all(statements),
            Statement::If { condition, then, otherwise } => match self.holds_true(condition) {
                Ok(true) => return self.run(then),
                Ok(false) => return otherwise.as_ref().map_or(Ok(()), |otherwise| self.run(otherwise)),
                Err(error) => Err(error),
            },
            Statement::Return => return Err(Aborted::ByReturn),
            Statement::Try { body, caught } => return self.attempt(body, caught),
            Statement::Rethrow => return self.rethrow(),
            Statement::Execute { procedure, arguments } => match self.execute(procedure, arguments) {
                Ok(ran) => return ran,
                Err(error) => Err(error),
            },
            simple => self.simple(simple),
        };
        match result {
            Ok(()) => {
                self.error = 0;
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    /// What an error ends: <https://learn.microsoft.com/sql/t-sql/statements/set-xact-abort-transact-sql>
    pub fn fail(&mut self, error: SqlError) -> Ran {
        self.error = error.number.into();
        self.rows = 0;
        if self.cancelled.load(SeqCst) {
            return self.give_up();
        }
        if self.trying > 0 {
            self.caught = Some(error);
            return Err(Aborted::ByError);
        }
        self.say(&error);
        if error.terminates() {
            self.answer.info(3621, "The statement has been terminated.");
        }
        // "THROW honors SET XACT_ABORT. RAISERROR does not."
        let raised = error.number == 50_000;
        let reach = if self.abort_on_error && !raised { Reach::Transaction } else { error.reach() };
        if reach == Reach::Transaction {
            self.undo();
        }
        self.done(command::NONE, None, true);
        if reach == Reach::Statement { Ok(()) } else { Err(Aborted::ByError) }
    }

    /// <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
    fn attempt(&mut self, body: &[Statement], caught: &[Statement]) -> Ran {
        self.trying += 1;
        let ran = self.run_all(body);
        self.trying -= 1;
        let Some(error) = self.caught.take() else { return ran };
        let outer = self.handling.replace(error);
        let ran = self.run_all(caught);
        self.handling = outer;
        ran
    }

    fn rethrow(&mut self) -> Ran {
        let Some(error) = self.handling.clone() else {
            return self.fail(SqlError::new(
                10704,
                15,
                "To rethrow an error, a THROW statement must be used inside a CATCH block.",
            ));
        };
        if self.trying > 0 {
            return self.fail(error);
        }
        self.say(&error);
        if self.abort_on_error {
            self.undo();
        }
        self.done(command::NONE, None, true);
        Err(Aborted::ByError)
    }

    /// The client has called the batch off: its transaction stays, unless errors end it.
    fn give_up(&mut self) -> Ran {
        if self.abort_on_error {
            self.undo();
        }
        self.done(command::NONE, None, true);
        Err(Aborted::ByError)
    }

    pub fn say(&mut self, error: &SqlError) {
        self.first_error.get_or_insert_with(|| error.clone());
        self.answer.error(error, "", 1);
    }

    pub fn done(&mut self, command: u16, count: Option<u64>, error: bool) {
        let kind = if self.within_procedure > 0 { Done::WithinProcedure } else { Done::Statement };
        let count = if self.silent && command != command::SELECT { None } else { count };
        self.answer.done(kind, command, count, error);
    }

    fn facts(&self) -> Facts {
        Facts {
            database: self.database.name.clone(),
            user: self.user.clone(),
            granted: self.granted,
            open: self.open,
            doomed: false,
            rows: self.rows,
            error: self.error,
            session: self.id,
            identity: self.identity,
        }
    }

    fn simple(&mut self, statement: &Statement) -> Result<(), SqlError> {
        match statement {
            Statement::Set { option, value } => self.set(option, value),
            Statement::LockTimeout(milliseconds) => {
                self.lock_timeout = *milliseconds;
                self.done(command::NONE, None, false);
                Ok(())
            }
            Statement::SetVariable { name, value } => self.set_variable(name, value),
            Statement::Declare { name, of, value } => self.declare(name, of, value.as_ref()),
            Statement::Begin => {
                self.begin();
                self.done(command::BEGIN, None, false);
                Ok(())
            }
            Statement::Commit => self.commit().map(|()| self.done(command::COMMIT, None, false)),
            Statement::Rollback { savepoint } => {
                self.rollback(savepoint.as_deref()).map(|()| self.done(command::ROLLBACK, None, false))
            }
            Statement::Save { savepoint } => self.save(savepoint).map(|()| self.done(command::NONE, None, false)),
            Statement::Select { ctes, query } => self.select(ctes, query),
            Statement::Insert { ctes, into, columns, source } => self.insert(ctes, into, columns, source),
            Statement::Update { ctes, target, set, from, condition } => {
                self.update(ctes, target, set, from.as_ref(), condition.as_ref())
            }
            Statement::Delete { ctes, target, from, condition } => {
                self.delete(ctes, target, from.as_ref(), condition.as_ref())
            }
            Statement::Throw { number, message, state } => self.throw(number, message, state),
            Statement::Raise { message } => {
                let (of, text) = self.evaluate(message)?;
                Err(SqlError::new(50_000, 16, crate::convert::to_text(text, of)))
            }
            Statement::InsertBulk { into, columns, options } => {
                let relation = self.translator(|t| t.relation(into))?;
                self.permit(Permission::Insert, &relation)?;
                self.announced = Some(Load::announced(relation, columns, options)?);
                self.done(command::NONE, None, false);
                Ok(())
            }
            definition => self.define(definition),
        }
    }

    fn translator<T>(&self, run: impl FnOnce(&mut Translator<'_>) -> Result<T, SqlError>) -> Result<T, SqlError> {
        let facts = self.facts();
        run(&mut Translator::new(&self.connection, &self.variables, &facts))
    }

    fn holds_true(&mut self, condition: &Expr) -> Result<bool, SqlError> {
        let sql = self.translator(|t| t.condition(condition))?;
        Ok(self
            .connection
            .query_row(&format!("SELECT {sql}"), [], |row| row.get::<_, Option<bool>>(0))?
            .unwrap_or(false))
    }

    fn evaluate(&self, value: &Expr) -> Result<(Type, Value), SqlError> {
        let typed = self.translator(|t| t.value(value))?;
        Ok((typed.of, self.connection.query_row(&format!("SELECT {}", typed.sql), [], |row| row.get(0))?))
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), SqlError> {
        let on = value == "ON";
        match option {
            "XACT_ABORT" => self.abort_on_error = on,
            "NOCOUNT" => self.silent = on,
            "IMPLICIT_TRANSACTIONS" => self.implicit = on,
            "FMTONLY" => self.only_formats = on,
            "DATABASE" if !catalog::same(value, &self.database.name) => {
                let message =
                    format!("Database '{value}' does not exist. Make sure that the name is entered correctly.");
                return Err(SqlError::new(911, 16, message));
            }
            _ => {}
        }
        self.done(command::NONE, None, false);
        Ok(())
    }

    fn set_variable(&mut self, name: &str, value: &Expr) -> Result<(), SqlError> {
        let (from, value) = self.evaluate(value)?;
        let Some(Variable::Scalar(of, _)) = self.variables.get(name) else { return Err(no_variable(name)) };
        let of = *of;
        let value = convert(value, from, of, Into::Expression)?;
        self.variables.insert(name.into(), Variable::Scalar(of, value));
        self.rows = 1;
        Ok(())
    }

    fn declare(&mut self, name: &str, of: &Declared, value: Option<&Expr>) -> Result<(), SqlError> {
        if self.variables.contains_key(name) {
            let message = format!(
                "The variable name '{name}' has already been declared. Variable names must be unique within a query batch or stored procedure."
            );
            return Err(SqlError::new(134, 15, message));
        }
        let variable = match of {
            Declared::Scalar(of) => Variable::Scalar(*of, Value::Null),
            Declared::Table(table) => {
                let named = Name { database: None, schema: None, name: name.into() };
                Variable::Table(self.make_table(|id| Relation::of(table, &named, id, true))?)
            }
            Declared::TableType(of) => Variable::Table(self.table_of_type(name, of)?),
        };
        self.variables.insert(name.into(), variable);
        value.map_or(Ok(()), |value| self.set_variable(name, value))
    }

    fn make_table(&mut self, make: impl FnOnce(i64) -> Result<Relation, SqlError>) -> Result<Relation, SqlError> {
        self.made_tables += 1;
        let relation = make(-(1_000_000_000 + self.made_tables))?;
        partitions::check(&self.connection, &relation)?;
        catalog::store(&self.connection, &relation)?;
        Ok(relation)
    }

    /// An empty table of a table type.
    pub fn table_of_type(&mut self, name: &str, of: &Name) -> Result<Relation, SqlError> {
        let missing = || {
            SqlError::new(2715, 16, format!("Column, parameter, or variable #1: Cannot find data type {}.", of.shown()))
        };
        let found = catalog::find(&self.connection, of, &["TT"])?.ok_or_else(missing)?;
        self.make_table(|id| {
            let stored = format!("temp.t{}", id.unsigned_abs());
            Ok(Relation { id, name: name.into(), stored, temporary: true, ..found })
        })
    }

    /// The variables' tables go with the batch.
    pub fn forget_tables(&mut self) {
        for variable in std::mem::take(&mut self.variables).into_values() {
            if let Variable::Table(relation) = variable {
                self.forget(&relation);
            }
        }
    }

    pub fn forget(&mut self, relation: &Relation) {
        let _ = self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", relation.stored));
    }

    fn throw(&mut self, number: &Expr, message: &Expr, state: &Expr) -> Result<(), SqlError> {
        let number = match self.evaluate(number)?.1 {
            Value::Integer(number @ 50_000..) => number as u32,
            _ => {
                return Err(SqlError::new(
                    35100,
                    16,
                    "Error number in the THROW statement is outside the valid range.",
                ));
            }
        };
        let (of, text) = self.evaluate(message)?;
        let state = match self.evaluate(state)?.1 {
            Value::Integer(state) => state as u8,
            _ => 1,
        };
        Err(SqlError { state, ..SqlError::new(number, 16, crate::convert::to_text(text, of)) })
    }

    fn define(&mut self, statement: &Statement) -> Result<(), SqlError> {
        let temporary = match statement {
            Statement::CreateTable { name, .. }
            | Statement::CreateIndex { on: name, .. }
            | Statement::Truncate(name) => is_temporary(name),
            Statement::DropTable { names, .. } => names.iter().all(is_temporary),
            _ => false,
        };
        let command = if matches!(statement, Statement::DropTable { .. }) { command::DROP } else { command::CREATE };
        if self.granted.is_some() && !temporary {
            let makes_table = matches!(statement, Statement::CreateTable { .. });
            return Err(rights::no_definitions(makes_table, &self.database.name));
        }
        self.write(temporary, |session| {
            let connection = &session.connection;
            match statement {
                Statement::CreateTable { name, table, text } => catalog::create_table(connection, name, table, text),
                Statement::CreateType { name, table, text } => catalog::create_type(connection, name, table, text),
                Statement::CreateView { name, query, text } => session.create_view(name, query, text),
                Statement::CreateIndex { index, on, text } => catalog::create_index(connection, index, on, text),
                Statement::CreateSchema(name) => catalog::create_schema(connection, name),
                Statement::CreatePartitionFunction { name, function, text } => {
                    session.create_partition_function(name, function, text)
                }
                Statement::CreatePartitionScheme { name, scheme, text } => {
                    partitions::create_scheme(connection, name, scheme, text)
                }
                Statement::CreateUser(name) => rights::create_user(connection, name),
                Statement::Grant { permissions, on, to } => rights::grant(connection, permissions, on, to),
                Statement::DropTable { names, if_exists } => {
                    names.iter().try_for_each(|name| catalog::drop_table(connection, name, *if_exists))
                }
                Statement::Truncate(name) => session.truncate(name),
                Statement::EscalateLocks { table, to } => catalog::escalate_locks(connection, table, *to),
                _ => Err(crate::error::syntax("statement")),
            }
        })?;
        self.done(command, None, false);
        Ok(())
    }

    fn create_partition_function(&self, name: &str, function: &PartitionFunction, text: &str) -> Result<(), SqlError> {
        let boundaries = function.boundaries.iter().map(|boundary| self.evaluate(boundary));
        let boundaries = boundaries.collect::<Result<Vec<_>, _>>()?;
        partitions::create_function(&self.connection, name, function.of, boundaries, text)
    }

    fn create_view(&self, name: &Name, query: &Query, text: &str) -> Result<(), SqlError> {
        let columns = self.translator(|t| t.view(query))?;
        catalog::create_view(&self.connection, name, &columns, text)
    }

    fn truncate(&self, name: &Name) -> Result<(), SqlError> {
        let missing = || {
            let message = format!(
                "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                name.shown()
            );
            SqlError { state: 7, ..SqlError::new(4701, 16, message) }
        };
        let relation = catalog::find(&self.connection, name, &["U"])?.ok_or_else(missing)?;
        self.connection.execute_batch(&format!("DELETE FROM {}", relation.stored))?;
        let owner = if relation.id < 0 { self.id } else { 0 };
        self.database.identities.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&(owner, relation.id));
        Ok(())
    }
}

/// Rows.
impl Session {
    fn select(&mut self, ctes: &[Cte], query: &Query) -> Result<(), SqlError> {
        let translated = self.translator(|t| {
            let with = t.with(ctes)?;
            let mut translated = t.query(query)?;
            translated.sql = format!("{with}{}", translated.sql);
            Ok(translated)
        })?;
        if self.implicit && query.from.is_some() && self.open == 0 {
            self.begin();
        }
        let assigns = translated.assigns.iter().any(Option::is_some);
        if assigns && translated.assigns.iter().any(Option::is_none) {
            let message = "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.";
            return Err(SqlError::new(141, 15, message));
        }
        let rows = if self.only_formats { Vec::new() } else { self.fetch(&translated.sql, translated.columns.len())? };
        self.rows = rows.len() as i64;
        if assigns {
            if let Some(last) = rows.into_iter().next_back() {
                self.assign(&translated.columns, &translated.assigns, last);
            }
            return Ok(());
        }
        self.answer.columns(&translated.columns);
        for row in &rows {
            self.answer.row(&translated.columns, row);
        }
        self.done(command::SELECT, Some(rows.len() as u64), false);
        Ok(())
    }

    /// The rows of each query of a batch, for one who is within this process.
    pub fn read(&mut self, text: &str) -> Result<Vec<Rows>, SqlError> {
        let read_one = |statement| {
            let Statement::Select { ctes, query } = statement else { return Err(crate::error::syntax(text)) };
            let (sql, columns) = self.translator(|t| {
                let with = t.with(&ctes)?;
                let translated = t.query(&query)?;
                Ok((format!("{with}{}", translated.sql), translated.columns))
            })?;
            let rows = self.fetch(&sql, columns.len())?;
            Ok((columns, rows))
        };
        parse(text)?.into_iter().map(read_one).collect()
    }

    fn assign(&mut self, columns: &[Output], assigns: &[Option<String>], row: Vec<Value>) {
        for ((column, name), value) in columns.iter().zip(assigns).zip(row) {
            if let Some(name) = name {
                self.variables.insert(name.clone(), Variable::Scalar(column.typed.of, value));
            }
        }
    }

    fn fetch(&self, sql: &str, width: usize) -> Result<Vec<Vec<Value>>, SqlError> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((0..width).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>()?);
        }
        Ok(found)
    }

    fn target(&self, target: &Target) -> Result<Relation, SqlError> {
        let relation = self.translator(|t| match target {
            Target::Table(name) => t.relation(name),
            Target::Variable(name) => t.table_variable(name),
        })?;
        if relation.schema == "sys" {
            return Err(SqlError::new(259, 16, "Ad hoc updates to system catalogs are not allowed."));
        }
        Ok(relation)
    }

    fn permit(&self, permission: Permission, relation: &Relation) -> Result<(), SqlError> {
        self.translator(|t| t.permit(permission, relation))
    }

    fn insert(&mut self, ctes: &[Cte], into: &Target, columns: &[String], source: &Source) -> Result<(), SqlError> {
        let relation = self.target(into)?;
        self.permit(Permission::Insert, &relation)?;
        let chosen = insert_columns(&relation, columns)?;
        let temporary = relation.temporary;
        let inserted = self.write(temporary, |session| {
            let (types, rows, given) = session.source(ctes, source, chosen.len(), columns.is_empty())?;
            let facts = session.facts();
            let insertion = Insertion {
                connection: &session.connection,
                facts: &facts,
                relation: &relation,
                columns: &chosen,
                types: &types,
                identities: &Counted { database: &session.database, session: session.id },
                null_is_default: false,
            };
            insertion.run(rows, &given)
        })?;
        self.identity = inserted.identity.or(self.identity);
        self.rows = inserted.count as i64;
        self.done(command::INSERT, Some(inserted.count), false);
        Ok(())
    }

    fn source(&self, ctes: &[Cte], source: &Source, width: usize, all: bool) -> Result<Incoming, SqlError> {
        match source {
            Source::Defaults => Ok((vec![Type::Null; width], vec![vec![Value::Null; width]], vec![vec![false; width]])),
            Source::Query(query) => {
                let (sql, columns) = self.translator(|t| {
                    let with = t.with(ctes)?;
                    let translated = t.query(query)?;
                    Ok((format!("{with}{}", translated.sql), translated.columns))
                })?;
                check_width(columns.len(), width, all, false)?;
                let rows = self.fetch(&sql, width)?;
                Ok((columns.iter().map(|column| column.typed.of).collect(), rows, Vec::new()))
            }
            Source::Values(values) => self.values(values, width, all),
        }
    }

    fn values(&self, values: &[Vec<Expr>], width: usize, all: bool) -> Result<Incoming, SqlError> {
        let mut types = vec![Vec::new(); width];
        let mut rows = Vec::new();
        let mut given = Vec::new();
        for row in values {
            check_width(row.len(), width, all, true)?;
            let mut typed = Vec::new();
            for (at, value) in row.iter().enumerate() {
                let (of, value) =
                    if *value == Expr::Default { (Type::Null, Value::Null) } else { self.evaluate(value)? };
                types[at].push(of);
                typed.push((of, value));
            }
            given.push(row.iter().map(|value| *value != Expr::Default).collect());
            rows.push(typed);
        }
        let widest: Vec<Type> = types.iter().map(|types| common_type(types)).collect();
        let mut converted = Vec::new();
        for row in rows {
            let convert_one = |(at, (of, value)): (usize, (Type, Value))| {
                if of == widest[at] { Ok(value) } else { convert(value, of, widest[at], Into::Expression) }
            };
            converted.push(row.into_iter().enumerate().map(convert_one).collect::<Result<Vec<_>, _>>()?);
        }
        Ok((widest, converted, given))
    }

    fn update(
        &mut self,
        ctes: &[Cte],
        target: &Target,
        set: &[Assignment],
        from: Option<&From>,
        condition: Option<&Expr>,
    ) -> Result<(), SqlError> {
        let temporary = self.is_temporary_target(target, from)?;
        let count = self.write(temporary, |session| {
            let values: Vec<&Expr> = set.iter().map(|assignment| &assignment.value).collect();
            let changes = session.translator(|t| t.changes(ctes, target, from, condition, &values))?;
            session.permit(Permission::Update, &changes.relation)?;
            let columns = session.set_columns(&changes.relation, set)?;
            let mut rows = session.fetch(&changes.sql, values.len() + 1)?;
            let last = rows.last().cloned();
            let chosen: Vec<(usize, usize)> =
                columns.iter().enumerate().filter_map(|(at, column)| Some((at, (*column)?))).collect();
            let types: Vec<Type> = chosen.iter().map(|(at, _)| changes.values[*at].of).collect();
            for (at, column) in &chosen {
                cast(&changes.values[*at], changes.relation.columns[*column].of, Into::Expression)?;
            }
            let changed = rows.drain(..).filter_map(|row| {
                let Value::Integer(rowid) = row[0] else { return None };
                Some((rowid, chosen.iter().map(|(at, _)| row[at + 1].clone()).collect()))
            });
            let columns: Vec<usize> = chosen.iter().map(|(_, column)| *column).collect();
            let changed = changed.collect();
            let count =
                rows::update(&session.connection, &session.facts(), &changes.relation, &columns, &types, changed)?;
            if let Some(last) = last {
                for (at, assignment) in set.iter().enumerate() {
                    session.keep(assignment, changes.values[at].of, last[at + 1].clone())?;
                }
            }
            Ok(count)
        })?;
        self.rows = count as i64;
        self.done(command::UPDATE, Some(count), false);
        Ok(())
    }

    /// `@v = …` of an UPDATE.
    fn keep(&mut self, assignment: &Assignment, from: Type, value: Value) -> Result<(), SqlError> {
        let Some(name) = &assignment.variable else { return Ok(()) };
        let Some(Variable::Scalar(of, _)) = self.variables.get(name) else { return Err(no_variable(name)) };
        let of = *of;
        let value = convert(value, from, of, Into::Expression)?;
        self.variables.insert(name.clone(), Variable::Scalar(of, value));
        Ok(())
    }

    fn set_columns(&self, relation: &Relation, set: &[Assignment]) -> Result<Vec<Option<usize>>, SqlError> {
        let mut found: Vec<Option<usize>> = Vec::new();
        for assignment in set {
            let Some(name) = assignment.column.as_ref().and_then(|parts| parts.last()) else {
                found.push(None);
                continue;
            };
            let at = relation.column(name).ok_or_else(|| no_column(name))?;
            let column = &relation.columns[at];
            if column.identity.is_some() {
                return Err(SqlError::new(8102, 16, format!("Cannot update identity column '{}'.", column.name)));
            }
            if column.computed.is_some() {
                return Err(computed(&column.name));
            }
            if found.contains(&Some(at)) {
                return Err(specified_twice(&column.name, "SET clause or column list of an INSERT"));
            }
            found.push(Some(at));
        }
        Ok(found)
    }

    fn delete(
        &mut self,
        ctes: &[Cte],
        target: &Target,
        from: Option<&From>,
        condition: Option<&Expr>,
    ) -> Result<(), SqlError> {
        let temporary = self.is_temporary_target(target, from)?;
        let count = self.write(temporary, |session| {
            let changes = session.translator(|t| t.changes(ctes, target, from, condition, &[]))?;
            session.permit(Permission::Delete, &changes.relation)?;
            let rows = session.fetch(&changes.sql, 1)?;
            let rowids: Vec<i64> =
                rows.iter().filter_map(|row| if let Value::Integer(id) = row[0] { Some(id) } else { None }).collect();
            rows::delete(&session.connection, &changes.relation, &rowids)
        })?;
        self.rows = count as i64;
        self.done(command::DELETE, Some(count), false);
        Ok(())
    }

    fn is_temporary_target(&self, target: &Target, from: Option<&From>) -> Result<bool, SqlError> {
        Ok(match (target, from) {
            (Target::Variable(_), _) => true,
            (Target::Table(name), None) => self.target(&Target::Table(name.clone()))?.temporary,
            (Target::Table(name), Some(_)) => is_temporary(name),
        })
    }

    /// Puts in what a bulk load brought. MS-TDS 2.2.6.1.
    pub fn load(&mut self, load: &Load, rows: Vec<Vec<Value>>) -> Ran {
        let checks = load.check_constraints;
        let loaded = self.write(load.relation.temporary, |session| {
            session.connection.pragma_update(None, "ignore_check_constraints", !checks)?;
            let facts = session.facts();
            let insertion = Insertion {
                connection: &session.connection,
                facts: &facts,
                relation: &load.relation,
                columns: &load.columns,
                types: &load.types,
                identities: &Counted { database: &session.database, session: session.id },
                null_is_default: !load.keep_nulls,
            };
            let inserted = insertion.run(rows, &[]);
            session.connection.pragma_update(None, "ignore_check_constraints", false)?;
            inserted
        });
        match loaded {
            Ok(inserted) => {
                self.rows = inserted.count as i64;
                self.answer.done(Done::Statement, command::BULK, Some(inserted.count), false);
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }
}

fn insert_columns(relation: &Relation, columns: &[String]) -> Result<Vec<usize>, SqlError> {
    if columns.is_empty() {
        let plain = |at: &usize| relation.columns[*at].identity.is_none() && relation.columns[*at].computed.is_none();
        return Ok((0..relation.columns.len()).filter(plain).collect());
    }
    let chosen = columns_of(relation, columns)?;
    for (place, at) in chosen.iter().enumerate() {
        let column = &relation.columns[*at];
        if chosen[..place].contains(at) {
            return Err(specified_twice(&column.name, "SET clause or column list of an INSERT"));
        }
        if column.computed.is_some() {
            return Err(computed(&column.name));
        }
        if column.identity.is_some() {
            let message = format!(
                "Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.",
                relation.name
            );
            return Err(SqlError::new(544, 16, message));
        }
    }
    Ok(chosen)
}

fn computed(column: &str) -> SqlError {
    let message = format!(
        "The column \"{column}\" cannot be modified because it is either a computed column or is the result of a UNION operator."
    );
    SqlError::new(271, 16, message)
}

fn specified_twice(column: &str, place: &str) -> SqlError {
    let message = format!(
        "The column name '{column}' is specified more than once in the {place}. A column cannot be assigned more than one value in the same clause."
    );
    SqlError::new(264, 16, message)
}

/// Whether there are as many values as columns. `all`: no columns were said.
fn check_width(found: usize, width: usize, all: bool, from_values: bool) -> Result<(), SqlError> {
    const MATCH_VALUES: &str =
        "The number of values in the VALUES clause must match the number of columns specified in the INSERT statement.";
    const MATCH_ITEMS: &str = "The number of SELECT values must match the number of INSERT columns.";
    let columns = |more| {
        format!(
            "There are {more} columns in the INSERT statement than values specified in the VALUES clause. {MATCH_VALUES}"
        )
    };
    let items = |more| {
        format!("The select list for the INSERT statement contains {more} items than the insert list. {MATCH_ITEMS}")
    };
    let (number, message) = match (found.cmp(&width), from_values) {
        (Ordering::Equal, _) => return Ok(()),
        _ if all => {
            return Err(SqlError::new(
                213,
                16,
                "Column name or number of supplied values does not match table definition.",
            ));
        }
        (Ordering::Less, true) => (109, columns("more")),
        (Ordering::Greater, true) => (110, columns("fewer")),
        (Ordering::Less, false) => (120, items("fewer")),
        (Ordering::Greater, false) => (121, items("more")),
    };
    Err(SqlError::new(number, 15, message))
}

/// Transactions.
impl Session {
    /// Runs what changes rows or definitions: all of it, or nothing.
    fn write<T>(
        &mut self,
        temporary: bool,
        work: impl FnOnce(&mut Self) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        if self.implicit && self.open == 0 {
            self.begin();
        }
        let alone = self.open == 0;
        if !self.holds {
            // The session's own tables need no lock that another one waits for.
            if alone && temporary {
                self.connection.execute_batch("BEGIN")?
            } else {
                self.lock()?
            }
            self.holds = true;
        }
        self.connection.execute_batch("SAVEPOINT statement")?;
        let result = work(self);
        let end = if result.is_ok() { "RELEASE statement" } else { "ROLLBACK TO statement; RELEASE statement" };
        let mut ended = self.connection.execute_batch(end).map_err(SqlError::from);
        if alone {
            let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
            ended = ended.and(self.connection.execute_batch(end).map_err(SqlError::from));
            self.holds = false;
        }
        let result = result?;
        ended.map(|()| result)
    }

    /// Waits until no other session changes anything. <https://learn.microsoft.com/sql/t-sql/statements/set-lock-timeout-transact-sql>
    fn lock(&mut self) -> Result<(), SqlError> {
        let since = Instant::now();
        loop {
            match self.connection.execute_batch("BEGIN IMMEDIATE").map_err(SqlError::from) {
                Err(error) if error.number == lock_timeout().number => {}
                result => return result,
            }
            if self.cancelled.load(SeqCst) || self.database.stopping.load(SeqCst) {
                return Err(SqlError::new(3617, 11, "Query was cancelled."));
            }
            let timeout = u64::try_from(self.lock_timeout).ok().map(Duration::from_millis);
            if timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
                return Err(lock_timeout());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn begin(&mut self) {
        self.open += 1;
        if self.open == 1 {
            self.descriptor = self.database.transactions.fetch_add(1, SeqCst) as u64;
            self.answer.change_bytes(8, &self.descriptor.to_le_bytes(), &[]);
        }
    }

    pub fn commit(&mut self) -> Result<(), SqlError> {
        if self.open == 0 {
            return Err(SqlError::new(
                3902,
                16,
                "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            ));
        }
        if self.open == 1 && self.holds {
            self.connection.execute_batch("COMMIT")?;
            self.holds = false;
        }
        self.open -= 1;
        if self.open == 0 {
            self.ended(9);
        }
        Ok(())
    }

    fn ended(&mut self, how: u8) {
        self.answer.change_bytes(how, &[], &self.descriptor.to_le_bytes());
        self.descriptor = 0;
    }

    pub fn rollback(&mut self, savepoint: Option<&str>) -> Result<(), SqlError> {
        if self.open == 0 {
            return Err(SqlError::new(
                3903,
                16,
                "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            ));
        }
        if let Some(name) = savepoint {
            let quoted = savepoint_name(name);
            return self.connection.execute_batch(&format!("ROLLBACK TO {quoted}")).map_err(|_| {
                let message = format!("Cannot roll back {name}. No transaction or savepoint of that name was found.");
                SqlError::new(6401, 16, message)
            });
        }
        self.undo();
        Ok(())
    }

    /// Rolls back whatever is open.
    pub fn undo(&mut self) {
        if self.holds {
            let _ = self.connection.execute_batch("ROLLBACK");
            self.holds = false;
        }
        if self.open > 0 {
            self.open = 0;
            self.ended(10);
        }
    }

    pub fn save(&mut self, savepoint: &str) -> Result<(), SqlError> {
        if self.open == 0 {
            return Err(SqlError::new(628, 16, "Cannot issue SAVE TRANSACTION when there is no active transaction."));
        }
        if !self.holds {
            self.lock()?;
            self.holds = true;
        }
        Ok(self.connection.execute_batch(&format!("SAVEPOINT {}", savepoint_name(savepoint)))?)
    }

    /// What a pooled connection is given anew with: MS-TDS 2.2.3.1.2, RESETCONNECTION.
    pub fn reset(&mut self) {
        self.undo();
        self.abort_on_error = false;
        self.silent = false;
        self.implicit = false;
        self.only_formats = false;
        self.lock_timeout = -1;
        self.prepared.clear();
        let mut names = Vec::new();
        if let Ok(mut statement) = self.connection.prepare("SELECT name FROM temp.objects")
            && let Ok(rows) = statement.query_map([], |row| row.get::<_, String>(0))
        {
            names.extend(rows.flatten());
        }
        for name in names {
            let _ = catalog::drop_table(&self.connection, &Name { database: None, schema: None, name }, true);
        }
    }
}

fn savepoint_name(name: &str) -> String {
    catalog::quoted(&format!("s {}", name.to_lowercase()))
}

/// Procedures.
impl Session {
    fn execute(&mut self, name: &Name, arguments: &[(Option<String>, Expr)]) -> Result<Ran, SqlError> {
        if let ("sp_executesql", [(_, Expr::Text { value, .. })]) = (catalog::folded(&name.name).as_str(), arguments) {
            let only_formats = self.only_formats;
            let ran = self.as_procedure(|session| session.statements(value));
            self.only_formats = only_formats;
            self.executed(ran.is_err());
            return Ok(ran);
        }
        let procedure = catalog::procedure(&self.connection, name)?.ok_or_else(|| no_procedure(&name.shown()))?;
        self.translator(|t| t.permit_object(Permission::Execute, name))?;
        let parameter = procedure.parameter.to_lowercase();
        let [(said, value)] = arguments else { return Err(argument_missing(name, &procedure.parameter)) };
        if said.as_ref().is_some_and(|said| *said != parameter) {
            let said = said.clone().unwrap_or_default();
            return Err(SqlError::new(8145, 16, format!("{said} is not a parameter for procedure {}.", name.name)));
        }
        let of = catalog::find(&self.connection, &procedure.of, &["TT"])?;
        let rows = match value {
            Expr::Variable(variable) => self.translator(|t| t.table_variable(variable))?,
            _ => return Err(argument_clash(&procedure.of)),
        };
        let alike = of.is_some_and(|of| same_columns(&of, &rows));
        if !alike {
            return Err(argument_clash(&procedure.of));
        }
        let ran = self.call(name, &parameter, rows, &procedure.body);
        self.executed(ran.is_err());
        Ok(ran)
    }

    /// The end of a procedure that a batch has called.
    fn executed(&mut self, failed: bool) {
        self.answer.status(0);
        let kind = if self.within_procedure > 0 { Done::WithinProcedure } else { Done::Procedure };
        self.answer.done(kind, command::EXECUTE, None, failed);
    }

    /// Runs a procedure's body over the rows that are its parameter.
    pub fn call(&mut self, name: &Name, parameter: &str, rows: Relation, body: &str) -> Ran {
        let statements = match parse(body) {
            Ok(statements) => statements,
            Err(error) => {
                return self.fail(SqlError { message: format!("{}: {}", name.shown(), error.message), ..error });
            }
        };
        let given = Variable::Table(Relation { name: parameter.into(), ..rows });
        let outer = std::mem::replace(&mut self.variables, Variables::from([(parameter.to_string(), given)]));
        let silent = self.silent;
        // Who may execute it may do what it does: <https://learn.microsoft.com/sql/relational-databases/tutorial-ownership-chains-and-context-switching>
        let granted = self.granted.take();
        self.within_procedure += 1;
        let ran = self.run_all(&statements);
        self.within_procedure -= 1;
        (self.silent, self.granted) = (silent, granted);
        // The rows are the caller's.
        self.variables.remove(parameter);
        self.forget_tables();
        self.variables = outer;
        if ran == Err(Aborted::ByReturn) { Ok(()) } else { ran }
    }

    /// Runs what a client calls by name or number, with its answers as those of a procedure.
    pub fn as_procedure(&mut self, run: impl FnOnce(&mut Self) -> Ran) -> Ran {
        self.within_procedure += 1;
        let ran = run(self);
        self.within_procedure -= 1;
        ran
    }

    pub fn procedure(&self, name: &Name) -> Result<Option<catalog::Procedure>, SqlError> {
        catalog::procedure(&self.connection, name)
    }

    pub fn create_procedure(&mut self, name: &Name, parameter: &str, of: &Name, body: &str) -> Result<(), SqlError> {
        self.write(false, |session| catalog::create_procedure(&session.connection, name, parameter, of, body))
    }

    /// Puts rows into a table variable: a table-valued parameter.
    pub fn fill(
        &mut self,
        relation: &Relation,
        columns: &[usize],
        types: &[Type],
        rows: Vec<Vec<Value>>,
    ) -> Result<(), SqlError> {
        self.write(true, |session| {
            let facts = session.facts();
            let insertion = Insertion {
                connection: &session.connection,
                facts: &facts,
                relation,
                columns,
                types,
                identities: &Counted { database: &session.database, session: session.id },
                null_is_default: false,
            };
            insertion.run(rows, &[]).map(|_| ())
        })
    }
}

fn same_columns(one: &Relation, two: &Relation) -> bool {
    let of = |relation: &Relation| {
        relation.columns.iter().map(|column| (column.name.clone(), column.of)).collect::<Vec<_>>()
    };
    let keys = |relation: &Relation| relation.keys.iter().filter(|key| key.is_unique()).count();
    of(one) == of(two) && keys(one) == keys(two)
}

fn argument_missing(name: &Name, parameter: &str) -> SqlError {
    let message =
        format!("Procedure or function '{}' expects parameter '{parameter}', which was not supplied.", name.name);
    SqlError { state: 4, ..SqlError::new(201, 16, message) }
}

fn argument_clash(of: &Name) -> SqlError {
    SqlError::new(206, 16, format!("Operand type clash: the argument is incompatible with {}", of.name))
}
