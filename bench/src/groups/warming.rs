//! Warming: how much of the time that limits allow a run takes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cache_warmer::{Gazetteer, Warmer};
use larder::{
    Cache, CacheBuilder, Ledger, Limits, Load, Loaded, OriginOptions, origin_fn,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};

use crate::{Result, measure::Effort, report::Report};

/// Memory and a file, as programs have them.
fn chain(dir: &tempfile::TempDir) -> Result<CacheBuilder> {
    let options = SqliteOptions::new(dir.path().join("cache.db"));
    Ok(Cache::builder().tier(MemoryTier::new(256 << 20)).tier(SqliteTier::new(options)?))
}

/// From 200 to 600 ms, spread evenly, and the same each time for one market and source.
fn slowness(load: &Load) -> Duration {
    let hash = load
        .request
        .key()
        .as_str()
        .bytes()
        .fold(7_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    Duration::from_millis(200 + hash % 401)
}

fn warmer(cache: &Cache, sources: &[String], markets: usize, parallel: usize) -> Warmer {
    let none = BTreeMap::new();
    let markets = Gazetteer::us().markets().iter().take(markets).map(|market| (market, &none));
    Warmer::new(cache, sources, markets).parallel(parallel)
}

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    runtime.block_on(slow_origin(report))?;
    let markets = if effort.quick { 200 } else { Gazetteer::us().markets().len() };
    runtime.block_on(limited_origin(markets, report))
}

/// 10 markets x 3 sources, of which each call takes 200 to 600 ms, 5 at a time.
async fn slow_origin(report: &mut Report) -> Result<()> {
    const PARALLEL: usize = 5;
    let dir = tempfile::tempdir()?;
    let took = Arc::new(Mutex::new(Vec::new()));
    let sources = ["a", "b", "c"].map(str::to_owned);
    let mut builder = chain(&dir)?;
    for source in &sources {
        let took = Arc::clone(&took);
        let origin = origin_fn(move |load: Load| {
            let slowness = slowness(&load);
            took.lock().unwrap_or_else(PoisonError::into_inner).push(slowness);
            async move {
                tokio::time::sleep(slowness).await;
                Ok(Loaded::new(vec![b'v'; 10 << 10]))
            }
        });
        builder = builder.origin(source, origin);
    }
    let cache = builder.build()?;
    let began = Instant::now();
    let summary =
        warmer(&cache, &sources, 10, PARALLEL).run(|_event| {}, std::future::pending()).await;
    let elapsed = began.elapsed();
    if summary.total().fetched != 30 {
        return Err(format!("not all was fetched: {summary:?}").into());
    }
    let took = took.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Each call begins as soon as a lane is free.
    let mut lanes = [Duration::ZERO; PARALLEL];
    for one in took {
        if let Some(free) = lanes.iter_mut().min() {
            *free += one;
        }
    }
    let ideal = lanes.into_iter().max().unwrap_or_default();
    let base = (ideal.as_nanos() as f64, "5 lanes that are never idle");
    let goal = Some((1.10, 1.25));
    report.ratio("warming.slow_10x3", elapsed.as_nanos() as f64, base, goal);
    Ok(())
}

/// All markets x 4 sources at 125 calls a second each, by a ledger in a file.
async fn limited_origin(markets: usize, report: &mut Report) -> Result<()> {
    const RATE: u32 = 125;
    let dir = tempfile::tempdir()?;
    let sources = ["a", "b", "c", "d"].map(str::to_owned);
    let mut builder = chain(&dir)?.ledger(Ledger::at(dir.path().join("calls.db")));
    for source in &sources {
        let limits = Limits::default().rate(RATE, Duration::from_secs(1));
        builder = builder
            .origin(source, origin_fn(|_load| async { Ok(Loaded::new(vec![b'v'; 10 << 10])) }))
            .origin_options(source, OriginOptions::default().limits(limits));
    }
    let cache = builder.build()?;
    let plan = warmer(&cache, &sources, markets, 5);
    let began = Instant::now();
    let summary = plan.run(|_event| {}, std::future::pending()).await;
    let elapsed = began.elapsed();
    if summary.total().fetched != markets * sources.len() {
        return Err(format!("not all was fetched: {summary:?}").into());
    }
    let ideal = Duration::from_secs(markets as u64 - 1) / RATE;
    let base = (ideal.as_nanos() as f64, "the rates used to the full");
    // 95 % of the rate.
    let goal = Some((1.0 / 0.95, 1.10));
    report.ratio("warming.rate_used", elapsed.as_nanos() as f64, base, goal);
    report.figure("warming.peak_memory", peak_mebibytes()?, "MiB");
    Ok(())
}

/// Most memory that this process has occupied.
fn peak_mebibytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).unwrap_or("0");
    Ok(kib.parse::<f64>()? / 1024.0)
}
