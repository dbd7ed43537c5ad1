//! Days and times of day, as SQL Server counts them: days since 0001-01-01 and ticks of 100 nanoseconds.

/// 0001-01-01 to 9999-12-31.
pub const LAST_DAY: i64 = 3_652_058;
pub const TICKS_A_DAY: i64 = 864_000_000_000;
const TICKS_A_SECOND: i64 = 10_000_000;
/// 1900-01-01, from which `datetime` counts.
pub const DAY_1900: i64 = 693_595;
/// 1753-01-01, the first day of `datetime`.
pub const DAY_1753: i64 = 639_905;

/// A point on the calendar, and how far ahead of UTC its clock is, in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    pub day: i64,
    pub tick: i64,
    pub offset: i64,
}

impl Moment {
    /// Moved by ticks, over midnight if need be; `None`: outside of the calendar.
    pub fn moved(self, ticks: i64) -> Option<Self> {
        let tick = self.tick + ticks;
        let day = self.day + tick.div_euclid(TICKS_A_DAY);
        (0..=LAST_DAY).contains(&day).then_some(Moment { day, tick: tick.rem_euclid(TICKS_A_DAY), ..self })
    }

    /// The same instant on the clock of UTC; the offset stays known.
    pub fn utc(self) -> Option<Self> {
        self.moved(-self.offset * 60 * TICKS_A_SECOND)
    }

    pub fn local(self) -> Option<Self> {
        self.moved(self.offset * 60 * TICKS_A_SECOND)
    }

    /// To so many digits of a second, half up. At the end of the calendar it stays there.
    pub fn rounded(self, digits: u8) -> Self {
        let unit = 10i64.pow(7 - u32::from(digits.min(7)));
        let tick = (self.tick + unit / 2) / unit * unit;
        if tick < TICKS_A_DAY {
            return Moment { tick, ..self };
        }
        if self.day < LAST_DAY {
            Moment { day: self.day + 1, tick: 0, ..self }
        } else {
            Moment { tick: TICKS_A_DAY - unit, ..self }
        }
    }

    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs() as i64;
        let tick = seconds % 86_400 * TICKS_A_SECOND + i64::from(since.subsec_nanos()) / 100;
        Moment { day: DAY_1970 + seconds / 86_400, tick, offset: 0 }
    }
}

const DAY_1970: i64 = 719_162;

/// A date's day, if there is such a date.
pub fn day_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=9999).contains(&year) || !(1..=last).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the day that comes and goes is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(before + (153 * month + 2) / 5 + day - 1 - 306)
}

pub fn date_of(day: i64) -> (i64, i64, i64) {
    // The year is guessed, and at most one off.
    let mut year = day * 400 / 146_097 + 1;
    while day_of(year, 1, 1).is_none_or(|first| first > day) {
        year -= 1;
    }
    while day_of(year + 1, 1, 1).is_some_and(|first| first <= day) {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| day_of(year, *month, 1).is_some_and(|first| first <= day)).unwrap_or(1);
    (year, month, day - day_of(year, month, 1).unwrap_or(day) + 1)
}

pub fn write_date(day: i64) -> String {
    let (year, month, day) = date_of(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// hh:mm:ss and so many digits.
pub fn write_time(tick: i64, digits: u8) -> String {
    let seconds = tick / TICKS_A_SECOND;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if digits > 0 {
        let part = format!("{:07}", tick % TICKS_A_SECOND);
        text.push('.');
        text.push_str(&part[..usize::from(digits.min(7))]);
    }
    text
}

pub fn write_offset(minutes: i64) -> String {
    format!("{}{:02}:{:02}", if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60)
}

/// What a text says: the date, the time and the offset, each if it is there. ISO 8601 and the ODBC form; no others, as the server
/// reads those in every language. <https://learn.microsoft.com/sql/t-sql/data-types/datetime2-transact-sql>
pub fn parse(text: &str) -> Option<(Option<i64>, Option<i64>, Option<i64>)> {
    let text = text.trim_matches(' ');
    let (date, rest) = split_date(text)?;
    if rest.is_empty() {
        return date.map(|day| (Some(day), None, None));
    }
    let (time, offset) = split_offset(rest)?;
    Some((date, Some(parse_time(time)?), offset))
}

fn split_date(text: &str) -> Option<(Option<i64>, &str)> {
    let bytes = text.as_bytes();
    if bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-' && text.is_char_boundary(10) {
        let day = day_of(number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?)?;
        let rest = &text[10..];
        return Some((Some(day), rest.strip_prefix(['T', ' ']).unwrap_or(rest).trim_start()));
    }
    if bytes.len() == 8 && bytes.iter().all(u8::is_ascii_digit) {
        return Some((Some(day_of(number(&text[..4])?, number(&text[4..6])?, number(&text[6..])?)?), ""));
    }
    Some((None, text))
}

fn split_offset(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time.trim_end(), Some(0)));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, None)) };
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let minutes = number(hours)? * 60 + number(minutes)?;
    if minutes > 14 * 60 {
        return None;
    }
    Some((text[..at].trim_end(), Some(if text[at..].starts_with('-') { -minutes } else { minutes })))
}

fn parse_time(text: &str) -> Option<i64> {
    let (clock, part) = text.split_once('.').unwrap_or((text, ""));
    let fields: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match fields.as_slice() {
        [hour, minute] => (number(hour)?, number(minute)?, 0),
        [hour, minute, second] => (number(hour)?, number(minute)?, number(second)?),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 || part.len() > 9 {
        return None;
    }
    let nanos = if part.is_empty() { 0 } else { number(&format!("{part:0<9}"))? };
    Some((hour * 3600 + minute * 60 + second) * TICKS_A_SECOND + (nanos + 50) / 100)
}

fn number(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hundredth_day_is_a_date_and_back() {
        assert_eq!(day_of(1, 1, 1), Some(0));
        assert_eq!(day_of(9999, 12, 31), Some(LAST_DAY));
        assert_eq!(day_of(1900, 1, 1), Some(DAY_1900));
        assert_eq!(day_of(1753, 1, 1), Some(DAY_1753));
        assert_eq!(day_of(1970, 1, 1), Some(DAY_1970));
        assert_eq!(day_of(2023, 2, 29), None);
        for day in (0..=LAST_DAY).step_by(100) {
            let (year, month, of_month) = date_of(day);
            assert_eq!(day_of(year, month, of_month), Some(day));
        }
    }

    #[test]
    fn texts_of_times_keep_seven_digits() {
        let (day, tick, offset) = parse("2024-02-29T23:59:59.9999999+02:00").unwrap();
        assert_eq!(write_date(day.unwrap()), "2024-02-29");
        assert_eq!(write_time(tick.unwrap(), 7), "23:59:59.9999999");
        assert_eq!(offset, Some(120));
        assert_eq!(parse("2024-13-01"), None);
        assert_eq!(parse("nonsense"), None);
        assert_eq!(parse("12:30").unwrap().1, Some(45_000 * TICKS_A_SECOND));
    }
}
