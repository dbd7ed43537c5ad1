//! Schemas that messages name and do not carry.

use std::fmt::{self, Debug, Display};
use std::sync::Arc;

/// The name of a schema within its registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// As registries of Confluent's kind number them.
    Number(u32),
    /// As Event Hubs' registry names them: 32 hexadecimal digits.
    Guid(String),
}

impl Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaId::Number(number) => write!(f, "{number}"),
            SchemaId::Guid(guid) => f.write_str(guid),
        }
    }
}

/// A schema as its registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    pub kind: SchemaKind,
    /// In the language of its kind.
    pub text: String,
    /// The schemas that it names types of, those first that name none of the others.
    pub referenced: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    Avro,
    Protobuf,
    Json,
}

/// What a registry says of an id.
#[derive(Debug, Clone)]
pub enum Found {
    Schema(Arc<RegisteredSchema>),
    /// It was asked and has not answered yet. Whoever asked is woken when it has.
    NotYet,
    /// It answered that there is none, or none that we may see: for people.
    None(Arc<str>),
}

/// Wakes whoever waits for a schema.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A registry, as a decoder sees it.
pub trait Schemas: Debug + Send + Sync {
    /// Never waits. `wake` is called once after [`Found::NotYet`], from any thread, when there is another answer.
    fn look(&self, id: &SchemaId, wake: &Wake) -> Found;
}
