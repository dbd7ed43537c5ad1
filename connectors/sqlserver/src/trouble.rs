//! What an error of the server, or of the way to it, means.

use engine::sink::{SinkContext, SinkError};
use identity::TokenError;
use tiberius::error::{Error, IoErrorKind};

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It may work another time, and may have worked this time.
    #[error("{0}")]
    Transient(String),
    /// It will work another time: the server has no capacity left for it now.
    #[error("{0}")]
    Throttled(String),
    /// A statement was refused: because of its rows, if it is not refused without any.
    #[error("{0}")]
    Statement(String),
    /// The server does not let us in.
    #[error("{0}")]
    NotLetIn(String),
    /// Nothing can be, until a person does something.
    #[error("{0}")]
    Stopped(String),
}

/// Errors that pass: <https://learn.microsoft.com/azure/azure-sql/database/troubleshoot-common-errors-issues>, deadlocks, lost locks
/// and snapshots, and what a connection ends with.
const PASSING: &[u32] = &[
    64, 233, 601, 615, 921, 926, 927, 942, 945, 952, 976, 978, 983, 1203, 1204, 1205, 1222, 3906, 3908, 3935, 3960,
    3961, 4060, 4221, 6005, 7303, 7391, 8628, 8645, 8651, 9001, 10053, 10054, 10060, 10936, 14355, 18401, 40143, 40166,
    40197, 40540, 40544, 40549, 40550, 40551, 40552, 40553, 40613, 40627, 41301, 41302, 41305, 41325, 41839, 42108,
    42109,
];
/// Those of them that say that there is too little of what was bought: DTUs or cores, workers, requests.
/// <https://learn.microsoft.com/azure/azure-sql/database/troubleshoot-common-errors-issues#resource-governance-errors>
const THROTTLED: &[u32] = &[10928, 10929, 40501, 49918, 49919, 49920];
/// Logins and rights: <https://learn.microsoft.com/sql/relational-databases/errors-events/database-engine-events-and-errors>
const NOT_LET_IN: &[u32] = &[916, 18451, 18452, 18456, 18470, 18486, 18487, 18488, 40615, 47073];
const NO_RIGHT: &[u32] = &[229, 230, 262, 15247, 15517];
/// From this class on it is the server that is short of something, and no row:
/// <https://learn.microsoft.com/sql/relational-databases/errors-events/database-engine-error-severities>
const SHORT_OF_SOMETHING: u8 = 17;

impl Trouble {
    pub fn of(error: Error) -> Self {
        match error {
            Error::Server(token) => {
                let said = format!("{} (error {}, class {})", token.message(), token.code(), token.class());
                Trouble::of_number(token.code(), token.class(), said)
            }
            Error::Io { kind: IoErrorKind::TimedOut, .. } => {
                let what = "the server did not answer in time: give it more (statement_timeout), or less to do (commit_rows, or \
                            checkpoints that are closer together)";
                Trouble::Transient(what.into())
            }
            Error::Tls(said) => Trouble::Stopped(format!("no secure connection: {said}")),
            other => Trouble::Transient(other.to_string()),
        }
    }

    /// What goes wrong at a commit is tried again, whatever it is.
    pub fn at_commit(self, context: &SinkContext, place: &str) -> SinkError {
        if matches!(self, Trouble::Throttled(_)) {
            let requests = &context.metrics.requests;
            requests.sent.add(1);
            requests.throttled.add(1);
        }
        SinkError::retry(place, self)
    }

    pub fn of_token(error: TokenError) -> Self {
        match error {
            TokenError::Unanswered(what) => Trouble::Transient(what),
            TokenError::Refused(what) => Trouble::Stopped(what),
        }
    }

    fn of_number(number: u32, class: u8, said: String) -> Self {
        match number {
            _ if THROTTLED.contains(&number) => Trouble::Throttled(said),
            _ if PASSING.contains(&number) => Trouble::Transient(said),
            _ if NOT_LET_IN.contains(&number) => Trouble::NotLetIn(said),
            _ if NO_RIGHT.contains(&number) => Trouble::Stopped(format!("{said}. Grant the right (GRANT … TO [user])")),
            _ if class >= SHORT_OF_SOMETHING => Trouble::Transient(said),
            _ => Trouble::Statement(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_passes_or_is_a_statement_s_or_needs_a_person() {
        let of = |number, class| Trouble::of_number(number, class, "said".into());
        for number in [40613, 40197, 40540, 40143, 10053, 10054, 10060, 64, 233, 1205, 1222] {
            assert_eq!(of(number, 16), Trouble::Transient("said".into()), "{number}");
        }
        for number in [40501, 10928, 10929, 49918, 49919, 49920] {
            assert_eq!(of(number, 16), Trouble::Throttled("said".into()), "{number}");
        }
        assert_eq!(of(1105, 17), Trouble::Transient("said".into()), "a full disk is no row's fault");
        assert_eq!(of(2627, 14), Trouble::Statement("said".into()));
        assert_eq!(of(547, 16), Trouble::Statement("said".into()));
        assert_eq!(of(18456, 14), Trouble::NotLetIn("said".into()));
        assert!(matches!(of(229, 14), Trouble::Stopped(said) if said.contains("GRANT")));
    }
}
