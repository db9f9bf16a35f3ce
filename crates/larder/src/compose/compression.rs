//! From `cache.compression`, and what sources change of it, to a compressor.

use std::sync::Arc;

use cache_core::Codec;
use codec_compress::Compressor;

use crate::{
    BuildError, CacheBuilder,
    config::{Algorithm, CacheConfig, CompressionConfig, DictionaryUse},
};

/// What compresses, and from how many bytes on; `None`: values are stored as they are.
type Choice = Option<(Arc<dyn Codec>, usize)>;

/// What the configuration means. It reads every codec that was compiled in: values that were stored
/// under another setting stay readable.
pub(super) fn compressor(config: &CacheConfig) -> Result<Compressor, BuildError> {
    let usual = &config.compression;
    let mut compressor = Compressor::new().dictionaries(usual.dictionaries != DictionaryUse::Off);
    if let Some((codec, threshold)) = codec("cache.compression", usual)? {
        compressor = compressor.codec(codec, threshold);
    }
    for source in config.sources.keys() {
        let own = config.compression_for(source);
        if own != *usual {
            let of = format!("cache.sources.{source}.compression");
            compressor = compressor.source(source, codec(&of, &own)?);
        }
        if own.dictionaries != usual.dictionaries {
            compressor = compressor.dictionaries_of(source, own.dictionaries != DictionaryUse::Off);
        }
    }
    Ok(compressor)
}

/// Has dictionaries trained as the configuration says.
#[cfg(feature = "zstd")]
pub(super) fn training(
    builder: CacheBuilder,
    config: &CacheConfig,
    compressor: Arc<Compressor>,
) -> CacheBuilder {
    let is_automatic = |of: &CompressionConfig| of.dictionaries == DictionaryUse::Auto;
    let builder =
        builder.compressor(compressor).automatic_dictionaries(is_automatic(&config.compression));
    config.sources.keys().fold(builder, |builder, source| {
        builder.automatic_dictionaries_of(source, is_automatic(&config.compression_for(source)))
    })
}

#[cfg(not(feature = "zstd"))]
pub(super) fn training(builder: CacheBuilder, _: &CacheConfig, _: Arc<Compressor>) -> CacheBuilder {
    builder
}

/// What a section means.
///
/// A `level` without an `algorithm` is on the scale of zlib, as older files have it: 0 is off, and
/// up to 6 and up to 9 mean the fast and the thorough end of what pays on JSON. Zstandard's levels
/// 1 and 3 compress such documents as far as zlib's 6 does in a tenth of the time.
fn choice(section: &CompressionConfig) -> Option<(Algorithm, u32)> {
    let level = section.level.map(u32::from);
    match (section.enable, section.algorithm, level) {
        (false, ..)
        | (_, Some(Algorithm::None), _)
        | (_, None | Some(Algorithm::Zlib), Some(0)) => None,
        (_, Some(Algorithm::Zlib), level) => Some((Algorithm::Zlib, level.unwrap_or(6))),
        (_, Some(Algorithm::Zstd), level) => Some((Algorithm::Zstd, level.unwrap_or(1))),
        (_, None, Some(7..)) => Some((Algorithm::Zstd, 3)),
        (_, None, _) => Some((Algorithm::Zstd, 1)),
    }
}

fn codec(of: &str, section: &CompressionConfig) -> Result<Choice, BuildError> {
    let Some((algorithm, level)) = choice(section) else { return Ok(None) };
    let named = section.algorithm.is_some();
    let codec = if algorithm == Algorithm::Zlib {
        zlib(of, level)?
    } else if cfg!(feature = "zstd") || named {
        zstd(of, level)?
    } else if cfg!(feature = "zlib") {
        // zlib stands in where Zstandard was not compiled in and was not asked for by name.
        zlib(of, section.level.map_or(6, u32::from))?
    } else {
        return Ok(None);
    };
    let threshold = usize::try_from(section.threshold_bytes()).unwrap_or(usize::MAX);
    Ok(Some((codec, threshold)))
}

#[cfg(feature = "zlib")]
fn zlib(of: &str, level: u32) -> Result<Arc<dyn Codec>, BuildError> {
    let codec = codec_compress::Zlib::new(level)
        .map_err(|error| BuildError::Unsupported(format!("`{of}`: {error}")))?;
    Ok(Arc::new(codec))
}

#[cfg(not(feature = "zlib"))]
fn zlib(of: &str, _: u32) -> Result<Arc<dyn Codec>, BuildError> {
    Err(super::missing(&format!("`{of}.algorithm: zlib`"), "zlib"))
}

#[cfg(feature = "zstd")]
fn zstd(of: &str, level: u32) -> Result<Arc<dyn Codec>, BuildError> {
    let codec = codec_compress::Zstd::new(level)
        .map_err(|error| BuildError::Unsupported(format!("`{of}`: {error}")))?;
    Ok(Arc::new(codec))
}

#[cfg(not(feature = "zstd"))]
fn zstd(of: &str, _: u32) -> Result<Arc<dyn Codec>, BuildError> {
    Err(super::missing(&format!("`{of}.algorithm: zstd`"), "zstd"))
}
