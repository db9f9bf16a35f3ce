//! "Keys": which are stored, and that one never answers for another.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use larder::{Error, Key, LoadContext, Loaded, Policy, PutReport, ReadOptions, SetOptions, Tag};
use rusqlite::Connection;

use crate::{
    harness::{Bench, Loads, bring, key, never, within},
    scene::{Scene, count, settle},
};

/// Keys that are not stored: empty, with control characters, too long.
fn unusable() -> Vec<Key> {
    let mut texts: Vec<String> =
        ["", "census:a\n", "census:\0", "census:\u{1b}[31m", "census:\u{7f}", "census:\u{85}"]
            .map(str::to_owned)
            .into();
    texts.push(format!("census:{}", "x".repeat(1_018)));
    // Of few characters, but of too many bytes.
    texts.push(format!("census:{}", "\u{e9}".repeat(509)));
    texts.push("x".repeat(1 << 20));
    texts.into_iter().map(Key::new).collect()
}

// "Control characters, empty, or longer than 1,024 bytes: the value is loaded and returned, not
// stored, counted."

#[tokio::test]
async fn the_value_of_a_key_that_cannot_be_stored_is_loaded_each_time_and_counted() {
    for scene in Scene::each(&Policy::default()) {
        for (n, key) in (1..).zip(unusable()) {
            assert!(!key.is_storable());
            let loads = Loads::default();
            for _ in 0..2 {
                let hit = within(scene.cache.get_or_load(&key, count(&loads, "v"))).await.unwrap();
                assert_eq!(hit.value(), "v", "{scene}");
            }
            assert_eq!(loads.count(), 2, "{scene}: {key}");
            settle().await;
            assert!(within(scene.cache.get(&key)).await.unwrap().is_none(), "{scene}: {key}");
            assert_eq!(scene.cache.stats().not_stored, 2 * n, "{scene}: {key}");
        }
        for (tier, usage) in within(scene.cache.usage()).await.unwrap() {
            assert_eq!(usage.unwrap().total().entries, 0, "{scene}: {tier}");
        }
    }
}

#[tokio::test]
async fn sqlite_stores_none_of_them_either() {
    let bench = Bench::new();
    let cache = bench.cache();
    for (n, key) in (1..).zip(unusable()) {
        let hit = within(cache.get_or_load(&key, bring("v"))).await.unwrap();
        assert_eq!((hit.value().as_ref(), cache.stats().not_stored), (&b"v"[..], n));
        assert!(within(cache.get(&key)).await.unwrap().is_none(), "{key}");
        let outcome = within(cache.set(&key, "v", SetOptions::default())).await.unwrap();
        assert_eq!(outcome.stored_in().count(), 0, "{key}");
    }
    let usage = within(larder::Inspect::usage(&bench.sqlite())).await.unwrap();
    assert_eq!(usage.total().entries, 0);
}

#[tokio::test]
async fn a_set_of_such_a_key_says_that_no_tier_took_it_and_why() {
    for scene in Scene::each(&Policy::default()) {
        for key in unusable() {
            let outcome = within(scene.cache.set(&key, "v", SetOptions::default())).await.unwrap();
            assert_eq!(outcome.tiers.len(), scene.tiers.len(), "{scene}");
            for (tier, report) in outcome.tiers {
                let PutReport::Done(larder::PutOutcome::Refused { reason }) = report else {
                    panic!("{scene}: {tier}: {report:?}")
                };
                assert!(reason.contains("key"), "{scene}: {reason}");
            }
        }
        let refused = scene.cache.stats().tiers.iter().map(|tier| tier.refused).collect::<Vec<_>>();
        assert_eq!(refused, vec![unusable().len() as u64; scene.tiers.len()], "{scene}: counted");
    }
}

#[tokio::test]
async fn where_a_tier_is_required_the_set_of_such_a_key_fails() {
    let scene = Scene::memory(&Policy::default());
    let tier = std::sync::Arc::clone(&scene.tiers[0]);
    let required = larder::TierOptions::default().required();
    let cache = scene.bench.bare().shared_tier_with(tier, required).build().unwrap();
    for key in unusable() {
        let error = within(cache.set(&key, "v", SetOptions::default())).await.unwrap_err();
        assert!(matches!(error, Error::NotStored { tier: "memory", .. }), "{error:?}");
        // Shown to people, who must not be shown control characters.
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
}

#[tokio::test]
async fn keys_of_1024_bytes_and_of_any_printable_text_are_stored() {
    let texts = [
        "x".repeat(1_024),
        format!("census:{}x", "\u{e9}".repeat(508)),
        "census:\u{1f4a9} '\"%&=;--".to_owned(),
        ":".to_owned(),
        " ".to_owned(),
    ];
    let bench = Bench::new();
    let cache = bench.cache();
    for key in texts.map(Key::new) {
        assert!(key.is_storable());
        within(cache.get_or_load(&key, bring("v"))).await.unwrap();
        assert_eq!(within(cache.get_or_load(&key, never())).await.unwrap().value(), "v", "{key}");
    }
    assert_eq!(cache.stats().not_stored, 0);
}

#[tokio::test]
async fn all_who_ask_for_such_a_key_at_one_time_share_one_load() {
    for mut scene in Scene::each(&Policy::default()) {
        scene.key = key("census:a\n");
        let (begun, callers) = scene.crowd(99).await;
        begun.bring("v");
        for caller in callers {
            assert_eq!(crate::harness::joined(caller).await.unwrap().value(), "v", "{scene}");
        }
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_batch_stores_the_other_keys() {
    for scene in Scene::each(&Policy::default()) {
        let keys = ["census:a", "census:b\n", "census:c"].map(Key::new);
        let load = |asked: Vec<LoadContext>| async {
            Ok(asked.into_iter().map(|one| (one.key, Ok(Loaded::new("v")))).collect())
        };
        let hits = within(scene.cache.get_or_load_many(&keys, load)).await.unwrap();
        assert!(hits.iter().all(|hit| hit.as_ref().is_ok_and(|hit| hit.value() == "v")), "{scene}");
        let found = within(scene.cache.get_many(&keys)).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|one| one.unwrap().is_some()).collect();
        assert_eq!(found, [true, false, true], "{scene}");
        assert_eq!(scene.cache.stats().not_stored, 1, "{scene}");
    }
}

#[tokio::test]
async fn such_a_key_can_be_invalidated_purged_and_refreshed_without_harm() {
    for scene in Scene::each(&Policy::default()) {
        scene.have("v").await;
        for key in unusable() {
            let removed = within(scene.cache.invalidate(&key)).await.unwrap();
            assert_eq!(removed.entries(), 0, "{scene}: {key}");
            let refresh = scene.cache.get_or_load_with(&key, ReadOptions::refresh(), bring("w"));
            assert_eq!(within(refresh).await.unwrap().value(), "w", "{scene}: {key}");
        }
        assert!(scene.get().await.is_some(), "{scene}: others are untouched");
    }
}

// "The full key is stored and compared: a hash collision can never return another key's value."

/// Gives all keys one hash.
#[derive(Default)]
struct AllAlike;

impl Hasher for AllAlike {
    fn finish(&self) -> u64 {
        7
    }

    fn write(&mut self, _bytes: &[u8]) {}
}

#[test]
fn keys_with_one_hash_are_told_apart() {
    let mut map = HashMap::<Key, u32, BuildHasherDefault<AllAlike>>::default();
    for n in 0..100 {
        map.insert(key(&format!("census:{n}")), n);
    }
    for n in 0..100 {
        assert_eq!(map.get(&key(&format!("census:{n}"))), Some(&n));
    }
    assert_eq!(map.get(&key("census:100")), None);
}

#[tokio::test]
async fn ten_thousand_keys_that_are_almost_alike_have_each_their_own_value_in_memory() {
    let bench = Bench::new();
    let cache = bench.memory_only();
    let text = |n: u32| format!("census:{}{n:05}{}", "a".repeat(30), "b".repeat(30));
    for n in 0..10_000 {
        let key = key(&text(n));
        within(cache.set(&key, text(n), SetOptions::default())).await.unwrap();
    }
    let mut found = 0;
    for n in 0..10_000 {
        if let Some(hit) = cache.peek(&key(&text(n))) {
            assert_eq!(hit.value(), &text(n));
            found += 1;
        }
    }
    assert_eq!(found, 10_000);
}

/// Changes a row's hash to that of another key.
fn give_hash_of(connection: &Connection, from: &str, to: &str) {
    let hash: i64 = connection
        .query_row("SELECT key_hash FROM entries WHERE key = ?1", [from], |row| row.get(0))
        .unwrap();
    connection.execute("DELETE FROM entries WHERE key = ?1", [from]).unwrap();
    let changed =
        connection.execute("UPDATE entries SET key_hash = ?1 WHERE key = ?2", (hash, to)).unwrap();
    assert_eq!(changed, 1);
}

/// A file in which the row of `census:other` has the hash of `census:a`.
async fn with_collision() -> Bench {
    let bench = Bench::new();
    let cache = bench.sqlite_only();
    for text in ["census:a", "census:other"] {
        let options = SetOptions::default().tag(Tag::new("co").unwrap());
        within(cache.set(&key(text), text.to_owned(), options)).await.unwrap();
    }
    crate::harness::close(cache).await;
    give_hash_of(&Connection::open(bench.path()).unwrap(), "census:a", "census:other");
    bench
}

#[tokio::test]
async fn a_row_of_sqlite_with_the_hash_of_a_key_is_not_its_value() {
    let bench = with_collision().await;
    for cache in [bench.sqlite_only(), bench.cache()] {
        assert!(within(cache.get(&key("census:a"))).await.unwrap().is_none());
        let both = [key("census:a"), key("census:b")];
        for found in within(cache.get_many(&both)).await.unwrap() {
            assert!(found.unwrap().is_none());
        }
        let loads = Loads::default();
        let bypass = ReadOptions::bypass();
        let load = count(&loads, "loaded");
        let hit = within(cache.get_or_load_with(&key("census:a"), bypass, load)).await.unwrap();
        assert_eq!((hit.value().as_ref(), loads.count()), (&b"loaded"[..], 1));
    }
}

#[tokio::test]
async fn of_two_keys_with_one_hash_in_sqlite_each_is_itself_or_missing() {
    let bench = with_collision().await;
    bench.advance(1_000);
    let cache = bench.sqlite_only();
    within(cache.get_or_load(&key("census:a"), bring("mine"))).await.unwrap();
    // The row has one place: the newer has it, and the other is loaded again.
    assert_eq!(within(cache.get_or_load(&key("census:a"), never())).await.unwrap().value(), "mine");
    assert!(within(cache.get(&key("census:other"))).await.unwrap().is_none());
    // What is done to one key does nothing to the other.
    within(cache.invalidate(&key("census:other"))).await.unwrap();
    assert_eq!(within(cache.get_or_load(&key("census:a"), never())).await.unwrap().value(), "mine");
}

#[tokio::test]
async fn what_is_done_to_a_key_does_nothing_to_another_with_its_hash() {
    let bench = with_collision().await;
    let cache = bench.sqlite_only();
    within(cache.invalidate(&key("census:a"))).await.unwrap();
    within(cache.expire(&key("census:a"))).await.unwrap();
    let tier = bench.sqlite();
    assert!(!within(larder::Tier::remove(&tier, &key("census:a"))).await.unwrap());
    let count = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&Connection::open(bench.path()).unwrap()), 1, "the other is still there");
}
