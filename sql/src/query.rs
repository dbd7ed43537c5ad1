//! Queries through DataFusion: from text to an optimised logical plan, and from its expressions to executable ones.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, TableReference};
use datafusion::datasource::ViewTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement};
use engine::plan::{NOW_COLUMN, instant};

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
        let mut context = SessionContext::new_with_config(config);
        datafusion_functions_json::register_all(&mut context)?;
        context.register_udf(ScalarUDF::from(Now::new()).with_aliases(["current_timestamp"]));
        Ok(Catalog { context })
    }

    pub fn add_table(&self, name: &str, schema: SchemaRef) -> DfResult<()> {
        let reference = TableReference::bare(name);
        self.context.register_table(reference, Arc::new(EmptyTable::new(schema))).map(|_| ())
    }

    pub fn add_view(&self, name: &str, plan: LogicalPlan) -> DfResult<()> {
        let view = ViewTable::new(plan, None);
        self.context.register_table(TableReference::bare(name), Arc::new(view)).map(|_| ())
    }

    /// A query's plan, before optimisation.
    pub fn plan(&self, query: &Query) -> DfResult<LogicalPlan> {
        let statement = DfStatement::Statement(Box::new(SqlStatement::Query(Box::new(query.clone()))));
        let state = self.context.state();
        futures_free(state.statement_to_plan(statement))
    }

    pub fn optimize(&self, plan: &LogicalPlan) -> DfResult<LogicalPlan> {
        self.context.state().optimize(plan)
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
