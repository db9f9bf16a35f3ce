//! `larder stats`: what is stored.

use std::{path::Path, time::Duration};

use larder::{Chained, CodecId, CodecUsage, DictionaryId, Usage};
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
    let path = &context.store();
    if !context.has_store()? {
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
            "codecs": usage.codecs.iter().map(codec).collect::<Vec<_>>(),
        })
    };
    json!({
        "schema": "larder.stats/1",
        "path": path.display().to_string(),
        "tiers": tiers.iter().map(tier).collect::<Vec<_>>(),
    })
}

fn codec(one: &CodecUsage) -> Value {
    let dictionary = one.of.dictionary;
    json!({
        "source": one.of.source,
        "codec": one.of.codec.to_string(),
        "dictionary": (dictionary != DictionaryId::NONE).then(|| dictionary.to_string()),
        "entries": one.entries,
        "raw_bytes": one.raw_bytes,
        "stored_bytes": one.stored_bytes,
        "compressed": one.work.packed,
        "compress_s": one.work.pack_time.as_secs_f64(),
        "did_not_shrink": one.work.kept_raw,
        "failed": one.work.failed,
        "decompressed": one.work.unpacked,
        "decompress_s": one.work.unpack_time.as_secs_f64(),
    })
}

/// How the values of each source are stored, if any are compressed.
fn codecs(usage: &Usage) -> String {
    let is_raw = |one: &CodecUsage| one.of.codec == CodecId::RAW && one.work.packed == 0;
    if usage.codecs.iter().all(is_raw) {
        return String::new();
    }
    let each = |total: Duration, count: u64| match u32::try_from(count) {
        Ok(count) if count > 0 => table::latency(total / count),
        _ => "–".to_owned(),
    };
    let row = |one: &CodecUsage| {
        let codec = match one.of.dictionary {
            DictionaryId::NONE => one.of.codec.to_string(),
            dictionary => format!("{} with {dictionary}", one.of.codec),
        };
        vec![
            larder::Escaped(&one.of.source).to_string(),
            codec,
            table::count(one.entries),
            table::size(one.raw_bytes),
            table::size(one.stored_bytes),
            ratio(one.raw_bytes, one.stored_bytes),
            each(one.work.pack_time, one.work.packed + one.work.kept_raw),
            each(one.work.unpack_time, one.work.unpacked),
        ]
    };
    let rows: Vec<_> = usage.codecs.iter().map(row).collect();
    let headings =
        ["SOURCE", "CODEC", ">ENTRIES", ">SIZE", ">STORED", ">RATIO", ">COMPRESS", ">DECOMPRESS"];
    format!("\n{}", table::render(&headings, &rows))
}

fn text(path: &Path, tiers: &[(&str, Usage)]) -> String {
    let mut rows = Vec::new();
    let mut occupied = String::new();
    let mut by_codec = String::new();
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
        by_codec.push_str(&codecs(usage));
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
    format!("{}{occupied}{by_codec}", table::render(&headings, &rows))
}

/// How many times smaller the stored form is.
pub(crate) fn ratio(raw: u64, stored: u64) -> String {
    if stored == 0 { "–".to_owned() } else { format!("{:.1}x", raw as f64 / stored as f64) }
}
