//! "Loading": what is served when a load fails, for how long nobody tries again, and after which
//! failures.

use std::{sync::Arc, time::Duration};

use larder::{
    Error, Failure, Failures, LoadContext, OriginError, OriginErrorKind, Policy, ReadOptions,
    ServedBy, SetOptions, StaleReason,
};

use crate::{
    harness::{Loads, bring, key, never, within},
    scene::{Answer, Scene, count, fail, give, ms, patch, settle, status, told},
};

/// Fresh for 100 ms; of use for an hour more if its load fails.
fn stale_for_an_hour() -> Policy {
    Policy::ttl(ms(100)).stale_if_error(Duration::from_hours(1))
}

/// A value that has just become stale.
async fn stale(scene: &Scene) {
    scene.have("old").await;
    scene.advance(100);
}

// "Failed load with a stale candidate: stale is served, and no new load for `throttle` (default
// 30 s, no jitter)"

#[tokio::test]
async fn when_a_load_fails_what_is_stale_is_served_with_the_failure() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        let hit = scene.ask(fail()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
        assert!(hit.failure().unwrap().to_string().contains("unplugged"), "{scene}");
        assert_eq!(hit.served_by(), ServedBy::Tier(scene.tiers[0].name()), "{scene}");
    }
}

#[tokio::test]
async fn after_a_failure_nothing_is_loaded_for_thirty_seconds() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        scene.ask(fail()).await.unwrap();
        let loads = Loads::default();
        for _ in 0..30 {
            let hit = scene.ask(count(&loads, "new")).await.unwrap();
            assert_eq!(told(&hit), ("old", Some(StaleReason::Throttled)), "{scene}");
            assert!(hit.failure().unwrap().to_string().contains("unplugged"), "{scene}");
            scene.advance(999);
        }
        settle().await;
        assert_eq!(loads.count(), 0, "{scene}");
        scene.advance(30);
        let hit = scene.ask(count(&loads, "new")).await.unwrap();
        assert_eq!((told(&hit), loads.count()), (("new", None), 1), "{scene}: 30 s are over");
    }
}

#[tokio::test]
async fn the_throttle_is_as_long_as_the_policy_says_and_zero_is_none() {
    for (throttle, call) in [(1_000, None), (9_000, Some(1_000))] {
        let policy = stale_for_an_hour().throttle(ms(throttle));
        for scene in Scene::each(&policy) {
            stale(&scene).await;
            // Of calls that share a load, the policy of the first holds for it.
            let options = patch(|patch| match call {
                Some(call) => patch.throttle(ms(call)),
                None => patch,
            });
            scene.ask_with(options, fail()).await.unwrap();
            scene.advance(999);
            let hit = scene.ask(never()).await.unwrap();
            assert_eq!(told(&hit).1, Some(StaleReason::Throttled), "{scene}");
            scene.advance(1);
            assert_eq!(scene.ask(bring("new")).await.unwrap().value(), "new", "{scene}");
        }
    }
    for scene in Scene::each(&stale_for_an_hour().throttle(Duration::ZERO)) {
        stale(&scene).await;
        for n in 2..5 {
            scene.ask(fail()).await.unwrap();
            assert_eq!(scene.cache.stats().loads, n, "{scene}: each call tries");
        }
    }
}

#[tokio::test]
async fn a_second_failure_begins_another_throttle() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        for _ in 0..3 {
            let hit = scene.ask(fail()).await.unwrap();
            assert_eq!(told(&hit).1, Some(StaleReason::LoadFailed), "{scene}");
            scene.advance(29_999);
            let hit = scene.ask(never()).await.unwrap();
            assert_eq!(told(&hit).1, Some(StaleReason::Throttled), "{scene}");
            scene.advance(1);
        }
    }
}

#[tokio::test]
async fn the_throttle_of_a_key_holds_for_no_other() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        scene.ask(fail()).await.unwrap();
        let other = within(scene.cache.get_or_load(&key("census:b"), bring("b"))).await.unwrap();
        assert_eq!(other.served_by(), ServedBy::Origin, "{scene}");
    }
}

#[tokio::test]
async fn a_throttled_key_whose_stale_value_is_dead_or_gone_is_loaded() {
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
        stale(&scene).await;
        scene.ask(fail()).await.unwrap();
        scene.advance(900);
        assert_eq!(scene.ask(bring("new")).await.unwrap().value(), "new", "{scene}: it is dead");
        scene.advance(100);
        scene.ask(fail()).await.unwrap();
        within(scene.cache.invalidate(&scene.key)).await.unwrap();
        assert_eq!(scene.ask(bring("more")).await.unwrap().value(), "more", "{scene}: it is gone");
    }
}

#[tokio::test]
async fn a_value_that_is_set_ends_the_throttle() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        scene.ask(fail()).await.unwrap();
        within(scene.cache.set(&scene.key, "set", SetOptions::default())).await.unwrap();
        assert_eq!(told(&scene.ask(never()).await.unwrap()), ("set", None), "{scene}");
        scene.advance(100);
        assert_eq!(scene.ask(bring("new")).await.unwrap().value(), "new", "{scene}");
    }
}

#[tokio::test]
async fn callers_who_take_anything_stale_are_throttled_too() {
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        let options = SetOptions::ttl(ms(100)).stale_for(Duration::from_hours(1));
        within(scene.cache.set(&scene.key, "old", options)).await.unwrap();
        scene.advance(100);
        let allow_stale = ReadOptions::default().allow_stale();
        let hit = scene.ask_with(allow_stale.clone(), fail()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
        let hit = scene.ask_with(allow_stale, never()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::Throttled)), "{scene}");
    }
}

// "except for a forced refresh."

#[tokio::test]
async fn a_forced_refresh_loads_in_spite_of_the_throttle_and_ends_it_if_it_works() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        scene.ask(fail()).await.unwrap();
        let loads = Loads::default();
        let hit = scene.ask_with(ReadOptions::refresh(), count(&loads, "new")).await.unwrap();
        assert_eq!((told(&hit), loads.count()), (("new", None), 1), "{scene}");
        scene.advance(100);
        let hit = scene.ask(count(&loads, "newer")).await.unwrap();
        assert_eq!((told(&hit), loads.count()), (("newer", None), 2), "{scene}: it is over");
    }
}

#[tokio::test]
async fn a_forced_refresh_that_fails_is_given_what_is_stale_and_tries_again() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        for n in 2..5 {
            let hit = scene.ask_with(ReadOptions::refresh(), fail()).await.unwrap();
            assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
            assert_eq!(scene.cache.stats().loads, n, "{scene}");
        }
    }
}

#[tokio::test]
async fn a_forced_refresh_that_fails_does_not_hide_it_behind_what_is_fresh() {
    for scene in Scene::each(&stale_for_an_hour()) {
        scene.have("v").await;
        let answer = scene.ask_with(ReadOptions::refresh(), fail()).await;
        assert!(matches!(answer, Err(Error::Origin(_))), "{scene}: {answer:?}");
        assert_eq!(told(&scene.ask(never()).await.unwrap()), ("v", None), "{scene}");
    }
}

// "Which failures allow stale is policy: default network errors, timeouts, 429 and 5xx"

const ANSWERS: [u16; 6] = [400, 401, 403, 404, 410, 499];

fn failures() -> Vec<(OriginErrorKind, Option<Failure>)> {
    use OriginErrorKind::{GaveUp, Network, Other, Request, Status, Timeout, TooLarge};
    let mut all = vec![
        (Network, Some(Failure::Network)),
        (Timeout, Some(Failure::Timeout)),
        (Status(429), Some(Failure::RateLimited)),
        (Status(500), Some(Failure::ServerError)),
        (Status(503), Some(Failure::ServerError)),
        (Status(599), Some(Failure::ServerError)),
        (TooLarge, Some(Failure::Other)),
        (Request, Some(Failure::Other)),
        (Other, Some(Failure::Other)),
        (Status(302), Some(Failure::Other)),
        (GaveUp, None),
    ];
    all.extend(ANSWERS.map(|code| (Status(code), Some(Failure::ClientError))));
    all
}

/// Whether what is stale is served after a failure of this kind.
async fn serves_stale(scene: &Scene, kind: OriginErrorKind) -> bool {
    stale(scene).await;
    let answer = scene.ask(give(Err(OriginError::new(kind, "census", "failed")))).await;
    match &answer {
        Ok(hit) => assert_eq!(told(hit), ("old", Some(StaleReason::LoadFailed)), "{scene}"),
        Err(Error::Origin(error)) => assert_eq!(error.kind(), kind, "{scene}"),
        Err(other) => panic!("{scene}: {other:?}"),
    }
    answer.is_ok()
}

#[tokio::test]
async fn by_default_stale_is_served_after_network_errors_timeouts_429_and_5xx() {
    use Failure::{Network, RateLimited, ServerError, Timeout};
    for (kind, class) in failures() {
        let expected =
            class.is_none_or(|one| [Network, Timeout, RateLimited, ServerError].contains(&one));
        for scene in Scene::each(&stale_for_an_hour()) {
            assert_eq!(serves_stale(&scene, kind).await, expected, "{scene}: {kind:?}");
        }
    }
}

#[tokio::test]
async fn the_policy_says_after_which_failures_stale_is_served() {
    use Failure::{ClientError, Network, Other, RateLimited, ServerError, Timeout};
    for allowed in [Network, Timeout, RateLimited, ServerError, ClientError, Other] {
        for (kind, class) in failures() {
            // A loader that gives up asks for it.
            let expected = class.is_none_or(|class| class == allowed);
            let scene = Scene::chain(&stale_for_an_hour().stale_on(Failures::NONE.with(allowed)));
            assert_eq!(serves_stale(&scene, kind).await, expected, "{allowed:?}: {kind:?}");
        }
    }
    for (kind, class) in failures() {
        let none = Scene::chain(&stale_for_an_hour().stale_on(Failures::NONE));
        assert_eq!(serves_stale(&none, kind).await, class.is_none(), "none: {kind:?}");
        let all = Scene::chain(&stale_for_an_hour().stale_on(Failures::ALL));
        assert!(serves_stale(&all, kind).await, "all: {kind:?}");
    }
}

#[tokio::test]
async fn the_call_says_after_which_failures_it_is_content_with_stale() {
    for scene in Scene::each(&stale_for_an_hour().throttle(Duration::ZERO)) {
        stale(&scene).await;
        let strict = patch(|patch| patch.stale_on(Failures::NONE));
        assert!(scene.ask_with(strict, fail()).await.is_err(), "{scene}");
        let lax = patch(|patch| patch.stale_on(Failures::ALL));
        assert!(scene.ask_with(lax, give(Err(status(404)))).await.is_ok(), "{scene}");
        // However it failed, and however stale.
        let any = ReadOptions::default().allow_stale();
        assert!(scene.ask_with(any, give(Err(status(404)))).await.is_ok(), "{scene}");
    }
}

// "404, 401, 403 and other 4xx are answers: they replace or are returned."

#[tokio::test]
async fn an_answer_is_returned_though_something_stale_is_there_and_the_next_call_asks_again() {
    for code in ANSWERS {
        for scene in Scene::each(&stale_for_an_hour()) {
            stale(&scene).await;
            for n in 2..5 {
                match scene.ask(give(Err(status(code)))).await {
                    Err(Error::Origin(error)) => {
                        assert_eq!(error.kind(), OriginErrorKind::Status(code), "{scene}");
                    }
                    other => panic!("{scene}: {other:?}"),
                }
                // No stale value was served, so that there is nothing to be content with.
                assert_eq!(scene.cache.stats().loads, n, "{scene}: {code} is not throttled");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_is_returned_to_who_forces_a_load_of_what_may_be_served_while_it_is_refreshed() {
    let policy = Policy::ttl(ms(100)).stale_while_revalidate(ms(900));
    for code in ANSWERS {
        for scene in Scene::each(&policy) {
            stale(&scene).await;
            match scene.ask_with(ReadOptions::refresh(), give(Err(status(code)))).await {
                Err(Error::Origin(error)) => {
                    assert_eq!(error.kind(), OriginErrorKind::Status(code), "{scene}");
                }
                other => panic!("{scene}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn the_answer_that_there_is_none_replaces_what_is_stale_where_it_is_stored() {
    for code in [404, 410] {
        for scene in Scene::each(&stale_for_an_hour().negative_ttl(ms(100))) {
            stale(&scene).await;
            assert!(scene.ask(give(Err(status(code)))).await.unwrap().is_absent(), "{scene}");
            settle().await;
            for held in scene.held().await {
                assert!(held.unwrap().is_absent(), "{scene}: {code}");
            }
        }
    }
}

#[tokio::test]
async fn a_failure_that_no_stale_value_makes_up_for_does_not_begin_a_throttle() {
    // Stored with more than the policy has use for.
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        let options = SetOptions::ttl(ms(100)).stale_for(Duration::from_hours(1));
        within(scene.cache.set(&scene.key, "old", options)).await.unwrap();
        scene.advance(100);
        for n in 1..4 {
            assert!(scene.ask(fail()).await.is_err(), "{scene}");
            assert_eq!(scene.cache.stats().loads, n, "{scene}: the next call loads again");
        }
    }
}

#[tokio::test]
async fn all_who_wait_for_a_load_that_fails_are_given_what_is_stale() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        let (begun, callers) = scene.crowd(99).await;
        begun.end(Err(status(503)));
        let mut errors = Vec::new();
        for caller in callers {
            let hit = crate::harness::joined(caller).await.unwrap();
            assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
            match hit.failure() {
                Some(Error::Origin(error)) => errors.push(Arc::clone(error)),
                other => panic!("{scene}: {other:?}"),
            }
        }
        assert!(errors.iter().all(|error| Arc::ptr_eq(error, &errors[0])), "{scene}: one error");
    }
}

#[tokio::test]
async fn those_who_share_a_load_that_fails_are_content_each_by_its_own_policy() {
    for scene in Scene::each(&stale_for_an_hour()) {
        stale(&scene).await;
        let (gate, load) = crate::harness::gated();
        let usual = scene.start(load);
        let begun = gate.begun().await;
        let strict = scene.start_with(patch(|patch| patch.stale_if_error(Duration::ZERO)), never());
        scene.joined_by(1).await;
        begun.end(Err(status(503)));
        assert!(crate::harness::joined(usual).await.is_ok(), "{scene}");
        assert!(crate::harness::joined(strict).await.is_err(), "{scene}");
    }
}

// "`fail(reason)`"

#[tokio::test]
async fn a_loader_that_gives_up_has_what_is_stale_served_and_its_reason_told() {
    let gives_up = |context: LoadContext| async move {
        let answer: Answer = Err(context.fail("the quota is\nused up"));
        answer
    };
    for scene in Scene::each(&stale_for_an_hour().stale_on(Failures::NONE)) {
        stale(&scene).await;
        let hit = scene.ask(gives_up).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
        let failure = hit.failure().unwrap().to_string();
        assert!(failure.contains("quota is\\u{a}used up"), "{scene}: {failure}");
        let hit = scene.ask(never()).await.unwrap();
        assert_eq!(told(&hit).1, Some(StaleReason::Throttled), "{scene}: as after any failure");
    }
    for scene in Scene::each(&stale_for_an_hour()) {
        match scene.ask(gives_up).await {
            Err(Error::Origin(error)) => {
                assert_eq!(error.kind(), OriginErrorKind::GaveUp, "{scene}");
                assert_eq!(error.origin(), "census", "{scene}");
            }
            other => panic!("{scene}: {other:?}"),
        }
    }
}
