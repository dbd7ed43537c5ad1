//! How values that are only carried along are laid out. One program writes them, so that what stands between their strings,
//! numbers and words — brackets, names, white space — is mostly what stood there in the record before: to compare it takes
//! a third of the time that it takes to read it.

use crate::scanner::{Lead, Scanner};

/// The layout of a value that came before, and how well others fit it.
#[derive(Default)]
pub struct Layout {
    /// What stands before each string, number and word, and behind the last. Empty: none is known.
    leads: Vec<Lead>,
    /// Values in a row that were laid out otherwise.
    misses: u32,
}

/// Values with more parts are read without a layout.
const PARTS: usize = 1024;
/// Values laid out otherwise before their layout takes the place of the one that is known: some may be strays.
const STRAYS: u32 = 4;
/// From so many in a row on, only one in as many is compared at all.
const RARE: u32 = 16;

impl Layout {
    pub fn leads(&self) -> &[Lead] {
        &self.leads
    }

    #[inline]
    pub fn is_worth_a_try(&self) -> bool {
        self.misses < RARE || self.misses.is_multiple_of(RARE)
    }

    #[inline]
    pub fn was_met(&mut self) {
        self.misses = 0;
    }

    /// `text`, whose grammar is right, was laid out otherwise, or was not compared. Layouts are learnt ever more rarely
    /// where none fits.
    pub fn was_missed(&mut self, text: &str) {
        self.misses = self.misses.saturating_add(1);
        let is_first = self.misses == 1 && self.leads.is_empty();
        if is_first || self.misses >= STRAYS && self.misses.is_power_of_two() {
            self.leads = leads_of(text).unwrap_or_default();
        }
    }
}

/// The leads of an object or array whose grammar is right; `None` if they are too many.
fn leads_of(text: &str) -> Option<Vec<Lead>> {
    let mut scanner = Scanner::new(text);
    let (mut leads, mut end) = (vec![], 0);
    loop {
        match scanner.peek() {
            0 => break,
            b'{' | b'}' | b'[' | b']' | b',' | b':' => scanner.pass(),
            _ => {
                let begin = scanner.at();
                scanner.part().ok()?;
                let behind = scanner.at();
                if scanner.peek() != b':' {
                    leads.push(Lead::new(&text.as_bytes()[end..begin]));
                    end = behind;
                }
            }
        }
    }
    leads.push(Lead::new(&text.as_bytes()[end..]));
    (leads.len() <= PARTS).then_some(leads)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken with the layout of `before` is what is taken without one; whether it was followed.
    fn followed(before: &str, text: &str) -> bool {
        let mut layout = Layout::default();
        layout.was_missed(before);
        let (mut with, mut without) = (Scanner::new(text), Scanner::new(text));
        assert_eq!(with.raw_like(&mut layout), without.raw(), "{before} and then {text}");
        assert_eq!(with.rest(), without.rest(), "{before} and then {text}");
        layout.misses == 0
    }

    #[test]
    fn a_value_laid_out_like_the_one_before_is_taken_by_comparison() {
        let before =
            r#"{"a":1,"b":[true,{"c":"x"}], "d" : null ,"e":{},"a name longer than thirty-two characters":[[]]}"#;
        for like in [
            before,
            r#"{"a":"é\n","b":[-2.5e3,{"c":null}], "d" : "\u00e9" ,"e":{},"a name longer than thirty-two characters":[[]]}, 7"#,
        ] {
            assert!(followed(before, like), "{like}");
        }
        for unlike in [
            r#"{"a":1}"#,
            r#"{"a":1,"b":[true,{"c":"x"}], "d" : null,"e":{},"a name longer than thirty-two characters":[[]]}"#,
            r#"{"a":1,"b":[true,{"c":"x"}], "d" : null ,"e":{},"a name longer than thirty-two charactErs":[[]]}"#,
            r#"{"a": 1,"b":[true,{"c":"x"}], "d" : null ,"e":{},"a name longer than thirty-two characters":[[]]}"#,
        ] {
            assert!(!followed(before, unlike), "{unlike}");
        }
        assert!(followed("[]", "[]"));
        assert!(followed("[1]", r#"["1"]"#));
    }

    #[test]
    fn every_way_to_cut_or_change_a_value_is_judged_as_without_a_layout() {
        let before = r#"{ "a": [1.5, -2e3, "x\u00e9\n", {"b": null, "long name of a field": [true, false]}], "c": "0123456789" }"#;
        for at in 0..before.len() {
            if !before.is_char_boundary(at) {
                continue;
            }
            followed(before, &before[..at]);
            for other in "{}[]\",:01 -.e\\xt\u{1}".chars() {
                followed(before, &format!("{}{other}{}", &before[..at], &before[at + 1..]));
                followed(before, &format!("{}{other}{}", &before[..at], &before[at..]));
            }
        }
    }

    #[test]
    fn strays_do_not_drive_out_a_layout_and_another_writer_does() {
        let mut layout = Layout::default();
        let mut take = |text: &str| {
            Scanner::new(text).raw_like(&mut layout).unwrap();
            layout.misses == 0
        };
        assert!(!take(r#"{"a":1}"#));
        for _ in 0..3 {
            assert!(take(r#"{"a":2}"#));
            assert!(!take(r#"{"b":2}"#));
        }
        (0..3).for_each(|_| assert!(!take(r#"{"b":2}"#)));
        assert!(take(r#"{"b":2}"#));
    }

    #[test]
    fn values_that_have_nothing_in_common_are_rarely_compared_and_never_wrong() {
        let mut layout = Layout::default();
        for items in 1..3000 {
            let text = format!("[{}]", vec!["1"; items].join(","));
            assert_eq!(Scanner::new(&text).raw_like(&mut layout), Ok(text.as_str()));
            assert!(layout.leads.len() <= PARTS);
        }
        assert_eq!(layout.misses, 2999);
    }
}
