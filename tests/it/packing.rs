//! Memory that holds values in their compressed form, and compressing them once for all tiers.

use std::sync::Arc;

use larder::{
    Cache, Compression, Key, Loaded, Selector, ServedBy, SetOptions, SyncTier, Tier,
    tiers::{Compressor, MemoryTier, SqliteOptions, SqliteTier, Zstd},
};
use tier_testkit::ManualClock;

use crate::harness::{Bench, close, key, never, within};

fn compressor() -> Arc<Compressor> {
    Arc::new(Compressor::new().codec(Arc::new(Zstd::new(1).unwrap()), 1_024))
}

fn memory(bench: &Bench, by: &Arc<Compressor>) -> Arc<MemoryTier> {
    Arc::new(bench.memory().compressing(Arc::<Compressor>::clone(by)))
}

/// A chain of compressing memory and SQLite.
fn chain(bench: &Bench, by: &Arc<Compressor>) -> (Cache, Arc<MemoryTier>) {
    let memory = memory(bench, by);
    let options = SqliteOptions::new(bench.path())
        .clock(Arc::<ManualClock>::clone(&bench.clock))
        .compression(Arc::<Compressor>::clone(by));
    let cache = bench
        .bare()
        .shared_tier(Arc::clone(&memory) as Arc<dyn Tier>)
        .tier(SqliteTier::new(options).unwrap())
        .build()
        .unwrap();
    (cache, memory)
}

fn text(len: usize) -> String {
    "some text that repeats, ".repeat(len / 24 + 1)[..len].to_owned()
}

fn packed(by: &Compressor) -> u64 {
    by.stats().iter().map(|(_, stats)| stats.packed).sum()
}

fn unpacked(by: &Compressor) -> u64 {
    by.stats().iter().map(|(_, stats)| stats.unpacked).sum()
}

async fn load(cache: &Cache, key: &Key, len: usize) {
    let load = move |_| async move { Ok(Loaded::new(text(len))) };
    within(cache.get_or_load(key, load)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_compressed_once_for_all_tiers() {
    // Of a size that memory compresses, and of one that it holds as it is.
    for (len, in_memory) in [(20 << 10, true), (2 << 20, false)] {
        let (bench, by) = (Bench::new(), compressor());
        let (cache, memory) = chain(&bench, &by);
        load(&cache, &key("a:loaded"), len).await;
        within(cache.set(&key("a:set"), text(len), SetOptions::default())).await.unwrap();
        // What memory has taken as it is, the file gets behind it.
        within(async {
            while packed(&by) < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(packed(&by), 2, "{len}");
        let stats = memory.stats();
        assert_eq!(stats.entries, 2);
        assert_eq!(stats.weight < len as u64 / 4, in_memory, "{stats:?}");
        for key in [key("a:loaded"), key("a:set")] {
            let hit = within(cache.get_or_load(&key, never())).await.unwrap();
            assert_eq!(hit.served_by(), ServedBy::Tier("memory"));
            assert_eq!(hit.value(), text(len).as_bytes());
        }
        let hits = if in_memory { 2 } else { 0 };
        assert_eq!((packed(&by), unpacked(&by)), (2, hits), "each hit decompresses");
        close(cache).await;
        // Both are in the file in the same form.
        let (cache, _) = chain(&bench, &compressor());
        for key in [key("a:loaded"), key("a:set")] {
            let hit = within(cache.get_or_load(&key, never())).await.unwrap();
            assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
            assert_eq!(hit.value(), text(len).as_bytes());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_without_compression_holds_the_value_itself() {
    let (bench, by) = (Bench::new(), compressor());
    let options = SqliteOptions::new(bench.path())
        .clock(Arc::<ManualClock>::clone(&bench.clock))
        .compression(Arc::<Compressor>::clone(&by));
    let cache = bench.bare().tier(bench.memory()).tier(SqliteTier::new(options).unwrap());
    let cache = cache.build().unwrap();
    within(cache.set(&key("a:1"), text(20 << 10), SetOptions::default())).await.unwrap();
    within(cache.get_or_load(&key("a:1"), never())).await.unwrap();
    assert_eq!((packed(&by), unpacked(&by)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promoted_is_compressed_again_and_served_whole() {
    let bench = Bench::new();
    let (cache, _) = chain(&bench, &compressor());
    for (name, len) in [("a:small", 100), ("a:middle", 20 << 10), ("a:large", 1 << 20)] {
        load(&cache, &key(name), len).await;
    }
    close(cache).await;
    let by = compressor();
    let (cache, memory) = chain(&bench, &by);
    for _ in 0..3 {
        for (name, len) in [("a:small", 100), ("a:middle", 20 << 10), ("a:large", 1 << 20)] {
            let hit = within(cache.get_or_load(&key(name), never())).await.unwrap();
            assert_eq!(hit.value(), text(len).as_bytes(), "{name}");
        }
    }
    assert_eq!(memory.stats().entries, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_value_in_compressed_memory_is_still_a_value() {
    let (bench, by) = (Bench::new(), compressor());
    let memory = memory(&bench, &by);
    let cache = bench.bare().shared_tier(Arc::clone(&memory) as Arc<dyn Tier>).build().unwrap();
    for n in 0..3 {
        let options = SetOptions::default().stale_for(std::time::Duration::from_hours(1));
        within(cache.set(&key(&format!("a:{n}")), text(5_000), options)).await.unwrap();
    }
    bench.advance(1);
    within(cache.expire(&key("a:0"))).await.unwrap();
    within(cache.expire(Selector::source("a"))).await.unwrap();
    for n in 0..3 {
        let found = memory.get_now(&format!("a:{n}"), larder::Clock::now(&*bench.clock)).unwrap();
        assert!(found.is_expired(), "{n}");
        assert_eq!(found.value(), text(5_000).as_bytes(), "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_ahead_is_claimed_once_though_each_hit_is_made_anew() {
    let (bench, by) = (Bench::new(), compressor());
    let memory = memory(&bench, &by);
    let stamps = cache_core::StampClock::new(Arc::<ManualClock>::clone(&bench.clock));
    let now = larder::Clock::now(&*bench.clock);
    let after = |millis| now.saturating_add(std::time::Duration::from_millis(millis));
    let entry = larder::Entry::builder(text(5_000), stamps.issue()).expires_at(after(9_000));
    let entry = entry.build();
    entry.note_refresh_at(after(500));
    assert!(memory.put_now(&key("a:1"), &entry).is_stored());
    let claims = (0..5).filter(|_| {
        let hit = memory.get_now("a:1", after(600)).unwrap();
        hit.claim_refresh(after(600), after(5_000))
    });
    assert_eq!(claims.count(), 1);
}
