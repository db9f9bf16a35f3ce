//! "Loading": several keys at once, of which some fail or are stale.

use std::{collections::HashSet, time::Duration};

use larder::{Error, Hit, LoadContext, Loaded, Policy, ReadOptions, StaleReason};
use tokio::time::Instant;

use crate::{
    batches::{Answers, Batch, Calls, are_named, ask, keys, named},
    harness::{bring, failure, joined, key, never, within},
    scene::{Scene, hang, ms, settle, soon, status, told},
};

// "one key's failure is that key's, not the batch's."

fn message(answer: &Result<Hit, Error>) -> String {
    answer.as_ref().map_or_else(ToString::to_string, |hit| told(hit).0.to_owned())
}

#[tokio::test]
async fn one_keys_failure_is_its_own() {
    for scene in Scene::each(&Policy::default()) {
        let load = |asked: Vec<LoadContext>| async move {
            let mut answers = named(asked);
            answers[1].1 = Err(status(500));
            Ok(answers)
        };
        let hits = ask(&scene.cache, &keys("a b c b"), load).await;
        assert_eq!((message(&hits[0]), message(&hits[2])), ("census:a".into(), "census:c".into()));
        assert!(message(&hits[1]).contains("status 500"), "{scene}");
        assert!(message(&hits[3]).contains("status 500"), "{scene}");
        // Only that key is loaded by the next.
        let calls = Calls::default();
        assert!(are_named(&ask(&scene.cache, &keys("a b c"), calls.load()).await, &keys("a b c")));
        assert_eq!(calls.all(), [["b"]], "{scene}");
    }
}

#[tokio::test]
async fn a_key_that_the_loader_leaves_out_has_failed_and_what_it_adds_is_ignored() {
    for scene in Scene::each(&Policy::default()) {
        let load = |asked: Vec<LoadContext>| async move {
            let mut answers = named(asked);
            answers[0].0 = key("census:never asked for");
            Ok(answers)
        };
        let hits = ask(&scene.cache, &keys("a b"), load).await;
        assert!(
            message(&hits[0]).contains("brought no answer for `census:a`"),
            "{scene}: {hits:?}"
        );
        assert_eq!(message(&hits[1]), "census:b", "{scene}");
        let added = within(scene.cache.get(&key("census:never asked for"))).await.unwrap();
        assert!(added.is_none(), "{scene}");
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_batch_that_fails_as_a_whole_is_the_failure_of_each_missing_key_alone() {
    for scene in Scene::each(&Policy::default()) {
        ask(&scene.cache, &keys("b"), Calls::default().load()).await;
        let load = |_: Vec<LoadContext>| async { Err(failure("unplugged")) };
        let hits = ask(&scene.cache, &keys("a b c"), load).await;
        assert!(message(&hits[0]).contains("unplugged") && message(&hits[2]).contains("unplugged"));
        assert_eq!(message(&hits[1]), "census:b", "{scene}");
        assert_eq!(scene.cache.stats().load_failures, 2, "{scene}");
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_batch_that_panics_is_told_to_all_who_wait_for_its_keys_and_wedges_none() {
    for scene in Scene::each(&Policy::default()) {
        ask(&scene.cache, &keys("b"), Calls::default().load()).await;
        let load = |asked: Vec<LoadContext>| async move {
            settle().await;
            panic!("the loader of {} broke", asked.len())
        };
        let cache = scene.cache.clone();
        let batch = tokio::spawn(async move { ask(&cache, &keys("a b c"), load).await });
        scene.loading(3).await;
        let caller = scene.start(never());
        let hits = joined(batch).await;
        for (at, text) in [(0, "census:a"), (2, "census:c")] {
            match &hits[at] {
                Err(Error::LoadPanicked { key, message }) => {
                    assert_eq!(key.as_str(), text, "{scene}");
                    assert_eq!(message, "the loader of 2 broke", "{scene}");
                }
                other => panic!("{scene}: {other:?}"),
            }
        }
        assert_eq!(message(&hits[1]), "census:b", "{scene}");
        assert!(matches!(joined(caller).await, Err(Error::LoadPanicked { .. })), "{scene}");
        let calls = Calls::default();
        assert!(are_named(&ask(&scene.cache, &keys("a b c"), calls.load()).await, &keys("a b c")));
        assert_eq!(calls.all(), [["a", "c"]], "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_hangs_is_given_up_at_the_hard_timeout_and_wedges_no_key() {
    for scene in Scene::each(&Policy::default().hard_timeout(ms(1_000))) {
        ask(&scene.cache, &keys("b"), Calls::default().load()).await;
        let since = Instant::now();
        let load = |_: Vec<LoadContext>| std::future::pending::<Answers>();
        let hits = ask(&scene.cache, &keys("a b c"), load).await;
        assert!(since.elapsed() >= ms(1_000) && since.elapsed() < ms(1_010), "{scene}");
        for at in [0, 2] {
            assert!(matches!(hits[at], Err(Error::LoadTimedOut { .. })), "{scene}: {hits:?}");
        }
        assert_eq!(message(&hits[1]), "census:b", "{scene}");
        let calls = Calls::default();
        assert!(are_named(&ask(&scene.cache, &keys("a b c"), calls.load()).await, &keys("a b c")));
        assert_eq!(calls.all(), [["a", "c"]], "{scene}");
    }
}

#[tokio::test]
async fn a_batch_whose_caller_goes_is_loaded_and_stored() {
    for scene in Scene::each(&Policy::default()) {
        let batch = Batch::begin(&scene.cache, keys("a b")).await;
        batch.caller.abort();
        settle().await;
        let answer = |text: &str| (key(text), Ok(Loaded::new(text.to_owned())));
        batch.end.send(Ok(["census:a", "census:b"].map(answer).into())).unwrap();
        settle().await;
        let calls = Calls::default();
        assert!(are_named(&ask(&scene.cache, &keys("b a"), calls.load()).await, &keys("b a")));
        assert_eq!(calls.all().len(), 0, "{scene}");
    }
}

// What is stale, in batches: as for one key.

/// `a` is stale, `b` fresh, and `c` missing.
async fn mixed(policy: &Policy) -> [Scene; 3] {
    let scenes = Scene::each(policy);
    for scene in &scenes {
        ask(&scene.cache, &keys("a"), Calls::default().load()).await;
        scene.advance(100);
        ask(&scene.cache, &keys("b"), Calls::default().load()).await;
    }
    scenes
}

#[tokio::test]
async fn in_a_batch_that_fails_what_is_stale_is_served_and_throttled_by_key() {
    for scene in mixed(&Policy::ttl(ms(100)).stale_if_error(Duration::from_hours(1))).await {
        let load = |asked: Vec<LoadContext>| async move {
            assert_eq!(asked.len(), 2);
            Err(failure("unplugged"))
        };
        let hits = ask(&scene.cache, &keys("a b c"), load).await;
        let reasons: Vec<_> =
            hits.iter().map(|hit| hit.as_ref().ok().map(Hit::stale_reason)).collect();
        assert_eq!(reasons, [Some(Some(StaleReason::LoadFailed)), Some(None), None], "{scene}");
        // `a` is left alone for a while, `c` is not.
        let calls = Calls::default();
        let hits = ask(&scene.cache, &keys("a b c"), calls.load()).await;
        assert_eq!(hits[0].as_ref().unwrap().stale_reason(), Some(StaleReason::Throttled));
        assert!(are_named(&hits, &keys("a b c")), "{scene}");
        assert_eq!(calls.all(), [["c"]], "{scene}");
    }
}

#[tokio::test]
async fn a_batch_refreshes_behind_what_is_stale_while_it_loads_what_is_missing() {
    for scene in mixed(&Policy::ttl(ms(100)).stale_while_revalidate(ms(900))).await {
        let batch = Batch::begin(&scene.cache, keys("a b c")).await;
        let asked: HashSet<_> = batch.asked.iter().cloned().collect();
        assert_eq!(asked, keys("a c").into_iter().collect(), "{scene}: one call for both");
        // Who asks for nothing else is not kept waiting.
        let hit = scene.ask(never()).await.unwrap();
        assert_eq!(told(&hit).1, Some(StaleReason::Revalidating), "{scene}");
        let hits = batch.bring_names().await;
        assert_eq!(hits[0].as_ref().unwrap().stale_reason(), Some(StaleReason::Revalidating));
        assert!(are_named(&hits, &keys("a b c")), "{scene}");
        settle().await;
        let hit = scene.get().await.unwrap();
        assert_eq!((told(&hit), hit.fresh_for()), (("census:a", None), ms(100)), "{scene}");
    }
}

#[tokio::test]
async fn a_batch_of_stale_values_returns_at_once() {
    for scene in mixed(&Policy::ttl(ms(100)).stale_while_revalidate(ms(900))).await {
        let batch = Batch::begin(&scene.cache, keys("a b")).await;
        assert_eq!(batch.asked, keys("a"), "{scene}");
        let hits = joined(batch.caller).await;
        assert!(are_named(&hits, &keys("a b")), "{scene}: the load has not ended");
    }
}

#[tokio::test]
async fn a_batch_refreshes_ahead() {
    for scene in mixed(&Policy::ttl(ms(1_000)).refresh_ahead(0.1)).await {
        let batch = Batch::begin(&scene.cache, keys("a b")).await;
        assert_eq!(batch.asked, keys("a"), "{scene}: `b` is younger");
        let answer = (key("census:a"), Ok(Loaded::new("new")));
        batch.end.send(Ok(vec![answer])).unwrap();
        let hits = joined(batch.caller).await;
        assert!(are_named(&hits, &keys("a b")), "{scene}: the hits of the call");
        settle().await;
        assert_eq!(scene.get().await.unwrap().value(), "new", "{scene}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_batch_that_is_slow_what_is_stale_is_waited_for_no_longer_than_the_rest() {
    let policy = Policy::ttl(ms(100)).stale_if_error(ms(900)).soft_timeout(ms(50));
    for scene in mixed(&policy.hard_timeout(ms(1_000))).await {
        let load = |_: Vec<LoadContext>| std::future::pending::<Answers>();
        let since = Instant::now();
        let hits = ask(&scene.cache, &keys("a b"), load).await;
        assert_eq!(hits[0].as_ref().unwrap().stale_reason(), Some(StaleReason::LoadSlow));
        assert!(since.elapsed() >= ms(50) && since.elapsed() < ms(60), "{scene}");
    }
}

// Options hold for the keys of a batch as for one.

#[tokio::test]
async fn the_modes_of_a_read_hold_for_batches() {
    for scene in Scene::each(&Policy::default()) {
        let (calls, both) = (Calls::default(), keys("a b"));
        let many = async |options, load| {
            within(scene.cache.get_or_load_many_with(&both, options, load)).await.unwrap()
        };
        let none = many(ReadOptions::cached_only(), calls.load()).await;
        assert!(none.iter().all(|one| matches!(one, Err(Error::NotCached { .. }))), "{scene}");
        many(ReadOptions::default(), calls.load()).await;
        many(ReadOptions::cached_only(), calls.load()).await;
        many(ReadOptions::refresh(), calls.load()).await;
        assert!(are_named(&many(ReadOptions::bypass(), calls.load()).await, &both), "{scene}");
        let expected = vec![vec!["a", "b"]; 3];
        assert_eq!(calls.all(), expected, "{scene}: missing, refreshed, and bypassed");
        let unknown = ReadOptions::default().skip("redis");
        let answer = within(scene.cache.get_or_load_many_with(&both, unknown, calls.load())).await;
        assert!(matches!(answer, Err(Error::UnknownTier { .. })), "{scene}");
    }
}

#[tokio::test]
async fn a_hung_load_of_one_key_does_not_keep_the_others_of_a_batch_from_being_stored() {
    for scene in Scene::each(&Policy::default()) {
        let _hung = scene.start(hang());
        scene.loading(1).await;
        let (cache, calls) = (scene.cache.clone(), Calls::default());
        let load = calls.load();
        let batch = tokio::spawn(async move { ask(&cache, &keys("a b"), load).await });
        soon(|| !calls.all().is_empty()).await;
        settle().await;
        assert!(!batch.is_finished(), "{scene}: it waits for `a`");
        let hit = within(scene.cache.get_or_load(&key("census:b"), bring("again"))).await.unwrap();
        assert_eq!(hit.value(), "census:b", "{scene}");
    }
}
