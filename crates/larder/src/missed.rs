//! Barriers that a tier missed, kept until it takes them.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cache_core::{Barrier, Effect, Entry, Key, Selector, Stamp};

/// More than these are not told apart: everything from before is forgotten instead.
const MOST: usize = 10_000;

/// The barriers that a tier missed: the latest of each selector and effect.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    any: AtomicBool,
    next: AtomicU64,
    barriers: Mutex<HashMap<(Selector, Effect), Kept>>,
}

/// The latest stamp of a selector, and when it was first missed: barriers are given in that order.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    stamp: Stamp,
    order: u64,
}

impl Missed {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Keeps one.
    pub(crate) fn add(&self, barrier: &Barrier) {
        let mut barriers = self.lock();
        let order = self.next.fetch_add(1, Ordering::Relaxed);
        let kept = barriers
            .entry((barrier.selector.clone(), barrier.effect))
            .or_insert(Kept { stamp: barrier.stamp, order });
        kept.stamp = barrier.stamp.max(kept.stamp);
        if barriers.len() > MOST {
            let stamp = barriers.values().map(|kept| kept.stamp).max().unwrap_or_default();
            barriers.clear();
            barriers.insert((Selector::All, Effect::Forget), Kept { stamp, order });
        }
        self.any.store(true, Ordering::Release);
    }

    /// All of them, in the order in which they were missed.
    pub(crate) fn all(&self) -> Vec<Barrier> {
        let barriers = self.lock();
        let mut all: Vec<_> = barriers.iter().collect();
        all.sort_unstable_by_key(|(_, kept)| kept.order);
        all.into_iter()
            .map(|((selector, effect), kept)| match effect {
                Effect::Forget => Barrier::forget(selector.clone(), kept.stamp),
                Effect::Expire => Barrier::expire(selector.clone(), kept.stamp),
            })
            .collect()
    }

    /// An entry of the tier as it counts although the tier has not got these.
    pub(crate) fn admit(&self, key: &Key, entry: Entry) -> Option<Entry> {
        let covering = |barrier: &Barrier| barrier.covers(key, &entry);
        let effects = self.all().into_iter().filter(covering).map(|barrier| barrier.effect);
        match effects.min_by_key(|effect| *effect == Effect::Expire) {
            None => Some(entry),
            Some(Effect::Expire) => Some(entry.to_expired()),
            Some(Effect::Forget) => None,
        }
    }

    /// Gives up one that the tier has taken; a later one of the same selector stays.
    pub(crate) fn taken(&self, barrier: &Barrier) {
        let mut barriers = self.lock();
        let name = (barrier.selector.clone(), barrier.effect);
        if barriers.get(&name).is_some_and(|kept| kept.stamp <= barrier.stamp) {
            barriers.remove(&name);
        }
        if barriers.is_empty() {
            self.any.store(false, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Selector, Effect), Kept>> {
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(key: &str, stamp: u64) -> Barrier {
        Barrier::forget(Selector::Key(Key::new(key)), Stamp::from_packed(stamp))
    }

    #[test]
    fn the_latest_of_a_selector_is_kept_until_it_is_taken() {
        let missed = Missed::default();
        missed.add(&barrier("a:1", 5));
        missed.add(&barrier("a:1", 3));
        missed.add(&Barrier::expire(Selector::Key(Key::new("a:1")), Stamp::from_packed(4)));
        let all = missed.all();
        assert_eq!(all.iter().map(|one| one.stamp.packed()).collect::<Vec<_>>(), [5, 4]);
        missed.taken(&barrier("a:1", 4));
        assert!(missed.all().contains(&barrier("a:1", 5)), "a later one was added meanwhile");
        for barrier in missed.all() {
            missed.taken(&barrier);
        }
        assert!(!missed.any());
    }

    #[test]
    fn too_many_become_one_that_forgets_all() {
        let missed = Missed::default();
        for n in 0..=MOST as u64 {
            missed.add(&barrier(&format!("a:{n}"), n + 1));
        }
        let all = Barrier::forget(Selector::All, Stamp::from_packed(MOST as u64 + 1));
        assert_eq!(missed.all(), [all]);
    }
}
