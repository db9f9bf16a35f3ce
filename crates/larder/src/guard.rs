//! A tier as the chain sees it: within a time limit, behind a breaker, counted, its failures logged
//! once a change of state.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_core::{
    Barrier, Chained, Clock, Entry, Error, ErrorKind, Freshness, Inspect, Key, Op, PutOutcome,
    SyncTier, Tier, Timestamp,
};

use crate::{
    breaker::{Breaker, Change},
    stats::{TierCounters, TierStats},
};

/// Longest a read may take before the chain goes on without the tier.
const READ_LIMIT: Duration = Duration::from_secs(1);
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

    pub(crate) async fn remove(&self, key: &Key) -> Shared<bool> {
        self.call(Op::Remove, WRITE_LIMIT, self.tier.remove(key)).await
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
        if !self.breaker.admits(self.clock.now()) {
            self.counters.skipped.add(1);
            return Err(self.why_skipped(op));
        }
        // Dropped here, a probe must not keep the breaker waiting for its result.
        let mut probe = Undecided { guard: self, ended: false };
        let result = tokio::time::timeout(limit, operation).await;
        probe.ended = true;
        match result {
            Ok(Ok(value)) => {
                self.worked(op);
                Ok(value)
            }
            Ok(Err(error)) => Err(self.failed(op, error)),
            Err(_elapsed) => Err(self.failed(op, Error::new(ErrorKind::Timeout, op, self.name))),
        }
    }

    fn health(&self, op: Op) -> &Health {
        match op {
            Op::Get | Op::Inspect => &self.reads,
            _ => &self.writes,
        }
    }

    fn worked(&self, op: Op) {
        let breaker = self.breaker.succeeded();
        let health = self.health(op);
        let recovered =
            health.failing.load(Ordering::Relaxed) && health.failing.swap(false, Ordering::Relaxed);
        if recovered || breaker == Change::Closed {
            tracing::info!(tier = self.name, %op, "tier works again");
        }
    }

    fn failed(&self, op: Op, error: Error) -> Arc<Error> {
        self.counters.errors.add(1);
        let error = Arc::new(error);
        let health = self.health(op);
        *health.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&error));
        if !health.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "going on without tier `{}`, which makes answers slower: {}",
                self.name,
                Chained(&error)
            );
        }
        // A tier that refuses (full, read-only) still answers: its reads must go on.
        if error.kind() == ErrorKind::Refused {
            self.breaker.undecided(self.clock.now());
        } else if let Change::Opened(cooldown) = self.breaker.failed(self.clock.now()) {
            tracing::warn!(tier = self.name, ?cooldown, "tier is skipped until its next probe");
        }
        error
    }

    fn why_skipped(&self, op: Op) -> Arc<Error> {
        let last = |health: &Health| {
            health.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Arc::clone)
        };
        last(self.health(op))
            .or_else(|| last(&self.reads))
            .or_else(|| last(&self.writes))
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
    ended: bool,
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.guard.breaker.undecided(self.guard.clock.now());
        }
    }
}
