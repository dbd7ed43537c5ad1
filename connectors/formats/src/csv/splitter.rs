//! Records of CSV split into the text of their fields.

use csv_core::ReadRecordResult;

/// Splits records, one after the other, and holds the last one.
pub struct Splitter {
    reader: csv_core::Reader,
    text: Vec<u8>,
    /// Where each field ends.
    ends: Vec<usize>,
    count: usize,
    open: bool,
}

/// The least that the reader is given room for.
const TEXT: usize = 1024;
const FIELDS: usize = 32;

impl Splitter {
    pub fn new(delimiter: u8) -> Splitter {
        let reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Splitter { reader, text: vec![0; TEXT], ends: vec![0; FIELDS], count: 0, open: false }
    }

    /// Splits the first record of `bytes` into fields; returns its length. Empty lines before it are a part of it.
    /// `None` if it goes on behind them. `last`: nothing follows.
    pub fn split(&mut self, bytes: &[u8], last: bool) -> Option<usize> {
        self.reader.reset();
        (self.count, self.open) = (0, false);
        let (mut used, mut written, mut count, mut ended) = (0, 0, 0, false);
        loop {
            let rest = match &bytes[used..] {
                [] if !last => return None,
                // Quotes that are open take the end of the line for a part of the field, and nothing else does.
                [] if !ended => b"\n",
                rest => rest,
            };
            let closes = !ended && used == bytes.len();
            let (result, read, wrote, fields) =
                self.reader.read_record(rest, &mut self.text[written..], &mut self.ends[count..]);
            if closes {
                ended = read > 0;
                self.open = wrote > 0;
            } else {
                used += read;
            }
            written += wrote;
            count += fields;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.count = count;
                    return Some(used);
                }
                ReadRecordResult::End => return Some(used),
            }
        }
    }

    /// Fields of the last record; none if there were only empty lines.
    pub fn count(&self) -> usize {
        self.count
    }

    /// `None` if it is not UTF-8.
    pub fn get(&self, index: usize) -> Option<&str> {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        std::str::from_utf8(&self.text[begin..self.ends[index]]).ok()
    }

    pub fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        (0..self.count).map(|index| self.get(index))
    }

    /// Whether the quotes of the last field are not closed: nobody knows how many records it would have been.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (Option<usize>, Vec<String>, bool) {
        let mut splitter = Splitter::new(b',');
        let length = splitter.split(text.as_bytes(), true);
        let fields = splitter.texts().map(|text| text.unwrap().to_string()).collect();
        (length, fields, splitter.is_open())
    }

    #[test]
    fn the_last_record_may_end_without_its_line_but_not_within_its_quotes() {
        let fields = |fields: &[&str]| fields.iter().map(|field| field.to_string()).collect::<Vec<_>>();
        for text in ["a,b", "a,b\n", "a,b\r", "\n\na,b", "a,\"b\"", "\"a\",\"b\"\r\n"] {
            let (length, found, open) = split(text);
            assert_eq!((found, open), (fields(&["a", "b"]), false), "{text:?}");
            assert!(length.is_some_and(|length| text[length..].trim().is_empty()), "{text:?}");
        }
        assert_eq!(split("a,"), (Some(2), fields(&["a", ""]), false));
        assert_eq!(split("\n\r\n"), (Some(3), vec![], false));
        assert_eq!(split(""), (Some(0), vec![], false));
        for text in ["a,\"b", "a,\"b\nc,d\n", "\"", "a,\"b\"\""] {
            let (length, _, open) = split(text);
            assert_eq!((length, open), (Some(text.len()), true), "{text:?}");
        }
    }

    #[test]
    fn a_record_may_have_any_size() {
        let wide = vec!["x".repeat(100); 1000].join(",");
        for text in [wide.clone(), format!("{wide}\n"), format!("{wide},\"y")] {
            let (length, fields, open) = split(&text);
            assert_eq!((length, open), (Some(text.len()), text.ends_with('y')));
            assert_eq!(fields.len(), 1000 + usize::from(open));
        }
    }
}
