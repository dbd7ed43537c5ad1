//! Generated columns: `c AS expression`. A table that has some is a view over what its source delivers, so that each
//! is computed only where a query uses it. Those that the watermark or the deduplication reads are computed at the
//! source instead.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column as DfColumn, DataFusionError, TableReference};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, Query, SelectItem, SetExpr};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::ddl::{Column, ColumnKind, CreateTable};
use crate::diagnostic::Diagnostic;
use crate::errors::explain;
use crate::insert::{fits, shown};
use crate::names;
use crate::query::{Catalog, SOURCES, uses_now};
use crate::table::Computed;
use crate::unsupported::unsupported;

/// Makes a table's columns known to queries. `early`: the generated columns that are computed at the source, which are
/// returned.
pub fn declare(table: &CreateTable, early: &[String], catalog: &Catalog) -> Result<Vec<Computed>, Vec<Diagnostic>> {
    let is_generated = |c: &&Column| matches!(c.kind, ColumnKind::Generated { .. });
    let mut delivered: Vec<FieldRef> =
        table.columns.iter().filter(|c| !is_generated(c)).map(|c| c.field.clone()).collect();
    let failed = |e| explain(&e, &table.place, &[]);
    if !table.columns.iter().any(|c| is_generated(&c)) {
        let reference = TableReference::bare(table.name.as_str());
        catalog.add_table(reference, Arc::new(Schema::new(delivered))).map_err(failed)?;
        return Ok(vec![]);
    }
    let reference = TableReference::partial(SOURCES, table.name.as_str());
    catalog.add_table(reference.clone(), Arc::new(Schema::new(delivered.clone()))).map_err(failed)?;
    let is_early = |c: &Column| early.contains(c.field.name());
    let first: Vec<&Column> = table.columns.iter().filter(|c| is_generated(c) && is_early(c)).collect();
    let computed = compute(table, &first, catalog)?;
    delivered.extend(computed.iter().map(|c| c.field.clone()));
    catalog.remove_table(reference.clone()).map_err(failed)?;
    catalog.add_table(reference, Arc::new(Schema::new(delivered))).map_err(failed)?;
    let all: Vec<&Column> = table.columns.iter().collect();
    let view = select(table, &all, &|c| is_generated(&c) && !is_early(c), catalog)?;
    catalog.add_view(&table.name, view).map_err(failed)?;
    Ok(computed)
}

fn compute(table: &CreateTable, columns: &[&Column], catalog: &Catalog) -> Result<Vec<Computed>, Vec<Diagnostic>> {
    if columns.is_empty() {
        return Ok(vec![]);
    }
    let plan = select(table, columns, &|_| true, catalog)?;
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

/// The plan of `SELECT` these columns from what the source delivers: the generated ones by their expressions.
fn select(
    table: &CreateTable,
    columns: &[&Column],
    by_expression: &dyn Fn(&Column) -> bool,
    catalog: &Catalog,
) -> Result<LogicalPlan, Vec<Diagnostic>> {
    let item = |column: &&Column| {
        let alias = Ident::with_quote('"', column.field.name());
        let expr = match &column.kind {
            ColumnKind::Generated { expression, .. } if by_expression(column) => expression.as_ref().clone(),
            _ => SqlExpr::Identifier(alias.clone()),
        };
        SelectItem::ExprWithAlias { expr, alias }
    };
    let query = query_of(table, columns.iter().map(item).collect())?;
    let problems = unsupported(&query, catalog, &table.place);
    if !problems.is_empty() {
        return Err(problems);
    }
    let plan = names::plan(catalog, &query, &[]).map_err(|e| explain(&e, &table.place, &[]))?;
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
