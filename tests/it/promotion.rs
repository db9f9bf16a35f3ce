//! What a lower tier has is copied upwards, and the copy is no better than what it was made from.

use std::time::Duration;

use cache_core::Tier;
use larder::{Error, Loaded, ServedBy, SetOptions, Ttl};

use crate::harness::{Bench, bring, close, key, never, tag, within};

const MEMORY: ServedBy = ServedBy::Tier("memory");
const SQLITE: ServedBy = ServedBy::Tier("sqlite");

/// A bench whose file has `value` under `census:a`, fresh for a second.
async fn stored_below(value: &'static str) -> Bench {
    let bench = Bench::new();
    let below = bench.sqlite_only();
    let options = SetOptions::ttl(Duration::from_secs(1)).tag(tag("co")).content_type("text/plain");
    within(below.set(&key("census:a"), value, options)).await.unwrap();
    close(below).await;
    bench
}

#[tokio::test]
async fn an_entry_only_in_sqlite_is_served_by_sqlite_once_then_by_memory() {
    let bench = stored_below("v").await;
    let (cache, key) = (bench.cache(), key("census:a"));
    let served: Vec<_> = [
        within(cache.get(&key)).await.unwrap().unwrap(),
        within(cache.get(&key)).await.unwrap().unwrap(),
        within(cache.get_or_load(&key, never())).await.unwrap(),
    ]
    .map(|hit| (hit.served_by(), hit.value().clone()))
    .into();
    assert_eq!(served, [(SQLITE, "v".into()), (MEMORY, "v".into()), (MEMORY, "v".into())]);
    let stats = cache.stats();
    assert_eq!((stats.promotions, stats.loads, stats.misses), (1, 0, 0), "{stats:?}");
}

#[tokio::test]
async fn a_lookup_inside_a_flight_promotes_too() {
    let bench = stored_below("v").await;
    let (cache, key) = (bench.cache(), key("census:a"));
    let first = within(cache.get_or_load(&key, never())).await.unwrap();
    let second = within(cache.get_or_load(&key, never())).await.unwrap();
    assert_eq!((first.served_by(), second.served_by()), (SQLITE, MEMORY));
    assert_eq!(cache.stats().promotions, 1);
}

#[tokio::test]
async fn the_promoted_copy_equals_the_one_below_in_value_and_all_metadata() {
    let bench = stored_below("v").await;
    let (cache, key) = (bench.cache(), key("census:a"));
    bench.advance(400);
    let below = within(cache.get(&key)).await.unwrap().unwrap();
    bench.advance(400);
    let above = within(cache.get(&key)).await.unwrap().unwrap();
    assert_eq!((below.served_by(), above.served_by()), (SQLITE, MEMORY));
    assert_eq!(above.entry().as_of(), below.entry().as_of());
    assert_eq!(above.entry().expires_at(), below.entry().expires_at());
    assert_eq!(above.entry().stale_until(), below.entry().stale_until());
    assert_eq!(above.entry(), below.entry());
    assert_eq!(above.entry().tags(), [tag("co")]);
    assert_eq!(above.entry().content_type(), Some("text/plain"));
}

#[tokio::test]
async fn a_promoted_copy_never_outlives_the_one_below() {
    let bench = stored_below("v").await;
    let (cache, key) = (bench.cache(), key("census:a"));
    // Promoted in its last millisecond, it must not live another second in memory.
    bench.advance(999);
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().served_by(), SQLITE);
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().served_by(), MEMORY);
    bench.advance(1);
    assert!(within(cache.get(&key)).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_load_brings_is_the_same_entry_in_every_tier() {
    let bench = Bench::new();
    let (cache, key) = (bench.cache(), key("census:a"));
    let load = |_| async {
        let mut loaded = Loaded::new("v");
        loaded.etag = Some("\"e\"".to_owned());
        loaded.source_last_modified = Some("yesterday".to_owned());
        loaded.version = Some("2022".to_owned());
        loaded.content_type = Some("text/plain".to_owned());
        loaded.tags = vec![tag("b"), tag("a")];
        loaded.ttl = Some(Ttl::For(Duration::from_secs(5)));
        Ok(loaded)
    };
    let loaded = within(cache.get_or_load(&key, load)).await.unwrap();
    let memory = within(cache.get(&key)).await.unwrap().unwrap();
    close(cache).await;
    let sqlite = within(bench.sqlite_only().get(&key)).await.unwrap().unwrap();
    assert_eq!(
        [loaded.served_by(), memory.served_by(), sqlite.served_by()],
        [ServedBy::Origin, MEMORY, SQLITE]
    );
    assert_eq!(memory.entry(), loaded.entry());
    assert_eq!(sqlite.entry(), loaded.entry());
    assert_eq!(loaded.entry().etag(), Some("\"e\""));
    assert_eq!(loaded.entry().tags(), [tag("a"), tag("b")]);
}

#[tokio::test]
async fn a_set_is_the_same_entry_in_every_tier_and_its_outcome_names_each() {
    let bench = Bench::new();
    let (cache, key) = (bench.cache(), key("census:a"));
    let outcome = within(cache.set(&key, "v", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory", "sqlite"]);
    let memory = within(cache.get(&key)).await.unwrap().unwrap();
    close(cache).await;
    let sqlite = within(bench.sqlite().get(&key)).await.unwrap().unwrap();
    assert_eq!(memory.entry(), &sqlite);
}

#[tokio::test]
async fn a_newer_entry_in_memory_is_not_replaced_by_an_older_one_below() {
    let bench = stored_below("old").await;
    let (cache, key) = (bench.cache(), key("census:a"));
    bench.advance(1);
    within(cache.set(&key, "new", SetOptions::default())).await.unwrap();
    let hit = within(cache.get(&key)).await.unwrap().unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"new"[..], MEMORY));
    close(cache).await;
    let below = within(bench.sqlite_only().get(&key)).await.unwrap().unwrap();
    assert_eq!(below.value(), "new");
}

#[tokio::test]
async fn an_expired_copy_in_memory_gives_way_to_a_newer_one_that_another_process_stored() {
    let bench = stored_below("old").await;
    let (cache, key) = (bench.cache(), key("census:a"));
    within(cache.get(&key)).await.unwrap().unwrap();
    bench.advance(500);
    let other = bench.sqlite_only();
    within(other.set(&key, "new", SetOptions::ttl(Duration::from_secs(9)))).await.unwrap();
    assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "old", "still fresh");
    bench.advance(500);
    let hit = within(cache.get(&key)).await.unwrap().unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"new"[..], SQLITE));
    let hit = within(cache.get(&key)).await.unwrap().unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"new"[..], MEMORY));
}

#[tokio::test]
async fn a_request_is_served_by_what_is_below_without_an_origin() {
    let bench = Bench::new();
    let request = larder::Request::new("census").param("cbsa", 14500);
    let below = bench.sqlite_only();
    within(below.set(&request.key(), "v", SetOptions::default())).await.unwrap();
    close(below).await;
    let cache = bench.cache();
    let first = within(cache.request(&request)).await.unwrap();
    let second = within(cache.request(&request)).await.unwrap();
    assert_eq!((first.served_by(), second.served_by()), (SQLITE, MEMORY));
    let missing = larder::Request::new("census").param("cbsa", 1);
    assert!(matches!(within(cache.request(&missing)).await, Err(Error::NoOrigin { .. })));
}

#[tokio::test]
async fn a_value_too_large_for_memory_is_served_from_sqlite_each_time() {
    let bench = Bench::new();
    let (cache, key) = (bench.cache(), key("census:a"));
    let big = |_| async { Ok(Loaded::new(vec![7_u8; 17 << 20])) };
    within(cache.get_or_load(&key, big)).await.unwrap();
    for _ in 0..2 {
        let hit = within(cache.get_or_load(&key, bring("again"))).await.unwrap();
        assert_eq!((hit.value().len(), hit.served_by()), (17 << 20, SQLITE));
    }
    assert_eq!(cache.stats().promotions, 0);
}
