//! What a loader is told.

use std::{fmt, sync::Arc};

use cache_core::{Entry, Key, Loaded, OriginError, OriginErrorKind, Stamp};

use crate::{Policy, Urgency};

/// What a loader may want to know about the load it does.
///
/// What it wants otherwise than the policy says, it says in its answer: see [`Loaded`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadContext {
    /// The key the value will be stored under.
    pub key: Key,
    /// The stamp the value will have: the instant the load started.
    pub as_of: Stamp,
    /// What is stored and no longer fresh, or to be refreshed. Its validators (`etag`,
    /// `source_last_modified`, `version`) allow a conditional request.
    pub stored: Option<Entry>,
    /// What holds for this load.
    pub policy: Arc<Policy>,
    /// Who waits for it.
    pub urgency: Urgency,
}

/// Who waits for one call that answers all of these: somebody, if somebody does for one of them.
pub(crate) fn urgency_of(contexts: &[LoadContext]) -> Urgency {
    let waited_for = contexts.iter().any(|one| one.urgency == Urgency::Foreground);
    if waited_for || contexts.is_empty() { Urgency::Foreground } else { Urgency::Background }
}

impl LoadContext {
    /// The answer that what is stored still holds. An error if nothing is stored.
    pub fn not_modified(&self) -> Loaded {
        Loaded::not_modified()
    }

    /// Gives up without a failure of the origin: what is stale may be served instead. `reason` must
    /// hold no secrets.
    pub fn fail(&self, reason: impl fmt::Display) -> OriginError {
        OriginError::new(OriginErrorKind::GaveUp, self.key.source(), reason)
    }
}
