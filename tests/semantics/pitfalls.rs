//! Pitfalls others fell into. That numbers are exact is in `scripted.rs`, that options have their
//! effect in `options.rs` and `settings.rs`; what happens to an entry under a reader in `race.rs`.
//!
//! Not yet, since this version has nothing that could fall into them:
//! - VACUUM after a purge, the size of the write-ahead log, access times (storage management),
//! - `KEYS`, multi-key commands across slots, subscribed connections, pub/sub, SET with TTL 0, RESP3
//!   pushes, and a Redis URL in a log (there is no Redis tier),
//! - a random id or a key as a label of a metric (there is no exporter).

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use larder::{
    Cache, ErrorKind, Loaded, Policy, PutOutcome, ReadOptions, SetOptions, Tier, tiers::MemoryTier,
};
use tier_testkit::{Call, Fault, ManualClock};
use tokio::task::{JoinSet, yield_now};

use crate::{
    harness::{Bench, bring, close, failure, joined, key, load_gated, never, until, within},
    log::Log,
    tools::{Below, any, fresh, set, tier_stats},
};

// "Deleting a flight's entry while waiters queue on it lets a second load in."

#[tokio::test]
async fn waiters_that_ask_again_as_soon_as_a_load_has_landed_start_no_second_one() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    for cache in [bench.memory_only(), below.alone(&bench), below.under_memory(&bench)] {
        let a = key("a:1");
        let (gate, leader) = load_gated(&cache, &a);
        let load = gate.begun().await;
        let mut waiters = JoinSet::new();
        for _ in 0..50 {
            let (cache, a) = (cache.clone(), a.clone());
            waiters.spawn(async move {
                let first = cache.get_or_load(&a, never()).await.unwrap();
                let second = cache.get_or_load(&a, never()).await.unwrap();
                (first.value().clone(), second.value().clone())
            });
        }
        until(|| cache.stats().joined == 50).await;
        load.bring("v");
        joined(leader).await.unwrap();
        while let Some(waiter) = within(waiters.join_next()).await {
            assert_eq!(waiter.unwrap(), ("v".into(), "v".into()));
        }
        assert_eq!(cache.stats().loads, 1);
        within(cache.clear()).await.unwrap();
        bench.advance(1);
    }
}

#[tokio::test]
async fn waiters_of_a_load_that_failed_start_one_new_load_together() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.memory_only();
    let (gate, leader) = load_gated(&cache, &a);
    let load = gate.begun().await;
    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        let (cache, a) = (cache.clone(), a.clone());
        waiters.spawn(async move {
            cache.get_or_load(&a, never()).await.unwrap_err();
            let load = |_| async {
                yield_now().await;
                Ok(Loaded::new("anew"))
            };
            cache.get_or_load(&a, load).await.unwrap()
        });
    }
    until(|| cache.stats().joined == 20).await;
    load.end(Err(failure("down")));
    joined(leader).await.unwrap_err();
    while let Some(waiter) = within(waiters.join_next()).await {
        assert_eq!(waiter.unwrap().value(), "anew");
    }
    assert_eq!(cache.stats().loads, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_loads_of_a_key_ever_run_at_once() {
    // Nothing is stored, so that each call that does not join loads.
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    let (busy, loads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (cache, busy, loads) = (cache.clone(), Arc::clone(&busy), Arc::clone(&loads));
        tasks.spawn(async move {
            for round in 0..100 {
                let (busy, loads) = (Arc::clone(&busy), Arc::clone(&loads));
                let load = move |_| async move {
                    assert!(!busy.swap(true, Ordering::SeqCst), "a load is under way already");
                    loads.fetch_add(1, Ordering::SeqCst);
                    yield_now().await;
                    busy.store(false, Ordering::SeqCst);
                    if (round + task) % 3 == 0 {
                        return Err(failure("down"));
                    }
                    Ok(Loaded::new("v").do_not_store())
                };
                drop(cache.get_or_load(&key("a:1"), load).await);
            }
        });
    }
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
    let stats = cache.stats();
    assert_eq!(stats.loads, loads.load(Ordering::SeqCst));
    assert_eq!((stats.reads(), stats.loads + stats.joined), (800, 800));
}

// "Awaiting between "lock taken" and its guard leaks the lock."

/// Polls the future so often, letting others run in between, and drops it; whether it had ended.
async fn dropped_after<T>(polls: usize, mut future: Pin<Box<dyn Future<Output = T> + '_>>) -> bool {
    for _ in 0..polls {
        let ended = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await;
        if ended {
            return true;
        }
        yield_now().await;
    }
    false
}

#[tokio::test]
async fn a_call_dropped_at_any_point_leaves_nothing_locked() {
    type Call = for<'a> fn(&'a Cache) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
    let calls: [(&str, Call); 6] = [
        ("get", |cache| Box::pin(async { drop(cache.get(&key("a:1")).await) })),
        ("get_many", |cache| {
            Box::pin(async { drop(cache.get_many(&[key("a:1"), key("b:1")]).await) })
        }),
        ("get_or_load", |cache| {
            let load = |_| async {
                yield_now().await;
                Ok(Loaded::new("v"))
            };
            Box::pin(async move { drop(cache.get_or_load(&key("a:1"), load).await) })
        }),
        ("refresh", |cache| {
            let options = ReadOptions::refresh();
            let load = |_| async {
                yield_now().await;
                Ok(Loaded::new("v"))
            };
            Box::pin(async move { drop(cache.get_or_load_with(&key("a:1"), options, load).await) })
        }),
        ("set", |cache| {
            let options = SetOptions::default();
            Box::pin(async { drop(cache.set(&key("a:1"), "v", options).await) })
        }),
        ("invalidate", |cache| Box::pin(async { drop(cache.invalidate(&key("a:1")).await) })),
    ];
    for (name, call) in calls {
        for polls in 0..40 {
            let bench = Bench::new();
            let below = Below::new(&bench);
            let cache = below.under_memory(&bench);
            // Every operation of the tier is waited for, more than once.
            let delays = tier_testkit::Faults::none().everywhere(Fault::Delay, 1.0).delay_yields(3);
            below.chaos.set(delays);
            let ended = dropped_after(polls, call(&cache)).await;
            let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
            assert_eq!(hit.value(), "v", "{name}, dropped after {polls}");
            set(&cache, &key("a:1"), "w").await;
            within(cache.invalidate(&key("a:1"))).await.unwrap();
            assert_eq!(fresh(&cache, &key("a:1")).await, None, "{name}, dropped after {polls}");
            close(cache).await;
            if ended {
                break;
            }
            assert!(polls < 39, "{name} does not end");
        }
    }
}

#[tokio::test]
async fn a_reader_that_goes_while_a_tier_is_given_what_it_missed_leaves_that_to_the_next() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.alone(&bench);
    set(&cache, &a, "old").await;
    below.chaos.next(Call::Bar, Fault::Error);
    within(cache.invalidate(&a)).await.unwrap();
    below.hangs(Call::Bar);
    let reader = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get(&a).await }
    });
    until(|| below.chaos.hanging() == 1).await;
    reader.abort();
    assert!(within(reader).await.unwrap_err().is_cancelled());
    below.chaos.heal();
    assert_eq!(fresh(&cache, &key("none:1")).await, None);
    assert_eq!(below.inside(&a).await, None);
}

// "quick_cache splits its capacity over shards: one large value may never fit; know it, say it, choose
// the shard count from the capacity."

#[tokio::test]
async fn a_value_up_to_the_largest_that_memory_names_fits_and_one_above_is_refused_with_both_numbers()
 {
    for megabytes in [1, 5, 64, 200] {
        let bench = Bench::new();
        let capacity = megabytes << 20;
        let clock = Arc::<ManualClock>::clone(&bench.clock);
        let tier = Arc::new(MemoryTier::with_clock(capacity, clock));
        let largest = tier.largest_entry();
        let least = if megabytes < 16 { capacity * 89 / 100 } else { 14 << 20 };
        assert!(largest >= least, "{megabytes} MiB take {largest} bytes at most");
        let memory = Arc::clone(&tier) as Arc<dyn Tier>;
        let cache = bench.bare().shared_tier(memory).build().unwrap();
        // Key and bookkeeping weigh less than a kilobyte.
        let size = usize::try_from(largest).unwrap();
        let fits = vec![b'x'; size - 1_024];
        let outcome = within(cache.set(&key("a:1"), fits, SetOptions::default())).await.unwrap();
        assert_eq!(outcome.stored_in().count(), 1, "{megabytes} MiB");
        let found = within(cache.get(&key("a:1"))).await.unwrap();
        assert_eq!(found.unwrap().value().len(), size - 1_024, "{megabytes} MiB");

        let large = vec![b'x'; size + 1];
        let outcome = within(cache.set(&key("a:2"), large, SetOptions::default())).await.unwrap();
        let [(_, larder::PutReport::Done(PutOutcome::Refused { reason }))] = &outcome.tiers[..]
        else {
            panic!("{megabytes} MiB: {outcome:?}")
        };
        assert!(reason.contains(&largest.to_string()), "{reason}");
        assert_eq!(tier_stats(&cache, "memory").refused, 1);
    }
}

#[tokio::test]
async fn a_value_too_large_for_memory_is_served_from_below_and_hides_nothing_older() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let memory = MemoryTier::with_clock(1 << 20, Arc::<ManualClock>::clone(&bench.clock));
    let cache = bench.bare().tier(memory).tier(bench.sqlite()).build().unwrap();
    set(&cache, &a, "old").await;
    let large = vec![b'x'; 2 << 20];
    within(cache.set(&a, large.clone(), SetOptions::default())).await.unwrap();
    let found = within(cache.get(&a)).await.unwrap().unwrap();
    assert!(found.value() == &large, "{} bytes from {}", found.value().len(), found.served_by());
}

// "Counting in two layers."

#[tokio::test]
async fn a_read_of_the_chain_is_counted_by_the_chain_and_not_by_memory_too() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let memory = Arc::new(bench.memory());
    let tier = Arc::clone(&memory) as Arc<dyn Tier>;
    let cache = bench.bare().shared_tier(tier).tier(bench.sqlite()).build().unwrap();
    set(&cache, &a, "v").await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    assert_eq!(fresh(&cache, &key("a:2")).await, None);
    assert_eq!((cache.stats().hits, cache.stats().misses), (1, 1));
    assert_eq!((memory.stats().hits, memory.stats().misses), (0, 0));
}

// "A warning per request."

#[tokio::test]
async fn requests_that_meet_a_tier_that_fails_do_not_warn_each() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Refused, ErrorKind::Corrupt] {
        let bench = Bench::new();
        let below = Below::new(&bench);
        let cache = below.under_memory(&bench);
        let (log, _guard) = Log::capture();
        let all = tier_testkit::Faults::none().everywhere(Fault::Error, 1.0).error_kind(kind);
        below.chaos.set(all);
        for n in 0..30 {
            let key = key(&format!("a:{n}"));
            any(&cache, &key).await;
            set(&cache, &key, "v").await;
            within(cache.get_or_load(&key, never())).await.unwrap();
            within(cache.invalidate(&key)).await.unwrap();
        }
        let told = log.texts(tracing::Level::WARN);
        assert!(told.len() <= 3, "{kind}: {} warnings: {:#?}", told.len(), &told[..4]);
        assert_eq!(log.texts(tracing::Level::ERROR), [""; 0]);
    }
}

#[tokio::test]
async fn loads_that_fail_and_reads_that_hit_are_not_logged_for_each_request() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let policy = Policy::ttl(Duration::from_secs(1))
        .stale_if_error(Duration::from_mins(1))
        .throttle(Duration::ZERO);
    let cache = bench.bare().tier(bench.memory()).default_policy(policy).build().unwrap();
    set(&cache, &a, "v").await;
    let (log, _guard) = Log::capture();
    for _ in 0..30 {
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    }
    bench.advance(2_000);
    for _ in 0..30 {
        let failing = |_| async { Err(failure("down")) };
        assert!(within(cache.get_or_load(&a, failing)).await.unwrap().is_stale());
        within(cache.get_or_load(&key("a:2"), failing)).await.unwrap_err();
    }
    assert_eq!(cache.stats().load_failures, 60);
    for level in [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::INFO] {
        assert_eq!(log.texts(level), [""; 0]);
    }
}
