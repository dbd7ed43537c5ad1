//! A query's optimised plan into the engine's steps and operators.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{Column as DfColumn, DFSchema, DataFusionError};
use datafusion::logical_expr::{Expr, LogicalPlan, Unnest};
use datafusion::sql::sqlparser::ast::{Query, visit_relations};
use engine::plan::*;

use crate::diagnostic::{Diagnostic, Place};
use crate::errors::explain;
use crate::lookup_join::{self, LookupSource};
use crate::query::executable;
use crate::row_number;
use crate::settings::Settings;
use crate::table::Table;

/// Rows on their way: where they come from, what happened to them since, and what they look like now.
#[derive(Clone)]
pub struct Flow {
    pub from: From,
    pub steps: Vec<Step>,
    pub schema: DFSchema,
}

/// Plans the query of one INSERT.
pub struct Walk<'a> {
    pub plan: &'a mut Plan,
    pub starts: &'a BTreeMap<String, Flow>,
    pub lookups: &'a BTreeMap<String, LookupSource>,
    /// How many columns were added to rows for the keys of lookups.
    pub helping: Cell<usize>,
    /// Whether what is walked is the side of a lookup table in a join.
    pub inside_lookup: bool,
    pub tables: &'a BTreeMap<String, Table>,
    pub settings: &'a Settings,
    pub warnings: &'a mut Vec<Diagnostic>,
    /// As it is written.
    pub query: &'a Query,
    /// The table that the rows end in.
    pub sink: &'a str,
    pub place: &'a Place,
    /// Where the job says ROW_NUMBER().
    pub row_number: Option<&'a Place>,
    /// Of the next window down the plan, only the first row of each key is wanted.
    pub first_only: bool,
}

pub type Planned<T> = Result<T, Diagnostic>;

impl Walk<'_> {
    pub fn failed(&self, error: DataFusionError) -> Diagnostic {
        explain(&error, self.place, &[]).remove(0)
    }

    pub fn walk(&mut self, node: &LogicalPlan) -> Planned<Flow> {
        match node {
            LogicalPlan::TableScan(scan) => {
                let mut flow = self.start(scan.table_name.table())?;
                self.rename(&mut flow, &scan.table_name)?;
                for filter in &scan.filters {
                    self.filter(&mut flow, filter)?;
                }
                Ok(flow)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let mut flow = self.walk(&alias.input)?;
                if lookup_join::looks_up(&alias.input) {
                    // Of the columns of both sides those that the query has, so that no two become one name.
                    let columns: Vec<Expr> = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
                    flow = self.project(flow, &columns, alias.input.schema())?;
                }
                self.rename(&mut flow, &alias.alias)?;
                Ok(flow)
            }
            LogicalPlan::Filter(filter) => {
                let beside_first = row_number::beside_first(&filter.predicate, &filter.input);
                self.first_only = beside_first.is_some();
                let mut flow = self.walk(&filter.input)?;
                match beside_first {
                    Some(others) => others.into_iter().try_for_each(|other| self.filter(&mut flow, other))?,
                    None => self.filter(&mut flow, &filter.predicate)?,
                }
                Ok(flow)
            }
            LogicalPlan::Projection(projection) => {
                let flow = self.walk(&projection.input)?;
                self.project(flow, &projection.expr, &projection.schema)
            }
            LogicalPlan::Union(union) => {
                let mut edges = vec![];
                for input in &union.inputs {
                    let flow = self.walk(input)?;
                    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                    let flow = self.project(flow, &columns, &union.schema)?;
                    let schema = Arc::new(flow.schema.as_arrow().clone());
                    edges.push(Edge::forward(add_transform(self.plan, flow.from, flow.steps, schema)));
                }
                // The branches meet in a step that does nothing, so that what follows is planned once.
                let schemas: Vec<SchemaRef> = edges.iter().map(|e| schema_of(self.plan, e.from)).collect();
                let schema = either_nullable(&schemas);
                let operator = Operator::Transform(Transform { steps: vec![] });
                let (id, inputs) = ("union".into(), edges);
                self.plan.operators.push(OperatorNode { id, inputs, operator, schema: schema.clone() });
                let from = From::Operator(self.plan.operators.len() - 1);
                let schema = with_trailing(&union.schema, &schema).map_err(|e| self.failed(e))?;
                Ok(Flow { from, steps: vec![], schema })
            }
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Join(join) => lookup_join::walk(self, join),
            LogicalPlan::Window(window) if std::mem::take(&mut self.first_only) => row_number::walk(self, window),
            LogicalPlan::Window(_) => Err(row_number::refused(self.row_number.unwrap_or(self.place))),
            other => Err(refuse(other, self.place)),
        }
    }

    /// Where the query names a table; else where the INSERT stands.
    pub fn place_of(&self, table: &str) -> Place {
        let mut found = None;
        let _: ControlFlow<()> = visit_relations(self.query, |name| {
            let ident = name.0.last().and_then(|part| part.as_ident());
            found = ident.filter(|ident| ident.value.eq_ignore_ascii_case(table)).map(|ident| ident.span.start);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match found {
            Some(at) if at.line > 0 => {
                Place { file: self.place.file.clone(), line: at.line as usize, column: at.column as usize }
            }
            _ => self.place.clone(),
        }
    }

    /// Where the rows of a table begin their way.
    fn start(&self, table: &str) -> Planned<Flow> {
        match (self.starts.get(table), self.lookups.get(table)) {
            (Some(flow), _) => Ok(flow.clone()),
            // Its rows come from where the join has them.
            (_, Some(source)) if self.inside_lookup => {
                Ok(Flow { from: From::Source(0), steps: vec![], schema: source.schema.clone() })
            }
            (_, Some(_)) => {
                let message = format!("{table} is a lookup table: it has no rows to go on");
                let hint = format!("join it to a stream: FROM events AS e JOIN {table} AS t ON e.x = t.y");
                Err(Diagnostic::at(&self.place_of(table), message).hint(hint))
            }
            _ => Err(Diagnostic::at(self.place, format!("{table} cannot be read"))),
        }
    }

    fn rename(&self, flow: &mut Flow, name: &datafusion::common::TableReference) -> Planned<()> {
        let schema = flow.schema.as_arrow().clone();
        flow.schema = DFSchema::try_from_qualified_schema(name.clone(), &schema).map_err(|e| self.failed(e))?;
        Ok(())
    }

    pub fn filter(&self, flow: &mut Flow, predicate: &Expr) -> Planned<()> {
        let predicate = executable(predicate, &flow.schema).map_err(|e| self.failed(e))?;
        flow.steps.push(Step::Filter(predicate));
        Ok(())
    }

    /// A projection keeps what the engine appended to the rows, for `now()` and the deduplication further on.
    pub fn project(&self, flow: Flow, exprs: &[Expr], schema: &DFSchema) -> Planned<Flow> {
        self.try_project(flow, exprs, schema).map_err(|e| self.failed(e))
    }

    fn try_project(&self, flow: Flow, exprs: &[Expr], schema: &DFSchema) -> Result<Flow, DataFusionError> {
        let mut expressions = exprs.iter().map(|e| executable(e, &flow.schema)).collect::<Result<Vec<_>, _>>()?;
        let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        for name in [NOW_COLUMN, LOG_TIME_COLUMN] {
            let appended = flow.schema.fields().iter().any(|f| f.name() == name);
            if appended && !fields.iter().any(|f| f.name() == name) {
                expressions.push(executable(&Expr::Column(DfColumn::new_unqualified(name)), &flow.schema)?);
                fields.push(Arc::new(Field::new(name, instant(), name == LOG_TIME_COLUMN)));
            }
        }
        // What an expression can really yield decides, not what the optimiser knew of it.
        let input = flow.schema.as_arrow();
        for (field, expression) in fields.iter_mut().zip(&expressions) {
            let nullable = field.is_nullable() || expression.nullable(input)?;
            *field = Arc::new(field.as_ref().clone().with_nullable(nullable));
        }
        let arrow = Arc::new(Schema::new(fields));
        let mut steps = flow.steps;
        steps.push(Step::Project { expressions, schema: arrow.clone() });
        Ok(Flow { from: flow.from, steps, schema: with_trailing(schema, &arrow)? })
    }

    fn unnest(&mut self, unnest: &Unnest) -> Planned<Flow> {
        let place = self.place;
        if !unnest.struct_type_columns.is_empty() {
            return Err(Diagnostic::at(place, "UNNEST of a STRUCT is not built yet; name its fields instead"));
        }
        if unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Err(Diagnostic::at(place, "UNNEST of nested lists at once is not built yet; UNNEST twice"));
        }
        let flow = self.walk(&unnest.input)?;
        let columns: Vec<Expr> = unnest.input.schema().columns().into_iter().map(Expr::Column).collect();
        let mut flow = self.project(flow, &columns, unnest.input.schema())?;
        let mut fields: Vec<FieldRef> = flow.schema.fields().iter().cloned().collect();
        let lists: Vec<usize> = unnest.list_type_columns.iter().map(|(column, _)| *column).collect();
        for column in &lists {
            let DataType::List(item) = fields[*column].data_type().clone() else {
                return Err(Diagnostic::at(place, format!("{} is no ARRAY", fields[*column].name())));
            };
            fields[*column] = Arc::new(Field::new(unnest.schema.field(*column).name(), item.data_type().clone(), true));
        }
        let schema = Arc::new(Schema::new(fields));
        let keep_empty = unnest.options.preserve_nulls();
        flow.steps.push(Step::Unnest { columns: lists, keep_empty, schema: schema.clone() });
        flow.schema = with_trailing(&unnest.schema, &schema).map_err(|e| self.failed(e))?;
        Ok(flow)
    }
}

pub fn add_transform(plan: &mut Plan, from: From, steps: Vec<Step>, schema: SchemaRef) -> From {
    let operator = Operator::Transform(Transform { steps });
    plan.operators.push(OperatorNode { id: "transform".into(), inputs: vec![Edge::forward(from)], operator, schema });
    From::Operator(plan.operators.len() - 1)
}

/// The logical names of columns, with the physical fields, and what stands behind them.
fn with_trailing(logical: &DFSchema, physical: &SchemaRef) -> Result<DFSchema, DataFusionError> {
    let qualifiers = (0..physical.fields().len())
        .map(|i| if i < logical.fields().len() { logical.qualified_field(i).0.cloned() } else { None });
    let fields = qualifiers.zip(physical.fields().iter().cloned()).collect();
    DFSchema::new_with_metadata(fields, Default::default())
}

fn schema_of(plan: &Plan, from: From) -> SchemaRef {
    match from {
        From::Source(source) => plan.sources[source].schema(),
        From::Operator(operator) => plan.operators[operator].schema.clone(),
    }
}

/// The schema of rows that come from any of these: a column may be null if it may be null in one of them.
fn either_nullable(schemas: &[SchemaRef]) -> SchemaRef {
    let nullable = |at: usize| schemas.iter().any(|s| s.field(at).is_nullable());
    let fields = schemas[0].fields().iter().enumerate();
    let fields: Vec<_> = fields.map(|(at, f)| f.as_ref().clone().with_nullable(nullable(at))).collect();
    Arc::new(Schema::new(fields))
}

fn refuse(node: &LogicalPlan, place: &Place) -> Diagnostic {
    if let LogicalPlan::EmptyRelation(_) = node {
        let hint = "the job would write nothing";
        return Diagnostic::at(place, "the query's condition is never true").hint(hint);
    }
    let name = node.display().to_string();
    let name = name.split([':', ' ']).next().unwrap_or_default().to_string();
    Diagnostic::at(place, format!("this query needs the operator {name}, which is not built yet"))
}
