//! Where an error stands that DataFusion gives no place: types that do not fit each other are found when a query is
//! whole, and nothing then says which of its expressions they were in.
//!
//! So each expression is planned alone, inner ones first, over what its SELECT reads. The first with the same error is it.

use std::ops::ControlFlow;

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Query, Select, SelectItem, SetExpr, Spanned, TableFactor, With, visit_expressions,
};

use crate::names;
use crate::query::{Catalog, root};

/// Expressions that are tried; the place of the statement must do if there are more.
const MOST_TRIES: usize = 500;

/// The line and column of the expression in a query that an error is about, if one is found.
pub fn culprit(
    error: &DataFusionError,
    query: &Query,
    catalog: &Catalog,
    relations: &[String],
) -> Option<(usize, usize)> {
    let said = root(error).strip_backtrace();
    let mut selects = vec![];
    selects_of(query, &[], &mut selects);
    let mut tries = 0;
    for Scope { select, tables } in selects {
        for expr in expressions(select) {
            tries += 1;
            if tries > MOST_TRIES {
                return None;
            }
            let alone = alone(&expr, query, select, &tables);
            let planned = names::plan(catalog, &alone, relations).and_then(|plan| catalog.optimize(&plan));
            let span = expr.span();
            if planned.is_err_and(|e| root(&e).strip_backtrace() == said) && span.start.line > 0 {
                return Some((span.start.line as usize, span.start.column as usize));
            }
        }
    }
    None
}

/// A SELECT, and what WITH names where it stands.
struct Scope<'a> {
    select: &'a Select,
    tables: Vec<Cte>,
}

/// All SELECTs of a query, those that others read first.
fn selects_of<'a>(query: &'a Query, outer: &[Cte], found: &mut Vec<Scope<'a>>) {
    let mut tables = outer.to_vec();
    for table in query.with.iter().flat_map(|with| &with.cte_tables) {
        selects_of(&table.query, &tables, found);
        tables.push(table.clone());
    }
    selects_of_body(&query.body, &tables, found);
}

fn selects_of_body<'a>(body: &'a SetExpr, tables: &[Cte], found: &mut Vec<Scope<'a>>) {
    match body {
        SetExpr::Query(query) => selects_of(query, tables, found),
        SetExpr::SetOperation { left, right, .. } => {
            selects_of_body(left, tables, found);
            selects_of_body(right, tables, found);
        }
        SetExpr::Select(select) => {
            let joined = select.from.iter().flat_map(|from| from.joins.iter().map(|join| &join.relation));
            for factor in select.from.iter().map(|from| &from.relation).chain(joined) {
                if let TableFactor::Derived { subquery, .. } = factor {
                    selects_of(subquery, tables, found);
                }
            }
            found.push(Scope { select, tables: tables.to_vec() });
        }
        _ => {}
    }
}

/// The expressions of a SELECT, each after those in it.
fn expressions(select: &Select) -> Vec<Expr> {
    let items = select.projection.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let whole = items.chain(&select.selection);
    let mut all: Vec<Expr> = vec![];
    for expr in whole {
        let before = all.len();
        let _: ControlFlow<()> = visit_expressions(expr, |inner| {
            all.push(inner.clone());
            ControlFlow::Continue(())
        });
        all[before..].reverse();
    }
    all
}

/// `SELECT` this expression alone from what `select` reads.
fn alone(expr: &Expr, query: &Query, select: &Select, tables: &[Cte]) -> Query {
    let mut select = select.clone();
    select.projection = vec![SelectItem::UnnamedExpr(expr.clone())];
    (select.selection, select.qualify) = (None, None);
    let mut alone = query.clone();
    alone.with = query.with.clone().map(|with| With { cte_tables: tables.to_vec(), ..with });
    alone.body = Box::new(SetExpr::Select(Box::new(select)));
    alone
}
