//! The public handle: changing and inspecting what is stored. Reading is in `read.rs`.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use cache_core::{
    AsKey, Barrier, Filter, Key, Op, Selector, Stamp, Summary, Tag, Usage, Validation,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    CacheBuilder, CloseReport, Error, Hit, Policy, QuotaUsage, Removed, SetOptions, SetOutcome,
    Stats, TierLatency, guard::Guard, inner::Inner,
};

/// How long tasks that closing has dropped may take to notice.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// A chain of cache tiers in front of origins.
///
/// Cloning gives another handle to the same chain. Dropping a future that a method returned never
/// leaves anything half done; a load that it started goes on.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

impl Cache {
    /// Starts a chain without tiers.
    pub fn builder() -> CacheBuilder {
        CacheBuilder::default()
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// What the synchronous tiers have under `key`, fresh, without waiting: for code that is not
    /// async, and needs no runtime. Counts as a read only if there is something.
    ///
    /// A hit in memory costs little more than the store under it: the key is hashed once, nothing is
    /// allocated, no lock is taken but that of the store's shard.
    #[inline]
    pub fn peek<Q: AsKey + ?Sized>(&self, key: &Q) -> Option<Hit> {
        self.inner.peek(key.key_text())
    }

    /// Stores a value in every tier, and answers when all have it. It is stored also if the
    /// future is dropped early.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::NotStored`] if a tier that is required did not take it; in strict
    /// mode [`Error::Tier`] if a tier failed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn set(
        &self,
        key: &Key,
        value: impl Into<Bytes>,
        options: SetOptions,
    ) -> Result<SetOutcome, Error> {
        let mut outcomes = self.set_many(vec![(key.clone(), value.into(), options)]).await?;
        outcomes.pop().unwrap_or(Err(Error::Closed))
    }

    /// [`Cache::set`] for several values, all with one write in each tier. Of several for one key
    /// the first is stored. Outcomes are in the order of the entries.
    ///
    /// # Errors
    /// [`Error::Closed`]; of each entry, those of [`Cache::set`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn set_many(
        &self,
        entries: Vec<(Key, Bytes, SetOptions)>,
    ) -> Result<Vec<Result<SetOutcome, Error>>, Error> {
        let keys: Vec<Key> = entries.iter().map(|(key, ..)| key.clone()).collect();
        let inner = Arc::clone(&self.inner);
        let reports = self.inner.whole(async move { inner.store(entries).await }).await?;
        let outcome = |(key, tiers): (&Key, Vec<_>)| match self.inner.refusal(key, &tiers) {
            Some(error) => Err(error),
            None => Ok(SetOutcome { tiers }),
        };
        Ok(keys.iter().zip(reports).map(outcome).collect())
    }

    /// Forgets what is stored under a key, with a tag, or what matches a [`Filter`]: from the moment
    /// this returns, no read gives what was loaded before, even if its load is still under way. It
    /// is done also if the future is dropped early.
    ///
    /// A tier that cannot take the invalidation now is given it before it is read again.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn invalidate(&self, what: impl Into<Selector>) -> Result<Removed, Error> {
        let selector = what.into();
        self.bar(move |stamp| vec![Barrier::forget(selector, stamp)]).await
    }

    /// [`Cache::invalidate`] for several keys.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn invalidate_many(&self, keys: &[Key]) -> Result<Removed, Error> {
        let selectors: Vec<Selector> = keys.iter().map(Selector::from).collect();
        let forget = |stamp| move |selector| Barrier::forget(selector, stamp);
        self.bar(move |stamp| selectors.into_iter().map(forget(stamp)).collect()).await
    }

    /// [`Cache::invalidate`] for all entries with a tag.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn invalidate_tag(&self, tag: &Tag) -> Result<Removed, Error> {
        self.invalidate(tag).await
    }

    /// [`Cache::invalidate`] for all entries of a source.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn invalidate_source(&self, source: &str) -> Result<Removed, Error> {
        self.invalidate(Selector::source(source)).await
    }

    /// [`Cache::invalidate`] for all that matches.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn purge(&self, filter: &Filter) -> Result<Removed, Error> {
        self.invalidate(filter).await
    }

    /// [`Cache::invalidate`] for everything.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn clear(&self) -> Result<Removed, Error> {
        self.invalidate(Selector::All).await
    }

    /// Makes stale what is stored under a key, with a tag, or what matches a [`Filter`]: from the
    /// moment this returns, it is loaded anew when it is asked for, and served only if that fails.
    /// Returns how many entries became stale.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn expire(&self, what: impl Into<Selector>) -> Result<Removed, Error> {
        let selector = what.into();
        self.bar(move |stamp| vec![Barrier::expire(selector, stamp)]).await
    }

    async fn bar(
        &self,
        barriers: impl FnOnce(Stamp) -> Vec<Barrier> + Send + 'static,
    ) -> Result<Removed, Error> {
        let inner = Arc::clone(&self.inner);
        let removed = self.inner.whole(async move { inner.bar(barriers).await });
        removed.await?.map_err(Error::Tier)
    }

    /// Says which version of its data a source has from now on. Entries with another one, or with
    /// none, are stale: loaded anew when they are asked for, served if that fails. Returns how many
    /// became stale.
    ///
    /// Versions are also learned: from a load that says one ([`cache_core::Loaded::version`]).
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn set_source_version(&self, source: &str, version: &str) -> Result<Removed, Error> {
        let inner = Arc::clone(&self.inner);
        let (source, version) = (source.to_owned(), version.to_owned());
        let removed = self.inner.whole(async move {
            let since = inner.chain.latest_stamp().await;
            inner.put_version_in_force(&source, &version, since).await
        });
        removed.await?.map_err(Error::Tier)
    }

    /// The version of a source's data that is in force, if one is known.
    pub fn source_version(&self, source: &str) -> Option<Arc<str>> {
        self.inner.chain.versions.of(source)
    }

    /// What holds for the values of a source.
    pub fn policy(&self, source: &str) -> &Policy {
        self.inner.chain.policies.of(source)
    }

    /// How much of the quota of `source` is used, by all who share the ledger; `None` if it has none.
    pub async fn quota(&self, source: &str) -> Option<QuotaUsage> {
        self.inner.askers.get(source)?.limiter().usage().await
    }

    /// Whether no origin is ever asked.
    pub fn is_offline(&self) -> bool {
        self.inner.offline
    }

    /// Sources that have an origin, sorted.
    pub fn sources(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.inner.origins.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Removes entries that are dead, and would never be served.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn clear_expired(&self) -> Result<Removed, Error> {
        self.inner.open()?;
        self.inner.chain.remove_dead(None).await.map_err(Error::Tier)
    }

    /// Up to `limit` keys that are stored, in order.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn list_keys(&self, limit: usize) -> Result<Vec<Key>, Error> {
        let entries = self.scan(&Filter::all(), None, limit).await?;
        Ok(entries.into_iter().map(|summary| summary.key).collect())
    }

    /// Up to `limit` stored entries that match, in the order of their keys, after the key `after`.
    /// Changes no counter and promotes nothing.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn scan(
        &self,
        filter: &Filter,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Summary>, Error> {
        self.inner.open()?;
        let mut found = BTreeMap::new();
        for tier in &self.inner.chain.tiers {
            let Some(inspect) = tier.inspect() else { continue };
            match tier.inspected(Op::Inspect, inspect.scan(filter, after, limit)).await {
                // Lower tiers last: they know how much an entry takes as stored.
                Ok(entries) => found.extend(entries.into_iter().map(|one| (one.key.clone(), one))),
                Err(error) if self.inner.chain.strict => return Err(Error::Tier(error)),
                Err(_absorbed) => {}
            }
        }
        Ok(found.into_values().take(limit).collect())
    }

    /// What each tier that can tell holds.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn usage(&self) -> Result<Vec<(&'static str, Result<Usage, Error>)>, Error> {
        self.inner.open()?;
        let mut all = Vec::new();
        for tier in &self.inner.chain.tiers {
            let Some(inspect) = tier.inspect() else { continue };
            let usage = tier.inspected(Op::Inspect, inspect.usage()).await;
            all.push((tier.name(), usage.map_err(Error::Tier)));
        }
        Ok(all)
    }

    /// Checks everything that each tier has stored, and with `repair` mends or removes what is wrong,
    /// so that the next check finds nothing. May take minutes where gigabytes are stored; reads and
    /// writes go on meanwhile. Changes no counter.
    ///
    /// # Errors
    /// [`Error::Closed`]; of each tier, [`Error::Tier`] if it could not be checked.
    pub async fn validate(
        &self,
        repair: bool,
    ) -> Result<Vec<(&'static str, Result<Validation, Error>)>, Error> {
        self.inner.open()?;
        let mut all = Vec::new();
        for tier in &self.inner.chain.tiers {
            let Some(inspect) = tier.inspect() else { continue };
            let repairs = repair && !tier.is_read_only();
            // However long it takes: somebody waits for just that.
            let found = inspect.validate(repairs).await;
            all.push((tier.name(), found.map_err(|error| Error::Tier(Arc::new(error)))));
        }
        Ok(all)
    }

    /// What was counted since the chain was built.
    pub fn stats(&self) -> Stats {
        let chain = &self.inner.chain;
        let tiers: Vec<_> = chain.tiers.iter().map(Guard::stats).collect();
        Stats {
            hits: tiers.iter().map(|tier| tier.served).sum(),
            stale_hits: tiers.iter().map(|tier| tier.served_stale).sum(),
            misses: chain.counters.misses.get(),
            loads: chain.counters.loads.get(),
            load_failures: chain.counters.load_failures.get(),
            refreshes: chain.counters.refreshes.get(),
            joined: chain.counters.joined.get(),
            promotions: chain.counters.promotions.get(),
            not_stored: chain.counters.not_stored.get(),
            tiers,
        }
    }

    /// How long the operations of each tier took since the chain was built, in the order of the
    /// chain.
    pub fn latencies(&self) -> Vec<TierLatency> {
        self.inner.chain.tiers.iter().map(Guard::latency).collect()
    }

    /// Lets loads, fills and refreshes under way end, for at most `deadline`, drops those that have
    /// not, and closes the tiers. All handles to this chain are closed by it.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        let inner = &self.inner;
        let began = Instant::now();
        inner.closed.store(true, Ordering::Release);
        let mut report = CloseReport::default();
        if !inner.tasks.end_within(deadline).await {
            report.unfinished = inner.tasks.len();
            report.dropped_loads = inner.loading.keys();
            inner.tasks.stop();
            // They end where they wait; one that does not wait cannot be ended.
            if !inner.tasks.end_within(LAST_BREATH).await {
                tracing::warn!(tasks = inner.tasks.len(), "tasks go on after closing");
            }
        }
        let left = deadline.saturating_sub(began.elapsed());
        let left = if left.is_zero() { LAST_BREATH } else { left };
        let close = |tier| tokio::time::timeout(left, Guard::close(tier));
        let closed = join_all(inner.chain.tiers.iter().map(close)).await;
        for (tier, closed) in inner.chain.tiers.iter().zip(closed) {
            match closed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => report.failed.push((tier.name(), error.to_string())),
                Err(_elapsed) => {
                    report.failed.push((tier.name(), format!("not closed within {left:?}")));
                }
            }
        }
        report
    }
}
