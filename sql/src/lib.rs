//! Job files: text to checked statements to a plan. Does not know the connectors; it is handed them.

mod ddl;
mod diagnostic;
mod explain;
mod options;
mod planner;
mod query;
mod settings;
mod substitute;

pub use diagnostic::{Diagnostic, Place, SourceFile};
pub use explain::explain;
pub use planner::{Environment, Job, compile};
pub use settings::Settings;
