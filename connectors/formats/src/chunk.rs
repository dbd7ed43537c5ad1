//! Several bytes of a text at a time, and where plain text ends.

use wide::u8x16;

const CHUNK: usize = 16;

/// Where text ends that stands for itself: at a quote, a backslash, a control character or the end.
#[inline]
pub fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    loop {
        let chunk = u8x16::new(next_bytes::<CHUNK>(bytes, at));
        let control = chunk.min(u8x16::splat(0x1f)).simd_eq(chunk);
        let stops = chunk.simd_eq(u8x16::splat(b'"')) | chunk.simd_eq(u8x16::splat(b'\\')) | control;
        let stops = stops.to_bitmask();
        if stops != 0 {
            return at + stops.trailing_zeros() as usize;
        }
        at += CHUNK;
    }
}

/// So many bytes are looked at for digits.
pub const DIGITS: usize = 2 * CHUNK;

/// Which of these bytes are digits: one bit each, the first lowest.
#[inline(always)]
pub fn digits(bytes: &[u8; DIGITS]) -> u64 {
    let of_chunk = |at| {
        let chunk = u8x16::new(next_bytes::<CHUNK>(bytes, at)) - u8x16::splat(b'0');
        u64::from(chunk.min(u8x16::splat(9)).simd_eq(chunk).to_bitmask())
    };
    of_chunk(0) | of_chunk(CHUNK) << CHUNK
}

/// As [`next_bytes`], where they lie; where the text has ended, in `room`.
#[inline(always)]
pub fn next_chunk<'a, const N: usize>(text: &'a [u8], at: usize, room: &'a mut [u8; N]) -> &'a [u8; N] {
    match text.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => bytes,
        None => {
            *room = last_bytes(text.get(at..).unwrap_or_default());
            room
        }
    }
}

/// The next bytes of a text; where it has ended zeros, which are control characters and no digits.
#[inline(always)]
pub fn next_bytes<const N: usize>(text: &[u8], at: usize) -> [u8; N] {
    match text.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => *bytes,
        None => last_bytes(text.get(at..).unwrap_or_default()),
    }
}

#[cold]
fn last_bytes<const N: usize>(rest: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_bytes_that_are_digits() {
        for byte in 0..=u8::MAX {
            for length in [1, 15, 16, 17, 31, 32, 40] {
                let expected = if byte.is_ascii_digit() { u64::MAX >> (64 - length.min(DIGITS)) } else { 0 };
                assert_eq!(digits(&next_bytes(&vec![byte; length], 0)), expected, "{length} times {byte}");
            }
        }
        assert_eq!(digits(&next_bytes(b"x12.5", 1)), 0b1011);
    }

    #[test]
    fn plain_text_ends_where_it_ends_wherever_that_is() {
        for length in 0..70 {
            for tail in ["", "\"", "\\", "\n", "\0", "\u{1f}", "\" and more than another sixteen bytes"] {
                let text = format!("{}{tail}", "a~ ü".repeat(18).chars().take(length).collect::<String>());
                assert_eq!(end_of_plain(text.as_bytes(), 0), text.len() - tail.len(), "{text:?}");
            }
        }
    }
}
