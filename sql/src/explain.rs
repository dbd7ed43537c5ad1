//! A plan for people: what is read, what happens to it, what is kept, and what each sink promises.

use std::fmt::Write;

use engine::plan::{Edge, From, Operator, OperatorNode, Plan, Step};

use crate::planner::Job;

/// The plan as text.
pub fn explain(job: &Job) -> String {
    let plan = &job.plan;
    let mut out = String::new();
    for node in &plan.sources {
        let _ = writeln!(out, "source {}: {}", node.table, node.source.describe());
        let columns: Vec<_> = node.columns.iter().map(|c| c.field.name().as_str()).collect();
        let _ = writeln!(out, "    reads {}", columns.join(", "));
        if let Some(watermark) = &node.watermark {
            let column = node.columns[watermark.column].field.name();
            let _ = writeln!(out, "    watermark {column} less {:?}", watermark.delay);
        }
    }
    for (index, node) in plan.operators.iter().enumerate() {
        let _ = writeln!(out, "operator {index}: {}", describe(node));
        inputs(&mut out, plan, &node.inputs);
    }
    for (index, node) in plan.sinks.iter().enumerate() {
        let role = if index == plan.dead_letter { " (dead letter)" } else { "" };
        let _ = writeln!(out, "sink {}{role}: {}", node.table, node.sink.describe());
        let _ = writeln!(out, "    {}", node.sink.guarantee());
        inputs(&mut out, plan, &node.inputs);
    }
    out
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

fn describe(node: &OperatorNode) -> String {
    match &node.operator {
        Operator::Deduplicate(d) => {
            format!("{} within {:?}, late rows: {:?}; state '{}'", "deduplicate", d.within, d.late, node.id)
        }
        Operator::Transform(transform) => {
            let step = |step: &Step| match step {
                Step::Filter(predicate) => format!("filter {predicate}"),
                Step::Project { schema, .. } => {
                    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                    format!("project {}", names.join(", "))
                }
                Step::Unnest { schema, column, .. } => format!("unnest {}", schema.field(*column).name()),
            };
            let steps: Vec<_> = transform.steps.iter().map(step).collect();
            if steps.is_empty() { "union".into() } else { steps.join("; ") }
        }
    }
}
