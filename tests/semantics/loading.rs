//! "Loading": one flight per key, and how it ends.

use std::sync::Arc;

use larder::{Cache, Hit, Key, LoadContext, Policy, ReadOptions, ServedBy, StaleReason, Tier};
use tier_testkit::{Call, Chaos, Fault, Faults};
use tokio::{sync::Barrier, task::JoinHandle};

use crate::{
    harness::{Bench, Loads, bring, failure, gated, joined, key, load_gated, never, within},
    scene::{Boxed, Scene, count, ms, patch, settle, told, waited_for},
};

// "One flight per key per process."

async fn a_thousand_at_once(cache: Cache) {
    let (key, loads) = (key("census:a"), Loads::default());
    let start = Arc::new(Barrier::new(1_000));
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            // Each has a handle of its own.
            let (cache, key, loads) = (cache.clone(), key.clone(), loads.clone());
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                cache.get_or_load(&key, count(&loads, "v")).await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(joined(task).await.unwrap().value(), "v");
    }
    assert_eq!((loads.count(), cache.stats().loads), (1, 1));
}

#[tokio::test]
async fn a_thousand_tasks_that_miss_one_key_cause_one_load() {
    for scene in Scene::each(&Policy::default()) {
        a_thousand_at_once(scene.cache).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_tasks_on_four_threads_that_miss_one_key_cause_one_load() {
    for scene in Scene::each(&Policy::default()) {
        a_thousand_at_once(scene.cache).await;
    }
}

#[tokio::test]
async fn a_thousand_who_wait_for_one_load_are_given_its_value() {
    for scene in Scene::each(&Policy::default()) {
        let (begun, callers) = scene.crowd(999).await;
        begun.bring("v");
        for caller in callers {
            let hit = joined(caller).await.unwrap();
            assert_eq!((told(&hit), hit.served_by()), (("v", None), ServedBy::Origin), "{scene}");
        }
        assert_eq!(scene.cache.stats().loads, 1);
    }
}

#[tokio::test]
async fn one_keys_flight_keeps_no_other_key_waiting() {
    for scene in Scene::each(&Policy::default()) {
        let (_gate, caller) = load_gated(&scene.cache, &scene.key);
        settle().await;
        let other = within(scene.cache.get_or_load(&key("census:b"), bring("b"))).await;
        assert_eq!(other.unwrap().value(), "b", "{scene}");
        assert!(!caller.is_finished(), "{scene}");
    }
}

// "Lower-tier reads are inside the flight: 1000 readers of a key that only tier 3 has cause one read
// of tier 3 and no load."

/// Memory over two tiers that are slow to answer, of which the last has the key.
async fn only_tier_3_has_it() -> (Cache, [Chaos; 2]) {
    let bench = Bench::new();
    let (second, third) = (waited_for(&bench, "second"), waited_for(&bench, "third"));
    let chaos = [second.chaos(), third.chaos()];
    let third: Arc<dyn Tier> = Arc::new(third);
    let below = bench.bare().shared_tier(Arc::clone(&third)).build().unwrap();
    within(below.get_or_load(&key("census:a"), bring("v"))).await.unwrap();
    let builder = bench.bare().tier(bench.memory()).tier(second).shared_tier(third);
    for chaos in &chaos {
        chaos.set(Faults::none().on(Call::Get, Fault::Delay, 1.0));
    }
    (builder.build().unwrap(), chaos)
}

/// A thousand readers of each kind that `read` makes read the lower tiers once.
async fn one_read_of_tier_3<Fut>(read: impl Fn(Cache, Key) -> Fut)
where
    Fut: Future<Output = Hit> + Send + 'static,
{
    let (cache, [second, third]) = only_tier_3_has_it().await;
    let before = [&second, &third].map(|chaos| chaos.calls(Call::Get));
    let readers: Vec<_> =
        (0..1_000).map(|_| tokio::spawn(read(cache.clone(), key("census:a")))).collect();
    for reader in readers {
        assert_eq!(joined(reader).await.value(), "v");
    }
    let after = [&second, &third].map(|chaos| chaos.calls(Call::Get));
    assert_eq!((after[0] - before[0], after[1] - before[1]), (1, 1), "reads of tiers 2 and 3");
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.hits, stats.misses), (0, 1_000, 0), "{stats:?}");
}

#[tokio::test]
async fn a_thousand_loads_of_a_key_that_only_tier_3_has_read_it_once_and_load_nothing() {
    one_read_of_tier_3(|cache: Cache, key: Key| async move {
        cache.get_or_load(&key, never()).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_on_four_threads_read_tier_3_once_and_load_nothing() {
    one_read_of_tier_3(|cache: Cache, key: Key| async move {
        cache.get_or_load(&key, never()).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_thousand_gets_of_a_key_that_only_tier_3_has_read_it_once() {
    one_read_of_tier_3(
        |cache: Cache, key: Key| async move { cache.get(&key).await.unwrap().unwrap() },
    )
    .await;
}

#[tokio::test]
async fn a_thousand_batches_with_a_key_that_only_tier_3_has_read_it_once() {
    one_read_of_tier_3(|cache: Cache, key: Key| async move {
        let load = |_: Vec<LoadContext>| async { Err(failure("loaded though it is there")) };
        cache.get_or_load_many(&[key], load).await.unwrap().remove(0).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_thousand_gets_that_leave_memory_out_read_tier_3_once() {
    one_read_of_tier_3(|cache: Cache, key: Key| async move {
        let skip = ReadOptions::default().skip("memory");
        cache.get_with(&key, skip).await.unwrap().unwrap()
    })
    .await;
}

// "The load runs in its own task. Waiter cancelled: only that waiter ends."

#[tokio::test]
async fn a_load_runs_in_its_own_task() {
    for scene in Scene::each(&Policy::default()) {
        let (gate, load) = gated();
        // Polled until the load has begun, by nobody but this test.
        let mut call = Box::pin(scene.cache.get_or_load(&scene.key, load));
        let begun = tokio::select! {
            biased;
            begun = gate.begun() => begun,
            answer = &mut call => panic!("{answer:?}"),
        };
        // Never polled again, and dropped: the load goes on.
        drop(call);
        begun.bring("v");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "v", "{scene}");
    }
}

#[tokio::test]
async fn a_waiter_that_is_cancelled_ends_alone() {
    for scene in Scene::each(&Policy::default()) {
        let (begun, mut callers) = scene.crowd(9).await;
        // Of those who wait, and the one who started it.
        for goes in [callers.remove(5), callers.remove(0)] {
            goes.abort();
            assert!(within(goes).await.unwrap_err().is_cancelled());
        }
        begun.bring("v");
        assert_eq!(callers.len(), 8);
        for stays in callers {
            assert_eq!(joined(stays).await.unwrap().value(), "v", "{scene}");
        }
    }
}

// "All waiters gone: the load completes anyway and is stored (configurable: cancel)."

#[tokio::test]
async fn a_load_whose_waiters_have_all_gone_is_stored() {
    for scene in Scene::each(&Policy::default()) {
        let (begun, callers) = scene.crowd(9).await;
        callers.iter().for_each(JoinHandle::abort);
        settle().await;
        begun.bring("v");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "v", "{scene}");
        assert!(scene.held().await.iter().all(Option::is_some), "{scene}");
    }
}

/// Whether the load that this is a part of is still there.
fn alive() -> (Arc<()>, impl Fn() -> bool) {
    let part = Arc::new(());
    let watched = Arc::downgrade(&part);
    (part, move || watched.strong_count() > 0)
}

/// A load that never ends, and of which `part` is a part.
fn hang_with(part: Arc<()>) -> impl FnOnce(LoadContext) -> Boxed + Send + 'static {
    move |_| {
        Box::pin(async move {
            let answer = std::future::pending().await;
            drop(part);
            answer
        })
    }
}

#[tokio::test]
async fn a_load_that_may_be_cancelled_is_when_all_waiters_have_gone() {
    for by_call in [false, true] {
        for scene in Scene::each(&Policy::default().cancel_abandoned(!by_call)) {
            let (part, alive) = alive();
            let options = patch(|patch| if by_call { patch.cancel_abandoned(true) } else { patch });
            let first = scene.start_with(options, hang_with(part));
            scene.loading(1).await;
            let second = scene.start(never());
            scene.joined_by(1).await;
            first.abort();
            settle().await;
            assert!(alive(), "{scene}: one still waits");
            second.abort();
            settle().await;
            assert!(!alive(), "{scene}: nobody waits");
            scene.next_call_loads().await;
        }
    }
}

#[tokio::test]
async fn a_refresh_that_may_be_cancelled_is_when_all_waiters_have_gone() {
    for scene in Scene::each(&Policy::default().cancel_abandoned(true)) {
        scene.have("old").await;
        let (part, alive) = alive();
        let caller = scene.start_with(ReadOptions::refresh(), hang_with(part));
        scene.loading(2).await;
        caller.abort();
        settle().await;
        assert!(!alive(), "{scene}: nobody waits, and nobody has taken what is stale");
    }
}

#[tokio::test]
async fn a_call_may_keep_a_load_that_its_source_would_cancel() {
    for scene in Scene::each(&Policy::default().cancel_abandoned(true)) {
        let (part, alive) = alive();
        let keep = patch(|patch| patch.cancel_abandoned(false));
        let caller = scene.start_with(keep, hang_with(part));
        scene.loading(1).await;
        caller.abort();
        settle().await;
        assert!(alive(), "{scene}");
    }
}

#[tokio::test]
async fn a_refresh_behind_a_stale_hit_is_not_abandoned_though_nobody_waits() {
    let policy = Policy::ttl(ms(100)).stale_while_revalidate(ms(900)).cancel_abandoned(true);
    for scene in Scene::each(&policy) {
        scene.have("old").await;
        scene.advance(100);
        let (gate, load) = gated();
        let caller = scene.start(load);
        let begun = gate.begun().await;
        assert_eq!(told(&joined(caller).await.unwrap()).1, Some(StaleReason::Revalidating));
        settle().await;
        begun.bring("new");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "new", "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_was_too_slow_for_its_callers_is_not_abandoned() {
    // "`soft_timeout`: ... the load goes on and is stored."
    let policy = Policy::ttl(ms(100)).stale_if_error(ms(900)).cancel_abandoned(true);
    for scene in Scene::each(&policy.soft_timeout(ms(50))) {
        scene.have("old").await;
        scene.advance(100);
        let (gate, load) = gated();
        let caller = scene.start(load);
        let begun = gate.begun().await;
        assert_eq!(told(&joined(caller).await.unwrap()).1, Some(StaleReason::LoadSlow));
        settle().await;
        begun.bring("new");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "new", "{scene}");
    }
}
