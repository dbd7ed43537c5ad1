//! A plan for people: what is read, what happens to it, what is kept, and what each sink promises.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use engine::plan::{
    DedupClock, Edge, From, Kept, KeptByKey, LatePolicy, LookupJoin, LookupNode, Operator, OperatorNode, Plan, Scope,
    Step, Transform,
};

use crate::insert::shown;
use crate::planner::Job;

/// The plan as text.
pub fn explain(job: &Job) -> String {
    let plan = &job.plan;
    let mut out = String::new();
    for node in &plan.sources {
        let _ = writeln!(out, "source {}: {}", node.table, node.source.describe());
        let columns: Vec<_> = node.columns.iter().map(|c| format!("{} {}", c.field.name(), shown(&c.field))).collect();
        let _ = writeln!(out, "    reads {}", columns.join(", "));
        if let Some(watermark) = &node.watermark {
            let column = node.columns[watermark.column].field.name();
            let _ = writeln!(out, "    watermark {column} less {:?}", watermark.delay);
        }
    }
    for node in &plan.lookups {
        let _ = writeln!(out, "lookup {}: {}", node.table, node.lookup.describe());
        let columns: Vec<_> =
            node.request.columns.iter().map(|c| format!("{} {}", c.field.name(), shown(&c.field))).collect();
        let _ = writeln!(out, "    reads {}", columns.join(", "));
        let _ = writeln!(out, "    {}", kept(node));
        if !node.transform.steps.is_empty() {
            let _ = writeln!(out, "    {}", steps(&node.transform));
        }
    }
    for (index, node) in plan.operators.iter().enumerate() {
        let _ = writeln!(out, "operator {index}: {}", describe(node, plan));
        inputs(&mut out, plan, &node.inputs);
    }
    for (index, node) in plan.sinks.iter().enumerate() {
        let role = if index == plan.dead_letter { " (dead letter)" } else { "" };
        let _ = writeln!(out, "sink {}{role}: {}", node.table, node.sink.describe());
        let _ = writeln!(out, "    {}", node.sink.guarantee());
        if let Some(interval) = node.commit_interval {
            let _ = writeln!(out, "    entries gather for {interval:?} and are shown together");
        }
        if let Some(most) = node.give_up_after {
            let _ = writeln!(out, "    ends the job when it has taken nothing for {most:?}");
        }
        inputs(&mut out, plan, &node.inputs);
    }
    out
}

/// `expression AS name`, or the column alone where it passes unchanged.
fn named(name: &str, expression: &Arc<dyn PhysicalExpr>) -> String {
    // DataFusion names a window's column by the whole of its definition.
    let name = name.split(" PARTITION BY").next().unwrap_or(name);
    match expression.downcast_ref::<Column>() {
        Some(column) if column.name().split(" PARTITION BY").next() == Some(name) => name.to_string(),
        Some(column) => format!("{} AS {name}", column.name()),
        None => format!("{expression} AS {name}"),
    }
}

fn inputs(out: &mut String, plan: &Plan, edges: &[Edge]) {
    for edge in edges {
        let from = match edge.from {
            From::Source(source) => format!("source {}", plan.sources[source].table),
            From::Operator(operator) => format!("operator {operator}"),
        };
        let how = if edge.exchange.is_some() { ", exchanged by key between the workers" } else { "" };
        let _ = writeln!(out, "    from {from}{how}");
    }
}

fn kept(node: &LookupNode) -> String {
    match node.kept {
        Kept::Whole { refresh, bytes } => {
            format!("kept whole, in {} MiB at most, and looked at every {refresh:?}", bytes >> 20)
        }
        Kept::ByKey(KeptByKey { ttl, .. }) if ttl.is_zero() => "asked by key; nothing is kept".into(),
        Kept::ByKey(KeptByKey { ttl, missing_ttl, bytes, keys, requests }) => format!(
            "asked by key, {keys} at once in {requests} requests; an answer holds for {ttl:?}, that there is none for \
             {missing_ttl:?}, in {} MiB",
            bytes >> 20
        ),
    }
}

fn look_up(join: &LookupJoin, node: &OperatorNode, plan: &Plan) -> String {
    let table = &plan.lookups[join.table];
    let pairs = join.keys.iter().zip(&table.keys);
    let pairs = pairs.map(|(ours, theirs)| {
        format!("{} = {}.{}", node.schema.field(*ours).name(), table.table, table.schema.field(*theirs).name())
    });
    let mut conditions: Vec<String> = pairs.collect();
    conditions.extend(join.filter.iter().map(|filter| filter.to_string()));
    let on = if conditions.is_empty() { "all rows of it".to_string() } else { conditions.join(" AND ") };
    let kept = if join.outer { "; a row that meets nothing stays" } else { "" };
    format!("look up in {}: {on}{kept}", table.table)
}

fn describe(node: &OperatorNode, plan: &Plan) -> String {
    match &node.operator {
        Operator::Deduplicate(d) => {
            let names: Vec<_> = d.keys.iter().map(|k| node.schema.field(*k).name().as_str()).collect();
            let clock = match d.clock {
                DedupClock::Log => "the log's time",
                DedupClock::Event => "the event time",
            };
            let scope = match d.scope {
                Scope::Global => "everywhere",
                Scope::Partition => "in each partition",
            };
            let late = match d.late {
                LatePolicy::Keep => "kept",
                LatePolicy::DeadLetter => "sent to the dead letter",
                LatePolicy::Drop => "dropped",
            };
            let (by, within) = (names.join(", "), d.within);
            format!(
                "deduplicate by {by} {scope} within {within:?} of {clock}, older rows are {late}; \
                 {} MiB of memory, then disk; state '{}'",
                d.memory >> 20,
                node.id
            )
        }
        Operator::Lookup(join) => look_up(join, node, plan),
        Operator::Transform(transform) => steps(transform),
    }
}

fn steps(transform: &Transform) -> String {
    let step = |step: &Step| match step {
        Step::Filter(predicate) => format!("filter {predicate}"),
        Step::Project { schema, expressions } => {
            let made: Vec<_> = schema.fields().iter().zip(expressions).map(|(f, e)| named(f.name(), e)).collect();
            format!("project {}", made.join(", "))
        }
        Step::Unnest { schema, columns, .. } => {
            let names: Vec<_> = columns.iter().map(|column| schema.field(*column).name().as_str()).collect();
            format!("unnest {}", names.join(", "))
        }
    };
    let steps: Vec<_> = transform.steps.iter().map(step).collect();
    if steps.is_empty() { "union".into() } else { steps.join("; ") }
}
