//! Tiers: what a storage level promises to the chain.

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    Barrier, CodecStats, CodecUse, Compression, Dictionaries, Entry, Journal, Key, Lease, Result,
    Selector, Stamp, Tag, Timestamp,
};

/// What a tier is, as data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// Entries outlive the process.
    pub persistent: bool,
    /// Other processes see the same entries.
    pub shared: bool,
}

impl Capability {
    /// Neither persistent nor shared.
    pub const LOCAL: Self = Self { persistent: false, shared: false };
    /// Both persistent and shared.
    pub const DURABLE: Self = Self { persistent: true, shared: true };
}

/// What became of an entry that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PutOutcome {
    /// It is stored.
    Stored,
    /// An entry with the same or a later `as_of` is there, and stays.
    Superseded,
    /// A barrier covers it.
    Barred,
    /// The tier does not take it, for example because it is too large.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

impl PutOutcome {
    /// Whether the tier now holds exactly this entry.
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored)
    }

    /// Whether the tier knows something later than the entry.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Superseded | Self::Barred)
    }
}

/// One storage level.
///
/// The promises, each checked by the conformance suite in `tier-testkit`:
///
/// 1. `get` after a `put` that said [`PutOutcome::Stored`] returns that entry, value and metadata
///    unchanged, until it is replaced, removed, barred, evicted or dead.
/// 2. `get` never returns an entry that is dead, nor one that a barrier given to [`Tier::bar`]
///    forbids, in whatever order entry and barrier arrive; a stale entry is returned. One that a
///    barrier expires is returned as [`Entry::to_expired`] makes it.
/// 3. Of several puts for one key the one with the latest `as_of` stays, in whatever order they
///    arrive; an equal one changes nothing while the one that is there is not dead.
/// 4. A miss is `Ok(None)`. An error means that the tier could not tell.
/// 5. Damaged stored data is a miss, never an error, never a wrong value.
/// 6. Dropping a future leaves each entry either wholly written or untouched.
/// 7. Batch forms do exactly what the single forms would, in order.
#[async_trait]
pub trait Tier: Any + fmt::Debug + Send + Sync {
    /// Its name in logs, statistics and errors; unique in its chain.
    fn name(&self) -> &'static str;

    /// What it is.
    fn capability(&self) -> Capability;

    /// The entry stored under `key`, fresh or stale.
    async fn get(&self, key: &Key) -> Result<Option<Entry>>;

    /// Stores `entry` unless a later one, or a barrier, is there. An entry belongs to one key: to
    /// store its value under another one, build another entry.
    async fn put(&self, key: &Key, entry: &Entry) -> Result<PutOutcome>;

    /// [`Tier::put`] on the thread of the caller, who waits for it, where that is quicker than having
    /// another thread do it. `None` if it is not, or cannot be told: nothing has been done then.
    fn try_put(&self, _key: &Key, _entry: &Entry) -> Option<Result<PutOutcome>> {
        None
    }

    /// Removes what is stored under `key`; whether there was something.
    async fn remove(&self, key: &Key) -> Result<bool>;

    /// Remembers the barrier, then removes or expires what it covers; how many entries went, or
    /// were made stale by it.
    async fn bar(&self, barrier: &Barrier) -> Result<u64>;

    /// [`Tier::get`] for several keys; results in the order of `keys`.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>>;

    /// [`Tier::put`] for several entries; outcomes in their order.
    async fn put_many(&self, entries: &[(Key, Entry)]) -> Result<Vec<PutOutcome>>;

    /// [`Tier::remove`] for several keys; how many entries went.
    async fn remove_many(&self, keys: &[Key]) -> Result<u64>;

    /// Makes durable what has been accepted and releases what is held. Later calls may fail.
    async fn close(&self) -> Result<()>;

    /// Damaged values found, and given up, since the tier was made; none where nothing is stored
    /// that can be damaged.
    fn corrupt(&self) -> u64 {
        0
    }

    /// The synchronous side of a tier that never waits for anything.
    fn as_sync(&self) -> Option<&dyn SyncTier> {
        None
    }

    /// The side that orders loads and invalidations of several processes.
    fn as_stamped(&self) -> Option<&dyn Stamped> {
        None
    }

    /// The side that tells what other processes change.
    fn as_journal(&self) -> Option<&dyn Journal> {
        None
    }

    /// The side through which processes agree on who loads.
    fn as_lease(&self) -> Option<&dyn Lease> {
        None
    }

    /// What it compresses values with, by way of [`Entry::pack`].
    fn compression(&self) -> Option<&Arc<dyn Compression>> {
        None
    }

    /// The side that keeps dictionaries.
    fn as_dictionaries(&self) -> Option<&dyn Dictionaries> {
        None
    }

    /// The side that looks at, and cleans, what is stored.
    fn as_inspect(&self) -> Option<&dyn Inspect> {
        None
    }
}

/// A tier that answers at once, without I/O: the chain asks it inside the call, before it makes a
/// future.
pub trait SyncTier: fmt::Debug + Send + Sync + 'static {
    /// [`Tier::get`] at the instant `now`, of the key with this text.
    fn get_now(&self, key: &str, now: Timestamp) -> Option<Entry>;

    /// [`Tier::put`].
    fn put_now(&self, key: &Key, entry: &Entry) -> PutOutcome;

    /// [`Tier::bar`].
    fn bar_now(&self, barrier: &Barrier) -> u64;

    /// Gives up what it has under `key` if that was loaded before `as_of`.
    fn give_up_older(&self, key: &Key, as_of: Stamp);

    /// Gives up everything it has; it may come again.
    fn give_up_all(&self);

    /// Takes note that an entry that it gave has been decoded, and occupies more; see
    /// [`Entry::counting_decoded`]. A tier that does not weigh need not.
    fn weigh_again(&self, _key: &str, _entry: &Entry) {}
}

/// A tier that holds stamps of other processes, or of earlier runs of this one.
///
/// The chain asks before it issues a stamp, so that what happens here now is later than all that is
/// stored, even if another process's wall clock was ahead, or this machine's was set back.
#[async_trait]
pub trait Stamped: fmt::Debug + Send + Sync + 'static {
    /// A stamp that no entry and no barrier in the tier exceeds.
    async fn latest_stamp(&self) -> Result<Stamp>;
}

/// Which entries to look at; parts that are given must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Whose key has these first segments, whole segments only; a source is one segment.
    pub prefix: Option<String>,
    /// With this tag.
    pub tag: Option<Tag>,
}

impl Filter {
    /// Every entry.
    pub fn all() -> Self {
        Self::default()
    }

    /// Entries of `source`.
    pub fn source(source: impl Into<String>) -> Self {
        Self::prefix(source)
    }

    /// Entries whose key is `prefix`, or has its segments as its first; one `:` at its end means
    /// the same.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let mut prefix = prefix.into();
        if prefix.ends_with(':') {
            prefix.pop();
        }
        Self { prefix: Some(prefix), tag: None }
    }

    /// Entries with `tag`.
    pub fn tag(tag: Tag) -> Self {
        Self { prefix: None, tag: Some(tag) }
    }

    /// Narrows to entries with `tag`.
    #[must_use]
    pub fn and_tag(mut self, tag: Tag) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Whether an entry matches.
    pub fn matches(&self, key: &Key, tags: &[Tag]) -> bool {
        self.prefix.as_deref().is_none_or(|prefix| key.is_below(prefix))
            && self.tag.as_ref().is_none_or(|tag| tags.contains(tag))
    }

    /// What an invalidation of the matching entries covers.
    pub fn selector(&self) -> Selector {
        match (&self.prefix, &self.tag) {
            (None, None) => Selector::All,
            (Some(prefix), None) => Selector::Prefix(prefix.as_str().into()),
            (None, Some(tag)) => Selector::Tag(tag.clone()),
            (Some(prefix), Some(tag)) => Selector::PrefixTag(prefix.as_str().into(), tag.clone()),
        }
    }
}

impl From<&Filter> for Selector {
    fn from(filter: &Filter) -> Self {
        filter.selector()
    }
}

/// An entry without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its key.
    pub key: Key,
    /// Length of the value, in bytes.
    pub raw_bytes: u64,
    /// Length as stored, in bytes.
    pub stored_bytes: u64,
    /// From when on it is not fresh.
    pub expires_at: Timestamp,
    /// From when on it is never served.
    pub stale_until: Timestamp,
    /// Whether it was made stale before its time.
    pub expired: bool,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// What one source occupies in a tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceUsage {
    /// The source.
    pub source: String,
    /// Entries, dead ones included until they are removed.
    pub entries: u64,
    /// Length of their values, in bytes.
    pub raw_bytes: u64,
    /// Length as stored, in bytes.
    pub stored_bytes: u64,
}

/// What one source's entries of one codec and dictionary occupy in a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecUsage {
    /// Whose entries, and how their values are stored.
    pub of: CodecUse,
    /// Entries, dead ones included until they are removed.
    pub entries: u64,
    /// Length of their values, in bytes.
    pub raw_bytes: u64,
    /// Length as stored, in bytes.
    pub stored_bytes: u64,
    /// What compressing and decompressing such values has taken, as far as it was noted in the tier:
    /// by all processes, also for entries that have gone since. Bytes are not noted.
    pub work: CodecStats,
}

/// What a tier holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// By source, sorted by name.
    pub sources: Vec<SourceUsage>,
    /// The same by source, codec and dictionary, sorted; empty in a tier that stores values only as
    /// they are.
    pub codecs: Vec<CodecUsage>,
    /// Bytes occupied in all, with keys, metadata and bookkeeping: memory, or size on disk.
    pub occupied_bytes: u64,
    /// Of these, bytes that hold nothing at present: they are used again, or given back.
    pub free_bytes: u64,
    /// Of these, bytes of a log of what was written lately, if the tier keeps one.
    pub log_bytes: u64,
    /// Most bytes it may occupy, beside such a log, if bounded.
    pub capacity_bytes: Option<u64>,
    /// Entries it gave up to stay within its bound, since it was opened.
    pub evictions: u64,
}

impl Usage {
    /// The sum over all sources; its `source` is empty.
    pub fn total(&self) -> SourceUsage {
        self.sources.iter().fold(SourceUsage::default(), |sum, one| SourceUsage {
            source: String::new(),
            entries: sum.entries + one.entries,
            raw_bytes: sum.raw_bytes + one.raw_bytes,
            stored_bytes: sum.stored_bytes + one.stored_bytes,
        })
    }
}

/// What is wrong with something that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file is not as the storage engine wrote it, or an index does not fit its table.
    File,
    /// An entry is not as it was written. It is never served; repairing removes it.
    Entry,
    /// An entry's times make no sense. Repairing removes it.
    Times,
    /// The index of tags does not fit the entries' tags.
    Tags,
    /// Sums, or what is noted of uses and stamps, are not those of the entries.
    Counters,
    /// A stored invalidation, or what is noted of an import, cannot be right. Repairing forgets all
    /// that it may have covered.
    Barriers,
    /// A change that others are to read of cannot be right. Repairing has them start anew.
    Journal,
    /// A note of who loads a key cannot be right. Repairing removes it.
    Leases,
    /// A dictionary is damaged, or missing. Repairing stores it anew if it is known, and otherwise
    /// removes the entries that need it.
    Dictionaries,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Entry => "entry",
            Self::Times => "times",
            Self::Tags => "tags",
            Self::Counters => "counters",
            Self::Barriers => "barriers",
            Self::Journal => "journal",
            Self::Leases => "leases",
            Self::Dictionaries => "dictionaries",
        })
    }
}

/// Problems of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Their kind.
    pub kind: ProblemKind,
    /// How many.
    pub count: u64,
    /// How many of them were mended, or removed.
    pub repaired: u64,
    /// The first of them, for people.
    pub examples: Vec<String>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validation {
    /// Entries that were looked at.
    pub entries: u64,
    /// What is wrong, by kind.
    pub problems: Vec<Problem>,
}

impl Validation {
    /// Most examples that are kept of a kind.
    pub const EXAMPLES: usize = 10;

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether all that was wrong was mended, or removed.
    pub fn is_repaired(&self) -> bool {
        self.problems.iter().all(|problem| problem.repaired == problem.count)
    }

    /// Adds a problem.
    pub fn add(&mut self, kind: ProblemKind, example: impl fmt::Display) {
        let problem = self.of(kind);
        problem.count += 1;
        if problem.examples.len() < Self::EXAMPLES {
            problem.examples.push(example.to_string());
        }
    }

    /// Notes that so many problems of a kind were mended.
    pub fn note_repaired(&mut self, kind: ProblemKind, count: u64) {
        if let Some(problem) = self.problems.iter_mut().find(|problem| problem.kind == kind) {
            problem.repaired = (problem.repaired + count).min(problem.count);
        }
    }

    /// How many problems of a kind there are.
    pub fn count(&self, kind: ProblemKind) -> u64 {
        let problem = self.problems.iter().find(|problem| problem.kind == kind);
        problem.map_or(0, |problem| problem.count)
    }

    fn of(&mut self, kind: ProblemKind) -> &mut Problem {
        let at = self.problems.partition_point(|problem| problem.kind < kind);
        if self.problems.get(at).is_none_or(|problem| problem.kind != kind) {
            let none = Problem { kind, count: 0, repaired: 0, examples: Vec::new() };
            self.problems.insert(at, none);
        }
        &mut self.problems[at]
    }
}

/// Looking at what is stored. Nothing here changes recency or promotes.
#[async_trait]
pub trait Inspect: fmt::Debug + Send + Sync + 'static {
    /// Up to `limit` entries that match, in the order of their keys, after the key `after`.
    async fn scan(
        &self,
        filter: &Filter,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Summary>>;

    /// What the tier holds.
    async fn usage(&self) -> Result<Usage>;

    /// Checks everything that is stored, which may take long; with `repair` it also mends or removes
    /// what is wrong, so that the next check finds nothing.
    async fn validate(&self, repair: bool) -> Result<Validation>;

    /// Removes entries that are dead at `now`, of `key` alone or of all; how many went.
    async fn remove_dead(&self, now: Timestamp, key: Option<&Key>) -> Result<u64>;
}
