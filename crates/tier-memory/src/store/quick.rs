//! The usual store: `quick_cache`, whose CLOCK-Pro keeps what is used again through scans.

use cache_core::{Entry, Key};
use quick_cache::{
    DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter,
    sync::{Cache, EntryAction, EntryResult},
};

use super::Evictions;
use crate::{shards, weight};

#[derive(Debug)]
pub(crate) struct Quick {
    cache: Cache<Key, Entry, ByBytes, DefaultHashBuilder, CountEvictions>,
    evictions: Evictions,
    largest: u64,
}

impl Quick {
    pub(super) fn new(capacity: u64) -> Self {
        let evictions = Evictions::default();
        let cache = Cache::with_options(
            shards::options(OptionsBuilder::new(), capacity),
            ByBytes,
            DefaultHashBuilder::default(),
            CountEvictions(evictions.clone()),
        );
        let largest = shards::largest_entry(cache.shard_capacity());
        Self { cache, evictions, largest }
    }

    #[inline]
    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.cache.get(key)
    }

    pub(super) fn peek(&self, key: &str) -> Option<Entry> {
        self.cache.peek(key)
    }

    /// What is there is looked at and replaced under one lock. What grows is inserted instead:
    /// replaced in place it would not make room for itself.
    pub(super) fn put(&self, key: &Key, entry: Entry, stays: impl FnOnce(&Entry) -> bool) -> bool {
        let mut new = Some(entry);
        // New keys are inserted, not entered: by places held for them, a cache that is used for what
        // is recent was seen to settle on the wrong entries (43 % more misses than exact LRU).
        if self.cache.contains_key(key.as_str()) {
            let found = self.cache.entry(key, None, |_, stored| {
                if stays(stored) {
                    new = None;
                } else if let Some(entry) = new.take_if(|entry| entry.weight() <= stored.weight()) {
                    // The old one is let go of outside the lock.
                    return EntryAction::Retain(Some(std::mem::replace(stored, entry)));
                }
                EntryAction::Retain(None)
            });
            if let (EntryResult::Retained(replaced), None) = (found, &new) {
                return replaced.is_some();
            }
        }
        let Some(entry) = new else { return false };
        let mut replacing = Some(key.clone());
        self.cache.insert_with_lifecycle(key.clone(), entry, &mut replacing);
        true
    }

    pub(super) fn replace(&self, key: &Key, entry: Entry) -> bool {
        let mut replacing = Some(key.clone());
        self.cache.replace_with_lifecycle(key.clone(), entry, true, &mut replacing).is_ok()
    }

    pub(super) fn remove_if(&self, key: &str, goes: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.cache.remove_if(key, goes).map(|(_, entry)| entry)
    }

    pub(super) fn remove_where(&self, goes: impl Fn(&Key, &Entry) -> bool) {
        self.cache.retain(|key, entry| !goes(key, entry));
    }

    pub(super) fn all(&self) -> Vec<(Key, Entry)> {
        self.cache.iter().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.cache.weight()
    }

    pub(super) fn largest(&self) -> u64 {
        self.largest
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    pub(super) fn clear(&self) {
        self.cache.clear();
    }
}

/// Weighs entries by the memory they occupy.
#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        weight(key, entry)
    }
}

#[derive(Clone, Debug)]
struct CountEvictions(Evictions);

impl Lifecycle<Key, Entry> for CountEvictions {
    /// The key that is being put: replacing what it had is no eviction.
    type RequestState = Option<Key>;

    fn on_evict(&self, replacing: &mut Option<Key>, key: Key, _entry: Entry) {
        if replacing.take_if(|replacing| *replacing == key).is_none() {
            self.0.add(1);
        }
    }
}
