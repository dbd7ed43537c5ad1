//! From a job's statements to the plan that the engine runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{Column as DfColumn, DFSchema, DataFusionError, TableReference};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan};
use engine::connector::{ColumnSpec, Connector, Origin, Problem, TableSpec, is_json, parse_duration};
use engine::plan::*;
use engine::sink::Sink;
use engine::source::SourceColumn;

use crate::ddl::{self, ColumnKind, CreateTable, Statement};
use crate::diagnostic::{Diagnostic, Place, SourceFile, nearest};
use crate::options::{self, TableOptions};
use crate::query::{Catalog, executable, place_of, uses_now};
use crate::settings::Settings;

/// What compiling may use.
pub struct Environment<'a> {
    pub connectors: &'a [Arc<dyn Connector>],
    pub variables: &'a dyn Fn(&str) -> Option<String>,
    /// Where bad records go if the job declares no dead-letter table.
    pub default_dead_letter: Arc<dyn Sink>,
    /// Sends every INSERT to this sink instead of its table's: for a look at the rows.
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
    let mut statements = vec![];
    for file in files {
        statements.extend(ddl::parse(&Arc::new(file.clone())).map_err(|d| vec![d])?);
    }
    let mut compiler = Compiler {
        environment,
        settings: Settings::default(),
        catalog: Catalog::new().map_err(|e| vec![Diagnostic::general(e.strip_backtrace())])?,
        tables: BTreeMap::new(),
        relations: vec![],
        problems: vec![],
    };
    let inserts = compiler.declare(statements);
    compiler.plan(inserts)
}

struct Table {
    statement: CreateTable,
    options: TableOptions,
    spec: TableSpec,
    /// Index in the plan, once something reads it.
    source: Option<usize>,
}

struct Insert {
    table: String,
    plan: LogicalPlan,
    place: Place,
}

struct Compiler<'a> {
    environment: &'a Environment<'a>,
    settings: Settings,
    catalog: Catalog,
    tables: BTreeMap<String, Table>,
    /// Names of tables and views, for "did you mean".
    relations: Vec<String>,
    problems: Vec<Diagnostic>,
}

/// Rows on their way: where they come from, what happened to them since, and what they look like now.
#[derive(Clone)]
struct Flow {
    from: From,
    steps: Vec<Step>,
    schema: DFSchema,
}

type Planned<T> = Result<T, Diagnostic>;

impl Compiler<'_> {
    // Declarations

    fn declare(&mut self, statements: Vec<Statement>) -> Vec<Insert> {
        let mut inserts = vec![];
        for statement in statements {
            match statement {
                Statement::Set { name, value, place } => {
                    if let Err(problem) = self.settings.set(&name, &value, &place) {
                        self.problems.push(problem);
                    }
                }
                Statement::CreateTable(table) => self.declare_table(table),
                Statement::CreateView { name, query, place } => {
                    let planned = self.catalog.plan(&query).and_then(|plan| self.catalog.add_view(&name, plan));
                    self.relations.push(name);
                    if let Err(error) = planned {
                        let problem = self.explain_error(&error, &place);
                        self.problems.push(problem);
                    }
                }
                Statement::Insert { table, query, place } => match self.catalog.plan(&query) {
                    Ok(plan) => inserts.push(Insert { table, plan, place }),
                    Err(error) => {
                        let problem = self.explain_error(&error, &place);
                        self.problems.push(problem);
                    }
                },
            }
        }
        inserts
    }

    fn declare_table(&mut self, statement: CreateTable) {
        let options = match options::check(&statement, self.environment.connectors, self.environment.variables) {
            Ok(options) => options,
            Err(problems) => return self.problems.extend(problems),
        };
        let (mut columns, mut fields) = (vec![], vec![]);
        for column in &statement.columns {
            let origin = match &column.kind {
                ColumnKind::Value => Origin::Value,
                ColumnKind::Metadata(name) => Origin::Metadata(name.clone()),
                ColumnKind::Generated => {
                    let message = "generated columns are not built yet; compute the value in the query or in a VIEW";
                    self.problems.push(Diagnostic::at(&column.place, message));
                    continue;
                }
            };
            fields.push(column.field.clone());
            columns.push(ColumnSpec { field: column.field.clone(), origin });
        }
        let spec = TableSpec {
            name: statement.name.clone(),
            columns,
            primary_key: statement.primary_key.clone(),
            partition_by: statement.partition_by.clone(),
            options: options.values.clone(),
        };
        if self.tables.contains_key(&spec.name) {
            let message = format!("the table {} is declared twice", spec.name);
            return self.problems.push(Diagnostic::at(&statement.place, message));
        }
        if let Err(error) = self.catalog.add_table(&spec.name, Arc::new(Schema::new(fields))) {
            self.problems.push(Diagnostic::at(&statement.place, error.strip_backtrace()));
        }
        self.relations.push(spec.name.clone());
        self.tables.insert(spec.name.clone(), Table { statement, options, spec, source: None });
    }

    // Planning

    fn plan(mut self, inserts: Vec<Insert>) -> Result<Job, Vec<Diagnostic>> {
        if inserts.is_empty() && self.problems.is_empty() {
            let message = "the job has no INSERT INTO … SELECT, so it would do nothing";
            self.problems.push(Diagnostic::general(message));
        }
        let mut optimized = vec![];
        for insert in inserts {
            match self.catalog.optimize(&insert.plan) {
                Ok(plan) => optimized.push(Insert { plan, ..insert }),
                Err(error) => {
                    let problem = self.explain_error(&error, &insert.place);
                    self.problems.push(problem);
                }
            }
        }
        let now = optimized.iter().any(|i| uses_now(&i.plan).unwrap_or(false));
        let mut plan = Plan { name: String::new(), sources: vec![], operators: vec![], sinks: vec![], dead_letter: 0 };
        let mut starts = BTreeMap::new();
        for (table, used) in used_columns(&optimized) {
            match self.add_source(&mut plan, &table, &used, now) {
                Ok(flow) => {
                    starts.insert(table, flow);
                }
                Err(problems) => self.problems.extend(problems),
            }
        }
        if self.problems.is_empty() {
            for insert in &optimized {
                if let Err(problems) = self.add_insert(&mut plan, insert, &starts) {
                    self.problems.extend(problems);
                }
            }
            self.add_dead_letter(&mut plan);
        }
        if self.problems.is_empty() {
            Ok(Job { settings: self.settings, plan, warnings: vec![] })
        } else {
            Err(self.problems)
        }
    }

    fn add_source(
        &mut self,
        plan: &mut Plan,
        name: &str,
        used: &BTreeSet<String>,
        now: bool,
    ) -> Result<Flow, Vec<Diagnostic>> {
        let table = &self.tables[name];
        let source = table.options.connector.source(&table.spec).map_err(|p| problems_of(table, p))?;
        let keys = dedup_keys(table).map_err(|d| vec![d])?;
        let watermark = watermark(table).map_err(|d| vec![d])?;
        let mut columns: Vec<SourceColumn> = vec![];
        for column in &table.spec.columns {
            let name = column.field.name();
            let needed =
                used.contains(name) || keys.contains(name) || watermark.as_ref().is_some_and(|(c, ..)| c == name);
            if needed {
                columns.push(SourceColumn { field: column.field.clone(), origin: column.origin.clone() });
            }
        }
        let by_event_time = table.options.values.get("deduplicate.time") == Some("event");
        let metadata_time = Origin::Metadata("timestamp".into());
        if !keys.is_empty()
            && !by_event_time
            && !columns.iter().any(|c| c.origin == metadata_time && is_instant(&c.field))
        {
            let field = Arc::new(Field::new(LOG_TIME_COLUMN, instant(), true));
            columns.push(SourceColumn { field, origin: metadata_time.clone() });
        }
        let index = |name: &str| columns.iter().position(|c| c.field.name() == name);
        let max_ahead = table.options.values.duration("watermark.max-ahead").unwrap_or(Duration::from_secs(3600));
        let spec = watermark
            .as_ref()
            .and_then(|(column, delay)| Some(WatermarkSpec { column: index(column)?, delay: *delay, max_ahead }));
        let deduplicate = if keys.is_empty() {
            None
        } else {
            let time = match by_event_time {
                true => spec.map(|s| s.column).ok_or_else(|| {
                    let message = format!("table {name}: 'deduplicate.time' = 'event' needs a WATERMARK FOR a column");
                    vec![Diagnostic::at(&table.statement.place, message)]
                })?,
                false => columns.iter().position(|c| c.origin == metadata_time && is_instant(&c.field)).unwrap_or(0),
            };
            Some(deduplication(table, keys.iter().filter_map(|k| index(k)).collect(), time, by_event_time))
        };
        let node = SourceNode { table: name.to_string(), source, columns, now, watermark: spec };
        let schema = node.schema();
        let mut from = From::Source(plan.sources.len());
        plan.sources.push(node);
        if let Some(deduplicate) = deduplicate {
            from = add_deduplicate(plan, name, from, deduplicate, &schema);
        }
        if let Some(table) = self.tables.get_mut(name) {
            table.source = Some(plan.sources.len() - 1);
        }
        let schema = DFSchema::try_from_qualified_schema(TableReference::bare(name), &schema)
            .map_err(|e| vec![Diagnostic::general(e.strip_backtrace())])?;
        Ok(Flow { from, steps: vec![], schema })
    }

    fn add_insert(
        &mut self,
        plan: &mut Plan,
        insert: &Insert,
        starts: &BTreeMap<String, Flow>,
    ) -> Result<(), Vec<Diagnostic>> {
        let Some(table) = self.tables.get(&insert.table) else {
            let message = format!("there is no table {}", insert.table);
            let diagnostic = Diagnostic::at(&insert.place, message);
            let near = nearest(&insert.table, self.tables.keys().map(String::as_str));
            return Err(vec![match near {
                Some(name) => diagnostic.hint(format!("did you mean {name}?")),
                None => diagnostic,
            }]);
        };
        let query = insert.plan.schema();
        let schema = sink_schema(table, query, &insert.place)?;
        let flow = self.walk(plan, &insert.plan, starts, &insert.place).map_err(|d| vec![d])?;
        let mut expressions = vec![];
        for ((qualifier, field), target) in query.iter().zip(schema.fields()) {
            let column = Expr::Column(DfColumn::new(qualifier.cloned(), field.name()));
            let expr = if field.data_type() == target.data_type() {
                column
            } else {
                Expr::Cast(Cast::new(Box::new(column), target.data_type().clone()))
            };
            let made = executable(&expr, &flow.schema).map_err(|e| vec![self.explain_error(&e, &insert.place)])?;
            expressions.push(made);
        }
        let mut steps = flow.steps;
        steps.push(Step::Project { expressions, schema: schema.clone() });
        let from = add_transform(plan, flow.from, steps, schema.clone());
        let sink = match &self.environment.instead_of_sinks {
            Some(sink) => sink.clone(),
            None => {
                let columns = schema.fields().iter().map(|f| ColumnSpec { field: f.clone(), origin: Origin::Value });
                let spec = TableSpec { columns: columns.collect(), ..table.spec.clone() };
                table.options.connector.sink(&spec).map_err(|p| problems_of(table, p))?
            }
        };
        match plan.sinks.iter_mut().find(|s| s.table == insert.table) {
            Some(sink) => sink.inputs.push(Edge::forward(from)),
            None => plan.sinks.push(SinkNode {
                table: insert.table.clone(),
                inputs: vec![Edge::forward(from)],
                sink,
                schema,
                commit_interval: table.options.values.duration("commit_interval").unwrap_or_default(),
            }),
        }
        Ok(())
    }

    fn add_dead_letter(&mut self, plan: &mut Plan) {
        let declared = self.tables.values().find(|t| t.options.values.flag("dead-letter"));
        let (name, sink) = match declared {
            None => ("dead-letter".to_string(), Ok(self.environment.default_dead_letter.clone())),
            Some(table) => {
                let schema = dead_letter_schema();
                let columns = schema.fields().iter().map(|f| ColumnSpec { field: f.clone(), origin: Origin::Value });
                let spec = TableSpec { columns: columns.collect(), ..table.spec.clone() };
                (table.spec.name.clone(), table.options.connector.sink(&spec).map_err(|p| problems_of(table, p)))
            }
        };
        match sink {
            Err(problems) => self.problems.extend(problems),
            Ok(sink) => {
                plan.dead_letter = plan.sinks.len();
                let (inputs, schema) = (vec![], dead_letter_schema());
                plan.sinks.push(SinkNode { table: name, inputs, sink, schema, commit_interval: Duration::ZERO });
            }
        }
    }

    // Queries

    fn walk(
        &self,
        plan: &mut Plan,
        node: &LogicalPlan,
        starts: &BTreeMap<String, Flow>,
        place: &Place,
    ) -> Planned<Flow> {
        let failed = |e: DataFusionError| self.explain_error(&e, place);
        match node {
            LogicalPlan::TableScan(scan) => {
                let start = starts.get(scan.table_name.table()).cloned();
                let mut flow =
                    start.ok_or_else(|| Diagnostic::at(place, format!("{} cannot be read", scan.table_name)))?;
                for filter in &scan.filters {
                    flow.steps.push(Step::Filter(executable(filter, &flow.schema).map_err(failed)?));
                }
                Ok(flow)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let mut flow = self.walk(plan, &alias.input, starts, place)?;
                let schema = flow.schema.as_arrow().clone();
                flow.schema = DFSchema::try_from_qualified_schema(alias.alias.clone(), &schema).map_err(failed)?;
                Ok(flow)
            }
            LogicalPlan::Filter(filter) => {
                let mut flow = self.walk(plan, &filter.input, starts, place)?;
                flow.steps.push(Step::Filter(executable(&filter.predicate, &flow.schema).map_err(failed)?));
                Ok(flow)
            }
            LogicalPlan::Projection(projection) => {
                let flow = self.walk(plan, &projection.input, starts, place)?;
                self.project(flow, &projection.expr, &projection.schema).map_err(failed)
            }
            LogicalPlan::Union(union) => {
                let mut edges = vec![];
                for input in &union.inputs {
                    let flow = self.walk(plan, input, starts, place)?;
                    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                    let flow = self.project(flow, &columns, &union.schema).map_err(failed)?;
                    let schema = Arc::new(flow.schema.as_arrow().clone());
                    edges.push(Edge::forward(add_transform(plan, flow.from, flow.steps, schema)));
                }
                // The branches meet in a step that does nothing, so that what follows is planned once.
                let with_now = edges.first().map(|e| schema_of(plan, e.from));
                let schema = with_now.unwrap_or_else(|| Arc::new(union.schema.as_arrow().clone()));
                let operator = Operator::Transform(Transform { steps: vec![] });
                plan.operators.push(OperatorNode {
                    id: "union".into(),
                    inputs: edges,
                    operator,
                    schema: schema.clone(),
                });
                let from = From::Operator(plan.operators.len() - 1);
                let schema = with_trailing(&union.schema, &schema).map_err(failed)?;
                Ok(Flow { from, steps: vec![], schema })
            }
            LogicalPlan::Unnest(unnest) => self.unnest(plan, unnest, starts, place),
            other => Err(refuse(other, place)),
        }
    }

    /// A projection keeps the time stamp that the engine appended, for `now()` further on.
    fn project(&self, flow: Flow, exprs: &[Expr], schema: &DFSchema) -> Result<Flow, DataFusionError> {
        let mut expressions = exprs.iter().map(|e| executable(e, &flow.schema)).collect::<Result<Vec<_>, _>>()?;
        let now = DfColumn::new_unqualified(NOW_COLUMN);
        let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        if flow.schema.has_column(&now) || flow.schema.index_of_column_by_name(None, NOW_COLUMN).is_some() {
            expressions.push(executable(&Expr::Column(now), &flow.schema)?);
            fields.push(Arc::new(Field::new(NOW_COLUMN, instant(), false)));
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

    fn unnest(
        &self,
        plan: &mut Plan,
        unnest: &datafusion::logical_expr::Unnest,
        starts: &BTreeMap<String, Flow>,
        place: &Place,
    ) -> Planned<Flow> {
        if !unnest.struct_type_columns.is_empty() {
            return Err(Diagnostic::at(place, "UNNEST of a STRUCT is not built yet; name its fields instead"));
        }
        let [(column, list)] = &unnest.list_type_columns[..] else {
            return Err(Diagnostic::at(place, "UNNEST of several lists at once is not built yet"));
        };
        if list.depth != 1 {
            return Err(Diagnostic::at(place, "UNNEST of nested lists at once is not built yet; UNNEST twice"));
        }
        let flow = self.walk(plan, &unnest.input, starts, place)?;
        let failed = |e: DataFusionError| self.explain_error(&e, place);
        let columns: Vec<Expr> = unnest.input.schema().columns().into_iter().map(Expr::Column).collect();
        let mut flow = self.project(flow, &columns, unnest.input.schema()).map_err(failed)?;
        let mut fields: Vec<FieldRef> = flow.schema.fields().iter().cloned().collect();
        let DataType::List(item) = fields[*column].data_type().clone() else {
            return Err(Diagnostic::at(place, format!("{} is no ARRAY", fields[*column].name())));
        };
        fields[*column] = Arc::new(Field::new(unnest.schema.field(*column).name(), item.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields));
        let keep_empty = unnest.options.preserve_nulls();
        flow.steps.push(Step::Unnest { column: *column, keep_empty, schema: schema.clone() });
        flow.schema = with_trailing(&unnest.schema, &schema).map_err(failed)?;
        Ok(flow)
    }

    fn explain_error(&self, error: &DataFusionError, place: &Place) -> Diagnostic {
        let place = match place_of(error) {
            Some((line, column)) => Place { line, column, ..place.clone() },
            None => place.clone(),
        };
        let text = error.strip_backtrace();
        let text =
            ["Error during planning: ", "Schema error: ", "SQL error: "].iter().fold(text, |t, p| t.replace(p, ""));
        let diagnostic = Diagnostic::at(&place, text.lines().next().unwrap_or_default().to_string());
        let missing =
            text.strip_prefix("table '").and_then(|t| t.split('\'').next()).and_then(|t| t.rsplit('.').next());
        match missing.and_then(|name| nearest(name, self.relations.iter().map(String::as_str))) {
            Some(name) => diagnostic.hint(format!("did you mean {name}?")),
            None => diagnostic,
        }
    }
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

fn refuse(node: &LogicalPlan, place: &Place) -> Diagnostic {
    let (what, hint) = match node {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => ("aggregation", "windows and aggregates are stateful"),
        LogicalPlan::Join(_) => ("a join", "joins are stateful"),
        LogicalPlan::Window(_) => {
            ("a window function", "for deduplication there is the table option 'deduplicate.key'")
        }
        LogicalPlan::Sort(_) => ("ORDER BY", "a stream has no end that could be sorted"),
        LogicalPlan::Limit(_) => ("LIMIT", "a stream has no end; 'millrace sample' shows a few rows"),
        LogicalPlan::EmptyRelation(_) => {
            ("a query without a table, or one whose condition is never true", "it would yield nothing")
        }
        LogicalPlan::Values(_) => ("VALUES", "a job reads tables"),
        _ => ("this query", "it is stateful"),
    };
    let name = node.display().to_string();
    let name = name.split([':', ' ']).next().unwrap_or_default().to_string();
    Diagnostic::at(place, format!("{what} is not built yet ({name})")).hint(hint)
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

fn is_instant(field: &Field) -> bool {
    field.data_type() == &instant()
}

fn dedup_keys(table: &Table) -> Planned<Vec<String>> {
    let options = &table.options;
    let Some(keys) = options.values.get("deduplicate.key") else {
        let stray = options.places.iter().find(|(name, _)| name.starts_with("deduplicate."));
        return match stray {
            None => Ok(vec![]),
            Some((name, place)) => Err(Diagnostic::at(place, format!("{name} says nothing without deduplicate.key"))),
        };
    };
    let place = &options.places["deduplicate.key"];
    if options.values.get("deduplicate.within").is_none() {
        let diagnostic = Diagnostic::at(place, "deduplicate.key needs deduplicate.within: state must have an end");
        return Err(diagnostic.hint("for example 'deduplicate.within' = '10 minutes'"));
    }
    let keys: Vec<String> = keys.split(',').map(|k| k.trim().to_string()).collect();
    for key in &keys {
        known_column(table, key, place)?;
    }
    Ok(keys)
}

fn known_column<'a>(table: &'a Table, name: &str, place: &Place) -> Planned<&'a ColumnSpec> {
    let names = table.spec.columns.iter().map(|c| c.field.name().as_str());
    table.spec.columns.iter().find(|c| c.field.name() == name).ok_or_else(|| {
        let diagnostic = Diagnostic::at(place, format!("table {} has no column {name}", table.spec.name));
        match nearest(name, names) {
            Some(near) => diagnostic.hint(format!("did you mean {near}?")),
            None => diagnostic,
        }
    })
}

/// The watermark's column and delay.
fn watermark(table: &Table) -> Planned<Option<(String, Duration)>> {
    let (name, delay, place) = match (&table.statement.watermark, table.options.values.get("event_time_field")) {
        (Some((name, expression, place)), _) => {
            let text = expression.to_string();
            let shape = || {
                let hint = format!("write WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND");
                Diagnostic::at(place, "a watermark is its column less an interval").hint(hint)
            };
            let rest = text.strip_prefix(name.as_str()).ok_or_else(shape)?.trim();
            let delay = match rest.strip_prefix('-') {
                None if rest.is_empty() => Duration::ZERO,
                None => return Err(shape()),
                Some(interval) => {
                    let words = interval.trim().strip_prefix("INTERVAL").ok_or_else(shape)?.replace('\'', " ");
                    parse_duration(words.split_whitespace().collect::<Vec<_>>().join(" ").as_str()).ok_or_else(shape)?
                }
            };
            (name.clone(), delay, place)
        }
        (None, Some(name)) => (name.to_string(), Duration::ZERO, &table.options.places["event_time_field"]),
        (None, None) => return Ok(None),
    };
    let column = known_column(table, &name, place)?;
    if !is_instant(&column.field) {
        return Err(Diagnostic::at(
            place,
            format!("{name} is {}, and a watermark needs a TIMESTAMP", column.field.data_type()),
        ));
    }
    Ok(Some((name, delay)))
}

fn deduplication(table: &Table, keys: Vec<usize>, time: usize, by_event_time: bool) -> Deduplicate {
    let options = &table.options.values;
    Deduplicate {
        keys,
        time,
        clock: if by_event_time { DedupClock::Event } else { DedupClock::Log },
        within: options.duration("deduplicate.within").unwrap_or_default(),
        late: match options.get("deduplicate.late") {
            Some("dead-letter") => LatePolicy::DeadLetter,
            Some("drop") => LatePolicy::Drop,
            _ => LatePolicy::Keep,
        },
        scope: if options.get("deduplicate.scope") == Some("partition") { Scope::Partition } else { Scope::Global },
        memory: usize::MAX,
    }
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

fn add_transform(plan: &mut Plan, from: From, steps: Vec<Step>, schema: SchemaRef) -> From {
    let operator = Operator::Transform(Transform { steps });
    plan.operators.push(OperatorNode { id: "transform".into(), inputs: vec![Edge::forward(from)], operator, schema });
    From::Operator(plan.operators.len() - 1)
}

/// The columns that a sink gets: the declared ones, if the query fits them; else the query's own.
fn sink_schema(table: &Table, query: &DFSchema, place: &Place) -> Result<SchemaRef, Vec<Diagnostic>> {
    let given = query.fields();
    if table.spec.columns.is_empty() {
        return Ok(Arc::new(Schema::new(given.iter().cloned().collect::<Vec<_>>())));
    }
    let wanted: Vec<&FieldRef> = table.spec.columns.iter().map(|c| &c.field).collect();
    if given.len() != wanted.len() {
        let message =
            format!("table {} has {} columns, and the query yields {}", table.spec.name, wanted.len(), given.len());
        let names: Vec<_> = wanted.iter().map(|f| f.name().as_str()).collect();
        return Err(vec![Diagnostic::at(place, message).hint(format!("the table's are {}", names.join(", ")))]);
    }
    let mut problems = vec![];
    for (at, (given, wanted)) in given.iter().zip(&wanted).enumerate() {
        let position = at + 1;
        if !fits(given, wanted) {
            let message = format!(
                "column {position}: the query's {} is {}, and {}'s {} is {}",
                given.name(),
                shown(given),
                table.spec.name,
                wanted.name(),
                shown(wanted)
            );
            problems.push(Diagnostic::at(place, message).hint("only widening without loss is implicit: write a CAST"));
        } else if given.is_nullable() && !wanted.is_nullable() {
            let message = format!(
                "column {position}: the query's {} may be null, and {}'s {} is NOT NULL",
                given.name(),
                table.spec.name,
                wanted.name()
            );
            problems.push(Diagnostic::at(place, message).hint("use COALESCE, or declare the source column NOT NULL"));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Arc::new(Schema::new(wanted.into_iter().cloned().collect::<Vec<_>>())))
}

fn shown(field: &Field) -> String {
    if is_json(field) { "JSON".into() } else { field.data_type().to_string() }
}

/// Whether every value of one type is a value of the other.
fn fits(given: &Field, wanted: &Field) -> bool {
    use DataType::*;
    if is_json(wanted) && !is_json(given) && given.data_type() == &Utf8 {
        return false;
    }
    let (given, wanted) = (given.data_type(), wanted.data_type());
    match (given, wanted) {
        _ if given == wanted => true,
        (Null, _) => true,
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64) => true,
        (Int16, Int32 | Int64 | Float32 | Float64) => true,
        (Int32, Int64 | Float64) => true,
        (UInt8, Int16 | Int32 | Int64 | UInt16 | UInt32 | UInt64 | Float32 | Float64) => true,
        (UInt16, Int32 | Int64 | UInt32 | UInt64 | Float32 | Float64) => true,
        (UInt32, Int64 | UInt64 | Float64) => true,
        (Float32, Float64) => true,
        (Utf8View | LargeUtf8, Utf8) => true,
        (Timestamp(_, Some(_)), Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some(_))) => true,
        (Decimal128(p1, s1), Decimal128(p2, s2)) => s2 >= s1 && (*p2 as i8 - s2) >= (*p1 as i8 - s1),
        _ => false,
    }
}

fn problems_of(table: &Table, problems: Vec<Problem>) -> Vec<Diagnostic> {
    let place = |problem: &Problem| {
        let option = problem.option.as_ref().and_then(|o| table.options.places.get(o));
        let column = problem
            .column
            .as_ref()
            .and_then(|name| table.statement.columns.iter().find(|c| c.field.name() == name).map(|c| &c.place));
        option.or(column).unwrap_or(&table.statement.place).clone()
    };
    problems.iter().map(|p| Diagnostic::at(&place(p), format!("table {}: {}", table.spec.name, p.message))).collect()
}
