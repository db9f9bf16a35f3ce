//! `larder get`: one answer.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::Instant,
};

use cache_warmer::{Market, market_request};
use larder::{Escaped, Hit, Key, ServedBy, Timestamp};
use serde_json::{Value, json};

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
    let began = Instant::now();
    let answer = cache.request(&request).await;
    let elapsed = began.elapsed();
    let report = cache.close(CLOSE_WITHIN).await;
    if !report.is_clean() {
        tracing::warn!(?report, "closed before everything was stored");
    }
    let hit = answer?;
    match global.format {
        Format::Json => output::print_json(&document(&request.key(), &args.source, market, &hit))?,
        Format::Table => print_value(&hit)?,
    }
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

fn document(key: &Key, source: &str, market: &Market, hit: &Hit) -> Value {
    let entry = hit.entry();
    let value = serde_json::from_slice::<Value>(hit.value())
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(hit.value()).into_owned()));
    json!({
        "schema": "larder.get/1",
        "key": key.as_str(),
        "source": source,
        "market": market.slug(),
        "served_by": hit.served_by().to_string(),
        "loaded_at": rfc3339(entry.as_of().instant()),
        "expires_at": rfc3339(entry.expires_at()),
        "content_type": entry.content_type(),
        "etag": entry.etag(),
        "size_bytes": hit.value().len(),
        "value": value,
    })
}

/// The instant in UTC; `None` for never and for what no calendar has.
fn rfc3339(instant: Timestamp) -> Option<String> {
    jiff::Timestamp::from_millisecond(instant.as_millis()).ok().map(|instant| instant.to_string())
}
