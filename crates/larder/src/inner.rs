//! What the handles to one chain share: the chain, its flights and tasks, and the work on them.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use cache_core::{
    Barrier, Clock, Entry, Error as TierError, Freshness, Key, Origin, Selector, Stamp, Timestamp,
};
use tokio::sync::Semaphore;

use crate::{
    Error, Hit, Policy, ReadMode, ReadOptions, Removed, SetOptions, Slots, StaleReason, Urgency,
    asking::Asker,
    chain::{Chain, Look, Skip},
    flight::{self, Flights, Part},
    front::Front,
    guard::Guard,
    loading::Loading,
    outcome::PutReport,
    pauses::Throttle,
    policy::{Lifetime, seed},
    tasks::{Begun, Tasks},
};

/// How a load ended: with an answer, or with a failure and why what is stale is served instead.
pub(crate) type Outcome = Result<Hit, (Error, StaleReason)>;
pub(crate) type Leader = flight::Leader<Key, Outcome, Hit>;
pub(crate) type Follower = flight::Follower<Outcome, Hit>;
type Looked = Result<Look, Arc<TierError>>;

/// Entries that may be queued for slower tiers; more wait for room.
pub(crate) const MOST_QUEUED: u32 = 4_096;

/// In the kind of a flight: it may be made to wait, or be stopped, by whoever it belongs to.
pub(crate) const PATIENT: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) front: Front,
    pub(crate) chain: Arc<Chain>,
    #[cfg(feature = "zstd")]
    pub(crate) training: Option<Arc<crate::dictionaries::Training>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) origins: HashMap<String, Arc<dyn Origin>>,
    /// Of the sources whose origin is not simply asked.
    pub(crate) askers: HashMap<String, Arc<Asker>>,
    /// Of the sources whose answers are about ranges of time.
    #[cfg(feature = "series")]
    pub(crate) series: std::collections::BTreeMap<String, crate::series::Series>,
    pub(crate) probes: crate::probes::Probes,
    /// Loads under way.
    pub(crate) flights: Arc<Flights<Key, Outcome, Hit>>,
    /// Looks into lower tiers under way.
    pub(crate) looks: Arc<Flights<Key, Looked, ()>>,
    pub(crate) throttle: Throttle,
    pub(crate) loading: Loading,
    pub(crate) tasks: Tasks,
    /// Room for entries that are queued for slower tiers.
    pub(crate) queue: Arc<Semaphore>,
    /// Held while a version of a source is put in force.
    pub(crate) version_order: tokio::sync::Mutex<()>,
    pub(crate) offline: bool,
    pub(crate) closed: AtomicBool,
}

/// What a call wants, with names looked up and policies merged.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) policy: Arc<Policy>,
    /// Whether the policy differs from the source's.
    pub(crate) patched: bool,
    pub(crate) skip: Skip,
    pub(crate) mode: ReadMode,
    pub(crate) allow_stale: bool,
    pub(crate) urgency: Urgency,
    pub(crate) slots: Option<Slots>,
    pub(crate) spares_memory: bool,
}

impl Wanted {
    /// Whether an entry is fresh by its source's policy and by the call's.
    pub(crate) fn accepts(&self, entry: &Entry, now: Timestamp) -> bool {
        entry.freshness(now) == Freshness::Fresh
            && (!self.patched || self.policy.accepts(entry, now))
    }

    /// Whether an entry that is not fresh is served after this failure.
    pub(crate) fn takes_after(&self, error: &Error, entry: &Entry, now: Timestamp) -> bool {
        // What is served while it is refreshed is so whatever becomes of that.
        let behind = !self.is_forced() && self.policy.allows_while_revalidating(entry, now);
        self.allow_stale || behind || self.policy.allows_after(error, entry, now)
    }

    /// Whether it is to be loaded whatever is stored.
    pub(crate) fn is_forced(&self) -> bool {
        self.mode == ReadMode::Refresh
    }

    /// Whether memory is asked inside the call, before anything else.
    pub(crate) fn peeks(&self) -> bool {
        let looks = matches!(self.mode, ReadMode::Normal | ReadMode::CachedOnly);
        // Where a leading tier is left out it is a look like any other.
        looks && self.skip == Skip::default()
    }

    /// Flights of different kinds are not shared until they load.
    pub(crate) fn kind(&self) -> u64 {
        let patient = if self.slots.is_some() { PATIENT } else { 0 };
        self.skip.bits() << 1 | u64::from(self.is_forced()) | patient
    }
}

impl Inner {
    /// Notes what the tiers have been given: dictionaries may be trained on it.
    #[cfg(feature = "zstd")]
    pub(crate) fn note_stored(&self, entries: &[(Key, Entry)]) {
        if let Some(training) = &self.training {
            training.note_stored(entries);
        }
    }

    #[cfg(not(feature = "zstd"))]
    #[expect(clippy::unused_self, reason = "there are no dictionaries without Zstandard")]
    pub(crate) fn note_stored(&self, _: &[(Key, Entry)]) {}

    /// What the synchronous tiers have under a key that is fresh; counted if there is something.
    #[inline]
    pub(crate) fn peek(&self, key: &str) -> Option<Hit> {
        self.front.get(key, &self.chain)
    }

    /// What a call about `source` wants.
    pub(crate) fn wanted(&self, source: &str, options: &ReadOptions) -> Result<Wanted, Error> {
        let own = self.chain.policies.of(source);
        let patched = options.policy != crate::PolicyPatch::default();
        let policy = if patched { Arc::new(own.patched(&options.policy)) } else { Arc::clone(own) };
        if let Some(problem) = policy.problem() {
            return Err(Error::Policy { problem });
        }
        let mut skip = Skip::default();
        for name in &options.skip {
            let tiers = &self.chain.tiers;
            let Some(at) = tiers.iter().position(|tier| tier.name() == &**name) else {
                let known: Vec<&str> = tiers.iter().map(Guard::name).collect();
                let name = cache_core::Escaped(name).to_string();
                return Err(Error::UnknownTier { name, known: known.join(", ") });
            };
            skip = skip.with(at);
        }
        let ReadOptions { mode, allow_stale, urgency, spares_memory, .. } = *options;
        // Without another tier it would be nowhere.
        let spares_memory = spares_memory && self.chain.waits_to_store();
        let slots = options.slots.clone();
        Ok(Wanted { policy, patched, skip, mode, allow_stale, urgency, slots, spares_memory })
    }

    /// What a call without options wants.
    pub(crate) fn usual(&self, source: &str) -> Wanted {
        let policy = Arc::clone(self.chain.policies.of(source));
        let skip = Skip::default();
        Wanted {
            policy,
            patched: false,
            skip,
            mode: ReadMode::Normal,
            allow_stale: false,
            urgency: Urgency::Foreground,
            slots: None,
            spares_memory: false,
        }
    }

    /// Does `work` as a whole though its caller goes away, or does not poll it again while others
    /// wait for it: what does not end at once goes on in a task of its own.
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let under_way = self.tasks.token();
        self.open()?;
        let task = match self.tasks.begin(work).await {
            Begun::Done(done) => return Ok(done),
            Begun::GoesOn(task) => task,
        };
        drop(under_way);
        match task.await {
            Ok(Some(done)) => Ok(done),
            // Ended by closing.
            Ok(None) => Err(Error::Closed),
            // Aborted only when the runtime shuts down; a panic in a tier is its caller's.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_aborted) => Err(Error::Closed),
            },
        }
    }

    /// Looks through the tiers, sharing what another look is finding out just now. A look behind a
    /// hit is no part of a read, and counts none.
    pub(crate) async fn look(&self, keys: &[Key], wanted: &Wanted, behind: bool) -> Vec<Looked> {
        let skip = wanted.skip;
        let counts_leading = !behind && !wanted.peeks();
        let spared = if wanted.spares_memory { self.chain.with_leading(skip) } else { skip };
        let mut looks = self.look_past(keys, skip, spared, (counts_leading, behind)).await;
        if !wanted.patched {
            return looks;
        }
        // What ends a look is fresh by its source's policy; a call that wants a newer one finds it in
        // a tier below, if there.
        for at in 0..self.chain.tiers.len() {
            let too_old = |look: &Looked| {
                let fresh = look.as_ref().ok().and_then(|look| look.fresh.as_ref());
                fresh.is_some_and(|found| {
                    found.tier == at && !wanted.accepts(&found.entry, self.clock.now())
                })
            };
            let old = looks.iter().zip(keys).enumerate().filter(|(_, (look, _))| too_old(look));
            let (places, asked): (Vec<usize>, Vec<Key>) =
                old.map(|(place, (_, key))| (place, key.clone())).unzip();
            if asked.is_empty() {
                continue;
            }
            let past = (0..=at).fold(skip, Skip::with);
            let further = self.look_past(&asked, past, spared, (false, behind)).await;
            for (place, further) in places.into_iter().zip(further) {
                let as_of = |look: &Looked| Some(look.as_ref().ok()?.best()?.entry.as_of());
                if further.is_err() || as_of(&further) > as_of(&looks[place]) {
                    looks[place] = further;
                }
            }
        }
        looks
    }

    /// Looks through the tiers that are not in `past`, and copies what it finds into those above
    /// that are not in `spared`. Says whether what leading tiers answer, and what is shared, counts.
    async fn look_past(
        &self,
        keys: &[Key],
        past: Skip,
        spared: Skip,
        (counts_leading, behind): (bool, bool),
    ) -> Vec<Looked> {
        let mut looks: Vec<Option<Looked>> = keys.iter().map(|_| None).collect();
        loop {
            let open = looks.iter().zip(keys).enumerate().filter(|(_, (look, _))| look.is_none());
            let (places, asked): (Vec<usize>, Vec<Key>) =
                open.map(|(place, (_, key))| (place, key.clone())).unzip();
            if asked.is_empty() {
                return looks.into_iter().flatten().collect();
            }
            let current = |key: &Key, flight: &flight::Flight<Looked, ()>| {
                flight.kind == past.bits() && !self.chain.may_be_barred(key, flight.started)
            };
            let parts = self.looks.join(asked, past.bits(), current, || self.chain.next_stamp());
            let (mut leaders, mut followers) = (Vec::new(), Vec::new());
            for (place, part) in places.into_iter().zip(parts) {
                match part {
                    Part::Lead(leader, _) => leaders.push((place, leader)),
                    Part::Follow(follower) => followers.push((place, follower)),
                }
            }
            if !behind {
                self.chain.counters.joined.add(followers.len() as u64);
            }
            // Its own work first: nobody waits for another before others can go on.
            if !leaders.is_empty() {
                let keys: Vec<Key> = leaders.iter().map(|(_, lead)| lead.key().clone()).collect();
                let found = self.chain.look_up(&keys, past, counts_leading).await;
                for ((place, leader), look) in leaders.into_iter().zip(found) {
                    if let Ok(look) = &look {
                        // Not what a write has made out of date since it was looked for.
                        let key = leader.key();
                        let promote = || self.chain.promote(key, look, spared, &self.tasks);
                        leader.if_current(promote);
                    }
                    looks[place] = Some(look.clone());
                    leader.land(look);
                }
            }
            for (place, mut follower) in followers {
                // Lost if who looked has gone: then somebody else must look.
                looks[place] = follower.outcome().await;
            }
        }
    }

    /// Lets who asks from now on see nothing of what began before a change.
    pub(crate) fn detach(&self, selects: impl Fn(&Key) -> bool) {
        self.flights.detach_where(&selects);
        self.looks.detach_where(&selects);
    }

    pub(crate) async fn store(
        self: &Arc<Self>,
        entries: Vec<(Key, Bytes, SetOptions)>,
    ) -> Vec<Vec<(&'static str, PutReport)>> {
        let as_of = self.chain.latest_stamp().await;
        let now = self.clock.now();
        let mut reports: Vec<_> = entries.iter().map(|_| Vec::new()).collect();
        let (mut places, mut stored) = (Vec::new(), Vec::new());
        let (mut later_places, mut later) = (Vec::new(), Vec::new());
        for (place, (key, value, options)) in entries.into_iter().enumerate() {
            let policy = self.chain.policies.of(key.source());
            let SetOptions { ttl, stale_for, tags, content_type, version, queued } = options;
            let lifetime = Lifetime { ttl, stale_for, ..Lifetime::default() };
            let Some(limits) = policy.limits(now, &lifetime, seed(&key, as_of)) else {
                self.loading.note(&key, as_of);
                reports[place] = self.chain.forget(&key, as_of).await;
                self.detach_key(&key);
                continue;
            };
            let version = version.map(Into::into).or_else(|| self.chain.versions.of(key.source()));
            let entry = Entry::builder(value, as_of)
                .loaded_at(now)
                .expires_at(limits.expires_at)
                .stale_until(limits.stale_until)
                .own_lifetime(ttl.is_some())
                .version(version.as_deref())
                .content_type(content_type)
                .tags(tags)
                .build();
            let entry = self.chain.shared(entry);
            // It may be said to be of another version than the one in force.
            let in_force = self.chain.versions.of(key.source());
            let entry = policy.adjusted(entry, in_force.as_deref());
            self.loading.note(&key, as_of);
            if queued {
                later.push((key, entry));
                later_places.push(place);
            } else {
                places.push(place);
                stored.push((key, entry));
            }
        }
        for (place, report) in later_places.into_iter().zip(self.store_later(later).await) {
            reports[place] = report;
        }
        // Memory has it before slower tiers do: who has seen it there must not join an older load.
        for (key, _) in &stored {
            self.detach_key(key);
        }
        for (place, report) in places.into_iter().zip(self.chain.put(&stored).await) {
            reports[place] = report;
        }
        self.note_stored(&stored);
        // Whoever asks must not be given what an earlier look or load brings.
        for (key, entry) in &stored {
            self.detach_key(key);
            self.chain.refill_now(key, entry);
            self.throttle.worked(key);
        }
        reports
    }

    /// Stores in memory, and queues for the tiers that have to wait; waits only while too much is
    /// queued.
    async fn store_later(
        self: &Arc<Self>,
        entries: Vec<(Key, Entry)>,
    ) -> Vec<Vec<(&'static str, PutReport)>> {
        if entries.is_empty() {
            return Vec::new();
        }
        let permits = u32::try_from(entries.len()).unwrap_or(u32::MAX).min(MOST_QUEUED);
        // Closed never.
        let permit = Arc::clone(&self.queue).acquire_many_owned(permits).await;
        let reports = entries.iter().map(|(key, entry)| {
            self.detach_key(key);
            let report = self.chain.tiers.iter().map(|tier| {
                let done = tier.put_now(key, entry);
                (tier.name(), done.map_or(PutReport::Queued, PutReport::Done))
            });
            report.collect()
        });
        let reports = reports.collect();
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            inner.chain.put_waiting(&entries).await;
            inner.note_stored(&entries);
            for (key, entry) in &entries {
                inner.detach_key(key);
                inner.chain.refill_now(key, entry);
                inner.throttle.worked(key);
            }
            drop(permit);
        });
        reports
    }

    pub(crate) fn detach_key(&self, key: &Key) {
        self.flights.detach(key);
        self.looks.detach(key);
    }

    /// What a `set` must not pass over in silence.
    pub(crate) fn refusal(
        &self,
        key: &Key,
        reports: &[(&'static str, PutReport)],
    ) -> Option<Error> {
        reports.iter().zip(&self.chain.tiers).find_map(|((name, report), tier)| {
            let reason = match report {
                PutReport::Failed(error) if self.chain.strict => {
                    return Some(Error::Tier(Arc::clone(error)));
                }
                PutReport::Failed(error) => cache_core::Chained(&**error).to_string(),
                PutReport::Done(cache_core::PutOutcome::Refused { reason }) => reason.clone(),
                PutReport::Done(_) | PutReport::Queued | PutReport::NotStored => return None,
            };
            let key = key.clone();
            tier.is_required().then_some(Error::NotStored { key, tier: name, reason })
        })
    }

    /// Sets barriers with one stamp: in this process at once, and in all tiers.
    pub(crate) async fn bar(
        &self,
        barriers: impl FnOnce(Stamp) -> Vec<Barrier>,
    ) -> Result<Removed, Arc<TierError>> {
        let barriers = barriers(self.chain.latest_stamp().await);
        for barrier in &barriers {
            self.chain.remember(barrier);
            // One that began after the stamp was issued may have read what is covered.
            self.detach(|key| barrier.selector.may_select(key));
        }
        self.chain.bar(&barriers).await
    }

    /// Makes entries of the source that have another version stale, if the version is new.
    pub(crate) async fn put_version_in_force(
        &self,
        source: &str,
        version: &str,
        since: Stamp,
    ) -> Result<Removed, Arc<TierError>> {
        // Who is told that a version is in force relies on its barrier being set here.
        let order = self.version_order.lock().await;
        let Some(barrier) = self.begin_version(source, version, since).await else {
            return Ok(Removed::default());
        };
        let leading = self.chain.bar_leading(&barrier).await;
        drop(order);
        self.chain.bar_others(leading, &barrier).await
    }

    /// Puts a version in force, if it is another one than before; the barrier that the tiers are to
    /// be given. Whoever calls it holds `version_order`.
    pub(crate) async fn begin_version(
        &self,
        source: &str,
        version: &str,
        since: Stamp,
    ) -> Option<Barrier> {
        if !self.chain.versions.set(source, version, since) {
            return None;
        }
        let selector = Selector::OtherVersion(source.into(), version.into());
        let barrier = Barrier::expire(selector, self.chain.latest_stamp().await);
        self.chain.remember(&barrier);
        self.detach(|key| barrier.selector.may_select(key));
        Some(barrier)
    }

    pub(crate) fn open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn origin(&self, source: &str) -> Result<Arc<dyn Origin>, Error> {
        self.origins.get(source).map(Arc::clone).ok_or_else(|| self.no_origin(source))
    }

    /// What stands between loads of a source and its origin, if anything does.
    pub(crate) fn asker(&self, source: &str) -> Option<Arc<Asker>> {
        self.askers.get(source).map(Arc::clone)
    }

    pub(crate) fn no_origin(&self, source: &str) -> Error {
        let mut known: Vec<&str> = self.origins.keys().map(String::as_str).collect();
        known.sort_unstable();
        let known = if known.is_empty() {
            "none has one; give it a `url` under `cache.sources`".to_owned()
        } else {
            format!("those that have one: {}", known.join(", "))
        };
        Error::NoOrigin { name: cache_core::Escaped(source).to_string(), known }
    }

    /// Counts one read and what it got.
    pub(crate) fn count(&self, key: &Key, hit: Option<&Hit>) {
        let tier = hit.and_then(|hit| {
            let tier = self.chain.tiers.iter().find(|tier| tier.by() == hit.by())?;
            self.front.log_hit(key.as_str(), hit);
            Some((hit, tier))
        });
        match tier {
            Some((hit, tier)) if hit.is_stale() => tier.counters.served_stale.add(1),
            Some((_, tier)) => tier.counters.served.add(1),
            None => self.chain.counters.misses.add(1),
        }
    }
}
