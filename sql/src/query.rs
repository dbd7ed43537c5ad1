//! Queries through DataFusion: from text to an optimised logical plan, and from its expressions to executable ones.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, TableReference};
use datafusion::datasource::ViewTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement};
use engine::connector::json_field;
use engine::plan::{NOW_COLUMN, instant};

use crate::dialect::adapted;
use crate::lateral::unnest_in_place;

/// The schema of what sources deliver, where a table with generated columns is a view over it.
pub const SOURCES: &str = "source";

/// The tables and views of a job, as queries see them.
pub struct Catalog {
    context: SessionContext,
}

impl Catalog {
    pub fn new() -> DfResult<Self> {
        let mut config = SessionConfig::new()
            .set_bool("datafusion.sql_parser.enable_ident_normalization", false)
            .set_bool("datafusion.sql_parser.collect_spans", true);
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        config.options_mut().sql_parser.parse_float_as_decimal = false;
        // What makes instants (casts, to_timestamp_millis, …) makes them in UTC, as columns are.
        config.options_mut().execution.time_zone = Some("UTC".into());
        let mut context = SessionContext::new_with_config(config);
        if let Some(catalog) = context.catalog("datafusion") {
            catalog.register_schema(SOURCES, Arc::new(MemorySchemaProvider::new()))?;
        }
        // They move the fields of structs towards a scan that could skip the others, which ours cannot; and where a
        // table is a view, they make names ambiguous.
        for rule in ["extract_leaf_expressions", "push_down_leaf_projections"] {
            context.remove_optimizer_rule(rule);
        }
        datafusion_functions_json::register_all(&mut context)?;
        context.register_udf(ScalarUDF::from(Now::new()).with_aliases(["current_timestamp", "proctime"]));
        Ok(Catalog { context })
    }

    pub fn add_table(&self, reference: TableReference, schema: SchemaRef) -> DfResult<()> {
        self.context.register_table(reference, Arc::new(EmptyTable::new(schema))).map(|_| ())
    }

    pub fn remove_table(&self, reference: TableReference) -> DfResult<()> {
        self.context.deregister_table(reference).map(|_| ())
    }

    pub fn add_view(&self, reference: TableReference, plan: LogicalPlan) -> DfResult<()> {
        self.context.register_table(reference, Arc::new(ViewTable::new(plan, None))).map(|_| ())
    }

    pub fn is_aggregate(&self, function: &str) -> bool {
        self.context.state().aggregate_functions().contains_key(&function.to_lowercase())
    }

    /// A query's plan, before optimisation.
    pub fn plan(&self, query: &Query) -> DfResult<LogicalPlan> {
        let statement = DfStatement::Statement(Box::new(SqlStatement::Query(Box::new(adapted(query)))));
        let state = self.context.state();
        json_values(unnest_in_place(futures_free(state.statement_to_plan(statement))?)?)
    }

    pub fn optimize(&self, plan: &LogicalPlan) -> DfResult<LogicalPlan> {
        self.context.state().optimize(plan)
    }
}

/// `a -> 'b'` as a column is JSON. DataFusion's function yields a union of all that JSON can be, which is right within
/// an expression and nothing that a table can hold.
fn json_values(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let made = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Projection(_) = &node else { return Ok(Transformed::no(node)) };
        node.map_expressions(|expr| {
            let name = expr.schema_name().to_string();
            Ok(match expr.clone().unalias_nested().data {
                Expr::ScalarFunction(mut call) if call.func.name() == "json_get" => {
                    call.func = datafusion_functions_json::udfs::json_get_json_udf();
                    let metadata = FieldMetadata::from(json_field("", true).metadata().clone());
                    let qualifier = match &expr {
                        Expr::Alias(alias) => alias.relation.clone(),
                        _ => None,
                    };
                    let alias = Alias::new(Expr::ScalarFunction(call), qualifier, name);
                    Transformed::yes(Expr::Alias(alias.with_metadata(Some(metadata))))
                }
                _ => Transformed::no(expr),
            })
        })
    })?;
    if made.transformed {
        made.data.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?))).data()
    } else {
        Ok(made.data)
    }
}

/// Planning reads nothing, so its future is ready as soon as it is asked.
fn futures_free<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}

/// An executable expression. `now()` becomes a read of the column that the engine stamps.
pub fn executable(expr: &Expr, schema: &DFSchema) -> DfResult<Arc<dyn PhysicalExpr>> {
    let stamped = expr.clone().transform(|e| {
        Ok(match &e {
            Expr::ScalarFunction(call) if call.func.name() == "now" => {
                Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(NOW_COLUMN)))
            }
            _ => Transformed::no(e),
        })
    })?;
    create_physical_expr(&stamped.data, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
}

/// Whether a plan calls `now()`.
pub fn uses_now(plan: &LogicalPlan) -> DfResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(matches!(e, Expr::ScalarFunction(call) if call.func.name() == "now")))?;
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// The errors that an error is made of.
pub fn leaves(error: &DataFusionError) -> Vec<&DataFusionError> {
    match error {
        DataFusionError::Collection(errors) => errors.iter().flat_map(leaves).collect(),
        other => vec![other],
    }
}

/// An error without what was said about it on its way.
pub fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root(inner),
        DataFusionError::Shared(inner) => root(inner),
        other => other,
    }
}

/// The place that DataFusion gives to an error, if it gives one.
pub fn place_of(error: &DataFusionError) -> Option<(usize, usize)> {
    let span = error.diagnostic()?.span?;
    Some((span.start.line as usize, span.start.column as usize))
}

/// `now()`, as far as planning is concerned: an instant that cannot be computed beforehand.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
}

impl Now {
    fn new() -> Self {
        Now { signature: Signature::nullary(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(instant())
    }
    fn return_field_from_args(&self, _: ReturnFieldArgs) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new("now", instant(), false)))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(DataFusionError::Internal("now() is read by the engine, once per batch".into()))
    }
}
