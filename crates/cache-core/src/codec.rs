//! Codecs: how a tier makes stored bytes smaller than raw bytes.

use std::fmt;

/// Number that names a codec in stored data. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodecId(pub u8);

impl CodecId {
    /// Stored as it is.
    pub const RAW: Self = Self(0);
    /// An RFC 1950 (zlib) stream.
    pub const ZLIB: Self = Self(1);
    /// A Zstandard frame with its checksum on.
    pub const ZSTD: Self = Self(2);
}

/// Why bytes could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are not a whole, undamaged frame of the declared length.
    #[error("damaged {codec} frame: {reason}")]
    Corrupt {
        /// Name of the codec.
        codec: &'static str,
        /// What was found.
        reason: String,
    },
    /// The declared length is above what the reader accepts.
    #[error("declared length of {declared} bytes is above the limit of {limit}")]
    TooLarge {
        /// Length the frame's metadata declares, in bytes.
        declared: u64,
        /// Largest length accepted, in bytes.
        limit: u64,
    },
    /// The encoder failed.
    #[error("cannot encode with {codec}: {reason}")]
    Encode {
        /// Name of the codec.
        codec: &'static str,
        /// What it said.
        reason: String,
    },
}

/// Compresses and decompresses values.
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// The number stored beside what this codec wrote.
    fn id(&self) -> CodecId;

    /// Its name in statistics and messages.
    fn name(&self) -> &'static str;

    /// The encoded bytes, or `None` when they would not be at least 5 % smaller than `raw`.
    fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError>;

    /// The raw bytes of `stored`, which must be exactly `raw_len` long.
    ///
    /// `raw_len` is checked against `limit` before anything is allocated, and decoding never
    /// produces more than `raw_len` bytes, so a hostile frame cannot exhaust memory.
    fn decode(&self, stored: &[u8], raw_len: u64, limit: u64) -> Result<Vec<u8>, CodecError>;
}
