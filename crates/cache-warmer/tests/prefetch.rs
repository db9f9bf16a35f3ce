//! Fetching ahead, through the public interface.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use cache_warmer::{Gazetteer, Market, Prefetch, market_request};
use larder::{
    Cache, Key, Limits, Load, Loaded, OriginOptions, ServedBy, SetOptions,
    config::PrefetchConfig,
    origin_fn,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};

type Asked = Arc<Mutex<Vec<String>>>;

fn boulder() -> &'static Market {
    Gazetteer::us().resolve("Boulder, CO").unwrap()
}

fn cache(asked: &Asked, options: OriginOptions, room: u64) -> Cache {
    let asked = Arc::clone(asked);
    let origin = origin_fn(move |load: Load| {
        asked.lock().unwrap().push(load.request.value("slug").unwrap().to_owned());
        async { Ok(Loaded::new(vec![b'v'; 1_000])) }
    });
    Cache::builder()
        .tier(MemoryTier::new(room))
        .origin("a", origin)
        .origin_options("a", options)
        .build()
        .unwrap()
}

async fn until(asked: &Asked, count: usize) {
    let reached = async {
        while asked.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap();
}

#[tokio::test]
async fn the_neighbours_of_what_is_asked_for_are_fetched_behind_it_and_once() {
    let asked = Asked::default();
    let cache = cache(&asked, OriginOptions::default(), 16 << 20);
    let prefetch = Prefetch::new(&cache, 60.0, 2);
    let near = Gazetteer::us().near(boulder(), 60.0);
    for _ in 0..3 {
        prefetch.get("a", boulder(), &BTreeMap::new()).await.unwrap();
    }
    until(&asked, 1 + near.len()).await;
    let denver = Gazetteer::us().resolve("Denver, CO").unwrap();
    let hit = prefetch.get("a", denver, &BTreeMap::new()).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("memory"));
    let mut seen = asked.lock().unwrap().clone();
    assert_eq!(seen[0], "boulder-co");
    seen.sort_unstable();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count, "each once");
}

#[tokio::test]
async fn what_somebody_waits_for_goes_first_and_a_reserve_is_left_to_it() {
    let asked = Asked::default();
    let limits = Limits::default().rate(20, Duration::from_secs(1));
    let limits = limits.quota(10, Duration::from_hours(1)).reserve(0.5);
    let cache = cache(&asked, OriginOptions::default().limits(limits), 16 << 20);
    let prefetch = Prefetch::new(&cache, 300.0, 5);
    prefetch.get("a", boulder(), &BTreeMap::new()).await.unwrap();
    // Many wait by now, one call each 50 ms: this one goes before them.
    let austin = Gazetteer::us().resolve("Austin, TX").unwrap();
    prefetch.get("a", austin, &BTreeMap::new()).await.unwrap();
    let place = asked.lock().unwrap().iter().position(|it| it == "austin-tx").unwrap();
    assert!(place <= 2, "{place}: {:?}", asked.lock().unwrap());
    // Ahead it takes half of the quota at most; the rest is for those who wait.
    for name in ["Miami, FL", "Seattle, WA", "Boise City, ID", "Reno, NV", "Salem, OR"] {
        let market = Gazetteer::us().resolve(name).unwrap();
        let request = market_request(&cache, "a", market, &BTreeMap::new()).unwrap();
        cache.request(&request).await.unwrap();
    }
}

#[tokio::test]
async fn it_is_bounded_and_off_where_it_is_to_be() {
    let asked = Asked::default();
    let cache = cache(&asked, OriginOptions::default(), 16 << 20);
    let mut config = PrefetchConfig::default();
    config.enabled = false;
    let off = Prefetch::from_config(&cache, &config);
    off.get("a", boulder(), &BTreeMap::new()).await.unwrap();
    off.around("a", boulder());
    assert_eq!(asked.lock().unwrap().len(), 1);
    let wide = Prefetch::new(&cache, 12_500.0, 1);
    wide.around("a", boulder());
    assert_eq!(wide.dropped(), 937 - 256, "the nearest are taken");
    until(&asked, 1 + 256).await;
}

#[tokio::test]
async fn what_is_in_memory_makes_no_room_for_it() {
    let (asked, dir) = (Asked::default(), tempfile::tempdir().unwrap());
    let memory = Arc::new(MemoryTier::new(200 << 10));
    let notes = Arc::clone(&asked);
    let origin = origin_fn(move |load: Load| {
        notes.lock().unwrap().push(load.request.value("slug").unwrap().to_owned());
        async { Ok(Loaded::new(vec![b'v'; 1_000])) }
    });
    let file = SqliteTier::new(SqliteOptions::new(dir.path().join("cache.db"))).unwrap();
    let cache = Cache::builder()
        .shared_tier(Arc::clone(&memory) as _)
        .tier(file)
        .origin("a", origin)
        .build()
        .unwrap();
    let hot = Key::new("hot:1");
    cache.set(&hot, vec![b'h'; 1_000], SetOptions::default()).await.unwrap();
    let prefetch = Prefetch::new(&cache, 12_500.0, 4);
    prefetch.get("a", boulder(), &BTreeMap::new()).await.unwrap();
    until(&asked, 257).await;
    assert_eq!(memory.stats().entries, 2, "what was set, and what was asked for");
    assert!(cache.peek(&hot).is_some());
    // It is a tier away.
    let near = Gazetteer::us().near(boulder(), 12_500.0)[0].0;
    let request = market_request(&cache, "a", near, &BTreeMap::new()).unwrap();
    assert_eq!(cache.request(&request).await.unwrap().served_by(), ServedBy::Tier("sqlite"));
    assert_eq!(cache.request(&request).await.unwrap().served_by(), ServedBy::Tier("memory"));
}
