//! Numbers of the form that most have: up to 17 digits, a point among them or not, and no exponent.
//!
//! Nothing of one leaves the processor's registers until it is a double: to hand it on by memory, as a number of any form is,
//! cost a tenth of the time of an event of doubles.

use wide::bytemuck::cast;
use wide::{i16x8, i32x4, u8x16};

use crate::chunk::{DIGITS, digits, next_bytes, next_chunk};
use crate::number::{POWERS, SHORT, divide};

/// Such a number.
#[derive(Clone, Copy)]
pub struct Plain {
    /// All of them, the point left out.
    pub digits: u64,
    /// So many of them stand behind the point.
    pub behind: usize,
    pub negative: bool,
    pub is_integer: bool,
    /// The byte behind it.
    pub end: usize,
}

/// So many digits are added up at once.
const TOGETHER: usize = 16;
/// The power of ten that the digit before them counts.
const BEFORE_THEM: u64 = 10u64.pow(TOGETHER as u32);
impl Plain {
    /// The number that begins at `from`; none if it is of another form, or begins among the first bytes of the text.
    #[inline(always)]
    pub fn read(bytes: &[u8], from: usize) -> Option<Plain> {
        let negative = bytes.get(from) == Some(&b'-');
        let first = from + usize::from(negative);
        let mut room = [0; DIGITS];
        let ahead = next_chunk(bytes, first, &mut room);
        let found = digits(ahead);
        let whole = found.trailing_ones() as usize;
        let is_integer = ahead.get(whole) != Some(&b'.');
        let behind = if is_integer { 0 } else { (found >> whole >> 1).trailing_ones() as usize };
        let length = whole + usize::from(!is_integer) + behind;
        // A zero before the point is no digit that counts: many measured numbers are below one, and have 17 digits behind it.
        let zero = usize::from(whole == 1 && ahead[0] == b'0');
        let count = whole - zero + behind;
        if whole == 0 || whole > 1 && ahead[0] == b'0' || behind == 0 && !is_integer || count > TOGETHER + 1 {
            return None;
        }
        if matches!(ahead.get(length), Some(b'e' | b'E')) {
            return None;
        }
        // The last sixteen digits, as if there were no point: what stands before it moves by one.
        let end = first + length;
        let window: &[u8; TOGETHER + 1] = bytes.get(..end)?.last_chunk()?;
        let (behind_it, before_it) = (u8x16::new(next_bytes(window, 1)), u8x16::new(next_bytes(window, 0)));
        let behind_point = last(if is_integer { TOGETHER } else { behind.min(TOGETHER) });
        let joined = ((behind_it ^ before_it) & behind_point) ^ before_it;
        let digits = sixteen((joined - u8x16::splat(b'0')) & last(count.min(TOGETHER)));
        let seventeenth =
            if count > TOGETHER { BEFORE_THEM } else { 0 } * u64::from(ahead[2 * zero].wrapping_sub(b'0'));
        Some(Plain { digits: digits + seventeenth, behind, negative, is_integer, end })
    }

    /// The nearest double; none where that takes a closer look.
    #[inline(always)]
    pub fn double(self) -> Option<f64> {
        // 17 digits are few enough for a sign.
        let digits = self.digits as i64 as f64;
        let nearest = if self.digits < SHORT {
            digits / POWERS[self.behind]
        } else if self.behind == 0 {
            digits
        } else {
            divide(self.digits, self.behind as i32)?
        };
        Some(f64::from_bits(nearest.to_bits() | u64::from(self.negative) << 63))
    }
}

/// Keeps the last so many of sixteen bytes.
#[inline(always)]
fn last(count: usize) -> u8x16 {
    const KEPT: [u8; 2 * TOGETHER] = {
        let mut kept = [0; 2 * TOGETHER];
        let mut at = TOGETHER;
        while at < kept.len() {
            kept[at] = u8::MAX;
            at += 1;
        }
        kept
    };
    u8x16::new(next_bytes(&KEPT, count))
}

/// The number that sixteen digits make: pairs, then fours, of all at once.
#[inline(always)]
fn sixteen(digits: u8x16) -> u64 {
    let tens = i16x8::new([10, 1, 10, 1, 10, 1, 10, 1]);
    let hundreds = i16x8::new([100, 1, 100, 1, 100, 1, 100, 1]);
    let pairs = [i16x8::from_u8x16_low(digits).dot(tens), i16x8::from_u8x16_high(digits).dot(tens)];
    let fours = i16x8::from_i32x8_saturate(cast(pairs)).dot(hundreds);
    let [high, low] = cast::<i32x4, [u64; 2]>(fours);
    let eight = |fours: u64| (fours & 0xffff_ffff) * 10_000 + (fours >> 32);
    eight(high) * 100_000_000 + eight(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_numbers_are_plain_wherever_their_point_is() {
        let before = "what stands before it:";
        for text in
            ["0", "-0.0", "7.5", "99.99999999999999", "0.12345678901234567", "-12345678901234567", "1234567890123456.7"]
        {
            let plain = Plain::read(format!("{before}{text},").as_bytes(), before.len());
            let double = plain.and_then(Plain::double);
            assert_eq!(double.map(f64::to_bits), text.parse().ok().map(f64::to_bits), "{text}");
        }
        for text in ["1e5", "123456789012345678", "01", "1.", "-", ".5", "x"] {
            assert!(Plain::read(format!("{before}{text},").as_bytes(), before.len()).is_none(), "{text}");
        }
    }
}
