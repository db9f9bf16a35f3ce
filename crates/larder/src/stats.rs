//! Counters of the chain and its tiers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A counter that orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What this process's handle to the chain counted.
///
/// Each read counts exactly once: `reads = hits + stale_hits + misses`; `hits` is the sum of what
/// the tiers `served`, and `stale_hits` of what they `served_stale`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Reads that a tier answered with what is fresh.
    pub hits: u64,
    /// Reads that a tier answered with what is stale.
    pub stale_hits: u64,
    /// Reads that no tier answered.
    pub misses: u64,
    /// Keys whose load was started.
    pub loads: u64,
    /// Keys whose load failed.
    pub load_failures: u64,
    /// Refreshes that were begun behind a hit; what a lower tier has newer is not loaded.
    pub refreshes: u64,
    /// Reads that joined a load, or a look into lower tiers, that another one had started.
    pub joined: u64,
    /// Entries copied into a higher tier.
    pub promotions: u64,
    /// Loaded values that were not stored: key or lifetime did not allow it, or they were
    /// invalidated meanwhile.
    pub not_stored: u64,
    /// By tier, in the order of the chain.
    pub tiers: Vec<TierStats>,
}

impl Stats {
    /// All reads.
    pub fn reads(&self) -> u64 {
        self.hits + self.stale_hits + self.misses
    }

    /// Share of the reads that a tier answered, if there were any.
    pub fn hit_rate(&self) -> Option<f64> {
        let answered = self.hits + self.stale_hits;
        (self.reads() > 0).then(|| answered as f64 / self.reads() as f64)
    }

    /// The tier of this name.
    pub fn tier(&self, name: &str) -> Option<&TierStats> {
        self.tiers.iter().find(|tier| tier.name == name)
    }
}

/// What the chain counted of one tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TierStats {
    /// Its name.
    pub name: &'static str,
    /// Reads of the chain that it answered with what is fresh; reads that shared one look into it
    /// count each.
    pub served: u64,
    /// Reads of the chain that it answered with what is stale.
    pub served_stale: u64,
    /// Times it was asked and had a fresh entry.
    pub found: u64,
    /// Times it was asked and had a stale entry.
    pub found_stale: u64,
    /// Times it was asked and had none.
    pub not_found: u64,
    /// Entries it stored.
    pub stored: u64,
    /// Entries it did not store because a later one was there.
    pub superseded: u64,
    /// Entries it did not store because a barrier covers them.
    pub barred: u64,
    /// Entries it did not take.
    pub refused: u64,
    /// Damaged values that it found, and gave up.
    pub corrupt: u64,
    /// Operations that failed, time-outs included.
    pub errors: u64,
    /// Operations skipped while its breaker was open.
    pub skipped: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct ChainCounters {
    pub(crate) misses: Counter,
    pub(crate) loads: Counter,
    pub(crate) load_failures: Counter,
    pub(crate) refreshes: Counter,
    pub(crate) joined: Counter,
    pub(crate) promotions: Counter,
    pub(crate) not_stored: Counter,
}

/// The counters behind [`TierStats`].
#[derive(Debug, Default)]
pub(crate) struct TierCounters {
    pub(crate) served: Counter,
    pub(crate) served_stale: Counter,
    pub(crate) found: Counter,
    pub(crate) found_stale: Counter,
    pub(crate) not_found: Counter,
    pub(crate) stored: Counter,
    pub(crate) superseded: Counter,
    pub(crate) barred: Counter,
    pub(crate) refused: Counter,
    pub(crate) errors: Counter,
    pub(crate) skipped: Counter,
}

impl TierCounters {
    pub(crate) fn snapshot(&self, name: &'static str, corrupt: u64) -> TierStats {
        TierStats {
            name,
            corrupt,
            served: self.served.get(),
            served_stale: self.served_stale.get(),
            found: self.found.get(),
            found_stale: self.found_stale.get(),
            not_found: self.not_found.get(),
            stored: self.stored.get(),
            superseded: self.superseded.get(),
            barred: self.barred.get(),
            refused: self.refused.get(),
            errors: self.errors.get(),
            skipped: self.skipped.get(),
        }
    }
}
