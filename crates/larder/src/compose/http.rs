//! From `cache.sources` to origins that speak HTTP.

use std::collections::BTreeMap;

use origin_http::{
    Auth, Batch, Body, HttpClient, HttpOrigin, HttpSource, Method, Probe, ProbeFrom, VersionFrom,
};

use crate::{
    BuildError, CacheBuilder,
    config::{
        AuthConfig, BatchConfig, CacheConfig, ProbeConfig, Secret, SourceConfig, VersionFromConfig,
    },
};

pub(super) fn sources(
    mut builder: CacheBuilder,
    config: &CacheConfig,
) -> Result<CacheBuilder, BuildError> {
    let client = HttpClient::default();
    for (name, source) in &config.sources {
        let Some(url) = &source.url else { continue };
        let unsupported = |what| BuildError::Unsupported(format!("`cache.sources.{name}.{what}"));
        let described = described(name, url, source).map_err(unsupported)?;
        let origin = HttpOrigin::with_client(described, &client)
            .map_err(|error| BuildError::Source { name: name.clone(), source: error.into() })?;
        builder = builder.origin(name, origin);
    }
    Ok(builder)
}

/// The source as the crate for HTTP wants it; an error is the setting, and what is wrong with it.
fn described(name: &str, url: &str, source: &SourceConfig) -> Result<HttpSource, String> {
    let mut http = HttpSource::new(name, url);
    http.method = method(source)?;
    http.params.clone_from(&source.params);
    if source.range.step.is_some() {
        http.optional = [source.range.from.clone(), source.range.to.clone()].into();
    }
    http.query = exposed(&source.query);
    http.headers = exposed(&source.headers);
    http.auth = auth(&source.auth)?;
    http.timeout = source.timeout;
    http.max_body_bytes = source.max_body;
    let response = &source.response;
    http.checks.statuses = response.statuses.iter().map(|status| status.code()).collect();
    http.checks.content_types.clone_from(&response.content_types);
    http.checks.must_exist.clone_from(&response.must_exist);
    http.checks.must_not_exist.clone_from(&response.must_not_exist);
    http.checks.drop.clone_from(&response.drop);
    // What is no JSON is a text.
    let json =
        |text: &String| serde_json::from_str(text).unwrap_or_else(|_no_json| text.as_str().into());
    let equal = response.must_equal.iter();
    http.checks.must_equal = equal.map(|(at, text)| (at.clone(), json(text))).collect();
    http.checks.empty_is_absent.clone_from(&response.empty_is_absent);
    for (status, ttl) in &source.status_ttl {
        let ttl = ttl.duration().ok_or("status_ttl`: write a length of time, not never")?;
        http.status_ttl.insert(status.code(), ttl);
    }
    http.respect_cache_control = source.respect_cache_control;
    http.redirect_hosts.clone_from(&source.redirect_hosts);
    http.allow_private = source.allow_private;
    http.version = version(&source.version_from)?;
    http.probe = probe(&source.probe)?;
    http.batch = batch(&source.batch)?;
    Ok(http)
}

fn exposed(secrets: &BTreeMap<String, Secret>) -> BTreeMap<String, String> {
    secrets.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())).collect()
}

fn method(source: &SourceConfig) -> Result<Method, String> {
    match (&source.json, source.form.is_empty()) {
        (None, true) => Ok(Method::Get),
        (None, false) => Ok(Method::Post(Body::Form(exposed(&source.form)))),
        (Some(_), false) => Err("form`: one body is posted, `json` or `form`".to_owned()),
        (Some(text), true) => match serde_json::from_str(text.expose()) {
            Ok(json) => Ok(Method::Post(Body::Json(json))),
            // Not the parser's own text, which may hold some of it.
            Err(error) => Err(format!("json`: it is no JSON at column {}", error.column())),
        },
    }
}

fn auth(config: &AuthConfig) -> Result<Option<Auth>, String> {
    let AuthConfig { header, query, field, value } = config;
    let value = value.as_ref().map(|value| value.expose().to_owned());
    let (auth, value) = match (header, query, field, value) {
        (None, None, None, None) => return Ok(None),
        (Some(name), None, None, Some(value)) => {
            (Auth::Header { name: name.clone(), value: value.clone() }, value)
        }
        (None, Some(name), None, Some(value)) => {
            (Auth::Query { name: name.clone(), value: value.clone() }, value)
        }
        (None, None, Some(field), Some(value)) => {
            (Auth::Body { field: field.clone(), value: value.clone() }, value)
        }
        _ => return Err("auth`: write one of header, query and field, and the value".to_owned()),
    };
    // A variable that is not set may mean that the API is asked without a key.
    Ok((!value.is_empty()).then_some(auth))
}

fn version(config: &VersionFromConfig) -> Result<Option<VersionFrom>, String> {
    match (&config.header, &config.pointer) {
        (None, None) => Ok(None),
        (Some(header), None) => Ok(Some(VersionFrom::Header(header.clone()))),
        (None, Some(pointer)) => Ok(Some(VersionFrom::Pointer(pointer.clone()))),
        (Some(_), Some(_)) => Err("version_from`: write either header or pointer".to_owned()),
    }
}

fn probe(config: &ProbeConfig) -> Result<Option<Probe>, String> {
    let from = match (&config.header, &config.pointer) {
        (None, None) => ProbeFrom::Validators,
        (Some(header), None) => ProbeFrom::Header(header.clone()),
        (None, Some(pointer)) => ProbeFrom::Pointer(pointer.clone()),
        (Some(_), Some(_)) => return Err("probe`: write either header or pointer".to_owned()),
    };
    match &config.url {
        Some(_) if config.check_every.is_zero() => {
            Err("probe.check_every`: a probe every 0s would never end".to_owned())
        }
        Some(url) => Ok(Some(Probe::new(url, from))),
        None if from == ProbeFrom::Validators => Ok(None),
        None => Err("probe`: its url is missing".to_owned()),
    }
}

fn batch(config: &BatchConfig) -> Result<Option<Batch>, String> {
    let BatchConfig { param, max, separator, rows, member } = config;
    let Some(param) = param else {
        let is_unused = *config == BatchConfig::default();
        return if is_unused { Ok(None) } else { Err("batch`: its param is missing".to_owned()) };
    };
    let member = member.as_ref().unwrap_or(param);
    let mut batch = Batch::new(param, *max as usize, rows, member);
    batch.separator.clone_from(separator);
    Ok(Some(batch))
}
