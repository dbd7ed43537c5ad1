//! The statements of a job file. Queries and expressions are sqlparser's; the rest of the grammar is ours, because no
//! dialect of sqlparser has `WATERMARK FOR` or `METADATA FROM`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::sql::sqlparser::ast::{Expr, Query};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer, TokenizerError};
use engine::connector::json_field;
use engine::plan::instant;

use crate::diagnostic::{Diagnostic, Place, SourceFile};
use crate::system_time::{self, AsOf};

pub enum Statement {
    CreateTable(CreateTable),
    CreateView(CreateView),
    Insert(Insert),
    Set { name: String, value: String, place: Place },
}

pub struct CreateView {
    pub name: String,
    pub query: Box<Query>,
    pub place: Place,
}

pub struct Insert {
    pub table: String,
    pub query: Box<Query>,
    /// Of the table's name.
    pub place: Place,
}

pub struct CreateTable {
    pub name: String,
    pub place: Place,
    pub columns: Vec<Column>,
    pub primary_key: Vec<String>,
    pub partition_by: Vec<String>,
    pub watermark: Option<(String, Expr, Place)>,
    pub options: Vec<(String, String, Place)>,
}

pub struct Column {
    pub field: FieldRef,
    pub kind: ColumnKind,
    pub place: Place,
}

pub enum ColumnKind {
    Value,
    Metadata(String),
    Generated {
        expression: Box<Expr>,
        /// Whether the type stands in the declaration; else it is the expression's.
        typed: bool,
    },
}

/// Parses a file. After a mistake it goes on behind the next semicolon, to tell of several at once.
pub fn parse(file: &Arc<SourceFile>) -> Result<(Vec<Statement>, Vec<AsOf>), Vec<Diagnostic>> {
    let place = |line: u64, column: u64| Place { file: file.clone(), line: line as usize, column: column as usize };
    let tokens =
        Tokenizer::new(&GenericDialect {}, &file.text).tokenize_with_location().map_err(|e: TokenizerError| {
            vec![Diagnostic::at(&place(e.location.line, e.location.column), in_our_words(&e.message))]
        })?;
    let (tokens, clauses) = system_time::take_out(tokens, file);
    let parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
    let mut statements = Statements { half_closed: 0, parser, file: file.clone() };
    Ok((statements.all()?, clauses))
}

struct Statements<'a> {
    /// Closing brackets that a `>>` brought along.
    half_closed: usize,
    parser: Parser<'a>,
    file: Arc<SourceFile>,
}

impl Statements<'_> {
    fn here(&self) -> Place {
        let Location { line, column } = self.parser.peek_token().span.start;
        // The end of the file has no place of its own.
        if line == 0 {
            let line = self.file.text.trim_end().lines().count().max(1);
            let column = self.file.text.lines().nth(line - 1).map_or(0, |l| l.trim_end().chars().count()) + 1;
            return Place { file: self.file.clone(), line, column };
        }
        Place { file: self.file.clone(), line: line as usize, column: column as usize }
    }

    fn expected<T>(&self, what: &str) -> Result<T, Diagnostic> {
        let found = match self.parser.peek_token().token {
            Token::EOF => "the end of the file".to_string(),
            token => format!("{token}"),
        };
        Err(Diagnostic::at(&self.here(), format!("expected {what}, found {found}")))
    }

    fn word(&self) -> Option<String> {
        match self.parser.peek_token().token {
            Token::Word(word) => Some(word.value),
            _ => None,
        }
    }

    /// Takes these words if they come next, whatever their case.
    fn take(&mut self, words: &str) -> bool {
        let words: Vec<&str> = words.split(' ').collect();
        let next = (0..words.len()).all(|i| match self.parser.peek_nth_token(i).token {
            Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(words[i]),
            _ => false,
        });
        if next {
            self.parser.advance_token();
            (1..words.len()).for_each(|_| self.parser.advance_token());
        }
        next
    }

    fn need(&mut self, words: &str) -> Result<(), Diagnostic> {
        if self.take(words) { Ok(()) } else { self.expected(words) }
    }

    fn symbol(&mut self, token: Token) -> Result<(), Diagnostic> {
        if self.parser.consume_token(&token) { Ok(()) } else { self.expected(&format!("{token}")) }
    }

    fn name(&mut self) -> Result<String, Diagnostic> {
        match self.word() {
            Some(name) => {
                self.parser.advance_token();
                Ok(name)
            }
            None => self.expected("a name"),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, Diagnostic> {
        self.symbol(Token::LParen)?;
        let mut names = vec![self.name()?];
        while self.parser.consume_token(&Token::Comma) {
            names.push(self.name()?);
        }
        self.symbol(Token::RParen)?;
        Ok(names)
    }

    fn text(&mut self) -> Result<String, Diagnostic> {
        match self.parser.peek_token().token {
            Token::SingleQuotedString(text) => {
                self.parser.advance_token();
                Ok(text)
            }
            _ => self.expected("a text in single quotes"),
        }
    }

    fn by_sqlparser<T>(
        &mut self,
        parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<T, Diagnostic> {
        let parsed = parse(&mut self.parser);
        parsed.map_err(|e| {
            let text = match e {
                ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
                ParserError::RecursionLimitExceeded => "the query is nested too deeply".into(),
            };
            let (text, place) = split_place(&text);
            let here = match place {
                Some((line, column)) => Place { file: self.file.clone(), line, column },
                None => self.here(),
            };
            Diagnostic::at(&here, in_our_words(&text))
        })
    }

    fn all(&mut self) -> Result<Vec<Statement>, Vec<Diagnostic>> {
        let (mut statements, mut problems) = (vec![], vec![]);
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            if self.parser.peek_token().token == Token::EOF {
                return if problems.is_empty() { Ok(statements) } else { Err(problems) };
            }
            match self.closed_statement() {
                Ok(statement) => statements.push(statement),
                Err(problem) => {
                    problems.push(problem);
                    self.half_closed = 0;
                    while !matches!(self.parser.peek_token().token, Token::SemiColon | Token::EOF) {
                        self.parser.advance_token();
                    }
                }
            }
        }
    }

    fn closed_statement(&mut self) -> Result<Statement, Diagnostic> {
        let statement = self.statement()?;
        match self.parser.peek_token().token {
            Token::EOF | Token::SemiColon => Ok(statement),
            _ => self.expected("; after the statement"),
        }
    }

    fn statement(&mut self) -> Result<Statement, Diagnostic> {
        let place = self.here();
        if self.take("create table") || self.take("create temporary table") {
            return self.create_table(place).map(Statement::CreateTable);
        }
        if self.take("create view") || self.take("create temporary view") {
            let name = self.name()?;
            self.need("as")?;
            let query = self.by_sqlparser(|p| p.parse_query())?;
            return Ok(Statement::CreateView(CreateView { name, query, place }));
        }
        if self.take("insert into") {
            let place = self.here();
            let table = self.name()?;
            if self.parser.peek_token().token == Token::LParen {
                let hint = "an INSERT goes by position: list the columns in the SELECT, in the table's order";
                return Err(Diagnostic::at(&self.here(), "a column list is not taken here").hint(hint));
            }
            let query = self.by_sqlparser(|p| p.parse_query())?;
            return Ok(Statement::Insert(Insert { table, query, place }));
        }
        if self.take("set") {
            let name = match self.parser.peek_token().token {
                Token::SingleQuotedString(_) => self.text()?,
                _ => self.dotted()?,
            };
            if !self.parser.consume_token(&Token::Eq) {
                self.need("to")?;
            }
            let value = self.literal()?;
            return Ok(Statement::Set { name, value, place });
        }
        self.expected("CREATE TABLE, CREATE VIEW, INSERT INTO or SET")
    }

    /// `a.b-c`, as option names are written without quotes.
    fn dotted(&mut self) -> Result<String, Diagnostic> {
        let mut name = self.name()?;
        loop {
            let separator = match self.parser.peek_token().token {
                Token::Period => '.',
                Token::Minus => '-',
                _ => return Ok(name),
            };
            self.parser.advance_token();
            name.push(separator);
            name.push_str(&self.name()?);
        }
    }

    fn literal(&mut self) -> Result<String, Diagnostic> {
        match self.parser.peek_token().token {
            Token::SingleQuotedString(text) | Token::Number(text, _) => {
                self.parser.advance_token();
                Ok(text)
            }
            Token::Word(word) => {
                self.parser.advance_token();
                Ok(word.value)
            }
            _ => self.expected("a value"),
        }
    }

    fn create_table(&mut self, place: Place) -> Result<CreateTable, Diagnostic> {
        self.take("if not exists");
        let mut table = CreateTable {
            name: self.name()?,
            place,
            columns: vec![],
            primary_key: vec![],
            partition_by: vec![],
            watermark: None,
            options: vec![],
        };
        if self.parser.consume_token(&Token::LParen) {
            while !self.parser.consume_token(&Token::RParen) {
                self.table_element(&mut table)?;
                if !self.parser.consume_token(&Token::Comma) && self.parser.peek_token().token != Token::RParen {
                    return self.expected(", or ) after a column");
                }
            }
        }
        if self.take("partitioned by") {
            table.partition_by = self.names()?;
        }
        self.need("with")?;
        self.symbol(Token::LParen)?;
        while !self.parser.consume_token(&Token::RParen) {
            let place = self.here();
            let name = match self.parser.peek_token().token {
                Token::SingleQuotedString(_) => self.text()?,
                _ => self.dotted()?,
            };
            self.symbol(Token::Eq)?;
            table.options.push((name, self.literal()?, place));
            if !self.parser.consume_token(&Token::Comma) && self.parser.peek_token().token != Token::RParen {
                return self.expected(", or ) after an option");
            }
        }
        Ok(table)
    }

    fn table_element(&mut self, table: &mut CreateTable) -> Result<(), Diagnostic> {
        let place = self.here();
        if self.take("primary key") {
            table.primary_key = self.names()?;
            self.take("not enforced");
            return Ok(());
        }
        if self.take("watermark for") {
            let column = self.name()?;
            self.need("as")?;
            let expression = self.by_sqlparser(|p| p.parse_expr())?;
            table.watermark = Some((column, expression, place));
            return Ok(());
        }
        let name = self.name()?;
        if self.take("as") {
            let expression = Box::new(self.by_sqlparser(|p| p.parse_expr())?);
            // Its type is known when the expression is planned.
            let field = Arc::new(Field::new(name, DataType::Null, true));
            table.columns.push(Column { field, kind: ColumnKind::Generated { expression, typed: false }, place });
            return Ok(());
        }
        let mut column = Column { field: self.typed(&name)?, kind: ColumnKind::Value, place };
        self.column_options(&mut column, table)?;
        table.columns.push(column);
        Ok(())
    }

    fn column_options(&mut self, column: &mut Column, table: &mut CreateTable) -> Result<(), Diagnostic> {
        let name = column.field.name().clone();
        loop {
            if self.take("not null") {
                column.field = Arc::new(column.field.as_ref().clone().with_nullable(false));
            } else if self.take("null") || self.take("virtual") || self.take("stored") || self.take("not enforced") {
            } else if self.take("primary key") {
                table.primary_key = vec![name.clone()];
            } else if self.take("metadata from") {
                column.kind = ColumnKind::Metadata(self.text()?);
            } else if self.take("metadata") {
                column.kind = ColumnKind::Metadata(name.clone());
            } else if self.take("generated always as") || self.take("as") {
                let expression = Box::new(self.by_sqlparser(|p| p.parse_expr())?);
                column.kind = ColumnKind::Generated { expression, typed: true };
            } else {
                return Ok(());
            }
        }
    }

    /// A column of this name, of the type that comes next.
    fn typed(&mut self, name: &str) -> Result<FieldRef, Diagnostic> {
        if self.take("json") {
            return Ok(Arc::new(json_field(name, true)));
        }
        let mut data_type = self.data_type()?;
        while self.parser.consume_token(&Token::LBracket) {
            self.symbol(Token::RBracket)?;
            data_type = DataType::List(Arc::new(Field::new("item", data_type, true)));
        }
        Ok(Arc::new(Field::new(name, data_type, true)))
    }

    fn data_type(&mut self) -> Result<DataType, Diagnostic> {
        let place = self.here();
        let Some(word) = self.word() else { return self.expected("a type") };
        self.parser.advance_token();
        Ok(match word.to_ascii_uppercase().as_str() {
            "STRING" | "TEXT" => DataType::Utf8,
            "VARCHAR" | "CHAR" | "NVARCHAR" => {
                self.length()?;
                DataType::Utf8
            }
            "BOOLEAN" | "BOOL" => DataType::Boolean,
            "TINYINT" => self.unsigned(DataType::Int8, DataType::UInt8),
            "SMALLINT" => self.unsigned(DataType::Int16, DataType::UInt16),
            "INT" | "INTEGER" => self.unsigned(DataType::Int32, DataType::UInt32),
            "BIGINT" => self.unsigned(DataType::Int64, DataType::UInt64),
            "FLOAT" | "REAL" => DataType::Float32,
            "DOUBLE" => {
                self.take("precision");
                DataType::Float64
            }
            "BYTES" | "BINARY" | "VARBINARY" | "BYTEA" => {
                self.length()?;
                DataType::Binary
            }
            "DATE" => DataType::Date32,
            "DECIMAL" | "NUMERIC" => {
                let numbers = self.length()?;
                let precision = numbers.first().copied().unwrap_or(10).clamp(1, 38) as u8;
                DataType::Decimal128(precision, numbers.get(1).copied().unwrap_or(0) as i8)
            }
            "TIMESTAMP_NTZ" => {
                self.length()?;
                DataType::Timestamp(TimeUnit::Nanosecond, None)
            }
            "TIMESTAMP" | "TIMESTAMP_LTZ" | "TIMESTAMPTZ" => {
                self.length()?;
                if self.take("without time zone") {
                    return Ok(DataType::Timestamp(TimeUnit::Nanosecond, None));
                }
                let _ = self.take("with local time zone") || self.take("with time zone");
                instant()
            }
            "ARRAY" => {
                self.symbol(Token::Lt)?;
                let item = self.typed("item")?;
                self.close_angle()?;
                DataType::List(item)
            }
            "MAP" => {
                self.symbol(Token::Lt)?;
                let key = Arc::new(self.typed("key")?.as_ref().clone().with_nullable(false));
                self.symbol(Token::Comma)?;
                let value = self.typed("value")?;
                self.close_angle()?;
                let entries = Field::new("entries", DataType::Struct(Fields::from(vec![key, value])), false);
                DataType::Map(Arc::new(entries), false)
            }
            "STRUCT" | "ROW" => self.structure()?,
            other => {
                let types = "STRING, BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p,s), BYTES, DATE, \
                             TIMESTAMP, JSON, STRUCT<…>, ARRAY<…>, MAP<…>";
                let diagnostic = Diagnostic::at(&place, format!("there is no type {other}"));
                return Err(diagnostic.hint(format!("there are {types}")));
            }
        })
    }

    fn structure(&mut self) -> Result<DataType, Diagnostic> {
        let round = self.parser.consume_token(&Token::LParen);
        if !round {
            self.symbol(Token::Lt)?;
        }
        let mut fields = vec![];
        loop {
            let name = self.name()?;
            let _ = self.parser.consume_token(&Token::Colon);
            let mut field = self.typed(&name)?;
            if self.take("not null") {
                field = Arc::new(field.as_ref().clone().with_nullable(false));
            }
            fields.push(field);
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if round {
            self.symbol(Token::RParen)?
        } else {
            self.close_angle()?
        }
        Ok(DataType::Struct(fields.into()))
    }

    /// `>`, which the tokenizer may have joined with the next one.
    fn close_angle(&mut self) -> Result<(), Diagnostic> {
        if self.half_closed > 0 {
            self.half_closed -= 1;
            return Ok(());
        }
        if self.parser.consume_token(&Token::ShiftRight) {
            self.half_closed += 1;
            return Ok(());
        }
        self.symbol(Token::Gt)
    }

    fn unsigned(&mut self, signed: DataType, unsigned: DataType) -> DataType {
        if self.take("unsigned") { unsigned } else { signed }
    }

    fn length(&mut self) -> Result<Vec<i64>, Diagnostic> {
        let mut numbers = vec![];
        if self.parser.consume_token(&Token::LParen) {
            loop {
                match self.parser.peek_token().token {
                    Token::Number(text, _) => numbers.push(text.parse().unwrap_or(0)),
                    Token::Word(word) if word.value.eq_ignore_ascii_case("max") => {}
                    _ => return self.expected("a number"),
                }
                self.parser.advance_token();
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.symbol(Token::RParen)?;
        }
        Ok(numbers)
    }
}

/// The parser library's messages, in the style of the others.
fn in_our_words(text: &str) -> String {
    match text.strip_prefix("Expected: ") {
        Some(rest) => format!("expected {}", rest.replacen(", found: ", ", found ", 1)),
        None if text.starts_with("Unterminated string literal") => "this text in single quotes has no end".into(),
        None => text.to_string(),
    }
}

/// sqlparser ends its messages with the place.
fn split_place(text: &str) -> (String, Option<(usize, usize)>) {
    let Some(at) = text.rfind(" at Line: ") else { return (text.to_string(), None) };
    let mut numbers = text[at + 10..].split(", Column: ").map(|n| n.trim().parse::<usize>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(line), Some(column)) => (text[..at].to_string(), Some((line, column))),
        _ => (text.to_string(), None),
    }
}
