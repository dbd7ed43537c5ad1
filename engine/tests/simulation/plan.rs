//! The job: deduplication, then one table with every event, and one behind a lookup, a filter and an expression that fails.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, col, lit};
use engine::connector::Origin;
use engine::lookup::{Lookup, LookupRequest};
use engine::plan::*;
use engine::sink::Sink;
use engine::source::{Source, SourceColumn};

use crate::lookup;

pub const TABLES: [&str; 3] = ["first", "second", "dead-letter"];

pub fn source_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, false),
        Field::new(LOG_TIME_COLUMN, instant(), false),
        Field::new("createdAt", instant(), false),
    ]))
}

/// Whether the table `second` has the event.
pub fn passes(id: u64) -> bool {
    !id.is_multiple_of(3)
}

/// Whether the expression before the table `second` fails on the event.
pub fn fails(id: u64) -> bool {
    id % 10 == 7
}

/// Whether a lookup in the table outside is refused.
pub fn is_refused(id: u64, kept: Kept) -> bool {
    matches!(kept, Kept::ByKey(_)) && lookup::is_refused(id)
}

/// What differs from story to story.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub scope: Scope,
    pub within: Duration,
    pub late: LatePolicy,
    /// Of the table `second`.
    pub commit_interval: Duration,
    /// Of the table outside, as the first lookup and the second one use it.
    pub kept: Kept,
    pub again: Kept,
}

/// When a request to the table outside is given up.
const NO_ANSWER: Duration = Duration::from_millis(100);

/// The tables of events, one topic each.
pub const SOURCES: [&str; 2] = ["events", "others"];

/// Reads the first of [`SOURCES`], or both together.
pub fn plan(sources: Vec<Arc<dyn Source>>, table: Arc<dyn Lookup>, sinks: [Arc<dyn Sink>; 3], shape: Shape) -> Plan {
    let Shape { scope, within, late, commit_interval, kept, again } = shape;
    let sources: Vec<SourceNode> = SOURCES.iter().zip(sources).map(|(table, source)| node(table, source)).collect();
    let schema = sources[0].schema();
    let exchange = (scope == Scope::Global).then(|| vec![0]);
    let deduplicate =
        Deduplicate { keys: vec![0], time: 2, clock: DedupClock::Log, within, late, scope, memory: usize::MAX };
    let quotients =
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("q", DataType::Int64, true)]));
    let known = lookup_node(table.clone(), kept);
    let again = LookupNode { table: "again".into(), ..lookup_node(table, again) };
    let joined = Arc::new(Schema::new([schema.fields().to_vec(), known.schema.fields().to_vec()].concat()));
    let doubled = binary(col("n", &joined).unwrap(), Op::Plus, col("n", &joined).unwrap(), &joined).unwrap();
    let is_double = binary(col("double", &joined).unwrap(), Op::Eq, doubled, &joined).unwrap();
    let join = LookupJoin { table: 0, keys: vec![1], filter: Some(is_double), outer: false };
    let may_be_null =
        |fields: &Fields| fields.iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
    let looked_up: Vec<FieldRef> = may_be_null(again.schema.fields());
    let twice = Arc::new(Schema::new([quotients.fields().to_vec(), looked_up].concat()));
    let operators = vec![
        OperatorNode {
            id: "deduplicate events by id".into(),
            inputs: (0..sources.len()).map(|i| Edge { from: From::Source(i), exchange: exchange.clone() }).collect(),
            operator: Operator::Deduplicate(deduplicate),
            schema: schema.clone(),
        },
        OperatorNode {
            id: "lookup".into(),
            inputs: vec![Edge::forward(From::Operator(0))],
            operator: Operator::Lookup(join),
            schema: joined.clone(),
        },
        OperatorNode {
            id: "transform".into(),
            inputs: vec![Edge::forward(From::Operator(1))],
            operator: Operator::Transform(Transform { steps: steps(&joined, &quotients) }),
            schema: quotients.clone(),
        },
        OperatorNode {
            id: "lookup again".into(),
            inputs: vec![Edge::forward(From::Operator(2))],
            operator: Operator::Lookup(LookupJoin { table: 1, keys: vec![0], filter: None, outer: true }),
            schema: twice.clone(),
        },
    ];
    let schemas = [schema, twice, dead_letter_schema()];
    let inputs = [vec![Edge::forward(From::Operator(0))], vec![Edge::forward(From::Operator(3))], vec![]];
    let sinks = TABLES.iter().zip(sinks).zip(schemas).zip(inputs).map(|(((table, sink), schema), inputs)| SinkNode {
        table: table.to_string(),
        inputs,
        sink,
        schema,
        commit_interval: (*table == "second").then_some(commit_interval),
        give_up_after: None,
    });
    let (sinks, lookups) = (sinks.collect(), vec![known, again]);
    Plan { name: "simulated".into(), sources, lookups, operators, sinks, dead_letter: 2 }
}

fn lookup_node(lookup: Arc<dyn Lookup>, kept: Kept) -> LookupNode {
    let columns = lookup::columns().into_iter().map(|field| SourceColumn { field, origin: Origin::Value }).collect();
    let keys = if matches!(kept, Kept::ByKey(_)) { vec![0] } else { vec![] };
    LookupNode {
        table: "known".into(),
        lookup,
        request: LookupRequest { columns, keys, timeout: NO_ANSWER },
        transform: Transform { steps: vec![] },
        schema: Arc::new(Schema::new(lookup::columns())),
        keys: vec![0],
        kept,
        give_up_after: None,
    }
}

fn node(table: &str, source: Arc<dyn Source>) -> SourceNode {
    let read = source_schema();
    let columns = read.fields().iter().map(|field| {
        let time = field.name() == LOG_TIME_COLUMN;
        let origin = if time { Origin::Metadata("timestamp".into()) } else { Origin::Value };
        SourceColumn { field: field.clone(), origin }
    });
    let watermark = WatermarkSpec { column: 3, delay: Duration::ZERO, max_ahead: Duration::MAX };
    let (table, columns, watermark) = (table.into(), columns.collect(), Some(watermark));
    SourceNode { table, source, columns, now: true, watermark }
}

/// `SELECT n, 100 / (n % 10 - 7) AS q WHERE n % 3 <> 0`.
fn steps(input: &SchemaRef, output: &SchemaRef) -> Vec<Step> {
    let n = || col("n", input).unwrap();
    let number = |value: i64| lit(ScalarValue::Int64(Some(value)));
    let calculate = |left: Arc<dyn PhysicalExpr>, op, right: i64| binary(left, op, number(right), input).unwrap();
    let passes = calculate(calculate(n(), Op::Modulo, 3), Op::NotEq, 0);
    let divisor = calculate(calculate(n(), Op::Modulo, 10), Op::Minus, 7);
    let quotient = binary(number(100), Op::Divide, divisor, input).unwrap();
    vec![Step::Filter(passes), Step::Project { expressions: vec![n(), quotient], schema: output.clone() }]
}
