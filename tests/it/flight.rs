//! One load per key at a time, and none that blocks a key for ever.

use std::{
    future::Future,
    sync::{Arc, Barrier as ThreadBarrier},
    time::Duration,
};

use larder::{
    Cache, Error, Key, LoadContext, Loaded, OriginError, OriginErrorKind, Request, ServedBy,
    SetOptions,
};
use tier_testkit::CountingOrigin;
use tokio::{
    sync::{Barrier, oneshot},
    task::JoinHandle,
};

use crate::harness::{
    Bench, Loads, bring, close, failure, joined, key, load_gated, never, until, within,
};

type Answer = Result<larder::Hit, Error>;

/// One more who asks for `key`, and must not be the one that loads.
fn follow(cache: &Cache, key: &Key) -> JoinHandle<Answer> {
    let (cache, key) = (cache.clone(), key.clone());
    tokio::spawn(async move { cache.get_or_load(&key, never()).await })
}

/// Waits until `readers` wait for another one's load.
async fn until_joined(cache: &Cache, readers: u64) {
    until(|| cache.stats().joined >= readers).await;
}

/// Starts `readers` at once on one missing key whose load ends when all others wait for it.
async fn stampede(readers: u64) {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (cache, loads) = (bench.cache(), Loads::default());
    let tasks: Vec<_> = (0..readers)
        .map(|_| {
            let (cache, key, loads) = (cache.clone(), key.clone(), loads.clone());
            tokio::spawn(async move {
                let watched = cache.clone();
                let load = move |_| async move {
                    loads.add();
                    until_joined(&watched, readers - 1).await;
                    Ok(Loaded::new("v"))
                };
                cache.get_or_load(&key, load).await
            })
        })
        .collect();
    for task in tasks {
        let hit = joined(task).await.unwrap();
        assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Origin));
    }
    assert_eq!(loads.count(), 1);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.joined), (1, readers - 1));
    assert_eq!((stats.reads(), stats.misses), (readers, readers));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_readers_of_a_missing_key_cause_one_load() {
    stampede(32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_readers_of_a_missing_key_cause_one_load() {
    stampede(1_000).await;
}

#[tokio::test]
async fn a_thousand_readers_on_one_thread_cause_one_load() {
    stampede(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_come_while_a_quick_load_ends_cause_no_second_one() {
    // No gate: some readers find the flight, some the stored value, some come just in between.
    for round in 0..200 {
        let bench = Bench::new();
        let (cache, loads, key) = (bench.memory_only(), Loads::default(), key("census:a"));
        let start = Arc::new(Barrier::new(8));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (cache, key, loads) = (cache.clone(), key.clone(), loads.clone());
                let start = Arc::clone(&start);
                tokio::spawn(async move {
                    start.wait().await;
                    let load = move |_| async move {
                        loads.add();
                        Ok(Loaded::new("v"))
                    };
                    cache.get_or_load(&key, load).await
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(joined(task).await.unwrap().value(), "v");
        }
        assert_eq!(loads.count(), 1, "round {round}");
    }
}

#[tokio::test]
async fn a_call_first_polled_after_anothers_load_ended_does_not_load_again() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (cache, loads) = (bench.memory_only(), Loads::default());
    let load = |value: &'static str| {
        let loads = loads.clone();
        move |_| async move {
            loads.add();
            Ok(Loaded::new(value))
        }
    };
    let early = cache.get_or_load(&key, load("second"));
    let first = within(cache.get_or_load(&key, load("first"))).await.unwrap();
    assert_eq!(first.value(), "first");
    assert_eq!(within(early).await.unwrap().value(), "first");
    assert_eq!(loads.count(), 1);
}

#[tokio::test]
async fn readers_of_a_key_that_sqlite_has_look_there_once_and_load_nothing() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let below = bench.sqlite_only();
    within(below.set(&key, "v", SetOptions::default())).await.unwrap();
    close(below).await;
    let cache = bench.cache();
    // On one thread, all ask before the look into SQLite can end.
    let tasks: Vec<_> = (0..1_000).map(|_| follow(&cache, &key)).collect();
    for task in tasks {
        assert_eq!(joined(task).await.unwrap().value(), "v");
    }
    let stats = cache.stats();
    let sqlite = stats.tier("sqlite").unwrap();
    assert_eq!((sqlite.found, sqlite.not_found, stats.loads), (1, 0, 0), "{stats:?}");
    assert_eq!((stats.hits, stats.misses), (1_000, 0), "{stats:?}");
}

#[tokio::test]
async fn loads_of_different_keys_go_on_at_the_same_time() {
    let bench = Bench::new();
    let cache = bench.cache();
    // Each load ends only when all sixteen are under way.
    let all = Arc::new(Barrier::new(16));
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let (cache, all) = (cache.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let load = move |_| async move {
                    all.wait().await;
                    Ok(Loaded::new(format!("v{n}")))
                };
                cache.get_or_load(&key(&format!("census:{n}")), load).await
            })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(joined(task).await.unwrap().value(), &format!("v{n}"));
    }
}

#[tokio::test]
async fn a_load_goes_on_and_is_stored_when_its_caller_has_gone() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    let follower = follow(&cache, &key);
    until_joined(&cache, 1).await;
    caller.abort();
    assert!(within(caller).await.unwrap_err().is_cancelled());
    let late = follow(&cache, &key);
    until_joined(&cache, 2).await;
    begun.bring("v");
    assert_eq!(joined(follower).await.unwrap().value(), "v");
    assert_eq!(joined(late).await.unwrap().value(), "v");
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "v");
    assert_eq!(cache.stats().loads, 1);
}

#[tokio::test]
async fn a_load_goes_on_and_is_stored_when_all_have_gone() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    let follower = follow(&cache, &key);
    until_joined(&cache, 1).await;
    for task in [caller, follower] {
        task.abort();
        assert!(within(task).await.unwrap_err().is_cancelled());
    }
    begun.bring("v");
    close(cache).await;
    let hit = within(bench.cache().get(&key)).await.unwrap().unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Tier("sqlite")));
}

#[tokio::test]
async fn a_waiter_that_goes_ends_only_its_own_wait() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    let (goes, stays) = (follow(&cache, &key), follow(&cache, &key));
    until_joined(&cache, 2).await;
    goes.abort();
    assert!(within(goes).await.unwrap_err().is_cancelled());
    begun.bring("v");
    assert_eq!(joined(caller).await.unwrap().value(), "v");
    assert_eq!(joined(stays).await.unwrap().value(), "v");
}

/// All who wait for `load`, which starts when `go` is told, must get the same panic.
async fn all_are_told_of_the_panic<F, Fut>(load: impl FnOnce(oneshot::Receiver<()>) -> F)
where
    F: FnOnce(LoadContext) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
{
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (go, told) = oneshot::channel();
    let (leading, asked, load) = (cache.clone(), key.clone(), load(told));
    let leader = tokio::spawn(async move { leading.get_or_load(&asked, load).await });
    // On one thread: the others join before the look into SQLite can end and the load begin.
    let followers: Vec<_> = (0..8).map(|_| follow(&cache, &key)).collect();
    until_joined(&cache, 8).await;
    go.send(()).unwrap();
    for task in [leader].into_iter().chain(followers) {
        match joined(task).await {
            Err(Error::LoadPanicked { key: named, message }) => {
                assert_eq!((named, message.as_str()), (key.clone(), "the loader broke"));
            }
            other => panic!("{other:?}"),
        }
    }
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures), (1, 1), "{stats:?}");
    assert!(within(cache.get(&key)).await.unwrap().is_none());
    assert_eq!(within(cache.get_or_load(&key, bring("v"))).await.unwrap().value(), "v");
}

#[tokio::test]
async fn a_load_that_panics_is_told_to_all_who_wait_and_the_next_call_loads() {
    all_are_told_of_the_panic(|told| {
        |_| async move {
            told.await.unwrap();
            panic!("the loader {}", "broke")
        }
    })
    .await;
}

#[tokio::test]
async fn a_loader_that_panics_before_it_makes_its_future_is_told_to_all_who_wait_too() {
    #[expect(clippy::unused_async, reason = "the type of a future that is never made")]
    async fn unreachable() -> Result<Loaded, OriginError> {
        Ok(Loaded::new("x"))
    }
    let broken = true;
    all_are_told_of_the_panic(|told| {
        move |_| {
            let _told = told;
            assert!(!broken, "the loader broke");
            unreachable()
        }
    })
    .await;
}

#[tokio::test]
async fn a_loaders_error_is_shared_by_all_who_wait_not_stored_and_the_next_call_loads() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    let followers: Vec<_> = (0..8).map(|_| follow(&cache, &key)).collect();
    until_joined(&cache, 8).await;
    begun.end(Err(failure("switched off")));
    let mut errors = Vec::new();
    for task in [caller].into_iter().chain(followers) {
        match joined(task).await {
            Err(Error::Origin(error)) => errors.push(error),
            other => panic!("{other:?}"),
        }
    }
    assert!(errors.iter().all(|error| Arc::ptr_eq(error, &errors[0])), "one error, shared");
    assert_eq!(errors[0].kind(), OriginErrorKind::Network);
    assert!(errors[0].to_string().contains("switched off"));
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures), (1, 1), "{stats:?}");
    assert!(within(cache.get(&key)).await.unwrap().is_none());
    assert_eq!(within(cache.get_or_load(&key, bring("v"))).await.unwrap().value(), "v");
    assert_eq!(cache.stats().loads, 2);
}

#[tokio::test]
async fn an_origin_that_failed_is_asked_again_by_the_next_request() {
    let bench = Bench::new();
    let origin = Arc::new(CountingOrigin::default());
    let shared = Arc::<CountingOrigin>::clone(&origin);
    let cache = bench.builder().shared_origin("census", shared).build().unwrap();
    let request = Request::new("census").param("cbsa", 14500);
    origin.set_down(true);
    let error = within(cache.request(&request)).await.unwrap_err();
    match error {
        Error::Origin(error) => assert_eq!(error.retry_after(), Some(Duration::from_secs(1))),
        other => panic!("{other:?}"),
    }
    origin.set_down(false);
    assert_eq!(within(cache.request(&request)).await.unwrap().served_by(), ServedBy::Origin);
    within(cache.request(&request)).await.unwrap();
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_loader_may_use_the_cache_for_other_keys() {
    let bench = Bench::new();
    let cache = bench.cache();
    let inside = cache.clone();
    let load = move |_| async move {
        let part = inside.get_or_load(&key("census:part"), bring("part")).await;
        Ok(Loaded::new(part.unwrap().value().clone()))
    };
    let hit = within(cache.get_or_load(&key("census:whole"), load)).await.unwrap();
    assert_eq!(hit.value(), "part");
    assert_eq!(cache.stats().loads, 2);
}

#[test]
fn a_runtime_shut_down_in_mid_load_leaves_no_flight_that_blocks_the_key() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = run();
    // Kept, so that nothing but the end of its runtime ends the load.
    let _begun = first.block_on(async {
        let (gate, _caller) = load_gated(&cache, &key);
        let begun = gate.begun().await;
        let _follower = follow(&cache, &key);
        until_joined(&cache, 1).await;
        begun
    });
    drop(first);
    run().block_on(async {
        let hit = within(cache.get_or_load(&key, bring("v"))).await.unwrap();
        assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Origin));
        assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "v");
        // What was shut down is not waited for.
        close(cache).await;
    });
}

#[test]
fn a_follower_in_another_runtime_is_told_when_the_loads_runtime_is_shut_down() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let doomed = doomed.unwrap();
    let both = Arc::new(ThreadBarrier::new(2));
    let (waiting, asked, reached) = (cache.clone(), key.clone(), Arc::clone(&both));
    let follower = std::thread::spawn(move || {
        reached.wait();
        let run = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        run.block_on(within(waiting.get_or_load(&asked, never())))
    });
    // Kept, so that nothing but the end of its runtime ends the load.
    let _begun = doomed.block_on(async {
        let (gate, _caller) = load_gated(&cache, &key);
        let begun = gate.begun().await;
        both.wait();
        until_joined(&cache, 1).await;
        begun
    });
    doomed.shutdown_background();
    let answer = follower.join().unwrap();
    assert!(matches!(answer, Err(Error::LoadAborted { .. })), "{answer:?}");
}
