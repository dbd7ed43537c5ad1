//! A walk over JSON text: its grammar, and nothing of what it is read into.

use std::borrow::Cow;

use crate::chunk::{DIGITS, digits, end_of_plain, next_bytes};
use crate::layout::Layout;
use crate::number::Number;
use crate::plain::Plain;
use crate::structure::{ARRAY_GOES_ON, Nesting, OBJECT_GOES_ON, end_of_nested};

/// A place in a JSON text. Each call takes what is there, or says what it expected and where.
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// The text breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Byte of the text.
    pub at: usize,
    pub expected: &'static str,
}

type Taken<T> = Result<T, Broken>;

/// Bytes of a lead that are compared at once.
const LEAD: usize = 16;

/// What stands before a value in an object, as it is written: a brace or comma, the name, the colon, white space.
/// Records of one stream are written by one program, so that a comparison with the record before is all that it takes to
/// find a field.
pub struct Lead {
    text: Box<[u8]>,
    /// Its beginning and its end, which overlap if it is short; zeros where it is even shorter.
    head: u128,
    tail: u128,
    /// The bits of `head` that are of the text.
    mask: u128,
}

impl Lead {
    pub fn new(text: &[u8]) -> Lead {
        let part = |from: usize| u128::from_le_bytes(next_bytes::<LEAD>(text, from));
        let mask = u128::MAX.checked_shr(8 * LEAD.saturating_sub(text.len()) as u32).unwrap_or(0);
        Lead { text: text.into(), head: part(0), tail: part(text.len().saturating_sub(LEAD)), mask }
    }

    /// Whether it stands at `at`. Two comparisons for most, and no call.
    #[inline(always)]
    fn stands_at(&self, bytes: &[u8], at: usize) -> bool {
        let length = self.text.len();
        let part = |from: usize| u128::from_le_bytes(next_bytes::<LEAD>(bytes, from));
        if (part(at) ^ self.head) & self.mask != 0 {
            return false;
        }
        length <= LEAD
            || part(at + length - LEAD) == self.tail && (length <= 2 * LEAD || bytes[at..].starts_with(&self.text))
    }
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Scanner { text, at: 0 }
    }

    /// What follows.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The byte that is next.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Passes over the byte that is next.
    pub fn pass(&mut self) {
        self.at += 1;
    }

    /// Nothing but white space follows.
    pub fn end(&mut self) -> Taken<()> {
        if self.peek() != 0 || self.at < self.text.len() {
            return Err(self.broken("the end is expected"));
        }
        Ok(())
    }

    /// The next byte that is not white space, which it goes to; 0 at the end.
    #[inline(always)]
    pub fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return *byte,
                None => return 0,
            }
        }
    }

    /// Takes this byte, after white space.
    #[inline]
    pub fn byte(&mut self, byte: u8, expected: &'static str) -> Taken<()> {
        if self.peek() != byte {
            return Err(self.broken(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes this byte, after white space, if it is there.
    #[inline]
    pub fn try_byte(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    /// Takes the lead if it is there, byte for byte.
    #[inline(always)]
    pub fn try_lead(&mut self, lead: &Lead) -> bool {
        let found = lead.stands_at(self.text.as_bytes(), self.at);
        if found {
            self.at += lead.text.len();
        }
        found
    }

    /// Takes the lead of the next field, whatever it looks like, and returns the name too; `None` at the end of the
    /// object, which is taken. `first`: the object begins here.
    pub fn lead(&mut self, first: bool) -> Taken<Option<(Cow<'a, str>, Lead)>> {
        let from = self.at;
        let Some(name) = self.name(first)? else { return Ok(None) };
        self.peek();
        Ok(Some((name, Lead::new(&self.text.as_bytes()[from..self.at]))))
    }

    /// As [`Scanner::lead`], for names that are data: only the name.
    pub fn name(&mut self, first: bool) -> Taken<Option<Cow<'a, str>>> {
        if first {
            self.byte(b'{', "an object is expected")?;
        }
        if self.try_byte(b'}') {
            return Ok(None);
        }
        if !first {
            self.byte(b',', OBJECT_GOES_ON)?;
        }
        if self.peek() != b'"' {
            return Err(self.broken("a field's name is expected"));
        }
        let name = self.string()?;
        self.byte(b':', "a colon is expected")?;
        Ok(Some(name))
    }

    /// Takes an array, whose bracket is next; `element` takes each of its values.
    pub fn array<E: From<Broken>>(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.byte(b'[', "an array is expected")?;
        if self.try_byte(b']') {
            return Ok(());
        }
        element(self)?;
        while self.try_byte(b',') {
            element(self)?;
        }
        Ok(self.byte(b']', ARRAY_GOES_ON)?)
    }

    /// Takes a string, whose quote is next.
    #[inline(always)]
    pub fn string(&mut self) -> Taken<Cow<'a, str>> {
        let from = self.at + 1;
        match self.plain_string() {
            Ok(end) => Ok(Cow::Borrowed(&self.text[from..end])),
            Err(end) => self.escaped_string(from, end).map(Cow::Owned),
        }
    }

    /// Takes a string if it stands for itself. Returns where its text ends, or where what stands for itself does.
    #[inline]
    fn plain_string(&mut self) -> Result<usize, usize> {
        let bytes = self.text.as_bytes();
        let end = end_of_plain(bytes, self.at + 1);
        if bytes.get(end) != Some(&b'"') {
            return Err(end);
        }
        self.at = end + 1;
        Ok(end)
    }

    /// Takes a number that is a double without a closer look, if that is what is here.
    #[inline(always)]
    pub fn plain_double(&mut self) -> Option<f64> {
        let plain = Plain::read(self.text.as_bytes(), self.at)?;
        let double = plain.double()?;
        self.at = plain.end;
        Some(double)
    }

    pub fn number(&mut self) -> Taken<Number<'a>> {
        match Number::read(self.text, self.at) {
            Ok(number) => {
                self.at = number.end();
                Ok(number)
            }
            Err((at, expected)) => Err(Broken { at, expected }),
        }
    }

    /// Takes `true`, `false` or `null`.
    pub fn word(&mut self) -> Taken<Option<bool>> {
        let words = [("true", Some(true)), ("false", Some(false)), ("null", None)];
        match words.into_iter().find(|(word, _)| self.rest().starts_with(word)) {
            Some((word, value)) => {
                self.at += word.len();
                Ok(value)
            }
            None => Err(self.broken("a value is expected")),
        }
    }

    /// Takes any value and returns it as it is written. All of its grammar is checked.
    pub fn raw(&mut self) -> Taken<&'a str> {
        self.peek();
        let from = self.at;
        self.check()?;
        Ok(&self.text[from..self.at])
    }

    /// As [`Scanner::raw`], of values that are mostly laid out like those before.
    #[inline]
    pub fn raw_like(&mut self, layout: &mut Layout) -> Taken<&'a str> {
        let first = self.peek();
        let from = self.at;
        if !matches!(first, b'{' | b'[') {
            return self.raw();
        }
        if layout.is_worth_a_try() && self.follow(layout.leads()) {
            layout.was_met();
            return Ok(&self.text[from..self.at]);
        }
        self.at = from;
        let text = self.raw()?;
        layout.was_missed(text);
        Ok(text)
    }

    /// Takes a value whose parts stand behind these leads, the last of which ends it. Any string, number or word in the
    /// place of another leaves the grammar as it was. If it is not taken, the place is somewhere in it.
    #[inline]
    fn follow(&mut self, leads: &[Lead]) -> bool {
        let Some((last, leads)) = leads.split_last() else { return false };
        leads.iter().all(|lead| self.try_lead(lead) && self.part().is_ok()) && self.try_lead(last)
    }

    /// Takes a string, number or word, which begins here.
    #[inline(always)]
    pub fn part(&mut self) -> Taken<()> {
        match self.text.as_bytes().get(self.at) {
            Some(b'-' | b'0'..=b'9') => self.check_number(),
            Some(b'"') => self.check_string(),
            _ => self.word().map(drop),
        }
    }

    /// Takes a value that nobody reads, and returns it as it is written. Of what is nested only the structure is checked:
    /// see [`end_of_nested`].
    pub fn skip(&mut self) -> Taken<&'a str> {
        let first = self.peek();
        let from = self.at;
        match first {
            b'{' | b'[' => {
                let end = end_of_nested(self.text.as_bytes(), from);
                self.at = end.map_err(|(at, expected)| Broken { at, expected })?;
            }
            _ => self.check()?,
        }
        Ok(&self.text[from..self.at])
    }

    fn check(&mut self) -> Taken<()> {
        let mut nesting = Nesting::default();
        loop {
            match self.peek() {
                b'"' => self.check_string()?,
                b'-' | b'0'..=b'9' => self.check_number()?,
                begin @ (b'{' | b'[') => {
                    self.check_bracket(&mut nesting, begin)?;
                    if begin == b'[' && self.peek() != b']' {
                        continue;
                    }
                    if begin == b'{' && self.peek() != b'}' {
                        self.check_name()?;
                        continue;
                    }
                }
                _ => drop(self.word()?),
            }
            loop {
                if nesting.depth == 0 {
                    return Ok(());
                }
                match self.peek() {
                    b',' => {
                        self.at += 1;
                        if nesting.in_object() {
                            self.check_name()?;
                        }
                        break;
                    }
                    end @ (b'}' | b']') => self.check_bracket(&mut nesting, end)?,
                    _ => return Err(self.broken(nesting.expected())),
                }
            }
        }
    }

    #[inline]
    fn check_bracket(&mut self, nesting: &mut Nesting, bracket: u8) -> Taken<()> {
        nesting.meet(bracket).map_err(|expected| self.broken(expected))?;
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn check_name(&mut self) -> Taken<()> {
        self.peek();
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) == Some(&b'"') {
            let end = end_of_plain(bytes, self.at + 1);
            if bytes.get(end..end + 2) == Some(b"\":") {
                self.at = end + 2;
                return Ok(());
            }
        }
        self.check_any_name()
    }

    #[cold]
    fn check_any_name(&mut self) -> Taken<()> {
        if self.peek() != b'"' {
            return Err(self.broken("a field's name is expected"));
        }
        self.check_string()?;
        self.byte(b':', "a colon is expected")
    }

    #[inline]
    fn check_string(&mut self) -> Taken<()> {
        match self.plain_string() {
            Ok(_) => Ok(()),
            Err(end) => self.check_escaped_string(end),
        }
    }

    /// Half of a surrogate pair passes: that is content, and nobody reads it.
    #[cold]
    fn check_escaped_string(&mut self, plain: usize) -> Taken<()> {
        let bytes = self.text.as_bytes();
        let mut end = plain;
        loop {
            self.at = end;
            match bytes.get(end) {
                Some(b'"') => {
                    self.at = end + 1;
                    return Ok(());
                }
                Some(b'\\') if bytes.get(end + 1) == Some(&b'u') => end += self.code_unit(end).map(|_| 6)?,
                Some(b'\\') => end += self.escape().map(|_| 2)?,
                _ => return Err(self.not_in_a_string()),
            }
            end = end_of_plain(bytes, end);
        }
    }

    /// Only the grammar, of the forms that most numbers have: to work out what it is worth made text columns slower by a tenth.
    #[inline]
    fn check_number(&mut self) -> Taken<()> {
        let bytes = self.text.as_bytes();
        let first = self.at + usize::from(bytes[self.at] == b'-');
        let digits = digits(&next_bytes(bytes, first));
        let whole = digits.trailing_ones() as usize;
        let mut end = first + whole;
        let mut plain = whole > 0 && (whole == 1 || bytes[first] != b'0');
        if bytes.get(end) == Some(&b'.') {
            let behind = (digits >> whole >> 1).trailing_ones() as usize;
            plain &= behind > 0;
            end += 1 + behind;
        }
        if plain && end < first + DIGITS && !matches!(bytes.get(end), Some(b'e' | b'E')) {
            self.at = end;
            return Ok(());
        }
        self.check_any_number()
    }

    #[cold]
    fn check_any_number(&mut self) -> Taken<()> {
        self.number().map(drop)
    }

    /// A string that is more than plain text up to `plain`.
    #[cold]
    fn escaped_string(&mut self, from: usize, plain: usize) -> Taken<String> {
        let bytes = self.text.as_bytes();
        let mut out = String::with_capacity(plain - from + 16);
        let (mut from, mut end) = (from, plain);
        loop {
            out.push_str(&self.text[from..end]);
            self.at = end;
            match bytes.get(end) {
                Some(b'"') => {
                    self.at = end + 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.not_in_a_string()),
            }
            from = self.at;
            end = end_of_plain(bytes, from);
        }
    }

    fn escape(&mut self) -> Taken<char> {
        let escaped = self.text.as_bytes().get(self.at + 1);
        let plain = match escaped {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.broken("a known escape is expected")),
        };
        self.at += 2;
        Ok(plain)
    }

    /// `\u` and four hexadecimal digits, twice for what UTF-16 needs two of.
    fn unicode_escape(&mut self) -> Taken<char> {
        let pair = [self.code_unit(self.at)?, self.code_unit(self.at + 6).unwrap_or_default()];
        match char::decode_utf16(pair).next() {
            Some(Ok(found)) => {
                self.at += 6 * found.len_utf16();
                Ok(found)
            }
            _ => Err(self.broken("the other half of a surrogate pair is expected")),
        }
    }

    fn code_unit(&self, at: usize) -> Taken<u16> {
        let digits = self.text.get(at..at + 6).and_then(|t| t.strip_prefix("\\u"));
        let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|d| u16::from_str_radix(d, 16).ok());
        unit.ok_or_else(|| self.broken("four hexadecimal digits are expected behind \\u"))
    }

    fn not_in_a_string(&self) -> Broken {
        match self.text.as_bytes().get(self.at) {
            Some(_) => self.broken("no control character is expected in a string"),
            None => self.broken("the end of the string is expected"),
        }
    }

    #[cold]
    pub fn broken(&self, expected: &'static str) -> Broken {
        Broken { at: self.at, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What serde_json makes of a text is what the scanner makes of it.
    fn agrees(text: &str) {
        let mut scanner = Scanner::new(text);
        let checked = scanner.raw().and_then(|_| scanner.end());
        let parsed = serde_json::from_str::<Box<serde_json::value::RawValue>>(text);
        assert_eq!(checked.is_ok(), parsed.is_ok(), "{text:?}: {checked:?}, {parsed:?}");
    }

    #[test]
    fn the_grammar_is_that_of_serde_json() {
        for text in [
            "",
            " ",
            "null",
            "nul",
            "nulll",
            "true",
            "false",
            "tru",
            "\"\"",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\u{1}\"",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u+123\"",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ud83d\\u0041\"",
            "\"\\ude00\"",
            "\"é雪😀\"",
            "\"\u{7f}\u{80}\"",
            "0",
            "-0",
            "-",
            "01",
            "1.",
            ".1",
            "1.0",
            "1.5e",
            "1.5e+3",
            "1e5",
            "12345678",
            "12345678.12345678",
            "1x",
            "[]",
            "[1]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{}",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":[{}]}",
            "{\"a\":[{]}}",
            "[[[[]]]",
            "[[]]]",
            " { \"a\" : [ 1 , { } ] } ",
            "{\"a\":1}}",
            "\u{feff}1",
            "nan",
            "1,2",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn every_way_to_cut_or_change_a_text_is_judged_as_serde_json_judges_it() {
        let text = r#"{ "a": [1.5, -2e3, "x\u00e9\n", {"b": null, "long name of a field": [true, false]}], "c": "0123456789" }"#;
        for at in 0..text.len() {
            agrees(&text[..at]);
            for other in "{}[]\",:0 -.e\\x\u{1}".chars() {
                agrees(&format!("{}{other}{}", &text[..at], &text[at + 1..]));
                agrees(&format!("{}{other}{}", &text[..at], &text[at..]));
            }
        }
    }

    #[test]
    fn numbers_of_any_length_are_judged_as_serde_json_judges_them() {
        for whole in 0..40 {
            for behind in 0..40 {
                for (sign, first, exponent) in [("", '1', ""), ("-", '0', "e-7"), ("", '1', "E"), ("-", '1', "x")] {
                    let digits = |count, first: char| first.to_string().repeat(count);
                    let whole = digits(whole.min(1), first) + &digits(whole.max(1) - 1, '3');
                    agrees(&format!("[{sign}{whole}.{}{exponent}]", digits(behind, '7')));
                    agrees(&format!("[{sign}{whole}{exponent}]"));
                }
            }
        }
    }

    #[test]
    fn nesting_has_a_bound_and_no_stack() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Scanner::new(&nested(128)).raw().is_ok());
        assert_eq!(Scanner::new(&nested(129)).raw().unwrap_err().at, 128);
        assert!(Scanner::new(&"[".repeat(1_000_000)).raw().is_err());
    }

    #[test]
    fn a_lead_is_taken_only_as_it_was_written() {
        for name in [
            "a",
            "a name",
            "a name of 12 b",
            "a name of some 20 bytes",
            "a name that is longer than two words can hold",
        ] {
            let text = format!(r#"{{ "{name}" : 1, "{name}":2}}"#);
            let mut scanner = Scanner::new(&text);
            let (first, lead) = scanner.lead(true).unwrap().unwrap();
            assert_eq!(first, name);
            assert_eq!(scanner.number().unwrap().text(), "1");
            assert!(!scanner.try_lead(&lead));
            let (_, next) = scanner.lead(false).unwrap().unwrap();
            for (again, taken) in [(&lead, true), (&next, false)] {
                assert_eq!(Scanner::new(&text).try_lead(again), taken, "{name}");
            }
            for at in 1..lead.text.len() {
                let mut other = text.clone().into_bytes();
                other[at] ^= 1;
                assert!(!Scanner::new(std::str::from_utf8(&other).unwrap()).try_lead(&lead), "{name}, byte {at}");
                assert!(!Scanner::new(&text[..at]).try_lead(&lead));
            }
            assert_eq!(scanner.number().unwrap().text(), "2");
            assert!(scanner.lead(false).unwrap().is_none());
        }
    }
}
