//! Calls that fail: which are made again, when, and when no more are made.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use larder::{CacheBuilder, Error, Origin, OriginErrorKind, OriginOptions, RetryOptions};
use tier_testkit::ManualClock;

use crate::server::{Place, Server, answer, answer_with, ask, within};

const QUICK: &str = "retry: {attempts: 3, base: 1ms, max: 2ms}";

#[tokio::test]
async fn what_may_pass_is_asked_again_and_nothing_else() {
    for (status, requests) in [
        (429, 3),
        (502, 3),
        (503, 3),
        (504, 3),
        (400, 1),
        (401, 1),
        (403, 1),
        (404, 1),
        (408, 1),
        (500, 1),
        (501, 1),
    ] {
        let server = Server::start(move |_seen| answer(status, "no"));
        let place = Place::new(&server);
        let Err(Error::Origin(error)) = ask(&place.cache(QUICK), 1).await else { panic!() };
        assert_eq!(error.kind(), OriginErrorKind::Status(status));
        assert_eq!(server.count(), requests, "{status}");
    }
}

#[tokio::test]
async fn a_failure_that_passes_is_not_seen() {
    let server = Server::start(|seen| match seen.number {
        1 | 2 => answer(503, "not now"),
        _ => answer(200, "ok"),
    });
    let place = Place::new(&server);
    let cache = place.cache(QUICK);
    assert_eq!(ask(&cache, 1).await.unwrap().value(), "ok");
    assert_eq!(server.count(), 3);
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (1, 0));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let server = Server::plain();
    let place = Place::new(&server);
    let cache = place.cache("retry: {attempts: 2, base: 1ms, max: 1ms}");
    drop(server);
    let Err(Error::Origin(error)) = ask(&cache, 1).await else { panic!() };
    assert_eq!(error.kind(), OriginErrorKind::Network);
}

#[tokio::test]
async fn retry_after_is_waited_for_and_meanwhile_nobody_else_asks() {
    let server = Server::start(|seen| match seen.number {
        1 => answer_with(429, &[("Retry-After", "1")], "slow down"),
        _ => answer(200, "ok"),
    });
    let place = Place::new(&server);
    let cache = place.cache(QUICK);
    let first = {
        let cache = cache.clone();
        tokio::spawn(async move { ask(&cache, 1).await })
    };
    while server.count() < 1 {
        tokio::task::yield_now().await;
    }
    // The pause begins when the answer has arrived.
    let refused = loop {
        match ask(&cache, 2).await {
            Err(error) => break error,
            Ok(_) if server.count() == 2 => panic!("asked during the pause"),
            Ok(_) => {}
        }
    };
    let text = refused.to_string();
    assert!(text.contains("left alone") && text.contains("another 1 s"), "{text}");
    assert_eq!(first.await.unwrap().unwrap().value(), "ok");
    let seen = server.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_pause_beyond_the_budget_is_told_at_once() {
    let server =
        Server::start(|_seen| answer_with(503, &[("Retry-After", "3600")], "come back later"));
    let place = Place::new(&server);
    let cache = place.cache(QUICK);
    let Err(Error::Origin(error)) = ask(&cache, 1).await else { panic!() };
    assert_eq!(error.retry_after(), Some(Duration::from_hours(1)));
    let Err(Error::LeftAlone { after, .. }) = ask(&cache, 2).await else { panic!() };
    assert!(after > Duration::from_mins(59), "{after:?}");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn processes_on_one_ledger_leave_the_source_alone_together() {
    let server =
        Server::start(|_seen| answer_with(429, &[("Retry-After", "600")], "come back later"));
    let place = Place::new(&server);
    // What is remembered is remembered in the ledger.
    let settings = "rate_limit: 50/s";
    assert!(ask(&place.cache(settings), 1).await.is_err());
    let Err(Error::Origin(error)) = ask(&place.cache(settings), 2).await else { panic!() };
    let text = error.to_string();
    assert!(text.contains("left alone") && text.contains("10 min"), "{text}");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_source_that_keeps_failing_is_left_alone_and_then_probed() {
    let server = Server::start(|seen| match seen.number {
        1..=5 => answer(500, "broken"),
        _ => answer(200, "ok"),
    });
    let place = Place::new(&server);
    let clock = Arc::new(ManualClock::default());
    let builder = CacheBuilder::from_config(&place.config("throttle: 0s")).unwrap();
    let cache = builder.clock(Arc::<ManualClock>::clone(&clock)).build().unwrap();
    for market in 0..5 {
        assert!(ask(&cache, market).await.is_err());
    }
    let Err(Error::Origin(error)) = ask(&cache, 9).await else { panic!() };
    let text = error.to_string();
    assert!(text.contains("keeps failing") && text.contains("another 5 s"), "{text}");
    assert_eq!(error.kind(), OriginErrorKind::Status(500), "stale is served as after any other");
    assert_eq!(server.count(), 5, "nobody asks meanwhile");
    clock.advance(Duration::from_secs(5));
    assert_eq!(ask(&cache, 9).await.unwrap().value(), "ok");
    assert_eq!(ask(&cache, 10).await.unwrap().value(), "ok");
    assert_eq!(server.count(), 7);
}

/// An origin of one's own, that fails twice.
#[derive(Debug, Default)]
struct Flaky(std::sync::atomic::AtomicU32);

#[async_trait::async_trait]
impl Origin for Flaky {
    async fn load(&self, load: larder::Load) -> Result<larder::Loaded, larder::OriginError> {
        let call = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if call < 2 {
            let source = load.request.source();
            return Err(larder::OriginError::new(OriginErrorKind::Network, source, "gone"));
        }
        Ok(larder::Loaded::new("ok"))
    }
}

#[tokio::test]
async fn origins_of_ones_own_are_asked_again_too() {
    let retry = RetryOptions::attempts(3).delay(Duration::from_millis(1), Duration::from_millis(1));
    let cache = larder::Cache::builder()
        .tier(larder::tiers::MemoryTier::new(1 << 20))
        .origin("mine", Flaky::default())
        .origin_options("mine", OriginOptions::default().retry(retry))
        .build()
        .unwrap();
    let request = larder::Request::new("mine").param("a", 1);
    assert_eq!(cache.request(&request).await.unwrap().value(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_a_breaker_stops_cost_no_quota() {
    let server = Server::start(|_seen| answer(500, "broken"));
    let place = Place::new(&server);
    let clock = Arc::new(ManualClock::default());
    let config = place.config("throttle: 0s, quota: 100/day, concurrency: 1");
    let builder = CacheBuilder::from_config(&config).unwrap();
    let cache = builder.clock(Arc::<ManualClock>::clone(&clock)).build().unwrap();
    for round in 0..3 {
        // Most of them wait for their turn when the source is given up.
        let asked = (0..20).map(|market| ask(&cache, round * 100 + market));
        assert!(join_all(asked).await.iter().all(Result::is_err));
        clock.advance(Duration::from_mins(1));
    }
    let used = within(cache.quota("census")).await.unwrap().used;
    assert_eq!(used as usize, server.count(), "each that was counted was made");
    assert!(used < 12, "{used}");
}

#[tokio::test]
async fn what_one_source_refuses_is_not_held_against_another() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/census/1" => answer_with(429, &[("Retry-After", "3600")], "come back later"),
        _ => answer(200, "ok"),
    });
    let place = Place::new(&server);
    let retry = RetryOptions::attempts(1);
    let options = OriginOptions::default().retry(retry);
    let builder = CacheBuilder::from_config(&place.config("retry: {attempts: 1}")).unwrap();
    let cache = builder.origin_options("other", options).build().unwrap();
    assert!(ask(&cache, 1).await.is_err());
    let keys = [larder::Key::new("census:2"), larder::Key::new("other:2")];
    let answers = cache
        .get_or_load_many(&keys, async |_contexts| panic!("the census is left alone"))
        .await
        .unwrap();
    assert!(answers.iter().any(Result::is_err));
    let load = |_context| async { Ok(larder::Loaded::new("ok")) };
    let hit = within(cache.get_or_load(&larder::Key::new("other:3"), load)).await;
    assert_eq!(hit.unwrap().value(), "ok", "nobody said so of this one");
}
