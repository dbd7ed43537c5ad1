//! Names keep the case in which they are written. A reference is resolved exactly, else without regard to case if
//! that is unique.
//!
//! DataFusion knows what is in scope where, and resolves exactly. So a query is planned, and each reference that it
//! does not find is respelled in the query's text tree if one name in that scope differs by case only.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Visit, VisitMut, VisitorMut, visit_relations,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::query::{Catalog, leaves, root};

/// Plans a query. `relations`: the tables and views that it may read.
pub fn plan(catalog: &Catalog, query: &Query, relations: &[String]) -> Result<LogicalPlan, DataFusionError> {
    let mut query = query.clone();
    let mut relations: Vec<String> = relations.to_vec();
    relations.extend(query.with.iter().flat_map(|w| &w.cte_tables).map(|cte| cte.alias.name.value.clone()));
    // Each round respells at least one reference, and respells none twice: their number is the bound.
    loop {
        let error = match catalog.plan(&query) {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        let mut respelled = false;
        for leaf in leaves(&error) {
            respelled |= respell(&mut query, leaf, &relations);
        }
        if !respelled {
            return Err(error);
        }
    }
}

/// The only candidate that differs from `name` by case at most; an exact one wins.
pub fn unique<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Result<Option<&'a str>, Vec<&'a str>> {
    let alike: BTreeSet<&str> = candidates.into_iter().filter(|c| c.eq_ignore_ascii_case(name)).collect();
    match alike.get(name) {
        Some(exact) => Ok(Some(exact)),
        None if alike.len() <= 1 => Ok(alike.into_iter().next()),
        None => Err(alike.into_iter().collect()),
    }
}

/// Whether a name is one of these, exactly or as the only one that differs by case.
pub fn is_among(name: &str, candidates: &BTreeSet<String>) -> bool {
    matches!(unique(name, candidates.iter().map(String::as_str)), Ok(Some(_)))
}

/// The tables and views that a query, or a part of one, names.
pub fn relations_of(tree: &impl Visit) -> Vec<String> {
    let mut relations = vec![];
    let _: ControlFlow<()> = visit_relations(tree, |name| {
        relations.extend(name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()));
        ControlFlow::Continue(())
    });
    relations
}

/// The name of a table that DataFusion did not find.
pub fn missing_table(error: &DataFusionError) -> Option<String> {
    let DataFusionError::Plan(text) = root(error) else { return None };
    let name = text.strip_prefix("table '")?.strip_suffix("' not found")?;
    name.rsplit('.').next().map(String::from)
}

fn respell(query: &mut Query, error: &DataFusionError, relations: &[String]) -> bool {
    let Some(span) = error.diagnostic().and_then(|d| d.span) else { return false };
    let at = Location { line: span.start.line, column: span.start.column };
    let valid = match root(error) {
        DataFusionError::SchemaError(error, _) => match &**error {
            SchemaError::FieldNotFound { valid_fields, .. } => valid_fields.clone(),
            _ => return false,
        },
        _ if missing_table(error).is_some() => vec![],
        _ => return false,
    };
    let mut respelling = Respelling { at, valid: &valid, relations, done: false };
    let _: ControlFlow<()> = query.visit(&mut respelling);
    respelling.done
}

struct Respelling<'a> {
    at: Location,
    valid: &'a [Column],
    relations: &'a [String],
    done: bool,
}

impl Respelling<'_> {
    fn is_here(&self, ident: &Ident) -> bool {
        ident.span.start == self.at
    }

    /// `a`, `a.b` (a column of a relation, or a field of a column), `a.b.c`.
    fn column(&self, parts: &mut [&mut Ident]) -> bool {
        if let [relation, name, ..] = parts {
            let qualified = |c: &Column| Some((c.relation.as_ref()?.table().to_string(), c.name.clone()));
            let alike: BTreeSet<_> = self
                .valid
                .iter()
                .filter_map(qualified)
                .filter(|(r, n)| r.eq_ignore_ascii_case(&relation.value) && n.eq_ignore_ascii_case(&name.value))
                .collect();
            let exact = alike.iter().filter(|(_, n)| *n == name.value).cloned().collect::<Vec<_>>();
            let chosen = if alike.len() == 1 { alike.into_iter().next() } else { exact.into_iter().next() };
            if let Some((r, n)) = chosen {
                let (one, two) = (set(relation, &r), set(name, &n));
                return one || two;
            }
        }
        let names = self.valid.iter().map(|c| c.name.as_str());
        matches!(unique(&parts[0].value, names), Ok(Some(name)) if set(parts[0], name))
    }
}

fn set(ident: &mut Ident, name: &str) -> bool {
    let differs = ident.value != name;
    ident.value = name.to_string();
    differs
}

impl VisitorMut for Respelling<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let mut parts: Vec<&mut Ident> = match expr {
            Expr::Identifier(ident) => vec![ident],
            Expr::CompoundIdentifier(idents) => idents.iter_mut().collect(),
            _ => return ControlFlow::Continue(()),
        };
        if self.is_here(parts[0]) {
            self.done |= self.column(&mut parts);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        if let [ObjectNamePart::Identifier(ident)] = &mut relation.0[..]
            && self.is_here(ident)
            && let Ok(Some(name)) = unique(&ident.value, self.relations.iter().map(String::as_str))
        {
            self.done |= set(ident, name);
        }
        ControlFlow::Continue(())
    }
}
