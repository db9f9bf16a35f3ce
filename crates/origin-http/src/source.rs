//! How a source is described.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use reqwest::Url;

use crate::{Batch, BatchError, Method, template::TemplateError};

/// A source of an HTTP API.
///
/// `Debug` shows neither headers, query, body nor user info: they may hold keys.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpSource {
    /// Its name, the first part of its keys.
    pub name: String,
    /// Where answers are: `https://host/path/{cbsa}`, with names of values in braces.
    pub url: String,
    /// How it is asked. Default: GET.
    pub method: Method,
    /// Values for the URL and the body that callers do not give; those that neither names are sent in
    /// the query. All are part of the key.
    pub params: BTreeMap<String, String>,
    /// Names of further values that are sent in the query where callers give them, and are part of the
    /// key then.
    pub optional: BTreeSet<String>,
    /// Sent in the query, never part of the key: API keys belong here.
    pub query: BTreeMap<String, String>,
    /// Sent with each request.
    pub headers: BTreeMap<String, String>,
    /// Longest time from the request to the last byte of the answer. Default: 30 s.
    pub timeout: Duration,
    /// Longest answer, in bytes, after decompression. Default: 64 MiB.
    pub max_body_bytes: u64,
    /// The key that the API wants. Default: none, or in `query` or `headers`.
    pub auth: Option<Auth>,
    /// Which responses are answers.
    pub checks: Checks,
    /// How long the answer with this status stays fresh. One of 4xx that is given here says that there
    /// is nothing. Default: as the source's policy says.
    pub status_ttl: BTreeMap<u16, Duration>,
    /// Whether the answer's `Cache-Control` and `Expires` say how long it stays fresh and whether it is
    /// stored. Where they say nothing the source's policy holds. Default: no.
    pub respect_cache_control: bool,
    /// Where answers say which version of the data they are from. Default: nowhere.
    pub version: Option<VersionFrom>,
    /// What tells the version of the data without asking for any. Default: nothing.
    pub probe: Option<Probe>,
    /// How one request asks for several members. Default: each is asked for alone.
    pub batch: Option<Batch>,
    /// Further hosts that redirects may lead to; what is sent to the source may be sent there, too.
    /// Default: none, redirects stay on the server.
    pub redirect_hosts: Vec<String>,
    /// Whether it may be on this machine or in a private network. Default: no, so that neither a value,
    /// a redirect nor a name makes this program ask what others cannot reach.
    pub allow_private: bool,
}

/// Where the API wants its key. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// In a header.
    Header {
        /// Its name.
        name: String,
        /// All that it holds: `Bearer abc`.
        value: String,
    },
    /// In the query.
    Query {
        /// The parameter.
        name: String,
        /// The key.
        value: String,
    },
    /// In the JSON object, or form, that is posted.
    Body {
        /// The field.
        field: String,
        /// The key.
        value: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Header { name, value: _ } => ("Header", name),
            Self::Query { name, value: _ } => ("Query", name),
            Self::Body { field, value: _ } => ("Body", field),
        };
        f.debug_struct(kind).field("name", name).finish_non_exhaustive()
    }
}

/// Which responses are answers; any other is an error, and nothing is stored.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Checks {
    /// Statuses. Default: 200 and 203.
    pub statuses: Vec<u16>,
    /// Media types, `text/*` for all of a kind. Default: any but HTML's, which is what error pages and
    /// networks that want a login send with status 200. One that is not given passes.
    pub content_types: Vec<String>,
    /// JSON pointers to what must be there.
    pub must_exist: Vec<String>,
    /// JSON pointers to what must not be there, such as a note that the answer is not whole.
    pub must_not_exist: Vec<String>,
    /// JSON pointers to what must have this value.
    pub must_equal: BTreeMap<String, serde_json::Value>,
    /// Means that there is nothing, if this JSON pointer leads to `null`, or to an empty array, object
    /// or text, or nowhere; the empty one is the whole answer. An empty body and the status 204 mean it
    /// too.
    pub empty_is_absent: Option<String>,
    /// JSON pointers to what is left out of what is stored, `null` instead: an API may repeat the
    /// request, with its key.
    pub drop: Vec<String>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            statuses: vec![200, 203],
            content_types: Vec::new(),
            must_exist: Vec::new(),
            must_not_exist: Vec::new(),
            must_equal: BTreeMap::new(),
            empty_is_absent: None,
            drop: Vec::new(),
        }
    }
}

/// Where a response says which version of the data it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VersionFrom {
    /// In this header.
    Header(String),
    /// Where this JSON pointer leads: a text, a number or a switch.
    Pointer(String),
}

/// A request that tells the version of a source's data. The source's keys are sent with it only if it is
/// on the same server.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// What is asked, without names of values.
    pub url: String,
    /// Where the version is. Default: in the headers that tell when it changed, which a HEAD is asked
    /// for.
    pub from: ProbeFrom,
}

impl Probe {
    /// A probe of what is at `url`.
    pub fn new(url: impl Into<String>, from: ProbeFrom) -> Self {
        Self { url: url.into(), from }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Url::parse(&self.url).ok().map(|url| place(&url));
        f.debug_struct("Probe").field("url", &place).field("from", &self.from).finish()
    }
}

/// Where the answer to a [`Probe`] has the version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeFrom {
    /// In the `ETag` or, without one, in `Last-Modified`, of a HEAD.
    #[default]
    Validators,
    /// In this header of a HEAD.
    Header(String),
    /// Where this JSON pointer leads in the answer to a GET.
    Pointer(String),
}

impl HttpSource {
    /// The source `name` at `url`, with defaults for the rest.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            method: Method::Get,
            params: BTreeMap::new(),
            optional: BTreeSet::new(),
            query: BTreeMap::new(),
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            max_body_bytes: 64 << 20,
            auth: None,
            checks: Checks::default(),
            status_ttl: BTreeMap::new(),
            respect_cache_control: false,
            version: None,
            probe: None,
            batch: None,
            redirect_hosts: Vec::new(),
            allow_private: false,
        }
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            url,
            method,
            params,
            optional,
            query,
            headers,
            timeout,
            max_body_bytes,
            auth,
            checks,
            status_ttl,
            respect_cache_control,
            version,
            probe,
            batch,
            redirect_hosts,
            allow_private,
        } = self;
        let place = Url::parse(url).ok().map(|url| place(&url));
        f.debug_struct("HttpSource")
            .field("name", name)
            .field("url", &place)
            .field("method", method)
            .field("params", params)
            .field("optional", optional)
            .field("query", &query.keys())
            .field("headers", &headers.keys())
            .field("timeout", timeout)
            .field("max_body_bytes", max_body_bytes)
            .field("auth", auth)
            .field("checks", checks)
            .field("status_ttl", status_ttl)
            .field("respect_cache_control", respect_cache_control)
            .field("version", version)
            .field("probe", probe)
            .field("batch", batch)
            .field("redirect_hosts", redirect_hosts)
            .field("allow_private", allow_private)
            .finish()
    }
}

/// The server of `url`. User info, path and query may hold keys.
pub(crate) fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}

/// A source's description makes no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The URL template is malformed.
    #[error("`url`: {0}")]
    Url(#[from] TemplateError),
    /// A text in the body is malformed.
    #[error("`body`: {0}; for a brace that is text write {{{{ or }}}}")]
    Body(#[source] TemplateError),
    /// The text is no header name.
    #[error("`headers`: `{0}` is no header name")]
    HeaderName(String),
    /// The value of this header has characters that headers cannot have.
    #[error("`headers`: the value of `{0}` has characters that a header cannot have")]
    HeaderValue(String),
    /// The key is to be a field of a body that has no fields.
    #[error("`auth`: only a JSON object or a form that is posted can have a field for the key")]
    AuthBody,
    /// The text is no JSON pointer.
    #[error(
        "`{0}`: a JSON pointer is empty or begins with `/`, such as /Results/series; not `{1}`"
    )]
    Pointer(&'static str, String),
    /// A status cannot mean that there is nothing.
    #[error(
        "`status_ttl`: {0} is no answer that could be kept; write one that `statuses` has, or a 4xx \
         other than 401, 403, 408, 425 and 429"
    )]
    StatusTtl(u16),
    /// The address of a probe is malformed.
    #[error("`probe`: its URL starts with http:// or https:// and has no names in braces")]
    Probe,
    /// The source is on this machine, or in a private network.
    #[error(
        "`{0}`: it is at a private address; if that is meant, write `allow_private: true` at the source"
    )]
    Private(&'static str),
    /// The batch cannot be asked for, or its answers cannot be told apart.
    #[error("`batch`: {0}")]
    Batch(#[from] BatchError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[source] reqwest::Error),
}
