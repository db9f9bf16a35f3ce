//! Statistics: each read counts once, and once for each tier it asks. Exact numbers after whole
//! histories are in `scripted.rs`.
//!
//! Not yet: that `validate`, `export` and `benchmark` change no counter (this version has no such
//! commands).

use std::time::Duration;

use larder::{
    Cache, Error, Filter, Loaded, Policy, PolicyPatch, ReadOptions, Request, SetOptions, TierStats,
};
use tier_testkit::{Call, CountingOrigin};
use tokio::task::JoinSet;

use crate::{
    harness::{Bench, bring, close, failure, key, never, tag, within},
    tools::{Below, fresh, set, tier_stats},
};

/// What one read is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    Hit,
    StaleHit,
    Miss,
}

/// Reads so far, whose sums must agree: hits, stale hits and misses.
fn reads(cache: &Cache) -> [u64; 3] {
    let stats = cache.stats();
    let served: u64 = stats.tiers.iter().map(|tier| tier.served).sum();
    let served_stale: u64 = stats.tiers.iter().map(|tier| tier.served_stale).sum();
    assert_eq!((stats.hits, stats.stale_hits), (served, served_stale));
    assert_eq!(stats.reads(), stats.hits + stats.stale_hits + stats.misses);
    [stats.hits, stats.stale_hits, stats.misses]
}

/// How often each tier was asked so far.
fn asked(cache: &Cache) -> Vec<u64> {
    let asked = |tier: &TierStats| {
        tier.found + tier.found_stale + tier.not_found + tier.errors + tier.skipped
    };
    cache.stats().tiers.iter().map(asked).collect()
}

/// The read counts exactly once, as this, and asks the tiers so often.
async fn counts<F: Future>(
    what: &str,
    cache: &Cache,
    read: impl FnOnce() -> F,
    expected: As,
    asks: &[u64],
) -> F::Output {
    let (before, asked_before) = (reads(cache), asked(cache));
    // Memory is asked inside the call.
    let answer = within(read()).await;
    let after = reads(cache);
    let more = [0, 1, 2].map(|n| after[n] - before[n]);
    let once = [As::Hit, As::StaleHit, As::Miss].map(|one| u64::from(one == expected));
    assert_eq!(more, once, "{what}: {expected:?}");
    let more: Vec<u64> =
        asked(cache).iter().zip(asked_before).map(|(after, before)| after - before).collect();
    assert_eq!(more, asks, "{what}: how often tiers were asked");
    answer
}

/// Memory over another tier: `both` is in both, `below` in the lower one, `stale` in both but
/// expired.
async fn filled(bench: &Bench, policy: Policy) -> (Cache, Below) {
    let below = Below::new(bench);
    let other = below.alone(bench);
    set(&other, &key("a:below"), "7").await;
    bench.advance(1);
    let builder = below.builder(bench).default_policy(policy);
    let cache = builder.origin("o", CountingOrigin::default()).build().unwrap();
    set(&cache, &key("a:both"), "7").await;
    set(&cache, &key("a:stale"), "7").await;
    within(cache.expire(&key("a:stale"))).await.unwrap();
    (cache, below)
}

fn failing(_: larder::LoadContext) -> std::future::Ready<Result<Loaded, larder::OriginError>> {
    std::future::ready(Err(failure("down")))
}

// "One read of the chain counts exactly once: one hit (of one tier), one stale hit, or one miss; plus
// one per tier asked. Sums agree: chain reads = hits + stale hits + misses."

#[tokio::test]
async fn a_get_counts_once_whatever_it_finds() {
    let bench = Bench::new();
    let (cache, _below) = filled(&bench, Policy::default()).await;
    let c = &cache;
    let [both, below, stale, none] = ["a:both", "a:below", "a:stale", "a:none"].map(key);
    counts("in memory", c, || c.get(&both), As::Hit, &[1, 0]).await.unwrap();
    counts("below", c, || c.get(&below), As::Hit, &[1, 1]).await.unwrap();
    counts("promoted", c, || c.get(&below), As::Hit, &[1, 0]).await.unwrap();
    counts("nowhere", c, || c.get(&none), As::Miss, &[1, 1]).await.unwrap();
    counts("stale", c, || c.get(&stale), As::Miss, &[1, 1]).await.unwrap();
    let allowed = || ReadOptions::default().allow_stale();
    counts("stale, allowed", c, || c.get_with(&stale, allowed()), As::StaleHit, &[1, 1])
        .await
        .unwrap();
    counts("fresh, allowed", c, || c.get_with(&both, allowed()), As::Hit, &[1, 0]).await.unwrap();
    counts("decoded", c, || c.get_as::<u8>(&both), As::Hit, &[1, 0]).await.unwrap();
    counts("as another type", c, || c.get_as::<String>(&both), As::Hit, &[1, 0]).await.unwrap_err();
    counts("decoded, nowhere", c, || c.get_as::<u8>(&none), As::Miss, &[1, 1]).await.unwrap();
    counts("a peek", c, || async { c.peek(&both) }, As::Hit, &[1, 0]).await.unwrap();
    let purging = c.get_with(&none, ReadOptions::purge_expired());
    counts("purging", c, || purging, As::Miss, &[1, 1]).await.unwrap();
    let cached = c.get_with(&both, ReadOptions::cached_only());
    counts("cached only", c, || cached, As::Hit, &[1, 0]).await.unwrap();
    counts("bypass", c, || c.get_with(&both, ReadOptions::bypass()), As::Miss, &[0, 0])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_read_that_loads_counts_once_whatever_it_finds() {
    let bench = Bench::new();
    let (cache, _below) = filled(&bench, Policy::default()).await;
    let c = &cache;
    let [both, below, stale] = ["a:both", "a:below", "a:stale"].map(key);
    let unknown = ["a:1", "a:2", "a:3", "a:4"].map(key);
    counts("in memory", c, || c.get_or_load(&both, never()), As::Hit, &[1, 0]).await.unwrap();
    counts("below", c, || c.get_or_load(&below, never()), As::Hit, &[1, 1]).await.unwrap();
    counts("loaded", c, || c.get_or_load(&unknown[0], bring("v")), As::Miss, &[1, 1])
        .await
        .unwrap();
    counts("failed", c, || c.get_or_load(&unknown[1], failing), As::Miss, &[1, 1])
        .await
        .unwrap_err();
    let panics = |_| async { panic!("a load's own fault") };
    counts("panics", c, || c.get_or_load(&unknown[2], panics), As::Miss, &[1, 1])
        .await
        .unwrap_err();
    counts("fallback", c, || c.get_or_load(&stale, failing), As::StaleHit, &[1, 1]).await.unwrap();
    counts("throttled", c, || c.get_or_load(&stale, never()), As::StaleHit, &[1, 1]).await.unwrap();
    let cached = |key| c.get_or_load_with(key, ReadOptions::cached_only(), never());
    counts("cached only", c, || cached(&both), As::Hit, &[1, 0]).await.unwrap();
    counts("not cached", c, || cached(&unknown[3]), As::Miss, &[1, 1]).await.unwrap_err();
    let bypass = c.get_or_load_with(&both, ReadOptions::bypass(), bring("v"));
    counts("bypass", c, || bypass, As::Miss, &[0, 0]).await.unwrap();
    let request = Request::new("o").param("n", 1);
    counts("a request", c, || c.request(&request), As::Miss, &[1, 1]).await.unwrap();
    counts("again", c, || c.request(&request), As::Hit, &[1, 0]).await.unwrap();
    let nowhere = Request::new("p");
    counts("without origin", c, || c.request(&nowhere), As::Miss, &[1, 1]).await.unwrap_err();
    assert_eq!(c.stats().loads, 6);
}

#[tokio::test]
async fn a_stale_hit_that_is_refreshed_behind_counts_once() {
    let bench = Bench::new();
    let policy =
        Policy::ttl(Duration::from_secs(10)).stale_while_revalidate(Duration::from_mins(1));
    let builder = bench.bare().tier(bench.memory()).default_policy(policy);
    let (cache, a) = (builder.build().unwrap(), key("a:1"));
    set(&cache, &a, "old").await;
    bench.advance(11_000);
    let load = |_| std::future::pending::<Result<Loaded, larder::OriginError>>();
    counts("stale", &cache, || cache.get_or_load(&a, load), As::StaleHit, &[1]).await.unwrap();
    counts("again", &cache, || cache.get_or_load(&a, never()), As::StaleHit, &[1]).await.unwrap();
    assert_eq!((cache.stats().refreshes, cache.stats().joined), (1, 0));
}

#[tokio::test]
async fn a_forced_refresh_counts_as_a_miss_and_asks_each_tier_once() {
    let bench = Bench::new();
    let (cache, _below) = filled(&bench, Policy::default()).await;
    let c = &cache;
    // The lower tier too has only what is not to be served: it may validate what is loaded.
    for (text, asks) in [("a:both", [1, 0]), ("a:none", [1, 1]), ("a:stale", [1, 1])] {
        let asked = key(text);
        let refresh = c.get_or_load_with(&asked, ReadOptions::refresh(), bring("v"));
        counts(text, c, || refresh, As::Miss, &asks).await.unwrap();
    }
}

#[tokio::test]
async fn a_read_that_leaves_out_a_tier_asks_each_other_once() {
    let bench = Bench::new();
    let (cache, _below) = filled(&bench, Policy::default()).await;
    let c = &cache;
    let none = key("a:none");
    for (skipped, asks) in [("memory", [0, 1]), ("below", [1, 0])] {
        let options = || ReadOptions::default().skip(skipped);
        let found = c.get_with(&key("a:both"), options()).await.unwrap();
        assert!(found.is_some(), "{skipped}");
        counts(skipped, c, || c.get_with(&none, options()), As::Miss, &asks).await.unwrap();
    }
}

#[tokio::test]
async fn a_read_with_a_policy_of_its_own_asks_each_tier_once() {
    let bench = Bench::new();
    let (cache, _below) = filled(&bench, Policy::default()).await;
    let c = &cache;
    bench.advance(5_000);
    // For this call what is older than a second is not fresh.
    let options = || {
        let patch = PolicyPatch::default().ttl(Duration::from_secs(1));
        ReadOptions::default().policy(patch)
    };
    let both = key("a:both");
    // The lower tier may have a newer one.
    counts("get", c, || c.get_with(&both, options()), As::Miss, &[1, 1]).await.unwrap();
    let load = c.get_or_load_with(&both, options(), bring("v"));
    counts("load", c, || load, As::Miss, &[1, 1]).await.unwrap();
}

#[tokio::test]
async fn each_read_of_a_batch_counts_once_and_a_batch_asks_each_tier_once_for_each_key() {
    let bench = Bench::new();
    let (cache, below) = filled(&bench, Policy::default()).await;
    let keys = ["a:both", "a:none", "a:below", "a:both", "a:none", "a:stale"].map(key);
    let (before, gets) = (asked(&cache), below.gets());
    let found = within(cache.get_many(&keys)).await.unwrap();
    let found: Vec<bool> = found.into_iter().map(|one| one.unwrap().is_some()).collect();
    assert_eq!(found, [true, false, true, true, false, false]);
    assert_eq!(reads(&cache), [3, 0, 3]);
    let more: Vec<u64> = asked(&cache).iter().zip(before).map(|(now, then)| now - then).collect();
    assert_eq!(more, [4, 3], "each distinct key once");
    assert_eq!(below.gets(), gets + 1, "all with one call");
}

#[tokio::test]
async fn a_read_in_strict_mode_that_ends_with_an_error_counts_as_a_miss() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.builder(&bench).strict(true).build().unwrap();
    below.chaos.down(true);
    let (c, a) = (&cache, key("a:1"));
    let answer = counts("get", c, || c.get(&a), As::Miss, &[1, 1]).await;
    assert!(matches!(answer, Err(Error::Tier(_))), "{answer:?}");
    counts("load", c, || c.get_or_load(&a, never()), As::Miss, &[1, 1]).await.unwrap_err();
}

#[tokio::test]
async fn a_read_in_strict_mode_that_fails_to_remove_what_is_dead_counts_too() {
    for loads in [false, true] {
        let (bench, a) = (Bench::new(), key("a:1"));
        let below = Below::new(&bench);
        let cache = below.builder(&bench).strict(true).build().unwrap();
        below.fails(Call::Inspect, larder::ErrorKind::Unavailable);
        let options = ReadOptions::purge_expired();
        let failed = if loads {
            within(cache.get_or_load_with(&a, options, bring("v"))).await.is_err()
        } else {
            within(cache.get_with(&a, options)).await.is_err()
        };
        assert!(failed);
        assert_eq!(reads(&cache), [0, 0, 1], "loads: {loads}");
    }
}

#[tokio::test]
async fn a_read_of_a_tier_that_fails_or_is_skipped_counts_it_as_asked() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.chaos.down(true);
    let (c, a) = (&cache, key("a:1"));
    for n in 0..8 {
        counts(&format!("read {n}"), c, || c.get(&a), As::Miss, &[1, 1]).await.unwrap();
    }
    let stats = tier_stats(c, "below");
    assert_eq!((stats.errors, stats.skipped, stats.not_found), (5, 3, 0));
}

#[tokio::test]
async fn offline_reads_count_once() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let unknown = ["a:1", "a:2"].map(key);
    set(&below.alone(&bench), &unknown[0], "v").await;
    let cache = below.builder(&bench).offline(true).build().unwrap();
    let c = &cache;
    counts("found", c, || c.get_or_load(&unknown[0], never()), As::Hit, &[1, 1]).await.unwrap();
    counts("missing", c, || c.get_or_load(&unknown[1], never()), As::Miss, &[1, 1])
        .await
        .unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_agree_when_many_read_at_once() {
    const TASKS: u64 = 4;
    const ROUNDS: u64 = 150;
    let bench = Bench::new();
    let (cache, _below) = filled(&bench, Policy::default()).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let cache = cache.clone();
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let at = key(&format!("a:{}", (task + round) % 7));
                match round % 4 {
                    0 => drop(cache.get(&at).await.unwrap()),
                    1 => drop(cache.get_or_load(&at, bring("v")).await.unwrap()),
                    2 if round % 3 == 0 => drop(cache.invalidate(&at).await.unwrap()),
                    2 => drop(cache.get_with(&at, ReadOptions::bypass()).await.unwrap()),
                    _ => drop(cache.get_many(&[at, key("a:both")]).await.unwrap()),
                }
            }
        });
    }
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
    let per_task: u64 = (0..ROUNDS)
        .map(|round| match round % 4 {
            2 if round % 3 == 0 => 0,
            0..=2 => 1,
            _ => 2,
        })
        .sum();
    assert_eq!(reads(&cache).iter().sum::<u64>(), TASKS * per_task);
    close(cache).await;
}

// "`inspect` ... change no counter, no recency and promote nothing."

#[tokio::test]
async fn looking_at_what_is_stored_changes_no_counter_and_promotes_nothing() {
    let bench = Bench::new();
    let (cache, _below) = filled(&bench, Policy::default()).await;
    let before = cache.stats();
    for filter in
        [Filter::all(), Filter::source("a"), Filter::prefix("a:both"), Filter::tag(tag("t"))]
    {
        within(cache.scan(&filter, None, 9)).await.unwrap();
    }
    assert_eq!(within(cache.list_keys(9)).await.unwrap().len(), 3);
    let usage = within(cache.usage()).await.unwrap();
    let entries: Vec<u64> =
        usage.into_iter().map(|(_, usage)| usage.unwrap().total().entries).collect();
    assert_eq!(entries, [2, 3]);
    assert_eq!(cache.stats(), before);
    assert!(cache.peek(&key("a:below")).is_none(), "nothing was promoted");
}

#[tokio::test]
async fn a_write_is_no_read() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    set(&cache, &a, "v").await;
    within(cache.set(&a, "", SetOptions::ttl(Duration::ZERO))).await.unwrap();
    within(cache.invalidate(&a)).await.unwrap();
    within(cache.expire(&a)).await.unwrap();
    within(cache.set_source_version("a", "2")).await.unwrap();
    within(cache.clear_expired()).await.unwrap();
    assert_eq!(reads(&cache), [0, 0, 0]);
    assert_eq!(cache.stats().hit_rate(), None);
    assert_eq!(fresh(&cache, &a).await, None);
    assert_eq!(cache.stats().hit_rate(), Some(0.0));
}
