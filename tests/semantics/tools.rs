//! What the modules share beside the harness: a tier that fails, hangs and remembers when told to.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cache_core::{Barrier, Error as TierError, ErrorKind, Op, Result as TierResult};
use larder::{
    Cache, CacheBuilder, Capability, Entry, Inspect, Key, PutOutcome, ReadOptions, SetOptions,
    Stamp, Tier, TierOptions, TierStats, tiers::MemoryTier,
};
use tier_testkit::{Call, Chaos, ChaosTier, Fault, Faults};
use tokio::sync::Semaphore;

use crate::harness::{Bench, within};

/// Entries in memory behind an asynchronous side: remembers the barriers it was given, and can hold
/// a read that has its answer already.
#[derive(Debug)]
struct Watched {
    store: MemoryTier,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct Watch {
    barriers: Mutex<Vec<Barrier>>,
    /// Reads that are still to be held.
    holds: AtomicU64,
    held: Semaphore,
    gate: Semaphore,
}

#[async_trait]
impl Tier for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn capability(&self) -> Capability {
        Capability::LOCAL
    }

    async fn get(&self, key: &Key) -> TierResult<Option<Entry>> {
        let found = self.store.get(key).await;
        let hold = |left: u64| left.checked_sub(1);
        if self.watch.holds.fetch_update(Ordering::SeqCst, Ordering::SeqCst, hold).is_ok() {
            self.watch.held.add_permits(1);
            let gate = self.watch.gate.acquire().await;
            gate.map_err(|error| self.closed(error))?.forget();
        }
        found
    }

    async fn put(&self, key: &Key, entry: &Entry) -> TierResult<PutOutcome> {
        self.store.put(key, entry).await
    }

    async fn remove(&self, key: &Key) -> TierResult<bool> {
        self.store.remove(key).await
    }

    async fn bar(&self, barrier: &Barrier) -> TierResult<u64> {
        self.watch.barriers.lock().unwrap().push(barrier.clone());
        self.store.bar(barrier).await
    }

    async fn get_many(&self, keys: &[Key]) -> TierResult<Vec<Option<Entry>>> {
        let mut found = Vec::new();
        for key in keys {
            found.push(self.get(key).await?);
        }
        Ok(found)
    }

    async fn put_many(&self, entries: &[(Key, Entry)]) -> TierResult<Vec<PutOutcome>> {
        self.store.put_many(entries).await
    }

    async fn remove_many(&self, keys: &[Key]) -> TierResult<u64> {
        self.store.remove_many(keys).await
    }

    async fn close(&self) -> TierResult<()> {
        Ok(())
    }

    fn as_inspect(&self) -> Option<&dyn Inspect> {
        self.store.as_inspect()
    }
}

impl Watched {
    fn closed(&self, error: tokio::sync::AcquireError) -> TierError {
        TierError::new(ErrorKind::Internal, Op::Get, self.name()).with_source(error)
    }
}

/// A tier with faults that several chains may share, as several processes would.
///
/// It keeps what it was given when a chain is closed or dropped.
pub(crate) struct Below {
    tier: Arc<ChaosTier<Watched>>,
    pub(crate) chaos: Chaos,
    watch: Arc<Watch>,
}

impl Below {
    /// One called `below`.
    pub(crate) fn new(bench: &Bench) -> Self {
        Self::named("below", bench)
    }

    pub(crate) fn named(name: &'static str, bench: &Bench) -> Self {
        let watch = Arc::new(Watch {
            barriers: Mutex::default(),
            holds: AtomicU64::new(0),
            held: Semaphore::new(0),
            gate: Semaphore::new(0),
        });
        let watched = Watched { store: bench.memory(), watch: Arc::clone(&watch) };
        let tier = ChaosTier::new(name, watched, 7);
        let chaos = tier.chaos();
        Self { tier: Arc::new(tier), chaos, watch }
    }

    /// Another handle to it.
    pub(crate) fn tier(&self) -> Arc<dyn Tier> {
        Arc::clone(&self.tier) as Arc<dyn Tier>
    }

    /// A chain of it alone.
    pub(crate) fn alone(&self, bench: &Bench) -> Cache {
        bench.bare().shared_tier(self.tier()).build().unwrap()
    }

    /// A builder with memory over it. However slow the machine: it is not about time.
    pub(crate) fn builder(&self, bench: &Bench) -> CacheBuilder {
        const LONG: Duration = Duration::from_secs(25);
        let patient = TierOptions::default().read_timeout(LONG).write_timeout(LONG);
        bench.bare().tier(bench.memory()).shared_tier_with(self.tier(), patient)
    }

    /// Memory over it.
    pub(crate) fn under_memory(&self, bench: &Bench) -> Cache {
        self.builder(bench).build().unwrap()
    }

    /// A chain of it alone that treats it so.
    pub(crate) fn with(&self, bench: &Bench, options: TierOptions) -> Cache {
        bench.bare().shared_tier_with(self.tier(), options).build().unwrap()
    }

    /// What it holds, whatever faults it has; counts nowhere.
    pub(crate) async fn inside(&self, key: &Key) -> Option<Entry> {
        self.chaos.inner().get(key).await.unwrap()
    }

    /// Calls of this kind fail with errors of this one from now on.
    pub(crate) fn fails(&self, call: Call, kind: ErrorKind) {
        self.chaos.set(Faults::none().on(call, Fault::Error, 1.0).error_kind(kind));
    }

    /// Calls of this kind hang from now on.
    pub(crate) fn hangs(&self, call: Call) {
        self.chaos.set(Faults::none().on(call, Fault::Hang, 1.0));
    }

    /// How often it was read; a batch is one.
    pub(crate) fn gets(&self) -> u64 {
        self.chaos.calls(Call::Get)
    }

    /// Everything that reached it.
    pub(crate) fn calls(&self) -> u64 {
        Call::ALL.iter().map(|call| self.chaos.calls(*call)).sum()
    }

    /// The barriers that it took, in their order.
    pub(crate) fn barriers(&self) -> Vec<Barrier> {
        self.watch.barriers.lock().unwrap().clone()
    }

    /// The next read is held when it has its answer.
    pub(crate) fn hold_next_get(&self) {
        self.watch.holds.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until a read is held.
    pub(crate) async fn held(&self) {
        within(self.watch.held.acquire()).await.unwrap().forget();
    }

    /// Lets a read that is held go on.
    pub(crate) fn release(&self) {
        self.watch.gate.add_permits(1);
    }
}

/// Sets a value as the policy says.
pub(crate) async fn set(cache: &Cache, key: &Key, value: &'static str) {
    within(cache.set(key, value, SetOptions::default())).await.unwrap();
}

/// The fresh value, as text.
pub(crate) async fn fresh(cache: &Cache, key: &Key) -> Option<String> {
    text(within(cache.get(key)).await.unwrap())
}

/// The value, fresh or stale, as text.
pub(crate) async fn any(cache: &Cache, key: &Key) -> Option<String> {
    let options = ReadOptions::default().allow_stale();
    text(within(cache.get_with(key, options)).await.unwrap())
}

fn text(hit: Option<larder::Hit>) -> Option<String> {
    hit.map(|hit| String::from_utf8(hit.value().to_vec()).unwrap())
}

/// The stamp of what is stored, fresh or stale.
pub(crate) async fn as_of(cache: &Cache, key: &Key) -> Stamp {
    let options = ReadOptions::default().allow_stale();
    let hit = within(cache.get_with(key, options)).await.unwrap().unwrap();
    hit.entry().as_of()
}

/// What the chain counted of a tier.
pub(crate) fn tier_stats(cache: &Cache, tier: &str) -> TierStats {
    cache.stats().tier(tier).unwrap().clone()
}
