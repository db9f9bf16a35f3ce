//! Origins: where data is born.

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{BoxError, Escaped, Request, Tag};

/// How long a value stays fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// For this long, in whole milliseconds; zero means that the value is not stored.
    For(Duration),
    /// For ever.
    Never,
}

/// What an origin may know about a load.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Load {
    /// The question.
    pub request: Request,
}

impl Load {
    /// A load that answers `request`.
    pub fn new(request: Request) -> Self {
        Self { request }
    }
}

/// An origin's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// The value.
    pub value: Bytes,
    /// Media type of the value.
    pub content_type: Option<String>,
    /// Entity tag.
    pub etag: Option<String>,
    /// When the origin says the data last changed.
    pub source_last_modified: Option<String>,
    /// Version of the source's data.
    pub version: Option<String>,
    /// Tags beside those of the request.
    pub tags: Vec<Tag>,
    /// How long this answer stays fresh; `None` leaves it to the source's policy.
    pub ttl: Option<Ttl>,
}

impl Loaded {
    /// An answer that is only a value.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self {
            value: value.into(),
            content_type: None,
            etag: None,
            source_last_modified: None,
            version: None,
            tags: Vec::new(),
            ttl: None,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Loaded {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// What kind of failure an origin had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OriginErrorKind {
    /// No connection, or it broke.
    Network,
    /// No whole answer in time.
    Timeout,
    /// An HTTP status that is no answer.
    Status(u16),
    /// The answer is larger than the source allows.
    TooLarge,
    /// The request cannot be made as asked, for example because a parameter is missing.
    Request,
    /// Anything else.
    Other,
}

/// An origin could not answer.
#[derive(Debug, thiserror::Error)]
#[error("source `{origin}`: {message}")]
pub struct OriginError {
    kind: OriginErrorKind,
    origin: String,
    message: String,
    retry_after: Option<Duration>,
    #[source]
    cause: Option<BoxError>,
}

impl OriginError {
    /// `source` failed; `message` says what happened and, where possible, what to do. It must hold
    /// no secrets; control characters in it are escaped.
    pub fn new(kind: OriginErrorKind, source: &str, message: impl fmt::Display) -> Self {
        Self {
            kind,
            origin: Escaped(source).to_string(),
            message: Escaped(&message.to_string()).to_string(),
            retry_after: None,
            cause: None,
        }
    }

    /// Says when the origin may be asked again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// Says why. The cause must hold no secrets.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<BoxError>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> OriginErrorKind {
        self.kind
    }

    /// The source that failed.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How long the origin asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// Where a missing value comes from: an HTTP API, a data base, a file, anything.
#[async_trait]
pub trait Origin: fmt::Debug + Send + Sync + 'static {
    /// Answers the request of `load`.
    ///
    /// Called at most once at a time per key and process. The future runs in a task of its own: it
    /// is not dropped when callers go away.
    async fn load(&self, load: Load) -> Result<Loaded, OriginError>;

    /// The question to `source` about something described by `values`, a market for example.
    ///
    /// Decides which values tell answers apart, and so are parameters. By default all do.
    fn request(
        &self,
        source: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Request, OriginError> {
        let add = |request: Request, (name, value): (&String, &String)| request.param(name, value);
        Ok(values.iter().fold(Request::new(source), add))
    }
}
