//! What an error of the store means: a pause heals it, or a person must.

use std::io::ErrorKind;

use engine::causes::causes;
use engine::sink::SinkError;

/// An error of reading or looking.
pub fn reading(place: &str, error: &object_store::Error) -> SinkError {
    let what = in_one_line(&error.to_string());
    if lasting(error) { SinkError::failed(place, what) } else { SinkError::retry(place, what) }
}

/// An error of writing. What is not found then is the container itself: no pause makes it.
pub fn writing(place: &str, error: &object_store::Error) -> SinkError {
    match error {
        object_store::Error::NotFound { .. } => SinkError::failed(place, in_one_line(&error.to_string())),
        _ => reading(place, error),
    }
}

/// An error of the disk itself.
pub fn of_the_disk(place: &str, error: &std::io::Error) -> SinkError {
    if refused(error.kind()) { SinkError::failed(place, error) } else { SinkError::retry(place, error) }
}

/// Whether the same request will get the same answer until somebody grants a right or corrects a name.
fn lasting(error: &object_store::Error) -> bool {
    use object_store::Error::{
        Generic, InvalidPath, NotImplemented, NotSupported, PermissionDenied, Unauthenticated, UnknownConfigurationKey,
    };
    match error {
        PermissionDenied { .. }
        | Unauthenticated { .. }
        | InvalidPath { .. }
        | NotSupported { .. }
        | NotImplemented { .. }
        | UnknownConfigurationKey { .. } => true,
        Generic { source, .. } => causes(source.as_ref()).any(|cause| {
            let of_the_disk = cause.downcast_ref::<std::io::Error>().is_some_and(|e| refused(e.kind()));
            let of_the_store = cause.downcast_ref::<object_store::Error>().is_some_and(lasting);
            of_the_disk || of_the_store || REFUSALS.iter().any(|said| cause.to_string().contains(said))
        }),
        _ => false,
    }
}

/// What stands in an answer that is made an error without a kind of: of a listing, and of a file's parts that are gone.
const REFUSALS: [&str; 4] =
    ["401 Unauthorized", "403 Forbidden", "<Code>ContainerNotFound</Code>", "<Code>InvalidBlockList</Code>"];

/// An answer of Azure is a page of XML: its code says what a person wants to know.
fn in_one_line(text: &str) -> String {
    let Some((said, page)) = text.split_once("<?xml") else { return text.lines().next().unwrap_or_default().into() };
    let code = page.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    format!(
        "{}{}",
        said.trim_start().trim_end_matches([' ', ':', '\u{feff}']),
        code.map(|c| format!(" ({c})")).unwrap_or_default()
    )
}

/// A right, a mount or a name is wrong: a person has to look, and a job that ends is seen sooner than one that waits. A
/// disk that is full, or that fails, may work a moment later.
fn refused(kind: ErrorKind) -> bool {
    use ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(kind, PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory | InvalidFilename)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_the_disk(kind: ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "disk", source: Box::new(std::io::Error::from(kind)) }
    }

    fn lasts(error: SinkError) -> bool {
        matches!(error, SinkError::Failed { .. })
    }

    #[test]
    fn a_missing_right_lasts_and_a_busy_store_does_not() {
        let denied = object_store::Error::PermissionDenied { path: "p".into(), source: "403".into() };
        let busy = object_store::Error::Generic { store: "blob", source: "503 Server Busy".into() };
        assert!(lasts(reading("t", &denied)) && lasts(writing("t", &denied)));
        assert!(!lasts(reading("t", &busy)) && !lasts(writing("t", &busy)));
    }

    #[test]
    fn an_answer_that_a_listing_got_is_judged_and_shown_by_its_code() {
        let listing = |answer: &str| object_store::Error::Generic { store: "Azure", source: answer.into() };
        let page = "<?xml version=\"1.0\"?>\n<Error>\n  <Code>AuthenticationFailed</Code></Error>";
        let refused = reading("az://c/t", &listing(&format!("status code: 403 Forbidden: \u{feff}{page}")));
        assert_eq!(
            refused.to_string(),
            "az://c/t: Generic Azure error: status code: 403 Forbidden (AuthenticationFailed)"
        );
        assert!(lasts(refused));
        assert!(lasts(reading("t", &listing("404: <?xml?><Code>ContainerNotFound</Code>"))));
        assert!(!lasts(reading("t", &listing("503 Server Busy: <?xml?><Code>ServerBusy</Code>"))));
    }

    #[test]
    fn a_disk_that_is_read_only_lasts_and_a_full_one_is_emptied_some_day() {
        use ErrorKind::{NotADirectory, Other, QuotaExceeded, ReadOnlyFilesystem, StaleNetworkFileHandle, StorageFull};
        for (kind, lasting) in [
            (ReadOnlyFilesystem, true),
            // A file stands where the table's folder, or one above it, should be.
            (NotADirectory, true),
            (StorageFull, false),
            (QuotaExceeded, false),
            (StaleNetworkFileHandle, false),
            (Other, false),
        ] {
            assert_eq!(lasts(writing("t", &from_the_disk(kind))), lasting, "{kind}");
            assert_eq!(lasts(of_the_disk("t", &kind.into())), lasting, "{kind}");
        }
    }

    #[test]
    fn what_is_not_found_while_writing_is_the_container() {
        let missing = object_store::Error::NotFound { path: "p".into(), source: "404".into() };
        assert!(lasts(writing("t", &missing)) && !lasts(reading("t", &missing)));
    }
}
