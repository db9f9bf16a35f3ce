//! A tier as the chain sees it: within a time limit, behind a breaker, counted, its failures logged
//! once a change of state.

use std::{
    borrow::Cow,
    error::Error as _,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cache_core::{
    Barrier, Chained, Clock, Entry, Error, ErrorKind, Freshness, Inspect, Key, Op, PutOutcome,
    Stamp, SyncTier, Tier, Timestamp,
};

use crate::{
    TierOptions,
    breaker::{Breaker, Change, Ticket},
    missed::Missed,
    note::By,
    stats::{TierCounters, TierLatency, TierStats},
};

/// How long a tier that refuses missed barriers is not asked again to take them.
const REPLAY_PAUSE: Duration = Duration::from_secs(5);

type Shared<T> = Result<T, Arc<Error>>;

#[derive(Debug)]
pub(crate) struct Guard {
    tier: Arc<dyn Tier>,
    name: &'static str,
    by: By,
    options: TierOptions,
    missed: Arc<Missed>,
    /// Held while missed barriers are replayed; when it may be tried again.
    replay: Arc<tokio::sync::Mutex<Timestamp>>,
    clock: Arc<dyn Clock>,
    breaker: Breaker,
    reads: Health,
    writes: Health,
    pub(crate) counters: TierCounters,
}

/// Whether operations of one kind work, so that a change is told once.
#[derive(Debug, Default)]
struct Health {
    failing: AtomicBool,
    last: Mutex<Option<Arc<Error>>>,
}

impl Health {
    fn last(&self) -> Option<Arc<Error>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Arc::clone)
    }
}

impl Guard {
    pub(crate) fn new(tier: Arc<dyn Tier>, options: TierOptions, clock: Arc<dyn Clock>) -> Self {
        let name = tier.name();
        Self {
            tier,
            name,
            by: By::tier(name),
            missed: Arc::default(),
            replay: Arc::new(tokio::sync::Mutex::new(Timestamp::from_millis(i64::MIN))),
            clock,
            breaker: Breaker::new(options.breaker),
            options,
            reads: Health::default(),
            writes: Health::default(),
            counters: TierCounters::default(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn tier(&self) -> &Arc<dyn Tier> {
        &self.tier
    }

    /// Its name, as hits tell it.
    pub(crate) fn by(&self) -> By {
        self.by
    }

    pub(crate) fn sync(&self) -> Option<&dyn SyncTier> {
        self.tier.as_sync()
    }

    pub(crate) fn inspect(&self) -> Option<&dyn Inspect> {
        self.tier.as_inspect()
    }

    pub(crate) fn stats(&self) -> TierStats {
        self.counters.snapshot(self.name, self.tier.corrupt())
    }

    pub(crate) fn latency(&self) -> TierLatency {
        self.counters.latency(self.name)
    }

    /// Whether a `set` that it did not take has failed.
    pub(crate) fn is_required(&self) -> bool {
        self.options.required
    }

    /// Whether it is asked only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    /// An entry, fresh or stale, without waiting; counted unless the same read has asked before.
    pub(crate) fn get_any(&self, key: &str, now: Timestamp, counts: bool) -> Option<Entry> {
        let found = self.sync()?.get_now(key, now);
        if counts {
            self.count_found(found.as_ref(), now);
        }
        found
    }

    /// A stamp that none in the tier exceeds; `None` if it has only those of this process.
    pub(crate) async fn latest_stamp(&self) -> Option<Stamp> {
        let stamped = self.tier.as_stamped()?;
        // It goes before each write, and says nothing about writing: neither a probe nor a success,
        // or a tier that only fails to write would never be skipped.
        if !self.breaker.is_closed() {
            return None;
        }
        match tokio::time::timeout(self.options.read_timeout, stamped.latest_stamp()).await {
            Ok(Ok(stamp)) => return Some(stamp),
            Ok(Err(error)) => self.failed(Op::Get, Ticket::Normal, error),
            Err(_elapsed) => {
                let error = Error::new(ErrorKind::Timeout, Op::Get, self.name);
                self.failed(Op::Get, Ticket::Normal, error)
            }
        };
        None
    }

    /// Entries, fresh or stale, in the order of the keys.
    pub(crate) async fn get_many(&self, keys: &[Key]) -> Shared<Vec<Option<Entry>>> {
        let get = async {
            self.replay_missed().await?;
            match keys {
                [key] => self.tier.get(key).await.map(|found| vec![found]),
                keys => self.tier.get_many(keys).await,
            }
        };
        let mut found = self.call(Op::Get, self.options.read_timeout, get).await?;
        // What is missing at the end of an answer that is too short was not found.
        found.resize(keys.len(), None);
        let now = self.clock.now();
        for (key, slot) in keys.iter().zip(&mut found) {
            let entry = slot.take().filter(|entry| entry.freshness(now) != Freshness::Dead);
            // What it refuses to forget it still has.
            *slot = match entry {
                Some(entry) if self.missed.any() => self.missed.admit(key, entry),
                entry => entry,
            };
            self.count_found(slot.as_ref(), now);
        }
        Ok(found)
    }

    /// Whether the tier has another entry than the one of this stamp, which it has not taken; or
    /// cannot say. Uncounted: it is no read of the chain.
    pub(crate) async fn knows_better(&self, key: &Key, as_of: Stamp) -> bool {
        let found = self.call(Op::Get, self.options.read_timeout, self.tier.get(key)).await;
        !found.is_ok_and(|found| found.is_some_and(|entry| entry.as_of() == as_of))
    }

    /// Gives the tier the barriers that it missed, before it is read.
    ///
    /// In a task of its own, that goes on when the read's time is up. One that the tier refuses does
    /// not keep it from being read: what it has is judged here.
    async fn replay_missed(&self) -> cache_core::Result<()> {
        if !self.missed.any() || self.options.read_only {
            return Ok(());
        }
        let unavailable = || Error::new(ErrorKind::Unavailable, Op::Bar, self.name);
        let mut next = Arc::clone(&self.replay).lock_owned().await;
        let now = self.clock.now();
        if now < *next || !self.missed.any() {
            return Ok(());
        }
        let (tier, missed) = (Arc::clone(&self.tier), Arc::clone(&self.missed));
        let replay = tokio::spawn(async move {
            for barrier in missed.all() {
                match tier.bar(&barrier).await {
                    Ok(_) => missed.taken(&barrier),
                    Err(error) if error.kind() == ErrorKind::Refused => {
                        *next = now.saturating_add(REPLAY_PAUSE);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        replay.await.unwrap_or_else(|ended| Err(unavailable().with_source(ended)))
    }

    /// Stores without waiting; `None` from a tier that has to wait, or that is only read.
    pub(crate) fn put_now(&self, key: &Key, entry: &Entry) -> Option<PutOutcome> {
        if self.options.read_only {
            return None;
        }
        let outcome = self.sync()?.put_now(key, &self.capped(entry));
        self.count_put(key, &outcome);
        Some(outcome)
    }

    /// Stores once more what it has been given, uncounted.
    pub(crate) fn put_again(&self, key: &Key, entry: &Entry) {
        if let Some(sync) = self.sync().filter(|_| !self.options.read_only) {
            sync.put_now(key, &self.capped(entry));
        }
    }

    /// Keeps a barrier for when the tier is read again.
    pub(crate) fn give_later(&self, barrier: &Barrier) {
        self.missed.add(barrier);
    }

    /// Whether entries are stored in it, and only by waiting.
    pub(crate) fn waits_to_store(&self) -> bool {
        self.sync().is_none() && !self.options.read_only
    }

    /// Stores entries for a caller who goes on meanwhile.
    pub(crate) async fn put_many(&self, entries: &[(Key, Entry)]) -> Shared<Vec<PutOutcome>> {
        self.put_all(entries, false).await
    }

    /// Stores entries for a caller who waits for that.
    pub(crate) async fn put_awaited(&self, entries: &[(Key, Entry)]) -> Shared<Vec<PutOutcome>> {
        self.put_all(entries, true).await
    }

    async fn put_all(&self, entries: &[(Key, Entry)], awaited: bool) -> Shared<Vec<PutOutcome>> {
        if self.options.read_only {
            let refused = || PutOutcome::Refused { reason: "the tier is only read".to_owned() };
            return Ok(entries.iter().map(|_| refused()).collect());
        }
        let capped: Vec<(Key, Entry)> = match self.options.max_ttl {
            Some(_) => entries
                .iter()
                .map(|(key, entry)| (key.clone(), self.capped(entry).into_owned()))
                .collect(),
            None => Vec::new(),
        };
        let entries = if capped.is_empty() { entries } else { &capped };
        let put = async {
            match entries {
                [(key, entry)] => {
                    let here = awaited.then(|| self.tier.try_put(key, entry)).flatten();
                    let outcome = match here {
                        Some(outcome) => outcome,
                        None => self.tier.put(key, entry).await,
                    };
                    outcome.map(|outcome| vec![outcome])
                }
                entries => self.tier.put_many(entries).await,
            }
        };
        let outcomes = self.call(Op::Put, self.options.write_timeout, put).await?;
        for ((key, _), outcome) in entries.iter().zip(&outcomes) {
            self.count_put(key, outcome);
        }
        Ok(outcomes)
    }

    pub(crate) async fn put(&self, key: &Key, entry: &Entry) -> Shared<PutOutcome> {
        let outcomes = self.put_many(&[(key.clone(), entry.clone())]).await?;
        let none = || PutOutcome::Refused { reason: "the tier did not say".to_owned() };
        Ok(outcomes.into_iter().next().unwrap_or_else(none))
    }

    /// The tier's copy of an entry, which may live less long.
    fn capped<'a>(&self, entry: &'a Entry) -> Cow<'a, Entry> {
        let Some(max) = self.options.max_ttl else { return Cow::Borrowed(entry) };
        let limit = self.clock.now().saturating_add(max);
        if entry.stale_until() <= limit {
            return Cow::Borrowed(entry);
        }
        // Dead from then on, not stale: the chain gets it again from below.
        let copy = entry.to_builder().expires_at(entry.expires_at().min(limit)).stale_until(limit);
        let copy = copy.build();
        copy.note_refresh_at(entry.refresh_at());
        Cow::Owned(copy)
    }

    /// Sets a barrier, or keeps it for when the tier can take it.
    pub(crate) async fn bar(&self, barrier: &Barrier) -> Shared<u64> {
        if self.options.read_only {
            self.missed.add(barrier);
            return Ok(0);
        }
        let result = self.call(Op::Bar, self.options.write_timeout, self.tier.bar(barrier)).await;
        if result.is_err() {
            self.missed.add(barrier);
        }
        result
    }

    /// Runs an operation of the tier's [`Inspect`] side, which must not see what it has missed to
    /// forget.
    pub(crate) async fn inspected<T>(
        &self,
        op: Op,
        operation: impl Future<Output = cache_core::Result<T>>,
    ) -> Shared<T> {
        let inspect = async {
            self.replay_missed().await?;
            operation.await
        };
        self.call(op, self.options.write_timeout, inspect).await
    }

    /// Runs an operation that goes beside reads and writes, and says nothing about them; `None` if the
    /// tier is skipped, or it failed.
    pub(crate) async fn aside<T>(
        &self,
        op: Op,
        operation: impl Future<Output = cache_core::Result<T>>,
    ) -> Option<T> {
        if !self.breaker.is_closed() {
            return None;
        }
        match tokio::time::timeout(self.options.write_timeout, operation).await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) => {
                tracing::debug!(tier = self.name, %op, error = %Chained(&error), "not done");
                None
            }
            Err(_elapsed) => {
                tracing::debug!(tier = self.name, %op, "not done in time");
                None
            }
        }
    }

    pub(crate) async fn close(&self) -> cache_core::Result<()> {
        self.tier.close().await
    }

    async fn call<T>(
        &self,
        op: Op,
        limit: Duration,
        operation: impl Future<Output = cache_core::Result<T>>,
    ) -> Shared<T> {
        let Some(ticket) = self.breaker.admit(self.clock.now()) else {
            self.counters.skipped.add(1);
            return Err(self.why_skipped(op));
        };
        // Dropped here, a probe must not keep the breaker waiting for its result.
        let mut probe = Undecided { guard: self, ticket, ended: false };
        let began = Instant::now();
        let result = tokio::time::timeout(limit, operation).await;
        probe.ended = true;
        match op {
            _ if self.sync().is_some() => {}
            Op::Get => self.counters.reads.record(began.elapsed()),
            Op::Put => self.counters.writes.record(began.elapsed()),
            _ => {}
        }
        match result {
            Ok(Ok(value)) => {
                self.worked(op, ticket);
                Ok(value)
            }
            Ok(Err(error)) => Err(self.failed(op, ticket, error)),
            Err(_elapsed) => {
                let error = Error::new(ErrorKind::Timeout, op, self.name);
                Err(self.failed(op, ticket, error))
            }
        }
    }

    fn health(&self, op: Op) -> &Health {
        match op {
            Op::Get | Op::Inspect => &self.reads,
            _ => &self.writes,
        }
    }

    fn worked(&self, op: Op, ticket: Ticket) {
        let breaker = self.breaker.succeeded(ticket, self.clock.now());
        if breaker == Change::Ignored {
            return;
        }
        let health = self.health(op);
        let recovered =
            health.failing.load(Ordering::Relaxed) && health.failing.swap(false, Ordering::Relaxed);
        if recovered || breaker == Change::Closed {
            tracing::info!(tier = self.name, %op, "tier works again");
        }
    }

    fn failed(&self, op: Op, ticket: Ticket, error: Error) -> Arc<Error> {
        self.counters.errors.add(1);
        let error = Arc::new(error);
        if self.is_news(op, &error) {
            tracing::warn!(
                "going on without tier `{}`, which makes answers slower: {}",
                self.name,
                Chained(&error)
            );
        }
        // A tier that refuses writes (full, read-only) still answers: its reads must go on.
        if error.kind() == ErrorKind::Refused && op != Op::Get {
            self.breaker.undecided(ticket, self.clock.now());
        } else if let Change::Opened(cooldown) = self.breaker.failed(ticket, self.clock.now()) {
            tracing::warn!(tier = self.name, ?cooldown, "tier is skipped until its next probe");
        }
        error
    }

    /// Takes note of a failure; whether it is a change of state that has not been told. Reads and
    /// writes usually fail for one reason, which is told once.
    fn is_news(&self, op: Op, error: &Arc<Error>) -> bool {
        let cause = |error: &Error| error.source().map(ToString::to_string);
        let health = self.health(op);
        let other = match op {
            Op::Get | Op::Inspect => &self.writes,
            _ => &self.reads,
        };
        let told = other.failing.load(Ordering::Relaxed)
            && other
                .last()
                .is_some_and(|last| last.kind() == error.kind() && cause(&last) == cause(error));
        *health.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(error));
        let first = !health.failing.swap(true, Ordering::Relaxed);
        // Who inspects is given the error itself.
        first && !told && op != Op::Inspect
    }

    fn why_skipped(&self, op: Op) -> Arc<Error> {
        let last =
            self.health(op).last().or_else(|| self.reads.last()).or_else(|| self.writes.last());
        let kind = last.map_or(ErrorKind::Unavailable, |last| last.kind());
        let why = "it has failed lately, and is skipped until its next probe";
        Arc::new(Error::new(kind, op, self.name).with_source(why))
    }

    pub(crate) fn count_found(&self, found: Option<&Entry>, now: Timestamp) {
        let counter = match found.map(|entry| entry.freshness(now)) {
            Some(Freshness::Fresh) => &self.counters.found,
            Some(Freshness::Stale) => &self.counters.found_stale,
            Some(Freshness::Dead) | None => &self.counters.not_found,
        };
        counter.add(1);
    }

    fn count_put(&self, key: &Key, outcome: &PutOutcome) {
        let counters = &self.counters;
        let counter = match outcome {
            PutOutcome::Stored => &counters.stored,
            PutOutcome::Superseded => &counters.superseded,
            PutOutcome::Barred => &counters.barred,
            _ => &counters.refused,
        };
        counter.add(1);
        if !outcome.is_stored() {
            tracing::debug!(tier = self.name, %key, ?outcome, "not stored");
        }
    }
}

/// Tells the breaker, if it is dropped early, that an operation ended without a result.
struct Undecided<'a> {
    guard: &'a Guard,
    ticket: Ticket,
    ended: bool,
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.guard.breaker.undecided(self.ticket, self.guard.clock.now());
        }
    }
}
