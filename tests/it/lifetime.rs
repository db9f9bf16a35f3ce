//! How long values live, to the millisecond.

use std::{sync::Arc, time::Duration};

use larder::{
    Cache, Entry, Filter, Key, Loaded, Policy, ReadOptions, ServedBy, SetOptions, Stamp, Tier,
    Timestamp, Ttl,
};

use crate::harness::{Bench, bring, close, key, load_gated, never, tag, within};

const MEMORY: ServedBy = ServedBy::Tier("memory");
const SQLITE: ServedBy = ServedBy::Tier("sqlite");

async fn set(cache: &Cache, key: &Key, ttl_millis: u64) {
    let options = SetOptions::ttl(Duration::from_millis(ttl_millis));
    within(cache.set(key, "v", options)).await.unwrap();
}

async fn served_by(cache: &Cache, key: &Key) -> Option<ServedBy> {
    within(cache.get(key)).await.unwrap().map(|hit| hit.served_by())
}

/// A load that brings `value` with a lifetime of its own.
fn with_ttl(
    value: &'static str,
    ttl: Ttl,
) -> impl FnOnce(larder::LoadContext) -> std::future::Ready<Result<Loaded, larder::OriginError>>
+ Send
+ 'static {
    move |_| {
        let mut loaded = Loaded::new(value);
        loaded.ttl = Some(ttl);
        std::future::ready(Ok(loaded))
    }
}

/// Entries that the tiers hold, dead ones too, in the order of the chain.
async fn held(cache: &Cache) -> Vec<u64> {
    let usage = within(cache.usage()).await.unwrap();
    usage.into_iter().map(|(_, usage)| usage.unwrap().total().entries).collect()
}

#[tokio::test]
async fn an_entry_in_memory_lives_until_exactly_its_last_millisecond() {
    for (after, found) in [(99, Some(MEMORY)), (100, None), (101, None)] {
        let (bench, key) = (Bench::new(), key("census:a"));
        let cache = bench.memory_only();
        set(&cache, &key, 100).await;
        bench.advance(after);
        assert_eq!(served_by(&cache, &key).await, found, "{after} ms after");
    }
}

#[tokio::test]
async fn an_entry_in_sqlite_lives_until_exactly_its_last_millisecond() {
    for (after, found) in [(99, Some(SQLITE)), (100, None), (101, None)] {
        let (bench, key) = (Bench::new(), key("census:a"));
        let cache = bench.sqlite_only();
        set(&cache, &key, 100).await;
        bench.advance(after);
        assert_eq!(served_by(&cache, &key).await, found, "{after} ms after");
    }
}

#[tokio::test]
async fn a_chain_loads_again_from_exactly_the_first_dead_millisecond() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, 100).await;
    bench.advance(99);
    assert_eq!(within(cache.get_or_load(&key, never())).await.unwrap().served_by(), MEMORY);
    bench.advance(1);
    assert_eq!(served_by(&cache, &key).await, None);
    let hit = within(cache.get_or_load(&key, bring("w"))).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"w"[..], ServedBy::Origin));
    assert_eq!(served_by(&cache, &key).await, Some(MEMORY));
}

#[tokio::test]
async fn an_entry_that_a_tier_still_holds_as_stale_is_no_hit() {
    // As another program that shares the tier may have stored it: fresh for 100 ms, stale for 900.
    let at = |millis: i64| Timestamp::from_millis(1_767_268_800_000 + millis);
    let as_of = Stamp::at(at(0));
    let entry = Entry::builder("v", as_of).expires_at(at(100)).stale_until(at(1_000)).build();
    let (bench, key) = (Bench::new(), key("census:a"));
    let tiers: [Arc<dyn Tier>; 2] = [Arc::new(bench.memory()), Arc::new(bench.sqlite())];
    for tier in tiers {
        bench.clock.set(at(0).as_millis());
        assert!(within(tier.put(&key, &entry)).await.unwrap().is_stored());
        let cache = bench.bare().shared_tier(Arc::clone(&tier)).build().unwrap();
        bench.advance(99);
        assert!(served_by(&cache, &key).await.is_some(), "{}", tier.name());
        bench.advance(1);
        assert!(within(tier.get(&key)).await.unwrap().is_some(), "the tier still has it");
        assert!(served_by(&cache, &key).await.is_none(), "{}", tier.name());
        let hit = within(cache.get_or_load(&key, bring("w"))).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Origin, "{}", tier.name());
    }
}

#[tokio::test]
async fn lifetimes_are_not_cut_to_whole_seconds() {
    let bench = Bench::new();
    for cache in [bench.memory_only(), bench.sqlite_only()] {
        let key = key("census:a");
        set(&cache, &key, 1_500).await;
        bench.advance(1_499);
        assert!(served_by(&cache, &key).await.is_some());
        bench.advance(1);
        assert!(served_by(&cache, &key).await.is_none());
    }
}

#[tokio::test]
async fn a_policy_of_the_source_beats_the_default_for_sets_and_loads() {
    let bench = Bench::new();
    let cache = bench
        .builder()
        .default_policy(Policy::ttl(Duration::from_millis(100)))
        .policy("bls", Policy::ttl(Duration::from_millis(300)))
        .build()
        .unwrap();
    for text in ["census:set", "bls:set", "bls_ces:set"] {
        within(cache.set(&key(text), "v", SetOptions::default())).await.unwrap();
    }
    for text in ["census:load", "bls:load", "bls_ces:load"] {
        within(cache.get_or_load(&key(text), bring("v"))).await.unwrap();
    }
    let start = 1_767_268_800_000;
    for (source, ttl) in [("census", 100), ("bls", 300), ("bls_ces", 100)] {
        for how in ["set", "load"] {
            let hit = within(cache.get(&key(&format!("{source}:{how}")))).await.unwrap().unwrap();
            let expires_at = Timestamp::from_millis(start + ttl);
            assert_eq!(hit.entry().expires_at(), expires_at, "{source}:{how}");
        }
    }
    bench.advance(100);
    assert!(served_by(&cache, &key("census:set")).await.is_none());
    assert!(served_by(&cache, &key("census:load")).await.is_none());
    bench.advance(199);
    assert!(served_by(&cache, &key("bls:set")).await.is_some());
    assert!(served_by(&cache, &key("bls:load")).await.is_some());
    bench.advance(1);
    assert!(served_by(&cache, &key("bls:set")).await.is_none());
    assert!(served_by(&cache, &key("bls:load")).await.is_none());
}

#[tokio::test]
async fn without_a_policy_values_live_for_thirty_days() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.get_or_load(&key, bring("v"))).await.unwrap();
    let month = 30 * 24 * 60 * 60 * 1_000;
    bench.advance(month - 1);
    assert!(served_by(&cache, &key).await.is_some());
    bench.advance(1);
    assert!(served_by(&cache, &key).await.is_none());
}

#[tokio::test]
async fn a_loads_own_lifetime_beats_the_policy() {
    let bench = Bench::new();
    let policy = Policy::ttl(Duration::from_millis(100));
    let cache = bench.builder().policy("census", policy).build().unwrap();
    let (short, long, ever) = (key("census:short"), key("census:long"), key("census:ever"));
    let millis = |n| Ttl::For(Duration::from_millis(n));
    within(cache.get_or_load(&short, with_ttl("v", millis(50)))).await.unwrap();
    within(cache.get_or_load(&long, with_ttl("v", millis(150)))).await.unwrap();
    within(cache.get_or_load(&ever, with_ttl("v", Ttl::Never))).await.unwrap();
    bench.advance(50);
    assert!(served_by(&cache, &short).await.is_none());
    bench.advance(99);
    assert!(served_by(&cache, &long).await.is_some());
    bench.advance(1);
    assert!(served_by(&cache, &long).await.is_none());
    assert!(served_by(&cache, &ever).await.is_some());
}

#[tokio::test]
async fn the_lifetime_of_a_load_counts_from_its_end() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let policy = Policy::ttl(Duration::from_millis(100));
    let cache = bench.builder().default_policy(policy).build().unwrap();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    bench.advance(60);
    begun.bring("v");
    assert_eq!(within(caller).await.unwrap().unwrap().value(), "v");
    bench.advance(99);
    assert!(served_by(&cache, &key).await.is_some());
    bench.advance(1);
    assert!(served_by(&cache, &key).await.is_none());
}

#[tokio::test]
async fn a_load_that_took_longer_than_its_lifetime_is_served_nevertheless() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let policy = Policy::ttl(Duration::from_millis(100));
    let cache = bench.builder().default_policy(policy).build().unwrap();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    bench.advance(100);
    begun.bring("v");
    assert_eq!(within(caller).await.unwrap().unwrap().value(), "v");
    assert!(served_by(&cache, &key).await.is_some());
}

#[tokio::test]
async fn a_set_of_lifetime_zero_is_not_stored_and_removes_what_is_there() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, 1_000).await;
    let outcome = within(cache.set(&key, "w", SetOptions::ttl(Duration::ZERO))).await.unwrap();
    assert_eq!(outcome.stored_in().count(), 0);
    let names: Vec<_> = outcome.tiers.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["memory", "sqlite"]);
    assert!(outcome.tiers.iter().all(|(_, r)| matches!(r, larder::PutReport::NotStored)));
    assert_eq!(served_by(&cache, &key).await, None);
    assert_eq!(held(&cache).await, [0, 0]);
    close(cache).await;
    assert_eq!(served_by(&bench.cache(), &key).await, None);
}

#[tokio::test]
async fn a_policy_of_lifetime_zero_stores_neither_sets_nor_loads() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let policy = Policy::ttl(Duration::ZERO);
    let cache = bench.builder().policy("census", policy).build().unwrap();
    within(cache.set(&key, "v", SetOptions::default())).await.unwrap();
    assert_eq!(served_by(&cache, &key).await, None);
    for value in ["a", "b"] {
        let hit = within(cache.get_or_load(&key, bring(value))).await.unwrap();
        assert_eq!((hit.value(), hit.served_by()), (&value.into(), ServedBy::Origin));
    }
    assert_eq!(served_by(&cache, &key).await, None);
    assert_eq!((cache.stats().loads, cache.stats().not_stored), (2, 2));
    assert_eq!(held(&cache).await, [0, 0]);
    // A call's own lifetime beats it.
    set(&cache, &key, 1).await;
    assert_eq!(served_by(&cache, &key).await, Some(MEMORY));
}

#[tokio::test]
async fn a_load_of_lifetime_zero_is_returned_and_not_stored() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let load = with_ttl("v", Ttl::For(Duration::ZERO));
    assert_eq!(within(cache.get_or_load(&key, load)).await.unwrap().value(), "v");
    assert_eq!(served_by(&cache, &key).await, None);
    assert_eq!(cache.stats().not_stored, 1);
    assert_eq!(held(&cache).await, [0, 0]);
}

#[tokio::test]
async fn a_load_of_lifetime_zero_removes_the_dead_entry_it_replaces() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, 10).await;
    bench.advance(10);
    let load = with_ttl("v", Ttl::For(Duration::ZERO));
    within(cache.get_or_load(&key, load)).await.unwrap();
    // It is removed behind the answer.
    assert!(within(cache.close(Duration::from_secs(10))).await.is_clean());
    let usage = within(larder::Inspect::usage(&bench.sqlite())).await.unwrap();
    assert_eq!(usage.total().entries, 0, "zero: don't store, and remove what is there");
}

#[tokio::test]
async fn a_load_of_lifetime_zero_leaves_a_value_that_was_set_meanwhile() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    set(&cache, &key, 1_000).await;
    let mut loaded = Loaded::new("late");
    loaded.ttl = Some(Ttl::For(Duration::ZERO));
    begun.end(Ok(loaded));
    within(caller).await.unwrap().unwrap();
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "v");
}

#[tokio::test]
async fn never_expires_never() {
    let bench = Bench::new();
    let cache = bench.builder().policy("census", Policy::forever()).build().unwrap();
    let (by_policy, by_call) = (key("census:a"), key("bls:a"));
    within(cache.set(&by_policy, "v", SetOptions::default())).await.unwrap();
    let mut options = SetOptions::default();
    options.ttl = Some(Ttl::Never);
    within(cache.set(&by_call, "v", options)).await.unwrap();
    bench.clock.set(i64::MAX - 1);
    for key in [by_policy, by_call] {
        let hit = within(cache.get(&key)).await.unwrap().unwrap();
        assert_eq!(hit.entry().expires_at(), Timestamp::NEVER);
        let below = bench.bare().tier(bench.sqlite()).policy("census", Policy::forever());
        let below = within(below.build().unwrap().get(&key)).await.unwrap().unwrap();
        assert_eq!(below.entry().expires_at(), Timestamp::NEVER);
    }
    assert_eq!(within(cache.clear_expired()).await.unwrap().entries(), 0);
}

#[tokio::test]
async fn clear_expired_removes_what_is_dead_and_counts_it_by_tier() {
    let bench = Bench::new();
    let cache = bench.cache();
    for (text, ttl) in [("census:a", 99), ("census:b", 100), ("census:c", 101)] {
        set(&cache, &key(text), ttl).await;
    }
    // One that only SQLite has.
    let below = bench.sqlite_only();
    set(&below, &key("census:d"), 1).await;
    bench.advance(100);
    let removed = within(cache.clear_expired()).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(2)), ("sqlite", Some(3))]);
    assert_eq!(removed.entries(), 3);
    assert_eq!(held(&cache).await, [1, 1]);
    assert_eq!(served_by(&cache, &key("census:c")).await, Some(MEMORY));
    assert_eq!(within(cache.clear_expired()).await.unwrap().entries(), 0);
}

#[tokio::test]
async fn a_get_that_bypasses_finds_nothing() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, 1_000).await;
    assert!(within(cache.get_with(&key, ReadOptions::bypass())).await.unwrap().is_none());
    assert_eq!(served_by(&cache, &key).await, Some(MEMORY), "it is still there");
}

#[tokio::test]
async fn a_load_that_bypasses_loads_each_time_and_stores_nothing() {
    let (bench, stored, missing) = (Bench::new(), key("census:a"), key("census:b"));
    let cache = bench.cache();
    set(&cache, &stored, 1_000).await;
    let bypass = ReadOptions::bypass();
    for key in [&stored, &missing, &stored, &missing] {
        let hit = within(cache.get_or_load_with(key, bypass.clone(), bring("w"))).await.unwrap();
        assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"w"[..], ServedBy::Origin));
    }
    assert_eq!(cache.stats().loads, 4);
    assert_eq!(within(cache.get(&stored)).await.unwrap().unwrap().value(), "v");
    assert!(served_by(&cache, &missing).await.is_none());
    assert_eq!(held(&cache).await, [1, 1]);
}

#[tokio::test]
async fn a_get_that_purges_removes_the_dead_entry_of_its_key_alone() {
    let bench = Bench::new();
    let cache = bench.cache();
    for text in ["census:a", "census:b"] {
        set(&cache, &key(text), 100).await;
    }
    bench.advance(100);
    assert_eq!(held(&cache).await, [2, 2]);
    let purge = ReadOptions::purge_expired();
    assert!(within(cache.get_with(&key("census:a"), purge)).await.unwrap().is_none());
    assert_eq!(held(&cache).await, [1, 1]);
    assert_eq!(within(cache.list_keys(9)).await.unwrap(), [key("census:b")]);
}

#[tokio::test]
async fn a_load_that_purges_removes_what_is_dead_and_stores_its_own() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, 100).await;
    bench.advance(100);
    let purge = ReadOptions::purge_expired();
    let load = |_| async { Err(crate::harness::failure("down")) };
    assert!(within(cache.get_or_load_with(&key, purge.clone(), load)).await.is_err());
    assert_eq!(held(&cache).await, [0, 0], "removed though the load failed");
    within(cache.get_or_load_with(&key, purge.clone(), bring("w"))).await.unwrap();
    let hit = within(cache.get_or_load_with(&key, purge.clone(), never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"w"[..], MEMORY));
}

#[tokio::test]
async fn reads_that_purge_leave_what_is_fresh() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, 100).await;
    bench.advance(99);
    let purge = ReadOptions::purge_expired();
    assert!(within(cache.get_with(&key, purge.clone())).await.unwrap().is_some());
    assert!(within(cache.get_or_load_with(&key, purge.clone(), never())).await.is_ok());
    assert_eq!(held(&cache).await, [1, 1]);
}

#[tokio::test]
async fn a_hit_of_a_load_that_purges_counts_as_one_read() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, 1_000).await;
    within(cache.get_or_load_with(&key, ReadOptions::purge_expired(), never())).await.unwrap();
    let stats = cache.stats();
    assert_eq!((stats.reads(), stats.hits), (1, 1), "{stats:?}");
    assert_eq!(stats.tier("memory").unwrap().found, 1);
}

#[tokio::test]
async fn a_miss_of_a_load_that_purges_asks_each_tier_once() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let purge = ReadOptions::purge_expired();
    within(cache.get_or_load_with(&key, purge.clone(), bring("v"))).await.unwrap();
    let stats = cache.stats();
    assert_eq!((stats.reads(), stats.misses, stats.loads), (1, 1, 1), "{stats:?}");
    let asked: Vec<_> = stats.tiers.iter().map(|tier| tier.found + tier.not_found).collect();
    assert_eq!(asked, [1, 1], "{stats:?}");
}

#[tokio::test]
async fn list_keys_gives_each_key_once_in_order_up_to_the_limit() {
    let bench = Bench::new();
    let cache = bench.cache();
    for text in ["census:c", "bls:a", "census:a", "census:b"] {
        set(&cache, &key(text), 1_000).await;
    }
    // Keys that one tier alone has.
    set(&bench.sqlite_only(), &key("census:aa"), 1_000).await;
    let keys = |texts: &[&str]| texts.iter().map(Key::new).collect::<Vec<_>>();
    let all = keys(&["bls:a", "census:a", "census:aa", "census:b", "census:c"]);
    assert_eq!(within(cache.list_keys(100)).await.unwrap(), all);
    for limit in 0..=all.len() {
        assert_eq!(within(cache.list_keys(limit)).await.unwrap(), all[..limit], "{limit}");
    }
    // What is listed is neither promoted nor counted.
    assert_eq!((cache.stats().promotions, cache.stats().reads()), (0, 0));
}

#[tokio::test]
async fn a_scan_goes_on_after_a_key_and_keeps_to_its_filter() {
    let bench = Bench::new();
    let cache = bench.cache();
    for (text, tags) in [
        ("census:a", vec!["co"]),
        ("census:b", vec!["ny"]),
        ("census:c", vec!["co", "ny"]),
        ("census_acs:a", vec!["co"]),
    ] {
        let options = tags.iter().fold(SetOptions::default(), |set, text| set.tag(tag(text)));
        within(cache.set(&key(text), "value", options)).await.unwrap();
    }
    let scan = async |filter: Filter, after: Option<&str>, limit| {
        let after = after.map(Key::new);
        let found = within(cache.scan(&filter, after.as_ref(), limit)).await.unwrap();
        found.into_iter().map(|one| one.key.as_str().to_owned()).collect::<Vec<_>>()
    };
    let census = Filter::source("census");
    assert_eq!(scan(census.clone(), None, 9).await, ["census:a", "census:b", "census:c"]);
    assert_eq!(scan(census.clone(), Some("census:a"), 1).await, ["census:b"]);
    assert_eq!(scan(census.clone().and_tag(tag("co")), None, 9).await, ["census:a", "census:c"]);
    assert_eq!(scan(Filter::tag(tag("co")), Some("census:c"), 9).await, ["census_acs:a"]);
    assert_eq!(scan(Filter::tag(tag("tx")), None, 9).await, [""; 0]);
}
