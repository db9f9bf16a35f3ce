//! How a source is described.

use std::{collections::BTreeMap, fmt, time::Duration};

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use crate::{Batch, BatchError, template::TemplateError};

/// At most so many calls in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls.
    pub count: u32,
    /// In this time.
    pub per: Duration,
}

/// A source of an HTTP API.
///
/// `Debug` shows neither headers, query nor user info: they may hold keys.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpSource {
    /// Its name, the first part of its keys.
    pub name: String,
    /// Where answers are: `https://host/path/{cbsa}`, with names of values in braces.
    pub url: String,
    /// Values for the template that callers do not give; those that the template does not name are
    /// sent in the query. All are part of the key.
    pub params: BTreeMap<String, String>,
    /// Sent in the query, never part of the key: API keys belong here.
    pub query: BTreeMap<String, String>,
    /// Sent with each request.
    pub headers: BTreeMap<String, String>,
    /// Longest time from the request to the last byte of the answer. Default: 30 s.
    pub timeout: Duration,
    /// Longest answer, in bytes, after decompression. Default: 64 MiB.
    pub max_body_bytes: u64,
    /// Most calls in a time of at most a minute, spread evenly. Default: not limited.
    pub rate: Option<Rate>,
    /// How one request asks for several members. Default: each is asked for alone.
    pub batch: Option<Batch>,
}

impl HttpSource {
    /// The source `name` at `url`, with defaults for the rest.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            params: BTreeMap::new(),
            query: BTreeMap::new(),
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            max_body_bytes: 64 << 20,
            rate: None,
            batch: None,
        }
    }

    pub(crate) fn default_of(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    pub(crate) fn header_map(&self) -> Result<HeaderMap, SetupError> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            // Neither error text shows the value.
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_bad| SetupError::HeaderName(name.clone()))?;
            let mut value = HeaderValue::from_str(value)
                .map_err(|_bad| SetupError::HeaderValue(name.clone()))?;
            value.set_sensitive(true);
            map.insert(parsed, value);
        }
        Ok(map)
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, url, params, query, headers, timeout, max_body_bytes, rate, batch } = self;
        let place = Url::parse(url).ok().map(|url| place(&url));
        f.debug_struct("HttpSource")
            .field("name", name)
            .field("url", &place)
            .field("params", params)
            .field("query", &query.keys())
            .field("headers", &headers.keys())
            .field("timeout", timeout)
            .field("max_body_bytes", max_body_bytes)
            .field("rate", rate)
            .field("batch", batch)
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
    /// The text is no header name.
    #[error("`headers`: `{0}` is no header name")]
    HeaderName(String),
    /// The value of this header has characters that headers cannot have.
    #[error("`headers`: the value of `{0}` has characters that a header cannot have")]
    HeaderValue(String),
    /// The rate is none that can be kept by spacing calls.
    #[error("`rate_limit`: write at least one call in at most a minute, for example 50/s")]
    Rate,
    /// The batch cannot be asked for, or its answers cannot be told apart.
    #[error("`batch`: {0}")]
    Batch(#[from] BatchError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[source] reqwest::Error),
}
