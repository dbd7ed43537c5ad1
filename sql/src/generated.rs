//! Generated columns: `c AS expression`. A table that has some is a view over what its source delivers, so that each
//! is computed only where a query uses it; where one reads another, views over views. Those that the watermark or the
//! deduplication reads are computed at the source instead.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column as DfColumn, DataFusionError, TableReference};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, Query, SelectItem, SetExpr, visit_expressions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::ddl::{Column, ColumnKind, CreateTable};
use crate::diagnostic::Diagnostic;
use crate::errors::{explain, explain_query};
use crate::insert::{fits, shown};
use crate::names;
use crate::query::{Catalog, SOURCES, uses_now};
use crate::table::Computed;
use crate::unsupported::unsupported;

/// Makes a table's columns known to queries. `early`: the generated columns that are computed at the source, which are
/// returned.
pub fn declare(table: &CreateTable, early: &[String], catalog: &Catalog) -> Result<Vec<Computed>, Vec<Diagnostic>> {
    let mut delivered: Vec<FieldRef> =
        table.columns.iter().filter(|c| !is_generated(c)).map(|c| c.field.clone()).collect();
    let failed = |e| explain(&e, &table.place, &[]);
    if !table.columns.iter().any(is_generated) {
        let reference = TableReference::bare(table.name.as_str());
        catalog.add_table(reference, Arc::new(Schema::new(delivered))).map_err(failed)?;
        return Ok(vec![]);
    }
    let reference = TableReference::partial(SOURCES, table.name.as_str());
    catalog.add_table(reference.clone(), Arc::new(Schema::new(delivered.clone()))).map_err(failed)?;
    let ranks = ranks(table)?;
    let early = with_what_they_read(table, early);
    let computed = compute(table, &early, &ranks, catalog)?;
    delivered.extend(computed.iter().map(|c| c.field.clone()));
    catalog.remove_table(reference.clone()).map_err(failed)?;
    catalog.add_table(reference, Arc::new(Schema::new(delivered))).map_err(failed)?;
    let late: Vec<Vec<&Column>> = among(&ranks, |c| !early.contains(c.field.name()));
    let all: Vec<&Column> = table.columns.iter().collect();
    let last = add_ranks(table, &late, &early, catalog)?;
    let view = select(table, &all, &last, catalog)?;
    catalog.add_view(TableReference::bare(table.name.as_str()), view).map_err(failed)?;
    Ok(computed)
}

fn is_generated(column: &Column) -> bool {
    matches!(column.kind, ColumnKind::Generated { .. })
}

/// The generated columns, each after those that it reads: of the first rank are those that read none.
fn ranks(table: &CreateTable) -> Result<Vec<Vec<&Column>>, Vec<Diagnostic>> {
    let mut left: Vec<&Column> = table.columns.iter().filter(|c| is_generated(c)).collect();
    let mut ranks = vec![];
    while !left.is_empty() {
        let waits = |c: &&Column| reads(c, table).iter().any(|read| left.iter().any(|l| l.field.name() == read));
        let (waiting, ready): (Vec<&Column>, Vec<&Column>) = left.iter().copied().partition(waits);
        if ready.is_empty() {
            let names: Vec<_> = waiting.iter().map(|c| c.field.name().as_str()).collect();
            let message = format!(
                "these generated columns are computed from themselves or from each other: {}",
                names.join(", ")
            );
            return Err(vec![Diagnostic::at(&waiting[0].place, message)]);
        }
        ranks.push(ready);
        left = waiting;
    }
    Ok(ranks)
}

/// The generated columns that a column's expression names.
fn reads(column: &Column, table: &CreateTable) -> Vec<String> {
    let ColumnKind::Generated { expression, .. } = &column.kind else { return vec![] };
    let mut names = vec![];
    let _: ControlFlow<()> = visit_expressions(expression.as_ref(), |e| {
        match e {
            SqlExpr::Identifier(name) => names.push(name.value.clone()),
            // `t.c`, or a field of a struct.
            SqlExpr::CompoundIdentifier(parts) => names.extend(parts.iter().take(2).map(|part| part.value.clone())),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let columns = || table.columns.iter().map(|c| c.field.name());
    let is_named = |c: &&Column| {
        let name = c.field.name();
        let alike = |n: &String| n.eq_ignore_ascii_case(name) && !columns().any(|other| other == n);
        names.iter().any(|n| n == name || alike(n))
    };
    table.columns.iter().filter(|c| is_generated(c)).filter(is_named).map(|c| c.field.name().clone()).collect()
}

/// Columns, and the generated columns that they read, and so on.
fn with_what_they_read(table: &CreateTable, names: &[String]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let mut open: Vec<String> = names.to_vec();
    while let Some(name) = open.pop() {
        if let Some(column) = table.columns.iter().find(|c| is_generated(c) && *c.field.name() == name)
            && known.insert(name)
        {
            open.extend(reads(column, table));
        }
    }
    known
}

/// Of each rank the columns that are chosen.
fn among<'a>(ranks: &[Vec<&'a Column>], chosen: impl Fn(&Column) -> bool) -> Vec<Vec<&'a Column>> {
    let some = ranks.iter().map(|rank| rank.iter().copied().filter(|c| chosen(c)).collect());
    some.filter(|rank: &Vec<_>| !rank.is_empty()).collect()
}

/// Adds all ranks but the last to what the source is known to deliver, and returns the last. `there`: the generated
/// columns that it delivers already.
fn add_ranks<'a>(
    table: &'a CreateTable,
    ranks: &[Vec<&'a Column>],
    there: &BTreeSet<String>,
    catalog: &Catalog,
) -> Result<Vec<&'a Column>, Vec<Diagnostic>> {
    let Some((last, before)) = ranks.split_last() else { return Ok(vec![]) };
    let mut there = there.clone();
    for rank in before {
        there.extend(rank.iter().map(|c| c.field.name().clone()));
        let columns: Vec<&Column> =
            table.columns.iter().filter(|c| !is_generated(c) || there.contains(c.field.name())).collect();
        let plan = select(table, &columns, rank, catalog)?;
        let reference = TableReference::partial(SOURCES, table.name.as_str());
        let replaced = catalog.remove_table(reference.clone()).and_then(|()| catalog.add_view(reference, plan));
        replaced.map_err(|e| explain(&e, &table.place, &[]))?;
    }
    Ok(last.clone())
}

fn compute(
    table: &CreateTable,
    early: &BTreeSet<String>,
    ranks: &[Vec<&Column>],
    catalog: &Catalog,
) -> Result<Vec<Computed>, Vec<Diagnostic>> {
    let columns: Vec<&Column> = table.columns.iter().filter(|c| early.contains(c.field.name())).collect();
    if columns.is_empty() {
        return Ok(vec![]);
    }
    let last = add_ranks(table, &among(ranks, |c| early.contains(c.field.name())), &BTreeSet::new(), catalog)?;
    let plan = select(table, &columns, &last, catalog)?;
    if uses_now(&plan).unwrap_or(true) {
        let message = "a column that the watermark or the deduplication reads cannot depend on now()";
        return Err(vec![Diagnostic::at(&columns[0].place, message).hint("after a restart it would be another")]);
    }
    let analyzed = catalog.optimize(&plan).map_err(|e| explain(&e, &columns[0].place, &[]))?;
    let made = columns.iter().zip(plan.schema().fields()).enumerate();
    made.map(|(at, (column, field))| {
        let field = field.as_ref().clone().with_name(column.field.name());
        let (qualifier, name) = analyzed.schema().qualified_field(at);
        let whole = Expr::Column(DfColumn::new(qualifier.cloned(), name.name()));
        let expression = inlined(whole, &analyzed).map_err(|e| explain(&e, &column.place, &[]))?;
        Ok(Computed { field: Arc::new(field), expression })
    })
    .collect()
}

/// An expression over a plan's output, as one over the columns of the table that the plan reads.
fn inlined(expression: Expr, plan: &LogicalPlan) -> Result<Expr, DataFusionError> {
    let below = |column: &DfColumn| match plan {
        LogicalPlan::Projection(p) => {
            Ok::<_, DataFusionError>(p.expr[p.schema.index_of_column(column)?].clone().unalias())
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (qualifier, field) = alias.input.schema().qualified_field(alias.schema.index_of_column(column)?);
            Ok(Expr::Column(DfColumn::new(qualifier.cloned(), field.name())))
        }
        _ => Ok(Expr::Column(DfColumn::new_unqualified(column.name()))),
    };
    let replaced = expression.transform(|e| match &e {
        Expr::Column(column) => {
            Ok::<_, DataFusionError>(Transformed::new(below(column)?, true, TreeNodeRecursion::Jump))
        }
        _ => Ok(Transformed::no(e)),
    })?;
    match plan {
        LogicalPlan::Projection(p) => inlined(replaced.data, &p.input),
        LogicalPlan::SubqueryAlias(alias) => inlined(replaced.data, &alias.input),
        _ => Ok(replaced.data),
    }
}

/// The plan of `SELECT` these columns from what the source is known to deliver, some of them by their expressions.
fn select(
    table: &CreateTable,
    columns: &[&Column],
    by_expression: &[&Column],
    catalog: &Catalog,
) -> Result<LogicalPlan, Vec<Diagnostic>> {
    let by_expression = |column: &Column| by_expression.iter().any(|c| c.field.name() == column.field.name());
    let item = |column: &&Column| {
        let alias = Ident::with_quote('"', column.field.name());
        let expr = match &column.kind {
            ColumnKind::Generated { expression, .. } if by_expression(column) => expression.as_ref().clone(),
            _ => SqlExpr::Identifier(alias.clone()),
        };
        SelectItem::ExprWithAlias { expr, alias }
    };
    let query = query_of(table, columns.iter().map(item).collect())?;
    let problems = unsupported(&query, catalog, &BTreeSet::new(), &table.place);
    if !problems.is_empty() {
        return Err(problems);
    }
    // Optimised, types are checked; a view is optimised only where it is read, and then nobody knows the column.
    let planned = names::plan(catalog, &query, &[]).and_then(|plan| catalog.optimize(&plan).map(|_| plan));
    let plan = planned.map_err(|e| explain_query(&e, &query, &table.place, catalog, &[]))?;
    let mut problems = vec![];
    let mut typed = vec![];
    for (column, (qualifier, field)) in columns.iter().zip(plan.schema().iter()) {
        let mut expression = Expr::Column(DfColumn::new(qualifier.cloned(), field.name()));
        if matches!(column.kind, ColumnKind::Generated { typed: true, .. }) && by_expression(column) {
            problems.extend(mismatch(column, field));
            if field.data_type() != column.field.data_type() {
                expression = Expr::Cast(Cast::new(Box::new(expression), column.field.data_type().clone()));
            }
        } else if let DataType::Timestamp(_, zone) = field.data_type() {
            // As declared ones are, whatever unit a function yields.
            let exact = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
            if *field.data_type() != exact {
                expression = Expr::Cast(Cast::new(Box::new(expression), exact));
            }
        }
        typed.push(expression.alias(column.field.name()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let plan = LogicalPlanBuilder::from(plan).project(typed).and_then(|b| b.build());
    plan.map_err(|e| explain(&e, &table.place, &[]))
}

fn mismatch(column: &Column, made: &Field) -> Option<Diagnostic> {
    let name = column.field.name();
    if !fits(made, &column.field) {
        let message = format!("{name} is declared {}, and its expression is {}", shown(&column.field), shown(made));
        let hint = "only widening without loss is implicit: write a CAST in the expression";
        return Some(Diagnostic::at(&column.place, message).hint(hint));
    }
    let message = format!("{name} is declared NOT NULL, and its expression may be null");
    let may_be_null = made.is_nullable() && !column.field.is_nullable();
    may_be_null.then(|| Diagnostic::at(&column.place, message).hint("use COALESCE in the expression"))
}

fn query_of(table: &CreateTable, items: Vec<SelectItem>) -> Result<Query, Vec<Diagnostic>> {
    let name = table.name.replace('"', "\"\"");
    let text = format!("SELECT 1 FROM {SOURCES}.\"{name}\" AS \"{name}\"");
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(&text).and_then(|mut p| p.parse_query());
    let mut query = *parsed.map_err(|e| vec![Diagnostic::at(&table.place, e.to_string())])?;
    if let SetExpr::Select(select) = &mut *query.body {
        select.projection = items;
    }
    Ok(query)
}
