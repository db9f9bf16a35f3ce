//! What a loader is told.

use std::{fmt, sync::Arc};

use cache_core::{Entry, Key, Loaded, OriginError, OriginErrorKind, Stamp};

use origin_limits::{Slot, Slots};

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
    /// What its call counts towards.
    pub(crate) slots: Option<Slots>,
}

/// On which terms a call is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) urgency: Urgency,
    pub(crate) slots: Option<Slots>,
}

impl Terms {
    /// Those of one call that answers all of these: somebody waits for it, if somebody does for one of
    /// them.
    pub(crate) fn of(contexts: &[LoadContext]) -> Self {
        let waited_for = contexts.iter().any(|one| one.urgency == Urgency::Foreground);
        let urgency = if waited_for { Urgency::Foreground } else { Urgency::Background };
        Self { urgency, slots: contexts.first().and_then(|one| one.slots.clone()) }
    }

    /// A place for a call to a source without limits of its own.
    pub(crate) async fn slot(&self, source: &str) -> Result<Option<Slot>, OriginError> {
        match &self.slots {
            None => Ok(None),
            Some(slots) => {
                let slot = slots.take().await.ok_or_else(|| stopped(source))?;
                slots.note_call();
                Ok(Some(slot))
            }
        }
    }
}

/// The error of a call that is not made any more.
pub(crate) fn stopped(source: &str) -> OriginError {
    OriginError::new(OriginErrorKind::GaveUp, source, "it was stopped before its call was made")
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
