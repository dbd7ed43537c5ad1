//! What SQL can say and a job cannot do yet: refused with its place and the reason, before it is planned.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, JoinConstraint, JoinOperator, LimitClause, Query, Select, SetExpr,
    SetOperator, SetQuantifier, Spanned, TableFactor, TableWithJoins, Value, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::diagnostic::{Diagnostic, Place, SourceFile};
use crate::names::{is_among, relations_of};
use crate::query::Catalog;

/// Everything in a query that a job cannot do. `place`: of the statement.
pub fn unsupported(query: &Query, catalog: &Catalog, lookups: &BTreeSet<String>, place: &Place) -> Vec<Diagnostic> {
    let mut search = Search::of(catalog, lookups, place);
    let _: ControlFlow<()> = query.visit(&mut search);
    search.found
}

/// Where a query says `ROW_NUMBER()`, if it does.
pub fn row_number_place(query: &Query, catalog: &Catalog, place: &Place) -> Option<Place> {
    let no_lookups = BTreeSet::new();
    let mut search = Search::of(catalog, &no_lookups, place);
    let _: ControlFlow<()> = query.visit(&mut search);
    search.row_numbers.into_iter().next()
}

const AGGREGATES: &str = "an aggregate over a stream needs windows and state, which are not built yet";
const JOINS: &str = "a join of streams needs state on both sides, which is not built yet; a table in which rows are looked up \
                     is declared with 'lookup' = 'true'";
const SUBQUERIES: &str = "it is a join, and a join of streams needs state on both sides, which is not built yet";

struct Search<'a> {
    catalog: &'a Catalog,
    /// Tables and views that rows may be looked up in.
    lookups: BTreeSet<String>,
    file: Arc<SourceFile>,
    place: &'a Place,
    found: Vec<Diagnostic>,
    /// Depth within something that is refused whole: what is wrong in it is not told.
    inside_refused: usize,
    row_numbers: Vec<Place>,
}

impl<'a> Search<'a> {
    fn of(catalog: &'a Catalog, lookups: &BTreeSet<String>, place: &'a Place) -> Self {
        let file = place.file.clone();
        Search { catalog, lookups: lookups.clone(), file, place, found: vec![], inside_refused: 0, row_numbers: vec![] }
    }

    /// Whether nothing but lookup tables is read.
    fn is_lookup(&self, factor: &impl Visit) -> bool {
        let reads = relations_of(factor);
        !reads.is_empty() && reads.iter().all(|name| is_among(name, &self.lookups))
    }

    /// Tables in FROM: one stream, lists of its rows, and lookup tables.
    fn tables(&mut self, from: &[TableWithJoins]) {
        let mut streams = 0;
        for table in from {
            let joined = table.joins.iter().map(|join| (&join.relation, Some(&join.join_operator)));
            for (at, (relation, operator)) in std::iter::once((&table.relation, None)).chain(joined).enumerate() {
                let place = self.at(relation.span());
                match operator {
                    Some(operator) if is_unnest(relation) && !meets_always(operator) => {
                        let why = "a list is joined to its own row: CROSS JOIN UNNEST(…), or LEFT JOIN UNNEST(…) ON true \
                                   to keep rows whose list has no elements; a condition belongs into WHERE";
                        self.refuse(place.back_to("JOIN"), "this JOIN UNNEST", why);
                    }
                    _ if is_unnest(relation) || self.is_lookup(relation) => {}
                    _ if streams == 0 => streams += 1,
                    _ if at == 0 => self.refuse(place, "a second table in FROM", JOINS),
                    _ => self.refuse(place.back_to("JOIN"), "JOIN", JOINS),
                }
            }
        }
    }

    fn at(&self, span: Span) -> Place {
        if span.start.line == 0 {
            return self.place.clone();
        }
        Place { file: self.file.clone(), line: span.start.line as usize, column: span.start.column as usize }
    }

    fn refuse(&mut self, place: Place, what: &str, why: &str) {
        if self.inside_refused == 0 {
            self.found.push(Diagnostic::at(&place, format!("{what} is not possible in a job")).hint(why));
        }
    }

    fn body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let all = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
                let word = op.to_string();
                let place = self.at(right.span()).back_to(&word);
                match op {
                    SetOperator::Union if all => {}
                    SetOperator::Union => {
                        let why = "it compares with all rows that ever came; write UNION ALL";
                        self.refuse(place, "UNION without ALL", why)
                    }
                    _ => self.refuse(place, &word, "it compares with all rows that ever came"),
                }
                self.body(left);
                self.body(right);
            }
            SetExpr::Values(_) => {
                let place = self.at(body.span()).back_to("VALUES");
                self.refuse(place, "VALUES", "a job reads tables: INSERT INTO … SELECT … FROM …")
            }
            _ => {}
        }
    }

    fn function(&mut self, function: &Function) {
        let name = function.name.to_string();
        let place = self.at(function.span());
        match &function.over {
            Some(_) if name.eq_ignore_ascii_case("row_number") => self.row_numbers.push(place),
            Some(_) => {
                let why = "a window function needs state, which is not built yet; ROW_NUMBER() … = 1 deduplicates";
                self.refuse(place, &format!("{name}() OVER"), why)
            }
            None if self.catalog.is_aggregate(&name) => self.refuse(place, &format!("{name}()"), AGGREGATES),
            None => {}
        }
    }
}

fn is_unnest(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::UNNEST { .. })
}

/// Whether a list may be joined so: each row meets each element of its list.
fn meets_always(operator: &JoinOperator) -> bool {
    use JoinOperator::{CrossJoin, Inner, Join, Left, LeftOuter};
    let is_true = |on: &Expr| matches!(on, Expr::Value(value) if value.value == Value::Boolean(true));
    match operator {
        CrossJoin(JoinConstraint::None) => true,
        Inner(JoinConstraint::On(on)) | Join(JoinConstraint::On(on)) => is_true(on),
        Left(JoinConstraint::On(on)) | LeftOuter(JoinConstraint::On(on)) => is_true(on),
        _ => false,
    }
}

impl Visitor for Search<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for named in query.with.iter().flat_map(|with| &with.cte_tables) {
            if self.is_lookup(&*named.query) {
                self.lookups.insert(named.alias.name.value.clone());
            }
        }
        self.body(&query.body);
        if let Some(order) = &query.order_by {
            self.refuse(self.at(order.span()).back_to("ORDER"), "ORDER BY", "a stream has no end that could be sorted");
        }
        let limit = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit: Some(limit), .. }) => Some((limit.span(), "LIMIT")),
            Some(LimitClause::LimitOffset { offset: Some(offset), .. }) => Some((offset.span(), "OFFSET")),
            Some(LimitClause::LimitOffset { .. }) => None,
            Some(LimitClause::OffsetCommaLimit { limit, .. }) => Some((limit.span(), "LIMIT")),
            None => query.fetch.as_ref().map(|fetch| (fetch.span(), "FETCH")),
        };
        if let Some((span, word)) = limit {
            let why = "a stream has no end, and a restart would count anew; 'millrace sample' shows a few rows";
            self.refuse(self.at(span).back_to(word), word, why);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))) {
            let place = self.at(select.select_token.0.span);
            let why = "it compares with all rows that ever came; to remove copies within a time, give the table \
                       'deduplicate.key' and 'deduplicate.within'";
            self.refuse(place, "SELECT DISTINCT", why);
        }
        let grouped = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(expressions, modifiers) => !expressions.is_empty() || !modifiers.is_empty(),
        };
        if grouped {
            self.refuse(self.at(select.group_by.span()).back_to("GROUP"), "GROUP BY", AGGREGATES);
        }
        if let Some(having) = &select.having {
            self.refuse(self.at(having.span()).back_to("HAVING"), "HAVING", AGGREGATES);
        }
        if select.from.is_empty() {
            let place = self.at(select.select_token.0.span);
            self.refuse(place, "SELECT without FROM", "a job reads tables: it would have no rows to go on")
        }
        self.tables(&select.from);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } = factor {
            self.refuse(self.at(name.span()), &format!("the table function {name}"), "windows are not built yet");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(query) | Expr::Exists { subquery: query, .. } | Expr::InSubquery { subquery: query, .. } => {
                self.refuse(self.at(query.span()), "a subquery in an expression", SUBQUERIES);
                self.inside_refused += 1;
            }
            Expr::Function(function) => self.function(function),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. }) {
            self.inside_refused -= 1;
        }
        ControlFlow::Continue(())
    }
}
