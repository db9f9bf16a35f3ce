//! Counters of the chain and its tiers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam_utils::CachePadded;
use histogram::AtomicHistogram;
use serde::Serialize;
use thread_local::ThreadLocal;

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

/// Counts of the hit path, of which each thread has its own part: they cost no locked instruction,
/// and threads do not contend for them (one shared cell costs twice as much with one thread, and
/// twenty times with two; measured).
#[derive(Clone, Debug, Default)]
pub(crate) struct Sharded(Arc<ThreadLocal<CachePadded<Part>>>);

/// The part of one thread, which alone changes it.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Reads, to choose those that are timed.
    reads: AtomicU64,
    hits: AtomicU64,
}

impl Sharded {
    pub(crate) fn hits(&self) -> u64 {
        self.0.iter().map(|part| part.hits.load(Ordering::Relaxed)).sum()
    }

    /// That of this thread.
    #[inline]
    pub(crate) fn part(&self) -> &Part {
        match self.0.get() {
            Some(part) => part,
            None => self.first(),
        }
    }

    #[cold]
    fn first(&self) -> &Part {
        self.0.get_or_default()
    }
}

impl Part {
    /// Notes a read; how many there were before.
    #[inline]
    pub(crate) fn read(&self) -> u64 {
        Self::increment(&self.reads)
    }

    /// Counts a hit.
    #[inline]
    pub(crate) fn hit(&self) {
        Self::increment(&self.hits);
    }

    #[inline]
    fn increment(count: &AtomicU64) -> u64 {
        // No other thread writes it.
        let before = count.load(Ordering::Relaxed);
        count.store(before + 1, Ordering::Relaxed);
        before
    }
}

/// How long something takes, in buckets that grow with it.
#[derive(Debug)]
pub(crate) struct Timings(Option<AtomicHistogram>);

/// Buckets are at most 1/64 of their values wide ...
const GROUPING_POWER: u8 = 6;
/// ... up to so many bits of nanoseconds: 18 minutes.
const MAX_POWER: u8 = 40;

impl Default for Timings {
    fn default() -> Self {
        // It fails for other constants only.
        Self(AtomicHistogram::new(GROUPING_POWER, MAX_POWER).ok())
    }
}

impl Timings {
    pub(crate) fn record(&self, took: Duration) {
        let most = (1_u64 << MAX_POWER) - 1;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(most).min(most);
        if let Some(histogram) = &self.0 {
            // What is in range is counted.
            let _counted = histogram.increment(nanos);
        }
    }

    pub(crate) fn snapshot(&self) -> Latency {
        let counted = self.0.as_ref().map(AtomicHistogram::load);
        let Some(counted) = counted else { return Latency::default() };
        let at = |quantile: f64| {
            let bucket = counted.quantile_bucket(quantile).ok().flatten();
            bucket.map_or(Duration::ZERO, |bucket| Duration::from_nanos(bucket.end()))
        };
        Latency {
            count: counted.as_slice().iter().sum(),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// How long operations took; each figure is too high by at most 1.6 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Operations that were timed.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 90 % took no longer.
    pub p90: Duration,
    /// 95 % took no longer.
    pub p95: Duration,
    /// 99 % took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
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

/// How long operations of one tier took since the chain was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TierLatency {
    /// Its name.
    pub name: &'static str,
    /// Reads. Of the first tier, if it answers inside the call, one in 64 of a thread is timed, hits
    /// and misses alike; of others that do, none.
    pub reads: Latency,
    /// Writes; of a tier that answers inside the call, none.
    pub writes: Latency,
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
    /// Reads that it has answered inside the call with what is fresh: found and served, in one
    /// count, since they may be millions a second.
    pub(crate) hits: Sharded,
    pub(crate) reads: Arc<Timings>,
    pub(crate) writes: Timings,
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
        let hits = self.hits.hits();
        TierStats {
            name,
            corrupt,
            served: self.served.get() + hits,
            served_stale: self.served_stale.get(),
            found: self.found.get() + hits,
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

    pub(crate) fn latency(&self, name: &'static str) -> TierLatency {
        TierLatency { name, reads: self.reads.snapshot(), writes: self.writes.snapshot() }
    }
}
