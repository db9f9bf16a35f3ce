//! "Loading": origins that ask to be left alone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use larder::{
    Cache, Error, Hit, Key, Load, LoadContext, Loaded, Origin, OriginError, OriginErrorKind,
    Policy, ReadOptions, Request, ServedBy, StaleReason,
};

use crate::{
    harness::{Bench, Loads, bring, gated, joined, key, never, within},
    scene::{Answer, Scene, count, give, ms, settle, status, told},
};

const MINUTE: Duration = Duration::from_mins(1);

/// "Too many requests", or "not now": try again after so long.
fn later(code: u16, after: Duration) -> OriginError {
    status(code).with_retry_after(Some(after))
}

/// Whether the source is left alone, and for how much longer.
fn left_alone(answer: Result<Hit, Error>) -> Duration {
    match answer {
        Err(ref error @ Error::LeftAlone { ref name, after, ref cause }) => {
            assert_eq!(name, "census");
            assert!(matches!(cause.kind(), OriginErrorKind::Status(429 | 503)));
            let text = error.to_string();
            assert!(text.contains("census") && text.contains(&format!("{after:?}")), "{text}");
            after
        }
        other => panic!("{other:?}"),
    }
}

async fn ask(cache: &Cache, text: &str) -> Result<Hit, Error> {
    within(cache.get_or_load(&key(text), bring("v"))).await
}

// "`Retry-After` on 429/503 stops all loads of that source until then; meanwhile ... an error that
// says when."

#[tokio::test]
async fn after_429_or_503_with_retry_after_nothing_of_the_source_is_loaded_until_then() {
    for code in [429, 503] {
        for scene in Scene::each(&Policy::default()) {
            let first = scene.ask(give(Err(later(code, MINUTE)))).await;
            assert!(matches!(first, Err(Error::Origin(_))), "{scene}: the first is told as it is");
            for text in ["census:a", "census:b", "census:c"] {
                assert_eq!(left_alone(ask(&scene.cache, text).await), MINUTE, "{scene}");
            }
            scene.advance(59_999);
            assert_eq!(left_alone(ask(&scene.cache, "census:b").await), ms(1), "{scene}");
            assert_eq!(scene.cache.stats().loads, 1, "{scene}");
            scene.advance(1);
            for text in ["census:a", "census:b"] {
                assert_eq!(ask(&scene.cache, text).await.unwrap().value(), "v", "{scene}");
            }
        }
    }
}

#[tokio::test]
async fn other_sources_are_loaded_all_the_same() {
    for scene in Scene::each(&Policy::default()) {
        scene.ask(give(Err(later(429, MINUTE)))).await.unwrap_err();
        // Not even one whose name begins alike.
        for text in ["census_acs:a", "bls:a"] {
            assert_eq!(ask(&scene.cache, text).await.unwrap().value(), "v", "{scene}");
        }
    }
}

#[tokio::test]
async fn what_is_fresh_is_served_all_the_same() {
    for scene in Scene::each(&Policy::default()) {
        ask(&scene.cache, "census:fresh").await.unwrap();
        scene.ask(give(Err(later(429, MINUTE)))).await.unwrap_err();
        let hit = within(scene.cache.get_or_load(&key("census:fresh"), never())).await.unwrap();
        assert_eq!(told(&hit), ("v", None), "{scene}");
    }
}

#[tokio::test]
async fn without_retry_after_and_with_other_failures_each_call_loads() {
    let unasked = [
        status(429),
        status(503),
        later(429, Duration::ZERO),
        later(500, MINUTE),
        later(404, MINUTE),
        crate::harness::failure("unplugged").with_retry_after(Some(MINUTE)),
    ];
    for error in unasked {
        let told = error.to_string();
        let scene = Scene::chain(&Policy::default());
        scene.ask(give(Err(error))).await.unwrap_err();
        assert_eq!(ask(&scene.cache, "census:a").await.unwrap().value(), "v", "{told}");
    }
}

#[tokio::test]
async fn neither_a_forced_refresh_nor_a_load_for_one_caller_is_an_exception() {
    for scene in Scene::each(&Policy::default()) {
        scene.have("v").await;
        scene.ask_with(ReadOptions::bypass(), give(Err(later(503, MINUTE)))).await.unwrap_err();
        for options in [ReadOptions::refresh(), ReadOptions::bypass()] {
            assert_eq!(left_alone(scene.ask_with(options, never()).await), MINUTE, "{scene}");
        }
        assert_eq!(told(&scene.ask(never()).await.unwrap()), ("v", None), "{scene}");
    }
}

#[tokio::test]
async fn it_counts_from_the_answer_not_from_the_question() {
    for options in [ReadOptions::default(), ReadOptions::bypass()] {
        for scene in Scene::each(&Policy::default()) {
            let (gate, load) = gated();
            let caller = scene.start_with(options.clone(), load);
            let begun = gate.begun().await;
            scene.advance(50_000);
            begun.end(Err(later(429, MINUTE)));
            joined(caller).await.unwrap_err();
            let after = left_alone(ask(&scene.cache, "census:b").await);
            assert_eq!(after, MINUTE, "{scene}: {:?}", options.mode);
        }
    }
}

#[tokio::test]
async fn batches_leave_the_source_alone_and_can_be_told_to() {
    let scene = Scene::chain(&Policy::default());
    let keys = ["census:a", "census:b", "bls:a"].map(Key::new);
    let load = |asked: Vec<LoadContext>| async move {
        let answer = |one: LoadContext| match one.key.as_str() {
            "census:a" => (one.key, Err(later(429, MINUTE))),
            _ => (one.key, Ok(Loaded::new("v"))),
        };
        Ok(asked.into_iter().map(answer).collect())
    };
    let answers = within(scene.cache.get_or_load_many(&keys, load)).await.unwrap();
    assert!(matches!(answers[0], Err(Error::Origin(_))));
    assert!(answers[1].is_ok() && answers[2].is_ok());
    // In the next one only the other source is asked.
    let keys = ["census:c", "bls:c"].map(Key::new);
    let load = |asked: Vec<LoadContext>| async move {
        assert_eq!(asked.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["bls:c"]);
        Ok(asked.into_iter().map(|one| (one.key, Ok(Loaded::new("v")))).collect())
    };
    let mut answers = within(scene.cache.get_or_load_many(&keys, load)).await.unwrap();
    assert!(answers.pop().unwrap().is_ok());
    assert_eq!(left_alone(answers.pop().unwrap()), MINUTE);
}

#[tokio::test]
async fn a_shorter_wish_that_comes_later_does_not_cut_a_longer_one_short() {
    for scene in Scene::each(&Policy::default()) {
        let (long, long_load) = gated();
        let (short, short_load) = gated();
        let first = scene.start(long_load);
        let cache = scene.cache.clone();
        let second =
            tokio::spawn(async move { cache.get_or_load(&key("census:b"), short_load).await });
        let (long, short) = (long.begun().await, short.begun().await);
        long.end(Err(later(429, MINUTE)));
        joined(first).await.unwrap_err();
        short.end(Err(later(503, ms(1_000))));
        joined(second).await.unwrap_err();
        scene.advance(1_000);
        assert_eq!(left_alone(ask(&scene.cache, "census:c").await), ms(59_000), "{scene}");
    }
}

// "meanwhile stale"

#[tokio::test]
async fn meanwhile_what_is_stale_is_served_and_says_why() {
    let policy = Policy::ttl(ms(100)).stale_if_error(Duration::from_hours(1));
    for code in [429, 503] {
        // Also for a key whose own throttle is over, or that never had one.
        for scene in Scene::each(&policy.clone().throttle(Duration::ZERO)) {
            scene.have("old").await;
            ask(&scene.cache, "census:other").await.unwrap();
            scene.advance(100);
            let hit = scene.ask(give(Err(later(code, MINUTE)))).await.unwrap();
            assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
            for text in ["census:a", "census:other"] {
                let hit = within(scene.cache.get_or_load(&key(text), never())).await.unwrap();
                assert_eq!(hit.stale_reason(), Some(StaleReason::Throttled), "{scene}: {text}");
                assert!(matches!(hit.failure(), Some(Error::LeftAlone { .. })), "{scene}: {text}");
            }
            scene.advance(60_000);
            assert_eq!(told(&scene.ask(bring("new")).await.unwrap()), ("new", None), "{scene}");
        }
    }
}

#[tokio::test]
async fn meanwhile_nothing_is_refreshed_behind_hits() {
    let policy = Policy::ttl(ms(100)).stale_while_revalidate(Duration::from_hours(1));
    for scene in Scene::each(&policy.refresh_ahead(0.5)) {
        scene.have("old").await;
        scene.advance(50);
        ask(&scene.cache, "census:b").await.unwrap();
        let refused = give(Err(later(429, MINUTE)));
        within(scene.cache.get_or_load(&key("census:c"), refused)).await.unwrap_err();
        let loads = Loads::default();
        for (millis, reason) in [(0, None), (50, Some(StaleReason::Revalidating))] {
            scene.advance(millis);
            let hit = scene.ask(count(&loads, "new")).await.unwrap();
            settle().await;
            let what = (told(&hit).0, loads.count());
            assert_eq!(what, ("old", 0), "{scene}: {millis}");
            // Why, there may be more than one reason.
            assert_eq!(hit.is_stale(), reason.is_some(), "{scene}: {millis}");
        }
    }
}

/// An origin that asks to be left alone at first.
#[derive(Debug, Default)]
struct Busy(Loads);

#[async_trait]
impl Origin for Busy {
    async fn load(&self, _load: Load) -> Answer {
        if self.0.add() == 1 { Err(later(503, MINUTE)) } else { Ok(Loaded::new("v")) }
    }
}

#[tokio::test]
async fn an_origin_that_asks_to_be_left_alone_is() {
    let bench = Bench::new();
    let busy = Arc::new(Busy::default());
    let origin: Arc<dyn Origin> = Arc::<Busy>::clone(&busy);
    let cache = bench.bare().tier(bench.memory()).shared_origin("census", origin);
    let cache = cache.build().unwrap();
    let request = |year| Request::new("census").param("year", year);
    assert!(within(cache.request(&request(2020))).await.is_err());
    assert_eq!(left_alone(within(cache.request(&request(2021))).await), MINUTE);
    assert_eq!(busy.0.count(), 1);
    bench.advance(60_000);
    let hit = within(cache.request(&request(2021))).await.unwrap();
    assert_eq!((hit.served_by(), busy.0.count()), (ServedBy::Origin, 2));
}
