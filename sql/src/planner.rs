//! From a job's statements to the plan that the engine runs.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{Column as DfColumn, DFSchema, TableReference};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::Query;
use engine::computed::ComputedSource;
use engine::connector::{ColumnSpec, Connector, Origin, Problem, TableSpec, Use};
use engine::plan::*;
use engine::sink::Sink;
use engine::source::{Source, SourceColumn};

use crate::ddl::{self, ColumnKind, CreateTable, CreateView, Statement};
use crate::diagnostic::{Diagnostic, Place, SourceFile};
use crate::errors::{explain, explain_query, no_column};
use crate::generated;
use crate::insert;
use crate::lookup_join::{self, LookupSource, is_lookup};
use crate::names;
use crate::options;
use crate::purposes::misplaced;
use crate::query::{Catalog, executable, uses_now};
use crate::row_number;
use crate::settings::Settings;
use crate::system_time::{self, AsOf};
use crate::table::{Table, is_instant, log_time, needed_at_source};
use crate::unsupported::{row_number_place, unsupported};
use crate::walk::{Flow, Walk, add_transform};

/// What compiling may use.
pub struct Environment<'a> {
    pub connectors: &'a [Arc<dyn Connector>],
    pub variables: &'a dyn Fn(&str) -> Option<String>,
    /// Where bad records go if the job declares no dead-letter table.
    pub default_dead_letter: Arc<dyn Sink>,
    /// Sends every INSERT to this sink instead of its table's, and bad records to the default dead letter: for a look
    /// at the rows that writes nothing.
    pub instead_of_sinks: Option<Arc<dyn Sink>>,
}

/// A checked job.
pub struct Job {
    pub settings: Settings,
    pub plan: Plan,
    pub warnings: Vec<Diagnostic>,
}

/// Checks the files in order as one job. Reads nothing but what `${file:…}` names.
pub fn compile(files: &[SourceFile], environment: &Environment<'_>) -> Result<Job, Vec<Diagnostic>> {
    let (mut statements, mut clauses, mut problems) = (vec![], vec![], vec![]);
    for file in files {
        match ddl::parse(&Arc::new(file.clone())) {
            Ok((parsed, as_of)) => {
                statements.extend(parsed);
                clauses.extend(as_of);
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut compiler = Compiler {
        environment,
        settings: Settings::default(),
        catalog: Catalog::new().map_err(|e| vec![Diagnostic::general(e.strip_backtrace())])?,
        tables: BTreeMap::new(),
        relations: vec![],
        broken: BTreeSet::new(),
        lookups: BTreeSet::new(),
        now: BTreeSet::new(),
        row_number: None,
        problems: vec![],
        warnings: vec![],
    };
    let inserts = compiler.declare(statements);
    compiler.check_times(&clauses);
    compiler.plan(inserts)
}

/// An INSERT whose query is planned.
struct Insert {
    table: String,
    plan: LogicalPlan,
    query: Box<Query>,
    place: Place,
    /// Where the columns of the query stand.
    columns: Vec<Place>,
    row_number: Option<Place>,
}

struct Compiler<'a> {
    environment: &'a Environment<'a>,
    settings: Settings,
    catalog: Catalog,
    tables: BTreeMap<String, Table>,
    /// Tables and views that queries may read.
    relations: Vec<String>,
    /// Tables and views that were declared wrongly: what fails because of them is not told again.
    broken: BTreeSet<String>,
    /// Lookup tables, and views that read nothing else.
    lookups: BTreeSet<String>,
    /// Columns that are the time at which a row passes.
    now: BTreeSet<String>,
    /// The first ROW_NUMBER() of the job.
    row_number: Option<Place>,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

type Checked<T> = Result<T, Vec<Diagnostic>>;

impl Compiler<'_> {
    // Declarations. Their order in the files does not matter, but for settings.

    fn declare(&mut self, statements: Vec<Statement>) -> Vec<Insert> {
        let (mut views, mut inserts) = (vec![], vec![]);
        for statement in statements {
            match statement {
                Statement::Set { name, value, place } => {
                    if let Err(problem) = self.settings.set(&name, &value, &place) {
                        self.problems.push(problem);
                    }
                }
                Statement::CreateTable(table) => self.declare_table(table),
                Statement::CreateView(view) => views.push(view),
                Statement::Insert(insert) => inserts.push(insert),
            }
        }
        self.declare_views(views);
        inserts.into_iter().filter_map(|insert| self.declare_insert(insert)).collect()
    }

    fn check_times(&mut self, clauses: &[AsOf]) {
        let is_known = |clause: &&AsOf| !self.broken.iter().any(|b| b.eq_ignore_ascii_case(&clause.table));
        let wrong = clauses.iter().filter(is_known);
        // A name that is another time somewhere else is not known to be this one.
        let columns = self.tables.values().flat_map(|table| &table.statement.columns);
        let others = columns.filter(|column| !system_time::is_now_column(column));
        let others: BTreeSet<String> = others.map(|column| column.field.name().clone()).collect();
        let now: BTreeSet<String> = self.now.difference(&others).cloned().collect();
        let wrong: Vec<_> = wrong.filter_map(|c| system_time::check(c, &self.lookups, &now)).collect();
        self.problems.extend(wrong);
    }

    fn is_declared(&mut self, name: &str, place: &Place) -> bool {
        let known = self.relations.iter().any(|r| r == name) || self.broken.contains(name);
        if known {
            self.problems.push(Diagnostic::at(place, format!("{name} is declared twice")));
        }
        known
    }

    fn declare_table(&mut self, statement: CreateTable) {
        if self.is_declared(&statement.name, &statement.place) {
            return;
        }
        let name = statement.name.clone();
        self.now.extend(system_time::columns_that_are_now(&statement));
        if lookup_join::says_lookup(&statement) {
            // Also if it is declared wrongly, so that its joins are not told as wrong, too.
            self.lookups.insert(name.clone());
        }
        match self.check_table(statement) {
            Ok(table) => {
                if is_lookup(&table.options) {
                    self.lookups.insert(name.clone());
                }
                self.relations.push(name.clone());
                self.tables.insert(name, table);
            }
            Err(problems) => {
                self.problems.extend(problems);
                self.broken.insert(name);
            }
        }
    }

    fn check_table(&self, statement: CreateTable) -> Checked<Table> {
        let mut problems = doubled_columns(&statement);
        let options = match options::check(&statement, self.environment.connectors, self.environment.variables) {
            Ok(options) => options,
            Err(wrong) => {
                problems.extend(wrong);
                return Err(problems);
            }
        };
        problems.extend(lookup_join::problems(&options));
        if let Some((.., place)) = &statement.watermark
            && is_lookup(&options)
        {
            problems.push(Diagnostic::at(place, "a lookup table has no watermark: time passes in the stream alone"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let early = needed_at_source(&statement, &options);
        let computed = generated::declare(&statement, &early, &self.catalog);
        let columns = statement.columns.iter().filter_map(|column| match &column.kind {
            ColumnKind::Value => Some(ColumnSpec { field: column.field.clone(), origin: Origin::Value }),
            ColumnKind::Metadata(name) => {
                Some(ColumnSpec { field: column.field.clone(), origin: Origin::Metadata(name.clone()) })
            }
            ColumnKind::Generated { .. } => None,
        });
        let spec = TableSpec {
            name: statement.name.clone(),
            columns: columns.collect(),
            primary_key: own_columns(&statement, &statement.primary_key, &mut problems),
            partition_by: own_columns(&statement, &statement.partition_by, &mut problems),
            options: options.values.clone(),
        };
        match computed {
            Ok(computed) if problems.is_empty() => Ok(Table { statement, options, spec, computed }),
            Ok(_) => Err(problems),
            Err(wrong) => {
                problems.extend(wrong);
                Err(problems)
            }
        }
    }

    /// Views may be declared in any order, so they are planned by what they read.
    fn declare_views(&mut self, views: Vec<CreateView>) {
        let mut waiting: Vec<CreateView> = vec![];
        for view in views {
            let twice = waiting.iter().any(|w| w.name == view.name);
            if twice {
                self.problems.push(Diagnostic::at(&view.place, format!("{} is declared twice", view.name)));
            } else if !self.is_declared(&view.name, &view.place) {
                waiting.push(view);
            }
        }
        while !waiting.is_empty() {
            let names: Vec<String> = waiting.iter().map(|v| v.name.clone()).collect();
            let is_ready = |view: &CreateView| {
                let reads = names::relations_of(&*view.query);
                !reads.iter().any(|r| names.contains(r) && !self.relations.contains(r))
            };
            let (ready, blocked): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_ready);
            if ready.is_empty() {
                let names = names.join(", ");
                let message = format!("these views are defined by themselves or by each other: {names}");
                self.problems.push(Diagnostic::at(&blocked[0].place, message));
                self.broken.extend(blocked.into_iter().map(|v| v.name));
                return;
            }
            ready.into_iter().for_each(|view| self.declare_view(view));
            waiting = blocked;
        }
    }

    fn declare_view(&mut self, view: CreateView) {
        let planned = self.query(&view.query, &view.place).and_then(|plan| {
            let reference = TableReference::bare(view.name.as_str());
            let added = self.catalog.optimize(&plan).and_then(|_| self.catalog.add_view(reference, plan));
            added.map_err(|e| explain_query(&e, &view.query, &view.place, &self.catalog, &self.relations))
        });
        match planned {
            Ok(()) => {
                let reads = names::relations_of(&*view.query);
                if !reads.is_empty() && reads.iter().all(|table| names::is_among(table, &self.lookups)) {
                    self.lookups.insert(view.name.clone());
                }
                self.relations.push(view.name)
            }
            Err(problems) => {
                self.problems.extend(problems);
                self.broken.insert(view.name);
            }
        }
    }

    fn declare_insert(&mut self, insert: ddl::Insert) -> Option<Insert> {
        let place = insert.place;
        let names: Vec<&str> = self.tables.keys().chain(&self.broken).map(String::as_str).collect();
        let table = match names::unique(&insert.table, names.iter().copied()) {
            Ok(Some(table)) => table.to_string(),
            _ => {
                let message = match self.relations.contains(&insert.table) {
                    true => format!("{} is a view; rows go into tables", insert.table),
                    false => format!("there is no table {}", insert.table),
                };
                self.problems.push(Diagnostic::at(&place, message).did_you_mean(&insert.table, names));
                insert.table.clone()
            }
        };
        match self.query(&insert.query, &place) {
            Ok(plan) => {
                let row_number = row_number_place(&insert.query, &self.catalog, &place);
                let columns = insert::column_places(&insert.query, &place);
                Some(Insert { table, plan, query: insert.query, columns, row_number, place })
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    /// Checks and plans a query. What is wrong only because a table or view is, is not told.
    fn query(&mut self, query: &Query, place: &Place) -> Checked<LogicalPlan> {
        let refused = unsupported(query, &self.catalog, &self.lookups, place);
        if !refused.is_empty() {
            return Err(refused);
        }
        if self.row_number.is_none() {
            self.row_number = row_number_place(query, &self.catalog, place);
        }
        names::plan(&self.catalog, query, &self.relations).map_err(|error| {
            let is_known = |name: String| self.broken.iter().any(|b| b.eq_ignore_ascii_case(&name));
            if crate::query::leaves(&error).iter().any(|e| names::missing_table(e).is_some_and(is_known)) {
                return vec![];
            }
            explain_query(&error, query, place, &self.catalog, &self.relations)
        })
    }

    // Planning

    fn plan(mut self, inserts: Vec<Insert>) -> Checked<Job> {
        if inserts.is_empty() && self.problems.is_empty() {
            let message = "the job has no INSERT INTO … SELECT, so it would do nothing";
            self.problems.push(Diagnostic::general(message));
        }
        let mut optimized = vec![];
        for insert in inserts {
            match self.catalog.optimize(&insert.plan) {
                Ok(plan) => optimized.push(Insert { plan, ..insert }),
                Err(error) => {
                    let (query, place) = (&insert.query, &insert.place);
                    self.problems.extend(explain_query(&error, query, place, &self.catalog, &self.relations))
                }
            }
        }
        let now = optimized.iter().any(|i| uses_now(&i.plan).unwrap_or(false));
        let mut timed = BTreeSet::new();
        optimized.iter().for_each(|i| row_number::needs_log_time(&i.plan, &mut timed));
        let mut plan = Plan {
            name: String::new(),
            sources: vec![],
            lookups: vec![],
            operators: vec![],
            sinks: vec![],
            dead_letter: 0,
        };
        let (mut starts, mut lookups) = (BTreeMap::new(), BTreeMap::new());
        for (table, used) in used_columns(&optimized) {
            if is_lookup(&self.tables[&table].options) {
                match self.lookup_source(&table, &used) {
                    Ok(source) => {
                        lookups.insert(table, source);
                    }
                    Err(problems) => self.problems.extend(problems),
                }
                continue;
            }
            match self.add_source(&mut plan, &table, &used, now, timed.contains(&table)) {
                Ok(flow) => {
                    starts.insert(table, flow);
                }
                Err(problems) => self.problems.extend(problems),
            }
        }
        for insert in &optimized {
            if let Err(problems) = self.add_insert(&mut plan, insert, &starts, &lookups) {
                self.problems.extend(problems);
            }
        }
        self.add_dead_letter(&mut plan);
        self.check_purposes(&optimized);
        self.check_unused(&plan);
        if self.problems.is_empty() {
            Ok(Job { settings: self.settings, plan, warnings: self.warnings })
        } else {
            Err(self.problems)
        }
    }

    fn add_source(
        &self,
        plan: &mut Plan,
        name: &str,
        used: &BTreeSet<String>,
        now: bool,
        timed: bool,
    ) -> Checked<Flow> {
        let table = &self.tables[name];
        let one = |d| vec![d];
        let source = table.options.connector.source(&table.spec).map_err(|p| table.problems(p))?;
        let keys = table.dedup_keys().map_err(one)?;
        let watermark = table.watermark().map_err(one)?;
        let is_needed = |field: &FieldRef| {
            let name = field.name();
            used.contains(name) || keys.contains(name) || watermark.as_ref().is_some_and(|w| w.column == *name)
        };
        let specs = table.spec.columns.iter().filter(|c| is_needed(&c.field));
        let column = |c: &ColumnSpec| SourceColumn { field: c.field.clone(), origin: c.origin.clone() };
        let mut columns: Vec<SourceColumn> = specs.map(column).collect();
        let is_log_time = |c: &SourceColumn| c.origin == log_time() && is_instant(&c.field);
        let by_log_time = table.deduplicates() && !table.by_event_time();
        if timed || (by_log_time && !columns.iter().any(is_log_time)) {
            let field = Arc::new(Field::new(LOG_TIME_COLUMN, instant(), true));
            columns.push(SourceColumn { field, origin: log_time() });
        }
        let (source, columns) = compute(table, source, columns, &is_needed)?;
        let index = |name: &str| columns.iter().position(|c| c.field.name() == name);
        let max_ahead = table.options.values.duration("watermark.max-ahead").unwrap_or(Duration::from_secs(3600));
        let spec = watermark
            .as_ref()
            .and_then(|w| Some(WatermarkSpec { column: index(&w.column)?, delay: w.delay, max_ahead }));
        let deduplicate = if !table.deduplicates() {
            None
        } else {
            let (time, clock) = match table.by_event_time() {
                true => (spec.map(|s| s.column), DedupClock::Event),
                false => (columns.iter().position(is_log_time), DedupClock::Log),
            };
            let time = time.ok_or_else(|| {
                let message = format!("table {name}: 'deduplicate.time' = 'event' needs a WATERMARK FOR a column");
                vec![Diagnostic::at(&table.options.places["deduplicate.key"], message)]
            })?;
            let within = table.options.values.duration("deduplicate.within").unwrap_or_default();
            Some(table.deduplication(keys.iter().filter_map(|k| index(k)).collect(), time, clock, within))
        };
        let node = SourceNode { table: name.to_string(), source, columns, now, watermark: spec };
        let schema = node.schema();
        let mut from = From::Source(plan.sources.len());
        plan.sources.push(node);
        if let Some(deduplicate) = deduplicate {
            from = add_deduplicate(plan, name, from, deduplicate, &schema);
        }
        let schema = DFSchema::try_from_qualified_schema(TableReference::bare(name), &schema);
        let schema = schema.map_err(|e| vec![Diagnostic::general(e.strip_backtrace())])?;
        Ok(Flow { from, steps: vec![], schema })
    }

    fn lookup_source(&self, name: &str, used: &BTreeSet<String>) -> Checked<LookupSource> {
        let table = &self.tables[name];
        let lookup = table.options.connector.lookup(&table.spec).map_err(|p| table.problems(p))?;
        let columns = table.spec.columns.iter().filter(|column| used.contains(column.field.name()));
        let columns = columns.map(|c| SourceColumn { field: c.field.clone(), origin: c.origin.clone() }).collect();
        lookup_join::start(name, lookup, columns).map_err(|e| vec![Diagnostic::general(e.strip_backtrace())])
    }

    fn add_insert(
        &mut self,
        plan: &mut Plan,
        insert: &Insert,
        starts: &BTreeMap<String, Flow>,
        lookups: &BTreeMap<String, LookupSource>,
    ) -> Checked<()> {
        // A table that is not there, or wrong, was told of where it stands.
        let Some(table) = self.tables.get(&insert.table) else { return Ok(()) };
        if table.options.values.flag("dead-letter") {
            let message = format!("{} is the job's dead letter: the engine alone writes to it", insert.table);
            return Err(vec![Diagnostic::at(&insert.place, message)]);
        }
        if is_lookup(&table.options) {
            let message = format!("{} is a lookup table: rows are looked up in it and not written", insert.table);
            return Err(vec![Diagnostic::at(&insert.place, message).hint("declare it a second time, to write to it")]);
        }
        let given: Vec<FieldRef> = insert.plan.schema().fields().iter().cloned().collect();
        let earlier = plan.sinks.iter().position(|s| s.table == insert.table);
        let wanted: Vec<FieldRef> = match earlier {
            Some(sink) => plan.sinks[sink].schema.fields().iter().cloned().collect(),
            None => table.spec.columns.iter().map(|c| c.field.clone()).collect(),
        };
        let mut warnings = vec![];
        let mut walk = Walk {
            plan,
            starts,
            lookups,
            helping: Cell::default(),
            inside_lookup: false,
            tables: &self.tables,
            settings: &self.settings,
            warnings: &mut warnings,
            query: &insert.query,
            sink: &insert.table,
            place: &insert.place,
            row_number: insert.row_number.as_ref().or(self.row_number.as_ref()),
            first_only: false,
        };
        let schema = insert::columns(&insert.table, &wanted, &given, &insert.place, &insert.columns)?;
        let is_there = |table: &String| starts.contains_key(table) || lookups.contains_key(table);
        if !used_columns(std::slice::from_ref(insert)).keys().all(is_there) {
            // Why a table cannot be read was told of where it stands.
            return Ok(());
        }
        let flow = walk.walk(&insert.plan).map_err(|d| vec![d])?;
        let expressions = insert.plan.schema().iter().zip(schema.fields()).map(|((qualifier, field), target)| {
            let column = Expr::Column(DfColumn::new(qualifier.cloned(), field.name()));
            let expr = match field.data_type() == target.data_type() {
                true => column,
                false => Expr::Cast(Cast::new(Box::new(column), target.data_type().clone())),
            };
            executable(&expr, &flow.schema).map_err(|e| walk.failed(e))
        });
        let expressions = expressions.collect::<Result<Vec<_>, _>>().map_err(|d| vec![d])?;
        let mut steps = flow.steps;
        steps.push(Step::Project { expressions, schema: schema.clone() });
        let from = add_transform(plan, flow.from, steps, schema.clone());
        self.warnings.extend(warnings);
        match earlier {
            Some(sink) => plan.sinks[sink].inputs.push(Edge::forward(from)),
            None => {
                let sink = self.sink(table, &schema)?;
                plan.sinks.push(SinkNode {
                    table: insert.table.clone(),
                    inputs: vec![Edge::forward(from)],
                    sink,
                    schema,
                    commit_interval: table.options.values.duration("commit_interval"),
                    give_up_after: table.options.values.duration("give_up_after"),
                });
            }
        }
        Ok(())
    }

    fn sink(&self, table: &Table, schema: &SchemaRef) -> Checked<Arc<dyn Sink>> {
        if let Some(sink) = &self.environment.instead_of_sinks {
            return Ok(sink.clone());
        }
        let declared = table.spec.columns.iter().map(|c| c.origin.clone());
        let origins = declared.chain(std::iter::repeat(Origin::Value));
        let columns = schema.fields().iter().zip(origins).map(|(f, origin)| ColumnSpec { field: f.clone(), origin });
        let spec = TableSpec { columns: columns.collect(), ..table.spec.clone() };
        let connector = &table.options.connector;
        let sink = connector.sink(&spec).map_err(|p| table.problems(p))?;
        let problems = unwritable_metadata(&spec, &**connector);
        if problems.is_empty() { Ok(sink) } else { Err(table.problems(problems)) }
    }

    fn add_dead_letter(&mut self, plan: &mut Plan) {
        let schema = dead_letter_schema();
        let declared: Vec<&Table> = self.tables.values().filter(|t| t.options.values.flag("dead-letter")).collect();
        let (name, sink) = match declared[..] {
            [] => ("dead-letter".to_string(), Ok(self.environment.default_dead_letter.clone())),
            [table] if !table.spec.columns.is_empty() && !same_columns(table, &schema) => {
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                let message = format!("the columns of a dead letter are given: {}", names.join(", "));
                (String::new(), Err(vec![Diagnostic::at(&table.statement.place, message).hint("leave them out")]))
            }
            [table] if self.environment.instead_of_sinks.is_some() => {
                (table.spec.name.clone(), Ok(self.environment.default_dead_letter.clone()))
            }
            [table] => (table.spec.name.clone(), self.sink(table, &schema)),
            [first, second, ..] => {
                let message = format!("{} and {} are both the job's dead letter", first.spec.name, second.spec.name);
                (String::new(), Err(vec![Diagnostic::at(&second.options.places["dead-letter"], message)]))
            }
        };
        let said = |option| declared.first().and_then(|table| table.options.values.duration(option));
        let (commit_interval, give_up_after) = (said("commit_interval"), said("give_up_after"));
        match sink {
            Err(problems) => self.problems.extend(problems),
            Ok(sink) => {
                plan.dead_letter = plan.sinks.len();
                let inputs = vec![];
                plan.sinks.push(SinkNode { table: name, inputs, sink, schema, commit_interval, give_up_after });
            }
        }
    }

    fn check_purposes(&mut self, inserts: &[Insert]) {
        let mut uses: BTreeMap<String, BTreeSet<Use>> = BTreeMap::new();
        let mut met = |table: &str, used| uses.entry(table.to_string()).or_default().insert(used);
        for table in used_columns(inserts).keys() {
            let looked_up = self.tables.get(table).is_some_and(|table| is_lookup(&table.options));
            met(table, if looked_up { Use::LookedUp } else { Use::Read });
        }
        inserts.iter().for_each(|insert| _ = met(&insert.table, Use::Written));
        let dead_letters = self.tables.values().filter(|table| table.options.values.flag("dead-letter"));
        dead_letters.for_each(|table| _ = met(&table.spec.name, Use::Written));
        let used = uses.iter().filter_map(|(name, uses)| Some((self.tables.get(name)?, uses)));
        self.problems.extend(used.flat_map(|(table, uses)| misplaced(table, uses)));
    }

    fn check_unused(&mut self, plan: &Plan) {
        let read = plan.sources.iter().map(|s| s.table.as_str());
        let read = read.chain(plan.lookups.iter().map(|l| l.table.as_str()));
        let used: BTreeSet<&str> = read.chain(plan.sinks.iter().map(|s| s.table.as_str())).collect();
        let unused = self.tables.values().filter(|t| !used.contains(t.spec.name.as_str()));
        let warning = |t: &Table| {
            let message = format!("table {} is declared and never used", t.spec.name);
            Diagnostic::warning(&t.statement.place, message)
        };
        self.warnings.extend(unused.map(warning));
        for table in self.tables.values() {
            let stray = table.options.places.iter().find(|(name, _)| name.starts_with("deduplicate."));
            if let Some((name, place)) = stray
                && !table.deduplicates()
                && self.row_number.is_none()
            {
                self.problems.push(Diagnostic::at(place, format!("{name} says nothing without deduplicate.key")));
            }
        }
    }
}

/// Columns that would be metadata of what is written, where the system keeps none of that name.
fn unwritable_metadata(table: &TableSpec, connector: &dyn Connector) -> Vec<Problem> {
    let known = connector.written_metadata();
    let is_known = |name: &str| {
        known.iter().any(|k| *k == name || k.strip_suffix("<name>").is_some_and(|prefix| name.starts_with(prefix)))
    };
    let unknown = table.columns.iter().filter_map(|column| match &column.origin {
        Origin::Metadata(name) if !is_known(name) => {
            let there = match known {
                [] => "it keeps only values".to_string(),
                _ => format!("there are {}", known.join(", ")),
            };
            let message = format!("'{}' cannot be given the metadata {name:?} of a row: {there}", connector.name());
            Some(Problem::column(column.field.name(), message))
        }
        _ => None,
    });
    unknown.collect()
}

fn doubled_columns(statement: &CreateTable) -> Vec<Diagnostic> {
    let columns = &statement.columns;
    let doubled =
        columns.iter().enumerate().filter(|(at, c)| columns[..*at].iter().any(|o| o.field.name() == c.field.name()));
    doubled.map(|(_, c)| Diagnostic::at(&c.place, format!("the column {} is declared twice", c.field.name()))).collect()
}

/// The table's own spelling of these columns. A table that declares none takes them from its query.
fn own_columns(statement: &CreateTable, written: &[String], problems: &mut Vec<Diagnostic>) -> Vec<String> {
    let names: Vec<&str> = statement.columns.iter().map(|c| c.field.name().as_str()).collect();
    if names.is_empty() {
        return written.to_vec();
    }
    let mut own = vec![];
    for name in written {
        match names::unique(name, names.iter().copied()) {
            Ok(Some(name)) => own.push(name.to_string()),
            _ => problems.push(no_column(&statement.place, name, &names)),
        }
    }
    own
}

fn same_columns(table: &Table, schema: &Schema) -> bool {
    let declared = table.spec.columns.iter().map(|c| (c.field.name(), c.field.data_type()));
    declared.eq(schema.fields().iter().map(|f| (f.name(), f.data_type())))
}

/// Puts the computation of the table's early generated columns between the source and the job, if any is needed.
fn compute(
    table: &Table,
    source: Arc<dyn Source>,
    columns: Vec<SourceColumn>,
    is_needed: &dyn Fn(&FieldRef) -> bool,
) -> Checked<(Arc<dyn Source>, Vec<SourceColumn>)> {
    let computed: Vec<_> = table.computed.iter().filter(|c| is_needed(&c.field)).collect();
    if computed.is_empty() {
        return Ok((source, columns));
    }
    let mut read = columns.clone();
    let inputs: BTreeSet<&DfColumn> = computed.iter().flat_map(|c| c.expression.column_refs()).collect();
    for input in inputs {
        let spec = table.spec.columns.iter().find(|c| *c.field.name() == input.name);
        if let Some(spec) = spec.filter(|s| !read.iter().any(|c| c.field.name() == s.field.name())) {
            read.push(SourceColumn { field: spec.field.clone(), origin: spec.origin.clone() });
        }
    }
    let arrow = Schema::new(read.iter().map(|c| c.field.clone()).collect::<Vec<_>>());
    let failed = |e: datafusion::common::DataFusionError| explain(&e, &table.statement.place, &[]);
    let schema = DFSchema::try_from(arrow.clone()).map_err(failed)?;
    let (mut out, mut expressions) = (vec![], vec![]);
    for column in columns {
        let reference = Expr::Column(DfColumn::new_unqualified(column.field.name()));
        expressions.push(executable(&reference, &schema).map_err(failed)?);
        out.push(column);
    }
    for column in computed {
        let expression = executable(&column.expression, &schema).map_err(failed)?;
        let nullable = column.field.is_nullable() || expression.nullable(&arrow).map_err(failed)?;
        let field = Arc::new(column.field.as_ref().clone().with_nullable(nullable));
        out.push(SourceColumn { field, origin: Origin::Value });
        expressions.push(expression);
    }
    Ok((Arc::new(ComputedSource::new(source, read, expressions)), out))
}

fn used_columns(inserts: &[Insert]) -> BTreeMap<String, BTreeSet<String>> {
    fn visit(node: &LogicalPlan, used: &mut BTreeMap<String, BTreeSet<String>>) {
        if let LogicalPlan::TableScan(scan) = node {
            let columns = used.entry(scan.table_name.table().to_string()).or_default();
            columns.extend(scan.projected_schema.fields().iter().map(|f| f.name().clone()));
            columns.extend(scan.filters.iter().flat_map(|f| f.column_refs()).map(|c| c.name.clone()));
        }
        node.inputs().into_iter().for_each(|input| visit(input, used));
    }
    let mut used = BTreeMap::new();
    inserts.iter().for_each(|insert| visit(&insert.plan, &mut used));
    used
}

fn add_deduplicate(plan: &mut Plan, table: &str, from: From, spec: Deduplicate, schema: &SchemaRef) -> From {
    let keys: Vec<String> =
        spec.keys.iter().map(|k| format!("{} {}", schema.field(*k).name(), schema.field(*k).data_type())).collect();
    let exchange = (spec.scope == Scope::Global).then(|| spec.keys.clone());
    plan.operators.push(OperatorNode {
        id: format!("deduplicate {table} by {} {:?}", keys.join(", "), spec.scope).to_lowercase(),
        inputs: vec![Edge { from, exchange }],
        operator: Operator::Deduplicate(spec),
        schema: schema.clone(),
    });
    From::Operator(plan.operators.len() - 1)
}
