//! Larder's compression: zlib and zstd frames, bounded on decoding, and trained dictionaries.
//!
//! [`Compressor`] decides which value is compressed how, and reads all that was. Each codec is
//! behind the feature of its name. Both verify the checksum that their frames carry, and both keep
//! their contexts per thread: for values of a few KB, setting one up costs more than compressing.
//!
//! Dictionaries hold what a source's small documents have in common; [`train`] makes them.

mod compressor;
#[cfg_attr(not(feature = "zstd"), path = "no_dictionaries.rs")]
mod dictionaries;
#[cfg(any(feature = "zlib", feature = "zstd"))]
mod frame;
mod statistics;
#[cfg(feature = "zstd")]
mod training;
#[cfg(feature = "zlib")]
mod zlib;
#[cfg(feature = "zstd")]
mod zstd;

pub use crate::compressor::{Compressor, DICTIONARY_THRESHOLD};
#[cfg(any(feature = "zlib", feature = "zstd"))]
pub use crate::frame::InvalidLevel;
#[cfg(feature = "zstd")]
pub use crate::training::{TrainError, train};
#[cfg(feature = "zlib")]
pub use crate::zlib::Zlib;
#[cfg(feature = "zstd")]
pub use crate::zstd::Zstd;
