//! When not to ask an origin: after a failure, and when it asked to be left alone.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_core::{Key, OriginErrorKind, Timestamp};

use crate::Error;

/// Past this many keys, those whose time is over are swept out.
const SWEEP_ABOVE: usize = 1_024;
/// Longest that an origin may stop loads by `Retry-After`.
const LONGEST: Duration = Duration::from_hours(24);

/// Until when not to load, and why.
#[derive(Debug)]
struct Pauses<K>(AtomicBool, Mutex<HashMap<K, (Timestamp, Error)>>);

impl<K> Default for Pauses<K> {
    fn default() -> Self {
        Self(AtomicBool::new(false), Mutex::default())
    }
}

impl<K: std::hash::Hash + Eq> Pauses<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, (Timestamp, Error)>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, key: K, until: Timestamp, error: &Error, now: Timestamp) {
        let mut all = self.lock();
        // Only when it would grow: not at each of many failures.
        if all.len() >= SWEEP_ABOVE && all.len() == all.capacity() {
            all.retain(|_, (until, _)| now < *until);
        }
        // A longer one stays.
        if all.get(&key).is_none_or(|(longer, _)| *longer < until) {
            all.insert(key, (until, error.clone()));
        }
        self.0.store(true, Ordering::Release);
    }

    fn get<Q>(&self, key: &Q, now: Timestamp) -> Option<(Timestamp, Error)>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        // The usual case, that nothing has failed, passes without the lock.
        if !self.0.load(Ordering::Acquire) {
            return None;
        }
        let mut all = self.lock();
        let found = all.get(key).cloned();
        if found.as_ref().is_some_and(|(until, _)| *until <= now) {
            all.remove(key);
            return None;
        }
        found
    }

    fn remove<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        if self.0.load(Ordering::Acquire) {
            self.lock().remove(key);
        }
    }
}

/// The keys that are not loaded for a while because their load failed while something stale was
/// there, and the sources that asked to be left alone.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    keys: Pauses<Key>,
    sources: Pauses<Box<str>>,
}

impl Throttle {
    /// Loads of `key` failed with `error`: not again for `pause`.
    pub(crate) fn failed(&self, key: &Key, error: &Error, pause: Duration, now: Timestamp) {
        if !pause.is_zero() {
            self.keys.set(key.clone(), now.saturating_add(pause), error, now);
        }
    }

    /// A load of `key` has worked.
    pub(crate) fn worked(&self, key: &Key) {
        self.keys.remove(key);
    }

    /// How the load failed because of which there is none yet.
    pub(crate) fn of_key(&self, key: &Key, now: Timestamp) -> Option<Error> {
        self.keys.get(key, now).map(|(_, error)| error)
    }

    /// Stops all loads of a source that answered 429 or 503 with a `Retry-After`.
    pub(crate) fn heed(&self, source: &str, error: &Error, now: Timestamp) {
        let Error::Origin(origin) = error else { return };
        let OriginErrorKind::Status(429 | 503) = origin.kind() else { return };
        let Some(after) = origin.retry_after().filter(|after| !after.is_zero()) else { return };
        let after = after.min(LONGEST);
        tracing::warn!(
            source,
            ?after,
            "the origin asks to be left alone; nothing is loaded from it"
        );
        self.sources.set(source.into(), now.saturating_add(after), error, now);
    }

    /// Why a source is not asked now, and for how long not.
    pub(crate) fn of_source(&self, source: &str, now: Timestamp) -> Option<Error> {
        let (until, error) = self.sources.get(source, now)?;
        let Error::Origin(cause) = error else { return None };
        Some(Error::LeftAlone {
            name: cache_core::Escaped(source).to_string(),
            after: until.saturating_since(now),
            cause,
        })
    }
}
