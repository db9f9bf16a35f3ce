//! Watching the versions of sources whose origin can tell them by less than a load.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_core::{Key, Loaded, OriginError, OriginErrorKind};

use crate::{Cache, Error, Hit, ReadOptions, Urgency, inner::Inner, load::Terms};

/// The source under which the answers of probes are stored, so that all who share a tier probe once.
pub(crate) const SOURCE: &str = "larder-probe";
/// Longest time after which a probe that failed is tried again.
const AGAIN: Duration = Duration::from_mins(5);

/// The sources that are probed, and how often.
#[derive(Debug)]
pub(crate) struct Probes {
    each: Vec<(String, Duration)>,
    begun: AtomicBool,
}

impl Probes {
    pub(crate) fn new(each: Vec<(String, Duration)>) -> Self {
        let begun = AtomicBool::new(each.is_empty());
        Self { each, begun }
    }
}

impl Inner {
    /// Has the sources watched from the first read on that has to wait: not before there is a runtime,
    /// or anything to keep fresh.
    pub(crate) fn watch_versions(self: &Arc<Self>) {
        if self.offline
            || self.probes.begun.load(Ordering::Relaxed)
            || self.probes.begun.swap(true, Ordering::Relaxed)
        {
            return;
        }
        for (source, every) in &self.probes.each {
            tokio::spawn(watch(Arc::downgrade(self), source.clone(), *every));
        }
    }
}

/// Probes until the cache is closed or gone.
async fn watch(inner: Weak<Inner>, source: String, every: Duration) {
    while let Some(inner) = inner.upgrade() {
        let cache = Cache { inner };
        let wait = match cache.probe(&source, every).await {
            Ok(wait) => wait,
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::warn!(
                    source,
                    %error,
                    "the source's version is not known; what is stored is taken for current"
                );
                every.min(AGAIN)
            }
        };
        drop(cache);
        tokio::time::sleep(wait).await;
    }
}

impl Cache {
    /// Finds out the version of a source, or learns what another process has found out, and puts it in
    /// force. Gives the time until it is to be done again.
    async fn probe(&self, source: &str, every: Duration) -> Result<Duration, Error> {
        let inner = &self.inner;
        let origin = inner.origin(source)?;
        let asker = inner.asker(source);
        let name = source.to_owned();
        let key = Key::builder(SOURCE).param("source", source).build();
        let options = ReadOptions::default().in_background();
        let hit: Hit = self
            .get_or_load_with(&key, options, move |_context| async move {
                let terms = Terms { urgency: Urgency::Background, slots: None };
                let found = match asker {
                    Some(asker) => asker.ask(&terms, || origin.probe()).await,
                    None => origin.probe().await,
                };
                // How long this source is to be left alone is no matter of the other sources' probes.
                let found = found.map_err(|error| error.with_retry_after(None))?;
                let version = found.ok_or_else(|| {
                    let message = "its origin has no probe that tells a version";
                    OriginError::new(OriginErrorKind::Other, &name, message)
                })?;
                Ok(Loaded::new(version).ttl(every))
            })
            .await?;
        if let Some(failure) = hit.failure() {
            return Err(failure.clone());
        }
        if let Ok(version) = str::from_utf8(hit.value())
            && !version.is_empty()
        {
            inner
                .put_version_in_force(source, version, hit.entry().as_of())
                .await
                .map_err(Error::Tier)?;
        }
        let left = hit.entry().expires_at().saturating_since(inner.clock.now());
        Ok(left.clamp(Duration::from_millis(100).min(every), every))
    }
}
