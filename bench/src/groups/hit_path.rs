//! A hit in memory through the whole chain.

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use larder::{Cache, Entry, Hit, Key, Loaded};
use tokio::runtime::Runtime;

use super::{Bare, bare, each, fill, here, memory_only, used};
use crate::{
    Result, allocations, data,
    measure::{Case, Effort, measure},
    report::Report,
};

/// Entries that fit easily.
const COUNT: usize = 10_000;
/// Keys that everybody asks for.
const HOT: usize = 200;
const VALUE: usize = 2_000;

const BARE: &str = "quick_cache get";
const BARE_ASYNC: &str = "quick_cache get in a task";

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let keys = data::keys(COUNT);
    let runtime = here()?;
    let cache = memory_only().build()?;
    let uncounted = memory_only().hit_statistics(false).build()?;
    for cache in [&cache, &uncounted] {
        fill(&runtime, cache, &keys, |n| data::table(VALUE, n as u64))?;
    }
    let bare = bare(&cache, &keys);
    let hot = asked(&keys, HOT);
    let everywhere = asked(&keys, COUNT);

    let cases = vec![
        Case::new(BARE, |times| {
            each(times, &hot, |key| used(bare.get(key).as_ref().map(Entry::value)));
        }),
        Case::new("peek", |times| {
            each(times, &hot, |key| used(cache.peek(key).as_ref().map(Hit::value)));
        }),
        Case::new(BARE_ASYNC, |times| {
            in_task!(runtime, times, hot, |key| used(bare.get(*key).as_ref().map(Entry::value)));
        }),
        Case::new("get", |times| gets(&runtime, &cache, &hot, times)),
        Case::new("get, not counted", |times| gets(&runtime, &uncounted, &hot, times)),
        Case::new("quick_cache get, all keys", |times| {
            in_task!(runtime, times, everywhere, |key| {
                used(bare.get(*key).as_ref().map(Entry::value));
            });
        }),
        Case::new("get, all keys", |times| gets(&runtime, &cache, &everywhere, times)),
    ];
    #[cfg(feature = "peers")]
    let peers = super::peers::HitPath::new(&runtime, &keys, VALUE)?;
    #[cfg(feature = "peers")]
    let cases = cases.into_iter().chain(peers.cases(&runtime, &hot)).collect();
    let measured = measure(effort, cases);
    report.compare("hit_path.peek", &measured, ("peek", BARE), Some((1.2, 1.5)));
    report.compare("hit_path.get", &measured, ("get", BARE_ASYNC), Some((1.3, 1.75)));
    let uniform = ("get, all keys", "quick_cache get, all keys");
    report.compare("hit_path.get_uniform", &measured, uniform, Some((1.1, 1.4)));
    let counted = ("get", "get, not counted");
    report.compare("hit_path.stats_overhead", &measured, counted, Some((1.2, 1.35)));
    report.compare("hit_path.get_vs_moka", &measured, ("get", "moka future get"), Some((0.3, 0.5)));
    report.compare("hit_path.get_vs_foyer", &measured, ("get", "foyer get"), Some((0.65, 0.9)));
    let multi = ("get", "multi-tier-cache get");
    report.compare("hit_path.get_vs_multi_tier_cache", &measured, multi, Some((0.2, 0.4)));
    let cached = ("peek", "cached get");
    report.compare("hit_path.peek_vs_cached", &measured, cached, None);
    report.figures("hit-path", &measured);

    two_threads(effort, report, &cache, &bare, &hot);
    #[cfg(feature = "peers")]
    {
        let single =
            |times| tail(times, &everywhere, |key| runtime.block_on(cache.get(key)).is_ok());
        let peer =
            |times| tail(times, &everywhere, |key| runtime.block_on(peers.moka.get(key)).is_some());
        p99(effort, report, single, peer);
    }

    let mut keys = hot.iter().cycle();
    let mut next = move || keys.next().copied().unwrap_or_default();
    let allocated = allocations::per_operation(10_000, || {
        black_box(allocations::ready(cache.get(next())).is_some_and(|hit| hit.is_ok()));
    });
    report.ratio("hit_path.allocations", allocated, (1.0, "one allocation"), Some((0.0, 0.0)));
    let peeked =
        allocations::per_operation(10_000, || used(cache.peek(next()).as_ref().map(Hit::value)));
    report.figure("hit-path: allocations of peek", peeked, "");
    let asked = allocations::per_operation(10_000, || {
        let load = |_| async { Ok(Loaded::new("")) };
        black_box(allocations::ready(cache.get_or_load(next(), load)).is_some());
    });
    report.figure("hit-path: allocations of get_or_load, found", asked, "");
    #[cfg(feature = "peers")]
    peers.allocations(&runtime, report, &mut next);
    Ok(())
}

/// Keys in the order in which they are asked for.
fn asked(keys: &[Key], distinct: usize) -> Vec<&str> {
    data::order(keys.len(), distinct).into_iter().map(|at| keys[at].as_str()).collect()
}

fn gets(runtime: &Runtime, cache: &Cache, asked: &[&str], times: u64) {
    in_task!(runtime, times, asked, |key| {
        if let Ok(hit) = cache.get(*key).await {
            used(hit.as_ref().map(Hit::value));
        }
    });
}

/// Two threads at once, each as often; the mean of their times.
fn together(times: u64, work: impl Fn(u64) + Sync) -> Duration {
    let start = Barrier::new(2);
    let one = || {
        start.wait();
        let started = Instant::now();
        work(times);
        started.elapsed()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(one);
        let own = one();
        (own + other.join().unwrap_or(own)) / 2
    })
}

fn two_threads(
    effort: &Effort,
    report: &mut Report,
    cache: &Cache,
    bare: &Arc<Bare>,
    hot: &[&str],
) {
    let cases = vec![
        Case::timed("quick_cache get, 2 threads", |times| {
            together(times, |times| {
                each(times, hot, |key| used(bare.get(key).as_ref().map(Entry::value)));
            })
        }),
        Case::timed("get, 2 threads", |times| {
            together(times, |times| {
                each(times, hot, |key| {
                    if let Some(Ok(hit)) = allocations::ready(cache.get(key)) {
                        used(hit.as_ref().map(Hit::value));
                    }
                });
            })
        }),
    ];
    let measured = measure(effort, cases);
    let cases = ("get, 2 threads", "quick_cache get, 2 threads");
    report.compare("hit_path.get_2threads", &measured, cases, Some((1.4, 1.75)));
    report.figures("hit-path", &measured);
}

/// How long each single operation took.
#[cfg(feature = "peers")]
fn tail(times: usize, asked: &[&str], get: impl Fn(&str) -> bool) -> f64 {
    let mut asked = asked.iter().cycle();
    let mut took: Vec<u64> = (0..times)
        .map(|_| {
            let key = asked.next().copied().unwrap_or_default();
            let started = Instant::now();
            black_box(get(key));
            u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    took.sort_unstable();
    took[took.len() * 99 / 100] as f64
}

#[cfg(feature = "peers")]
fn p99(
    effort: &Effort,
    report: &mut Report,
    ours: impl Fn(usize) -> f64,
    base: impl Fn(usize) -> f64,
) {
    let rounds = if effort.quick { 5 } else { 15 };
    let (mut all_ours, mut all_base) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        all_ours.push(ours(20_000));
        all_base.push(base(20_000));
    }
    let (ours, base) = (crate::measure::median(all_ours), crate::measure::median(all_base));
    let against = "moka future get, p99 of single hits";
    report.ratio("hit_path.get_p99_vs_moka", ours, (base, against), Some((0.1, 0.2)));
}
