//! DataFusion's planning errors, in the words of this dialect and with their place.

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::ast::Query;

use crate::culprit::culprit;
use crate::diagnostic::{Diagnostic, Place};
use crate::names::{missing_table, unique};
use crate::query::{Catalog, leaves, place_of, root};

/// Everything that an error says. `place`: of the statement, where the error knows no better one.
pub fn explain(error: &DataFusionError, place: &Place, relations: &[String]) -> Vec<Diagnostic> {
    leaves(error).into_iter().map(|leaf| one(leaf, place, relations)).collect()
}

/// Everything that an error says about a query: where it knows no place, that of the expression it is about.
pub fn explain_query(
    error: &DataFusionError,
    query: &Query,
    place: &Place,
    catalog: &Catalog,
    relations: &[String],
) -> Vec<Diagnostic> {
    let place_in = |leaf| match place_of(leaf) {
        Some(_) => None,
        None => culprit(leaf, query, catalog, relations),
    };
    let explained = leaves(error).into_iter().map(|leaf| match place_in(leaf) {
        Some((line, column)) => one(leaf, &Place { line, column, ..place.clone() }, relations),
        None => one(leaf, place, relations),
    });
    explained.collect()
}

fn one(error: &DataFusionError, place: &Place, relations: &[String]) -> Diagnostic {
    let place = match place_of(error) {
        Some((line, column)) => Place { line, column, ..place.clone() },
        None => place.clone(),
    };
    if let Some(name) = missing_table(error) {
        let names = relations.iter().map(String::as_str);
        return match unique(&name, names.clone()) {
            Err(several) => ambiguous(&place, &name, &several),
            _ => Diagnostic::at(&place, format!("there is no table or view {name}")).did_you_mean(&name, names),
        };
    }
    if let DataFusionError::SchemaError(error, _) = root(error) {
        match &**error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let mut names: Vec<&str> = valid_fields.iter().map(|c| c.name.as_str()).collect();
                names.retain(|n| !n.starts_with("__"));
                return no_column(&place, &field.name, &names);
            }
            SchemaError::AmbiguousReference { field } => {
                return Diagnostic::at(&place, format!("{} is in several tables: write table.{0}", field.name));
            }
            _ => {}
        }
    }
    let text = root(error).strip_backtrace();
    let prefixes = ["Error during planning: ", "Schema error: ", "SQL error: ", "This feature is not implemented: "];
    let text = prefixes.iter().fold(text, |text, prefix| text.replace(prefix, ""));
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_string();
    if let Some(name) = first.strip_prefix("Invalid function '").and_then(|t| t.split('\'').next()) {
        let near = lines.next().and_then(|l| l.strip_prefix("Did you mean '")).and_then(|l| l.split('\'').next());
        let diagnostic = Diagnostic::at(&place, format!("there is no function {name}"));
        return match near {
            Some(near) => diagnostic.hint(format!("did you mean {near}?")),
            None => diagnostic,
        };
    }
    if first.starts_with("Projections require unique expression names") {
        let name =
            first.split("expression \"").nth(1).and_then(|t| t.split("\" at position").next()).unwrap_or_default();
        let hint = "give one of them another name with AS";
        return Diagnostic::at(&place, format!("two columns of the query have the name {name}")).hint(hint);
    }
    if let Some(name) = first.strip_prefix("Field ").and_then(|t| t.strip_suffix(" not found in struct")) {
        return Diagnostic::at(&place, format!("the struct has no field {name}")).hint("fields are named exactly");
    }
    // "Function 'f' expects … No function matches …": the second sentence says what was given.
    match first.find("No function matches the given name and argument types ") {
        Some(at) => Diagnostic::at(&place, first[at..].trim().to_string()),
        None => Diagnostic::at(&place, first),
    }
}

/// A column that is not there, with the nearest one, or all if there are few.
pub fn no_column(place: &Place, name: &str, names: &[&str]) -> Diagnostic {
    const SHOWN: usize = 12;
    if let Err(several) = unique(name, names.iter().copied()) {
        return ambiguous(place, name, &several);
    }
    let diagnostic =
        Diagnostic::at(place, format!("there is no column {name}")).did_you_mean(name, names.iter().copied());
    if diagnostic.hint.is_some() || names.is_empty() {
        return diagnostic;
    }
    let more = if names.len() > SHOWN { ", …" } else { "" };
    diagnostic.hint(format!("there are {}{more}", names[..names.len().min(SHOWN)].join(", ")))
}

fn ambiguous(place: &Place, name: &str, several: &[&str]) -> Diagnostic {
    Diagnostic::at(place, format!("{name} could be {}: write one of them exactly", several.join(" or ")))
}
