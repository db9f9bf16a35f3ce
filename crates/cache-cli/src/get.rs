//! `larder get`: one answer.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::Instant,
};

use cache_warmer::{Market, market_request};
use larder::{Escaped, Hit, Key, ServedBy, Timestamp};
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
    let answer = cache.request(&request).await;
    let elapsed = began.elapsed();
    // First the answer, then the wait until it is stored.
    let printed = answer.map_err(Failure::from).and_then(|hit| {
        match global.format {
            Format::Json => print_document(&request.key(), &args.source, market, &hit)?,
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
        let from = match hit.served_by() {
            ServedBy::Origin => "the origin".to_owned(),
            tier => format!("tier {tier}"),
        };
        output::remark(&format!(
            "{} · {} · from {from} in {}\n",
            Escaped(&args.source),
            market.slug(),
            table::latency(elapsed)
        ));
    }
    Ok(Exit::Done)
}

/// Writes the value as it is, or made safe if a person is going to look at it.
fn print_value(hit: &Hit) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
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
    content_type: Option<&'a str>,
    etag: Option<&'a str>,
    size_bytes: usize,
    value: Value<'a>,
}

/// JSON digit for digit as it is stored, or text.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

fn print_document(key: &Key, source: &str, market: &Market, hit: &Hit) -> Result<(), Failure> {
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
        loaded_at: rfc3339(entry.as_of().instant()),
        expires_at: rfc3339(entry.expires_at()),
        content_type: entry.content_type(),
        etag: entry.etag(),
        size_bytes: text.len(),
        value: serde_json::from_str(text).map_or(Value::Text(text), Value::Json),
    })
}

/// The instant in UTC; `None` for never and for what no calendar has.
fn rfc3339(instant: Timestamp) -> Option<String> {
    jiff::Timestamp::from_millisecond(instant.as_millis()).ok().map(|instant| instant.to_string())
}
