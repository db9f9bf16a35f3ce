//! Which version of its data each source has now.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use cache_core::Stamp;

use crate::policy::Policies;

/// The versions in force: configured, set, or learned from an answer of the origin.
#[derive(Debug)]
pub(crate) struct Versions {
    /// Lets the usual case, that no source has one, pass without the lock.
    any: AtomicBool,
    current: RwLock<HashMap<Box<str>, Current>>,
}

#[derive(Clone, Debug)]
struct Current {
    version: Arc<str>,
    /// When it was set, or the load that brought it started.
    since: Stamp,
}

impl Versions {
    pub(crate) fn new(policies: &Policies) -> Self {
        let configured = policies.sources.iter().filter_map(|(source, policy)| {
            let version = Arc::clone(policy.version.as_ref()?);
            Some((source.as_str().into(), Current { version, since: Stamp::ZERO }))
        });
        let current: HashMap<_, _> = configured.collect();
        Self { any: AtomicBool::new(!current.is_empty()), current: RwLock::new(current) }
    }

    /// The version in force for a source, if one is known.
    pub(crate) fn of(&self, source: &str) -> Option<Arc<str>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.get(source).map(|current| Arc::clone(&current.version))
    }

    /// Puts a version in force from `since` on, unless a later one is; whether it is another one
    /// than before. Told once.
    pub(crate) fn set(&self, source: &str, version: &str, since: Stamp) -> bool {
        let mut all = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Current { version: version.into(), since };
        let before = match all.get_mut(source) {
            Some(current) if since < current.since => return false,
            Some(current) if *current.version == *version => {
                current.since = since;
                return false;
            }
            Some(current) => Some(std::mem::replace(current, new()).version),
            None => {
                all.insert(source.into(), new());
                None
            }
        };
        self.any.store(true, Ordering::Release);
        let before = before.as_deref().unwrap_or("none known");
        tracing::info!(source, old = before, new = version, "the source has another version");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    fn at(packed: u64) -> Stamp {
        Stamp::from_packed(packed)
    }

    #[test]
    fn the_version_of_the_load_that_started_last_is_in_force() {
        let mut policies = Policies::default();
        policies.sources.insert("census".into(), Policy::default().version("2021").into());
        let versions = Versions::new(&policies);
        assert_eq!(versions.of("census").as_deref(), Some("2021"));
        assert_eq!(versions.of("bls"), None);
        assert!(!versions.set("census", "2021", at(1)), "it is the same");
        assert!(versions.set("census", "2022", at(5)));
        assert!(!versions.set("census", "2021", at(4)), "a slow load that started before");
        assert_eq!(versions.of("census").as_deref(), Some("2022"));
        assert!(versions.set("bls", "a", at(1)), "the first one that is known");
    }
}
