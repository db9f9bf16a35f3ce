//! Exact LRU, within each of its shards: what was used longest ago goes first.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cache_core::{Entry, Key};
use lru::LruCache;

use super::Evictions;
use crate::{shards, weight};

#[derive(Debug)]
pub(crate) struct Lru {
    /// A power of two of them.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// The most that each holds.
    capacity: u64,
    evictions: Evictions,
}

#[derive(Debug)]
struct Shard {
    entries: LruCache<Key, Entry>,
    weight: u64,
}

impl Lru {
    pub(super) fn new(capacity: u64) -> Self {
        let count = shards::count(capacity);
        let shard = || Mutex::new(Shard { entries: LruCache::unbounded(), weight: 0 });
        Self {
            shards: (0..count).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            capacity: capacity / count as u64,
            evictions: Evictions::default(),
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(key) as usize & (self.shards.len() - 1);
        lock(&self.shards[at])
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.shard(key).entries.get(key).cloned()
    }

    pub(super) fn peek(&self, key: &str) -> Option<Entry> {
        self.shard(key).entries.peek(key).cloned()
    }

    pub(super) fn put(&self, key: &Key, entry: Entry, stays: impl FnOnce(&Entry) -> bool) -> bool {
        let mut shard = self.shard(key.as_str());
        if shard.entries.peek(key.as_str()).is_some_and(stays) {
            return false;
        }
        shard.weight += weight(key, &entry);
        let replaced = shard.entries.push(key.clone(), entry);
        if let Some((key, old)) = &replaced {
            shard.weight -= weight(key, old);
        }
        self.make_room(shard);
        true
    }

    pub(super) fn replace(&self, key: &Key, entry: Entry) -> bool {
        let mut shard = self.shard(key.as_str());
        let added = weight(key, &entry);
        let Some(old) = shard.entries.peek_mut(key.as_str()) else { return false };
        let old = std::mem::replace(old, entry);
        shard.weight = shard.weight + added - weight(key, &old);
        self.make_room(shard);
        true
    }

    /// Gives up what was used longest ago until the rest fits.
    fn make_room(&self, mut shard: MutexGuard<'_, Shard>) {
        let mut gone = Vec::new();
        while shard.weight > self.capacity
            && let Some((key, oldest)) = shard.entries.pop_lru()
        {
            shard.weight -= weight(&key, &oldest);
            gone.push((key, oldest));
        }
        // They are let go of outside the lock.
        drop(shard);
        self.evictions.add(gone.len() as u64);
    }

    pub(super) fn remove_if(&self, key: &str, goes: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let mut shard = self.shard(key);
        shard.entries.peek(key).filter(|entry| goes(entry))?;
        shard.remove(key)
    }

    pub(super) fn remove_where(&self, goes: impl Fn(&Key, &Entry) -> bool) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let going: Vec<Key> = shard
                .entries
                .iter()
                .filter(|(key, entry)| goes(key, entry))
                .map(|(key, _)| key.clone())
                .collect();
            for key in going {
                shard.remove(key.as_str());
            }
        }
    }

    pub(super) fn all(&self) -> Vec<(Key, Entry)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let entries = &lock(shard).entries;
            all.extend(entries.iter().map(|(key, entry)| (key.clone(), entry.clone())));
        }
        all
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    pub(super) fn weight(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).weight).sum()
    }

    pub(super) fn largest(&self) -> u64 {
        self.capacity
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.entries.clear();
            shard.weight = 0;
        }
    }
}

impl Shard {
    fn remove(&mut self, key: &str) -> Option<Entry> {
        let (key, entry) = self.entries.pop_entry(key)?;
        self.weight -= weight(&key, &entry);
        Some(entry)
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
