//! Schema registries: those of Confluent's kind, and Event Hubs' own.
//!
//! Schemas never change once they have an id, so each is asked for once and kept. While a registry is away, whoever needs a
//! schema waits: messages are not rejected because somebody else is down.

mod confluent;
mod event_hubs;
mod fetching;
mod options;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use formats::{RegisteredSchema, SchemaId, SchemaKind, Schemas};
use reqwest::{Response, StatusCode};

use self::confluent::Confluent;
use self::event_hubs::EventHubs;
use self::fetching::Fetching;

pub use options::{event_hubs_options, options};

/// A registry that a table names. Nothing is asked before somebody needs to know.
#[derive(Clone)]
pub struct Registry(Arc<Kind>);

enum Kind {
    Confluent(Confluent),
    EventHubs(EventHubs),
}

/// Why a registry was asked in vain.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// It is away, busy, or does not let us in: whoever waits may be lucky.
    #[error("{0}")]
    Unavailable(String),
    /// It has no such schema.
    #[error("{0}")]
    None(String),
    /// It refuses what it was asked, and will do so again.
    #[error("{0}")]
    Refused(String),
}

/// No schema is as long; something else answered.
const LONGEST_ANSWER: usize = 4 << 20;

impl Registry {
    /// Whether it names schemas as Event Hubs does, and not by numbers.
    pub fn is_event_hubs(&self) -> bool {
        matches!(*self.0, Kind::EventHubs(_))
    }

    /// Where it is, without what lets us in.
    pub fn place(&self) -> String {
        match &*self.0 {
            Kind::Confluent(registry) => format!("schema registry {}", registry.url),
            Kind::EventHubs(registry) => format!("schema registry of {}", registry.url),
        }
    }

    /// As decoders see it. Call it on a runtime, whose tasks then ask; one for all readers of a table.
    pub fn schemas(&self) -> Arc<dyn Schemas> {
        Arc::new(Fetching::new(self.clone(), tokio::runtime::Handle::current()))
    }

    /// Makes the schema known under a subject, or a name in the table's group, and returns its id. One that is known already
    /// keeps its id.
    pub async fn register(&self, kind: SchemaKind, text: &str, subject: &str) -> Result<SchemaId, RegistryError> {
        match &*self.0 {
            Kind::Confluent(registry) => registry.register(kind, text, subject).await,
            Kind::EventHubs(registry) => registry.register(kind, text, subject).await,
        }
    }

    /// Whether it is there and lets us in.
    pub async fn probe(&self) -> Result<(), RegistryError> {
        match &*self.0 {
            Kind::Confluent(registry) => registry.probe().await,
            Kind::EventHubs(registry) => registry.probe().await,
        }
    }

    async fn fetch(&self, id: &SchemaId) -> Result<RegisteredSchema, RegistryError> {
        match (&*self.0, id) {
            (Kind::Confluent(registry), SchemaId::Number(number)) => registry.fetch(*number).await,
            (Kind::EventHubs(registry), SchemaId::Guid(guid)) => registry.fetch(guid).await,
            _ => Err(RegistryError::None(format!("{} does not name schemas like this", self.place()))),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

fn unreachable(error: reqwest::Error) -> RegistryError {
    // The innermost reason is the one that helps: "connection refused", "certificate has expired".
    let mut reason: &dyn std::error::Error = &error;
    while let Some(within) = reason.source() {
        reason = within;
    }
    RegistryError::Unavailable(format!("it cannot be reached: {reason}"))
}

/// The body of an answer that is not unreasonably long.
async fn body(mut response: Response) -> Result<String, RegistryError> {
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if bytes.len() + chunk.len() > LONGEST_ANSWER {
            return Err(RegistryError::Refused(format!("its answer is longer than {LONGEST_ANSWER} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| RegistryError::Refused("its answer is not UTF-8".into()))
}

/// What an answer without success means. `said`: the registry's own words. `login`: what to look at if it lets nobody in.
fn failure(status: StatusCode, said: &str, login: &str) -> RegistryError {
    let said = said.trim();
    let said: String =
        if said.is_empty() { String::new() } else { format!(": {}", said.chars().take(500).collect::<String>()) };
    match status {
        StatusCode::NOT_FOUND => RegistryError::None(format!("the registry has none{said}")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::Unavailable(format!("it does not let us in ({status}){said}. {login}"))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            RegistryError::Unavailable(format!("it answers {status}{said}"))
        }
        _ if status.is_server_error() => RegistryError::Unavailable(format!("it answers {status}{said}")),
        _ => RegistryError::Refused(format!("it answers {status}{said}")),
    }
}
