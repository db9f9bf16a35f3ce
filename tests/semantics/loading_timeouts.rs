//! "Loading": loads that take too long. Time-outs run on tokio's time, which stands still until
//! nothing else is left to do; lifetimes run on the clock moved by hand.

use std::time::Duration;

use larder::{
    Error, LoadContext, Loaded, OriginError, Policy, PolicyPatch, ReadOptions, ServedBy,
    SetOptions, StaleReason,
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    harness::{Begun, Loads, bring, failure, gated, joined, key, never, within},
    scene::{Asked, Scene, count, error, fail, hang, ms, patch, settle, told},
};

/// A load under way, and its caller.
async fn begin(scene: &Scene) -> (Begun, JoinHandle<Asked>) {
    let (gate, load) = gated();
    let caller = scene.start(load);
    (gate.begun().await, caller)
}

fn is_timed_out(error: &Error, scene: &Scene, after: Duration) -> bool {
    matches!(error, Error::LoadTimedOut { key, limit } if *key == scene.key && *limit == after)
}

/// Fresh for 100 ms; of use for 900 more if its load fails.
fn stale_for_900() -> Policy {
    Policy::ttl(ms(100)).stale_if_error(ms(900))
}

// "`hard_timeout`: waiters get stale or a timeout error"

#[tokio::test(start_paused = true)]
async fn a_thousand_who_wait_get_a_timeout_error_at_the_hard_timeout() {
    for scene in Scene::each(&Policy::default().hard_timeout(ms(1_000))) {
        let since = Instant::now();
        let mut callers = vec![scene.start(hang())];
        scene.loading(1).await;
        tokio::time::sleep(ms(900)).await;
        // Who comes late waits no longer than the others: the limit is the load's.
        callers.extend((0..999).map(|_| scene.start(never())));
        for caller in callers {
            let error = error(caller).await;
            assert!(is_timed_out(&error, &scene, ms(1_000)), "{scene}: {error:?}");
            assert!(error.to_string().contains("census:a") && error.to_string().contains("1s"));
        }
        let waited = since.elapsed();
        assert!(waited >= ms(1_000) && waited < ms(1_010), "{scene}: {waited:?}");
        assert_eq!(scene.cache.stats().load_failures, 1, "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_get_what_is_stale_at_the_hard_timeout() {
    for scene in Scene::each(&stale_for_900().hard_timeout(ms(1_000))) {
        scene.have("old").await;
        scene.advance(100);
        let since = Instant::now();
        let first = scene.start(hang());
        scene.loading(2).await;
        for caller in [first, scene.start(never())] {
            let hit = joined(caller).await.unwrap();
            assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
            assert!(is_timed_out(hit.failure().unwrap(), &scene, ms(1_000)), "{scene}");
        }
        assert!(since.elapsed() >= ms(1_000), "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_dies_while_it_is_waited_for_is_not_served_at_the_hard_timeout() {
    for options in [ReadOptions::default(), ReadOptions::default().allow_stale()] {
        for scene in Scene::each(&stale_for_900().hard_timeout(ms(1_000))) {
            scene.have("old").await;
            scene.advance(100);
            let caller = scene.start_with(options.clone(), hang());
            scene.loading(2).await;
            scene.advance(900);
            assert!(is_timed_out(&error(caller).await, &scene, ms(1_000)), "{scene}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_ends_in_time_is_not_timed_out() {
    for scene in Scene::each(&Policy::default().hard_timeout(ms(1_000))) {
        let caller = scene.start(slow("v", 999));
        assert_eq!(joined(caller).await.unwrap().value(), "v", "{scene}");
    }
}

/// A load that takes so long.
fn slow(
    value: &'static str,
    millis: u64,
) -> impl FnOnce(LoadContext) -> crate::scene::Boxed + Send + 'static {
    move |_| {
        Box::pin(async move {
            tokio::time::sleep(ms(millis)).await;
            Ok(Loaded::new(value))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn the_hard_timeout_is_five_minutes_unless_it_is_set_or_switched_off() {
    let scene = Scene::memory(&Policy::default());
    let since = Instant::now();
    let answer = tokio::time::timeout(Duration::from_mins(6), scene.start(hang())).await;
    assert!(answer.unwrap().unwrap().is_err());
    assert!(since.elapsed() >= Duration::from_mins(5));
    // The call's own, which beats that of the source.
    let since = Instant::now();
    let call = patch(|patch| patch.hard_timeout(ms(20)));
    assert!(scene.ask_with(call, hang()).await.is_err());
    assert!(since.elapsed() < ms(30));
    let mut none = PolicyPatch::default();
    none.hard_timeout = Some(None);
    let for_ever = scene.start_with(ReadOptions::default().policy(none), hang());
    tokio::time::sleep(Duration::from_hours(24)).await;
    assert!(!for_ever.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_load_for_one_caller_alone_has_the_hard_timeout_too() {
    let scene = Scene::chain(&Policy::default().hard_timeout(ms(1_000)));
    let answer = scene.ask_with(ReadOptions::bypass(), hang()).await;
    assert!(is_timed_out(&answer.unwrap_err(), &scene, ms(1_000)));
}

// "and the flight is abandoned: the next caller may start a new one at once"; "A hung loader never
// blocks a key."

#[tokio::test(start_paused = true)]
async fn after_a_thousand_waited_in_vain_the_next_caller_loads_at_once() {
    for scene in Scene::each(&Policy::default().hard_timeout(ms(1_000))) {
        let mut callers = vec![scene.start(hang())];
        scene.loading(1).await;
        callers.extend((0..999).map(|_| scene.start(never())));
        for caller in callers {
            assert!(is_timed_out(&error(caller).await, &scene, ms(1_000)), "{scene}");
        }
        let since = Instant::now();
        assert_eq!(scene.ask(bring("v")).await.unwrap().value(), "v", "{scene}");
        assert_eq!(since.elapsed(), Duration::ZERO, "{scene}");
        assert_eq!(scene.get().await.unwrap().value(), "v", "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn loader_after_loader_may_hang_without_blocking_the_key() {
    for scene in Scene::each(&Policy::default().hard_timeout(ms(1_000))) {
        for n in 1..=10 {
            assert!(scene.ask(hang()).await.is_err());
            assert_eq!(scene.cache.stats().loads, n, "{scene}: each started a load of its own");
        }
        assert_eq!(scene.ask(bring("v")).await.unwrap().value(), "v", "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_loader_of_a_batch_keeps_no_key_longer_than_its_own_source_says() {
    let patient = Policy::default().hard_timeout(Duration::from_hours(1));
    let scene = Scene::memory(&Policy::default().hard_timeout(ms(1_000)));
    let scene = scene.with(|scene| {
        let policy = Policy::default().hard_timeout(ms(1_000));
        scene.builder(&policy).policy("bls", patient)
    });
    let (cache, keys) = (scene.cache.clone(), [scene.key.clone(), key("bls:a")]);
    let _batch = tokio::spawn(async move {
        let load = |_: Vec<LoadContext>| {
            std::future::pending::<Result<Vec<(_, Result<_, _>)>, OriginError>>()
        };
        cache.get_or_load_many(&keys, load).await
    });
    scene.loading(2).await;
    let caller = scene.start(never());
    let answer = tokio::time::timeout(ms(2_000), caller).await;
    let answer = answer.expect("it waits no longer than a second").unwrap();
    assert!(is_timed_out(&answer.unwrap_err(), &scene, ms(1_000)));
}

// "a late result is accepted only if nothing newer has been stored and no barrier covers it."

/// A load that nobody waits for any more, because it took too long.
async fn late(scene: &Scene) -> Begun {
    let (begun, caller) = begin(scene).await;
    assert!(is_timed_out(&error(caller).await, scene, ms(1_000)), "{scene}");
    begun
}

fn a_second() -> Policy {
    Policy::default().hard_timeout(ms(1_000))
}

#[tokio::test(start_paused = true)]
async fn a_late_result_is_stored_if_nothing_has_happened_since() {
    for scene in Scene::each(&a_second()) {
        let late = late(&scene).await;
        late.bring("late");
        settle().await;
        assert_eq!(scene.ask(never()).await.unwrap().value(), "late", "{scene}");
        assert!(scene.held().await.iter().all(Option::is_some), "{scene}: in every tier");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_is_not_stored_over_a_newer_set() {
    for scene in Scene::each(&a_second()) {
        let late = late(&scene).await;
        within(scene.cache.set(&scene.key, "set", SetOptions::default())).await.unwrap();
        late.bring("late");
        settle().await;
        for held in scene.held().await {
            assert_eq!(held.unwrap().value(), "set", "{scene}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_is_not_stored_over_a_newer_load() {
    for scene in Scene::each(&a_second()) {
        let late = late(&scene).await;
        scene.ask(bring("loaded")).await.unwrap();
        late.bring("late");
        settle().await;
        for held in scene.held().await {
            assert_eq!(held.unwrap().value(), "loaded", "{scene}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_that_comes_during_a_newer_load_gives_way_to_it() {
    for scene in Scene::each(&a_second()) {
        let late = late(&scene).await;
        let (newer, caller) = begin(&scene).await;
        late.bring("late");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "late", "{scene}: it is all there is");
        newer.bring("newer");
        assert_eq!(joined(caller).await.unwrap().value(), "newer", "{scene}");
        assert_eq!(scene.get().await.unwrap().value(), "newer", "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_is_not_stored_over_an_invalidation() {
    for by_clearing in [false, true] {
        for scene in Scene::each(&a_second()) {
            let late = late(&scene).await;
            if by_clearing {
                within(scene.cache.clear()).await.unwrap();
            } else {
                within(scene.cache.invalidate(&scene.key)).await.unwrap();
            }
            late.bring("late");
            settle().await;
            assert_eq!(scene.held().await.iter().flatten().count(), 0, "{scene}");
            assert_eq!(scene.cache.stats().not_stored, 1, "{scene}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_failure_changes_nothing() {
    for scene in Scene::each(&a_second()) {
        let late = late(&scene).await;
        scene.ask(bring("v")).await.unwrap();
        late.end(Err(failure("after all")));
        settle().await;
        assert_eq!(scene.ask(never()).await.unwrap().value(), "v", "{scene}");
        assert_eq!(scene.cache.stats().load_failures, 1, "{scene}: counted once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_ends_the_throttle_that_the_timeout_began() {
    for scene in Scene::each(&stale_for_900().hard_timeout(ms(1_000))) {
        scene.have("old").await;
        scene.advance(100);
        let (begun, caller) = begin(&scene).await;
        assert_eq!(told(&joined(caller).await.unwrap()).1, Some(StaleReason::LoadFailed));
        let hit = scene.ask(never()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::Throttled)), "{scene}");
        begun.bring("late");
        settle().await;
        assert_eq!(told(&scene.ask(never()).await.unwrap()), ("late", None), "{scene}");
        // When that is stale it is loaded at once.
        scene.advance(100);
        assert_eq!(scene.ask(bring("new")).await.unwrap().value(), "new", "{scene}");
    }
}

// "`soft_timeout`: only if a stale candidate exists; it is returned, the load goes on and is stored."

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_returned_at_the_soft_timeout_and_the_load_is_stored() {
    for scene in Scene::each(&stale_for_900().soft_timeout(ms(50))) {
        scene.have("old").await;
        scene.advance(100);
        let since = Instant::now();
        let (begun, caller) = begin(&scene).await;
        let hit = joined(caller).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadSlow)), "{scene}");
        assert!(hit.failure().is_none(), "{scene}");
        let waited = since.elapsed();
        assert!(waited >= ms(50) && waited < ms(60), "{scene}: {waited:?}");
        begun.bring("new");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "new", "{scene}");
        assert_eq!(scene.cache.stats().load_failures, 0, "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_anything_stale_the_soft_timeout_is_nothing() {
    for scene in Scene::each(&stale_for_900().soft_timeout(ms(50))) {
        let hit = joined(scene.start(slow("v", 5_000))).await.unwrap();
        assert_eq!((told(&hit), hit.served_by()), (("v", None), ServedBy::Origin), "{scene}");
        // What is dead is nothing.
        scene.advance(1_000);
        let hit = joined(scene.start(slow("w", 5_000))).await.unwrap();
        assert_eq!(told(&hit), ("w", None), "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_that_the_policy_does_not_allow_is_not_returned_at_the_soft_timeout() {
    let policy = Policy::ttl(ms(100)).soft_timeout(ms(50));
    for scene in Scene::each(&policy) {
        let options = SetOptions::ttl(ms(100)).stale_for(ms(900));
        within(scene.cache.set(&scene.key, "old", options.clone())).await.unwrap();
        scene.advance(100);
        let hit = joined(scene.start(slow("new", 5_000))).await.unwrap();
        assert_eq!(told(&hit), ("new", None), "{scene}");
        // Who takes what is stale, however stale, takes it then.
        within(scene.cache.set(&scene.key, "old", options)).await.unwrap();
        scene.advance(100);
        let stale = ReadOptions::default().allow_stale();
        let hit = joined(scene.start_with(stale, slow("new", 5_000))).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadSlow)), "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_dies_while_it_is_waited_for_is_not_returned_at_the_soft_timeout() {
    for options in [ReadOptions::default(), ReadOptions::default().allow_stale()] {
        for scene in Scene::each(&stale_for_900().soft_timeout(ms(50))) {
            scene.have("old").await;
            scene.advance(999);
            let (gate, load) = gated();
            let caller = scene.start_with(options.clone(), load);
            let begun = gate.begun().await;
            scene.advance(1);
            tokio::time::sleep(ms(60)).await;
            begun.bring("new");
            let hit = joined(caller).await.unwrap();
            assert_eq!(told(&hit), ("new", None), "{scene}: dead values are never served");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_caller_has_a_soft_timeout_of_its_own() {
    for scene in Scene::each(&stale_for_900().soft_timeout(ms(50))) {
        scene.have("old").await;
        scene.advance(100);
        let (begun, first) = begin(&scene).await;
        assert_eq!(told(&joined(first).await.unwrap()).1, Some(StaleReason::LoadSlow), "{scene}");
        let since = Instant::now();
        let hit = scene.ask(never()).await.unwrap();
        assert_eq!(told(&hit).1, Some(StaleReason::LoadSlow), "{scene}");
        assert!(since.elapsed() >= ms(50), "{scene}: from its own call on");
        let patient = scene.start_with(patch(|patch| patch.soft_timeout(ms(10_000))), never());
        tokio::time::sleep(ms(5_000)).await;
        begun.bring("new");
        assert_eq!(told(&joined(patient).await.unwrap()), ("new", None), "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_ends_before_the_soft_timeout_is_waited_for() {
    for scene in Scene::each(&stale_for_900().soft_timeout(ms(50))) {
        scene.have("old").await;
        scene.advance(100);
        let hit = joined(scene.start(slow("new", 49))).await.unwrap();
        assert_eq!(told(&hit), ("new", None), "{scene}");
        scene.advance(100);
        // One that fails before it is told as what it is.
        let hit = scene.ask(fail()).await.unwrap();
        assert_eq!(told(&hit), ("new", Some(StaleReason::LoadFailed)), "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_waits_past_the_soft_timeout() {
    for scene in Scene::each(&stale_for_900().soft_timeout(ms(50))) {
        scene.have("old").await;
        scene.advance(100);
        let caller = scene.start_with(ReadOptions::refresh(), slow("new", 5_000));
        assert_eq!(told(&joined(caller).await.unwrap()), ("new", None), "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_soft_timeout_the_hard_one_still_ends_the_load() {
    for scene in Scene::each(&stale_for_900().soft_timeout(ms(50)).hard_timeout(ms(1_000))) {
        scene.have("old").await;
        scene.advance(100);
        let since = Instant::now();
        let hit = scene.ask(hang()).await.unwrap();
        assert_eq!(told(&hit).1, Some(StaleReason::LoadSlow), "{scene}");
        soon_or_later(|| scene.cache.stats().load_failures == 1).await;
        assert!(since.elapsed() >= ms(1_000), "{scene}");
        // From then on there is a pause, as after any failure.
        let loads = Loads::default();
        let hit = scene.ask(count(&loads, "new")).await.unwrap();
        assert_eq!((told(&hit).1, loads.count()), (Some(StaleReason::Throttled), 0), "{scene}");
    }
}

/// Waits, on tokio's time, until `done`.
async fn soon_or_later(mut done: impl FnMut() -> bool) {
    within(async {
        while !done() {
            tokio::time::sleep(ms(1)).await;
        }
    })
    .await;
}
