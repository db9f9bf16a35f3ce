//! A tier as the chain sees it: within a time limit, behind a breaker, counted, its failures logged
//! once a change of state.

use std::{
    error::Error as _,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_core::{
    Barrier, Chained, Clock, Entry, Error, ErrorKind, Freshness, Inspect, Key, Op, PutOutcome,
    Stamp, SyncTier, Tier, Timestamp,
};

use crate::{
    breaker::{Breaker, Change, Ticket},
    stats::{TierCounters, TierStats},
};

/// Longest a read may take before the chain goes on without the tier.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Longest anything else may take.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

type Shared<T> = Result<T, Arc<Error>>;

#[derive(Debug)]
pub(crate) struct Guard {
    tier: Arc<dyn Tier>,
    name: &'static str,
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
    pub(crate) fn new(tier: Arc<dyn Tier>, clock: Arc<dyn Clock>) -> Self {
        let name = tier.name();
        Self {
            tier,
            name,
            clock,
            breaker: Breaker::new(),
            reads: Health::default(),
            writes: Health::default(),
            counters: TierCounters::default(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn sync(&self) -> Option<&dyn SyncTier> {
        self.tier.as_sync()
    }

    pub(crate) fn inspect(&self) -> Option<&dyn Inspect> {
        self.tier.as_inspect()
    }

    pub(crate) fn stats(&self) -> TierStats {
        self.counters.snapshot(self.name)
    }

    /// A usable entry, without waiting; `None` also from a tier that has to wait.
    pub(crate) fn get_now(&self, key: &Key, now: Timestamp) -> Option<Entry> {
        let found = self.sync()?.get_now(key, now);
        let found = found.filter(|entry| entry.freshness(now) == Freshness::Fresh);
        self.count_found(found.is_some());
        found
    }

    /// A second look of the same read, which counts only if it finds something.
    pub(crate) fn get_again(&self, key: &Key, now: Timestamp) -> Option<Entry> {
        let found = self.sync()?.get_now(key, now);
        let found = found.filter(|entry| entry.freshness(now) == Freshness::Fresh)?;
        self.count_found(true);
        Some(found)
    }

    /// A stamp that none in the tier exceeds; `None` if it has only those of this process.
    pub(crate) async fn latest_stamp(&self) -> Option<Stamp> {
        let stamped = self.tier.as_stamped()?;
        // It goes before each write, and says nothing about writing: neither a probe nor a success,
        // or a tier that only fails to write would never be skipped.
        if !self.breaker.is_closed() {
            return None;
        }
        match tokio::time::timeout(READ_LIMIT, stamped.latest_stamp()).await {
            Ok(Ok(stamp)) => return Some(stamp),
            Ok(Err(error)) => self.failed(Op::Get, Ticket::Normal, error),
            Err(_elapsed) => {
                let error = Error::new(ErrorKind::Timeout, Op::Get, self.name);
                self.failed(Op::Get, Ticket::Normal, error)
            }
        };
        None
    }

    /// A usable entry.
    pub(crate) async fn get(&self, key: &Key) -> Shared<Option<Entry>> {
        let found = self.call(Op::Get, READ_LIMIT, self.tier.get(key)).await?;
        let now = self.clock.now();
        let found = found.filter(|entry| entry.freshness(now) == Freshness::Fresh);
        self.count_found(found.is_some());
        Ok(found)
    }

    /// Stores without waiting; `None` from a tier that has to wait.
    pub(crate) fn put_now(&self, key: &Key, entry: &Entry) -> Option<PutOutcome> {
        let outcome = self.sync()?.put_now(key, entry);
        self.count_put(key, &outcome);
        Some(outcome)
    }

    pub(crate) async fn put(&self, key: &Key, entry: &Entry) -> Shared<PutOutcome> {
        let outcome = self.call(Op::Put, WRITE_LIMIT, self.tier.put(key, entry)).await?;
        self.count_put(key, &outcome);
        Ok(outcome)
    }

    pub(crate) async fn bar(&self, barrier: &Barrier) -> Shared<u64> {
        self.call(Op::Bar, WRITE_LIMIT, self.tier.bar(barrier)).await
    }

    /// Runs an operation of the tier's [`Inspect`] side.
    pub(crate) async fn inspected<T>(
        &self,
        op: Op,
        operation: impl Future<Output = cache_core::Result<T>>,
    ) -> Shared<T> {
        self.call(op, WRITE_LIMIT, operation).await
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
        let result = tokio::time::timeout(limit, operation).await;
        probe.ended = true;
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
        let breaker = self.breaker.succeeded(ticket);
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
        self.health(op)
            .last()
            .or_else(|| self.reads.last())
            .or_else(|| self.writes.last())
            .unwrap_or_else(|| Arc::new(Error::new(ErrorKind::Unavailable, op, self.name)))
    }

    fn count_found(&self, found: bool) {
        let counter = if found { &self.counters.found } else { &self.counters.not_found };
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
