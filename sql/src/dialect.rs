//! What the dialect means differently from DataFusion, changed in the query's text tree before it is planned.
//!
//! * `TIMESTAMP` is an instant, as in a table's declaration; only `TIMESTAMP WITHOUT TIME ZONE` is none.
//! * The current date is that of `now()`, which the engine reads once per batch: DataFusion would read the clock once,
//!   when the job is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query,
    TimezoneInfo, VisitMut, VisitorMut,
};

/// Makes a query (or an expression) mean to DataFusion what it means here.
pub fn adapt(tree: &mut impl VisitMut) {
    let _: ControlFlow<()> = tree.visit(&mut Adapting);
}

/// A query, adapted.
pub fn adapted(query: &Query) -> Query {
    let mut query = query.clone();
    adapt(&mut query);
    query
}

struct Adapting;

impl VisitorMut for Adapting {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { data_type, .. } => adapt_type(data_type),
            Expr::TypedString(text) => adapt_type(&mut text.data_type),
            Expr::Function(function) if is_current_date(function) => {
                function.name = ObjectName::from(vec![Ident::new("now")]);
                let none = FunctionArgumentList { duplicate_treatment: None, args: vec![], clauses: vec![] };
                function.args = FunctionArguments::List(none);
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(expr.clone()),
                    data_type: DataType::Date,
                    array: false,
                    format: None,
                };
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_current_date(function: &Function) -> bool {
    ["current_date", "today"].iter().any(|name| function.name.to_string().eq_ignore_ascii_case(name))
}

fn adapt_type(data_type: &mut DataType) {
    let plain = |zone| DataType::Timestamp(None, zone);
    *data_type = match data_type {
        DataType::Timestamp(_, TimezoneInfo::WithoutTimeZone) | DataType::TimestampNtz { .. } => {
            plain(TimezoneInfo::WithoutTimeZone)
        }
        DataType::Timestamp(..) => plain(TimezoneInfo::WithTimeZone),
        DataType::Custom(name, _) if name.to_string().eq_ignore_ascii_case("timestamp_ltz") => {
            plain(TimezoneInfo::WithTimeZone)
        }
        DataType::Bytes(_) => DataType::Bytea,
        DataType::Varchar(_) | DataType::Nvarchar(_) | DataType::CharacterVarying(_) => DataType::Text,
        _ => return,
    };
}
