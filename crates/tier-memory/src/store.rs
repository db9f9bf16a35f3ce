//! Where the entries are: one of two stores, bounded by weight, which differ in what they give up.

mod lru;
mod quick;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cache_core::{Entry, Key};

use crate::MemoryPolicy;

/// Entries by key. Of those who change one key at a time, its callers see to the order.
#[derive(Debug)]
pub(crate) enum Store {
    ClockPro(quick::Quick),
    Lru(lru::Lru),
}

/// Entries given up to stay within the capacity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evictions(Arc<AtomicU64>);

impl Evictions {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does the same with either store.
macro_rules! either {
    ($self:ident, $store:ident => $work:expr) => {
        match $self {
            Store::ClockPro($store) => $work,
            Store::Lru($store) => $work,
        }
    };
}

impl Store {
    pub(crate) fn new(policy: MemoryPolicy, capacity: u64) -> Self {
        match policy {
            MemoryPolicy::ClockPro => Self::ClockPro(quick::Quick::new(capacity)),
            MemoryPolicy::Lru => Self::Lru(lru::Lru::new(capacity)),
        }
    }

    /// The entry, which is used by this.
    #[inline]
    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        either!(self, store => store.get(key))
    }

    /// The entry, which is not used by this.
    pub(crate) fn peek(&self, key: &str) -> Option<Entry> {
        either!(self, store => store.peek(key))
    }

    /// Puts an entry in, and gives up others for it, unless what is there stays; whether it did.
    pub(crate) fn put(&self, key: &Key, entry: Entry, stays: impl FnOnce(&Entry) -> bool) -> bool {
        either!(self, store => store.put(key, entry, stays))
    }

    /// Puts another form of an entry in its place, which is not used by this.
    pub(crate) fn replace(&self, key: &Key, entry: Entry) -> bool {
        either!(self, store => store.replace(key, entry))
    }

    /// Removes the entry if it is to go.
    pub(crate) fn remove_if(&self, key: &str, goes: impl Fn(&Entry) -> bool) -> Option<Entry> {
        either!(self, store => store.remove_if(key, goes))
    }

    /// Removes all entries that are to go.
    pub(crate) fn remove_where(&self, goes: impl Fn(&Key, &Entry) -> bool) {
        either!(self, store => store.remove_where(goes));
    }

    /// All entries, at about this time.
    pub(crate) fn all(&self) -> Vec<(Key, Entry)> {
        either!(self, store => store.all())
    }

    pub(crate) fn len(&self) -> usize {
        either!(self, store => store.len())
    }

    /// The sum of the weights.
    pub(crate) fn weight(&self) -> u64 {
        either!(self, store => store.weight())
    }

    /// Weight of the largest entry that it takes.
    pub(crate) fn largest(&self) -> u64 {
        either!(self, store => store.largest())
    }

    pub(crate) fn evictions(&self) -> u64 {
        either!(self, store => store.evictions())
    }

    pub(crate) fn clear(&self) {
        either!(self, store => store.clear());
    }
}
