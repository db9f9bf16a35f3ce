//! Origins: where data is born.

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{BoxError, Entry, Escaped, Request, Tag};

/// How long a value stays fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// For this long, in whole milliseconds; zero means that the value is not stored.
    For(Duration),
    /// For ever.
    Never,
}

impl From<Duration> for Ttl {
    fn from(ttl: Duration) -> Self {
        Self::For(ttl)
    }
}

/// What an origin may know about a load.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Load {
    /// The question.
    pub request: Request,
    /// What is stored and no longer fresh, or to be refreshed: its validators (`etag`,
    /// `source_last_modified`, `version`) allow a conditional request, which may be answered by
    /// [`Loaded::not_modified`].
    pub stored: Option<Entry>,
}

impl Load {
    /// A load that answers `request`, when nothing is stored.
    pub fn new(request: Request) -> Self {
        Self { request, stored: None }
    }

    /// Says what is stored.
    #[must_use]
    pub fn with_stored(mut self, stored: Option<Entry>) -> Self {
        self.stored = stored;
        self
    }
}

/// What an origin answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The value.
    Value(Bytes),
    /// There is nothing, and that is the answer.
    Absent,
    /// What is stored still holds.
    NotModified,
}

/// An origin's answer, and how it differs from what the source's policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// The answer.
    pub answer: Answer,
    /// Media type of the value.
    pub content_type: Option<String>,
    /// Entity tag.
    pub etag: Option<String>,
    /// When the origin says the data last changed.
    pub source_last_modified: Option<String>,
    /// Version of the source's data: entries of the source with another one are stale from now on.
    pub version: Option<String>,
    /// Tags beside those of the request.
    pub tags: Vec<Tag>,
    /// How long this answer stays fresh; `None` leaves it to the source's policy.
    pub ttl: Option<Ttl>,
    /// How long it may be served after that; `None` leaves it to the source's policy.
    pub stale_for: Option<Duration>,
    /// Whether it is stored. Default: yes.
    pub store: bool,
}

impl Loaded {
    /// An answer that is only a value.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self::answer(Answer::Value(value.into()))
    }

    /// There is nothing: stored, where the source's policy has a `negative_ttl` or one is given
    /// here, and then a hit that says so.
    pub fn absent() -> Self {
        Self::answer(Answer::Absent)
    }

    /// What is stored still holds: it is stored anew, with its value and validators unless others
    /// are given here.
    pub fn not_modified() -> Self {
        Self::answer(Answer::NotModified)
    }

    fn answer(answer: Answer) -> Self {
        Self {
            answer,
            content_type: None,
            etag: None,
            source_last_modified: None,
            version: None,
            tags: Vec::new(),
            ttl: None,
            stale_for: None,
            store: true,
        }
    }

    /// The value, if there is one.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.answer {
            Answer::Value(value) => Some(value),
            Answer::Absent | Answer::NotModified => None,
        }
    }

    /// Fresh for `ttl`, whatever the policy says; zero is not stored.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Usable for so long after it is no longer fresh, as far as the policy has use for it.
    #[must_use]
    pub fn stale_for(mut self, extra: Duration) -> Self {
        self.stale_for = Some(extra);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Says which version of the source it was made from.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Gives its entity tag.
    #[must_use]
    pub fn etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }

    /// Gives its media type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Says when the origin last changed the data.
    #[must_use]
    pub fn source_last_modified(mut self, instant: impl Into<String>) -> Self {
        self.source_last_modified = Some(instant.into());
        self
    }

    /// Returned to those who wait, not stored.
    #[must_use]
    pub fn do_not_store(mut self) -> Self {
        self.store = false;
        self
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
    /// The loader gave up, and says so: what is stale may be served instead.
    GaveUp,
    /// What came is no answer: an error page with status 200, or an answer that says that it failed.
    Unusable,
    /// The source's calls are used up until a quota lets one through again.
    Quota,
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

    /// What happened, without the source's name.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long the origin asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// An origin that answers each load by a call of `load`.
///
/// ```
/// use cache_core::{Loaded, origin_fn};
///
/// let origin = origin_fn(async |load| {
///     let market = load.request.value("market").unwrap_or_default();
///     Ok(Loaded::new(format!("what is known of {market}")))
/// });
/// ```
pub fn origin_fn<F, Fut>(load: F) -> impl Origin
where
    F: Fn(Load) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
{
    OriginFn(load)
}

struct OriginFn<F>(F);

impl<F> fmt::Debug for OriginFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OriginFn")
    }
}

#[async_trait]
impl<F, Fut> Origin for OriginFn<F>
where
    F: Fn(Load) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
{
    async fn load(&self, load: Load) -> Result<Loaded, OriginError> {
        (self.0)(load).await
    }
}

/// Where a missing value comes from: an HTTP API, a data base, a file, anything.
#[async_trait]
pub trait Origin: fmt::Debug + Send + Sync + 'static {
    /// Answers the request of `load`.
    ///
    /// Called once at a time per key and process, unless an invalidation or a time limit has
    /// overtaken the call before, or the caller bypasses the cache. The future runs in a task of its own: it
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

    /// How these questions are best asked: the places of those that one call of
    /// [`Origin::load_many`] answers, each place once. By default each is asked on its own.
    fn groups(&self, requests: &[Request]) -> Vec<Vec<usize>> {
        (0..requests.len()).map(|place| vec![place]).collect()
    }

    /// Answers several loads, a group that [`Origin::groups`] has made, by one call; in the order
    /// of the loads. An error is that of all. By default it is one load after the other.
    ///
    /// Cancel safety as [`Origin::load`].
    async fn load_many(
        &self,
        loads: Vec<Load>,
    ) -> Result<Vec<Result<Loaded, OriginError>>, OriginError> {
        let mut answers = Vec::with_capacity(loads.len());
        for load in loads {
            answers.push(self.load(load).await);
        }
        Ok(answers)
    }

    /// Which version the source's data has now, found out by less than a load: the headers of an
    /// answer, or a small document. `None`: this origin has no such way, which is the default.
    async fn probe(&self) -> Result<Option<String>, OriginError> {
        Ok(None)
    }
}
