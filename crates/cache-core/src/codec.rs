//! Codecs: how a tier makes stored bytes smaller than raw bytes.

use std::{any::Any, fmt};

use crate::DictionaryId;

/// Number that names a codec in stored data. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodecId(pub u8);

impl CodecId {
    /// Stored as it is.
    pub const RAW: Self = Self(0);
    /// An RFC 1950 (zlib) stream.
    pub const ZLIB: Self = Self(1);
    /// A Zstandard frame with its checksum on.
    pub const ZSTD: Self = Self(2);

    /// Its name in statistics and messages; `None` if it is not one of Larder's own.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::RAW => Some("raw"),
            Self::ZLIB => Some("zlib"),
            Self::ZSTD => Some("zstd"),
            _ => None,
        }
    }
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "codec {}", self.0),
        }
    }
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
    /// The codec is not known here: it was not compiled in, or a newer version wrote the frame.
    #[error("{0} is not known here")]
    UnknownCodec(CodecId),
    /// The dictionary is not known here.
    #[error("dictionary {0} is missing")]
    MissingDictionary(DictionaryId),
    /// The dictionary cannot be used.
    #[error("cannot use dictionary {id}: {reason}")]
    BadDictionary {
        /// Its number.
        id: DictionaryId,
        /// Why not.
        reason: String,
    },
}

/// Compresses and decompresses values.
///
/// It is [`Any`] so that what knows one of them, as dictionaries do, can tell whether it is that one.
pub trait Codec: Any + fmt::Debug + Send + Sync {
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
