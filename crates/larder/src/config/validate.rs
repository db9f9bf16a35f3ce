//! What types alone cannot refuse: ranges, and settings that contradict each other.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;

use super::{
    error::{ConfigError, name_value},
    layer::Layers,
    model::{CacheConfig, SourceConfig},
    place::Place,
    schema::{self, Kind},
    values::{Algorithm, RateLimit, Secret},
};

/// Longest time that a rate limit may be about: calls are spaced evenly, and nobody waits minutes
/// for a turn.
const LONGEST_WINDOW: Duration = Duration::from_mins(1);

/// What is wrong with one setting; "the value" in the message stands for its text.
#[derive(Debug)]
pub(super) struct Problem {
    path: Vec<String>,
    message: String,
}

impl Problem {
    pub(super) fn new<S: AsRef<str>>(path: &[S], message: impl Into<String>) -> Self {
        let path = path.iter().map(|part| part.as_ref().to_owned()).collect();
        Self { path, message: message.into() }
    }

    /// The error at the place where the setting was written, with its value if that may be shown.
    pub(super) fn locate(self, layers: &Layers) -> ConfigError {
        let place = layers.place(&self.path);
        let message = name_value(&self.message, layers.shown(&self.path).as_deref());
        // The index of a list's item is no setting.
        let known = (0..=self.path.len())
            .rev()
            .find(|len| schema::kind_at(&self.path[..*len]).is_some())
            .unwrap_or_default();
        ConfigError::new(place, message).about(schema::dotted(&self.path[..known]))
    }

    pub(super) fn without_place(self) -> ConfigError {
        ConfigError::new(Place::Nowhere, self.message).about(schema::dotted(&self.path))
    }
}

type Checked = Result<(), Problem>;

pub(super) fn check(config: &CacheConfig) -> Checked {
    let json = serde_json::to_value(config).unwrap_or_default();
    ranges(schema::CACHE, &json, &mut vec!["cache".to_owned()])?;
    chain(config)?;
    level(config)?;
    host(&config.redis.host)?;
    if config.sqlite.path.as_os_str().is_empty() {
        return Err(Problem::new(
            &["cache", "sqlite", "path"],
            "a path is missing here; write for example .cache/larder.db",
        ));
    }
    path(&config.sqlite.path)?;
    for name in config.ttl_policies.keys() {
        source_name(&["cache", "ttl_policies", name], name)?;
    }
    for (name, one) in &config.sources {
        source_name(&["cache", "sources", name], name)?;
        source(name, one)?;
    }
    Ok(())
}

/// Refuses numbers outside the bounds in the table.
fn ranges(kind: Kind, value: &Value, path: &mut Vec<String>) -> Checked {
    match (kind, value) {
        (Kind::Section(fields), Value::Object(map)) => {
            for field in fields {
                path.push(field.name.to_owned());
                if let Some(value) = map.get(field.name) {
                    ranges(field.kind, value, path)?;
                }
                path.pop();
            }
            Ok(())
        }
        (Kind::Number(_, min, max), Value::Number(number)) => {
            range(path, min, max, number.as_f64().unwrap_or(f64::NAN))
        }
        _ => Ok(()),
    }
}

fn range(path: &[String], min: f64, max: f64, number: f64) -> Checked {
    if (min..=max).contains(&number) {
        return Ok(());
    }
    Err(Problem::new(
        path,
        format!("the value is out of range; write a number from {min} to {max}"),
    ))
}

/// Refuses numbers out of range while they are text: the type of a field may be too small for them.
pub(super) fn check_text(layers: &Layers) -> Checked {
    for layer in &layers.0 {
        let mut found = Ok(());
        layer.visit(&mut Vec::new(), &mut |path, item| {
            let Some(Kind::Number(_, min, max)) = schema::kind_at(path) else { return };
            // What a stronger layer replaces is not looked at.
            let effective = layers.get(path).is_some_and(|top| std::ptr::eq(top, item));
            for leaf in item.leaves() {
                if effective
                    && found.is_ok()
                    && let Ok(number) = leaf.text.trim().parse::<f64>()
                {
                    found = range(path, min, max, number);
                }
            }
        });
        found?;
    }
    Ok(())
}

fn chain(config: &CacheConfig) -> Checked {
    let Some(chain) = &config.chain else { return Ok(()) };
    let fail = |message: String| Err(Problem::new(&["cache", "chain"], message));
    if chain.is_empty() {
        return fail(
            "the chain is empty; name tiers, such as [memory, sqlite], or leave it out".into(),
        );
    }
    for (position, kind) in chain.iter().enumerate() {
        if chain[..position].contains(kind) {
            return fail(format!("the chain names {kind} twice; keep one of them"));
        }
        if !config.is_enabled(*kind) {
            return fail(format!(
                "the chain names {kind}, which is disabled; \
                 write `enable: true` under `cache.{kind}` or take {kind} out of the chain"
            ));
        }
    }
    Ok(())
}

fn level(config: &CacheConfig) -> Checked {
    let Some(level) = config.compression.level else { return Ok(()) };
    let (algorithm, range) = match config.compression.algorithm {
        Some(Algorithm::Zstd) => ("zstd", 1..=19),
        Some(Algorithm::Zlib) => ("zlib", 0..=9),
        // It has no effect, so any algorithm's level may stay while compression is off.
        Some(Algorithm::None) => return Ok(()),
        None => ("zlib, whose scale counts while no algorithm is named,", 0..=9),
    };
    if range.contains(&level) {
        return Ok(());
    }
    let (min, max) = (range.start(), range.end());
    Err(Problem::new(
        &["cache", "compression", "level"],
        format!("the value is no level of {algorithm}; write a number from {min} to {max}"),
    ))
}

fn host(host: &str) -> Checked {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c);
    if host.is_empty() || host.contains(odd) {
        return Err(Problem::new(
            &["cache", "redis", "host"],
            // Without the value: what looks like a URL here may hold a password.
            "write the host alone, such as localhost; port and password have their own settings",
        ));
    }
    Ok(())
}

/// Refuses what a shell would have replaced, and nothing here does.
fn path(path: &Path) -> Checked {
    let text = path.to_string_lossy();
    if text.is_empty() || text.starts_with(['~', '$']) {
        return Err(Problem::new(
            &["cache", "sqlite", "path"],
            "the value is not taken as a shell would take it; write for example ${HOME}/larder.db",
        ));
    }
    Ok(())
}

fn source_name(path: &[&str], name: &str) -> Checked {
    let odd = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.contains(odd) {
        let message = "the name of a source has no `:`, no space and no control character, \
                       and is not empty; write for example census_acs";
        return Err(Problem::new(path, message));
    }
    Ok(())
}

fn source(name: &str, source: &SourceConfig) -> Checked {
    let path = |setting| ["cache", "sources", name, setting];
    let SourceConfig { url, params: _, query: _, headers, timeout, max_body, rate_limit, ttl: _ } =
        source;
    if let Some(url) = url {
        check_url(url).map_err(|message| Problem::new(&path("url"), message))?;
    }
    check_headers(name, headers)?;
    if timeout.is_zero() {
        return Err(Problem::new(
            &path("timeout"),
            "the value lets no request finish; write for example 30s",
        ));
    }
    if *max_body == 0 {
        return Err(Problem::new(
            &path("max_body"),
            "the value lets no answer in; write for example 64MiB",
        ));
    }
    if rate_limit.is_some_and(|RateLimit { count, per }| count == 0 || per.is_zero()) {
        return Err(Problem::new(
            &path("rate_limit"),
            "the value lets nothing through; write for example 50/s",
        ));
    }
    if rate_limit.is_some_and(|limit| limit.per > LONGEST_WINDOW) {
        return Err(Problem::new(
            &path("rate_limit"),
            "a limit over more than a minute is a quota, which this version cannot keep; \
             write for example 50/s or 30/m",
        ));
    }
    Ok(())
}

/// Never repeats the URL, which may hold a key.
fn check_url(url: &str) -> Result<(), String> {
    let scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| url.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else {
        return Err("a URL must start with http:// or https://".to_owned());
    };
    if url.len() == scheme.len() || url[scheme.len()..].starts_with(['/', '?', '#']) {
        return Err(
            "the URL has no host; write for example https://api.example.org/data".to_owned()
        );
    }
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a URL has no spaces or control characters; write %20 for a space".to_owned());
    }
    let hint = "write a placeholder as {name}, in letters, digits and underscores";
    let mut rest = url;
    while let Some(at) = rest.find(['{', '}']) {
        let Some(inside) = rest[at..].strip_prefix('{') else {
            return Err(format!("a `}}` in the URL has no `{{`; {hint}"));
        };
        let Some((placeholder, after)) = inside.split_once('}') else {
            return Err(format!("a `{{` in the URL is not closed; {hint}"));
        };
        let named = placeholder.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && placeholder.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !named {
            return Err(format!("a placeholder in the URL has no proper name; {hint}"));
        }
        rest = after;
    }
    Ok(())
}

/// A line break in a header would begin another one.
fn check_headers(source: &str, headers: &BTreeMap<String, Secret>) -> Checked {
    for (name, value) in headers {
        let path = ["cache", "sources", source, "headers", name];
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.!#$%&'*+^`|~".contains(c))
        {
            return Err(Problem::new(
                &path,
                "not the name of a header; write for example User-Agent",
            ));
        }
        if value.expose().contains(|c: char| c.is_control() && c != '\t') {
            return Err(Problem::new(
                &path,
                "a header's value is one line without control characters",
            ));
        }
    }
    Ok(())
}
