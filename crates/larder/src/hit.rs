//! What a read found.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use cache_core::{Entry, Timestamp};

use crate::{
    Error,
    note::{By, Note},
};

/// Who answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServedBy {
    /// The tier of this name.
    Tier(&'static str),
    /// The origin.
    Origin,
}

impl fmt::Display for ServedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tier(name) => name,
            Self::Origin => "origin",
        })
    }
}

/// Why a value was served that is not fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// It is being refreshed (`stale_while_revalidate`).
    Revalidating,
    /// Its load failed (`stale_if_error`); [`Hit::failure`] says how.
    LoadFailed,
    /// Its load takes longer than `soft_timeout`, and goes on.
    LoadSlow,
    /// Its load failed a short while ago (`throttle`); [`Hit::failure`] says how.
    Throttled,
    /// The cache is offline.
    Offline,
    /// The call asked for stale values too.
    Asked,
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revalidating => "it is being refreshed",
            Self::LoadFailed => "its load failed",
            Self::LoadSlow => "its load takes long",
            Self::Throttled => "its load failed a short while ago",
            Self::Offline => "the cache is offline",
            Self::Asked => "stale values were asked for",
        })
    }
}

/// An entry, who had it, and how good it is.
///
/// Two words, returned in registers: a hit in memory is handed on several times, and moving a larger
/// one through memory costs as much as the look-up (measured).
#[derive(Clone)]
pub struct Hit {
    entry: Entry,
    note: Note,
}

impl Hit {
    /// A fresh one, at the instant `at`.
    #[inline]
    pub(crate) fn new(entry: Entry, by: By, at: Timestamp) -> Self {
        Self { entry, note: Note::new(by, at) }
    }

    /// The same, served although it is not fresh.
    pub(crate) fn stale(mut self, reason: StaleReason, failure: Option<Error>) -> Self {
        self.note = self.note.stale(reason);
        if let Some(failure) = failure {
            self.entry = self.entry.with_remark(Arc::new(failure));
        }
        self
    }

    pub(crate) fn revalidated(mut self, revalidated: bool) -> Self {
        self.note = self.note.revalidated(revalidated);
        self
    }

    pub(crate) const fn by(&self) -> By {
        self.note.by()
    }

    /// The value; empty if the answer is that there is none.
    pub fn value(&self) -> &Bytes {
        self.entry.value()
    }

    /// Whether the answer is that there is none.
    pub fn is_absent(&self) -> bool {
        self.entry.is_absent()
    }

    /// The entry: value, validators and other metadata.
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The entry alone.
    pub fn into_entry(self) -> Entry {
        self.entry
    }

    /// Who had it.
    pub fn served_by(&self) -> ServedBy {
        self.by().name()
    }

    /// When it was served.
    pub const fn at(&self) -> Timestamp {
        self.note.at()
    }

    /// How long ago its load ended.
    pub fn age(&self) -> Duration {
        self.at().saturating_since(self.entry.loaded_at())
    }

    /// For how long it is still fresh; zero if it is stale.
    pub fn fresh_for(&self) -> Duration {
        if self.is_stale() {
            Duration::ZERO
        } else {
            self.entry.expires_at().saturating_since(self.at())
        }
    }

    /// Whether it was served although it is no longer fresh.
    pub const fn is_stale(&self) -> bool {
        self.stale_reason().is_some()
    }

    /// Why it was served although it is no longer fresh.
    pub const fn stale_reason(&self) -> Option<StaleReason> {
        self.note.stale_reason()
    }

    /// The failure because of which it was served although it is no longer fresh.
    pub fn failure(&self) -> Option<&Error> {
        self.stale_reason()?;
        self.entry.remark()?.downcast_ref()
    }

    /// Whether the origin was asked just now and said that what was stored still holds.
    pub const fn is_revalidated(&self) -> bool {
        self.note.is_revalidated()
    }
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("entry", &self.entry)
            .field("served_by", &self.served_by())
            .field("at", &self.at())
            .field("stale", &self.stale_reason())
            .field("revalidated", &self.is_revalidated())
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use cache_core::Stamp;

    use super::*;

    #[test]
    fn a_hit_is_two_words_also_where_there_may_be_none() {
        assert_eq!(size_of::<Hit>(), 16);
        assert_eq!(size_of::<Option<Hit>>(), 16);
    }

    #[test]
    fn a_hit_tells_what_it_was_told() {
        let entry = Entry::builder("v", Stamp::ZERO).build();
        for millis in [0, 1, 1_767_225_600_000, -5] {
            let at = Timestamp::from_millis(millis);
            let hit = Hit::new(entry.clone(), By::tier("memory"), at);
            assert_eq!((hit.at(), hit.served_by()), (at, ServedBy::Tier("memory")));
            assert!(!hit.is_stale() && !hit.is_revalidated() && hit.failure().is_none());
            let hit = hit.revalidated(true).stale(StaleReason::Asked, Some(Error::Closed));
            assert_eq!((hit.at(), hit.served_by()), (at, ServedBy::Tier("memory")));
            assert_eq!(hit.stale_reason(), Some(StaleReason::Asked));
            assert!(hit.is_revalidated() && matches!(hit.failure(), Some(Error::Closed)));
        }
        let late = Hit::new(entry, By::ORIGIN, Timestamp::NEVER);
        assert_eq!(late.served_by(), ServedBy::Origin);
        assert!(late.at().as_millis() > 1 << 46, "as late as it can tell");
    }
}
