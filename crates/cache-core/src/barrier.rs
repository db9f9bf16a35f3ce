//! Barriers: invalidations that win whatever arrives late.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{AsKey, Entry, Escaped, Key, Stamp, Tag, key};

/// What an invalidation covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// One key.
    Key(Key),
    /// Every entry with this tag.
    Tag(Tag),
    /// Every entry whose key has this text as its first segments: `census` selects `census` and
    /// `census:acs:2022`, not `census_acs`. A source is a prefix of one segment.
    Prefix(Box<str>),
    /// Every entry below this prefix that has this tag.
    PrefixTag(Box<str>, Tag),
    /// Every entry of the source (first) whose version is not this one (second).
    OtherVersion(Box<str>, Box<str>),
    /// Everything.
    All,
}

impl Selector {
    /// Every entry of a source.
    pub fn source(name: &str) -> Self {
        Self::prefix(name)
    }

    /// Every entry below a prefix; one `:` at its end means the same.
    pub fn prefix(prefix: &str) -> Self {
        Self::Prefix(prefix.strip_suffix(':').unwrap_or(prefix).into())
    }

    /// Whether it covers the entry stored under `key`, by names alone.
    pub fn selects(&self, key: &Key, entry: &Entry) -> bool {
        self.may_select(key)
            && match self {
                Self::Tag(tag) | Self::PrefixTag(_, tag) => entry.tags().contains(tag),
                Self::OtherVersion(_, version) => entry.version() != Some(version),
                Self::Key(_) | Self::Prefix(_) | Self::All => true,
            }
    }

    /// Whether it may cover an entry stored under `key`, of which nothing else is known.
    pub fn may_select(&self, key: &Key) -> bool {
        match self {
            Self::Key(selected) => selected == key,
            Self::Prefix(prefix) | Self::PrefixTag(prefix, _) => key.is_below(prefix),
            Self::OtherVersion(source, _) => &**source == key.source(),
            Self::Tag(_) | Self::All => true,
        }
    }
}

impl From<&Key> for Selector {
    fn from(key: &Key) -> Self {
        Self::Key(key.clone())
    }
}

impl From<&Tag> for Selector {
    fn from(tag: &Tag) -> Self {
        Self::Tag(tag.clone())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Prefix(prefix) => write!(f, "keys below {}", Escaped(prefix)),
            Self::PrefixTag(prefix, tag) => {
                write!(f, "keys below {} with tag {tag}", Escaped(prefix))
            }
            Self::OtherVersion(source, version) => {
                let (source, version) = (Escaped(source), Escaped(version));
                write!(f, "source {source} with another version than {version}")
            }
            Self::All => f.write_str("everything"),
        }
    }
}

/// What happens to entries that a barrier covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Effect {
    /// They are never served again.
    #[default]
    Forget,
    /// They are stale from then on, and usable as a fallback until their `stale_until`.
    Expire,
}

/// An invalidation: entries it selects that were loaded at or before its stamp are not fresh, and
/// unless its effect is milder never served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Barrier {
    /// What it covers.
    pub selector: Selector,
    /// The instant of the invalidation.
    pub stamp: Stamp,
    /// What it does.
    pub effect: Effect,
}

impl Barrier {
    /// A barrier that forgets.
    pub fn forget(selector: Selector, stamp: Stamp) -> Self {
        Self { selector, stamp, effect: Effect::Forget }
    }

    /// A barrier that makes stale.
    pub fn expire(selector: Selector, stamp: Stamp) -> Self {
        Self { selector, stamp, effect: Effect::Expire }
    }

    /// Whether it covers the entry stored under `key`.
    pub fn covers(&self, key: &Key, entry: &Entry) -> bool {
        entry.as_of() <= self.stamp && self.selector.selects(key, entry)
    }
}

/// What a set of barriers says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No barrier covers it.
    Passes,
    /// It is stale; see [`Entry::to_expired`].
    Expired,
    /// It is never served.
    Barred,
}

/// Barriers live at least this long: longer than any load may take.
const KEEP_MILLIS: i64 = 24 * 60 * 60 * 1_000;
/// Below this many barriers nothing is dropped.
const PRUNE_ABOVE: usize = 4_096;

/// Source of epochs, shared by all sets so that no two sets ever have the same epoch: an entry
/// that passed one set can then never be mistaken for having passed another.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// The barriers a tier or a chain knows, with a check that costs one atomic load when none has
/// been added since the entry last passed.
#[derive(Debug)]
pub struct BarrierSet {
    epoch: AtomicU64,
    barriers: RwLock<Barriers>,
}

#[derive(Debug, Default)]
struct Barriers {
    forget: Stamps,
    expire: Stamps,
    /// Size at which to look for old barriers again; grows with what is recent, so that a burst of
    /// invalidations does not pay for a look each.
    prune_above: usize,
}

/// The latest stamp by selector.
#[derive(Debug, Default)]
struct Stamps {
    all: Stamp,
    /// The latest that selects by tag alone, and by prefix those with any tag: for values whose tags
    /// are not known yet.
    any_tag: Stamp,
    any_tag_below: HashMap<Box<str>, Stamp>,
    keys: HashMap<Key, Stamp>,
    tags: HashMap<Tag, Stamp>,
    prefixes: HashMap<Box<str>, Stamp>,
    prefix_tags: HashMap<Tag, HashMap<Box<str>, Stamp>>,
    /// How many there are in `prefix_tags`.
    pairs: usize,
    other_versions: HashMap<Box<str>, HashMap<Box<str>, Stamp>>,
}

impl BarrierSet {
    /// A set without barriers.
    pub fn new() -> Self {
        Self { epoch: AtomicU64::new(next_epoch()), barriers: RwLock::default() }
    }

    /// Adds a barrier; an older one for the same selector is replaced, a newer one stays.
    pub fn add(&self, barrier: &Barrier) {
        let mut barriers = self.barriers.write().unwrap_or_else(PoisonError::into_inner);
        barriers.add(barrier);
        // Under the lock, so that whoever reads this epoch finds the barrier in the set.
        self.epoch.store(next_epoch(), Ordering::Release);
    }

    /// What the barriers say about the entry.
    ///
    /// An entry that passes is marked, and costs one atomic load until the next barrier. The mark
    /// does not say which key it passed under: an entry belongs to one key.
    #[inline]
    pub fn judge<Q: AsKey + ?Sized>(&self, key: &Q, entry: &Entry) -> Verdict {
        let epoch = self.epoch.load(Ordering::Acquire);
        if entry.passed() == epoch {
            return Verdict::Passes;
        }
        self.judge_slowly(key.key_text(), entry, epoch)
    }

    #[cold]
    fn judge_slowly(&self, key: &str, entry: &Entry, epoch: u64) -> Verdict {
        let barriers = self.barriers.read().unwrap_or_else(PoisonError::into_inner);
        if entry.as_of() <= barriers.forget.latest(key, entry) {
            return Verdict::Barred;
        }
        if !entry.is_expired() && entry.as_of() <= barriers.expire.latest(key, entry) {
            return Verdict::Expired;
        }
        // The epoch read before the look: a barrier added in between makes it out of date.
        entry.set_passed(epoch);
        Verdict::Passes
    }

    /// The entry as it may be served: as it is, expired, or not at all.
    #[inline]
    pub fn admit<Q: AsKey + ?Sized>(&self, key: &Q, entry: Entry) -> Option<Entry> {
        match self.judge(key, &entry) {
            Verdict::Passes => Some(entry),
            Verdict::Expired => Some(entry.to_expired()),
            Verdict::Barred => None,
        }
    }

    /// Whether a barrier says that the entry is never served.
    #[inline]
    pub fn covers<Q: AsKey + ?Sized>(&self, key: &Q, entry: &Entry) -> bool {
        self.judge(key, entry) == Verdict::Barred
    }

    /// Whether a barrier of any effect may cover a value of `key` whose load started at `as_of` and
    /// of which nothing else is known yet; errs towards yes.
    pub fn may_cover(&self, key: &Key, as_of: Stamp) -> bool {
        let barriers = self.barriers.read().unwrap_or_else(PoisonError::into_inner);
        as_of <= barriers.forget.of_any(key.as_str()).max(barriers.expire.of_any(key.as_str()))
    }
}

impl Default for BarrierSet {
    fn default() -> Self {
        Self::new()
    }
}

impl Barriers {
    fn add(&mut self, barrier: &Barrier) {
        match barrier.effect {
            Effect::Forget => self.forget.add(barrier),
            Effect::Expire => self.expire.add(barrier),
        }
        let len = self.forget.len() + self.expire.len();
        if len > self.prune_above.max(PRUNE_ABOVE) {
            self.forget.prune(barrier.stamp);
            self.expire.prune(barrier.stamp);
            self.prune_above = 2 * (self.forget.len() + self.expire.len());
        }
    }
}

impl Stamps {
    fn add(&mut self, barrier: &Barrier) {
        let stamp = barrier.stamp;
        let slot = match &barrier.selector {
            Selector::All => &mut self.all,
            Selector::Key(key) => self.keys.entry(key.clone()).or_default(),
            Selector::Prefix(prefix) => self.prefixes.entry(prefix.clone()).or_default(),
            Selector::Tag(tag) => {
                self.any_tag = self.any_tag.max(stamp);
                self.tags.entry(tag.clone()).or_default()
            }
            Selector::PrefixTag(prefix, tag) => {
                let below = self.any_tag_below.entry(prefix.clone()).or_default();
                *below = stamp.max(*below);
                let prefixes = self.prefix_tags.entry(tag.clone()).or_default();
                self.pairs += usize::from(!prefixes.contains_key(prefix));
                prefixes.entry(prefix.clone()).or_default()
            }
            Selector::OtherVersion(source, version) => {
                let versions = self.other_versions.entry(source.clone()).or_default();
                // An entry has one version at most: of three barriers the oldest decides nothing.
                if versions.len() > 1
                    && !versions.contains_key(version)
                    && let Some(oldest) = versions.iter().min_by_key(|(_, at)| **at)
                    && *oldest.1 < stamp
                {
                    let oldest = oldest.0.clone();
                    versions.remove(&oldest);
                }
                versions.entry(version.clone()).or_default()
            }
        };
        *slot = stamp.max(*slot);
    }

    /// How many there are of those that can become many.
    fn len(&self) -> usize {
        self.keys.len() + self.tags.len() + self.prefixes.len() + self.pairs
    }

    fn prune(&mut self, newest: Stamp) {
        let keep = |stamp: &mut Stamp| {
            stamp.instant().as_millis() > newest.instant().as_millis() - KEEP_MILLIS
        };
        self.keys.retain(|_, stamp| keep(stamp));
        self.tags.retain(|_, stamp| keep(stamp));
        self.prefixes.retain(|_, stamp| keep(stamp));
        self.prefix_tags.retain(|_, prefixes| {
            prefixes.retain(|_, stamp| keep(stamp));
            !prefixes.is_empty()
        });
        self.any_tag_below.retain(|_, stamp| keep(stamp));
        self.pairs = self.prefix_tags.values().map(HashMap::len).sum();
    }

    /// The latest over all entries of `key`.
    fn by_name(&self, key: &str) -> Stamp {
        let by_key = self.keys.get(key).copied().unwrap_or_default();
        self.all.max(by_key).max(latest_below(&self.prefixes, key))
    }

    /// The latest that may be over an entry of `key` of which nothing else is known.
    fn of_any(&self, key: &str) -> Stamp {
        let by_tag = self.any_tag.max(latest_below(&self.any_tag_below, key));
        let versions = self.other_versions.get(key::source(key)).into_iter().flatten();
        let by_version = versions.map(|(_, stamp)| *stamp).max().unwrap_or_default();
        self.by_name(key).max(by_tag).max(by_version)
    }

    /// The latest over this entry of `key`.
    fn latest(&self, key: &str, entry: &Entry) -> Stamp {
        let by_tag = entry.tags().iter().map(|tag| {
            let alone = self.tags.get(tag).copied().unwrap_or_default();
            alone.max(self.prefix_tags.get(tag).map_or(Stamp::ZERO, |by| latest_below(by, key)))
        });
        let versions = self.other_versions.get(key::source(key)).into_iter().flatten();
        let by_version = versions
            .filter(|(version, _)| entry.version() != Some(version))
            .map(|(_, stamp)| *stamp);
        by_tag.chain(by_version).fold(self.by_name(key), Stamp::max)
    }
}

/// The latest of the prefixes that `key` is below.
fn latest_below(prefixes: &HashMap<Box<str>, Stamp>, key: &str) -> Stamp {
    if prefixes.is_empty() {
        return Stamp::ZERO;
    }
    let stamps = key::prefixes(key).filter_map(|prefix| prefixes.get(prefix).copied());
    stamps.fold(Stamp::ZERO, Stamp::max)
}

fn next_epoch() -> u64 {
    NEXT_EPOCH.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(packed: u64) -> Stamp {
        Stamp::from_packed(packed)
    }

    fn tag(text: &str) -> Tag {
        Tag::new(text).unwrap()
    }

    fn entry(as_of: u64, tags: &[&str]) -> Entry {
        Entry::builder("v", stamp(as_of))
            .version(Some("2021"))
            .tags(tags.iter().map(|text| tag(text)))
            .build()
    }

    fn set(selector: Selector, at: u64) -> BarrierSet {
        let set = BarrierSet::new();
        set.add(&Barrier::forget(selector, stamp(at)));
        set
    }

    #[test]
    fn each_selector_covers_its_own_entries_up_to_its_stamp() {
        let key = Key::new("census:a");
        let cases = [
            (Selector::Key(key.clone()), true),
            (Selector::Key(Key::new("census:b")), false),
            (Selector::source("census"), true),
            (Selector::source("census_acs"), false),
            (Selector::Tag(tag("boulder-co")), true),
            (Selector::Tag(tag("denver-co")), false),
            (Selector::PrefixTag("census".into(), tag("boulder-co")), true),
            (Selector::PrefixTag("bls".into(), tag("boulder-co")), false),
            (Selector::prefix("census:a"), true),
            (Selector::prefix("census:"), true),
            (Selector::prefix("cens"), false),
            (Selector::prefix("census:a:b"), false),
            (Selector::OtherVersion("census".into(), "2022".into()), true),
            (Selector::OtherVersion("census".into(), "2021".into()), false),
            (Selector::OtherVersion("bls".into(), "2022".into()), false),
            (Selector::All, true),
        ];
        for (selector, expected) in cases {
            let set = set(selector.clone(), 10);
            for (as_of, in_time) in [(9, true), (10, true), (11, false)] {
                let entry = entry(as_of, &["boulder-co"]);
                assert_eq!(set.covers(&key, &entry), expected && in_time, "{selector} {as_of}");
                let barrier = Barrier::forget(selector.clone(), stamp(10));
                assert_eq!(barrier.covers(&key, &entry), expected && in_time, "{selector}");
            }
        }
    }

    #[test]
    fn an_entry_that_passed_is_checked_again_after_the_next_barrier() {
        let (key, entry) = (Key::new("a:b"), entry(5, &[]));
        let set = BarrierSet::new();
        assert!(!set.covers(&key, &entry));
        set.add(&Barrier::forget(Selector::All, stamp(5)));
        assert!(set.covers(&key, &entry));
    }

    #[test]
    fn passing_one_set_says_nothing_about_another() {
        let (key, entry) = (Key::new("a:b"), entry(5, &[]));
        let (open, closed) = (BarrierSet::new(), set(Selector::All, 9));
        for _ in 0..3 {
            assert!(!open.covers(&key, &entry));
            assert!(closed.covers(&key, &entry));
        }
    }

    #[test]
    fn an_older_barrier_does_not_lower_a_newer_one() {
        let set = set(Selector::All, 10);
        set.add(&Barrier::forget(Selector::All, stamp(3)));
        assert!(set.covers(&Key::new("a:b"), &entry(10, &[])));
    }

    #[test]
    fn a_load_in_flight_may_be_covered_by_any_tag() {
        let set = set(Selector::Tag(tag("x")), 10);
        assert!(set.may_cover(&Key::new("a:b"), stamp(10)));
        assert!(!set.may_cover(&Key::new("a:b"), stamp(11)));
        assert!(!BarrierSet::new().may_cover(&Key::new("a:b"), stamp(1)));
    }

    #[test]
    fn old_key_barriers_are_dropped_in_bulk_and_recent_ones_kept() {
        let set = BarrierSet::new();
        let add = |key: String, stamp| {
            set.add(&Barrier::forget(Selector::Key(Key::new(key)), stamp));
        };
        let later = Stamp::at(crate::Timestamp::from_millis(2 * KEEP_MILLIS));
        (0..=PRUNE_ABOVE).for_each(|n| add(format!("old:{n}"), stamp(7)));
        (0..=PRUNE_ABOVE + 1).for_each(|n| add(format!("new:{n}"), later));
        assert!(set.covers(&Key::new("new:0"), &entry(8, &[])));
        assert!(!set.covers(&Key::new("old:0"), &entry(7, &[])));
        assert!(set.barriers.read().unwrap().forget.keys.len() <= PRUNE_ABOVE + 2);
    }

    #[test]
    fn old_barriers_on_tags_below_prefixes_are_dropped_too() {
        let set = BarrierSet::new();
        let add = |n: usize, stamp| {
            let selector = Selector::PrefixTag(format!("s{}", n % 7).into(), tag(&n.to_string()));
            set.add(&Barrier::forget(selector, stamp));
        };
        let later = Stamp::at(crate::Timestamp::from_millis(2 * KEEP_MILLIS));
        (0..=PRUNE_ABOVE).for_each(|n| add(n, stamp(7)));
        (0..=PRUNE_ABOVE + 1).for_each(|n| add(n + PRUNE_ABOVE + 1, later));
        let barriers = set.barriers.read().unwrap();
        let left: usize = barriers.forget.prefix_tags.values().map(HashMap::len).sum();
        assert_eq!((left, barriers.forget.pairs), (PRUNE_ABOVE + 2, PRUNE_ABOVE + 2));
    }

    #[test]
    fn an_expired_entry_is_stale_and_passes_and_forgetting_is_stronger() {
        let (key, entry) = (Key::new("a:b"), entry(5, &[]));
        let set = BarrierSet::new();
        set.add(&Barrier::expire(Selector::All, stamp(5)));
        assert_eq!(set.judge(&key, &entry), Verdict::Expired);
        let expired = set.admit(&key, entry.clone()).unwrap();
        assert!(expired.is_expired());
        assert_eq!(set.judge(&key, &expired), Verdict::Passes);
        assert!(set.may_cover(&key, stamp(5)), "nobody joins a load from before");
        set.add(&Barrier::forget(Selector::Key(key.clone()), stamp(5)));
        assert_eq!(set.admit(&key, entry), None);
        assert_eq!(set.admit(&key, expired), None);
    }
}
