//! `larder get`: one answer.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use cache_warmer::{Market, market_request};
use larder::{Chained, Escaped, Hit, Key, ReadOptions, ServedBy, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    args::{Format, GetArgs, Global},
    context::Context,
    exit::{Exit, Failure},
    markets, output, table,
    warm::CLOSE_WITHIN,
};

pub(crate) async fn run(global: &Global, args: &GetArgs) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    if args.refresh && context.loaded.config.offline {
        let layer = context.layer_of("cache.offline");
        let message = format!("`--refresh` loads, and the cache is offline ({layer})");
        return Err(Failure::usage(message).hint("leave out one of the two"));
    }
    let market = markets::resolve(&args.market)?;
    let cache = context.cache()?;
    let extra: BTreeMap<_, _> = args.params.iter().cloned().collect();
    let request = market_request(&cache, &args.source, market, &extra)?;
    if let Some(unused) = extra.keys().find(|name| !request.params().contains_key(*name)) {
        let known: Vec<&str> = request.params().keys().map(String::as_str).collect();
        let message = format!("source `{}` has no parameter `{}`", args.source, Escaped(unused));
        return Err(Failure::usage(message).hint(format!("it has: {}", known.join(", "))));
    }
    let began = Instant::now();
    let answer = cache.request_with(&request, options(args)).await;
    let elapsed = began.elapsed();
    // First the answer, then the wait until it is stored.
    let printed = answer.map_err(Failure::from).and_then(|hit| {
        match global.format {
            Format::Json => {
                let now = cache.source_version(&args.source);
                print_document(&request.key(), &args.source, market, &hit, now.as_deref())?;
            }
            Format::Table => print_value(&hit)?,
        }
        Ok(hit)
    });
    let report = cache.close(CLOSE_WITHIN).await;
    if !report.is_clean() {
        tracing::warn!(?report, "closed before everything was stored");
    }
    let hit = printed?;
    if !global.quiet {
        output::remark(&remark(&args.source, market, &hit, elapsed));
    }
    Ok(Exit::Done)
}

fn options(args: &GetArgs) -> ReadOptions {
    let options = match (args.refresh, args.cached_only) {
        (true, _) => ReadOptions::refresh(),
        (_, true) => ReadOptions::cached_only(),
        _ => ReadOptions::default(),
    };
    if args.allow_stale { options.allow_stale() } else { options }
}

/// Where the answer is from, and how good it is.
fn remark(source: &str, market: &Market, hit: &Hit, elapsed: Duration) -> String {
    let from = match hit.served_by() {
        ServedBy::Origin => "the origin".to_owned(),
        tier => format!("tier {tier}"),
    };
    let mut parts = vec![
        Escaped(source).to_string(),
        market.slug().to_owned(),
        format!("from {from} in {}", table::latency(elapsed)),
    ];
    if hit.is_absent() {
        parts.push("the source has none".to_owned());
    }
    if hit.is_revalidated() {
        parts.push("still the same".to_owned());
    }
    if let Some(reason) = hit.stale_reason() {
        parts.push(format!("stale, {} old: {reason}", table::age(hit.age())));
    }
    let failure = hit.failure().map(|error| format!("warning: {}\n", Chained(error)));
    format!("{}\n{}", parts.join(" · "), failure.unwrap_or_default())
}

/// Writes the value as it is, or made safe if a person is going to look at it.
fn print_value(hit: &Hit) -> Result<(), Failure> {
    // An answer that there is none has no value, and no line either.
    if hit.is_absent() || !io::stdout().is_terminal() {
        return output::print_bytes(hit.value());
    }
    let text = String::from_utf8_lossy(hit.value());
    let lines: Vec<String> = text.lines().map(|line| Escaped(line).to_string()).collect();
    output::print(&(lines.join("\n") + "\n"))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    key: &'a str,
    source: &'a str,
    market: &'a str,
    served_by: String,
    loaded_at: Option<String>,
    expires_at: Option<String>,
    age_ms: u64,
    stale: bool,
    stale_reason: Option<String>,
    absent: bool,
    revalidated: bool,
    content_type: Option<&'a str>,
    etag: Option<&'a str>,
    source_last_modified: Option<&'a str>,
    /// Version of the data that the value was made from.
    version: Option<&'a str>,
    /// Version that the source has now, as far as that is known.
    source_version: Option<&'a str>,
    size_bytes: usize,
    value: Option<Value<'a>>,
}

/// JSON digit for digit as it is stored, or text.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

fn print_document(
    key: &Key,
    source: &str,
    market: &Market,
    hit: &Hit,
    source_version: Option<&str>,
) -> Result<(), Failure> {
    let text = std::str::from_utf8(hit.value()).map_err(|error| {
        Failure::failed(format!("the value cannot be part of a JSON document: {error}"))
            .hint("without `--format json` it is written as it is")
    })?;
    let entry = hit.entry();
    output::print_json(&Document {
        schema: "larder.get/1",
        key: key.as_str(),
        source,
        market: market.slug(),
        served_by: hit.served_by().to_string(),
        loaded_at: rfc3339(entry.loaded_at()),
        expires_at: rfc3339(entry.expires_at()),
        age_ms: u64::try_from(hit.age().as_millis()).unwrap_or(u64::MAX),
        stale: hit.stale_reason().is_some(),
        stale_reason: hit.stale_reason().map(|reason| reason.to_string()),
        absent: hit.is_absent(),
        revalidated: hit.is_revalidated(),
        content_type: entry.content_type(),
        etag: entry.etag(),
        source_last_modified: entry.source_last_modified(),
        version: entry.version(),
        source_version,
        size_bytes: text.len(),
        value: (!hit.is_absent())
            .then(|| serde_json::from_str(text).map_or(Value::Text(text), Value::Json)),
    })
}

/// The instant in UTC; `None` for never and for what no calendar has.
fn rfc3339(instant: Timestamp) -> Option<String> {
    jiff::Timestamp::from_millisecond(instant.as_millis()).ok().map(|instant| instant.to_string())
}
