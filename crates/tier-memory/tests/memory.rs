//! The memory tier through its public interface.

use std::{sync::Arc, thread, time::Duration};

use cache_core::{
    Barrier, Clock, Entry, Inspect, Key, PutOutcome, Selector, Stamp, StampClock, SyncTier, Tier,
};
use codec_compress::{Compressor, Zstd};
use tier_memory::{MemoryPolicy, MemoryTier};
use tier_testkit::{ManualClock, conformance};

const MIB: u64 = 1 << 20;

fn entry(stamps: &StampClock, bytes: usize) -> Entry {
    Entry::builder(vec![7; bytes], stamps.issue()).build()
}

fn tier(capacity: u64) -> (MemoryTier, StampClock, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    (MemoryTier::with_clock(capacity, Arc::clone(&shared)), StampClock::new(shared), clock)
}

#[tokio::test]
async fn keeps_every_promise_of_a_tier() {
    conformance(async |clock| MemoryTier::with_clock(16 * MIB, clock)).await;
}

#[tokio::test]
async fn keeps_every_promise_of_a_tier_with_values_compressed() {
    let compressor = || Compressor::new().codec(Arc::new(Zstd::new(1).unwrap()), 0);
    conformance(async |clock| {
        MemoryTier::with_clock(16 * MIB, clock).compressing(Arc::new(compressor()))
    })
    .await;
}

#[tokio::test]
async fn keeps_every_promise_of_a_tier_under_exact_lru() {
    conformance(async |clock| MemoryTier::with_policy(16 * MIB, MemoryPolicy::Lru, clock)).await;
}

#[test]
fn under_exact_lru_what_was_used_longest_ago_goes_first() {
    let (_, stamps, clock) = tier(MIB);
    let tier = MemoryTier::with_policy(MIB, MemoryPolicy::Lru, Arc::<ManualClock>::clone(&clock));
    let name = |n: u32| format!("a:{n}");
    let put = |n: u32| tier.put_now(&Key::new(name(n)), &entry(&stamps, 100 << 10));
    let has = |n: u32| tier.get_now(&name(n), clock.now()).is_some();
    (0..10).for_each(|n| assert_eq!(put(n), PutOutcome::Stored));
    assert_eq!(tier.stats().evictions, 0);
    // Reading makes it recent, looking at all does not, nor does asking for what is not there.
    assert!(has(0) && !has(99));
    put(10);
    put(11);
    let left: Vec<u32> = (0..12).filter(|n| has(*n)).collect();
    assert_eq!(left, [0, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(tier.stats().evictions, 2);
    // The ten were read in this order just now; replacing one makes it recent, too.
    put(0);
    put(12);
    assert_eq!((0..13).filter(|n| has(*n)).collect::<Vec<_>>(), [0, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(tier.largest_entry(), MIB);
}

#[test]
fn stays_within_its_capacity_and_counts_what_it_evicts() {
    let (tier, stamps, _) = tier(MIB);
    for n in 0..2_000 {
        let outcome = tier.put_now(&Key::new(format!("a:{n}")), &entry(&stamps, 2_000));
        assert_eq!(outcome, PutOutcome::Stored);
        assert!(tier.stats().weight <= MIB, "{:?}", tier.stats());
    }
    let stats = tier.stats();
    assert_eq!(stats.entries + stats.evictions, 2_000);
    assert!(stats.weight > MIB * 8 / 10, "the capacity is used: {stats:?}");
}

#[test]
fn replacing_a_value_is_no_eviction() {
    let (tier, stamps, _) = tier(MIB);
    for _ in 0..10 {
        tier.put_now(&Key::new("a:1"), &entry(&stamps, 1_000));
    }
    assert_eq!((tier.stats().entries, tier.stats().evictions), (1, 0));
}

#[test]
fn a_refused_older_value_leaves_the_newer_one() {
    let (tier, stamps, clock) = tier(MIB);
    let (old, new) = (entry(&stamps, 2 << 20), entry(&stamps, 10));
    tier.put_now(&Key::new("a:1"), &new);
    assert_eq!(tier.put_now(&Key::new("a:1"), &old), PutOutcome::Superseded);
    assert_eq!(tier.get_now("a:1", clock.now()), Some(new));
}

#[test]
fn weighs_key_value_and_metadata() {
    let (tier, stamps, _) = tier(MIB);
    tier.put_now(&Key::new("a:1"), &entry(&stamps, 1_000));
    let light = tier.stats().weight;
    assert!((1_000..1_500).contains(&light), "{light}");
    let key = Key::new(format!("a:{}", "k".repeat(500)));
    let tagged = Entry::builder(vec![7; 1_000], stamps.issue())
        .etag(Some("e".repeat(300)))
        .tags([cache_core::Tag::new("t".repeat(200)).unwrap()])
        .build();
    tier.put_now(&key, &tagged);
    let heavy = tier.stats().weight - light;
    assert!(heavy >= light + 500 + 300 + 200 - 3, "{heavy} against {light}");
}

#[test]
fn refuses_what_does_not_fit_into_a_shard_and_says_why() {
    let (tier, stamps, _) = tier(MIB);
    let key = Key::new("a:large");
    let fits = usize::try_from(tier.largest_entry()).unwrap() - 1_000;
    let older = entry(&stamps, 1);
    assert_eq!(tier.put_now(&key, &entry(&stamps, fits)), PutOutcome::Stored);
    let refused = tier.put_now(&key, &entry(&stamps, 2 * fits));
    let PutOutcome::Refused { reason } = refused else { panic!("{refused:?}") };
    assert!(reason.contains("more than one shard"), "{reason}");
    assert_eq!(tier.stats().evictions, 0, "a refusal is no eviction");
    assert_eq!(tier.stats().entries, 0, "the older value that fitted is not served any more");
    assert_eq!(tier.put_now(&key, &older), PutOutcome::Barred, "nor a copy that was under way");
}

#[test]
fn a_small_tier_takes_values_of_nearly_its_capacity() {
    for mib in [1, 8, 15, 17, 40] {
        let (tier, ..) = tier(mib * MIB);
        let expected = (mib * MIB).min(16 * MIB) * 89 / 100;
        assert!(tier.largest_entry() > expected, "{mib} MiB: {}", tier.largest_entry());
    }
}

#[test]
fn refuses_keys_that_cannot_be_stored() {
    let (tier, stamps, _) = tier(MIB);
    let outcome = tier.put_now(&Key::new("a\n:b"), &entry(&stamps, 1));
    assert!(matches!(outcome, PutOutcome::Refused { .. }), "{outcome:?}");
}

#[tokio::test]
async fn counts_hits_and_misses_exactly_once() {
    let (tier, stamps, clock) = tier(MIB);
    let key = Key::new("a:1");
    let short = Entry::builder("v", stamps.issue())
        .expires_at(clock.now().saturating_add(Duration::from_millis(5)))
        .build();
    tier.put(&key, &short).await.unwrap();
    tier.get(&key).await.unwrap();
    tier.get_many(&[key.clone(), Key::new("a:2")]).await.unwrap();
    clock.advance(Duration::from_millis(5));
    tier.get(&key).await.unwrap();
    tier.scan(&cache_core::Filter::all(), None, 9).await.unwrap();
    let stats = tier.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries), (2, 2, 0), "{stats:?}");
}

#[test]
fn an_entry_put_while_a_barrier_arrives_is_never_served() {
    let (tier, stamps, clock) = tier(16 * MIB);
    let key = Key::new("a:1");
    for _ in 0..2_000 {
        let loaded = entry(&stamps, 10);
        let barrier = Barrier::forget(Selector::source("a"), stamps.issue());
        thread::scope(|scope| {
            scope.spawn(|| tier.put_now(&key, &loaded));
            scope.spawn(|| futures(tier.bar(&barrier)));
        });
        assert_eq!(tier.get_now(key.as_str(), clock.now()), None);
    }
}

#[test]
fn of_concurrent_puts_the_latest_load_stays() {
    let (tier, stamps, clock) = tier(16 * MIB);
    let key = Key::new("a:1");
    for _ in 0..500 {
        let (old, new) = (entry(&stamps, 1), entry(&stamps, 2));
        thread::scope(|scope| {
            scope.spawn(|| tier.put_now(&key, &old));
            scope.spawn(|| tier.put_now(&key, &new));
        });
        let found = tier.get_now(key.as_str(), clock.now()).map(|entry| entry.as_of());
        assert_eq!(found, Some(new.as_of()));
        assert!(found > Some(Stamp::ZERO));
    }
}

/// Runs a future that never waits.
fn futures<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the memory tier never waits"),
    }
}

#[tokio::test]
async fn what_was_expired_stays_stale_when_its_barrier_is_long_gone() {
    let (tier, stamps, clock) = tier(MIB);
    let key = Key::new("a:1");
    tier.put_now(&key, &entry(&stamps, 10));
    let expire = Barrier::expire(Selector::Key(key.clone()), stamps.issue());
    assert_eq!(tier.bar(&expire).await.unwrap(), 1);
    let weight = tier.stats().weight;
    // So many later ones that old ones are dropped.
    clock.advance(Duration::from_hours(48));
    for n in 0..10_000 {
        let other = Selector::Key(Key::new(format!("b:{n}")));
        tier.bar(&Barrier::forget(other, stamps.issue())).await.unwrap();
    }
    let found = tier.get_now(key.as_str(), clock.now()).unwrap();
    assert!(found.is_expired(), "{found:?}");
    let again = tier.get_now(key.as_str(), clock.now()).unwrap();
    assert!(found.is_same(&again), "a stale hit allocates nothing either");
    assert_eq!((tier.stats().weight, tier.stats().evictions), (weight, 0));
}

#[test]
fn a_barrier_expires_or_forgets_what_threads_put_meanwhile() {
    for expires in [false, true] {
        let (tier, stamps, clock) = tier(16 * MIB);
        let puts: Vec<_> =
            (0..2_000).map(|n| (Key::new(format!("a:{n}")), entry(&stamps, 1))).collect();
        let stamp = stamps.issue();
        let barrier = if expires { Barrier::expire } else { Barrier::forget };
        let barrier = barrier(Selector::source("a"), stamp);
        thread::scope(|scope| {
            for part in puts.chunks(500) {
                let tier = &tier;
                scope.spawn(move || {
                    for (key, entry) in part {
                        tier.put_now(key, entry);
                    }
                });
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(tier.bar(&barrier)).unwrap();
        });
        for (key, _) in &puts {
            let found = tier.get_now(key.as_str(), clock.now());
            assert_eq!(found.map(|entry| entry.is_expired()), expires.then_some(true));
        }
        assert_eq!(tier.stats().entries, if expires { 2_000 } else { 0 });
    }
}
