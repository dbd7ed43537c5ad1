//! DATEADD and DATEDIFF. <https://learn.microsoft.com/sql/t-sql/functions/datediff-transact-sql>

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Result};

use super::functions::{failed, type_of};
use crate::error::SqlError;
use crate::temporal::{DAY_1900, Moment, TICKS_A_DAY};
use crate::types::Type;
use crate::value::{Value, store_moment, stored_moment};

/// A part of a date, by its ticks.
const PARTS: [(&str, i64); 5] = [
    ("day", TICKS_A_DAY),
    ("hour", TICKS_A_DAY / 24),
    ("minute", TICKS_A_DAY / 1440),
    ("second", TICKS_A_DAY / 86_400),
    ("millisecond", TICKS_A_DAY / 86_400_000),
];

/// `function`: as errors name it.
pub fn ticks_of(part: &str, function: &str) -> Result<i64, SqlError> {
    let found = PARTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(part));
    let unknown = || SqlError::new(155, 15, format!("'{part}' is not a recognized {function} option."));
    found.map(|(_, ticks)| *ticks).ok_or_else(unknown)
}

pub fn register(connection: &Connection, pure: FunctionFlags) -> Result<()> {
    // A number stands for the day so many days after the first of 1900.
    connection.create_scalar_function("tds_day", 1, pure, |c| {
        let day = c.get::<Option<i64>>(0)?;
        let moment = |day| Moment { day: DAY_1900 + day, ..Moment::default() };
        Ok(day.map_or(Value::Null, |day| store_moment(moment(day), Type::DateTime)))
    })?;
    connection.create_scalar_function("tds_datediff", 4, pure, |c| {
        let ticks: i64 = c.get(0)?;
        let (Some(from), Some(to)) = (c.get::<Option<String>>(1)?, c.get::<Option<String>>(2)?) else {
            return Ok(None);
        };
        let boundaries = |text: &str| whole_ticks(stored_moment(text)).div_euclid(ticks);
        let between = boundaries(&to) - boundaries(&from);
        if c.get::<bool>(3)? || i32::try_from(between).is_ok() { Ok(Some(between)) } else { Err(failed(too_many())) }
    })?;
    connection.create_scalar_function("tds_dateadd", 4, pure, |c| {
        let (ticks, of): (i64, _) = (c.get(0)?, type_of(c, 3)?);
        let (Some(number), Some(text)) = (c.get::<Option<i64>>(1)?, c.get::<Option<String>>(2)?) else {
            return Ok(Value::Null);
        };
        // Beyond any calendar, and far from what the count of ticks can hold.
        let moved = number.checked_mul(ticks).filter(|ticks| ticks.unsigned_abs() < i64::MAX as u64 / 2);
        let moment = moved.and_then(|ticks| stored_moment(&text).moved(ticks));
        moment.map(|moment| store_moment(moment, of)).ok_or_else(|| failed(out_of_calendar(of)))
    })
}

fn whole_ticks(moment: Moment) -> i64 {
    moment.day * TICKS_A_DAY + moment.tick
}

fn too_many() -> SqlError {
    let message = "The datediff function resulted in an overflow. The number of dateparts separating two date/time instances is too large. \
                   Try to use datediff with a less precise datepart.";
    SqlError::new(535, 16, message)
}

fn out_of_calendar(of: Type) -> SqlError {
    SqlError::new(517, 16, format!("Adding a value to a '{}' column caused an overflow.", of.name()))
}
