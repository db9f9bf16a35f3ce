//! Many entries, many threads, and how well what is worth keeping is kept.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use larder::{Cache, Clock, Entry, Hit, Key, Stamp, SyncTier, SystemClock, tiers::MemoryTier};
use lru::LruCache;

use super::{Bare, ROOM, each, used};
use crate::{
    Result, allocations, data,
    measure::{Case, Effort, geometric_mean, measure},
    report::Report,
    traces::{self, Trace},
};

const MILLION: usize = 1_000_000;

pub(crate) fn run(effort: &Effort, directory: Option<&Path>, report: &mut Report) -> Result<()> {
    bytes_per_entry(effort, report);
    for (label, count) in [("1k", 1_000), ("100k", 100_000), ("1m", MILLION)] {
        growth(&effort.rounds(7, 21), report, label, count)?;
    }
    let mut traces = vec![traces::zipf(if effort.quick { 100_000 } else { MILLION }, 4 * MILLION)];
    if let Some(directory) = directory {
        traces.extend(traces::read(directory)?);
    }
    replay(effort, report, traces);
    Ok(())
}

/// Memory beyond keys and values, beside the bare store.
fn bytes_per_entry(effort: &Effort, report: &mut Report) {
    const VALUE: usize = 100;
    let count = if effort.quick { MILLION / 4 } else { MILLION };
    let value = || Bytes::from(vec![7_u8; VALUE]);
    let payload = (data::key(0).len() + VALUE) as i64;
    let beyond = |held: i64| (held / count as i64 - payload) as f64;
    let (bare, kept) = allocations::held(|| {
        let bare = quick_cache::sync::Cache::<String, Bytes>::new(2 * count);
        (0..count).for_each(|n| bare.insert(data::key(n), value()));
        bare
    });
    drop(kept);
    let (ours, kept) = allocations::held(|| {
        let tier = MemoryTier::new(ROOM);
        for n in 0..count {
            let entry = Entry::builder(value(), Stamp::from_packed(n as u64 + 1)).build();
            tier.put_now(&Key::new(data::key(n)), &entry);
        }
        tier
    });
    let counted = kept.stats().weight as f64 / count as f64 - payload as f64;
    drop(kept);
    let against = (beyond(bare), "bytes beyond the payload in quick_cache<String, Bytes>");
    report.ratio("scale.bytes_per_entry", beyond(ours), against, Some((2.0, 3.0)));
    report.figure("scale: bytes beyond the payload that the tier counts", counted, "B");
    #[cfg(feature = "peers")]
    {
        let (moka, kept) = allocations::held(|| {
            let moka = super::peers::moka::<String, Bytes>(2 * count as u64);
            (0..count).for_each(|n| moka.insert(data::key(n), value()));
            moka.run_pending_tasks();
            moka
        });
        drop(kept);
        report.figure("scale: bytes beyond the payload in moka", beyond(moka), "B");
    }
}

/// What a hit costs among so many entries, and from several threads.
fn growth(effort: &Effort, report: &mut Report, label: &str, count: usize) -> Result<()> {
    let (tier, bare) = (Arc::new(MemoryTier::new(ROOM)), Bare::new(2 * count));
    let now = Stamp::at(SystemClock::new().now()).packed();
    let value = data::noise(100, 1);
    for n in 0..count {
        let entry = Entry::builder(value.clone(), Stamp::from_packed(now + n as u64)).build();
        let key = Key::new(data::key(n));
        tier.put_now(&key, &entry);
        bare.insert(key, entry);
    }
    let cache = Cache::builder().shared_tier(tier).build()?;
    let keys: Vec<String> =
        data::order(count, count.min(8_192)).into_iter().map(data::key).collect();
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    let name = |what: &str| format!("{what}, {label} entries");
    let (ours, alone) = (name("peek"), name("quick_cache get"));
    let (two, four) = (name("peek from 2 threads"), name("peek from 4 threads"));
    let cases = vec![
        Case::new(&alone, |times| {
            each(times, &asked, |key| used(bare.get(key).as_ref().map(Entry::value)));
        }),
        Case::new(&ours, |times| {
            each(times, &asked, |key| used(cache.peek(key).as_ref().map(Hit::value)));
        }),
        Case::timed(&two, |times| threads(2, times, &cache, &asked)),
        Case::timed(&four, |times| threads(4, times, &cache, &asked)),
    ];
    let measured = measure(effort, cases);
    let goal = (label == "1m").then_some((1.4, 1.8));
    report.compare(&format!("scale.hit_{label}"), &measured, (&ours, &alone), goal);
    report.figures("scale", &measured);
    Ok(())
}

/// The time that each of several threads at once takes on average.
fn threads(count: u32, times: u64, cache: &Cache, asked: &[&str]) -> Duration {
    let start = std::sync::Barrier::new(count as usize);
    let one = || {
        start.wait();
        let started = Instant::now();
        each(times, asked, |key| used(cache.peek(key).as_ref().map(Hit::value)));
        started.elapsed()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).sum::<Duration>() / count
    })
}

/// Misses of traces, beside those of exact LRU and of moka.
fn replay(effort: &Effort, report: &mut Report, traces: Vec<Trace>) {
    let (mut beside_lru, mut beside_moka) = (Vec::new(), Vec::new());
    for mut trace in traces {
        if effort.quick {
            trace.keys.truncate(2 * MILLION);
        }
        for capacity in &trace.capacities {
            let (ours, lru) = (misses(&trace.keys, *capacity), lru_misses(&trace.keys, *capacity));
            let all = trace.keys.len() as f64;
            let name = format!("{}_{capacity}", trace.name);
            let base = (lru as f64, "misses of exact LRU");
            let goal = Some((0.95, 1.0));
            report.ratio(&format!("scale.misses_{name}"), ours as f64, base, goal);
            let hits = |misses: u64| 100.0 * (1.0 - misses as f64 / all);
            report.figure(format!("scale: hits of {name}"), hits(ours), "%");
            report.figure(format!("scale: hits of {name}, exact LRU"), hits(lru), "%");
            beside_lru.push(ours as f64 / lru as f64);
            #[cfg(feature = "peers")]
            {
                let moka = moka_misses(&trace.keys, *capacity);
                report.figure(format!("scale: hits of {name}, moka"), hits(moka), "%");
                beside_moka.push(ours as f64 / moka as f64);
            }
        }
    }
    let mean = geometric_mean(&beside_lru);
    let base = (1.0, "misses of exact LRU, geometric mean");
    report.ratio("scale.misses_vs_lru", mean, base, Some((0.95, 1.0)));
    if !beside_moka.is_empty() {
        let mean = geometric_mean(&beside_moka);
        let base = (1.0, "misses of moka, geometric mean");
        report.ratio("scale.misses_vs_moka", mean, base, Some((0.98, 1.02)));
    }
    beside_moka.clear();
}

/// Misses of the memory tier with room for so many entries.
fn misses(keys: &[u64], capacity: usize) -> u64 {
    let key = |n: u64| Key::new(format!("t:{n:010x}"));
    let clock = SystemClock::new();
    let now = clock.now();
    let mut stamp = Stamp::at(now).packed();
    // Not tiny ones: how much is remembered of what was given up depends on the capacity in bytes.
    let value = data::noise(800, 1);
    let mut entry = || {
        stamp += 1;
        Entry::builder(value.clone(), Stamp::from_packed(stamp)).build()
    };
    let one = MemoryTier::new(1 << 20);
    one.put_now(&key(0), &entry());
    let tier = MemoryTier::new(one.stats().weight * capacity as u64);
    let mut misses = 0;
    for n in keys {
        let key = key(*n);
        if tier.get_now(key.as_str(), now).is_none() {
            misses += 1;
            tier.put_now(&key, &entry());
        }
    }
    misses
}

fn lru_misses(keys: &[u64], capacity: usize) -> u64 {
    let mut lru = LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN));
    let mut misses = 0;
    for key in keys {
        if lru.get(key).is_none() {
            misses += 1;
            lru.put(*key, ());
        }
    }
    misses
}

#[cfg(feature = "peers")]
fn moka_misses(keys: &[u64], capacity: usize) -> u64 {
    let moka = super::peers::moka::<u64, ()>(capacity as u64);
    let mut misses = 0;
    for key in keys {
        if moka.get(key).is_none() {
            misses += 1;
            moka.insert(*key, ());
        }
    }
    misses
}
