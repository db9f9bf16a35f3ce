//! Putting into memory, over what is there.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use larder::{Entry, Key, Stamp, SyncTier, tiers::MemoryTier};

use super::{Bare, ROOM};
use crate::{
    allocations, data,
    measure::{Case, Effort, measure},
    report::Report,
};

const COUNT: usize = 10_000;

pub(crate) fn run(effort: &Effort, report: &mut Report) {
    let keys = data::keys(COUNT);
    let order = data::order(COUNT, COUNT);
    let value = data::table(2_000, 1);
    let tier = MemoryTier::new(ROOM);
    let bare = Bare::new(2 * COUNT);
    let cases = vec![
        insert("quick_cache insert", &keys, &order, &value, |key, entry| bare.insert(key, entry)),
        insert("put", &keys, &order, &value, |key, entry| {
            black_box(tier.put_now(&key, &entry));
        }),
    ];
    #[cfg(feature = "peers")]
    let moka = super::peers::moka(2 * COUNT as u64);
    #[cfg(feature = "peers")]
    let cases = cases
        .into_iter()
        .chain([insert("moka sync insert", &keys, &order, &value, |key, entry| {
            moka.insert(key, entry);
        })])
        .collect();
    let measured = measure(effort, cases);
    report.compare("insert.memory", &measured, ("put", "quick_cache insert"), Some((1.5, 2.0)));
    report.compare("insert.memory_vs_moka", &measured, ("put", "moka sync insert"), None);
    report.figures("insert", &measured);
    evicting(effort, report, &value);

    let entries = entries(&value, 1_000, 1 << 41);
    let mut entries = entries.iter();
    let replaced = allocations::per_operation(1_000, || {
        if let Some(entry) = entries.next() {
            black_box(tier.put_now(&keys[7], entry));
        }
    });
    report.figure("insert: allocations per put", replaced, "");
}

/// New keys, each of which pushes out another one.
fn evicting(effort: &Effort, report: &mut Report, value: &Bytes) {
    const ROOM_FOR: usize = 8_192;
    let keys = data::keys(32 * ROOM_FOR);
    let order: Vec<usize> = (0..keys.len()).collect();
    let first = Entry::builder(value.clone(), Stamp::from_packed(1)).build();
    let one = MemoryTier::new(ROOM);
    one.put_now(&keys[0], &first);
    let tier = MemoryTier::new(one.stats().weight * ROOM_FOR as u64);
    let bare = Bare::new(ROOM_FOR);
    let cases = vec![
        insert("quick_cache insert, evicting", &keys, &order, value, |key, entry| {
            bare.insert(key, entry);
        }),
        insert("put, evicting", &keys, &order, value, |key, entry| {
            black_box(tier.put_now(&key, &entry));
        }),
    ];
    let measured = measure(effort, cases);
    let cases = ("put, evicting", "quick_cache insert, evicting");
    report.compare("insert.memory_evicting", &measured, cases, None);
    report.figures("insert", &measured);
}

/// Inserts entries that were made before.
fn insert<'a>(
    name: &str,
    keys: &'a [Key],
    order: &'a [usize],
    value: &'a Bytes,
    insert: impl Fn(Key, Entry) + 'a,
) -> Case<'a> {
    let (mut stamp, mut next) = (1 << 40, 0);
    Case::timed(name, move |times| {
        // Each is later than those before: an older one would not be stored.
        let entries = entries(value, times, stamp);
        stamp += times;
        // Where the last time has ended.
        let order = order.iter().cycle().skip(next);
        next = (next + entries.len()) % keys.len();
        let keys: Vec<Key> = order.zip(&entries).map(|(at, _)| keys[*at].clone()).collect();
        let started = Instant::now();
        for (key, entry) in keys.into_iter().zip(entries) {
            insert(key, entry);
        }
        started.elapsed().max(Duration::from_nanos(1))
    })
}

fn entries(value: &Bytes, count: u64, stamp: u64) -> Vec<Entry> {
    let entry = |n| Entry::builder(value.clone(), Stamp::from_packed(stamp + n)).build();
    (1..=count).map(entry).collect()
}
