//! Barriers: invalidations that win whatever arrives late.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Entry, Key, Stamp, Tag};

/// What an invalidation covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// One key.
    Key(Key),
    /// Every entry with this tag.
    Tag(Tag),
    /// Every entry of this source.
    Source(Box<str>),
    /// Every entry of this source that has this tag.
    SourceTag(Box<str>, Tag),
    /// Everything.
    All,
}

impl Selector {
    /// Whether it covers the entry stored under `key`, by names alone.
    pub fn selects(&self, key: &Key, entry: &Entry) -> bool {
        match self {
            Self::Key(selected) => selected == key,
            Self::Tag(tag) => entry.tags().contains(tag),
            Self::Source(source) => &**source == key.source(),
            Self::SourceTag(source, tag) => &**source == key.source() && entry.tags().contains(tag),
            Self::All => true,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Source(source) => write!(f, "source {source}"),
            Self::SourceTag(source, tag) => write!(f, "source {source} with tag {tag}"),
            Self::All => f.write_str("everything"),
        }
    }
}

/// An invalidation: entries it selects that were loaded at or before its stamp are never served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// What it covers.
    pub selector: Selector,
    /// The instant of the invalidation.
    pub stamp: Stamp,
}

impl Barrier {
    /// Whether it forbids the entry stored under `key`.
    pub fn covers(&self, key: &Key, entry: &Entry) -> bool {
        entry.as_of() <= self.stamp && self.selector.selects(key, entry)
    }
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
    all: Stamp,
    /// The latest of all tag barriers, for values whose tags are not known yet.
    any_tag: Stamp,
    keys: HashMap<Key, Stamp>,
    tags: HashMap<Tag, Stamp>,
    sources: HashMap<Box<str>, Stamp>,
    source_tags: HashMap<Tag, HashMap<Box<str>, Stamp>>,
    /// Size at which to look for old barriers again; grows with what is recent, so that a burst of
    /// invalidations does not pay for a look each.
    prune_above: usize,
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

    /// Whether a barrier covers the entry.
    ///
    /// An entry that passes is marked, and costs one atomic load until the next barrier.
    #[inline]
    pub fn covers(&self, key: &Key, entry: &Entry) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        if entry.passed() == epoch {
            return false;
        }
        self.covers_slow(key, entry, epoch)
    }

    #[cold]
    fn covers_slow(&self, key: &Key, entry: &Entry, epoch: u64) -> bool {
        let barriers = self.barriers.read().unwrap_or_else(PoisonError::into_inner);
        let covered = entry.as_of() <= barriers.latest(key, entry.tags());
        if !covered {
            // The epoch read before the look: a barrier added in between makes it out of date.
            entry.set_passed(epoch);
        }
        covered
    }

    /// Whether a barrier may cover a value of `key` whose load started at `as_of` and whose tags
    /// are not known yet; errs towards yes.
    pub fn may_cover(&self, key: &Key, as_of: Stamp) -> bool {
        let barriers = self.barriers.read().unwrap_or_else(PoisonError::into_inner);
        as_of <= barriers.latest(key, &[]).max(barriers.any_tag)
    }
}

impl Default for BarrierSet {
    fn default() -> Self {
        Self::new()
    }
}

impl Barriers {
    fn add(&mut self, barrier: &Barrier) {
        let stamp = barrier.stamp;
        let slot = match &barrier.selector {
            Selector::All => &mut self.all,
            Selector::Key(key) => self.keys.entry(key.clone()).or_default(),
            Selector::Source(source) => self.sources.entry(source.clone()).or_default(),
            Selector::Tag(tag) => {
                self.any_tag = self.any_tag.max(stamp);
                self.tags.entry(tag.clone()).or_default()
            }
            Selector::SourceTag(source, tag) => {
                self.any_tag = self.any_tag.max(stamp);
                self.source_tags.entry(tag.clone()).or_default().entry(source.clone()).or_default()
            }
        };
        *slot = stamp.max(*slot);
        if self.keys.len() + self.tags.len() > self.prune_above.max(PRUNE_ABOVE) {
            self.prune(stamp);
            self.prune_above = 2 * (self.keys.len() + self.tags.len());
        }
    }

    fn prune(&mut self, newest: Stamp) {
        let keep = |stamp: &mut Stamp| {
            stamp.instant().as_millis() > newest.instant().as_millis() - KEEP_MILLIS
        };
        self.keys.retain(|_, stamp| keep(stamp));
        self.tags.retain(|_, stamp| keep(stamp));
    }

    /// The latest barrier over entries of `key` with `tags`.
    fn latest(&self, key: &Key, tags: &[Tag]) -> Stamp {
        let by_key = self.keys.get(key).copied().unwrap_or_default();
        let by_source = self.sources.get(key.source()).copied().unwrap_or_default();
        let by_tag = tags.iter().map(|tag| {
            let alone = self.tags.get(tag).copied().unwrap_or_default();
            let with_source = self.source_tags.get(tag).and_then(|by| by.get(key.source()));
            alone.max(with_source.copied().unwrap_or_default())
        });
        by_tag.fold(self.all.max(by_key).max(by_source), Stamp::max)
    }
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
        Entry::builder("v", stamp(as_of)).tags(tags.iter().map(|text| tag(text))).build()
    }

    fn set(selector: Selector, at: u64) -> BarrierSet {
        let set = BarrierSet::new();
        set.add(&Barrier { selector, stamp: stamp(at) });
        set
    }

    #[test]
    fn each_selector_covers_its_own_entries_up_to_its_stamp() {
        let key = Key::new("census:a");
        let cases = [
            (Selector::Key(key.clone()), true),
            (Selector::Key(Key::new("census:b")), false),
            (Selector::Source("census".into()), true),
            (Selector::Source("census_acs".into()), false),
            (Selector::Tag(tag("boulder-co")), true),
            (Selector::Tag(tag("denver-co")), false),
            (Selector::SourceTag("census".into(), tag("boulder-co")), true),
            (Selector::SourceTag("bls".into(), tag("boulder-co")), false),
            (Selector::All, true),
        ];
        for (selector, expected) in cases {
            let set = set(selector.clone(), 10);
            for (as_of, in_time) in [(9, true), (10, true), (11, false)] {
                let entry = entry(as_of, &["boulder-co"]);
                assert_eq!(set.covers(&key, &entry), expected && in_time, "{selector} {as_of}");
                let barrier = Barrier { selector: selector.clone(), stamp: stamp(10) };
                assert_eq!(barrier.covers(&key, &entry), expected && in_time, "{selector}");
            }
        }
    }

    #[test]
    fn an_entry_that_passed_is_checked_again_after_the_next_barrier() {
        let (key, entry) = (Key::new("a:b"), entry(5, &[]));
        let set = BarrierSet::new();
        assert!(!set.covers(&key, &entry));
        set.add(&Barrier { selector: Selector::All, stamp: stamp(5) });
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
        set.add(&Barrier { selector: Selector::All, stamp: stamp(3) });
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
            set.add(&Barrier { selector: Selector::Key(Key::new(key)), stamp });
        };
        let later = Stamp::at(crate::Timestamp::from_millis(2 * KEEP_MILLIS));
        (0..=PRUNE_ABOVE).for_each(|n| add(format!("old:{n}"), stamp(7)));
        (0..=PRUNE_ABOVE + 1).for_each(|n| add(format!("new:{n}"), later));
        assert!(set.covers(&Key::new("new:0"), &entry(8, &[])));
        assert!(!set.covers(&Key::new("old:0"), &entry(7, &[])));
        assert!(set.barriers.read().unwrap().keys.len() <= PRUNE_ABOVE + 2);
    }
}
