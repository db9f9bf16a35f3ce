//! Larder's HTTP origin: sources described by a URL template, paced, and bounded in time and size.
//!
//! Errors name the source and the server; never path, query or headers, where API keys are.

mod batch;
mod body;
mod pace;
mod source;
mod template;

use std::{collections::BTreeMap, error::Error as StdError, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use cache_core::{Load, Loaded, Origin, OriginError, OriginErrorKind, Request};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, RETRY_AFTER},
    redirect,
};

use crate::{batch::Batcher, pace::Pacer, template::Template};

pub use crate::{
    batch::{Batch, BatchError},
    source::{HttpSource, Rate, SetupError},
    template::TemplateError,
};

/// Redirects followed, on the same host and port only: keys and headers must not reach another.
const MAX_REDIRECTS: usize = 5;

/// One source answered by an HTTP API.
#[derive(Debug)]
pub struct HttpOrigin {
    source: HttpSource,
    template: Template,
    headers: HeaderMap,
    pacer: Option<Pacer>,
    batcher: Option<Batcher>,
    client: Client,
}

impl HttpOrigin {
    /// The origin of `source`, with connections of its own.
    ///
    /// # Errors
    /// As [`HttpOrigin::with_client`].
    pub fn new(source: HttpSource) -> Result<Self, SetupError> {
        Self::with_client(source, &HttpClient::default())
    }

    /// The origin of `source`, sharing the connections of others.
    ///
    /// # Errors
    /// When the template, a header or the limits make no sense.
    pub fn with_client(source: HttpSource, client: &HttpClient) -> Result<Self, SetupError> {
        let template = Template::parse(&source.url)?;
        let headers = source.header_map()?;
        let pacer = source.rate.map(|rate| Pacer::new(rate).ok_or(SetupError::Rate)).transpose()?;
        let batcher = Batcher::of(&source, &template)?;
        let client = client.get(template.is_loopback())?;
        Ok(Self { source, template, headers, pacer, batcher, client })
    }

    /// The URL that answers `request`, with every value encoded.
    fn url(&self, request: &Request) -> Result<Url, OriginError> {
        let value = |name: &str| request.value(name).or_else(|| self.source.default_of(name));
        let text = self.template.fill(value).map_err(|missing| self.missing(&missing))?;
        if template::climbs(&text) {
            let what = "a value makes `.` or `..` a part of its URL's path, which leads elsewhere";
            return Err(self.failed(OriginErrorKind::Request, None, what));
        }
        let mut url = Url::parse(&text)
            .map_err(|error| self.failed(OriginErrorKind::Request, None, error))?;
        {
            let mut query = url.query_pairs_mut();
            let in_template = self.template.names();
            let extra = request.params().iter().filter(|(name, _)| !in_template.contains(*name));
            query.extend_pairs(extra);
            query.extend_pairs(&self.source.query);
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(url)
    }

    fn missing(&self, name: &str) -> OriginError {
        let message = format!(
            "its URL needs `{name}`, which the request does not have; give a default under \
             `params` of the source"
        );
        OriginError::new(OriginErrorKind::Request, &self.source.name, message)
    }

    /// An error that says where, without query and user info.
    fn failed(
        &self,
        kind: OriginErrorKind,
        url: Option<&Url>,
        what: impl std::fmt::Display,
    ) -> OriginError {
        let place = url.map(|url| format!("GET {}: ", source::place(url)));
        let message = format!("{}{what}", place.unwrap_or_default());
        OriginError::new(kind, &self.source.name, message)
    }

    async fn get(&self, url: &Url) -> Result<Loaded, OriginError> {
        let request = self.client.get(url.clone()).headers(self.headers.clone());
        let response = request.send().await.map_err(|error| self.transport(url, error))?;
        // Other 2xx say that this is not, or not yet, the whole answer.
        if !matches!(response.status(), StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION)
        {
            return Err(self.refused(url, &response));
        }
        let text = |name: HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let content_type = text(CONTENT_TYPE);
        let etag = text(ETAG);
        let source_last_modified = text(LAST_MODIFIED);
        let limit = self.source.max_body_bytes;
        let value = body::read(response, limit).await.map_err(|error| match error {
            body::BodyError::TooLarge => self.failed(
                OriginErrorKind::TooLarge,
                Some(url),
                format_args!("the answer has more than {limit} bytes; raise `max_body`"),
            ),
            body::BodyError::Transport(error) => self.transport(url, error),
        })?;
        let mut loaded = Loaded::new(value);
        loaded.content_type = content_type;
        loaded.etag = etag;
        loaded.source_last_modified = source_last_modified;
        Ok(loaded)
    }

    fn transport(&self, url: &Url, error: reqwest::Error) -> OriginError {
        let kind =
            if error.is_timeout() { OriginErrorKind::Timeout } else { OriginErrorKind::Network };
        // reqwest's own text holds the whole URL.
        let error = error.without_url();
        let mut causes = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            causes = format!("{causes}: {cause}");
            next = cause.source();
        }
        self.failed(kind, Some(url), causes)
    }

    fn refused(&self, url: &Url, response: &Response) -> OriginError {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; check the key in `headers` or `query` of the source"
            }
            StatusCode::TOO_MANY_REQUESTS => "; lower `rate_limit` of the source",
            _ => "",
        };
        let what = format_args!("HTTP {status}{hint}");
        self.failed(OriginErrorKind::Status(status.as_u16()), Some(url), what)
            .with_retry_after(after)
    }
}

#[async_trait]
impl Origin for HttpOrigin {
    async fn load(&self, load: Load) -> Result<Loaded, OriginError> {
        let url = self.url(&load.request)?;
        if let Some(pacer) = &self.pacer {
            pacer.wait().await;
        }
        let limit = self.source.timeout;
        // Over headers and body together; time spent waiting for the pacer does not count.
        tokio::time::timeout(limit, self.get(&url)).await.unwrap_or_else(|_elapsed| {
            let what = format_args!("no whole answer within {limit:?}; raise `timeout`");
            Err(self.failed(OriginErrorKind::Timeout, Some(&url), what))
        })
    }

    /// Values that the URL template names, and the source's own `params`, are parameters.
    fn request(
        &self,
        source: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Request, OriginError> {
        let defaults = self.source.params.iter();
        let mut request = defaults
            .fold(Request::new(source), |request, (name, value)| request.param(name, value));
        for name in self.template.names() {
            let value = values.get(name).map(String::as_str);
            let value = value.or_else(|| self.source.default_of(name));
            request = request.param(name, value.ok_or_else(|| self.missing(name))?);
        }
        Ok(request)
    }

    fn groups(&self, requests: &[Request]) -> Vec<Vec<usize>> {
        self.grouped(requests.iter())
    }

    async fn load_many(
        &self,
        loads: Vec<Load>,
    ) -> Result<Vec<Result<Loaded, OriginError>>, OriginError> {
        self.load_group(loads).await
    }
}

/// Connections and TLS roots that the origins of one program share: reading the roots takes
/// milliseconds.
#[derive(Debug, Default)]
pub struct HttpClient {
    direct: OnceLock<Client>,
    proxied: OnceLock<Client>,
}

impl HttpClient {
    fn get(&self, direct: bool) -> Result<Client, SetupError> {
        let made = if direct { &self.direct } else { &self.proxied };
        if let Some(client) = made.get() {
            return Ok(client.clone());
        }
        let client = client(direct)?;
        Ok(made.get_or_init(|| client).clone())
    }
}

/// `direct` ignores the proxies that the environment names: none of them reaches this machine's own
/// addresses.
fn client(direct: bool) -> Result<Client, SetupError> {
    // Several libraries of one program may want to; the first one's choice stands.
    _ = rustls::crypto::ring::default_provider().install_default();
    let same_host = redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first();
        let same = first.is_some_and(|first| same_server(first, attempt.url()));
        if same && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    });
    let builder = Client::builder()
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
        .redirect(same_host);
    let builder = if direct { builder.no_proxy() } else { builder };
    builder.build().map_err(SetupError::Client)
}

/// Whether what `first` may see, `next` may see: the same server or, instead of plain HTTP on its
/// usual port, HTTPS on its own.
fn same_server(first: &Url, next: &Url) -> bool {
    let port = Url::port_or_known_default;
    let same = first.scheme() == next.scheme() && port(first) == port(next);
    let secured = (first.scheme(), port(first)) == ("http", Some(80))
        && (next.scheme(), port(next)) == ("https", Some(443));
    first.host_str() == next.host_str() && (same || secured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        let same = |first: &str, next: &str| {
            same_server(&Url::parse(first).unwrap(), &Url::parse(next).unwrap())
        };
        assert!(same("https://h.example/a", "https://h.example:443/b?c"));
        assert!(same("http://h.example:8080/a", "http://h.example:8080/b"));
        assert!(same("http://h.example/a", "https://h.example/a"), "an upgrade");
        assert!(!same("https://h.example/a", "http://h.example/a"), "a downgrade");
        assert!(!same("https://h.example/", "https://h.example:8443/"));
        assert!(!same("http://h.example:8080/", "https://h.example/"));
        assert!(!same("https://h.example/", "https://www.h.example/"));
    }
}
