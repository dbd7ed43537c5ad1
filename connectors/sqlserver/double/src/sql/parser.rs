//! Reads a batch: a small part of T-SQL, and nothing beyond it.
//! <https://learn.microsoft.com/sql/t-sql/statements/statements>

mod definitions;

use super::ast::*;
use super::lexer::{Token, tokens};
use crate::error::{SqlError, syntax};
use crate::types::{Argument, Type};

type Parsed<T> = Result<T, SqlError>;

/// The statements of a batch; an error means that none of them runs.
pub fn parse(text: &str) -> Parsed<Vec<Statement>> {
    let mut parser = Parser::new(text)?;
    let mut statements = Vec::new();
    loop {
        while parser.sign(";") {}
        if parser.at_end() {
            return Ok(statements);
        }
        statements.push(parser.statement()?);
    }
}

/// The parameters that `sp_executesql` declares: `@P1 int, @P2 nvarchar(20)`.
pub fn parse_declarations(text: &str) -> Parsed<Vec<(String, Declared)>> {
    let mut parser = Parser::new(text)?;
    let mut found = Vec::new();
    while !parser.at_end() {
        let name = parser.variable()?;
        parser.word("AS");
        found.push((name, parser.declared()?));
        for word in ["OUTPUT", "OUT", "READONLY"] {
            parser.word(word);
        }
        if !parser.at_end() {
            parser.expect_sign(",")?;
        }
    }
    Ok(found)
}

/// A name within a text, as OBJECT_ID takes it.
pub fn parse_name(text: &str) -> Option<Name> {
    let mut parser = Parser::new(text).ok()?;
    let name = parser.name().ok()?;
    parser.at_end().then_some(name)
}

/// A type as it is declared.
pub fn parse_type(text: &str) -> Parsed<Type> {
    Parser::new(text)?.data_type()
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// The statement that an index is part of, as errors name it.
    defining: &'static str,
}

/// Words that end a list of names without AS, so that they are no alias.
const RESERVED: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASE",
    "CHECK",
    "CLUSTERED",
    "COLLATE",
    "COMMIT",
    "CONSTRAINT",
    "CREATE",
    "CROSS",
    "DECLARE",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXEC",
    "EXECUTE",
    "EXISTS",
    "FOR",
    "FROM",
    "FULL",
    "GRANT",
    "GROUP",
    "HAVING",
    "IDENTITY",
    "IF",
    "IN",
    "INDEX",
    "INNER",
    "INSERT",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LEFT",
    "LIKE",
    "NONCLUSTERED",
    "NOT",
    "NULL",
    "ON",
    "OPTION",
    "OR",
    "ORDER",
    "OUTER",
    "PRIMARY",
    "PROCEDURE",
    "RETURN",
    "RIGHT",
    "ROLLBACK",
    "SAVE",
    "SELECT",
    "SET",
    "TABLE",
    "THEN",
    "TO",
    "TOP",
    "TRAN",
    "TRANSACTION",
    "TRUNCATE",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USE",
    "VALUES",
    "WHEN",
    "WHERE",
    "WHILE",
    "WITH",
];

impl Parser {
    fn new(text: &str) -> Parsed<Self> {
        Ok(Parser { tokens: tokens(text)?, at: 0, defining: "CREATE TABLE" })
    }

    fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Parsed<Token> {
        let token = self.peek().cloned().ok_or_else(|| self.wrong())?;
        self.at += 1;
        Ok(token)
    }

    /// The error for what stands here.
    fn wrong(&self) -> SqlError {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        syntax(&token.map(Token::shown).unwrap_or_default())
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn is_words(&self, words: &[&str]) -> bool {
        let of = |at: usize| self.tokens.get(self.at + at);
        words
            .iter()
            .enumerate()
            .all(|(at, word)| matches!(of(at), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word)))
    }

    fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let found = self.is_words(words);
        if found {
            self.at += words.len();
        }
        found
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.word(word) { Ok(()) } else { Err(self.wrong()) }
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(found)) if *found == sign)
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Parsed<()> {
        if self.sign(sign) { Ok(()) } else { Err(self.wrong()) }
    }

    fn is_reserved(&self) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(word)))
    }

    fn identifier(&mut self) -> Parsed<String> {
        if self.is_reserved() {
            return Err(SqlError::new(
                156,
                15,
                format!("Incorrect syntax near the keyword '{}'.", self.next()?.shown()),
            ));
        }
        let name = match self.next()? {
            Token::Word(name) | Token::Quoted(name) => name,
            _ => {
                self.at -= 1;
                return Err(self.wrong());
            }
        };
        if name.encode_utf16().count() > 128 {
            let message = format!("The identifier that starts with '{name}' is too long. Maximum length is 128.");
            return Err(SqlError::new(103, 15, message));
        }
        if name.is_empty() {
            return Err(SqlError::new(1038, 15, "An object or column name is missing or empty."));
        }
        Ok(name)
    }

    fn variable(&mut self) -> Parsed<String> {
        match self.next()? {
            Token::Variable(name) => Ok(name.to_lowercase()),
            _ => {
                self.at -= 1;
                Err(self.wrong())
            }
        }
    }

    fn name(&mut self) -> Parsed<Name> {
        let mut parts = vec![Some(self.identifier()?)];
        while self.sign(".") {
            parts.push(if self.is_sign(".") { None } else { Some(self.identifier()?) });
        }
        if parts.len() > 3 {
            return Err(self.wrong());
        }
        let name = parts.pop().flatten().ok_or_else(|| self.wrong())?;
        let schema = parts.pop().flatten();
        Ok(Name { database: parts.pop().flatten(), schema, name })
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut found = vec![one(self)?];
        while self.sign(",") {
            found.push(one(self)?);
        }
        Ok(found)
    }

    fn in_parentheses<T>(&mut self, one: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.expect_sign("(")?;
        let found = one(self)?;
        self.expect_sign(")")?;
        Ok(found)
    }

    fn integer(&mut self) -> Parsed<i64> {
        let negative = self.sign("-");
        match self.next()? {
            Token::Number(text) => text.parse().map(|n: i64| if negative { -n } else { n }).map_err(|_| syntax(&text)),
            other => Err(syntax(&other.shown())),
        }
    }
}

/// Statements.
impl Parser {
    fn statement(&mut self) -> Parsed<Statement> {
        let Some(Token::Word(word)) = self.peek() else { return Err(self.wrong()) };
        match word.to_ascii_uppercase().as_str() {
            "SET" => self.set(),
            "DECLARE" => self.declare(),
            "BEGIN" => self.begin(),
            "COMMIT" => self.end_of_transaction().map(|_| Statement::Commit),
            "ROLLBACK" => self.end_of_transaction().map(|savepoint| Statement::Rollback { savepoint }),
            "SAVE" => self.save(),
            "IF" => self.branch(),
            "WITH" => self.with(),
            "SELECT" => Ok(Statement::Select { ctes: Vec::new(), query: self.query()? }),
            "INSERT" => self.insert(Vec::new()),
            "UPDATE" => self.update(Vec::new()),
            "DELETE" => self.delete(Vec::new()),
            "TRUNCATE" => self.truncate(),
            "CREATE" => self.create(),
            "ALTER" => self.alter_table(),
            "DROP" => self.drop_table(),
            "GRANT" => self.grant(),
            "EXEC" | "EXECUTE" => {
                self.next()?;
                self.execute()
            }
            // A batch may begin with a procedure's name.
            name if self.at == 0 && name.starts_with("SP_") => self.execute(),
            "THROW" => self.throw(),
            "RAISERROR" => self.raise(),
            "RETURN" => self.next().map(|_| Statement::Return),
            "USE" => self.use_database(),
            _ => Err(self.wrong()),
        }
    }

    fn set(&mut self) -> Parsed<Statement> {
        self.expect("SET")?;
        if let Some(Token::Variable(_)) = self.peek() {
            let name = self.variable()?;
            self.expect_sign("=")?;
            return Ok(Statement::SetVariable { name, value: self.expr()? });
        }
        if self.word("LOCK_TIMEOUT") {
            return Ok(Statement::LockTimeout(self.integer()?));
        }
        if self.words(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            let levels: [&[&str]; 5] = [
                &["READ", "COMMITTED"],
                &["READ", "UNCOMMITTED"],
                &["REPEATABLE", "READ"],
                &["SERIALIZABLE"],
                &["SNAPSHOT"],
            ];
            let level = levels.into_iter().find(|words| self.is_words(words)).ok_or_else(|| self.wrong())?;
            self.words(level);
            return Ok(Statement::Set { option: "ISOLATION".into(), value: level.join(" ") });
        }
        const SWITCHES: &[&str] = &[
            "XACT_ABORT",
            "NOCOUNT",
            "ANSI_NULLS",
            "ANSI_PADDING",
            "ANSI_WARNINGS",
            "ANSI_NULL_DFLT_ON",
            "ARITHABORT",
            "QUOTED_IDENTIFIER",
            "CONCAT_NULL_YIELDS_NULL",
            "IMPLICIT_TRANSACTIONS",
            "CURSOR_CLOSE_ON_COMMIT",
            "FMTONLY",
            "NUMERIC_ROUNDABORT",
            "NOEXEC",
        ];
        if let Some(option) = SWITCHES.iter().find(|option| self.is_word(option)) {
            self.next()?;
            let value = ["ON", "OFF"].into_iter().find(|value| self.is_word(value)).ok_or_else(|| self.wrong())?;
            self.next()?;
            return Ok(Statement::Set { option: (*option).into(), value: value.into() });
        }
        if let Some(option) = ["TEXTSIZE", "ROWCOUNT"].into_iter().find(|option| self.is_word(option)) {
            self.next()?;
            return Ok(Statement::Set { option: option.into(), value: self.integer()?.to_string() });
        }
        if let Some(option) = ["LANGUAGE", "DATEFORMAT", "DATEFIRST"].into_iter().find(|option| self.is_word(option)) {
            self.next()?;
            return Ok(Statement::Set { option: option.into(), value: self.next()?.shown() });
        }
        let option = self.next()?.shown();
        Err(SqlError::new(195, 15, format!("'{option}' is not a recognized SET option.")))
    }

    fn declare(&mut self) -> Parsed<Statement> {
        self.expect("DECLARE")?;
        let mut all = self.list(|p| {
            let name = p.variable()?;
            p.word("AS");
            let of = p.declared()?;
            let value = if p.sign("=") { Some(p.expr()?) } else { None };
            Ok(Statement::Declare { name, of, value })
        })?;
        Ok(if all.len() == 1 { all.remove(0) } else { Statement::Block(all) })
    }

    fn declared(&mut self) -> Parsed<Declared> {
        if self.word("TABLE") {
            return Ok(Declared::Table(self.in_parentheses(Self::table)?));
        }
        let start = self.at;
        let name = self.name()?;
        if name.schema.is_none() {
            self.at = start;
            match self.data_type() {
                Ok(of) => return Ok(Declared::Scalar(of)),
                Err(error) if error.number != 2715 => return Err(error),
                Err(_) => {
                    self.at = start;
                    self.name()?;
                }
            }
        }
        Ok(Declared::TableType(name))
    }

    fn data_type(&mut self) -> Parsed<Type> {
        let name = self.identifier()?;
        let arguments = if self.is_sign("(") {
            self.in_parentheses(|p| {
                p.list(|p| {
                    if p.word("MAX") {
                        return Ok(Argument::Max);
                    }
                    let number = p.integer()?;
                    u32::try_from(number).map(Argument::Number).map_err(|_| syntax("-"))
                })
            })?
        } else {
            Vec::new()
        };
        Type::named(&name, &arguments)
    }

    fn transaction_word(&mut self) -> bool {
        self.word("TRANSACTION") || self.word("TRAN")
    }

    fn begin(&mut self) -> Parsed<Statement> {
        self.expect("BEGIN")?;
        if self.transaction_word() {
            if !self.is_reserved() && matches!(self.peek(), Some(Token::Word(_) | Token::Quoted(_))) {
                self.identifier()?;
            }
            return Ok(Statement::Begin);
        }
        if self.word("TRY") {
            let body = self.until_end()?;
            self.expect("TRY")?;
            self.expect("BEGIN")?;
            self.expect("CATCH")?;
            let caught = self.until_end()?;
            self.expect("CATCH")?;
            return Ok(Statement::Try { body, caught });
        }
        Ok(Statement::Block(self.until_end()?))
    }

    fn until_end(&mut self) -> Parsed<Vec<Statement>> {
        let mut statements = Vec::new();
        loop {
            while self.sign(";") {}
            if self.word("END") {
                break;
            }
            statements.push(self.statement()?);
        }
        if statements.is_empty() { Err(syntax("END")) } else { Ok(statements) }
    }

    /// COMMIT or ROLLBACK, and the name behind it.
    fn end_of_transaction(&mut self) -> Parsed<Option<String>> {
        self.next()?;
        if !self.transaction_word() {
            self.word("WORK");
            return Ok(None);
        }
        let named = matches!(self.peek(), Some(Token::Word(_) | Token::Quoted(_))) && !self.is_reserved();
        if named { self.identifier().map(Some) } else { Ok(None) }
    }

    fn save(&mut self) -> Parsed<Statement> {
        self.expect("SAVE")?;
        if !self.transaction_word() {
            return Err(self.wrong());
        }
        Ok(Statement::Save { savepoint: self.identifier()? })
    }

    fn branch(&mut self) -> Parsed<Statement> {
        self.expect("IF")?;
        let condition = self.expr()?;
        let then = Box::new(self.statement()?);
        let before = self.at;
        while self.sign(";") {}
        if self.word("ELSE") {
            return Ok(Statement::If { condition, then, otherwise: Some(Box::new(self.statement()?)) });
        }
        self.at = before;
        Ok(Statement::If { condition, then, otherwise: None })
    }

    fn with(&mut self) -> Parsed<Statement> {
        self.expect("WITH")?;
        let ctes = self.list(|p| {
            let name = p.identifier()?;
            p.expect("AS")?;
            Ok(Cte { name, query: p.in_parentheses(Self::query)? })
        })?;
        match self.peek() {
            Some(Token::Word(word)) => match word.to_ascii_uppercase().as_str() {
                "SELECT" => Ok(Statement::Select { ctes, query: self.query()? }),
                "INSERT" => self.insert(ctes),
                "UPDATE" => self.update(ctes),
                "DELETE" => self.delete(ctes),
                _ => Err(self.wrong()),
            },
            _ => Err(self.wrong()),
        }
    }

    fn insert(&mut self, ctes: Vec<Cte>) -> Parsed<Statement> {
        self.expect("INSERT")?;
        if self.is_word("BULK") {
            return self.insert_bulk();
        }
        self.word("INTO");
        let into = self.target()?;
        self.hints()?;
        let columns = if self.is_sign("(") { self.in_parentheses(|p| p.list(Self::identifier))? } else { Vec::new() };
        let source = if self.words(&["DEFAULT", "VALUES"]) {
            Source::Defaults
        } else if self.word("VALUES") {
            Source::Values(self.list(|p| p.in_parentheses(|p| p.list(Self::value_or_default)))?)
        } else if self.is_word("SELECT") {
            Source::Query(Box::new(self.query()?))
        } else {
            return Err(self.wrong());
        };
        Ok(Statement::Insert { ctes, into, columns, source })
    }

    fn value_or_default(&mut self) -> Parsed<Expr> {
        if self.word("DEFAULT") { Ok(Expr::Default) } else { self.expr() }
    }

    fn target(&mut self) -> Parsed<Target> {
        if let Some(Token::Variable(_)) = self.peek() {
            return self.variable().map(Target::Variable);
        }
        self.name().map(Target::Table)
    }

    /// <https://learn.microsoft.com/sql/t-sql/queries/hints-transact-sql-table>
    fn hints(&mut self) -> Parsed<()> {
        if !self.word("WITH") {
            return Ok(());
        }
        self.in_parentheses(|p| {
            p.list(|p| {
                let known = [
                    "TABLOCK",
                    "TABLOCKX",
                    "UPDLOCK",
                    "HOLDLOCK",
                    "SERIALIZABLE",
                    "ROWLOCK",
                    "NOLOCK",
                    "READPAST",
                    "XLOCK",
                ];
                let hint = known.into_iter().find(|hint| p.is_word(hint)).ok_or_else(|| p.wrong())?;
                p.expect(hint)
            })
        })?;
        Ok(())
    }

    /// What bulk copies begin with: MS-TDS 2.2.6.1.
    fn insert_bulk(&mut self) -> Parsed<Statement> {
        self.expect("BULK")?;
        let into = self.name()?;
        let columns = self.in_parentheses(|p| p.list(Self::bulk_column))?;
        let mut options = Vec::new();
        if self.word("WITH") {
            options = self.in_parentheses(|p| p.list(Self::bulk_option))?;
        }
        Ok(Statement::InsertBulk { into, columns, options })
    }

    fn bulk_column(&mut self) -> Parsed<Column> {
        let name = self.identifier()?;
        let of = self.data_type()?;
        let collation = if self.word("COLLATE") { Some(self.identifier()?) } else { None };
        Ok(Column { name, of, collation, nullable: None, identity: None, default: None, computed: None })
    }

    fn bulk_option(&mut self) -> Parsed<String> {
        let known = [
            "CHECK_CONSTRAINTS",
            "TABLOCK",
            "KEEP_NULLS",
            "FIRE_TRIGGERS",
            "KEEP_IDENTITY",
            "ALLOW_ENCRYPTED_VALUE_MODIFICATIONS",
        ];
        if let Some(option) = known.into_iter().find(|option| self.is_word(option)) {
            self.next()?;
            return Ok(option.into());
        }
        if self.word("ROWS_PER_BATCH") || self.word("KILOBYTES_PER_BATCH") {
            self.expect_sign("=")?;
            return Ok(format!("BATCH={}", self.integer()?));
        }
        self.expect("ORDER")?;
        self.in_parentheses(|p| {
            p.list(|p| {
                p.identifier()?;
                Ok(p.direction())
            })
        })?;
        Ok("ORDER".into())
    }

    fn update(&mut self, ctes: Vec<Cte>) -> Parsed<Statement> {
        self.expect("UPDATE")?;
        let target = self.target()?;
        self.hints()?;
        self.expect("SET")?;
        let set = self.list(Self::assignment)?;
        let from = if self.word("FROM") { Some(self.from()?) } else { None };
        let condition = self.condition()?;
        Ok(Statement::Update { ctes, target, set, from, condition })
    }

    fn assignment(&mut self) -> Parsed<Assignment> {
        let variable = if matches!(self.peek(), Some(Token::Variable(_))) { Some(self.variable()?) } else { None };
        if variable.is_some() {
            self.expect_sign("=")?;
        }
        // `@v = column = expression` gives both the new value; `@v = expression` is for the variable alone.
        let start = self.at;
        if let Ok(column) = self.parts()
            && self.sign("=")
        {
            return Ok(Assignment { variable, column: Some(column), value: self.value_or_default()? });
        }
        self.at = start;
        if variable.is_none() {
            self.parts()?;
            return Err(self.wrong());
        }
        Ok(Assignment { variable, column: None, value: self.expr()? })
    }

    fn parts(&mut self) -> Parsed<Vec<String>> {
        let mut parts = vec![self.identifier()?];
        while self.sign(".") {
            parts.push(self.identifier()?);
        }
        Ok(parts)
    }

    fn delete(&mut self, ctes: Vec<Cte>) -> Parsed<Statement> {
        self.expect("DELETE")?;
        self.word("FROM");
        let target = self.target()?;
        self.hints()?;
        let from = if self.word("FROM") { Some(self.from()?) } else { None };
        let condition = self.condition()?;
        Ok(Statement::Delete { ctes, target, from, condition })
    }

    fn condition(&mut self) -> Parsed<Option<Expr>> {
        if self.word("WHERE") { self.expr().map(Some) } else { Ok(None) }
    }

    fn truncate(&mut self) -> Parsed<Statement> {
        self.expect("TRUNCATE")?;
        self.expect("TABLE")?;
        self.name().map(Statement::Truncate)
    }

    fn execute(&mut self) -> Parsed<Statement> {
        let procedure = self.name()?;
        let mut arguments = Vec::new();
        let begins = |p: &Self| {
            matches!(p.peek(), Some(Token::Variable(_) | Token::Text { .. } | Token::Number(_) | Token::Bytes(_)))
                || p.is_word("NULL")
        };
        if begins(self) {
            arguments = self.list(|p| {
                let named = matches!(p.tokens.get(p.at + 1), Some(Token::Sign("=")))
                    && matches!(p.peek(), Some(Token::Variable(_)));
                let name = if named { Some(p.variable()?) } else { None };
                if named {
                    p.expect_sign("=")?;
                }
                let value = p.primary()?;
                let _ = p.word("OUTPUT") || p.word("OUT");
                Ok((name, value))
            })?;
        }
        Ok(Statement::Execute { procedure, arguments })
    }

    fn throw(&mut self) -> Parsed<Statement> {
        self.expect("THROW")?;
        if self.peek().is_none() || self.is_sign(";") {
            return Ok(Statement::Rethrow);
        }
        let number = self.expr()?;
        self.expect_sign(",")?;
        let message = self.expr()?;
        self.expect_sign(",")?;
        Ok(Statement::Throw { number, message, state: self.expr()? })
    }

    fn raise(&mut self) -> Parsed<Statement> {
        self.expect("RAISERROR")?;
        self.expect_sign("(")?;
        let message = self.expr()?;
        self.expect_sign(",")?;
        // Lesser ones are no errors, and those above take rights.
        let (class, state) = (self.integer()?, self.expect_sign(",").and_then(|()| self.integer())?);
        if class != 16 || !(0..=255).contains(&state) {
            return Err(self.wrong());
        }
        self.expect_sign(")")?;
        Ok(Statement::Raise { message })
    }

    fn use_database(&mut self) -> Parsed<Statement> {
        self.expect("USE")?;
        Ok(Statement::Set { option: "DATABASE".into(), value: self.identifier()? })
    }
}

/// Queries.
impl Parser {
    fn query(&mut self) -> Parsed<Query> {
        self.expect("SELECT")?;
        let distinct = self.word("DISTINCT");
        let top = if self.word("TOP") { Some(self.primary()?) } else { None };
        let items = self.list(Self::item)?;
        let from = if self.word("FROM") { Some(self.from()?) } else { None };
        let condition = self.condition()?;
        let group = if self.words(&["GROUP", "BY"]) { self.list(Self::expr)? } else { Vec::new() };
        let having = if self.word("HAVING") { Some(self.expr()?) } else { None };
        let order = self.order()?;
        Ok(Query { top, distinct, items, from, condition, group, having, order })
    }

    fn order(&mut self) -> Parsed<Vec<(Expr, bool)>> {
        if !self.words(&["ORDER", "BY"]) {
            return Ok(Vec::new());
        }
        self.list(|p| {
            let by = p.expr()?;
            Ok((by, p.direction()))
        })
    }

    fn item(&mut self) -> Parsed<Item> {
        if self.sign("*") {
            return Ok(Item::All(None));
        }
        if let [Some(Token::Word(alias) | Token::Quoted(alias)), Some(Token::Sign(".")), Some(Token::Sign("*"))] =
            [0, 1, 2].map(|at| self.tokens.get(self.at + at))
        {
            let alias = alias.clone();
            self.at += 3;
            return Ok(Item::All(Some(alias)));
        }
        if let [Some(Token::Variable(name)), Some(Token::Sign("="))] = [0, 1].map(|at| self.tokens.get(self.at + at)) {
            let variable = name.to_lowercase();
            self.at += 2;
            return Ok(Item::Assign { variable, value: self.expr()? });
        }
        let value = self.expr()?;
        Ok(Item::Expr { value, alias: self.alias()? })
    }

    fn alias(&mut self) -> Parsed<Option<String>> {
        if self.word("AS") {
            if let Some(Token::Text { value, .. }) = self.peek() {
                let value = value.clone();
                self.at += 1;
                return Ok(Some(value));
            }
            return self.identifier().map(Some);
        }
        let is_name = match self.peek() {
            Some(Token::Quoted(_)) => true,
            Some(Token::Word(_)) => !self.is_reserved() && !self.is_word("THROW"),
            _ => false,
        };
        if is_name { self.identifier().map(Some) } else { Ok(None) }
    }

    fn from(&mut self) -> Parsed<From> {
        let first = self.place()?;
        let mut joins = Vec::new();
        loop {
            if self.words(&["CROSS", "JOIN"]) || self.sign(",") {
                joins.push(Join { outer: false, place: self.place()?, on: None });
                continue;
            }
            let outer = self.words(&["LEFT", "OUTER", "JOIN"]) || self.words(&["LEFT", "JOIN"]);
            if !outer && !self.words(&["INNER", "JOIN"]) && !self.word("JOIN") {
                return Ok(From { first, joins });
            }
            let place = self.place()?;
            self.expect("ON")?;
            joins.push(Join { outer, place, on: Some(self.expr()?) });
        }
    }

    fn place(&mut self) -> Parsed<Place> {
        let rows = if self.is_sign("(") {
            Rows::Query(Box::new(self.in_parentheses(Self::query)?))
        } else if let Some(Token::Variable(_)) = self.peek() {
            Rows::Variable(self.variable()?)
        } else if self.is_word("OPENJSON") {
            self.json()?
        } else {
            Rows::Table(self.name()?)
        };
        let alias = self.alias()?;
        self.hints()?;
        Ok(Place { rows, alias })
    }
}

/// <https://learn.microsoft.com/sql/t-sql/functions/openjson-transact-sql>
impl Parser {
    fn json(&mut self) -> Parsed<Rows> {
        self.expect("OPENJSON")?;
        let json = Box::new(self.in_parentheses(Self::expr)?);
        self.expect("WITH")?;
        Ok(Rows::Json(json, self.in_parentheses(|p| p.list(Self::json_column))?))
    }

    /// Of paths, only those of an array's items.
    fn json_column(&mut self) -> Parsed<JsonColumn> {
        let (name, of) = (self.identifier()?, self.data_type()?);
        let Token::Text { value, .. } = self.next()? else {
            self.at -= 1;
            return Err(self.wrong());
        };
        let at = value.strip_prefix("$[").and_then(|rest| rest.strip_suffix(']')).and_then(|at| at.parse().ok());
        let wrong = || SqlError::new(13607, 16, format!("JSON path is not properly formatted: {value}"));
        Ok(JsonColumn { name, of, at: at.ok_or_else(wrong)? })
    }
}

/// Expressions, the loosest first.
impl Parser {
    fn expr(&mut self) -> Parsed<Expr> {
        let mut left = self.conjunction()?;
        while self.word("OR") {
            left = Expr::Or(Box::new(left), Box::new(self.conjunction()?));
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Parsed<Expr> {
        let mut left = self.negation()?;
        while self.word("AND") {
            left = Expr::And(Box::new(left), Box::new(self.negation()?));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Parsed<Expr> {
        if self.word("NOT") {
            return Ok(Expr::Not(Box::new(self.negation()?)));
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Parsed<Expr> {
        let left = self.sum()?;
        for sign in ["=", "<>", "!=", "<=", ">=", "<", ">"] {
            if self.sign(sign) {
                let sign = if sign == "!=" { "<>" } else { sign };
                return Ok(Expr::Compare(sign, Box::new(left), Box::new(self.sum()?)));
            }
        }
        if self.word("IS") {
            let not = self.word("NOT");
            self.expect("NULL")?;
            return Ok(Expr::IsNull(Box::new(left), !not));
        }
        let before = self.at;
        let not = self.word("NOT");
        let value = Box::new(left);
        if self.word("BETWEEN") {
            let low = Box::new(self.sum()?);
            self.expect("AND")?;
            return Ok(Expr::Between { value, low, high: Box::new(self.sum()?), not });
        }
        if self.word("LIKE") {
            return Ok(Expr::Like { value, pattern: Box::new(self.sum()?), not });
        }
        if self.word("IN") {
            return self.in_parentheses(|p| {
                if p.is_word("SELECT") {
                    return Ok(Expr::InQuery { value, query: Box::new(p.query()?), not });
                }
                Ok(Expr::In { value, list: p.list(Self::expr)?, not })
            });
        }
        self.at = before;
        Ok(*value)
    }

    fn sum(&mut self) -> Parsed<Expr> {
        let mut left = self.product()?;
        while let Some(sign) = ["+", "-"].into_iter().find(|sign| self.is_sign(sign)) {
            self.at += 1;
            left = Expr::Arithmetic(sign, Box::new(left), Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed<Expr> {
        let mut left = self.signed()?;
        while let Some(sign) = ["*", "/", "%"].into_iter().find(|sign| self.is_sign(sign)) {
            self.at += 1;
            left = Expr::Arithmetic(sign, Box::new(left), Box::new(self.signed()?));
        }
        Ok(left)
    }

    fn signed(&mut self) -> Parsed<Expr> {
        if self.sign("-") {
            return Ok(Expr::Negative(Box::new(self.signed()?)));
        }
        if self.sign("+") {
            return self.signed();
        }
        let value = self.primary()?;
        if self.word("COLLATE") {
            return Ok(Expr::Collate(Box::new(value), self.identifier()?));
        }
        Ok(value)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        match self.next()? {
            Token::Number(text) => number(&text),
            Token::Text { value, unicode } => Ok(Expr::Text { value, unicode }),
            Token::Bytes(bytes) => Ok(Expr::Bytes(bytes)),
            Token::Variable(name) => Ok(Expr::Variable(name.to_lowercase())),
            Token::Sign("(") => {
                let inner = if self.is_word("SELECT") { Expr::Scalar(Box::new(self.query()?)) } else { self.expr()? };
                self.expect_sign(")")?;
                Ok(inner)
            }
            Token::Sign("-") => Ok(Expr::Negative(Box::new(self.primary()?))),
            Token::Word(word) => {
                self.at -= 1;
                self.word_expression(&word.to_ascii_uppercase())
            }
            Token::Quoted(_) => {
                self.at -= 1;
                self.parts().map(Expr::Column)
            }
            Token::Sign(_) => {
                self.at -= 1;
                Err(self.wrong())
            }
        }
    }

    fn word_expression(&mut self, word: &str) -> Parsed<Expr> {
        match word {
            "NULL" => self.next().map(|_| Expr::Null),
            "EXISTS" => {
                self.next()?;
                Ok(Expr::Exists(Box::new(self.in_parentheses(Self::query)?)))
            }
            "CASE" => self.case(),
            "CAST" => {
                self.next()?;
                self.in_parentheses(|p| {
                    let value = Box::new(p.expr()?);
                    p.expect("AS")?;
                    Ok(Expr::Cast { value, to: p.data_type()? })
                })
            }
            "CONVERT" => {
                self.next()?;
                self.in_parentheses(|p| {
                    let to = p.data_type()?;
                    p.expect_sign(",")?;
                    Ok(Expr::Cast { value: Box::new(p.expr()?), to })
                })
            }
            _ if matches!(self.tokens.get(self.at + 1), Some(Token::Sign("("))) => self.call(),
            _ => self.parts().map(Expr::Column),
        }
    }

    fn case(&mut self) -> Parsed<Expr> {
        self.expect("CASE")?;
        let operand = if self.is_word("WHEN") { None } else { Some(Box::new(self.expr()?)) };
        let mut branches = Vec::new();
        while self.word("WHEN") {
            let when = self.expr()?;
            self.expect("THEN")?;
            branches.push((when, self.expr()?));
        }
        let otherwise = if self.word("ELSE") { Some(Box::new(self.expr()?)) } else { None };
        self.expect("END")?;
        if branches.is_empty() {
            return Err(syntax("END"));
        }
        Ok(Expr::Case { operand, branches, otherwise })
    }

    fn call(&mut self) -> Parsed<Expr> {
        let name = self.next()?.shown().to_ascii_uppercase();
        self.expect_sign("(")?;
        let star = self.sign("*");
        let arguments = if star || self.is_sign(")") { Vec::new() } else { self.list(Self::expr)? };
        self.expect_sign(")")?;
        if name == "ROW_NUMBER" {
            self.expect("OVER")?;
            return self.in_parentheses(|p| {
                let partition = if p.words(&["PARTITION", "BY"]) { p.list(Self::expr)? } else { Vec::new() };
                let order = p.order()?;
                if order.is_empty() {
                    let message = "The function 'ROW_NUMBER' must have an OVER clause with ORDER BY.";
                    return Err(SqlError::new(4112, 15, message));
                }
                Ok(Expr::RowNumber { partition, order })
            });
        }
        Ok(Expr::Call { name, arguments, star })
    }
}

/// <https://learn.microsoft.com/sql/t-sql/data-types/constants-transact-sql>
fn number(text: &str) -> Parsed<Expr> {
    if text.contains('e') {
        return text.parse().map(Expr::Float).map_err(|_| syntax(text));
    }
    match text.parse::<i64>() {
        Ok(number) => Ok(Expr::Integer(number)),
        Err(_) if crate::decimal::Decimal::parse(text).is_some() => Ok(Expr::Decimal(text.into())),
        Err(_) => {
            Err(SqlError::new(1007, 15, format!("The number '{text}' is out of the range for numeric representation.")))
        }
    }
}
