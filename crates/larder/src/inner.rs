//! What the handles to one chain share: the chain, its flights and tasks, and the work on them.

use std::{
    any::Any,
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use cache_core::{Clock, Entry, Key, Loaded, Origin, OriginError, Selector, Tag, Ttl};
use futures_util::FutureExt;
use tokio_util::task::TaskTracker;

use crate::{
    Error, Hit, LoadContext, ServedBy, SetOptions,
    chain::Chain,
    flight::{Flights, Leader},
    guard::Guard,
    outcome::PutReport,
    policy::{Policies, expiry},
};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) chain: Arc<Chain>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policies: Policies,
    pub(crate) origins: HashMap<String, Arc<dyn Origin>>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) tasks: TaskTracker,
    pub(crate) log_hits: bool,
    pub(crate) closed: AtomicBool,
}

/// What is to become of a loaded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Store,
    /// Its lifetime is zero: it is not stored, and what is there goes.
    Forget,
    /// It cannot be stored.
    Pass,
}

/// Whether a value of `key` may be selected, its tags unknown.
pub(crate) fn may_select(selector: &Selector, key: &Key) -> bool {
    match selector {
        Selector::Key(selected) => selected == key,
        Selector::Source(source) | Selector::SourceTag(source, _) => &**source == key.source(),
        _ => true,
    }
}

impl Inner {
    /// Runs `work` in a task of its own, so that it is done as a whole though its caller goes away.
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let under_way = self.tasks.token();
        self.open()?;
        let task = self.tasks.spawn(work);
        drop(under_way);
        // Aborted only when the runtime shuts down; a panic in a tier is its caller's.
        task.await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_aborted) => Error::Closed,
        })
    }

    pub(crate) async fn store(
        &self,
        key: &Key,
        value: Bytes,
        options: SetOptions,
    ) -> Vec<(&'static str, PutReport)> {
        let as_of = self.chain.latest_stamp().await;
        let SetOptions { ttl, tags, content_type } = options;
        let ttl = ttl.unwrap_or_else(|| self.policies.of(key.source()).ttl);
        let tiers = match expiry(self.clock.now(), ttl) {
            None => self.chain.forget(key, as_of).await,
            Some(expires_at) => {
                let entry = Entry::builder(value, as_of)
                    .expires_at(expires_at)
                    .content_type(content_type)
                    .tags(tags)
                    .build();
                self.chain.put(key, &entry).await
            }
        };
        // Whoever asks from now on must not be given what an earlier look or load brings.
        self.flights.detach(key);
        tiers
    }

    pub(crate) fn open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn origin(&self, source: &str) -> Result<Arc<dyn Origin>, Error> {
        self.origins.get(source).map(Arc::clone).ok_or_else(|| self.no_origin(source))
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

    pub(crate) fn count(&self, key: &Key, hit: Option<&Hit>) {
        let tier = hit.and_then(|hit| {
            self.chain.tiers.iter().find(|tier| ServedBy::Tier(tier.name()) == hit.served_by())
        });
        match tier {
            Some(tier) => self.count_hit(key, tier),
            None => self.chain.counters.misses.add(1),
        }
    }

    pub(crate) fn count_hit(&self, key: &Key, tier: &Guard) {
        tier.counters.served.add(1);
        if self.log_hits {
            tracing::info!(target: "larder::hits", tier = tier.name(), %key, "hit");
        }
    }

    /// The whole flight: lower tiers, then the load, then storing.
    pub(crate) async fn fly<F, Fut>(
        self: Arc<Self>,
        leader: Leader,
        key: Key,
        tags: Vec<Tag>,
        load: F,
    ) where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        match self.chain.look_up(&key, &self.tasks).await {
            Ok(None) => {}
            Ok(Some(hit)) => return leader.land(Ok(hit)),
            Err(error) => return leader.land(Err(Error::Tier(error))),
        }
        let (entry, fate) = match self.load(&key, &tags, load).await {
            Ok(loaded) => loaded,
            Err(error) => return leader.land(Err(error)),
        };
        let hit = Hit::new(entry.clone(), ServedBy::Origin);
        if fate != Fate::Store || self.chain.is_barred(&key, &entry) {
            self.chain.counters.not_stored.add(1);
            leader.land(Ok(hit));
            // It was dead, or there would have been no load; a later one stays.
            if fate == Fate::Forget && self.chain.remove_dead(Some(&key)).await.is_err() {
                tracing::debug!(%key, "what is dead stays for now");
            }
            return;
        }
        if self.chain.fill_now(&key, &entry) {
            // Who asks from now on finds it in memory; slower tiers need not be waited for.
            leader.land(Ok(hit));
            self.chain.fill_waiting(&key, &entry).await;
        } else {
            self.chain.fill_waiting(&key, &entry).await;
            leader.land(Ok(hit));
        }
    }

    /// Loads, and tells what is to become of the entry.
    pub(crate) async fn load<F, Fut>(
        &self,
        key: &Key,
        tags: &[Tag],
        load: F,
    ) -> Result<(Entry, Fate), Error>
    where
        F: FnOnce(LoadContext) -> Fut,
        Fut: Future<Output = Result<Loaded, OriginError>>,
    {
        let as_of = self.chain.latest_stamp().await;
        let context = LoadContext { key: key.clone(), as_of };
        self.chain.counters.loads.add(1);
        // The call too: a loader may panic before it has made its future.
        let loaded = AssertUnwindSafe(async move { load(context).await }).catch_unwind().await;
        let loaded = loaded
            .map_err(|panic| Error::LoadPanicked { key: key.clone(), message: message(&*panic) })
            .and_then(|result| result.map_err(Error::from))
            .inspect_err(|_error| self.chain.counters.load_failures.add(1))?;
        let ttl: Ttl = loaded.ttl.unwrap_or_else(|| self.policies.of(key.source()).ttl);
        // From the end of the load: it may have waited long for its turn before it asked.
        let now = self.clock.now();
        let expires_at = expiry(now, ttl);
        let entry = Entry::builder(loaded.value, as_of)
            .expires_at(expires_at.unwrap_or(now))
            .content_type(loaded.content_type)
            .etag(loaded.etag)
            .source_last_modified(loaded.source_last_modified)
            .version(loaded.version)
            .tags(tags.iter().cloned().chain(loaded.tags))
            .build();
        Ok((
            entry,
            match expires_at {
                _ if !key.is_storable() => Fate::Pass,
                None => Fate::Forget,
                Some(_) => Fate::Store,
            },
        ))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    cache_core::Escaped(text.unwrap_or("no message")).to_string()
}
