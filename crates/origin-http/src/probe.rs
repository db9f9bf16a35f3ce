//! Finding out the version of a source's data without asking for any.

use std::fmt;

use cache_core::OriginErrorKind;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{ETAG, HeaderName, LAST_MODIFIED},
};
use serde_json::value::RawValue;

use crate::{
    Probe, ProbeFrom, SetupError,
    answer::{header, pointer, refused, text},
    body,
    fault::Fault,
    json::{self, Pointer},
    source::place,
};

/// A [`Probe`] that makes sense.
pub(crate) struct Prober {
    url: Url,
    from: From,
}

#[derive(Debug)]
enum From {
    Headers(Vec<HeaderName>),
    Pointer(Pointer),
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("url", &place(&self.url)).field("from", &self.from).finish()
    }
}

impl Prober {
    pub(crate) fn new(probe: &Probe) -> Result<Self, SetupError> {
        let url = Url::parse(&probe.url).map_err(|_malformed| SetupError::Probe)?;
        if !matches!(url.scheme(), "http" | "https") || probe.url.contains(['{', '}']) {
            return Err(SetupError::Probe);
        }
        let from = match &probe.from {
            ProbeFrom::Validators => From::Headers(vec![ETAG, LAST_MODIFIED]),
            ProbeFrom::Header(name) => From::Headers(vec![header(name)?]),
            ProbeFrom::Pointer(at) => From::Pointer(pointer("probe", at)?),
        };
        Ok(Self { url, from })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn method(&self) -> Method {
        match self.from {
            From::Headers(_) => Method::HEAD,
            From::Pointer(_) => Method::GET,
        }
    }

    /// The version that a response tells.
    pub(crate) async fn read(&self, response: Response, limit: u64) -> Result<String, Fault> {
        if response.status() != StatusCode::OK {
            return Err(refused(response.status(), response.headers()));
        }
        let unusable = |what: String| Fault::new(OriginErrorKind::Unusable, what);
        let version = match &self.from {
            From::Headers(names) => {
                let mut found = names.iter().filter_map(|name| text(response.headers(), name));
                found.next().map(str::to_owned)
            }
            From::Pointer(at) => {
                let body = body::read(response, limit).await?;
                let document: &RawValue = serde_json::from_slice(&body).map_err(|_malformed| {
                    unusable("the answer to its probe is no JSON".to_owned())
                })?;
                at.find(document).and_then(json::text)
            }
        };
        version.filter(|version| !version.is_empty()).ok_or_else(|| {
            unusable("the answer to its probe has no version where it was to be".to_owned())
        })
    }
}
