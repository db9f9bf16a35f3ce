//! What a loader is told.

use cache_core::{Key, Stamp};

/// What a loader may want to know about the load it does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadContext {
    /// The key the value will be stored under.
    pub key: Key,
    /// The stamp the value will have: the instant the load started.
    pub as_of: Stamp,
}
