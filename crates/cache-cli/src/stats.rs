//! `larder stats`: what is stored.

use std::path::Path;

use larder::{Chained, Usage, config::TierKind};
use serde_json::{Value, json};

use crate::{
    args::{Format, Global},
    context::{Context, shown},
    exit::{Exit, Failure},
    output, table,
    warm::CLOSE_WITHIN,
};

pub(crate) async fn run(global: &Global) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let cache = context.cache()?;
    let config = &context.loaded.config;
    let path = &context.store();
    if !config.tiers().contains(&TierKind::Sqlite) {
        return Err(Failure::failed("no tier of this configuration outlives a program")
            .hint("enable one, for example `cache.sqlite.enable: true`"));
    }
    // Looking must not create what is looked at.
    let exists = path
        .try_exists()
        .map_err(|error| Failure::failed(format!("cannot look at {}: {error}", shown(path))))?;
    if !exists {
        return empty(global, path);
    }
    let usage = cache.usage().await?;
    cache.close(CLOSE_WITHIN).await;
    let mut tiers = Vec::new();
    for (name, usage) in usage {
        // Another process's memory cannot be seen from here.
        if name != "memory" {
            tiers
                .push((name, usage.map_err(|error| Failure::failed(Chained(&error).to_string()))?));
        }
    }
    match global.format {
        Format::Json => output::print_json(&document(path, &tiers))?,
        Format::Table => output::print(&text(path, &tiers))?,
    }
    Ok(Exit::Done)
}

fn empty(global: &Global, path: &Path) -> Result<Exit, Failure> {
    match global.format {
        Format::Json => output::print_json(&document(path, &[]))?,
        Format::Table => output::print(&format!(
            "Nothing is stored yet: {} does not exist.\nFill it with `larder warm` or `larder get`; \
             `larder demo` shows how it works.\n",
            shown(path)
        ))?,
    }
    Ok(Exit::Done)
}

fn document(path: &Path, tiers: &[(&str, Usage)]) -> Value {
    let tier = |(name, usage): &(&str, Usage)| {
        let total = usage.total();
        let sources: Vec<Value> = usage
            .sources
            .iter()
            .map(|one| {
                json!({
                    "source": one.source,
                    "entries": one.entries,
                    "raw_bytes": one.raw_bytes,
                    "stored_bytes": one.stored_bytes,
                })
            })
            .collect();
        json!({
            "name": name,
            "entries": total.entries,
            "raw_bytes": total.raw_bytes,
            "stored_bytes": total.stored_bytes,
            "occupied_bytes": usage.occupied_bytes,
            "log_bytes": usage.log_bytes,
            "free_bytes": usage.free_bytes,
            "capacity_bytes": usage.capacity_bytes,
            "sources": sources,
        })
    };
    json!({
        "schema": "larder.stats/1",
        "path": path.display().to_string(),
        "tiers": tiers.iter().map(tier).collect::<Vec<_>>(),
    })
}

fn text(path: &Path, tiers: &[(&str, Usage)]) -> String {
    let mut rows = Vec::new();
    let mut occupied = String::new();
    for (name, usage) in tiers {
        let total = usage.total();
        let all = usage.sources.iter().chain((usage.sources.len() > 1).then_some(&total));
        for one in all {
            let source = if one.source.is_empty() { "all" } else { &one.source };
            rows.push(vec![
                (*name).to_owned(),
                larder::Escaped(source).to_string(),
                table::count(one.entries),
                table::size(one.raw_bytes),
                table::size(one.stored_bytes),
                ratio(one.raw_bytes, one.stored_bytes),
            ]);
        }
        occupied = format!(
            "{occupied}{}: {} entries, {} on disk ({} of that in its log, {} free){}\n",
            shown(path),
            table::count(total.entries),
            table::size(usage.occupied_bytes),
            table::size(usage.log_bytes),
            table::size(usage.free_bytes),
            usage
                .capacity_bytes
                .map(|most| format!(", at most {}", table::size(most)))
                .unwrap_or_default()
        );
    }
    let headings = ["TIER", "SOURCE", ">ENTRIES", ">SIZE", ">STORED", ">RATIO"];
    format!("{}{occupied}", table::render(&headings, &rows))
}

/// How many times smaller the stored form is.
fn ratio(raw: u64, stored: u64) -> String {
    if stored == 0 { "–".to_owned() } else { format!("{:.1}x", raw as f64 / stored as f64) }
}
