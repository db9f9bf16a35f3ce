//! What types alone cannot refuse: ranges, and settings that contradict each other.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;

use crate::Limits;

use super::{
    compression::CompressionConfig,
    error::{ConfigError, name_value},
    layer::Layers,
    model::CacheConfig,
    place::Place,
    policies::SourceConfig,
    schema::{self, Kind},
    tiers::BreakerConfig,
    values::{Algorithm, RateLimit, Secret, TierKind},
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
    tiers(config)?;
    time_limits(config)?;
    if config.max_value_size < LEAST_VALUE {
        return Err(Problem::new(
            &["cache", "max_value_size"],
            "nothing would be stored under the value; write at least 1KiB",
        ));
    }
    breaker(&config.breaker)?;
    level(&["cache", "compression", "level"], &config.compression)?;
    host(&config.redis.host)?;
    if config.sqlite.path.as_os_str().is_empty() {
        return Err(Problem::new(
            &["cache", "sqlite", "path"],
            "a path is missing here; write for example .cache/larder.db",
        ));
    }
    path(&config.sqlite.path)?;
    let defaults = &config.defaults;
    shares(&["cache", "defaults"], Some(defaults.jitter), defaults.refresh_ahead)?;
    for name in config.ttl_policies.keys() {
        source_name(&["cache", "ttl_policies", name], name)?;
    }
    for (name, one) in &config.sources {
        source_name(&["cache", "sources", name], name)?;
        level(&["cache", "sources", name, "compression", "level"], &config.compression_for(name))?;
        source(name, one)?;
    }
    Ok(())
}

/// Smallest file that the SQLite tier may be bound to.
const LEAST_FILE: u64 = 1 << 20;

/// Least size of a value that may not be stored any more.
const LEAST_VALUE: u64 = 1 << 10;

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

fn tiers(config: &CacheConfig) -> Checked {
    for kind in TierKind::ALL {
        let options = config.tier_options(kind);
        let path = |setting| ["cache", kind.name(), setting];
        if options.read_only && kind == TierKind::Memory {
            return Err(Problem::new(
                &path("read_only"),
                "memory that is only read stays empty; take this out, or write `enable: false` \
                 to go without memory",
            ));
        }
        if options.read_only && options.required {
            return Err(Problem::new(
                &path("required"),
                "a tier that is only read takes no value, so that every `set` would fail; \
                 keep one of `required` and `read_only`",
            ));
        }
    }
    Ok(())
}

fn time_limits(config: &CacheConfig) -> Checked {
    for (setting, limit, example) in [
        ("read_timeout", config.read_timeout, "2s"),
        ("write_timeout", config.write_timeout, "10s"),
    ] {
        if limit.is_zero() {
            return Err(Problem::new(
                &["cache", setting],
                format!("the value lets no tier answer; write for example {example}"),
            ));
        }
    }
    let sqlite = |setting, message: &str| Err(Problem::new(&["cache", "sqlite", setting], message));
    if config.sqlite.poll_interval.is_zero() {
        return sqlite(
            "poll_interval",
            "the value would look all the time; write for example 200ms",
        );
    }
    if config.sqlite.max_size < LEAST_FILE {
        return sqlite("max_size", "the value leaves no room for entries; write at least 1MiB");
    }
    Ok(())
}

fn breaker(breaker: &BreakerConfig) -> Checked {
    let BreakerConfig { failures: _, error_share, window, cooldown, max_cooldown } = breaker;
    let fail =
        |setting: &str, message: &str| Err(Problem::new(&["cache", "breaker", setting], message));
    if !(*error_share > 0.0 && *error_share <= 1.0) {
        return fail(
            "error_share",
            "the value is out of range; write a share above 0 and up to 1, such as 0.5 or 50%",
        );
    }
    if window.is_zero() {
        return fail("window", "the value lets nothing be counted; write for example 10s");
    }
    if cooldown.is_zero() {
        return fail("cooldown", "the value lets no tier be skipped; write for example 5s");
    }
    if max_cooldown < cooldown {
        // The one that was changed is the one to look at.
        let changed = *cooldown != BreakerConfig::default().cooldown;
        return fail(
            if changed { "cooldown" } else { "max_cooldown" },
            "a tier would be skipped for longer at first than at most; \
             write a `max_cooldown` that is not shorter than `cooldown`",
        );
    }
    Ok(())
}

fn level(path: &[&str], compression: &CompressionConfig) -> Checked {
    let Some(level) = compression.level else { return Ok(()) };
    let (algorithm, range) = match compression.algorithm {
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
        path,
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

/// Checks the shares of a policy, whose section is at `section`.
fn shares(section: &[&str], jitter: Option<f64>, refresh_ahead: Option<f64>) -> Checked {
    let fail =
        |setting: &str, message: &str| Err(Problem::new(&[section, &[setting]].concat(), message));
    if jitter.is_some_and(|jitter| !(0.0..=1.0).contains(&jitter)) {
        return fail(
            "jitter",
            "the value is out of range; write a share from 0 to 1, such as 0.1 or 10%",
        );
    }
    if refresh_ahead.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
        return fail(
            "refresh_ahead",
            "the value is out of range; write a share above 0 and below 1, such as 0.8 or 80%, \
             or off",
        );
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
    let SourceConfig { url, headers, timeout, max_body, version, .. } = source;
    shares(&["cache", "sources", name], source.jitter, source.refresh_ahead.flatten())?;
    if version.as_ref().is_some_and(|version| version.trim().is_empty()) {
        return Err(Problem::new(
            &path("version"),
            "a version is missing here; write for example 2022, or leave it out",
        ));
    }
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
    limits(name, source)
}

fn limits(name: &str, source: &SourceConfig) -> Checked {
    let problem = |setting: &[&str], text| {
        Err(Problem::new(&[&["cache", "sources", name], setting].concat(), text))
    };
    let SourceConfig { rate_limit, quota, quota_reserve, retry, .. } = source;
    let nothing = |limit: &RateLimit| limit.count == 0 || limit.per.is_zero();
    if rate_limit.as_ref().is_some_and(nothing) {
        return problem(&["rate_limit"], "the value lets nothing through; write for example 50/s");
    }
    if rate_limit.is_some_and(|limit| limit.per > LONGEST_WINDOW) {
        return problem(
            &["rate_limit"],
            "a limit over more than a minute is a quota; write it as `quota`, and here for \
             example 50/s or 30/m",
        );
    }
    if rate_limit.is_some_and(|limit| limit.per.as_micros() < u128::from(limit.count)) {
        return problem(&["rate_limit"], "more than a call in a microsecond is no limit");
    }
    if quota.as_ref().is_some_and(nothing) {
        return problem(&["quota"], "the value lets nothing through; write for example 500/day");
    }
    if quota.is_some_and(|quota| quota.per > Limits::LONGEST_QUOTA) {
        return problem(&["quota"], "a quota is about at most 366 days; write for example 500/day");
    }
    if !(0.0..1.0).contains(quota_reserve) {
        return problem(
            &["quota_reserve"],
            "the value is out of range; write a share from 0 to below 1, such as 0.1 or 10%",
        );
    }
    if retry.max < retry.base {
        return problem(&["retry", "max"], "the longest delay is shorter than `base`, the first");
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
