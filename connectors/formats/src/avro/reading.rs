//! Values of one schema into columns: what becomes of each field is decided once, when the schema is met.

use arrow::datatypes::{DataType, Fields};
use serde_json::{Map, Number, Value};

use super::input::Input;
use super::schema::{Schema, Type, TypeId};
use crate::column::{Column, bytes_text, day_text, decimal_text, instant_text, is_json};
use crate::observed::Watch;
use crate::reject::{Bad, bad};

/// How records of one schema become rows.
pub struct Reading {
    schema: Schema,
    record: Fill,
    /// Fields of the outermost record that no column takes, and what they hold: for people.
    unknown: Vec<(String, String)>,
    /// For each column, whether a field fills it.
    fills: Vec<bool>,
}

/// What becomes of a value.
enum Plan {
    /// It goes into the column as it is, or as JSON text.
    Value(TypeId),
    Record(Fill),
    List(Box<Plan>),
    Map(Box<Plan>),
    Union(Vec<Plan>),
}

/// What becomes of a record's fields, in the order in which they are written.
struct Fill {
    steps: Vec<Step>,
    /// Columns that no field fills.
    absent: Vec<usize>,
}

enum Step {
    Skip(TypeId),
    Into(usize, Plan),
}

impl Reading {
    /// `columns`: those that are read.
    pub fn new(schema: Schema, columns: &Fields) -> Result<Reading, String> {
        let Type::Record(_, fields) = schema.get(schema.root()).clone() else {
            return Err(format!("its values are {} and no records", schema.describe(schema.root())));
        };
        let has_column = |name: &str| columns.iter().any(|column| column.name() == name);
        let unknown = fields.iter().filter(|(name, _)| !has_column(name));
        let unknown = unknown.map(|(name, of)| (name.clone(), schema.describe(*of))).collect();
        let fills = columns.iter().map(|column| fields.iter().any(|(name, _)| name == column.name())).collect();
        let record = fill(&schema, &fields, columns);
        Ok(Reading { schema, record, unknown, fills })
    }

    /// Takes one record.
    pub fn read(&self, input: &mut Input<'_>, columns: &mut [Column], watch: Option<&mut Watch>) -> Result<(), Bad> {
        self.fill(&self.record, input, columns)?;
        if let Some(watch) = watch {
            self.unknown.iter().for_each(|(name, what)| watch.meet(name, what));
            watch.record(self.fills.iter().copied());
        }
        Ok(())
    }

    fn fill(&self, fill: &Fill, input: &mut Input<'_>, columns: &mut [Column]) -> Result<(), Bad> {
        for step in &fill.steps {
            match step {
                Step::Skip(of) => self.skip(*of, input)?,
                Step::Into(column, plan) => self.value(plan, input, &mut columns[*column])?,
            }
        }
        fill.absent.iter().try_for_each(|column| columns[*column].push_absent("missing"))
    }

    fn value(&self, plan: &Plan, input: &mut Input<'_>, column: &mut Column) -> Result<(), Bad> {
        match plan {
            Plan::Value(of) if matches!(self.schema.get(*of), Type::Json) => column.push_field(Some(input.string()?)),
            Plan::Value(of) if column.takes_json() => match self.json(*of, input)? {
                Value::Null => column.push_absent("null"),
                value => column.push_json(value),
            },
            Plan::Value(of) => self.single(*of, input, column),
            Plan::Record(fill) => column.push_record(|columns| self.fill(fill, input, columns)),
            Plan::List(item) => column.push_list(|items| {
                while let Some((count, _)) = input.block()? {
                    (0..count).try_for_each(|_| self.value(item, input, items))?;
                }
                Ok(())
            }),
            Plan::Map(value) => column.push_map(|keys, values| {
                while let Some((count, _)) = input.block()? {
                    for _ in 0..count {
                        keys.append_value(input.string()?);
                        self.value(value, input, values)?;
                    }
                }
                Ok(())
            }),
            Plan::Union(branches) => {
                let branch = input.index(branches.len(), "branch")?;
                self.value(&branches[branch], input, column)
            }
        }
    }

    #[inline]
    fn single(&self, of: TypeId, input: &mut Input<'_>, column: &mut Column) -> Result<(), Bad> {
        match self.schema.get(of) {
            Type::Null => column.push_absent("null"),
            Type::Boolean => column.push_boolean(input.boolean()?),
            Type::Int => column.push_long(input.int()?.into()),
            Type::Long => column.push_long(input.long()?),
            Type::Float => column.push_single(input.float()?),
            Type::Double => column.push_double(input.double()?),
            Type::Bytes => column.push_bytes(input.bytes()?),
            Type::String | Type::Json => column.push_string(input.string()?),
            Type::Fixed(_, size) => column.push_bytes(input.take(*size)?),
            Type::Date => column.push_day(input.int()?),
            Type::Instant(unit) => {
                let written = input.long()?;
                column.push_instant(i128::from(written) * i128::from(*unit), written)
            }
            Type::Time(number) => match **number {
                Type::Int => column.push_long(input.int()?.into()),
                _ => column.push_long(input.long()?),
            },
            Type::Decimal { within, scale, .. } => {
                let bytes = self.octets(*within, input)?;
                if matches!(column.field.data_type(), DataType::Binary) {
                    return column.push_bytes(bytes);
                }
                match unscaled(bytes) {
                    Some(unscaled) => column.push_unscaled(unscaled, *scale),
                    None => Err(column.refuse("a decimal of more than 128 bits")),
                }
            }
            Type::Uuid(within) => {
                let bytes = self.octets(*within, input)?;
                match column.field.data_type() {
                    DataType::Binary => column.push_bytes(bytes),
                    _ => column.push_string(&uuid_text(bytes)),
                }
            }
            Type::Enum(name, symbols) => {
                let symbol = input.index(symbols.len(), "symbol")?;
                column.push_string(&symbols[symbol]).map_err(|mut reject| {
                    reject.error.push_str(&format!(", from the enum {name}"));
                    reject
                })
            }
            Type::Array(_) | Type::Map(_) | Type::Record(..) | Type::Union(_) => {
                Err(column.refuse(self.schema.describe(of)))
            }
        }
    }

    fn octets<'a>(&self, within: TypeId, input: &mut Input<'a>) -> Result<&'a [u8], Bad> {
        match self.schema.get(within) {
            Type::Fixed(_, size) => input.take(*size),
            _ => input.bytes(),
        }
    }

    /// A value as JSON: what has no type there is written as this crate reads it.
    fn json(&self, of: TypeId, input: &mut Input<'_>) -> Result<Value, Bad> {
        Ok(match self.schema.get(of) {
            Type::Null => Value::Null,
            Type::Boolean => input.boolean()?.into(),
            Type::Int => input.int()?.into(),
            Type::Long => input.long()?.into(),
            // The shortest digits of a single are not those of the double that it is.
            Type::Float => finite(input.float()?.to_string().parse().unwrap_or(f64::NAN))?,
            Type::Double => finite(input.double()?)?,
            Type::Bytes => bytes_text(input.bytes()?).into(),
            Type::String => input.string()?.into(),
            Type::Json => {
                let text = input.string()?;
                serde_json::from_str(text).unwrap_or_else(|_| text.into())
            }
            Type::Fixed(_, size) => bytes_text(input.take(*size)?).into(),
            Type::Date => {
                let day = input.int()?;
                day_text(day).map_or_else(|| day.into(), Value::from)
            }
            Type::Instant(unit) => {
                let written = input.long()?;
                instant_text(i128::from(written) * i128::from(*unit)).map_or_else(|| written.into(), Value::from)
            }
            Type::Time(number) => match **number {
                Type::Int => input.int()?.into(),
                _ => input.long()?.into(),
            },
            Type::Decimal { within, scale, .. } => match unscaled(self.octets(*within, input)?) {
                // As text: a number of JSON's would lose its digits with most readers.
                Some(unscaled) => decimal_text(unscaled, *scale).into(),
                None => return Err(bad("out-of-range", "a decimal of more than 128 bits")),
            },
            Type::Uuid(within) => uuid_text(self.octets(*within, input)?).into(),
            Type::Enum(_, symbols) => symbols[input.index(symbols.len(), "symbol")?].as_str().into(),
            Type::Union(branches) => {
                let branch = input.index(branches.len(), "branch")?;
                self.json(branches[branch], input)?
            }
            Type::Array(item) => input.within(|input| {
                let mut items = vec![];
                while let Some((count, _)) = input.block()? {
                    for _ in 0..count {
                        items.push(self.json(*item, input)?);
                    }
                }
                Ok(Value::Array(items))
            })?,
            Type::Map(value) => input.within(|input| {
                let mut entries = Map::new();
                while let Some((count, _)) = input.block()? {
                    for _ in 0..count {
                        let key = input.string()?.to_string();
                        entries.insert(key, self.json(*value, input)?);
                    }
                }
                Ok(Value::Object(entries))
            })?,
            Type::Record(_, fields) => input.within(|input| {
                let mut object = Map::new();
                for (name, of) in fields {
                    object.insert(name.clone(), self.json(*of, input)?);
                }
                Ok(Value::Object(object))
            })?,
        })
    }

    /// A type that holds itself does so through a record, an array or a map: these are counted.
    fn skip(&self, of: TypeId, input: &mut Input<'_>) -> Result<(), Bad> {
        match self.schema.get(of) {
            Type::Null => Ok(()),
            Type::Boolean => input.boolean().map(drop),
            Type::Int | Type::Date => input.int().map(drop),
            Type::Long | Type::Instant(_) | Type::Time(_) => input.long().map(drop),
            Type::Float => input.take(4).map(drop),
            Type::Double => input.take(8).map(drop),
            Type::Bytes | Type::String | Type::Json => input.bytes().map(drop),
            Type::Fixed(_, size) => input.take(*size).map(drop),
            Type::Decimal { within, .. } | Type::Uuid(within) => self.octets(*within, input).map(drop),
            Type::Enum(_, symbols) => input.index(symbols.len(), "symbol").map(drop),
            Type::Union(branches) => {
                let branch = input.index(branches.len(), "branch")?;
                self.skip(branches[branch], input)
            }
            Type::Array(item) => self.skip_blocks(input, |input| self.skip(*item, input)),
            Type::Map(value) => self.skip_blocks(input, |input| {
                input.bytes()?;
                self.skip(*value, input)
            }),
            Type::Record(_, fields) => {
                input.within(|input| fields.iter().try_for_each(|(_, of)| self.skip(*of, input)))
            }
        }
    }

    fn skip_blocks(&self, input: &mut Input<'_>, skip: impl Fn(&mut Input<'_>) -> Result<(), Bad>) -> Result<(), Bad> {
        input.within(|input| {
            while let Some((count, size)) = input.block()? {
                match size {
                    Some(size) => input.take(size).map(drop)?,
                    None => (0..count).try_for_each(|_| skip(input))?,
                }
            }
            Ok(())
        })
    }
}

fn fill(schema: &Schema, fields: &[(String, TypeId)], columns: &Fields) -> Fill {
    let step = |(name, of): &(String, TypeId)| match columns.iter().position(|column| column.name() == name) {
        Some(index) => Step::Into(index, plan(schema, *of, columns[index].data_type(), is_json(&columns[index]))),
        None => Step::Skip(*of),
    };
    let absent = columns.iter().enumerate().filter(|(_, column)| !fields.iter().any(|(name, _)| name == column.name()));
    Fill { steps: fields.iter().map(step).collect(), absent: absent.map(|(index, _)| index).collect() }
}

/// What the types of a value and of a column have in common; the rest is said of each value that does not fit.
fn plan(schema: &Schema, of: TypeId, column: &DataType, json: bool) -> Plan {
    match (schema.get(of), column) {
        (Type::Union(branches), _) => {
            Plan::Union(branches.iter().map(|branch| plan(schema, *branch, column, json)).collect())
        }
        _ if json => Plan::Value(of),
        (Type::Record(_, fields), DataType::Struct(columns)) => Plan::Record(fill(schema, fields, columns)),
        (Type::Array(item), DataType::List(field)) => {
            Plan::List(Box::new(plan(schema, *item, field.data_type(), is_json(field))))
        }
        (Type::Map(value), DataType::Map(entry, _)) => match entry.data_type() {
            DataType::Struct(parts) if parts.len() == 2 => {
                Plan::Map(Box::new(plan(schema, *value, parts[1].data_type(), is_json(&parts[1]))))
            }
            _ => Plan::Value(of),
        },
        _ => Plan::Value(of),
    }
}

fn finite(double: f64) -> Result<Value, Bad> {
    let number = Number::from_f64(double).map(Value::Number);
    number.ok_or_else(|| bad("out-of-range", format_args!("{double} has no place in JSON")))
}

/// Two's complement, big-endian; none of more than 128 bits.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let filler = if negative { 0xff } else { 0 };
    let surplus = bytes.len().saturating_sub(16);
    if bytes[..surplus].iter().any(|byte| *byte != filler) {
        return None;
    }
    let bytes = &bytes[surplus..];
    let mut wide = [filler; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    let value = i128::from_be_bytes(wide);
    ((value < 0) == negative).then_some(value)
}

fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
