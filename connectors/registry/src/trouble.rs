//! Why a registry did not do what it was asked, and what a person can do about it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use formats::SchemaId;
use identity::TokenError;

/// How many of those that wait are named.
const NAMED: usize = 5;

/// What a registry did not do. The text says what and why; where is [`Registry::place`](crate::Registry::place)'s to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It did not answer, or not now: asking again may help.
    #[error("{0}")]
    Unanswered(String),
    /// The answer was no. It stays no until a person changes something: rights, options, or the schema.
    #[error("{0}")]
    Refused(String),
}

impl RegistryError {
    /// Whether asking again may help, without anybody doing anything.
    pub fn may_heal(&self) -> bool {
        matches!(self, RegistryError::Unanswered(_))
    }
}

impl From<TokenError> for RegistryError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Refused(what) => RegistryError::Refused(what),
            TokenError::Unanswered(what) => RegistryError::Unanswered(what),
        }
    }
}

/// Why there is no schema for an id.
#[derive(Debug)]
pub enum Unfound {
    /// The registry has none, or none that can be used: says why.
    None(String),
    /// It did not say. It must be asked again: the messages that wait for it are good ones, as far as anybody knows.
    Trouble(RegistryError),
}

impl From<RegistryError> for Unfound {
    fn from(error: RegistryError) -> Self {
        Unfound::Trouble(error)
    }
}

/// Who waits for a registry that has not answered, and when that was last told.
#[derive(Default)]
pub struct Outage {
    waiting: HashMap<SchemaId, Instant>,
    told: Option<Instant>,
    /// Whether people know of this one.
    known: bool,
}

impl Outage {
    /// No answer for `id`. What to tell of it: who waits; nothing, if something was told less than `every` ago.
    pub fn goes_on(&mut self, id: &SchemaId, now: Instant, every: Duration) -> Option<String> {
        self.waiting.entry(id.clone()).or_insert(now);
        if self.told.is_some_and(|told| now.duration_since(told) < every) {
            return None;
        }
        (self.told, self.known) = (Some(now), true);
        Some(self.names())
    }

    /// An answer for `id`. How long the first of those who waited did so, if nobody does any more and people know of it.
    pub fn ends(&mut self, id: &SchemaId, now: Instant) -> Option<Duration> {
        let since = self.waiting.remove(id)?;
        if !self.waiting.is_empty() || !std::mem::take(&mut self.known) {
            return None;
        }
        Some(now.duration_since(since))
    }

    fn names(&self) -> String {
        let mut names: Vec<_> = self.waiting.iter().map(|(id, since)| (*since, id.to_string())).collect();
        names.sort();
        let more = names.len().saturating_sub(NAMED);
        let names: Vec<_> = names.into_iter().take(NAMED).map(|(_, name)| name).collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_then_every_minute_and_its_end_once() {
        let (begun, minute) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| begun + Duration::from_secs(seconds);
        let [first, second] = [1, 2].map(SchemaId::Number);
        let mut outage = Outage::default();
        assert_eq!(outage.goes_on(&first, at(0), minute).as_deref(), Some("1"));
        assert_eq!(outage.goes_on(&second, at(1), minute), None);
        assert_eq!(outage.goes_on(&first, at(59), minute), None);
        assert_eq!(outage.goes_on(&second, at(60), minute).as_deref(), Some("1, 2"));
        assert_eq!(outage.ends(&first, at(61)), None);
        assert_eq!(outage.ends(&second, at(62)), Some(Duration::from_secs(61)));
        assert_eq!(outage.ends(&second, at(62)), None);
        // One that nobody was told of ends without a word, too.
        assert_eq!(outage.goes_on(&first, at(63), minute), None);
        assert_eq!(outage.ends(&first, at(64)), None);
    }

    #[test]
    fn not_all_that_wait_are_named() {
        let mut outage = Outage::default();
        let now = Instant::now();
        for id in 10..19 {
            outage.waiting.insert(SchemaId::Number(id), now);
        }
        assert_eq!(outage.names(), "10, 11, 12, 13, 14 and 4 more");
    }
}
