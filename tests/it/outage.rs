//! Tiers that fail, hang or refuse: answers go on, each failure is told once, and a tier that works
//! again is used again.

mod breaker;
mod files;
mod hanging;
mod missed;
mod told;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cache_core::{Barrier, Error as TierError, ErrorKind, Op, Result as TierResult};
use larder::{
    Cache, Capability, Entry, Error, Filter, Inspect, Key, PutOutcome, PutReport, ServedBy,
    SetOptions, Tier, TierStats, tiers::MemoryTier,
};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    harness::{Bench, bring, close, key, never, tag, until, within},
    log::Log,
};

/// How a [`Chaos`] does one of its operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As it should.
    #[default]
    Works,
    /// With an error of this kind.
    Fails(ErrorKind),
    /// Never.
    Hangs,
    /// A read has its answer, and a write has done nothing, when it stops at the gate.
    Held,
}

/// What a [`Chaos`] is told to do, and counts.
#[derive(Debug)]
pub(crate) struct Switches {
    gets: (Mutex<Mode>, AtomicU64),
    puts: (Mutex<Mode>, AtomicU64),
    bars: (Mutex<Mode>, AtomicU64),
    arrived: Semaphore,
    gate: Semaphore,
}

impl Switches {
    pub(crate) fn gets(&self, mode: Mode) {
        *self.gets.0.lock().unwrap() = mode;
    }

    pub(crate) fn puts(&self, mode: Mode) {
        *self.puts.0.lock().unwrap() = mode;
    }

    pub(crate) fn bars(&self, mode: Mode) {
        *self.bars.0.lock().unwrap() = mode;
    }

    pub(crate) fn all(&self, mode: Mode) {
        self.gets(mode);
        self.puts(mode);
        self.bars(mode);
    }

    /// Reads that reached the tier.
    pub(crate) fn get_calls(&self) -> u64 {
        self.gets.1.load(Ordering::SeqCst)
    }

    /// All operations that reached the tier.
    pub(crate) fn calls(&self) -> u64 {
        let calls = |switch: &(Mutex<Mode>, AtomicU64)| switch.1.load(Ordering::SeqCst);
        calls(&self.gets) + calls(&self.puts) + calls(&self.bars)
    }

    /// Waits until one more operation has reached the gate.
    pub(crate) async fn held(&self) {
        within(self.arrived.acquire()).await.unwrap().forget();
    }

    /// Lets one operation pass the gate.
    pub(crate) fn release(&self) {
        self.gate.add_permits(1);
    }
}

impl Default for Switches {
    fn default() -> Self {
        let switch = || (Mutex::default(), AtomicU64::new(0));
        let (arrived, gate) = (Semaphore::new(0), Semaphore::new(0));
        Self { gets: switch(), puts: switch(), bars: switch(), arrived, gate }
    }
}

/// A tier that has to be waited for, with switches; it keeps entries, but not barriers that it was
/// not able to take.
#[derive(Debug)]
pub(crate) struct Chaos {
    store: MemoryTier,
    switches: Arc<Switches>,
}

impl Chaos {
    pub(crate) fn new(bench: &Bench) -> (Self, Arc<Switches>) {
        let switches = Arc::new(Switches::default());
        (Self { store: bench.memory(), switches: Arc::clone(&switches) }, switches)
    }

    async fn enter(&self, switch: &(Mutex<Mode>, AtomicU64), op: Op) -> TierResult<()> {
        switch.1.fetch_add(1, Ordering::SeqCst);
        let mode = *switch.0.lock().unwrap();
        match mode {
            Mode::Works => Ok(()),
            Mode::Fails(kind) => Err(TierError::new(kind, op, "chaos")),
            Mode::Hangs => std::future::pending().await,
            Mode::Held => {
                self.switches.arrived.add_permits(1);
                self.switches.gate.acquire().await.unwrap().forget();
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Tier for Chaos {
    fn name(&self) -> &'static str {
        "chaos"
    }

    fn capability(&self) -> Capability {
        Capability::LOCAL
    }

    async fn get(&self, key: &Key) -> TierResult<Option<Entry>> {
        let found = self.store.get(key).await;
        self.enter(&self.switches.gets, Op::Get).await?;
        found
    }

    async fn put(&self, key: &Key, entry: &Entry) -> TierResult<PutOutcome> {
        self.enter(&self.switches.puts, Op::Put).await?;
        self.store.put(key, entry).await
    }

    async fn remove(&self, key: &Key) -> TierResult<bool> {
        self.enter(&self.switches.puts, Op::Remove).await?;
        self.store.remove(key).await
    }

    async fn bar(&self, barrier: &Barrier) -> TierResult<u64> {
        self.enter(&self.switches.bars, Op::Bar).await?;
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
        let mut outcomes = Vec::new();
        for (key, entry) in entries {
            outcomes.push(self.put(key, entry).await?);
        }
        Ok(outcomes)
    }

    async fn remove_many(&self, keys: &[Key]) -> TierResult<u64> {
        let mut removed = 0;
        for key in keys {
            removed += u64::from(self.remove(key).await?);
        }
        Ok(removed)
    }

    async fn close(&self) -> TierResult<()> {
        Ok(())
    }

    fn as_inspect(&self) -> Option<&dyn Inspect> {
        self.store.as_inspect()
    }
}

fn stats_of(cache: &Cache, tier: &str) -> TierStats {
    cache.stats().tier(tier).unwrap().clone()
}

/// Moves the clock, and with it the breaker, by whole seconds.
fn forward(bench: &Bench, seconds: u64) {
    bench.advance(seconds * 1_000);
}

const DOWN: Mode = Mode::Fails(ErrorKind::Unavailable);

/// Memory over a chaos tier.
fn over_chaos(bench: &Bench) -> (Cache, Arc<Switches>) {
    let (chaos, switches) = Chaos::new(bench);
    (bench.bare().tier(bench.memory()).tier(chaos).build().unwrap(), switches)
}

/// A chaos tier alone.
fn chaos_alone(bench: &Bench) -> (Cache, Arc<Switches>) {
    let (chaos, switches) = Chaos::new(bench);
    (bench.bare().tier(chaos).build().unwrap(), switches)
}
