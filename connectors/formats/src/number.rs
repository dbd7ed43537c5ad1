//! Numbers of JSON: read once, exactly.
//!
//! What is written as most numbers are, [`Plain`] reads: 32 bytes say where it ends, and its digits are added up together, without
//! a branch that depends on how many they are or where the point is. A double then needs a division by a power of ten that is
//! right to the last bit. Up to fifteen digits the processor's own is (W. D. Clinger, "How to read floating point numbers
//! accurately", 1990). Beyond, the 64 leading bits of the power's reciprocal settle nearly all cases, 128 nearly all others
//! (D. Lemire, "Number parsing at a gigabyte per second", 2021). What they leave open, and what is very large or small, the
//! standard library decides.

use crate::chunk::next_bytes;
use crate::plain::Plain;

/// A number as it is written.
pub struct Number<'a> {
    /// What it stands in, and where: it is cut out only where somebody asks for it.
    within: &'a str,
    from: usize,
    end: usize,
    negative: bool,
    /// All digits, the point left out; meaningless if `exact` is false.
    digits: u64,
    /// The power of ten that the digits are multiplied with.
    exponent: i32,
    exact: bool,
    /// Without a point and an exponent.
    pub is_integer: bool,
}

/// Any 19 digits fit 64 bits.
const EXACT_DIGITS: usize = 19;
/// Any fifteen digits are a double. So are some numbers of sixteen, up to 2^53; but measured numbers have sixteen or seventeen
/// digits, and to have all of them take one way is faster than to guess which.
pub const SHORT: u64 = 1_000_000_000_000_000;
/// Powers of ten that are doubles.
pub const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl<'a> Number<'a> {
    /// Reads the number that begins at `from`; says what is wrong, and where.
    pub fn read(text: &'a str, from: usize) -> Result<Number<'a>, (usize, &'static str)> {
        match Plain::read(text.as_bytes(), from) {
            Some(Plain { digits, behind, negative, is_integer, end }) => {
                let exponent = -(behind as i32);
                Ok(Number { within: text, from, end, negative, digits, exponent, exact: true, is_integer })
            }
            None => Number::read_any(text, from),
        }
    }

    /// Reads a number of any form.
    fn read_any(text: &'a str, from: usize) -> Result<Number<'a>, (usize, &'static str)> {
        let bytes = text.as_bytes();
        let negative = bytes.get(from) == Some(&b'-');
        let first = from + usize::from(negative);
        let (mut digits, mut end) = gather(bytes, first, 0);
        let mut count = end - first;
        if count == 0 {
            return Err((end, "a digit is expected"));
        }
        if count > 1 && bytes[first] == b'0' {
            return Err((first, "a number does not begin with 0"));
        }
        let (mut exponent, mut is_integer) = (0, true);
        if bytes.get(end) == Some(&b'.') {
            let point = end;
            (digits, end) = gather(bytes, point + 1, digits);
            if end == point + 1 {
                return Err((end, "a digit is expected behind the point"));
            }
            is_integer = false;
            count += end - point - 1;
            exponent = -((end - point - 1) as i32);
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let power;
            (power, end) = power_of_ten(bytes, end + 1)?;
            is_integer = false;
            exponent += power;
        }
        let exact = count <= EXACT_DIGITS;
        Ok(Number { within: text, from, end, negative, digits, exponent, exact, is_integer })
    }

    /// How it is written.
    pub fn text(&self) -> &'a str {
        &self.within[self.from..self.end]
    }

    /// The byte behind it.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.end
    }

    /// The nearest double, infinite if there is none.
    pub fn double(&self) -> f64 {
        let power = || POWERS.get(self.exponent.unsigned_abs() as usize);
        let nearest = match self.exponent {
            _ if !self.exact => None,
            0 => Some(self.digits as f64),
            ..0 if self.digits < SHORT => power().map(|power| self.digits as f64 / power),
            1.. if self.digits < SHORT => power().map(|power| self.digits as f64 * power),
            exponent => divide(self.digits, -exponent),
        };
        match nearest {
            Some(nearest) if self.negative => -nearest,
            Some(nearest) => nearest,
            None => self.slowly(),
        }
    }

    /// The integer, if it is written as one and fits.
    #[inline]
    pub fn integer(&self) -> Option<i128> {
        if !self.is_integer {
            return None;
        }
        if !self.exact {
            return self.text().parse().ok();
        }
        let digits = i128::from(self.digits);
        Some(if self.negative { -digits } else { digits })
    }

    #[cold]
    fn slowly(&self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }
}

/// Where the digits end that begin at `at`.
#[inline]
fn end_of_digits(bytes: &[u8], mut at: usize) -> usize {
    loop {
        let count = count_digits(eight(bytes, at));
        at += count;
        if count < 8 {
            return at;
        }
    }
}

/// Appends the digits that begin at `at` to a number; it wraps around beyond 64 bits. Returns it, and where they end.
#[inline(always)]
fn gather(bytes: &[u8], mut at: usize, mut number: u64) -> (u64, usize) {
    loop {
        let word = eight(bytes, at);
        match count_digits(word) {
            8 => {
                number = number.wrapping_mul(100_000_000).wrapping_add(value(word ^ ZEROS));
                at += 8;
            }
            0 => return (number, at),
            count => {
                // What is no digit goes, and the digits move to where the last ones of eight are.
                let digits = (word ^ ZEROS) << (64 - 8 * count);
                number = number.wrapping_mul(TENS[count]).wrapping_add(value(digits));
                return (number, at + count);
            }
        }
    }
}

/// Powers of ten, of fewer digits than a word holds.
const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

/// The next eight bytes, the first in the lowest; zeros where the text has ended.
#[inline]
fn eight(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(next_bytes(bytes, at))
}

/// How many of the eight bytes are digits before the first that is none.
#[inline]
fn count_digits(word: u64) -> usize {
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const TO_HIGH: u64 = u64::from_le_bytes([0x80 - 10; 8]);
    let low = word ^ ZEROS;
    // From 10 on the addition reaches the high bit. It may carry into the byte behind one that has it anyway.
    let others = (low.wrapping_add(TO_HIGH) | low) & HIGH;
    others.trailing_zeros() as usize / 8
}

/// The number that eight digits make, the first in the lowest byte: pairs, then fours, then all.
#[inline]
fn value(digits: u64) -> u64 {
    const FOURS: u64 = 0x0000_00ff_0000_00ff;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & FOURS).wrapping_mul(100 + (1_000_000 << 32));
    let low = (pairs >> 16 & FOURS).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

/// Reads what stands behind the `e`. Powers that no double has are all the same.
fn power_of_ten(bytes: &[u8], at: usize) -> Result<(i32, usize), (usize, &'static str)> {
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
    let end = end_of_digits(bytes, first);
    if end == first {
        return Err((end, "a digit is expected in the exponent"));
    }
    let power = bytes[first..end].iter().fold(0i32, |n, b| (n * 10 + i32::from(b - b'0')).min(100_000));
    Ok((if negative { -power } else { power }, end))
}

/// Powers of ten that a number of 64 bits is divided by here.
const DIVISORS: usize = 28;

const RECIPROCALS: [Reciprocal; DIVISORS] = {
    let mut all = [Reciprocal { high: 0, low: 0, scale: 0 }; DIVISORS];
    let mut power = 1;
    while power < DIVISORS {
        all[power] = reciprocal(power as u32);
        power += 1;
    }
    all
};

/// The 128 leading bits of 1/10^n, rounded down.
#[derive(Clone, Copy)]
struct Reciprocal {
    high: u64,
    low: u64,
    /// 1/10^n lies between them / 2^`scale` and one more.
    scale: i32,
}

/// By long division.
const fn reciprocal(power: u32) -> Reciprocal {
    let of = 5u64.pow(power);
    let shift = 127 + (64 - of.leading_zeros());
    let (mut quotient, mut rest, mut step) = (0u128, 1u64, 0);
    while step < shift {
        rest <<= 1;
        quotient <<= 1;
        if rest >= of {
            rest -= of;
            quotient |= 1;
        }
        step += 1;
    }
    Reciprocal { high: (quotient >> 64) as u64, low: quotient as u64, scale: (shift + power) as i32 }
}

/// The double nearest to `digits` / 10^`power`; `None` where the reciprocal's bits do not tell.
#[inline(always)]
pub fn divide(digits: u64, power: i32) -> Option<f64> {
    if !(1..DIVISORS as i32).contains(&power) || digits == 0 {
        return None;
    }
    let by = &RECIPROCALS[power as usize];
    let shift = digits.leading_zeros();
    let digits = digits << shift;
    // The upper 64 of 192 bits. What is left out is less than two of the last.
    let high = ((u128::from(digits) * u128::from(by.high)) >> 64) as u64;
    let below = 11 - high.leading_zeros();
    let (rest, half) = (high & ((1 << below) - 1), 1 << (below - 1));
    let is_up = if rest == half || rest + 1 == half { is_more_than_half(digits, by, below)? } else { rest > half };
    let exponent = below as i32 + 128 - by.scale - shift as i32;
    // The mantissa's first bit is one of the exponent's, which it makes one more; so does its overflow.
    let bits = ((exponent + 1023 + 52 - 1) as u64) << 52;
    Some(f64::from_bits(bits + (high >> below) + u64::from(is_up)))
}

/// One in some five hundred is so near to the middle that it takes all bits of the reciprocal.
#[cold]
fn is_more_than_half(digits: u64, by: &Reciprocal, below: u32) -> Option<bool> {
    let digits = u128::from(digits);
    // The upper 128 of 192 bits. The reciprocal was rounded down, so that the truth is less than 2 above.
    let product = digits * u128::from(by.high) + ((digits * u128::from(by.low)) >> 64);
    let below = below + 64;
    let (rest, half) = (product & ((1 << below) - 1), 1 << (below - 1));
    (rest > half || rest + 2 < half).then_some(rest > half)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// What may stand before a number. Behind seventeen bytes, most are read in another way.
    const BEFORE: [&str; 4] = ["", "9", "99999999999999999:", "999999999999.99999"];

    /// Wherever it stands: what is before it is looked at, and is none of it.
    fn assert_exact(text: &str) {
        let expected: f64 = text.parse().unwrap();
        for before in BEFORE {
            let within = format!("{before}{text}");
            let number = Number::read(&within, before.len()).unwrap_or_else(|e| panic!("{within}: {e:?}"));
            assert_eq!(number.text(), text);
            assert_eq!(number.double().to_bits(), expected.to_bits(), "{text}: {} and not {expected}", number.double());
        }
    }

    #[test]
    fn a_double_is_the_nearest_one_bit_for_bit() {
        for text in [
            "0",
            "-0",
            "0.0",
            "-0.0e9",
            "1",
            "0.1",
            "0.30000000000000004",
            "9007199254740991",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.0",
            "4503599627370496.5",
            "4503599627370497.5",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "1e22",
            "1e23",
            "123456789012345678e22",
            "1.7976931348623157e308",
            "1.7976931348623159e308",
            "1e400",
            "2.2250738585072014e-308",
            "2.2250738585072011e-308",
            "4.9e-324",
            "2e-324",
            "1e-400",
            "0.000000000000000000000000000000000000001",
            "0.99999999999999999999999999999999999",
            "1e-0",
            "1E+2",
            "1e99999999999999999999",
            "0e99999999999999999999",
            "72057594037927945.6",
            "0.12345678901234567",
            "0.98765432109876543",
            "0.01234567890123456",
            "0.00000000000000001",
            "0.123456789012345678",
        ] {
            assert_exact(text);
        }
    }

    #[test]
    fn doubles_with_any_number_of_digits_are_exact() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..200_000 {
            let digits: String = (0..random.random_range(1..25)).map(|_| random.random_range('0'..='9')).collect();
            let whole = digits.trim_start_matches('0');
            let point = random.random_range(0..=whole.len());
            let (before, behind) = whole.split_at(point);
            let before = if before.is_empty() { "0" } else { before };
            let sign = if random.random_bool(0.2) { "-" } else { "" };
            let point = if behind.is_empty() { "" } else { "." };
            assert_exact(&format!("{sign}{before}{point}{behind}"));
            if random.random_bool(0.3) {
                assert_exact(&format!("{sign}{before}{point}{behind}e{}", random.random_range(-340..330)));
            }
        }
    }

    #[test]
    fn every_double_comes_back_from_its_own_text_and_from_the_middle_to_its_neighbour() {
        let mut random = StdRng::seed_from_u64(8);
        for _ in 0..100_000 {
            assert_exact(&format!("{:?}", random.random::<f64>()));
            assert_exact(&format!("{:.17}", random.random_range(-1e6..1e6)));
            // Exactly between two doubles: the even one is the nearest.
            let mantissa = (1u64 << 53 | random.random::<u64>() >> 11) * 2 + 1;
            let power = random.random_range(0..4);
            let fives = u128::from(mantissa) * 5u128.pow(power);
            if let Ok(digits) = u64::try_from(fives) {
                let text = digits.to_string();
                let (before, behind) = text.split_at(text.len() - power as usize);
                assert_exact(&format!("{before}.{behind}0"));
            }
        }
    }

    #[test]
    fn an_integer_is_exact_at_any_size() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("12345678", Some(12_345_678)),
            ("-9223372036854775808", Some(i128::from(i64::MIN))),
            ("18446744073709551615", Some(i128::from(u64::MAX))),
            ("170141183460469231731687303715884105727", Some(i128::MAX)),
            ("170141183460469231731687303715884105728", None),
            ("1.0", None),
            ("1e3", None),
        ] {
            for before in BEFORE {
                let within = format!("{before}{text}");
                let number = Number::read(&within, before.len()).ok().unwrap();
                assert_eq!(number.integer(), expected, "{within}");
            }
        }
    }

    #[test]
    fn what_is_no_number_of_json_is_refused_at_its_place() {
        for (text, at) in [
            ("", 0),
            ("-", 1),
            ("+1", 0),
            (".5", 0),
            ("01", 0),
            ("-00", 1),
            ("1.", 2),
            ("1.e5", 2),
            ("1e", 2),
            ("1e+", 3),
            ("NaN", 0),
            ("-Infinity", 1),
        ] {
            for before in BEFORE {
                let found = Number::read(&format!("{before}{text}"), before.len()).err();
                assert_eq!(found.map(|(place, _)| place), Some(before.len() + at), "{before}{text}");
            }
        }
    }

    #[test]
    fn a_number_ends_where_it_ends_whatever_comes_then() {
        for text in ["1", "12345678", "-12345678901234567", "0.1234567890123456", "123456789012345678901234567890.5"] {
            for (before, behind) in
                BEFORE.into_iter().flat_map(|before| [",2", " 9", "}", "", "\u{e9}"].map(|behind| (before, behind)))
            {
                let within = format!("{before}{text}{behind}");
                let number = Number::read(&within, before.len()).ok().unwrap();
                assert_eq!((number.text(), number.end()), (text, before.len() + text.len()), "{within}");
            }
        }
    }
}
