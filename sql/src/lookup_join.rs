//! A stream joined to a lookup table: each row meets the rows that the table has for its key when it passes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Cast, Expr, Join, LogicalPlan, TryCast, and};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use engine::lookup::{LOAD_TIMEOUT, Lookup, LookupRequest, TIMEOUT};
use engine::plan::{Edge, From, Kept, KeptByKey, LookupJoin, LookupNode, Operator, OperatorNode, Step, Transform};
use engine::source::SourceColumn;

use crate::ddl::CreateTable;
use crate::diagnostic::{Diagnostic, Place};
use crate::insert::shown;
use crate::options::TableOptions;
use crate::query::{executable, uses_now};
use crate::row_number::tables_below;
use crate::table::Table;
use crate::walk::{Flow, Planned, Walk, add_transform};

/// A lookup table that a query reads, and what its rows look like.
#[derive(Clone)]
pub struct LookupSource {
    pub lookup: Arc<dyn Lookup>,
    pub columns: Vec<SourceColumn>,
    pub schema: DFSchema,
}

/// How long an answer holds if nothing is said.
const TTL: Duration = Duration::from_secs(60);
/// How long it holds that there is no such row, at most, if nothing is said: a device that is new is soon known.
const MISSING_TTL: Duration = Duration::from_secs(10);
/// How often a table that is kept whole is looked at.
const REFRESH: Duration = Duration::from_secs(60);
/// Memory of answers, and of a table that is kept whole, at most.
const CACHE: u64 = 64 << 20;
const WHOLE: u64 = 1 << 30;
const KEYS: i64 = 500;
const REQUESTS: i64 = 4;

/// Whether a declared table is looked up in, and not read as a stream.
pub fn is_lookup(options: &TableOptions) -> bool {
    options.values.flag("lookup") || options.values.get("type") == Some("lookup")
}

/// The same of a declaration that is not checked yet.
pub fn says_lookup(table: &CreateTable) -> bool {
    let said = |(name, value): (&str, &str)| matches!((name, value), ("lookup", "true") | ("type", "lookup"));
    table.options.iter().any(|(name, value, _)| said((name, value)))
}

/// What is wrong with the options of a table, as far as they are about lookups.
pub fn problems(options: &TableOptions) -> Vec<Diagnostic> {
    let refuse = |name: &str, why: &str| Some(Diagnostic::at(options.places.get(name)?, format!("{name} {why}")));
    let named = |prefix: &'static str| options.values.0.keys().filter(move |name| name.starts_with(prefix));
    if !is_lookup(options) {
        return named("lookup.").filter_map(|name| refuse(name, "says nothing without 'lookup' = 'true'")).collect();
    }
    let of_streams = named("deduplicate.").chain(named("watermark.")).chain(named("event_time_field"));
    let mut problems: Vec<_> = of_streams.filter_map(|name| refuse(name, "says nothing of a lookup table")).collect();
    for name in ["lookup.keys", "lookup.requests"] {
        if options.values.integer(name).is_some_and(|n| !(1..=10_000).contains(&n)) {
            problems.extend(refuse(name, "must be from 1 to 10000"));
        }
    }
    for name in ["lookup.refresh", "lookup.timeout"] {
        if options.values.duration(name).is_some_and(|time| time.is_zero()) {
            problems.extend(refuse(name, "must be longer than nothing"));
        }
    }
    problems
}

/// What says nothing of a table that is kept whole, is asked by key, or of which nothing is kept.
const OF_KEYS: [&str; 4] = ["lookup.cache.ttl", "lookup.cache.missing_ttl", "lookup.keys", "lookup.requests"];
const OF_WHOLE: [&str; 1] = ["lookup.refresh"];
const OF_ANSWERS: [&str; 3] = ["lookup.cache.bytes", "lookup.cache.ttl", "lookup.cache.missing_ttl"];

/// Plans the join.
pub fn walk(walk: &mut Walk<'_>, join: &Join) -> Planned<Flow> {
    let place = place_of_a_lookup(join, walk);
    let sides = [&join.left, &join.right].map(|side| reads_only_lookups(side, walk));
    let (stream, table, outer) = match (sides, join.join_type) {
        ([false, true], JoinType::Inner) => (&join.left, &join.right, false),
        ([false, true], JoinType::Left) => (&join.left, &join.right, true),
        ([true, false], JoinType::Inner) => (&join.right, &join.left, false),
        ([true, false], JoinType::Right) => (&join.right, &join.left, true),
        ([true, true], _) => {
            let hint = "join each of them to the stream, one after the other";
            return Err(Diagnostic::at(&place, "lookup tables cannot be joined to one another").hint(hint));
        }
        ([false, false], _) => {
            let hint = "that needs state on both sides, which is not built yet";
            return Err(Diagnostic::at(&place, "two streams cannot be joined").hint(hint));
        }
        (_, other) => {
            let hint = "the stream's rows decide: JOIN, or LEFT JOIN with the stream on the left";
            let kind = format!("{other:?}").to_uppercase();
            return Err(Diagnostic::at(&place, format!("{kind} JOIN with a lookup table is not possible")).hint(hint));
        }
    };
    if join.null_equality == NullEquality::NullEqualsNull {
        let hint = "in a lookup, NULL equals nothing: join with =";
        return Err(Diagnostic::at(&place, "IS NOT DISTINCT FROM is not possible in a lookup").hint(hint));
    }
    let mut stream = walk.walk(stream)?;
    let mut side = Side::of(walk, table)?;
    let by_key = side.by_key(&place)?;
    let is_of_stream = |expr: &Expr| expr.column_refs().iter().all(|c| stream.schema.has_column(c));
    let mut pairs: Vec<(Expr, usize)> = vec![];
    let mut filters: Vec<Expr> = join.filter.iter().cloned().collect();
    for (left, right) in &join.on {
        let (ours, theirs) = if is_of_stream(left) { (left, right) } else { (right, left) };
        let key = side.key(walk, theirs, by_key, &place)?;
        // A column of the table is asked for once, under whatever names the query has it.
        let own = |at: usize| if by_key { side.own_column(at) } else { Some(at) };
        let is_new = |at: usize| !pairs.iter().any(|(_, taken)| own(*taken) == own(at));
        match key {
            Key::Column(at) if is_new(at) => {
                pairs.push((fitting(ours, side.schema.field(at).data_type(), &stream.schema, walk)?, at))
            }
            Key::Narrower(at) if is_new(at) => {
                // A number that is too large for the table's column equals none in it.
                let narrow =
                    Expr::TryCast(TryCast::new(Box::new(ours.clone()), side.schema.field(at).data_type().clone()));
                pairs.push((narrow, at));
            }
            Key::Column(_) | Key::Narrower(_) => filters.push(ours.clone().eq(theirs.clone())),
        }
    }
    if pairs.is_empty() && by_key {
        let message = format!("table {}: a lookup by key needs a condition column = value", side.table);
        let hint = "or keep the table whole, and every row of it is tried: 'lookup.cache' = 'whole'";
        return Err(Diagnostic::at(&place, message).hint(hint));
    }
    let keys = pairs.iter().map(|(ours, _)| column(&mut stream, ours, walk)).collect::<Planned<Vec<_>>>()?;
    let their_keys: Vec<usize> = pairs.iter().map(|(_, at)| *at).collect();
    let schema = joined(&stream.schema, &side.schema, outer).map_err(|e| walk.failed(e))?;
    let filter = filters.into_iter().reduce(and).map(|filter| executable(&filter, &schema)).transpose();
    let filter = filter.map_err(|e| walk.failed(e))?;
    let from = match stream.steps.is_empty() {
        true => stream.from,
        false => {
            let leaving = Arc::new(stream.schema.as_arrow().clone());
            add_transform(walk.plan, stream.from, stream.steps, leaving)
        }
    };
    let table = side.node(walk, their_keys, by_key)?;
    let id = format!("lookup {} for {}", walk.plan.lookups[table].table, walk.sink).to_lowercase();
    let operator = Operator::Lookup(LookupJoin { table, keys, filter, outer });
    let leaving = Arc::new(schema.as_arrow().clone());
    walk.plan.operators.push(OperatorNode { id, inputs: vec![Edge::forward(from)], operator, schema: leaving });
    let from = From::Operator(walk.plan.operators.len() - 1);
    Ok(Flow { from, steps: vec![], schema })
}

/// Whether rows of a plan were looked up: what a replay finds then may be something else.
pub fn looks_up(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(_)) || plan.inputs().into_iter().any(looks_up)
}

/// Where the query names the lookup table of a join.
fn place_of_a_lookup(join: &Join, walk: &Walk<'_>) -> Place {
    let lookup = [&join.right, &join.left].into_iter().find_map(|side| {
        let mut tables = BTreeSet::new();
        tables_below(side, &mut tables);
        tables.into_iter().find(|table| walk.lookups.contains_key(table))
    });
    lookup.map_or(walk.place.clone(), |table| walk.place_of(&table))
}

fn reads_only_lookups(plan: &LogicalPlan, walk: &Walk<'_>) -> bool {
    let mut tables = BTreeSet::new();
    tables_below(plan, &mut tables);
    !tables.is_empty() && tables.iter().all(|table| walk.tables.get(table).is_some_and(|t| is_lookup(&t.options)))
}

/// The side of the lookup table.
struct Side<'a> {
    table: String,
    options: &'a Table,
    source: LookupSource,
    /// From the table's rows to those that are joined.
    steps: Vec<Step>,
    schema: DFSchema,
}

/// What a row of the table is found by.
enum Key {
    Column(usize),
    /// A column of a narrower type than the comparison.
    Narrower(usize),
}

impl<'a> Side<'a> {
    fn of(walk: &mut Walk<'a>, plan: &LogicalPlan) -> Planned<Side<'a>> {
        let place = walk.place.clone();
        let name = only_table(plan).ok_or_else(|| {
            let hint = "of a lookup table, a join takes columns, expressions and conditions";
            Diagnostic::at(&place, "this use of a lookup table is not possible").hint(hint)
        })?;
        let (Some(source), Some(table)) = (walk.lookups.get(&name).cloned(), walk.tables.get(&name)) else {
            return Err(Diagnostic::at(&place, format!("{name} cannot be looked up in")));
        };
        let place = walk.place_of(&name);
        if uses_now(plan).unwrap_or(false) {
            let hint =
                "compute with the time behind the join, in the SELECT list or in WHERE beside a column of the stream";
            let message = format!("table {name}: its rows are kept, so that now() among them would stand still");
            return Err(Diagnostic::at(&place, message).hint(hint));
        }
        walk.inside_lookup = true;
        let flow = walk.walk(plan);
        walk.inside_lookup = false;
        let flow = flow?;
        Ok(Side { table: name, options: table, source, steps: flow.steps, schema: flow.schema })
    }

    /// Whether the table is asked by key.
    fn by_key(&self, place: &Place) -> Planned<bool> {
        let options = &self.options.options;
        let can = self.source.lookup.by_key();
        let said = options.values.get("lookup.cache");
        if said.is_some_and(|said| said != "whole") && !can {
            let place = options.places.get("lookup.cache").unwrap_or(place);
            let message = format!("table {}: it cannot be asked by key, and is always kept whole", self.table);
            return Err(Diagnostic::at(place, message));
        }
        let by_key = can && said != Some("whole");
        let (unused, how): (Vec<&str>, _) = match (by_key, said) {
            (false, _) => (OF_KEYS.to_vec(), "that is kept whole"),
            (true, Some("none")) => ([&OF_ANSWERS[..], &OF_WHOLE[..]].concat(), "of which nothing is kept"),
            (true, _) => (OF_WHOLE.to_vec(), "that is asked by key"),
        };
        match unused.iter().find_map(|name| Some((name, options.places.get(*name)?))) {
            Some((name, place)) => Err(Diagnostic::at(place, format!("{name} says nothing of a table {how}"))),
            None => Ok(by_key),
        }
    }

    fn key(&mut self, walk: &Walk<'_>, expr: &Expr, by_key: bool, place: &Place) -> Planned<Key> {
        let found = match expr {
            Expr::Column(column) => Some((column, false)),
            Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
                Expr::Column(column) => {
                    let at = self.schema.index_of_column(column).map_err(|e| walk.failed(e))?;
                    let narrow = self.schema.field(at).data_type();
                    (narrow.is_integer() && field.data_type().is_integer()).then_some((column, true))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((column, narrower)) = found {
            let at = self.schema.index_of_column(column).map_err(|e| walk.failed(e))?;
            if !by_key || self.own_column(at).is_some() {
                return Ok(if narrower { Key::Narrower(at) } else { Key::Column(at) });
            }
        }
        if by_key {
            let message = format!("table {}: it is asked for a column, and not for {expr}", self.table);
            let hint = "compare a column of it with a value of the column's type (CAST the value), or keep the table whole: \
                        'lookup.cache' = 'whole'";
            return Err(Diagnostic::at(place, message).hint(hint));
        }
        let mut flow =
            Flow { from: From::Source(0), steps: std::mem::take(&mut self.steps), schema: self.schema.clone() };
        let at = column(&mut flow, expr, walk)?;
        (self.steps, self.schema) = (flow.steps, flow.schema);
        Ok(Key::Column(at))
    }

    /// Which of the table's own columns one of the joined columns is, unchanged.
    fn own_column(&self, at: usize) -> Option<usize> {
        self.steps.iter().rev().try_fold(at, |at, step| match step {
            Step::Filter(_) => Some(at),
            Step::Project { expressions, .. } => Some(expressions[at].downcast_ref::<Column>()?.index()),
            Step::Unnest { columns, .. } => (!columns.contains(&at)).then_some(at),
        })
    }

    /// The plan's node for this use of the table: the one that is there already, if there is.
    fn node(self, walk: &mut Walk<'_>, keys: Vec<usize>, by_key: bool) -> Planned<usize> {
        let values = &self.options.options.values;
        let own_keys: Vec<usize> = keys.iter().filter_map(|at| self.own_column(*at)).collect();
        let ttl = values.duration("lookup.cache.ttl").unwrap_or(TTL);
        let missing_ttl = values.duration("lookup.cache.missing_ttl").unwrap_or(ttl.min(MISSING_TTL));
        let none = values.get("lookup.cache") == Some("none");
        let kept = if by_key {
            Kept::ByKey(KeptByKey {
                ttl: if none { Duration::ZERO } else { ttl },
                missing_ttl: if none { Duration::ZERO } else { missing_ttl },
                bytes: values.bytes("lookup.cache.bytes").unwrap_or(CACHE) as usize,
                keys: values.integer("lookup.keys").unwrap_or(KEYS) as usize,
                requests: values.integer("lookup.requests").unwrap_or(REQUESTS) as usize,
            })
        } else {
            Kept::Whole {
                refresh: values.duration("lookup.refresh").unwrap_or(REFRESH),
                bytes: values.bytes("lookup.cache.bytes").unwrap_or(WHOLE) as usize,
            }
        };
        let node = LookupNode {
            table: self.table,
            lookup: self.source.lookup,
            request: LookupRequest {
                columns: self.source.columns,
                keys: if by_key { own_keys } else { vec![] },
                timeout: values.duration("lookup.timeout").unwrap_or(if by_key { TIMEOUT } else { LOAD_TIMEOUT }),
            },
            transform: Transform { steps: self.steps },
            schema: Arc::new(self.schema.as_arrow().clone()),
            keys,
            kept,
            give_up_after: values.duration("give_up_after"),
        };
        if let Some(same) = walk.plan.lookups.iter().position(|other| is_same_use(other, &node)) {
            return Ok(same);
        }
        walk.plan.lookups.push(node);
        Ok(walk.plan.lookups.len() - 1)
    }
}

fn is_same_use(one: &LookupNode, other: &LookupNode) -> bool {
    let steps = |node: &LookupNode| node.transform.steps.iter().map(step_as_text).collect::<Vec<_>>();
    one.table == other.table
        && one.request.columns == other.request.columns
        && one.keys == other.keys
        && one.schema == other.schema
        && steps(one) == steps(other)
}

fn step_as_text(step: &Step) -> String {
    match step {
        Step::Filter(predicate) => format!("filter {predicate:?}"),
        Step::Project { expressions, .. } => format!("project {expressions:?}"),
        Step::Unnest { columns, keep_empty, .. } => format!("unnest {columns:?} {keep_empty}"),
    }
}

/// The only table of a plan of steps that a lookup table's rows may go through.
fn only_table(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.table_name.table().to_string()),
        LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Projection(_)
        | LogicalPlan::Unnest(_) => only_table(plan.inputs().first()?),
        _ => None,
    }
}

/// The value of a key in the type of the table's column.
fn fitting(expr: &Expr, wanted: &DataType, schema: &DFSchema, walk: &Walk<'_>) -> Planned<Expr> {
    let made = executable(expr, schema).and_then(|e| e.data_type(schema.as_arrow())).map_err(|e| walk.failed(e))?;
    if made == *wanted {
        return Ok(expr.clone());
    }
    let (is, needs) = (shown(&Field::new("", made, true)), shown(&Field::new("", wanted.clone(), true)));
    let message = format!("{expr} is {is}, and the column of the lookup table that it is compared with is {needs}");
    Err(Diagnostic::at(walk.place, message).hint(format!("write CAST({expr} AS {needs})")))
}

/// Which column of the rows an expression is: added to them if it is none.
fn column(flow: &mut Flow, expr: &Expr, walk: &Walk<'_>) -> Planned<usize> {
    let made = executable(expr, &flow.schema).map_err(|e| walk.failed(e))?;
    if let Some(column) = made.downcast_ref::<Column>() {
        return Ok(column.index());
    }
    let arrow = flow.schema.as_arrow().clone();
    let of_field = |(at, field): (usize, &FieldRef)| Arc::new(Column::new(field.name(), at)) as Arc<dyn PhysicalExpr>;
    let mut expressions: Vec<_> = arrow.fields().iter().enumerate().map(of_field).collect();
    let data_type = made.data_type(&arrow).map_err(|e| walk.failed(e))?;
    let nullable = made.nullable(&arrow).map_err(|e| walk.failed(e))?;
    let key = Arc::new(Field::new(helping_name(walk, &flow.schema), data_type, nullable));
    expressions.push(made);
    let qualified = flow.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
    let fields: Vec<_> = qualified.chain([(None, key)]).collect();
    let schema = Arc::new(Schema::new(fields.iter().map(|(_, field)| field.clone()).collect::<Vec<_>>()));
    flow.schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(|e| walk.failed(e))?;
    flow.steps.push(Step::Project { expressions, schema });
    Ok(flow.schema.fields().len() - 1)
}

/// A name that no other column on the way to the sink has.
fn helping_name(walk: &Walk<'_>, schema: &DFSchema) -> String {
    let number = walk.helping.get();
    walk.helping.set(number + 1);
    let name = format!("__key{number}");
    if schema.fields().iter().any(|field| *field.name() == name) { helping_name(walk, schema) } else { name }
}

/// The columns of both sides.
fn joined(stream: &DFSchema, table: &DFSchema, outer: bool) -> datafusion::common::Result<DFSchema> {
    let ours = stream.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
    let theirs = table.iter().map(|(qualifier, field)| {
        let nullable = outer || field.is_nullable();
        (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
    });
    DFSchema::new_with_metadata(ours.chain(theirs).collect(), Default::default())
}

/// What a query reads of a lookup table.
pub fn start(
    name: &str,
    lookup: Arc<dyn Lookup>,
    columns: Vec<SourceColumn>,
) -> datafusion::common::Result<LookupSource> {
    let schema = Schema::new(columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>());
    let schema = DFSchema::try_from_qualified_schema(name, &schema)?;
    Ok(LookupSource { lookup, columns, schema })
}
