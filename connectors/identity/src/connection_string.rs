//! Connection strings, as portals show them: `name=value;name=value`, where a value may stand in quotes or braces.
//! <https://learn.microsoft.com/dotnet/framework/data/adonet/connection-strings>,
//! <https://learn.microsoft.com/sql/connect/jdbc/building-the-connection-url>

use std::collections::BTreeMap;

/// Values by their names, in lower case and without spaces: `User ID` and `userid` are one. The last of several holds. Errors say
/// nothing of a value: one may be a password.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            return Err("a part of it has no '='".into());
        };
        let name: String = name.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
        if name.contains(';') {
            return Err("a part of it has no '='".into());
        }
        let (value, after) = value(after.trim_start()).ok_or_else(|| format!("the value of {name} does not end"))?;
        found.insert(name, value);
        rest = match after.trim_start().strip_prefix(';') {
            Some(next) => next.trim_start(),
            None if after.trim().is_empty() => "",
            None => return Err("a quoted value is not followed by ';'".into()),
        };
    }
    Ok(found)
}

/// A value, and what comes after it. Within quotes and braces, the closing one is doubled.
fn value(text: &str) -> Option<(String, &str)> {
    let close = match text.chars().next() {
        Some('\'') => '\'',
        Some('"') => '"',
        Some('{') => '}',
        _ => {
            let end = text.find(';').unwrap_or(text.len());
            return Some((text[..end].trim_end().to_string(), &text[end..]));
        }
    };
    let (mut value, mut rest) = (String::new(), &text[1..]);
    loop {
        let end = rest.find(close)?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(close) {
            Some(more) => {
                value.push(close);
                rest = more;
            }
            None => return Some((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_pasted() {
        let text = "Server=tcp:a.database.windows.net,1433;User ID=me;Password='p;\"''=x';Initial Catalog = s ; Encrypt={t}}};";
        let found = parse(text).unwrap();
        assert_eq!(found["server"], "tcp:a.database.windows.net,1433");
        assert_eq!((found["userid"].as_str(), found["initialcatalog"].as_str()), ("me", "s"));
        assert_eq!((found["password"].as_str(), found["encrypt"].as_str()), ("p;\"'=x", "t}"));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn an_error_shows_no_value() {
        for wrong in ["Password='topsecret", "topsecret", "a=1;topsecret;b=2", "Password='topsecret'x"] {
            let error = parse(wrong).unwrap_err();
            assert!(!error.contains("topsecret"), "{error}");
        }
    }
}
