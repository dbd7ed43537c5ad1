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

/// Whether a job with this runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

impl Place {
    /// The place of `word` (a keyword) that stands last before this one, or this place.
    pub fn back_to(&self, word: &str) -> Place {
        let upper = self.file.text.to_ascii_uppercase();
        let end = self.byte().min(upper.len());
        match upper[..end].rmatch_indices(word).map(|(at, _)| at).find(|at| is_word(&upper, *at, word.len())) {
            Some(at) => Place::of_byte(&self.file, at),
            None => self.clone(),
        }
    }

    fn byte(&self) -> usize {
        let lines = self.file.text.split_inclusive('\n');
        let before: usize = lines.clone().take(self.line - 1).map(str::len).sum();
        let line = lines.clone().nth(self.line - 1).unwrap_or("");
        before + line.char_indices().nth(self.column - 1).map_or(line.len(), |(at, _)| at)
    }

    fn of_byte(file: &Arc<SourceFile>, at: usize) -> Place {
        let before = &file.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Place { file: file.clone(), line, column }
    }
}

/// Whether nothing that belongs to a word stands beside these bytes.
fn is_word(text: &str, at: usize, length: usize) -> bool {
    let outside = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    outside(text[..at].chars().next_back()) && outside(text[at + length..].chars().next())
}

/// One thing to tell about a job file.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub severity: Severity,
    pub place: Option<Place>,
    pub message: String,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn at(place: &Place, message: impl Into<String>) -> Self {
        Diagnostic { place: Some(place.clone()), ..Diagnostic::general(message) }
    }
    pub fn general(message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Error, place: None, message: message.into(), hint: None }
    }
    pub fn warning(place: &Place, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::at(place, message) }
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// "did you mean …?", if one of the candidates is like the word.
    pub fn did_you_mean<'a>(self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(word, candidates) {
            Some(name) => self.hint(format!("did you mean {name}?")),
            None => self,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{severity}: {}", self.message)?;
        if let Some(place) = &self.place {
            let line = place.file.text.lines().nth(place.line.saturating_sub(1)).unwrap_or("");
            let number = place.line.to_string();
            let pad = " ".repeat(number.len());
            // A tab stays a tab, so that the caret stands where an editor or a terminal shows the column.
            let caret: String =
                line.chars().take(place.column.saturating_sub(1)).map(|c| if c == '\t' { c } else { ' ' }).collect();
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
