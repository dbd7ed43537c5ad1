//! Options that say nothing of what the job uses their table for.

use std::collections::BTreeSet;

use engine::connector::{OptionSpec, Use};

use crate::diagnostic::Diagnostic;
use crate::options::options_of;
use crate::table::Table;

/// What of a declaration is for another use than these.
pub fn misplaced(table: &Table, uses: &BTreeSet<Use>) -> Vec<Diagnostic> {
    let of_table = &table.options;
    let specs = options_of(&*of_table.connector);
    let spec = |name: &str| specs.iter().find(|spec| is_named(spec, name));
    let told = |what: &str, purpose: &str| {
        let used: Vec<&str> = uses.iter().map(|used| words(*used)).collect();
        format!("table {}: {what} is {purpose}, and the table is only {}", table.spec.name, used.join(" and "))
    };
    let serves = |spec: &OptionSpec| uses.iter().any(|used| spec.purpose.serves(*used));
    let options = of_table.places.iter().filter_map(|(name, place)| Some((name, spec(name)?, place)));
    let misplaced = options.filter(|(_, spec, _)| !serves(spec)).filter_map(|(name, spec, place)| {
        let message = told(name, spec.purpose.words()?);
        Some(Diagnostic::at(place, message).hint(format!("{name}: {}", spec.help)))
    });
    let mut misplaced: Vec<Diagnostic> = misplaced.collect();
    if uses.iter().eq([&Use::LookedUp]) && !table.spec.partition_by.is_empty() {
        misplaced.push(Diagnostic::at(&table.statement.place, told("PARTITIONED BY", "for writing")));
    }
    misplaced
}

fn is_named(spec: &OptionSpec, name: &str) -> bool {
    spec.name.strip_suffix('*').map_or(spec.name == name, |prefix| name.starts_with(prefix))
}

fn words(used: Use) -> &'static str {
    match used {
        Use::Read => "read",
        Use::LookedUp => "used for lookups",
        Use::Written => "written",
    }
}
