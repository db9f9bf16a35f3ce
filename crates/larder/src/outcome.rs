//! What calls are asked for and what they report.

use std::{sync::Arc, time::Duration};

use cache_core::{PutOutcome, Tag, Ttl};

/// How a read goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Do as if nothing were stored: a `get` finds nothing, a `get_or_load` loads and does not
    /// store.
    pub bypass: bool,
    /// If what is stored under the key is dead, remove it.
    pub purge_expired: bool,
}

impl ReadOptions {
    /// Reads that ignore what is stored.
    pub const fn bypass() -> Self {
        Self { bypass: true, purge_expired: false }
    }

    /// Reads that remove what is dead.
    pub const fn purge_expired() -> Self {
        Self { bypass: false, purge_expired: true }
    }
}

/// How a value is stored.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SetOptions {
    /// How long it stays fresh; `None` leaves it to the source's policy.
    pub ttl: Option<Ttl>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its media type.
    pub content_type: Option<String>,
}

impl SetOptions {
    /// Fresh for `ttl`; zero removes what is stored.
    #[must_use]
    pub fn ttl(ttl: Duration) -> Self {
        Self { ttl: Some(Ttl::For(ttl)), ..Self::default() }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Says what kind of value it is.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }
}

/// What became of a value in one tier.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PutReport {
    /// The tier answered.
    Done(PutOutcome),
    /// The tier failed.
    Failed(Arc<cache_core::Error>),
    /// A lifetime of zero: what was there has been removed.
    NotStored,
}

/// What became of a value, tier by tier, in the order of the chain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetOutcome {
    /// By tier.
    pub tiers: Vec<(&'static str, PutReport)>,
}

impl SetOutcome {
    /// Names of the tiers that hold the value now.
    pub fn stored_in(&self) -> impl Iterator<Item = &'static str> {
        self.tiers.iter().filter_map(|(name, report)| match report {
            PutReport::Done(outcome) if outcome.is_stored() => Some(*name),
            _ => None,
        })
    }
}

/// What an invalidation or a clean-up removed, tier by tier.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Removed {
    /// Entries that went, by tier; `None` where the tier failed.
    pub tiers: Vec<(&'static str, Option<u64>)>,
}

impl Removed {
    /// Entries that went, counting one that several tiers held once: the most of any tier.
    pub fn entries(&self) -> u64 {
        self.tiers.iter().filter_map(|(_, removed)| *removed).max().unwrap_or(0)
    }
}

/// What closing left undone.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Loads and fills that had not ended at the deadline.
    pub unfinished: usize,
    /// Tiers that did not close, and why.
    pub failed: Vec<(&'static str, String)>,
}

impl CloseReport {
    /// Whether everything was finished and closed.
    pub fn is_clean(&self) -> bool {
        self.unfinished == 0 && self.failed.is_empty()
    }
}
