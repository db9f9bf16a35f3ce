//! What a read found.

use std::{fmt, time::Duration};

use bytes::Bytes;
use cache_core::{Entry, Timestamp};

use crate::Error;

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
#[derive(Clone, Debug)]
pub struct Hit {
    entry: Entry,
    served_by: ServedBy,
    at: Timestamp,
    stale: Option<StaleReason>,
    revalidated: bool,
    failure: Option<Box<Error>>,
}

impl Hit {
    /// A fresh one, at the instant `at`.
    pub(crate) const fn new(entry: Entry, served_by: ServedBy, at: Timestamp) -> Self {
        Self { entry, served_by, at, stale: None, revalidated: false, failure: None }
    }

    /// The same, served although it is not fresh.
    pub(crate) fn stale(mut self, reason: StaleReason, failure: Option<Error>) -> Self {
        self.stale = Some(reason);
        self.failure = failure.map(Box::new);
        self
    }

    pub(crate) fn revalidated(mut self, revalidated: bool) -> Self {
        self.revalidated = revalidated;
        self
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
    pub const fn served_by(&self) -> ServedBy {
        self.served_by
    }

    /// When it was served.
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// How long ago its load ended.
    pub fn age(&self) -> Duration {
        self.at.saturating_since(self.entry.loaded_at())
    }

    /// For how long it is still fresh; zero if it is stale.
    pub fn fresh_for(&self) -> Duration {
        if self.is_stale() {
            Duration::ZERO
        } else {
            self.entry.expires_at().saturating_since(self.at)
        }
    }

    /// Whether it was served although it is no longer fresh.
    pub const fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Why it was served although it is no longer fresh.
    pub const fn stale_reason(&self) -> Option<StaleReason> {
        self.stale
    }

    /// The failure because of which it was served although it is no longer fresh.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_deref()
    }

    /// Whether the origin was asked just now and said that what was stored still holds.
    pub const fn is_revalidated(&self) -> bool {
        self.revalidated
    }
}
