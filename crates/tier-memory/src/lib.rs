//! Larder's memory tier: [`quick_cache`], weighed in bytes, or exact LRU.
//!
//! Synchronous: the chain asks it inside the call, without making a future. A read takes one shard
//! lock of the store and allocates nothing.

mod shards;
mod store;

use std::{
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use cache_core::{
    Barrier, BarrierSet, Capability, Clock, Compression, Effect, Entry, Filter, Form, Freshness,
    Inspect, Key, PutOutcome, Result, Selector, SourceUsage, Stamp, Summary, SyncTier, SystemClock,
    Tier, Timestamp, Usage, Validation, Verdict,
};

use quick_cache::DefaultHashBuilder;

use crate::store::Store;

/// Default capacity: 256 MiB.
pub const DEFAULT_CAPACITY_BYTES: u64 = 256 << 20;

/// Bytes an entry costs beside its key's text and what [`Entry::weight`] counts: the slot in the
/// table, which is as large as it is half used at worst, since tables grow by doubling
/// (`quick_cache` documents 21 bytes beside key and value), and the two counters before the key's
/// text. The test `capacity` measures whether that is enough.
const SLOT_BYTES: u64 = ((size_of::<Key>() + size_of::<Entry>() + 21) * 2 + 16) as u64;

/// The memory that an entry occupies.
fn weight(key: &Key, entry: &Entry) -> u64 {
    key.as_str().len() as u64 + entry.weight() + SLOT_BYTES
}

/// What is given up when memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryPolicy {
    /// What has not proved that it is used again, as `quick_cache`'s variant of CLOCK-Pro finds out:
    /// a scan of much that is read once does not push out what is read often.
    #[default]
    ClockPro,
    /// What was used longest ago, exactly so: within each shard. A shard has 16 MiB at least, and
    /// there are no more than about four for each thread of the machine. A read takes a lock that
    /// excludes other reads of its shard.
    Lru,
}

/// Values of up to this many bytes are compressed by who puts them.
const PACKED_HERE: usize = 256 << 10;

/// Locks that order puts of one key; puts of different keys rarely meet.
const STRIPES: usize = 64;

/// Entries in this process's memory, bounded in bytes.
#[derive(Debug)]
pub struct MemoryTier {
    store: Store,
    clock: Arc<dyn Clock>,
    /// What values are compressed by, if they are.
    compression: Option<Arc<dyn Compression>>,
    barriers: BarrierSet,
    stripes: Box<[Mutex<()>]>,
    hasher: DefaultHashBuilder,
    hits: AtomicU64,
    misses: AtomicU64,
    capacity: u64,
}

/// What a [`MemoryTier`] counted when it was asked as a [`Tier`].
///
/// Reads through [`SyncTier`] are counted by their caller, so that none counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Reads that found an entry, fresh or stale.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Entries given up to stay within the capacity.
    pub evictions: u64,
    /// Entries held.
    pub entries: u64,
    /// Their weight, in bytes.
    pub weight: u64,
}

impl MemoryTier {
    /// A tier that holds up to `capacity` bytes of keys, values, metadata and bookkeeping, and
    /// reads time from the machine's clock.
    pub fn new(capacity: u64) -> Self {
        Self::with_clock(capacity, Arc::new(SystemClock::new()))
    }

    /// The same with a clock of the caller's choice.
    pub fn with_clock(capacity: u64, clock: Arc<dyn Clock>) -> Self {
        Self::with_policy(capacity, MemoryPolicy::default(), clock)
    }

    /// The same with a policy of the caller's choice, too.
    pub fn with_policy(capacity: u64, policy: MemoryPolicy, clock: Arc<dyn Clock>) -> Self {
        Self {
            store: Store::new(policy, capacity),
            clock,
            compression: None,
            barriers: BarrierSet::new(),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            hasher: DefaultHashBuilder::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            capacity,
        }
    }

    /// The same tier holding values in their compressed form, which takes less memory; each hit
    /// decompresses its value, and whoever decodes one does so anew.
    ///
    /// A value above 256 KiB is held as it is: compressing it, and decompressing it at each hit, would
    /// keep a thread that answers for milliseconds.
    #[must_use]
    pub fn compressing(mut self, compression: Arc<dyn Compression>) -> Self {
        self.compression = Some(compression);
        self
    }

    /// The form of an entry that is held.
    fn packed(&self, key: &Key, entry: &Entry) -> Option<Entry> {
        let compression = self.compression.as_deref()?;
        if entry.value().len() > PACKED_HERE {
            return None;
        }
        let packed = entry.pack(key.source(), compression)?;
        Some(entry.to_packed(&packed))
    }

    /// An entry as it is served; `None` if that cannot be made.
    #[cold]
    fn unpacked(&self, key: &str, entry: &Entry, form: Form) -> Option<Entry> {
        let source = key.split(':').next().unwrap_or_default();
        let compression = self.compression.as_deref()?;
        match compression.unpack(source, form, entry.value(), form.raw_len) {
            Ok(value) => Some(entry.to_unpacked(value)),
            Err(error) => {
                // Its memory has changed since: nothing else is to be relied on either.
                tracing::error!(key, %error, "a compressed value in memory is damaged");
                None
            }
        }
    }

    /// Weight of the largest entry it takes, in bytes: its share of the capacity is divided among
    /// shards, and one entry must fit into one.
    pub fn largest_entry(&self) -> u64 {
        self.store.largest()
    }

    /// What it counted.
    pub fn stats(&self) -> MemoryStats {
        MemoryStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.store.evictions(),
            entries: self.store.len() as u64,
            weight: self.store.weight(),
        }
    }

    fn counted(&self, key: &Key) -> Option<Entry> {
        let found = self.get_now(key.as_str(), self.clock.now());
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn remove_now(&self, key: &Key) -> bool {
        let now = self.clock.now();
        let removed = self.store.remove_if(key.as_str(), |_| true);
        removed.is_some_and(|entry| entry.freshness(now) != Freshness::Dead)
    }

    /// Removes what `gone` selects; how many entries went.
    fn discard_where(&self, gone: impl Fn(&Key, &Entry) -> bool) -> u64 {
        let removed = AtomicU64::new(0);
        self.store.remove_where(|key, entry| {
            let goes = gone(key, entry);
            removed.fetch_add(u64::from(goes), Ordering::Relaxed);
            goes
        });
        removed.into_inner()
    }

    fn forget(&self, barrier: &Barrier) -> u64 {
        let covers = |key: &Key, entry: &Entry| barrier.covers(key, entry);
        match &barrier.selector {
            Selector::Key(key) => {
                u64::from(self.store.remove_if(key.as_str(), |entry| covers(key, entry)).is_some())
            }
            _ => self.discard_where(covers),
        }
    }

    fn expire(&self, barrier: &Barrier) -> u64 {
        match &barrier.selector {
            Selector::Key(key) => u64::from(self.expire_one(key, barrier)),
            // No lock is held between two of them.
            _ => self.store.all().iter().filter(|(key, _)| self.expire_one(key, barrier)).count()
                as u64,
        }
    }

    /// Puts the expired form of what is stored in its place, if the barrier covers it.
    fn expire_one(&self, key: &Key, barrier: &Barrier) -> bool {
        let covers = |entry: &Entry| !entry.is_expired() && barrier.covers(key, entry);
        if !self.store.peek(key.as_str()).is_some_and(|entry| covers(&entry)) {
            return false;
        }
        // Looked at once more: another form of it may have been put in its place meanwhile.
        let _order = self.order(key);
        let stored = self.store.peek(key.as_str()).filter(covers);
        stored.is_some_and(|entry| self.store.replace(key, entry.to_expired()))
    }

    /// Orders puts of a key, and whatever else replaces its entry: quick_cache has no
    /// compare-and-insert that also keeps its capacity.
    fn order(&self, key: &Key) -> MutexGuard<'_, ()> {
        lock(&self.stripes[self.hasher.hash_one(key) as usize % STRIPES])
    }
}

fn raw_len(entry: &Entry) -> u64 {
    entry.packed_form().map_or(entry.value().len() as u64, |form| form.raw_len)
}

fn lock(stripe: &Mutex<()>) -> MutexGuard<'_, ()> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SyncTier for MemoryTier {
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a call more costs a hit a tenth of its time (measured)"
    )]
    fn get_now(&self, key: &str, now: Timestamp) -> Option<Entry> {
        let entry = self.store.get(key)?;
        let verdict = self.barriers.judge(key, &entry);
        if verdict == Verdict::Barred || entry.freshness(now) == Freshness::Dead {
            // Only if it is still this one: a newer value may have come meanwhile.
            self.store.remove_if(key, |stored| stored.is_same(&entry));
            return None;
        }
        if self.compression.is_some()
            && let Some(form) = entry.packed_form()
        {
            let Some(entry) = self.unpacked(key, &entry, form) else {
                self.store.remove_if(key, |stored| stored.is_same(&entry));
                return None;
            };
            return Some(if verdict == Verdict::Expired { entry.to_expired() } else { entry });
        }
        Some(if verdict == Verdict::Expired { entry.to_expired() } else { entry })
    }

    fn put_now(&self, key: &Key, entry: &Entry) -> PutOutcome {
        if !key.is_storable() {
            return PutOutcome::Refused { reason: "the key cannot be stored".to_owned() };
        }
        let largest = self.store.largest();
        // Its object may have been decoded before it came here.
        let counted = entry.counting_decoded().filter(|entry| weight(key, entry) <= largest);
        let entry = counted.as_ref().unwrap_or(entry);
        let packed = self.packed(key, entry);
        let entry = packed.as_ref().unwrap_or(entry);
        let weight = weight(key, entry);
        let _order = self.order(key);
        let entry = match self.barriers.judge(key, entry) {
            Verdict::Barred => return PutOutcome::Barred,
            Verdict::Expired => entry.to_expired(),
            Verdict::Passes => entry.clone(),
        };
        let as_of = entry.as_of();
        let stays = |stored: &Entry| {
            stored.as_of() > as_of
                || stored.as_of() == as_of && stored.freshness(self.clock.now()) != Freshness::Dead
        };
        if weight > largest {
            if self.store.peek(key.as_str()).is_some_and(|stored| stays(&stored)) {
                return PutOutcome::Superseded;
            }
            // What is there is older than what the caller has seen: it must not be served again,
            // nor a copy of it that is under way.
            let stamp = Stamp::from_packed(as_of.packed().saturating_sub(1));
            let barrier = Barrier::forget(Selector::Key(key.clone()), stamp);
            self.barriers.add(&barrier);
            self.forget(&barrier);
            let reason = format!("it weighs {weight} bytes, more than one shard's {largest}");
            return PutOutcome::Refused { reason };
        }
        if self.store.put(key, entry, stays) { PutOutcome::Stored } else { PutOutcome::Superseded }
    }

    fn bar_now(&self, barrier: &Barrier) -> u64 {
        // First the barrier: a put that begins now knows it. One that began before is awaited, so
        // that it is found below, and does not depend on the barrier's being remembered for ever.
        self.barriers.add(barrier);
        match &barrier.selector {
            Selector::Key(key) => drop(self.order(key)),
            _ => self.stripes.iter().for_each(|stripe| drop(lock(stripe))),
        }
        match barrier.effect {
            Effect::Forget => self.forget(barrier),
            Effect::Expire => self.expire(barrier),
        }
    }

    fn give_up_older(&self, key: &Key, as_of: Stamp) {
        self.store.remove_if(key.as_str(), |stored| stored.as_of() < as_of);
    }

    fn give_up_all(&self) {
        self.store.clear();
    }

    fn weigh_again(&self, key: &str, entry: &Entry) {
        let Some(weighed) = entry.counting_decoded() else { return };
        let key = Key::new(key);
        let _order = self.order(&key);
        // One that would not fit keeps its object uncounted rather than lose its place.
        if weight(&key, &weighed) > self.store.largest()
            || !self.store.peek(key.as_str()).is_some_and(|stored| stored.is_same(entry))
        {
            return;
        }
        match self.barriers.judge(&key, &weighed) {
            Verdict::Passes => self.store.replace(&key, weighed),
            Verdict::Expired => self.store.replace(&key, weighed.to_expired()),
            // Whoever set the barrier removes it.
            Verdict::Barred => false,
        };
    }
}

#[async_trait]
impl Tier for MemoryTier {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capability(&self) -> Capability {
        Capability::LOCAL
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.counted(key))
    }

    async fn put(&self, key: &Key, entry: &Entry) -> Result<PutOutcome> {
        Ok(self.put_now(key, entry))
    }

    async fn remove(&self, key: &Key) -> Result<bool> {
        Ok(self.remove_now(key))
    }

    async fn bar(&self, barrier: &Barrier) -> Result<u64> {
        Ok(self.bar_now(barrier))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        Ok(keys.iter().map(|key| self.counted(key)).collect())
    }

    async fn put_many(&self, entries: &[(Key, Entry)]) -> Result<Vec<PutOutcome>> {
        Ok(entries.iter().map(|(key, entry)| self.put_now(key, entry)).collect())
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        Ok(keys.iter().map(|key| u64::from(self.remove_now(key))).sum())
    }

    async fn close(&self) -> Result<()> {
        self.store.clear();
        Ok(())
    }

    fn compression(&self) -> Option<&Arc<dyn Compression>> {
        self.compression.as_ref()
    }

    fn as_sync(&self) -> Option<&dyn SyncTier> {
        Some(self)
    }

    fn as_inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

#[async_trait]
impl Inspect for MemoryTier {
    async fn scan(
        &self,
        filter: &Filter,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Summary>> {
        let mut found: Vec<(Key, Entry)> = self
            .store
            .all()
            .into_iter()
            .filter(|(key, entry)| {
                after.is_none_or(|after| key > after)
                    && filter.matches(key, entry.tags())
                    && !self.barriers.covers(key, entry)
            })
            .collect();
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        found.truncate(limit);
        let summary = |(key, entry): (Key, Entry)| Summary {
            raw_bytes: raw_len(&entry),
            stored_bytes: entry.value().len() as u64,
            expires_at: entry.expires_at(),
            stale_until: entry.stale_until(),
            expired: self.barriers.judge(&key, &entry) == Verdict::Expired || entry.is_expired(),
            key,
            tags: entry.tags().to_vec(),
        };
        Ok(found.into_iter().map(summary).collect())
    }

    async fn usage(&self) -> Result<Usage> {
        let mut sources = std::collections::BTreeMap::<String, SourceUsage>::new();
        for (key, entry) in self.store.all() {
            let usage = sources.entry(key.source().to_owned()).or_insert_with(|| SourceUsage {
                source: key.source().to_owned(),
                ..SourceUsage::default()
            });
            usage.entries += 1;
            usage.raw_bytes += raw_len(&entry);
            usage.stored_bytes += entry.value().len() as u64;
        }
        let mut usage = Usage::default();
        usage.sources = sources.into_values().collect();
        usage.occupied_bytes = self.store.weight();
        usage.capacity_bytes = Some(self.capacity);
        usage.evictions = self.store.evictions();
        Ok(usage)
    }

    /// Everything in memory is as it was put; there is nothing to check it against.
    async fn validate(&self, _repair: bool) -> Result<Validation> {
        let mut validation = Validation::default();
        validation.entries = self.store.len() as u64;
        Ok(validation)
    }

    async fn remove_dead(&self, now: Timestamp, key: Option<&Key>) -> Result<u64> {
        let dead = |entry: &Entry| entry.freshness(now) == Freshness::Dead;
        Ok(match key {
            Some(key) => u64::from(self.store.remove_if(key.as_str(), dead).is_some()),
            None => self.discard_where(|_, entry| dead(entry)),
        })
    }
}
