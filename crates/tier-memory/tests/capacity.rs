//! The capacity is that of the memory really allocated, bookkeeping included: a counting allocator
//! sees all that a tier holds, at any time.

use std::{cell::Cell, sync::Arc};

use bytes::Bytes;
use cache_core::{Barrier, Clock, Entry, Key, Selector, Stamp, SyncTier, Tier};
use tier_memory::{MemoryPolicy, MemoryTier};
use tier_testkit::ManualClock;

const CAPACITY: u64 = 32 << 20;

/// Fills a tier three times over with values of this size; the most that was allocated at a time,
/// and what it holds in the end, both as shares of the capacity.
fn filled(policy: MemoryPolicy, size: usize) -> (f64, f64) {
    let clock = Arc::new(ManualClock::default());
    let count = 3 * CAPACITY / (size as u64 + 200);
    let start = Stamp::at(clock.now()).packed();
    let held = Cell::new(0);
    let counted = allocation_counter::measure(|| {
        let tier = MemoryTier::with_policy(CAPACITY, policy, Arc::<ManualClock>::clone(&clock));
        for n in 0..count {
            // Whoever makes a value often has more room for it than it takes.
            let mut value = Vec::with_capacity(size + size / 2);
            value.resize(size, 7);
            let value = Bytes::from(value);
            let entry = Entry::builder(value, Stamp::from_packed(start + n)).build();
            let key = Key::new(format!("census:acs5:cbsa=14500&year=2022&vars={n:09}"));
            tier.put_now(&key, &entry);
            // Some are read again, others never.
            let again = format!("census:acs5:cbsa=14500&year=2022&vars={:09}", n / 3);
            tier.get_now(&again, clock.now());
        }
        held.set(tier.stats().entries * (size as u64 + 47));
    });
    let share = |bytes: u64| bytes as f64 / CAPACITY as f64;
    (share(counted.bytes_max), share(held.get()))
}

#[test]
fn the_capacity_is_kept_within_a_twentieth_at_any_time_and_is_used() {
    for policy in [MemoryPolicy::ClockPro, MemoryPolicy::Lru] {
        for (size, used) in [(100, 0.3), (2_000, 0.8), (100_000, 0.9)] {
            let (most, payload) = filled(policy, size);
            println!("{policy:?}, {size} B: at most {most:.3}, of which {payload:.3} are payload");
            assert!(most <= 1.05, "{policy:?}, {size} B: {most:.3} of the capacity");
            assert!(
                payload >= used,
                "{policy:?}, {size} B: {payload:.3} of the capacity is of use"
            );
        }
    }
}

#[test]
fn an_estimate_of_decoded_objects_is_weighed_from_the_first_typed_read_on() {
    let tier = MemoryTier::new(CAPACITY);
    let entry = Entry::builder("[1, 2, 3]", Stamp::from_packed(1)).build();
    let key = Key::new("a:1");
    tier.put_now(&key, &entry);
    let before = tier.stats().weight;
    let decoded = entry.decoded(|value| std::str::from_utf8(value).map(str::to_owned)).unwrap();
    assert_eq!(tier.stats().weight, before, "what is weighed does not change by itself");
    tier.weigh_again(key.as_str(), &entry);
    let after = tier.stats().weight;
    assert!(after >= before + (size_of::<String>() + decoded.len()) as u64, "{after}");
    let found = tier.get_now(key.as_str(), ManualClock::default().now()).unwrap();
    tier.weigh_again(key.as_str(), &found);
    assert_eq!(tier.stats().weight, after, "once");
    // The object is still the same one.
    let again = found.decoded(|_| -> Result<String, ()> { unreachable!("it is there") }).unwrap();
    assert!(Arc::ptr_eq(&again, &decoded));
    tier.put_now(&key, &Entry::builder("[1]", Stamp::from_packed(2)).build());
    assert!(tier.stats().weight < before, "it went with the entry");
}

#[test]
fn an_object_too_large_to_be_counted_costs_its_value_and_others_no_place() {
    for policy in [MemoryPolicy::ClockPro, MemoryPolicy::Lru] {
        let clock = Arc::new(ManualClock::default());
        let tier = MemoryTier::with_policy(1 << 20, policy, Arc::<ManualClock>::clone(&clock));
        let small = Entry::builder("small", Stamp::from_packed(1)).build();
        tier.put_now(&Key::new("a:small"), &small);
        // Each comma is counted as an element of 32 bytes.
        let large = Entry::builder(",".repeat(200_000), Stamp::from_packed(2)).build();
        assert!(tier.put_now(&Key::new("a:large"), &large).is_stored());
        large.decoded(|value| Ok::<_, ()>(value.clone())).unwrap();
        let before = tier.stats();
        tier.weigh_again("a:large", &large);
        assert_eq!(tier.stats(), before, "{policy:?}");
        for key in ["a:small", "a:large"] {
            assert!(tier.get_now(key, clock.now()).is_some(), "{policy:?}: {key}");
        }
        // One that was decoded before it is put is counted, if it can be.
        small.decoded(|value| Ok::<_, ()>(value.clone())).unwrap();
        let weight_of = |key: &str, entry: &Entry| {
            let before = tier.stats().weight;
            tier.put_now(&Key::new(key), entry);
            tier.stats().weight - before
        };
        let plain = Entry::builder("small", Stamp::from_packed(3)).build();
        let counted = weight_of("b:small", &small.to_builder().build());
        assert!(counted > weight_of("c:small", &plain), "{policy:?}");
        tier.put_now(&Key::new("d:large"), &large.to_builder().build());
        assert!(tier.get_now("d:large", clock.now()).is_some(), "{policy:?}");
    }
}

#[test]
fn what_is_expired_while_it_is_decoded_stays_expired() {
    let clock = Arc::new(ManualClock::default());
    let tier = MemoryTier::with_clock(1 << 20, Arc::<ManualClock>::clone(&clock));
    let entry = Entry::builder("7", Stamp::from_packed(1)).build();
    let key = Key::new("a:1");
    tier.put_now(&key, &entry);
    entry.decoded(|value| Ok::<_, ()>(value.clone())).unwrap();
    // Ten thousand barriers later the set knows nothing of the one that expired it.
    let at = Stamp::at(clock.now());
    let expire = |selector, stamp| {
        let barrier = Barrier::expire(selector, stamp);
        assert!(at_once(tier.bar(&barrier)).is_ok());
    };
    expire(Selector::Key(key.clone()), Stamp::from_packed(5));
    tier.weigh_again(key.as_str(), &entry);
    for n in 0..10_000 {
        expire(Selector::Key(Key::new(format!("b:{n}"))), at);
    }
    let found = tier.get_now(key.as_str(), clock.now()).unwrap();
    assert!(found.is_expired());
}

/// The output of a future that is ready at once.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("memory waits for nothing"),
    }
}
