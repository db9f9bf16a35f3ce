//! Larder's codecs: zlib and zstd frames, bounded on decoding.
//!
//! Each codec is behind the feature of its name. Both verify the checksum that their frames carry,
//! and both keep their contexts per thread: for values of a few KB, setting one up costs more than
//! compressing.

#[cfg(any(feature = "zlib", feature = "zstd"))]
mod frame;
#[cfg(feature = "zlib")]
mod zlib;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(any(feature = "zlib", feature = "zstd"))]
pub use crate::frame::InvalidLevel;
#[cfg(feature = "zlib")]
pub use crate::zlib::Zlib;
#[cfg(feature = "zstd")]
pub use crate::zstd::Zstd;
