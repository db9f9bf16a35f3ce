//! What a response means.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use cache_core::{Loaded, OriginErrorKind};
use reqwest::{
    StatusCode,
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, RETRY_AFTER,
    },
};
use serde_json::value::RawValue;

use crate::{
    HttpSource, SetupError, VersionFrom,
    fault::{Fault, shortened},
    freshness,
    json::{self, Pointer},
};

/// Longest time that a `Retry-After` may ask for.
const LONGEST_PAUSE: Duration = Duration::from_hours(24);
/// Statuses of 4xx that say nothing of what was asked for.
const NO_ANSWERS: [u16; 5] = [401, 403, 408, 425, 429];

/// What a source's responses mean.
#[derive(Debug)]
pub(crate) struct Reader {
    statuses: BTreeSet<u16>,
    content_types: Vec<String>,
    must_exist: Vec<Pointer>,
    must_not_exist: Vec<Pointer>,
    drop: Vec<Pointer>,
    must_equal: Vec<(Pointer, serde_json::Value)>,
    empty: Option<Pointer>,
    status_ttl: BTreeMap<u16, Duration>,
    respects_cache_control: bool,
    version: Option<Version>,
}

#[derive(Debug)]
enum Version {
    Header(HeaderName),
    /// Whether it has been told that it is not there.
    Pointer(Pointer, AtomicBool),
}

/// What the head of a response says.
#[derive(Debug)]
pub(crate) enum Head {
    /// The body is the answer.
    Body,
    /// All has been said.
    Whole(Loaded),
    /// The status says that there is nothing.
    Missing(Loaded),
}

impl Reader {
    pub(crate) fn new(source: &HttpSource) -> Result<Self, SetupError> {
        let checks = &source.checks;
        let statuses: BTreeSet<u16> = checks.statuses.iter().copied().collect();
        let is_answer = |status: &u16| {
            statuses.contains(status) || (400..500).contains(status) && !NO_ANSWERS.contains(status)
        };
        if let Some(wrong) = source.status_ttl.keys().find(|status| !is_answer(status)) {
            return Err(SetupError::StatusTtl(*wrong));
        }
        let equal = checks.must_equal.iter();
        let equal = equal.map(|(at, value)| Ok((pointer("must_equal", at)?, value.clone())));
        let all = |setting, texts: &[String]| -> Result<Vec<Pointer>, SetupError> {
            texts.iter().map(|at| pointer(setting, at)).collect()
        };
        let empty = checks.empty_is_absent.as_ref();
        Ok(Self {
            content_types: checks.content_types.iter().map(|it| it.to_ascii_lowercase()).collect(),
            must_exist: all("must_exist", &checks.must_exist)?,
            must_not_exist: all("must_not_exist", &checks.must_not_exist)?,
            drop: all("drop", &checks.drop)?,
            must_equal: equal.collect::<Result<_, SetupError>>()?,
            empty: empty.map(|at| pointer("empty_is_absent", at)).transpose()?,
            status_ttl: source.status_ttl.clone(),
            respects_cache_control: source.respect_cache_control,
            version: source.version.as_ref().map(Version::new).transpose()?,
            statuses,
        })
    }

    /// Whether the body of a response is an answer, or is not needed.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn head(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        is_conditional: bool,
    ) -> Result<Head, Fault> {
        let code = status.as_u16();
        if status == StatusCode::NOT_MODIFIED && is_conditional {
            let loaded = self.described(Loaded::not_modified(), StatusCode::OK, headers);
            return Ok(Head::Whole(loaded));
        }
        if !self.statuses.contains(&code) {
            if let Some(ttl) = self.status_ttl.get(&code) {
                return Ok(Head::Missing(Loaded::absent().ttl(*ttl)));
            }
            if status == StatusCode::NO_CONTENT && self.empty.is_some() {
                return Ok(Head::Whole(self.described(Loaded::absent(), status, headers)));
            }
            return Err(refused(status, headers));
        }
        self.check_type(headers)?;
        check_encoding(headers)?;
        Ok(Head::Body)
    }

    fn check_type(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(given) = text(headers, &CONTENT_TYPE) else { return Ok(()) };
        let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_html = matches!(&*essence, "text/html" | "application/xhtml+xml");
        let is_accepted = if self.content_types.is_empty() {
            !is_html
        } else {
            self.content_types.iter().any(|accepted| match accepted.strip_suffix("/*") {
                Some(kind) => essence.split('/').next() == Some(kind),
                None => *accepted == essence,
            })
        };
        if is_accepted {
            return Ok(());
        }
        let what = if is_html {
            "an HTML page came in place of an answer, as of a server or a network that wants \
             something else first; if it is the answer, list text/html in `content_types`"
                .to_owned()
        } else {
            format!(
                "the answer is of type {}, which `content_types` does not have",
                shortened(&essence)
            )
        };
        Err(Fault::new(OriginErrorKind::Unusable, what))
    }

    /// The answer that a response with these headers and this body gives.
    ///
    /// # Errors
    /// When a check says that it is none.
    pub(crate) fn loaded(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Loaded, Fault> {
        let unusable = |what: String| Fault::new(OriginErrorKind::Unusable, what);
        if self.empty.is_some() && body.is_empty() {
            return Ok(self.described(Loaded::absent(), status, headers));
        }
        let in_body = matches!(self.version, Some(Version::Pointer(..)));
        let reads = self.empty.is_some()
            || !self.must_equal.is_empty()
            || [&self.must_exist, &self.must_not_exist, &self.drop].iter().any(|it| !it.is_empty());
        let (mut version, mut kept) = (None, None);
        if reads || in_body {
            // Without values of its own: it takes no memory, however deep or long it is.
            let document: &RawValue = match serde_json::from_slice(&body) {
                Ok(document) => document,
                Err(error) if reads => {
                    let (line, column) = (error.line(), error.column());
                    return Err(unusable(format!(
                        "the answer is no JSON at line {line}, column {column}"
                    )));
                }
                Err(_no_json) => RawValue::NULL,
            };
            for at in &self.must_exist {
                at.find(document)
                    .ok_or_else(|| unusable(format!("the answer has nothing at `{at}`")))?;
            }
            if let Some(at) = self.must_not_exist.iter().find(|at| at.find(document).is_some()) {
                return Err(unusable(format!("the answer has something at `{at}`")));
            }
            for (at, wanted) in &self.must_equal {
                if !at.find(document).is_some_and(|found| json::is_equal(found, wanted)) {
                    return Err(unusable(format!("the answer does not have {wanted} at `{at}`")));
                }
            }
            if let Some(at) = &self.empty
                && at.find(document).is_none_or(json::is_empty)
            {
                return Ok(self.described(Loaded::absent(), status, headers));
            }
            if let Some(Version::Pointer(at, told)) = &self.version {
                version = at.find(document).and_then(json::text);
                if version.is_none() && !told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%at, "an answer has no version where it was to be");
                }
            }
            kept = json::without(document, &self.drop);
        }
        let body = kept.map_or(body, Bytes::from);
        let mut loaded = self.described(Loaded::new(body), status, headers);
        loaded.version = version.or(loaded.version);
        Ok(loaded)
    }

    /// With what the headers say.
    fn described(&self, mut loaded: Loaded, status: StatusCode, headers: &HeaderMap) -> Loaded {
        let text = |name| text(headers, name).map(str::to_owned);
        loaded.content_type = text(&CONTENT_TYPE);
        loaded.etag = text(&ETAG);
        loaded.source_last_modified = text(&LAST_MODIFIED);
        if let Some(Version::Header(name)) = &self.version {
            loaded.version = text(name).filter(|version| !version.is_empty());
        }
        if self.respects_cache_control {
            freshness::apply(&mut loaded, status, headers, SystemTime::now());
        }
        if let Some(ttl) = self.status_ttl.get(&status.as_u16()) {
            loaded.ttl = Some((*ttl).into());
        }
        loaded
    }
}

/// Whether the body is as it was meant: what was packed as it was asked to be is unpacked here.
fn check_encoding(headers: &HeaderMap) -> Result<(), Fault> {
    match text(headers, &CONTENT_ENCODING).map(str::trim) {
        None | Some("" | "identity") => Ok(()),
        Some(other) => {
            let what = format_args!(
                "the answer is packed by {}, which was not asked for",
                shortened(other)
            );
            Err(Fault::new(OriginErrorKind::Unusable, what))
        }
    }
}

impl Version {
    fn new(from: &VersionFrom) -> Result<Self, SetupError> {
        Ok(match from {
            VersionFrom::Header(name) => Self::Header(header(name)?),
            VersionFrom::Pointer(at) => {
                Self::Pointer(pointer("version", at)?, AtomicBool::new(false))
            }
        })
    }
}

pub(crate) fn header(name: &str) -> Result<HeaderName, SetupError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_bad| SetupError::HeaderName(name.to_owned()))
}

pub(crate) fn pointer(setting: &'static str, text: &str) -> Result<Pointer, SetupError> {
    Pointer::parse(text).ok_or_else(|| SetupError::Pointer(setting, text.to_owned()))
}

/// The error of a status that is no answer.
pub(crate) fn refused(status: StatusCode, headers: &HeaderMap) -> Fault {
    let after = text(headers, &RETRY_AFTER).and_then(|text| retry_after(text, SystemTime::now()));
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; check the key in `auth`, `headers` or `query` of the source"
        }
        StatusCode::TOO_MANY_REQUESTS => "; lower `rate_limit` of the source, or give a `quota`",
        status if status.is_redirection() => {
            "; it leads elsewhere, and is not followed: write where it leads as `url`, or its host in \
             `redirect_hosts`"
        }
        _ => "",
    };
    let what = format_args!("HTTP {status}{hint}");
    Fault::new(OriginErrorKind::Status(status.as_u16()), what).retry_after(after)
}

/// Seconds, or a date; `None` if it is neither.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // More seconds than there are numbers for.
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            LONGEST_PAUSE
        }
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(after.min(LONGEST_PAUSE))
}

pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |text| retry_after(text, now).map(|after| after.as_secs());
        assert_eq!(read(" 120 "), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "it has passed");
        assert_eq!(read("Sat, 06 Nov 2094 08:00:00 GMT"), Some(86_400));
        assert_eq!(read("1000000000000"), Some(86_400));
        assert_eq!(read("99999999999999999999999"), Some(86_400));
        for garbage in ["", "-5", "soon", "1.5", "1e3"] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }
}
