//! The chain: the ordered tiers and the rules between them.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use cache_core::{
    Barrier, BarrierSet, Clock, Entry, Error, Freshness, Key, Op, PutOutcome, Selector, Stamp,
    StampClock, Timestamp,
};
use futures_util::future::join_all;

use crate::{
    Hit,
    guard::Guard,
    outcome::{PutReport, Removed},
    packing::Packing,
    policy::Policies,
    stats::ChainCounters,
    tasks::Tasks,
    versions::Versions,
};

/// The tiers, fastest first.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) tiers: Vec<Guard>,
    /// How many of them answer inside a call.
    leading: usize,
    pub(crate) packing: Packing,
    /// Every barrier set through this handle: a tier that missed one may still hold what it covers.
    barriers: BarrierSet,
    clock: Arc<dyn Clock>,
    /// How long a process that was killed keeps others from loading; none is kept if it is zero.
    pub(crate) lease: Duration,
    /// Tells its leases from those of others: flights of one process know of each other.
    pub(crate) owner: u64,
    stamps: Arc<StampClock>,
    pub(crate) policies: Policies,
    pub(crate) versions: Versions,
    pub(crate) counters: ChainCounters,
    /// In strict mode the first tier error ends a read.
    pub(crate) strict: bool,
}

/// Tiers that a read leaves out, by their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skip(u64);

impl Skip {
    pub(crate) fn with(self, tier: usize) -> Self {
        Self(self.0 | 1_u64.checked_shl(u32::try_from(tier).unwrap_or(u32::MAX)).unwrap_or(0))
    }

    pub(crate) fn contains(self, tier: usize) -> bool {
        self.with(tier) == self
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

/// An entry, and the place of the tier that has it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) tier: usize,
}

/// What a look through the tiers found under a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// The first that is fresh.
    pub(crate) fresh: Option<Found>,
    /// The newest that is stale; only looked for until something fresh was found.
    pub(crate) stale: Option<Found>,
    /// Whether a tier that was asked could not tell.
    pub(crate) unsure: bool,
}

impl Look {
    /// What may serve a caller who has nothing better, and validate a load.
    pub(crate) fn best(&self) -> Option<&Found> {
        self.fresh.as_ref().or(self.stale.as_ref())
    }

    fn note(&mut self, found: Found, freshness: Freshness) {
        let stale = self.stale.as_ref();
        match freshness {
            // What is older than what another tier has is out of date, however fresh.
            Freshness::Fresh if stale.is_none_or(|stale| !is_newer(stale, &found)) => {
                self.fresh = Some(found);
            }
            Freshness::Stale if stale.is_none_or(|stale| is_newer(&found, stale)) => {
                self.stale = Some(found);
            }
            Freshness::Fresh | Freshness::Stale | Freshness::Dead => {}
        }
    }
}

/// What a tier answered to a barrier.
pub(crate) type Barred = (&'static str, Result<u64, Arc<Error>>);

fn is_newer(one: &Found, other: &Found) -> bool {
    one.entry.as_of() > other.entry.as_of()
}

impl Chain {
    pub(crate) fn new(
        tiers: Vec<Guard>,
        policies: Policies,
        clock: Arc<dyn Clock>,
        strict: bool,
        lease: Duration,
    ) -> Self {
        let leading = tiers.iter().take_while(|tier| tier.sync().is_some()).count();
        Self {
            packing: Packing::new(&tiers),
            tiers,
            leading,
            barriers: BarrierSet::new(),
            stamps: StampClock::following(&clock),
            clock,
            lease,
            owner: RandomState::new().build_hasher().finish(),
            versions: Versions::new(&policies),
            policies,
            counters: ChainCounters::default(),
            strict,
        }
    }

    /// Has what is issued here be later than a stamp of another process.
    pub(crate) fn observe(&self, stamp: Stamp) {
        self.stamps.observe(stamp);
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

    /// What the leading synchronous tiers have that is fresh, without waiting, after the first, which
    /// has `found` nothing that is fresh; counted as a read if there is something.
    #[cold]
    pub(crate) fn get_further(
        &self,
        found: Option<&Entry>,
        key: &str,
        now: Timestamp,
    ) -> Option<Hit> {
        let (first, others) = self.leading().split_first()?;
        first.count_found(found, now);
        others.iter().find_map(|tier| {
            // They keep every barrier themselves: setting one never fails there.
            let found = tier.get_any(key, now, true);
            let entry = found.filter(|entry| entry.freshness(now) == Freshness::Fresh)?;
            tier.counters.served.add(1);
            Some(Hit::new(entry, tier.by(), now))
        })
    }

    /// What the leading synchronous tiers have, stale too: counted unless the read has asked them
    /// before.
    pub(crate) fn get_leading(&self, key: &Key, skip: Skip, counts: bool) -> Look {
        let now = self.clock.now();
        let mut look = Look::default();
        for (at, tier) in self.leading().iter().enumerate().filter(|(at, _)| !skip.contains(*at)) {
            // It may not have a barrier yet that is being set just now.
            let found = tier.get_any(key.as_str(), now, counts);
            if let Some(entry) = found.and_then(|entry| self.barriers.admit(key, entry)) {
                let freshness = entry.freshness(now);
                look.note(Found { entry, tier: at }, freshness);
                if look.fresh.is_some() {
                    break;
                }
            }
        }
        look
    }

    /// An entry that memory gave has been decoded.
    pub(crate) fn weigh_again(&self, key: &str, entry: &Entry) {
        for tier in self.leading().iter().filter_map(Guard::sync) {
            tier.weigh_again(key, entry);
        }
    }

    /// The synchronous tiers before the first that is none.
    pub(crate) fn leading(&self) -> &[Guard] {
        self.tiers.get(..self.leading).unwrap_or_default()
    }

    /// The leading synchronous tiers, as tiers to leave out.
    pub(crate) fn all_leading(&self) -> Skip {
        self.with_leading(Skip::default())
    }

    /// These, and the leading synchronous tiers.
    pub(crate) fn with_leading(&self, skip: Skip) -> Skip {
        (0..self.leading).fold(skip, Skip::with)
    }

    /// Whether a tier stores what the leading ones are not given.
    pub(crate) fn waits_to_store(&self) -> bool {
        self.tiers.iter().any(Guard::waits_to_store)
    }

    /// Has the leading synchronous tiers give up what is older than an entry that they are not given.
    pub(crate) fn pass_leading(&self, key: &Key, entry: &Entry) {
        let leading = self.leading().iter().filter_map(Guard::sync);
        leading.for_each(|tier| tier.give_up_older(key, entry.as_of()));
    }

    /// Asks the tiers in order, all keys at once.
    pub(crate) async fn look_up(
        &self,
        keys: &[Key],
        skip: Skip,
        counts_leading: bool,
    ) -> Vec<Result<Look, Arc<Error>>> {
        let leading = |key| Ok(self.get_leading(key, skip, counts_leading));
        let mut looks: Vec<_> = keys.iter().map(leading).collect();
        let first = self.leading;
        for (at, tier) in self.tiers.iter().enumerate().skip(first) {
            let unanswered =
                |look: &Result<Look, _>| look.as_ref().is_ok_and(|l| l.fresh.is_none());
            let (places, asked): (Vec<usize>, Vec<Key>) = (looks.iter().zip(keys).enumerate())
                .filter(|(_, (look, _))| unanswered(look))
                .map(|(place, (_, key))| (place, key.clone()))
                .unzip();
            if asked.is_empty() {
                break;
            }
            if skip.contains(at) {
                continue;
            }
            match tier.get_many(&asked).await {
                Ok(found) => {
                    for (place, (key, entry)) in places.into_iter().zip(asked.iter().zip(found)) {
                        if let (Ok(look), Some(entry)) = (&mut looks[place], entry) {
                            self.consider(key, entry, at, look);
                        }
                    }
                }
                Err(error) if self.strict => {
                    for place in places {
                        looks[place] = Err(Arc::clone(&error));
                    }
                }
                // Told by the guard, once a change of state.
                Err(_absorbed) => {
                    for place in places {
                        if let Ok(look) = &mut looks[place] {
                            look.unsure = true;
                        }
                    }
                }
            }
        }
        looks
    }

    /// Notes what a tier has, as it counts here: barriers that the tier has not got, policies and
    /// versions may have made less of it.
    pub(crate) fn consider(&self, key: &Key, entry: Entry, at: usize, look: &mut Look) {
        // Another process may have issued it: what is issued here next is later.
        self.stamps.observe(entry.as_of());
        let Some(entry) = self.barriers.admit(key, entry) else { return };
        let version = self.versions.of(key.source());
        let entry = self.policies.of(key.source()).adjusted(entry, version.as_deref());
        let freshness = entry.freshness(self.clock.now());
        look.note(Found { entry, tier: at }, freshness);
    }

    /// Copies what a look found in a lower tier into the tiers above; those that wait do so in a
    /// task.
    pub(crate) fn promote(self: &Arc<Self>, key: &Key, look: &Look, skip: Skip, tasks: &Tasks) {
        let Some(Found { entry, tier: from }) = look.best() else { return };
        for at in (0..*from).filter(|at| !skip.contains(*at)) {
            let Some(tier) = self.tiers.get(at) else { continue };
            if let Some(outcome) = tier.put_now(key, entry) {
                self.counters.promotions.add(u64::from(outcome.is_stored()));
                continue;
            }
            if !tier.waits_to_store() {
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

    /// The entry as it counts here, if it was not invalidated since its load started.
    pub(crate) fn admit(&self, key: &Key, entry: Entry) -> Option<Entry> {
        self.barriers.admit(key, entry)
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

    /// Stores once more in the tiers that need not wait, once the others have it: meanwhile they may
    /// have given it up, and been given what one of these had before.
    pub(crate) fn refill_now(&self, key: &Key, entry: &Entry) {
        self.leading().iter().for_each(|tier| tier.put_again(key, entry));
    }

    /// Sets a barrier in the tiers that need not wait, and in this process.
    pub(crate) async fn bar_leading(&self, barrier: &Barrier) -> Vec<Barred> {
        self.remember(barrier);
        join_all(self.leading().iter().map(async |tier| (tier.name(), tier.bar(barrier).await)))
            .await
    }

    /// Sets it in the others, too.
    pub(crate) async fn bar_others(
        &self,
        leading: Vec<Barred>,
        barrier: &Barrier,
    ) -> Result<Removed, Arc<Error>> {
        let others = self.tiers.iter().skip(leading.len());
        let others = others.map(async |tier| (tier.name(), tier.bar(barrier).await));
        let others = join_all(others).await;
        self.removed(leading.into_iter().chain(others).collect())
    }

    /// Stores in the tiers that have to wait, all at once. Each entry comes with whether something
    /// older was known of it.
    ///
    /// Where one of them knows better, the tiers above may not: they have forgotten the newer entry,
    /// or not got the barrier. They give up what they took.
    pub(crate) async fn fill_waiting(&self, entries: &[(Key, Entry)], replaces: &[bool]) {
        if entries.is_empty() {
            return;
        }
        let entries = &*self.shared_below(entries);
        let waiting = self.tiers.iter().filter(|tier| tier.waits_to_store());
        let by_tier =
            join_all(waiting.map(async |tier| (tier, tier.put_many(entries).await))).await;
        for (place, (key, entry)) in entries.iter().enumerate() {
            let mut outdated = false;
            for (tier, outcomes) in &by_tier {
                match outcomes {
                    Ok(outcomes) => {
                        if let Some(said) = outcomes.get(place) {
                            outdated |= self.is_outdated(tier, key, entry, said).await;
                        }
                    }
                    Err(_absorbed) if replaces.get(place) == Some(&true) => {
                        self.give_up_older(tier, key, entry);
                    }
                    Err(_absorbed) => {}
                }
            }
            if outdated {
                self.give_up(key, entry).await;
            }
        }
    }

    /// A tier did not take an entry: what it has is older, and is not to be served any more.
    fn give_up_older(&self, tier: &Guard, key: &Key, entry: &Entry) {
        let before = Stamp::from_packed(entry.as_of().packed().saturating_sub(1));
        let barrier = Barrier::forget(Selector::Key(key.clone()), before);
        self.remember(&barrier);
        tier.give_later(&barrier);
    }

    /// Stores everywhere, all tiers at once, and tells what became of each entry.
    ///
    /// Also if a barrier covers it that is being set just now: a tier that has not got the barrier
    /// yet must not go on serving what is older still.
    pub(crate) async fn put(
        &self,
        entries: &[(Key, Entry)],
    ) -> Vec<Vec<(&'static str, PutReport)>> {
        let shared = &*self.shared_below(entries);
        let puts = self.tiers.iter().map(async |tier| {
            let entries = if tier.waits_to_store() { shared } else { entries };
            (tier.name(), tier.put_awaited(entries).await)
        });
        let by_tier = join_all(puts).await;
        for (tier, (_, outcomes)) in self.tiers.iter().zip(&by_tier) {
            if outcomes.is_err() {
                for (key, entry) in entries {
                    self.give_up_older(tier, key, entry);
                }
            }
        }
        // Another process may have stored something later meanwhile, and memory been told of it.
        for (tier, (_, outcomes)) in self.tiers.iter().zip(&by_tier) {
            let Ok(outcomes) = outcomes else { continue };
            if !tier.waits_to_store() {
                continue;
            }
            for ((key, entry), said) in entries.iter().zip(outcomes) {
                if *said == PutOutcome::Superseded && self.is_outdated(tier, key, entry, said).await
                {
                    self.give_up(key, entry).await;
                }
            }
        }
        let of = |place: usize| {
            by_tier.iter().map(move |(name, outcomes)| {
                let report = match outcomes {
                    Ok(outcomes) => outcomes.get(place).cloned().map(PutReport::Done),
                    Err(error) => Some(PutReport::Failed(Arc::clone(error))),
                };
                (*name, report.unwrap_or(PutReport::NotStored))
            })
        };
        (0..entries.len()).map(|place| of(place).collect()).collect()
    }

    /// Stores in the tiers that have to wait, all at once. One that fails gives up what is older; where
    /// one knows better, the others give up what they took.
    pub(crate) async fn put_waiting(&self, entries: &[(Key, Entry)]) {
        self.fill_waiting(entries, &vec![true; entries.len()]).await;
    }

    /// Has all tiers give up an entry that one of them knows to be out of date.
    async fn give_up(&self, key: &Key, entry: &Entry) {
        let barrier = Barrier::forget(Selector::Key(key.clone()), entry.as_of());
        join_all(self.tiers.iter().map(|tier| tier.bar(&barrier))).await;
    }

    /// Whether a tier that waits knows something later than the entry, by what it said of it.
    async fn is_outdated(&self, tier: &Guard, key: &Key, entry: &Entry, said: &PutOutcome) -> bool {
        match said {
            PutOutcome::Barred => true,
            // Or it has got this very entry, by a promotion from a tier that was quicker.
            PutOutcome::Superseded => tier.knows_better(key, entry.as_of()).await,
            _ => false,
        }
    }

    /// Forgets a key everywhere, so that no load from before brings it back.
    pub(crate) async fn forget(&self, key: &Key, stamp: Stamp) -> Vec<(&'static str, PutReport)> {
        let barrier = Barrier::forget(Selector::Key(key.clone()), stamp);
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

    /// Sets barriers in all tiers at once.
    pub(crate) async fn bar(&self, barriers: &[Barrier]) -> Result<Removed, Arc<Error>> {
        let bars = self.tiers.iter().map(async |tier| {
            let all = join_all(barriers.iter().map(|barrier| tier.bar(barrier))).await;
            (tier.name(), all.into_iter().sum())
        });
        self.removed(join_all(bars).await)
    }

    /// Removes entries that are dead, of `key` alone or of all, where tiers can.
    pub(crate) async fn remove_dead(&self, key: Option<&Key>) -> Result<Removed, Arc<Error>> {
        let now = self.clock.now();
        let writable = self.tiers.iter().filter(|tier| !tier.is_read_only());
        let removals = writable.filter_map(|tier| {
            let inspect = tier.inspect()?;
            Some(async move {
                let removed = tier.inspected(Op::Expire, inspect.remove_dead(now, key)).await;
                (tier.name(), removed)
            })
        });
        self.removed(join_all(removals).await)
    }

    fn removed(&self, results: Vec<Barred>) -> Result<Removed, Arc<Error>> {
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
