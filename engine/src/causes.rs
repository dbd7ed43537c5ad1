//! What an error came of.

use std::error::Error;

/// An error, what it came of, what that came of, and so on. What an [`std::io::Error`] holds is none of its sources.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn Error + 'static)| (*e).source())
}
