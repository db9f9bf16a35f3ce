//! What a run did, and what it does, told to people and programs.

use std::collections::BTreeMap;

use cache_warmer::{Event, MarketList, SourceSummary, Summary, TaskOutcome};
use larder::{Chained, Escaped};
use serde_json::{Value, json};

use crate::{
    args::{Format, Global},
    exit::Failure,
    output, table,
};

/// Failures told one by one of each kind; of more, only the number.
const TOLD: usize = 3;
/// Kinds of failures told.
const KINDS: usize = 10;

/// Writes what has become of a task, as one line of JSON.
pub(super) fn event(event: &Event) -> Result<(), Failure> {
    let (outcome, error) = match &event.outcome {
        TaskOutcome::Fresh => ("fresh", None),
        TaskOutcome::Fetched => ("fetched", None),
        TaskOutcome::Revalidated => ("revalidated", None),
        TaskOutcome::Retrying(error) => ("retrying", Some(error)),
        TaskOutcome::Failed(error) => ("failed", Some(error)),
        TaskOutcome::Left(because) => ("left", because.as_ref()),
        _ => ("other", None),
    };
    output::print_json(&json!({
        "schema": "larder.warm.event/1",
        "source": event.task.source,
        "market": event.task.market,
        "outcome": outcome,
        "bytes": event.bytes,
        "ms": u64::try_from(event.elapsed.as_millis()).unwrap_or(u64::MAX),
        "error": error.map(|error| Chained(error).to_string()),
    }))
}

pub(super) fn tell(global: &Global, summary: &Summary, list: &MarketList) -> Result<(), Failure> {
    match global.format {
        Format::Json => output::print_json(&document(summary, list)),
        Format::Table => {
            tell_failures(summary);
            if summary.sources.len() > 1 && !global.quiet {
                output::print(&(by_source(summary) + "\n"))?;
            }
            output::print(&line(summary))
        }
    }
}

fn document(summary: &Summary, list: &MarketList) -> Value {
    let failed: Vec<Value> = summary
        .failed
        .iter()
        .map(|(task, error)| {
            json!({
                "source": task.source,
                "market": task.market,
                "error": Chained(error).to_string(),
            })
        })
        .collect();
    let sources: BTreeMap<&String, Value> =
        summary.sources.iter().map(|(name, did)| (name, counts(did))).collect();
    let mut document = counts(&summary.total());
    if let Value::Object(fields) = &mut document {
        fields.remove("failed");
        fields.insert("schema".to_owned(), "larder.warm/1".into());
        fields.insert("seconds".to_owned(), summary.elapsed.as_secs_f64().into());
        fields.insert("sources".to_owned(), json!(sources));
        fields.insert("failed".to_owned(), failed.into());
        fields.insert("unknown_markets".to_owned(), json!(super::unknown(list)));
    }
    document
}

fn counts(did: &SourceSummary) -> Value {
    json!({
        "planned": did.planned,
        "fetched": did.fetched,
        "fresh": did.fresh,
        "revalidated": did.revalidated,
        "changed": did.changed,
        "failed": did.failed,
        "left": did.left(),
        "left_because": did.left_because.as_ref().map(|error| Chained(error).to_string()),
        "fetched_bytes": did.bytes,
        "calls": did.calls,
        "calls_saved": did.calls_saved(),
    })
}

/// Says why tasks failed or were left, like reasons together.
fn tell_failures(summary: &Summary) {
    let mut kinds: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for (task, error) in &summary.failed {
        let kind = (task.source.as_str(), Chained(error).to_string());
        kinds.entry(kind).or_default().push(&task.market);
    }
    for ((source, why), markets) in kinds.iter_mut().take(KINDS) {
        markets.sort_unstable();
        let source = Escaped(source);
        let mut told = markets.iter().take(TOLD).copied().collect::<Vec<_>>().join(", ");
        if markets.len() > TOLD {
            told = format!("{told} and {} more", markets.len() - TOLD);
        }
        output::remark(&format!("failed: {source} · {told}: {why}\n"));
    }
    if kinds.len() > KINDS {
        output::remark(&format!("failed: for {} more reasons\n", kinds.len() - KINDS));
    }
    for (source, did) in &summary.sources {
        if let Some(because) = &did.left_because {
            let (source, left) = (Escaped(source), did.left());
            output::remark(&format!("left: {source} · {left}: {}\n", Chained(because)));
        }
    }
}

fn by_source(summary: &Summary) -> String {
    let headings = [
        "SOURCE",
        ">PLANNED",
        ">FRESH",
        ">FETCHED",
        ">CHANGED",
        ">UNCHANGED",
        ">FAILED",
        ">LEFT",
        ">BYTES",
        ">CALLS",
        ">SAVED",
    ];
    let row = |name: String, did: &SourceSummary| {
        let count = |count: usize| table::count(count as u64);
        vec![
            name,
            count(did.planned),
            count(did.fresh),
            count(did.fetched),
            count(did.changed),
            count(did.revalidated),
            count(did.failed),
            count(did.left()),
            table::size(did.bytes),
            count(did.calls),
            count(did.calls_saved()),
        ]
    };
    let sources = summary.sources.iter().map(|(name, did)| row(Escaped(name).to_string(), did));
    let all = row("all".to_owned(), &summary.total());
    table::render(&headings, &sources.chain([all]).collect::<Vec<_>>())
}

pub(crate) fn line(summary: &Summary) -> String {
    let total = summary.total();
    let unchanged = match total.revalidated {
        0 => String::new(),
        count => format!(", {count} unchanged"),
    };
    let changed = match total.changed {
        0 => String::new(),
        count => format!(", {count} of them changed"),
    };
    let left = match total.left() {
        0 => String::new(),
        left => format!(", {left} left: run the same command again for the rest"),
    };
    format!(
        "{} of {} in {}: {} already fresh, {} fetched ({}){changed}{unchanged}, {} failed{left}\n",
        total.answered(),
        total.planned,
        table::latency(summary.elapsed),
        total.fresh,
        total.fetched,
        table::size(total.bytes),
        total.failed,
    )
}
