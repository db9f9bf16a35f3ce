//! Stamps and order: the clock behind `as_of` and barriers. What puts, invalidations and refreshes
//! make of it is in `ordering.rs` and `barriers.rs`.
//!
//! Not yet: stamps received from the journal and from Redis, and a clock steered to Redis `TIME`
//! (this version has neither).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cache_core::{StampClock, Timestamp};
use larder::{
    Barrier, Clock, Entry, Key, Loaded, Policy, PutOutcome, Selector, SetOptions, Stamp, Tier,
};
use tier_testkit::{Call, ManualClock};

use crate::{
    harness::{Bench, close, joined, key, load_gated, never, within},
    scene::soon,
    tools::{Below, as_of, fresh, set},
};

const HOUR: Duration = Duration::from_hours(1);

/// An entry of a process whose clock is ahead by `ahead`.
fn from_ahead(bench: &Bench, ahead: Duration) -> Entry {
    let now = bench.clock.now();
    Entry::builder("theirs", Stamp::at(now.saturating_add(ahead)))
        .loaded_at(now)
        .expires_at(now.saturating_add(HOUR))
        .build()
}

// "... stamps of one hybrid logical clock: 48 bits of Unix milliseconds, 16 bits of counter, packed
// in a `u64`."

#[test]
fn a_stamp_has_48_bits_of_milliseconds_and_16_of_counter() {
    let instant = Timestamp::from_millis(1_767_268_800_123);
    assert_eq!(Stamp::at(instant).packed(), 1_767_268_800_123 << 16);
    let last = Stamp::from_packed(Stamp::at(instant).packed() | 0xFFFF);
    assert_eq!(last.instant(), instant);
    assert_eq!(Stamp::from_packed(last.packed() + 1).instant().as_millis(), 1_767_268_800_124);
    assert_eq!(Stamp::at(Timestamp::from_millis(-1)), Stamp::ZERO);
}

#[tokio::test]
async fn the_stamp_of_an_entry_is_of_the_millisecond_it_was_set_in() {
    let bench = Bench::new();
    let cache = bench.cache();
    set(&cache, &key("a:1"), "v").await;
    assert_eq!(as_of(&cache, &key("a:1")).await.instant(), bench.clock.now());
}

#[tokio::test]
async fn entries_and_barriers_of_one_millisecond_are_ordered_by_one_clock() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let (cache, a) = (below.under_memory(&bench), key("a:1"));
    let mut stamps = Vec::new();
    for round in 0..50 {
        set(&cache, &a, "v").await;
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"), "round {round}");
        stamps.push(as_of(&cache, &a).await);
        within(cache.invalidate(&a)).await.unwrap();
        assert_eq!(fresh(&cache, &a).await, None, "round {round}");
        stamps.push(below.barriers().last().unwrap().stamp);
    }
    assert!(stamps.is_sorted_by(|one, next| one < next), "{stamps:?}");
    assert!(stamps.iter().all(|stamp| stamp.instant() == bench.clock.now()));
}

// "A process never issues the same or a smaller stamp twice, whatever the wall clock does ..."

#[test]
fn a_counter_that_is_full_goes_on_in_the_next_millisecond() {
    let wall = Arc::new(ManualClock::at(5));
    let clock = StampClock::new(Arc::<ManualClock>::clone(&wall));
    let mut last = clock.issue();
    for _ in 0..70_000 {
        let next = clock.issue();
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
    }
    assert_eq!(last.instant().as_millis(), 6);
    wall.set(7);
    assert_eq!(clock.issue(), Stamp::at(Timestamp::from_millis(7)));
}

#[tokio::test]
async fn a_set_wins_over_an_earlier_one_though_the_wall_clock_was_set_back() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    set(&cache, &a, "old").await;
    let old = as_of(&cache, &a).await;
    bench.clock.set(bench.clock.now().as_millis() - 3_600_000);
    set(&cache, &a, "new").await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"));
    assert!(as_of(&cache, &a).await > old);
    close(cache).await;
    assert_eq!(fresh(&bench.cache(), &a).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn an_invalidation_covers_what_is_there_though_the_wall_clock_was_set_back() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    set(&cache, &a, "old").await;
    bench.clock.set(bench.clock.now().as_millis() - 3_600_000);
    within(cache.invalidate(&a)).await.unwrap();
    assert_eq!(fresh(&cache, &a).await, None);
    close(cache).await;
    assert_eq!(fresh(&bench.cache(), &a).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_set_at_once_never_share_a_stamp() {
    const EACH: usize = 100;
    let bench = Bench::new();
    let cache = bench.memory_only();
    let tasks = [0, 1, 2, 3].map(|task| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let mut stamps = Vec::new();
            for n in 0..EACH {
                let key = key(&format!("a:{task}-{n}"));
                set(&cache, &key, "v").await;
                stamps.push(as_of(&cache, &key).await);
            }
            assert!(stamps.is_sorted_by(|one, next| one < next));
            stamps
        })
    });
    let mut all = BTreeSet::new();
    for task in tasks {
        all.extend(joined(task).await);
    }
    assert_eq!(all.len(), 4 * EACH);
}

#[tokio::test]
async fn two_chains_of_one_process_never_issue_the_same_stamp() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let (one, other) = (below.alone(&bench), below.alone(&bench));
    set(&one, &a, "first").await;
    let first = as_of(&one, &a).await;
    set(&other, &a, "second").await;
    assert!(as_of(&other, &a).await > first);
    assert_eq!(fresh(&other, &a).await.as_deref(), Some("second"));
}

// "... receiving a larger stamp (from the journal, a row, Redis) moves it forward."

#[tokio::test]
async fn a_set_wins_over_a_row_from_ahead_that_was_read() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let theirs = from_ahead(&bench, HOUR);
    within(below.tier().put(&a, &theirs)).await.unwrap();
    let cache = below.under_memory(&bench);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("theirs"));
    set(&cache, &a, "ours").await;
    assert!(as_of(&cache, &a).await > theirs.as_of());
    assert_eq!(below.inside(&a).await.unwrap().value(), "ours");
}

#[tokio::test]
async fn an_invalidation_covers_a_row_from_ahead_that_was_read() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    within(below.tier().put(&a, &from_ahead(&bench, HOUR))).await.unwrap();
    let cache = below.under_memory(&bench);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("theirs"));
    within(cache.invalidate(&a)).await.unwrap();
    assert_eq!(fresh(&cache, &a).await, None);
    assert_eq!(below.inside(&a).await, None);
}

#[tokio::test]
async fn a_set_and_an_invalidation_are_later_than_all_that_is_in_the_file_though_none_was_read() {
    let bench = Bench::new();
    let (a, b) = (key("a:1"), key("b:1"));
    let file = bench.sqlite();
    within(file.put(&a, &from_ahead(&bench, HOUR))).await.unwrap();
    within(file.put(&b, &from_ahead(&bench, HOUR))).await.unwrap();
    let cache = bench.cache();
    set(&cache, &a, "ours").await;
    assert_eq!(within(file.get(&a)).await.unwrap().unwrap().value(), "ours");
    let removed = within(cache.invalidate(&b)).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(0)), ("sqlite", Some(1))]);
}

#[tokio::test]
async fn a_load_is_later_than_a_barrier_from_ahead_that_is_in_the_file() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let file = bench.sqlite();
    let ahead = Stamp::at(bench.clock.now().saturating_add(HOUR));
    within(file.bar(&Barrier::forget(Selector::All, ahead))).await.unwrap();
    let cache = bench.cache();
    let load = |context: larder::LoadContext| async move {
        assert!(context.as_of > Stamp::ZERO);
        Ok(Loaded::new("v"))
    };
    within(cache.get_or_load(&a, load)).await.unwrap();
    close(cache).await;
    let stored = within(file.get(&a)).await.unwrap().unwrap();
    assert!(stored.as_of() > ahead);
}

// "Wall time is for TTLs and for showing to people."

#[tokio::test]
async fn lifetime_and_age_count_from_the_wall_clock_though_stamps_are_ahead_of_it() {
    let (bench, a) = (Bench::new(), key("a:1"));
    within(bench.sqlite().put(&key("b:1"), &from_ahead(&bench, HOUR))).await.unwrap();
    let cache = bench.cache();
    let options = SetOptions::ttl(Duration::from_secs(10));
    within(cache.set(&a, "v", options)).await.unwrap();
    bench.advance(9_999);
    let hit = within(cache.get(&a)).await.unwrap().unwrap();
    assert!(hit.entry().as_of() > Stamp::at(bench.clock.now()), "the stamp is ahead");
    assert_eq!(hit.age(), Duration::from_millis(9_999));
    assert_eq!(hit.fresh_for(), Duration::from_millis(1));
    bench.advance(1);
    assert_eq!(fresh(&cache, &a).await, None);
}

// "An entry's `as_of` is taken before its load starts; an explicit `set` takes it when called."

#[tokio::test]
async fn the_stamp_of_a_loaded_entry_is_from_before_the_load_and_its_lifetime_from_its_end() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let policy = Policy::ttl(Duration::from_secs(10));
    let cache = bench.builder().default_policy(policy).build().unwrap();
    let began = bench.clock.now();
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    let as_of = load.context.as_of;
    assert_eq!(as_of.instant(), began);
    bench.advance(5_000);
    load.bring("v");
    let hit = joined(caller).await.unwrap();
    assert_eq!(hit.entry().as_of(), as_of);
    assert_eq!(hit.entry().loaded_at(), bench.clock.now());
    assert_eq!(hit.fresh_for(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn the_stamp_of_a_set_is_of_its_call_however_long_tiers_take() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.hangs(Call::Put);
    let called = bench.clock.now();
    let setting = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.set(&a, "v", SetOptions::default()).await }
    });
    soon(|| below.chaos.hanging() == 1).await;
    bench.advance(5_000);
    below.chaos.heal();
    assert_eq!(joined(setting).await.unwrap().stored_in().count(), 2);
    assert_eq!(below.inside(&a).await.unwrap().as_of().instant(), called);
}

#[tokio::test]
async fn a_load_that_began_before_a_set_and_ends_after_it_is_older_than_it() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    bench.advance(1_000);
    set(&cache, &a, "set").await;
    bench.advance(1_000);
    load.bring("loaded");
    assert_eq!(joined(caller).await.unwrap().value(), "loaded");
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("set"));
    close(cache).await;
    let hit = within(bench.cache().get_or_load(&a, never())).await.unwrap();
    assert_eq!(hit.value(), "set");
}

#[tokio::test]
async fn a_put_that_comes_late_keeps_the_stamp_of_its_load() {
    // Whoever puts, the stamp is the load's: an entry of a slow process does not become newer.
    let bench = Bench::new();
    let a: Key = key("a:1");
    let file = bench.sqlite();
    let old = from_ahead(&bench, Duration::ZERO);
    bench.advance(60_000);
    let cache = bench.sqlite_only();
    set(&cache, &a, "new").await;
    assert_eq!(within(file.put(&a, &old)).await.unwrap(), PutOutcome::Superseded);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"));
}
