//! What calls are asked for and what they report.

use std::{borrow::Cow, sync::Arc, time::Duration};

use cache_core::{Key, PutOutcome, Tag, Ttl};

use crate::{PolicyPatch, Slots, Urgency};

/// Where a read looks, and whether it loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadMode {
    /// What is stored and fresh, or else what a load brings.
    #[default]
    Normal,
    /// Load now, whatever is stored, and store it. A `get`, which never loads, finds nothing.
    Refresh,
    /// What is stored, never a load: if nothing usable is stored, that is an error.
    CachedOnly,
    /// As if there were no cache: load, neither read nor store. A `get` finds nothing.
    Bypass,
}

/// How a read goes about it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Where it looks, and whether it loads.
    pub mode: ReadMode,
    /// Whether a stale value will do when there is no fresh one, however stale, as long as it is
    /// not dead. A call that loads tries that first.
    pub allow_stale: bool,
    /// If what is stored under the key is dead, remove it.
    pub purge_expired: bool,
    /// Names of tiers that are not asked. What is loaded is stored in them all the same.
    pub skip: Vec<Cow<'static, str>>,
    /// What holds for this call in place of the source's policy. Of calls that share a load, those
    /// of the first hold for the load.
    pub policy: PolicyPatch,
    /// Who waits for a load: one in the background gives way to others of its source.
    pub urgency: Urgency,
    /// Whether what it brings, or finds in a tier that waits, is left out of the tiers in memory, if there
    /// are others: it is not what somebody asks for just now.
    pub spares_memory: bool,
    /// A bound that its calls count towards, beside those of their sources. A read that finds a load
    /// under way waits for that, whatever its bound.
    pub slots: Option<Slots>,
}

impl ReadOptions {
    fn mode(mode: ReadMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Reads that load now.
    pub fn refresh() -> Self {
        Self::mode(ReadMode::Refresh)
    }

    /// Reads that never load.
    pub fn cached_only() -> Self {
        Self::mode(ReadMode::CachedOnly)
    }

    /// Reads that ignore what is stored.
    pub fn bypass() -> Self {
        Self::mode(ReadMode::Bypass)
    }

    /// Reads that remove what is dead.
    pub fn purge_expired() -> Self {
        Self { purge_expired: true, ..Self::default() }
    }

    /// Takes a stale value, however stale, where there is no fresh one.
    #[must_use]
    pub fn allow_stale(mut self) -> Self {
        self.allow_stale = true;
        self
    }

    /// Leaves out the tier of this name.
    #[must_use]
    pub fn skip(mut self, tier: impl Into<Cow<'static, str>>) -> Self {
        self.skip.push(tier.into());
        self
    }

    /// Loads give way to those that somebody waits for.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.urgency = Urgency::Background;
        self
    }

    /// Leaves what it brings out of the tiers in memory, if there are others.
    #[must_use]
    pub fn sparing_memory(mut self) -> Self {
        self.spares_memory = true;
        self
    }

    /// Its calls count towards a bound that other reads have, too.
    #[must_use]
    pub fn within(mut self, slots: &Slots) -> Self {
        self.slots = Some(slots.clone());
        self
    }

    /// Changes the source's policy for this call.
    #[must_use]
    pub fn policy(mut self, patch: PolicyPatch) -> Self {
        self.policy = patch;
        self
    }
}

/// How a value is stored.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SetOptions {
    /// How long it stays fresh; `None` leaves it to the source's policy.
    pub ttl: Option<Ttl>,
    /// How long it may be served after that; `None` leaves it to the source's policy.
    pub stale_for: Option<Duration>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its media type.
    pub content_type: Option<String>,
    /// Version of the source's data that it was made from; `None`: the one in force.
    pub version: Option<String>,
    /// Whether to answer once memory has it and it is queued for the slower tiers, not only when they
    /// have it. A process that is killed loses what is queued; one that closes the chain does not.
    pub queued: bool,
}

impl SetOptions {
    /// Fresh for `ttl`; zero removes what is stored.
    #[must_use]
    pub fn ttl(ttl: impl Into<Ttl>) -> Self {
        Self { ttl: Some(ttl.into()), ..Self::default() }
    }

    /// Usable for so long after it is no longer fresh, as far as the policy has use for it.
    #[must_use]
    pub fn stale_for(mut self, extra: Duration) -> Self {
        self.stale_for = Some(extra);
        self
    }

    /// Answered once it is queued for the slower tiers; see [`SetOptions::queued`](Self#structfield.queued).
    #[must_use]
    pub fn queued(mut self) -> Self {
        self.queued = true;
        self
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

    /// Says which version of the source's data it was made from.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
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
    /// It is queued for the tier.
    Queued,
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
    /// Loads, fills, refreshes, sets and invalidations that had not ended at the deadline, and were
    /// dropped.
    pub unfinished: usize,
    /// The keys whose loads were among them.
    pub dropped_loads: Vec<Key>,
    /// Tiers that did not close, and why.
    pub failed: Vec<(&'static str, String)>,
}

impl CloseReport {
    /// Whether everything was finished and closed.
    pub fn is_clean(&self) -> bool {
        self.unfinished == 0 && self.failed.is_empty()
    }
}
