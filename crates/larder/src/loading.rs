//! The keys that are being loaded, and what has come for them meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cache_core::{Key, Stamp};

/// The keys that are being loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loading(Arc<Mutex<HashMap<Key, Load>>>);

#[derive(Debug, Default)]
struct Load {
    /// How many are under way.
    count: usize,
    /// The newest that was stored since the first of them began.
    newest: Stamp,
}

/// A load under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    loading: Loading,
    keys: Vec<Key>,
}

impl Loading {
    /// Notes that a load of these keys begins; it ends when the guard is dropped.
    pub(crate) fn begin(&self, keys: Vec<Key>) -> UnderWay {
        let mut all = self.lock();
        for key in &keys {
            all.entry(key.clone()).or_default().count += 1;
        }
        UnderWay { loading: self.clone(), keys }
    }

    /// Notes that something of this stamp is stored under a key.
    pub(crate) fn note(&self, key: &Key, as_of: Stamp) {
        if let Some(load) = self.lock().get_mut(key) {
            load.newest = load.newest.max(as_of);
        }
    }

    /// Whether something newer was stored while a load of this stamp was under way.
    pub(crate) fn is_outdated(&self, key: &Key, as_of: Stamp) -> bool {
        self.lock().get(key).is_some_and(|load| load.newest > as_of)
    }

    /// The keys, sorted.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.lock().keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Load>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut all = self.loading.lock();
        for key in &self.keys {
            if let Some(load) = all.get_mut(key) {
                load.count -= 1;
                if load.count == 0 {
                    all.remove(key);
                }
            }
        }
    }
}
