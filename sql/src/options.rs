//! Options of tables: canonical names, checked values, the nearest name for a typo.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::connector::{Connector, OptionKind, OptionSpec, Options, Purpose, parse_bytes, parse_duration};

use crate::ddl::CreateTable;
use crate::diagnostic::{Diagnostic, Place, nearest};
use crate::substitute::substitute;

/// A table's options by canonical name, and where each stands.
pub struct TableOptions {
    pub connector: Arc<dyn Connector>,
    pub values: Options,
    pub places: BTreeMap<String, Place>,
}

/// Options that belong to every table, whatever its connector.
pub fn table_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::new("connector", OptionKind::Text, "which connector reads or writes the table"),
        OptionSpec::new("type", OptionKind::OneOf(&[&["source"], &["sink"], &["lookup"]]), "Arroyo's; not needed here"),
        OptionSpec::new("event_time_field", OptionKind::Text, "Arroyo's WATERMARK FOR"),
        OptionSpec::new(
            "watermark.max-ahead",
            OptionKind::Duration,
            "how far an event time may lie ahead of the log's",
        ),
        OptionSpec::new("deduplicate.key", OptionKind::Text, "columns whose values tell an event"),
        OptionSpec::new("deduplicate.within", OptionKind::Duration, "how far apart copies may be"),
        OptionSpec::new("deduplicate.scope", OptionKind::OneOf(&[&["global"], &["partition"]]), "where copies can be"),
        OptionSpec::new("deduplicate.time", OptionKind::OneOf(&[&["broker"], &["event"]]), "the clock of the window"),
        OptionSpec::new(
            "deduplicate.late",
            OptionKind::OneOf(&[&["keep"], &["dead-letter"], &["drop"]]),
            "rows that are older than the window",
        ),
        OptionSpec::new("deduplicate.memory", OptionKind::Bytes, "memory for keys; older ones beyond it go to disk"),
        OptionSpec::new("dead-letter", OptionKind::Boolean, "this table takes the records that cannot be processed"),
        OptionSpec::new(
            "commit_interval",
            OptionKind::Duration,
            "entries within it are shown together, sooner if the target takes no more at once; none wait unless said, but 10 s into a columnstore",
        )
        .purpose(Purpose::Writing),
        OptionSpec::new(
            "give_up_after",
            OptionKind::Duration,
            "the job ends if the sink takes nothing for so long, or the lookup table does not answer; unless said, it is waited for",
        )
        .purpose(Purpose::WritingAndLookups),
        OptionSpec::new("lookup", OptionKind::Boolean, "rows of streams are looked up in this table: JOIN it"),
        OptionSpec::new(
            "lookup.cache",
            OptionKind::OneOf(&[&["by-key", "partial", "PARTIAL"], &["whole", "full", "FULL"], &["none", "NONE"]]),
            "by-key: what was asked for is kept (unless said, where the connector can be asked by key); whole: all of the table \
             is; none: each batch asks anew",
        ),
        OptionSpec::new("lookup.cache.ttl", OptionKind::Duration, "by key: how long an answer holds (1 minute)")
            .aliases(&["lookup.partial-cache.expire-after-write"]),
        OptionSpec::new(
            "lookup.cache.missing_ttl",
            OptionKind::Duration,
            "by key: how long it holds that there is no such row (10 seconds, or lookup.cache.ttl if that is shorter)",
        ),
        OptionSpec::new(
            "lookup.cache.bytes",
            OptionKind::Bytes,
            "by key: memory of the answers (64 MiB); whole: of the table, at most (1 GiB)",
        )
        .aliases(&["lookup.cache.max_bytes"]),
        OptionSpec::new("lookup.keys", OptionKind::Integer, "by key: keys of one request, at most (500)"),
        OptionSpec::new("lookup.requests", OptionKind::Integer, "by key: requests at once, at most (4)"),
        OptionSpec::new(
            "lookup.refresh",
            OptionKind::Duration,
            "whole: how often it is asked whether the table has changed (1 minute)",
        )
        .aliases(&["lookup.full-cache.periodic-reload.interval"]),
        OptionSpec::new(
            "lookup.timeout",
            OptionKind::Duration,
            "how long a request may take before it is made again (30 seconds; to load the whole table, 10 minutes)",
        ),
    ]
}

/// All options that a table of this connector may have.
pub fn options_of(connector: &dyn Connector) -> Vec<OptionSpec> {
    table_options().into_iter().chain(connector.options()).collect()
}

/// Checks all options of a table.
pub fn check(
    table: &CreateTable,
    connectors: &[Arc<dyn Connector>],
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<TableOptions, Vec<Diagnostic>> {
    let connector = find_connector(table, connectors).map_err(|d| vec![d])?;
    let specs = options_of(&*connector);
    let (mut values, mut places, mut problems) = (BTreeMap::new(), BTreeMap::new(), vec![]);
    let mut given = BTreeSet::new();
    for (written, text, place) in &table.options {
        let checked = find(&specs, written, place).and_then(|(name, spec)| {
            given.insert(spec.name);
            let text = substitute(text, variables).map_err(|what| Diagnostic::at(place, what))?;
            Ok((name, check_value(spec, &text).map_err(|what| Diagnostic::at(place, format!("{written}: {what}")))?))
        });
        match checked {
            Ok((name, _)) if values.contains_key(&name) => {
                problems.push(Diagnostic::at(place, format!("{written}: the option {name} is given twice")));
            }
            Ok((name, value)) => {
                places.insert(name.clone(), place.clone());
                values.insert(name, value);
            }
            Err(problem) => problems.push(problem),
        }
    }
    for spec in specs.iter().filter(|s| s.required && !given.contains(s.name)) {
        let message = format!("table {}: the option {} is missing ({})", table.name, spec.name, spec.help);
        problems.push(Diagnostic::at(&table.place, message));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(TableOptions { connector, values: Options(values), places })
}

fn find_connector(table: &CreateTable, connectors: &[Arc<dyn Connector>]) -> Result<Arc<dyn Connector>, Diagnostic> {
    let named = table.options.iter().find(|(name, ..)| name == "connector");
    let names: Vec<&str> = connectors.iter().map(|c| c.name()).collect();
    let known = format!("there are {}", names.join(", "));
    let Some((_, name, place)) = named else {
        let message = format!("table {}: the option connector is missing", table.name);
        return Err(Diagnostic::at(&table.place, message).hint(known));
    };
    connectors.iter().find(|c| c.name() == name).cloned().ok_or_else(|| {
        let hint = nearest(name, names.iter().copied()).map_or(known, |n| format!("did you mean '{n}'?"));
        Diagnostic::at(place, format!("there is no connector '{name}'")).hint(hint)
    })
}

fn find<'a>(specs: &'a [OptionSpec], written: &str, place: &Place) -> Result<(String, &'a OptionSpec), Diagnostic> {
    let exact = specs.iter().find(|s| s.name == written || s.aliases.contains(&written));
    if let Some(spec) = exact {
        return Ok((spec.name.to_string(), spec));
    }
    let prefixed = specs.iter().find(|s| s.name.strip_suffix('*').is_some_and(|p| written.starts_with(p)));
    if let Some(spec) = prefixed {
        return Ok((written.to_string(), spec));
    }
    let diagnostic = Diagnostic::at(place, format!("there is no option {written}"));
    let names = specs.iter().flat_map(|s| s.aliases.iter().copied().chain([s.name]));
    Err(match nearest(written, names) {
        Some(name) => diagnostic.hint(format!("did you mean {name}?")),
        None => diagnostic,
    })
}

fn check_value(spec: &OptionSpec, text: &str) -> Result<String, String> {
    let ok = |good: bool, expected: &str| {
        if good { Ok(text.to_string()) } else { Err(format!("expected {expected}, found '{text}'")) }
    };
    match spec.kind {
        OptionKind::Text | OptionKind::Secret => Ok(text.to_string()),
        OptionKind::Integer => ok(text.parse::<i64>().is_ok(), "a whole number"),
        OptionKind::Boolean => ok(text == "true" || text == "false", "true or false"),
        OptionKind::Duration => ok(parse_duration(text).is_some(), "a duration like '10 minutes'"),
        OptionKind::Bytes => ok(parse_bytes(text).is_some(), "a size like '64 MiB'"),
        OptionKind::OneOf(words) => {
            let found = words.iter().find(|spellings| spellings.contains(&text));
            found.map(|spellings| spellings[0].to_string()).ok_or_else(|| {
                let words: Vec<_> = words.iter().map(|w| format!("'{}'", w[0])).collect();
                format!("expected {}, found '{text}'", words.join(", "))
            })
        }
    }
}
