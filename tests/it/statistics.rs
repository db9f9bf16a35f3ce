//! Numbers: each read counts once, and every sum is exact, however many read at once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use larder::{
    Cache, Error, Filter, Loaded, ReadOptions, Request, ServedBy, SetOptions, Stats, TierStats,
    tiers::MemoryTier,
};
use tier_testkit::{CountingOrigin, ManualClock};
use tokio::task::JoinSet;

use crate::{
    harness::{Bench, bring, close, failure, joined, key, load_gated, never, tag, until, within},
    outage::{Chaos, Mode},
};

/// Counts of one tier.
fn tier(cache: &Cache, name: &str) -> TierStats {
    cache.stats().tier(name).unwrap().clone()
}

/// Counts of a tier, all zero but those that `change` sets.
fn counts(name: &'static str, change: impl FnOnce(&mut TierStats)) -> TierStats {
    let mut stats = TierStats::default();
    stats.name = name;
    change(&mut stats);
    stats
}

/// Hits and misses.
fn reads(cache: &Cache) -> (u64, u64) {
    let stats = cache.stats();
    assert_eq!(stats.reads(), stats.hits + stats.misses);
    assert_eq!(stats.hits, stats.tiers.iter().map(|tier| tier.served).sum::<u64>());
    (stats.hits, stats.misses)
}

/// Waits until the fills behind the answers have reached SQLite.
async fn stored(cache: &Cache, entries: u64) {
    until(|| tier(cache, "sqlite").stored == entries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_and_its_followers_count_one_miss_each_and_one_load_in_all() {
    const FOLLOWERS: u64 = 63;
    let bench = Bench::new();
    let cache = bench.cache();
    let a = key("a:1");
    let (gate, leader) = load_gated(&cache, &a);
    let load = gate.begun().await;
    let mut followers = JoinSet::new();
    for _ in 0..FOLLOWERS {
        let (cache, a) = (cache.clone(), a.clone());
        followers.spawn(async move { cache.get_or_load(&a, never()).await });
    }
    until(|| cache.stats().joined == FOLLOWERS).await;
    load.bring("v");
    assert_eq!(joined(leader).await.unwrap().served_by(), ServedBy::Origin);
    while let Some(follower) = within(followers.join_next()).await {
        assert_eq!(follower.unwrap().unwrap().served_by(), ServedBy::Origin);
    }
    stored(&cache, 1).await;

    let stats = cache.stats();
    let mut expected = Stats::default();
    (expected.misses, expected.loads, expected.joined) = (64, 1, 63);
    expected.tiers = vec![
        counts("memory", |memory| (memory.not_found, memory.stored) = (64, 1)),
        counts("sqlite", |sqlite| (sqlite.not_found, sqlite.stored) = (1, 1)),
    ];
    assert_eq!(stats, expected);
    assert_eq!(stats.hit_rate(), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_who_share_one_look_into_a_lower_tier_count_a_hit_each() {
    const READERS: u64 = 32;
    let bench = Bench::new();
    let (chaos, switches) = Chaos::new(&bench);
    let below: Arc<dyn larder::Tier> = Arc::new(chaos);
    let a = key("a:1");
    let other = bench.bare().shared_tier(Arc::clone(&below)).build().unwrap();
    within(other.set(&a, "v", SetOptions::default())).await.unwrap();

    let cache = bench.bare().tier(bench.memory()).shared_tier(below).build().unwrap();
    switches.gets(Mode::Held);
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (cache, a) = (cache.clone(), a.clone());
        readers.spawn(async move { cache.get_or_load(&a, never()).await });
    }
    switches.held().await;
    until(|| cache.stats().joined == READERS - 1).await;
    switches.release();
    while let Some(reader) = within(readers.join_next()).await {
        assert_eq!(reader.unwrap().unwrap().served_by(), ServedBy::Tier("chaos"));
    }
    assert_eq!(switches.get_calls(), 1);
    let stats = cache.stats();
    let mut expected = Stats::default();
    (expected.hits, expected.joined, expected.promotions) = (32, 31, 1);
    expected.tiers = vec![
        counts("memory", |memory| (memory.not_found, memory.stored) = (32, 1)),
        counts("chaos", |chaos| (chaos.served, chaos.found) = (32, 1)),
    ];
    assert_eq!(stats, expected);
    assert_eq!(stats.hit_rate(), Some(1.0));
}

#[tokio::test]
async fn each_kind_of_read_counts_once() {
    let bench = Bench::new();
    let cache = bench.builder().origin("o", CountingOrigin::default()).build().unwrap();
    let (a, gone) = (key("a:1"), key("a:gone"));
    within(cache.set(&a, r#"{"n": 1}"#, SetOptions::default())).await.unwrap();
    assert_eq!(reads(&cache), (0, 0), "a set is no read");

    within(cache.get(&a)).await.unwrap().unwrap();
    assert_eq!(reads(&cache), (1, 0), "get that finds");
    assert!(within(cache.get(&gone)).await.unwrap().is_none());
    assert_eq!(reads(&cache), (1, 1), "get that does not");

    within(cache.get_as::<serde_json::Value>(&a)).await.unwrap().unwrap();
    assert_eq!(reads(&cache), (2, 1), "get_as that finds");
    assert!(within(cache.get_as::<serde_json::Value>(&gone)).await.unwrap().is_none());
    assert_eq!(reads(&cache), (2, 2), "get_as that does not");
    assert!(matches!(within(cache.get_as::<u8>(&a)).await, Err(Error::TypeMismatch { .. })));
    assert_eq!(reads(&cache), (3, 2), "get_as that finds another type");

    within(cache.get_or_load(&a, never())).await.unwrap();
    assert_eq!(reads(&cache), (4, 2), "get_or_load that finds");
    within(cache.get_or_load(&key("a:2"), bring("v"))).await.unwrap();
    assert_eq!(reads(&cache), (4, 3), "get_or_load that loads");

    let request = Request::new("o").param("n", 1);
    within(cache.request(&request)).await.unwrap();
    assert_eq!(reads(&cache), (4, 4), "request that loads");
    within(cache.request(&request)).await.unwrap();
    assert_eq!(reads(&cache), (5, 4), "request that finds");
    let nowhere = Request::new("nowhere").param("n", 1);
    assert!(matches!(within(cache.request(&nowhere)).await, Err(Error::NoOrigin { .. })));
    assert_eq!(reads(&cache), (5, 5), "request without an origin");

    assert!(within(cache.get_with(&a, ReadOptions::bypass())).await.unwrap().is_none());
    assert_eq!(reads(&cache), (5, 6), "get past what is stored");
    within(cache.get_or_load_with(&a, ReadOptions::bypass(), bring("w"))).await.unwrap();
    assert_eq!(reads(&cache), (5, 7), "load past what is stored");
    within(cache.get_with(&a, ReadOptions::purge_expired())).await.unwrap().unwrap();
    assert_eq!(reads(&cache), (6, 7), "get that would remove what is dead");

    assert!(cache.peek(&a).is_some());
    assert_eq!(reads(&cache), (7, 7), "peek that finds");
    assert!(cache.peek(&gone).is_none());
    assert_eq!(reads(&cache), (7, 7), "peek that does not");

    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures, stats.not_stored), (3, 0, 0));
}

#[tokio::test]
async fn a_get_or_load_that_would_remove_what_is_dead_counts_once() {
    let bench = Bench::new();
    let cache = bench.cache();
    let a = key("a:1");
    let options = ReadOptions::purge_expired();
    within(cache.get_or_load_with(&a, options.clone(), bring("v"))).await.unwrap();
    assert_eq!(reads(&cache), (0, 1), "one that loads");
    within(cache.get_or_load_with(&a, options, never())).await.unwrap();
    assert_eq!(reads(&cache), (1, 1), "one that finds");
    let memory = tier(&cache, "memory");
    assert_eq!((memory.found, memory.not_found), (1, 1), "it was asked once a read");
}

#[tokio::test]
async fn a_load_that_fails_is_one_miss_one_load_and_one_failure() {
    let bench = Bench::new();
    let cache = bench.cache();
    let failing = |_| async { Err(failure("down")) };
    within(cache.get_or_load(&key("a:1"), failing)).await.unwrap_err();
    let panicking = |_| async { panic!("a load's own fault") };
    within(cache.get_or_load(&key("a:1"), panicking)).await.unwrap_err();
    let stats = cache.stats();
    assert_eq!(reads(&cache), (0, 2));
    assert_eq!((stats.loads, stats.load_failures, stats.not_stored), (2, 2, 0));
    assert_eq!((tier(&cache, "memory").stored, tier(&cache, "sqlite").stored), (0, 0));
}

#[tokio::test]
async fn tiers_count_what_they_found_and_what_they_stored() {
    let bench = Bench::new();
    let first = bench.cache();
    for n in 0..5 {
        within(first.get_or_load(&key(&format!("a:{n}")), bring("v"))).await.unwrap();
    }
    close(first).await;
    let cache = bench.cache();
    for _ in 0..3 {
        for n in 0..7 {
            within(cache.get(&key(&format!("a:{n}")))).await.unwrap();
        }
    }
    let stats = cache.stats();
    assert_eq!(reads(&cache), (15, 6));
    assert_eq!((stats.promotions, stats.loads), (5, 0));
    let memory = tier(&cache, "memory");
    assert_eq!((memory.served, memory.found, memory.not_found, memory.stored), (10, 10, 11, 5));
    let sqlite = tier(&cache, "sqlite");
    assert_eq!((sqlite.served, sqlite.found, sqlite.not_found, sqlite.stored), (5, 5, 6, 0));
}

#[tokio::test]
async fn an_older_value_that_a_look_brings_later_is_not_promoted() {
    let bench = Bench::new();
    let (chaos, switches) = Chaos::new(&bench);
    let below: Arc<dyn larder::Tier> = Arc::new(chaos);
    let a = key("a:1");
    let other = bench.bare().shared_tier(Arc::clone(&below)).build().unwrap();
    within(other.set(&a, "old", SetOptions::default())).await.unwrap();
    bench.advance(1);
    let cache = bench.bare().tier(bench.memory()).shared_tier(below).build().unwrap();
    switches.gets(Mode::Held);
    let asking = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get(&a).await }
    });
    switches.held().await;
    within(cache.set(&a, "new", SetOptions::default())).await.unwrap();
    switches.release();
    assert_eq!(joined(asking).await.unwrap().unwrap().value(), "old", "it asked before");
    let (memory, chaos) = (tier(&cache, "memory"), tier(&cache, "chaos"));
    assert_eq!((memory.stored, memory.superseded, memory.barred), (1, 0, 0));
    assert_eq!((chaos.stored, chaos.superseded, chaos.served), (1, 0, 1));
    assert_eq!(cache.stats().promotions, 0);
    assert_eq!(within(cache.get(&a)).await.unwrap().unwrap().value(), "new");
}

#[tokio::test]
async fn what_another_process_invalidated_during_the_load_counts_as_barred() {
    let bench = Bench::new();
    let (cache, other) = (bench.sqlite_only(), bench.sqlite_only());
    let a = key("a:1");
    let (gate, asking) = load_gated(&cache, &a);
    let load = gate.begun().await;
    bench.advance(1);
    within(other.invalidate(&a)).await.unwrap();
    load.bring("from before");
    joined(asking).await.unwrap();
    let sqlite = tier(&cache, "sqlite");
    assert_eq!((sqlite.stored, sqlite.superseded, sqlite.barred), (0, 0, 1));
    assert!(within(cache.get(&a)).await.unwrap().is_none());
}

#[tokio::test]
async fn what_this_process_invalidated_during_the_load_counts_as_not_stored() {
    let bench = Bench::new();
    let cache = bench.cache();
    let a = key("a:1");
    let (gate, asking) = load_gated(&cache, &a);
    let load = gate.begun().await;
    within(cache.invalidate(&a)).await.unwrap();
    load.bring("from before");
    joined(asking).await.unwrap();
    let stats = cache.stats();
    assert_eq!((stats.not_stored, stats.loads, stats.misses), (1, 1, 1));
    assert_eq!((tier(&cache, "memory").stored, tier(&cache, "sqlite").stored), (0, 0));
}

#[tokio::test]
async fn keys_and_lifetimes_that_allow_no_storing_count_as_not_stored() {
    let bench = Bench::new();
    let cache = bench.cache();
    let long = key(&format!("a:{}", "x".repeat(1_024)));
    for asked in [key(""), key("a:\u{7}"), long] {
        within(cache.get_or_load(&asked, bring("v"))).await.unwrap();
    }
    let fleeting = |_| async {
        let mut loaded = Loaded::new("v");
        loaded.ttl = Some(larder::Ttl::For(std::time::Duration::ZERO));
        Ok(loaded)
    };
    within(cache.get_or_load(&key("a:1"), fleeting)).await.unwrap();
    let stats = cache.stats();
    assert_eq!((stats.not_stored, stats.loads, stats.misses), (4, 4, 4));
    assert_eq!((tier(&cache, "memory").refused, tier(&cache, "sqlite").refused), (0, 0));
}

#[tokio::test]
async fn what_is_too_large_for_memory_counts_as_refused_there() {
    let bench = Bench::new();
    let memory = MemoryTier::with_clock(1 << 20, Arc::<ManualClock>::clone(&bench.clock));
    let cache = bench.bare().tier(memory).tier(bench.sqlite()).build().unwrap();
    let large = |_| async { Ok(Loaded::new(vec![b'x'; 2 << 20])) };
    within(cache.get_or_load(&key("a:1"), large)).await.unwrap();
    let hit = within(cache.get(&key("a:1"))).await.unwrap().unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
    let (memory, sqlite) = (tier(&cache, "memory"), tier(&cache, "sqlite"));
    assert_eq!((memory.stored, memory.refused), (0, 2), "once filled, once promoted");
    assert_eq!((sqlite.stored, sqlite.served), (1, 1));
    assert_eq!(cache.stats().promotions, 0);
}

#[tokio::test]
async fn looking_at_what_is_stored_changes_no_counter_and_promotes_nothing() {
    let bench = Bench::new();
    let first = bench.cache();
    for n in 0..10 {
        let options = SetOptions::default().tag(tag("t"));
        within(first.set(&key(&format!("a:{n}")), "v", options)).await.unwrap();
    }
    close(first).await;
    let cache = bench.cache();
    within(cache.get(&key("a:0"))).await.unwrap();
    let before = cache.stats();
    for filter in [Filter::all(), Filter::source("a"), Filter::tag(tag("t")), Filter::source("b")] {
        let found = within(cache.scan(&filter, None, 100)).await.unwrap();
        assert_eq!(found.len(), if filter == Filter::source("b") { 0 } else { 10 });
    }
    assert_eq!(within(cache.list_keys(4)).await.unwrap().len(), 4);
    assert_eq!(within(cache.list_keys(100)).await.unwrap().len(), 10);
    let usage = within(cache.usage()).await.unwrap();
    let entries: BTreeMap<_, _> =
        usage.into_iter().map(|(name, usage)| (name, usage.unwrap().total().entries)).collect();
    assert_eq!(entries, BTreeMap::from([("memory", 1), ("sqlite", 10)]), "nothing was promoted");
    assert_eq!(cache.stats(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sums_are_exact_when_all_kinds_of_reads_run_at_once() {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 200;
    let bench = Bench::new();
    let origin = Arc::new(CountingOrigin::default());
    let shared: Arc<dyn larder::Origin> = Arc::<CountingOrigin>::clone(&origin);
    let cache = bench.builder().shared_origin("o", shared).build().unwrap();
    let loads = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        tasks.spawn(async move {
            let (mut found, mut missed) = (0, 0);
            for round in 0..ROUNDS {
                let n = (task * 7 + round * 3) % 10;
                let (a, request) = (key(&format!("a:{n}")), Request::new("o").param("n", n));
                let loads = Arc::clone(&loads);
                let load = move |_| async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok(Loaded::new("7"))
                };
                let from_a_tier = match round % 7 {
                    0 => cache.get(&a).await.unwrap().is_some(),
                    1 => cache.get_as::<u64>(&a).await.unwrap().is_some(),
                    2 => cache.request(&request).await.unwrap().served_by() != ServedBy::Origin,
                    3 => cache.get_with(&a, ReadOptions::bypass()).await.unwrap().is_some(),
                    4 if round % 5 == 0 => {
                        cache.invalidate(&a).await.unwrap();
                        cache.get(&a).await.unwrap().is_some()
                    }
                    _ => cache.get_or_load(&a, load).await.unwrap().served_by() != ServedBy::Origin,
                };
                if from_a_tier { found += 1 } else { missed += 1 }
            }
            (found, missed)
        });
    }
    let (mut found, mut missed) = (0, 0);
    while let Some(task) = within(tasks.join_next()).await {
        let (more_found, more_missed) = task.unwrap();
        found += more_found;
        missed += more_missed;
    }
    assert_eq!(found + missed, TASKS * ROUNDS);
    assert_eq!(reads(&cache), (found, missed));
    close(cache.clone()).await;

    let stats = cache.stats();
    assert_eq!(stats.loads, loads.load(Ordering::SeqCst) + origin.calls());
    assert_eq!((stats.load_failures, tier(&cache, "sqlite").errors), (0, 0));
    let (memory, sqlite) = (tier(&cache, "memory"), tier(&cache, "sqlite"));
    let bypassed = TASKS * (0..ROUNDS).filter(|round| round % 7 == 3).count() as u64;
    assert_eq!(memory.found + memory.not_found, stats.reads() - bypassed, "memory is asked once");
    // It may have it when a read that has waited looks again, which is not counted as asking.
    let second_looks = memory.served - memory.found;
    // A look that others share asks once for all; where it finds the value in memory, each of them is
    // one that joined and one that memory served.
    let looks = memory.not_found - stats.joined;
    let asked = sqlite.found + sqlite.not_found;
    assert!(
        (looks - second_looks..=looks).contains(&asked),
        "SQLite is asked once a look: {asked}"
    );
    let fills = stats.loads - stats.not_stored;
    assert_eq!(sqlite.stored + sqlite.superseded + sqlite.barred, fills);
    assert!(stats.promotions <= memory.stored);
}

#[tokio::test]
async fn nothing_read_has_no_hit_rate() {
    let bench = Bench::new();
    let cache = bench.cache();
    assert_eq!(cache.stats().hit_rate(), None);
    assert_eq!(cache.stats().tier("redis"), None);
}
