//! What the dialect means differently from DataFusion, changed in the query's text tree before it is planned.
//!
//! * `TIMESTAMP` is an instant, as in a table's declaration; only `TIMESTAMP WITHOUT TIME ZONE` is none.
//! * `->` and `->>` bind tighter than comparisons, as in PostgreSQL: `a ->> 'b' = 'c'` compares. The parser library has
//!   it the other way round for all dialects but PostgreSQL's.
//! * The current date is that of `now()`, which the engine reads once per batch: DataFusion would read the clock once,
//!   when the job is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Query, TimezoneInfo, Value, VisitMut, VisitorMut,
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
        bind_arrow(expr);
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

fn is_arrow(op: &BinaryOperator) -> bool {
    use BinaryOperator::*;
    matches!(op, Arrow | LongArrow | HashArrow | HashLongArrow)
}

/// Makes `a -> (b = c)` and `(a = b) -> c`, where no brackets were written, into `(a -> b) = c` and `a = (b -> c)`.
fn bind_arrow(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = expr else { return };
    if !is_arrow(op) || (first_operand(right).is_none() && last_operand(left).is_none()) {
        return;
    }
    let nothing = || Box::new(Expr::Value(Value::Null.with_empty_span()));
    let (mut left, op) = (std::mem::replace(left, nothing()), op.clone());
    let mut right = std::mem::replace(right, nothing());
    let key = first_operand(&mut right).map(|first| std::mem::replace(first, *nothing()));
    let whole = last_operand(&mut left).map(|last| std::mem::replace(last, *nothing()));
    let join =
        |left: Expr, right: Expr| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) };
    *expr = match (whole, key) {
        (Some(whole), Some(key)) => {
            if let (Some(last), Some(first)) = (last_operand(&mut left), first_operand(&mut right)) {
                *last = join(whole, key);
                *first = *left;
            }
            *right
        }
        (Some(whole), None) => {
            if let Some(last) = last_operand(&mut left) {
                *last = join(whole, *right);
            }
            *left
        }
        (None, Some(key)) => {
            if let Some(first) = first_operand(&mut right) {
                *first = join(*left, key);
            }
            *right
        }
        (None, None) => join(*left, *right),
    };
}

/// What stands first in an expression that binds less than an arrow, but was parsed as if it did not.
fn first_operand(expr: &mut Expr) -> Option<&mut Expr> {
    let inner = match expr {
        Expr::BinaryOp { left, op, .. } if !is_arrow(op) => left,
        Expr::IsNull(inner) | Expr::IsNotNull(inner) | Expr::IsTrue(inner) | Expr::IsFalse(inner) => inner,
        Expr::InList { expr, .. } | Expr::Between { expr, .. } => expr,
        Expr::Like { expr, .. } | Expr::ILike { expr, .. } => expr,
        _ => return None,
    };
    Some(if first_operand(inner).is_some() { first_operand(inner)? } else { inner })
}

fn last_operand(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::BinaryOp { right, op, .. } if !is_arrow(op) => {
            Some(if last_operand(right).is_some() { last_operand(right)? } else { right })
        }
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn an_arrow_binds_as_in_postgresql() {
        let texts = [
            "a ->> 's' = 't'",
            "a -> 'b' ->> 'c' > 5 AND d",
            "a ->> 's' IS NULL OR a ->> 't' IS NOT NULL",
            "a ->> 's' IN ('x', 'y')",
            "a ->> 's' LIKE 'x%'",
            "x = a ->> 's'",
            "a ->> 's' = b ->> 't'",
            "a ->> 's' = b -> 'u' ->> 't' AND NOT c ->> 'd' = e ->> 'f'",
            "a ->> 's' || 'x' = 'y'",
            "(a -> 'b') = (c -> 'd')",
            "a -> ('b' || 'c')",
        ];
        for text in texts {
            let mut ours = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            adapt(&mut ours);
            let theirs = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            assert_eq!(ours, theirs, "{text}");
        }
    }
}
