//! The way of a hit in memory: what it needs lies one step from the handle.

#[cfg(feature = "memory")]
use std::any::Any;
use std::{sync::Arc, time::Instant};

use cache_core::{Clock, Entry, Freshness, SyncTier, Tier, Timestamp};

use crate::{
    Hit, ServedBy,
    chain::Chain,
    guard::Guard,
    note::By,
    stats::{Sharded, Timings},
    ticker::Ticker,
};

/// Timing a read costs more than the read.
const TIMED_ONE_IN: u64 = 64;

/// The first tier, if it answers inside the call, and what its hits need.
#[derive(Debug)]
pub(crate) struct Front {
    first: First,
    clock: FrontClock,
    hits: Sharded,
    reads: Arc<Timings>,
    by: By,
    counts_hits: bool,
    logs_hits: bool,
}

/// The usual tier and the usual clock are called directly: calls through a table cost a hit an eighth
/// of its time (measured).
#[derive(Debug)]
enum First {
    #[cfg(feature = "memory")]
    Memory(Arc<tier_memory::MemoryTier>),
    Other(Arc<dyn Tier>),
    None,
}

impl First {
    fn of(tier: Arc<dyn Tier>) -> Self {
        #[cfg(feature = "memory")]
        if let Ok(memory) =
            Arc::downcast(Arc::<dyn Tier>::clone(&tier) as Arc<dyn Any + Send + Sync>)
        {
            return Self::Memory(memory);
        }
        Self::Other(tier)
    }
}

/// What tells the time.
#[derive(Debug)]
pub(crate) enum FrontClock {
    /// The machine's.
    Machine(&'static Ticker),
    /// One that the program has brought.
    Other(Arc<dyn Clock>),
}

impl FrontClock {
    #[inline]
    fn now(&self) -> Timestamp {
        match self {
            Self::Machine(ticker) => ticker.now(),
            Self::Other(clock) => clock.now(),
        }
    }

    /// Says that there are many hits.
    fn want(&self) {
        if let Self::Machine(ticker) = self {
            ticker.want();
        }
    }
}

impl Front {
    pub(crate) fn new(chain: &Chain, clock: FrontClock, counts: bool, logs: bool) -> Self {
        let first = chain.leading().first();
        Self {
            first: first.map_or(First::None, |first| First::of(Arc::clone(first.tier()))),
            clock,
            hits: first.map(|first| first.counters.hits.clone()).unwrap_or_default(),
            reads: first.map(|first| Arc::clone(&first.counters.reads)).unwrap_or_default(),
            by: first.map_or(By::ORIGIN, Guard::by),
            counts_hits: counts,
            logs_hits: logs,
        }
    }

    /// What the synchronous tiers have that is fresh; a read that is answered is counted.
    ///
    /// A call, but the only one above the store: what it returns fits into registers, and those who
    /// call it stay small enough to become part of their callers.
    #[inline(never)]
    pub(crate) fn get(&self, key: &str, chain: &Chain) -> Option<Hit> {
        match &self.first {
            #[cfg(feature = "memory")]
            First::Memory(memory) => self.get_from(&**memory, key, chain),
            First::Other(tier) => self.get_from(tier.as_sync()?, key, chain),
            First::None => None,
        }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as `get`")]
    fn get_from<T: SyncTier + ?Sized>(&self, first: &T, key: &str, chain: &Chain) -> Option<Hit> {
        let now = self.clock.now();
        let part = self.hits.part();
        let found = if part.read().is_multiple_of(TIMED_ONE_IN) {
            self.get_timed(first, key, now)
        } else {
            first.get_now(key, now)
        };
        let hit = match found {
            Some(entry) if entry.freshness(now) == Freshness::Fresh => {
                if self.counts_hits {
                    part.hit();
                }
                Hit::new(entry, self.by, now)
            }
            found => chain.get_further(found.as_ref(), key, now)?,
        };
        if self.logs_hits {
            log(key, &hit);
        }
        Some(hit)
    }

    #[cold]
    fn get_timed<T>(&self, tier: &T, key: &str, now: Timestamp) -> Option<Entry>
    where
        T: SyncTier + ?Sized,
    {
        self.clock.want();
        if !self.counts_hits {
            return tier.get_now(key, now);
        }
        let began = Instant::now();
        let found = tier.get_now(key, now);
        self.reads.record(began.elapsed());
        found
    }

    /// Logs what a tier has served, if that is wanted.
    pub(crate) fn log_hit(&self, key: &str, hit: &Hit) {
        if self.logs_hits {
            log(key, hit);
        }
    }
}

#[cold]
fn log(key: &str, hit: &Hit) {
    let ServedBy::Tier(tier) = hit.served_by() else { return };
    let key = cache_core::Escaped(key);
    let what = if hit.is_stale() { "stale hit" } else { "hit" };
    tracing::info!(target: "larder::hits", tier, %key, "{what}");
}
