//! Bulk loads: INSERT BULK announces one, and its rows come as a message of their own. MS-TDS 2.2.6.1.

use crate::error::{SqlError, no_column};
use crate::reader::{Read, Reader, violation};
use crate::sql::ast;
use crate::sql::catalog::Relation;
use crate::types::{Type, WireType};
use crate::value::{self, Value};

#[derive(Debug, Clone)]
pub struct Load {
    pub relation: Relation,
    /// Where the columns that come go to.
    pub columns: Vec<usize>,
    /// What was announced, and what came.
    announced: Vec<Type>,
    pub types: Vec<Type>,
    pub check_constraints: bool,
    pub keep_nulls: bool,
}

impl Load {
    pub fn announced(relation: Relation, columns: &[ast::Column], options: &[String]) -> Result<Self, SqlError> {
        let mut chosen = Vec::new();
        for column in columns {
            let at = relation.column(&column.name).ok_or_else(|| no_column(&column.name))?;
            if relation.columns[at].computed.is_some() || chosen.contains(&at) {
                let message = format!(
                    "The column \"{}\" cannot be modified because it is a computed column or comes twice.",
                    column.name
                );
                return Err(SqlError::new(271, 16, message));
            }
            chosen.push(at);
        }
        let has = |option: &str| options.iter().any(|said| said == option);
        Ok(Load {
            relation,
            columns: chosen,
            announced: columns.iter().map(|column| column.of).collect(),
            types: Vec::new(),
            check_constraints: has("CHECK_CONSTRAINTS"),
            keep_nulls: has("KEEP_NULLS"),
        })
    }

    /// The rows of the message. An error of the server's is one that a client gets told; a violation is a client's defect.
    pub fn rows(&mut self, data: &[u8]) -> Read<Result<Vec<Vec<Value>>, SqlError>> {
        let mut reader = Reader::new(data);
        let columns = read_columns(&mut reader)?;
        if columns.len() != self.announced.len() {
            return violation(format!(
                "bulk load: {} columns were announced and {} came",
                self.announced.len(),
                columns.len()
            ));
        }
        if let Some(at) =
            self.announced.iter().zip(&columns).position(|(announced, (came, _))| !is_as_announced(*announced, came.of))
        {
            let message = format!("Invalid column type from bcp client for colid {}.", at + 1);
            return Ok(Err(SqlError::new(4816, 16, message)));
        }
        for (at, (_, name)) in columns.iter().enumerate() {
            let column = &self.relation.columns[self.columns[at]].name;
            if !name.is_empty() && !crate::sql::catalog::same(name, column) {
                return violation(format!(
                    "bulk load: column {} is [{column}] in INSERT BULK and [{name}] in COLMETADATA",
                    at + 1
                ));
            }
        }
        let types: Vec<WireType> = columns.iter().map(|(of, _)| *of).collect();
        self.types = types.iter().map(|of| of.of).collect();
        read_rows(&mut reader, &types).map(Ok)
    }
}

/// MS-TDS 2.2.7.4 COLMETADATA, as a client writes it.
fn read_columns(reader: &mut Reader<'_>) -> Read<Vec<(WireType, String)>> {
    if reader.u8()? != 0x81 {
        return violation("bulk load: it does not begin with COLMETADATA");
    }
    let count = reader.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        if reader.u32()? != 0 {
            return violation("bulk load: a column of a user's type");
        }
        reader.u16()?;
        let of = WireType::read(reader)?;
        columns.push((of, reader.b_varchar()?));
    }
    Ok(columns)
}

/// ROW (2.2.7.19) and NBCROW (2.2.7.15), and a DONE behind the last, whose count has four or eight bytes.
fn read_rows(reader: &mut Reader<'_>, types: &[WireType]) -> Read<Vec<Vec<Value>>> {
    let mut rows = Vec::new();
    loop {
        match reader.u8()? {
            0xD1 => rows.push(types.iter().map(|of| value::read(reader, *of)).collect::<Read<_>>()?),
            0xD2 => {
                let bitmap = reader.take(types.len().div_ceil(8))?;
                let is_null = |at: usize| bitmap[at / 8] >> (at % 8) & 1 == 1;
                let one =
                    |(at, of): (usize, &WireType)| if is_null(at) { Ok(Value::Null) } else { value::read(reader, *of) };
                rows.push(types.iter().enumerate().map(one).collect::<Read<_>>()?);
            }
            0xFD => {
                reader.take(4)?;
                let count = reader.rest().len();
                return if matches!(count, 4 | 8) { Ok(rows) } else { violation("bulk load: more behind the DONE") };
            }
            token => return violation(format!("bulk load: token 0x{token:02X} at {}", reader.place() - 1)),
        }
    }
}

/// A client may say the length of an `nvarchar` in bytes where characters are meant: what comes is then shorter than announced.
fn is_as_announced(announced: Type, came: Type) -> bool {
    let within = |came: Option<u16>, announced: Option<u16>| match (came, announced) {
        (Some(came), Some(announced)) => came <= announced,
        (None, None) => true,
        _ => false,
    };
    match (announced, came) {
        (Type::NVarChar(announced), Type::NVarChar(came)) => within(came, announced),
        (Type::VarChar(announced), Type::VarChar(came)) => within(came, announced),
        (Type::VarBinary(announced), Type::VarBinary(came)) => within(came, announced),
        (Type::NChar(announced), Type::NChar(came)) => came <= announced,
        (Type::Xml, Type::NVarChar(None)) => true,
        (announced, came) => announced == came,
    }
}
