//! Sixteen bytes of a text at a time: where plain text ends.

use wide::u8x16;

const CHUNK: usize = 16;

/// Where text ends that stands for itself: at a quote, a backslash, a control character or the end.
#[inline]
pub fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    loop {
        let chunk = chunk(bytes, at);
        let control = chunk.min(u8x16::splat(0x1f)).simd_eq(chunk);
        let stops = chunk.simd_eq(u8x16::splat(b'"')) | chunk.simd_eq(u8x16::splat(b'\\')) | control;
        let stops = stops.to_bitmask();
        if stops != 0 {
            return at + stops.trailing_zeros() as usize;
        }
        at += CHUNK;
    }
}

/// The next bytes; where the text has ended zeros, which are control characters.
#[inline]
fn chunk(bytes: &[u8], at: usize) -> u8x16 {
    match bytes.get(at..at + CHUNK) {
        Some(chunk) => u8x16::new(chunk.try_into().unwrap_or_default()),
        None => last_bytes(bytes.get(at..).unwrap_or_default()),
    }
}

#[cold]
fn last_bytes(rest: &[u8]) -> u8x16 {
    let mut chunk = [0; CHUNK];
    chunk[..rest.len()].copy_from_slice(rest);
    u8x16::new(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

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
