//! Larder's HTTP origin: sources described by a template of requests and by what counts as an answer,
//! bounded in time, size and reach.
//!
//! It makes one call for each load; pacing calls and making them again is up to who calls it. Errors
//! name the source and the server; never path, query, headers or body, where API keys are.

mod answer;
mod batch;
mod body;
mod client;
mod fault;
mod freshness;
mod json;
mod message;
mod private;
mod probe;
mod source;
mod template;

use std::collections::BTreeMap;

use async_trait::async_trait;
use cache_core::{Entry, Load, Loaded, Origin, OriginError, OriginErrorKind, Request};
use reqwest::{
    Client, Response,
    header::{HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH},
};

use crate::{
    answer::{Head, Reader},
    batch::Batcher,
    client::{Reach, Redirects},
    fault::Fault,
    message::{Message, Recipe},
    private::PrivateAddress,
    probe::Prober,
};

pub use crate::{
    batch::{Batch, BatchError},
    client::HttpClient,
    message::{Body, Method},
    source::{Auth, Checks, HttpSource, Probe, ProbeFrom, SetupError, VersionFrom},
    template::TemplateError,
};

/// One source answered by an HTTP API.
#[derive(Debug)]
pub struct HttpOrigin {
    source: HttpSource,
    recipe: Recipe,
    reader: Reader,
    batcher: Option<Batcher>,
    prober: Option<Prober>,
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
    /// [`SetupError`], when the description makes no sense or leads to a private address that is not
    /// allowed.
    pub fn with_client(source: HttpSource, client: &HttpClient) -> Result<Self, SetupError> {
        let recipe = Recipe::new(&source)?;
        let reader = Reader::new(&source)?;
        let batcher = Batcher::of(&source, &recipe)?;
        let prober = source.probe.as_ref().map(Prober::new).transpose()?;
        let template = recipe.template();
        let is_private = template.sample().is_some_and(|url| private::is_private(&url));
        if is_private && !source.allow_private {
            return Err(SetupError::Private("url"));
        }
        let reach = match (template.is_loopback(), source.allow_private) {
            (true, _) => Reach::Local,
            (false, true) => Reach::Private,
            (false, false) => Reach::Public,
        };
        if prober.as_ref().is_some_and(|prober| private::is_private(prober.url()))
            && !source.allow_private
        {
            return Err(SetupError::Private("probe"));
        }
        let redirects = Redirects {
            posts: matches!(source.method, Method::Post(_)),
            hosts: source.redirect_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        };
        let client = client.get(reach, redirects)?;
        Ok(Self { source, recipe, reader, batcher, prober, client })
    }

    /// Sends a message; gives the head of the response.
    async fn send(&self, message: &Message) -> Result<Response, Fault> {
        // Values are no part of the host, and redirects stay there; but for what resolves names.
        if !self.source.allow_private && private::is_private(&message.url) {
            return Err(Fault::request(PrivateAddress));
        }
        let request = self.client.request(message.method.clone(), message.url.clone());
        let request = request.headers(message.headers.clone()).headers(message.own.clone());
        let request = match &message.body {
            Some(body) => request.body(body.clone()),
            None => request,
        };
        request.send().await.map_err(Fault::transport)
    }

    /// Asks whether what is stored still holds, where its validators allow that.
    async fn ask(&self, load: &Load) -> Result<Asked, OriginError> {
        let message = self.recipe.message(&load.request);
        let mut message = message.map_err(|fault| fault.of(&self.source.name))?;
        // Of other methods nobody may say that nothing has changed (RFC 9110, 13.1.2).
        let is_conditional = message.method == reqwest::Method::GET
            && load.stored.as_ref().is_some_and(|stored| condition(stored, &mut message.headers));
        let call = async {
            let response = self.send(&message).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok(match self.reader.head(status, &headers, is_conditional)? {
                Head::Whole(loaded) => Asked { loaded, by_status: false },
                Head::Missing(loaded) => Asked { loaded, by_status: true },
                Head::Body => {
                    let body = body::read(response, self.source.max_body_bytes).await?;
                    let loaded = self.reader.loaded(status, &headers, body)?;
                    Asked { loaded, by_status: false }
                }
            })
        };
        self.in_time(&message, call).await
    }

    /// Over headers and body together.
    async fn in_time<T>(
        &self,
        message: &Message,
        call: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, OriginError> {
        let limit = self.source.timeout;
        let answer = tokio::time::timeout(limit, call).await.unwrap_or_else(|_elapsed| {
            let what = format_args!("no whole answer within {limit:?}; raise `timeout`");
            Err(Fault::new(OriginErrorKind::Timeout, what))
        });
        answer.map_err(|fault| fault.at(message.place()).of(&self.source.name))
    }
}

#[async_trait]
impl Origin for HttpOrigin {
    async fn load(&self, load: Load) -> Result<Loaded, OriginError> {
        self.ask(&load).await.map(|asked| asked.loaded)
    }

    /// Values that the URL and the body name, and the source's own `params`, are parameters.
    fn request(
        &self,
        source: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Request, OriginError> {
        self.recipe.request(source, values).map_err(|fault| fault.of(&self.source.name))
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

    async fn probe(&self) -> Result<Option<String>, OriginError> {
        let Some(prober) = &self.prober else { return Ok(None) };
        let message = self.recipe.aside(prober.method(), prober.url());
        let call = async {
            let response = self.send(&message).await?;
            prober.read(response, self.source.max_body_bytes).await
        };
        self.in_time(&message, call).await.map(Some)
    }
}

/// What a call has brought.
#[derive(Debug)]
struct Asked {
    loaded: Loaded,
    /// Whether a status of failure says that there is nothing.
    by_status: bool,
}

/// Asks only for what is not `stored`, if its validators allow that; whether they do.
fn condition(stored: &Entry, headers: &mut HeaderMap) -> bool {
    if stored.is_absent() {
        return false;
    }
    let mut add = |name: HeaderName, validator: Option<&str>| {
        let value = validator.and_then(|text| HeaderValue::from_str(text).ok());
        value.map(|value| headers.insert(name, value)).is_some()
    };
    // Both, as RFC 9110 recommends: who knows entity tags looks at nothing else.
    let tagged = add(IF_NONE_MATCH, stored.etag());
    let dated = add(IF_MODIFIED_SINCE, stored.source_last_modified());
    tagged || dated
}
