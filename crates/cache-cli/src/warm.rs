//! `larder warm`: many markets and sources.

mod forecast;
pub(crate) mod report;

use std::{collections::BTreeMap, fs::File, io, path::Path, time::Duration};

use cache_warmer::{
    Gazetteer, MarketKind, MarketList, MarketRow, Warmer, add_nearby, read_markets,
};
use larder::{Cache, Escaped, config::CacheConfig};

use crate::{
    args::{Format, Global, WarmArgs},
    context::Context,
    exit::{Exit, Failure},
    interrupts::Interrupts,
    markets, output,
    progress::Progress,
};

/// How long a command waits for the chain to store what is left.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn run(global: &Global, args: &WarmArgs) -> Result<Exit, Failure> {
    if args.schedule {
        return crate::daemon::run(global).await;
    }
    let context = Context::load(global)?;
    let cache = context.cache()?;
    let config = &context.loaded.config;
    let sources = args.sources();
    known(&cache.sources(), &sources)?;
    let list = markets(args, config)?;
    if args.strict
        && let Some((line, unknown)) = list.unknown.first()
    {
        let others = list.unknown.len() - 1;
        let others = if others > 0 { format!(" ({others} more)") } else { String::new() };
        return Err(Failure::usage(format!("line {line}: {unknown}{others}"))
            .hint("without --strict unknown markets are skipped"));
    }
    for (line, unknown) in &list.unknown {
        output::remark(&format!("warning: line {line}: {unknown}; skipped\n"));
    }
    let warmer =
        warmer(&cache, &sources, &list.rows, args, config).watch(crate::changes::watch(&context)?);
    if warmer.tasks().is_empty() {
        return Err(Failure::usage("there is nothing to warm: no market, or no source, is left")
            .hint("a markets file is CSV with a column `market`: names, slugs or CBSA codes"));
    }
    if args.dry_run {
        let told = forecast::tell(global, &warmer, config, &list).await;
        _ = cache.close(CLOSE_WITHIN).await;
        return told;
    }
    let events = (global.format == Format::Json && !global.quiet).then_some(report::event);
    let mut progress = Progress::new(&cache, warmer.tasks(), global.quiet || events.is_some());
    let interrupts = Interrupts::watch();
    let mut unwritten = None;
    let observe = |event: &cache_warmer::Event| {
        progress.observe(event);
        if let Some(Err(failure)) = events.map(|tell| tell(event)) {
            unwritten.get_or_insert(failure);
        }
    };
    let summary = warmer.run(observe, interrupts.first()).await;
    interrupts.close();
    progress.finish();
    let closed = cache.close(CLOSE_WITHIN).await;
    if !closed.is_clean() {
        tracing::warn!(?closed, "closed before everything was stored");
    }
    report::tell(global, &summary, &list)?;
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    let total = summary.total();
    Ok(if interrupts.stopped() {
        Exit::Interrupted
    } else if total.answered() == total.planned && list.unknown.is_empty() && closed.is_clean() {
        Exit::Done
    } else if total.answered() > 0 {
        Exit::PartlyDone
    } else {
        Exit::Failed
    })
}

fn warmer(
    cache: &Cache,
    sources: &[String],
    rows: &[MarketRow],
    args: &WarmArgs,
    config: &CacheConfig,
) -> Warmer {
    let parallel = args.parallel.unwrap_or(config.prefetch.max_parallel_requests);
    let markets = rows.iter().map(|row| (&row.market, &row.extra));
    let warmer = Warmer::new(cache, sources, markets)
        .parallel(parallel as usize)
        .refresh(args.refresh)
        .fail_fast(args.fail_fast);
    match args.max_age {
        Some(age) => warmer.max_age(age),
        None => warmer,
    }
}

/// Which markets are meant, those near them included.
fn markets(args: &WarmArgs, config: &CacheConfig) -> Result<MarketList, Failure> {
    let usual = config.prefetch.nearby_radius_miles;
    let radius = args.nearby.map(|radius| radius.unwrap_or(usual));
    gathered(args.markets.as_deref(), &args.market, args.all_metros, radius)
}

/// The markets of a file, those named, all metropolitan areas, and those within so many miles.
pub(crate) fn gathered(
    file: Option<&Path>,
    names: &[String],
    all_metros: bool,
    radius: Option<f64>,
) -> Result<MarketList, Failure> {
    let mut list = match file {
        Some(file) => read(file)?,
        None => MarketList::default(),
    };
    for name in names {
        list.rows.push(MarketRow::of(markets::resolve(name)?));
    }
    if all_metros {
        let all = Gazetteer::us().markets().iter();
        let metros = all.filter(|market| market.kind() == MarketKind::Metro);
        list.rows.extend(metros.map(MarketRow::of));
    }
    if let Some(radius) = radius {
        add_nearby(&mut list.rows, Gazetteer::us(), radius)
            .map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(list)
}

pub(crate) fn known(known: &[&str], asked: &[String]) -> Result<(), Failure> {
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

/// Markets that are not known, as JSON tells them.
fn unknown(list: &MarketList) -> Vec<BTreeMap<&'static str, serde_json::Value>> {
    let told = list.unknown.iter().map(|(line, unknown)| {
        BTreeMap::from([
            ("line", (*line).into()),
            ("given", unknown.given.as_str().into()),
            ("nearest", unknown.nearest.clone().into()),
        ])
    });
    told.collect()
}
