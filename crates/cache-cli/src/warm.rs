//! `larder warm`: many markets and sources.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_warmer::{Gazetteer, MarketList, Summary, Warmer, read_markets};
use larder::{Chained, Escaped};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    args::{Format, Global, WarmArgs},
    context::Context,
    exit::{Exit, Failure},
    markets, output,
    progress::Progress,
    table,
};

/// How long a command waits for the chain to store what is left.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// Failures told one by one; of more, only the number.
const TOLD: usize = 20;

pub(crate) async fn run(global: &Global, args: &WarmArgs) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let cache = context.cache()?;
    let sources = args.sources();
    known(&cache.sources(), &sources)?;
    let list = match &args.markets {
        Some(file) => read(file)?,
        None => MarketList::default(),
    };
    for (line, unknown) in &list.unknown {
        output::remark(&format!("warning: line {line}: {unknown}; skipped\n"));
    }
    let none = BTreeMap::new();
    let named = args.market.iter().map(|name| markets::resolve(name));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    let rows = list.rows.iter().map(|row| (&row.market, &row.extra));
    let all = rows.chain(named.into_iter().map(|market| (market, &none)));

    let parallel = args.parallel.unwrap_or(context.loaded.config.prefetch.max_parallel_requests);
    let warmer = Warmer::new(&cache, &sources, all).parallel(parallel as usize);
    if warmer.tasks().is_empty() {
        return Err(Failure::usage("there is nothing to warm: no market, or no source, is left")
            .hint("a markets file is CSV with a column `market`: names, slugs or CBSA codes"));
    }
    let mut progress = Progress::new(warmer.tasks(), global.quiet);
    let interrupts = Interrupts::watch();
    let stop = interrupts.first.notified();
    let summary = warmer.run(|event| progress.observe(event), stop).await;
    interrupts.closing.store(true, Ordering::Relaxed);
    progress.finish();
    let closed = cache.close(CLOSE_WITHIN).await;
    if !closed.is_clean() {
        tracing::warn!(?closed, "closed before everything was stored");
    }
    tell(global, &summary, &list)?;
    Ok(if interrupts.stopped.load(Ordering::Relaxed) {
        Exit::Interrupted
    } else if summary.failed.is_empty() && list.unknown.is_empty() && closed.is_clean() {
        Exit::Done
    } else if summary.fresh + summary.fetched > 0 {
        Exit::PartlyDone
    } else {
        Exit::Failed
    })
}

/// What Ctrl-C was pressed for.
#[derive(Default)]
struct Interrupts {
    stopped: AtomicBool,
    /// From now on there is nothing left to stop but waiting.
    closing: AtomicBool,
    first: Notify,
}

impl Interrupts {
    /// Watches until the program ends: the first Ctrl-C stops the run, and one after it, or after
    /// the run, ends the program.
    fn watch() -> Arc<Self> {
        let interrupts = Arc::new(Self::default());
        let watching = Arc::clone(&interrupts);
        tokio::spawn(async move {
            // Where the system cannot tell, it never does.
            while tokio::signal::ctrl_c().await.is_ok() {
                let closing = watching.closing.load(Ordering::Relaxed);
                if watching.stopped.swap(true, Ordering::Relaxed) || closing {
                    std::process::exit(130);
                }
                output::remark(
                    "stopping: waiting for what is under way; what has been fetched is stored \
                     (Ctrl-C again does not wait)\n",
                );
                watching.first.notify_one();
            }
        });
        interrupts
    }
}

fn known(known: &[&str], asked: &[String]) -> Result<(), Failure> {
    match asked.iter().find(|source| !known.contains(&source.as_str())) {
        None => Ok(()),
        Some(source) => {
            let message = format!("unknown source `{}`", Escaped(source));
            let hint = if known.is_empty() {
                "no source has an origin; give one a `url` under `cache.sources`".to_owned()
            } else {
                format!("sources with an origin: {}", known.join(", "))
            };
            Err(Failure::usage(message).hint(hint))
        }
    }
}

fn read(file: &Path) -> Result<MarketList, Failure> {
    let name =
        if file == Path::new("-") { "standard input".into() } else { file.to_string_lossy() };
    let name = Escaped(&name).to_string();
    let list = if file == Path::new("-") {
        read_markets(io::stdin().lock(), Gazetteer::us())
    } else {
        let file = File::open(file)
            .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
        read_markets(file, Gazetteer::us())
    };
    list.map_err(|error| Failure::usage(format!("{name}: {error}")))
}

fn tell(global: &Global, summary: &Summary, list: &MarketList) -> Result<(), Failure> {
    if global.format == Format::Json {
        let failed: Vec<_> = summary
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
        let unknown: Vec<_> = list
            .unknown
            .iter()
            .map(|(line, unknown)| {
                json!({
                    "line": line,
                    "given": unknown.given,
                    "nearest": unknown.nearest,
                })
            })
            .collect();
        return output::print_json(&json!({
            "schema": "larder.warm/1",
            "planned": summary.planned,
            "fetched": summary.fetched,
            "fresh": summary.fresh,
            "left": summary.left(),
            "fetched_bytes": summary.fetched_bytes,
            "seconds": summary.elapsed.as_secs_f64(),
            "failed": failed,
            "unknown_markets": unknown,
        }));
    }
    for (task, error) in summary.failed.iter().take(TOLD) {
        let source = Escaped(&task.source);
        output::remark(&format!("failed: {source} · {}: {}\n", task.market, Chained(error)));
    }
    if summary.failed.len() > TOLD {
        output::remark(&format!("failed: {} more\n", summary.failed.len() - TOLD));
    }
    let left = match summary.left() {
        0 => String::new(),
        left => format!(", {left} left: run the same command again for the rest"),
    };
    output::print(&format!(
        "{} of {} in {}: {} already fresh, {} fetched ({}), {} failed{left}\n",
        summary.fresh + summary.fetched,
        summary.planned,
        table::latency(summary.elapsed),
        summary.fresh,
        summary.fetched,
        table::size(summary.fetched_bytes),
        summary.failed.len(),
    ))
}
