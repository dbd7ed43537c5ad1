//! A declared table, and what its declaration says about time and copies.

use std::time::Duration;

use arrow::datatypes::{Field, FieldRef};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr};
use engine::connector::{Origin, Problem, TableSpec, parse_duration};
use engine::plan::{DedupClock, Deduplicate, LatePolicy, Scope, instant};

use crate::ddl::CreateTable;
use crate::diagnostic::{Diagnostic, Place};
use crate::errors::no_column;
use crate::insert::shown;
use crate::names::unique;
use crate::options::TableOptions;

pub struct Table {
    pub statement: CreateTable,
    pub options: TableOptions,
    pub spec: TableSpec,
    /// Generated columns that the watermark or the deduplication reads: they are computed where the rows come in.
    pub computed: Vec<Computed>,
}

/// Memory for the keys of a deduplication if the job says nothing: some 30 million UUIDs.
const MEMORY: u64 = 1 << 30;

/// A column made of others.
pub struct Computed {
    pub field: FieldRef,
    pub expression: Expr,
}

/// The watermark's column, and how far rows may be out of order.
pub struct Watermark {
    pub column: String,
    pub delay: Duration,
}

pub fn is_instant(field: &Field) -> bool {
    field.data_type() == &instant()
}

/// What says where the log's own timestamp is.
pub fn log_time() -> Origin {
    Origin::Metadata("timestamp".into())
}

impl Table {
    /// The column that a name in an option or a clause means.
    pub fn column(&self, name: &str, place: &Place) -> Result<&FieldRef, Diagnostic> {
        let fields = self.spec.columns.iter().map(|c| &c.field).chain(self.computed.iter().map(|c| &c.field));
        let names: Vec<&str> = fields.clone().map(|f| f.name().as_str()).collect();
        let found = unique(name, names.iter().copied()).ok().flatten();
        found.and_then(|found| fields.clone().find(|f| f.name() == found)).ok_or_else(|| no_column(place, name, &names))
    }

    pub fn deduplicates(&self) -> bool {
        self.options.values.get("deduplicate.key").is_some()
    }

    /// The columns that tell an event.
    pub fn dedup_keys(&self) -> Result<Vec<String>, Diagnostic> {
        let Some(keys) = self.options.values.get("deduplicate.key") else { return Ok(vec![]) };
        let place = &self.options.places["deduplicate.key"];
        if self.options.values.get("deduplicate.within").is_none() {
            let diagnostic = Diagnostic::at(place, "deduplicate.key needs deduplicate.within: state must have an end");
            return Err(diagnostic.hint("for example 'deduplicate.within' = '10 minutes'"));
        }
        keys.split(',').map(|key| Ok(self.column(key.trim(), place)?.name().clone())).collect()
    }

    pub fn by_event_time(&self) -> bool {
        self.options.values.get("deduplicate.time") == Some("event")
    }

    /// What the options say about copies, for these columns.
    pub fn deduplication(&self, keys: Vec<usize>, time: usize, clock: DedupClock, within: Duration) -> Deduplicate {
        let options = &self.options.values;
        Deduplicate {
            keys,
            time,
            clock,
            within,
            late: match options.get("deduplicate.late") {
                Some("dead-letter") => LatePolicy::DeadLetter,
                Some("drop") => LatePolicy::Drop,
                _ => LatePolicy::Keep,
            },
            scope: if options.get("deduplicate.scope") == Some("partition") { Scope::Partition } else { Scope::Global },
            memory: options.bytes("deduplicate.memory").unwrap_or(MEMORY) as usize,
        }
    }

    pub fn watermark(&self) -> Result<Option<Watermark>, Diagnostic> {
        let (name, delay, place) = match (&self.statement.watermark, self.options.values.get("event_time_field")) {
            (Some((name, expression, place)), _) => {
                let delay = delay(name, expression).ok_or_else(|| {
                    let hint = format!("write WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND");
                    Diagnostic::at(place, "a watermark is its column less an interval").hint(hint)
                })?;
                (name.as_str(), delay, place)
            }
            (None, Some(name)) => (name, Duration::ZERO, &self.options.places["event_time_field"]),
            (None, None) => return Ok(None),
        };
        let field = self.column(name, place)?;
        if !is_instant(field) {
            let message = format!("{} is {}, and a watermark needs a TIMESTAMP", field.name(), shown(field));
            return Err(Diagnostic::at(place, message));
        }
        Ok(Some(Watermark { column: field.name().clone(), delay }))
    }

    /// A connector's problems, where they stand.
    pub fn problems(&self, problems: Vec<Problem>) -> Vec<Diagnostic> {
        let of_column =
            |name: &String| self.statement.columns.iter().find(|c| c.field.name() == name).map(|c| &c.place);
        let place = |problem: &Problem| {
            let option = problem.option.as_ref().and_then(|o| self.options.places.get(o));
            option.or(problem.column.as_ref().and_then(of_column)).unwrap_or(&self.statement.place).clone()
        };
        problems.iter().map(|p| Diagnostic::at(&place(p), format!("table {}: {}", self.spec.name, p.message))).collect()
    }
}

/// Generated columns that must be there before the query runs: those that the watermark or the deduplication names.
pub fn needed_at_source(statement: &CreateTable, options: &TableOptions) -> Vec<String> {
    let keys = options.values.get("deduplicate.key").into_iter().flat_map(|keys| keys.split(','));
    let times = statement.watermark.iter().map(|(name, ..)| name.as_str());
    let times = times.chain(options.values.get("event_time_field"));
    let names = statement.columns.iter().map(|c| c.field.name().as_str());
    keys.map(str::trim).chain(times).filter_map(|n| unique(n, names.clone()).ok().flatten().map(String::from)).collect()
}

/// `t` or `t - INTERVAL …`.
fn delay(column: &str, expression: &SqlExpr) -> Option<Duration> {
    let is_column = |e: &SqlExpr| matches!(e, SqlExpr::Identifier(i) if i.value.eq_ignore_ascii_case(column));
    match expression {
        e if is_column(e) => Some(Duration::ZERO),
        SqlExpr::Nested(inner) => delay(column, inner),
        SqlExpr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => {
            let text = right.to_string();
            let words = text.strip_prefix("INTERVAL")?.replace('\'', " ");
            parse_duration(&words.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        _ => None,
    }
}
