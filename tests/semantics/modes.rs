//! "Loading": the modes of a read, and what a read tells.

use std::time::Duration;

use larder::{
    Error, Failures, Hit, LoadContext, Loaded, Policy, ReadMode, ReadOptions, Request, ServedBy,
    SetOptions, StaleReason,
};

use crate::{
    harness::{Loads, bring, failure, gated, joined, key, never, within},
    scene::{LOWER, MEMORY, Scene, count, fail, give, hang, ms, settle, told},
};

/// Fresh for 100 ms; of use for 900 more if its load fails.
fn stale_for_900() -> Policy {
    Policy::ttl(ms(100)).stale_if_error(ms(900))
}

fn allow_stale() -> ReadOptions {
    ReadOptions::default().allow_stale()
}

// "Read modes per call: normal"

#[tokio::test]
async fn a_normal_read_takes_what_is_fresh_or_loads() {
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        assert!(scene.get().await.is_none(), "{scene}");
        assert_eq!(ReadOptions::default().mode, ReadMode::Normal);
        scene.ask_with(ReadOptions::default(), bring("v")).await.unwrap();
        let hit = scene.ask_with(ReadOptions::default(), never()).await.unwrap();
        assert_eq!(told(&hit), ("v", None), "{scene}");
        assert_eq!(told(&scene.get().await.unwrap()), ("v", None), "{scene}");
    }
}

// "`refresh` (load now, store)"

#[tokio::test]
async fn a_refresh_loads_though_something_fresh_is_there_and_stores_it() {
    for scene in Scene::each(&Policy::default()) {
        scene.have("old").await;
        let hit = scene.ask_with(ReadOptions::refresh(), bring("new")).await.unwrap();
        assert_eq!((told(&hit), hit.served_by()), (("new", None), ServedBy::Origin), "{scene}");
        settle().await;
        for held in scene.held().await {
            assert_eq!(held.unwrap().value(), "new", "{scene}");
        }
    }
}

#[tokio::test]
async fn refreshes_at_one_time_share_one_load() {
    for scene in Scene::each(&Policy::default()) {
        scene.have("old").await;
        let (gate, load) = gated();
        let mut callers = vec![scene.start_with(ReadOptions::refresh(), load)];
        callers.extend((0..99).map(|_| scene.start_with(ReadOptions::refresh(), never())));
        let begun = gate.begun().await;
        scene.joined_by(99).await;
        begun.bring("new");
        for caller in callers {
            assert_eq!(joined(caller).await.unwrap().value(), "new", "{scene}");
        }
        assert_eq!(scene.cache.stats().loads, 2, "{scene}");
    }
}

#[tokio::test]
async fn a_refresh_does_not_join_a_look_that_may_find_what_is_stored() {
    let scene = Scene::chain(&Policy::default());
    scene.have("old").await;
    let scene = scene.restarted(&Policy::default());
    // Both begin before either has looked: one is content with what is stored, one is not.
    let (normal, refresh) =
        (scene.start(never()), scene.start_with(ReadOptions::refresh(), bring("new")));
    assert_eq!(joined(normal).await.unwrap().value(), "old");
    assert_eq!(joined(refresh).await.unwrap().value(), "new");
}

#[tokio::test]
async fn a_get_that_refreshes_finds_nothing_since_it_cannot_load() {
    for scene in Scene::each(&Policy::default()) {
        scene.have("v").await;
        assert!(scene.get_with(ReadOptions::refresh()).await.is_none(), "{scene}");
    }
}

// "`cached_only` (never load; error or `None`)"

#[tokio::test]
async fn cached_only_never_loads() {
    for scene in Scene::each(&stale_for_900()) {
        match scene.ask_with(ReadOptions::cached_only(), never()).await {
            Err(Error::NotCached { key }) => assert_eq!(key, scene.key, "{scene}"),
            other => panic!("{scene}: {other:?}"),
        }
        assert!(scene.get_with(ReadOptions::cached_only()).await.is_none(), "{scene}");
        scene.have("v").await;
        let hit = scene.ask_with(ReadOptions::cached_only(), never()).await.unwrap();
        assert_eq!(told(&hit), ("v", None), "{scene}");
        assert!(scene.get_with(ReadOptions::cached_only()).await.is_some(), "{scene}");
        // What is stale is not usable, unless it is asked for.
        scene.advance(100);
        let stale = scene.ask_with(ReadOptions::cached_only(), never()).await;
        assert!(matches!(stale, Err(Error::NotCached { .. })), "{scene}: {stale:?}");
        let hit = scene.ask_with(ReadOptions::cached_only().allow_stale(), never()).await;
        assert_eq!(told(&hit.unwrap()), ("v", Some(StaleReason::Asked)), "{scene}");
        assert_eq!(scene.cache.stats().loads, 1, "{scene}");
    }
}

#[tokio::test]
async fn cached_only_does_not_wait_for_a_load_under_way() {
    for scene in Scene::each(&Policy::default()) {
        let _caller = scene.start(hang());
        scene.loading(1).await;
        let reader = scene.start_with(ReadOptions::cached_only(), never());
        settle().await;
        assert!(reader.is_finished(), "{scene}");
        assert!(matches!(joined(reader).await, Err(Error::NotCached { .. })), "{scene}");
    }
}

#[tokio::test]
async fn a_request_that_is_cached_only_never_loads_and_needs_no_origin() {
    let scene = Scene::chain(&Policy::default());
    let request = Request::new("census").param("cbsa", 14500);
    let cached_only = || scene.cache.request_with(&request, ReadOptions::cached_only());
    assert!(matches!(within(cached_only()).await, Err(Error::NotCached { .. })));
    within(scene.cache.set(&request.key(), "v", SetOptions::default())).await.unwrap();
    assert_eq!(within(cached_only()).await.unwrap().value(), "v");
}

// "`allow_stale`"

#[tokio::test]
async fn allow_stale_takes_what_is_stale_however_stale_if_nothing_is_fresh() {
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        let options = SetOptions::ttl(ms(100)).stale_for(ms(900));
        within(scene.cache.set(&scene.key, "v", options)).await.unwrap();
        assert_eq!(told(&scene.get_with(allow_stale()).await.unwrap()), ("v", None), "{scene}");
        scene.advance(999);
        let hit = scene.get_with(allow_stale()).await.unwrap();
        assert_eq!(told(&hit), ("v", Some(StaleReason::Asked)), "{scene}");
        scene.advance(1);
        assert!(scene.get_with(allow_stale()).await.is_none(), "{scene}: dead, not stale");
    }
}

#[tokio::test]
async fn a_call_that_loads_and_allows_stale_values_tries_to_load_first() {
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_on(Failures::NONE)) {
        let options = SetOptions::ttl(ms(100)).stale_for(ms(900));
        within(scene.cache.set(&scene.key, "old", options)).await.unwrap();
        scene.advance(100);
        assert!(scene.ask(fail()).await.is_err(), "{scene}: the policy allows none");
        let hit = scene.ask_with(allow_stale(), fail()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
        scene.advance(30_000);
        let scene = scene.with(|scene| scene.builder(&Policy::ttl(ms(100))));
        let options = SetOptions::ttl(ms(100)).stale_for(ms(900));
        within(scene.cache.set(&scene.key, "old", options)).await.unwrap();
        scene.advance(100);
        let hit = scene.ask_with(allow_stale(), bring("new")).await.unwrap();
        assert_eq!(told(&hit), ("new", None), "{scene}");
    }
}

// "`bypass` (load, neither read nor store)"

#[tokio::test]
async fn a_bypass_loads_each_time_and_neither_reads_nor_stores() {
    for scene in Scene::each(&Policy::default()) {
        scene.have("stored").await;
        let loads = Loads::default();
        for n in 1..=3 {
            let load = count(&loads, "passing");
            let hit = scene.ask_with(ReadOptions::bypass(), load).await.unwrap();
            assert_eq!((told(&hit).0, loads.count()), ("passing", n), "{scene}");
            assert_eq!(hit.served_by(), ServedBy::Origin, "{scene}");
        }
        settle().await;
        for held in scene.held().await {
            assert_eq!(held.unwrap().value(), "stored", "{scene}");
        }
        assert!(scene.get_with(ReadOptions::bypass()).await.is_none(), "{scene}");
    }
}

#[tokio::test]
async fn a_bypass_shares_no_load_and_its_failure_is_its_own() {
    for scene in Scene::each(&stale_for_900()) {
        scene.have("old").await;
        scene.advance(100);
        let waiting = scene.start(hang());
        scene.loading(2).await;
        let answer = scene.ask_with(ReadOptions::bypass(), fail()).await;
        assert!(matches!(answer, Err(Error::Origin(_))), "{scene}: {answer:?}");
        let answer = scene.ask_with(ReadOptions::bypass(), never()).await;
        assert!(matches!(answer, Err(Error::LoadPanicked { .. })), "{scene}: {answer:?}");
        let hit = scene.ask_with(ReadOptions::bypass(), bring("v")).await.unwrap();
        assert_eq!(hit.value(), "v", "{scene}");
        assert!(!waiting.is_finished(), "{scene}");
        assert!(scene.get().await.is_none(), "{scene}: nothing is stored");
    }
}

#[tokio::test]
async fn a_bypass_runs_in_a_task_of_its_own_too() {
    let scene = Scene::memory(&Policy::default());
    let (gate, load) = gated();
    let caller = scene.start_with(ReadOptions::bypass(), load);
    let begun = gate.begun().await;
    caller.abort();
    settle().await;
    // It has not gone with its caller.
    begun.bring("v");
}

// "`skip tiers`"

#[tokio::test]
async fn a_tier_that_is_left_out_is_not_read_and_stores_what_is_loaded_all_the_same() {
    let scene = Scene::chain(&Policy::default());
    scene.have("v").await;
    let skip = |name: &'static str| ReadOptions::default().skip(name);
    assert_eq!(scene.get_with(skip("memory")).await.unwrap().served_by(), LOWER);
    let hit = scene.ask_with(skip("memory"), never()).await.unwrap();
    assert_eq!(hit.served_by(), LOWER);
    assert_eq!(scene.get_with(skip("lower")).await.unwrap().served_by(), MEMORY);
    assert!(scene.get_with(skip("lower").skip("memory")).await.is_none());
    let all = skip("lower").skip("memory");
    let hit = scene.ask_with(all, bring("new")).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Origin);
    settle().await;
    for held in scene.held().await {
        assert_eq!(held.unwrap().value(), "new");
    }
}

#[tokio::test]
async fn a_tier_that_the_chain_does_not_have_cannot_be_left_out() {
    let scene = Scene::chain(&Policy::default());
    let options = ReadOptions::default().skip("redis\n");
    let answers = [
        scene.ask_with(options.clone(), never()).await.map(|_| ()),
        within(scene.cache.get_with(&scene.key, options.clone())).await.map(|_| ()),
        within(scene.cache.get_many_with(&[key("census:b")], options)).await.map(|_| ()),
    ];
    for answer in answers {
        match answer {
            Err(ref error @ Error::UnknownTier { ref name, ref known }) => {
                assert_eq!((name.as_str(), known.as_str()), ("redis\\u{a}", "memory, lower"));
                assert!(error.to_string().contains("memory, lower"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_look_that_leaves_a_tier_out_does_not_answer_one_that_does_not() {
    let scene = Scene::chain(&Policy::default());
    scene.have("v").await;
    let scene = scene.restarted(&Policy::default());
    // Both begin before either has looked.
    let (gate, load) = gated();
    let without = scene.start_with(ReadOptions::default().skip("lower"), load);
    let with = scene.start_with(ReadOptions::default().skip("memory"), never());
    assert_eq!(joined(with).await.unwrap().value(), "v");
    gate.begun().await.bring("new");
    assert_eq!(joined(without).await.unwrap().value(), "new");
}

#[tokio::test]
async fn who_leaves_a_tier_out_is_not_answered_by_it_through_another_one() {
    let scene = Scene::chain(&Policy::default());
    scene.have("v").await;
    let scene = scene.restarted(&Policy::default());
    let (gate, load) = gated();
    // Both begin before either has looked.
    let with = scene.start(never());
    let without = scene.start_with(ReadOptions::default().skip("lower").skip("memory"), load);
    assert_eq!(joined(with).await.unwrap().value(), "v");
    gate.begun().await.bring("new");
    assert_eq!(joined(without).await.unwrap().value(), "new");
}

// "Every read can tell: tier, age, remaining freshness, stale or not and why, validators, revalidated
// or not."

fn report(hit: &Hit) -> (ServedBy, Duration, Duration, Option<StaleReason>, bool) {
    (hit.served_by(), hit.age(), hit.fresh_for(), hit.stale_reason(), hit.is_revalidated())
}

#[tokio::test]
async fn a_fresh_hit_tells_its_tier_its_age_and_for_how_long_it_is_fresh() {
    let scene = Scene::chain(&stale_for_900());
    let (load, zero) = (ServedBy::Origin, Duration::ZERO);
    let hit = scene.ask(bring("v")).await.unwrap();
    assert_eq!(report(&hit), (load, zero, ms(100), None, false));
    scene.advance(30);
    let hit = scene.get().await.unwrap();
    assert_eq!(report(&hit), (MEMORY, ms(30), ms(70), None, false));
    assert!(!hit.is_stale() && hit.failure().is_none());
    let scene = scene.restarted(&stale_for_900());
    scene.advance(10);
    let hit = scene.ask(never()).await.unwrap();
    assert_eq!(report(&hit), (LOWER, ms(40), ms(60), None, false));
    assert_eq!(hit.at(), larder::Clock::now(&*scene.bench.clock));
    assert_eq!((LOWER.to_string(), load.to_string()), ("lower".into(), "origin".into()));
}

#[tokio::test]
async fn a_stale_hit_tells_its_tier_its_age_and_why() {
    for scene in Scene::each(&stale_for_900()) {
        let first = ServedBy::Tier(scene.tiers[0].name());
        scene.have("v").await;
        scene.advance(130);
        let zero = Duration::ZERO;
        let hit = scene.ask(fail()).await.unwrap();
        let failed = Some(StaleReason::LoadFailed);
        assert_eq!(report(&hit), (first, ms(130), zero, failed, false), "{scene}");
        assert!(hit.is_stale() && matches!(hit.failure(), Some(Error::Origin(_))), "{scene}");
        scene.advance(20);
        let hit = scene.ask(never()).await.unwrap();
        let throttled = Some(StaleReason::Throttled);
        assert_eq!(report(&hit), (first, ms(150), zero, throttled, false), "{scene}");
        assert!(matches!(hit.failure(), Some(Error::Origin(_))), "{scene}");
        let hit = scene.get_with(allow_stale()).await.unwrap();
        let asked = Some(StaleReason::Asked);
        assert_eq!(report(&hit), (first, ms(150), zero, asked, false), "{scene}");
        assert!(hit.failure().is_none(), "{scene}");
    }
}

#[tokio::test]
async fn a_hit_that_was_waited_for_tells_its_age_when_it_is_given() {
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        let (begun, callers) = scene.crowd(9).await;
        scene.advance(5_000);
        begun.bring("v");
        for caller in callers {
            let hit = joined(caller).await.unwrap();
            // Ages and lifetimes count from the end of the load.
            let expected = (ServedBy::Origin, Duration::ZERO, ms(100), None, false);
            assert_eq!(report(&hit), expected, "{scene}");
        }
    }
}

#[tokio::test]
async fn a_hit_tells_its_validators_and_whether_they_were_asked_about_just_now() {
    for scene in Scene::each(&stale_for_900()) {
        let mut loaded = Loaded::new("v").etag("\"e\"").version("2022");
        loaded.source_last_modified = Some("yesterday".to_owned());
        scene.ask(give(Ok(loaded))).await.unwrap();
        scene.advance(100);
        let not_modified = |context: LoadContext| async move { Ok(context.not_modified()) };
        let hit = scene.ask(not_modified).await.unwrap();
        let expected = (ServedBy::Origin, Duration::ZERO, ms(100), None, true);
        assert_eq!(report(&hit), expected, "{scene}");
        let hit = scene.get().await.unwrap();
        let entry = hit.entry();
        assert_eq!((entry.etag(), entry.version()), (Some("\"e\""), Some("2022")), "{scene}");
        assert_eq!(entry.source_last_modified(), Some("yesterday"), "{scene}");
        assert!(!hit.is_revalidated(), "{scene}");
    }
}

#[tokio::test]
async fn every_reason_for_a_stale_value_can_be_told_to_people() {
    use StaleReason::{Asked, LoadFailed, LoadSlow, Offline, Revalidating, Throttled};
    let all = [Revalidating, LoadFailed, LoadSlow, Throttled, Offline, Asked];
    let texts: std::collections::HashSet<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), all.len());
}

// Offline: no origin is ever asked.

#[tokio::test]
async fn offline_nothing_is_loaded_and_the_error_names_the_key() {
    for scene in Scene::each(&Policy::default()) {
        let scene = scene.with(|scene| scene.builder(&Policy::default()).offline(true));
        assert!(scene.cache.is_offline());
        for options in [
            ReadOptions::default(),
            ReadOptions::refresh(),
            ReadOptions::cached_only(),
            ReadOptions::bypass(),
            allow_stale(),
        ] {
            match scene.ask_with(options.clone(), never()).await {
                Err(ref error @ Error::Offline { ref key }) => {
                    assert_eq!(*key, scene.key, "{scene}");
                    assert!(error.to_string().contains("census:a"), "{scene}: {error}");
                }
                other => panic!("{scene}: {options:?}: {other:?}"),
            }
        }
        assert!(scene.get().await.is_none(), "{scene}");
        let keys = [scene.key.clone(), key("census:b")];
        let load = |_: Vec<LoadContext>| async { Err(failure("loaded")) };
        let answers = within(scene.cache.get_or_load_many(&keys, load)).await.unwrap();
        for (answer, key) in answers.into_iter().zip(&keys) {
            assert!(matches!(answer, Err(Error::Offline { key: named }) if named == *key));
        }
        assert_eq!(scene.cache.stats().loads, 0, "{scene}");
    }
}

#[tokio::test]
async fn offline_a_request_does_not_reach_its_origin() {
    let origin = std::sync::Arc::new(tier_testkit::CountingOrigin::default());
    let scene = Scene::chain(&Policy::default()).with(|scene| {
        let origin = std::sync::Arc::<tier_testkit::CountingOrigin>::clone(&origin);
        scene.builder(&Policy::default()).shared_origin("census", origin).offline(true)
    });
    for source in ["census", "bls"] {
        let request = Request::new(source).param("cbsa", 14500);
        let answer = within(scene.cache.request(&request)).await;
        assert!(matches!(answer, Err(Error::Offline { .. })), "{source}: {answer:?}");
    }
    assert_eq!(origin.calls(), 0);
}

#[tokio::test]
async fn offline_what_is_fresh_is_served_and_what_is_stale_where_it_is_allowed() {
    for scene in Scene::each(&stale_for_900()) {
        let options = SetOptions::ttl(ms(100)).stale_for(Duration::from_hours(1));
        within(scene.cache.set(&scene.key, "v", options)).await.unwrap();
        let scene = scene.with(|scene| scene.builder(&stale_for_900()).offline(true));
        assert_eq!(told(&scene.ask(never()).await.unwrap()), ("v", None), "{scene}");
        scene.advance(999);
        // As if its load had failed.
        let hit = scene.ask(never()).await.unwrap();
        assert_eq!(told(&hit), ("v", Some(StaleReason::Offline)), "{scene}");
        scene.advance(1);
        let answer = scene.ask(never()).await;
        assert!(matches!(answer, Err(Error::Offline { .. })), "{scene}: {answer:?}");
        // However stale, to who takes that.
        let hit = scene.ask_with(allow_stale(), never()).await.unwrap();
        assert_eq!(told(&hit), ("v", Some(StaleReason::Offline)), "{scene}");
        scene.advance(3_600_000);
        let answer = scene.ask_with(allow_stale(), never()).await;
        assert!(matches!(answer, Err(Error::Offline { .. })), "{scene}: it is dead");
    }
}
