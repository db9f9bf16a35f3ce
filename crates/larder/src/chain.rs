//! The chain: the ordered tiers and the rules between them.

use std::sync::Arc;

use cache_core::{Barrier, BarrierSet, Clock, Entry, Error, Key, Op, Selector, Stamp, StampClock};
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
    stamps: StampClock,
    pub(crate) counters: ChainCounters,
    /// In strict mode the first tier error ends a read.
    pub(crate) strict: bool,
}

impl Chain {
    pub(crate) fn new(tiers: Vec<Guard>, clock: Arc<dyn Clock>, strict: bool) -> Self {
        let stamps = StampClock::new(Arc::clone(&clock));
        let (barriers, counters) = (BarrierSet::new(), ChainCounters::default());
        Self { tiers, barriers, clock, stamps, counters, strict }
    }

    /// A stamp later than every other of this process.
    pub(crate) fn next_stamp(&self) -> Stamp {
        self.stamps.issue()
    }

    /// A stamp that is also later than all that the tiers hold, whatever the clocks of those who
    /// put it there showed.
    pub(crate) async fn latest_stamp(&self) -> Stamp {
        for stamp in join_all(self.tiers.iter().map(Guard::latest_stamp)).await {
            self.stamps.observe(stamp.unwrap_or_default());
        }
        self.stamps.issue()
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

    /// A second look of a read that has waited since its first.
    pub(crate) fn get_again(&self, key: &Key) -> Option<Hit> {
        let now = self.clock.now();
        self.leading()
            .find_map(|tier| Some(Hit::new(tier.get_again(key, now)?, ServedBy::Tier(tier.name()))))
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
        if let Some(hit) = self.get_again(key) {
            return Ok(Some(hit));
        }
        let first = self.leading().count();
        for (at, tier) in self.tiers.iter().enumerate().skip(first) {
            match tier.get(key).await {
                Ok(Some(entry)) => {
                    // Another process may have issued it: what is issued here next is later.
                    self.stamps.observe(entry.as_of());
                    if !self.barriers.covers(key, &entry) {
                        self.promote(key, &entry, at, tasks);
                        return Ok(Some(Hit::new(entry, ServedBy::Tier(tier.name()))));
                    }
                }
                Ok(None) => {}
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
    pub(crate) fn may_be_barred(&self, key: &Key, as_of: Stamp) -> bool {
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
    ///
    /// Also if a barrier covers it that is being set just now: a tier that has not got the barrier
    /// yet must not go on serving what is older still.
    pub(crate) async fn put(&self, key: &Key, entry: &Entry) -> Vec<(&'static str, PutReport)> {
        let puts = self.tiers.iter().map(async |tier| {
            let report = tier.put(key, entry).await;
            (tier.name(), report.map_or_else(PutReport::Failed, PutReport::Done))
        });
        join_all(puts).await
    }

    /// Forgets a key everywhere, so that no load from before brings it back.
    pub(crate) async fn forget(&self, key: &Key, stamp: Stamp) -> Vec<(&'static str, PutReport)> {
        let barrier = Barrier { selector: Selector::Key(key.clone()), stamp };
        self.remember(&barrier);
        let barrier = &barrier;
        let bars = self.tiers.iter().map(async |tier| {
            let report = match tier.bar(barrier).await {
                Ok(_) => PutReport::NotStored,
                Err(error) => PutReport::Failed(error),
            };
            (tier.name(), report)
        });
        join_all(bars).await
    }

    /// From now on nothing that the barrier covers is accepted from any tier.
    pub(crate) fn remember(&self, barrier: &Barrier) {
        self.barriers.add(barrier);
    }

    /// Sets the barrier in all tiers at once.
    pub(crate) async fn bar(&self, barrier: &Barrier) -> Result<Removed, Arc<Error>> {
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
