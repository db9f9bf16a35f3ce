//! An entry is served only if it was loaded after the last invalidation that covers it.

use std::{sync::Arc, time::Duration};

use cache_core::{Stamp, Tier};
use larder::{Cache, Entry, Filter, Key, Loaded, PutOutcome, Request, ServedBy, SetOptions};
use tier_testkit::CountingOrigin;

use crate::harness::{Begun, Bench, bring, close, joined, key, load_gated, never, tag, within};

async fn set(cache: &Cache, key: &Key, value: &'static str, tags: &[&str]) {
    let options = tags.iter().fold(SetOptions::default(), |set, text| set.tag(tag(text)));
    within(cache.set(key, value, options)).await.unwrap();
}

/// The value that is stored.
async fn stored(cache: &Cache, key: &Key) -> Option<String> {
    let hit = within(cache.get(key)).await.unwrap();
    hit.map(|hit| String::from_utf8(hit.value().to_vec()).unwrap())
}

/// Ends a load with a value that has tags.
fn bring_tagged(begun: Begun, value: &'static str, tags: &[&str]) {
    let mut loaded = Loaded::new(value);
    loaded.tags = tags.iter().map(|text| tag(text)).collect();
    begun.end(Ok(loaded));
}

fn census_in(market: &str) -> Filter {
    Filter::source("census").and_tag(tag(market))
}

/// Entries of two sources and two markets, in every tier.
const ALL: [(&str, &str); 6] = [
    ("census:a", "co"),
    ("census:b", "ny"),
    ("census_acs:a", "co"),
    ("census_acs:b", "ny"),
    ("bls:a", "co"),
    ("census", "co"),
];

/// Sets [`ALL`], purges, and tells the keys that are left: as the chain sees them, and after a
/// restart.
async fn left_after(
    purge: impl AsyncFn(&Cache) -> larder::Removed,
    gone: u64,
) -> Vec<&'static str> {
    let bench = Bench::new();
    let cache = bench.cache();
    for (text, market) in ALL {
        set(&cache, &key(text), "v", &[market]).await;
    }
    let removed = purge(&cache).await;
    assert_eq!(removed.tiers, [("memory", Some(gone)), ("sqlite", Some(gone))]);
    assert_eq!(removed.entries(), gone);
    let left = async |cache: &Cache| {
        let mut left = Vec::new();
        for (text, _) in ALL {
            if stored(cache, &key(text)).await.is_some() {
                left.push(text);
            }
        }
        left
    };
    let now = left(&cache).await;
    close(cache).await;
    assert_eq!(left(&bench.cache()).await, now, "the same after a restart");
    now
}

#[tokio::test]
async fn invalidate_forgets_its_key_alone() {
    let left =
        left_after(async |cache| within(cache.invalidate(&key("census:a"))).await.unwrap(), 1);
    assert_eq!(left.await, ["census:b", "census_acs:a", "census_acs:b", "bls:a", "census"]);
}

#[tokio::test]
async fn a_purge_of_a_source_leaves_sources_whose_names_begin_alike() {
    let filter = Filter::source("census");
    let left = left_after(async |cache| within(cache.purge(&filter)).await.unwrap(), 3);
    assert_eq!(left.await, ["census_acs:a", "census_acs:b", "bls:a"]);
}

#[tokio::test]
async fn a_purge_of_a_tag_forgets_it_in_every_source() {
    let filter = Filter::tag(tag("co"));
    let left = left_after(async |cache| within(cache.purge(&filter)).await.unwrap(), 4);
    assert_eq!(left.await, ["census:b", "census_acs:b"]);
}

#[tokio::test]
async fn a_purge_of_a_source_and_a_tag_forgets_what_has_both() {
    let filter = census_in("co");
    let left = left_after(async |cache| within(cache.purge(&filter)).await.unwrap(), 2);
    assert_eq!(left.await, ["census:b", "census_acs:a", "census_acs:b", "bls:a"]);
}

#[tokio::test]
async fn a_purge_of_all_forgets_all() {
    let left = left_after(async |cache| within(cache.purge(&Filter::all())).await.unwrap(), 6);
    assert_eq!(left.await, [""; 0]);
}

#[tokio::test]
async fn a_tag_or_source_that_nothing_has_forgets_nothing() {
    for filter in [Filter::tag(tag("tx")), Filter::source("fred"), Filter::source("cens")] {
        let left = left_after(async |cache| within(cache.purge(&filter)).await.unwrap(), 0);
        assert_eq!(left.await.len(), ALL.len());
    }
}

#[tokio::test]
async fn a_purge_of_the_source_without_a_name_leaves_all_others() {
    let filter = Filter::source("");
    let left = left_after(async |cache| within(cache.purge(&filter)).await.unwrap(), 0);
    assert_eq!(left.await.len(), ALL.len());
}

#[tokio::test]
async fn invalidate_of_the_empty_key_leaves_all_others() {
    let left = left_after(async |cache| within(cache.invalidate(&Key::new(""))).await.unwrap(), 0);
    assert_eq!(left.await.len(), ALL.len());
}

#[tokio::test]
async fn an_entry_has_the_tags_of_its_latest_write_only() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &key, "old", &["co"]).await;
    set(&cache, &key, "new", &["ny"]).await;
    assert_eq!(within(cache.purge(&Filter::tag(tag("co")))).await.unwrap().entries(), 0);
    assert_eq!(stored(&cache, &key).await.as_deref(), Some("new"));
    assert_eq!(within(cache.purge(&Filter::tag(tag("ny")))).await.unwrap().entries(), 1);
    assert_eq!(stored(&cache, &key).await, None);
}

#[tokio::test]
async fn removals_are_counted_by_tier() {
    let bench = Bench::new();
    let below = bench.sqlite_only();
    set(&below, &key("census:a"), "v", &[]).await;
    set(&below, &key("census:b"), "v", &[]).await;
    close(below).await;
    let cache = bench.cache();
    // One of the two is in memory too.
    bench.advance(1);
    assert!(stored(&cache, &key("census:a")).await.is_some());
    let removed = within(cache.purge(&Filter::source("census"))).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(1)), ("sqlite", Some(2))]);
    assert_eq!(removed.entries(), 2);
    let again = within(cache.purge(&Filter::source("census"))).await.unwrap();
    assert_eq!(again.tiers, [("memory", Some(0)), ("sqlite", Some(0))]);
    let missing = within(cache.invalidate(&key("census:c"))).await.unwrap();
    assert_eq!(missing.tiers, [("memory", Some(0)), ("sqlite", Some(0))]);
}

#[tokio::test]
async fn what_is_set_or_loaded_after_an_invalidation_in_the_same_millisecond_is_served() {
    let (bench, a, b) = (Bench::new(), key("census:a"), key("census:b"));
    let cache = bench.cache();
    set(&cache, &a, "old", &["co"]).await;
    for filter in [Filter::all(), Filter::source("census"), Filter::tag(tag("co")), census_in("co")]
    {
        within(cache.purge(&filter)).await.unwrap();
        assert_eq!(stored(&cache, &a).await, None);
        set(&cache, &a, "new", &["co"]).await;
        assert_eq!(stored(&cache, &a).await.as_deref(), Some("new"));
    }
    within(cache.invalidate(&b)).await.unwrap();
    within(cache.get_or_load(&b, bring("loaded"))).await.unwrap();
    assert_eq!(stored(&cache, &b).await.as_deref(), Some("loaded"));
    close(cache).await;
    let cache = bench.cache();
    assert_eq!(stored(&cache, &a).await.as_deref(), Some("new"));
    assert_eq!(stored(&cache, &b).await.as_deref(), Some("loaded"));
}

/// A load under way when `purge` runs: its caller gets its value, which is not stored, and who
/// comes after the purge starts a load of his own.
async fn a_flight_does_not_survive(purge: impl AsyncFn(&Cache, &Key)) {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, early) = load_gated(&cache, &key);
    let old = gate.begun().await;
    purge(&cache, &key).await;

    let (gate, late) = load_gated(&cache, &key);
    let new = gate.begun().await;
    assert_eq!(cache.stats().joined, 0, "who comes after must not join");
    assert!(new.context.as_of > old.context.as_of);

    bring_tagged(old, "old", &["co"]);
    let hit = joined(early).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"old"[..], ServedBy::Origin));
    assert_eq!(stored(&cache, &key).await, None, "stored though invalidated");
    assert_eq!(cache.stats().not_stored, 1);

    bring_tagged(new, "new", &["co"]);
    assert_eq!(joined(late).await.unwrap().value(), "new");
    assert_eq!(stored(&cache, &key).await.as_deref(), Some("new"));
    close(cache).await;
    assert_eq!(stored(&bench.cache(), &key).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_flight_does_not_survive_an_invalidation_of_its_key() {
    a_flight_does_not_survive(async |cache, key| {
        within(cache.invalidate(key)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_flight_does_not_survive_a_purge_of_its_source() {
    a_flight_does_not_survive(async |cache, _| {
        within(cache.purge(&Filter::source("census"))).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_flight_does_not_survive_a_purge_of_a_tag_its_value_will_have() {
    a_flight_does_not_survive(async |cache, _| {
        within(cache.purge(&Filter::tag(tag("co")))).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_flight_does_not_survive_a_purge_of_its_source_with_a_tag_its_value_will_have() {
    a_flight_does_not_survive(async |cache, _| {
        within(cache.purge(&census_in("co"))).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_flight_does_not_survive_a_purge_of_all() {
    a_flight_does_not_survive(async |cache, _| {
        within(cache.purge(&Filter::all())).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_flight_is_joined_and_stored_when_something_else_is_invalidated() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, early) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    within(cache.invalidate(&Key::new("census:b"))).await.unwrap();
    within(cache.purge(&Filter::source("census_acs"))).await.unwrap();
    let (joining, asked) = (cache.clone(), key.clone());
    let late = tokio::spawn(async move { joining.get_or_load(&asked, never()).await });
    crate::harness::until(|| cache.stats().joined == 1).await;
    begun.bring("v");
    assert_eq!(joined(early).await.unwrap().value(), "v");
    assert_eq!(joined(late).await.unwrap().value(), "v");
    assert_eq!(stored(&cache, &key).await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_value_without_the_purged_tag_is_stored_though_the_tag_was_purged_in_mid_load() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    within(cache.purge(&Filter::tag(tag("ny")))).await.unwrap();
    within(cache.purge(&Filter::source("bls").and_tag(tag("co")))).await.unwrap();
    bring_tagged(begun, "v", &["co"]);
    joined(caller).await.unwrap();
    assert_eq!(stored(&cache, &key).await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_request_in_flight_is_not_stored_when_a_tag_of_the_request_is_purged() {
    let bench = Bench::new();
    let origin = Arc::new(CountingOrigin::default());
    let shared = Arc::<CountingOrigin>::clone(&origin);
    let cache = bench.builder().shared_origin("census", shared).build().unwrap();
    let request = Request::new("census").param("cbsa", 14500).tag(tag("co"));
    assert_eq!(within(cache.request(&request)).await.unwrap().value(), "census:cbsa=14500 #1");
    assert_eq!(within(cache.request(&request)).await.unwrap().value(), "census:cbsa=14500 #1");
    assert_eq!(within(cache.purge(&Filter::tag(tag("co")))).await.unwrap().entries(), 1);
    assert_eq!(within(cache.request(&request)).await.unwrap().value(), "census:cbsa=14500 #2");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_slow_old_load_does_not_overwrite_what_was_set_meanwhile() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, early) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    set(&cache, &key, "set", &[]).await;
    // Who comes after the set gets what was set, in mid load and after it.
    let late = within(cache.get_or_load(&key, never())).await.unwrap();
    assert_eq!(late.value(), "set");
    begun.bring("loaded");
    assert_eq!(joined(early).await.unwrap().value(), "loaded", "its waiters get its value");
    assert_eq!(stored(&cache, &key).await.as_deref(), Some("set"));
    close(cache).await;
    assert_eq!(stored(&bench.cache(), &key).await.as_deref(), Some("set"));
}

#[tokio::test]
async fn a_reader_after_a_set_sees_it_in_a_chain_that_is_slow_throughout() {
    // Without memory a reader looks inside the flight: it must not join the old one.
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.sqlite_only();
    let (gate, early) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    set(&cache, &key, "set", &[]).await;
    let late = within(cache.get_or_load(&key, never())).await.unwrap();
    assert_eq!((late.value().as_ref(), late.served_by()), (&b"set"[..], ServedBy::Tier("sqlite")));
    begun.bring("loaded");
    assert_eq!(joined(early).await.unwrap().value(), "loaded");
    assert_eq!(stored(&cache, &key).await.as_deref(), Some("set"));
}

#[tokio::test]
async fn a_set_that_is_invalidated_in_mid_load_is_not_replaced_by_the_older_load() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, early) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    set(&cache, &key, "set", &[]).await;
    within(cache.invalidate(&key)).await.unwrap();
    begun.bring("loaded");
    assert_eq!(joined(early).await.unwrap().value(), "loaded");
    assert_eq!(stored(&cache, &key).await, None);
    close(cache).await;
    assert_eq!(stored(&bench.cache(), &key).await, None);
}

#[tokio::test]
async fn a_load_under_way_does_not_bring_back_what_a_set_of_lifetime_zero_removed() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, early) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    within(cache.set(&key, "gone", SetOptions::ttl(Duration::ZERO))).await.unwrap();
    begun.bring("loaded");
    assert_eq!(joined(early).await.unwrap().value(), "loaded");
    assert_eq!(stored(&cache, &key).await, None, "older than the set that replaced it");
}

/// An entry of `census:a` with the tag `co`, loaded at `as_of`.
fn late_entry(as_of: Stamp) -> Entry {
    Entry::builder("late", as_of).tags([tag("co")]).build()
}

#[tokio::test]
async fn a_barrier_survives_a_restart_and_bars_a_late_fill() {
    for filter in [
        None,
        Some(Filter::source("census")),
        Some(Filter::tag(tag("co"))),
        Some(census_in("co")),
        Some(Filter::all()),
    ] {
        let (bench, key) = (Bench::new(), key("census:a"));
        let cache = bench.cache();
        let (gate, caller) = load_gated(&cache, &key);
        let begun = gate.begun().await;
        let as_of = begun.context.as_of;
        match &filter {
            None => within(cache.invalidate(&key)).await.unwrap(),
            Some(filter) => within(cache.purge(filter)).await.unwrap(),
        };
        begun.end(Err(crate::harness::failure("in vain")));
        assert!(joined(caller).await.is_err());
        close(cache).await;

        let reopened = bench.sqlite();
        let outcome = within(reopened.put(&key, &late_entry(as_of))).await.unwrap();
        assert_eq!(outcome, PutOutcome::Barred, "{filter:?}");
        assert!(within(reopened.get(&key)).await.unwrap().is_none());
        // Others, and what is loaded later, are not covered.
        let newer = Stamp::from_packed(as_of.packed() + 2);
        let outcome = within(reopened.put(&key, &late_entry(newer))).await.unwrap();
        assert_eq!(outcome, PutOutcome::Stored, "{filter:?}");
        if filter != Some(Filter::all()) {
            let other = Entry::builder("other", as_of).build();
            let outcome = within(reopened.put(&Key::new("census_acs:a"), &other)).await.unwrap();
            assert_eq!(outcome, PutOutcome::Stored, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn a_late_fill_from_another_process_is_barred_for_all_who_share_the_file() {
    let (bench, key) = (Bench::new(), key("census:a"));
    // Two processes, one file.
    let (loading, purging) = (bench.cache(), bench.cache());
    let (gate, caller) = load_gated(&loading, &key);
    let begun = gate.begun().await;
    bench.advance(1);
    within(purging.invalidate(&key)).await.unwrap();
    begun.bring("old");
    assert_eq!(joined(caller).await.unwrap().value(), "old");
    close(loading).await;
    assert_eq!(stored(&purging, &key).await, None);
    assert_eq!(stored(&bench.cache(), &key).await, None);
}

#[tokio::test]
async fn no_reader_sees_anything_older_than_an_invalidation_that_has_returned() {
    // Readers without end beside a writer that sets and invalidates: each read that began after
    // invalidation `n` returned must give a load that began after it.
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (floor, stop) = tokio::sync::watch::channel(Stamp::ZERO);
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (cache, key, floor) = (cache.clone(), key.clone(), stop.clone());
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while floor.has_changed().is_ok() {
                    let least = *floor.borrow();
                    let load = |_| async {
                        tokio::task::yield_now().await;
                        Ok(Loaded::new("loaded"))
                    };
                    let hit = cache.get_or_load(&key, load).await.unwrap();
                    let as_of = hit.entry().as_of();
                    assert!(as_of > least, "{as_of:?} is not after {least:?}");
                    reads += 1;
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    drop(stop);
    for n in 0..300 {
        if n % 3 == 0 {
            set(&cache, &key, "set", &["co"]).await;
        }
        // What is there now was loaded before.
        let before = within(cache.get(&key)).await.unwrap().map(|hit| hit.entry().as_of());
        match n % 4 {
            1 => within(cache.purge(&Filter::source("census"))).await.unwrap(),
            2 => within(cache.purge(&Filter::all())).await.unwrap(),
            _ => within(cache.invalidate(&key)).await.unwrap(),
        };
        if let Some(before) = before {
            let least = before.max(*floor.borrow());
            floor.send_replace(least);
        }
        tokio::task::yield_now().await;
    }
    drop(floor);
    for reader in readers {
        assert!(joined(reader).await > 0);
    }
}

#[tokio::test]
async fn a_set_wins_over_a_barrier_that_a_process_whose_clock_is_ahead_had_set() {
    // The file knows a barrier of a process whose clock is ahead.
    let (bench, key) = (Bench::new(), key("census:a"));
    let ahead = Bench::new();
    ahead.advance(60_000);
    let barrier = cache_core::Barrier::forget(
        larder::Selector::Key(key.clone()),
        Stamp::at(cache_core::Clock::now(&*ahead.clock)),
    );
    within(bench.sqlite().bar(&barrier)).await.unwrap();
    let cache = bench.sqlite_only();
    let outcome = within(cache.set(&key, "v", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().count(), 1, "{outcome:?}");
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "v");
}
