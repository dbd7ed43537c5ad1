//! `FOR SYSTEM_TIME AS OF e.proctime` behind a joined table, as Flink and Arroyo write it: the rows that the table has
//! when the stream's row passes. It says what a lookup does anyway, so it is taken out before the query is parsed (the
//! parser library knows it in dialects only that differ in other ways), and its time is checked.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::ddl::{Column, ColumnKind, CreateTable};
use crate::diagnostic::{Diagnostic, Place, SourceFile, nearest};
use crate::names::is_among;

/// One such clause.
pub struct AsOf {
    /// The name before it.
    pub table: String,
    pub time: Expr,
    pub place: Place,
}

/// Functions that say "now".
const NOW: [&str; 4] = ["proctime", "now", "current_timestamp", "localtimestamp"];

/// Takes the clauses out of a file's tokens.
pub fn take_out(tokens: Vec<TokenWithSpan>, file: &Arc<SourceFile>) -> (Vec<TokenWithSpan>, Vec<AsOf>) {
    let (mut left, mut clauses) = (Vec::with_capacity(tokens.len()), vec![]);
    let mut at = 0;
    while at < tokens.len() {
        match clause(&tokens, at, file) {
            Some((clause, range)) => {
                clauses.push(clause);
                at = range.end;
            }
            None => {
                left.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    (left, clauses)
}

fn clause(tokens: &[TokenWithSpan], at: usize, file: &Arc<SourceFile>) -> Option<(AsOf, Range<usize>)> {
    if matches!(tokens[at].token, Token::Whitespace(_)) {
        return None;
    }
    let mut next = at;
    for word in ["for", "system_time", "as", "of"] {
        next = after_blanks(tokens, next);
        if !is_word(&tokens.get(next)?.token, word) {
            return None;
        }
        next += 1;
    }
    let table = tokens[..at].iter().rev().find_map(|t| match &t.token {
        Token::Whitespace(_) => None,
        Token::Word(word) => Some(Some(word.value.clone())),
        _ => Some(None),
    })??;
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens[next..].to_vec());
    let time = parser.parse_expr().ok()?;
    let start = tokens[at].span.start;
    let place = Place { file: file.clone(), line: start.line as usize, column: start.column as usize };
    Some((AsOf { table, time, place }, at..next + parser.index()))
}

fn after_blanks(tokens: &[TokenWithSpan], from: usize) -> usize {
    from + tokens[from..].iter().take_while(|t| matches!(t.token, Token::Whitespace(_))).count()
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// Checks that a clause stands behind a table that is looked up, and names the time at which a row passes. `now`: columns
/// that are that time.
pub fn check(clause: &AsOf, lookups: &BTreeSet<String>, now: &BTreeSet<String>) -> Option<Diagnostic> {
    if !is_among(&clause.table, lookups) {
        let message = format!("FOR SYSTEM_TIME AS OF goes with a lookup table, and {} is none", clause.table);
        let hint =
            "it stands behind the table's name and before its alias; a lookup table is declared with 'lookup' = 'true'";
        return Some(Diagnostic::at(&clause.place, message).hint(hint));
    }
    let name = match &clause.time {
        time if is_now(time) => return None,
        Expr::Identifier(ident) => &ident.value,
        Expr::CompoundIdentifier(idents) => &idents.last()?.value,
        _ => "",
    };
    if now.iter().any(|column| column.eq_ignore_ascii_case(name)) {
        return None;
    }
    let message = format!("{} is not the time at which a row passes, and a lookup table has no other", clause.time);
    let hint = match nearest(name, now.iter().map(String::as_str)) {
        Some(column) => format!("did you mean {column}?"),
        None => "write FOR SYSTEM_TIME AS OF now(), or name a column that the stream declares AS PROCTIME()".into(),
    };
    Some(Diagnostic::at(&clause.place, message).hint(hint))
}

/// The columns of a table that are the time at which a row passes.
pub fn columns_that_are_now(table: &CreateTable) -> impl Iterator<Item = String> {
    table.columns.iter().filter(|column| is_now_column(column)).map(|column| column.field.name().clone())
}

pub fn is_now_column(column: &Column) -> bool {
    matches!(&column.kind, ColumnKind::Generated { expression, .. } if is_now(expression))
}

fn is_now(expression: &Expr) -> bool {
    match expression {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_now(inner),
        Expr::Function(call) => NOW.iter().any(|name| call.name.to_string().eq_ignore_ascii_case(name)),
        _ => false,
    }
}
