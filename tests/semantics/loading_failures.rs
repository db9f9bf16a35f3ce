//! "Loading": loads that panic, are aborted, or fail; nobody hangs, and the next caller starts anew.

use std::sync::Arc;

use larder::{Error, Failures, LoadContext, OriginErrorKind, Policy, ServedBy, StaleReason};
use tokio::runtime::Builder;

use crate::{
    harness::{bring, failure, load_gated, never, within},
    scene::{Answer, Boxed, Scene, error, fail, give, hang, ms, settle, told},
};

// "Loader panics or is aborted: its waiters get an error that says so, the next caller starts anew,
// the flight table is empty afterwards."

fn panics() -> impl FnOnce(LoadContext) -> Boxed + Send + 'static {
    |_| {
        Box::pin(async {
            settle().await;
            panic!("the loader broke")
        })
    }
}

#[tokio::test]
async fn a_thousand_who_wait_for_a_load_that_panics_are_told_and_the_next_caller_succeeds() {
    for scene in Scene::each(&Policy::default()) {
        let mut callers = vec![scene.start(panics())];
        scene.loading(1).await;
        callers.extend(scene.followers(999));
        for caller in callers {
            match error(caller).await {
                Error::LoadPanicked { key, message } => {
                    assert_eq!((key, message.as_str()), (scene.key.clone(), "the loader broke"));
                }
                other => panic!("{scene}: {other:?}"),
            }
        }
        assert_eq!(scene.cache.stats().joined, 999, "{scene}");
        assert!(scene.get().await.is_none(), "{scene}");
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_loader_that_panics_before_it_makes_its_future_is_told_too() {
    for scene in Scene::each(&Policy::default()) {
        // As `never` does.
        let answer = scene.ask(never()).await;
        assert!(matches!(answer, Err(Error::LoadPanicked { .. })), "{scene}: {answer:?}");
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_panic_is_no_failure_that_allows_stale_values_unless_the_policy_says_all_do() {
    let policy = Policy::ttl(ms(100)).stale_if_error(ms(900));
    for scene in Scene::each(&policy) {
        scene.have("old").await;
        scene.advance(100);
        assert!(matches!(scene.ask(never()).await, Err(Error::LoadPanicked { .. })), "{scene}");
        scene.next_call_loads().await;
    }
    for scene in Scene::each(&policy.clone().stale_on(Failures::ALL)) {
        scene.have("old").await;
        scene.advance(100);
        let hit = scene.ask(never()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
        assert!(matches!(hit.failure(), Some(Error::LoadPanicked { .. })), "{scene}");
    }
}

#[test]
fn a_thousand_who_wait_for_a_load_whose_runtime_ends_are_told_and_the_next_caller_succeeds() {
    for scene in Scene::each(&Policy::default()) {
        let doomed = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // Kept, so that nothing but the end of its runtime ends the load.
        let _begun = doomed.block_on(async {
            let (gate, _caller) = load_gated(&scene.cache, &scene.key);
            gate.begun().await
        });
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let callers = scene.followers(1_000);
            scene.joined_by(1_000).await;
            doomed.shutdown_background();
            for caller in callers {
                match error(caller).await {
                    Error::LoadAborted { key } => assert_eq!(key, scene.key),
                    other => panic!("{scene}: {other:?}"),
                }
            }
            scene.next_call_loads().await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_wait_for_a_load_that_closing_drops_are_told() {
    for scene in Scene::each(&Policy::default()) {
        let mut callers = vec![scene.start(hang())];
        scene.loading(1).await;
        callers.extend(scene.followers(999));
        scene.joined_by(999).await;
        let report = within(scene.cache.close(ms(1))).await;
        assert_eq!(report.dropped_loads, std::slice::from_ref(&scene.key), "{scene}");
        for caller in callers {
            let error = error(caller).await;
            assert!(matches!(error, Error::LoadAborted { .. }), "{scene}: {error:?}");
        }
        assert!(matches!(scene.ask(bring("v")).await, Err(Error::Closed)), "{scene}");
        // Another chain over the same tiers is not blocked by what has been dropped.
        scene.with(|scene| scene.builder(&Policy::default())).next_call_loads().await;
    }
}

// "Loader fails: all waiters of that flight get that error (shared, `Arc`), it is not stored; the
// next call loads again, subject to the throttle."

#[tokio::test]
async fn a_loaders_error_is_shared_by_a_thousand_who_wait_and_not_stored() {
    for scene in Scene::each(&Policy::default()) {
        let (begun, callers) = scene.crowd(999).await;
        begun.end(Err(failure("unplugged")));
        let mut errors = Vec::new();
        for caller in callers {
            match error(caller).await {
                Error::Origin(error) => errors.push(error),
                other => panic!("{scene}: {other:?}"),
            }
        }
        assert!(errors.iter().all(|error| Arc::ptr_eq(error, &errors[0])), "{scene}: one error");
        assert_eq!(errors[0].kind(), OriginErrorKind::Network);
        assert!(errors[0].to_string().contains("unplugged"));
        assert_eq!(scene.held().await.iter().flatten().count(), 0, "{scene}: it is not stored");
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_load_that_failed_is_tried_again_by_each_call_where_nothing_stale_is_there() {
    for scene in Scene::each(&Policy::default().stale_if_error(ms(900))) {
        for n in 1..=5 {
            assert!(matches!(scene.ask(fail()).await, Err(Error::Origin(_))));
            assert_eq!(scene.cache.stats().loads, n, "{scene}: no throttle without a stale value");
        }
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_value_that_has_been_loaded_is_found_by_the_next_call() {
    for scene in Scene::each(&Policy::default()) {
        let loaded: Answer = Ok("v".into());
        assert_eq!(scene.ask(give(loaded)).await.unwrap().served_by(), ServedBy::Origin);
        let first = ServedBy::Tier(scene.tiers[0].name());
        assert_eq!(scene.ask(never()).await.unwrap().served_by(), first, "{scene}");
    }
}
