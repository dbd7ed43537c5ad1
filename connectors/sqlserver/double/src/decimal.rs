//! Exact decimals of up to 38 digits.

use std::cmp::Ordering;
use std::fmt;

/// `value` × 10^−`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    pub value: i128,
    pub scale: u8,
}

impl Decimal {
    /// An optional sign, digits, a point, digits. As T-SQL reads it, spaces around do not matter.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(' ');
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + part.len() == 0 || part.len() > 38 {
            return None;
        }
        let mut value = 0i128;
        for digit in whole.bytes().chain(part.bytes()) {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        Some(Decimal { value: if negative { -value } else { value }, scale: part.len() as u8 })
    }

    pub fn from_integer(value: i64) -> Self {
        Decimal { value: value.into(), scale: 0 }
    }

    /// With another scale, rounded half away from zero; `None`: too large.
    pub fn rescaled(self, scale: u8) -> Option<Self> {
        if scale >= self.scale {
            let factor = power_of_ten(scale - self.scale)?;
            return Some(Decimal { value: self.value.checked_mul(factor)?, scale });
        }
        let divisor = power_of_ten(self.scale - scale)?;
        let (quotient, rest) = (self.value / divisor, self.value % divisor);
        let up = rest.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
        Some(Decimal { value: quotient + if up { self.value.signum() } else { 0 }, scale })
    }

    /// Whether it has no more digits than that.
    pub fn fits(&self, precision: u8) -> bool {
        power_of_ten(precision).is_some_and(|limit| self.value.unsigned_abs() < limit.unsigned_abs())
    }

    /// The whole part; the rest is cut off.
    pub fn truncated(self) -> i128 {
        power_of_ten(self.scale).map_or(0, |divisor| self.value / divisor)
    }

    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// By value, whatever the scales.
    pub fn compare(self, other: Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        match (self.rescaled(scale), other.rescaled(scale)) {
            (Some(one), Some(two)) => one.value.cmp(&two.value),
            _ => self.truncated().cmp(&other.truncated()),
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = format!("{:0>1$}", self.value.unsigned_abs(), scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        let sign = if self.value < 0 { "-" } else { "" };
        if part.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{part}") }
    }
}

pub fn power_of_ten(exponent: u8) -> Option<i128> {
    10i128.checked_pow(exponent.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_digits_and_round_away_from_zero() {
        let of = |text| Decimal::parse(text).unwrap();
        assert_eq!(of("-0012.340").to_string(), "-12.340");
        assert_eq!(of("2.345").rescaled(2).unwrap().to_string(), "2.35");
        assert_eq!(of("-2.345").rescaled(2).unwrap().to_string(), "-2.35");
        assert_eq!(of("0.05").rescaled(0).unwrap().to_string(), "0");
        assert_eq!(of("1.50").compare(of("1.5")), Ordering::Equal);
        assert!(of("99999999999999999999999999999999999999").fits(38));
        assert_eq!(Decimal::parse("1e5"), None);
    }
}
