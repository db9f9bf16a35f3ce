//! "Loading": the answer that there is none.

use std::time::Duration;

use async_trait::async_trait;
use larder::{
    Error, Hit, Load, LoadContext, Loaded, Origin, OriginErrorKind, Policy, ReadOptions, Request,
    ServedBy, StaleReason,
};

use crate::{
    harness::{Bench, Loads, bring, close, key, never, within},
    scene::{Answer, Scene, fail, give, ms, patch, settle, status, told},
};

// "Negative answers: a loader may return "absent"; it is stored for `negative_ttl` (default: not
// stored)"

#[tokio::test]
async fn that_there_is_none_is_not_stored_by_default() {
    for scene in Scene::each(&Policy::default()) {
        for n in 1..4 {
            let hit = scene.ask(give(Ok(Loaded::absent()))).await.unwrap();
            assert!(hit.is_absent() && hit.value().is_empty(), "{scene}");
            assert_eq!(hit.served_by(), ServedBy::Origin, "{scene}");
            settle().await;
            assert!(scene.get().await.is_none(), "{scene}");
            assert_eq!(scene.cache.stats().not_stored, n, "{scene}");
        }
    }
}

#[tokio::test]
async fn that_there_is_none_is_stored_for_the_negative_ttl() {
    for scene in Scene::each(&Policy::ttl(ms(5_000)).negative_ttl(ms(100))) {
        let hit = scene.ask(give(Ok(Loaded::absent()))).await.unwrap();
        assert_eq!((hit.is_absent(), hit.fresh_for()), (true, ms(100)), "{scene}");
        scene.advance(99);
        assert!(scene.ask(never()).await.unwrap().is_absent(), "{scene}");
        scene.advance(1);
        assert!(scene.get().await.is_none(), "{scene}");
        let hit = scene.ask(bring("v")).await.unwrap();
        assert_eq!((told(&hit), hit.is_absent()), (("v", None), false), "{scene}");
    }
}

#[tokio::test]
async fn that_there_is_none_survives_a_restart_in_sqlite() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let policy = Policy::default().negative_ttl(ms(100));
    let chain = || bench.builder().policy("census", policy.clone()).build().unwrap();
    let cache = chain();
    within(cache.get_or_load(&key, give(Ok(Loaded::absent())))).await.unwrap();
    close(cache).await;
    let hit = within(chain().get_or_load(&key, never())).await.unwrap();
    assert_eq!((hit.is_absent(), hit.served_by()), (true, ServedBy::Tier("sqlite")));
}

#[tokio::test]
async fn the_loader_may_say_how_long_that_there_is_none_is_stored() {
    for policy in [Policy::default(), Policy::default().negative_ttl(ms(5_000))] {
        for scene in Scene::each(&policy) {
            scene.ask(give(Ok(Loaded::absent().ttl(ms(100))))).await.unwrap();
            scene.advance(99);
            assert!(scene.ask(never()).await.unwrap().is_absent(), "{scene}");
            scene.advance(1);
            assert!(scene.get().await.is_none(), "{scene}");
        }
    }
}

#[tokio::test]
async fn the_negative_ttl_of_the_call_beats_that_of_the_source() {
    for scene in Scene::each(&Policy::default().negative_ttl(ms(100))) {
        let call = patch(|patch| patch.negative_ttl(Duration::ZERO));
        scene.ask_with(call, give(Ok(Loaded::absent()))).await.unwrap();
        settle().await;
        assert!(scene.get().await.is_none(), "{scene}");
    }
    let scene = Scene::memory(&Policy::default());
    absent_for_100(&scene, patch(|patch| patch.negative_ttl(ms(100)))).await;
}

#[tokio::test]
async fn the_negative_ttl_of_the_call_beats_that_of_the_source_in_lower_tiers_too() {
    for scene in Scene::each(&Policy::default()) {
        absent_for_100(&scene, patch(|patch| patch.negative_ttl(ms(100)))).await;
    }
}

async fn absent_for_100(scene: &Scene, options: ReadOptions) {
    scene.ask_with(options, give(Ok(Loaded::absent()))).await.unwrap();
    scene.advance(99);
    assert!(scene.get().await.is_some_and(|hit| hit.is_absent()), "{scene}");
    scene.advance(1);
    assert!(scene.get().await.is_none(), "{scene}");
}

// "and is a hit that says absent, distinct from a miss."

#[tokio::test]
async fn that_there_is_none_is_a_hit_and_no_miss() {
    for scene in Scene::each(&Policy::default().negative_ttl(ms(100))) {
        assert!(scene.get().await.is_none(), "{scene}: a miss");
        scene.ask(give(Ok(Loaded::absent()))).await.unwrap();
        let before = scene.cache.stats();
        let hit: Hit = scene.get().await.unwrap();
        assert!(hit.is_absent() && hit.entry().is_absent() && hit.value().is_empty(), "{scene}");
        assert_eq!(hit.served_by(), ServedBy::Tier(scene.tiers[0].name()), "{scene}");
        let typed = within(scene.cache.get_as::<serde_json::Value>(&scene.key)).await.unwrap();
        assert!(typed.is_none(), "{scene}: there is nothing to decode");
        let after = scene.cache.stats();
        assert_eq!((after.hits - before.hits, after.misses - before.misses), (2, 0), "{scene}");
    }
}

#[tokio::test]
async fn an_empty_value_is_a_value() {
    for scene in Scene::each(&Policy::default()) {
        scene.ask(bring("")).await.unwrap();
        let hit = scene.get().await.unwrap();
        assert!(!hit.is_absent() && hit.value().is_empty(), "{scene}");
    }
}

/// An origin that has no answer, and says so by a status.
#[derive(Debug)]
struct NotFound(u16, Loads);

#[async_trait]
impl Origin for NotFound {
    async fn load(&self, _load: Load) -> Answer {
        self.1.add();
        Err(status(self.0))
    }
}

#[tokio::test]
async fn not_found_and_gone_from_an_origin_mean_that_there_is_none_where_that_is_stored() {
    let request = Request::new("census").param("cbsa", 14500);
    for (code, negative_ttl, expected) in [
        (404, 100, 1),
        (410, 100, 1),
        // Errors, each of which is asked for anew.
        (404, 0, 3),
        (410, 0, 3),
        (400, 100, 3),
        (403, 100, 3),
    ] {
        let loads = Loads::default();
        let policy = Policy::default().negative_ttl(ms(negative_ttl));
        let scene = Scene::chain(&policy)
            .with(|scene| scene.builder(&policy).origin("census", NotFound(code, loads.clone())));
        for _ in 0..3 {
            match within(scene.cache.request(&request)).await {
                Ok(hit) => assert!(hit.is_absent() && expected == 1, "{code}"),
                Err(Error::Origin(error)) => {
                    assert_eq!((error.kind(), expected), (OriginErrorKind::Status(code), 3));
                }
                Err(other) => panic!("{code}: {other:?}"),
            }
        }
        assert_eq!(loads.count(), expected, "{code} with {negative_ttl} ms");
    }
}

#[tokio::test]
async fn that_there_is_none_replaces_what_is_stored_in_every_tier() {
    for scene in Scene::each(&Policy::ttl(ms(100)).negative_ttl(ms(100))) {
        scene.have("old").await;
        scene.ask_with(ReadOptions::refresh(), give(Ok(Loaded::absent()))).await.unwrap();
        settle().await;
        for held in scene.held().await {
            assert!(held.unwrap().is_absent(), "{scene}");
        }
    }
}

#[tokio::test]
async fn that_there_is_none_removes_what_is_stored_though_it_is_not_stored_itself() {
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
        scene.have("old").await;
        scene.advance(100);
        assert!(scene.ask(give(Ok(Loaded::absent()))).await.unwrap().is_absent(), "{scene}");
        settle().await;
        assert_eq!(scene.held().await.iter().flatten().count(), 0, "{scene}");
        assert!(scene.ask(fail()).await.is_err(), "{scene}: the old value is no fallback");
    }
}

#[tokio::test]
async fn that_there_is_none_may_be_stale_and_revalidated_as_any_answer() {
    let policy = Policy::default().negative_ttl(ms(100)).stale_if_error(ms(900));
    for scene in Scene::each(&policy.throttle(Duration::ZERO)) {
        scene.ask(give(Ok(Loaded::absent()))).await.unwrap();
        scene.advance(100);
        let hit = scene.ask(fail()).await.unwrap();
        assert_eq!((hit.is_absent(), told(&hit).1), (true, Some(StaleReason::LoadFailed)));
        let load = |context: LoadContext| async move {
            assert!(context.stored.as_ref().unwrap().is_absent());
            Ok(context.not_modified())
        };
        let hit = scene.ask(load).await.unwrap();
        assert!(hit.is_absent() && hit.is_revalidated(), "{scene}");
        assert_eq!(hit.fresh_for(), ms(100), "{scene}");
    }
}
