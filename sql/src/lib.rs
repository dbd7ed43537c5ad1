//! Job files: text to checked statements to a plan. Does not know the connectors; it is handed them.

mod culprit;
mod ddl;
mod diagnostic;
mod dialect;
mod errors;
mod explain;
mod generated;
mod insert;
mod lateral;
mod lookup_join;
mod names;
mod options;
mod planner;
mod purposes;
mod query;
mod row_number;
mod settings;
mod substitute;
mod system_time;
mod table;
mod unsupported;
mod walk;

pub use diagnostic::{Diagnostic, Place, Severity, SourceFile};
pub use explain::explain;
pub use options::table_options;
pub use planner::{Environment, Job, compile};
pub use settings::Settings;
