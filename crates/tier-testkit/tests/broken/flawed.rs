//! A tier that is sound but for one flaw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use cache_core::{
    Barrier, Capability, Clock, Effect, Entry, Error, ErrorKind, Filter, Freshness, Inspect, Key,
    Op, PutOutcome, Result, Selector, SourceUsage, Stamp, Stamped, Summary, SyncTier, Tag, Tier,
    Timestamp, Usage, Validation, Verdict,
};
use tier_testkit::ManualClock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    // Entries.
    LosesTags,
    LosesEmptyTexts,
    LosesAbsent,
    LosesOwnLifetime,
    LosesExpired,
    LosesLoadedAt,
    ServesDead,
    HidesStale,
    LastWriteWins,
    EqualStampReplaces,
    EqualStampNeverReplaces,
    OlderReplacesTheDead,
    CaseInsensitiveKeys,
    StoresUnstorableKeys,
    RemoveSaysNothing,
    RemoveIsABarrier,
    FailsOnAMiss,
    // Batches.
    SortsBatches,
    ReversesOutcomes,
    RemovesOnlyTheFirst,
    BatchesSkipBarriers,
    // Barriers.
    ForgetsBarriers,
    RemembersOnlyTheLast,
    OneEffectPerSelector,
    LateBarrierReplaces,
    BarsEverythingSelected,
    ExcludesTheInstant,
    IgnoresExpire,
    ExpireForgets,
    ExpireCutsLimits,
    ExpireOnlyWhatIsThere,
    ExpireAfterForgetRevives,
    PutAgainRefreshes,
    CountsAgain,
    PrefixByCharacters,
    PrefixTagIgnoresTheTag,
    AnyVersionIsNone,
    OtherVersionOfAnySource,
    TagsAddUp,
    // Concurrency.
    ComparesTooEarly,
    JudgesTooEarly,
    WritesInTwoSteps,
    BarsInTwoSteps,
    // Other sides.
    SyncSideServesDead,
    ScansByCharacters,
    ScansUnsorted,
    ScansWithoutAfter,
    SummariesAreFresh,
    UsageCountsWrites,
    RemovesTheLiving,
    StampsOfEntriesOnly,
    // The end.
    PanicsWhenClosed,
    ReturnsAnythingWhenClosed,
}

#[derive(Debug)]
pub(crate) struct FlawedTier {
    flaw: Flaw,
    clock: Arc<ManualClock>,
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    barriers: Vec<Barrier>,
    tags: BTreeMap<Key, Vec<Tag>>,
    written: u64,
}

/// Lets another future run.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

impl FlawedTier {
    pub(crate) fn new(flaw: Flaw, clock: Arc<ManualClock>) -> Self {
        Self { flaw, clock, closed: AtomicBool::new(false), state: Mutex::default() }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let closed = self.closed.load(Ordering::SeqCst);
        assert!(!(closed && self.has(Flaw::PanicsWhenClosed)), "used after it was closed");
        self.state.lock().unwrap()
    }

    fn key(&self, key: &Key) -> Key {
        if self.has(Flaw::CaseInsensitiveKeys) {
            Key::new(key.as_str().to_lowercase())
        } else {
            key.clone()
        }
    }

    fn selects(&self, state: &State, barrier: &Barrier, key: &Key, entry: &Entry) -> bool {
        let by_characters = |prefix: &str| key.as_str().starts_with(prefix);
        match &barrier.selector {
            Selector::Prefix(prefix) if self.has(Flaw::PrefixByCharacters) => by_characters(prefix),
            Selector::PrefixTag(prefix, _) if self.has(Flaw::PrefixTagIgnoresTheTag) => {
                key.is_below(prefix)
            }
            Selector::OtherVersion(..) if self.has(Flaw::AnyVersionIsNone) => {
                entry.version().is_some() && barrier.selector.selects(key, entry)
            }
            Selector::OtherVersion(_, version) if self.has(Flaw::OtherVersionOfAnySource) => {
                entry.version() != Some(version)
            }
            Selector::Tag(tag) if self.has(Flaw::TagsAddUp) => {
                let earlier = state.tags.get(key).is_some_and(|tags| tags.contains(tag));
                earlier || entry.tags().contains(tag)
            }
            selector => selector.selects(key, entry),
        }
    }

    fn covers(&self, state: &State, barrier: &Barrier, key: &Key, entry: &Entry) -> bool {
        let in_time = match self.flaw {
            Flaw::ExcludesTheInstant => entry.as_of() < barrier.stamp,
            _ => entry.as_of() <= barrier.stamp,
        };
        in_time && self.selects(state, barrier, key, entry)
    }

    fn judge(&self, state: &State, key: &Key, entry: &Entry) -> Verdict {
        let mut covering = state.barriers.iter().filter(|b| self.covers(state, b, key, entry));
        let verdict = |barrier: &Barrier| match barrier.effect {
            Effect::Forget => Verdict::Barred,
            Effect::Expire => Verdict::Expired,
        };
        if self.has(Flaw::ExpireAfterForgetRevives) {
            return covering.next_back().map_or(Verdict::Passes, verdict);
        }
        covering.map(verdict).fold(Verdict::Passes, |worst, next| match (worst, next) {
            (Verdict::Barred, _) | (_, Verdict::Barred) => Verdict::Barred,
            (Verdict::Expired, _) | (_, Verdict::Expired) => Verdict::Expired,
            _ => Verdict::Passes,
        })
    }

    /// What of an entry is stored.
    fn keeps(&self, entry: &Entry) -> Entry {
        let builder = entry.to_builder();
        match self.flaw {
            Flaw::LosesTags => builder.tags([]),
            Flaw::LosesEmptyTexts => builder.etag(entry.etag().filter(|text| !text.is_empty())),
            Flaw::LosesAbsent => builder.absent(false),
            Flaw::LosesOwnLifetime => builder.own_lifetime(false),
            Flaw::LosesExpired => builder.expired(false),
            Flaw::LosesLoadedAt => builder.loaded_at(entry.as_of().instant()),
            _ => builder,
        }
        .build()
    }

    fn find(&self, key: &Key) -> Option<Entry> {
        let mut found = self.state().entries.get(&self.key(key)).cloned();
        if self.closed.load(Ordering::SeqCst) && self.has(Flaw::ReturnsAnythingWhenClosed) {
            found = found.map(|entry| Entry::builder("anything", entry.as_of()).build());
        }
        found.filter(|entry| match entry.freshness(self.clock.now()) {
            Freshness::Fresh => true,
            Freshness::Stale => !self.has(Flaw::HidesStale),
            Freshness::Dead => self.has(Flaw::ServesDead),
        })
    }

    fn stays(&self, stored: &Entry, entry: &Entry) -> bool {
        let dead = stored.freshness(self.clock.now()) == Freshness::Dead;
        match self.flaw {
            Flaw::LastWriteWins => false,
            Flaw::EqualStampReplaces => stored.as_of() > entry.as_of(),
            Flaw::EqualStampNeverReplaces => stored.as_of() >= entry.as_of(),
            Flaw::OlderReplacesTheDead => !dead && stored.as_of() >= entry.as_of(),
            Flaw::PutAgainRefreshes if stored.is_expired() => stored.as_of() > entry.as_of(),
            _ => stored.as_of() > entry.as_of() || stored.as_of() == entry.as_of() && !dead,
        }
    }

    async fn store(&self, key: &Key, entry: &Entry, judged: bool) -> PutOutcome {
        if !key.is_storable() && !self.has(Flaw::StoresUnstorableKeys) {
            return PutOutcome::Refused { reason: "its key".to_owned() };
        }
        let name = self.key(key);
        let verdict = |state: &State| match self.judge(state, key, entry) {
            _ if !judged => Verdict::Passes,
            Verdict::Expired if self.has(Flaw::ExpireOnlyWhatIsThere) => Verdict::Passes,
            // It refreshes what it finds stale, even with a copy of the same load.
            Verdict::Expired if self.has(Flaw::PutAgainRefreshes) => {
                let same = |stored: &Entry| stored.as_of() == entry.as_of();
                let again = state.entries.get(&name).is_some_and(same);
                if again { Verdict::Passes } else { Verdict::Expired }
            }
            verdict => verdict,
        };
        let superseded = |state: &State| {
            state.entries.get(&name).is_some_and(|stored| self.stays(stored, entry))
        };
        let (mut judgement, mut stays) = {
            let state = self.state();
            (verdict(&state), superseded(&state))
        };
        pause().await;
        if !self.has(Flaw::JudgesTooEarly) {
            judgement = verdict(&self.state());
        }
        if !self.has(Flaw::ComparesTooEarly) {
            stays = superseded(&self.state());
        }
        if judgement == Verdict::Barred {
            return PutOutcome::Barred;
        }
        if stays {
            return PutOutcome::Superseded;
        }
        if self.has(Flaw::WritesInTwoSteps) {
            self.state().entries.remove(&name);
            pause().await;
        }
        let kept = self.keeps(entry);
        let mut state = self.state();
        state.written += 1;
        state.tags.entry(key.clone()).or_default().extend(entry.tags().iter().cloned());
        let expired = judgement == Verdict::Expired;
        state.entries.insert(name, if expired { kept.to_expired() } else { kept });
        PutOutcome::Stored
    }

    fn take(&self, key: &Key) -> bool {
        let mut state = self.state();
        let removed = state.entries.remove(&self.key(key));
        if let (Some(removed), Flaw::RemoveIsABarrier) = (&removed, self.flaw) {
            let stamp = Stamp::from_packed(removed.as_of().packed() + 9);
            state.barriers.push(Barrier::forget(Selector::Key(key.clone()), stamp));
        }
        removed.is_some() && !self.has(Flaw::RemoveSaysNothing)
    }

    fn remember(&self, barrier: &Barrier) {
        let mut state = self.state();
        match self.flaw {
            Flaw::ForgetsBarriers => return,
            Flaw::RemembersOnlyTheLast => state.barriers.clear(),
            Flaw::OneEffectPerSelector => state.barriers.retain(|known| {
                known.selector != barrier.selector || known.effect == barrier.effect
            }),
            Flaw::LateBarrierReplaces => state.barriers.retain(|known| {
                known.selector != barrier.selector || known.effect != barrier.effect
            }),
            _ => {}
        }
        state.barriers.push(barrier.clone());
    }

    fn carry_out(&self, barrier: &Barrier) -> u64 {
        let mut state = self.state();
        let in_time = |entry: &Entry| match self.flaw {
            Flaw::BarsEverythingSelected => true,
            Flaw::ExcludesTheInstant => entry.as_of() < barrier.stamp,
            _ => entry.as_of() <= barrier.stamp,
        };
        let found = state
            .entries
            .iter()
            .filter(|(key, entry)| in_time(entry) && self.selects(&state, barrier, key, entry));
        let keys: Vec<Key> = found.map(|(key, _)| key.clone()).collect();
        let mut changed = 0;
        for key in keys {
            let entry = &state.entries[&key];
            let expired = match self.flaw {
                Flaw::ExpireCutsLimits => {
                    entry.to_builder().expires_at(self.clock.now()).expired(true).build()
                }
                _ => entry.to_expired(),
            };
            let was = entry.is_expired();
            if barrier.effect == Effect::Forget || self.has(Flaw::ExpireForgets) {
                changed += 1;
                state.entries.remove(&key);
            } else if !was || self.has(Flaw::CountsAgain) {
                changed += 1;
                state.entries.insert(key, expired);
            }
        }
        changed
    }
}

#[async_trait]
impl Tier for FlawedTier {
    fn name(&self) -> &'static str {
        "flawed"
    }

    fn capability(&self) -> Capability {
        Capability::LOCAL
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let found = self.find(key);
        if found.is_none() && self.has(Flaw::FailsOnAMiss) {
            return Err(Error::new(ErrorKind::Unavailable, Op::Get, "flawed").with_key(key));
        }
        Ok(found)
    }

    async fn put(&self, key: &Key, entry: &Entry) -> Result<PutOutcome> {
        Ok(self.store(key, entry, true).await)
    }

    async fn remove(&self, key: &Key) -> Result<bool> {
        Ok(self.take(key))
    }

    async fn bar(&self, barrier: &Barrier) -> Result<u64> {
        if barrier.effect == Effect::Expire && self.has(Flaw::IgnoresExpire) {
            return Ok(0);
        }
        if self.has(Flaw::BarsInTwoSteps) {
            let before = std::mem::take(&mut self.state().entries);
            pause().await;
            let mut state = self.state();
            for (key, entry) in before {
                state.entries.entry(key).or_insert(entry);
            }
        }
        self.remember(barrier);
        Ok(self.carry_out(barrier))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let mut keys = keys.to_vec();
        if self.has(Flaw::SortsBatches) {
            keys.sort();
        }
        Ok(keys.iter().map(|key| self.find(key)).collect())
    }

    async fn put_many(&self, entries: &[(Key, Entry)]) -> Result<Vec<PutOutcome>> {
        let mut outcomes = Vec::new();
        for (key, entry) in entries {
            outcomes.push(self.store(key, entry, !self.has(Flaw::BatchesSkipBarriers)).await);
        }
        if self.has(Flaw::ReversesOutcomes) {
            outcomes.reverse();
        }
        Ok(outcomes)
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let first = if self.has(Flaw::RemovesOnlyTheFirst) { 1 } else { keys.len() };
        let mut keys = keys[..first.min(keys.len())].to_vec();
        if self.has(Flaw::RemovesOnlyTheFirst) {
            keys.retain(|key| !key.as_str().ends_with('1'));
        }
        Ok(keys.iter().map(|key| u64::from(self.take(key))).sum())
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn as_sync(&self) -> Option<&dyn SyncTier> {
        self.has(Flaw::SyncSideServesDead).then_some(self)
    }

    fn as_stamped(&self) -> Option<&dyn Stamped> {
        Some(self)
    }

    fn as_inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

impl SyncTier for FlawedTier {
    fn get_now(&self, key: &str, _now: Timestamp) -> Option<Entry> {
        self.state().entries.get(key).cloned()
    }

    fn put_now(&self, _key: &Key, _entry: &Entry) -> PutOutcome {
        PutOutcome::Stored
    }

    fn bar_now(&self, _barrier: &Barrier) -> u64 {
        0
    }

    fn give_up_older(&self, _key: &Key, _as_of: Stamp) {}

    fn give_up_all(&self) {}
}

#[async_trait]
impl Stamped for FlawedTier {
    async fn latest_stamp(&self) -> Result<Stamp> {
        let state = self.state();
        let entries = state.entries.values().map(Entry::as_of).max().unwrap_or_default();
        let barriers = state.barriers.iter().map(|barrier| barrier.stamp).max().unwrap_or_default();
        Ok(if self.has(Flaw::StampsOfEntriesOnly) { entries } else { entries.max(barriers) })
    }
}

#[async_trait]
impl Inspect for FlawedTier {
    async fn scan(
        &self,
        filter: &Filter,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Summary>> {
        let state = self.state();
        let matches = |key: &Key, entry: &Entry| match &filter.prefix {
            Some(prefix) if self.has(Flaw::ScansByCharacters) => {
                key.as_str().starts_with(&**prefix)
            }
            _ => filter.matches(key, entry.tags()),
        };
        let after = after.filter(|_| !self.has(Flaw::ScansWithoutAfter));
        let mut found: Vec<Summary> = state
            .entries
            .iter()
            .filter(|(key, entry)| matches(key, entry) && after.is_none_or(|after| *key > after))
            .map(|(key, entry)| Summary {
                key: key.clone(),
                raw_bytes: entry.value().len() as u64,
                stored_bytes: entry.value().len() as u64,
                expires_at: entry.expires_at(),
                stale_until: entry.stale_until(),
                expired: entry.is_expired() && !self.has(Flaw::SummariesAreFresh),
                tags: entry.tags().to_vec(),
            })
            .collect();
        if self.has(Flaw::ScansUnsorted) {
            found.reverse();
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn usage(&self) -> Result<Usage> {
        let state = self.state();
        let mut sources = BTreeMap::<&str, SourceUsage>::new();
        for (key, entry) in &state.entries {
            let usage = sources.entry(key.source()).or_default();
            key.source().clone_into(&mut usage.source);
            usage.entries += 1;
            usage.raw_bytes += entry.value().len() as u64;
        }
        let mut usage = Usage::default();
        usage.sources = sources.into_values().collect();
        if self.has(Flaw::UsageCountsWrites) {
            usage.sources[0].entries = state.written;
        }
        Ok(usage)
    }

    async fn validate(&self, _repair: bool) -> Result<Validation> {
        Ok(Validation::default())
    }

    async fn remove_dead(&self, now: Timestamp, key: Option<&Key>) -> Result<u64> {
        let mut state = self.state();
        let before = state.entries.len();
        let spared = |at: &Key| key.is_some_and(|key| key != at);
        let living = |entry: &Entry| {
            entry.freshness(now) != Freshness::Dead && !self.has(Flaw::RemovesTheLiving)
        };
        state.entries.retain(|at, entry| spared(at) || living(entry));
        Ok((before - state.entries.len()) as u64)
    }
}
