//! How long values of a source stay fresh.

use std::{collections::HashMap, time::Duration};

use cache_core::{Timestamp, Ttl};

/// What holds for the values of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// How long a value stays fresh.
    pub ttl: Ttl,
}

impl Policy {
    /// Values stay fresh for `ttl`; zero means that they are not stored.
    pub const fn ttl(ttl: Duration) -> Self {
        Self { ttl: Ttl::For(ttl) }
    }

    /// Values stay fresh for ever.
    pub const fn forever() -> Self {
        Self { ttl: Ttl::Never }
    }
}

impl Default for Policy {
    /// 30 days.
    fn default() -> Self {
        Self::ttl(Duration::from_hours(30 * 24))
    }
}

/// The policies of all sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) default: Policy,
    pub(crate) sources: HashMap<String, Policy>,
}

impl Policies {
    pub(crate) fn of(&self, source: &str) -> Policy {
        self.sources.get(source).copied().unwrap_or(self.default)
    }
}

/// When a value loaded at `now` expires; `None` if it is not to be stored.
pub(crate) fn expiry(now: Timestamp, ttl: Ttl) -> Option<Timestamp> {
    match ttl {
        Ttl::Never => Some(Timestamp::NEVER),
        Ttl::For(ttl) if ttl.as_millis() == 0 => None,
        Ttl::For(ttl) => Some(now.saturating_add(ttl)),
    }
}
