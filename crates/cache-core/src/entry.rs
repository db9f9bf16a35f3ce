//! Entries: value bytes and what the chain must know about them.

mod packing;

use std::{
    any::{Any, type_name},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use self::packing::Packing;
use crate::{Stamp, Timestamp};

/// A label of an entry, for invalidating many entries at once.
///
/// Not empty, at most 256 bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// The text cannot be a [`Tag`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tag must have 1 to 256 bytes and no control characters, not {0:?}")]
pub struct InvalidTag(String);

impl Tag {
    const MAX_BYTES: usize = 256;

    /// The tag with this text.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidTag> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > Self::MAX_BYTES || text.chars().any(char::is_control) {
            return Err(InvalidTag(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How usable an entry is at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Before `expires_at`.
    Fresh,
    /// Before `stale_until`: usable only where policy allows.
    Stale,
    /// Never served.
    Dead,
}

/// Value bytes and their metadata; immutable, cloned by counting references.
///
/// It belongs to the one key it was made for. Times are absolute, so a copy in another tier never outlives the original.
/// Invariant: `expires_at <= stale_until`.
#[derive(Clone)]
pub struct Entry(Arc<Inner>);

/// What every entry has, kept small: there may be millions.
///
/// In this order, so that what a hit looks at lies beside the count of references that it changes.
#[repr(C)]
struct Inner {
    /// Epoch of the barrier set that last let this entry pass; see `BarrierSet`.
    passed: AtomicU64,
    /// `expires_at`, or if it is expired before every instant.
    fresh_until: Timestamp,
    expires_at: Timestamp,
    expired: bool,
    absent: bool,
    own_lifetime: bool,
    /// See [`Entry::counting_decoded`].
    counts_decoded: bool,
    /// See [`Entry::refresh_at`].
    refresh_at: AtomicI64,
    stale_until: Timestamp,
    value: Bytes,
    decoded: OnceLock<Box<Decoded>>,
    as_of: Stamp,
    loaded_at: Timestamp,
    details: Option<Box<Details>>,
}

/// What many entries do not have.
#[derive(Clone, Debug, Default)]
struct Details {
    described: Described,
    /// See [`Entry::remark`].
    remark: Option<Arc<dyn Any + Send + Sync>>,
    /// See [`Entry::renews`].
    renews: Option<Stamp>,
    packing: Option<Packing>,
}

/// What an origin, or whoever stored it, says of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Described {
    version: Option<Box<str>>,
    etag: Option<Box<str>>,
    source_last_modified: Option<Box<str>>,
    content_type: Option<Box<str>>,
    tags: Box<[Tag]>,
}

#[derive(Clone)]
struct Decoded {
    object: Arc<dyn Any + Send + Sync>,
    type_name: &'static str,
    /// Estimate of the bytes it occupies.
    weight: u64,
}

impl Entry {
    /// Starts an entry loaded at `as_of` that never expires.
    ///
    /// A value in a buffer that is larger than itself, and that nobody else holds, is copied into one
    /// of its size. One that shares a larger buffer with others keeps all of that in memory.
    pub fn builder(value: impl Into<Bytes>, as_of: Stamp) -> EntryBuilder {
        EntryBuilder {
            inner: Inner {
                value: compact(value.into()),
                as_of,
                loaded_at: as_of.instant(),
                fresh_until: Timestamp::NEVER,
                expires_at: Timestamp::NEVER,
                stale_until: Timestamp::NEVER,
                expired: false,
                absent: false,
                own_lifetime: false,
                counts_decoded: false,
                details: None,
                decoded: OnceLock::new(),
                passed: AtomicU64::new(0),
                refresh_at: AtomicI64::new(i64::MAX),
            },
            described: Described::default(),
            remark: None,
            renews: None,
            packing: None,
        }
    }

    /// Starts a copy of this entry.
    pub fn to_builder(&self) -> EntryBuilder {
        let inner = &*self.0;
        EntryBuilder {
            inner: Inner {
                value: inner.value.clone(),
                as_of: inner.as_of,
                loaded_at: inner.loaded_at,
                fresh_until: inner.fresh_until,
                expires_at: inner.expires_at,
                stale_until: inner.stale_until,
                expired: inner.expired,
                absent: inner.absent,
                own_lifetime: inner.own_lifetime,
                counts_decoded: inner.counts_decoded,
                details: None,
                decoded: inner.decoded.clone(),
                passed: AtomicU64::new(0),
                refresh_at: AtomicI64::new(i64::MAX),
            },
            described: self.described().cloned().unwrap_or_default(),
            remark: None,
            renews: self.renews(),
            packing: inner.details.as_ref().and_then(|details| details.packing.clone()),
        }
    }

    /// The same entry with its decoded object counted by [`Entry::weight`], if it has one that is
    /// not: whoever weighs entries puts it in the place of this one.
    pub fn counting_decoded(&self) -> Option<Self> {
        if self.0.counts_decoded || self.0.decoded.get().is_none() {
            return None;
        }
        let mut copy = self.to_builder();
        copy.inner.counts_decoded = true;
        let copy = copy.build();
        copy.note_refresh_at(self.refresh_at());
        Some(copy)
    }

    /// The same entry with something that whoever serves it has to say about this time; no tier
    /// stores it.
    #[must_use]
    pub fn with_remark(&self, remark: Arc<dyn Any + Send + Sync>) -> Self {
        let mut copy = self.to_builder();
        copy.remark = Some(remark);
        copy.build()
    }

    /// What was said with [`Entry::with_remark`].
    pub fn remark(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.0.details.as_ref()?.remark.as_deref()
    }

    /// The stamp of the entry under the same key whose value this one has, too: a tier that holds that
    /// one need not write the value again. It belongs to this process and is not stored.
    pub fn renews(&self) -> Option<Stamp> {
        self.0.details.as_ref()?.renews
    }

    fn described(&self) -> Option<&Described> {
        self.0.details.as_deref().map(|details| &details.described)
    }

    /// The same if it says anything.
    fn said(&self) -> Option<&Described> {
        self.described().filter(|described| **described != Described::default())
    }

    /// The same entry, never fresh again: what an [`Expire`](crate::Effect::Expire) barrier makes of
    /// it. Its limits stay as they are.
    #[must_use]
    pub fn to_expired(&self) -> Self {
        if self.0.expired { self.clone() } else { self.to_builder().expired(true).build() }
    }

    /// The value; cloning it copies no bytes.
    pub fn value(&self) -> &Bytes {
        &self.0.value
    }

    /// When the load that brought this value started.
    pub fn as_of(&self) -> Stamp {
        self.0.as_of
    }

    /// When the load ended, as the clock of its process saw it: lifetimes and ages count from here.
    pub fn loaded_at(&self) -> Timestamp {
        self.0.loaded_at
    }

    /// From when on the value is no longer fresh.
    pub fn expires_at(&self) -> Timestamp {
        self.0.expires_at
    }

    /// From when on the value is never served.
    pub fn stale_until(&self) -> Timestamp {
        self.0.stale_until
    }

    /// Whether it was made stale before its time.
    pub fn is_expired(&self) -> bool {
        self.0.expired
    }

    /// Whether it says that the origin has no answer; its value is empty.
    pub fn is_absent(&self) -> bool {
        self.0.absent
    }

    /// Whether whoever loaded or set it decided on its lifetime, rather than the source's policy.
    pub fn has_own_lifetime(&self) -> bool {
        self.0.own_lifetime
    }

    /// From when on a hit should start a refresh behind it; never unless it was noted. It belongs
    /// to this process and is not stored.
    pub fn refresh_at(&self) -> Timestamp {
        Timestamp::from_millis(self.0.refresh_at.load(Ordering::Relaxed))
    }

    /// Notes from when on a hit should start a refresh.
    pub fn note_refresh_at(&self, instant: Timestamp) {
        // All that are made of one compressed entry have one.
        if let Some(holder) = self.unpacked_from() {
            holder.0.refresh_at.store(instant.as_millis(), Ordering::Relaxed);
        }
        self.0.refresh_at.store(instant.as_millis(), Ordering::Relaxed);
    }

    /// Puts a refresh that is due off until `next`; true for one of those who try at a time, who
    /// is to do it.
    pub fn claim_refresh(&self, now: Timestamp, next: Timestamp) -> bool {
        // All that were made of one compressed entry claim the same.
        let holder = self.unpacked_from().unwrap_or(self);
        let due = holder.0.refresh_at.load(Ordering::Relaxed);
        now.as_millis() >= due
            && holder
                .0
                .refresh_at
                .compare_exchange(due, next.as_millis(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Version of the source the value was made from.
    pub fn version(&self) -> Option<&str> {
        self.described()?.version.as_deref()
    }

    /// The origin's entity tag.
    pub fn etag(&self) -> Option<&str> {
        self.described()?.etag.as_deref()
    }

    /// When the origin says the data last changed, in its own words.
    pub fn source_last_modified(&self) -> Option<&str> {
        self.described()?.source_last_modified.as_deref()
    }

    /// Media type of the value.
    pub fn content_type(&self) -> Option<&str> {
        self.described()?.content_type.as_deref()
    }

    /// Labels to invalidate by.
    pub fn tags(&self) -> &[Tag] {
        self.described().map_or(&[], |described| &described.tags)
    }

    /// The one place that compares times.
    #[inline]
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        if now < self.0.fresh_until {
            Freshness::Fresh
        } else if now < self.0.stale_until {
            Freshness::Stale
        } else {
            Freshness::Dead
        }
    }

    /// Whether both handles hold the very same stored entry.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Bytes this entry occupies in memory, without its key: value, metadata and bookkeeping, as they
    /// were when it was built. It never changes, so that what was added to a sum can be taken away.
    ///
    /// A decoded object is counted in the form that [`Entry::counting_decoded`] gives, by estimate:
    /// the size of its type, the length of the value that it was decoded from, and 32 bytes (a
    /// `serde_json::Value`) for each `,`, `:`, `[` and `{` in that. Measured with tables, series and
    /// numbers as `Value`s that is 0.4 to 1.4 of what they take.
    pub fn weight(&self) -> u64 {
        // Two counters precede what an Arc points to.
        const INNER: usize = size_of::<Inner>() + 2 * size_of::<usize>();
        let inner = &*self.0;
        let details = inner.details.as_ref().map_or(0, |details| details.described.weight());
        let decoded = inner.decoded.get().filter(|_| inner.counts_decoded);
        (INNER + inner.value.len() + details) as u64 + decoded.map_or(0, |decoded| decoded.weight)
    }

    /// The decoded value, made by `decode` at the first call and shared afterwards.
    ///
    /// # Errors
    /// What `decode` returns, or `Err(Ok(name))` with the name of the type this entry was decoded
    /// as before, if that is not `T`.
    #[inline]
    pub fn decoded<T, E>(
        &self,
        decode: impl FnOnce(&Bytes) -> Result<T, E>,
    ) -> Result<Arc<T>, Result<&'static str, E>>
    where
        T: Any + Send + Sync,
    {
        let decoded = if let Some(decoded) = self.0.decoded.get() {
            decoded
        } else {
            let object = Arc::new(decode(&self.0.value).map_err(Err)?);
            let weight = (size_of::<T>() as u64) + decoded_weight(&self.0.value);
            let decoded = Decoded { object, type_name: type_name::<T>(), weight };
            // Of two threads that decode at once, the first one's object is kept by all.
            self.0.decoded.get_or_init(|| Box::new(decoded))
        };
        Arc::downcast(Arc::clone(&decoded.object)).map_err(|_other| Ok(decoded.type_name))
    }

    #[inline]
    pub(crate) fn passed(&self) -> u64 {
        self.0.passed.load(Ordering::Acquire)
    }

    pub(crate) fn set_passed(&self, epoch: u64) {
        self.0.passed.store(epoch, Ordering::Release);
    }
}

/// Bytes that an object decoded from this text, JSON for example, may occupy beside its own size.
fn decoded_weight(text: &[u8]) -> u64 {
    const BOOKKEEPING: usize = size_of::<Decoded>() + 2 * size_of::<usize>();
    let parts = text.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    (BOOKKEEPING + text.len() + 32 * parts) as u64
}

/// The value in a buffer of about its size, as far as that can be known.
fn compact(value: Bytes) -> Bytes {
    match value.try_into_mut() {
        Ok(alone) if alone.capacity() - alone.len() > alone.len() / 32 + 16 => {
            Bytes::copy_from_slice(&alone)
        }
        Ok(alone) => alone.freeze(),
        Err(shared) => shared,
    }
}

impl Details {
    fn is_empty(&self) -> bool {
        let Self { described, remark, renews, packing } = self;
        *described == Described::default()
            && remark.is_none()
            && renews.is_none()
            && packing.is_none()
    }
}

impl Described {
    fn weight(&self) -> usize {
        let texts = [&self.version, &self.etag, &self.source_last_modified, &self.content_type];
        let texts: usize = texts.iter().filter_map(|text| text.as_deref()).map(str::len).sum();
        // Each tag is an Arc of its own.
        let tag = |tag: &Tag| tag.0.len() + size_of::<Tag>() + 2 * size_of::<usize>();
        size_of::<Details>() + texts + self.tags.iter().map(tag).sum::<usize>()
    }
}

impl PartialEq for Entry {
    /// Compares value and metadata, not bookkeeping.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        a.value == b.value
            && a.as_of == b.as_of
            && a.loaded_at == b.loaded_at
            && a.expired == b.expired
            && a.absent == b.absent
            && a.own_lifetime == b.own_lifetime
            && a.expires_at == b.expires_at
            && a.stale_until == b.stale_until
            && self.said() == other.said()
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are not printed: they may be large, and they may be personal.
        f.debug_struct("Entry")
            .field("bytes", &self.0.value.len())
            .field("as_of", &self.0.as_of)
            .field("expires_at", &self.0.expires_at)
            .field("stale_until", &self.0.stale_until)
            .field("expired", &self.0.expired)
            .field("absent", &self.0.absent)
            .field("version", &self.version())
            .field("tags", &self.tags())
            .finish_non_exhaustive()
    }
}

/// Builds an [`Entry`].
#[must_use]
pub struct EntryBuilder {
    inner: Inner,
    described: Described,
    remark: Option<Arc<dyn Any + Send + Sync>>,
    renews: Option<Stamp>,
    packing: Option<Packing>,
}

impl EntryBuilder {
    /// Fresh until this instant, and dead from then on unless [`EntryBuilder::stale_until`] is
    /// given later. Default: never expires.
    pub fn expires_at(mut self, instant: Timestamp) -> Self {
        self.inner.expires_at = instant;
        self.inner.stale_until = instant;
        self
    }

    /// Usable as a fallback until this instant; earlier than `expires_at` means `expires_at`.
    pub fn stale_until(mut self, instant: Timestamp) -> Self {
        self.inner.stale_until = instant.max(self.inner.expires_at);
        self
    }

    /// When the load ended. Default: the instant of its stamp.
    pub fn loaded_at(mut self, instant: Timestamp) -> Self {
        self.inner.loaded_at = instant;
        self
    }

    /// Whether it is stale before its time. Default: no.
    pub fn expired(mut self, expired: bool) -> Self {
        self.inner.expired = expired;
        self
    }

    /// Whether it says that the origin has no answer; its value should be empty. Default: no.
    pub fn absent(mut self, absent: bool) -> Self {
        self.inner.absent = absent;
        self
    }

    /// Whether its lifetime is its own and not its policy's. Default: no.
    pub fn own_lifetime(mut self, own: bool) -> Self {
        self.inner.own_lifetime = own;
        self
    }

    /// Version of the source. Default: none.
    pub fn version(mut self, version: Option<impl Into<Box<str>>>) -> Self {
        self.described.version = version.map(Into::into);
        self
    }

    /// The origin's entity tag. Default: none.
    pub fn etag(mut self, etag: Option<impl Into<Box<str>>>) -> Self {
        self.described.etag = etag.map(Into::into);
        self
    }

    /// When the origin says the data last changed. Default: unknown.
    pub fn source_last_modified(mut self, instant: Option<impl Into<Box<str>>>) -> Self {
        self.described.source_last_modified = instant.map(Into::into);
        self
    }

    /// Media type. Default: unknown.
    pub fn content_type(mut self, content_type: Option<impl Into<Box<str>>>) -> Self {
        self.described.content_type = content_type.map(Into::into);
        self
    }

    /// Labels, sorted and without repetition. Default: none.
    pub fn tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        let mut tags: Vec<Tag> = tags.into_iter().collect();
        tags.sort_unstable();
        tags.dedup();
        self.described.tags = tags.into_boxed_slice();
        self
    }

    /// The stamp of an entry under the same key that has the same value; see [`Entry::renews`].
    /// Default: none.
    pub fn renews(mut self, as_of: Option<Stamp>) -> Self {
        self.renews = as_of;
        self
    }

    /// The entry.
    pub fn build(mut self) -> Entry {
        let Inner { expired, expires_at, .. } = self.inner;
        let before_all = Timestamp::from_millis(i64::MIN);
        self.inner.fresh_until = if expired { before_all } else { expires_at };
        let Self { described, remark, renews, packing, .. } = self;
        let details = Details { described, remark, renews, packing };
        if !details.is_empty() {
            self.inner.details = Some(Box::new(details));
        }
        Entry(Arc::new(self.inner))
    }
}

impl fmt::Debug for EntryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryBuilder").field("as_of", &self.inner.as_of).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn freshness_changes_exactly_at_its_limits() {
        let entry =
            Entry::builder("v", Stamp::ZERO).expires_at(at(100)).stale_until(at(200)).build();
        assert_eq!(entry.freshness(at(99)), Freshness::Fresh);
        assert_eq!(entry.freshness(at(100)), Freshness::Stale, "the limit is exclusive");
        assert_eq!(entry.freshness(at(199)), Freshness::Stale);
        assert_eq!(entry.freshness(at(200)), Freshness::Dead);
    }

    #[test]
    fn an_entry_without_limits_never_expires() {
        let entry = Entry::builder("v", Stamp::ZERO).build();
        assert_eq!(entry.freshness(at(i64::MAX - 1)), Freshness::Fresh);
    }

    #[test]
    fn stale_until_is_never_before_expires_at() {
        let entry = Entry::builder("v", Stamp::ZERO).expires_at(at(100)).stale_until(at(5)).build();
        assert_eq!(entry.stale_until(), at(100));
    }

    #[test]
    fn a_value_is_decoded_once_and_another_type_is_refused_by_name() {
        let entry = Entry::builder("17", Stamp::ZERO).build();
        let parse = |bytes: &Bytes| std::str::from_utf8(bytes).unwrap().parse::<u32>();
        let first = entry.decoded(parse).unwrap();
        let second = entry.decoded::<u32, std::num::ParseIntError>(|_| panic!("again")).unwrap();
        assert_eq!(*first, 17);
        assert!(Arc::ptr_eq(&first, &second));
        let other = entry.decoded::<String, ()>(|_| Ok(String::new()));
        assert_eq!(other.unwrap_err(), Ok("u32"));
    }

    #[test]
    fn a_failed_decode_is_not_remembered() {
        let entry = Entry::builder("x", Stamp::ZERO).build();
        assert_eq!(entry.decoded::<u8, &str>(|_| Err("bad")).unwrap_err(), Err("bad"));
        assert_eq!(*entry.decoded::<u8, &str>(|_| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn tags_are_checked_sorted_and_distinct() {
        assert!(Tag::new("").is_err());
        assert!(Tag::new("a\nb").is_err());
        assert!(Tag::new("x".repeat(257)).is_err());
        let tag = |text| Tag::new(text).unwrap();
        let entry = Entry::builder("v", Stamp::ZERO).tags([tag("b"), tag("a"), tag("b")]).build();
        assert_eq!(entry.tags(), [tag("a"), tag("b")]);
    }
}
