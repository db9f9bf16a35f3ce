//! The capacity is that of the memory really allocated, bookkeeping included: a counting allocator
//! sees all that a tier holds, at any time.

use std::{cell::Cell, sync::Arc};

use bytes::Bytes;
use cache_core::{Clock, Entry, Key, Stamp, SyncTier};
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
            let value = Bytes::from(vec![7; size]);
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
    assert!(after >= before + (size_of::<String>() + 2 * decoded.len()) as u64, "{after}");
    let found = tier.get_now(key.as_str(), ManualClock::default().now()).unwrap();
    tier.weigh_again(key.as_str(), &found);
    assert_eq!(tier.stats().weight, after, "once");
    // The object is still the same one.
    let again = found.decoded(|_| -> Result<String, ()> { unreachable!("it is there") }).unwrap();
    assert!(Arc::ptr_eq(&again, &decoded));
    tier.put_now(&key, &Entry::builder("[1]", Stamp::from_packed(2)).build());
    assert!(tier.stats().weight < before, "it went with the entry");
}
