//! Tiers failing: "Shutdown: `close()` drains queued writes and background refreshes within a
//! deadline, then says what was dropped."
//!
//! That a killed process loses nothing that was acknowledged is in `tests/it/restart.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use larder::{
    Cache, CloseReport, Error, Filter, Loaded, Policy, ReadOptions, Request, ServedBy, SetOptions,
};
use tier_testkit::{Call, CountingOrigin, Fault, Faults};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    harness::{Bench, bring, close, joined, key, load_gated, never, tag, within},
    scene::soon,
    tools::{Below, fresh, set},
};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// A close that has waited for some time, of which it has more.
async fn closing(cache: &Cache) -> JoinHandle<CloseReport> {
    let cache = cache.clone();
    let task = tokio::spawn(async move { cache.close(LONG).await });
    // Tokio's time, which runs ahead as soon as all others wait.
    tokio::time::sleep(LONG / 4).await;
    task
}

/// Ends what a tier keeps waiting, after which the close that waits for it must be clean.
async fn drained(closing: JoinHandle<CloseReport>, go_on: impl FnOnce()) {
    assert!(!closing.is_finished(), "closed without waiting");
    go_on();
    let report = joined(closing).await;
    assert!(report.is_clean(), "{report:?}");
}

// "drains queued writes ..."

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_fill_of_a_load_that_was_answered() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.hangs(Call::Put);
    within(cache.get_or_load(&a, bring("v"))).await.unwrap();
    soon(|| below.chaos.hanging() == 1).await;
    drained(closing(&cache).await, || below.chaos.heal()).await;
    assert_eq!(below.inside(&a).await.unwrap().value(), "v");
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_a_set_and_an_invalidation_under_way() {
    let (bench, a, b) = (Bench::new(), key("a:1"), key("b:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    set(&cache, &b, "old").await;
    let hang = Faults::none().on(Call::Put, Fault::Hang, 1.0).on(Call::Bar, Fault::Hang, 1.0);
    below.chaos.set(hang);
    let setting = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.set(&a, "v", SetOptions::default()).await }
    });
    let invalidating = tokio::spawn({
        let (cache, b) = (cache.clone(), b.clone());
        async move { cache.invalidate(&b).await }
    });
    soon(|| below.chaos.hanging() == 2).await;
    drained(closing(&cache).await, || below.chaos.heal()).await;
    assert_eq!(joined(setting).await.unwrap().stored_in().count(), 2);
    let removed = joined(invalidating).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(1)), ("below", Some(1))]);
    assert_eq!(below.inside(&a).await.unwrap().value(), "v");
    assert_eq!(below.inside(&b).await, None);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_a_promotion() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (upper, lower) = (Below::named("upper", &bench), Below::named("lower", &bench));
    set(&lower.alone(&bench), &a, "v").await;
    bench.advance(1);
    let builder = bench.bare().shared_tier(upper.tier()).shared_tier(lower.tier());
    let cache = builder.build().unwrap();
    upper.hangs(Call::Put);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    soon(|| upper.chaos.hanging() == 1).await;
    drained(closing(&cache).await, || upper.chaos.heal()).await;
    assert_eq!(upper.inside(&a).await.unwrap().value(), "v");
}

// "... and background refreshes ..."

#[tokio::test(start_paused = true)]
async fn close_waits_for_a_load_and_stores_it() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    drained(closing(&cache).await, || load.bring("v")).await;
    assert_eq!(joined(caller).await.unwrap().value(), "v");
    assert_eq!(below.inside(&a).await.unwrap().value(), "v");
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_a_refresh_behind_a_hit_and_stores_it() {
    let ahead = Policy::ttl(Duration::from_secs(10)).refresh_ahead(0.5);
    let stale = Policy::ttl(Duration::from_secs(5)).stale_while_revalidate(LONG);
    for policy in [ahead, stale] {
        let (bench, a) = (Bench::new(), key("a:1"));
        let below = Below::new(&bench);
        let cache = below.builder(&bench).default_policy(policy).build().unwrap();
        set(&cache, &a, "old").await;
        bench.advance(6_000);
        let (gate, caller) = load_gated(&cache, &a);
        assert_eq!(joined(caller).await.unwrap().value(), "old");
        let refresh = gate.begun().await;
        drained(closing(&cache).await, || refresh.bring("refreshed")).await;
        assert_eq!(below.inside(&a).await.unwrap().value(), "refreshed");
    }
}

#[tokio::test]
async fn what_close_waited_for_is_in_the_file() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    let closing = tokio::spawn({
        let cache = cache.clone();
        async move { cache.close(LONG).await }
    });
    load.bring("v");
    assert!(joined(closing).await.is_clean());
    assert_eq!(joined(caller).await.unwrap().value(), "v");
    let hit = within(bench.cache().get_or_load(&a, never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Tier("sqlite")));
}

// "... within a deadline, then says what was dropped."

/// Notes that it was dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_outlasts_the_deadline_is_dropped_and_reported_and_its_waiters_are_told() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.memory_only();
    let dropped = Arc::new(AtomicBool::new(false));
    let held = Dropped(Arc::clone(&dropped));
    let hanging = move |_| async move {
        let _held = held;
        std::future::pending::<()>().await;
        Ok(Loaded::new("never"))
    };
    let waiters = [
        tokio::spawn({
            let (cache, a) = (cache.clone(), a.clone());
            async move { cache.get_or_load(&a, hanging).await }
        }),
        tokio::spawn({
            let (cache, a) = (cache.clone(), a.clone());
            async move { cache.get_or_load(&a, never()).await }
        }),
    ];
    soon(|| cache.stats().joined == 1).await;
    let began = Instant::now();
    let report = within(cache.close(SHORT)).await;
    assert!(began.elapsed() <= SHORT + Duration::from_millis(1), "{:?}", began.elapsed());
    assert_eq!((report.unfinished, report.is_clean()), (1, false));
    assert_eq!(report.dropped_loads, std::slice::from_ref(&a));
    assert!(dropped.load(Ordering::SeqCst), "the load goes on");
    for waiter in waiters {
        let answer = joined(waiter).await;
        let Err(Error::LoadAborted { key: of }) = &answer else { panic!("{answer:?}") };
        assert_eq!(*of, a);
    }
}

#[tokio::test(start_paused = true)]
async fn each_load_that_was_dropped_is_reported_by_its_key() {
    let bench = Bench::new();
    let policy = Policy::ttl(Duration::from_secs(10)).refresh_ahead(0.5);
    let builder = bench.bare().tier(bench.memory()).default_policy(policy);
    let cache = builder.build().unwrap();
    set(&cache, &key("a:refreshed"), "v").await;
    bench.advance(6_000);
    let mut loads = Vec::new();
    for text in ["a:1", "a:2", "a:done", "a:refreshed"] {
        let (gate, _caller) = load_gated(&cache, &key(text));
        loads.push(gate.begun().await);
    }
    loads.remove(2).bring("v");
    soon(|| cache.peek(&key("a:done")).is_some()).await;
    let mut report = within(cache.close(SHORT)).await;
    assert_eq!(report.unfinished, 3);
    report.dropped_loads.sort_unstable();
    assert_eq!(report.dropped_loads, ["a:1", "a:2", "a:refreshed"].map(key));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_load_that_an_invalidation_or_a_set_had_overtaken_is_reported_by_its_key_too() {
    for overtaken_by in ["invalidate", "set"] {
        let (bench, a) = (Bench::new(), key("a:1"));
        let cache = bench.memory_only();
        let (gate, _caller) = load_gated(&cache, &a);
        let _load = gate.begun().await;
        match overtaken_by {
            "set" => set(&cache, &a, "v").await,
            _ => within(cache.invalidate(&a)).await.map(drop).unwrap(),
        }
        let report = within(cache.close(SHORT)).await;
        assert_eq!(report.unfinished, 1, "{overtaken_by}");
        assert_eq!(report.dropped_loads, [a], "{overtaken_by}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_load_whose_waiters_had_timed_out_is_reported_by_its_key_too() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let policy = Policy::default().hard_timeout(Duration::from_secs(1));
    let builder = bench.bare().tier(bench.memory()).default_policy(policy);
    let cache = builder.build().unwrap();
    let (gate, caller) = load_gated(&cache, &a);
    let _load = gate.begun().await;
    assert!(matches!(joined(caller).await, Err(Error::LoadTimedOut { .. })));
    let report = within(cache.close(SHORT)).await;
    assert_eq!(report.unfinished, 1);
    assert_eq!(report.dropped_loads, [a]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_outlasts_the_deadline_is_dropped_and_counted_and_not_acknowledged() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.alone(&bench);
    below.hangs(Call::Put);
    let setting = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.set(&a, "v", SetOptions::default()).await }
    });
    soon(|| below.chaos.hanging() == 1).await;
    let report = within(cache.close(SHORT)).await;
    assert_eq!((report.unfinished, report.dropped_loads.len()), (1, 0));
    assert!(matches!(joined(setting).await, Err(Error::Closed)));
    assert_eq!(below.chaos.hanging(), 0);
    below.chaos.heal();
    assert_eq!(below.inside(&a).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_fails_to_close_or_does_not_within_the_deadline_is_named_and_others_close() {
    for hangs in [false, true] {
        let bench = Bench::new();
        let (failing, sound) = (Below::named("failing", &bench), Below::named("sound", &bench));
        let builder = bench.bare().shared_tier(failing.tier()).shared_tier(sound.tier());
        let cache = builder.build().unwrap();
        failing.chaos.next(Call::Close, if hangs { Fault::Hang } else { Fault::Error });
        let report = within(cache.close(SHORT)).await;
        let [("failing", why)] = &report.failed[..] else { panic!("{report:?}") };
        let expected = if hangs { "100ms" } else { "unavailable" };
        assert!(why.contains(expected), "{why}");
        assert_eq!((report.unfinished, report.is_clean()), (0, false));
        assert_eq!(sound.chaos.calls(Call::Close), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn closing_an_idle_cache_takes_no_time_and_is_clean_also_the_second_time() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    set(&cache, &key("a:1"), "v").await;
    let began = Instant::now();
    for _ in 0..2 {
        let report = within(cache.close(LONG)).await;
        assert!(report.is_clean(), "{report:?}");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

// What a cache that is closing or closed answers.

#[tokio::test(start_paused = true)]
async fn while_it_closes_memory_serves_and_nothing_new_begins() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    set(&cache, &a, "v").await;
    let (gate, caller) = load_gated(&cache, &key("a:2"));
    let load = gate.begun().await;
    let closing = closing(&cache).await;
    assert!(cache.peek(&a).is_some());
    let hit = within(cache.get_or_load(&a, never())).await.unwrap();
    assert_eq!(hit.value(), "v");
    let refused = within(cache.get_or_load(&key("a:3"), never())).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let refused = within(cache.set(&key("a:3"), "v", SetOptions::default())).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    drained(closing, || load.bring("late")).await;
    assert_eq!(joined(caller).await.unwrap().value(), "late");
}

#[tokio::test]
async fn after_closing_every_call_of_every_handle_says_that_it_is_closed() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.builder().origin("o", CountingOrigin::default()).build().unwrap();
    set(&cache, &a, "7").await;
    let handle = cache.clone();
    close(cache).await;
    let cache = handle;
    let many = [a.clone()];
    let entry = (a.clone(), bytes::Bytes::from("v"), SetOptions::default());
    let request = Request::new("o").param("n", 1);
    let one = |_| async { Ok(vec![]) };
    let (refresh, bypass) = (ReadOptions::refresh(), ReadOptions::bypass());
    let all: Vec<(&str, Result<(), Error>)> = vec![
        ("get", within(cache.get(&a)).await.map(drop)),
        ("get_as", within(cache.get_as::<u8>(&a)).await.map(drop)),
        ("get_many", within(cache.get_many(&many)).await.map(drop)),
        ("get_with", within(cache.get_with(&a, bypass.clone())).await.map(drop)),
        ("get_or_load", within(cache.get_or_load(&a, never())).await.map(drop)),
        ("refresh", within(cache.get_or_load_with(&a, refresh, never())).await.map(drop)),
        ("bypass", within(cache.get_or_load_with(&a, bypass, never())).await.map(drop)),
        (
            "cached only",
            within(cache.get_or_load_with(&a, ReadOptions::cached_only(), never())).await.map(drop),
        ),
        ("get_or_load_many", within(cache.get_or_load_many(&many, one)).await.map(drop)),
        ("request", within(cache.request(&request)).await.map(drop)),
        ("set", within(cache.set(&a, "v", SetOptions::default())).await.map(drop)),
        ("set_many", within(cache.set_many(vec![entry])).await.map(drop)),
        ("invalidate", within(cache.invalidate(&a)).await.map(drop)),
        ("invalidate_many", within(cache.invalidate_many(&many)).await.map(drop)),
        ("invalidate_tag", within(cache.invalidate_tag(&tag("co"))).await.map(drop)),
        ("invalidate_source", within(cache.invalidate_source("a")).await.map(drop)),
        ("purge", within(cache.purge(&Filter::all())).await.map(drop)),
        ("clear", within(cache.clear()).await.map(drop)),
        ("expire", within(cache.expire(&a)).await.map(drop)),
        ("set_source_version", within(cache.set_source_version("a", "2")).await.map(drop)),
        ("clear_expired", within(cache.clear_expired()).await.map(drop)),
        ("list_keys", within(cache.list_keys(9)).await.map(drop)),
        ("scan", within(cache.scan(&Filter::all(), None, 9)).await.map(drop)),
        ("usage", within(cache.usage()).await.map(drop)),
    ];
    for (call, answer) in all {
        assert!(matches!(answer, Err(Error::Closed)), "{call}: {answer:?}");
    }
    assert_eq!(cache.stats().loads, 0);
}

#[tokio::test]
async fn after_closing_a_peek_finds_nothing_and_the_numbers_are_still_there() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.memory_only();
    set(&cache, &a, "v").await;
    assert!(cache.peek(&a).is_some());
    close(cache.clone()).await;
    assert!(cache.peek(&a).is_none());
    assert_eq!((cache.stats().hits, cache.stats().tiers.len()), (1, 1));
}

// Without closing.

#[tokio::test]
async fn dropping_the_cache_without_closing_it_loses_no_acknowledged_write() {
    let bench = Bench::new();
    let cache = bench.cache();
    for n in 0..20 {
        let outcome =
            within(cache.set(&key(&format!("a:{n}")), "v", SetOptions::default())).await.unwrap();
        assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory", "sqlite"]);
    }
    within(cache.invalidate(&key("a:0"))).await.unwrap();
    within(cache.expire(&key("a:1"))).await.unwrap();
    drop(cache);
    let cache = bench.cache();
    assert_eq!(fresh(&cache, &key("a:0")).await, None);
    assert_eq!(fresh(&cache, &key("a:1")).await, None);
    for n in 2..20 {
        assert_eq!(fresh(&cache, &key(&format!("a:{n}"))).await.as_deref(), Some("v"), "{n}");
    }
}

#[test]
fn the_end_of_the_runtime_loses_no_acknowledged_write_and_its_loads_are_no_obstacle() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = bench.cache();
    let first = run();
    first.block_on(async {
        set(&cache, &a, "v").await;
        let (gate, _caller) = load_gated(&cache, &key("a:2"));
        let _load = gate.begun().await;
    });
    drop(first);
    run().block_on(async {
        let hit = within(cache.get_or_load(&key("a:2"), bring("anew"))).await.unwrap();
        assert_eq!(hit.value(), "anew");
        drop(cache);
        assert_eq!(fresh(&bench.cache(), &a).await.as_deref(), Some("v"));
    });
}

#[tokio::test(start_paused = true)]
async fn a_promotion_that_outlasts_the_deadline_is_dropped_at_it() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (upper, lower) = (Below::named("upper", &bench), Below::named("lower", &bench));
    set(&lower.alone(&bench), &a, "v").await;
    bench.advance(1);
    let builder = bench.bare().shared_tier(upper.tier()).shared_tier(lower.tier());
    let cache = builder.build().unwrap();
    upper.hangs(Call::Put);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    soon(|| upper.chaos.hanging() == 1).await;
    let began = Instant::now();
    let report = within(cache.close(SHORT)).await;
    assert_eq!(report.unfinished, 1);
    assert!(began.elapsed() <= SHORT + Duration::from_millis(1), "{:?}", began.elapsed());
    assert_eq!(upper.chaos.hanging(), 0);
}
