//! `${NAME}`, `${NAME:-default}` and `${file:path}` in option values.

/// Replaces each reference. The error names what is missing, and never a value.
pub fn substitute(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else { return Err("'${' has no closing '}'".into()) };
        out.push_str(&value(&rest[start + 2..start + length], variables)?);
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn value(reference: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        let text = std::fs::read_to_string(path).map_err(|e| format!("the file {path} cannot be read: {e}"))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_string());
    }
    let (name, default) = reference.split_once(":-").map_or((reference, None), |(n, d)| (n, Some(d)));
    variables(name)
        .or_else(|| default.map(String::from))
        .ok_or_else(|| format!("the environment variable {name} is not set, and ${{{name}}} has no default"))
}

#[cfg(test)]
mod tests {
    use super::substitute;

    fn run(text: &str) -> Result<String, String> {
        substitute(text, &|name| (name == "KAFKA").then(|| "host:9092".to_string()))
    }

    #[test]
    fn references_become_values() {
        assert_eq!(run("${KAFKA},${OTHER:-x:1}").unwrap(), "host:9092,x:1");
        assert_eq!(run("plain $5").unwrap(), "plain $5");
    }

    #[test]
    fn what_is_not_set_is_named() {
        assert_eq!(run("${NOPE}").unwrap_err(), "the environment variable NOPE is not set, and ${NOPE} has no default");
    }
}
