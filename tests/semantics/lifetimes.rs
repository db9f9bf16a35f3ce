//! "Time": which lifetime a value gets, by its policy, its loader or its call, and what a changed
//! policy makes of what is stored.

use std::{collections::HashSet, sync::Arc, time::Duration};

use larder::{
    BuildError, Error, Key, LoadContext, Loaded, Policy, PolicyPatch, ReadOptions, SetOptions,
    StaleReason, Timestamp, Ttl,
};

use crate::{
    harness::{Bench, Loads, bring, gated, joined, key, never, within},
    scene::{Scene, count, fail, give, ms, patch, settle, told},
};

/// For how long values are fresh that are loaded one by one just now.
async fn lifetimes(scene: &Scene, count: u64) -> Vec<u64> {
    let mut all = Vec::new();
    for n in 0..count {
        let key = key(&format!("census:{n}"));
        let hit = within(scene.cache.get_or_load(&key, bring("v"))).await.unwrap();
        all.push(u64::try_from(hit.fresh_for().as_millis()).unwrap());
    }
    all
}

// "Milliseconds everywhere; no truncation to seconds."

#[tokio::test]
async fn lifetimes_are_kept_to_the_millisecond_in_memory_and_in_sqlite() {
    for millis in [1, 999, 1_001, 1_500] {
        let bench = Bench::new();
        for cache in [bench.memory_only(), bench.sqlite_only(), bench.cache()] {
            let options = SetOptions::ttl(ms(millis)).stale_for(ms(millis));
            within(cache.set(&key("census:a"), "v", options)).await.unwrap();
            bench.advance(millis - 1);
            let hit = within(cache.get(&key("census:a"))).await.unwrap().unwrap();
            assert_eq!((hit.fresh_for(), hit.age()), (ms(1), ms(millis - 1)));
            bench.advance(1);
            assert!(within(cache.get(&key("census:a"))).await.unwrap().is_none(), "{millis}");
            let stale = ReadOptions::default().allow_stale();
            bench.advance(millis - 1);
            let hit = within(cache.get_with(&key("census:a"), stale.clone())).await.unwrap();
            assert!(hit.is_some(), "{millis}");
            bench.advance(1);
            let hit = within(cache.get_with(&key("census:a"), stale)).await.unwrap();
            assert!(hit.is_none(), "{millis}");
        }
    }
}

// "TTL zero: don't store, and remove what is there."

#[tokio::test]
async fn a_set_with_ttl_zero_removes_what_is_there() {
    for scene in Scene::each(&Policy::default().stale_if_error(ms(900))) {
        scene.have("old").await;
        let options = SetOptions::ttl(Duration::ZERO);
        let outcome = within(scene.cache.set(&scene.key, "new", options)).await.unwrap();
        assert_eq!(outcome.stored_in().count(), 0, "{scene}");
        assert_eq!(scene.held().await.iter().flatten().count(), 0, "{scene}");
        assert!(scene.ask(fail()).await.is_err(), "{scene}: nothing stale is left either");
    }
}

#[tokio::test]
async fn a_load_under_a_policy_of_ttl_zero_is_returned_not_stored_and_removes_what_is_there() {
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
        scene.have("old").await;
        scene.advance(100);
        let zero = patch(|patch| patch.ttl(Duration::ZERO));
        let hit = scene.ask_with(zero, bring("new")).await.unwrap();
        assert_eq!((told(&hit), hit.fresh_for()), (("new", None), Duration::ZERO), "{scene}");
        settle().await;
        assert_eq!(scene.held().await.iter().flatten().count(), 0, "{scene}");
        assert_eq!(scene.cache.stats().not_stored, 1, "{scene}");
        let scene = scene.restarted(&Policy::ttl(Duration::ZERO));
        let loads = Loads::default();
        for n in 1..=2 {
            scene.ask(count(&loads, "v")).await.unwrap();
            assert_eq!(loads.count(), n, "{scene}: each call loads");
        }
    }
}

#[tokio::test]
async fn a_loader_that_says_ttl_zero_has_its_value_returned_and_what_is_there_removed() {
    // Less than a millisecond is zero.
    for ttl in [Duration::ZERO, Duration::from_micros(999)] {
        for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
            scene.have("old").await;
            scene.advance(50);
            let load = give(Ok(Loaded::new("new").ttl(ttl)));
            let hit = scene.ask_with(ReadOptions::refresh(), load).await.unwrap();
            assert_eq!(hit.value(), "new");
            settle().await;
            assert!(scene.get().await.is_none(), "{scene}");
            assert!(scene.ask(fail()).await.is_err(), "{scene}");
        }
    }
}

#[tokio::test]
async fn a_load_with_ttl_zero_removes_what_is_in_a_tier_that_was_left_out_too() {
    let scene = Scene::chain(&Policy::default());
    scene.have("old").await;
    within(scene.tiers[1].remove(&scene.key)).await.unwrap();
    let load = give(Ok(Loaded::new("new").ttl(Duration::ZERO)));
    scene.ask_with(ReadOptions::default().skip("memory"), load).await.unwrap();
    settle().await;
    assert!(scene.get().await.is_none());
}

// "`never` expires never (and survives jitter arithmetic)."

#[tokio::test]
async fn never_expires_never_whatever_is_reckoned_with_it() {
    let policy = Policy::forever()
        .jitter(1.0)
        .stale_if_error(Duration::MAX)
        .stale_while_revalidate(ms(500))
        .refresh_ahead(0.5);
    for scene in Scene::each(&policy) {
        let hit = scene.have("v").await;
        let entry = hit.entry();
        assert_eq!((entry.expires_at(), entry.stale_until()), (Timestamp::NEVER, Timestamp::NEVER));
        scene.bench.clock.set(i64::MAX - 1);
        let loads = Loads::default();
        assert_eq!(told(&scene.ask(count(&loads, "w")).await.unwrap()), ("v", None), "{scene}");
        settle().await;
        assert_eq!(loads.count(), 0, "{scene}: it is never time for a refresh");
    }
}

#[tokio::test]
async fn a_set_a_load_and_a_call_may_say_never() {
    let policy = Policy::ttl(ms(100)).jitter(0.5);
    for scene in Scene::each(&policy) {
        let [by_set, by_load, by_call] = ["census:s", "census:l", "census:c"].map(Key::new);
        let options = SetOptions::ttl(Ttl::Never);
        within(scene.cache.set(&by_set, "v", options)).await.unwrap();
        let loaded = Loaded::new("v").ttl(Ttl::Never);
        within(scene.cache.get_or_load(&by_load, give(Ok(loaded)))).await.unwrap();
        let call = patch(|patch| patch.ttl(Ttl::Never));
        within(scene.cache.get_or_load_with(&by_call, call, bring("v"))).await.unwrap();
        scene.bench.clock.set(i64::MAX - 1);
        for key in [by_set, by_load, by_call] {
            assert!(within(scene.cache.get(&key)).await.unwrap().is_some(), "{scene}: {key}");
        }
    }
}

// "`jitter: 10%` shortens a TTL by up to that share, never lengthens it"

#[tokio::test]
async fn jitter_shortens_lifetimes_by_up_to_its_share_and_lengthens_none() {
    let scene = Scene::memory(&Policy::ttl(ms(100_000)).jitter(0.1));
    let all = lifetimes(&scene, 400).await;
    assert!(all.iter().all(|millis| (90_000..=100_000).contains(millis)), "{all:?}");
    // The whole of the share is used, and evenly.
    let below = |limit| all.iter().filter(|millis| **millis < limit).count();
    let quarters = [below(92_500), below(95_000), below(97_500)];
    for (count, expected) in quarters.into_iter().zip([100_usize, 200, 300]) {
        assert!(count.abs_diff(expected) < 50, "{quarters:?}");
    }
    let distinct: HashSet<_> = all.iter().collect();
    assert!(distinct.len() > 300, "{} different lifetimes", distinct.len());
}

#[tokio::test]
async fn without_jitter_lifetimes_are_exact_and_with_all_of_it_none_is_zero() {
    assert_eq!(lifetimes(&Scene::memory(&Policy::ttl(ms(100))), 20).await, [100; 20]);
    let all = lifetimes(&Scene::memory(&Policy::ttl(ms(3)).jitter(1.0)), 200).await;
    assert!(all.iter().all(|millis| (1..=3).contains(millis)), "zero would not be stored");
}

#[tokio::test]
async fn jitter_holds_for_what_is_set_and_for_the_answer_that_there_is_none() {
    let policy = Policy::ttl(ms(100_000)).negative_ttl(ms(100_000)).jitter(0.1);
    let scene = Scene::memory(&policy);
    let mut all = Vec::new();
    for n in 0..100 {
        let (set, absent) = (key(&format!("census:s{n}")), key(&format!("census:a{n}")));
        within(scene.cache.set(&set, "v", SetOptions::default())).await.unwrap();
        within(scene.cache.get_or_load(&absent, give(Ok(Loaded::absent())))).await.unwrap();
        for key in [set, absent] {
            let hit = within(scene.cache.get(&key)).await.unwrap().unwrap();
            all.push(hit.fresh_for().as_millis());
        }
    }
    assert!(all.iter().all(|millis| (90_000..=100_000).contains(millis)), "{all:?}");
    assert!(all.iter().any(|millis| *millis < 92_000) && all.iter().any(|one| *one > 98_000));
}

#[tokio::test]
async fn what_one_batch_brings_does_not_expire_together_under_jitter() {
    let scene = Scene::memory(&Policy::ttl(ms(100_000)).jitter(0.1));
    let keys: Vec<Key> = (0..50).map(|n| key(&format!("census:{n}"))).collect();
    let load = |asked: Vec<LoadContext>| async {
        Ok(asked.into_iter().map(|one| (one.key, Ok(Loaded::new("v")))).collect())
    };
    let hits = within(scene.cache.get_or_load_many(&keys, load)).await.unwrap();
    let distinct: HashSet<_> = hits.iter().map(|hit| hit.as_ref().unwrap().fresh_for()).collect();
    assert!(distinct.len() > 40, "{} different lifetimes of 50 values", distinct.len());
}

#[test]
fn jitter_that_is_no_share_is_refused_at_start() {
    for jitter in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let built = Bench::new().bare().policy("census", Policy::default().jitter(jitter)).build();
        match built {
            Err(BuildError::Policy { of, problem }) => {
                assert!(of.contains("census") && problem.contains("jitter"), "{of}: {problem}");
            }
            other => panic!("{jitter}: {other:?}"),
        }
    }
}

// "not applied to throttle delays."

#[tokio::test]
async fn jitter_does_not_shorten_the_throttle() {
    let policy = Policy::ttl(ms(100)).stale_if_error(Duration::from_hours(1)).jitter(1.0);
    for scene in Scene::each(&policy) {
        scene.have("v").await;
        scene.advance(100);
        scene.ask(fail()).await.unwrap();
        let loads = Loads::default();
        scene.advance(29_999);
        let hit = scene.ask(count(&loads, "w")).await.unwrap();
        assert_eq!((hit.stale_reason(), loads.count()), (Some(StaleReason::Throttled), 0));
        scene.advance(1);
        assert_eq!(scene.ask(count(&loads, "w")).await.unwrap().value(), "w", "{scene}");
    }
}

// "Changing a source's TTL in the config applies to what is already stored: freshness is min(stored
// `expires_at`, `as_of` + current ttl)"

#[tokio::test]
async fn a_shorter_ttl_holds_for_what_is_stored_already() {
    for before in [Policy::ttl(ms(1_000)), Policy::forever()] {
        for scene in [Scene::lower(&before), Scene::chain(&before)] {
            scene.have("v").await;
            let scene = scene.restarted(&Policy::ttl(ms(100)));
            scene.advance(99);
            let hit = scene.get().await.unwrap();
            assert_eq!(hit.fresh_for(), ms(1), "{scene}");
            scene.advance(1);
            assert!(scene.get().await.is_none(), "{scene}");
            assert_eq!(scene.ask(bring("w")).await.unwrap().value(), "w", "{scene}");
        }
    }
}

#[tokio::test]
async fn a_shorter_ttl_holds_for_what_sqlite_has_stored() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let with = |ttl| bench.builder().policy("census", Policy::ttl(ms(ttl))).build().unwrap();
    let before = with(1_000);
    within(before.get_or_load(&key, bring("v"))).await.unwrap();
    crate::harness::close(before).await;
    let after = with(100);
    bench.advance(99);
    assert!(within(after.get(&key)).await.unwrap().is_some());
    bench.advance(1);
    assert!(within(after.get(&key)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_longer_ttl_does_not_revive_what_is_stored() {
    for scene in [Scene::lower(&Policy::ttl(ms(100))), Scene::chain(&Policy::ttl(ms(100)))] {
        scene.have("v").await;
        let scene = scene.restarted(&Policy::ttl(ms(1_000)));
        scene.advance(99);
        assert!(scene.get().await.is_some(), "{scene}");
        scene.advance(1);
        assert!(scene.get().await.is_none(), "{scene}");
    }
}

#[tokio::test]
async fn what_a_shorter_ttl_makes_stale_may_still_serve_as_a_fallback() {
    let before = Policy::ttl(ms(1_000)).stale_if_error(ms(100));
    for scene in [Scene::lower(&before), Scene::chain(&before)] {
        scene.have("v").await;
        let scene = scene.restarted(&Policy::ttl(ms(100)).stale_if_error(ms(100)));
        scene.advance(150);
        let hit = scene.ask(fail()).await.unwrap();
        assert_eq!(told(&hit), ("v", Some(StaleReason::LoadFailed)), "{scene}");
    }
}

#[tokio::test]
async fn a_shorter_negative_ttl_holds_for_what_is_stored_already() {
    let before = Policy::default().negative_ttl(ms(1_000));
    for scene in [Scene::lower(&before), Scene::chain(&before)] {
        assert!(scene.ask(give(Ok(Loaded::absent()))).await.unwrap().is_absent());
        let scene = scene.restarted(&Policy::default().negative_ttl(ms(100)));
        scene.advance(99);
        assert!(scene.get().await.unwrap().is_absent(), "{scene}");
        scene.advance(1);
        assert!(scene.get().await.is_none(), "{scene}");
    }
}

#[tokio::test]
async fn an_unchanged_ttl_shortens_nothing_though_the_load_was_slow() {
    // A lifetime counts from the end of the load: the formula must count from there too.
    let policy = Policy::ttl(ms(100));
    let scene = Scene::chain(&policy);
    let (gate, load) = gated();
    let caller = scene.start(load);
    let begun = gate.begun().await;
    scene.advance(60);
    begun.bring("v");
    assert_eq!(joined(caller).await.unwrap().fresh_for(), ms(100));
    let scene = scene.restarted(&policy);
    scene.advance(99);
    assert_eq!(scene.get().await.unwrap().fresh_for(), ms(1));
}

// "unless `retroactive_ttl: false`."

#[tokio::test]
async fn with_retroactive_ttl_off_what_is_stored_keeps_its_lifetime() {
    let before = Policy::ttl(ms(1_000));
    for scene in [Scene::lower(&before), Scene::chain(&before)] {
        scene.have("v").await;
        let scene = scene.restarted(&Policy::ttl(ms(100)).retroactive_ttl(false));
        scene.advance(999);
        assert!(scene.get().await.is_some(), "{scene}");
        scene.advance(1);
        assert!(scene.get().await.is_none(), "{scene}");
        // What is loaded from now on has the new one.
        assert_eq!(scene.have("w").await.fresh_for(), ms(100), "{scene}");
    }
}

#[tokio::test]
async fn a_lifetime_that_was_given_with_the_value_is_kept_in_any_case() {
    for scene in [Scene::lower(&Policy::default()), Scene::chain(&Policy::default())] {
        let [by_set, by_load, by_call] = ["census:s", "census:l", "census:c"].map(Key::new);
        let set = within(scene.cache.set(&by_set, "v", SetOptions::ttl(ms(1_000)))).await;
        assert!(set.is_ok());
        let load = give(Ok(Loaded::new("v").ttl(ms(1_000))));
        within(scene.cache.get_or_load(&by_load, load)).await.unwrap();
        let call = patch(|patch| patch.ttl(ms(1_000)));
        within(scene.cache.get_or_load_with(&by_call, call, bring("v"))).await.unwrap();
        let scene = scene.restarted(&Policy::ttl(ms(100)));
        scene.advance(999);
        for key in [&by_set, &by_load, &by_call] {
            assert!(within(scene.cache.get(key)).await.unwrap().is_some(), "{scene}: {key}");
        }
        scene.advance(1);
        for key in [&by_set, &by_load, &by_call] {
            assert!(within(scene.cache.get(key)).await.unwrap().is_none(), "{scene}: {key}");
        }
    }
}

// What a call says beats what the source says, which beats the default.

#[tokio::test]
async fn ttl_and_jitter_of_the_call_beat_those_of_the_source_and_those_the_default() {
    let (bench, ttl) = (Bench::new(), |millis| Policy::ttl(ms(millis)));
    let cache = bench.bare().tier(bench.memory()).default_policy(ttl(100)).policy("bls", ttl(200));
    let cache = cache.build().unwrap();
    let fresh_for = async |text: &str, options| {
        let key = key(text);
        within(cache.get_or_load_with(&key, options, bring("v"))).await.unwrap().fresh_for()
    };
    let call = |change: fn(PolicyPatch) -> PolicyPatch| patch(change);
    assert_eq!(fresh_for("census:1", ReadOptions::default()).await, ms(100));
    assert_eq!(fresh_for("bls:1", ReadOptions::default()).await, ms(200));
    assert_eq!(fresh_for("bls_ces:1", ReadOptions::default()).await, ms(100));
    assert_eq!(fresh_for("census:2", call(|patch| patch.ttl(ms(300)))).await, ms(300));
    assert_eq!(fresh_for("bls:2", call(|patch| patch.ttl(ms(300)))).await, ms(300));
    // What the call does not say, the source says.
    let jittered = fresh_for("bls:3", call(|patch| patch.jitter(1.0))).await;
    assert!(jittered < ms(200), "{jittered:?}");
    let refused = key("bls:4");
    let refused = cache.get_or_load_with(&refused, call(|patch| patch.jitter(7.0)), bring("v"));
    assert!(matches!(within(refused).await, Err(Error::Policy { .. })));
}

#[tokio::test]
async fn a_call_with_a_shorter_ttl_loads_what_is_too_old_for_it() {
    for scene in Scene::each(&Policy::ttl(ms(1_000))) {
        scene.have("v").await;
        scene.advance(100);
        let shorter = patch(|patch| patch.ttl(ms(101)));
        assert_eq!(scene.get_with(shorter).await.unwrap().value(), "v", "{scene}");
        let shorter = patch(|patch| patch.ttl(ms(100)));
        assert!(scene.get_with(shorter.clone()).await.is_none(), "{scene}");
        assert_eq!(scene.ask_with(shorter, bring("w")).await.unwrap().value(), "w", "{scene}");
    }
}

#[tokio::test]
async fn a_call_with_a_shorter_ttl_finds_what_a_lower_tier_has_newer() {
    let scene = Scene::chain(&Policy::ttl(ms(1_000)));
    scene.have("old").await;
    scene.advance(100);
    // Another process has loaded it anew; memory's copy is fresh by the source's policy.
    let lower = Arc::clone(&scene.tiers[1]);
    let other = scene.bench.bare().policy("census", Policy::ttl(ms(1_000))).shared_tier(lower);
    let newer = other.build().unwrap();
    within(newer.set(&scene.key, "new", SetOptions::default())).await.unwrap();
    assert_eq!(scene.get().await.unwrap().value(), "old");
    let shorter = patch(|patch| patch.ttl(ms(50)));
    let batch = [scene.key.clone(), key("census:b")];
    let found = within(scene.cache.get_many_with(&batch, shorter.clone())).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().as_ref().unwrap().value(), "new");
    assert!(found[1].as_ref().unwrap().is_none());
    // It is in memory from then on, and no call needs to load it.
    assert_eq!(scene.get().await.unwrap().value(), "new");
    assert_eq!(scene.ask_with(shorter, never()).await.unwrap().value(), "new");
    scene.advance(60);
    within(newer.set(&scene.key, "newest", SetOptions::default())).await.unwrap();
    let shorter = patch(|patch| patch.ttl(ms(50)));
    assert_eq!(scene.ask_with(shorter, never()).await.unwrap().value(), "newest");
}

#[tokio::test]
async fn what_is_stored_lives_no_longer_for_a_calls_sake() {
    for scene in [Scene::lower(&Policy::ttl(ms(1_000))), Scene::chain(&Policy::ttl(ms(1_000)))] {
        scene.have("v").await;
        let scene = scene.restarted(&Policy::ttl(ms(100)));
        scene.advance(100);
        let longer = patch(|patch| patch.ttl(ms(1_000)));
        let kept = patch(|patch| patch.retroactive_ttl(false));
        for call in [longer, kept] {
            assert!(scene.get_with(call).await.is_none(), "{scene}");
        }
    }
}
