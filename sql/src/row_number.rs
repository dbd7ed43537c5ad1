//! `ROW_NUMBER() OVER (PARTITION BY k ORDER BY t) = 1`: the standard's way to say "deduplicate by k".
//!
//! The engine keeps the row that comes first. That is what the query says where `t` is the time at which the log took
//! the row (or `now()`), and what is meant where `t` is the event time: copies have equal event times.

use std::collections::BTreeSet;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator as Is, Window, WindowFunctionDefinition, lit};
use engine::plan::{DedupClock, Edge, LOG_TIME_COLUMN, Operator, OperatorNode, Scope};

use crate::diagnostic::{Diagnostic, Place};
use crate::lookup_join::looks_up;
use crate::table::{Table, is_instant, log_time};
use crate::walk::{Flow, Planned, Walk, add_transform};

/// A window function that is not followed by `= 1`.
pub fn refused(place: &Place) -> Diagnostic {
    let hint = "only deduplication is built: … WHERE rn = 1, or QUALIFY ROW_NUMBER() OVER (…) = 1, right on top of it";
    Diagnostic::at(place, "ROW_NUMBER() is not possible in a job like this").hint(hint)
}

/// Whether the plan deduplicates by arrival (`ORDER BY now()`), so that the rows must carry the log's timestamp.
pub fn needs_log_time(plan: &LogicalPlan, tables: &mut BTreeSet<String>) {
    if let LogicalPlan::Window(window) = plan
        && let Some(Expr::WindowFunction(function)) = window.window_expr.first()
        && let [Sort { expr, .. }] = &function.params.order_by[..]
        && time_of(expr, &window.input) == Some(TimeOf::Now)
    {
        tables_below(plan, tables);
    }
    plan.inputs().into_iter().for_each(|input| needs_log_time(input, tables));
}

/// The other conditions of a filter that takes the first row of each key: `rn = 1 AND …` on top of a window.
/// `None` if it is another filter.
pub fn beside_first<'a>(predicate: &'a Expr, input: &LogicalPlan) -> Option<Vec<&'a Expr>> {
    let (first, rest): (Vec<&Expr>, Vec<&Expr>) =
        split_conjunction(predicate).into_iter().partition(|e| is_first(e, input));
    (!first.is_empty()).then_some(rest)
}

/// Plans the window, of which only the first row of each key is wanted.
pub fn walk(walk: &mut Walk<'_>, window: &Window) -> Planned<Flow> {
    let place = walk.row_number.unwrap_or(walk.place).clone();
    let [Expr::WindowFunction(function)] = &window.window_expr[..] else { return Err(refused(&place)) };
    if !is_row_number(function) {
        return Err(refused(&place));
    }
    if looks_up(&window.input) {
        let hint =
            "deduplicate first, in a VIEW that the join reads: what is looked up may differ when rows are read again";
        return Err(Diagnostic::at(&place, "ROW_NUMBER() over rows that were looked up is not possible").hint(hint));
    }
    let mut tables = BTreeSet::new();
    tables_below(&window.input, &mut tables);
    let tables: Vec<&Table> = tables.iter().filter_map(|name| walk.tables.get(name)).collect();
    let time = time(walk, function, &window.input, &tables, &place)?;
    let within = tables.iter().find_map(|t| t.options.values.duration("deduplicate.within"));
    let within = within.or(walk.settings.deduplicate_within).ok_or_else(|| {
        let hint = "say how far apart copies may be: SET deduplicate.within = '10 minutes', or the table option \
                    'deduplicate.within'";
        Diagnostic::at(&place, "this deduplication has no end: every key would be kept for ever").hint(hint)
    })?;
    let mut flow = walk.walk(&window.input)?;
    let keys = function.params.partition_by.iter().map(|e| key(e, &flow, &place)).collect::<Planned<Vec<_>>>()?;
    if keys.is_empty() {
        let hint = "name the columns that tell an event";
        return Err(Diagnostic::at(&place, "ROW_NUMBER() without PARTITION BY would keep one row of all").hint(hint));
    }
    let (clock, column) = match time {
        TimeOf::Column(column, clock) => (clock, column),
        TimeOf::Now => (DedupClock::Log, Column::new_unqualified(LOG_TIME_COLUMN)),
    };
    let at = flow.schema.index_of_column(&column).map_err(|e| walk.failed(e))?;
    let Some(table) = tables.first() else { return Err(refused(&place)) };
    let mut spec = table.deduplication(keys, at, clock, within);
    if tables.iter().any(|t| t.deduplicates()) || tables.len() > 1 {
        // Behind another exchange, or over several tables, rows of one partition are no longer together.
        spec.scope = Scope::Global;
    }
    let schema = std::sync::Arc::new(flow.schema.as_arrow().clone());
    if !flow.steps.is_empty() {
        flow.from = add_transform(walk.plan, flow.from, std::mem::take(&mut flow.steps), schema.clone());
    }
    let names: Vec<&str> = tables.iter().map(|t| t.spec.name.as_str()).collect();
    let of_key = |k: &usize| format!("{} {}", schema.field(*k).name(), schema.field(*k).data_type());
    let by: Vec<String> = spec.keys.iter().map(of_key).collect();
    let scope = format!("{:?}", spec.scope);
    let id = format!("deduplicate {} by {} {scope} for {}", names.join(", "), by.join(", "), walk.sink).to_lowercase();
    if walk.plan.operators.iter().any(|o| o.id == id) {
        let hint = "their states could not be told apart after a change of the job; write to two tables";
        let message = format!("two deduplications by the same keys end in table {}", walk.sink);
        return Err(Diagnostic::at(&place, message).hint(hint));
    }
    let exchange = (spec.scope == Scope::Global).then(|| spec.keys.clone());
    let inputs = vec![Edge { from: flow.from, exchange }];
    walk.plan.operators.push(OperatorNode { id, inputs, operator: Operator::Deduplicate(spec), schema });
    flow.from = engine::plan::From::Operator(walk.plan.operators.len() - 1);
    let mut columns: Vec<Expr> = window.input.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(lit(1u64));
    walk.project(flow, &columns, &window.schema)
}

fn is_row_number(function: &WindowFunction) -> bool {
    matches!(&function.fun, WindowFunctionDefinition::WindowUDF(f) if f.name() == "row_number")
}

/// `rn = 1`, `rn <= 1` or `rn < 2`, either way round.
fn is_first(condition: &Expr, input: &LogicalPlan) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return false };
    let is_number = |e: &Expr| matches!(e, Expr::Column(c) if is_number(c, input));
    let value = |e: &Expr| match e {
        Expr::Literal(ScalarValue::UInt64(Some(n)), _) => Some(*n),
        Expr::Literal(ScalarValue::Int64(Some(n)), _) => u64::try_from(*n).ok(),
        _ => None,
    };
    match (is_number(left), value(right), is_number(right), value(left)) {
        (true, Some(n), ..) => matches!((op, n), (Is::Eq | Is::LtEq, 1) | (Is::Lt, 2)),
        (_, _, true, Some(n)) => matches!((op, n), (Is::Eq | Is::GtEq, 1) | (Is::Gt, 2)),
        _ => false,
    }
}

/// Whether a column is the number that a window gives to the rows.
fn is_number(column: &Column, plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Window(window) => {
            window.schema.index_of_column(column).is_ok_and(|at| at + 1 == window.schema.fields().len())
        }
        LogicalPlan::SubqueryAlias(alias) => {
            matches!(below_alias(column, alias), Some(Expr::Column(below)) if is_number(&below, &alias.input))
        }
        LogicalPlan::Projection(p) => {
            let expr = p.schema.index_of_column(column).ok().map(|at| p.expr[at].clone().unalias());
            matches!(expr, Some(Expr::Column(below)) if is_number(&below, &p.input))
        }
        _ => false,
    }
}

fn key(expr: &Expr, flow: &Flow, place: &Place) -> Planned<usize> {
    let index = match expr {
        Expr::Column(column) => flow.schema.index_of_column(column).ok(),
        _ => None,
    };
    index.ok_or_else(|| {
        let hint = "compute it in a subquery or a VIEW, and name it here";
        Diagnostic::at(place, format!("PARTITION BY takes columns, not {expr}")).hint(hint)
    })
}

/// The time that rows are ordered by.
#[derive(Debug, PartialEq)]
enum TimeOf {
    Column(Column, DedupClock),
    /// Their arrival.
    Now,
}

fn time(
    walk: &mut Walk<'_>,
    function: &WindowFunction,
    input: &LogicalPlan,
    tables: &[&Table],
    place: &Place,
) -> Planned<TimeOf> {
    let hint =
        "order by the log's time (a column METADATA FROM 'timestamp'), by now(), or by the column of the watermark";
    let [Sort { expr, asc, .. }] = &function.params.order_by[..] else {
        return Err(Diagnostic::at(place, "ROW_NUMBER() needs ORDER BY one time").hint(hint));
    };
    if !asc {
        let hint = "ORDER BY … ASC keeps the first, which is final as soon as it comes";
        let message = "ORDER BY … DESC keeps the last row of each key, which is known only when no other can come";
        return Err(Diagnostic::at(place, message).hint(hint));
    }
    if time_of(expr, input) == Some(TimeOf::Now) {
        return Ok(TimeOf::Now);
    }
    let wrong = || Diagnostic::at(place, format!("{expr} is not a time that progresses with the stream")).hint(hint);
    let Expr::Column(column) = expr else { return Err(wrong()) };
    let mut origins = vec![];
    trace(column, input, &mut origins);
    let clock = |(table, name): &(String, String)| {
        let table = tables.iter().find(|t| t.spec.name == *table)?;
        let spec = table.spec.columns.iter().find(|c| c.field.name() == name);
        if spec.is_some_and(|c| c.origin == log_time() && is_instant(&c.field)) {
            return Some(DedupClock::Log);
        }
        let watermark = table.watermark().ok().flatten()?;
        (watermark.column == *name).then_some(DedupClock::Event)
    };
    let clocks: Vec<Option<DedupClock>> = origins.iter().map(clock).collect();
    match clocks[..] {
        [Some(first), ref others @ ..] if others.iter().all(|c| *c == Some(first)) => {
            if first == DedupClock::Event {
                let message = "of rows with equal keys the one that comes first is kept, whatever its event time";
                let hint = "copies have equal event times; to order by arrival, use a column METADATA FROM 'timestamp'";
                walk.warnings.push(Diagnostic::warning(place, message).hint(hint));
            }
            Ok(TimeOf::Column(column.clone(), first))
        }
        _ => Err(wrong()),
    }
}

/// `now()`, written in the window or in a column that it orders by.
fn time_of(expr: &Expr, input: &LogicalPlan) -> Option<TimeOf> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == "now" => Some(TimeOf::Now),
        Expr::Alias(alias) => time_of(&alias.expr, input),
        Expr::Column(column) => match input {
            LogicalPlan::Projection(p) => {
                let at = p.schema.index_of_column(column).ok()?;
                time_of(&p.expr[at], &p.input)
            }
            LogicalPlan::Filter(filter) => time_of(expr, &filter.input),
            LogicalPlan::SubqueryAlias(alias) => time_of(&below_alias(column, alias)?, &alias.input),
            _ => None,
        },
        _ => None,
    }
}

fn below_alias(column: &Column, alias: &datafusion::logical_expr::SubqueryAlias) -> Option<Expr> {
    let at = alias.schema.index_of_column(column).ok()?;
    let (qualifier, field) = alias.input.schema().qualified_field(at);
    Some(Expr::Column(Column::new(qualifier.cloned(), field.name())))
}

/// The tables' columns that a column is, unchanged. Where it is computed, the origin is unknown (an empty name).
fn trace(column: &Column, plan: &LogicalPlan, origins: &mut Vec<(String, String)>) {
    let mut unknown = || origins.push(Default::default());
    match plan {
        LogicalPlan::TableScan(scan) => origins.push((scan.table_name.table().to_string(), column.name.clone())),
        LogicalPlan::Filter(filter) => trace(column, &filter.input, origins),
        LogicalPlan::SubqueryAlias(alias) => match below_alias(column, alias) {
            Some(Expr::Column(below)) => trace(&below, &alias.input, origins),
            _ => unknown(),
        },
        LogicalPlan::Projection(p) => {
            let expr = p.schema.index_of_column(column).ok().map(|at| p.expr[at].clone().unalias());
            match expr {
                Some(Expr::Column(below)) => trace(&below, &p.input, origins),
                _ => unknown(),
            }
        }
        LogicalPlan::Union(union) => match union.schema.index_of_column(column) {
            Ok(at) => union.inputs.iter().for_each(|input| {
                let (qualifier, field) = input.schema().qualified_field(at);
                trace(&Column::new(qualifier.cloned(), field.name()), input, origins)
            }),
            Err(_) => unknown(),
        },
        _ => unknown(),
    }
}

pub fn tables_below(plan: &LogicalPlan, tables: &mut BTreeSet<String>) {
    if let LogicalPlan::TableScan(scan) = plan {
        tables.insert(scan.table_name.table().to_string());
    }
    plan.inputs().into_iter().for_each(|input| tables_below(input, tables));
}
