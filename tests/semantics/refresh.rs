//! "Loading": refreshes behind hits, of what is fresh still and of what is stale.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use larder::{
    BuildError, Error, Load, LoadContext, Loaded, Origin, Policy, PolicyPatch, ReadOptions,
    Request, SetOptions, StaleReason,
};
use tier_testkit::{Call, Fault, Faults};

use crate::{
    harness::{Bench, Loads, bring, gated, joined, key, never, within},
    scene::{Answer, LOWER, Scene, count, fail, fail_later, give, hang, ms, patch, settle, told},
};

/// Fresh for 100 ms, and refreshed from 80 ms on.
fn ahead() -> Policy {
    Policy::ttl(ms(100)).refresh_ahead(0.8)
}

/// Fresh for 100 ms, and served for 900 more while it is refreshed.
fn behind() -> Policy {
    Policy::ttl(ms(100)).stale_while_revalidate(ms(900))
}

// "Refresh-ahead: a hit later than `refresh_ahead` (share of TTL...) returns at once and starts one
// refresh behind."

#[tokio::test]
async fn a_late_hit_returns_at_once_and_starts_a_refresh() {
    for scene in Scene::each(&ahead()) {
        scene.have("old").await;
        scene.advance(79);
        assert_eq!(told(&scene.ask(never()).await.unwrap()), ("old", None), "{scene}");
        settle().await;
        scene.advance(1);
        let (gate, load) = gated();
        assert_eq!(told(&scene.ask(load).await.unwrap()), ("old", None), "{scene}: at once");
        let begun = gate.begun().await;
        assert_eq!(begun.context.stored.as_ref().unwrap().value(), "old", "{scene}");
        begun.bring("new");
        settle().await;
        let hit = scene.get().await.unwrap();
        assert_eq!((told(&hit), hit.fresh_for()), (("new", None), ms(100)), "{scene}");
        assert!(scene.held().await.iter().flatten().all(|held| held.value() == "new"), "{scene}");
        assert_eq!(scene.cache.stats().refreshes, 1, "{scene}");
    }
}

#[tokio::test]
async fn many_late_hits_start_one_refresh_and_none_of_them_waits_for_it() {
    for scene in Scene::each(&ahead()) {
        scene.have("old").await;
        scene.advance(90);
        let (gate, load) = gated();
        scene.ask(load).await.unwrap();
        let begun = gate.begun().await;
        for _ in 0..100 {
            let caller = scene.start(never());
            settle().await;
            assert!(caller.is_finished(), "{scene}: it waits for the refresh");
            assert_eq!(told(&joined(caller).await.unwrap()), ("old", None), "{scene}");
        }
        begun.bring("new");
        settle().await;
        assert_eq!(scene.ask(never()).await.unwrap().value(), "new", "{scene}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn late_hits_on_four_threads_start_one_refresh() {
    for scene in [Scene::memory(&ahead()), Scene::chain(&ahead())] {
        scene.have("old").await;
        scene.advance(90);
        let loads = Loads::default();
        // No refresh ends before all have been served, or it would be no late hit any more.
        let served = Arc::new(tokio::sync::Barrier::new(65));
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (loads, ended) = (loads.clone(), Arc::clone(&served));
                let (cache, key, served) =
                    (scene.cache.clone(), scene.key.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    let load = move |_| async move {
                        loads.add();
                        ended.wait().await;
                        Ok(Loaded::new("new"))
                    };
                    let hit = within(cache.get_or_load(&key, load)).await.unwrap();
                    served.wait().await;
                    hit
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(joined(caller).await.value(), "old", "{scene}");
        }
        assert_eq!(loads.count(), 1, "{scene}");
    }
}

#[tokio::test]
async fn the_share_is_of_the_lifetime_that_the_value_has() {
    for scene in Scene::each(&ahead()) {
        let load = give(Ok(Loaded::new("old").ttl(ms(1_000))));
        scene.ask(load).await.unwrap();
        scene.advance(799);
        scene.ask(never()).await.unwrap();
        scene.advance(1);
        let loads = Loads::default();
        scene.ask(count(&loads, "new")).await.unwrap();
        settle().await;
        assert_eq!(loads.count(), 1, "{scene}");
    }
}

#[tokio::test]
async fn a_refresh_that_says_nothing_has_changed_renews_the_lifetime() {
    for scene in Scene::each(&ahead()) {
        scene.have("old").await;
        scene.advance(80);
        let load = |context: LoadContext| async move { Ok(context.not_modified()) };
        scene.ask(load).await.unwrap();
        settle().await;
        let hit = scene.get().await.unwrap();
        assert_eq!((told(&hit), hit.fresh_for()), (("old", None), ms(100)), "{scene}");
    }
}

#[tokio::test]
async fn a_refresh_ahead_that_fails_harms_no_hit_and_is_tried_again_after_the_throttle() {
    let policy = Policy::ttl(Duration::from_hours(1)).refresh_ahead(0.5);
    for scene in Scene::each(&policy) {
        scene.have("old").await;
        scene.bench.clock.advance(Duration::from_mins(30));
        for n in 2..5 {
            for _ in 0..10 {
                assert_eq!(told(&scene.ask(fail()).await.unwrap()), ("old", None), "{scene}");
                settle().await;
                assert_eq!(scene.cache.stats().loads, n, "{scene}: once in 30 s");
                scene.advance(2_999);
            }
            scene.advance(30_000);
        }
    }
}

#[tokio::test]
async fn only_calls_that_may_load_refresh_ahead() {
    for scene in Scene::each(&ahead()) {
        scene.have("old").await;
        scene.advance(90);
        assert_eq!(scene.get().await.unwrap().value(), "old");
        scene.ask_with(ReadOptions::cached_only(), never()).await.unwrap();
        settle().await;
        assert_eq!(scene.cache.stats().loads, 1, "{scene}");
        let scene = scene.with(|scene| scene.builder(&ahead()).offline(true));
        scene.ask(never()).await.unwrap();
        settle().await;
        assert_eq!(scene.cache.stats().loads, 0, "{scene}: offline");
    }
}

#[tokio::test]
async fn without_refresh_ahead_hits_start_nothing() {
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        scene.have("old").await;
        scene.advance(99);
        scene.ask(never()).await.unwrap();
        settle().await;
        assert_eq!(scene.cache.stats().loads, 1, "{scene}");
    }
}

#[tokio::test]
async fn refresh_ahead_of_the_call_beats_that_of_the_source() {
    for scene in Scene::each(&ahead()) {
        scene.have("old").await;
        let mut off = PolicyPatch::default();
        off.refresh_ahead = Some(None);
        let off = ReadOptions::default().policy(off);
        scene.advance(80);
        scene.ask_with(off, never()).await.unwrap();
        settle().await;
        assert_eq!(scene.cache.stats().loads, 1, "{scene}: switched off");
    }
    for scene in Scene::each(&ahead()) {
        scene.have("old").await;
        let early = patch(|patch| patch.refresh_ahead(0.3));
        scene.advance(29);
        scene.ask_with(early.clone(), never()).await.unwrap();
        scene.advance(1);
        scene.ask_with(early, bring("new")).await.unwrap();
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "new", "{scene}");
    }
}

// "(share of TTL, 0-1, others refused at start)"

#[tokio::test]
async fn a_refresh_ahead_that_is_no_share_is_refused_at_start_and_by_the_call() {
    let scene = Scene::memory(&Policy::default());
    for share in [-0.1, 0.0, 1.0, 1.1, 80.0, f64::NAN, f64::INFINITY] {
        let policy = Policy::default().refresh_ahead(share);
        match scene.builder(&policy).build() {
            Err(BuildError::Policy { of, problem }) => {
                assert!(of.contains("census") && problem.contains("refresh_ahead"), "{problem}");
            }
            other => panic!("{share}: {other:?}"),
        }
        assert!(Bench::new().bare().default_policy(policy).build().is_err(), "{share}");
        let call = patch(|patch| patch.refresh_ahead(share));
        assert!(matches!(scene.ask_with(call, never()).await, Err(Error::Policy { .. })));
    }
    for share in [0.001, 0.5, 0.999] {
        assert!(scene.builder(&Policy::default().refresh_ahead(share)).build().is_ok(), "{share}");
    }
}

// "Stale-while-revalidate: a stale hit within its limit returns at once, one refresh behind"

#[tokio::test]
async fn a_stale_hit_returns_at_once_with_one_refresh_behind() {
    for scene in Scene::each(&behind()) {
        scene.have("old").await;
        scene.advance(100);
        let (gate, load) = gated();
        let first = scene.ask(load).await.unwrap();
        assert_eq!(told(&first), ("old", Some(StaleReason::Revalidating)), "{scene}");
        assert!(first.failure().is_none(), "{scene}");
        let begun = gate.begun().await;
        for _ in 0..100 {
            let hit = scene.ask(never()).await.unwrap();
            assert_eq!(told(&hit), ("old", Some(StaleReason::Revalidating)), "{scene}");
        }
        begun.bring("new");
        settle().await;
        assert_eq!(told(&scene.ask(never()).await.unwrap()), ("new", None), "{scene}");
    }
}

#[tokio::test]
async fn a_stale_hit_past_its_limit_waits_for_its_load() {
    for scene in Scene::each(&behind().stale_if_error(Duration::from_hours(1))) {
        scene.have("old").await;
        scene.advance(999);
        let hit = scene.ask(fail_later()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::Revalidating)), "{scene}");
        settle().await;
        scene.advance(30_000);
        let caller = scene.start(hang());
        scene.loading(3).await;
        settle().await;
        assert!(!caller.is_finished(), "{scene}");
    }
}

#[tokio::test]
async fn a_stale_hit_returns_at_once_however_soon_its_refresh_fails() {
    for scene in Scene::each(&behind()) {
        scene.have("old").await;
        scene.advance(100);
        let hit = scene.ask(fail()).await;
        let hit = hit.unwrap_or_else(|error| panic!("{scene}: {error}"));
        assert_eq!(told(&hit).0, "old", "{scene}");
    }
}

#[tokio::test]
async fn a_refresh_behind_that_failed_is_not_tried_again_during_the_throttle() {
    let policy = Policy::ttl(ms(100)).stale_while_revalidate(Duration::from_hours(1));
    for scene in Scene::each(&policy) {
        scene.have("old").await;
        scene.advance(100);
        scene.ask(fail_later()).await.unwrap();
        settle().await;
        scene.advance(29_999);
        assert_eq!(scene.ask(never()).await.unwrap().value(), "old", "{scene}");
        settle().await;
        assert_eq!(scene.cache.stats().loads, 2, "{scene}");
        scene.advance(1);
        scene.ask(bring("new")).await.unwrap();
        settle().await;
        assert_eq!(told(&scene.get().await.unwrap()), ("new", None), "{scene}");
    }
}

#[tokio::test]
async fn what_only_a_lower_tier_has_is_served_stale_at_once_too() {
    let scene = Scene::chain(&behind());
    scene.have("old").await;
    let scene = scene.restarted(&behind());
    scene.advance(100);
    let hit = scene.ask(hang()).await.unwrap();
    assert_eq!(told(&hit), ("old", Some(StaleReason::Revalidating)));
    assert_eq!(hit.served_by(), LOWER);
}

#[tokio::test]
async fn a_value_that_was_made_stale_on_purpose_is_loaded_before_it_is_served() {
    for scene in Scene::each(&behind().stale_if_error(ms(900))) {
        scene.have("old").await;
        within(scene.cache.expire(&scene.key)).await.unwrap();
        assert_eq!(told(&scene.ask(bring("new")).await.unwrap()), ("new", None), "{scene}");
    }
}

#[tokio::test]
async fn stale_while_revalidate_of_the_call_beats_that_of_the_source() {
    for scene in Scene::each(&behind()) {
        scene.have("old").await;
        scene.advance(100);
        let waits = patch(|patch| patch.stale_while_revalidate(Duration::ZERO));
        assert_eq!(scene.ask_with(waits, bring("new")).await.unwrap().value(), "new", "{scene}");
    }
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
        scene.have("old").await;
        scene.advance(100);
        let at_once = patch(|patch| patch.stale_while_revalidate(ms(900)));
        let hit = scene.ask_with(at_once, hang()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::Revalidating)), "{scene}");
    }
}

// "a caller that holds a stale value never waits on a flight."

#[tokio::test]
async fn who_holds_a_stale_value_does_not_wait_for_a_load_that_another_began() {
    for scene in Scene::each(&behind()) {
        scene.have("old").await;
        scene.advance(100);
        // One that waits for it, because it wants nothing else.
        let refresh = scene.start_with(ReadOptions::refresh(), hang());
        scene.loading(2).await;
        let caller = scene.start(never());
        settle().await;
        assert!(caller.is_finished() && !refresh.is_finished(), "{scene}");
        assert_eq!(told(&joined(caller).await.unwrap()).0, "old", "{scene}");
    }
}

#[tokio::test]
async fn who_can_have_a_fresh_value_does_not_wait_for_a_load_that_another_began() {
    for other in [ReadOptions::refresh(), ReadOptions::refresh().skip("lower")] {
        for scene in [Scene::lower(&behind()), Scene::chain(&behind())] {
            scene.have("v").await;
            let scene = scene.restarted(&behind());
            let other = scene.start_with(other.clone(), hang());
            scene.loading(1).await;
            let caller = scene.start(never());
            settle().await;
            assert!(caller.is_finished() && !other.is_finished(), "{scene}");
            assert_eq!(told(&joined(caller).await.unwrap()), ("v", None), "{scene}");
        }
    }
}

#[tokio::test]
async fn who_holds_a_stale_value_in_memory_does_not_wait_for_lower_tiers_either() {
    let scene = Scene::chain(&behind());
    scene.have("old").await;
    scene.advance(100);
    scene.chaos().set(Faults::none().on(Call::Get, Fault::Hang, 1.0));
    let caller = scene.start(bring("new"));
    settle().await;
    assert!(caller.is_finished());
    let expected = ("old", Some(StaleReason::Revalidating));
    assert_eq!(told(&joined(caller).await.unwrap()), expected);
    scene.chaos().heal();
}

/// An origin that counts, and answers when the test lets others run.
#[derive(Debug, Default)]
struct Counting(Loads);

#[async_trait]
impl Origin for Counting {
    async fn load(&self, load: Load) -> Answer {
        let call = self.0.add();
        assert_eq!(load.stored.is_some(), call > 1, "it is told what is stored");
        settle().await;
        Ok(Loaded::new(format!("v{call}")))
    }
}

#[tokio::test]
async fn requests_are_refreshed_behind_hits_by_their_origin() {
    for (policy, at, reason) in
        [(ahead(), 80, None), (behind(), 100, Some(StaleReason::Revalidating))]
    {
        let scene = Scene::chain(&policy)
            .with(|scene| scene.builder(&policy).origin("census", Counting::default()));
        let request = Request::new("census").param("cbsa", 14500);
        assert_eq!(within(scene.cache.request(&request)).await.unwrap().value(), "v1");
        scene.advance(at);
        let hit = within(scene.cache.request(&request)).await.unwrap();
        assert_eq!(told(&hit), ("v1", reason));
        settle().await;
        settle().await;
        let hit = within(scene.cache.request(&request)).await.unwrap();
        assert_eq!(told(&hit), ("v2", None));
    }
}

#[tokio::test]
async fn a_refresh_that_finds_a_newer_value_below_loads_nothing() {
    for (policy, at) in [(ahead(), 80), (behind(), 100)] {
        let scene = Scene::chain(&policy);
        scene.have("old").await;
        scene.advance(at);
        // As another process would.
        let below = scene.bench.bare().shared_tier(Arc::clone(&scene.tiers[1])).build().unwrap();
        within(below.set(&key("census:a"), "newer", SetOptions::default())).await.unwrap();
        assert_eq!(scene.ask(never()).await.unwrap().value(), "old");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "newer");
        assert_eq!(scene.cache.stats().loads, 1);
    }
}
