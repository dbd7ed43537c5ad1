//! Whether a text is JSON, as ISJSON says: an object or an array.
//! <https://learn.microsoft.com/sql/t-sql/functions/isjson-transact-sql>

pub fn is_document(text: &str) -> bool {
    let text = text.trim_matches(BLANKS);
    if !text.starts_with(['{', '[']) {
        return false;
    }
    value(text).is_some_and(|rest| rest.trim_matches(BLANKS).is_empty())
}

const BLANKS: &[char] = &[' ', '\t', '\r', '\n'];

/// What is left behind the value that a text begins with.
fn value(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(BLANKS);
    match text.chars().next()? {
        '{' => members(&text[1..], '}', |text| {
            let rest = string(text.trim_start_matches(BLANKS))?;
            value(rest.trim_start_matches(BLANKS).strip_prefix(':')?)
        }),
        '[' => members(&text[1..], ']', value),
        '"' => string(text),
        '-' | '0'..='9' => number(text),
        _ => ["true", "false", "null"].into_iter().find_map(|word| text.strip_prefix(word)),
    }
}

fn members(text: &str, end: char, one: impl Fn(&str) -> Option<&str>) -> Option<&str> {
    let mut rest = text.trim_start_matches(BLANKS);
    if let Some(after) = rest.strip_prefix(end) {
        return Some(after);
    }
    loop {
        rest = one(rest)?.trim_start_matches(BLANKS);
        if let Some(after) = rest.strip_prefix(end) {
            return Some(after);
        }
        rest = rest.strip_prefix(',')?;
    }
}

fn string(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('"')?;
    loop {
        let mut chars = rest.chars();
        match chars.next()? {
            '"' => return Some(chars.as_str()),
            '\\' => match chars.next()? {
                'u' => {
                    let digits = chars.as_str().get(..4)?;
                    u16::from_str_radix(digits, 16).ok()?;
                    rest = &chars.as_str()[4..];
                    continue;
                }
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => {}
                _ => return None,
            },
            c if c < ' ' => return None,
            _ => {}
        }
        rest = chars.as_str();
    }
}

fn number(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(text.len());
    text[..end].parse::<f64>().ok().map(|_| &text[end..])
}

#[cfg(test)]
mod tests {
    use super::is_document;

    #[test]
    fn objects_and_arrays_are_documents_and_single_values_are_not() {
        for text in ["{}", " [1, -2.5e3, \"a\\u00e9\\n\", null, true, {\"a\": []}] "] {
            assert!(is_document(text), "{text}");
        }
        for text in ["", "1", "\"a\"", "{", "[1,]", "{a:1}", "{} {}", "[\"\n\"]"] {
            assert!(!is_document(text), "{text}");
        }
    }
}
