//! Flights: lower tiers, then the load, then storing. One key or many, all take the same way.

use std::{any::Any, future::Future, sync::Arc, time::Duration};

use cache_core::{Answer, Entry, Key, Loaded, OriginError, OriginErrorKind, Stamp, Tag, Timestamp};
use tokio::{task::JoinError, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Error, Hit, LoadContext, Policy, StaleReason, Urgency,
    chain::{Found, Look, Skip},
    flight::Flight,
    guard::Guard,
    inner::{Inner, Leader, Outcome, Wanted},
    landing::Fate,
    note::By,
    policy::{Lifetime, seed},
};

/// One key of a flight.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) leader: Leader,
    /// Tags that every value of the key gets.
    pub(crate) tags: Vec<Tag>,
    pub(crate) wanted: Wanted,
    /// What is fresh, and to be refreshed before it no longer is.
    pub(crate) ahead_of: Option<Hit>,
    /// Whether nobody waits for it: it is begun behind a hit.
    pub(crate) behind: bool,
}

/// A leg that is to be loaded.
pub(crate) struct Pending {
    pub(crate) key: Key,
    /// Gone when nobody waits any more.
    pub(crate) leader: Option<Leader>,
    tags: Vec<Tag>,
    pub(crate) wanted: Wanted,
    pub(crate) stored: Option<Entry>,
    /// The version in force when the load started.
    version: Option<Arc<str>>,
    /// Whether it was begun behind a hit.
    behind: bool,
    /// Whether something may be stored that was not seen.
    pub(crate) unsure: bool,
}

impl Pending {
    fn new(key: Key, leader: Option<Leader>, tags: Vec<Tag>, wanted: Wanted, behind: bool) -> Self {
        let unsure = wanted.skip != Skip::default();
        Self { key, leader, tags, wanted, stored: None, version: None, behind, unsure }
    }

    pub(crate) fn land(&mut self, outcome: Outcome) {
        if let Some(leader) = self.leader.take() {
            leader.land(outcome);
        }
    }
}

/// When a load ended, and what it brought.
type Ended = (Timestamp, Vec<Result<Loaded, Error>>);

impl Inner {
    /// Flies all legs together: what the tiers have lands at once, the rest is loaded by one call.
    pub(crate) async fn fly<L, Fut>(self: Arc<Self>, legs: Vec<Leg>, load: L)
    where
        L: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<Loaded, Error>>> + Send + 'static,
    {
        let mut pending = self.approach(legs).await;
        // Another flight may have taken the place of one: there is to be one load, the newer.
        pending.retain_mut(|one| !self.follow_newer(one));
        if pending.is_empty() {
            return;
        }
        let began = Instant::now();
        let unwanted = pending.iter().all(|one| one.wanted.policy.cancel_abandoned && !one.behind);
        let leases = self.lease(&mut pending, began, unwanted).await;
        if pending.is_empty() {
            return;
        }
        let as_of = self.chain.latest_stamp().await;
        // After the stamp: a version that is put in force from now on makes what is loaded stale,
        // and what was invalidated until now cannot be confirmed by a load that starts now.
        for one in &mut pending {
            one.version = self.chain.versions.of(one.key.source());
            one.stored.take_if(|entry| self.chain.is_barred(&one.key, entry));
        }
        let contexts = contexts(&pending, as_of);
        pending.iter().filter_map(|one| one.leader.as_ref()).for_each(Leader::begin_load);
        let mut load = self.begin(load, contexts);
        let _under_way = self.loading.begin(pending.iter().map(|one| one.key.clone()).collect());
        let results = loop {
            // The next whose time is up; what comes after that is still of use to who asks later.
            let awaited = pending.iter().filter(|one| one.leader.is_some());
            let limit = awaited.filter_map(|one| one.wanted.policy.hard_timeout).min();
            tokio::select! {
                biased;
                results = &mut load => break results,
                () = abandoned(&pending), if unwanted => {
                    tracing::debug!(keys = pending.len(), "nobody waits for the load; it ends");
                    if let Some(leases) = leases {
                        leases.release().await;
                    }
                    return;
                }
                () = elapsed(began, limit) => {
                    let late = |one: &&mut Pending| one.wanted.policy.hard_timeout == limit;
                    for one in pending.iter_mut().filter(late) {
                        let error = timed_out(&one.key, limit);
                        self.fail(one, error);
                    }
                }
            }
        };
        let ended = results.as_ref().map_or_else(|_| self.clock.now(), |(ended, _)| *ended);
        let loaded = by_key(&pending, results.map(|(_, loaded)| loaded));
        self.settle(pending, as_of, ended, loaded).await;
        if let Some(leases) = leases {
            leases.release().await;
        }
    }

    /// Starts a load in a task of its own: one that blocks its thread, or panics, is to harm only
    /// itself. Gives what it brings, and when it ended.
    fn begin<L, Fut>(&self, load: L, contexts: Vec<LoadContext>) -> AbortOnDropHandle<Ended>
    where
        L: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<Loaded, Error>>> + Send + 'static,
    {
        let (chain, clock) = (Arc::clone(&self.chain), Arc::clone(&self.clock));
        AbortOnDropHandle::new(tokio::spawn(async move {
            // Here: one that is stopped before it runs has not begun.
            chain.counters.loads.add(contexts.len() as u64);
            let loaded = load(contexts).await;
            (clock.now(), loaded)
        }))
    }

    /// Lands what the tiers have, or what cannot be loaded now; the rest is to be loaded.
    async fn approach(&self, legs: Vec<Leg>) -> Vec<Pending> {
        let mut looks = self.look_for(&legs).await.into_iter();
        let mut pending = Vec::with_capacity(legs.len());
        for leg in legs {
            let Leg { leader, tags, wanted, ahead_of, behind } = leg;
            let look = match looks.next() {
                Some(Ok(look)) => look,
                Some(Err(error)) => {
                    leader.land(Err((Error::Tier(error), StaleReason::LoadFailed)));
                    continue;
                }
                None => Look::default(),
            };
            let now = self.clock.now();
            let hit = |found: &Found| {
                let by = self.chain.tiers.get(found.tier).map_or(By::ORIGIN, Guard::by);
                Hit::new(found.entry.clone(), by, now)
            };
            let is_newer = |entry: &Entry| match &ahead_of {
                Some(old) => {
                    entry.as_of() > old.entry().as_of() && now < wanted.policy.refresh_at(entry)
                }
                None => wanted.accepts(entry, now),
            };
            if let Some(fresh) = &look.fresh
                && !wanted.is_forced()
                && is_newer(&fresh.entry)
            {
                let (key, hit) = (leader.key().clone(), hit(fresh));
                if ahead_of.is_some() {
                    // Memory was left out of the look.
                    leader.if_current(|| self.chain.fill_now(&key, &fresh.entry));
                }
                leader.land(Ok(hit.clone()));
                if !behind && now >= wanted.policy.refresh_at(hit.entry()) {
                    pending.extend(self.refresh(hit, key, tags, wanted));
                }
                continue;
            }
            let key = leader.key().clone();
            // Who comes meanwhile may be content with what there is.
            let stored = look.best().map(hit).or(ahead_of);
            let stored = stored.map(|hit| {
                leader.offer(hit.clone());
                hit.into_entry()
            });
            let served = |error: &Error| {
                let taken = |entry: &Entry| wanted.takes_after(error, entry, now);
                !wanted.is_forced() && stored.as_ref().is_some_and(taken)
            };
            let pause = self.throttle.of_key(&key, now).filter(served);
            let pause = pause.or_else(|| self.throttle.of_source(key.source(), now));
            if let Some(error) = pause {
                leader.land(Err((error, StaleReason::Throttled)));
                continue;
            }
            let mut one = Pending::new(key, Some(leader), tags, wanted, behind);
            one.unsure |= look.unsure;
            one.stored = stored;
            pending.push(one);
        }
        pending
    }

    /// Leaves a key to a newer flight that has taken the place of this one, if there is one; whether
    /// there is.
    fn follow_newer(&self, one: &mut Pending) -> bool {
        let kind = one.wanted.kind();
        let joinable = |key: &Key, flight: &Flight<Outcome, Hit>| self.joinable(key, flight, kind);
        let displaced = one.leader.as_ref().is_some_and(|leader| !leader.is_current());
        if !displaced {
            return false;
        }
        let Some(mut follower) = self.flights.follow(&one.key, joinable) else { return false };
        let leader = one.leader.take();
        self.tasks.spawn(async move {
            if let (Some(leader), Some(outcome)) = (leader, follower.outcome().await) {
                leader.land(outcome);
            }
        });
        true
    }

    /// The leg that refreshes what has just been served, unless somebody else does that.
    fn refresh(&self, hit: Hit, key: Key, tags: Vec<Tag>, wanted: Wanted) -> Option<Pending> {
        let stored = hit.entry().clone();
        if self.throttle.of_source(key.source(), self.clock.now()).is_some() {
            return None;
        }
        let leader = self.lead(&key, &wanted)?;
        // Who comes meanwhile need not wait for it.
        leader.offer(hit);
        let leader = Some(leader);
        self.chain.counters.refreshes.add(1);
        // Hits in memory need not try for a while.
        let next = self.clock.now().saturating_add(wanted.policy.throttle);
        stored.note_refresh_at(next);
        Some(Pending { stored: Some(stored), ..Pending::new(key, leader, tags, wanted, true) })
    }

    /// What the tiers have, leg by leg.
    async fn look_for(&self, legs: &[Leg]) -> Vec<Result<Look, Arc<cache_core::Error>>> {
        let keys = |ahead: bool| -> Vec<Key> {
            let legs = legs.iter().filter(|leg| leg.ahead_of.is_some() == ahead);
            legs.map(|leg| leg.leader.key().clone()).collect()
        };
        // The options of a call are the same for all its keys.
        let Some(Leg { wanted, .. }) = legs.first() else { return Vec::new() };
        let behind = legs.iter().all(|leg| leg.behind);
        let mut usual = self.look(&keys(false), wanted, behind).await.into_iter();
        let ahead = keys(true);
        // Who refreshes ahead knows what memory has.
        let below = self.chain.look_up(&ahead, self.chain.all_leading(), false).await;
        let mut below = below.into_iter();
        let look = |leg: &Leg| if leg.ahead_of.is_some() { below.next() } else { usual.next() };
        legs.iter().filter_map(look).collect()
    }

    /// Lands a failure, and takes note of it.
    pub(crate) fn fail(&self, one: &mut Pending, error: Error) {
        self.chain.counters.load_failures.add(1);
        let now = self.clock.now();
        let taken = |entry: &Entry| one.wanted.takes_after(&error, entry, now);
        if one.stored.as_ref().is_some_and(taken) {
            self.throttle.failed(&one.key, &error, one.wanted.policy.throttle, now);
        }
        self.throttle.heed(one.key.source(), &error, now);
        one.land(Err((error, StaleReason::LoadFailed)));
    }

    /// Turns the answers of a load into entries, and stores and lands them.
    async fn settle(
        &self,
        pending: Vec<Pending>,
        as_of: Stamp,
        ended: Timestamp,
        loaded: Vec<Result<Loaded, Error>>,
    ) {
        let mut landing = Vec::with_capacity(pending.len());
        for (mut one, loaded) in pending.into_iter().zip(loaded) {
            let loaded = loaded.or_else(|error| absence(error, &one.wanted.policy));
            match loaded.and_then(|loaded| self.entry(&one, loaded, as_of, ended)) {
                Ok((entry, fate, revalidated, learned)) => {
                    self.throttle.worked(&one.key);
                    if let Some(version) = learned {
                        self.learn(one.key.source(), &version, as_of).await;
                    }
                    // A slow load may bring a version that is no longer in force.
                    let in_force = self.chain.versions.of(one.key.source());
                    let entry = one.wanted.policy.adjusted(entry, in_force.as_deref());
                    landing.push((one, entry, fate, revalidated));
                }
                // Who waited has been told that it takes too long.
                Err(error) if one.leader.is_none() => {
                    self.throttle.heed(one.key.source(), &error, self.clock.now());
                    tracing::debug!(key = %one.key, %error, "a load that took too long has failed");
                }
                Err(error) => self.fail(&mut one, error),
            }
        }
        self.store_and_land(landing).await;
    }

    /// Puts a version in force that a load has brought; slow tiers are told behind it.
    async fn learn(&self, source: &str, version: &str, as_of: Stamp) {
        let order = self.version_order.lock().await;
        let Some(barrier) = self.begin_version(source, version, as_of).await else { return };
        self.chain.bar_leading(&barrier).await;
        drop(order);
        let chain = Arc::clone(&self.chain);
        self.tasks.spawn(async move {
            if chain.bar(&[barrier]).await.is_err() {
                tracing::debug!("a tier has not been told of a version yet");
            }
        });
    }

    /// The entry of an answer, what is to become of it, whether it is the stored one revalidated,
    /// and the version that the origin says its source has.
    fn entry(
        &self,
        one: &Pending,
        loaded: Loaded,
        as_of: Stamp,
        ended: Timestamp,
    ) -> Result<(Entry, Fate, bool, Option<String>), Error> {
        let Pending { key, tags, wanted: Wanted { policy, .. }, stored, .. } = one;
        let source = key.source();
        let learned = loaded.version.clone();
        let (value, old) = match loaded.answer {
            Answer::Value(value) => (Some(value), None),
            Answer::Absent => (None, None),
            Answer::NotModified => match stored {
                Some(old) if old.is_absent() => (None, Some(old)),
                Some(old) => (Some(old.value().clone()), Some(old)),
                None => {
                    let message = "says that nothing has changed, but nothing is stored: only a \
                                   loader that was given a stored entry may say so";
                    return Err(OriginError::new(OriginErrorKind::Other, source, message).into());
                }
            },
        };
        let absent = value.is_none();
        let text = |new: Option<String>, of: fn(&Entry) -> Option<&str>| {
            new.or_else(|| old.and_then(of).map(str::to_owned))
        };
        let of_source = self.chain.policies.of(source);
        let version = loaded.version.or_else(|| Some(one.version.as_ref()?.to_string()));
        // From the end of the load: it may have waited long for its turn before it asked.
        let now = ended;
        let etag = text(loaded.etag, Entry::etag);
        let modified = text(loaded.source_last_modified, Entry::source_last_modified);
        let lifetime = Lifetime {
            absent,
            has_validator: etag.is_some() || modified.is_some(),
            ttl: loaded.ttl,
            stale_for: loaded.stale_for,
        };
        let limits = policy.limits(now, &lifetime, seed(key, as_of));
        let of_call = if absent {
            policy.negative_ttl != of_source.negative_ttl
        } else {
            policy.ttl != of_source.ttl
        };
        let own = loaded.ttl.is_some() || of_call;
        let old_tags = old.map(Entry::tags).unwrap_or_default();
        let entry = Entry::builder(value.unwrap_or_default(), as_of)
            .loaded_at(now)
            .absent(absent)
            .own_lifetime(own)
            .expires_at(limits.map_or(now, |limits| limits.expires_at))
            .stale_until(limits.map_or(now, |limits| limits.stale_until))
            .content_type(text(loaded.content_type, Entry::content_type))
            .etag(etag)
            .source_last_modified(modified)
            .version(text(version, Entry::version))
            .tags(tags.iter().chain(old_tags).cloned().chain(loaded.tags))
            .renews(old.map(Entry::as_of))
            .build();
        // What was invalidated while the origin was asked is not stored anew by its saying so.
        let barred = old.is_some_and(|old| self.chain.is_barred(key, old));
        let fate = match limits {
            _ if !key.is_storable() || !loaded.store || barred => Fate::Pass,
            None => Fate::Forget,
            Some(_) => Fate::Store,
        };
        Ok((entry, fate, old.is_some(), learned))
    }

    /// Loads for one caller alone: neither reads nor stores.
    pub(crate) async fn load_apart<L, Fut>(
        &self,
        asked: Vec<(Key, Wanted)>,
        load: L,
    ) -> Vec<Result<Hit, Error>>
    where
        L: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<Loaded, Error>>> + Send + 'static,
    {
        let as_of = self.chain.next_stamp();
        let now = self.clock.now();
        let mut answers: Vec<Option<Result<Hit, Error>>> = asked
            .iter()
            .map(|(key, _)| self.throttle.of_source(key.source(), now).map(Err))
            .collect();
        let open = asked.into_iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let pending = open.map(|((key, wanted), _)| {
            let version = self.chain.versions.of(key.source());
            Pending { version, ..Pending::new(key, None, Vec::new(), wanted, false) }
        });
        let pending: Vec<Pending> = pending.collect();
        let mut ended = now;
        let loaded = if pending.is_empty() {
            Vec::new()
        } else {
            let keys = pending.iter().map(|one| one.key.clone()).collect();
            let _under_way = self.loading.begin(keys);
            let contexts = contexts(&pending, as_of);
            let mut load = self.begin(load, contexts);
            let limit = hard_timeout(&pending);
            tokio::select! {
                biased;
                loaded = &mut load => {
                    ended = loaded.as_ref().map_or(ended, |(at, _)| *at);
                    by_key(&pending, loaded.map(|(_, loaded)| loaded))
                }
                () = elapsed(Instant::now(), limit) => {
                    pending.iter().map(|one| Err(timed_out(&one.key, limit))).collect()
                }
            }
        };
        let loaded = pending.iter().zip(loaded).map(|(one, loaded)| {
            let entry = loaded.and_then(|loaded| self.entry(one, loaded, as_of, ended));
            let (entry, ..) = entry.inspect_err(|error| {
                self.chain.counters.load_failures.add(1);
                self.throttle.heed(one.key.source(), error, self.clock.now());
            })?;
            Ok(Hit::new(entry, By::ORIGIN, self.clock.now()))
        });
        for (slot, answer) in answers.iter_mut().filter(|slot| slot.is_none()).zip(loaded) {
            *slot = Some(answer);
        }
        answers.into_iter().flatten().collect()
    }
}

fn contexts(pending: &[Pending], as_of: Stamp) -> Vec<LoadContext> {
    let context = |one: &Pending| LoadContext {
        key: one.key.clone(),
        as_of,
        stored: one.stored.clone(),
        policy: Arc::clone(&one.wanted.policy),
        urgency: if one.behind { Urgency::Background } else { one.wanted.urgency },
        slots: one.wanted.slots.clone(),
    };
    pending.iter().map(context).collect()
}

pub(crate) fn timed_out(key: &Key, limit: Option<Duration>) -> Error {
    Error::LoadTimedOut { key: key.clone(), limit: limit.unwrap_or_default() }
}

/// What a loader brought for each key, or why it brought nothing.
fn by_key(
    pending: &[Pending],
    results: Result<Vec<Result<Loaded, Error>>, JoinError>,
) -> Vec<Result<Loaded, Error>> {
    let keys = pending.iter().map(|one| &one.key);
    match results {
        Ok(results) => {
            let mut results = results.into_iter();
            keys.map(|key| results.next().unwrap_or_else(|| Err(no_answer(key)))).collect()
        }
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => {
                let message = message(&*panic);
                let panicked =
                    |key: &Key| Error::LoadPanicked { key: key.clone(), message: message.clone() };
                keys.map(|key| Err(panicked(key))).collect()
            }
            Err(_aborted) => keys.map(|key| Err(Error::LoadAborted { key: key.clone() })).collect(),
        },
    }
}

/// The longest that one of the keys may wait; `None` if one may for ever.
pub(crate) fn hard_timeout(pending: &[Pending]) -> Option<Duration> {
    let limits: Option<Vec<Duration>> =
        pending.iter().map(|one| one.wanted.policy.hard_timeout).collect();
    limits?.into_iter().max()
}

async fn elapsed(since: Instant, limit: Option<Duration>) {
    // One beyond the end of time is none.
    match limit.and_then(|limit| since.checked_add(limit)) {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn abandoned(pending: &[Pending]) {
    let leaders: Vec<&Leader> = pending.iter().filter_map(|one| one.leader.as_ref()).collect();
    Leader::all_abandoned(&leaders).await;
}

/// "Not found" is the answer "there is none", where that is stored.
fn absence(error: Error, policy: &Policy) -> Result<Loaded, Error> {
    match &error {
        Error::Origin(origin)
            if matches!(origin.kind(), OriginErrorKind::Status(404 | 410))
                && !policy.negative_ttl.is_zero() =>
        {
            Ok(Loaded::absent())
        }
        _ => Err(error),
    }
}

pub(crate) fn no_answer(key: &Key) -> Error {
    let message = format!("the loader brought no answer for `{key}`");
    OriginError::new(OriginErrorKind::Other, key.source(), message).into()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    cache_core::Escaped(text.unwrap_or("no message")).to_string()
}

/// Whether a hit is to start a refresh, which of those at a time this one does.
pub(crate) fn refresh_is_due(hit: &Hit, wanted: &Wanted) -> bool {
    let (entry, now) = (hit.entry(), hit.at());
    if hit.is_stale() || wanted.is_forced() {
        return false;
    }
    if wanted.patched {
        return now >= wanted.policy.refresh_at(entry);
    }
    // Put off by the throttle: if the refresh fails, the next hits are not to try again at once.
    let next = now.saturating_add(wanted.policy.throttle.max(Duration::from_secs(1)));
    entry.claim_refresh(now, next)
}
