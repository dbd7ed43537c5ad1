//! Procedures that clients call by number or name: MS-TDS 2.2.6.6.

use crate::convert::{Into, convert};
use crate::error::{SqlError, no_procedure};
use crate::reader::{Read, Reader, violation};
use crate::session::{Aborted, Session};
use crate::sql::ast::{Declared, Name};
use crate::sql::parser::{parse_declarations, parse_name};
use crate::sql::translate::Variable;
use crate::tokens::{Done, command};
use crate::types::{Type, WireType};
use crate::value::{self, Value};

#[derive(Debug)]
pub struct Request {
    pub procedure: Procedure,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Procedure {
    ExecuteSql,
    Prepare,
    Execute,
    PrepareAndExecute,
    Unprepare,
    Named(String),
}

#[derive(Debug)]
struct Parameter {
    name: String,
    by_reference: bool,
    value: Passed,
}

#[derive(Debug)]
enum Passed {
    Scalar(WireType, Value),
    Table(Table),
}

/// A table-valued parameter: MS-TDS 2.2.5.5.5.
#[derive(Debug)]
struct Table {
    of: Name,
    /// Without those that are left to their defaults.
    columns: Vec<usize>,
    types: Vec<Type>,
    rows: Vec<Vec<Value>>,
}

/// Between requests of one message.
const NEXT: u8 = 0xFF;
const BY_REFERENCE: u8 = 0x01;

pub fn read(reader: &mut Reader<'_>) -> Read<Vec<Request>> {
    let mut requests = Vec::new();
    loop {
        requests.push(read_one(reader)?);
        if reader.is_empty() {
            return Ok(requests);
        }
        if reader.u8()? != NEXT {
            return violation("RPC: more behind the parameters");
        }
        if reader.is_empty() {
            return Ok(requests);
        }
    }
}

fn read_one(reader: &mut Reader<'_>) -> Read<Request> {
    let procedure = match reader.u16()? {
        0xFFFF => numbered(reader.u16()?)?,
        length => named(reader.text(length.into())?),
    };
    reader.u16()?;
    let mut parameters = Vec::new();
    while reader.peek().is_some_and(|next| next != NEXT) {
        let name = reader.b_varchar()?.to_lowercase();
        let flags = reader.u8()?;
        let value = if reader.peek() == Some(TABLE) {
            Passed::Table(read_table(reader)?)
        } else {
            let of = WireType::read(reader)?;
            Passed::Scalar(of, value::read(reader, of)?)
        };
        parameters.push(Parameter { name, by_reference: flags & BY_REFERENCE != 0, value });
    }
    Ok(Request { procedure, parameters })
}

fn numbered(number: u16) -> Read<Procedure> {
    Ok(match number {
        10 => Procedure::ExecuteSql,
        11 => Procedure::Prepare,
        12 => Procedure::Execute,
        13 => Procedure::PrepareAndExecute,
        15 => Procedure::Unprepare,
        other => return violation(format!("RPC: procedure {other} is none that is known here")),
    })
}

fn named(name: String) -> Procedure {
    match name.trim_start_matches("sys.").to_ascii_lowercase().as_str() {
        "sp_executesql" => Procedure::ExecuteSql,
        "sp_prepare" => Procedure::Prepare,
        "sp_execute" => Procedure::Execute,
        "sp_prepexec" => Procedure::PrepareAndExecute,
        "sp_unprepare" => Procedure::Unprepare,
        _ => Procedure::Named(name),
    }
}

const TABLE: u8 = 0xF3;
const NO_COLUMNS: u16 = 0xFFFF;
const LEFT_TO_DEFAULT: u16 = 0x0200;

fn read_table(reader: &mut Reader<'_>) -> Read<Table> {
    reader.u8()?;
    let database = Some(reader.b_varchar()?).filter(|name| !name.is_empty());
    let schema = Some(reader.b_varchar()?).filter(|name| !name.is_empty());
    let of = Name { database, schema, name: reader.b_varchar()? };
    let mut columns = Vec::new();
    let mut types = Vec::new();
    let count = reader.u16()?;
    if count != NO_COLUMNS {
        for at in 0..count {
            reader.u32()?;
            let flags = reader.u16()?;
            let of = WireType::read(reader)?;
            reader.b_varchar()?;
            if flags & LEFT_TO_DEFAULT == 0 {
                columns.push(usize::from(at));
                types.push(of);
            }
        }
    }
    read_hints(reader)?;
    let mut rows = Vec::new();
    loop {
        match reader.u8()? {
            0x00 => break,
            0x01 => rows.push(types.iter().map(|of| value::read(reader, *of)).collect::<Read<_>>()?),
            token => return violation(format!("table-valued parameter: token 0x{token:02X}")),
        }
    }
    Ok(Table { of, columns, types: types.iter().map(|of| of.of).collect(), rows })
}

/// TVP_ORDER_UNIQUE and TVP_COLUMN_ORDERING, up to TVP_END_TOKEN.
fn read_hints(reader: &mut Reader<'_>) -> Read<()> {
    loop {
        let size = match reader.u8()? {
            0x00 => return Ok(()),
            0x10 => 3,
            0x11 => 2,
            token => return violation(format!("table-valued parameter: hint 0x{token:02X}")),
        };
        let count = usize::from(reader.u16()?);
        reader.take(count * size)?;
    }
}

impl Request {
    /// What a test hears of it: the statement, or the procedure's name.
    pub fn text(&self, session: &Session) -> String {
        let at = match &self.procedure {
            Procedure::ExecuteSql => 0,
            Procedure::Prepare | Procedure::PrepareAndExecute => 2,
            Procedure::Execute => {
                return self
                    .handle()
                    .and_then(|h| session.prepared.get(&h))
                    .map_or("sp_execute".into(), |p| p.1.clone());
            }
            Procedure::Unprepare => return "sp_unprepare".into(),
            Procedure::Named(name) => return name.clone(),
        };
        self.text_at(at).unwrap_or_default()
    }

    fn text_at(&self, at: usize) -> Option<String> {
        match &self.parameters.get(at)?.value {
            Passed::Scalar(_, Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn handle(&self) -> Option<i32> {
        match &self.parameters.first()?.value {
            Passed::Scalar(_, Value::Integer(handle)) => i32::try_from(*handle).ok(),
            _ => None,
        }
    }
}

type Ran = Result<(), Aborted>;

/// Runs one request; its answer ends with a DONEPROC.
pub fn run(session: &mut Session, request: Request) -> bool {
    let ran = match run_one(session, request) {
        Ok(ran) => ran,
        Err(error) => session.as_procedure(|session| session.fail(error)).and(Err(Aborted::ByError)),
    };
    session.answer.status(i32::from(ran.is_err()));
    session.answer.done(Done::Procedure, command::EXECUTE, None, ran.is_err());
    ran.is_ok()
}

fn run_one(session: &mut Session, request: Request) -> Result<Ran, SqlError> {
    let missing = || SqlError {
        state: 3,
        ..SqlError::new(214, 16, "Procedure expects parameter '@statement' of type 'ntext/nchar/nvarchar'.")
    };
    let text = request.text_at(match request.procedure {
        Procedure::ExecuteSql => 0,
        _ => 2,
    });
    match &request.procedure {
        Procedure::ExecuteSql => {
            let declared = request.text_at(1).unwrap_or_default();
            let text = text.ok_or_else(missing)?;
            execute(session, &declared, &text, request.parameters.into_iter().skip(2).collect())
        }
        Procedure::Prepare | Procedure::PrepareAndExecute => {
            let declared = request.text_at(1).unwrap_or_default();
            let text = text.ok_or_else(missing)?;
            parse_declarations(&declared)?;
            let handle = session.next_handle;
            session.next_handle += 1;
            session.prepared.insert(handle, (declared.clone(), text.clone()));
            let of = WireType::of(Type::Int, true);
            let only_prepare = request.procedure == Procedure::Prepare;
            let ran = if only_prepare {
                Ok(())
            } else {
                execute(session, &declared, &text, request.parameters.into_iter().skip(3).collect())?
            };
            session.answer.returned(0, "", of, &Value::Integer(handle.into()));
            Ok(ran)
        }
        Procedure::Execute => {
            let handle = request.handle().unwrap_or(0);
            let Some((declared, text)) = session.prepared.get(&handle).cloned() else { return Err(no_handle(handle)) };
            execute(session, &declared, &text, request.parameters.into_iter().skip(1).collect())
        }
        Procedure::Unprepare => {
            let handle = request.handle().unwrap_or(0);
            session.prepared.remove(&handle).map(|_| Ok(())).ok_or_else(|| no_handle(handle))
        }
        Procedure::Named(name) => {
            let name = parse_name(name).ok_or_else(|| no_procedure(name))?;
            call(session, &name, request.parameters)
        }
    }
}

fn no_handle(handle: i32) -> SqlError {
    SqlError::new(8179, 16, format!("Could not find prepared statement with handle {handle}."))
}

fn execute(session: &mut Session, declared: &str, text: &str, parameters: Vec<Parameter>) -> Result<Ran, SqlError> {
    let declarations = parse_declarations(declared)?;
    if parameters.len() > declarations.len() {
        let message = format!(
            "Procedure or function has too many arguments specified: {} of {}.",
            parameters.len(),
            declarations.len()
        );
        return Err(SqlError { state: 2, ..SqlError::new(8144, 16, message) });
    }
    let before = std::mem::take(&mut session.variables);
    let bound = bind(session, &declarations, parameters);
    let ran = match bound {
        Ok(by_reference) => {
            let ran = session.as_procedure(|session| session.statements(text));
            for (at, (name, of)) in by_reference.into_iter().enumerate() {
                if let Some(Variable::Scalar(_, value)) = session.variables.get(&name) {
                    let value = value.clone();
                    session.answer.returned(at as u16, &name, WireType::of(of, true), &value);
                }
            }
            Ok(ran)
        }
        Err(error) => Err(error),
    };
    session.forget_tables();
    session.variables = before;
    ran
}

/// Makes variables of parameters; yields those whose values go back.
fn bind(
    session: &mut Session,
    declarations: &[(String, Declared)],
    parameters: Vec<Parameter>,
) -> Result<Vec<(String, Type)>, SqlError> {
    let mut by_reference = Vec::new();
    for (at, parameter) in parameters.into_iter().enumerate() {
        let found = declarations
            .iter()
            .enumerate()
            .find(|(place, (name, _))| if parameter.name.is_empty() { *place == at } else { *name == parameter.name });
        let Some((_, (name, of))) = found else {
            return Err(SqlError::new(8145, 16, format!("{} is not a parameter for procedure .", parameter.name)));
        };
        let variable = match (of, parameter.value) {
            (Declared::Scalar(of), Passed::Scalar(from, value)) => {
                if parameter.by_reference {
                    by_reference.push((name.clone(), *of));
                }
                Variable::Scalar(*of, convert(value, from.of, *of, Into::Expression)?)
            }
            (Declared::TableType(of), Passed::Table(table)) => table_variable(session, name, of, table)?,
            _ => {
                return Err(SqlError::new(
                    206,
                    16,
                    format!("Operand type clash: the argument is incompatible with {name}"),
                ));
            }
        };
        session.variables.insert(name.clone(), variable);
    }
    match declarations.iter().find(|(name, _)| !session.variables.contains_key(name)) {
        Some((name, _)) => {
            let message = format!("The parameterized query expects the parameter '{name}', which was not supplied.");
            Err(SqlError::new(8178, 16, message))
        }
        None => Ok(by_reference),
    }
}

fn table_variable(session: &mut Session, name: &str, of: &Name, table: Table) -> Result<Variable, SqlError> {
    let said = &table.of;
    if !said.name.is_empty() && !crate::sql::catalog::same(&said.name, &of.name) {
        return Err(SqlError::new(
            206,
            16,
            format!("Operand type clash: {} is incompatible with {}", said.name, of.name),
        ));
    }
    let relation = session.table_of_type(name, of)?;
    if table.columns.iter().any(|at| *at >= relation.columns.len()) {
        let message = format!(
            "The incoming tabular data stream (TDS) remote procedure call (RPC) protocol stream is incorrect. Table-valued parameter {name}: more columns than the type has."
        );
        return Err(SqlError::new(8047, 16, message));
    }
    session.fill(&relation, &table.columns, &table.types, table.rows)?;
    Ok(Variable::Table(relation))
}

fn call(session: &mut Session, name: &Name, parameters: Vec<Parameter>) -> Result<Ran, SqlError> {
    let procedure = session.procedure(name)?.ok_or_else(|| no_procedure(&name.shown()))?;
    let parameter = procedure.parameter.to_lowercase();
    let mut parameters = parameters.into_iter();
    let (Some(given), None) = (parameters.next(), parameters.next()) else {
        let message =
            format!("Procedure or function '{}' expects parameter '{parameter}', which was not supplied.", name.name);
        return Err(SqlError { state: 4, ..SqlError::new(201, 16, message) });
    };
    if !given.name.is_empty() && given.name != parameter {
        return Err(SqlError::new(8145, 16, format!("{} is not a parameter for procedure {}.", given.name, name.name)));
    }
    let Passed::Table(table) = given.value else {
        return Err(SqlError::new(
            206,
            16,
            format!("Operand type clash: the argument is incompatible with {}", procedure.of.name),
        ));
    };
    match table_variable(session, &parameter, &procedure.of, table)? {
        Variable::Table(rows) => {
            let ran = session.call(name, &parameter, rows.clone(), &procedure.body);
            session.forget(&rows);
            Ok(ran)
        }
        Variable::Scalar(..) => Ok(Ok(())),
    }
}
