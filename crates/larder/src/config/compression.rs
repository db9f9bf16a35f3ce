//! `cache.compression`, and what a source changes of it.

use serde::{Deserialize, Serialize};

use super::{
    text,
    values::{Algorithm, DictionaryUse},
};

/// `cache.compression`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// Default: true.
    #[serde(deserialize_with = "text::text")]
    pub enable: bool,
    /// `None`: the build's best.
    #[serde(deserialize_with = "text::text")]
    pub algorithm: Option<Algorithm>,
    /// Smaller values, in KiB, stay as they are, unless a dictionary is used. Default: 10.
    #[serde(deserialize_with = "text::text")]
    pub threshold_kb: u64,
    /// Of the algorithm: zstd 1 to 19, else 0 to 9, zlib's scale. Default: the algorithm's own.
    #[serde(deserialize_with = "text::text")]
    pub level: Option<u8>,
    /// Whether small values are compressed with what their source's have in common; with Zstandard
    /// only. Default: `auto`.
    #[serde(deserialize_with = "text::text")]
    pub dictionaries: DictionaryUse,
}

impl CompressionConfig {
    /// The threshold in bytes.
    pub const fn threshold_bytes(&self) -> u64 {
        self.threshold_kb.saturating_mul(1024)
    }

    /// The same with what `own` says.
    #[must_use]
    pub fn changed(&self, own: &SourceCompressionConfig) -> Self {
        let algorithm = own.algorithm.or(self.algorithm);
        // A level is one of its algorithm's.
        let level = if algorithm == self.algorithm { self.level } else { None };
        Self {
            enable: own.enable.unwrap_or(self.enable),
            algorithm,
            threshold_kb: own.threshold_kb.unwrap_or(self.threshold_kb),
            level: own.level.or(level),
            dictionaries: own.dictionaries.unwrap_or(self.dictionaries),
        }
    }
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self {
            enable: true,
            algorithm: None,
            threshold_kb: 10,
            level: None,
            dictionaries: DictionaryUse::Auto,
        }
    }
}

/// `cache.sources.NAME.compression`: what is not given is as `cache.compression` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SourceCompressionConfig {
    /// Whether values are compressed.
    #[serde(deserialize_with = "text::text")]
    pub enable: Option<bool>,
    /// The algorithm; with another one than `cache.compression` has, its level does not count.
    #[serde(deserialize_with = "text::text")]
    pub algorithm: Option<Algorithm>,
    /// Smaller values, in KiB, stay as they are, unless a dictionary is used.
    #[serde(deserialize_with = "text::text")]
    pub threshold_kb: Option<u64>,
    /// Of the algorithm.
    #[serde(deserialize_with = "text::text")]
    pub level: Option<u8>,
    /// Whether dictionaries are used.
    #[serde(deserialize_with = "text::text")]
    pub dictionaries: Option<DictionaryUse>,
}
