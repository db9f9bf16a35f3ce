//! The public handle.

use std::{
    any::{Any, type_name},
    collections::BTreeMap,
    future::{Future, ready},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use cache_core::{
    Barrier, Entry, Filter, Key, Load, Loaded, Op, OriginError, Request, Selector, Summary, Tag,
    Usage,
};
use futures_util::future::Either;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{
    CacheBuilder, CloseReport, Error, Hit, LoadContext, ReadOptions, Removed, ServedBy, SetOptions,
    SetOutcome, Stats,
    flight::Part,
    guard::Guard,
    inner::{Inner, may_select},
    outcome::PutReport,
};

/// A chain of cache tiers in front of origins.
///
/// Cloning gives another handle to the same chain. Dropping a future that a method returned never
/// leaves anything half done; a load that it started goes on.
#[derive(Clone, Debug)]
pub struct Cache {
    inner: Arc<Inner>,
}

impl Cache {
    /// Starts a chain without tiers.
    pub fn builder() -> CacheBuilder {
        CacheBuilder::default()
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// What is stored under `key` and fresh. A hit in memory is that of the call, not of the wait.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Hit>, Error>> + Send {
        // Memory answers inside this call: a hit there costs no state machine and no allocation.
        match self.peek(key) {
            Some(hit) => Either::Left(ready(Ok(Some(hit)))),
            None => Either::Right(self.get_waiting(key)),
        }
    }

    /// What the synchronous tiers have under `key`, fresh, without waiting; counts as a read only
    /// if there is something.
    pub fn peek(&self, key: &Key) -> Option<Hit> {
        let (hit, tier) = self.inner.chain.get_now(key)?;
        self.inner.count_hit(key, tier);
        Some(hit)
    }

    async fn get_waiting(&self, key: &Key) -> Result<Option<Hit>, Error> {
        // Closing waits for the promotions that this look may begin.
        let _under_way = self.inner.tasks.token();
        self.inner.open()?;
        let found = self.inner.chain.look_up(key, &self.inner.tasks).await;
        let result = found.map_err(Error::Tier);
        self.inner.count(key, result.as_ref().ok().and_then(Option::as_ref));
        result
    }

    /// [`Cache::get`] in another way.
    pub async fn get_with(&self, key: &Key, options: ReadOptions) -> Result<Option<Hit>, Error> {
        let found = if options.bypass {
            self.inner.open()?;
            self.inner.count(key, None);
            None
        } else {
            self.get(key).await?
        };
        if found.is_none() && options.purge_expired {
            self.inner.chain.remove_dead(Some(key)).await.map_err(Error::Tier)?;
        }
        Ok(found)
    }

    /// What is stored under `key`, decoded from JSON once per stored entry and shared.
    ///
    /// # Errors
    /// As [`Cache::get`]; [`Error::Decode`] if the value is no such JSON; [`Error::TypeMismatch`]
    /// if it was read as another type before.
    pub async fn get_as<T>(&self, key: &Key) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Any + Send + Sync,
    {
        let Some(hit) = self.get(key).await? else { return Ok(None) };
        decode(key, hit.entry()).map(Some)
    }

    /// What is stored under `key`, or else what `load` brings, which is stored then.
    ///
    /// Of all who ask for one key at a time only one loads; the others wait for it. The load runs
    /// in a task of its own: it goes on, and its value is stored, when its callers have gone.
    ///
    /// # Errors
    /// [`Error::Origin`] with what `load` returned, [`Error::LoadPanicked`] if it panicked,
    /// [`Error::LoadAborted`] if its runtime was shut down, [`Error::Closed`]; in strict mode
    /// [`Error::Tier`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn get_or_load<F, Fut>(
        &self,
        key: &Key,
        load: F,
    ) -> impl Future<Output = Result<Hit, Error>> + Send
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        match self.peek(key) {
            Some(hit) => Either::Left(ready(Ok(hit))),
            None => Either::Right(self.load_shared(key.clone(), Vec::new(), load)),
        }
    }

    /// [`Cache::get_or_load`] in another way.
    pub async fn get_or_load_with<F, Fut>(
        &self,
        key: &Key,
        options: ReadOptions,
        load: F,
    ) -> Result<Hit, Error>
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        if !options.bypass {
            if let Some(hit) = self.peek(key) {
                return Ok(hit);
            }
            if options.purge_expired {
                self.inner.chain.remove_dead(Some(key)).await.map_err(Error::Tier)?;
            }
            return self.load_shared(key.clone(), Vec::new(), load).await;
        }
        self.inner.open()?;
        self.inner.count(key, None);
        let entry = self.inner.load(key, &[], load).await?;
        Ok(Hit::new(entry.0, ServedBy::Origin))
    }

    /// The answer to `request`: stored, or loaded from the origin of its source and stored.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`]; [`Error::NoOrigin`] if nothing is stored and the source has none.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn request(&self, request: &Request) -> Result<Hit, Error> {
        let key = request.key();
        if let Some(hit) = self.peek(&key) {
            return Ok(hit);
        }
        let Ok(origin) = self.inner.origin(request.source()) else {
            // What is stored can still be served.
            return match self.get_waiting(&key).await? {
                Some(hit) => Ok(hit),
                None => Err(self.inner.no_origin(request.source())),
            };
        };
        let load = Load::new(request.clone());
        let tags = request.tags().to_vec();
        self.load_shared(key, tags, move |_| async move { origin.load(load).await }).await
    }

    /// The question that the origin of `source` answers about something described by `values`, a
    /// market for example.
    ///
    /// # Errors
    /// [`Error::NoOrigin`]; [`Error::Origin`] if the origin needs a value that is not there.
    pub fn request_for(
        &self,
        source: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Request, Error> {
        Ok(self.inner.origin(source)?.request(source, values)?)
    }

    /// Sources that have an origin, sorted.
    pub fn sources(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.inner.origins.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    async fn load_shared<F, Fut>(&self, key: Key, tags: Vec<Tag>, load: F) -> Result<Hit, Error>
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        let inner = &self.inner;
        // Taken before the look, so that closing either waits for this load or is seen by it.
        let under_way = inner.tasks.token();
        inner.open()?;
        let outdated = |started| inner.chain.may_be_barred(&key, started);
        let follower = match inner.flights.join(&key, outdated, || inner.chain.next_stamp()) {
            Part::Follow(follower) => {
                inner.chain.counters.joined.add(1);
                follower
            }
            Part::Lead(leader, follower) => {
                let (inner, key) = (Arc::clone(inner), key.clone());
                let tasks = inner.tasks.clone();
                tasks.spawn(async move { inner.fly(leader, key, tags, load).await });
                follower
            }
        };
        drop(under_way);
        let outcome = follower.outcome().await;
        let hit = outcome.as_ref().ok();
        inner.count(&key, hit.filter(|hit| hit.served_by() != ServedBy::Origin));
        outcome
    }

    /// Stores a value in every tier, and answers when all have it. It is stored also if the
    /// future is dropped early.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`] if a tier failed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn set(
        &self,
        key: &Key,
        value: impl Into<Bytes>,
        options: SetOptions,
    ) -> Result<SetOutcome, Error> {
        let (inner, key, value) = (Arc::clone(&self.inner), key.clone(), value.into());
        let tiers = self.inner.whole(async move { inner.store(&key, value, options).await });
        let tiers = tiers.await?;
        if self.inner.chain.strict
            && let Some(error) = tiers.iter().find_map(|(_, report)| match report {
                PutReport::Failed(error) => Some(Arc::clone(error)),
                _ => None,
            })
        {
            return Err(Error::Tier(error));
        }
        Ok(SetOutcome { tiers })
    }

    /// Forgets what is stored under `key`: from the moment this returns, no read gives what was
    /// loaded before, even if its load is still under way. It is done also if the future is dropped
    /// early.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn invalidate(&self, key: &Key) -> Result<Removed, Error> {
        self.bar(Selector::Key(key.clone())).await
    }

    /// Forgets all that matches, as [`Cache::invalidate`] does for one key.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn purge(&self, filter: &Filter) -> Result<Removed, Error> {
        self.bar(filter.selector()).await
    }

    async fn bar(&self, selector: Selector) -> Result<Removed, Error> {
        let inner = Arc::clone(&self.inner);
        let removed = self.inner.whole(async move {
            let barrier = Barrier { selector, stamp: inner.chain.latest_stamp().await };
            inner.chain.remember(&barrier);
            // One that began after the stamp was issued may have read what is covered.
            inner.flights.detach_where(|key| may_select(&barrier.selector, key));
            inner.chain.bar(&barrier).await
        });
        removed.await?.map_err(Error::Tier)
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

    /// What was counted since the chain was built.
    pub fn stats(&self) -> Stats {
        let chain = &self.inner.chain;
        let tiers: Vec<_> = chain.tiers.iter().map(Guard::stats).collect();
        Stats {
            hits: tiers.iter().map(|tier| tier.served).sum(),
            misses: chain.counters.misses.get(),
            loads: chain.counters.loads.get(),
            load_failures: chain.counters.load_failures.get(),
            joined: chain.counters.joined.get(),
            promotions: chain.counters.promotions.get(),
            not_stored: chain.counters.not_stored.get(),
            tiers,
        }
    }

    /// Lets loads and fills under way end, for at most `deadline`, then closes the tiers. All
    /// handles to this chain are closed by it.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        let inner = &self.inner;
        inner.closed.store(true, Ordering::Release);
        inner.tasks.close();
        let ended = tokio::time::timeout(deadline, inner.tasks.wait()).await;
        let unfinished = if ended.is_ok() { 0 } else { inner.tasks.len() };
        let mut report = CloseReport { unfinished, failed: Vec::new() };
        for tier in &inner.chain.tiers {
            match tokio::time::timeout(deadline, tier.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => report.failed.push((tier.name(), error.to_string())),
                Err(_elapsed) => {
                    report.failed.push((tier.name(), format!("not closed within {deadline:?}")));
                }
            }
        }
        report
    }
}

fn decode<T>(key: &Key, entry: &Entry) -> Result<Arc<T>, Error>
where
    T: DeserializeOwned + Any + Send + Sync,
{
    entry.decoded(|value| serde_json::from_slice(value)).map_err(|error| match error {
        Ok(stored) => Error::TypeMismatch { key: key.clone(), stored, asked: type_name::<T>() },
        // Not the decoder's own text, which may hold the whole value.
        Err(error) => Error::Decode {
            key: key.clone(),
            type_name: type_name::<T>(),
            reason: format!(
                "{} at line {}, column {}",
                match error.classify() {
                    Category::Data => "it is JSON of another form",
                    Category::Eof => "it ends too early",
                    Category::Io | Category::Syntax => "it is no JSON",
                },
                error.line(),
                error.column()
            ),
        },
    })
}
