//! `FROM t CROSS JOIN UNNEST(t.list) AS u(x)`: a join in name only. DataFusion plans it as one, with the list's table as an
//! outer query, and then cannot run it. Each row is on its own with its list, so the plan is made to unnest the rows of `t`.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Unnest};

/// A plan in which no list is joined to its own row.
pub fn unnest_in_place(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let made = plan.transform_up(|node| match &node {
        LogicalPlan::Join(join) if is_always(join) && is_unnest(&join.right) => {
            let rows = Beside { columns: join.left.schema().columns(), keep_empty: join.join_type == JoinType::Left };
            let unnested = rows.plan(&join.right, &join.left)?;
            let names = rows.columns.iter().cloned().chain(join.right.schema().columns()).map(Expr::Column);
            LogicalPlanBuilder::from(unnested).project(names)?.build().map(Transformed::yes)
        }
        _ => Ok(Transformed::no(node)),
    })?;
    match made.transformed {
        true => made.data.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?))).data(),
        false => Ok(made.data),
    }
}

/// Whether each row meets each element.
fn is_always(join: &Join) -> bool {
    let is_true = |filter: &Expr| matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    matches!(join.join_type, JoinType::Inner | JoinType::Left)
        && join.on.is_empty()
        && join.filter.as_ref().is_none_or(is_true)
}

/// Whether a plan unnests values, and reads no rows of its own.
fn is_unnest(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(subquery) => is_unnest(&subquery.subquery),
        LogicalPlan::SubqueryAlias(alias) => is_unnest(&alias.input),
        LogicalPlan::Projection(projection) => is_unnest(&projection.input),
        LogicalPlan::Unnest(unnest) => is_values(&unnest.input),
        _ => false,
    }
}

fn is_values(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(values) => values.produce_one_row,
        LogicalPlan::Projection(projection) => is_values(&projection.input),
        LogicalPlan::Unnest(unnest) => is_values(&unnest.input),
        _ => false,
    }
}

/// The columns of the rows that lists are unnested beside.
struct Beside {
    columns: Vec<Column>,
    /// A row whose list has no elements stays.
    keep_empty: bool,
}

impl Beside {
    /// What `node` makes of one row without columns, made of each row of `rows`, with that row's columns in front.
    fn plan(&self, node: &LogicalPlan, rows: &Arc<LogicalPlan>) -> DfResult<LogicalPlan> {
        match node {
            LogicalPlan::Subquery(subquery) => self.plan(&subquery.subquery, rows),
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.plan(&alias.input, rows)?;
                let names = alias.schema.columns().into_iter();
                let renamed = alias.input.schema().columns().into_iter().zip(names);
                let renamed = renamed.map(|(old, new)| Expr::Column(old).alias_qualified(new.relation, new.name));
                self.project(input, renamed.collect())
            }
            LogicalPlan::Projection(projection) => {
                let input = self.plan(&projection.input, rows)?;
                let own = projection.expr.iter().map(|e| of_the_row(e.clone())).collect::<DfResult<_>>()?;
                self.project(input, own)
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.plan(&unnest.input, rows)?;
                let options = unnest.options.clone().with_preserve_nulls(self.keep_empty);
                Unnest::try_new(Arc::new(input), unnest.exec_columns.clone(), options).map(LogicalPlan::Unnest)
            }
            _ => Ok(rows.as_ref().clone()),
        }
    }

    fn project(&self, input: LogicalPlan, own: Vec<Expr>) -> DfResult<LogicalPlan> {
        let beside = self.columns.iter().cloned().map(Expr::Column);
        LogicalPlanBuilder::from(input).project(beside.chain(own))?.build()
    }
}

/// An expression over an outer row, as one over the row.
fn of_the_row(expr: Expr) -> DfResult<Expr> {
    let of_row = |e| match e {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    };
    expr.transform(of_row).data()
}
