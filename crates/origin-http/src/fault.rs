//! What went wrong with a call, before it is an error of the source.

use std::{error::Error as StdError, fmt::Display, time::Duration};

use cache_core::{OriginError, OriginErrorKind};

use crate::private::PrivateAddress;

/// Longest text of another library or of an origin in an error, in characters.
const LONGEST: usize = 300;

/// A failed call. Its text holds neither path, query, user info, headers nor body.
#[derive(Debug)]
pub(crate) struct Fault {
    kind: OriginErrorKind,
    what: String,
    /// Method and server.
    place: Option<String>,
    retry_after: Option<Duration>,
}

impl Fault {
    pub(crate) fn new(kind: OriginErrorKind, what: impl Display) -> Self {
        Self { kind, what: what.to_string(), place: None, retry_after: None }
    }

    /// Nothing can be asked as it is.
    pub(crate) fn request(what: impl Display) -> Self {
        Self::new(OriginErrorKind::Request, what)
    }

    /// No answer came.
    pub(crate) fn transport(error: reqwest::Error) -> Self {
        let kind =
            if error.is_timeout() { OriginErrorKind::Timeout } else { OriginErrorKind::Network };
        if is_private(&error) {
            return Self::request(PrivateAddress);
        }
        // reqwest's own text holds the whole URL.
        let error = error.without_url();
        let mut causes = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            causes = format!("{causes}: {cause}");
            next = cause.source();
        }
        Self::new(kind, shortened(&causes))
    }

    /// Says where, unless that is known.
    pub(crate) fn at(mut self, place: impl Display) -> Self {
        self.place.get_or_insert_with(|| place.to_string());
        self
    }

    pub(crate) fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// The error of `source`.
    pub(crate) fn of(self, source: &str) -> OriginError {
        let Self { kind, what, place, retry_after } = self;
        let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
        OriginError::new(kind, source, format_args!("{place}{what}")).with_retry_after(retry_after)
    }
}

/// Whether a name was found to lead to a private address.
fn is_private(error: &reqwest::Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.is::<PrivateAddress>() {
            return true;
        }
        next = cause.source();
    }
    false
}

/// At most [`LONGEST`] characters of `text`.
pub(crate) fn shortened(text: &str) -> &str {
    text.char_indices().nth(LONGEST).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
