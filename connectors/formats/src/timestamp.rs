//! ISO 8601 text to nanoseconds since 1970, exactly, with 0 to 9 fractional digits.

/// Reads `2019-11-19T10:10:11.5091350Z`, with `T` or a space, and `Z`, `+01:00`, `+0100` or nothing (UTC) at the end.
/// `None` if it is not such a text, names no real moment, or lies outside 1677-09-21 to 2262-04-11.
pub fn parse_instant(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (year, month, day) = (digits(bytes, 0, 4)?, digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let days = days_since_1970(year, month, day);
    if bytes.len() == 10 {
        return days.checked_mul(86_400_000_000_000);
    }
    if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let (hour, minute, second) = (digits(bytes, 11, 2)?, digits(bytes, 14, 2)?, digits(bytes, 17, 2)?);
    if bytes.get(13) != Some(&b':') || bytes.get(16) != Some(&b':') || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, end) = fraction(bytes)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset(&bytes[end..])?;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// Nanoseconds behind the point, and where they end.
fn fraction(bytes: &[u8]) -> Option<(i64, usize)> {
    if !matches!(bytes.get(19), Some(b'.' | b',')) {
        return Some((0, 19));
    }
    let count = bytes[20..].iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 || count > 9 {
        return None;
    }
    let value = digits(bytes, 20, count)?;
    Some((value * 10i64.pow(9 - count as u32), 20 + count))
}

/// Seconds east of Greenwich.
fn offset(bytes: &[u8]) -> Option<i64> {
    let sign = match bytes {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = match bytes.len() {
        3 => (digits(bytes, 1, 2)?, 0),
        5 => (digits(bytes, 1, 2)?, digits(bytes, 3, 2)?),
        6 if bytes[3] == b':' => (digits(bytes, 1, 2)?, digits(bytes, 4, 2)?),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn digits(bytes: &[u8], at: usize, count: usize) -> Option<i64> {
    let text = bytes.get(at..at + count)?;
    text.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + (b - b'0') as i64))
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + leap as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The proleptic Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse_instant;

    #[test]
    fn all_that_the_seed_s_tools_write_is_read_exactly() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01", 0),
            ("2019-11-19T10:10:11.5091350Z", 1_574_158_211_509_135_000),
            ("2019-11-19 10:10:11.509135", 1_574_158_211_509_135_000),
            ("2019-11-19T11:10:11.509135000+01:00", 1_574_158_211_509_135_000),
            ("2020-02-29T00:00:00.1-0030", 1_582_936_200_100_000_000),
            ("1969-12-31T23:59:59.999999999Z", -1),
        ] {
            assert_eq!(parse_instant(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_names_no_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2019-13-01T00:00:00Z",
            "2019-02-29T00:00:00Z",
            "2019-11-19T24:00:00Z",
            "2019-11-19T10:10:11.Z",
            "2019-11-19T10:10:11.1234567890Z",
            "9999-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "2019-11-19T10:10:11 Z",
            "2019-11-19T10:10:11+1",
            "1574158211",
        ] {
            assert_eq!(parse_instant(text), None, "{text}");
        }
    }
}
