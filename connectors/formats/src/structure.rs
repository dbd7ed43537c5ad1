//! Passing over an object or an array by its structure: 64 bytes at a time, as sets of bits, one bit a byte
//! (G. Langdale and D. Lemire, "Parsing gigabytes of JSON per second", 2019).

use wide::u8x64;

use crate::chunk::next_bytes;

const BLOCK: usize = 64;

/// Where the object or array ends whose bracket stands at `from`; else where it breaks, and what was expected there.
/// Looked at are the brackets, which have to be in pairs and within the bound of nesting, and the strings, which have to end and
/// hold no control character: nothing else.
pub fn end_of_nested(bytes: &[u8], from: usize) -> Result<usize, (usize, &'static str)> {
    let (mut nesting, mut strings) = (Nesting::default(), Strings::default());
    for block in (from..bytes.len()).step_by(BLOCK) {
        let found = Found::in_block(bytes, block);
        let inside = strings.inside(&found);
        let mut stops = found.brackets & !inside | found.controls & inside;
        while stops != 0 {
            let at = block + stops.trailing_zeros() as usize;
            if found.controls & stops & stops.wrapping_neg() != 0 {
                return Err(in_a_string(bytes, at));
            }
            nesting.meet(bytes[at]).map_err(|expected| (at, expected))?;
            if nesting.depth == 0 {
                return Ok(at + 1);
            }
            stops &= stops - 1;
        }
    }
    if strings.open != 0 {
        return Err(in_a_string(bytes, bytes.len()));
    }
    Err((bytes.len(), nesting.expected()))
}

#[cold]
fn in_a_string(bytes: &[u8], at: usize) -> (usize, &'static str) {
    match at < bytes.len() {
        true => (at, "no control character is expected in a string"),
        false => (bytes.len(), "the end of the string is expected"),
    }
}

/// What stands in 64 bytes. Behind the end of the text are zeros, which are control characters.
struct Found {
    quotes: u64,
    backslashes: u64,
    brackets: u64,
    controls: u64,
}

impl Found {
    #[inline]
    fn in_block(bytes: &[u8], from: usize) -> Found {
        let block = u8x64::new(next_bytes::<BLOCK>(bytes, from));
        let bits = |byte: u8| block.simd_eq(u8x64::splat(byte));
        // One bit makes the difference between the two kinds of brackets.
        let either = block | u8x64::splat(b'{' ^ b'[');
        let bracket = |byte: u8| either.simd_eq(u8x64::splat(byte));
        Found {
            quotes: bits(b'"').to_bitmask(),
            backslashes: bits(b'\\').to_bitmask(),
            brackets: (bracket(b'{') | bracket(b'}')).to_bitmask(),
            controls: block.min(u8x64::splat(0x1f)).simd_eq(block).to_bitmask(),
        }
    }
}

/// What the blocks before say of the next one.
#[derive(Default)]
struct Strings {
    /// All bits, if it begins in a string.
    open: u64,
    /// Its first byte stands behind a backslash.
    escaped: bool,
}

impl Strings {
    /// The bytes of strings: the quote that begins one is of it, the one that ends it is not.
    #[inline]
    fn inside(&mut self, found: &Found) -> u64 {
        let escaped = if found.backslashes == 0 && !self.escaped { 0 } else { self.escaped(found.backslashes) };
        let mut inside = found.quotes & !escaped;
        for distance in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << distance;
        }
        inside ^= self.open;
        self.open = ((inside as i64) >> 63) as u64;
        inside
    }

    /// The bytes that stand behind a backslash which is not itself behind one.
    #[cold]
    fn escaped(&mut self, backslashes: u64) -> u64 {
        let mut escaped = u64::from(self.escaped);
        let mut rest = backslashes & !escaped;
        self.escaped = false;
        while rest != 0 {
            let at = rest.trailing_zeros();
            self.escaped = at == 63;
            escaped |= 2 << at;
            rest &= !(3 << at);
        }
        escaped
    }
}

/// The brackets that are open: one bit for each, the innermost lowest, set for an object.
#[derive(Default)]
pub struct Nesting {
    open: u128,
    pub depth: u32,
}

/// Arrays and objects in one another; more is refused, as by most readers of JSON.
const DEPTH: u32 = 128;

impl Nesting {
    /// Takes a bracket, or says what was expected in its place.
    #[inline]
    pub fn meet(&mut self, bracket: u8) -> Result<(), &'static str> {
        let is_object = matches!(bracket, b'{' | b'}');
        if matches!(bracket, b'{' | b'[') {
            if self.depth == DEPTH {
                return Err(TOO_DEEP);
            }
            self.open = self.open << 1 | u128::from(is_object);
            self.depth += 1;
            return Ok(());
        }
        if self.in_object() != is_object {
            return Err(self.expected());
        }
        self.open >>= 1;
        self.depth -= 1;
        Ok(())
    }

    /// Whether the innermost that is open is an object.
    #[inline]
    pub fn in_object(&self) -> bool {
        self.open & 1 == 1
    }

    /// What may come behind a value.
    pub fn expected(&self) -> &'static str {
        if self.in_object() { OBJECT_GOES_ON } else { ARRAY_GOES_ON }
    }
}

const TOO_DEEP: &str = "nested too deeply: no more than 128 levels are expected";
pub const OBJECT_GOES_ON: &str = "a comma or the end of the object is expected";
pub const ARRAY_GOES_ON: &str = "a comma or the end of the array is expected";

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::end_of_nested;
    use crate::scanner::Scanner;

    /// What the grammar takes, the structure takes, to the same end.
    fn agrees(text: &str) {
        let mut scanner = Scanner::new(text);
        if let Ok(checked) = scanner.raw() {
            assert_eq!(end_of_nested(text.as_bytes(), 0), Ok(checked.len()), "{text:?}");
        }
    }

    #[test]
    fn a_value_ends_where_its_last_bracket_does_wherever_that_is() {
        for length in 0..200 {
            for filling in ["a", "\\\\", "\\\"", "{", "]", "ü", "\\u007b"] {
                for behind in ["", "}", "]", "\"", ", \"next\": {}}"] {
                    agrees(&format!(r#"{{"{}":[1,{{"a":"]"}}]}}{behind}"#, filling.repeat(length)));
                }
            }
        }
    }

    #[test]
    fn any_valid_text_is_passed_over_whole() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..20_000 {
            agrees(&format!("[{}]{}", any(&mut random, 4), &["", ",1", "]", "\"x"][random.random_range(0..4)]));
        }
    }

    fn any(random: &mut StdRng, depth: u32) -> String {
        let several = |random: &mut StdRng| -> Vec<String> {
            (0..random.random_range(0..5)).map(|_| any(random, depth - 1)).collect()
        };
        match random.random_range(if depth == 0 { 2..4 } else { 0..4 }) {
            0 => format!("[{}]", several(random).join(" ,")),
            1 => {
                let values: Vec<_> = several(random).iter().map(|v| format!("{} : {v}", text(random))).collect();
                format!("{{ {} }}", values.join(","))
            }
            2 => text(random),
            _ => "-1.5e3".into(),
        }
    }

    fn text(random: &mut StdRng) -> String {
        let long = "a text that is longer than 64 bytes, and so begins in one block and ends in the next or behind it";
        let texts = ["", "plain", "\\", "\"", "\\\"", "{[", "]}", long, "\u{1f}"];
        serde_json::Value::from(texts[random.random_range(0..texts.len())]).to_string()
    }

    #[test]
    fn a_structure_that_breaks_is_refused_at_its_place() {
        for (text, at, expected) in [
            ("{", 1, "end of the object"),
            ("[[]", 3, "end of the array"),
            ("[}", 1, "end of the array"),
            ("{\"a\":[1}", 7, "end of the array"),
            ("{]", 1, "end of the object"),
            ("{\"}", 3, "the end of the string"),
            ("{\"\\\"}", 5, "the end of the string"),
            ("[\"\n\"]", 2, "no control character"),
            ("[\"\0\"]", 2, "no control character"),
        ] {
            let (broken, says) = end_of_nested(text.as_bytes(), 0).unwrap_err();
            assert_eq!(broken, at, "{text:?}");
            assert!(says.contains(expected), "{text:?}: {says}");
        }
        for length in 50..80 {
            let open = format!("[\"{}", "x".repeat(length));
            assert_eq!(end_of_nested(open.as_bytes(), 0), Err((open.len(), "the end of the string is expected")));
        }
    }

    #[test]
    fn nesting_has_a_bound_and_no_stack() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(end_of_nested(nested(128).as_bytes(), 0), Ok(256));
        assert_eq!(end_of_nested(nested(129).as_bytes(), 0).unwrap_err().0, 128);
        assert!(end_of_nested("[".repeat(1_000_000).as_bytes(), 0).is_err());
    }
}
