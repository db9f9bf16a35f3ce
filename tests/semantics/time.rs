//! "Time": how long a value is fresh, how long it is of use after that, and what of it is stored
//! where.

use std::{sync::Arc, time::Duration};

use larder::{
    Cache, Entry, Freshness, Loaded, Policy, ReadOptions, ServedBy, SetOptions, StaleReason, Stamp,
    Tier, TierOptions, Timestamp,
};

use crate::{
    harness::{Bench, bring, key, within},
    scene::{
        LOWER, MEMORY, Scene, count, fail, fail_later, give, ms, patch, settle, told, waited_for,
    },
};

fn later(instant: Timestamp, millis: u64) -> Timestamp {
    instant.saturating_add(ms(millis))
}

/// Instants that tell how long an entry lives.
fn limits(entry: &Entry) -> (Stamp, Timestamp, Timestamp, Timestamp) {
    (entry.as_of(), entry.loaded_at(), entry.expires_at(), entry.stale_until())
}

// "`ttl` -> fresh until `expires_at`."

#[tokio::test]
async fn a_value_is_fresh_for_its_ttl_and_not_a_millisecond_longer() {
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        let loaded = scene.have("v").await;
        assert_eq!(loaded.entry().expires_at(), later(loaded.at(), 100), "{scene}");
        scene.advance(99);
        assert!(scene.get().await.is_some(), "{scene}");
        scene.advance(1);
        assert!(scene.get().await.is_none(), "{scene}");
        assert_eq!(scene.ask(bring("w")).await.unwrap().served_by(), ServedBy::Origin, "{scene}");
    }
}

// "`stale_for` is extra time after that, until `stale_until`"

#[tokio::test]
async fn what_is_set_with_stale_for_is_stale_for_so_long_and_then_dead() {
    for scene in Scene::each(&Policy::default()) {
        let options = SetOptions::ttl(ms(100)).stale_for(ms(900));
        within(scene.cache.set(&scene.key, "v", options)).await.unwrap();
        let stale = ReadOptions::default().allow_stale();
        scene.advance(100);
        assert!(scene.get().await.is_none(), "{scene}: only who asks for stale values gets one");
        for millis in [0, 899] {
            scene.advance(millis);
            let hit = scene.get_with(stale.clone()).await.unwrap();
            assert_eq!(told(&hit), ("v", Some(StaleReason::Asked)), "{scene}");
        }
        scene.advance(1);
        assert!(scene.get_with(stale).await.is_none(), "{scene}");
        assert_eq!(scene.held().await.iter().flatten().count(), 0, "{scene}");
    }
}

#[tokio::test]
async fn what_is_loaded_with_stale_for_is_stale_for_so_long_and_then_dead() {
    // The loader's word beats the policy's.
    let policy = Policy::default().stale_if_error(ms(5_000));
    for scene in Scene::each(&policy) {
        let loaded = Loaded::new("v").ttl(ms(100)).stale_for(ms(900));
        scene.ask(give(Ok(loaded))).await.unwrap();
        scene.advance(999);
        let hit = scene.ask(fail()).await.unwrap();
        assert_eq!(told(&hit), ("v", Some(StaleReason::LoadFailed)), "{scene}");
        scene.advance(1);
        assert!(scene.ask(fail()).await.is_err(), "{scene}");
    }
}

// "(requested as `stale_if_error` and `stale_while_revalidate`, each its own length; the longer one
// is kept)"

#[tokio::test]
async fn the_longer_of_the_two_stale_lengths_is_kept() {
    for (revalidate, if_error) in [(200, 500), (500, 200)] {
        let policy = Policy::ttl(ms(100))
            .stale_while_revalidate(ms(revalidate))
            .stale_if_error(ms(if_error));
        for scene in Scene::each(&policy) {
            let hit = scene.have("v").await;
            let kept = hit.entry().stale_until();
            assert_eq!(kept, later(hit.entry().expires_at(), 500), "{scene}");
        }
    }
}

#[tokio::test]
async fn stale_while_revalidate_ends_before_a_longer_stale_if_error() {
    let policy = Policy::ttl(ms(100)).stale_while_revalidate(ms(200)).stale_if_error(ms(500));
    for scene in Scene::each(&policy.throttle(Duration::ZERO)) {
        scene.have("v").await;
        for (at, reason) in [
            (100, StaleReason::Revalidating),
            (299, StaleReason::Revalidating),
            (300, StaleReason::LoadFailed),
            (599, StaleReason::LoadFailed),
        ] {
            scene.bench.clock.set(1_767_268_800_000 + at);
            let hit = scene.ask(fail_later()).await.unwrap();
            assert_eq!(told(&hit), ("v", Some(reason)), "{scene}, {at} ms after the load");
            settle().await;
        }
        scene.advance(1);
        assert!(scene.ask(fail_later()).await.is_err(), "{scene}");
    }
}

#[tokio::test]
async fn stale_if_error_ends_before_a_longer_stale_while_revalidate() {
    let policy = Policy::ttl(ms(100)).stale_while_revalidate(ms(500)).stale_if_error(ms(200));
    for scene in Scene::each(&policy.throttle(Duration::ZERO)) {
        scene.have("v").await;
        let waits = patch(|patch| patch.stale_while_revalidate(Duration::ZERO));
        scene.advance(299);
        assert!(scene.ask_with(waits.clone(), fail_later()).await.is_ok(), "{scene}");
        scene.advance(1);
        assert!(scene.ask_with(waits, fail_later()).await.is_err(), "{scene}");
        let hit = scene.ask(fail_later()).await.unwrap();
        assert_eq!(told(&hit), ("v", Some(StaleReason::Revalidating)), "{scene}");
        settle().await;
    }
}

// "The stale limit counts from the original load and is never extended by serving or re-storing
// stale."

#[tokio::test]
async fn serving_what_is_stale_does_not_extend_its_limit() {
    let policy = Policy::ttl(ms(100)).stale_if_error(ms(900)).throttle(Duration::ZERO);
    for scene in Scene::each(&policy) {
        let original = limits(scene.have("v").await.entry());
        for _ in 0..9 {
            scene.advance(100);
            let hit = scene.ask(fail()).await.unwrap();
            assert_eq!(limits(hit.entry()), original, "{scene}");
            for held in scene.held().await {
                assert_eq!(limits(&held.unwrap()), original, "{scene}");
            }
        }
        scene.advance(99);
        assert!(scene.ask(fail()).await.is_ok(), "{scene}");
        scene.advance(1);
        assert!(scene.ask(fail()).await.is_err(), "{scene}");
    }
}

#[tokio::test]
async fn storing_what_is_stale_in_another_tier_does_not_extend_its_limit() {
    let policy = Policy::ttl(ms(100)).stale_if_error(ms(900)).throttle(Duration::ZERO);
    let scene = Scene::chain(&policy);
    let original = limits(scene.have("v").await.entry());
    let scene = scene.restarted(&policy);
    scene.advance(500);
    assert_eq!(scene.ask(fail()).await.unwrap().served_by(), LOWER);
    let copies: Vec<_> = scene.held().await.iter().flatten().map(limits).collect();
    assert_eq!(copies, [original, original], "promoted as it is");
    scene.advance(500);
    assert!(scene.ask(fail()).await.is_err());
}

#[tokio::test]
async fn a_value_made_stale_before_its_time_keeps_its_limit() {
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
        let original = limits(scene.have("v").await.entry());
        within(scene.cache.expire(&scene.key)).await.unwrap();
        let hit = scene.ask(fail()).await.unwrap();
        assert_eq!(limits(hit.entry()), original, "{scene}");
        scene.advance(1_000);
        assert!(scene.ask(fail()).await.is_err(), "{scene}");
    }
}

// "A promoted copy never outlives the copy below it: same `as_of`, `expires_at`, `stale_until` in
// every tier."

/// Memory over two tiers that have to be waited for.
fn three_tiers(bench: &Bench) -> Vec<Arc<dyn Tier>> {
    let (middle, lower) = (waited_for(bench, "middle"), waited_for(bench, "lower"));
    vec![Arc::new(bench.memory()), Arc::new(middle), Arc::new(lower)]
}

fn over(bench: &Bench, tiers: &[Arc<dyn Tier>], policy: &Policy) -> Cache {
    let bare = bench.bare().default_policy(policy.clone());
    let all = tiers.iter().fold(bare, |builder, tier| builder.shared_tier(Arc::clone(tier)));
    all.build().unwrap()
}

async fn held(tiers: &[Arc<dyn Tier>]) -> Vec<Entry> {
    let mut held = Vec::new();
    for tier in tiers {
        held.push(within(tier.get(&key("census:a"))).await.unwrap().unwrap());
    }
    held
}

#[tokio::test]
async fn what_is_loaded_has_the_same_limits_in_every_tier() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let tiers = three_tiers(&bench);
    let cache = over(&bench, &tiers, &Policy::ttl(ms(100)).stale_if_error(ms(900)));
    let hit = within(cache.get_or_load(&key, bring("v"))).await.unwrap();
    settle().await;
    for copy in held(&tiers).await {
        assert_eq!(&copy, hit.entry());
    }
}

#[tokio::test]
async fn what_is_promoted_late_has_the_limits_of_the_copy_below() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let tiers = three_tiers(&bench);
    let policy = Policy::ttl(ms(100)).stale_if_error(ms(900));
    let below = over(&bench, &tiers[2..], &policy);
    let loaded = within(below.get_or_load(&key, bring("v"))).await.unwrap();
    let cache = over(&bench, &tiers, &policy);
    bench.advance(99);
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().served_by(), LOWER);
    settle().await;
    for copy in held(&tiers).await {
        assert_eq!(&copy, loaded.entry());
    }
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().served_by(), MEMORY);
    bench.advance(1);
    assert!(within(cache.get(&key)).await.unwrap().is_none(), "not another 100 ms in memory");
    bench.advance(900);
    for tier in &tiers {
        assert!(within(tier.get(&key)).await.unwrap().is_none(), "{} still has it", tier.name());
    }
}

// "A tier may cap its own copies (`max_ttl`)."

fn capped(scene: &Scene, name: &str, policy: &Policy, max: Duration) -> larder::CacheBuilder {
    let bare = scene.bench.bare().policy("census", policy.clone());
    scene.tiers.iter().fold(bare, |builder, tier| {
        let options = TierOptions::default();
        let options = if tier.name() == name { options.max_ttl(max) } else { options };
        builder.shared_tier_with(Arc::clone(tier), options)
    })
}

#[tokio::test]
async fn a_tier_with_max_ttl_keeps_its_copy_no_longer_and_others_do() {
    let policy = Policy::ttl(ms(200)).stale_if_error(ms(800));
    let scene = Scene::chain(&policy).with(|scene| capped(scene, "memory", &policy, ms(50)));
    let loaded = scene.ask(bring("v")).await.unwrap();
    let [memory, lower] = <[_; 2]>::try_from(scene.held().await).unwrap().map(Option::unwrap);
    assert_eq!(limits(&lower), limits(loaded.entry()));
    // Dead then, not stale: it is to be asked for again below.
    let limit = later(loaded.at(), 50);
    assert_eq!((memory.expires_at(), memory.stale_until()), (limit, limit));
    assert_eq!(memory.as_of(), lower.as_of());
    scene.advance(49);
    assert_eq!(scene.get().await.unwrap().served_by(), MEMORY);
    scene.advance(1);
    assert_eq!(scene.get().await.unwrap().served_by(), LOWER);
    assert_eq!(scene.get().await.unwrap().served_by(), MEMORY, "promoted, for another 50 ms");
}

#[tokio::test]
async fn a_capped_copy_does_not_outlive_the_copy_below_either() {
    let policy = Policy::ttl(ms(200));
    let scene = Scene::chain(&policy).with(|scene| capped(scene, "memory", &policy, ms(50)));
    scene.ask(bring("v")).await.unwrap();
    scene.advance(190);
    assert_eq!(scene.get().await.unwrap().served_by(), LOWER);
    let held = scene.held().await;
    assert_eq!(held[0].as_ref().map(limits), held[1].as_ref().map(limits));
    scene.advance(10);
    assert!(scene.get().await.is_none());
}

#[tokio::test]
async fn a_lower_tier_may_be_capped_too_and_a_cap_lengthens_nothing() {
    let policy = Policy::ttl(ms(200));
    let scene = Scene::chain(&policy).with(|scene| capped(scene, "lower", &policy, ms(50)));
    scene.ask(bring("v")).await.unwrap();
    scene.advance(50);
    let held = scene.held().await;
    assert!(held[0].is_some() && held[1].is_none());
    assert_eq!(scene.get().await.unwrap().served_by(), MEMORY);
    let scene = Scene::memory(&policy).with(|scene| capped(scene, "memory", &policy, ms(500)));
    scene.ask(bring("v")).await.unwrap();
    scene.advance(200);
    assert!(scene.get().await.is_none());
}

// "Of two stale candidates in different tiers the newer serves."

/// Entries loaded 900 and 800 ms ago that are stale since 500 ms and for another 500.
fn old_and_new(bench: &Bench) -> [Entry; 2] {
    let now = larder::Clock::now(&*bench.clock).as_millis();
    let at = |millis| Timestamp::from_millis(now + millis);
    [("old", -900), ("new", -800)].map(|(value, loaded)| {
        let entry = Entry::builder(value, Stamp::at(at(loaded)));
        let entry = entry.expires_at(at(-500)).stale_until(at(500)).build();
        assert_eq!(entry.freshness(at(0)), Freshness::Stale);
        entry
    })
}

/// A chain of two tiers with these entries; `memory` says whether the upper one is memory.
async fn two_stale(memory: bool, newer_is_above: bool, policy: Policy, offline: bool) -> Cache {
    let bench = Bench::new();
    let upper: Arc<dyn Tier> =
        if memory { Arc::new(bench.memory()) } else { Arc::new(waited_for(&bench, "upper")) };
    let tiers = [upper, Arc::new(waited_for(&bench, "lower"))];
    let mut entries = old_and_new(&bench);
    if newer_is_above {
        entries.reverse();
    }
    for (tier, entry) in tiers.iter().zip(entries) {
        assert!(within(tier.put(&key("census:a"), &entry)).await.unwrap().is_stored());
    }
    let [upper, lower] = tiers;
    let builder = bench.bare().default_policy(policy).offline(offline);
    builder.shared_tier(upper).shared_tier(lower).build().unwrap()
}

const CASES: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

#[tokio::test]
async fn of_two_stale_values_the_newer_serves_when_a_load_fails() {
    for (memory, newer_is_above) in CASES {
        let policy = Policy::default().stale_if_error(ms(2_000));
        let cache = two_stale(memory, newer_is_above, policy, false).await;
        for reason in [StaleReason::LoadFailed, StaleReason::Throttled] {
            let hit = within(cache.get_or_load(&key("census:a"), fail())).await.unwrap();
            assert_eq!(told(&hit), ("new", Some(reason)), "{memory} {newer_is_above}");
        }
    }
}

#[tokio::test]
async fn of_two_stale_values_the_newer_serves_who_asks_for_stale_ones() {
    for (memory, newer_is_above) in CASES {
        let cache = two_stale(memory, newer_is_above, Policy::default(), false).await;
        let stale = ReadOptions::default().allow_stale();
        let hit = within(cache.get_with(&key("census:a"), stale)).await.unwrap().unwrap();
        assert_eq!(hit.value(), "new", "{memory} {newer_is_above}");
    }
}

#[tokio::test]
async fn of_two_stale_values_the_newer_serves_offline() {
    for (memory, newer_is_above) in CASES {
        let policy = Policy::default().stale_if_error(ms(2_000));
        let cache = two_stale(memory, newer_is_above, policy, true).await;
        let hit = within(cache.get_or_load(&key("census:a"), fail())).await.unwrap();
        assert_eq!(told(&hit), ("new", Some(StaleReason::Offline)), "{memory} {newer_is_above}");
    }
}

#[tokio::test]
async fn of_two_stale_values_the_newer_serves_while_it_is_refreshed() {
    // One that memory has is served at once, without a look at the others.
    for (memory, newer_is_above) in CASES.into_iter().filter(|(memory, newer)| !memory || *newer) {
        let policy = Policy::default().stale_while_revalidate(ms(2_000));
        let cache = two_stale(memory, newer_is_above, policy, false).await;
        let hit = within(cache.get_or_load(&key("census:a"), fail())).await.unwrap();
        let expected = ("new", Some(StaleReason::Revalidating));
        assert_eq!(told(&hit), expected, "memory above: {memory}, newer above: {newer_is_above}");
    }
}

#[tokio::test]
async fn of_two_stale_values_the_newer_is_what_a_load_may_validate() {
    for (memory, newer_is_above) in CASES {
        let cache = two_stale(memory, newer_is_above, Policy::default(), false).await;
        let load = |context: larder::LoadContext| async move {
            assert_eq!(context.stored.as_ref().unwrap().value(), "new");
            Ok(context.not_modified())
        };
        let hit = within(cache.get_or_load(&key("census:a"), load)).await.unwrap();
        assert_eq!(hit.value(), "new", "{memory} {newer_is_above}");
    }
}

#[tokio::test]
async fn what_is_fresh_below_beats_what_is_stale_above() {
    let scene = Scene::chain(&Policy::ttl(ms(100)).stale_while_revalidate(ms(900)));
    scene.have("old").await;
    scene.advance(200);
    let below = scene.bench.bare().shared_tier(Arc::clone(&scene.tiers[1])).build().unwrap();
    within(below.set(&scene.key, "new", SetOptions::default())).await.unwrap();
    let stale = ReadOptions::cached_only().allow_stale();
    let hit = scene.ask_with(stale, fail()).await.unwrap();
    assert_eq!(told(&hit), ("new", None));
    // Behind a stale hit, too, it is looked for below before it is loaded.
    let loads = crate::harness::Loads::default();
    scene.ask(count(&loads, "loaded")).await.unwrap();
    settle().await;
    assert_eq!((told(&scene.get().await.unwrap()), loads.count()), (("new", None), 0));
}
