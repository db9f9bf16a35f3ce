//! The chain: the ordered tiers and the rules between them.

use std::sync::Arc;

use cache_core::{Barrier, BarrierSet, Clock, Entry, Error, Key, Op, PutOutcome};
use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

use crate::{
    Hit, ServedBy,
    guard::Guard,
    outcome::{PutReport, Removed},
    stats::ChainCounters,
};

/// The tiers, fastest first.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) tiers: Vec<Guard>,
    /// Every barrier set through this handle: a tier that missed one may still hold what it covers.
    barriers: BarrierSet,
    clock: Arc<dyn Clock>,
    pub(crate) counters: ChainCounters,
    /// In strict mode the first tier error ends a read.
    pub(crate) strict: bool,
}

impl Chain {
    pub(crate) fn new(tiers: Vec<Guard>, clock: Arc<dyn Clock>, strict: bool) -> Self {
        let (barriers, counters) = (BarrierSet::new(), ChainCounters::default());
        Self { tiers, barriers, clock, counters, strict }
    }

    /// What the leading synchronous tiers have, without waiting.
    #[inline]
    pub(crate) fn get_now(&self, key: &Key) -> Option<(Hit, &Guard)> {
        let now = self.clock.now();
        // They keep every barrier themselves: setting one never fails there.
        self.leading().find_map(|tier| {
            let entry = tier.get_now(key, now)?;
            Some((Hit::new(entry, ServedBy::Tier(tier.name())), tier))
        })
    }

    fn leading(&self) -> impl Iterator<Item = &Guard> {
        self.tiers.iter().take_while(|tier| tier.sync().is_some())
    }

    /// Asks the tiers in order, from the first that has to wait, and copies what one has upwards.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        key: &Key,
        tasks: &TaskTracker,
    ) -> Result<Option<Hit>, Arc<Error>> {
        let first = self.leading().count();
        for (at, tier) in self.tiers.iter().enumerate().skip(first) {
            match tier.get(key).await {
                Ok(Some(entry)) if !self.barriers.covers(key, &entry) => {
                    self.promote(key, &entry, at, tasks);
                    return Ok(Some(Hit::new(entry, ServedBy::Tier(tier.name()))));
                }
                Ok(_) => {}
                Err(error) if self.strict => return Err(error),
                // Told by the guard, once a change of state.
                Err(_absorbed) => {}
            }
        }
        Ok(None)
    }

    /// Copies an entry of tier `from` into the tiers above; those that wait do so in a task.
    fn promote(self: &Arc<Self>, key: &Key, entry: &Entry, from: usize, tasks: &TaskTracker) {
        for at in 0..from {
            let Some(tier) = self.tiers.get(at) else { continue };
            if let Some(outcome) = tier.put_now(key, entry) {
                self.counters.promotions.add(u64::from(outcome.is_stored()));
                continue;
            }
            let (chain, key, entry) = (Arc::clone(self), key.clone(), entry.clone());
            tasks.spawn(async move {
                let Some(tier) = chain.tiers.get(at) else { return };
                if tier.put(&key, &entry).await.is_ok_and(|outcome| outcome.is_stored()) {
                    chain.counters.promotions.add(1);
                }
            });
        }
    }

    /// Whether the entry was invalidated since its load started.
    pub(crate) fn is_barred(&self, key: &Key, entry: &Entry) -> bool {
        self.barriers.covers(key, entry)
    }

    /// Whether a load of `key` that started at `as_of` may bring what was invalidated since.
    pub(crate) fn may_be_barred(&self, key: &Key, as_of: cache_core::Stamp) -> bool {
        self.barriers.may_cover(key, as_of)
    }

    /// Stores in the tiers that need not wait; whether one of them holds the entry now.
    pub(crate) fn fill_now(&self, key: &Key, entry: &Entry) -> bool {
        let outcomes = self.tiers.iter().filter_map(|tier| tier.put_now(key, entry));
        outcomes.fold(false, |stored, outcome| stored | outcome.is_stored())
    }

    /// Stores in the tiers that have to wait, all at once.
    pub(crate) async fn fill_waiting(&self, key: &Key, entry: &Entry) {
        let waiting = self.tiers.iter().filter(|tier| tier.sync().is_none());
        join_all(waiting.map(|tier| tier.put(key, entry))).await;
    }

    /// Stores everywhere, all tiers at once, and tells what became of it.
    pub(crate) async fn put(&self, key: &Key, entry: &Entry) -> Vec<(&'static str, PutReport)> {
        let puts = self.tiers.iter().map(async |tier| {
            let report = if self.is_barred(key, entry) {
                PutReport::Done(PutOutcome::Barred)
            } else {
                tier.put(key, entry).await.map_or_else(PutReport::Failed, PutReport::Done)
            };
            (tier.name(), report)
        });
        join_all(puts).await
    }

    pub(crate) async fn remove(&self, key: &Key) -> Vec<(&'static str, PutReport)> {
        let removals = self.tiers.iter().map(async |tier| {
            let report = match tier.remove(key).await {
                Ok(_) => PutReport::NotStored,
                Err(error) => PutReport::Failed(error),
            };
            (tier.name(), report)
        });
        join_all(removals).await
    }

    /// Sets the barrier everywhere, all tiers at once.
    pub(crate) async fn bar(&self, barrier: &Barrier) -> Result<Removed, Arc<Error>> {
        self.barriers.add(barrier);
        let bars = self.tiers.iter().map(async |tier| (tier.name(), tier.bar(barrier).await));
        self.removed(join_all(bars).await)
    }

    /// Removes entries that are dead, of `key` alone or of all, where tiers can.
    pub(crate) async fn remove_dead(&self, key: Option<&Key>) -> Result<Removed, Arc<Error>> {
        let now = self.clock.now();
        let removals = self.tiers.iter().filter_map(|tier| {
            let inspect = tier.inspect()?;
            Some(async move {
                let removed = tier.inspected(Op::Expire, inspect.remove_dead(now, key)).await;
                (tier.name(), removed)
            })
        });
        self.removed(join_all(removals).await)
    }

    fn removed(
        &self,
        results: Vec<(&'static str, Result<u64, Arc<Error>>)>,
    ) -> Result<Removed, Arc<Error>> {
        let mut removed = Removed::default();
        for (name, result) in results {
            match result {
                Err(error) if self.strict => return Err(error),
                result => removed.tiers.push((name, result.ok())),
            }
        }
        Ok(removed)
    }
}
