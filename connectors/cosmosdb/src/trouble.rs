//! What an answer of the service that is no success means.

use std::error::Error;
use std::io;
use std::time::Duration;

use azure_data_cosmos::CosmosError;
use engine::causes::causes;
use rustls::CertificateError;

/// What becomes of a request that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There are no request units left; the service says for how long.
    Throttled(Duration),
    /// It may work another time, and may have worked this time.
    Transient(String),
    /// There is a document with this id, or one that a unique key of the container keeps it from.
    Conflict,
    Missing,
    /// Somebody else changed the document since it was read.
    Changed,
    /// It can never be, for this reason.
    Refused(String),
    /// Nothing can be, until a person lets us in.
    NotLetIn(String),
    /// Nothing can be, until a person does something else.
    Stopped(String),
}

/// The pause after a throttled request that does not say how long.
const UNSTATED: Duration = Duration::from_millis(100);
/// The sub-status of a logical partition that is full (20 GB).
const PARTITION_IS_FULL: u16 = 1014;
/// The sub-status of a container, or a database, that is not there.
const OWNER_IS_GONE: u16 = 1003;
/// Sub-statuses of a container that is another one than was looked at, with another partition key perhaps.
const ANOTHER_CONTAINER: [u16; 2] = [1001, 1024];
/// The sub-status of a reader whose copy is behind.
pub const BEHIND: u16 = 1002;
/// What to do about a certificate of nobody who is known.
const OWN_AUTHORITY: &str = "If its authority is your own, name a file in SSL_CERT_FILE with the certificates of that one and \
                             of all others that are needed: the machine's do not count then";
/// What the SDK finds wrong with one document: it cannot be encoded.
const NOT_ENCODED: u16 = 20021;

impl Trouble {
    pub fn of(error: &CosmosError) -> Self {
        let after = error.response().and_then(|r| r.headers().retry_after_ms).map(Duration::from_millis);
        let status = error.status();
        let sub_status = status.sub_status().map(|s| s.value());
        if !error.is_from_wire() {
            let said = in_full(error);
            if let Some(wrong) = causes(error).find_map(wrong_certificate) {
                let unknown = matches!(wrong, CertificateError::UnknownIssuer);
                return Trouble::Stopped(if unknown { format!("{said}. {OWN_AUTHORITY}") } else { said });
            }
            return match u16::from(status.status_code()) {
                401 | 403 => Trouble::NotLetIn(said),
                400 if sub_status == Some(NOT_ENCODED) => Trouble::Refused(said),
                // The SDK finds the container wrong, and so all documents alike.
                400 => Trouble::Stopped(said),
                429 => Trouble::Throttled(after.unwrap_or(UNSTATED)),
                _ => Trouble::Transient(said),
            };
        }
        Trouble::of_status(u16::from(status.status_code()), sub_status, after, &error.to_string())
    }

    /// Of an answer, or of the part of an answer that is about one operation of a batch.
    pub fn of_status(status: u16, sub_status: Option<u16>, after: Option<Duration>, said: &str) -> Self {
        match (status, sub_status) {
            (429, _) => Trouble::Throttled(after.unwrap_or(UNSTATED)),
            (403, Some(PARTITION_IS_FULL)) => Trouble::Refused(said.into()),
            (400, Some(sub_status)) if ANOTHER_CONTAINER.contains(&sub_status) => {
                Trouble::Stopped(format!("{said}. Was the container made again? Start the job anew"))
            }
            (404, Some(OWNER_IS_GONE)) => Trouble::Stopped(said.into()),
            (401 | 403, _) => Trouble::NotLetIn(said.into()),
            (404, None | Some(0)) => Trouble::Missing,
            (409, _) => Trouble::Conflict,
            (412, _) => Trouble::Changed,
            (400 | 413, _) => Trouble::Refused(said.into()),
            _ => Trouble::Transient(said.into()),
        }
    }
}

/// An error, and what it came of: of a connection that was not made, the SDK says only that there is none.
fn in_full(error: &CosmosError) -> String {
    let mut said = error.to_string();
    for cause in causes(error).skip(1).map(|cause| cause.to_string()) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

fn wrong_certificate<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(wrong)) = cause.downcast_ref() {
        return Some(wrong);
    }
    // What an I/O error holds is none of its sources.
    let within = cause.downcast_ref().and_then(io::Error::get_ref);
    within.and_then(|within| wrong_certificate(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_to_wait_to_go_on_or_to_stop() {
        let of = |status, sub_status| Trouble::of_status(status, sub_status, None, "said");
        assert_eq!(of(429, None), Trouble::Throttled(UNSTATED));
        assert_eq!(of(403, Some(1014)), Trouble::Refused("said".into()), "one full partition stops no other");
        assert_eq!(of(403, None), Trouble::NotLetIn("said".into()));
        assert_eq!(of(404, Some(1003)), Trouble::Stopped("said".into()));
        assert_eq!(of(404, None), Trouble::Missing);
        assert_eq!(of(404, Some(1013)), Trouble::Transient("said".into()), "what is not there yet is not deleted");
        assert_eq!(of(413, None), Trouble::Refused("said".into()));
        assert_eq!(of(400, None), Trouble::Refused("said".into()));
        assert!(matches!(of(400, Some(1001)), Trouble::Stopped(_)), "no row is to blame");
        for transient in [408, 410, 424, 449, 500, 503] {
            assert_eq!(of(transient, None), Trouble::Transient("said".into()));
        }
    }
}
