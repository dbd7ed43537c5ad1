//! What is wrong with a job file, where, and what to do.

use std::fmt;
use std::sync::Arc;

/// A job file.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

/// Where something stands: 1-based, as editors count.
#[derive(Debug, Clone)]
pub struct Place {
    pub file: Arc<SourceFile>,
    pub line: usize,
    pub column: usize,
}

/// One thing to tell about a job file.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub place: Option<Place>,
    pub message: String,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn at(place: &Place, message: impl Into<String>) -> Self {
        Diagnostic { place: Some(place.clone()), message: message.into(), hint: None }
    }
    pub fn general(message: impl Into<String>) -> Self {
        Diagnostic { place: None, message: message.into(), hint: None }
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(place) = &self.place {
            let line = place.file.text.lines().nth(place.line.saturating_sub(1)).unwrap_or("");
            let number = place.line.to_string();
            let pad = " ".repeat(number.len());
            let caret = " ".repeat(place.column.saturating_sub(1));
            write!(f, "\n{pad}--> {}:{}:{}", place.file.name, place.line, place.column)?;
            write!(f, "\n{pad} |\n{number} | {line}\n{pad} | {caret}^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  = {hint}")?;
        }
        Ok(())
    }
}

/// The candidate that is most like `word`, if one is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| edit_distance(&word.to_lowercase(), &candidate.to_lowercase());
    let best = candidates.into_iter().map(|c| (distance(c), c)).min_by_key(|(d, _)| *d)?;
    (best.0 <= word.len().max(3) / 3 + 1).then_some(best.1)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + (ca != *cb) as usize;
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
