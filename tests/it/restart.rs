//! What was acknowledged is there after a restart.

use std::{sync::Arc, time::Duration};

use larder::{Error, Filter, Loaded, Request, ServedBy, SetOptions};
use tier_testkit::CountingOrigin;

use crate::harness::{Bench, bring, close, key, load_gated, never, tag, within};

const SQLITE: ServedBy = ServedBy::Tier("sqlite");

#[tokio::test]
async fn a_set_survives_close_and_reopen() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, "v", SetOptions::default())).await.unwrap();
    close(cache).await;

    let cache = bench.cache();
    let hit = within(cache.get_or_load(&key, never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], SQLITE));
    assert_eq!(cache.stats().loads, 0);
}

#[tokio::test]
async fn fills_of_loads_survive_close_though_callers_did_not_wait_for_them() {
    let bench = Bench::new();
    let cache = bench.cache();
    for n in 0..50 {
        let load = move |_| async move { Ok(Loaded::new(format!("v{n}"))) };
        within(cache.get_or_load(&key(&format!("census:{n}")), load)).await.unwrap();
    }
    close(cache).await;

    let cache = bench.cache();
    for n in 0..50 {
        let hit = within(cache.get_or_load(&key(&format!("census:{n}")), never())).await.unwrap();
        assert_eq!((hit.value(), hit.served_by()), (&format!("v{n}").into(), SQLITE));
    }
}

#[tokio::test]
async fn a_load_under_way_when_close_begins_is_waited_for_and_stored() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &key);
    let begun = gate.begun().await;
    let (closing, ended) = (cache.clone(), tokio::spawn(async move { caller.await.unwrap() }));
    let closing = tokio::spawn(async move { closing.close(Duration::from_secs(20)).await });
    tokio::task::yield_now().await;
    assert!(!closing.is_finished(), "closed without the load");
    begun.bring("v");
    assert!(within(closing).await.unwrap().is_clean());
    assert_eq!(within(ended).await.unwrap().unwrap().value(), "v");

    let hit = within(bench.cache().get_or_load(&key, never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], SQLITE));
}

#[tokio::test]
async fn close_reports_the_load_that_outlasts_its_deadline() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, _caller) = load_gated(&cache, &key);
    let _begun = gate.begun().await;
    let report = within(cache.close(Duration::from_millis(1))).await;
    assert_eq!(report.unfinished, 1);
    assert!(!report.is_clean());
}

#[tokio::test]
async fn dropping_the_cache_without_close_loses_no_acknowledged_set() {
    let bench = Bench::new();
    let cache = bench.cache();
    for n in 0..50 {
        let (key, value) = (key(&format!("census:{n}")), format!("v{n}"));
        let outcome = within(cache.set(&key, value, SetOptions::default())).await.unwrap();
        assert_eq!(outcome.stored_in().count(), 2);
    }
    drop(cache);

    let cache = bench.cache();
    for n in 0..50 {
        let hit = within(cache.get(&key(&format!("census:{n}")))).await.unwrap().unwrap();
        assert_eq!((hit.value(), hit.served_by()), (&format!("v{n}").into(), SQLITE));
    }
}

#[test]
fn an_acknowledged_set_survives_its_runtime() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    run().block_on(async {
        within(bench.cache().set(&key, "v", SetOptions::default())).await.unwrap();
    });
    let hit = run().block_on(async { within(bench.cache().get(&key)).await.unwrap().unwrap() });
    assert_eq!(hit.value(), "v");
}

#[tokio::test]
async fn lifetime_and_tags_survive_a_restart() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let options = SetOptions::ttl(Duration::from_secs(1)).tag(tag("co"));
    within(cache.set(&key, "v", options.clone())).await.unwrap();
    close(cache).await;

    bench.advance(999);
    let cache = bench.cache();
    assert!(within(cache.get(&key)).await.unwrap().is_some());
    close(cache).await;

    bench.advance(1);
    let cache = bench.cache();
    assert!(within(cache.get(&key)).await.unwrap().is_none());
    within(cache.set(&key, "w", options)).await.unwrap();
    close(cache).await;

    let cache = bench.cache();
    let removed = within(cache.purge(&Filter::tag(tag("co")))).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(0)), ("sqlite", Some(1))]);
}

#[tokio::test]
async fn an_answer_of_an_origin_survives_a_restart() {
    let bench = Bench::new();
    let (origin, request) =
        (Arc::new(CountingOrigin::default()), Request::new("census").param("cbsa", 14500));
    for _ in 0..2 {
        let shared = Arc::<CountingOrigin>::clone(&origin);
        let cache = bench.builder().shared_origin("census", shared).build().unwrap();
        let hit = within(cache.request(&request)).await.unwrap();
        assert_eq!(hit.value(), "census:cbsa=14500 #1");
        close(cache).await;
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn a_closed_cache_says_so() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, "v", SetOptions::default())).await.unwrap();
    let handle = cache.clone();
    close(cache).await;
    assert!(matches!(within(handle.get(&key)).await, Err(Error::Closed)));
    assert!(matches!(within(handle.get_or_load(&key, bring("x"))).await, Err(Error::Closed)));
    let set = within(handle.set(&key, "x", SetOptions::default())).await;
    assert!(matches!(set, Err(Error::Closed)));
    assert!(matches!(within(handle.invalidate(&key)).await, Err(Error::Closed)));
    assert!(matches!(within(handle.clear_expired()).await, Err(Error::Closed)));
    assert!(matches!(within(handle.list_keys(9)).await, Err(Error::Closed)));
}

// "A process never issues the same or a smaller stamp twice, whatever the wall clock does;
// receiving a larger stamp (from the journal, a row, Redis) moves it forward."

#[tokio::test]
async fn a_set_after_a_load_free_read_wins_though_the_wall_clock_stepped_back_over_the_restart() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, "old", SetOptions::default())).await.unwrap();
    close(cache).await;

    bench.clock.set(1_767_268_799_000);
    let cache = bench.cache();
    assert_eq!(within(cache.get_or_load(&key, never())).await.unwrap().value(), "old");
    within(cache.set(&key, "new", SetOptions::default())).await.unwrap();
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "new");
    close(cache).await;
    assert_eq!(within(bench.cache().get(&key)).await.unwrap().unwrap().value(), "new");
}

#[tokio::test]
async fn a_set_after_a_get_wins_though_the_wall_clock_stepped_back_over_the_restart() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, "old", SetOptions::default())).await.unwrap();
    close(cache).await;

    bench.clock.set(1_767_268_799_000);
    let cache = bench.cache();
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "old");
    within(cache.set(&key, "new", SetOptions::default())).await.unwrap();
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "new");
    close(cache).await;
    assert_eq!(within(bench.cache().get(&key)).await.unwrap().unwrap().value(), "new");
}

#[tokio::test]
async fn an_invalidate_after_a_get_works_though_the_wall_clock_stepped_back_over_the_restart() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, "old", SetOptions::default())).await.unwrap();
    close(cache).await;

    bench.clock.set(1_767_268_799_000);
    let cache = bench.cache();
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "old");
    within(cache.invalidate(&key)).await.unwrap();
    assert!(within(cache.get(&key)).await.unwrap().is_none());
}

/// Keeps every process from writing to the bench's file until it is dropped.
fn write_lock(bench: &Bench) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(bench.path()).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test]
async fn a_queued_set_is_answered_before_the_file_has_it_and_is_there_after_closing() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&self::key("census:first"), "v", SetOptions::default())).await.unwrap();
    let lock = write_lock(&bench);
    let outcome = within(cache.set(&key, "v", SetOptions::default().queued())).await.unwrap();
    assert!(matches!(outcome.tiers[..], [_, ("sqlite", larder::PutReport::Queued)]), "{outcome:?}");
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"]);
    assert_eq!(cache.peek(&key).unwrap().value(), "v");
    assert!(within(bench.sqlite_only().get(&key)).await.unwrap().is_none(), "it is locked");
    drop(lock);
    close(cache).await;
    let hit = within(bench.cache().get_or_load(&key, never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], SQLITE));
}

#[tokio::test]
async fn queued_sets_wait_for_room_when_too_many_are_queued() {
    let bench = Bench::new();
    let cache = bench.cache();
    within(cache.set(&key("census:first"), "v", SetOptions::default())).await.unwrap();
    let lock = write_lock(&bench);
    let entries = |from: usize| {
        let entry = |n| (key(&format!("census:{n}")), "v".into(), SetOptions::default().queued());
        (from..from + 2_048).map(entry).collect::<Vec<_>>()
    };
    within(cache.set_many(entries(0))).await.unwrap();
    within(cache.set_many(entries(2_048))).await.unwrap();
    let more = key("census:more");
    let mut one_more = Box::pin(cache.set(&more, "v", SetOptions::default().queued()));
    let waited = tokio::time::timeout(Duration::from_millis(50), &mut one_more).await;
    assert!(waited.is_err(), "there was room");
    drop(lock);
    within(one_more.as_mut()).await.unwrap();
    drop(one_more);
    close(cache).await;
    let stored = bench.sqlite_only();
    assert_eq!(within(stored.list_keys(10_000)).await.unwrap().len(), 2 * 2_048 + 2);
}
