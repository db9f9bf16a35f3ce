//! Compression as tiers see it: a value becomes a stored form, and back.

use std::{fmt, ops::RangeInclusive, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{CodecError, CodecId, Result, Timestamp};

/// Number that names a trained dictionary in stored data: the one that is in the dictionary's own
/// header, so that it is the same wherever the dictionary is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DictionaryId(pub u32);

impl DictionaryId {
    /// No dictionary.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for DictionaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What must be known of stored bytes to make the value of them; kept beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The codec that made them.
    pub codec: CodecId,
    /// The dictionary that it used.
    pub dictionary: DictionaryId,
    /// Length of the value, in bytes.
    pub raw_len: u64,
}

/// A value in its compressed form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// How to read it.
    pub form: Form,
    /// At least 5 % shorter than the value.
    pub bytes: Bytes,
}

/// What a source's small documents have in common, learnt from some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    /// Its number; not [`DictionaryId::NONE`].
    pub id: DictionaryId,
    /// The source it was trained for.
    pub source: Box<str>,
    /// The source's dictionaries are counted from 1; new entries use the last.
    pub version: u32,
    /// When it was trained.
    pub created_at: Timestamp,
    /// How many documents it was trained on.
    pub samples: u64,
    /// What the codec needs of it.
    pub content: Bytes,
}

/// What compressing one source's values with one codec and dictionary took, since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecStats {
    /// Values that were compressed.
    pub packed: u64,
    /// Their length, in bytes.
    pub raw_bytes: u64,
    /// Length of what was made of them, in bytes.
    pub stored_bytes: u64,
    /// Time spent on that, and on values that are kept as they are since they would not shrink.
    pub pack_time: Duration,
    /// Values kept as they are since they would not shrink by 5 %.
    pub kept_raw: u64,
    /// Values kept as they are since the codec failed.
    pub failed: u64,
    /// Values that were decompressed.
    pub unpacked: u64,
    /// Time spent on that.
    pub unpack_time: Duration,
}

/// Which codec's work [`CodecStats`] are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodecUse {
    /// Whose values.
    pub source: Box<str>,
    /// The codec.
    pub codec: CodecId,
    /// Its dictionary.
    pub dictionary: DictionaryId,
}

/// A dictionary that a tier keeps, and what uses it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptDictionary {
    /// The dictionary.
    pub dictionary: Dictionary,
    /// Entries that were compressed with it.
    pub entries: u64,
    /// Length of their values, in bytes.
    pub raw_bytes: u64,
    /// Length as stored, in bytes.
    pub stored_bytes: u64,
}

/// The side of a tier that keeps dictionaries beside the entries that need them.
///
/// The tier itself stores a dictionary with the first entry that uses it, knows the last one of each
/// source when it is opened, and looks one up when it reads an entry that needs it.
#[async_trait]
pub trait Dictionaries: fmt::Debug + Send + Sync + 'static {
    /// What is kept, sorted by source and version.
    async fn dictionaries(&self) -> Result<Vec<KeptDictionary>>;

    /// Keeps a dictionary, which other processes then use, too; forgets older ones of any source
    /// that no entry refers to.
    async fn keep(&self, dictionary: &Dictionary) -> Result<()>;

    /// Up to `most` values of a source, and so many bytes of them, whose lengths are within
    /// `lengths`, those stored last first; one that would be too many bytes is left out.
    async fn samples(
        &self,
        source: &str,
        lengths: RangeInclusive<u64>,
        most: usize,
        most_bytes: u64,
    ) -> Result<Vec<Bytes>>;
}

/// Decides how values are compressed, source by source, and knows how to read all that was.
///
/// One is shared by the tiers of a chain: they store the same form of a value. Calls compute and
/// never wait for I/O.
pub trait Compression: fmt::Debug + Send + Sync + 'static {
    /// The compressed form of a value of `source`; `None` if it is to be stored as it is, because
    /// it is too small, would not shrink by 5 %, or the codec failed.
    fn pack(&self, source: &str, raw: &[u8]) -> Option<Packed>;

    /// The value that `stored` is a form of.
    ///
    /// # Errors
    /// If it is not whole and undamaged, would be longer than `limit`, or its codec or dictionary is
    /// not known here. Nothing is allocated for a length above `limit`.
    fn unpack(
        &self,
        source: &str,
        form: Form,
        stored: &[u8],
        limit: u64,
    ) -> std::result::Result<Bytes, CodecError>;

    /// The same for who only looks at what is stored: it is not counted.
    ///
    /// # Errors
    /// As [`Compression::unpack`].
    fn inspect(
        &self,
        form: Form,
        stored: &[u8],
        limit: u64,
    ) -> std::result::Result<Bytes, CodecError>;

    /// Makes a dictionary known, for reading, and for new values of its source unless a later version
    /// is known already.
    ///
    /// # Errors
    /// If it is not what its codec made, or another one of its number is known.
    fn learn(&self, dictionary: &Dictionary) -> std::result::Result<(), CodecError>;

    /// A dictionary that is known here.
    fn dictionary(&self, id: DictionaryId) -> Option<Dictionary>;

    /// What was done, sorted.
    fn stats(&self) -> Vec<(CodecUse, CodecStats)>;
}
