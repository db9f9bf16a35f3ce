//! The reads of one call: each key once, however often it was asked for.

use std::{collections::HashMap, sync::Arc};

use cache_core::{Freshness, Key, Loaded, Tag};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    Error, Hit, LoadContext, ReadMode, ReadOptions, StaleReason,
    chain::Look,
    flight::{Flight, Part},
    fly::Leg,
    inner::{Inner, Leader, Outcome, PATIENT, Wanted},
};

/// The reads of one call.
#[derive(Debug)]
pub(crate) struct Reads {
    each: Vec<Read>,
    /// Which read answers each key that was asked for.
    order: Vec<usize>,
}

/// The read of one key.
#[derive(Debug)]
struct Read {
    key: Key,
    wanted: Wanted,
    answer: Option<Result<Hit, Error>>,
    /// Whether the answer has been counted for the first who asked.
    counted: bool,
}

impl Reads {
    pub(crate) fn new(inner: &Inner, keys: &[Key], options: &ReadOptions) -> Result<Self, Error> {
        let mut places: HashMap<&Key, usize> = HashMap::with_capacity(keys.len());
        let (mut each, mut order) =
            (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for key in keys {
            let next = each.len();
            let place = *places.entry(key).or_insert(next);
            if place == next {
                let wanted = inner.wanted(key.source(), options)?;
                each.push(Read { key: key.clone(), wanted, answer: None, counted: false });
            }
            order.push(place);
        }
        Ok(Self { each, order })
    }

    pub(crate) fn of_one(key: &Key, wanted: Wanted) -> Self {
        let read = Read { key: key.clone(), wanted, answer: None, counted: false };
        Self { each: vec![read], order: vec![0] }
    }

    /// Notes what memory had, which was counted when it was found.
    pub(crate) fn note_peeked(&mut self, hit: Hit) {
        if let Some(read) = self.each.first_mut() {
            read.answer = Some(Ok(hit));
            read.counted = true;
        }
    }

    /// Answers what memory can.
    pub(crate) fn peek(&mut self, inner: &Inner) {
        for read in &mut self.each {
            if !read.wanted.peeks() {
                continue;
            }
            if read.wanted.patched {
                // Fresh by its source's policy may be too old for the call.
                let look = inner.chain.get_leading(&read.key, read.wanted.skip, true);
                let hit = look.fresh.as_ref().and_then(|_| inner.hit_of(&look));
                read.answer = hit.filter(|hit| read.wanted.accepts(hit.entry(), hit.at())).map(Ok);
            } else if let Some(hit) = inner.peek(read.key.as_str()) {
                read.answer = Some(Ok(hit));
                read.counted = true;
            }
        }
    }

    fn open(&mut self) -> impl Iterator<Item = &mut Read> {
        self.each.iter_mut().filter(|read| read.answer.is_none())
    }

    fn is_answered(&self) -> bool {
        self.each.iter().all(|read| read.answer.is_some())
    }

    /// Each answer in the order of the keys, all counted; a key that nothing was found for failed.
    pub(crate) fn answers(self, inner: &Inner) -> Vec<Result<Hit, Error>> {
        let missing = |read: &Read| Err(inner.missing(&read.key));
        self.results(inner, |read| read.answer.clone().unwrap_or_else(|| missing(read)))
    }

    /// The answer of the only key.
    pub(crate) fn answer(self, inner: &Inner) -> Result<Hit, Error> {
        self.answers(inner).pop().unwrap_or(Err(Error::Closed))
    }

    /// The same for a call that is content with nothing.
    pub(crate) fn found(self, inner: &Inner) -> Vec<Result<Option<Hit>, Error>> {
        self.results(inner, |read| read.answer.clone().transpose())
    }

    fn results<T>(mut self, inner: &Inner, result: impl Fn(&Read) -> T) -> Vec<T> {
        let mut results = Vec::with_capacity(self.order.len());
        for place in self.order {
            let Some(read) = self.each.get_mut(place) else { continue };
            if !std::mem::take(&mut read.counted) {
                let hit = read.answer.as_ref().and_then(|answer| answer.as_ref().ok());
                inner.count(&read.key, hit);
            }
            results.push(result(read));
        }
        results
    }
}

impl Inner {
    /// Answers from the tiers what they can; with what is stale only if there is a reason to.
    pub(crate) async fn find(
        self: &Arc<Self>,
        reads: &mut Reads,
        stale: Option<StaleReason>,
    ) -> Result<(), Error> {
        if reads.is_answered() {
            return Ok(());
        }
        let (keys, wishes): (Vec<Key>, Vec<Wanted>) =
            reads.open().map(|read| (read.key.clone(), read.wanted.clone())).unzip();
        // The options of a call are the same for all its keys.
        let Some(wanted) = wishes.into_iter().next() else { return Ok(()) };
        let inner = Arc::clone(self);
        let look = async move { inner.look(&keys, &wanted, false).await };
        let looks = self.whole(look).await?;
        for (read, look) in reads.open().zip(looks) {
            read.answer = match look {
                Ok(look) => self.usable(&look, &read.wanted, stale).map(Ok),
                Err(error) => Some(Err(Error::Tier(error))),
            };
        }
        Ok(())
    }

    /// The best that a look found, as a hit.
    pub(crate) fn hit_of(&self, look: &Look) -> Option<Hit> {
        let found = look.best()?;
        let by = self.chain.tiers.get(found.tier)?.by();
        Some(Hit::new(found.entry.clone(), by, self.clock.now()))
    }

    /// What of a look answers a call that does not load.
    fn usable(&self, look: &Look, wanted: &Wanted, stale: Option<StaleReason>) -> Option<Hit> {
        let hit = self.hit_of(look)?;
        let (entry, now) = (hit.entry(), hit.at());
        // Time may have gone by since it was found.
        match entry.freshness(now) {
            Freshness::Dead => return None,
            Freshness::Fresh if wanted.accepts(entry, now) => return Some(hit),
            Freshness::Fresh | Freshness::Stale => {}
        }
        // Whoever cannot load takes what would serve while it loads, or if the load failed.
        let policy = &wanted.policy;
        let fallback = stale == Some(StaleReason::Offline)
            && (policy.allows_as_fallback(entry, now)
                || policy.allows_while_revalidating(entry, now));
        let reason = stale.filter(|_| wanted.allow_stale || fallback)?;
        Some(hit.stale(reason, None))
    }

    /// Removes what is dead under the keys that nothing was found for.
    pub(crate) async fn purge_dead(&self, reads: &mut Reads) {
        for read in reads.open() {
            if let Err(error) = self.chain.remove_dead(Some(&read.key)).await {
                read.answer = Some(Err(Error::Tier(error)));
            }
        }
    }

    pub(crate) fn missing(&self, key: &Key) -> Error {
        let key = key.clone();
        if self.offline { Error::Offline { key } } else { Error::NotCached { key } }
    }

    /// Answers all reads: from the tiers, from loads under way, and by one call of `load`, which
    /// also refreshes behind what is answered already.
    pub(crate) async fn answer<L, Fut>(
        self: &Arc<Self>,
        reads: &mut Reads,
        tags: Vec<Tag>,
        options: &ReadOptions,
        load: L,
    ) -> Result<(), Error>
    where
        L: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<Loaded, Error>>> + Send + 'static,
    {
        let since = Instant::now();
        self.watch_versions();
        // Taken before the look, so that closing either waits for this load or is seen by it.
        let under_way = self.tasks.token();
        if !reads.is_answered() {
            self.open()?;
        }
        if options.purge_expired {
            self.purge_dead(reads).await;
        }
        if options.mode == ReadMode::CachedOnly {
            let reason = if self.offline { StaleReason::Offline } else { StaleReason::Asked };
            return self.find(reads, Some(reason)).await;
        }
        if self.offline {
            // Who wants nothing but a load gets nothing.
            if !matches!(options.mode, ReadMode::Bypass | ReadMode::Refresh) {
                self.find(reads, Some(StaleReason::Offline)).await?;
            }
            return Ok(());
        }
        if options.mode == ReadMode::Bypass {
            return self.bypass(reads, load).await;
        }
        if self.is_loaded_otherwise(reads) {
            // One that leaves out other tiers does not know what these have.
            self.find(reads, None).await?;
        }
        let mut legs = self.refreshes(reads);
        let waits = self.join(reads, &mut legs);
        for leg in &mut legs {
            leg.tags.clone_from(&tags);
        }
        if !legs.is_empty() {
            self.tasks.begin(Arc::clone(self).fly(legs, load)).await;
        }
        drop(under_way);
        let answers = waits.into_iter().zip(reads.open()).map(async |(follower, read)| {
            let answer = self.wait(&read.key, follower, since, &read.wanted).await;
            read.answer = Some(answer);
        });
        join_all(answers).await;
        Ok(())
    }

    /// Answers what memory has that is stale, where that is enough, and tells what is to be
    /// refreshed behind what is answered.
    fn refreshes(self: &Arc<Self>, reads: &mut Reads) -> Vec<Leg> {
        let mut legs = Vec::new();
        for Read { key, wanted, answer, .. } in &mut reads.each {
            let ahead_of = match answer {
                Some(Ok(hit)) if crate::fly::refresh_is_due(hit, wanted) => Some(hit.clone()),
                Some(_) => continue,
                None => {
                    let Some((hit, behind)) = self.stale_now(key, wanted) else { continue };
                    *answer = Some(Ok(hit));
                    if !behind {
                        continue;
                    }
                    None
                }
            };
            if let Some(leader) = self.lead(key, wanted) {
                self.chain.counters.refreshes.add(1);
                let (tags, wanted) = (Vec::new(), wanted.clone());
                legs.push(Leg { leader, tags, wanted, ahead_of, behind: true });
            }
        }
        legs
    }

    /// Joins the flights of what is not answered, or starts them.
    fn join(
        self: &Arc<Self>,
        reads: &mut Reads,
        legs: &mut Vec<Leg>,
    ) -> Vec<crate::inner::Follower> {
        let (keys, wishes): (Vec<Key>, Vec<Wanted>) =
            reads.open().map(|read| (read.key.clone(), read.wanted.clone())).unzip();
        let kind = wishes.first().map_or(0, Wanted::kind);
        let joinable = |key: &Key, flight: &Flight<Outcome, Hit>| self.joinable(key, flight, kind);
        let parts = self.flights.join(keys, kind, joinable, || self.chain.next_stamp());
        let waits = parts.into_iter().zip(wishes).map(|(part, wanted)| match part {
            Part::Follow(follower) => {
                self.chain.counters.joined.add(1);
                follower
            }
            Part::Lead(leader, follower) => {
                // What memory has may be enough while slower tiers are asked.
                let look = self.chain.get_leading(leader.key(), wanted.skip, false);
                if let Some(hit) = self.hit_of(&look) {
                    leader.offer(hit);
                }
                let (tags, ahead_of) = (Vec::new(), None);
                legs.push(Leg { leader, tags, wanted, ahead_of, behind: false });
                follower
            }
        });
        waits.collect()
    }

    /// Loads for this call alone.
    async fn bypass<L, Fut>(self: &Arc<Self>, reads: &mut Reads, load: L) -> Result<(), Error>
    where
        L: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<Loaded, Error>>> + Send + 'static,
    {
        let asked = reads.open().map(|read| (read.key.clone(), read.wanted.clone())).collect();
        let inner = Arc::clone(self);
        let answers = self.whole(async move { inner.load_apart(asked, load).await }).await?;
        for (read, answer) in reads.open().zip(answers) {
            read.answer = Some(answer);
        }
        Ok(())
    }

    /// Whether who wants this `kind` of answer may join a flight.
    pub(crate) fn joinable(&self, key: &Key, flight: &Flight<Outcome, Hit>, kind: u64) -> bool {
        // Nobody else waits for what somebody may keep waiting.
        let is_others = flight.kind & PATIENT != 0 && kind & PATIENT == 0;
        // Who leaves a tier out is not content with a look into it, nor who forces a load with any.
        !is_others
            && (kind & !PATIENT & !flight.kind == 0 || flight.is_loading())
            && !self.chain.may_be_barred(key, flight.started)
    }

    /// Whether one of the keys is being loaded by a call that leaves out other tiers.
    fn is_loaded_otherwise(&self, reads: &mut Reads) -> bool {
        reads.open().any(|Read { key, wanted, .. }| {
            let same = 1 | PATIENT;
            let other = |flight: &Flight<Outcome, Hit>| flight.kind | same != wanted.kind() | same;
            !wanted.is_forced() && self.flights.is_under_way(key, other)
        })
    }

    /// The right to refresh a key, unless somebody is about to.
    pub(crate) fn lead(&self, key: &Key, wanted: &Wanted) -> Option<Leader> {
        let now = self.clock.now();
        let paused = || {
            self.throttle.of_key(key, now).or_else(|| self.throttle.of_source(key.source(), now))
        };
        if self.open().is_err() || paused().is_some() {
            return None;
        }
        let joinable = |key: &Key, flight: &Flight<Outcome, Hit>| self.joinable(key, flight, 0);
        self.flights.lead(key, wanted.kind(), joinable, || self.chain.next_stamp())
    }

    /// What memory has that may be served at once though it is stale, or has come meanwhile; and
    /// whether it is to be refreshed behind.
    fn stale_now(&self, key: &Key, wanted: &Wanted) -> Option<(Hit, bool)> {
        // Who leaves out a tier looks as anybody else does.
        if !wanted.peeks() {
            return None;
        }
        let look = self.chain.get_leading(key, wanted.skip, false);
        let (found, hit) = (look.best()?, self.hit_of(&look)?);
        let now = hit.at();
        if look.fresh.is_some() && wanted.accepts(&found.entry, now) {
            return Some((hit, false));
        }
        let stale = wanted.policy.allows_while_revalidating(&found.entry, now);
        stale.then(|| (hit.stale(StaleReason::Revalidating, None), true))
    }
}
