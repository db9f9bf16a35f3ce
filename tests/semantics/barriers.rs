//! Stamps and order: nothing from before an invalidation is served after it, and no refresh brings
//! it back.

use std::time::Duration;

use larder::{Cache, Error, Filter, Loaded, Policy, PolicyPatch, ReadOptions, Request, SetOptions};
use tier_testkit::CountingOrigin;

use crate::{
    harness::{
        Begun, Bench, bring, close, failure, gated, joined, key, load_gated, never, tag, until,
        within,
    },
    tools::{Below, any, fresh, set, tier_stats},
};

/// The ways to forget `census:a`, which has the tag `co`.
const WAYS: [&str; 7] = ["key", "keys", "tag", "source", "prefix", "filter", "all"];

async fn forget(cache: &Cache, way: &str) {
    let a = key("census:a");
    let removed = match way {
        "key" => within(cache.invalidate(&a)).await,
        "keys" => within(cache.invalidate_many(&[a, key("census:z")])).await,
        "tag" => within(cache.invalidate_tag(&tag("co"))).await,
        "source" => within(cache.invalidate_source("census")).await,
        "prefix" => within(cache.purge(&Filter::prefix("census:a"))).await,
        "filter" => within(cache.purge(&Filter::source("census").and_tag(tag("co")))).await,
        _ => within(cache.clear()).await,
    };
    removed.unwrap();
}

fn bring_tagged(begun: Begun, value: &'static str) {
    begun.end(Ok(Loaded::new(value).tag(tag("co"))));
}

/// Stale values may be served whenever a load fails.
fn lenient(ttl: Duration) -> Policy {
    Policy::ttl(ttl).stale_if_error(Duration::from_hours(1)).throttle(Duration::ZERO)
}

// "After `invalidate`, `invalidate_tag`, `purge` or `clear` returns, no read in this process returns
// an entry loaded before it ..."

#[tokio::test]
async fn no_kind_of_read_returns_what_was_forgotten() {
    for way in WAYS {
        let (bench, a) = (Bench::new(), key("census:a"));
        let cache = bench.builder().default_policy(lenient(Duration::from_hours(1)));
        let cache = cache.build().unwrap();
        let options = SetOptions::default().tag(tag("co"));
        within(cache.set(&a, "7", options)).await.unwrap();
        forget(&cache, way).await;

        assert!(cache.peek(&a).is_none(), "{way}");
        assert_eq!(fresh(&cache, &a).await, None, "{way}");
        assert_eq!(any(&cache, &a).await, None, "{way}");
        assert_eq!(within(cache.get_as::<u8>(&a)).await.unwrap(), None, "{way}");
        let many = within(cache.get_many(&[a.clone(), a.clone()])).await.unwrap();
        assert!(many.into_iter().all(|found| found.unwrap().is_none()), "{way}");
        for skipped in ["memory", "sqlite"] {
            let options = ReadOptions::default().skip(skipped).allow_stale();
            assert!(within(cache.get_with(&a, options)).await.unwrap().is_none(), "{way}");
        }
        let options = ReadOptions::cached_only().allow_stale();
        let cached = within(cache.get_or_load_with(&a, options, never())).await;
        assert!(matches!(cached, Err(Error::NotCached { .. })), "{way}: {cached:?}");
        let failing = |context: larder::LoadContext| async move {
            assert_eq!(context.stored, None);
            Err(failure("down"))
        };
        let failed = within(cache.get_or_load(&a, failing)).await;
        assert!(matches!(failed, Err(Error::Origin(_))), "{way}: {failed:?}");
        assert_eq!(within(cache.list_keys(9)).await.unwrap(), [], "{way}");

        within(cache.get_or_load(&a, bring("8"))).await.unwrap();
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("8"), "{way}");
    }
}

#[tokio::test]
async fn a_request_is_loaded_anew_after_an_invalidation() {
    let bench = Bench::new();
    let builder = bench.builder().origin("census", CountingOrigin::default());
    let cache = builder.build().unwrap();
    let request = Request::new("census").param("cbsa", 14500).tag(tag("co"));
    assert_eq!(within(cache.request(&request)).await.unwrap().value(), "census:cbsa=14500 #1");
    within(cache.invalidate_tag(&tag("co"))).await.unwrap();
    assert_eq!(within(cache.request(&request)).await.unwrap().value(), "census:cbsa=14500 #2");
}

#[tokio::test]
async fn a_look_into_a_lower_tier_that_an_invalidation_overtakes_returns_and_promotes_nothing() {
    for way in WAYS {
        let (bench, a) = (Bench::new(), key("census:a"));
        let below = Below::new(&bench);
        let options = SetOptions::default().tag(tag("co"));
        within(below.alone(&bench).set(&a, "old", options)).await.unwrap();
        bench.advance(1);
        let cache = below.under_memory(&bench);
        below.hold_next_get();
        let asking = tokio::spawn({
            let (cache, a) = (cache.clone(), a.clone());
            async move { cache.get(&a).await }
        });
        below.held().await;
        forget(&cache, way).await;
        below.release();
        assert!(joined(asking).await.unwrap().is_none(), "{way}");
        assert!(cache.peek(&a).is_none(), "{way}");
        assert_eq!(cache.stats().promotions, 0, "{way}");
    }
}

#[tokio::test]
async fn who_asks_after_an_invalidation_does_not_share_a_look_from_before_it() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let below = Below::new(&bench);
    set(&below.alone(&bench), &a, "old").await;
    bench.advance(1);
    let cache = below.under_memory(&bench);
    below.hold_next_get();
    let early = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get(&a).await }
    });
    below.held().await;
    within(cache.invalidate(&a)).await.unwrap();
    // Would wait for ever for the one that is held.
    assert_eq!(fresh(&cache, &a).await, None);
    assert_eq!((below.gets(), cache.stats().joined), (2, 0));
    below.release();
    joined(early).await.unwrap();
}

// "... even one whose load is still in flight: the waiters of that load get its value, it is not
// stored."

#[tokio::test]
async fn a_load_in_flight_is_given_to_its_waiters_and_not_stored() {
    for way in WAYS {
        let (bench, a) = (Bench::new(), key("census:a"));
        let cache = bench.cache();
        let (gate, first) = load_gated(&cache, &a);
        let load = gate.begun().await;
        let second = tokio::spawn({
            let (cache, a) = (cache.clone(), a.clone());
            async move { cache.get_or_load(&a, never()).await }
        });
        until(|| cache.stats().joined == 1).await;
        forget(&cache, way).await;
        bring_tagged(load, "old");
        assert_eq!(joined(first).await.unwrap().value(), "old", "{way}");
        assert_eq!(joined(second).await.unwrap().value(), "old", "{way}");
        assert_eq!(any(&cache, &a).await, None, "{way}");
        assert_eq!(cache.stats().not_stored, 1, "{way}");
        close(cache).await;
        assert_eq!(any(&bench.cache(), &a).await, None, "{way}, after a restart");
    }
}

#[tokio::test]
async fn who_asks_after_an_invalidation_waits_for_a_load_of_his_own() {
    for way in WAYS {
        let (bench, a) = (Bench::new(), key("census:a"));
        let cache = bench.cache();
        let (gate, early) = load_gated(&cache, &a);
        let old = gate.begun().await;
        forget(&cache, way).await;
        let (gate, late) = load_gated(&cache, &a);
        let new = gate.begun().await;
        bring_tagged(new, "new");
        assert_eq!(joined(late).await.unwrap().value(), "new", "{way}");
        bring_tagged(old, "old");
        assert_eq!(joined(early).await.unwrap().value(), "old", "{way}");
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"), "{way}");
        assert_eq!(cache.stats().joined, 0, "{way}");
    }
}

#[tokio::test]
async fn a_stale_value_is_no_fallback_for_a_load_that_failed_after_its_invalidation() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let policy = lenient(Duration::from_secs(10));
    let cache = bench.builder().default_policy(policy).build().unwrap();
    set(&cache, &a, "old").await;
    bench.advance(11_000);
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    assert!(load.context.stored.is_some());
    within(cache.invalidate(&a)).await.unwrap();
    load.end(Err(failure("down")));
    let answer = joined(caller).await;
    assert!(matches!(answer, Err(Error::Origin(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_that_was_invalidated_does_not_stand_in_for_a_slow_load() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let policy = lenient(Duration::from_secs(10)).soft_timeout(Duration::from_secs(1));
    let builder = bench.bare().tier(bench.memory()).default_policy(policy);
    let cache = builder.build().unwrap();
    set(&cache, &a, "old").await;
    bench.advance(11_000);
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    within(cache.invalidate(&a)).await.unwrap();
    // Tokio's time, which runs ahead as soon as all others wait.
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.bring("new");
    assert_eq!(joined(caller).await.unwrap().value(), "new");
}

// "A refresh that finds its entry invalidated or replaced meanwhile is dropped: it neither
// resurrects nor overwrites."

/// A refresh under way of `census:a`, which is stale and served meanwhile, or soon to be.
async fn refreshing(bench: &Bench, cache: &Cache, ahead: bool) -> Begun {
    let a = key("census:a");
    within(cache.set(&a, "old", SetOptions::default().tag(tag("co")))).await.unwrap();
    bench.advance(if ahead { 6_000 } else { 11_000 });
    let (gate, caller) = load_gated(cache, &a);
    let hit = joined(caller).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.is_stale()), (&b"old"[..], !ahead));
    gate.begun().await
}

fn refreshed() -> Policy {
    let swr = Duration::from_hours(1);
    Policy::ttl(Duration::from_secs(10)).refresh_ahead(0.5).stale_while_revalidate(swr)
}

#[tokio::test]
async fn a_refresh_does_not_resurrect_what_was_invalidated_meanwhile() {
    for ahead in [false, true] {
        for way in WAYS {
            let (bench, a) = (Bench::new(), key("census:a"));
            let cache = bench.builder().default_policy(refreshed()).build().unwrap();
            let refresh = refreshing(&bench, &cache, ahead).await;
            forget(&cache, way).await;
            bring_tagged(refresh, "refreshed");
            until(|| cache.stats().not_stored == 1).await;
            assert_eq!(any(&cache, &a).await, None, "{way}");
            close(cache).await;
            assert_eq!(any(&bench.cache(), &a).await, None, "{way}, after a restart");
        }
    }
}

#[tokio::test]
async fn a_refresh_that_says_not_modified_does_not_resurrect_what_was_invalidated_meanwhile() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let cache = bench.builder().default_policy(refreshed()).build().unwrap();
    let refresh = refreshing(&bench, &cache, false).await;
    within(cache.invalidate(&a)).await.unwrap();
    let unchanged = refresh.context.not_modified();
    refresh.end(Ok(unchanged));
    until(|| cache.stats().not_stored == 1).await;
    assert_eq!(any(&cache, &a).await, None);
}

#[tokio::test]
async fn a_refresh_does_not_overwrite_what_was_set_meanwhile() {
    for ahead in [false, true] {
        let (bench, a) = (Bench::new(), key("census:a"));
        let cache = bench.builder().default_policy(refreshed()).build().unwrap();
        let refresh = refreshing(&bench, &cache, ahead).await;
        set(&cache, &a, "set").await;
        bring_tagged(refresh, "refreshed");
        until(|| tier_stats(&cache, "sqlite").superseded == 1).await;
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("set"));
        close(cache).await;
        assert_eq!(fresh(&bench.cache(), &a).await.as_deref(), Some("set"), "after a restart");
    }
}

#[tokio::test]
async fn a_refresh_does_not_overwrite_what_another_load_brought_meanwhile() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let cache = bench.builder().default_policy(refreshed()).build().unwrap();
    let refresh = refreshing(&bench, &cache, false).await;
    within(cache.invalidate(&a)).await.unwrap();
    within(cache.get_or_load(&a, bring("loaded"))).await.unwrap();
    bring_tagged(refresh, "refreshed");
    until(|| cache.stats().not_stored == 1).await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("loaded"));
}

#[tokio::test]
async fn a_refresh_does_not_resurrect_what_a_set_of_lifetime_zero_removed_meanwhile() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let cache = bench.builder().default_policy(refreshed()).build().unwrap();
    let refresh = refreshing(&bench, &cache, true).await;
    within(cache.set(&a, "gone", SetOptions::ttl(Duration::ZERO))).await.unwrap();
    bring_tagged(refresh, "refreshed");
    until(|| cache.stats().not_stored == 1).await;
    assert_eq!(any(&cache, &a).await, None);
}

#[tokio::test]
async fn a_refresh_does_not_overwrite_what_another_process_set_or_invalidated_meanwhile() {
    for invalidated in [false, true] {
        let (bench, a) = (Bench::new(), key("census:a"));
        let below = Below::new(&bench);
        let builder = below.builder(&bench).default_policy(refreshed());
        let (cache, other) = (builder.build().unwrap(), below.alone(&bench));
        let refresh = refreshing(&bench, &cache, false).await;
        bench.advance(1);
        if invalidated {
            within(other.invalidate(&a)).await.unwrap();
        } else {
            set(&other, &a, "theirs").await;
        }
        bring_tagged(refresh, "refreshed");
        until(|| {
            let stats = tier_stats(&cache, "below");
            (stats.superseded, stats.barred) == (u64::from(!invalidated), u64::from(invalidated))
        })
        .await;
        // Memory gives up what it took.
        until(|| cache.peek(&a).is_none()).await;
        let theirs = (!invalidated).then_some("theirs");
        assert_eq!(fresh(&other, &a).await.as_deref(), theirs);
        assert_eq!(fresh(&cache, &a).await.as_deref(), theirs);
    }
}

#[tokio::test]
async fn a_forced_refresh_is_dropped_for_an_invalidation_too_and_its_caller_gets_its_value() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &a, "old").await;
    let (gate, load) = gated();
    let caller = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get_or_load_with(&a, ReadOptions::refresh(), load).await }
    });
    let load = gate.begun().await;
    within(cache.invalidate(&a)).await.unwrap();
    load.bring("refreshed");
    assert_eq!(joined(caller).await.unwrap().value(), "refreshed");
    assert_eq!(any(&cache, &a).await, None);
}

#[tokio::test]
async fn a_policy_of_a_call_does_not_let_it_see_what_was_invalidated() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    set(&cache, &a, "old").await;
    within(cache.invalidate(&a)).await.unwrap();
    let patch = PolicyPatch::default().ttl(Duration::from_hours(9)).retroactive_ttl(false);
    let options = ReadOptions::default().policy(patch).allow_stale();
    assert!(within(cache.get_with(&a, options)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_set_that_an_invalidation_overtakes_stays_forgotten() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.hangs(tier_testkit::Call::Put);
    let setting = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.set(&a, "set", SetOptions::default()).await }
    });
    until(|| below.chaos.hanging() == 1).await;
    within(cache.invalidate(&a)).await.unwrap();
    below.chaos.heal();
    joined(setting).await.unwrap();
    assert_eq!(any(&cache, &a).await, None);
    assert_eq!(below.inside(&a).await, None);
    assert_eq!(tier_stats(&cache, "below").barred, 1);
}

#[tokio::test]
async fn of_a_batch_under_way_only_what_was_invalidated_is_not_stored() {
    let bench = Bench::new();
    let cache = bench.memory_only();
    let keys = ["a:1", "a:2", "a:3"].map(key);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let loading = tokio::spawn({
        let (cache, keys) = (cache.clone(), keys.clone());
        let load = move |contexts: Vec<larder::LoadContext>| async move {
            begun.send(()).unwrap();
            ended.await.unwrap();
            let answer = |context: larder::LoadContext| (context.key, Ok(Loaded::new("v")));
            Ok(contexts.into_iter().map(answer).collect())
        };
        async move { cache.get_or_load_many(&keys, load).await }
    });
    within(has_begun).await.unwrap();
    within(cache.invalidate(&keys[1])).await.unwrap();
    end.send(()).unwrap();
    for answer in joined(loading).await.unwrap() {
        assert_eq!(answer.unwrap().value(), "v");
    }
    for (key, stored) in keys.iter().zip([true, false, true]) {
        assert_eq!(any(&cache, key).await.is_some(), stored, "{key}");
    }
    assert_eq!(cache.stats().not_stored, 1);
}
