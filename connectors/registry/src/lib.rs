//! Clients of schema registries: of those that speak Confluent's protocol (Confluent's own, Apicurio, Redpanda, Karapace),
//! and of the one that every Event Hubs namespace has.
//!
//! Decoders [`start`](Registry::start) one and look schemas up in it; encoders [`register`](Registry::register) theirs.

mod confluent;
mod connection;
mod eventhubs;
mod looking;
mod options;
mod trouble;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engine::connector::{Options, Problem};
use formats::{RegisteredSchema, SchemaId, SchemaKind, Schemas};
use tokio::runtime::Handle;

use confluent::Confluent;
use eventhubs::EventHubs;
use looking::Looking;
use trouble::Unfound;

pub use options::options;
pub use trouble::RegistryError;

/// A schema registry, and how one is let in to it.
#[derive(Clone)]
pub struct Registry(Arc<Settings>);

struct Settings {
    service: Service,
    subject: Option<String>,
    pace: Pace,
}

enum Service {
    Confluent(Confluent),
    EventHubs(EventHubs),
}

/// How patient a client is. Tests are less so.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// How long the registry may take for an answer.
    answer: Duration,
    /// Pauses before it is asked again: from, up to.
    pause: (Duration, Duration),
    /// How long it is believed that there is no such schema: it may be registered yet.
    none: Duration,
    /// How often it is told that it is still away.
    told: Duration,
}

const PACE: Pace = Pace {
    answer: Duration::from_secs(10),
    pause: (Duration::from_millis(250), Duration::from_secs(30)),
    none: Duration::from_secs(30),
    told: Duration::from_secs(60),
};

impl Registry {
    /// Of a table with such [`options()`]; none if it names none. Does no I/O, and nothing is asked before the first use.
    /// `environment`: what else is asked of an identity, by name.
    pub fn of(
        options: &Options,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Registry>, Vec<Problem>> {
        Registry::with_pace(options, environment, PACE)
    }

    fn with_pace(
        options: &Options,
        environment: &dyn Fn(&str) -> Option<String>,
        pace: Pace,
    ) -> Result<Option<Registry>, Vec<Problem>> {
        let service = options::service(options, environment, pace.answer)?;
        let subject = options.get(options::SUBJECT).map(String::from);
        Ok(service.map(|service| Registry(Arc::new(Settings { service, subject, pace }))))
    }

    /// Whether it names schemas as Event Hubs does, and not by numbers.
    pub fn is_event_hubs(&self) -> bool {
        matches!(self.0.service, Service::EventHubs(_))
    }

    /// What a decoder looks schemas up in. What is not known yet is asked for on `runtime`, until all of what is returned is
    /// dropped. Call it once for all readers of a table: each has a memory of its own.
    pub fn start(&self, runtime: Handle) -> Arc<dyn Schemas> {
        Arc::new(Looking::new(self.clone(), runtime))
    }

    /// The name that a written schema has, if the table says one.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// Registers a schema under a subject (in Event Hubs: under a name in the table's group), and gives its id. Registering
    /// one that is there already gives the same id again.
    pub async fn register(&self, kind: SchemaKind, text: &str, subject: &str) -> Result<SchemaId, RegistryError> {
        match &self.0.service {
            Service::Confluent(registry) => registry.register(kind, text, subject).await,
            Service::EventHubs(registry) => registry.register(kind, text, subject).await,
        }
    }

    /// Whether the registry can be reached and lets us in.
    pub async fn probe(&self) -> Result<(), RegistryError> {
        match &self.0.service {
            Service::Confluent(registry) => registry.probe().await,
            Service::EventHubs(registry) => registry.probe().await,
        }
    }

    /// For plans: where it is, and who asks. No secret.
    pub fn describe(&self) -> String {
        format!("{}, {}", self.place(), self.connection().login.describe())
    }

    /// For errors: where it is.
    pub fn place(&self) -> String {
        format!("schema registry {}", self.connection().address())
    }

    fn connection(&self) -> &connection::Connection {
        match &self.0.service {
            Service::Confluent(registry) => &registry.connection,
            Service::EventHubs(registry) => &registry.connection,
        }
    }

    async fn fetch(&self, id: &SchemaId) -> Result<RegisteredSchema, Unfound> {
        match (&self.0.service, id) {
            (Service::Confluent(registry), SchemaId::Number(number)) => registry.fetch(*number).await,
            (Service::EventHubs(registry), SchemaId::Guid(guid)) => registry.fetch(guid).await,
            (_, foreign) => Err(Unfound::None(format!("{} does not name schemas as '{foreign}'", self.place()))),
        }
    }
}

/// The address only: the rest may hold secrets.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.connection().address()).finish()
    }
}

#[cfg(test)]
mod tests;
