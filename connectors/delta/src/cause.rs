//! What an error of the store means: a pause heals it, or a person must.

use std::error::Error;
use std::io::ErrorKind;

use engine::sink::SinkError;

/// An error of reading or looking.
pub fn reading(place: &str, error: &object_store::Error) -> SinkError {
    if lasting(error) { SinkError::failed(place, error) } else { SinkError::retry(place, error) }
}

/// An error of writing. What is not found then is the container itself: no pause makes it.
pub fn writing(place: &str, error: &object_store::Error) -> SinkError {
    match error {
        object_store::Error::NotFound { .. } => SinkError::failed(place, error),
        _ => reading(place, error),
    }
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
            of_the_disk || cause.downcast_ref::<object_store::Error>().is_some_and(lasting)
        }),
        _ => false,
    }
}

fn refused(kind: ErrorKind) -> bool {
    use ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(kind, PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory | InvalidFilename)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn Error + 'static)| (*e).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_the_disk(kind: ErrorKind) -> object_store::Error {
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
    fn a_disk_that_is_read_only_lasts_and_a_full_one_is_emptied_some_day() {
        assert!(lasts(writing("t", &of_the_disk(ErrorKind::ReadOnlyFilesystem))));
        assert!(!lasts(writing("t", &of_the_disk(ErrorKind::StorageFull))));
    }

    #[test]
    fn what_is_not_found_while_writing_is_the_container() {
        let missing = object_store::Error::NotFound { path: "p".into(), source: "404".into() };
        assert!(lasts(writing("t", &missing)) && !lasts(reading("t", &missing)));
    }
}
