//! "Loading": several keys at once.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use larder::{
    Cache, Error, Hit, Key, LoadContext, Loaded, OriginError, Policy, ServedBy, SetOptions,
};
use tier_testkit::{Call, Fault, Faults};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    harness::{failure, gated, joined, key, within},
    scene::{Answer, Scene, ms, settle},
};

pub(crate) type Answers = Result<Vec<(Key, Answer)>, OriginError>;
pub(crate) type Hits = Vec<Result<Hit, Error>>;

pub(crate) fn keys(texts: &str) -> Vec<Key> {
    texts.split_whitespace().map(|text| key(&format!("census:{text}"))).collect()
}

/// What loaders were asked for, call by call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Vec<String>>>>);

impl Calls {
    fn note(&self, asked: &[LoadContext]) {
        let names = asked.iter().map(|one| one.key.as_str().replace("census:", "")).collect();
        self.0.lock().unwrap().push(names);
    }

    pub(crate) fn all(&self) -> Vec<Vec<String>> {
        self.0.lock().unwrap().clone()
    }

    /// A load that brings each key's own name.
    pub(crate) fn load(
        &self,
    ) -> impl FnOnce(Vec<LoadContext>) -> std::future::Ready<Answers> + Send + 'static {
        let calls = self.clone();
        move |asked| {
            calls.note(&asked);
            std::future::ready(Ok(named(asked)))
        }
    }
}

/// Each key's own name.
pub(crate) fn named(asked: Vec<LoadContext>) -> Vec<(Key, Answer)> {
    let named = |one: LoadContext| (one.key.clone(), Ok(Loaded::new(one.key.as_str().to_owned())));
    asked.into_iter().map(named).collect()
}

pub(crate) async fn ask<F, Fut>(cache: &Cache, keys: &[Key], load: F) -> Hits
where
    F: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
    Fut: Future<Output = Answers> + Send + 'static,
{
    within(cache.get_or_load_many(keys, load)).await.unwrap()
}

/// All answers are the names of their keys.
pub(crate) fn are_named(hits: &Hits, keys: &[Key]) -> bool {
    let named = |(hit, key): (&Result<Hit, Error>, &Key)| {
        hit.as_ref().is_ok_and(|hit| hit.value() == key.as_str().as_bytes())
    };
    hits.len() == keys.len() && hits.iter().zip(keys).all(named)
}

/// A batch under way in a task of its own, what its loader was asked for, and how to end it.
pub(crate) struct Batch {
    pub(crate) asked: Vec<Key>,
    pub(crate) end: oneshot::Sender<Answers>,
    pub(crate) caller: JoinHandle<Hits>,
}

impl Batch {
    pub(crate) async fn begin(cache: &Cache, keys: Vec<Key>) -> Self {
        let (began, asked) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let cache = cache.clone();
        let caller = tokio::spawn(async move {
            let load = move |asked: Vec<LoadContext>| async move {
                began.send(asked.into_iter().map(|one| one.key).collect()).unwrap();
                ended.await.unwrap_or_else(|_gone| Err(failure("the gate is gone")))
            };
            cache.get_or_load_many(&keys, load).await.unwrap()
        });
        Self { asked: within(asked).await.unwrap(), end, caller }
    }

    pub(crate) async fn bring_names(self) -> Hits {
        let name = |key: Key| (key.clone(), Ok(Loaded::new(key.as_str().to_owned())));
        self.end.send(Ok(self.asked.into_iter().map(name).collect())).unwrap();
        joined(self.caller).await
    }
}

// "`get_many` / `get_or_load_many`: results in the caller's order, duplicates allowed"

#[tokio::test]
async fn get_many_answers_in_the_callers_order() {
    for scene in Scene::each(&Policy::default()) {
        let stored = keys("c a d");
        for key in &stored {
            let value = key.as_str().to_owned();
            within(scene.cache.set(key, value, SetOptions::default())).await.unwrap();
        }
        let asked = keys("d b c a b d");
        let found = within(scene.cache.get_many(&asked)).await.unwrap();
        assert_eq!(found.len(), asked.len());
        for (found, key) in found.into_iter().zip(&asked) {
            let value = found.unwrap().map(|hit| hit.value().clone());
            let expected = stored.contains(key).then(|| key.as_str().to_owned().into());
            assert_eq!(value, expected, "{scene}: {key}");
        }
    }
}

#[tokio::test]
async fn get_or_load_many_answers_in_the_callers_order_duplicates_too() {
    for scene in Scene::each(&Policy::default()) {
        let calls = Calls::default();
        ask(&scene.cache, &keys("b d"), calls.load()).await;
        let asked = keys("e b a d a c b e a");
        // In whatever order the loader answers.
        let load = |asked: Vec<LoadContext>| async move {
            let mut answers = named(asked);
            answers.reverse();
            Ok(answers)
        };
        let hits = ask(&scene.cache, &asked, load).await;
        assert!(are_named(&hits, &asked), "{scene}: {hits:?}");
        let served: Vec<_> =
            hits.iter().map(|hit| hit.as_ref().unwrap().served_by() == ServedBy::Origin).collect();
        assert_eq!(served, [true, false, true, false, true, true, false, true, true], "{scene}");
    }
}

#[tokio::test]
async fn a_batch_of_nothing_and_one_of_hits_load_nothing() {
    for scene in Scene::each(&Policy::default()) {
        let calls = Calls::default();
        assert!(ask(&scene.cache, &[], calls.load()).await.is_empty());
        ask(&scene.cache, &keys("a b"), Calls::default().load()).await;
        let hits = ask(&scene.cache, &keys("b a"), calls.load()).await;
        assert!(are_named(&hits, &keys("b a")), "{scene}");
        assert_eq!(calls.all().len(), 0, "{scene}");
    }
}

#[tokio::test]
async fn a_batch_reads_each_tier_once() {
    let scene = Scene::chain(&Policy::default());
    let all: Vec<Key> = (0..100).map(|n| key(&format!("census:{n}"))).collect();
    ask(&scene.cache, &all, Calls::default().load()).await;
    let scene = scene.restarted(&Policy::default());
    let before = scene.chaos().calls(Call::Get);
    assert_eq!(within(scene.cache.get_many(&all)).await.unwrap().len(), 100);
    assert_eq!(scene.chaos().calls(Call::Get) - before, 1);
    let scene = scene.restarted(&Policy::default());
    assert!(are_named(&ask(&scene.cache, &all, Calls::default().load()).await, &all));
    assert_eq!(scene.chaos().calls(Call::Get) - before, 2);
}

// "the loader gets the missing keys only, once, distinct"

#[tokio::test]
async fn the_loader_is_called_once_with_the_missing_keys_each_once() {
    for scene in Scene::each(&Policy::default()) {
        let calls = Calls::default();
        ask(&scene.cache, &keys("b d"), Calls::default().load()).await;
        ask(&scene.cache, &keys("e b a d a c b e a"), calls.load()).await;
        assert_eq!(calls.all(), [["e", "a", "c"]], "{scene}: in the order they were asked for");
        ask(&scene.cache, &keys("a b c d e"), calls.load()).await;
        assert_eq!(calls.all().len(), 1, "{scene}: all have been stored");
    }
}

#[tokio::test]
async fn what_a_batch_loads_is_stored_in_every_tier() {
    for scene in Scene::each(&Policy::ttl(ms(100))) {
        ask(&scene.cache, &keys("a b"), Calls::default().load()).await;
        settle().await;
        for tier in &scene.tiers {
            let held = within(tier.get_many(&keys("a b"))).await.unwrap();
            assert!(held.iter().all(Option::is_some), "{scene}: {}", tier.name());
        }
        scene.advance(100);
        let calls = Calls::default();
        ask(&scene.cache, &keys("a b"), calls.load()).await;
        assert_eq!(calls.all(), [["a", "b"]], "{scene}: for as long as the policy says");
    }
}

// "a key already in flight is waited for, not loaded again"

#[tokio::test]
async fn a_batch_waits_for_a_key_that_is_being_loaded_already() {
    for scene in Scene::each(&Policy::default()) {
        let (gate, load) = gated();
        let single = scene.start(load);
        let begun = gate.begun().await;
        let batch = Batch::begin(&scene.cache, keys("b a c")).await;
        assert_eq!(batch.asked, keys("b c"), "{scene}");
        begun.bring("census:a");
        assert_eq!(joined(single).await.unwrap().value(), "census:a");
        assert!(are_named(&batch.bring_names().await, &keys("b a c")), "{scene}");
        assert_eq!(scene.cache.stats().loads, 3, "{scene}");
    }
}

#[tokio::test]
async fn a_call_for_one_key_waits_for_the_batch_that_loads_it() {
    for scene in Scene::each(&Policy::default()) {
        let batch = Batch::begin(&scene.cache, keys("b a c")).await;
        let callers = scene.followers(100);
        scene.joined_by(100).await;
        assert!(are_named(&batch.bring_names().await, &keys("b a c")), "{scene}");
        for caller in callers {
            assert_eq!(joined(caller).await.unwrap().value(), "census:a", "{scene}");
        }
    }
}

#[tokio::test]
async fn a_batch_whose_keys_are_all_in_flight_loads_nothing() {
    for scene in Scene::each(&Policy::default()) {
        let batch = Batch::begin(&scene.cache, keys("a b")).await;
        let (cache, calls) = (scene.cache.clone(), Calls::default());
        let load = calls.load();
        let other =
            tokio::spawn(async move { cache.get_or_load_many(&keys("b a"), load).await.unwrap() });
        scene.joined_by(2).await;
        assert!(are_named(&batch.bring_names().await, &keys("a b")), "{scene}");
        assert!(are_named(&joined(other).await, &keys("b a")), "{scene}");
        assert_eq!(calls.all().len(), 0, "{scene}");
    }
}

#[tokio::test]
async fn batches_that_overlap_in_a_ring_do_not_wait_for_each_other_for_ever() {
    for scene in Scene::each(&Policy::default()) {
        let first = Batch::begin(&scene.cache, keys("a b")).await;
        let second = Batch::begin(&scene.cache, keys("b c")).await;
        let third = Batch::begin(&scene.cache, keys("c d a")).await;
        assert_eq!((&second.asked, &third.asked), (&keys("c"), &keys("d")), "{scene}");
        // The last that began ends first.
        let third = tokio::spawn(third.bring_names());
        let second = tokio::spawn(second.bring_names());
        settle().await;
        assert!(are_named(&first.bring_names().await, &keys("a b")), "{scene}");
        assert!(are_named(&joined(second).await, &keys("b c")), "{scene}");
        assert!(are_named(&joined(third).await, &keys("c d a")), "{scene}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn overlapping_batches_in_any_order_load_each_key_once() {
    for scene in Scene::each(&Policy::default()) {
        if scene.tiers.iter().any(|tier| tier.name() == "lower") {
            scene.chaos().set(Faults::none().everywhere(Fault::Delay, 0.5));
        }
        for round in 0..20 {
            let calls = Calls::default();
            let batches: Vec<_> = (0..32_usize)
                .map(|n| {
                    // (a, b), (b, a), and so on: rotated, and every other one backwards.
                    let mut asked: Vec<Key> = (0..8)
                        .map(|at| key(&format!("census:{round}-{}", (at + n) % 8)))
                        .take(2 + n % 7)
                        .collect();
                    if n % 2 == 1 {
                        asked.reverse();
                    }
                    let (cache, calls) = (scene.cache.clone(), calls.clone());
                    tokio::spawn(async move {
                        let load = |contexts: Vec<LoadContext>| async move {
                            calls.note(&contexts);
                            tokio::task::yield_now().await;
                            Ok(named(contexts))
                        };
                        (cache.get_or_load_many(&asked, load).await.unwrap(), asked)
                    })
                })
                .collect();
            for batch in batches {
                let (hits, asked) = joined(batch).await;
                assert!(are_named(&hits, &asked), "{scene}: {hits:?}");
            }
            let loaded: Vec<String> = calls.all().concat();
            let distinct: HashSet<&String> = loaded.iter().collect();
            assert_eq!((loaded.len(), distinct.len()), (8, 8), "{scene}: {loaded:?}");
        }
    }
}

#[tokio::test]
async fn gets_of_overlapping_batches_do_not_wait_for_each_other_for_ever() {
    let scene = Scene::chain(&Policy::default());
    ask(&scene.cache, &keys("a b c"), Calls::default().load()).await;
    let scene = scene.restarted(&Policy::default());
    scene.chaos().set(Faults::none().on(Call::Get, Fault::Delay, 1.0));
    let readers: Vec<_> = ["a b", "b a", "b c", "c b", "c a", "a c"]
        .into_iter()
        .map(|asked| {
            let cache = scene.cache.clone();
            tokio::spawn(async move { cache.get_many(&keys(asked)).await.unwrap() })
        })
        .collect();
    for reader in readers {
        let found = joined(reader).await;
        assert!(found.into_iter().all(|found| found.unwrap().is_some()));
    }
}
